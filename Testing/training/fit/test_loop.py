"""Training: patches, and a tiny training that resumes exactly and holds out what it says."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from AirwaySegLib.errors import AirwaySegError, Cancelled
from AirwaySegLib.networks.weights import ModelInfo, load_weights, save_weights
from AirwaySegLib.progress import silent
from AirwaySegTraining.__main__ import main
from AirwaySegTraining.data.cases import case_folders, read_case
from AirwaySegTraining.data.sampling import Mixture
from AirwaySegTraining.fit import loop, run_log, steps
from AirwaySegTraining.fit.loop import fit, group_shares, rate_at
from AirwaySegTraining.fit.patches import Batches, Source, draw_patch
from AirwaySegTraining.fit.recipes import load_recipe, recipes_folder
from AirwaySegTraining.fit.run_log import RunLog, read_validation
from AirwaySegTraining.fit.settings import FitSettings
from AirwaySegTraining.fit.stage_loss import stage_loss
from AirwaySegTraining.fit.validation import mean_score

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


pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_a_training_of_so_many_minutes_ends_after_them_and_resumes_bit_for_bit(a_data_folder, tmp_path, monkeypatch):
    now = [0.0]

    def twenty_seconds_a_step():
        now[0] += 20.0
        return now[0]

    monkeypatch.setattr(steps, "time", SimpleNamespace(monotonic=twenty_seconds_a_step))
    settings, shown = replace(TINY, steps=None, minutes=2.0), []
    whole = fit([a_data_folder], tmp_path / "whole", settings, lambda *shows: shown.append(shows))
    assert [row for row in shown if row[0] == "train"] == [("train", 20 * k, 120) for k in range(1, 7)]
    rows = rows_of(tmp_path / "whole" / "log.csv")
    assert [row["step"] for row in rows] == ["3", "6"]  # a checkpoint a minute
    (stage,) = settings.full_recipe().stages
    assert float(rows[-1]["rate"]) == pytest.approx(rate_at(5, stage, 100 / 120), rel=1e-3)

    def stop_in_the_fifth(stage, done, _total):
        if stage == "train" and done == 100:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        fit([a_data_folder], tmp_path / "broken", settings, stop_in_the_fifth)
    resumed = fit([a_data_folder], tmp_path / "broken", settings, silent, resume=True)
    assert torch.equal(_weights(whole)[1], _weights(resumed)[1])
    ended = fit([a_data_folder], tmp_path / "broken", settings, silent, resume=True)  # nothing is left to do
    assert _weights(ended)[0].provenance["steps"] == 6


def test_minutes_stand_alone_and_for_recipes_of_one_stage():
    with pytest.raises(AirwaySegError, match="--minutes is 0; it must be above 0"):
        FitSettings(minutes=0)
    with pytest.raises(AirwaySegError, match="leave out --steps and --steps-scale"):
        FitSettings(minutes=5, steps=10)
    with pytest.raises(AirwaySegError, match="--minutes is for recipes of one stage, and wingsnet has 3"):
        FitSettings(recipe="wingsnet", minutes=5).full_recipe()


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


def test_a_run_is_resumed_with_its_own_settings_and_cases_only(a_data_folder, tmp_path):
    short = replace(TINY, steps=2)
    fit([a_data_folder], tmp_path / "run", short, silent)
    with pytest.raises(AirwaySegError, match="another --rate"):
        fit([a_data_folder], tmp_path / "run", replace(short, rate=0.5), silent, resume=True)
    (a_data_folder / "cases" / "case-1" / "case.json").write_text("{}")
    with pytest.raises(AirwaySegError, match="on other cases: one was added, removed or changed"):
        fit([a_data_folder], tmp_path / "run", short, silent, resume=True)
    (tmp_path / "run" / "last.pt").write_bytes(b"nonsense")
    with pytest.raises(AirwaySegError, match=r"last\.pt is damaged"):
        fit([a_data_folder], tmp_path / "run", short, silent, resume=True)


def test_data_folders_share_the_patches_as_asked():
    groups = [[None] * 30, [None] * 10]
    assert group_shares(groups, TINY).tolist() == [0.75, 0.25]
    assert group_shares(groups, replace(TINY, shares=(3.0, 2.0))).tolist() == pytest.approx([0.6, 0.4])
    with pytest.raises(AirwaySegError, match="do not fit"):
        group_shares(groups, replace(TINY, shares=(1.0,)))


def test_a_run_is_not_overwritten(a_data_folder, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.pt").write_bytes(b"of another day")
    code = main(["fit", "--data", str(a_data_folder), "-o", str(tmp_path / "run"), "--steps", "4"])
    assert code == 2
    assert "already holds a run" in capsys.readouterr().err
    assert (tmp_path / "run" / "last.pt").read_bytes() == b"of another day"


@pytest.mark.parametrize("name", ["log.csv", "validation.csv", "best.safetensors", "model.safetensors"])
def test_what_an_earlier_run_left_without_a_checkpoint_is_kept(a_data_folder, tmp_path, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_bytes(b"of another day")
    for resume in (False, True):
        with pytest.raises(AirwaySegError, match=rf"holds {name} of a run, but no last\.pt to resume it from"):
            fit([a_data_folder], tmp_path / "run", TINY, silent, resume=resume)
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "run").iterdir()] == [(name, b"of another day")]


def test_a_folder_in_which_another_process_trains_is_refused(a_data_folder, tmp_path):
    program = """if True:
        import sys
        from pathlib import Path
        from AirwaySegTraining.fit.run_folder import run_folder
        with run_folder(Path(sys.argv[1]), "fit", resume=False):
            print("locked", flush=True)
            sys.stdin.read()
    """
    words = [sys.executable, "-c", program, str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(AirwaySegError, match=rf"in use by airwayseg-train fit \(process {other.pid} "):
            fit([a_data_folder], tmp_path / "run", TINY, silent)
    fit([a_data_folder], tmp_path / "run", replace(TINY, steps=1), silent)


@pytest.fixture
def a_student(tmp_path):
    """A training of the recipe student that begins with random weights."""
    start, info = tmp_path / "narrow.safetensors", ModelInfo("narrow", norm="batch", architecture="wingsnet_half")
    save_weights(start, info.build(), info)
    return replace(TINY, recipe="student", start_from=str(start))


def test_a_narrow_network_is_taught_by_a_wide_one(a_data_folder, a_student, tmp_path):
    teacher = fit([a_data_folder], tmp_path / "teacher", replace(TINY, steps=1), silent)
    settings = replace(a_student, teacher=str(teacher))
    target = fit([a_data_folder], tmp_path / "pupil", settings, silent)
    net, info, _ = load_weights(str(target))
    assert info.architecture == "wingsnet_half" and info.provenance["settings"]["teacher"] == str(teacher)
    assert net.encoder[1].convolution.weight.shape == (8, 4, 3, 3, 3)


def test_the_teachers_probabilities_are_the_target(a_data_folder, a_student, tmp_path, monkeypatch):
    settings = replace(TINY, steps=1, norm="instance")  # without statistics, untrained weights tell voxels apart
    teacher = fit([a_data_folder], tmp_path / "teacher", settings, silent)
    seen = []

    def noted(stage, logits, batch, **more):
        seen.append(batch["teacher"])
        return stage_loss(stage, logits, batch, **more)

    monkeypatch.setattr(loop, "stage_loss", noted)
    settings = replace(a_student, teacher=str(teacher), steps=1, precision="float32")
    fit([a_data_folder], tmp_path / "pupil", settings, silent)
    cases = [read_case(folder) for folder in case_folders(a_data_folder)]
    source = Source([cases], np.ones(1), [(-1000, 600)], settings.seed)
    image = Batches(source, settings.full_recipe().stages[0])[0]["image"]
    with torch.no_grad():
        expected = torch.sigmoid(load_weights(str(teacher))[0](image)[-1])
    assert len(seen) == 2 and expected.std() > 1e-3
    for found in seen:  # of both heads
        assert torch.allclose(found, expected, atol=1e-5)


def test_a_teacher_that_sees_other_hu_windows_is_refused(a_data_folder, a_student, tmp_path):
    net, info, _ = load_weights(str(fit([a_data_folder], tmp_path / "one", replace(TINY, steps=1), silent)))
    save_weights(tmp_path / "other.safetensors", net, replace(info, window_hu=(-1200, 600)))
    settings = replace(a_student, teacher=str(tmp_path / "other.safetensors"))
    with pytest.raises(AirwaySegError, match="The teacher .*other.safetensors sees the CT in other HU windows"):
        fit([a_data_folder], tmp_path / "pupil", settings, silent)


def rows_of(path):
    return list(csv.DictReader(path.open()))


def test_held_out_cases_are_segmented_and_the_best_weights_kept(a_data_folder, tmp_path, monkeypatch):
    scores = iter([0.3, 0.6, 0.5])
    monkeypatch.setattr(loop, "mean_score", lambda cases: next(scores))
    started = fit([a_data_folder], tmp_path / "first", replace(TINY, steps=1, norm="instance"), silent)
    settings = replace(TINY, validation=0.5, norm="instance", start_from=str(started))
    fit([a_data_folder], tmp_path / "run", settings, silent)
    rows = rows_of(tmp_path / "run" / "validation.csv")
    assert [(row["step"], row["case"]) for row in rows[1::2]] == [("0", "mean"), ("2", "mean"), ("4", "mean")]
    case = rows[0]["case"]
    assert case in ("case-0", "case-1") and {row["case"] for row in rows} == {case, "mean"}
    for row in rows:
        assert float(row["voxels_in_both"]) + float(row["voxels_in_reference_only"]) == 24 * 4 * 4
    best, _ = _weights(tmp_path / "run" / "best.safetensors")
    assert best.provenance["steps"] == 2 and best.provenance["score"] == 0.6
    assert best.provenance["held_out"] == [case]
    assert _weights(tmp_path / "run" / "model.safetensors")[0].provenance["steps"] == 4


def test_a_validation_that_fails_loses_no_step_and_is_made_up_for(a_data_folder, tmp_path, monkeypatch):
    def fail(model, case, device):
        raise RuntimeError("out of memory")

    settings = replace(TINY, validation=0.5, norm="instance")
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(loop, "validate", fail)
        fit([a_data_folder], tmp_path / "run", settings, silent)
    stages = []
    fit([a_data_folder], tmp_path / "run", settings, lambda stage, done, _: stages.append((stage, done)), resume=True)
    assert [done for stage, done in stages if stage == "train"] == [3, 4]
    assert [row["step"] for row in rows_of(tmp_path / "run" / "validation.csv")] == ["2", "2", "4", "4"]


def test_whole_scans_are_looked_at_up_to_a_number_that_the_log_names(a_data_folder, tmp_path, monkeypatch):
    for k in range(2, 5):
        shutil.copytree(a_data_folder / "cases" / "case-0", a_data_folder / "cases" / f"case-{k}")
    monkeypatch.setattr(loop, "validate", lambda model, case, device: dict.fromkeys(("tld", "bd", "precision"), 0.5))
    settings = replace(TINY, steps=2, validation=0.6, validate_cases=2)
    fit([a_data_folder], tmp_path / "run", settings, silent)
    cases = {row["case"] for row in rows_of(tmp_path / "run" / "validation.csv")} - {"mean"}
    assert len(cases) == 2
    said = (tmp_path / "run" / "run.log").read_text()
    assert f"3 case(s) are held out and 2 of them looked at (--validate-cases 2): {', '.join(sorted(cases))}." in said
    with pytest.raises(AirwaySegError, match="--validate-cases is 0; it must be at least 1"):
        replace(TINY, validate_cases=0)


def test_a_finished_run_gets_more_steps_and_never_fewer(a_data_folder, tmp_path):
    settings = replace(TINY, steps=2, frozen_from=0.5)
    fit([a_data_folder], tmp_path / "run", settings, silent)
    longer = replace(settings, steps=8, checkpoint_every=4, validate_every=4)
    target = fit([a_data_folder], tmp_path / "run", longer, silent, resume=True)
    assert _weights(target)[0].provenance["steps"] == 8
    rows = rows_of(tmp_path / "run" / "log.csv")
    assert [row["step"] for row in rows] == ["2", "4", "8"]
    (stage,) = longer.full_recipe().stages
    assert float(rows[-1]["rate"]) == pytest.approx(rate_at(7, stage), rel=1e-3)
    said = (tmp_path / "run" / "run.log").read_text()
    assert "step 2: Lengthened from 2 to 8 steps: the learning rate goes on as that of 8 steps does, at " in said
    for fewer in (replace(settings, steps=4), settings):
        with pytest.raises(AirwaySegError, match="another --steps: it has 8 steps and can only get more"):
            fit([a_data_folder], tmp_path / "run", fewer, silent, resume=True)
    with pytest.raises(AirwaySegError, match="another --steps-scale; to train longer, begin another run with --start"):
        fit([a_data_folder], tmp_path / "run", replace(longer, steps_scale=2.0), silent, resume=True)


def test_statistics_that_were_frozen_stay_so_when_a_run_gets_more_steps(a_data_folder, tmp_path):
    settings = replace(TINY, steps=2, frozen_from=0.5)
    before = load_weights(str(fit([a_data_folder], tmp_path / "run", settings, silent)))[0].state_dict()
    run = tmp_path / "run"
    fast = torch.load(run / "last.pt", weights_only=True)["net"]
    fit([a_data_folder], run, replace(settings, steps=8), silent, resume=True)  # half of which would be 4
    after = torch.load(run / "last.pt", weights_only=True)["net"]
    assert len(before) == len(fast) and any("running" in name for name in fast)
    assert all(torch.equal(value, after[name]) for name, value in fast.items() if "running" in name)


@pytest.mark.parametrize(("capability", "precision"), [("AVX2", "float32"), ("AVX512", "bfloat16")])
def test_a_run_says_its_precision_and_keeps_it_on_another_machine(
    a_data_folder, tmp_path, monkeypatch, capability, precision
):
    def give_processor(name):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: name)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: name == "AVX512")

    used = set()
    real = torch.autocast

    def autocast(device, dtype, enabled):
        used.add("bfloat16" if enabled else "float32")
        return real(device, dtype, enabled=False)

    monkeypatch.setattr(torch, "autocast", autocast)
    give_processor(capability)
    settings = replace(TINY, steps=1)
    fit([a_data_folder], tmp_path / "run", settings, silent)
    give_processor("AVX512" if capability == "AVX2" else "AVX2")
    target = fit([a_data_folder], tmp_path / "run", replace(settings, steps=2), silent, resume=True)
    assert used == {precision}
    assert _weights(target)[0].provenance["settings"]["precision"] == precision
    said = (tmp_path / "run" / "run.log").read_text()
    assert said.startswith(f"step 0: Begun in {precision} on cpu, ")
    assert f"step 1: Continued in {precision} on cpu, " in said


def test_the_score_is_the_mean_of_tree_length_branches_and_precision():
    cases = {
        "one": {"tld": 0.9, "bd": 0.6, "precision": 1.0, "dsc": 0.1},
        "two": {"tld": 0.0, "bd": 0.0, "precision": math.nan, "dsc": 0.0},
    }
    assert mean_score(cases) == pytest.approx((0.45 + 0.3 + 0.5) / 3), "finding nothing has a precision of 0"
    cases["two"] |= {"tld": math.nan, "bd": math.nan}
    assert mean_score(cases) == pytest.approx((0.9 + 0.6 + 0.5) / 3), "a reference without branches says nothing"


def test_a_full_disk_ends_a_training_with_a_sentence_and_the_checkpoint_before(a_data_folder, tmp_path, monkeypatch):
    saves = []

    def save(state, path):
        saves.append(path)
        if len(saves) == 2:
            path.write_bytes(b"half")
            raise RuntimeError("unexpected pos 64 vs 0")  # PyTorch's words for it
        torch_save(state, path)

    torch_save = torch.save
    monkeypatch.setattr(torch, "save", save)
    settings = replace(TINY, steps=2, checkpoint_every=1, validate_every=1)
    with pytest.raises(AirwaySegError, match=r"last\.pt cannot be written; is the disk full"):
        fit([a_data_folder], tmp_path / "run", settings, silent)
    assert not list((tmp_path / "run").glob("*.unfinished"))
    fit([a_data_folder], tmp_path / "run", settings, silent, resume=True)
    assert [row["step"] for row in rows_of(tmp_path / "run" / "log.csv")] == ["1", "2"]


CLASSES = """
[network]
classes = 3
second_window_hu = [-625, 125]
[[stage]]
name = "classes"
steps = 2
patch = 32
batch = 1
optimizer = "sgd"
[[stage.loss]]
term = "classes"
[[stage.loss]]
term = "general_union"
alpha = 0.2
exponent = 0.7
[stage.sampling]
thin = 1.0
"""


def test_three_classes_and_two_channels_are_trained_and_said_in_the_weights(a_data_folder, tmp_path):
    (tmp_path / "mine.toml").write_text(CLASSES)
    settings = FitSettings(recipe=str(tmp_path / "mine.toml"), workers=0, device="cpu", validation=0)
    target = fit([a_data_folder], tmp_path / "run", settings, silent)
    info, _ = _weights(target)
    assert (info.classes, info.in_channels, info.second_window_hu) == (3, 2, (-625, 125))
    assert info.patch_zyx == (32, 32, 32) and info.provenance["recipe"]["name"] == "mine"
    with pytest.raises(AirwaySegError, match=r"has 2 channel\(s\) and 3 class\(es\), and the recipe default 1 and 1"):
        fit([a_data_folder], tmp_path / "next", replace(TINY, start_from=str(target)), silent)


def test_what_a_model_missed_is_found_once_and_wanted_when_the_run_goes_on(a_data_folder, tmp_path):
    started = fit([a_data_folder], tmp_path / "first", replace(TINY, steps=1, norm="instance"), silent)
    text = (recipes_folder() / "default.toml").read_text().replace("anywhere = 0.16", "hard_skeleton = 0.16")
    (tmp_path / "mine.toml").write_text(text)
    settings = replace(TINY, recipe=str(tmp_path / "mine.toml"), norm="instance")
    with pytest.raises(AirwaySegError, match=r"stage 1 \(fit\): hard_skeleton and back_propagation need a model "):
        fit([a_data_folder], tmp_path / "run", settings, silent)
    stages = []

    def stop_at_three(stage, done, _total):
        stages.append(stage)
        if stage == "train" and done == 3:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        fit([a_data_folder], tmp_path / "run", replace(settings, start_from=str(started)), stop_at_three)
    assert stages.index("missed") < stages.index("train")
    files = sorted((tmp_path / "run" / "missed" / "1").iterdir())
    assert [file.name[:6] for file in files] == ["case-0", "case-1"]
    assert set(np.unique(np.load(files[0]))) <= {0, 1}
    files[0].unlink()
    with pytest.raises(AirwaySegError, match=r"case-0-\w+\.npy is missing; without it"):
        fit([a_data_folder], tmp_path / "run", replace(settings, start_from=str(started)), silent, resume=True)


def test_the_log_forgets_what_was_done_after_the_checkpoint_and_a_row_that_was_cut_off(tmp_path):
    (tmp_path / "log.csv").write_text("step,stage\n2,fit\n4,fit\n6,fit\n1")
    (tmp_path / "validation.csv").write_text("step,case\n4,a\n4,mean\n8,a\n")
    RunLog(tmp_path, 4)
    assert (tmp_path / "log.csv").read_text().split() == ["step,stage", "2,fit", "4,fit"]
    assert (tmp_path / "validation.csv").read_text().split() == ["step,case", "4,a", "4,mean"]


def test_the_log_says_which_share_of_the_time_was_waited_for_patches(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(run_log.time, "monotonic", lambda: clock[0])

    def batches():
        for _ in range(2):
            clock[0] += 1
            yield None

    log = RunLog(tmp_path, 0)
    for _, norm in zip(log.timed(batches()), (2.0, math.nan)):
        clock[0] += 3
        log.step(0.5, norm)
        clock[0] += 100  # a checkpoint is no part of a step
    log.write(2, "one", 0.1)
    (row,) = rows_of(tmp_path / "log.csv")
    assert (row["waited"], row["seconds_a_step"]) == ("0.25", "4.0")
    assert (row["loss"], row["gradient_norm"], row["skipped"]) == ("0.5", "2.0", "1")


def test_figures_of_a_step_that_is_judged_again_replace_the_old_ones(tmp_path):
    for tld in (0.4, 0.5):
        RunLog(tmp_path, 3).write_validation(3, {"a": {"tld": tld}}, {"tld": tld})
    RunLog(tmp_path, 3).write_validation(4, {"a": {"tld": 0.6}}, {"tld": 0.6})
    assert read_validation(tmp_path) == {3: {"a": {"tld": 0.5}}, 4: {"a": {"tld": 0.6}}}


def test_a_table_that_a_full_disk_left_empty_gets_its_first_line_again(tmp_path):
    (tmp_path / "validation.csv").touch()
    assert read_validation(tmp_path) == {}
    RunLog(tmp_path, 3).write_validation(3, {"a": {"tld": 0.5}}, {"tld": 0.5})
    assert read_validation(tmp_path) == {3: {"a": {"tld": 0.5}}}
    (tmp_path / "validation.csv").write_text("3,a,0.5\n4,a,0.6\n")
    assert read_validation(tmp_path) == {}


class _Failing(torch.utils.data.Dataset):
    """Batches that cannot be read."""

    def __getitem__(self, step: int):
        raise AirwaySegError("ct.nrrd does not exist.")


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_worker_cannot_read_is_said_in_one_sentence(workers):
    with pytest.raises(AirwaySegError) as caught:
        list(steps.loader(_Failing(), range(2), workers, torch.device("cpu"), ahead=1))
    assert str(caught.value) == "ct.nrrd does not exist."


def test_the_number_of_steps_that_a_run_has_may_be_given_when_it_is_resumed(a_data_folder, tmp_path):
    of_recipe = load_recipe("default").stages[0].steps
    usual = replace(TINY, steps=None, steps_scale=2 / of_recipe)
    fit([a_data_folder], tmp_path / "run", usual, silent)
    fit([a_data_folder], tmp_path / "run", replace(usual, steps=of_recipe), silent, resume=True)
    with pytest.raises(AirwaySegError, match="of a training with another --rate"):
        fit([a_data_folder], tmp_path / "run", replace(usual, steps=of_recipe, rate=1e-5), silent, resume=True)
