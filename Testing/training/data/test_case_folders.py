"""Cases that take each other's place: killed at every file operation, two commands at once, what is left behind."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from AirwaySegTraining.__main__ import main
from AirwaySegTraining.data import case_folders as casefolders
from AirwaySegTraining.data import data_folder
from AirwaySegTraining.data.cases import case_folders, read_case
from AirwaySegTraining.data.data_folder import CaseFiles, add_case

OPERATIONS = ("rename", "replace", "unlink", "rmdir", "mkdir")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@pytest.fixture
def files(tmp_path):
    """A CT with a tube, and the tube as label."""
    label = np.zeros((12, 14, 16), np.uint8)
    label[:, 4:8, 4:8] = 1
    paths = {}
    for name, array in (("ct", np.where(label == 1, -950, -100).astype(np.int16)), ("label", label)):
        paths[name] = tmp_path / f"{name}.nrrd"
        sitk.WriteImage(sitk.GetImageFromArray(array), str(paths[name]))
    return paths


@pytest.fixture
def a_data_folder(files, tmp_path):
    """With the case "ct" of the patient old, prepared."""
    data = tmp_path / "data"
    add_case(data, CaseFiles(**files, patient="old"))
    assert main(["cases", "list", str(data)]) == 0
    return data


def replace_case(data, files):
    return main(["cases", "add", str(data), *options(files), "--patient", "new", "--force"])


def options(files):
    return [part for key, path in files.items() for part in (f"--{key}", str(path))]


def killed_at(number, command):
    """Run a command in a child process that ends like `kill -9` before its file operation of this number.

    False when the command has ended before.
    """
    child = os.fork()
    if child == 0:
        left = iter(range(number, -1, -1))

        def deadly(operation):
            def run(*arguments, **more):
                if next(left) == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return operation(*arguments, **more)

            return run

        for name in OPERATIONS:
            setattr(os, name, deadly(getattr(os, name)))
        try:
            os._exit(command())
        finally:
            os._exit(70)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def patient_of(data):
    """Of the one case there is; it must be whole, and nothing else be left in the folder."""
    assert main(["cases", "list", str(data)]) == 0
    assert [path.name for path in (data / "cases").iterdir()] == ["ct"]
    assert sorted(path.name for path in (data / "cases" / "ct").iterdir()) == ["case.json", "ct.nrrd", "label.nrrd"]
    assert json.loads((data / "cases" / "ct" / "case.json").read_text())["patient"] == (
        read_case(data / "cases" / "ct").patient
    )
    return read_case(data / "cases" / "ct").patient


@needs_fork
def test_a_replacement_that_is_killed_anywhere_leaves_the_old_or_the_new_case_and_nothing_else(
    a_data_folder, files, tmp_path
):
    patients, number = [], 0
    while True:
        data = tmp_path / f"killed-{number}"
        shutil.copytree(a_data_folder, data)
        if not killed_at(number, lambda data=data: replace_case(data, files)):
            break
        patients.append(patient_of(data))
        number += 1
    assert number > 10 and patients == sorted(patients, reverse=True) and set(patients) == {"old", "new"}


@needs_fork
def test_a_removal_that_is_killed_anywhere_leaves_the_case_whole_or_nothing_of_it(a_data_folder, tmp_path, capsys):
    number, gone = 0, []
    while True:
        data = tmp_path / f"killed-{number}"
        shutil.copytree(a_data_folder, data)
        if not killed_at(number, lambda data=data: main(["cases", "remove", str(data), "ct"])):
            break
        main(["cases", "list", str(data)])
        gone.append("holds no case yet" in capsys.readouterr().err)
        if gone[-1]:
            assert not list((data / "cases").iterdir()) and not list((data / ".prepared").iterdir())
        else:
            assert patient_of(data) == "old"
        number += 1
    assert number > 3 and gone == sorted(gone) and set(gone) == {True, False}


def test_every_command_that_reads_cases_brings_back_one_whose_replacement_was_interrupted(a_data_folder, files):
    cases = a_data_folder / "cases"
    add_case(a_data_folder, CaseFiles(**files, patient="new", name="other"))
    os.rename(cases / "ct", cases / ".ct.00000001.removed")
    os.rename(cases / "other", cases / ".ct.00000002.new")
    assert [folder.name for folder in case_folders(a_data_folder)] == ["ct"]
    assert patient_of(a_data_folder) == "new"


def test_a_new_case_that_has_not_taken_its_name_does_not_come_back_when_the_case_is_removed(a_data_folder):
    cases = a_data_folder / "cases"
    shutil.copytree(cases / "ct", cases / ".ct.00000002.new")
    assert main(["cases", "remove", str(a_data_folder), "ct"]) == 0
    assert not list(cases.iterdir())


def test_a_case_that_cannot_take_the_name_leaves_the_old_one_there(a_data_folder, files, monkeypatch, capsys):
    rename = os.rename

    def refused(source, target):
        if str(source).endswith(".new"):
            raise PermissionError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refused)
    assert replace_case(a_data_folder, files) == 2
    assert "cannot be replaced: Permission denied" in capsys.readouterr().err
    monkeypatch.undo()
    assert patient_of(a_data_folder) == "old"


@needs_fork
def test_what_a_living_command_is_about_to_rename_is_left_alone(a_data_folder, files, monkeypatch, capfd):
    """The child stops between the two renames of a replacement, until the parent has looked."""
    (here, there), (told, tell) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        rename = os.rename

        def slow(source, target):
            if str(source).endswith(".new"):
                os.write(there, b"1")
                os.read(told, 1)
            rename(source, target)

        os.rename = slow
        os._exit(replace_case(a_data_folder, files))
    os.read(here, 1)
    monkeypatch.setattr(casefolders, "LONGEST_WAIT_S", 0)
    assert main(["cases", "list", str(a_data_folder)]) == 2
    assert "in use by airwayseg-train cases add" in capfd.readouterr().err
    assert len(list((a_data_folder / "cases").iterdir())) == 2
    os.write(tell, b"1")
    assert os.waitpid(child, 0)[1] == 0
    assert patient_of(a_data_folder) == "new"
    for end in (here, there, told, tell):
        os.close(end)


def test_of_two_commands_that_add_a_case_of_one_name_the_later_one_is_refused(files, tmp_path, monkeypatch, capsys):
    data, write = tmp_path / "data", data_folder.write_nrrd

    def write_after_the_other(*arguments, **more):
        monkeypatch.setattr(data_folder, "write_nrrd", write)
        add_case(data, CaseFiles(**files, patient="first"))
        write(*arguments, **more)

    monkeypatch.setattr(data_folder, "write_nrrd", write_after_the_other)
    assert main(["cases", "add", str(data), *options(files), "--patient", "second"]) == 2
    assert "--force" in capsys.readouterr().err
    assert patient_of(data) == "first"


def test_a_folder_that_only_looks_like_one_on_its_way_is_left_alone(a_data_folder):
    strange = a_data_folder / "cases" / ".ct.backup"
    Path(strange).mkdir()
    assert main(["cases", "list", str(a_data_folder)]) == 0
    assert strange.exists()
