"""Connects points in space to trees that are short and yet lead to each point on a short way.

Points are (z, y, x) in mm.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

MOST_CHILDREN = 2


@dataclass(frozen=True)
class Connected:
    """Trees over roots and points, N together: ``points_mm`` (N, 3), roots first.

    ``parents`` (N,) is -1 for roots; ``order`` lists the other points, parents before their children; ``children`` has
    a list for each; ``served`` (N,) counts the points below each with itself.
    """

    points_mm: Points
    parents: NDArray[np.intp]
    order: list[int]
    children: list[list[int]]
    served: NDArray[np.int64]


def connect(roots_mm: Points, points_mm: Points, straight: float) -> Connected:
    """Join each point to the tree, always the one that costs least next; a point gets at most two children.

    The cost of joining a point is its distance from the one that it is joined to plus ``straight`` times the way from
    there to the root: 0 gives the shortest tree, much more a star. Between them are trees as bodies grow them (Cuntz,
    Forstner, Borst and Hausser 2010, doi:10.1371/journal.pcbi.1000877).
    """
    places = np.concatenate([roots_mm, points_mm]).astype(float)
    count, roots = len(places), len(roots_mm)
    parents, ways_mm = np.full(count, -1, np.intp), np.zeros(count)
    children: list[list[int]] = [[] for _ in range(count)]
    has_room, waits = np.arange(count) < roots, np.arange(count) >= roots
    costs, nearest = np.full(count, np.inf), np.zeros(count, np.intp)
    for root in range(roots):
        _offer(root, places, ways_mm, straight, waits, costs, nearest)
    order: list[int] = []
    while waits.any():
        point = int(np.where(waits, costs, np.inf).argmin())
        above = int(nearest[point])
        if not has_room[above]:
            rows = np.flatnonzero(has_room)
            each = np.linalg.norm(places[rows] - places[point], axis=1) + straight * ways_mm[rows]
            costs[point], nearest[point] = each.min(), rows[each.argmin()]
            continue
        parents[point] = above
        children[above].append(point)
        has_room[above] = len(children[above]) < MOST_CHILDREN
        ways_mm[point] = ways_mm[above] + float(np.linalg.norm(places[point] - places[above]))
        has_room[point], waits[point] = True, False
        order.append(point)
        _offer(point, places, ways_mm, straight, waits, costs, nearest)
    served = np.ones(count, np.int64)
    for point in reversed(order):
        served[parents[point]] += served[point]
    return Connected(places, parents, order, children, served)


def _offer(
    node: int,
    places: Points,
    ways_mm: NDArray[np.float64],
    straight: float,
    waits: NDArray[np.bool_],
    costs: NDArray[np.float64],
    nearest: NDArray[np.intp],
) -> None:
    """Take down a node of the tree for those waiting points that it would cost less than what they have, in place."""
    rows = np.flatnonzero(waits)
    each = np.linalg.norm(places[rows] - places[node], axis=1) + straight * ways_mm[node]
    better = each < costs[rows]
    costs[rows[better]], nearest[rows[better]] = each[better], node
