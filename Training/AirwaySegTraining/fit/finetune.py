"""Fine-tuning on a few corrected cases, with a verdict from held-out cases: better, not better or unknown."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.atomic_output import check_free, write_text
from AirwaySegLib.networks.weights import SUFFIX, find_weights, list_weights, load_weights, save_weights, user_folder
from AirwaySegLib.pipeline import Model, load_model
from AirwaySegLib.progress import Progress
from AirwaySegTraining.data.cases import case_folders
from AirwaySegTraining.distributed import joined_team
from AirwaySegTraining.fit.loop import fit
from AirwaySegTraining.fit.rehearsal import rehearsal_cases, rehearsal_file, remembered
from AirwaySegTraining.fit.run_folder import CHECKPOINT, run_folder
from AirwaySegTraining.fit.run_log import read_validation
from AirwaySegTraining.fit.settings import FitSettings
from AirwaySegTraining.fit.training_state import precision_of
from AirwaySegTraining.fit.validation import CHOSEN_BY, doubt_about_labels, mean_score

JUDGED_BY = (*CHOSEN_BY, "dsc")
"""The metrics of ATM'22. If a person draws airways wider than the weights did, precision decreases after fine-tuning;
the Dice coefficient compensates for that."""

LEAST_GAIN = 0.005
"""The mean of `JUDGED_BY` over the held-out cases must rise by this much to be called better."""

LARGEST_LOSS = 0.01
"""Tree length, or the share of voxels near airways, may decrease by this much on the simulated patches."""

SHOWN = {"tld": "tree length (TLD) %", "bd": "branches (BD) %", "precision": "precision %", "dsc": "DSC %"}
REMEMBERED = {"tld": "tree length (TLD) %", "near": "voxels near airways %"}

Cases = dict[str, dict[str, float]]


BETTER, NOT_BETTER, UNKNOWN = "better", "not better", "unknown"
"""The verdicts. Without held-out cases the verdict is unknown, not "not better"."""


@dataclass(frozen=True)
class Outcome:
    """Metrics of held-out cases (none if there is only one patient) and of simulated patches, and the verdict.

    ``doubt`` is a sentence about labels that do not seem to fit, or None. ``weights`` is the file to use; ``name`` is
    the name under which the weights are listed, or None if they are not.
    """

    before: Cases
    after: Cases
    remembered_before: dict[str, float]
    remembered_after: dict[str, float]
    verdict: str
    reason: str
    weights: str
    doubt: str | None = None
    name: str | None = None

    @property
    def better(self) -> bool:
        """Whether the weights are known to be better."""
        return self.verdict == BETTER

    def text(self) -> str:
        """A table and the verdict in a sentence."""
        lines = [f"{'':34}{'before':>8}{'after':>8}"]
        for case in [name for name in self.after if name in self.before]:
            lines.append(f"{case}, held out")
            lines += [_row(title, self.before[case][key], self.after[case][key]) for key, title in SHOWN.items()]
        lines.append("simulated patches, held out")
        for key, title in REMEMBERED.items():
            lines.append(_row(title, self.remembered_before[key], self.remembered_after[key]))
        return "\n".join([*lines, *filter(None, [self.doubt]), f"{self.verdict.capitalize()}: {self.reason}"])


def _row(title: str, before: float, after: float) -> str:
    # The precision of an empty prediction is NaN.
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
    """Train ``settings.start_from`` on the cases in ``data`` and judge whether it is better.

    Parameters
    ----------
    data, output, settings, resume
        As in `loop.fit`; ``output`` also gets finetune.json with the outcome.
    name
        Name under which better weights are listed; the folder's name if it is None.

    Raises
    ------
    AirwaySegError
        As `loop.fit`, or if the name is taken or the user's folder for weights cannot be written.
    """
    weights = settings.start_from or "default"
    settings = replace(settings, start_from=weights)
    name = name or output.resolve().name
    settings.full_recipe()
    for folder in data:
        case_folders(folder)  # raises early for a folder without cases
    _check(name, weights, output, resume)
    with run_folder(output, "finetune", resume=resume):
        old = load_model(weights)
        target = fit(data, output, settings, progress, resume=resume)
        with joined_team(settings.device) as team:
            known = _known((old, load_model(str(target))), output, team.device.type, progress)
        outcome = _judged(output, known)
        _write(outcome, output)
        if outcome.better:
            outcome = _listed(outcome, name, output, resume)
            _write(outcome, output)
    return outcome


def _known(models: Sequence[Model], output: Path, device: str, progress: Progress) -> list[dict[str, float]]:
    """Metrics of the models on simulated patches, in the precision of the run in ``output``."""
    asked, precision = rehearsal_cases(rehearsal_file())[1], precision_of(output / CHECKPOINT) or "float32"
    return [remembered(model, asked, device, precision, progress) for model in models]


def _judged(output: Path, known: list[dict[str, float]]) -> Outcome:
    """The outcome of the run in ``output``; ``known`` are the metrics of old and new weights on simulated patches."""
    rows = read_validation(output)
    before, after = rows.get(0, {}), rows.get(max(rows, default=0), {})
    old, new = known
    found, reason = verdict(before, after, old, new)
    return Outcome(
        before, after, old, new, found, reason, str(output / "model.safetensors"), doubt_about_labels(before)
    )


def _listed(outcome: Outcome, name: str, output: Path, resume: bool) -> Outcome:
    """Put better weights into the user's folder, under their name."""
    net, info, _ = load_weights(outcome.weights)
    listed = user_folder() / f"{name}{SUFFIX}"
    held_out = _plain({"before": outcome.before, "after": outcome.after})
    about = {"run": str(output.resolve()), "held_out": held_out}
    save_weights(listed, net, replace(info, name=name, provenance={**info.provenance, **about}), force=resume)
    return replace(outcome, weights=str(listed), name=name)


