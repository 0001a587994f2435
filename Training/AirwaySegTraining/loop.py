"""The training loop: one visible loop over stages and steps, resumable at any checkpoint.

A step's patches depend on the seed and the step's number alone, so a resumed run sees what an unbroken one would have.
"""

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.evaluation import mean_and_deviation
from AirwaySegLib.progress import Progress, silent
from AirwaySegTraining.cases import Case, prepared_groups
from AirwaySegTraining.fitsettings import FitSettings
from AirwaySegTraining.hardskeleton import with_missed
from AirwaySegTraining.objective import stage_loss
from AirwaySegTraining.patches import Batches, Source, case_maps
from AirwaySegTraining.recipes import Recipe, Stage
from AirwaySegTraining.rehearsal import SIDE, rehearsal_cases, rehearsal_file
from AirwaySegTraining.runlog import RunLog
from AirwaySegTraining.runstate import Run, save_model, start_run
from AirwaySegTraining.team import Team, joined_team
from AirwaySegTraining.validation import held_out, mean_score, product_of, validate


@dataclass(frozen=True)
class Bench:
    """What a training works with: processes, folder, cases to train on (by data folder) and held-out ones, progress."""

    team: Team
    folder: Path
    groups: list[list[Case]]
    held: list[Case]
    progress: Progress


def fit(data: list[Path], output: Path, settings: FitSettings, progress: Progress, *, resume: bool = False) -> Path:
    """Train on the cases in ``data`` as the recipe says, and return the file of the weights.

    ``output`` gets last.pt, from which a run is resumed, model.safetensors, the averaged weights at each checkpoint,
    best.safetensors where cases are held out, those with the best `validation.mean_score`, and the files of `RunLog`.
    Under `torchrun` all processes call it.

    Raises
    ------
    AirwaySegError
        If recipe or data cannot be used, ``output`` holds a run and ``resume`` is False, or the disk is full.
    """
    recipe = settings.full_recipe()
    if settings.rehearsal > 0 and max(stage.patch for stage in recipe.stages) > SIDE:
        raise AirwaySegError(f"Simulated patches are {SIDE} voxels wide: choose a smaller --patch or --rehearsal 0.")
    checkpoint = output / "last.pt"
    if checkpoint.exists() and not resume:
        raise AirwaySegError(f"{output} already holds a run; continue it with --resume or choose another folder.")
    with joined_team(settings.device) as team:
        _check_batches(recipe, team)
        if team.device.type == "cpu" and team.size == 1 and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(usable_cpus())  # PyTorch's own default leaves hyper-threads idle
        progress = progress if team.leads else silent
        wanted = tuple(sorted({name for stage in recipe.stages for name in case_maps(stage)}))
        groups = prepared_groups(data, wanted, team, settings.workers, progress)
        run = start_run(settings, recipe, [case for group in groups for case in group], team.device)
        if checkpoint.exists():
            run.load(checkpoint, team.device)
        elif team.leads:  # what a run left that was stopped before its first checkpoint
            for name in ("log.csv", "validation.csv", "best.safetensors"):
                (output / name).unlink(missing_ok=True)
        held = held_out(groups, settings.validation, settings.seed)
        kept = [[case for case in group if case not in held] for group in groups]
        if settings.rehearsal > 0:
            kept.append(rehearsal_cases(rehearsal_file(), wanted)[0])
        train(run, Bench(team, output, kept, held, progress))
        return output / "model.safetensors"


def train(run: Run, bench: Bench) -> None:
    """All steps that are left, stage after stage."""
    team, recipe, settings = bench.team, run.recipe, run.settings
    net, log = parallel(run, team), RunLog(bench.folder, run.step, writes=team.leads)
    if settings.start_from and run.step == 0:
        check(run, bench, log)  # what the training has to beat
    for place in range(recipe.stage_at(run.step), len(recipe.stages)):
        stage, end = run.enter(place), recipe.ends[place]
        groups = with_missed(bench.groups, run, team, bench.folder, bench.progress)
        net.train()
        for batch in log.timed(loader(groups, run, team)):
            at = run.step - (end - stage.steps)
            if at >= stage.frozen_from * stage.steps:
                freeze_norm(net)
            rate = set_rate(run.optimizer, rate_at(at, stage))
            torch.manual_seed(settings.seed * 1_000_003 + run.step + team.rank * 10**9)  # dropout, as after a resume
            log.step(*train_step(net, run, stage, batch, team))
            update_average(run.average, run.net, min(stage.average, (run.step + 1) / (run.step + 10)))
            run.step += 1
            bench.progress("train", run.step, recipe.ends[-1])
            if run.step % settings.checkpoint_every == 0 or run.step == end:
                log.write(run.step, stage.name, rate)
                if run.step % settings.validate_every == 0 or run.step == recipe.ends[-1]:
                    check(run, bench, log)
                if team.leads:
                    save_model(run, bench.folder / "model.safetensors", {})
                    run.save(bench.folder / "last.pt")
                team.wait()
    log.close()


