"""Thinning of a mask to lines one voxel wide, on as little of the volume as it needs, and without losing thin bars.

Masks are bool (Z, Y, X); neighbours are the 26 around a voxel.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from skimage.graph import MCP_Geometric
from skimage.morphology import skeletonize

from AirwaySegLib.masks.components import Box
from AirwaySegLib.masks.sparse_mask import Lumen, Rows
from AirwaySegLib.tree.known_parts import KnownParts, checksum

Mask = NDArray[np.bool_]
Voxels = NDArray[np.int32]

TILE, HALO = 64, 24
"""A tile is thinned with so many voxels around it; more than the half width of a trachea at usual spacings."""

LARGE = 10_000_000
"""From so many voxels on tiles are worth their overlap: each is done after as many rounds as its own airways need."""

WITNESS = 6
"""Neighbouring tiles must agree this far beyond their common border."""

COVERED_RADII, COVERED_VOXELS = 1.5, 2.0
"""A skeleton voxel covers the mask as far as so many of its radii (distances to the wall) and so many voxels more.
1.5 covers the rim of a tube that is cut off flat (the square root of 2) with some to spare."""

CELL = 4
"""Voxels along each side of a cell."""


def thinned(lumen: Lumen, known: KnownParts | None = None) -> Voxels:
    """The voxels (K, 3) that Lee thinning (scikit-image's) leaves of a mask; pieces may be ``known``.

    Thinning counts voxels: where they are longer along one axis a fork would creep along it. So such voxels are thinned
    as several, as many as make them about cubes. A large volume is thinned tile by tile: thinning looks at a voxel's
    neighbours only, so that a tile with enough of its surroundings gives what the whole would, and tiles without thick
    airways are done after a few rounds. Where two tiles disagree near their common border, all is thinned at once.

    Lee, Kashyap and Chu 1994, doi:10.1006/cgip.1994.1042. Straight bars of even width vanish in it (scikit-image issue
    3757): see `completed`.
    """
    spacing = np.asarray(lumen.spacing_mm)
    parts = np.maximum(1, np.rint(spacing / spacing.min())).astype(int)
    if parts.max() == 1:
        return _thinned(lumen, known or KnownParts())
    finer = lumen.array()
    for axis, count in enumerate(parts.tolist()):
        finer = np.repeat(finer, count, axis=axis)
    line = _thinned(Lumen.of(finer, lumen.spacing_mm), known or KnownParts())
    return line // parts.astype(np.int32)


def _thinned(lumen: Lumen, known: KnownParts) -> Voxels:
    tiled = _thin_tiles(lumen, known) if len(lumen) and math.prod(lumen.shape) > LARGE else None
    return np.argwhere(skeletonize(lumen.array())).astype(np.int32) if tiled is None else tiled.voxels


def _thin_tiles(lumen: Lumen, known: KnownParts) -> Lumen | None:
    """The skeleton put together from tiles; None if two of them disagree."""
    parts: list[Voxels] = []
    seen: list[tuple[Box, Voxels]] = []
    for inner in _tiles(lumen):
        around = _grown(inner, HALO, lumen.shape)
        corner = np.array([part.start for part in around], np.int32)
        line = _thin_tile(lumen.voxels[lumen.rows_in(around)] - corner, known) + corner
        parts.append(line[_is_in(line, inner)])
        wide = _grown(inner, WITNESS, lumen.shape)
        seen.append((wide, line[_is_in(line, wide)]))
    line = np.concatenate(parts)
    skeleton = Lumen(lumen.shape, lumen.spacing_mm, line[np.lexsort(line.T[::-1])])
    agree = all(len(skeleton.rows_in(wide)) == len(line) and (skeleton.rows_of(line) >= 0).all() for wide, line in seen)
    return skeleton if agree else None


def _tiles(lumen: Lumen) -> list[Box]:
    """The tiles in which there is lumen, in C order: in each the box of its voxels."""
    counts = [count // TILE + 1 for count in lumen.shape]
    numbers = np.ravel_multi_index(tuple((lumen.voxels // TILE).T), counts)
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    voxels = lumen.voxels[order]
    lows, highs = np.minimum.reduceat(voxels, starts).tolist(), (np.maximum.reduceat(voxels, starts) + 1).tolist()
    return [_box(low, high, lumen.shape) for low, high in zip(lows, highs, strict=True)]


def _thin_tile(voxels: Voxels, known: KnownParts) -> Voxels:
    """The skeleton (K, 3) of a tile's voxels (N, 3), which count from 0 to less than 256 along each axis, in C order.

    Pieces that do not touch are thinned one by one, each in its own box: thinning never sees more than a voxel's
    neighbours.
    """
    key = checksum(voxels.astype(np.uint8))
    found = known.find("tile", key)
    if found is None:
        pieces = Lumen((256, 256, 256), (1.0, 1.0, 1.0), voxels).components
        order = np.argsort(pieces, kind="stable")
        ends = np.cumsum(np.bincount(pieces))[:-1]
        lines, keys = zip(*[_thin_piece(piece, known) for piece in np.split(voxels[order], ends)], strict=True)
        line = np.concatenate(lines).astype(np.uint8)
        found = known.keep("tile", key, (line, np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1)))
    for piece in found[1]:
        known.find("piece", piece.tobytes())  # for the next measurement, which may not know the tile
    return found[0].astype(np.int32)


def _thin_piece(voxels: Voxels, known: KnownParts) -> tuple[Voxels, bytes]:
    """The skeleton (K, 3) of voxels (N, 3) that touch each other, in C order, and the voxels' checksum."""
    low = voxels.min(axis=0)
    small = (voxels - low).astype(np.uint8)
    key = checksum(small)
    found = known.find("piece", key)
    if found is None:
        part = np.zeros(small.max(axis=0).astype(int) + 1, bool)
        part[tuple(small.T)] = True
        found = known.keep("piece", key, (np.argwhere(skeletonize(part)).astype(np.uint8),))
    return found[0] + low, key


def _is_in(voxels: Voxels, box: Box) -> NDArray[np.bool_]:
    """Which voxels (N, 3) lie in a box, (N,)."""
    starts, stops = np.array([(part.start, part.stop) for part in box]).T
    return ((voxels >= starts) & (voxels < stops)).all(axis=1)


def _box(starts: list[int], stops: list[int], shape: tuple[int, ...]) -> Box:
    z, y, x = (slice(max(0, start), min(stop, count)) for start, stop, count in zip(starts, stops, shape, strict=True))
    return z, y, x


def _grown(box: Box, margin: int, shape: tuple[int, ...]) -> Box:
    return _box([part.start - margin for part in box], [part.stop + margin for part in box], shape)


def completed(skeleton: Voxels, lumen: Lumen, covered: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Which voxels of the lumen are skeleton, (N,), once all that thinning lost of it is back and joined.

    The skeleton's voxels (K, 3) are voxels of the lumen. Every component of the lumen keeps a voxel (its innermost).
    From each stretch that no skeleton voxel covers (see `COVERED_RADII`) a path runs from its farthest voxel through
    the middle of the lumen to the skeleton, and so does one between pieces of the skeleton in one component. Voxels
    that are ``covered`` (N,) need nothing.
    """
    line = np.zeros(len(lumen), bool)
    line[lumen.rows_of(skeleton)] = True
    line[_innermost_of_bare_components(line, lumen)] = True
    bare = np.arange(len(lumen)) if covered is None else np.flatnonzero(~covered)
    for _ in range(_MOST_ROUNDS):
        tips, bare = _farthest_uncovered(line, lumen, bare)
        if not len(tips):
            break
        for tip in tips:
            _connect(line, lumen, tip, line)
    _join_pieces(line, lumen)
    return line


_MOST_ROUNDS = 20
"""Each round adds one line to every bare stretch; a stretch that forks needs another round."""


def _join_pieces(line: NDArray[np.bool_], lumen: Lumen) -> None:
    """Join the pieces of the skeleton that lie in one component: one after the other to what its largest has become."""
    rows = np.flatnonzero(line)
    pieces = Lumen(lumen.shape, lumen.spacing_mm, lumen.voxels[rows]).components  # numbered from the largest on
    _, first = np.unique(pieces, return_index=True)
    _, largest = np.unique(lumen.components[rows[first]], return_index=True)
    joined = np.zeros(len(lumen), bool)
    joined[rows[np.isin(pieces, largest)]] = True
    for piece in np.setdiff1d(np.arange(len(first)), largest):
        members = rows[pieces == piece]
        joined[_connect(line, lumen, int(members[len(members) // 2]), joined)] = True
        joined[members] = True


def _innermost_of_bare_components(line: NDArray[np.bool_], lumen: Lumen) -> Rows:
    """The voxel farthest from the wall of each component without a skeleton voxel."""
    labels = lumen.components
    has_line = np.zeros(labels.max(initial=0) + 1, bool)
    has_line[labels[line]] = True
    candidates = np.flatnonzero(~has_line[labels])
    return _first_of_each(candidates, labels[candidates], -lumen.wall_mm[candidates])


def _first_of_each(rows: Rows, groups: NDArray, rank: NDArray) -> Rows:
    """Of each group the row with the lowest rank."""
    order = np.lexsort((rank, groups))
    _, first = np.unique(groups[order], return_index=True)
    return rows[order[first]]


def _farthest_uncovered(line: NDArray[np.bool_], lumen: Lumen, rows: Rows) -> tuple[list[int], Rows]:
    """The row farthest from the skeleton of each stretch of some rows that no skeleton voxel covers, and all of them.

    The rows are in order.
    """
    points = lumen.places_mm
    reach = COVERED_RADII * lumen.wall_mm[line] + COVERED_VOXELS * max(lumen.spacing_mm)
    skeleton = cKDTree(points[line])
    rows = rows[~_surely_covered(skeleton, reach, lumen, rows)]
    distance, nearest = skeleton.query(points[rows], workers=-1)
    rows, distance = (values[distance > reach[nearest]] for values in (rows, distance))
    if not len(rows):
        return [], rows
    # Most are covered by the skeleton voxel nearest to them; of the others many by a thicker one farther off.
    bare = np.ones(len(rows), bool)
    for within_reach in cKDTree(points[rows]).query_ball_point(points[line], reach, workers=-1):
        bare[within_reach] = False
    rows, distance = rows[bare], distance[bare]
    stretches = Lumen(lumen.shape, lumen.spacing_mm, lumen.voxels[rows]).components
    return rows[_first_of_each(np.arange(len(rows)), stretches, -distance)].tolist(), rows


def _surely_covered(skeleton: cKDTree, reach: NDArray[np.float64], lumen: Lumen, rows: Rows) -> NDArray[np.bool_]:
    """Which rows the skeleton voxel covers that is nearest to the middle of the `CELL` that they lie in: nearly all."""
    cells = lumen.voxels[rows] // CELL
    numbers = np.ravel_multi_index(tuple(cells.T), [count // CELL + 1 for count in lumen.shape])
    _, first, cell = np.unique(numbers, return_index=True, return_inverse=True)
    middles_mm = (cells[first] + 0.5) * CELL * np.asarray(lumen.spacing_mm)
    nearest = skeleton.query(middles_mm, workers=-1)[1][cell]
    away_mm = np.linalg.norm(lumen.places_mm[rows] - skeleton.data[nearest], axis=1)
    return away_mm < reach[nearest] * (1 - 1e-9)


def _connect(line: NDArray[np.bool_], lumen: Lumen, tip: int, targets: NDArray[np.bool_]) -> Rows:
    """Draw the cheapest path within the lumen from one voxel to one of the targets, and return it."""
    centre = lumen.voxels[tip]
    for reach in (16, 64, max(lumen.shape)):
        box = _box([int(value) - reach for value in centre], [int(value) + reach + 1 for value in centre], lumen.shape)
        start = [part.start for part in box]
        near = lumen.rows_in(box)
        cost = np.full([part.stop - part.start for part in box], -1.0)
        cost[tuple((lumen.voxels[near] - start).T)] = 1.0 / lumen.wall_mm[near] ** 2
        paths = MCP_Geometric(cost)
        total, _ = paths.find_costs([tuple(centre - start)])
        ends = lumen.voxels[near[targets[near]]] - start
        ends = ends[np.isfinite(total[tuple(ends.T)])]
        if len(ends):
            path = paths.traceback(tuple(ends[total[tuple(ends.T)].argmin()]))
            rows = lumen.rows_of(np.add(path, start))
            line[rows] = True
            return rows
    return np.empty(0, np.intp)
