"""Bridges by the connection network: patches at the gaps of a mask, and what it predicts to be missing there.

The second stage of DeepTree (Accurate Airway Tree Segmentation in CT Scans via Anatomy-aware Multi-class Segmentation
and Deep Breakage Connection), section 2.2. Arrays are (Z, Y, X) on canonical axes. Letters in shapes: N voxels, S side
of a patch.
"""

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.lumen import FORWARD_OFFSETS

Labels = NDArray[np.int32]
Voxels = NDArray[np.int32]

BREAKAGE_WINDOW_HU = (-1000.0, 200.0)
"""From air to soft tissue, with the walls of airways between both."""

SIDE = 64
"""Of a patch: DeepTree's."""

LEAST_ATTENTION = 0.02
"""What is missing is asked for from this attention on, in training too: the middle of a gap of about 12 mm."""

NEIGHBOURS = np.array([offset for forward in FORWARD_OFFSETS for offset in (forward, tuple(-k for k in forward))])


def touched_by(voxels: Voxels, numbers: NDArray[np.intp], labels: Labels) -> NDArray[np.intp]:
    """Which components touch which pieces: pairs (P, 2) of piece and component, each once, ascending.

    ``voxels`` (N, 3) lie in the pieces ``numbers`` (N,); a voxel touches the 26 around it.
    """
    pairs = []
    last = np.array(labels.shape) - 1
    for offset in NEIGHBOURS:
        beside = voxels + offset
        inside = np.flatnonzero(((beside >= 0) & (beside <= last)).all(axis=1))
        found = labels[tuple(beside[inside].T)]
        hit = inside[found > 0]
        pairs.append(np.column_stack([numbers[hit], found[found > 0]]))
    return np.unique(np.concatenate(pairs), axis=0).astype(np.intp)
