"""Figures of the model card: the command line's results against references.

Each case is a folder with ct.nrrd and label.nrrd (1 airway, 2 left out), or a pair CT=MASK. A CT is segmented by the
command line itself, into a folder that is kept.

    .venv/bin/python Testing/benchmarks/accuracy.py -o FOLDER [--weights NAME] [--pairs CT=MASK ...] [CASE ...]
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from AirwaySegLib.__main__ import main as airwayseg
from AirwaySegLib.evaluation.metrics import dice, precision, share_outside, tree_length_detected
from AirwaySegLib.masks.components import label_components


def read(path: Path) -> np.ndarray:
    """Voxels (Z, Y, X) of an image file."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def measure(result: Path, reference: Path) -> dict[str, float]:
    """Rates in per cent, from the mask in ``result`` and the reference's file."""
    mask = read(result / "airways.nrrd") > 0
    labels = read(reference)
    airway, left_out = labels == 1, labels == 2
    report = json.loads((result / "report.json").read_text())
    return {
        "TLD": 100 * tree_length_detected(mask, airway),
        "precision": 100 * precision(mask, airway, left_out),
        "DSC": 100 * dice(mask, airway, left_out),
        "outside": 100 * share_outside(mask & ~left_out, airway),
        "parts": int(label_components(mask).max()),
        "ml": report["result"]["millilitres"],
        "threshold": report["decisions"]["threshold"],
        "seconds": sum(report["seconds"].values()),
    }


def main() -> int:
    """Segment every case and print one row for each, and the mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", type=Path)
    parser.add_argument("--pairs", nargs="*", default=[], metavar="CT=MASK")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--weights", default="default")
    parser.add_argument("--options", default="", help="more options of `airwayseg segment`, in one text")
    options = parser.parse_args()
    pairs = [(case.name, case / "ct.nrrd", case / "label.nrrd") for case in options.cases]
    for pair in options.pairs:
        ct, mask = (Path(part) for part in pair.split("="))
        pairs.append((ct.name.split(".")[0], ct, mask))
    rows = []
    for name, ct, reference in pairs:
        result = options.output / name
        more = ["--weights", options.weights, "--progress", "none", *options.options.split()]
        if airwayseg(["segment", str(ct), "-o", str(result), "--force", *more]) != 0:
            return 2
        row = measure(result, reference)
        if not rows:
            print(f"{'case':<24}" + "".join(f"{key:>11}" for key in row))
        rows.append(row)
        print(f"{name:<24}" + "".join(f"{value:11.2f}" for value in row.values()), flush=True)
    print(f"{'mean':<24}" + "".join(f"{np.mean([row[key] for row in rows]):11.2f}" for key in rows[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
