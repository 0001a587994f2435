"""Makes the pictures of the Slicer tutorial: slicer.png, and tutorial-*.png with the panel at each step.

    .venv/bin/python Testing/slicer_screenshot.py CT FOLDER [STEP ...]
    .venv/bin/python Testing/slicer_screenshot.py CT FOLDER [STEP ...] --pictures PICTURES

FOLDER is what `airwayseg segment CT -o FOLDER` wrote. The steps are clicked through in one session, in the order of the
tutorial; with STEP only these pictures are written. The step `segment` starts a segmentation and cancels it in its
first stage. The views are Slicer's own rendering of Slicer's scene; the panel has stand-ins for Slicer's widgets.

The second command is for looking at the module on any CT: the pictures go into another folder, and there are more of
them: the first point of each kind in the review, what undo gives back, every overlay.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import slicer
import slicerhost
from PIL import Image
from slicerhost import pictures
from tutorial_edits import EditSteps

SCREENSHOTS = Path(__file__).parents[1] / "Resources" / "Screenshots"
LUNG_WINDOW_HU = (-1050, 200)
ORIENTATIONS = ("Axial", "Coronal", "Sagittal")
PANEL_WIDTH = 400
LARGE, SMALL = ((938, 750), (310, 310)), ((760, 560), (250, 250))
"""Pixels (width, height) of the 3D view and of a slice view, in slicer.png and in a step of the tutorial."""
ZOOM, ZOOM_3D = 1.7, 1.4
FROM_THE_FRONT = (0.15, 1.0, 0.1)
"""Direction (RAS) from the middle of the tree to the camera."""
LONG_MM = 12.0
"""Length of the branch that is chosen: it is to be seen."""
LIMIT_S = 600
"""For each command that the panel runs."""


class Session(EditSteps):
    """An open panel with its views, and the pictures that are taken of it."""

    def __init__(self, host: slicerhost.Host, ct: str, result: str, size: tuple) -> None:
        # As in Slicer the views are there before the data.
        self.host, self.ct_path, self.result = host, ct, result
        self.slices = {name: pictures.SliceView(name, size[1]) for name in ORIENTATIONS}
        self.view3d = pictures.View3D(size[0])
        self.widget = slicerhost.open_module(host)
        self.ui, self.logic = self.widget.ui, self.widget.logic
        self.wait("probe")

    def wait(self, slot: str) -> None:
        """Until nothing runs in a slot of the logic."""
        self.host.pump(lambda: not self.logic.runs.is_running(slot), limit_s=LIMIT_S)

    def turn_to(self, tab: str, *sections: str) -> None:
        """Show a tab; open these sections of it, and close its others, by their headers."""
        self.ui.tabs.setCurrentWidget(getattr(self.ui, f"{tab}Tab"))
        self.host.pump()
        for name in ("log", "install", "addCut", "correct", "compare"):
            section = getattr(self.ui, f"{name}Section")
            if section.isVisible() and section.collapsed == (name in sections):
                slicerhost.click(section)

    def picture_of_panel(self, target: Path) -> None:
        """The panel alone, without the empty part below its sections."""
        pictures.panel_png(target, self.widget.parent, PANEL_WIDTH)
        pictures.save_small(Image.open(target), target)

    def picture(self, target: Path) -> None:
        """The panel beside the views."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            panel = pictures.panel_png(folder / "panel.png", self.widget.parent, PANEL_WIDTH)
            files = [view.save(folder / f"{orientation}.png") for orientation, view in self.slices.items()]
            pictures.compose(target, panel, files, self.view3d.save(folder / "view3d.png"))

    # The steps of the tutorial ---------------------------------------------------------------------------------------

    def check(self, target: Path) -> None:
        """The installation is checked."""
        self.turn_to("segment", "install")
        slicerhost.click(self.ui.checkButton)
        self.wait("probe")
        self.picture_of_panel(target)

    def load(self, target: Path) -> None:
        """The CT is in the scene, in the lung window, and chosen."""
        from AirwaySegSlicer.scene import nodes

        volume = nodes.read_volume(self.ct_path)
        volume.SetName("Chest CT")
        slicer.mrmlScene.AddNode(volume)
        volume.CreateDefaultDisplayNodes()
        volume.GetDisplayNode().SetAutoWindowLevel(False)
        volume.GetDisplayNode().SetWindowLevelMinMax(*LUNG_WINDOW_HU)
        slicer.util.setSliceViewerLayers(background=volume)
        self.turn_to("segment")
        slicerhost.choose(self.ui.inputSelector, volume)
        for view in self.slices.values():
            view.fit()
        self.picture(target)

    def settings(self, target: Path) -> None:
        """A region around trachea and left lung is chosen; afterwards the whole CT again."""
        from AirwaySegSlicer.scene import nodes

        ct = self.ui.inputSelector.currentNode()
        region = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Left lung")
        region.CreateDefaultDisplayNodes()
        display = region.GetDisplayNode()
        display.SetFillVisibility(False)  # In an offscreen slice view it would cover the CT.
        display.SetVisibility3D(False)  # Without its fill only its centre would be seen.
        display.SetHandlesInteractive(False)
        display.SetPropertiesLabelVisibility(False)
        nodes.fit_region(region, ct)
        x, y, z = region.GetCenterWorld()
        width, depth, height = region.GetSize()
        region.SetCenterWorld(x - 0.15 * width, y, z)
        region.SetSizeWorld(0.56 * width, 0.64 * depth, 0.98 * height)
        slicerhost.choose(self.ui.regionSelector, region)
        self.picture(target)
        slicerhost.choose(self.ui.regionSelector, None)
        region.SetDisplayVisibility(False)
        self.host.pump(0.2)
        slicer.mrmlScene.RemoveNode(region)

    def segment(self, target: Path) -> None:
        """The command prepares the CT; it is cancelled, since its result is given."""
        slicerhost.click(self.ui.segmentButton)
        bar = self.ui.progressBar
        self.host.pump(lambda: 0 < bar.value < bar.maximum, limit_s=LIMIT_S)
        self.picture(target)
        slicerhost.click(self.ui.cancelButton)
        self.wait("airways")

    def take_result(self) -> None:
        """The given result instead of that of the cancelled run, measured by the panel."""
        from AirwaySegSlicer.commands import segment as segmentation
        from AirwaySegSlicer.scene import suspects

        airways = segmentation.take_in(self.result, self.ui.inputSelector.currentNode())
        suspects.keep_suspects(airways, suspects.read_suspects(self.result))  # those beside the airways stay
        self.widget._parameterNode.airways = airways
        self.turn_to("measure")
        slicerhost.click(self.ui.measureButton)
        self.wait("airways")
        self.view3d.fit(FROM_THE_FRONT, ZOOM_3D)

    def result_shown(self, target: Path) -> None:
        """Outline, surface, centerline and table."""
        self.take_result()
        self.turn_to("measure")
        self.picture(target)

    def branch(self, target: Path) -> None:
        """A branch of the table is chosen, and the slices show it larger."""
        self.turn_to("measure")
        for view in self.slices.values():
            view.fit(2 * ZOOM)
        number = next(row.id for row in self._rows() if row.generation > 3 and row.length_mm > LONG_MM)
        self.section("Result").table.choose_listing_all(number)
        self.host.pump(0.2)
        self.picture(target)

    def walls(self, target: Path) -> None:
        """The table's columns of the walls."""
        self.turn_to("measure")
        slicerhost.choose(self.ui.columnsComboBox, "wall")
        self.picture_of_panel(target)
        slicerhost.choose(self.ui.columnsComboBox, "lumen")

    def review(self, target: Path) -> None:
        """The first point is accepted, and the second one is shown across and along."""
        self.turn_to("review")
        slicerhost.click(self.ui.nextButton)
        slicerhost.click(self.ui.acceptButton)
        self.host.pump(0.2)
        self.picture(target)
        slicerhost.click(self.ui.undoButton)

    def points(self, target: Path) -> None:
        """The first point of each kind, each in a picture of its own."""
        self.turn_to("review")
        combo = self.ui.reviewFilterComboBox
        for row in range(combo.count):
            kind = str(combo.itemData(row))
            slicerhost.choose(combo, combo.itemText(row))
            if self.ui.nextButton.enabled:
                slicerhost.click(self.ui.nextButton)
                self.host.pump(0.2)
            self.picture(target.with_name(f"{target.stem}-{kind.replace(' ', '-') or 'all'}.png"))
        slicerhost.choose(combo, combo.itemText(0))

    def overlays(self, target: Path) -> None:
        """Every overlay with its legend, each in a picture of its own."""
        combo = self.ui.overlayComboBox
        for row in range(1, combo.count):
            slicerhost.choose(combo, combo.itemText(row))
            self.host.pump(0.2)
            self.picture(target.with_name(f"{target.stem}-{combo.itemData(row)}.png"))

    def overlay(self, target: Path) -> None:
        """Lobes on the surface and over the slices."""
        self.turn_to("measure")
        for view in self.slices.values():
            view.fit(ZOOM)
        slicerhost.choose(self.ui.overlayComboBox, "lobe")
        slicerhost.click(self.ui.slicesCheckBox)
        self.view3d.fit(FROM_THE_FRONT, ZOOM_3D)
        self.picture(target)

    def correct(self, target: Path) -> None:
        """Part of the airways is erased in the editor's segment; the tree is out of date."""
        from AirwaySegSlicer.scene import branches, nodes, segments

        self.turn_to("review", "correct")
        airways = self.widget.panel.airways()
        row = self.ui.branchTable.currentRow()
        number = int(self.ui.branchTable.item(row, 0).text())
        points, _indices = branches.branch_points(nodes.companion(airways, nodes.CENTERLINE), number)
        ct = segments.ct_of(airways)
        to_ijk = np.linalg.inv(slicer.util.arrayFromVTKMatrix(nodes.ijk_to_ras(ct)))
        mask = segments.mask_on_ct(airways, ct)
        for view in self.slices.values():
            view.fit(2 * ZOOM)
        branches.centre_views(tuple(points[-1].tolist()))
        self.view3d.fit(FROM_THE_FRONT, ZOOM_3D)
        x, y, z = np.rint(to_ijk[:3, :3] @ points[-1] + to_ijk[:3, 3]).astype(int)
        mask[z - 8 : z + 9, y - 8 : y + 9, x - 8 : x + 9] = 0
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, airways, segments.SEGMENT_ID, ct)
        airways.CreateClosedSurfaceRepresentation()  # as Slicer's editor does where the airways are shown in 3D
        self.host.pump(lambda: self.ui.outOfDateLabel.visible, limit_s=LIMIT_S)
        self.picture(target)

    def export(self, target: Path) -> None:
        """The tree is updated, and everything is written into a folder."""
        slicerhost.click(self.ui.updateButton)
        self.wait("airways")
        self.turn_to("export")
        slicerhost.choose(self.ui.exportComboBox, "case")
        self.ui.exportFolderEdit.currentPath = os.path.abspath("export")
        slicerhost.click(self.ui.exportButton)
        self.wait("files")
        self.picture_of_panel(target)

    def finetune(self, target: Path) -> None:
        """The corrected result is in the training folder."""
        self.turn_to("train")
        self.ui.trainingFolderEdit.currentPath = os.path.abspath("training")
        self.ui.patientEdit.setText("Patient 1")
        slicerhost.click(self.ui.addCaseButton)
        self.wait("files")
        self.ui.newModelEdit.setText("our-scanner")
        self.picture_of_panel(target)


