"""Lines of a skeleton: loops cut, roots, spurs, forks, smoothing."""

import numpy as np
import pytest
from phantoms import Tube, draw_tubes

from AirwaySegLib.masks.sparse_mask import Lumen
from AirwaySegLib.tree.centerline import (
    contract,
    courses_of,
    grow_forest,
    lines_of,
    loops_in,
    reaching_the_end,
    rooted_at_a_tip,
    smooth,
)
from AirwaySegLib.tree.skeleton import completed, thinned
from AirwaySegLib.tree.spurs import prune

ONE = (1.0, 1.0, 1.0)


def forest_of(mask: np.ndarray, spacing_mm: tuple = ONE):
    lumen = Lumen.of(mask, spacing_mm)
    return grow_forest(lumen, completed(thinned(lumen), lumen)), lumen


def drawn_line(*voxels: tuple[int, int, int], shape: tuple = (20, 20, 20)) -> Lumen:
    mask = np.zeros(shape, bool)
    mask[tuple(np.array(voxels).T)] = True
    return Lumen.of(mask, ONE)


def test_a_line_has_no_loop_a_ring_one_and_an_eight_two():
    line = [(5, 5, x) for x in range(3, 12)]
    ring = [(5, y, x) for y in range(3, 9) for x in range(3, 9) if y in (3, 8) or x in (3, 8)]
    eight = ring + [(5, y, x) for y in range(8, 14) for x in range(3, 9) if y in (8, 13) or x in (3, 8)]
    assert [loops_in(drawn_line(*voxels)) for voxels in (line, ring, eight)] == [0, 1, 2]


def test_a_clique_at_a_fork_is_no_loop():
    fork = [(5, 5, x) for x in range(3, 9)] + [(5, 6, 9), (5, 4, 9), (5, 5, 9), (5, 7, 10), (5, 3, 10)]
    assert loops_in(drawn_line(*fork)) == 0


def a_ring_with_a_narrow_place() -> np.ndarray:
    """A stem from above that parts and joins again; the left arm is thin."""
    tubes = [Tube((58, 20, 30), (40, 20, 30), 4, 4), Tube((40, 20, 30), (25, 20, 45), 3, 3)]
    tubes += [Tube((25, 20, 45), (10, 20, 30), 3, 3), Tube((40, 20, 30), (25, 20, 15), 3, 3)]
    tubes += [Tube((25, 20, 15), (10, 20, 30), 1.2, 1.2), Tube((10, 20, 30), (2, 20, 30), 3, 3)]
    return draw_tubes(tubes, (62, 40, 60), ONE)


def test_a_loop_is_cut_once_and_where_it_is_narrowest():
    forest, lumen = forest_of(a_ring_with_a_narrow_place())
    assert forest.loops == 1
    assert (forest.parent < 0).sum() == 1
    # Neighbouring skeleton voxels that the tree does not join directly lie in the narrow arm or at a fork.
    tips = np.flatnonzero(forest.children_count() == 0)
    places = lumen.places_mm[forest.rows[tips]]
    in_arm = (np.abs(places[:, 0] - 17) < 9) & (places[:, 2] < 28)
    assert in_arm.any()


def test_the_root_is_the_upper_end_of_what_is_thick():
    thin_but_higher = Tube((20, 20, 25), (58, 20, 55), 1.5, 1.5)
    mask = draw_tubes([Tube((50, 20, 20), (20, 20, 20), 7, 7), thin_but_higher], (62, 40, 62), ONE)
    forest, lumen = forest_of(mask)
    root = lumen.places_mm[forest.rows[forest.parent < 0][0]]
    assert root[0] > 38 and np.abs(root[1:] - 20).max() <= 1


