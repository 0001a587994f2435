"""The command `airwayseg segment`: read, segment and measure one CT or many, and write their results.

In a batch, a case that fails does not stop the others.
"""

import json
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from AirwaySegLib.commands import measure, repair
from AirwaySegLib.commands.dicom_out import DICOM_SEG, check_dicom, has_dicom, write_result_as_dicom
from AirwaySegLib.commands.measure import Beside
from AirwaySegLib.commands.provenance import (
    REPORT,
    ResultDiffers,
    check_done,
    file_sha256,
    is_described,
    make_report,
)
from AirwaySegLib.errors import AirwaySegError, Cancelled, one_sentence
from AirwaySegLib.files.atomic_output import check_free, delivered_into
from AirwaySegLib.files.ct_checks import Spacing
from AirwaySegLib.files.dicom_seg import import_highdicom
from AirwaySegLib.files.folder_lock import locked
from AirwaySegLib.files.image_files import case_name
from AirwaySegLib.files.volume import (
    Volume,
    part_of,
    read_ct,
    to_canonical,
    voxels_from_canonical,
    write_nrrd,
    write_sparse_nrrd,
)
from AirwaySegLib.masks.certain import certain_pieces, certainty
from AirwaySegLib.masks.origin import origin_of
from AirwaySegLib.pictures import preview
from AirwaySegLib.pipeline import Airways, Model, RunReport, load_model, repair_model_of, segment
from AirwaySegLib.progress import Progress
from AirwaySegLib.repair.proposal import APPLIED
from AirwaySegLib.repair.repair import Repaired, unrepaired
from AirwaySegLib.settings import SegmentSettings
from AirwaySegLib.tree.hand_names import read_names
from AirwaySegLib.tree.loose_pieces import Pieces
from AirwaySegLib.tree.missing import LungVolumes, missing_lobes

log = logging.getLogger("airwayseg")

MASK, PROBABILITY, PREVIEW = "airways.nrrd", "probability.nrrd", "preview.png"
NOT_MEASURED = "not_measured"
"""Key of the report's sentence that says why there is no tree."""
UNCONNECTED = "unconnected.nrrd"
"""Certain pieces of airway for which no attachment was found, with their numbers in `repair.LOOSE`."""
ORIGIN = "origin.nrrd"
"""What added each voxel of the mask: `masks.origin`."""
FILES = (MASK, PROBABILITY, PREVIEW, UNCONNECTED, ORIGIN, *repair.FILES, REPORT)

Result = tuple[Airways, Pieces]
"""The airways, and the certain pieces beside them."""

Read = Callable[[], tuple[Volume, list[str]]]
"""Reads a CT, or gives one that was read ahead, and the warnings about it."""


@dataclass(frozen=True)
class Batch:
    """Inputs, the folder for the results, the DICOM series, and the shard of the inputs ("I/N").

    ``force`` replaces results, ``skip_finished`` leaves them as they are. ``measure`` adds the files of `measure`; with
    ``voxels`` these are the voxel file instead of the maps, and the mask is kept even if measuring fails.
    ``spacing_mm`` (x, y, z) is for files without a spacing. ``dicom_seg`` "airways" or "lobes" adds a DICOM
    Segmentation. ``names`` is a file of names by hand (`tree.hand_names`) for the only input.
    """

    inputs: list[Path]
    output: Path
    series: str | None = None
    shard: str = "1/1"
    force: bool = False
    measure: bool = True
    spacing_mm: Spacing | None = None
    voxels: bool = False
    skip_finished: bool = False
    dicom_seg: str = ""
    names: Path | None = None


def parse_shard(text: str) -> tuple[int, int]:
    """ "2/4" -> (2, 4); raises AirwaySegError unless 1 <= I <= N."""
    parts = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", text)
    if parts is None or not 1 <= int(parts[1]) <= int(parts[2]):
        raise AirwaySegError(f"The shard {text!r} is not of the form I/N with I from 1 to N.")
    return int(parts[1]), int(parts[2])


def result_folders(batch: Batch) -> list[tuple[Path, Path]]:
    """Pairs of input and result folder: the output itself for one input, otherwise a subfolder for each input.

    Names are given to the whole list before the shard is taken, so that all shards agree.
    """
    if len(batch.inputs) == 1:
        folders = [batch.output]
    else:
        folders = [batch.output / name for name in distinct_names(batch.inputs)]
    first, step = parse_shard(batch.shard)
    return list(zip(batch.inputs, folders, strict=True))[first - 1 :: step]


