"""Tests of slicerhost: what Slicer's window does, its stand-ins do, and what it refuses, they refuse."""

import gc
import sys
import weakref
from typing import Annotated

import numpy as np
import pytest
import slicer
import slicerhost
import vtk


@pytest.fixture
def qt(slicer_host):
    """The module qt."""
    return sys.modules["qt"]


@pytest.fixture
def ctk(slicer_host):
    """The module ctk."""
    return sys.modules["ctk"]


def a_volume(name: str = "CT") -> slicer.vtkMRMLScalarVolumeNode:
    """A volume of 4 x 5 x 6 voxels (z, y, x) with the numbers from 0 to 119, rows and columns exchanged."""
    ijk_to_ras = np.array([[0, 0.6, 0, 10], [-0.8, 0, 0, 20], [0, 0, 1.5, -30], [0, 0, 0, 1.0]])
    return slicer.util.addVolumeFromArray(np.arange(120, dtype=np.int16).reshape(4, 5, 6), ijk_to_ras, name)


def hierarchy() -> slicer.vtkMRMLSubjectHierarchyNode:
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)


# The scene ------------------------------------------------------------------------------------------------------------


def test_a_node_gets_its_item_in_the_subject_hierarchy_and_loses_it(slicer_host):
    volume = a_volume()
    item = hierarchy().GetItemByDataNode(volume)
    assert item and hierarchy().GetItemName(item) == "CT"
    slicer.mrmlScene.RemoveNode(volume)
    assert not hierarchy().GetItemByName("CT")


def test_a_hidden_node_gets_no_item(slicer_host):
    model = slicer.vtkMRMLModelNode()
    model.SetHideFromEditors(True)
    slicer.mrmlScene.AddNode(model)
    assert not hierarchy().GetItemByDataNode(model)


def test_clear_leaves_the_views_and_the_colours_and_nothing_else(slicer_host):
    before = slicer.mrmlScene.GetNumberOfNodes()
    a_volume()
    slicer.util.errorDisplay("No.")
    slicer_host.clear()
    assert slicer.mrmlScene.GetNumberOfNodes() == before
    assert slicer.app.layoutManager().sliceViewNames() == ("Red", "Green", "Yellow")
    assert slicer_host.messages == [] and not slicer.util.getNodes("CT")


def test_a_saved_scene_comes_back_with_its_items(slicer_host, tmp_path):
    voxels = slicer.util.arrayFromVolume(a_volume()).copy()
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer_host.clear()
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    volume = slicer.util.getNode("CT")
    assert np.array_equal(slicer.util.arrayFromVolume(volume), voxels)
    assert hierarchy().GetItemByDataNode(volume)


def test_an_exported_volume_is_read_back_and_keeps_its_storage_node(slicer_host, tmp_path):
    volume = a_volume()
    path = str(tmp_path / "ct.nii.gz")
    assert slicer.util.exportNode(volume, path) and volume.GetStorageNode() is None
    read = slicer.util.loadVolume(path)
    assert read.GetName() == "ct" and np.array_equal(slicer.util.array("ct"), slicer.util.array("CT"))
    with pytest.raises(RuntimeError, match="Failed to load"):
        slicer.util.loadVolume(str(tmp_path / "absent.nrrd"))


def test_a_view_shows_a_volume_and_its_camera_looks_at_the_models(slicer_host):
    volume = a_volume()
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    red = slicer.app.layoutManager().sliceWidget("Red")
    assert red.mrmlSliceCompositeNode().GetBackgroundVolumeID() == volume.GetID()
    sphere = vtk.vtkSphereSource()
    sphere.SetCenter(5, 6, 7)
    sphere.Update()
    slicer.modules.models.logic().AddModel(sphere.GetOutput())
    slicer.util.resetThreeDViews()
    view = slicer.app.layoutManager().threeDWidget(0).threeDView()
    assert np.allclose(view.cameraNode().GetFocalPoint(), (5, 6, 7), atol=0.1)


# PythonQt's habits ----------------------------------------------------------------------------------------------------


def test_properties_are_attributes_and_calling_them_is_refused(qt):
    label = qt.QLabel("text")
    assert (label.text, label.enabled, label.name) == ("text", True, "")
    label.name, label.enabled = "label", False
    assert label.objectName == "label" and not label.isEnabled()
    with pytest.raises(TypeError):
        label.text()


