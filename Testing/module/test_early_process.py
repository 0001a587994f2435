"""Tests of AirwaySegSlicer.commands.early_process: a command that loads its packages before its arguments are known."""

import os

import module_scenes as scenes
import pytest
import slicer

from AirwaySegLib.early import LONGEST_S
from AirwaySegSlicer.commands import early_process
from AirwaySegSlicer.commands.console_process import ConsoleProcess
from AirwaySegSlicer.commands.early_process import EarlyProcess
from AirwaySegSlicer.commands.jobs import Job, Listener, Runs

pytestmark = pytest.mark.usefixtures("slicer_host")


@pytest.fixture
def children(tmp_path, monkeypatch):
    """The processes that `launch` has started, and `launch`."""
    monkeypatch.setenv("PATH", scenes.python_slicer(tmp_path), prepend=os.pathsep)
    started = []

    def launch(arguments, **options):
        started.append(scenes.launch_real(arguments, **options))
        return started[-1]

    yield started, launch
    for child in started:
        child.kill()
        child.wait()
        child.stdout.close()


def folders() -> set[str]:
    """The temporary folders of jobs."""
    return {name for name in os.listdir(slicer.app.temporaryPath) if name.startswith("AirwaySeg-")}


def a_job(folder, early: str = "measure") -> Job:
    """A measurement that fails, since its mask does not exist."""
    return Job(lambda _: ["measure", str(folder / "none.nrrd"), "-o", str(folder / "r")], lambda _: None, early=early)


def test_a_process_that_waits_gets_the_jobs_arguments(children, tmp_path):
    started, launch = children
    before, runs = folders(), Runs(launch)
    runs.load_early("measure")
    runs.load_early("measure")
    assert len(started) == 1 and len(folders() - before) == 1
    with pytest.raises(RuntimeError, match="none.nrrd does not exist"):
        runs.run("airways", a_job(tmp_path))
    assert len(started) == 1 and started[0].wait() == 2
    assert folders() == before


def test_a_job_that_wants_one_starts_it_itself_and_others_do_not(children, tmp_path):
    started, launch = children
    for early in ("measure", ""):
        with pytest.raises(RuntimeError, match="none.nrrd does not exist"):
            Runs(launch).run("airways", a_job(tmp_path, early))
    assert ["AirwaySegLib.early" in child.args for child in started] == [True, False]


def test_one_that_has_ended_is_replaced(children, tmp_path):
    started, launch = children
    before, runs = folders(), Runs(launch)
    runs.load_early("measure")
    started[0].kill()
    started[0].wait()
    with pytest.raises(RuntimeError, match="none.nrrd does not exist"):
        runs.run("airways", a_job(tmp_path))
    assert len(started) == 2 and folders() == before
    runs.load_early("measure")
    started[2].kill()
    started[2].wait()
    runs.load_early("measure")
    assert len(started) == 4 and len(folders() - before) == 1
    runs.cancel_all()
    assert started[3].wait() != 0 and folders() == before


def test_one_that_is_about_to_end_is_not_used(children, tmp_path, monkeypatch):
    started, launch = children
    monkeypatch.setattr("AirwaySegSlicer.commands.early_process.USABLE_S", -1.0)
    before, runs = folders(), Runs(launch)
    runs.load_early("measure")
    with pytest.raises(RuntimeError, match="none.nrrd does not exist"):
        runs.run("airways", a_job(tmp_path))
    assert len(started) == 2 and started[0].wait() not in (0, 2) and folders() == before


def test_the_library_waits_longer_than_the_module():
    assert early_process.USABLE_S < LONGEST_S - 60


def test_it_ends_with_a_run_that_is_cancelled_or_fails_before_it_begins(children):
    started, launch = children
    before, ends = folders(), []
    early = EarlyProcess(launch, "measure")
    process = ConsoleProcess(launch, lambda *step: None, ends.append, early=early)
    process.cancel("Enough.")
    assert started[0].wait() != 0 and not early.begin(["measure"])
    process.end(process.reason)
    assert ends == ["Enough."] and folders() == before

    def fail(folder: str) -> list[str]:
        raise RuntimeError("There are no airways.")

    with pytest.raises(RuntimeError, match="no airways"):
        Runs(launch).start("airways", Job(fail, lambda _: None, early="measure"), Listener(lambda *end: None))
    assert started[1].wait() != 0 and folders() == before


def test_without_slicers_python_only_the_job_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    before, runs = folders(), Runs(scenes.launch_real)
    runs.load_early("measure")
    with pytest.raises(RuntimeError, match="PythonSlicer"):
        runs.run("airways", a_job(tmp_path))
    assert folders() == before
