"""Losses against numbers and gradients computed by hand, and against finite differences."""

import math

import pytest
import torch

from AirwaySegTraining.losses.equations import (
    cl_dice,
    class_dice_and_cross_entropy,
    cross_entropy,
    dice_and_cross_entropy,
    distillation,
    general_union,
    general_union_by_distance,
    root_tversky,
    skeleton_recall,
    soft_skeleton,
    tang,
    tang_in_print,
    tversky,
    union_probability,
    weighted_dice,
)
from AirwaySegTraining.losses.weight_maps import general_union_m

ON_PROBABILITIES = {
    "weighted_dice": weighted_dice,
    "tversky": lambda p, g, w: tversky(p, g, w, alpha=0.1),
    "root_tversky": root_tversky,
    "general_union": general_union,
    "tang": tang,
    "tang_in_print": lambda p, g, w: tang_in_print(p, g, w, exponent=0.7),
    "skeleton_recall": skeleton_recall,
    "cl_dice": cl_dice,
}
ON_LOGITS = {
    "cross_entropy": cross_entropy,
    "dice_and_cross_entropy": dice_and_cross_entropy,
    "class_dice_and_cross_entropy": class_dice_and_cross_entropy,
    "distillation": distillation,
}
EVERY_LOSS = [*ON_PROBABILITIES.values(), *ON_LOGITS.values()]
NAMES = [*ON_PROBABILITIES, *ON_LOGITS]

every_loss = pytest.mark.parametrize("loss", EVERY_LOSS, ids=NAMES)


def row(*values):
    return torch.tensor(values, dtype=torch.float64)


def cube(values):
    """A patch (1, 1, S, S, S) from S^3 numbers."""
    return values.reshape(1, 1, *[round(values.numel() ** (1 / 3))] * 3)


def gradient(loss, p, *others):
    p = p.clone().requires_grad_()
    loss(p, *others).backward()
    return p.grad


@pytest.fixture
def a_patch():
    """p, g and w of 27 voxels; p is far from 0 and 1, no two are equal, and three voxels are left out."""
    random = torch.Generator().manual_seed(1)
    p = (torch.randperm(27, generator=random).double() + 3) / 33
    g = (torch.rand(27, generator=random) < 0.4).double()
    w = torch.rand(27, generator=random).double() + 0.5
    w[[3, 13, 20]] = 0
    return cube(p), cube(g), cube(w)


def test_weighted_dice_is_as_computed_by_hand():
    # overlap 2 * 0.5 + 1 = 2; p + g is 1.5, 2 and 0.25 with weights 2, 1 and 4: 6
    assert float(weighted_dice(row(0.5, 1, 0.25), row(1, 1, 0), row(2, 1, 4))) == pytest.approx(1 - 5 / 7)


def test_the_gradient_of_dice_is_equation_20():
    p, g = row(0.5, 0.2), row(1, 0)
    a, b = 2 * 0.5 + 1, 0.7 + 1 + 1
    expected = row(-(2 * b - a) / b**2, a / b**2)
    assert torch.allclose(gradient(weighted_dice, p, g, torch.ones_like(p)), expected)


def test_tversky_weighs_false_positives_by_alpha_and_false_negatives_by_beta():
    p, g, w = row(0.5, 0.2, 0.7), row(1, 0, 1), row(1, 1, 0)
    true_positive, false_positive, false_negative = 0.5, 0.2, 0.5
    below = true_positive + 0.1 * false_positive + 0.9 * false_negative
    assert float(tversky(p, g, w, alpha=0.1)) == pytest.approx(1 - (true_positive + 1) / (below + 1))
    assert float(tversky(p, g, w, alpha=0.5)) == pytest.approx(float(1 - (0.5 + 1) / (0.5 * 0.7 + 0.5 + 1)))


def test_root_tversky_takes_the_root_of_what_should_be_found_and_no_weights():
    p, g, w = row(0.25, 0.16), row(1, 0), row(0.3, 2)
    below = 0.1 * (0.25 + 0.16) + 0.9
    assert float(root_tversky(p, g, w, alpha=0.1, exponent=0.5)) == pytest.approx(1 - 1.5 / (below + 1), abs=1e-4)


def test_general_union_is_as_computed_by_hand():
    p, g, w = row(0.25, 0.16, 0.81), row(1, 0, 1), row(0.5, 1, 0.2)
    above = 0.5 * 0.5 + 0.2 * 0.9
    below = 0.5 * (0.2 * 0.25 + 0.8) + 0.2 * 0.16 + 0.2 * (0.2 * 0.81 + 0.8)
    found = float(general_union(p, g, w, alpha=0.2, exponent=0.5))
    assert found == pytest.approx(1 - (above + 1) / (below + 1), abs=1e-4)


