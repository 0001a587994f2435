"""The colours of airways and of generations, the same in pictures, curves, segments and overlays."""

import numpy as np
from numpy.typing import NDArray

GENERATION_RAMP = "e6fafa f8df58 fa8c1e dc533c b75880 806bb9 249efa 65dccd bdd992"
"""Red, green, blue as hexadecimal bytes; the Slicer module has the same."""

AIRWAYS, UNCONNECTED = "96d7ff", "ffbe46"
"""Of the airways, and of certain pieces that were not joined to them; the Slicer module has the same."""

_RAMP = np.array([list(bytes.fromhex(colour)) for colour in GENERATION_RAMP.split()], float)


def generation_colours(count: int) -> NDArray[np.uint8]:
    """Colours of the generations 0 ... ``count`` - 1, (count, 3) red, green, blue: an even ramp for a dark ground.

    Generation 0 is nearly white. A ``count`` of 0 gives none.
    """
    positions = np.linspace(0, len(_RAMP) - 1, count)
    channels = [np.interp(positions, np.arange(len(_RAMP)), channel) for channel in _RAMP.T]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)
