"""Training with a recipe: stage after stage, resumable at any checkpoint; `steps` makes the steps of each."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from AirwaySegLib.commands.evaluate import mean_and_deviation
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.networks.architectures import heads_of
from AirwaySegLib.progress import Progress, silent
from AirwaySegTraining.data.cases import Case, prepared_groups
from AirwaySegTraining.distributed import Team, joined_team
from AirwaySegTraining.fit.checkpoint import Run, start_run
from AirwaySegTraining.fit.hard_skeleton import with_missed
from AirwaySegTraining.fit.machine import keep_freed_memory, settled, use_all_cpus
from AirwaySegTraining.fit.mining import Miner
from AirwaySegTraining.fit.patches import Batches, Source, case_maps
from AirwaySegTraining.fit.recipes import Recipe, Stage
from AirwaySegTraining.fit.rehearsal import SIDE, rehearsal_cases, rehearsal_file
from AirwaySegTraining.fit.run_folder import CHECKPOINT, run_folder
from AirwaySegTraining.fit.run_log import RunLog
from AirwaySegTraining.fit.settings import FitSettings
from AirwaySegTraining.fit.stage_loss import TEACHER, patch_losses, stage_loss
from AirwaySegTraining.fit.steps import Phase, Surroundings, cosine, in_precision, risen, train_phase, update
from AirwaySegTraining.fit.team_norm import with_team_norm
from AirwaySegTraining.fit.training_state import precision_of
from AirwaySegTraining.fit.validation import doubt_about_labels, held_out, looked_at, mean_score, product_of, validate
from AirwaySegTraining.losses.equations import union_probability


@dataclass(frozen=True)
class TrainingContext:
    """What a training works with: processes, folder, cases to train on (by data folder), progress.

    ``held`` are the cases held out, ``judged`` those of them that are looked at.
    """

    team: Team
    folder: Path
    groups: list[list[Case]]
    held: list[Case]
    judged: list[Case]
    progress: Progress


def fit(data: list[Path], output: Path, settings: FitSettings, progress: Progress, *, resume: bool = False) -> Path:
    """Train on the cases in ``data`` as the recipe says, and return the file of the weights.

    ``output`` gets last.pt, from which a run is resumed, model.safetensors, the averaged weights at each checkpoint,
    best.safetensors where cases are held out, those with the best `validation.mean_score`, and the files of `RunLog`.
    Under `torchrun` all processes call it.

    Raises
    ------
    AirwaySegError
        If recipe or data cannot be used, another process works in ``output``, it holds a run and ``resume`` is False,
        or the disk is full.
    """
    recipe = settings.full_recipe()
    if settings.rehearsal > 0 and max(stage.patch for stage in recipe.stages) > SIDE:
        raise AirwaySegError(f"Simulated patches are {SIDE} voxels wide: choose a smaller --patch or --rehearsal 0.")
    checkpoint = output / CHECKPOINT
    with run_folder(output, "fit", resume=resume):
        goes_on = checkpoint.exists()  # asked before the processes have joined, after which one of them writes it
        with joined_team(settings.device) as team:
            _check_batches(recipe, team)
            use_all_cpus(team)
            settings = settled(settings, team, precision_of(checkpoint) if goes_on else None)
            progress = progress if team.leads else silent
            groups = prepared_groups(data, wanted_maps(recipe), team, settings.workers or 0, progress)
            keep_freed_memory(team)  # not before: preparing a case takes much that is not needed again
            run = start_run(settings, recipe, [case for group in groups for case in group], team.device)
            if goes_on:
                run.load(checkpoint, team.device)
            train(run, laid_out(groups, run, team, output, progress))
    return output / "model.safetensors"


def wanted_maps(recipe: Recipe) -> tuple[str, ...]:
    """The maps that the stages need of every case."""
    return tuple(sorted({name for stage in recipe.stages for name in case_maps(stage)}))


def laid_out(groups: list[list[Case]], run: Run, team: Team, folder: Path, progress: Progress) -> TrainingContext:
    """The context for a run: cases to train on, simulated patches among them, and cases held out."""
    settings = run.settings
    held = held_out(groups, settings.validation, settings.seed)
    kept = [[case for case in group if case not in held] for group in groups]
    if settings.rehearsal > 0:
        kept.append(rehearsal_cases(rehearsal_file(), wanted_maps(run.recipe))[0])
    return TrainingContext(team, folder, kept, held, looked_at(held, settings.validate_cases, settings.seed), progress)


def train(run: Run, context: TrainingContext) -> None:
    """All steps that are left, stage after stage. A checkpoint comes before the validation, which may fail."""
    team, recipe, settings = context.team, run.recipe, run.settings
    net, log = parallel(run, team), RunLog(context.folder, run.step, writes=team.leads)
    total = recipe.ends[-1] if settings.minutes is None else round(60 * settings.minutes)
    around = Surroundings(context.folder, log, team, context.progress, total)
    if team.leads and run.step == 0:
        run.save(context.folder / CHECKPOINT)  # from now on the run can be continued
    for note in notes_of(run, context):
        log.say(run.step, note)
    check(run, context, log)
    for place in range(recipe.stage_at(run.step), len(recipe.stages)):
        run.enter(place)
        groups = with_missed(context.groups, run, team, context.folder, context.progress)
        net.train()
        source = Source(groups, group_shares(groups, settings), run.windows_hu, settings.seed)
        batches = Batches(source, recipe.stages[place], team.rank, team.size, miner_of(run))
        train_phase(run, phase_of(net, run, context, log), batches, around, ahead=2)
    log.close()


def phase_of(net: nn.Module, run: Run, context: TrainingContext, log: RunLog) -> Phase:
    """The run's stage, whose batch normalisation is frozen from some step on and whose held-out cases are looked at."""
    stage, end, team = run.recipe.stages[run.place], run.recipe.ends[run.place], context.team

    def prepare(done: float) -> None:
        run.frozen = run.frozen or done >= stage.frozen_from
        if run.frozen:
            freeze_norm(net)
        torch.manual_seed(run.settings.seed * 1_000_003 + run.step + team.rank * 10**9)  # dropout, as after a resume

    def look() -> None:
        check(run, context, log)
        team.wait()

    return Phase(
        name=stage.name,
        begins=end - stage.steps,
        ends=end,
        rate=lambda step, done: rate_at(step, stage, done),
        step=lambda batch: train_step(net, run, stage, batch, team),
        average=stage.average,
        prepare=prepare,
        check=look,
        minutes=run.settings.minutes,
    )


