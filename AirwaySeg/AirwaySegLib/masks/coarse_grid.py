"""Coarse grids for computations that need no fine detail: block means of a CT, and masks to the grid and back."""

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk

Factors = tuple[int, int, int]
"""How many voxels along z, y and x make one coarse voxel."""


def factors_for(spacing_mm: Sequence[float], wanted_mm: Sequence[float]) -> Factors:
    """Return the factors that bring a grid (z, y, x) nearest to the given spacing; at least 1."""
    z, y, x = (max(1, round(wanted / spacing)) for spacing, wanted in zip(spacing_mm, wanted_mm, strict=True))
    return z, y, x


def block_means(array: np.ndarray, factors: Factors) -> np.ndarray:
    """Return the mean of each block of voxels, (Z, Y, X) in the array's own type.

    An axis is cut where its last block would be incomplete (for 275 slices and blocks of 3, the last two are left out);
    an axis shorter than one block is one block.
    """
    size = [min(factor, count) for factor, count in zip(factors, array.shape, strict=True)]
    image = sitk.BinShrink(sitk.GetImageFromArray(array), size[::-1])
    return sitk.GetArrayFromImage(image)


def sampled(mask: np.ndarray, factors: Factors, shape: Sequence[int] | None = None) -> np.ndarray:
    """Return a mask's value at (about) the centre of each block; ``shape`` cuts it to that of `block_means`."""
    starts = [min(factor // 2, count - 1) for factor, count in zip(factors, mask.shape, strict=True)]
    fine = mask[tuple(slice(start, None, factor) for start, factor in zip(starts, factors, strict=True))]
    return np.ascontiguousarray(fine[tuple(slice(count) for count in shape or fine.shape)])


def enlarged(mask: np.ndarray, factors: Factors, shape: Sequence[int]) -> np.ndarray:
    """Give every voxel of the fine grid of ``shape`` its block's value; the last block is repeated beyond its end."""
    for axis, (factor, count) in enumerate(zip(factors, shape, strict=True)):
        mask = mask.take(np.minimum(np.arange(count) // factor, mask.shape[axis] - 1), axis=axis)
    return mask
