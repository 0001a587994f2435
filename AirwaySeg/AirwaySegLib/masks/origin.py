"""Where each voxel of the airways comes from, as a map of small numbers (uint8), 0 outside the airways."""

import numpy as np
from numpy.typing import NDArray

NETWORK, OPEN_LUMEN, REPAIR, CLICK, HAND = 1, 2, 3, 4, 5
"""The network; the growth through open lumens; a bridge of the repair; an airway grown from a click; by hand."""

NAMES = {NETWORK: "network", OPEN_LUMEN: "open_lumen", REPAIR: "repair", CLICK: "click", HAND: "hand"}
"""Names of the origins in recipes of trainings."""


def origin_of(
    mask: NDArray[np.bool_], open_lumen: NDArray[np.bool_] | None = None, bridges: NDArray | None = None
) -> NDArray[np.uint8]:
    """The map (Z, Y, X) of a segmented mask; what neither open lumens (bool) nor bridges (N, 3) added is the network's.

    Voxels of fragments that a repair joined are the network's: only the bridges are the repair's.
    """
    origin = np.where(mask, np.uint8(NETWORK), np.uint8(0))
    if open_lumen is not None:
        origin[open_lumen & mask] = OPEN_LUMEN
    if bridges is not None and len(bridges):
        voxels = tuple(bridges.T)
        origin[voxels] = np.where(mask[voxels], REPAIR, 0)
    return origin


def edited(origin: NDArray[np.uint8], mask: NDArray[np.bool_], by: int) -> NDArray[np.uint8]:
    """The map (Z, Y, X) after an edit of the mask: what it added is ``by`` (`CLICK`, `HAND`), what it removed 0."""
    return np.where(mask, np.where(origin > 0, origin, np.uint8(by)), np.uint8(0)).astype(np.uint8)
