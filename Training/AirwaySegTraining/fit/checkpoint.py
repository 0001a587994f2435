"""The state of a training between two steps: how it begins, is kept, and goes on; and the weights that come out."""

import copy
import os
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from AirwaySegLib import __version__
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.networks.weights import ModelInfo, load_weights, save_weights
from AirwaySegLib.networks.wingsnet import WingsNet
from AirwaySegTraining.data.cases import Case
from AirwaySegTraining.fit.recipes import Recipe, Stage
from AirwaySegTraining.fit.settings import FREE_ON_RESUME, FitSettings


@dataclass
class Run:
    """``place`` is that of the stage whose optimiser it has, -1 before the first; ``frozen`` says whether that stage's
    batch normalisation keeps its statistics by now. ``best`` is the largest score of a validation so far, ``checked``
    the step of the last one. ``lengthened_from`` is the number of steps with which a run began that now has more.
    """

    net: WingsNet
    average: WingsNet
    info: ModelInfo
    settings: FitSettings
    recipe: Recipe
    fingerprints: list[str]
    optimizer: torch.optim.Optimizer = field(init=False)
    place: int = -1
    frozen: bool = False
    step: int = 0
    best: float = -1.0
    checked: int = -1
    lengthened_from: int | None = None

    @property
    def windows_hu(self) -> list[tuple[float, float]]:
        """The HU window of each of the network's channels."""
        return [window for window in (self.info.window_hu, self.info.second_window_hu) if window is not None]

    def enter(self, place: int) -> Stage:
        """Begin a stage with an optimiser of its own, unless it is the one that a checkpoint was in."""
        if place != self.place:
            self.optimizer = make_optimizer(self.net, self.recipe.stages[place])
            self.place, self.frozen = place, False
        return self.recipe.stages[place]

    def save(self, path: Path) -> None:
        """Write the checkpoint whole or not at all."""
        state = {
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict() if self.place >= 0 else {},
            "recipe": self.recipe.as_dict(),
            "settings": asdict(self.settings),
            "fingerprints": self.fingerprints,
            "place": self.place,
            "frozen": self.frozen,
            "step": self.step,
            "best": self.best,
            "checked": self.checked,
        }
        write_checkpoint(path, state)

    def load(self, path: Path, device: torch.device) -> None:
        """Continue from a checkpoint; refuse one that is damaged, or of other settings or cases.

        A training of one stage may get more steps: the rest follows the learning rates of so many.
        """
        try:
            state = torch.load(path, map_location=device, weights_only=True)
            before, after = {**asdict(FitSettings()), **state["settings"]}, asdict(self.settings)
            other = [name for name in after if name not in FREE_ON_RESUME and before[name] != after[name]]
            was, now = _completed(state["recipe"]), _completed(self.recipe.as_dict())
            if other in ([], ["steps"]) and _is_longer(now, was):
                self.lengthened_from, other = was["stages"][0]["steps"], []
                was["stages"][0] |= {name: now["stages"][0][name] for name in ("steps", "warm_up")}
            same_recipe = was == now
            same_cases = state["fingerprints"] == self.fingerprints
        except Exception as error:  # the reader meets arbitrary bytes, and the kinds of its errors are not promised
            raise AirwaySegError(f"{path} is damaged or no checkpoint of `fit`.") from error
        if other:
            flag = other[0].replace("_", "-")
            raise AirwaySegError(f"{path} is of a training with another --{flag}{_advice(other[0], was)}.")
        if not same_recipe:
            raise AirwaySegError(f"{path} is of a training with another recipe; {self.recipe.name} has been changed.")
        if not same_cases:
            raise AirwaySegError(f"{path} is of a training on other cases: one was added, removed or changed.")
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self.step, self.best, self.checked = state["step"], state["best"], state.get("checked", state["step"])
        if state["place"] >= 0:
            self.enter(state["place"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.frozen = state.get("frozen", False)


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a training's state whole or not at all; raises AirwaySegError where it cannot be written."""
    unfinished = path.with_suffix(".unfinished")
    try:
        torch.save(state, unfinished)
        os.replace(unfinished, path)
    except (OSError, RuntimeError) as error:  # PyTorch's writer knows only the second
        unfinished.unlink(missing_ok=True)
        raise AirwaySegError(f"{path} cannot be written; is the disk full? What was there before is whole.") from error


def _completed(recipe: dict[str, Any]) -> dict[str, Any]:
    """What a recipe does, with the defaults of what stages could not say yet when it was kept."""
    defaults = {item.name: item.default for item in fields(Stage) if item.default is not MISSING}
    stages = [{**defaults, **stage} for stage in recipe["stages"]]
    return {"name": recipe["name"], "network": recipe["network"], "stages": stages}


def _is_longer(now: dict[str, Any], was: dict[str, Any]) -> bool:
    """Whether of two recipes the first has more steps, in one stage."""
    return len(now["stages"]) == len(was["stages"]) == 1 and now["stages"][0]["steps"] > was["stages"][0]["steps"]


def _advice(name: str, was: dict[str, Any]) -> str:
    """What to do about another length, as the end of a sentence."""
    if name == "steps":
        return f": it has {was['stages'][0]['steps']} steps and can only get more"
    if name == "steps_scale":
        return "; to train longer, begin another run with --start-from its model.safetensors"
    return ""


def precision_of(checkpoint: Path) -> str | None:
    """The precision of the training that left a checkpoint; None if it cannot be read."""
    try:
        return str(torch.load(checkpoint, map_location="cpu", weights_only=True)["settings"]["precision"])
    except Exception:  # as in `Run.load`, which then says what is wrong
        return None


def start_run(settings: FitSettings, recipe: Recipe, cases: Sequence[Case], device: torch.device) -> Run:
    """Fresh or given weights and their average, at step 0, on the device."""
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
        # Instance normalisation depends on what a window holds, so test windows have the training's size.
        side = recipe.stages[-1].patch if network.norm == "instance" else 128
        info = ModelInfo(
            name="run",
            in_channels=len(network.windows_hu),
            classes=network.classes,
            norm="instance" if network.norm == "instance" else "batch",
            window_hu=network.window_hu,
            second_window_hu=network.second_window_hu,
            patch_zyx=(side, side, side),
        )
        net = info.build()
    net.encoder_head.dropout = net.decoder_head.dropout = network.dropout
    spacings = np.array([case.spacing_mm for case in cases])
    if settings.start_from:  # what the weights have seen before they still know
        spacings = np.vstack([spacings, info.spacing_mm_min, info.spacing_mm_max])
    info = replace(
        info,
        spacing_mm_min=tuple(np.round(spacings.min(axis=0), 3).tolist()),
        spacing_mm_max=tuple(np.round(spacings.max(axis=0), 3).tolist()),
    )
    net = net.to(device)
    return Run(net, copy.deepcopy(net), info, settings, recipe, [case.fingerprint for case in cases])


def make_optimizer(net: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    """The stage's optimiser, without moments yet."""
    if stage.optimizer == "sgd":
        return torch.optim.SGD(net.parameters(), stage.rate, momentum=stage.momentum, weight_decay=stage.weight_decay)
    return torch.optim.AdamW(net.parameters(), lr=stage.rate, weight_decay=stage.weight_decay)


def save_model(run: Run, target: Path, more: dict[str, Any]) -> None:
    """Write the averaged weights with how they came about, and ``more`` about them."""
    provenance = {
        "trained_with": f"AirwaySeg {__version__}, PyTorch {torch.__version__}",
        "settings": asdict(run.settings),
        "recipe": run.recipe.as_dict(),
        "steps": run.step,
        "cases": len(run.fingerprints),
        **more,
    }
    if run.info.provenance:
        provenance["began_with"] = run.info.provenance
    described = replace(run.info, name=target.parent.name, provenance=provenance)
    save_weights(target, copy.deepcopy(run.average).cpu().eval(), described, force=True)
