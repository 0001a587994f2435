"""Tests of the module's panel, clicked through on stand-ins: input, segmentation, result, scenes, the panel itself."""

import io
from dataclasses import replace

import module_scenes as scenes
import numpy as np
import slicer
import slicerhost
from module_desk import files

from AirwaySegSlicer.commands import nrrd_writer
from AirwaySegSlicer.commands import segment as segmentation
from AirwaySegSlicer.scene import branches, freshness, nodes, overlays, segments, texts

# Input and segmentation ----------------------------------------------------------------------------------------------


def test_the_first_ct_is_proposed_and_models_and_device_are_offered(a_desk):
    assert a_desk.ui.inputSelector.currentNode() is a_desk.ct
    assert a_desk.ui.segmentButton.enabled
    models = a_desk.ui.modelComboBox
    assert [models.itemText(row) for row in range(models.count)] == ["default", "mine"]
    assert a_desk.ui.deviceLabel.text == "CPU: no GPU that PyTorch can use"


def test_a_model_says_how_long_a_usual_ct_takes_with_it(a_desk):
    section = a_desk.section("Segment")
    section.on_probed(replace(section.installation, durations={"default": "about 3 min"}), "")
    models = a_desk.ui.modelComboBox
    assert [models.itemText(row) for row in range(models.count)] == ["default (about 3 min a CT)", "mine"]
    a_desk.choose("modelComboBox", "mine")
    assert a_desk.parameters.model == "mine"


def test_one_button_brings_airways_tree_and_warnings(a_measured_desk):
    assert np.array_equal(segments.mask_on_ct(a_measured_desk.airways, a_measured_desk.ct), a_measured_desk.mask)
    assert a_measured_desk.ui.branchTable.rowCount == 7
    assert a_measured_desk.ui.summaryLabel.text.startswith("7 branches")
    assert a_measured_desk.ui.statusLabel.text == "Finished. The slices are 5 mm apart."
    assert "a line for the log" in a_measured_desk.ui.logText.plainText
    assert a_measured_desk.ui.segmentButton.text == "Segment airways" and not a_measured_desk.ui.progressBar.visible


def test_model_and_device_that_were_chosen_reach_the_command(a_desk, monkeypatch):
    a_desk.choose("modelComboBox", "mine")
    a_desk.choose("deviceComboBox", "cpu")
    options = a_desk.section("Segment").options()
    assert (options.model, options.device, a_desk.parameters.model) == ("mine", "cpu", "mine")


def test_the_button_cancels_and_leaves_nothing(a_desk, monkeypatch):
    monkeypatch.setenv("AIRWAYSEG_STAND_IN", "slow")
    before, kept = scenes.snapshot(), files()
    a_desk.click("segmentButton")
    a_desk.host.pump(lambda: a_desk.ui.progressBar.value == 1)
    assert a_desk.ui.cancelButton.visible
    assert a_desk.ui.statusLabel.text == "Running the network, about 3 s left"
    a_desk.click("cancelButton")
    a_desk.wait()
    assert a_desk.ui.statusLabel.text == "Cancelled." and not a_desk.host.messages
    assert files() == kept and set(scenes.snapshot()) == set(before)


def test_a_failure_is_shown_in_one_sentence(a_desk, monkeypatch):
    monkeypatch.setenv("AIRWAYSEG_STAND_IN", "fail")
    before = set(scenes.snapshot())
    assert a_desk.segment() is None
    assert a_desk.host.messages == [("error", "The scan shows no chest.")]
    assert set(scenes.snapshot()) == before


def test_one_command_brings_mask_and_tree(a_desk, monkeypatch):
    commands, launch = [], a_desk.logic.runs._launch
    monkeypatch.setattr(
        a_desk.logic.runs,
        "_launch",
        lambda arguments, **options: commands.append(arguments) or launch(arguments, **options),
    )
    a_desk.segment()
    [command] = commands
    assert command[1:4] == ["-m", "AirwaySegLib", "segment"] and "--voxels" in command
    assert a_desk.ui.branchTable.rowCount == 7


