"""The Slicer module AirwaySeg: segment the airways of a chest CT with one button, measure, correct, export, fine-tune.

The computation is the console command `python -m AirwaySegLib` in a child process, so that the window stays responsive
and Cancel works at once. Numpy, PyTorch and the library are not imported when Slicer starts.
"""

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import qt
import slicer
import vtk
from slicer import vtkMRMLNode, vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

from AirwaySegSlicer.commands.compare_logic import CompareLogic
from AirwaySegSlicer.commands.export import case_export_job, export_node
from AirwaySegSlicer.commands.finetune import FinetuneOptions, finetuning_job, removing_job
from AirwaySegSlicer.commands.installation import Installation, about_old_slicer, probe_job
from AirwaySegSlicer.commands.jobs import Job, Listener, Runs
from AirwaySegSlicer.commands.measure import measuring_job
from AirwaySegSlicer.commands.probe_child import missing_packages
from AirwaySegSlicer.commands.sample_data import register_sample_data
from AirwaySegSlicer.commands.segment import SegmentOptions, segmentation_job
from AirwaySegSlicer.commands.training_cases import NewCase, adding_job
from AirwaySegSlicer.event_loop import call_later
from AirwaySegSlicer.panel.panel import AIRWAYS, FILES, PROBE, TRAINING, Panel
from AirwaySegSlicer.panel.sections import make_sections
from AirwaySegSlicer.scene.branch_edit_logic import BranchEditLogic
from AirwaySegSlicer.scene.branches import branch_rows
from AirwaySegSlicer.scene.maps import Maps
from AirwaySegSlicer.scene.nodes import CENTERLINE, Belongings, companion, first_ct
from AirwaySegSlicer.scene.overlays import OverlayLook, hide_overlay, restore_foreground, show_overlay, shown_overlay
from AirwaySegSlicer.scene.review_logic import ReviewLogic
from AirwaySegSlicer.scene.segments import new_segmentation
from AirwaySegSlicer.scene.steps import Steps

try:
    from slicer import vtkMRMLMarkupsROINode, vtkMRMLSegmentationNode
except ImportError:
    # Slicer imports the files of its modules in alphabetical order, whatever their dependencies, and these classes come
    # into the namespace `slicer` with the first module of its own: with Annotations, after this one.
    from vtkSlicerMarkupsModuleMRMLPython import vtkMRMLMarkupsROINode
    from vtkSlicerSegmentationsModuleMRMLPython import vtkMRMLSegmentationNode


class AirwaySeg(ScriptedLoadableModule):
    """What Slicer shows of the module: name, category, help."""

    def __init__(self, parent: "qt.QObject") -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "AirwaySeg"  # The catalogue has another "Airway Segmentation" already.
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        # Slicer loads these first and unloads them last: their nodes, widgets and logics are used until the end.
        self.parent.dependencies = ["Segmentations", "SubjectHierarchy", "Markups", "Colors", "Plots"]
        self.parent.contributors = ["AirwaySeg maintainers"]
        self.parent.helpText = _(
            "Segments the airway tree, from the trachea into the peripheral bronchi, in a chest CT, and measures it "
            "branch by branch. It runs on this computer; no data leaves it. Needs 3D Slicer 5.12 or newer. "
            "Not a medical device."
        )
        self.parent.acknowledgementText = _("The network is WingsNet (Zheng et al., arXiv:2011.11952).")
        slicer.app.connect("startupCompleted()", register_sample_data)


