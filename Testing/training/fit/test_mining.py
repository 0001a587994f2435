"""Online hard mining: which patches are trained on once more, when, and that a resumed run takes the same."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from AirwaySegLib.errors import Cancelled
from AirwaySegLib.networks.weights import load_weights
from AirwaySegLib.progress import silent
from AirwaySegTraining.data.cases import prepared_case
from AirwaySegTraining.fit import steps
from AirwaySegTraining.fit.loop import fit
from AirwaySegTraining.fit.mining import Miner, hardest
from AirwaySegTraining.fit.patches import Batches, Source
from AirwaySegTraining.fit.recipes import load_recipe
from AirwaySegTraining.fit.settings import FitSettings

STAGE = replace(load_recipe("tang").stages[1], patch=32, batch=2, mined_every=4, mined=0.5, sampling={"random": 1.0})


def a_miner(losses=None, begins=10):
    return Miner(STAGE, begins, seed=3, losses={} if losses is None else losses)


def trained(miner, steps, loss):
    """Go through the steps as a training does; what each hard step shows, by the step."""
    shown = {}
    for part in miner.parts(steps):
        for step in part:
            if miner.is_hard(step):
                shown[step] = [miner.chosen[step, number] for number in range(STAGE.batch)]
            else:
                assert (step, 0) not in miner.chosen
                miner.losses[step] = [loss(step, number) for number in range(STAGE.batch)]
    return shown


def test_the_worst_patches_come_first_equal_ones_in_their_order_and_what_is_no_number_last():
    losses = {5: [0.3, 0.9], 4: [0.9, math.nan], 6: [0.1, 0.2]}
    assert hardest(losses, 4) == [(4, 0), (5, 1), (5, 0), (6, 1)]
    assert hardest(losses, 9)[-1] == (4, 1) and len(hardest(losses, 9)) == 6


def test_rounds_are_counted_from_the_first_step_of_the_stage_and_cut_where_hard_steps_begin_and_end():
    miner = a_miner()
    assert [step for step in range(10, 24) if miner.is_hard(step)] == [14, 15, 20, 21]
    assert list(a_miner().parts(range(10, 23))) == [
        range(10, 14),
        range(14, 16),
        range(16, 20),
        range(20, 22),
        range(22, 23),
    ]
    assert list(a_miner().parts(range(12, 15))) == [range(12, 14), range(14, 15)]
    assert list(a_miner().parts(range(11, 11))) == []


def test_each_round_shows_the_worst_patches_of_its_own_steps_once_more_each_of_them_once():
    def loss(step, number):
        return {11: 0.9, 12: 0.8}.get(step, 0.1) + 0.01 * number if step < 16 else step / 100 + number

    shown = trained(a_miner(), range(10, 22), loss)
    assert sorted(shown[14] + shown[15]) == [(11, 0), (11, 1), (12, 0), (12, 1)]
    assert sorted(shown[20] + shown[21]) == [(16, 1), (17, 1), (18, 1), (19, 1)]
    orders = {tuple(trained(Miner(STAGE, 10, seed, {}), range(10, 16), loss)[14]) for seed in range(8)}
    assert len(orders) > 3, "their order depends on the seed"


@pytest.mark.parametrize("stopped", [12, 14, 15, 16, 19])
def test_a_run_that_goes_on_anywhere_in_a_round_shows_what_an_unbroken_one_would_have(stopped):
    def loss(step, number):
        return math.sin(7 * step + 3 * number)

    whole = trained(a_miner(), range(10, 22), loss)
    miner = a_miner()
    before = trained(miner, range(10, stopped), loss)
    kept = {step: list(of_batch) for step, of_batch in miner.losses.items()}  # as a checkpoint holds them
    assert before | trained(a_miner(kept), range(stopped, 22), loss) == whole


def test_a_hard_step_shows_the_very_patches_with_their_weights_whichever_process_shows_them(a_tube):
    case = prepared_case(a_tube, ("rate",))
    source = Source([[case]], np.ones(1), ((-1024.0, 1024.0), (-1000.0, 500.0)), seed=3)
    fresh = {step: Batches(source, STAGE)[step] for step in range(10, 14)}
    losses = {10: [0.1, 0.9], 11: [0.2, 0.8], 12: [0.3, 0.7], 13: [0.4, 0.6]}
    miner = a_miner(losses)
    assert next(miner.parts(range(14, 16))) == range(14, 16)
    for rank in range(2):
        own = Batches(source, STAGE, rank, 2, miner)[14]
        step, number = miner.chosen[14, rank]
        assert number == 1
        for name, part in own.items():
            assert torch.equal(part[0], fresh[step][name][number]), name


RECIPE = """
[network]
norm = "instance"
[[stage]]
name = "mined"
steps = 7
patch = 32
batch = 2
optimizer = "sgd"
rate = 0.05
weights = ["imbalance"]
weight_power = [2, 3]
mined_every = 3
mined = 0.34
[[stage.loss]]
term = "tang"
alpha = 0.2
exponent = 0.7
encoder = 0.5
[[stage.loss]]
term = "dice"
share = 0.5
[stage.sampling]
random = 1.0
"""


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_training_shows_the_worst_patches_again_and_goes_on_bit_for_bit_wherever_it_stopped(a_tube, tmp_path):
    (tmp_path / "mined.toml").write_text(RECIPE)
    settings = FitSettings(
        recipe=str(tmp_path / "mined.toml"),
        device="cpu",
        precision="float32",
        workers=0,
        checkpoint_every=1,
        validation=0,
    )
    data = a_tube.parents[1]
    whole = fit([data], tmp_path / "whole", settings, silent)
    state = torch.load(tmp_path / "whole" / "last.pt", weights_only=True)
    assert sorted(state["losses"]) == [4, 5, 6], "those of the last round's own patches"
    expected = load_weights(str(whole))[0].state_dict()
    for stopped in (2, 3):  # before and at the hard step of the first round

        def stop(stage, done, _total, stopped=stopped):
            if (stage, done) == ("train", stopped + 1):
                raise Cancelled("stopped")

        output = tmp_path / f"stopped after {stopped}"
        with pytest.raises(Cancelled):
            fit([data], output, settings, stop)
        mended = load_weights(str(fit([data], output, replace(settings, workers=1), silent, resume=True)))[0]
        assert all(torch.equal(value, expected[name]) for name, value in mended.state_dict().items()), stopped
    plain = tmp_path / "plain.toml"
    plain.write_text(RECIPE.replace("mined_every = 3\nmined = 0.34\n", ""))
    other = load_weights(str(fit([data], tmp_path / "plain", replace(settings, recipe=str(plain)), silent)))[0]
    assert not all(torch.equal(value, expected[name]) for name, value in other.state_dict().items())


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_training_of_so_many_minutes_mines_too_and_resumes_bit_for_bit(a_tube, tmp_path, monkeypatch):
    now = [0.0]

    def twenty_seconds_a_step():
        now[0] += 20.0
        return now[0]

    def stop_at(seconds):
        def stop(stage, done, _total):
            if (stage, done) == ("train", seconds):
                raise Cancelled("stopped")

        return stop

    monkeypatch.setattr(steps, "time", SimpleNamespace(monotonic=twenty_seconds_a_step))
    (tmp_path / "mined.toml").write_text(RECIPE)
    (tmp_path / "plain.toml").write_text(RECIPE.replace("mined_every = 3\nmined = 0.34\n", ""))
    mined, plain = (
        FitSettings(
            recipe=str(tmp_path / name), minutes=3.0, device="cpu", precision="float32", workers=0, validation=0
        )
        for name in ("mined.toml", "plain.toml")
    )
    data = a_tube.parents[1]
    expected = load_weights(str(fit([data], tmp_path / "whole", mined, silent)))[0].state_dict()
    state = torch.load(tmp_path / "whole" / "last.pt", weights_only=True)
    assert state["step"] == 9, "more than the recipe's 7 steps"
    assert sorted(state["losses"]) == [8], "those of the third round"
    for seconds in (100, 140):  # a checkpoint a minute: resumed at step 3, which is hard, and at step 6
        output = tmp_path / f"stopped after {seconds} s"
        with pytest.raises(Cancelled):
            fit([data], output, mined, stop_at(seconds))
        resumed = load_weights(str(fit([data], output, mined, silent, resume=True)))[0].state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in resumed.items()), seconds
    other = load_weights(str(fit([data], tmp_path / "plain", plain, silent)))[0].state_dict()
    assert not all(torch.equal(value, expected[name]) for name, value in other.items())


@pytest.mark.usefixtures("one_thread")
def test_a_run_begun_before_recipes_could_mine_goes_on(a_tube, tmp_path):
    settings = FitSettings(
        steps=2, patch=32, batch=1, norm="instance", device="cpu", workers=0, checkpoint_every=1, validation=0
    )
    fit([a_tube.parents[1]], tmp_path / "run", replace(settings, steps=1), silent)
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    (stage,) = state["recipe"]["stages"]
    for key in ("weight_power", "mined", "mined_every"):
        del stage[key]
    stage["weights"] = ()
    for term in stage["loss"]:
        del term["encoder"]
    del state["losses"]
    torch.save(state, tmp_path / "run" / "last.pt")
    assert (
        load_weights(str(fit([a_tube.parents[1]], tmp_path / "run", settings, silent, resume=True)))[1].provenance[
            "steps"
        ]
        == 2
    )


@pytest.fixture
def a_tube(tmp_path):
    """A case of one dark tube in noise."""
    folder = tmp_path / "cases" / "tube"
    folder.mkdir(parents=True)
    label = np.zeros((32, 40, 40), np.uint8)
    label[:, 10:14, 11:15] = 1
    noise = np.random.default_rng(0).normal(-100, 50, label.shape)
    ct = np.where(label == 1, -950, noise).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(ct), str(folder / "ct.nrrd"))
    sitk.WriteImage(sitk.GetImageFromArray(label), str(folder / "label.nrrd"))
    return folder
