"""Distance maps of an airway tree, in mm for every voxel of the lumen: to the centerline, to the wall, along the tree.

Letters in shapes: N voxels of the lumen.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from AirwaySegLib.tree.airway_tree import distances_from_carina
from AirwaySegLib.tree.build import ParsedAirways

Distances = NDArray[np.float32]

UNREACHED = -1.0
"""Distance along the tree in a loose fragment: there is no way."""


def to_centerline(airways: ParsedAirways) -> Distances:
    """Distance from each voxel's centre to the nearest centerline, (N,): the d of the General Union loss.

    Zheng et al. 2021, arXiv:2011.11952. The lines are sampled at half a voxel, which bounds the error.
    """
    points = _fine(airways)
    nearest = points[airways.search.nearest(cKDTree(points), "centerline")]
    return np.linalg.norm(nearest - airways.lumen.places_mm, axis=1).astype(np.float32)


def to_wall(airways: ParsedAirways) -> Distances:
    """Distance from each voxel's centre to the face of the nearest background voxel, (N,)."""
    return airways.lumen.wall_mm.astype(np.float32)


def from_carina(airways: ParsedAirways) -> Distances:
    """Distance along the tree from the carina to each voxel's point on its branch's centerline, (N,).

    Upwards in the trachea as well as downwards; from the root where no carina is known, and `UNREACHED` in fragments.
    """
    distances = np.concatenate(distances_from_carina(airways.tree))[airways.nearest]
    return np.where(np.isnan(distances), UNREACHED, distances).astype(np.float32)


def _fine(airways: ParsedAirways) -> NDArray[np.float64]:
    """All centerlines sampled at half the smallest voxel edge or finer, (M, 3)."""
    step_mm = 0.5 * min(airways.lumen.spacing_mm)
    lines = airways.lines
    ahead = np.diff(lines.places_mm, axis=0)
    same = lines.branch[1:] == lines.branch[:-1]
    length_mm = np.linalg.norm(ahead, axis=1)
    pieces = np.where(same, np.ceil(length_mm / step_mm), 1).astype(int)
    start = np.repeat(np.arange(len(pieces)), pieces)
    part = (np.arange(len(start)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) / np.repeat(pieces, pieces)
    between = lines.places_mm[start] + part[:, None] * ahead[start]
    return np.concatenate([between, lines.places_mm[-1:]])
