"""Density of the lung of a simulated patient: gravity, texture, and diseases.

Fields are coarse (see `scene.COARSE_MM`): HU of the lung tissue between vessels, and the amplitude of its grain.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from AirwaySegTraining.simulator.growth import Branch, unit, wobbly_line
from AirwaySegTraining.simulator.patient import Patient
from AirwaySegTraining.simulator.rendering import Grid, enlarge, mix, smooth_noise, soft

Field = NDArray[np.floating]
Lattice = tuple[Field, Field, Field]

CALM_HU = 8.0
"""Share of the lung's grain that is left where it is consolidated or destroyed."""


@dataclass
class Density:
    """Coarse fields (Z, Y, X): HU of lung tissue, standard deviation of its grain in HU, where it is airless (0..1)."""

    hu: Field
    grain: Field
    airless: Field

    def fill(self, value: Field | float, coverage: Field, calm: float = 1.0) -> None:
        """Mix in the HU of a disease; ``calm`` is the share of the grain that it removes."""
        mix(self.hu, value, coverage)
        mix(self.grain, CALM_HU, coverage * np.float32(calm))


def patches(grid: Grid, inside: Field, share: float, step_mm: float, rng: np.random.Generator) -> Field:
    """Ragged random blobs that fill about ``share`` of ``inside`` (> 0): a field in mm, positive in the blobs."""
    if share <= 0 or not (inside > 0).any():
        return np.full(inside.shape, -10, np.float32)
    field = enlarge(smooth_noise(grid, step_mm, rng), inside.shape, slice(None))
    field += np.float32(0.3) * enlarge(smooth_noise(grid, max(3.0, step_mm / 4), rng), inside.shape, slice(None))
    level = np.quantile(field[inside > 0], 1 - share)
    return ((field - level) * np.float32(step_mm)).astype(np.float32)


def _texture(grid: Grid, shape: tuple[int, ...], step_mm: float, rng: np.random.Generator) -> Field:
    return enlarge(smooth_noise(grid, step_mm, rng), shape, slice(None))


def healthy(patient: Patient, grid: Grid, lattice: Lattice, rng: np.random.Generator) -> Density:
    """Lung without disease: denser towards the back, lobules and regions of slightly different density."""
    back, shape = lattice[1], lattice[0].shape
    hu = np.float32(patient.lung_hu) + np.float32(patient.gravity_hu) * (back - 10)
    hu += 14 * _texture(grid, shape, 12.0, rng) + 8 * _texture(grid, shape, 5.0, rng)
    grain = np.full(shape, rng.uniform(16, 52), np.float32)
    return Density(hu.astype(np.float32), grain, np.zeros(shape, np.float32))


def add_emphysema(density: Density, grid: Grid, lungs: Field, rng: np.random.Generator) -> None:
    """Holes of destroyed lung, small (centrilobular) or large, in one patient of three."""
    if rng.random() > 0.33:
        return
    step_mm = float(rng.choice([3.5, 5.0, 8.0]))
    holes = patches(grid, lungs, rng.uniform(0.02, 0.35), step_mm, rng)
    density.fill(rng.uniform(-990, -950), np.float32(rng.uniform(0.5, 0.95)) * soft(holes, step_mm / 2), 0.7)


def add_haze(density: Density, grid: Grid, lungs: Field, rng: np.random.Generator) -> None:
    """Ground glass in patches, mosaic attenuation (air trapping), and lung that gravity has thickened at the back."""
    if rng.random() < 0.16:
        hazy = patches(grid, lungs, rng.uniform(0.02, 0.35), rng.uniform(8, 22), rng)
        density.fill(rng.uniform(-750, -450), np.float32(0.8) * soft(hazy, 6), 0.3)
    if rng.random() < 0.08:
        mosaic = patches(grid, lungs, rng.uniform(0.2, 0.6), 12, rng)
        density.hu += np.float32(rng.uniform(40, 110)) * soft(mosaic, 3)


def add_dependent(density: Density, lungs: Field, lattice: Lattice, rough: Field, rng: np.random.Generator) -> None:
    """Dependent atelectasis along the back, in two patients in five: a thin seam in most, wide in few."""
    if rng.random() > 0.4:
        return
    depth_mm, behind_mm = min(14.0, 1.5 + rng.exponential(3)), rng.uniform(35, 70)
    band = np.minimum(depth_mm - lungs + rough * min(2, depth_mm / 3), (lattice[1] - behind_mm) * 0.3)
    density.fill(rng.uniform(-720, -150), np.float32(rng.uniform(0.4, 1.0)) * soft(band, min(6, 1 + depth_mm / 2)))


