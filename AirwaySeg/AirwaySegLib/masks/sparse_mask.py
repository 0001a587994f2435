"""A mask as the list of its voxels: neighbours, components and distance to the wall without touching the empty volume.

Airways fill less than a hundredth of their bounding box, so that lists are ten times faster than arrays here.
Letters in shapes: N voxels of the mask, in C order.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, label
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

Spacing = tuple[float, float, float]
Rows = NDArray[np.intp]

Offset = tuple[int, int, int]

FORWARD_OFFSETS: list[Offset] = [
    (z, y, x) for z, y, x in itertools.product((-1, 0, 1), repeat=3) if (z, y, x) > (0, 0, 0)
]
"""The 13 of the 26 neighbours that come later in C order."""

DENSE = 0.2
"""A mask that fills at least this share of its box is a solid body, not a tree."""

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
        return cls((mask.shape[0], mask.shape[1], mask.shape[2]), spacing_mm, voxels_of(mask))

    def with_voxels(self, more: NDArray) -> "Lumen":
        """The same with some background voxels (M, 3) added, in any order; some of them may be the same."""
        _, first = np.unique(self._number(more), return_index=True)
        voxels = np.concatenate([self.voxels, more[first].astype(np.int32)])
        order = np.argsort(self._number(voxels), kind="stable")
        return Lumen(self.shape, self.spacing_mm, voxels[order])

    def __len__(self) -> int:
        return len(self.voxels)

    @cached_property
    def padded(self) -> NDArray[np.bool_]:
        """The mask with one voxel of background around it, (Z + 2, Y + 2, X + 2)."""
        mask = np.zeros([count + 2 for count in self.shape], bool)
        mask.ravel()[self._numbers] = True
        return mask

    def array(self) -> NDArray[np.bool_]:
        """The mask (Z, Y, X), a view of `padded`."""
        return self.padded[1:-1, 1:-1, 1:-1]

    @cached_property
    def places_mm(self) -> NDArray[np.float64]:
        """Centres (N, 3) as (z, y, x) in mm from voxel (0, 0, 0)."""
        return self.voxels * np.asarray(self.spacing_mm)

    @cached_property
    def _numbers(self) -> NDArray[np.int64]:
        return self._number(self.voxels)

    def _number(self, voxels: NDArray) -> NDArray[np.int64]:
        """A number for each voxel, in C order of an array that has two voxels more along each axis."""
        _, y, x = (count + 2 for count in self.shape)
        return ((voxels[:, 0].astype(np.int64) + 1) * y + voxels[:, 1] + 1) * x + voxels[:, 2] + 1

    def rows_of(self, voxels: NDArray) -> Rows:
        """Rows of the given voxels (M, 3), which are at most one voxel outside the array; -1 for background."""
        return self._rows_of_numbers(self._number(voxels))

    def _rows_beside(self, offset: Offset) -> Rows:
        """For each voxel the row of its neighbour at an offset of at most 1 along each axis; -1 for background."""
        _, y, x = (count + 2 for count in self.shape)
        return self._rows_of_numbers(self._numbers + (offset[0] * y + offset[1]) * x + offset[2])

    def _rows_of_numbers(self, wanted: NDArray[np.int64]) -> Rows:
        rows = np.minimum(np.searchsorted(self._numbers, wanted), len(self) - 1)
        return np.where(self._numbers[rows] == wanted, rows, -1)

    def rows_in(self, box: tuple[slice, slice, slice]) -> Rows:
        """Rows of the voxels within a box."""
        first, last = np.searchsorted(self.voxels[:, 0], [box[0].start, box[0].stop])
        some = self.voxels[first:last]
        inside = np.ones(len(some), bool)
        for axis in (1, 2):
            inside &= (some[:, axis] >= box[axis].start) & (some[:, axis] < box[axis].stop)
        return first + np.flatnonzero(inside)

    def neighbours(self, offsets: Sequence[Offset] = FORWARD_OFFSETS) -> tuple[Rows, Rows]:
        """Pairs of rows of voxels that differ by one of the offsets; by default 26-neighbours, each pair once."""
        first, second = [], []
        for offset in offsets:
            rows = self._rows_beside(offset)
            here = np.flatnonzero(rows >= 0)
            first.append(here)
            second.append(rows[here])
        return np.concatenate(first), np.concatenate(second)

    def pieces(self, offsets: Sequence[Offset]) -> NDArray[np.int32]:
        """Number of each voxel's component (N,), where voxels that differ by one of the offsets are connected."""
        return _joined(len(self), *self.neighbours(offsets))

    @cached_property
    def components(self) -> NDArray[np.int32]:
        """Number of each voxel's 26-connected component, (N,): 0 the largest, then 1, 2, ..."""
        labels = self._of_voxels(self._pieces_of_runs(((0, 1), (1, -1), (1, 0), (1, 1))))
        order = np.argsort(-np.bincount(labels), kind="stable")
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        return rank[labels]

    @cached_property
    def _run_starts(self) -> Rows:
        """Rows where a run begins: voxels one after the other along the last axis; there are far fewer of them."""
        return np.flatnonzero(np.diff(self._numbers, prepend=-2) != 1)

    def _of_voxels(self, values: NDArray) -> NDArray:
        """The values of runs at each voxel, (N,)."""
        return np.repeat(values, np.diff(self._run_starts, append=len(self)))

    def _pieces_of_runs(self, beside: Sequence[tuple[int, int]]) -> NDArray[np.int32]:
        """Number of each run's component, where runs touch that differ by one of these steps along the first two axes.

        Runs that touch only by a corner do, too. The numbers are in the order of the first voxels.
        """
        firsts = self._numbers[self._run_starts]
        lasts = self._numbers[np.diff(self._numbers, append=-2) != 1]
        _, y, x = (count + 2 for count in self.shape)
        before, after = [], []
        for step in beside:
            away = (step[0] * y + step[1]) * x
            low = np.searchsorted(lasts, firsts + away - 1)
            counts = np.searchsorted(firsts, lasts + away + 1, side="right") - low
            before.append(np.repeat(np.arange(len(firsts)), counts))
            after.append(np.arange(len(before[-1])) + np.repeat(low - np.cumsum(counts) + counts, counts))
        return _joined(len(firsts), np.concatenate(before), np.concatenate(after))

    def cavities(self) -> NDArray[np.int32]:
        """Background voxels (M, 3) of all cavities: 6-connected background that does not reach the array's border.

        In each slice (first axis) a cavity is a hole of the mask. Few slices have holes; their number is the number of
        pieces minus the Euler number. A hole belongs to a cavity if neither it nor any hole above or below that is
        connected with it opens into the rest of the background.
        """
        found = [
            np.column_stack([np.full(len(pixels), z), pixels])
            for z in np.flatnonzero(self._holes_of_slices() > 0)
            if len(pixels := _holes_in_slice(self._slice(int(z))))
        ]
        if not found:
            return np.empty((0, 3), np.int32)
        holes = Lumen(self.shape, self.spacing_mm, np.concatenate(found).astype(np.int32))
        labels = holes.pieces(FACES[3:])
        opens = np.zeros(labels.max() + 1, bool)
        for face in FACES:
            beside = holes.voxels + np.asarray(face, np.int32)
            open_there = (holes._rows_beside(face) < 0) & (self.rows_of(beside) < 0)
            opens[labels[open_there]] = True
        return holes.voxels[~opens[labels]]

    def _holes_of_slices(self) -> NDArray[np.intp]:
        """Number of holes of each slice, (Z,): 8-connected pieces minus Euler number (corners - edges + faces).

        A corner is counted at the first of the pixels that share it, an edge at the first of two.
        """
        slices, count = self.voxels[:, 0], self.shape[0]
        _, first = np.unique(self._pieces_of_runs(((0, 1),)), return_index=True)
        left, above, above_left, above_right = (
            self._rows_beside(offset) >= 0 for offset in ((0, 0, -1), (0, -1, 0), (0, -1, -1), (0, -1, 1))
        )
        corners = 1 + ~left + ~(left | above | above_left) + ~(above | above_right)
        euler = np.bincount(slices, corners - (4 - left.astype(int) - above) + 1, minlength=count).astype(np.intp)
        return np.bincount(slices[self._run_starts[first]], minlength=count) - euler

    def _slice(self, z: int) -> NDArray[np.bool_]:
        """One slice as an array (Y, X)."""
        first, last = np.searchsorted(self.voxels[:, 0], [z, z + 1])
        part = np.zeros(self.shape[1:], bool)
        part[tuple(self.voxels[first:last, 1:].T)] = True
        return part

    @cached_property
    def shell(self) -> NDArray[np.int32]:
        """Background voxels (S, 3) that share a face with the mask; some are one voxel outside the array."""
        _, y, x = (count + 2 for count in self.shape)
        beside = [self._numbers[self._rows_beside(face) < 0] + (face[0] * y + face[1]) * x + face[2] for face in FACES]
        numbers = np.sort(np.concatenate(beside))
        numbers = numbers[np.diff(numbers, prepend=-1) > 0]
        return np.stack(np.unravel_index(numbers, [n + 2 for n in self.shape]), axis=1).astype(np.int32) - 1

    @cached_property
    def shell_tree(self) -> cKDTree:
        """Search tree for the background voxel that is nearest to a point (z, y, x) in mm."""
        # An unbalanced tree is built and searched faster here, because the shell's points are evenly spread.
        return cKDTree(self.shell * np.asarray(self.spacing_mm), balanced_tree=False, compact_nodes=False)

    @property
    def is_body(self) -> bool:
        """Whether the mask fills so much of its box (`DENSE`) that it is a solid body, not a tree."""
        return len(self) >= DENSE * math.prod(self.shape)

    def take_nearest(self, nearest: Rows) -> None:
        """Take over which background voxel of `shell` is nearest to each voxel, (N,), so that `wall_mm` is known."""
        vars(self)["wall_mm"] = self._to_face(self.places_mm, self.shell[nearest])

    @cached_property
    def wall_mm(self) -> NDArray[np.float64]:
        """Distance from each voxel's centre to the lumen wall, (N,): see `to_wall`."""
        if not self.is_body:
            return self.to_wall(self.places_mm)
        # Deep inside a solid body a search for the nearest surface voxel takes long.
        inside = np.zeros([count + 2 for count in self.shape], bool)
        inside[tuple(self.voxels.T + 1)] = True
        found = distance_transform_edt(inside, self.spacing_mm, return_distances=False, return_indices=True)
        return self._to_face(self.places_mm, found[:, *tuple(self.voxels.T + 1)].T - 1)

    def to_wall(self, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance in mm from points (M, 3) within the lumen to the wall: the face of the nearest background voxel.

        The nearest background voxel is exact: it shares a face with the mask, since otherwise its neighbour on the way
        would be nearer. Voxels outside the array are background. From the distance to that voxel's centre the part
        inside the voxel is subtracted.
        """
        return self._to_face(points_mm, self.shell[self.shell_tree.query(points_mm, workers=-1)[1]])

    def _to_face(self, points_mm: NDArray[np.float64], background: NDArray) -> NDArray[np.float64]:
        """Distance from each point to the face of its nearest background voxel."""
        towards = background * np.asarray(self.spacing_mm) - points_mm
        within = 0.5 / np.maximum(np.abs(towards / self.spacing_mm).max(axis=1), 0.5)
        return np.linalg.norm(towards, axis=1) * (1 - within)


def voxels_of(mask: NDArray) -> NDArray[np.int32]:
    """The voxels (N, 3) of a mask (Z, Y, X) that are not 0, in C order."""
    return np.stack(np.unravel_index(np.flatnonzero(mask), mask.shape), axis=1).astype(np.int32)


def _joined(count: int, first: NDArray, second: NDArray) -> NDArray[np.int32]:
    """Number of the connected component (``count``,) of each node of a graph, given its edges."""
    graph = coo_matrix((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _holes_in_slice(part: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The background pixels (M, 2) of a slice without a 4-connected path to its border."""
    rows, columns = (np.flatnonzero(part.any(axis=axis)) for axis in (1, 0))
    background = ~np.pad(part[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1)
    pieces, _ = label(background)
    return np.argwhere(background & (pieces != pieces[0, 0])) - 1 + (rows[0], columns[0])
