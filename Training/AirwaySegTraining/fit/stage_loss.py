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
        Whose terms are added, each times its share.
    logits
        (B, K, S, S, S); with several classes K a voxel's probability is the largest of theirs.
    batch
        "label" and what `patches.Batches` gives for the stage besides, each (B, 1, S, S, S); "emphasis", where it is
        given, is how much each voxel counts besides.
    """
    logits = logits.float()
    target = (batch["label"] == 1).float()
    counted = (batch["label"] != IGNORE).float()
    if "emphasis" in batch:
        counted = counted * batch["emphasis"]
    terms = [term.share * term_loss(term, logits, target, counted, batch) for term in stage.loss]
    return torch.stack(terms).sum()


def term_loss(term: Term, logits: Tensor, target: Tensor, counted: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """One term; ``counted`` is 0 for voxels left out and 1 for all others, more where a person corrected the label."""
    loss = term.loss
    predicted = logits if loss.of_logits else equations.union_probability(logits)
    if loss.target_map is not None:
        target = batch[loss.target_map] * target
    weight = batch["weight"] if loss.weighted else counted
    extra = [] if loss.extra_map is None else [batch[loss.extra_map]]
    return getattr(equations, loss.equation)(predicted, target, weight, *extra, **term.numbers)
