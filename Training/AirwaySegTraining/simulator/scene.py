"""Composes a simulated chest: organs, lungs with disease, bones, gas, then vessels and airways, as clean HU.

Large shapes are computed on a coarse lattice and interpolated slab by slab; tubes are drawn at full resolution.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from AirwaySegTraining.simulator import lung_density
from AirwaySegTraining.simulator.growth import Branch
from AirwaySegTraining.simulator.hilum import nodes, sleeve
from AirwaySegTraining.simulator.lung_density import patches
from AirwaySegTraining.simulator.organs import bones, great_vessels, lung_extras, oesophagus
from AirwaySegTraining.simulator.patient import (
    Patient,
    body_shape,
    cavity_shape,
    ellipsoid,
    fissures,
    heart_shape,
    lung_shape,
    spine_shape,
    wall_thickness_mm,
)
from AirwaySegTraining.simulator.rendering import Field, Grid, enlarge, mix, paint_tubes, smooth_noise, soft

COARSE_MM = 3.0
SLAB = 24
FINE_STEP_MM = 1.2


@dataclass
class Shapes:
    """Coarse implicit shapes (mm, positive inside), signed distances in mm, and the lung's density, of one scene."""

    body: Field
    cavity: Field
    lungs: Field
    heart: Field
    spine: Field
    fat_planes: Field
    oblique: Field
    horizontal: Field
    whole_fissure: Field
    gas_below: Field
    below_back: Field
    density: lung_density.Density


@dataclass(frozen=True)
class Finish:
    """Random parameters of a scene: HU of fat, fissures (width, strength), table (depth, HU), shell, blanket."""

    fat_hu: float
    fissure_mm: float
    fissure_share: float
    table_mm: float
    table_hu: float
    shell_hu: float
    blanket_mm: float
    blanket_hu: float


def draw_finish(rng: np.random.Generator) -> Finish:
    """A random `Finish`; half of the patients have no blanket (width 0)."""
    return Finish(
        fat_hu=rng.uniform(-120, -85),
        fissure_mm=rng.uniform(0.3, 1.0),
        fissure_share=rng.uniform(0.15, 0.8),
        table_mm=rng.uniform(10, 35),
        table_hu=rng.uniform(-960, -850),
        shell_hu=rng.uniform(-500, 200),
        blanket_mm=rng.uniform(3, 12) if rng.random() < 0.5 else 0.0,
        blanket_hu=rng.uniform(-950, -500),
    )


def _gas_below(patient: Patient, lungs: Field, lattice: tuple[Field, Field, Field], rng: np.random.Generator) -> Field:
    """Stomach bubble and bowel gas under the diaphragm, positive inside."""
    z, y, x = lattice
    base = sum(patient.dome_mm) - 30
    gas = np.full(z.shape, -20, np.float32)
    for k in range(rng.integers(0, 5)):
        height, depth = base + rng.uniform(-60, 0), rng.uniform(-60, 10)
        centre = (height, depth, rng.uniform(10, 110) if k < 2 else rng.uniform(-100, 100))
        radii = (rng.uniform(6, 25), rng.uniform(6, 35), rng.uniform(6, 35))
        gas = np.maximum(gas, ellipsoid(z, y, x, centre, radii))
    return np.minimum(gas, -lungs - 6)


