"""Bridges by two questions: is a loose piece airway, and where does it come from? All pieces are answered together."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from AirwaySegLib.repair.arborescence import Edge, arborescence
from AirwaySegLib.repair.bridge import MAIN, NETWORK, PATH, Bridge
from AirwaySegLib.repair.decide import branches_by_component
from AirwaySegLib.repair.path_bridges import Evidence, PathSearch, Spacing
from AirwaySegLib.repair.path_score import find_pairs, joinable_components, origin_probability, utility_of
from AirwaySegLib.repair.piece_score import airway_probability, facts_of
from AirwaySegLib.tree.build import ParsedAirways
from AirwaySegLib.tree.fragment_ends import Course, Facts, Floats
from AirwaySegLib.tree.fragment_joints import Pairs

SAME_PLACE_MM = 6.0
"""Two ways from one end of a piece to one component that arrive so near to each other are one."""

SAME_ORIGIN_MM = 12.0
"""Ways from a piece to one component that arrive so near to each other differ in little: their probabilities add up."""

SAME_GAP_MM = 4.0
"""The network's bridge and a path that come so near to each other cross the same gap."""

LEAST_SCORE = 0.1
"""Of a bridge that is worth a proposal."""

NO_ORIGIN = -1e3
"""Weight of no origin: a group of pieces is told how its members hang together even if it hangs on nothing."""

LEAST_ORIGIN = 0.2
"""Of the likeliest origin of a piece, if the piece is to be joined for being airway, wherever it may come from. With
this rule 95 % of the joined pieces of five simulated cases had the right origin; without it 98 % of fewer pieces."""

ALONE = 0.83
"""What a score of a mask alone counts: shape tells little of what is airway. So half as many false pieces of three
simulated cases are joined (16 instead of 32 in a hundred), and 8 in a hundred of the length of true ones are not."""

LEADS_ON = 0.8
"""How much of the probability of what springs from a piece counts for the piece: what leads to airway is airway."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A possible origin of a piece: the component it would come from, where the way arrives, and what would be drawn.

    ``voxels`` (N, 3), ``joins`` and ``length_mm`` are those of a `Bridge`, ``method`` who drew it; ``path`` is the path
    there where the network did.
    """

    piece: int
    parent: int
    arrives_mm: Floats
    joins: tuple[int, ...]
    voxels: NDArray[np.int32]
    length_mm: float
    method: str
    facts: dict[str, float] = field(default_factory=dict)
    path: "Candidate | None" = None


@dataclass(frozen=True, eq=False)
class Found:
    """The facts of all components by name, each by number, and the candidates of all pieces."""

    pieces: Facts
    candidates: list[Candidate]


def bridges_by_origin(found: Found) -> list[Bridge]:
    """Bridges to decide on: first, the best first, those that the pieces come by, then what else might be.

    Each piece's origin is taken so that all of them hang together from the tree on and the product of P(this is where
    it comes from) (`path_score`) and the origin's own P(airway) is greatest (`arborescence`). Then nothing comes from
    what springs from it: of the middle one of three pieces in a row, both neighbours are as good an origin by
    themselves. A piece that others spring from is the more probably airway (`LEADS_ON`).

    The score of the bridge by which a piece comes is P(airway) of the piece (`piece_score`) times P(one of the ways
    that were found is right): what is airway comes from somewhere, and doubt between two origins is no doubt of the
    piece. That of another bridge, and of one whose origin is less likely than `LEAST_ORIGIN`, is P(airway) * P(this is
    where it comes from); that of a bridge of a mask alone is this times `ALONE`.
    """
    candidates = found.candidates
    if not candidates:
        return []
    utility = utility_of(columns_of(candidates))
    pieces = np.array([one.piece for one in candidates])
    airway = airway_probability(found.pieces)
    airway[MAIN] = 1.0
    best: dict[Edge, int] = {}
    for row, one in enumerate(candidates):
        edge = (one.parent, one.piece)
        if edge not in best or utility[row] > utility[best[edge]]:
            best[edge] = row
    weights = {edge: float(utility[row] + np.log(airway[edge[0]] + 1e-12)) for edge, row in best.items()}
    nodes = {number for edge in best for number in edge} - {MAIN}
    weights |= {(MAIN, node): NO_ORIGIN for node in nodes if (MAIN, node) not in weights}
    parents = arborescence(weights, MAIN)
    chosen = {best[parent, piece] for piece, parent in parents.items() if (parent, piece) in best}
    above = _ancestors(parents)
    possible = np.array([one.piece not in above[one.parent] for one in candidates])
    origin = np.zeros(len(candidates))
    origin[possible] = origin_probability(utility[possible], pieces[possible])
    some = np.bincount(pieces, origin)
    origin = _of_one_origin(candidates, origin)
    certain = {piece: origin[best[edge]] for piece, parent in parents.items() if (edge := (parent, piece)) in best}
    airway = _with_what_springs(airway, parents, certain)
    scores = origin * airway[pieces]
    if {"open_share", "probability"} & found.pieces.keys():
        joining = np.array([row in chosen and origin[row] >= LEAST_ORIGIN for row in range(len(candidates))])
        scores[joining] = (some[pieces] * airway[pieces])[joining]
    else:
        scores *= ALONE
    order = sorted(range(len(candidates)), key=lambda row: (row not in chosen, -scores[row]))
    return [
        _bridge(candidates[row], float(scores[row]), float(airway[candidates[row].piece]), float(origin[row]))
        for row in order
        if scores[row] >= LEAST_SCORE
    ]


