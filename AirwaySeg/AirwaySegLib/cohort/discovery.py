"""Which CTs lie in folders, files, patterns and lists: a case for each, and what is left out and why."""

import glob
import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from AirwaySegLib.cohort.case import Case, Found, LeftOut, distinct, id_of, parts_below
from AirwaySegLib.cohort.case_list import read_list
from AirwaySegLib.cohort.dicom_scans import Series, SeriesOfTree, best_of_each_scan, why_left_out
from AirwaySegLib.cohort.image_headers import judged_image
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.dicom import may_be_dicom, read_headers
from AirwaySegLib.files.image_files import format_extension, silent_itk
from AirwaySegLib.files.user_files import printable
from AirwaySegLib.progress import Progress

THICKEST_MM = 3.5
_RESULT = ("report.json", "airways.nrrd")
"""A folder with these files holds a result."""


@dataclass(frozen=True)
class Search:
    """How to search: ``output`` is never searched; ``all_series`` takes every reconstruction of a scan."""

    output: Path
    all_series: bool = False
    thickest_mm: float = THICKEST_MM


@dataclass
class _Tree:
    """What the walk through one folder met."""

    root: Path
    images: list[Path] = field(default_factory=list)
    series: SeriesOfTree = field(default_factory=SeriesOfTree)
    damaged: dict[Path, list[Path]] = field(default_factory=lambda: defaultdict(list))
    left_out: list[LeftOut] = field(default_factory=list)


def find_cases(inputs: Sequence[Path], search: Search, progress: Progress) -> Found:
    """The cases that folders, files, patterns (``*``, ``?``, ``**``) and lists (.csv) stand for.

    Folders are searched for NIfTI, NRRD and MetaImage files and for DICOM series in any nesting; only headers are read.
    A case's id is its path below the folder, so that it stays the same when others are added. Files and rows of a list
    are taken as they are.

    Raises
    ------
    AirwaySegError
        If an input does not exist, a list is not valid, or there is no case.
    """
    every = [each for given in inputs for each in _expanded(given)]
    own = os.path.realpath(search.output)
    if any(os.path.realpath(path) == own for path, _ in every):
        raise AirwaySegError(f"{search.output} is to be searched and to hold the results; give results another folder.")
    several = sum(path.is_dir() for path, _ in every) > 1
    cases: list[Case] = []
    left_out: list[LeftOut] = []
    for path, base in every:
        if path.suffix.lower() == ".csv":
            cases += read_list(path)
        elif path.is_dir():
            tree = _walked(path, search.output, progress)
            name = [path.name] if several else []
            cases += sorted(
                _image_cases(tree, search, name) + _dicom_cases(tree, search, name),
                key=lambda case: (case.path, case.id),
            )
            left_out += tree.left_out
        else:
            cases.append(_file_case(path, base))
    if not cases:
        hint = f"; left out: {reasons_counted(left_out)}" if left_out else ""
        raise AirwaySegError(f"No CT was found in {', '.join(str(path) for path in inputs)}{hint}.")
    cases = _without_repeats(cases, left_out)
    names = distinct([case.id for case in cases])
    return Found(
        tuple(_placed(case, name) for case, name in zip(cases, names, strict=True)),
        tuple(sorted(left_out, key=lambda one: str(one.path))),
    )


def _without_repeats(cases: Sequence[Case], left_out: list[LeftOut]) -> list[Case]:
    """The cases without those whose CT and mask an earlier one has, such as of a folder and of a file in it."""
    kept: dict[tuple[str, ...], Case] = {}
    for case in cases:
        paths = (case.path, *case.files, *([case.mask] if case.mask else []))
        key = (case.series, *(os.path.realpath(path) for path in paths))
        if key in kept:
            left_out.append(LeftOut(case.path, case.about, f"the same CT as {kept[key].id}"))
        else:
            kept[key] = case
    return list(kept.values())


def reasons_counted(left_out: Sequence[LeftOut]) -> str:
    """How many inputs were left out for which kind of reason, the most frequent four."""
    kinds = Counter(re.split(r"[,;]| (?:of|as) (?=[/\\]|[A-Z]:)", one.reason)[0] for one in left_out)
    named = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(4))
    return f"{named}, ..." if len(kinds) > 4 else named


