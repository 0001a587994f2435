"""The artery beside a branch: the round bright structure that touches the wall in the cross-sections, with lung around.

Letters in shapes: C candidates, T rays of a candidate, K samples of a ray, H x W pixels of a section.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, maximum_filter

from AirwaySegLib.tree.build import ParsedAirways
from AirwaySegLib.walls.blurred_tube import MOST_CURVED, Floats, disc
from AirwaySegLib.walls.profiles import STEP_MM
from AirwaySegLib.walls.sections import RAYS, Sections, sample

PIXEL_MM = 0.5
BRIGHT_HU, LUNG_HU = -450.0, -550.0
LEAST_RADIUS_MM, LEAST_RADII, MOST_RADII = 0.6, 0.35, 1.5
"""An artery's radius is at least this, and between so many times the outer radius of its branch."""

GAP_MM, GAP_PART = 1.2, 0.4
"""Between wall and artery is at most this, or this part of the artery's radius."""

SEEDS = 2
TURNS = 24
AWAY_DEG = 65.0
"""Rays of the artery that point to the branch within this angle say nothing of its width."""

LEAST_FREE = 0.75
"""Share of the other rays that must end in lung."""

ROUND = 0.13
"""Median deviation of the artery's radii from their median, as a part of it, at most."""

LEAST_SECTIONS = 0.5
TOGETHER_DEG = 50.0
"""An artery is seen in at least so many of the sections, in about the same direction from the branch."""


@dataclass(frozen=True)
class Artery:
    """The artery of a branch: its diameter, and the share (0..1) of sections that show it.

    ``middles_mm`` (n, 3) and ``radii_mm`` (n,) are those in the sections ``rows`` (n,).
    """

    diameter_mm: float
    sections: float
    middles_mm: Floats
    radii_mm: Floats
    rows: NDArray[np.intp]


def artery_of(
    airways: ParsedAirways, ct: NDArray, sections: Sections, outer_mm: Floats, blur_mm: tuple[float, float]
) -> Artery | None:
    """The artery beside a branch; None where no structure is round, near and alone enough in half of the sections.

    ``outer_mm`` (S, A) is the wall's outer radius on each ray of the sections.
    """
    spacing, corner = np.asarray(airways.grid.spacing_mm), np.array([part.start for part in airways.box])
    largest = float(outer_mm.max())
    half_mm = _half_mm(largest)
    at_mm = np.arange(-half_mm, half_mm + PIXEL_MM / 2, PIXEL_MM)
    u, v = np.meshgrid(at_mm, at_mm, indexing="ij")
    points = (
        sections.middles_mm[:, None, None]
        + u[..., None] * sections.across[:, None, None]
        + v[..., None] * sections.over[:, None, None]
    )
    images = sample(ct, corner, points, spacing, order=1)
    rows, seeds = [], []
    for row, (image, radii) in enumerate(zip(images, outer_mm, strict=True)):
        for seed in _seeds(image, u, v, radii):
            rows.append(row)
            seeds.append(seed)
    if not seeds:
        return None
    return _chosen(airways, ct, sections, outer_mm, (np.array(rows), np.array(seeds)), blur_mm)


def _half_mm(outer_mm: float) -> float:
    """Half the side of the square in which the artery of a branch of this outer radius is looked for."""
    return outer_mm * (1 + 2 * MOST_RADII) + 1.0


def _ray_mm(outer_mm: float) -> float:
    """Length of the rays from an artery's middle."""
    return MOST_RADII * outer_mm + 2.5


def reach_of_artery(outer_mm: Floats) -> float:
    """How far from a branch's middles `artery_of` looks at the CT, in mm.

    To the square's corner, a shift of a seed by less than a radius of its own, and the rays from there.
    """
    largest = float(outer_mm.max())
    return 2**0.5 * _half_mm(largest) + 2 * _ray_mm(largest)


