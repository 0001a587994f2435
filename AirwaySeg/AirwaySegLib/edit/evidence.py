"""How much each voxel near a click looks like lumen, from the CT and from the network's probability.

``ramp`` is 0 at its first limit and 1 at its second. All limits were chosen by hand on real CTs of 0.7 to 3 mm.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from AirwaySegLib.edit.scan import Crop, Scan

Floats = NDArray[np.float32]

_DARKEST_HU, _BRIGHTEST_HU = -1024.0, -300.0
"""Values are clipped to these: a vessel is no better wall than an airway's own."""

_FINE_MM, _AROUND_MM, _DEEP = 0.35, 1.0, (0.5, 2.5)
"""A narrow lumen is darker than its surroundings: difference of Gaussians of these standard deviations, in those of the
noise."""

_CLOSING_MM, _CLOSED_HU = 3.5, (100.0, 300.0)
"""The same for lumens of 2 to 3 mm: how far a grey closing by a cube of this side fills them."""

_WIDE_HU = (80.0, 20.0)
"""A wide lumen is as dark as the air of the tree: by how much it may be brighter."""

_TRUST = 0.5
"""How much the CT can say for a lumen beside a probability; alone it can say all."""

_AIR_PERCENTILE, _AIR_HU = 10, (-1000.0, -850.0)
"""The tree's air: this percentile of its voxels in the box, within these limits."""

_SURE = 0.5
"""From this probability on a voxel is lumen, whatever the CT says."""

_BRIGHT_HU = (-700.0, -300.0)
"""From wall to soft tissue: what is so bright is no lumen but for a probability."""

_LEAST_COST, _TISSUE = 0.03, 2.0
"""Of a mm in lumen; what is added in soft tissue, where no lumen at all adds 1."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Of the voxels of a box, each (Z, Y, X).

    ``likeness`` to lumen 0..1, what speaks ``against`` a path through them, 0..3, and the smoothed HU or None.
    """

    likeness: Floats
    against: Floats
    smooth_hu: Floats | None

    def cost(self, strictness: float) -> Floats:
        """Of a mm in each voxel: the stricter, the longer a way through lumen that a path takes instead of another."""
        return _LEAST_COST + strictness * self.against


def evidence_in(scan: Scan, box: Crop, air_hu: float) -> Evidence:
    """The evidence in a box; ``air_hu`` is how dark a wide lumen is (`air_of`)."""
    by_probability = np.zeros(box.shape, np.float32)
    if scan.probability is not None:
        by_probability = np.clip(scan.probability.within(box).astype(np.float32) / (255 * _SURE), 0, 1)
    if scan.hu is None:
        return Evidence(by_probability, (1 - by_probability) ** 2, None)
    hu = np.clip(scan.hu[box.slices].astype(np.float32), _DARKEST_HU, _BRIGHTEST_HU)
    fine, around = (_smoothed(hu, sigma_mm, scan) for sigma_mm in (_FINE_MM, _AROUND_MM))
    size = [max(3, 2 * round(_CLOSING_MM / 2 / mm) + 1) for mm in scan.spacing_mm]
    closed = extreme_in(extreme_in(fine, size, np.maximum), size, np.minimum)  # a grey closing
    deep = around - fine
    noise_hu = max(1.4826 * float(np.median(np.abs(deep - np.median(deep)))), 10.0)
    by_ct = (_ramp(deep / noise_hu, _DEEP) + _ramp(closed - fine, _CLOSED_HU)) / 2
    by_ct = np.maximum(by_ct, _ramp(around - air_hu, _WIDE_HU))
    bright = _ramp(fine, _BRIGHT_HU)
    by_ct *= 1 - bright
    trust = _TRUST if scan.probability is not None else 1.0
    unlike = (1 - by_probability) * (1 - trust * by_ct)
    return Evidence(1 - unlike, unlike**2 + _TISSUE * bright * (1 - by_probability), fine)


def air_of(scan: Scan, box: Crop) -> float:
    """HU of the air in wide lumens of the tree, from the airways in a box."""
    low, high = _AIR_HU
    if scan.hu is None:
        return high
    inside = scan.hu[box.slices][scan.airways_in(box)]
    return float(np.clip(np.percentile(inside, _AIR_PERCENTILE), low, high)) if len(inside) else high


def extreme_in(values: Floats, size: list[int], extreme: np.ufunc) -> Floats:
    """The largest (`numpy.maximum`) or smallest value (`numpy.minimum`) of the box of odd sides around each voxel.

    Beyond the border the values are mirrored. As scipy's filters of grey values, in a third of their time.
    """
    for axis, side in enumerate(size):
        found = np.pad(values, [(side // 2, side // 2) if one == axis else (0, 0) for one in range(3)], "symmetric")
        found, reached = np.moveaxis(found, axis, 0), 1
        while reached < side:
            step = min(reached, side - reached)
            found = extreme(found[:-step], found[step:])
            reached += step
        values = np.moveaxis(found, 0, axis)
    return values


def _smoothed(hu: Floats, sigma_mm: float, scan: Scan) -> Floats:
    return ndimage.gaussian_filter(hu, [sigma_mm / mm for mm in scan.spacing_mm], truncate=3)


def _ramp(values: NDArray, limits: tuple[float, float]) -> NDArray:
    zero, one = limits
    return np.clip((values - zero) / (one - zero), 0, 1)
