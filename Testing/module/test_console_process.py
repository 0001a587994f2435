"""Tests of AirwaySegSlicer.commands.console_process: the console command as Slicer's panel runs it."""

import io
import os
import subprocess
import sys

import pytest

from AirwaySegSlicer.commands.child_process import MODULE_FOLDER, descendants, kill_tree
from AirwaySegSlicer.commands.console_process import ConsoleProcess, parse_progress

SLEEPER = """
import subprocess, sys, time
later = "import time; time.sleep(20); print('survived')"
p = subprocess.Popen([sys.executable, "-c", later])
"""


@pytest.fixture
def a_python_slicer(tmp_path, monkeypatch):
    """An executable PythonSlicer on the PATH, as in Slicer."""
    (tmp_path / "PythonSlicer").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return str(tmp_path / "PythonSlicer")


class Process:
    """A child that has printed these lines and ended with this code."""

    def __init__(self, exit_code: int, lines: list[str]) -> None:
        self.stdout = io.StringIO("".join(f"{line}\n" for line in lines))
        self.exit_code = exit_code

    def wait(self) -> int:
        """The exit code."""
        return self.exit_code


def run_with(exit_code: int, lines: list[str]) -> tuple[list[str], dict, list[tuple], list[str]]:
    """Command line, options, progress and end of a run whose child prints these lines and ends with this code."""
    steps, ends, calls = [], [], []

    def launch(arguments, **options):
        calls.append((arguments, options))
        return Process(exit_code, lines)

    process = ConsoleProcess(launch, lambda *step: steps.append(step), ends.append)
    process.start(["segment", "ct.nrrd"])
    process.wait()
    arguments, options = calls[0]
    return arguments, options, steps, ends


def test_the_command_runs_the_library_beside_the_module(a_python_slicer):
    arguments, options, _, _ = run_with(0, [])
    assert arguments == [a_python_slicer, "-m", "AirwaySegLib", "segment", "ct.nrrd"]
    assert options["cwd"] == MODULE_FOLDER and os.path.isdir(os.path.join(MODULE_FOLDER, "AirwaySegLib"))


@pytest.mark.usefixtures("a_python_slicer")
def test_lines_of_progress_and_the_sentence_after_them_are_told_apart():
    lines = ['{"stage": "infer", "done": 3, "total": 8, "seconds_left": 2.5}', "airwayseg: Disk full.", "", "  "]
    _, _, steps, ends = run_with(2, lines)
    assert steps == [("infer", 3, 8)]
    assert ends == ["Disk full."]


@pytest.mark.usefixtures("a_python_slicer")
def test_success_ends_without_a_sentence_whatever_was_printed():
    assert run_with(0, ["a warning"])[3] == [""]


@pytest.mark.usefixtures("a_python_slicer")
def test_a_silent_failure_names_its_exit_code():
    assert run_with(-9, [])[3] == ["The command ended with code -9."]


PRINTS = "print('Лёгкие, 肺')"


def test_a_name_in_any_script_is_printed_and_read_whatever_the_computers_language(monkeypatch):
    """Without UTF-8 a command that names a case in Cyrillic or Chinese fails, after its work was done."""
    for name, value in {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}.items():
        monkeypatch.setenv(name, value)

    def launch(arguments, updateEnvironment, **options):
        environment = {**os.environ, **updateEnvironment}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "latin-1"}
        return subprocess.Popen([sys.executable, "-c", PRINTS], env=environment, **streams)

    lines, ends = [], []
    monkeypatch.setattr("AirwaySegSlicer.commands.child_process.slicer_python", lambda: sys.executable)
    process = ConsoleProcess(launch, lambda *step: None, ends.append, lines.append)
    process.start([])
    process.wait()
    assert (lines, ends) == (["Лёгкие, 肺"], [""])


def test_without_slicers_python_nothing_is_started(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="PythonSlicer"):
        run_with(0, [])


@pytest.mark.parametrize("line", ["", "text", "3", "[]", '{"stage": "x"}', '{"stage": "x", "done": "?", "total": 1}'])
def test_other_lines_are_no_progress(line):
    assert parse_progress(line) is None


def test_descendants_are_the_children_and_their_children_only():
    parents = {1: 0, 2: 1, 3: 2, 4: 1, 9: 0, 10: 9}
    assert sorted(descendants(1, parents)) == [1, 2, 3, 4]


def test_cancel_kills_the_grandchild_too():
    code = SLEEPER + "print(p.pid, flush=True); time.sleep(20)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    grandchild = int(child.stdout.readline())
    kill_tree(child.pid)
    assert child.wait() != 0
    # Its pipe end closes when the grandchild, who inherited it, is gone as well.
    assert child.stdout.read() == ""
    child.stdout.close()
    assert not is_running(grandchild)


def is_running(pid: int) -> bool:
    """Whether the process exists and is more than a zombie."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")