def make_shapes(patient: Patient, grid: Grid, airways: list[Branch], rng: np.random.Generator) -> Shapes:
    """All coarse shapes of the scene."""
    lattice = z, y, x = grid.coarse_points(COARSE_MM)

    def rough(step_mm: float) -> Field:
        return enlarge(smooth_noise(grid, step_mm, rng), z.shape, slice(None))

    uneven = rough(14) * rng.uniform(0.5, 2.5)
    body = body_shape(patient, z, y, x) + 0.5 * uneven
    cavity = cavity_shape(patient, body)
    lungs = np.maximum(lung_shape(patient, -1, z, y, x), lung_shape(patient, 1, z, y, x)) + uneven
    around = sleeve(airways, lattice, rng.uniform(0.45, 0.85), rng) + rng.uniform(0.8, 2.5) * rough(7)
    lungs = np.minimum(np.minimum(lungs, cavity), -around)
    fluid = lung_density.effusion(lungs, lattice, uneven, rng)
    density = lung_density.healthy(patient, grid, lattice, rng)
    lung_density.add_emphysema(density, grid, lungs, rng)
    lung_density.add_haze(density, grid, lungs, rng)
    lung_density.add_dependent(density, np.minimum(lungs, fluid), lattice, uneven, rng)
    lung_density.add_pneumonia(density, grid, lungs, airways, lattice, rng)
    density.fill(rng.uniform(10, 40), soft(rng.uniform(4, 18) - fluid, 4))
    bend = rough(25) * 4
    oblique, horizontal = fissures(patient, z, y)
    return Shapes(
        body=body,
        cavity=cavity,
        lungs=np.minimum(lungs, fluid),
        heart=heart_shape(patient, z, y, x) + uneven,
        spine=spine_shape(patient, z, y, x),
        fat_planes=patches(grid, -lungs, rng.uniform(0.1, 0.35), 8, rng),
        oblique=(oblique + bend).astype(np.float32),
        horizontal=np.where((x < 0) & (oblique + bend > 0), horizontal + 0.6 * bend, 99).astype(np.float32),
        whole_fissure=np.clip(0.7 + 0.6 * rough(30), 0, 1),
        gas_below=_gas_below(patient, lungs, lattice, rng),
        below_back=y - 12 - patient.half_depth_mm - rng.uniform(1, 9) + (x / rng.uniform(300, 500)) ** 2 * 300,
        density=density,
    )


View = Callable[[Field], Field]
"""Interpolates a coarse field to the scan's grid, for some of its slices."""


def _soft_tissue(
    patient: Patient, shapes: Shapes, view: View, texture: Field, voxel_mm: float, finish: Finish
) -> Field:
    """All but the lungs: air outside, skin, fat, muscle, mediastinum with fat planes, heart, spine, gas below."""
    body = view(shapes.body)
    below = view(shapes.below_back)
    hu = np.full(body.shape, -1000, np.float32)
    mix(hu, finish.table_hu, soft(finish.table_mm / 2 - np.abs(below - finish.table_mm / 2), voxel_mm))
    for depth_mm in (0.0, finish.table_mm):
        mix(hu, finish.shell_hu, soft(1.0 - np.abs(below - depth_mm), voxel_mm))
    if finish.blanket_mm > 0:
        loose = body + finish.blanket_mm * (1 + np.float32(0.25) * texture)
        mix(hu, finish.blanket_hu, soft(1.0 - np.abs(loose), voxel_mm) * (below < -60))
    mix(hu, 30, soft(body, voxel_mm))
    mix(hu, finish.fat_hu + 8 * texture, soft(body - 2, voxel_mm))
    mix(hu, 48 + 10 * texture, soft(body - patient.fat_mm, voxel_mm))
    inner = soft(view(shapes.cavity) + 4, voxel_mm)
    mix(hu, finish.fat_hu + 12 * texture, soft(view(shapes.fat_planes), 2) * inner)
    mix(hu, np.float32(patient.blood_hu), soft(view(shapes.heart), voxel_mm))
    spine = view(shapes.spine)
    mix(hu, 420, soft(spine, voxel_mm))
    mix(hu, 150 + 60 * texture, soft(spine - 2.2, voxel_mm))
    mix(hu, -960, soft(view(shapes.gas_below), voxel_mm))
    return hu


def _parenchyma(shapes: Shapes, view: View, fine: Field, voxel_mm: float, finish: Finish) -> Field:
    """Lung tissue in HU: density and disease, the grain of the smallest vessels, fissures with gaps in them."""
    hu = view(shapes.density.hu)
    hu += view(shapes.density.grain) * fine
    beside = np.minimum(np.abs(view(shapes.oblique)), np.abs(view(shapes.horizontal)))
    width = max(finish.fissure_mm, voxel_mm)
    line = np.clip(1 - beside / np.float32(width), 0, 1) * view(shapes.whole_fissure)
    mix(hu, -200, np.float32(finish.fissure_share * min(1.0, finish.fissure_mm / voxel_mm)) * line)
    return hu


