"""Tests of AirwaySegSlicer.exporting: files on the CT's grid, whole cases and training cases by the commands."""

import csv
import json
import os

import numpy as np
import pytest
import SimpleITK

slicer = pytest.importorskip("slicer")
scenes = pytest.importorskip("module_scenes")
exporting = pytest.importorskip("AirwaySegSlicer.exporting")
measuring = pytest.importorskip("AirwaySegSlicer.measuring")
nodes = pytest.importorskip("AirwaySegSlicer.nodes")
segmentation = pytest.importorskip("AirwaySegSlicer.segmentation")


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
    _result, message = scenes.ends_of(lambda audience: measuring.start_measuring(airways, maps, audience))
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


def test_the_whole_case_is_one_folder(a_result, tmp_path):
    _ct, corrected, airways = a_result
    folder = str(tmp_path / "case")
    result = scenes.ends_of(lambda audience: exporting.start_case_export(airways, folder, audience))
    assert result == (folder, "")
    names = {"airways.nrrd", "branches.csv", "tree.json", "centerline.mrk.json", "preview.png", "provenance.json"}
    assert names <= set(os.listdir(folder))
    mask = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(os.path.join(folder, "airways.nrrd")))
    assert np.array_equal(mask, corrected)


def test_a_training_case_has_ct_label_edited_voxels_and_provenance(a_result, tmp_path):
    ct, corrected, airways = a_result
    data = str(tmp_path / "training")
    start = exporting.start_adding_case
    assert scenes.ends_of(lambda audience: start(airways, data, False, audience)) == ("CT", "")
    folder = os.path.join(data, "cases", "CT")
    arrays = {
        name: SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(os.path.join(folder, f"{name}.nrrd")))
        for name in ("ct", "label", "edited")
    }
    assert np.array_equal(arrays["label"], corrected)
    assert np.argwhere(arrays["edited"]).tolist() == [[2, 2, 2]]
    assert np.array_equal(arrays["ct"], slicer.util.arrayFromVolume(ct))
    assert json.loads(open(os.path.join(folder, "provenance.json")).read())["corrected_voxels"]["added"] == 1
    result, message = scenes.ends_of(lambda audience: start(airways, data, False, audience))
    assert result is None and "exists" in message
    assert scenes.ends_of(lambda audience: start(airways, data, True, audience)) == ("CT", "")


@pytest.mark.parametrize(
    ("text", "name"), [("CT", "CT"), ("3: Chest  1.0 B70f", "3-Chest-1.0-B70f"), ("../x", "x"), ("//", "case")]
)
def test_the_name_of_a_node_becomes_the_name_of_a_folder(text, name):
    assert exporting.case_name(text) == name
