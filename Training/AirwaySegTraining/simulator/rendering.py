"""Draws shapes into a voxel grid: tubes as soft coverage, smooth fields by interpolation of coarse ones.

Arrays are (Z, Y, X). A `Grid` relates voxels to the patient's frame; the scan's axes may be rotated against it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from AirwaySegTraining.simulator.growth import Branch, Points

Field = NDArray[np.floating]


@dataclass(frozen=True)
class Grid:
    """The scan's voxels: ``shape`` (Z, Y, X), ``spacing_mm``, first voxel's centre, the patient -> scan rotation."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    first_mm: tuple[float, float, float]
    rotation: Points

    def to_scan_mm(self, points_mm: Points) -> Points:
        """Positions (P, 3) in the patient's frame as distances in mm from the first voxel along the scan's axes."""
        return points_mm @ self.rotation.T - np.asarray(self.first_mm)

    def coarse_points(self, step_mm: float) -> tuple[Field, Field, Field]:
        """The patient's z, y, x (float32) at a coarse lattice that covers the grid."""
        axes = [np.linspace(0, (n - 1) * s, coarse_count(n, s, step_mm)) for n, s in zip(self.shape, self.spacing_mm)]
        lattice = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1) + np.asarray(self.first_mm)
        points = lattice @ self.rotation  # the inverse of a rotation is its transpose
        z, y, x = (np.ascontiguousarray(points[..., axis], dtype=np.float32) for axis in range(3))
        return z, y, x

    def sample_coarse(self, field: Field, points_mm: Points) -> NDArray[np.float32]:
        """A coarse field (see `coarse_points`) at positions (P, 3) in the patient's frame, (P,)."""
        extent_mm = (np.array(self.shape) - 1) * self.spacing_mm
        index = self.to_scan_mm(points_mm) / extent_mm * (np.array(field.shape) - 1)
        return map_coordinates(field, index.T, order=1, mode="nearest", output=np.float32)


def coarse_count(count: int, spacing_mm: float, step_mm: float) -> int:
    """Lattice points about ``step_mm`` apart along an axis of ``count`` voxels, both ends included."""
    return max(2, int(np.ceil((count - 1) * spacing_mm / step_mm)) + 1)


def _weights(coarse: int, fine: int) -> Field:
    """(fine, coarse) matrix of linear interpolation; both grids have the same first and last point."""
    position = np.linspace(0, coarse - 1, fine)
    low = np.minimum(position.astype(int), coarse - 2)
    matrix = np.zeros((fine, coarse), np.float32)
    matrix[np.arange(fine), low] = 1 - (position - low)
    matrix[np.arange(fine), low + 1] = position - low
    return matrix


def enlarge(field: Field, shape: tuple[int, ...], slab: slice) -> Field:
    """Slices ``slab`` of a coarse field interpolated to ``shape``: (slab, Y, X), linear, three matrix products."""
    along_z = np.tensordot(_weights(field.shape[0], shape[0])[slab], field, axes=(1, 0))
    along_y = np.matmul(_weights(field.shape[1], shape[1]), along_z)
    return np.matmul(along_y, _weights(field.shape[2], shape[2]).T)


def smooth_noise(grid: Grid, step_mm: float, rng: np.random.Generator) -> Field:
    """A coarse random field of mean 0 and standard deviation 1 with structures of about ``2 * step_mm``."""
    counts = tuple(coarse_count(n, s, step_mm) for n, s in zip(grid.shape, grid.spacing_mm))
    noise = gaussian_filter(rng.standard_normal(counts, dtype=np.float32), 0.8)
    return (noise / max(float(noise.std()), 1e-6)).astype(np.float32)


