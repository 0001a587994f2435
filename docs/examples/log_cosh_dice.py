"""A loss as a plug-in: airwayseg-train fit --plugin log_cosh_dice.py --recipe plain_unet.toml ...

Jadon, A survey of loss functions for semantic segmentation, IEEE CIBCB 2020, arXiv:2006.14822.
"""

import torch
from torch import Tensor

from AirwaySegTraining.losses.equations import weighted_dice
from AirwaySegTraining.losses.terms import Loss, register_loss


def log_cosh_dice(probability: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The logarithm of the hyperbolic cosine of the Dice loss, a scalar; each tensor is (B, 1, S, S, S)."""
    return torch.log(torch.cosh(weighted_dice(probability, target, weight)))


register_loss("log_cosh_dice", Loss(log_cosh_dice, emphasised=True))
