"""Check that a label lies on its CT's airways: a lumen is everywhere darker than its immediate surroundings.

The mean HU alone is not enough: trachea and lungs are dark, so a mirrored or shifted label may be dark on average. But
its parts then lack the brighter wall around them.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion

from AirwaySegLib.masks.components import bounding_box
from AirwaySegLib.masks.sparse_mask import Lumen
from AirwaySegTraining.data.augmentation import IGNORE

BLOCK = 24
"""Side in voxels of the cubes in which label and surroundings are compared, so that the trachea does not dominate."""

LEAST_VOXELS = 5
"""A cube counts if it has at least this many voxels of the label, and as many around it..."""

LEAST_HU = 40.0
"""... and fits if the voxels around the label are brighter by more than this on average."""

LEAST_FIT = 0.5
"""Of right labels of real and simulated CTs 99 % of the cubes fit, of mirrored ones at most 35 %, of ones that are
shifted by 3 voxels at most 48 %; of two simulated CTs with slices of 2 mm and a soft kernel 63 and 65 %, which pass."""

CLEARLY_BETTER = 0.2

AXES = ("head to foot", "front to back", "left to right")
"""Names of mirroring along the canonical axes z, y and x."""


WIDTHS = (0, -1, 1, -2)
"""Voxels by which a label is dilated (or eroded) if it does not fit: a person may mark the wall too, or only the core
of the lumen."""

Way = tuple[bool, bool, bool]
AS_IT_IS: Way = (False, False, False)
MIRRORED: list[Way] = [(z, y, x) for z, y, x in itertools.product((False, True), repeat=3) if z or y or x]


@dataclass(frozen=True)
class Surface:
    """Voxels (N, 3) of a label and those (M, 3) that touch it, within ``shape``."""

    shape: tuple[int, ...]
    inside: NDArray[np.intp]
    around: NDArray[np.intp]

    @classmethod
    def of(cls, label: NDArray[np.uint8], wider: int = 0) -> "Surface":
        """The surface of a label (Z, Y, X) where it is 1, dilated by ``wider`` voxels; voxels of 2 do not count."""
        box = bounding_box(label == 1, margin=max(0, wider) + 1) or (slice(0, 0),) * 3
        airway = label[box] == 1
        if wider > 0:
            airway = binary_dilation(airway, iterations=wider)
        elif wider < 0:
            airway = binary_erosion(airway, iterations=-wider, border_value=1)
        lumen = Lumen.of(airway, (1.0, 1.0, 1.0))
        start = [part.start for part in box]
        shell = lumen.shell.astype(np.intp) + start
        shell = shell[((shell >= 0) & (shell < label.shape)).all(axis=1)]
        return cls(label.shape, lumen.voxels.astype(np.intp) + start, shell[label[tuple(shell.T)] != IGNORE])

    def fitting(self, hu: NDArray, mirrored: Way = AS_IT_IS) -> tuple[int, int]:
        """Number of cubes that fit (`LEAST_HU`) with the label mirrored along some axes, and number of all cubes."""
        cubes = [-(-count // BLOCK) for count in self.shape]
        counts, means = [], []
        for voxels in (self.inside, self.around):
            here = np.where(mirrored, np.asarray(self.shape) - 1 - voxels, voxels)
            values = np.clip(hu[tuple(here.T)].astype(np.float64), -1000, 0)
            numbers = np.ravel_multi_index(tuple((voxels // BLOCK).T), cubes)
            counts.append(np.bincount(numbers, minlength=math.prod(cubes)))
            means.append(np.bincount(numbers, values, math.prod(cubes)) / np.maximum(counts[-1], 1))
        used = (counts[0] >= LEAST_VOXELS) & (counts[1] >= LEAST_VOXELS)
        return int(np.count_nonzero((means[1] - means[0])[used] > LEAST_HU)), int(np.count_nonzero(used))


def label_doubt(hu: NDArray, label: NDArray[np.uint8]) -> str:
    """The problem with a label (0, 1, 2) of a CT in HU, both (Z, Y, X) on canonical axes; empty if it fits.

    The text is the predicate of a sentence about the label: it does not lie on dark airways, or would if it were
    mirrored. A label with too few voxels to judge fits.
    """
    surface = Surface.of(label)
    fitting, cubes = surface.fitting(hu)
    if fitting == cubes:
        return ""
    turned = {way: surface.fitting(hu, way)[0] / cubes for way in MIRRORED}
    share = fitting / cubes
    if share >= LEAST_FIT and max(turned.values()) < share + CLEARLY_BETTER:
        return ""
    for wider in WIDTHS[1:]:  # cubes that an eroded label has lost do not fit
        other = Surface.of(label, wider)
        share = max(share, other.fitting(hu)[0] / cubes)
        turned = {way: max(turned[way], other.fitting(hu, way)[0] / cubes) for way in MIRRORED}
    best = max(turned, key=lambda way: turned[way])
    if turned[best] >= max(LEAST_FIT, share + CLEARLY_BETTER):
        names = " and ".join(name for name, mirrored in zip(AXES, best) if mirrored)
        fits = f"{_percent(share)} of it fits the CT, and {_percent(turned[best])} if it is mirrored back"
        return f"looks mirrored {names}: {fits}"
    if share < LEAST_FIT:
        return (
            f"does not lie on the CT's airways: only {_percent(share)} of it is darker than its surroundings; "
            "it may be shifted, far too wide, or of another CT"
        )
    return ""


def _percent(share: float) -> str:
    return f"{min(share, 1):.0%}"