def test_airways_that_could_not_be_measured_are_there_with_the_sentence_that_says_why(a_desk, monkeypatch):
    monkeypatch.setenv("AIRWAYSEG_STAND_IN", "unmeasured")
    airways = a_desk.segment()
    assert np.array_equal(segments.mask_on_ct(airways, a_desk.ct), a_desk.mask)
    assert a_desk.host.messages == [("error", "The mask falls into too many branches.")]
    assert nodes.companion(airways, nodes.CENTERLINE) is None and not files()


def test_a_tree_that_cannot_be_read_leaves_the_airways_and_a_sentence(a_desk, monkeypatch):
    monkeypatch.setattr("AirwaySegSlicer.commands.measure.CENTERLINE_FILE", "missing.vtp")
    airways = a_desk.segment()
    assert np.array_equal(segments.mask_on_ct(airways, a_desk.ct), a_desk.mask)
    assert a_desk.host.messages == [("error", "missing.vtp could not be read.")] and not files()


def test_the_tree_of_a_region_lies_in_its_airways_and_is_not_out_of_date(a_desk):
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Upper part")
    bounds = [0.0] * 6
    a_desk.ct.GetRASBounds(bounds)
    roi.SetCenterWorld(*((bounds[axis * 2] + bounds[axis * 2 + 1]) / 2 for axis in range(2)), bounds[5])
    roi.SetSizeWorld(500, 500, 160)
    airways = a_desk.logic.segment(a_desk.ct, segmentation.SegmentOptions(region=roi))
    centerline = nodes.companion(airways, nodes.CENTERLINE)
    assert centerline.GetAttribute(freshness.MASK) == freshness.current_signature(airways)
    mask = segments.mask_on_ct(airways, a_desk.ct)
    to_ijk = np.linalg.inv(slicer.util.arrayFromVTKMatrix(nodes.ijk_to_ras(a_desk.ct)))
    points = slicer.util.arrayFromModelPoints(centerline)
    i, j, k = np.rint(points @ to_ijk[:3, :3].T + to_ijk[:3, 3]).astype(int).T
    assert 0 < mask.sum() < a_desk.mask.sum() and mask[k, j, i].mean() > 0.98
    overlays.show_overlay(airways, "generation", overlays.OverlayLook(False, True), a_desk.logic.maps)
    volume = slicer.util.arrayFromVolume(nodes.companion(airways, nodes.SLICES))
    assert (volume != overlays.NOTHING).sum() == mask.sum() and volume.size < mask.size


def test_a_sequence_gets_its_sentence(a_desk):
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode")
    browser.AddSynchronizedSequenceNodeID(sequence.GetID())
    browser.AddProxyNode(a_desk.ct, sequence, False)
    a_desk.click("segmentButton")
    [(kind, text)] = a_desk.host.messages
    assert kind == "error" and "frame of a sequence" in text and not a_desk.logic.runs.is_running("airways")


def test_running_twice_replaces_or_adds_as_the_box_says(a_measured_desk):
    first = a_measured_desk.airways
    second = a_measured_desk.segment()
    assert first.GetScene() is not None and second.GetName() != first.GetName()
    a_measured_desk.click("replaceCheckBox")
    assert a_measured_desk.segment() is second and a_measured_desk.ui.branchTable.rowCount == 7


def test_a_result_that_comes_while_another_module_is_shown_is_chosen(a_desk):
    a_desk.click("segmentButton")
    slicerhost.leave(a_desk.widget)
    a_desk.wait()
    slicerhost.enter(a_desk.widget)
    assert a_desk.airways.GetName() == "CT airways" and a_desk.ui.branchTable.rowCount == 7


def test_of_a_replaced_result_no_file_is_left(a_measured_desk):
    kept = len(files())
    a_measured_desk.click("replaceCheckBox")
    a_measured_desk.segment()
    assert len(files()) == kept == 1


def test_corrections_are_not_replaced_without_asking(a_measured_desk):
    corrected = a_measured_desk.mask.astype(np.uint8)
    corrected[60] = 0
    first = a_measured_desk.airways
    a_measured_desk.click("replaceCheckBox")
    slicer.util.updateSegmentBinaryLabelmapFromArray(corrected, first, "airways", a_measured_desk.ct)
    a_measured_desk.host.answers.append(False)
    a_measured_desk.click("segmentButton")
    assert "was corrected by hand" in a_measured_desk.host.messages[-1][1]
    assert not a_measured_desk.logic.runs.is_running("airways") and a_measured_desk.airways is first


