"""Metrics on drawn masks with known answers."""

import math

import numpy as np
import pytest
import SimpleITK as sitk
from phantoms import Tube, draw_tubes

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.evaluation.metrics import (
    Detection,
    Metrics,
    Overlap,
    by_diameter,
    cl_dice,
    count_branches,
    dice,
    lengths_mm,
    local_diameters_mm,
    overlap_of,
    precision,
    share_outside,
    tree_length_detected,
)
from AirwaySegLib.evaluation.reference_parse import thinned
from AirwaySegLib.masks.sparse_mask import Lumen


@pytest.fixture
def a_rod() -> np.ndarray:
    """A rod of 3 x 3 voxels and 30 long, along z."""
    mask = np.zeros((40, 20, 20), bool)
    mask[5:35, 9:12, 9:12] = True
    return mask


def test_half_a_rod_has_half_its_length(a_rod):
    half = a_rod.copy()
    half[20:] = False
    assert thinned(a_rod).sum() == pytest.approx(30, abs=2)
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


def test_overlap_is_simpleitks_on_random_masks():
    rng = np.random.default_rng(1)
    prediction, reference = rng.random((20, 21, 22)) < 0.4, rng.random((20, 21, 22)) < 0.3
    overlap = overlap_of(prediction, reference)
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.Execute(*(sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (prediction, reference)))
    assert overlap.dice == pytest.approx(measures.GetDiceCoefficient())
    assert overlap.iou == pytest.approx(measures.GetJaccardCoefficient())
    assert overlap.sensitivity == pytest.approx(1 - measures.GetFalseNegativeError())
    assert overlap.true_positive + overlap.false_positive == prediction.sum()
    assert overlap.true_positive + overlap.false_negative == reference.sum()


def test_leakage_counts_per_voxel_of_the_reference_and_may_exceed_one():
    assert Overlap(6, 2, 4).leakage == pytest.approx(0.2)
    assert Overlap(1, 30, 9).leakage == pytest.approx(3.0)
    nothing = Overlap(0, 0, 0)
    rates = (nothing.precision, nothing.sensitivity, nothing.dice, nothing.iou, nothing.leakage)
    assert all(math.isnan(rate) for rate in rates)


def _lengths(voxels: list[tuple[int, int, int]], spacing_mm=(1.0, 1.0, 1.0)) -> np.ndarray:
    mask = np.zeros((12, 12, 12), bool)
    mask[tuple(np.array(voxels).T)] = True
    return lengths_mm(Lumen.of(mask, spacing_mm))


def test_a_line_is_as_long_as_its_ends_are_apart():
    along = [(step, 3, 3) for step in range(8)]
    assert _lengths(along, (2.5, 1.0, 1.0)).tolist() == [1.25, *6 * [2.5], 1.25]
    diagonal = [(step, step, step) for step in range(5)]
    assert _lengths(diagonal, (3.0, 2.0, 6.0)).sum() == pytest.approx(4 * 7)
    assert _lengths([(1, 1, 1)]).tolist() == [0.0]


def test_a_fork_is_the_sum_of_its_arms_and_the_triangle_in_it_counts_once():
    stem = [(step, 5, 5) for step in range(6)]
    arms = [(6, 4, 5), (7, 3, 5), (6, 6, 5), (7, 7, 5), (6, 5, 5)]
    # 5 from 0 to 5, 1 to the voxel between the arms, which are 1 beside it, and 1 diagonal step on each arm.
    assert _lengths(stem + arms).sum() == pytest.approx(5 + 1 + 2 + 2 * np.sqrt(2))
    square = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]
    assert _lengths(square, (9.0, 1.0, 1.0)).sum() == pytest.approx(3)


def test_a_branch_is_detected_from_four_fifths_of_its_skeleton_on():
    branches = np.repeat([0, 1, 2, 3], [4, 5, 10, 5]).astype(np.int32)
    detected = np.ones(24, bool)
    detected[4] = False  # 4 of 5 of branch 1
    detected[9:12] = False  # 7 of 10 of branch 2
    assert count_branches(branches, detected) == (3, 2)
    assert count_branches(branches, detected, left_out=(1, 9)) == (2, 1)
    assert count_branches(branches + (branches == 3), detected) == (4, 2)  # nothing of 3, which counts as missed
    assert count_branches(np.empty(0, np.int32), np.empty(0, bool)) == (0, 0)


