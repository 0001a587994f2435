"""The command `airwayseg info`: what a file or folder holds, what would be done with it, and how long that takes."""

from pathlib import Path

from AirwaySegLib.cohort.case import Case
from AirwaySegLib.cohort.discovery import Search, find_cases
from AirwaySegLib.errors import AirwaySegError, one_sentence
from AirwaySegLib.files.volume import Volume, to_canonical
from AirwaySegLib.networks.search import work
from AirwaySegLib.networks.sliding_window import PlannedBackend
from AirwaySegLib.networks.speed import OTHER_SECONDS, USUAL_VOXELS, USUAL_WINDOWS, about
from AirwaySegLib.pipeline import Model, RunReport, Scan, Surroundings, area_of, load_model, opened, survey
from AirwaySegLib.progress import Progress
from AirwaySegLib.settings import SegmentSettings


def describe(path: Path, settings: SegmentSettings, progress: Progress) -> str:
    """What is in a CT file or a folder, as text; nothing is written, and of the network only a small window is run.

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
    """What the network would have to do, and how long that takes here, by a small window that is run."""
    info, run_report = model.info, RunReport()
    scan = Scan(ct.array[around.box], 0.0, ct.spacing_mm, around.region, around.seeds)
    area = area_of(scan, info)
    count, windows = work(info, settings, area)
    shape = area.region.shape
    lines = [f"searched: a box of {' x '.join(str(side) for side in shape[::-1])} voxels, at most {count} windows"]
    if area.spacing_mm != ct.spacing_mm:
        lines[0] += f" after resampling to {' x '.join(f'{mm:.3g}' for mm in area.spacing_mm[::-1])} mm"
    backend = opened(model, (info.in_channels, *shape), settings, run_report)
    lines += [f"warning: {text}" for text in run_report.warnings]
    seconds = windows * model.window_seconds
    if isinstance(backend, PlannedBackend):
        how = backend.plan
        library = f" with {how.backend}" if how.device == "cpu" else ""
        lines.append(f"network: {info.name}, on {how.device}{library} in {how.precision}")
    total = about(seconds + ct.array.size * OTHER_SECONDS)
    lines.append(f"expected: {total} on this computer, of which the network {about(seconds)}")
    return lines


def usual_case(settings: SegmentSettings) -> dict[str, str]:
    """How the network runs on this computer, and how long a usual CT takes, by a small window that is run."""
    model = load_model(settings.weights)
    backend = opened(model, (model.info.in_channels, *model.info.patch_zyx), settings, RunReport())
    seconds = USUAL_WINDOWS * model.window_seconds + USUAL_VOXELS * OTHER_SECONDS
    how = backend.plan if isinstance(backend, PlannedBackend) else None
    library = "" if how is None or how.device != "cpu" else {"openvino": "OpenVINO", "torch": "PyTorch"}[how.backend]
    return {
        "device": "" if how is None else how.device,
        "library": library,
        "precision": "" if how is None else how.precision,
        "duration": about(seconds),
    }
