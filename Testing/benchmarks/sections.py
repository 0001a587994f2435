"""Branches of drawn forks whose lumens are not round, beside how many were drawn: what is more or less is wrong.

    .venv/bin/python Testing/benchmarks/sections.py [--spacing 1 1 1] [--only NAME]

Each section is drawn as a left main bronchus, with and without branches beyond, wide in four directions, and as a
trachea, wide in three. A row gives the difference of branches for each of these eleven masks. A second table says
which bronchi of the trachea are kept, by radius and by length beyond the trachea's wall.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from not_round import SECTIONS, a_fork_with, a_trachea_with, a_trachea_with_a_bronchus

from AirwaySegLib.files.volume import Volume
from AirwaySegLib.tree.build import parse_airways

BRONCHUS_WIDE = ((0.0, 1.0, 0.0), (0.0, -1.0, 0.0), (1.0, 0.2, 0.6), (-1.0, -0.2, -0.6))
RADII_MM, BEYOND_MM, DOWN_DEG = (1.5, 2, 3, 4), (3, 4, 6, 8, 10, 12), (20, 45)
TRACHEA_WIDE = ((0.0, 0.3, 1.0), (0.0, 1.0, 0.0), (0.0, -1.0, 0.2))


def main() -> None:
    """Print one row for each section, and how many masks are wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spacing", nargs=3, type=float, default=(1.0, 1.0, 1.0), metavar="MM", help="z, y and x")
    parser.add_argument("--only", default="", help="sections whose name has this in it")
    options = parser.parse_args()
    spacing_mm = (options.spacing[0], options.spacing[1], options.spacing[2])
    wrong = total = 0
    print("section | bronchus | with branches | trachea")
    for name, section in SECTIONS.items():
        if options.only not in name:
            continue
        masks = [
            [(a_fork_with(section, wide, spacing_mm, with_lobes), drawn) for wide in BRONCHUS_WIDE]
            for with_lobes, drawn in ((False, 3), (True, 5))
        ]
        masks.append([(a_trachea_with(section, wide, spacing_mm), 3) for wide in TRACHEA_WIDE])
        cells = [[len(parse_airways(Volume(mask, spacing_mm)).tree.branches) - n for mask, n in row] for row in masks]
        wrong += sum(cell != 0 for row in cells for cell in row)
        total += sum(len(row) for row in cells)
        print(name, *(" ".join(f"{cell:+d}" if cell else "0" for cell in row) for row in cells), sep=" | ", flush=True)
    print(f"{wrong} of {total} masks have wrong branches")
    if not options.only:
        tracheal_bronchi()


def tracheal_bronchi() -> None:
    """Print which bronchi of the trachea are branches, on voxels of 1 x 0.8 x 0.8 mm."""
    spacing_mm = (1.0, 0.8, 0.8)
    print("degrees below the horizontal | radius in mm | beyond the wall:", *(f"{mm} mm" for mm in BEYOND_MM))
    for down_deg in DOWN_DEG:
        for radius_mm in RADII_MM:
            counts = []
            for beyond_mm in BEYOND_MM:
                mask = a_trachea_with_a_bronchus(radius_mm, beyond_mm, down_deg, spacing_mm)
                counts.append(len(parse_airways(Volume(mask, spacing_mm)).tree.branches))
            print(down_deg, radius_mm, " ".join("kept" if n == 5 else str(n) for n in counts), sep=" | ", flush=True)


if __name__ == "__main__":
    main()
