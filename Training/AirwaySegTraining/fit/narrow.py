"""Makes WingsNet of half the channels out of weights, as the start of a training by them.

Block after block: the half of the channels is kept from which the other half can be told best, and the convolution is
fitted, by least squares on voxels of training patches, to what the wide block computes in these channels. It sees the
inputs that the narrow blocks before it give. After He et al., Channel Pruning for Accelerating Very Deep Neural
Networks, 2017, arXiv:1707.06168, but with a pivoted QR decomposition for the choice.

Letters in shapes: P patches, C channels, (Z, Y, X) voxels, M sampled voxels of all patches.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.linalg import cho_factor, cho_solve, qr
from torch import Tensor, nn
from torch.nn import functional

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.atomic_output import check_free
from AirwaySegLib.networks.architectures import DEFAULT, HALF
from AirwaySegLib.networks.weights import ModelInfo, load_weights, save_weights
from AirwaySegLib.networks.wingsnet import SKIPS, ConvBlock, WingsNet, conv_blocks, upsample
from AirwaySegLib.progress import Progress
from AirwaySegTraining.data.cases import prepared_groups
from AirwaySegTraining.distributed import Team
from AirwaySegTraining.fit.patches import Batches, Source, case_maps
from AirwaySegTraining.fit.recipes import Stage, load_recipe

SIDE = 64
"""Side of a patch in voxels."""

VOXELS = 1500
"""Sampled voxels of a patch, half of them in or beside an airway where it has enough of those."""

BESIDE = 3
"""What lies beside an airway, in voxels."""

RIDGE = 1e-4
"""Share of the mean square of the inputs that is added to the diagonal of the normal equations."""


def narrow(
    weights: str | Path,
    data: list[Path],
    target: Path,
    progress: Progress,
    *,
    patches: int = 16,
    seed: int = 0,
    force: bool = False,
) -> None:
    """Write the narrow network, whose description is that of the wide one and holds its hash.

    Parameters
    ----------
    weights
        A name or a file, of WingsNet with batch normalisation.
    data
        Folders of cases, from which ``patches`` patches are drawn with the mixture of the recipe ``student``.

    Raises
    ------
    AirwaySegError
        If the weights are of another network, ``target`` exists and ``force`` is False, or a case cannot be used.
    """
    net, info, digest = load_weights(weights)
    if info.architecture != DEFAULT or info.norm != "batch":
        raise AirwaySegError(f"{weights} is no WingsNet with batch normalisation, so it cannot be made narrower.")
    check_free(target.parent, (target.name,), force)
    described = replace(
        info, name=target.stem, architecture=HALF, provenance={"narrowed": digest, "from": info.provenance}
    )
    pupil = described.build().eval()
    assert isinstance(net, WingsNet) and isinstance(pupil, WingsNet)
    images, near = drawn_patches(data, info, patches, seed, progress)
    with torch.no_grad():
        fit_blocks(net, pupil, images, Sampler(near, seed), progress)
    save_weights(target, pupil, described, force)


def drawn_patches(
    data: list[Path], info: ModelInfo, patches: int, seed: int, progress: Progress
) -> tuple[Tensor, NDArray[np.bool_]]:
    """Patches (P, C, SIDE, SIDE, SIDE), and where they have an airway or are beside one (P, SIDE, SIDE, SIDE)."""
    stage = _stage()
    groups = prepared_groups(data, case_maps(stage), Team(0, 1, torch.device("cpu")), 0, progress)
    windows = [window for window in (info.window_hu, info.second_window_hu) if window is not None]
    batches = Batches(Source(groups, np.full(len(groups), 1 / len(groups)), windows, seed), stage)
    drawn = [batches[step] for step in range(patches)]
    label = torch.cat([batch["label"] for batch in drawn])[:, 0].numpy() == 1
    near = np.stack([ndimage.binary_dilation(one, iterations=BESIDE) for one in label])
    return torch.cat([batch["image"] for batch in drawn]), near


def _stage() -> Stage:
    """The recipe's stage with one small patch a batch and nothing but its label."""
    stage = load_recipe("student").stages[0]
    plain = tuple(term for term in stage.loss if not term.loss.maps)
    return replace(stage, patch=SIDE, batch=1, loss=plain, weights={})


