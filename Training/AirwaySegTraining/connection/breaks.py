"""Simulated breaks of an airway tree: the broken mask, the airway that a repair should restore, and false pieces.

DeepTree (Accurate Airway Tree Segmentation in CT Scans via Anatomy-aware Multi-class Segmentation and Deep Breakage
Connection), section 2.3, made harder: several breaks on a branch, breaks at forks, wide gaps, thinned ends, and pieces
that are not airway (see `distractors`). Arrays are (Z, Y, X). Letters in shapes: N voxels of the lumen.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from AirwaySegLib.masks.sparse_mask import FORWARD_OFFSETS, Lumen, Rows, Spacing
from AirwaySegLib.tree.airway_tree import AirwayTree, Branch
from AirwaySegLib.tree.build import ParsedAirways
from AirwaySegTraining.connection.distractors import LEAST_VOXELS, add_distractors

Mask = NDArray[np.bool_]
Voxel = tuple[int, int, int]

MIDDLE, SEVERAL, FORK, THINNED, WIDE = "middle", "several", "fork", "thinned", "wide"

MOST_ORDER, LEAST_GENERATION = 2, 3
"""Peripheral branches: at most this Strahler order (tips, and branches that fork into tips), from this generation."""

LEFT_MM = 3.0
"""Shortest remainder of a tip behind a break."""

STUB_MM = 1.0
"""Shortest remainder of a branch before a break, outside its parent's lumen; 0 for a break at a fork."""

WIDE_MM = (6.0, 12.0)
"""Gaps of the kind `WIDE`: mucus and motion hide more than a third of a branch. A forking branch that is too short for
it is removed except for the stub."""

THINNED_MM, CORE = (2.0, 4.0), 0.5
"""Length on both sides of a gap that is thinned, and the share of the radius that remains."""

TRIES = 6
"""Attempts to find a break that severs a branch."""


@dataclass(frozen=True)
class BreakSettings:
    """Number and kinds of the breaks.

    ``share`` of the peripheral branches is broken; the length of a gap is a share of its branch's from ``lengths``
    (both DeepTree's); ``kinds`` are the weights of the kinds; a piece behind a break has at least ``least_voxels``,
    because the repair ignores smaller ones; ``distractors`` is the number of false pieces that are tried.
    """

    share: float = 0.5
    lengths: tuple[float, float] = (0.1, 0.3)
    kinds: tuple[tuple[str, float], ...] = ((MIDDLE, 0.3), (SEVERAL, 0.2), (FORK, 0.2), (THINNED, 0.1), (WIDE, 0.2))
    least_voxels: int = LEAST_VOXELS
    distractors: int = 20


@dataclass(frozen=True)
class Break:
    """A gap with a piece behind it.

    ``branch`` is the id (in the whole tree) of the piece's first branch; ``gap_mm`` the distance between the nearest
    voxel centres of both sides, ``before`` and ``beyond``; ``voxels_behind`` the size of the piece.
    """

    branch: int
    kind: str
    gap_mm: float
    before: Voxel
    beyond: Voxel
    voxels_behind: int


@dataclass(frozen=True, eq=False)
class Broken:
    """A broken tree: masks bool (Z, Y, X), and its breaks, one for each loose piece of airway.

    ``mask`` is the input of a repair, with false pieces; ``removed`` the airway that the repair should restore;
    ``distractors`` the false pieces, which touch neither the tree nor ``removed``.
    """

    mask: Mask
    removed: Mask
    distractors: Mask
    breaks: list[Break]


@dataclass(frozen=True, eq=False)
class _Cut:
    """Removed rows, and the pieces that become loose: each with its first branch and the piece's start on it in mm."""

    kind: str
    rows: Rows
    pieces: list[tuple[int, float]]