@parameterNodeWrapper
class AirwaySegParameterNode:
    """Choices saved with the scene.

    inputVolume - The chest CT.
    region - The part of the CT that is segmented; none: all of it.
    model - Name of the weights.
    replaceResult - Whether a new result replaces the airways of the chosen one.
    airways - The segmentation that is measured, corrected and exported.
    overlay - Key of the overlay that is shown; empty: none.
    overlayOnSurface, overlayOnSlices, overlayOpacity, overlayLegend - Where and how the overlay is shown.
    showCenterline - Whether the centerline is shown.
    autoUpdate - Whether the tree is measured again after every edit.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    region: vtkMRMLMarkupsROINode
    model: str = "default"
    replaceResult: bool = False
    airways: vtkMRMLSegmentationNode
    overlay: str = ""
    overlayOnSurface: bool = True
    overlayOnSlices: bool = False
    overlayOpacity: Annotated[float, WithinRange(0, 1)] = 0.6
    overlayLegend: bool = True
    showCenterline: bool = True
    autoUpdate: bool = False


class AirwaySegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel; each of its sections is a class of AirwaySegSlicer."""

    def __init__(self, parent: "qt.QWidget | None" = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: Any = None
        self.panel: Any = None  # Until setup(), and always where Slicer is too old.
        self._parameterNode: Any = None
        self._parameterNodeGuiTag = None

    def setup(self) -> None:
        """Called when the user opens the module for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        tooOld = about_old_slicer(slicer.app.majorVersion, slicer.app.minorVersion)
        if tooOld:
            self.layout.addWidget(qt.QLabel(tooOld))
            return
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/AirwaySeg.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = AirwaySegLogic()
        self.panel = Panel(self.ui, self.logic, self.resourcePath("requirements.txt"))
        self.panel.sections = make_sections(self.panel)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAboutToBeRemovedEvent, self.onNodeAboutToBeRemoved)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Called when the application closes and the module widget is destroyed."""
        if self.panel is None:
            return
        self.setParameterNode(None)
        self.removeObservers()
        self.panel.close()
        self.logic.close()
        self.logic = None

    def enter(self) -> None:
        """Called each time the user opens this module."""
        if self.panel is None:
            return
        self.initializeParameterNode()
        self.panel.enter()

    def exit(self) -> None:
        """Called each time the user opens a different module; running jobs continue."""
        if self.panel is None:
            return
        self.panel.exit()
        self.setParameterNode(None)

    def onSceneStartClose(self, caller: vtkMRMLNode, event: str) -> None:
        """The CT is about to be removed, so its segmentation stops."""
        self.logic.closeScene()
        self.setParameterNode(None)
        self.panel.close_scene()

    def onSceneEndClose(self, caller: vtkMRMLNode, event: str) -> None:
        """Use the new scene's parameters, when the module is shown while a scene is closed or read."""
        if self.parent.isEntered:
            self.setParameterNode(None)
            self.initializeParameterNode()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAboutToBeRemoved(self, caller: vtkMRMLNode, event: str, node: vtkMRMLNode) -> None:
        """Stop the work on the node; remove a segmentation's tree later, since the scene is still removing."""
        if slicer.mrmlScene.IsClosing():
            return
        self.logic.stopWorkOn(node)
        if not node.IsA("vtkMRMLSegmentationNode"):
            return
        self.logic.forget(node)
        belongings = Belongings(node)
        if belongings.nodes:
            call_later(belongings.remove)

    def initializeParameterNode(self) -> None:
        """Observe the scene's parameter node and propose its first CT."""
        self.setParameterNode(self.logic.getParameterNode())
        if not self._parameterNode.inputVolume:
            self._parameterNode.inputVolume = first_ct()

    def setParameterNode(self, parameterNode: "AirwaySegParameterNode | None") -> None:
        """Connect this parameter node to the panel instead of the one before; None connects nothing."""
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersModified)
        self._parameterNode = parameterNode
        self.panel.parameters = parameterNode
        if self._parameterNode:
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersModified)
        self.panel.update()

    def onParametersModified(self, caller: "vtkMRMLNode | None" = None, event: str = "") -> None:
        """Every section shows what was chosen."""
        self.panel.update()


