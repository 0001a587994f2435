"""Ctrl+C and SIGTERM end a command with a true sentence; its result is there whole or as it was before."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from phantoms import a_forked_tree, draw_tubes
from source_tree import ROOT

from AirwaySegLib.commands import measure as measuring

TREE = ROOT
LONG_ENOUGH_S = 300

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no signals from other processes")


@contextmanager
def _run(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process of its own, in a group of its own as from a terminal, of which nothing is left at the end.

    Ctrl+C reaches it also where these tests run in the background of a shell, which ignores it for them.
    """
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    child = subprocess.Popen(
        [sys.executable, "-c", heard + program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TREE / "AirwaySeg"), str(TREE / "Training")])},
    )
    with child:
        try:
            yield child
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def a_mask(tmp_path_factory) -> Path:
    """A small airway tree as a file."""
    path = tmp_path_factory.mktemp("mask") / "tree.nrrd"
    image = sitk.GetImageFromArray(draw_tubes(a_forked_tree(), (80, 32, 72), (2.5, 2.5, 2.5)).astype(np.uint8))
    image.SetSpacing((2.5, 2.5, 2.5))
    sitk.WriteImage(image, str(path))
    return path


STOPPED_AFTER_A_MOVE = """
import os, sys
from pathlib import Path
from AirwaySegLib.__main__ import main
output, number, name, command = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]
replace = os.replace
def replace_and_stop(source, target):
    replace(source, target)
    if Path(target) == output / name:
        os.kill(os.getpid(), number)
os.replace = replace_and_stop
sys.exit(main(command))
"""


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", [measuring.TABLE, measuring.TREE])
def test_a_stop_while_files_move_into_a_folder_waits_until_all_are_there(a_mask, tmp_path, number, name):
    (tmp_path / "notes.txt").write_text("mine")
    command = ["measure", a_mask, "-o", tmp_path, "--progress", "none"]
    with _run(STOPPED_AFTER_A_MOVE, tmp_path, int(number), name, *command) as child:
        _, error = child.communicate(timeout=LONG_ENOUGH_S)
    assert child.returncode == 130
    assert error == "airwayseg: cancelled; no unfinished result was written.\n"
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", *measuring.FILES}


LITTLE_SPACE = """
import resource, sys
from AirwaySegLib.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main(sys.argv[2:]))
"""


@posix
@pytest.mark.parametrize("command", ["measure", "repair"])
@pytest.mark.parametrize("exists", [False, True])
def test_where_a_file_finds_no_space_nothing_is_left_and_the_sentence_names_it(a_mask, tmp_path, command, exists):
    result = tmp_path / "result"
    if exists:
        result.mkdir()
        (result / "notes.txt").write_text("mine")
    with _run(LITTLE_SPACE, 600, command, a_mask, "-o", result, "--progress", "none") as child:
        _, error = child.communicate(timeout=LONG_ENOUGH_S)
    assert child.returncode == 2
    assert f"{result}" in error and "File too large" in error and error.count("\n") == 1
    assert "unfinished" not in error and "unexpected" not in error
    left = list(tmp_path.rglob("*"))
    assert left == ([result, result / "notes.txt"] if exists else [])


STOPPED_AT_THE_WEIGHTS = """
import os, sys
from AirwaySegLib.repair import repair as repairing
from AirwaySegLib.__main__ import main
def stop(settings):
    os.kill(os.getpid(), int(sys.argv[1]))
    raise AssertionError("the stop came to nothing")
repairing._open_network = stop
sys.exit(main(sys.argv[2:]))
"""


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_not_taken_for_weights_that_are_missing(a_mask, tmp_path, number):
    command = ["repair", a_mask, "--ct", a_mask, "-o", tmp_path / "result", "--progress", "none"]
    with _run(STOPPED_AT_THE_WEIGHTS, int(number), *command) as child:
        _, error = child.communicate(timeout=LONG_ENOUGH_S)
    assert child.returncode == 130 and "cancelled" in error
    assert list(tmp_path.iterdir()) == []


