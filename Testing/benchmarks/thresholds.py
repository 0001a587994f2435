"""Probabilities of several weights on real CTs, at several thresholds: how much airway, and how much of it is shown.

Sets and CTs are those of `real.py`. Weights may be surer of themselves than others: compare rows of equal precision, or
of equal share without a lumen, not of equal thresholds. No repair takes part.

    .venv/bin/python Testing/benchmarks/thresholds.py --cts CTS --sets NAME=SET NAME=SET [--cases CASE ...]

Lengths along centerlines without the trachea in mm: of the largest component ("tree") and of all components of at least
5 voxels ("all"), of each also how much has a lumen in the CT (`lumen_evidence.py`); with a reference the share of its
skeleton's length that all components cover, and their precision, in %.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from real import LEAST_VOXELS, Figures, Lines, folder_of, image_in, markdown, reference_figures

from AirwaySegLib.files.volume import Volume, read_ct, read_mask, read_probability, to_canonical
from AirwaySegLib.masks.components import label_components

THRESHOLDS = (0.5, 0.7, 0.85, 0.95)


def figures_at(threshold: float, probability: Volume, ct: Volume, reference: NDArray[np.bool_] | None) -> Figures:
    """Figures of one probability (0 to 255) at a threshold."""
    labels = label_components(probability.array >= round(threshold * 255))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    mask = (sizes >= LEAST_VOXELS)[labels]
    lines = Lines.of(replace(probability, array=mask.astype(np.uint8)), ct)
    below = lines.below_trachea
    tree = below & lines.of_tree
    figures = {
        "tree": lines.total_mm(tree),
        "tree, lumen": lines.total_mm(tree & lines.lumen),
        "all": lines.total_mm(below),
        "all, lumen": lines.total_mm(below & lines.lumen),
        "no lumen %": lines.without_lumen(below),
    }
    if reference is not None:
        found = reference_figures(mask, reference, ct)
        figures |= {name: found[name] for name in ("covered %", "precision %")}
    return figures


def measure_case(cts: Path, case: str, sets: dict[str, Path], thresholds: list[float]) -> Iterator[tuple[str, Figures]]:
    """Name of each set with each threshold, and its figures on one case."""
    path, reference_path = image_in(cts / case, "ct"), image_in(cts / case, "reference")
    assert path is not None
    ct = to_canonical(read_ct(path)[0])
    reference = None if reference_path is None else to_canonical(read_mask(reference_path)).array != 0
    for name, results in sets.items():
        folder = folder_of(results, case)
        assert folder is not None
        stored = read_mask(folder / "airways.nrrd")
        values = read_probability(folder / "probability.nrrd", stored)
        probability = to_canonical(replace(stored, array=values))
        for threshold in thresholds:
            yield f"{name}, {threshold:g}", figures_at(threshold, probability, ct, reference)


def main() -> int:
    """Measure every case that all sets have and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cts", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--cases", nargs="*", default=[])
    parser.add_argument("--thresholds", nargs="+", type=float, default=THRESHOLDS)
    options = parser.parse_args()
    if not all("=" in text for text in options.sets):
        parser.error("--sets are not all of the form NAME=FOLDER")
    sets = {name: Path(folder) for name, folder in (text.split("=", 1) for text in options.sets)}
    rows: list[tuple[str, str, Figures]] = []
    for case in options.cases or sorted(path.name for path in options.cts.iterdir() if path.is_dir()):
        if image_in(options.cts / case, "ct") is None or any(folder_of(one, case) is None for one in sets.values()):
            print(f"{case} is left out: a set or the CT lacks it", file=sys.stderr)
            continue
        measured = measure_case(options.cts, case, sets, list(options.thresholds))
        rows += [(case, name, figures) for name, figures in measured]
        print(f"{case} is measured", file=sys.stderr, flush=True)
    print(markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
