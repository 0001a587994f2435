"""Training cases: reading them from their folders, and preparing them (skeleton, maps) once, on disk.

A case is a folder with ct.nrrd (HU), label.nrrd (0 background, 1 airway, 2 left out) and optionally edited.nrrd (not 0
where a person corrected the label), origin.nrrd (`AirwaySegLib.masks.origin`), noise_limit.nrrd (`NOISE_LIMIT`) and
case.json. `PREPARED`, beside the folder ``cases``, holds the cache of `prepared_case` (see `prepared_files`): arrays of
which each patch reads only a crop, so that many cases need little memory. Arrays are (Z, Y, X). Letters: N voxels
of the airway.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.volume import read_ct, read_on_grid, to_canonical
from AirwaySegLib.masks.components import label_components
from AirwaySegLib.networks.device_plan import free_memory
from AirwaySegLib.progress import Progress
from AirwaySegTraining.data.augmentation import IGNORE
from AirwaySegTraining.data.case_folders import PREPARED, settle
from AirwaySegTraining.data.label_check import label_doubt
from AirwaySegTraining.data.prepared_files import Hashes, OnDisk, Unusable, read_map, read_prepared, write_prepared
from AirwaySegTraining.data.sampling import ADDED, REMOVED, Boxed, Centres, Kind, find_centres
from AirwaySegTraining.distributed import Team
from AirwaySegTraining.losses import weight_maps
from AirwaySegTraining.simulator.scanner import NOISE_LIMIT, whole_hu
from AirwaySegTraining.workers import WorkerPool

log = logging.getLogger("airwayseg")

Spacing = tuple[float, float, float]

RESERVED = "mean"
"""Reserved: in tables this is the name of the mean of all cases."""

VERSION = b"1"
"""Increase it when the definition of a map changes: then everything is computed again."""

PREPARING_BYTES = 3 * 2**30
"""Free memory needed for each case that is prepared at the same time; about that of a CT of 512 x 512 x 600."""

ORIGIN = "origin.nrrd"

MAPS = ("distance", "rate", "tube", "branch", "classes", "inverse_component", "inverse_branch")
"""Maps of a case by their names; see `make_map`."""


@dataclass(frozen=True)
class OnAirway:
    """A map that is 0 outside the airway: ``values`` (N,) at ``voxels`` (N,), ascending indices into the flat array.

    It takes about 1 % of the whole array's memory. Indexed with slices or `numpy.ix_` it gives a box as an array.
    """

    shape: tuple[int, int, int]
    voxels: NDArray[np.int64]
    values: NDArray

    @classmethod
    def of(cls, whole: NDArray, voxels: NDArray[np.int64]) -> "OnAirway":
        """The map's values at the airway's voxels."""
        depth, height, width = whole.shape
        return cls((depth, height, width), voxels, whole.ravel()[voxels])

    def __getitem__(self, box: tuple[Any, Any, Any]) -> NDArray:
        """The box as an array; slices must have no step."""
        axes = [np.arange(n)[part].ravel() for part, n in zip(box, self.shape)]
        low, high = np.array([axis.min() for axis in axes]), np.array([axis.max() + 1 for axis in axes])
        slice_voxels = self.shape[1] * self.shape[2]
        rows = slice(*np.searchsorted(self.voxels, [low[0] * slice_voxels, high[0] * slice_voxels]))
        indices = np.stack(np.unravel_index(self.voxels[rows], self.shape), axis=1)
        inside = ((indices >= low) & (indices < high)).all(axis=1)
        out = np.zeros(high - low, self.values.dtype)
        out[tuple((indices[inside] - low).T)] = self.values[rows][inside]
        return out[np.ix_(*(axis - first for axis, first in zip(axes, low)))]

    def whole(self) -> NDArray:
        """The map as an array (Z, Y, X)."""
        out = np.zeros(self.shape, self.values.dtype)
        out.ravel()[self.voxels] = self.values
        return out


@dataclass(frozen=True, eq=False)
class Case:
    """A case on canonical axes. ``clean`` means a simulated CT without a scanner's blur and noise.

    Cases of one ``patient`` are held out together. ``fingerprint`` changes with the files. ``doubt`` is the result of
    `label_doubt`; ``noise_limit`` the map of `NOISE_LIMIT`, if the case has one.
    """

    name: str
    patient: str
    fingerprint: str
    ct: NDArray[np.int16] | OnDisk
    label: NDArray[np.uint8] | OnDisk
    spacing_mm: Spacing
    clean: bool
    centres: Centres
    skeleton: OnAirway
    maps: dict[str, OnAirway]
    doubt: str = ""
    noise_limit: OnAirway | None = None

    def label_at(self, noise_hu: float) -> Boxed:
        """The label in a scan with this noise: what it hides is left out."""
        return self.label if self.noise_limit is None else _LabelAt(self.label, self.noise_limit, noise_hu)


@dataclass(frozen=True)
class _LabelAt:
    """See `Case.label_at`."""

    label: Boxed
    noise_limit: OnAirway
    noise_hu: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.label.shape

    def __getitem__(self, box: tuple[Any, Any, Any]) -> NDArray[np.uint8]:
        label, limit = self.label[box].copy(), self.noise_limit[box]
        label[(limit > 0) & (limit < self.noise_hu)] = IGNORE
        return label


def case_folders(data: Path) -> list[Path]:
    """The folders of all cases under ``data``/cases, sorted by name; interrupted commands are settled first."""
    settle(data)
    folders = sorted(path.parent for path in (data / "cases").glob("[!.]*/ct.nrrd"))
    labelled = sorted(path.parent for path in (data / "cases").glob("[!.]*/label.nrrd"))
    if lacking := [folder for folder in labelled if folder not in folders]:
        raise AirwaySegError(f"{lacking[0]} has a label but no ct.nrrd: put it back, or remove the case.")
    if not folders:
        raise AirwaySegError(f"No case found: {data} has no folder cases/<id> with ct.nrrd and label.nrrd.")
    if any(folder.name == RESERVED for folder in folders):
        raise AirwaySegError(f"A case cannot be called {RESERVED!r}: tables have a row of that name.")
    return folders


def read_case(folder: Path) -> Case:
    """Read one case, on canonical axes, without maps.

    Raises
    ------
    AirwaySegError
        If a file is missing or unreadable or not on the CT's grid, the label has values other than 0, 1 and 2, or no 1,
        or the noise limit other than whole numbers from 0 to 255.
    """
    try:
        ct, _ = read_ct(folder / "ct.nrrd")
        label = read_on_grid(folder / "label.nrrd", ct)
        edited, origin = (
            read_on_grid(folder / name, ct) if (folder / name).exists() else None for name in ("edited.nrrd", ORIGIN)
        )
        limit = read_on_grid(folder / NOISE_LIMIT, ct) if (folder / NOISE_LIMIT).exists() else None
        if limit is not None and not np.isin(limit.array, np.arange(256)).all():
            raise AirwaySegError(f"{NOISE_LIMIT} holds values other than whole numbers from 0 to 255.")
        checked_label(label.array, "label.nrrd")
        description = description_of(folder)
        fingerprint = _fingerprint(folder, Hashes())
    except (AirwaySegError, OSError, ValueError) as error:
        raise AirwaySegError(f"Case {folder.name}: {error}") from error
    canonical, labels = to_canonical(ct), to_canonical(label).array.astype(np.uint8)
    hu = whole_hu(canonical.array)
    spacing_mm = canonical.spacing_mm
    line = weight_maps.skeleton_of(labels, spacing_mm)
    skeleton = OnAirway.of(line, np.flatnonzero((labels == 1) | (line > 0)))
    patient, clean = patient_of(description, folder), bool(description.get("clean", False))
    centres = find_centres(hu, labels, line, spacing_mm)
    if edited is not None:
        centres = centres.with_edited(to_canonical(edited).array)
    kinds = edit_kinds(centres, labels, None if origin is None else to_canonical(origin).array)
    maps = {"edited": edited_map(centres, kinds)}
    doubt = label_doubt(hu, labels)
    case = Case(folder.name, patient, fingerprint, hu, labels, spacing_mm, clean, centres, skeleton, maps, doubt)
    if limit is None:
        return case
    values = to_canonical(limit).array.astype(np.uint8)
    return replace(case, noise_limit=OnAirway.of(values, np.flatnonzero(values)))


def checked_label(label: NDArray, name: str) -> NDArray[np.uint8]:
    """The label as uint8; raises AirwaySegError if it holds values other than 0, 1 and 2, or no 1 at all."""
    with np.errstate(invalid="ignore"):
        whole = label.astype(np.uint8)
    if not (whole == label).all() or whole.max() > IGNORE:  # also true for NaN
        raise AirwaySegError(f"{name} holds values other than 0 (background), 1 (airway) and 2 (left out).")
    if not (whole == 1).any():
        raise AirwaySegError(f"{name} holds no airway: no voxel is 1.")
    return whole


def _edited_points(centres: Centres) -> NDArray[np.int32]:
    return centres.points.get(Kind.EDITED, np.empty((0, 3), np.int32))


def edit_kinds(centres: Centres, label: NDArray[np.uint8] | OnDisk, origin: NDArray | None) -> NDArray[np.uint8]:
    """What each voxel that a person corrected is, (N,): `REMOVED`, `ADDED`, or where it is known its origin.

    ``label`` and ``origin`` are (Z, Y, X).
    """
    points = tuple(_edited_points(centres).T)
    known = np.zeros(len(points[0]), np.uint8) if origin is None else origin[points].astype(np.uint8)
    return np.where(label[points] == 1, np.where(known > 0, known, np.uint8(ADDED)), np.uint8(REMOVED)).astype(np.uint8)


def edited_map(centres: Centres, kinds: NDArray[np.uint8] | None = None) -> OnAirway:
    """The `edit_kinds` of the voxels that a person corrected, which need not be airway, 0 elsewhere.

    Without kinds all are `ADDED`.
    """
    points = _edited_points(centres)
    voxels = np.ravel_multi_index(tuple(points.T), centres.shape).astype(np.int64)
    return OnAirway(centres.shape, voxels, np.full(len(voxels), ADDED, np.uint8) if kinds is None else kinds)


def description_of(folder: Path) -> dict[str, Any]:
    """The content of case.json, empty if there is none; raises OSError, or ValueError if it is not a JSON object."""
    path = folder / "case.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"case.json is not valid JSON ({error})") from error
    if not isinstance(description, dict):
        raise ValueError("case.json does not hold a JSON object")
    return description


def patient_of(description: dict[str, Any], folder: Path) -> str:
    """The patient in case.json if it is a name or number (the simulator stores the anatomy there), else the folder."""
    patient = description.get("patient")
    return str(patient) if isinstance(patient, str | int) else folder.name


def _fingerprint(folder: Path, hashes: Hashes) -> str:
    """A hash of the case's files."""
    total = hashlib.sha256(VERSION)
    for name in ("ct.nrrd", "label.nrrd", "edited.nrrd", ORIGIN, NOISE_LIMIT, "case.json"):
        if (folder / name).exists():
            total.update(bytes.fromhex(hashes.of(folder / name)))
    return total.hexdigest()[:16]


