"""Sampling of training patches: kinds of centre points, mixtures of them, and cropping.

Arrays are (Z, Y, X), points and starts are voxel indices (z, y, x). Letters in shapes: N points of one kind.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

from AirwaySegLib.chest.preprocessing import body_mask, lung_mask
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.masks.components import Box, bounding_box
from AirwaySegLib.masks.origin import NAMES
from AirwaySegLib.masks.sparse_mask import Lumen
from AirwaySegTraining.losses.weight_maps import SMALL_VOXELS

THIN_VOXELS, WIDE_VOXELS = 2.3, 4.0
"""Ours: thin airways have a half-width below the first, wide ones at least the second."""

BORDER_HU = -500
COARSE = 4
"""Sampling stride for the border of lungs and of other air, along each axis."""


class Boxed(Protocol):
    """An array, or an object that gives boxes of one: `prepared_files.OnDisk`, `cases.OnAirway`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array."""

    def __getitem__(self, box: Any, /) -> Any:
        """The box, indexed with slices or `numpy.ix_`."""


ADDED, REMOVED = 254, 255
"""Voxels that a person added, of which no more is known, and those that a person removed, beside the origins."""

EDIT_KINDS = {**NAMES, ADDED: "added", REMOVED: "removed"}
"""Names of what a person did, in recipes."""


class Kind(StrEnum):
    """Kinds of points around which patches are cropped, by their names in a recipe."""

    HARD_SKELETON = "hard_skeleton"
    """Skeleton voxels that a given model missed (WingsNet)."""
    SMALL_AIRWAY = "small_airway"
    """Skeleton voxels less than `SMALL_VOXELS` from the background (Tang)."""
    RANDOM = "random"
    """Any voxel of the box around the lungs and airways (Tang); of the scan if it shows no lungs."""
    THIN = "thin"
    MIDDLE = "middle"
    WIDE = "wide"
    """Skeleton voxels by the lumen's half-width (ours)."""
    BORDER = "border"
    """The surface between air and tissue: pleura, skin, bowel gas (ours)."""
    ANYWHERE = "anywhere"
    """Any voxel of the scan (ours)."""
    EDITED = "edited"
    """Voxels that a person corrected (ours)."""


@dataclass(frozen=True)
class Mixture:
    """Shares of the patches by kind, in the order of `Kind`, summing to 1."""

    shares: tuple[tuple[Kind, float], ...]

    @classmethod
    def of(cls, table: Mapping[str, float]) -> "Mixture":
        """The mixture that a recipe writes as a table, such as {"hard_skeleton": 0.5, "random": 0.5}.

        Raises
        ------
        AirwaySegError
            If a name is not a kind, a share is not a number from 0 to 1, or they do not sum to 1 (within 0.001).
        """
        for name, share in table.items():
            if name not in list(Kind):
                raise AirwaySegError(f"{name!r} is not a kind of patch; the kinds are {', '.join(Kind)}.")
            if type(share) not in (int, float) or not 0 <= share <= 1:
                raise AirwaySegError(f"The share of {name} patches is {share!r}, not a number from 0 to 1.")
        total = sum(table.values())
        if abs(total - 1) > 1e-3:
            raise AirwaySegError(f"The shares of the kinds of patches sum to {total:g}, not to 1.")
        return cls(tuple((kind, table[kind] / total) for kind in Kind if kind in table))

    def draw(self, rng: np.random.Generator) -> Kind:
        """A random kind, with its share as probability."""
        return self.shares[rng.choice(len(self.shares), p=[share for _, share in self.shares])][0]


@dataclass(frozen=True)
class Centres:
    """Points in a scan of ``shape``: voxel indices (N, 3) by kind, and the ``box`` of the lungs and airways."""

    shape: tuple[int, int, int]
    box: Box
    points: Mapping[Kind, NDArray[np.int32]]

    def with_missed(self, missed: NDArray) -> "Centres":
        """The same with the hard skeleton, given as a map (Z, Y, X) that is not 0 where a model missed a voxel of it.

        Zheng et al. 2021, IV B: the false negatives of the network that was trained by Dice loss.
        """
        return replace(self, points={**self.points, Kind.HARD_SKELETON: _voxels_of(missed)})

    def with_edited(self, edited: NDArray) -> "Centres":
        """The same with the voxels that a person corrected, given as a map (Z, Y, X) that is not 0 there."""
        return replace(self, points={**self.points, Kind.EDITED: _voxels_of(edited)})

    def draw(self, mixture: Mixture, rng: np.random.Generator) -> NDArray[np.int64]:
        """A random voxel (3,) of a random kind; if the scan has no voxel of that kind, of `Kind.RANDOM`."""
        kind = mixture.draw(rng)
        listed = self.points.get(kind, ())
        if len(listed):
            return listed[rng.integers(len(listed))].astype(np.int64)
        box = [slice(0, count) for count in self.shape] if kind is Kind.ANYWHERE else self.box
        return rng.integers([part.start for part in box], [part.stop for part in box])


