"""Cases on a Dask cluster: none is lost and none is done twice when a worker dies."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path

import cluster_tasks
import pytest
from source_tree import ROOT

from AirwaySegLib.cohort.case import Case
from AirwaySegLib.cohort.cluster import Cluster, parse_resources, run_on_cluster
from AirwaySegLib.cohort.records import FINISHED
from AirwaySegLib.errors import AirwaySegError


@pytest.fixture
def a_path_for_workers(monkeypatch):
    """Workers are new processes, which find the same modules."""
    folders = [str(ROOT / "AirwaySeg"), str(ROOT / "Testing" / "support"), *sys.path]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders))


def kill_one_of(starts: Path, count: int, go: Path) -> None:
    """When ``count`` cases have started, kill the process of one of them and let the others go on."""
    for _ in range(cluster_tasks.LONG_ENOUGH_S * 20):
        started = sorted(starts.glob("*")) if starts.exists() else []
        if len(started) >= count:
            os.kill(int(started[0].name.rpartition("-")[2]), signal.SIGKILL)
            break
        time.sleep(0.05)
    go.touch()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_when_a_worker_is_killed_no_case_is_lost_and_none_is_done_twice(a_path_for_workers, tmp_path):
    pytest.importorskip("distributed")
    names = [f"case{number:02d}" for number in range(11)] + ["broken"]
    cases = [Case(name, tmp_path) for name in names]
    seen: list[tuple[int, str]] = []
    killer = threading.Thread(target=kill_one_of, args=(tmp_path / "starts", 3, tmp_path / "go"))
    killer.start()
    task = partial(cluster_tasks.note_and_wait, tmp_path)
    outcomes = list(run_on_cluster(cases, task, Cluster(workers=3), lambda *about: seen.append(about)))
    killer.join()
    assert seen[0][0] == 3 and seen[0][1].startswith("http")
    assert Counter(outcome.id for outcome in outcomes) == Counter(names)
    by_id = {outcome.id: outcome for outcome in outcomes}
    assert by_id.pop("broken").sentence == "unexpected ValueError: first line (-v shows more)"
    assert all(outcome.status == FINISHED for outcome in by_id.values())
    assert {path.name for path in (tmp_path / "cases").iterdir()} == set(by_id)
    starts = Counter(path.name.rpartition("-")[0] for path in (tmp_path / "starts").iterdir())
    assert set(starts) == set(names) and sorted(starts.values()) == [1] * 11 + [2]


@pytest.mark.slow
def test_dask_says_no_more_than_the_program(a_path_for_workers, tmp_path, caplog, recwarn):
    pytest.importorskip("distributed")
    (tmp_path / "go").touch()
    logging.getLogger("distributed").setLevel(logging.INFO)  # as its import does
    task = partial(cluster_tasks.note_and_wait, tmp_path)
    with socket.socket() as taken:  # the port that Dask's dashboard likes best
        with suppress(OSError):
            taken.bind(("", 8787))
            taken.listen()
        assert len(list(run_on_cluster([Case("one", Path("one"))], task, Cluster(workers=1), lambda *_: None))) == 1
    assert not [record for record in caplog.records if record.levelno < logging.WARNING]
    assert not [said for said in recwarn if "Port" in str(said.message)]


def test_two_cohorts_on_one_scheduler_may_have_cases_of_the_same_name(a_path_for_workers, tmp_path):
    distributed = pytest.importorskip("distributed")
    cases = [Case(name, tmp_path) for name in ("one", "two")]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "go").touch()
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as local:
        cluster = Cluster(local.scheduler_address)
        runs = [
            run_on_cluster(cases, partial(cluster_tasks.note_and_wait, tmp_path / name), cluster, lambda *_: None)
            for name in ("a", "b")
        ]
        first, second = next(runs[0]), next(runs[1])  # both have submitted their cases
        rest = [*runs[0], *runs[1]]
    assert Counter(one.id for one in (first, second, *rest)) == {"one": 2, "two": 2}
    for name in ("a", "b"):
        assert {path.name for path in (tmp_path / name / "cases").iterdir()} == {"one", "two"}


@pytest.mark.slow
def test_cases_that_need_a_gpu_run_where_one_is_declared(a_path_for_workers, tmp_path):
    distributed = pytest.importorskip("distributed")
    (tmp_path / "go").touch()
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local:
        words = ["-m", "distributed.cli.dask_worker", local.scheduler_address, "--resources", "GPU=1"]
        words += ["--no-nanny", "--no-dashboard", "--nthreads", "1"]
        with subprocess.Popen([sys.executable, *words], cwd=tmp_path, stderr=subprocess.DEVNULL) as worker:
            cluster = Cluster(local.scheduler_address, resources=parse_resources("GPU=1"))
            task = partial(cluster_tasks.note_and_wait, tmp_path)
            cases = [Case(f"case{number}", tmp_path) for number in range(4)]
            outcomes = list(run_on_cluster(cases, task, cluster, lambda *_: None))
            worker.terminate()
    assert [outcome.status for outcome in outcomes] == [FINISHED] * 4
    processes = {path.name.rpartition("-")[2] for path in (tmp_path / "starts").iterdir()}
    assert processes == {str(worker.pid)}


def test_resources_are_a_list_of_names_and_amounts():
    assert parse_resources("GPU=1,MEM=8.5") == (("GPU", 1.0), ("MEM", 8.5)) and parse_resources("") == ()
    for wrong in ("GPU", "GPU=", "=1", "GPU=one"):
        with pytest.raises(AirwaySegError, match="NAME=AMOUNT"):
            parse_resources(wrong)


def test_without_dask_one_sentence_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(AirwaySegError, match="Dask is not installed"):
        next(run_on_cluster([], partial(cluster_tasks.note_and_wait, Path()), Cluster(workers=1), print))
