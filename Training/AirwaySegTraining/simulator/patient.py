"""One simulated patient: the numbers that are drawn once, and the organs as implicit shapes.

An implicit shape is a function of position that is positive inside, about in mm from its surface. Positions are
(z, y, x) arrays in mm in the patient's frame: z to the head, y to the back, x to the patient's left, and the carina at
the origin.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from AirwaySegTraining.simulator.growth import Branch, Inside, Points, companions, grow, total_length_mm, wobbly_line

Field = NDArray[np.float32]


@dataclass(frozen=True)
class Patient:
    """What differs from person to person; lengths in mm, densities in HU."""

    half_width_mm: float
    half_depth_mm: float
    fat_mm: float
    chest_wall_mm: float
    lung_radii_mm: tuple[float, float, float]
    lung_centre_mm: tuple[float, float, float]
    dome_mm: tuple[float, float]
    heart_mm: tuple[float, float, float]
    mediastinum_mm: float
    back_mm: float
    trachea_radius_mm: float
    trachea_top_mm: float
    oblique_mm: float
    horizontal_mm: float
    lumen_hu: float
    wall_hu: float
    wall_share: float
    wall_least_mm: float
    lung_hu: float
    blood_hu: float
    artery_hu: float


def draw_patient(rng: np.random.Generator) -> Patient:
    """A random adult."""
    contrast = rng.uniform(60, 260) if rng.random() < 0.4 else 0.0
    lumen_hu = rng.uniform(-1020, -880)
    half_depth_mm = rng.uniform(98, 135)
    return Patient(
        half_width_mm=rng.uniform(150, 195),
        half_depth_mm=half_depth_mm,
        fat_mm=rng.uniform(4, 24),
        chest_wall_mm=rng.uniform(13, 20),
        lung_radii_mm=(rng.uniform(125, 165), rng.uniform(85, 110), rng.uniform(60, 74)),
        lung_centre_mm=(rng.uniform(-60, -35), rng.uniform(-2, 10), rng.uniform(66, 78)),
        dome_mm=(rng.uniform(-165, -115), rng.uniform(25, 55)),
        heart_mm=(rng.uniform(45, 62), rng.uniform(38, 50), rng.uniform(45, 60)),
        mediastinum_mm=rng.uniform(22, 31),
        back_mm=rng.uniform(48, 62),
        trachea_radius_mm=rng.uniform(7.2, 9.4),
        trachea_top_mm=rng.uniform(95, 135),
        oblique_mm=rng.uniform(-10, 5),
        horizontal_mm=rng.uniform(-35, -10),
        lumen_hu=lumen_hu,
        wall_hu=rng.uniform(-300, 60),
        wall_share=rng.uniform(0.07, 0.17),
        wall_least_mm=rng.uniform(0.35, 0.8),
        lung_hu=max(rng.uniform(-915, -785), lumen_hu + rng.uniform(60, 110)),  # lung is air and some tissue
        blood_hu=rng.uniform(25, 55) + contrast * rng.uniform(0.4, 1.0),
        artery_hu=rng.uniform(25, 55) + contrast,
    )


def wall_thickness_mm(patient: Patient, diameter_mm: float) -> float:
    """Airway wall: a share of the lumen's diameter, at least the patient's own least thickness, at most 2.2 mm."""
    return float(np.clip(patient.wall_share * diameter_mm, patient.wall_least_mm, 2.2))


def ellipsoid(z: Field, y: Field, x: Field, centre: tuple, radii: tuple, power: float = 2.0) -> Field:
    """A (super)ellipsoid, positive inside."""
    value = (
        np.abs((z - centre[0]) / radii[0]) ** power
        + np.abs((y - centre[1]) / radii[1]) ** power
        + np.abs((x - centre[2]) / radii[2]) ** power
    ) ** np.float32(1 / power)
    return ((1 - value) * min(radii)).astype(np.float32)


def body_shape(patient: Patient, z: Field, y: Field, x: Field) -> Field:
    """The skin: a rounded box that narrows to the neck above the shoulders."""
    neck = np.clip((z - 95) / 60, 0, 1)
    neck = neck * neck * (3 - 2 * neck)
    width = patient.half_width_mm * (1 - 0.5 * neck)
    depth = patient.half_depth_mm * (1 - 0.3 * neck)
    value = (np.abs(x / width) ** 2.5 + np.abs((y - 12) / depth) ** 2.5) ** np.float32(0.4)
    return ((1 - value) * np.minimum(width, depth)).astype(np.float32)


def cavity_shape(patient: Patient, body: Field) -> Field:
    """Inside of the rib cage."""
    return body - patient.fat_mm - patient.chest_wall_mm


def heart_shape(patient: Patient, z: Field, y: Field, x: Field) -> Field:
    """The heart, left of the middle and in front."""
    return ellipsoid(z, y, x, (-78, -38, 16), patient.heart_mm)


def spine_shape(patient: Patient, z: Field, y: Field, x: Field) -> Field:
    """The column of vertebral bodies with their processes."""
    body = 17 - np.hypot(y - patient.back_mm - 6, x)
    process = np.minimum(7 - np.abs(x), np.minimum(y - patient.back_mm, patient.back_mm + 48 - y))
    return np.maximum(body, process).astype(np.float32)


def lung_shape(patient: Patient, side: int, z: Field, y: Field, x: Field) -> Field:
    """One lung: side -1 is the patient's right, +1 the left; heart, mediastinum, spine and diaphragm cut it."""
    centre = patient.lung_centre_mm
    lung = ellipsoid(z, y, x, (centre[0], centre[1], side * centre[2]), patient.lung_radii_mm, 2.4)
    across = ((x - side * centre[2]) / 75) ** 2 + ((y - centre[1]) / 105) ** 2
    base, height = patient.dome_mm
    diaphragm = z - (base + height * (1 - across) + (8 if side < 0 else 0))
    lung = np.minimum(lung, diaphragm * 0.9)
    middle = side * x - patient.mediastinum_mm * (0.55 + 0.45 * np.clip((55 - z) / 60, 0, 1))
    lung = np.minimum(lung, middle)
    lung = np.minimum(lung, -heart_shape(patient, z, y, x) - 2)
    lung = np.minimum(lung, -spine_shape(patient, z, y, x) - 6)
    return np.minimum(lung, cavity_shape(patient, body_shape(patient, z, y, x))).astype(np.float32)


