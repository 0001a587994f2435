"""Fine-tuning: corrected voxels count more, old knowledge is rehearsed, and nothing is called better without proof."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.masks.origin import CLICK, HAND
from AirwaySegLib.networks.weights import ModelInfo, list_weights, load_weights, save_weights
from AirwaySegLib.networks.wingsnet import WingsNet
from AirwaySegLib.pipeline import load_model
from AirwaySegLib.progress import silent
from AirwaySegTraining.__main__ import main
from AirwaySegTraining.data.cases import prepared_case
from AirwaySegTraining.data.sampling import ADDED, REMOVED
from AirwaySegTraining.fit import finetune as finetuning
from AirwaySegTraining.fit import loop, rehearsal
from AirwaySegTraining.fit.finetune import finetune, verdict
from AirwaySegTraining.fit.patches import Batches, Source, case_maps, emphasis_of
from AirwaySegTraining.fit.recipes import Stage, Term, load_recipe
from AirwaySegTraining.fit.rehearsal import STEP_HU, make_rehearsal, rehearsal_cases, rehearsal_file, remembered
from AirwaySegTraining.fit.run_log import read_validation
from AirwaySegTraining.fit.settings import FitSettings
from AirwaySegTraining.fit.stage_loss import stage_loss
from AirwaySegTraining.fit.validation import doubt_about_labels
from AirwaySegTraining.simulator.simulate import SimulatedCase

TINY = FitSettings(
    recipe="finetune",
    steps=2,
    batch=1,
    patch=32,
    workers=0,
    checkpoint_every=2,
    validate_every=2,
    validation=0.5,
    rehearsal=0.5,
    device="cpu",
    precision="float32",
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def a_users_folder(monkeypatch, tmp_path):
    """Weights that are listed do not go into the folder of whoever runs the tests."""
    monkeypatch.setenv("AIRWAYSEG_MODELS", str(tmp_path / "models"))


def a_tube(shape=(40, 40, 40)):
    label = np.zeros(shape, np.uint8)
    label[:, 18:22, 18:22] = 1
    return np.where(label == 1, -950, -100).astype(np.int16), label


@pytest.fixture
def a_data_folder(tmp_path):
    """Two patients with a tube, of which an end was corrected."""
    for k in range(2):
        ct, label = a_tube()
        folder = tmp_path / "data" / "cases" / f"case-{k}"
        folder.mkdir(parents=True)
        edited = label.copy()
        edited[:30] = 0
        for name, array in (("ct", ct), ("label", label), ("edited", edited)):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / f"{name}.nrrd"))
    return tmp_path / "data"


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "start.safetensors"
    info = ModelInfo("start", norm="batch", spacing_mm_min=(0.5, 0.6, 0.6), spacing_mm_max=(2, 0.9, 0.9))
    save_weights(path, WingsNet(1, 1, "batch"), info)
    return str(path)


@pytest.fixture
def small_patches(tmp_path, monkeypatch):
    """Four simulated patients of four patches of a tube each, instead of the bundled ones."""
    ct, label = a_tube()
    monkeypatch.setattr(rehearsal, "SIDE", 32)
    case = SimulatedCase(ct, label, (1.0, 0.7, 0.7), {}, noise_limit=np.where(label == 1, 47, 0).astype(np.uint8))
    monkeypatch.setattr(rehearsal, "simulate_case", lambda seed, clean: case)
    path = tmp_path / "rehearsal.npz"
    make_rehearsal(path, 4, 1, silent)
    for module in (loop, finetuning):
        monkeypatch.setattr(module, "rehearsal_file", lambda: path)
    return path


# Corrected voxels ----------------------------------------------------------------------------------------------------


def test_a_corrected_voxel_counts_as_often_as_the_recipe_says():
    logits = torch.tensor([0.3, -0.2, 0.8, -1.0]).reshape(1, 1, 2, 2, 1).requires_grad_()
    label = torch.tensor([1, 0, 1, 2], dtype=torch.uint8).reshape(1, 1, 2, 2, 1)
    emphasis = torch.tensor([4.0, 1, 1, 4]).reshape(1, 1, 2, 2, 1)
    p = 1 / (1 + np.exp(-logits.detach().numpy().ravel().astype(float)))
    expected = {
        "dice": 1 - (2 * (4 * p[0] + p[2]) + 1) / (4 * (p[0] + 1) + p[1] + (p[2] + 1) + 1),
        "cross_entropy": -(4 * np.log(p[0]) + np.log(1 - p[1]) + np.log(p[2])) / 6,
    }
    for name, value in expected.items():
        stage = Stage("one", 1, (Term(name),), {"random": 1.0}, edited=4)
        loss = stage_loss(stage, logits, {"label": label, "emphasis": emphasis})
        assert float(loss.detach()) == pytest.approx(value, rel=1e-5), name
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient.ravel()[3] == 0, "a voxel that is left out"


def test_patches_say_which_voxels_were_corrected(a_data_folder):
    stage = replace(load_recipe("finetune").stages[0], patch=32, batch=6, rotation_degrees=0)
    case = prepared_case(a_data_folder / "cases" / "case-0", tuple(case_maps(stage)))
    batch = Batches(Source([[case]], np.array([1.0]), ((-1000.0, 600.0),), seed=3), stage)[0]
    emphasis, label = batch["emphasis"], batch["label"]
    assert set(emphasis.unique().tolist()) == {1.0, stage.edited}
    assert (label[emphasis > 1] == 1).all(), "only airway was corrected here"
    assert 0 < int((emphasis > 1).sum()) < int((label == 1).sum())


def test_what_was_clicked_painted_or_removed_can_count_differently():
    stage = replace(load_recipe("finetune").stages[0], edited_by={"click": 6.0, "removed": 2.0})
    table = emphasis_of(stage)
    assert table[[0, CLICK, REMOVED, HAND, ADDED]].tolist() == [1, 6, 2, stage.edited, stage.edited]
    assert replace(stage, edited=1.0).emphasises and not replace(stage, edited=1.0, edited_by={}).emphasises
    for wrong, words in (({"guess": 2.0}, "edited_by 'guess' is unknown"), ({"hand": 0.0}, "weight of hand is 0")):
        with pytest.raises(AirwaySegError, match=words):
            replace(load_recipe("finetune"), stages=(replace(stage, edited_by=wrong),))


def test_losses_that_cannot_weigh_corrected_voxels_are_refused():
    with pytest.raises(AirwaySegError, match="edited goes with the losses dice, cross_entropy, general_union"):
        recipe = load_recipe("finetune")
        replace(recipe, stages=(replace(recipe.stages[0], loss=(Term("cl_dice"),)),))


# Rehearsal -----------------------------------------------------------------------------------------------------------


def test_bundled_patches_have_airways_air_and_tissue_and_hold_patients_out():
    trained, asked = rehearsal_cases(rehearsal_file())
    assert len(trained) == 20 and len(asked) == 4
    assert not {case.patient for case in trained} & {case.patient for case in asked}
    with_airway = [case for case in trained + asked if (case.label == 1).sum() > 1000]
    assert len(with_airway) >= 14
    for case in with_airway:
        assert np.median(case.ct[case.label == 1]) < -750 and case.ct.shape == (96, 96, 96)
    assert max(case.ct.max() for case in trained) > 200


def test_a_patch_goes_to_disk_and_back_within_half_a_step(small_patches):
    trained, asked = rehearsal_cases(small_patches, wanted=("distance",))
    assert (len(trained), len(asked)) == (12, 4)
    ct, _ = a_tube()
    for case in trained:
        assert set(np.unique(case.label)) == {0, 1}
        for value, hu in ((1, -950), (0, -100)):
            assert np.abs(case.ct[case.label == value].astype(int) - hu).max() <= STEP_HU / 2
        assert case.maps["distance"].whole().max() > 0
        assert ((case.noise_limit.whole() == 47) == (case.label == 1)).all()


def test_patches_without_a_noise_limit_are_read(small_patches, tmp_path):
    with np.load(small_patches) as stored:
        np.savez(tmp_path / "former.npz", **{name: stored[name] for name in stored if name != "noise_limit"})
    trained, _ = rehearsal_cases(tmp_path / "former.npz")
    assert len(trained) == 12 and all(case.noise_limit is None for case in trained)


def test_a_damaged_file_of_patches_gives_a_sentence(tmp_path):
    (tmp_path / "rehearsal.npz").write_bytes(b"PK no zip")
    with pytest.raises(AirwaySegError, match="missing or damaged"):
        rehearsal_cases(tmp_path / "rehearsal.npz")


def test_what_is_remembered_is_counted_over_all_patches(weights, small_patches):
    class Marks:
        """A backend that marks what is dark: the tube, and one more slice of air beside it."""

        def run(self, windows):
            probability = (windows <= 0.3).astype(np.float32)
            probability[..., :2, :] = 1
            return probability

    _, asked = rehearsal_cases(small_patches)
    model = replace(load_model(weights), backend=Marks())
    numbers = remembered(model, asked, "cpu", "float32", silent)
    assert numbers["tld"] == 1
    tube, slab = [sum(count) for count in zip(*((int((case.label == 1).sum()), 2 * 32 * 32) for case in asked))]
    # The noise of a scanner moves the tube's surface a little; where the tube ends at the slab, that is near it.
    assert numbers["near"] == pytest.approx(tube / (tube + slab), rel=0.15)


def test_the_patches_are_looked_at_in_the_runs_precision_whatever_the_weights_say(weights, small_patches, monkeypatch):
    _, asked = rehearsal_cases(small_patches)
    used, real = set(), torch.autocast

    def autocast(device, dtype, enabled):
        used.add(enabled)
        return real(device, dtype, enabled=False)

    monkeypatch.setattr(torch, "autocast", autocast)
    model = load_model(weights)
    for flag in (True, False):
        remembered(replace(model, info=replace(model.info, bfloat16=flag)), asked[:1], "cpu", "float32", silent)
    assert used == {False}
    remembered(model, asked[:1], "cpu", "bfloat16", silent)
    assert used == {False, True}


# The whole ----------------------------------------------------------------------------------------------------------


def scores(tld):
    return {"tld": tld, "bd": tld, "precision": tld, "dsc": tld}


def give(monkeypatch, *values):
    """Let the validations find these tree lengths, one after the other."""
    numbers = iter(values)
    monkeypatch.setattr(loop, "validate", lambda model, case, device: scores(next(numbers)))
    monkeypatch.setattr(finetuning, "remembered", lambda *asked: {"tld": 0.8, "near": 0.9})


def test_better_weights_are_listed_under_their_name(a_data_folder, weights, small_patches, tmp_path, monkeypatch):
    give(monkeypatch, 0.5, 0.7)
    settings = replace(TINY, start_from=weights)
    outcome = finetune([a_data_folder], tmp_path / "run", settings, silent, name="our scanner")
    assert outcome.better and outcome.name == "our scanner" and "rose by 20.0 points" in outcome.reason
    assert list_weights()["our scanner"] == tmp_path / "models" / "our scanner.safetensors"
    _, info, _ = load_weights("our scanner")
    assert info.name == "our scanner" and info.provenance["held_out"]["after"] == outcome.after
    # The scans that the weights knew before are still among those they are for.
    assert info.spacing_mm_min == (0.5, 0.6, 0.6) and info.spacing_mm_max == (2, 1, 1)
    kept = json.loads((tmp_path / "run" / "finetune.json").read_text())
    assert kept["better"] is True and kept["verdict"] == "better" and kept["after"] == outcome.after
    assert "tree length (TLD) %                 50.0    70.0" in outcome.text()
    with pytest.raises(AirwaySegError, match="weights called 'our scanner' already"):
        finetune([a_data_folder], tmp_path / "again", settings, silent, name="our scanner")


def test_weights_that_are_no_better_are_not_listed(a_data_folder, weights, small_patches, tmp_path, monkeypatch):
    give(monkeypatch, 0.7, 0.7)
    outcome = finetune([a_data_folder], tmp_path / "run", replace(TINY, start_from=weights), silent, name="worse")
    assert not outcome.better and outcome.name is None and "worse" not in list_weights()
    assert outcome.weights == str(tmp_path / "run" / "model.safetensors") and (tmp_path / "run").exists()
    assert outcome.text().endswith("changed by +0.0 points only (a single case says little about others).")


def test_one_patient_gives_weights_but_no_verdict(a_data_folder, weights, small_patches, tmp_path, capsys):
    command = ["cases", "remove", str(a_data_folder), "case-1"]
    assert main(command) == 0
    command = ["finetune", "--weights", weights, "--data", str(a_data_folder), "-o", str(tmp_path / "run")]
    command += ["--steps", "1", "--batch", "1", "--patch", "32", "--workers", "0", "--device", "cpu"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "Unknown: no case was held out" in out and "not listed" in out
    about = json.loads((tmp_path / "run" / "finetune.json").read_text())
    assert about["verdict"] == "unknown" and about["better"] is False
    assert main([*command, "--minutes", "1"]) == 2
    assert "--minutes says how long to train: leave out --steps" in capsys.readouterr().err


def test_to_follow_wider_labels_is_better_though_precision_falls():
    before = {"one": {"tld": 0.974, "bd": 0.974, "precision": 0.993, "dsc": 0.799}}
    after = {"one": {"tld": 0.997, "bd": 0.993, "precision": 0.902, "dsc": 0.919}}
    kept = {"tld": 0.9, "near": 0.9}
    assert verdict(before, after, kept, kept) == (
        "better",
        "on the one held-out case the mean of TLD, BD, precision, DSC rose by 1.8 points "
        "(a single case says little about others).",
    )
    assert verdict(before, {"one": {**after["one"], "dsc": 0.81}}, kept, kept)[0] == "not better"


def test_a_verdict_on_several_cases_says_how_far_they_are_apart():
    before, after = {"one": scores(0.5), "two": scores(0.6)}, {"one": scores(0.49), "two": scores(0.8)}
    kept = {"tld": 0.9, "near": 0.9}
    assert verdict(before, after, kept, kept) == (
        "better",
        "on the 2 held-out cases the mean of TLD, BD, precision, DSC rose by 9.5 points (by case from -1.0 to +20.0).",
    )


def test_forgetting_is_not_better():
    before, after = {"one": scores(0.5)}, {"one": scores(0.9)}
    old = {"tld": 0.9, "near": 0.9}
    assert verdict(before, after, old, {"tld": 0.895, "near": 0.9})[0] == "better"
    found, reason = verdict(before, after, old, {"tld": 0.87, "near": 0.95})
    assert found == "not better" and reason.startswith("it forgot: tree length")
    found, reason = verdict(before, after, old, {"tld": 0.95, "near": 0.88})
    assert found == "not better" and reason.startswith("it forgot: voxels near airways")


def test_why_there_is_no_verdict_is_said_as_it_is():
    found, reason = verdict({}, {}, {}, {})
    assert found == "unknown" and "two patients and a --validation above 0" in reason
    found, reason = verdict({}, {"one": {}}, {}, {})
    assert found == "unknown" and reason.startswith("validation.csv lacks figures of held-out cases")


def test_other_weights_are_refused_on_resume_and_those_of_before_named(a_data_folder, weights, small_patches, tmp_path):
    settings = replace(TINY, start_from=weights, validation=0)
    finetune([a_data_folder], tmp_path / "run", settings, silent)
    again = shutil.copy(weights, tmp_path / "again.safetensors")
    with pytest.raises(AirwaySegError) as caught:
        finetune([a_data_folder], tmp_path / "run", replace(settings, start_from=str(again)), silent, resume=True)
    assert f"another --start-from (--weights of `finetune`): it began with {weights}" in str(caught.value)


def test_a_stopped_fine_tuning_goes_on_with_what_it_knew_before(
    a_data_folder, weights, small_patches, tmp_path, monkeypatch
):
    give(monkeypatch, 0.5, 0.6, 0.7)
    settings = replace(TINY, start_from=weights, steps=4)

    def stop(kind, done, total):
        if kind == "train" and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune([a_data_folder], tmp_path / "run", settings, stop)
    assert set(read_validation(tmp_path / "run")) == {0, 2}
    outcome = finetune([a_data_folder], tmp_path / "run", settings, silent, resume=True)
    (case,) = outcome.after
    assert outcome.before[case]["tld"] == 0.5 and outcome.after[case]["tld"] == 0.7


def test_a_better_fine_tuning_that_is_run_again_is_not_in_its_own_way(
    a_data_folder, weights, small_patches, tmp_path, monkeypatch
):
    give(monkeypatch, 0.5, 0.7)
    settings = replace(TINY, start_from=weights)
    finetune([a_data_folder], tmp_path / "run", settings, silent, name="mine")
    (tmp_path / "run" / "finetune.json").unlink()
    outcome = finetune([a_data_folder], tmp_path / "run", settings, silent, name="mine", resume=True)
    assert outcome.better and outcome.name == "mine" and (tmp_path / "run" / "finetune.json").exists()


def test_what_is_stopped_before_its_first_step_can_be_continued_and_is_not_overwritten(
    a_data_folder, weights, small_patches, tmp_path, monkeypatch
):
    give(monkeypatch, 0.5, 0.7)

    def stop(kind, done, total):
        if kind == "train":
            raise KeyboardInterrupt

    settings = replace(TINY, start_from=weights)
    with pytest.raises(KeyboardInterrupt):
        finetune([a_data_folder], tmp_path / "run", settings, stop)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    with pytest.raises(AirwaySegError, match="already holds a run; resume it with --resume"):
        finetune([a_data_folder], tmp_path / "run", settings, silent)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()} == kept
    outcome = finetune([a_data_folder], tmp_path / "run", settings, silent, resume=True)
    assert [numbers["tld"] for numbers in outcome.before.values()] == [0.5] and outcome.better


def test_data_that_is_not_there_is_refused_before_anything_is_computed(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(finetuning, "load_model", lambda name: pytest.fail("the weights were loaded"))
    monkeypatch.setattr(finetuning, "remembered", lambda *asked: pytest.fail("something was computed"))
    with pytest.raises(AirwaySegError, match="No case found"):
        finetune([tmp_path / "nowhere"], tmp_path / "run", replace(TINY, start_from=weights), silent)
    assert not (tmp_path / "run").exists()


def test_a_few_steps_are_no_warm_up_alone():
    (stage,) = replace(TINY, start_from="default", steps=12).full_recipe().stages
    rates = [loop.rate_at(step, stage) for step in range(12)]
    assert max(rates) > 0.95 * stage.rate and rates.index(max(rates)) <= 2
    (longer,) = replace(TINY, start_from="default", steps=4000).full_recipe().stages
    assert longer.warm_up == load_recipe("finetune").stages[0].warm_up


def test_weights_that_do_badly_before_the_training_are_no_secret(
    a_data_folder, weights, small_patches, tmp_path, monkeypatch, caplog
):
    give(monkeypatch, 0.08, 0.7)
    outcome = finetune([a_data_folder], tmp_path / "run", replace(TINY, start_from=weights), silent)
    (case,) = outcome.before
    assert outcome.doubt.startswith(
        f"Before the training the weights reached a DSC of 8 % on {case}: does the label fit"
    )
    assert outcome.doubt in outcome.text() and outcome.doubt in caplog.messages
    assert outcome.doubt in (tmp_path / "run" / "run.log").read_text()
    assert json.loads((tmp_path / "run" / "finetune.json").read_text())["doubt"] == outcome.doubt
    assert doubt_about_labels({"good": scores(0.9)}) is None


def test_weights_in_the_runs_own_folder_and_unusable_folders_are_refused_before_the_training(
    a_data_folder, weights, small_patches, tmp_path, monkeypatch
):
    inside = replace(TINY, start_from=weights)
    with pytest.raises(AirwaySegError, match="holds the initial weights"):
        finetune([a_data_folder], tmp_path, inside, silent, name="x")
    monkeypatch.setenv("AIRWAYSEG_MODELS", weights)
    with pytest.raises(AirwaySegError, match="is a file"):
        finetune([a_data_folder], tmp_path / "run", inside, silent)
    assert not (tmp_path / "run").exists()


def test_simulated_patches_have_their_share_beside_the_data_folders():
    groups = [[None] * 3, [None], [None] * 20]
    settings = replace(TINY, rehearsal=0.4)
    assert loop.group_shares(groups, settings).tolist() == pytest.approx([0.45, 0.15, 0.4])
    assert loop.group_shares(groups, replace(settings, shares=(1, 2))).tolist() == pytest.approx([0.2, 0.4, 0.4])
    with pytest.raises(AirwaySegError, match="patches are 96 voxels wide"):
        loop.fit([], None, replace(settings, patch=128, start_from="default"), silent)


def test_numbers_that_json_does_not_know_are_null(a_data_folder, weights, small_patches, tmp_path, monkeypatch):
    give(monkeypatch, float("nan"), 0.7)
    outcome = finetune([a_data_folder], tmp_path / "run", replace(TINY, start_from=weights), silent, name="found")
    (case,) = outcome.before
    assert json.loads((tmp_path / "run" / "finetune.json").read_text())["before"][case]["precision"] is None
    assert re.search(r"precision % +- +70\.0", outcome.text())
