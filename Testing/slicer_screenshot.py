"""Makes Resources/Screenshots/slicer.png: the module's panel beside Slicer's slices and 3D view.

    .venv/bin/python Testing/slicer_screenshot.py CT FOLDER

FOLDER is what `airwayseg segment CT` wrote. The views are Slicer's own rendering, of Slicer's own scene; the panel is
drawn on stand-ins for Slicer's widgets.
"""

import os
import sys
import tempfile
from pathlib import Path

import slicerhost
from slicerhost import pictures

TARGET = Path(__file__).parents[1] / "Resources" / "Screenshots" / "slicer.png"
LUNG_WINDOW_HU = (-1050, 200)
ORIENTATIONS = ("Axial", "Coronal", "Sagittal")
VIEW_SIZE, SLICE_SIZE = (938, 708), (310, 310)
ZOOM, ZOOM_3D = 1.7, 1.4
FROM_THE_FRONT = (0.15, 1.0, 0.1)
"""From the middle of the tree to the eye (RAS)."""


def main(ct: str, result: str, target: Path = TARGET) -> int:
    """Bring CT and result into a scene, use the panel as a person would, and draw."""
    host = slicerhost.start()
    if pictures.why_not():
        print(pictures.why_not(), file=sys.stderr)
        return 1
    host.clear()
    # As in Slicer the views are there first.
    slices = {name: pictures.SliceView(name, SLICE_SIZE) for name in ORIENTATIONS}
    view3d = pictures.View3D(VIEW_SIZE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        widget = a_panel_with_result(host, ct, result, folder)
        for view in slices.values():
            view.fit(ZOOM)
        show_what_it_does(host, widget)
        view3d.fit(FROM_THE_FRONT, ZOOM_3D)
        files = [view.save(folder / f"{name}.png") for name, view in slices.items()]
        panel = pictures.panel_png(folder / "panel.png", widget.parent, 400)
        print(pictures.compose(target, panel, files, view3d.save(folder / "view3d.png")))
    host.clear()
    return 0


def a_panel_with_result(host: slicerhost.Host, ct: str, result: str, folder: Path):
    """The module's widget with the result in its scene, measured by a press of the button."""
    sys.path.insert(0, str(Path(__file__).with_name("support")))
    import slicer
    from module_scenes import python_slicer

    from AirwaySegSlicer.commands import segment as segmentation
    from AirwaySegSlicer.scene import nodes

    os.environ["PATH"] = python_slicer(folder) + os.pathsep + os.environ["PATH"]
    volume = nodes.read_volume(ct)
    volume.SetName("Chest CT")
    slicer.mrmlScene.AddNode(volume)
    volume.CreateDefaultDisplayNodes()
    volume.GetDisplayNode().SetAutoWindowLevel(False)
    volume.GetDisplayNode().SetWindowLevelMinMax(*LUNG_WINDOW_HU)
    slicer.util.setSliceViewerLayers(background=volume)
    widget = slicerhost.open_module(host)
    host.pump(lambda: not widget.logic.runs.is_running("probe"), limit_s=120)
    widget._parameterNode.inputVolume = volume
    widget._parameterNode.airways = segmentation.take_in(result, volume)
    host.pump()
    slicerhost.click(widget.ui.measureButton)
    host.pump(lambda: not widget.logic.runs.is_running("airways"), limit_s=120)
    return widget


def show_what_it_does(host: slicerhost.Host, widget) -> None:
    """Generations on the surface and over the slices, and one branch chosen."""
    slicerhost.click(widget.ui.overlaySection)
    slicerhost.choose(widget.ui.overlayComboBox, "generation")
    slicerhost.click(widget.ui.slicesCheckBox)
    slicerhost.click(widget.ui.centerlineCheckBox)
    slicerhost.choose(widget.ui.branchTable, 8)
    host.pump(0.2)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
