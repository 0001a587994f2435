"""The threshold: a leak that opens below 0.7 is kept out, wide lumens stay whole, without a trachea parts are kept."""

import numpy as np
import pytest

from AirwaySegLib.masks.components import label_components
from AirwaySegLib.masks.threshold import SMALLEST_FRAGMENT_VOXELS, choose_airways, loose_fragments

ISOTROPIC = (1.0, 1.0, 1.0)
SEEDS = np.array([[60, 20, 20]])


@pytest.fixture
def a_tree_map() -> np.ndarray:
    """A wide tube along z with a soft shell, and a thin bar that leaves it; probability 0..255."""
    probability = np.zeros((70, 60, 60), np.uint8)
    y, x = np.indices((60, 60))
    radius = np.hypot(y - 20, x - 20)
    probability[5:65, radius <= 7] = 140
    probability[5:65, radius <= 5] = 250
    probability[30, 19:22, 20:50] = 240
    return probability


def test_the_lowest_threshold_is_taken_where_nothing_leaks(a_tree_map):
    choice = choose_airways(a_tree_map, ISOTROPIC, SEEDS, None)
    assert choice.threshold == 0.35 and choice.warnings == []
    assert choice.mask.sum() == np.count_nonzero(a_tree_map)


def test_a_leak_raises_the_threshold_but_the_wide_lumen_stays_whole(a_tree_map):
    a_tree_map[20:50, 30:55, 35:58] = np.maximum(a_tree_map[20:50, 30:55, 35:58], 150)
    a_tree_map[30, 19:35, 40] = np.maximum(a_tree_map[30, 19:35, 40], 150)
    choice = choose_airways(a_tree_map, ISOTROPIC, SEEDS, None)
    assert choice.threshold == 0.6
    assert label_components(choice.mask).max() == 1
    assert not choice.mask[35, 45, 50]
    assert choice.mask[30, 20, 45]
    assert choice.mask[40, 20, 26] and a_tree_map[40, 20, 26] == 140


def test_a_branch_that_a_weak_neck_joins_is_no_leak(a_tree_map):
    a_tree_map[10:60, 19:22, 50:56] = 240  # a long branch behind the bar...
    a_tree_map[30, 19:22, 30:32] = 140  # ...whose neck is weak
    choice = choose_airways(a_tree_map, ISOTROPIC, SEEDS, None)
    assert choice.threshold == 0.35 and choice.mask[50, 20, 53]


def test_wide_air_beside_the_tree_is_not_joined_to_it(a_tree_map):
    a_tree_map[20:50, 30:55, 35:58] = np.maximum(a_tree_map[20:50, 30:55, 35:58], 150)
    a_tree_map[30, 19:35, 40] = np.maximum(a_tree_map[30, 19:35, 40], 150)
    a_tree_map[10:60, 29:37, 14:22] = 140  # a gullet full of gas, two voxels off the trachea's wall
    a_tree_map[12, 27:29, 18] = 140
    choice = choose_airways(a_tree_map, ISOTROPIC, SEEDS, None)
    assert choice.threshold == 0.6 and label_components(choice.mask).max() == 1


def test_a_given_threshold_is_used_as_it_is(a_tree_map):
    choice = choose_airways(a_tree_map, ISOTROPIC, SEEDS, 0.6)
    assert choice.threshold == 0.6
    assert np.array_equal(choice.mask, a_tree_map >= 153)


def test_the_tracheas_voxels_belong_to_the_airways_where_the_network_misses_them(a_tree_map):
    core = np.argwhere(a_tree_map[40:60] > 200) + [40, 0, 0]
    a_tree_map[40:60] = 0
    given = a_tree_map.copy()
    choice = choose_airways(a_tree_map, ISOTROPIC, core, 0.5)
    assert choice.mask[50, 20, 20] and choice.mask[20, 20, 20]
    assert np.array_equal(a_tree_map, given)


def test_without_a_trachea_parts_of_some_size_are_kept(a_tree_map):
    a_tree_map[1, 50:53, 50:53] = 255
    choice = choose_airways(a_tree_map, ISOTROPIC, np.empty((0, 3), int), 0.5)
    assert choice.mask[40, 20, 20] and not choice.mask[1, 51, 51]


def test_an_empty_map_gives_no_airway_and_says_so():
    choice = choose_airways(np.zeros((8, 8, 8), np.uint8), ISOTROPIC, np.empty((0, 3), int), None)
    assert not choice.mask.any() and "No airway" in choice.warnings[0]


def test_fragments_are_what_else_reaches_the_threshold_in_pieces_of_some_size(a_tree_map):
    a_tree_map[5, 40, 5 : 5 + SMALLEST_FRAGMENT_VOXELS] = 160
    a_tree_map[5, 45, 5 : 4 + SMALLEST_FRAGMENT_VOXELS] = 255  # a voxel too small
    a_tree_map[9, 50, 5:45] = 150  # below the threshold
    a_tree_map[65:69, 19:22, 19:22] = 200  # goes on where the tree ends: it touches it
    tree = choose_airways(a_tree_map, ISOTROPIC, SEEDS, 0.6).mask
    tree[65:] = False
    found = loose_fragments(a_tree_map, tree, 0.6)
    assert found.sum() == SMALLEST_FRAGMENT_VOXELS and found[5, 40, 5 : 5 + SMALLEST_FRAGMENT_VOXELS].all()
    assert not loose_fragments(np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 4), bool), 0.5).any()


def test_without_a_carina_what_the_scan_s_edge_cuts_is_a_tree_and_what_it_does_not_is_left_out(a_tree_map):
    a_tree_map[60:] = 0  # the trachea lies below the lower edge of the scan
    a_tree_map[0:4, 40:44, 40:44] = 250  # a bronchus of 0.06 ml that the lower edge cuts
    a_tree_map[0:4, 50:54, 40:44] = 150  # as large, but doubtful
    a_tree_map[0:1, 40, 50:59] = 250  # certain, but tiny
    a_tree_map[20:45, 40:44, 40:44] = 250  # 0.4 ml of gas in the middle
    edges = ((True, True), (False, False), (False, False))
    for seeds, trees in ((np.array([[50, 20, 20]]), 2), (np.empty((0, 3), np.intp), 1)):
        choice = choose_airways(a_tree_map, ISOTROPIC, seeds, 0.35, edges)
        assert label_components(choice.mask).max() == trees
        assert choice.mask[1, 41, 41] and not choice.mask[1, 51, 41] and not choice.mask[0, 40, 55]
        assert not choice.mask[30, 41, 41] and choice.mask[50, 20, 20] == (trees == 2)


def test_where_the_box_ends_within_the_scan_nothing_is_cut(a_tree_map):
    inner = ((False, True), (False, False), (False, False))
    a_tree_map[0:4, 40:44, 40:44] = 250
    assert not choose_airways(a_tree_map, ISOTROPIC, SEEDS, 0.35, inner).mask[1, 41, 41]
