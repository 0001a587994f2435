"""A result as the library's edits see it: airways, CT and probability as arrays, on one grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from AirwaySegSlicer.scene.branches import Point
from AirwaySegSlicer.scene.nodes import PROBABILITY, companion, ijk_to_ras
from AirwaySegSlicer.scene.segments import Array, airways_box, ct_of, first_voxel_between, segment_voxels

if TYPE_CHECKING:
    from AirwaySegLib.edit.scan import Scan


@dataclass(frozen=True)
class Grid:
    """The library's view of a result: its scan, and what is added to (z, y, x) of the CT for i, j, k of the airways."""

    scan: Scan
    to_airways: Array
    to_ijk: Array
    airways: slicer.vtkMRMLSegmentationNode

    def voxel(self, world: Point) -> Array:
        """A point (RAS, world) as a voxel (z, y, x) of the scan, with fractions."""
        import numpy as np

        local = [0.0, 0.0, 0.0]
        self.airways.TransformPointFromWorld(world, local)
        return (self.to_ijk @ np.array([*local, 1.0]))[:3][::-1]

    def on_scan(self, voxels: Array) -> Array:
        """Voxels (N, 3), i, j, k on the airways' grid, as (z, y, x) of the scan, those inside it."""
        found = (voxels - self.to_airways)[:, ::-1]
        return found[((found >= 0) & (found < self.scan.shape)).all(axis=1)]

    def on_airways(self, voxels: Array) -> Array:
        """Voxels (N, 3) of the scan as i, j, k on the airways' grid."""
        return voxels[:, ::-1].astype(int) + self.to_airways


def scan_grid(airways: slicer.vtkMRMLSegmentationNode) -> Grid:
    """The airways, their CT and, where it is known, their probability."""
    import numpy as np

    from AirwaySegLib.edit.scan import Part, Scan

    airways_box(airways)  # raises where there are none
    ct, voxels = ct_of(airways), segment_voxels(airways)
    matrix = ijk_to_ras(ct)
    low = first_voxel_between(voxels.matrix, matrix, voxels.low)
    if low is None:
        sentence = _("The airways of {name} are not on the grid of {ct}.")
        raise RuntimeError(sentence.format(name=airways.GetName(), ct=ct.GetName()))
    hu = slicer.util.arrayFromVolume(ct)
    spacing = np.linalg.norm(slicer.util.arrayFromVTKMatrix(matrix)[:3, :3], axis=0)[::-1]
    scan = Scan(
        airways=Part(voxels.array, (low[2], low[1], low[0])),
        spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        shape=(hu.shape[0], hu.shape[1], hu.shape[2]),
        hu=hu,
        probability=_probability_part(airways, ct),
    )
    to_ijk = np.linalg.inv(slicer.util.arrayFromVTKMatrix(matrix))
    return Grid(scan, np.subtract(voxels.low, low), to_ijk, airways)


def _probability_part(airways: slicer.vtkMRMLSegmentationNode, ct: slicer.vtkMRMLScalarVolumeNode) -> Array | None:
    from AirwaySegLib.edit.scan import Part

    node = companion(airways, PROBABILITY)
    low = first_voxel_between(ijk_to_ras(node), ijk_to_ras(ct)) if node is not None else None
    return Part(slicer.util.arrayFromVolume(node), (low[2], low[1], low[0])) if low is not None else None
