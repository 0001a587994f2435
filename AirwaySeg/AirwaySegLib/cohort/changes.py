"""What has changed in a patient since the first CT: measured on branches that both trees show, or not at all."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from AirwaySegLib.cohort.areas import lumen_area_mm2
from AirwaySegLib.cohort.case import Case
from AirwaySegLib.tree.airway_tree import AirwayTree, Branch
from AirwaySegLib.tree.matching import Match, match_trees

TreeOf = Callable[[Case], AirwayTree | None]
"""Gives the tree of a finished case; None where there is none."""


@dataclass(frozen=True)
class Change:
    """The columns `columns.CHANGE_COLUMNS` of a case, and `columns.BRANCH_CHANGE_COLUMNS` of its branches by id."""

    row: dict[str, Any]
    branches: dict[int, dict[str, Any]]


def changes_of(cases: Sequence[Case], tree_of: TreeOf) -> dict[str, Change]:
    """The changes since the first date of each patient, by the ids of the later cases whose match is sound.

    Cases without a patient or without a date (YYYYMMDD or YYYY-MM-DD) have none. Of several first CTs of one day the
    one that matches best is compared.
    """
    found = {}
    for dated in _by_patient(cases).values():
        first_day = min(dated)
        earlier = [(case, tree) for case in dated[first_day] if (tree := tree_of(case)) is not None]
        for day, later in dated.items():
            for case in later if day > first_day and earlier else ():
                change = _change(case, tree_of(case), earlier, (day - first_day).days)
                if change is not None:
                    found[case.id] = change
    return found


def _by_patient(cases: Sequence[Case]) -> dict[str, dict[date, list[Case]]]:
    """The cases of each patient by date, of those with several dates."""
    dated: dict[str, dict[date, list[Case]]] = defaultdict(lambda: defaultdict(list))
    for case in cases:
        day = day_of(case.date)
        if case.patient and day is not None:
            dated[case.patient][day].append(case)
    return {patient: days for patient, days in dated.items() if len(days) > 1}


def day_of(text: str) -> date | None:
    """The date that a text gives, None if it gives none."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _change(
    case: Case, tree: AirwayTree | None, earlier: Sequence[tuple[Case, AirwayTree]], days: int
) -> Change | None:
    """The change of a case since the earlier one that matches best; None where no match is sound."""
    if tree is None:
        return None
    matches = [(match_trees(before, tree), other, before) for other, before in earlier]
    sound = [each for each in matches if each[0].is_sound]
    if not sound:
        return None
    match, other, before = max(sound, key=lambda each: len(each[0].pairs))
    pairs = [(before.branch(first), tree.branch(second)) for first, second in match.pairs.tolist()]
    return Change(
        {"change_from": other.id, "change_days": days, **_means(pairs, match)},
        {now.id: _of_branch(then, now) for then, now in pairs},
    )


def _means(pairs: Sequence[tuple[Branch, Branch]], match: Match) -> dict[str, Any]:
    """Changes over all pairs of branches, each weighted by its earlier length."""
    weights = np.array([max(then.length_mm, 1e-6) for then, _ in pairs])
    areas = np.array([[lumen_area_mm2(branch) for branch in pair] for pair in pairs])
    then, now = (float(np.average(column, weights=weights)) for column in areas.T)
    walls = np.array([_wall_change_mm(*pair) for pair in pairs], float)
    known = ~np.isnan(walls)
    lengths = np.array([[branch.length_mm for branch in pair] for pair in pairs]).sum(axis=0)
    return {
        "change_branches": len(pairs),
        "change_lumen_area_mm2": now - then,
        "change_lumen_area_percent": 100 * (now / then - 1),
        "change_length_percent": 100 * (float(lengths[1] / lengths[0]) - 1),
        "change_wall_thickness_mm": float(np.average(walls[known], weights=weights[known])) if known.any() else None,
        "change_scale": match.scale,
    }


def _of_branch(then: Branch, now: Branch) -> dict[str, Any]:
    wall_mm = _wall_change_mm(then, now)
    return {
        "earlier_branch": then.id,
        "change_length_mm": now.length_mm - then.length_mm,
        "change_lumen_area_mm2": lumen_area_mm2(now) - lumen_area_mm2(then),
        "change_wall_thickness_mm": wall_mm,
    }


def _wall_change_mm(then: Branch, now: Branch) -> float:
    """Change of the wall's thickness; NaN where one of the CTs did not show it."""
    values = [None if branch.wall is None else branch.wall.thickness_mm for branch in (then, now)]
    return np.nan if values[0] is None or values[1] is None else float(values[1] - values[0])
