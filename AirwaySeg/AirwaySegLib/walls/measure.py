"""The walls and arteries of all branches of a tree, from the CT: the scan's blur, each branch, then Pi10.

Letters in shapes: S cross-sections of a branch, A rays of a section.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.tree.airway_tree import AirwayTree, Branch
from AirwaySegLib.tree.build import ParsedAirways
from AirwaySegLib.tree.known_parts import KnownParts, checksum
from AirwaySegLib.tree.wall import Wall, WallScan
from AirwaySegLib.walls.arteries import artery_of, reach_of_artery
from AirwaySegLib.walls.blur import blur_of
from AirwaySegLib.walls.blurred_tube import Floats
from AirwaySegLib.walls.pi10 import pi10_of
from AirwaySegLib.walls.rays import Profiles, profiles_of, scan_parts
from AirwaySegLib.walls.sections import RAYS, ScanParts, Sections, sections_of

AIR_HU, AIR_RANGE_HU = -1000.0, (-1024.0, -900.0)
WALL_HU = 40.0
"""Density of a wall: that of soft tissue. 45 HU more or less make a thin wall 5 % thinner or thicker."""

WIDE_MM = 2.5
"""Lumen so far from its wall shows the density of air."""

MOST_ERROR, MOST_WALL_HU = 3.0, 150.0
"""A ray is left out where the fit's error is so many times the median, or its wall as dense as contrast or bone."""

OUTLIER_MM = 0.4
"""A ray is left out if its wall is this much more than twice as thick as the branch's 20th percentile: a vessel."""

MOST_THICK = 0.8
"""A wall thicker than so much of the inner diameter (wall area fraction 0.85) is none: vessels lie along the branch."""

LEAST_LUMEN, LEAST_USABLE = 0.5, 0.15
"""Share of rays that a section's lumen area, and that a branch's thickness needs."""

LEAST_TAPERING, LEAST_TAPERING_MM = 4, 4.0
"""Sections and length that a tapering needs."""

FROM_GENERATION = 2
"""Pi10 is of the branches beyond the main bronchi, and arteries are looked for beside these."""

ARTERY_SECTIONS, USUAL_THICKNESS = 4, 0.2
"""Arteries are looked for in about so many sections. A wall that was not measured is this part of the diameter."""

THICK_SLICES_MM = 1.5

FIGURES = ("inner_diameter_mm", "thickness_mm", "usable_rays", "lumen_rays", "intra_tapering_percent_per_mm")
"""The figures of a wall that come from its own rays alone."""


def measure_walls(airways: ParsedAirways, ct: NDArray, known: KnownParts | None = None) -> AirwayTree:
    """The tree with the wall and artery of each branch, as far as the CT shows them, and with Pi10.

    Rays go out from the middle of each cross-section. A blurred tube is fitted to each (`blurred_tube.fit_tubes`) that
    crosses one wall with lung behind it; those that meet a vessel, another airway or other tissue are left out. A
    branch's thickness is the median over all rays of its inner part.

    Parameters
    ----------
    ct
        (Z, Y, X) in HU, on the canonical grid of the airways.
    known
        Of an earlier measurement in the same CT: branches whose surroundings have not changed are taken from it.
    """
    known = known or KnownParts()
    air_hu = air_of(airways, ct)
    sections = list(sections_of(airways))
    parts_of_ct = scan_parts(airways, ct)
    profiles = profiles_of(airways, ct, sections, air_hu, known, parts_of_ct)
    blur_mm = blur_of(profiles.usable_part(), airways.grid.spacing_mm, (air_hu, WALL_HU))
    counts = np.array([len(one.middles_mm) * RAYS for one in sections], int)
    inner_mm, thickness_mm = _edges(profiles, blur_mm, air_hu, counts, known)
    half_mm = np.where(np.isfinite(thickness_mm), profiles.thickness_mm, np.nan)
    walls = {branch.id: Wall() for branch in airways.tree.branches}
    half_walls = dict(walls)
    first = 0
    for one in sections:
        part = slice(first, first + len(one.middles_mm) * RAYS)
        first = part.stop
        edges = inner_mm[part].reshape(-1, RAYS), thickness_mm[part].reshape(-1, RAYS)
        walls[one.branch] = _wall(one, *edges, known)
        half_edges = profiles.inner_mm[part].reshape(-1, RAYS), half_mm[part].reshape(-1, RAYS)
        half_walls[one.branch] = _wall(one, *half_edges, known)
        if airways.tree.branch(one.branch).generation >= FROM_GENERATION:
            walls[one.branch] = _with_artery(
                airways, (ct, parts_of_ct), (one, edges[0]), walls[one.branch], blur_mm, known
            )
    branches = [replace(branch, wall=_beside_parent(branch, walls)) for branch in airways.tree.branches]
    peripheral = [branch.id for branch in airways.tree.main() if branch.generation >= FROM_GENERATION]
    pi10, half = (pi10_of(*_sizes([which[number] for number in peripheral])) for which in (walls, half_walls))
    scan = WallScan(blur_mm, air_hu, WALL_HU, pi10, half, _warning(airways.grid.spacing_mm))
    return airways.tree.with_branches(branches, wall_scan=scan)


