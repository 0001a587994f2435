"""The methods of `AirwaySegLogic` that add, cut and name branches; they need its ``steps``."""

from __future__ import annotations

import slicer

from AirwaySegSlicer.scene.branch_edits import ADD, BEYOND, RECONNECT, Proposed, apply, propose
from AirwaySegSlicer.scene.branches import Point
from AirwaySegSlicer.scene.hand_names import estimate_again, forget_lost_names, give_generation, name_branch
from AirwaySegSlicer.scene.steps import Steps


class BranchEditLogic:
    """Proposed and applied edits of branches; nothing of the panel is needed."""

    steps: Steps

    def proposeEdit(self, airways: slicer.vtkMRMLSegmentationNode, tool: str, points: list[Point]) -> Proposed:
        """What a tool of `branch_edits` would do at points (RAS, world); nothing is changed."""
        return propose(airways, tool, points)

    def applyEdit(self, airways: slicer.vtkMRMLSegmentationNode, proposed: Proposed) -> None:
        """Apply what `proposeEdit` found, as one step."""
        apply(airways, proposed, self.steps)

    def grow(self, airways: slicer.vtkMRMLSegmentationNode, points: list[Point]) -> Proposed:
        """Add the missed airway on which some points (RAS, world) lie, as one step."""
        proposed = propose(airways, ADD, points)
        apply(airways, proposed, self.steps)
        return proposed

    def cut(self, airways: slicer.vtkMRMLSegmentationNode, points: list[Point], tool: str = BEYOND) -> Proposed:
        """Delete what lies beyond a point (RAS, world), or what another tool of `branch_edits` says, as one step."""
        proposed = propose(airways, tool, points)
        apply(airways, proposed, self.steps)
        return proposed

    def reconnect(self, airways: slicer.vtkMRMLSegmentationNode, joint: Point, parent: Point) -> Proposed:
        """Join a subtree, cut at its wrong joint, or an unconnected piece to another parent, as one step.

        ``joint`` (RAS, world) is where the subtree is cut, or a point of the piece; ``parent`` one of the new parent.
        """
        proposed = propose(airways, RECONNECT, [joint, parent])
        apply(airways, proposed, self.steps)
        return proposed

    def nameBranch(
        self,
        airways: slicer.vtkMRMLSegmentationNode,
        number: int,
        lobe: str = "",
        segment: str = "",
        withSubtree: bool = True,
    ) -> None:
        """Give a branch a lobe ("right upper lobe") or segment ("RB6") or "none", as one step; measuring keeps it."""
        name_branch(airways, number, (lobe, segment), withSubtree, self.steps)

    def giveGeneration(self, airways: slicer.vtkMRMLSegmentationNode, number: int, generation: int) -> None:
        """Give a branch a generation (trachea 0), as one step; those beyond count on, and measuring keeps it."""
        give_generation(airways, number, generation, self.steps)

    def estimateAgain(self, airways: slicer.vtkMRMLSegmentationNode, number: int) -> None:
        """Forget what was given to a branch, as one step."""
        estimate_again(airways, number, self.steps)

    def forgetLostNames(self, airways: slicer.vtkMRMLSegmentationNode) -> None:
        """Forget the names by hand whose branch is no longer in the tree, as one step."""
        forget_lost_names(airways, self.steps)