class AirwaySegLogic(ScriptedLoadableModuleLogic, ReviewLogic, BranchEditLogic, CompareLogic):
    """All functions of the panel, without the panel; for Slicer's Python console and for scripts.

    The methods without `start` wait for the end, return the result, and raise RuntimeError with one sentence on
    failure. Those with `start` return at once; a `Listener` gets progress and end. `launch` replaces
    `slicer.util.launchConsoleProcess` in tests.
    """

    def __init__(self, launch: "Callable[..., subprocess.Popen] | None" = None) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.runs = Runs(launch or slicer.util.launchConsoleProcess)
        self.maps = Maps()
        self.steps = Steps()
        self._worksOn = ""  # id of the node that the work in AIRWAYS was started on

    def getParameterNode(self) -> AirwaySegParameterNode:
        """The scene's parameter node of this module, typed."""
        typed: Any = AirwaySegParameterNode  # What the decorator makes of it takes the node.
        return typed(super().getParameterNode())

    def closeScene(self) -> None:
        """Stop the jobs on the scene, and remove its files; jobs on copied files and fine-tuning continue."""
        self.runs.cancel(AIRWAYS)
        self.maps.clear()
        self.steps.clear()

    def forget(self, airways: vtkMRMLSegmentationNode) -> None:
        """The segmentation is removed: restore the slices' foreground from before its overlay, and remove its files."""
        restore_foreground(airways)
        self.maps.forget(airways)
        self.steps.forget(airways)

    def stopWorkOn(self, node: vtkMRMLNode) -> None:
        """The node is removed: stop the job that was started on it, which then ends with a sentence."""
        if node.GetID() == self._worksOn and self.runs.is_running(AIRWAYS):
            sentence = _("{name} was removed from the scene, so the work on it was stopped.")
            self.runs.cancel(AIRWAYS, sentence.format(name=node.GetName()))

    def close(self) -> None:
        """Stop all jobs."""
        self.runs.cancel_all()
        self.maps.clear()

    def segment(
        self,
        volumeNode: vtkMRMLScalarVolumeNode,
        options: "SegmentOptions | None" = None,
        measure: "bool | None" = None,
    ) -> vtkMRMLSegmentationNode:
        """Segment a CT and, unless `measure` or the options say otherwise, measure the result."""
        options = options or SegmentOptions()
        if measure is not None:
            options = replace(options, measure=measure)
        return self.runOn(segmentation_job(volumeNode, options, self.maps))

    def startSegment(self, volumeNode: vtkMRMLScalarVolumeNode, options: SegmentOptions, listener: Listener) -> None:
        """Start `segment`; where only measuring fails, the listener gets the segmentation and a sentence."""
        self.startOn(volumeNode, segmentation_job(volumeNode, options, self.maps), listener)

    def runOn(self, job: Job) -> Any:
        """Run a job on airways and wait for its result."""
        return self.runs.run(AIRWAYS, job)

    def startOn(self, node: vtkMRMLNode, job: Job, listener: Listener) -> None:
        """Start work on the scene that stops when this node is removed."""
        before, self._worksOn = self._worksOn, node.GetID() if node else ""
        try:
            self.runs.start(AIRWAYS, job, listener)
        except Exception:
            self._worksOn = before
            raise

    def measure(self, airways: vtkMRMLSegmentationNode) -> vtkMRMLSegmentationNode:
        """Find branches, centerline and distances of a segmentation's airways."""
        self.runOn(measuring_job(airways, self.maps))
        return airways

    def startMeasure(self, airways: vtkMRMLSegmentationNode, listener: Listener) -> None:
        """Start `measure`."""
        self.startOn(airways, measuring_job(airways, self.maps), listener)

    def showOverlay(self, airways: vtkMRMLSegmentationNode, overlay: str, look: "OverlayLook | None" = None) -> None:
        """Colour the measured airways; `overlay` is a key of `overlays.OVERLAYS`, or empty for none."""
        if overlay:
            show_overlay(airways, overlay, look or OverlayLook(), self.maps)
        elif shown_overlay(airways):
            hide_overlay(airways)

    def export(
        self, airways: vtkMRMLSegmentationNode, path: str, ct: "vtkMRMLScalarVolumeNode | None" = None
    ) -> list[str]:
        """Write mask, surface, centerline or table, by the path's extension; see `commands.export.export_node`.

        `ct` is the CT of airways that another program made; others know their CT. The same holds below.
        """
        return export_node(airways, path, ct)

    def exportCase(
        self, airways: vtkMRMLSegmentationNode, folder: str, ct: "vtkMRMLScalarVolumeNode | None" = None
    ) -> str:
        """Write mask, tree, tables, maps and pictures into a folder, and return it."""
        return self.runs.run(FILES, case_export_job(airways, folder, ct))

    def startExportCase(
        self,
        airways: vtkMRMLSegmentationNode,
        folder: str,
        listener: Listener,
        ct: "vtkMRMLScalarVolumeNode | None" = None,
    ) -> None:
        """Start `exportCase`; it continues when the scene is closed."""
        self.runs.start(FILES, case_export_job(airways, folder, ct), listener)

    def startAddCase(self, airways: vtkMRMLSegmentationNode, case: NewCase, listener: Listener) -> None:
        """Start to add CT and corrected airways to a training folder; it continues when the scene is closed.

        `commands.training_cases.new_case` makes the case.
        """
        self.runs.start(FILES, adding_job(airways, case), listener)

    def startRemoveCase(self, data: str, name: str, listener: Listener) -> None:
        """Start to remove a case from a training folder."""
        self.runs.start(FILES, removing_job(data, name), listener)

    def startFinetune(self, options: FinetuneOptions, listener: Listener) -> None:
        """Start to fine-tune a model; other jobs can run meanwhile."""
        self.runs.start(TRAINING, finetuning_job(options), listener)

    def startProbe(self, listener: Listener) -> None:
        """Start `checkInstallation`."""
        self.runs.start(PROBE, probe_job(), listener)

    def checkInstallation(self) -> Installation:
        """Check Python, packages, devices, models and disk."""
        return self.runs.run(PROBE, probe_job())


