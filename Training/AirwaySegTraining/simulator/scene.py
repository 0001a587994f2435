"""Puts a simulated chest together: organs, lungs with disease, bones, gas, then vessels and airways, as clean HU.

Big shapes are made on a coarse lattice and enlarged slab by slab; tubes are painted at full resolution.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from AirwaySegTraining.simulator.growth import Branch, wobbly_line
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
FINE_STEP_MM = 1.6


@dataclass
class Shapes:
    """Coarse implicit shapes (mm, positive inside) and textures (mean 0, SD 1) of one scene."""

    body: Field
    cavity: Field
    lungs: Field
    heart: Field
    spine: Field
    fat_planes: Field
    fissures: Field
    consolidation: Field
    ground_glass: Field
    emphysema: Field
    gas_below: Field
    outside: Field
    back: Field


def patches(grid: Grid, inside: Field, share: float, step_mm: float, rng: np.random.Generator) -> Field:
    """Smooth random blobs that fill about ``share`` of ``inside`` (> 0): a field in mm, positive in the blobs."""
    if share <= 0 or not (inside > 0).any():
        return np.full(inside.shape, -10, np.float32)
    coarse = smooth_noise(grid, step_mm, rng)
    field = enlarge(coarse, inside.shape, slice(None))
    level = np.quantile(field[inside > 0], 1 - share)
    return ((field - level) * np.float32(step_mm)).astype(np.float32)


def _fissures(patient: Patient, grid: Grid, lattice: tuple[Field, Field, Field], rng: np.random.Generator) -> Field:
    """Distance in mm from the lobes' borders: an oblique surface in each lung and a horizontal one in the right."""
    z, y, x = lattice
    bend = enlarge(smooth_noise(grid, 25, rng), z.shape, slice(None)) * 4
    oblique, horizontal = fissures(patient, z, y)
    across = np.where((x < 0) & (oblique > 0), np.abs(horizontal + bend * 0.6), 99)
    return np.minimum(np.abs(oblique + bend), across).astype(np.float32)


def _gas_below(patient: Patient, lungs: Field, z: Field, y: Field, x: Field, rng: np.random.Generator) -> Field:
    """Stomach bubble and bowel gas under the diaphragm, positive inside."""
    base = sum(patient.dome_mm) - 30
    gas = np.full(z.shape, -20, np.float32)
    for k in range(rng.integers(0, 5)):
        height, depth = base + rng.uniform(-60, 0), rng.uniform(-60, 10)
        centre = (height, depth, rng.uniform(10, 110) if k < 2 else rng.uniform(-100, 100))
        radii = (rng.uniform(6, 25), rng.uniform(6, 35), rng.uniform(6, 35))
        gas = np.maximum(gas, ellipsoid(z, y, x, centre, radii))
    return np.minimum(gas, -lungs - 6)


def _outside(
    patient: Patient, body: Field, folds: Field, lattice: tuple[Field, Field, Field], rng: np.random.Generator
) -> Field:
    """Density outside the body: air, a curved table below the back, a loose blanket in ``folds``. HU."""
    z, y, x = lattice
    below = y - 12 - patient.half_depth_mm - rng.uniform(1, 9) + (x / rng.uniform(300, 500)) ** 2 * 300
    hu = np.full(z.shape, -1000, np.float32)
    thick = rng.uniform(10, 35)
    hu = np.where((below > 0) & (below < thick), rng.uniform(-960, -850), hu)
    hu = np.where((np.abs(below) < 2.2) | (np.abs(below - thick) < 2.2), rng.uniform(-500, 200), hu)
    if rng.random() < 0.5:
        gap = rng.uniform(3, 12) + rng.uniform(0, 4) * folds
        hu = np.where((np.abs(body + gap) < 2.0) & (y < 60), rng.uniform(-900, -350), hu)
    return hu.astype(np.float32)


