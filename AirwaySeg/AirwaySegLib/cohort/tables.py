"""The tables of a cohort: a row for each case, and long tables of all branches and all generations."""

import csv
import importlib
import importlib.util
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from AirwaySegLib.cohort.areas import lumen_area_mm2, mean_lumen_area_mm2
from AirwaySegLib.cohort.case import Case
from AirwaySegLib.cohort.changes import changes_of
from AirwaySegLib.cohort.columns import (
    AREAS,
    BRANCH_COLUMNS,
    GENERATION_COLUMNS,
    LENGTHS,
    LOBE_COLUMNS,
    SECONDS,
    Column,
    columns_of_tables,
)
from AirwaySegLib.cohort.records import FAILURE, FINISHED, WAITING, failure_of, report_of, result_folder
from AirwaySegLib.errors import AirwaySegError, one_sentence
from AirwaySegLib.files.atomic_output import written_whole
from AirwaySegLib.tree.airway_tree import AirwayTree
from AirwaySegLib.tree.export import summarise
from AirwaySegLib.tree.suspect import suspects_from_json

CASES, BRANCHES, GENERATIONS = "cohort.csv", "branches.csv", "generations.csv"
Row = dict[str, Any]
_ARROW_BLOCK = 1 << 20


def write_tables(output: Path, cases: Sequence[Case]) -> list[Row]:
    """Write the three tables, and as Parquet if pyarrow is installed; return the rows of `CASES`.

    Cases are read one after the other: memory does not grow with the branches.

    Raises
    ------
    AirwaySegError
        If a table cannot be written.
    """
    rows = []
    changes = changes_of(cases, lambda case: _tree_if_sound(output, case))
    of_cases, of_branches = columns_of_tables(bool(changes))
    tables = {CASES: of_cases, BRANCHES: of_branches, GENERATIONS: GENERATION_COLUMNS}
    with ExitStack() as stack:
        writers = {name: stack.enter_context(_written(output / name, columns)) for name, columns in tables.items()}
        for case in cases:
            row, long = _rows_of(output, case)
            if case.id in changes and long:
                row |= changes[case.id].row
                for line in long[BRANCHES]:
                    line |= changes[case.id].branches.get(line["branch"], {})
            rows.append(row)
            writers[CASES].writerow(_plain(row))
            for name, lines in long.items():
                writers[name].writerows(map(_plain, lines))
    if importlib.util.find_spec("pyarrow"):
        for name, columns in tables.items():
            write_parquet(output / name, columns)
    return rows


def _rows_of(output: Path, case: Case) -> tuple[Row, dict[str, list[Row]]]:
    """The row of a case, and its rows of the long tables; of a damaged result the row that says so."""
    folder = result_folder(output, case.id)
    try:
        tree = _tree_of(folder)
        row = case_row(output, case, tree)
        if tree is None or row["status"] != FINISHED:
            return row, {}
        return row, {BRANCHES: list(branch_rows(case, tree, folder)), GENERATIONS: generation_rows(case, tree)}
    except (FileNotFoundError, LookupError, TypeError, AttributeError, ValueError, AirwaySegError) as error:
        said = one_sentence(error) if isinstance(error, AirwaySegError) else f"{type(error).__name__}: {error}"
        sentence = (
            f"{folder} does not hold a valid result ({said.rstrip('.')}); remove the folder to have it made again."
        )
    except OSError as error:
        sentence = f"The result in {folder} cannot be read ({error.strerror or error})."
    return {**_of_case(case), "status": FAILURE, "error": sentence}, {}


@contextmanager
def _written(path: Path, columns: Sequence[Column]) -> Iterator[csv.DictWriter]:
    """A table with its header, which appears under its name when the block has ended."""
    with written_whole(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [column.name for column in columns], restval="", lineterminator="\n")
        writer.writeheader()
        yield writer


def _plain(row: Mapping[str, Any]) -> Row:
    """Numbers with three decimals; nothing for None and NaN; text on one line."""
    plain: Row = {}
    for name, value in row.items():
        if isinstance(value, float):
            value = None if math.isnan(value) else round(value, 3)
        plain[name] = "" if value is None else re.sub(r"\s*[\r\n]+\s*", " ", value) if isinstance(value, str) else value
    return plain


def _tree_of(folder: Path) -> AirwayTree | None:
    with suppress(FileNotFoundError):
        return AirwayTree.from_json((folder / "tree.json").read_text(encoding="utf-8"))
    return None


def _tree_if_sound(output: Path, case: Case) -> AirwayTree | None:
    """The tree of a finished case whose result can be read."""
    folder = result_folder(output, case.id)
    with suppress(OSError, ValueError, AirwaySegError):
        return _tree_of(folder) if report_of(folder) else None
    return None


def case_row(output: Path, case: Case, tree: AirwayTree | None) -> Row:
    """The row of one case with the columns `CASE_COLUMNS`, as far as there are values."""
    folder = result_folder(output, case.id)
    report, error = report_of(folder), failure_of(output, case.id)
    row = {**_of_case(case), "error": error}
    if report is None:
        return {**row, "status": FAILURE if error else WAITING}
    return {**row, "status": FINISHED, **_of_report(report), **_of_suspects(folder), **(_of_tree(tree) if tree else {})}