def find_centres(
    ct: NDArray[np.int16], label: NDArray[np.uint8], skeleton: NDArray, spacing_mm: tuple[float, float, float]
) -> Centres:
    """Points of every kind except the hard skeleton, which depends on a model (see `Centres.with_missed`).

    Parameters
    ----------
    ct
        HU on canonical axes.
    label
        1 is airway, 2 is left out.
    skeleton
        Not 0 on the airway's skeleton; empty if there is no airway.
    """
    points = {Kind.BORDER: _border(ct)}
    airway = label == 1
    if airway.any():
        voxels = _voxels_of((skeleton != 0) & airway)
        half_width = _to_background(airway, voxels)
        points |= {
            Kind.SMALL_AIRWAY: voxels[half_width < SMALL_VOXELS],
            Kind.THIN: voxels[half_width < THIN_VOXELS],
            Kind.MIDDLE: voxels[(half_width >= THIN_VOXELS) & (half_width < WIDE_VOXELS)],
            Kind.WIDE: voxels[half_width >= WIDE_VOXELS],
        }
    depth, height, width = ct.shape
    return Centres((depth, height, width), lung_box(ct, label, spacing_mm), points)


def lung_box(ct: NDArray[np.int16], label: NDArray[np.uint8], spacing_mm: tuple[float, float, float]) -> Box:
    """The smallest box around the lungs and the label's airways (the trachea reaches above the lungs).

    Without lungs, as in a crop or a phantom, it is the whole array. Tang, 2.1: the "circumscribed rectangle of the
    lung area".
    """
    lungs = lung_mask(ct, body_mask(ct, spacing_mm), spacing_mm)
    around_lungs, around_airways = bounding_box(lungs), bounding_box(label == 1)
    if around_lungs is None:
        return slice(0, ct.shape[0]), slice(0, ct.shape[1]), slice(0, ct.shape[2])
    if around_airways is None:
        return around_lungs
    z, y, x = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(around_lungs, around_airways))
    return z, y, x


def _voxels_of(mask: NDArray) -> NDArray[np.int32]:
    """Voxels (N, 3) that are not 0."""
    return np.stack(np.unravel_index(np.flatnonzero(mask), mask.shape), axis=1).astype(np.int32)


def _to_background(airway: NDArray[np.bool_], voxels: NDArray[np.int32]) -> NDArray[np.float64]:
    """Distance (N,) from voxels of the airway to the nearest background voxel of the array, centre to centre.

    In voxels and not in mm, since what a network can see depends on them.
    """
    around = Lumen.of(airway, (1.0, 1.0, 1.0)).shell
    within = ((around >= 0) & (around < airway.shape)).all(axis=1)
    return cKDTree(around[within]).query(voxels)[0]


def _border(ct: NDArray[np.int16]) -> NDArray[np.int32]:
    """Voxels of a subsampled grid where air meets tissue."""
    air = ct[::COARSE, ::COARSE, ::COARSE] < BORDER_HU
    return _voxels_of(air & ~binary_erosion(air, border_value=1))[::3] * COARSE


def draw_start(
    point: NDArray[np.int64], shape: tuple[int, int, int], side: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """First voxel (3,) of a cube of ``side`` voxels that contains ``point``, within the scan where that is possible.

    The point is up to a third of the side off the cube's middle, so that it is seen with its surroundings; farther at
    the scan's edge. Along an axis on which the scan is smaller than the cube, both start at 0.
    """
    shift = rng.integers(-(side // 3), side // 3 + 1, size=3)
    return np.clip(point + shift - side // 2, 0, np.maximum(0, np.array(shape) - side))


def cut(array: Boxed, start: ArrayLike, size: int | Sequence[int] | NDArray, fill: float | None = None) -> NDArray:
    """A copy of the box of ``size`` voxels (a cube, or z, y, x) at ``start``.

    Outside the array the value is ``fill``; with None the array is padded by its mirror image, as in inference, so that
    CT, label and maps still match: an axis of voxels a b c becomes c b a a b c c b a.
    """
    first = np.asarray(start)
    last = first + size
    if (first >= 0).all() and (last <= array.shape).all():
        return array[tuple(map(slice, first, last))].copy()
    axes = [np.arange(a, b) for a, b in zip(first, last)]
    inside = [np.minimum(axis % (2 * n), (-1 - axis) % (2 * n)) for axis, n in zip(axes, array.shape)]
    out = array[np.ix_(*inside)]
    if fill is not None:
        for number, (axis, n) in enumerate(zip(axes, array.shape)):
            np.moveaxis(out, number, 0)[(axis < 0) | (axis >= n)] = fill
    return out


def crops(arrays: Mapping[str, Boxed], start: ArrayLike, size: int | Sequence[int] | NDArray) -> dict[str, NDArray]:
    """The same box of several arrays of one shape, by their names; see `cut`."""
    return {name: cut(array, start, size) for name, array in arrays.items()}
