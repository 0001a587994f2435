"""The processes of one training: a single one, or those that `torchrun` has started, one for each GPU."""

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
"""A process may wait so long for the others, which prepare cases or segment them."""


@dataclass(frozen=True)
class Team:
    """Process ``rank`` of ``size``, and the device on which it works."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether it is this process that writes files and shows progress."""
        return self.rank == 0

    def share(self, items: list[Any]) -> list[Any]:
        """This process's part of a list."""
        return items[self.rank :: self.size]

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.size > 1:
            distributed.barrier()

    def together(self, tensor: Tensor) -> Tensor:
        """Everybody's tensors one after the other along the first axis; only this process's own has a gradient.

        So each computes the loss of the whole batch, and differentiates by its own part.
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
        """Everybody's entries in one dict, sorted by key."""
        every: list[dict[str, Any]] = [found]
        if self.size > 1:
            every = [{} for _ in range(self.size)]
            distributed.all_gather_object(every, found)
        return dict(sorted(item for part in every for item in part.items()))


@contextmanager
def joined_team(wanted: str) -> Iterator[Team]:
    """Join the processes of `torchrun`, or be alone; ``wanted`` is the device: auto, cpu or cuda.

    Raises
    ------
    AirwaySegError
        If the device is not there.
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
