"""Trees that serve points: short ones, straight ones, forks as vessels have them."""

import numpy as np
import pytest
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from AirwaySegTraining.simulator import growth
from AirwaySegTraining.simulator.growth import Branch, grow, total_length_mm
from AirwaySegTraining.simulator.space_filling import connect

ROOT = np.zeros((1, 3))


@pytest.fixture
def some_points() -> np.ndarray:
    """Points in half a ball of 80 mm, to the left of the root."""
    points = np.random.default_rng(3).uniform(-80, 80, (1200, 3))
    points[:, 2] = np.abs(points[:, 2])
    return points[np.linalg.norm(points, axis=1) < 80]


def lengths_mm(nodes) -> np.ndarray:
    return np.linalg.norm(nodes.points_mm[nodes.order] - nodes.points_mm[nodes.parents[nodes.order]], axis=1)


def test_every_point_is_served_once_and_has_two_children_at_most(some_points):
    nodes = connect(ROOT, some_points, 0.5)
    assert sorted(nodes.order) == list(range(1, len(some_points) + 1))
    assert nodes.served[0] == len(some_points) + 1
    assert max(len(own) for own in nodes.children) == 2
    seen = {0}
    for node in nodes.order:
        assert nodes.parents[node] in seen
        seen.add(node)


def test_without_regard_to_the_way_the_tree_is_about_the_shortest(some_points):
    shortest = minimum_spanning_tree(cdist(*2 * [np.concatenate([ROOT, some_points])])).sum()
    assert shortest <= lengths_mm(connect(ROOT, some_points, 0.0)).sum() < 1.03 * shortest


def test_the_more_the_way_counts_the_straighter_the_ways_and_the_longer_the_tree(some_points):
    far_mm = np.linalg.norm(some_points, axis=1)
    detours, totals = [], []
    for straight in (0.0, 0.3, 0.9):
        nodes = connect(ROOT, some_points, straight)
        ways = np.zeros(len(nodes.points_mm))
        for node, step in zip(nodes.order, lengths_mm(nodes), strict=True):
            ways[node] = ways[nodes.parents[node]] + step
        detours.append(float(np.mean(ways[1:] / far_mm)))
        totals.append(float(lengths_mm(nodes).sum()))
    assert detours == sorted(detours, reverse=True) and detours[-1] < 0.7 * detours[0]
    assert totals == sorted(totals)


def test_each_of_several_roots_gets_the_points_around_it():
    roots = np.array([[0.0, 0, 0], [0, 0, 100]])
    points = np.random.default_rng(1).normal(scale=8, size=(60, 3)) + np.repeat(roots, 30, axis=0)
    nodes = connect(roots, points, 0.5)
    assert nodes.served[:2].tolist() == [31, 31]


def a_trunk() -> list[Branch]:
    line = np.linspace([0.0, 0, -20], [0.0, 0, 0], 11)
    return [Branch(line, np.full(11, 4.0), -1, 0)]


def test_a_grown_tree_reaches_all_points_and_its_radii_follow_what_they_serve(some_points):
    tree = grow(a_trunk(), some_points, 0.0, np.random.default_rng(2))
    lines = cKDTree(np.concatenate([branch.points_mm for branch in tree]))
    assert np.quantile(lines.query(some_points)[0], 0.95) < 6
    for branch in tree[1:]:
        parent = tree[branch.parent]
        assert np.allclose(branch.points_mm[0], parent.points_mm[-1])
        assert branch.radii_mm[0] < 1.1 * parent.radii_mm[-1]
        assert branch.generation == parent.generation + 1
    thick = grow(a_trunk(), some_points, 1.0, np.random.default_rng(2))
    assert 1 < len(thick) < len(tree) / 3


def test_each_node_of_a_branch_lies_at_its_share_of_the_way():
    nodes = np.array([[0.0, 0, 0], [1, 0, 0], [1.05, 0, 0], [20, 0, 0]])
    line, along, shares = growth._smooth_line(nodes, np.random.default_rng(0))
    assert shares == pytest.approx([0, 0.05, 0.0525, 1]) and len(line) == len(along) == 11
    assert growth._smooth_line(nodes[:1].repeat(2, axis=0), np.random.default_rng(0))[2].tolist() == [0, 1]


def test_forks_move_so_that_the_tree_has_less_volume(some_points, monkeypatch):
    def volume_mm3() -> float:
        tree = grow(a_trunk(), some_points, 0.0, np.random.default_rng(0))
        return sum(total_length_mm([branch]) * np.pi * float((branch.radii_mm**2).mean()) for branch in tree)

    balanced = volume_mm3()
    monkeypatch.setattr(growth, "BALANCE_STEPS", 0)
    assert balanced < 0.9 * volume_mm3()
