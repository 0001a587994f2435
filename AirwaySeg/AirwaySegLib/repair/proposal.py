"""A proposed repair: its bridge, what it joins, its state and reason; lists of them in figures and as JSON."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.files.json_documents import read_document, triple
from AirwaySegLib.repair.bridge import MAIN, Bridge
from AirwaySegLib.tree.fragment_joints import Point

FORMAT = "AirwaySeg repairs 1"
APPLIED, PROPOSED, REFUSED = "applied", "proposed", "refused"
STATES = (APPLIED, PROPOSED, REFUSED)


@dataclass(frozen=True)
class Piece:
    """A component in figures: volume, length of its centerlines with both ends, and mean radius."""

    volume_mm3: float
    length_mm: float
    radius_mm: float


@dataclass(frozen=True, eq=False)
class Proposal:
    """A bridge and what becomes of it.

    Parameters
    ----------
    number
        1, 2, ...: its value in the repairs map.
    bridge
        What is proposed.
    fragments
        Numbers of the components that it brings to the tree; empty where it brings none.
    branch
        Id of the main tree's branch it joins, directly or through fragments that are joined before it; 0 where it
        reaches none.
    place_mm
        The bridge's middle, (x, y, z) in LPS.
    state, reason
        One of `STATES`; why it is not applied, as a sentence, empty if it is.
    pieces
        The fragments in figures, by number.
    """

    number: int
    bridge: Bridge
    fragments: tuple[int, ...]
    branch: int
    place_mm: Point
    state: str
    reason: str
    pieces: dict[int, Piece] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, float]:
        """The bridge's facts, and volume and length of what it brings."""
        brought = {
            "brought_mm3": round(sum(piece.volume_mm3 for piece in self.pieces.values()), 3),
            "brought_mm": round(sum(piece.length_mm for piece in self.pieces.values()), 3),
        }
        return self.bridge.facts | brought


def repairs_map(shape: tuple[int, ...], proposals: list[Proposal]) -> NDArray[np.uint16]:
    """Number of the proposal whose bridge each voxel is, 0 elsewhere; where several overlap, the first decided."""
    numbers = np.zeros(shape, np.uint16)
    for proposal in reversed(proposals):
        numbers[tuple(proposal.bridge.voxels.T)] = proposal.number
    return numbers


def to_plain(proposals: list[Proposal]) -> dict[str, Any]:
    """What JSON can hold. Voxels are runs along x on canonical axes, rows (z, y, first x, count)."""
    repairs = [_proposal_to_plain(proposal) for proposal in proposals]
    return {"format": FORMAT, "space": "LPS", "unit": "mm", "repairs": repairs}


def to_json(proposals: list[Proposal]) -> str:
    """Text for `from_json`."""
    return json.dumps(to_plain(proposals), indent=1)


def from_json(text: str) -> list[Proposal]:
    """Read what `to_json` wrote.

    Raises
    ------
    AirwaySegError
        If it is something else.
    """
    return read_document(
        text, FORMAT, "list of repairs", lambda document: [_proposal_from_plain(plain) for plain in document["repairs"]]
    )


def _proposal_to_plain(proposal: Proposal) -> dict[str, Any]:
    bridge = proposal.bridge
    return {
        "number": proposal.number,
        "state": proposal.state,
        "reason": proposal.reason,
        "method": bridge.method,
        "score": round(bridge.score, 4),
        "length_mm": round(bridge.length_mm, 3),
        "joins": list(bridge.joins),
        "branch": proposal.branch,
        "place_mm": list(proposal.place_mm),
        "fragments": [{"number": number, **asdict(piece)} for number, piece in proposal.pieces.items()],
        "facts": {name: round(float(value), 4) for name, value in bridge.facts.items()},
        "voxel_runs": _runs(bridge.voxels),
    }


