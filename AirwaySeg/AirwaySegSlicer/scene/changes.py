"""What a decision about a point adds to the airways and takes out of them, voxel by voxel, before it is applied."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.scene.branch_voxels import branch_voxels, subtree
from AirwaySegSlicer.scene.branches import branch_points, branch_rows
from AirwaySegSlicer.scene.decisions import ACCEPT, LATER, REFUSE, Decision, Runs, decision_at, decisions_of
from AirwaySegSlicer.scene.nodes import CENTERLINE, INITIAL, companion
from AirwaySegSlicer.scene.origin import NETWORK, REPAIR, run_origins
from AirwaySegSlicer.scene.proposals import APPLIED, PROPOSED, TREE, Repair, Repairs
from AirwaySegSlicer.scene.review_kinds import FRAGMENT, LEAK, PIECE, TIP, ReviewItem, kind_of
from AirwaySegSlicer.scene.scan_grid import scan_grid
from AirwaySegSlicer.scene.segments import UNCONNECTED_ID, Array
from AirwaySegSlicer.scene.voxel_changes import grid_of, which_are_in

MOST = 0.5
"""A bridge or piece is in the airways if more than this part of it is."""


def no_voxels() -> Array:
    """An array (0, 3)."""
    import numpy as np

    return np.empty((0, 3), np.int64)


@dataclass(frozen=True)
class Change:
    """Voxels (N, 3), as i, j, k on the airways' grid, that airways and unconnected airways gain and lose.

    ``gained_mm`` is the length of airway that the tree gains, negative if it loses. ``origins`` (N,) are those of what
    the airways gain (`origin`); of a voxel that is named twice the last one counts. ``bridge`` are the runs of voxels
    (`Repairs.runs_of`) that join an accepted piece to the airways, so that Refuse can take them out again. ``remark``
    is what differs from the rule, in a few words: for the name of the step.
    """

    add: Array = field(default_factory=no_voxels)
    origins: Array | int = NETWORK
    remove: Array = field(default_factory=no_voxels)
    add_loose: Array = field(default_factory=no_voxels)
    remove_loose: Array = field(default_factory=no_voxels)
    gained_mm: float = 0.0
    bridge: Runs = ()
    remark: str = ""


def change_of(segmentation_node: slicer.vtkMRMLSegmentationNode, item: ReviewItem, decision: str) -> Change:
    """What a decision would change now; nothing where the airways are already as decided.

    Raises RuntimeError, one sentence, where that cannot be said.
    """
    if decision == LATER:
        return Change()
    if kind_of(item.kind).family == "repair":
        repairs = Repairs(segmentation_node)
        repair = repairs.all[item.number]
        if decision == ACCEPT:
            return _joined(segmentation_node, repairs, repair)
        return _taken_out(segmentation_node, repairs, repair)
    if item.kind == PIECE:
        return _piece(segmentation_node, item, decision)
    if decision == REFUSE and item.kind in (FRAGMENT, LEAK, TIP):
        return _cut(segmentation_node, item)
    return Change()


def preview_of(segmentation_node: slicer.vtkMRMLSegmentationNode, item: ReviewItem) -> tuple[Array, bool]:
    """The voxels (N, 3) that the point is about, and whether they would be added; otherwise they would be removed.

    Of a repair that leads nowhere its own: it cannot be accepted, but looked at.
    """
    if kind_of(item.kind).family == "repair":
        repairs = Repairs(segmentation_node)
        repair = repairs.all[item.number]
        if _chain(segmentation_node, repairs, repair) is None:
            own = _concatenated([repairs.pieces(repair.fragments), repairs.bridge(repair.number)])
            return own, not is_there(segmentation_node, repairs, repair)
    accepted = change_of(segmentation_node, item, ACCEPT)
    if len(accepted.add):
        return accepted.add, True
    refused = change_of(segmentation_node, item, REFUSE)
    return (refused.remove if len(refused.remove) else refused.remove_loose), False


def _concatenated(parts: list[Array]) -> Array:
    import numpy as np

    return np.concatenate([no_voxels(), *parts])


def _without(voxels: Array, others: Array) -> Array:
    """The voxels that are not among the others."""
    if not len(others) or not len(voxels):
        return voxels
    kept = {tuple(voxel) for voxel in others.tolist()}
    return voxels[[tuple(voxel) not in kept for voxel in voxels.tolist()]]


def _earlier(segmentation_node: slicer.vtkMRMLSegmentationNode, item: ReviewItem) -> Decision | None:
    return decision_at(decisions_of(segmentation_node), kind_of(item.kind).family, item.point)


# Repairs -------------------------------------------------------------------------------------------------------------


def is_there(segmentation_node: slicer.vtkMRMLSegmentationNode, repairs: Repairs, repair: Repair) -> bool:
    """Whether bridge and pieces of a repair are in the airways."""
    parts = [repairs.bridge(repair.number), repairs.pieces(repair.fragments)]
    return all(which_are_in(segmentation_node, part).mean() > MOST for part in parts if len(part))


def _joined(segmentation_node: slicer.vtkMRMLSegmentationNode, repairs: Repairs, repair: Repair) -> Change:
    """The repair, and before it those that bring what it springs from to the tree."""
    needed = _chain(segmentation_node, repairs, repair)
    if needed is None:
        sentence = _("Repair {number} leads nowhere: nothing joins its other side to the tree.")
        raise RuntimeError(sentence.format(number=repair.number))
    chain = [one for one in needed if not is_there(segmentation_node, repairs, one)]
    bridges = _concatenated([repairs.bridge(one.number) for one in chain])
    pieces = _concatenated([repairs.pieces(one.fragments) for one in chain])
    loose = pieces[which_are_in(segmentation_node, pieces, UNCONNECTED_ID)]
    wanted = _concatenated([pieces, bridges])
    origins = _origins_of(segmentation_node, wanted, len(pieces))
    new = ~which_are_in(segmentation_node, wanted)
    gained_mm = sum(one.length_mm + one.brought_mm for one in chain)
    return Change(add=wanted[new], origins=origins[new], remove_loose=loose, gained_mm=gained_mm)


def _origins_of(segmentation_node: slicer.vtkMRMLSegmentationNode, voxels: Array, pieces: int) -> Array:
    """The origins (N,) of the voxels of pieces, which the network saw, and of bridges, which follow these."""
    import numpy as np

    of_run = run_origins(segmentation_node, voxels)
    return np.where(np.arange(len(voxels)) < pieces, np.where(of_run > 0, of_run, NETWORK), REPAIR)


def _chain(segmentation_node: slicer.vtkMRMLSegmentationNode, repairs: Repairs, repair: Repair) -> list[Repair] | None:
    """The repair after those that it needs; None where its other side leads nowhere."""
    chain = [repair]
    for one in chain:
        hosts = set(one.joins) - set(one.fragments)
        if TREE in hosts or any(_piece_is_in(segmentation_node, repairs, host) for host in hosts):
            continue
        brings = [repairs.bringing(host, (APPLIED, PROPOSED)) for host in sorted(hosts)]
        needed = next((other for other in brings if other is not None and other not in chain), None)
        if needed is None:
            return None
        chain.append(needed)
    return chain[::-1]


def _piece_is_in(segmentation_node: slicer.vtkMRMLSegmentationNode, repairs: Repairs, number: int) -> bool:
    voxels = repairs.piece(number)
    return len(voxels) > 0 and which_are_in(segmentation_node, voxels).mean() > MOST


def _taken_out(segmentation_node: slicer.vtkMRMLSegmentationNode, repairs: Repairs, repair: Repair) -> Change:
    """Without the repair, and without those that hang on its pieces."""
    there = [one for one in repairs.all.values() if is_there(segmentation_node, repairs, one)]
    if repair not in there:
        return Change()
    out = [repair]
    for one in out:
        brought = set(one.fragments)
        out += [
            other
            for other in there
            if other not in out and TREE not in other.joins and brought & (set(other.joins) - set(other.fragments))
        ]
    kept = _concatenated(
        [
            part
            for one in there
            if one not in out
            for part in (repairs.bridge(one.number), repairs.pieces(one.fragments))
        ]
    )
    bridges = _concatenated([repairs.bridge(one.number) for one in out])
    pieces = _without(_concatenated([repairs.pieces(one.fragments) for one in out]), kept)
    gone = _concatenated([_without(bridges, kept), pieces])
    return Change(
        remove=gone[which_are_in(segmentation_node, gone)],
        add_loose=_certain(segmentation_node, repairs, out, kept),
        gained_mm=-sum(one.length_mm + one.brought_mm for one in out),
    )


def _certain(
    segmentation_node: slicer.vtkMRMLSegmentationNode, repairs: Repairs, out: list[Repair], kept: Array
) -> Array:
    """The pieces that become unconnected airways: those the run had joined, and those it had left unconnected."""
    found, initial = [], companion(segmentation_node, INITIAL)
    for one in out:
        pieces = _without(repairs.pieces(one.fragments), kept)
        if one.state != APPLIED:
            grid = grid_of(segmentation_node)
            was = which_are_in(initial, pieces, UNCONNECTED_ID, grid) if initial is not None else []
            pieces = pieces[was] if len(was) else pieces[:0]
        found.append(pieces)
    return _concatenated(found)


# Pieces and branches -------------------------------------------------------------------------------------------------


def _piece(segmentation_node: slicer.vtkMRMLSegmentationNode, item: ReviewItem, decision: str) -> Change:
    repairs, earlier = Repairs(segmentation_node), _earlier(segmentation_node, item)
    voxels, runs = repairs.piece(item.number), earlier.bridge if earlier is not None else ()
    loose = voxels[which_are_in(segmentation_node, voxels, UNCONNECTED_ID)]
    there = which_are_in(segmentation_node, voxels)
    if decision == ACCEPT:
        missing = voxels[~there]
        if not len(missing):
            return Change(remove_loose=loose, bridge=runs)
        found = _bridge_to(segmentation_node, missing)
        bridge, length_mm = found or (no_voxels(), 0.0)
        add = _concatenated([missing, bridge])
        return Change(
            add=add,
            origins=_origins_of(segmentation_node, add, len(missing)),
            remove_loose=loose,
            gained_mm=item.change_mm + length_mm,
            bridge=repairs.runs_of(_without(bridge, missing)),
            remark="" if found else _("without a bridge, no way is seen"),
        )
    bridge = repairs.voxels_of(runs)
    bridge = bridge[which_are_in(segmentation_node, bridge)]
    gained_mm = earlier.gained_mm if earlier is not None and len(bridge) else item.change_mm
    remove = _concatenated([voxels[there], bridge])
    return Change(remove=remove, remove_loose=loose, gained_mm=-gained_mm if len(remove) else 0.0)


def _bridge_to(segmentation_node: slicer.vtkMRMLSegmentationNode, piece: Array) -> tuple[Array, float] | None:
    """What a bridge that joins a piece adds to the airways (N, 3), and its length in mm; None where none is seen."""
    from AirwaySegLib.edit.reconnect import bridge
    from AirwaySegLib.errors import AirwaySegError

    try:
        grid = scan_grid(segmentation_node)
        built = bridge(grid.scan, grid.on_scan(piece))
    except (AirwaySegError, RuntimeError) as error:
        logging.info("The piece is added without a bridge: %s", error)
        return None
    voxels = grid.on_airways(built.voxels)
    return voxels[~which_are_in(segmentation_node, voxels)], built.length_mm


def _leak(segmentation_node: slicer.vtkMRMLSegmentationNode, item: ReviewItem) -> Array | None:
    """What hangs beyond the narrowest place between the beginning of a branch and its leak, (N, 3).

    None where the branch cannot be cut so, as when it begins as wide as it leaks.
    """
    from AirwaySegLib.edit.cut import between
    from AirwaySegLib.errors import AirwaySegError

    start = branch_points(companion(segmentation_node, CENTERLINE), item.branch)[0][0]
    to_world = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    for point, world in zip((start.tolist(), item.point), to_world, strict=True):
        segmentation_node.TransformPointToWorld(point, world)
    try:
        grid = scan_grid(segmentation_node)
        this, that = (grid.voxel((world[0], world[1], world[2])) for world in to_world)
        return grid.on_airways(between(grid.scan, this, that).voxels)
    except (AirwaySegError, RuntimeError) as error:
        logging.info("The leak is removed with its branch: %s", error)
        return None


def _cut(segmentation_node: slicer.vtkMRMLSegmentationNode, item: ReviewItem) -> Change:
    """Without the branch and what springs from it, or the whole fragment; a leak is cut at its narrowest place, once.

    What a cut has left of a leaking branch is sound: the same point does not cut again.
    """
    rows = branch_rows(companion(segmentation_node, CENTERLINE))
    component = next((row.component for row in rows if row.id == item.branch), None)
    if component is None:
        raise RuntimeError(_("Measure {name} first.").format(name=segmentation_node.GetName()))
    if item.kind == LEAK:
        earlier = _earlier(segmentation_node, item)
        if earlier is not None and (earlier.decision == REFUSE or earlier.gained_mm < 0):
            return Change()
    if item.kind == FRAGMENT:
        numbers = [row.id for row in rows if row.component == component]
    else:
        numbers = subtree(segmentation_node, item.branch)
    narrow = _leak(segmentation_node, item) if item.kind == LEAK else None
    if narrow is not None:
        return Change(remove=narrow, gained_mm=-_length_of(segmentation_node, numbers, narrow))
    voxels = branch_voxels(segmentation_node, numbers)
    remark = _("with its whole branch, it cannot be cut") if item.kind == LEAK else ""
    return Change(remove=voxels, gained_mm=-item.change_mm if len(voxels) else 0.0, remark=remark)


def _length_of(segmentation_node: slicer.vtkMRMLSegmentationNode, numbers: list[int], voxels: Array) -> float:
    """The length in mm of the parts of branches whose centerline runs in these voxels (N, 3)."""
    import numpy as np

    centerline, within = companion(segmentation_node, CENTERLINE), {tuple(voxel) for voxel in voxels.tolist()}
    to_ijk = np.linalg.inv(slicer.util.arrayFromVTKMatrix(grid_of(segmentation_node)))
    found = 0.0
    for row in branch_rows(centerline):
        if row.id not in numbers:
            continue
        points = branch_points(centerline, row.id)[0].astype(float)
        places = np.rint(points @ to_ijk[:3, :3].T + to_ijk[:3, 3]).astype(int)
        inside = np.array([tuple(place) in within for place in places.tolist()])
        found += row.length_mm * float(inside.mean())
    return found