def miner_of(run: Run) -> Miner | None:
    """The `Miner` of the run's stage; None without hard mining."""
    stage = run.recipe.stages[run.place]
    if not stage.mined:
        return None
    return Miner(stage, run.recipe.ends[run.place] - stage.steps, run.settings.seed, run.losses)


def train_step(net: nn.Module, run: Run, stage: Stage, batch: dict[str, Tensor], team: Team) -> tuple[float, float]:
    """One update on a batch, every head supervised (WingsNet, III-B): the loss, and the norm of its gradients.

    The loss is that of all processes' patches together, computed by each. With hard mining, the losses of new patches
    are stored in ``run.losses``.
    """
    batch = {name: part.to(team.device, non_blocking=True) for name, part in batch.items()}
    image = batch.pop("image")
    with in_precision(run.settings.precision, team.device):
        heads = heads_of(net(image))
        if run.teacher is not None:
            with torch.no_grad():
                batch[TEACHER] = union_probability(heads_of(run.teacher(image))[-1])
    whole = {name: team.together(part) for name, part in batch.items()}
    loss = torch.zeros((), device=team.device)
    for number, logits in enumerate(heads, start=1):
        _check_logits(logits, batch["label"], run.info.classes)
        loss = loss + stage_loss(stage, team.together(logits.float()), whole, of_encoder=number < len(heads))
    miner = miner_of(run)
    if miner is not None and not miner.is_hard(run.step):
        run.losses[run.step] = team.together(patch_losses(stage, heads[-1].detach(), batch)).tolist()
    return update(run, loss, stage.clip, team.size)