@pytest.mark.parametrize("name", ["txt", "setup", "click2"])
def test_an_unknown_attribute_is_refused_when_read_and_when_written(qt, name):
    button = qt.QPushButton()
    with pytest.raises(AttributeError):
        getattr(button, name)
    with pytest.raises(AttributeError):
        setattr(button, name, 3)


def test_methods_are_not_overwritten_and_numpy_numbers_are_no_qt_numbers(qt):
    bar = qt.QProgressBar()
    with pytest.raises(AttributeError, match="method"):
        bar.reset = 3
    with pytest.raises(TypeError, match="numpy"):
        bar.maximum = np.int64(3)
    bar.maximum = 3
    assert bar.maximum == 3


def test_a_dynamic_property_is_an_attribute_once_it_is_set(qt):
    box = qt.QCheckBox()
    box.setProperty("SlicerParameterName", "wanted")
    assert box.SlicerParameterName == "wanted"
    box.SlicerParameterName = "other"
    assert box.property("SlicerParameterName") == "other"


def test_signals_connect_by_their_signature_and_unknown_ones_are_refused(qt):
    button, heard = qt.QPushButton(), []

    def hear(*values):
        heard.append(values)

    button.connect("clicked(bool)", hear)
    button.connect("clicked()", hear)
    button.click()
    assert heard == [(False,), ()]
    assert button.disconnect("clicked(bool)", hear) and not button.disconnect("clicked(bool)", hear)
    button.click()
    assert len(heard) == 3
    with pytest.raises(ValueError, match="no signal"):
        button.connect("pressed(bool)", hear)


def test_none_and_true_survive_a_hundred_thousand_calls(qt):
    label = qt.QLabel()
    for _ in range(100_000):
        label.setText("a")
    assert label.text == "a"


# The loop -------------------------------------------------------------------------------------------------------------


def test_pump_waits_for_a_condition_and_gives_up(slicer_host, qt):
    done = []
    qt.QTimer.singleShot(20, lambda: done.append(True))
    slicer_host.pump(lambda: done)
    with pytest.raises(TimeoutError):
        slicer_host.pump(lambda: len(done) > 1, limit_s=0.05)


def test_an_exception_in_a_slot_fails_the_test(slicer_host, qt):
    def fail():
        raise KeyError("in a slot")

    qt.QTimer.singleShot(0, fail)
    with pytest.raises(KeyError):
        slicer_host.pump(lambda: False)


def test_an_exception_in_an_observer_fails_the_test(slicer_host):
    def fail(caller, event):
        raise KeyError("in an observer")

    volume = a_volume()
    volume.AddObserver(vtk.vtkCommand.ModifiedEvent, fail)
    volume.Modified()
    with pytest.raises(KeyError):
        slicer_host.check()


def test_an_exception_that_the_user_was_shown_does_not(slicer_host, qt):
    def fail():
        with slicer.util.tryWithErrorDisplay("It did not work."):
            raise KeyError("shown")

    qt.QTimer.singleShot(0, fail)
    slicer_host.pump(lambda: slicer_host.messages)
    [(kind, text)] = slicer_host.messages
    assert kind == "error" and text.startswith("It did not work.")


def test_a_child_process_runs_while_the_loop_does(slicer_host):
    lines, codes = [], []
    code = "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)"
    slicer.util.launchConsoleProcess(
        [sys.executable, "-c", code], blocking=False, logCallback=lines.append, completedCallback=codes.append
    )
    assert not codes
    slicer_host.pump(lambda: codes)
    assert codes == [3] and sorted(lines) == ["one", "two"]


def test_questions_are_answered_from_the_queue_and_otherwise_with_yes(slicer_host, qt):
    assert slicer.util.confirmOkCancelDisplay("Go on?")
    slicer_host.answers.extend([False, qt.QMessageBox.No, True])
    assert not slicer.util.confirmYesNoDisplay("Delete?")
    assert qt.QMessageBox.question(None, "", "Sure?") == qt.QMessageBox.No
    assert slicer.util.confirmRetryCloseDisplay("Again?")
    assert slicer_host.messages[1] == ("question", "Delete?") and slicer_host.answers == []


def test_a_file_dialog_takes_its_path_from_the_answers(slicer_host, qt, tmp_path):
    assert qt.QFileDialog.getExistingDirectory(None, "Folder") == ""
    slicer_host.answers.append(tmp_path)
    assert qt.QFileDialog.getExistingDirectory(None, "Folder") == str(tmp_path)


def test_an_address_is_noted_and_not_opened(slicer_host, qt):
    qt.QDesktopServices.openUrl(qt.QUrl("https://example.org/a"))
    assert slicer_host.messages == [("open", "https://example.org/a")]


def test_the_host_knows_how_long_the_window_stood_still(slicer_host, qt, monkeypatch):
    clock, done = [0.0], []

    def take_long():
        clock[0] += 3
        done.append(True)

    monkeypatch.setattr("slicerhost.host.time.perf_counter", lambda: clock[0])
    slicer_host.pump()
    assert slicer_host.longest_block_s == 0
    qt.QTimer.singleShot(0, take_long)
    slicer_host.pump(lambda: done)
    assert slicer_host.longest_block_s == 3


def test_a_single_shot_is_kept_with_what_it_calls_as_in_slicer(slicer_host, qt):
    class Work:
        def do(self):
            done.append(True)

    done, work = [], Work()
    gone = weakref.ref(work)
    qt.QTimer.singleShot(0, work.do)
    del work
    slicer_host.pump(lambda: done)
    gc.collect()
    assert gone() is not None and len(slicer_host.single_shots) == 1
    slicer_host.clear()
    gc.collect()
    assert gone() is None


def test_who_waits_hears_at_once_of_an_error_that_the_user_is_shown(slicer_host, qt):
    qt.QTimer.singleShot(0, lambda: slicer.util.errorDisplay("The disk is full."))
    with pytest.raises(RuntimeError, match="The disk is full"):
        slicer_host.pump(lambda: False)


def test_who_waits_for_what_nothing_can_bring_about_any_more_hears_of_it(slicer_host, monkeypatch):
    monkeypatch.setattr("slicerhost.host.IDLE_TURNS", 20)
    child = slicer.util.launchConsoleProcess([sys.executable, "-c", "import time; time.sleep(1000)"])
    turns = []
    with pytest.raises(TimeoutError):
        slicer_host.pump(lambda: turns.append(True) or (len(turns) == 100 and child.kill()))
    child.stdout.close()
    assert len(turns) > 100


# Slicer's widgets -----------------------------------------------------------------------------------------------------


@pytest.fixture
def a_selector(slicer_host):
    """A selector of volumes, but not of label maps, that follows the scene."""
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.showChildNodeTypes = False
    selector.setMRMLScene(slicer.mrmlScene)
    selector.show()
    return selector


def test_a_selector_follows_the_scene_and_chooses_the_first_node(a_selector):
    heard = []
    a_selector.connect("currentNodeChanged(vtkMRMLNode*)", heard.append)
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    assert a_selector.currentNode() is None
    first, second = a_volume("first"), a_volume("second")
    assert a_selector.nodeCount() == 2 and a_selector.currentNode() is first
    slicerhost.choose(a_selector, second)
    slicer.mrmlScene.RemoveNode(second)
    assert heard == [first, second, first]
    assert a_selector.currentNodeID == first.GetID()


def test_a_selector_with_none_waits_to_be_asked(a_selector):
    a_selector.noneEnabled = True
    volume = a_volume()
    assert a_selector.currentNode() is None
    a_selector.setCurrentNode(volume)
    assert a_selector.currentNode() is volume
    with pytest.raises(TypeError):
        a_selector.setCurrentNode("CT")
    slicerhost.choose(a_selector, None)
    assert a_selector.currentNode() is None


def test_a_closed_section_hides_its_contents_from_the_user(ctk, qt, slicer_host):
    section, heard = ctk.ctkCollapsibleButton(), []
    section.text = "Section"
    button = qt.QPushButton("press")
    qt.QVBoxLayout(section).addWidget(button)
    section.connect("contentsCollapsed(bool)", heard.append)
    section.show()
    slicerhost.click(section)
    assert section.collapsed and heard == [True]
    with pytest.raises(RuntimeError, match="hidden"):
        slicerhost.click(button)
    section.collapsed = False
    slicerhost.click(button)
    button.enabled = False
    with pytest.raises(RuntimeError, match="disabled"):
        slicerhost.click(button)


def test_a_slider_clamps_and_tells(ctk):
    slider, heard = ctk.ctkSliderWidget(), []
    slider.setRange(0, 1)
    slider.decimals = 2
    slider.connect("valueChanged(double)", heard.append)
    slider.value = 0.25
    slider.value = 7
    assert heard == [0.25, 1.0] and slider.value == 1.0


def test_a_path_is_typed_or_chosen(ctk, slicer_host, tmp_path):
    line, heard = ctk.ctkPathLineEdit(), []
    line.connect("currentPathChanged(QString)", heard.append)
    line.currentPath = "a"
    slicer_host.answers.append(tmp_path)
    line.browse()
    line.browse()
    assert heard == ["a", str(tmp_path)] and line.currentPath == str(tmp_path)


def test_the_editor_selects_the_first_segment_and_undoes_an_edit(slicer_host):
    volume = a_volume()
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segment = segmentation.GetSegmentation().AddEmptySegment("airways")
    editor = slicer.qMRMLSegmentEditorWidget()
    with pytest.raises(RuntimeError, match="no segment editor node"):
        editor.setSegmentationNode(segmentation)
    editor.setMRMLSegmentEditorNode(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    editor.setMRMLScene(slicer.mrmlScene)
    editor.setSegmentationNode(segmentation)
    assert editor.currentSegmentID() == segment
    for value in (0, 1):
        editor.saveStateForUndo()
        mask = np.full((4, 5, 6), value, np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, segment, volume)
    editor.undo()
    assert not slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, volume).any()
    with pytest.raises(ValueError, match="no segment"):
        editor.setCurrentSegmentID("vessels")
    editor.setActiveEffectByName("Paint")
    assert editor.calls[-1] == ("setActiveEffect", "Paint")


# Parameter nodes ------------------------------------------------------------------------------------------------------


@pytest.fixture
def a_parameter_class(slicer_host):
    """A class of five choices."""
    from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper

    @parameterNodeWrapper
    class Choices:
        volume: slicer.vtkMRMLScalarVolumeNode
        opacity: Annotated[float, WithinRange(0, 1)] = 0.5
        colour: Annotated[str, Choice(["red", "blue"])] = "red"
        shown: bool
        count: int = 3

    return Choices


@pytest.fixture
def choices(a_parameter_class):
    """Its values in a node of the scene."""
    return a_parameter_class(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))


def test_choices_have_defaults_and_are_checked(choices):
    assert (choices.volume, choices.opacity, choices.colour, choices.shown) == (None, 0.5, "red", False)
    choices.volume = a_volume()
    assert choices.volume.GetName() == "CT"
    for name, wrong in (("opacity", 2.0), ("opacity", None), ("colour", "green"), ("count", True)):
        with pytest.raises(ValueError):
            setattr(choices, name, wrong)
    for name, wrong in (("shown", 1), ("volume", choices.parameterNode)):
        with pytest.raises(TypeError):
            setattr(choices, name, wrong)


def test_choices_are_kept_with_the_scene_as_slicer_keeps_them(choices, a_parameter_class):
    choices.shown, choices.opacity = True, 0.25
    node = choices.parameterNode
    assert (node.GetParameter("shown"), node.GetParameter("opacity")) == ("True", "0.25")
    assert a_parameter_class(node).shown is True


def test_widgets_and_choices_follow_each_other_until_they_are_parted(choices, qt, ctk):
    panel = qt.QWidget()
    layout = qt.QVBoxLayout(panel)
    widgets = {"shown": qt.QCheckBox(), "opacity": ctk.ctkSliderWidget(), "colour": qt.QComboBox()}
    for name, widget in widgets.items():
        widget.setProperty("SlicerParameterName", name)
        layout.addWidget(widget)
    tag = choices.connectGui(panel)
    widgets["shown"].click()
    widgets["colour"].currentIndex = 1
    choices.opacity = 0.75
    assert choices.shown and choices.colour == "blue" and widgets["opacity"].value == 0.75
    assert (widgets["opacity"].minimum, widgets["opacity"].maximum) == (0, 1)
    choices.disconnectGui(tag)
    widgets["shown"].click()
    choices.opacity = 0.5
    assert choices.shown and widgets["opacity"].value == 0.75


def test_a_widget_that_slicer_does_not_connect_is_refused(choices, qt):
    with pytest.raises(RuntimeError, match="Unable to create GUI connector"):
        choices.connectParametersToGui({"shown": qt.QLineEdit()})
    with pytest.raises(ValueError, match="Cannot find"):
        choices.connectParametersToGui({"hidden": qt.QCheckBox()})
