"""The trachea followed from above: ragged ones made solid, flat ones with one line in their middle."""

import numpy as np
import pytest
from phantoms import Tube, a_forked_tree, draw_tubes

from AirwaySegLib.files.volume import Volume
from AirwaySegLib.masks.sparse_mask import Lumen
from AirwaySegLib.tree import build
from AirwaySegLib.tree.airway_tree import LEFT_MAIN, RIGHT_MAIN, TRACHEA
from AirwaySegLib.tree.build import parse_airways
from AirwaySegLib.tree.mask_trachea import Trunk, find_trunk

SHAPE, ONE = (200, 80, 180), (1.0, 1.0, 1.0)


def a_tree() -> np.ndarray:
    return draw_tubes(a_forked_tree(), SHAPE, ONE)


def trunk_of(mask: np.ndarray) -> Trunk | None:
    return find_trunk(mask, ONE, float(Lumen.of(mask, ONE).wall_mm.max()))


def test_the_trunk_is_the_trachea_down_to_just_above_the_carina():
    mask = a_tree()
    trunk = trunk_of(mask)
    assert trunk.box[0].stop == 196 and 105 <= trunk.box[0].start <= 120
    assert np.array_equal(trunk.mask, mask[trunk.box])
    assert not (trunk.rod & ~trunk.mask).any() and trunk.rod[40, 40 - trunk.box[1].start, 90 - trunk.box[2].start]
    assert 0.05 < trunk.rod.sum() / trunk.mask.sum() < 0.25


def test_crescents_hollows_and_torn_slices_become_solid():
    whole = a_tree()
    ragged = whole.copy()
    ragged[165:, 37:44, 87:94] = False  # hollow
    ragged[180:, 40:, 88:93] = False  # and open to the back
    ragged[150:155, :, 88:93] = False  # torn in two
    trunk = trunk_of(ragged)
    mended = ragged.copy()
    mended[trunk.box] |= trunk.mask
    assert (whole & ~mended).sum() < 0.03 * whole[150:].sum()
    tree = parse_airways(Volume(ragged, ONE)).tree
    (trachea,) = tree.named(TRACHEA)
    assert len(tree.branches) == 7 and tree.loops_cut == 0
    assert trachea.length_mm == pytest.approx(85, abs=4)
    assert trachea.mean_diameter_mm == pytest.approx(16, abs=0.8)


@pytest.mark.parametrize(("deep_mm", "wide_mm"), [(6, 18), (8, 22), (12, 18), (18, 12), (22, 8)])
def test_a_flattened_trachea_is_one_branch_with_its_line_in_the_middle(deep_mm, wide_mm):
    mask = a_tree()
    y, x = np.ogrid[: SHAPE[1], : SHAPE[2]]
    ellipse = ((y - 40) / (deep_mm / 2)) ** 2 + ((x - 90) / (wide_mm / 2)) ** 2 <= 1
    mask[116:] = False
    mask[116:196] = ellipse
    tree = parse_airways(Volume(mask, ONE)).tree
    (trachea,) = tree.named(TRACHEA)
    assert len(tree.branches) == 7
    assert tree.named(RIGHT_MAIN) and tree.named(LEFT_MAIN)
    upper = trachea.points_mm[trachea.points_mm[:, 2] > 130]
    assert np.abs(upper[:, :2] - [90, 40]).max() < 1
    round_mm = np.sqrt(deep_mm * wide_mm)
    assert trachea.mean_diameter_mm == pytest.approx(round_mm, rel=0.12)
    assert trachea.min_diameter_mm > 0.7 * round_mm


def test_gas_of_the_oesophagus_behind_the_trachea_stays_a_piece_of_its_own():
    z, y, x = np.indices((96, 80, 80))
    trachea, oesophagus = (np.hypot(y - 40, x - 40) < 8) & (z > 5), (np.hypot(y - 53, x - 40) < 3) & (z > 20) & (z < 80)
    tree = parse_airways(Volume(trachea | oesophagus, ONE)).tree
    assert [branch.component for branch in tree.branches] == [1, 2]


def test_a_voxel_more_at_a_far_tip_changes_nothing_that_the_trachea_is_found_by():
    mask = a_tree() & (np.random.default_rng(1).random(SHAPE) < 0.97)
    lowest, middle, leftmost = np.argwhere(mask)[0]
    before = build.largest_radius_mm(Lumen.of(mask, ONE))
    for count in (1, 2, 3):
        mask[lowest, middle, leftmost - count] = True
        assert build.largest_radius_mm(Lumen.of(mask, ONE)) == before
    assert before == pytest.approx(float(Lumen.of(mask, ONE).wall_mm.max()), rel=0.15)