def _proposal_from_plain(plain: dict[str, Any]) -> Proposal:
    pieces = {
        int(piece["number"]): Piece(*(float(piece[name]) for name in ("volume_mm3", "length_mm", "radius_mm")))
        for piece in plain["fragments"]
    }
    if plain["state"] not in STATES:
        raise ValueError(f"a repair that is {plain['state']!r}")
    bridge = Bridge(
        joins=tuple(int(number) for number in plain["joins"]),
        voxels=_voxels(plain["voxel_runs"]),
        score=float(plain["score"]),
        method=str(plain["method"]),
        length_mm=float(plain["length_mm"]),
        facts={str(name): float(value) for name, value in plain["facts"].items()},
    )
    number, branch, reason = int(plain["number"]), int(plain["branch"]), str(plain["reason"])
    return Proposal(number, bridge, tuple(pieces), branch, triple(plain["place_mm"]), plain["state"], reason, pieces)


def _runs(voxels: NDArray[np.int32]) -> list[list[int]]:
    ordered = voxels[np.lexsort(voxels.T[::-1])]
    first = np.flatnonzero(np.any(np.diff(ordered, axis=0, prepend=ordered[:1] - 2) != (0, 0, 1), axis=1))
    counts = np.diff(first, append=len(ordered))
    return np.column_stack([ordered[first], counts]).tolist()


def _voxels(runs: list[list[int]]) -> NDArray[np.int32]:
    found = [(z, y, x) for z, y, first, count in runs for x in range(first, first + count)]
    return np.array(found, np.int32).reshape(-1, 3)


def fragments_to_plain(
    labels: NDArray[np.integer], corner: NDArray[np.int32], proposals: list[Proposal]
) -> list[dict[str, Any]]:
    """Every fragment with its number, whether it was joined, and its voxels as runs, as `to_plain` has them.

    ``labels`` (Z, Y, X) are the components' numbers on the part of the canonical grid that begins at ``corner``.
    """
    voxels = np.argwhere(labels > MAIN)
    numbers = labels[tuple(voxels.T)]
    order = np.argsort(numbers, kind="stable")
    found, first = np.unique(numbers[order], return_index=True)
    joined = fragments_of(proposals)
    return [
        {"number": number, "joined": number in joined, "voxel_runs": _runs((part + corner).astype(np.int32))}
        for number, part in zip(found.tolist(), np.split(voxels[order], first)[1:], strict=True)
    ]


def facts(labels: NDArray[np.integer], proposals: list[Proposal]) -> str:
    """One line: fragments, proposals by state, and the voxels that the tree gained."""
    states = [proposal.state for proposal in proposals]
    joined = fragments_of(proposals)
    fragments = np.count_nonzero(sizes_of(labels)[MAIN + 1 :])
    words = [f"fragments: {fragments}", f"proposals: {len(proposals)}"]
    words += [f"{state}: {states.count(state)}" for state in (APPLIED, PROPOSED, REFUSED)]
    words += [f"fragments joined: {len(joined)}", f"voxels added: {voxels_added(labels, proposals)}"]
    return "   ·   ".join(words)


def voxels_added(labels: NDArray[np.integer], proposals: list[Proposal]) -> int:
    """What the tree gains by the applied proposals; a voxel of two bridges counts once."""
    drawn = [proposal.bridge.voxels for proposal in proposals if proposal.state == APPLIED]
    bridges = np.unique(np.concatenate([np.empty((0, 3), np.int32), *drawn]), axis=0)
    return len(bridges) + int(sizes_of(labels)[list(fragments_of(proposals))].sum())


def sizes_of(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Voxels of each component by its number."""
    return np.bincount(labels[labels > 0], minlength=MAIN + 1)  # of the background there are a thousand times as many


def fragments_of(proposals: list[Proposal]) -> set[int]:
    """Numbers of the components that the applied proposals bring to the tree."""
    return {number for proposal in proposals if proposal.state == APPLIED for number in proposal.fragments}
