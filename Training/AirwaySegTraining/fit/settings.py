"""What one training is told besides its recipe, and what of the recipe it changes."""

from dataclasses import dataclass, replace

from AirwaySegLib.errors import AirwaySegError
from AirwaySegTraining.fit.recipes import Recipe, load_recipe

FREE_ON_RESUME = ("device", "workers", "checkpoint_every", "validate_every")
"""Settings that may differ when a run is continued: they do not change the weights."""


PRECISIONS = ("auto", "bfloat16", "float32")


def check_precision(precision: str) -> None:
    """Refuse a precision that there is not."""
    if precision not in PRECISIONS:
        raise AirwaySegError(f"--precision is {precision!r}; it must be auto, bfloat16 or float32.")


@dataclass(frozen=True)
class FitSettings:
    """One training.

    ``steps``, ``rate`` and ``frozen_from`` replace the value of a recipe of one stage. With ``minutes`` such a recipe
    ends after that time, whatever its number of steps, and the learning rate follows the time; ``patch``, ``batch`` and
    ``norm`` that of any recipe; None leaves it. ``shares`` are those of the data folders in the patches (none: by
    their numbers of cases), ``rehearsal`` is the share of bundled simulated patches beside them. ``teacher`` names the
    weights whose probabilities the loss "distillation" teaches. ``validation`` is the share of the patients that are
    held out, of whose cases at most ``validate_cases`` are looked at. What ``precision`` "auto" and ``workers`` None
    stand for, `machine.settled` says.
    """

    recipe: str = "default"
    steps: int | None = None
    steps_scale: float = 1.0
    minutes: float | None = None
    batch: int | None = None
    patch: int | None = None
    rate: float | None = None
    norm: str | None = None
    frozen_from: float | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None
    checkpoint_every: int = 200
    validation: float = 0.1
    validate_every: int = 1000
    validate_cases: int = 20
    start_from: str | None = None
    teacher: str | None = None
    shares: tuple[float, ...] = ()
    rehearsal: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no training can use."""
        for name in ("seed", "workers"):
            if _given(self, name) and getattr(self, name) < 0:
                raise AirwaySegError(f"{_flag(name)} is {getattr(self, name)}; it must not be below 0.")
        for name in ("steps_scale", "checkpoint_every", "validate_every"):
            if not getattr(self, name) > 0:
                raise AirwaySegError(f"{_flag(name)} is {getattr(self, name)}; it must be above 0.")
        if self.minutes is not None:
            if not 0 < self.minutes < float("inf"):
                raise AirwaySegError(f"--minutes is {self.minutes}; it must be above 0.")
            if self.steps is not None or self.steps_scale != 1:
                raise AirwaySegError("--minutes says how long to train: leave out --steps and --steps-scale.")
        for name in ("steps", "validate_cases"):
            if _given(self, name) and getattr(self, name) < 1:
                raise AirwaySegError(f"{_flag(name)} is {getattr(self, name)}; it must be at least 1.")
        for name in ("validation", "rehearsal"):
            if not 0 <= getattr(self, name) < 1:
                raise AirwaySegError(f"{_flag(name)} is {getattr(self, name)}; it must be from 0 to below 1.")
        if self.validate_every % self.checkpoint_every:
            raise AirwaySegError(
                f"--validate-every is {self.validate_every}, no multiple of --checkpoint-every {self.checkpoint_every}."
            )
        check_precision(self.precision)

    def full_recipe(self) -> Recipe:
        """The recipe with this training's changes.

        Raises
        ------
        AirwaySegError
            If there is no such recipe, a value is wrong, a change is meant for recipes of one stage, or the recipe goes
            on from weights and none are given.
        """
        recipe = load_recipe(self.recipe)
        if recipe.needs_weights and not self.start_from:
            raise AirwaySegError(
                f"Recipe {recipe.name} goes on from weights that know airways already: name them with --start-from, or "
                "begin with --recipe default."
            )
        for_one = [name for name in ("steps", "minutes", "rate", "frozen_from") if _given(self, name)]
        if for_one and len(recipe.stages) > 1:
            name = for_one[0]
            raise AirwaySegError(
                f"{_flag(name)} is for recipes of one stage, and {recipe.name} has {len(recipe.stages)}; "
                "--steps-scale of `fit` shortens them all, or write a recipe of your own."
            )
        names = ("rate", "frozen_from", "batch", "patch")
        changes = {name: getattr(self, name) for name in names if _given(self, name)}
        stages = [replace(stage, **changes) for stage in recipe.stages]
        stages = [stage.lasting(max(1, round((self.steps or stage.steps) * self.steps_scale))) for stage in stages]
        network = replace(recipe.network, norm=self.norm) if self.norm else recipe.network
        if stages[0].uses_missed and not self.start_from:
            raise AirwaySegError(
                f"Recipe {recipe.name}, stage 1 ({stages[0].name}): hard_skeleton and back_propagation need a model "
                "that has missed something: a stage before, or --start-from."
            )
        if any(stage.is_taught for stage in stages) != bool(self.teacher):
            raise AirwaySegError(
                f"Recipe {recipe.name} has no loss distillation, so --teacher would teach nothing."
                if self.teacher
                else f"Recipe {recipe.name} has the loss distillation: name the weights that teach with --teacher."
            )
        return replace(recipe, network=network, stages=tuple(stages))


def _given(settings: FitSettings, name: str) -> bool:
    return getattr(settings, name) is not None


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
