"""Vessels of a simulated lung: an artery beside every bronchus, veins between them, and small peripheral vessels."""

from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from AirwaySegTraining.simulator.growth import STRAIGHT, Branch, along_nodes, companions, grow, wobbly_line
from AirwaySegTraining.simulator.patient import Patient, inside_lung, seeds_in, wall_thickness_mm
from AirwaySegTraining.simulator.space_filling import connect

WIDEST_WITH_TWIGS_MM, TWIG_EVERY = 2.5, 5
"""Vessels up to this radius have twigs, at every fifth point of their line (about 1 cm)."""

TWIGS, TWIG_MM = (2500, 5000), (0.26, 0.4)
"""Points of a lung that the twigs of its arteries reach, and those of its veins; radius of a twig at its end."""

FARTHEST_MM = 40.0
"""What is farther from every vessel has no twig."""


def grow_veins(patient: Patient, rng: np.random.Generator) -> list[Branch]:
    """Pulmonary veins: two trees per lung from the left atrium, not beside the airways."""
    veins: list[Branch] = []
    for side in (-1, 1):
        for height, share in ((-20.0, 0.5), (-50.0, 0.5)):
            start = np.array([-38.0, 8.0, side * 14.0])
            hilum = np.array([height + rng.uniform(-8, 8), rng.uniform(-15, 15), side * rng.uniform(36, 46)])
            line = wobbly_line(start, hilum, 0.05, rng)
            trunk = Branch(line, np.full(len(line), rng.uniform(5.5, 8)), -1, 0)
            seeds = seeds_in(patient, side, int(rng.uniform(800, 1500) * share * 2), rng)
            seeds = seeds[seeds[:, 0] > -35] if height > -30 else seeds[seeds[:, 0] <= -35]
            if len(seeds) > 8:
                veins += grow([trunk], seeds, 0.45, rng)
    return veins


def grow_arteries(patient: Patient, tree: list[Branch], rng: np.random.Generator) -> list[Branch]:
    """Arteries beside all bronchi; they continue where airways are too thin to be drawn."""
    arteries = companions(tree, lambda diameter: wall_thickness_mm(patient, diameter), rng)
    return [artery for artery in arteries if artery.generation > 0]


def twigs_of(vessels: list[Branch], patient: Patient, rng: np.random.Generator) -> list[Branch]:
    """The thin vessels between the arteries, or the veins, and the pleura, which the grown trees leave out.

    Twigs fork on their way, and leave along thin vessels as well as from their ends, where they are nearly as wide.
    """
    thin = [vessel for vessel in vessels if float(vessel.radii_mm.mean()) < WIDEST_WITH_TWIGS_MM]
    starts = np.concatenate([vessel.points_mm[:0:-TWIG_EVERY] for vessel in thin])
    twigs: list[Branch] = []
    for side in (-1, 1):
        inside = inside_lung(patient, side, 2.0, hilum_mm=0.0)
        goals = seeds_in(patient, side, int(rng.uniform(*TWIGS)), rng)
        own = starts[starts[:, 2] * side > 0]
        goals = goals[cKDTree(own).query(goals)[0] < FARTHEST_MM]
        nodes = connect(own, goals, STRAIGHT)
        radii_mm = np.minimum(rng.uniform(*TWIG_MM) * nodes.served ** (1 / 3), 1.1)
        grown = along_nodes(nodes, radii_mm, rng)
        twigs += [replace(twig, parent=-1) for twig in grown if inside(twig.points_mm).mean() > 0.8]
    return twigs
