"""The trachea of a mask, followed slice by slice: made solid where it is ragged, and its middle for thinning.

Tracheas are not round: flattened, sabre-shaped, notched behind, torn near the larynx. Thinning draws a comb of lines
into such a lumen. But its cross-sections are nearly the scan's slices, so that their centres give a better line.
Masks are bool (Z, Y, X) on canonical axes (z to the head).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from AirwaySegLib.masks.components import Box
from AirwaySegLib.masks.sparse_mask import Spacing

Mask = NDArray[np.bool_]

# All lengths are in radii: those of the largest ball that fits into the mask, which is about the trachea's. So a scaled
# patient has a scaled tree.

WINDOW, LEAST = 2.25, 0.5
"""Half of the width in which the trachea is sought below the slice before, unless the slices above are wider; its least
radius (a circle of its area)."""

LEAST_LENGTH = 2.5
"""A shorter stretch is left to thinning."""

LEAST_PIXELS = 1.5
"""A ball of so few pixels' radius is no trachea's, and a rod of a third of it would have none."""

MEND, WHOLE = 0.75, 0.95
"""A slice is closed by so much; it is whole if closing it adds less than 5 %."""

STRETCH, SLOPE, NARROW = 1.25, 0.8, 0.6
"""Over so long a stretch a trachea does not go to a side (left or right) by more than 0.8 for each mm down, though it
may lean backwards, and does not shrink to less than 0.6 of the usual area: a bronchus does."""

SPLIT = 0.15
"""A piece of a slice with so much of its area is a bronchus beside the other; less is a splinter."""

WIDENED = 1.4
"""So much of the usual spread from side to side, and more, is the carina's: the bronchi lie in one wide lumen."""

SIDE_WIDER, SIDE_WIDTH, SIDE_HIGH, SIDE_OUT, SIDE_STEEP = 1.08, 0.5, (0.2, 1.5), 0.35, 2.5
"""A bronchus that leaves the trachea is in slices that are wider than usual by 8 %, there outside every disc of half
the radius that fits into the slice, 0.2 to 1.5 radii high, or higher if not more than 2.5 times as high as it reaches
out, and reaches at least 0.35 radii out."""

ABOVE_CARINA, ROD, ROOM = 0.5, 0.35, 0.8
"""The rod that stands for the trachea when thinning ends so far above the carina, and is so thick. It runs through the
centres of the slices; where these are nearer to the wall, where the wall is at least 0.8 of the most away."""


@dataclass(frozen=True)
class Trunk:
    """The trachea made solid in ``mask`` and the rod that stands for it when thinning, on a ``box`` of the array.

    ``windows`` are the parts of the slices that were looked at.
    """

    box: Box
    mask: Mask
    rod: Mask
    windows: tuple[Box, ...]

    def has_seen(self, voxels: NDArray[np.int32]) -> bool:
        """Whether one of some voxels (N, 3) was looked at: without the others the trachea is the same."""
        low, high = np.array([[(part.start, part.stop) for part in window] for window in self.windows]).transpose(
            2, 0, 1
        )
        order = np.argsort(low[:, 0])  # a window is one slice
        row = np.minimum(np.searchsorted(low[order, 0], voxels[:, 0]), len(order) - 1)
        low, high = low[order[row]], high[order[row]]
        return bool(((voxels >= low) & (voxels < high)).all(axis=1).any())


@dataclass(frozen=True)
class _Slice:
    """One slice: height, what lies within the window (bool (Y, X) from ``corner``), and its shape.

    ``centre_mm`` is (y, x), ``spread_mm`` the standard deviation from side to side, ``is_split`` whether it has two
    lumens.
    """

    z: int
    corner: tuple[int, int]
    part: Mask
    centre_mm: NDArray[np.float64]
    area_mm2: float
    spread_mm: float
    is_split: bool

    @cached_property
    def reach(self) -> NDArray[np.float64]:
        """How far the slice reaches from its centre in pixels, (y, x)."""
        pixels = np.argwhere(self.part) + self.corner
        return np.abs(pixels - pixels.mean(axis=0)).max(axis=0)


