"""Which lines are branches: lumens that are not round, short branches, what cut loops leave."""

import numpy as np
import pytest
from not_round import CARINA, HILUM, SECTIONS, a_fork_with, a_trachea_with, a_trachea_with_a_bronchus, grid
from phantoms import Tube, a_forked_tree, draw_section, draw_tubes, ellipse

from AirwaySegLib.files.volume import Volume
from AirwaySegLib.masks.sparse_mask import Lumen
from AirwaySegLib.tree.airway_tree import AirwayTree
from AirwaySegLib.tree.build import parse_airways
from AirwaySegLib.tree.known_parts import KnownParts
from AirwaySegLib.tree.spurs import LEAST_RIB_VOXELS, RIB_VOXELS, _Judge

ONE = (1.0, 1.0, 1.0)


def tree_of(mask: np.ndarray, spacing_mm: tuple) -> AirwayTree:
    return parse_airways(Volume(mask, spacing_mm)).tree


@pytest.mark.parametrize(
    ("name", "wide", "spacing_mm", "with_lobes"),
    [
        *[pytest.param(name, (0, 1, 0), ONE, False, id=f"{name}, front to back") for name in SECTIONS],
        *[
            pytest.param(name, (1, 0.2, 0.6), (1.25, 0.7, 0.7), True, id=f"{name}, up and down")
            for name in SECTIONS
            if not name.startswith(("sharp", "crescent of 11"))
        ],
        *[
            pytest.param(name, (0, side, 0), ONE, True, id=f"{name}, open {where}")
            for name in SECTIONS
            if "crescent" in name
            for side, where in ((1, "below"), (-1, "above"))
        ],
    ],
)
def test_a_bronchus_that_is_not_round_is_one_branch(name, wide, spacing_mm, with_lobes):
    tree = tree_of(a_fork_with(SECTIONS[name], wide, spacing_mm, with_lobes), spacing_mm)
    assert len(tree.branches) == (5 if with_lobes else 3)


def test_a_stub_of_a_loose_piece_or_of_the_trachea_needs_to_stand_out_by_less_than_one_of_the_tree():
    wide, thin, loose = (Tube((25, y, 2), (25, y, 78), r, r) for y, r in ((22, 9), (33, 3), (60, 3)))
    lumen = Lumen.of(draw_tubes([wide, thin, loose], (50, 80, 80), ONE), ONE)
    judge = _Judge(lumen, thick=7.0, parts=KnownParts())
    rows = [int(lumen.rows_of(np.array([[25, y, 40]]))[0]) for y in (22, 33, 60)]
    assert [lumen.components[row] for row in rows] == [0, 0, 1]
    assert [judge._rib_mm(row) for row in rows] == [LEAST_RIB_VOXELS, RIB_VOXELS, LEAST_RIB_VOXELS]


@pytest.mark.parametrize("radius_mm", [5.0, 6.0])
def test_a_main_bronchus_cut_off_one_diameter_beyond_the_trachea_stays(radius_mm):
    length_mm = 7 * np.sqrt(2) + 2.2 * radius_mm  # within the trachea, and beyond its wall
    end = np.subtract(CARINA, [length_mm / np.sqrt(2), 0, length_mm / np.sqrt(2)])
    tubes = [
        Tube((88, 20, 46), CARINA, 7, 7, round_ends=False),
        Tube(CARINA, tuple(end), radius_mm, radius_mm, round_ends=False),
        Tube(CARINA, HILUM, 5, 5),
        Tube(HILUM, (35, 18, 96), 2.5, 2),
        Tube(HILUM, (4, 28, 88), 3, 2.5),
    ]
    tree = tree_of(draw_tubes(tubes, grid(ONE), ONE), ONE)
    assert len(tree.branches) == 5
    assert min(np.linalg.norm(branch.points_mm[-1][::-1] - end) for branch in tree.branches) < 1.5 * radius_mm


@pytest.mark.parametrize("name", ["ellipse 2 to 1", "ellipse 3 to 1", "sabre", "D"])
def test_a_trachea_that_is_not_round_is_one_branch(name):
    spacing_mm = (1.0, 0.7, 0.7)
    mask = a_trachea_with(SECTIONS[name], (0, 0.3, 1), spacing_mm)
    assert len(tree_of(mask, spacing_mm).branches) == 3


def test_a_trachea_that_is_a_sharp_crescent_is_one_branch():
    mask = a_trachea_with(SECTIONS["sharp crescent of 6 mm"], (0, 0.3, 1), ONE)
    assert len(tree_of(mask, ONE).branches) == 3


def test_a_tree_whose_trachea_is_a_narrow_crescent_begins_at_the_trachea():
    spacing_mm = (1.25, 0.7, 0.7)
    tree = tree_of(a_trachea_with(SECTIONS["crescent of 7 mm"], (0, 0.3, 1), spacing_mm), spacing_mm)
    assert len(tree.branches) == 3 and tree.branches[0].points_mm[0, 2] > 84


