"""The voxels of measured airways without the rest of the chest: their values, those near a surface, their volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import slicer
import vtk

from AirwaySegSlicer.scene.segments import array_of

Array = Any

NOTHING = -1.0
"""Value of what is no airway, and of airways that have none."""


@dataclass(frozen=True)
class AirwayVoxels:
    """Places (N,) of the voxels in the flattened grid, ascending, their values by map, and the grid."""

    where: Array
    columns: dict[str, Array]
    shape: tuple[int, int, int]
    ijk_to_ras: Array

    @classmethod
    def read(cls, path: str) -> AirwayVoxels:
        """From the file of voxels that `airwayseg` writes."""
        import numpy as np

        with np.load(path) as archive:
            columns = {name: archive[name] for name in archive.files}
        z, y, x = (int(count) for count in columns.pop("shape"))
        return cls(columns.pop("where"), columns, (z, y, x), columns.pop("ijk_to_ras"))

    def near(self, points: Array, values: Array) -> Array:
        """The value of the nearest voxel at each point (P, 3), looked for up to a voxel away; (P,) float32.

        `NOTHING` where there is none: smoothing may pull a surface farther off in a few places.
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
        place = np.minimum(np.searchsorted(self.where, flat), len(self.where) - 1)
        return np.where(inside & (self.where[place] == flat), values[place], NOTHING)

    def volume(self, values: Array, whole: bool) -> slicer.vtkMRMLScalarVolumeNode:
        """The values in their grid, `NOTHING` around them, of whole numbers or not, as a volume that is in no scene."""
        image, node = vtk.vtkImageData(), slicer.vtkMRMLScalarVolumeNode()
        image.SetDimensions(*self.shape[::-1])
        image.AllocateScalars(vtk.VTK_SHORT if whole else vtk.VTK_FLOAT, 1)
        array = array_of(image)
        array.fill(NOTHING)
        array.reshape(-1)[self.where] = values
        node.SetAndObserveImageData(image)
        node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(self.ijk_to_ras))
        return node
