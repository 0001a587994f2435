"""The Slicer module AirwaySeg: segment the airways of a chest CT with one button.

The work itself is the console command `python -m AirwaySegLib segment` in a child process, so that the window stays
alive and Cancel stops it at once. Numpy, PyTorch and the library are never imported when Slicer starts.
"""

import os
import subprocess
from collections.abc import Callable

import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

from AirwaySegSlicer.dependencies import ensure_dependencies
from AirwaySegSlicer.process import ConsoleProcess
from AirwaySegSlicer.segmentation import start_segmentation


class AirwaySeg(ScriptedLoadableModule):
    """What Slicer shows of the module: name, category, help."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Airway Segmentation")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["AirwaySeg maintainers"]
        self.parent.helpText = _(
            "Segments the airway tree, from the trachea into the peripheral bronchi, in a chest CT. "
            "It runs on this computer; no data leaves it. Not a medical device."
        )
        self.parent.acknowledgementText = _("The network is WingsNet (Zheng et al., arXiv:2011.11952).")


@parameterNodeWrapper
class AirwaySegParameterNode:
    """Choices saved with the scene.

    inputVolume - The chest CT.
    airways - The result of the last run on it.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    airways: vtkMRMLSegmentationNode


class AirwaySegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: a CT, one button that becomes Cancel, a progress bar."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None

    def setup(self) -> None:
        """Called when the user opens the module for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/AirwaySeg.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = AirwaySegLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.ui.segmentButton.connect("clicked(bool)", self.onSegmentButton)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Called when the application closes and the module widget is destroyed."""
        self.removeObservers()
        self.logic.cancel()
        self.logic = None

    def enter(self) -> None:
        """Called each time the user opens this module."""
        self.initializeParameterNode()

    def exit(self) -> None:
        """Called each time the user opens a different module; a running segmentation goes on."""
        self.setParameterNode(None)

    def onSceneStartClose(self, caller, event) -> None:
        """The CT is about to go, so its segmentation stops."""
        self.logic.cancel()
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event) -> None:
        """Start afresh when the module is shown while the scene is closed."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        """Observe the scene's parameter node and propose its first volume."""
        self.setParameterNode(self.logic.getParameterNode())
        if not self._parameterNode.inputVolume:
            firstVolume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
            if firstVolume:
                self._parameterNode.inputVolume = firstVolume

    def setParameterNode(self, parameterNode: AirwaySegParameterNode | None) -> None:
        """Connect this parameter node to the panel instead of the one before; None connects nothing."""
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.updateButton)
        self._parameterNode = parameterNode
        if self._parameterNode:
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.updateButton)
            self.updateButton()

    def updateButton(self, caller=None, event=None) -> None:
        """The button says what a press does now."""
        running = self.logic.isRunning()
        self.ui.segmentButton.text = _("Cancel") if running else _("Segment airways")
        self.ui.segmentButton.enabled = running or bool(self._parameterNode and self._parameterNode.inputVolume)
        self.ui.progressBar.visible = running

    def onSegmentButton(self, checked: bool = False) -> None:
        """Start, or stop what runs."""
        if self.logic.isRunning():
            self.logic.cancel()
            return
        with slicer.util.tryWithErrorDisplay(_("The segmentation could not be started.")):
            ensure_dependencies(self.resourcePath("requirements.txt"))
            self.ui.statusLabel.text = ""
            self.ui.progressBar.maximum = 0
            self.logic.start(self._parameterNode.inputVolume, self.onProgress, self.onFinished)
        self.updateButton()

    def onProgress(self, stage: str, done: int, total: int) -> None:
        """Move the bar; called by the logic for every line of progress."""
        self.ui.progressBar.maximum = total
        self.ui.progressBar.value = done
        self.ui.statusLabel.text = stage

    def onFinished(self, airways: vtkMRMLSegmentationNode | None, message: str) -> None:
        """Keep the result, or show the one sentence that says why there is none (empty after Cancel)."""
        if self.logic is None:
            return  # The panel is gone.
        self.updateButton()
        self.ui.statusLabel.text = _("Finished.") if airways else message or _("Cancelled.")
        if airways and self._parameterNode:
            self._parameterNode.airways = airways
        if message:
            slicer.util.errorDisplay(message)


