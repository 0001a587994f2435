"""Which of many points is nearest to each voxel of a lumen, searched for again only near points that have changed.

Letters in shapes: N voxels, S points, D coordinates of both; the first three are (z, y, x) in mm.
"""

from functools import cached_property
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from AirwaySegLib.masks.sparse_mask import Lumen, Rows
from AirwaySegLib.tree.known_parts import KnownParts, checksum

BLOCK = 32
"""Voxels along each side of a block. The search of a block is known while the points in it and in its neighbours are
the same: what is nearer than a block's side lies there."""

UNSURE = np.iinfo(np.uint32).max
"""Noted for a voxel that has two nearest points, to rounding, as half of the voxels on a cubic lattice have: which one
a search tree finds depends on all its points, so it is asked again. The same for one whose nearest point is farther
away than a block's side."""

APART = 1e-9
"""Two distances that differ by a smaller share than this may be the same but for rounding."""


class Blocks:
    """Places (S, 3), in voxels, by the block in which they lie; in a block they keep their order."""

    def __init__(self, places: NDArray, shape: tuple[int, int, int]) -> None:
        blocks = np.floor(places / BLOCK).astype(np.int64) + 2
        self._counts = [count // BLOCK + 5 for count in shape]
        numbers = np.ravel_multi_index(tuple(blocks.T), self._counts)
        self.order = np.argsort(numbers, kind="stable")
        self.starts = np.flatnonzero(np.diff(numbers[self.order], prepend=-1, append=-1))
        self.numbers: list[int] = numbers[self.order][self.starts[:-1]].tolist()
        """Of the blocks that hold a place, ascending; the places are ``order[starts[k] : starts[k + 1]]``."""

    @cached_property
    def index(self) -> dict[int, int]:
        """Where in the list each of the blocks is."""
        return {number: at for at, number in enumerate(self.numbers)}

    def around(self, number: int) -> list[int]:
        """The indices of a block and its neighbours, those that hold a place."""
        _, y, x = self._counts
        near = (number + (step[0] * y + step[1]) * x + step[2] for step in product((-1, 0, 1), repeat=3))
        return [self.index[one] for one in near if one in self.index]

    def checksums(self, *arrays: NDArray) -> list[bytes]:
        """A checksum for each block of the rows of some arrays, and of where the block is."""
        ordered = [array[self.order] for array in arrays]
        return [
            checksum(*(array[first:last] for array in ordered), number)
            for number, (first, last) in zip(self.numbers, pairwise(self.starts.tolist()), strict=True)
        ]


class KnownSearch:
    """Searches for the point that is nearest to each voxel of a lumen."""

    def __init__(self, lumen: Lumen, known: KnownParts | None = None) -> None:
        self._lumen, self._known = lumen, known or KnownParts()
        self._reach_mm = BLOCK * float(min(lumen.spacing_mm))

    @cached_property
    def _blocks(self) -> Blocks:
        return Blocks(self._lumen.voxels, self._lumen.shape)

    @cached_property
    def _sums(self) -> list[bytes]:
        return self._blocks.checksums(self._lumen.voxels)

    def nearest(self, tree: cKDTree, kind: str, further: NDArray | None = None) -> Rows:
        """The point of a search tree, built on (S, D), that is nearest to each voxel, (N,): that which the tree finds.

        ``further`` (N, D - 3) are the voxels' other coordinates. Searches of one ``kind`` are known from each other.
        """
        lumen, voxels = self._lumen, self._blocks
        queries = lumen.places_mm if further is None else np.column_stack([lumen.places_mm, further])
        coordinates = np.asarray(tree.data)
        points = Blocks(coordinates[:, :3] / lumen.spacing_mm, lumen.shape)
        sums_of_points = points.checksums(coordinates)
        sums = self._sums if further is None else voxels.checksums(lumen.voxels, further)
        nearest = np.full(len(lumen), -1, np.intp)
        new: list[tuple[Rows, Rows, bytes]] = []
        for at, number in enumerate(voxels.numbers):
            near, rows = points.around(number), _rows(voxels, at)
            key = checksum(sums[at] + b"".join(sums_of_points[one] for one in near), lumen.spacing_mm)
            candidates = np.concatenate([points.order[:0], *(_rows(points, one) for one in near)])
            found = self._known.find(kind, key)
            if found is None:
                new.append((rows, candidates, key))
            else:
                sure = found[0] != UNSURE
                nearest[rows[sure]] = candidates[found[0][sure]]
        if new:
            self._search(tree, queries, nearest, new, kind)
        unsure = np.flatnonzero(nearest < 0)
        nearest[unsure] = tree.query(queries[unsure], workers=-1)[1]
        return nearest

    def _search(
        self,
        tree: cKDTree,
        queries: NDArray[np.float64],
        nearest: Rows,
        new: list[tuple[Rows, Rows, bytes]],
        kind: str,
    ) -> None:
        """Search for the nearest point of the voxels in blocks that are not known, and keep what is sure."""
        rows = np.concatenate([one[0] for one in new])
        distance, found = tree.query(queries[rows], k=2, workers=-1)
        distance *= 1 + APART * np.array([1, 0])
        sure = (distance[:, 1] > distance[:, 0]) & (distance[:, 0] < self._reach_mm)
        nearest[rows[sure]] = found[sure, 0]
        position = np.empty(tree.n, np.uint32)
        for of_block, candidates, key in new:
            position[candidates] = np.arange(len(candidates))
            mine = nearest[of_block]
            self._known.keep(kind, key, (np.where(mine >= 0, position[mine], np.uint32(UNSURE)),))


def _rows(blocks: Blocks, at: int) -> Rows:
    return blocks.order[blocks.starts[at] : blocks.starts[at + 1]]
