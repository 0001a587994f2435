"""Recipes: what a training does, stage after stage, read from TOML and checked before anything is computed.

A recipe has a table ``[network]`` and one table ``[[stage]]`` a stage, with its loss as tables ``[[stage.loss]]`` and
the kinds of places for patches as ``[stage.sampling]``. `Network`, `Stage` and `Term` say which keys there are. Above
them may stand ``needs_weights = true``: the recipe is no good for a network that knows nothing yet.
"""

import math
import tomllib
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.networks.architectures import DEFAULT, NETWORKS, unknown_network
from AirwaySegTraining.data.augmentation import Augmentation
from AirwaySegTraining.data.sampling import EDIT_KINDS, Kind, Mixture
from AirwaySegTraining.losses.terms import LOSSES, MISSED_WEIGHTS, WEIGHT_MAPS, Loss, losses_that


@dataclass(frozen=True)
class Term:
    """One term of a loss: ``share`` times the loss called ``term``, with the numbers that it takes.

    On the encoder's head the term is also multiplied by ``encoder``; the decoder's head makes the segmentation.
    """

    term: str
    share: float = 1.0
    encoder: float = 1.0
    alpha: float | None = None
    exponent: float | None = None

    def wrong(self) -> str | None:
        """What no training can use, as half a sentence."""
        if self.term not in LOSSES:
            return f"loss {self.term!r} is unknown; there are {', '.join(LOSSES)}"
        loss = LOSSES[self.term]
        for name in ("alpha", "exponent"):
            value = getattr(self, name)
            if (value is not None) != (name in loss.numbers):
                return f"loss {self.term!r} {'takes no' if value is not None else 'needs'} {name}"
        if self.alpha is not None and not 0 < self.alpha <= loss.largest_alpha:
            return f"loss {self.term!r}: alpha is {self.alpha}; it must be above 0 and at most {loss.largest_alpha}"
        if self.exponent is not None and self.exponent <= 0:
            return f"loss {self.term!r}: exponent is {self.exponent}; it must be above 0"
        if loss.extra_map == "distance" and self.alpha is not None and self.alpha > min(self.exponent or 1.0, 1.0) / 2:
            return (
                f"loss {self.term!r}: alpha is {self.alpha}; it must be at most half of the exponent, {self.exponent}"
            )
        if self.encoder < 0:
            return f"loss {self.term!r}: encoder is {self.encoder}; it must be 0 or above"
        return f"loss {self.term!r}: share is {self.share}; it must be above 0" if not self.share > 0 else None

    @property
    def loss(self) -> Loss:
        """Its row in `LOSSES`."""
        return LOSSES[self.term]

    @property
    def numbers(self) -> dict[str, float]:
        """The numbers that its equation takes, by name."""
        return {name: getattr(self, name) for name in self.loss.numbers}


@dataclass(frozen=True)
class Network:
    """What is built, as in `weights.ModelInfo`; a training that goes on from weights keeps theirs.

    ``architecture`` is a name of `architectures.NETWORKS`. ``dropout`` is the share of pyramid channels dropped in
    WingsNet; a network without ``set_dropout`` does not use it.
    """

    architecture: str = DEFAULT
    norm: str = "instance"
    classes: int = 1
    dropout: float = 0.3
    window_hu: tuple[float, float] = (-1000.0, 600.0)
    second_window_hu: tuple[float, float] | None = None

    @property
    def windows_hu(self) -> tuple[tuple[float, float], ...]:
        """One window for each input channel."""
        return (self.window_hu,) if self.second_window_hu is None else (self.window_hu, self.second_window_hu)

    def wrong(self) -> str | None:
        """What no network can be, as half a sentence."""
        if self.architecture not in NETWORKS:
            return unknown_network(self.architecture).rstrip(".")
        if self.norm not in ("instance", "batch"):
            return f"norm is {self.norm!r}; it must be instance or batch"
        if self.classes not in (1, 3):
            return f"classes is {self.classes}; it must be 1 or 3"
        if not 0 <= self.dropout < 1:
            return f"dropout is {self.dropout}; it must be within 0 and 1"
        empty = [name for name in ("window_hu", "second_window_hu") if not _is_window(getattr(self, name))]
        return f"{empty[0]} is {getattr(self, empty[0])}; it must be two numbers, the lower first" if empty else None


def _is_window(window: tuple[float, ...] | None) -> bool:
    return window is None or (len(window) == 2 and window[0] < window[1])


