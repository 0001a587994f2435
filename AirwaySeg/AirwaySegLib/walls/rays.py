"""The rays of a scan's branches: profiles near the wall, its edges, and which rays show a wall that borders on lung.

Letters in shapes: R rays of all branches, K samples of a ray.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.tree.build import ParsedAirways
from AirwaySegLib.tree.known_parts import KnownParts, checksum
from AirwaySegLib.walls.blurred_tube import Floats, Rays, Tubes, fit_tubes
from AirwaySegLib.walls.profiles import STEP_MM, find_edges
from AirwaySegLib.walls.sections import BEYOND_MM, RAYS, ScanParts, Sections, crop_around, sample

LUNG_HU = -500.0
"""Behind a wall that borders on lung the CT falls below this."""

INSIDE_MM, OUTSIDE_MM = 1.6, 4.8
"""The part of a profile that is fitted begins and ends so far from the wall's inner edge."""

WINDOW = round((INSIDE_MM + OUTSIDE_MM) / STEP_MM)
"""Samples of the part that is fitted."""

MOST_THICK_MM = 4.0
"""A wall that seems thicker at half height has a vessel or other tissue behind it."""

FAR_MM = 1.5
"""The lumen's edge in the CT is nearer than this, or this part of the radius if it is more, to the mask's."""

FAR_PART = 0.3
PAST_END = 2
"""Samples behind the lowest value that are still fitted."""


@dataclass(frozen=True)
class Profiles:
    """The rays of some branches.

    ``section`` (R,) is the number of the ray's cross-section among all, ``upward`` (R,) the part of its direction
    across slices (0..1). ``inner_mm`` (R,) is the lumen's edge at half height, NaN where none was found, ``start_mm``
    (R,) where the samples ``hu`` (R, K) begin, ``counts`` (R, K) which of them are fitted, ``usable`` (R,) which
    rays have an outer edge beside lung. ``thickness_mm`` and ``valley_hu`` (R,) are its half-height values.
    """

    section: NDArray[np.intp]
    upward: Floats
    inner_mm: Floats
    start_mm: Floats
    hu: Floats
    counts: NDArray[np.bool_]
    usable: NDArray[np.bool_]
    thickness_mm: Floats
    valley_hu: Floats

    def usable_part(self) -> "Profiles":
        """The rays whose wall borders on lung."""
        return self.part(np.flatnonzero(self.usable))

    def part(self, rows: NDArray | slice) -> "Profiles":
        """Some of the rays."""
        return Profiles(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def fitted_where_new(
        self, blur_mm: tuple[float, float], air_hu: float, wall_hu: float, branches: list[slice], known: KnownParts
    ) -> Tubes:
        """`fitted`, without those branches (slices of the rays) whose rays are known."""
        columns = np.full((len(Tubes.__dataclass_fields__), len(self.section)), np.nan)
        missing = np.zeros(len(self.section), bool)
        new: list[tuple[slice, bytes]] = []
        for part in branches:
            rays = self.part(part)
            key = checksum(*_columns(rays)[1:], blur_mm, air_hu, wall_hu)  # whatever the numbers of its sections
            found = known.find("tubes", key)
            if found is None:
                missing[part] = True
                new.append((part, key))
            else:
                columns[:, part] = found[0]
        if missing.any():
            tubes = self.part(np.flatnonzero(missing)).fitted(blur_mm, air_hu, wall_hu)
            columns[:, missing] = [getattr(tubes, name) for name in Tubes.__dataclass_fields__]
        for part, key in new:
            known.keep("tubes", key, (columns[:, part].copy(),))
        return Tubes(*columns)

    def fitted(self, blur_mm: tuple[float, float], air_hu: float, wall_hu: float) -> Tubes:
        """The blurred tube that fits each ray best; ``blur_mm`` is that within and across slices."""
        blur = np.hypot(blur_mm[0] * np.sqrt(1 - self.upward**2), blur_mm[1] * self.upward)
        r_mm = self.start_mm[:, None] + STEP_MM * np.arange(self.hu.shape[1])
        thinner = np.maximum(self.thickness_mm - 0.5 * blur, 0.3)
        start = Tubes(self.inner_mm, thinner, np.empty(0), self.valley_hu, np.empty(0))
        return fit_tubes(Rays(r_mm, self.hu, self.counts, blur), start, air_hu, wall_hu)


def profiles_of(
    airways: ParsedAirways,
    ct: NDArray,
    sections: list[Sections],
    air_hu: float,
    known: KnownParts | None = None,
    scan: ScanParts | None = None,
) -> Profiles:
    """The rays of all sections, in the order of the list, `RAYS` for each cross-section.

    ``ct`` (Z, Y, X) is on the canonical grid of the airways. Branches whose surroundings are ``known`` are not sampled;
    ``scan`` holds the parts of the CT that were already read for that.
    """
    known, scan = known or KnownParts(), scan or scan_parts(airways, ct)
    parts, first = [], 0
    for one in sections:
        key = _surroundings(airways, scan, one, air_hu)
        stored = known.find("rays", key) or known.keep("rays", key, _columns(_of_branch(airways, ct, one, air_hu)))
        found = Profiles(*(column.astype(float) if column.dtype == np.float32 else column for column in stored))
        parts.append(replace(found, section=found.section + first))
        first += len(one.middles_mm)
    if not parts:
        return _no_rays()
    return Profiles(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in Profiles.__dataclass_fields__)
    )