def find_trunk(mask: Mask, spacing_mm: Spacing, radius_mm: float) -> Trunk | None:
    """Follow the trachea from the mask's top down to the carina; None if the top is no trachea's.

    ``radius_mm`` is that of the largest ball that fits into the mask.
    """
    slices, windows = _followed(mask, spacing_mm, radius_mm)
    if not slices or radius_mm < LEAST_PIXELS * max(spacing_mm[1:]):
        return None
    # Below the carina every slice has two lumens; ragged slices farther up may have two pieces as well.
    usual_mm = float(np.median([part.spread_mm for part in slices]))
    while slices and (slices[-1].is_split or slices[-1].spread_mm > WIDENED * usual_mm):
        slices.pop()
    slices = slices[: len(slices) - round(ABOVE_CARINA * radius_mm / spacing_mm[0])]
    if len(slices) * spacing_mm[0] < LEAST_LENGTH * radius_mm:
        return None
    if np.median([part.area_mm2 for part in slices]) < np.pi * (LEAST * radius_mm) ** 2:
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
        trunk[part.z - box[0].start, rows, columns] = _solid(part.part, MEND * radius_mm, spacing_mm)
    trunk &= ~_side_branches(trunk, radius_mm, spacing_mm)
    return Trunk(box, trunk, trunk & _rod(slices, box, trunk, radius_mm, spacing_mm), tuple(windows))


def _followed(mask: Mask, spacing_mm: Spacing, radius_mm: float) -> tuple[list[_Slice], list[Box]]:
    """Slices from the top downwards, as long as something in them may be the trachea or its two first branches.

    And the parts of the slices that were looked at.
    """
    slices: list[_Slice] = []
    windows: list[Box] = []
    reach = [round(WINDOW * radius_mm / mm) for mm in spacing_mm[1:]]
    stretch = max(1, round(STRETCH * radius_mm / spacing_mm[0]))
    for z in reversed(range(len(mask))):
        low, high = np.zeros(2, int), np.array(mask.shape[1:])
        if slices:
            centre = slices[-1].centre_mm / spacing_mm[1:]
            wide = np.maximum(reach, np.median([part.reach for part in slices], axis=0) + 1)
            low = np.maximum(np.floor(centre - wide).astype(int), 0)
            high = np.ceil(centre + wide).astype(int) + 1
        windows.append((slice(z, z + 1), slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))))
        pixels = np.argwhere(mask[windows[-1]][0]) + low
        if slices:
            pixels = pixels[(np.abs(pixels - centre) <= wide).all(axis=1)]
        if not len(pixels):
            if slices:
                break
            continue
        if np.ptp(pixels[:, 0]) > 2 * reach[0] or np.ptp(pixels[:, 1]) > 2 * reach[1]:
            break
        part = _slice(z, pixels, spacing_mm)
        if len(slices) >= stretch:
            sideways_mm = abs(float(part.centre_mm[1] - slices[-stretch].centre_mm[1]))
            usual_mm2 = float(np.median([other.area_mm2 for other in slices]))
            if sideways_mm > SLOPE * STRETCH * radius_mm or part.area_mm2 < NARROW * usual_mm2:
                break
        slices.append(part)
    return slices, windows


def _slice(z: int, pixels: NDArray[np.intp], spacing_mm: Spacing) -> _Slice:
    """The pixels (M, 2) as a slice."""
    low, high = pixels.min(axis=0), pixels.max(axis=0) + 1
    part = np.zeros(tuple(high - low), bool)
    part[tuple((pixels - low).T)] = True
    pieces, count = ndimage.label(part, np.ones((3, 3)))
    is_split = count > 1 and np.sort(np.bincount(pieces.ravel())[1:])[-2] >= SPLIT * len(pixels)
    pixels_mm = pixels * np.asarray(spacing_mm[1:])
    return _Slice(
        z=z,
        corner=(int(low[0]), int(low[1])),
        part=part,
        centre_mm=pixels_mm.mean(axis=0),
        area_mm2=len(pixels) * spacing_mm[1] * spacing_mm[2],
        spread_mm=float(pixels_mm[:, 1].std()),
        is_split=bool(is_split),
    )


