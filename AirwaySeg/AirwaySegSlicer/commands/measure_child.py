"""The command `measure` for the panel: as `python -m AirwaySegLib`, and beside its files one that Slicer reads at once.

It runs as a child process. The maps of a whole chest take Slicer a second to read, but only one voxel in a hundred is
airway: `voxels.npz` holds those alone.
"""

import os
import sys
from typing import Any

from AirwaySegSlicer.scene.maps import BRANCHES, MAPS, VOXELS


def write_voxels(folder: str) -> None:
    """Write the airways' voxels of a measured folder into its `voxels.npz`.

    ``where`` (N,) are their places in the flattened maps (Z, Y, X), ascending; the maps' values there go by the names
    of the maps; ``shape`` and ``ijk_to_ras`` (4, 4) are the maps' grid.
    """
    import numpy as np
    import SimpleITK

    columns, grid = {}, {}
    for name in MAPS:
        image = SimpleITK.ReadImage(os.path.join(folder, name))
        flat = SimpleITK.GetArrayViewFromImage(image).reshape(-1)  # valid as long as the image lives
        if name == BRANCHES:
            grid = {"where": np.flatnonzero(flat), "shape": image.GetSize()[::-1], "ijk_to_ras": _ijk_to_ras(image)}
        columns[name] = flat[grid["where"]]
    np.savez(os.path.join(folder, VOXELS), **grid, **columns)


def _ijk_to_ras(image: Any) -> Any:
    """The matrix (4, 4) from voxel indices to Slicer's axes."""
    import numpy as np

    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    matrix[:2] *= -1  # from LPS
    return matrix


def main(arguments: list[str]) -> int:
    """Run ``measure MASK -o FOLDER ...`` and write the voxels; the exit code."""
    from AirwaySegLib.__main__ import main as airwayseg

    code = airwayseg(arguments)
    if not code:
        write_voxels(arguments[arguments.index("-o") + 1])
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
