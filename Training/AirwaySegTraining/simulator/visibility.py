"""Which parts of a drawn airway tree a CT shows: a dark lumen within a brighter ring, measured in the drawn image.

Most airways of a lung are thinner than a CT can show: a drawn tree has 8 m, masks of real CTs have 1 m (slices of 3 mm)
to 4 m. A network that is taught to find what nothing shows learns to guess. Letters in shapes: P points of a branch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, uniform_filter1d

from AirwaySegLib.masks.rays import rays_across
from AirwaySegLib.tree.centerline import tangents
from AirwaySegTraining.simulator.growth import Branch, Points

Field = NDArray[np.floating]

SECTORS, RAYS_OF_SECTOR, STEPS = 8, 3, 9
"""Rays across a lumen, in sectors, and samples along each ray."""

ALONG_STEPS = 5
"""Points of a branch (0.7 mm apart) over which the rays' HU are averaged."""

BRIGHTER_SECTORS = 7
"""Sectors in which the ring must be brighter than the centre; the contrast is what so many of them have."""

CONTRAST_HU, NOISE_TIMES = 55.0, 1.5
"""A lumen is shown from this contrast on, and from so many times the noise; the mean over a sector and along the branch
leaves about half of it, so that 1.5 times is three standard deviations."""

ABSENT_HU = 25.0
"""A lumen of less contrast than this looks as if there were none: nobody could find it, and it is no airway."""

ABSENT, AIRWAY, LEFT_OUT = 0, 1, 2
"""Values of the label."""

FOLLOWED_MM = 5.0
"""A person follows an airway over so much that is not shown, if it is shown again behind; mucus and collapsed parts do
not count."""


@dataclass(frozen=True)
class Image:
    """A CT without noise in HU (Z, Y, X), its spacing in mm, the middle of its first slice, and the scan's noise."""

    hu: Field
    spacing_mm: tuple[float, float, float]
    first_z_mm: float
    noise_hu: float = 0.0

    def is_above_or_below(self, points_mm: Points) -> NDArray[np.bool_]:
        """Which points (P, 3), in mm from the scan's first voxel, lie outside the image along z."""
        first, step = self.first_z_mm, self.spacing_mm[0]
        return (points_mm[:, 0] < first) | (points_mm[:, 0] > first + (len(self.hu) - 1) * step)

    def sampled(self, points_mm: Points) -> NDArray[np.float32]:
        """HU at points (..., 3) in mm from the scan's first voxel."""
        index = np.moveaxis(points_mm - np.array([self.first_z_mm, 0, 0]), -1, 0)
        index = index / np.reshape(self.spacing_mm, (3,) + (1,) * (points_mm.ndim - 1))
        return map_coordinates(self.hu, index, order=1, mode="nearest", output=np.float32)


def lumen_contrast_hu(image: Image, branch: Branch, points_mm: Points, wall_mm: float) -> NDArray[np.float32]:
    """By how many HU the lumen is darker than the ring around it at a branch's points, given in the scan's mm; (P,).

    The centre is the mean of the axis and of the ring at half of the radius, the ring each sector's brightest step from
    there to half a voxel outside the wall.
    """
    rays = rays_across(tangents(points_mm), SECTORS * RAYS_OF_SECTOR)
    voxel_mm = 1 / np.linalg.norm(rays / image.spacing_mm, axis=2)  # (P, rays)
    first_mm = 0.5 * branch.radii_mm[:, None]
    last_mm = branch.radii_mm[:, None] * max(1, 1 / branch.squash) + wall_mm + 0.5 * voxel_mm
    far_mm = first_mm + np.linspace(0, 1, STEPS)[:, None, None] * (last_mm - first_mm)  # (STEPS, P, rays)
    rings = image.sampled(points_mm[:, None] + far_mm[..., None] * rays)
    rings = rings.reshape(STEPS, len(points_mm), SECTORS, RAYS_OF_SECTOR).mean(axis=3)
    centre = (image.sampled(points_mm) + rings[0].mean(axis=1)) / 2
    centre = uniform_filter1d(centre, ALONG_STEPS, mode="nearest")
    rings = uniform_filter1d(rings, ALONG_STEPS, axis=1, mode="nearest")
    return np.sort(rings.max(axis=0) - centre[:, None], axis=1)[:, SECTORS - BRIGHTER_SECTORS]


def followed(
    airways: list[Branch], seen: list[NDArray[np.bool_]], free: list[NDArray[np.bool_]]
) -> list[NDArray[np.bool_]]:
    """What a person would mark from what is seen at each point: gaps of up to `FOLLOWED_MM`, too, not more.

    Mucus is never marked, a compressed part only where it is seen; the lumen behind them counts, however long they are.
    The way to a point that is ``free`` is no gap either.
    """
    steps = [_hidden_steps_mm(branch, which) for branch, which in zip(airways, free, strict=True)]
    before, behind = _hidden_before(airways, seen, steps), _hidden_behind(airways, seen, steps)
    marked = []
    for branch, one, gap, after in zip(airways, seen, before, behind, strict=True):
        passed = (gap + after <= FOLLOWED_MM) & (not branch.narrowed)
        marked.append((gap <= FOLLOWED_MM) & (one | passed) & (not branch.plugged))
    return marked


