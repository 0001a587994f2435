"""The data folder of a person: cases added with what was corrected, listed with what is wrong, removed."""

import json

import numpy as np
import pytest
import SimpleITK as sitk

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.masks.origin import CLICK, HAND, REPAIR
from AirwaySegTraining.__main__ import main
from AirwaySegTraining.data.cases import case_folders, prepared_case
from AirwaySegTraining.data.sampling import ADDED, REMOVED, Kind


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
    assert len(case.centres.points[Kind.EDITED]) == 193
    edited = case.maps["edited"].whole()
    # The training's axes run to the head and to the patient's left; the file's z and x run the other way.
    assert np.array_equal(edited > 0, sitk.GetArrayFromImage(images["edited"])[::-1, :, ::-1] > 0)
    assert np.array_equal(np.unique(edited), [0, ADDED, REMOVED]) and (edited == REMOVED).sum() == 1


def test_the_origin_says_what_a_person_did_and_what_it_lacks_is_by_hand(files, tmp_path, capsys):
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(files["label"])))
    origin = label.copy()
    origin[12:16][label[12:16] > 0] = CLICK
    origin[16:20][label[16:20] > 0] = REPAIR
    origin[20:] = 0  # the mask was painted on after the map was written
    origin[0, 0, 0] = HAND  # and erased
    image = sitk.GetImageFromArray(origin)
    image.CopyInformation(sitk.ReadImage(str(files["label"])))
    sitk.WriteImage(image, str(tmp_path / "origin.nrrd"))
    data = tmp_path / "data"
    both = ("--initial", files["initial"], "--origin", tmp_path / "origin.nrrd")
    assert add(data, files, *both, "--name", "both") == 0
    assert add(data, files, "--origin", tmp_path / "origin.nrrd", "--name", "origin") == 0
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(data / "cases" / "both" / "origin.nrrd")))
    assert np.array_equal(written > 0, label > 0) and (written[20:][label[20:] > 0] == HAND).all()
    counts = {}
    for folder in case_folders(data):
        for _time in range(2):  # read, and read back from what was prepared
            edits = prepared_case(folder).maps["edited"].values
        counts[folder.name] = dict(zip(*(column.tolist() for column in np.unique(edits, return_counts=True))))
    assert counts["both"] == {CLICK: 64, REPAIR: 64, HAND: 64, REMOVED: 1}
    assert counts["origin"] == {CLICK: 64, HAND: 64}, "a repair that nobody confirmed is not a person's"
    assert add(data, files, "--origin", files["ct"], "--name", "wrong") == 2
    assert "ct.nii.gz holds values other than 0 to 5" in capsys.readouterr().err


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


