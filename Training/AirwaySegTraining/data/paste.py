"""Pastes simulated airways with their arteries into the lungs of real CTs: real noise and texture, exact labels.

A mixture of simulation and real scans: the case's own label is kept, and small trees are drawn where the lung shows
neither airway nor vessel, with the scan's blur and noise, and with the HU of its own tracheal air inside.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter

from AirwaySegLib.chest.preprocessing import body_mask, lung_mask
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.masks.components import Box, distance_to
from AirwaySegLib.progress import Progress
from AirwaySegTraining.data.augmentation import IGNORE
from AirwaySegTraining.data.cases import Case, case_folders, prepared_case
from AirwaySegTraining.simulator.growth import Branch, Points, companions, finer, unit, wobbly_line
from AirwaySegTraining.simulator.rendering import Grid, paint_tubes
from AirwaySegTraining.simulator.scanner import whole_hu
from AirwaySegTraining.simulator.simulate import SimulatedCase, write_case
from AirwaySegTraining.simulator.visibility import AIRWAY, LEFT_OUT, Image, labelled, parts

TREES = 60
"""Number of small trees that are tried in a case."""

TRIES = 20
"""Positions that are tried for each tree."""

CLEAR_MM, DOUBT_MM = 4.0, 1.5
"""Free lung is at least this far from the case's airways and the pleura, and from left-out voxels."""

LEAST_FREE = 0.8
"""Smallest share of a small tree's centerlines in free lung; below 1, because real airways touch vessels too."""

VESSEL_HU = 90
"""Voxels denser than the lung around them by this are taken for vessels."""

SCAN_BLUR = 0.6
"""Standard deviation in voxels of the blur that the tubes get."""


@dataclass(frozen=True)
class Lung:
    """A real lung: HU smoothed over a few mm, free lung (bool), HU of air, noise in HU (SD)."""

    around_hu: NDArray[np.float32]
    free: NDArray[np.bool_]
    air_hu: float
    noise_hu: float


def look_at(case: Case) -> Lung:
    """Measure the lung of a case for pasting.

    Raises
    ------
    AirwaySegError
        If the case has no airway wide enough to measure the HU of air, or no free lung.
    """
    hu, label, spacing_mm = np.asarray(case.ct, np.float32), np.asarray(case.label), case.spacing_mm
    air = hu[binary_erosion(label == 1, iterations=3)]
    if len(air) < 100:
        raise AirwaySegError(f"Case {case.name} has no airway wide enough to measure the HU of its air.")
    lungs = lung_mask(np.asarray(case.ct), body_mask(np.asarray(case.ct), spacing_mm), spacing_mm)
    around = gaussian_filter(np.where(lungs, hu, -850), [2.0 / mm for mm in spacing_mm])
    smooth = gaussian_filter(hu, [0.7 / mm for mm in spacing_mm])
    free = lungs & (smooth - around < VESSEL_HU)
    free &= distance_to(label == 1, spacing_mm) > CLEAR_MM
    free &= distance_to(label == IGNORE, spacing_mm) > DOUBT_MM
    free &= distance_to(~lungs, spacing_mm) > CLEAR_MM
    if np.count_nonzero(free) < 1000:
        raise AirwaySegError(f"Case {case.name} has no free lung to paste airways into.")
    return Lung(around, free, float(np.median(air)), max(3.0, float(air.std())))


def small_tree(start_mm: Points, away: Points, rng: np.random.Generator) -> list[Branch]:
    """A bronchus that forks once or twice: radius 0.8 to 2 mm at its start, lengths of 6 to 14 radii."""
    radius_mm = rng.uniform(0.8, 2.0)
    line = wobbly_line(start_mm, start_mm + away * radius_mm * rng.uniform(6, 14), 0.06, rng)
    tree = [Branch(line, np.linspace(1.05, 0.95, len(line)) * radius_mm, -1, 1)]
    for parent in range(rng.integers(1, 3)):
        before = tree[parent]
        forward = unit(before.points_mm[-1] - before.points_mm[-2])
        side = unit(np.cross(forward, rng.normal(size=3)))
        for sign in (-1, 1):
            angle, share = np.radians(rng.uniform(20, 45)), rng.uniform(0.65, 0.9)
            ahead = np.cos(angle) * forward + sign * np.sin(angle) * side
            radius = float(before.radii_mm[-1]) * share
            line = wobbly_line(
                before.points_mm[-1], before.points_mm[-1] + ahead * radius * rng.uniform(6, 14), 0.06, rng
            )
            tree.append(Branch(line, np.linspace(1.0, 0.9, len(line)) * radius, parent, before.generation + 1))
    return tree


