"""A missed airway grown from clicks: the path of least cost to the tree, and the lumen around it up to the wall.

It works on a box around the clicks, so that it takes a fraction of a second on any CT, or about one second where no way
is good near the clicks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from AirwaySegLib.edit.evidence import Evidence, air_of, evidence_in
from AirwaySegLib.edit.lumen import Brightness, Rings, centered, evidence_along, lumen_around, rings_along
from AirwaySegLib.edit.refusals import EMPTY, is_empty, refuse, why_not_lumen
from AirwaySegLib.edit.scan import Crop, Scan, Voxels
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.masks.least_cost import cheapest_way

Floats = NDArray[np.float64]

SNAP_MM = 3.0
"""A point so near to a lumen stands for a point in it."""

MARGINS_MM = (22.0, 40.0)
"""Around the points the tree is looked for within the first; where no way is good there, within the second."""

STRICTNESS = ((1.0, 4.0, 16.0), (4.0, 16.0))
"""How much the absence of lumen costs, for each margin: the next is tried where the way before it has no good score. Of
the ways the one is taken on which no airway is seen for the shortest stretch (`Growth.unsure_mm`): by its score a long
way through lumen with one gap loses against a short one through lung."""

_LUMEN = 0.4
"""Least likeness to lumen of a point that is taken."""

_AWAY = 0.25
"""What a mm from the point counts against likeness when it is moved into the lumen."""

_LEAST_SCORE, _GOOD = 0.3, 0.85
"""Below the first no airway is seen: of 50 random points in lung and vessels of two CTs, without a probability, 18
score more. From the second on no other way is searched."""

_PARENT_MM = 6.0
"""The parent is as wide as the tree's widest ball with its centre so near to where the branch joins."""

_JOIN_MM = 10.0
"""A point in the airways says where the branch joins, to within so many mm along each axis: the radius of a trachea."""

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


def grow(scan: Scan, points: NDArray) -> Growth:
    """Grow the branch on which some points lie.

    The first point is joined to the tree by the path of least cost, each further one to the path so far, so that
    several points steer it, prolong it or fork it. If one of them lies in the airways, the branch starts there.

    Parameters
    ----------
    points
        (K, 3) voxels (z, y, x), also fractions of voxels.

    Raises
    ------
    AirwaySegError
        If a point lies outside the scan or shows no lumen within `SNAP_MM`, if all lie in the airways, or no way leads
        to the tree. The sentence says which point and what is there.
    """
    voxels = _checked(scan, points)
    found: Growth | None = None
    for margin_mm, strictness in zip(MARGINS_MM, STRICTNESS, strict=True):
        surroundings = _Surroundings.of(scan, Crop.around(voxels, margin_mm, scan.spacing_mm, scan.shape))
        if surroundings is not None:
            found = _best(surroundings, voxels, strictness, found)
        if found is not None and found.score >= _GOOD:
            break
    if found is None:
        where = "the point" if len(voxels) == 1 else "the points"
        raise AirwaySegError(f"There are no airways within {MARGINS_MM[-1]:.0f} mm of {where} to join a branch to.")
    if found.score < _LEAST_SCORE:
        reason = found.reason[0].lower() + found.reason[1:]
        raise AirwaySegError(f"No airway is seen from the point to the tree: {reason}")
    return found


def _best(
    around: "_Surroundings", voxels: NDArray[np.intp], strictness: tuple[float, ...], found: Growth | None
) -> Growth:
    """The branch in a box on which least is unsure, or the one found before."""
    seeds = _seeds(around, voxels - around.box.low)
    best = found or _grown(around, seeds, strictness[0])
    for strict in strictness if found is not None else strictness[1:]:
        if best.score >= _GOOD:
            break
        other = _grown(around, seeds, strict)
        best = other if other.unsure_mm < best.unsure_mm else best
    return best


def _checked(scan: Scan, points: NDArray) -> NDArray[np.intp]:
    """The points as voxels (K, 3)."""
    points = np.asarray(points, float).reshape(-1, 3)
    if scan.hu is None and scan.probability is None:
        raise AirwaySegError("An airway is grown on its CT or on a probability; neither is given.")
    if not len(points) or not np.isfinite(points).all():
        raise AirwaySegError("There is no point to grow an airway from.")
    voxels = np.rint(points).astype(np.intp)
    outside = ((voxels < 0) | (voxels >= scan.shape)).any(axis=1)
    if outside.any():
        raise refuse(int(outside.argmax()), len(points), "lies outside the scan")
    for row in np.flatnonzero([is_empty(scan, voxel) for voxel in voxels]):
        raise refuse(int(row), len(points), EMPTY)
    return voxels


@dataclass(frozen=True, eq=False)
class _Surroundings:
    """A box of a scan with the tree in it, bool (Z, Y, X), and the evidence."""

    scan: Scan
    box: Crop
    tree: NDArray[np.bool_]
    evidence: Evidence

    @classmethod
    def of(cls, scan: Scan, box: Crop) -> "_Surroundings | None":
        """None where the box holds no tree."""
        tree = scan.airways_in(box)
        return cls(scan, box, tree, evidence_in(scan, box, air_of(scan, box))) if tree.any() else None


