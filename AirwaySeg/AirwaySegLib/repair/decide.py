"""Which bridges are applied: from bridges to proposals with a decision and its reason, to the repaired mask, to JSON.

Letters in shapes: N voxels of a bridge. Components are numbered as in `bridge`: 1 is the tree that holds the trachea,
2, 3, ... are fragments. Grids are canonical (`volume.to_canonical`), arrays (Z, Y, X).
"""

import heapq
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, label
from skimage.measure import euler_number

from AirwaySegLib.files.volume import points_to_lps
from AirwaySegLib.masks.components import Box
from AirwaySegLib.repair.bridge import MAIN, Bridge
from AirwaySegLib.repair.proposal import APPLIED, PROPOSED, REFUSED, STATES, Piece, Proposal
from AirwaySegLib.tree.airway_tree import Branch
from AirwaySegLib.tree.build import ParsedAirways
from AirwaySegLib.tree.fragment_joints import WIDEST_JOINT, Point, rounded_point
from AirwaySegLib.tree.suspects import LEAST_EXCESS_MM3, LEAST_GROWTH_MM

MOST_PROPOSALS = 65_535
"""What a map of 16 bits can number."""

ACROSS_MM = 15.0
"""Nobody's lung reaches farther beyond the midline: of 2 000 simulated branches no one's middle comes nearer to the
carina's plane than 20 mm on its own side; real ones may reach a little across behind the heart. So near to the midline
a main bronchus may spring."""

AROUND = np.ones((3, 3, 3), bool)

BLOB_LENGTHS = 1.6
"""A fragment shorter than so many of its own widths (both ends included) is a blob, if it is larger than noise: no
airway is so short between two breaks and so wide."""


def decide(bridges: list[Bridge], parsed: ParsedAirways, labels: NDArray, threshold: float) -> list[Proposal]:
    """Decide about every bridge: applied ones first, in the order in which they join, then proposed and refused ones.

    The tree grows from component 1 by the first bridge of the list that leads out of it, again and again. Refused is a
    bridge that

    - joins what is joined already, by a better one or otherwise, or closes a loop: the Euler number of the joined mask
      falls by more than the joined components account for, also where clefts of one voxel beside it are filled;
    - joins a branch of one lung, where that is more than `ACROSS_MM` from the midline, to fragments whose middle lies
      as far beyond it;
    - leads only to implausible fragments: blobs (shorter than `BLOB_LENGTHS` of their width and larger than
      `suspects.LEAST_EXCESS_MM3`), or wider than the widest point of the branch that they would spring from by the
      factor `fragment_joints.WIDEST_JOINT` and by `suspects.LEAST_GROWTH_MM` or a voxel. If it leads to others too, it
      joins only those;
    - leads nowhere: no bridge that is not refused joins either side to the tree.

    A bridge below ``threshold`` is proposed, and so is any bridge that continues from it, whatever its score.

    Parameters
    ----------
    bridges
        On the grid of ``labels``, by whatever method, the preferred ones first (`origins.bridges_by_origin`); of more
        than 65 535 the first are looked at.
    parsed
        The mask of all components, `labels > 0`, as a tree.
    labels
        (Z, Y, X) numbers of the components.
    threshold
        0..1.
    """
    best = bridges[:MOST_PROPOSALS]
    growth = _Growth(_Anatomy(parsed, labels), threshold)
    waiting: dict[int, list[int]] = {}
    for rank, bridge in enumerate(best):
        for number in bridge.joins:
            waiting.setdefault(number, []).append(rank)
    queue = list(waiting.get(MAIN, []))
    heapq.heapify(queue)
    while queue:
        rank = heapq.heappop(queue)
        if rank not in growth.decided:
            for number in growth.judge(rank, best[rank]):
                for other in waiting[number]:
                    heapq.heappush(queue, other)
    for rank in sorted(set(range(len(best))) - growth.decided.keys()):
        growth.leave(rank, best[rank])
    return growth.proposals()


