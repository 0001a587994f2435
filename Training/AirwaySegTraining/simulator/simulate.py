"""Makes complete simulated cases: a chest CT, its airway label, and a description, written as one folder each.

Label values: 0 background, 1 airway lumen that is visible in the CT, 2 lumen that is drawn but too thin or too faint to
be visible: training and evaluation leave it out.
"""

import json
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from AirwaySegLib import __version__
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.atomic_output import delivered_into
from AirwaySegLib.files.volume import Volume, write_nrrd
from AirwaySegLib.progress import Progress
from AirwaySegTraining.simulator.airway_disease import diseased, secretions, with_gaps, without_some
from AirwaySegTraining.simulator.bronchi import grow_bronchial_tree, open_airways
from AirwaySegTraining.simulator.growth import Branch
from AirwaySegTraining.simulator.patient import Patient, describe, draw_patient
from AirwaySegTraining.simulator.rendering import Grid, paint_tubes
from AirwaySegTraining.simulator.scanner import Scanner, draw_scanner, scan, whole_hu
from AirwaySegTraining.simulator.scene import (
    apply_coverage,
    make_shapes,
    paint_background,
    paint_layers,
    tube_layers,
    wall_mm,
)
from AirwaySegTraining.simulator.slabs import THICK_MM, Slabs, draw_slabs, outside_circle
from AirwaySegTraining.simulator.vessels import grow_arteries, grow_veins, peripheral_vessels
from AirwaySegTraining.workers import WorkerPool

SMALLEST_LUMEN_MM = 0.62
"""Radius of the thinnest airway that is drawn as air."""

CLEAN_NOISE_HU = 25.0
"""A clean case is labelled as if it had this noise; training adds the actual noise."""

LEAST_SEEN_MM = 1.6
"""Thinnest visible lumen: however small the voxels are, a scanner's focus and detectors show no thinner one."""

ROUND_VIEWS = 0.35
"""Share of scans whose field of view is round, with padding outside."""


@dataclass(frozen=True)
class SimulatedCase:
    """``ct`` int16 HU and ``label`` uint8, both (Z, Y, X), with their spacing and a description of the case."""

    ct: NDArray[np.int16]
    label: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    description: dict


def is_visible(
    diameter_mm: float, contrast_hu: float, spacing_mm: tuple[float, float, float], scanner: Scanner
) -> bool:
    """Whether a lumen can be seen: wide enough, and contrast to noise over its cross-section at least 3 (Rose).

    Wide enough is 1.9 voxels and `LEAST_SEEN_MM`. The blur leaves ``1 - exp(-r^2 / 2 s^2)`` of the contrast in the
    middle of a lumen of radius r.
    """
    in_plane_mm = float(np.sqrt(spacing_mm[1] * spacing_mm[2]))
    voxel_mm = min(float(np.prod(spacing_mm) ** (1 / 3)), 1.6 * in_plane_mm)
    blur_mm = max(scanner.blur * voxel_mm, 0.3)
    seen_hu = contrast_hu * (1 - np.exp(-((diameter_mm / 2) ** 2) / (2 * blur_mm**2)))
    voxels = max(1.0, np.pi / 4 * (diameter_mm / voxel_mm) ** 2)
    return diameter_mm >= max(1.9 * voxel_mm, LEAST_SEEN_MM) and seen_hu * np.sqrt(voxels) >= 3 * scanner.noise_hu


@dataclass(frozen=True)
class Machine:
    """One scanner for several patients: its parameters, slices that touch and are so thick, and side of a pixel, mm."""

    scanner: Scanner
    slices_mm: float
    pixel_mm: float


