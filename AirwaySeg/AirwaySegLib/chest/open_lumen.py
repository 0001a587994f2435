"""Open lumens: what a wavefront reaches from the trachea through wide air that has a wall is airway.

Explosion-controlled region growing: the threshold is as high as each branch bears without a leak (Mori et al. 1996,
doi:10.1109/ICPR.1996.546754; van Rikxoort et al. 2009, doi:10.1117/12.811601), and a leak is told from the wavefront
(Schlathoelter et al. 2002, doi:10.1117/12.467101; Kiraly et al. 2002, doi:10.1016/S1076-6332(03)80517-2). It needs no
network and finds what a network has never seen, such as bronchi in consolidated lung; it ends where lumens are narrow.

A *section* is what the wavefront enters in one step in one connected piece. All limits that name no source were chosen
by hand on real CTs of 1 to 3 mm.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.chest.wavefront import Numbers, Ring, Spacing, Wavefront
from AirwaySegLib.masks.components import bounding_box, distance_to, label_components

_HALF_WIDTH_MM = 1.0
"""Only air within this distance: with the half voxel up to the wall, lumens of about 3 mm."""

_STEP_MM = 2.0
"""How far the wavefront advances at a time, but at least a voxel."""

_LEVELS_HU = (-500, -550, -600, -650, -700, -750, -800, -850, -900)
"""Thresholds, the highest first. None is above halfway between a lumen and its wall."""

_LEAST_CONTRAST_HU = 100
"""A level this far above the lumen is allowed however dark the wall looks: the wall may have been out of reach."""

_WALL_HU = 200
"""A wall is brighter than its lumen by so much; lung is by about 100 HU, its noise smoothed included."""

_BRIGHTER_THAN_TRACHEA_HU, _BRIGHTER_THAN_PARENT_HU = 100, 60
"""A lumen of 3 mm is brighter than the trachea by at most so much, and than the section before it (besides noise)."""

_WIDER, _WIDER_MM = 1.2, 0.5
"""A section's radius by rays is at most so many times the greatest allowed so far, and so many mm."""

_WIDER_FRONT, _WIDER_FRONT_MM = 1.35, 1.0
"""The same of the radius of a circle with the wavefront's area, which is larger before a fork."""

_NARROWS_TO = 1.25
"""What hangs below a section has at most so many times its radius (but of 1.5 mm at least)."""

_LEAST_RADIUS_MM = 1.5

_CLOSED, _CLOSED_OVER_MM = 0.7, 6.0
"""Mean share of closed rays over the last so many mm; below, it is lung, or a hole in the wall."""

_CLOSED_BRANCH = 0.75
"""The same over a whole branch, and of a branch's last section."""

_SHORTEST_MM, _BEYOND_PARENT_MM, _FEWEST_SECTIONS = 6.0, 3.0, 3
"""Shorter branches are bulges or beginnings of leaks; so are those that reach this little beyond their parent, and
those of fewer sections."""

_STRICT_MM = 8.0
"""After so much lumen without a leak the highest threshold is tried again."""

_START_MM, _BESIDE_TRACHEA_MM, _ABOVE_CARINA_MM = 3.0, 12.0, 15.0
"""Height of the trachea's lowest sections from which the growth starts; nothing is entered this near to the trachea
from so much above them on: gas there is the oesophagus's."""

_MOST_ML = 120.0
"""Open airways below the trachea hold less, a leak into a lung more."""

_BEYOND_TREE_MM, _LEAST_MM3 = 1.5, 25.0
"""What counts as new: farther from the tree than this, in pieces of this volume; the rest is a tree's ragged rim."""


@dataclass(frozen=True)
class _Section:
    """One section, its ring, the number of the section before it (-1 for the first) and what it allows below it."""

    voxels: Numbers
    ring: Ring
    parent: int
    level: int
    most_radius_mm: float
    steady_mm: float = 0.0


