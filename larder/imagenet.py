"""Mean and standard deviation of ImageNet's red, green and blue channels, in 0..1.

They are those of `torchvision.models.ResNet50_Weights.IMAGENET1K_V1.transforms()`, in a module that doesn't import
torchvision, which takes a second and 180 MB.
"""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
