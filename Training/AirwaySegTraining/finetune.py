"""Fine-tuning on a handful of corrected cases, with an honest answer to the question whether the network is better."""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from AirwaySegLib.delivery import check_free, write_text
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.openvino_backend import has_bfloat16
from AirwaySegLib.pipeline import load_model
from AirwaySegLib.progress import Progress
from AirwaySegLib.weights import SUFFIX, find_weights, list_weights, load_weights, save_weights, user_folder
from AirwaySegTraining.cases import Case
from AirwaySegTraining.fitsettings import FitSettings
from AirwaySegTraining.loop import fit
from AirwaySegTraining.rehearsal import rehearsal_cases, rehearsal_file, remembered
from AirwaySegTraining.runlog import read_validation
from AirwaySegTraining.team import joined_team
from AirwaySegTraining.validation import CHOSEN_BY, mean_score

JUDGED_BY = (*CHOSEN_BY, "dsc")
"""The measures of ATM'22. Where a person draws wider than the weights did, precision falls as soon as they follow: only
with the Dice coefficient beside it is that no loss."""

LEAST_GAIN = 0.005
"""The mean of `JUDGED_BY` over the held-out cases must rise by this much to be called better."""

LARGEST_LOSS = 0.01
"""Tree length, or the share of voxels near airways, may fall by this much on the simulated patches."""

SHOWN = {"tld": "tree length (TLD) %", "bd": "branches (BD) %", "precision": "precision %", "dsc": "DSC %"}
REMEMBERED = {"tld": "tree length (TLD) %", "near": "voxels near airways %"}

Cases = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Outcome:
    """Held-out cases before and after (none where a single patient was given), what was kept of old knowledge, verdict.

    ``weights`` is the file to use; ``name`` that under which the weights are listed, or None where they are not.
    """

    before: Cases
    after: Cases
    remembered_before: dict[str, float]
    remembered_after: dict[str, float]
    better: bool
    reason: str
    weights: str
    name: str | None = None

    def text(self) -> str:
        """A table and the verdict in a sentence."""
        lines = [f"{'':34}{'before':>8}{'after':>8}"]
        for case in self.after:
            lines.append(f"{case}, held out")
            lines += [_row(title, self.before[case][key], self.after[case][key]) for key, title in SHOWN.items()]
        lines.append("simulated patches, held out")
        for key, title in REMEMBERED.items():
            lines.append(_row(title, self.remembered_before[key], self.remembered_after[key]))
        return "\n".join([*lines, f"{'Better' if self.better else 'Not better'}: {self.reason}"])


def _row(title: str, before: float, after: float) -> str:
    # NaN is the precision of nothing found.
    cells = (f"{100 * value:8.1f}" if value == value else f"{'-':>8}" for value in (before, after))
    return f"  {title:32}" + "".join(cells)


def finetune(
    data: list[Path],
    output: Path,
    settings: FitSettings,
    progress: Progress,
    *,
    name: str | None = None,
    resume: bool = False,
) -> Outcome:
    """Train ``settings.start_from`` on the cases in ``data`` and say whether it has become better.

    Parameters
    ----------
    data, output, settings, resume
        As in `loop.fit`; ``output`` also gets finetune.json with the outcome.
    name
        Under which better weights are listed; the folder's name if it is None.

    Raises
    ------
    AirwaySegError
        As `loop.fit`, or if the name is taken or the user's folder for weights cannot be written.
    """
    started_from = settings.start_from or "default"
    name = name or output.resolve().name
    _check(name, started_from, output, resume)
    asked = rehearsal_cases(rehearsal_file())[1]
    old = _remembered(started_from, asked, settings)
    target = fit(data, output, replace(settings, start_from=started_from), progress, resume=resume)
    rows = read_validation(output)
    before, after = rows.get(0, {}), rows.get(max(rows, default=0), {})
    new = _remembered(str(target), asked, settings)
    better, reason = verdict(before, after, old, new)
    outcome = Outcome(before, after, old, new, better, reason, str(target))
    _write(outcome, output)
    if better:
        net, info, _ = load_weights(target)
        listed = user_folder() / f"{name}{SUFFIX}"
        about = {"run": str(output.resolve()), "held_out": _plain({"before": before, "after": after})}
        save_weights(listed, net, replace(info, name=name, provenance={**info.provenance, **about}), force=resume)
        outcome = replace(outcome, weights=str(listed), name=name)
        _write(outcome, output)
    return outcome


def _check(name: str, started_from: str, output: Path, resume: bool) -> None:
    """Refuse before the training what would spoil its end."""
    if "WORLD_SIZE" in os.environ:
        raise AirwaySegError("finetune runs in one process; under torchrun use fit --recipe finetune --start-from.")
    if Path(name).name != name:
        raise AirwaySegError(f"{name!r} is no plain name for weights; choose another with --name.")
    if name in list_weights():
        _, info, _ = load_weights(name)
        if not (resume and info.provenance.get("run") == str(output.resolve())):
            raise AirwaySegError(f"There are weights called {name!r} already; choose another name with --name.")
    if find_weights(started_from).resolve().parent == output.resolve():
        raise AirwaySegError(f"{output} holds the weights to begin with; choose another folder for the new ones.")
    check_free(user_folder(), (), force=True)


def _write(outcome: Outcome, output: Path) -> None:
    write_text(output / "finetune.json", json.dumps(_plain(asdict(outcome)), indent=1))


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """The same with None for NaN, which JSON does not know."""
    return {
        key: _plain(value) if isinstance(value, dict) else None if value != value else value
        for key, value in values.items()
    }


def usual_precision(device: str) -> str:
    """The bfloat16 of a GPU, or of a processor that computes in it (as OpenVINO knows), else float32."""
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    return "bfloat16" if on_gpu or has_bfloat16() else "float32"


def _remembered(weights: str, asked: list[Case], settings: FitSettings) -> dict[str, float]:
    with joined_team(settings.device) as team:
        return remembered(load_model(weights), asked, team.device.type)


def verdict(before: Cases, after: Cases, old: dict[str, float], new: dict[str, float]) -> tuple[bool, str]:
    """Whether the network is better, and why."""
    if not before or set(before) != set(after):
        return False, "no case was held out (that takes two patients in a data folder), so nobody can know."
    gain = mean_score(after, JUDGED_BY) - mean_score(before, JUDGED_BY)
    measures = ", ".join(key.upper() if len(key) < 4 else key for key in JUDGED_BY)
    if gain < LEAST_GAIN:
        return False, f"on the held-out cases the mean of {measures} changed by {100 * gain:+.1f} points only."
    for key in old:
        lost = old[key] - new[key]
        if lost > LARGEST_LOSS:
            return False, f"it forgot: {REMEMBERED[key]} of the simulated patches fell by {100 * lost:.1f}."
    return True, f"on the held-out cases the mean of {measures} rose by {100 * gain:.1f} points."
