"""The loss of a stage: the sum of its recipe's terms for one head's logits."""

import torch
from torch import Tensor

from AirwaySegTraining.data.augmentation import IGNORE
from AirwaySegTraining.fit.recipes import Stage, Term
from AirwaySegTraining.losses import equations


def stage_loss(stage: Stage, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """The stage's loss, a scalar; with group supervision it is computed for both heads and added (WingsNet, III-B).

    Parameters
    ----------
    stage
        Its terms are added, each multiplied by its share.
    logits
        (B, K, S, S, S); with several classes K a voxel's probability is the largest of theirs.
    batch
        "label" and the other tensors of `patches.Batches` for the stage, each (B, 1, S, S, S); "emphasis", if there is
        one, is an additional factor of each voxel's weight.
    """
    logits = logits.float()
    target = (batch["label"] == 1).float()
    counted = (batch["label"] != IGNORE).float()
    if "emphasis" in batch:
        counted = counted * batch["emphasis"]
    terms = [term.share * term_loss(term, logits, target, counted, batch) for term in stage.loss]
    return torch.stack(terms).sum()


def term_loss(term: Term, logits: Tensor, target: Tensor, counted: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """One term; ``counted`` is 0 for left-out voxels, more than 1 where a person corrected the label, 1 elsewhere."""
    loss = term.loss
    predicted = logits if loss.of_logits else equations.union_probability(logits)
    if loss.target_map is not None:
        target = batch[loss.target_map] * target
    weight = batch["weight"] if loss.weighted else counted
    extra = [] if loss.extra_map is None else [batch[loss.extra_map]]
    return getattr(equations, loss.equation)(predicted, target, weight, *extra, **term.numbers)
