"""Breakage attention against the plain computation, and patch centres at gaps that are drawn."""

import numpy as np
import pytest
from counting import count_calls
from phantoms import Tube, a_deep_tree, draw_tubes
from scipy.ndimage import distance_transform_edt

from AirwaySegLib.masks.components import label_components
from AirwaySegLib.repair.attention import (
    ALPHA,
    APART,
    LARGEST_IGNORED_VOXELS,
    REACH,
    USUAL_VOXEL_MM,
    breakage_attention,
    kept_components,
    patch_centres,
)

VOXEL = (1.0, 1.0, 1.0)


def the_plain_computation(labels: np.ndarray, unit=VOXEL) -> np.ndarray:
    """One distance transform of the whole array for each component; every component counts."""
    distances = [distance_transform_edt(labels != number, unit) for number in np.unique(labels[labels > 0])]
    second = np.sort(np.stack(distances), axis=0)[1]
    return np.where(second < REACH, 1 / (1 + np.exp(second - ALPHA)), 0).astype(np.float32)


def blocks(seed: int, count: int = 9) -> np.ndarray:
    """Blocks of more than a speck's voxels at random places, some beyond the border, later ones over earlier ones."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((48, 60, 70), np.int32)
    for number in range(1, count + 1):
        start, size = rng.integers(-3, 60, 3), rng.integers(4, 14, 3)
        labels[tuple(slice(max(a, 0), max(a, 0) + b) for a, b in zip(start, size))] = number
    sizes = np.bincount(labels.ravel())
    labels[(sizes <= LARGEST_IGNORED_VOXELS)[labels]] = 0
    return labels


def two_rods(gap: int, axis: int = 2, shape: tuple = (40, 40, 80)) -> np.ndarray:
    """Two rods of 5 x 5 voxels in line, ``gap`` voxels between their ends' centres, along one axis."""
    labels = np.zeros(shape, np.int32)
    labels[18:23, 18:23, 5:31] = 1
    labels[18:23, 18:23, 30 + gap : 30 + gap + 15] = 2
    return np.ascontiguousarray(np.moveaxis(labels, 2, axis))


@pytest.mark.parametrize("seed", range(4))
def test_attention_in_voxels_is_that_of_whole_distance_transforms_to_the_last_bit(seed):
    labels = blocks(seed)
    attention = breakage_attention(labels)
    assert attention.dtype == np.float32 and 0.02 < (attention > 0).mean() < 0.9
    np.testing.assert_array_equal(attention, the_plain_computation(labels))


@pytest.mark.parametrize("spacing_mm", [(1.1, 0.6, 0.8), (5.0, 0.7, 0.7), (0.5, 0.5, 9.0)])
def test_attention_in_mm_is_that_of_whole_distance_transforms(spacing_mm):
    # With spacings above that of a usual voxel, these blocks of at least 4^3 voxels are larger than a speck too.
    labels = blocks(5)
    plain = the_plain_computation(labels, np.array(spacing_mm) / USUAL_VOXEL_MM)
    np.testing.assert_allclose(breakage_attention(labels, spacing_mm), plain, atol=1e-6)


def test_a_branching_tree_in_pieces_has_the_attention_of_the_plain_computation():
    mask = draw_tubes(a_deep_tree(4), (120, 104, 120), (2.5, 2.5, 2.5))
    mask[::25] = False
    mask[:, :, ::25] = False
    labels = label_components(mask)
    labels[(np.bincount(labels.ravel()) <= LARGEST_IGNORED_VOXELS)[labels]] = 0
    assert len(np.unique(labels)) > 10
    np.testing.assert_array_equal(breakage_attention(labels), the_plain_computation(labels))


def test_attention_is_a_half_in_the_middle_of_a_gap_of_ten_voxels():
    attention = breakage_attention(two_rods(gap=10))
    assert attention[20, 20, 35] == 0.5 and attention[20, 20].max() == 0.5
    assert breakage_attention(two_rods(gap=12))[20, 20].max() < 0.5 < breakage_attention(two_rods(gap=8))[20, 20].max()


def test_attention_in_mm_does_not_depend_on_the_thickness_of_slices():
    thin, thick = two_rods(gap=10, axis=0), two_rods(gap=10, axis=0)[::2]
    in_thin = breakage_attention(thin, (0.7, 0.7, 0.7))[::2]
    np.testing.assert_allclose(in_thin[:16], breakage_attention(thick, (1.4, 0.7, 0.7))[:16], atol=1e-6)


