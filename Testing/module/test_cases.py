"""Tests of adding cases in the panel: which CT, whose, under which name, and what happens when the scene is closed."""

import json
import os

import module_scenes as scenes
import numpy as np
import pytest
import SimpleITK
import slicer

from AirwaySegSlicer.commands import export as exporting
from AirwaySegSlicer.commands import finetune as finetuning
from AirwaySegSlicer.commands import nrrd_writer, training_cases
from AirwaySegSlicer.commands import segment as segmentation
from AirwaySegSlicer.commands.jobs import Listener
from AirwaySegSlicer.scene import nodes, scans


@pytest.fixture
def a_folder(a_measured_desk, tmp_path):
    """A panel with a measured result, and an empty training folder chosen."""
    a_measured_desk.open("trainTab")
    a_measured_desk.ui.trainingFolderEdit.currentPath = str(tmp_path / "training")
    return a_measured_desk


def add(desk) -> None:
    desk.click("addCaseButton")
    desk.wait()


def cases(desk) -> list:
    return finetuning.training_cases(desk.ui.trainingFolderEdit.currentPath)


def ct_of_case(desk, name: str) -> np.ndarray:
    path = os.path.join(desk.ui.trainingFolderEdit.currentPath, "cases", name, "ct.nrrd")
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path))


def another_ct(name: str) -> slicer.vtkMRMLScalarVolumeNode:
    """A CT of other voxels."""
    ct, _mask = scenes.a_ct(name)
    slicer.util.arrayFromVolume(ct)[:, :6] += 50
    return ct


def in_dicom(ct, patient: str, study: str, **attributes: str) -> None:
    """Put a volume where Slicer puts one that it has read from DICOM."""
    hierarchy, dicom = nodes.subject_hierarchy(), slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMUIDName()
    patient_item = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), patient)
    hierarchy.SetItemUID(patient_item, dicom, attributes.pop("uid", ""))
    for name, value in attributes.items():
        hierarchy.SetItemAttribute(patient_item, f"DICOM.{name}", value)
    study_item = hierarchy.CreateStudyItem(patient_item, study)
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(ct), study_item)


# Which CT ------------------------------------------------------------------------------------------------------------


def test_the_case_that_is_asked_about_is_the_one_that_is_replaced(a_folder):
    add(a_folder)
    [first] = cases(a_folder)
    theirs = another_ct("Other")
    a_folder.choose("inputSelector", theirs)
    a_folder.host.answers.append(False)
    add(a_folder)
    [(kind, question)] = a_folder.host.messages
    sentence = f"CT is in the training folder already, as the case {first.name} of patient CT. Replace that case?"
    assert question == sentence and cases(a_folder) == [first]
    add(a_folder)
    assert [case.name for case in cases(a_folder)] == [first.name]
    assert np.array_equal(ct_of_case(a_folder, first.name), slicer.util.arrayFromVolume(a_folder.ct))


def test_airways_that_do_not_know_their_ct_make_a_case_of_the_chosen_one(a_folder):
    theirs = a_folder.draw("Theirs")
    theirs.SetNodeReferenceID(slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole(), None)
    a_folder.choose("airwaysSelector", theirs)
    a_folder.choose("inputSelector", a_folder.ct)
    assert a_folder.ui.patientEdit.text == "CT"
    add(a_folder)
    [case] = cases(a_folder)
    assert not a_folder.host.messages and case.edited_voxels is None
    assert np.array_equal(ct_of_case(a_folder, case.name), slicer.util.arrayFromVolume(a_folder.ct))


def test_two_cts_of_one_name_are_two_cases(a_folder):
    add(a_folder)
    a_folder.ct = another_ct("CT")
    a_folder.ct.SetName("CT")
    a_folder.choose("airwaysSelector", a_folder.draw("Second airways"))
    add(a_folder)
    assert len(cases(a_folder)) == 2 and not a_folder.host.messages


