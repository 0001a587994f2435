"""Losses, one function for each equation. A new one also needs a row in `terms`, by which recipes name it.

Letters: B batch, S side of a patch, K classes; p probability 0..1, g target 0 or 1, w weight >= 0, all of one shape,
usually (B, 1, S, S, S). A voxel of weight 0 counts neither in the value nor in the gradient. Every loss is a scalar:
sums run over the whole batch, at least in float32, with `SMOOTH` in numerator and denominator, so that values and
gradients are finite even without airway or without voxels that count.

Sources: WingsNet is Zheng et al., IEEE TMI 2021, arXiv:2011.11952; Tang is Tang, Local-imbalance-based and
Centerline-distance Weight Dice-loss (winner of ATM'22); DeepTree is Accurate Airway Tree Segmentation in CT Scans via
Anatomy-aware Multi-class Segmentation and Deep Breakage Connection. Their weights are in `weight_maps`.
"""

import warnings

import torch
from torch import Tensor
from torch.nn import functional

from AirwaySegTraining.losses.weight_maps import general_union_m

SMOOTH = 1.0
"""Added to numerator and denominator."""

EPSILON = 1e-4
"""Added to p before a power: at p = 0 a root has no finite derivative (WingsNet, below Eq. 13 and in IV-B)."""


