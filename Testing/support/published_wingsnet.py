"""The published form of WingsNet written out plainly from the paper's table: the oracle of tests and benchmarks.

Its state dict has the published layout (ec1.conv1.weight ... dc0_1.0.bias). Nothing is folded or reordered here.
With norm="batch" the same network has batch normalisation, which was not published.
"""

import torch
from torch import Tensor, nn

from AirwaySegLib.networks.wingsnet import WingsNet, published_names


class PublishedBlock(nn.Module):
    """Convolution, normalisation, LeakyReLU, one or two gates; and the two upsampled pyramid channels."""

    def __init__(self, channels: tuple[int, int], dilation: int, gates: int, up: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(*channels, kernel_size=3, padding=dilation, dilation=dilation)
        self.norm = nn.InstanceNorm3d(channels[1]) if norm == "instance" else nn.BatchNorm3d(channels[1])
        self.relu = nn.LeakyReLU(0.01)
        self.conv_se = nn.Conv3d(channels[1], 1, kernel_size=1, bias=False)
        self.conv_se2 = nn.Conv3d(channels[1], 1, kernel_size=1, bias=False) if gates == 2 else None
        self.conv2 = nn.Conv3d(channels[1], 2, kernel_size=1)
        self.up = nn.Upsample(scale_factor=up, mode="trilinear", align_corners=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.relu(self.norm(self.conv1(x)))
        x = x * torch.sigmoid(self.conv_se(x))
        if self.conv_se2 is not None:
            x = x * torch.sigmoid(self.conv_se2(x))
        return x, self.up(self.conv2(x))


class PublishedWingsNet(nn.Module):
    """Both heads' logits; the channel dropout is handed in as `drop` so that a test can choose it."""

    def __init__(self, in_channels: int = 1, classes: int = 1, norm: str = "instance") -> None:
        super().__init__()
        self.ec1 = PublishedBlock((in_channels, 8), 1, 1, 1, norm)
        self.ec2 = PublishedBlock((8, 16), 1, 1, 1, norm)
        self.ec3 = PublishedBlock((16, 32), 2, 1, 1, norm)
        self.ec4 = PublishedBlock((32, 32), 1, 2, 2, norm)
        self.ec5 = PublishedBlock((32, 32), 2, 2, 2, norm)
        self.ec6 = PublishedBlock((32, 64), 2, 2, 2, norm)
        self.ec7 = PublishedBlock((64, 64), 1, 2, 4, norm)
        self.ec8 = PublishedBlock((64, 64), 2, 2, 4, norm)
        self.ec9 = PublishedBlock((64, 64), 2, 2, 4, norm)
        self.ec10 = PublishedBlock((64, 64), 1, 2, 8, norm)
        self.ec11 = PublishedBlock((64, 64), 1, 2, 8, norm)
        self.ec12 = PublishedBlock((64, 64), 1, 2, 8, norm)
        self.dc1 = PublishedBlock((128, 64), 1, 2, 4, norm)
        self.dc2 = PublishedBlock((64, 64), 1, 2, 4, norm)
        self.dc3 = PublishedBlock((128, 64), 1, 2, 2, norm)
        self.dc4 = PublishedBlock((64, 32), 1, 2, 2, norm)
        self.dc5 = PublishedBlock((64, 32), 1, 1, 1, norm)
        self.dc6 = PublishedBlock((32, 16), 1, 1, 1, norm)
        self.pool = nn.MaxPool3d(2)
        self.up = nn.Upsample(scale_factor=2, mode="trilinear", align_corners=True)
        self.dc0_0 = nn.Sequential(nn.Conv3d(24, classes, kernel_size=1))
        self.dc0_1 = nn.Sequential(nn.Conv3d(12, classes, kernel_size=1))

    def forward(self, x: Tensor, drop: tuple[Tensor | float, Tensor | float] = (1.0, 1.0)) -> tuple[Tensor, Tensor]:
        e1, s1 = self.ec1(x)
        e2, s2 = self.ec2(e1)
        e3, s3 = self.ec3(e2)
        e4, s4 = self.ec4(self.pool(e3))
        e5, s5 = self.ec5(e4)
        e6, s6 = self.ec6(e5)
        e7, s7 = self.ec7(self.pool(e6))
        e8, s8 = self.ec8(e7)
        e9, s9 = self.ec9(e8)
        e10, s10 = self.ec10(self.pool(e9))
        e11, s11 = self.ec11(e10)
        e12, s12 = self.ec12(e11)
        d1, t1 = self.dc1(torch.cat((self.up(e12), e9), dim=1))
        d2, t2 = self.dc2(d1)
        d3, t3 = self.dc3(torch.cat((self.up(d2), e6), dim=1))
        d4, t4 = self.dc4(d3)
        d5, t5 = self.dc5(torch.cat((self.up(d4), e3), dim=1))
        _, t6 = self.dc6(d5)
        encoder = torch.cat((s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12), dim=1)
        decoder = torch.cat((t1, t2, t3, t4, t5, t6), dim=1)
        return self.dc0_0(encoder * drop[0]), self.dc0_1(decoder * drop[1])


def as_published(net: WingsNet) -> PublishedWingsNet:
    """The plain form with the weights of `net`, in evaluation mode."""
    published = PublishedWingsNet(net.in_channels, net.classes, net.norm)
    ours = net.state_dict()
    state = {theirs: ours.pop(name) for theirs, name in published_names()}
    for name in list(ours):  # what is left belongs to batch normalisation, for instance encoder.0.norm.running_mean
        group, index, rest = name.split(".", 2)
        state[f"{group[0]}c{int(index) + 1}.{rest}"] = ours.pop(name)
    published.load_state_dict(state)
    return published.eval()
