"""MONAI's U-Net as a plug-in; it needs `pip install monai`."""

from monai.networks.nets import UNet

from AirwaySegLib.networks.architectures import register_network


def monai_unet(in_channels: int, classes: int, norm: str) -> UNet:
    """Five levels, so four halvings: patches and windows have sides that are multiples of 16."""
    return UNet(3, in_channels, classes, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), norm=norm)


register_network("monai_unet", monai_unet, side_multiple=16)