def _grown(around: _Surroundings, seeds: NDArray[np.intp], strictness: float) -> Growth:
    """The branch that some seeds (K, 3) of a box lead to."""
    scan, box, tree = around.scan, around.box, around.tree
    path = _path(seeds, around.evidence.cost(strictness), tree, scan)
    widest_mm = _widest_at(path[0][0], tree, scan)
    lumen = np.zeros(tree.shape, bool)
    drawn = []
    for way in path:
        line_mm = ndimage.gaussian_filter1d(way * np.asarray(scan.spacing_mm), 2.0, axis=0, mode="nearest")
        first = _Stretch.along(scan, box, way, line_mm, widest_mm)
        middle_mm = centered(first.lumen(scan, box, around.evidence), way, line_mm, scan.spacing_mm)
        drawn.append(_Stretch.along(scan, box, way, middle_mm, widest_mm))
        lumen |= drawn[-1].lumen(scan, box, around.evidence)
    voxels = np.argwhere(lumen & ~tree)
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


# Points and path -----------------------------------------------------------------------------------------------------


def _seeds(around: _Surroundings, points: NDArray[np.intp]) -> NDArray[np.intp]:
    """The points of a box moved into the nearest lumen, (K, 3); one that lies in the airways comes first."""
    scan, evidence, tree = around.scan, around.evidence, around.tree
    inside = tree[tuple(points.T)]
    if inside.all():
        raise AirwaySegError(
            "The point lies in the airways already." if len(points) == 1 else "All points lie in the airways already."
        )
    if inside.sum() > 1:
        raise AirwaySegError("Two of the points lie in the airways; a branch joins them at one point only.")
    seeds = [points[row] for row in np.flatnonzero(inside)]
    for row in np.flatnonzero(~inside):
        seed = _snapped(points[row], evidence, tree, scan)
        if seed is None:
            raise refuse(int(row), len(points), why_not_lumen(evidence.smooth_hu, points[row], tree, scan.spacing_mm))
        seeds.append(seed)
    return np.array(seeds)


def _snapped(
    point: NDArray[np.intp], evidence: Evidence, tree: NDArray[np.bool_], scan: Scan
) -> NDArray[np.intp] | None:
    """The voxel within `SNAP_MM` that looks most like lumen, near ones first; None where none does."""
    reach = np.ceil(SNAP_MM / np.asarray(scan.spacing_mm)).astype(int)
    low, high = np.maximum(point - reach, 0), np.minimum(point + reach + 1, tree.shape)
    part = tuple(map(slice, low, high))
    places = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1)
    away_mm = np.linalg.norm((places - point) * scan.spacing_mm, axis=-1)
    likeness = evidence.likeness[part]
    worth = np.where(tree[part] | (away_mm > SNAP_MM) | (likeness < _LUMEN), -np.inf, likeness - _AWAY * away_mm)
    best = np.unravel_index(int(worth.argmax()), worth.shape)
    return None if np.isneginf(worth[best]) else places[best]


def _path(
    seeds: NDArray[np.intp], cost: NDArray[np.float32], tree: NDArray[np.bool_], scan: Scan
) -> list[NDArray[np.intp]]:
    """The stretches of the path, each (P, 3) from the tree or from an earlier stretch outwards; the first may be alone.

    The first voxel of the first stretch lies in the tree.
    """
    starts_in_tree = bool(tree[tuple(seeds[0])])
    targets = seeds[:1] if starts_in_tree else _surface(tree)
    through = cost if not starts_in_tree else _leaving_near(seeds[0], cost, tree, scan)
    stretches: list[NDArray[np.intp]] = []
    for seed in seeds[1:] if starts_in_tree else seeds:
        if stretches and (np.concatenate(stretches) == seed).all(axis=1).any():
            continue
        way = cheapest_way(through, seed[None], targets, scan.spacing_mm)
        if way is None:
            raise AirwaySegError("No way leads from the point to the airways.")
        way = _outside(way[::-1], tree) if not stretches else way[::-1]
        stretches.append(_by_faces(way, cost))
        through, targets = np.where(tree, np.inf, cost), np.concatenate([piece[1:] for piece in stretches])
    return stretches


def _leaving_near(
    seed: NDArray[np.intp], cost: NDArray[np.float32], tree: NDArray[np.bool_], scan: Scan
) -> NDArray[np.float32]:
    """The cost of a way that starts at a voxel of the tree: within `_JOIN_MM` of it the tree costs next to nothing.

    Farther off the tree is closed, so that the branch joins near the point.
    """
    through = np.where(tree, np.float32(np.inf), cost)
    reach = np.ceil(_JOIN_MM / np.asarray(scan.spacing_mm)).astype(int)
    near = tuple(map(slice, np.maximum(seed - reach, 0), seed + reach + 1))
    through[near] = np.where(tree[near], cost.min() / 10, through[near])
    return through


def _outside(way: NDArray, tree: NDArray[np.bool_]) -> NDArray:
    """A way that starts in the tree from the last voxel in it on."""
    inside = np.flatnonzero(tree[tuple(way.T)])
    return way[inside[-1] :]


def _surface(tree: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The tree's voxels (N, 3) that have a neighbour outside."""
    return np.argwhere(tree & ~ndimage.binary_erosion(tree, border_value=1))


def _by_faces(way: NDArray, cost: NDArray[np.float32]) -> NDArray[np.intp]:
    """The way with voxels between those that touch by edges or corners only, the cheapest ones."""
    voxels = [way[0]]
    for place in way[1:]:
        while np.abs(place - voxels[-1]).sum() > 1:
            steps = [np.eye(3, dtype=int)[axis] * np.sign(place - voxels[-1])[axis] for axis in range(3)]
            ahead = [voxels[-1] + step for step in steps if step.any()]
            voxels.append(min(ahead, key=lambda voxel: cost[tuple(voxel)]))
        voxels.append(place)
    return np.array(voxels)


def _widest_at(place: NDArray, tree: NDArray[np.bool_], scan: Scan) -> float:
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
