"""Minimum-cost paths from loose fragments to the tree and to each other.

Letters in shapes: S points of a curve, P voxels of a path. Points are (z, y, x) in mm from voxel (0, 0, 0) of the grid,
lengths in mm. ``ramp(x, a, b)`` is 0 at a, 1 at b, straight between them and flat outside.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, distance_transform_edt, find_objects, gaussian_filter1d
from scipy.spatial import cKDTree

from AirwaySegLib.masks.components import Box
from AirwaySegLib.masks.least_cost import cheapest_way
from AirwaySegLib.repair.bridge import MAIN
from AirwaySegLib.tree.fragment_ends import Floats, Points, ramp, unit
from AirwaySegLib.tree.fragment_joints import Pairs

Spacing = tuple[float, float, float]

MARGIN_MM = 3.0
"""How far beside the smooth curve between both ends a path may run."""

CORRIDOR_MM = 2.0
"""A voxel so far from that curve costs as much more as a wall does."""

LEAST_COST = 0.1
"""Of a voxel on the curve that looks like lumen: the shorter of two good ways is the better one."""

SAMPLES, TANGENT = 40, 0.6
"""Points of the curve, and the length of its tangents as a share of the way (1 would swing out widely)."""

SMOOTH_STEPS, TUBE = 2.0, 0.9
"""Standard deviation of the path's smoothing in voxels, and the tube's radius over that of the lumens: so four in five
of its voxels are airway on simulated breaks."""

LEAST_CONTRAST_HU = 60.0
"""Between lumen and wall for the cost: less is noise."""

AROUND = np.ones((3, 3, 3), bool)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known besides the mask, on its canonical grid, each (Z, Y, X) or None.

    ``hu`` are the CT's Hounsfield units, ``probability`` the first stage's (uint8, 0..255).
    """

    hu: NDArray | None = None
    probability: NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class Path:
    """A way across a gap: what it joins, ascending, the voxels (N, 3) of its tube, its length and its facts."""

    joins: tuple[int, ...]
    voxels: NDArray[np.int32]
    length_mm: float
    facts: dict[str, float]


