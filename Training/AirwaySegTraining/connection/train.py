"""Training of the connection network on simulated breaks, and on the breaks in a first stage's masks.

DeepTree (Accurate Airway Tree Segmentation in CT Scans via Anatomy-aware Multi-class Segmentation and Deep Breakage
Connection), section 2.2 and 2.3: two channels, Dice and cross-entropy. A step's patches depend only on the random seed
and the step's number, so a resumed run sees the same patches as an uninterrupted one.
"""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from AirwaySegLib.commands.evaluate import mean_and_deviation
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.masks.components import label_components
from AirwaySegLib.networks.connection_net import Connector
from AirwaySegLib.networks.weights import ModelInfo, load_weights
from AirwaySegLib.progress import Progress
from AirwaySegLib.repair.bridge import groups_of
from AirwaySegLib.repair.network_bridges import BREAKAGE_WINDOW_HU, SIDE, network_bridges
from AirwaySegTraining.connection.pool import (
    MISSING,
    OPEN,
    BreakagePatches,
    PooledTree,
    PoolSettings,
    broken_trees,
    make_pool,
    pool_files,
)
from AirwaySegTraining.data.cases import Case, case_folders, prepared_groups
from AirwaySegTraining.distributed import Team, joined_team
from AirwaySegTraining.fit.machine import MOST_WORKERS, settled, usable_cpus, use_all_cpus
from AirwaySegTraining.fit.run_folder import CHECKPOINT, run_folder
from AirwaySegTraining.fit.run_log import RunLog
from AirwaySegTraining.fit.settings import check_precision
from AirwaySegTraining.fit.steps import Phase, Surroundings, cosine, in_precision, risen, train_phase, update
from AirwaySegTraining.fit.training_state import (
    TrainingState,
    changed_settings,
    flag_of,
    precision_of,
    with_spacings,
)
from AirwaySegTraining.fit.validation import as_scanned, held_out, looked_at

WARM_UP, LAST_SHARE = 50, 0.02
"""Warm-up steps (at most an eighth of all), and the final learning rate of the cosine as a share of the highest."""

DECAY, CLIP, KEPT = 1e-4, 2.0, 0.998
"""Weight decay, limit of gradient clipping, and decay of the moving average of the weights."""

RARE_WEIGHT = 10.0
"""Weight of a missing voxel in the cross-entropy: of the voxels that count, one in a thousand is missing."""

SURE, NARROW_MM = 0.5, 10.0
"""Default score from which a bridge is applied, and the largest gap that a repair should close."""


@dataclass(frozen=True)
class BreakageSettings:
    """Settings of one training.

    ``trees``: broken trees of each case; ``patches``: the most patches of each tree; ``validation``: share of the
    patients that are held out, of whose cases at most ``validate_cases`` are evaluated. ``precision`` "auto" and
    ``workers`` None are chosen by `machine.settled`.
    """

    steps: int = 4000
    batch: int = 4
    rate: float = 2e-3
    trees: int = 1
    patches: int = 32
    validation: float = 0.1
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None
    checkpoint_every: int = 200
    validate_cases: int = 20
    start_from: str | None = None

    def __post_init__(self) -> None:
        """Raise AirwaySegError for a value outside its limits."""
        for name, least in (
            *((name, 1) for name in ("steps", "batch", "trees", "patches", "checkpoint_every", "validate_cases")),
            *((name, 0) for name in ("seed", "workers")),
        ):
            if getattr(self, name) is not None and getattr(self, name) < least:
                flag = name.replace("_", "-")
                raise AirwaySegError(f"--{flag} is {getattr(self, name)}; it must be at least {least}.")
        if not self.rate > 0:
            raise AirwaySegError(f"--rate is {self.rate}; it must be above 0.")
        if not 0 <= self.validation < 1:
            raise AirwaySegError(f"--validation is {self.validation}; it must be from 0 to below 1.")
        check_precision(self.precision)


