"""Makes whole simulated cases: a chest CT, its airway label, and a description, written as one folder each.

Label values: 0 background, 1 airway lumen that the picture can show, 2 lumen that is drawn but too thin or too faint
to be seen: training and evaluation leave it out.
"""

import json
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib import __version__
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.atomic_output import delivered_into
from AirwaySegLib.files.volume import Volume, write_nrrd
from AirwaySegLib.progress import Progress
from AirwaySegTraining.simulator.bronchi import diseased, grow_bronchial_tree, open_airways
from AirwaySegTraining.simulator.growth import Branch
from AirwaySegTraining.simulator.patient import (
    Patient,
    describe,
    draw_patient,
    grow_arteries,
    grow_veins,
    peripheral_vessels,
)
from AirwaySegTraining.simulator.rendering import Grid, paint_tubes
from AirwaySegTraining.simulator.scanner import Scanner, draw_scanner, scan, whole_hu
from AirwaySegTraining.simulator.scene import apply_coverage, make_shapes, paint_background, paint_layers, tube_layers
from AirwaySegTraining.workers import WorkerPool

SMALLEST_LUMEN_MM = 0.62
"""Radius of the thinnest airway that is drawn as air."""

CLEAN_NOISE_HU = 25.0
"""A clean case is labelled as if it were scanned with this noise; training adds the real one."""


@dataclass(frozen=True)
class SimulatedCase:
    """``ct`` int16 HU and ``label`` uint8, both (Z, Y, X), with their spacing and what the case is made of."""

    ct: NDArray[np.int16]
    label: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    description: dict


def is_visible(
    diameter_mm: float, contrast_hu: float, spacing_mm: tuple[float, float, float], scanner: Scanner
) -> bool:
    """Whether a lumen can be seen: 1.8 voxels wide, and contrast to noise over its cross-section at least 3 (Rose).

    The blur leaves ``1 - exp(-r^2 / 2 s^2)`` of the contrast in the middle of a lumen of radius r.
    """
    voxel_mm = float(np.prod(spacing_mm) ** (1 / 3))
    blur_mm = max(scanner.blur * voxel_mm, 0.3)
    seen_hu = contrast_hu * (1 - np.exp(-((diameter_mm / 2) ** 2) / (2 * blur_mm**2)))
    voxels = max(1.0, np.pi / 4 * (diameter_mm / voxel_mm) ** 2)
    return diameter_mm >= 1.8 * voxel_mm and seen_hu * np.sqrt(voxels) >= 3 * scanner.noise_hu


def draw_grid(patient: Patient, rng: np.random.Generator) -> Grid:
    """A random field of view, spacing, and tilt of the patient (up to about 8 degrees)."""
    in_plane = rng.uniform(0.58, 0.88)
    slices = rng.uniform(0.5, 1.3) if rng.random() < 0.85 else rng.uniform(1.3, 2.0)
    turn = np.radians(rng.normal(scale=4, size=3))
    rotation = _rotation(turn)
    margin = rng.uniform(-18, 12)
    half_x, half_y = patient.half_width_mm + margin, patient.half_depth_mm + margin + 5
    top = patient.trachea_top_mm + rng.uniform(-30, 0)
    bottom = patient.dome_mm[0] - rng.uniform(-15, 25)
    if rng.random() < 0.3:
        half_x, half_y = half_x * 0.9, half_y * 0.92
    spacing = (slices, in_plane, in_plane)
    extent = np.array([top - bottom, 2 * half_y, 2 * half_x])
    depth, height, width = (int(n) for n in extent / spacing)
    return Grid((depth, height, width), spacing, (bottom, 12 - half_y, -half_x), rotation)


