"""A training that is killed goes on bit for bit, and two processes train as one."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from AirwaySegLib.networks.weights import load_weights
from AirwaySegLib.progress import silent
from AirwaySegTraining.fit.loop import fit
from AirwaySegTraining.fit.settings import FitSettings

pytestmark = pytest.mark.slow

RECIPE = """
[network]
norm = "instance"
dropout = 0.0

[[stage]]
name = "one"
steps = 1
patch = 32
batch = 2
optimizer = "sgd"  # AdamW would blow up the rounding of gradients that should be 0
rate = 0.05
average = 0.5
[[stage.loss]]
term = "dice"
[stage.sampling]
random = 1.0

[[stage]]
name = "two"
steps = 4
patch = 32
batch = 2
optimizer = "sgd"
rate = 0.05
rotation_degrees = 15
weights = { lib = 1.0, back_propagation = 1.0, back_propagation_nearest = 0.5 }
weight_power = [1, 2]
mined_every = 2
mined = 0.5
[[stage.loss]]
term = "weighted_dice"
encoder = 0.5
[[stage.loss]]
term = "general_union"
alpha = 0.2
exponent = 0.7
[stage.sampling]
hard_skeleton = 0.5
random = 0.5
"""


@pytest.fixture(scope="module")
def a_data_folder(tmp_path_factory):
    """One case with a dark tube in grey tissue, and the recipe of two stages beside it."""
    folder = tmp_path_factory.mktemp("data")
    case = folder / "cases" / "tube"
    case.mkdir(parents=True)
    label = np.zeros((32, 24, 24), np.uint8)
    label[:, 10:14, 11:15] = 1
    ct = np.where(label == 1, -950, -100).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(ct), str(case / "ct.nrrd"))
    sitk.WriteImage(sitk.GetImageFromArray(label), str(case / "label.nrrd"))
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


def settings(data):
    return FitSettings(
        recipe=str(data / "recipe.toml"), device="cpu", precision="float32", workers=0, checkpoint_every=1, validation=0
    )


def train(data, output, resume=False):
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as the processes below have
    try:
        return fit([data], output, settings(data), silent, resume=resume)
    finally:
        torch.set_num_threads(before)


def start(data, output, **more):
    """The same training as a process of its own."""
    program = """if True:
        import sys
        from pathlib import Path
        from test_resume import settings
        from AirwaySegLib.progress import silent
        from AirwaySegTraining.fit.loop import fit
        data, output = map(Path, sys.argv[1:])
        fit([data], output, settings(data), silent)
    """
    path = os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}
    words = [sys.executable, "-c", program, str(data), str(output)]
    return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)


def log_of(run):
    path = run / "log.csv"
    return list(csv.DictReader(path.open())) if path.exists() else []


@pytest.fixture(scope="module")
def an_unbroken_run(a_data_folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        output = tmp_path_factory.mktemp("whole") / "run"
        train(a_data_folder, output)
        yield output


def test_a_training_that_was_killed_in_its_second_stage_continues_bit_for_bit(a_data_folder, an_unbroken_run, tmp_path):
    output = tmp_path / "run"
    process = start(a_data_folder, output)
    until = time.monotonic() + 120
    while len(log_of(output)) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was to be killed before it ended"
    train(a_data_folder, output, resume=True)
    whole, mended = (load_weights(run / "model.safetensors")[0].state_dict() for run in (an_unbroken_run, output))
    assert all(torch.equal(value, mended[name]) for name, value in whole.items())
    assert [row["step"] for row in log_of(output)] == ["1", "2", "3", "4", "5"]
    assert [row["loss"] for row in log_of(output)] == [row["loss"] for row in log_of(an_unbroken_run)]


def test_two_processes_train_as_one(a_data_folder, an_unbroken_run, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    output = tmp_path / "run"
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [start(a_data_folder, output, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(2)]
    errors = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    image = torch.rand(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, two = (load_weights(run / "model.safetensors")[0](image)[1].sigmoid() for run in (an_unbroken_run, output))
    assert float(one.std()) > 1e-3
    # Between the two lies the rounding of float32, tenfold at each step; in float64 the losses are equal to 1e-15.
    assert float((one - two).abs().max()) < 1e-3
    columns = ("loss", 1e-5), ("gradient_norm", 1e-2)
    for name, tolerance in columns:
        alone, together = ([float(row[name]) for row in log_of(run)] for run in (an_unbroken_run, output))
        assert together == pytest.approx(alone, rel=tolerance)
