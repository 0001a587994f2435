"""Tests of AirwaySegSlicer.commands.export: files on the CT's grid, whole cases and training cases by the commands."""

import csv
import json
import os

import module_scenes as scenes
import numpy as np
import pytest
import SimpleITK
import slicer

from AirwaySegSlicer.commands import export as exporting
from AirwaySegSlicer.commands import measure as measuring
from AirwaySegSlicer.commands import segment as segmentation
from AirwaySegSlicer.scene import nodes


@pytest.fixture
def a_result(slicer_host, tmp_path, monkeypatch):
    """CT, mask and segmentation, with one voxel corrected; the commands can run."""
    monkeypatch.setenv("PATH", scenes.python_slicer(tmp_path), prepend=os.pathsep)
    ct, mask = scenes.a_ct()
    airways = segmentation.take_in(scenes.write_result(tmp_path / "result", ct, mask), ct)
    corrected = mask.astype(np.uint8)
    corrected[2, 2, 2] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(corrected, airways, "airways", ct)
    return ct, corrected, airways


def grid_of(path) -> tuple:
    image = SimpleITK.ReadImage(str(path))
    return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()


@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz"])
def test_the_mask_is_written_on_the_grid_of_the_ct(a_result, tmp_path, ending):
    ct, corrected, airways = a_result
    nodes.write_volume(ct, str(tmp_path / "ct.nrrd"))
    path = tmp_path / f"mask{ending}"
    written = exporting.export_node(airways, str(path))
    assert np.array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))), corrected)
    for mine, theirs in zip(grid_of(path), grid_of(tmp_path / "ct.nrrd"), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)
    about = json.loads((tmp_path / "mask.provenance.json").read_text())
    assert written[1].endswith("mask.provenance.json")
    assert about["corrected_voxels"] == {"added": 1, "removed": 0}
    assert about["segmented_by"]["model"]["sha256"] == "ab12"


def test_the_surface_is_a_triangle_file_in_lps(a_result, tmp_path):
    _ct, _corrected, airways = a_result
    exporting.export_node(airways, str(tmp_path / "surface.stl"))
    content = (tmp_path / "surface.stl").read_bytes()
    assert b"SPACE=LPS" in content[:80] and len(content) > 10_000


def test_an_export_leaves_the_scene_as_it_was(a_result, tmp_path):
    before = set(scenes.snapshot())
    for ending in (".nrrd", ".nii.gz", ".stl"):
        exporting.export_node(a_result[2], str(tmp_path / f"a{ending}"))
    assert set(scenes.snapshot()) == before
    assert a_result[0].GetStorageNode() is None


def test_another_ending_and_an_unmeasured_tree_get_a_sentence(a_result, tmp_path):
    with pytest.raises(RuntimeError, match="ends in none of"):
        exporting.export_node(a_result[2], str(tmp_path / "mask.png"))
    with pytest.raises(RuntimeError, match="Measure CT airways first"):
        exporting.export_node(a_result[2], str(tmp_path / "tree.vtp"))


def test_centerline_and_table_are_written_as_they_were_measured(a_result, tmp_path):
    _ct, _corrected, airways = a_result
    maps = measuring.Maps()
    _result, message = scenes.end_of(measuring.measuring_job(airways, maps))
    maps.clear()
    assert message == ""
    exporting.export_node(airways, str(tmp_path / "tree.vtp"))
    exporting.export_node(airways, str(tmp_path / "tree.csv"))
    again = measuring.read_model(str(tmp_path / "tree.vtp"))
    mine = nodes.companion(airways, nodes.CENTERLINE)
    assert np.allclose(slicer.util.arrayFromModelPoints(again), slicer.util.arrayFromModelPoints(mine), atol=1e-3)
    with open(tmp_path / "tree.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows][:1] == ["trachea"] and float(rows[0]["mean_diameter_mm"]) > 7


@pytest.mark.parametrize("relative", [False, True], ids=["absolute path", "relative path"])
def test_the_whole_case_is_one_folder(a_result, tmp_path, monkeypatch, relative):
    _ct, corrected, airways = a_result
    monkeypatch.chdir(tmp_path)
    folder = str(tmp_path / "case")
    result = scenes.end_of(exporting.case_export_job(airways, "case" if relative else folder))
    assert result == (folder, "")
    names = {"airways.nrrd", "branches.csv", "tree.json", "centerline.mrk.json", "preview.png", "provenance.json"}
    assert names <= set(os.listdir(folder))
    mask = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(os.path.join(folder, "airways.nrrd")))
    assert np.array_equal(mask, corrected)


def test_an_export_leaves_nothing_but_its_files(a_result, tmp_path):
    _ct, _corrected, airways = a_result
    maps = measuring.Maps()
    scenes.end_of(measuring.measuring_job(airways, maps))
    maps.clear()
    (tmp_path / "out").mkdir()
    for ending in (".csv", ".vtp", ".stl", ".nrrd"):
        exporting.export_node(airways, str(tmp_path / "out" / f"a{ending}"))
    names = {"a.csv", "a.vtp", "a.stl", "a.nrrd", "a.provenance.json"}
    assert set(os.listdir(tmp_path / "out")) == names


@pytest.mark.parametrize("reference", ["none", "label map"])
def test_airways_from_elsewhere_are_exported_on_the_chosen_ct(slicer_host, tmp_path, reference):
    ct, mask = scenes.a_ct()
    label = slicer.util.addVolumeFromArray(
        mask.astype(np.uint8), scenes.IJK_TO_RAS, "Read", nodeClassName="vtkMRMLLabelMapVolumeNode"
    )
    theirs = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Theirs")
    slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(label, theirs)
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    theirs.SetNodeReferenceID(role, label.GetID() if reference == "label map" else None)
    path = str(tmp_path / "mask.nrrd")
    with pytest.raises(RuntimeError, match="The CT of Theirs is not in the scene; choose a chest CT"):
        exporting.export_node(theirs, path)
    exporting.export_node(theirs, path, ct)
    assert np.array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path)), mask)
    far = slicer.util.addVolumeFromArray(
        np.zeros((8, 8, 8), np.int16), np.diag([1, 1, 1, 1]) + 500 * np.eye(4, k=3), "Far"
    )
    with pytest.raises(RuntimeError, match="No airways of Theirs lie in Far"):
        exporting.export_node(theirs, path, far)


@pytest.mark.parametrize(
    ("text", "name"), [("CT", "CT"), ("3: Chest  1.0 B70f", "3-Chest-1.0-B70f"), ("../x", "x"), ("//", "case")]
)
def test_the_name_of_a_node_becomes_the_name_of_a_folder(text, name):
    assert exporting.case_name(text) == name
