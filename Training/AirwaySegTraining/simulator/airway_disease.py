"""Diseases of a simulated bronchial tree: bronchiectasis, mucus, fluid, collapsed parts, missing branches.

A list of branches stays a tree: each names its parent's index in the list, which comes before it.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from AirwaySegTraining.simulator.growth import POINT_STEP_MM, Branch, Points, finer, unit

GAP_MM = (2.0, 12.0)
"""Length of a part whose lumen is not open."""


def without_some(tree: list[Branch], rng: np.random.Generator) -> list[Branch]:
    """For one patient in six, the tree without up to three segments, as after surgery or as a variant."""
    candidates = [index for index, branch in enumerate(tree) if 3 <= branch.generation <= 5]
    if not candidates or rng.random() > 0.16:
        return tree
    lost = {int(index) for index in rng.choice(candidates, rng.integers(1, 4))}
    index_of: dict[int, int] = {-1: -1}
    kept: list[Branch] = []
    for index, branch in enumerate(tree):
        if index not in lost and branch.parent in index_of:
            index_of[index] = len(kept)
            kept.append(replace(branch, parent=index_of[branch.parent]))
    return kept


def diseased(airways: list[Branch], rng: np.random.Generator) -> list[Branch]:
    """Bronchiectasis in one patient in five, mucus plugs in one in four; the arteries are not changed.

    Bronchiectasis widens all branches behind up to three bronchi by a factor of 1.3 to 1.8 and thickens the walls;
    mucus plugs up to six thin bronchi over their whole length.
    """
    wider, thicker_mm = np.ones(len(airways)), np.zeros(len(airways))
    candidates = [index for index, branch in enumerate(airways) if branch.generation > 3]
    if candidates and rng.random() < 0.2:
        for index in rng.choice(candidates, rng.integers(1, 4)):
            wider[index], thicker_mm[index] = rng.uniform(1.3, 1.8), rng.uniform(0, 0.7)
    for index, branch in enumerate(airways):
        if branch.generation > 0:
            wider[index] = max(wider[index], wider[branch.parent])
            thicker_mm[index] = max(thicker_mm[index], thicker_mm[branch.parent])
    plugged: set[int] = set()
    thin = [index for index in candidates if airways[index].radii_mm.mean() < 2.5]
    if thin and rng.random() < 0.25:
        plugged = {int(index) for index in rng.choice(thin, rng.integers(1, 7))}
    return [
        replace(
            branch,
            radii_mm=branch.radii_mm * wider[index],
            plugged=index in plugged,
            thicker_mm=float(thicker_mm[index]),
        )
        for index, branch in enumerate(airways)
    ]


def filled_in_airless_lung(
    airways: list[Branch], airless: Callable[[Points], NDArray[np.floating]], rng: np.random.Generator
) -> list[Branch]:
    """Where lung is consolidated its wide bronchi stay open, and those below a radius of 0.8 to 1.6 mm are filled.

    A piece is filled or open as a whole, by the lung at its middle. Air behind filled pieces stays airway, however far.
    ``airless`` gives the share of consolidated lung, 0..1, at points (P, 3) in mm in the patient's frame.
    """
    widest_mm = rng.uniform(0.8, 1.6)
    middles_mm = np.array([branch.points_mm[len(branch.points_mm) // 2] for branch in airways])
    filled = (airless(middles_mm) > 0.5) & np.array([branch.radii_mm.mean() < widest_mm for branch in airways])
    return [replace(branch, plugged=True) if full else branch for branch, full in zip(airways, filled, strict=True)]


def with_gaps(airways: list[Branch], rng: np.random.Generator) -> list[Branch]:
    """In half of the patients, parts of 2 to 12 mm are filled with mucus or froth, compressed or collapsed.

    A branch with such a part is split into up to three, one behind the other; the lumen behind it stays open.
    """
    most = max(1, min(12, len(airways) // 12))
    chosen: set[int] = set()
    candidates = [
        index
        for index, branch in enumerate(airways)
        if branch.generation >= 2 and not branch.plugged and length_mm(branch) > 2 * GAP_MM[0]
    ]
    if candidates and rng.random() < 0.5:
        chosen = {int(index) for index in rng.choice(candidates, rng.integers(1, most + 1))}
    index_of: dict[int, int] = {-1: -1}
    result: list[Branch] = []
    for index, branch in enumerate(airways):
        parent = index_of[branch.parent]
        for piece in _gapped(branch, rng) if index in chosen else [branch]:
            result.append(replace(piece, parent=parent))
            parent = len(result) - 1
        index_of[index] = parent
    return result


def length_mm(branch: Branch) -> float:
    """Length of a branch's line."""
    return float(np.linalg.norm(np.diff(branch.points_mm, axis=0), axis=1).sum())


def _gapped(branch: Branch, rng: np.random.Generator) -> list[Branch]:
    """A branch split into consecutive pieces, one of which is not open."""
    fine = finer(branch)
    count = len(fine.points_mm)
    steps = round(float(np.exp(rng.uniform(*np.log(GAP_MM)))) / POINT_STEP_MM)
    steps = min(steps, count - 2)
    first = int(rng.integers(0, count - steps))
    pieces = []
    for low, high in ((0, first), (first, first + steps), (first + steps, count - 1)):
        if high > low:
            part = slice(low, high + 1)
            pieces.append(replace(fine, points_mm=fine.points_mm[part], radii_mm=fine.radii_mm[part]))
    gap = 1 if first > 0 else 0
    pieces[gap] = _closed(pieces[gap], rng)
    return pieces


def _closed(piece: Branch, rng: np.random.Generator) -> Branch:
    """The piece filled with mucus or froth, or compressed to 0 to 60 % of its width in the middle."""
    kind = rng.random()
    if kind < 0.55:
        return replace(piece, plugged=True, froth=kind < 0.2)
    least = rng.uniform(0, 0.6)
    profile = 1 - (1 - least) * np.sin(np.linspace(0, np.pi, len(piece.radii_mm))) ** 0.7
    radii = np.maximum(piece.radii_mm * profile, 0.05)
    lost_mm = float(piece.radii_mm.mean() - radii.mean())
    return replace(piece, radii_mm=radii, narrowed=True, thicker_mm=piece.thicker_mm + lost_mm)


def secretions(airways: list[Branch], rng: np.random.Generator) -> list[Branch]:
    """Mucus on one side of a wide lumen, which leaves the rest of it open; in one patient in three."""
    wide = [branch for branch in airways if branch.generation <= 4 and float(branch.radii_mm.min()) > 1.5]
    lumps = []
    for _ in range(rng.integers(1, 7) if wide and rng.random() < 0.33 else 0):
        branch = wide[rng.integers(len(wide))]
        steps = min(int(rng.integers(2, 8)), len(branch.points_mm) - 1)
        first = int(rng.integers(0, len(branch.points_mm) - steps))
        part = slice(first, first + steps + 1)
        radii = branch.radii_mm[part] * rng.uniform(0.25, 0.6)
        down = unit(np.array([0.0, 1.0, 0.0]) + rng.normal(scale=0.7, size=3))
        points = branch.points_mm[part] + down * (branch.radii_mm[part] - 0.6 * radii)[:, None]
        lumps.append(Branch(points, radii, -1, branch.generation))
    return lumps
