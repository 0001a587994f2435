"""A missed airway grown from clicks: the path of least cost to the tree, and the lumen around it up to the wall.

It works on a box around the clicks, so that it takes a tenth of a second on any CT, or up to about one second where no
way is good near the clicks.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.edit.branch import Growth, Stretch, Surroundings, by_faces, growth_of, score_of, widest_at
from AirwaySegLib.edit.evidence import Evidence
from AirwaySegLib.edit.extend import certain_beyond
from AirwaySegLib.edit.refusals import EMPTY, is_empty, refuse, why_not_lumen
from AirwaySegLib.edit.scan import Crop, Scan
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.masks.least_cost import cheapest_way

SNAP_MM = 3.0
"""A point so near to a lumen stands for a point in it."""

STEER_MM = 1.0
"""The same for several points: whoever clicks them sees where the airway runs, and they may lie where the CT shows
none."""

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

LEAST_SCORE, GOOD = 0.3, 0.85
"""Below the first no airway is seen. From the second on no other way is searched."""

LEAST_BY_CT, MOST_UNSEEN_MM, UNSEEN_SHARE = 0.5, 8.0, 0.25
CONTRAST_HU, CLOSED = 140.0, 0.9
"""Without a probability a single point shows an airway where the score is this and none is unseen for longer, where
this share of the length is unseen, or with this contrast of a wall that is closed for this share. With a least score of
0.3 alone 29 of 60 random points in the lungs of two CTs pass, so 14, and of 48 removed branches one that is found is
refused. Several points are never refused: they say that an airway is there."""

_CLEAR_MM = 1.5
"""Nor is another way searched where on a shorter stretch no airway is seen."""

_ALL_THE_SAME = ". Two or more points along it add it all the same."

_BEND_MM, _BEND = 1.0, 0.1
"""How far a way between two points may leave the straight one: so many mm, and this share of its length."""

_JOIN_MM = 10.0
"""A point in the airways says where the branch joins, to within so many mm along each axis: the radius of a trachea."""


def grow(scan: Scan, points: NDArray) -> Growth:
    """Grow the branch on which some points lie.

    The first point is joined to the tree by the path of least cost, each further one to the path so far, so that
    several points steer it, prolong it or fork it. If one of them lies in the airways, the branch starts there.

    With a single point, what the network found beyond the branch is grown too (`extend.certain_beyond`). Several points
    are taken as they are: where CT and probability show no airway, a narrow one is drawn from one to the next.

    Parameters
    ----------
    points
        (K, 3) voxels (z, y, x), also fractions of voxels.

    Raises
    ------
    AirwaySegError
        If a point lies outside the scan, if all lie in the airways, no way leads to the tree, or a single point shows
        no lumen within `SNAP_MM` or no airway on the way. The sentence says which point and what is there.
    """
    voxels = _checked(scan, points)
    found: _Found | None = None
    for margin_mm, strictness in zip(MARGINS_MM, STRICTNESS, strict=True):
        surroundings = Surroundings.of(scan, Crop.around(voxels, margin_mm, scan.spacing_mm, scan.shape))
        if surroundings is not None:
            try:
                found = _best(surroundings, voxels, strictness, found)
            except AirwaySegError:  # in the larger box, whose noise and air are others
                if found is None:
                    raise
        if found is not None and found.is_good:
            break
    if found is None:
        where = "the point" if len(voxels) == 1 else "the points"
        raise AirwaySegError(f"There are no airways within {MARGINS_MM[-1]:.0f} mm of {where} to join a branch to.")
    growth = found.growth(with_beyond=len(voxels) == 1)
    if len(voxels) == 1 and not _is_seen(growth, scan):
        reason = growth.reason[0].lower() + growth.reason[1:-1]
        raise AirwaySegError(f"No airway is seen from the point to the tree: {reason}{_ALL_THE_SAME}")
    return growth


def _is_seen(growth: Growth, scan: Scan) -> bool:
    """Whether enough speaks for an airway where a single point says so."""
    if scan.probability is not None:
        return growth.score >= LEAST_SCORE
    clear = growth.score >= LEAST_BY_CT and growth.unsure_mm <= MOST_UNSEEN_MM
    walled = growth.score >= LEAST_SCORE and growth.contrast_hu >= CONTRAST_HU and growth.closed >= CLOSED
    return clear or walled or growth.unsure_mm <= UNSEEN_SHARE * growth.length_mm


@dataclass(frozen=True, eq=False)
class _Found:
    """A way and what is seen along its stretches."""

    around: Surroundings
    stretches: list[Stretch]
    widest_mm: float

    @cached_property
    def score(self) -> float:
        """Of what is seen along it."""
        return score_of(self.stretches)

    @property
    def unsure_mm(self) -> float:
        """The length on which nothing is seen."""
        return sum(stretch.unsure_mm for stretch in self.stretches)

    @property
    def is_good(self) -> bool:
        """Whether no other way is searched."""
        return self.score >= GOOD or self.unsure_mm <= _CLEAR_MM

    def growth(self, with_beyond: bool) -> Growth:
        """The branch, and on demand what certainly hangs on it."""
        around, widest_mm = self.around, self.widest_mm
        stretches = [stretch.centered(around, widest_mm) for stretch in self.stretches]
        beyond = tuple(certain_beyond(around, stretches, widest_mm)) if with_beyond else ()
        return growth_of(around, stretches, around.tree, beyond)


def _best(
    around: Surroundings, voxels: NDArray[np.intp], strictness: tuple[float, ...], found: _Found | None
) -> _Found:
    """The way in a box on which least is unsure, or the one found before."""
    seeds = _seeds(around, voxels - around.box.low)
    best = found or _way(around, seeds, strictness[0])
    for strict in strictness if found is not None else strictness[1:]:
        if best.is_good:
            break
        other = _way(around, seeds, strict)
        best = other if other.unsure_mm < best.unsure_mm else best
    return best


def _checked(scan: Scan, points: NDArray) -> NDArray[np.intp]:
    """The points as voxels (K, 3)."""
    points = np.asarray(points, float).reshape(-1, 3)
    if scan.hu is None and scan.probability is None:
        raise AirwaySegError("An airway is grown on its CT or on a probability; neither is given.")
    if not len(points) or not np.isfinite(points).all():
        raise AirwaySegError("There is no point to grow an airway from.")
    nearest = np.rint(points)
    outside = ((nearest < 0) | (nearest >= scan.shape)).any(axis=1)
    if outside.any():
        raise refuse(int(outside.argmax()), len(points), "lies outside the scan")
    voxels = nearest.astype(np.intp)
    for row in np.flatnonzero([is_empty(scan, voxel) for voxel in voxels]):
        raise refuse(int(row), len(points), EMPTY)
    return voxels


def _way(around: Surroundings, seeds: NDArray[np.intp], strictness: float) -> _Found:
    """The way that some seeds (K, 3) of a box lead to."""
    path = _path(seeds, around, around.evidence.cost(strictness))
    widest_mm = widest_at(path[0][0], around.tree, around.scan)
    return _Found(around, [Stretch.seen(around, way, widest_mm) for way in path], widest_mm)


# Points and path -----------------------------------------------------------------------------------------------------


def _seeds(around: Surroundings, points: NDArray[np.intp]) -> NDArray[np.intp]:
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
        seed = _snapped(points[row], evidence, tree, scan, SNAP_MM if len(points) == 1 else STEER_MM)
        if seed is None and len(points) == 1:
            raise refuse(int(row), len(points), why_not_lumen(evidence.smooth_hu, points[row], tree, scan.spacing_mm))
        seeds.append(points[row] if seed is None else seed)
    return np.array(seeds)


def _snapped(
    point: NDArray[np.intp], evidence: Evidence, tree: NDArray[np.bool_], scan: Scan, within_mm: float
) -> NDArray[np.intp] | None:
    """The voxel within some mm of a point that looks most like lumen, near ones first; None where none does."""
    reach = np.ceil(within_mm / np.asarray(scan.spacing_mm)).astype(int)
    low, high = np.maximum(point - reach, 0), np.minimum(point + reach + 1, tree.shape)
    part = tuple(map(slice, low, high))
    places = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1)
    away_mm = np.linalg.norm((places - point) * scan.spacing_mm, axis=-1)
    likeness = evidence.likeness[part]
    worth = np.where(tree[part] | (away_mm > within_mm) | (likeness < _LUMEN), -np.inf, likeness - _AWAY * away_mm)
    best = np.unravel_index(int(worth.argmax()), worth.shape)
    return None if np.isneginf(worth[best]) else places[best]


def _path(seeds: NDArray[np.intp], around: Surroundings, cost: NDArray[np.float32]) -> list[NDArray[np.intp]]:
    """The stretches of the path, each (P, 3) from the tree or from an earlier stretch outwards; the first may be alone.

    The first voxel of the first stretch lies in the tree.
    """
    scan, tree = around.scan, around.tree
    starts_in_tree = bool(tree[tuple(seeds[0])])
    targets = seeds[:1] if starts_in_tree else around.surface
    through = cost if not starts_in_tree else _leaving_near(seeds[0], cost, tree, scan)
    stretches: list[NDArray[np.intp]] = []
    for seed in seeds[1:] if starts_in_tree else seeds:
        if stretches and (np.concatenate(stretches) == seed).all(axis=1).any():
            continue
        if stretches:
            through = _straight(through, seed, targets, scan)
        way = cheapest_way(through, seed[None], targets, scan.spacing_mm)
        if way is None:
            raise AirwaySegError("No way leads from the point to the airways.")
        way = _outside(way[::-1], tree) if not stretches else way[::-1]
        stretches.append(by_faces(way, cost))
        through, targets = np.where(tree, np.inf, cost), np.concatenate([piece[1:] for piece in stretches])
    return stretches


def _straight(
    cost: NDArray[np.float32], seed: NDArray[np.intp], targets: NDArray[np.intp], scan: Scan
) -> NDArray[np.float32]:
    """The cost of a way from a point to the nearest of some targets (M, 3), higher away from the straight one.

    What is added is the square of the distance from it, in units of `_BEND_MM` and `_BEND` of its length.
    """
    spacing = np.asarray(scan.spacing_mm)
    ends_mm = targets * spacing
    end_mm = ends_mm[np.linalg.norm(ends_mm - seed * spacing, axis=1).argmin()]
    along = end_mm - seed * spacing
    length_mm = max(float(np.linalg.norm(along)), 1e-6)
    away = np.stack(np.meshgrid(*map(np.arange, cost.shape), indexing="ij"), axis=-1) * spacing - seed * spacing
    away -= np.clip(away @ along / length_mm**2, 0, 1)[..., None] * along
    far = (away**2).sum(axis=-1) / (_BEND_MM + _BEND * length_mm) ** 2
    straight: NDArray[np.float32] = (cost * (1 + far)).astype(np.float32)
    return straight


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
