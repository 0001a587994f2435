"""Loose fragments of an airway tree: where each would join the tree, and how likely it is a piece that was broken off.

Letters in shapes: E ends of fragments, M points of the tree's centerlines, C points that an end is compared with. All
lengths are in mm. ``ramp(x, a, b)`` is 0 at a, 1 at b, straight between them and flat outside.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from AirwaySegLib.tree.airway_tree import AirwayTree, Branch

Point = tuple[float, float, float]
Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]

USUAL_GAP_MM, LARGE_GAP_MM = 8.0, 24.0
"""Gaps that count half, of a short fragment and of a subtree: repair bridges up to ten voxels (DeepTree), which
are 6 to 8 mm; a subtree is hardly anything but airway, so that an occluded stretch before it may be longer."""

AXIS_MM = 5.0
"""Stretch over which the direction of an end is taken: several voxels, so that a single one does not turn it."""

SHARP_DEG = 120.0
"""Between the arms of a bend: airways bend less. Of a fork that is broken off close by, thinning leaves two arms."""

REACH_MM = (0.0, 5.0, 10.0, 15.0, 20.0)
"""How far an end is prolonged in search of the tree: a side branch does not spring from the point nearest to it."""

NEAREST_TIPS = 3
"""The tip that a fragment continues need not be the nearest one."""

NOISE_LENGTH_MM, SURE_PIECE_MM, LARGE_PIECE_MM = 2.0, 10.0, 100.0
"""Lengths of fragments, centerline and both ends: up to the first (three voxels) it is taken for noise, here and in
`repair.path_score`; the second (fifteen voxels in a row) is rarely reached by noise; the third is a subtree."""

WIDEST_JOINT, THINNEST_JOINT = 1.3, 0.4
"""Fragment's radius over the tree's: daughters have 0.5 to 0.9 of it (Weibel, 1963), a continued branch 1."""

FORWARD_DEG, BACKWARD_DEG = 60.0, 120.0
"""Airways fork at 20 to 60 degrees from their parent's direction, and do not turn back."""


@dataclass(frozen=True)
class Joint:
    """The best way for a fragment to join the tree.

    ``branch`` is the fragment's and ``place_mm`` (x, y, z) its end that looks to the tree; ``other_branch`` the tree's
    and ``other_place_mm`` the point on its centerline. ``score`` 0..1. ``facts``: distance_mm between the lumens,
    angle_deg (none for a single point), tree_angle_deg, radius_ratio, at_tip (1 or 0), and of the whole fragment
    length_mm, radius_mm, volume_mm3.
    """

    branch: int
    place_mm: Point
    other_branch: int
    other_place_mm: Point
    score: float
    facts: dict[str, float]


def joints_of_fragments(tree: AirwayTree) -> list[Joint]:
    """One joint for every component but the tree's, in their order.

    Each end of a fragment, and each sharp bend, is compared with points of the tree: those nearest to its prolonged
    axis at `REACH_MM`, and the `NEAREST_TIPS` nearest tips. The best of all is where it would join:

    - near = 1 / (1 + (distance / gap)^2), the distance being that between the lumens' ends or walls, the gap going from
      `USUAL_GAP_MM` to `LARGE_GAP_MM` for lengths from `SURE_PIECE_MM` to `LARGE_PIECE_MM`;
    - aligned = cos^2 of the angle between the fragment's axis and the way to the tree, 0 beyond 90 degrees, and 1/2 for
      a fragment of one point;
    - onward = 1 - ramp(angle between the tree's direction there and the way to the fragment, `FORWARD_DEG`,
      `BACKWARD_DEG`);
    - fitting = 1 where the ratio of radii is that of mother and daughter, less in proportion where it is wider than
      `WIDEST_JOINT` or, beyond a tip, thinner than `THINNEST_JOINT`;
    - score = ramp(length, `NOISE_LENGTH_MM`, `SURE_PIECE_MM`) * (1/4 + 3/4 near aligned onward fitting), the length
      being that of the fragment's centerlines and its two ends.
    """
    main, pieces = tree.main(), [branch for branch in tree.branches if branch.component > 1]
    if not pieces or not main:
        return []
    ends, targets, whole = _Ends.of(pieces), _Targets.of(main), _whole_fragments(pieces)
    candidates = _candidates_of(ends, targets)
    facts, join = _joining(ends, targets, candidates, whole)
    best = (join + 1e-3 / (1 + facts["distance_mm"])).argmax(axis=1)  # where nothing fits, the nearest
    rows = np.arange(len(best))
    length_mm = whole["length_mm"][ends.components]
    score = ramp(length_mm, NOISE_LENGTH_MM, SURE_PIECE_MM) * (0.25 + 0.75 * join[rows, best])
    order = np.lexsort((facts["distance_mm"][rows, best], -score, ends.components))
    first = order[np.unique(ends.components[order], return_index=True)[1]]
    of_joint = {name: values[first, best[first]] for name, values in facts.items()}
    of_whole = {name: values[ends.components[first]] for name, values in whole.items()}
    numbers = _by_row(of_joint | of_whole)
    return [
        _joint(ends, targets, row, candidates[row, best[row]], score[row], facts) for row, facts in zip(first, numbers)
    ]


