"""Choices that depend on the machine: threads, memory, worker processes, and the precision that is fast on it."""

import ctypes
import logging
import os
import sys
from dataclasses import replace
from typing import Any, TypeVar

import torch

from AirwaySegLib.networks.device_plan import has_bfloat16
from AirwaySegTraining.distributed import Team

log = logging.getLogger("airwayseg")

Settings = TypeVar("Settings", bound=Any)
"""Settings of a training with ``precision`` and ``workers``."""

MOST_WORKERS = 4
"""Largest default number of worker processes; each takes a gigabyte while it prepares a CT."""

CAN_FORK = sys.platform == "linux"
"""Forked workers share the cases' centres and maps; without fork each worker would hold a copy of them."""

KEEP_FREED = {-4: 0, -1: -1, -2: 1 << 28}
"""Parameters of glibc's `mallopt`: no memory maps for large arrays (M_MMAP_MAX), nothing goes back to the system
(M_TRIM_THRESHOLD), and the heap grows by 256 MiB at a time (M_TOP_PAD)."""


def usable_cpus() -> int:
    """Number of processors on which this process may run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usual_workers() -> int:
    """Default number of workers: the processors that each training process leaves unused, at most `MOST_WORKERS`."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(0, min(MOST_WORKERS, usable_cpus() // processes - 1)) if CAN_FORK else 0


def use_all_cpus(team: Team) -> None:
    """Compute on all processors, unless OMP_NUM_THREADS is set or there are several processes."""
    if team.device.type == "cpu" and team.size == 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(usable_cpus())  # PyTorch's own default leaves hyper-threads idle


def keep_freed_memory(team: Team) -> None:
    """Let a training on a CPU use the memory of one step again in the next, where the C library is glibc.

    Large arrays otherwise go back to the system at once, which has to clear their pages before each new use.
    """
    if team.device.type != "cpu" or sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # musl has none
        for parameter, value in KEEP_FREED.items():
            libc.mallopt(parameter, value)


def settled(settings: Settings, team: Team, kept: str | None) -> Settings:
    """The settings with "auto" and None replaced by this machine's values, the same in all processes of the team.

    ``kept`` is the precision of the run that is resumed, which is kept; None for a new run.
    """
    fast = all(team.merged({str(team.rank): has_bfloat16(str(team.device))}).values())
    usual = kept or ("bfloat16" if fast else "float32")
    precision = usual if settings.precision == "auto" else settings.precision
    if precision == "bfloat16" and not fast and team.leads:
        reason = "as it began, " if kept == precision else ""
        log.warning("The training computes in bfloat16, %sthough this machine is many times faster in float32.", reason)
    workers = usual_workers() if settings.workers is None else settings.workers
    return replace(settings, precision=precision, workers=workers)


def worker_options(workers: int, ahead: int) -> dict[str, Any]:
    """DataLoader options: the number of worker processes, and how many batches each prepares in advance."""
    if not workers or not CAN_FORK:
        return {"num_workers": 0}
    return {"num_workers": workers, "prefetch_factor": ahead, "multiprocessing_context": "fork"}
