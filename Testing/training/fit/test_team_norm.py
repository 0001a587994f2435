"""Batch normalisation over several processes gives what one process gives: values, gradients, running statistics."""

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from AirwaySegTraining.distributed import Team
from AirwaySegTraining.fit import loop
from AirwaySegTraining.fit.team_norm import TeamBatchNorm, with_team_norm

PROGRAM = """if True:
    import os, sys, torch
    from torch import distributed
    from AirwaySegTraining.fit.team_norm import with_team_norm
    from test_team_norm import a_network, patches
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    rank, net = int(os.environ["RANK"]), with_team_norm(a_network())
    mine = patches()[2 * rank : 2 * rank + 2].requires_grad_()
    out = net(mine)
    (out**3).sum().backward()
    gradients = [weight.grad for weight in net.parameters()]
    for gradient in gradients:
        distributed.all_reduce(gradient)
    if rank == 0:
        torch.save([out.detach(), mine.grad, *gradients, *net.buffers()], sys.argv[1])
    distributed.destroy_process_group()
"""


def a_network():
    """Two convolutions with batch normalisation, float64."""
    torch.manual_seed(1)
    parts = [nn.Conv3d(1, 3, 1), nn.BatchNorm3d(3), nn.Tanh(), nn.Conv3d(3, 2, 1), nn.BatchNorm3d(2)]
    return nn.Sequential(*parts).double()


def patches():
    """Four patches that differ much from each other."""
    generator = torch.Generator().manual_seed(2)
    steps = torch.arange(1, 5, dtype=torch.float64).reshape(4, 1, 1, 1, 1)
    return torch.rand(4, 1, 2, 3, 4, generator=generator, dtype=torch.float64) * steps + steps


def test_two_processes_normalise_as_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])
    shared = {**os.environ, "PYTHONPATH": path, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = [sys.executable, "-c", PROGRAM, str(tmp_path / "found.pt")]
    processes = [subprocess.Popen(words, env={**shared, "RANK": str(rank)}) for rank in range(2)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    net, every = a_network(), patches().requires_grad_()
    out = net(every)
    (out**3).sum().backward()
    expected = [out[:2].detach(), every.grad[:2], *(weight.grad for weight in net.parameters()), *net.buffers()]
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_the_parameters_stay_the_same_objects_and_evaluation_needs_no_other_process():
    plain = a_network()
    expected = plain.eval()(patches())
    weights = list(plain.parameters())
    net = with_team_norm(plain)
    assert sum(isinstance(module, TeamBatchNorm) for module in net.modules()) == 2
    assert all(one is other for one, other in zip(net.parameters(), weights, strict=True))
    assert torch.equal(net.eval()(patches()), expected)
    assert set(net.state_dict()) == set(a_network().state_dict())
    with pytest.raises(ValueError, match="process group"):
        net.train()(patches())


def test_several_processes_on_cpus_train_with_it(monkeypatch):
    monkeypatch.setattr(loop, "DistributedDataParallel", lambda net, device_ids: net)
    for size, replaced in ((1, 0), (2, 2)):
        run = SimpleNamespace(net=a_network())
        net = loop.parallel(run, Team(0, size, torch.device("cpu")))
        assert net is run.net and sum(isinstance(module, TeamBatchNorm) for module in net.modules()) == replaced
