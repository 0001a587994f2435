"""A cohort as a list: reading a CSV of cases, and writing the cases and what was left out."""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from AirwaySegLib.cohort.case import Case, LeftOut, id_of
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.atomic_output import write_text

COLUMNS = ("id", "ct", "series", "mask", "patient", "date", "group", "about")
"""Of the list that is written; `read_list` needs the first two."""


def read_list(path: Path) -> list[Case]:
    """The cases of a CSV with the columns id and ct, and optionally series, mask, patient, date, group and about.

    Columns stand in any order, separated by commas or semicolons; others are passed over. Paths are relative to the
    list's folder. ``series`` is the UID of one of several DICOM series in the folder ``ct``.

    Raises
    ------
    AirwaySegError
        With the line that is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AirwaySegError(f"{path} cannot be read as a table in UTF-8: {error}.") from None
    first = text.split("\n", 1)[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        reader.fieldnames = [(name or "").strip().lower() for name in reader.fieldnames or []]
        _check_columns(path, reader.fieldnames)
        cases = [_case(row, path, reader.line_num) for row in reader if any(map(_text, row.values()))]
    except csv.Error as error:
        raise AirwaySegError(f"Line {reader.reader.line_num} of {path} is no line of a table: {error}.") from None
    known: set[str] = set()
    for case in cases:
        if case.id.lower() in known:
            raise AirwaySegError(f"{path} gives the id {case.id} to several cases.")
        known.add(case.id.lower())
    return cases


def _check_columns(path: Path, names: Sequence[str]) -> None:
    """Refuse a table without a needed column, or with one that stands there twice."""
    lacking = [name for name in COLUMNS[:2] if name not in names]
    if lacking:
        raise AirwaySegError(f"{path} lacks the column {' and '.join(lacking)}; a list of cases has id and ct.")
    twice = next((name for name in COLUMNS if names.count(name) > 1), None)
    if twice:
        raise AirwaySegError(f"{path} has several columns {twice}.")


def _text(value: str | list[str] | None) -> str:
    """A value of a row; `csv.DictReader` gives None for a missing one, and a list of those beyond the columns."""
    return "".join(value).strip() if value else ""


def _case(row: dict[Any, Any], path: Path, line: int) -> Case:
    """One row of the list."""
    where = f"Line {line} of {path}"
    if _text(row.get(None)):
        raise AirwaySegError(f"{where} has more values than the table has columns; put quotes round commas in values.")
    values = {name: _text(row.get(name)) for name in COLUMNS}
    values["id"] = unicodedata.normalize("NFC", values["id"])  # as `id_of`
    for name in COLUMNS[:2]:
        if not values[name]:
            raise AirwaySegError(f"{where} has no {name}.")
    if "\0" in "".join(values.values()):
        raise AirwaySegError(f"{where} holds a null character.")
    if id_of([values["id"]]) != values["id"]:
        raise AirwaySegError(
            f'{where} has the id "{values["id"]}", which cannot name a folder everywhere; such as '
            f'"{id_of([values["id"]])}" can.'
        )
    ct = path.parent / values["ct"]
    mask = path.parent / values["mask"] if values["mask"] else None
    return Case(
        values["id"],
        ct,
        series=values["series"],
        mask=mask,
        patient=values["patient"],
        date=values["date"],
        group=values["group"],
        about=values["about"],
    )


def write_list(path: Path, cases: Sequence[Case]) -> None:
    """Write a list that `read_list` reads; its paths are absolute.

    Raises
    ------
    AirwaySegError
        If it cannot be written.
    """
    rows = [
        (one.id, one.path.absolute(), one.series, one.mask.absolute() if one.mask else "")
        + (one.patient, one.date, one.group, one.about)
        for one in cases
    ]
    write_rows(path, COLUMNS, rows)


def write_left_out(path: Path, left_out: Sequence[LeftOut]) -> None:
    """Write the table of what was left out: path, what, reason.

    Raises
    ------
    AirwaySegError
        If it cannot be written.
    """
    write_rows(path, ("path", "what", "reason"), [(one.path.absolute(), one.what, one.reason) for one in left_out])


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Comma-separated, UTF-8, a line feed after each row; line breaks within a value become spaces.

    Raises
    ------
    AirwaySegError
        If it cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([re.sub(r"\s*[\r\n]+\s*", " ", str(value)) for value in row] for row in rows)
    write_text(path, text.getvalue())
