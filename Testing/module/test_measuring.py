"""Tests of AirwaySegSlicer's measuring, branches, overlays and plot: the real command on a drawn tree, a real scene."""

import os

import module_scenes as scenes
import numpy as np
import pytest
import slicer
from scipy.ndimage import distance_transform_edt, gaussian_filter

from AirwaySegSlicer.commands import measure as measuring
from AirwaySegSlicer.commands import segment as segmentation
from AirwaySegSlicer.scene import branches, maps, nodes, overlay_kinds, overlays, radius_plot


@pytest.fixture(scope="module")
def a_measured_folder(tmp_path_factory):
    """What the real command leaves for the airways' box of the drawn tree, measured once."""
    import slicerhost

    slicerhost.start().clear()
    folder = tmp_path_factory.mktemp("measured")
    ct, mask = scenes.a_ct()
    airways = segmentation.take_in(scenes.write_result(folder / "result", ct, mask), ct)
    path = os.environ["PATH"]
    os.environ["PATH"] = os.pathsep.join([scenes.python_slicer(folder), path])
    kept = folder / "tree"

    maps = measuring.Maps()
    maps.keep = lambda node, source: os.rename(source, kept)
    try:
        result, message = scenes.end_of(measuring.measuring_job(airways, maps))
    finally:
        os.environ["PATH"] = path
    assert message == "" and result is airways
    return kept


@pytest.fixture(params=[False, True], ids=["in place", "below a transform"])
def a_tree(request, slicer_host, a_measured_folder, tmp_path):
    """CT, mask, measured segmentation and its maps."""
    ct, mask = scenes.a_ct(moved=request.param)
    airways = segmentation.take_in(scenes.write_result(tmp_path / "result", ct, mask), ct)
    maps = measuring.Maps()
    take_in_again(airways, a_measured_folder, maps, tmp_path)
    yield ct, mask, airways, maps
    maps.clear()


def take_in_again(airways, measured, maps, tmp_path):
    copy = tmp_path / "measured"
    copy.mkdir(exist_ok=True)
    for name in os.listdir(measured):
        (copy / name).write_bytes((measured / name).read_bytes())
    measuring.take_in_tree(str(copy), airways, maps)


def values_of_surface(airways, key):
    return slicer.util.arrayFromModelPointData(nodes.companion(airways, nodes.SURFACE), key)


@pytest.fixture
def a_walled_ct(slicer_host, tmp_path, monkeypatch):
    """A CT of a tree whose airways have walls of 1.5 mm in the lung, its segmentation, and the real command."""
    monkeypatch.setenv("PATH", os.pathsep.join([scenes.python_slicer(tmp_path), os.environ["PATH"]]))
    ct, mask = scenes.a_ct()
    spacing = np.array(ct.GetSpacing())[::-1]
    outside = distance_transform_edt(~mask, sampling=spacing)
    hu = np.where(mask, -1000.0, np.where(outside <= 1.5, 40.0, -850.0))
    hu[:, :6] = 300  # bone
    slicer.util.updateVolumeFromArray(ct, np.rint(gaussian_filter(hu, 0.6 / spacing)).astype(np.int16))
    return ct, segmentation.take_in(scenes.write_result(tmp_path / "result", ct, mask), ct)


# The tree ------------------------------------------------------------------------------------------------------------


def test_the_branches_of_the_drawn_tree_are_in_the_scene(a_tree):
    _ct, _mask, airways, _maps = a_tree
    rows = branches.branch_rows(nodes.companion(airways, nodes.CENTERLINE))
    assert sorted(row.generation for row in rows) == [0, 1, 1, 2, 2, 2, 2]
    assert rows[0].name == "trachea" and rows[0].diameter_mm == pytest.approx(8, abs=0.5)
    assert branches.summary(rows) == "7 branches, 0.19 m, down to generation 2"