def _of_case(case: Case) -> Row:
    """What is known of a case without its result."""
    row: Row = {"id": case.id, "patient": case.patient, "date": case.date, "group": case.group}
    return {**row, "ct": str(case.path), "series": case.series}


def _of_report(report: Mapping[str, Any]) -> Row:
    """What `report.json` says."""
    decisions, spacing, warnings = report["decisions"], report["input"]["spacing_mm_zyx"], report["warnings"]
    repair, unconnected = decisions.get("repair", {}), decisions.get("unconnected", {})
    seconds = report["seconds"]
    across = _slice_axis(spacing)
    return {
        "series": report["input"]["series_uid"],
        "warnings": len(warnings),
        "warning_texts": " | ".join(warnings),
        "slices": report["input"]["shape_zyx"][across],
        "slice_mm": spacing[across],
        "pixel_mm": min(mm for axis, mm in enumerate(spacing) if axis != across),
        "volume_ml": float(report["result"]["millilitres"]),
        "fragments": repair.get("fragments"),
        "fragments_joined": repair.get("fragments_joined"),
        "repairs_proposed": repair.get("proposals"),
        "repairs_applied": repair.get("applied"),
        "unconnected": unconnected.get("pieces"),
        "unconnected_ml": unconnected.get("millilitres"),
        "threshold": decisions.get("threshold"),
        "weights": report["model"]["name"],
        "weights_sha256": report["model"]["sha256"],
        "program": report["program"],
        "seconds": float(sum(seconds.values())),
        **{f"seconds_{stage}": seconds.get(stage) for stage in SECONDS},
    }


def _slice_axis(spacing_mm: Sequence[float]) -> int:
    """Across which axis of the file the slices follow each other: pixels are square, so the two others are equal."""
    z_mm, y_mm, x_mm = spacing_mm
    return 0 if y_mm == x_mm else 1 if z_mm == x_mm else 2 if z_mm == y_mm else 0


def _of_suspects(folder: Path) -> Row:
    with suppress(FileNotFoundError):
        suspects = suspects_from_json((folder / "suspects.json").read_text(encoding="utf-8"))
        return {"suspects": len(suspects), "leaks": sum(one.kind == "leak" for one in suspects)}
    return {}


def _of_tree(tree: AirwayTree) -> Row:
    """Sums over the tree, without its loose fragments; a generation or lobe without branches has the length 0."""
    main = tree.main()
    row: Row = {
        "branches": len(main),
        "tips": sum(not branch.children for branch in main),
        "deepest_generation": max((branch.generation for branch in main), default=None),
        "length_mm": float(sum(branch.length_mm for branch in main)),
    }
    for generation, name in LENGTHS.items():
        alike = [branch for branch in main if branch.generation == generation]
        row[name] = float(sum(branch.length_mm for branch in alike))
        row[AREAS[generation]] = mean_lumen_area_mm2(alike)
    for lobe, name in LOBE_COLUMNS.items():
        row[name] = float(sum(branch.length_mm for branch in main if branch.lobe == lobe))
    return row


def branch_rows(case: Case, tree: AirwayTree, folder: Path) -> Iterator[Row]:
    """The rows of the table in a result's folder with the columns `BRANCH_COLUMNS`; unknown columns are left out."""
    known = {column.name for column in BRANCH_COLUMNS}
    with (folder / BRANCHES).open(encoding="utf-8", newline="") as stream:
        for own in csv.DictReader(stream):
            branch = tree.branch(int(own["id"]))
            row = {name: value for name, value in own.items() if name in known}
            yield {"case": case.id, "branch": branch.id, **row, "mean_lumen_area_mm2": lumen_area_mm2(branch)}


def generation_rows(case: Case, tree: AirwayTree) -> list[Row]:
    """The rows of one case with the columns `GENERATION_COLUMNS`: generations that occur in the tree."""
    rows = []
    for summary in summarise(tree):
        if summary.group == "generation":
            alike = [branch for branch in tree.main() if branch.generation == int(summary.value)]
            values = {column.name: getattr(summary, column.name, None) for column in GENERATION_COLUMNS}
            values |= {"case": case.id, "generation": int(summary.value)}
            rows.append({**values, "mean_lumen_area_mm2": mean_lumen_area_mm2(alike)})
    return rows


def write_parquet(table: Path, columns: Sequence[Column]) -> None:
    """Write a table that lies there as CSV also as Parquet, block by block; needs pyarrow.

    Raises
    ------
    AirwaySegError
        If it cannot be written.
    """
    arrow, arrow_csv, parquet = map(importlib.import_module, ("pyarrow", "pyarrow.csv", "pyarrow.parquet"))
    kinds = {"text": arrow.string(), "integer": arrow.int64(), "number": arrow.float64()}
    schema = arrow.schema([(column.name, kinds[column.kind]) for column in columns])
    convert = arrow_csv.ConvertOptions(column_types=schema, strings_can_be_null=False)
    read = arrow_csv.ReadOptions(block_size=_ARROW_BLOCK)
    with written_whole(table.with_suffix(".parquet")) as unfinished:
        with arrow_csv.open_csv(table, read_options=read, convert_options=convert) as blocks:
            with parquet.ParquetWriter(unfinished, schema) as writer:
                for block in blocks:
                    writer.write_batch(block)