def test_a_root_between_two_ends_moves_to_the_upper_one_and_fragments_keep_theirs():
    # The trachea is thickest in its lower half, and a thin end stands above.
    trachea = [Tube((30, 30, 30), (20, 30, 30), 7, 7), Tube((55, 30, 30), (30, 30, 30), 2.5, 2.5)]
    branches = [Tube((20, 30, 30), (5, 30, 55), 3, 3), Tube((20, 30, 30), (5, 30, 5), 3, 3)]
    mask = draw_tubes([Tube((3, 5, 5), (3, 5, 12), 1, 1), *trachea, *branches], (62, 62, 62), ONE)
    forest, lumen = forest_of(mask)
    forest, _ = prune(forest, lumen)
    moved = rooted_at_a_tip(forest, lumen)
    roots = np.flatnonzero(moved.parent < 0)
    heights = sorted(lumen.places_mm[moved.rows[roots], 0].tolist())
    assert len(roots) == 2 and heights[0] <= 4 and heights[1] > 50
    assert sorted(moved.rows) == sorted(forest.rows)
    assert (moved.parent < np.arange(len(moved.parent))).all()


def test_a_bump_is_a_spur_and_a_branch_is_not():
    trunk = Tube((58, 20, 20), (2, 20, 20), 5, 5)
    bump, branch = Tube((30, 20, 24), (30, 20, 27), 1.5, 1.5), Tube((30, 20, 20), (22, 20, 40), 1.5, 1.5)
    counts = []
    for extra in ([], [bump], [branch], [bump, branch]):
        forest, lumen = forest_of(draw_tubes([trunk, *extra], (62, 40, 48), ONE))
        forest, _ = prune(forest, lumen)
        counts.append(int((forest.children_count() == 0).sum()))
    assert counts == [1, 1, 2, 2]


def test_three_branches_from_one_place_make_one_fork():
    stem = Tube((58, 30, 30), (35, 30, 30), 5, 5)
    ends = [(10, 30, 55), (10, 52, 18), (10, 8, 18)]
    mask = draw_tubes([stem, *(Tube((35, 30, 30), end, 3, 3) for end in ends)], (62, 62, 62), ONE)
    forest, lumen = forest_of(mask)
    forest, _ = prune(forest, lumen)
    courses = contract(courses_of(forest), forest, lumen)
    assert [course.parent for course in courses] == [-1, 0, 0, 0]
    assert len({int(course.nodes[0]) for course in courses[1:]}) == 1


def test_smoothing_keeps_ends_and_straight_lines_and_removes_a_zigzag():
    straight = np.linspace([0.0, 1.0, 2.0], [10.0, 5.0, -3.0], 21)
    assert smooth(straight, 2.0) == pytest.approx(straight)
    zigzag = straight + np.where(np.arange(21) % 2, 0.3, -0.3)[:, None] * [0.0, 1.0, 0.0]
    smoothed = smooth(zigzag, 2.0)
    assert smoothed[[0, -1]].tolist() == zigzag[[0, -1]].tolist()
    assert np.abs(smoothed - straight)[4:-4].max() < 0.02


def test_the_line_of_an_even_tube_runs_through_its_middle():
    mask = np.zeros((40, 12, 12), bool)
    mask[2:38, 3:9, 3:9] = True  # the middle is at 5.5
    forest, lumen = forest_of(mask)
    forest, _ = prune(forest, lumen)
    (line,) = lines_of(courses_of(forest), forest, lumen)
    assert np.abs(line[8:-8, 1:] - 5.5).max() < 0.15


def test_a_line_is_drawn_on_to_the_flat_end_but_not_into_the_rounding_of_a_tip():
    flat = draw_tubes([Tube((50, 20, 20), (10, 20, 20), 6, 6, round_ends=False)], (60, 40, 40), ONE)
    start = np.column_stack([np.arange(40.0, 20, -1), np.full(20, 20.0), np.full(20, 20.0)])
    reached = reaching_the_end(start, Lumen.of(flat, ONE), leave_radii=0)
    assert 48.5 <= reached[0, 0] <= 50 and np.array_equal(reached[-20:], start)
    rounded = draw_tubes([Tube((44, 20, 20), (10, 20, 20), 6, 6)], (60, 40, 40), ONE)
    reached = reaching_the_end(start, Lumen.of(rounded, ONE), leave_radii=1)
    assert 42.5 <= reached[0, 0] <= 45
