"""Decisions about points to look at. They belong to points, not to numbers of branches, so that measuring keeps them.

They are a tag of the airways' segment: undo and redo restore them with the voxels, and they are saved with these.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import slicer

from AirwaySegSlicer.scene.branches import Point
from AirwaySegSlicer.scene.tags import DECISIONS, read_tag, write_tag

ACCEPT, REFUSE, LATER = "accept", "refuse", "later"
SAME_POINT_MM = 3.0
"""A point of the same family no farther away is the same: measuring an edited mask moves points a little."""

Runs = tuple[tuple[int, int, int, int], ...]
"""Runs of voxels on the grid of the run's repairs: index along z, y and x of the first, and their number along x."""


@dataclass(frozen=True)
class Decision:
    """What was decided: the point (RAS, own space), and the millimetres of airway added, or if negative removed.

    ``bridge`` is what joined an accepted piece to the airways.
    """

    family: str
    point: Point
    decision: str
    gained_mm: float
    bridge: Runs = ()


def decisions_of(segmentation_node: slicer.vtkMRMLSegmentationNode) -> list[Decision]:
    """All decisions, in the order in which they were made."""
    found = json.loads(read_tag(segmentation_node, DECISIONS) or "[]")
    return [_decision(plain) for plain in found]


def _decision(plain: dict[str, Any]) -> Decision:
    bridge = tuple((z, y, x, count) for z, y, x, count in plain.get("bridge", ()))
    return Decision(**{**plain, "point": tuple(plain["point"]), "bridge": bridge})


def decision_at(decisions: list[Decision], family: str, point: Point) -> Decision | None:
    """The decision about a point; the nearest of its family within `SAME_POINT_MM`."""
    near = [(math.dist(one.point, point), one) for one in decisions if one.family == family]
    near = [pair for pair in near if pair[0] <= SAME_POINT_MM]
    return min(near, key=lambda pair: pair[0])[1] if near else None


def write_decision(segmentation_node: slicer.vtkMRMLSegmentationNode, decision: Decision) -> None:
    """Note a decision instead of an earlier one about the same point."""
    decisions = decisions_of(segmentation_node)
    earlier = decision_at(decisions, decision.family, decision.point)
    kept = [asdict(one) for one in decisions if one is not earlier]
    plain = asdict(decision) | {
        "point": [round(mm, 2) for mm in decision.point],
        "gained_mm": round(decision.gained_mm, 1),
    }
    write_tag(segmentation_node, DECISIONS, json.dumps([*kept, plain]))
