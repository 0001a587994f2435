"""The steps of every training: learning rate, update, moving average, rows of the log, checkpoints.

A step's patches depend on the seed and the step's number alone, so a resumed run sees what an unbroken one would have.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.progress import Progress
from AirwaySegTraining.distributed import Team
from AirwaySegTraining.fit.machine import worker_options
from AirwaySegTraining.fit.run_folder import CHECKPOINT
from AirwaySegTraining.fit.run_log import RunLog
from AirwaySegTraining.fit.training_state import TrainingState

Batch = dict[str, Tensor]

CHECKPOINT_SECONDS = 60.0
"""Between two checkpoints of a training that is limited in time."""

MOST_STEPS = 10**9
"""Of a training that is limited in time: none comes so far."""


@dataclass(frozen=True)
class Phase:
    """Steps with one optimiser, loss and schedule: a stage of a recipe, or a whole training.

    ``begins`` and ``ends`` are counted from the beginning of the training; with ``minutes`` the phase ends after that
    time instead. ``rate`` gives the learning rate of a step that is counted from ``begins``, when the given share of
    the phase is done; ``step`` makes one update and returns the loss and the norm of its gradients. ``average`` is the
    share that the moving average of the weights keeps in a step. ``prepare`` is called before each step with the share
    that is done, and ``check`` after each checkpoint.
    """

    name: str
    begins: int
    ends: int
    rate: Callable[[int, float], float]
    step: Callable[[Batch], tuple[float, float]]
    average: float
    prepare: Callable[[float], None] = lambda done: None
    check: Callable[[], None] = lambda: None
    minutes: float | None = None

    def done(self, run: TrainingState) -> float:
        """The share of the phase that a training has done, 1 at its end."""
        if self.minutes is not None:
            return min(1.0, run.seconds / (60 * self.minutes))
        return (run.step - self.begins) / (self.ends - self.begins)


@dataclass(frozen=True)
class Surroundings:
    """The folder and the log of a run, the processes that train, and progress out of ``steps``, or of seconds where the
    time is limited."""

    folder: Path
    log: RunLog
    team: Team
    progress: Progress
    steps: int


def train_phase(run: TrainingState, phase: Phase, data: "Dataset[Batch]", around: Surroundings, *, ahead: int) -> None:
    """All steps that are left of a phase, with a row of the log and a checkpoint where these are due.

    Item ``step`` of ``data`` is the batch of that step; each worker prepares ``ahead`` of them beforehand.
    """
    log, settings = around.log, run.settings
    if phase.done(run) >= 1:
        return
    last = phase.ends if phase.minutes is None else MOST_STEPS
    batches = loader(data, range(run.step, last), settings.workers, around.team.device, ahead=ahead)
    clock = Clock(run.seconds)
    for batch in log.timed(batches):
        done = phase.done(run)
        phase.prepare(done)
        rate = set_rate(run.optimizer, phase.rate(run.step - phase.begins, done))
        loss, norm = phase.step(batch)
        log.step(loss, norm)
        if math.isfinite(norm):
            update_average(run.average, run.net, min(phase.average, (run.step + 1) / (run.step + 10)))
        else:
            restore_statistics(run.net, run.average)
        run.step += 1
        is_due = run.step % settings.checkpoint_every == 0
        if phase.minutes is None:
            around.progress("train", run.step, around.steps)
        else:
            run.seconds = around.team.leading(clock.seconds())
            is_due = run.seconds - clock.saved >= CHECKPOINT_SECONDS
            around.progress("train", min(int(run.seconds), around.steps), around.steps)
        is_over = phase.done(run) >= 1
        if is_due or is_over:
            clock.saved = run.seconds
            log.write(run.step, phase.name, rate)
            if around.team.leads:
                run.save_model(around.folder / "model.safetensors", {})
                run.save(around.folder / CHECKPOINT)
            phase.check()
        if is_over:
            return


class Clock:
    """Seconds of a training that is limited in time, of those before it was resumed too."""

    def __init__(self, before: float) -> None:
        self.begun, self.saved = time.monotonic() - before, before

    def seconds(self) -> float:
        """Seconds by now; those of the last checkpoint are ``saved``."""
        return time.monotonic() - self.begun


def loader(
    data: "Dataset[Batch]", steps: range, workers: int | None, device: torch.device, *, ahead: int
) -> Iterator[Batch]:
    """The batches of the ``steps``, made by worker processes.

    With hard mining some batches of `patches.Batches` depend on the training of those before them. Its method ``parts``
    then divides the steps, and each part has its own worker processes.
    """
    parts: Iterable[range] = data.parts(steps) if hasattr(data, "parts") else (steps,)
    for part in parts:
        batches = DataLoader(
            data,
            batch_size=None,
            sampler=part,
            pin_memory=device.type == "cuda",
            **worker_options(workers or 0, ahead=ahead),
        )
        try:
            yield from batches
        except AirwaySegError as error:  # a worker's comes with its traceback as the text
            raise AirwaySegError(str(error).rsplit("AirwaySegError: ", 1)[-1].strip()) from error


def update(run: TrainingState, loss: Tensor, clip: float, processes: int = 1) -> tuple[float, float]:
    """One step of the optimiser: the loss, and the norm of its gradients before they are clipped at ``clip``.

    DistributedDataParallel takes the mean of the gradients of all ``processes``; the factor makes it the sum. Where
    the norm is not finite the step is skipped: one overflow in bfloat16 must not end a training of hours.
    """
    run.optimizer.zero_grad(set_to_none=True)
    (processes * loss).backward()
    norm = nn.utils.clip_grad_norm_(run.net.parameters(), clip)
    if torch.isfinite(norm):
        run.optimizer.step()
    return float(loss.detach()), float(norm)


@torch.no_grad()
def restore_statistics(net: nn.Module, average: nn.Module) -> None:
    """Give a network whose forward pass overflowed the average's running statistics where its own are not finite."""
    for mine, known in zip(net.buffers(), average.buffers(), strict=True):
        if not torch.isfinite(mine).all():
            mine.copy_(known)


def in_precision(precision: str, device: torch.device) -> torch.autocast:
    """The context in which a network computes in ``precision``, "bfloat16" or "float32"."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def risen(step: int, warm_up: int) -> float:
    """Share of the learning rate in a warm-up of so many steps (0: none), 1 after it; ``step`` is counted from 0."""
    return min(1.0, (step + 1) / warm_up) if warm_up else 1.0


def cosine(done: float, last: float) -> float:
    """Share of the learning rate that falls along half a cosine, from 1 at ``done`` 0 to ``last`` at ``done`` 1."""
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * done))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> float:
    """Set the learning rate and give it back."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


@torch.no_grad()
def update_average(average: nn.Module, net: nn.Module, keep: float) -> None:
    """Moving average of all weights and running statistics, in place."""
    mine, theirs = average.state_dict(), net.state_dict()
    for name, value in mine.items():
        if value.is_floating_point():
            value.lerp_(theirs[name], 1 - keep)
        else:
            value.copy_(theirs[name])
