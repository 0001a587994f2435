"""Maps and weights against numbers computed by hand, on a few voxels and on drawn airways."""

import numpy as np
import pytest
from phantoms import a_forked_tree, draw_tubes
from scipy.ndimage import convolve
from skimage.morphology import skeletonize

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.tree.airway_tree import Branch
from AirwaySegTraining.losses.weight_maps import (
    LARGE,
    MIDDLE,
    SMALL,
    back_propagation_weight,
    branch_map,
    centerline_distance,
    classes_by_diameter,
    draw_lib_root,
    foreground_rate,
    general_union_m,
    hard_skeleton,
    imbalance_weight,
    inverse_weight,
    lib_weight,
    nearest_back_propagation_weight,
    skeleton_of,
    tang_distance_weight,
    tube,
)

CUBIC = (1.0, 1.0, 1.0)


def a_bar(width, length=20, margin=3):
    """A straight bar along z with a square cross-section, in the middle of a label."""
    label = np.zeros((length + 2 * margin, width + 2 * margin, width + 2 * margin), np.uint8)
    label[margin:-margin, margin:-margin, margin:-margin] = 1
    return label


def a_branch(number, radius_mm, name=""):
    line = np.column_stack([np.zeros(11), np.zeros(11), -np.arange(11.0)])
    return Branch(number, None, (), number, line, np.full(11, radius_mm), 1.0, name=name)


def test_the_skeleton_of_a_bar_is_its_axis_even_where_thinning_deletes_it():
    odd = np.argwhere(skeleton_of(a_bar(3), CUBIC))
    assert (odd[:, 1:] == 4).all() and len(odd) >= 18
    even = a_bar(4)
    assert not skeletonize(even > 0).any()
    line = skeleton_of(even, CUBIC)
    assert line.dtype == np.uint8 and 14 <= line.sum() <= 30
    assert np.isin(np.argwhere(line)[:, 1:], (4, 5)).mean() > 0.8  # from the corner of one end to that of the other


def test_a_cavity_makes_no_shell_in_the_skeleton_and_left_out_voxels_are_no_airway():
    label = a_bar(7, length=30)
    label[15:20, 5:8, 5:8] = 0
    label[0] = 2
    line = np.argwhere(skeleton_of(label, CUBIC))
    assert (np.abs(line[:, 1:] - 6) <= 1).all() and line[:, 0].min() >= 3


def test_the_distance_to_the_centerline_is_in_mm_and_a_share_of_the_largest():
    label = np.zeros((5, 5, 5), np.uint8)
    label[:, 1:4, 1:4] = 1
    label[:, 0, 0] = 2
    skeleton = np.zeros_like(label)
    skeleton[:, 2, 2] = 1
    distance = centerline_distance(label, (3.0, 1.0, 2.0), skeleton)
    most = np.sqrt(1 + 4)
    expected = np.array([[1, 1 / most, 1], [2 / most, 0, 2 / most], [1, 1 / most, 1]])
    assert distance.dtype == np.float16
    assert distance[2, 1:4, 1:4] == pytest.approx(expected, abs=1e-3)
    assert not distance[label != 1].any()


def test_m_of_the_general_union_weight_makes_the_smallest_gradient_ratio_one():
    assert general_union_m(0.1, root=1.0) == pytest.approx(8 / 9)
    assert general_union_m(0.2, root=1.0) == pytest.approx(3 / 4)
    assert general_union_m(0.1, root=0.7) == pytest.approx(5 / 6)
    for alpha, root in ((0.1, 1.0), (0.3, 1.0), (0.2, 0.7)):
        assert (1 - general_union_m(alpha, root)) * (root / alpha - 1) == pytest.approx(1)


@pytest.mark.parametrize(("alpha", "root"), [(0.0, 1.0), (-0.1, 1.0), (0.6, 1.0), (0.4, 0.7)])
def test_an_alpha_that_would_favour_wide_airways_is_refused(alpha, root):
    with pytest.raises(AirwaySegError, match=f"alpha is {alpha:g}; with the root {root:g}"):
        general_union_m(alpha, root)


def test_the_foreground_rate_counts_a_cube_around_each_voxel():
    label = np.zeros((20, 20, 20), np.uint8)
    label[10, 10, 10] = 1
    label[0, 0, 0] = 2
    rate = foreground_rate(label)
    assert rate.dtype == np.float16
    assert rate[7:14, 7:14, 7:14] == pytest.approx(1 / 343, rel=1e-3)
    assert (rate > 0).sum() == 343