@dataclass(frozen=True)
class Stage:
    """One stage of a training.

    ``loss`` is the sum of its terms, over both heads. ``weights`` gives the share of each of the `terms.WEIGHT_MAPS`
    whose sum is the weight of the foreground in weighted losses (`terms.Loss`); in a list of names, each share is 1.
    The sum is raised to a power that is drawn for each patch from the range ``weight_power``. ``sampling`` gives the
    share of each kind of point (`sampling.Kind`) on which patches are centred. After every ``mined_every`` steps the
    share ``mined`` of their patches, those with the largest loss, is trained on once more (`mining`). ``schedule``
    is "constant", "steps" (a tenth after each of ``drops_at``, shares of the stage), "poly" (power 0.9) or "cosine" (to
    a hundredth), after ``warm_up`` steps. ``clip`` is the gradients' largest norm, ``average`` the share that the
    moving average of the weights keeps in a step, ``frozen_from`` the share of the stage after which batch
    normalisation keeps its statistics. ``edited`` is how much a voxel counts that a person corrected; ``edited_by``
    says otherwise for those of an origin, or that were added or removed (`sampling.EDIT_KINDS`). For
    ``rotation_degrees``, ``label_threshold`` and ``zoom`` see `augmentation.Augmentation`.
    """

    name: str
    steps: int
    loss: tuple[Term, ...]
    sampling: dict[str, float]
    patch: int = 128
    batch: int = 2
    weights: dict[str, float] = field(default_factory=dict)
    weight_power: tuple[float, float] = (1.0, 1.0)
    mined: float = 0.0
    mined_every: int = 0
    optimizer: str = "adamw"
    rate: float = 1e-3
    weight_decay: float = 1e-4
    momentum: float = 0.9
    schedule: str = "cosine"
    warm_up: int = 0
    drops_at: tuple[float, ...] = ()
    clip: float = 5.0
    average: float = 0.0
    frozen_from: float = 1.0
    rotation_degrees: float = 0.0
    label_threshold: float = 0.5
    zoom: tuple[float, float] = (1.0, 1.0)
    edited: float = 1.0
    edited_by: dict[str, float] = field(default_factory=dict)

    def wrong(self) -> str | None:
        """What no training can use, as half a sentence.

        Below 32 voxels the deepest level has 2 voxels a side, and the CPU's bfloat16 gradients there (PyTorch 2.13) are
        not reliable.
        """
        if self.patch < 32 or self.patch % 8:
            return f"patch is {self.patch}; it must be a multiple of 8 from 32 on"
        for names, text, fits in _LIMITS:
            for name in names:
                if not fits(getattr(self, name)):
                    return f"{name} is {getattr(self, name)}; it must be {text}"
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                return f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}"
        return self._wrong_tables()

    def _wrong_tables(self) -> str | None:
        if not self.loss:
            return "loss has no term"
        unknown = [name for name in self.weights if name not in WEIGHT_MAPS]
        if unknown:
            return f"weights {unknown[0]!r} is unknown; there are {', '.join(WEIGHT_MAPS)}"
        weighted, emphasised = losses_that("weighted"), losses_that("emphasised")
        if any(term.term in weighted for term in self.loss) != bool(self.weights):
            return f"weights go with the losses {', '.join(weighted)}, and only with them"
        if wrong := self._wrong_weights() or self._wrong_mining():
            return wrong
        if self.emphasises and not all(term.term in emphasised for term in self.loss):
            return f"edited goes with the losses {', '.join(emphasised)}, and only with them"
        if wrong := self._wrong_edits():
            return wrong
        try:
            Mixture.of(self.sampling)
        except AirwaySegError as error:
            return f"sampling: {str(error).rstrip('.')}"
        try:
            self.augmentation()
        except AirwaySegError as error:
            return f"rotation_degrees, label_threshold or zoom: {str(error).rstrip('.')}"
        return next((text for text in (term.wrong() for term in self.loss) if text), None)

    def _wrong_weights(self) -> str | None:
        for name, share in self.weights.items():
            if share <= 0:
                return f"weights: the share of {name} is {share}; it must be above 0"
        if len(self.weight_power) != 2 or not 0 < self.weight_power[0] <= self.weight_power[1]:
            return f"weight_power is {self.weight_power}; it must be two numbers above 0, the smaller first"
        if self.weight_power != (1, 1) and not self.weights:
            return "weight_power needs weights"
        return None

    def _wrong_edits(self) -> str | None:
        for name, weight in self.edited_by.items():
            if name not in EDIT_KINDS.values():
                return f"edited_by {name!r} is unknown; there are {', '.join(EDIT_KINDS.values())}"
            if weight <= 0:
                return f"edited_by: the weight of {name} is {weight}; it must be above 0"
        return None

    def _wrong_mining(self) -> str | None:
        if not 0 <= self.mined <= 1:
            return f"mined is {self.mined}; it must be within 0 and 1"
        if (self.mined > 0) != (self.mined_every > 0):
            return "mined and mined_every must be given together"
        if self.mined > 0 and not self.mined_steps:
            return f"mined is {self.mined}; of mined_every {self.mined_every} that is less than one step"
        return None

    @property
    def emphasises(self) -> bool:
        """Whether voxels that a person corrected count more or less than others."""
        return any(weight != 1 for weight in (self.edited, *self.edited_by.values()))

    @property
    def mined_steps(self) -> int:
        """Number of steps on hard patches after ``mined_every`` others, rounded down."""
        return int(self.mined * self.mined_every + 1e-9)

    def lasting(self, steps: int) -> "Stage":
        """The same stage with so many steps; of fewer steps the same share is the warm-up."""
        return replace(self, steps=steps, warm_up=min(self.warm_up, round(self.warm_up * steps / self.steps)))

    def augmentation(self) -> Augmentation:
        """How patches are rotated, mirrored and enlarged."""
        return Augmentation(self.rotation_degrees, self.label_threshold, zoom=self.zoom)

    @property
    def is_taught(self) -> bool:
        """Whether a term of its loss needs a teacher."""
        return any(term.loss.of_teacher for term in self.loss)

    @property
    def uses_missed(self) -> bool:
        """Whether it needs the skeleton voxels that the model of the stage before has missed."""
        return self.sampling.get(Kind.HARD_SKELETON, 0) > 0 or any(name in MISSED_WEIGHTS for name in self.weights)


