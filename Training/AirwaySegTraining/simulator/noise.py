"""Noise and streaks of a CT scanner. Arrays are (Z, Y, X), axial slices first."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from AirwaySegTraining.simulator.rendering import enlarge

Field = NDArray[np.floating]

SLAB = 16
"""Number of slices that are filtered at once."""

STREAK_STEP = 0.5
"""Distance in voxels between the samples of a streak's profile."""


@dataclass(frozen=True)
class Grain:
    """Texture of noise: its size in voxels in plane and along z, and its variation over the image.

    Along the direction ``turn`` (radians from x) the grain is ``longer`` times as long as across it. ``ramp``
    suppresses low frequencies, as filtered back-projection does (0: none, 1: all). ``uneven`` is the spread of the
    logarithm of the standard deviation over the image.
    """

    size: float
    along_z: float
    longer: float = 1.0
    turn: float = 0.0
    ramp: float = 0.0
    uneven: float = 0.0


def noise(shape: tuple[int, int, int], sd_hu: float, grain: Grain, rng: np.random.Generator) -> Field:
    """Correlated Gaussian noise of mean standard deviation ``sd_hu``."""
    if sd_hu <= 0:
        return np.zeros(shape, np.float32)
    height, width = (next_fast_len(count, real=True) for count in shape[1:])
    pass_through = _transfer(height, width, grain)
    field = np.empty(shape, np.float32)
    white = rng.standard_normal((shape[0], height, width), dtype=np.float32)
    if grain.along_z > 0.2:
        white = gaussian_filter1d(white, grain.along_z, axis=0, truncate=3, mode="wrap")
    for start in range(0, shape[0], SLAB):
        slices = slice(start, start + SLAB)
        turned = irfft2(rfft2(white[slices]) * pass_through, (height, width))
        field[slices] = turned[:, : shape[1], : shape[2]]
    field *= np.float32(sd_hu / max(float(field.std()), 1e-6))
    if grain.uneven > 0:
        field *= _unevenness(shape, grain.uneven, rng)
    return field


def _transfer(height: int, width: int, grain: Grain) -> Field:
    """Transfer function in plane: the factor for each spatial frequency."""
    slow = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    cosine, sine = np.cos(grain.turn), np.sin(grain.turn)
    along, across = slow[1] * cosine + slow[0] * sine, slow[0] * cosine - slow[1] * sine
    damped = np.exp(-2 * (np.pi * grain.size) ** 2 * ((grain.longer * along) ** 2 + across**2))
    radial = np.hypot(*slow)
    return (damped * (1 - grain.ramp + grain.ramp * radial / 0.5)).astype(np.float32)


def _unevenness(shape: tuple[int, int, int], spread: float, rng: np.random.Generator) -> Field:
    """Smooth factors about 1."""
    coarse = gaussian_filter(rng.standard_normal((5, 5, 5), dtype=np.float32), 0.7)
    coarse *= np.float32(spread / max(float(coarse.std()), 1e-6))
    return enlarge(np.exp(coarse), shape, slice(None))


def streaks(shape: tuple[int, int, int], sd_hu: float, turn: float, fan: float, rng: np.random.Generator) -> Field:
    """Streaks in each slice along the direction ``turn`` (radians from x), slowly changing along z.

    They are parallel if ``fan`` is 0, as between the shoulders; otherwise they radiate from a dense object at a
    distance of ``1 / fan`` times the image's width, and fade with the distance from it.
    """
    depth, height, width = shape
    y, x = np.indices((height, width), dtype=np.float32)
    x, y = x - width / 2, y - height / 2
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    strength = np.float32(1)
    if fan > 0:
        away = width / fan
        across = np.arctan2(across, along + away) * away
        strength = np.clip(away / np.maximum(np.hypot(along + away, across), away / 3), 0, 2)
    position = across / STREAK_STEP
    position -= position.min()
    samples = int(position.max()) + 2
    line = gaussian_filter(rng.standard_normal((depth, samples), dtype=np.float32), (1.5, 1.4))
    line *= np.float32(sd_hu / max(float(line.std()), 1e-6))
    number = position.astype(np.int32)
    return (line[:, number] * strength).astype(np.float32)
