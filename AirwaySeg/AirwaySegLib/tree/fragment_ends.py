"""Centerlines of loose fragments and of the tree in one form, their free ends and points, and the fragments' shape.

Used on the patient's points (`suspects`) and on a grid's (`repair`); which of them does not matter. Lengths are in mm.
Letters in shapes: P points of a branch, K points of many, C components. ``ramp(x, a, b)`` is 0 at a, 1 at b, straight
between them and flat outside.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.tree.airway_tree import Branch

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
Facts = dict[str, Floats]

AXIS_MM = 5.0
"""Stretch over which the direction of an end is taken, or two radii if they are more: several voxels, so that a single
one does not turn it."""

SHORT_ARM_MM = 3.0
"""Shortest arm of a bend; directions are taken over up to `AXIS_MM`."""

BEND_COSINE = -0.5
"""Cosine between the arms of a bend from which on it may be what is left of a fork: airways bend less."""

SAMPLING_STRIDE_MM = 0.8
"""Sampling stride along the centerlines that ends are compared with."""

NOISE_LENGTH_MM = 2.0
"""Fragments shorter than this, both ends included (three voxels), are noise."""


@dataclass(frozen=True, eq=False)
class Course:
    """A branch: its component and id, points (P, 3), radii (P,), way along it (P,), whether it is a root and a tip."""

    component: int
    branch: int
    points_mm: Floats
    radii_mm: Floats
    along_mm: Floats
    is_root: bool
    is_tip: bool

    @classmethod
    def of(cls, branch: Branch) -> "Course":
        """A branch with its points in the patient."""
        return cls(
            branch.component,
            branch.id,
            branch.points_mm,
            branch.radii_mm,
            branch.along_mm,
            branch.parent is None,
            not branch.children,
        )

    @property
    def length_mm(self) -> float:
        """Along the centerline."""
        return float(self.along_mm[-1])


@dataclass(frozen=True, eq=False)
class Points:
    """Positions (K, 3), unit vectors (K, 3), radii, component numbers, branch ids, and of which kind they are.

    Of a free end the vector points outwards, 0 where a fragment is a single point; else away from the branch's root.
    ``is_root`` says whether a free end is the one from which the fragment's branches are counted, the thickest.
    """

    points_mm: Floats
    axes: Floats
    radii: Floats
    components: Numbers
    branches: Numbers
    free: NDArray[np.bool_]
    is_root: NDArray[np.bool_]

    def take(self, rows: NDArray) -> "Points":
        """Some of the points."""
        return Points(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @classmethod
    def joined(cls, parts: "list[Points]") -> "Points":
        """All points of several."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


def ramp(value: Floats | float, zero_at: Floats | float, one_at: Floats | float) -> Floats:
    """0 at ``zero_at``, 1 at ``one_at``, straight between them and flat outside; either may be the larger."""
    return np.clip((np.asarray(value, float) - zero_at) / (one_at - zero_at), 0, 1)


