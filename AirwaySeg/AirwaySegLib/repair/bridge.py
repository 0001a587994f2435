"""A bridge: voxels that would join two or more components of a mask, as the network or a search for paths proposes it.

Letters in shapes: N voxels of a bridge, as indices (z, y, x) on the grid of the mask, which lies on canonical axes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

NETWORK, PATH = "network", "path"
METHODS = (NETWORK, PATH)

MAIN = 1
"""The number of the tree that holds the trachea among the components; 2, 3, ... are fragments, larger ones first."""


@dataclass(frozen=True, eq=False)
class Bridge:
    """Voxels that would join components.

    Parameters
    ----------
    joins
        Numbers of the two or more components, ascending.
    voxels
        (N, 3) int32, N >= 1, outside the mask. Together with the joined components they are connected (26 neighbours).
    score
        How sure the method is, 0..1.
    method
        One of `METHODS`.
    length_mm
        Width of the gap.
    facts
        What the score came from, by name; the names are the method's.
    instead
        What is drawn where this bridge would close a loop.
    """

    joins: tuple[int, ...]
    voxels: NDArray[np.int32]
    score: float
    method: str
    length_mm: float
    facts: dict[str, float] = field(default_factory=dict)
    instead: "Bridge | None" = None

    def __post_init__(self) -> None:
        """Refuse what joins nothing, has no voxels, or a score that is none."""
        if len(self.joins) < 2 or list(self.joins) != sorted(set(self.joins)) or self.joins[0] < MAIN:
            raise ValueError(f"a bridge joins two or more different components in ascending order, not {self.joins}")
        if self.voxels.ndim != 2 or self.voxels.shape[1] != 3 or not len(self.voxels):
            raise ValueError(f"a bridge has voxels of shape (N, 3), not {self.voxels.shape}")
        if self.voxels.dtype != np.int32:
            raise ValueError(f"a bridge's voxels are int32, not {self.voxels.dtype}")
        if not 0 <= self.score <= 1 or self.method not in METHODS or not self.length_mm >= 0:
            raise ValueError(f"a bridge by {self.method!r} has score {self.score} and length {self.length_mm} mm")


def groups_of(count: int, bridges: Sequence[Bridge]) -> NDArray[np.int32]:
    """Number of the group of joined components that each of 0..``count`` is in; 0 is in its own, number 0."""
    links = [(bridge.joins[0], other) for bridge in bridges for other in bridge.joins[1:]]
    first, second = np.array(links, np.int64).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(first)), (first, second)), shape=(count + 1, count + 1))
    return connected_components(graph, directed=False)[1]
