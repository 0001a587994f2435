"""The cheapest way through a grid of costs."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

_REACH = 20
"""A way is searched in the box of its starts and so many voxels around it, and where that is too small in a larger one:
preparing a search takes time for every voxel of its box, the search itself only for those that it reaches."""

_END = 2
"""What tells the library's search to end."""


def cheapest_way(
    cost: NDArray[np.floating], starts: NDArray, stops: NDArray, spacing_mm: tuple[float, float, float]
) -> NDArray[np.int64] | None:
    """The voxels (P, 3) of the cheapest way from one of ``starts`` (S, 3) to one of ``stops`` (T, 3), both included.

    ``cost`` (Z, Y, X) is that of a mm in a voxel, infinite where there is no way. None where no way leads there.
    """
    reach = _REACH
    while True:
        low = np.maximum(starts.min(axis=0) - reach, 0)
        high = np.minimum(starts.max(axis=0) + reach + 1, cost.shape)
        near = stops[((stops >= low) & (stops < high)).all(axis=1)] - low
        rim = _rim(low, high, cost.shape)
        search = _search()(cost[tuple(map(slice, low, high))], sampling=spacing_mm)
        costs = search.up_to(rim, near, starts - low)
        reached = costs[tuple(near.T)]
        if len(near) and np.isfinite(reached.min()):
            return np.array(search.traceback(near[reached.argmin()])) + low
        if not np.isfinite(costs[rim]).any():
            return None
        reach = reach * 3 // 2


def _rim(low: NDArray, high: NDArray, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The voxels of a box that have neighbours outside it, but within the grid."""
    rim = np.zeros(high - low, bool)
    for axis in range(3):
        side = np.moveaxis(rim, axis, 0)
        side[0] |= low[axis] > 0
        side[-1] |= high[axis] < shape[axis]
    return rim


@cache
def _search() -> type:
    """A search that ends at the first voxel of many.

    The library goes through its list of ends at every voxel: with a tree's surface for ends that takes longer than the
    search itself.
    """
    from skimage.graph import MCP_Geometric  # in Slicer it is installed only when it is needed

    class Search(MCP_Geometric):
        _flags = b""

        def up_to(self, rim: NDArray[np.bool_], ends: NDArray, starts: NDArray) -> NDArray[np.float64]:
            """The costs of the ways to all voxels that are reached before, and at, the first of some (bool, (N, 3))."""
            flags = _END * rim.astype(np.uint8)
            flags[tuple(ends.T)] = _END
            self._flags = flags.tobytes("F")
            costs: NDArray[np.float64] = self.find_costs(starts.tolist())[0]
            return costs

        def goal_reached(self, index: int, _cost: float) -> int:
            """Called by the library with each voxel that is reached, counted in Fortran's order."""
            return self._flags[index]

    return Search


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
