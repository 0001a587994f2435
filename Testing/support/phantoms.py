"""Drawn airways with known truth: tubes and trees on a grid, and the tree that a perfect parse would give.

Positions are (z, y, x) in mm from the centre of voxel (0, 0, 0); on the default grid that is LPS read backwards.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