def _check(name: str, started_from: str, output: Path, resume: bool) -> None:
    """Raise AirwaySegError before the training for problems that would appear only at its end."""
    if "WORLD_SIZE" in os.environ:
        raise AirwaySegError("finetune runs in one process; under torchrun use fit --recipe finetune --start-from.")
    if Path(name).name != name:
        raise AirwaySegError(f"{name!r} is not a valid name for weights; choose another with --name.")
    if name in list_weights():
        _, info, _ = load_weights(name)
        if not (resume and info.provenance.get("run") == str(output.resolve())):
            raise AirwaySegError(f"There are weights called {name!r} already; choose another name with --name.")
    if find_weights(started_from).resolve().parent == output.resolve():
        raise AirwaySegError(f"{output} holds the initial weights; choose another folder for the new ones.")
    check_free(user_folder(), (), force=True)


def _write(outcome: Outcome, output: Path) -> None:
    about = {**asdict(outcome), "better": outcome.better}
    write_text(output / "finetune.json", json.dumps(_plain(about), indent=1))


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """The same with None for NaN, which JSON does not have."""
    return {
        key: _plain(value) if isinstance(value, dict) else None if value != value else value
        for key, value in values.items()
    }


def verdict(before: Cases, after: Cases, old: dict[str, float], new: dict[str, float]) -> tuple[str, str]:
    """The verdict and its reason; a gain is given with its range over the cases."""
    if not before and not after:
        return UNKNOWN, (
            "no case was held out, so this cannot be assessed; that takes two patients and a --validation above 0."
        )
    if set(before) != set(after):
        return UNKNOWN, "validation.csv lacks figures of held-out cases, so this cannot be assessed."
    gains = [mean_score({name: after[name]}, JUDGED_BY) - mean_score({name: before[name]}, JUDGED_BY) for name in after]
    gain = mean_score(after, JUDGED_BY) - mean_score(before, JUDGED_BY)
    where = "on the one held-out case" if len(gains) == 1 else f"on the {len(gains)} held-out cases"
    spread = "a single case says little about others"
    if len(gains) > 1:
        spread = f"by case from {100 * min(gains):+.1f} to {100 * max(gains):+.1f}"
    measures = ", ".join(key.upper() if len(key) < 4 else key for key in JUDGED_BY)
    if gain < LEAST_GAIN:
        return NOT_BETTER, f"{where} the mean of {measures} changed by {100 * gain:+.1f} points only ({spread})."
    for key in old:
        lost = old[key] - new[key]
        if lost > LARGEST_LOSS:
            return NOT_BETTER, f"it forgot: {REMEMBERED[key]} of the simulated patches fell by {100 * lost:.1f}."
    return BETTER, f"{where} the mean of {measures} rose by {100 * gain:.1f} points ({spread})."
