"""The page of a cohort: one HTML file without anything from elsewhere, readable in any browser, also years later."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from AirwaySegLib.cohort.attention import reasons_to_look
from AirwaySegLib.cohort.columns import AREAS, CASE_COLUMNS, CHANGE_COLUMNS, LENGTHS
from AirwaySegLib.cohort.figures import by_generation, histogram
from AirwaySegLib.cohort.page_parts import SCRIPT, STYLE
from AirwaySegLib.cohort.records import CASES, FAILURE, FINISHED
from AirwaySegLib.files.atomic_output import write_text

PAGE = "cohort.html"
MOST_LOOKED_AT = 30
MOST_PICTURES = 1000
"""Cases with a small picture in the page; each has about 6 kB."""

PICTURE_WIDTH = 260
_SHOWN = (
    *("id", "group", "status", "warnings", "slice_mm", "volume_ml", "branches", "length_mm", "deepest_generation"),
    *("unconnected", "suspects", "leaks", "change_lumen_area_percent", "threshold", "seconds"),
)
"""Columns of the page's table."""

Row = Mapping[str, Any]


def write_report(output: Path, rows: Sequence[Row], title: str) -> None:
    """Write the page of a cohort from the rows of its table; pictures are read from the results.

    Raises
    ------
    AirwaySegError
        If it cannot be written.
    """
    parts = [_head(rows, title), _look_first(rows), _distributions(rows), _table(rows), _montage(output, rows)]
    body = "\n".join(part for part in parts if part)
    write_text(
        output / PAGE,
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n<body>\n{body}\n'
        f"<script>{SCRIPT}</script>\n</body></html>\n",
    )


def _head(rows: Sequence[Row], title: str) -> str:
    finished = sum(row["status"] == FINISHED for row in rows)
    failed = sum(row["status"] == FAILURE for row in rows)
    others = len(rows) - finished - failed
    states = [f"{finished} of {len(rows)} cases finished"]
    states += [f"{failed} failed"] if failed else []
    states += [f"{others} not run"] if others else []
    weights = sorted({f"{row['weights']} ({str(row['weights_sha256'])[:8]})" for row in rows if row.get("weights")})
    made = sorted({str(row["program"]) for row in rows if row.get("program")})
    by = f"{', '.join(made)}, weights {', '.join(weights)}. " if made else ""
    links = " · ".join(f'<a href="{name}">{name}</a>' for name in ("cohort.csv", "branches.csv", "generations.csv"))
    return (
        f"<h1>{escape(title)}</h1><p>{', '.join(states)}. {escape(by)}Research use only.</p>"
        f'<p>Tables: {links}</p><nav><a href="#first">Look at first</a> <a href="#distributions">Distributions</a> '
        f'<a href="#table">Table</a> <a href="#pictures">Pictures</a></nav>'
    )


def _look_first(rows: Sequence[Row]) -> str:
    found = reasons_to_look(rows)
    finished = {row["id"] for row in rows if row["status"] == FINISHED}
    if not found:
        return '<h2 id="first">Look at first</h2><p>No case stands out.</p>'
    items = [
        f"<li>{_link(name, name in finished)}: {'; '.join(escape(reason) for reason in reasons)}</li>"
        for name, reasons in found[:MOST_LOOKED_AT]
    ]
    rest = len(found) - len(items)
    more = f"<p>And {rest} more; sort the table by status, volume, leaks or warnings.</p>" if rest else ""
    return f'<h2 id="first">Look at first ({len(found)})</h2><ol>{"".join(items)}</ol>{more}'


def _distributions(rows: Sequence[Row]) -> str:
    done = [row for row in rows if row["status"] == FINISHED]

    def of(name: str) -> list[Any]:
        return [row.get(name) for row in done]

    figures = [
        histogram(of("volume_ml"), "Volume of the lumen in ml"),
        histogram(of("branches"), "Branches"),
        histogram([value / 1000 for value in of("length_mm") if value is not None], "Length of the tree in m"),
        histogram(of("unconnected_ml"), "Certain pieces that are not connected, in ml"),
        by_generation([[row.get(name) for name in LENGTHS.values()] for row in done], "Length by generation in mm"),
        by_generation([[row.get(name) for name in AREAS.values()] for row in done], "Mean lumen area in mm²"),
    ]
    drawn = "".join(figures)
    if not drawn:
        return ""
    return f'<h2 id="distributions">Distributions</h2><div class="figures">{drawn}</div>'


def _table(rows: Sequence[Row]) -> str:
    columns = {column.name: column for column in (*CASE_COLUMNS, *CHANGE_COLUMNS)}
    shown = [name for name in _SHOWN if any(row.get(name) not in (None, "") for row in rows)]
    heads = []
    for name in shown:
        unit = columns[name].unit
        label = re.sub("_(mm|ml|percent)$", "", name).replace("_", " ") + (f" ({unit})" if unit else "")
        heads.append(f'<th title="{escape(columns[name].meaning)}"><button>{escape(label)}</button></th>')
    lines = []
    for row in rows:
        cells = [_cell(name, row, columns[name].kind) for name in shown]
        lines.append(f'<tr class="{row["status"].replace(" ", "-")}">{"".join(cells)}</tr>')
    return (
        f'<h2 id="table">Table</h2><p><label>Only rows with <input id="filter" type="search"></label> '
        f'A click on a heading sorts.</p><div class="wide"><table><thead><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(name: str, row: Row, kind: str) -> str:
    value = row.get(name)
    if name == "id":
        return f"<td>{_link(str(value), row['status'] == FINISHED)}</td>"
    if value is None or value == "" or value != value:
        return "<td></td>"
    if kind == "text":
        return f"<td>{escape(str(value))}</td>"
    text = f"{value:.2f}" if name in ("slice_mm", "threshold") else f"{value:.1f}" if kind == "number" else str(value)
    return f'<td class="number" data-value="{value}">{text}</td>'


def _montage(output: Path, rows: Sequence[Row]) -> str:
    pictures = []
    for row in [row for row in rows if row["status"] == FINISHED][:MOST_PICTURES]:
        picture = _small(output / CASES / row["id"] / "preview.png")
        if picture:
            said = f"{row['volume_ml']:.1f} ml" + (f", {row['branches']} branches" if row.get("branches") else "")
            source = f"{_folder(row['id'])}/preview.png"
            pictures.append(
                f'<figure><a href="{source}"><img loading="lazy" width="{PICTURE_WIDTH}" alt="airways of '
                f'{escape(row["id"])}" src="{picture}"></a>'
                f"<figcaption>{escape(row['id'])}<br>{said}</figcaption></figure>"
            )
    if not pictures:
        return ""
    return f'<h2 id="pictures">Pictures</h2><div class="montage">{"".join(pictures)}</div>'


def _small(preview: Path) -> str:
    """A preview as a small JPEG in a data address; empty if there is none."""
    with suppress(OSError), Image.open(preview) as picture:
        high = round(picture.height * PICTURE_WIDTH / picture.width)
        small = picture.convert("RGB").resize((PICTURE_WIDTH, high), Image.Resampling.LANCZOS)
        content = io.BytesIO()
        small.save(content, "JPEG", quality=72)
        return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
    return ""


def _folder(case_id: str) -> str:
    return f"{CASES}/{quote(case_id)}"


def _link(case_id: str, finished: bool) -> str:
    """The case's name; of a finished one it leads to its preview."""
    return f'<a href="{_folder(case_id)}/preview.png">{escape(case_id)}</a>' if finished else escape(case_id)
