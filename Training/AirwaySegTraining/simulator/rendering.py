"""Draws shapes into a voxel grid: tubes as soft coverage, smooth fields by interpolation of coarse ones.

Arrays are (Z, Y, X). A `Grid` ties voxels to the patient's frame: scan axes may be turned against the patient's.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from AirwaySegTraining.simulator.growth import Branch, Points

Field = NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """The scan's voxels: ``shape`` (Z, Y, X), ``spacing_mm``, first voxel's centre, the patient -> scan rotation."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    first_mm: tuple[float, float, float]
    rotation: Points

    def to_scan_mm(self, points_mm: Points) -> Points:
        """Patient's positions (P, 3) as distances in mm from the first voxel along the scan's axes."""
        return points_mm @ self.rotation.T - np.asarray(self.first_mm)

    def coarse_points(self, step_mm: float) -> tuple[Field, Field, Field]:
        """The patient's z, y, x (float32) at a coarse lattice that covers the grid."""
        axes = [np.linspace(0, (n - 1) * s, coarse_count(n, s, step_mm)) for n, s in zip(self.shape, self.spacing_mm)]
        lattice = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1) + np.asarray(self.first_mm)
        points = lattice @ self.rotation  # the inverse of a rotation is its transpose
        z, y, x = (np.ascontiguousarray(points[..., axis], dtype=np.float32) for axis in range(3))
        return z, y, x


def coarse_count(count: int, spacing_mm: float, step_mm: float) -> int:
    """Lattice points about ``step_mm`` apart along an axis of ``count`` voxels, both ends included."""
    return max(2, int(np.ceil((count - 1) * spacing_mm / step_mm)) + 1)


def _weights(coarse: int, fine: int) -> Field:
    """(fine, coarse) matrix of linear interpolation between equal ends."""
    place = np.linspace(0, coarse - 1, fine)
    low = np.minimum(place.astype(int), coarse - 2)
    matrix = np.zeros((fine, coarse), np.float32)
    matrix[np.arange(fine), low] = 1 - (place - low)
    matrix[np.arange(fine), low + 1] = place - low
    return matrix


def enlarge(field: Field, shape: tuple[int, int, int], slab: slice) -> Field:
    """Slices ``slab`` of a coarse field interpolated to ``shape``: (slab, Y, X), linear, three matrix products."""
    along_z = np.tensordot(_weights(field.shape[0], shape[0])[slab], field, axes=(1, 0))
    along_y = np.matmul(_weights(field.shape[1], shape[1]), along_z)
    return np.matmul(along_y, _weights(field.shape[2], shape[2]).T)


def smooth_noise(grid: Grid, step_mm: float, rng: np.random.Generator) -> Field:
    """A coarse random field of mean 0 and standard deviation 1 with structures of about ``2 * step_mm``."""
    counts = tuple(coarse_count(n, s, step_mm) for n, s in zip(grid.shape, grid.spacing_mm))
    noise = gaussian_filter(rng.standard_normal(counts, dtype=np.float32), 0.8)
    return (noise / max(float(noise.std()), 1e-6)).astype(np.float32)


def _tube_box(low_mm: Points, high_mm: Points, margin_mm: float, grid: Grid) -> tuple[slice, slice, slice] | None:
    spacing = np.asarray(grid.spacing_mm)
    first = np.maximum(np.floor((low_mm - margin_mm) / spacing), 0).astype(int)
    last = np.minimum(np.ceil((high_mm + margin_mm) / spacing) + 1, grid.shape).astype(int)
    if (first >= last).any():
        return None
    z, y, x = (slice(a, b) for a, b in zip(first, last))
    return z, y, x


def _paint_piece(
    coverage: NDArray[np.uint8],
    ends_mm: Points,
    radii_mm: NDArray[np.float64],
    squash: tuple[float, Points],
    grid: Grid,
) -> None:
    """Draw one capsule: ends (2, 3) in scan mm, radii (2,). Tubes below a voxel are scaled by their area."""
    voxel_mm = float(np.prod(grid.spacing_mm) ** (1 / 3))
    drawn = np.maximum(radii_mm, 0.5 * voxel_mm)
    strength = 255 * float(np.min((radii_mm / drawn) ** 2))
    ratio, axis = squash
    box = _tube_box(ends_mm.min(axis=0), ends_mm.max(axis=0), drawn.max() * max(1, 1 / ratio) + voxel_mm, grid)
    if box is None:
        return
    z, y, x = (
        np.arange(part.start, part.stop, dtype=np.float32) * np.float32(step) - np.float32(start)
        for part, step, start in zip(box, grid.spacing_mm, ends_mm[0])
    )
    z, y = z[:, None, None], y[None, :, None]
    along = (ends_mm[1] - ends_mm[0]).astype(np.float32)
    length_squared = max(float(along @ along), 1e-6)
    share = np.clip((z * along[0] + y * along[1] + x * along[2]) / np.float32(length_squared), 0, 1)
    dz, dy, dx = z - share * along[0], y - share * along[1], x - share * along[2]
    squared = dz * dz + dy * dy + dx * dx
    if ratio != 1:
        aside = dz * np.float32(axis[0]) + dy * np.float32(axis[1]) + dx * np.float32(axis[2])
        squared = squared + np.float32(ratio**2 - 1) * aside * aside
    radius = np.float32(drawn[0]) + share * np.float32(drawn[1] - drawn[0])
    soft = np.clip((radius - np.sqrt(np.maximum(squared, 0))) / np.float32(voxel_mm) + np.float32(0.5), 0, 1)
    part = coverage[box]
    np.maximum(part, (soft * np.float32(strength)).astype(np.uint8), out=part)


def paint_tubes(
    coverage: NDArray[np.uint8], branches: list[Branch], grid: Grid, wider_mm: list[float] | float = 0.0
) -> None:
    """Draw branches into ``coverage`` (uint8, 255 = fully inside), each radius enlarged by ``wider_mm``.

    ``coverage`` is changed in place: it keeps the larger of what was there and what is drawn.
    """
    for index, branch in enumerate(branches):
        wider = wider_mm[index] if isinstance(wider_mm, list) else wider_mm
        points = grid.to_scan_mm(branch.points_mm)
        radii = branch.radii_mm + wider
        axis = grid.rotation @ branch.squash_axis
        for k in range(len(points) - 1):
            _paint_piece(coverage, points[k : k + 2], radii[k : k + 2], (branch.squash, axis), grid)


def mix(hu: Field, value: Field | np.float32 | float, coverage: Field) -> None:
    """Replace a share ``coverage`` (0..1) of each voxel of ``hu`` by ``value``, in place."""
    hu += (value - hu) * coverage


def soft(shape_mm: Field, voxel_mm: float) -> Field:
    """Coverage 0..1 of an implicit shape (mm, positive inside) with an edge one voxel wide."""
    return np.clip(shape_mm / np.float32(voxel_mm) + np.float32(0.5), 0, 1)