def _of_one_origin(candidates: list[Candidate], origin: Floats) -> Floats:
    """The probability of each way's origin: the likeliest way of several has that of all of them, (C,)."""
    together = origin.copy()
    rows_of: dict[Edge, list[int]] = {}
    for row, one in enumerate(candidates):
        rows_of.setdefault((one.parent, one.piece), []).append(row)
    for rows in rows_of.values():
        best = max(rows, key=lambda row: origin[row])
        arrives = candidates[best].arrives_mm
        near = [row for row in rows if np.linalg.norm(candidates[row].arrives_mm - arrives) <= SAME_ORIGIN_MM]
        together[best] = origin[near].sum()
    return together


def _with_what_springs(airway: Floats, parents: dict[int, int], origin: dict[int, Floats]) -> Floats:
    """P(airway) by number when what springs from each piece is counted, tips first."""
    airway, above = airway.copy(), _ancestors(parents)
    for piece in sorted(parents, key=lambda one: -len(above[one])):
        parent = parents[piece]
        if parent != MAIN and piece in origin:
            airway[parent] = 1 - (1 - airway[parent]) * (1 - LEADS_ON * airway[piece] * origin[piece])
    return airway


def _ancestors(parents: dict[int, int]) -> dict[int, list[int]]:
    """Each piece, and the tree, with all that it comes from and itself."""
    found: dict[int, list[int]] = {MAIN: [MAIN]}
    for piece in parents:
        way = [piece]
        while way[-1] not in found:
            way.append(parents[way[-1]])
        for one in way[-2::-1]:
            found[one] = [*found[parents[one]], one]
    return found


def _bridge(one: Candidate, score: float, airway: float, origin: float) -> Bridge:
    facts = {name: round(value, 3) for name, value in one.facts.items()}
    facts |= {"airway": round(airway, 4), "origin": round(origin, 4)}
    instead = None if one.path is None else _bridge(one.path, score, airway, origin)
    return Bridge(one.joins, one.voxels, min(max(score, 0.0), 1.0), one.method, one.length_mm, facts, instead)


def columns_of(candidates: list[Candidate]) -> Facts:
    """The candidates' facts by name, each (C,); a fact that a candidate lacks is 0."""
    names = {name for one in candidates for name in one.facts}
    return {name: np.array([one.facts.get(name, 0.0) for one in candidates]) for name in sorted(names)}


def find_origins(
    parsed: ParsedAirways, labels: NDArray, spacing_mm: Spacing, evidence: Evidence, network: list[Bridge] | None = None
) -> Found:
    """The facts of the pieces, and every way by which each may have come.

    Parameters
    ----------
    parsed
        The mask of all components, `labels > 0`, as a tree.
    labels
        (Z, Y, X) component numbers on the canonical grid; 1 is the main tree.
    spacing_mm
        (z, y, x).
    evidence
        CT and probability on the same grid, as far as there are any.
    network
        What the repair network proposes; None where it has not looked.
    """
    courses = courses_on_grid(parsed, labels)
    pieces = facts_of(courses, labels, spacing_mm, evidence)
    joinable = joinable_components(pieces, np.bincount(labels[labels > 0], minlength=len(pieces["length_mm"])))
    joinable[[n for bridge in network or [] for n in bridge.joins]] = True
    pairs = find_pairs(courses, pieces, joinable, _joined_by(network or []))
    if pairs is None:
        return Found(pieces, [])
    search = PathSearch.of(labels, spacing_mm, evidence, joinable)
    found: list[Candidate] = []
    for row in range(len(pairs)):
        pair = pairs.take(np.array([row]))
        path = search.path(pair)
        if path is None:
            continue
        piece, parent = int(pair.ends.components[0]), int(pair.others.components[0])
        arrives = pair.others.points_mm[0]
        found.append(Candidate(piece, parent, arrives, path.joins, path.voxels, path.length_mm, PATH, path.facts))
    found = _different(found)
    return Found(pieces, found if network is None else _with_network(found, pairs, network, spacing_mm))


