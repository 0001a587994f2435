"""Whether an image file may be a CT of the chest, from its header and its name."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from AirwaySegLib.cohort.dicom_scans import why_too_coarse
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.ct_checks import MINIMUM_VOXELS
from AirwaySegLib.files.image_files import FORMATS, FileHeader, format_extension, read_file_header

_MASK = re.compile(r"(^|[^a-z])(mask|masks|label|labels|seg|segmentation|lobes?|airways?|lesions?|probability)$")
"""How the name of a mask ends."""


@dataclass(frozen=True)
class Judged:
    """What a file is in a few words, why it is left out (empty: it is not), and its voxels (0: unknown)."""

    about: str
    left_out: str = ""
    voxels: int = 0


def judged_image(path: Path, thickest_mm: float | None) -> Judged:
    """Judge an image file by its header; with ``thickest_mm`` None only say what it is.

    A header that cannot be read is no reason to leave the file out: reading it then says what is wrong.
    """
    extension = format_extension(path) or ""
    kind = FORMATS[extension][0]
    try:
        header = read_file_header(path)
    except AirwaySegError:
        return Judged(f"{kind} that cannot be read")
    size = " x ".join(str(count) for count in header.size_xyz)
    if len(header.size_xyz) < 3 or min(header.size_xyz[:3]) < MINIMUM_VOXELS or max(header.size_xyz[3:], default=1) > 1:
        return Judged(f"{kind}, {size}", "not one volume with three axes")
    slice_mm, slices = _slices(header)
    about = f"{kind}, {slices} slices of {slice_mm:.4g} mm"
    voxels = int(np.prod(header.size_xyz[:3], dtype=np.int64))
    if thickest_mm is None:
        return Judged(about, "", voxels)
    name = path.name[: len(path.name) - len(extension)].lower()
    if "8-bit" in header.voxel or "vector" in header.voxel:
        return Judged(about, f"its voxels are no CT's ({header.voxel}): a mask or a picture", voxels)
    if _MASK.search(name):
        return Judged(about, "its name is that of a mask", voxels)
    return Judged(about, why_too_coarse(slice_mm, slices * slice_mm, thickest_mm), voxels)


def _slices(header: FileHeader) -> tuple[float, int]:
    """Distance in mm and number of the slices across the axis that runs most along the body."""
    matrix = np.asarray(header.direction, float).reshape(len(header.size_xyz), -1)[:3, :3]
    axis = int(np.argmax(np.abs(matrix[2])))
    return float(header.spacing_xyz_mm[axis]), int(header.size_xyz[axis])
