"""Areas of the lumen of branches."""

import math
from collections.abc import Sequence

import numpy as np

from AirwaySegLib.tree.airway_tree import Branch
from AirwaySegLib.tree.shape import length_weights


def lumen_area_mm2(branch: Branch) -> float:
    """Mean area of the lumen's cross-section over the points outside the parent's lumen."""
    return float(np.mean(np.pi * branch.own_radii_mm**2))


def mean_lumen_area_mm2(branches: Sequence[Branch]) -> float:
    """Mean over several branches, each weighted by its length; NaN for none."""
    if not branches:
        return math.nan
    return float(np.average([lumen_area_mm2(branch) for branch in branches], weights=length_weights(list(branches))))
