"""A new branch on a tree: its smooth line along a path of voxels, the lumen around it, and its score."""

from collections.abc import Iterator
from dataclasses import dataclass

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
    """

    voxels: Voxels
    line_mm: Floats
    radii_mm: Floats
    joins_at: tuple[int, int, int]
    length_mm: float
    score: float
    reason: str
    unsure_mm: float

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


def branch_along(
    around: Surroundings, path: list[NDArray[np.intp]], widest_mm: float, airways: NDArray[np.bool_]
) -> Growth:
    """The branch along stretches of a path, each (P, 3) in the box; ``airways`` (Z, Y, X) is what needs no adding.

    Raises
    ------
    AirwaySegError
        If the airways hold all of it already.
    """
    scan, box = around.scan, around.box
    lumen = np.zeros(airways.shape, bool)
    drawn = []
    for way in path:
        line_mm = ndimage.gaussian_filter1d(way * np.asarray(scan.spacing_mm), 2.0, axis=0, mode="nearest")
        first = _Stretch.along(scan, box, way, line_mm, widest_mm)
        middle_mm = centered(first.lumen(scan, box, around.evidence), way, line_mm, scan.spacing_mm)
        drawn.append(_Stretch.along(scan, box, way, middle_mm, widest_mm))
        lumen |= drawn[-1].lumen(scan, box, around.evidence)
    voxels = np.argwhere(lumen & ~airways)
    if not len(voxels):
        raise AirwaySegError("The airways already hold what would be grown from the point.")
    score, reason = _score(drawn)
    unsure_mm = sum(float((1 - stretch.sure).mean()) * stretch.length_mm for stretch in drawn)
    corner = np.array(box.low)
    joins = path[0][0] + corner
    return Growth(
        voxels=(voxels + corner).astype(np.int32),
        line_mm=np.concatenate([stretch.line_mm for stretch in drawn]) + corner * np.asarray(scan.spacing_mm),
        radii_mm=np.concatenate([stretch.radii_mm for stretch in drawn]),
        joins_at=(int(joins[0]), int(joins[1]), int(joins[2])),
        length_mm=float(sum(stretch.length_mm for stretch in drawn)),
        score=score,
        reason=reason,
        unsure_mm=unsure_mm,
    )


def surface_of(tree: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The tree's voxels (N, 3) that have a neighbour outside."""
    return np.argwhere(tree & ~ndimage.binary_erosion(tree, border_value=1))


def by_faces(way: NDArray, cost: NDArray[np.float32]) -> NDArray[np.intp]:
    """The way with voxels between those that touch by edges or corners only, the cheapest ones."""
    voxels = [way[0]]
    for place in way[1:]:
        while np.abs(place - voxels[-1]).sum() > 1:
            steps = [np.eye(3, dtype=int)[axis] * np.sign(place - voxels[-1])[axis] for axis in range(3)]
            ahead = [voxels[-1] + step for step in steps if step.any()]
            voxels.append(min(ahead, key=lambda voxel: cost[tuple(voxel)]))
        voxels.append(place)
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
class _Stretch:
    """A piece of the path (P, 3) in the box, its smooth line, the lumen's rings and how sure each position is."""

    path: NDArray[np.intp]
    line_mm: Floats
    radii_mm: Floats
    rings: Rings | None
    probability: Floats | None
    sure: Floats

    @classmethod
    def along(cls, scan: Scan, box: Crop, path: NDArray[np.intp], line_mm: Floats, widest_mm: float) -> "_Stretch":
        """Measure along a path and its line."""
        rings = probability = None
        radii_mm = np.full(len(path), widest_mm)
        if scan.hu is not None:
            rings = rings_along(scan.hu[box.slices], scan.spacing_mm, line_mm, widest_mm)
            radii_mm = np.maximum(rings.radius_mm, _LEAST_WIDE * min(scan.spacing_mm))
        if scan.probability is not None:
            values = scan.probability.within(box)[tuple(path.T)].astype(float) / 255
            probability = ndimage.uniform_filter1d(values, 3, mode="nearest")
        sure = evidence_along(rings, probability, len(path))
        return cls(path, line_mm, radii_mm, rings, probability, sure)

    @property
    def length_mm(self) -> float:
        """Of the line."""
        return float(np.linalg.norm(np.diff(self.line_mm, axis=0), axis=1).sum())

    def lumen(self, scan: Scan, box: Crop, evidence: Evidence) -> NDArray[np.bool_]:
        """The voxels of its lumen in the box, (Z, Y, X)."""
        if self.rings is not None and evidence.smooth_hu is not None:
            brightness = Brightness.of_ct(evidence.smooth_hu, self.rings)
        elif self.probability is not None and scan.probability is not None:
            brightness = Brightness.of_probability(scan.probability.within(box) / 255, self.probability)
        return lumen_around(brightness, self.path, self.line_mm, self.radii_mm, scan.spacing_mm)


def _score(stretches: list[_Stretch]) -> tuple[float, str]:
    """The score 0..1 and its reason: the mean along the line, and its worst stretch."""
    sure = np.concatenate([stretch.sure for stretch in stretches])
    lines = [stretch.line_mm for stretch in stretches]
    step_mm = sum(stretch.length_mm for stretch in stretches) / max(len(sure) - 1, 1)
    count = int(np.clip(round(_WORST_MM / max(step_mm, 0.1)), 1, len(sure)))
    means = np.convolve(sure, np.ones(count) / count, mode="valid")
    score = float((sure.mean() + means.min()) / 2)
    facts = list(_facts(stretches, lines))
    worst = "" if means.min() > 0.4 else f"; the worst {_WORST_MM:.0f} mm show neither a closed wall nor a probability"
    return round(score, 3), f"{', '.join(facts)}{worst}."


def _facts(stretches: list[_Stretch], lines: list[Floats]) -> Iterator[str]:
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
