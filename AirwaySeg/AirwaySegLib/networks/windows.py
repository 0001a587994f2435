"""Where the windows of the sliding-window inference lie, their weights, and the size that needs the fewest voxels."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.errors import AirwaySegError

Corner = tuple[int, int, int]
Sides = tuple[int, int, int]
Box = tuple[slice, slice, slice]

GAUSSIAN_SIGMA = 0.125
"""Standard deviation of the Gaussian weights as a fraction of the window's side, as in nnU-Net."""

SHORTEST, LONGEST = 0.75, 1.75
"""Sides of fitted windows as a share of the side for which the weights were made. Shorter windows have more voxels near
an edge, where the network lacks context."""

CANDIDATES = 12
"""How many sizes are compared by the windows that meet the region: the best by the windows of the whole box."""


@dataclass(frozen=True)
class Sliding:
    """How windows cover a volume: size, overlap as a fraction of the side, and "constant" or "gaussian" weights.

    ``overlap_voxels`` (z, y, x) is used instead of the fraction if it is given. Windows are placed on a raster over the
    whole volume, or ``on_region``: spread evenly over the box of the region.
    """

    patch_zyx: Sides = (128, 128, 128)
    overlap: float = 0.5
    weighting: str = "constant"
    overlap_voxels: Sides | None = None
    on_region: bool = False

    def __post_init__(self) -> None:
        """Refuse an overlap or a weighting outside the limits."""
        if not 0 <= self.overlap <= 0.75:
            raise AirwaySegError(f"The overlap {self.overlap} is not from 0 to 0.75.")
        if self.weighting not in ("constant", "gaussian"):
            raise AirwaySegError(f"The weighting {self.weighting!r} is neither 'constant' nor 'gaussian'.")

    def starts(self, shape: Sequence[int]) -> list[list[int]]:
        """First voxels of the windows along each axis of a box (Z, Y, X)."""
        overlaps = self.overlap_voxels or [round(self.overlap * side) for side in self.patch_zyx]
        axes = zip(shape, self.patch_zyx, overlaps, strict=True)
        return [axis_starts(size, side, overlap, self.on_region) for size, side, overlap in axes]


class Windows:
    """The windows that meet a region, in rows of equal z, and the weights of a window's voxels.

    Coordinates are those of the box; see `window_box`.

    Parameters
    ----------
    shape
        (Z, Y, X) of the box, no side shorter than a window's.
    sliding
        Size, overlap and weights of the windows.
    region
        (Z, Y, X) bool; windows outside it are left out. None: everywhere.
    """

    def __init__(self, shape: Sequence[int], sliding: Sliding, region: NDArray[np.bool_] | None = None) -> None:
        self.patch, self.shape = sliding.patch_zyx, shape
        self.starts = sliding.starts(shape)
        profiles = [axis_profile(side, sliding.weighting) for side in self.patch]
        self.weight = np.multiply.outer(np.multiply.outer(profiles[0], profiles[1]), profiles[2])
        self.rows = [
            [
                (z, y, x)
                for y, x in itertools.product(self.starts[1], self.starts[2])
                if region is None or region[self.box((z, y, x))].any()
            ]
            for z in self.starts[0]
        ]

    def box(self, corner: Corner) -> tuple[slice, ...]:
        """The voxels of the window that starts at ``corner``."""
        return tuple(slice(start, start + side) for start, side in zip(corner, self.patch, strict=True))

    def finished_slices(self) -> list[tuple[int, int]]:
        """For each row of windows, the slices that no later row covers."""
        return list(itertools.pairwise([*self.starts[0], self.shape[0]]))


def axis_starts(size: int, side: int, overlap: int, even: bool = False) -> list[int]:
    """First voxels of the windows along one axis, which overlap by so many voxels or, if they are ``even``, by more.

    For 110 voxels, windows of 64 and an overlap of 32, an axis starts at 0, 32 and 46; spread evenly at 0, 23 and 46.
    """
    step = max(1, side - overlap)
    if not even:
        return [*range(0, size - side, step), max(0, size - side)]
    count = math.ceil(max(0, size - side) / step) + 1
    return [round(number * (size - side) / (count - 1)) for number in range(count)] if count > 1 else [0]


