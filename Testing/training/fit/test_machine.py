"""What a training asks of its machine: which arithmetic is fast there, and how many worker processes it may start."""

import logging
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.networks import device_plan
from AirwaySegLib.networks.device_plan import has_bfloat16
from AirwaySegTraining.__main__ import _parser
from AirwaySegTraining.connection.train import BreakageSettings
from AirwaySegTraining.distributed import Team
from AirwaySegTraining.fit import machine
from AirwaySegTraining.fit.machine import settled, usual_workers, worker_options
from AirwaySegTraining.fit.settings import FitSettings

ALONE = Team(0, 1, torch.device("cpu"))


def give_processor(monkeypatch, capability, flag):
    """Let PyTorch find a processor of this kind, with or without the instructions for bfloat16."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: flag, raising=False)


@pytest.mark.parametrize(
    ("capability", "flag", "fast"),
    [("AVX512", True, True), ("AVX512", False, False), ("AVX2", True, False), ("DEFAULT", False, False)],
)
def test_a_processor_is_asked_whether_it_computes_in_bfloat16(monkeypatch, capability, flag, fast):
    give_processor(monkeypatch, capability, flag)
    assert has_bfloat16("cpu") is fast


def test_a_processor_that_cannot_be_asked_computes_in_float32(monkeypatch):
    give_processor(monkeypatch, "AVX512", True)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert not has_bfloat16("cpu") and not has_bfloat16("mps")


def test_a_gpu_before_ampere_computes_in_float32(monkeypatch):
    for capability, fast in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert has_bfloat16("cuda") is has_bfloat16("cuda:1") is fast


@pytest.mark.parametrize("settings", [FitSettings(), BreakageSettings()])
def test_the_precision_is_the_machines_unless_it_is_given_or_a_run_goes_on(monkeypatch, settings, caplog):
    assert settings.precision == "auto"
    give_processor(monkeypatch, "AVX2", False)
    assert settled(settings, ALONE, None).precision == "float32" and not caplog.messages
    assert settled(settings, ALONE, "bfloat16").precision == "bfloat16"
    assert "in bfloat16, as it began, though this machine" in caplog.messages[0]
    assert settled(replace(settings, precision="bfloat16"), ALONE, None).precision == "bfloat16"
    assert caplog.records[1].levelno == logging.WARNING
    give_processor(monkeypatch, "AVX512", True)
    assert settled(settings, ALONE, None).precision == "bfloat16"
    assert settled(settings, ALONE, "float32").precision == "float32" and len(caplog.messages) == 2


def test_processes_on_different_machines_compute_in_the_same_precision(monkeypatch):
    give_processor(monkeypatch, "AVX512", True)
    monkeypatch.setattr(Team, "merged", lambda team, found: {**found, "1": False})
    assert settled(FitSettings(), ALONE, None).precision == "float32"


def test_every_training_takes_the_same_choices_of_precision(capsys):
    required = {"fit": [], "finetune": [], "breakage": []}
    for command in required:
        options = _parser().parse_args([command, "--data", "x", "-o", "y"])
        assert (options.precision, options.device, options.workers) == ("auto", "auto", None), command
        with pytest.raises(SystemExit):
            _parser().parse_args([command, "--data", "x", "-o", "y", "--precision", "half"])
        assert "--precision" in capsys.readouterr().err
    with pytest.raises(AirwaySegError, match="must be auto, bfloat16 or float32"):
        FitSettings(precision="half")


def test_workers_are_the_processors_that_are_left(monkeypatch):
    monkeypatch.setattr(machine, "CAN_FORK", True)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    for cpus, workers in ((1, 0), (2, 1), (4, 3), (64, 4)):
        monkeypatch.setattr(machine, "usable_cpus", lambda found=cpus: found)
        assert usual_workers() == workers == settled(FitSettings(), ALONE, None).workers
    assert settled(FitSettings(workers=9), ALONE, None).workers == 9
    assert worker_options(2, 4)["num_workers"] == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "32")  # of 64 processors each process has two
    assert usual_workers() == 1


def test_where_there_is_no_fork_there_are_no_workers(monkeypatch):
    monkeypatch.setattr(machine, "CAN_FORK", False)
    monkeypatch.setattr(machine, "usable_cpus", lambda: 8)
    assert usual_workers() == 0 and worker_options(3, 2) == {"num_workers": 0}


def test_the_connection_network_asks_the_processor_and_not_openvino(monkeypatch):
    from AirwaySegLib.repair import network_bridges

    assert network_bridges.has_bfloat16 is device_plan.has_bfloat16


FAULTS_OF_A_STEP = """
import resource, sys, torch
from AirwaySegTraining.distributed import Team
from AirwaySegTraining.fit.machine import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory(Team(0, 1, torch.device("cpu")))
for step in range(20):
    if step == 10:  # the first steps find room between what else lies in memory
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64, 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library is glibc on Linux only")
def test_the_memory_of_a_step_is_used_again_in_the_next():
    faults = {}
    for kind in ("usual", "kept"):
        command = [sys.executable, "-c", FAULTS_OF_A_STEP, kind]
        faults[kind] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert faults["usual"] > 1000  # ten times 256 MiB in pages of 2 MiB at most
    assert faults["kept"] < 0.2 * faults["usual"]
