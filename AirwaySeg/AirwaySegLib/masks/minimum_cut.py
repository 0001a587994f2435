"""The fewest and least probable voxels that part two sides of a lumen."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from AirwaySegLib.masks.sparse_mask import Lumen, Rows

_LIMITLESS = 1_000_000


def minimum_cut(
    voxels: NDArray, values: NDArray[np.float64], source: NDArray[np.bool_], sink: NDArray[np.bool_]
) -> Rows:
    """The voxels (26 neighbours) of least summed value that part source from sink; none where no voxels can.

    Each voxel is two nodes, joined by an edge as strong as its value (and 16 for the voxel itself, so that few are
    taken): the cut of maximum flow.
    """
    count = len(voxels)
    low = voxels.min(axis=0)
    shape = [int(n) for n in voxels.max(axis=0) - low + 1]
    first, second = Lumen((shape[0], shape[1], shape[2]), (1.0, 1.0, 1.0), (voxels - low).astype(np.int32)).neighbours()
    rows, start, end = np.arange(count), 2 * count, 2 * count + 1
    inner = np.where(source | sink, _LIMITLESS, values.astype(np.int64) + 16)
    heads = np.concatenate([rows, first + count, second + count, np.full(source.sum(), start), rows[sink] + count])
    tails = np.concatenate([rows + count, second, first, rows[source], np.full(sink.sum(), end)])
    limits = np.concatenate([inner, np.full(len(heads) - count, _LIMITLESS)]).astype(np.int32)
    graph = csr_array((limits, (heads, tails)), shape=(end + 1, end + 1))
    flow = maximum_flow(graph, start, end)
    if flow.flow_value >= _LIMITLESS:
        return np.empty(0, np.intp)
    rest = graph - flow.flow
    rest.data[rest.data < 0] = 0
    rest.eliminate_zeros()
    reached = np.zeros(end + 1, bool)
    reached[breadth_first_order(rest, start, return_predecessors=False)] = True
    return np.flatnonzero(reached[:count] & ~reached[count : 2 * count])