_LIMITS = (
    (("steps", "batch"), "at least 1", lambda value: value >= 1),
    (("rate", "clip", "edited"), "above 0", lambda value: value > 0),
    (("weight_decay", "warm_up"), "0 or above", lambda value: value >= 0),
    (("momentum", "average"), "from 0 to below 1", lambda value: 0 <= value < 1),
    (("frozen_from",), "within 0 and 1", lambda value: 0 <= value <= 1),
    (("drops_at",), "shares of the stage", lambda values: all(0 < value < 1 for value in values)),
)
_CHOICES = {"optimizer": ("adamw", "sgd"), "schedule": ("constant", "steps", "poly", "cosine")}


@dataclass(frozen=True)
class Recipe:
    """A training: the network and its stages; with ``needs_weights`` it goes on from weights that know airways."""

    name: str
    network: Network
    stages: tuple[Stage, ...]
    needs_weights: bool = False

    def __post_init__(self) -> None:
        """Refuse what no training can use, naming the stage and the key."""
        if not self.stages:
            raise AirwaySegError(f"Recipe {self.name} has no stage.")
        checks = [("[network]", self.network.wrong())]
        for number, stage in enumerate(self.stages, start=1):
            where = f"stage {number} ({stage.name})"
            checks.append((where, stage.wrong() or _wrong_with(self.network, stage)))
        for where, text in checks:
            if text is not None:
                raise AirwaySegError(f"Recipe {self.name}, {where}: {text}.")

    @property
    def ends(self) -> list[int]:
        """The number of steps after which each stage ends, counted from the beginning of the training."""
        return [sum(stage.steps for stage in self.stages[: count + 1]) for count in range(len(self.stages))]

    def stage_at(self, step: int) -> int:
        """Place of the stage to which ``step``, counted from 0, belongs; the last one's after the end."""
        return next((place for place, end in enumerate(self.ends) if step < end), len(self.stages) - 1)

    def as_dict(self) -> dict[str, Any]:
        """Plain tables and lists, as JSON keeps them."""
        return asdict(self)


def _wrong_with(network: Network, stage: Stage) -> str | None:
    multiple = NETWORKS[network.architecture].side_multiple if network.architecture in NETWORKS else 1
    if stage.patch % multiple:
        return f"patch is {stage.patch}; {network.architecture} needs a multiple of {multiple}"
    unfit = [term for term in stage.loss if network.classes not in term.loss.classes]
    if unfit and network.classes == 3:
        return "with 3 classes loss takes only classes, and general_union on their union"
    return f"loss {unfit[0].term!r} needs classes = {unfit[0].loss.classes[0]} in [network]" if unfit else None


