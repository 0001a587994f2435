"""Drawn forks with a bronchus or a trachea that is not round, or a tracheal bronchus. Positions are (z, y, x) in mm."""

import numpy as np
from numpy.typing import NDArray
from phantoms import (
    Section,
    Spacing,
    Tube,
    crescent,
    draw_section,
    draw_tubes,
    dumb_bell,
    ellipse,
    letter_d,
    sabre,
    scaled,
)

CARINA, HILUM = (50.0, 20.0, 46.0), (22.0, 20.0, 82.0)

SECTIONS = {
    "ellipse 1.43 to 1": ellipse(6.6, 4.6),
    "ellipse 2 to 1": ellipse(7.8, 3.9),
    "ellipse 3 to 1": ellipse(9.5, 3.2),
    "crescent of 11 mm": crescent(8, 5),
    "crescent of 9 mm": crescent(8, 7),
    "crescent of 7 mm": crescent(8, 9),
    "sharp crescent of 5 mm": crescent(8, 11),
    "sharp crescent of 6 mm": crescent(9, 12),
    "D": letter_d(7),
    "sabre": sabre(10, 4.5),
    "dumb-bell": dumb_bell(4, 9, 2),
    "funnel": scaled(ellipse(9, 5), lambda part: 1 - 0.5 * np.clip(part, 0, 1)),
    "stenosis": scaled(ellipse(9, 4.5), lambda part: 1 - 0.6 * np.exp(-(((part - 0.5) / 0.12) ** 2))),
}
"""Semi-axes 1.43 to 3 to 1; crescents are so thick in the middle."""


def grid(spacing_mm: Spacing) -> tuple[int, int, int]:
    """Voxels along each axis of the grid on which the forks lie."""
    z, y, x = (int(np.ceil(size / mm)) for size, mm in zip((92, 44, 100), spacing_mm, strict=True))
    return z, y, x


def a_fork_with(
    section: Section, wide: tuple[float, float, float], spacing_mm: Spacing, with_lobes: bool
) -> NDArray[np.bool_]:
    """Trachea, round right main bronchus and a left one of the given section, with two branches if wished."""
    shape = grid(spacing_mm)
    tubes = [Tube((88, 20, 46), CARINA, 7, 7, round_ends=False), Tube(CARINA, (25, 20, 14), 5, 4.5)]
    if with_lobes:
        tubes += [Tube(HILUM, (35, 18, 96), 2.5, 2), Tube(HILUM, (4, 28, 88), 3, 2.5)]
    return draw_tubes(tubes, shape, spacing_mm) | draw_section(
        section, Tube(CARINA, HILUM, 1, 1), wide, shape, spacing_mm
    )


def a_trachea_with(section: Section, wide: tuple[float, float, float], spacing_mm: Spacing) -> NDArray[np.bool_]:
    """A trachea of the given section and two round main bronchi."""
    shape = grid(spacing_mm)
    mask = draw_tubes([Tube(CARINA, (25, 20, 14), 5, 4.5), Tube(CARINA, (25, 20, 78), 5, 4.5)], shape, spacing_mm)
    return mask | draw_section(section, Tube((88, 20, 46), (46, 20, 46), 1, 1), wide, shape, spacing_mm)


def a_trachea_with_a_bronchus(
    radius_mm: float, beyond_mm: float, down_deg: float, spacing_mm: Spacing
) -> NDArray[np.bool_]:
    """Trachea of a radius of 9 mm, main bronchi, and a bronchus of the trachea that is cut off flat.

    It leaves to the right, so many degrees below the horizontal, and is ``beyond_mm`` long beyond the trachea's wall;
    there is none if its radius is 0.
    """
    carina, side, down = (45.0, 26.0, 44.0), (80.0, 26.0, 44.0), np.radians(down_deg)
    tubes = [Tube((126, 26, 44), carina, 9, 9, round_ends=False)]
    tubes += [Tube(carina, (15, 26, x), 6.5, 6) for x in (14, 74)]
    if radius_mm:
        end = np.add(side, (9 / np.cos(down) + beyond_mm) * np.array([-np.sin(down), 0, -np.cos(down)]))
        tubes.append(Tube(side, (end[0], end[1], end[2]), radius_mm, radius_mm, round_ends=False))
    z, y, x = (int(size / mm) for size, mm in zip((130, 56, 88), spacing_mm, strict=True))
    return draw_tubes(tubes, (z, y, x), spacing_mm)