@pytest.mark.parametrize("p", [0.0, 0.05, 0.6, 1.0])
def test_the_gradient_ratio_of_general_union_is_equation_18(p):
    alpha, r, w = 0.1, 0.7, 0.4
    values, g, weight = row(p, 0.3, 0.9, 0.2), row(1, 1, 1, 0), row(w, 1, 0.7, 1)
    slopes = gradient(general_union, values, g, weight, alpha, r)
    loss = float(general_union(values, g, weight, alpha, r))
    assert float(-slopes[0] / slopes[3]) == pytest.approx(w * (r * (p + 1e-4) ** (r - 1) / alpha / (1 - loss) - 1))


@pytest.mark.parametrize(("alpha", "exponent"), [(0.1, 1.0), (0.2, 1.0), (0.3, 1.0), (0.1, 0.7), (0.2, 0.7)])
def test_the_smallest_gradient_ratio_is_one_where_m_fits_the_exponent(alpha, exponent):
    perfect = row(1, 1, 0)
    weight = row(1, 1 - general_union_m(alpha, exponent), 1)
    slopes = gradient(general_union, perfect, perfect, weight, alpha, exponent)
    assert float(-slopes[1] / slopes[2]) == pytest.approx(1, abs=2e-3)
    random = torch.Generator().manual_seed(0)
    for _ in range(30):
        p = torch.rand(3, generator=random).double()
        slopes = gradient(general_union, p, perfect, weight, alpha, exponent)
        assert float(-slopes[:2].max() / slopes[2]) >= 1 - 2e-3


def test_the_m_of_exponent_one_would_leave_two_thirds_as_smallest_ratio_with_the_papers_exponent():
    perfect, weight = row(1, 1, 0), row(1, 1 - general_union_m(0.1, 1.0), 1)
    slopes = gradient(general_union, perfect, perfect, weight, 0.1, 0.7)
    assert float(-slopes[1] / slopes[2]) == pytest.approx((0.7 - 0.1) / (1 - 0.1), abs=2e-3)


@pytest.mark.parametrize(("alpha", "exponent"), [(0.1, 0.7), (0.2, 0.7), (0.3, 1.0), (0.2, 1.5)])
def test_the_loss_of_the_recipes_takes_the_m_of_its_own_exponent(alpha, exponent):
    perfect, distance = row(1, 1, 0), row(0, 1, 0)
    slopes = gradient(general_union_by_distance, perfect, perfect, row(1, 1, 1), distance, alpha, exponent)
    expected = 1 if exponent <= 1 else (1 - general_union_m(alpha, 1.0)) * (exponent / alpha - 1)
    assert float(-slopes[1] / slopes[2]) == pytest.approx(expected, abs=2e-3)


def test_the_printed_m_unlearns_the_rim_of_wide_airways():
    p, g = row(0.5, 0.5, 0.5), row(1, 1, 0)
    weight = row(1, 1 - (1 - 0.1) / 0.1, 1)  # 1 and -8
    many = 50  # enough voxels on the centerline for a loss that is a loss
    p, g, weight = (torch.cat([values[:1].repeat(many), values[1:]]) for values in (p, g, weight))
    slopes = gradient(general_union, p, g, weight)
    assert slopes[0] < 0 < slopes[many]


def test_tang_pulls_hard_airway_voxels_up_and_his_printed_formula_pushes_them_down():
    g, w = row(1, 1), row(1, 1)
    # 2 x (3.9 + x) = 1.81 + x^2 has its root at x = 0.2255, where the printed gradient is 0
    for x, sign in ((0.05, 1), (0.2, 1), (0.25, -1)):
        with pytest.warns(UserWarning, match="not yet found"):
            printed = gradient(tang_in_print, row(0.9, x), g, w)
        assert math.copysign(1, printed[1]) == sign
        assert gradient(tang, row(0.9, x), g, w)[1] < 0
        assert gradient(tang_in_print, row(0.9, x), g, w, 0.7)[1] < 0


def test_tang_is_as_computed_by_hand_in_both_forms():
    p, g, w = row(0.5, 0.2), row(1, 0), row(0.8, 0.3)
    with pytest.warns(UserWarning, match="exponent 2"):
        printed = float(tang_in_print(p, g, w))
    assert printed == pytest.approx(1 - (0.8 * 0.25 + 1) / (0.8 * 1.5 + 0.3 * 0.2 + 1), abs=1e-4)
    below = 0.8 * (0.2 * 0.5 + 0.8) + 0.3 * 0.2 * 0.2
    assert float(tang(p, g, w)) == pytest.approx(1 - (0.8 * 0.5**0.7 + 1) / (below + 1), abs=1e-4)


