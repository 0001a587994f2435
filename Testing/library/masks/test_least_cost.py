"""The cheapest way: that of the whole grid, though only a box round its start is searched where that is enough."""

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from AirwaySegLib.masks import least_cost
from AirwaySegLib.masks.least_cost import cheapest_way

SPACING_MM = (1.0, 0.5, 2.0)


def price(cost: np.ndarray, way: np.ndarray) -> float:
    """What a way costs: each step the mean of its two voxels for each mm."""
    steps_mm = np.linalg.norm(np.diff(way, axis=0) * SPACING_MM, axis=1)
    assert (np.abs(np.diff(way, axis=0)).max(axis=1) == 1).all()
    along = cost[tuple(way.T)].astype(float)
    return float((steps_mm * (along[1:] + along[:-1]) / 2).sum())


def least(cost: np.ndarray, start: np.ndarray, stops: np.ndarray) -> float:
    """The price of the cheapest way by another program, over the whole grid."""
    number, rows = np.arange(cost.size).reshape(cost.shape), []
    for step in [step for step in np.ndindex(3, 3, 3) if step > (1, 1, 1)]:
        one = tuple(slice(max(0, 1 - s), min(n, n + 1 - s)) for s, n in zip(step, cost.shape, strict=True))
        other = tuple(slice(max(0, s - 1), min(n, n + s - 1)) for s, n in zip(step, cost.shape, strict=True))
        length = np.linalg.norm((np.array(step) - 1) * SPACING_MM)
        rows.append((number[one].ravel(), number[other].ravel(), (length * (cost[one] + cost[other]) / 2).ravel()))
    first, second, weights = (np.concatenate(part) for part in zip(*rows, strict=True))
    open_ = np.isfinite(weights)
    graph = coo_array((weights[open_], (first[open_], second[open_])), shape=(cost.size, cost.size)).tocsr()
    return float(dijkstra(graph, directed=False, indices=number[tuple(start)])[number[tuple(stops.T)]].min())


@pytest.mark.parametrize("seed", range(4))
def test_a_way_costs_the_least_that_it_can_in_the_whole_grid(seed, monkeypatch):
    monkeypatch.setattr(least_cost, "_REACH", 2)
    rng = np.random.default_rng(seed)
    cost = np.where(rng.random((14, 16, 18)) < 0.3, np.inf, rng.random((14, 16, 18)) ** 4 + 0.01).astype(np.float32)
    start, stops = np.array([7, 8, 9]), rng.integers(0, cost.shape, (6, 3))
    cost[tuple(start)] = cost[tuple(stops.T)] = 0.1
    way = cheapest_way(cost, start[None], stops, SPACING_MM)
    assert (way[0] == start).all() and (way[-1] == stops).all(axis=1).any()
    assert price(cost, way) == pytest.approx(least(cost, start, stops), rel=1e-6)


def test_a_way_that_leaves_the_first_box_is_found_where_it_is_cheaper():
    cost = np.full((5, 5, 120), 1.0, np.float32)
    cost[2, 2, :60] = 0.01
    way = cheapest_way(cost, np.array([[2, 2, 50]]), np.array([[2, 2, 65], [2, 2, 2]]), SPACING_MM)
    assert way[-1].tolist() == [2, 2, 2] and len(way) == 49


def test_nothing_leads_through_a_wall_and_only_a_box_is_searched_where_that_is_enough(monkeypatch):
    monkeypatch.setattr(least_cost, "_REACH", 6)
    cost = np.ones((30, 30, 30), np.float32)
    start, beside, far = np.array([[15, 15, 15]]), np.array([[15, 19, 15]]), np.array([[15, 29, 15]])
    searched, search = [], least_cost._search()
    monkeypatch.setattr(
        least_cost, "_search", lambda: lambda part, **more: searched.append(part.size) or search(part, **more)
    )
    assert len(cheapest_way(cost, start, beside, SPACING_MM)) == 5
    assert searched == [13**3]
    cost[:, 25] = np.inf
    assert cheapest_way(cost, start, far, SPACING_MM) is None
    assert searched[-1] == cost.size
