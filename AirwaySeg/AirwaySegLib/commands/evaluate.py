"""The command `airwayseg evaluate`: compare one pair of masks, or two folders of them; text, JSON and CSV.

In the code and in files all rates are 0..1; only the printed text gives them in per cent.
"""

import csv
import io
import json
import math
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from AirwaySegLib import __version__
from AirwaySegLib.errors import AirwaySegError, Cancelled, one_sentence
from AirwaySegLib.evaluation.metrics import DIAMETER_LIMITS_MM, Metrics
from AirwaySegLib.evaluation.protocols import AXES, PROTOCOLS, checked_axes, compare, protocol_named
from AirwaySegLib.files.atomic_output import check_free, write_text
from AirwaySegLib.files.folder_lock import locked
from AirwaySegLib.files.image_files import case_name, format_extension
from AirwaySegLib.files.volume import SEGMENTATION, check_same_grid, mask_in, read_mask
from AirwaySegLib.progress import Progress


@dataclass(frozen=True)
class EvaluationRequest:
    """The masks or folders to compare, one of `PROTOCOLS` and of `AXES`, the files to write, and ``force``."""

    prediction: Path
    reference: Path
    protocol: str = "atm22"
    json_file: Path | None = None
    csv_file: Path | None = None
    force: bool = False
    axes: str = AXES[0]


@dataclass(frozen=True)
class Report:
    """Metrics by case name, a sentence for each case without them, and how many pairs could not be compared."""

    protocol: str
    cases: dict[str, dict[str, float]]
    notes: tuple[str, ...] = ()
    axes: str = AXES[0]
    failed: int = 0


# Masks in files -------------------------------------------------------------------------------------------------------


def evaluate_pair(prediction_path: Path, reference_path: Path, protocol: str = "atm22", axes: str = AXES[0]) -> Metrics:
    """Read and compare two mask files (voxels that are not 0 are airway); a folder stands for its `SEGMENTATION`.

    Raises
    ------
    AirwaySegError
        If a file cannot be read or is not a mask, if the grids differ, if the reference is empty, or if the protocol or
        the order of ``axes`` is unknown (see `compare`).
    """
    rules = protocol_named(protocol)
    checked_axes(axes)
    reference = read_mask(reference_path)
    prediction = read_mask(prediction_path)
    check_same_grid(prediction, reference, str(prediction.path))
    if not reference.array.any():
        raise AirwaySegError(f"{reference.path} is empty: there is no reference to compare with.")
    return compare(prediction.array, reference.array, reference.spacing_mm, rules, axes)


def masks_in(folder: Path) -> dict[str, Path]:
    """Masks by case name: the image files in a folder, and its sub-folders that hold a `SEGMENTATION`.

    Raises
    ------
    AirwaySegError
        If two of them have the same case name, or the folder cannot be read.
    """
    found: dict[str, Path] = {}
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise AirwaySegError(f"{folder} cannot be read: {error.strerror}.") from None
    for path in paths:
        if (path / SEGMENTATION).is_file() or (path.is_file() and format_extension(path) is not None):
            name = case_name(path)
            if name in found:
                raise AirwaySegError(f"{folder} holds the case {name} twice: {found[name].name} and {path.name}.")
            found[name] = path
    return found


def evaluate_folders(
    predictions: Path, references: Path, protocol: str, progress: Progress, axes: str = AXES[0]
) -> Report:
    """Compare all masks of two folders that have the same case name.

    A case that is in one folder only, or cannot be compared, gives a note and does not stop the others.

    Raises
    ------
    AirwaySegError
        If the protocol or the order of ``axes`` is unknown, or no case could be compared.
    """
    protocol_named(protocol)
    checked_axes(axes)
    ours, theirs = masks_in(predictions), masks_in(references)
    notes = [f"{name} has no reference in {references}." for name in ours if name not in theirs]
    notes += [f"{name} has no prediction in {predictions}." for name in theirs if name not in ours]
    names = [name for name in ours if name in theirs]
    if not names:
        raise AirwaySegError(f"No mask in {predictions} has the name of a mask in {references}.")
    cases: dict[str, dict[str, float]] = {}
    for done, name in enumerate(names):
        progress("evaluate", done, len(names))
        try:
            cases[name] = as_numbers(evaluate_pair(ours[name], theirs[name], protocol, axes))
        except Cancelled:
            raise
        except (AirwaySegError, MemoryError) as error:
            notes.append(f"{name}: {one_sentence(error)}")
    progress("evaluate", len(names), len(names))
    if not cases:
        raise AirwaySegError(f"No case could be compared. {' '.join(notes)}")
    return Report(protocol, cases, tuple(notes), axes, len(names) - len(cases))


