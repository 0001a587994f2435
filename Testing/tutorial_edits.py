"""The tutorial's steps with clicks in the views, and what follows them: cut, add, join, names, origins, comparison."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import slicerhost

SHORT_MM, LONG_MM = 12.0, 40.0
"""Lengths of the branches that are cut and joined: long enough to be seen."""
APART_MM = 6.0
"""Another parent of a branch is at least so far from its joint, so that the bridge is seen."""
Point = tuple[float, float, float]


class EditSteps:
    """Steps of the tutorial that edit the airways; `slicer_screenshot.Session` is one."""

    host: slicerhost.Host
    widget: Any
    ui: Any
    logic: Any
    slices: dict[str, Any]

    def cut(self, target: Path) -> None:
        """A branch is clicked, with its subtree shown in red; then it is deleted."""
        self.turn_to("review", "addCut")
        self.number, _start, self.tip = next(self._twigs())
        self.start("Delete a branch and its subtree")
        self.click_at(self._middle(self.number))
        self.look_at(self._middle(self.number))
        self.picture(target)
        slicerhost.click(self.ui.applyEditButton)
        self.host.pump(0.2)

    def undone(self, target: Path) -> None:
        """The cut is taken back, looked at, and done again."""
        slicerhost.click(self.ui.undoButton)
        self.host.pump(0.2)
        self.picture(target.with_name(f"{target.stem}-undone.png"))
        slicerhost.click(self.ui.redoButton)
        self.host.pump(0.2)

    def add(self, target: Path) -> None:
        """The branch is missed, and grown from a click at its tip; then it is added."""
        self.turn_to("review", "addCut")
        self.start("Add a missed airway")
        self.click_at(self.tip)
        self.picture(target)
        slicerhost.click(self.ui.applyEditButton)
        self.host.pump(0.2)

    def join(self, target: Path) -> None:
        """Another parent is clicked for a branch; the new bridge is green, the joint that is cut is red."""
        self.turn_to("review", "addCut")
        self.start("Join to another parent")
        joint, parent = self._other_parent()
        self.click_at(joint)
        self.click_at(parent)
        self.look_at(joint)
        self.picture(target)
        slicerhost.click(self.ui.discardEditButton)
        slicerhost.click(self.ui.toolButton)
        self.host.pump(lambda: self.ui.updateButton.isVisible())
        slicerhost.click(self.ui.updateButton)
        self.wait("airways")

    def names(self, target: Path) -> None:
        """A branch of the lower lobe and its subtree get a segment by hand."""
        self.turn_to("measure")
        rows = [row for row in self._rows() if row.lobe.endswith("right lower lobe") and row.length_mm > SHORT_MM / 2]
        row = rows[0] if rows else self._rows()[3]
        slicerhost.choose(self.ui.columnsComboBox, "names")
        self.section("Result").table.choose_listing_all(row.id)
        slicerhost.choose(self.ui.nameComboBox, "segment RB6")
        slicerhost.click(self.ui.nameButton)
        self.host.pump(0.2)
        self.picture_of_panel(target)
        slicerhost.click(self.ui.estimateButton)
        slicerhost.choose(self.ui.columnsComboBox, "lumen")

    def origin(self, target: Path) -> None:
        """The surface by the origin of its voxels, the branch that was added in the middle."""
        self.turn_to("measure")
        slicerhost.choose(self.ui.overlayComboBox, "origin")
        self.look_at(self.tip)
        closer(0.4)
        self.picture(target)
        closer(2.5)

    def compare(self, target: Path) -> None:
        """The airways against a second reader's, who has one subtree less and the unconnected pieces more."""
        self.turn_to("measure", "compare")
        lobar = next(row.id for row in self._rows() if row.generation == 4)
        slicerhost.choose(self.ui.otherSelector, self._second_reader(lobar))
        slicerhost.click(self.ui.compareButton)
        self.wait("airways")
        self.look_at(self._middle(lobar))
        self.picture(target)
        slicerhost.click(self.ui.removeComparisonButton)

    def section(self, name: str) -> Any:
        """The section of the panel whose class has this name, without `Section`."""
        return next(one for one in self.widget.panel.sections if type(one).__name__ == f"{name}Section")

    # What a person does ----------------------------------------------------------------------------------------------

    def start(self, tool: str) -> None:
        """Wait for clicks with a tool."""
        slicerhost.choose(self.ui.toolComboBox, tool)
        if not self.ui.toolButton.checked:
            slicerhost.click(self.ui.toolButton)

    def click_at(self, point: Point) -> None:
        """Press in a view, as the placed markup tells it, and wait until it is taken."""
        section = self.section("AddCut")
        pick = section._picking
        pick.node.AddControlPointWorld(list(point))
        self.host.pump(lambda: section._picking is not pick)

    def look_at(self, point: Point) -> None:
        """The views centred on a point, the slices larger."""
        from AirwaySegSlicer.scene.branches import centre_views

        for view in self.slices.values():
            view.fit(4)
        centre_views(point)
        self.host.pump(0.2)

    # Where they are done ---------------------------------------------------------------------------------------------

    def _rows(self) -> list[Any]:
        from AirwaySegSlicer.scene.branches import branch_rows

        return branch_rows(self._centerline())

    def _centerline(self) -> slicer.vtkMRMLModelNode:
        from AirwaySegSlicer.scene import nodes

        return nodes.companion(self.widget.panel.airways(), nodes.CENTERLINE)

    def _points(self, number: int) -> np.ndarray:
        """Points (P, 3) of a branch, RAS, world."""
        from AirwaySegSlicer.scene.branches import branch_points

        points, _indices = branch_points(self._centerline(), number)
        world = [0.0, 0.0, 0.0]
        found = []
        for point in points.tolist():
            self._centerline().TransformPointToWorld(point, world)
            found.append(tuple(world))
        return np.array(found)

    def _middle(self, number: int) -> Point:
        points = self._points(number)
        return tuple(points[len(points) // 2].tolist())

    def _twigs(self) -> Iterator[tuple[int, Point, Point]]:
        """Branches without children that are easily seen, the widest first: number, first point, one near the tip."""
        rows = self._rows()
        parents = {row.parent for row in rows}
        twigs = [
            row
            for row in rows
            if row.id not in parents and row.generation > 3 and not row.is_loose and SHORT_MM < row.length_mm < LONG_MM
        ]
        for row in sorted(twigs, key=lambda row: -row.diameter_mm):
            points = self._points(row.id).tolist()
            yield row.id, tuple(points[0]), tuple(points[-max(1, len(points) // 8) - 1])

    def _other_parent(self) -> tuple[Point, Point]:
        """The joint of a branch, and a point of another airway; those with the shortest bridge that can be seen."""
        rows = {row.id: row for row in self._rows()}
        found = []
        for number, _start, _tip in list(self._twigs())[1:8]:
            joint = self._points(number)
            others = [
                row.id for row in rows.values() if row.id not in (number, rows[number].parent) and not row.is_loose
            ]
            siblings = {row.id for row in rows.values() if row.parent == rows[number].parent}
            points = np.concatenate([self._points(other) for other in others if other not in siblings])
            first = tuple(joint[min(len(joint) - 1, 3)].tolist())
            away = np.linalg.norm(points - first, axis=1)
            parent = tuple(points[np.where(away < APART_MM, np.inf, away).argmin()].tolist())
            try:
                proposed = self.logic.proposeEdit(self.widget.panel.airways(), "reconnect", [first, parent])
            except RuntimeError:
                continue  # no way is seen between these two
            found.append((proposed.length_mm, first, parent))
        if not found:
            raise RuntimeError("No branch can be joined to another parent in this result.")
        return min(found)[1:]

    def _second_reader(self, lacking: int) -> slicer.vtkMRMLSegmentationNode:
        """The airways without a branch and its subtree, but with the unconnected pieces."""
        from AirwaySegSlicer.scene import segments
        from AirwaySegSlicer.scene.branch_voxels import branch_voxels, subtree

        airways = self.widget.panel.airways()
        ct = segments.ct_of(airways)
        mask = segments.mask_on_ct(airways, ct)
        pieces = airways.GetSegmentation().GetSegment(segments.UNCONNECTED_ID) is not None
        if pieces:
            mask |= slicer.util.arrayFromSegmentBinaryLabelmap(airways, segments.UNCONNECTED_ID, ct).astype(mask.dtype)
        gone = branch_voxels(airways, subtree(airways, lacking))
        shift = segments.first_voxel_between(segments.segment_voxels(airways).matrix, _matrix(ct))
        mask[tuple((gone + shift).T[::-1])] = 0
        node = segments.new_segmentation("Second reader", ct)
        node.GetSegmentation().AddEmptySegment("airways")
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, "airways", ct)
        node.SetDisplayVisibility(False)
        return node


def closer(share: float) -> None:
    """Bring every camera to this share of its distance."""
    for camera in slicer.util.getNodesByClass("vtkMRMLCameraNode"):
        focus = np.array(camera.GetFocalPoint())
        camera.SetPosition(*(focus + share * (np.array(camera.GetPosition()) - focus)).tolist())
        camera.ResetClippingRange()


def _matrix(ct: slicer.vtkMRMLScalarVolumeNode) -> Any:
    from AirwaySegSlicer.scene.nodes import ijk_to_ras

    return ijk_to_ras(ct)