class AirwaySegTest(ScriptedLoadableModuleTest):
    """Tests that run without PyTorch: a CT to the command, its mask back to the scene, and the measures."""

    def setUp(self) -> None:
        """Every test starts with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Slicer's Reload and Test calls this; a test that cannot run says why."""
        from unittest import SkipTest

        for test in (
            self.test_mask_comes_back_on_the_grid_of_the_ct,
            self.test_failure_is_one_sentence_and_leaves_no_node,
            self.test_a_drawn_fork_has_three_branches_of_known_length,
        ):
            self.setUp()
            try:
                test()
            except SkipTest as reason:
                self.delayDisplay(str(reason))

    def makeVolume(self) -> vtkMRMLScalarVolumeNode:
        """A CT of 8 x 9 x 10 voxels (z, y, x) whose columns and rows are not the patient's axes."""
        import numpy as np

        ijkToRas = [[0, 0.6, 0, 10], [-0.8, 0, 0, 20], [0, 0, 1.5, -30], [0, 0, 0, 1]]
        ct = np.arange(720, dtype=np.int16).reshape(8, 9, 10)
        return slicer.util.addVolumeFromArray(ct, np.array(ijkToRas, dtype=float), "CT")

    def segmentWith(self, exitCode: int, lines: list[str]) -> tuple[list, list]:
        """Run the logic with a stand-in for the command that takes every voxel above 100 for airway."""
        import SimpleITK

        progress: list[tuple[str, int, int]] = []
        finished: list[tuple] = []

        def launch(arguments: list[str], **options: Any) -> subprocess.Popen:
            """Leave a mask of the CT where the command would leave its own, and print the lines."""
            ctPath, resultFolder = arguments[4], arguments[6]
            os.mkdir(resultFolder)
            mask = SimpleITK.ReadImage(ctPath) > 100
            SimpleITK.WriteImage(mask, os.path.join(resultFolder, "airways.nrrd"))
            with open(os.path.join(resultFolder, "report.json"), "w") as report:
                report.write('{"model": {"name": "stand-in"}}')
            code = f"import sys; print({chr(10).join(lines)!r}); sys.exit({exitCode})"
            return slicer.util.launchConsoleProcess([arguments[0], "-c", code], **options)

        logic = AirwaySegLogic(launch)
        listener = Listener(lambda *end: finished.append(end), lambda *step: progress.append(step))
        logic.startSegment(self.makeVolume(), SegmentOptions(measure=False), listener)
        self.assertTrue(logic.runs.is_running(AIRWAYS))
        while logic.runs.is_running(AIRWAYS):
            slicer.app.processEvents()
        return progress, finished

    def test_mask_comes_back_on_the_grid_of_the_ct(self) -> None:
        """A mask of the voxels above 100 is exactly the segment of the voxels above 100."""
        progress, [(airways, message)] = self.segmentWith(0, ['{"stage": "infer", "done": 1, "total": 2}'])
        self.assertEqual(progress, [("infer", 1, 2)])
        self.assertEqual(message, "")
        self.assertEqual(airways.GetAttribute("AirwaySeg.model"), "stand-in")
        ctNode = slicer.util.getNode("CT")
        segment = slicer.util.arrayFromSegmentBinaryLabelmap(airways, "airways", ctNode)
        self.assertEqual((segment != (slicer.util.arrayFromVolume(ctNode) > 100)).sum(), 0)

    def test_failure_is_one_sentence_and_leaves_no_node(self) -> None:
        """The last line that is not progress is what the user reads."""
        lines = ['{"stage": "read", "done": 1, "total": 1}', "ct.nrrd shows no chest."]
        _progress, finished = self.segmentWith(2, lines)
        self.assertEqual(finished, [(None, "CT shows no chest.")])
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), 0)

    def test_a_drawn_fork_has_three_branches_of_known_length(self) -> None:
        """A tube of 30 mm that forks into two of 28.3 mm each, through the real command; needs its packages."""
        import numpy as np

        missing = missing_packages()
        if missing:
            self.skipTest(f"Python lacks {', '.join(missing)}.")
        z, y, x = np.indices((60, 21, 61)).astype(float)
        drawn = ((x - 30) ** 2 + (y - 10) ** 2 <= 25) & (z >= 28)
        for side in (-1, 1):
            along = np.clip(((30 - z) + side * (x - 30)) / 2, 0, 20)
            gap = (x - 30 - side * along) ** 2 + (y - 10) ** 2 + (z - 30 + along) ** 2
            drawn |= gap <= 9
        ctNode = slicer.util.addVolumeFromArray(np.where(drawn, -950, 40).astype(np.int16), name="Fork")
        airways = new_segmentation("Fork airways", ctNode)
        airways.GetSegmentation().AddEmptySegment("airways")
        slicer.util.updateSegmentBinaryLabelmapFromArray(drawn.astype(np.uint8), airways, "airways", ctNode)
        AirwaySegLogic().measure(airways)
        rows = branch_rows(companion(airways, CENTERLINE))
        self.assertEqual([row.generation for row in rows], [0, 1, 1])
        for row, length in zip(rows, (30, 28.3, 28.3), strict=True):
            self.assertAlmostEqual(row.length_mm, length, delta=3)
        self.assertAlmostEqual(rows[0].diameter_mm, 10, delta=0.5)
