"""`airwayseg measure` and the measuring within `airwayseg segment`: which files, on which grid, and what is refused."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from phantoms import a_forked_tree, draw_tubes

from AirwaySegLib.__main__ import main
from AirwaySegLib.commands import measure as measuring
from AirwaySegLib.commands.measure import FILES, TREE, MeasureRequest, run_measure
from AirwaySegLib.progress import silent
from AirwaySegLib.tree.airway_tree import AirwayTree
from AirwaySegLib.tree.suspect import suspects_from_json

SHAPE, SPACING_MM = (160, 64, 144), (1.25, 1.25, 1.25)


@pytest.fixture(scope="module")
def a_mask_file(tmp_path_factory) -> Path:
    """A drawn tree stored upside down and from right to left, with an origin of its own."""
    drawn = draw_tubes(a_forked_tree(), SHAPE, SPACING_MM).astype(np.uint8)
    image = sitk.GetImageFromArray(drawn)
    image.SetSpacing(SPACING_MM)
    image.SetOrigin((-100.0, 30.0, 12.0))
    path = tmp_path_factory.mktemp("mask") / "patient7.nii.gz"
    sitk.WriteImage(sitk.DICOMOrient(image, "RAS"), str(path))
    return path


@pytest.fixture(scope="module")
def a_result(a_mask_file, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("measured") / "result"
    assert main(["measure", str(a_mask_file), "-o", str(folder), "--progress", "none"]) == 0
    return folder


def test_everything_promised_is_there_and_nothing_else(a_result):
    assert {path.name for path in a_result.iterdir()} == set(FILES)


def test_the_maps_lie_on_the_masks_own_grid_in_mm(a_result, a_mask_file):
    mask = sitk.ReadImage(str(a_mask_file))
    inside = sitk.GetArrayFromImage(mask) > 0
    most_mm = {"distance-centerline.nrrd": 11, "distance-wall.nrrd": 9, "distance-carina.nrrd": 120}
    for name in ("branches.nrrd", *measuring.DISTANCES):
        image = sitk.ReadImage(str(a_result / name))
        assert image.GetSize() == mask.GetSize()
        assert image.GetOrigin() == pytest.approx(mask.GetOrigin())
        assert image.GetDirection() == pytest.approx(mask.GetDirection())
        values = sitk.GetArrayFromImage(image)
        assert not values[~inside].any()
        if name in most_mm:
            assert image.GetPixelID() == sitk.sitkFloat32
            assert 0.6 * most_mm[name] < values.max() <= most_mm[name]
        else:
            assert image.GetPixelID() == sitk.sitkUInt16
            assert np.array_equal(values > 0, inside)


def test_points_of_the_tree_lie_in_their_branch_of_the_map(a_result):
    image = sitk.ReadImage(str(a_result / "branches.nrrd"))
    tree = AirwayTree.from_json((a_result / TREE).read_text())
    assert len(tree.branches) == 7
    for branch in tree.branches:
        middle = branch.points_mm[len(branch.points_mm) // 2]
        assert image[image.TransformPhysicalPointToIndex(middle.tolist())] == branch.id


def test_the_text_on_the_terminal_counts_branches(a_mask_file, tmp_path, capsys):
    assert main(["measure", str(a_mask_file), "-o", str(tmp_path / "r"), "--progress", "none"]) == 0
    assert "7 branches" in capsys.readouterr().out


def test_ct_probability_and_curves_add_their_files(a_mask_file, tmp_path):
    mask = sitk.ReadImage(str(a_mask_file))
    ct = sitk.Cast(mask, sitk.sitkInt16) * -900 + 40
    sitk.WriteImage(ct, str(tmp_path / "ct.nii.gz"))
    # the probability is low on one side of the patient
    values = sitk.GetArrayFromImage(mask) * 250
    values[:, :, : SHAPE[2] // 2] = np.minimum(values[:, :, : SHAPE[2] // 2], 60)
    probability = sitk.GetImageFromArray(values)
    probability.CopyInformation(mask)
    sitk.WriteImage(probability, str(tmp_path / "probability.nrrd"))
    request = MeasureRequest(
        a_mask_file, tmp_path / "r", tmp_path / "ct.nii.gz", tmp_path / "probability.nrrd", curves=True
    )
    run_measure(request, silent)
    names = {path.name for path in request.output.iterdir()}
    assert names == {*FILES, measuring.WALL_PLOT, measuring.CURVES, measuring.PREVIEW}
    assert len(json.loads((request.output / measuring.CURVES).read_text())["markups"]) == 7


def test_a_result_of_segment_is_not_mixed_with_the_tree_of_another_mask(a_mask_file, tmp_path, capsys):
    folder = tmp_path / "result"
    folder.mkdir()
    (folder / "report.json").write_text("{}")
    for command in ("measure", "repair"):
        assert main([command, str(a_mask_file), "-o", str(folder), "--progress", "none", "--force"]) == 2
        assert "choose another folder" in capsys.readouterr().err
        assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == ["report.json"]
    own = folder / "airways.nrrd"
    sitk.WriteImage(sitk.ReadImage(str(a_mask_file)), str(own))
    assert main(["measure", str(own), "-o", str(folder), "--progress", "none", "--force"]) == 0


def test_curves_of_an_older_result_do_not_stay_beside_a_new_one(a_mask_file, tmp_path):
    run_measure(MeasureRequest(a_mask_file, tmp_path / "r", curves=True), silent)
    assert (tmp_path / "r" / measuring.CURVES).exists()
    run_measure(MeasureRequest(a_mask_file, tmp_path / "r", voxels=True, force=True), silent)
    assert not (tmp_path / "r" / measuring.CURVES).exists()


def test_names_by_hand_are_in_every_file(a_mask_file, a_result, tmp_path, capsys):
    branch = AirwayTree.from_json((a_result / TREE).read_text()).branch(7)
    near = (branch.points_mm[len(branch.points_mm) // 2] + [0.5, -0.5, 0.5]).tolist()
    names = [
        {"points_mm": [near], "segment": "LB10"},
        {"points_mm": [[900, 0, 0]], "lobe": "right upper lobe"},
    ]
    path, out = tmp_path / "names.json", tmp_path / "r"
    path.write_text(json.dumps({"format": "AirwaySeg names 1", "names": names}))
    assert main(["measure", str(a_mask_file), "-o", str(out), "--names", str(path), "--progress", "none"]) == 0
    assert "One name by hand lies near no branch: right upper lobe at (900.0, 0.0, 0.0)." in capsys.readouterr().out
    tree = AirwayTree.from_json((out / TREE).read_text())
    assert [branch.by_hand for branch in tree.branches] == [""] * 6 + ["lobe and segment"]
    with open(out / measuring.TABLE, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert (rows[6]["segment"], rows[6]["segment_confidence"], rows[6]["by_hand"]) == (
        "LB10",
        "1.0",
        "lobe and segment",
    )
    assert {row["by_hand"] for row in rows[:6]} == {""} and list(rows[0])[-1] == "by_hand"
    summary = (out / measuring.SUMMARY).read_text().splitlines()
    assert next(line for line in summary if line.startswith("segment,LB10,")).split(",")[2] == "1"


def test_a_wrong_file_of_names_is_refused_before_anything_is_written(a_mask_file, tmp_path, capsys):
    (tmp_path / "names.json").write_text("{}")
    out = tmp_path / "r"
    arguments = ["measure", str(a_mask_file), "-o", str(out), "--names", str(tmp_path / "names.json")]
    assert main([*arguments, "--progress", "none"]) == 2
    assert "names.json: This is not a valid list of names by hand" in capsys.readouterr().err
    assert not out.exists()


def test_a_broken_branch_becomes_a_suspect(a_mask_file, tmp_path):
    mask = sitk.ReadImage(str(a_mask_file))
    values = sitk.GetArrayFromImage(sitk.DICOMOrient(mask, "LPS"))
    values[48:54, :, :72] = 0  # the right lower lobe's tube, 60 to 67 mm up
    image = sitk.GetImageFromArray(values)
    image.CopyInformation(sitk.DICOMOrient(mask, "LPS"))
    sitk.WriteImage(image, str(tmp_path / "broken.nrrd"))
    run_measure(MeasureRequest(tmp_path / "broken.nrrd", tmp_path / "r"), silent)
    suspects = suspects_from_json((tmp_path / "r" / measuring.SUSPECTS).read_text())
    assert suspects[0].kind == "fragment" and suspects[0].score > 0.5
    tree = AirwayTree.from_json((tmp_path / "r" / TREE).read_text())
    assert tree.branch(suspects[0].branch).component == 2


def test_a_broken_branch_of_which_the_network_is_certain_stands_at_the_top(a_mask_file, tmp_path):
    mask = sitk.DICOMOrient(sitk.ReadImage(str(a_mask_file)), "LPS")
    values = sitk.GetArrayFromImage(mask)
    values[48:54, :, :72] = 0
    values[120:] = 0  # without trachea, so that the main bronchi end suddenly
    for name, array in (("mask", values), ("probability", values * 230)):
        image = sitk.GetImageFromArray(array)
        image.CopyInformation(mask)
        sitk.WriteImage(image, str(tmp_path / f"{name}.nrrd"))
    request = MeasureRequest(tmp_path / "mask.nrrd", tmp_path / "r", probability=tmp_path / "probability.nrrd")
    run_measure(request, silent)
    first = suspects_from_json((tmp_path / "r" / measuring.SUSPECTS).read_text())[0]
    assert first.kind == "unconnected piece" and first.score == pytest.approx(230 / 255, abs=0.001)
    tree = AirwayTree.from_json((tmp_path / "r" / TREE).read_text())
    assert tree.branch(first.branch).component == 2 and "piece" not in first.facts


def written(values: np.ndarray, path: Path) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(values), str(path))
    return path


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.zeros((9, 9, 9), np.uint8), "empty"),
        (np.full((9, 9, 9), -1000, np.int16), "it is a CT"),
        (np.full((9, 9, 9), 0.5, np.float32), "fractions"),
        (np.arange(8000, dtype=np.uint16).reshape(20, 20, 20), "more than 1000 values"),
        (np.arange(1000).reshape(10, 10, 10).astype(np.uint8), "more than 100 values"),
        (np.ones((9, 9), np.uint8), "three axes"),
    ],
    ids=["empty", "CT", "fractions", "many values", "many grey values", "flat"],
)
def test_what_is_no_mask_is_refused_in_a_sentence_and_leaves_nothing(values, sentence, tmp_path, capsys):
    path = written(values, tmp_path / "mask.nrrd")
    assert main(["measure", str(path), "-o", str(tmp_path / "r"), "--progress", "none"]) == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_a_ct_on_another_grid_is_refused(a_mask_file, tmp_path, capsys):
    ct = written(np.arange(-900, 828, dtype=np.int16).reshape(12, 12, 12), tmp_path / "ct.nrrd")
    code = main(["measure", str(a_mask_file), "--ct", str(ct), "-o", str(tmp_path / "r"), "--progress", "none"])
    assert code == 2 and "grid" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_results_are_not_replaced_without_force(a_result, a_mask_file, capsys):
    before = (a_result / TREE).read_bytes()
    command = ["measure", str(a_mask_file), "-o", str(a_result), "--progress", "none"]
    assert main(command) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    assert (a_result / TREE).read_bytes() == before


@pytest.mark.parametrize("voxels", [(1, 1, 1), (1, 1, 30), (6, 2, 2)])
def test_tiny_masks_give_every_file(voxels, tmp_path):
    mask = np.zeros((9, 9, 32), np.uint8)
    mask[: voxels[0], : voxels[1], : voxels[2]] = 1
    path = written(mask, tmp_path / "tiny.nrrd")
    run_measure(MeasureRequest(path, tmp_path / "r"), silent)
    assert {file.name for file in (tmp_path / "r").iterdir()} == set(FILES)


def test_cancelling_leaves_nothing(a_mask_file, tmp_path):
    def cancel(stage: str, done: int, _total: int) -> None:
        if stage == "measure" and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_measure(MeasureRequest(a_mask_file, tmp_path / "r"), cancel)
    assert not list(tmp_path.iterdir())


def test_json_progress_ends_with_the_folder(a_mask_file, tmp_path, capsys):
    main(["measure", str(a_mask_file), "-o", str(tmp_path / "r"), "--progress", "json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1] == {"result": str(tmp_path / "r")}
    assert {line["stage"] for line in lines[:-1]} == {"read", "measure"}