def _rotation(angles: NDArray) -> NDArray[np.float64]:
    """Rotation matrix from small angles about z, y and x."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        one, two = [k for k in range(3) if k != axis]
        step = np.eye(3)
        step[one, one] = step[two, two] = np.cos(angle)
        step[one, two], step[two, one] = -np.sin(angle), np.sin(angle)
        matrix = step @ matrix
    return matrix


def _clean_scanner() -> Scanner:
    return Scanner(0.5, 0.5, 0.0, CLEAN_NOISE_HU, 0.5, 0.0, 0.0, 1.0, None)


def _label(airways: list[Branch], patient: Patient, grid: Grid, scanner: Scanner) -> tuple[NDArray, NDArray]:
    """Coverage by the airways' air (uint8, 255 = inside), and the label; what mucus fills, and all behind, is 2."""
    # Of a thin wall the blur leaves about a third.
    surroundings = patient.lung_hu + 0.3 * (patient.wall_hu - patient.lung_hu)
    contrast = surroundings - patient.lumen_hu
    seen = [
        not b.plugged and is_visible(2 * float(b.radii_mm.mean()), contrast, grid.spacing_mm, scanner) for b in airways
    ]
    for index, branch in enumerate(airways):  # behind an invisible branch nothing counts as seen
        seen[index] = seen[index] and (branch.parent < 0 or seen[branch.parent])
    visible = np.zeros(grid.shape, np.uint8)
    paint_tubes(visible, [b for b, s in zip(airways, seen) if s], grid)
    hidden = np.zeros(grid.shape, np.uint8)
    paint_tubes(hidden, [b for b, s in zip(airways, seen) if not s and not b.plugged], grid)
    air = np.maximum(visible, hidden)
    paint_tubes(hidden, [b for b in airways if b.plugged], grid)
    label = np.where(visible >= 128, 1, np.where(hidden >= 64, 2, 0)).astype(np.uint8)
    return air, label


def simulate_case(seed: int, clean: bool = False) -> SimulatedCase:
    """One chest CT with its label; the same seed gives the same case.

    ``clean`` leaves out blur, noise and offset: training adds others to each patch.
    """
    rng = np.random.default_rng(seed)
    patient = draw_patient(rng)
    grid = draw_grid(patient, rng)
    tree = grow_bronchial_tree(patient, rng)
    airways = diseased(open_airways(tree, SMALLEST_LUMEN_MM), rng)
    arteries = grow_arteries(patient, tree, rng)
    twigs, small_veins = peripheral_vessels(patient, arteries, rng)
    vessels = arteries + twigs, grow_veins(patient, rng) + small_veins
    hu = paint_background(patient, make_shapes(patient, grid, rng), grid, rng)
    paint_layers(hu, tube_layers(patient, airways, vessels, rng), grid)
    scanner = _clean_scanner() if clean else draw_scanner(rng)
    lumen, label = _label(airways, patient, grid, scanner)
    apply_coverage(hu, lumen, patient.lumen_hu)
    if not clean:
        hu = scan(hu, scanner, rng)
    description = {
        "source": f"AirwaySeg simulator {__version__}",
        "seed": seed,
        "clean": clean,
        "label_values": {"0": "background", "1": "airway", "2": "left out: too thin or too faint to be seen"},
        "patient": asdict(patient),
        "scanner": None if clean else scanner.as_dict(),
        "tree": describe(airways),
    }
    return SimulatedCase(whole_hu(hu), label, grid.spacing_mm, description)


def write_case(case: SimulatedCase, folder: Path) -> None:
    """Write ct.nrrd, label.nrrd and case.json; the folder appears only when it is complete."""
    with delivered_into(folder, last="case.json") as unfinished:
        for name, array in (("ct.nrrd", case.ct), ("label.nrrd", case.label)):
            write_nrrd(unfinished / name, array, like=Volume(array, case.spacing_mm))
        (unfinished / "case.json").write_text(json.dumps(case.description, indent=1))


def _simulate_into(folder: Path, seed: int, clean: bool) -> str:
    write_case(simulate_case(seed, clean), folder)
    return folder.name


def simulate(
    output: Path, cases: int, seed: int, progress: Progress, *, clean: bool = False, workers: int = 1
) -> list[Path]:
    """Write ``cases`` simulated cases into ``output``/cases/sim-<seed>-<k>; those already there are kept.

    Raises
    ------
    AirwaySegError
        If the folder cannot be written.
    """
    folders = [output / "cases" / f"sim-{seed}-{k:04d}" for k in range(cases)]
    seeds = np.random.SeedSequence(seed).generate_state(cases)
    todo = [(folder, int(s)) for folder, s in zip(folders, seeds) if not (folder / "case.json").exists()]
    progress("simulate", cases - len(todo), cases)
    try:
        with WorkerPool(workers) as pool:
            jobs = [pool.submit(_simulate_into, folder, case_seed, clean) for folder, case_seed in todo]
            try:
                for done, job in enumerate(as_completed(jobs), start=cases - len(todo) + 1):
                    job.result()
                    progress("simulate", done, cases)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    except BrokenProcessPool as error:
        raise AirwaySegError("A simulation ended at once, probably for want of memory; try --workers 1.") from error
    except OSError as error:
        raise AirwaySegError(f"Cannot write simulated cases into {output}: {error}") from error
    return folders