def distinct_names(inputs: list[Path]) -> list[str]:
    """A unique name for each input: its own, with as many parent folders in front as are needed.

    Raises
    ------
    AirwaySegError
        If two inputs differ in their extensions only, or are the same.
    """
    places = [Path(os.path.abspath(path)) for path in inputs]  # of a link its own place, not the target's
    for parents in range(max(len(place.parts) for place in places)):
        names = []
        for path, place in zip(inputs, places, strict=True):
            folders = place.parent.parts[1:]
            names.append("_".join([*folders[len(folders) - min(parents, len(folders)) :], case_name(path)]))
        if len({name.lower() for name in names}) == len(names):
            return names
    twice = next(path for path in inputs if [case_name(other) for other in inputs].count(case_name(path)) > 1)
    raise AirwaySegError(f"Several inputs are called {case_name(twice)} in the same folder; rename one.")


def run_batch(batch: Batch, settings: SegmentSettings, progress: Progress) -> tuple[list[Path], list[Path]]:
    """Segment every input; return the folders of the results and the inputs that failed.

    A single input raises its error. In a batch each failure is logged with its sentence and the others go on; results
    that an earlier run finished are kept.

    Raises
    ------
    AirwaySegError
        If the weights cannot be used, or the only input cannot be segmented.
    """
    _check_names(batch)
    cases = result_folders(batch)
    _check_dicom_seg(batch)
    model = load_model(settings.weights)
    repair_model_of(model, settings)  # a missing file is reported before the first CT
    finished: list[Path] = []
    failed: list[Path] = []
    done_before = 0
    for path, folder in cases:
        try:
            if batch.dicom_seg:
                check_dicom(path)
            kept = is_done(path, folder, batch, model, settings)
            if kept:
                done_before += 1
            else:
                run_case(path, folder, batch, model, settings, progress)
            if batch.dicom_seg:
                write_dicom_of(path, folder, batch, kept)
            finished.append(folder)
        except Cancelled:
            raise
        except Exception as error:  # after any error the other cases go on
            if len(batch.inputs) == 1:
                raise
            log.error("%s: %s", path, one_sentence(error))
            log.info("details", exc_info=error)
            failed.append(path)
    if done_before:
        log.warning("%d of %d were already done; --force repeats them.", done_before, len(cases))
    if failed:
        log.error("%d of %d inputs failed.", len(failed), len(cases))
    return finished, failed


def _check_dicom_seg(batch: Batch) -> None:
    """Say before the first CT what a DICOM Segmentation lacks."""
    if batch.dicom_seg:
        import_highdicom()
    if batch.dicom_seg == "lobes" and (batch.voxels or not batch.measure):
        raise AirwaySegError(
            f"--dicom-seg lobes needs {measure.BRANCH_MAP}, which --no-measure and --voxels leave out."
        )


def _check_names(batch: Batch) -> None:
    """Say before the CT is read what is wrong with the names by hand."""
    if batch.names is None:
        return
    if len(batch.inputs) > 1 or not batch.measure:
        raise AirwaySegError(
            "--names belongs to the tree of one CT: it goes neither with several nor with --no-measure."
        )
    read_names(batch.names)


def write_dicom_of(path: Path, folder: Path, batch: Batch, kept: bool) -> None:
    """Write the DICOM Segmentation that a finished result lacks; one that was ``kept`` must be of this CT.

    Raises
    ------
    AirwaySegError
        If the folder holds the result of another CT, whose airways are not this patient's.
    """
    lobes = batch.dicom_seg == "lobes"
    with locked(folder, "airwayseg segment"):
        if has_dicom(folder, lobes):
            return
        if kept and not _is_of(json.loads((folder / REPORT).read_text(encoding="utf-8"))["input"], path, batch):
            raise AirwaySegError(f"{folder} holds the result of another CT; no DICOM Segmentation was written.")
        write_result_as_dicom(folder, path, batch.series or "", (), lobes)