def paint_background(patient: Patient, shapes: Shapes, grid: Grid, rng: np.random.Generator) -> NDArray[np.float32]:
    """Clean HU (Z, Y, X) of everything but tubes."""
    hu = np.empty(grid.shape, np.float32)
    voxel_mm = float(np.prod(grid.spacing_mm) ** (1 / 3))
    middle, fine = (smooth_noise(grid, step, rng) for step in (4.0, FINE_STEP_MM))
    fine += np.float32(0.35) * (fine * fine - 1)  # bright spots: vessels that are too small to be drawn
    finish = draw_finish(rng)
    for start in range(0, grid.shape[0], SLAB):
        slab = slice(start, min(start + SLAB, grid.shape[0]))

        def view(field: Field, slab: slice = slab) -> Field:
            return enlarge(field, grid.shape, slab)

        hu[slab] = _soft_tissue(patient, shapes, view, view(middle), voxel_mm, finish)
        lung = _parenchyma(shapes, view, view(fine), voxel_mm, finish)
        mix(hu[slab], lung, soft(view(shapes.lungs), voxel_mm))
    return hu


def tube_layers(
    patient: Patient, airways: list[Branch], vessels: tuple[list[Branch], list[Branch]], rng: np.random.Generator
) -> list[tuple[list[Branch], list[float] | float, float]]:
    """Layers drawn over the background, in order: (tubes, widening in mm, HU). The airways' air comes later."""
    arteries, veins = vessels
    gullet, pockets = oesophagus(patient, airways[0], rng)
    nodules, cysts = lung_extras(patient, airways, rng)
    ribs = bones(patient, rng)
    soft_nodes, calcified_nodes = nodes(airways, rng)
    plugged = [branch for branch in airways if branch.plugged]
    return [
        (ribs, 0.0, rng.uniform(350, 700)),
        (ribs, -1.6, rng.uniform(80, 250)),
        (great_vessels(patient, rng), 0.0, patient.artery_hu),
        (cysts, 0.7, -850.0),
        (cysts, 0.0, -985.0),
        (nodules, 0.0, rng.uniform(-300, 60)),
        (lung_density.bands(airways, rng), 0.0, rng.uniform(-300, 40)),
        (soft_nodes, 0.0, rng.uniform(20, 60)),
        (calcified_nodes, 0.0, rng.uniform(200, 700)),
        (veins, 0.0, patient.blood_hu),
        (arteries, 0.0, patient.artery_hu),
        ([gullet], 0.0, rng.uniform(10, 50)),
        (pockets, 0.0, rng.uniform(-1000, -500)),
        (airways, [wall_mm(patient, branch) for branch in airways], patient.wall_hu),
        ([branch for branch in plugged if not branch.froth], 0.0, rng.uniform(-20, 40)),
        ([branch for branch in plugged if branch.froth], 0.0, rng.uniform(-750, -200)),
    ]


def wall_mm(patient: Patient, branch: Branch) -> float:
    """Thickness of a branch's wall."""
    return wall_thickness_mm(patient, 2 * float(branch.radii_mm.mean())) + branch.thicker_mm


def paint_layers(hu: Field, layers: list[tuple[list[Branch], list[float] | float, float]], grid: Grid) -> None:
    """Paint tubes over ``hu`` in place, layer by layer."""
    for branches, wider_mm, value in layers:
        coverage = np.zeros(grid.shape, np.uint8)
        paint_tubes(coverage, branches, grid, wider_mm)
        apply_coverage(hu, coverage, value)


def apply_coverage(hu: Field, coverage: NDArray[np.uint8], value: float) -> None:
    """Mix ``value`` into ``hu`` in place where ``coverage`` (0..255) is not 0."""
    where = np.flatnonzero(coverage)
    flat = hu.reshape(-1)
    share = coverage.reshape(-1)[where].astype(np.float32) / 255
    flat[where] += (np.float32(value) - flat[where]) * share
