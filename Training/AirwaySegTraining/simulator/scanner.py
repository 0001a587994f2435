"""What a scanner does to a clean picture: blur, edge enhancement, correlated noise, streaks, offset, clipping.

One set of numbers describes a scan (`Scanner`); training draws a new one for each patch, a simulated case has one.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, shift

Field = NDArray[np.float32]


@dataclass(frozen=True)
class Scanner:
    """Blur in voxels (in plane, along z), edge enhancement, noise in HU, its grain in voxels, offset, scale, floor.

    ``motion_voxels`` is how far (along y and x) the lower lung moved while it was scanned.
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

    def as_dict(self) -> dict[str, object]:
        """The numbers, for case.json."""
        return asdict(self)


def draw_scanner(rng: np.random.Generator) -> Scanner:
    """A random kernel and dose: noise 8 to 85 HU, log-uniform; sharp kernels are noisier than smooth ones."""
    noise_hu = float(np.exp(rng.uniform(np.log(8), np.log(85))))
    sharp = rng.random() < (0.75 if noise_hu > 35 else 0.3)
    return Scanner(
        blur=rng.uniform(0.3, 0.6) if sharp else rng.uniform(0.5, 0.95),
        blur_z=rng.uniform(0.3, 0.8),
        sharpen=rng.uniform(0.3, 1.0) if sharp else rng.uniform(0, 0.3),
        noise_hu=noise_hu,
        grain=rng.uniform(0.35, 0.6) if sharp else rng.uniform(0.55, 1.1),
        streak_hu=rng.uniform(5, 40) if rng.random() < 0.2 else 0.0,
        offset_hu=rng.uniform(-40, 40),
        scale=rng.uniform(0.95, 1.05),
        floor_hu=(-1000.0, -1024.0, None)[rng.integers(3)],
        motion_voxels=(rng.uniform(-2.5, 2.5), rng.uniform(-1.5, 1.5)) if rng.random() < 0.12 else (0.0, 0.0),
    )


def scan(clean_hu: NDArray, scanner: Scanner, rng: np.random.Generator) -> Field:
    """The clean picture (Z, Y, X) in HU as the scanner shows it, float32."""
    sigma = (scanner.blur_z, scanner.blur, scanner.blur)
    hu = np.asarray(clean_hu, np.float32)
    if any(scanner.motion_voxels):
        hu = moved(hu, scanner.motion_voxels)
    hu = gaussian_filter(hu, sigma, truncate=3)
    if scanner.sharpen > 0:
        hu += np.float32(scanner.sharpen) * (hu - gaussian_filter(hu, (0.5, 1.2, 1.2), truncate=3))
    hu += noise(hu.shape, scanner.noise_hu, scanner.grain, rng)
    if scanner.streak_hu > 0:
        hu += streaks(hu.shape, scanner.streak_hu, rng)
    hu = (hu + np.float32(1000)) * np.float32(scanner.scale) - np.float32(1000 - scanner.offset_hu)
    if scanner.floor_hu is not None:
        np.maximum(hu, np.float32(scanner.floor_hu), out=hu)
    return hu


def moved(hu: Field, voxels: tuple[float, float]) -> Field:
    """Double contours where heart and diaphragm move: the lower half's slices mixed with themselves moved in plane."""
    count = len(hu)
    share = 0.5 * np.clip(np.linspace(2, -2, count), 0, 1).astype(np.float32)
    lower = np.flatnonzero(share)
    out = hu.copy()
    out[lower] += (shift(hu[lower], (0, *voxels), order=1, mode="nearest") - hu[lower]) * share[lower, None, None]
    return out


def whole_hu(hu: NDArray) -> NDArray[np.int16]:
    """HU as a CT's file keeps them: rounded, from -1024 to 3071."""
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def noise(shape: tuple[int, ...], sd_hu: float, grain: float, rng: np.random.Generator) -> Field:
    """Correlated Gaussian noise of standard deviation ``sd_hu`` and grain of ``grain`` voxels."""
    field = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), (grain * 0.7, grain, grain), truncate=3)
    return field * np.float32(sd_hu / max(float(field.std()), 1e-6))


def streaks(shape: tuple[int, ...], sd_hu: float, rng: np.random.Generator) -> Field:
    """Parallel streaks across each slice, as between the shoulders: constant along x, slowly changing along z."""
    rows = gaussian_filter(rng.standard_normal(shape[:2], dtype=np.float32), (1.5, 0.7))
    return (rows * np.float32(sd_hu / max(float(rows.std()), 1e-6)))[:, :, None]
