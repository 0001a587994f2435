"""Tests of AirwaySegLib.pictures.repair_pictures: which layer is seen where, and how many voxels were added."""

import numpy as np
import pytest
from PIL import Image

from AirwaySegLib.pictures.preview import BACKGROUND
from AirwaySegLib.pictures.repair_pictures import COLOURS, JOINED, LOOSE, draw_repairs
from AirwaySegLib.pictures.repair_pictures import TREE as TREE_LAYER
from AirwaySegLib.repair.bridge import MAIN, PATH, Bridge
from AirwaySegLib.repair.decide import repaired_mask
from AirwaySegLib.repair.proposal import APPLIED, REFUSED, Proposal, voxels_added


@pytest.fixture(scope="module")
def a_decision() -> tuple[np.ndarray, list[Proposal]]:
    """A rod, a fragment beyond its end that is joined, one beside it that is refused, one of which nothing is said."""
    labels = np.zeros((60, 40, 50), np.int32)
    labels[30:58, 18:22, 18:22] = MAIN
    labels[10:24, 18:22, 18:22] = 2
    labels[40:50, 18:22, 34:38] = 3
    labels[10:14, 30:34, 40:44] = 4
    across = np.argwhere(np.ones((1, 1, 12), bool)) + [45, 20, 22]
    down = np.argwhere(np.ones((6, 3, 3), bool)) + [24, 18, 18]
    bridges = [
        Bridge((1, other), voxels.astype(np.int32), 0.9, PATH, 6.0) for other, voxels in ((2, down), (3, across))
    ]
    joined = Proposal(1, bridges[0], (2,), 1, (0.0, 0.0, 0.0), APPLIED, "")
    return labels, [joined, Proposal(2, bridges[1], (), 1, (0.0, 0.0, 0.0), REFUSED, "It would not do.")]


def shares(picture: Image.Image, box: tuple[int, int, int, int]) -> dict[str, int]:
    """How many pixels of a part of the picture have the colour of each layer, whatever its brightness."""
    pixels = np.asarray(picture.crop(box)).reshape(-1, 3).astype(float) - BACKGROUND
    bright = np.linalg.norm(pixels, axis=1)
    found = {}
    for name, colour in COLOURS.items():
        way = np.subtract(colour, BACKGROUND) / np.linalg.norm(np.subtract(colour, BACKGROUND))
        found[name] = int(((bright > 30) & (pixels @ way > 0.999 * bright)).sum())
    return found


def test_the_picture_shows_each_layer_in_the_columns_where_it_belongs(a_decision):
    picture = draw_repairs(*a_decision, (1.0, 1.0, 1.0), None, "title")
    wide = picture.width // 3
    before, proposals, after = (shares(picture, (k * wide, 110, (k + 1) * wide, picture.height)) for k in range(3))
    assert before[TREE_LAYER] > 500 < before[LOOSE] and not before[JOINED] + before[APPLIED] + before[REFUSED]
    assert proposals[APPLIED] > 50 < proposals[REFUSED] and not proposals[JOINED]
    assert after[JOINED] > 500 < after[APPLIED] and not after[REFUSED]
    assert 100 < after[LOOSE] < before[LOOSE]


def test_the_view_from_the_front_has_head_and_left_side_where_they_belong(a_decision):
    labels, proposals = a_decision
    picture = np.asarray(draw_repairs(labels, proposals, (1.0, 1.0, 1.0), None, ""))
    front = picture[100:480, : picture.shape[1] // 3].astype(int)
    tree = np.argwhere(np.abs(front - COLOURS[TREE_LAYER]).sum(axis=2) < 180)
    loose = np.argwhere(np.abs(front - COLOURS[LOOSE]).sum(axis=2) < 60)
    assert tree[:, 0].mean() < loose[:, 0].mean()  # the fragments lie lower
    assert tree[:, 1].mean() < loose[:, 1].max() - 50  # and on the patient's left, the picture's right


def test_with_a_ct_there_is_a_slice_for_each_proposal(a_decision):
    labels, proposals = a_decision
    hu = np.where(labels > 0, -950, -820).astype(np.int16)
    plain = draw_repairs(labels, proposals, (1.0, 1.0, 1.0), None, "")
    picture = draw_repairs(labels, proposals, (1.0, 1.0, 1.0), hu, "")
    assert picture.height > plain.height and np.array_equal(
        np.asarray(picture)[: plain.height - 30], np.asarray(plain)[:-30]
    )
    found = shares(picture, (0, plain.height, picture.width, picture.height))
    assert found[APPLIED] > 20 < found[REFUSED] and found[LOOSE] > 20 < found[JOINED]


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 90, 4)])
def test_what_is_empty_flat_or_long_is_drawn_too(shape):
    for labels in (np.zeros(shape, np.int32), np.ones(shape, np.int32)):
        assert draw_repairs(labels, [], (0.5, 1.0, 2.0), None, "x" * 999).size[0] > 500


def test_a_voxel_of_two_bridges_is_counted_once():
    labels = np.zeros((3, 3, 40), np.int32)
    labels[1, 1, :10], labels[1, 1, 15:20], labels[1, 1, 25:28] = MAIN, 2, 3
    rows = np.argwhere(labels == 0)
    rows = rows[(rows[:, :2] == 1).all(axis=1)].astype(np.int32)
    near, far = (Bridge(joins, rows[rows[:, 2] < end], 0.9, PATH, 3.0) for joins, end in (((1, 2), 15), ((1, 3), 25)))
    states = (near, (2,), APPLIED), (far, (3,), APPLIED), (far, (), REFUSED)
    proposals = [Proposal(1, bridge, new, 1, (0.0, 0.0, 0.0), state, "") for bridge, new, state in states]
    for some in (proposals[:0], proposals[:1], proposals[1:], proposals):
        assert voxels_added(labels, some) == np.count_nonzero(repaired_mask(labels, some)) - 10