@dataclass(frozen=True, eq=False)
class PathSearch:
    """Labels, evidence, which components may be joined, by number, and the HU of their lumens and walls.

    For a pair of an end and a point to join a minimum-cost path is searched between the two lumens, near the smooth
    curve that leaves both along their axes. A step costs its length times `LEAST_COST` + (distance from the curve /
    `CORRIDOR_MM`)^2 + the evidence against the voxel: for a CT ramp(HU, lumen, wall), the levels being the fragment's
    own (`wall_contrast`), up to twice that for what is denser; for a probability p 1 - ramp(p, 0, 1/2); the mean of
    both where there are both; 0 for a mask alone. Other components are in the way, but not those too small to be joined
    by themselves (`path_score.joinable_components`): a path may run through these and joins them, too. The bridge is a
    tube around the path whose radius goes from that of the one end to that of the other; beside a branch it is the
    fragment's.
    """

    labels: NDArray
    spacing_mm: Spacing
    evidence: Evidence
    joinable: NDArray[np.bool_]
    levels_hu: dict[int, tuple[float, float]]

    @classmethod
    def of(cls, labels: NDArray, spacing_mm: Spacing, evidence: Evidence, joinable: NDArray[np.bool_]) -> "PathSearch":
        """Measure the lumens and walls of the fragments that may be joined."""
        wanted = np.setdiff1d(np.flatnonzero(joinable), [0, MAIN]).tolist()
        levels = {} if evidence.hu is None else wall_contrast(evidence.hu, labels, wanted)
        return cls(labels, spacing_mm, evidence, joinable, levels)

    def path(self, pair: Pairs) -> Path | None:
        """The way between the end and the point of a single pair; None if other components are in the way.

        Facts, beside those of the pair: gap_mm, the way outside both lumens; of the path's voxels there with a CT
        mean_cost and most_cost, of the CT alone, and with a probability its mean.
        """
        one, other = int(pair.ends.components[0]), int(pair.others.components[0])
        curve = _curve(pair)
        margin = max(MARGIN_MM, TUBE * float(max(pair.ends.radii[0], 0)) + 1)
        box = _box_around(curve, margin, self.spacing_mm, self.labels.shape)
        corner = np.array([part.start for part in box])
        labels = self.labels[box]
        by_ct = self._ct_cost(box, one)
        path = self._path(pair, labels, corner, self._cost(box, by_ct) + self._off(curve, box) ** 2)
        if path is None:
            return None
        on = labels[tuple(path.T)]
        left = int(np.flatnonzero(on == one)[-1])
        arrived = left + int(np.argmax(on[left:] == other))
        steps = path[left : arrived + 1]
        gap = steps[labels[tuple(steps.T)] == 0]
        if not len(gap):
            return None
        joins, tube = self._tube(pair, labels, steps)
        if not len(tube):
            return None
        facts = {name: float(values[0]) for name, values in pair.facts.items()}
        facts |= self._along_gap(gap, by_ct, corner)
        length_mm = float(np.linalg.norm(np.diff(steps * np.asarray(self.spacing_mm), axis=0), axis=1).sum())
        return Path(joins, (tube + corner).astype(np.int32), length_mm, facts | {"gap_mm": length_mm})

    def _ct_cost(self, box: Box, number: int) -> Floats | None:
        """What the CT says against each voxel, (Z, Y, X) of the box; None without a CT."""
        if self.evidence.hu is None:
            return None
        lumen, wall = self.levels_hu[number]
        return np.clip((self.evidence.hu[box].astype(float) - lumen) / max(wall - lumen, LEAST_CONTRAST_HU), 0, 2)

    def _cost(self, box: Box, by_ct: Floats | None) -> Floats:
        """`LEAST_COST` and what the evidence says against each voxel, (Z, Y, X) of the box."""
        costs = [] if by_ct is None else [by_ct]
        if self.evidence.probability is not None:
            costs.append(1 - ramp(self.evidence.probability[box] / 255, 0, 0.5))
        shape = tuple(part.stop - part.start for part in box)
        return LEAST_COST + (np.mean(costs, axis=0) if costs else np.zeros(shape))

    def _off(self, curve: Floats, box: Box) -> Floats:
        """Distance from the curve in `CORRIDOR_MM`, (Z, Y, X) of the box."""
        free = np.ones([part.stop - part.start for part in box], bool)
        rows = np.rint(curve / self.spacing_mm).astype(int) - [part.start for part in box]
        free[tuple(np.clip(rows, 0, np.array(free.shape) - 1).T)] = False
        return distance_transform_edt(free, self.spacing_mm) / CORRIDOR_MM

    def _path(self, pair: Pairs, labels: NDArray, corner: NDArray, cost: Floats) -> NDArray[np.int64] | None:
        """The cheapest way (P, 3) in the box from the end's lumen to the other's; None if others are in the way."""
        starts, stops = (self._lumen_at(points, labels, corner) for points in (pair.ends, pair.others))
        if not len(starts) or not len(stops):
            return None
        mine = (labels == pair.ends.components[0]) | (labels == pair.others.components[0])
        return cheapest_way(np.where(self.joinable[labels] & ~mine, np.inf, cost), starts, stops, self.spacing_mm)

    def _lumen_at(self, points: Points, labels: NDArray, corner: NDArray) -> NDArray[np.int64]:
        """Voxels of the point's component in the box within its radius and a voxel, or the nearest one."""
        voxels = np.argwhere(labels == points.components[0])
        if not len(voxels):
            return voxels
        apart = np.linalg.norm((voxels + corner) * self.spacing_mm - points.points_mm[0], axis=1)
        return voxels[apart <= max(float(points.radii[0]), float(apart.min())) + 1e-6]

    def _along_gap(self, gap: NDArray, by_ct: Floats | None, corner: NDArray) -> dict[str, float]:
        """What the evidence says of a path's voxels (P, 3) in the gap."""
        facts: dict[str, float] = {}
        if by_ct is not None:
            cost = by_ct[tuple(gap.T)]
            facts |= {"mean_cost": float(cost.mean()), "most_cost": float(cost.max())}
        if self.evidence.probability is not None:
            facts["probability"] = float(self.evidence.probability[tuple((gap + corner).T)].mean()) / 255
        return facts

    def _tube(self, pair: Pairs, labels: NDArray, steps: NDArray) -> tuple[tuple[int, ...], NDArray[np.int64]]:
        """What is joined, and the path's free voxels (P, 3) and those around it as far as the radius.

        Fragments too small to be joined by themselves are joined where they lie within the radius; from all others the
        tube keeps one voxel away.
        """
        steps_mm = gaussian_filter1d(steps * np.asarray(self.spacing_mm), SMOOTH_STEPS, axis=0, mode="nearest")
        last = pair.others.radii[0] if pair.others.free[0] else min(pair.others.radii[0], pair.ends.radii[0])
        radii = TUBE * np.linspace(pair.ends.radii[0], last, len(steps_mm))
        open_voxels = np.argwhere(~self.joinable[labels] | (labels == 0))
        open_mm = open_voxels * np.asarray(self.spacing_mm)
        apart, nearest = cKDTree(steps_mm).query(open_mm, distance_upper_bound=radii.max() + 1e-6)
        tube = np.zeros(labels.shape, bool)
        tube[tuple(open_voxels[apart <= np.append(radii, -1.0)[nearest]].T)] = True
        tube[tuple(steps.T)] = True
        joins = np.setdiff1d(labels[tube], [0])
        tube &= ~binary_dilation((labels > 0) & ~np.isin(labels, joins), AROUND)
        tube[tuple(steps.T)] = True
        return tuple(joins.tolist()), np.argwhere(tube & (labels == 0))