def _placed(case: Case, name: str) -> Case:
    """The case with its final id and absolute paths, which hold in every process."""
    mask = case.mask.absolute() if case.mask else None
    return replace(
        case, id=name, path=case.path.absolute(), mask=mask, files=tuple(file.absolute() for file in case.files)
    )


def _expanded(given: Path) -> list[tuple[Path, Path]]:
    """What a path or a pattern stands for, each with the folder that names are counted from."""
    if os.path.lexists(given):
        return [(given, given.parent)]
    if not glob.has_magic(str(given)):
        raise AirwaySegError(f"{given} does not exist.")
    found = sorted(Path(path) for path in glob.glob(str(given), recursive=True))
    if not found:
        raise AirwaySegError(f"Nothing has a name of the pattern {given}.")
    base = given.parent
    while glob.has_magic(str(base)):
        base = base.parent
    return [(path, base) for path in found]


def _file_case(path: Path, base: Path) -> Case:
    """A file that was named itself; whether it can be segmented shows when it is read."""
    return Case(id_of(_named(path, base)), path, about=judged_image(path, None).about if format_extension(path) else "")


def _named(path: Path, root: Path) -> list[str]:
    """The parts of the path of a file below the root, without its extension."""
    *folders, name = parts_below(path, root)
    extension = format_extension(path) or (".dcm" if name.lower().endswith(".dcm") else "")
    return [*folders, name[: len(name) - len(extension)]]


def _walked(root: Path, output: Path, progress: Progress) -> _Tree:
    """Collect the image files and DICOM series below a folder."""
    tree = _Tree(root)
    looked_at = 0
    for folder, names in _folders(root, output, tree):
        files = list(_usable(folder, names, tree))
        tree.images += [file for file in files if format_extension(file)]
        try:
            with silent_itk():
                candidates = [file for file in files if not format_extension(file) and may_be_dicom(file)]
                images, damaged = read_headers(candidates)
        except OSError as error:  # of a failing disk
            _note(error, tree)
            continue
        tree.series.add(images)
        if damaged:
            tree.damaged[folder] += damaged
        looked_at += len(files)
        progress("search", looked_at, looked_at)
    return tree


def _folders(root: Path, output: Path, tree: _Tree) -> Iterator[tuple[Path, list[str]]]:
    """Every folder with its files, in a stable order; links are followed once, results are passed over."""
    seen = {os.path.realpath(output)}
    for text, folders, names in os.walk(root, followlinks=True, onerror=lambda error: _note(error, tree)):
        folder = Path(text)
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        if all(name in names for name in _RESULT):
            tree.left_out.append(LeftOut(folder, "folder", "a result of AirwaySeg"))
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield folder, sorted(names)


def _note(error: OSError, tree: _Tree) -> None:
    reason = f"cannot be opened: {error.strerror or error}"
    tree.left_out.append(LeftOut(Path(error.filename or tree.root), "folder", reason))


def _usable(folder: Path, names: Sequence[str], tree: _Tree) -> Iterator[Path]:
    """Regular files whose names every library can pass on; hidden ones (macOS adds some) are passed over."""
    for name in names:
        file = folder / name
        if name.startswith(".") or not os.path.isfile(file):
            continue
        if printable(file) != str(file):
            tree.left_out.append(LeftOut(Path(printable(file)), "file", "its name is not plain text in UTF-8"))
        elif format_extension(file) or not (reason := _why_closed(file)):
            yield file  # a CT that cannot be opened becomes a case that failed
        else:
            tree.left_out.append(LeftOut(file, "file", reason))


def _why_closed(file: Path) -> str:
    """Why a file cannot be opened; empty if it can."""
    try:
        file.open("rb").close()
    except OSError as error:
        return f"cannot be opened: {error.strerror or error}"
    return ""


