"""Is there a lumen in the CT at each point of a centerline: a dark centre within a brighter ring?

Used by `real.py`, which also says how often the rule is met by chance (`evidence_by_chance`). Letters in shapes: S
points of all centerlines of a parsed mask, in mm from the corner of its box.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from AirwaySegLib.tree.build import ParsedAirways
from AirwaySegLib.tree.centerline import tangents

SECTORS, RAYS_OF_SECTOR = 8, 3
"""The ring is looked at in sectors; a mean over the rays of one, and along the line, is what noise is taken out by."""

ALONG_MM = 3.0
"""Profiles are averaged over so much of the line, to both sides together; no less than three points."""

WALL_MM, WALL_VOXELS = 2.0, 0.5
"""The wall's peak is looked for up to so far outside the mask's edge, and so many voxels (of the ray's direction)."""

STEPS = 9
"""Samples along each ray, from half of the radius to the reach for the wall."""

CONTRAST_HU = 60.0
"""In `BRIGHTER_SECTORS` of the sectors the peak must be brighter than the centre by so much, and by `NOISE_TIMES` the
noise of the averaged profiles."""

BRIGHTER_SECTORS = 7
NOISE_TIMES = 3.0

MOVED_MM = 8.0
"""Lines moved sideways by so much, to all six sides, are what chance is measured on, if they then run through lung:"""

LUNG_HU = (-980.0, -600.0)
"""median of the profiles between these, and no airway of the mask within `CLEAR_MM`."""

CLEAR_MM = 4.0
THIN_MM = 2.5
"""Only lumens of smaller radii are moved: a wide ring lies around vessels in any lung."""


def lumen_evidence(hu: NDArray, parsed: ParsedAirways) -> NDArray[np.bool_]:
    """Whether the CT shows a lumen at each point of the centerlines, (S,).

    Found on good centerlines: 98 % of the points with radii from 1.5 mm on, 80 to 85 % from 1 to 1.5 mm, 40 % below
    (1.25 mm slices); by chance 2 to 4 %.

    ``hu`` (Z, Y, X) is the CT on the parsed mask's canonical grid. Across the line at each point HU are sampled on
    `SECTORS` times `RAYS_OF_SECTOR` rays. The centre is the mean within half of the lumen's radius, each sector's peak
    the largest of its means at growing distance from there to `WALL_MM` outside the lumen. All of them are means along
    `ALONG_MM` of the line, so that a single noisy voxel makes neither a centre nor a wall.
    """
    places, radii, along = _frames(parsed)
    return _evidence_at(hu, parsed, places, radii, along)[0]


def evidence_by_chance(hu: NDArray, parsed: ParsedAirways) -> float:
    """Share of the points of thin centerlines at which the rule is met once they are moved into lung; NaN for none."""
    places, radii, along = _frames(parsed)
    clear = cKDTree(parsed.lumen.places_mm)
    points = met = 0
    for axis in range(3):
        for side in (-MOVED_MM, MOVED_MM):
            moved = places + side * np.eye(3)[axis]
            found, median_hu = _evidence_at(hu, parsed, moved, radii, along)
            counts = (median_hu > LUNG_HU[0]) & (median_hu < LUNG_HU[1]) & (radii < THIN_MM)
            counts[counts] = clear.query(moved[counts], distance_upper_bound=CLEAR_MM)[0] > CLEAR_MM
            points, met = points + np.count_nonzero(counts), met + np.count_nonzero(found & counts)
    return met / points if points else math.nan


def _evidence_at(
    hu: NDArray, parsed: ParsedAirways, places: NDArray, radii: NDArray, along: NDArray
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Whether the rule is met at points (S, 3) with radii (S,) and directions (S, 3), and their profiles' median HU."""
    centre, sectors = _profiles(hu, parsed, places, radii, along)
    median_hu = np.median(sectors.reshape(len(places), -1), axis=1)
    lines = parsed.lines
    for number in range(len(lines.starts) - 1):
        part = lines.of(number)
        steps = np.diff(lines.along_mm[part])
        width = max(3, round(ALONG_MM / max(float(steps.mean()), 0.1))) if len(steps) else 1
        centre[part] = ndimage.uniform_filter1d(centre[part], width, axis=0, mode="nearest")
        sectors[part] = ndimage.uniform_filter1d(sectors[part], width, axis=0, mode="nearest")
    least_hu = max(CONTRAST_HU, NOISE_TIMES * profile_noise_hu(sectors))
    brighter = sectors.max(axis=1) - centre[:, None] >= least_hu
    return np.count_nonzero(brighter, axis=1) >= BRIGHTER_SECTORS, median_hu


def profile_noise_hu(sectors: NDArray[np.float32]) -> float:
    """Noise of averaged profiles (S, STEPS, SECTORS), robust: what neighbouring sectors differ by at the smallest
    distance, where there is nothing but lumen."""
    differences = np.diff(sectors[:, 0], axis=1)
    return float(1.4826 * np.median(np.abs(differences)) / np.sqrt(2))


def _frames(parsed: ParsedAirways) -> tuple[NDArray, NDArray, NDArray]:
    lines = parsed.lines
    along = np.concatenate([tangents(lines.places_mm[lines.of(k)]) for k in range(len(lines.starts) - 1)])
    return lines.places_mm, lines.radii_mm, along


def _profiles(
    hu: NDArray, parsed: ParsedAirways, places: NDArray, radii: NDArray, along: NDArray
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """HU at the centre (S,) and of each step and sector (S, STEPS, SECTORS), not yet averaged along the lines."""
    across, over = _perpendicular(along)
    turns = 2 * np.pi * np.arange(SECTORS * RAYS_OF_SECTOR) / (SECTORS * RAYS_OF_SECTOR)
    rays = np.cos(turns)[:, None] * across[:, None] + np.sin(turns)[:, None] * over[:, None]  # (S, rays, 3)
    spacing = np.asarray(parsed.grid.spacing_mm)
    voxel_mm = 1 / np.maximum(np.linalg.norm(rays / spacing, axis=2), 1e-9)
    reach_mm = radii[:, None] + WALL_MM + WALL_VOXELS * voxel_mm
    first_mm = 0.5 * radii[:, None]
    sectors = np.empty((len(places), STEPS, SECTORS), np.float32)
    for step, share in enumerate(np.linspace(0, 1, STEPS)):
        far_mm = first_mm + share * (reach_mm - first_mm)
        values = _sampled(hu, parsed, places[:, None] + far_mm[:, :, None] * rays)
        sectors[:, step] = values.reshape(len(places), SECTORS, RAYS_OF_SECTOR).mean(axis=2)
    centre = (_sampled(hu, parsed, places) + sectors[:, 0].mean(axis=1)) / 2
    return centre, sectors


def _sampled(hu: NDArray, parsed: ParsedAirways, places_mm: NDArray) -> NDArray[np.float32]:
    corner = np.array([part.start for part in parsed.box])
    voxels = places_mm / np.asarray(parsed.grid.spacing_mm) + corner
    return ndimage.map_coordinates(hu, np.moveaxis(voxels, -1, 0), order=1, mode="nearest", output=np.float32)


def _perpendicular(along: NDArray) -> tuple[NDArray, NDArray]:
    """Two unit vectors (S, 3) across each line; sectors keep their direction as far as the line does."""
    least = np.abs(along).argmin(axis=1)
    across = np.cross(along, np.eye(3)[least])
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    return across, np.cross(along, across)