def wall_contrast(hu: NDArray, labels: NDArray, numbers: list[int]) -> dict[int, tuple[float, float]]:
    """Mean HU of components and the median of the voxels that share a face with them, by number.

    The lumen of an airway is darker than its wall; a vessel is brighter than what is around it, and a piece of lung
    is neither.
    """
    boxes = find_objects(labels)
    levels = {}
    for number in numbers:
        box = boxes[number - 1]
        grown = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in box)
        inside = labels[grown] == number
        values = hu[grown].astype(float)
        ring = binary_dilation(inside) & (labels[grown] == 0)
        lumen = float(values[inside].mean())
        levels[number] = lumen, float(np.median(values[ring])) if ring.any() else lumen
    return levels


def _curve(pair: Pairs) -> Floats:
    """The Hermite curve (S, 3) that leaves an end along its axis and comes to the other along that one's."""
    start, end = pair.ends.points_mm[0], pair.others.points_mm[0]
    way = end - start
    leave, arrive = pair.ends.axes[0], -pair.others.axes[0]
    if leave @ way <= 0:
        leave = unit(way)
    if not pair.others.free[0] or arrive @ way <= 0:
        arrive = unit(way)
    t = np.linspace(0, 1, SAMPLES)[:, None]
    tangents = TANGENT * float(np.linalg.norm(way)) * ((t**3 - 2 * t**2 + t) * leave + (t**3 - t**2) * arrive)
    return start + (3 * t**2 - 2 * t**3) * way + tangents


def _box_around(points_mm: Floats, margin_mm: float, spacing_mm: Spacing, shape: tuple[int, ...]) -> Box:
    low = np.floor((points_mm.min(axis=0) - margin_mm) / spacing_mm).astype(int)
    high = np.ceil((points_mm.max(axis=0) + margin_mm) / spacing_mm).astype(int) + 1
    z, y, x = (slice(max(0, int(a)), min(n, int(b))) for a, b, n in zip(low, high, shape, strict=True))
    return z, y, x
