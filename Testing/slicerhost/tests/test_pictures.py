"""Tests of slicerhost.pictures: what is drawn is where it is in the scene."""

from pathlib import Path

import numpy as np
import pytest
import slicer
import slicerhost
import vtk
from PIL import Image


@pytest.fixture
def pictures(slicer_host):
    """The pictures' module, where VTK can draw."""
    from slicerhost import pictures

    if pictures.why_not():
        pytest.skip(pictures.why_not())
    return pictures


@pytest.fixture
def a_green_rod(pictures):
    """A volume of 40 x 40 x 40 mm, black, with a green segment of 8 x 8 mm along the whole height."""
    volume = slicer.util.addVolumeFromArray(np.full((40, 40, 40), -900, np.int16), np.eye(4), "CT")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segment = node.GetSegmentation().AddEmptySegment("rod", "rod", (0, 1, 0))
    mask = np.zeros((40, 40, 40), np.uint8)
    mask[:, 16:24, 16:24] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segment, volume)
    node.CreateClosedSurfaceRepresentation()
    slicer.util.setSliceViewerLayers(background=volume, fit=True)
    return node


def greener(path: Path) -> np.ndarray:
    """Pixels (y, x) in which green is clearly the strongest colour."""
    red, green, blue = np.asarray(Image.open(path).convert("RGB"), dtype=int).transpose(2, 0, 1)
    return green > np.maximum(red, blue) + 50


@pytest.mark.usefixtures("a_green_rod")
def test_a_slice_shows_the_segment_where_it_is(pictures, tmp_path):
    axial = greener(pictures.slice_png(tmp_path / "a.png", "Axial", 20, (200, 200)))
    coronal = greener(pictures.slice_png(tmp_path / "c.png", "Coronal", 20, (200, 200)))
    beside = greener(pictures.slice_png(tmp_path / "b.png", "Coronal", 2, (200, 200)))
    assert axial.shape == (200, 200) and axial[90:110, 90:110].all()
    assert coronal.sum() > 3 * axial.sum() > 0 and not beside.any()


@pytest.mark.usefixtures("a_green_rod")
def test_the_3d_view_shows_a_rod_that_stands(pictures, tmp_path):
    rows, columns = np.nonzero(greener(pictures.view3d_png(tmp_path / "v.png", (200, 200))))
    assert np.ptp(rows) > 3 * np.ptp(columns) > 0


@pytest.mark.usefixtures("a_green_rod")
def test_panel_and_views_come_into_one_picture(slicer_host, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")  # The panel starts no look at the installation.
    widget = slicerhost.open_module(slicer_host)
    panel = pictures.panel_png(tmp_path / "panel.png", widget.parent)
    slices = [pictures.slice_png(tmp_path / f"{name}.png", name) for name in ("Axial", "Coronal", "Sagittal")]
    view = pictures.view3d_png(tmp_path / "view.png")
    sheet = Image.open(pictures.compose(tmp_path / "all.png", panel, slices, view))
    assert Image.open(panel).width == 400 and sheet.width == 400 + 3 * 404
    assert greener(tmp_path / "all.png")[420:, 400:].sum() > 4 * 400
    assert greener(tmp_path / "all.png")[20:420, 400:800].sum() > 400


@pytest.mark.usefixtures("slicer_host")
def test_a_legend_is_drawn_in_a_view_that_was_there_before(pictures, tmp_path):
    view = pictures.View3D((300, 300))
    ball, values = vtk.vtkSphereSource(), vtk.vtkElevationFilter()
    values.SetInputConnection(ball.GetOutputPort())
    values.Update()
    model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode")
    model.SetAndObservePolyData(values.GetOutput())
    model.CreateDefaultDisplayNodes()
    view.fit()
    without = np.asarray(Image.open(view.save(tmp_path / "without.png")), dtype=int)
    colours = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode")
    colours.SetTypeToRainbow()
    model.GetDisplayNode().SetAndObserveColorNodeID(colours.GetID())
    legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(model)
    legend.SetVisibility(True)
    with_legend = np.asarray(Image.open(view.save(tmp_path / "with.png")), dtype=int)
    changed = np.abs(with_legend - without).max(axis=2) > 20
    assert changed[:, 220:].sum() > 200 and not changed[:, :60].any()