@dataclass(frozen=True, eq=False)
class _Airways:
    """The voxels of the tree that holds the trachea, as rows (N,) of ``lumen``.

    ``depth_mm`` is the length of the path from the root, ``along_mm`` that on the voxel's own branch, ``off`` the
    distance from the centerline as a share of the radius, at most 1 within a voxel of it; ``rows_of_branch`` by id;
    ``usable`` are the voxels of the mask.
    """

    tree: AirwayTree
    lumen: Lumen
    along_mm: NDArray[np.float64]
    depth_mm: NDArray[np.float64]
    off: NDArray[np.float64]
    rows_of_branch: list[Rows]
    usable: Mask

    @classmethod
    def of(cls, parsed: ParsedAirways) -> "_Airways":
        """The voxels of a parsed mask."""
        branches, lines, nearest = parsed.tree.branches, parsed.lines, parsed.nearest
        ends = [0.0]
        starts = []
        for branch in branches:
            starts.append(ends[branch.parent or 0])
            ends.append(starts[-1] + branch.length_mm)
        branch_index, along = lines.branch[nearest], lines.along_mm[nearest]
        order = np.argsort(branch_index, kind="stable")
        parts = np.split(order, np.searchsorted(branch_index[order], np.arange(1, len(branches))))
        off_mm = np.linalg.norm(parsed.lumen.places_mm - lines.places_mm[nearest], axis=1)
        off = np.where(off_mm < 0.9 * max(parsed.lumen.spacing_mm), 0, off_mm / lines.radii_mm[nearest])
        usable = parsed.in_mask & (parsed.lumen.components == 0)
        depth = np.array(starts)[branch_index] + along
        return cls(parsed.tree, parsed.lumen, along, depth, off, [np.empty(0, int), *parts], usable)

    def stretch(self, branch: int, from_mm: float, to_mm: float) -> Rows:
        """Rows of a branch between two positions on its centerline."""
        rows = self.rows_of_branch[branch]
        return rows[(self.along_mm[rows] >= from_mm) & (self.along_mm[rows] <= to_mm)]

    def behind(self, branch: int, from_mm: float) -> Rows:
        """Rows of a branch beyond a position on its centerline, and of all its descendants."""
        below = [self.rows_of_branch[one.id] for one in self.tree.below(branch) if one.id != branch]
        own = self.rows_of_branch[branch]
        return np.concatenate([own[self.along_mm[own] > from_mm], *below])


def break_tree(
    parsed: ParsedAirways,
    mask: Mask,
    spacing_mm: Spacing,
    rng: np.random.Generator,
    settings: BreakSettings | None = None,
    hu: NDArray[np.int16] | None = None,
    left_out: Mask | None = None,
) -> Broken:
    """Break the tree of a mask on canonical axes.

    ``parsed`` is the parse of ``mask``; only the mask's component with the trachea is kept. With ``hu``, false pieces
    are also taken from the CT's own vessels. None lies in ``left_out``, possible airway that the label leaves out. A
    voxel is removed together with the part of the centerline to which the parse assigns it. Every break severs: the
    remaining tree does not touch the piece behind it.
    """
    settings = settings or BreakSettings()
    airways = _Airways.of(parsed)
    cuts = _settled(airways, _draw_cuts(airways, settings, rng), settings.least_voxels)
    alive, loose = _after(airways, cuts, settings.least_voxels)
    corner = np.array([part.start for part in parsed.box])
    broken, removed, airway = (np.zeros(mask.shape, bool) for _ in range(3))
    for target, rows in ((broken, alive), (removed, airways.usable & ~alive)):
        target[tuple((airways.lumen.voxels[rows] + corner).T)] = True
    np.logical_or(mask, False if left_out is None else left_out, out=airway)
    points_mm = parsed.lines.places_mm + corner * np.asarray(spacing_mm)
    distractors = add_distractors(airway, spacing_mm, points_mm, parsed.lines.radii_mm, settings.distractors, rng, hu)
    breaks = _breaks(airways, cuts, alive, loose, corner)
    return Broken(broken | distractors, removed, distractors, breaks)