def train_step(net: nn.Module, run: Run, stage: Stage, batch: dict[str, Tensor], team: Team) -> tuple[float, float]:
    """One update on a batch, both heads supervised (WingsNet, III-B): the loss, and the norm of its gradients.

    The loss is that of all processes' patches together, computed by each. DistributedDataParallel takes the mean of
    their gradients, and the factor makes it the sum.
    """
    batch = {name: part.to(team.device, non_blocking=True) for name, part in batch.items()}
    with torch.autocast(team.device.type, torch.bfloat16, enabled=run.settings.precision == "bfloat16"):
        heads = net(batch.pop("image"))
    whole = {name: team.together(part) for name, part in batch.items()}
    loss = torch.stack([stage_loss(stage, team.together(logits.float()), whole) for logits in heads]).sum()
    run.optimizer.zero_grad(set_to_none=True)
    (team.size * loss).backward()
    norm = nn.utils.clip_grad_norm_(net.parameters(), stage.clip)
    if torch.isfinite(norm):  # one overflow in bfloat16 must not end a training of hours
        run.optimizer.step()
    return float(loss.detach()), float(norm)


def check(run: Run, bench: Bench, log: RunLog) -> None:
    """Segment the held-out cases with the averaged weights; keep the weights if they are the best so far."""
    if not bench.held:
        return
    numbers = {}
    model = product_of(run.average, run.info, run.settings.precision)
    mine = bench.team.share(bench.held)
    for done, case in enumerate(mine):
        bench.progress("validate", done, len(mine))
        numbers[case.name] = validate(model, case, bench.team.device.type)
    bench.progress("validate", len(mine), len(mine))
    cases = bench.team.merged(numbers)
    means, _ = mean_and_deviation(cases)
    log.write_validation(run.step, cases, means)
    score = mean_score(cases)
    if score > run.best:
        run.best = score
        if bench.team.leads:
            save_model(run, bench.folder / "best.safetensors", {"held_out": sorted(cases), "score": score})


def loader(groups: list[list[Case]], run: Run, team: Team) -> DataLoader:
    """The batches that are left of the run's stage, made by processes of their own."""
    stage, end = run.recipe.stages[run.place], run.recipe.ends[run.place]
    source = Source(groups, group_shares(groups, run.settings), run.windows_hu, run.settings.seed)
    # Forked workers share the cases' centres and maps; where there is no fork each would hold a copy of them all.
    workers = run.settings.workers if sys.platform == "linux" else 0
    return DataLoader(
        Batches(source, stage, team.rank, team.size),
        batch_size=None,
        sampler=range(run.step, end),
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        multiprocessing_context="fork" if workers else None,
        pin_memory=team.device.type == "cuda",
    )


def group_shares(groups: Sequence[Sequence[Case]], settings: FitSettings) -> NDArray[np.float64]:
    """Share of each data folder, and last of the simulated patches if there are such, in all patches; they sum to 1.

    Raises
    ------
    AirwaySegError
        If there are not as many shares as folders, or one is not above 0.
    """
    folders = groups[:-1] if settings.rehearsal > 0 else groups
    shares = np.array(settings.shares or [len(cases) for cases in folders], float)
    if len(shares) != len(folders) or not (shares > 0).all():
        raise AirwaySegError(f"The shares {settings.shares} do not fit {len(folders)} data folders.")
    shares = (1 - settings.rehearsal) * shares / shares.sum()
    return np.append(shares, settings.rehearsal) if settings.rehearsal > 0 else shares


def rate_at(step: int, stage: Stage) -> float:
    """Learning rate at a step of a stage, counted from 0; see `Stage` for the schedules."""
    warm = min(1.0, (step + 1) / stage.warm_up) if stage.warm_up else 1.0
    done = step / stage.steps
    match stage.schedule:
        case "steps":
            falling = 0.1 ** sum(done >= drop for drop in stage.drops_at)
        case "poly":
            falling = (1 - done) ** 0.9
        case "cosine":
            falling = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
        case _:
            falling = 1.0
    return stage.rate * warm * falling


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> float:
    """Set the learning rate and give it back."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def freeze_norm(net: nn.Module) -> None:
    """Batch normalisation uses its running statistics from now on; its weights still learn."""
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


@torch.no_grad()
def update_average(average: nn.Module, net: nn.Module, keep: float) -> None:
    """Moving average of all weights and running statistics, in place."""
    mine, theirs = average.state_dict(), net.state_dict()
    for name, value in mine.items():
        if value.is_floating_point():
            value.lerp_(theirs[name], 1 - keep)
        else:
            value.copy_(theirs[name])


def parallel(run: Run, team: Team) -> nn.Module:
    """The network as all processes train it together; alone, the network itself."""
    if team.size == 1:
        return run.net
    on_gpu = team.device.type == "cuda"
    if on_gpu:  # on the CPU, PyTorch has no normalisation over the patches of all processes
        run.net = nn.SyncBatchNorm.convert_sync_batchnorm(run.net)
    return DistributedDataParallel(run.net, device_ids=[team.device.index] if on_gpu else None)


def usable_cpus() -> int:
    """How many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_batches(recipe: Recipe, team: Team) -> None:
    for stage in recipe.stages:
        if stage.batch % team.size:
            raise AirwaySegError(
                f"Stage {stage.name}: a batch of {stage.batch} patches cannot be shared by {team.size} processes."
            )