@dataclass
class BreakageRun(TrainingState):
    """The training of the command `breakage` between two steps."""

    command: ClassVar[str] = "breakage"

    net: Connector
    average: Connector
    settings: BreakageSettings
    device: torch.device

    def __post_init__(self) -> None:
        """Begin with an optimiser without moments."""
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=self.settings.rate, weight_decay=DECAY)

    def difference(self, state: dict[str, Any]) -> str | None:
        """As `TrainingState.difference`.

        A training may get more steps: the remaining steps then use the learning rates of the longer training.
        """
        other = changed_settings(state, self.settings)
        if other == ["steps"] and self.settings.steps > state["settings"]["steps"]:
            other = []
        return flag_of(other[0]) if other else None

    def provenance(self, more: dict[str, Any]) -> dict[str, Any]:
        """As `TrainingState.provenance`."""
        return {"steps": self.step, **self.info.provenance, **more}


def train_breakage(
    data: Sequence[Path], output: Path, settings: BreakageSettings, progress: Progress, *, resume: bool = False
) -> Path:
    """Train the connection network on the cases in ``data`` and return the file of its weights.

    ``output`` gets the pool of patches, last.pt, from which a run is resumed, log.csv, model.safetensors, the averaged
    weights at each checkpoint, and at the end validation.csv with the `rejoining` of the held-out cases.

    Raises
    ------
    AirwaySegError
        If the data cannot be used, another process works in ``output``, it holds a run and ``resume`` is False, the
        disk is full, or there are several processes.
    """
    with run_folder(output, "breakage", resume=resume), joined_team(settings.device) as team:
        if team.size > 1:
            raise AirwaySegError("breakage runs in one process; start it without torchrun.")
        use_all_cpus(team)
        checkpoint = output / CHECKPOINT
        settings = settled(settings, team, precision_of(checkpoint) if checkpoint.exists() else None)
        _train_in(output, data, settings, team, progress)
    return output / "model.safetensors"


def _train_in(output: Path, data: Sequence[Path], settings: BreakageSettings, team: Team, progress: Progress) -> None:
    groups = prepared_groups(data, (), team, settings.workers or 0, progress)
    cases = [case for group in groups for case in group]
    held = held_out(groups, settings.validation, settings.seed)
    kept = {case.name: case for case in cases if case not in held}
    folders = [folder for root in data for folder in case_folders(root) if folder.name in kept]
    pool = PoolSettings(output / "pool", settings.trees, settings.patches, settings.seed)
    learned = [path.name for folder in folders for path in pool_files(folder, kept[folder.name], pool)]
    run = start_breakage(settings, cases, [*learned, *(case.fingerprint for case in held)], team.device)
    if (output / CHECKPOINT).exists():
        run.load(output / CHECKPOINT, team.device)
    breakers = max(settings.workers or 0, min(MOST_WORKERS, usable_cpus()))
    trees = make_pool(folders, pool, breakers, progress)
    log = RunLog(output, run.step)
    around = Surroundings(output, log, team, progress, settings.steps)
    train(run, trees, looked_at(held, settings.validate_cases, settings.seed), around)
    log.close()


def start_breakage(
    settings: BreakageSettings, cases: Sequence[Case], fingerprints: list[str], device: torch.device
) -> BreakageRun:
    """Fresh or given weights and their average, at step 0, on the device; ``fingerprints`` change with the data."""
    torch.manual_seed(settings.seed)
    before = None
    if settings.start_from:
        net, before, _ = load_weights(settings.start_from, "connector")
    else:
        net = Connector()
    info = ModelInfo(
        name="run",
        in_channels=Connector.in_channels,
        norm=Connector.norm,
        window_hu=BREAKAGE_WINDOW_HU,
        patch_zyx=(SIDE, SIDE, SIDE),
        architecture="connector",
        provenance={"cases": len(cases)},
    )
    info = with_spacings(info, cases, before)
    moved: Any = net  # PyTorch's annotations do not know a module's memory format
    net = moved.to(device, memory_format=torch.channels_last_3d)  # half the time on a CPU
    return BreakageRun(net, copy.deepcopy(net), info, settings, fingerprints, device)


