"""Distributed training: a single process, or those that `torchrun` has started, one for each GPU."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.networks.device_plan import choose_device

LONGEST_WAIT = timedelta(hours=6)
"""Longest time that a process waits for the others, which prepare or segment cases."""


@dataclass(frozen=True)
class Team:
    """This process's ``rank``, the number of processes ``size``, and the device of this process."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which writes files and shows progress."""
        return self.rank == 0

    def share(self, items: list[Any]) -> list[Any]:
        """This process's part of a list."""
        return items[self.rank :: self.size]

    def wait(self) -> None:
        """Barrier: wait until all processes have called this."""
        if self.size > 1:
            distributed.barrier()

    def together(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, concatenated along the first axis; only this process's own has a gradient.

        So each process computes the loss of the whole batch, and its gradient for its own part.
        """
        if self.size == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        distributed.all_gather(parts, tensor.detach().contiguous())
        parts[self.rank] = tensor
        return torch.cat(parts)

    def leading(self, value: float) -> float:
        """The leading process's value, so that all decide alike."""
        if self.size == 1:
            return value
        return float(self.together(torch.tensor([value], dtype=torch.float64, device=self.device))[0])

    def merged(self, found: dict[str, Any]) -> dict[str, Any]:
        """The entries of all processes in one dict, sorted by key."""
        every: list[dict[str, Any]] = [found]
        if self.size > 1:
            every = [{} for _ in range(self.size)]
            distributed.all_gather_object(every, found)
        return dict(sorted(item for part in every for item in part.items()))


@contextmanager
def joined_team(wanted: str) -> Iterator[Team]:
    """The team of `torchrun`'s processes, or of this process alone; ``wanted`` is the device: auto, cpu or cuda.

    Raises
    ------
    AirwaySegError
        If the device is not available, or there are fewer GPUs than processes.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    chosen = choose_device(wanted)
    if wanted == "auto" and chosen == "mps":  # trilinear upsampling has no gradient there
        chosen = "cpu"
    if chosen == "cuda" and size > 1:
        local = int(os.environ.get("LOCAL_RANK", rank))
        if local >= torch.cuda.device_count():
            raise AirwaySegError(f"There are {torch.cuda.device_count()} GPUs here for {local + 1} processes or more.")
        chosen = f"cuda:{local}"
        torch.cuda.set_device(local)
    team = Team(rank, size, torch.device(chosen))
    if size == 1:
        yield team
        return
    distributed.init_process_group("nccl" if team.device.type == "cuda" else "gloo", timeout=LONGEST_WAIT)
    try:
        yield team
    finally:
        distributed.destroy_process_group()