def air_of(airways: ParsedAirways, ct: NDArray) -> float:
    """The CT's density of air: the median deep within wide lumens, in a plausible range; `AIR_HU` without any."""
    deep = airways.lumen.voxels[airways.lumen.wall_mm > WIDE_MM] + np.array([part.start for part in airways.box])
    return float(np.clip(np.median(ct[tuple(deep.T)]), *AIR_RANGE_HU)) if len(deep) else AIR_HU


def _warning(spacing_mm: tuple[float, float, float]) -> str:
    """What to say of figures from thick slices; empty for thin ones."""
    if max(spacing_mm) <= THICK_SLICES_MM:
        return ""
    return (
        f"Voxels are {max(spacing_mm):.1f} mm long: the wall of a single branch is uncertain by some tenths of a "
        "millimetre; Pi10 and means of many branches are less affected."
    )


def _edges(
    profiles: Profiles, blur_mm: tuple[float, float], air_hu: float, counts: NDArray[np.intp], known: KnownParts
) -> tuple[Floats, Floats]:
    """Inner radius and wall thickness on each ray, (R,); NaN where they are not known. ``counts`` (B,) are of branches.

    Where no tube can be fitted the lumen's edge is that at half height: of a round lumen the blur draws it inwards by
    its variance / (2 radius).
    """
    variance = blur_mm[0] ** 2 * (1 - profiles.upward**2) + blur_mm[1] ** 2 * profiles.upward**2
    inner_mm = profiles.inner_mm + variance / (2 * np.maximum(profiles.inner_mm, 0.5))
    thickness_mm = np.full(len(inner_mm), np.nan)
    rows = np.flatnonzero(profiles.usable)
    if len(rows):
        ends = np.searchsorted(rows, np.concatenate([[0], np.cumsum(counts)])).tolist()
        branches = [slice(a, b) for a, b in zip(ends, ends[1:], strict=False) if a < b]
        tubes = profiles.part(rows).fitted_where_new(blur_mm, air_hu, WALL_HU, branches, known)
        good = (tubes.error_hu <= MOST_ERROR * np.median(tubes.error_hu)) & (tubes.wall_hu <= MOST_WALL_HU)
        inner_mm[rows[good]] = tubes.inner_mm[good]
        thickness_mm[rows[good]] = tubes.thickness_mm[good]
    return inner_mm, thickness_mm


def _wall(sections: Sections, inner_mm: Floats, thickness_mm: Floats, known: KnownParts) -> Wall:
    """One branch from its rays, (S, A) each."""
    key = checksum(sections.at_mm, inner_mm, thickness_mm)
    found = known.find("wall", key)
    if found is None:
        wall = _wall_of(sections, inner_mm, thickness_mm)
        figures = [getattr(wall, name) for name in FIGURES]
        found = known.keep("wall", key, (np.array([np.nan if one is None else one for one in figures]),))
    inner, thickness, usable, lumen, tapering = found[0].tolist()
    known_or_none = [None if np.isnan(one) else float(one) for one in (inner, thickness, tapering)]
    return Wall(known_or_none[0], known_or_none[1], usable, lumen, known_or_none[2])


