"""Drawn airways with known truth: tubes and trees on a grid, and the tree that a perfect parse would give.

Positions are (z, y, x) in mm from the centre of voxel (0, 0, 0); on the default grid that is LPS read backwards.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class Tube:
    """A straight tube with flat ends, or with ``round_ends`` half-balls: start and end (z, y, x) in mm, radii in mm."""

    start_mm: tuple[float, float, float]
    end_mm: tuple[float, float, float]
    start_radius_mm: float
    end_radius_mm: float
    round_ends: bool = True

    @property
    def length_mm(self) -> float:
        """From start to end, without the half-balls."""
        return float(np.linalg.norm(np.subtract(self.end_mm, self.start_mm)))


def draw_tubes(
    tubes: list[Tube], shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> NDArray[np.bool_]:
    """Voxels whose centres lie in one of the tubes, (Z, Y, X)."""
    mask = np.zeros(shape, bool)
    for tube in tubes:
        start, end = np.array(tube.start_mm), np.array(tube.end_mm)
        most = max(tube.start_radius_mm, tube.end_radius_mm)
        lows = np.floor((np.minimum(start, end) - most) / spacing_mm).astype(int)
        highs = np.ceil((np.maximum(start, end) + most) / spacing_mm).astype(int) + 1
        box = tuple(slice(max(0, low), max(0, high)) for low, high in zip(lows, highs, strict=True))
        mask[box] |= _inside(tube, box, shape, spacing_mm)
    return mask


def _inside(
    tube: Tube, box: tuple[slice, ...], shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> NDArray[np.bool_]:
    start, axis = np.array(tube.start_mm), np.subtract(tube.end_mm, tube.start_mm)
    steps = [np.arange(*part.indices(count)) * mm for part, count, mm in zip(box, shape, spacing_mm, strict=True)]
    grid = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1) - start
    along = grid @ axis / max(float(axis @ axis), 1e-12)
    nearest = np.clip(along, 0, 1)
    radius = tube.start_radius_mm + nearest * (tube.end_radius_mm - tube.start_radius_mm)
    inside = ((grid - nearest[..., None] * axis) ** 2).sum(axis=-1) <= radius**2
    if not tube.round_ends:
        inside &= (along >= 0) & (along <= 1)
    return inside


def a_forked_tree(scale: float = 1.0) -> list[Tube]:
    """Trachea, two main bronchi, and two branches from each: seven tubes, parents first, about 200 x 80 x 180 mm.

    The trachea comes from above (large z) at y = 40, x = 90; x grows to the patient's left.
    """
    carina = (110.0, 40.0, 90.0)
    tubes = [Tube((195.0, 40.0, 90.0), carina, 8.0, 8.0, round_ends=False)]
    for side in (-1, 1):
        hilum = (85.0, 40.0, 90.0 + side * 40.0)
        tubes.append(Tube(carina, hilum, 6.0, 5.5))
        tubes.append(Tube(hilum, (120.0, 35.0, 90.0 + side * 65.0), 3.5, 3.0))
        tubes.append(Tube(hilum, (35.0, 55.0, 90.0 + side * 60.0), 4.0, 3.0))
    return [
        Tube(
            tuple(scale * np.array(tube.start_mm)),
            tuple(scale * np.array(tube.end_mm)),
            scale * tube.start_radius_mm,
            scale * tube.end_radius_mm,
            tube.round_ends,
        )
        for tube in tubes
    ]


def a_deep_tree(generations: int, seed: int = 0) -> list[Tube]:
    """A tree that forks ``generations`` times, parents first: 2 ** (generations + 1) - 1 tubes in 300 x 260 x 300 mm.

    Each fork turns its plane by 90 degrees (give or take), children are 0.79 as thick (2 ** (-1/3)) and 0.8 as long.
    Branches of different parents may touch.
    """
    rng = np.random.default_rng(seed)
    tubes = [Tube((290.0, 130.0, 150.0), (200.0, 130.0, 150.0), 9.0, 8.5, round_ends=False)]
    sides = [np.array([0.0, 0.0, 1.0])]
    first = 0
    for generation in range(generations):
        last = len(tubes)
        for tube, side in zip(tubes[first:last], sides[first:last], strict=True):
            forward = np.subtract(tube.end_mm, tube.start_mm) / tube.length_mm
            length_mm = max(50.0 * 0.8**generation, 7.0) * rng.uniform(0.85, 1.15)
            for sign in (-1, 1):
                angle = np.radians(rng.uniform(28, 42))
                direction = np.cos(angle) * forward + sign * np.sin(angle) * side
                start = np.array(tube.end_mm)
                radius = max(tube.end_radius_mm * 0.79, 0.9)
                tubes.append(Tube(tuple(start), tuple(start + length_mm * direction), radius, max(0.9 * radius, 0.8)))
                turned = np.cross(direction, side) + 0.2 * rng.normal(size=3)
                turned -= direction * (turned @ direction)
                sides.append(turned / np.linalg.norm(turned))
        first = last
    return tubes


Section = Callable[[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]]
"""Whether a point lies in a lumen that is not round: from its distances in mm from the tube's axis along the wide and
the narrow side, and from how far along the tube it is (0 start, 1 end)."""


def draw_section(
    section: Section, line: Tube, wide: tuple[float, float, float], shape: tuple[int, int, int], spacing_mm: Spacing
) -> NDArray[np.bool_]:
    """Voxels whose centres lie in a straight tube with flat ends and a lumen of another section, (Z, Y, X).

    ``wide`` (z, y, x) is the direction of the section's wide side as near as it can be across ``line``, of which only
    start and end count.
    """
    start, along = np.array(line.start_mm), np.subtract(line.end_mm, line.start_mm) / line.length_mm
    across = np.array(wide) - along * (along @ wide)
    across /= np.linalg.norm(across)
    grid = np.stack(np.meshgrid(*[np.arange(n) * mm for n, mm in zip(shape, spacing_mm, strict=True)], indexing="ij"))
    away = np.moveaxis(grid, 0, -1) - start
    part = away @ along / line.length_mm
    inside = section(away @ across, away @ np.cross(along, across), part)
    return inside & (part >= 0) & (part <= 1)


def ellipse(wide_mm: float, narrow_mm: float) -> Section:
    """An ellipse with the given semi-axes."""
    return lambda u, v, _: (u / wide_mm) ** 2 + (v / narrow_mm) ** 2 <= 1


def crescent(radius_mm: float, dent_mm: float) -> Section:
    """A disc into which a wall as round as itself bulges by ``dent_mm``."""
    return lambda u, v, _: (np.hypot(u, v) <= radius_mm) & (np.hypot(u, v + 2 * radius_mm - dent_mm) > radius_mm)


def letter_d(radius_mm: float) -> Section:
    """A disc cut off flat halfway between its middle and its rim."""
    return lambda u, v, _: (np.hypot(u, v) <= radius_mm) & (v > -radius_mm / 2)


def sabre(wide_mm: float, narrow_mm: float) -> Section:
    """Narrow and long, wider at one end: a wedge with rounded ends."""

    def inside(u: NDArray, v: NDArray, _: NDArray) -> NDArray[np.bool_]:
        at = np.clip(u, -wide_mm + narrow_mm, wide_mm - narrow_mm)
        half_mm = narrow_mm * (0.7 + 0.3 * at / wide_mm)
        return np.hypot(u - at, v) <= half_mm

    return inside


def dumb_bell(radius_mm: float, apart_mm: float, neck_mm: float) -> Section:
    """Two discs with their middles ``apart_mm`` from each other, joined by a neck of half width ``neck_mm``."""

    def inside(u: NDArray, v: NDArray, _: NDArray) -> NDArray[np.bool_]:
        discs = np.hypot(np.abs(u) - apart_mm / 2, v) <= radius_mm
        return discs | ((np.abs(u) <= apart_mm / 2) & (np.abs(v) <= neck_mm))

    return inside


def scaled(section: Section, size_at: Callable[[NDArray], NDArray]) -> Section:
    """A section that changes its size along the tube: funnels and stenoses."""
    return lambda u, v, part: section(u / size_at(part), v / size_at(part), part)
