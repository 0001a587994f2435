"""The walls of all branches: the scan's blur and wall density first, then each branch, then Pi10."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import linregress, theilslopes

from AirwaySegLib.tree.airway_tree import AirwayTree, Branch
from AirwaySegLib.tree.build import ParsedAirways
from AirwaySegLib.tree.wall import Pi10, Wall, WallScan
from AirwaySegLib.walls.blurred_tube import Floats
from AirwaySegLib.walls.rays import Profiles, profiles_of
from AirwaySegLib.walls.sections import RAYS, Sections, sections_of

AIR_HU, AIR_RANGE_HU = -1000.0, (-1024.0, -900.0)
WALL_HU, WALL_RANGE_HU = 40.0, (0.0, 100.0)
"""Density of a wall: that of soft tissue, and what a scan's own estimate may be."""

WIDE_MM = 2.5
"""Lumen so far from its wall shows the density of air."""

BLURS_MM = np.array([0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.9, 1.05, 1.2])
RATIOS, FINE = np.array([0.6, 0.8, 1.0, 1.25, 1.6]), np.array([0.8, 0.9, 1.0, 1.1, 1.2])
SAMPLE_RAYS, LEAST_SAMPLE = 700, 60
"""Rays of the whole scan from which its blur is estimated; with fewer the usual one is taken."""

USUAL_BLUR_MM = (0.55, 0.65)
MOST_ERROR, MOST_WALL_HU = 3.0, 150.0
"""A ray is left out where the fit's error is so many times the median, or its wall as dense as contrast or bone."""

OUTLIER_MM = 0.4
"""A ray is left out if its wall is this much more than twice as thick as the branch's 20th percentile: a vessel."""

LEAST_LUMEN, LEAST_USABLE = 0.5, 0.15
"""Share of rays that a section's lumen area, and that a branch's thickness needs."""

LEAST_TAPERING, LEAST_TAPERING_MM = 4, 4.0
PI10_FROM, PI10_BRANCHES, PI10_SPREAD_MM = 2, 8, 4.0
"""Pi10: from which generation on, how many branches at least, and how far apart their inner perimeters."""


def air_of(airways: ParsedAirways, ct: NDArray) -> float:
    """The CT's density of air: the median deep within wide lumens, in a plausible range; `AIR_HU` without any."""
    deep = airways.lumen.voxels[airways.lumen.wall_mm > WIDE_MM] + np.array([part.start for part in airways.box])
    return float(np.clip(np.median(ct[tuple(deep.T)]), *AIR_RANGE_HU)) if len(deep) else AIR_HU


def blur_of(profiles: Profiles, spacing_mm: tuple[float, float, float], air_hu: float) -> tuple[float, float]:
    """Standard deviations of the blur in mm within and across slices: those with which tubes fit the rays best.

    Across slices the search begins where a box as long as a slice adds its own blur.
    """

    def misfit(blur_mm: tuple[float, float]) -> float:
        return float(np.median(profiles.fitted(blur_mm, air_hu, WALL_HU).error_hu))

    longer = np.sqrt(max(spacing_mm[0] ** 2 - spacing_mm[2] ** 2, 0.0) / 12)
    within = _lowest(BLURS_MM, [misfit((one, float(np.hypot(one, longer)))) for one in BLURS_MM])
    across = np.hypot(within, longer) * RATIOS
    across_mm = _lowest(across, [misfit((within, one)) for one in across])
    fine = within * FINE
    return _lowest(fine, [misfit((one, across_mm)) for one in fine]), across_mm


def _lowest(values: Floats, errors: list[float]) -> float:
    """Where a parabola through the least error and its neighbours is lowest."""
    best = int(np.argmin(errors))
    if best in (0, len(values) - 1):
        return float(values[best])
    part = slice(best - 1, best + 2)
    bend, slope, _ = np.polyfit(values[part] - values[best], errors[part], 2)
    return float(values[best] - slope / (2 * bend)) if bend > 0 else float(values[best])


def measure_walls(airways: ParsedAirways, ct: NDArray) -> AirwayTree:
    """The tree with the wall of each branch, as far as the CT shows it, and with Pi10.

    Parameters
    ----------
    ct
        (Z, Y, X) in HU, on the canonical grid of the airways.
    """
    spacing = airways.grid.spacing_mm
    air_hu = air_of(airways, ct)
    sections = list(sections_of(airways))
    if not sections:
        return airways.tree
    profiles = profiles_of(airways, ct, sections, air_hu)
    rows = np.flatnonzero(profiles.usable)
    some = rows[np.random.default_rng(0).permutation(len(rows))[:SAMPLE_RAYS]]
    blur_mm = blur_of(profiles.part(some), spacing, air_hu) if len(some) >= LEAST_SAMPLE else USUAL_BLUR_MM
    tubes = profiles.part(rows).fitted(blur_mm, air_hu, WALL_HU)
    good = (tubes.error_hu <= MOST_ERROR * np.median(tubes.error_hu)) & (tubes.wall_hu <= MOST_WALL_HU) if len(rows) else np.zeros(0, bool)
    inner, thickness = _inner_edges(profiles, blur_mm), np.full(len(profiles.usable), np.nan)
    inner[rows] = np.where(good, tubes.inner_mm, inner[rows])
    thickness[rows[good]] = tubes.thickness_mm[good]
    walls, first = {}, 0
    for one in sections:
        part = slice(first, first + len(one.middles_mm) * RAYS)
        first = part.stop
        shape = len(one.middles_mm), RAYS
        walls[one.branch] = _wall(one, inner[part].reshape(shape), thickness[part].reshape(shape))
    tree = airways.tree
    branches = [replace(branch, wall=walls.get(branch.id, Wall())) for branch in tree.branches]
    branches = [replace(branch, wall=_beside_parent(branch, branches)) for branch in branches]
    scan = WallScan(blur_mm, air_hu, WALL_HU, pi10_of(tree.with_branches(branches)))
    return tree.with_branches(branches, wall_scan=scan)


