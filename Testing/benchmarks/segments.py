"""Lobes and segments of drawn trees with known truth, in patients who lie straight and askew; and of real results.

    .venv/bin/python Testing/benchmarks/segments.py [--trees 6] [RESULT ...]

Every way of the drawn tree is turned at random by about 10 or 20 per cent. For each tilt (about all three axes, both
ways) a row with the share of the branches whose lobe is right, and the shares of the 18 segmental bronchi whose segment
is right, wrong and not named. The directions of the drawn tree are not those of the atlas. Of each RESULT, a folder
with tree.json, the named segments are printed with the confidence of their first branch.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "support")]

from lungtrees import WHOLE, Drawing, draw, turn

from AirwaySegLib.tree.airway_tree import AirwayTree
from AirwaySegLib.tree.naming import name_branches
from AirwaySegLib.tree.segments import SEGMENTS

RIGHT_CODES = {f"B{number}": f"RB{number}" for number in range(1, 11)}
LEFT_CODES = {f"l B{number}": f"LB{number}" for number in ("1+2", 3, 4, 5, 6, 8, 9, 10)}
CODES = RIGHT_CODES | LEFT_CODES
"""Segments by the names of the drawn bronchi."""


def shares(drawings: Iterable[Drawing]) -> list[float]:
    """Lobes right; segmental bronchi right, wrong and not named."""
    lobes, segments = [], []
    for drawing in drawings:
        lobes.append(drawing.lobes_right())
        segments += [(drawing.of(name).segment, code) for name, code in CODES.items()]
    right = np.mean([found == code for found, code in segments])
    named = np.mean([bool(found) for found, _ in segments])
    return [float(np.mean(lobes)), float(right), float(named - right), float(1 - named)]


def main() -> None:
    """Print the table, and the segments of results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="*", type=Path)
    parser.add_argument("--trees", type=int, default=6)
    options = parser.parse_args()
    print("turned by | tilt | lobes right | segments right | wrong | not named")
    for wobble in (0.1, 0.2):
        straight = [draw(WHOLE, wobble=wobble, seed=seed) for seed in range(options.trees)]
        for degrees in (0, 10, 20, 25):
            ways = [(axis, sign * degrees) for axis in range(3) for sign in (-1, 1)] if degrees else [(0, 0)]
            tilted = [drawing.moved(turn(axis, by)) for drawing in straight for axis, by in ways]
            cells = [f"{100 * value:.1f}" for value in shares(tilted)]
            print(f"{100 * wobble:.0f} %", f"{degrees} degrees", *cells, sep=" | ", flush=True)
    for folder in options.results:
        tree = name_branches(replace(AirwayTree.from_json((folder / "tree.json").read_text("utf-8")), warnings=()))
        best: dict[str, float] = {}
        for branch in tree.branches:
            best[branch.segment] = max(best.get(branch.segment, 0.0), branch.segment_confidence)
        named = [f"{code} {best[code]:.2f}" for code in SEGMENTS if code in best]
        print(f"{folder.name}: {len(named)} of {len(SEGMENTS)} named: {', '.join(named)}")


if __name__ == "__main__":
    main()
