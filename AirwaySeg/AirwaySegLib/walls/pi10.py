"""Pi10: what the wall area of an airway with an inner perimeter of 10 mm would be, from all measured branches."""

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.tree.wall import Pi10

LEAST_BRANCHES, LEAST_SPREAD_MM = 8, 4.0
PERIMETER_MM = 10.0


def pi10_of(inner_mm: NDArray[np.floating], thickness_mm: NDArray[np.floating]) -> Pi10 | None:
    """The root of the wall area at an inner perimeter of 10 mm, by a straight line through all branches.

    After Nakano et al. 2005 (doi 10.1164/rccm.200407-874OC) and Patel et al. 2008 (doi 10.1164/rccm.200801-061OC).
    None where there are fewer than `LEAST_BRANCHES`, their inner perimeters lie within `LEAST_SPREAD_MM`, or none of
    them is on one side of 10 mm, so that the line would be extended.

    Parameters
    ----------
    inner_mm, thickness_mm
        (B,) inner diameters and wall thicknesses of the branches.
    """
    perimeters = np.pi * inner_mm
    if len(inner_mm) < LEAST_BRANCHES or np.ptp(perimeters) < LEAST_SPREAD_MM:
        return None
    if not perimeters.min() < PERIMETER_MM < perimeters.max():
        return None
    roots = np.sqrt(np.pi * thickness_mm * (inner_mm + thickness_mm))
    slope, intercept = (float(value) for value in np.polyfit(perimeters, roots, 1))
    return Pi10(
        value_mm=intercept + PERIMETER_MM * slope,
        slope=slope,
        intercept_mm=intercept,
        r=float(np.corrcoef(perimeters, roots)[0, 1]),
        branches=len(inner_mm),
        least_perimeter_mm=float(perimeters.min()),
        most_perimeter_mm=float(perimeters.max()),
    )
