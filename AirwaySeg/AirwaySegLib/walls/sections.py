"""The cross-sections of each branch at which its wall is measured, and the CT along rays from their middles.

Points are (z, y, x) in mm from the centre of the first voxel of the box in which the airways were parsed. Letters in
shapes: S cross-sections, A rays of a section, K samples of a ray.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter

from AirwaySegLib.tree.airway_tree import Branch
from AirwaySegLib.tree.build import ParsedAirways
from AirwaySegLib.tree.centerline import tangents
from AirwaySegLib.tree.known_parts import checksum

Floats = NDArray[np.floating]

RAYS = 36
MOST_SECTIONS, APART_MM = 8, 1.0
"""A branch has at most so many cross-sections, at least so far from each other."""

FORK_RADII, LEAST_PART = 1.0, 0.25
"""Before a fork so many radii of the lumen there are left out, but no more than this part of the branch."""

BEYOND_MM = 7.0
"""Rays go on so far beyond the lumen: a thick wall and some lung."""

MARGIN = 6
"""Voxels around points that cubic splines are taken from."""

BLOCK = 32
"""Side in voxels of the blocks of a CT that have a checksum."""


@dataclass(frozen=True)
class Sections:
    """The cross-sections of one branch: middles and three unit vectors (S, 3), radii of the mask's lumen (S,).

    ``along`` is the direction of the line, ``across`` and ``over`` span the section. They hardly turn from one section
    to the next. ``at_mm`` (S,) is the distance of each from the branch's first point.
    """

    branch: int
    middles_mm: Floats
    along: Floats
    across: Floats
    over: Floats
    radii_mm: Floats
    at_mm: Floats

    def every(self, step: int) -> "Sections":
        """Every so manieth section."""
        columns = (self.middles_mm, self.along, self.across, self.over, self.radii_mm, self.at_mm)
        return Sections(self.branch, *(column[::step] for column in columns))

    def directions(self) -> Floats:
        """Unit vectors of the rays, (S, A, 3)."""
        turns = 2 * np.pi * np.arange(RAYS) / RAYS
        return np.cos(turns)[:, None] * self.across[:, None] + np.sin(turns)[:, None] * self.over[:, None]


def sections_of(airways: ParsedAirways) -> Iterator[Sections]:
    """The sections of each branch that is longer than a point, away from its forks and its tip."""
    for index, branch in enumerate(airways.tree.branches):
        part = airways.lines.of(index)
        if part.stop - part.start < 2:
            continue
        points, radii, along_mm = (
            values[part] for values in (airways.lines.places_mm, airways.lines.radii_mm, airways.lines.along_mm)
        )
        at_mm = _positions(branch, along_mm)
        middles, along = (_between(at_mm, along_mm, values) for values in (points, tangents(points)))
        along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
        over = np.cross(along, np.eye(3)[np.abs(along.mean(axis=0)).argmin()])
        over /= np.maximum(np.linalg.norm(over, axis=1, keepdims=True), 1e-9)
        radii_mm = np.interp(at_mm, along_mm, radii)
        yield Sections(branch.id, middles, along, np.cross(over, along), over, radii_mm, at_mm)


def _positions(branch: Branch, along_mm: Floats) -> Floats:
    """Where along a branch its sections are, (S,) in mm: outside the parent's lumen and that of the fork at its end."""
    length_mm = float(along_mm[-1])
    own = branch.own_points
    first_mm, last_mm = float(along_mm[own][0]), float(along_mm[own][-1])
    if branch.children:
        last_mm = min(last_mm, length_mm - min(FORK_RADII * float(branch.radii_mm[-1]), LEAST_PART * length_mm))
    last_mm = max(first_mm, last_mm)
    count = int(np.clip((last_mm - first_mm) / APART_MM + 1, 1, MOST_SECTIONS))
    return np.linspace(first_mm, last_mm, count) if count > 1 else np.array([(first_mm + last_mm) / 2])


def _between(at_mm: Floats, along_mm: Floats, values: Floats) -> Floats:
    """The values (P, 3) along a line at other positions, (S, 3)."""
    return np.column_stack([np.interp(at_mm, along_mm, column) for column in values.T])


def sample(values: NDArray, corner: NDArray, points_mm: Floats, spacing_mm: Floats, order: int = 3) -> Floats:
    """The CT at points (..., 3), by cubic splines in a crop of it (order 1: linear, three times as fast).

    ``corner`` is the CT's voxel at the points' origin.
    """
    voxels = points_mm.reshape(-1, 3) / spacing_mm
    crop, low = crop_around(values, corner, voxels)
    crop = crop.astype(np.float32)
    crop = spline_filter(crop, order=order, output=np.float32, mode="nearest") if order > 1 else crop
    # The crop counts from the origin of the points: so the figures are the same in a larger part of the scan.
    found = map_coordinates(crop, (voxels - low).T, order=order, prefilter=False, mode="nearest", output=np.float32)
    return found.reshape(points_mm.shape[:-1]).astype(float)


def crop_around(values: NDArray, corner: NDArray, voxels: Floats) -> tuple[NDArray, NDArray[np.intp]]:
    """The part of a CT that splines at some points (M, 3) need, and its first voxel (3,).

    Points and first voxel count in voxels from the CT's voxel ``corner``.
    """
    low = np.clip(np.floor(voxels.min(axis=0)).astype(int) - MARGIN + corner, 0, np.array(values.shape) - 1)
    high = np.clip(np.ceil(voxels.max(axis=0)).astype(int) + MARGIN + 1 + corner, low + 1, values.shape)
    return values[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], low - corner


class ScanParts:
    """Checksums of the parts of a CT around some points, wherever the part of the scan that is known begins."""

    def __init__(self, ct: NDArray, corner: NDArray, spacing_mm: Floats) -> None:
        self._ct, self._corner, self._spacing_mm = ct, corner, spacing_mm
        self._blocks: dict[tuple[int, ...], bytes] = {}

    def around(self, sections: Sections, reach_mm: float) -> bytes:
        """A checksum of some sections and of the CT within ``reach_mm`` of them.

        It is that of the blocks of `BLOCK` voxels from the points' origin on: each is read once for all branches.
        """
        ends = np.stack([sections.middles_mm.min(axis=0) - reach_mm, sections.middles_mm.max(axis=0) + reach_mm])
        crop, low = crop_around(self._ct, self._corner, ends / self._spacing_mm)
        high = low + crop.shape
        ranges = [range(a // BLOCK, (b - 1) // BLOCK + 1) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
        blocks = b"".join(self._block(block) for block in itertools.product(*ranges))
        lines = (sections.middles_mm, sections.across, sections.over, sections.radii_mm)
        return checksum(*lines, blocks, tuple(low.tolist()), crop.shape, self._spacing_mm)

    def _block(self, block: tuple[int, ...]) -> bytes:
        if block not in self._blocks:
            lows = [BLOCK * number + int(start) for number, start in zip(block, self._corner, strict=True)]
            z, y, x = (slice(max(0, low), low + BLOCK) for low in lows)
            self._blocks[block] = checksum(self._ct[z, y, x])
        return self._blocks[block]
