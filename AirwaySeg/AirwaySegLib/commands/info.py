"""The command `airwayseg info`: what a file or folder holds, what would be done with it, and how long that takes."""

from pathlib import Path

import numpy as np

from AirwaySegLib.cohort.case import Case
from AirwaySegLib.cohort.discovery import Search, find_cases
from AirwaySegLib.cohort.display import duration
from AirwaySegLib.errors import AirwaySegError, one_sentence
from AirwaySegLib.files.volume import Volume, to_canonical
from AirwaySegLib.networks.device_plan import choose_cpu_backend, choose_device, choose_precision
from AirwaySegLib.networks.sliding_window import Sliding, count_windows
from AirwaySegLib.pipeline import Model, RunReport, Surroundings, load_model, survey, target_spacing
from AirwaySegLib.progress import Progress
from AirwaySegLib.settings import SegmentSettings

WINDOW_SECONDS = {("openvino", "bfloat16"): 0.91, ("openvino", "float32"): 1.71}
"""Of a window of 128^3 voxels on two cores of a server, by `Testing/benchmarks/inference.py`."""

OTHER_SECONDS = 26 / (512 * 512 * 600)
"""Seconds for each voxel of all other stages, on the same computer, by `Testing/benchmarks/memory.py`."""


def describe(path: Path, settings: SegmentSettings, progress: Progress) -> str:
    """What is in a CT file or a folder, as text; no network is run and nothing is written.

    For a single CT the body and the trachea are searched, as `segment` would. For several, headers are all that is
    read.

    Raises
    ------
    AirwaySegError
        If there is nothing that can be read.
    """
    if not path.exists():
        raise AirwaySegError(f"{path} does not exist.")
    found = find_cases([path], Search(path / "no results here"), progress)
    left_out = [f"left out: {one.path}, {one.what}: {one.reason}" for one in found.left_out]
    if len(found.cases) == 1:
        return "\n".join([*_one(found.cases[0], settings, progress), *left_out])
    lines = [f"{case.id}: {case.about}" for case in found.cases]
    command = f"{len(found.cases)} CTs; `airwayseg cohort` runs all of them, `airwayseg segment` one."
    return "\n".join([*lines, *left_out, command])


def _one(case: Case, settings: SegmentSettings, progress: Progress) -> list[str]:
    """The lines on one CT."""
    progress("read", 0, 1)
    try:
        ct, warnings = case.read()
    except AirwaySegError as error:
        return [f"{case.path}: {case.about}", f"cannot be segmented: {one_sentence(error)}"]
    progress("read", 1, 1)
    canonical = to_canonical(ct)
    z, y, x = canonical.array.shape
    z_mm, y_mm, x_mm = canonical.spacing_mm
    lines = [f"{case.path}: {case.about or 'DICOM'}"]
    lines.append(f"size: {x} x {y} x {z} voxels of {x_mm:.4g} x {y_mm:.4g} x {z_mm:.4g} mm (x, y, z)")
    lines.append(f"values: {int(ct.array.min())} to {int(ct.array.max())} HU")
    if case.series:
        lines.append(f"series: {case.series}")
    run_report = RunReport()
    around = survey(canonical, run_report, progress)
    lines.append(f"trachea: {_of_trachea(around)}")
    lines += [f"warning: {text}" for text in [*warnings, *run_report.warnings]]
    return [*lines, *_work(canonical, around, load_model(settings.weights), settings)]


def _of_trachea(around: Surroundings) -> str:
    if around.trachea is None:
        return "not found"
    return "found, with the carina" if around.trachea.has_carina else "found, without the carina"


def _work(ct: Volume, around: Surroundings, model: Model, settings: SegmentSettings) -> list[str]:
    """What the network would have to do, and the seconds where they were measured."""
    info = model.info
    target_mm = target_spacing(ct.spacing_mm, info.spacing_mm_min, info.spacing_mm_max)
    factors = np.asarray(ct.spacing_mm) / np.asarray(target_mm or ct.spacing_mm)
    shape = tuple(max(1, round(count * factor)) for count, factor in zip(around.region.shape, factors, strict=True))
    region = around.region if target_mm is None else None
    windows = count_windows(shape, Sliding(info.patch_zyx, settings.overlap, settings.window_weights), region)
    lines = [f"searched: a box of {' x '.join(str(side) for side in shape[::-1])} voxels, {windows} windows"]
    if target_mm is not None:
        lines[0] += f" after resampling to {' x '.join(f'{mm:.3g}' for mm in target_mm[::-1])} mm"
    device = choose_device(settings.device)
    if device != "cpu":
        return [*lines, f"network: on {device}, in seconds that were not measured"]
    backend = choose_cpu_backend(settings.backend)
    wanted = "float32" if settings.precision == "auto" and not info.bfloat16 else settings.precision
    precision = choose_precision(wanted, backend)
    lines.append(f"network: {info.name}, on the CPU with {backend} in {precision}")
    seconds = WINDOW_SECONDS.get((backend, precision))
    if seconds is not None:
        size = float(np.prod(info.patch_zyx)) / 128**3
        total = duration(windows * size * seconds + ct.array.size * OTHER_SECONDS)
        lines.append(f"expected: about {total} on two cores of a server; other computers differ")
    return lines