def draw_grid(patient: Patient, rng: np.random.Generator, machine: Machine | None = None) -> tuple[Grid, Slabs]:
    """A random field of view, spacing, slices, and tilt of the patient (up to about 8 degrees).

    One scan in five has slices of 2 to 5 mm: it is drawn on a finer grid, whose slices are averaged by `Slabs`. With a
    ``machine`` the spacing is its own.
    """
    in_plane = rng.uniform(0.58, 0.9)
    slices = rng.uniform(0.5, 1.3) if rng.random() < 0.9 else rng.uniform(1.3, 2.0)
    slabs = draw_slabs(rng) if rng.random() < 0.2 else Slabs()
    if machine is not None:
        in_plane, slabs = machine.pixel_mm, Slabs.touching(machine.slices_mm)
    if slabs.thick_mm:
        slices = slabs.fine_mm
    rotation = _rotation(np.radians(rng.normal(scale=4, size=3)))
    margin = rng.uniform(-18, 12)
    half_x, half_y = patient.half_width_mm + margin, patient.half_depth_mm + margin + 5
    top = patient.trachea_top_mm + rng.uniform(-30, 0)
    bottom = patient.dome_mm[0] - rng.uniform(-15, 25)
    if rng.random() < 0.3:
        half_x, half_y = half_x * 0.9, half_y * 0.92
    spacing = (slices, in_plane, in_plane)
    extent = np.array([top - bottom, 2 * half_y, 2 * half_x])
    depth, height, width = (int(n) for n in extent / spacing)
    return Grid((depth, height, width), spacing, (bottom, 12 - half_y, -half_x), rotation), slabs


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


def surroundings_hu(
    hu: NDArray[np.float32], airways: list[Branch], patient: Patient, grid: Grid, rng: np.random.Generator
) -> list[float]:
    """Median HU a millimetre outside each branch's wall (lung to soft tissue), before its air is drawn."""
    around = []
    top = np.array(grid.shape) - 1
    for branch in airways:
        away = rng.normal(size=(4, len(branch.points_mm), 3))
        away /= np.linalg.norm(away, axis=2, keepdims=True)
        reach = branch.radii_mm + wall_mm(patient, branch) + 1.0
        points = grid.to_scan_mm((branch.points_mm + away * reach[:, None]).reshape(-1, 3))
        voxels = np.clip(np.rint(points / grid.spacing_mm).astype(int), 0, top)
        around.append(float(np.clip(np.median(hu[tuple(voxels.T)]), -1000, 60)))
    return around


def contrast_hu(
    branch: Branch, around_hu: float, patient: Patient, spacing_mm: tuple[float, float, float], scanner: Scanner
) -> float:
    """Difference in HU between a lumen and its surroundings: its wall, as far as the blur leaves it, and the lung.

    A thick slice averages a lumen that runs along it with the walls and the lung above and below: a thin lumen is then
    no darker than the lung.
    """
    wall, diameter = wall_mm(patient, branch), 2 * float(branch.radii_mm.mean())
    along = np.abs(branch.points_mm[-1] - branch.points_mm[0])
    level = float(np.hypot(along[1], along[2])) / max(float(np.linalg.norm(along)), 1e-6)
    passed_mm = max(spacing_mm[0] * level, 1e-6)
    if spacing_mm[0] > THICK_MM and diameter < passed_mm:
        air, tissue = diameter / passed_mm, min(2 * wall / passed_mm, 1 - diameter / passed_mm)
        return air * (around_hu - patient.lumen_hu) - tissue * (patient.wall_hu - around_hu)
    blur_mm = max(0.3, scanner.blur * float(np.sqrt(spacing_mm[1] * spacing_mm[2])))
    left = float(erf(wall / (np.sqrt(8) * blur_mm)))
    return around_hu + left * max(0.0, patient.wall_hu - around_hu) - patient.lumen_hu


def _seen(
    airways: list[Branch], around_hu: list[float], patient: Patient, spacing_mm: tuple, scanner: Scanner
) -> list[bool]:
    """Which branches are visible in the CT. Descendants of a branch that is too thin do not count as visible.

    Behind mucus or a compressed part the lumen does count: a network should find the open lumen there.
    """
    seen: list[bool] = []
    reached: list[bool] = []
    for branch, around in zip(airways, around_hu):
        contrast = contrast_hu(branch, around, patient, spacing_mm, scanner)
        clear = is_visible(2 * float(branch.radii_mm.mean()), contrast, spacing_mm, scanner)
        before = branch.parent < 0 or reached[branch.parent]
        seen.append(before and clear and not branch.plugged)
        reached.append(before and (seen[-1] or branch.plugged or branch.narrowed))
    return seen


