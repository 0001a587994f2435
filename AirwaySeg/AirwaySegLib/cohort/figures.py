"""Distributions as inline SVG for the page of a cohort: histograms, and values by generation."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT, MARGIN = 300, 150, 26


def histogram(values: Sequence[float], title: str) -> str:
    """Bars of how many cases have which value; empty for fewer than two values. The dashed line is the median."""
    numbers = np.asarray([value for value in values if value is not None and math.isfinite(value)], float)
    if len(numbers) < 2:
        return ""
    low, high = float(numbers.min()), float(numbers.max())
    if high <= low:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(numbers, bins=min(24, max(5, round(math.sqrt(len(numbers)) * 1.5))), range=(low, high))
    bars = []
    step = (WIDTH - 2 * MARGIN) / len(counts)
    for index, count in enumerate(counts):
        tall = (HEIGHT - 2 * MARGIN) * count / counts.max()
        said = f"{_short(edges[index])} to {_short(edges[index + 1])}: {count}"
        bars.append(
            f'<rect x="{MARGIN + index * step:.1f}" y="{HEIGHT - MARGIN - tall:.1f}" width="{step - 1:.1f}" '
            f'height="{tall:.1f}" class="bar"><title>{said}</title></rect>'
        )
    middle = MARGIN + (float(np.median(numbers)) - low) / (high - low) * (WIDTH - 2 * MARGIN)
    bars.append(f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="{MARGIN}" y2="{HEIGHT - MARGIN}" class="median"/>')
    labels = _text(MARGIN, HEIGHT - 8, _short(low)) + _text(WIDTH - MARGIN, HEIGHT - 8, _short(high), "end")
    labels += _text(middle, MARGIN - 4, f"median {_short(float(np.median(numbers)))}", "middle")
    return _figure(title, "".join(bars) + labels)


def by_generation(rows: Sequence[Sequence[float | None]], title: str) -> str:
    """Median (line) and middle half (band) of the cases for each generation; ``rows`` (cases) of values by generation.

    Generations with fewer than two values are left out; empty if fewer than two are left.
    """
    columns = [[value for value in column if value is not None and math.isfinite(value)] for column in zip(*rows)]
    known = [(number, np.percentile(column, (25, 50, 75))) for number, column in enumerate(columns) if len(column) > 1]
    top = max((float(quarters[2]) for _, quarters in known), default=0.0)
    if len(known) < 2 or top <= 0:
        return ""
    last = known[-1][0]

    def point(number: int, value: float) -> str:
        across = MARGIN + number / max(1, last) * (WIDTH - 2 * MARGIN)
        return f"{across:.1f},{HEIGHT - MARGIN - value / top * (HEIGHT - 2 * MARGIN):.1f}"

    band = [point(n, q[2]) for n, q in known] + [point(n, q[0]) for n, q in reversed(known)]
    line = [point(n, q[1]) for n, q in known]
    drawn = f'<polygon points="{" ".join(band)}" class="band"/><polyline points="{" ".join(line)}" class="line"/>'
    labels = _text(MARGIN, HEIGHT - 8, "generation 0") + _text(WIDTH - MARGIN, HEIGHT - 8, str(last), "end")
    return _figure(title, drawn + labels + _text(MARGIN, MARGIN - 4, _short(top)))


def _figure(title: str, inside: str) -> str:
    axis = f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{HEIGHT - MARGIN}" y2="{HEIGHT - MARGIN}" class="axis"/>'
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{inside}{axis}</svg>'
    return f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>"


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _short(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"
