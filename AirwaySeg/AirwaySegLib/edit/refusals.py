"""What is at a point that no airway can be grown from, in words."""

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.edit.scan import Crop, Scan
from AirwaySegLib.errors import AirwaySegError

_BRIGHT_HU, _EMPTY_HU = -600.0, -930.0
"""Brighter is tissue; darker on all sides is the air around the patient."""

_AROUND_MM, _EMPTY_SHARE = 8.0, 0.97
"""Cube around a point, by its half side, and the share of it that is empty outside the patient."""

_AT_WALL_MM = 2.0

EMPTY = "has nothing but air around it: it lies outside the body or in a bulla"


def refuse(row: int, count: int, what: str) -> AirwaySegError:
    """The error about one of ``count`` points: "The point ..." or "Point 2 ..."."""
    return AirwaySegError(f"{'The point' if count == 1 else f'Point {row + 1}'} {what}.")


def is_empty(scan: Scan, voxel: NDArray) -> bool:
    """Whether a voxel (3,) of a scan has nothing but air around it; False without a CT."""
    if scan.hu is None or scan.airways_in(Crop.around(voxel[None], _AROUND_MM, scan.spacing_mm, scan.shape)).any():
        return False
    return float((_cube(scan.hu, voxel, _AROUND_MM, scan.spacing_mm) < _EMPTY_HU).mean()) >= _EMPTY_SHARE


def why_not_lumen(
    smooth_hu: NDArray | None, point: NDArray, tree: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> str:
    """What is at a point (3,) of a box instead of lumen; ``smooth_hu`` and ``tree`` are (Z, Y, X) of the box."""
    if smooth_hu is None:
        return "shows no airway: the probability within 3 mm is nearly 0, and there is no CT"
    near = _cube(tree, point, _AT_WALL_MM, spacing_mm)
    here = float(smooth_hu[tuple(point)])
    if near.any():
        return "lies at the wall of the airways, and no other lumen is within 3 mm"
    if here > _BRIGHT_HU:
        return f"lies in tissue or a vessel ({here:.0f} HU or more), and no lumen is within 3 mm"
    return f"lies in lung tissue ({here:.0f} HU): no lumen with a wall is within 3 mm"


def _cube(array: NDArray, point: NDArray, half_mm: float, spacing_mm: tuple[float, float, float]) -> NDArray:
    """The part of a box within some mm of a point along each axis."""
    reach = np.ceil(half_mm / np.asarray(spacing_mm)).astype(int)
    return array[tuple(map(slice, np.maximum(point - reach, 0), point + reach + 1))]
