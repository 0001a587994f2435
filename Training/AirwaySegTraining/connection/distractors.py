"""False pieces beside an airway tree, which a repair must not join to it: vessels, blobs and streaks.

Arrays are (Z, Y, X), points (z, y, x) in mm from the centre of voxel (0, 0, 0). Letters in shapes: S points of the
tree's centerlines, M voxels of a piece.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, label
from scipy.spatial import cKDTree

from AirwaySegLib.masks.components import Box
from AirwaySegLib.masks.sparse_mask import Spacing
from AirwaySegLib.repair.attention import LARGEST_IGNORED_VOXELS

Mask = NDArray[np.bool_]
Points = NDArray[np.float64]

LEAST_VOXELS = LARGEST_IGNORED_VOXELS + 1
"""Voxels of the smallest piece: the repair ignores smaller ones."""

THINNEST_TREE_MM = 4.0
"""Pieces are put beside airways of this radius or less."""

TRIES = 4
"""Positions that are tried for each piece."""

VESSEL_HU, FULLEST = (-600.0, -300.0), 0.5
"""Voxels above a threshold from this range are vessel; a ball with a larger share of them is not in lung."""

AROUND = np.ones((3, 3, 3), bool)


@dataclass(frozen=True, eq=False)
class _Beside:
    """A point of an airway's centerline, the radius there, its direction, and a direction perpendicular to it."""

    point_mm: Points
    radius_mm: float
    along: Points
    across: Points


def add_distractors(
    airway: Mask,
    spacing_mm: Spacing,
    points_mm: Points,
    radii_mm: NDArray[np.float64],
    count: int,
    rng: np.random.Generator,
    hu: NDArray[np.int16] | None = None,
) -> Mask:
    """Up to ``count`` false pieces, bool (Z, Y, X), of at least `LEAST_VOXELS` voxels; none touches another or airway.

    ``points_mm`` (S, 3) and ``radii_mm`` (S,) are the tree's centerlines. The pieces are tubes that run along a branch
    and diverge from it, as its artery does; ellipsoids; and flat streaks within a slice. With ``hu``, half of them are
    real vessels and walls of the CT: voxels denser than lung in a ball beside a branch.
    """
    distractors = np.zeros(airway.shape, bool)
    rows = np.flatnonzero(radii_mm <= THINNEST_TREE_MM)
    if not len(rows):
        return distractors
    added = 0
    for _ in range(TRIES * count):
        if added == count:
            break
        beside = _beside(points_mm, radii_mm, int(rng.choice(rows)), rng)
        draw = (_vessel, _blob, _streak)[rng.integers(3)]
        if hu is not None and rng.random() < 0.5:
            found = _dense_piece(beside, hu, spacing_mm, rng)
        else:
            found = draw(beside, airway.shape, spacing_mm, rng)
        added += found is not None and _add(distractors, airway, *found)
    return distractors


def _beside(points_mm: Points, radii_mm: NDArray[np.float64], row: int, rng: np.random.Generator) -> _Beside:
    first, last = points_mm[max(row - 2, 0)], points_mm[min(row + 2, len(points_mm) - 1)]
    along = _unit(last - first + 1e-6 * rng.normal(size=3))
    side = rng.normal(size=3)
    return _Beside(points_mm[row], float(radii_mm[row]), along, _unit(side - along * (side @ along)))


def _unit(vector: Points) -> Points:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def _vessel(
    beside: _Beside, shape: tuple[int, ...], spacing_mm: Spacing, rng: np.random.Generator
) -> tuple[Box, Mask] | None:
    """A tube beside the airway that leaves it at an angle of up to 30 degrees, bent a little."""
    radius_mm = float(np.clip(beside.radius_mm * rng.uniform(0.5, 1.2), 0.7, 2.0))
    gap_mm = beside.radius_mm + radius_mm + rng.uniform(0.5, 3.0) + max(spacing_mm)
    way = np.linspace(0, rng.uniform(6, 20), 60)[:, None]
    bend = rng.uniform(-0.02, 0.02) * way**2 * np.cross(beside.along, beside.across)
    line = beside.point_mm + beside.across * gap_mm + way * (beside.along + beside.across * rng.uniform(0, 0.58)) + bend
    return _thick(line, radius_mm, np.ones(3), shape, spacing_mm)