def test_a_scan_keeps_its_case_when_its_node_is_renamed(a_folder):
    add(a_folder)
    [first] = cases(a_folder)
    a_folder.ct.SetName("Renamed")
    case = training_cases.new_case(a_folder.airways, a_folder.ui.trainingFolderEdit.currentPath)
    assert case.name == first.name and case.replaces == first


# What identifies a scan ----------------------------------------------------------------------------------------------


def test_a_scan_is_known_by_its_dicom_images_whatever_their_order_else_by_its_series_else_by_its_voxels(slicer_host):
    first, second = scenes.a_ct("A")[0], scenes.a_ct("B")[0]
    assert scans.scan_key(first) == scans.scan_key(second)
    hierarchy, dicom = nodes.subject_hierarchy(), slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMUIDName()
    for ct, series in ((first, "1.2.3"), (second, "1.2.4")):
        hierarchy.SetItemUID(hierarchy.GetItemByDataNode(ct), dicom, series)
    assert scans.scan_key(first) != scans.scan_key(second)
    first.SetAttribute("DICOM.instanceUIDs", "1.5 1.6")
    second.SetAttribute("DICOM.instanceUIDs", "1.6 1.5")
    assert scans.scan_key(first) == scans.scan_key(second)


def test_the_voxels_of_every_part_and_their_size_tell_scans_apart_and_their_place_does_not(slicer_host):
    first, second = scenes.a_ct("A")[0], scenes.a_ct("B", moved=True)[0]
    assert scans.scan_key(first) == scans.scan_key(second)
    voxels = slicer.util.arrayFromVolume(second)
    for plane in (0, len(voxels) - 1):
        voxels[plane, 3, 3] += 1
        assert scans.scan_key(first) != scans.scan_key(second)
        voxels[plane, 3, 3] -= 1
    second.SetSpacing(1, 1, 1)
    assert scans.scan_key(first) != scans.scan_key(second)


# Whose ---------------------------------------------------------------------------------------------------------------


def test_the_patient_comes_from_dicom_and_goes_with_the_case(a_folder):
    in_dicom(a_folder.ct, "Doe^Jane", "Thorax", uid="P-1", PatientID="P 17")
    a_folder.widget.panel.update()
    assert a_folder.ui.patientEdit.text == "P 17"
    add(a_folder)
    [case] = cases(a_folder)
    assert case.patient == "P 17" and "of patient P 17" in a_folder.ui.casesList.item(0).text()


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"uid": "P-1", "PatientName": "Doe^Jane"}, "P-1"),
        ({"PatientName": "Doe^Jane"}, "Doe^Jane"),
        ({}, "Somebody"),
    ],
)
def test_without_an_id_the_patient_is_known_by_what_else_there_is(slicer_host, attributes, expected):
    ct, _mask = scenes.a_ct()
    in_dicom(ct, "Somebody", "Thorax", **attributes)
    assert scans.patient_of(ct) == expected


def test_of_a_study_without_a_patient_its_uid_keeps_the_scans_together(slicer_host):
    ct, _mask = scenes.a_ct()
    hierarchy, dicom = nodes.subject_hierarchy(), slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMUIDName()
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.SetItemUID(study, dicom, "1.2.840.1")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(ct), study)
    assert scans.patient_of(ct) == "1.2.840.1"


def test_a_patient_that_was_written_is_remembered_with_the_ct(a_folder, tmp_path):
    assert a_folder.ui.patientEdit.text == "CT"
    a_folder.ui.patientEdit.text = " -Patient  seven "
    a_folder.widget.panel.update()
    assert a_folder.ui.patientEdit.text == " -Patient  seven "  # what is being typed stays
    add(a_folder)
    [case] = cases(a_folder)
    assert case.patient == "-Patient seven"
    path = str(tmp_path / "case.mrb")
    assert slicer.util.saveScene(path)
    slicer.mrmlScene.Clear(0)
    a_folder.host.pump()
    assert not a_folder.ui.patientEdit.text
    slicer.util.loadScene(path)
    a_folder.host.pump()
    assert a_folder.ui.patientEdit.text == "-Patient seven"
    assert training_cases.new_case(a_folder.airways, a_folder.ui.trainingFolderEdit.currentPath).replaces == case