def _label(
    airways: list[Branch], seen: list[bool], lumps: list[Branch], grid: Grid, slabs: Slabs
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Coverage by the airways' air (uint8, 255 = inside), and the label (in the scan's slices): mucus is 2.

    ``lumps`` of mucus at the wall of an open lumen are neither airway nor left out.
    """
    visible = np.zeros(grid.shape, np.uint8)
    paint_tubes(visible, [b for b, s in zip(airways, seen) if s], grid)
    hidden = np.zeros(grid.shape, np.uint8)
    paint_tubes(hidden, [b for b, s in zip(airways, seen) if not s and not b.plugged], grid)
    if lumps:
        mucus = np.zeros(grid.shape, np.uint8)
        paint_tubes(mucus, lumps, grid)
        np.minimum(visible, 255 - mucus, out=visible)
        np.minimum(hidden, 255 - mucus, out=hidden)
    air = np.maximum(visible, hidden)
    paint_tubes(hidden, [b for b in airways if b.plugged], grid)
    label = np.zeros(grid.shape, np.uint8)
    label[hidden >= 64] = 2
    label[visible >= 128] = 1
    return air, slabs.label(label)


def simulate_case(seed: int, clean: bool = False, machine: Machine | None = None) -> SimulatedCase:
    """One chest CT with its label; the same seed gives the same case.

    ``clean`` leaves out blur, noise and offset: training adds random ones to each patch. With a
    ``machine`` scanner and spacing are not drawn at random.
    """
    rng = np.random.default_rng(seed)
    patient = draw_patient(rng)
    grid, slabs = draw_grid(patient, rng, machine)
    tree = without_some(grow_bronchial_tree(patient, rng), rng)
    airways = with_gaps(diseased(open_airways(tree, SMALLEST_LUMEN_MM), rng), rng)
    arteries = grow_arteries(patient, tree, rng)
    twigs, small_veins = peripheral_vessels(patient, arteries, rng)
    vessels = arteries + twigs, grow_veins(patient, rng) + small_veins
    hu = paint_background(patient, make_shapes(patient, grid, tree, rng), grid, rng)
    paint_layers(hu, tube_layers(patient, airways, vessels, rng), grid)
    scanner = _clean_scanner() if clean else machine.scanner if machine else draw_scanner(rng)
    spacing_mm = slabs.spacing_mm(grid.spacing_mm)
    around_hu = surroundings_hu(hu, airways, patient, grid, rng)
    slice_mm = max(slabs.thick_mm, spacing_mm[0]), *spacing_mm[1:]
    seen = _seen(airways, around_hu, patient, slice_mm, scanner)
    lumen, label = _label(airways, seen, secretions(airways, rng), grid, slabs)
    apply_coverage(hu, lumen, patient.lumen_hu)
    hu = slabs.mean(hu)
    if rng.random() < ROUND_VIEWS:
        outside_circle(hu, rng)
    if not clean:
        hu = scan(hu, scanner, rng)
    description = {
        "source": f"AirwaySeg simulator {__version__}",
        "seed": seed,
        "clean": clean,
        "label_values": {"0": "background", "1": "airway", "2": "left out: mucus, or too thin or too faint to be seen"},
        "patient": asdict(patient),
        "slices_mm": slabs.thick_mm or spacing_mm[0],
        "scanner": None if clean else scanner.as_dict(),
        "tree": describe(airways),
    }
    return SimulatedCase(whole_hu(hu), label, spacing_mm, description)


def write_case(case: SimulatedCase, folder: Path) -> None:
    """Atomic write of ct.nrrd, label.nrrd and case.json."""
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
        raise AirwaySegError(
            "A worker process ended unexpectedly, probably because it was out of memory; try --workers 1."
        ) from error
    except OSError as error:
        raise AirwaySegError(f"Cannot write simulated cases into {output}: {error}") from error
    return folders
