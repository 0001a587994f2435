"""An airway tree as files for other programs: tables (.csv), summary text, curves (.mrk.json).

All points are in mm in LPS. Every file is built in memory and appears under its name only when it is complete; same
tree, same bytes.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.files.atomic_output import write_text
from AirwaySegLib.tree.airway_tree import LOBES, TRACHEA, AirwayTree, Branch, measures_of
from AirwaySegLib.tree.colours import generation_colours
from AirwaySegLib.tree.segments import SEGMENTS
from AirwaySegLib.tree.shape import length_weights, mean_diameter_mm
from AirwaySegLib.tree.wall import WALL_MEASURES, Pi10, wall_measures

Floats = NDArray[np.float64]

_ENDS = ("start_l_mm", "start_p_mm", "start_s_mm", "end_l_mm", "end_p_mm", "end_s_mm")
TABLE_COLUMNS = (
    *("id", "parent", "component", "name", "generation", "strahler", "lobe", "lobe_confidence"),
    *("segment", "segment_confidence"),
    *("length_mm", "mean_diameter_mm", "min_diameter_mm", "max_diameter_mm", "tapering_mm_per_mm"),
    *("angle_deg", "tortuosity", "volume_mm3", "points", "mean_probability"),
    *WALL_MEASURES,
    *_ENDS,
    "by_hand",
)
"""The columns of `write_table`; l, p, s are the coordinates to the left, to the back (posterior), to the head."""

CURVE_TOLERANCE_MM = 0.5
"""How far a curve of `write_markups` may be from the centerline, and its radius from the measured one."""

# The identifier that Slicer itself writes; it reads every version 1.
_MARKUPS_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/"
    "Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#"
)


def _write_rows(path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Comma-separated with a header and decimal points; None and NaN are empty fields."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if value is None or value != value else value for name, value in row.items()})
    write_text(path, text.getvalue())


def write_table(path: Path, tree: AirwayTree, probability: dict[int, float] | None = None) -> None:
    """Write one row for each branch, comma-separated, with the columns `TABLE_COLUMNS`.

    A root has an empty ``parent`` and ``angle_deg``, and without a CT the columns `WALL_MEASURES` are empty. Lengths
    and volumes have 3 decimals. ``probability`` is the mean probability (0..1) of a branch's voxels by its id; what it
    lacks is an empty field.

    Raises
    ------
    AirwaySegError
        If the file cannot be written.
    """
    _write_rows(
        path, TABLE_COLUMNS, [_table_row(branch, (probability or {}).get(branch.id)) for branch in tree.branches]
    )


def _table_row(branch: Branch, probability: float | None) -> dict[str, Any]:
    measures = measures_of(branch)
    ends_mm = np.round(branch.points_mm[[0, -1]], 3).ravel().tolist()
    return {
        **dict(zip(_ENDS, ends_mm, strict=True)),
        "by_hand": branch.given,
        "id": branch.id,
        "parent": branch.parent,
        "component": branch.component,
        "name": branch.name,
        "generation": branch.generation,
        "strahler": branch.strahler,
        "lobe": branch.lobe,
        "lobe_confidence": round(branch.lobe_confidence, 3),
        "segment": branch.segment,
        "segment_confidence": round(branch.segment_confidence, 3),
        "tapering_mm_per_mm": measures.pop("tapering"),
        "points": len(branch.points_mm),
        "mean_probability": None if probability is None else round(probability, 3),
        **measures,
        **wall_measures(branch.wall),
    }


@dataclass(frozen=True)
class SummaryRow:
    """What a group of branches adds up to.

    ``group`` is "generation", "lobe", "segment" or "total" and ``value`` which one: a generation's number, one of
    `LOBES` or `SEGMENTS` or "none", "tree" or "fragments". The mean length is that of the group's branches. The mean
    diameter and its standard deviation between branches weigh each branch by its length (with equal lengths: that of
    the sample, n - 1), so that short stretches between branching points count little. NaN where there are too few. The
    figures of the wall are means over those of the group's branches, ``walls`` of them, that have one; ``pi10_mm`` is
    the tree's.
    """

    group: str
    value: str
    branches: int
    length_mm: float
    mean_length_mm: float
    mean_diameter_mm: float
    sd_diameter_mm: float
    volume_mm3: float
    walls: int = 0
    mean_wall_thickness_mm: float = math.nan
    mean_wall_area_fraction: float = math.nan
    mean_airway_artery_ratio: float = math.nan
    pi10_mm: float = math.nan


def summarise(tree: AirwayTree) -> list[SummaryRow]:
    """Sum the branches up by generation, by lobe, by segment and in total.

    All but the total are of the main tree: a fragment's generations start anywhere. Every lobe and segment has a row,
    also without branches; "none" are branches without a lobe, such as the trachea. Of generations, those that occur.
    The total has a row for the tree and, if there are any, one for all fragments together.
    """
    main = tree.main()
    rows = [
        _summary_row("generation", str(generation), [branch for branch in main if branch.generation == generation])
        for generation in sorted({branch.generation for branch in main})
    ]
    for lobe in (*LOBES, ""):
        rows.append(_summary_row("lobe", lobe or "none", [branch for branch in main if branch.lobe == lobe]))
    for segment in (*SEGMENTS, ""):
        rows.append(_summary_row("segment", segment or "none", [b for b in main if b.segment == segment]))
    total = _summary_row("total", "tree", main)
    pi10 = tree.wall_scan.pi10 if tree.wall_scan else None
    rows.append(replace(total, pi10_mm=pi10.value_mm) if pi10 else total)
    fragments = tree.loose()
    return [*rows, _summary_row("total", "fragments", fragments)] if fragments else rows


def _summary_row(group: str, value: str, branches: list[Branch]) -> SummaryRow:
    lengths = np.array([branch.length_mm for branch in branches])
    return SummaryRow(
        group=group,
        value=value,
        branches=len(branches),
        length_mm=float(lengths.sum()),
        mean_length_mm=float(lengths.mean()) if branches else math.nan,
        mean_diameter_mm=mean_diameter_mm(branches),
        sd_diameter_mm=_sd_diameter_mm(branches),
        volume_mm3=float(sum(branch.volume_mm3 for branch in branches)),
        walls=sum(branch.wall is not None and branch.wall.thickness_mm is not None for branch in branches),
        mean_wall_thickness_mm=_mean_of(branches, "thickness_mm"),
        mean_wall_area_fraction=_mean_of(branches, "wall_area_fraction"),
        mean_airway_artery_ratio=_mean_of(branches, "airway_artery_ratio"),
    )


def _mean_of(branches: list[Branch], figure: str) -> float:
    """Mean of a figure of `Wall` over the branches that have it; NaN where none has."""
    values = [getattr(branch.wall, figure) for branch in branches if branch.wall is not None]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else math.nan


def _sd_diameter_mm(branches: list[Branch]) -> float:
    if len(branches) < 2:
        return math.nan
    diameters = [branch.mean_diameter_mm for branch in branches]
    return math.sqrt(max(0.0, float(np.cov(diameters, aweights=length_weights(branches)))))


def write_summary(path: Path, tree: AirwayTree) -> None:
    """Write the rows of `summarise`, comma-separated; a mean or deviation that does not exist is an empty field.

    Raises
    ------
    AirwaySegError
        If the file cannot be written.
    """
    rows = [
        {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(row).items()}
        for row in summarise(tree)
    ]
    _write_rows(path, [column.name for column in fields(SummaryRow)], rows)


def summary_text(tree: AirwayTree) -> str:
    """Some ten lines for a terminal: what there is, what was cut off, the trachea, a table of generations, warnings.

    Diameters are means weighted by length.
    """
    warnings = [f"Warning: {' '.join(text.split())}" for text in tree.warnings]
    if not tree.branches:
        return "\n".join(["No airways: the tree has no branches.", *warnings])
    rows = summarise(tree)
    total = next(row for row in rows if row.group == "total")
    generations = [row for row in rows if row.group == "generation"]
    lines = [
        f"{_what(tree)}: {total.branches} branches, {total.length_mm:.0f} mm, "
        f"{total.volume_mm3 / 1000:.1f} ml, down to generation {generations[-1].value if generations else '-'}",
        _trachea_line(tree),
        *_wall_lines(tree, total),
        f"{_fragments_part(tree)}Loops cut: {tree.loops_cut}; spurs pruned: {tree.spurs_pruned}",
        "Generation  Branches  Length (mm)  Mean diameter (mm, weighted by length)",
    ]
    for row in generations:
        lines.append(f"{row.value:>10}{row.branches:>10}{row.length_mm:>13.1f}{row.mean_diameter_mm:>20.1f}")
    return "\n".join([*lines, *warnings])


def _what(tree: AirwayTree) -> str:
    return "Airway tree" if len(tree.trees) == 1 else f"{len(tree.trees)} airway trees"


def _fragments_part(tree: AirwayTree) -> str:
    """What there is of loose fragments; empty without any: a segmentation writes those that it found elsewhere."""
    fragments = tree.loose()
    if not fragments:
        return ""
    length_mm = sum(branch.length_mm for branch in fragments)
    count = len({branch.component for branch in fragments})
    return f"Loose fragments: {count} ({len(fragments)} branches, {length_mm:.0f} mm). "


def _trachea_line(tree: AirwayTree) -> str:
    trachea = tree.named(TRACHEA)
    if not trachea:
        return "Trachea: none found"
    length_mm = sum(branch.length_mm for branch in trachea)
    return f"Trachea: mean diameter {mean_diameter_mm(trachea):.1f} mm, {length_mm:.0f} mm long"


def _wall_lines(tree: AirwayTree, total: SummaryRow) -> list[str]:
    """What was measured of the walls and arteries, and the warning about thick slices; nothing without a CT."""
    if tree.wall_scan is None:
        return []
    ratios = sum(branch.wall is not None and branch.wall.airway_artery_ratio is not None for branch in tree.main())
    artery = (
        f"; mean airway-to-artery ratio {total.mean_airway_artery_ratio:.2f} (arteries found: {ratios})"
        if ratios
        else ""
    )
    lines = [f"Walls of {total.walls} branches{artery}; {_pi10_text(tree.wall_scan.pi10)}"]
    return [*lines, f"Warning: {tree.wall_scan.warning}"] if tree.wall_scan.warning else lines


def _pi10_text(pi10: Pi10 | None) -> str:
    if pi10 is None:
        return "Pi10: too few branches, or too similar ones"
    span = f"inner perimeters {pi10.least_perimeter_mm:.1f} to {pi10.most_perimeter_mm:.1f} mm"
    return f"Pi10 {pi10.value_mm:.2f} mm ({pi10.branches} branches, {span})"


def write_markups(path: Path, tree: AirwayTree) -> None:
    """Write all branches as open curves for 3D Slicer's Markups in one file (.mrk.json), one curve for each branch.

    So that a tree of hundreds of branches stays usable, a curve has only as many control points, evenly spaced, as
    keep it within `CURVE_TOLERANCE_MM`; curves are locked, show no labels, and are coloured by generation. The
    measurement ``Radius`` has a value for each control point. A tree without branches gives a file without curves,
    which Slicer refuses to load.

    Raises
    ------
    AirwaySegError
        If the file cannot be written.
    """
    colours = generation_colours(1 + max((branch.generation for branch in tree.branches), default=0))
    document = {"@schema": _MARKUPS_SCHEMA, "markups": [_curve(branch, colours) for branch in tree.branches]}
    write_text(path, json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")


def _curve(branch: Branch, colours: NDArray[np.uint8]) -> dict[str, Any]:
    name = f"Branch {branch.id}" + (f" ({branch.name})" if branch.name else "")
    control = np.round(thinned(branch), 3).tolist()
    colour = [round(int(part) / 255, 3) for part in colours[branch.generation]]
    return {
        "type": "Curve",
        "name": name,
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": True,
        "lastUsedControlPointNumber": len(control),
        "controlPoints": [
            {"label": f"{branch.id}-{number}", "position": point[:3]} for number, point in enumerate(control, start=1)
        ],
        "measurements": [
            {"name": "Radius", "units": "mm", "printFormat": "", "controlPointValues": [point[3] for point in control]}
        ],
        "display": {
            "color": colour,
            "selectedColor": colour,
            "propertiesLabelVisibility": False,
            "pointLabelsVisibility": False,
            "glyphScale": 0.5,
        },
    }


def thinned(branch: Branch, tolerance_mm: float = CURVE_TOLERANCE_MM) -> Floats:
    """The fewest evenly spaced points of a branch that tell its course and radius, (N, 4): x, y, z, radius in mm.

    Both ends are kept. Straight lines between the points are nowhere farther than ``tolerance_mm`` from the branch's
    own points and radii at the same distance from its start. Even spacing keeps Slicer's spline from swinging out.
    """
    along = branch.along_mm
    values = np.column_stack([branch.points_mm, branch.radii_mm])
    if along[-1] == 0:
        return values[:1]
    for count in range(2, len(along) + 1):
        at_mm = np.linspace(0, along[-1], count)
        points = _interpolated(at_mm, along, values)
        off = np.abs(_interpolated(along, at_mm, points) - values)
        if max(np.linalg.norm(off[:, :3], axis=1).max(), off[:, 3].max()) <= tolerance_mm:
            return points
    return values


def _interpolated(at_mm: Floats, along: Floats, values: Floats) -> Floats:
    return np.column_stack([np.interp(at_mm, along, column) for column in values.T])