def test_without_two_components_there_is_no_attention():
    one = np.zeros((20, 20, 20), np.int32)
    assert not breakage_attention(one).any() and len(patch_centres(breakage_attention(one), one)) == 0
    one[5:15, 5:15, 5:15] = 1
    assert not breakage_attention(one).any()


def test_the_array_is_not_changed_and_numbers_may_be_missing():
    labels = two_rods(gap=6)
    labels[labels == 2] = 7
    before = labels.copy()
    np.testing.assert_array_equal(breakage_attention(labels), the_plain_computation(labels))
    np.testing.assert_array_equal(labels, before)


def test_a_speck_beside_a_tube_is_left_out_and_one_within_a_gap_is_not():
    labels = two_rods(gap=18)
    labels[20, 20, 39] = 3
    labels[28, 20, 15] = 4
    labels[28:31, 28:31, 12:15] = 5
    assert set(kept_components(labels)) == {1, 2, 3}
    attention = breakage_attention(labels)
    assert attention[20, 20, 34] == 0.5 and attention[24, 20, 15] == 0


def test_a_speck_that_is_a_ring_around_a_tube_lies_on_no_path():
    labels = np.zeros((40, 15, 15), np.int32)
    labels[:, 7, 7] = 1
    labels[:30, 7, 8] = 1
    labels[35, 5:10, 5:10] = 2
    labels[35, 6:9, 6:9] = 0
    labels[35, 7, 7] = 1
    with np.errstate(all="raise"):
        assert set(kept_components(labels)) == {1}


def test_a_component_of_51_voxels_is_no_speck():
    labels = two_rods(gap=30)
    labels[30:33, 10:13, 10:16] = 3
    labels[30, 10, 10:13] = 0
    assert np.count_nonzero(labels == 3) == 51 and 3 in kept_components(labels)
    labels[30, 10, 13] = 0
    assert 3 not in kept_components(labels)


def test_two_thousand_specks_are_left_out_without_a_look_at_each():
    rng = np.random.default_rng(0)
    mask = np.zeros((120, 160, 160), bool)
    mask[tuple(rng.integers(0, 120, (3, 2000)))] = True
    mask[:, 78:83, 78:83] = True
    labels = label_components(mask)
    attention, calls = count_calls(lambda: breakage_attention(labels))
    assert labels.max() > 1500 and not attention.any() and calls < 100 * labels.max()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("gap", [2, 3, 6, 10])
def test_every_gap_up_to_ten_voxels_has_one_centre_near_its_middle(gap, axis):
    labels = two_rods(gap, axis)
    centres = patch_centres(breakage_attention(labels), labels)
    middle = np.roll([30 + gap / 2, 20, 20], axis) if axis != 1 else [20, 30 + gap / 2, 20]
    assert len(centres) == 1 and np.linalg.norm(centres[0] - middle) <= APART


def test_gaps_of_three_fragments_close_to_each_other_each_have_a_centre():
    mask = draw_tubes(
        [Tube((10, 30, 30), (30, 30, 30), 3, 3)]
        + [Tube((36, 30 + 11 * side, 30 + other), (60, 30 + 24 * side, 30 + other), 2, 2)
           for side, other in ((-1, 0), (1, 0), (0, 11))],
        (70, 60, 60),
        VOXEL,
    )  # fmt: skip
    labels = label_components(mask)
    assert labels.max() == 4
    distances = [distance_transform_edt(labels != number) for number in range(1, 5)]
    centres = patch_centres(breakage_attention(labels), labels)
    for fragment in range(1, 4):
        farther = np.maximum(distances[0], distances[fragment])
        assert farther.min() <= 5
        middle = np.argwhere(farther == farther.min()).mean(axis=0)
        assert np.linalg.norm(centres - middle, axis=1).min() <= APART


def test_a_fragment_that_runs_along_a_branch_has_few_centres_and_the_best_comes_first():
    tubes = [Tube((5, 20, 20), (95, 20, 20), 3, 3), Tube((15, 32, 21), (85, 31, 19), 2, 2)]
    labels = label_components(draw_tubes(tubes, (100, 50, 40), VOXEL))
    attention = breakage_attention(labels)
    centres = patch_centres(attention, labels)
    assert 2 <= len(centres) <= 4
    values = attention[tuple(centres.T)]
    assert (np.diff(values) <= 0).all() and values[0] == attention.max()


def test_the_level_decides_how_wide_a_gap_is_still_looked_at():
    labels = two_rods(gap=16)
    attention = breakage_attention(labels)
    assert len(patch_centres(attention, labels)) == 1 and len(patch_centres(attention, labels, level=0.5)) == 0
