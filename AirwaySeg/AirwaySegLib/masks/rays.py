"""Rays from the middle of a lumen to its wall.

Letters in shapes: P positions on a line, R rays, S samples on a ray. Positions are (z, y, x) in mm.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

RAYS = 24
"""Rays to the wall from the middle of a lumen, evenly around its axis. By hand."""

RAY_STEP_MM = 0.4
"""Distance of the samples on a ray. By hand."""

SMOOTHING = (0.25, 0.5, 0.25)
"""Weights of neighbouring samples and rays: noise of 60 HU in single voxels is no wall."""


def rays_across(axes: NDArray, count: int) -> NDArray[np.floating]:
    """Unit vectors at right angles to each axis, evenly around it: (P, ``count``, 3) for unit vectors (P, 3)."""
    one = np.cross(axes, np.eye(3)[np.abs(axes).argmin(axis=1)])
    one /= np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-9)  # a piece of one voxel has no axis
    two = np.cross(axes, one)
    angles = 2 * np.pi * np.arange(count)[:, None] / count
    return np.cos(angles) * one[:, None] + np.sin(angles) * two[:, None]


def profiles_around(
    hu: NDArray, spacing_mm: NDArray, centers_mm: NDArray, axes: NDArray, steps_mm: NDArray
) -> NDArray[np.float32]:
    """HU along rays at right angles to an axis, from each of some positions outwards, lightly smoothed.

    Parameters
    ----------
    hu
        (Z, Y, X) with ``spacing_mm`` (3,) as z, y, x.
    centers_mm, axes
        (P, 3) from the centre of voxel (0, 0, 0); the axes are unit vectors.
    steps_mm
        (S,) distances of the samples from the middle.

    Returns
    -------
    (P, R, S) with R = `RAYS`.
    """
    directions = rays_across(axes, RAYS)
    points = (centers_mm[:, None, None] + directions[:, :, None] * steps_mm[:, None]) / spacing_mm
    found = ndimage.map_coordinates(hu, points.reshape(-1, 3).T, order=1, mode="nearest", output=np.float32)
    around = ndimage.convolve1d(found.reshape(len(centers_mm), RAYS, -1), SMOOTHING, axis=1, mode="wrap")
    return ndimage.convolve1d(around, SMOOTHING, axis=2, mode="nearest")
