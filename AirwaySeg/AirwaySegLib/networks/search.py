"""The network over a scan: windows on a raster; or a first look, and windows fitted to what it leaves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.networks.first_look import halved_image, halved_region, worth_looking
from AirwaySegLib.networks.sliding_window import Backend, predict
from AirwaySegLib.networks.weights import ModelInfo
from AirwaySegLib.networks.windows import Sliding, count_windows, fitted, voxels_run
from AirwaySegLib.progress import Progress
from AirwaySegLib.settings import SegmentSettings

WINDOW_VOXELS = 128**3
"""The unit in which work is told."""


@dataclass(frozen=True)
class Area:
    """Where airways are searched, on the network's grid.

    ``region`` (Z, Y, X) is bool, ``certain`` (N, 3) are voxels that are airway in any case, empty if none are known.
    """

    region: NDArray[np.bool_]
    certain: NDArray[np.intp]
    spacing_mm: Sequence[float]


def windows_of(info: ModelInfo, settings: SegmentSettings) -> Sliding:
    """The windows for which the weights were made, with the overlap that is wanted."""
    return Sliding(info.patch_zyx, settings.overlap, settings.window_weights)


def fitted_windows(info: ModelInfo, settings: SegmentSettings, region: NDArray[np.bool_]) -> Sliding:
    """The windows that are run: with a first look fitted to the region, if it is not empty and the weights allow it."""
    sliding = windows_of(info, settings)
    fits = settings.first_look == "yes" and info.any_window() and region.any()
    return fitted(sliding, region, info.side_multiple) if fits else sliding


def has_first_look(info: ModelInfo, settings: SegmentSettings, area: Area) -> bool:
    """Whether a first look is taken: only with a known trachea, and for weights that take windows of any size."""
    return settings.first_look == "yes" and info.any_window() and len(area.certain) > 0 and bool(area.region.any())


def work(info: ModelInfo, settings: SegmentSettings, area: Area) -> tuple[int, float]:
    """The most windows that `search` may run, and their voxels in windows of 128^3."""
    regions = [area.region]
    if has_first_look(info, settings, area):
        regions.append(halved_region(area.region))
    windows = [(fitted_windows(info, settings, region), region) for region in regions]
    count = sum(count_windows(region.shape, sliding, region) for sliding, region in windows)
    return count, sum(voxels_run(region.shape, sliding, region) for sliding, region in windows) / WINDOW_VOXELS


def search(
    image: NDArray, backend: Backend, area: Area, info: ModelInfo, settings: SegmentSettings, progress: Progress
) -> tuple[NDArray[np.uint8], dict[str, object]]:
    """The probability of airways (0..255) in the region, 0 elsewhere, and what was run for it.

    Parameters
    ----------
    image
        (C, Z, Y, X), any floating dtype, normalised to [0, 1].
    backend
        Runs windows of any size.
    area, info, settings
        Where to search, the description of the weights, and the wishes.
    progress
        Callback, called as progress("infer", windows done, windows); may raise Cancelled. After a first look the
        number of windows can be smaller.
    """
    region, before, voxels = area.region, 0, 0
    if has_first_look(info, settings, area):
        halved = halved_region(region)
        sliding = fitted_windows(info, settings, halved)
        before, voxels = count_windows(halved.shape, sliding, halved), voxels_run(halved.shape, sliding, halved)
        most = work(info, settings, area)[0]
        seen = predict(
            halved_image(image, region), backend, sliding, halved, lambda stage, done, _: progress(stage, done, most)
        )
        region = worth_looking(seen, region, area.certain, area.spacing_mm)
    sliding = fitted_windows(info, settings, region)
    count = count_windows(region.shape, sliding, region)
    voxels += voxels_run(region.shape, sliding, region)
    probability = predict(
        image,
        backend,
        sliding,
        region,
        lambda stage, done, _: progress(stage, before + done, before + count),
        area.region,
    )
    ran: dict[str, object] = {
        "first_look": has_first_look(info, settings, area),
        "window_zyx": list(sliding.patch_zyx),
        "windows": before + count,
        "windows_of_128": round(voxels / WINDOW_VOXELS, 1),
    }
    return probability, ran