def is_done(path: Path, folder: Path, batch: Batch, model: Model, settings: SegmentSettings) -> bool:
    """Whether the result of an earlier run is kept: in a batch, or always with ``skip_finished``.

    A result of another CT, of other settings, weights or version is kept only with ``skip_finished``, with a warning.

    Raises
    ------
    AirwaySegError
        If it differs in one of these, or is incomplete.
    """
    if batch.force or not (folder / REPORT).exists() or not (batch.skip_finished or len(batch.inputs) > 1):
        return False
    try:
        check_done(folder, _files(batch), model.sha256, settings, lambda described: _is_of(described, path, batch))
    except ResultDiffers as error:
        if not batch.skip_finished:
            raise
        log.warning("%s It was kept.", str(error).replace("; use --force to replace it", ""))
    return True


def run_case(
    path: Path,
    folder: Path,
    batch: Batch,
    model: Model,
    settings: SegmentSettings,
    progress: Progress,
    read: Read | None = None,
) -> None:
    """Read one CT, segment and measure it, and write the files of its result; ``read`` gives a CT read elsewhere.

    Raises
    ------
    AirwaySegError
        With a sentence for the user, also if another run works in the folder.
    """
    with locked(folder, "airwayseg segment"):
        check_free(folder, _files(batch), batch.force)
        run_report = RunReport(tell=log.warning if len(batch.inputs) == 1 and read is None else log.info)
        progress("read", 0, 1)
        with run_report.stage("read"):
            ct, warnings = read() if read else read_ct(path, batch.series, batch.spacing_mm)
        run_report.warnings += warnings
        progress("read", 1, 1)
        log.info("%s: %s voxels of %s mm (z, y, x)", path, ct.array.shape, ct.spacing_mm)
        _segment_and_write(ct, folder, batch, (model, settings), run_report, progress)
    for warning in run_report.warnings:
        log.warning("%s: %s", case_name(path), warning)


def _files(batch: Batch) -> tuple[str, ...]:
    return FILES + (measure.result_files(batch.voxels, ct=True) if batch.measure else ())


def _segment_and_write(
    ct: Volume,
    folder: Path,
    batch: Batch,
    how: tuple[Model, SegmentSettings],
    run_report: RunReport,
    progress: Progress,
) -> None:
    model, settings = how
    airways = segment(ct, model, settings, run_report, progress)
    progress("write", 0, len(FILES))
    replaced = (*FILES, *(measure.REPLACED if batch.measure else ()), DICOM_SEG)
    with delivered_into(folder, REPORT, replaced) as unfinished:
        with run_report.stage("write"):
            result = airways, unconnected_pieces(ct, airways)
            run_report.decisions["unconnected"] = write_images(
                unfinished, ct, result, case_name(ct.path or folder), progress
            )
        progress("write", len(FILES), len(FILES))
        if batch.measure:
            with run_report.stage("measure"):
                _try_to_measure(unfinished, ct, result, batch, run_report, progress)
        source = {"name": model.info.name, "sha256": model.sha256, "provenance": model.info.provenance}
        report = make_report(ct, airways.mask, source, settings, run_report)
        (unfinished / REPORT).write_text(json.dumps(report, indent=1))


def _is_of(described: dict[str, Any], path: Path, batch: Batch) -> bool:
    """Whether a report's input is this one: the same file, or if that is unknown the same voxels."""
    checksum = file_sha256(path)
    if batch.spacing_mm is None and checksum is not None and checksum == described["file_sha256"]:
        return True
    ct, _ = read_ct(path, batch.series, batch.spacing_mm)
    return is_described(ct, described)


def _try_to_measure(
    folder: Path, ct: Volume, result: Result, batch: Batch, run_report: RunReport, progress: Progress
) -> None:
    """Measure; with ``batch.voxels`` a failure is reported under `NOT_MEASURED` and the mask is kept."""
    try:
        _measure(folder, ct, result, batch, run_report, progress)
    except Cancelled:
        raise
    except Exception as error:
        if not batch.voxels:
            raise
        for name in measure.REPLACED:
            (folder / name).unlink(missing_ok=True)
        run_report.decisions[NOT_MEASURED] = one_sentence(error)
        log.error("%s", one_sentence(error))
        log.info("details", exc_info=error)


