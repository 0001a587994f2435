"""Surroundings of the large bronchi: a sleeve of soft tissue with fat and lymph nodes between bronchus and lung."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from AirwaySegTraining.simulator.growth import Branch, unit, wobbly_line

Field = NDArray[np.floating]

FAR_MM = 20.0
"""Largest distance from the sleeve that is computed."""

CLEAR_RADIUS_MM = 1.8
"""Thinner bronchi run in lung, without a sleeve."""


def sleeve(airways: list[Branch], lattice: tuple[Field, Field, Field], thick: float, rng: np.random.Generator) -> Field:
    """Soft tissue round bronchi of generations 1 to 4: mm, positive inside; the wider the lumen, the deeper.

    It lies off the bronchus's middle, more often towards the mediastinum, so that one side may touch the lung, as
    behind the bronchus intermedius. ``thick`` is 1 for a usual patient.
    """
    middles, reaches = [], []
    for branch in airways:
        if 1 <= branch.generation <= 4:
            depth = (branch.radii_mm - CLEAR_RADIUS_MM) * 5.5 * thick + rng.normal(scale=1.0)
            depth = np.clip(depth, -3, 12)
            kept = depth > 0
            aside = unit(np.array([0.0, 0.0, -1.3 * np.sign(branch.points_mm[-1, 2])]) + rng.normal(size=3))
            middles.append(branch.points_mm[kept] + aside * 0.55 * depth[kept, None])
            reaches.append(branch.radii_mm[kept] + depth[kept])
    field = np.full(lattice[0].shape, -FAR_MM, np.float32)
    points, reach = np.concatenate(middles), np.concatenate(reaches)
    if len(points) == 0:
        return field
    near = np.ones(field.shape, bool)
    for axis, along in enumerate(lattice):
        margin = reach.max() + FAR_MM / 2
        near &= (along > points[:, axis].min() - margin) & (along < points[:, axis].max() + margin)
    # The ball in which a position is deepest: its squared distance less the squared radius is least (a power diagram).
    lifted = np.sqrt(reach.max() ** 2 - reach**2)
    positions = np.stack([along[near] for along in lattice], axis=1)
    nearest = cKDTree(np.column_stack([points, lifted])).query(np.column_stack([positions, np.zeros(len(positions))]))[
        1
    ]
    field[near] = reach[nearest] - np.linalg.norm(positions - points[nearest], axis=1)
    return np.maximum(field, -FAR_MM)


def nodes(airways: list[Branch], rng: np.random.Generator) -> tuple[list[Branch], list[Branch]]:
    """Lymph nodes beside the forks of the large bronchi: soft ones, and calcified ones (in one patient in eight)."""
    forks = [branch for branch in airways if 1 <= branch.generation <= 3]
    soft: list[Branch] = []
    calcified: list[Branch] = []
    chalky = rng.random() < 0.12
    for _ in range(rng.integers(4, 16)):
        branch = forks[rng.integers(len(forks))]
        radius_mm = rng.uniform(2.0, 6.0)
        away = unit(rng.normal(size=3)) * (float(branch.radii_mm[-1]) + 1.5 + radius_mm)
        start = branch.points_mm[rng.integers(len(branch.points_mm))] + away
        line = wobbly_line(start, start + rng.normal(scale=3.0, size=3), 0.1, rng, step_mm=2)
        node = Branch(line, np.full(len(line), radius_mm), -1, 0, squash=rng.uniform(0.7, 1.6))
        (calcified if chalky and rng.random() < 0.4 else soft).append(node)
    return soft, calcified
