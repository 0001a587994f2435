"""Lobes and segments that a person gave to branches, instead of the estimate.

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
CHANGED = ("lobe", "segment", "lobe_name", "segment_name", "by_hand", "name")
"""Arrays of the centerline's cells that hold lobe, segment, who named them, and the bronchus."""


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
    """Give a branch a lobe and a segment as one step; an earlier name of this branch is forgotten.

    ``given`` (lobe, segment) are in the library's words; one may be empty, and "none" takes the estimate away. Raises
    RuntimeError where there is no such branch, or the segment is of another lobe.
    """
    from AirwaySegLib.errors import AirwaySegError
    from AirwaySegLib.tree.hand_names import HandName, branches_of, points_on

    tree = _checked_tree(airways, number)
    try:
        name = HandName(points_on(tree.branch(number)), *given, with_subtree)
    except AirwaySegError as error:
        raise RuntimeError(str(error)) from None
    names = hand_names(airways)
    kept = [one for one, ids in zip(names, branches_of(tree, names), strict=True) if ids != {number}]
    steps.begin(airways, _("name branch {number}: {name}").format(number=number, name=name.words))
    _write(airways, [*kept, name])


def estimate_again(airways: slicer.vtkMRMLSegmentationNode, number: int, steps: Steps) -> None:
    """Forget the name that was given to a branch, as one step; lobe and segment are estimates again.

    Raises RuntimeError where the branch has no name by hand, or has it from a branch above, which the sentence names.
    """
    from AirwaySegLib.tree.hand_names import branches_of

    tree, names = _checked_tree(airways, number), hand_names(airways)
    where = branches_of(tree, names)
    if not any(number in ids for ids in where):
        if not tree.branch(number).by_hand:
            raise RuntimeError(_("Branch {number} was not named by hand.").format(number=number))
        above = next(one.id for one in tree.path_to(number)[-2::-1] if any(one.id in ids for ids in where))
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
    """Write lobes and segments, by hand or estimated, into centerline and table where these show others."""
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
    if any(cells.GetAbstractArray(name) is None for name in (*ESTIMATED, "estimated_name", *CHANGED)):
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
        number, parent, component, lobe, segment, lobe_sure, segment_sure = (
            cells.GetArray(name).GetValue(cell) for name in ("branch_id", "parent_id", "component", *ESTIMATED)
        )
        children.setdefault(int(parent), []).append(int(number))
        rows[int(number)] = {
            "parent": int(parent) or None,
            "component": int(component),
            "points_mm": points[indices],
            "radii_mm": radii[indices],
            "by_hand": str(cells.GetAbstractArray("by_hand").GetValue(cell)),
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
            branch.by_hand,
            branch.name,
        )
        for name, value in zip(CHANGED, values, strict=True):
            cells.GetAbstractArray(name).SetValue(cell, value)
    for name in CHANGED:
        cells.GetAbstractArray(name).Modified()
    polydata.Modified()


def _write_rows(node: slicer.vtkMRMLTableNode, tree: AirwayTree) -> None:
    table = node.GetTable()
    ids = table.GetColumnByName("id")
    for name in ("lobe", "lobe_confidence", "segment", "segment_confidence", "by_hand", "name"):
        column = table.GetColumnByName(name)
        for row in range(table.GetNumberOfRows() if column is not None else 0):
            column.SetValue(row, getattr(tree.branch(int(ids.GetValue(row))), name))
    table.Modified()
    node.Modified()
