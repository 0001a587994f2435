"""Training: patches, and a tiny training that resumes exactly and holds out what it says."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from AirwaySegLib.errors import AirwaySegError, Cancelled
from AirwaySegLib.progress import silent
from AirwaySegLib.weights import load_weights
from AirwaySegTraining.__main__ import main
from AirwaySegTraining.cases import case_folders, read_case
from AirwaySegTraining.fitsettings import FitSettings
from AirwaySegTraining.loop import fit, group_shares, rate_at
from AirwaySegTraining.patches import draw_patch
from AirwaySegTraining.recipes import load_recipe
from AirwaySegTraining.sampling import Mixture

TINY = FitSettings(
    steps=4,
    batch=1,
    patch=32,
    workers=0,
    checkpoint_every=2,
    validate_every=2,
    validation=0,
    device="cpu",
    frozen_from=0.5,
)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Threads that wait for each other are slow where a test has not the machine to itself."""
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def a_data_folder(tmp_path):
    """Two cases with a dark tube along z in grey tissue."""
    for k in range(2):
        ct = np.full((24, 24, 24), -100, np.int16)
        label = np.zeros(ct.shape, np.uint8)
        label[:, 10:14, 10 + k : 14 + k] = 1
        ct[label == 1] = -950
        folder = tmp_path / "data" / "cases" / f"case-{k}"
        folder.mkdir(parents=True)
        sitk.WriteImage(sitk.GetImageFromArray(ct), str(folder / "ct.nrrd"))
        sitk.WriteImage(sitk.GetImageFromArray(label), str(folder / "label.nrrd"))
        (folder / "case.json").write_text(json.dumps({"clean": True}))
    return tmp_path / "data"


def test_patches_of_a_case_show_its_airway_dark(a_data_folder):
    case = read_case(a_data_folder / "cases" / "case-0")
    stage = replace(TINY.full_recipe().stages[0], patch=16)
    rng = np.random.default_rng(0)
    seen = 0
    for _ in range(20):
        hu, label, _ = draw_patch(case, stage, Mixture.of(stage.sampling), rng)
        assert hu.shape == label.shape == (16, 16, 16) and hu.dtype == np.float32
        if 20 < label.sum() < 3000:
            seen += 1
            assert hu[label == 1].mean() < hu[label == 0].mean() - 200
    assert seen > 10


def test_a_label_on_another_grid_is_refused_by_name(a_data_folder):
    folder = a_data_folder / "cases" / "case-1"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((24, 24, 23), np.uint8)), str(folder / "label.nrrd"))
    with pytest.raises(AirwaySegError, match="case-1: .*is not on the grid of"):
        read_case(folder)


def test_a_folder_without_cases_is_refused(tmp_path):
    with pytest.raises(AirwaySegError, match="No case found"):
        case_folders(tmp_path)


def test_the_learning_rate_warms_up_and_falls_to_a_hundredth():
    stage = replace(load_recipe("default").stages[0], steps=1000, rate=1.0)
    assert rate_at(0, stage) == pytest.approx(0.01)
    assert rate_at(99, stage) > 0.9
    assert rate_at(999, stage) == pytest.approx(0.01, rel=0.01)


def _weights(path):
    net, info, _ = load_weights(str(path))
    return info, torch.cat([value.flatten().float() for value in net.state_dict().values()])


def test_an_interrupted_training_continues_bit_for_bit(a_data_folder, tmp_path):
    whole = fit([a_data_folder], tmp_path / "whole", TINY, silent)

    def stop_at_three(stage, done, _total):
        if stage == "train" and done == 3:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        fit([a_data_folder], tmp_path / "broken", TINY, stop_at_three)
    assert _weights(tmp_path / "broken" / "model.safetensors")[0].provenance["steps"] == 2
    mended = fit([a_data_folder], tmp_path / "broken", TINY, silent, resume=True)
    info, expected = _weights(whole)
    _, found = _weights(mended)
    assert torch.equal(expected, found)
    assert info.norm == "batch" and info.provenance["steps"] == 4 and info.provenance["cases"] == 2
    rows = list(csv.reader((tmp_path / "whole" / "log.csv").open()))
    assert [row[0] for row in rows] == ["step", "2", "4"]


def test_a_patch_that_is_too_small_is_refused(capsys):
    assert main(["fit", "--data", "somewhere", "-o", "run", "--patch", "16"]) == 2
    assert "stage 1 (fit): patch is 16; it must be a multiple of 8 from 32 on" in capsys.readouterr().err


def test_frozen_statistics_stay_while_the_weights_learn(a_data_folder, tmp_path):
    started = fit([a_data_folder], tmp_path / "one", replace(TINY, steps=2, frozen_from=1.0), silent)
    frozen = fit([a_data_folder], tmp_path / "two", replace(TINY, frozen_from=0.0, start_from=str(started)), silent)
    before, after = (load_weights(str(path))[0].state_dict() for path in (started, frozen))
    for name, value in before.items():
        same = torch.allclose(value.float(), after[name].float(), atol=1e-7)
        if "running" in name:
            assert same, name
        elif name.endswith("convolution.weight"):
            assert not same, name


def test_a_run_is_resumed_with_its_own_settings_only(a_data_folder, tmp_path):
    fit([a_data_folder], tmp_path / "run", TINY, silent)
    with pytest.raises(AirwaySegError, match="another --rate"):
        fit([a_data_folder], tmp_path / "run", replace(TINY, rate=0.5), silent, resume=True)
    (tmp_path / "run" / "last.pt").write_bytes(b"nonsense")
    with pytest.raises(AirwaySegError, match=r"last\.pt is damaged"):
        fit([a_data_folder], tmp_path / "run", TINY, silent, resume=True)


def test_data_folders_share_the_patches_as_asked():
    groups = [[None] * 30, [None] * 10]
    assert group_shares(groups, TINY).tolist() == [0.75, 0.25]
    assert group_shares(groups, replace(TINY, shares=(3.0, 2.0))).tolist() == pytest.approx([0.6, 0.4])
    with pytest.raises(AirwaySegError, match="do not fit"):
        group_shares(groups, replace(TINY, shares=(1.0,)))


def test_a_run_is_not_overwritten(a_data_folder, tmp_path, capsys):
    fit([a_data_folder], tmp_path / "run", TINY, silent)
    code = main(["fit", "--data", str(a_data_folder), "-o", str(tmp_path / "run"), "--steps", "4"])
    assert code == 2
    assert "already holds a run" in capsys.readouterr().err
