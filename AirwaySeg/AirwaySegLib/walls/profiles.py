"""Profiles of the CT along rays from the middle of a branch, and the wall's two edges at half of its height.

Letters in shapes: S cross-sections, A rays of a section, K samples of a ray.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

STEP_MM = 0.2
"""Between two samples of a ray."""

FALL = 0.3
"""The wall's peak is over where the profile has fallen by so much of its height above the air."""

RISE = 0.25
"""Behind it the lung ends where the profile has risen by so much of the way back to the peak."""

LEAST_RISE_HU = 200.0
"""Of a wall's peak above the air."""


@dataclass(frozen=True)
class Edges:
    """The wall on each ray, (R,): the radii of its edges at half height in mm; NaN where not found.

    ``inner_mm`` is known where the lumen has a wall at all, ``outer_mm`` and ``valley_hu`` only where the profile falls
    to less than half of the peak behind it. ``end`` is the sample of the lowest value behind the wall, ``valley_hu``.
    """

    inner_mm: Floats
    outer_mm: Floats
    valley_hu: Floats
    end: NDArray[np.intp]


def find_edges(hu: Floats, first: NDArray[np.intp], air_hu: float, most: int) -> Edges:
    """The edges of the first wall on each ray, at half of its height (full width at half maximum).

    Parameters
    ----------
    hu
        (R, K), a sample every `STEP_MM` from the middle outwards.
    first
        (R,) the sample from which on the wall is looked for.
    most
        Behind the peak so many samples are looked at.
    """
    rows, samples = np.arange(len(hu)), np.arange(hu.shape[1])
    values = np.where(samples < first[:, None], air_hu, hu)
    highest = np.maximum.accumulate(values, axis=1)
    over = (values < highest - FALL * (highest - air_hu)) & (highest > air_hu + LEAST_RISE_HU)
    falls = over.any(axis=1)
    last = np.where(falls, over.argmax(axis=1), hu.shape[1] - 1)
    peak_at = np.where(samples <= last[:, None], values, -np.inf).argmax(axis=1)
    peak = values[rows, peak_at]
    middle = (air_hu + peak) / 2
    below = (values < middle[:, None]) & (samples <= peak_at[:, None])
    last_below = np.where(below.any(axis=1), hu.shape[1] - 1 - below[:, ::-1].argmax(axis=1), 0)
    has_wall = peak > air_hu + LEAST_RISE_HU
    end = _valley(values, peak_at, middle, most)
    valley = values[rows, end]
    half = (peak + valley) / 2
    under = (values < half[:, None]) & (samples >= peak_at[:, None]) & (samples <= end[:, None])
    has_outer = has_wall & falls & under.any(axis=1)
    outer = _crossing(values, np.maximum(under.argmax(axis=1) - 1, 0), half)
    return Edges(
        np.where(has_wall, _crossing(values, last_below, middle), np.nan),
        np.where(has_outer, outer, np.nan),
        np.where(has_outer, valley, np.nan),
        end,
    )


def _valley(values: Floats, peak_at: NDArray[np.intp], middle: Floats, most: int) -> NDArray[np.intp]:
    """The sample of the lowest value behind the peak, before the profile rises again to another structure, (R,)."""
    rows, samples = np.arange(len(values)), np.arange(values.shape[1])
    peak = values[rows, peak_at][:, None]
    behind = (samples >= peak_at[:, None]) & (samples <= peak_at[:, None] + most)
    lowest = np.minimum.accumulate(np.where(behind, values, peak), axis=1)
    rises = behind & (lowest < middle[:, None]) & (values > lowest + RISE * (peak - lowest))
    stop = np.where(rises.any(axis=1), rises.argmax(axis=1), values.shape[1])
    return np.where(behind & (samples < stop[:, None]), values, np.inf).argmin(axis=1)


def _crossing(values: Floats, before: NDArray[np.intp], level: Floats) -> Floats:
    """Distance in mm at which the profile crosses the level between sample ``before`` and the next."""
    rows = np.arange(len(values))
    left = values[rows, before]
    right = values[rows, np.minimum(before + 1, values.shape[1] - 1)]
    span = np.where(np.abs(right - left) < 1e-6, 1.0, right - left)
    return STEP_MM * (before + np.clip((level - left) / span, 0, 1))
