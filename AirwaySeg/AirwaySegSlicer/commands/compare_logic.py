"""The methods of `AirwaySegLogic` that compare airways with a second segmentation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer

from AirwaySegSlicer.commands.compare import comparing_job
from AirwaySegSlicer.commands.jobs import Job, Listener
from AirwaySegSlicer.scene.comparison import AGREEMENT, comparison_rows, remove_comparison
from AirwaySegSlicer.scene.overlays import hide_overlay, shown_overlay


class CompareLogic:
    """What `AirwaySegLogic` can do with a second segmentation; it runs or starts the jobs on airways."""

    runOn: Callable[[Job], Any]
    startOn: Callable[[slicer.vtkMRMLNode, Job, Listener], None]

    def compare(
        self,
        airways: slicer.vtkMRMLSegmentationNode,
        other: slicer.vtkMRMLNode,
        ct: slicer.vtkMRMLScalarVolumeNode | None = None,
    ) -> dict[str, str]:
        """Compare airways with another segmentation or label map as reference; the measures by their titles.

        Table and agreement stay with the airways; `showOverlay(airways, "agreement")` shows the latter. ``ct`` is the
        CT of airways without a CT of their own.
        """
        self.runOn(comparing_job(airways, other, ct))
        return dict(comparison_rows(airways))

    def startCompare(
        self,
        airways: slicer.vtkMRMLSegmentationNode,
        other: slicer.vtkMRMLNode,
        listener: Listener,
        ct: slicer.vtkMRMLScalarVolumeNode | None = None,
    ) -> None:
        """Start `compare`."""
        self.startOn(airways, comparing_job(airways, other, ct), listener)

    def removeComparison(self, airways: slicer.vtkMRMLSegmentationNode) -> None:
        """Remove table and agreement of `compare`."""
        if shown_overlay(airways) == AGREEMENT:
            hide_overlay(airways)
        remove_comparison(airways)