def ramp(value: Floats | float, zero_at: float, one_at: float) -> Floats:
    """0 at ``zero_at``, 1 at ``one_at``, straight between them and flat outside; either may be the larger."""
    return np.clip((np.asarray(value, float) - zero_at) / (one_at - zero_at), 0, 1)


def far_radius_mm(branch: Branch) -> float:
    """Median radius of the last third of the branch outside its parent's lumen."""
    own = branch.own_radii_mm
    return float(np.median(own[-max(1, len(own) // 3) :]))


def rounded_point(point: Floats) -> Point:
    """A point (3,) as plain numbers, to the micrometre."""
    x, y, z = (round(float(value), 3) for value in point)
    return x, y, z


def _by_row(columns: dict[str, Floats]) -> list[dict[str, float]]:
    """Columns of equal length as one dictionary a row, to 3 decimals."""
    rounded = [np.round(values, 3).tolist() for values in columns.values()]
    return [dict(zip(columns, row)) for row in zip(*rounded)]


def _joint(ends: "_Ends", targets: "_Targets", row: int, joined: int, score: float, facts: dict[str, float]) -> Joint:
    if not ends.axes[row].any():
        del facts["angle_deg"]
    other_point = rounded_point(targets.points[joined])
    return Joint(
        int(ends.branches[row]),
        rounded_point(ends.points[row]),
        int(targets.branches[joined]),
        other_point,
        float(score),
        facts,
    )


def _whole_fragments(pieces: list[Branch]) -> dict[str, Floats]:
    """Length with both ends, mean radius and volume of each component, indexed by its number."""
    numbers = np.array([branch.component for branch in pieces])
    points = np.bincount(numbers, [float(len(branch.radii_mm)) for branch in pieces])
    radius = np.bincount(numbers, [branch.radii_mm.sum() for branch in pieces]) / np.maximum(points, 1)
    length = np.bincount(numbers, [branch.length_mm if len(branch.radii_mm) > 1 else 0.0 for branch in pieces])
    volume = np.bincount(numbers, [branch.volume_mm3 for branch in pieces])
    return {"length_mm": np.add(length, 2 * radius), "radius_mm": radius, "volume_mm3": np.asarray(volume, float)}


@dataclass(frozen=True)
class _Ends:
    """E ends and sharp bends of fragments; ``axes`` (E, 3) point outwards, 0 where a fragment is a single point."""

    points: Floats
    axes: Floats
    radii: Floats
    branches: Numbers
    components: Numbers

    @classmethod
    def of(cls, pieces: list[Branch]) -> "_Ends":
        """Roots, tips and sharp bends of the fragments' branches."""
        heads = [(branch, 0, _outwards(branch, 0)) for branch in pieces if branch.parent is None]
        tips = [branch for branch in pieces if not branch.children and len(branch.points_mm) > 1]
        long = [branch for branch in pieces if branch.length_mm > 2 * AXIS_MM]
        bends = [(branch, *bend) for branch in long if (bend := _sharpest_bend(branch)) is not None]
        found = heads + [(branch, -1, _outwards(branch, -1)) for branch in tips] + bends
        return cls(
            np.array([branch.points_mm[row] for branch, row, _ in found]),
            np.array([axis for _, _, axis in found]),
            np.array([branch.radii_mm[row] for branch, row, _ in found]),
            np.array([branch.id for branch, _, _ in found]),
            np.array([branch.component for branch, _, _ in found]),
        )


def _outwards(branch: Branch, side: int) -> Floats:
    """Unit vector out of the branch at its first (0) or last (-1) point, over `AXIS_MM`; 0 for a single point."""
    if len(branch.points_mm) == 1:
        return np.zeros(3)
    from_end = branch.along_mm if side == 0 else branch.length_mm - branch.along_mm
    inner = int(np.abs(from_end - AXIS_MM).argmin())
    chord = branch.points_mm[side] - branch.points_mm[inner]
    return chord / max(float(np.linalg.norm(chord)), 1e-9)


def _sharpest_bend(branch: Branch) -> tuple[int, Floats] | None:
    """Row and outward unit vector of the sharpest bend below `SHARP_DEG` between arms of `AXIS_MM`; None for none."""
    along, points = branch.along_mm, branch.points_mm
    rows = np.flatnonzero((along >= AXIS_MM) & (along <= along[-1] - AXIS_MM))
    if len(rows) == 0:
        return None
    arms = [points[np.searchsorted(along, along[rows] + reach)] - points[rows] for reach in (-AXIS_MM, AXIS_MM)]
    first, second = (arm / np.maximum(np.linalg.norm(arm, axis=1, keepdims=True), 1e-9) for arm in arms)
    cosines = (first * second).sum(axis=1)
    sharpest = int(cosines.argmax())
    if cosines[sharpest] < np.cos(np.radians(SHARP_DEG)):
        return None
    outward = -(first + second)[sharpest]
    return int(rows[sharpest]), outward / max(float(np.linalg.norm(outward)), 1e-9)


@dataclass(frozen=True)
class _Targets:
    """M points of the tree's centerlines, with direction away from the trachea and the branch's far radius."""

    points: Floats
    directions: Floats
    radii: Floats
    widths: Floats
    branches: Numbers
    is_tip: NDArray[np.bool_]

    @classmethod
    def of(cls, main: list[Branch]) -> "_Targets":
        """All points of the tree's branches."""
        counts = [len(branch.points_mm) for branch in main]
        is_tip = np.zeros(sum(counts), bool)
        is_tip[np.cumsum(counts) - 1] = [not branch.children for branch in main]
        return cls(
            np.concatenate([branch.points_mm for branch in main]),
            np.concatenate([_directions(branch) for branch in main]),
            np.concatenate([branch.radii_mm for branch in main]),
            np.repeat([far_radius_mm(branch) for branch in main], counts),
            np.repeat([branch.id for branch in main], counts),
            is_tip,
        )


def _directions(branch: Branch) -> Floats:
    """Unit vectors away from the trachea at each point; at the last one over `AXIS_MM`."""
    if len(branch.points_mm) == 1:
        return np.zeros((1, 3))
    steps = np.gradient(branch.points_mm, axis=0)
    steps[-1] = _outwards(branch, -1)
    return steps / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-9)


def _candidates_of(ends: _Ends, targets: _Targets) -> Numbers:
    """Rows of the tree's points that each end is compared with, (E, C); tips first."""
    tips = np.flatnonzero(targets.is_tip)
    nearest = list(range(1, 1 + min(NEAREST_TIPS, len(tips))))
    ahead = tips[cKDTree(targets.points[tips]).query(ends.points, k=nearest)[1]]
    rays = ends.points[:, None] + np.array(REACH_MM)[:, None] * ends.axes[:, None]
    return np.concatenate([ahead, cKDTree(targets.points).query(rays)[1]], axis=1)


def _joining(
    ends: _Ends, targets: _Targets, candidates: Numbers, whole: dict[str, Floats]
) -> tuple[dict[str, Floats], Floats]:
    """The facts by name and how well they join (near aligned onward fitting), each (E, C)."""
    radius, length_mm = whole["radius_mm"][ends.components], whole["length_mm"][ends.components]
    gap_mm = USUAL_GAP_MM + (LARGE_GAP_MM - USUAL_GAP_MM) * ramp(length_mm, SURE_PIECE_MM, LARGE_PIECE_MM)
    way = targets.points[candidates] - ends.points[:, None]
    apart = np.maximum(np.linalg.norm(way, axis=2), 1e-9)
    cosine = (way * ends.axes[:, None]).sum(axis=2) / apart
    onward = -(way * targets.directions[candidates]).sum(axis=2) / apart
    facts = {
        "distance_mm": np.maximum(apart - ends.radii[:, None] - targets.radii[candidates], 0),
        "angle_deg": np.degrees(np.arccos(np.clip(cosine, -1, 1))),
        "tree_angle_deg": np.degrees(np.arccos(np.clip(onward, -1, 1))),
        "radius_ratio": radius[:, None] / np.maximum(targets.widths[candidates], 1e-9),
        "at_tip": np.asarray(targets.is_tip[candidates], float),
    }
    has_axis = np.linalg.norm(ends.axes, axis=1, keepdims=True) > 0
    aligned = np.where(has_axis, np.maximum(cosine, 0) ** 2, 0.5)
    wide = WIDEST_JOINT / np.maximum(facts["radius_ratio"], 1e-9)
    thin = np.where(facts["at_tip"] > 0, facts["radius_ratio"] / THINNEST_JOINT, 1)
    fitting = np.minimum(1, np.minimum(wide, thin))
    near = 1 / (1 + (facts["distance_mm"] / gap_mm[:, None]) ** 2)
    return facts, near * aligned * fitting * (1 - ramp(facts["tree_angle_deg"], FORWARD_DEG, BACKWARD_DEG))
