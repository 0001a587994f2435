"""The page of a cohort and its tables: what is looked at first, nothing from elsewhere, the same values as Parquet."""

import csv
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from lungtrees import WHOLE, draw
from PIL import Image

from AirwaySegLib.cohort.attention import reasons_to_look
from AirwaySegLib.cohort.case import Case
from AirwaySegLib.cohort.columns import BRANCH_COLUMNS, CASE_COLUMNS
from AirwaySegLib.cohort.figures import by_generation, histogram
from AirwaySegLib.cohort.report import write_report
from AirwaySegLib.cohort.tables import branch_rows, write_parquet
from AirwaySegLib.tree.export import write_table


def a_row(number: int, **changes: Any) -> dict[str, Any]:
    common = {"status": "finished", "warnings": 1, "warning_texts": "The slices are thick (as often).", "leaks": 0}
    values = {"id": f"case{number}", "volume_ml": 50.0 + number, "branches": 100 + number, "length_mm": 2000.0}
    return {**common, **values, "weights": "w", "weights_sha256": "0" * 64, "program": "AirwaySeg", **changes}


def test_failures_outliers_few_branches_leaks_and_rare_warnings_come_first():
    rows = [a_row(number) for number in range(20)]
    rows[3] = a_row(3, status="failed", error="It is damaged.")
    rows[4] |= {"volume_ml": 300.0}
    rows[5] |= {"branches": 12}
    rows[6] |= {"leaks": 2}
    rows[7] |= {"warning_texts": "The slices are thick (as often). | No branch of a lobe was found (rare)."}
    assert reasons_to_look(rows) == [
        ("case3", ["failed: It is damaged."]),
        ("case4", ["large volume (300.0 ml)"]),
        ("case5", ["few branches (12)"]),
        ("case6", ["2 possible leaks"]),
        ("case7", ["No branch of a lobe was found"]),
    ]
    assert reasons_to_look([a_row(1), a_row(2)])[0][1] == ["The slices are thick"]


@pytest.mark.parametrize("count", [1, 3, 300])
def test_the_page_holds_every_case_and_nothing_from_elsewhere(tmp_path, count):
    for number in range(count):
        folder = tmp_path / "cases" / f"case{number}"
        folder.mkdir(parents=True)
        Image.new("RGB", (400, 200)).save(folder / "preview.png")
    rows = [a_row(number, group="<b>&") for number in range(count)]
    write_report(tmp_path, rows, "A <study>")
    page = (tmp_path / "cohort.html").read_text("utf-8")
    assert page.count("data:image/jpeg") == page.count("<tr class=") == count
    assert "<b>&" not in page and "A &lt;study&gt;" in page
    for target in re.findall(r'(?:href|src)="([^"#]+)"', page):
        assert (
            target.startswith("data:")
            or target in ("cohort.csv", "branches.csv", "generations.csv")
            or (tmp_path / target).is_file()
        )
    assert ("<svg" in page) == (count > 1)


def test_a_histogram_counts_every_value_and_skips_what_does_not_exist():
    drawn = histogram([1.0, 2.0, 2.0, float("nan"), None, 9.0], "V")
    assert sum(int(count) for count in re.findall(r": (\d+)</title>", drawn)) == 4 and "median 2" in drawn
    assert histogram([1.0], "V") == "" and "bar" in histogram([3.0, 3.0], "V")
    assert by_generation([[1.0, None], [2.0, None]], "G") == "" and "polyline" in by_generation([[1, 2], [3, 4]], "G")


def test_a_row_of_a_branch_has_the_documented_columns(tmp_path):
    tree = draw(WHOLE).tree
    write_table(tmp_path / "branches.csv", tree)
    rows = list(branch_rows(Case("one", Path("ct")), tree, tmp_path))
    assert len(rows) == len(tree.branches) and set(rows[0]) == {column.name for column in BRANCH_COLUMNS}
    assert float(rows[0]["length_mm"]) == pytest.approx(tree.branches[0].length_mm, abs=0.001)
    assert [column.name.startswith("seconds") for column in CASE_COLUMNS].index(True) == len(CASE_COLUMNS) - 8


