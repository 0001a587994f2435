"""A plain 3-D U-Net as a plug-in: airwayseg-train fit --plugin plain_unet.py --recipe plain_unet.toml ...

Çiçek et al., 3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation, MICCAI 2016, arXiv:1606.06650.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from AirwaySegLib.networks.architectures import register_network

CHANNELS = (8, 16, 32, 64)


def block(in_channels: int, out_channels: int, norm: str) -> nn.Sequential:
    """Two 3x3x3 convolutions, each with normalisation and ReLU."""
    kind = nn.BatchNorm3d if norm == "batch" else nn.InstanceNorm3d
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers += [nn.Conv3d(channels, out_channels, 3, padding=1), kind(out_channels), nn.ReLU()]
    return nn.Sequential(*layers)


class PlainUNet(nn.Module):
    """Four levels, one head."""

    def __init__(self, in_channels: int, classes: int, norm: str) -> None:
        super().__init__()
        pairs = list(zip(CHANNELS[:-1], CHANNELS[1:], strict=True))
        self.first = block(in_channels, CHANNELS[0], norm)
        self.down = nn.ModuleList(block(small, large, norm) for small, large in pairs)
        self.up = nn.ModuleList(block(large + small, small, norm) for small, large in reversed(pairs))
        self.head = nn.Conv3d(CHANNELS[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) in [0, 1] -> logits (B, K, Z, Y, X)."""
        levels = [self.first(x)]
        for down in self.down:
            levels.append(down(functional.max_pool3d(levels[-1], 2)))
        x = levels.pop()
        for up in self.up:
            x = functional.interpolate(x, scale_factor=2, mode="trilinear")
            x = up(torch.cat((x, levels.pop()), dim=1))
        return self.head(x)


register_network("plain_unet", PlainUNet, side_multiple=8)  # three halvings