def test_a_case_that_is_replaced_keeps_its_files_until_the_new_ones_are_whole(files, tmp_path, monkeypatch, capsys):
    data = tmp_path / "data"
    assert add(data, files, "--initial", files["initial"], "--patient", "P1") == 0
    before = {path.name: path.read_bytes() for path in (data / "cases" / "ct").iterdir()}

    def full_disk(*_args, **_keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("AirwaySegTraining.data.data_folder.write_nrrd", full_disk)
    assert add(data, files, "--force") == 2
    assert f"into {data / 'cases' / 'ct'}: No space left on device." in capsys.readouterr().err
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


# Which case, whose ---------------------------------------------------------------------------------------------------


@pytest.fixture
def others_files(files, tmp_path):
    """The files of somebody else, with the same names in another folder."""
    (tmp_path / "other").mkdir()
    others = {}
    for name, path in files.items():
        image = sitk.ReadImage(str(path))
        others[name] = tmp_path / "other" / path.name
        sitk.WriteImage(image + 7 if name == "ct" else image, str(others[name]))
    return others


def patients(data):
    return {path.parent.name: json.loads(path.read_text())["patient"] for path in data.glob("cases/*/case.json")}


def test_an_empty_patient_counts_as_none(files, tmp_path, capsys):
    assert add(tmp_path / "data", files, "--patient", " ") == 0
    assert patients(tmp_path / "data") == {"ct": "ct"}
    assert "Without --patient, ct counts as a patient of its own" in capsys.readouterr().err


def test_a_case_without_its_ct_is_not_left_out_silently(files, tmp_path):
    data = tmp_path / "data"
    assert add(data, files, "--name", "one") == add(data, files, "--name", "two") == 0
    (data / "cases" / "one" / "ct.nrrd").unlink()
    with pytest.raises(AirwaySegError, match="one has a label but no ct.nrrd"):
        case_folders(data)


def test_two_cts_of_one_file_name_become_two_cases(files, others_files, tmp_path, capsys):
    data = tmp_path / "data"
    assert add(data, files) == 0
    said = capsys.readouterr().err
    assert "Without --patient, ct counts as a patient of its own" in said
    assert add(data, others_files, "--force") == 0
    first, second = sorted(patients(data))
    assert first == "ct" and second.startswith("ct-") and patients(data) == {first: first, second: second}
    assert add(data, others_files) == 2, "the same CT again is the same case"
    assert f"{second} exists" in capsys.readouterr().err
    assert add(data, others_files, "--force") == 0 and len(patients(data)) == 2


def test_a_ct_whose_name_is_taken_gets_its_patients_before_it(files, others_files, tmp_path, capsys):
    data = tmp_path / "data"
    assert add(data, files, "--patient", "P 1") == 0
    assert add(data, others_files, "--patient", "P 2") == 0
    assert patients(data) == {"ct": "P 1", "P-2-ct": "P 2"} and "patient" not in capsys.readouterr().err


@pytest.mark.parametrize("patient", [[], ["--patient", "P2"]])
def test_force_never_replaces_the_case_of_another_patient(files, others_files, tmp_path, capsys, patient):
    data = tmp_path / "data"
    assert add(data, files, "--patient", "P1", "--name", "scan") == 0
    before = {path.name: path.read_bytes() for path in (data / "cases" / "scan").iterdir()}
    assert add(data, others_files, *patient, "--name", "scan", "--force") == 2
    said = capsys.readouterr().err
    assert "case scan (patient P1, added 20" in said and "is of another CT and is not replaced" in said
    assert {path.name: path.read_bytes() for path in (data / "cases" / "scan").iterdir()} == before


def test_another_ct_of_the_same_patient_replaces_by_force_and_that_is_said(files, others_files, tmp_path, capsys):
    data = tmp_path / "data"
    assert add(data, files, "--patient", "P1", "--name", "scan") == 0
    assert add(data, others_files, "--patient", "P1", "--name", "scan", "--force") == 0
    assert "The case scan (patient P1, added 20" in capsys.readouterr().err
    ct = sitk.GetArrayFromImage(sitk.ReadImage(str(data / "cases" / "scan" / "ct.nrrd")))
    assert np.array_equal(ct, sitk.GetArrayFromImage(sitk.ReadImage(str(others_files["ct"]))))


def test_the_same_ct_keeps_its_patient_and_is_pointed_out_under_another_name(files, tmp_path, capsys):
    data = tmp_path / "data"
    assert add(data, files, "--patient", "P1") == 0
    assert add(data, files, "--force") == 0 and patients(data) == {"ct": "P1"}
    assert "patient" not in capsys.readouterr().err
    assert add(data, files, "--name", "again") == 0 and patients(data) == {"ct": "P1", "again": "P1"}
    assert "has the same CT as again (patient P1): remove one" in capsys.readouterr().err


def test_a_case_that_says_nothing_of_its_ct_is_recognised_by_its_voxels(files, others_files, tmp_path):
    """As a case of an earlier version, in a file of other axes."""
    data = tmp_path / "data"
    assert add(data, files, "--patient", "P1") == 0
    about = data / "cases" / "ct" / "case.json"
    about.write_text(json.dumps({"patient": "P1"}))
    turned = sitk.DICOMOrient(sitk.ReadImage(str(files["ct"])), "RAS")
    sitk.WriteImage(turned, str(files["ct"]))
    label = sitk.DICOMOrient(sitk.ReadImage(str(files["label"])), "RAS")
    sitk.WriteImage(label, str(files["label"]))
    assert add(data, files) == 2 and add(data, files, "--force") == 0
    assert patients(data) == {"ct": "P1"}
    about.write_text(json.dumps({"patient": "P1"}))
    assert add(data, others_files, "--name", "ct", "--force") == 2
    about.write_text("[" * 10**5)
    assert add(data, files, "--name", "ct", "--force") == 0, "a damaged description does not keep its case from repair"


@pytest.mark.parametrize(("axis", "sides"), [(0, "head to foot"), (2, "left to right")])
def test_a_mirrored_label_is_refused_unless_it_is_trusted(files, tmp_path, capsys, axis, sides):
    image = sitk.ReadImage(str(files["label"]))
    array = sitk.GetArrayFromImage(image)
    array[12:] = 0  # of the tube only the lower half is airway, so that head and foot differ
    ct = np.where(array == 1, -950, -100).astype(np.int16)
    for name, voxels in (("ct", ct), ("label", np.flip(array, axis).copy())):
        written = sitk.GetImageFromArray(voxels)
        written.CopyInformation(image)
        sitk.WriteImage(written, str(files[name]))
    data = tmp_path / "data"
    assert add(data, files, "--patient", "P1") == 2
    said = capsys.readouterr().err
    assert f"label.nii.gz looks mirrored {sides}" in said and "--trust-label" in said and not list(data.rglob("*.nrrd"))
    assert add(data, files, "--patient", "P1", "--trust-label") == 0
    assert f"label.nii.gz looks mirrored {sides}" in capsys.readouterr().err
    assert main(["cases", "list", str(data)]) == 0
    listed = capsys.readouterr()
    assert f"the label looks mirrored {sides}" in listed.out
