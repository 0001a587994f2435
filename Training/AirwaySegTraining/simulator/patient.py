"""One simulated patient: the random parameters, and the organs as implicit shapes.

An implicit shape is a function of position that is positive inside, about in mm from its surface. Positions are
(z, y, x) arrays in mm in the patient's frame: z to the head, y to the back, x to the patient's left, and the carina at
the origin.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from AirwaySegTraining.simulator.growth import Branch, Inside, Points, total_length_mm

Field = NDArray[np.floating]


@dataclass(frozen=True)
class Patient:
    """Individual parameters; lengths in mm, densities in HU.

    ``wall_factor``: see `wall_thickness_mm`; ``gravity_hu``: increase of the lung's HU per mm towards the back;
    ``expired``: 0 at full inspiration, 1 at full expiration; ``recess``: the share of the mediastinum's half width that
    is left, on the right and on the left, where lung enters between heart and spine.
    """

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
    wall_factor: float
    lung_hu: float
    gravity_hu: float
    expired: float
    blood_hu: float
    artery_hu: float
    recess: tuple[float, float]


def draw_patient(rng: np.random.Generator) -> Patient:
    """A random adult."""
    contrast = rng.uniform(60, 260) if rng.random() < 0.4 else 0.0
    lumen_hu = rng.uniform(-1024, -905)
    half_depth_mm = rng.uniform(98, 135)
    expired = rng.uniform(0.3, 1.0) if rng.random() < 0.1 else 0.0
    thick_walled = rng.uniform(1.2, 1.7) if rng.random() < 0.15 else 1.0
    inspired_hu = max(rng.uniform(-960, -865), lumen_hu + rng.uniform(20, 80))  # lung is air and some tissue
    return Patient(
        half_width_mm=rng.uniform(150, 195),
        half_depth_mm=half_depth_mm,
        fat_mm=rng.uniform(4, 24),
        chest_wall_mm=rng.uniform(13, 20),
        lung_radii_mm=(rng.uniform(125, 165), rng.uniform(85, 110), rng.uniform(60, 74)),
        lung_centre_mm=(rng.uniform(-60, -35), rng.uniform(-2, 10), rng.uniform(66, 78)),
        dome_mm=(rng.uniform(-165, -115), rng.uniform(25, 55)),
        heart_mm=(rng.uniform(45, 62), rng.uniform(38, 50), rng.uniform(45, 60)),
        mediastinum_mm=rng.uniform(26, 38),
        back_mm=rng.uniform(48, 62),
        trachea_radius_mm=rng.uniform(7.2, 9.4),
        trachea_top_mm=rng.uniform(95, 135),
        oblique_mm=rng.uniform(-10, 5),
        horizontal_mm=rng.uniform(-35, -10),
        lumen_hu=lumen_hu,
        wall_hu=rng.uniform(20, 60),
        wall_factor=rng.uniform(0.0657, 0.1132) * thick_walled,
        lung_hu=min(inspired_hu + 140 * expired, -680),
        gravity_hu=rng.uniform(0.1, 0.6) + rng.uniform(0, 1.2) * expired,
        expired=expired,
        blood_hu=rng.uniform(25, 55) + contrast * rng.uniform(0.4, 1.0),
        artery_hu=rng.uniform(25, 55) + contrast,
        recess=(rng.uniform(0.2, 0.9), rng.uniform(0.4, 1.0)),
    )


def wall_thickness_mm(patient: Patient, diameter_mm: float) -> float:
    """Thickness of the airway wall: increases with the lumen's diameter (about 0.2 mm at 2 mm, 1.9 mm at 16 mm).

    Walls are drawn as tissue, so a thin one fades by the partial-volume effect, as in real scans, to which the exponent
    is fitted (`realism.py`): with 0.95 the walls of thin airways stood out too much.
    """
    return float(np.clip(patient.wall_factor * diameter_mm**1.1, 0.12, 2.5))


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
    apex = 1 - 0.38 * np.clip((z - 15) / 95, 0, 1.2) ** 2  # the lung narrows towards its top
    lung = ellipsoid(z, y / apex, x / apex, (centre[0], centre[1], side * centre[2]), patient.lung_radii_mm, 2.4) * apex
    across = ((x - side * centre[2]) / 75) ** 2 + ((y - centre[1]) / 105) ** 2
    base, height = patient.dome_mm
    diaphragm = z - (base + height * (1 - across) + (8 if side < 0 else 0))
    lung = np.minimum(lung, diaphragm * 0.9)
    deep = np.clip((y + 25) / 60, -1, 1) ** 2  # the mediastinum is widest at the great vessels, not in front or behind
    half_mm = patient.mediastinum_mm * (0.55 + 0.45 * np.clip((55 - z) / 60, 0, 1)) * (1.1 - 0.4 * deep)
    behind = np.clip((y - 14) / 14, 0, 1) * np.clip((15 - z) / 20, 0, 1)  # the heart and the carina
    half_mm *= 1 - behind * (1 - patient.recess[side > 0])  # azygo-oesophageal and pre-aortic recess
    lung = np.minimum(lung, side * x - half_mm)
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


def describe(airways: list[Branch]) -> dict[str, float]:
    """Figures to compare with real trees: branches, total centerline in m, deepest generation."""
    return {
        "branches": len(airways),
        "centerline_m": round(total_length_mm(airways) / 1000, 2),
        "generations": max(branch.generation for branch in airways),
    }
