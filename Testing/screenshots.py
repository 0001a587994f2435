"""Makes the pictures in Resources/Screenshots/ from the program itself, on simulated chest CTs.

    .venv/bin/python Testing/screenshots.py
    .venv/bin/python Testing/screenshots.py --beside CT --beside CT2 -o PAGE.png

The second command only makes the page of simulated CTs, beside real ones, which stay out of the repository.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from AirwaySegLib.__main__ import main as airwayseg
from AirwaySegLib.files.volume import Volume, read_ct, to_canonical
from AirwaySegTraining.__main__ import main as airwayseg_train
from AirwaySegTraining.simulator.simulate import simulate_case

SCREENSHOTS = Path(__file__).parents[1] / "Resources" / "Screenshots"
SEED = "9601"

PAGE_SEEDS = (11, 12, 14, 16)
"""The simulated patients of the page."""

LUNG_WINDOW_HU = (-1050, 100)


def main() -> int:
    """Make all pictures, or the page beside real CTs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=Path, action="append", default=[], metavar="CT", help="a real CT")
    parser.add_argument("-o", "--output", type=Path, help="where the page beside real CTs goes")
    options = parser.parse_args()
    if bool(options.beside) != bool(options.output):
        parser.error("--beside and -o go together")
    if options.beside:
        return simulation_page(options.output, options.beside)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return segmentation_pictures() or simulation_page(SCREENSHOTS / "simulation.png", [])


def segmentation_pictures() -> int:
    """Simulate, segment, keep the preview and the tree."""
    with tempfile.TemporaryDirectory() as folder:
        if airwayseg_train(["simulate", "-o", folder, "--cases", "1", "--seed", SEED]):
            return 1
        ct = next(Path(folder).glob("cases/[!.]*/ct.nrrd"))
        if airwayseg(["segment", str(ct), "-o", f"{folder}/result"]):
            return 1
        for name in ("preview.png", "tree.png"):
            shutil.copy(Path(folder) / "result" / name, SCREENSHOTS / name)
            print(SCREENSHOTS / name)
        # In a process of its own: the LLVM of PyTorch's Triton ends one that draws offscreen.
        script = Path(__file__).with_name("slicer_screenshot.py")
        return subprocess.call([sys.executable, script, ct, f"{folder}/result"])


def simulation_page(target: Path, real: list[Path]) -> int:
    """Two axial slices, a coronal and a sagittal one of simulated chests, and of real ones beside them."""
    volumes = {}
    for seed in PAGE_SEEDS[: max(2, len(PAGE_SEEDS) - len(real))]:
        case = simulate_case(seed)
        volumes[f"simulated, seed {seed}"] = Volume(case.ct, case.spacing_mm)
    volumes |= {path.name: to_canonical(read_ct(path)[0]) for path in real}
    page, axes = plt.subplots(4, len(volumes), figsize=(4 * len(volumes), 14), facecolor="black")
    for column, (title, volume) in enumerate(volumes.items()):
        depth, height, width = volume.array.shape
        slice_z, row_mm, column_mm = volume.spacing_mm
        views = [(volume.array[int(share * depth)], row_mm / column_mm) for share in (0.58, 0.35)]
        views.append((volume.array[::-1, int(0.5 * height)], slice_z / column_mm))
        views.append((volume.array[::-1, :, int(0.36 * width)], slice_z / row_mm))
        for axis, (view, aspect) in zip(axes[:, column], views):
            axis.imshow(view, cmap="gray", vmin=LUNG_WINDOW_HU[0], vmax=LUNG_WINDOW_HU[1], aspect=aspect)
            axis.axis("off")
        axes[0, column].set_title(title, color="white", fontsize=10)
    page.tight_layout()
    page.savefig(target, dpi=70)
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
