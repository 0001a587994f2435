"""The cheapest way through a grid of costs."""

import numpy as np
from numpy.typing import NDArray


def cheapest_way(
    cost: NDArray[np.floating], starts: NDArray, stops: NDArray, spacing_mm: tuple[float, float, float]
) -> NDArray[np.int64] | None:
    """The voxels (P, 3) of the cheapest way from one of ``starts`` (S, 3) to one of ``stops`` (T, 3), both included.

    ``cost`` (Z, Y, X) is that of a mm in a voxel, infinite where there is no way. None where no way leads there.
    """
    from skimage.graph import MCP_Geometric  # in Slicer it is installed only when it is needed

    search = MCP_Geometric(cost, sampling=spacing_mm)
    costs, _ = search.find_costs(starts.tolist(), stops.tolist(), find_all_ends=False)
    last = stops[np.argmin(costs[tuple(stops.T)])]
    return np.array(search.traceback(last)) if np.isfinite(costs[tuple(last)]) else None


class Ways:
    """The cheapest ways from some voxels to all that can be reached; ``costs`` (Z, Y, X) is infinite elsewhere."""

    def __init__(self, cost: NDArray[np.floating], starts: NDArray, spacing_mm: tuple[float, float, float]) -> None:
        """``cost`` and ``starts`` are those of `cheapest_way`."""
        from skimage.graph import MCP_Geometric  # in Slicer it is installed only when it is needed

        self._search = MCP_Geometric(cost, sampling=spacing_mm)
        self.costs: NDArray[np.float64] = self._search.find_costs(starts.tolist())[0]

    def to(self, stop: NDArray) -> NDArray[np.int64]:
        """The voxels (P, 3) of the way to a voxel (3,) that can be reached, both included."""
        return np.array(self._search.traceback(stop))
