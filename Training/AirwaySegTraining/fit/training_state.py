"""The state of any training between two steps: checkpoint, resume, and the resulting weights."""

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from AirwaySegLib import __version__
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.networks.weights import ModelInfo, save_weights
from AirwaySegTraining.data.cases import Case
from AirwaySegTraining.fit.settings import FREE_ON_RESUME


@dataclass
class TrainingState(ABC):
    """A training after ``step`` steps; ``average`` is the moving average of the weights.

    ``seconds`` is how long it has trained, if it is limited in time.

    ``settings`` is a dataclass of the command; ``fingerprints`` change with the data.
    """

    command: ClassVar[str]
    """Name of the command, for error messages about a checkpoint."""
    kept: ClassVar[tuple[str, ...]] = ("net", "average", "optimizer", "settings", "fingerprints", "step")
    """Keys that a checkpoint must have."""

    net: nn.Module
    average: nn.Module
    info: ModelInfo
    settings: Any
    fingerprints: list[str]
    optimizer: torch.optim.Optimizer = field(init=False)
    step: int = field(default=0, kw_only=True)
    seconds: float = field(default=0.0, kw_only=True)

    def state(self) -> dict[str, Any]:
        """The content of the checkpoint: tensors, numbers, strings, and lists and dicts of them."""
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
        """The first difference of a checkpoint's settings, as the end of "of a training with another"; None if equal.

        It may raise any exception if the checkpoint is damaged.
        """

    def restore_optimizer(self, state: dict[str, Any]) -> None:
        """Restore the optimiser of a checkpoint, and the rest of the state of its step."""
        self.optimizer.load_state_dict(state["optimizer"])

    @abstractmethod
    def provenance(self, more: dict[str, Any]) -> dict[str, Any]:
        """The provenance of the weights besides the settings, with the entries of ``more``."""

    def save(self, path: Path) -> None:
        """Atomic write of the checkpoint."""
        unfinished = path.with_suffix(".unfinished")
        try:
            torch.save(self.state(), unfinished)
            os.replace(unfinished, path)
        except (OSError, RuntimeError) as error:  # PyTorch's writer raises RuntimeError
            unfinished.unlink(missing_ok=True)
            raise AirwaySegError(
                f"{path} cannot be written; is the disk full? The previous checkpoint is unchanged."
            ) from error

    def load(self, path: Path, device: torch.device) -> None:
        """Resume from a checkpoint; raises AirwaySegError if it is damaged, or of other settings or cases."""
        try:
            state = torch.load(path, map_location=device, weights_only=True)
            state = {**state, **{name: state[name] for name in self.kept}}
            difference = self.difference(state)
            same_cases = state["fingerprints"] == self.fingerprints
        except Exception as error:  # arbitrary bytes: the reader's exception types are not documented
            raise AirwaySegError(f"{path} is damaged or not a checkpoint of `{self.command}`.") from error
        if difference is not None:
            raise AirwaySegError(f"{path} is of a training with another {difference}.")
        if not same_cases:
            raise AirwaySegError(f"{path} is of a training on other cases: one was added, removed or changed.")
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self.step, self.seconds = int(state["step"]), float(state.get("seconds", 0))
        self.restore_optimizer(state)

    def save_model(self, target: Path, more: dict[str, Any]) -> None:
        """Write the averaged weights with their provenance, and the entries of ``more``."""
        provenance = {
            "trained_with": f"AirwaySeg {__version__}, PyTorch {torch.__version__}",
            "settings": asdict(self.settings),
            **self.provenance(more),
        }
        described = replace(self.info, name=target.parent.name, provenance=provenance)
        save_weights(target, copy.deepcopy(self.average).cpu().eval(), described, force=True)


def changed_settings(state: dict[str, Any], settings: Any) -> list[str]:
    """Names of the settings that differ from a checkpoint's, of those that influence the weights.

    A setting that did not exist when the checkpoint was written had its default.
    """
    before, after = {**asdict(type(settings)()), **state["settings"]}, asdict(settings)
    return [name for name in after if name not in FREE_ON_RESUME and before[name] != after[name]]


def flag_of(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def precision_of(checkpoint: Path) -> str | None:
    """The precision of the training that wrote a checkpoint; None if it cannot be read."""
    try:
        return str(torch.load(checkpoint, map_location="cpu", weights_only=True)["settings"]["precision"])
    except Exception:  # `TrainingState.load` then reports the problem
        return None


def with_spacings(info: ModelInfo, cases: Sequence[Case], before: ModelInfo | None) -> ModelInfo:
    """The description with the range of the cases' spacings, and of those on which given weights were trained."""
    spacings = np.array([case.spacing_mm for case in cases])
    if before is not None:
        spacings = np.vstack([spacings, before.spacing_mm_min, before.spacing_mm_max])
    return replace(
        info,
        spacing_mm_min=tuple(np.round(spacings.min(axis=0), 3).tolist()),
        spacing_mm_max=tuple(np.round(spacings.max(axis=0), 3).tolist()),
    )