def test_the_window_lives_while_the_ct_is_written(a_desk, monkeypatch):
    """Seconds are measured by benchmarks/panel.py; here it is counted what is written between two looks at events."""
    monkeypatch.setattr(nrrd_writer, "PIECE", 50_000)
    import qt

    written = [0]
    timer = qt.QTimer()
    timer.connect("timeout()", lambda: written.append(0))

    class Counted(io.FileIO):
        def write(self, data):
            written[-1] += len(data)
            return super().write(data)

    monkeypatch.setattr(nrrd_writer, "open", Counted, raising=False)
    timer.start(0)
    a_desk.segment()
    timer.stop()
    assert max(written) <= 50_000 and sum(map(bool, written)) >= 13


# Result --------------------------------------------------------------------------------------------------------------


def test_choosing_a_row_centres_the_views_and_highlights_the_branch(a_measured_desk):
    a_measured_desk.select_branch(5)
    slice_node = slicer.util.getNodesByClass("vtkMRMLSliceNode")[0]
    place = tuple(slice_node.GetSliceToRAS().GetElement(axis, 3) for axis in range(3))
    centerline = nodes.companion(a_measured_desk.airways, nodes.CENTERLINE)
    assert branches.nearest_branch(centerline, place) == 5
    assert nodes.companion(a_measured_desk.airways, nodes.HIGHLIGHT) is not None
    a_measured_desk.ui.branchTable.clearSelection()
    a_measured_desk.host.pump()
    assert nodes.companion(a_measured_desk.airways, nodes.HIGHLIGHT) is None


