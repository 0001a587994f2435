"""Fine-tuning: the cases of a training folder, the run, and the accuracy before and after it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace

from slicer.i18n import tr as _

from AirwaySegSlicer.commands.child_process import TRAINING
from AirwaySegSlicer.commands.jobs import Job

BETTER, NOT_BETTER, UNKNOWN = VERDICTS = ("better", "not better", "unknown")
"""The verdicts on the new weights in finetune.json."""


@dataclass(frozen=True)
class TrainingCase:
    """A case of a training folder; ``edited_voxels`` is None where the corrections are not known."""

    name: str
    patient: str
    edited_voxels: int | None


@dataclass(frozen=True)
class FinetuneOptions:
    """Training folder, weights to start from, name of the new weights, device."""

    data: str
    model: str
    name: str
    device: str = "auto"


@dataclass(frozen=True)
class Outcome:
    """Rows of (case and measure, before, after) in per cent, one of `VERDICTS`, its reason, the listed model's name.

    ``doubt`` is a sentence about labels that do not seem to match their CT, otherwise empty.
    """

    rows: list[tuple[str, float, float]]
    verdict: str
    reason: str
    name: str
    doubt: str = ""


def training_cases(data: str) -> list[TrainingCase]:
    """The cases of a training folder by name; none where there is no such folder, or it cannot be read."""
    folder, found = os.path.join(data, "cases"), []
    try:
        names = sorted(os.listdir(folder)) if data else []
    except OSError:
        names = []
    for name in names:
        if name.startswith("."):
            continue  # Left by an interrupted command; the next one removes it.
        try:
            with open(os.path.join(folder, name, "case.json"), encoding="utf-8") as stream:
                about = json.load(stream)
        except (OSError, ValueError):
            continue  # Not a complete case.
        if isinstance(about, dict):
            patient = about.get("patient")  # The anatomy (a dict) of a simulated case.
            found.append(
                TrainingCase(name, str(patient) if isinstance(patient, str | int) else name, about.get("edited_voxels"))
            )
    return found


def run_folder(options: FinetuneOptions) -> str:
    """The folder of a run's checkpoints."""
    return os.path.join(options.data, "runs", options.name)


def finetune_arguments(options: FinetuneOptions) -> list[str]:
    """The command line of a run; a stopped run is resumed."""
    folder = run_folder(options)
    resume = ["--resume"] if os.path.exists(os.path.join(folder, "last.pt")) else []
    chosen = ["--weights", options.model, "--name", options.name, "--device", options.device]
    return ["finetune", "--data", options.data, "-o", folder, *chosen, "--progress", "json", *resume]


def finetuning_job(options: FinetuneOptions) -> Job:
    """Fine-tune; the job's result is an `Outcome`. The checkpoints of a stopped run stay in its folder.

    Raises RuntimeError when the training folder has no case.
    """
    options = replace(options, data=os.path.abspath(options.data))  # The command has another working directory.
    if not training_cases(options.data):
        raise RuntimeError(_("The training folder has no case yet."))
    return Job(
        lambda folder: finetune_arguments(options), lambda folder: read_outcome(run_folder(options)), module=TRAINING
    )


def read_outcome(folder: str) -> Outcome:
    """The outcome of a finished run; RuntimeError when finetune.json cannot be read."""
    try:
        with open(os.path.join(folder, "finetune.json"), encoding="utf-8") as stream:
            about = json.load(stream)
        texts = [str(text or "") for text in (about["reason"], about["name"], about.get("doubt"))]
        return Outcome(_rows(about), _verdict(about), *texts)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RuntimeError(_("The fine-tuning wrote no readable finetune.json.")) from error


def _verdict(about: dict) -> str:
    """One of `VERDICTS`; files of earlier versions only have whether the weights are better."""
    verdict = about.get("verdict") or (BETTER if about["better"] else NOT_BETTER)
    if verdict not in VERDICTS:
        raise ValueError(f"the verdict {verdict!r}")
    return verdict


def measures() -> dict[str, str]:
    """Keys of the measures in finetune.json, and their names in the panel."""
    return {
        "tld": _("tree length"),
        "bd": _("branches"),
        "precision": _("precision"),
        "dsc": _("Dice"),
        "near": _("near airways"),
    }


def _rows(about: dict) -> list[tuple[str, float, float]]:
    pairs = [(case, about["before"][case], about["after"][case]) for case in about["after"]]
    pairs.append((_("simulated"), about["remembered_before"] or {}, about["remembered_after"] or {}))
    return [
        (f"{case}: {title}", 100 * before[key], 100 * after[key])
        for case, before, after in pairs
        for key, title in measures().items()
        if before.get(key) is not None and after.get(key) is not None  # None: nothing was found.
    ]


def removing_job(data: str, name: str) -> Job:
    """Remove a case from a training folder; the job's result is its name."""
    return Job(lambda folder: ["cases", "remove", os.path.abspath(data), name], lambda folder: name, module=TRAINING)
