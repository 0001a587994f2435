"""The trachea of a mask, followed slice by slice: made solid where it is ragged, and its middle for thinning.

Tracheas are not round: flattened, sabre-shaped, notched behind, torn near the larynx. Thinning draws a comb of lines
into such a lumen. But its cross-sections are nearly the scan's slices, so that their centres give a better line.
Masks are bool (Z, Y, X) on canonical axes (z to the head).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from AirwaySegLib.components import Box
from AirwaySegLib.lumen import Spacing

Mask = NDArray[np.bool_]

MOST_MM, LEAST_MM = 36.0, 8.0
"""What is wider is no trachea, and what is narrower (as a circle of the same area): 10 to 30 mm are usual."""

LEAST_LENGTH_MM = 20.0
"""A shorter stretch is left to thinning."""

MEND_MM, WHOLE = 6.0, 0.95
"""A slice is closed by so much; it is whole if closing it adds less than 5 %."""

SLOPE = 0.8
"""To a side (left or right) for each mm down, over a centimetre: more is a bronchus. A trachea may lean backwards."""

NARROW = 0.6
"""So much of the usual area, and less, is a bronchus."""

SPLIT = 0.15
"""A piece of a slice with so much of its area is a bronchus beside the other; less is a splinter."""

ABOVE_CARINA_RADII = 1.0
ROD_RADII = 0.35
"""The rod that stands for the trachea when thinning ends so far above the carina, and is so thick."""


@dataclass(frozen=True)
class Trunk:
    """The trachea made solid in ``mask`` and the rod that stands for it when thinning, on a ``box`` of the array."""

    box: Box
    mask: Mask
    rod: Mask


@dataclass(frozen=True)
class _Slice:
    """One slice: height, what lies within the window (bool (Y, X) from ``corner``), centre (y, x) and area in mm."""

    z: int
    corner: tuple[int, int]
    part: Mask
    centre_mm: NDArray[np.float64]
    area_mm2: float
    is_split: bool


def find_trunk(mask: Mask, spacing_mm: Spacing) -> Trunk | None:
    """Follow the trachea from the mask's top down to the carina; None if the top is no trachea's."""
    slices = _followed(mask, spacing_mm)
    # Below the carina every slice has two lumens; ragged slices farther up may have two pieces as well.
    while slices and slices[-1].is_split:
        slices.pop()
    if not slices:
        return None
    usual_mm2 = float(np.median([part.area_mm2 for part in slices]))
    wide_mm = 2 * float(np.sqrt(usual_mm2 / np.pi))
    height = round(ABOVE_CARINA_RADII * wide_mm / 2 / spacing_mm[0])
    slices = slices[: len(slices) - height]
    if len(slices) * spacing_mm[0] < LEAST_LENGTH_MM or not LEAST_MM <= wide_mm <= MOST_MM:
        return None
    corners = np.array([part.corner for part in slices])
    ends = np.array([np.add(part.corner, part.part.shape) for part in slices])
    low, high = corners.min(axis=0).tolist(), ends.max(axis=0).tolist()
    box = (slice(slices[-1].z, slices[0].z + 1), slice(low[0], high[0]), slice(low[1], high[1]))
    trunk = np.zeros([part.stop - part.start for part in box], bool)
    for part in slices:
        rows, columns = (
            slice(first - start, first - start + count)
            for first, start, count in zip(part.corner, low, part.part.shape, strict=True)
        )
        trunk[part.z - box[0].start, rows, columns] = _solid(part.part, spacing_mm)
    return Trunk(box, trunk, trunk & _rod(slices, box, ROD_RADII * wide_mm / 2, spacing_mm))


def _followed(mask: Mask, spacing_mm: Spacing) -> list[_Slice]:
    """Slices from the top downwards, as long as something in them may be the trachea or its two first branches."""
    slices: list[_Slice] = []
    reach = [round(0.5 * MOST_MM / mm) for mm in spacing_mm[1:]]
    centimetre = max(1, round(10 / spacing_mm[0]))
    for z in reversed(range(len(mask))):
        places = np.argwhere(mask[z])
        if slices:
            centre = slices[-1].centre_mm / spacing_mm[1:]
            places = places[(np.abs(places - centre) <= reach).all(axis=1)]
        if not len(places):
            if slices:
                break
            continue
        if np.ptp(places[:, 0]) > 2 * reach[0] or np.ptp(places[:, 1]) > 2 * reach[1]:
            break
        part = _slice(z, places, spacing_mm)
        before = slices[-centimetre:]
        sideways_mm = abs(float(part.centre_mm[1] - before[0].centre_mm[1])) if before else 0.0
        usual_mm2 = float(np.median([other.area_mm2 for other in slices])) if slices else part.area_mm2
        if len(before) == centimetre and (sideways_mm > SLOPE * 10 or part.area_mm2 < NARROW * usual_mm2):
            break
        slices.append(part)
    return slices


def _slice(z: int, places: NDArray[np.intp], spacing_mm: Spacing) -> _Slice:
    """The pixels (M, 2) as a slice."""
    low, high = places.min(axis=0), places.max(axis=0) + 1
    part = np.zeros(tuple(high - low), bool)
    part[tuple((places - low).T)] = True
    pieces, count = ndimage.label(part, np.ones((3, 3)))
    is_split = count > 1 and np.sort(np.bincount(pieces.ravel())[1:])[-2] >= SPLIT * len(places)
    area_mm2 = len(places) * spacing_mm[1] * spacing_mm[2]
    centre_mm = places.mean(axis=0) * spacing_mm[1:]
    return _Slice(z, (int(low[0]), int(low[1])), part, centre_mm, area_mm2, bool(is_split))


def _solid(part: Mask, spacing_mm: Spacing) -> Mask:
    """A slice (Y, X), closed by a disc and filled if it is ragged."""
    pixel_mm = spacing_mm[1:]
    pad = int(MEND_MM / min(pixel_mm)) + 2
    grown = ndimage.distance_transform_edt(~np.pad(part, pad), pixel_mm) <= MEND_MM
    closed = ndimage.distance_transform_edt(grown, pixel_mm) > MEND_MM
    whole = ndimage.binary_fill_holes(closed)[pad:-pad, pad:-pad] | part
    return whole if part.sum() < WHOLE * whole.sum() else part


def _rod(slices: list[_Slice], box: Box, radius_mm: float, spacing_mm: Spacing) -> Mask:
    """A round rod on the box through the slices' centres, which are smoothed over about a centimetre."""
    centres = np.array([part.centre_mm for part in slices[::-1]])
    middle = ndimage.gaussian_filter1d(centres, 4.0 / spacing_mm[0], axis=0, mode="nearest")
    heights = np.interp(np.arange(box[0].start, box[0].stop), [part.z for part in slices[::-1]], np.arange(len(slices)))
    y, x = (np.arange(part.start, part.stop) * mm for part, mm in zip(box[1:], spacing_mm[1:], strict=True))
    rows = np.rint(heights).astype(int)
    away_y, away_x = y[None] - middle[rows, :1], x[None] - middle[rows, 1:]
    return away_y[:, :, None] ** 2 + away_x[:, None] ** 2 <= radius_mm**2
