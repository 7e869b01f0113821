"""Loaders: a data set's images as batches, whatever layout they lie in.

One module per layout, each with one class:

    image_folder.ImageFolderLoader    image files in class folders, on a disk or a mount     torch
    objects.ObjectLoader              one object per image in a bucket                       s3fs, torch
    shards.ShardLoader                WebDataset tar shards in a bucket                      s3fs, torch
    chunks.ChunkLoader                LitData chunks in a bucket, through a cache on disk    litdata, s3fs, torch

The last column has the extras that each needs: `pip install 'larder-data[s3fs,torch]'`. ShardLoader with
`library="webdataset"` needs webdataset, too.

All give the same batches, in other orders, and are used alike: see `loader.Loader`. Importing these modules is cheap;
torch, torchvision and a layout's own library are imported when a loader is made, after its input was checked.

Train from shards in a bucket, with the store's address and keys in S3_ENDPOINT_URL, AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY:

    import torch
    from larder.loaders.shards import ShardLoader

    loader = ShardLoader("s3://my-bucket/photos-webdataset", "training", batch_size=64)
    network = torch.nn.Sequential(torch.nn.AvgPool2d(16), torch.nn.Flatten(), torch.nn.Linear(588, len(loader.classes)))
    optimizer = torch.optim.Adam(network.parameters())
    for images, labels in loader:
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
"""
