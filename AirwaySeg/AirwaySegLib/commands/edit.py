"""The commands `airwayseg grow`, `join` and `cut`: a mask edited at points, written as a new mask."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from AirwaySegLib.edit.cut import NEAR_MM, beyond
from AirwaySegLib.edit.grow import Growth, grow
from AirwaySegLib.edit.reconnect import bridge, reconnect
from AirwaySegLib.edit.scan import Part, Scan, Voxels
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.atomic_output import check_free
from AirwaySegLib.files.ct_checks import Spacing
from AirwaySegLib.files.volume import (
    Volume,
    check_same_grid,
    lps_to_voxels,
    read_ct,
    read_mask,
    read_on_grid,
    read_probability,
    write_nrrd,
)

log = logging.getLogger("airwayseg")

Point = tuple[float, float, float]

MASK_ENDING = ".nrrd"

_CORNERS = np.ones((3, 3, 3), bool)
"""Voxels that touch by faces, edges or corners are connected."""


@dataclass(frozen=True)
class EditRequest:
    """The mask to edit, the file for the new one, and where.

    ``points`` are x, y, z: mm in LPS, or with ``voxels`` indices of the file's own grid. ``keep`` is a point of the
    side that a cut leaves, ``parent`` one of the airway to join to. ``ct``, ``probability`` (0..255) and ``pieces``
    (airways that the mask lacks) are on the mask's grid; ``force`` replaces a file; ``spacing_mm`` (x, y, z) is for
    files without a spacing.
    """

    mask: Path
    output: Path
    points: tuple[Point, ...]
    keep: Point | None = None
    parent: Point | None = None
    pieces: Path | None = None
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
        If a file cannot be read or written, there are several points, or a cut there parts nothing.
    """
    if len(request.points) > 1:
        raise AirwaySegError("A cut is made at one point: give --at once.")
    _check_output(request)
    mask, scan = _read(request)
    keep = None if request.keep is None else _voxels_of((request.keep,), request, mask)[0]
    cut = beyond(scan, _voxels_of(request.points, request, mask)[0], keep)
    array = mask.array.copy()
    array[tuple(cut.voxels.T)] = False
    write_nrrd(request.output, array, mask)
    return f"Removed: {len(cut.voxels)} voxels, {len(cut.voxels) * float(np.prod(mask.spacing_mm)):.0f} mm3."


def run_join(request: EditRequest) -> str:
    """Join the piece at the point to the airways, or the subtree there to another parent, and write the mask.

    A piece is what hangs on nothing: a component of the mask, or one of ``pieces`` that is nearer to the point than the
    mask. Anywhere else the airways are cut at the point, and what hangs there is joined to the parent.

    Returns
    -------
    str
        What was joined, in words.

    Raises
    ------
    AirwaySegError
        If a file cannot be read or written, there are several points, a subtree has no parent given, or no way is seen.
    """
    if len(request.points) > 1:
        raise AirwaySegError("Airways are joined by one point: give --at once, and --parent for the other side.")
    _check_output(request)
    mask, scan = _read(request)
    point = _voxels_of(request.points, request, mask)[0]
    parent = None if request.parent is None else _voxels_of((request.parent,), request, mask)[0]
    array = mask.array != 0
    tree, piece = _parted(array, _pieces(request, mask), point, parent, mask.spacing_mm)
    if len(piece):
        built, removed = bridge(replace(scan, airways=Part(tree)), piece, parent), piece[:0]
        array[tuple(piece.T)] = True
        what = f"a piece of {len(piece)} voxels"
    elif parent is None:
        raise AirwaySegError("The point lies in the tree: give with --parent the airway to which its subtree belongs.")
    else:
        found = reconnect(replace(scan, airways=Part(tree)), point, parent)
        built, removed = found.bridge, found.remove
        what = f"the subtree; {len(removed)} voxels of its former joint were removed"
    array[tuple(removed.T)] = False
    array[tuple(built.voxels.T)] = True
    write_nrrd(request.output, array, mask)
    return f"Joined by {built.length_mm:.1f} mm of airway, score {built.score:.2f}: {what}. {built.reason}"


def _pieces(request: EditRequest, mask: Volume) -> NDArray[np.bool_]:
    """The airways (Z, Y, X) that the mask lacks."""
    if request.pieces is None:
        return np.zeros(mask.array.shape, bool)
    found: NDArray[np.bool_] = read_on_grid(request.pieces, mask, request.spacing_mm).array != 0
    return found & (mask.array == 0)


def _parted(
    airways: NDArray[np.bool_], pieces: NDArray[np.bool_], point: NDArray, parent: NDArray | None, spacing_mm: Spacing
) -> tuple[NDArray[np.bool_], Voxels]:
    """The tree (Z, Y, X), and the voxels (N, 3) of the unconnected piece at a point; N = 0 for a point of the tree.

    The tree is the component of the airways at the parent, by default the largest.
    """
    labels, count = ndimage.label(airways, _CORNERS)
    if not count:
        raise AirwaySegError("The airways are empty: there is nothing to join to.")
    labels = np.where(pieces, ndimage.label(pieces, _CORNERS)[0] + count, labels)
    sizes = np.bincount(labels[airways])
    own = int(sizes.argmax()) if parent is None else _label_at(labels, parent, spacing_mm, "The new parent")
    number = _label_at(labels, point, spacing_mm, "The point")
    tree = airways & (labels == own)
    return tree, np.argwhere((labels == number) & (number != own)).astype(np.int32)


def _label_at(labels: NDArray[np.int32], point: NDArray, spacing_mm: Spacing, what: str) -> int:
    """The number of the component nearest to a point (3,)."""
    voxels = np.argwhere(labels)
    apart_mm = np.linalg.norm((voxels - point) * np.asarray(spacing_mm), axis=1)
    row = int(apart_mm.argmin())
    if apart_mm[row] > NEAR_MM:
        raise AirwaySegError(f"{what} lies {apart_mm[row]:.0f} mm from all airways and pieces.")
    return int(labels[tuple(voxels[row])])


def _in_words(growth: Growth) -> str:
    beyond = f" ({growth.beyond_mm:.1f} mm of it beyond the point)" if growth.beyond_mm else ""
    added = (
        f"Added: {growth.length_mm:.1f} mm of airway{beyond}, {len(growth.voxels)} voxels, score {growth.score:.2f}."
    )
    return f"{added} {growth.reason}"


def _check_output(request: EditRequest) -> None:
    if request.output.suffix != MASK_ENDING:
        raise AirwaySegError(f"{request.output} does not end in {MASK_ENDING}, the format of the new mask.")
    if request.output.is_dir():
        raise AirwaySegError(f"{request.output} is a folder; give a file for the new mask.")
    check_free(request.output.absolute().parent, (request.output.name,), request.force)


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
