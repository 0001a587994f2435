"""The loss of a stage: the sum of its recipe's terms for one head's logits."""

import torch
from torch import Tensor

from AirwaySegTraining.data.augmentation import IGNORE
from AirwaySegTraining.fit.recipes import Stage, Term
from AirwaySegTraining.losses import equations


def stage_loss(stage: Stage, logits: Tensor, batch: dict[str, Tensor], *, of_encoder: bool = False) -> Tensor:
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
    of_encoder
        Whether the logits are those of the encoder's head, where a term may count more or less.
    """
    logits = logits.float()
    shares = [(term, term.share * term.encoder if of_encoder else term.share) for term in stage.loss]
    target, counted = _target(batch)
    terms = [share * term_loss(term, logits, target, counted, batch) for term, share in shares if share > 0]
    return torch.stack(terms).sum() if terms else 0 * logits.sum()  # the head still takes part, as processes expect


@torch.no_grad()
def patch_losses(stage: Stage, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """How hard each patch is, (B,): the first term of the stage's loss, without its share, on the patch by itself."""
    found = []
    for k in range(len(logits)):
        one = {name: part[k : k + 1] for name, part in batch.items()}
        found.append(term_loss(stage.loss[0], logits[k : k + 1].float(), *_target(one), one))
    return torch.stack(found)


def _target(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """1 on the airway, and how much each voxel counts."""
    counted = (batch["label"] != IGNORE).float()
    return (batch["label"] == 1).float(), counted * batch["emphasis"] if "emphasis" in batch else counted


def term_loss(term: Term, logits: Tensor, target: Tensor, counted: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """One term; ``counted`` is 0 for voxels left out and 1 for all others, more where a person corrected the label."""
    loss = term.loss
    predicted = logits if loss.of_logits else equations.union_probability(logits)
    if loss.target_map is not None:
        target = batch[loss.target_map] * target
    weight = batch["weight"] if loss.weighted else counted
    extra = [] if loss.extra_map is None else [batch[loss.extra_map]]
    return getattr(equations, loss.equation)(predicted, target, weight, *extra, **term.numbers)