def _blob(
    beside: _Beside, shape: tuple[int, ...], spacing_mm: Spacing, rng: np.random.Generator
) -> tuple[Box, Mask] | None:
    """An ellipsoid with half axes of about 1.5 to 3.5 mm."""
    radius_mm = rng.uniform(1.5, 3.5)
    gap_mm = beside.radius_mm + radius_mm + rng.uniform(1, 6)
    return _thick(
        (beside.point_mm + beside.across * gap_mm)[None], radius_mm, rng.uniform(0.7, 1.3, 3), shape, spacing_mm
    )


def _streak(
    beside: _Beside, shape: tuple[int, ...], spacing_mm: Spacing, rng: np.random.Generator
) -> tuple[Box, Mask] | None:
    """A straight line within a few slices, as noise and metal leave them."""
    angle = rng.uniform(0, np.pi)
    way = np.linspace(0, rng.uniform(8, 25), 80)[:, None] * np.array([0.0, np.sin(angle), np.cos(angle)])
    start = beside.point_mm + beside.across * (beside.radius_mm + rng.uniform(1, 6))
    return _thick(start + way, rng.uniform(0.6, 1.2), np.array([0.8, 1.0, 1.0]), shape, spacing_mm)


def _thick(
    line_mm: Points, radius_mm: float, stretch: Points, shape: tuple[int, ...], spacing_mm: Spacing
) -> tuple[Box, Mask] | None:
    """The voxels within a radius of a line, which is stretched along each axis, and their box; None outside the array.

    At least as thick as a voxel, so that the piece is connected.
    """
    reach = np.maximum(radius_mm * stretch, 0.9 * np.asarray(spacing_mm))
    low = np.maximum(np.floor((line_mm.min(axis=0) - reach) / spacing_mm).astype(int), 0)
    high = np.minimum(np.ceil((line_mm.max(axis=0) + reach) / spacing_mm).astype(int) + 1, shape)
    if (high <= low).any():
        return None
    voxels = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1) * np.asarray(spacing_mm)
    distance, _ = cKDTree(line_mm / reach).query(voxels / reach, distance_upper_bound=1.0)
    return _box(low, high), np.isfinite(distance)


def _dense_piece(
    beside: _Beside, hu: NDArray[np.int16], spacing_mm: Spacing, rng: np.random.Generator
) -> tuple[Box, Mask] | None:
    """The connected voxels denser than lung in a ball of 3 to 6 mm beside the airway; None outside the lung."""
    spacing = np.asarray(spacing_mm)
    radius_mm = rng.uniform(3, 6)
    centre = (beside.point_mm + beside.across * (beside.radius_mm + radius_mm)) / spacing
    low = np.maximum(np.floor(centre - radius_mm / spacing).astype(int), 0)
    high = np.minimum(np.ceil(centre + radius_mm / spacing).astype(int) + 1, hu.shape)
    if (high <= low).any():
        return None
    grid = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1)
    ball = np.linalg.norm((grid - centre) * spacing, axis=-1) <= radius_mm
    dense = ball & (hu[_box(low, high)] > rng.uniform(*VESSEL_HU))
    if not dense.any() or dense.sum() > FULLEST * ball.sum():
        return None
    return _box(low, high), dense


def _box(low: NDArray[np.intp], high: NDArray[np.intp]) -> Box:
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high))
    return z, y, x


def _add(distractors: Mask, airway: Mask, box: Box, piece: Mask) -> bool:
    """Add the largest part of a piece that touches neither airway nor another piece; False if it is too small."""
    wide = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in box)
    taken = binary_dilation(airway[wide] | distractors[wide], AROUND)
    inner = tuple(slice(part.start - more.start, part.stop - more.start) for part, more in zip(box, wide))
    parts, _ = label(piece & ~taken[inner], AROUND)
    sizes = np.bincount(parts.ravel())[1:]
    if not len(sizes) or sizes.max() < LEAST_VOXELS:
        return False
    distractors[box] |= parts == sizes.argmax() + 1
    return True