def _outer_at(radii: Floats, bearing: Floats) -> Floats:
    """The wall's outer radius in some directions (radians), from those of the section's rays."""
    return np.interp(bearing % (2 * np.pi), 2 * np.pi * np.arange(RAYS + 1) / RAYS, np.append(radii, radii[0]))


def _seeds(image: Floats, u: Floats, v: Floats, radii: Floats) -> list[tuple[float, float]]:
    """Middles (u, v) of the largest discs within bright pixels beside the wall, at most `SEEDS`, largest first."""
    away, bearing = np.hypot(u, v), np.arctan2(v, u)
    outer = _outer_at(radii, bearing)
    bright = (image > BRIGHT_HU) & (away > outer)
    depth = distance_transform_edt(np.pad(bright, 1))[1:-1, 1:-1] * PIXEL_MM
    peak = (depth == maximum_filter(depth, size=5)) & (depth >= 0.8 * np.maximum(LEAST_RADIUS_MM, LEAST_RADII * outer))
    peak &= away - depth - outer <= np.maximum(GAP_MM, GAP_PART * depth)
    peak &= depth <= MOST_RADII * radii.max()
    where = np.argwhere(peak)
    where = where[np.argsort(-depth[tuple(where.T)], kind="stable")][:SEEDS]
    return [(float(u[i, j]), float(v[i, j])) for i, j in where]


def _chosen(
    airways: ParsedAirways,
    ct: NDArray,
    sections: Sections,
    outer_mm: Floats,
    found: tuple[NDArray[np.intp], Floats],
    blur_mm: tuple[float, float],
) -> Artery | None:
    rows, middles = found
    turns = 2 * np.pi * np.arange(TURNS) / TURNS
    across, over = sections.across[rows], sections.over[rows]
    directions = np.cos(turns)[:, None] * across[:, None] + np.sin(turns)[:, None] * over[:, None]
    spacing, corner = np.asarray(airways.grid.spacing_mm), np.array([part.start for part in airways.box])
    reach = STEP_MM * np.arange(int(_ray_mm(float(outer_mm.max())) / STEP_MM))
    for order in (1, 3):  # the first round moves each middle into its structure's middle
        places = sections.middles_mm[rows] + middles[:, :1] * across + middles[:, 1:] * over
        hu = sample(ct, corner, places[:, None, None] + directions[:, :, None] * reach[:, None], spacing, order)
        to_branch = np.arctan2(-middles[:, 1], -middles[:, 0])
        turned = np.abs((turns - to_branch[:, None] + np.pi) % (2 * np.pi) - np.pi)
        side = turned > np.radians(AWAY_DEG)
        radii, free = _half_radii(hu, side)
        known = free.sum(axis=1) >= LEAST_FREE * side.sum(axis=1)
        if not known.any():
            return None
        rows, middles, radii, free, across, over, directions = (
            values[known] for values in (rows, middles, radii, free, across, over, directions)
        )
        middles = middles + _shift(radii, free, turns)
    typical = np.maximum(np.nanmedian(np.where(free, radii, np.nan), axis=1), STEP_MM)
    uneven = np.nanmedian(np.abs(np.where(free, radii, np.nan) - typical[:, None]), axis=1) / typical
    bearing = np.arctan2(middles[:, 1], middles[:, 0])
    outer = np.array([_outer_at(outer_mm[row], np.array([angle]))[0] for row, angle in zip(rows, bearing, strict=True)])
    gap = np.hypot(*middles.T) - typical - outer
    good = (
        (typical >= np.maximum(LEAST_RADIUS_MM, LEAST_RADII * outer))
        & (uneven <= ROUND)
        & (gap <= np.maximum(GAP_MM, GAP_PART * typical))
        & (gap >= -0.5 * typical)
    )
    return _together(sections, rows[good], middles[good], typical[good], gap[good], blur_mm)