def test_centerline_dice_is_the_harmonic_mean_of_the_two_shares(a_rod):
    half = a_rod.copy()
    half[20:] = False
    line, half_line = thinned(a_rod), thinned(half)
    complete = (line & half).sum() / line.sum()
    expected = 2 * complete / (1 + complete)  # all of the shorter line lies in the rod
    assert 0.4 < complete < 0.6
    assert cl_dice(half_line, half, line, a_rod) == pytest.approx(expected)
    assert cl_dice(line, a_rod, half_line, half) == pytest.approx(expected)
    assert cl_dice(line, a_rod, line, a_rod) == 1
    nothing = np.zeros_like(a_rod)
    assert cl_dice(nothing, nothing, line, a_rod) == 0 and math.isnan(cl_dice(nothing, nothing, nothing, nothing))
    aside = np.roll(a_rod, 8, axis=2)
    assert cl_dice(thinned(aside), aside, line, a_rod) == 0


@pytest.mark.parametrize("cut", [0.0, 12.0])
def test_a_tube_has_its_diameter_up_to_its_flat_end_and_at_the_border(cut):
    spacing = (1.0, 0.5, 0.5)
    tube = Tube((-5 + cut, 10, 10), (40, 10, 10), 5, 5, round_ends=False)
    mask = draw_tubes([tube], (60, 41, 41), spacing)
    axis = np.zeros_like(mask)
    axis[:, 20, 20] = mask[:, 20, 20]
    diameters = local_diameters_mm(Lumen.of(axis, spacing), Lumen.of(mask, spacing))
    assert len(diameters) == (41 if cut == 0 else 34)
    assert diameters.min() >= 9 and diameters.max() < 10


def test_each_class_of_diameter_has_its_own_dice():
    spacing = (0.5, 0.5, 0.5)
    wide, thin = Tube((2, 10, 8), (28, 10, 8), 5, 5), Tube((2, 10, 24), (28, 10, 24), 1.5, 1.5)
    shape = (61, 41, 61)
    reference, found = draw_tubes([wide, thin], shape, spacing), draw_tubes([wide], shape, spacing)
    found[:, :, 44:46] |= np.roll(reference, 1, axis=2)[:, :, 44:46]  # a few voxels beside the thin tube
    skeleton = Lumen.of(thinned(reference), spacing)
    classes = by_diameter(found, reference, skeleton, local_diameters_mm(skeleton, Lumen.of(reference, spacing)))
    up_to_2, up_to_4, up_to_8, above = classes
    assert above.dice == 1 and math.isnan(up_to_2.dice) and math.isnan(up_to_8.dice)
    assert up_to_4.true_positive + up_to_4.false_negative == draw_tubes([thin], shape, spacing).sum()
    assert up_to_4.dice < 0.2 and up_to_4.false_positive == (found & ~reference).sum()
    assert sum(part.true_positive for part in classes) == (found & reference).sum()


def test_a_limit_belongs_to_the_class_below_it():
    line = np.zeros((9, 9, 9), bool)
    line[2:6, 4, 4] = True
    diameters = np.array([0.1 + 0.2 + 1.7, 4.0, 8.0, 8.1])  # the first sum is a little more than 2
    classes = by_diameter(line, line, Lumen.of(line, (1.0, 1.0, 1.0)), diameters)
    assert [part.true_positive for part in classes] == [1, 1, 1, 1]


def test_the_score_is_the_mean_of_four_and_an_empty_prediction_scores_nothing():
    overlap, detection = Overlap(60, 20, 20), Detection(100, 90, 50.0, 40.0, 10, 8)
    metrics = Metrics(overlap, detection, (), 0.5, 3, 1)
    assert metrics.atm22_score == pytest.approx((0.9 + 0.8 + 0.75 + 0.75) / 4)
    assert metrics.betti0_error == 2 and detection.tree_length_mm == pytest.approx(0.8)
    missed = Metrics(Overlap(0, 0, 80), Detection(100, 0, 50.0, 0.0, 10, 0), (), 0.0, 0, 1)
    assert missed.atm22_score == 0 and math.isnan(missed.overlap.precision) and missed.betti0_error == 1