@dataclass(frozen=True)
class OpenLumen:
    """Open lumens on the grid of the CT: ``mask`` bool (Z, Y, X), and the middle line of it.

    ``places`` (S, 3) are voxels in the middle, ``steps_mm`` (S,) the way to each from the one before it.
    """

    mask: NDArray[np.bool_]
    places: NDArray[np.intp]
    steps_mm: NDArray[np.float64]

    def length_in_mm(self, part: NDArray[np.bool_]) -> float:
        """Length of the middle line within a mask (Z, Y, X)."""
        return float(self.steps_mm[part[tuple(self.places.T)]].sum())

    def beyond(self, tree: NDArray[np.bool_], spacing_mm: Spacing) -> NDArray[np.bool_]:
        """What of it a tree (Z, Y, X) lacks, with what leads there; not what only makes the tree's rim smoother."""
        added = np.zeros(tree.shape, bool)
        box = bounding_box(self.mask, margin=2)
        if box is None:
            return added
        lumen = self.mask[box]
        far = lumen & (distance_to(tree[box], spacing_mm) > _BEYOND_TREE_MM)
        labels = label_components(far)
        large = np.bincount(labels.ravel()) * float(np.prod(spacing_mm)) >= _LEAST_MM3
        large[0] = False
        reach_mm = _BEYOND_TREE_MM + max(spacing_mm)
        added[box] = lumen & (distance_to(large[labels], spacing_mm) <= reach_mm) & ~tree[box]
        return added


def open_lumen(hu: NDArray, region: NDArray[np.bool_], trachea: NDArray[np.intp], spacing_mm: Spacing) -> OpenLumen:
    """Grow from the lower end of the trachea through open lumens wider than about 3 mm.

    Parameters
    ----------
    hu
        (Z, Y, X) on a canonical grid: z runs upwards.
    region
        (Z, Y, X) bool: where airways can be.
    trachea
        (N, 3) voxels of its lumen, up to the wall. None at all gives an empty result.
    spacing_mm
        z, y, x.
    """
    nothing = OpenLumen(np.zeros(hu.shape, bool), np.empty((0, 3), np.intp), np.empty(0))
    if not len(trachea):
        return nothing
    wavefront = Wavefront(
        hu, region & ~_beside_trachea(trachea, hu.shape, spacing_mm), spacing_mm, _HALF_WIDTH_MM, _STEP_MM
    )
    growth = _Growth(wavefront, trachea)
    growth.run()
    if growth.exploded:
        return nothing
    sections = growth.sections
    kept = _kept(sections)
    if not kept:
        return nothing
    mask = np.zeros(hu.shape, bool)
    flat = mask.reshape(-1)
    for number in kept:
        ring = sections[number].ring
        flat[wavefront.lumen_around(sections[number].voxels, (ring.hu + ring.wall_hu) / 2)] = True
    centers_mm = np.array([sections[number].ring.center_mm for number in kept])
    before_mm = np.array([sections[sections[number].parent].ring.center_mm for number in kept])
    places = np.rint(centers_mm / np.asarray(spacing_mm)).astype(np.intp)
    return OpenLumen(mask, places, np.linalg.norm(centers_mm - before_mm, axis=1))


def _beside_trachea(trachea: NDArray[np.intp], shape: Sequence[int], spacing_mm: Spacing) -> NDArray[np.bool_]:
    """Mark the trachea and, from a little above its lower end on, what lies near to it (Z, Y, X)."""
    blocked = np.zeros(tuple(shape), bool)
    blocked[tuple(trachea.T)] = True
    first = int(trachea[:, 0].min() + _ABOVE_CARINA_MM / spacing_mm[0])
    y, x = (np.arange(count) * mm for count, mm in zip(shape[1:], spacing_mm[1:], strict=True))
    for z in np.unique(trachea[trachea[:, 0] >= first, 0]):
        rows = trachea[trachea[:, 0] == z, 1:]
        middle_mm = rows.mean(axis=0) * spacing_mm[1:]
        radius_mm = np.sqrt(len(rows) * spacing_mm[1] * spacing_mm[2] / np.pi)
        away_mm = np.hypot(y[:, None] - middle_mm[0], x[None] - middle_mm[1])
        blocked[z] |= away_mm < radius_mm + _BESIDE_TRACHEA_MM
    return blocked


