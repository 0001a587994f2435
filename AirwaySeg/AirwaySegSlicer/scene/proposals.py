"""The repairs of a run: what each joins, and the voxels of its bridge and its pieces, on the grid of the airways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import slicer

from AirwaySegSlicer.scene.decisions import Runs
from AirwaySegSlicer.scene.nodes import REPAIRS, companion
from AirwaySegSlicer.scene.segments import Array
from AirwaySegSlicer.scene.texts import document_of, moved_by
from AirwaySegSlicer.scene.voxel_changes import grid_of

APPLIED, PROPOSED, REFUSED = "applied", "proposed", "refused"
TREE = 1
"""The tree's number among the components."""


@dataclass(frozen=True)
class Repair:
    """A repair as the library wrote it: ``fragments`` are the numbers of what it brings, ``joins`` of what it touches.

    ``place_mm`` is in LPS.
    """

    number: int
    state: str
    reason: str
    method: str
    score: float
    length_mm: float
    brought_mm: float
    branch: int
    place_mm: tuple[float, float, float]
    joins: tuple[int, ...]
    fragments: tuple[int, ...]


class Repairs:
    """The repairs of a result; none where the run is not known or made by another version."""

    def __init__(self, segmentation_node: slicer.vtkMRMLSegmentationNode) -> None:
        self._node = companion(segmentation_node, REPAIRS)
        self._segmentation_node = segmentation_node
        self._document = document_of(segmentation_node, REPAIRS)
        plain = self._document.get("repairs", []) if "ijk_to_lps" in self._document else []
        self.all = {repair["number"]: _repair(repair) for repair in plain}
        self._bridges = {repair["number"]: repair["voxel_runs"] for repair in plain}
        fragments = self._document.get("fragments", []) if plain else []
        self._pieces = {piece["number"]: piece["voxel_runs"] for piece in fragments}

    def bridge(self, number: int) -> Array:
        """The voxels (N, 3) of a repair's bridge, as i, j, k on the grid of the airways."""
        return self.voxels_of(self._bridges[number])

    def piece(self, number: int) -> Array:
        """The voxels (N, 3) of a fragment; none where there is no such fragment."""
        return self.voxels_of(self._pieces.get(number, []))

    def pieces(self, numbers: tuple[int, ...]) -> Array:
        """The voxels (N, 3) of several fragments."""
        import numpy as np

        return np.concatenate([np.empty((0, 3), np.int64), *map(self.piece, numbers)])

    def bringing(self, fragment: int, states: tuple[str, ...]) -> Repair | None:
        """The first repair in one of these states that brings the fragment to the tree."""
        return next((one for one in self.all.values() if fragment in one.fragments and one.state in states), None)

    def voxels_of(self, runs: Sequence[Sequence[int]]) -> Array:
        """The voxels (N, 3), as i, j, k on the grid of the airways, of runs on the run's grid, as repairs.json has."""
        import numpy as np

        table = np.array(runs, np.int64).reshape(-1, 4)
        if not len(table):
            return table[:, :3]
        counts = table[:, 3]
        first = np.repeat(table[:, [2, 1, 0]], counts, axis=0)
        first[:, 0] += np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.rint(first @ self._to_ijk[:3, :3].T + self._to_ijk[:3, 3]).astype(np.int64)

    def runs_of(self, voxels: Array) -> Runs:
        """The runs of voxels (N, 3): what `voxels_of` reads, also after the airways' grid was cropped or enlarged."""
        import numpy as np

        if not len(voxels):
            return ()
        back = np.linalg.inv(self._to_ijk)
        places = np.rint(voxels @ back[:3, :3].T + back[:3, 3]).astype(int)[:, ::-1]
        places = np.unique(places, axis=0)
        starts = np.flatnonzero((np.diff(places, axis=0, prepend=-2) != (0, 0, 1)).any(axis=1))
        counts = np.diff(np.append(starts, len(places)))
        rows = np.column_stack([places[starts], counts]).tolist()
        return tuple((z, y, x, count) for z, y, x, count in rows)

    @cached_property
    def _to_ijk(self) -> Array:
        """The matrix (4, 4) from the document's voxel indices (x, y, z) to those of the airways' grid."""
        import numpy as np

        to_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.array(self._document["ijk_to_lps"])
        own = slicer.util.arrayFromVTKMatrix(moved_by(self._node)) @ to_ras
        grid = slicer.util.arrayFromVTKMatrix(grid_of(self._segmentation_node))
        return np.linalg.solve(grid, own)


def _repair(plain: dict[str, Any]) -> Repair:
    x, y, z = plain["place_mm"]
    return Repair(
        number=plain["number"],
        state=plain["state"],
        reason=plain["reason"],
        method=plain["method"],
        score=plain["score"],
        length_mm=plain["length_mm"],
        brought_mm=sum(piece["length_mm"] for piece in plain["fragments"]),
        branch=plain["branch"],
        place_mm=(x, y, z),
        joins=tuple(plain["joins"]),
        fragments=tuple(piece["number"] for piece in plain["fragments"]),
    )
