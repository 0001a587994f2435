"""Where voxels of a mask touch: diagonal contacts joined by faces, neighbouring airways that fuse kept apart.

Masks are bool (Z, Y, X), probabilities uint8 (0..255) on the same grid.
"""

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import DisjointSet
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize

from AirwaySegLib.masks.components import Mask, bounding_box
from AirwaySegLib.masks.minimum_cut import minimum_cut
from AirwaySegLib.masks.sparse_mask import FACES, FORWARD_OFFSETS, Lumen, Rows

LEAST_LOOP_VOXELS = 6
"""Steps of the skeleton around a loop: a shorter one is a ragged surface."""

REACH_VOXELS = 5
"""Two airways are parted within so many steps of the skeleton to both sides of where they touch."""

LARGEST_CUT_VOXELS = 6
"""What has to be taken away between two airways that touch; a wider connection is a fork."""

VALLEY = 0.98
"""The voxels taken away are on average less probable than the airway on either side, by this factor at least."""

ROUNDS = 2
"""Airways may touch several times; after a round those that are left are sought again."""

UNIT = (1.0, 1.0, 1.0)
_DIAGONALS = [offset for offset in FORWARD_OFFSETS if offset not in FACES]


def joined_by_faces(mask: NDArray, probability: NDArray[np.uint8] | None = None) -> Mask:
    """The mask with a voxel added where parts of it touch by an edge only, two where by a corner.

    Programs that count neighbours by faces would otherwise see several parts where there is one. Of the voxels that can
    join a contact the more probable are taken, and of several contacts between two parts the most probable one. Parts
    that do not touch stay apart; no component (26 neighbours) is joined to another.
    """
    joined = np.array(mask, dtype=bool)
    box = bounding_box(mask)
    if box is None:
        return joined
    lumen = Lumen.of(joined[box], UNIT)
    parts = lumen.pieces(FACES[3:])
    if parts.max() == lumen.components.max():
        return joined
    likely = np.zeros(lumen.shape, np.uint8) if probability is None else probability[box]
    contacts = _contacts(lumen, parts, likely)
    groups = DisjointSet(range(int(parts.max()) + 1))
    added = joined[box]
    for _, _, one, other, between in sorted(contacts, key=lambda contact: contact[:2]):
        if groups.merge(one, other):
            added[tuple(np.array(between).T)] = True
    return joined


def _contacts(
    lumen: Lumen, parts: NDArray[np.int32], likely: NDArray[np.uint8]
) -> list[tuple[int, int, int, int, list[tuple[int, ...]]]]:
    """Diagonal contacts between parts: voxels to add, less their least probability, both parts, and those voxels."""
    found = []
    for offset in _DIAGONALS:
        first, second = lumen.neighbours([offset])
        apart = parts[first] != parts[second]
        for row, other in zip(first[apart].tolist(), second[apart].tolist(), strict=True):
            ways = [_voxels_on(lumen.voxels[row], order) for order in itertools.permutations(_steps(offset))]
            worth = [min(int(likely[voxel]) for voxel in way) for way in ways]
            best = int(np.argmax(worth))
            found.append((len(ways[best]), -worth[best], int(parts[row]), int(parts[other]), ways[best]))
    return found