def peripheral(tree: AirwayTree) -> list[Branch]:
    """The branches that may be broken; see `MOST_ORDER`."""
    return [one for one in tree.main() if one.strahler <= MOST_ORDER and one.generation >= LEAST_GENERATION]


# Drawing cuts --------------------------------------------------------------------------------------------------------


def _draw_cuts(airways: _Airways, settings: BreakSettings, rng: np.random.Generator) -> list[_Cut]:
    """Cuts of a share of the peripheral branches, each of which severs the piece behind it."""
    candidates = peripheral(airways.tree)
    chosen = rng.permutation(len(candidates))[: round(settings.share * len(candidates))]
    kinds, weights = zip(*settings.kinds)
    odds = np.array(weights) / sum(weights)
    alive, cuts = airways.usable.copy(), []
    for number in chosen:
        for _ in range(TRIES):
            cut = _cut(airways, candidates[number], str(rng.choice(kinds, p=odds)), settings.lengths, rng)
            if cut is None:
                continue
            trial = alive.copy()
            trial[cut.rows] = False
            if _is_good(airways, cut, trial, settings.least_voxels):
                alive = trial
                cuts.append(cut)
                break
    return cuts


def _cut(
    airways: _Airways, branch: Branch, kind: str, lengths: tuple[float, float], rng: np.random.Generator
) -> _Cut | None:
    """A cut of the given kind; None if the branch is too short for it."""
    gap_mm = max(rng.uniform(*lengths) * branch.length_mm, 2 * max(airways.lumen.spacing_mm))
    if kind == FORK:
        return _cut_at_fork(airways, branch, gap_mm, kind)
    if kind == WIDE:
        gap_mm = rng.uniform(*WIDE_MM)
    first, last = _first_mm(branch) + STUB_MM, branch.length_mm - (0 if branch.children else LEFT_MM)
    if kind == SEVERAL:
        middle = (first + last) / 2
        gaps = [
            _gap(first, middle - LEFT_MM / 2, gap_mm / 2, rng),
            _gap(middle + LEFT_MM / 2, last, gap_mm / 2, rng),
        ]
    else:
        gaps = [_gap(first, last, gap_mm, rng)]
    found = [gap for gap in gaps if gap is not None]
    if len(found) < len(gaps):
        whole = kind == WIDE and branch.children
        return _cut_at_fork(airways, branch, 2 * (branch.length_mm - first), kind) if whole else None
    rows = [airways.stretch(branch.id, *gap) for gap in found]
    if kind == THINNED:
        reach = rng.uniform(*THINNED_MM)
        near = airways.stretch(branch.id, found[0][0] - reach, found[0][1] + reach)
        rows.append(near[airways.off[near] > CORE])
    return _Cut(kind, np.concatenate(rows), [(branch.id, to_mm) for _, to_mm in found])


def _cut_at_fork(airways: _Airways, branch: Branch, gap_mm: float, kind: str) -> _Cut:
    """A cut through the fork at a branch's end, so that its children become loose; for a tip, through its own start.

    Half of the gap is on each side of the fork. A wide gap takes the whole branch; of the children it takes only the
    starts inside the branch's lumen.
    """
    starts = [airways.tree.branch(child) for child in branch.children] or [branch]
    beyond_mm = 0.0 if kind == WIDE else gap_mm / 2 if branch.children else gap_mm
    pieces = [(one.id, min(_first_mm(one) + beyond_mm, one.length_mm)) for one in starts]
    rows = [airways.stretch(number, -1, to_mm) for number, to_mm in pieces]
    if branch.children:
        rows.append(airways.stretch(branch.id, branch.length_mm - gap_mm / 2, np.inf))
    return _Cut(kind, np.concatenate(rows), pieces)


def _first_mm(branch: Branch) -> float:
    """The position in mm where a branch leaves its parent's lumen."""
    return min(float(branch.radii_mm[0]), branch.length_mm / 2)


