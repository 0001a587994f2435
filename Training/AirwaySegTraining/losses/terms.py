"""The losses that a recipe can name, one row each; `equations` has the functions.

To add a loss, write its function in `equations` and a row in `LOSSES`: recipes, patches and training read this table.
PyTorch is not imported here, because the commands read recipes before they need it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Loss:
    """What a loss is computed from, and what it takes.

    ``equation`` is the name of the function in `equations`. It is called with the probability (with the logits if
    ``of_logits``), the target, the weight of each voxel, the ``extra_map`` if there is one, and the ``numbers`` of the
    recipe by their names.
    """

    equation: str
    numbers: tuple[str, ...] = ()
    of_logits: bool = False
    weighted: bool = False
    """The stage's ``weights`` are the weight of each voxel; without it that is 1 for voxels that count."""
    emphasised: bool = False
    """Corrected voxels can count more (a stage's ``edited``)."""
    target_map: str | None = None
    """The map of a patch that is the target, within the airway, instead of the airway itself."""
    extra_map: str | None = None
    """A map of a patch that the function takes besides."""
    largest_alpha: float = 0.99
    classes: tuple[int, ...] = (1,)
    """How many classes the network may have."""

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
    "classes": Loss("class_dice_and_cross_entropy", of_logits=True, target_map="classes", classes=(3,)),
}
"""Every loss by its name in a recipe."""

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
"""Those that depend on what a model has missed, and so are worked out for a stage and not kept with a case."""


def losses_that(attribute: str) -> tuple[str, ...]:
    """Names of the losses of which ``attribute``, "weighted" or "emphasised", is true."""
    return tuple(name for name, loss in LOSSES.items() if getattr(loss, attribute))