def test_a_perfect_answer_costs_nothing_but_half_in_tangs_printed_formula():
    g = torch.ones(100_000)
    for name, loss in ON_PROBABILITIES.items():
        if name == "cl_dice":
            continue
        expected = 0.5 if name == "tang_in_print" else 0.0
        assert float(loss(g, g, g)) == pytest.approx(expected, abs=2e-4), name


def test_cross_entropy_is_as_computed_by_hand_and_exact_for_large_logits():
    entropy = cross_entropy(row(0, 1000, -1000, 5), row(1, 0, 0, 1), row(1, 1, 2, 0))
    assert float(entropy) == pytest.approx((math.log(2) + 1000 + 0) / 4)
    slopes = gradient(cross_entropy, row(0, 0), row(1, 0), row(1, 3))
    assert slopes.tolist() == pytest.approx([-0.5 / 4, 3 * 0.5 / 4])


def test_distillation_costs_least_where_the_probabilities_are_equal():
    # p = 0.5 and q = 0.5, 1: overlap 2 * 0.75 = 1.5, squares 0.5 + 1.25; every entropy is log 2
    taught = row(0.5, 1)
    assert float(distillation(row(0, 0), taught, row(1, 1))) == pytest.approx(1 - 2.5 / 2.75 + 0.3 * math.log(2))
    taught = row(0.2, 0.6, 0.9)
    equal = torch.logit(taught)
    assert gradient(distillation, equal, taught, row(1, 2, 1)) == pytest.approx(0, abs=1e-12)
    for off in (-0.1, 0.1):
        assert distillation(equal + off, taught, row(1, 2, 1)) > distillation(equal, taught, row(1, 2, 1))


def test_skeleton_recall_is_the_share_of_the_tube_and_blind_beside_it():
    p, tube, w = row(0.5, 1, 0.7), row(1, 1, 0), row(1, 1, 1)
    assert float(skeleton_recall(p, tube, w)) == pytest.approx(1 - 2.5 / 3)
    assert gradient(skeleton_recall, p, tube, w).tolist() == pytest.approx([-1 / 3, -1 / 3, 0])


def test_the_soft_skeleton_of_a_bar_is_its_axis():
    bar = torch.zeros(1, 1, 5, 5, 9)
    bar[..., 1:4, 1:4, 1:8] = 1
    axis = torch.zeros_like(bar)
    axis[..., 2, 2, 2:7] = 1  # the erosion takes one voxel off each end too
    assert torch.equal(soft_skeleton(bar, 3), axis)
    assert torch.equal(soft_skeleton(axis, 3), axis)
    assert torch.equal(soft_skeleton(bar, 1), axis)  # one erosion is enough for three voxels
    assert torch.equal(soft_skeleton(bar, 0), torch.zeros_like(bar))


def test_the_soft_skeleton_keeps_a_hair_and_grows_by_what_is_missing():
    haired = torch.zeros(1, 1, 5, 5, 8)
    haired[..., 1:4, 1:4, 1:4] = 1
    haired[..., 2, 2, 4:7] = 1
    # the opening keeps the voxel beside the cube
    assert soft_skeleton(haired, 0)[0, 0, 2, 2].tolist() == [0, 0, 0, 0, 0, 1, 1, 0]
    soft = torch.zeros(1, 1, 5, 5, 5)
    soft[..., 1:4, 1:4, 1:4] = 0.5
    soft[..., 2, 2, 2] = 1
    # 0.5 before the erosion, then half of the other half
    assert soft_skeleton(soft, 1)[0, 0, 2, 2].tolist() == [0, 0, 0.75, 0, 0]


def test_a_broken_line_costs_cl_dice_what_it_lacks_in_length():
    g = torch.zeros(1, 1, 3, 3, 7)
    g[..., 1, 1, 1:6] = 1
    p = g.clone()
    p[..., 1, 1, 3] = 0
    w = torch.ones_like(g)
    assert float(cl_dice(g, g, w)) == 0
    # precision 1, recall (4 + 1) / (5 + 1)
    assert float(cl_dice(p, g, w)) == pytest.approx(1 - 2 * (5 / 6) / (11 / 6))