def test_a_bronchus_that_leaves_the_trachea_stays_a_branch():
    mask = a_tree() | draw_tubes([Tube((150, 40, 90), (140, 40, 50), 3, 2.5)], SHAPE, ONE)
    tree = parse_airways(Volume(mask, ONE)).tree
    assert len(tree.branches) == 9
    end = min(tree.branches, key=lambda branch: float(np.linalg.norm(branch.points_mm[-1] - [50, 40, 140])))
    assert not end.children and tree.branch(end.parent).name == TRACHEA
    assert end.mean_diameter_mm == pytest.approx(5.5, abs=0.5)


@pytest.mark.parametrize("radius_mm", [1.5, 2.0, 3.0])
def test_a_short_bronchus_of_the_trachea_is_a_branch_and_a_bump_is_none(radius_mm):
    for beyond_mm, count in ((1.5, 7), (9, 9)):
        mask = a_tree() | draw_tubes(
            [Tube((150, 40, 90), (147, 40, 82 - beyond_mm), radius_mm, radius_mm, False)], SHAPE, ONE
        )
        tree = parse_airways(Volume(mask, ONE)).tree
        assert len(tree.branches) == count
    end = min(tree.branches, key=lambda branch: float(np.linalg.norm(branch.points_mm[-1] - [73, 40, 147])))
    assert end.points_mm[-1] == pytest.approx([73, 40, 147], abs=4) and tree.branch(end.parent).name == TRACHEA


@pytest.mark.parametrize("wide", [2, 3])
def test_a_thin_column_is_one_branch_of_its_length(wide):
    mask = np.zeros((38, 14, 14), np.uint8)
    mask[4:34, 4 : 4 + wide, 4 : 4 + wide] = 1
    (branch,) = parse_airways(Volume(mask, (1.0, 0.7, 0.7))).tree.branches
    assert 26 <= branch.length_mm <= 30


def test_a_trachea_that_leans_backwards_is_followed():
    tubes = a_forked_tree()
    tubes[0] = Tube((195, 0, 90), (110, 40, 90), 8, 8)
    mask = draw_tubes(tubes, SHAPE, ONE)
    assert len(trunk_of(mask).mask) > 50


@pytest.mark.parametrize(
    "tubes",
    [
        [Tube((70, 20, 14), (20, 20, 20), 2, 2), Tube((70, 20, 26), (20, 20, 20), 2, 2)],
        [Tube((70, 20, 4), (10, 20, 60), 6, 6)],
        [Tube((22, 20, 20), (15, 20, 20), 8, 8)],
    ],
    ids=["two prongs", "oblique bronchus", "short"],
)
def test_what_is_no_trachea_is_left_to_thinning(tubes):
    assert trunk_of(draw_tubes(tubes, (80, 40, 70), ONE)) is None


def test_an_upper_airway_that_bends_forward_has_one_root():
    tubes = [Tube((195, 40, 90), (215, 50, 90), 8, 8), Tube((215, 50, 90), (215, 85, 90), 8, 8)]
    tree = parse_airways(Volume(draw_tubes([*a_forked_tree(), *tubes], (230, 100, 180), ONE), ONE)).tree
    assert len(tree.roots()) == 1
    assert tree.named(TRACHEA) and tree.carina_mm == pytest.approx((90, 40, 109), abs=5)


@pytest.mark.parametrize("spacing_mm", [(1.25, 0.7, 0.7), (2.0, 0.7, 0.7), (2.5, 0.6, 0.6), (1.0, 1.0, 2.2)])
def test_long_voxels_do_not_move_the_carina(spacing_mm):
    shape = tuple(int(np.ceil(size / mm)) for size, mm in zip(SHAPE, spacing_mm, strict=True))
    tree = parse_airways(Volume(draw_tubes(a_forked_tree(), shape, spacing_mm), spacing_mm)).tree
    (right,) = tree.named(RIGHT_MAIN)
    assert len(tree.branches) == 7 and tree.loops_cut == 0
    assert tree.carina_mm == pytest.approx((90, 40, 110), abs=4)
    assert right.length_mm == pytest.approx(47.2, abs=4)
    assert right.angle_deg == pytest.approx(58, abs=7)


def test_what_was_not_seen_changes_no_trachea():
    mask = draw_tubes([Tube((90, 40, 40), (5, 40, 40), 8, 8)], (96, 80, 80), ONE) > 0
    trunk = trunk_of(mask)
    beside, far = np.array([[50, 40, 52]], np.int32), np.array([[50, 40, 78]], np.int32)
    assert trunk.has_seen(beside) and not trunk.has_seen(far) and not trunk.has_seen(far[:0])
    mask[50, 40, 78] = True
    assert np.array_equal(trunk_of(mask).mask, trunk.mask)