def test_the_table_node_has_numbers_words_and_one_row_a_branch(a_tree):
    table = nodes.companion(a_tree[2], nodes.TABLE).GetTable()
    assert table.GetNumberOfRows() == 7
    assert table.GetColumnByName("generation").GetClassName() == "vtkIntArray"
    assert table.GetColumnByName("length_mm").GetClassName() == "vtkDoubleArray"
    assert str(table.GetColumnByName("name").GetValue(0)) == "trachea"


def test_the_centerline_runs_in_the_lumen(a_tree):
    ct, mask, airways, _maps = a_tree
    centerline = nodes.companion(airways, nodes.CENTERLINE)
    points = slicer.util.arrayFromModelPoints(centerline)
    inverse = np.linalg.inv(slicer.util.arrayFromVTKMatrix(nodes.ijk_to_ras(ct)))
    i, j, k = np.rint(points @ inverse[:3, :3].T + inverse[:3, 3]).astype(int).T
    assert mask[k, j, i].mean() > 0.98
    assert centerline.GetParentTransformNode() is ct.GetParentTransformNode()


def test_measuring_again_replaces_the_tree(a_tree, a_measured_folder, tmp_path):
    _ct, _mask, airways, maps = a_tree
    count = slicer.mrmlScene.GetNumberOfNodes()
    take_in_again(airways, a_measured_folder, maps, tmp_path)
    assert slicer.mrmlScene.GetNumberOfNodes() == count


def test_measuring_again_takes_over_what_has_not_changed(a_tree, tmp_path):
    ct, mask, airways, maps = a_tree
    lows = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        steps = measuring.measuring_job(airways, maps).prepare(str(folder))
        with pytest.raises(StopIteration) as end:
            while True:
                next(steps)
        arguments = end.value.value
        assert arguments[arguments.index("--known") + 1] == maps.parts(airways)
        lows.append(slicer.util.arrayFromVTKMatrix(nodes.ijk_to_ras(nodes.read_volume(arguments[1])))[:3, 3])
        mask[np.argwhere(mask)[0][0]] = False  # the upper end: the box of the airways begins elsewhere
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), airways, "airways", ct)
    assert np.array_equal(*lows)  # the part that is written stays where it is
    maps.forget(airways)
    assert maps.parts(airways) == ""


def test_a_hidden_centerline_stays_hidden_when_it_is_measured_again(a_tree, a_measured_folder, tmp_path):
    _ct, _mask, airways, maps = a_tree
    assert not nodes.companion(airways, nodes.CENTERLINE).GetDisplayNode().GetScalarVisibility()
    overlays.show_centerline(airways, False)
    take_in_again(airways, a_measured_folder, maps, tmp_path)
    assert not nodes.companion(airways, nodes.CENTERLINE).GetDisplayNode().GetVisibility()


def test_removing_the_result_removes_everything(slicer_host, a_measured_folder, tmp_path):
    ct, mask = scenes.a_ct()
    before = set(scenes.snapshot())
    maps = measuring.Maps()
    airways = segmentation.take_in(scenes.write_result(tmp_path / "result", ct, mask), ct)
    take_in_again(airways, a_measured_folder, maps, tmp_path)
    overlays.show_overlay(airways, "lobe", overlays.OverlayLook(True, True), maps)
    branches.show_branch(airways, 2)
    radius_plot.show_radius_plot(airways, 4)
    overlays.hide_overlay(airways)
    belongings = nodes.Belongings(airways)
    nodes.remove_with_display(airways)  # as the Data module deletes a node
    belongings.remove()
    maps.clear()
    left = [node for node in nodes.all_nodes() if node.GetID() not in before]
    assert {node.GetClassName() for node in left} <= {"vtkMRMLPlotViewNode"}  # of Slicer's own layout
    hierarchy = nodes.subject_hierarchy()
    assert hierarchy.GetItemChildWithName(hierarchy.GetSceneItemID(), "CT airways tree") == 0


def test_files_of_maps_are_gone_when_they_are_forgotten(a_tree):
    _ct, _mask, airways, maps = a_tree
    path = maps.path(airways)
    assert os.path.exists(path)
    maps.forget(airways)
    assert not os.path.exists(path) and maps.path(airways) is None


