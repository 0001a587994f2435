"""Makes complete simulated cases: a chest CT, its airway label, and a description, written as one folder each.

Label values: 0 background, 1 airway lumen that is visible in the CT, 2 lumen that is drawn but faint, or filled with
mucus: training and evaluation leave it out. Lumen of which the CT shows nothing at all is 0.
"""

import json
from collections.abc import Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from AirwaySegLib import __version__
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.atomic_output import delivered_into
from AirwaySegLib.files.volume import Volume, write_nrrd
from AirwaySegLib.progress import Progress
from AirwaySegTraining.simulator.airway_disease import (
    diseased,
    filled_in_airless_lung,
    secretions,
    with_gaps,
    without_some,
)
from AirwaySegTraining.simulator.bronchi import grow_bronchial_tree, open_airways
from AirwaySegTraining.simulator.growth import Branch, finer
from AirwaySegTraining.simulator.patient import Patient, describe, draw_patient
from AirwaySegTraining.simulator.rendering import Grid, paint_tubes
from AirwaySegTraining.simulator.scanner import NOISE_LIMIT, THIN_MM, Scanner, draw_scanner, scan, thin_share, whole_hu
from AirwaySegTraining.simulator.scene import (
    apply_coverage,
    make_shapes,
    paint_background,
    paint_layers,
    tube_layers,
    wall_mm,
)
from AirwaySegTraining.simulator.slabs import Slabs, draw_slabs, outside_circle
from AirwaySegTraining.simulator.vessels import grow_arteries, grow_veins, twigs_of
from AirwaySegTraining.simulator.visibility import AIRWAY, LEFT_OUT, Image, labelled_at, parts
from AirwaySegTraining.workers import WorkerPool

SMALLEST_LUMEN_MM = 0.62
"""Radius of the thinnest airway that is drawn as air."""

CLEAN_BLUR = 0.6
"""A clean case is labelled as if it had this blur in voxels; training adds the actual one."""

NOISES_HU = (36.0, 47.0, 60.0, 75.0)
"""A clean case is labelled for the first of these noises; of the others is kept which parts of its label they hide. At
the first, and at every smaller one, what has `visibility.CONTRAST_HU` is seen; the last is the largest that training
adds."""

ROUND_VIEWS = 0.35
"""Share of scans whose field of view is round, with padding outside."""


@dataclass(frozen=True)
class SimulatedCase:
    """``ct`` int16 HU and ``label`` uint8, both (Z, Y, X), with their spacing and a description of the case.

    A clean case has a ``noise_limit``, too (uint8, Z, Y, X; see `NOISE_LIMIT`).
    """

    ct: NDArray[np.int16]
    label: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    description: dict
    noise_limit: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Machine:
    """One scanner for several patients: its parameters, slices that touch and are so thick, and side of a pixel, mm."""

    scanner: Scanner
    slices_mm: float
    pixel_mm: float


def draw_grid(patient: Patient, rng: np.random.Generator, machine: Machine | None = None) -> tuple[Grid, Slabs]:
    """A random field of view, spacing, slices, and tilt of the patient (up to about 8 degrees).

    One scan in five has slices of 2 to 5 mm. What is thicker than `THIN_MM` is drawn on a finer grid, whose slices are
    averaged by `Slabs`. With a
    ``machine`` the spacing is its own.
    """
    in_plane = rng.uniform(0.58, 0.9)
    slices = rng.uniform(0.5, THIN_MM) if rng.random() < 0.9 else rng.uniform(THIN_MM, 2.0)
    slabs = Slabs.touching(slices) if slices > THIN_MM else Slabs()
    slabs = draw_slabs(rng) if rng.random() < 0.2 else slabs
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


def _clean_scanner(slices_mm: float) -> Scanner:
    return Scanner(CLEAN_BLUR, CLEAN_BLUR * thin_share(slices_mm), 0.0, 0.0, 0.5, 0.0, 0.0, 1.0, None)


def _air(airways: list[Branch], lumps: list[Branch], grid: Grid) -> NDArray[np.uint8]:
    """Coverage by the airways' air (uint8, 255 = inside); ``lumps`` of mucus at the wall of an open lumen hold none."""
    air = np.zeros(grid.shape, np.uint8)
    paint_tubes(air, [branch for branch in airways if not branch.plugged], grid)
    if lumps:
        mucus = np.zeros(grid.shape, np.uint8)
        paint_tubes(mucus, lumps, grid)
        np.minimum(air, 255 - mucus, out=air)
    return air


