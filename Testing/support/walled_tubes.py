"""Drawn CTs of tubes with walls of known thickness, with vessels and other tubes beside them, blurred and noisy.

Points and directions are (z, y, x); points in mm from the middle of the CT.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from AirwaySegLib.files.volume import Volume

AIR_HU, WALL_HU, LUNG_HU, BLOOD_HU = -1000.0, 40.0, -850.0, 50.0
FINE_MM = 0.2
"""The CT is drawn in steps of at most this, blurred, and averaged over its voxels."""


@dataclass(frozen=True)
class Pipe:
    """An endless straight pipe through ``through_mm``; without a wall (thickness 0, full) it is a vessel.

    ``tapering`` is how much radius it loses for each mm along its direction. ``squeezed`` makes the lumen an ellipse
    with semi-axes of the radius times and divided by its root; the wall has the same thickness all around. The usual
    direction is hardly oblique: a pipe that lies exactly along the grid has rows of equal voxels.
    """

    radius_mm: float
    thickness_mm: float
    direction: tuple[float, float, float] = (1.0, 0.1, 0.05)
    through_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    squeezed: float = 1.0
    tapering: float = 0.0

    @property
    def is_vessel(self) -> bool:
        """Whether it is full of blood."""
        return self.thickness_mm == 0


@dataclass(frozen=True)
class Scanner:
    """Voxels and blur of a drawn CT: spacing (z, y, x), standard deviation of the blur (z, y, x), noise in HU."""

    spacing_mm: tuple[float, float, float] = (0.7, 0.7, 0.7)
    blur_mm: tuple[float, float, float] = (0.6, 0.6, 0.6)
    noise_hu: float = 30.0
    size_mm: tuple[float, float, float] = (26.0, 26.0, 26.0)
    seed: int = 0
    lung_hu: float = LUNG_HU
    wall_hu: float = WALL_HU
    tissue_beyond_mm: float = np.inf
    """From this x on there is soft tissue instead of lung."""


def draw_ct(pipes: list[Pipe], scanner: Scanner) -> tuple[Volume, Volume]:
    """The CT, and the mask of all lumens: voxels whose centres lie in one."""
    spacing = np.array(scanner.spacing_mm)
    shape = np.maximum(np.round(np.array(scanner.size_mm) / spacing).astype(int), 4)
    parts = np.ceil(spacing / FINE_MM).astype(int)
    fine = _drawn(pipes, scanner, _grid(shape * parts, spacing / parts))
    fine = gaussian_filter(fine, np.array(scanner.blur_mm) / (spacing / parts), mode="nearest", truncate=5)
    z, y, x = shape
    ct = fine.reshape(z, parts[0], y, parts[1], x, parts[2]).mean(axis=(1, 3, 5))
    noise = gaussian_filter(np.random.default_rng(scanner.seed).normal(size=shape), 0.6)
    ct += noise * (scanner.noise_hu / noise.std())
    centres = _grid(shape, spacing)
    mask = np.zeros(shape, np.uint8)
    for pipe in pipes:
        if not pipe.is_vessel:
            mask[_outside(pipe, centres) <= 0] = 1
    return Volume(np.round(ct).astype(np.int16), scanner.spacing_mm), Volume(mask, scanner.spacing_mm)


def _grid(shape: NDArray, step_mm: NDArray) -> NDArray[np.float32]:
    axes = [(np.arange(count) - (count - 1) / 2) * step for count, step in zip(shape, step_mm, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.float32)


def _drawn(pipes: list[Pipe], scanner: Scanner, points: NDArray) -> NDArray[np.float32]:
    """The CT before blur and noise. Lumens are drawn last, so that two walls that meet become one."""
    ct = np.full(points.shape[:3], scanner.lung_hu, np.float32)
    ct[points[..., 2] > scanner.tissue_beyond_mm] = scanner.wall_hu
    distances = [_outside(pipe, points) for pipe in pipes]
    for pipe, outside in zip(pipes, distances, strict=True):
        ct[outside <= pipe.thickness_mm] = BLOOD_HU if pipe.is_vessel else scanner.wall_hu
    for pipe, outside in zip(pipes, distances, strict=True):
        if not pipe.is_vessel:
            ct[outside <= 0] = AIR_HU
    return ct


def _outside(pipe: Pipe, points: NDArray) -> NDArray[np.float32]:
    """Distance of each point from the pipe's lumen (or blood), negative within."""
    along = np.array(pipe.direction, np.float32) / np.float32(np.linalg.norm(pipe.direction))
    away = points - np.array(pipe.through_mm, np.float32)
    forward = away @ along
    away = away - forward[..., None] * along
    if pipe.squeezed == 1:
        return np.linalg.norm(away, axis=-1) - (pipe.radius_mm - pipe.tapering * forward)
    wide = np.cross(along, np.eye(3, dtype=np.float32)[np.abs(along).argmin()])
    wide /= np.linalg.norm(wide)
    u, v = away @ wide, away @ np.cross(along, wide)
    turns = np.linspace(0, 2 * np.pi, 720)
    a, b = pipe.radius_mm * pipe.squeezed**0.5, pipe.radius_mm / pipe.squeezed**0.5
    rim = cKDTree(np.column_stack([a * np.cos(turns), b * np.sin(turns)]))
    distance = rim.query(np.stack([u, v], axis=-1))[0]
    return np.where((u / a) ** 2 + (v / b) ** 2 <= 1, -distance, distance)