def add_pneumonia(
    density: Density, grid: Grid, lungs: Field, airways: list[Branch], lattice: Lattice, rng: np.random.Generator
) -> None:
    """Consolidation: in patches anywhere, or of all lung that some bronchi serve; the bronchi stay open in it."""
    airless = np.full(lungs.shape, -10, np.float32)
    if rng.random() < 0.2:
        airless = patches(grid, lungs, rng.uniform(0.01, 0.12), 16, rng)
    rough = _texture(grid, lungs.shape, 12, rng) + np.float32(0.6) * _texture(grid, lungs.shape, 4, rng)
    for _ in range(rng.integers(1, 4) if rng.random() < 0.25 else 0):
        region = served_by_a_bronchus(airways, lattice, rng)
        if region is not None:
            region = region + rng.uniform(4, 9) * rough
            if rng.random() < 0.65:
                airless = np.maximum(airless, region)
            else:
                density.fill(rng.uniform(-700, -350), np.float32(0.9) * soft(region, 8), 0.3)
    coverage = soft(airless, rng.uniform(2, 10))
    density.fill(rng.uniform(0, 45) + 20 * rough, coverage)
    np.maximum(density.airless, coverage, out=density.airless)


def served_by_a_bronchus(airways: list[Branch], lattice: Lattice, rng: np.random.Generator) -> Field | None:
    """The region within 12 to 40 mm of a random central bronchus and its descendants: mm, positive inside."""
    first = [index for index, branch in enumerate(airways) if 2 <= branch.generation <= 5]
    if not first:
        return None
    below = {first[rng.integers(len(first))]}
    for index, branch in enumerate(airways):
        if branch.parent in below:
            below.add(index)
    points = np.concatenate([airways[index].points_mm[::2] for index in below])
    reach_mm = rng.uniform(12, 28)
    if rng.random() < 0.4:  # only its central part, about the hilum
        points, reach_mm = airways[min(below)].points_mm, rng.uniform(15, 40)
    near = np.ones(lattice[0].shape, bool)
    for axis, along in enumerate(lattice):
        near &= (along > points[:, axis].min() - 2 * reach_mm) & (along < points[:, axis].max() + 2 * reach_mm)
    field = np.full(near.shape, -reach_mm, np.float32)
    positions = np.stack([along[near] for along in lattice], axis=1)
    field[near] = reach_mm - cKDTree(points).query(positions, distance_upper_bound=2 * reach_mm)[0].clip(
        0, 2 * reach_mm
    )
    return field


def effusion(lungs: Field, lattice: Lattice, rough: Field, rng: np.random.Generator) -> Field:
    """Distance in mm in front of a fluid level at the back of one side; large (no effusion) in most patients."""
    _, y, x = lattice
    if rng.random() > 0.1 or not (lungs > 0).any():
        return np.full(lungs.shape, 99, np.float32)
    side, level_mm = rng.choice([-1, 1]), rng.uniform(35, 80)
    return np.where(side * x > 0, level_mm - y + rough, np.float32(99)).astype(np.float32)


def bands(airways: list[Branch], rng: np.random.Generator) -> list[Branch]:
    """Plate atelectasis, 2 to 6 mm thick, mostly flat, near the bases; in one patient in four."""
    tips = np.array([branch.points_mm[-1] for branch in airways if branch.generation > 4])
    plates = []
    for _ in range(rng.integers(1, 5) if len(tips) and rng.random() < 0.25 else 0):
        low = tips[tips[:, 0] <= np.quantile(tips[:, 0], 0.5)]
        middle = low[rng.integers(len(low))] + rng.normal(scale=8, size=3)
        across = rng.normal(size=3) * [0.2, 1, 1]
        line = wobbly_line(middle, middle + unit(across) * rng.uniform(10, 45), 0.08, rng, step_mm=3)
        axis = unit(np.array([1.0, 0, 0]) + rng.normal(scale=0.3, size=3))
        radius_mm = rng.uniform(5, 14)
        ratio = radius_mm / rng.uniform(0.8, 2.5)
        plates.append(Branch(line, np.full(len(line), radius_mm), -1, 0, squash=ratio, squash_axis=axis))
    return plates