def _paint_piece(
    part: NDArray[np.uint8],
    axes_mm: tuple[Field, Field, Field],
    piece: NDArray[np.float32],
    squash: tuple[float, Points],
    voxel_mm: float,
) -> None:
    """Draw one capsule into its box: axes in mm from its start, ``piece`` (way z, y, x, radius, growth, strength)."""
    z, y, x = axes_mm
    along_z, along_y, along_x, radius, growth, strength = piece
    length_squared = max(along_z * along_z + along_y * along_y + along_x * along_x, np.float32(1e-6))
    share = (z * (along_z / length_squared) + y * (along_y / length_squared)) + x * (along_x / length_squared)
    np.clip(share, 0, 1, out=share)
    dz, dy, dx = z - share * along_z, y - share * along_y, x - share * along_x
    ratio, axis = squash
    stretch = None
    if ratio != 1:
        stretch = dz * np.float32(axis[0]) + dy * np.float32(axis[1]) + dx * np.float32(axis[2])
    dz *= dz
    dz += np.multiply(dy, dy, out=dy)
    dz += np.multiply(dx, dx, out=dx)
    if stretch is not None:
        dz += np.float32(ratio**2 - 1) * stretch * stretch
    np.sqrt(np.maximum(dz, 0, out=dz), out=dz)
    share *= growth
    share += radius
    share -= dz
    share *= np.float32(1 / voxel_mm)
    share += np.float32(0.5)
    np.clip(share, 0, 1, out=share)
    share *= strength
    np.maximum(part, share.astype(np.uint8), out=part)


def _paint_branch(coverage: NDArray[np.uint8], branch: Branch, wider_mm: float, grid: Grid) -> None:
    """Draw a tube piece by piece. Tubes below a voxel are scaled by their area."""
    spacing = np.asarray(grid.spacing_mm)
    voxel_mm = float(np.prod(spacing) ** (1 / 3))
    points, radii = grid.to_scan_mm(branch.points_mm), branch.radii_mm + wider_mm
    drawn = np.maximum(radii, 0.5 * voxel_mm)
    strength = 255 * np.minimum((radii / drawn) ** 2, 1)
    margin = (np.maximum(drawn[:-1], drawn[1:]) * max(1, 1 / branch.squash) + voxel_mm)[:, None]
    low, high = np.minimum(points[:-1], points[1:]), np.maximum(points[:-1], points[1:])
    firsts = np.maximum(np.floor((low - margin) / spacing), 0).astype(int)
    lasts = np.minimum(np.ceil((high + margin) / spacing) + 1, grid.shape).astype(int)
    pieces = np.column_stack(
        [np.diff(points, axis=0), drawn[:-1], np.diff(drawn), np.minimum(strength[:-1], strength[1:])]
    ).astype(np.float32)
    squash = branch.squash, grid.rotation @ branch.squash_axis
    for k in np.flatnonzero((firsts < lasts).all(axis=1)):
        first, last, start = firsts[k].tolist(), lasts[k].tolist(), points[k].tolist()
        z, y, x = (
            np.arange(a, b, dtype=np.float32) * np.float32(step) - np.float32(zero)
            for a, b, step, zero in zip(first, last, grid.spacing_mm, start)
        )
        part = coverage[first[0] : last[0], first[1] : last[1], first[2] : last[2]]
        _paint_piece(part, (z[:, None, None], y[None, :, None], x[None, None, :]), pieces[k], squash, voxel_mm)


def paint_tubes(
    coverage: NDArray[np.uint8], branches: list[Branch], grid: Grid, wider_mm: list[float] | float = 0.0
) -> None:
    """Draw branches into ``coverage`` (uint8, 255 = fully inside), each radius enlarged by ``wider_mm``.

    ``coverage`` is changed in place: it becomes the maximum of the old value and the drawn one.
    """
    for index, branch in enumerate(branches):
        _paint_branch(coverage, branch, wider_mm[index] if isinstance(wider_mm, list) else wider_mm, grid)


def mix(hu: Field, value: Field | np.floating | float, coverage: Field) -> None:
    """Replace a share ``coverage`` (0..1) of each voxel of ``hu`` by ``value``, in place."""
    hu += (value - hu) * coverage


def soft(shape_mm: Field, voxel_mm: float) -> Field:
    """Coverage 0..1 of an implicit shape (mm, positive inside) with an edge one voxel wide."""
    return np.clip(shape_mm / np.float32(voxel_mm) + np.float32(0.5), 0, 1)