def make_shapes(patient: Patient, grid: Grid, rng: np.random.Generator) -> Shapes:
    """All coarse shapes of the scene."""
    z, y, x = grid.coarse_points(COARSE_MM)
    rough = enlarge(smooth_noise(grid, 14, rng), z.shape, slice(None)) * rng.uniform(0.5, 2.5)
    body = body_shape(patient, z, y, x) + 0.5 * rough
    lungs = np.maximum(lung_shape(patient, -1, z, y, x), lung_shape(patient, 1, z, y, x)) + rough
    cavity = cavity_shape(patient, body)
    consolidated = rng.uniform(0.01, 0.12) if rng.random() < 0.3 else 0.0
    hazy = rng.uniform(0.02, 0.3) if rng.random() < 0.35 else 0.0
    destroyed = rng.uniform(0.02, 0.3) if rng.random() < 0.3 else 0.0
    return Shapes(
        body=body,
        cavity=cavity,
        lungs=np.minimum(lungs, cavity),
        heart=heart_shape(patient, z, y, x) + rough,
        spine=spine_shape(patient, z, y, x),
        fat_planes=patches(grid, -lungs, rng.uniform(0.1, 0.35), 8, rng),
        fissures=_fissures(patient, grid, (z, y, x), rng),
        consolidation=patches(grid, lungs, consolidated, 16, rng),
        ground_glass=patches(grid, lungs, hazy, 22, rng),
        emphysema=patches(grid, lungs, destroyed, rng.choice([4.0, 8.0]), rng),
        gas_below=_gas_below(patient, lungs, z, y, x, rng),
        outside=_outside(patient, body, rough, (z, y, x), rng),
        back=y,
    )


View = Callable[[Field], Field]
"""Gives a coarse field as finely as the scan, for a few of its slices."""


def _soft_tissue(patient: Patient, shapes: Shapes, view: View, texture: Field, voxel_mm: float, fat_hu: float) -> Field:
    """All but the lungs: air outside, skin, fat, muscle, mediastinum with fat planes, heart, spine, gas below."""
    body = view(shapes.body)
    hu = view(shapes.outside).copy()
    mix(hu, 30, soft(body, voxel_mm))
    mix(hu, fat_hu + 8 * texture, soft(body - 2, voxel_mm))
    mix(hu, 48 + 10 * texture, soft(body - patient.fat_mm, voxel_mm))
    inner = soft(view(shapes.cavity) + 4, voxel_mm)
    mix(hu, fat_hu + 12 * texture, soft(view(shapes.fat_planes), 2) * inner)
    mix(hu, np.float32(patient.blood_hu), soft(view(shapes.heart), voxel_mm))
    spine = view(shapes.spine)
    mix(hu, 420, soft(spine, voxel_mm))
    mix(hu, 150 + 60 * texture, soft(spine - 2.2, voxel_mm))
    mix(hu, -960, soft(view(shapes.gas_below), voxel_mm))
    return hu


def _parenchyma(
    patient: Patient, shapes: Shapes, view: View, textures: tuple[Field, Field, Field], settings: dict
) -> Field:
    """Lung tissue in HU: density gradient to the back, textures at three scales, fissures and disease."""
    broad, middle, fine = textures
    hu = patient.lung_hu + settings["gradient"] * view(shapes.back)
    hu += 14 * broad + 10 * middle + settings["grain"] * fine
    mix(hu, -965 + 8 * fine, np.float32(0.85) * soft(view(shapes.emphysema), 3))
    mix(hu, -620 + 60 * middle, np.float32(0.8) * soft(view(shapes.ground_glass), 6))
    mix(hu, -650, np.float32(settings["fissure"]) * soft(0.7 - view(shapes.fissures), 1.2))
    mix(hu, 25 + 25 * middle, soft(view(shapes.consolidation), 3))
    return hu


