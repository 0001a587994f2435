"""How a CT shows a tube: the blurred profile from its middle outwards, and the tube that fits measured profiles.

Letters in shapes: R rays, K samples of a ray. Radii are in mm, values in HU. The blur is Gaussian.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import chndtr, i0e, ndtr

Floats = NDArray[np.floating]

FARTHEST, STEPS = 6.0, 481
"""The tables of a disc's edge reach so many standard deviations of the blur to both sides, in so many steps."""

MOST_CURVED, CURVES = 2.0, 161
"""Their other axis: the standard deviation of the blur over the disc's radius, up to this value."""

ITERATIONS = 6
LEAST_THICKNESS_MM, LEAST_RADIUS_MM = 0.05, 0.3
WALL_SD_HU, LUNG_SD_HU = 60.0, 100.0
"""How far a wall's density may be from the scan's, and the lung's behind the wall from that seen on the ray."""

NOISE_HU = 60.0
"""Noise against which these are weighed: that of a sample, more as neighbouring samples share theirs."""


@cache
def _tables() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Value of a blurred disc at ``d`` standard deviations outside its edge, and its derivative by the radius.

    A disc of radius R blurred by a Gaussian of standard deviation s has at r from its middle the probability that a
    point, displaced by the blur, is within the disc: the noncentral chi-squared distribution of R^2 / s^2 with two
    degrees of freedom and noncentrality r^2 / s^2. Its derivative by R / s is R / s exp(-(r^2 + R^2) / 2 s^2)
    I0(r R / s^2). A straight edge (curvature 0) has the normal distribution. Both are (CURVES * STEPS,).
    """
    away = np.linspace(-FARTHEST, FARTHEST, STEPS)
    values, slopes = np.empty((CURVES, STEPS)), np.empty((CURVES, STEPS))
    values[0], slopes[0] = ndtr(-away), np.exp(-(away**2) / 2) / np.sqrt(2 * np.pi)
    for row, curvature in enumerate(np.linspace(0, MOST_CURVED, CURVES)[1:], start=1):
        radius = 1 / curvature
        at = np.maximum(radius + away, 0)
        values[row] = chndtr(radius**2, 2, at**2)
        slopes[row] = radius * np.exp(-((at - radius) ** 2) / 2) * i0e(at * radius)
    return values.ravel().astype(np.float32), slopes.ravel().astype(np.float32)


def disc(r_mm: Floats, radius_mm: Floats, blur_mm: Floats) -> tuple[Floats, Floats]:
    """Value at ``r_mm`` (R, K) from the middle of a blurred disc of value 1, and its derivative by the radius in 1/mm.

    ``radius_mm`` and ``blur_mm`` are (R,); the blur may be up to `MOST_CURVED` times the radius.
    """
    values, slopes = _tables()
    row = np.rint(np.minimum(blur_mm / radius_mm, MOST_CURVED) * ((CURVES - 1) / MOST_CURVED)).astype(np.intp) * STEPS
    column = ((r_mm - radius_mm[:, None]) / blur_mm[:, None] + FARTHEST) * ((STEPS - 1) / (2 * FARTHEST))
    column = np.clip(column, 0, STEPS - 1.001).astype(np.float32)
    before = column.astype(np.intp)
    part = column - before
    at = before + row[:, None]
    value = values[at] + part * (values[at + 1] - values[at])
    slope = slopes[at] + part * (slopes[at + 1] - slopes[at])
    return value, slope / blur_mm[:, None].astype(np.float32)


@dataclass(frozen=True)
class Tubes:
    """Tubes that were fitted to rays, (R,) each: inner radius, thickness, densities, and the fit's error in HU."""

    inner_mm: Floats
    thickness_mm: Floats
    wall_hu: Floats
    lung_hu: Floats
    error_hu: Floats


@dataclass(frozen=True)
class Rays:
    """Profiles: HU (R, K) at distances ``r_mm`` (R, K) from the middle, which of them count (R, K), the blur (R,)."""

    r_mm: Floats
    hu: Floats
    counts: NDArray[np.bool_]
    blur_mm: Floats

    def part(self, rows: NDArray) -> "Rays":
        """Some of the rays."""
        return Rays(self.r_mm[rows], self.hu[rows], self.counts[rows], self.blur_mm[rows])


def fit_tubes(rays: Rays, start: Tubes, air_hu: float, wall_hu: float) -> Tubes:
    """The blurred tube that is nearest to each ray by least squares (Gauss-Newton).

    ``start`` gives the first inner radius, thickness and lung.

    Where the wall is thinner than the blur only the product of its thickness and its contrast is seen, so its density
    is held near the scan's ``wall_hu`` by a prior. A thick wall shows its own density. This is the model-based
    measurement of Reinhardt et al. 1997 (doi 10.1109/42.650881) with round instead of straight edges.
    """
    weight = rays.counts.astype(np.float32)
    hu, r_mm = rays.hu.astype(np.float32), rays.r_mm.astype(np.float32)
    inner, thick = np.maximum(start.inner_mm, LEAST_RADIUS_MM), start.thickness_mm.copy()
    wall, lung = np.full(len(inner), wall_hu), start.lung_hu.copy()
    for _ in range(ITERATIONS):
        in_lumen, lumen_slope = disc(r_mm, inner, rays.blur_mm)
        in_tube, tube_slope = disc(r_mm, inner + thick, rays.blur_mm)
        contrast, drop = ((wall - base)[:, None].astype(np.float32) for base in (lung, air_hu))
        rest = (hu - (lung[:, None].astype(np.float32) + contrast * in_tube - drop * in_lumen)) * weight
        gradient = np.stack(
            [contrast * tube_slope - drop * lumen_slope, contrast * tube_slope, in_tube - in_lumen, 1 - in_tube],
            axis=-1,
        )
        gradient *= weight[..., None]
        turned = gradient.swapaxes(1, 2)
        normal, right = (turned @ gradient).astype(float), (turned @ rest[..., None])[..., 0].astype(float)
        for column, (value, usual, sd) in enumerate(
            ((wall, wall_hu, WALL_SD_HU), (lung, start.lung_hu, LUNG_SD_HU)), 2
        ):
            stiff = (NOISE_HU / sd) ** 2
            normal[:, column, column] += stiff
            right[:, column] += stiff * (usual - value)
        normal[:, [0, 1], [0, 1]] += 1e4  # a ridge of 100 HU per mm keeps a step finite where nothing is seen
        step = np.linalg.solve(normal, right[..., None])[..., 0]
        inner = np.maximum(inner + np.clip(step[:, 0], -0.5, 0.5), LEAST_RADIUS_MM)
        thick = np.maximum(thick + np.clip(step[:, 1], -0.5, 0.5), LEAST_THICKNESS_MM)
        wall, lung = wall + step[:, 2], lung + step[:, 3]
    error = np.sqrt((rest**2).sum(axis=1) / np.maximum(weight.sum(axis=1), 1)).astype(float)
    return Tubes(inner, thick, wall, lung, error)