def test_a_click_in_a_view_chooses_the_row(a_measured_desk):
    centerline = nodes.companion(a_measured_desk.airways, nodes.CENTERLINE)
    points, _places = branches.branch_points(centerline, 6)
    a_measured_desk.click("pickButton")
    pick = a_measured_desk.section("Result")._picking
    pick.node.AddControlPointWorld(points[len(points) // 2].tolist())
    a_measured_desk.host.pump(lambda: not a_measured_desk.ui.pickButton.checked)
    assert a_measured_desk.section("Result").table.chosen() == 6
    assert nodes.companion(a_measured_desk.airways, nodes.HIGHLIGHT) is not None


def test_the_table_sorts_numbers_as_numbers_and_still_finds_its_branch(a_measured_desk):
    table = a_measured_desk.ui.branchTable

    def lengths() -> list[float]:
        table.horizontalHeader().sectionClicked.emit(2)
        texts = [table.item(row, 2).text() for row in range(7)]
        assert all(len(text.partition(".")[2]) == 1 for text in texts)
        return [float(text) for text in texts]

    up, down = lengths(), lengths()
    assert up == sorted(up) and down == up[::-1]
    a_measured_desk.select_branch(1)
    assert a_measured_desk.section("Result").table.chosen() == 1


def test_the_radius_plot_is_of_the_chosen_branch(a_measured_desk):
    assert not a_measured_desk.ui.plotButton.enabled
    a_measured_desk.select_branch(4)
    a_measured_desk.click("plotButton")
    chart = nodes.companion(a_measured_desk.airways, nodes.PLOT_CHART)
    assert chart.GetTitle() == "From the carina to branch 4"


def test_leaving_the_module_ends_the_waiting_for_a_click(a_measured_desk):
    a_measured_desk.click("pickButton")
    slicerhost.leave(a_measured_desk.widget)
    assert not slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")
    slicerhost.enter(a_measured_desk.widget)
    assert not a_measured_desk.ui.pickButton.checked


def test_any_segmentation_can_be_measured(a_desk):
    mine = a_desk.draw("Mine")
    a_desk.choose("airwaysSelector", mine)
    a_desk.click("measureButton")
    a_desk.wait()
    assert a_desk.ui.branchTable.rowCount == 7 and not a_desk.host.messages


def test_measuring_an_empty_segmentation_gets_a_sentence(a_desk):
    mine = segments.new_segmentation("Mine", a_desk.ct)
    a_desk.choose("airwaysSelector", mine)
    a_desk.click("measureButton")
    assert a_desk.host.messages == [("error", "Mine has no segment.")]


def test_of_several_segments_that_with_the_airways_is_measured(a_desk):
    lungs = np.ones_like(a_desk.mask)
    theirs = a_desk.draw("Theirs", lung=lungs, **{"trachea and bronchia": a_desk.mask})
    assert segments.airway_segment_id(theirs) == "trachea and bronchia"
    plain = a_desk.draw("Plain", first=lungs, second=a_desk.mask)
    a_desk.choose("airwaysSelector", plain)
    a_desk.click("measureButton")
    sentence = "Plain has 2 segments; show only the one with the airways, or call it Airways."
    assert a_desk.host.messages == [("error", sentence)]
    plain.GetDisplayNode().SetSegmentVisibility("first", False)
    assert segments.airway_segment_id(plain) == "second"
    plain.GetSegmentation().GetSegment("first").SetName("Airways")
    assert segments.airway_segment_id(plain) == "first"


# Installation --------------------------------------------------------------------------------------------------------


def test_the_check_lists_its_findings(a_desk):
    a_desk.open("installSection")
    a_desk.click("checkButton")
    a_desk.wait()
    assert a_desk.ui.findingsLabel.text.count("&#10003;") == 5
    a_desk.click("installButton")
    a_desk.wait()
    assert not a_desk.host.messages


def test_the_table_lists_one_lobe_or_suspects_only_and_a_pick_shows_all_again(a_measured_desk):
    desk, table = a_measured_desk, a_measured_desk.ui.branchTable
    rows = branches.branch_rows(nodes.companion(desk.airways, nodes.CENTERLINE))
    lobe = next(row.lobe for row in rows if row.lobe)
    wanted = {str(row.id) for row in rows if row.lobe == lobe}
    desk.choose("lobeComboBox", lobe)
    assert {table.item(row, 0).text() for row in range(table.rowCount)} == wanted
    other = next(row.id for row in rows if row.lobe != lobe)
    assert desk.section("Result").table.choose_listing_all(other)
    assert table.rowCount == 7 and desk.section("Result").table.chosen() == other
    documents = texts.document_of(desk.airways, nodes.SUSPECTS)
    documents["suspects"] = [{"kind": "leak", "branch": other, "facts": {}}]
    texts.put_document(desk.airways, nodes.SUSPECTS, documents, "suspects")
    desk.widget.panel.measured()
    desk.click("suspectsCheckBox")
    assert [table.item(row, 0).text() for row in range(table.rowCount)] == [str(other)]


def test_the_table_has_columns_of_lumen_wall_and_names_with_units_and_constant_decimals(a_measured_desk):
    desk, table = a_measured_desk, a_measured_desk.ui.branchTable
    centerline = nodes.companion(desk.airways, nodes.CENTERLINE)
    cells, measured = centerline.GetPolyData().GetCellData(), 2
    ids = [int(cells.GetArray("branch_id").GetValue(cell)) for cell in range(7)]
    figures = {"inner_diameter_mm": 4.0, "wall_thickness_mm": 1.234, "wall_area_fraction": 0.612, "usable_rays": 0.456}
    for name, value in figures.items():
        cells.GetArray(name).SetValue(ids.index(measured), value)
    centerline.GetPolyData().Modified()
    desk.widget.panel.measured()
    desk.select_branch(measured)
    desk.choose("columnsComboBox", "wall")
    titles = [table.horizontalHeaderItem(column).text() for column in range(table.columnCount)]
    assert titles == ["No.", "Outer (mm)", "Wall (mm)", "WA (%)", "Rays (%)", "Segment"]
    shown = {table.item(row, 0).text(): [table.item(row, n).text() for n in range(1, 5)] for row in range(7)}
    assert shown[str(measured)] == ["3.23", "1.23", "61", "46"]
    assert desk.section("Result").table.chosen() == measured  # the branch stays chosen
    desk.section("Result").table.on_header(2)
    desk.section("Result").table.on_header(2)  # the thickest first
    assert table.item(0, 0).text() == str(measured) and table.item(6, 2).text() == ""
    lobe = next(row.lobe for row in branches.branch_rows(centerline) if row.lobe)
    desk.choose("lobeComboBox", lobe)
    assert 0 < table.rowCount < 7
    desk.choose("columnsComboBox", "names")
    assert {table.item(row, 3).text() for row in range(table.rowCount)} == {lobe}
    assert all(table.horizontalHeaderItem(column).toolTip() for column in range(table.columnCount))
    desk.choose("columnsComboBox", "lumen")
    assert table.horizontalHeaderItem(2).text() == "Length (mm)" and not desk.host.messages


def test_names_are_short_beside_the_lumen_and_by_hand_is_marked():
    from AirwaySegSlicer.panel.branch_table import short_name

    row = branches.BranchRow(5, 1, 1, 3, "", "right upper lobe", 9.0, 3.0)
    rows = {
        "RUL": row,
        "RUL, RB1": replace(row, segment="RB1 apical, right upper lobe"),
        "LLL bronchus": replace(row, name="left lower lobe bronchus"),
        "right main": replace(row, name="right main bronchus", lobe=""),
        "RB1 (hand)": replace(row, segment="RB1 apical, right upper lobe", by_hand="lobe and segment"),
        "trachea": replace(row, name="trachea", lobe="", by_hand="generation"),
        "": replace(row, lobe=""),
    }
    assert {short_name(one): one for one in rows.values()} == rows


def test_the_table_takes_the_room_that_the_tab_leaves(a_measured_desk):
    desk, ui = a_measured_desk, a_measured_desk.ui
    desk.widget.parent.resize(400, 900)
    heights = {}
    for tab in ("measureTab", "reviewTab", "measureTab"):
        desk.open(tab)
        desk.host.pump(0.05)
        heights[tab] = ui.branchTable.height
    assert heights["measureTab"] > 1.5 * heights["reviewTab"] > 1.5 * 150


def test_every_set_of_columns_fits_into_a_narrow_table(slicer_host):
    from AirwaySegSlicer.panel import branch_table

    for _name, columns in branch_table.columns().values():
        assert sum(column.width for column in columns) <= 400 - 22  # a scroll bar and the frame


def test_the_plot_is_closed_by_the_same_button_and_the_layout_is_that_from_before(a_measured_desk):
    desk, manager = a_measured_desk, slicer.app.layoutManager()
    before = manager.layout
    desk.select_branch(3)
    desk.click("plotButton")
    assert manager.layout != before and desk.ui.plotButton.text == "Close plot"
    desk.select_branch(4)  # The plot follows.
    assert "branch 4" in nodes.companion(desk.airways, nodes.PLOT_CHART).GetTitle()
    desk.click("plotButton")
    assert manager.layout == before and nodes.companion(desk.airways, nodes.PLOT_CHART) is None
    assert desk.ui.plotButton.text == "Radius plot"


def test_a_region_is_placed_round_the_lungs(a_desk):
    hu = np.full((60, 80, 90), 40, np.int16)
    hu[:, :3], hu[:, -3:] = -1000, -1000  # Air before and behind the patient.
    hu[10:50, 20:60, 15:35] = hu[12:52, 22:58, 50:75] = -850
    ct = slicer.util.addVolumeFromArray(hu, np.diag([-4.0, -4.0, 4.0, 1]), "Lungs")
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    slicer.util.updateTransformMatrixFromArray(transform, np.diag([1.0, 1, 1, 1]) + np.eye(4, k=3) * 100)
    ct.SetAndObserveTransformNodeID(transform.GetID())
    a_desk.choose("inputSelector", ct)
    a_desk.click("placeRegionButton")
    region = a_desk.parameters.region
    assert nodes.region_box(ct, region) == ((13, 77), (18, 62), (8, 54))  # with a margin of 2 or 3 voxels
    flat = slicer.util.addVolumeFromArray(np.zeros((20, 20, 20), np.int16), name="Phantom")
    a_desk.choose("inputSelector", flat)
    a_desk.click("placeRegionButton")
    assert a_desk.parameters.region is region and "No lungs were found in Phantom" in a_desk.ui.statusLabel.text
    assert nodes.region_box(flat, region) == ((0, 20), (0, 20), (0, 20))


def test_an_empty_scene_says_what_to_do_and_leads_to_the_sample(a_desk):
    slicer.mrmlScene.Clear(0)
    a_desk.host.pump()
    label = a_desk.ui.emptyLabel
    assert label.isVisible() and 'href="sample"' in label.text
    label.linkActivated.emit("sample")
    a_desk.host.pump(lambda: slicer.util.getNodes("SimulatedChestCT*"))
    a_desk.host.pump()
    assert "Segment airways" in label.text and not a_desk.host.messages
    label.linkActivated.emit("dicom")
    assert a_desk.host.main_window.selectedModule == "DICOM"


# Scenes --------------------------------------------------------------------------------------------------------------


def test_closing_the_scene_stops_the_work_and_empties_the_panel(a_measured_desk, monkeypatch):
    a_measured_desk.open("correctSection")
    monkeypatch.setenv("AIRWAYSEG_STAND_IN", "slow")
    a_measured_desk.click("replaceCheckBox")
    a_measured_desk.click("segmentButton")
    slicer.mrmlScene.Clear(0)
    a_measured_desk.wait()
    assert a_measured_desk.ui.branchTable.rowCount == 0 and not a_measured_desk.host.messages
    assert not a_measured_desk.ui.segmentButton.enabled and not files()


def test_a_saved_and_reloaded_scene_shows_its_tree_without_any_work(a_measured_desk, tmp_path):
    a_measured_desk.open("measureTab")
    a_measured_desk.choose("overlayComboBox", "generation")
    path = str(tmp_path / "case.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(0)
    a_measured_desk.host.pump()
    slicer.util.loadScene(path)
    a_measured_desk.host.pump()
    assert a_measured_desk.airways.GetName() == "CT airways"
    assert a_measured_desk.ui.branchTable.rowCount == 7
    assert overlays.shown_overlay(a_measured_desk.airways) == "generation"
    assert segmentation.provenance(a_measured_desk.airways) == scenes.REPORT
    assert not a_measured_desk.logic.runs.is_running("airways") and not a_measured_desk.host.messages
    a_measured_desk.select_branch(3)
    assert nodes.companion(a_measured_desk.airways, nodes.HIGHLIGHT) is not None
    a_measured_desk.choose("overlayComboBox", "lobe")
    a_measured_desk.wait()
    assert overlays.shown_overlay(a_measured_desk.airways) == "lobe"


DISPLAY = "vtkMRMLDisplayNode"


def test_with_a_segmentation_goes_all_that_belongs_to_it_and_nothing_else(a_measured_desk):
    hierarchy = nodes.subject_hierarchy()
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", "Mine")
    below = slicer.util.addVolumeFromArray(np.zeros((4, 4, 4), np.int16), name="Below")
    for composite in overlays.slice_composites():
        composite.SetForegroundVolumeID(below.GetID())
    kept = {node.GetID() for node in nodes.all_nodes() if "airways" not in node.GetName() and not node.IsA(DISPLAY)}
    a_measured_desk.open("measureTab")
    a_measured_desk.choose("overlayComboBox", "generation")
    a_measured_desk.click("slicesCheckBox")
    a_measured_desk.select_branch(5)
    a_measured_desk.click("plotButton")
    slicer.mrmlScene.RemoveNode(a_measured_desk.airways)
    a_measured_desk.host.pump()
    left = [node for node in nodes.all_nodes() if "airways" in node.GetName()]
    assert not left and kept <= {node.GetID() for node in nodes.all_nodes()} and other.GetScene() is not None
    assert {composite.GetForegroundVolumeID() for composite in overlays.slice_composites()} == {below.GetID()}
    assert not hierarchy.GetItemByName("CT airways tree") and not files()
    assert a_measured_desk.ui.branchTable.rowCount == 0 and not a_measured_desk.host.messages


# The panel itself ----------------------------------------------------------------------------------------------------


def test_every_widget_that_a_person_uses_has_a_tooltip(a_desk):
    import qt

    kinds = (qt.QAbstractButton, qt.QComboBox, qt.QLineEdit, qt.QTableWidget, qt.QListWidget, qt.QPlainTextEdit)
    silent = [
        name
        for name, widget in vars(a_desk.ui).items()
        if isinstance(widget, kinds) and not widget.toolTip and not name.startswith(("qt_", "Scroll"))
    ]
    assert not silent


def test_the_panel_fits_into_400_pixels(a_desk):
    for name in ("measureTab", "correctSection", "exportTab", "trainTab", "installSection"):
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
