"""The data folder of a person: cases added with what was corrected, listed with what is wrong, removed."""

import json

import numpy as np
import pytest
import SimpleITK as sitk

from AirwaySegTraining.__main__ import main
from AirwaySegTraining.cases import case_folders, prepared_case
from AirwaySegTraining.sampling import Kind


@pytest.fixture
def files(tmp_path):
    """A CT with a tube, the tube as label, and a mask that has missed its upper half and marked a voxel too many."""
    label = np.zeros((24, 26, 28), np.uint8)
    label[:, 10:14, 10:14] = 1
    initial = label.copy()
    initial[12:] = 0
    initial[0, 20, 20] = 1
    ct = np.where(label == 1, -950, -100).astype(np.int16)
    ct[0, 0] = 300
    paths = {}
    for name, array in (("ct", ct), ("label", label), ("initial", initial)):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((0.7, 0.7, 1.2))
        image.SetOrigin((10, -20, 30))
        image.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, -1))
        paths[name] = tmp_path / f"{name}.nii.gz"
        sitk.WriteImage(image, str(paths[name]))
    return paths


def add(data, files, *more):
    return main(["cases", "add", str(data), "--ct", str(files["ct"]), "--label", str(files["label"]), *map(str, more)])


def test_what_differs_from_the_initial_mask_was_edited(files, tmp_path):
    data = tmp_path / "data"
    assert add(data, files, "--initial", files["initial"], "--patient", "P7", "--name", "scan-1") == 0
    folder = data / "cases" / "scan-1"
    description = json.loads((folder / "case.json").read_text())
    assert description["edited_voxels"] == 12 * 16 + 1 and description["patient"] == "P7"
    images = {name: sitk.ReadImage(str(folder / f"{name}.nrrd")) for name in ("ct", "label", "initial", "edited")}
    original = sitk.ReadImage(str(files["ct"]))
    for image in images.values():
        assert np.allclose(image.GetOrigin(), original.GetOrigin()) and np.allclose(
            image.GetDirection(), original.GetDirection()
        )
    for name in ("ct", "label", "initial"):
        assert np.array_equal(*(sitk.GetArrayFromImage(x) for x in (images[name], sitk.ReadImage(str(files[name])))))
    case = prepared_case(folder)
    assert len(case.centres.places[Kind.EDITED]) == 193
    edited = case.maps["edited"].whole()
    # The training's axes run to the head and to the patient's left; the file's z and x run the other way.
    assert np.array_equal(edited, sitk.GetArrayFromImage(images["edited"])[::-1, :, ::-1])


def test_a_mask_of_edits_may_be_given_and_a_case_may_have_none(files, tmp_path):
    assert add(tmp_path / "data", files, "--edited", files["label"], "--name", "one") == 0
    assert add(tmp_path / "data", files, "--name", "two") == 0
    one, two = case_folders(tmp_path / "data")
    assert len(prepared_case(one).maps["edited"].voxels) == 24 * 16
    assert not (two / "edited.nrrd").exists() and len(prepared_case(two).maps["edited"].voxels) == 0


def test_a_case_is_replaced_only_by_force_and_then_whole(files, tmp_path, capsys):
    data = tmp_path / "data"
    assert add(data, files, "--initial", files["initial"]) == 0
    assert add(data, files) == 2
    assert "--force" in capsys.readouterr().err
    assert (data / "cases" / "ct" / "edited.nrrd").exists()
    assert add(data, files, "--force") == 0
    assert sorted(path.name for path in (data / "cases" / "ct").iterdir()) == ["case.json", "ct.nrrd", "label.nrrd"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda label: label * 0, "no airway"),
        (lambda label: label * 3, "values other than"),
        (lambda label: label * np.float32(0.9), "values other than"),
        (lambda label: label[:-1], "label.nii.gz"),
    ],
)
def test_a_label_that_cannot_be_used_is_refused_and_leaves_nothing(files, tmp_path, capsys, spoil, said):
    image = sitk.ReadImage(str(files["label"]))
    wrong = sitk.GetImageFromArray(spoil(sitk.GetArrayFromImage(image)))
    wrong.SetSpacing(image.GetSpacing())
    wrong.SetOrigin(image.GetOrigin())
    wrong.SetDirection(image.GetDirection())
    sitk.WriteImage(wrong, str(files["label"]))
    assert add(tmp_path / "data", files) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not list((tmp_path / "data").rglob("*.nrrd"))


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a/b", "mean"])
def test_a_name_that_is_no_folder_of_its_own_is_refused(files, tmp_path, name):
    assert add(tmp_path / "data", files, "--name", name) == (0 if name == "" else 2)
    assert [path.name for path in tmp_path.rglob("ct.nrrd")] == (["ct.nrrd"] if name == "" else [])