def _measure(folder: Path, ct: Volume, result: Result, batch: Batch, run_report: RunReport, progress: Progress) -> None:
    """Write the tree's files; for an empty mask none are written, and the report says so."""
    airways, pieces = result
    if not airways.mask.any():
        run_report.warnings.append("No airway was found, so nothing was measured.")
        return
    mask = replace(ct, array=airways.mask)
    volumes = None if airways.lungs_ml is None else LungVolumes(*airways.lungs_ml)
    beside = Beside(pieces, volumes, ct, read_names(batch.names) if batch.names else ())
    tree = measure.measure(mask, folder, airways.probability, progress, batch.voxels, beside).tree
    run_report.warnings += tree.warnings
    if tree.wall_scan is not None and tree.wall_scan.warning:
        run_report.warnings.append(tree.wall_scan.warning)
    if beside.volumes is not None:
        lacks = missing_lobes(tree, beside.volumes)
        run_report.warnings += [lack.warning for lack in lacks if lack.warning not in tree.warnings]
    run_report.decisions |= {"branches": len(tree.main()), "loops_cut": tree.loops_cut}


def unconnected_pieces(ct: Volume, airways: Airways) -> Pieces:
    """The certain pieces of airway that no repair joined, in the box of the canonical grid that was repaired."""
    mask = to_canonical(replace(ct, array=airways.mask))
    repaired = airways.repaired or unrepaired(mask)
    probability = to_canonical(replace(ct, array=airways.probability)).array[repaired.box]
    loose = repaired.loose()
    numbers = part_of(mask, repaired.box, certain_pieces(loose, probability, repaired.airway))
    return Pieces(numbers, certainty(loose, probability) if repaired.airway is None else repaired.airway)


def write_images(folder: Path, ct: Volume, result: Result, title: str, progress: Progress) -> dict[str, float]:
    """Write mask, raw probability, preview and repair files; return the report's entry on unconnected pieces."""
    airways, numbers = result[0], result[1].numbers.array
    write_nrrd(folder / MASK, airways.mask.astype(np.uint8), ct)
    progress("write", 1, len(FILES))
    write_nrrd(folder / PROBABILITY, airways.probability, ct)
    progress("write", 2, len(FILES))
    repaired = airways.repaired or unrepaired(to_canonical(replace(ct, array=airways.mask)))
    voxels = np.argwhere(numbers)
    where = voxels_from_canonical(voxels + repaired.corner, ct)
    write_sparse_nrrd(folder / UNCONNECTED, where, numbers[tuple(voxels.T)], ct)
    progress("write", 3, len(FILES))
    _write_origin(folder / ORIGIN, airways, repaired, ct)
    canonical = to_canonical(ct)  # whole volumes last, as few as can be beside each other
    repair.write_repairs(folder, repaired, ct, canonical.array, title)
    progress("write", 4, len(FILES))
    drawn = to_canonical(replace(ct, array=airways.mask.astype(np.uint8))).array
    drawn[repaired.box][numbers > 0] = preview.LOOSE
    voxel_ml = float(np.prod(ct.spacing_mm)) / 1000
    caption = f"{title}: {float(airways.mask.sum()) * voxel_ml:.1f} ml of airway lumen. Research use only."
    preview.draw_preview(canonical.array, drawn, canonical.spacing_mm, caption).save(folder / PREVIEW)
    count = len(np.unique(numbers[numbers > 0]))
    return {"pieces": count, "voxels": len(voxels), "millilitres": round(len(voxels) * voxel_ml, 3)}


def _write_origin(path: Path, airways: Airways, repaired: Repaired, ct: Volume) -> None:
    """Write what added each voxel of the mask."""
    applied = [proposal.bridge.voxels for proposal in repaired.proposals if proposal.state == APPLIED]
    bridges = np.concatenate([np.empty((0, 3), np.int32), *applied]) + repaired.corner
    origin = origin_of(airways.mask, airways.open_lumen, voxels_from_canonical(bridges.astype(np.int32), ct))
    voxels = np.argwhere(origin)
    write_sparse_nrrd(path, voxels, origin[tuple(voxels.T)], ct)


def last_lines(folder: Path) -> str:
    """What a finished run says of its result: the files to look at, and how much of the airways is unconnected."""
    lines = [str(folder / MASK), str(folder / PREVIEW)]
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    unconnected = report["decisions"].get("unconnected", {})
    if unconnected.get("pieces"):
        count, millilitres = unconnected["pieces"], unconnected["millilitres"]
        pieces = "1 certain piece" if count == 1 else f"{count} certain pieces"
        lines.append(f"{folder / UNCONNECTED}: {pieces} of airway ({millilitres:.2f} ml) without a way to the tree")
    return "\n".join(lines)