class AirwaySegLogic(ScriptedLoadableModuleLogic):
    """Segments a CT by the library's command in a child process.

    `launch` is `slicer.util.launchConsoleProcess` or, in tests, something with the same arguments.
    """

    def __init__(self, launch: Callable[..., subprocess.Popen] | None = None) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self._launch = launch or slicer.util.launchConsoleProcess
        self._run: ConsoleProcess | None = None

    def getParameterNode(self) -> AirwaySegParameterNode:
        """The scene's parameter node of this module, typed."""
        return AirwaySegParameterNode(super().getParameterNode())

    def isRunning(self) -> bool:
        """Whether a segmentation is under way."""
        return self._run is not None

    def cancel(self) -> None:
        """Kill what runs; onFinished is called a moment later."""
        if self._run:
            self._run.cancel()

    def start(
        self,
        inputVolume: vtkMRMLScalarVolumeNode,
        onProgress: Callable[[str, int, int], None],
        onFinished: Callable[[vtkMRMLSegmentationNode | None, str], None],
    ) -> None:
        """Start to segment the CT and return at once; onFinished gets (node, "") or (None, sentence)."""
        if self.isRunning():
            raise RuntimeError(_("A segmentation is already running."))

        def onEnd(airways: vtkMRMLSegmentationNode | None, message: str) -> None:
            self._run = None
            onFinished(airways, message)

        self._run = start_segmentation(inputVolume, self._launch, onProgress, onEnd)


class AirwaySegTest(ScriptedLoadableModuleTest):
    """What can be tested without PyTorch: the way of a CT into the command and of its mask back into the scene."""

    def setUp(self):
        """Every test starts with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Slicer's Reload and Test calls this."""
        self.setUp()
        self.test_mask_comes_back_on_the_grid_of_the_ct()
        self.setUp()
        self.test_failure_is_one_sentence_and_leaves_no_node()

    def makeVolume(self):
        """A CT of 4 x 5 x 6 voxels (z, y, x) whose columns and rows are not the patient's axes."""
        import numpy as np

        ijkToRas = [[0, 0.6, 0, 10], [-0.8, 0, 0, 20], [0, 0, 1.5, -30], [0, 0, 0, 1]]
        ct = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
        return slicer.util.addVolumeFromArray(ct, np.array(ijkToRas, dtype=float), "CT")

    def segmentWith(self, exitCode: int, lines: list[str]):
        """Run the logic with a stand-in for the command that takes every voxel above 100 for airway."""
        import SimpleITK

        progress, finished = [], []

        def launch(arguments, logCallback, completedCallback, **options):
            ctPath, resultFolder = arguments[4], arguments[6]
            os.mkdir(resultFolder)
            mask = SimpleITK.ReadImage(ctPath) > 100
            SimpleITK.WriteImage(mask, os.path.join(resultFolder, "airways.nrrd"))
            for line in lines:
                logCallback(line)
            self.complete = lambda: completedCallback(exitCode)

        logic = AirwaySegLogic(launch)
        logic.start(self.makeVolume(), lambda *step: progress.append(step), lambda *end: finished.append(end))
        self.assertTrue(logic.isRunning())
        self.complete()
        self.assertFalse(logic.isRunning())
        return progress, finished

    def test_mask_comes_back_on_the_grid_of_the_ct(self):
        """A mask of the voxels above 100 is exactly the segment of the voxels above 100."""
        progress, [(airways, message)] = self.segmentWith(0, ['{"stage": "infer", "done": 1, "total": 2}'])
        self.assertEqual(progress, [("infer", 1, 2)])
        self.assertEqual(message, "")
        ctNode = slicer.util.getNode("CT")
        segment = slicer.util.arrayFromSegmentBinaryLabelmap(airways, "airways", ctNode)
        self.assertEqual((segment != (slicer.util.arrayFromVolume(ctNode) > 100)).sum(), 0)

    def test_failure_is_one_sentence_and_leaves_no_node(self):
        """The last line that is not progress is what the user reads."""
        lines = ['{"stage": "read", "done": 1, "total": 1}', "ct.nrrd has 4 slices, fewer than 64."]
        _progress, finished = self.segmentWith(2, lines)
        self.assertEqual(finished, [(None, "ct.nrrd has 4 slices, fewer than 64.")])
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), 0)
