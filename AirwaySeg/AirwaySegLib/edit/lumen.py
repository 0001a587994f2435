"""The lumen around a line: how wide it is, how bright lumen and wall are, and the voxels up to the wall.

Letters in shapes: P positions of the line, in the middle of the lumen, from the tree outwards. By *half* is meant
halfway between lumen and wall, where a wall begins (full width at half maximum, as airway walls are measured).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from AirwaySegLib.edit.scan import Spacing
from AirwaySegLib.masks.rays import RAY_STEP_MM, profiles_around

Floats = NDArray[np.float64]

_WALL_MM, _REACH_MM = 2.5, 8.0
"""How far beyond the widest lumen a wall is looked for, and how far from the middle in any case."""

_WALL_PERCENTILE = 35
"""The wall is where this percentile of the rays is brightest: a vessel on one side is none, nor is noise."""

_BEHIND_MM = 1.0
"""A ray's own wall is its brightest sample up to so far behind where the rays are brightest together."""

_ALONG = 2.0
"""Standard deviation of the smoothing along the line, in its steps."""

_WIDER, _WIDER_MM = 1.2, 0.4
"""A lumen is at most so many times as wide as the narrowest before it, and so many mm."""

_OUT_OF_ROUND = 1.3
"""How far a lumen that is not round may reach, in its median radii."""

_BLUR = 1.0
"""Blur draws the half level of narrow lumens inwards: the true radius is the root of the squares of this many voxels
and the radius that is seen. By hand, on simulated airways of 0.9 to 1.5 mm, whose radius is known."""

_DARK_SHARE = 0.75
"""Within the radius a voxel is lumen up to this share of the way from lumen to wall: there, blur makes it brighter."""

_CLOSED, _CONTRAST_HU, _PROBABLE = (0.5, 0.9), (20.0, 120.0), (0.05, 0.5)
"""From no evidence to full evidence: share of the rays that meet a wall, wall less lumen, the network's probability."""


@dataclass(frozen=True, eq=False)
class Rings:
    """What surrounds the lumen at each position of a line, each (P,).

    ``radius_mm`` is the median distance of the wall, ``closed`` the share 0..1 of rays that meet it not much farther
    off, ``lumen_hu`` and ``wall_hu`` their brightness, ``half_hu`` where the wall begins: halfway from the lumen to
    the median ray's wall.
    """

    radius_mm: Floats
    closed: Floats
    lumen_hu: Floats
    wall_hu: Floats
    half_hu: Floats


@dataclass(frozen=True, eq=False)
class Brightness:
    """What tells lumen from wall: ``values`` (Z, Y, X), lower in lumen, and how high they may be along a line, (P,)."""

    values: NDArray
    core: Floats
    rim: Floats

    @classmethod
    def of_ct(cls, smooth_hu: NDArray, rings: Rings) -> "Brightness":
        """HU: up to halfway to the wall, and within the radius somewhat farther."""
        core = rings.lumen_hu + 2 * _DARK_SHARE * (rings.half_hu - rings.lumen_hu)
        return cls(smooth_hu, core, rings.half_hu)

    @classmethod
    def of_probability(cls, values: NDArray, along: Floats) -> "Brightness":
        """Without a CT what has at least half the line's probability is lumen; both are 0..1."""
        limit = -np.maximum(along / 2, 1 / 255)
        return cls(-values, limit, limit)


def rings_along(hu: NDArray, spacing_mm: Spacing, line_mm: Floats, widest_mm: float) -> Rings:
    """Measure lumen and wall along a line (P, 3) of mm in a box of HU (Z, Y, X); no lumen is wider than the given."""
    steps_mm = np.arange(0, max(widest_mm + _WALL_MM, _REACH_MM), RAY_STEP_MM)
    profiles = profiles_around(hu, np.asarray(spacing_mm), line_mm, _directions(line_mm), steps_mm)
    lumen_hu = ndimage.gaussian_filter1d(profiles[:, :, :2].mean(axis=(1, 2)).astype(float), _ALONG, mode="nearest")
    ring_hu = ndimage.gaussian_filter1d(np.percentile(profiles, _WALL_PERCENTILE, axis=1), _ALONG, axis=0)
    wall_hu = np.maximum(ring_hu.max(axis=1), lumen_hu)
    within = steps_mm <= np.take(steps_mm, ring_hu.argmax(axis=1))[:, None] + _BEHIND_MM
    peaks_hu = np.median(np.where(within[:, None], profiles, -np.inf).max(axis=2), axis=1)
    half_hu = (lumen_hu + ndimage.gaussian_filter1d(np.maximum(peaks_hu, lumen_hu), _ALONG, mode="nearest")) / 2
    median_mm = np.median(_first_over(profiles, half_hu, steps_mm), axis=1)
    from_mm = _first_over(profiles, (lumen_hu + wall_hu) / 2, steps_mm)
    closed = (from_mm <= 1.8 * np.maximum(median_mm, 1.5)[:, None] + 1).mean(axis=1)
    radius_mm = ndimage.gaussian_filter1d(np.minimum(median_mm, widest_mm), _ALONG, mode="nearest")
    radius_mm = np.hypot(radius_mm, _BLUR * min(spacing_mm))
    narrowest_mm = np.minimum.accumulate(np.minimum(radius_mm, widest_mm))
    radius_mm = np.minimum(radius_mm, _WIDER * narrowest_mm + _WIDER_MM)
    return Rings(np.minimum(radius_mm, widest_mm), closed, lumen_hu, wall_hu, half_hu)


