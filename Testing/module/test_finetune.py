"""Tests of AirwaySegSlicer's finetuning, probe and installation: folders, command lines, outcomes, findings."""

import json
import os
import sys

import module_scenes as scenes
import pytest
from module_commands import OUTCOME

from AirwaySegSlicer.commands import child_process as process
from AirwaySegSlicer.commands import finetune as finetuning
from AirwaySegSlicer.commands import installation
from AirwaySegSlicer.commands import probe_child as probe


def add_case(data, name, **about):
    folder = data / "cases" / name
    folder.mkdir(parents=True)
    (folder / "case.json").write_text(json.dumps(about))


def test_the_cases_of_a_folder_are_those_that_are_whole(tmp_path):
    add_case(tmp_path, "b", patient="p1", edited_voxels=12)
    add_case(tmp_path, "a")
    (tmp_path / "cases" / "half").mkdir()
    cases = finetuning.training_cases(str(tmp_path))
    assert cases == [finetuning.TrainingCase("a", "a", None), finetuning.TrainingCase("b", "p1", 12)]
    assert finetuning.training_cases("") == finetuning.training_cases(str(tmp_path / "none")) == []


def test_the_command_line_is_one_that_the_training_library_understands(tmp_path):
    from AirwaySegTraining.__main__ import _parser

    options = finetuning.FinetuneOptions(str(tmp_path), "default", "mine", "cpu")
    parsed = _parser().parse_args(finetuning.finetune_arguments(options))
    assert (parsed.weights, parsed.name, parsed.device, parsed.resume) == ("default", "mine", "cpu", False)
    assert parsed.output == tmp_path / "runs" / "mine"


def test_a_run_that_was_stopped_is_continued(tmp_path):
    options = finetuning.FinetuneOptions(str(tmp_path), "default", "mine")
    os.makedirs(finetuning.run_folder(options))
    assert "--resume" not in finetuning.finetune_arguments(options)
    with open(os.path.join(finetuning.run_folder(options), "last.pt"), "w"):
        assert "--resume" in finetuning.finetune_arguments(options)


def test_the_outcome_is_a_table_and_a_verdict(tmp_path):
    (tmp_path / "finetune.json").write_text(json.dumps(OUTCOME))
    outcome = finetuning.read_outcome(str(tmp_path))
    assert outcome.rows[0] == ("p1: tree length", pytest.approx(80), pytest.approx(85))
    assert len(outcome.rows) == 6 and (outcome.verdict, outcome.name) == (finetuning.BETTER, "mine")


@pytest.mark.parametrize(
    ("about", "verdict"),
    [
        ({"better": False}, "not better"),
        ({"better": False, "verdict": "not better"}, "not better"),
        ({"better": False, "verdict": "unknown", "before": {}, "after": {}}, "unknown"),
        ({"better": True, "verdict": "better"}, "better"),
    ],
)
def test_the_verdict_has_three_values_and_older_files_have_two(tmp_path, about, verdict):
    (tmp_path / "finetune.json").write_text(json.dumps(OUTCOME | about))
    assert finetuning.read_outcome(str(tmp_path)).verdict == verdict


def test_a_verdict_of_another_kind_gets_a_sentence(tmp_path):
    (tmp_path / "finetune.json").write_text(json.dumps(OUTCOME | {"verdict": "perhaps"}))
    with pytest.raises(RuntimeError, match=r"finetune\.json"):
        finetuning.read_outcome(str(tmp_path))


def test_an_outcome_of_another_shape_gets_a_sentence(tmp_path):
    (tmp_path / "finetune.json").write_text("{}")
    with pytest.raises(RuntimeError, match=r"finetune\.json"):
        finetuning.read_outcome(str(tmp_path))


def test_an_empty_folder_is_not_trained_on(tmp_path):
    options = finetuning.FinetuneOptions(str(tmp_path), "default", "mine")
    with pytest.raises(RuntimeError, match="no case yet"):
        finetuning.finetuning_job(options)


