"""WingsNet: the network, its equivalent fast form for inference, and the conversion of published state dicts.

Zheng et al., Alleviating Class-wise Gradient Imbalance for Pulmonary Airway Segmentation, IEEE Transactions on Medical
Imaging 40 (2021), doi:10.48550/arXiv.2011.11952. Letters: B windows, C channels, K classes, (Z, Y, X) voxels.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from AirwaySegLib.errors import AirwaySegError

Norm = Literal["instance", "batch"]

SIDE_MULTIPLE = 8
"""Three halvings, so every side of a window is a multiple of 8."""

SMALLEST_SIDE = 16
"""A window of 8 would leave one voxel at the deepest level, whose variance cannot be computed."""


@dataclass(frozen=True)
class BlockPlan:
    """One row of the architecture: channels in and out, dilation, number of spatial gates, and the level's scale."""

    in_channels: int
    out_channels: int
    dilation: int
    gates: int
    scale: int


ENCODER = (
    BlockPlan(1, 8, 1, 1, 1),
    BlockPlan(8, 16, 1, 1, 1),
    BlockPlan(16, 32, 2, 1, 1),
    BlockPlan(32, 32, 1, 2, 2),
    BlockPlan(32, 32, 2, 2, 2),
    BlockPlan(32, 64, 2, 2, 2),
    BlockPlan(64, 64, 1, 2, 4),
    BlockPlan(64, 64, 2, 2, 4),
    BlockPlan(64, 64, 2, 2, 4),
    BlockPlan(64, 64, 1, 2, 8),
    BlockPlan(64, 64, 1, 2, 8),
    BlockPlan(64, 64, 1, 2, 8),
)

DECODER = (
    BlockPlan(128, 64, 1, 2, 4),
    BlockPlan(64, 64, 1, 2, 4),
    BlockPlan(128, 64, 1, 2, 2),
    BlockPlan(64, 32, 1, 2, 2),
    BlockPlan(64, 32, 1, 1, 1),
    BlockPlan(32, 16, 1, 1, 1),
)


def narrowed(plans: tuple[BlockPlan, ...], width: float) -> tuple[BlockPlan, ...]:
    """The rows with ``width`` times the channels."""
    return tuple(
        replace(plan, in_channels=round(width * plan.in_channels), out_channels=round(width * plan.out_channels))
        for plan in plans
    )


SIDE_CHANNELS = 2
"""Every block gives two channels to the pyramid of its group."""


class ConvBlock(nn.Module):
    """3x3x3 convolution, normalisation, LeakyReLU(0.01), spatial gates; beside them its share of the pyramid."""

    def __init__(self, plan: BlockPlan, norm: Norm) -> None:
        super().__init__()
        self.plan = plan
        channels = plan.out_channels
        self.convolution = nn.Conv3d(plan.in_channels, channels, 3, padding=plan.dilation, dilation=plan.dilation)
        self.norm = nn.InstanceNorm3d(channels) if norm == "instance" else nn.BatchNorm3d(channels)
        self.gates = nn.ModuleList(nn.Conv3d(channels, 1, 1, bias=False) for _ in range(plan.gates))
        self.side = nn.Conv3d(channels, SIDE_CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C in, Z, Y, X) -> gated features (B, C out, Z, Y, X). `Head` applies the pyramid's convolution `side`."""
        x = functional.leaky_relu(self.norm(self.convolution(x)), 0.01, inplace=True)
        for gate in self.gates:
            x = x * torch.sigmoid(gate(x))
        return x


def conv_blocks(blocks: nn.ModuleList) -> Iterator[ConvBlock]:
    """The list's blocks with their type."""
    for block in blocks:
        assert isinstance(block, ConvBlock)
        yield block