def unit(vectors: Floats) -> Floats:
    """Vectors (..., 3) of length 1; 0 stays 0."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def weighed(terms: Facts, weights: Mapping[str, float]) -> Floats:
    """Sum of weight * term, (C,)."""
    return np.sum([weight * terms[name] for name, weight in weights.items()], axis=0)


def logistic(value: Floats) -> Floats:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-np.clip(value, -500, 500)))


def ends_of(courses: list[Course], with_bend: bool) -> Points:
    """The `free_ends` of many branches; of thousands of single points, as noise leaves them, all at once."""
    points = [course for course in courses if len(course.radii_mm) == 1 and course.is_root]
    lines = [course for course in courses if len(course.radii_mm) > 1]
    together = Points(
        np.reshape([course.points_mm[0] for course in points], (-1, 3)),
        np.zeros((len(points), 3)),
        np.array([course.radii_mm[0] for course in points], float),
        np.array([course.component for course in points], int),
        np.array([course.branch for course in points], int),
        np.ones(len(points), bool),
        np.ones(len(points), bool),
    )
    return Points.joined([*(free_ends(course, with_bend) for course in lines), together])


def free_ends(course: Course, with_bend: bool) -> Points:
    """The free ends of a branch, and with ``with_bend`` its sharpest bend, if that may be what is left of a fork."""
    points, radii, along = course.points_mm, course.radii_mm, course.along_mm
    rows = ([0] if course.is_root else []) + ([-1] if course.is_tip and len(points) > 1 else [])
    axes, widths = [], []
    for row in rows:
        from_end = along if row == 0 else along[-1] - along
        widths.append(float(np.median(radii[from_end <= AXIS_MM])))
        # The last stretch of a wide lumen's centerline may run to a corner of its end.
        first = int(np.abs(from_end - (widths[-1] / 2 if widths[-1] > AXIS_MM / 2 else 0)).argmin())
        inner = int(np.abs(from_end - max(AXIS_MM, 2 * widths[-1])).argmin())
        axes.append(unit(points[first] - points[inner]))
    roots = [row == 0 for row in rows]
    bend = _sharpest_bend(course) if with_bend else None
    if bend is not None:
        rows, axes, roots = [*rows, bend[0]], [*axes, bend[1]], [*roots, False]
        widths.append(float(radii[bend[0]]))
    return _points(course, np.array(rows, int), np.reshape(axes, (-1, 3)), np.array(widths), np.array(roots, bool))


def points_along(course: Course) -> Points:
    """Points of a branch every `SAMPLING_STRIDE_MM` with its direction."""
    along, points = course.along_mm, course.points_mm
    # At the very end a step's rounding may point one beyond the last row.
    wanted = np.searchsorted(along, np.arange(0, along[-1] + 1e-6, SAMPLING_STRIDE_MM))
    rows = np.unique(np.minimum(wanted, len(along) - 1))
    steps = np.gradient(points, axis=0) if len(points) > 1 else np.zeros((1, 3))
    return _points(course, rows, unit(steps[rows]), course.radii_mm[rows], None)


def _points(course: Course, rows: Numbers, axes: Floats, radii: Floats, roots: NDArray[np.bool_] | None) -> Points:
    count = len(rows)
    number, branch = (np.full(count, one) for one in (course.component, course.branch))
    is_root = np.zeros(count, bool) if roots is None else roots
    return Points(course.points_mm[rows], axes, radii, number, branch, np.full(count, roots is not None), is_root)


def _sharpest_bend(course: Course) -> tuple[int, Floats] | None:
    """Row and outward unit vector of the sharpest bend; None if it is none (`BEND_COSINE`)."""
    points, along = course.points_mm, course.along_mm
    middle = np.flatnonzero((along >= SHORT_ARM_MM) & (along <= along[-1] - SHORT_ARM_MM))
    if not len(middle):
        return None
    reached = np.searchsorted(along, along[middle] + np.array([[-AXIS_MM], [AXIS_MM]]))
    arms = unit(points[np.minimum(reached, len(along) - 1)] - points[middle])
    cosines = (arms[0] * arms[1]).sum(axis=1)
    sharpest = int(cosines.argmax())
    if cosines[sharpest] <= BEND_COSINE:
        return None
    return int(middle[sharpest]), unit(-arms[:, sharpest].sum(axis=0))


def shape_facts(courses: list[Course], count: int) -> Facts:
    """Facts of the shape of components by name, each (C,) by number, C = ``count``.

    length_mm: of all centerlines and both ends. radius_mm: the mean. slenderness: length in widths. forks: branches
    more than one. taper: log of the widest end's radius over the thinnest one's.
    """
    numbers = np.array([course.component for course in courses], int)
    points = np.bincount(numbers, [float(len(course.radii_mm)) for course in courses], count)
    radius = np.bincount(numbers, [course.radii_mm.sum() for course in courses], count) / np.maximum(points, 1)
    lines = np.bincount(numbers, [course.length_mm for course in courses], count)
    length, radius = lines + 2 * radius, np.maximum(radius, 1e-3)
    widest, thinnest = np.full(count, 1e-3), np.full(count, np.inf)
    ends = ends_of(courses, with_bend=False)
    np.maximum.at(widest, ends.components, ends.radii)
    np.minimum.at(thinnest, ends.components, ends.radii)
    return {
        "length_mm": length,
        "radius_mm": radius,
        "slenderness": length / (2 * radius),
        "forks": np.maximum(np.bincount(numbers, minlength=count) - 1.0, 0),
        "taper": np.log(widest / np.clip(thinnest, 1e-3, widest)),
    }


def shape_terms(facts: Facts) -> Facts:
    """The terms of the shape that a score weighs, by name.

    long: log of the length in 5 mm, from 1 to 60 mm. slender: log of the slenderness, from 1 to 6. blunt: radius beyond
    2 mm where a piece is shorter than three widths.
    """
    stout = ramp(facts["slenderness"], 3, 1.5)
    return {
        "one": np.ones_like(facts["length_mm"]),
        "long": np.log(np.clip(facts["length_mm"], 1, 60) / 5),
        "slender": np.log(np.clip(facts["slenderness"], 1, 6)),
        "blunt": stout * np.clip(facts["radius_mm"] - 1.5, 0, 3),
    }
