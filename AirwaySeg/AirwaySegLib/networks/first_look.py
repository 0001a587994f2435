"""A first look at half the resolution, which decides where the network looks at full resolution.

It takes an eighth of the operations. At half the resolution the network misses thin airways, so everything within
`REACH_MM` of what it sees is looked at again.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from AirwaySegLib.networks.windows import region_box

FACTOR = 2
"""How many voxels make one of the first look, along each axis."""

SEEN = 128
"""Lowest probability (0..255) at which the first look counts."""

SMALLEST_VOXELS = 20
"""Smaller pieces (at half the resolution) are noise: about 70 cubic millimetres."""

REACH_MM = 25.0
"""Airways end within this distance of those seen at half the resolution.

On four CTs of 1.0, 1.25, 3.0 and 3.0 mm every voxel of the mask was in a window that was run;
with 15 mm up to 0.3 % were not.
"""


def halved_image(image: NDArray, region: NDArray[np.bool_]) -> NDArray[np.float32]:
    """An image (C, Z, Y, X) at half the resolution, within the box of a region (Z, Y, X) that is not empty.

    An odd number of voxels is made even by repeating the last.
    """
    box = region_box(region, region.shape)
    return np.stack([_halved(channel[box].astype(np.float32)).mean(axis=(1, 3, 5)) for channel in image])


def halved_region(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A region that is not empty at half the resolution, within its box."""
    return np.asarray(_halved(region[region_box(region, region.shape)]).any(axis=(1, 3, 5)))


def _halved(array: NDArray) -> NDArray:
    """(Z, Y, X) as blocks (Z / 2, 2, Y / 2, 2, X / 2, 2)."""
    even = np.pad(array, [(0, size % FACTOR) for size in array.shape], mode="edge")
    z, y, x = (size // FACTOR for size in even.shape)
    return even.reshape(z, FACTOR, y, FACTOR, x, FACTOR)


def worth_looking(
    probability: NDArray[np.uint8], region: NDArray[np.bool_], certain: NDArray[np.intp], spacing_mm: Sequence[float]
) -> NDArray[np.bool_]:
    """The part of a region in which airways can be, judged by the first look.

    Parameters
    ----------
    probability
        Of the first look, 0..255.
    region
        (Z, Y, X) bool at full resolution, as given to `halved_image`.
    certain
        (N, 3) voxels at full resolution that are airway in any case: the trachea.
    spacing_mm
        Of the full resolution, (z, y, x).

    Returns
    -------
    NDArray
        (Z, Y, X) bool: voxels of the region within `REACH_MM` of an airway that was seen, or of a certain one.
    """
    box = region_box(region, region.shape)
    labels, _ = ndimage.label(probability >= SEEN, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    seen = (sizes >= SMALLEST_VOXELS)[labels]
    inside = (certain - [part.start for part in box]) // FACTOR
    inside = inside[((inside >= 0) & (inside < seen.shape)).all(axis=1)]
    seen[tuple(inside.T)] = True
    part = np.zeros_like(region)
    if seen.any():
        away_mm = ndimage.distance_transform_edt(~seen, sampling=[FACTOR * mm for mm in spacing_mm])
        near = away_mm <= REACH_MM
        for axis in range(3):
            near = near.repeat(FACTOR, axis=axis)
        z, y, x = region[box].shape
        part[box] = near[:z, :y, :x] & region[box]
    return part
