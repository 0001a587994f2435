"""What an edit works on: airways, CT and probability of one scan, of which only the boxes around the edit are touched.

Voxels are (z, y, x) on the scan's own grid, whatever its orientation; mm count from the centre of voxel (0, 0, 0) along
its axes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Spacing = tuple[float, float, float]
Voxels = NDArray[np.int32]
"""(N, 3), as z, y, x."""


@dataclass(frozen=True, eq=False)
class Part:
    """An array (Z, Y, X) whose first voxel is voxel ``corner`` of the scan; the rest of the scan is 0."""

    array: NDArray
    corner: tuple[int, int, int] = (0, 0, 0)

    def within(self, box: "Crop") -> NDArray:
        """The values in a box, in the array's own type."""
        low = np.array(box.low) - self.corner
        first, last = np.maximum(low, 0), np.minimum(low + box.shape, self.array.shape)
        if (first == low).all() and (last == low + box.shape).all():
            return self.array[tuple(map(slice, first, last))]
        values = np.zeros(box.shape, self.array.dtype)
        if (first < last).all():
            values[tuple(map(slice, first - low, last - low))] = self.array[tuple(map(slice, first, last))]
        return values


@dataclass(frozen=True)
class Crop:
    """A box of a scan: its first voxel and how many there are along z, y and x."""

    low: tuple[int, int, int]
    shape: tuple[int, int, int]

    @classmethod
    def around(cls, voxels: NDArray, margin_mm: float, spacing_mm: Spacing, shape: tuple[int, ...]) -> "Crop":
        """The box of some voxels (N, 3) and what lies within a margin, inside a scan of a shape."""
        margin = np.ceil(margin_mm / np.asarray(spacing_mm)).astype(int)
        low = np.clip(voxels.min(axis=0) - margin, 0, np.array(shape) - 1)
        high = np.clip(voxels.max(axis=0) + margin + 1, 1, shape)
        counts = high - low
        return cls((int(low[0]), int(low[1]), int(low[2])), (int(counts[0]), int(counts[1]), int(counts[2])))

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as an index."""
        z, y, x = (slice(low, low + count) for low, count in zip(self.low, self.shape, strict=True))
        return z, y, x


@dataclass(frozen=True, eq=False)
class Scan:
    """Airways, CT and probability on one grid.

    Parameters
    ----------
    airways
        The mask; what is not 0 is airway.
    spacing_mm, shape
        Of the whole grid, as z, y, x.
    hu
        (Z, Y, X) of the whole grid in Hounsfield units, or None.
    probability
        The network's, uint8 0..255, or None.
    """

    airways: Part
    spacing_mm: Spacing
    shape: tuple[int, int, int]
    hu: NDArray | None = None
    probability: Part | None = None

    def airways_in(self, box: Crop) -> NDArray[np.bool_]:
        """The airways in a box."""
        inside: NDArray[np.bool_] = self.airways.within(box) != 0
        return inside
