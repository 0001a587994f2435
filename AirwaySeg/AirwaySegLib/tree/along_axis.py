"""Points moved along the axis of a lumen: what belongs to its cross-section goes on, a branch does not.

Letters in shapes: K points, S points of the axis, P points that are moved.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from AirwaySegLib.masks.sparse_mask import Rows
from AirwaySegLib.tree.centerline import Points, smooth, tangents


def drawn_on_axis(line: Points, sigma_mm: float, reach_mm: float, step_mm: float) -> Points:
    """A line smoothed, drawn on straight at both ends and resampled evenly, (S, 3)."""
    steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
    line = smooth(line, sigma_mm / float(steps.mean()))
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    inner = np.searchsorted(along, [2 * sigma_mm, along[-1] - 2 * sigma_mm])
    ends = []
    for end, within in ((0, min(inner[0], len(line) - 1)), (len(line) - 1, max(inner[1] - 1, 0))):
        way = line[end] - line[within]
        ends.append(line[end] + reach_mm * way / max(float(np.linalg.norm(way)), 1e-9))
    line = np.concatenate([ends[:1], line, ends[1:]])
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    at = np.arange(0, along[-1], step_mm)
    return np.column_stack([np.interp(at, along, line[:, part]) for part in range(3)])


@dataclass
class Moved:
    """Points moved along an axis (S, 3) with its cross-sections: ``points`` (P, S, 3).

    ``across`` and ``over`` (S, 3) span the cross-sections, ``offset_mm`` (P, 2) are the points' positions in them,
    ``height_mm`` (P,) their distances from the axis, and ``at`` (P,) where on it each of them is.
    """

    axis: Points
    across: Points
    over: Points
    at: Rows
    offset_mm: NDArray[np.float64]
    points: Points

    @classmethod
    def of(cls, places: Points, axis: Points, inwards_mm: float = 0.0) -> "Moved":
        """Each point (K, 3), drawn ``inwards_mm`` to the axis, with the point of the axis that is nearest to it."""
        apart = cdist(places, axis)
        at = apart.argmin(axis=1)
        along = tangents(axis)
        away = places - axis[at]
        towards = away[np.linalg.norm(away, axis=1).argmax()]
        across = towards - (along @ towards)[:, None] * along
        across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
        over = np.cross(along, across)
        offset = np.stack([(away * across[at]).sum(axis=1), (away * over[at]).sum(axis=1)], axis=1)
        offset *= np.maximum(0, 1 - inwards_mm / np.maximum(np.hypot(*offset.T), 1e-9))[:, None]
        points = axis + offset[:, :1, None] * across + offset[:, 1:, None] * over
        return cls(axis, across, over, at, offset, points)

    def within(self, steps: int) -> "Moved":
        """The same on that part of the axis that is not farther from the points than so many of its points."""
        first = max(int(self.at.min()) - steps, 0)
        part = slice(first, int(self.at.max()) + steps + 1)
        return Moved(
            self.axis[part], self.across[part], self.over[part], self.at - first, self.offset_mm, self.points[:, part]
        )

    @property
    def height_mm(self) -> NDArray[np.float64]:
        """Distance of each point from the axis, (P,)."""
        return np.hypot(*self.offset_mm.T)

    def leads_on_mm(self) -> float:
        """How far the last point lies beyond the first one along the axis."""
        way = self.axis[self.at[-1]] - self.axis[self.at[0]]
        return float(np.linalg.norm(way))

    def run_mm(self, occupied: NDArray[np.bool_]) -> NDArray[np.float64]:
        """How far each point can be moved to both sides together while it stays in what is ``occupied`` (P, S)."""
        index = np.arange(occupied.shape[1])
        free = ~occupied
        before = np.where(free & (index < self.at[:, None]), index, -1).max(axis=1)
        after = np.where(free & (index > self.at[:, None]), index, len(index)).min(axis=1)
        steps = np.linalg.norm(np.diff(self.points, axis=1), axis=2)
        walked = np.concatenate([np.zeros((len(steps), 1)), np.cumsum(steps, axis=1)], axis=1)
        ends = np.arange(len(walked))
        return walked[ends, after - 1] - walked[ends, before + 1]
