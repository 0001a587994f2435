"""Losses on probabilities and labels; voxels with weight 0 do not count."""

import torch
from torch import Tensor
from torch.nn import functional


def dice_loss(probability: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """1 - weighted Dice over the whole batch (smooth term 1); tensors of one shape, values 0..1."""
    overlap = (weight * probability * target).sum()
    return 1 - (2 * overlap + 1) / ((weight * probability).sum() + (weight * target).sum() + 1)


def dice_and_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor, entropy_share: float = 0.3) -> Tensor:
    """Dice + ``entropy_share`` x binary cross-entropy (mean over the voxels that count); computed in float32."""
    logits = logits.float()
    entropy = functional.binary_cross_entropy_with_logits(logits, target, weight=weight, reduction="sum")
    return dice_loss(torch.sigmoid(logits), target, weight) + entropy_share * entropy / weight.sum().clamp(min=1)
