"""Managing a folder of training cases: adding a corrected case, listing the cases, removing some."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib import __version__
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.atomic_output import delivered_into
from AirwaySegLib.files.image_files import case_name
from AirwaySegLib.files.volume import Volume, read_ct, read_on_grid, to_canonical, write_nrrd
from AirwaySegLib.masks.origin import CLICK, HAND, NAMES, edited
from AirwaySegTraining.data.augmentation import IGNORE
from AirwaySegTraining.data.case_folders import passing, put_in_place, settle, take_away, turn_at
from AirwaySegTraining.data.cases import RESERVED, checked_label, description_of, patient_of, prepared_case
from AirwaySegTraining.data.label_check import label_doubt
from AirwaySegTraining.simulator.scanner import whole_hu

SAME_CT = "ct_sha256"
"""Key of the `ct_digest` in case.json."""


@dataclass(frozen=True)
class CaseFiles:
    """The input files of a case: CT and label, and optionally the voxels that a person corrected.

    ``edited`` is a mask that is not 0 on the corrected voxels; without it they are where ``label`` differs from
    ``initial``, the mask before the correction; without that, what ``origin`` says a person added. ``origin`` says
    where each airway voxel of ``label`` comes from (`AirwaySegLib.masks.origin`); those it lacks are by hand. Cases of
    one ``patient`` are held out together (None: the patient of a case with the same CT, or the case's name). ``name``
    None takes the CT's name, made unique if a case of another CT has it. ``series`` chooses one of several DICOM
    series. With ``trusted`` the label is not checked against the CT.
    """

    ct: Path
    label: Path
    initial: Path | None = None
    edited: Path | None = None
    origin: Path | None = None
    patient: str | None = None
    name: str | None = None
    series: str | None = None
    trusted: bool = False


@dataclass(frozen=True)
class KnownCase:
    """An existing case: its name and patient, the day it was added and the digest of its CT ("" if unknown)."""

    name: str
    patient: str
    added: str
    digest: str

    def __str__(self) -> str:
        added = f", added {self.added}" if self.added else ""
        return f"case {self.name} (patient {self.patient}{added})"


def add_case(data: Path, files: CaseFiles, *, force: bool = False) -> tuple[Path, list[str]]:
    """Add a case to ``data``/cases by an atomic write; returns its folder, and warnings (sentences).

    Raises
    ------
    AirwaySegError
        If a file cannot be read or is not on the CT's grid; if the label is empty, has values other than 0, 1 and 2, or
        does not lie on the CT's airways (see `label_doubt`) and is not trusted; if a case of that name exists and
        ``force`` is False, or it is of another CT and not known to be of the same patient.
    """
    settle(data)
    files = replace(files, patient=(files.patient or "").strip() or None)  # a script's variable may be empty
    if files.name:
        _check_name(files.name)
        if not force:
            _check_free(data / "cases" / files.name)
    ct, warnings = read_ct(files.ct, files.series)
    arrays = _arrays(files, ct)
    doubt = label_doubt(to_canonical(ct).array, to_canonical(replace(ct, array=arrays["label"])).array)
    if doubt and not files.trusted:
        raise AirwaySegError(f"{files.label.name} {doubt}. If it is correct nevertheless, add --trust-label.")
    warnings += [f"{files.label.name} {doubt}."] if doubt else []
    digest = ct_digest(ct)
    folder = data / "cases" / (files.name or _free_name(data, files, digest))
    patient, about_patient = _patient(data, files.patient, folder.name, digest)
    description = _description(files, arrays, patient) | {SAME_CT: digest}
    new = passing(folder, "new")
    with _named_after(folder, new), ExitStack() as turn:
        with delivered_into(new, last="case.json") as unfinished:
            for key, array in arrays.items():
                write_nrrd(unfinished / f"{key}.nrrd", array, like=ct)
            (unfinished / "case.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
            turn.enter_context(turn_at(data, "airwayseg-train cases add"))
            about_replaced = _check_replaced(folder, files.patient, digest, force)
        put_in_place(new, folder)
    return folder, warnings + about_patient + about_replaced


@contextmanager
def _named_after(folder: Path, new: Path) -> Iterator[None]:
    """Make errors name the case's folder, which the user knows, instead of the temporary one."""
    try:
        yield
    except AirwaySegError as error:
        raise AirwaySegError(str(error).replace(str(new), str(folder))) from error


def ct_digest(ct: Volume) -> str:
    """A hash of a CT's size and voxels on canonical axes, independent of the file format."""
    hu = whole_hu(to_canonical(ct).array)
    return hashlib.sha256(repr(hu.shape).encode() + np.ascontiguousarray(hu, "<i2").tobytes()).hexdigest()


def known_case(folder: Path) -> KnownCase:
    """The case in a folder, from its case.json; if that is not readable, its patient is the folder's name."""
    try:
        about = description_of(folder)
    except (OSError, ValueError):
        about = {}
    return KnownCase(folder.name, patient_of(about, folder), str(about.get("added", "")), str(about.get(SAME_CT, "")))


def _has_ct(folder: Path, digest: str) -> bool:
    """Whether a case is of the CT with this digest; if the case has no digest, it is computed."""
    kept = known_case(folder).digest
    if kept:
        return kept == digest
    try:
        return ct_digest(read_ct(folder / "ct.nrrd")[0]) == digest
    except AirwaySegError:
        return False


def _check_name(name: str) -> None:
    if not name or Path(name).name != name or name.startswith(".") or name == RESERVED:
        raise AirwaySegError(f"{name!r} cannot be the name of a case; give another with --name.")


def _check_free(folder: Path) -> None:
    if folder.exists():
        raise AirwaySegError(f"{folder} exists; use --force to replace it, or give another --name.")


def _arrays(files: CaseFiles, ct: Volume) -> dict[str, NDArray]:
    """The case's images by the names of their files."""
    label = checked_label(read_on_grid(files.label, ct).array, files.label.name)
    arrays: dict[str, NDArray] = {"ct": whole_hu(ct.array), "label": label}
    if files.initial is not None:
        arrays["initial"] = _mask(files.initial, ct)
    if files.edited is not None:
        arrays["edited"] = _mask(files.edited, ct)
    elif files.initial is not None:  # voxels that are left out now are not corrections
        arrays["edited"] = ((arrays["initial"] != (label == 1)) & (label != IGNORE)).astype(np.uint8)
    if files.origin is not None:
        arrays["origin"] = edited(_origin(files.origin, ct), label == 1, HAND)
        arrays.setdefault("edited", np.isin(arrays["origin"], (CLICK, HAND)).astype(np.uint8))
    return arrays


def _description(files: CaseFiles, arrays: dict[str, NDArray], patient: str) -> dict[str, object]:
    return {
        "source": f"corrected case, added with AirwaySeg {__version__}",
        "added": date.today().isoformat(),
        "patient": patient,
        "files": {key: path.name for key, path in _paths(files).items()},
        "edited_voxels": int(np.count_nonzero(arrays["edited"])) if "edited" in arrays else None,
        "label_values": {"0": "background", "1": "airway", "2": "left out"},
    }


def _free_name(data: Path, files: CaseFiles, digest: str) -> str:
    """The CT's name; if a case of another CT has it, with the patient in front or a part of the digest at its end."""
    scan = case_name(files.ct)
    _check_name(scan)
    patient = re.sub(r"[^\w.-]+", "-", files.patient or "").strip("-._")
    names = [scan, *([f"{patient}-{scan}"] if patient else []), f"{scan}-{digest[:8]}"]
    folders = [data / "cases" / name for name in names]
    same = [folder for folder in folders if folder.exists() and _has_ct(folder, digest)]
    free = [folder for folder in folders if not folder.exists()]
    return [*same, *free, folders[-1]][0].name


def _patient(data: Path, given: str | None, name: str, digest: str) -> tuple[str, list[str]]:
    """The patient of a new case, and warnings about it."""
    cases = [known_case(folder) for folder in _folders(data)]
    same = [case for case in cases if case.digest == digest]
    if not same and (data / "cases" / name).exists() and _has_ct(data / "cases" / name, digest):
        same = [case for case in cases if case.name == name]  # added by a version that kept no digest
    patient = given or (same[0].patient if same else name)
    warnings = [
        f"The {case} has the same CT as {name} (patient {patient}): remove one, or a training may be tested on what it "
        "has learned."
        for case in same
        if case.name != name
    ]
    if given is None and not same:
        warnings.append(
            f"Without --patient, {name} counts as a patient of its own: give all scans of one person the same, or a "
            "training may be tested on somebody from whom it has learned."
        )
    return patient, warnings


def _check_replaced(folder: Path, patient: str | None, digest: str, force: bool) -> list[str]:
    """Refuse to replace a case that may be another patient's; returns a warning if the old case is of another CT."""
    if not folder.exists():
        return []
    if not force:
        _check_free(folder)
    there = known_case(folder)
    if _has_ct(folder, digest):
        return []
    if patient != there.patient:
        raise AirwaySegError(
            f"The {there} is of another CT and is not replaced: give another --name, or --patient {there.patient} if "
            "it is the same person, or remove that case first."
        )
    return [f"The {there} was of another CT and has been replaced."]


def _paths(files: CaseFiles) -> dict[str, Path]:
    names = ("ct", "label", "initial", "edited", "origin")
    paths = {name: getattr(files, name) for name in names}
    return {key: path for key, path in paths.items() if path is not None}


def _origin(path: Path, ct: Volume) -> NDArray[np.uint8]:
    """The map of origins; raises AirwaySegError if it holds another value."""
    array = read_on_grid(path, ct).array
    if not np.isin(array, (0, *NAMES)).all():
        raise AirwaySegError(f"{path.name} holds values other than 0 to {max(NAMES)}; it must be a map of origins.")
    return array.astype(np.uint8)


def _mask(path: Path, ct: Volume) -> NDArray[np.uint8]:
    """1 where the file is not 0; raises AirwaySegError if it holds fractions, as a probability would."""
    array = read_on_grid(path, ct).array
    if not (array == np.rint(array)).all():
        raise AirwaySegError(f"{path.name} holds fractions; it must be a mask of whole numbers.")
    return (array != 0).astype(np.uint8)


def _folders(data: Path) -> list[Path]:
    """Every folder of a case, complete or not."""
    return sorted(path for path in (data / "cases").glob("[!.]*") if path.is_dir())


def cases_table(data: Path) -> str:
    """A row for every case: patient, voxels, spacing, airway, corrected voxels, and any problem with it."""
    settle(data)
    if not _folders(data):
        raise AirwaySegError(f"{data} holds no case yet: `cases add` makes {data / 'cases'}.")
    rows = [("case", "patient", "voxels (x y z)", "mm (x y z)", "airway ml", "corrected", "")]
    for folder in _folders(data):
        try:
            case = prepared_case(folder)
        except AirwaySegError as error:
            rows.append((folder.name, "", "", "", "", "", str(error)))
            continue
        airway_ml = np.count_nonzero(np.asarray(case.label) == 1) * float(np.prod(case.spacing_mm)) / 1000
        shape = " ".join(str(count) for count in reversed(case.ct.shape))
        spacing = " ".join(f"{mm:.2f}" for mm in reversed(case.spacing_mm))
        corrected = str(len(case.maps["edited"].voxels)) if (folder / "edited.nrrd").exists() else "unknown"
        doubt = f"the label {case.doubt}" if case.doubt else ""
        rows.append((case.name, case.patient, shape, spacing, f"{airway_ml:.1f}", corrected, doubt))
    wide = [max(len(row[column]) for row in rows) for column in range(6)]
    return "\n".join("  ".join([*(cell.ljust(n) for cell, n in zip(row, wide)), row[6]]).rstrip() for row in rows)


def remove_cases(data: Path, names: Sequence[str]) -> None:
    """Remove the folders of cases, and the data computed from them; none of them if one is unknown.

    Raises
    ------
    AirwaySegError
        If there is no such case, or it cannot be removed.
    """
    settle(data)
    with turn_at(data, "airwayseg-train cases remove"):
        known = [folder.name for folder in _folders(data)]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise AirwaySegError(f"There is no case {unknown[0]!r} in {data}; there are {', '.join(known) or 'none'}.")
        for name in dict.fromkeys(names):
            try:
                take_away(data / "cases" / name)
            except OSError as error:
                raise AirwaySegError(f"The case {name} cannot be removed: {error.strerror or error}.") from error