def _columns(profiles: Profiles) -> tuple[NDArray, ...]:
    """The arrays of some rays; the CT's values were sampled as float32, and are kept so."""
    return tuple(
        getattr(profiles, name).astype(np.float32) if name == "hu" else getattr(profiles, name)
        for name in Profiles.__dataclass_fields__
    )


def scan_parts(airways: ParsedAirways, ct: NDArray) -> ScanParts:
    """The CT around the airways, by parts."""
    return ScanParts(ct, np.array([part.start for part in airways.box]), np.asarray(airways.grid.spacing_mm))


def _surroundings(airways: ParsedAirways, scan: ScanParts, sections: Sections, air_hu: float) -> bytes:
    """A checksum of all that `_of_branch` looks at."""
    spacing, corner = np.asarray(airways.grid.spacing_mm), np.array([part.start for part in airways.box])
    reach_mm = (1 + FAR_PART) * float(sections.radii_mm.max()) + BEYOND_MM
    ends = np.stack([sections.middles_mm.min(axis=0) - reach_mm, sections.middles_mm.max(axis=0) + reach_mm])
    mask, low = crop_around(airways.grid.array, corner, ends / spacing)
    return checksum(scan.around(sections, reach_mm), mask != 0, tuple(low.tolist()), air_hu)


def _no_rays() -> Profiles:
    none, window = np.empty(0), np.empty((0, WINDOW))
    numbers = np.empty(0, np.intp)
    return Profiles(numbers, none, none, none, window, window > 0, none > 0, none, none)


def _of_branch(airways: ParsedAirways, ct: NDArray, sections: Sections, air_hu: float) -> Profiles:
    spacing, corner = np.asarray(airways.grid.spacing_mm), np.array([part.start for part in airways.box])
    count = len(sections.middles_mm)
    reach_mm = (1 + FAR_PART) * float(sections.radii_mm.max()) + BEYOND_MM
    r_mm = STEP_MM * np.arange(int(reach_mm / STEP_MM) + 1)
    directions = sections.directions()
    points = sections.middles_mm[:, None, None] + directions[:, :, None] * r_mm[:, None]
    hu = sample(ct, corner, points, spacing).reshape(-1, len(r_mm))
    radii = np.repeat(sections.radii_mm, RAYS)
    edges = find_edges(hu, (0.5 * radii / STEP_MM).astype(int), air_hu, int(OUTSIDE_MM / STEP_MM))
    thick = edges.outer_mm - edges.inner_mm
    near = np.abs(edges.inner_mm - radii) < np.maximum(FAR_MM, FAR_PART * radii)
    usable = near & (edges.valley_hu < LUNG_HU) & (thick < MOST_THICK_MM)
    usable &= ~_meets_airway(airways, points.reshape(-1, len(r_mm), 3), edges.outer_mm, sections.branch)
    start = np.clip(np.nan_to_num(edges.inner_mm - INSIDE_MM) / STEP_MM, 0, len(r_mm) - WINDOW).astype(int)
    columns = start[:, None] + np.arange(WINDOW)
    return Profiles(
        np.repeat(np.arange(count), RAYS),
        np.minimum(np.abs(directions[..., 0]), 1).ravel(),  # a unit vector may be longer by rounding
        np.where(near, edges.inner_mm, np.nan),
        start * STEP_MM,
        np.take_along_axis(hu, columns, axis=1),
        columns <= edges.end[:, None] + PAST_END,
        usable,
        thick,
        edges.valley_hu,
    )


def _meets_airway(airways: ParsedAirways, points_mm: Floats, outer_mm: Floats, branch: int) -> NDArray[np.bool_]:
    """Which rays (R,) enter the lumen of an airway within 2 mm behind the wall's outer edge."""
    meets = np.zeros(len(outer_mm), bool)
    first = np.nan_to_num(outer_mm / STEP_MM).astype(int)
    for step in range(0, int(2.0 / STEP_MM) + 1, 2):
        at = np.minimum(first + step, points_mm.shape[1] - 1)
        voxels = np.round(points_mm[np.arange(len(at)), at] / airways.grid.spacing_mm).astype(int)
        inside = ((voxels >= 0) & (voxels < airways.lumen.shape)).all(axis=1)
        voxels = np.where(inside[:, None], voxels, 0)
        meets |= inside & (airways.grid.array[airways.box][tuple(voxels.T)] != 0)
    return meets