# On disk -------------------------------------------------------------------------------------------------------------


def prepared_case(folder: Path, wanted: tuple[str, ...] = ()) -> Case:
    """The case with its ``wanted`` `MAPS`, from `PREPARED`; missing or damaged files there are computed again.

    Outdated files, of a case that was changed, are removed. A label that does not seem to fit the CT gives a warning.

    Raises
    ------
    AirwaySegError
        As `read_case`, or if the disk is full or cannot be written.
    """
    case = _prepared_case(folder, wanted)
    if case.doubt:
        log.warning("Case %s: the label %s.", case.name, case.doubt)
    return case


def _prepared_case(folder: Path, wanted: tuple[str, ...]) -> Case:
    prepared = folder.parents[1] / PREPARED / folder.name
    hashes = Hashes.kept_in(prepared)
    case = _kept_case(folder, hashes)
    if case is None:
        _write_case(read_case(folder), prepared, hashes)
        case = _kept_case(folder, hashes)
    if case is None:
        raise AirwaySegError(f"The prepared files of case {folder.name} cannot be read back from {prepared}.")
    kept = prepared / case.fingerprint
    for old in prepared.iterdir():
        if old != kept and not old.name.startswith("."):
            shutil.rmtree(old, ignore_errors=True)
    for name in wanted:
        path = kept / f"{name}.npy"
        try:
            values = read_map(path, len(case.skeleton.voxels))
        except Unusable:
            values = OnAirway.of(make_map(name, case), case.skeleton.voxels).values
            write_array(path, values)
        case.maps[name] = OnAirway(case.skeleton.shape, case.skeleton.voxels, values)
    return case