@dataclass
class _Growth:
    """The growth from the trachea (N, 3): sections, parents before children, and whether it ran into a lung."""

    wavefront: Wavefront
    trachea: NDArray[np.intp]
    sections: list[_Section] = field(default_factory=list)
    exploded: bool = False
    _air_hu: float = 0.0
    _noise_hu: float = 0.0

    def run(self) -> None:
        """Advance from section to section; what leaks is tried again with a lower threshold."""
        fronts = [(0, 0)]
        self.sections.append(self._first())
        most = _MOST_ML * 1000 / float(np.prod(self.wavefront.spacing_mm))
        entered = 0
        while fronts:
            number, level = fronts.pop()
            level = self._allowed_level(self.sections[number], level)
            found, leaks = self._advance(number, level)
            if leaks and level + 1 < len(_LEVELS_HU):
                fronts.append((number, level + 1))
            for section in found:
                entered += len(section.voxels)
                fresh = len(found) > 1 or section.steady_mm > _STRICT_MM
                self.sections.append(replace(section, steady_mm=0.0) if fresh else section)
                fronts.append((len(self.sections) - 1, 0 if fresh else level))
            if entered > most:
                self.exploded = True
                return

    def _first(self) -> _Section:
        """The lowest part of the trachea, and how bright and noisy its air is."""
        wavefront, spacing_mm = self.wavefront, self.wavefront.spacing_mm
        slices = max(1, int(np.ceil(_START_MM / spacing_mm[0])))
        lowest = self.trachea[self.trachea[:, 0] < self.trachea[:, 0].min() + slices]
        everywhere = wavefront.numbers_of(self.trachea)
        off_wall = everywhere[wavefront.is_wide(everywhere, _LEVELS_HU[0])]
        values = wavefront.values_of(off_wall if len(off_wall) else everywhere)
        self._air_hu = float(np.median(values))
        self._noise_hu = 1.4826 * float(np.median(np.abs(values - self._air_hu)))
        radius_mm = float(np.sqrt(len(lowest) / slices * spacing_mm[1] * spacing_mm[2] / np.pi))
        above_mm = np.array([_STEP_MM, 0.0, 0.0])  # so that the first axis points downwards
        ring = Ring(lowest.mean(axis=0) * spacing_mm + above_mm, radius_mm, 1.0, self._air_hu, 0.0)
        return _Section(wavefront.numbers_of(lowest), ring, -1, 0, radius_mm)

    def _allowed_level(self, section: _Section, level: int) -> int:
        """The first level from ``level`` on that is not above halfway from lumen to wall."""
        ring = section.ring
        most_hu = max((ring.hu + ring.wall_hu) / 2, ring.hu + _LEAST_CONTRAST_HU)
        while level + 1 < len(_LEVELS_HU) and _LEVELS_HU[level] > most_hu:
            level += 1
        return level

    def _advance(self, number: int, level: int) -> tuple[list[_Section], bool]:
        """The sections that follow one at a level, and whether there was something that is no airway."""
        entered = self.wavefront.advance(self.sections[number].voxels, _LEVELS_HU[level])
        found, leaks = [], False
        for voxels in self.wavefront.parts(entered) if len(entered) else []:
            section = self._section(voxels, number, level)
            if self._is_airway(section):
                found.append(section)
            else:
                self.wavefront.free[voxels] = True
                leaks = True
        return found, leaks

    def _section(self, voxels: Numbers, parent: int, level: int) -> _Section:
        """Measure what was entered."""
        before, step_mm = self.sections[parent], self.wavefront.step_mm
        reach_mm = 1.3 * max(before.most_radius_mm, 2.0) + 3.5
        ring = self.wavefront.ring_around(voxels, self._axis(voxels, parent), reach_mm, _WALL_HU)
        most_mm = min(before.most_radius_mm, _NARROWS_TO * max(ring.radius_mm, _LEAST_RADIUS_MM))
        return _Section(voxels, ring, parent, level, max(most_mm, _LEAST_RADIUS_MM), before.steady_mm + step_mm)

    def _axis(self, voxels: Numbers, parent: int) -> NDArray[np.float64]:
        """Direction (3,) from up to two steps before to the middle of what was entered."""
        middle_mm = self.wavefront.middle_of(voxels)
        before = self.sections[parent]
        for _ in range(3):
            if before.parent < 0 or np.linalg.norm(middle_mm - before.ring.center_mm) >= 2 * self.wavefront.step_mm:
                break
            before = self.sections[before.parent]
        way_mm = middle_mm - before.ring.center_mm
        length_mm = float(np.linalg.norm(way_mm))
        return way_mm / length_mm if length_mm > 0 else np.array([-1.0, 0.0, 0.0])

    def _is_airway(self, section: _Section) -> bool:
        """Whether a section is dark, not wider than what leads to it, and closed by a wall."""
        before, ring, step_mm = self.sections[section.parent], section.ring, self.wavefront.step_mm
        area_mm2 = len(section.voxels) * float(np.prod(self.wavefront.spacing_mm)) / step_mm
        front_mm = np.sqrt(area_mm2 / np.pi) + _HALF_WIDTH_MM
        return bool(
            ring.hu <= self._air_hu + _BRIGHTER_THAN_TRACHEA_HU
            and ring.hu <= before.ring.hu + _BRIGHTER_THAN_PARENT_HU + self._noise_hu
            and ring.radius_mm <= _WIDER * before.most_radius_mm + _WIDER_MM
            and front_mm <= _WIDER_FRONT * before.most_radius_mm + _WIDER_FRONT_MM
            and self._closed_so_far(section) >= _CLOSED
        )

    def _closed_so_far(self, section: _Section) -> float:
        """Mean share of closed rays from a section backwards."""
        shares, before = [section.ring.closed], self.sections[section.parent]
        while before.parent >= 0 and len(shares) * self.wavefront.step_mm < _CLOSED_OVER_MM:
            shares.append(before.ring.closed)
            before = self.sections[before.parent]
        return float(np.mean(shares))


