"""How many plain cuts are noticed: whole lobes and larger subtrees taken out of airway masks, one at a time.

    .venv/bin/python Testing/benchmarks/cuts.py MASK ... [--keep FOLDER] [--most 12]

Each subtree is taken out twice: flush with its parent's lumen, and so that a stump of 4 mm is left. A cut is noticed
when a suspect that the whole mask does not have, of a score of 0.5 or more, lies within 15 mm of where the subtree
began. Alarms are the whole mask's suspects of such a score: of the kinds `missing lobe` and `missing branch`, and
all. With ``--keep`` the parsed trees are stored, and another run reads them instead of parsing again.
"""

import argparse
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from AirwaySegLib.files.volume import Volume, read_mask, to_canonical
from AirwaySegLib.masks.components import label_components
from AirwaySegLib.tree.airway_tree import LOBES, AirwayTree
from AirwaySegLib.tree.build import ParsedAirways, parse_airways
from AirwaySegLib.tree.naming import name_branches
from AirwaySegLib.tree.shape import measure_shape
from AirwaySegLib.tree.suspect import MISSING_BRANCH, MISSING_LOBE, Suspect
from AirwaySegLib.tree.suspects import find_suspects

NEAR_MM, LEAST_SCORE = 15.0, 0.5
LEAST_MM, MOST_SHARE, STUMP_MM = 40.0, 0.6, 4.0
"""A subtree of this length, but not most of its lobe, is taken out; a stump is this long outside the parent's lumen."""


@dataclass(frozen=True)
class Cut:
    """``firsts`` are the first branches of what is taken out."""

    kind: str
    what: str
    firsts: tuple[int, ...]


def cuts_of(tree: AirwayTree, most: int) -> list[Cut]:
    """Each lobe, and of the larger subtrees within lobes the ``most`` longest."""
    shape = measure_shape(tree)
    found = []
    for lobe in LOBES:
        own = [branch for branch in tree.main() if branch.lobe == lobe]
        firsts = tuple(b.id for b in own if b.parent is None or tree.branch(b.parent).lobe != lobe)
        if firsts:
            found.append(Cut("lobe", lobe, firsts))
    parts: list[tuple[float, Cut]] = []
    for lobe in found:
        lobe_mm = sum(shape.below_mm[first] for first in lobe.firsts)
        ahead = [(first, 0) for first in lobe.firsts]
        while ahead:
            number, depth = ahead.pop()
            ahead += [(child, depth + 1) for child in shape.forks(number)] if depth < 4 else []
            if depth and LEAST_MM <= shape.below_mm[number] <= MOST_SHARE * lobe_mm:
                parts.append((float(shape.below_mm[number]), Cut("part", f"{lobe.what} {number}", (number,))))
    return found + [cut for _, cut in sorted(parts, key=lambda part: -part[0])[:most]]


def without(airways: ParsedAirways, cut: Cut, stump_mm: float | None) -> Volume:
    """The mask without the branches below a cut; a stump's length counts from where the parent's lumen ends."""
    tree, lines = airways.tree, airways.lines
    gone = np.zeros(len(tree.branches) + 1, bool)
    for first in cut.firsts:
        gone[[branch.id for branch in tree.below(first)]] = True
    lost = gone[airways.branch_of_voxel()]
    if stump_mm is not None:
        for first in cut.firsts:
            near = lines.along_mm[airways.nearest] <= tree.branch(first).radii_mm[0] + stump_mm
            lost &= ~(near & (lines.branch[airways.nearest] == first - 1))
    left = airways.grid.array.copy()
    left[airways.box][tuple(airways.lumen.voxels[lost].T)] = 0
    labels = label_components(left != 0)
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    return replace(airways.grid, array=(labels == counts.argmax()).astype(np.uint8))


def trees_of(path: Path, most: int, keep: Path | None) -> Iterator[tuple[str, Cut | None, AirwayTree]]:
    """The tree of a mask, and those of all its cuts by "flush" and "stump"."""
    parsed: ParsedAirways | None = None

    def tree_of(name: str, cut: Cut | None = None, stump_mm: float | None = None) -> AirwayTree:
        nonlocal parsed
        stored = keep / f"{path.parent.name}-{path.name.split('.')[0]}-{name}.json" if keep else None
        if stored is not None and stored.exists():
            tree = AirwayTree.from_json(stored.read_text("utf-8"))
            return name_branches(replace(tree, warnings=()))
        if parsed is None:
            mask = to_canonical(read_mask(path))
            labels = label_components(mask.array == 1)  # 2 in a simulated label: faint, mucus, or not connected
            parsed = parse_airways(replace(mask, array=(labels == 1 + np.bincount(labels.ravel())[1:].argmax()) * 1))
        tree = parsed.tree if cut is None else parse_airways(without(parsed, cut, stump_mm)).tree
        if stored is not None:
            stored.parent.mkdir(parents=True, exist_ok=True)
            stored.write_text(tree.to_json(), "utf-8")
        return tree

    whole = tree_of("whole")
    yield "whole", None, whole
    for cut in cuts_of(whole, most):
        for name, stump_mm in (("flush", None), ("stump", STUMP_MM)):
            yield name, cut, tree_of(f"{cut.what.replace(' ', '-')}-{name}", cut, stump_mm)


def is_noticed(found: list[Suspect], before: list[Suspect], points_mm: list[np.ndarray]) -> bool:
    """Whether a suspect that was not there before lies near one of the points at which something was taken out."""
    new = [s for s in found if not any(b.kind == s.kind and math.dist(b.place_mm, s.place_mm) < 5 for b in before)]
    return any(math.dist(s.place_mm, point) <= NEAR_MM for s in new for point in points_mm)


def certain(tree: AirwayTree) -> list[Suspect]:
    """The suspects of a score that says more likely than not."""
    return [suspect for suspect in find_suspects(tree) if suspect.score >= LEAST_SCORE]


def main() -> None:
    """Print one row for each mask, and the sum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("masks", nargs="+", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--most", type=int, default=12)
    options = parser.parse_args()
    rows = [(kind, name) for kind in ("lobe", "part") for name in ("flush", "stump")]
    total: Counter[tuple[str, str, bool]] = Counter()
    print("mask", *(f"{kind} {name}" for kind, name in rows), "alarms (missing, all)", sep=" | ")
    for path in options.masks:
        counts: Counter[tuple[str, str, bool]] = Counter()
        whole, before = None, []
        for name, cut, tree in trees_of(path, options.most, options.keep):
            if cut is None:
                whole, before = tree, certain(tree)
                continue
            points = [whole.branch(first).points_mm[0] for first in cut.firsts]
            counts[cut.kind, name, is_noticed(certain(tree), before, points)] += 1
        alarms = sum(suspect.kind in (MISSING_LOBE, MISSING_BRANCH) for suspect in before)
        print(path.parent.name, *_cells(counts, rows), f"{alarms}, {len(before)}", sep=" | ", flush=True)
        total += counts
    print("all", *_cells(total, rows), "", sep=" | ")


def _cells(counts: Counter[tuple[str, str, bool]], rows: list[tuple[str, str]]) -> list[str]:
    return [f"{counts[*row, True]} of {counts[*row, True] + counts[*row, False]}" for row in rows]


if __name__ == "__main__":
    main()