def test_the_foreground_rate_is_that_of_a_convolution_up_to_the_scans_border():
    label = (np.random.default_rng(0).random((24, 20, 30)) < 0.2).astype(np.uint8)
    label[:, :, 15:] = 0
    for side in (3, 7):
        expected = convolve(label.astype(float), np.full((side,) * 3, 1 / side**3), mode="mirror")
        assert foreground_rate(label, side) == pytest.approx(expected, abs=5e-4)


def test_the_local_imbalance_weight_is_equation_3():
    rate = np.array([0, 0.1, 10**-0.5, 1], np.float32)
    weight = lib_weight(rate, root=2)
    assert weight.dtype == np.float32
    assert weight.tolist() == pytest.approx([1, 1, 0.95 * 0.25 + 0.05, 0.05])
    assert lib_weight(rate, root=3, floor=0.3).tolist() == pytest.approx([1, 1, 0.7 * 0.125 + 0.3, 0.3])


def test_the_local_imbalance_weight_can_leave_the_background_at_one():
    rate = np.array([10**-0.5, 10**-0.5], np.float32)
    assert lib_weight(rate, 2, airway=np.array([0, 1])).tolist() == pytest.approx([1, 0.95 * 0.25 + 0.05])


def test_the_power_of_the_local_imbalance_weight_is_drawn_from_two_to_three():
    drawn = [draw_lib_root(np.random.default_rng([5, k])) for k in range(200)]
    assert 2 <= min(drawn) < 2.05 and 2.95 < max(drawn) < 3
    assert draw_lib_root(np.random.default_rng(1)) == draw_lib_root(np.random.default_rng(1))


def test_tangs_distance_weight_is_equation_4_on_the_airway_alone():
    weight = tang_distance_weight(np.array([0, 0, 0.5, 1], np.float16), np.array([0, 1, 1, 1]))
    assert weight.dtype == np.float32
    assert weight.tolist() == pytest.approx([0, 1, 0.25, 0])


def test_back_propagation_raises_all_of_a_branch_that_was_partly_missed():
    branch = np.array([0, 1, 1, 2, 2, 2], np.uint16)
    missed = np.array([1, 0, 0, 0, 1, 0], np.uint8)
    distance = np.array([0, 0, 0.5, 0, 0, 0.5], np.float16)
    assert back_propagation_weight(missed, branch, distance).tolist() == pytest.approx([0, 0, 0, 1, 1, 0.25])
    assert not back_propagation_weight(0 * missed, branch, distance).any()
    assert not back_propagation_weight(missed, 0 * branch, distance).any()


def test_the_imbalance_of_the_published_programs_has_neither_limit_nor_floor():
    rate = np.array([0, 1 / 343, 0.01, 0.1, 10**-0.5, 1], np.float32)
    weight = imbalance_weight(rate)
    assert weight.dtype == np.float32
    assert weight.tolist() == pytest.approx([np.log10(343), np.log10(343), 2, 1, 0.5, 0], abs=1e-6)


def test_a_missed_skeleton_voxel_raises_the_airway_nearest_to_it_and_no_other():
    label = np.zeros((5, 5, 12), np.uint8)
    label[1:4, 1:4, :] = 1
    label[2, 2, 11] = 2
    skeleton = np.zeros_like(label)
    skeleton[2, 2, :11] = 1
    missed = np.zeros_like(label)
    missed[2, 2, 3:5] = 1
    weight = nearest_back_propagation_weight(missed, skeleton, label)
    assert weight.dtype == np.float32 and not weight[:, :, [0, 1, 2, 5, 6, 11]].any()
    edge = (1 - 1 / np.sqrt(2)) ** 2  # d is 1 beside the skeleton and the root of 2 in the corners, the largest
    assert weight[1:4, 1:4, 3] == pytest.approx(np.array([[0, edge, 0], [edge, 1, edge], [0, edge, 0]]), abs=1e-6)
    assert not nearest_back_propagation_weight(0 * missed, skeleton, label).any()
    assert not nearest_back_propagation_weight(missed, skeleton, 0 * label).any()
    alone = nearest_back_propagation_weight(missed, skeleton, (skeleton > 0).astype(np.uint8))
    assert alone.tolist() == (missed > 0).astype(float).tolist(), "nothing but the skeleton itself"


