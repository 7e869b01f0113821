"""Load a dataset's images as batches, from any layout.

One module per layout, each with one class:

    image_folder.ImageFolderLoader    image files in class folders, on a disk or a mount     torch
    objects.ObjectLoader              one object per image in a bucket                       s3fs, torch
    shards.ShardLoader                WebDataset tar shards in a bucket                      s3fs, torch
    fast_shards.FastShardLoader       the same by `larder.stream`, the fast reader           stream, torch
    chunks.ChunkLoader                LitData chunks in a bucket, through a cache on disk    litdata, s3fs, torch

The last column lists the extras to install: `pip install 'larder-data[s3fs,torch]'`. ShardLoader with
`library="webdataset"` also needs webdataset.

All loaders share the interface `loader.Loader` and yield the same kind of batches; only the order differs. Importing
these modules is cheap: a loader imports torch, torchvision and its layout's library when it is constructed, after it
has checked its input.

To train from shards in a bucket, set S3_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and run:

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