# From row to views and back ------------------------------------------------------------------------------------------


def test_showing_a_branch_centres_slices_and_cameras_on_it_and_it_is_found_there(a_tree):
    _ct, _mask, airways, _maps = a_tree
    camera = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLCameraNode")
    slices = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    centerline = nodes.companion(airways, nodes.CENTERLINE)
    for number in range(1, 8):
        branches.show_branch(airways, number)
        place = camera.GetFocalPoint()
        assert branches.nearest_branch(centerline, place) == number
        for node in slices:
            centre = [node.GetSliceToRAS().GetElement(axis, 3) for axis in range(3)]
            assert centre == pytest.approx(place)
    highlight = nodes.companion(airways, nodes.HIGHLIGHT)
    bounds = [0.0] * 6
    highlight.GetRASBounds(bounds)
    assert all(low - 1 <= at <= high + 1 for low, at, high in zip(bounds[::2], place, bounds[1::2], strict=True))


def test_there_is_one_highlight_and_it_can_go(a_tree):
    _ct, _mask, airways, _maps = a_tree
    branches.show_branch(airways, 2)
    count = slicer.mrmlScene.GetNumberOfNodes()
    branches.show_branch(airways, 3)
    assert slicer.mrmlScene.GetNumberOfNodes() == count
    branches.hide_branch(airways)
    assert nodes.companion(airways, nodes.HIGHLIGHT) is None


def test_a_branch_that_does_not_exist_gets_a_sentence_and_no_node(a_tree):
    before = scenes.snapshot()
    with pytest.raises(RuntimeError, match="no branch 99"):
        branches.show_branch(a_tree[2], 99)
    assert scenes.snapshot() == before


def test_far_from_the_airways_there_is_no_branch(a_tree):
    assert branches.nearest_branch(nodes.companion(a_tree[2], nodes.CENTERLINE), (900.0, 0.0, 0.0)) is None


def a_picking(places):
    """Wait for a click; the file needs Qt, which the host brings."""
    from AirwaySegSlicer.scene import picking

    return picking.Picking(places.append)


def test_a_click_in_a_view_tells_its_place_once_and_leaves_nothing(slicer_host):
    nodes.subject_hierarchy()
    before, places = set(scenes.snapshot()), []
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    pick = a_picking(places)
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    pick.node.AddControlPointWorld([1.0, 2.0, 3.0])
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)  # as Slicer does after one point
    slicer_host.pump(lambda: bool(places))
    pick.cancel()
    slicer_host.pump(0.05)
    assert places == [(1.0, 2.0, 3.0)]
    assert set(scenes.snapshot()) == before


def test_another_mouse_mode_ends_the_waiting_for_a_click(slicer_host):
    places = []
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    pick = a_picking(places)
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)
    slicer_host.pump(lambda: bool(places))
    assert places == [None] and pick.node.GetScene() is None


# Overlays ------------------------------------------------------------------------------------------------------------


def test_the_surface_has_the_values_of_its_overlay(a_tree):
    _ct, _mask, airways, maps = a_tree
    rows = branches.branch_rows(nodes.companion(airways, nodes.CENTERLINE))
    look = overlays.OverlayLook()
    overlays.show_overlay(airways, "generation", look, maps)
    assert set(np.unique(values_of_surface(airways, "generation"))) == {0, 1, 2}
    overlays.show_overlay(airways, "diameter", look, maps)
    wide = {round(row.diameter_mm, 3) for row in rows}
    assert {round(float(value), 3) for value in np.unique(values_of_surface(airways, "diameter"))} == wide
    overlays.show_overlay(airways, "toCenterline", look, maps)
    assert 3 < values_of_surface(airways, "toCenterline").max() < 6  # the trachea's radius is 4 mm
    overlays.show_overlay(airways, "toWall", look, maps)
    assert values_of_surface(airways, "toWall").max() < 1.1  # at most a voxel deep
    overlays.show_overlay(airways, "fromCarina", look, maps)
    assert values_of_surface(airways, "fromCarina").max() == pytest.approx(51.5, abs=3.5)
    overlays.show_overlay(airways, "lobe", look, maps)
    assert set(np.unique(values_of_surface(airways, "lobe"))) <= set(range(6))