def _label(parts_of: list[tuple[int, Branch]], air: NDArray[np.uint8], grid: Grid, slabs: Slabs) -> NDArray[np.uint8]:
    """The label in the scan's slices, of the tree's parts with their labels (see `visibility.parts`).

    Mucus in a lumen is left out; mucus at the wall of an open one is not airway, and not left out.
    """
    airway, left_out = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8)
    paint_tubes(airway, [branch for value, branch in parts_of if value == AIRWAY], grid)
    paint_tubes(left_out, [branch for value, branch in parts_of if value == LEFT_OUT and not branch.plugged], grid)
    np.minimum(airway, air, out=airway)
    np.minimum(left_out, air, out=left_out)
    paint_tubes(left_out, [branch for _, branch in parts_of if branch.plugged], grid)
    label = np.zeros(grid.shape, np.uint8)
    label[left_out >= 64] = LEFT_OUT
    label[airway >= 128] = AIRWAY
    return slabs.label(label)


def _labelled_parts(
    hu: NDArray[np.float32],
    airways: list[Branch],
    patient: Patient,
    grid: Grid,
    slabs: Slabs,
    scanner: Scanner,
    noises_hu: Sequence[float],
) -> list[list[tuple[int, Branch]]]:
    """The tree's parts and what they are in this scan at each noise; ``hu`` is the clean image in the scan's slices."""
    blurred = gaussian_filter(hu, (scanner.blur_z, scanner.blur, scanner.blur), truncate=3)
    image = Image(blurred, slabs.spacing_mm(grid.spacing_mm), slabs.first_mm(grid.spacing_mm[0]))
    fine = [finer(branch) for branch in airways]
    points_mm = [grid.to_scan_mm(branch.points_mm) for branch in fine]
    at_noises = labelled_at(image, fine, points_mm, [wall_mm(patient, branch) for branch in fine], noises_hu)
    return [[part for one in zip(fine, labels, strict=True) for part in parts(*one)] for labels in at_noises]


def _noise_limit(labels: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """See `NOISE_LIMIT`; of the labels at all `NOISES_HU`.

    What is left out at a noise is so at every larger one. It may have been background before: at the edge of a lumen a
    voxel is left out for less air than makes it airway.
    """
    limit = np.zeros(labels[0].shape, np.uint8)
    for noise_hu, label in list(zip(NOISES_HU, labels[1:]))[::-1]:
        limit[label == LEFT_OUT] = round(noise_hu)
    limit[labels[0] == LEFT_OUT] = 0
    return limit


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
    veins = grow_veins(patient, rng)
    vessels = arteries + twigs_of(arteries, patient, rng), veins + twigs_of(veins, patient, rng)
    shapes = make_shapes(patient, grid, tree, rng)
    airways = filled_in_airless_lung(airways, partial(grid.sample_coarse, shapes.density.airless), rng)
    hu = paint_background(patient, shapes, grid, rng)
    paint_layers(hu, tube_layers(patient, airways, vessels, rng), grid)
    spacing_mm = slabs.spacing_mm(grid.spacing_mm)
    scanner = _clean_scanner(spacing_mm[0])
    if not clean:
        scanner = machine.scanner if machine else draw_scanner(rng, spacing_mm[0])
    air = _air(airways, secretions(airways, rng), grid)
    apply_coverage(hu, air, patient.lumen_hu)
    hu = slabs.mean(hu)
    if rng.random() < ROUND_VIEWS:
        outside_circle(hu, rng)
    noises_hu = NOISES_HU if clean else (scanner.noise_hu,)
    at_noises = _labelled_parts(hu, airways, patient, grid, slabs, scanner, noises_hu)
    labels = [_label(parts_of, air, grid, slabs) for parts_of in at_noises]
    if not clean:
        hu = scan(hu, scanner, rng)
    description = {
        "source": f"AirwaySeg simulator {__version__}",
        "seed": seed,
        "clean": clean,
        "label_values": {"0": "background", "1": "airway", "2": "left out: mucus, or too faint to be sure"},
        "patient": asdict(patient),
        "slices_mm": slabs.thick_mm or spacing_mm[0],
        "scanner": None if clean else scanner.as_dict(),
        "tree": describe(airways),
    }
    return SimulatedCase(whole_hu(hu), labels[0], spacing_mm, description, _noise_limit(labels) if clean else None)


def write_case(case: SimulatedCase, folder: Path) -> None:
    """Atomic write of ct.nrrd, label.nrrd, case.json, and of a clean case noise_limit.nrrd."""
    arrays: list[tuple[str, NDArray | None]] = [
        ("ct.nrrd", case.ct),
        ("label.nrrd", case.label),
        (NOISE_LIMIT, case.noise_limit),
    ]
    with delivered_into(folder, last="case.json", replaced=(NOISE_LIMIT,)) as unfinished:
        for name, array in arrays:
            if array is not None:
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
