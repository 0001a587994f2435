"""Lobes, segments and generations that a person gave to branches, instead of the estimate.

They belong to points (LPS, mm, in the result's own space), not to numbers of branches, so that measuring keeps them.
They are a tag of the airways' segment: undo and redo restore them, and they are saved with the voxels. Centerline and
table show them at once; the centerline also keeps what was estimated.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import slicer
import vtk
from slicer.i18n import tr as _

from AirwaySegSlicer.scene.nodes import CENTERLINE, ROLE, TABLE, companion
from AirwaySegSlicer.scene.steps import Steps
from AirwaySegSlicer.scene.tags import NAMES, read_tag, write_tag

if TYPE_CHECKING:
    from AirwaySegLib.tree.airway_tree import AirwayTree
    from AirwaySegLib.tree.hand_names import HandName

NAMES_FILE = "names.json"
SHOWN = ROLE + "names"
"""Attribute of a centerline: a checksum of the names that it shows."""
LOST = ROLE + "lostNames"
"""Attribute of a centerline: the names that no branch has, in words."""
ESTIMATED = ("estimated_lobe", "estimated_segment", "estimated_lobe_confidence", "estimated_segment_confidence")
COUNTED = "counted_generation"
CHANGED = ("lobe", "segment", "lobe_name", "segment_name", "by_hand", "name", "generation")
"""Arrays of the centerline's cells that hold lobe, segment, what is by hand, the bronchus and the generation."""
GENERATION = "generation"
"""Within ``by_hand``."""


def hand_names(airways: slicer.vtkMRMLSegmentationNode) -> list[HandName]:
    """All names that were given, in their order."""
    from AirwaySegLib.tree.hand_names import from_plain

    return [from_plain(plain) for plain in json.loads(read_tag(airways, NAMES) or "[]")]


def names_document(airways: slicer.vtkMRMLSegmentationNode, moved: vtk.vtkAbstractTransform | None = None) -> str:
    """The text of a file for `airwayseg measure --names`, points moved by a transform (RAS); empty without names."""
    from AirwaySegLib.tree.hand_names import names_to_json

    names = hand_names(airways)
    return names_to_json([_moved(name, moved) if moved is not None else name for name in names]) if names else ""


def name_branch(
    airways: slicer.vtkMRMLSegmentationNode, number: int, given: tuple[str, str], with_subtree: bool, steps: Steps
) -> None:
    """Give a branch a lobe and a segment as one step, instead of those that it had by hand; its generation stays.

    ``given`` (lobe, segment) are in the library's words; one may be empty, and "none" takes the estimate away. Raises
    RuntimeError where there is no such branch, or the segment is of another lobe.
    """
    lobe, segment = given
    _give(airways, number, {"lobe": lobe, "segment": segment, "with_subtree": with_subtree}, steps)


def give_generation(airways: slicer.vtkMRMLSegmentationNode, number: int, generation: int, steps: Steps) -> None:
    """Give a branch a generation as one step; those of all branches beyond count on from it.

    Raises RuntimeError where there is no such branch or generation.
    """
    _give(airways, number, {"generation": generation}, steps)


def _give(airways: slicer.vtkMRMLSegmentationNode, number: int, given: dict[str, Any], steps: Steps) -> None:
    """Note what is given of a branch, as one step; what else it has by hand stays."""
    from AirwaySegLib.errors import AirwaySegError
    from AirwaySegLib.tree.hand_names import HandName, branches_of, points_on

    tree, names = _checked_tree(airways, number), hand_names(airways)
    where = branches_of(tree, names)
    before: dict[str, Any] = {}
    for name, ids in zip(names, where, strict=True):
        if ids == {number}:
            before = {key: getattr(name, key) for key in ("lobe", "segment", "with_subtree", "generation")}
    try:
        points = points_on(tree.branch(number))
        step = HandName(points, **given).words
        name = HandName(points, **(before | given))
    except AirwaySegError as error:
        raise RuntimeError(str(error)) from None
    kept = [one for one, ids in zip(names, where, strict=True) if ids != {number}]
    steps.begin(airways, _("name branch {number}: {name}").format(number=number, name=step))
    _write(airways, [*kept, name])