def test_parquet_holds_the_values_of_the_table(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = CASE_COLUMNS[:12]
    with (tmp_path / "t.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([column.name for column in columns])
        writer.writerow(["007", "", "20200101", "", "a, b", "", "finished", "", "2", "x | y", "300", "1.25"])
    write_parquet(tmp_path / "t.csv", columns)
    row = parquet.read_table(tmp_path / "t.parquet").to_pylist()[0]
    assert (row["id"], row["date"], row["warnings"], row["slice_mm"]) == ("007", "20200101", 2, 1.25)


# The page in a browser ----------------------------------------------------------------------------------------------

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LONG_ENOUGH_S = 300
CLICKS = """
const seen = {}, column = head => [...document.querySelectorAll("th")].indexOf(head);
const shown = head => [...document.querySelector("tbody").rows].filter(row => !row.hidden)
  .map(row => [row.cells[0].textContent, row.cells[column(head)].textContent]);
for (const head of document.querySelectorAll("th")) {
  head.firstChild.click(); const up = shown(head), said = head.getAttribute("aria-sort");
  head.firstChild.click(); const down = shown(head);
  seen[head.textContent] = {up, down, said: [said, head.getAttribute("aria-sort")],
    sorted: document.querySelectorAll("th[aria-sort]").length}; }
const filter = document.getElementById("filter"); filter.value = "CASE1";
filter.dispatchEvent(new Event("input"));
seen.filtered = shown(document.querySelector("th")).map(row => row[0]);
const end = document.createElement("pre"); end.id = "seen"; end.textContent = JSON.stringify(seen);
document.body.append(end);
"""


def clicked(page: Path) -> dict[str, Any]:
    """What the table shows after a click on each heading, and after a second one."""
    assert BROWSER is not None
    text = page.read_text("utf-8").replace("</body>", f"<script>{{{CLICKS}}}</script></body>")
    page.with_name("clicked.html").write_text(text, "utf-8")
    options = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={page.parent / 'profile'}",
        "--dump-dom",
    )
    address = page.with_name("clicked.html").as_uri()
    shown = subprocess.run([BROWSER, *options, address], capture_output=True, timeout=LONG_ENOUGH_S).stdout
    found = re.search(r'<pre id="seen">(.*)</pre>', shown.decode("utf-8"), re.DOTALL)
    assert found is not None, shown[-2000:]
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    return seen


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
@pytest.mark.parametrize("count", [3, 300])
def test_a_click_on_a_heading_sorts_and_a_second_one_turns_the_order_round(tmp_path, count):
    groups = ["b10", "b9", "", "Ärzte", "<b>zz</b>"]
    rows = [a_row(number, volume_ml=(number * 37 % 101) + 0.04, group=groups[number % 5]) for number in range(count)]
    rows[1] = {"id": "case1", "status": "failed", "error": "It is damaged.", "group": "b9"}
    rows[0] |= {"volume_ml": 9.96}  # shown as 10.0
    write_report(tmp_path, rows, "A study")
    seen = clicked(tmp_path / "cohort.html")
    values = {row["id"]: row.get("volume_ml") for row in rows}
    known = sorted(value for value in values.values() if value is not None)
    for order, expected in (("up", known), ("down", known[::-1])):
        shown = seen["volume (ml)"][order]
        assert [values[name] for name, _ in shown] == [*expected, None] and shown[-1] == ["case1", ""]
    assert seen["volume (ml)"]["said"] == ["ascending", "descending"] and seen["volume (ml)"]["sorted"] == 1
    naturally = ["<b>zz</b>", "Ärzte", "b9", "b10"]  # letters as people sort them, numbers within texts by value
    for order, expected in (("up", naturally), ("down", naturally[::-1])):
        texts = [text for _, text in seen["group"][order]]
        assert list(dict.fromkeys(texts)) == [*(text for text in expected if text in texts), ""]
    assert [name for name, _ in seen["id"]["up"]] == [f"case{number}" for number in range(count)]
    assert [name for name, _ in seen["id"]["down"]] == [f"case{number}" for number in reversed(range(count))]
    assert sorted(seen["filtered"]) == sorted(row["id"] for row in rows if "case1" in row["id"])