def courses_on_grid(parsed: ParsedAirways, labels: NDArray) -> list[Course]:
    """All branches with their components' numbers and points (z, y, x) in mm from the grid's first voxel."""
    corner_mm = np.array([side.start for side in parsed.box]) * np.asarray(parsed.lumen.spacing_mm)
    found = []
    for number, branches in branches_by_component(parsed, labels, parsed.branch_of_voxel()).items():
        for branch in branches:
            part, lines = parsed.lines.of(branch.id - 1), parsed.lines
            places, along = lines.places_mm[part] + corner_mm, lines.along_mm[part]
            kind = branch.parent is None, not branch.children
            found.append(Course(number, branch.id, places, lines.radii_mm[part], along, *kind))
    return found


def _joined_by(network: list[Bridge]) -> NDArray[np.int64]:
    pairs = [(one, other) for bridge in network for one in bridge.joins for other in bridge.joins if one < other]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _different(candidates: list[Candidate]) -> list[Candidate]:
    """Of the ways from a piece to a component that arrive at one place, the likeliest."""
    if not candidates:
        return []
    utility = utility_of(columns_of(candidates))
    kept: dict[Edge, list[Candidate]] = {}
    for row in np.argsort(-utility, kind="stable"):
        one = candidates[row]
        others = kept.setdefault((one.parent, one.piece), [])
        if all(np.linalg.norm(one.arrives_mm - other.arrives_mm) > SAME_PLACE_MM for other in others):
            others.append(one)
    return [one for others in kept.values() for one in others]


def _with_network(
    candidates: list[Candidate], pairs: Pairs, network: list[Bridge], spacing_mm: Spacing
) -> list[Candidate]:
    """The candidates with what the network says of them, and its bridges where there is no path."""
    silent = {"network": 0.0, "no_path": 0.0}
    found = [replace(one, facts=one.facts | silent) for one in candidates]
    for bridge in sorted(network, key=lambda each: each.score):  # the surest last: it counts
        places = cKDTree(bridge.voxels * np.asarray(spacing_mm))
        apart = [
            places.query(one.voxels * np.asarray(spacing_mm))[0].min()
            if one.piece in bridge.joins and one.parent in bridge.joins
            else np.inf
            for one in found
        ]
        for edge in [(one, other) for one in bridge.joins for other in bridge.joins if one not in (other, MAIN)]:
            rows = [row for row, one in enumerate(found[: len(apart)]) if (one.piece, one.parent) == edge]
            nearest = min(rows, key=lambda row: apart[row], default=-1)
            if nearest >= 0 and apart[nearest] <= SAME_GAP_MM:
                found[nearest] = _drawn_by_network(found[nearest], bridge, found[nearest].facts)
            else:
                found += _without_path(pairs, edge, bridge, places)
    return found


def _drawn_by_network(one: Candidate, bridge: Bridge, facts: dict[str, float]) -> Candidate:
    facts = facts | {"network": bridge.score}
    drawn = Candidate(one.piece, one.parent, one.arrives_mm, bridge.joins, bridge.voxels, bridge.length_mm, NETWORK)
    path = one.path if one.method == NETWORK else replace(one, facts=facts)
    return replace(drawn, facts=facts, path=path)


def _without_path(pairs: Pairs, edge: Edge, bridge: Bridge, places: cKDTree) -> list[Candidate]:
    """The network's bridge with the facts of the pair nearest to it, where there is no way between a pair's points."""
    rows = np.flatnonzero((pairs.ends.components == edge[0]) & (pairs.others.components == edge[1]))
    if not len(rows):
        return []
    middle_mm = (pairs.ends.points_mm[rows] + pairs.others.points_mm[rows]) / 2
    row = rows[places.query(middle_mm)[0].argmin()]
    facts = {name: float(values[row]) for name, values in pairs.facts.items()} | {"no_path": 1.0}
    empty = Candidate(*edge, pairs.others.points_mm[row], bridge.joins, bridge.voxels, bridge.length_mm, NETWORK)
    return [_drawn_by_network(empty, bridge, facts)]