def prepared_groups(
    data: Sequence[Path], wanted: tuple[str, ...], team: Team, workers: int, progress: Progress
) -> list[list[Case]]:
    """The prepared cases of each data folder; the team's processes, each with ``workers`` workers, share the work.

    Raises
    ------
    AirwaySegError
        As `prepared_case`, or if a folder holds no case, or two cases have the same name.
    """
    folders = [case_folders(folder) for folder in data]
    names = [folder.name for group in folders for folder in group]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise AirwaySegError(f"There are two cases called {twice}; rename one of them.")
    mine = team.share([folder for group in folders for folder in group])
    todo = [folder for folder in mine if not _is_prepared(folder, wanted)]
    progress("prepare", len(mine) - len(todo), len(mine))
    for done, _ in enumerate(_prepared(todo, wanted, workers), start=len(mine) - len(todo) + 1):
        progress("prepare", done, len(mine))
    team.wait()
    read = prepared_case if team.leads else _prepared_case  # one process warns
    return [[read(folder, wanted) for folder in group] for group in folders]


def _is_prepared(folder: Path, wanted: tuple[str, ...]) -> bool:
    prepared = folder.parents[1] / PREPARED / folder.name
    case = _kept_case(folder, Hashes.kept_in(prepared))
    return case is not None and all((prepared / case.fingerprint / f"{name}.npy").exists() for name in wanted)