def _steps(offset: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """The steps along single axes that make up an offset."""
    z, y, x = offset
    return [step for step in ((z, 0, 0), (0, y, 0), (0, 0, x)) if any(step)]


def _voxels_on(start: NDArray, steps: tuple[tuple[int, int, int], ...]) -> list[tuple[int, ...]]:
    """The voxels between the start and the end of some steps."""
    places = np.cumsum([start, *steps], axis=0)[1:-1]
    return [tuple(place) for place in places.tolist()]


def kept_apart(mask: NDArray, probability: NDArray[np.uint8]) -> Mask:
    """The mask without the few voxels by which airways that run beside each other touch.

    An airway tree has no loops. Each loop of the mask's skeleton is opened at its weakest connection: that with the
    thinnest lumen, and of equal ones the least probable. Within `REACH_VOXELS` to both sides of it the least probable
    voxels are sought that part both sides (a minimum cut). They are taken away if they are at most
    `LARGEST_CUT_VOXELS` and lie in a valley of the probability (`VALLEY`). Both sides are still joined by the rest of
    the loop, so that nothing falls off; a voxel that would is kept.
    """
    apart = np.array(mask, dtype=bool)
    box = bounding_box(mask)
    if box is None:
        return apart
    part, likely = apart[box], probability[box]
    for _ in range(ROUNDS):
        lumen = Lumen.of(part, UNIT)
        pieces = int(lumen.components.max())
        taken = [rows for rows in _cuts(lumen, part, likely) if len(rows)]
        changed = False
        for rows in taken:
            voxels = tuple(lumen.voxels[rows].T)
            part[voxels] = False
            if _falls_apart(part, lumen.voxels[rows]) and int(Lumen.of(part, UNIT).components.max()) > pieces:
                part[voxels] = True
            else:
                changed = True
        if not changed:
            break
    return apart


def _falls_apart(part: Mask, taken: NDArray) -> bool:
    """Whether what is left around some voxels that were taken away is in several pieces there."""
    low, high = np.maximum(taken.min(axis=0) - 1, 0), taken.max(axis=0) + 2
    z, y, x = (slice(int(first), int(last)) for first, last in zip(low, high, strict=True))
    return int(Lumen.of(part[z, y, x], UNIT).components.max(initial=0)) > 0


def _cuts(lumen: Lumen, part: Mask, likely: NDArray[np.uint8]) -> list[Rows]:
    """Rows of the lumen's voxels to take away, for each loop."""
    line = np.flatnonzero(skeletonize(part, method="lee")[tuple(lumen.voxels.T)])
    skeleton = Lumen(lumen.shape, UNIT, lumen.voxels[line])
    first, second = skeleton.neighbours()
    values = likely[tuple(lumen.voxels.T)].astype(float)
    wide = lumen.to_wall(skeleton.places_mm)
    # Thin before improbable: the probability's whole range counts for half a voxel of radius.
    strength = np.minimum(wide[first], wide[second]) + np.minimum(values[line][first], values[line][second]) / 510
    steps = np.linalg.norm(skeleton.places_mm[first] - skeleton.places_mm[second], axis=1)
    count = len(line)
    weights = 1 + strength.max(initial=0) - strength + 1e-3 * steps
    tree = minimum_spanning_tree(coo_array((weights, (first, second)), shape=(count, count)).tocsr()).tocoo()
    kept = np.isin(first * count + second, tree.row.astype(np.int64) * count + tree.col)
    walk = csr_array(coo_array((np.ones(len(tree.row)), (tree.row, tree.col)), shape=(count, count)))
    nearest = cKDTree(skeleton.places_mm).query(lumen.places_mm)[1]
    cuts = []
    for one, other in zip(first[~kept].tolist(), second[~kept].tolist(), strict=True):
        loop = _way(walk, one, other)
        if len(loop) >= LEAST_LOOP_VOXELS:
            cuts.append(_cut(lumen, values, line, nearest, loop))
    return cuts


def _way(walk: csr_array, start: int, end: int) -> list[int]:
    """The nodes of a tree between two of them, both included."""
    _, before = breadth_first_order(walk, start, directed=False)
    way = [end]
    while way[-1] != start:
        way.append(int(before[way[-1]]))
    return way[::-1]


def _cut(lumen: Lumen, values: NDArray[np.float64], line: Rows, nearest: Rows, loop: list[int]) -> Rows:
    """The least probable rows that part both ends of a loop's way, which touch; none if that would cut a fork."""
    reach = min(REACH_VOXELS, (len(loop) - 1) // 2)
    one, other = loop[: reach + 1], loop[::-1][: reach + 1]
    near = np.flatnonzero(np.isin(nearest, one + other))
    # What lies on the skeleton two steps away from the contact is surely one airway or the other.
    source, sink = (np.isin(near, line[sure[2:]]) for sure in (one, other))
    if not source.any() or not sink.any():
        return np.empty(0, np.intp)
    cut = near[minimum_cut(lumen.voxels[near], values[near], source, sink)]
    peaks = [float(np.median(values[near[which]])) for which in (source, sink)]
    in_valley = len(cut) > 0 and values[cut].mean() <= VALLEY * min(peaks)
    return cut if in_valley and len(cut) <= LARGEST_CUT_VOXELS else np.empty(0, np.intp)