def test_an_overlay_on_the_surface_replaces_the_plain_surface_and_gives_it_back(a_tree):
    _ct, _mask, airways, maps = a_tree
    before = set(scenes.snapshot())
    overlays.show_overlay(airways, "lobe", overlays.OverlayLook(surface=True), maps)
    model = nodes.companion(airways, nodes.SURFACE)
    assert not airways.GetDisplayNode().GetVisibility3D()
    assert model.GetDisplayNode().GetScalarVisibility() and model.GetDisplayNode().GetActiveScalarName() == "lobe"
    colours = model.GetDisplayNode().GetColorNode()
    assert [colours.GetColorName(number) for number in (0, 1)] == ["no lobe", "right upper lobe"]
    overlays.hide_overlay(airways)
    assert airways.GetDisplayNode().GetVisibility3D()
    assert set(scenes.snapshot()) == before


def test_a_surface_that_the_user_has_hidden_stays_hidden(a_tree):
    _ct, _mask, airways, maps = a_tree
    airways.GetDisplayNode().SetVisibility3D(False)
    overlays.show_overlay(airways, "lobe", overlays.OverlayLook(surface=True), maps)
    overlays.hide_overlay(airways)
    assert not airways.GetDisplayNode().GetVisibility3D()


def test_an_overlay_over_the_slices_gives_back_what_lay_there(a_tree):
    ct, mask, airways, maps = a_tree
    composites = overlays.slice_composites()
    assert composites
    for composite in composites:
        composite.SetForegroundVolumeID(ct.GetID())
        composite.SetForegroundOpacity(0.25)
    for key in ("generation", "fromCarina"):
        overlays.show_overlay(airways, key, overlays.OverlayLook(False, True, 0.7), maps)
        volume = nodes.companion(airways, nodes.SLICES)
        assert {composite.GetForegroundVolumeID() for composite in composites} == {volume.GetID()}
        assert {composite.GetForegroundOpacity() for composite in composites} == {0.7}
    overlays.set_opacity(airways, 0.4)
    assert {composite.GetForegroundOpacity() for composite in composites} == {0.4}
    values = slicer.util.arrayFromVolume(volume)
    assert (values != overlays.NOTHING).sum() == mask.sum()
    assert not airways.GetDisplayNode().GetVisibility2DFill()  # it would cover the colours
    overlays.hide_overlay(airways)
    assert airways.GetDisplayNode().GetVisibility2DFill()
    assert {composite.GetForegroundVolumeID() for composite in composites} == {ct.GetID()}
    assert {composite.GetForegroundOpacity() for composite in composites} == {0.25}


def test_only_airways_are_coloured_in_the_slices(a_tree):
    _ct, _mask, airways, maps = a_tree
    overlays.show_overlay(airways, "generation", overlays.OverlayLook(False, True), maps)
    display = nodes.companion(airways, nodes.SLICES).GetDisplayNode()
    assert display.GetApplyThreshold() and overlays.NOTHING < display.GetLowerThreshold() < 0


def test_the_legend_names_what_the_colours_mean(a_tree):
    _ct, _mask, airways, maps = a_tree
    overlays.show_overlay(airways, "generation", overlays.OverlayLook(legend=True), maps)
    model = nodes.companion(airways, nodes.SURFACE)
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(model)
    assert legend.GetTitleText() == "Generation" and legend.GetUseColorNamesForLabels()
    overlays.show_overlay(airways, "generation", overlays.OverlayLook(legend=False), maps)
    assert not slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")