def test_where_nothing_is_written_the_proposal_counts(a_folder):
    a_folder.ui.patientEdit.text = "Seven"
    a_folder.ui.patientEdit.text = ""
    add(a_folder)
    assert [case.patient for case in cases(a_folder)] == ["CT"]


def test_another_patient_for_a_case_is_asked_about(a_folder):
    add(a_folder)
    a_folder.ui.patientEdit.text = "Seven"
    add(a_folder)
    assert a_folder.host.messages[-1][1].endswith("of patient CT. Replace that case? Its patient becomes Seven.")
    assert [case.patient for case in cases(a_folder)] == ["Seven"]


# What is in a case ---------------------------------------------------------------------------------------------------


def test_a_training_case_has_ct_label_edited_voxels_and_provenance(slicer_host, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", scenes.python_slicer(tmp_path), prepend=os.pathsep)
    ct, mask = scenes.a_ct()
    airways = segmentation.take_in(scenes.write_result(tmp_path / "result", ct, mask), ct)
    corrected = mask.astype(np.uint8)
    corrected[2, 2, 2] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(corrected, airways, "airways", ct)
    data = str(tmp_path / "training")
    case = training_cases.new_case(airways, data)

    def end(case):
        return scenes.end_of(training_cases.adding_job(airways, case))

    assert end(case) == (case.name, "")
    folder = os.path.join(data, "cases", case.name)
    arrays = {
        name: SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(os.path.join(folder, f"{name}.nrrd")))
        for name in ("ct", "label", "edited")
    }
    assert np.array_equal(arrays["label"], corrected)
    assert np.argwhere(arrays["edited"]).tolist() == [[2, 2, 2]]
    assert np.array_equal(arrays["ct"], slicer.util.arrayFromVolume(ct))
    with open(os.path.join(folder, "provenance.json"), encoding="utf-8") as stream:
        assert json.load(stream)["corrected_voxels"]["added"] == 1
    result, message = end(case)
    assert result is None and "exists" in message
    assert end(training_cases.new_case(airways, data)) == (case.name, "")


# Closing the scene ---------------------------------------------------------------------------------------------------


def starts_of(desk) -> list[list[str]]:
    """The command lines that the panel starts from now on."""
    launch, started = desk.logic.runs._launch, []

    def noted(arguments, **options):
        started.append(arguments)
        return launch(arguments, **options)

    desk.logic.runs._launch = noted
    return started


def test_a_case_is_added_though_the_scene_is_closed_meanwhile(a_folder):
    started, voxels = starts_of(a_folder), slicer.util.arrayFromVolume(a_folder.ct).copy()
    a_folder.click("addCaseButton")
    a_folder.host.pump(lambda: bool(started))
    slicer.mrmlScene.Clear(0)
    a_folder.wait()
    [case] = cases(a_folder)
    assert np.array_equal(ct_of_case(a_folder, case.name), voxels)
    folder = os.path.join(a_folder.ui.trainingFolderEdit.currentPath, "cases", case.name)
    with open(os.path.join(folder, "provenance.json"), encoding="utf-8") as stream:
        assert json.load(stream)["segmented_by"] == scenes.REPORT
    assert a_folder.ui.finetuneLabel.text == f"Added {case.name}." and a_folder.ui.casesList.count == 1
    assert not a_folder.host.messages


