"""Which results are matched as trees of one patient: every pair of results of `segment` or `measure`.

    .venv/bin/python Testing/benchmarks/matching.py RESULT RESULT ...

Results of several patients must not match; two results of one patient should.
"""

import argparse
import sys
from itertools import combinations
from pathlib import Path

from AirwaySegLib.tree.airway_tree import AirwayTree
from AirwaySegLib.tree.matching import match_trees


def main() -> int:
    """Print a line for each pair, and how many matched."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT", help="a folder with tree.json")
    folders = parser.parse_args().results
    trees = {folder: AirwayTree.from_json((folder / "tree.json").read_text(encoding="utf-8")) for folder in folders}
    sound = 0
    for one, other in combinations(folders, 2):
        match = match_trees(trees[one], trees[other])
        sound += match.is_sound
        print(
            f"{one.name} {other.name}: {len(match.pairs)} pairs, {match.covered:.0%} covered, error {match.error:.2f}, "
            f"scale {match.scale:.2f}{', matched' if match.is_sound else ''}"
        )
    print(f"{sound} of {len(folders) * (len(folders) - 1) // 2} pairs of results matched")
    return 0


if __name__ == "__main__":
    sys.exit(main())