def test_inverse_weights_give_every_part_the_same_sum():
    parts = np.repeat([0, 1, 7], [20, 6, 4]).reshape(5, 6)
    weight = inverse_weight(parts)
    assert weight.dtype == np.float32 and weight.shape == parts.shape
    # 30 voxels, two parts and the background: 30 / (3 * 6), 30 / (3 * 4); the background's 0.5 becomes 1
    assert [float(weight[parts == part][0]) for part in (0, 1, 7)] == pytest.approx([1, 30 / 18, 30 / 12])
    assert weight[parts == 1].sum() == pytest.approx(weight[parts == 7].sum())


def test_inverse_weights_have_a_limit():
    parts = np.zeros(1_000_000, np.uint8)
    assert (inverse_weight(parts) == 1).all()
    parts[7] = 1
    assert inverse_weight(parts)[7] == 2e5


def test_the_tube_is_two_dilations_of_the_skeleton_within_the_airway():
    label = np.ones((9, 9, 9), np.uint8)
    skeleton = np.zeros_like(label)
    skeleton[4, 4, 4] = 1
    widened = tube(skeleton, label)
    assert widened.dtype == np.uint8
    z, y, x = np.indices(label.shape) - 4
    assert np.array_equal(widened, np.abs(z) + np.abs(y) + np.abs(x) <= 2)
    label[:, :, 5:] = 2
    assert tube(skeleton, label).sum() == 25 - 6  # five voxels of x = 5 and one of x = 6


@pytest.fixture(scope="module")
def a_fork():
    """A drawn tree of seven tubes at half its size, with its branch map."""
    spacing_mm = (1.0, 0.8, 0.8)
    mask = draw_tubes(a_forked_tree(0.5), (100, 60, 120), spacing_mm)
    label = mask.astype(np.uint8)
    label[0] = 2
    return label, spacing_mm, *branch_map(label, spacing_mm)


def test_the_branch_map_covers_the_airway(a_fork):
    label, _, branch, branches = a_fork
    assert branch.dtype == np.uint16
    assert np.array_equal(branch > 0, label == 1)
    assert len(branches) == 7 and branch.max() == 7


def test_classes_go_by_name_and_else_by_mean_diameter():
    branches = a_branch(1, 0.9, "trachea"), a_branch(2, 1.0), a_branch(3, 1.01), a_branch(4, 4.0, "left main bronchus")
    classes = classes_by_diameter(np.array([0, 1, 2, 3, 4], np.uint16), branches)
    assert classes.dtype == np.uint8
    assert classes.tolist() == [0, LARGE, SMALL, MIDDLE, LARGE]


def test_a_drawn_tree_has_trachea_and_main_bronchi_as_large_class(a_fork):
    label, spacing_mm, branch, branches = a_fork
    classes = classes_by_diameter(branch, branches)
    assert np.array_equal(classes > 0, label == 1)
    z, _, x = (np.indices(label.shape).T * spacing_mm).T
    middle = 45.0  # the trachea's x
    assert (classes[(label == 1) & (z > 60)] == LARGE).mean() > 0.5
    assert (classes[(label == 1) & (z > 60) & (np.abs(x - middle) < 5)] == LARGE).all()
    assert (classes[(label == 1) & (z < 35)] == MIDDLE).all()


def test_the_hard_skeleton_is_what_the_prediction_lacks():
    skeleton, prediction = np.array([0, 1, 1, 0], np.uint8), np.array([True, True, False, False])
    assert hard_skeleton(skeleton, prediction).tolist() == [0, 0, 1, 0]


def test_a_case_without_airway_has_empty_maps():
    label = np.full((6, 7, 8), 2, np.uint8)
    skeleton = skeleton_of(label, CUBIC)
    branch, branches = branch_map(label, CUBIC)
    maps = [
        skeleton,
        centerline_distance(label, CUBIC),
        foreground_rate(label),
        tube(skeleton, label),
        branch,
        classes_by_diameter(branch, branches),
        tang_distance_weight(centerline_distance(label, CUBIC), label == 1),
    ]
    for values in maps:
        assert values.shape == label.shape and not values.any()
    assert branches == () and (lib_weight(maps[2], 2.5) == 1).all()
    assert (inverse_weight(branch) == 1).all()


def test_a_single_voxel_has_all_maps():
    label = np.zeros((5, 5, 5), np.uint8)
    label[2, 2, 2] = 1
    assert np.array_equal(skeleton_of(label, CUBIC), label)
    assert not centerline_distance(label, CUBIC).any()
    branch, branches = branch_map(label, CUBIC)
    assert np.array_equal(branch, label) and len(branches) == 1