def test_a_case_whose_files_are_still_written_is_added_too(a_folder, monkeypatch):
    monkeypatch.setattr(nrrd_writer, "PIECE", 20_000)
    voxels, ends = slicer.util.arrayFromVolume(a_folder.ct).copy(), []
    case = training_cases.new_case(a_folder.airways, a_folder.ui.trainingFolderEdit.currentPath)
    started = starts_of(a_folder)
    a_folder.logic.startAddCase(a_folder.airways, case, Listener(lambda *end: ends.append(end)))
    temporary = slicer.app.temporaryPath
    a_folder.host.pump(
        lambda: any(name == "label.nrrd" for _path, _dirs, names in os.walk(temporary) for name in names)
    )
    assert not started
    slicer.mrmlScene.Clear(0)
    a_folder.wait()
    assert ends == [(case.name, "")] and np.array_equal(ct_of_case(a_folder, case.name), voxels)


def test_a_case_that_was_not_copied_from_the_closed_scene_is_said_to_be_missing(a_folder):
    case = training_cases.new_case(a_folder.airways, a_folder.ui.trainingFolderEdit.currentPath)
    listener = Listener(a_folder.section("Finetune").after("Added {name}."))
    a_folder.logic.startAddCase(a_folder.airways, case, listener)
    slicer.mrmlScene.Clear(0)
    a_folder.wait()
    sentence = "CT airways was removed from the scene before it was copied; nothing was written."
    assert a_folder.host.messages == [("error", sentence)] and not cases(a_folder)


def test_a_whole_case_is_exported_though_the_scene_is_closed_meanwhile(a_folder, tmp_path):
    started, ends = starts_of(a_folder), []
    target = str(tmp_path / "case")
    a_folder.logic.startExportCase(a_folder.airways, target, Listener(lambda *end: ends.append(end)))
    a_folder.host.pump(lambda: bool(started))
    slicer.mrmlScene.Clear(0)
    a_folder.wait()
    assert ends == [(target, "")] and {"airways.nrrd", exporting.PROVENANCE, "tree.json"} <= set(os.listdir(target))


def test_what_is_added_can_be_stopped_with_the_button(a_folder, monkeypatch):
    monkeypatch.setenv("AIRWAYSEG_STAND_IN", "slow")
    started = starts_of(a_folder)
    a_folder.click("addCaseButton")
    a_folder.host.pump(lambda: bool(started))
    assert a_folder.ui.cancelButton.visible and not a_folder.ui.addCaseButton.enabled
    a_folder.click("cancelButton")
    a_folder.wait()
    assert a_folder.ui.finetuneLabel.text == "Cancelled." and not cases(a_folder)


def test_a_case_whose_label_is_doubted_is_added_if_the_user_says_so(a_folder, monkeypatch):
    asked = []

    def doubted(airways, case, listener):
        asked.append(case.trusted)
        doubt = "airwayseg-train: CT airways looks mirrored. If it is correct nevertheless, add --trust-label."
        listener.on_finished(*((case.name, "") if case.trusted else (None, doubt.partition(": ")[2])))

    monkeypatch.setattr(a_folder.logic, "startAddCase", doubted)
    a_folder.host.answers.append(False)
    a_folder.click("addCaseButton")
    assert asked == [False] and a_folder.ui.finetuneLabel.text == "Cancelled."
    a_folder.click("addCaseButton")
    assert asked == [False, False, True] and a_folder.ui.finetuneLabel.text.startswith("Added ")
    assert a_folder.host.messages == [("question", "CT airways looks mirrored. Add it anyway?")] * 2


def test_what_an_interrupted_command_left_is_no_case(tmp_path):
    for name, about in ((".one.12ab.removed", {"patient": "p"}), ("two", {"patient": {"a": 1}}), ("three", [1])):
        folder = tmp_path / "cases" / name
        folder.mkdir(parents=True)
        (folder / "case.json").write_text(json.dumps(about))
    assert finetuning.training_cases(str(tmp_path)) == [finetuning.TrainingCase("two", "two", None)]


def test_a_training_folder_that_cannot_be_read_has_no_cases(tmp_path, monkeypatch):
    (tmp_path / "cases").mkdir()

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", refuse)
    assert finetuning.training_cases(str(tmp_path)) == []