def _first_over(profiles: NDArray, level_hu: Floats, steps_mm: Floats) -> Floats:
    """How far from the middle each ray (P, R) is first brighter than its position's level; infinite where it never is.

    Between two samples it is found by a straight line.
    """
    above = profiles - level_hu[:, None, None]
    over = above > 0
    last = np.maximum(over.argmax(axis=2), 1)
    before, after = (np.take_along_axis(above, (last - step)[..., None], axis=2)[..., 0] for step in (1, 0))
    part = np.clip(before / np.where(before == after, 1, before - after), 0, 1)
    return np.where(over.any(axis=2), steps_mm[last - 1] + part * (steps_mm[1] - steps_mm[0]), np.inf)


def _directions(line_mm: Floats) -> Floats:
    """Unit vectors (P, 3) along a line."""
    smooth = ndimage.gaussian_filter1d(line_mm, _ALONG, axis=0, mode="nearest")
    along = np.gradient(smooth, axis=0) if len(line_mm) > 1 else np.array([[1.0, 0.0, 0.0]])
    length = np.linalg.norm(along, axis=1, keepdims=True)
    return np.where(length > 1e-6, along / np.maximum(length, 1e-6), [[1.0, 0.0, 0.0]])


def evidence_along(rings: Rings | None, probability: Floats | None, count: int) -> Floats:
    """How sure it is that there is a lumen at each position, (P,) 0..1: a closed wall, or the network."""
    sure = np.zeros(count)
    if rings is not None:
        sure = _ramp(rings.closed, _CLOSED) * _ramp(rings.wall_hu - rings.lumen_hu, _CONTRAST_HU)
    if probability is not None:
        sure = np.maximum(sure, _ramp(probability, _PROBABLE))
    return sure


def lumen_around(
    brightness: Brightness, path: NDArray, line_mm: Floats, radii_mm: Floats, spacing_mm: Spacing
) -> NDArray[np.bool_]:
    """The lumen (Z, Y, X) around a path (P, 3) of voxels, which it always holds.

    Lumen is what lies within the radius at the nearest position and is darker than `Brightness.core`, and beyond it, up
    to `_OUT_OF_ROUND` radii, what is darker than `Brightness.rim`; all of it connected with the path through faces.
    """
    lumen = np.zeros(brightness.values.shape, bool)
    reach_mm = float(radii_mm.max()) * _OUT_OF_ROUND
    near, nearest = nearest_of(path, line_mm, reach_mm, lumen.shape, spacing_mm)
    apart = np.linalg.norm(near * np.asarray(spacing_mm) - line_mm[nearest], axis=1) / radii_mm[nearest]
    values = brightness.values[tuple(near.T)]
    inside = (apart <= 1) & (values <= brightness.core[nearest])
    inside |= (apart <= _OUT_OF_ROUND) & (values <= brightness.rim[nearest])
    lumen[tuple(near[inside].T)] = True
    lumen[tuple(path.T)] = True
    box = tuple(slice(low, high + 1) for low, high in zip(near.min(axis=0), near.max(axis=0), strict=True))
    labels, count = ndimage.label(lumen[box])
    on_path = np.zeros(count + 1, bool)
    on_path[labels[tuple((path - near.min(axis=0)).T)]] = True
    lumen[box] = on_path[labels]
    return lumen


def centered(lumen: NDArray[np.bool_], path: NDArray, line_mm: Floats, spacing_mm: Spacing) -> Floats:
    """The line (P, 3) moved into the middle of its lumen: to the mean of the voxels nearest to each position, smoothed.

    The cheapest path takes the inner side of a bend.
    """
    near, nearest = nearest_of(path, line_mm, _REACH_MM, lumen.shape, spacing_mm)
    inside = lumen[tuple(near.T)]
    voxels_mm, nearest = near[inside] * np.asarray(spacing_mm), nearest[inside]
    count = len(line_mm)
    sums = np.stack([np.bincount(nearest, voxels_mm[:, axis], minlength=count) for axis in range(3)], axis=1)
    weights = np.bincount(nearest, minlength=count).astype(float)[:, None]
    smooth, counts = (ndimage.gaussian_filter1d(each, _ALONG, axis=0, mode="nearest") for each in (sums, weights))
    return np.where(counts > 1e-3, smooth / np.maximum(counts, 1e-3), line_mm)


def nearest_of(
    path: NDArray, line_mm: Floats, reach_mm: float, shape: tuple[int, ...], spacing_mm: Spacing
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The voxels (M, 3) within reach of a line, and for each the nearest position of the line, (M,)."""
    reach = np.ceil(reach_mm / np.asarray(spacing_mm)).astype(int) + 1
    low, high = np.maximum(path.min(axis=0) - reach, 0), np.minimum(path.max(axis=0) + reach + 1, shape)
    box = np.zeros(high - low, bool)
    box[tuple((path - low).T)] = True
    close = ndimage.distance_transform_edt(~box, spacing_mm) <= reach_mm + max(spacing_mm)
    voxels = np.argwhere(close) + low
    return voxels, cKDTree(line_mm).query(voxels * np.asarray(spacing_mm))[1]


def _ramp(values: Floats, limits: tuple[float, float]) -> Floats:
    zero, one = limits
    return np.clip((values - zero) / (one - zero), 0, 1)