def run_evaluation(request: EvaluationRequest, progress: Progress) -> tuple[str, int]:
    """Compare two masks, or all of two folders, and write the files asked for.

    Returns
    -------
    tuple[str, int]
        The text to print, and how many pairs of two folders could not be compared.

    Raises
    ------
    AirwaySegError
        If nothing can be compared, or a file exists already and ``force`` is False, cannot be written, or is being
        written by another run.
    """
    protocol_named(request.protocol)
    checked_axes(request.axes)
    with ExitStack() as stack:
        for path in (request.json_file, request.csv_file):
            if path is not None:
                stack.enter_context(locked(path, "airwayseg evaluate"))
        return _run_evaluation(request, progress)


def _run_evaluation(request: EvaluationRequest, progress: Progress) -> tuple[str, int]:
    _check_outputs(request)
    if _is_pair(request.prediction, request.reference):
        progress("evaluate", 0, 1)
        metrics = evaluate_pair(request.prediction, request.reference, request.protocol, request.axes)
        progress("evaluate", 1, 1)
        report = Report(request.protocol, {case_name(request.prediction): as_numbers(metrics)}, axes=request.axes)
        text = pair_text(metrics, request.protocol, request.axes)
    else:
        report = evaluate_folders(request.prediction, request.reference, request.protocol, progress, request.axes)
        text = table_text(report)
    if request.json_file is not None:
        write_text(request.json_file, json_text(report))
    if request.csv_file is not None:
        write_text(request.csv_file, csv_text(report))
    return text, report.failed


def _is_pair(prediction: Path, reference: Path) -> bool:
    """Whether both paths are single masks, not folders of masks."""
    for path in (prediction, reference):
        if not path.exists():
            raise AirwaySegError(f"{path} does not exist.")
    folders = [path for path in (prediction, reference) if path.is_dir() and mask_in(path) == path]
    if len(folders) == 1:
        raise AirwaySegError(
            f"{folders[0]} is a folder of masks and the other is one mask; give two masks or two folders."
        )
    return not folders


def _check_outputs(request: EvaluationRequest) -> None:
    outputs = [path for path in (request.json_file, request.csv_file) if path is not None]
    if len(outputs) == 2 and os.path.realpath(outputs[0]) == os.path.realpath(outputs[1]):
        raise AirwaySegError(f"{outputs[0]} cannot be the JSON and the CSV file at once.")
    for path in outputs:
        if path.is_dir():
            raise AirwaySegError(f"{path} is a folder; give a file for the results.")
        check_free(path.absolute().parent, (path.name,), request.force)


# Numbers and text ------------------------------------------------------------------------------------------------

DIAMETER_NAMES = (
    *(f"{low:g}_{high:g}_mm" for low, high in zip((0.0, *DIAMETER_LIMITS_MM), DIAMETER_LIMITS_MM)),
    f"over_{DIAMETER_LIMITS_MM[-1]:g}_mm",
)

HEADINGS = {
    "tld": "TLD",
    "bd": "BD",
    "dsc": "DSC",
    "precision": "precision",
    "sensitivity": "sensitivity",
    "iou": "IoU",
    "leakage": "leakage",
    "cl_dice": "clDice",
    "atm22_score": "score",
    "betti0_error": "Betti-0 error",
}
"""Columns of the printed table: all in per cent except the last."""


def as_numbers(metrics: Metrics) -> dict[str, float]:
    """All rates (0..1; NaN if undefined), then all counts and lengths, under the names of JSON and CSV."""
    overlap, detection = metrics.overlap, metrics.detection
    numbers: dict[str, float] = {
        "tld": detection.tree_length,
        "bd": detection.branch_rate,
        "dsc": overlap.dice,
        "precision": overlap.precision,
        "sensitivity": overlap.sensitivity,
        "iou": overlap.iou,
        "leakage": overlap.leakage,
        "cl_dice": metrics.cl_dice,
        "atm22_score": metrics.atm22_score,
        "betti0_error": metrics.betti0_error,
        "tld_by_length": detection.tree_length_mm,
    }
    numbers |= {f"dsc_{name}": part.dice for name, part in zip(DIAMETER_NAMES, metrics.by_diameter, strict=True)}
    numbers |= {
        "skeleton_voxels": detection.skeleton_voxels,
        "skeleton_voxels_detected": detection.skeleton_voxels_detected,
        "length_mm": detection.length_mm,
        "length_mm_detected": detection.length_mm_detected,
        "branches": detection.branches,
        "branches_detected": detection.branches_detected,
        "voxels_in_both": overlap.true_positive,
        "voxels_in_prediction_only": overlap.false_positive,
        "voxels_in_reference_only": overlap.false_negative,
        "components_of_prediction": metrics.prediction_components,
        "components_of_reference": metrics.reference_components,
    }
    return numbers


