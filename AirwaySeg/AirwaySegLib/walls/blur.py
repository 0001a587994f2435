"""How much a scan is blurred, from its own airway walls."""

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.walls.blurred_tube import Floats
from AirwaySegLib.walls.rays import Profiles

BLURS_MM = np.array([0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.9, 1.05, 1.2])
RATIOS, FINE = np.array([0.6, 0.8, 1.0, 1.25, 1.6]), np.array([0.8, 0.9, 1.0, 1.1, 1.2])
SAMPLE_RAYS, LEAST_SAMPLE = 700, 60
"""Rays of the whole scan from which its blur is estimated; with fewer the usual one is taken."""

USUAL_BLUR_MM = 0.55
STEEP = 0.5
"""Across slices the blur is estimated only from rays whose direction has so much of theirs."""

STEP_MM = 0.02
"""The blur is rounded to this, a fraction of its own error, so that an edit seldom changes it."""


def blur_of(
    profiles: Profiles, spacing_mm: tuple[float, float, float], densities_hu: tuple[float, float]
) -> tuple[float, float]:
    """Standard deviations of the blur in mm, within and across slices: those with which tubes fit the rays best.

    Across slices the search begins where a box as long as a slice adds its own blur; without steep rays it ends there.
    ``profiles`` are usable rays, ``densities_hu`` those of air and wall.
    """
    longer = float(np.sqrt(max(spacing_mm[0] ** 2 - spacing_mm[2] ** 2, 0.0) / 12))
    if len(profiles.section) < LEAST_SAMPLE:
        return USUAL_BLUR_MM, float(np.hypot(USUAL_BLUR_MM, longer))
    some = profiles.part(_some(profiles))

    def misfit(rays: Profiles, within_mm: float, across_mm: float) -> float:
        return float(np.median(rays.fitted((within_mm, across_mm), *densities_hu).error_hu))

    within = _lowest(BLURS_MM, [misfit(some, one, float(np.hypot(one, longer))) for one in BLURS_MM])
    across = float(np.hypot(within, longer))
    steep = some.part(np.flatnonzero(some.upward > STEEP))
    if len(steep.section) >= LEAST_SAMPLE:
        across = _lowest(across * RATIOS, [misfit(steep, within, one) for one in across * RATIOS])
    within = _lowest(within * FINE, [misfit(some, one, across) for one in within * FINE])
    return round(within / STEP_MM) * STEP_MM, round(across / STEP_MM) * STEP_MM


def _some(profiles: Profiles) -> NDArray[np.intp]:
    """`SAMPLE_RAYS` rays as if drawn by lot, by digits of their values: an edit changes few of them."""
    return np.argsort(np.modf(1000 * np.abs(profiles.hu.sum(axis=1)))[0], kind="stable")[:SAMPLE_RAYS]


def _lowest(values: Floats, errors: list[float]) -> float:
    """Where a parabola through the least error and its neighbours is lowest."""
    best = int(np.argmin(errors))
    if best in (0, len(values) - 1):
        return float(values[best])
    part = slice(best - 1, best + 2)
    bend, slope, _ = np.polyfit(values[part] - values[best], errors[part], 2)
    return float(values[best] - slope / (2 * bend)) if bend > 0 else float(values[best])