def _inner_edges(profiles: Profiles, blur_mm: tuple[float, float]) -> Floats:
    """The lumen's edge by half height, (R,): of a round lumen the blur draws it inwards by its variance / (2 radius)."""
    within = profiles.inner_mm
    variance = blur_mm[0] ** 2 * (1 - profiles.upward**2) + blur_mm[1] ** 2 * profiles.upward**2
    return within + variance / (2 * np.maximum(within, 0.5))


def _wall(sections: Sections, inner_mm: Floats, thickness_mm: Floats) -> Wall:
    """One branch from its rays (S, A)."""
    seen = np.isfinite(inner_mm)
    areas = np.array([np.pi * float(np.mean(one[known] ** 2)) if known.mean() >= LEAST_LUMEN else np.nan for one, known in zip(inner_mm, seen, strict=True)])
    known = np.isfinite(areas)
    lumen_rays = round(float(seen.mean()), 3)
    if not known.any():
        return Wall(lumen_rays=lumen_rays)
    diameters = 2 * np.sqrt(areas / np.pi)
    diameter = float(np.median(diameters[known]))
    across = thickness_mm * _cosine(inner_mm)
    across[~known] = np.nan
    values = across[np.isfinite(across)]
    if len(values):
        likely = float(np.percentile(values, 20))
        values = values[values <= 2 * likely + OUTLIER_MM]
    share = len(values) / thickness_mm.size
    enough = share >= LEAST_USABLE
    return Wall(
        diameter,
        float(np.median(values)) if enough else None,
        round(share, 3),
        lumen_rays,
        _tapering(sections.at_mm[known], diameters[known]),
    )


def _cosine(inner_mm: Floats) -> Floats:
    """Between each ray and the wall's normal, (S, A): a ray crosses the wall of a flat lumen obliquely."""
    cosines = np.ones(inner_mm.shape)
    turns = 2 * np.pi * np.arange(RAYS) / RAYS
    waves = np.column_stack([np.ones(RAYS), *(wave(turns * n) for n in (1, 2, 3) for wave in (np.cos, np.sin))])
    slopes = np.column_stack([np.zeros(RAYS), *(f for n in (1, 2, 3) for f in (-n * np.sin(turns * n), n * np.cos(turns * n)))])
    for row, radii in enumerate(inner_mm):
        known = np.isfinite(radii)
        if known.sum() >= RAYS * 2 // 3:
            parts = np.linalg.lstsq(waves[known], radii[known], rcond=None)[0]
            smooth = np.maximum(waves @ parts, 1e-3)
            cosines[row] = smooth / np.hypot(smooth, slopes @ parts)
    return cosines


def _tapering(at_mm: Floats, diameters_mm: Floats) -> float | None:
    """Loss of diameter in percent of the mean for each mm, by the median of the slopes between all pairs (Theil, Sen)."""
    if len(at_mm) < LEAST_TAPERING or np.ptp(at_mm) < LEAST_TAPERING_MM:
        return None
    return -100 * float(theilslopes(diameters_mm, at_mm)[0]) / float(diameters_mm.mean())


def _beside_parent(branch: Branch, branches: list[Branch]) -> Wall | None:
    parent = branches[branch.parent - 1].wall if branch.parent else None
    own = branch.wall
    if own is None or parent is None or own.inner_diameter_mm is None or not parent.inner_diameter_mm:
        return own
    return replace(own, inter_tapering_percent=100 * (1 - own.inner_diameter_mm / parent.inner_diameter_mm))


def pi10_of(tree: AirwayTree) -> Pi10 | None:
    """Pi10 of the tree's branches beyond the main bronchi; None with fewer than `PI10_BRANCHES`, or too alike ones."""
    walls = [branch.wall for branch in tree.main() if branch.generation >= PI10_FROM and branch.wall]
    values = np.array([(np.pi * w.inner_diameter_mm, np.sqrt(w.wall_area_mm2)) for w in walls if w.inner_diameter_mm and w.wall_area_mm2])
    if len(values) < PI10_BRANCHES:
        return None
    perimeters, roots = values.T
    if perimeters.min() > 10 or perimeters.max() < 10 or np.ptp(perimeters) < PI10_SPREAD_MM:
        return None
    line = linregress(perimeters, roots)
    slope, intercept = float(line.slope), float(line.intercept)
    return Pi10(intercept + 10 * slope, slope, intercept, float(line.rvalue), len(values), float(perimeters.min()), float(perimeters.max()))