def test_the_list_says_what_is_there_and_what_is_wrong(files, tmp_path, capsys):
    data = tmp_path / "data"
    add(data, files, "--initial", files["initial"], "--name", "good", "--patient", "P7")
    add(data, files, "--name", "bad")
    (data / "cases" / "bad" / "label.nrrd").write_bytes(b"no picture")
    capsys.readouterr()
    assert main(["cases", "list", str(data)]) == 0
    heading, bad, good = capsys.readouterr().out.splitlines()
    assert heading.split()[:2] == ["case", "patient"]
    assert good.split()[:8] == ["good", "P7", "28", "26", "24", "0.70", "0.70", "1.20"]
    # 24 * 16 voxels of 0.588 cubic mm.
    assert good.split()[8:] == ["0.2", "193"]
    assert bad.startswith("bad") and "label.nrrd" in bad


def test_a_case_is_removed_by_its_whole_name(files, tmp_path, capsys):
    data = tmp_path / "data"
    for name in ("one", "two"):
        add(data, files, "--name", name)
        prepared_case(data / "cases" / name)
    assert main(["cases", "remove", str(data), "on"]) == 2
    assert "there are one, two" in capsys.readouterr().err
    assert main(["cases", "remove", str(data), "one"]) == 0
    assert [path.name for path in (data / "cases").iterdir()] == ["two"]
    assert [path.name for path in (data / ".prepared").iterdir()] == ["two"]


def test_a_case_that_is_replaced_keeps_its_files_until_the_new_ones_are_whole(files, tmp_path, monkeypatch):
    data = tmp_path / "data"
    assert add(data, files, "--initial", files["initial"], "--patient", "P1") == 0
    before = {path.name: path.read_bytes() for path in (data / "cases" / "ct").iterdir()}

    def full_disk(*_args, **_keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("AirwaySegTraining.datafolder.write_nrrd", full_disk)
    assert add(data, files, "--force") == 2
    assert {path.name: path.read_bytes() for path in (data / "cases" / "ct").iterdir()} == before


def test_what_is_left_out_was_not_corrected(files, tmp_path):
    label = sitk.ReadImage(str(files["label"]))
    array = sitk.GetArrayFromImage(label)
    array[:, 20:22, 20:22] = 2
    other = sitk.GetImageFromArray(array)
    other.CopyInformation(label)
    sitk.WriteImage(other, str(files["label"]))
    assert add(tmp_path / "data", files, "--initial", files["label"]) == 0
    assert json.loads((tmp_path / "data" / "cases" / "ct" / "case.json").read_text())["edited_voxels"] == 0


def test_fractions_in_the_initial_mask_and_a_folder_that_is_no_case_are_said(files, tmp_path, capsys):
    soft = sitk.Cast(sitk.ReadImage(str(files["initial"])), sitk.sitkFloat32) * 0.5
    sitk.WriteImage(soft, str(files["initial"]))
    assert add(tmp_path / "data", files, "--initial", files["initial"]) == 2
    assert "holds fractions" in capsys.readouterr().err
    (tmp_path / "data" / "cases" / "broken").mkdir(parents=True)
    assert main(["cases", "list", str(tmp_path / "data")]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("broken")
    assert main(["cases", "remove", str(tmp_path / "data"), "broken", "other"]) == 2
    assert (tmp_path / "data" / "cases" / "broken").exists(), "nothing goes where a name is wrong"
    assert main(["cases", "remove", str(tmp_path / "data"), "broken"]) == 0
    assert list((tmp_path / "data" / "cases").iterdir()) == []
