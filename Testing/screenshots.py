"""Makes the pictures in Resources/Screenshots/ from the program itself, on simulated chest CTs.

    .venv/bin/python Testing/screenshots.py
    .venv/bin/python Testing/screenshots.py --beside CT --beside CT2 -o PAGE.png

The second command only makes the page of simulated CTs, beside real ones, which stay out of the repository.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from AirwaySegLib.__main__ import main as airwayseg
from AirwaySegLib.volume import Volume, read_ct, to_canonical
from AirwaySegTraining.__main__ import main as airwayseg_train
from AirwaySegTraining.simulate import simulate_case

SCREENSHOTS = Path(__file__).parents[1] / "Resources" / "Screenshots"
SEED = "7"

PAGE_SEEDS = (11, 12, 14, 16)
"""The simulated patients of the page."""

LUNG_WINDOW_HU = (-1050, 100)
ORIENTATIONS = ("Axial", "Coronal", "Sagittal")


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
        slicer_picture(ct, Path(folder))
    return 0


def slicer_picture(ct: Path, folder: Path) -> None:
    """The module's panel beside Slicer's own slices and 3D view, with the result of `folder`/result in the scene.

    The panel is drawn on stand-ins for Slicer's widgets, the views by Slicer's own rendering.
    """
    import slicerhost
    from slicerhost import pictures

    host = slicerhost.start()
    if pictures.why_not():
        print(pictures.why_not(), file=sys.stderr)
        return
    import slicer
    from module_scenes import python_slicer

    from AirwaySegSlicer import nodes, segmentation

    os.environ["PATH"] = python_slicer(folder) + os.pathsep + os.environ["PATH"]
    host.clear()
    volume = nodes.read_volume(str(ct))
    volume.SetName("Chest CT")
    slicer.mrmlScene.AddNode(volume)
    volume.CreateDefaultDisplayNodes()
    volume.GetDisplayNode().SetAutoWindowLevel(False)
    volume.GetDisplayNode().SetWindowLevelMinMax(*LUNG_WINDOW_HU)
    slicer.util.setSliceViewerLayers(background=volume)
    airways = segmentation.take_in(str(folder / "result"), volume)
    widget = slicerhost.open_module(host)
    widget._parameterNode.inputVolume = volume
    widget._parameterNode.airways = airways
    slicerhost.click(widget.ui.measureButton)
    host.pump(lambda: not widget.logic.runs.is_running("airways"), limit_s=120)
    slicerhost.choose(widget.ui.overlayComboBox, "generation")
    slicerhost.choose(widget.ui.branchTable, 8)
    host.pump(0.2)
    size = (420, 420)
    views = [pictures.slice_png(folder / f"{name}.png", name, None, size) for name in ORIENTATIONS]
    view3d = pictures.view3d_png(folder / "view3d.png", size)
    panel = pictures.panel_png(folder / "panel.png", widget.parent, 400)
    print(pictures.compose(SCREENSHOTS / "slicer.png", panel, views, view3d))


def simulation_page(target: Path, real: list[Path]) -> int:
    """Two axial slices and a coronal one of simulated chests, and of real ones beside them."""
    volumes = {}
    for seed in PAGE_SEEDS[: max(2, len(PAGE_SEEDS) - len(real))]:
        case = simulate_case(seed)
        volumes[f"simulated, seed {seed}"] = Volume(case.ct, case.spacing_mm)
    volumes |= {path.name: to_canonical(read_ct(path)[0]) for path in real}
    page, axes = plt.subplots(3, len(volumes), figsize=(4 * len(volumes), 11), facecolor="black")
    for column, (title, volume) in enumerate(volumes.items()):
        depth, height, _ = volume.array.shape
        slice_z, row_mm, column_mm = volume.spacing_mm
        views = [(volume.array[int(share * depth)], row_mm / column_mm) for share in (0.58, 0.35)]
        views.append((volume.array[::-1, int(0.5 * height)], slice_z / column_mm))
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