def test_segments_have_the_names_and_numbers_of_the_library():
    from AirwaySegLib.tree.segments import SEGMENTS, full_name

    assert list(overlay_kinds.SEGMENT_NAMES) == [full_name(segment) for segment in SEGMENTS]
    colours = overlays.ramp(overlay_kinds.SEGMENT_COLOURS, len(SEGMENTS) + 1)
    assert len(set(colours)) == len(SEGMENTS) + 1


def test_the_segment_overlay_has_a_colour_for_each_segment(a_tree):
    _ct, _mask, airways, maps = a_tree
    overlays.show_overlay(airways, "segment", overlays.OverlayLook(surface=True), maps)
    colours = nodes.companion(airways, nodes.SURFACE).GetDisplayNode().GetColorNode()
    assert colours.GetNumberOfColors() == 19 and colours.GetColorName(1) == "RB1 apical"


def test_a_legend_has_room_for_its_names_and_numbers_cover_little(a_tree):
    _ct, _mask, airways, maps = a_tree
    sizes = {}
    for key in ("segment", "generation", "diameter"):
        overlays.show_overlay(airways, key, overlays.OverlayLook(surface=True), maps)
        legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(nodes.companion(airways, nodes.SURFACE))
        sizes[key] = legend.GetSize()
    assert sizes["segment"] == pytest.approx((0.3, 0.6)) and sizes["diameter"] == pytest.approx((0.08, 0.3))
    assert sizes["generation"][0] == pytest.approx(0.08)


def test_a_centerline_of_an_older_version_must_be_measured_again(a_tree):
    _ct, _mask, airways, maps = a_tree
    nodes.companion(airways, nodes.CENTERLINE).GetPolyData().GetCellData().RemoveArray("segment")
    with pytest.raises(RuntimeError, match="measured by an older version: measure it again"):
        overlays.show_overlay(airways, "segment", overlays.OverlayLook(), maps)


def test_generations_have_the_colours_of_the_library():
    from AirwaySegLib.tree import colours

    assert overlay_kinds.GENERATION_RAMP == colours.GENERATION_RAMP
    for count in (1, 2, 9, 14):
        mine = np.array(overlays.ramp(overlays.OVERLAYS["generation"].colours, count)) * 255
        assert np.array_equal(np.rint(mine), colours.generation_colours(count))


def test_the_command_and_the_module_call_the_files_alike():
    from AirwaySegLib.commands import measure, segment

    assert maps.VOXELS == measure.VOXELS and segmentation.NOT_MEASURED == segment.NOT_MEASURED
    measured = {
        overlay.values
        for key, overlay in overlays.OVERLAYS.items()
        if key not in (overlays.ORIGINS, overlays.AGREEMENT)
    }
    assert measured == {*measure.MAPS, measure.PROBABILITY}


def test_without_measures_an_overlay_gets_a_sentence_and_changes_nothing(slicer_host, tmp_path):
    ct, mask = scenes.a_ct()
    airways = segmentation.take_in(scenes.write_result(tmp_path / "result", ct, mask), ct)
    before = scenes.snapshot()
    with pytest.raises(RuntimeError, match="Measure CT airways first"):
        overlays.show_overlay(airways, "lobe", overlays.OverlayLook(), measuring.Maps())
    assert scenes.snapshot() == before


# The plot ------------------------------------------------------------------------------------------------------------