def repaired_mask(labels: NDArray, proposals: list[Proposal]) -> NDArray[np.bool_]:
    """The main tree with the bridges and fragments of the applied proposals, (Z, Y, X)."""
    applied = [proposal for proposal in proposals if proposal.state == APPLIED]
    keep = np.zeros(int(labels.max(initial=MAIN)) + 1, bool)
    keep[[MAIN, *(number for proposal in applied for number in proposal.fragments)]] = True
    mask = keep[labels]
    for proposal in applied:
        mask[tuple(proposal.bridge.voxels.T)] = True
    return mask


class _Anatomy:
    """What the tree knows of each component and branch."""

    def __init__(self, parsed: ParsedAirways, labels: NDArray) -> None:
        self.parsed, self.labels = parsed, labels
        self.corner = np.array([part.start for part in parsed.box])
        self.branch_of_voxel = parsed.branch_of_voxel()
        branches_of = branches_by_component(parsed, labels, self.branch_of_voxel)
        voxel_mm3 = float(np.prod(parsed.grid.spacing_mm))
        counts = np.bincount(labels[labels > 0])
        self.pieces = {
            number: _piece(branches_of.get(number, []), count * voxel_mm3)
            for number, count in enumerate(counts.tolist())
            if number > MAIN and count
        }
        self.midline_mm = self._midline_mm()
        self.across_mm = {number: self._across_mm(branches) for number, branches in branches_of.items()}

    def _midline_mm(self) -> float | None:
        """x of the midline: that of the carina, or of the trachea's upper half where they are far apart; None for none.

        Where a main bronchus is missing, the first fork of the other lung is taken for the carina.
        """
        carina, tree = self.parsed.tree.carina_mm, self.parsed.tree.main()
        if carina is None or not tree:
            return None
        root = next(branch for branch in tree if branch.parent is None)
        upper = float(np.median(root.points_mm[: max(1, len(root.points_mm) // 2), 0]))
        return upper if abs(carina[0] - upper) > ACROSS_MM else float(carina[0])

    def _across_mm(self, branches: list[Branch]) -> float:
        """How far the middle of some branches lies to the left of the midline; 0 where none is known."""
        if self.midline_mm is None:
            return 0.0
        return float(np.concatenate([b.points_mm for b in branches])[:, 0].mean() - self.midline_mm)

    def touched(self, bridge: Bridge, joined: NDArray[np.bool_]) -> tuple[int, int, float]:
        """Component and branch among those joined that most of the bridge's neighbours belong to, 0 and 0 for none, and
        how far to the left of the midline these neighbours lie."""
        box = _box_around(bridge.voxels, 1, self.labels.shape)
        start = np.array([part.start for part in box])
        beside = binary_dilation(_drawn(bridge, box), AROUND) & joined[self.labels[box]]
        voxels = np.argwhere(beside) + start
        if not len(voxels):
            return 0, 0, 0.0
        rows = self.parsed.lumen.rows_of(voxels - self.corner)
        branches = np.where(rows >= 0, self.branch_of_voxel[rows], 0)
        branch = int(np.bincount(branches).argmax())
        voxels = voxels[branches == branch]
        middle = points_to_lps(voxels.mean(axis=0, keepdims=True) * self.parsed.grid.spacing_mm, self.parsed.grid)[0]
        across_mm = 0.0 if self.midline_mm is None else float(middle[0] - self.midline_mm)
        return int(self.labels[tuple(voxels[0])]), branch, across_mm

    def middle_mm(self, bridge: Bridge) -> Point:
        """The voxel of the bridge that is nearest to the mean of all."""
        points_mm = bridge.voxels * np.asarray(self.parsed.grid.spacing_mm)
        middle = np.linalg.norm(points_mm - points_mm.mean(axis=0), axis=1).argmin()
        return rounded_point(points_to_lps(points_mm[[middle]], self.parsed.grid)[0])

    def other_lung(self, branch: int, springs_mm: float, number: int) -> str:
        """Why a component cannot spring from a branch so far to the left of the midline; empty if it can."""
        across_mm = self.across_mm.get(number, 0.0)
        other = "left" if across_mm > 0 else "right"
        side = "right" if across_mm > 0 else "left"
        if branch and min(abs(springs_mm), abs(across_mm)) > ACROSS_MM and springs_mm * across_mm < 0:
            return (
                f"Fragment {number} lies in the {other} lung, but branch {branch}, which it would join, in the {side}."
            )
        return ""

    def implausible(self, number: int, host: int) -> str:
        """Why a component cannot be an airway that branches off ``host``; empty if it may be."""
        piece, least_mm = self.pieces[number], max(LEAST_GROWTH_MM, float(np.mean(self.parsed.grid.spacing_mm)))
        width_mm = 2 * piece.radius_mm
        if piece.length_mm < BLOB_LENGTHS * width_mm and piece.volume_mm3 > LEAST_EXCESS_MM3:
            return f"Fragment {number} is a blob, {width_mm:.1f} mm wide and {piece.length_mm:.1f} mm long."
        if host:
            host_mm = self.parsed.tree.branch(host).max_diameter_mm
            if width_mm > WIDEST_JOINT * host_mm and width_mm - host_mm > 2 * least_mm:
                return f"Fragment {number} is {width_mm:.1f} mm wide, the branch it would join only {host_mm:.1f} mm."
        return ""


def branches_by_component(
    parsed: ParsedAirways, labels: NDArray, branch_of_voxel: NDArray[np.uint16]
) -> dict[int, list[Branch]]:
    """The branches of each component, in which most of their voxels lie: a filled hole may hold a fragment."""
    count = int(labels.max(initial=0)) + 1
    numbers = labels[tuple(parsed.voxels_of_mask().T)]
    pairs, voxels = np.unique(branch_of_voxel[parsed.in_mask].astype(np.int64) * count + numbers, return_counts=True)
    found: dict[int, list[Branch]] = {}
    order = np.lexsort((-voxels, pairs // count))
    branches, first = np.unique(pairs[order] // count, return_index=True)
    for branch, pair in zip(branches.tolist(), pairs[order][first].tolist(), strict=True):
        found.setdefault(pair % count, []).append(parsed.tree.branch(branch))
    return found


def _piece(branches: list[Branch], volume_mm3: float) -> Piece:
    """A component in figures; one without a branch of its own is taken for a ball."""
    if not branches:
        radius_mm = (volume_mm3 * 3 / (4 * np.pi)) ** (1 / 3)
        return Piece(round(volume_mm3, 3), round(2 * radius_mm, 3), round(radius_mm, 3))
    radius_mm = float(np.concatenate([branch.radii_mm for branch in branches]).mean())
    length_mm = sum(branch.length_mm for branch in branches) + 2 * radius_mm
    return Piece(round(volume_mm3, 3), round(length_mm, 3), round(radius_mm, 3))


class _Growth:
    """The tree as it grows: which components are joined, by which bridge, and the bridges drawn so far."""

    def __init__(self, anatomy: _Anatomy, threshold: float) -> None:
        self.anatomy, self.threshold = anatomy, threshold
        self.drawn = np.zeros(anatomy.labels.shape, bool)
        self.joined = np.arange(int(anatomy.labels.max(initial=MAIN)) + 1) == MAIN
        self.brought_by: dict[int, int] = {MAIN: -1}  # rank of the bridge that joined each component
        self.decided: dict[int, Proposal] = {}

    def judge(self, rank: int, bridge: Bridge) -> list[int]:
        """Decide about a bridge that touches the tree; the components that are joined by it."""
        new = [number for number in bridge.joins if number not in self.brought_by]
        if not new:
            self._record(rank, bridge, 0, [], (REFUSED, self._already(bridge)))
            return []
        component, host, springs_mm = self.anatomy.touched(bridge, self.joined)
        before = self.decided.get(self.brought_by.get(component, -1))
        branch = before.branch if before else host
        doubts = {n: self.anatomy.other_lung(branch, springs_mm, n) or self.anatomy.implausible(n, host) for n in new}
        bring = [number for number in new if not doubts[number]]
        reason = "" if bring else doubts[new[0]]
        if not reason and self._closes_a_loop(bridge, bring):
            if bridge.instead is not None:
                return self.judge(rank, bridge.instead)
            reason = "It would close a loop in the tree."
        if reason:
            self._record(rank, bridge, branch, [], (REFUSED, reason))
            return []
        self._record(rank, bridge, branch, bring, self._state(bridge, component, before))
        self.brought_by.update(dict.fromkeys(bring, rank))
        self.joined[bring] = True
        self.drawn[tuple(bridge.voxels.T)] = True
        return bring

    def _closes_a_loop(self, bridge: Bridge, bring: list[int]) -> bool:
        """Whether the bridge makes a loop of the tree and the components that it brings."""
        labels, joined = self.anatomy.labels, self.joined.copy()
        joined[bring] = True
        box = _box_around(bridge.voxels, 4, labels.shape)
        return closes_a_loop(self.drawn[box] | joined[labels[box]], _drawn(bridge, box), len(bring))

    def leave(self, rank: int, bridge: Bridge) -> None:
        """Refuse a bridge that the growing tree has not reached."""
        self._record(rank, bridge, 0, [], (REFUSED, "Neither of its ends is joined to the tree."))

    def proposals(self) -> list[Proposal]:
        """All of them numbered: applied, proposed, refused, each in the order of the decisions."""
        ordered = sorted(self.decided.values(), key=lambda proposal: STATES.index(proposal.state))
        return [replace(proposal, number=number) for number, proposal in enumerate(ordered, start=1)]

    def _already(self, bridge: Bridge) -> str:
        last = max(bridge.joins, key=lambda number: list(self.brought_by).index(number))
        state = self.decided[self.brought_by[last]].state
        return f"Fragment {last} is {'joined' if state == APPLIED else 'proposed to be joined'} already."

    def _state(self, bridge: Bridge, component: int, before: Proposal | None) -> tuple[str, str]:
        """State and reason of a bridge that is not refused."""
        if bridge.score < self.threshold:
            digits = 2 if round(bridge.score, 2) < round(self.threshold, 2) else 4
            return PROPOSED, f"Its score of {bridge.score:.{digits}f} is below {self.threshold:.2f}."
        if before and before.state != APPLIED:
            return PROPOSED, f"It continues from fragment {component}, which is not joined yet."
        return APPLIED, ""

    def _record(self, rank: int, bridge: Bridge, branch: int, bring: list[int], decision: tuple[str, str]) -> None:
        pieces = {number: self.anatomy.pieces[number] for number in bring}
        middle = self.anatomy.middle_mm(bridge)
        self.decided[rank] = Proposal(0, bridge, tuple(bring), branch, middle, *decision, pieces)


def closes_a_loop(tree: NDArray[np.bool_], drawn: NDArray[np.bool_], brought: int) -> bool:
    """Whether ``drawn`` makes a loop where it joins ``brought`` further components to a tree, all in one box (Z, Y, X).

    Where they become one and nothing else happens, the Euler number (components - loops + cavities) falls by their
    number; what it falls further are loops. It changes only around the voxels that change, so that the bridge's box
    says it all. A cleft of one voxel between bridge and lumen is no loop: the dilated bridge must make one, too.
    """
    return all(_loops_made(tree, tree | added) > brought for added in (drawn, binary_dilation(drawn, AROUND)))


def _loops_made(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> int:
    """How far the Euler number falls, cavities that arise left out."""
    fall = euler_number(before, connectivity=3) - euler_number(after, connectivity=3)
    return int(fall + _cavities(after) - _cavities(before))


def _cavities(mask: NDArray[np.bool_]) -> int:
    """How many pieces of background (6 neighbours) do not reach the array's border."""
    return int(label(np.pad(~mask, 1, constant_values=True))[1]) - 1


def _box_around(voxels: NDArray[np.int32], margin: int, shape: tuple[int, ...]) -> Box:
    z, y, x = (
        slice(max(0, int(low) - margin), min(count, int(high) + margin + 1))
        for low, high, count in zip(voxels.min(axis=0), voxels.max(axis=0), shape, strict=True)
    )
    return z, y, x


def _drawn(bridge: Bridge, box: Box) -> NDArray[np.bool_]:
    """The bridge's voxels in a box that holds them all."""
    drawn = np.zeros([part.stop - part.start for part in box], bool)
    drawn[tuple((bridge.voxels - [part.start for part in box]).T)] = True
    return drawn
