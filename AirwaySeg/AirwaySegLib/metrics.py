"""How well a mask fits a reference: the field's voxel metrics.

Masks are bool (Z, Y, X) on one grid. A rate whose denominator is 0 is NaN: there was nothing to measure.
"""

import math

import numpy as np
from numpy.typing import NDArray
from skimage.morphology import skeletonize

from AirwaySegLib.components import bounding_box, distance_to
from AirwaySegLib.errors import AirwaySegError

Mask = NDArray[np.bool_]


def skeleton(mask: Mask) -> Mask:
    """Lee thinning of a mask on its bounding box, as bool (Z, Y, X).

    Bars of even and constant width vanish in it (scikit-image issue 3757); real airways taper and bend, so they do not.
    """
    thin = np.zeros(mask.shape, bool)
    box = bounding_box(mask, margin=1)
    if box is not None:
        thin[box] = skeletonize(mask[box]) > 0
    return thin


def tree_length_detected(prediction: Mask, reference: Mask) -> float:
    """Share of the reference's skeleton voxels that lie in the prediction (TLD of ATM'22, as a rate 0..1)."""
    _check(prediction, reference)
    line = skeleton(reference)
    return _share(int((line & prediction).sum()), int(line.sum()))


def precision(prediction: Mask, reference: Mask, left_out: Mask | None = None) -> float:
    """Share of the prediction's voxels that lie in the reference; voxels in ``left_out`` do not count."""
    _check(prediction, reference)
    counted = prediction if left_out is None else prediction & ~left_out
    return _share(int((counted & reference).sum()), int(counted.sum()))


def dice(prediction: Mask, reference: Mask, left_out: Mask | None = None) -> float:
    """Dice similarity coefficient; voxels in ``left_out`` do not count."""
    _check(prediction, reference)
    if left_out is not None:
        prediction, reference = prediction & ~left_out, reference & ~left_out
    return _share(2 * int((prediction & reference).sum()), int(prediction.sum()) + int(reference.sum()))


def share_outside(prediction: Mask, reference: Mask, margin_voxels: float = 2.0) -> float:
    """Share of the prediction's voxels farther than ``margin_voxels`` from the reference."""
    _check(prediction, reference)
    box = bounding_box(prediction | reference, margin=1)
    if box is None:
        return math.nan
    far = distance_to(reference[box], (1.0, 1.0, 1.0)) > margin_voxels
    return _share(int((prediction[box] & far).sum()), int(prediction.sum()))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _check(prediction: Mask, reference: Mask) -> None:
    if prediction.shape != reference.shape:
        raise AirwaySegError(f"The prediction's grid {prediction.shape} is not the reference's {reference.shape}.")