def fissures(patient: Patient, z: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
    """Signed distances in mm from the oblique fissure (above: the upper lobe) and the horizontal one (above: upper)."""
    return z * 0.75 - y * 0.66 - patient.oblique_mm, z - patient.horizontal_mm


def inside_lung(patient: Patient, side: int, margin_mm: float, hilum_mm: float = 32.0) -> Inside:
    """Whether points lie in the lung, or in its hilum, where the vessels and bronchi enter."""

    def inside(points_mm: Points) -> NDArray[np.bool_]:
        z, y, x = (points_mm[:, axis].astype(np.float32) for axis in range(3))
        near_hilum = np.linalg.norm(points_mm - np.array([-22.0, 4.0, side * 32.0]), axis=1) < hilum_mm
        return (lung_shape(patient, side, z, y, x) > margin_mm) | near_hilum

    return inside


def seeds_in(patient: Patient, side: int, count: int, rng: np.random.Generator) -> Points:
    """``count`` points spread evenly through one lung."""
    low, high = np.array([-190.0, -120.0, -20.0]), np.array([120.0, 130.0, 160.0])
    candidates = rng.uniform(low, high, size=(60 * count, 3))
    candidates[:, 2] *= side
    candidates = candidates[inside_lung(patient, side, 3.0, hilum_mm=0.0)(candidates)]
    return candidates[:count]


def grow_veins(patient: Patient, rng: np.random.Generator) -> list[Branch]:
    """Pulmonary veins: two trees a lung from the left atrium, not beside the airways."""
    veins: list[Branch] = []
    for side in (-1, 1):
        for height, share in ((-20.0, 0.5), (-50.0, 0.5)):
            start = np.array([-38.0, 8.0, side * 14.0])
            hilum = np.array([height + rng.uniform(-8, 8), rng.uniform(-15, 15), side * rng.uniform(36, 46)])
            line = wobbly_line(start, hilum, 0.05, rng)
            trunk = Branch(line, np.full(len(line), rng.uniform(5, 7)), -1, 0)
            seeds = seeds_in(patient, side, int(rng.uniform(900, 1500) * share * 2), rng)
            seeds = seeds[seeds[:, 0] > -35] if height > -30 else seeds[seeds[:, 0] <= -35]
            if len(seeds) > 8:
                veins += grow([trunk], seeds, inside_lung(patient, side, 1.0), 0.45, rng)
    return veins


def grow_arteries(patient: Patient, tree: list[Branch], rng: np.random.Generator) -> list[Branch]:
    """Arteries beside the whole bronchial tree but the trachea: they go on where airways are too thin to be drawn."""
    arteries = companions(tree, lambda diameter: wall_thickness_mm(patient, diameter), rng)
    return [artery for artery in arteries if artery.generation > 0]


def peripheral_vessels(
    patient: Patient, arteries: list[Branch], rng: np.random.Generator
) -> tuple[list[Branch], list[Branch]]:
    """Thin vessels of the outer lung: twigs from the arteries' ends on, and some that stand for veins.

    The grown trees end where they are thin, real vessels a centimetre from the pleura.
    """
    parents = {artery.parent for artery in arteries}
    ends = np.array([artery.points_mm[-1] for place, artery in enumerate(arteries, start=1) if place not in parents])
    twigs, veins = [], []
    for side in (-1, 1):
        inside = inside_lung(patient, side, 3.0, hilum_mm=0.0)
        goals = seeds_in(patient, side, int(rng.uniform(500, 900)), rng)
        far_mm, nearest = cKDTree(ends).query(goals)
        for goal, start in zip(goals[far_mm < 40], ends[nearest[far_mm < 40]]):
            line = wobbly_line(start, goal, 0.08, rng, step_mm=2.5)
            if inside(line).mean() > 0.8:
                twigs.append(Branch(line, np.linspace(rng.uniform(0.55, 0.95), 0.4, len(line)), -1, 0))
        for start in seeds_in(patient, side, int(rng.uniform(60, 250)), rng):
            away = start - np.array([-22.0, 4.0, side * 32.0])
            way = away / np.linalg.norm(away) + rng.normal(scale=0.4, size=3)
            line = wobbly_line(start, start + way * rng.uniform(8, 25), 0.08, rng, step_mm=2.5)
            if inside(line).all():
                radius_mm = rng.uniform(0.35, 0.95)
                veins.append(Branch(line, np.linspace(radius_mm, 0.6 * radius_mm, len(line)), -1, 0))
    return twigs, veins


def describe(airways: list[Branch]) -> dict[str, float]:
    """Figures to compare with real trees: branches, total centerline in m, deepest generation."""
    return {
        "branches": len(airways),
        "centerline_m": round(total_length_mm(airways) / 1000, 2),
        "generations": max(branch.generation for branch in airways),
    }
