"""Augmentation of patches: rotated, mirrored, zoomed, and windowed into channels.

Arrays are (Z, Y, X). Letters in shapes: S side of a patch, C channels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from AirwaySegLib.chest.preprocessing import normalise
from AirwaySegLib.errors import AirwaySegError
from AirwaySegTraining.data.sampling import Boxed, crops, cut, draw_start

Field = NDArray[np.float32]

IGNORE = 2
"""Label of voxels that are left out."""

DOUBTFUL_SHARE = 0.125
"""Smallest weight of the nearest of the eight voxels in a trilinear interpolation."""

SLAB = 4
"""Rows of a patch that are interpolated at once: 3 times faster than all of 128."""

ROUNDING = 1e-4
"""Numerical tolerance of shares."""


@dataclass(frozen=True)
class Augmentation:
    """How patches are rotated, mirrored and zoomed.

    ``degrees`` is the largest rotation about each axis; 0 leaves patches as they are. A rotated voxel is airway if
    airway has at least ``threshold`` of it. Zheng et al. 2021, IV B: 15 degrees, 0.8 in the first stage and 0.9 in the
    second; the higher, the thinner the label. ``mirrored`` is the probability that each axis (z, y, x) is mirrored.
    ``zoom`` are the smallest and the largest factor by which patches are enlarged, drawn log-uniformly; (1, 1) leaves
    the size as it is.
    """

    degrees: float = 15.0
    threshold: float = 0.8
    mirrored: tuple[float, float, float] = (0.25, 0.25, 0.5)
    zoom: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        """Raise AirwaySegError for a value outside its limits."""
        if not 0 <= self.degrees <= 45:
            raise AirwaySegError(f"Patches cannot be rotated by {self.degrees} degrees; the limits are 0 and 45.")
        if not 0 < self.threshold <= 1:
            raise AirwaySegError(
                f"The label threshold after rotation is {self.threshold}; it must be above 0 and at most 1."
            )
        if not all(0 <= chance <= 1 for chance in self.mirrored):
            raise AirwaySegError(f"The probabilities of mirroring are {self.mirrored}; each must be from 0 to 1.")
        if len(self.zoom) != 2 or not 0.5 <= self.zoom[0] <= self.zoom[1] <= 2:
            raise AirwaySegError(f"Patches cannot be zoomed by {self.zoom}; the limits are 0.5 and 2, the least first.")


@dataclass(frozen=True)
class Placement:
    """Position and rotation of a patch of ``side`` voxels in a scan.

    Voxel v of the patch shows the scan's position ``matrix @ (v - pivot) + point``; then the patch is mirrored. So the
    voxel ``point`` (z, y, x) of the scan is always in the patch, exactly at its voxel ``pivot``. With ``matrix`` None
    the patch is not rotated.
    """

    point: tuple[int, int, int]
    pivot: tuple[int, int, int]
    side: int
    matrix: NDArray[np.float64] | None = None
    mirrored: tuple[bool, bool, bool] = (False, False, False)

    def enlarged(self, margin: int) -> "Placement":
        """The same with ``margin`` more voxels on every side, for filters that need surroundings."""
        z, y, x = self.pivot
        return replace(self, pivot=(z + margin, y + margin, x + margin), side=self.side + 2 * margin)

    @cached_property
    def source(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Start and size (z, y, x) of the scan's box that the patch is made from."""
        if self.matrix is None:
            start = np.array(self.point, np.int64) - np.array(self.pivot, np.int64)
            return start, np.full(3, self.side, np.int64)
        middle = self.matrix @ ((self.side - 1) / 2 - np.array(self.pivot)) + self.point
        reach = np.abs(self.matrix).sum(axis=1) * (self.side - 1) / 2
        start = np.floor(middle - reach).astype(np.int64) - 1  # a voxel to spare for rounding
        return start, np.ceil(middle + reach).astype(np.int64) + 3 - start


