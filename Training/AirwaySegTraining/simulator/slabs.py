"""Thick slices, and the round field of view. Arrays are (Z, Y, X)."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from AirwaySegTraining.simulator.scanner import PADDING_HU

Field = NDArray[np.floating]

THICKNESSES_MM, SHARES = (2.0, 2.5, 3.0, 5.0), (0.3, 0.3, 0.25, 0.15)
FINEST_MM = 1.25

LEAST_SHARE = 0.5
"""A voxel of a thick slice is airway if at least this share of it is; with a smaller share it is left out."""


@dataclass(frozen=True)
class Slabs:
    """Slices of ``thick_mm``, one every ``every`` fine slices, each the mean of ``over``; 0 mm: the fine ones."""

    thick_mm: float = 0.0
    fine_mm: float = 0.0
    every: int = 1
    over: int = 1

    @classmethod
    def touching(cls, thick_mm: float) -> "Slabs":
        """Slices of a thickness that touch and do not overlap."""
        over = int(np.ceil(thick_mm / FINEST_MM))
        return cls(thick_mm, thick_mm / over, over, over)

    def spacing_mm(self, fine_mm: tuple[float, float, float]) -> tuple[float, float, float]:
        """Spacing of the slices."""
        return fine_mm[0] * self.every, fine_mm[1], fine_mm[2]

    def first_mm(self, fine_mm: float) -> float:
        """Where the middle of the first of these slices lies, from the middle of the first fine one."""
        return (self.every // 2 - (0.5 if self.over % 2 == 0 else 0.0)) * fine_mm if self.over > 1 else 0.0

    def _means(self, fine: Field) -> Field:
        return uniform_filter1d(fine, self.over, axis=0, mode="nearest")[self.every // 2 :: self.every]

    def mean(self, hu: Field) -> Field:
        """The image averaged to these slices."""
        return hu if self.over == 1 else self._means(hu)

    def label(self, fine: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The label in these slices: 1 where enough of a voxel is airway, 2 where a part of it only is one or 2."""
        if self.over == 1:
            return fine
        airway = self._means((fine == 1).astype(np.float32))
        some = self._means((fine != 0).astype(np.float32))
        return np.where(airway >= LEAST_SHARE, 1, np.where(some >= LEAST_SHARE / 2, 2, 0)).astype(np.uint8)


def draw_slabs(rng: np.random.Generator) -> Slabs:
    """Slices of 2 to 5 mm; one scan in three has overlapping slices."""
    slabs = Slabs.touching(float(rng.choice(THICKNESSES_MM, p=SHARES)))
    return replace(slabs, every=max(1, slabs.over - 1)) if rng.random() < 0.33 else slabs


def outside_circle(hu: Field, rng: np.random.Generator) -> None:
    """Fill what lies outside a round field of view with padding, in place."""
    height, width = hu.shape[1:]
    y, x = np.indices((height, width), dtype=np.float32)
    radius = max(height, width) / 2 * rng.uniform(0.97, 1.12)
    hu[:, np.hypot(y - height / 2, x - width / 2) > radius] = PADDING_HU
