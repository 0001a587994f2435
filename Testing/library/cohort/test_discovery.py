"""Which CTs are found in folders, patterns and lists, and what is left out and why."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from studies import image_of, save_series, save_study, small_chest

from AirwaySegLib.cohort.case import Found, distinct, id_of
from AirwaySegLib.cohort.case_list import read_list, write_list
from AirwaySegLib.cohort.discovery import Search, find_cases
from AirwaySegLib.cohort.kernels import preference, sharpness
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.progress import silent


def find(*inputs: Path, **options: object) -> Found:
    return find_cases(list(inputs), Search(Path("no output"), **options), silent)


def reasons(found: Found) -> dict[str, str]:
    return {one.path.name: one.reason for one in found.left_out}


@pytest.fixture
def a_small_ct(a_quiet_chest) -> np.ndarray:
    return small_chest(a_quiet_chest)


def test_every_ct_of_a_study_is_found_under_its_path(a_quiet_chest, tmp_path):
    names = save_study(tmp_path / "study", a_quiet_chest, 8, 0)
    found = find(tmp_path / "study")
    assert [case.id for case in found.cases] == sorted(names) and not found.left_out
    dicom = next(case for case in found.cases if case.id.endswith("ct03"))
    assert (dicom.patient, dicom.date, dicom.series, dicom.files) == ("P003", "20200101", "1.2.13", ())
    assert dicom.voxels == 100 * 55 * 90 and "100 slices of 2.5 mm" in dicom.about
    for case in found.cases:
        number = int(case.id[-2:])
        assert np.array_equal(case.read()[0].array, small_chest(a_quiet_chest, number))


def test_ids_stay_the_same_when_others_are_added(a_small_ct, tmp_path):
    sitk.WriteImage(image_of(a_small_ct), str(tmp_path / "a.nrrd"))
    before = find(tmp_path).cases[0].id
    (tmp_path / "b").mkdir()
    sitk.WriteImage(image_of(a_small_ct + 1), str(tmp_path / "b" / "a.nrrd"))
    assert [case.id for case in find(tmp_path).cases] == [before, "b_a"]


def test_what_is_no_ct_of_the_chest_is_left_out_with_the_reason(a_small_ct, tmp_path):
    write = {
        "ct.nrrd": image_of(a_small_ct),
        "copy.nrrd": image_of(a_small_ct),
        "thick.nii": image_of(a_small_ct[::2], (5.0, 3.2, 3.2)),
        "part.nii": image_of(a_small_ct[:20]),
        "ct_mask.nii": image_of(a_small_ct),
        "bytes.nrrd": image_of((a_small_ct > 0).astype(np.uint8)),
    }
    for name, image in write.items():
        sitk.WriteImage(image, str(tmp_path / name))
    (tmp_path / "notes.txt").write_text("hello")
    result = tmp_path / "old"
    result.mkdir()
    (result / "report.json").write_text("{}")
    shutil.copy(tmp_path / "ct.nrrd", result / "airways.nrrd")
    found = find(tmp_path)
    assert [case.id for case in found.cases] == ["copy"]
    why = reasons(found)
    assert why.keys() == {*write, "old"} - {"copy.nrrd"}
    assert why["ct.nrrd"] == f"the same file as {tmp_path / 'copy.nrrd'}"
    assert "5 mm apart, more than 3.5 mm" in why["thick.nii"] and "covers 50 mm" in why["part.nii"]
    assert "mask" in why["ct_mask.nii"] and "8-bit" in why["bytes.nrrd"] and why["old"] == "a result of AirwaySeg"
    assert [case.id for case in find(tmp_path, thickest_mm=5.0).cases] == ["copy", "thick"]


def tags(uid: str, **more: str) -> dict[str, str]:
    names = {"description": "0008|103e", "kernel": "0018|1210", "time": "0008|0032", "number": "0020|0011"}
    names |= {"patient": "0010|0020", "part": "0018|0015", "kind": "0008|0008", "modality": "0008|0060"}
    return {"0020|000e": uid, **{names[key]: value for key, value in more.items()}}


def test_of_the_reconstructions_of_a_scan_the_best_for_airways_is_taken(a_small_ct, tmp_path):
    save_series(tmp_path / "soft", a_small_ct, tags("1.2.1", kernel="B20f", time="100000"))
    save_series(tmp_path / "best", a_small_ct, tags("1.2.2", kernel="B46f", time="100000"))
    save_series(tmp_path / "edge", a_small_ct, tags("1.2.3", kernel="B80f", time="100000"))
    save_series(tmp_path / "expiration", a_small_ct, tags("1.2.4", kernel="B20f", time="100500"))
    found = find(tmp_path)
    assert [case.id for case in found.cases] == ["best", "expiration"]
    assert reasons(found).keys() == {"soft", "edge"}
    assert reasons(found)["soft"].startswith("another reconstruction of the scan;") and "B46f" in reasons(found)["soft"]
    assert len(find(tmp_path, all_series=True).cases) == 4


def test_without_times_another_kernel_is_another_reconstruction_and_the_same_kernel_another_scan(a_small_ct, tmp_path):
    save_series(tmp_path / "a", a_small_ct, tags("1.2.1", kernel="STANDARD"))
    save_series(tmp_path / "b", a_small_ct, tags("1.2.2", kernel="DETAIL"))
    save_series(tmp_path / "c", a_small_ct, tags("1.2.3", kernel="DETAIL"))
    assert [case.id for case in find(tmp_path).cases] == ["b", "c"]


def test_localisers_other_modalities_and_other_parts_of_the_body_are_left_out(a_small_ct, tmp_path):
    save_series(tmp_path / "ct", a_small_ct, tags("1.2.1", part="CHEST"))
    save_series(tmp_path / "scout", a_small_ct[:1], tags("1.2.2"))
    save_series(tmp_path / "knee", a_small_ct, tags("1.2.3", part="KNEE"))
    save_series(tmp_path / "pet", a_small_ct, tags("1.2.4", modality="PT"))
    save_series(tmp_path / "mip", a_small_ct, tags("1.2.5", kind="DERIVED\\SECONDARY\\AXIAL\\MIP"))
    found = find(tmp_path)
    assert [case.id for case in found.cases] == ["ct"]
    assert reasons(found) == {
        "scout": "a localiser or a single slice",
        "knee": "not the chest, its header says: knee",
        "pet": "modality PT, not CT",
        "mip": "a projection (MIP)",
    }


def test_patients_in_one_folder_are_told_apart_and_read_without_each_other(a_small_ct, tmp_path):
    for number in range(3):
        save_series(tmp_path, a_small_ct + number, tags(f"1.2.{number}", patient=f"P{number}", number=str(number)))
    found = find(tmp_path)
    assert [case.patient for case in found.cases] == ["P0", "P1", "P2"]
    assert [len(case.files) for case in found.cases] == [100, 100, 100]
    for number, case in enumerate(found.cases):
        assert case.id == f"{tmp_path.name}-s{number}"
        assert np.array_equal(case.read()[0].array, a_small_ct + number)


def test_a_series_in_several_folders_is_one_case_and_a_copy_of_it_none(a_small_ct, tmp_path):
    save_series(tmp_path / "ct", a_small_ct, tags("1.2.1"))
    files = sorted((tmp_path / "ct").iterdir())
    for part, some in enumerate((files[:60], files[60:])):
        (tmp_path / "ct" / f"part{part}").mkdir()
        for file in some:
            file.rename(file.parent / f"part{part}" / file.name)
    save_series(tmp_path / "zz copy", a_small_ct, tags("1.2.1"))
    found = find(tmp_path)
    assert [case.id for case in found.cases] == ["ct"]
    assert reasons(found) == {"zz copy": f"a copy of {tmp_path / 'ct' / 'part0'}"}
    assert np.array_equal(found.cases[0].read()[0].array, a_small_ct)


def test_images_that_cannot_be_read_are_a_case_that_says_so(a_small_ct, tmp_path):
    folder = save_series(tmp_path / "ct", a_small_ct, tags("1.2.1"))
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:200])
    (tmp_path / "cut.nii.gz").write_bytes(b"\x1f\x8b")
    found = find(tmp_path)
    assert [case.id for case in found.cases] == ["ct", "cut"]
    for case in found.cases:
        with pytest.raises(AirwaySegError, match="cannot be read"):
            case.read()


def test_patterns_files_and_lists_are_taken_as_they_are(a_small_ct, tmp_path):
    for name in ("a/ct.nrrd", "b/ct.nrrd", "c/ct.nii"):
        (tmp_path / name).parent.mkdir()
        sitk.WriteImage(image_of(a_small_ct), str(tmp_path / name))
    assert [case.id for case in find(tmp_path / "*" / "ct.nrrd").cases] == ["a_ct", "b_ct"]
    assert [case.id for case in find(tmp_path / "**" / "*.n*").cases] == ["a_ct", "b_ct", "c_ct"]
    assert [case.id for case in find(tmp_path / "a" / "ct.nrrd", tmp_path / "b" / "ct.nrrd").cases] == ["ct", "ct-2"]
    table = tmp_path / "list.csv"
    table.write_text("ID;ct;Group;other\nfirst;a/ct.nrrd;x;1\n\nsecond;b/ct.nrrd;;2\n", "utf-8-sig")
    found = find(table)
    assert [(case.id, case.group) for case in found.cases] == [("first", "x"), ("second", "")]
    assert found.cases[0].path == tmp_path / "a" / "ct.nrrd"
    write_list(tmp_path / "again.csv", found.cases)
    assert read_list(tmp_path / "again.csv") == list(found.cases)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("id,path\na,b\n", "lacks the column ct"),
        ("id,ct\na,\n", "Line 2 of .* has no ct"),
        ("id,ct\na,x\nA,y\n", "gives the id A to several cases"),
        ("id,ct\na/b,x\n", 'such as "a-b" can'),
        ("id,ct\n", "No CT was found"),
        ('id,ct,group\na,x,"open\nb,y,z\n', "Line 3 of .* is no line of a table: unexpected end of data"),
        ("id,ct,group\na,x\nb,one,two,three\n", "Line 3 of .* has more values than the table has columns"),
        ("id,ct,ID\na,x,b\n", "has several columns id"),
        ("id,ct\na,x\0y\n", "Line 2 of .* holds a null character"),
        (f"id,ct\na,{'x' * 200_000}\n", "Line 2 of .* is no line of a table: field larger than field limit"),
        ("id\tct\na\tx\n", "lacks the column id and ct"),
        ("", "lacks the column id and ct"),
    ],
)
def test_a_list_that_is_wrong_is_refused_with_the_line(tmp_path, text, sentence):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(AirwaySegError, match=sentence):
        find(tmp_path / "list.csv")


def test_a_list_of_a_spreadsheet_may_have_empty_values_at_the_end_and_quotes_in_values(tmp_path):
    table = tmp_path / "list.csv"
    table.write_text('id;ct;group;;\nMüller;"a ""b"";c.nrrd";"x\ny";;\n;;;;\n', "utf-8-sig", newline="\r\n")
    case = find(table).cases[0]
    assert (case.id, case.path.name, case.group.split()) == ("Müller", 'a "b";c.nrrd', ["x", "y"])
    write_list(tmp_path / "again.csv", [case])
    again = find(tmp_path / "again.csv").cases[0]
    assert (again.id, again.path, again.group) == (case.id, case.path, "x y")


def test_a_ct_that_is_named_twice_is_one_case(a_small_ct, tmp_path):
    study = tmp_path / "study"
    study.mkdir()
    sitk.WriteImage(image_of(a_small_ct), str(study / "one.nrrd"))
    (tmp_path / "list.csv").write_text("id,ct,mask\nwith-mask,study/one.nrrd,mask.nrrd\n")
    found = find_cases([study, study / "one.nrrd", tmp_path / "list.csv"], Search(tmp_path / "out"), silent)
    assert [case.id for case in found.cases] == ["one", "with-mask"]  # with a mask given it is another case
    assert [one.reason for one in found.left_out] == ["the same CT as one"]


def test_an_id_with_accents_written_as_macos_does_is_the_usual_one(tmp_path):
    (tmp_path / "list.csv").write_text("id,ct\nMu\u0308ller,c.nrrd\n", "utf-8")
    assert find(tmp_path / "list.csv").cases[0].id == "Müller"


def test_the_folder_of_the_results_is_not_searched(tmp_path):
    with pytest.raises(AirwaySegError, match="is to be searched and to hold the results"):
        find_cases([tmp_path], Search(tmp_path), silent)


def test_where_no_ct_is_left_the_reasons_are_said(a_small_ct, tmp_path):
    sitk.WriteImage(image_of(a_small_ct[:20]), str(tmp_path / "part.nii"))
    sitk.WriteImage(image_of(a_small_ct), str(tmp_path / "a_mask.nii"))
    with pytest.raises(AirwaySegError, match="left out: 1 its name is that of a mask, 1 covers 50 mm"):
        find(tmp_path)


def test_what_cannot_be_opened_is_left_out_alone_and_a_ct_fails_later(a_small_ct, tmp_path, monkeypatch):
    save_series(tmp_path / "dicom", a_small_ct, tags("1.2.1"))
    (tmp_path / "dicom" / "closed").write_text("notes")
    for name in ("closed_a.nrrd", "closed_b.nrrd"):  # of one size, so that they might be copies
        sitk.WriteImage(image_of(a_small_ct), str(tmp_path / name))
    opened = Path.open

    def refused(file: Path, *rest: object):
        if file.name.startswith("closed"):
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, *rest)

    monkeypatch.setattr(Path, "open", refused)
    found = find(tmp_path)
    assert [case.id for case in found.cases] == ["closed_a", "closed_b", "dicom"]
    assert reasons(found) == {"closed": "cannot be opened: Permission denied"}


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(AirwaySegError, match="nowhere does not exist"):
        find(tmp_path / "nowhere")
    with pytest.raises(AirwaySegError, match="pattern"):
        find(tmp_path / "*.nii")


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_are_followed_once(a_small_ct, tmp_path):
    sitk.WriteImage(image_of(a_small_ct), str(tmp_path / "ct.nrrd"))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    assert [case.id for case in find(tmp_path).cases] == ["ct"]


def test_names_are_possible_on_every_system():
    assert id_of(["a b", "c:d", "ü.1"]) == "a-b_c-d_ü.1"
    assert id_of(["u\u0308"]) == "ü"
    assert id_of(["con"]) == "ct_con" and id_of(["..."]) == "ct"
    assert len(id_of(["x" * 500])) == 120 and id_of(["x" * 500]) != id_of(["x" * 501])
    assert distinct(["a", "A", "b", "a"]) == ["a", "A-2", "b", "a-3"]


def test_kernels_of_all_makers_lie_on_one_scale():
    assert [sharpness(kernel) for kernel in ("B46f", "Br40d\\3", "I50f\\2", "DETAIL", "FC51")] == [46, 40, 50, 46, 60]
    best = min([(1.0, "B70f"), (0.6, "B20f"), (1.25, "B45f"), (2.5, "B46f")], key=lambda one: preference(*one))
    assert best == (1.25, "B45f")
