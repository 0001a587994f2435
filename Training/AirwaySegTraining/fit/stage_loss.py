"""The loss of a stage: the sum of its recipe's terms for one head's logits."""

import torch
from torch import Tensor

from AirwaySegTraining.data.augmentation import IGNORE
from AirwaySegTraining.fit.recipes import Stage, Term
from AirwaySegTraining.losses import equations
from AirwaySegTraining.losses.weight_maps import general_union_m


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
    probability = equations.union_probability(logits)
    alpha, exponent = term.alpha or 0.0, term.exponent or 0.0
    match term.term:
        case "dice":
            loss = equations.weighted_dice if "emphasis" in batch else equations.dice
            return loss(probability, target, counted)
        case "weighted_dice":
            return equations.weighted_dice(probability, target, batch["weight"])
        case "cross_entropy":
            return equations.cross_entropy(logits, target, counted)
        case "tversky":
            return equations.tversky(probability, target, counted, alpha)
        case "root_tversky":
            return equations.root_tversky(probability, target, counted, alpha, exponent)
        case "general_union":
            # As `weightmaps.general_union_weight`, on the device; r_d = 0.5 (WingsNet, IV-B).
            weight = (1 - general_union_m(alpha) * batch["distance"].float().sqrt()) * counted
            return equations.general_union(probability, target, weight, alpha, exponent)
        case "tang":
            return equations.tang(probability, target, batch["weight"], alpha, exponent)
        case "tang_in_print":
            return equations.tang_in_print(probability, target, batch["weight"], exponent)
        case "skeleton_recall":
            return equations.skeleton_recall(probability, batch["tube"] * target, counted)
        case "cl_dice":
            return equations.cl_dice(probability, target, counted)
        case "classes":
            return equations.class_dice_and_cross_entropy(logits, batch["classes"] * target, counted)
    raise ValueError(term.term)
