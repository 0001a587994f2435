"""A folder of training cases as a person manages it: adding a corrected case, listing what is there, removing one."""

import json
import secrets
import shutil
from collections.abc import Sequence
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
from AirwaySegTraining.cases import PREPARED, RESERVED, checked_label, prepared_case
from AirwaySegTraining.degrade import whole_hu
from AirwaySegTraining.rotation import IGNORE


@dataclass(frozen=True)
class CaseFiles:
    """What a case is made of: CT and label, and what says where a person corrected it.

    ``edited`` is a mask that is not 0 on the corrected voxels; without it they are where ``label`` differs from
    ``initial``, the mask before the correction. ``patient`` keeps the cases of one person together (none: the case's
    name); ``name`` is the CT's if it is None; ``series`` chooses one of several DICOM series.
    """

    ct: Path
    label: Path
    initial: Path | None = None
    edited: Path | None = None
    patient: str | None = None
    name: str | None = None
    series: str | None = None


def add_case(data: Path, files: CaseFiles, *, force: bool = False) -> tuple[Path, list[str]]:
    """Add a case to ``data``/cases; its folder, which appears only when it is complete, and warnings about the CT.

    Raises
    ------
    AirwaySegError
        If a file cannot be read or does not lie on the CT's grid, the label is empty or holds values other than 0, 1
        and 2, or a case of that name is there and ``force`` is False.
    """
    name = files.name or case_name(files.ct)
    if not name or Path(name).name != name or name.startswith(".") or name == RESERVED:
        raise AirwaySegError(f"{name!r} cannot be the name of a case; give another with --name.")
    folder = data / "cases" / name
    if folder.exists() and not force:
        raise AirwaySegError(f"{folder} exists; use --force to replace it, or give another --name.")
    ct, warnings = read_ct(files.ct, files.series)
    label = checked_label(read_on_grid(files.label, ct).array, files.label.name)
    arrays: dict[str, NDArray] = {"ct": whole_hu(ct.array), "label": label}
    if files.initial is not None:
        arrays["initial"] = _mask(files.initial, ct)
    if files.edited is not None:
        arrays["edited"] = _mask(files.edited, ct)
    elif files.initial is not None:  # what is left out now says nothing of what was wrong
        arrays["edited"] = ((arrays["initial"] != (label == 1)) & (label != IGNORE)).astype(np.uint8)
    description = {
        "source": f"corrected case, added with AirwaySeg {__version__}",
        "added": date.today().isoformat(),
        "patient": files.patient or name,
        "files": {key: path.name for key, path in _paths(files).items()},
        "edited_voxels": int(np.count_nonzero(arrays["edited"])) if "edited" in arrays else None,
        "label_values": {"0": "background", "1": "airway", "2": "left out"},
    }
    # A case that is replaced goes away whole: no moment has files of both.
    target = folder.with_name(f".{name}.{secrets.token_hex(4)}.new") if folder.exists() else folder
    with delivered_into(target, last="case.json") as unfinished:
        for key, array in arrays.items():
            write_nrrd(unfinished / f"{key}.nrrd", array, like=ct)
        (unfinished / "case.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
    if target != folder:
        leaving = _put_away(folder)
        target.rename(folder)
        shutil.rmtree(leaving, ignore_errors=True)
    return folder, warnings


def _put_away(folder: Path) -> Path:
    """Rename a case's folder at once, so that no half case is left, to a name that no reader looks at."""
    leaving = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.removed")
    folder.rename(leaving)
    return leaving


def _paths(files: CaseFiles) -> dict[str, Path]:
    paths = {"ct": files.ct, "label": files.label, "initial": files.initial, "edited": files.edited}
    return {key: path for key, path in paths.items() if path is not None}


def _mask(path: Path, ct: Volume) -> NDArray[np.uint8]:
    """1 where the file is not 0; raises AirwaySegError if it holds fractions, as a probability would."""
    array = read_on_grid(path, ct).array
    if not (array == np.rint(array)).all():
        raise AirwaySegError(f"{path.name} holds fractions; it must be a mask of whole numbers.")
    return (array != 0).astype(np.uint8)


def _folders(data: Path) -> list[Path]:
    """Every folder that stands for a case, whole or not."""
    return sorted(path for path in (data / "cases").glob("[!.]*") if path.is_dir())


def cases_table(data: Path) -> str:
    """A row for every case: patient, voxels, spacing, airway, corrected voxels, and what is wrong with it if it is."""
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
        rows.append((case.name, case.patient, shape, spacing, f"{airway_ml:.1f}", corrected, ""))
    wide = [max(len(row[column]) for row in rows) for column in range(6)]
    return "\n".join("  ".join([*(cell.ljust(n) for cell, n in zip(row, wide)), row[6]]).rstrip() for row in rows)


def remove_cases(data: Path, names: Sequence[str]) -> None:
    """Remove cases' folders, and what was worked out of them; none of them if one is unknown.

    Raises
    ------
    AirwaySegError
        If there is no such case, or it cannot be removed.
    """
    known = [folder.name for folder in _folders(data)]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise AirwaySegError(f"There is no case {unknown[0]!r} in {data}; there are {', '.join(known) or 'none'}.")
    for name in dict.fromkeys(names):
        try:
            shutil.rmtree(_put_away(data / "cases" / name))
            shutil.rmtree(data / PREPARED / name, ignore_errors=True)
        except OSError as error:
            raise AirwaySegError(f"The case {name} cannot be removed: {error.strerror or error}.") from error