def paint_background(patient: Patient, shapes: Shapes, grid: Grid, rng: np.random.Generator) -> NDArray[np.float32]:
    """Clean HU (Z, Y, X) of everything but tubes."""
    hu = np.empty(grid.shape, np.float32)
    voxel_mm = float(np.mean(grid.spacing_mm))
    coarse_textures = [smooth_noise(grid, step, rng) for step in (10.0, 4.0, FINE_STEP_MM)]
    settings = {
        "gradient": rng.uniform(0.1, 0.8),
        "grain": rng.uniform(8, 40),
        "fissure": rng.uniform(0.2, 0.9),
    }
    fat_hu = rng.uniform(-120, -85)
    for start in range(0, grid.shape[0], SLAB):
        slab = slice(start, min(start + SLAB, grid.shape[0]))

        def view(field: Field, slab: slice = slab) -> Field:
            return enlarge(field, grid.shape, slab)

        broad, middle, fine = (view(texture) for texture in coarse_textures)
        hu[slab] = _soft_tissue(patient, shapes, view, middle, voxel_mm, fat_hu)
        lung = _parenchyma(patient, shapes, view, (broad, middle, fine), settings)
        mix(hu[slab], lung, soft(view(shapes.lungs), voxel_mm))
    return hu


def bones(patient: Patient, rng: np.random.Generator) -> list[Branch]:
    """Ribs and collar bones as tubes around the rib cage, and the sternum."""
    tubes = []
    inner = patient.fat_mm + patient.chest_wall_mm - 7
    wide, deep = patient.half_width_mm - inner, patient.half_depth_mm - inner
    drop, spacing = rng.uniform(25, 60), rng.uniform(20, 27)
    for level in np.arange(105, -185, -spacing):
        shrink = 1 - 0.35 * float(np.clip((level - 40) / 90, 0, 1))
        for side in (-1, 1):
            angle = np.linspace(0.08 * np.pi, 0.86 * np.pi, 40)
            x = side * np.sin(angle) ** 0.8 * wide * shrink
            y = 12 + np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.8 * deep * shrink
            z = level - drop * (angle / np.pi) + 4 * np.sin(3 * angle)
            points = np.stack([z, y, x], axis=1)
            tubes.append(Branch(points, np.full(40, rng.uniform(3.5, 5.5)), -1, 0))
    front = 12 - deep
    sternum = np.stack([np.linspace(50, -80, 30), np.full(30, front), np.zeros(30)], axis=1)
    tubes.append(Branch(sternum, np.full(30, rng.uniform(6, 9)), -1, 0))
    return tubes


def great_vessels(patient: Patient, rng: np.random.Generator) -> list[Branch]:
    """Aorta with its arch, superior vena cava, pulmonary trunk with its two main arteries."""
    radius = rng.uniform(11, 16)
    back = patient.back_mm - rng.uniform(2, 12)
    arch = np.array([(-60, -32, 2), (-10, -40, -14), (22, -30, -10), (34, -8, 8), (24, 22, 16), (-10, back, 20)], float)
    arch = np.vstack([arch, [(-90, back, 18), (-200, back, 8)]])
    cava = np.array([(120, -22, -22), (30, -24, -24), (-45, -20, -26)], float)
    trunk = np.array([(-55, -48, 14), (-25, -35, 16), (-14, -12, 4), (-18, -6, -30)], float)
    left = np.array([(-25, -35, 16), (-8, -6, 26), (-12, 8, 40)], float)
    sizes = (radius, rng.uniform(7, 10), rng.uniform(10, 14), rng.uniform(8, 11))
    tubes = []
    for corners, size in zip((arch, cava, trunk, left), sizes):
        place = np.linspace(0, len(corners) - 1, 8 * len(corners))
        points = np.stack([np.interp(place, np.arange(len(corners)), corners[:, a]) for a in range(3)], axis=1)
        tubes.append(Branch(points, np.full(len(points), size), -1, 0))
    return tubes


