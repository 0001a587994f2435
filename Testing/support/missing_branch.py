"""Drawn airways with a wall in noisy lung beside a vessel, one branch of which is missing from the mask."""

import numpy as np
from forked_branch import SPACING_MM
from phantoms import Tube, draw_tubes
from scipy.ndimage import binary_dilation, gaussian_filter

SHAPE = (100, 90, 110)
TRUNK = Tube((75.0, 31.0, 20.0), (10.0, 31.0, 20.0), 4.0, 3.5)
DECOY = Tube((58.0, 31.0, 22.0), (52.0, 31.0, 60.0), 1.8, 1.5)
"""A branch of the tree that runs above the missing one, a wall apart at the end."""
PARENT = Tube((40.0, 31.0, 20.0), (36.0, 31.0, 38.0), 2.2, 2.0)
MISSING = Tube((36.0, 31.0, 38.0), (46.0, 31.0, 62.0), 1.6, 1.4)
VESSEL = Tube((33.0, 34.5, 38.0), (43.0, 34.5, 64.0), 1.8, 1.6)


def painted(airway: np.ndarray, noise_hu: float = 40.0) -> np.ndarray:
    """HU of airways with a wall in lung beside a vessel; outside the body beyond the last 20 columns of y."""
    hu = np.full(airway.shape, -860.0)
    hu[binary_dilation(airway, iterations=2)] = -450
    hu[draw_tubes([VESSEL], SHAPE, SPACING_MM) & ~airway] = 40
    hu[airway] = -980
    hu = gaussian_filter(hu, 0.6) + np.random.default_rng(1).normal(0, noise_hu, airway.shape)
    hu[:, -20:] = -1000
    return hu.astype(np.int16)


def voxel(point_mm: tuple[float, float, float]) -> np.ndarray:
    """A point as a voxel with fractions, (1, 3)."""
    return np.divide(point_mm, SPACING_MM)[None]


def of(voxels: np.ndarray) -> np.ndarray:
    """The mask of voxels (N, 3)."""
    mask = np.zeros(SHAPE, bool)
    mask[tuple(voxels.T)] = True
    return mask
