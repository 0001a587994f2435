"""How many strokes of a sphere brush do the same as some corrections: a model that favours painting.

A stroke is one drag of the mouse in one slice of any of the three orientations, along any curve in that slice, with
the brush as wide as the airway. It fills or erases a stretch exactly, without a voxel too much or too few, as far as
the centerline stays within half a radius (or half a voxel, if that is more) of the slice and the radius within a factor
of 1.5. Setting the brush, finding the slices and joining the stretches cost nothing, and the strokes that bring most
come first.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from reference_airways import Reference, Spacing, Stretch, Voxels

Mask = NDArray[np.bool_]

OFF_SLICE, WIDTH = 0.5, 1.5
"""Share of the radius by which a centerline may leave the slice of a stroke, and the ratio of widths along one."""

BALL = 0.5
"""Balls that are set one by one are so many radii apart."""


@dataclass(frozen=True)
class Painting:
    """What painting takes: strokes that paint and that erase, and the balls that one would set instead of strokes."""

    painted: int
    erased: int
    balls: int

    @property
    def strokes(self) -> int:
        """All of them."""
        return self.painted + self.erased


def strokes_along(voxels: Voxels, radii_mm: NDArray[np.float64], spacing_mm: Spacing) -> list[int]:
    """The strokes that cover a line (N, 3): how many of its voxels each covers, from its start on."""
    spacing, found, start = np.asarray(spacing_mm), [], 0
    while start < len(voxels):
        rest, radii = voxels[start:], radii_mm[start:]
        best = 1
        for axis in range(3):
            reach = np.maximum(OFF_SLICE * radii, spacing[axis] / 2)
            low = np.maximum.accumulate(rest[:, axis] * spacing[axis] - reach)
            high = np.minimum.accumulate(rest[:, axis] * spacing[axis] + reach)
            even = np.maximum.accumulate(radii) <= WIDTH * np.maximum(np.minimum.accumulate(radii), spacing.min())
            fits = (low <= high) & even
            best = max(best, int(len(fits) if fits.all() else fits.argmin()))
        found.append(best)
        start += best
    return found


def painting_to(reference: Reference, mask: Mask, tld: float, exact: float) -> Painting:
    """What it takes from a mask to a tree length detected and a precision in per cent."""
    stretches = reference.stretches(mask)
    covered = sorted((n for one in stretches for n in _strokes(one, reference.spacing_mm)), reverse=True)
    lacking = tld / 100 * len(reference.line) - reference.detected(mask).sum()
    painted = _fewest(covered, lacking)
    balls = sum(_balls(one) for one in stretches)
    share_of_all = min(1.0, max(lacking, 0) / max(sum(covered), 1))
    erased = _erasing(reference, mask, exact)
    return Painting(painted, erased, int(np.ceil(balls * share_of_all)) + erased)


def _strokes(stretch: Stretch, spacing_mm: Spacing) -> list[int]:
    return strokes_along(stretch.voxels, stretch.radii_mm, spacing_mm)


def _balls(stretch: Stretch) -> int:
    return int(np.ceil(stretch.length_mm / max(BALL * float(stretch.radii_mm.mean()), 1e-3)))


def _fewest(gains: list[int], wanted: float) -> int:
    """How many of the gains, the largest first, it takes to get what is wanted; all where that is not enough."""
    if wanted <= 0:
        return 0
    sums = np.cumsum(gains)
    return min(int(np.searchsorted(sums, wanted)) + 1, len(gains))


def _erasing(reference: Reference, mask: Mask, exact: float) -> int:
    """Strokes of the eraser until the precision is reached, per cent."""
    counted = int((mask & ~reference.left_out).sum())
    clear = (1 - reference.scores(mask).precision / 100) * counted
    wanted = clear - (1 - exact / 100) * counted
    gains = [gain for piece in reference.false_pieces(mask) for gain in erasing_strokes(piece, reference.spacing_mm)]
    return _fewest(sorted(gains, reverse=True), wanted)


def erasing_strokes(piece: Voxels, spacing_mm: Spacing) -> list[int]:
    """The voxels of a false piece (N, 3) that each stroke erases.

    Along its longest axis a ball as wide as the piece is there is dragged; a stroke reaches as far as one slice does.
    """
    centred = (piece - piece.mean(axis=0)) * np.asarray(spacing_mm)
    along = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    steps = np.floor((along - along.min()) / min(spacing_mm)).astype(int)
    kept, rows = np.unique(steps, return_inverse=True)
    counts = np.bincount(rows)
    middle = np.stack([np.bincount(rows, piece[:, axis]) / counts for axis in range(3)], axis=1)
    radii = np.sqrt(counts * float(np.prod(spacing_mm)) / min(spacing_mm) / np.pi)
    radii = np.full(len(kept), max(float(radii.max()), min(spacing_mm)))
    gains, start = [], 0
    for length in strokes_along(middle, radii, spacing_mm):
        gains.append(int(counts[start : start + length].sum()))
        start += length
    return gains
