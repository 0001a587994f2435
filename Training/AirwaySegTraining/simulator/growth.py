"""Grows the branching trees of a simulated chest: airways with their arteries, and veins.

A tree is a list of `Branch`. Positions are (z, y, x) in mm in the patient's frame: z to the head, y to the back, x to
the patient's left, the carina at the origin.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline

from AirwaySegTraining.simulator.space_filling import Connected, connect

Points = NDArray[np.float64]
Inside = Callable[[Points], NDArray[np.bool_]]

STRAIGHT = 0.55
"""How much of the way from the root counts beside the way to the tree (see `space_filling.connect`): by eye, from
projections of slabs beside those of real CTs."""

POINT_STEP_MM = 0.7
"""Step between the points of a `finer` branch."""

BALANCE_STEPS, LEAST_MM = 5, 2.0
"""Steps towards the fork of least volume; neighbours nearer than this pull as if they were as far."""


@dataclass
class Branch:
    """A tube: points (P, 3) in mm, radii (P,) in mm, its parent's index in the list (-1: root), its generation."""

    points_mm: Points
    radii_mm: NDArray[np.float64]
    parent: int
    generation: int
    squash: float = 1.0
    """Ratio of the cross-section's two diameters; 1 is round."""
    squash_axis: Points = field(default_factory=lambda: np.array([0.0, 1.0, 0.0]))
    plugged: bool = False
    """Whether the airway is filled with mucus."""
    froth: bool = False
    """Whether the mucus is mixed with bubbles."""
    narrowed: bool = False
    """Whether this piece is compressed or collapsed; the lumen continues behind it."""
    thicker_mm: float = 0.0
    """Wall thickness in mm in addition to the usual one for the calibre."""


def unit(vector: Points) -> Points:
    """The vector at length 1 (a zero vector stays zero)."""
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def wobbly_line(
    start_mm: Points, end_mm: Points, wobble: float, rng: np.random.Generator, step_mm: float = 2.0
) -> Points:
    """Points about every ``step_mm`` from start to end, bent sideways by up to about ``wobble`` of the length."""
    axis = end_mm - start_mm
    count = max(3, int(np.ceil(np.linalg.norm(axis) / step_mm)) + 1)
    along = np.linspace(0, 1, count)
    return start_mm + along[:, None] * axis + _bend(along, axis, wobble, rng)


def _bend(along: NDArray, axis: Points, wobble: float, rng: np.random.Generator) -> Points:
    """How far a line along ``axis`` bends sideways at each part 0..1 of its length, (P, 3); nothing at its ends."""
    bend = np.zeros((len(along), 3))
    for wave in (1, 2):
        side = rng.normal(size=3)
        side -= unit(axis) * float(side @ unit(axis))
        much_mm = float(np.linalg.norm(axis)) * wobble * rng.uniform(-1, 1) / wave
        bend += np.sin(np.pi * wave * along)[:, None] * unit(side) * much_mm
    return bend


