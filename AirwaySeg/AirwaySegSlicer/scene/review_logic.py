"""The review for scripts: methods of the module's logic, in Slicer's manner of naming."""

from __future__ import annotations

import slicer

from AirwaySegSlicer.scene.hand_names import show_names
from AirwaySegSlicer.scene.review import Progress, decide, decide_all, progress_of, review_items
from AirwaySegSlicer.scene.review_kinds import ReviewItem
from AirwaySegSlicer.scene.steps import Steps


class ReviewLogic:
    """What `AirwaySegLogic` can do with the points of a result; ``steps`` are those that can be undone."""

    steps: Steps

    def reviewItems(self, airways: slicer.vtkMRMLSegmentationNode, withRefused: bool = False) -> list[ReviewItem]:
        """The points to look at, those that would change most first; see `review.review_items`."""
        return review_items(airways, withRefused)

    def reviewProgress(self, airways: slicer.vtkMRMLSegmentationNode) -> Progress:
        """How many points were decided, and what the decisions added and removed."""
        return progress_of(airways)

    def decide(self, airways: slicer.vtkMRMLSegmentationNode, item: ReviewItem, decision: str) -> ReviewItem:
        """Apply "accept", "refuse" or "later" to a point of `reviewItems` as one step; see `review.decide`."""
        return decide(airways, item, decision, self.steps)

    def decideAll(self, airways: slicer.vtkMRMLSegmentationNode, items: list[ReviewItem], decision: str) -> list[str]:
        """Apply a decision to several points as one step; returns sentences about those that cannot be decided."""
        return decide_all(airways, items, decision, self.steps)

    def undo(self, airways: slicer.vtkMRMLSegmentationNode) -> str:
        """Take the last step back, voxels and decision; returns a sentence with its name."""
        sentence = self.steps.undo(airways)
        show_names(airways)
        return sentence

    def redo(self, airways: slicer.vtkMRMLSegmentationNode) -> str:
        """Do the step again that was taken back; returns a sentence with its name."""
        sentence = self.steps.redo(airways)
        show_names(airways)
        return sentence
