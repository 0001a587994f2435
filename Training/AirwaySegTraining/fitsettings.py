"""What one training is made of, in one place for the command line and the loop."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FitSettings:
    """One training.

    ``shares`` are those of the data folders in the patches (none: by their numbers of cases). ``frozen_from`` is the
    share of the steps after which batch normalisation keeps its statistics.
    """

    steps: int = 6000
    batch: int = 2
    patch: int = 64
    rate: float = 1e-3
    norm: str = "batch"
    seed: int = 0
    device: str = "auto"
    workers: int = 1
    frozen_from: float = 0.5
    average: float = 0.998
    checkpoint_every: int = 200
    start_from: str | None = None
    shares: tuple[float, ...] = ()
