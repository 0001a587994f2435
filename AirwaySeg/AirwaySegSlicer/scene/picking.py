"""Picks a point: the user clicks in any view, the caller gets the position, and the markup is removed."""

from __future__ import annotations

from collections.abc import Callable

import slicer

from AirwaySegSlicer.event_loop import call_later
from AirwaySegSlicer.scene.branches import Point
from AirwaySegSlicer.scene.nodes import remove_with_display


class Picking:
    """Waits for one click. ``on_end`` is called once: with the point (RAS, world), or None after a cancel."""

    def __init__(self, on_end: Callable[[Point | None], None]) -> None:
        self._on_end = on_end
        self._point: Point | None = None
        logic = slicer.app.applicationLogic()
        self._interaction, self._selection = logic.GetInteractionNode(), logic.GetSelectionNode()
        self._persistent_before = self._interaction.GetPlaceModePersistence()
        self._before = self._selection.GetActivePlaceNodeID()
        self._class_before = self._selection.GetActivePlaceNodeClassName()
        self.node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "AirwaySeg pick")
        self.node.CreateDefaultDisplayNodes()
        self.node.SetSaveWithScene(False)
        self._tags = [
            (self.node, self.node.AddObserver(self.node.PointPositionDefinedEvent, self._on_point)),
            (
                self._interaction,
                self._interaction.AddObserver(self._interaction.InteractionModeChangedEvent, self._on_mode),
            ),
        ]
        self._selection.SetReferenceActivePlaceNodeClassName("vtkMRMLMarkupsFiducialNode")
        self._selection.SetActivePlaceNodeID(self.node.GetID())
        self._interaction.SetPlaceModePersistence(0)
        self._interaction.SetCurrentInteractionMode(self._interaction.Place)

    def cancel(self) -> None:
        """Stop waiting."""
        self._finish()

    def _on_point(self, caller: slicer.vtkMRMLNode, event: str) -> None:
        world = [0.0, 0.0, 0.0]
        self.node.GetNthControlPointPositionWorld(0, world)
        self._point = (world[0], world[1], world[2])
        self._end_soon()

    def _on_mode(self, caller: slicer.vtkMRMLNode, event: str) -> None:
        if self._interaction.GetCurrentInteractionMode() != self._interaction.Place:
            self._end_soon()

    def _end_soon(self) -> None:
        """Finish later: the view still uses the markup, and removing it in this event crashes Slicer."""
        call_later(self._finish)

    def _finish(self) -> None:
        if not self._tags:
            return
        for owner, tag in self._tags:
            owner.RemoveObserver(tag)
        self._tags = []
        if self._interaction.GetCurrentInteractionMode() == self._interaction.Place:
            self._interaction.SetCurrentInteractionMode(self._interaction.ViewTransform)
        self._interaction.SetPlaceModePersistence(self._persistent_before)
        self._selection.SetReferenceActivePlaceNodeClassName(self._class_before)
        self._selection.SetActivePlaceNodeID(self._before)
        if self.node.GetScene() is not None:
            remove_with_display(self.node)
        self._on_end(self._point)
