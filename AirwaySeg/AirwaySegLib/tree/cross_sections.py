"""The lumen's cross-sections along a centerline: the radius at every point, to a fraction of a voxel."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, median

from AirwaySegLib.masks.sparse_mask import Lumen
from AirwaySegLib.tree.known_parts import KnownParts, checksum

RAYS = 29
"""An odd number: rays that lie symmetrically to the grid would all meet the same kind of step in the wall."""

SAMPLES = 24
"""Along each ray; the wall's position is interpolated between two of them."""

REACH = 2.0
"""Rays end at so many times the distance to the wall, so that they do not run down another branch at a fork."""


def section_radii(
    mask: NDArray[np.bool_],
    lumen: Lumen,
    points_mm: NDArray[np.float64],
    along: NDArray[np.float64],
    line: NDArray[np.intp],
    known: KnownParts | None = None,
) -> NDArray[np.float64]:
    """Radius in mm of the circle that has the area of the lumen's cross-section at each point, (P,).

    From each point rays go out in the plane across the line until the mask, interpolated linearly, falls below one
    half; the radius is the root of their mean square. Two biases are known and dealt with: the distance from a line
    to the nearest background voxel's *centre* is 0.03 to 0.2 voxels too long and that to its *face* half a voxel too
    short, so neither is used; and linear interpolation, which blurs with a variance of 1/6 voxel, draws a curved wall
    inwards by variance / (2 radius), which is added again. What remains on average for round tubes from 0.8 to
    7 mm of radius is below 0.05 voxels (`Testing/library/tree/test_cross_sections.py`).

    Parameters
    ----------
    mask
        (Z, Y, X), of which ``lumen`` is the list.
    points_mm
        (P, 3) points (z, y, x) within the lumen, in mm from voxel (0, 0, 0).
    along
        (P, 3) unit vectors along the line; where they are 0 the radius is the distance to the wall, or that
        of a ball of a voxel's volume if it is larger.
    line
        (P,) number of the line, from 0, that each point is of; a line's points are beside each other.
    known
        Lines whose surroundings are as before are not measured again.
    """
    spacing = np.asarray(lumen.spacing_mm)
    to_centres = lumen.shell_tree.query(points_mm, workers=-1)[0]
    # At a flat end the nearest wall is ahead and says nothing of the width: there the line's usual distance counts.
    usual = median(to_centres, line, np.arange(line.max(initial=0) + 1))
    reach_mm = REACH * np.maximum(np.maximum(to_centres, np.asarray(usual)[line]), spacing.max())
    radius = _along_rays(mask, points_mm, along, reach_mm, spacing, _lines(line), known or KnownParts())
    variance = ((1 - along**2) * spacing**2).sum(axis=1) / 2 / 6
    radius = radius + variance / (2 * np.maximum(radius, 0.5 * spacing.min()))
    ball = (0.75 / np.pi * spacing.prod()) ** (1 / 3)
    return np.maximum(np.where(along.any(axis=1), radius, ball), lumen.to_wall(points_mm))


def _lines(line: NDArray[np.intp]) -> list[slice]:
    """Where the points of each line are."""
    starts = np.flatnonzero(np.diff(line, prepend=-1))
    return [slice(int(a), int(b)) for a, b in zip(starts, [*starts[1:], len(line)], strict=True)]


def _around(
    points_mm: NDArray[np.float64], reach_mm: float, spacing: NDArray[np.float64], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], tuple[int, ...]]:
    """The part of the mask that rays from some points reach, and its first voxel."""
    low = np.maximum(np.floor((points_mm.min(axis=0) - reach_mm) / spacing).astype(int) - 1, 0)
    high = np.ceil((points_mm.max(axis=0) + reach_mm) / spacing).astype(int) + 2
    return mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], tuple(low.tolist())


def _along_rays(
    mask: NDArray[np.bool_],
    points_mm: NDArray[np.float64],
    along: NDArray[np.float64],
    reach_mm: NDArray[np.float64],
    spacing: NDArray[np.float64],
    lines: list[slice],
    known: KnownParts,
) -> NDArray[np.float64]:
    """`_sampled` of all points, without those lines that are known."""
    radius, missing = np.empty(len(points_mm)), np.zeros(len(points_mm), bool)
    new: list[tuple[slice, bytes]] = []
    for part in lines:
        around = _around(points_mm[part], float(reach_mm[part].max()), spacing, mask)
        key = checksum(points_mm[part], along[part], reach_mm[part], spacing, *around)
        found = known.find("radii", key)
        if found is None:
            missing[part] = True
            new.append((part, key))
        else:
            radius[part] = found[0]
    if new:
        radius[missing] = _sampled(mask, points_mm[missing], along[missing], reach_mm[missing], spacing)
    for part, key in new:
        known.keep("radii", key, (radius[part].copy(),))
    return radius


def _sampled(
    mask: NDArray[np.bool_],
    points_mm: NDArray[np.float64],
    along: NDArray[np.float64],
    reach_mm: NDArray[np.float64],
    spacing: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The root of the mean square of the distances to the wall along the rays from each point, (P,)."""
    across, over = _perpendicular(along)
    turns = 2 * np.pi * np.arange(RAYS) / RAYS
    rays = np.cos(turns)[:, None] * across[:, None] + np.sin(turns)[:, None] * over[:, None]  # (P, RAYS, 3)
    steps = np.linspace(0, 1, SAMPLES + 1)
    value = np.empty((SAMPLES + 1, *rays.shape[:2]), np.float32)
    for number, step in enumerate(steps):
        samples = (points_mm[:, None] + step * reach_mm[:, None, None] * rays) / spacing
        map_coordinates(
            mask.view(np.uint8), np.moveaxis(samples, -1, 0), output=value[number], order=1, mode="grid-constant"
        )
    crossing = _first_below_half(value) / SAMPLES * reach_mm[:, None]
    return np.sqrt((crossing**2).mean(axis=1))


def _perpendicular(along: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two unit vectors across each vector and across each other."""
    least = np.abs(along).argmin(axis=1)
    across = np.cross(along, np.eye(3)[least])
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    return across, np.cross(along, across)


def _first_below_half(value: NDArray[np.float32]) -> NDArray[np.float64]:
    """Where along the first axis the value first falls below 0.5, in samples and fractions; else the end."""
    below = value < 0.5
    after = np.where(below.any(axis=0), below.argmax(axis=0), len(value) - 1)
    before = np.maximum(after - 1, 0)
    high = np.take_along_axis(value, before[None], axis=0)[0].astype(float)
    low = np.take_along_axis(value, after[None], axis=0)[0].astype(float)
    part = np.clip((high - 0.5) / np.maximum(high - low, 1e-6), 0, 1)
    return before + part