def oesophagus(patient: Patient, trachea: Branch, rng: np.random.Generator) -> tuple[Branch, list[Branch]]:
    """The oesophagus behind the trachea, and flat irregular pockets of gas in it (half of the patients have some)."""
    heights = np.linspace(patient.trachea_top_mm, -170, 90)
    y = np.interp(heights, trachea.points_mm[::-1, 0], trachea.points_mm[::-1, 1])
    radius = rng.uniform(5, 8)
    away = patient.trachea_radius_mm + 2 + radius + rng.uniform(-1, 3)
    x = np.interp(heights, trachea.points_mm[::-1, 0], trachea.points_mm[::-1, 2])
    x = x + 4 + 4 * np.sin(heights / 60 + rng.uniform(0, 6))
    points = np.stack([heights, np.minimum(y + away, patient.back_mm - 12), x], axis=1)
    tube = Branch(points, np.full(len(points), radius), -1, 0, squash=1.4)
    pockets = []
    for _ in range(rng.integers(1, 9) if rng.random() < 0.55 else 0):
        start = rng.integers(0, 80)
        part = points[start : start + rng.integers(3, 12)] + rng.normal(scale=1.2, size=(1, 3))
        part = part + np.cumsum(rng.normal(scale=0.5, size=part.shape), axis=0) * [0, 0.5, 1]
        waves = 1 + 0.5 * np.sin(np.linspace(0, 9, len(part)))
        radii = np.clip(rng.uniform(0.8, radius - 2) * waves, 0.5, radius - 1)
        pockets.append(Branch(part, radii, -1, 0, squash=rng.uniform(1.2, 2.5)))
    return tube, pockets


def lung_extras(patient: Patient, airways: list[Branch], rng: np.random.Generator) -> tuple[list[Branch], list[Branch]]:
    """Nodules (dense) and cysts (air) as single balls or short lumps in the lung; one in eight has large bullae."""
    largest_mm = 16.0 if rng.random() < 0.12 else 7.0
    tips = np.array([branch.points_mm[-1] for branch in airways if branch.generation > 4])
    nodules: list[Branch] = []
    cysts: list[Branch] = []
    if len(tips) == 0:
        return nodules, cysts
    for kind, most in ((nodules, 8), (cysts, 14)):
        for _ in range(rng.integers(0, most) if rng.random() < 0.4 else 0):
            centre = tips[rng.integers(len(tips))] + rng.normal(scale=12, size=3)
            line = wobbly_line(centre, centre + rng.normal(scale=3, size=3), 0.2, rng, step_mm=2)
            radius_mm = rng.uniform(1.2, largest_mm if kind is cysts else 7.0)
            kind.append(Branch(line, np.full(len(line), radius_mm), -1, 0))
    return nodules, cysts


def tube_layers(
    patient: Patient, airways: list[Branch], vessels: tuple[list[Branch], list[Branch]], rng: np.random.Generator
) -> list[tuple[list[Branch], list[float] | float, float]]:
    """What is painted over the background, in order: (tubes, widening in mm, HU). The airways' air comes later."""
    arteries, veins = vessels
    gullet, pockets = oesophagus(patient, airways[0], rng)
    nodules, cysts = lung_extras(patient, airways, rng)
    ribs = bones(patient, rng)
    walls = [wall_thickness_mm(patient, 2 * float(branch.radii_mm.mean())) for branch in airways]
    return [
        (ribs, 0.0, rng.uniform(350, 700)),
        (ribs, -1.6, rng.uniform(80, 250)),
        (great_vessels(patient, rng), 0.0, patient.artery_hu),
        (cysts, 0.7, -850.0),
        (cysts, 0.0, -985.0),
        (nodules, 0.0, rng.uniform(-300, 60)),
        (veins, 0.0, patient.blood_hu),
        (arteries, 0.0, patient.artery_hu),
        ([gullet], 0.0, rng.uniform(10, 50)),
        (pockets, 0.0, rng.uniform(-1000, -500)),
        (airways, walls, patient.wall_hu),
        ([branch for branch in airways if branch.plugged], 0.0, rng.uniform(-20, 40)),
    ]


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