def _solid(part: Mask, mend_mm: float, spacing_mm: Spacing) -> Mask:
    """A slice (Y, X), closed by a disc and filled if it is ragged."""
    pixel_mm = spacing_mm[1:]
    pad = int(mend_mm / min(pixel_mm)) + 2
    grown = ndimage.distance_transform_edt(~np.pad(part, pad), pixel_mm) <= mend_mm
    closed = ndimage.distance_transform_edt(grown, pixel_mm) > mend_mm
    whole = ndimage.binary_fill_holes(closed)[pad:-pad, pad:-pad] | part
    return whole if part.sum() < WHOLE * whole.sum() else part


def _side_branches(trunk: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    """What stands out of slices that are wider than usual, over a short stretch: bronchi that leave the trachea."""
    wide = np.stack([[np.ptp(np.flatnonzero(part.any(axis=axis))) for axis in (0, 1)] for part in trunk]) + 1
    out_mm = np.zeros(trunk.shape, np.float32)
    opened_mm = SIDE_WIDTH * radius_mm
    for z in np.flatnonzero((wide > SIDE_WIDER * np.median(wide, axis=0)).any(axis=1)):
        part = np.pad(trunk[z], 1)
        core = ndimage.distance_transform_edt(part, spacing_mm[1:]) > opened_mm
        if core.any():
            away_mm = ndimage.distance_transform_edt(~core, spacing_mm[1:])
            out_mm[z] = (part * np.maximum(away_mm - opened_mm, 0))[1:-1, 1:-1]
    pieces, count = ndimage.label(out_mm > 0, np.ones((3, 3, 3)))
    found = np.zeros(count + 1, bool)
    for index, box in enumerate(ndimage.find_objects(pieces), start=1):
        high_mm = (box[0].stop - box[0].start) * spacing_mm[0]
        far_mm = float(out_mm[box][pieces[box] == index].max())
        most_mm = max(SIDE_HIGH[1] * radius_mm, SIDE_STEEP * far_mm)
        found[index] = far_mm >= SIDE_OUT * radius_mm and SIDE_HIGH[0] * radius_mm <= high_mm <= most_mm
    return found[pieces]


def _middle_mm(centre_mm: NDArray[np.float64], solid: Mask, room_mm: float, spacing_mm: Spacing) -> NDArray[np.float64]:
    """The centre (y, x) of a slice; of a crescent, whose centre has too little room, the nearest point with the most.

    All is counted from the corner of ``solid``, the slice made solid.
    """
    depth_mm = ndimage.distance_transform_edt(np.pad(solid, 1), spacing_mm[1:])[1:-1, 1:-1]
    own = np.clip(np.rint(centre_mm / spacing_mm[1:]).astype(int), 0, np.array(solid.shape) - 1)
    least_mm = ROOM * float(depth_mm.max())
    if depth_mm[tuple(own)] >= min(room_mm, least_mm):
        return centre_mm
    pixels_mm = np.argwhere(depth_mm >= least_mm) * np.asarray(spacing_mm[1:])
    nearest = np.linalg.norm(pixels_mm - centre_mm, axis=1).argmin()
    return np.asarray(pixels_mm[nearest])


def _rod(slices: list[_Slice], box: Box, trunk: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    """A round rod on the box through the slices' middles, which are smoothed over about a radius."""
    corner_mm = np.array([box[1].start, box[2].start]) * np.asarray(spacing_mm[1:])
    centres = np.array(
        [
            _middle_mm(part.centre_mm - corner_mm, trunk[part.z - box[0].start], ROD * radius_mm, spacing_mm)
            for part in slices[::-1]
        ]
    )
    middle = ndimage.gaussian_filter1d(centres + corner_mm, 0.5 * radius_mm / spacing_mm[0], axis=0, mode="nearest")
    heights = np.interp(np.arange(box[0].start, box[0].stop), [part.z for part in slices[::-1]], np.arange(len(slices)))
    y, x = (np.arange(part.start, part.stop) * mm for part, mm in zip(box[1:], spacing_mm[1:], strict=True))
    rows = np.rint(heights).astype(int)
    away_y, away_x = y[None] - middle[rows, :1], x[None] - middle[rows, 1:]
    return away_y[:, :, None] ** 2 + away_x[:, None] ** 2 <= (ROD * radius_mm) ** 2