def test_the_plot_runs_from_the_carina_to_the_tip_and_becomes_thinner(a_tree):
    _ct, _mask, airways, _maps = a_tree
    distance, radius = radius_plot.path_to(nodes.companion(airways, nodes.CENTERLINE), 7)
    assert distance[0] == pytest.approx(0, abs=1) and distance[-1] == pytest.approx(51.5, abs=3.5)
    assert (np.diff(distance) >= 0).all()
    assert radius[len(radius) // 4] == pytest.approx(2.8, abs=0.3)
    assert radius[-5] == pytest.approx(1.6, abs=0.3)


def test_a_second_plot_replaces_the_first(a_tree):
    _ct, _mask, airways, _maps = a_tree
    first = radius_plot.show_radius_plot(airways, 4)
    count = slicer.mrmlScene.GetNumberOfNodes()
    second = radius_plot.show_radius_plot(airways, 5)
    assert first.GetScene() is None and slicer.mrmlScene.GetNumberOfNodes() == count
    assert second.GetTitle().endswith("branch 5") and second.GetNumberOfPlotSeriesNodes() == 1


# Walls ---------------------------------------------------------------------------------------------------------------


def test_the_walls_are_measured_in_the_ct_and_shown_as_an_overlay(a_walled_ct):
    _ct, airways = a_walled_ct
    maps = measuring.Maps()
    assert scenes.end_of(measuring.measuring_job(airways, maps)) == (airways, "")
    table = nodes.companion(airways, nodes.TABLE).GetTable()
    column = table.GetColumnByName("wall_thickness_mm")
    found = np.array([column.GetValue(row) for row in range(column.GetNumberOfValues())])
    known = found[np.isfinite(found)]
    rows = branches.branch_rows(nodes.companion(airways, nodes.CENTERLINE))
    assert [row.wall_mm for row in rows] == pytest.approx([one if one == one else None for one in found], abs=1e-6)
    assert all(row.outer_radius_mm > row.wall_mm and 0 < row.wall_area < 1 for row in rows if row.wall_mm)
    assert len(known) >= 4 and ((known > 0.9) & (known < 1.6)).all()  # the drawn wall ends within half a voxel
    cells = nodes.companion(airways, nodes.CENTERLINE).GetPolyData().GetCellData()
    cells.GetArray("wall_thickness_mm").SetValue(0, np.nan)  # one is not measured
    overlays.show_overlay(airways, "wallThickness", overlays.OverlayLook(True, True), maps)
    shown = np.unique(values_of_surface(airways, "wallThickness")).round(3)
    assert len(shown[shown > 0]) > 1 and set(shown[shown > 0]) <= set(found.astype(np.float32).round(3))
    lookup = nodes.companion(airways, nodes.SURFACE).GetDisplayNode().GetColorNode().GetLookupTable()
    # VTK draws with a copy of the table, which has the colour of NaN, but not that of values below the range.
    drawn = nodes.companion(airways, nodes.SURFACE).GetDisplayNode().GetColorNode().CreateLookupTableCopy()
    assert np.isnan(values_of_surface(airways, "wallThickness")).any() and not (shown < 0).any()
    assert drawn.GetNanColor()[:3] == pytest.approx(overlays.UNKNOWN)
    assert lookup.GetTableRange()[1] == pytest.approx(np.nanmax(found))
    maps.clear()


def test_without_its_ct_the_airways_are_measured_without_walls(a_walled_ct):
    ct, airways = a_walled_ct
    slicer.mrmlScene.RemoveNode(ct)
    maps = measuring.Maps()
    assert scenes.end_of(measuring.measuring_job(airways, maps)) == (airways, "")
    column = nodes.companion(airways, nodes.TABLE).GetTable().GetColumnByName("wall_thickness_mm")
    assert all(np.isnan(column.GetValue(row)) for row in range(column.GetNumberOfValues()))
    before = scenes.snapshot()
    with pytest.raises(RuntimeError, match="Wall thickness: no branch was measured. Its CT must be in the scene"):
        overlays.show_overlay(airways, "wallThickness", overlays.OverlayLook(), maps)
    assert scenes.snapshot() == before
    maps.clear()


def test_a_volume_without_gas_is_not_taken_for_the_ct(a_walled_ct):
    ct, airways = a_walled_ct
    array, matrix = measuring.airways_box(airways, measuring.airway_segment_id(airways))
    array, matrix = measuring.with_margin(array, matrix, measuring.scan_of(airways))
    part = measuring.ct_part(airways, matrix, array.shape)
    assert part.shape == array.shape and part[array > 0].max() < -300
    slicer.util.updateVolumeFromArray(ct, np.abs(slicer.util.arrayFromVolume(ct)))
    assert measuring.ct_part(airways, matrix, array.shape) is None
