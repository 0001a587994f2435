"""The DICOM Segmentation of a finished result: the airways, and if wanted a segment for each lobe's bronchi."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from AirwaySegLib.commands.measure import BRANCH_MAP, TREE
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.dicom_seg import LOBE_CODES, Segment, import_highdicom, write_dicom_seg
from AirwaySegLib.files.image_files import format_extension
from AirwaySegLib.files.volume import SEGMENTATION, read_ct, read_mask, read_on_grid
from AirwaySegLib.tree.airway_tree import AirwayTree

DICOM_SEG = "airways.dcm"


def check_dicom(source: Path) -> None:
    """Refuse a CT that is not DICOM."""
    if source.is_file() and format_extension(source):
        raise AirwaySegError(f"{source} is not DICOM: a DICOM Segmentation would need invented patient data.")


def has_dicom(folder: Path, lobes: bool) -> bool:
    """Whether a folder has its result as a DICOM Segmentation: with a segment for each lobe if ``lobes``, else without.

    One that cannot be read is none.
    """
    _, pydicom = import_highdicom()
    try:
        written = pydicom.dcmread(folder / DICOM_SEG, stop_before_pixels=True)
        count = len(written.SegmentSequence)
    except (OSError, pydicom.errors.InvalidDicomError, AttributeError):
        return False
    return count == 1 if not lobes else count > 1 or not _lobes_of(_read_tree(folder))


def write_result_as_dicom(folder: Path, source: Path, series: str, files: Sequence[Path], lobes: bool) -> None:
    """Write `DICOM_SEG` into the folder of a finished result; ``source``, ``series`` and ``files`` are its CT.

    With ``lobes`` each lobe that has bronchi gets a segment, too.

    Raises
    ------
    AirwaySegError
        If the CT is not DICOM, highdicom is not installed, or a file cannot be read or written.
    """
    check_dicom(source)
    mask = read_mask(folder / SEGMENTATION)
    segments = [Segment("Airways", mask.array)]
    tree = _read_tree(folder)
    if lobes and tree is not None:
        ct, _ = read_ct(source, series or None, None, files)
        numbers = read_on_grid(folder / BRANCH_MAP, ct).array
        for lobe, branches in _lobes_of(tree).items():
            own = np.isin(numbers, branches)
            if own.any():
                segments.append(Segment(f"Bronchi of the {lobe}", own, lobe))
    write_dicom_seg(folder / DICOM_SEG, segments, source, series, files)


def _read_tree(folder: Path) -> AirwayTree | None:
    path = folder / TREE
    return AirwayTree.from_json(path.read_text(encoding="utf-8")) if path.exists() else None


def _lobes_of(tree: AirwayTree | None) -> dict[str, list[int]]:
    """The branches of each lobe that has any."""
    branches = [] if tree is None else tree.main()
    by_lobe = {lobe: [branch.id for branch in branches if branch.lobe == lobe] for lobe in LOBE_CODES}
    return {lobe: own for lobe, own in by_lobe.items() if own}
