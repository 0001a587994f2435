"""The command `airwayseg measure`: from a mask its tree, tables, distance maps, suspects and pictures, as files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.atomic_output import check_free, delivered_into, write_text
from AirwaySegLib.files.ct_checks import Spacing
from AirwaySegLib.files.folder_lock import locked
from AirwaySegLib.files.image_files import case_name
from AirwaySegLib.files.volume import (
    Volume,
    check_same_grid,
    ijk_to_ras,
    part_of,
    read_ct,
    read_mask,
    read_probability,
    to_canonical,
    voxels_from_canonical,
    write_sparse_nrrd,
)
from AirwaySegLib.masks.certain import certain_pieces, certainty
from AirwaySegLib.progress import Progress
from AirwaySegLib.tree.airway_tree import AirwayTree
from AirwaySegLib.tree.build import ParsedAirways, parse_airways
from AirwaySegLib.tree.centerline_file import write_centerline
from AirwaySegLib.tree.distance_maps import from_carina, to_centerline, to_wall
from AirwaySegLib.tree.export import summary_text, write_markups, write_summary, write_table
from AirwaySegLib.tree.hand_names import HandName, read_names, with_hand_names
from AirwaySegLib.tree.known_parts import KnownParts
from AirwaySegLib.tree.loose_pieces import Piece, Pieces, with_pieces
from AirwaySegLib.tree.missing import LungVolumes
from AirwaySegLib.tree.suspect import Suspect, suspects_to_json
from AirwaySegLib.tree.suspects import MOST_OF_A_KIND, branch_probability, find_suspects

TREE, TABLE, SUMMARY, CENTERLINE = "tree.json", "branches.csv", "summary.csv", "centerline.vtp"
BRANCH_MAP, CURVES, SUSPECTS = "branches.nrrd", "centerline.mrk.json", "suspects.json"
TREE_PICTURE, RADIUS_PLOT, WALL_PLOT, PREVIEW = "tree.png", "radius.png", "walls.png", "preview.png"
DISTANCES = {
    "distance-centerline.nrrd": to_centerline,
    "distance-wall.nrrd": to_wall,
    "distance-carina.nrrd": from_carina,
}
MAPS, VOXELS = (BRANCH_MAP, *DISTANCES), "voxels.npz"
"""The maps, and the file that can be written instead of them: their values at the airway voxels only."""
REPORT = "report.json"
"""What `airwayseg segment` leaves of how a result came about."""
PARTS = "parts.npz"
"""What was computed for each part of the airways, for the next measurement; written beside `VOXELS`."""
PROBABILITY = "probability"
"""Name of the raw probability (0..1) in `VOXELS`, where it is known."""


def result_files(voxels: bool, ct: bool = False) -> tuple[str, ...]:
    """Names of the files that a measurement writes, with or without a CT; `TREE` is the last."""
    if voxels:
        return (TABLE, SUMMARY, CENTERLINE, VOXELS, PARTS, SUSPECTS, TREE)
    pictures = (TREE_PICTURE, RADIUS_PLOT, *((WALL_PLOT,) if ct else ()))
    return (TABLE, SUMMARY, CENTERLINE, *MAPS, SUSPECTS, *pictures, TREE)


FILES = result_files(voxels=False)
REPLACED = (*FILES, VOXELS, PARTS, WALL_PLOT, CURVES)
"""Files that are removed when a result replaces an older one."""


@dataclass(frozen=True)
class MeasureRequest:
    """The mask to measure, the folder for the results, and the options.

    ``ct`` and ``probability`` (0..255) are on the mask's grid. With ``ct`` walls and arteries are measured and, unless
    ``voxels``, a picture of slices is drawn; with ``probability`` doubtful tips are found. ``curves`` adds Slicer's
    markups curves, ``force`` replaces results, ``spacing_mm`` (x, y, z) is for files without a spacing, and ``voxels``
    writes `VOXELS` and `PARTS` instead of maps and pictures. ``names`` is a file of names by hand (`hand_names`).
    ``known`` is the `PARTS` of an earlier measurement: parts of the airways that have not changed are taken from it.
    """

    mask: Path
    output: Path
    ct: Path | None = None
    probability: Path | None = None
    curves: bool = False
    force: bool = False
    spacing_mm: Spacing | None = None
    voxels: bool = False
    names: Path | None = None
    known: Path | None = None


@dataclass(frozen=True)
class Beside:
    """What is known besides a mask.

    Pieces that are airway for certain and not in it, the lungs' volumes, the CT on its grid, in which walls are
    measured, names that a person gave, and what an earlier measurement computed, to which this one adds.
    """

    pieces: Pieces | None = None
    volumes: LungVolumes | None = None
    ct: Volume | None = None
    names: Sequence[HandName] = ()
    known: KnownParts | None = None


NOTHING_BESIDE = Beside()


def run_measure(request: MeasureRequest, progress: Progress) -> str:
    """Measure a mask file and return a summary of its tree.

    Raises
    ------
    AirwaySegError
        If a file cannot be read or written, lies on another grid, the mask is empty, or another run works in the
        folder.
    """
    with locked(request.output, "airwayseg measure"):
        return _run_measure(request, progress)


def check_no_report(folder: Path) -> None:
    """Refuse to mix files of another mask into a result of `airwayseg segment`, whose report would be untrue.

    Raises
    ------
    AirwaySegError
        If the folder has a report.
    """
    if (folder / REPORT).exists():
        raise AirwaySegError(
            f"{folder} holds a result of `airwayseg segment`, whose other files would not fit; choose another folder."
        )


def _run_measure(request: MeasureRequest, progress: Progress) -> str:
    others = ((CURVES,) if request.curves else ()) + ((PREVIEW,) if request.ct and not request.voxels else ())
    check_free(request.output, result_files(request.voxels, request.ct is not None) + others, request.force)
    if request.mask.resolve().parent != request.output.resolve():
        check_no_report(request.output)
    progress("read", 0, 1)
    names = read_names(request.names) if request.names else ()
    known = KnownParts.read(request.known) if request.known else None
    mask = read_mask(request.mask, request.spacing_mm)
    ct = None
    if request.ct is not None:
        ct, _ = read_ct(request.ct, spacing_mm=request.spacing_mm)
        check_same_grid(mask, ct, str(request.mask))
    probability = read_probability(request.probability, mask, request.spacing_mm) if request.probability else None
    progress("read", 1, 1)
    with delivered_into(request.output, TREE, REPLACED + others) as unfinished:
        airways = measure(
            mask, unfinished, probability, progress, request.voxels, Beside(ct=ct, names=names, known=known)
        )
        title = case_name(request.mask)
        if request.curves and airways.tree.branches:
            write_markups(unfinished / CURVES, airways.tree)
        if ct is not None and not request.voxels:
            from AirwaySegLib.pictures.preview import draw_preview  # the panel draws none, and waits

            picture = draw_preview(to_canonical(ct).array, airways.grid.array != 0, airways.grid.spacing_mm, title)
            picture.save(unfinished / PREVIEW)
    return summary_text(airways.tree)


def measure(
    mask: Volume,
    folder: Path,
    probability: NDArray[np.uint8] | None,
    progress: Progress,
    voxels: bool = False,
    beside: Beside = NOTHING_BESIDE,
) -> ParsedAirways:
    """Parse a mask (on its own grid) and write `result_files` into an existing folder; `TREE` comes last.

    ``beside`` is what is known besides the mask, for walls, suspects and names.
    """
    steps = len(FILES) + 2
    progress("measure", 0, steps)
    known = beside.known or KnownParts()
    airways = parse_airways(to_canonical(mask), known)
    airways = replace(airways, tree=with_hand_names(airways.tree, beside.names))
    if beside.ct is not None:
        from AirwaySegLib.walls.measure import measure_walls

        progress("measure", 1, steps)
        airways = replace(airways, tree=measure_walls(airways, to_canonical(beside.ct).array, known))
    tree = airways.tree
    done = 2
    progress("measure", done, steps)
    where = voxels_from_canonical(airways.voxels_of_mask(), mask)
    branch_of_voxel = airways.branch_of_voxel()
    branches = branch_of_voxel[airways.in_mask]
    values: dict[str, NDArray] = {BRANCH_MAP: branches}
    for name, distances in DISTANCES.items():
        done += 1
        progress("measure", done, steps)
        values[name] = distances(airways)[airways.in_mask]
    seen, likely = None, None
    if probability is not None:
        seen = probability[tuple(where.T)]
        values[PROBABILITY] = seen.astype(np.float32) / 255
        likely = branch_probability(tree, branches, seen)
    if voxels:
        write_voxels(folder / VOXELS, where, values, mask)
        known.write(folder / PARTS)
    else:
        for name in MAPS:
            write_sparse_nrrd(folder / name, where, values[name], mask)
        _draw(airways, airways.in_box(branch_of_voxel), beside.ct is not None, folder)
    progress("measure", done + 2, steps)
    most = None if voxels else MOST_OF_A_KIND  # the panel's review is a list to work through
    write_text(folder / SUSPECTS, suspects_to_json(suspects_of(airways, branches, seen, likely, beside, most)))
    write_centerline(folder / CENTERLINE, tree, likely)
    write_table(folder / TABLE, tree, likely)
    write_summary(folder / SUMMARY, tree)
    write_text(folder / TREE, tree.to_json())
    progress("measure", steps, steps)
    return airways


def _draw(airways: ParsedAirways, branch_map: NDArray[np.uint16], walls: bool, folder: Path) -> None:
    """The pictures of a tree; that of the walls only where these were measured."""
    from AirwaySegLib.pictures.tree_pictures import draw_generations, draw_radius_plot
    from AirwaySegLib.pictures.wall_plot import draw_wall_plot

    title = case_name(airways.grid.path) if airways.grid.path else "Airways"
    draw_generations(airways.tree, branch_map, airways.grid.spacing_mm, title).save(folder / TREE_PICTURE)
    draw_radius_plot(airways.tree, title).save(folder / RADIUS_PLOT)
    if walls:
        draw_wall_plot(airways.tree, title).save(folder / WALL_PLOT)


def write_voxels(path: Path, voxels: NDArray[np.int32], values: dict[str, NDArray], mask: Volume) -> None:
    """Write the values at the mask's voxels (N, 3) only, as a file of numpy arrays (.npz).

    Only about 1 % of a chest's voxels are airway: a whole map takes a second to write, and another to read. The grid is
    the voxels' bounding box: ``shape`` (Z, Y, X) and ``ijk_to_ras`` (4, 4). ``where`` (N,) holds the voxels' indices in
    the flattened box, ascending. The values, in this order, have the names of the maps; with a probability
    `PROBABILITY` is one more.
    """
    low = voxels.min(axis=0)
    z, y, x = (slice(int(first), int(last) + 1) for first, last in zip(low, voxels.max(axis=0), strict=True))
    box = part_of(mask, (z, y, x), mask.array[z, y, x])
    where = np.ravel_multi_index(tuple((voxels - low).T), box.array.shape)
    order = np.argsort(where)
    grid = {"where": where[order], "shape": box.array.shape, "ijk_to_ras": ijk_to_ras(box)}
    arrays: dict[str, Any] = grid | {name: column[order] for name, column in values.items()}
    np.savez(path, **arrays)


def suspects_of(
    airways: ParsedAirways,
    branch_of_voxel: NDArray[np.uint16],
    probability: NDArray[np.uint8] | None,
    of_branches: dict[int, float] | None,
    beside: Beside = NOTHING_BESIDE,
    most: int | None = MOST_OF_A_KIND,
) -> list[Suspect]:
    """The suspects of a parsed mask, and of what is beside it; of each kind at most ``most`` (`find_suspects`).

    ``branch_of_voxel`` and ``probability`` (0..255, or None) are those of the mask's voxels, (N,) in one order,
    ``of_branches`` is the mean by branch.
    """
    tree = airways.tree
    certain: dict[int, Piece] = {}
    if probability is not None:
        certain = certain_fragments(tree, branch_of_voxel, probability)
    if beside.pieces is not None:
        tree, of_pieces = with_pieces(tree, beside.pieces)
        certain |= of_pieces
    return find_suspects(tree, of_branches, certain, beside.volumes, most)


def certain_fragments(
    tree: AirwayTree, branch_of_voxel: NDArray[np.uint16], probability: NDArray[np.uint8]
) -> dict[int, Piece]:
    """The loose components of a mask that are airway for certain, by their numbers; both arrays are of its voxels."""
    loose = np.zeros(len(tree.branches) + 1, np.uint16)
    for branch in tree.loose():
        loose[branch.id] = branch.component
    labels = loose[branch_of_voxel]
    values = certainty(labels, probability)
    return {int(number): Piece(float(values[number])) for number in np.unique(certain_pieces(labels, probability))[1:]}