def test_a_branch_in_line_with_the_edge_of_a_crescent_stays():
    mask = a_fork_with(SECTIONS["crescent of 11 mm"], (-1, -0.2, -0.6), ONE, with_lobes=True)
    assert len(tree_of(mask, ONE).branches) == 5


@pytest.mark.parametrize(("radius_mm", "beyond_mm"), [(0, 0), (2, 6), (3, 8), (4, 10), (4, 12)])
def test_a_short_bronchus_of_the_trachea_stays(radius_mm, beyond_mm):
    spacing_mm = (1.0, 0.8, 0.8)
    for down_deg in (20, 45):
        tree = tree_of(a_trachea_with_a_bronchus(radius_mm, beyond_mm, down_deg, spacing_mm), spacing_mm)
        assert len(tree.branches) == (5 if radius_mm else 3)


@pytest.mark.parametrize("radius_mm", [1.5, 2.5])
@pytest.mark.parametrize("towards", [(0, 1, 0), (-1, 0, 0), (-0.5, 0.87, 0), (-0.8, 0, 0.6)], ids=str)
def test_a_short_branch_of_a_flat_bronchus_stays(towards, radius_mm):
    shape, middle, way = (60, 70, 80), np.array([30.0, 32.0, 40.0]), np.array(towards)
    mask = draw_section(ellipse(9, 4.5), Tube((30, 32, 2), (30, 32, 78), 1, 1), (0, 1, 0), shape, ONE)
    to_wall_mm = 1 / np.hypot(way[0] / 4.5, way[1] / 9)
    end = middle + (to_wall_mm + 4 * radius_mm) * way
    with_branch = mask | draw_tubes([Tube(tuple(middle), tuple(end), radius_mm, radius_mm)], shape, ONE)
    assert len(tree_of(mask, ONE).branches) == 1
    tree = tree_of(with_branch, ONE)
    assert len(tree.branches) == 3
    assert min(np.linalg.norm(branch.points_mm[-1][::-1] - end) for branch in tree.branches) < 3


@pytest.mark.parametrize("radius_mm", [1.0, 1.5])
def test_a_thin_branch_up_through_thick_slices_stays(radius_mm):
    shape, spacing_mm = (20, 60, 115), (3.0, 0.7, 0.7)
    mask = draw_section(ellipse(8, 4.5), Tube((25, 21, 2), (25, 21, 78), 1, 1), (0, 1, 0), shape, spacing_mm)
    branch = Tube((25, 21, 40), (36.5, 21, 40), radius_mm, 0.6 * radius_mm)
    tree = tree_of(mask | draw_tubes([branch], shape, spacing_mm), spacing_mm)
    assert len(tree_of(mask, spacing_mm).branches) == 1 and len(tree.branches) == 3


def test_a_flat_branch_that_is_longer_than_wide_stays():
    shape = (70, 60, 60)
    mask = draw_tubes([Tube((68, 20, 30), (2, 20, 30), 6, 6)], shape, ONE)
    mask |= draw_section(ellipse(6, 2.5), Tube((35, 20, 30), (35, 50, 30), 1, 1), (1, 0, 0), shape, ONE)
    assert len(tree_of(mask, ONE).branches) == 3


@pytest.mark.parametrize(("radius_mm", "spacing_mm"), [(1.0, ONE), (1.5, ONE)])
def test_nothing_is_left_of_a_bar_between_two_bronchi(radius_mm, spacing_mm):
    tubes = a_forked_tree()
    upper, lower = (
        np.add(tube.start_mm, part * np.subtract(tube.end_mm, tube.start_mm))
        for tube, part in ((tubes[2], 0.6), (tubes[3], 0.4))
    )
    shape = tuple(int(np.ceil(size / mm)) for size, mm in zip((200, 80, 180), spacing_mm, strict=True))
    bar = Tube(tuple(upper), tuple(lower), radius_mm, radius_mm)
    tree = tree_of(draw_tubes([*tubes, bar], shape, spacing_mm), spacing_mm)
    assert tree.loops_cut >= 1
    assert sorted(branch.generation for branch in tree.branches) == [0, 1, 1, 2, 2, 2, 2]


def test_a_branch_whose_tip_touches_another_stays():
    tubes = a_forked_tree()
    on_lower = np.add(tubes[3].start_mm, 0.5 * np.subtract(tubes[3].end_mm, tubes[3].start_mm))
    on_main = np.add(tubes[1].start_mm, 0.4 * np.subtract(tubes[1].end_mm, tubes[1].start_mm))
    tip = on_lower + 5.5 * (on_main - on_lower) / np.linalg.norm(on_main - on_lower)
    touching = [Tube(tuple(on_main), tuple(tip), 2.5, 2.2), Tube(tuple(tip), tuple(on_lower), 0.8, 0.8)]
    tree = tree_of(draw_tubes([*tubes, *touching], (200, 80, 180), ONE), ONE)
    assert tree.loops_cut >= 1 and len(tree.branches) == 9