def axis_profile(side: int, weighting: str) -> NDArray[np.float32]:
    """Weight of each voxel of a window along one axis (float32); a window's weight is the product of its three axes."""
    if weighting == "constant":
        return np.ones(side, np.float32)
    distance = np.arange(side) - (side - 1) / 2
    return np.exp(-0.5 * (distance / (GAUSSIAN_SIGMA * side)) ** 2).astype(np.float32)


def region_box(region: NDArray[np.bool_] | None, shape: Sequence[int]) -> Box:
    """The bounding box of a region (Z, Y, X) that is not empty; for None all of the volume."""
    if region is None:
        return (slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2]))
    lines = [np.flatnonzero(region.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    z, y, x = (slice(int(line[0]), int(line[-1]) + 1) for line in lines)
    return z, y, x


def window_box(region: NDArray[np.bool_] | None, shape: Sequence[int], sliding: Sliding) -> Box:
    """The box of a volume (Z, Y, X) on which windows are placed: all of it, or that of the region.

    The latter is enlarged to the size of a window as far as the volume reaches.
    """
    if not sliding.on_region:
        return region_box(None, shape)
    whole = []
    for part, size, side in zip(region_box(region, shape), shape, sliding.patch_zyx, strict=True):
        lacking = max(0, side - (part.stop - part.start))
        start = max(0, min(part.start - lacking // 2, size - side))
        whole.append(slice(start, max(part.stop, min(start + side, size))) if lacking else part)
    return whole[0], whole[1], whole[2]


def count_windows(shape: Sequence[int], sliding: Sliding, region: NDArray[np.bool_] | None) -> int:
    """How many windows `predict` runs for a volume (Z, Y, X), with ``region`` (bool) only those that meet it."""
    if region is not None and not region.any():
        return 0
    box = window_box(region, shape, sliding)
    padded = [max(part.stop - part.start, side) for part, side in zip(box, sliding.patch_zyx, strict=True)]
    part = None if region is None else padded_to(region[box], sliding.patch_zyx)
    return sum(map(len, Windows(padded, sliding, part).rows))


def padded_to(region: NDArray[np.bool_], patch: Sides) -> NDArray[np.bool_]:
    """The region with False behind its end where it is smaller than a window."""
    return np.pad(region, [(0, max(0, side - size)) for size, side in zip(region.shape, patch, strict=True)])


def fitted(sliding: Sliding, region: NDArray[np.bool_], multiple: int) -> Sliding:
    """Windows of the size, not larger in voxels, that covers the box of a region with the fewest voxels in all.

    For a network whose answer does not depend on the window but for the voxels near its edges. The windows overlap by
    as many voxels as those of ``sliding``.

    Parameters
    ----------
    sliding
        The windows for which the weights were made.
    region
        (Z, Y, X) bool, not empty: where the answer is needed.
    multiple
        Sides are multiples of this.
    """
    part = region[region_box(region, region.shape)]
    largest = math.prod(sliding.patch_zyx)
    ranges = [_sides(size, side, multiple) for size, side in zip(part.shape, sliding.patch_zyx, strict=True)]
    sizes = [sides for sides in itertools.product(*ranges) if math.prod(sides) <= largest] or [sliding.patch_zyx]
    z, y, x = (round(sliding.overlap * side) for side in sliding.patch_zyx)
    choices = [replace(sliding, patch_zyx=(a, b, c), overlap_voxels=(z, y, x), on_region=True) for a, b, c in sizes]
    choices.sort(key=lambda one: math.prod(map(len, one.starts(part.shape))) * math.prod(one.patch_zyx))
    return min(choices[:CANDIDATES], key=lambda one: voxels_run(part.shape, one, part))


def _sides(size: int, side: int, multiple: int) -> list[int]:
    """The sides of a window that are tried along an axis of so many voxels: none needlessly longer than the axis."""
    enough = multiple * math.ceil(max(size, 2 * multiple) / multiple)
    first, last = (multiple * math.ceil(share * side / multiple) for share in (SHORTEST, LONGEST))
    return list(range(min(first, enough), min(last, enough) + 1, multiple))


def voxels_run(shape: Sequence[int], sliding: Sliding, region: NDArray[np.bool_] | None) -> int:
    """Voxels of all windows together that `predict` runs; see `count_windows`."""
    return count_windows(shape, sliding, region) * math.prod(sliding.patch_zyx)
