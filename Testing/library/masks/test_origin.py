"""The origin of every voxel, of a segmented mask and after edits."""

import numpy as np

from AirwaySegLib.masks.origin import CLICK, HAND, NETWORK, OPEN_LUMEN, REPAIR, edited, origin_of


def test_each_voxel_says_what_added_it_and_the_rest_is_the_networks():
    mask, lumen = np.zeros((4, 5, 6), bool), np.zeros((4, 5, 6), bool)
    mask[1:3, 1:4, 1:5] = True
    lumen[1, 1, :] = True  # reaches beyond the mask
    bridges = np.array([[2, 2, 2], [2, 2, 3], [0, 0, 0]])
    origin = origin_of(mask, lumen, bridges)
    assert origin.dtype == np.uint8 and ((origin > 0) == mask).all()
    assert (origin[1, 1, 1:5] == OPEN_LUMEN).all() and origin[2, 2, 2] == origin[2, 2, 3] == REPAIR
    assert (origin == NETWORK).sum() == mask.sum() - 4 - 2
    assert np.array_equal(origin_of(mask), mask * NETWORK)


def test_an_edit_marks_what_it_added_and_forgets_what_it_removed():
    mask = np.zeros((4, 5, 6), bool)
    mask[1:3, 1:4, 1:5] = True
    origin = origin_of(mask)
    mask[0, 0, 0], mask[1, 1, 1] = True, False
    clicked = edited(origin, mask, CLICK)
    assert clicked[0, 0, 0] == CLICK and clicked[1, 1, 1] == 0 and clicked[2, 2, 2] == NETWORK
    mask[1, 1, 1] = True
    painted = edited(clicked, mask, HAND)
    assert painted[1, 1, 1] == HAND and painted[0, 0, 0] == CLICK and ((painted > 0) == mask).all()
