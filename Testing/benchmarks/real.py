"""Results on real CTs that have no reference, two or more sets of them side by side.

A set is a folder of results of `airwayseg segment`: SET/CASE/airways.nrrd or SET/CASE/result/airways.nrrd, with
probability.nrrd beside it. The CTs are CTS/CASE/ct.nrrd (or .nii.gz), with reference.nii.gz (or .nrrd) beside it where
there is a reference mask. Cases that lack a CT or a result of one set are left out, and named.

    .venv/bin/python Testing/benchmarks/real.py --cts CTS --before SET --after SET [--cases CASE ...] [--csv FILE]
    .venv/bin/python Testing/benchmarks/real.py --cts CTS --sets NAME=SET NAME=SET NAME=SET

What is measured, lengths along centerlines in mm:

- connected: the tree (largest component of the mask) without the trachea; further: other components of the mask.
- left: certain pieces that are not in the mask. A piece is a 26-connected component of probability >= 0.5 with at least
  5 voxels that does not touch the mask; it is certain if its mean probability is 0.8 or more. "left lumen" is how much
  of that length has a lumen in the CT. Gas in the oesophagus or bowel may be among them.
- branches, ends: of the tree. components: of the mask, 26-connected; faces: joined by faces only, which the published
  scores count. loops: cut when the tree is parsed. applied: proposals of the repair that were applied.
- no lumen: share of the mask's centerline (%) at which the CT shows no dark centre within a brighter ring
  (`lumen_evidence.py`); chance: how often the rule is met in lung beside the airways (%).
- more: length of what this set has beyond the first one (farther than 2 mm or 1.5 voxels from its mask), and the share
  of that without lumen (%). less: what the first one has beyond this set, with the same share.
- ml by lumen radius, without the trachea; blob: largest piece of the mask beyond the main bronchi that an opening by
  3 mm leaves (ml). A leak shows in both.
- with a reference: share of its skeleton's length in the mask, and within 2 voxels of it; share of the mask more than
  2 voxels outside of it; TLD and precision of the protocol `atm22`.
"""

import argparse
import csv
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from lumen_evidence import evidence_by_chance, lumen_evidence
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from AirwaySegLib.evaluation.metrics import lengths_mm, precision, share, share_outside
from AirwaySegLib.evaluation.reference_parse import largest_component, thinned
from AirwaySegLib.files.volume import Volume, read_ct, read_mask, read_probability, to_canonical
from AirwaySegLib.masks.components import bounding_box, distance_to, label_components, opening
from AirwaySegLib.masks.sparse_mask import FACES, Lumen
from AirwaySegLib.tree.airway_tree import LEFT_MAIN, RIGHT_MAIN, TRACHEA
from AirwaySegLib.tree.build import ParsedAirways, parse_airways

Figures = dict[str, float]

PIECE_PROBABILITY, CERTAIN, LEAST_VOXELS = 0.5, 0.8, 5
BEYOND_MM, BEYOND_VOXELS = 2.0, 1.5
RADII_MM = (1.0, 1.5, 2.5, 4.0)
BLOB_MM = 3.0
NEAR_VOXELS = 2.0


@dataclass(frozen=True)
class Lines:
    """Centerlines of a parsed mask, (S,) points: the length that each stands for, and whether the CT shows a lumen."""

    parsed: ParsedAirways
    length_mm: NDArray[np.float64]
    lumen: NDArray[np.bool_]

    @classmethod
    def of(cls, mask: Volume, ct: Volume) -> "Lines":
        """Parse a mask; ``ct`` lies on its grid."""
        parsed = parse_airways(mask)
        length_mm = np.concatenate([_stretches(branch.along_mm) for branch in parsed.tree.branches])
        return cls(parsed, length_mm, lumen_evidence(ct.array, parsed))

    @property
    def below_trachea(self) -> NDArray[np.bool_]:
        """Points (S,) that are not the trachea's."""
        return np.array([branch.name != TRACHEA for branch in self.parsed.tree.branches])[self.parsed.lines.branch]

    @property
    def of_tree(self) -> NDArray[np.bool_]:
        """Points (S,) of the largest component."""
        return np.array([branch.component == 1 for branch in self.parsed.tree.branches])[self.parsed.lines.branch]

    def total_mm(self, which: NDArray[np.bool_]) -> float:
        """Length of some points' stretches."""
        return float(self.length_mm[which].sum())

    def without_lumen(self, which: NDArray[np.bool_]) -> float:
        """Share of it (%) without a lumen in the CT; NaN for none."""
        return 100 * share(self.total_mm(which & ~self.lumen), self.total_mm(which))

    def places_mm(self) -> NDArray[np.float64]:
        """Points (S, 3) in mm from the whole grid's first voxel."""
        return self.parsed.lines.places_mm + self._corner * np.asarray(self.parsed.grid.spacing_mm)

    def voxels_mm(self) -> NDArray[np.float64]:
        """The mask's voxels (N, 3), likewise."""
        return (self.parsed.lumen.voxels + self._corner) * np.asarray(self.parsed.grid.spacing_mm)

    @property
    def _corner(self) -> NDArray[np.intp]:
        return np.array([part.start for part in self.parsed.box])


