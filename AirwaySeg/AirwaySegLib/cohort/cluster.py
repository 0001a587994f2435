"""Running the cases on a Dask cluster: one case a task; only the case and its outcome go through the scheduler."""

import argparse
import importlib
import logging
import secrets
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from AirwaySegLib.cohort.case import Case
from AirwaySegLib.cohort.records import FAILURE, Outcome
from AirwaySegLib.errors import AirwaySegError, one_sentence

Task = Callable[[Case], Outcome]
"""Runs one case in a worker; it can be pickled."""


@dataclass(frozen=True)
class Cluster:
    """The scheduler's address, or how many worker processes to start on this computer, and what a task needs.

    ``resources`` such as {"GPU": 1} are those that the workers were started with. A case whose worker dies
    ``deaths`` times has failed.
    """

    address: str = ""
    workers: int = 0
    resources: tuple[tuple[str, float], ...] = ()
    deaths: int = 3


def parse_resources(text: str) -> tuple[tuple[str, float], ...]:
    """ "GPU=1,MEM=8" -> (("GPU", 1.0), ("MEM", 8.0)).

    Raises
    ------
    AirwaySegError
        If the text has another form.
    """
    found = []
    for part in text.split(",") if text else []:
        name, equals, amount = part.partition("=")
        try:
            found.append((name.strip(), float(amount)))
        except ValueError:
            equals = ""
        if not equals or not name.strip():
            raise AirwaySegError(f"The resources {text!r} are not of the form NAME=AMOUNT, such as GPU=1.")
    return tuple(found)


def cluster_of(options: argparse.Namespace) -> Cluster | None:
    """The cluster that the options name; None: this process.

    Raises
    ------
    AirwaySegError
        If the number of workers or the resources are not valid.
    """
    if options.workers < 0:
        raise AirwaySegError(f"The number of workers is {options.workers}; it must be 1 or more.")
    if not options.scheduler and not options.workers:
        return None
    return Cluster(options.scheduler, options.workers, parse_resources(options.resources))


def import_distributed() -> Any:
    """Dask's package for clusters; it then logs no more than this program does: not each connection of each worker.

    Raises
    ------
    AirwaySegError
        If it is not installed.
    """
    try:
        distributed = importlib.import_module("distributed")  # it sets its logger's level when it is imported
    except ImportError:
        raise AirwaySegError("Dask is not installed; `pip install airwayseg[dask]` brings it.") from None
    logging.getLogger("distributed").setLevel(logging.getLogger().getEffectiveLevel())
    return distributed


def run_on_cluster(
    cases: Sequence[Case], task: Task, cluster: Cluster, connected: Callable[[int, str], None]
) -> Iterator[Outcome]:
    """Run each case in a task of a Dask cluster and yield how each ended, in the order in which they end.

    ``connected`` is told the number of workers and the address of the dashboard. A task whose worker dies is run again
    on another one by Dask. Tasks that have not begun are cancelled when the caller stops.

    Raises
    ------
    AirwaySegError
        If Dask is not installed or the scheduler cannot be reached.
    """
    distributed = import_distributed()
    with ExitStack() as stack:
        client = stack.enter_context(_client(distributed, cluster, stack))
        connected(len(client.scheduler_info()["workers"]), client.dashboard_link)
        run = secrets.token_hex(4)  # another run on this scheduler may have cases of these names
        by_key = {f"airwayseg-{case.id}-{run}": case for case in cases}
        futures = [
            client.submit(task, case, key=key, pure=False, resources=dict(cluster.resources) or None)
            for key, case in by_key.items()
        ]
        stack.callback(client.cancel, futures)
        for future in distributed.as_completed(futures):
            yield _outcome(future, by_key[future.key])
            future.release()


def _client(distributed: Any, cluster: Cluster, stack: ExitStack) -> Any:
    config = importlib.import_module("dask").config
    stack.enter_context(config.set({"distributed.scheduler.allowed-failures": cluster.deaths}))
    address: Any = cluster.address
    if not address:
        with warnings.catch_warnings():  # Dask then takes another port for its dashboard; its address is told anyhow
            warnings.filterwarnings("ignore", r"\s*Port \d+ is already in use")
            local = distributed.LocalCluster(n_workers=cluster.workers, threads_per_worker=1, processes=True)
        address = stack.enter_context(local)
    try:
        return distributed.Client(address)
    except (OSError, ValueError, ImportError) as error:
        raise AirwaySegError(f"The scheduler {cluster.address} cannot be reached: {error}.") from None


def _outcome(future: Any, case: Case) -> Outcome:
    """What a task returned; one whose worker died too often, or that could not be run at all, has failed."""
    if future.status == "finished":
        outcome = future.result()
        assert isinstance(outcome, Outcome)
        return outcome
    if future.status == "cancelled":
        return Outcome(case.id, FAILURE, "The scheduler cancelled it.")
    error = future.exception()
    if type(error).__name__ == "KilledWorker":
        return Outcome(
            case.id, FAILURE, f"Its worker process died {error.allowed_failures + 1} times; memory may be short."
        )
    return Outcome(case.id, FAILURE, one_sentence(error))