def estimate_again(airways: slicer.vtkMRMLSegmentationNode, number: int, steps: Steps) -> None:
    """Forget what was given to a branch, as one step; lobe, segment and generation are estimates again.

    Raises RuntimeError where the branch has nothing by hand, or has it from a branch above, which the sentence names.
    """
    from AirwaySegLib.tree.hand_names import branches_of

    tree, names = _checked_tree(airways, number), hand_names(airways)
    where = branches_of(tree, names)
    if not any(number in ids for ids in where):
        if not tree.branch(number).given:
            raise RuntimeError(_("Branch {number} was not named by hand.").format(number=number))
        of_names = bool(tree.branch(number).by_hand)  # else only its generation counts on from one above
        giving = [
            ids
            for name, ids in zip(names, where, strict=True)
            if (name.names if of_names else name.generation is not None)
        ]
        above = next(one.id for one in tree.path_to(number)[-2::-1] if any(one.id in ids for ids in giving))
        sentence = _("Branch {number} has its name from branch {above}; choose that one.")
        raise RuntimeError(sentence.format(number=number, above=above))
    steps.begin(airways, _("estimate branch {number} again").format(number=number))
    _write(airways, [name for name, ids in zip(names, where, strict=True) if number not in ids])


def lost_names(airways: slicer.vtkMRMLSegmentationNode) -> str:
    """The names whose branch the last measurement did not find, in words with commas; empty where there are none."""
    centerline = companion(airways, CENTERLINE)
    return (centerline.GetAttribute(LOST) or "") if centerline is not None else ""


def lost_sentence(airways: slicer.vtkMRMLSegmentationNode) -> str:
    """The sentence about `lost_names`; empty where there are none."""
    lost = lost_names(airways)
    return _("No branch is near these names by hand: {names}.").format(names=lost) if lost else ""


def forget_lost_names(airways: slicer.vtkMRMLSegmentationNode, steps: Steps) -> None:
    """Forget the names whose branch is not in the tree, as one step; RuntimeError where there are none."""
    from AirwaySegLib.tree.hand_names import branches_of

    centerline = companion(airways, CENTERLINE)
    tree, names = _tree_of(centerline) if centerline is not None else None, hand_names(airways)
    kept = [name for name, ids in zip(names, branches_of(tree, names), strict=True) if ids] if tree else names
    if len(kept) == len(names):
        raise RuntimeError(_("Every name by hand of {name} has its branch.").format(name=airways.GetName()))
    steps.begin(airways, _("forget lost names"))
    _write(airways, kept)


def move_names(airways: slicer.vtkMRMLSegmentationNode, matrix: vtk.vtkMatrix4x4) -> None:
    """The result was moved for good by this matrix (RAS), and the points of its names were not."""
    names, transform = hand_names(airways), vtk.vtkTransform()
    transform.SetMatrix(matrix)
    if names:
        _write(airways, [_moved(name, transform) for name in names])


def show_names(airways: slicer.vtkMRMLSegmentationNode) -> None:
    """Write names and generations, by hand or estimated, into centerline and table where these show others."""
    from AirwaySegLib.tree.hand_names import branches_of, with_hand_names

    centerline, now = companion(airways, CENTERLINE), _checksum(read_tag(airways, NAMES))
    tree = _tree_of(centerline) if centerline is not None and shown_names(airways) != now else None
    if centerline is None or tree is None:
        return
    names = hand_names(airways)
    lost = [name.words for name, ids in zip(names, branches_of(tree, names), strict=True) if not ids]
    tree = with_hand_names(tree, names)
    _write_cells(centerline, tree)
    table = companion(airways, TABLE)
    if table is not None:
        _write_rows(table, tree)
    centerline.SetAttribute(SHOWN, now)
    centerline.SetAttribute(LOST, ", ".join(lost))


def shown_names(airways: slicer.vtkMRMLSegmentationNode) -> str:
    """A checksum of the names that the centerline shows; empty where they were not looked at yet."""
    centerline = companion(airways, CENTERLINE)
    return (centerline.GetAttribute(SHOWN) or "") if centerline is not None else ""


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write(airways: slicer.vtkMRMLSegmentationNode, names: list[HandName]) -> None:
    from AirwaySegLib.tree.hand_names import to_plain

    write_tag(airways, NAMES, json.dumps([to_plain(name) for name in names]) if names else "")
    show_names(airways)


def _moved(name: HandName, transform: vtk.vtkAbstractTransform) -> HandName:
    """A name whose points (LPS) were moved by a transform (RAS)."""
    points = []
    for x, y, z in name.points_mm:
        right, front, up = transform.TransformPoint(-x, -y, z)
        points.append((round(-right, 2), round(-front, 2), round(up, 2)))
    return replace(name, points_mm=tuple(points))


# The tree, from the centerline ---------------------------------------------------------------------------------------


def _checked_tree(airways: slicer.vtkMRMLSegmentationNode, number: int) -> AirwayTree:
    centerline = companion(airways, CENTERLINE)
    tree = _tree_of(centerline) if centerline is not None else None
    if centerline is None:
        raise RuntimeError(_("Measure {name} first.").format(name=airways.GetName()))
    if tree is None:
        sentence = _("{name} was measured by an older version: measure it again.")
        raise RuntimeError(sentence.format(name=airways.GetName()))
    if not 1 <= number <= len(tree.branches):
        raise RuntimeError(_("There is no branch {number}.").format(number=number))
    return tree