def test_cl_dice_forgives_a_thicker_tube_more_than_a_gap():
    thin, thick = torch.zeros(1, 1, 9, 9, 24), torch.zeros(1, 1, 9, 9, 24)
    thin[..., 3:6, 3:6, 2:22] = 1
    thick[..., 2:7, 2:7, 2:22] = 1
    torn = thin.clone()
    torn[..., 9:13] = 0
    w = torch.ones_like(thin)
    assert float(cl_dice(thick, thin, w)) == 0
    # precision 1; of the skeleton's 18 voxels 4 lie in the gap
    assert float(cl_dice(torn, thin, w)) == pytest.approx(1 - 2 * (15 / 19) / (34 / 19))
    assert weighted_dice(thick, thin, w) > weighted_dice(torn, thin, w)


def test_the_loss_of_classes_is_the_sum_over_them():
    logits = torch.tensor([0.0, 2.0, -1.0, 0.5]).double().reshape(1, 2, 1, 1, 2)
    classes = torch.tensor([1, 2]).reshape(1, 1, 1, 1, 2)
    w = torch.ones(1, 1, 1, 1, 2).double()

    def one(x, g):
        p = [1 / (1 + math.exp(-value)) for value in x]
        overlap = sum(a * b for a, b in zip(p, g, strict=True))
        entropy = -sum(math.log(a if b else 1 - a) for a, b in zip(p, g, strict=True)) / 2
        return 1 - (2 * overlap + 1) / (sum(p) + sum(g) + 1) + entropy

    expected = one([0.0, 2.0], [1, 0]) + one([-1.0, 0.5], [0, 1])
    assert float(class_dice_and_cross_entropy(logits, classes, w)) == pytest.approx(expected)


def test_the_probability_of_any_class_is_the_largest():
    logits = torch.tensor([0.0, -3.0, 1.0, -2.0, -1.0, -5.0]).reshape(1, 3, 1, 1, 2)
    union = union_probability(logits)
    assert union.shape == (1, 1, 1, 1, 2)
    assert union.flatten().tolist() == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(2))])


def test_dice_and_cross_entropy_is_their_sum_with_a_share():
    logits, g, w = row(0.0, 2.0, -1.0), row(1, 1, 0), row(1, 0, 2)
    expected = weighted_dice(torch.sigmoid(logits), g, w) + 0.3 * cross_entropy(logits, g, w)
    assert float(dice_and_cross_entropy(logits, g, w)) == pytest.approx(float(expected))


@every_loss
def test_gradients_are_finite_differences(loss, a_patch):
    p, g, w = a_patch
    assert torch.autograd.gradcheck(lambda values: loss(values, g, w), p.clone().requires_grad_(), eps=1e-6)


@every_loss
def test_voxels_left_out_change_nothing(loss, a_patch):
    p, g, w = a_patch
    other = torch.where(w > 0, p, 1 - p)
    assert float(loss(other, g, w)) == float(loss(p, g, w))
    slopes = gradient(loss, p, g, w)
    assert (slopes[w == 0] == 0).all() and slopes[w > 0].abs().max() > 0


@every_loss
def test_a_better_answer_costs_less(loss, a_patch):
    _, g, w = a_patch
    values = torch.where(g > 0, 0.7, 0.2) if loss not in ON_LOGITS.values() else torch.where(g > 0, 1.0, -1.0)
    nudge = 0.1 * torch.where(g > 0, 1.0, -1.0)
    assert loss(values + nudge, g, w) < loss(values, g, w)


@every_loss
@pytest.mark.parametrize("voxels_of_airway", [0, 5], ids=["no airway", "some airway"])
@pytest.mark.parametrize("counting", [0, 1], ids=["all left out", "all counting"])
def test_certainty_gives_finite_losses_and_gradients(loss, voxels_of_airway, counting):
    g, w = torch.zeros(27), torch.full((27,), float(counting))
    g[:voxels_of_airway] = 1
    certain = (0.0, 1.0) if loss not in ON_LOGITS.values() else (-200.0, 200.0)
    for p in certain:
        values = cube(torch.full((27,), p)).requires_grad_()
        found = loss(values, cube(g), cube(w))
        found.backward()
        assert torch.isfinite(found) and torch.isfinite(values.grad).all()
        if not counting:
            assert float(found.detach()) == 0 and not values.grad.any()


@every_loss
def test_half_precision_is_summed_up_in_float32(loss):
    # 100,000 voxels are more than the largest half, 65,504
    values = torch.ones(1, 1, 1, 100, 1000, dtype=torch.float16)
    found = loss(values, values, values)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(loss(values.float(), values.float(), values.float())), abs=1e-6)