class Head(nn.Module):
    """The pyramid of one group: upsample every block's two channels, concatenate, drop channels, 1x1x1 convolution.

    All of this is linear and the dropout drops whole channels, so the order can be changed without changing the result:
    for each block, the side convolution, the dropout's scale and the head's slice are one C -> K convolution; the
    blocks of one scale are summed; only K channels per scale are upsampled, instead of two per block.
    """

    def __init__(self, plans: tuple[BlockPlan, ...], classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.convolution = nn.Conv3d(SIDE_CHANNELS * len(plans), classes, 1)

    def forward(self, features: list[Tensor], blocks: nn.ModuleList) -> Tensor:
        """Features of the group's blocks, each (B, C, Z / scale, Y / scale, X / scale) -> logits (B, K, Z, Y, X)."""
        scale = self.channel_scale(features[0])
        per_scale: dict[int, Tensor] = {}
        for index, (block, x) in enumerate(zip(conv_blocks(blocks), features, strict=True)):
            weight, bias = self.folded(block.side, index, scale)
            share = torch.baddbmm(bias[:, :, None].to(x.dtype), weight.to(x.dtype), x.flatten(2))
            share = share.unflatten(2, x.shape[2:])
            at = block.plan.scale
            per_scale[at] = per_scale[at] + share if at in per_scale else share
        return sum_of_scales(per_scale) + self.convolution.get_parameter("bias")[:, None, None, None]

    def channel_scale(self, x: Tensor) -> Tensor:
        """Dropout's factor per window and pyramid channel (B, 2 x blocks): all 1 outside training.

        Per window, as `nn.Dropout3d`: the expected factor is 1 whatever the batch size.
        """
        ones = torch.ones(x.shape[0], self.convolution.in_channels, device=x.device)
        return functional.dropout(ones, self.dropout, self.training)

    def folded(self, side: nn.Conv3d, index: int, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Side convolution and head slice of block `index` as one: weight (B, K, C) and bias (B, K), per window."""
        own = slice(SIDE_CHANNELS * index, SIDE_CHANNELS * (index + 1))
        head = self.convolution.weight[None, :, own, 0, 0, 0] * scale[:, None, own]
        weight = (head[..., None] * side.weight[None, None, :, :, 0, 0, 0]).sum(2)
        bias = (head * side.get_parameter("bias")).sum(2)
        return weight, bias


def sum_of_scales(per_scale: Mapping[int, Tensor]) -> Tensor:
    """Upsample each scale's maps to full resolution (trilinear, corners aligned) and add them."""
    maps = (x if scale == 1 else upsample(x, scale) for scale, x in sorted(per_scale.items()))
    total = next(maps)
    for x in maps:
        total = total + x
    return total


def upsample(x: Tensor, scale: int) -> Tensor:
    """Trilinear with aligned corners, the sides times `scale`."""
    return functional.interpolate(x, scale_factor=scale, mode="trilinear", align_corners=True)


class WingsNet(nn.Module):
    """Two groups of blocks, encoder and decoder, each with its own pyramid and head.

    Parameters
    ----------
    in_channels
        1 for the CT in one window, 2 for the CT in two windows.
    classes
        1, or 3 for trachea and main bronchi / to segmental / small.
    norm
        "instance" as published (no affine weights, no running statistics) or "batch" (affine, running statistics).
    dropout
        Probability that a pyramid channel of a window is dropped in training.
    width
        Factor for the channels of all blocks, a multiple of 1/8; the operations fall with its square.
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 1,
        norm: Norm = "instance",
        dropout: float = 0.3,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        self.in_channels, self.classes, self.norm = in_channels, classes, norm
        first, *others = narrowed(ENCODER, width)  # the image has as many channels at any width
        encoder, decoder = (replace(first, in_channels=in_channels), *others), narrowed(DECODER, width)
        self.encoder = nn.ModuleList(ConvBlock(plan, norm) for plan in encoder)
        self.decoder = nn.ModuleList(ConvBlock(plan, norm) for plan in decoder)
        self.encoder_head = Head(encoder, classes, dropout)
        self.decoder_head = Head(decoder, classes, dropout)

    def set_dropout(self, share: float) -> None:
        """Set the dropout of both heads."""
        self.encoder_head.dropout = self.decoder_head.dropout = share

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of both heads.

        Parameters
        ----------
        x
            (B, C, Z, Y, X) float in [0, 1]; sides are multiples of 8 and at least 16.

        Returns
        -------
        tuple
            Encoder logits and decoder logits, each (B, K, Z, Y, X). Inference uses the decoder's.
        """
        check_window(x, self.in_channels)
        encoded = list(encode(self.encoder, x))
        decoded = list(decode(self.decoder, [encoded[index] for index in SKIPS]))
        return self.encoder_head(encoded, self.encoder), self.decoder_head(decoded, self.decoder)


SKIPS = (2, 5, 8, 11)
"""The encoder blocks (from 0) whose features the decoder takes: the last of each level."""


def encode(blocks: nn.ModuleList, x: Tensor) -> Iterator[Tensor]:
    """Features of ec1 to ec12; before ec4, ec7 and ec10 the sides are halved by max-pooling."""
    for index, block in enumerate(blocks):
        if index in (3, 6, 9):
            x = functional.max_pool3d(x, 2)
        x = block(x)
        yield x


def decode(blocks: nn.ModuleList, skips: list[Tensor]) -> Iterator[Tensor]:
    """Features of dc1 to dc6 from those of ec3, ec6, ec9, ec12, which are removed from the list to free memory."""
    x = skips.pop()
    for index, block in enumerate(blocks):
        if index % 2 == 0:
            x = torch.cat((upsample(x, 2), skips.pop()), dim=1)
        x = block(x)
        yield x


def check_window(x: Tensor, in_channels: int) -> None:
    """Raise AirwaySegError for a tensor of channels or sides that the network cannot take."""
    if x.ndim != 5 or x.shape[1] != in_channels:
        raise AirwaySegError(
            f"The network takes windows of {in_channels} channel(s), not a tensor of {tuple(x.shape)}."
        )
    for axis, side in zip("zyx", x.shape[2:], strict=True):
        if side % SIDE_MULTIPLE or side < SMALLEST_SIDE:
            raise AirwaySegError(
                f"Window axis {axis} has {side} voxels; the network takes multiples of {SIDE_MULTIPLE} "
                f"from {SMALLEST_SIDE} on."
            )


class FastBlock(nn.Module):
    """A block for inference: batch normalisation folded into the convolution, and K instead of two side channels."""

    def __init__(self, block: ConvBlock) -> None:
        super().__init__()
        plan = block.plan
        self.normalise = isinstance(block.norm, nn.InstanceNorm3d)
        # Instance normalisation subtracts the mean, and with it any bias.
        self.convolution = nn.Conv3d(
            plan.in_channels,
            plan.out_channels,
            3,
            padding=plan.dilation,
            dilation=plan.dilation,
            bias=not self.normalise,
        )
        weight = block.convolution.weight.detach().clone()
        if isinstance(block.norm, nn.BatchNorm3d):
            factor, offset = batch_norm_as_affine(block.norm)
            weight *= factor[:, None, None, None, None]
            bias = block.convolution.get_parameter("bias").detach() * factor + offset
            self.convolution.bias = nn.Parameter(bias)
        self.convolution.weight = nn.Parameter(weight)
        self.gates = copy.deepcopy(block.gates)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C in, Z, Y, X) -> gated features (B, C out, Z, Y, X); works in place, so not for training."""
        x = self.convolution(x)
        if self.normalise:
            x = functional.instance_norm(x)
        x = functional.leaky_relu_(x, 0.01)
        for gate in self.gates:
            x.mul_(gate(x).sigmoid_())
        return x


def batch_norm_as_affine(norm: nn.BatchNorm3d) -> tuple[Tensor, Tensor]:
    """Factor and offset per channel that are equivalent to the running statistics."""
    factor = norm.weight.detach() * torch.rsqrt(norm.get_buffer("running_var") + norm.eps)
    return factor, norm.bias.detach() - norm.get_buffer("running_mean") * factor


class FastWingsNet(nn.Module):
    """The decoder's logits only, equal to those of a `WingsNet` in evaluation mode up to rounding. See `fast_form`."""

    def __init__(self, net: WingsNet) -> None:
        super().__init__()
        self.in_channels, self.classes = net.in_channels, net.classes
        self.encoder = nn.ModuleList(FastBlock(block) for block in conv_blocks(net.encoder))
        self.decoder = nn.ModuleList(FastBlock(block) for block in conv_blocks(net.decoder))
        head = net.decoder_head.convolution
        self.sides = nn.ModuleList()
        total_bias = head.get_parameter("bias").detach().clone()
        for index, block in enumerate(conv_blocks(net.decoder)):
            weight, bias = net.decoder_head.folded(block.side, index, head.weight.new_ones(1, head.in_channels))
            side = nn.Conv3d(block.plan.out_channels, net.classes, 1, bias=False)
            side.weight = nn.Parameter(weight.detach()[0, :, :, None, None, None].clone())
            self.sides.append(side)
            total_bias += bias.detach()[0]
        self.bias = nn.Parameter(total_bias)
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> decoder logits (B, K, Z, Y, X)."""
        check_window(x, self.in_channels)
        skips = [features for index, features in enumerate(encode(self.encoder, x)) if index in SKIPS]
        per_scale: dict[int, Tensor] = {}
        for side, plan, features in zip(self.sides, DECODER, decode(self.decoder, skips), strict=True):
            share = side(features)
            per_scale[plan.scale] = per_scale[plan.scale] + share if plan.scale in per_scale else share
        return sum_of_scales(per_scale) + self.bias[:, None, None, None]


def fast_form(net: WingsNet) -> FastWingsNet:
    """The network for inference: same decoder logits (difference about 1e-6), less work and memory.

    The encoder's head is left out, each decoder block's side convolution and its slice of the head become one
    convolution, blocks of one scale are summed before the upsampling, and with norm="batch" the running statistics are
    folded into the convolutions. The weights are copied; `net` is not changed and can still be trained.
    """
    return FastWingsNet(net).eval()


def published_to_ours(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int, int]:
    """Rename the authors' state dict for `WingsNet(norm="instance")`.

    Parameters
    ----------
    state_dict
        Keys `ec1.conv1.weight` ... `dc0_1.0.bias`, with or without the prefix "module." of a parallel training; or
        with the keys of the heads as in `has_bare_heads`.

    Returns
    -------
    tuple
        The renamed state dict, the number of input channels and the number of classes, both read from the shapes.

    Raises
    ------
    AirwaySegError
        For the first key that is missing, unknown, or of the wrong shape.
    """
    published = _with_wrapped_heads(state_dict)
    for key in ("ec1.conv1.weight", "dc0_1.0.weight"):
        if key not in published:
            raise AirwaySegError(f"The checkpoint is not a published WingsNet: it lacks {key}.")
        if not isinstance(published[key], Tensor) or published[key].ndim != 5:
            raise AirwaySegError(f"The checkpoint is not a published WingsNet: {key} is not a 3-D convolution.")
    in_channels, classes = published["ec1.conv1.weight"].shape[1], published["dc0_1.0.weight"].shape[0]
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in WingsNet(in_channels, classes).state_dict().items()}
    ours: dict[str, Tensor] = {}
    for key, name in published_names():
        if key not in published:
            raise AirwaySegError(f"The checkpoint is not a published WingsNet: it lacks {key}.")
        value = published.pop(key)
        if not isinstance(value, Tensor) or value.shape != shapes[name]:
            found = tuple(value.shape) if isinstance(value, Tensor) else "no tensor"
            raise AirwaySegError(f"The checkpoint's {key} is {found}, WingsNet needs {tuple(shapes[name])}.")
        ours[name] = value.detach().clone().float()
    if published:
        raise AirwaySegError(f"The checkpoint is not a published WingsNet: {next(iter(published))} is unknown.")
    return ours, in_channels, classes


BARE_HEAD = re.compile(r"(dc0_[01])\.(weight|bias)")


def has_bare_heads(state_dict: Mapping[str, object]) -> bool:
    """Whether a state dict has the layout of the winners of ATM'22 and AIIB23: heads `dc0_1.weight`, not `dc0_1.0.`"""
    return any(BARE_HEAD.fullmatch(key.removeprefix("module.")) for key in state_dict)


def _with_wrapped_heads(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without "module." and with the keys of the heads as in the checkpoints of WingsNet's authors."""
    plain = {key.removeprefix("module."): value for key, value in state_dict.items()}
    return {BARE_HEAD.sub(r"\1.0.\2", key) if BARE_HEAD.fullmatch(key) else key: part for key, part in plain.items()}


def published_names() -> Iterator[tuple[str, str]]:
    """Pairs of the authors' key and ours, for instance ("ec1.conv_se.weight", "encoder.0.gates.0.weight")."""
    for group, short, plans in (("encoder", "ec", ENCODER), ("decoder", "dc", DECODER)):
        for index, plan in enumerate(plans):
            theirs, ours = f"{short}{index + 1}", f"{group}.{index}"
            for part in ("weight", "bias"):
                yield f"{theirs}.conv1.{part}", f"{ours}.convolution.{part}"
                yield f"{theirs}.conv2.{part}", f"{ours}.side.{part}"
            for gate in range(plan.gates):
                yield f"{theirs}.{('conv_se', 'conv_se2')[gate]}.weight", f"{ours}.gates.{gate}.weight"
    for theirs, ours in (("dc0_0.0", "encoder_head"), ("dc0_1.0", "decoder_head")):
        for part in ("weight", "bias"):
            yield f"{theirs}.{part}", f"{ours}.convolution.{part}"
