"""A panel with a measured result whose points are to be reviewed, for the tests of decisions."""

from pathlib import Path

import module_scenes as scenes
import numpy as np
import slicer
from module_desk import Desk

from AirwaySegSlicer.commands import segment as segmentation
from AirwaySegSlicer.scene import nodes, review, texts
from AirwaySegSlicer.scene.branches import branch_points
from AirwaySegSlicer.scene.review_kinds import END, PIECE, TIP


def reviewed(desk: Desk, folder: Path) -> Desk:
    """The panel with a measured result: one repair applied, two proposed, a loose piece, and an end that is suspect."""
    desk.pieces = scenes.write_reviewed(folder, desk.ct, desk.mask)
    desk.bridges = scenes.reviewed_bridges(desk.mask)
    desk.parameters.airways = segmentation.take_in(str(folder), desk.ct)
    desk.click("measureButton")
    desk.wait()
    document = texts.document_of(desk.airways, nodes.SUSPECTS)
    document["suspects"] = [suspect(desk, PIECE, 5, 0.9), suspect(desk, TIP, 0, 0.8), suspect(desk, END, 0, 0.1)]
    texts.put_document(desk.airways, nodes.SUSPECTS, document, "suspects")
    desk.open("reviewTab")
    assert not desk.host.messages
    return desk


def suspect(desk: Desk, kind: str, piece: int, score: float) -> dict:
    """A suspect as the library writes it: of a piece, or at the end of the last branch."""
    centerline = nodes.companion(desk.airways, nodes.CENTERLINE)
    ids = slicer.util.arrayFromModelCellData(centerline, "branch_id")
    x, y, z = branch_points(centerline, int(ids.max()))[0][-1].tolist()
    place = scenes.lps_of(desk.ct, desk.pieces[piece]) if piece else [-x, -y, z]
    facts = {"length_mm": 4.0, "distance_mm": 20.0, "radius_mm": 1.0} | ({"piece": float(piece)} if piece else {})
    return {"kind": kind, "place_mm": place, "score": score, "branch": int(ids.max()), "reason": "Why.", "facts": facts}


def voxels(desk: Desk, segment: str = "airways") -> np.ndarray:
    """The voxels of a segment (Z, Y, X) on the CT's grid."""
    if desk.airways.GetSegmentation().GetSegment(segment) is None:
        return np.zeros(desk.mask.shape, bool)
    return slicer.util.arrayFromSegmentBinaryLabelmap(desk.airways, segment, desk.ct) > 0


def item_of(desk: Desk, kind: str, number: int = 0) -> review.ReviewItem:
    """The listed point of a kind, and of a repair or piece the one of a number."""
    return next(one for one in desk.logic.reviewItems(desk.airways) if one.kind == kind and one.number == number)