@dataclass(frozen=True)
class Result:
    """One result on canonical axes: the mask, the certain pieces that it leaves out (None: none), applied proposals."""

    mask: Lines
    left: Lines | None
    applied: int


def folder_of(results: Path, case: str) -> Path | None:
    """Where a set keeps a case's result."""
    for folder in (results / case, results / case / "result"):
        if (folder / "airways.nrrd").is_file() and (folder / "probability.nrrd").is_file():
            return folder
    return None


def image_in(folder: Path, name: str) -> Path | None:
    """The image of that name, whatever its format."""
    found = (folder / f"{name}{ending}" for ending in (".nrrd", ".nii.gz", ".nii", ".mha"))
    return next((path for path in found if path.is_file()), None)


def certain_pieces(mask: NDArray[np.bool_], probability: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The certain pieces (Z, Y, X) that the mask leaves out, as the head of this file defines them."""
    labels = label_components((probability >= PIECE_PROBABILITY * 255) | mask)
    inside = labels > 0
    sizes = np.bincount(labels[inside], minlength=1)
    means = np.bincount(labels[inside], probability[inside], minlength=1) / np.maximum(sizes, 1) / 255
    certain = (sizes >= LEAST_VOXELS) & (means >= CERTAIN)
    certain[np.unique(labels[mask])] = False
    certain[0] = False
    return certain[labels]


def read_result(folder: Path, ct: Volume) -> Result:
    """Read and parse one result; ``ct`` is canonical."""
    stored = read_mask(folder / "airways.nrrd")
    values = read_probability(folder / "probability.nrrd", stored)
    mask = to_canonical(replace(stored, array=stored.array != 0))
    pieces = certain_pieces(mask.array, to_canonical(replace(stored, array=values)).array)
    left = Lines.of(replace(mask, array=pieces), ct) if pieces.any() else None
    repairs = json.loads((folder / "repairs.json").read_text()) if (folder / "repairs.json").is_file() else {}
    applied = sum(repair["state"] == "applied" for repair in repairs.get("repairs", []))
    return Result(Lines.of(mask, ct), left, applied)


def _stretches(along_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each point of a line stands for: half of the way to its neighbours."""
    steps = np.diff(along_mm)
    return (np.append(steps, 0) + np.append(0, steps)) / 2


def tree_figures(result: Result, ct: Volume) -> Figures:
    """Lengths, numbers and lumen evidence."""
    mask, left = result.mask, result.left
    parsed, below = mask.parsed, mask.below_trachea
    lumen = Lumen.of(parsed.grid.array[parsed.box], parsed.grid.spacing_mm)
    tree = parsed.tree.main()
    return {
        "connected": mask.total_mm(below & mask.of_tree),
        "further": mask.total_mm(below & ~mask.of_tree),
        "left": float(left.length_mm.sum()) if left else 0.0,
        "left lumen": left.total_mm(left.lumen) if left else 0.0,
        "left pieces": len(left.parsed.tree.roots()) if left else 0,
        "branches": len(tree),
        "ends": sum(not branch.children for branch in tree),
        "components": int(lumen.components.max()) + 1,
        "faces": int(lumen.pieces(FACES[3:]).max()) + 1,
        "loops": parsed.tree.loops_cut,
        "applied": result.applied,
        "no lumen %": mask.without_lumen(below),
        "chance %": 100 * evidence_by_chance(ct.array, parsed),
    }


def beyond(one: Lines, other: Lines) -> NDArray[np.bool_]:
    """Which points (S,) below the trachea lie beyond the other mask."""
    limit_mm = max(BEYOND_MM, BEYOND_VOXELS * max(one.parsed.grid.spacing_mm))
    return one.below_trachea & (cKDTree(other.voxels_mm()).query(one.places_mm())[0] > limit_mm)


def difference_figures(here: Lines, first: Lines) -> Figures:
    """What a mask has more and less than the first set's."""
    more, less = beyond(here, first), beyond(first, here)
    return {
        "more": here.total_mm(more),
        "more no lumen %": here.without_lumen(more),
        "less": first.total_mm(less),
        "less no lumen %": first.without_lumen(less),
    }


def leak_figures(mask: Lines) -> Figures:
    """Volume by lumen radius, and the largest wide piece beyond the main bronchi."""
    parsed, spacing_mm = mask.parsed, mask.parsed.grid.spacing_mm
    nearest = parsed.nearest[parsed.in_mask]
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    radii = parsed.lines.radii_mm[nearest[mask.below_trachea[nearest]]]
    kinds = np.bincount(np.digitize(radii, RADII_MM), minlength=len(RADII_MM) + 1) * voxel_ml
    names = [f"ml r < {RADII_MM[0]:g}", *(f"< {radius:g}" for radius in RADII_MM[1:]), "wider"]
    central = np.array([one.name in (TRACHEA, RIGHT_MAIN, LEFT_MAIN) for one in parsed.tree.branches])
    far = parsed.in_mask & ~central[parsed.lines.branch[parsed.nearest]]
    beyond_main = np.zeros(parsed.lumen.shape, bool)
    beyond_main[tuple(parsed.lumen.voxels[far].T)] = True
    blobs = label_components(opening(beyond_main, BLOB_MM, spacing_mm))
    largest = int(np.bincount(blobs[blobs > 0], minlength=1).max())
    return dict(zip(names, kinds.tolist(), strict=True)) | {"blob ml": largest * voxel_ml}


def reference_figures(mask: NDArray[np.bool_], reference: NDArray[np.bool_], ct: Volume) -> Figures:
    """Against a reference mask, in %."""
    box = bounding_box(mask | reference, margin=3)
    assert box is not None
    mask, reference = mask[box], reference[box]
    line = Lumen.of(thinned(reference), ct.spacing_mm)
    length_mm, at = lengths_mm(line), tuple(line.voxels.T)
    near = distance_to(mask, (1.0, 1.0, 1.0))[at] <= NEAR_VOXELS
    total_mm = float(length_mm.sum())
    return {
        "covered %": 100 * share(float(length_mm[mask[at]].sum()), total_mm),
        "covered 2 %": 100 * share(float(length_mm[near].sum()), total_mm),
        "outside %": 100 * share_outside(mask, reference),
        "TLD %": 100 * float(largest_component(mask)[at].mean()),
        "precision %": 100 * precision(mask, reference),
    }


def measure_case(cts: Path, case: str, sets: dict[str, Path]) -> Iterator[tuple[str, Figures]]:
    """Name of each set and its figures on one case."""
    path = image_in(cts / case, "ct")
    assert path is not None
    ct = to_canonical(read_ct(path)[0])
    reference_path = image_in(cts / case, "reference")
    reference = None if reference_path is None else to_canonical(read_mask(reference_path)).array != 0
    first: Result | None = None
    for name, results in sets.items():
        folder = folder_of(results, case)
        assert folder is not None
        result = read_result(folder, ct)
        figures = tree_figures(result, ct) | leak_figures(result.mask)
        if first is not None:
            figures |= difference_figures(result.mask, first.mask)
        if reference is not None:
            figures |= reference_figures(result.mask.parsed.grid.array != 0, reference, ct)
        first = first or result
        yield name, figures


def markdown(rows: list[tuple[str, str, Figures]]) -> str:
    """The figures as a table, one row a case and set; empty where a figure does not exist."""
    names = list(dict.fromkeys(name for _, _, figures in rows for name in figures))
    lines = [f"| case | set | {' | '.join(names)} |", f"| --- | --- |{' ---: |' * len(names)}"]
    for case, column, figures in rows:
        cells = [_cell(figures.get(name, math.nan)) for name in names]
        lines.append(f"| {case} | {column} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.0f}" if value == round(value) or abs(value) >= 100 else f"{value:.1f}"


def means(rows: list[tuple[str, str, Figures]], sets: dict[str, Path]) -> list[tuple[str, str, Figures]]:
    """A row of means for each set."""
    found = []
    for column in sets:
        own = [figures for _, name, figures in rows if name == column]
        names = dict.fromkeys(name for figures in own for name in figures)
        values = {name: [f[name] for f in own if not math.isnan(f.get(name, math.nan))] for name in names}
        found.append(("mean", column, {name: float(np.mean(v)) for name, v in values.items() if v}))
    return found


def _sets(options: argparse.Namespace, parser: argparse.ArgumentParser) -> dict[str, Path]:
    sets = {name: getattr(options, name) for name in ("before", "after") if getattr(options, name) is not None}
    for text in options.sets:
        name, separator, folder = text.partition("=")
        if not separator:
            parser.error(f"{text} is not of the form NAME=FOLDER")
        sets[name] = Path(folder)
    if not sets:
        parser.error("give --before and --after, or --sets")
    return sets


def main() -> int:
    """Measure every case that all sets have, print the table, write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cts", type=Path, required=True)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--after", type=Path)
    parser.add_argument("--sets", nargs="*", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--cases", nargs="*", default=[])
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    sets = _sets(options, parser)
    rows: list[tuple[str, str, Figures]] = []
    for case in options.cases or sorted(path.name for path in options.cts.iterdir() if path.is_dir()):
        lacking = [name for name, results in sets.items() if folder_of(results, case) is None]
        if image_in(options.cts / case, "ct") is None or lacking:
            print(f"{case} is left out: no {', '.join(lacking) or 'CT'}", file=sys.stderr)
            continue
        rows += [(case, name, figures) for name, figures in measure_case(options.cts, case, sets)]
        print(f"{case} is measured", file=sys.stderr, flush=True)
    rows += means(rows, sets)
    print(markdown(rows))
    if options.csv is not None:
        with options.csv.open("w", newline="") as stream:
            names = list(dict.fromkeys(name for _, _, figures in rows for name in figures))
            writer = csv.DictWriter(stream, ["case", "set", *names])
            writer.writeheader()
            writer.writerows({"case": case, "set": column} | figures for case, column, figures in rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