def _image_cases(tree: _Tree, search: Search, name: list[str]) -> list[Case]:
    """A case for each image file that may be a CT of the chest."""
    cases = []
    copies = _copies(tree.images)
    twice: dict[tuple[str, ...], int] = defaultdict(int)
    for path in tree.images:
        twice[tuple(_named(path, tree.root))] += 1
    for path in tree.images:
        judged = judged_image(path, search.thickest_mm)
        reason = f"the same file as {copies[path]}" if path in copies else judged.left_out
        if reason:
            tree.left_out.append(LeftOut(path, judged.about, reason))
            continue
        parts = _named(path, tree.root)
        if twice[tuple(parts)] > 1:
            parts[-1] += (format_extension(path) or "").replace(".", "-")
        cases.append(Case(id_of([*name, *parts]), path, about=judged.about, voxels=judged.voxels))
    return cases


def _copies(files: Sequence[Path]) -> dict[Path, Path]:
    """Files with the bytes of an earlier one, by SHA-256; only files of equal size are read."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for file in files:
        by_size[file.stat().st_size].append(file)
    copies: dict[Path, Path] = {}
    for alike in by_size.values():
        first_with: dict[str, Path] = {}
        for file in alike if len(alike) > 1 else []:
            with suppress(OSError), file.open("rb") as stream:
                first = first_with.setdefault(hashlib.file_digest(stream, "sha256").hexdigest(), file)
                if first != file:
                    copies[file] = first
    return copies


def _dicom_cases(tree: _Tree, search: Search, name: list[str]) -> list[Case]:
    """A case for each DICOM series that is a CT of the chest, and for images that cannot be read."""
    found = tree.series.all()
    reasons = {id(series): why_left_out(series, search.thickest_mm) for series in found}
    usable = [series for series in found if not reasons[id(series)]]
    chosen, others = (usable, []) if search.all_series else best_of_each_scan(usable)
    tree.left_out += [LeftOut(s.folder, str(s), reasons[id(s)]) for s in found if reasons[id(s)]]
    tree.left_out += [
        LeftOut(s.folder, str(s), f"another reconstruction of the scan; {best} is taken") for s, best in others
    ]
    tree.left_out += [LeftOut(copy.folder, str(copy), f"a copy of {of.folder}") for copy, of in tree.series.copies]
    volumes: dict[Path, int] = defaultdict(int)
    for series in found:
        volumes[_common_folder(series)] += series.slices > 1
    lies_in = _series_in_folders([*found, *(copy for copy, _ in tree.series.copies)])
    cases = [_series_case(series, tree, name, lies_in, volumes) for series in chosen]
    known = {file.parent for series in found for file in series.files}
    for folder, files in tree.damaged.items():
        if folder not in known:
            parts = [*name, *parts_below(folder, tree.root)]
            cases.append(Case(id_of(parts), folder, files=tuple(files), about="DICOM that cannot be read"))
    return cases


def _common_folder(series: Series) -> Path:
    parents = {file.parent for file in series.files}
    return next(iter(parents)) if len(parents) == 1 else Path(os.path.commonpath(parents))


def _series_in_folders(every: Sequence[Series]) -> dict[Path, set[int]]:
    """For each folder the series with images in it or below it."""
    lies_in: dict[Path, set[int]] = defaultdict(set)
    for series in every:
        for parent in {file.parent for file in series.files}:
            for folder in (parent, *parent.parents):
                lies_in[folder].add(id(series))
    return lies_in


def _series_case(
    series: Series, tree: _Tree, name: list[str], lies_in: dict[Path, set[int]], volumes: dict[Path, int]
) -> Case:
    """The case of a series; its files are named where its folder holds others, or some that cannot be read."""
    folder = _common_folder(series)
    damaged = [file for parent in {file.parent for file in series.files} for file in tree.damaged.get(parent, [])]
    parts = [*name, *parts_below(folder, tree.root)]
    if volumes[folder] > 1:
        parts[-1] += f"-s{series.first.number}"
    scan = series.first.scan
    return Case(
        id_of(parts),
        folder,
        series=series.first.series_uid,
        files=(*series.files, *damaged) if len(lies_in[folder]) > 1 else (),
        patient=scan.patient_id,
        date=scan.date,
        about=str(series),
        voxels=series.voxels,
    )
