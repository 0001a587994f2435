"""Simulation of a scanner on a clean image: blur, edge enhancement, correlated noise, streaks, offset, clipping.

A `Scanner` holds the parameters of one scan; training draws a new one for each patch, a simulated case has one.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, shift

from AirwaySegTraining.simulator.noise import Grain, noise, streaks

Field = NDArray[np.floating]


@dataclass(frozen=True)
class Scanner:
    """Blur in voxels (in plane, along z), edge enhancement, noise in HU, its grain in voxels, offset, scale, floor.

    ``motion_voxels`` is the motion (along y and x) of the lower lung during the scan. ``grain_z`` is the grain along z
    (by default 0.7 of that in plane). For ``longer``, ``turn``, ``ramp`` and ``uneven`` see `noise.Grain`, for ``turn``
    and ``fan`` `noise.streaks`. If ``padded``, voxels of `PADDING_HU` are outside the field of view and not changed.
    """

    blur: float
    blur_z: float
    sharpen: float
    noise_hu: float
    grain: float
    streak_hu: float
    offset_hu: float
    scale: float
    floor_hu: float | None
    motion_voxels: tuple[float, float] = (0.0, 0.0)
    grain_z: float | None = None
    longer: float = 1.0
    turn: float = 0.0
    ramp: float = 0.0
    uneven: float = 0.0
    fan: float = 0.0
    padded: bool = False

    def as_dict(self) -> dict[str, object]:
        """The parameters, for case.json."""
        return asdict(self)


NOISE_LIMIT = "noise_limit.nrrd"
"""File of a clean case: the noise in HU above which it cannot be told that a voxel is airway, and it is left out; 0
where no noise hides it, and where there is no airway."""

PADDING_HU = -1024
"""HU outside a round field of view; no other value of a clean image is as low."""


THIN_MM = 1.3
"""Slices farther apart are drawn as the mean over their thickness, which is most of their blur along z."""


def thin_share(slices_mm: float) -> float:
    """The share of a blur along z in voxels that slices so far apart get."""
    return min(1.0, THIN_MM / slices_mm)


def draw_scanner(rng: np.random.Generator, slices_mm: float = 1.0) -> Scanner:
    """A random kernel and dose: noise 8 to 75 HU, log-uniform; sharp kernels are noisier than smooth ones."""
    noise_hu = float(np.exp(rng.uniform(np.log(8), np.log(75))))
    sharp = rng.random() < (0.6 if noise_hu > 35 else 0.3)
    return Scanner(
        blur=rng.uniform(0.4, 0.7) if sharp else rng.uniform(0.5, 0.9),
        blur_z=rng.uniform(0.3, 0.8) * thin_share(slices_mm),
        sharpen=rng.uniform(0.2, 0.9) if sharp else rng.uniform(0, 0.3),
        noise_hu=noise_hu,
        grain=rng.uniform(0.45, 0.7) if sharp else rng.uniform(0.55, 0.85),
        streak_hu=rng.uniform(0.15, 0.7) * noise_hu if rng.random() < 0.4 else 0.0,
        offset_hu=rng.uniform(-40, 40),
        scale=rng.uniform(0.95, 1.05),
        floor_hu=(-1000.0, -1024.0, None)[rng.integers(3)],
        motion_voxels=(rng.uniform(-2.5, 2.5), rng.uniform(-1.5, 1.5)) if rng.random() < 0.12 else (0.0, 0.0),
        grain_z=rng.uniform(0.3, 0.5) if slices_mm <= THIN_MM else rng.uniform(0.45, 0.6),
        longer=rng.uniform(1.0, 1.8),
        turn=rng.normal(scale=0.35) if rng.random() < 0.85 else rng.uniform(-np.pi / 2, np.pi / 2),
        ramp=rng.uniform(0.2, 0.8) if sharp else rng.uniform(0.0, 0.5),
        uneven=rng.uniform(0.1, 0.55),
        fan=0.0 if rng.random() < 0.5 else rng.uniform(0.3, 1.5),
        padded=True,
    )


def scan(clean_hu: NDArray, scanner: Scanner, rng: np.random.Generator) -> Field:
    """The clean image (Z, Y, X) in HU with the scanner's blur, noise and artefacts, float32."""
    sigma = (scanner.blur_z, scanner.blur, scanner.blur)
    hu = np.asarray(clean_hu, np.float32)
    padding = hu == PADDING_HU if scanner.padded else None
    if any(scanner.motion_voxels):
        hu = moved(hu, scanner.motion_voxels)
    hu = gaussian_filter(hu, sigma, truncate=3)
    if scanner.sharpen > 0:
        hu += np.float32(scanner.sharpen) * (hu - gaussian_filter(hu, (0.5, 1.2, 1.2), truncate=3))
    along_z = 0.7 * scanner.grain if scanner.grain_z is None else scanner.grain_z
    grain = Grain(scanner.grain, along_z, scanner.longer, scanner.turn, scanner.ramp, scanner.uneven)
    hu += noise(hu.shape, scanner.noise_hu, grain, rng)
    if scanner.streak_hu > 0:
        hu += streaks(hu.shape, scanner.streak_hu, scanner.turn, scanner.fan, rng)
    hu = (hu + np.float32(1000)) * np.float32(scanner.scale) - np.float32(1000 - scanner.offset_hu)
    if scanner.floor_hu is not None:
        np.maximum(hu, np.float32(scanner.floor_hu), out=hu)
    if padding is not None and padding.any():
        hu[padding] = PADDING_HU
    return hu


def moved(hu: Field, voxels: tuple[float, float]) -> Field:
    """Double contours by motion of heart and diaphragm: slices of the lower half, averaged with shifted copies."""
    count = len(hu)
    share = 0.5 * np.clip(np.linspace(2, -2, count), 0, 1).astype(np.float32)
    lower = np.flatnonzero(share)
    out = hu.copy()
    out[lower] += (shift(hu[lower], (0, *voxels), order=1, mode="nearest") - hu[lower]) * share[lower, None, None]
    return out


def whole_hu(hu: NDArray) -> NDArray[np.int16]:
    """HU as stored in a CT file: rounded, from -1024 to 3071."""
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
