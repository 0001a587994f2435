"""The training loop: one visible loop over steps, resumable at any of them.

A step's patches depend on the seed and the step's number alone, so a resumed run sees what an unbroken one would have.
"""

import copy
import csv
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from AirwaySegLib import __version__
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.network import WingsNet
from AirwaySegLib.planner import choose_device
from AirwaySegLib.progress import Progress
from AirwaySegLib.weights import ModelInfo, load_weights, save_weights
from AirwaySegTraining.cases import IGNORE, Case, draw_patch, read_cases
from AirwaySegTraining.fitsettings import FitSettings
from AirwaySegTraining.losses import dice_and_cross_entropy


class Patches(Dataset):
    """Item ``step`` is the step's batch: HU scaled to 0..1 (B, 1, S, S, S) float32, label (B, 1, S, S, S) uint8."""

    def __init__(self, groups: list[list[Case]], settings: FitSettings, info: ModelInfo) -> None:
        self.groups, self.settings, self.window_hu = groups, settings, info.window_hu
        self.shares = group_shares(groups, settings)

    def __len__(self) -> int:
        return self.settings.steps

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([self.settings.seed, step])
        pairs = [draw_patch(self._draw_case(rng), self.settings.patch, rng) for _ in range(self.settings.batch)]
        low, high = self.window_hu
        images = np.clip((np.stack([hu for hu, _ in pairs]) - low) / (high - low), 0, 1)
        labels = np.stack([label for _, label in pairs])
        return torch.from_numpy(images.astype(np.float32))[:, None], torch.from_numpy(labels)[:, None]

    def _draw_case(self, rng: np.random.Generator) -> Case:
        group = self.groups[rng.choice(len(self.groups), p=self.shares)]
        return group[rng.integers(len(group))]


def group_shares(groups: list[list[Case]], settings: FitSettings) -> NDArray[np.float64]:
    """Share of each data folder in the patches, summing to 1.

    Raises
    ------
    AirwaySegError
        If there are not as many shares as folders, or one is not above 0.
    """
    shares = np.array(settings.shares or [len(cases) for cases in groups], float)
    if len(shares) != len(groups) or not (shares > 0).all():
        raise AirwaySegError(f"The shares {settings.shares} do not fit {len(groups)} data folders.")
    return shares / shares.sum()


def rate_at(step: int, settings: FitSettings) -> float:
    """Learning rate: 100 steps of warm-up, then a cosine to 1 % of the full rate."""
    warm = min(1.0, (step + 1) / 100)
    cosine = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return settings.rate * warm * (0.01 + 0.99 * cosine)


