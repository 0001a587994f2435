"""The loss of a stage: the sum of its recipe's terms for one head's logits."""

import torch
from torch import Tensor

from AirwaySegTraining.data.augmentation import IGNORE
from AirwaySegTraining.fit.recipes import Stage, Term
from AirwaySegTraining.losses import equations

TEACHER = "teacher"
"""The teacher's probabilities among the tensors of a batch."""


def stage_loss(stage: Stage, logits: Tensor, batch: dict[str, Tensor], *, of_encoder: bool = False) -> Tensor:
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
    of_encoder
        Whether the logits are those of the encoder's head, for which a term may have another factor.
    """
    logits = logits.float()
    shares = [(term, term.share * term.encoder if of_encoder else term.share) for term in stage.loss]
    target, counted = _target(batch)
    terms = [share * term_loss(term, logits, target, counted, batch) for term, share in shares if share > 0]
    return torch.stack(terms).sum() if terms else 0 * logits.sum()  # DistributedDataParallel expects both heads


@torch.no_grad()
def patch_losses(stage: Stage, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """The loss of each patch for hard mining, (B,): the first term of the stage's loss, without its share."""
    found = []
    for k in range(len(logits)):
        one = {name: part[k : k + 1] for name, part in batch.items()}
        found.append(term_loss(stage.loss[0], logits[k : k + 1].float(), *_target(one), one))
    return torch.stack(found)


def _target(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The target, 1 on the airway, and the factor of each voxel's weight."""
    counted = (batch["label"] != IGNORE).float()
    return (batch["label"] == 1).float(), counted * batch["emphasis"] if "emphasis" in batch else counted


def term_loss(term: Term, logits: Tensor, target: Tensor, counted: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """One term; ``counted`` is 0 for left-out voxels, more than 1 where a person corrected the label, 1 elsewhere."""
    loss = term.loss
    predicted = logits if loss.of_logits else equations.union_probability(logits)
    if loss.target_map is not None:
        target = batch[loss.target_map] * target
    weight = batch["weight"] if loss.weighted else counted
    if loss.of_teacher:
        target, weight = batch[TEACHER], torch.ones_like(counted)
    extra = [] if loss.extra_map is None else [batch[loss.extra_map]]
    function = loss.equation if callable(loss.equation) else getattr(equations, loss.equation)
    return function(predicted, target, weight, *extra, **term.numbers)
