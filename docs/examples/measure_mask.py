"""Measure an airway mask of any program: python measure_mask.py MASK"""

import sys
from pathlib import Path

from AirwaySegLib.files.volume import read_mask, to_canonical
from AirwaySegLib.tree.airway_tree import AirwayTree
from AirwaySegLib.tree.build import parse_airways


def measure_mask(mask_file: Path) -> AirwayTree:
    """The tree of a mask, in millimetres: branches with centerlines, radii, generations and names."""
    return parse_airways(to_canonical(read_mask(mask_file))).tree


if __name__ == "__main__":
    for branch in measure_mask(Path(sys.argv[1])).main():
        print(
            f"{branch.id:4d}  generation {branch.generation:2d}  {branch.length_mm:6.1f} mm long, "
            f"{branch.mean_diameter_mm:4.1f} mm wide  {branch.name}"
        )
