"""Metrics on drawn masks with known answers."""

import math

import numpy as np
import pytest

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.metrics import dice, precision, share_outside, skeleton, tree_length_detected


@pytest.fixture
def a_rod() -> np.ndarray:
    """A rod of 3 x 3 voxels and 30 long, along z."""
    mask = np.zeros((40, 20, 20), bool)
    mask[5:35, 9:12, 9:12] = True
    return mask


def test_half_a_rod_has_half_its_length(a_rod):
    half = a_rod.copy()
    half[20:] = False
    assert skeleton(a_rod).sum() == pytest.approx(30, abs=2)
    assert tree_length_detected(half, a_rod) == pytest.approx(0.5, abs=0.05)
    assert tree_length_detected(a_rod, a_rod) == 1


def test_precision_and_dice_count_voxels(a_rod):
    wide = a_rod.copy()
    wide[5:35, 12, 9:12] = True  # 270 right and 90 wrong voxels
    assert precision(wide, a_rod) == pytest.approx(0.75)
    assert dice(wide, a_rod) == pytest.approx(2 * 270 / (360 + 270))


def test_voxels_left_out_do_not_count(a_rod):
    wide = a_rod.copy()
    wide[5:35, 12, 9:12] = True
    left_out = wide & ~a_rod
    assert precision(wide, a_rod, left_out) == 1 and dice(wide, a_rod, left_out) == 1


def test_outside_begins_two_voxels_off(a_rod):
    spotted = a_rod.copy()
    spotted[20, 10, 13] = True  # 2 voxels off the wall
    assert share_outside(spotted, a_rod) == 0
    spotted[20, 10, 14] = True
    assert share_outside(spotted, a_rod) == pytest.approx(1 / 272)


def test_nothing_to_measure_is_nan_and_other_grids_are_refused(a_rod):
    nothing = np.zeros_like(a_rod)
    assert math.isnan(precision(nothing, a_rod)) and math.isnan(tree_length_detected(a_rod, nothing))
    assert math.isnan(share_outside(nothing, nothing)) and share_outside(a_rod, nothing) == 1
    with pytest.raises(AirwaySegError, match="grid"):
        dice(a_rod, a_rod[1:])