def _hidden_steps_mm(branch: Branch, free: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How much hidden length the step to each point of a branch counts, (P,)."""
    steps = np.linalg.norm(np.diff(branch.points_mm, axis=0, prepend=branch.points_mm[:1]), axis=1)
    return steps * ~free * (not branch.plugged and not branch.narrowed)


def _hidden_before(
    airways: list[Branch], seen: list[NDArray[np.bool_]], steps: list[NDArray[np.float64]]
) -> list[NDArray[np.float64]]:
    """Hidden length in mm between each point and the last seen one towards the trachea; inf behind a longer gap."""
    result: list[NDArray[np.float64]] = []
    for branch, one, steps_mm in zip(airways, seen, steps, strict=True):
        gap_mm = float(result[branch.parent][-1]) if branch.parent >= 0 else 0.0
        gaps = np.empty(len(one))
        for index, step_mm in enumerate(steps_mm):
            gap_mm += step_mm
            if gap_mm > FOLLOWED_MM:
                gap_mm = np.inf
            elif one[index]:
                gap_mm = 0.0
            gaps[index] = gap_mm
        result.append(gaps)
    return result


def _hidden_behind(
    airways: list[Branch], seen: list[NDArray[np.bool_]], steps: list[NDArray[np.float64]]
) -> list[NDArray[np.float64]]:
    """Hidden length in mm between each point and the nearest seen one away from the trachea; inf if there is none."""
    nearest = np.full(len(airways), np.inf)
    result: list[NDArray[np.float64]] = [np.empty(0)] * len(airways)
    for number in range(len(airways) - 1, -1, -1):
        branch, one = airways[number], seen[number]
        gap_mm, gaps = float(nearest[number]), np.empty(len(one))
        for index in range(len(one) - 1, -1, -1):
            gap_mm = 0.0 if one[index] else gap_mm
            gaps[index] = gap_mm
            gap_mm += float(steps[number][index])
        result[number] = gaps
        if branch.parent >= 0:
            nearest[branch.parent] = min(nearest[branch.parent], gap_mm)
    return result


def _in_parent(airways: list[Branch], branch: Branch) -> NDArray[np.bool_]:
    """Which points of a branch lie within its parent's lumen, (P,): no ring is around it there."""
    if branch.parent < 0:
        return np.zeros(len(branch.points_mm), bool)
    parent = airways[branch.parent]
    return np.linalg.norm(branch.points_mm - parent.points_mm[-1], axis=1) <= parent.radii_mm[-1]


def labelled(
    image: Image, airways: list[Branch], scan_mm: list[Points], walls_mm: list[float]
) -> list[NDArray[np.uint8]]:
    """The label of each point of a tree in this image: `AIRWAY`, `LEFT_OUT` or `ABSENT`.

    Airway is what a person would mark, left out what is faint, filled with mucus, or not connected with the rest.
    ``scan_mm`` are the branches' points in mm from the scan's first voxel; they are close together (`growth.finer`).
    """
    return labelled_at(image, airways, scan_mm, walls_mm, (image.noise_hu,))[0]


def labelled_at(
    image: Image, airways: list[Branch], scan_mm: list[Points], walls_mm: list[float], noises_hu: Sequence[float]
) -> list[list[NDArray[np.uint8]]]:
    """What `labelled` gives at each of several noises, in their order; the image's own does not count."""
    contrasts = [lumen_contrast_hu(image, *one) for one in zip(airways, scan_mm, walls_mm, strict=True)]
    free = [
        _in_parent(airways, branch) | image.is_above_or_below(points_mm)
        for branch, points_mm in zip(airways, scan_mm, strict=True)
    ]
    return [_by_contrast(airways, contrasts, free, max(CONTRAST_HU, NOISE_TIMES * noise)) for noise in noises_hu]


def _by_contrast(
    airways: list[Branch], contrasts: list[NDArray[np.float32]], free: list[NDArray[np.bool_]], least_hu: float
) -> list[NDArray[np.uint8]]:
    """The label of each point if a lumen is seen from a contrast of ``least_hu`` on."""
    seen = [(contrast >= least_hu) & (not branch.plugged) for branch, contrast in zip(airways, contrasts, strict=True)]
    return [
        np.where(marked, AIRWAY, np.where((contrast < ABSENT_HU) & (not branch.plugged), ABSENT, LEFT_OUT)).astype(
            np.uint8
        )
        for branch, contrast, marked in zip(airways, contrasts, followed(airways, seen, free), strict=True)
    ]


def parts(branch: Branch, label: NDArray[np.uint8]) -> list[tuple[int, Branch]]:
    """A branch cut where the label of its points changes, with each part's label; a step between two is left out."""
    steps = np.where(label[:-1] == label[1:], label[1:], LEFT_OUT)
    edges = np.flatnonzero(np.diff(steps)) + 1
    pieces = [slice(int(first), int(last) + 1) for first, last in zip([0, *edges], [*edges, len(steps)])]
    return [
        (int(steps[piece.start]), replace(branch, points_mm=branch.points_mm[piece], radii_mm=branch.radii_mm[piece]))
        for piece in pieces
    ]