STEPS: dict[str, Callable[[Session, Path], None]] = {
    "check": Session.check,
    "load": Session.load,
    "settings": Session.settings,
    "segment": Session.segment,
    "result": Session.result_shown,
    "branch": Session.branch,
    "walls": Session.walls,
    "review": Session.review,
    "cut": Session.cut,
    "add": Session.add,
    "join": Session.join,
    "overlay": Session.overlay,
    "origin": Session.origin,
    "compare": Session.compare,
    "names": Session.names,
    "correct": Session.correct,
    "export": Session.export,
    "finetune": Session.finetune,
}
"""Pictures tutorial-STEP.png in the order of the tutorial."""

BESIDES: dict[str, list[Callable[[Session, Path], None]]] = {
    "review": [Session.points],
    "cut": [Session.undone],
    "overlay": [Session.overlays],
}
"""What is looked at besides after a step, in pictures of its own, where the pictures are not those of the tutorial."""


def main() -> int:
    """Click through the tutorial in a temporary folder, and write the chosen pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", metavar="CT", type=os.path.abspath)
    parser.add_argument("result", metavar="FOLDER", type=os.path.abspath)
    parser.add_argument("steps", metavar="STEP", nargs="*", choices=["slicer", *STEPS, []])
    parser.add_argument("--pictures", type=Path, help="where pictures go that are not for the tutorial")
    options = parser.parse_args()
    target = options.pictures.absolute() if options.pictures else SCREENSHOTS
    target.mkdir(parents=True, exist_ok=True)
    return walk(options.ct, options.result, options.steps, target, bool(options.pictures))


def walk(ct: str, result: str, chosen: list[str], target: Path, besides: bool) -> int:
    """Click through the tutorial; ``besides``: and through what is in `BESIDES`."""
    host = slicerhost.start()
    if pictures.why_not():
        print(pictures.why_not(), file=sys.stderr)
        return 1
    sys.path.insert(0, str(Path(__file__).with_name("support")))
    from module_scenes import python_slicer

    with tempfile.TemporaryDirectory(prefix="AirwaySeg-") as folder:
        os.environ["PATH"] = python_slicer(Path(folder)) + os.pathsep + os.environ["PATH"]
        os.chdir(folder)
        ct = as_nrrd(ct, Path(folder))
        if not chosen or "slicer" in chosen:
            overview(host, ct, result, target / "slicer.png")
        if chosen != ["slicer"]:
            host.clear()
            session = Session(host, ct, result, SMALL)
            wanted = [name for name in STEPS if not chosen or name in chosen]
            for name in list(STEPS)[: list(STEPS).index(wanted[-1]) + 1]:
                picture = (target if name in wanted else Path(folder)) / f"tutorial-{name}.png"
                for step in (STEPS[name], *(BESIDES.get(name, ()) if besides and name in wanted else ())):
                    step(session, picture)
        host.clear()
        os.chdir(target)
    return 0


def as_nrrd(ct: str, folder: Path) -> str:
    """The CT as a file that Slicer reads without its window: NIfTI, DICOM and others are written as NRRD."""
    if ct.endswith(".nrrd"):
        return ct
    from AirwaySegLib.files.volume import read_ct, write_nrrd

    volume, _notes = read_ct(Path(ct))
    write_nrrd(folder / "ct.nrrd", volume.array, volume)
    return str(folder / "ct.nrrd")


def overview(host: slicerhost.Host, ct: str, result: str, target: Path) -> None:
    """Generations on the surface and over the slices, and one branch chosen."""
    host.clear()
    session = Session(host, ct, result, LARGE)
    session.load(target)
    session.take_result()
    for view in session.slices.values():
        view.fit(ZOOM)
    slicerhost.choose(session.ui.overlayComboBox, "generation")
    slicerhost.click(session.ui.slicesCheckBox)
    slicerhost.click(session.ui.centerlineCheckBox)
    slicerhost.choose(session.ui.branchTable, 8)
    host.pump(0.2)
    session.view3d.fit(FROM_THE_FRONT, ZOOM_3D)
    session.picture(target)
    print(target)


if __name__ == "__main__":
    sys.exit(main())
