"""Pi10: what the wall area of an airway with an inner perimeter of 10 mm would be, from all measured branches."""

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.tree.wall import Pi10

LEAST_BRANCHES, LEAST_SPREAD_MM = 8, 4.0
PERIMETER_MM = 10.0
OUTLIER_SD = 3.0
"""A branch farther from the line is left out: the rays that seemed to show its wall met a vessel."""


def pi10_of(inner_mm: NDArray[np.floating], thickness_mm: NDArray[np.floating]) -> Pi10 | None:
    """The root of the wall area at an inner perimeter of 10 mm, by a straight line through all branches.

    After Nakano et al. 2005 (doi 10.1164/rccm.200407-874OC) and Patel et al. 2008 (doi 10.1164/rccm.200801-061OC).
    Branches far from the line are left out.
    None where there are fewer than `LEAST_BRANCHES`, their inner perimeters lie within `LEAST_SPREAD_MM`, or none of
    them is on one side of 10 mm, so that the line would be extended.

    Parameters
    ----------
    inner_mm, thickness_mm
        (B,) inner diameters and wall thicknesses of the branches.
    """
    perimeters, roots = np.pi * inner_mm, np.sqrt(np.pi * thickness_mm * (inner_mm + thickness_mm))
    near = _near_the_line(perimeters, roots)
    perimeters, roots = perimeters[near], roots[near]
    if len(perimeters) < LEAST_BRANCHES or np.ptp(perimeters) < LEAST_SPREAD_MM:
        return None
    if not perimeters.min() < PERIMETER_MM < perimeters.max():
        return None
    slope, intercept = (float(value) for value in np.polyfit(perimeters, roots, 1))
    return Pi10(
        value_mm=intercept + PERIMETER_MM * slope,
        slope=slope,
        intercept_mm=intercept,
        r=float(np.corrcoef(perimeters, roots)[0, 1]),
        branches=len(perimeters),
        outliers=int((~near).sum()),
        least_perimeter_mm=float(perimeters.min()),
        most_perimeter_mm=float(perimeters.max()),
    )


def _near_the_line(perimeters: NDArray[np.floating], roots: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which branches are within `OUTLIER_SD` robust deviations of the line of median slope (Theil, Sen), (B,)."""
    first, second = np.triu_indices(len(perimeters), 1)
    run = perimeters[second] - perimeters[first]
    apart = np.abs(run) > 1e-6
    if not apart.any():
        return np.ones(len(perimeters), bool)
    slope = np.median((roots[second] - roots[first])[apart] / run[apart])
    rest = roots - slope * perimeters
    rest = np.abs(rest - np.median(rest))
    return rest <= OUTLIER_SD * max(1.4826 * float(np.median(rest)), 1e-6)
