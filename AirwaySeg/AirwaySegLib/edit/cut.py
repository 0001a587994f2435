"""Cutting airways: all beyond a point, and a leak at its narrowest place between two sides.

Both return the voxels to remove, which the caller takes out of the mask.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from AirwaySegLib.edit.scan import Crop, Scan, Voxels
from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.masks.minimum_cut import minimum_cut
from AirwaySegLib.masks.sparse_mask import Lumen

NEAR_MM = 5.0
"""A point so near to the airways stands for their nearest voxel."""

_SECTION_MM = 18.0
"""Half the side of the cube in which cross-sections are looked at: wider than a trachea."""

_DIRECTIONS = 150
"""Planes through the point that are compared."""

_THICK = 0.9
"""Half the thickness of a cross-section in voxels (of the longest side): what it parts does not touch."""

_LEAST_PIECE = 2
"""Smaller pieces are crumbs of the section, and are removed with it."""

_AROUND_MM = 8.0
"""The minimum cut between two sides is looked for in their box and this margin."""

_SIDE_MM = 1.0
"""What lies so near to a clicked side surely belongs to it, and so does the widest ball in which the lumen around it
widens: the fewest voxels are otherwise those around the click itself."""


@dataclass(frozen=True, eq=False)
class Cut:
    """Voxels (N, 3) int32 to remove, N >= 1, and those of them (M, 3) that are the cross-section itself."""

    voxels: Voxels
    section_voxels: Voxels

    @property
    def section(self) -> int:
        """The number of voxels of the cross-section."""
        return len(self.section_voxels)

    def flat(self, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """The voxels' indices (N,) in the flattened grid, ascending."""
        return np.sort(np.ravel_multi_index(tuple(self.voxels.T), shape))


def beyond(scan: Scan, point: NDArray, keep: NDArray | None = None, keep_anywhere: bool = False) -> Cut:
    """What hangs on the tree beyond the narrowest cross-section through a point (3,), fractions of voxels allowed.

    The side that holds ``keep`` stays, by default the larger one. With ``keep_anywhere`` it may lie in airways that are
    not connected to the point; then the larger side stays.

    Raises
    ------
    AirwaySegError
        If the airways are not within `NEAR_MM` of the point, a cut there parts nothing, or ``keep`` is not connected.
    """
    lumen = _lumen(scan)
    row = _nearest(lumen, point, scan)
    section = _narrowest(lumen, row, scan)
    stays = None if keep is None else _nearest(lumen, keep, scan, "point to keep")
    if stays is not None and lumen.components[stays] != lumen.components[row]:
        if not keep_anywhere:
            raise AirwaySegError("The point to keep is not connected to the point of the cut.")
        stays = None
    return _cut(lumen, section, stays, scan, lumen.components == lumen.components[row])


def between(scan: Scan, this: NDArray, that: NDArray) -> Cut:
    """What hangs on the airways at ``that`` (3,), parted from ``this`` (3,), which stays, by the fewest voxels.

    Of equally many the least probable ones are taken, where the scan has a probability.

    Raises
    ------
    AirwaySegError
        If a side is not within `NEAR_MM` of the airways, both are not connected, or lie too close together.
    """
    lumen = _lumen(scan)
    one, other = _nearest(lumen, this, scan), _nearest(lumen, that, scan)
    if lumen.components[one] != lumen.components[other]:
        raise AirwaySegError("The two sides are not connected: there is nothing to cut between them.")
    corner = np.array(_box(scan).low)
    box = Crop.around(lumen.voxels[[one, other]] + corner, _AROUND_MM, scan.spacing_mm, scan.shape)
    low = np.array(box.low) - corner
    near = np.flatnonzero(((lumen.voxels >= low) & (lumen.voxels < low + box.shape)).all(axis=1))
    source, sink = _sides(lumen, near, (one, other))
    if (source & sink).any():
        raise AirwaySegError("The two sides lie too close together to cut between them.")
    values = np.zeros(len(near))
    if scan.probability is not None:
        values = scan.probability.within(box)[tuple((lumen.voxels[near] - low).T)].astype(float) / 16
    section = near[minimum_cut(lumen.voxels[near], values, source, sink)]
    if not len(section):
        raise AirwaySegError("The two sides lie too close together to cut between them.")
    return _cut(lumen, section, one, scan, lumen.components == lumen.components[one], other)


def _sides(lumen: Lumen, near: NDArray[np.intp], clicks: tuple[int, int]) -> tuple[NDArray[np.bool_], ...]:
    """Which of the rows ``near`` surely belong to either click, by whose rows they are given."""
    places_mm = lumen.places_mm[near]
    around = [np.linalg.norm(places_mm - lumen.places_mm[click], axis=1) <= _SIDE_MM for click in clicks]
    low = lumen.voxels[near].min(axis=0) - 1
    inside = np.zeros(lumen.voxels[near].max(axis=0) - low + 2, bool)
    inside[tuple((lumen.voxels[near] - low).T)] = True
    wall_mm = ndimage.distance_transform_edt(inside, lumen.spacing_mm)
    balls = []
    for click in clicks:
        middle = _climbed(wall_mm, lumen.voxels[click] - low)
        apart_mm = np.linalg.norm(places_mm - (middle + low) * np.asarray(lumen.spacing_mm), axis=1)
        balls.append(apart_mm < wall_mm[tuple(middle)])
    if (balls[0] & (balls[1] | around[1])).any() or (balls[1] & around[0]).any():
        return tuple(around)
    return tuple(side | ball for side, ball in zip(around, balls, strict=True))


