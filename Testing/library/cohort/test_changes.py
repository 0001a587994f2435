"""Changes of a patient between two dates: columns where the trees match, none where they do not."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from lungtrees import grown, scanned_again, turn

from AirwaySegLib.cohort.case import Case
from AirwaySegLib.cohort.changes import changes_of, day_of
from AirwaySegLib.cohort.columns import BRANCH_CHANGE_COLUMNS, CHANGE_COLUMNS
from AirwaySegLib.cohort.tables import write_tables
from AirwaySegLib.tree.airway_tree import AirwayTree
from AirwaySegLib.tree.export import write_table
from AirwaySegLib.tree.wall import Wall

FIRST, LATER, STRANGER = (
    Case(name, Path(name), patient="P1", date=day)
    for name, day in (("a", "20200101"), ("b", "2021-01-01"), ("c", "20220101"))
)


@pytest.fixture(scope="module")
def trees() -> dict[str, AirwayTree]:
    """The first CT, the same patient with lumens a tenth wider, turned and without some tips, and another patient."""
    first = grown(0).tree
    later, _ = scanned_again(first, turn(0, 10), lost=0.1, wider=1.1)
    return {"a": first, "b": later, "c": grown(1).tree}


def test_lumens_a_tenth_wider_are_found_and_lengths_stay(trees):
    changes = changes_of([LATER, FIRST], lambda case: trees[case.id])
    assert set(changes) == {"b"}
    row = changes["b"].row
    assert (row["change_from"], row["change_days"]) == ("a", 366) and row["change_branches"] > 60
    assert row["change_lumen_area_percent"] == pytest.approx(21, abs=0.5)
    assert row["change_length_percent"] == pytest.approx(0, abs=0.1) and row["change_scale"] == pytest.approx(
        1, abs=0.01
    )
    assert row["change_wall_thickness_mm"] is None
    assert set(row) == {column.name for column in CHANGE_COLUMNS}
    assert len(changes["b"].branches) == row["change_branches"]
    for number, values in changes["b"].branches.items():
        then, now = trees["a"].branch(values["earlier_branch"]), trees["b"].branch(number)
        assert set(values) == {column.name for column in BRANCH_CHANGE_COLUMNS}
        assert values["change_lumen_area_mm2"] > 0 and now.length_mm == pytest.approx(then.length_mm, rel=0.01)


def test_walls_are_compared_where_both_cts_show_them(trees):
    def walled(tree: AirwayTree, thickness_mm: float) -> AirwayTree:
        wall = Wall(3.0, thickness_mm, 0.9, 0.9, None, None, None, 0.0)
        return tree.with_branches([dataclasses.replace(b, wall=wall if b.id % 3 else None) for b in tree.branches])

    both = {"a": walled(trees["a"], 1.2), "b": walled(trees["b"], 1.5)}
    change = changes_of([FIRST, LATER], lambda case: both[case.id])["b"]
    assert change.row["change_wall_thickness_mm"] == pytest.approx(0.3)
    assert np.isnan([values["change_wall_thickness_mm"] for values in change.branches.values()]).any()


def test_another_patient_another_name_one_date_or_none_have_no_changes(trees):
    def found(*cases: Case) -> set[str]:
        return set(changes_of(cases, lambda case: trees[case.id]))

    assert found(FIRST, STRANGER) == set() and found(FIRST, LATER, STRANGER) == {"b"}
    assert found(FIRST, dataclasses.replace(LATER, patient="P2")) == set()
    assert found(FIRST, dataclasses.replace(LATER, patient=""), dataclasses.replace(FIRST, patient="")) == set()
    assert found(FIRST, dataclasses.replace(LATER, date=FIRST.date)) == set()
    assert found(FIRST, dataclasses.replace(LATER, date="spring")) == set()
    assert not changes_of([FIRST, LATER], lambda case: trees["b"] if case is LATER else None)
    assert day_of("20210304") == day_of("2021-03-04") and day_of("") is None and day_of("4.3.2021") is None


def test_the_tables_have_the_columns_only_if_a_patient_has_changes(trees, tmp_path):
    cases = [FIRST, LATER, STRANGER]
    for case in cases:
        folder = tmp_path / "cases" / case.id
        folder.mkdir(parents=True)
        (folder / "tree.json").write_text(trees[case.id].to_json())
        write_table(folder / "branches.csv", trees[case.id])
        source = {"series_uid": None, "spacing_mm_zyx": [1, 1, 1], "shape_zyx": [9, 9, 9]}
        report = {"decisions": {}, "input": source, "warnings": [], "seconds": {}, "result": {"millilitres": 1}}
        (folder / "report.json").write_text(json.dumps(report | {"model": {"name": "", "sha256": ""}, "program": ""}))
    write_tables(tmp_path, cases)
    first, later, stranger = rows(tmp_path / "cohort.csv")
    assert list(later)[-8] == "seconds" and later["change_from"] == "a" and later["change_lumen_area_percent"]
    assert not any(row[column.name] for row in (first, stranger) for column in CHANGE_COLUMNS)
    branches = rows(tmp_path / "branches.csv")
    assert {row["case"] for row in branches if row["earlier_branch"]} == {"b"}
    write_tables(tmp_path, [FIRST, STRANGER])
    names = {*rows(tmp_path / "cohort.csv")[0], *rows(tmp_path / "branches.csv")[0]}
    assert not names & {column.name for column in (*CHANGE_COLUMNS, *BRANCH_CHANGE_COLUMNS)}


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
