"""Pieces beside the tree that are airway for certain: which of them are, whatever they would be joined to."""

import numpy as np
from numpy.typing import NDArray

CERTAIN, SMALLEST_PIECE_VOXELS = 0.8, 20
"""A piece is airway for certain from this mean probability and size on."""

PROBABLE_AIRWAY = 0.5
"""The same for P(airway), which knows shape, position and CT: gas of oesophagus and stomach has a mean probability of
0.9 and more, and P(airway) from 0.1 to 0.3."""


def certainty(labels: NDArray[np.integer], probability: NDArray[np.uint8]) -> NDArray[np.float64]:
    """How certain it is that each piece is airway, 0..1 by its number, (pieces + 1,): its mean probability.

    ``labels`` numbers the pieces, 0 is background; ``probability`` is 0..255 of the same voxels, of a grid or a list.
    """
    inside = labels > 0
    sizes = np.bincount(labels[inside], minlength=1)
    return np.bincount(labels[inside], probability[inside], minlength=1) / np.maximum(sizes, 1) / 255


def certain_pieces(
    labels: NDArray[np.uint16], probability: NDArray[np.uint8], airway: NDArray[np.float64] | None = None
) -> NDArray[np.uint16]:
    """The numbers of those pieces that are airway for certain, of the shape of ``labels``, 0 elsewhere.

    ``airway`` is P(airway) of the pieces by number (`repair.piece_score`); without it their `certainty` decides.
    """
    sizes = np.bincount(labels[labels > 0], minlength=1)
    numbers = np.arange(len(sizes), dtype=labels.dtype)
    if airway is None:
        doubtful = certainty(labels, probability) < CERTAIN
    else:
        doubtful = airway[: len(sizes)] < PROBABLE_AIRWAY
    numbers[doubtful | (sizes < SMALLEST_PIECE_VOXELS)] = 0
    return numbers[labels]
