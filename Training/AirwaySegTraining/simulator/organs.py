"""Organs that are drawn as tubes: ribs, great vessels, oesophagus with its gas, nodules and cysts."""

import numpy as np

from AirwaySegTraining.simulator.growth import Branch, Points, unit, wobbly_line
from AirwaySegTraining.simulator.patient import Patient

SQUASH = 1.4
"""Width of the oesophagus relative to its depth."""


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
        position = np.linspace(0, len(corners) - 1, 8 * len(corners))
        points = np.stack([np.interp(position, np.arange(len(corners)), corners[:, a]) for a in range(3)], axis=1)
        tubes.append(Branch(points, np.full(len(points), size), -1, 0))
    return tubes


def oesophagus(patient: Patient, trachea: Branch, rng: np.random.Generator) -> tuple[Branch, list[Branch]]:
    """The oesophagus behind the trachea and beside the left main bronchus, and pockets of gas in or near it.

    Half of the patients have flat irregular pockets, one in eight a long wide one, one in ten an air cyst beside the
    trachea.
    """
    heights = np.linspace(patient.trachea_top_mm, -170, 90)
    y = np.interp(heights, trachea.points_mm[::-1, 0], trachea.points_mm[::-1, 1])
    radius = rng.uniform(5, 8)
    away = patient.trachea_radius_mm + radius / SQUASH + rng.uniform(0.8, 4.0)
    x = np.interp(heights, trachea.points_mm[::-1, 0], trachea.points_mm[::-1, 2])
    x = x + rng.uniform(1, 9) + 4 * np.sin(heights / 60 + rng.uniform(0, 6))
    points = np.stack([heights, np.minimum(y + away, patient.back_mm - 12), x], axis=1)
    tube = Branch(points, np.full(len(points), radius), -1, 0, squash=SQUASH)
    pockets = []
    for _ in range(rng.integers(1, 9) if rng.random() < 0.55 else 0):
        pockets.append(_gas(points, int(rng.integers(3, 12)), rng.uniform(0.8, radius - 2), radius, rng))
    if rng.random() < 0.12:
        pockets.append(_gas(points, int(rng.integers(15, 45)), radius - 1.5, radius, rng))
    if rng.random() < 0.1:
        pockets.append(_air_cyst(trachea, rng))
    return tube, pockets


def _gas(points: Points, count: int, width_mm: float, radius_mm: float, rng: np.random.Generator) -> Branch:
    """A pocket of gas along ``count`` points of an oesophagus of ``radius_mm``."""
    start = rng.integers(0, len(points) - count)
    part = points[start : start + count] + rng.normal(scale=1.2, size=(1, 3))
    part = part + np.cumsum(rng.normal(scale=0.5, size=part.shape), axis=0).clip(-2, 2) * [0, 0.5, 1]
    radii = np.clip(width_mm * (1 + 0.5 * np.sin(np.linspace(0, 9, len(part)))), 0.5, radius_mm - 1)
    return Branch(part, radii, -1, 0, squash=rng.uniform(1.2, 2.5))


def _air_cyst(trachea: Branch, rng: np.random.Generator) -> Branch:
    """A small pocket of air behind the trachea, on the right."""
    index, radius_mm = rng.integers(3, len(trachea.points_mm) - 8), rng.uniform(1.2, 4)
    side = unit(np.array([0.0, 0.7, -0.7]) + rng.normal(scale=0.15, size=3))
    start = trachea.points_mm[index] + side * (float(trachea.radii_mm[index]) * 1.25 + radius_mm + 1.5)
    line = wobbly_line(start, start + np.array([rng.uniform(2, 8), 0, 0]), 0.1, rng)
    return Branch(line, np.full(len(line), radius_mm), -1, 0)


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
