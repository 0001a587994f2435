"""The table of the losses that a recipe can name, one row each; their formulas are in `equations`.

To add a loss, write its function in `equations` and a row in `LOSSES`: recipes, patches and training read this table.
To add one without changing the package, call `register_loss` in a Python file that is named with ``--plugin``.
PyTorch is not imported here, because the commands read recipes before they need it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Loss:
    """The function of a loss, and its inputs.

    ``equation`` is the function, or its name in `equations`. Its arguments are the probability (the logits if
    ``of_logits``), the target, the weight of each voxel, the ``extra_map`` if there is one, and the ``numbers`` of the
    recipe by their names.
    """

    equation: str | Callable[..., Any]
    numbers: tuple[str, ...] = ()
    of_logits: bool = False
    weighted: bool = False
    """Whether the stage's ``weights`` apply; otherwise every voxel that counts has weight 1."""
    emphasised: bool = False
    """Whether corrected voxels can have a larger weight (a stage's ``edited``)."""
    target_map: str | None = None
    """The map of a patch that is the target instead of the airway."""
    extra_map: str | None = None
    """A map of a patch that is a further argument of the function."""
    of_teacher: bool = False
    """Whether the target is the probability of another network, the teacher; then every voxel counts."""
    largest_alpha: float = 0.99
    classes: tuple[int, ...] = (1,)
    """Allowed numbers of classes of the network."""

    @property
    def maps(self) -> tuple[str, ...]:
        """The maps that are cut with every patch."""
        return tuple(name for name in (self.target_map, self.extra_map) if name is not None)


LOSSES: dict[str, Loss] = {
    "dice": Loss("weighted_dice", emphasised=True),
    "weighted_dice": Loss("weighted_dice", weighted=True),
    "cross_entropy": Loss("cross_entropy", of_logits=True, emphasised=True),
    "tversky": Loss("tversky", ("alpha",)),
    "root_tversky": Loss("root_tversky", ("alpha", "exponent")),
    "general_union": Loss(
        "general_union_by_distance",
        ("alpha", "exponent"),
        emphasised=True,
        extra_map="distance",
        largest_alpha=0.5,  # and at most half of the exponent: see `weight_maps.general_union_m`
        classes=(1, 3),
    ),
    "tang": Loss("tang", ("alpha", "exponent"), weighted=True),
    "tang_in_print": Loss("tang_in_print", ("exponent",), weighted=True),
    "skeleton_recall": Loss("skeleton_recall", target_map="tube"),
    "cl_dice": Loss("cl_dice"),
    "distillation": Loss("distillation", of_logits=True, of_teacher=True),
    "classes": Loss("class_dice_and_cross_entropy", of_logits=True, target_map="classes", classes=(3,)),
}
"""Every loss by its name in a recipe."""

_BUILT_IN = frozenset(LOSSES)


def register_loss(name: str, loss: Loss) -> None:
    """Add a loss to `LOSSES`; it replaces one of that name that was added before, never one of the package.

    Raises
    ------
    ValueError
        If the name is that of a loss of the package.
    """
    if name in _BUILT_IN:
        raise ValueError(f"there is a loss {name!r} already; choose another name")
    LOSSES[name] = loss


WEIGHT_MAPS = {
    "lib": "rate",
    "centerline": "distance",
    "imbalance": "rate",
    "back_propagation": "back_propagation",
    "back_propagation_nearest": "back_propagation_nearest",
    "inverse_component": "inverse_component",
    "inverse_branch": "inverse_branch",
}
"""The weights of the foreground by their names in a recipe, each with its map; a stage's weight is their sum."""

MISSED_WEIGHTS = ("back_propagation", "back_propagation_nearest")
"""Those that depend on the voxels a model missed, and so are computed for a stage and not stored with a case."""


def losses_that(attribute: str) -> tuple[str, ...]:
    """Names of the losses of which ``attribute``, "weighted" or "emphasised", is true."""
    return tuple(name for name, loss in LOSSES.items() if getattr(loss, attribute))