def _climbed(wall_mm: NDArray[np.float64], voxel: NDArray) -> NDArray[np.intp]:
    """The voxel (3,) that is reached from one by going to the neighbour farthest from the wall, again and again."""
    here = np.array(voxel, np.intp)
    while True:
        around = wall_mm[tuple(slice(index - 1, index + 2) for index in here)]
        best = np.unravel_index(int(around.argmax()), around.shape)
        if around[best] <= wall_mm[tuple(here)]:
            return here
        here = here + np.array(best) - 1


def _box(scan: Scan) -> Crop:
    """The part of the scan that its airways' array covers."""
    z, y, x = (int(count) for count in scan.airways.array.shape)
    return Crop(scan.airways.corner, (z, y, x))


def _lumen(scan: Scan) -> Lumen:
    """The airways as a list of voxels, counted from their array's corner."""
    lumen = Lumen.of(scan.airways.array, scan.spacing_mm)
    if not len(lumen):
        raise AirwaySegError("The airways are empty: there is nothing to cut.")
    return lumen


def _nearest(lumen: Lumen, point: NDArray, scan: Scan, what: str = "point") -> int:
    """The row of the airway voxel nearest to a point of the scan."""
    place_mm = (np.asarray(point, float) - scan.airways.corner) * np.asarray(scan.spacing_mm)
    if not np.isfinite(place_mm).all():
        raise AirwaySegError("There is no point to cut at.")
    apart_mm = np.linalg.norm(lumen.places_mm - place_mm, axis=1)
    row = int(apart_mm.argmin())
    if apart_mm[row] > NEAR_MM:
        raise AirwaySegError(f"The {what} lies {apart_mm[row]:.0f} mm from the airways: there is nothing to cut.")
    return row


def _narrowest(lumen: Lumen, row: int, scan: Scan) -> NDArray[np.intp]:
    """The rows of the cross-section through a voxel that has the fewest voxels and divides what is around it."""
    reach = np.ceil(_SECTION_MM / np.asarray(scan.spacing_mm)).astype(int)
    middle = lumen.voxels[row]
    near = np.flatnonzero((np.abs(lumen.voxels - middle) <= reach).all(axis=1))
    away_mm = lumen.places_mm[near] - lumen.places_mm[row]
    low = lumen.voxels[near].min(axis=0)
    places = tuple((lumen.voxels[near] - low).T)
    shape = np.max(places, axis=1) + 1
    best: NDArray[np.intp] | None = None
    for normal in _half_sphere(_DIRECTIONS):
        in_plane = np.abs(away_mm @ normal) <= _THICK * float(np.abs(normal) @ scan.spacing_mm)
        if best is not None and in_plane.sum() < len(best) // 2:
            continue
        flat = np.zeros(shape, np.int32)
        flat[tuple(axis[in_plane] for axis in places)] = 1
        labels, _ = ndimage.label(flat, np.ones((3, 3, 3)))
        mine = labels[places] == labels[tuple(middle - low)]
        section = near[in_plane & mine]
        if (best is None or len(section) < len(best)) and _divides(shape, places, in_plane & mine, away_mm @ normal):
            best = section
    if best is None:
        raise AirwaySegError("The airways end at the point: nothing lies beyond it.")
    return best


def _divides(shape: NDArray, places: tuple[NDArray, ...], section: NDArray[np.bool_], height_mm: NDArray) -> bool:
    """Whether what touches a section from above and from below is apart without it, within the cube."""
    rest = np.zeros(shape, bool)
    rest[tuple(axis[~section] for axis in places)] = True
    cross = np.zeros(shape, bool)
    cross[tuple(axis[section] for axis in places)] = True
    labels, _ = ndimage.label(rest, np.ones((3, 3, 3)))
    beside = ndimage.binary_dilation(cross, np.ones((3, 3, 3)))[places] & ~section
    found = labels[places]
    above, below = (set(found[beside & side].tolist()) - {0} for side in (height_mm > 0, height_mm < 0))
    return bool(above) and bool(below) and not above & below


def _half_sphere(count: int) -> NDArray[np.float64]:
    """Unit vectors (count, 3), evenly over half a sphere (a Fibonacci lattice)."""
    height = (np.arange(count) + 0.5) / count
    turn = np.pi * (1 + np.sqrt(5)) * np.arange(count)
    wide = np.sqrt(1 - height**2)
    return np.column_stack([height, wide * np.cos(turn), wide * np.sin(turn)])


def _cut(
    lumen: Lumen,
    section: NDArray[np.intp],
    stays: int | None,
    scan: Scan,
    component: NDArray[np.bool_],
    goes: int | None = None,
) -> Cut:
    """What is lost when a section is taken out: the section, and of its component all but the side that stays."""
    left = component.copy()
    left[section] = False
    rows = np.flatnonzero(left)
    if not len(rows):
        raise AirwaySegError("The cut would remove all of the airways.")
    pieces = Lumen(lumen.shape, lumen.spacing_mm, lumen.voxels[rows]).components
    kept = 0
    if stays is not None:
        # A side that lies in the section itself stays with the nearest piece.
        kept = int(pieces[cKDTree(lumen.places_mm[rows]).query(lumen.places_mm[stays])[1]])
    lost = rows[pieces != kept]
    if len(lost) < _LEAST_PIECE or (goes is not None and goes not in section and goes not in lost):
        raise AirwaySegError("A cut there parts nothing: the airways go round it by another way.")
    corner = np.array(scan.airways.corner)
    voxels, cross = (lumen.voxels[rows] + corner for rows in (np.union1d(lost, section), section))
    return Cut(voxels.astype(np.int32), cross.astype(np.int32))