def train(run: BreakageRun, trees: Sequence[PooledTree], held: Sequence[Case], around: Surroundings) -> None:
    """Run the remaining steps, and then evaluate the held-out cases."""
    settings, log, output = run.settings, around.log, around.folder
    if run.step == 0:
        run.save(output / CHECKPOINT)  # from now on the run can be resumed
    log.say(
        run.step,
        f"{'Continued' if run.step else 'Begun'} in {settings.precision} on {run.device.type}, {settings.workers} "
        f"worker(s), {settings.steps} steps, {len(held)} held-out cases are evaluated.",
    )
    run.net.train()
    phase = Phase(
        name="breakage",
        begins=0,
        ends=settings.steps,
        rate=lambda step, _: rate_at(step, settings),
        step=lambda batch: train_step(run, batch),
        average=KEPT,
    )
    train_phase(run, phase, BreakagePatches(trees, settings.batch, settings.seed), around, ahead=4)
    cases = {}
    for done, case in enumerate(held):
        around.progress("validate", done, len(held))
        cases[case.name] = rejoining(run.average, case, settings.seed, run.device.type)
    if cases:
        means, _ = mean_and_deviation(cases)
        log.write_validation(run.step, cases, means)
        known = {name: value for name, value in means.items() if not math.isnan(value)}  # JSON has no NaN
        run.save_model(output / "model.safetensors", {"held_out": sorted(cases), "rejoining": known})


def train_step(run: BreakageRun, batch: dict[str, Tensor]) -> tuple[float, float]:
    """One update on a batch: the loss, and the norm of its gradients."""
    image = batch["image"].to(run.device, memory_format=torch.channels_last_3d)
    with in_precision(run.settings.precision, run.device):
        logits = run.net(image)
    loss = breakage_loss(logits.float(), batch["state"].to(run.device))
    return update(run, loss, CLIP)


def breakage_loss(logits: Tensor, state: Tensor) -> Tensor:
    """Dice loss and mean cross-entropy of the voxels that count, of the whole batch together.

    ``logits`` and ``state`` are (B, 1, Z, Y, X). The sums run over the batch, so that a patch without missing voxels is
    not 0 / 0.
    """
    counts = state != OPEN
    missing = (state == MISSING).float()
    weight = counts + (RARE_WEIGHT - 1) * missing
    entropy = functional.binary_cross_entropy_with_logits(logits, missing, weight=weight, reduction="sum")
    found = logits.sigmoid() * counts
    dice = (2 * (found * missing).sum() + 1) / (found.sum() + missing.sum() + 1)
    return 1 - dice + entropy / weight.sum().clamp(min=1)


def rejoining(network: nn.Module, case: Case, seed: int, device: str) -> dict[str, float]:
    """Repair of a case's broken tree by the network alone, as in `airwayseg repair`; shares 0..1.

    ``rejoined``: share of the breaks that are rejoined; ``rejoined_10mm``: of the breaks up to 10 mm; ``false_joins``:
    share of the false pieces that are joined; NaN without any. A break is rejoined if the components on both its sides
    are joined, directly or through others.
    """
    begun = time.monotonic()
    (broken,) = broken_trees(case, seed, 1)
    labels = label_components(broken.mask)
    hu = as_scanned(case)[0].astype(np.int16)
    bridges = network_bridges(hu, labels, case.spacing_mm, network, device)
    group = groups_of(int(labels.max()), [bridge for bridge in bridges if bridge.score >= SURE])
    mended = np.array([group[labels[one.before]] == group[labels[one.beyond]] for one in broken.breaks], float)
    narrow = np.array([one.gap_mm <= NARROW_MM for one in broken.breaks], bool)
    distractors = np.setdiff1d(labels[broken.distractors], 0)
    joined = np.bincount(group)[group[distractors]] > 1
    return {
        "rejoined": _share(mended),
        "rejoined_10mm": _share(mended[narrow]),
        "false_joins": _share(joined),
        "breaks": float(len(mended)),
        "distractors": float(len(distractors)),
        "seconds": round(time.monotonic() - begun, 1),
    }


def _share(found: NDArray) -> float:
    return float(found.mean()) if len(found) else float("nan")


def rate_at(step: int, settings: BreakageSettings) -> float:
    """Learning rate at a step, counted from 0: warm-up, then a cosine."""
    warm_up = max(1, min(WARM_UP, settings.steps // 8))
    return settings.rate * risen(step, warm_up) * cosine(step / settings.steps, LAST_SHARE)
