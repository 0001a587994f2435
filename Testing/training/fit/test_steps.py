"""The steps that both trainings share: update, learning rate, and which checkpoints a training refuses."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.networks.connection_net import Connector
from AirwaySegLib.networks.weights import ModelInfo
from AirwaySegTraining.connection.train import BreakageRun, BreakageSettings
from AirwaySegTraining.fit.checkpoint import Run
from AirwaySegTraining.fit.settings import FitSettings
from AirwaySegTraining.fit.steps import cosine, restore_statistics, risen, update

CPU = torch.device("cpu")


def a_line() -> SimpleNamespace:
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 1.0)
    return SimpleNamespace(net=net, optimizer=torch.optim.SGD(net.parameters(), lr=0.5))


def test_an_update_clips_the_gradients_and_tells_their_norm_before() -> None:
    run = a_line()
    assert update(run, 8 * run.net.weight.sum(), clip=2.0) == (8.0, 8.0)
    assert float(run.net.weight.detach()) == pytest.approx(1 - 0.5 * 2, abs=1e-5)


def test_an_update_takes_the_sum_of_the_gradients_of_all_processes_but_tells_the_loss_itself() -> None:
    run = a_line()
    assert update(run, run.net.weight.sum(), clip=100.0, processes=3) == (1.0, 3.0)


def test_gradients_that_are_not_finite_change_nothing() -> None:
    run = a_line()
    loss, norm = update(run, (run.net.weight * float("inf")).sum(), clip=2.0)
    assert loss == norm == float("inf") and float(run.net.weight.detach()) == 1.0
    update(run, run.net.weight.sum(), clip=2.0)  # and the next step is as ever
    assert float(run.net.weight.detach()) == 0.5


def test_the_rate_rises_in_the_warm_up_and_falls_to_its_last_share() -> None:
    assert [risen(step, 4) for step in (0, 1, 3, 100)] == [0.25, 0.5, 1.0, 1.0] and risen(0, 0) == 1.0
    assert [cosine(done, 0.02) for done in (0, 0.5, 1)] == pytest.approx([1.0, 0.51, 0.02])


def a_breakage_run() -> BreakageRun:
    info = ModelInfo("run", Connector.in_channels, norm=Connector.norm, architecture="connector")
    return BreakageRun(Connector(), Connector(), info, BreakageSettings(), ["a case"], CPU)


def test_a_checkpoint_holds_all_that_a_run_needs_and_none_of_another_command_is_taken(tmp_path: Path) -> None:
    run, again = a_breakage_run(), a_breakage_run()
    run.step = 7
    run.save(tmp_path / "last.pt")
    again.load(tmp_path / "last.pt", CPU)
    assert again.step == 7 and [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert all(torch.equal(value, again.net.state_dict()[name]) for name, value in run.net.state_dict().items())
    recipe = FitSettings().full_recipe()
    fit = Run(run.net, run.average, run.info, FitSettings(), ["a case"], recipe)
    with pytest.raises(AirwaySegError, match="damaged or not a checkpoint of `fit`"):
        fit.load(tmp_path / "last.pt", CPU)


def test_statistics_that_overflowed_are_those_of_the_average_again() -> None:
    net, average = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    average(torch.randn(8, 2))
    net.running_var = torch.tensor([1.0, float("nan")])
    net.running_mean = torch.tensor([3.0, 4.0])
    restore_statistics(net, average)
    assert torch.equal(net.running_var, average.running_var)
    assert torch.equal(net.running_mean, torch.tensor([3.0, 4.0]))
