"""The voxels of measured airways: their values, as sparse arrays, at the points of a surface, and as a volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import slicer
import vtk

from AirwaySegSlicer.scene.segments import array_of

Array = Any

NOTHING = -1.0
"""Value outside the airways, and of airway voxels without a value."""


@dataclass(frozen=True)
class AirwayVoxels:
    """Indices (N,) of the voxels in the flattened grid, ascending, their values by map, and the grid."""

    where: Array
    columns: dict[str, Array]
    shape: tuple[int, int, int]
    ijk_to_ras: Array

    @classmethod
    def read(cls, path: str) -> AirwayVoxels:
        """Read the file that `airwayseg --voxels` writes."""
        import numpy as np

        with np.load(path) as archive:
            columns = {name: archive[name] for name in archive.files}
        z, y, x = (int(count) for count in columns.pop("shape"))
        return cls(columns.pop("where"), columns, (z, y, x), columns.pop("ijk_to_ras"))

    def near(self, points: Array, values: Array) -> Array:
        """The value of the nearest airway voxel within one voxel of each point (P, 3); (P,) float32.

        `NOTHING` where there is none: smoothing may move a surface farther away at a few points.
        """
        import numpy as np

        to_ijk = np.linalg.inv(self.ijk_to_ras)
        voxels = np.rint(points @ to_ijk[:3, :3].T + to_ijk[:3, 3]).astype(np.int64)[:, ::-1]
        found = np.full(len(points), NOTHING, np.float32)
        steps = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        for step in steps[np.argsort(np.abs(steps).sum(axis=1), kind="stable")]:
            open_ = np.flatnonzero(found == NOTHING)
            if not len(open_) or not len(self.where):
                break
            found[open_] = self._at(voxels[open_] + step, values)
        return found

    def _at(self, voxels: Array, values: Array) -> Array:
        """The values at voxels (P, 3) as (k, j, i); `NOTHING` where there is no airway."""
        import numpy as np

        inside = ((voxels >= 0) & (voxels < self.shape)).all(axis=1)
        flat = voxels @ np.array([self.shape[1] * self.shape[2], self.shape[2], 1])
        index = np.minimum(np.searchsorted(self.where, flat), len(self.where) - 1)
        return np.where(inside & (self.where[index] == flat), values[index], NOTHING)

    def volume(self, values: Array, whole: bool) -> slicer.vtkMRMLScalarVolumeNode:
        """The values on their grid, `NOTHING` elsewhere, as a volume that is not in a scene; ``whole``: of integers."""
        image, node = vtk.vtkImageData(), slicer.vtkMRMLScalarVolumeNode()
        image.SetDimensions(*self.shape[::-1])
        image.AllocateScalars(vtk.VTK_SHORT if whole else vtk.VTK_FLOAT, 1)
        array = array_of(image)
        array.fill(NOTHING)
        array.reshape(-1)[self.where] = values
        node.SetAndObserveImageData(image)
        node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(self.ijk_to_ras))
        return node
