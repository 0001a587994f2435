"""Where a result comes from: the report that is written last, and whether a folder holds the result that is meant."""

import hashlib
import json
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib import __version__
from AirwaySegLib.commands import measure
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.volume import Volume
from AirwaySegLib.pipeline import RunReport
from AirwaySegLib.settings import SegmentSettings

REPORT = measure.REPORT
"""The last file of a result: with it the result is complete."""


class ResultDiffers(AirwaySegError):
    """A complete result that was made from something else."""


def check_done(
    folder: Path,
    names: Sequence[str],
    sha256: str,
    settings: SegmentSettings,
    is_its_ct: Callable[[dict[str, Any]], bool],
) -> None:
    """Check that ``folder`` holds a complete result, the files ``names``, of the weights with that SHA-256.

    ``is_its_ct`` says whether the input that the report describes is the CT that is meant.

    Raises
    ------
    ResultDiffers
        If input, weights, settings or version of the program differ.
    AirwaySegError
        If a file is missing.
    """
    try:
        report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        same = {
            "version of AirwaySeg": report["program"] == _program(),
            "weights": report["model"]["sha256"] == sha256,
            "settings": _settings_of_result(report["settings"]) == _settings_of_result(asdict(settings)),
            "CT": is_its_ct(report["input"]),
        }
        if not report["result"]["voxels"]:  # an empty mask is not measured
            names = [name for name in names if name not in measure.REPLACED]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise AirwaySegError(f"{folder / REPORT} is not the report of a result; use --force to replace it.") from error
    other = [what for what, is_same in same.items() if not is_same]
    if other:
        raise ResultDiffers(
            f"{folder} holds a result that differs in its {' and '.join(other)}; use --force to replace it."
        )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise AirwaySegError(f"{folder} holds a result without {', '.join(missing)}; use --force to replace it.")


def _settings_of_result(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings that change a result beyond rounding. Weights are compared by checksum, not by name."""
    return {name: value for name, value in settings.items() if name not in ("weights", "device", "backend")}


def is_described(ct: Volume, described: dict[str, Any]) -> bool:
    """Whether a report's input has the voxels and the spacing of this CT."""
    return described["voxels_sha256"] == sha256_of(ct.array) and described["spacing_mm_zyx"] == spacing_of(ct)


def spacing_of(ct: Volume) -> list[float]:
    """Spacing (z, y, x) in mm as a report has it."""
    return [round(mm, 6) for mm in ct.spacing_mm]


def _program() -> str:
    return f"AirwaySeg {__version__}"


def make_report(
    ct: Volume, mask: NDArray[np.bool_], source: Mapping[str, object], settings: SegmentSettings, run_report: RunReport
) -> dict[str, object]:
    """The provenance of the result (input, settings, versions, and the weights as ``source``), as values for JSON."""
    voxel_ml = float(np.prod(ct.spacing_mm)) / 1000
    return {
        "program": _program(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "input": {
            "path": str(ct.path),
            "series_uid": ct.series_uid,
            "file_sha256": file_sha256(ct.path),
            "voxels_sha256": sha256_of(ct.array),
            "shape_zyx": list(ct.array.shape),
            "spacing_mm_zyx": spacing_of(ct),
        },
        "model": source,
        "settings": asdict(settings),
        "decisions": run_report.decisions,
        "result": {
            "voxels": int(mask.sum()),
            "millilitres": round(float(mask.sum()) * voxel_ml, 3),
            "mask_sha256": sha256_of(mask.astype(np.uint8)),
        },
        "warnings": run_report.warnings,
        "seconds": run_report.seconds,
        "versions": dict(_versions(("numpy", "scipy", "SimpleITK", "torch", "openvino"))),
    }


def file_sha256(path: Path | None) -> str | None:
    """SHA-256 of a file as hex; None for a DICOM folder."""
    if path is None or not path.is_file():
        return None
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of(array: NDArray[Any]) -> str:
    """SHA-256 of an array's voxels in C order, as hex."""
    return hashlib.sha256(np.ascontiguousarray(array).ravel().data).hexdigest()


def _versions(packages: Iterable[str]) -> Iterable[tuple[str, str]]:
    yield "python", sys.version.split()[0]
    yield "platform", platform.platform()
    for package in packages:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue
