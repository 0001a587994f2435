"""Tests of the module's panel: every section clicked through on stand-ins of Slicer's widgets, with real children."""

import os
import time

import numpy as np
import pytest

slicer = pytest.importorskip("slicer")
slicerhost = pytest.importorskip("slicerhost", exc_type=ImportError)
scenes = pytest.importorskip("module_scenes")
branches = pytest.importorskip("AirwaySegSlicer.branches")
correction = pytest.importorskip("AirwaySegSlicer.correction")
nodes = pytest.importorskip("AirwaySegSlicer.nodes")
overlays = pytest.importorskip("AirwaySegSlicer.overlays")
segmentation = pytest.importorskip("AirwaySegSlicer.segmentation")
segments = pytest.importorskip("AirwaySegSlicer.segments")


class Desk:
    """An open panel, its CT, and what a person does with them."""

    def __init__(self, host, ct, mask):
        self.host, self.ct, self.mask = host, ct, mask
        self.widget = slicerhost.open_module(host)
        self.ui, self.logic = self.widget.ui, self.widget.logic
        self.wait()

    def wait(self, slots=("airways", "training", "probe")):
        """Until nothing runs."""
        self.host.pump(lambda: not any(self.logic.runs.is_running(slot) for slot in slots))

    @property
    def parameters(self):
        return self.widget.panel.parameters

    @property
    def airways(self):
        return self.parameters.airways

    def click(self, name):
        slicerhost.click(getattr(self.ui, name))

    def choose(self, name, value):
        slicerhost.choose(getattr(self.ui, name), value)

    def open(self, name):
        """Open a section."""
        if getattr(self.ui, name).collapsed:
            self.click(name)

    def segment(self):
        self.click("segmentButton")
        self.wait()
        return self.airways


@pytest.fixture(scope="module")
def kept_measures(tmp_path_factory):
    """A folder in which the results of the real `airwayseg measure` are kept for the next test."""
    return str(tmp_path_factory.mktemp("kept"))


@pytest.fixture
def a_desk(slicer_host, kept_measures, tmp_path, monkeypatch):
    """A panel beside a CT; commands that need the network are stand-ins."""
    monkeypatch.setenv("AIRWAYSEG_KEPT", kept_measures)
    monkeypatch.setenv("PATH", scenes.python_slicer(tmp_path, stand_ins=True), prepend=os.pathsep)
    ct, mask = scenes.a_ct()
    return Desk(slicer_host, ct, mask)


@pytest.fixture
def a_result(a_desk):
    """A panel with a measured result."""
    assert a_desk.segment() is not None and not a_desk.host.messages
    return a_desk


def files() -> list[str]:
    return [name for name in os.listdir(slicer.app.temporaryPath) if name.startswith("AirwaySeg")]


def select_branch(desk, number):
    table = desk.ui.branchTable
    rows = [row for row in range(table.rowCount) if table.item(row, 0).text() == str(number)]
    slicerhost.choose(table, rows[0])


# Input and segmentation ----------------------------------------------------------------------------------------------


def test_the_first_ct_is_proposed_and_models_and_device_are_offered(a_desk):
    assert a_desk.ui.inputSelector.currentNode() is a_desk.ct
    assert a_desk.ui.segmentButton.enabled
    models = a_desk.ui.modelComboBox
    assert [models.itemText(row) for row in range(models.count)] == ["default", "mine"]
    assert a_desk.ui.deviceLabel.text == "CPU: no GPU that PyTorch can use"


def test_one_button_brings_airways_tree_and_warnings(a_result):
    assert np.array_equal(segments.mask_on_ct(a_result.airways, a_result.ct), a_result.mask)
    assert a_result.ui.branchTable.rowCount == 7
    assert a_result.ui.summaryLabel.text.startswith("7 branches")
    assert a_result.ui.statusLabel.text == "Finished. The slices are 5 mm apart."
    assert "a line for the log" in a_result.ui.logText.plainText
    assert a_result.ui.segmentButton.text == "Segment airways" and not a_result.ui.progressBar.visible


def test_model_and_device_that_were_chosen_reach_the_command(a_desk, monkeypatch):
    a_desk.choose("modelComboBox", "mine")
    a_desk.choose("deviceComboBox", "cpu")
    options = a_desk.widget.panel.sections[0].options()
    assert (options.model, options.device, a_desk.parameters.model) == ("mine", "cpu", "mine")


def test_the_button_cancels_within_a_second_and_leaves_nothing(a_desk, monkeypatch):
    monkeypatch.setenv("AIRWAYSEG_STAND_IN", "slow")
    before, kept = scenes.snapshot(), files()
    a_desk.click("segmentButton")
    a_desk.host.pump(lambda: a_desk.ui.progressBar.value == 1)
    assert a_desk.ui.segmentButton.text == "Cancel"
    assert a_desk.ui.statusLabel.text == "Running the network, about 3 s left"
    start = time.monotonic()
    a_desk.click("segmentButton")
    a_desk.wait()
    assert time.monotonic() - start < 1
    assert a_desk.ui.statusLabel.text == "Cancelled." and not a_desk.host.messages
    assert files() == kept and set(scenes.snapshot()) == set(before)


def test_a_failure_is_shown_in_one_sentence(a_desk, monkeypatch):
    monkeypatch.setenv("AIRWAYSEG_STAND_IN", "fail")
    before = set(scenes.snapshot())
    assert a_desk.segment() is None
    assert a_desk.host.messages == [("error", "The scan shows no chest.")]
    assert set(scenes.snapshot()) == before


def test_a_sequence_gets_its_sentence(a_desk):
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode")
    browser.AddSynchronizedSequenceNodeID(sequence.GetID())
    browser.AddProxyNode(a_desk.ct, sequence, False)
    a_desk.click("segmentButton")
    [(kind, text)] = a_desk.host.messages
    assert kind == "error" and "frame of a sequence" in text and not a_desk.logic.runs.is_running("airways")


def test_running_twice_replaces_or_adds_as_the_box_says(a_result):
    first = a_result.airways
    second = a_result.segment()
    assert first.GetScene() is None and second.GetName() == "CT airways"
    a_result.click("replaceCheckBox")
    third = a_result.segment()
    assert second.GetScene() is not None and third.GetName() != second.GetName()


def test_a_result_that_comes_while_another_module_is_shown_is_chosen(a_desk):
    a_desk.click("segmentButton")
    slicerhost.leave(a_desk.widget)
    a_desk.wait()
    slicerhost.enter(a_desk.widget)
    assert a_desk.airways.GetName() == "CT airways" and a_desk.ui.branchTable.rowCount == 7


def test_of_a_replaced_result_no_file_is_left(a_result):
    kept = len(files())
    a_result.segment()
    assert len(files()) == kept == 1


def test_corrections_are_not_replaced_without_asking(a_result):
    corrected = a_result.mask.astype(np.uint8)
    corrected[60] = 0
    first = a_result.airways
    slicer.util.updateSegmentBinaryLabelmapFromArray(corrected, first, "airways", a_result.ct)
    a_result.host.answers.append(False)
    a_result.click("segmentButton")
    assert "was corrected by hand" in a_result.host.messages[-1][1]
    assert not a_result.logic.runs.is_running("airways") and a_result.airways is first


def test_nothing_holds_the_window_for_longer_than_a_tenth_of_a_second(a_desk):
    longest, last = 0.0, time.monotonic()
    qt = pytest.importorskip("qt")
    timer = qt.QTimer()

    def tick():
        nonlocal longest, last
        longest, last = max(longest, time.monotonic() - last), time.monotonic()

    timer.connect("timeout()", tick)
    timer.start(5)
    a_desk.segment()
    a_desk.open("overlaySection")
    a_desk.choose("overlayComboBox", "fromCarina")
    timer.stop()
    assert longest < 0.25  # 0.1 s, and what the other processes of this computer take away


# Result --------------------------------------------------------------------------------------------------------------


def test_choosing_a_row_centres_the_views_and_highlights_the_branch(a_result):
    select_branch(a_result, 5)
    slice_node = slicer.util.getNodesByClass("vtkMRMLSliceNode")[0]
    place = tuple(slice_node.GetSliceToRAS().GetElement(axis, 3) for axis in range(3))
    centerline = nodes.companion(a_result.airways, nodes.CENTERLINE)
    assert branches.nearest_branch(centerline, place) == 5
    assert nodes.companion(a_result.airways, nodes.HIGHLIGHT) is not None
    a_result.ui.branchTable.clearSelection()
    a_result.host.pump()
    assert nodes.companion(a_result.airways, nodes.HIGHLIGHT) is None


def test_a_click_in_a_view_chooses_the_row(a_result):
    centerline = nodes.companion(a_result.airways, nodes.CENTERLINE)
    points, _places = branches.branch_points(centerline, 6)
    a_result.click("pickButton")
    pick = a_result.widget.panel.sections[1]._picking
    pick.node.AddControlPointWorld(points[len(points) // 2].tolist())
    a_result.host.pump(lambda: not a_result.ui.pickButton.checked)
    assert a_result.widget.panel.sections[1].chosen_branch() == 6
    assert nodes.companion(a_result.airways, nodes.HIGHLIGHT) is not None


def test_the_table_sorts_numbers_as_numbers_and_still_finds_its_branch(a_result):
    table = a_result.ui.branchTable
    table.sortItems(2)
    lengths = [float(table.item(row, 2).text()) for row in range(7)]
    assert lengths == sorted(lengths)
    select_branch(a_result, 1)
    assert a_result.widget.panel.sections[1].chosen_branch() == 1


def test_the_radius_plot_is_of_the_chosen_branch(a_result):
    assert not a_result.ui.plotButton.enabled
    select_branch(a_result, 4)
    a_result.click("plotButton")
    chart = nodes.companion(a_result.airways, nodes.PLOT_CHART)
    assert chart.GetTitle() == "From the carina to branch 4"


def test_leaving_the_module_ends_the_waiting_for_a_click(a_result):
    a_result.click("pickButton")
    slicerhost.leave(a_result.widget)
    assert not slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")
    slicerhost.enter(a_result.widget)
    assert not a_result.ui.pickButton.checked


def test_any_segmentation_can_be_measured(a_desk):
    mine = segments.new_segmentation("Mine", a_desk.ct)
    mine.GetSegmentation().AddEmptySegment("tree")
    slicer.util.updateSegmentBinaryLabelmapFromArray(a_desk.mask.astype(np.uint8), mine, "tree", a_desk.ct)
    a_desk.choose("airwaysSelector", mine)
    a_desk.click("measureButton")
    a_desk.wait()
    assert a_desk.ui.branchTable.rowCount == 7 and not a_desk.host.messages


def test_measuring_an_empty_segmentation_gets_a_sentence(a_desk):
    mine = segments.new_segmentation("Mine", a_desk.ct)
    a_desk.choose("airwaysSelector", mine)
    a_desk.click("measureButton")
    assert a_desk.host.messages == [("error", "Mine has no segment.")]


# Overlays ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def an_overlay(a_result):
    """A panel whose result is coloured by generation."""
    a_result.open("overlaySection")
    a_result.choose("overlayComboBox", "generation")
    return a_result


def test_every_overlay_can_be_chosen_and_taken_away(an_overlay):
    combo = an_overlay.ui.overlayComboBox
    before = set(scenes.snapshot())
    for row in range(1, combo.count):
        an_overlay.choose("overlayComboBox", combo.itemText(row))
        assert overlays.shown_overlay(an_overlay.airways) == combo.itemData(row)
        assert len(set(scenes.snapshot())) == len(before)
    an_overlay.choose("overlayComboBox", "Nothing")
    assert not overlays.shown_overlay(an_overlay.airways)
    assert nodes.companion(an_overlay.airways, nodes.SURFACE) is None and not an_overlay.host.messages


def test_surface_slices_opacity_legend_and_centerline_follow_their_boxes(an_overlay):
    airways = an_overlay.airways
    an_overlay.click("slicesCheckBox")
    an_overlay.click("surfaceCheckBox")
    assert nodes.companion(airways, nodes.SURFACE) is None
    volume = nodes.companion(airways, nodes.SLICES)
    composite = overlays.slice_composites()[0]
    assert composite.GetForegroundVolumeID() == volume.GetID()
    an_overlay.ui.opacitySlider.value = 0.3
    assert composite.GetForegroundOpacity() == pytest.approx(0.3)
    assert slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
    an_overlay.click("legendCheckBox")
    assert not slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
    an_overlay.click("centerlineCheckBox")
    assert not nodes.companion(airways, nodes.CENTERLINE).GetDisplayNode().GetVisibility()


def test_an_overlay_of_an_unmeasured_segmentation_is_measured_first(a_desk):
    mine = segments.new_segmentation("Mine", a_desk.ct)
    mine.GetSegmentation().AddEmptySegment("tree")
    slicer.util.updateSegmentBinaryLabelmapFromArray(a_desk.mask.astype(np.uint8), mine, "tree", a_desk.ct)
    a_desk.choose("airwaysSelector", mine)
    a_desk.open("overlaySection")
    a_desk.choose("overlayComboBox", "lobe")
    assert a_desk.ui.segmentButton.text == "Cancel"
    a_desk.wait()
    assert overlays.shown_overlay(mine) == "lobe" and not a_desk.host.messages


# Correction ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def an_editor(a_result):
    """A panel with the section Correct open."""
    a_result.open("correctSection")
    return a_result


def cut(desk):
    """Cut the branches of one side off, as Segment Editor does; the mask that is left."""
    mask = desk.mask.astype(np.uint8)
    mask[:, 60:] = 0
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, desk.airways, "airways", desk.ct)
    return mask


def test_the_editor_is_made_when_its_section_opens(a_result):
    assert a_result.widget.panel.sections[3].editor is None
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentEditorNode")
    a_result.open("correctSection")
    editor = a_result.widget.panel.sections[3].editor
    assert editor.segmentationNode() is a_result.airways and editor.sourceVolumeNode() is a_result.ct
    assert editor.currentSegmentID() == "airways"


def test_after_an_edit_tree_and_overlay_follow_by_the_button(an_editor):
    an_editor.open("overlaySection")
    an_editor.choose("overlayComboBox", "generation")
    cut(an_editor)
    an_editor.click("updateButton")
    an_editor.wait()
    assert an_editor.ui.branchTable.rowCount < 7 and not an_editor.host.messages
    bounds = [0.0] * 6
    nodes.companion(an_editor.airways, nodes.SURFACE).GetRASBounds(bounds)
    whole = [0.0] * 6
    nodes.companion(an_editor.airways, nodes.INITIAL).GetRASBounds(whole)
    assert bounds != pytest.approx(whole, abs=5)


def test_after_an_edit_the_tree_follows_by_itself_where_that_is_wanted(an_editor):
    an_editor.click("autoUpdateCheckBox")
    an_editor.widget.panel.sections[3]._timer.setInterval(20)
    cut(an_editor)
    an_editor.host.pump(lambda: an_editor.ui.branchTable.rowCount < 7)
    assert "removed" in an_editor.ui.editsLabel.text


def test_all_corrections_can_be_taken_back(an_editor):
    cut(an_editor)
    an_editor.click("takeBackButton")
    assert correction.count_edits(an_editor.airways) == correction.Edits(0, 0)


def test_leaving_the_module_lets_go_of_the_views(an_editor):
    slicerhost.leave(an_editor.widget)
    slicerhost.enter(an_editor.widget)
    assert an_editor.widget.panel.sections[3].editor.segmentationNode() is an_editor.airways


# Export and fine-tuning ----------------------------------------------------------------------------------------------


@pytest.fixture
def an_export(a_result, tmp_path):
    """A panel with the section Export open and a folder chosen."""
    a_result.open("exportSection")
    assert not a_result.ui.exportButton.enabled
    a_result.ui.exportFolderEdit.currentPath = str(tmp_path / "out")
    return a_result


def test_everything_can_be_exported_and_nothing_is_replaced_without_asking(an_export, tmp_path):
    combo = an_export.ui.exportComboBox
    for row in range(combo.count):
        an_export.choose("exportComboBox", combo.itemText(row))
        an_export.click("exportButton")
        an_export.wait()
    names = {"CT-airways.nrrd", "CT-airways.nii.gz", "CT-airways.stl", "CT-airways.vtp", "CT-airways.csv", "CT-airways"}
    assert names <= set(os.listdir(tmp_path / "out")) and not an_export.host.messages
    assert an_export.ui.exportLabel.text == f"Written: {tmp_path / 'out' / 'CT-airways'}"
    an_export.host.answers.append(False)
    an_export.choose("exportComboBox", ".stl")
    old = os.path.getmtime(tmp_path / "out" / "CT-airways.stl")
    an_export.click("exportButton")
    assert "Replace it?" in an_export.host.messages[-1][1]
    assert os.path.getmtime(tmp_path / "out" / "CT-airways.stl") == old


@pytest.fixture
def a_training(a_result, tmp_path):
    """A panel with the section Fine-tune open and a folder with one case."""
    a_result.open("finetuneSection")
    a_result.ui.trainingFolderEdit.currentPath = str(tmp_path / "training")
    a_result.click("addCaseButton")
    a_result.wait()
    return a_result


def test_a_case_is_added_listed_and_removed(a_training):
    assert a_training.ui.casesList.count == 1 and not a_training.host.messages
    assert a_training.ui.casesList.item(0).text() == "CT (0 voxels corrected)"
    assert a_training.ui.finetuneLabel.text == "Added CT."
    a_training.choose("casesList", 0)
    a_training.click("removeCaseButton")
    a_training.wait()
    assert a_training.ui.casesList.count == 0


def test_a_training_runs_beside_other_work_and_its_table_and_model_appear(a_training, monkeypatch):
    assert not a_training.ui.finetuneButton.enabled
    a_training.ui.newModelEdit.text = "mine"
    a_training.click("finetuneButton")
    assert a_training.ui.finetuneButton.text == "Stop fine-tuning"
    assert a_training.ui.segmentButton.enabled and a_training.ui.segmentButton.text == "Segment airways"
    a_training.wait()
    assert a_training.ui.outcomeTable.rowCount == 6
    assert a_training.ui.outcomeTable.item(0, 2).text() == "85.0"
    assert a_training.ui.finetuneLabel.text == "Better, and listed as mine: it rose by 4.0 points."


def test_a_training_can_be_stopped(a_training, monkeypatch):
    monkeypatch.setenv("AIRWAYSEG_STAND_IN", "slow")
    a_training.ui.newModelEdit.text = "mine"
    a_training.click("finetuneButton")
    a_training.host.pump(lambda: a_training.ui.finetuneProgressBar.value == 1)
    a_training.click("finetuneButton")
    a_training.wait()
    assert a_training.ui.finetuneLabel.text.startswith("Stopped.") and not a_training.host.messages


# Installation --------------------------------------------------------------------------------------------------------


def test_the_check_lists_its_findings(a_desk):
    a_desk.open("installSection")
    a_desk.click("checkButton")
    a_desk.wait()
    assert a_desk.ui.findingsLabel.text.count("&#10003;") == 5
    a_desk.click("installButton")
    a_desk.wait()
    assert not a_desk.host.messages


# Scenes --------------------------------------------------------------------------------------------------------------


def test_closing_the_scene_stops_the_work_and_empties_the_panel(an_editor, monkeypatch):
    monkeypatch.setenv("AIRWAYSEG_STAND_IN", "slow")
    an_editor.click("replaceCheckBox")
    an_editor.click("segmentButton")
    slicer.mrmlScene.Clear(0)
    an_editor.wait()
    assert an_editor.ui.branchTable.rowCount == 0 and not an_editor.host.messages
    assert not an_editor.ui.segmentButton.enabled and not files()


def test_a_saved_and_reloaded_scene_shows_its_tree_without_any_work(an_overlay, tmp_path):
    path = str(tmp_path / "case.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(0)
    an_overlay.host.pump()
    slicer.util.loadScene(path)
    an_overlay.host.pump()
    assert an_overlay.airways.GetName() == "CT airways"
    assert an_overlay.ui.branchTable.rowCount == 7
    assert overlays.shown_overlay(an_overlay.airways) == "generation"
    assert segmentation.provenance(an_overlay.airways) == scenes.REPORT
    assert not an_overlay.logic.runs.is_running("airways") and not an_overlay.host.messages
    select_branch(an_overlay, 3)
    assert nodes.companion(an_overlay.airways, nodes.HIGHLIGHT) is not None
    an_overlay.choose("overlayComboBox", "lobe")
    an_overlay.wait()
    assert overlays.shown_overlay(an_overlay.airways) == "lobe"


# The panel itself ----------------------------------------------------------------------------------------------------


def test_every_widget_that_a_person_uses_has_a_tooltip(a_desk):
    qt = pytest.importorskip("qt")
    kinds = (qt.QAbstractButton, qt.QComboBox, qt.QLineEdit, qt.QTableWidget, qt.QListWidget, qt.QPlainTextEdit)
    silent = [
        name
        for name, widget in vars(a_desk.ui).items()
        if isinstance(widget, kinds) and not widget.toolTip and not name.startswith("qt_")
    ]
    assert not silent


def test_the_panel_fits_into_400_pixels(a_desk):
    for name in ("overlaySection", "correctSection", "exportSection", "finetuneSection", "installSection"):
        a_desk.open(name)
    a_desk.host.pump(0.05)
    assert a_desk.ui.AirwaySeg.minimumSizeHint.width() <= 400


def test_the_sample_is_registered_drawn_here_and_shown(a_desk):
    [source] = slicer.modules.sampleDataSources["AirwaySeg"]
    source = source if isinstance(source, dict) else vars(source)
    assert source["sampleName"] == "SimulatedChestCT"
    source["customDownloader"](source)
    a_desk.host.pump(lambda: slicer.util.getNodes("SimulatedChestCT*"))
    sample = slicer.util.getNode("SimulatedChestCT*")
    assert sample.GetImageData().GetDimensions() == (3, 4, 5)
    assert {node.GetBackgroundVolumeID() for node in overlays.slice_composites()} == {sample.GetID()}


def test_the_self_test_of_the_module_passes(a_desk):
    import AirwaySeg

    test = AirwaySeg.AirwaySegTest()
    test.runTest()