def _at_once(workers: int, cases: int) -> int:
    """How many cases ``workers`` processes prepare at the same time: as many as fit into the free memory."""
    free = free_memory("cpu")
    most = workers if free is None else min(workers, free // PREPARING_BYTES)
    return max(1, min(most, cases))


def _prepared(folders: list[Path], wanted: tuple[str, ...], workers: int) -> Iterator[None]:
    """Prepare the cases; yields None after each, in any order."""
    workers = _at_once(workers, len(folders))
    if workers == 1:
        for folder in folders:
            _prepare(folder, wanted)
            yield
        return
    try:
        with WorkerPool(workers) as pool:
            for job in as_completed([pool.submit(_prepare, folder, wanted) for folder in folders]):
                yield job.result()
    except BrokenProcessPool as error:
        raise AirwaySegError(
            "A worker process ended unexpectedly, probably because it was out of memory; try --workers 1."
        ) from error


def _prepare(folder: Path, wanted: tuple[str, ...]) -> None:
    _prepared_case(folder, wanted)


def make_map(name: str, case: Case) -> NDArray:
    """A map (Z, Y, X) of a case that depends only on the label."""
    label, skeleton = np.asarray(case.label), case.skeleton.whole()
    match name:
        case "distance":
            return weight_maps.centerline_distance(label, case.spacing_mm, skeleton)
        case "rate":
            return weight_maps.foreground_rate(label)
        case "tube":
            return weight_maps.tube(skeleton, label)
        case "branch":
            return weight_maps.branch_map(label, case.spacing_mm)[0]
        case "classes":
            return weight_maps.classes_by_diameter(*weight_maps.branch_map(label, case.spacing_mm))
        case "inverse_component":
            return weight_maps.inverse_weight(label_components(label == 1))
        case "inverse_branch":
            return weight_maps.inverse_weight(weight_maps.branch_map(label, case.spacing_mm)[0])
    raise AirwaySegError(f"There is no map {name!r}; there are {', '.join(MAPS)}.")


def _write_case(case: Case, prepared: Path, hashes: Hashes) -> None:
    numbers = {
        "spacing_mm": np.asarray(case.spacing_mm, float),
        "clean": case.clean,
        "patient": case.patient,
        "doubt": case.doubt,
        "box": np.array([(part.start, part.stop) for part in case.centres.box]),
        "voxels": case.skeleton.voxels,
        "skeleton": case.skeleton.values,
        "edits": case.maps["edited"].values,
    }
    numbers |= {f"places_{kind}": voxels for kind, voxels in case.centres.points.items()}
    if case.noise_limit is not None:
        numbers |= {"limited": case.noise_limit.voxels, "limit": case.noise_limit.values}
    write_prepared(
        prepared / case.fingerprint, {"ct": np.asarray(case.ct), "label": np.asarray(case.label)}, numbers, hashes
    )


def _kept_case(folder: Path, hashes: Hashes) -> Case | None:
    """The prepared case, of the maps only that of corrected voxels; None if files are missing or damaged."""
    try:
        kept = folder.parents[1] / PREPARED / folder.name / _fingerprint(folder, hashes)
        arrays, numbers = read_prepared(kept, hashes)
    except Unusable:
        return None
    except OSError as error:
        raise AirwaySegError(f"Case {folder.name}: {error}") from error
    hashes.keep_in(kept)
    shape, points = arrays["ct"].shape, {name[7:]: part for name, part in numbers.items() if name.startswith("places_")}
    z, y, x = (slice(int(start), int(stop)) for start, stop in numbers["box"])
    spacing_z, spacing_y, spacing_x = numbers["spacing_mm"].tolist()
    centres = Centres(shape, (z, y, x), {Kind(name): voxels for name, voxels in points.items()})
    # Cases that an earlier version has prepared have no origins.
    edits = numbers["edits"] if "edits" in numbers else edit_kinds(centres, arrays["label"], None)
    return Case(
        name=folder.name,
        patient=str(numbers["patient"]),
        fingerprint=kept.name,
        ct=arrays["ct"],
        label=arrays["label"],
        spacing_mm=(spacing_z, spacing_y, spacing_x),
        clean=bool(numbers["clean"]),
        centres=centres,
        skeleton=OnAirway(shape, numbers["voxels"], numbers["skeleton"]),
        maps={"edited": edited_map(centres, edits)},
        doubt=str(numbers["doubt"]),
        noise_limit=OnAirway(shape, numbers["limited"], numbers["limit"]) if "limited" in numbers else None,
    )


def write_array(path: Path, values: NDArray) -> None:
    """Atomic write of an array to ``path``.

    Raises
    ------
    AirwaySegError
        If the disk is full or cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as stream:
            np.save(stream, values)
        os.replace(unfinished, path)
    except OSError as error:
        raise AirwaySegError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        unfinished.unlink(missing_ok=True)