def test_relative_folders_are_those_of_slicers_working_directory(tmp_path, monkeypatch):
    """The commands have another one."""
    a_case = tmp_path / "data" / "cases" / "one"
    a_case.mkdir(parents=True)
    (a_case / "case.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    arguments = finetuning.finetuning_job(finetuning.FinetuneOptions("data", "default", "mine")).prepare("")
    assert arguments[:5] == ["finetune", "--data", str(tmp_path / "data"), "-o", str(tmp_path / "data/runs/mine")]
    assert finetuning.removing_job("data", "one").prepare("")[2] == str(tmp_path / "data")


# The installation ----------------------------------------------------------------------------------------------------


def a_probe(**changes):
    torch = {"version": "2.13.0", "cudaVersion": None, "gpus": [], "mps": False}
    whole = {
        "python": "3.12.10",
        "missing": [],
        "driver": "",
        "freeDisk": 5e10,
        "torch": torch,
        "models": ["default", "mine"],
    }
    return {**whole, **changes}


def fixes(found):
    return [finding.fix for finding in installation.judge(found).findings if finding.fix]


def test_a_whole_installation_needs_nothing():
    found = installation.judge(a_probe())
    assert not fixes(a_probe()) and found.models == ["default", "mine"] and found.devices == ["auto", "cpu"]
    assert found.device_line == "CPU: no GPU that PyTorch can use"


def test_a_gpu_says_how_much_memory_is_free():
    gpu = {"name": "RTX", "free": int(6.1 * 2**30), "total": 8 * 2**30}
    torch = {"version": "2.13.0", "cudaVersion": "12.8", "gpus": [gpu], "mps": False}
    found = installation.judge(a_probe(torch=torch, driver="RTX, 570.1"))
    assert found.device_line == "CUDA: 6.1 of 8 GB free (RTX)" and found.devices == ["auto", "cpu", "cuda"]
    assert not any(finding.fix for finding in found.findings)


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({"missing": ["scikit-image"]}, "Press Install what is missing."),
        ({"torch": {"error": "ModuleNotFoundError: No module named 'torch'"}}, "Press Install what is missing."),
        ({"torch": {"error": "OSError: libc10.so"}}, "uninstall PyTorch, restart Slicer"),
        ({"driver": "RTX, 470.1"}, "with a CUDA computation backend"),
        (
            {"driver": "RTX, 470.1", "torch": {"version": "2.13.0", "cudaVersion": "12.8", "gpus": [], "mps": False}},
            "Update the NVIDIA driver to one that supports CUDA 12.8.",
        ),
        ({"freeDisk": 1e9}, "Free some space"),
        ({"models": []}, "Install the extension AirwaySeg again."),
    ],
)
def test_each_problem_has_its_one_fix(changes, fix):
    found = fixes(a_probe(**changes))
    assert fix in found[0]


def test_a_requirement_that_is_not_installed_is_missing(tmp_path):
    (tmp_path / "requirements.txt").write_text("# words\nnumpy>=1\nno-such-package-of-ours>=2\n")
    assert probe.missing_packages(str(tmp_path / "requirements.txt")) == ["no-such-package-of-ours"]


def test_the_real_probe_sees_this_computer(slicer_host, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", scenes.python_slicer(tmp_path), prepend=os.pathsep)
    found, message = scenes.end_of(installation.probe_job())
    assert message == "" and "default" in found.models
    assert found.findings[0].what.startswith(f"Python {sys.version.split()[0]}")


def test_a_package_is_found_beside_the_module_or_in_the_source_tree(tmp_path):
    assert process.package_folder("AirwaySegLib") == process.MODULE_FOLDER
    assert os.path.isdir(os.path.join(process.package_folder("AirwaySegTraining"), "AirwaySegTraining"))
    with pytest.raises(RuntimeError, match="is not installed beside"):
        process.package_folder("NoSuchPackage")
