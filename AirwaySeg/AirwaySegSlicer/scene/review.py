"""The list of points to look at, ordered by what each would change, and the decisions about them.

Points come from the run's repairs and from the suspects of the last measurement. A decision is applied at once, as one
step that can be undone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.scene.branches import branch_rows
from AirwaySegSlicer.scene.changes import Change, change_of
from AirwaySegSlicer.scene.decisions import (
    ACCEPT,
    LATER,
    REFUSE,
    Decision,
    decision_at,
    decisions_of,
    write_decision,
)
from AirwaySegSlicer.scene.nodes import CENTERLINE, REPAIRS, SUSPECTS, companion
from AirwaySegSlicer.scene.origin import note_origins
from AirwaySegSlicer.scene.proposals import Repair, Repairs
from AirwaySegSlicer.scene.review_kinds import (
    APPLIED,
    END,
    FRAGMENT,
    MISSING_BRANCH,
    MISSING_LOBE,
    PIECE,
    PROPOSED,
    REFUSED,
    ReviewItem,
    kind_of,
)
from AirwaySegSlicer.scene.segments import UNCONNECTED_ID, check_airways
from AirwaySegSlicer.scene.steps import Steps
from AirwaySegSlicer.scene.surfaces import surface_kept
from AirwaySegSlicer.scene.suspects import suspects_of
from AirwaySegSlicer.scene.texts import own_ras
from AirwaySegSlicer.scene.voxel_changes import change, slivers

NEXT_GENERATION = 3.0
"""Length of an airway over its diameter (Weibel's model, 1963): what is missing at least beyond a sudden end."""


@dataclass(frozen=True)
class Progress:
    """How many points were decided, of how many, and the millimetres of airway that the decisions added and removed."""

    decided: int
    points: int
    added_mm: float
    removed_mm: float


def review_items(segmentation_node: slicer.vtkMRMLSegmentationNode, with_refused: bool = False) -> list[ReviewItem]:
    """All points, those that would change most first; ``with_refused``: also repairs that the program refused."""
    decisions = decisions_of(segmentation_node)
    found = []
    for item in (*_repair_items(segmentation_node), *_suspect_items(segmentation_node)):
        decision = decision_at(decisions, kind_of(item.kind).family, item.point)
        if with_refused or kind_of(item.kind).listed or decision is not None:
            found.append(replace(item, decision=decision.decision if decision is not None else ""))
    return sorted(found, key=lambda item: (-item.urgency, item.kind, item.point))


def progress_of(segmentation_node: slicer.vtkMRMLSegmentationNode) -> Progress:
    """What was decided so far; a point that the last measurement no longer lists counts too."""
    decided = [one for one in decisions_of(segmentation_node) if one.decision != LATER]
    open_ = sum(item.is_open for item in review_items(segmentation_node))
    gains = [one.gained_mm for one in decided]
    added, removed = sum(mm for mm in gains if mm > 0), -sum(mm for mm in gains if mm < 0)
    return Progress(len(decided), len(decided) + open_, added, removed)


def decide(
    segmentation_node: slicer.vtkMRMLSegmentationNode, item: ReviewItem, decision: str, steps: Steps
) -> ReviewItem:
    """Apply a decision (accept, refuse or later) as one step; returns the item with its decision.

    Raises RuntimeError, one sentence, where it cannot be applied; then nothing is changed.
    """
    decide_all(segmentation_node, [item], decision, steps)
    return replace(item, decision=decision)


def decide_all(
    segmentation_node: slicer.vtkMRMLSegmentationNode, items: Sequence[ReviewItem], decision: str, steps: Steps
) -> list[str]:
    """Apply one decision about several points, one after the other, as one step.

    Returns a sentence for each point that it cannot be applied to, which stays as it is. Raises RuntimeError with the
    first of them where it can be applied to none; then nothing is changed.
    """
    check_airways(segmentation_node)
    if decision not in (ACCEPT, REFUSE, LATER):
        raise RuntimeError(_("A decision is accept, refuse or later, not {decision}.").format(decision=decision))
    decided: list[tuple[ReviewItem, str]] = []
    failed: list[str] = []
    with surface_kept(segmentation_node):
        for item in items:
            try:
                found = _change_by(segmentation_node, item, decision)
            except RuntimeError as error:
                failed.append(str(error))
                continue
            decided.append((item, found.remark))
            if len(decided) == 1:
                steps.begin(segmentation_node, step_name(decided, decision))
            _apply(segmentation_node, found)
            _note(segmentation_node, item, decision, found)
    if failed and not decided:
        raise RuntimeError(failed[0])
    if len(decided) > 1:
        steps.rename(segmentation_node, step_name(decided, decision))
    return failed


def _change_by(segmentation_node: slicer.vtkMRMLSegmentationNode, item: ReviewItem, decision: str) -> Change:
    """What the decision changes; RuntimeError where it cannot be applied."""
    earlier = decision_at(decisions_of(segmentation_node), kind_of(item.kind).family, item.point)
    if decision == LATER and earlier is not None and earlier.decision != LATER:
        raise RuntimeError(_("This point has a decision already; Undo takes it back."))
    return change_of(segmentation_node, item, decision)


def _note(segmentation_node: slicer.vtkMRMLSegmentationNode, item: ReviewItem, decision: str, found: Change) -> None:
    family = kind_of(item.kind).family
    earlier = decision_at(decisions_of(segmentation_node), family, item.point)
    gained = found.gained_mm + (earlier.gained_mm if earlier is not None else 0.0)
    write_decision(segmentation_node, Decision(family, item.point, decision, gained, found.bridge))


def _apply(segmentation_node: slicer.vtkMRMLSegmentationNode, found: Change) -> None:
    if len(found.add) or len(found.remove):
        change(segmentation_node, found.add, found.remove)
        note_origins(segmentation_node, found.remove, 0)
        note_origins(segmentation_node, found.add, found.origins)
    if len(found.remove):
        left = slivers(segmentation_node, found.remove)
        change(segmentation_node, left[:0], left)
        note_origins(segmentation_node, left, 0)
    if len(found.add_loose) or len(found.remove_loose):
        change(segmentation_node, found.add_loose, found.remove_loose, UNCONNECTED_ID)


def step_name(decided: Sequence[tuple[ReviewItem, str]], decision: str) -> str:
    """The name of the step that a decision about points is, for undo and the status line; remarks are in brackets."""
    words = {ACCEPT: _("accept: {what}"), REFUSE: _("refuse: {what}"), LATER: _("later: {what}")}[decision]
    item, remark = decided[0]
    if len(decided) == 1:
        what = kind_of(item.kind).title.lower()
        what = f"{what} {item.number}" if item.number else what
    else:
        what = _("{count} points, {kinds}").format(
            count=len(decided), kinds=counted_kinds([one for one, _r in decided])
        )
        remark = counted_words([remark for _item, remark in decided if remark])
    name = words.format(what=what)
    return f"{name} ({remark})" if remark else name


def counted_kinds(items: Sequence[ReviewItem]) -> str:
    """How many points of each kind there are, in words."""
    return counted_words([kind_of(item.kind).title.lower() for item in items])


def counted_words(words: Sequence[str]) -> str:
    """Each word once, with how often it is among them."""
    return ", ".join(f"{count} × {word}" for word, count in Counter(words).items())


# Points --------------------------------------------------------------------------------------------------------------


def _repair_items(segmentation_node: slicer.vtkMRMLSegmentationNode) -> Iterator[ReviewItem]:
    repairs, node = Repairs(segmentation_node), companion(segmentation_node, REPAIRS)
    kinds = {"applied": APPLIED, "proposed": PROPOSED, "refused": REFUSED}
    for repair in repairs.all.values():
        yield ReviewItem(
            kind=kinds[repair.state],
            point=own_ras(node, repair.place_mm),
            score=repair.score,
            change_mm=repair.length_mm + repair.brought_mm,
            reason=_repair_reason(repair),
            number=repair.number,
        )


def _repair_reason(repair: Repair) -> str:
    text = {
        "applied": _("A gap of {gap} mm was bridged, which brought {brought} mm of airway to the tree."),
        "proposed": _("Bridging a gap of {gap} mm would bring {brought} mm of airway to the tree."),
        "refused": _("A bridge of {gap} mm to {brought} mm of airway was refused."),
    }[repair.state]
    if repair.state == "refused" and not repair.brought_mm:
        text = _("A bridge of {gap} mm was refused, which brings no more airway to the tree.")
    text = text.format(gap=f"{repair.length_mm:.1f}", brought=f"{repair.brought_mm:.1f}")
    return f"{text} " + (repair.reason or _("Its score is {score}.").format(score=f"{repair.score:.2f}"))


def _suspect_items(segmentation_node: slicer.vtkMRMLSegmentationNode) -> Iterator[ReviewItem]:
    node, repairs = companion(segmentation_node, SUSPECTS), Repairs(segmentation_node)
    below = lengths_below(segmentation_node)
    for suspect in suspects_of(segmentation_node):
        number = int(suspect["facts"].get("piece", 0))
        if number and repairs.bringing(number, ("proposed",)) is not None:
            continue  # The proposed repair asks the same, with a bridge.
        yield ReviewItem(
            # In a measured mask a loose piece that is airway for certain is part of the airways already.
            kind=FRAGMENT if suspect["kind"] == PIECE and not number else suspect["kind"],
            point=own_ras(node, suspect["place_mm"]),
            score=suspect["score"],
            change_mm=_suspect_mm(suspect, below),
            reason=_suspect_reason(suspect),
            number=number,
            branch=0 if number else int(suspect["branch"]),
        )


def _suspect_mm(suspect: dict[str, Any], below: dict[int, float]) -> float:
    """The length of airway that a suspect is about, mm."""
    facts = suspect["facts"]
    if suspect["kind"] == MISSING_LOBE:  # Half of the airways of its lung, or what this lung lacks of the other.
        whole = float(facts.get("other_lung_mm", facts.get("lung_mm", 0.0)))
        return max(0.0, whole - float(facts["length_mm"])) / (1 if "other_lung_mm" in facts else 2)
    if suspect["kind"] in (END, MISSING_BRANCH):
        # A whole segment brings what the others of its lobe have.
        return float(facts.get("segment_mm", NEXT_GENERATION * 2 * float(facts.get("radius_mm", 0.0))))
    if suspect["kind"] in (PIECE, FRAGMENT):
        return float(facts["length_mm"])
    return below.get(int(suspect["branch"]), float(facts.get("length_mm", 0.0)))


def lengths_below(segmentation_node: slicer.vtkMRMLSegmentationNode) -> dict[int, float]:
    """The length in mm of each branch with all that spring from it, by id."""
    rows = branch_rows(companion(segmentation_node, CENTERLINE))
    lengths, parents = {row.id: row.length_mm for row in rows}, {row.id: row.parent for row in rows}
    found = dict(lengths)
    for number, length in lengths.items():
        above = parents[number]
        while above in found:
            found[above] += length
            above = parents[above]
    return found


def _suspect_reason(suspect: dict[str, Any]) -> str:
    """The library's sentence; of a piece one without the number of a branch, which a new measurement changes."""
    facts = suspect["facts"]
    if "piece" not in facts:
        return str(suspect["reason"])
    text = _("A piece of airway, {length} mm long, ends {distance} mm from the tree (certainty {score}).")
    if round(float(facts["distance_mm"]), 1) == 0:
        text = _("A piece of airway, {length} mm long, almost touches the tree (certainty {score}).")
    return text.format(
        length=f"{facts['length_mm']:.1f}", distance=f"{facts['distance_mm']:.1f}", score=f"{suspect['score']:.2f}"
    )