def freeze_norm(net: nn.Module) -> None:
    """Batch normalisation uses its running statistics from now on; its weights still learn."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.eval()


def train_step(net: WingsNet, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> float:
    """One update on a batch; both heads are supervised. Returns the loss."""
    target = (labels == 1).float()
    weight = (labels != IGNORE).float()
    with torch.autocast(images.device.type, torch.bfloat16):
        encoder_logits, decoder_logits = net(images)
    loss = sum(dice_and_cross_entropy(logits, target, weight) for logits in (encoder_logits, decoder_logits))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(net.parameters(), 5.0)
    if torch.isfinite(norm):  # one overflow in bfloat16 must not end a training of hours
        optimizer.step()
    return float(loss.detach())


@torch.no_grad()
def update_average(average: WingsNet, net: WingsNet, keep: float) -> None:
    """Moving average of all weights and running statistics, in place."""
    mine, theirs = average.state_dict(), net.state_dict()
    for name, value in mine.items():
        if value.is_floating_point():
            value.lerp_(theirs[name], 1 - keep)
        else:
            value.copy_(theirs[name])


@dataclass
class Run:
    """The state of a training between two steps."""

    net: WingsNet
    average: WingsNet
    optimizer: torch.optim.Optimizer
    settings: FitSettings
    step: int = 0

    def save(self, path: Path) -> None:
        """Write the checkpoint whole or not at all."""
        unfinished = path.with_suffix(".unfinished")
        state = {
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "settings": asdict(self.settings),
        }
        torch.save(state, unfinished)
        os.replace(unfinished, path)

    def load(self, path: Path, device: torch.device) -> None:
        """Continue from a checkpoint; refuse one that is damaged or of other settings."""
        try:
            state = torch.load(path, map_location=device, weights_only=True)
            before = {**state["settings"], "shares": tuple(state["settings"]["shares"])}
        except Exception as error:  # the reader meets arbitrary bytes, and the kinds of its errors are not promised
            raise AirwaySegError(f"{path} is damaged or no checkpoint of `fit`.") from error
        now = asdict(self.settings)
        other = [name for name in now if name not in ("device", "workers") and before.get(name) != now[name]]
        if other:
            raise AirwaySegError(f"{path} is of a training with another --{other[0].replace('_', '-')}.")
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def start_run(settings: FitSettings, device: torch.device) -> tuple[Run, ModelInfo]:
    """Fresh or given weights, their average, the optimiser, at step 0."""
    torch.manual_seed(settings.seed)
    if settings.start_from:
        net, info, _ = load_weights(settings.start_from)
        if (info.in_channels, info.classes) != (1, 1):
            raise AirwaySegError(f"{settings.start_from} has several channels or classes, which `fit` does not train.")
    else:
        # Instance normalisation depends on what a window holds, so test windows have the training's size.
        side = settings.patch if settings.norm == "instance" else 128
        info = ModelInfo(name="run", norm=settings.norm, patch_zyx=(side, side, side))
        net = info.build()
    net = net.to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=settings.rate, weight_decay=1e-4)
    return Run(net, copy.deepcopy(net), optimizer, settings), info


def training_device(wanted: str) -> torch.device:
    """The device to train on; "auto" is a CUDA GPU or the CPU."""
    chosen = choose_device(wanted)
    return torch.device("cpu" if wanted == "auto" and chosen == "mps" else chosen)


def usable_cpus() -> int:
    """How many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fit(data: list[Path], output: Path, settings: FitSettings, progress: Progress, *, resume: bool = False) -> Path:
    """Train on the cases in ``data``; write log.csv, last.pt and model.safetensors into ``output`` again and again.

    Raises
    ------
    AirwaySegError
        If the data cannot be used, or ``output`` holds a run and ``resume`` is False.
    """
    device = training_device(settings.device)
    checkpoint = output / "last.pt"
    if checkpoint.exists() and not resume:
        raise AirwaySegError(f"{output} already holds a run; continue it with --resume or choose another folder.")
    if device.type == "cpu":
        torch.set_num_threads(usable_cpus())  # PyTorch's own default leaves hyper-threads idle
    run, info = start_run(settings, device)
    if checkpoint.exists():
        run.load(checkpoint, device)
    groups = [read_cases(folder, progress) for folder in data]
    output.mkdir(parents=True, exist_ok=True)
    # Forked workers share the cases in memory; where there is no fork each would hold a copy of them all.
    workers = settings.workers if sys.platform == "linux" else 0
    loader = DataLoader(
        Patches(groups, settings, info),
        batch_size=None,
        sampler=range(run.step, settings.steps),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="fork" if workers else None,
    )
    target = output / "model.safetensors"
    cases = [case for group in groups for case in group]
    _loop(run, loader, settings, output, progress, lambda: save_run(run, info, settings, cases, target))
    return target


def _loop(
    run: Run,
    loader: DataLoader,
    settings: FitSettings,
    output: Path,
    progress: Progress,
    after_save: Callable[[], None],
) -> None:
    device = next(run.net.parameters()).device
    run.net.train()
    began, losses = time.monotonic(), []
    with (output / "log.csv").open("a", newline="") as log:
        writer = csv.writer(log)
        for images, labels in loader:
            if run.step >= settings.frozen_from * settings.steps:
                freeze_norm(run.net)
            torch.manual_seed(settings.seed * 1_000_003 + run.step)  # dropout, the same after a resume
            for group in run.optimizer.param_groups:
                group["lr"] = rate_at(run.step, settings)
            losses.append(train_step(run.net, run.optimizer, images.to(device), labels.to(device)))
            update_average(run.average, run.net, min(settings.average, (run.step + 1) / (run.step + 10)))
            run.step += 1
            progress("train", run.step, settings.steps)
            if run.step % settings.checkpoint_every == 0 or run.step == settings.steps:
                writer.writerow([run.step, round(float(np.mean(losses)), 5), round(time.monotonic() - began, 1)])
                log.flush()
                losses.clear()
                run.save(output / "last.pt")
                after_save()


def save_run(run: Run, info: ModelInfo, settings: FitSettings, cases: list[Case], target: Path) -> None:
    """Write the averaged weights with how they came about; the spacings they know are those of the cases."""
    spacings = np.array([case.spacing_mm for case in cases])
    provenance = {
        "trained_with": f"AirwaySeg {__version__}, PyTorch {torch.__version__}",
        "settings": asdict(settings),
        "steps": run.step,
        "cases": len(cases),
    }
    described = replace(
        info,
        name=target.parent.name,
        spacing_mm_min=tuple(np.round(spacings.min(axis=0), 3).tolist()),
        spacing_mm_max=tuple(np.round(spacings.max(axis=0), 3).tolist()),
        provenance={**provenance, "began_with": info.provenance} if info.provenance else provenance,
    )
    save_weights(target, copy.deepcopy(run.average).cpu().eval(), described, force=True)