def _check_logits(logits: Tensor, label: Tensor, classes: int) -> None:
    wanted = (len(label), classes, *label.shape[2:])
    if tuple(logits.shape) != wanted:
        raise AirwaySegError(f"The network gives logits of {tuple(logits.shape)}, and {wanted} are needed.")


def notes_of(run: Run, context: TrainingContext) -> list[str]:
    """What a person may want to know later about how the run began or went on."""
    settings, team = run.settings, context.team
    notes = [
        f"{'Continued' if run.step else 'Begun'} in {settings.precision} on {team.device.type}, "
        f"{team.size} process(es), {settings.workers} worker(s) each."
    ]
    if context.held:
        notes.append(
            f"{len(context.held)} case(s) are held out and {len(context.judged)} of them looked at (--validate-cases "
            f"{settings.validate_cases}): {', '.join(case.name for case in context.judged)}."
        )
    if run.lengthened_from is not None:
        stage = run.recipe.stages[0]
        notes.append(
            f"Lengthened from {run.lengthened_from} to {stage.steps} steps: the learning rate goes on as that of "
            f"{stage.steps} steps does, at {rate_at(run.step, stage):.2g}."
        )
    return notes


def is_due(run: Run) -> bool:
    """Whether the held-out cases are to be looked at after this step; at the beginning to see what is to be beaten."""
    if run.step == 0:
        return run.settings.start_from is not None
    if run.settings.minutes is not None:
        return run.seconds >= 60 * run.settings.minutes
    return run.step % run.settings.validate_every == 0 or run.step == run.recipe.ends[-1]


def check(run: Run, context: TrainingContext, log: RunLog) -> None:
    """Where that is due, segment held-out cases with the averaged weights, and keep these if they are the best so far.

    A run that was stopped meanwhile does it when it goes on.
    """
    if not context.judged or run.checked == run.step or not is_due(run):
        return
    numbers = {}
    model = product_of(run.average, run.info, run.settings.precision)
    mine = context.team.share(context.judged)
    for done, case in enumerate(mine):
        context.progress("validate", done, len(mine))
        numbers[case.name] = validate(model, case, context.team.device.type)
    context.progress("validate", len(mine), len(mine))
    cases = context.team.merged(numbers)
    means, _ = mean_and_deviation(cases)
    log.write_validation(run.step, cases, means)
    if run.step == 0 and (doubt := doubt_about_labels(cases)):
        log.say(0, doubt, logging.WARNING)
    score, run.checked = mean_score(cases), run.step
    is_best = score > run.best
    run.best = max(run.best, score)
    if context.team.leads:
        if is_best:
            run.save_model(context.folder / "best.safetensors", {"held_out": sorted(cases), "score": score})
        run.save(context.folder / CHECKPOINT)


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


def rate_at(step: int, stage: Stage, done: float | None = None) -> float:
    """Learning rate at a step of a stage, counted from 0; see `Stage` for the schedules.

    ``done`` is the share of the stage that is done; None takes the step's share of the stage's steps.
    """
    done = step / stage.steps if done is None else done
    match stage.schedule:
        case "steps":
            falling = 0.1 ** sum(done >= drop for drop in stage.drops_at)
        case "poly":
            falling = (1 - done) ** 0.9
        case "cosine":
            falling = cosine(done, last=0.01)
        case _:
            falling = 1.0
    return stage.rate * risen(step, stage.warm_up) * falling


def freeze_norm(net: nn.Module) -> None:
    """Batch normalisation uses its running statistics from now on; its weights still learn."""
    for module in net.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def parallel(run: Run, team: Team) -> nn.Module:
    """The network as all processes train it together; alone, the network itself."""
    if team.size == 1:
        return run.net
    on_gpu = team.device.type == "cuda"
    run.net = nn.SyncBatchNorm.convert_sync_batchnorm(run.net) if on_gpu else with_team_norm(run.net)
    return DistributedDataParallel(run.net, device_ids=[team.device.index] if on_gpu else None)


def _check_batches(recipe: Recipe, team: Team) -> None:
    for stage in recipe.stages:
        if stage.batch % team.size:
            raise AirwaySegError(
                f"Stage {stage.name}: a batch of {stage.batch} patches cannot be shared by {team.size} processes."
            )