def _wall_of(sections: Sections, inner_mm: Floats, thickness_mm: Floats) -> Wall:
    seen = np.isfinite(inner_mm)
    known = seen.mean(axis=1) >= LEAST_LUMEN
    if not known.any():
        return Wall(lumen_rays=float(seen.mean()))
    diameters = 2 * np.sqrt(np.nanmean(inner_mm[known] ** 2, axis=1))
    across = (thickness_mm * _cosine(inner_mm))[known]
    values = across[np.isfinite(across)]
    if len(values):
        values = values[values <= 2 * float(np.percentile(values, 20)) + OUTLIER_MM]
    share, diameter = len(values) / thickness_mm.size, float(np.median(diameters))
    thickness = float(np.median(values)) if share >= LEAST_USABLE else None
    return Wall(
        inner_diameter_mm=diameter,
        thickness_mm=thickness if thickness is not None and thickness <= MOST_THICK * diameter else None,
        usable_rays=share,
        lumen_rays=float(seen.mean()),
        intra_tapering_percent_per_mm=_tapering(sections.at_mm[known], diameters),
    )


def _cosine(inner_mm: Floats) -> Floats:
    """Between each ray and the wall's normal, (S, A): a ray crosses the wall of a flat lumen obliquely.

    The lumen's outline is smoothed to three waves around; 1 where too little of it is known.
    """
    turns = 2 * np.pi * np.arange(RAYS) / RAYS
    numbers = np.arange(4)
    waves = np.hstack([np.cos(turns[:, None] * numbers), np.sin(turns[:, None] * numbers[1:])])
    slopes = np.hstack(
        [-numbers * np.sin(turns[:, None] * numbers), (numbers * np.cos(turns[:, None] * numbers))[:, 1:]]
    )
    cosines = np.ones(inner_mm.shape)
    for row, radii in enumerate(inner_mm):
        known = np.isfinite(radii)
        if known.sum() >= RAYS * 2 // 3:
            parts = np.linalg.lstsq(waves[known], radii[known], rcond=None)[0]
            smooth = np.maximum(waves @ parts, 1e-3)
            cosines[row] = smooth / np.hypot(smooth, slopes @ parts)
    return cosines


def _tapering(at_mm: Floats, diameters_mm: Floats) -> float | None:
    """Loss of diameter in percent of the mean for each mm: the median of the slopes between all pairs (Theil, Sen)."""
    if len(at_mm) < LEAST_TAPERING or np.ptp(at_mm) < LEAST_TAPERING_MM:
        return None
    first, second = np.triu_indices(len(at_mm), 1)
    slopes = (diameters_mm[second] - diameters_mm[first]) / (at_mm[second] - at_mm[first])
    return -100 * float(np.median(slopes)) / float(diameters_mm.mean())


def _with_artery(
    airways: ParsedAirways,
    ct: tuple[NDArray, ScanParts],
    branch: tuple[Sections, Floats],
    wall: Wall,
    blur_mm: tuple[float, float],
    known: KnownParts,
) -> Wall:
    """The wall with the artery beside it, if one is found; ``branch`` is its sections and inner radii (S, A)."""
    if wall.inner_diameter_mm is None:
        return wall
    sections, inner_mm = branch
    thickness = USUAL_THICKNESS * wall.inner_diameter_mm if wall.thickness_mm is None else wall.thickness_mm
    outer = np.where(np.isfinite(inner_mm), inner_mm, wall.inner_diameter_mm / 2) + thickness
    step = max(1, len(outer) // ARTERY_SECTIONS)
    some, outer = sections.every(step), outer[::step]
    key = checksum(ct[1].around(some, reach_of_artery(outer)), outer, blur_mm)
    found = known.find("artery", key)
    if found is None:
        artery = artery_of(airways, ct[0], some, outer, blur_mm)
        figures = [] if artery is None else [artery.diameter_mm, artery.sections]
        found = known.keep("artery", key, (np.array(figures, float),))
    if not len(found[0]):
        return wall
    diameter_mm, share = found[0].tolist()
    return replace(wall, artery_diameter_mm=diameter_mm, artery_sections=share)


def _beside_parent(branch: Branch, walls: dict[int, Wall]) -> Wall:
    """The wall with how much narrower the branch is than its parent."""
    own = walls[branch.id]
    parent_mm = walls[branch.parent].inner_diameter_mm if branch.parent else None
    if own.inner_diameter_mm is None or parent_mm is None:
        return own
    return replace(own, inter_tapering_percent=100 * (1 - own.inner_diameter_mm / parent_mm))


def _sizes(walls: list[Wall]) -> tuple[Floats, Floats]:
    """Inner diameter and thickness of those walls that were measured, (B,) each."""
    sizes = [(wall.inner_diameter_mm, wall.thickness_mm) for wall in walls if wall.outer_diameter_mm is not None]
    both = np.array(sizes, float).reshape(-1, 2)
    return both[:, 0], both[:, 1]