def _tree_of(centerline: slicer.vtkMRMLModelNode) -> AirwayTree | None:
    """The tree, in LPS, with points, radii and names only; None for a centerline that does not hold the estimate."""
    from vtk.util.numpy_support import vtk_to_numpy

    from AirwaySegLib.tree.airway_tree import LOBES, AirwayTree, Branch, Estimate
    from AirwaySegLib.tree.segments import SEGMENTS

    polydata = centerline.GetPolyData()
    cells = polydata.GetCellData()
    if any(cells.GetAbstractArray(name) is None for name in (*ESTIMATED, "estimated_name", COUNTED, *CHANGED)):
        return None
    points = vtk_to_numpy(polydata.GetPoints().GetData()).astype(float) * [-1, -1, 1]
    radii = vtk_to_numpy(polydata.GetPointData().GetArray("radius_mm")).astype(float)
    lobes, segments = ("", *LOBES), ("", *SEGMENTS)
    rows: dict[int, dict[str, Any]] = {}
    children: dict[int, list[int]] = {}
    at = vtk.vtkIdList()
    for cell in range(polydata.GetNumberOfCells()):
        polydata.GetCellPoints(cell, at)
        indices = [at.GetId(place) for place in range(at.GetNumberOfIds())]
        number, parent, component, generation, counted, lobe, segment, lobe_sure, segment_sure = (
            cells.GetArray(name).GetValue(cell)
            for name in ("branch_id", "parent_id", "component", GENERATION, COUNTED, *ESTIMATED)
        )
        given = str(cells.GetAbstractArray("by_hand").GetValue(cell)).split(" and ")
        children.setdefault(int(parent), []).append(int(number))
        rows[int(number)] = {
            "parent": int(parent) or None,
            "component": int(component),
            "points_mm": points[indices],
            "radii_mm": radii[indices],
            "generation": int(generation),
            "counted_generation": int(counted) if GENERATION in given else None,
            "by_hand": " and ".join(word for word in given if word != GENERATION),
            "estimate": Estimate(
                lobes[int(lobe)],
                round(lobe_sure, 3),
                segments[int(segment)],
                round(segment_sure, 3),
                str(cells.GetAbstractArray("estimated_name").GetValue(cell)),
            ),
        }
    branches = [
        Branch(id=number, children=tuple(sorted(children.get(number, []))), volume_mm3=0.0, **rows[number])
        for number in sorted(rows)
    ]
    return AirwayTree(tuple(branches), (1.0, 1.0, 1.0))


def _write_cells(centerline: slicer.vtkMRMLModelNode, tree: AirwayTree) -> None:
    from AirwaySegLib.tree.airway_tree import LOBES
    from AirwaySegLib.tree.segments import SEGMENTS, full_name

    polydata = centerline.GetPolyData()
    cells = polydata.GetCellData()
    lobes, segments = ("", *LOBES), ("", *SEGMENTS)
    for cell in range(polydata.GetNumberOfCells()):
        branch = tree.branch(int(cells.GetArray("branch_id").GetValue(cell)))
        values = (
            lobes.index(branch.lobe),
            segments.index(branch.segment),
            branch.lobe,
            full_name(branch.segment),
            branch.given,
            branch.name,
            branch.generation,
        )
        for name, value in zip(CHANGED, values, strict=True):
            cells.GetAbstractArray(name).SetValue(cell, value)
    for name in CHANGED:
        cells.GetAbstractArray(name).Modified()
    _write_points(polydata)
    polydata.Modified()


def _write_points(polydata: vtk.vtkPolyData) -> None:
    """The generation of each point is that of its branch."""
    from vtk.util.numpy_support import vtk_to_numpy

    generations, at = polydata.GetPointData().GetArray(GENERATION), vtk.vtkIdList()
    if generations is None:
        return
    values, of_cell = vtk_to_numpy(generations), polydata.GetCellData().GetArray(GENERATION)
    for cell in range(polydata.GetNumberOfCells()):
        polydata.GetCellPoints(cell, at)
        values[[at.GetId(place) for place in range(at.GetNumberOfIds())]] = of_cell.GetValue(cell)
    generations.Modified()


def _write_rows(node: slicer.vtkMRMLTableNode, tree: AirwayTree) -> None:
    table = node.GetTable()
    ids = table.GetColumnByName("id")
    shown = {name: name for name in ("lobe", "lobe_confidence", "segment", "segment_confidence", "name", GENERATION)}
    for name, attribute in (shown | {"by_hand": "given"}).items():
        column = table.GetColumnByName(name)
        for row in range(table.GetNumberOfRows() if column is not None else 0):
            column.SetValue(row, getattr(tree.branch(int(ids.GetValue(row))), attribute))
    table.Modified()
    node.Modified()
