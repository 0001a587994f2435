"""The airways of one simulated patient: trachea, main and lobar bronchi by anatomy, the rest grown, and their disease.

Lobes are separated by the patient's fissures: an oblique plane in each lung, a horizontal one in the right.
"""

from dataclasses import dataclass, replace

import numpy as np

from AirwaySegTraining.simulator.growth import Branch, Points, grow, limit_angle, taper, unit, wobbly_line
from AirwaySegTraining.simulator.patient import Patient, fissures, seeds_in

Range = tuple[float, float]


@dataclass(frozen=True)
class Stem:
    """A bronchus known by name: its length in mm, its radius as share of its parent's, its largest angle to it."""

    length_mm: Range
    share: Range
    most_degrees: float


RIGHT_UPPER = Stem((7, 15), (0.62, 0.74), 85)
INTERMEDIATE = Stem((16, 26), (0.8, 0.9), 30)
MIDDLE = Stem((14, 22), (0.5, 0.62), 50)
RIGHT_LOWER = Stem((6, 12), (0.75, 0.88), 30)
LEFT_UPPER = Stem((7, 14), (0.7, 0.82), 75)
LEFT_LOWER = Stem((6, 12), (0.72, 0.84), 35)


def central_airways(patient: Patient, rng: np.random.Generator) -> list[Branch]:
    """Trachea (from the top down), right and left main bronchus."""
    top = np.array([patient.trachea_top_mm, rng.uniform(-32, -8), rng.uniform(-6, 6)])
    line = wobbly_line(top, np.zeros(3), 0.03, rng)
    radii = patient.trachea_radius_mm * (1 + 0.06 * np.sin(np.linspace(0, rng.uniform(3, 9), len(line))))
    airways = [Branch(line, radii, -1, 0, squash=rng.uniform(0.78, 1.3), squash_axis=np.array([0.0, 1.0, 0.0]))]
    for side, length, angle, share in (
        (-1, rng.uniform(16, 26), rng.uniform(22, 38), rng.uniform(0.72, 0.88)),
        (1, rng.uniform(38, 52), rng.uniform(40, 56), rng.uniform(0.64, 0.78)),
    ):
        lean = np.array([-np.cos(np.radians(angle)), rng.uniform(0.05, 0.3), side * np.sin(np.radians(angle))])
        radius_mm = patient.trachea_radius_mm * share
        line = wobbly_line(np.zeros(3), lean / np.linalg.norm(lean) * length, 0.05, rng)
        radii = np.linspace(radius_mm * 1.05, radius_mm * 0.93, len(line))
        airways.append(Branch(line, radii, 0, 1, squash=rng.uniform(0.78, 1.25)))
    return airways


def _lobe_seeds(patient: Patient, side: int, rng: np.random.Generator) -> tuple[Points, Points, Points]:
    """Points that the trees of one lung must serve, in the upper, middle (left: none) and lower lobe."""
    seeds = seeds_in(patient, side, int(rng.uniform(1300, 2300)), rng)
    oblique, horizontal = fissures(patient, seeds[:, 0], seeds[:, 1])
    middle = (oblique > 0) & (horizontal < 0) & (side < 0)
    return seeds[(oblique > 0) & ~middle], seeds[middle], seeds[oblique <= 0]


def _add_stem(tree: list[Branch], parent: int, kind: Stem, seeds_mm: Points, rng: np.random.Generator) -> int:
    """Append a named bronchus from its parent's end towards the seeds, and return its index in the tree."""
    before = tree[parent]
    start, forward = before.points_mm[-1], unit(before.points_mm[-1] - before.points_mm[-3])
    direction = limit_angle(unit(seeds_mm.mean(axis=0) - start), forward, kind.most_degrees)
    line = wobbly_line(start, start + direction * rng.uniform(*kind.length_mm), 0.05, rng)
    radius_mm = float(before.radii_mm[-1]) * rng.uniform(*kind.share)
    radii = taper(len(line), radius_mm * 1.03, radius_mm * 0.95, rng)
    tree.append(Branch(line, radii, parent, before.generation + 1, squash=rng.uniform(0.8, 1.25)))
    return len(tree) - 1


def grow_bronchial_tree(patient: Patient, rng: np.random.Generator, smallest_mm: float = 0.45) -> list[Branch]:
    """Trachea, main and lobar bronchi and all below to a radius of ``smallest_mm``: airways, and where arteries run."""
    tree = central_airways(patient, rng)
    for side, main in ((-1, 1), (1, 2)):
        upper, middle, lower = _lobe_seeds(patient, side, rng)
        lobes = [(main, LEFT_UPPER, upper), (main, LEFT_LOWER, lower)]
        if side < 0:
            stem = _add_stem(tree, main, INTERMEDIATE, np.vstack([middle, lower]), rng)
            lobes = [(main, RIGHT_UPPER, upper), (stem, MIDDLE, middle), (stem, RIGHT_LOWER, lower)]
        for parent, kind, seeds in lobes:
            if len(seeds):
                _add_stem(tree, parent, kind, seeds, rng)
                first = len(tree)
                tree = grow(tree, seeds, smallest_mm, rng)
                for branch in tree[first:]:
                    if branch.generation <= 4:
                        branch.squash = rng.uniform(0.8, 1.25)
    return tree


def open_airways(tree: list[Branch], smallest_mm: float) -> list[Branch]:
    """The part of the tree that is drawn as air: from the trachea down, branches of at least this mean radius."""
    new_index = {-1: -1}
    airways: list[Branch] = []
    for index, branch in enumerate(tree):
        if branch.parent in new_index and float(branch.radii_mm.mean()) >= smallest_mm:
            new_index[index] = len(airways)
            airways.append(replace(branch, parent=new_index[branch.parent]))
    return airways
