"""Labels that lie on a CT's airways, beside them, mirrored, or drawn too wide."""

import itertools

import numpy as np
import pytest
from phantoms import Tube, draw_tubes
from scipy.ndimage import binary_dilation, binary_erosion

from AirwaySegTraining.data.label_check import AXES, label_doubt

SHAPE = (96, 80, 120)
TREE = [
    Tube((95, 42, 55), (50, 42, 55), 6, 6),
    Tube((50, 42, 55), (30, 30, 25), 4, 3),
    Tube((50, 42, 55), (22, 55, 90), 4, 3),
    Tube((30, 30, 25), (8, 22, 12), 3, 2),
    Tube((30, 30, 25), (12, 50, 20), 3, 2),
    Tube((22, 55, 90), (6, 66, 108), 3, 2),
    Tube((22, 55, 90), (20, 30, 106), 3, 2),
]
WAYS = [way for way in itertools.product((False, True), repeat=3) if any(way)]


@pytest.fixture(scope="module")
def a_label():
    """A tree of seven tubes, two voxels wide at its ends."""
    return draw_tubes(TREE, SHAPE, (1, 1, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def a_ct(a_label):
    """Lungs as dark as real ones, and in them the tree with its walls, under noise."""
    wall = binary_dilation(a_label, iterations=2)
    hu = np.where(a_label == 1, -950, np.where(wall, -300, -850))
    return (hu + np.random.default_rng(0).normal(0, 60, SHAPE)).astype(np.int16)


def mirrored(array, way):
    return np.ascontiguousarray(array[tuple(slice(None, None, -1 if flip else 1) for flip in way)])


def test_a_right_label_is_not_doubted(a_ct, a_label):
    assert label_doubt(a_ct, a_label) == ""


@pytest.mark.parametrize("way", WAYS)
def test_a_mirrored_label_is_called_so_with_its_sides(a_ct, a_label, way):
    sides = " and ".join(axis for axis, flip in zip(AXES, way, strict=True) if flip)
    assert label_doubt(a_ct, mirrored(a_label, way)).startswith(f"looks mirrored {sides}: ")


@pytest.mark.parametrize("shift", [(0, 0, 5), (0, -5, 0), (4, 4, 0), (0, 20, 0)])
def test_a_shifted_label_is_doubted(a_ct, a_label, shift):
    assert label_doubt(a_ct, np.roll(a_label, shift, (0, 1, 2))).startswith("does not lie on the CT's airways")


def test_a_label_of_vessels_is_doubted(a_ct, a_label):
    assert label_doubt((-1000 - a_ct).astype(np.int16), a_label).startswith("does not lie on the CT's airways")


@pytest.mark.parametrize(
    "changed",
    [
        binary_dilation,
        lambda label: binary_dilation(label, np.ones((3, 3, 3))),
        lambda label: binary_erosion(label) | (label & (np.indices(SHAPE)[0] < 40)),
    ],
    ids=["with its wall", "with all around it", "the trachea's core"],
)
def test_a_label_a_voxel_too_wide_or_too_narrow_is_not_doubted_and_known_when_mirrored(a_ct, a_label, changed):
    other = changed(a_label == 1).astype(np.uint8)
    assert label_doubt(a_ct, other) == ""
    assert label_doubt(a_ct, mirrored(other, (False, False, True))).startswith("looks mirrored left to right")


def test_what_is_left_out_around_a_label_is_not_looked_at(a_ct, a_label):
    dark = a_ct.copy()
    beside = binary_dilation(a_label) & (a_label == 0)
    dark[beside] = -1000
    assert label_doubt(dark, np.where(beside, 2, a_label).astype(np.uint8)) == ""


def test_a_label_too_small_to_judge_is_not_doubted():
    label = np.zeros((8, 8, 8), np.uint8)
    label[4, 4, 4] = 1
    assert label_doubt(np.zeros(label.shape, np.int16), label) == ""
    assert label_doubt(np.zeros(label.shape, np.int16), np.ones_like(label)) == ""
