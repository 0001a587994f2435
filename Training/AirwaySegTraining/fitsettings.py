"""What one training is made of, in one place for the command line and the loop."""

from dataclasses import dataclass

from AirwaySegLib.errors import AirwaySegError


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

    def __post_init__(self) -> None:
        """Refuse what no training can use.

        Below 32 voxels the deepest level has 2 voxels a side, and the CPU's bfloat16 gradients there (PyTorch 2.13) are
        not reliable.
        """
        if self.patch < 32 or self.patch % 8:
            raise AirwaySegError(f"The patch of {self.patch} voxels is not a multiple of 8 from 32 on.")
        for name in ("steps", "batch", "rate"):
            if getattr(self, name) <= 0:
                raise AirwaySegError(f"--{name} is {getattr(self, name)}; it must be above 0.")
        for name in ("seed", "workers"):
            if getattr(self, name) < 0:
                raise AirwaySegError(f"--{name} is {getattr(self, name)}; it must not be below 0.")
