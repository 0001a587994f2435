"""An open panel of the module and what a person does with it, for the tests that click."""

import os

import numpy as np
import slicer
import slicerhost
from slicerhost.host import LIMIT_S

from AirwaySegSlicer.scene import segments


class Desk:
    """An open panel, its CT with the airways' mask (Z, Y, X), and what a person does with them."""

    def __init__(self, host: slicerhost.Host, ct: slicer.vtkMRMLScalarVolumeNode, mask: np.ndarray) -> None:
        self.host, self.ct, self.mask = host, ct, mask
        self.widget = slicerhost.open_module(host)
        self.ui, self.logic = self.widget.ui, self.widget.logic
        self.wait()

    def wait(self, slots=("airways", "files", "training", "probe"), limit_s: float = LIMIT_S) -> None:
        """Until nothing runs."""
        self.host.pump(lambda: not any(self.logic.runs.is_running(slot) for slot in slots), limit_s)

    @property
    def parameters(self):
        """The scene's choices."""
        return self.widget.panel.parameters

    @property
    def airways(self) -> slicer.vtkMRMLSegmentationNode:
        """The chosen segmentation."""
        return self.parameters.airways

    def section(self, name: str):
        """The section of the panel whose class has this name, without `Section`."""
        return next(one for one in self.widget.panel.sections if type(one).__name__ == f"{name}Section")

    def turn_to(self, name: str) -> None:
        """Show the tab in which a widget is; the table of branches is below two of them."""
        tabs, pages = self.ui.tabs, [self.ui.tabs.widget(index) for index in range(self.ui.tabs.count)]
        widget = getattr(self.ui, name)
        if self.ui.branchesFrame.isAncestorOf(widget) and not self.ui.branchesFrame.isVisible():
            widget = self.ui.measureTab
        for index, page in enumerate(pages):
            if page is widget or page.isAncestorOf(widget):
                tabs.currentIndex = index
        self.host.pump()

    def click(self, name: str) -> None:
        """Press a button, in its tab."""
        self.turn_to(name)
        slicerhost.click(getattr(self.ui, name))

    def choose(self, name: str, value) -> None:
        """Choose in a selector, combo box, table or list, in its tab."""
        self.turn_to(name)
        slicerhost.choose(getattr(self.ui, name), value)

    def open(self, name: str) -> None:
        """Show a tab, or open a section in its tab."""
        self.turn_to(name)
        if hasattr(getattr(self.ui, name), "collapsed") and getattr(self.ui, name).collapsed:
            self.click(name)

    def segment(self) -> slicer.vtkMRMLSegmentationNode:
        """Press the one button, and wait."""
        self.click("segmentButton")
        self.wait()
        return self.airways

    def select_branch(self, number: int) -> None:
        """Choose the row of a branch."""
        table = self.ui.branchTable
        rows = [row for row in range(table.rowCount) if table.item(row, 0).text() == str(number)]
        self.choose("branchTable", rows[0])

    def save_and_reload(self, path: str) -> None:
        """Save the scene as one file, close it, and read it again."""
        assert slicer.util.saveScene(path)
        slicer.mrmlScene.Clear(0)
        self.host.pump()
        slicer.util.loadScene(path)
        self.host.pump()
        self.ct = slicer.util.getNode("CT")

    def draw(self, name: str, **masks: np.ndarray) -> slicer.vtkMRMLSegmentationNode:
        """A segmentation on the CT that another program made, with these segments; by default the tree."""
        node = segments.new_segmentation(name, self.ct)
        for title, mask in (masks or {"tree": self.mask}).items():
            node.GetSegmentation().AddEmptySegment(title, title)
            slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, title, self.ct)
        return node


def files() -> list[str]:
    """What the module has in Slicer's temporary folder."""
    return [name for name in os.listdir(slicer.app.temporaryPath) if name.startswith("AirwaySeg")]