def _half_radii(hu: Floats, side: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.bool_]]:
    """Where each ray (C, T, K) falls to half between the structure's middle and the lung, and which end in lung."""
    top = np.maximum(hu[:, :, :2].mean(axis=(1, 2)), BRIGHT_HU)[:, None, None]
    lowest = np.minimum.accumulate(hu, axis=2)
    rises = (lowest < (top + LUNG_HU) / 2) & (hu > lowest + 0.25 * (top - lowest))
    end = np.where(rises.any(axis=2), rises.argmax(axis=2), hu.shape[2])
    before = np.where(np.arange(hu.shape[2]) < end[..., None], hu, np.inf)
    valley = before.min(axis=2)
    half = (top[..., 0] + valley) / 2
    under = before < half[..., None]
    at = np.maximum(under.argmax(axis=2), 1)
    left, right = (np.take_along_axis(hu, (at - one)[..., None], axis=2)[..., 0] for one in (1, 0))
    part = np.clip((left - half) / np.where(left - right < 1e-6, 1.0, left - right), 0, 1)
    return STEP_MM * (at - 1 + part), side & under.any(axis=2) & (valley < LUNG_HU)


def _shift(radii: Floats, free: NDArray[np.bool_], turns: Floats) -> Floats:
    """From the present middle to that of the circle through the edges, (C, 2), by least squares."""
    shifts = np.zeros((len(radii), 2))
    for row, (one, known) in enumerate(zip(radii, free, strict=True)):
        x, y = one[known] * np.cos(turns[known]), one[known] * np.sin(turns[known])
        system = np.column_stack([2 * x, 2 * y, np.ones(len(x))])
        solved = np.linalg.lstsq(system, x**2 + y**2, rcond=None)[0]
        limit = 0.5 * float(np.median(one[known]))
        shifts[row] = np.clip(solved[:2], -limit, limit)
    return shifts


def _together(
    sections: Sections,
    rows: NDArray[np.intp],
    middles: Floats,
    radii: Floats,
    gap: Floats,
    blur_mm: tuple[float, float],
) -> Artery | None:
    """The artery that runs along: one candidate of each section, all in about one direction from the branch."""
    if not len(rows):
        return None
    bearing = np.arctan2(middles[:, 1], middles[:, 0])
    best: NDArray[np.intp] = np.zeros(0, np.intp)
    cost = np.inf
    for angle in bearing:
        off = np.abs((bearing - angle + np.pi) % (2 * np.pi) - np.pi)
        near = np.flatnonzero(off <= np.radians(TOGETHER_DEG))
        order = near[np.argsort(gap[near], kind="stable")]
        _, first = np.unique(rows[order], return_index=True)
        mine = order[first]
        price = float(np.median(gap[mine])) - len(mine)
        if price < cost:
            best, cost = mine, price
    share = len(best) / len(sections.middles_mm)
    if share < LEAST_SECTIONS or len(best) < min(2, len(sections.middles_mm)):
        return None
    places = (
        sections.middles_mm[rows[best]]
        + middles[best, :1] * sections.across[rows[best]]
        + middles[best, 1:] * sections.over[rows[best]]
    )
    true = unblurred(radii[best], float(np.mean(blur_mm)))
    return Artery(2 * float(np.median(true)), share, places, true, rows[best])


@cache
def _half_widths() -> tuple[Floats, Floats]:
    """Radius of a disc, and where its blurred profile falls to half of its middle's value; over the blur."""
    radii = np.geomspace(1 / MOST_CURVED, 40, 200)
    r = np.linspace(0, 46, 4601)[None]
    widths = []
    for radius in radii:
        profile = disc(r, np.array([radius]), np.array([1.0]))[0][0]
        widths.append(float(r[0, int((profile < profile[0] / 2).argmax())]))
    return radii, np.maximum.accumulate(np.array(widths))


def unblurred(half_mm: Floats, blur_mm: float) -> Floats:
    """The radius of the disc whose blurred profile is half as high as its own middle at ``half_mm``."""
    radii, widths = _half_widths()
    return np.interp(half_mm / blur_mm, widths, radii) * blur_mm