class Sampler:
    """The sampled voxels: their indices at each scale of the network, the same for the wide and the narrow one."""

    def __init__(self, near: NDArray[np.bool_], seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._at_full = [self._drawn(one, rng) for one in near]

    @staticmethod
    def _drawn(near: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
        inside = np.flatnonzero(near)
        chosen = rng.choice(inside, min(VOXELS // 2, len(inside)), replace=False)
        return np.concatenate([chosen, rng.choice(near.size, VOXELS - len(chosen), replace=False)])

    def indices(self, side: int) -> list[Tensor]:
        """Flat indices of the sampled voxels of each patch where the patch has ``side`` voxels, without repetition."""
        step = SIDE // side
        found = []
        for flat in self._at_full:
            zyx = np.array(np.unravel_index(flat, (SIDE,) * 3)) // step
            found.append(torch.from_numpy(np.unique(np.ravel_multi_index(tuple(zyx), (side,) * 3))))
        return found

    def values(self, x: Tensor) -> Tensor:
        """(P, C, Z, Y, X) -> (M, C)."""
        parts = [one.flatten(1)[:, at].T for one, at in zip(x, self.indices(x.shape[-1]), strict=True)]
        return torch.cat(parts)

    def surroundings(self, x: Tensor, dilation: int) -> Tensor:
        """(P, C, Z, Y, X) -> (M, C x 27): what a 3 x 3 x 3 convolution sees at each sampled voxel."""
        side = x.shape[-1]
        padded, wide = functional.pad(x, [dilation] * 6), side + 2 * dilation
        steps = dilation * torch.arange(3)
        offsets = ((steps[:, None, None] * wide + steps[:, None]) * wide + steps).flatten()
        parts = []
        for one, at in zip(padded, self.indices(side), strict=True):
            corner = (at // side**2 * wide + at // side % side) * wide + at % side
            parts.append(one.flatten(1)[:, corner[:, None] + offsets].permute(1, 0, 2).flatten(1))
        return torch.cat(parts)


def fit_blocks(net: WingsNet, pupil: WingsNet, images: Tensor, sampler: Sampler, progress: Progress) -> None:
    """Fit all blocks of the narrow network in the order in which they compute, and take over the heads."""
    total = len(net.encoder) + len(net.decoder)
    x = y = images
    skips = []
    for index, (block, mine) in enumerate(zip(conv_blocks(net.encoder), conv_blocks(pupil.encoder), strict=True)):
        if index in (3, 6, 9):
            x, y = functional.max_pool3d(x, 2), functional.max_pool3d(y, 2)
        x, y = fit_block(block, mine, x, y, sampler)
        if index in SKIPS:
            skips.append((x, y))
        progress("narrow", index + 1, total)
    x, y = skips.pop()
    for index, (block, mine) in enumerate(zip(conv_blocks(net.decoder), conv_blocks(pupil.decoder), strict=True)):
        if index % 2 == 0:
            x, y = (torch.cat((upsample(one, 2), skip), dim=1) for one, skip in zip((x, y), skips.pop(), strict=True))
        x, y = fit_block(block, mine, x, y, sampler)
        progress("narrow", len(net.encoder) + index + 1, total)
    pupil.encoder_head.load_state_dict(net.encoder_head.state_dict())
    pupil.decoder_head.load_state_dict(net.decoder_head.state_dict())


def fit_block(block: ConvBlock, mine: ConvBlock, x: Tensor, y: Tensor, sampler: Sampler) -> tuple[Tensor, Tensor]:
    """Fit a narrow block to a wide one, and return the outputs of both for their inputs ``x`` and ``y``."""
    raw = block.convolution(x)
    wide, logits = functional.leaky_relu(block.norm(raw), 0.01), []
    for gate in block.gates:
        logits.append(gate(wide))
        wide = wide * torch.sigmoid(logits[-1])
    kept = chosen_channels(sampler.values(wide), mine.plan.out_channels)
    weight, bias = least_squares(sampler.surroundings(y, mine.plan.dilation), sampler.values(raw[:, kept]))
    mine.convolution.weight.copy_(weight.reshape(mine.convolution.weight.shape))
    mine.convolution.get_parameter("bias").copy_(bias)
    statistics = block.norm.state_dict()
    mine.norm.load_state_dict({name: value[kept] if value.ndim else value for name, value in statistics.items()})
    y = functional.leaky_relu(mine.norm(mine.convolution(y)), 0.01)
    for gate, logit in zip(mine.gates, logits, strict=True):
        assert isinstance(gate, nn.Conv3d)
        weight, _ = least_squares(sampler.values(y), sampler.values(logit), centred=False)
        gate.weight.copy_(weight[..., None, None, None])
        y = y * torch.sigmoid(gate(y))
    weight, bias = least_squares(sampler.values(y), sampler.values(block.side(wide)))
    mine.side.weight.copy_(weight[..., None, None, None])
    mine.side.get_parameter("bias").copy_(bias)
    return wide, y


def chosen_channels(values: Tensor, count: int) -> Tensor:
    """Indices (count,) of the columns of (M, C) from which the others can be told best, in ascending order."""
    centred = (values - values.mean(0)).double().numpy()
    _, pivots = qr(centred, mode="r", pivoting=True)
    return torch.from_numpy(np.sort(pivots[:count]).astype(np.int64))


def least_squares(inputs: Tensor, outputs: Tensor, centred: bool = True) -> tuple[Tensor, Tensor]:
    """Weight (K, C), bias (K,) with which inputs (M, C) come nearest to outputs (M, K); bias 0 unless ``centred``."""
    a, b = inputs.double().numpy(), outputs.double().numpy()
    mean_a, mean_b = (a.mean(0), b.mean(0)) if centred else (np.zeros(a.shape[1]), np.zeros(b.shape[1]))
    a, b = a - mean_a, b - mean_b
    square = a.T @ a
    square[np.diag_indices_from(square)] += RIDGE * square.trace() / len(square) + 1e-12
    weight = cho_solve(cho_factor(square), a.T @ b).T
    return torch.from_numpy(weight).float(), torch.from_numpy(mean_b - weight @ mean_a).float()