def place_trees(case: Case, lung: Lung, rng: np.random.Generator) -> list[list[Branch]]:
    """Small trees with centerlines in free lung, apart from each other, roughly away from the lungs' middle."""
    spacing = np.asarray(case.spacing_mm)
    voxels = np.argwhere(lung.free)
    middle_mm = voxels.mean(axis=0) * spacing
    free, trees = lung.free.copy(), []
    for _ in range(TREES):
        for _ in range(TRIES):
            start_mm = voxels[rng.integers(len(voxels))] * spacing
            tree = small_tree(start_mm, unit(unit(start_mm - middle_mm) + rng.normal(scale=0.5, size=3)), rng)
            indices = np.rint(np.vstack([branch.points_mm for branch in tree]) / spacing).astype(int)
            if ((indices >= 0) & (indices < free.shape)).all() and free[tuple(indices.T)].mean() > LEAST_FREE:
                trees.append(tree)
                low, high = indices.min(axis=0) - 3, indices.max(axis=0) + 4
                free[tuple(slice(max(0, a), b) for a, b in zip(low, high))] = False
                break
    return trees


def pasted_case(case: Case, lung: Lung, seed: int) -> SimulatedCase:
    """The case with small trees in its lungs (see `look_at`); the same seed gives the same ones."""
    rng = np.random.default_rng(seed)
    trees = place_trees(case, lung, rng)
    label, drawn_hu = np.array(case.label), np.zeros(case.label.shape, np.float32)
    walls_mm = [_draw(tree, case, lung, drawn_hu, rng) for tree in trees]
    blurred_hu = gaussian_filter(drawn_hu, SCAN_BLUR)
    image = Image(lung.around_hu + blurred_hu, case.spacing_mm, 0.0, lung.noise_hu)
    for tree, wall_mm in zip(trees, walls_mm, strict=True):
        _label(tree, wall_mm, image, label)
    hu = np.asarray(case.ct, np.float32) + blurred_hu
    description = {
        "source": f"{len(trees)} simulated airways pasted into {case.name}",
        "patient": case.patient,
        "seed": seed,
        "clean": False,
        "label_values": {"0": "background", "1": "airway", "2": "left out"},
    }
    return SimulatedCase(whole_hu(hu), label, case.spacing_mm, description)


def _draw(tree: list[Branch], case: Case, lung: Lung, change_hu: NDArray, rng: np.random.Generator) -> float:
    """Draw a tree with its arteries into the change of the lung's HU; its walls' thickness in mm."""
    wall_mm, wall_hu = float(rng.uniform(0.4, 0.9)), rng.uniform(-300, 60)
    arteries = companions(tree, lambda _diameter: wall_mm, rng)
    box, grid = _grid_around(arteries + tree, case.label.shape, case.spacing_mm)
    around_hu, drawn_hu = lung.around_hu[box], change_hu[box]
    for branches, wider_mm, value in (
        (arteries, 0.0, rng.uniform(0, 60)),
        (tree, wall_mm, wall_hu),
        (tree, 0.0, lung.air_hu),
    ):
        coverage = np.zeros(grid.shape, np.uint8)
        paint_tubes(coverage, branches, grid, wider_mm)
        drawn_hu += (value - around_hu - drawn_hu) * (coverage / np.float32(255))
    return wall_mm


def _label(tree: list[Branch], wall_mm: float, image: Image, label: NDArray[np.uint8]) -> None:
    """Label what the image shows of a tree; what is airway already stays it."""
    fine = [finer(branch) for branch in tree]
    box, grid = _grid_around(tree, label.shape, image.spacing_mm)
    values = labelled(image, fine, [branch.points_mm for branch in fine], [wall_mm] * len(fine))
    pieces = [piece for branch, value in zip(fine, values, strict=True) for piece in parts(branch, value)]
    for value, least in ((LEFT_OUT, 64), (AIRWAY, 128)):
        coverage = np.zeros(grid.shape, np.uint8)
        paint_tubes(coverage, [branch for one, branch in pieces if one == value], grid)
        label[box][(coverage >= least) & (label[box] != AIRWAY)] = value


def _grid_around(
    branches: list[Branch], shape: tuple[int, ...], spacing_mm: tuple[float, float, float]
) -> tuple[Box, Grid]:
    """The box of voxels of a CT that holds the branches, and its grid."""
    spacing = np.asarray(spacing_mm)
    points = np.vstack([branch.points_mm for branch in branches]) / spacing
    low = np.maximum(np.floor(points.min(axis=0)).astype(int) - 6, 0)
    high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 7, shape)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high))
    depth, height, width = (int(count) for count in high - low)
    first_z, first_y, first_x = (low * spacing).tolist()
    return (z, y, x), Grid((depth, height, width), spacing_mm, (first_z, first_y, first_x), np.eye(3))


def paste(data: Path, output: Path, cases: int, seed: int, progress: Progress) -> list[Path]:
    """Write ``cases`` versions of each case of ``data`` into ``output``/cases/<id>-pasted-<k>; existing ones are kept.

    Raises
    ------
    AirwaySegError
        If a case cannot be used (see `look_at`) or the folder cannot be written.
    """
    folders = case_folders(data)
    targets: list[Path] = []
    for folder in folders:
        mine = [output / "cases" / f"{folder.name}-pasted-{k:02d}" for k in range(cases)]
        todo = [(k, target) for k, target in enumerate(mine) if not (target / "case.json").exists()]
        if todo:
            case = prepared_case(folder)
            lung = look_at(case)
        for k, target in todo:
            progress("paste", len(targets) + k, len(folders) * cases)
            write_case(pasted_case(case, lung, seed + k), target)
        targets += mine
    progress("paste", len(targets), len(targets))
    return targets
