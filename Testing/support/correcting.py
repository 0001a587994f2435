"""A result as a person has it open who corrects it: the mask, the worklist of the review, and the tools.

What Accept and Refuse do is what they do in Slicer's panel; the tools are those of `AirwaySegLib.edit`. It can be
written as a case for a training, as *Add this case* does: the mask as it is, the mask before the first correction, and
what added each voxel. All arrays are (Z, Y, X) on the canonical grid.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.commands.measure import SUSPECTS
from AirwaySegLib.commands.repair import PROPOSALS
from AirwaySegLib.commands.segment import MASK, ORIGIN, PROBABILITY
from AirwaySegLib.edit.cut import between, beyond
from AirwaySegLib.edit.grow import Growth, grow
from AirwaySegLib.edit.reconnect import bridge
from AirwaySegLib.edit.scan import Part, Scan
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.volume import Volume, lps_to_voxels, read_ct, read_on_grid, to_canonical, write_nrrd
from AirwaySegLib.masks.origin import CLICK, NETWORK, REPAIR
from AirwaySegLib.repair.bridge import MAIN
from AirwaySegLib.repair.proposal import APPLIED, PROPOSED, Proposal, from_json
from AirwaySegLib.tree.build import ParsedAirways, parse_airways
from AirwaySegLib.tree.suspect import DOUBTFUL_TIP, FRAGMENT, LEAK, UNCONNECTED, Suspect, suspects_from_json

Mask = NDArray[np.bool_]
Voxels = NDArray[np.intp]

IN_MASK = 0.5
"""A bridge or piece is in the airways if more than this part of it is."""

ACCEPT, REFUSE = "accept", "refuse"


def no_voxels() -> Voxels:
    """An array (0, 3)."""
    return np.empty((0, 3), np.intp)


@dataclass(frozen=True, eq=False)
class Decision:
    """What a decision about a point of the worklist would add and remove, (N, 3) each.

    Of what it adds ``bridging``, (N,), is a repair's; the rest are pieces that the network found.
    """

    kind: str
    decision: str
    key: tuple[str, int]
    add: Voxels = field(default_factory=no_voxels)
    remove: Voxels = field(default_factory=no_voxels)
    bridging: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))


@dataclass
class Session:
    """A result that is being corrected; ``seconds`` is what was computed for each tool so far."""

    ct: Volume
    mask: Mask
    probability: NDArray[np.uint8] | None = None
    proposals: dict[int, Proposal] = field(default_factory=dict)
    pieces: dict[int, Voxels] = field(default_factory=dict)
    suspects: list[Suspect] = field(default_factory=list)
    decided: set[tuple[str, int]] = field(default_factory=set)
    seconds: float = 0.0
    listed: ParsedAirways | None = None
    """The tree to which the branches of the suspects belong."""
    parsed: ParsedAirways | None = None
    """The tree of the mask as it is; None where the mask has changed since it was measured."""
    bridges: dict[int, Voxels] = field(default_factory=dict)
    """What joins a piece to the tree, by its number, as it was first shown."""
    first: Mask | None = None
    """The mask before the first correction."""
    origin: NDArray[np.uint8] | None = None
    """What added each voxel (`AirwaySegLib.masks.origin`), where the result says so."""

    @classmethod
    def of_result(cls, ct: Path, result: Path, measured: Path | None = None) -> "Session":
        """The result in a folder of `airwayseg segment` or `repair`; its suspects may lie in another folder."""
        original, _ = read_ct(ct)
        mask = to_canonical(read_on_grid(result / MASK, original)).array != 0
        probability = None
        if (result / PROBABILITY).exists():
            probability = to_canonical(read_on_grid(result / PROBABILITY, original)).array.astype(np.uint8)
        text = (result / PROPOSALS).read_text("utf-8")
        proposals = {one.number: one for one in from_json(text)}
        pieces = {piece["number"]: _voxels(piece["voxel_runs"]) for piece in json.loads(text)["fragments"]}
        suspects = suspects_from_json(((measured or result) / SUSPECTS).read_text("utf-8"))
        session = cls(to_canonical(original), mask, probability, proposals, pieces, suspects, first=mask.copy())
        if (result / ORIGIN).exists():
            session.origin = to_canonical(read_on_grid(result / ORIGIN, original)).array.astype(np.uint8)
        session.listed = session.parsed = session._measured()
        return session

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.process_time()
        try:
            yield
        finally:
            self.seconds += time.process_time() - start

    def apply(self, add: NDArray, remove: NDArray, by: NDArray | int = CLICK) -> None:
        """Change the mask; ``by``, one or (N,), is the origin of what is added."""
        self.mask[tuple(remove.T)] = False
        self.mask[tuple(add.T)] = True
        if self.origin is not None:
            self.origin[tuple(remove.T)] = 0
            self.origin[tuple(add.T)] = by
        self.parsed = None

    def write_case(self, folder: Path) -> None:
        """Write label.nrrd, initial.nrrd and, where it is known, origin.nrrd for `airwayseg-train cases add`."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {"label": self.mask, "initial": self.first, "origin": self.origin}
        for name, array in arrays.items():
            if array is not None:
                write_nrrd(folder / f"{name}.nrrd", array.astype(np.uint8), self.ct)

    # Tools -----------------------------------------------------------------------------------------------------------

    @property
    def scan(self) -> Scan:
        """What the tools work on."""
        z, y, x = self.mask.shape
        probability = None if self.probability is None else Part(self.probability)
        return Scan(Part(self.mask), self.ct.spacing_mm, (z, y, x), self.ct.array, probability)

    def grown(self, points: NDArray) -> Growth:
        """What a click (or several), (K, 3), would add; AirwaySegError where nothing is seen."""
        with self._timed():
            return grow(self.scan, points)

    def beyond(self, point: NDArray) -> Voxels:
        """What lies beyond a click (3,); AirwaySegError where nothing does."""
        with self._timed():
            return beyond(self.scan, point).voxels.astype(np.intp)

    def between(self, this: NDArray, that: NDArray) -> Voxels:
        """What hangs at ``that`` (3,) where it is cut from ``this`` (3,), which stays."""
        with self._timed():
            return between(self.scan, this, that).voxels.astype(np.intp)

    def subtree(self, point: NDArray) -> Voxels:
        """The branch at a click (3,) with all that springs from it; the tree is measured anew where it is old."""
        with self._timed():
            parsed = self.parsed = self.parsed or self._measured()
            corner = np.array([part.start for part in parsed.box])
            apart = np.linalg.norm((parsed.lumen.voxels + corner - point) * self.ct.spacing_mm, axis=1)
            return self._below(parsed, int(parsed.branch_of_voxel()[apart.argmin()]))

    def _measured(self) -> ParsedAirways:
        return parse_airways(replace(self.ct, array=self.mask.astype(np.uint8)))

    def _below(self, parsed: ParsedAirways, number: int) -> Voxels:
        """The voxels of a branch and its subtree in a parsed mask, that are in the mask now."""
        own = np.isin(parsed.branch_of_voxel(), [branch.id for branch in parsed.tree.below(number)])
        voxels = parsed.lumen.voxels[own & parsed.in_mask] + np.array([part.start for part in parsed.box])
        return voxels[self.mask[tuple(voxels.T)]].astype(np.intp)

    # Worklist --------------------------------------------------------------------------------------------------------

    def decisions(self) -> list[Decision]:
        """What each decision that is still open would change now; those that change nothing are left out."""
        found = [*self._of_repairs(), *self._of_suspects()]
        return [one for one in found if one.key not in self.decided and (len(one.add) or len(one.remove))]

    def decide(self, decision: Decision) -> None:
        """Apply one."""
        by = np.where(decision.bridging, REPAIR, NETWORK) if len(decision.bridging) else NETWORK
        self.apply(decision.add, decision.remove, by)
        self.decided.add(decision.key)

    def _of_repairs(self) -> Iterator[Decision]:
        for number, proposal in self.proposals.items():
            key = ("repair", number)
            if proposal.state == APPLIED:
                yield Decision("applied repair", REFUSE, key, remove=self._without(proposal))
            else:
                add, bridging = self._with(proposal)
                yield Decision(f"{proposal.state} repair", ACCEPT, key, add, bridging=bridging)

    def _with(self, proposal: Proposal) -> tuple[Voxels, NDArray[np.bool_]]:
        """What the repair adds, with those that bring what it springs from, and which of it are bridges.

        Nothing where it leads nowhere.
        """
        chain = [proposal]
        for one in chain:
            hosts = set(one.bridge.joins) - set(one.fragments)
            if MAIN in hosts or any(self._holds(self.pieces.get(host)) for host in hosts):
                continue
            needed = [p for p in self.proposals.values() if p.state in (APPLIED, PROPOSED) and hosts & {*p.fragments}]
            if not needed or needed[0] in chain:
                return self._added([], [])
            chain.append(needed[0])
        pieces = [self.pieces[number] for one in chain for number in one.fragments]
        return self._added(pieces, [one.bridge.voxels.astype(np.intp) for one in chain])

    def _added(self, pieces: list[Voxels], bridges: list[Voxels]) -> tuple[Voxels, NDArray[np.bool_]]:
        """What the mask lacks of pieces and bridges, and which of it are bridges."""
        wanted = np.concatenate([no_voxels(), *pieces, *bridges])
        bridging, new = np.arange(len(wanted)) >= sum(map(len, pieces)), ~self.mask[tuple(wanted.T)]
        return wanted[new], bridging[new]

    def _without(self, proposal: Proposal) -> Voxels:
        """What goes with an applied repair: its bridge and pieces, and the repairs that hang on them."""
        there = [one for one in self.proposals.values() if all(map(self._holds, self._parts(one)))]
        if proposal not in there:
            return no_voxels()
        out = [proposal]
        for one in out:
            brought = {*one.fragments}
            hang = [p for p in there if MAIN not in p.bridge.joins and brought & ({*p.bridge.joins} - {*p.fragments})]
            out += [other for other in hang if other not in out]
        gone = np.concatenate([part for one in out for part in self._parts(one)])
        kept = [part for one in there if one not in out for part in self._parts(one)]
        stays = {tuple(voxel) for part in kept for voxel in part.tolist()}
        gone = gone[[tuple(voxel) not in stays for voxel in gone.tolist()]]
        return gone[self.mask[tuple(gone.T)]]

    def _parts(self, proposal: Proposal) -> list[Voxels]:
        parts = [proposal.bridge.voxels.astype(np.intp), *(self.pieces[number] for number in proposal.fragments)]
        return [part for part in parts if len(part)]

    def _holds(self, voxels: Voxels | None) -> bool:
        return voxels is not None and len(voxels) > 0 and self.mask[tuple(voxels.T)].mean() > IN_MASK

    def _of_suspects(self) -> Iterator[Decision]:
        for row, suspect in enumerate(self.suspects):
            key, number = ("suspect", row), int(suspect.facts.get("piece", 0))
            if suspect.kind == UNCONNECTED and number:
                add, bridging = self._joined(number)
                yield Decision(UNCONNECTED, ACCEPT, key, add, bridging=bridging)
            elif suspect.kind in (FRAGMENT, LEAK, DOUBTFUL_TIP, UNCONNECTED) and "left_out" not in suspect.facts:
                yield Decision(suspect.kind, REFUSE, key, remove=self._suspected(suspect))

    def _joined(self, number: int) -> tuple[Voxels, NDArray[np.bool_]]:
        """The piece with its bridge to the tree, and which of it is the bridge; nothing where none is seen."""
        piece = self.pieces[number]
        missing = piece[~self.mask[tuple(piece.T)]]
        if len(missing) < (1 - IN_MASK) * len(piece):
            return self._added([], [])
        if number not in self.bridges:
            try:
                with self._timed():
                    self.bridges[number] = bridge(self.scan, missing.astype(np.int32)).voxels.astype(np.intp)
            except AirwaySegError:
                self.bridges[number] = no_voxels()
        if not len(self.bridges[number]):
            return self._added([], [])
        return self._added([piece], [self.bridges[number]])

    def _suspected(self, suspect: Suspect) -> Voxels:
        """The suspect's branch with its subtree; of a fragment all, of a leak what is beyond its narrowest place."""
        if suspect.kind == LEAK:
            start_mm = self.listed.tree.branch(suspect.branch).points_mm[0]
            try:
                return self.between(*lps_to_voxels(np.array([start_mm, suspect.place_mm]), self.ct))
            except AirwaySegError:
                return self._below(self.listed, suspect.branch)
        if suspect.kind not in (FRAGMENT, UNCONNECTED):
            return self._below(self.listed, suspect.branch)
        branches = self.listed.tree
        component = branches.branch(suspect.branch).component
        firsts = [one.id for one in branches.branches if one.component == component and one.parent is None]
        return np.concatenate([no_voxels(), *(self._below(self.listed, first) for first in firsts)])


def _voxels(runs: list[list[int]]) -> Voxels:
    found = [(z, y, x) for z, y, first, count in runs for x in range(first, first + count)]
    return np.array(found, np.intp).reshape(-1, 3)
