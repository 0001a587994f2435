"""A new branch on a tree: its smooth line along a path of voxels, the lumen around it, and its score."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from AirwaySegLib.edit.evidence import Evidence, air_of, evidence_in
from AirwaySegLib.edit.lumen import Brightness, Rings, centered, evidence_along, lumen_around, rings_along
from AirwaySegLib.edit.scan import Crop, Scan, Voxels
from AirwaySegLib.errors import AirwaySegError

Floats = NDArray[np.float64]

_PARENT_MM = 6.0
"""The parent is as wide as the tree's widest ball with its centre so near to where the branch joins."""

_LEAST_WIDE, _WIDEST_MM = 1.0, 10.0
"""Radius allowed in any case, in voxels; and the greatest in mm."""

_SEEN, _UNSEEN_MM = 0.3, 1.0
"""Where it is less sure that there is a lumen, it is drawn ever narrower, down to this radius."""

_WORST_MM = 3.0
"""The score counts the worst stretch of this length as much as the whole line."""


@dataclass(frozen=True, eq=False)
class Growth:
    """A branch that would be added to a tree.

    Parameters
    ----------
    voxels
        (N, 3) int32, N >= 1, on the scan's grid: what the airways lack of it.
    line_mm, radii_mm
        (P, 3) and (P,): its centerline from the tree outwards, and the lumen's radius.
    joins_at
        The tree's voxel (3,) where it joins.
    length_mm
        Of the centerline outside the tree.
    score
        How sure it is that it is an airway, 0..1.
    reason
        The score's reason as one sentence.
    unsure_mm
        Length of the line where no airway is seen: 1 less how sure each position is, summed along it.
    contrast_hu, closed
        Median of wall less lumen along the line, and the mean share of the rays that meet the wall; 0 without a CT.
    beyond_mm
        How much of the length nobody pointed at (`extend.certain_beyond`); score, reason and ``unsure_mm`` are of the
        rest.
    """

    voxels: Voxels
    line_mm: Floats
    radii_mm: Floats
    joins_at: tuple[int, int, int]
    length_mm: float
    score: float
    reason: str
    unsure_mm: float
    contrast_hu: float = 0.0
    closed: float = 0.0
    beyond_mm: float = 0.0

    def flat(self, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """The voxels' indices (N,) in the flattened grid, ascending."""
        return np.sort(np.ravel_multi_index(tuple(self.voxels.T), shape))


@dataclass(frozen=True, eq=False)
class Surroundings:
    """A box of a scan with the tree in it, bool (Z, Y, X), and the evidence."""

    scan: Scan
    box: Crop
    tree: NDArray[np.bool_]
    evidence: Evidence

    @classmethod
    def of(cls, scan: Scan, box: Crop) -> "Surroundings | None":
        """None where the box holds no tree."""
        tree = scan.airways_in(box)
        return cls(scan, box, tree, evidence_in(scan, box, air_of(scan, box))) if tree.any() else None

    @cached_property
    def surface(self) -> NDArray[np.intp]:
        """The tree's voxels (N, 3) that have a neighbour outside."""
        return surface_of(self.tree)


def branch_along(
    around: Surroundings, path: list[NDArray[np.intp]], widest_mm: float, airways: NDArray[np.bool_]
) -> Growth:
    """The branch along stretches of a path, each (P, 3) in the box; ``airways`` (Z, Y, X) is what needs no adding.

    Raises
    ------
    AirwaySegError
        If the airways hold all of it already.
    """
    stretches = [Stretch.seen(around, way, widest_mm).centered(around, widest_mm) for way in path]
    return growth_of(around, stretches, airways)


def growth_of(
    around: Surroundings, stretches: list["Stretch"], airways: NDArray[np.bool_], beyond: tuple["Stretch", ...] = ()
) -> Growth:
    """The branch of measured stretches, and what hangs on it; ``airways`` (Z, Y, X) is what needs no adding.

    Raises
    ------
    AirwaySegError
        If the airways hold all of it already.
    """
    every = [*stretches, *beyond]
    lumen = np.logical_or.reduce([stretch.lumen(around) for stretch in every])
    voxels = np.argwhere(lumen & ~airways)
    if not len(voxels):
        raise AirwaySegError("The airways already hold what would be grown from the point.")
    rings = [each.rings for each in stretches if each.rings is not None]
    corner = np.array(around.box.low)
    joins = stretches[0].path[0] + corner
    return Growth(
        voxels=(voxels + corner).astype(np.int32),
        line_mm=np.concatenate([each.line_mm for each in every]) + corner * np.asarray(around.scan.spacing_mm),
        radii_mm=np.concatenate([each.radii_mm for each in every]),
        joins_at=(int(joins[0]), int(joins[1]), int(joins[2])),
        length_mm=float(sum(each.length_mm for each in every)),
        score=score_of(stretches),
        reason=_reason(stretches),
        unsure_mm=sum(each.unsure_mm for each in stretches),
        contrast_hu=float(np.median(np.concatenate([ring.wall_hu - ring.lumen_hu for ring in rings])))
        if rings
        else 0.0,
        closed=float(np.mean(np.concatenate([ring.closed for ring in rings]))) if rings else 0.0,
        beyond_mm=float(sum(each.length_mm for each in beyond)),
    )


def surface_of(tree: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The tree's voxels (N, 3) that have a neighbour outside."""
    return np.argwhere(tree & ~ndimage.binary_erosion(tree, border_value=1))


def by_faces(way: NDArray, cost: NDArray[np.float32]) -> NDArray[np.intp]:
    """The way with voxels between those that touch by edges or corners only, the cheapest ones."""
    voxels: list[tuple[int, ...]] = [tuple(way[0].tolist())]
    for place in way[1:].tolist():
        while sum(map(abs, map(int.__sub__, place, voxels[-1]))) > 1:
            here = voxels[-1]
            axes = [axis for axis in range(3) if place[axis] != here[axis]]
            ahead = [
                (*here[:axis], here[axis] + (1 if place[axis] > here[axis] else -1), *here[axis + 1 :]) for axis in axes
            ]
            voxels.append(min(ahead, key=lambda voxel: cost[voxel]))
        voxels.append(tuple(place))
    return np.array(voxels)


def widest_at(place: NDArray, tree: NDArray[np.bool_], scan: Scan) -> float:
    """The greatest radius in mm that a branch may have that joins the tree at a voxel."""
    spacing_mm = scan.spacing_mm
    reach = np.ceil((_PARENT_MM + _WIDEST_MM) / np.asarray(spacing_mm)).astype(int)
    low = np.maximum(place - reach, 0)
    part = tree[tuple(map(slice, low, place + reach + 1))]
    inside_mm = ndimage.distance_transform_edt(part, spacing_mm)
    middles = np.argwhere(part)
    near = middles[np.linalg.norm((middles + low - place) * spacing_mm, axis=1) <= _PARENT_MM]
    widest_mm = float(inside_mm[tuple(near.T)].max(initial=0))
    return float(np.clip(widest_mm, _LEAST_WIDE * min(spacing_mm), _WIDEST_MM))


# Lumen and score -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Stretch:
    """A piece of the path (P, 3) in the box, its smooth line, the lumen's rings and how sure each position is."""

    path: NDArray[np.intp]
    line_mm: Floats
    radii_mm: Floats
    rings: Rings | None
    probability: Floats | None
    sure: Floats

    @classmethod
    def seen(cls, around: Surroundings, path: NDArray[np.intp], widest_mm: float) -> "Stretch":
        """What is seen along a path, whose line need not be in the middle of the lumen."""
        steps_mm = path * np.asarray(around.scan.spacing_mm)
        line_mm = ndimage.gaussian_filter1d(steps_mm, 2.0, axis=0, mode="nearest")
        return cls._along(around, path, line_mm, widest_mm)

    def centered(self, around: Surroundings, widest_mm: float) -> "Stretch":
        """The same along the middle of the lumen."""
        line_mm = centered(self.lumen(around), self.path, self.line_mm, around.scan.spacing_mm)
        return self._along(around, self.path, line_mm, widest_mm)

    @classmethod
    def _along(cls, around: Surroundings, path: NDArray[np.intp], line_mm: Floats, widest_mm: float) -> "Stretch":
        """Measure along a path and its line."""
        scan, box = around.scan, around.box
        rings = probability = None
        radii_mm = np.full(len(path), widest_mm)
        if scan.hu is not None:
            rings = rings_along(scan.hu[box.slices], scan.spacing_mm, line_mm, widest_mm)
            radii_mm = np.maximum(rings.radius_mm, _LEAST_WIDE * min(scan.spacing_mm))
        if scan.probability is not None:
            values = scan.probability.within(box)[tuple(path.T)].astype(float) / 255
            probability = ndimage.uniform_filter1d(values, 3, mode="nearest")
        sure = evidence_along(rings, probability, len(path))
        unseen = np.clip(1 - sure / _SEEN, 0, 1)
        narrowest_mm = min(max(_LEAST_WIDE * min(scan.spacing_mm), _UNSEEN_MM), widest_mm)
        radii_mm = (1 - unseen) * radii_mm + unseen * np.minimum(radii_mm, narrowest_mm)
        return cls(path, line_mm, radii_mm, rings, probability, sure)

    @property
    def length_mm(self) -> float:
        """Of the line."""
        return float(np.linalg.norm(np.diff(self.line_mm, axis=0), axis=1).sum())

    @property
    def unsure_mm(self) -> float:
        """Length of the line where no airway is seen, as in `Growth`."""
        return float((1 - self.sure).mean()) * self.length_mm

    def lumen(self, around: Surroundings) -> NDArray[np.bool_]:
        """The voxels of its lumen in the box, (Z, Y, X)."""
        scan, box, evidence = around.scan, around.box, around.evidence
        if self.rings is not None and evidence.smooth_hu is not None:
            brightness = Brightness.of_ct(evidence.smooth_hu, self.rings)
            brightness = replace(brightness, core=np.where(self.sure < _SEEN, np.inf, brightness.core))
        elif self.probability is not None and scan.probability is not None:
            brightness = Brightness.of_probability(scan.probability.within(box) / 255, self.probability)
        return lumen_around(brightness, self.path, self.line_mm, self.radii_mm, scan.spacing_mm)


def score_of(stretches: list[Stretch]) -> float:
    """The score 0..1: the mean along the line, and its worst stretch."""
    sure = np.concatenate([stretch.sure for stretch in stretches])
    return round((float(sure.mean()) + _worst(stretches)) / 2, 3)


def _worst(stretches: list[Stretch]) -> float:
    """How sure the worst `_WORST_MM` are, 0..1."""
    sure = np.concatenate([stretch.sure for stretch in stretches])
    step_mm = sum(stretch.length_mm for stretch in stretches) / max(len(sure) - 1, 1)
    count = int(np.clip(round(_WORST_MM / max(step_mm, 0.1)), 1, len(sure)))
    return float(np.convolve(sure, np.ones(count) / count, mode="valid").min())


def _reason(stretches: list[Stretch]) -> str:
    """The reason for the score as a sentence."""
    worst = f"; the worst {_WORST_MM:.0f} mm show neither a closed wall nor a probability"
    return f"{', '.join(_facts(stretches))}{worst if _worst(stretches) <= 0.4 else ''}."


def _facts(stretches: list[Stretch]) -> Iterator[str]:
    """What CT and network say along the line, in words."""
    rings = [stretch.rings for stretch in stretches if stretch.rings is not None]
    if rings:
        lumen, wall = (np.median(np.concatenate([getattr(ring, name) for ring in rings])) for name in _LEVELS)
        closed = float(np.mean(np.concatenate([ring.closed for ring in rings])))
        yield f"Lumen of {lumen:.0f} HU in a wall of {wall:.0f} HU that is closed for {100 * closed:.0f} %"
    found = [stretch.probability for stretch in stretches if stretch.probability is not None]
    if found:
        yield f"{'mean' if rings else 'Mean'} probability {float(np.mean(np.concatenate(found))):.2f}"


_LEVELS = ("lumen_hu", "wall_hu")