def _kept(sections: list[_Section]) -> list[int]:
    """Numbers of the sections that are left when ends without a wall and branches that are too short are taken away."""
    alive = np.ones(len(sections), bool)
    children = np.zeros(len(sections), int)
    for section in sections[1:]:
        children[section.parent] += 1
    changed = True
    while changed:
        changed = False
        for end in np.flatnonzero(alive & (children == 0)):
            gone = _open_end(sections, children, int(end)) or _bad_branch(sections, children, int(end))
            for number in gone:
                alive[number] = False
                children[sections[number].parent] -= 1
            changed |= bool(gone)
    return [int(number) for number in np.flatnonzero(alive) if sections[number].parent >= 0]


def _open_end(sections: list[_Section], children: NDArray[np.int_], end: int) -> list[int]:
    """The last section of a branch if its ring is not closed."""
    return [end] if sections[end].parent >= 0 and sections[end].ring.closed < _CLOSED_BRANCH else []


def _bad_branch(sections: list[_Section], children: NDArray[np.int_], end: int) -> list[int]:
    """The sections from an end back to the fork before it if they are too short for a branch, or have no wall."""
    branch: list[int] = []
    before = end
    while sections[before].parent >= 0 and (not branch or children[before] == 1):
        branch.append(before)
        before = sections[before].parent
    if not branch:
        return []
    length_mm = float(np.linalg.norm(sections[end].ring.center_mm - sections[before].ring.center_mm))
    shortest_mm = max(_SHORTEST_MM, sections[before].ring.radius_mm + _BEYOND_PARENT_MM)
    closed = float(np.mean([sections[number].ring.closed for number in branch]))
    short = length_mm < shortest_mm or len(branch) < _FEWEST_SECTIONS
    return branch if short or closed < _CLOSED_BRANCH else []
