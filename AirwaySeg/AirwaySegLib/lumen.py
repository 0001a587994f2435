"""A mask as the list of its voxels: neighbours, components and distance to the wall without touching the empty volume.

Airways fill less than a hundredth of their bounding box, so that lists are ten times faster than arrays here.
Letters in shapes: N voxels of the mask, in C order.
"""

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

Spacing = tuple[float, float, float]
Rows = NDArray[np.intp]

FORWARD_OFFSETS = [offset for offset in itertools.product((-1, 0, 1), repeat=3) if offset > (0, 0, 0)]
"""The 13 of the 26 neighbours that come later in C order."""

FACES = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, 1), (0, 1, 0), (1, 0, 0))


@dataclass(frozen=True)
class Lumen:
    """The voxels of a mask.

    ``shape`` is the array's (Z, Y, X), ``spacing_mm`` (z, y, x), and ``voxels`` (N, 3) the indices in C order.
    """

    shape: tuple[int, int, int]
    spacing_mm: Spacing
    voxels: NDArray[np.int32]

    @classmethod
    def of(cls, mask: NDArray, spacing_mm: Spacing) -> "Lumen":
        """List the voxels of a mask (Z, Y, X) that are not 0."""
        flat = np.flatnonzero(mask)
        voxels = np.stack(np.unravel_index(flat, mask.shape), axis=1).astype(np.int32)
        return cls((mask.shape[0], mask.shape[1], mask.shape[2]), spacing_mm, voxels)

    def __len__(self) -> int:
        return len(self.voxels)

    @cached_property
    def places_mm(self) -> NDArray[np.float64]:
        """Centres (N, 3) as (z, y, x) in mm from voxel (0, 0, 0)."""
        return self.voxels * np.asarray(self.spacing_mm)

    @cached_property
    def _numbers(self) -> NDArray[np.int64]:
        return self._number(self.voxels)

    def _number(self, voxels: NDArray) -> NDArray[np.int64]:
        """A number for each voxel, in C order of an array that has two voxels more along each axis."""
        return np.ravel_multi_index(tuple(voxels.T + 1), [count + 2 for count in self.shape]).astype(np.int64)

    def rows_of(self, voxels: NDArray) -> Rows:
        """Rows of the given voxels (M, 3), which lie at most one voxel outside the array; -1 for background."""
        wanted = self._number(voxels)
        rows = np.minimum(np.searchsorted(self._numbers, wanted), len(self) - 1)
        return np.where(self._numbers[rows] == wanted, rows, -1)

    def neighbours(self) -> tuple[Rows, Rows]:
        """Pairs of rows of voxels that are 26-neighbours, each pair once, the voxel earlier in C order first."""
        first, second = [], []
        for offset in FORWARD_OFFSETS:
            rows = self.rows_of(self.voxels + np.asarray(offset, np.int32))
            here = np.flatnonzero(rows >= 0)
            first.append(here)
            second.append(rows[here])
        return np.concatenate(first), np.concatenate(second)

    @cached_property
    def components(self) -> NDArray[np.int32]:
        """Number of each voxel's 26-connected component, (N,): 0 the largest, then 1, 2, ..."""
        first, second = self.neighbours()
        graph = coo_matrix((np.ones(len(first), np.int8), (first, second)), shape=(len(self), len(self)))
        count, labels = connected_components(graph, directed=False)
        order = np.argsort(-np.bincount(labels, minlength=count), kind="stable")
        place = np.empty(count, np.int32)
        place[order] = np.arange(count, dtype=np.int32)
        return place[labels]

    @cached_property
    def shell(self) -> NDArray[np.int32]:
        """Background voxels (S, 3) that have a face in common with the mask; some lie one voxel outside the array."""
        found = []
        for face in FACES:
            beside = self.voxels + np.asarray(face, np.int32)
            found.append(beside[self.rows_of(beside) < 0])
        around = np.concatenate(found)
        _, first = np.unique(self._number(around), return_index=True)
        return around[first]

    @cached_property
    def shell_tree(self) -> cKDTree:
        """For searching the background voxel that is nearest to a place (z, y, x) in mm."""
        return cKDTree(self.shell * np.asarray(self.spacing_mm))

    @cached_property
    def wall_mm(self) -> NDArray[np.float64]:
        """Distance from each voxel's centre to the lumen wall, (N,): see `to_wall`."""
        return self.to_wall(self.places_mm)

    def to_wall(self, places_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance in mm from places (M, 3) within the lumen to the wall: the face of the nearest background voxel.

        Exact as far as the nearest centre goes: the background voxel nearest to a voxel of the mask has a face in
        common with the mask, or else its neighbour on the way were nearer. What lies outside the array is background.
        From the distance to that voxel's centre the part that runs within it is taken off.
        """
        spacing = np.asarray(self.spacing_mm)
        distance, nearest = self.shell_tree.query(places_mm, workers=-1)
        towards = np.abs(self.shell[nearest] * spacing - places_mm) / spacing
        within = 0.5 * distance / np.maximum(towards.max(axis=1), 0.5)
        return distance - within
