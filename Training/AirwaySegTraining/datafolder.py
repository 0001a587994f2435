"""A folder of training cases as a person manages it: adding a corrected case, listing what is there, removing one."""

import json
import shutil
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib import __version__
from AirwaySegLib.delivery import delivered_into
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.imagefile import case_name
from AirwaySegLib.volume import Volume, read_ct, read_on_grid, write_nrrd
from AirwaySegTraining.cases import PREPARED, case_folders, read_case
from AirwaySegTraining.rotation import IGNORE


@dataclass(frozen=True)
class CaseFiles:
    """What a case is made of: CT and label, and what says where a person corrected it.

    ``edited`` is a mask that is not 0 on the corrected voxels; without it they are where ``label`` differs from
    ``initial``, the mask before the correction. ``patient`` keeps the cases of one person together (none: the case's
    name); ``name`` is the CT's if it is None.
    """

    ct: Path
    label: Path
    initial: Path | None = None
    edited: Path | None = None
    patient: str | None = None
    name: str | None = None


def add_case(data: Path, files: CaseFiles, *, force: bool = False) -> Path:
    """Add a case to ``data``/cases and return its folder, which appears only when it is complete.

    Raises
    ------
    AirwaySegError
        If a file cannot be read or does not lie on the CT's grid, the label is empty or holds values other than 0, 1
        and 2, or a case of that name is there and ``force`` is False.
    """
    name = files.name or case_name(files.ct)
    if not name or Path(name).name != name or name.startswith("."):
        raise AirwaySegError(f"{name!r} cannot be the name of a case; give another with --name.")
    folder = data / "cases" / name
    if folder.exists() and not force:
        raise AirwaySegError(f"{folder} exists; use --force to replace it, or give another --name.")
    ct, _ = read_ct(files.ct)
    label = _checked(read_on_grid(files.label, ct).array, files.label)
    arrays: dict[str, NDArray] = {"ct": _whole_hu(ct.array), "label": label}
    if files.initial is not None:
        arrays["initial"] = (read_on_grid(files.initial, ct).array != 0).astype(np.uint8)
    edited = _edited(files, label, arrays.get("initial"), ct)
    if edited is not None:
        arrays["edited"] = edited.astype(np.uint8)
    description = {
        "source": f"corrected case, added with AirwaySeg {__version__}",
        "added": date.today().isoformat(),
        "patient": files.patient or name,
        "files": {key: path.name for key, path in _paths(files).items()},
        "edited_voxels": None if edited is None else int(np.count_nonzero(edited)),
        "label_values": {"0": "background", "1": "airway", "2": "left out"},
    }
    with delivered_into(folder, last="case.json") as unfinished:
        for key, array in arrays.items():
            write_nrrd(unfinished / f"{key}.nrrd", array, like=ct)
        (unfinished / "case.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
    for key in {"initial", "edited"} - set(arrays):
        (folder / f"{key}.nrrd").unlink(missing_ok=True)  # of a case that was replaced
    return folder


def _paths(files: CaseFiles) -> dict[str, Path]:
    paths = {"ct": files.ct, "label": files.label, "initial": files.initial, "edited": files.edited}
    return {key: path for key, path in paths.items() if path is not None}


def _whole_hu(array: NDArray) -> NDArray[np.int16]:
    return np.clip(np.rint(array), -1024, 3071).astype(np.int16)


def _checked(label: NDArray, path: Path) -> NDArray[np.uint8]:
    if label.min() < 0 or label.max() > IGNORE:
        raise AirwaySegError(f"{path.name} holds values other than 0 (background), 1 (airway) and 2 (left out).")
    if not (label == 1).any():
        raise AirwaySegError(f"{path.name} holds no airway: no voxel is 1.")
    return label.astype(np.uint8)


def _edited(files: CaseFiles, label: NDArray, initial: NDArray | None, ct: Volume) -> NDArray[np.bool_] | None:
    if files.edited is not None:
        return read_on_grid(files.edited, ct).array != 0
    return None if initial is None else (initial != 0) != (label == 1)


def cases_table(data: Path) -> str:
    """A row for every case: patient, voxels, spacing, airway, corrected voxels, and what is wrong with it if it is."""
    rows = [("case", "patient", "voxels (x y z)", "mm (x y z)", "airway ml", "corrected", "")]
    for folder in case_folders(data):
        try:
            case = read_case(folder)
        except AirwaySegError as error:
            rows.append((folder.name, "", "", "", "", "", str(error)))
            continue
        airway_ml = np.count_nonzero(np.asarray(case.label) == 1) * float(np.prod(case.spacing_mm)) / 1000
        shape = " ".join(str(count) for count in reversed(case.ct.shape))
        spacing = " ".join(f"{mm:.2f}" for mm in reversed(case.spacing_mm))
        corrected = str(len(case.maps["edited"].voxels)) if (folder / "edited.nrrd").exists() else "unknown"
        rows.append((case.name, case.patient, shape, spacing, f"{airway_ml:.1f}", corrected, ""))
    wide = [max(len(row[column]) for row in rows) for column in range(6)]
    return "\n".join("  ".join([*(cell.ljust(n) for cell, n in zip(row, wide)), row[6]]).rstrip() for row in rows)


def remove_case(data: Path, name: str) -> None:
    """Remove a case's folder, and what was worked out of it.

    Raises
    ------
    AirwaySegError
        If there is no such case, or it cannot be removed.
    """
    known = [folder.name for folder in case_folders(data)]
    if name not in known:
        raise AirwaySegError(f"There is no case {name!r} in {data}; there are {', '.join(known)}.")
    leaving = data / "cases" / f".{name}.removed"
    try:
        (data / "cases" / name).rename(leaving)  # at once, so that no half case is left
        shutil.rmtree(leaving)
        shutil.rmtree(data / PREPARED / name, ignore_errors=True)
    except OSError as error:
        raise AirwaySegError(f"The case {name} cannot be removed: {error.strerror or error}.") from error