def _gap(first_mm: float, last_mm: float, gap_mm: float, rng: np.random.Generator) -> tuple[float, float] | None:
    """A gap at a random position between two positions; None if it is longer than their distance."""
    room = last_mm - first_mm - gap_mm
    if room < 0:
        return None
    start = first_mm + rng.uniform(0, room)
    return start, start + gap_mm


# What cuts leave -----------------------------------------------------------------------------------------------------


def _is_good(airways: _Airways, cut: _Cut, alive: Mask, least_voxels: int) -> bool:
    """Whether each piece still exists, is large enough, and touches nothing that remains beside it."""
    for piece in cut.pieces:
        rows = airways.behind(*piece)
        inside = np.zeros(len(alive), bool)
        inside[rows] = True
        living = rows[alive[rows]]
        if len(living) < least_voxels:
            return False
        for forward in FORWARD_OFFSETS:
            for offset in (np.array(forward), -np.array(forward)):
                beside = airways.lumen.rows_of(airways.lumen.voxels[living] + offset)
                beside = beside[beside >= 0]
                if (alive[beside] & ~inside[beside]).any():
                    return False
    return True


def _after(airways: _Airways, cuts: list[_Cut], least_voxels: int) -> tuple[Mask, NDArray[np.int32]]:
    """The remaining voxels, bool (N,), and the number of their component (N,): 0 for the tree, -1 for removed voxels.

    Smaller components, slivers beside a gap and parts between two gaps, are removed with the gap.
    """
    alive = airways.usable.copy()
    for cut in cuts:
        alive[cut.rows] = False
    rows = np.flatnonzero(alive)
    found = Lumen(airways.lumen.shape, airways.lumen.spacing_mm, airways.lumen.voxels[rows]).components
    few = (np.bincount(found) < least_voxels)[found]
    alive[rows[few]] = False
    component = np.full(len(alive), -1, np.int32)
    component[rows[~few]] = found[~few]
    return alive, component


def _settled(airways: _Airways, cuts: list[_Cut], least_voxels: int) -> list[_Cut]:
    """The cuts that are still good when all are made; voxels removed only for the others are restored."""
    while True:
        alive, _ = _after(airways, cuts, least_voxels)
        good = [cut for cut in cuts if _is_good(airways, cut, alive, least_voxels)]
        if len(good) == len(cuts):
            return cuts
        cuts = good


def _breaks(
    airways: _Airways, cuts: list[_Cut], alive: Mask, component: NDArray[np.int32], corner: NDArray
) -> list[Break]:
    """One break for each loose component: that of the cut before it; of two cuts with nothing between, the last."""
    sizes = np.bincount(component[component >= 0])
    found: dict[int, Break] = {}
    for cut in sorted(cuts, key=lambda one: one.pieces[0][0]):
        for piece in cut.pieces:
            behind = airways.behind(*piece)
            living = behind[alive[behind]]
            number = int(component[living[airways.depth_mm[living].argmin()]])
            before, beyond, gap_mm = _across(airways, piece[0], living[component[living] == number], behind, alive)
            ends = [tuple((airways.lumen.voxels[row] + corner).tolist()) for row in (before, beyond)]
            found[number] = Break(piece[0], cut.kind, gap_mm, ends[0], ends[1], int(sizes[number]))
    return list(found.values())


def _across(airways: _Airways, branch: int, piece: Rows, behind: Rows, alive: Mask) -> tuple[int, int, float]:
    """The nearest pair of rows, on the side of the trachea and in the piece, and their distance in mm."""
    other = alive.copy()
    other[behind] = False
    path = airways.tree.path_to(branch)[::-1]
    for count in (4, len(path)):
        rows = np.concatenate([airways.rows_of_branch[one.id] for one in path[:count]])
        rows = rows[other[rows]]
        if len(rows):
            break
    points_mm = airways.lumen.places_mm
    distance, nearest = cKDTree(points_mm[rows]).query(points_mm[piece])
    best = int(distance.argmin())
    return int(rows[nearest[best]]), int(piece[best]), float(distance[best])