def draw_placement(
    point: NDArray[np.int64],
    shape: tuple[int, int, int],
    side: int,
    spacing_mm: tuple[float, float, float],
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> Placement:
    """A random patch that contains ``point``, rotated about it by uniform angles about z, y and x, randomly mirrored.

    Rotations preserve lengths in mm: a round lumen stays round in anisotropic voxels. Zoom scales all lengths equally.
    """
    pivot = point - draw_start(point, shape, side, rng)
    angles = rng.uniform(-augmentation.degrees, augmentation.degrees, 3)
    mirrored = rng.random(3) < augmentation.mirrored
    matrix = None
    if augmentation.degrees > 0:
        turn = Rotation.from_euler("zyx", angles, degrees=True).as_matrix()[::-1, ::-1]
        matrix = turn * spacing_mm / np.asarray(spacing_mm)[:, None]
    if augmentation.zoom != (1.0, 1.0):
        zoom = float(np.exp(rng.uniform(*np.log(augmentation.zoom))))
        matrix = (np.eye(3) if matrix is None else matrix) / zoom
    return Placement(tuple(point.tolist()), tuple(pivot.tolist()), side, matrix, tuple(mirrored.tolist()))


def image_patch(image: Boxed, placement: Placement) -> NDArray[np.float32]:
    """The patch (S, S, S) of a CT or another continuous image, trilinear; the scan is padded by its mirror image.

    A larger box is cropped and rotated, so that a patch has no empty corners.
    """
    box = cut(image, *placement.source)
    patch = box.astype(np.float32) if placement.matrix is None else _interpolated(box, placement)
    return _mirrored(patch, placement)


def label_patch(label: Boxed, placement: Placement, threshold: float) -> NDArray[np.uint8]:
    """The patch (S, S, S) of a label (0 background, 1 airway, 2 left out).

    1 where airway has at least the share ``threshold`` of the interpolation (Zheng et al. 2021, IV B). 2 in other
    voxels where left-out voxels have at least the smallest weight that a nearest voxel can have: so a thin line of them
    stays connected, and there is no background between airway and its left-out continuation.
    """
    box = cut(label, *placement.source)
    if placement.matrix is None:
        return _mirrored(box, placement)
    patch = np.zeros((placement.side,) * 3, np.uint8)
    airway, doubtful = box == 1, box == IGNORE
    if doubtful.any():
        patch[_interpolated(doubtful, placement) > max(min(DOUBTFUL_SHARE, 1 - threshold), ROUNDING)] = IGNORE
    if airway.any():
        patch[_interpolated(airway, placement) >= threshold - ROUNDING] = 1
    return _mirrored(patch, placement)


def map_patches(maps: Mapping[str, Boxed], placement: Placement) -> dict[str, NDArray]:
    """Patches (S, S, S) of a case's maps by name, each with its own dtype, from the nearest voxels.

    Interpolation would make a distance that is 0 outside the airway wrong along its wall, and a branch's number wrong
    everywhere.
    """
    boxes = crops(maps, *placement.source)
    if placement.matrix is not None:
        size = placement.source[1]
        turned = {name: np.empty((placement.side,) * 3, box.dtype) for name, box in boxes.items()}
        for rows, positions in _slabs(placement):
            nearest = _numbers([(position + np.float32(0.5)).astype(np.int32) for position in positions], size)
            for name, box in boxes.items():
                turned[name][rows] = np.take(box.ravel(), nearest)
        boxes = turned
    return {name: _mirrored(box, placement) for name, box in boxes.items()}


def channels(hu: NDArray, windows_hu: Sequence[tuple[float, float]]) -> NDArray[np.float32]:
    """A network's input (C, S, S, S): HU by each window, 0 at and below its lower end, 1 at and above the upper."""
    return np.stack([normalise(hu, window_hu) for window_hu in windows_hu])


def _mirrored(patch: NDArray, placement: Placement) -> NDArray:
    return np.ascontiguousarray(patch[tuple(slice(None, None, -1 if flip else 1) for flip in placement.mirrored)])


def _slabs(placement: Placement) -> Iterator[tuple[slice, list[Field]]]:
    """Slabs of a few rows of a rotated patch, each with its positions (z, y, x) in the source's box."""
    assert placement.matrix is not None
    matrix, shown = placement.matrix.astype(np.float32), np.arange(placement.side, dtype=np.float32)
    offset = placement.point - placement.source[0] - placement.matrix @ placement.pivot
    plane = [
        to_y * shown[:, None] + (to_x * shown + o) for (_, to_y, to_x), o in zip(matrix, offset.astype(np.float32))
    ]
    for first in range(0, placement.side, SLAB):
        rows = slice(first, first + SLAB)
        yield rows, [to_z * shown[rows, None, None] + here for to_z, here in zip(matrix[:, 0], plane)]


def _numbers(voxels: list[NDArray[np.int32]], size: NDArray[np.int64]) -> NDArray[np.int32]:
    """Flat indices (C order) of voxels, given by axis, in a box of ``size``."""
    return (voxels[0] * np.int32(size[1]) + voxels[1]) * np.int32(size[2]) + voxels[2]


def _interpolated(box: NDArray, placement: Placement) -> Field:
    """Trilinear interpolation (S, S, S) of the source's box.

    Equal to scipy's `affine_transform` of order 1 within 0.02 HU, in a third of its time: a few rows at a time fit into
    the processor's cache.
    """
    patch, flat = np.empty((placement.side,) * 3, np.float32), box.ravel()
    for rows, positions in _slabs(placement):
        below = [position.astype(np.int32) for position in positions]
        beyond = [position - voxel for position, voxel in zip(positions, below)]
        number = _numbers(below, placement.source[1])
        patch[rows] = _between(flat, number, (box.shape[1] * box.shape[2], box.shape[2], 1), beyond)
    return patch


def _between(flat: NDArray, number: NDArray[np.int32], steps: Sequence[int], beyond: list[Field]) -> Field:
    """Linear interpolation between each voxel and the next along each axis.

    ``number`` are flat indices, ``steps`` their increments by axis, ``beyond`` the fractions 0..1 by axis.
    """
    if not steps:
        return np.take(flat, number).astype(np.float32)
    low = _between(flat, number, steps[1:], beyond[1:])
    high = _between(flat, number + np.int32(steps[0]), steps[1:], beyond[1:])
    high -= low
    high *= beyond[0]
    low += high
    return low
