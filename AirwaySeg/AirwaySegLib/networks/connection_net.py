"""The connection network: from CT and breakage attention to the voxels missing between two pieces of an airway tree.

The second stage of DeepTree (Accurate Airway Tree Segmentation in CT Scans via Anatomy-aware Multi-class Segmentation
and Deep Breakage Connection), section 2.2: a U-Net with three halvings. Letters: B patches, C channels, (Z, Y, X)
voxels.
"""

import copy

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.networks.wingsnet import SIDE_MULTIPLE, SMALLEST_SIDE, Norm

WIDTHS = (16, 32, 64, 128)
"""Channels of the levels, from full resolution to an eighth of it: few where a convolution is expensive."""

RARE = -4.0
"""Initial bias of the logit: fewer than one in a hundred voxels are missing."""

IN_CHANNELS = 2
"""CT and attention."""


class Layer(nn.Module):
    """3x3x3 convolution, batch normalisation, LeakyReLU(0.01)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm: nn.Module = nn.BatchNorm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C in, Z, Y, X) -> (B, C out, Z, Y, X)."""
        return functional.leaky_relu(self.norm(self.convolution(x)), 0.01, inplace=True)


class Connector(nn.Module):
    """U-Net of four levels, with two layers per level down and up, and one at the first level down.

    Normalised by running statistics, so that the prediction at a gap does not depend on the other patches or on the
    rest of its patch. On the way up, features are reduced to the level's width by a 1x1x1 convolution, upsampled, and
    added to those of the way down: compared with concatenation this halves the work at full resolution, which takes
    most of the time.
    """

    in_channels, classes = IN_CHANNELS, 1
    norm: Norm = "batch"

    def __init__(self) -> None:
        super().__init__()
        into = (IN_CHANNELS, *WIDTHS)
        self.down = nn.ModuleList(nn.Sequential(Layer(a, b), Layer(b, b)) for a, b in zip(into, WIDTHS))
        self.down[0] = Layer(IN_CHANNELS, WIDTHS[0])
        upwards = list(zip(WIDTHS[:0:-1], WIDTHS[-2::-1], strict=True))
        self.mix = nn.ModuleList(nn.Conv3d(deep, width, 1) for deep, width in upwards)
        self.up = nn.ModuleList(nn.Sequential(Layer(b, b), Layer(b, b)) for _, b in upwards)
        self.head = nn.Conv3d(WIDTHS[0], 1, 1)
        nn.init.constant_(self.head.get_parameter("bias"), RARE)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of "airway is missing here".

        Parameters
        ----------
        x
            (B, 2, Z, Y, X): the CT within the window as 0..1, and the attention 0..1; sides are multiples of 8.

        Returns
        -------
        Tensor
            (B, 1, Z, Y, X).
        """
        check_patch(x)
        skips = []
        for level, layers in enumerate(self.down):
            x = layers(functional.max_pool3d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for mix, layers in zip(self.mix, self.up, strict=True):
            wide = functional.interpolate(mix(x), scale_factor=2.0, mode="nearest")
            x = layers(wide + skips.pop())
        return self.head(x)


def fast_form(connector: Connector) -> Connector:
    """The network for inference, with the normalisation folded into the convolutions; the same logits up to rounding.

    The weights are copied; `connector` is not changed and can still be trained.
    """
    fast = copy.deepcopy(connector).eval()
    for layer in fast.modules():
        if isinstance(layer, Layer) and isinstance(layer.norm, nn.BatchNorm3d):
            layer.convolution = fuse_conv_bn_eval(layer.convolution, layer.norm)
            layer.norm = nn.Identity()
    return fast


def check_patch(x: Tensor) -> None:
    """Raise AirwaySegError for a tensor of channels or sides that the network cannot take."""
    sides_fit = all(side % SIDE_MULTIPLE == 0 and side >= SMALLEST_SIDE for side in x.shape[2:])
    if x.ndim != 5 or x.shape[1] != IN_CHANNELS or not sides_fit:
        raise AirwaySegError(
            f"The connection network takes patches of {IN_CHANNELS} channels whose sides are multiples of "
            f"{SIDE_MULTIPLE} from {SMALLEST_SIDE} on, not a tensor of {tuple(x.shape)}."
        )
