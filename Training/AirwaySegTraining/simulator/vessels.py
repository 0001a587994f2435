"""Vessels of a simulated lung: an artery beside every bronchus, veins between them, and small peripheral vessels."""

import numpy as np
from scipy.spatial import cKDTree

from AirwaySegTraining.simulator.growth import Branch, companions, grow, wobbly_line
from AirwaySegTraining.simulator.patient import Patient, inside_lung, seeds_in, wall_thickness_mm


def grow_veins(patient: Patient, rng: np.random.Generator) -> list[Branch]:
    """Pulmonary veins: two trees per lung from the left atrium, not beside the airways."""
    veins: list[Branch] = []
    for side in (-1, 1):
        for height, share in ((-20.0, 0.5), (-50.0, 0.5)):
            start = np.array([-38.0, 8.0, side * 14.0])
            hilum = np.array([height + rng.uniform(-8, 8), rng.uniform(-15, 15), side * rng.uniform(36, 46)])
            line = wobbly_line(start, hilum, 0.05, rng)
            trunk = Branch(line, np.full(len(line), rng.uniform(5.5, 8)), -1, 0)
            seeds = seeds_in(patient, side, int(rng.uniform(1200, 1900) * share * 2), rng)
            seeds = seeds[seeds[:, 0] > -35] if height > -30 else seeds[seeds[:, 0] <= -35]
            if len(seeds) > 8:
                veins += grow([trunk], seeds, inside_lung(patient, side, 1.0), 0.45, rng)
    return veins


def grow_arteries(patient: Patient, tree: list[Branch], rng: np.random.Generator) -> list[Branch]:
    """Arteries beside all bronchi; they continue where airways are too thin to be drawn."""
    arteries = companions(tree, lambda diameter: wall_thickness_mm(patient, diameter), rng)
    return [artery for artery in arteries if artery.generation > 0]


def peripheral_vessels(
    patient: Patient, arteries: list[Branch], rng: np.random.Generator
) -> tuple[list[Branch], list[Branch]]:
    """Thin vessels of the outer lung: from the ends of the arteries, and some that represent veins.

    The grown trees end earlier, real vessels end about 1 cm from the pleura.
    """
    parents = {artery.parent for artery in arteries}
    ends = np.array([artery.points_mm[-1] for index, artery in enumerate(arteries, start=1) if index not in parents])
    twigs, veins = [], []
    for side in (-1, 1):
        inside = inside_lung(patient, side, 3.0, hilum_mm=0.0)
        goals = seeds_in(patient, side, int(rng.uniform(900, 1600)), rng)
        far_mm, nearest = cKDTree(ends).query(goals)
        for goal, start in zip(goals[far_mm < 40], ends[nearest[far_mm < 40]]):
            line = wobbly_line(start, goal, 0.08, rng, step_mm=4)
            if inside(line).mean() > 0.8:
                twigs.append(Branch(line, np.linspace(rng.uniform(0.5, 1.0), 0.35, len(line)), -1, 0))
        for start in seeds_in(patient, side, int(rng.uniform(120, 400)), rng):
            away = start - np.array([-22.0, 4.0, side * 32.0])
            way = away / np.linalg.norm(away) + rng.normal(scale=0.4, size=3)
            line = wobbly_line(start, start + way * rng.uniform(8, 25), 0.08, rng, step_mm=4)
            if inside(line).all():
                radius_mm = rng.uniform(0.45, 1.1)
                veins.append(Branch(line, np.linspace(radius_mm, 0.6 * radius_mm, len(line)), -1, 0))
    return twigs, veins
