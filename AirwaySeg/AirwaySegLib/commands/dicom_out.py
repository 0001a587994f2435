"""The DICOM Segmentation of a finished result: the airways, and if wanted a segment for each lobe's bronchi."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from AirwaySegLib.commands.measure import BRANCH_MAP, TREE
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.dicom_seg import LOBE_CODES, Segment, write_dicom_seg
from AirwaySegLib.files.image_files import format_extension
from AirwaySegLib.files.volume import SEGMENTATION, read_ct, read_mask, read_on_grid
from AirwaySegLib.tree.airway_tree import AirwayTree

DICOM_SEG = "airways.dcm"


def check_dicom(source: Path) -> None:
    """Refuse a CT that is not DICOM."""
    if format_extension(source):
        raise AirwaySegError(f"{source} is not DICOM: a DICOM Segmentation would need invented patient data.")


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
    if lobes and (folder / TREE).exists():
        ct, _ = read_ct(source, series or None, None, files)
        numbers = read_on_grid(folder / BRANCH_MAP, ct).array
        tree = AirwayTree.from_json((folder / TREE).read_text(encoding="utf-8"))
        for lobe in LOBE_CODES:
            own = np.isin(numbers, [branch.id for branch in tree.main() if branch.lobe == lobe])
            if own.any():
                segments.append(Segment(f"Bronchi of the {lobe}", own, lobe))
    write_dicom_seg(folder / DICOM_SEG, segments, source, series, files)