def recipes_folder() -> Path:
    """Where the recipes of the package lie: installed by pip, installed by Slicer, or in the source tree."""
    package = Path(__file__).resolve().parents[1]
    return next(folder for folder in (package / "Configs", package.parent / "Configs") if folder.is_dir())


def list_recipes() -> list[str]:
    """Names of the package's recipes."""
    return sorted(path.stem for path in recipes_folder().glob("*.toml"))


def load_recipe(name_or_path: str) -> Recipe:
    """Read a recipe, by its name in the package or from a file.

    Raises
    ------
    AirwaySegError
        One sentence that names the recipe, the stage and the key.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        if name_or_path not in list_recipes():
            raise AirwaySegError(f"There is no recipe {name_or_path!r}; there are {', '.join(list_recipes())}.")
        path = recipes_folder() / f"{name_or_path}.toml"
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AirwaySegError(f"The recipe {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AirwaySegError(f"The recipe {path} is no TOML: {error}.") from error
    return parse_recipe(path.stem, tables)


def parse_recipe(name: str, tables: dict[str, Any]) -> Recipe:
    """The recipe in parsed TOML."""
    unknown = sorted(set(tables) - {"needs_weights", "network", "stage"})
    if unknown:
        raise AirwaySegError(f"Recipe {name}: {unknown[0]!r} is neither needs_weights nor [network] nor [[stage]].")
    needs_weights = _typed(tables.get("needs_weights", False), bool, f"Recipe {name}: needs_weights")
    network = _build(Network, tables.get("network", {}), f"Recipe {name}, [network]")
    stages = tables.get("stage", [])
    if not isinstance(stages, list):
        raise AirwaySegError(f"Recipe {name}: a stage is written [[stage]], in two pairs of brackets.")
    built = tuple(_stage(name, number, table) for number, table in enumerate(stages, start=1))
    return Recipe(name, network, built, needs_weights)


def _stage(recipe: str, number: int, table: Any) -> Stage:
    given = f" ({table['name']})" if isinstance(table, dict) and "name" in table else ""
    where = f"Recipe {recipe}, stage {number}{given}"
    terms = table.get("loss", ()) if isinstance(table, dict) else ()
    if not isinstance(terms, list | tuple):
        raise AirwaySegError(f"{where}: a term of the loss is written [[stage.loss]], in two pairs of brackets.")
    built = tuple(_build(Term, term, f"{where}: loss") for term in terms)
    if isinstance(table, dict):
        table = {**table, "loss": built, **_shares_of(table, f"{where}: weights")}
    return _build(Stage, table, where)


def _shares_of(table: dict[str, Any], where: str) -> dict[str, Any]:
    """A stage's weights as a table, where they are given as a list of names."""
    names = table.get("weights")
    if not isinstance(names, list):
        return {}
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise AirwaySegError(f"{where} is {names!r}; it must be a list of different names, or a table of their shares.")
    return {"weights": dict.fromkeys(names, 1.0)}


def _build(kind: type, table: Any, where: str) -> Any:
    """A dataclass from a table; keys and kinds of values are its fields'."""
    if not isinstance(table, dict):
        raise AirwaySegError(f"{where} is no table.")
    known = {item.name: item for item in fields(kind)}
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise AirwaySegError(f"{where}: the key {unknown[0]!r} is unknown; there are {', '.join(known)}.")
    for key, item in known.items():
        if key not in table and item.default is MISSING and item.default_factory is MISSING:
            raise AirwaySegError(f"{where}: the key {key!r} is missing.")
    return kind(**{key: _typed(value, known[key].type, f"{where}: {key}") for key, value in table.items()})


def _typed(value: Any, wanted: Any, where: str) -> Any:
    """The value as its field is annotated: TOML's lists become tuples, and whole numbers floats where wanted."""
    if isinstance(wanted, UnionType):
        wanted = get_args(wanted)[0]
    container, inner = get_origin(wanted), get_args(wanted)
    if container is tuple and isinstance(value, list | tuple):
        return tuple(_typed(part, inner[0], where) for part in value)
    if container is dict and isinstance(value, dict):
        return {key: _typed(part, inner[1], f"{where}.{key}") for key, part in value.items()}
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted or (wanted is float and not math.isfinite(value)):
        kinds = {int: "a whole number", float: "a number", bool: "true or false"}
        kinds |= {str: "a text", tuple: "a list", dict: "a table"}
        raise AirwaySegError(f"{where} is {value!r}; it must be {kinds[container or wanted]}.")
    return value
