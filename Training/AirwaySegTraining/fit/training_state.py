"""What every training is between two steps: its checkpoint, and the weights that come out."""

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from AirwaySegLib import __version__
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.networks.connection_net import Connector
from AirwaySegLib.networks.weights import ModelInfo, save_weights
from AirwaySegLib.networks.wingsnet import WingsNet
from AirwaySegTraining.data.cases import Case
from AirwaySegTraining.fit.settings import FREE_ON_RESUME


@dataclass
class TrainingState(ABC):
    """A training after ``step`` steps; ``average`` is the moving average of the weights.

    ``seconds`` is how long it has trained, if it is limited in time.

    ``settings`` are a dataclass of the command's; ``fingerprints`` change with the data.
    """

    command: ClassVar[str]
    """The command that trains so, for a sentence about a checkpoint."""
    kept: ClassVar[tuple[str, ...]] = ("net", "average", "optimizer", "settings", "fingerprints", "step")
    """What a checkpoint must hold."""

    net: WingsNet | Connector
    average: WingsNet | Connector
    info: ModelInfo
    settings: Any
    fingerprints: list[str]
    optimizer: torch.optim.Optimizer = field(init=False)
    step: int = field(default=0, kw_only=True)
    seconds: float = field(default=0.0, kw_only=True)

    def state(self) -> dict[str, Any]:
        """What the checkpoint holds: tensors, numbers, texts, and lists and dicts of them."""
        return {
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict() if hasattr(self, "optimizer") else {},
            "settings": asdict(self.settings),
            "fingerprints": self.fingerprints,
            "step": self.step,
            "seconds": self.seconds,
        }

    @abstractmethod
    def difference(self, state: dict[str, Any]) -> str | None:
        """What a checkpoint's settings differ in, as the end of "of a training with another"; None if they agree.

        It may raise anything where the checkpoint is damaged.
        """

    def restore_optimizer(self, state: dict[str, Any]) -> None:
        """Continue with the optimiser of a checkpoint, and with what else belongs to the step."""
        self.optimizer.load_state_dict(state["optimizer"])

    @abstractmethod
    def provenance(self, more: dict[str, Any]) -> dict[str, Any]:
        """How the weights came about besides the settings, with ``more`` about them."""

    def save(self, path: Path) -> None:
        """Write the checkpoint whole or not at all."""
        unfinished = path.with_suffix(".unfinished")
        try:
            torch.save(self.state(), unfinished)
            os.replace(unfinished, path)
        except (OSError, RuntimeError) as error:  # PyTorch's writer knows only the second
            unfinished.unlink(missing_ok=True)
            raise AirwaySegError(
                f"{path} cannot be written; is the disk full? What was there before is whole."
            ) from error

    def load(self, path: Path, device: torch.device) -> None:
        """Continue from a checkpoint; refuse one that is damaged, or of other settings or cases."""
        try:
            state = torch.load(path, map_location=device, weights_only=True)
            state = {**state, **{name: state[name] for name in self.kept}}
            difference = self.difference(state)
            same_cases = state["fingerprints"] == self.fingerprints
        except Exception as error:  # the reader meets arbitrary bytes, and the kinds of its errors are not promised
            raise AirwaySegError(f"{path} is damaged or no checkpoint of `{self.command}`.") from error
        if difference is not None:
            raise AirwaySegError(f"{path} is of a training with another {difference}.")
        if not same_cases:
            raise AirwaySegError(f"{path} is of a training on other cases: one was added, removed or changed.")
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self.step, self.seconds = int(state["step"]), float(state.get("seconds", 0))
        self.restore_optimizer(state)

    def save_model(self, target: Path, more: dict[str, Any]) -> None:
        """Write the averaged weights with how they came about, and ``more`` about them."""
        provenance = {
            "trained_with": f"AirwaySeg {__version__}, PyTorch {torch.__version__}",
            "settings": asdict(self.settings),
            **self.provenance(more),
        }
        described = replace(self.info, name=target.parent.name, provenance=provenance)
        save_weights(target, copy.deepcopy(self.average).cpu().eval(), described, force=True)


def changed_settings(state: dict[str, Any], settings: Any) -> list[str]:
    """Names of the settings that are not those of a checkpoint, of those that change the weights.

    A setting that the checkpoint does not know yet had its default.
    """
    before, after = {**asdict(type(settings)()), **state["settings"]}, asdict(settings)
    return [name for name in after if name not in FREE_ON_RESUME and before[name] != after[name]]


def flag_of(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def precision_of(checkpoint: Path) -> str | None:
    """The precision of the training that left a checkpoint; None if it cannot be read."""
    try:
        return str(torch.load(checkpoint, map_location="cpu", weights_only=True)["settings"]["precision"])
    except Exception:  # as in `TrainingState.load`, which then says what is wrong
        return None


def with_spacings(info: ModelInfo, cases: Sequence[Case], before: ModelInfo | None) -> ModelInfo:
    """The description with the range of the cases' spacings, and of those that given weights have seen ``before``."""
    spacings = np.array([case.spacing_mm for case in cases])
    if before is not None:
        spacings = np.vstack([spacings, before.spacing_mm_min, before.spacing_mm_max])
    return replace(
        info,
        spacing_mm_min=tuple(np.round(spacings.min(axis=0), 3).tolist()),
        spacing_mm_max=tuple(np.round(spacings.max(axis=0), 3).tolist()),
    )
