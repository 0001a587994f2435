"""The commands `airwayseg grow` and `airwayseg cut`: a mask edited at points, written as a new mask."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.edit.cut import beyond
from AirwaySegLib.edit.grow import Growth, grow
from AirwaySegLib.edit.scan import Part, Scan
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.ct_checks import Spacing
from AirwaySegLib.files.volume import (
    Volume,
    check_same_grid,
    lps_to_voxels,
    read_ct,
    read_mask,
    read_probability,
    write_nrrd,
)

log = logging.getLogger("airwayseg")

Point = tuple[float, float, float]

MASK_ENDING = ".nrrd"


@dataclass(frozen=True)
class EditRequest:
    """The mask to edit, the file for the new one, and where.

    ``points`` are x, y, z: mm in LPS, or with ``voxels`` indices of the file's own grid. ``keep`` is a point of the
    side that a cut leaves. ``ct`` and ``probability`` (0..255) are on the mask's grid; ``force`` replaces a file;
    ``spacing_mm`` (x, y, z) is for files without a spacing.
    """

    mask: Path
    output: Path
    points: tuple[Point, ...]
    keep: Point | None = None
    ct: Path | None = None
    probability: Path | None = None
    voxels: bool = False
    force: bool = False
    spacing_mm: Spacing | None = None


def parse_point(text: str) -> Point:
    """ "1,2.5,-3" -> (1.0, 2.5, -3.0); raises AirwaySegError for anything else."""
    try:
        x, y, z = (float(part) for part in text.split(","))
        if not np.isfinite([x, y, z]).all():
            raise ValueError
    except ValueError:
        raise AirwaySegError(f"The point {text!r} is not of the form X,Y,Z.") from None
    return x, y, z


def run_grow(request: EditRequest) -> str:
    """Add the airway that the points lead to and write the mask; returns what was added, in words.

    Raises
    ------
    AirwaySegError
        If a file cannot be read or written or lies on another grid, or no airway is seen at the points.
    """
    _check_output(request)
    mask, scan = _read(request)
    growth = grow(scan, _voxels_of(request.points, request, mask))
    array = mask.array.copy()
    array[tuple(growth.voxels.T)] = True
    write_nrrd(request.output, array, mask)
    return _in_words(growth)


def run_cut(request: EditRequest) -> str:
    """Remove what lies beyond the first point and write the mask; returns what was removed, in words.

    Raises
    ------
    AirwaySegError
        If a file cannot be read or written, or a cut there parts nothing.
    """
    _check_output(request)
    mask, scan = _read(request)
    keep = None if request.keep is None else _voxels_of((request.keep,), request, mask)[0]
    cut = beyond(scan, _voxels_of(request.points, request, mask)[0], keep)
    array = mask.array.copy()
    array[tuple(cut.voxels.T)] = False
    write_nrrd(request.output, array, mask)
    return f"Removed: {len(cut.voxels)} voxels, {len(cut.voxels) * float(np.prod(mask.spacing_mm)):.0f} mm3."


def _in_words(growth: Growth) -> str:
    added = f"Added: {growth.length_mm:.1f} mm of airway, {len(growth.voxels)} voxels, score {growth.score:.2f}."
    return f"{added} {growth.reason}"


def _check_output(request: EditRequest) -> None:
    if request.output.suffix != MASK_ENDING:
        raise AirwaySegError(f"{request.output} does not end in {MASK_ENDING}, the format of the new mask.")
    if request.output.exists() and not request.force:
        raise AirwaySegError(f"{request.output} exists already; use --force to replace it.")


def _read(request: EditRequest) -> tuple[Volume, Scan]:
    """The mask, and the scan with what else is known, all on the mask's own grid."""
    mask = read_mask(request.mask, request.spacing_mm)
    hu: NDArray | None = None
    if request.ct is not None:
        ct, warnings = read_ct(request.ct, spacing_mm=request.spacing_mm)
        check_same_grid(mask, ct, str(request.mask))
        for warning in warnings:
            log.warning("%s", warning)
        hu = ct.array
    shape = (mask.array.shape[0], mask.array.shape[1], mask.array.shape[2])
    scan = Scan(Part(mask.array), mask.spacing_mm, shape, hu)
    if request.probability is not None:
        values = read_probability(request.probability, mask, request.spacing_mm)
        scan = replace(scan, probability=Part(values))
    return mask, scan


def _voxels_of(points: tuple[Point, ...], request: EditRequest, mask: Volume) -> NDArray[np.float64]:
    """The points as voxels (K, 3), z, y, x."""
    given = np.array(points, float)
    return given[:, ::-1] if request.voxels else lps_to_voxels(given, mask)
