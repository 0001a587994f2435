"""Which cases of a cohort to look at first, and why."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from AirwaySegLib.cohort.records import FINISHED

OUTLIER = 3.5
"""Modified z-score above which a value is an outlier (Iglewicz and Hoaglin 1993)."""

FEWEST_CASES = 5
"""With fewer values there is no distribution to lie outside of."""

_TO_DEVIATION = 0.6745
"""The median absolute deviation of a normal distribution in standard deviations."""

FEW = 1 / 3
"""Fewer branches than this part of the median are few. Their distribution is too wide for the z-score alone."""

_FAILED, _OUTLIER, _LEAK, _WARNING = 100.0, 10.0, 3.0, 1.0


def reasons_to_look(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """The ids of cases to look at and why, the most urgent first.

    Failed cases; volumes that are outliers by the modified z-score; few branches; possible leaks; warnings that fewer
    than half of the cases have (one that nearly all have says nothing of a case).
    """
    volumes = _scores(rows, "volume_ml")
    counted = [row["branches"] for row in rows if row.get("branches") is not None]
    few = FEW * float(np.median(counted)) if len(counted) >= FEWEST_CASES else 1.0
    common = _common_warnings(rows)
    found: list[tuple[float, str, list[str]]] = []
    for row, volume in zip(rows, volumes, strict=True):
        weighed = _of_case(row, volume, few, common)
        if weighed:
            found.append((sum(weight for weight, _ in weighed), row["id"], [reason for _, reason in weighed]))
    found.sort(key=lambda one: (-one[0], one[1]))
    return [(name, reasons) for _, name, reasons in found]


def _of_case(row: Mapping[str, Any], volume: float, few: float, common: set[str]) -> list[tuple[float, str]]:
    if row["status"] != FINISHED:
        return [(_FAILED, f"{row['status']}: {row.get('error') or 'it was not run'}")]
    reasons = [(_FAILED, row["error"])] if row.get("error") else []
    if abs(volume) > OUTLIER:
        reasons.append((_OUTLIER, f"{'large' if volume > 0 else 'small'} volume ({row['volume_ml']:.1f} ml)"))
    if row.get("branches") is None:
        reasons.append((_OUTLIER, "nothing was measured"))
    elif row["branches"] <= few:
        reasons.append((_OUTLIER, f"few branches ({row['branches']})"))
    if row.get("leaks"):
        reasons.append((_LEAK, "a possible leak" if row["leaks"] == 1 else f"{row['leaks']} possible leaks"))
    warnings = [text for text in str(row.get("warning_texts") or "").split(" | ") if text and text not in common]
    return reasons + [(_WARNING, re.sub(r" \([^)]*\)", "", text).rstrip(".")) for text in warnings]


def _scores(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """Modified z-scores of a column; 0 where there is no value, or too few or too equal ones."""
    values = np.array([row.get(name) if row.get(name) is not None else np.nan for row in rows], float)
    known = values[~np.isnan(values)]
    if len(known) < FEWEST_CASES:
        return [0.0] * len(rows)
    middle = float(np.median(known))
    spread = float(np.median(np.abs(known - middle)))
    if spread == 0:
        return [0.0] * len(rows)
    return [float(score) for score in np.nan_to_num(_TO_DEVIATION * (values - middle) / spread)]


def _common_warnings(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Warnings of at least half of the finished cases, if there are enough to tell."""
    finished = [str(row.get("warning_texts") or "").split(" | ") for row in rows if row["status"] == FINISHED]
    if len(finished) < FEWEST_CASES:
        return set()
    every = {text for texts in finished for text in texts}
    return {text for text in every if 2 * sum(text in texts for texts in finished) >= len(finished)}
