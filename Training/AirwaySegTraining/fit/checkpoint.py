"""The state of a training with a recipe between two steps: start, checkpoint and resume."""

import copy
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar

import torch
from torch import nn

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.networks.architectures import architecture
from AirwaySegLib.networks.weights import ModelInfo, load_weights
from AirwaySegLib.networks.wingsnet import WingsNet
from AirwaySegTraining.data.cases import Case
from AirwaySegTraining.fit.mining import Losses
from AirwaySegTraining.fit.recipes import Network, Recipe, Stage, Term
from AirwaySegTraining.fit.settings import FitSettings
from AirwaySegTraining.fit.training_state import TrainingState, changed_settings, flag_of, with_spacings


@dataclass
class Run(TrainingState):
    """The training of `fit`.

    ``place`` is the index of the current stage, -1 before the first; ``frozen`` says whether that stage's batch
    normalisation now keeps its statistics. ``best`` is the largest score of a validation so far, ``checked`` the step
    of the last one. ``losses`` are those of the patches of the current round of hard mining (`mining`).
    ``lengthened_from`` is the original number of steps of a run that was given more. ``teacher`` is the network whose
    probabilities are taught, in its form for inference.
    """

    command: ClassVar[str] = "fit"
    kept: ClassVar[tuple[str, ...]] = (*TrainingState.kept, "recipe", "place", "best")

    net: nn.Module
    average: nn.Module
    settings: FitSettings
    recipe: Recipe
    place: int = -1
    frozen: bool = False
    best: float = -1.0
    checked: int = -1
    losses: Losses = field(default_factory=dict)
    lengthened_from: int | None = None
    teacher: nn.Module | None = None

    @property
    def windows_hu(self) -> list[tuple[float, float]]:
        """The HU window of each of the network's channels."""
        return [window for window in (self.info.window_hu, self.info.second_window_hu) if window is not None]

    def enter(self, place: int) -> Stage:
        """Begin the stage of index ``place`` with a new optimiser, unless a checkpoint was already in it."""
        if place != self.place:
            self.optimizer = make_optimizer(self.net, self.recipe.stages[place])
            self.place, self.frozen, self.losses = place, False, {}
        return self.recipe.stages[place]

    def state(self) -> dict[str, Any]:
        """As `TrainingState.state`, with the recipe and the state of its stage."""
        return {
            **super().state(),
            "recipe": self.recipe.as_dict(),
            "place": self.place,
            "frozen": self.frozen,
            "best": self.best,
            "checked": self.checked,
            "losses": self.losses,
        }

    def difference(self, state: dict[str, Any]) -> str | None:
        """As `TrainingState.difference`.

        A training of one stage may get more steps: the remaining steps then use the learning rates of the longer one.
        """
        changed = changed_settings(state, self.settings)
        other = [name for name in changed if name != "steps"]  # the recipes have the numbers
        was, now = _completed(state["recipe"]), _completed(self.recipe.as_dict())
        if other:
            return flag_of(other[0]) + _advice(other[0], state)
        if _is_longer(now, was):
            self.lengthened_from = was["stages"][0]["steps"]
            was["stages"][0] |= {name: now["stages"][0][name] for name in ("steps", "warm_up")}
        if was == now:
            return None
        if "steps" in changed:
            return f"--steps: it has {was['stages'][0]['steps']} steps and can only get more"
        return f"recipe; {self.recipe.name} has been changed"

    def restore_optimizer(self, state: dict[str, Any]) -> None:
        """As `TrainingState.restore_optimizer`, in the stage of the checkpoint."""
        self.best, self.checked = state["best"], state.get("checked", state["step"])
        if state["place"] >= 0:
            self.enter(state["place"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.frozen, self.losses = state.get("frozen", False), state.get("losses", {})

    def provenance(self, more: dict[str, Any]) -> dict[str, Any]:
        """As `TrainingState.provenance`, with the recipe, and the provenance of the initial weights."""
        came_about = {"recipe": self.recipe.as_dict(), "steps": self.step, "cases": len(self.fingerprints), **more}
        return {**came_about, "began_with": self.info.provenance} if self.info.provenance else came_about


def _completed(recipe: dict[str, Any]) -> dict[str, Any]:
    """A stored recipe, with defaults for the fields that did not exist when it was stored."""
    stages = [{**_defaults(Stage), **stage} for stage in recipe["stages"]]
    for stage in stages:
        stage["loss"] = [{**_defaults(Term), **term} for term in stage["loss"]]
        if not isinstance(stage["weights"], dict):  # formerly a list of names
            stage["weights"] = dict.fromkeys(stage["weights"], 1.0)
    return {"name": recipe["name"], "network": {**_defaults(Network), **recipe["network"]}, "stages": stages}


def _defaults(kind: type[Network] | type[Stage] | type[Term]) -> dict[str, Any]:
    simple = {item.name: item.default for item in fields(kind) if item.default is not MISSING}
    return simple | {item.name: item.default_factory() for item in fields(kind) if item.default_factory is not MISSING}


def _is_longer(now: dict[str, Any], was: dict[str, Any]) -> bool:
    """Whether the first of two recipes has more steps, and both have one stage."""
    return len(now["stages"]) == len(was["stages"]) == 1 and now["stages"][0]["steps"] > was["stages"][0]["steps"]


def _advice(name: str, state: dict[str, Any]) -> str:
    """What else to say of a setting that differs from a checkpoint's ``state``, as the end of a sentence."""
    if name == "start_from":
        return f" (--weights of `finetune`): it began with {state['settings']['start_from'] or 'none'}"
    if name == "steps_scale":
        return "; to train longer, begin another run with --start-from its model.safetensors"
    return ""


def start_run(settings: FitSettings, recipe: Recipe, cases: Sequence[Case], device: torch.device) -> Run:
    """A run at step 0, with random or given weights, on the device."""
    torch.manual_seed(settings.seed)
    network = recipe.network
    if settings.start_from:
        net, info, _ = load_weights(settings.start_from)
        if (info.in_channels, info.classes) != (len(network.windows_hu), network.classes):
            raise AirwaySegError(
                f"{settings.start_from} has {info.in_channels} channel(s) and {info.classes} class(es), and the recipe "
                f"{recipe.name} {len(network.windows_hu)} and {network.classes}."
            )
    else:
        multiple = architecture(network.architecture).side_multiple
        # Instance normalisation depends on the window's content, so windows at test time have the training's size.
        side = recipe.stages[-1].patch if network.norm == "instance" else 128 // multiple * multiple
        info = ModelInfo(
            name="run",
            in_channels=len(network.windows_hu),
            classes=network.classes,
            norm="instance" if network.norm == "instance" else "batch",
            window_hu=network.window_hu,
            second_window_hu=network.second_window_hu,
            patch_zyx=(side, side, side),
            architecture=network.architecture,
        )
        net = info.build()
    wrong = next((stage for stage in recipe.stages if stage.patch % info.side_multiple), None)
    if wrong is not None:  # the network of given weights need not be the recipe's
        raise AirwaySegError(f"--patch is {wrong.patch}; {info.architecture} needs a multiple of {info.side_multiple}.")
    if callable(set_dropout := getattr(net, "set_dropout", None)):
        set_dropout(network.dropout)
    info = with_spacings(info, cases, info if settings.start_from else None)  # they still know what they have seen
    net = net.to(device)
    if device.type == "cpu" and isinstance(net, WingsNet):  # a network of a plug-in may need the usual order
        moved: Any = net  # PyTorch's annotations do not know a module's memory format
        net = moved.to(memory_format=torch.channels_last_3d)
    run = Run(net, copy.deepcopy(net), info, settings, [case.fingerprint for case in cases], recipe)
    if settings.teacher:
        run.teacher = load_teacher(settings.teacher, run.info).to(device)
    return run


def load_teacher(name_or_path: str, pupil: ModelInfo) -> nn.Module:
    """The network that teaches another, in its form for inference.

    Raises
    ------
    AirwaySegError
        If it looks at the CT in other HU windows than the other one.
    """
    net, info, _ = load_weights(name_or_path)
    if (info.window_hu, info.second_window_hu) != (pupil.window_hu, pupil.second_window_hu):
        raise AirwaySegError(f"The teacher {name_or_path} sees the CT in other HU windows than the trained network.")
    fast_form = architecture(info.architecture).fast_form
    return (net if fast_form is None else fast_form(net)).eval().requires_grad_(False)


def make_optimizer(net: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    """A new optimiser for the stage."""
    if stage.optimizer == "sgd":
        return torch.optim.SGD(net.parameters(), stage.rate, momentum=stage.momentum, weight_decay=stage.weight_decay)
    return torch.optim.AdamW(net.parameters(), lr=stage.rate, weight_decay=stage.weight_decay)