def taper(count: int, start_mm: float, end_mm: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Radii (count,) from start to end with a slow waviness of about 4 %."""
    return _wavy(np.linspace(start_mm, end_mm, count), rng)


def _wavy(radii_mm: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    phase = rng.uniform(0, 2 * np.pi)
    return radii_mm * (1 + 0.04 * np.sin(np.linspace(0, rng.uniform(2, 7), len(radii_mm)) + phase))


def limit_angle(direction: Points, parent: Points, most_degrees: float) -> Points:
    """The direction, turned towards the parent's until it is within ``most_degrees`` of it."""
    cosine = float(np.clip(direction @ parent, -1, 1))
    if cosine >= np.cos(np.radians(most_degrees)):
        return direction
    side = unit(direction - cosine * parent)
    return np.cos(np.radians(most_degrees)) * parent + np.sin(np.radians(most_degrees)) * side


def grow(trunk: list[Branch], seeds_mm: Points, smallest_mm: float, rng: np.random.Generator) -> list[Branch]:
    """The tree that serves all points from the end of the trunk's last branch, down to a radius of ``smallest_mm``.

    Bronchi and vessels run from the hilum to the pleura on short ways, with thin side branches every centimetre: so the
    points are connected by `space_filling.connect`, and each fork is moved to where its branches pull it
    (`_balanced`). A branch ends at a fork or at the last point it serves.

    Parameters
    ----------
    trunk : the branches so far; the result starts with copies of them.
    seeds_mm : (N, 3) points that the tree must serve.
    smallest_mm : what is thinner is not grown.

    Notes
    -----
    Child radius = parent's radius * share of the points served ** (1 / n), with n 2.3 above 3 mm diameter and 3 below
    (Murray's law holds in the periphery).
    """
    branches = list(trunk)
    if len(seeds_mm) == 0:
        return branches
    last = branches[-1]
    nodes = connect(last.points_mm[-1:], seeds_mm, STRAIGHT)
    radii = _radii(nodes, float(last.radii_mm[-1]), rng)
    return branches + along_nodes(nodes, radii, rng, smallest_mm, above=(len(branches) - 1, last.generation))


def along_nodes(
    nodes: Connected,
    radii_mm: NDArray[np.float64],
    rng: np.random.Generator,
    smallest_mm: float = 0.0,
    above: tuple[int, int] = (-1, -1),
) -> list[Branch]:
    """Smooth branches along connected points, those of radii (N,) of at least ``smallest_mm``; each ends at a fork.

    ``above`` are index and generation of the branch that the roots belong to (-1: none); the indices of parents begin
    behind it.
    """
    count, (first, generation) = len(radii_mm), above
    children = [[child for child in nodes.children[node] if radii_mm[child] >= smallest_mm] for node in range(count)]
    points_mm = _balanced(nodes, radii_mm, children)
    branches: list[Branch] = []
    roots = np.flatnonzero(nodes.parents < 0)
    todo = [(int(root), child, first, generation + 1) for root in roots for child in children[root]]
    while todo:
        start, node, parent, level = todo.pop()
        course = [start, node]
        while len(children[course[-1]]) == 1:
            course += children[course[-1]]
        line, along, nodes_along = _smooth_line(points_mm[course], rng)
        radii = _wavy(np.interp(along, nodes_along, radii_mm[[node, *course[1:]]]), rng)
        branches.append(Branch(line, radii, parent, level))
        todo += [(course[-1], child, first + len(branches), level + 1) for child in children[course[-1]]]
    return branches


def _radii(nodes: Connected, root_mm: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """The radius in which each node is reached, (N + 1,)."""
    radii = np.full(len(nodes.points_mm), root_mm)
    for node in nodes.order:
        above = nodes.parents[node]
        exponent = rng.uniform(2.2, 2.4) if radii[above] > 1.5 else rng.uniform(2.8, 3.2)
        radii[node] = radii[above] * (nodes.served[node] / nodes.served[above]) ** (1 / exponent)
    return radii


def _balanced(nodes: Connected, radii: NDArray[np.float64], children: list[list[int]]) -> Points:
    """The nodes (N + 1, 3), each moved towards where the branches that meet there, as ropes, would hold it.

    A branch pulls with the area of its cross-section. That is the fork of least volume (Murray 1926,
    doi:10.1085/jgp.9.6.835; Weiszfeld's iteration finds it); a few steps make stems straight and keep them apart.
    """
    points = nodes.points_mm.copy()
    forks = [node for node in nodes.order if children[node]]
    for _ in range(BALANCE_STEPS):
        before = points.copy()
        for node in forks:
            ends = [nodes.parents[node], *children[node]]
            pulls = radii[[node, *children[node]]] ** 2
            pulls /= np.maximum(np.linalg.norm(before[ends] - before[node], axis=1), LEAST_MM)
            points[node] = (before[node] + pulls @ before[ends] / pulls.sum()) / 2
    return points


def _smooth_line(
    points_mm: Points, rng: np.random.Generator
) -> tuple[Points, NDArray[np.float64], NDArray[np.float64]]:
    """A curve of steps of about 2 mm through points (P, 3), bent a little.

    Also the share of the way, 0..1, at which each point of the curve and each of the P points lies. Points that
    coincide count as one for the curve.
    """
    steps_mm = np.linalg.norm(np.diff(points_mm, axis=0), axis=1)
    way_mm = np.concatenate([[0.0], np.cumsum(steps_mm)])
    shares = way_mm / way_mm[-1] if way_mm[-1] > 0 else np.linspace(0, 1, len(way_mm))
    points_mm = points_mm[np.concatenate([[True], steps_mm > 0.1])]
    if len(points_mm) < 3:
        line = wobbly_line(points_mm[0], points_mm[-1], 0.06, rng)
        return line, np.linspace(0, 1, len(line)), shares
    at_mm = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points_mm, axis=0), axis=1))])
    along = np.linspace(0, 1, max(3, int(np.ceil(at_mm[-1] / 2)) + 1))
    curve = make_interp_spline(at_mm, points_mm, k=min(3, len(points_mm) - 1))(along * at_mm[-1])
    return curve + _bend(along, points_mm[-1] - points_mm[0], 0.04, rng), along, shares


def companions(airways: list[Branch], wall_mm: Callable[[float], float], rng: np.random.Generator) -> list[Branch]:
    """The arteries that run beside the airways, touching their walls, 1 to 1.5 times their lumen's radius.

    The side on which the artery lies turns slowly from parent to child, and each begins where its parent ends. The
    first of the list lies beside the trachea; the caller leaves it out.
    """
    arteries: list[Branch] = []
    sides: list[Points] = []
    for branch in airways:
        before = sides[branch.parent] if branch.parent >= 0 else rng.normal(size=3)
        side = unit(before + rng.normal(scale=0.35, size=3))
        axis = unit(branch.points_mm[-1] - branch.points_mm[0])
        side = unit(side - axis * float(side @ axis))
        sides.append(side)
        ratio = rng.uniform(1.0, 1.5) if branch.generation > 1 else rng.uniform(0.7, 1.0)
        radii = branch.radii_mm * ratio
        gap = branch.radii_mm + radii + np.array([wall_mm(2 * r) for r in branch.radii_mm]) * rng.uniform(0.7, 1.1)
        points = branch.points_mm + side * gap[:, None]
        if branch.generation > 1:
            points = np.vstack([arteries[branch.parent].points_mm[-1], points])
            radii = np.concatenate([radii[:1], radii])
        arteries.append(Branch(points, radii, branch.parent, branch.generation))
    return arteries


def total_length_mm(branches: list[Branch]) -> float:
    """Sum of the branches' centerline lengths in mm."""
    return float(sum(np.linalg.norm(np.diff(b.points_mm, axis=0), axis=1).sum() for b in branches))


def finer(branch: Branch) -> Branch:
    """The same branch with a point about every `POINT_STEP_MM`."""
    along = np.arange(len(branch.points_mm))
    position = np.linspace(0, along[-1], int(total_length_mm([branch]) / POINT_STEP_MM) + 2)
    points = np.stack([np.interp(position, along, branch.points_mm[:, axis]) for axis in range(3)], axis=1)
    return replace(branch, points_mm=points, radii_mm=np.interp(position, along, branch.radii_mm))
