"""The reference of a case as a person sees it who corrects a result: the scores, what is missing and what is false.

All arrays are (Z, Y, X) on one grid. Letters in shapes: S voxels of the reference's skeleton, N voxels of a piece.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra, minimum_spanning_tree
from scipy.spatial import cKDTree

from AirwaySegLib.evaluation.metrics import count_branches, precision, share
from AirwaySegLib.evaluation.reference_parse import parse_branches, thinned
from AirwaySegLib.masks.components import distance_to, label_components
from AirwaySegLib.masks.sparse_mask import Lumen

Mask = NDArray[np.bool_]
Voxels = NDArray[np.intp]
Spacing = tuple[float, float, float]

CLEAR_VOXELS = 1.8
"""What lies so far from the reference along no axis and no diagonal is more than its blurred edge."""

NEIGHBOURS = np.ones((3, 3, 3), bool)


@dataclass(frozen=True)
class Scores:
    """In per cent: tree length detected, branches detected, and the share of the mask that is not clear of the airways.

    ``exact`` is the usual precision, for which each voxel at the edge counts that the reference draws otherwise. No
    tool for branches changes those, nor does a brush along the centerline.
    """

    tld: float
    bd: float
    precision: float
    exact: float


@dataclass(frozen=True, eq=False)
class Stretch:
    """A missing stretch of the skeleton: its voxels (N, 3) from the tree outwards, radii and length in mm."""

    voxels: Voxels
    radii_mm: NDArray[np.float64]
    length_mm: float


@dataclass(frozen=True, eq=False)
class Reference:
    """Airway, and what is left out of the scores: neither right nor wrong."""

    airway: Mask
    left_out: Mask
    spacing_mm: Spacing
    _last: dict[str, NDArray] = field(default_factory=dict)

    @classmethod
    def of(cls, labels: NDArray, spacing_mm: Spacing) -> "Reference":
        """From labels: 1 airway, 2 left out."""
        return cls(labels == 1, labels == 2, spacing_mm)

    @cached_property
    def line(self) -> Lumen:
        """The skeleton's voxels, thinned in the order x, y, z of the published programs."""
        return Lumen.of(np.ascontiguousarray(thinned(np.ascontiguousarray(self.airway.T)).T), self.spacing_mm)

    @cached_property
    def length_mm(self) -> float:
        """Length of the skeleton: of the shortest steps that connect its voxels."""
        one, other = self.line.neighbours()
        steps_mm = np.linalg.norm(self.line.places_mm[one] - self.line.places_mm[other], axis=1)
        count = len(self.line)
        return float(minimum_spanning_tree(coo_array((steps_mm, (one, other)), shape=(count, count)).tocsr()).sum())

    @cached_property
    def _branches(self) -> NDArray[np.int32]:
        """The published parse's branch of each voxel of the skeleton, (S,)."""
        labels = parse_branches(np.ascontiguousarray(self.airway.T)).labels.T
        return labels[tuple(self.line.voxels.T)]

    @cached_property
    def radii_mm(self) -> NDArray[np.float64]:
        """The lumen's radius at each voxel of the skeleton, (S,)."""
        return distance_to(~self.airway, self.spacing_mm)[tuple(self.line.voxels.T)].astype(float)

    @cached_property
    def apart_voxels(self) -> NDArray[np.float32]:
        """How many voxels each voxel is away from all that is airway or left out."""
        return distance_to(self.airway | self.left_out, (1.0, 1.0, 1.0))

    def tree_of(self, mask: Mask) -> Mask:
        """What of a mask is connected; what is left out, such as a plug, connects too."""
        labels = label_components(mask | self.left_out)
        counts = np.bincount(labels[mask], minlength=2)
        counts[0] = 0
        return mask & (labels == counts.argmax())

    def detected(self, mask: Mask) -> Mask:
        """Which voxels of the skeleton are in the mask's tree, (S,); of the mask that was asked for last it is kept."""
        last, found = self._last.get("mask"), self._last.get("found")
        if last is None or not np.array_equal(last, mask):
            found = self.tree_of(mask)[tuple(self.line.voxels.T)]
            self._last.update(mask=mask.copy(), found=found)
        return found

    def scores(self, mask: Mask) -> Scores:
        """The mask against the reference."""
        found = self.detected(mask)
        branches, right = count_branches(self._branches, found)
        counted = mask & ~self.left_out
        clear = share(int((counted & (self.apart_voxels > CLEAR_VOXELS)).sum()), int(counted.sum()))
        exact = precision(mask, self.airway, self.left_out)
        return Scores(100 * float(found.mean()), 100 * share(right, branches), 100 * (1 - clear), 100 * exact)

    # What is missing -------------------------------------------------------------------------------------------------

    def stretches(self, mask: Mask) -> list[Stretch]:
        """What is missing as stretches without forks, the longest way to a tip first.

        Each begins where the tree or a stretch before it ends; a part of the reference that hangs on nothing begins
        at its voxel nearest to the tree.
        """
        found = self.detected(mask)
        if found.all():
            return []
        far_mm, before = self._ways(found)
        taken = found.copy()
        stretches = []
        for row in np.argsort(-far_mm, kind="stable"):
            if taken[row]:
                continue
            way = []
            while row >= 0 and not taken[row]:
                taken[row] = True
                way.append(int(row))
                row = before[row]
            stretches.append(self._stretch(way[::-1], far_mm))
        return sorted(stretches, key=lambda stretch: -stretch.length_mm)

    def _stretch(self, rows: list[int], far_mm: NDArray[np.float64]) -> Stretch:
        length = float(far_mm[rows[-1]] - far_mm[rows[0]]) + float(np.mean(self.spacing_mm))
        return Stretch(self.line.voxels[rows].astype(np.intp), self.radii_mm[rows], length)

    def _ways(self, found: Mask) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """For each missing voxel the length of its way from the tree along the skeleton, and the voxel before it."""
        one, other = self.line.neighbours()
        steps_mm = np.linalg.norm(self.line.places_mm[one] - self.line.places_mm[other], axis=1)
        count = len(self.line)
        graph = coo_array((steps_mm, (one, other)), shape=(count, count)).tocsr()
        starts = np.flatnonzero(found)
        loose = self.line.components[~found]
        rooted = np.unique(self.line.components[starts])
        nearest = cKDTree(self.line.places_mm[starts]) if len(starts) else None
        for number in np.setdiff1d(loose, rooted):
            rows = np.flatnonzero(self.line.components == number)
            apart = nearest.query(self.line.places_mm[rows])[0] if nearest else np.zeros(len(rows))
            starts = np.append(starts, rows[apart.argmin()])
        far, before, _ = dijkstra(graph, directed=False, indices=starts, min_only=True, return_predecessors=True)
        return np.where(found, 0.0, far), before

    # What is false ---------------------------------------------------------------------------------------------------

    def false_pieces(self, mask: Mask) -> list[Voxels]:
        """What of a mask is clear of the reference (N, 3) piece by piece, with its edge; the largest first."""
        false = mask & ~self.airway & ~self.left_out
        clear = label_components(false & (self.apart_voxels > CLEAR_VOXELS))
        pieces = []
        for number, box in enumerate(ndimage.find_objects(clear), start=1):
            wide = tuple(slice(max(part.start - 3, 0), part.stop + 3) for part in box)
            mine = ndimage.binary_dilation(clear[wide] == number, NEIGHBOURS, 3, mask=false[wide])
            pieces.append(np.argwhere(mine) + [part.start for part in wide])
        return sorted(pieces, key=lambda piece: -len(piece))

    def outside(self, voxels: Voxels) -> NDArray[np.float32]:
        """How many voxels each of some voxels (N, 3) is away from the reference, (N,)."""
        return self.apart_voxels[tuple(voxels.T)]

    def gain_of(self, voxels: Voxels, found: Mask) -> int:
        """How many voxels of the skeleton that the tree lacks are among some voxels (N, 3)."""
        inside = np.zeros(self.airway.shape, bool)
        inside[tuple(voxels.T)] = True
        return int((inside[tuple(self.line.voxels.T)] & ~found).sum())
