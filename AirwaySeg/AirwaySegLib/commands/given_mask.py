"""A case of a cohort with an airway mask of its own: the mask is measured, and no network is run."""

import json
from pathlib import Path

from AirwaySegLib.commands import measure
from AirwaySegLib.commands.measure import Beside
from AirwaySegLib.commands.provenance import REPORT, file_sha256, make_report
from AirwaySegLib.commands.segment import MASK, PREVIEW, Read
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.atomic_output import check_free, delivered_into
from AirwaySegLib.files.folder_lock import locked
from AirwaySegLib.files.volume import check_same_grid, mask_in, read_mask, to_canonical, write_nrrd
from AirwaySegLib.pictures.preview import draw_preview
from AirwaySegLib.pipeline import RunReport
from AirwaySegLib.progress import Progress
from AirwaySegLib.settings import SegmentSettings

FILES = (MASK, PREVIEW, *measure.result_files(voxels=False, ct=True), REPORT)


def run_given_mask(
    mask_file: Path, folder: Path, read: Read, settings: SegmentSettings, progress: Progress, force: bool
) -> None:
    """Measure a mask on the grid of the CT that ``read`` gives, and write `FILES` into ``folder``.

    Raises
    ------
    AirwaySegError
        If a file cannot be read or written, the mask lies on another grid or is empty, or another run works in the
        folder.
    """
    with locked(folder, "airwayseg cohort"):
        check_free(folder, FILES, force)
        run_report = RunReport()
        with run_report.stage("read"):
            ct, warnings = read()
            mask = read_mask(mask_file)
        check_same_grid(mask, ct, str(mask_file))
        if not mask.array.any():
            raise AirwaySegError(f"{mask_file} is empty.")
        run_report.warnings += warnings
        with delivered_into(folder, REPORT, (*FILES, *measure.REPLACED)) as unfinished:
            with run_report.stage("write"):
                write_nrrd(unfinished / MASK, mask.array, ct)
            with run_report.stage("measure"):
                airways = measure.measure(mask, unfinished, None, progress, beside=Beside(ct=ct))
            canonical, title = to_canonical(ct), folder.name
            draw_preview(canonical.array, airways.grid.array != 0, canonical.spacing_mm, title).save(
                unfinished / PREVIEW
            )
            run_report.warnings += airways.tree.warnings
            run_report.decisions |= {"branches": len(airways.tree.main()), "loops_cut": airways.tree.loops_cut}
            report = make_report(ct, mask.array, source_of(mask_file), settings, run_report)
            (unfinished / REPORT).write_text(json.dumps(report, indent=1))


def source_of(mask_file: Path) -> dict[str, object]:
    """The report's entry on where the mask comes from, in place of the weights."""
    file = mask_in(mask_file)
    return {"name": f"mask {file.name}", "sha256": file_sha256(file), "provenance": {"file": str(file)}}
