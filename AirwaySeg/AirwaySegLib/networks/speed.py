"""How long the network takes on this computer, from a small window that is run and timed."""

import time

import numpy as np

from AirwaySegLib.networks.search import WINDOW_VOXELS
from AirwaySegLib.networks.sliding_window import Backend
from AirwaySegLib.networks.weights import ModelInfo

TRIAL_SIDE = 64
"""An eighth of a window of 128^3: a tenth of a second on a fast processor, a second on a slow one."""

USUAL_VOXELS, USUAL_WINDOWS = 512 * 512 * 300, 33.0
"""A usual CT of the chest, and its work in windows of 128^3: the mean of four CTs of 1 to 3 mm (27 to 40)."""

OTHER_SECONDS = 26 / (512 * 512 * 600)
"""Seconds for each voxel of everything else, on two cores of a server, by `Testing/benchmarks/memory.py`."""


def window_seconds(backend: Backend, info: ModelInfo) -> float:
    """Seconds of a window of 128^3, from the second of two runs of a small one; the first may compile or warm up.

    Weights whose windows have one size are tried with a window of this size.
    """
    side = TRIAL_SIDE + -TRIAL_SIDE % info.side_multiple
    zyx = (side, side, side) if info.any_window() else info.patch_zyx
    window = np.zeros((1, info.in_channels, *zyx), np.float32)
    backend.run(window)
    start = time.perf_counter()
    backend.run(window)
    return (time.perf_counter() - start) * WINDOW_VOXELS / window[0, 0].size


def about(seconds: float) -> str:
    """A time for people, rounded: "about 40 s", "about 3 min"."""
    if seconds < 100:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    return f"about {round(seconds / 60)} min"