def mean_and_deviation(cases: dict[str, dict[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and sample standard deviation of each number over the cases that have it.

    The mean of no case is NaN, and so is the deviation of fewer than two.
    """
    means, deviations = {}, {}
    for key in next(iter(cases.values())):
        values = [case[key] for case in cases.values() if not math.isnan(case[key])]
        means[key] = float(np.mean(values)) if values else math.nan
        deviations[key] = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return means, deviations


def json_text(report: Report) -> str:
    """The report as JSON; an undefined number is null."""
    means, deviations = mean_and_deviation(report.cases)
    content: dict[str, Any] = {
        "program": f"AirwaySeg {__version__}",
        "protocol": report.protocol,
        "axes": report.axes,
        "cases": {name: _with_null(numbers) for name, numbers in report.cases.items()},
        "mean": _with_null(means),
        "standard_deviation": _with_null(deviations),
        "notes": list(report.notes),
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _with_null(numbers: dict[str, float]) -> dict[str, float | None]:
    return {key: None if math.isnan(value) else value for key, value in numbers.items()}


def csv_text(report: Report) -> str:
    """One row per case, then mean and standard deviation; an undefined number is an empty cell."""
    means, deviations = mean_and_deviation(report.cases)
    rows = [*report.cases.items(), ("mean", means), ("standard_deviation", deviations)]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["case", *means])
    for name, numbers in rows:
        table.writerow([name, *("" if math.isnan(value) else value for value in numbers.values())])
    return text.getvalue()


def _title(protocol: str, axes: str) -> str:
    return f"{protocol} ({PROTOCOLS[protocol].source}), axes {axes}, in per cent"


def pair_text(metrics: Metrics, protocol: str, axes: str = AXES[0]) -> str:
    """One line per metric, rates in per cent, with the counts behind it."""
    numbers = as_numbers(metrics)
    found, overlap = metrics.detection, metrics.overlap
    behind = {
        "tld": f"{found.skeleton_voxels_detected} of {found.skeleton_voxels} skeleton voxels; "
        f"{found.length_mm_detected:.0f} of {found.length_mm:.0f} mm",
        "bd": f"{found.branches_detected} of {found.branches} branches",
        "dsc": f"{overlap.true_positive} voxels in both, {overlap.false_positive} in the prediction only, "
        f"{overlap.false_negative} in the reference only",
        "leakage": "voxels in the prediction only per 100 voxels of the reference",
        "atm22_score": "mean of TLD, BD, DSC and precision",
        "betti0_error": f"{metrics.prediction_components} components, reference {metrics.reference_components}",
    }
    headings = HEADINGS | {f"dsc_{name}": f"DSC {name.replace('_', ' ')}" for name in DIAMETER_NAMES}
    lines = [_title(protocol, axes)]
    for key, heading in headings.items():
        lines.append(f"{heading:<14}{_shown(key, numbers[key]):>8}  {behind.get(key, '')}".rstrip())
    return "\n".join(lines)


def table_text(report: Report) -> str:
    """One line per case, rates in per cent; then mean and standard deviation, and the notes."""
    means, deviations = mean_and_deviation(report.cases)
    last = [(f"mean of {len(report.cases)}", means), ("standard deviation", deviations)]
    rows = [*report.cases.items(), *last]
    wide = max(len(name) for name, _ in rows)
    lines = [
        _title(report.protocol, report.axes),
        " " * wide + "".join(f"{heading:>{_wide(heading)}}" for heading in HEADINGS.values()),
    ]
    for name, numbers in rows:
        cells = (f"{_shown(key, numbers[key]):>{_wide(heading)}}" for key, heading in HEADINGS.items())
        lines.append(f"{name:<{wide}}" + "".join(cells))
    return "\n".join([*lines, *report.notes])


def _wide(heading: str) -> int:
    return max(len(heading), len("100.0")) + 2


def _shown(key: str, value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.4g}" if key == "betti0_error" else f"{100 * value:.1f}"