STOPPED_IN_A_FINALIZER = """
import os, sys
from AirwaySegLib.commands import measure as measuring
from AirwaySegLib.__main__ import main
parse = measuring.parse_airways
class Finalized:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
        for _ in range(1000): pass
def parse_and_stop(*arguments):
    Finalized()
    return parse(*arguments)
measuring.parse_airways = parse_and_stop
sys.exit(main(sys.argv[2:]))
"""


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["none", "json", "bar"])
def test_a_stop_where_python_drops_the_exception_still_stops(a_mask, tmp_path, number, kind):
    command = ["measure", a_mask, "-o", tmp_path / "result", "--progress", kind]
    with _run(STOPPED_IN_A_FINALIZER, int(number), *command) as child:
        _, error = child.communicate(timeout=LONG_ENOUGH_S)
    assert "Exception ignored in" in error
    assert child.returncode == 130 and list(tmp_path.iterdir()) == []


WORKERS_THAT_WRITE = """
import os, shutil, sys, time
from AirwaySegLib.files.atomic_output import delivered_into
from AirwaySegTraining.simulator import simulate
from AirwaySegTraining.__main__ import main
remove = shutil.rmtree
def remove_slowly(path, ignore_errors):
    time.sleep(0.5)  # meanwhile the command, stopped too, stops its workers once more
    remove(path, ignore_errors)
shutil.rmtree = remove_slowly
def write_for_ever(case, folder):
    with delivered_into(folder, last="case.json") as unfinished:
        (unfinished / "ct.nrrd").write_text("a part")
        os.write(1, b"writing\\n")  # one piece, whoever else writes
        time.sleep(3600)
simulate.simulate_case = lambda seed, clean: None
simulate.write_case = write_for_ever
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are no copies of the command")
@pytest.mark.parametrize("whom", ["the command", "all processes"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_command_ends_its_workers_and_leaves_nothing(tmp_path, number, whom):
    command = ["simulate", "-o", tmp_path / "data", "--cases", "8", "--workers", "2"]
    with _run(WORKERS_THAT_WRITE, *command) as child:
        assert child.stdout is not None
        assert [child.stdout.readline() for _ in range(2)] == ["writing\n"] * 2
        os.kill(child.pid, number) if whom == "the command" else os.killpg(child.pid, number)
        output, error = child.communicate(timeout=LONG_ENOUGH_S)
        with pytest.raises(ProcessLookupError):
            os.killpg(child.pid, 0)
    assert child.returncode == 130
    assert "airwayseg-train: stopped; no unfinished file was written." in error and "Traceback" not in error
    assert output == "" and list((tmp_path / "data" / "cases").iterdir()) == []


WORKERS_THAT_THE_SIGNAL_ENDS_TOO = """
import sys, time
from torch.utils.data import DataLoader, Dataset
from AirwaySegTraining import __main__ as command
class Slow(Dataset):
    def __len__(self):
        return 2
    def __getitem__(self, number):
        print("loading", flush=True)
        time.sleep(3600)
def wait_for_a_batch(*_, **__):
    batches = iter(DataLoader(Slow(), num_workers=1, batch_size=None))
    try:
        next(batches)
    except KeyboardInterrupt:
        next(batches)  # the worker is dead by now, or soon: PyTorch raises a RuntimeError
command.simulate = wait_for_a_batch
sys.exit(command.main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are no copies of the command")
def test_a_stopped_training_command_says_so_although_pytorch_misses_its_worker(tmp_path):
    with _run(WORKERS_THAT_THE_SIGNAL_ENDS_TOO, "simulate", "-o", tmp_path / "data") as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "loading\n"
        os.killpg(child.pid, signal.SIGTERM)
        _, error = child.communicate(timeout=LONG_ENOUGH_S)
    assert child.returncode == 130
    assert error.splitlines()[-1] == "airwayseg-train: stopped; no unfinished file was written."
