"""One CT or many: read, segment, write the four files of a result; a case that fails does not stop the others."""

import hashlib
import json
import logging
import platform
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib import __version__
from AirwaySegLib.delivery import check_free, delivered_into
from AirwaySegLib.errors import AirwaySegError, Cancelled
from AirwaySegLib.pipeline import Airways, Journal, Model, load_model, segment
from AirwaySegLib.preview import draw_preview
from AirwaySegLib.progress import Progress
from AirwaySegLib.settings import SegmentSettings
from AirwaySegLib.volume import Volume, read_ct, to_canonical, write_nrrd

log = logging.getLogger("airwayseg")

MASK, PROBABILITY, PREVIEW, REPORT = "airways.nrrd", "probability.nrrd", "preview.png", "report.json"
FILES = (MASK, PROBABILITY, PREVIEW, REPORT)
EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm")


@dataclass(frozen=True)
class Batch:
    """Inputs, the folder for results, the DICOM series, the share of the inputs ("I/N"), whether to replace results."""

    inputs: list[Path]
    output: Path
    series: str | None = None
    shard: str = "1/1"
    force: bool = False


def parse_shard(text: str) -> tuple[int, int]:
    """ "2/4" -> (2, 4); raises AirwaySegError unless 1 <= I <= N."""
    parts = text.split("/")
    if len(parts) != 2 or not all(part.isdigit() for part in parts) or not 1 <= int(parts[0]) <= int(parts[1]):
        raise AirwaySegError(f"The shard {text!r} is not of the form I/N with I from 1 to N.")
    return int(parts[0]), int(parts[1])


def case_name(path: Path) -> str:
    """The input's name without its extension."""
    name = path.resolve().name
    ending = next((ending for ending in EXTENSIONS if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)]


def result_folders(batch: Batch) -> list[tuple[Path, Path]]:
    """Pairs of input and result folder: the output itself for one input, otherwise a folder in it for each.

    Inputs of the same name get the name of their parent folder in front; the whole list is named before the shard is
    taken, so that all shards agree.
    """
    if len(batch.inputs) == 1:
        folders = [batch.output]
    else:
        plain = [case_name(path) for path in batch.inputs]
        names = [
            f"{path.resolve().parent.name}_{name}" if plain.count(name) > 1 else name
            for path, name in zip(batch.inputs, plain, strict=True)
        ]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise AirwaySegError(f"Two inputs would both be written to {batch.output / twice}; rename one.")
        folders = [batch.output / name for name in names]
    first, step = parse_shard(batch.shard)
    return list(zip(batch.inputs, folders, strict=True))[first - 1 :: step]


def run_batch(batch: Batch, settings: SegmentSettings, progress: Progress) -> tuple[list[Path], list[Path]]:
    """Segment every input; return the folders written and the inputs that failed.

    A single input raises its error. Of several, each failure is logged with its sentence and the others go on.

    Raises
    ------
    AirwaySegError
        If the weights cannot be used, or the only input cannot be segmented.
    """
    cases = result_folders(batch)
    model = load_model(settings.weights)
    finished: list[Path] = []
    failed: list[Path] = []
    for path, folder in cases:
        try:
            run_case(path, folder, batch, model, settings, progress)
            finished.append(folder)
        except Cancelled:
            raise
        except AirwaySegError as error:
            if len(batch.inputs) == 1:
                raise
            log.error("%s: %s", path, error)
            failed.append(path)
    if failed:
        log.error("%d of %d inputs failed.", len(failed), len(cases))
    return finished, failed


def run_case(
    path: Path, folder: Path, batch: Batch, model: Model, settings: SegmentSettings, progress: Progress
) -> None:
    """Read one CT, segment it and deliver its four files."""
    check_free(folder, FILES, batch.force)
    journal = Journal()
    progress("read", 0, 1)
    with journal.stage("read"):
        ct, warnings = read_ct(path, batch.series)
    journal.warnings += warnings
    progress("read", 1, 1)
    log.info("%s: %s voxels of %s mm (z, y, x)", path, ct.array.shape, ct.spacing_mm)
    airways = segment(ct, model, settings, journal, progress)
    progress("write", 0, len(FILES))
    with delivered_into(folder, last=REPORT) as unfinished:
        with journal.stage("write"):
            write_images(unfinished, ct, airways, case_name(path), progress)
        report = make_report(ct, airways, model, settings, journal)
        (unfinished / REPORT).write_text(json.dumps(report, indent=1))
    progress("write", len(FILES), len(FILES))
    for warning in journal.warnings:
        log.warning("%s: %s", case_name(path), warning)


def write_images(folder: Path, ct: Volume, airways: Airways, title: str, progress: Progress) -> None:
    """Mask, probability and preview."""
    write_nrrd(folder / MASK, airways.mask.astype(np.uint8), ct)
    progress("write", 1, len(FILES))
    write_nrrd(folder / PROBABILITY, airways.probability, ct)
    progress("write", 2, len(FILES))
    canonical = to_canonical(ct)
    mask = to_canonical(Volume(airways.mask, ct.spacing_mm, ct.origin_mm, ct.direction)).array
    millilitres = float(airways.mask.sum()) * float(np.prod(ct.spacing_mm)) / 1000
    caption = f"{title}: {millilitres:.1f} ml of airway lumen. Research use only."
    draw_preview(canonical.array, mask, canonical.spacing_mm, caption).save(folder / PREVIEW)
    progress("write", 3, len(FILES))


def make_report(
    ct: Volume, airways: Airways, model: Model, settings: SegmentSettings, journal: Journal
) -> dict[str, object]:
    """Where the result comes from, as plain values for JSON."""
    voxel_ml = float(np.prod(ct.spacing_mm)) / 1000
    return {
        "program": f"AirwaySeg {__version__}",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "input": {
            "path": str(ct.path),
            "series_uid": ct.series_uid,
            "voxels_sha256": sha256_of(ct.array),
            "shape_zyx": list(ct.array.shape),
            "spacing_mm_zyx": [round(mm, 6) for mm in ct.spacing_mm],
        },
        "model": {"name": model.info.name, "sha256": model.sha256, "provenance": model.info.provenance},
        "settings": asdict(settings),
        "decisions": journal.decisions,
        "result": {
            "voxels": int(airways.mask.sum()),
            "millilitres": round(float(airways.mask.sum()) * voxel_ml, 3),
            "mask_sha256": sha256_of(airways.mask.astype(np.uint8)),
        },
        "warnings": journal.warnings,
        "seconds": journal.seconds,
        "versions": dict(_versions(("numpy", "scipy", "SimpleITK", "torch", "openvino"))),
    }


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