def weighted_dice(probability: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted Dice loss (WingsNet Eq. 8 and 22): 1 - 2 sum(w p g) / sum(w (p + g)).

    With weights 0 and 1 it is the Dice loss (Eq. 1 and 19). Its gradient ratio of foreground to background is
    2 / (1 - loss) - 1, which falls to 1 as large airways are learnt.
    """
    p, g, w = _wide(probability, target, weight)
    return 1 - _fraction(2 * (w * p * g).sum(), (w * (p + g)).sum())


def tversky(probability: Tensor, target: Tensor, weight: Tensor, alpha: float) -> Tensor:
    """Tversky loss (WingsNet Eq. 10 and 26): 1 - sum(p g) / sum(alpha p + beta g), beta = 1 - alpha.

    Over the voxels whose weight is above 0. Gradient ratio: 1 / (alpha (1 - loss)) - 1 >= beta / alpha.
    With weights ("Prior Tversky" in WingsNet's Fig. 7) it is `general_union` with exponent 1.
    """
    p, g, w = _wide(probability, target, _counts(weight))
    return 1 - _fraction((w * p * g).sum(), (w * (alpha * p + (1 - alpha) * g)).sum())


def root_tversky(
    probability: Tensor, target: Tensor, weight: Tensor, alpha: float = 0.1, exponent: float = 0.7
) -> Tensor:
    """Root Tversky loss (WingsNet Eq. 12 and 29): 1 - sum(p^r g) / sum(alpha p + beta g), r = ``exponent`` < 1.

    Over the voxels whose weight is above 0; that is `general_union` with all weights 1.
    """
    return general_union(probability, target, _counts(weight), alpha, exponent)


def general_union(
    probability: Tensor, target: Tensor, weight: Tensor, alpha: float = 0.1, exponent: float = 0.7
) -> Tensor:
    """General Union loss (WingsNet Eq. 16 and 33): 1 - sum(w (p + eps)^r g) / sum(w (alpha p + beta g)).

    r = ``exponent``, the paper's r_l; for w see `general_union_by_distance`; the paper uses alpha 0.1, then 0.2.
    Gradient ratio: w_f (r p^(r-1) / (alpha (1 - loss)) - 1), which is largest for hard voxels.
    In the paper, eps is in the gradient only (below Eq. 13); in the loss itself it can make it as low as -1e-4.
    Do not pass logits: the power of a negative number is NaN.
    """
    p, g, w = _wide(probability, target, weight)
    return 1 - _fraction((w * (p + EPSILON) ** exponent * g).sum(), (w * (alpha * p + (1 - alpha) * g)).sum())


def general_union_by_distance(
    probability: Tensor, target: Tensor, counted: Tensor, distance: Tensor, alpha: float, exponent: float
) -> Tensor:
    """General Union loss with the paper's weight w = 1 - m (d / d_max)^r_d (WingsNet Eq. 15 and 32).

    ``distance`` is d / d_max (`weight_maps.centerline_distance`), m is `weight_maps.general_union_m` of alpha and
    ``exponent``, so that the smallest ratio of foreground to background gradient is 1, and r_d is 0.5 (WingsNet, IV-B);
    w is 1 on background. It is multiplied by ``counted``, the weight of each voxel. An exponent above 1 has no such
    ratio: then m is that of 1.
    """
    weight = (1 - general_union_m(alpha, min(exponent, 1.0)) * distance.float().sqrt()) * counted
    return general_union(probability, target, weight, alpha, exponent)


def tang(probability: Tensor, target: Tensor, weight: Tensor, alpha: float = 0.2, exponent: float = 0.7) -> Tensor:
    """Tang's loss as in his program: `general_union` with alpha 0.2 and r = 0.7. Warns above r = 1.

    w in the paper is `weight_maps.lib_weight`, later plus `weight_maps.tang_distance_weight` (Tang Eq. 5); in the
    program it is `weight_maps.imbalance_weight`, later plus half of `weight_maps.nearest_back_propagation_weight`, with
    the sum raised to a power. The printed formula is `tang_in_print`.
    """
    _warn_of_power(exponent)
    return general_union(probability, target, weight, alpha, exponent)


def tang_in_print(probability: Tensor, target: Tensor, weight: Tensor, exponent: float = 2.0) -> Tensor:
    """Tang's loss as printed (Eq. 2): 1 - sum(w p^beta g) / sum(w (p + g)), beta = ``exponent``. Warns above 1.

    Two errors. With beta = 2 the gradient *lowers* p of every foreground voxel whose p is below half of the fraction,
    which is at most 0.25: these are the airways not yet found. And without Dice's factor 2 the loss of a perfect
    prediction is 0.5.
    """
    _warn_of_power(exponent)
    p, g, w = _wide(probability, target, weight)
    return 1 - _fraction((w * (p + EPSILON) ** exponent * g).sum(), (w * (p + g)).sum())


def _warn_of_power(exponent: float) -> None:
    if exponent > 1:
        warnings.warn(
            f"Tang's loss with the exponent {exponent:g} lowers the probability of airways that are not yet found; "
            "his program uses 0.7.",
            stacklevel=3,
        )


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Binary cross-entropy: sum(w h) / sum(w), h = -g log p - (1 - g) log(1 - p); from logits, for accuracy."""
    x, g, w = _wide(logits, target, weight)
    entropy = functional.binary_cross_entropy_with_logits(x, g, weight=w, reduction="sum")
    return entropy / w.sum().clamp(min=SMOOTH)


def distillation(logits: Tensor, taught: Tensor, weight: Tensor, entropy_share: float = 0.3) -> Tensor:
    """Dice of two probabilities, 1 - 2 sum(w p q) / sum(w (p^2 + q^2)), + ``entropy_share`` x cross-entropy.

    q = ``taught`` is another network's probability of the voxel (Hinton et al. 2015, arXiv:1503.02531). The squares
    (Milletari et al. 2016, arXiv:1606.04797) let the first part fall to 0 where p = q, between 0 and 1 too.
    """
    x, q, w = _wide(logits, taught, weight)
    p = torch.sigmoid(x)
    dice = 1 - _fraction(2 * (w * p * q).sum(), (w * (p * p + q * q)).sum())
    return dice + entropy_share * cross_entropy(logits, taught, weight)


def skeleton_recall(probability: Tensor, tube: Tensor, weight: Tensor) -> Tensor:
    """Skeleton Recall loss: 1 - sum(w p t) / sum(w t), t = `weight_maps.tube`: the share of the tube that is found.

    Kirchhoff et al., ECCV 2024, arXiv:2404.03010. It does not penalise false positives, so combine it with another
    loss.
    """
    p, t, w = _wide(probability, tube, weight)
    return 1 - _fraction((w * p * t).sum(), (w * t).sum())


def cl_dice(probability: Tensor, target: Tensor, weight: Tensor, iterations: int = 5) -> Tensor:
    """Soft clDice loss: 1 - 2 P R / (P + R), P = sum(w s(p) g) / sum(w s(p)), R = sum(w s(g) p) / sum(w s(g)).

    s is `soft_skeleton`. Shit et al., CVPR 2021, doi:10.1109/CVPR46437.2021.01629, Algorithm 2. Tensors are
    (B, 1, S, S, S). Voxels that do not count take the target's value, so that the skeleton continues through them.
    """
    p, g, w = _wide(probability, target, weight)
    p = torch.where(w > 0, p, g)
    of_p, of_g = soft_skeleton(p, iterations), soft_skeleton(g, iterations)
    precise = _fraction((w * of_p * g).sum(), (w * of_p).sum())
    complete = _fraction((w * of_g * p).sum(), (w * of_g).sum())
    return 1 - 2 * precise * complete / (precise + complete)


def soft_skeleton(values: Tensor, iterations: int) -> Tensor:
    """Skeleton of a soft mask (B, 1, S, S, S) with values 0..1: what an opening removes, after each erosion.

    Shit et al. 2021, Algorithm 1. ``iterations`` is the number of erosions: structures wider than about twice as many
    voxels have no skeleton and do not count.
    """
    skeleton = torch.zeros_like(values)
    for step in range(iterations + 1):
        values = _eroded(values) if step else values
        taken_off = functional.relu(values - _dilated(_eroded(values)))
        skeleton = skeleton + (1 - skeleton) * taken_off
    return skeleton


def class_dice_and_cross_entropy(logits: Tensor, classes: Tensor, weight: Tensor, entropy_share: float = 1.0) -> Tensor:
    """Sum over DeepTree's classes of Dice + ``entropy_share`` x cross-entropy (DeepTree Eq. 1 with L_S = Dice + CE).

    Parameters
    ----------
    logits
        (B, K, S, S, S): one sigmoid for each class, without background.
    classes
        (B, 1, S, S, S): 0 background, 1..K from `weight_maps.classes_by_diameter`.
    weight
        (B, 1, S, S, S).
    """
    losses = [
        dice_and_cross_entropy(logits[:, k : k + 1], (classes == k + 1).to(logits.dtype), weight, entropy_share)
        for k in range(logits.shape[1])
    ]
    return torch.stack(losses).sum()


def union_probability(logits: Tensor) -> Tensor:
    """Probability of any class, (B, 1, S, S, S), of logits (B, K, S, S, S): the largest, as inference takes it.

    DeepTree adds the General Union loss of this against ``classes > 0`` to `class_dice_and_cross_entropy`.
    """
    return torch.sigmoid(_wide(logits)[0]).amax(dim=1, keepdim=True)


def dice_and_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor, entropy_share: float = 0.3) -> Tensor:
    """Weighted Dice + ``entropy_share`` x cross-entropy: what the bundled weights were trained with."""
    probability = torch.sigmoid(_wide(logits)[0])
    return weighted_dice(probability, target, weight) + entropy_share * cross_entropy(logits, target, weight)


def _fraction(numerator: Tensor, denominator: Tensor) -> Tensor:
    return (numerator + SMOOTH) / (denominator + SMOOTH)


def _counts(weight: Tensor) -> Tensor:
    """1 where a voxel counts, for losses without other weights."""
    return (weight > 0).to(weight.dtype)


def _wide(*tensors: Tensor) -> list[Tensor]:
    """The tensors in at least float32: half precision is too coarse for sums over a patch."""
    return [tensor if tensor.dtype == torch.float64 else tensor.float() for tensor in tensors]


def _eroded(values: Tensor) -> Tensor:
    """The smallest of a voxel and its six neighbours: three windows of three voxels, one along each axis."""
    along = [
        -functional.max_pool3d(-values, side, 1, [k // 2 for k in side]) for side in ((3, 1, 1), (1, 3, 1), (1, 1, 3))
    ]
    return torch.minimum(torch.minimum(along[0], along[1]), along[2])


def _dilated(values: Tensor) -> Tensor:
    """The largest of a voxel and its 26 neighbours."""
    return functional.max_pool3d(values, 3, 1, 1)
