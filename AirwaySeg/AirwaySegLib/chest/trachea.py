"""The trachea, found by its shape and position: an air tube near the middle that runs down to the carina.

Never "the largest dark component": that is outside air or a lung. Cross-sections that look like a trachea's are
collected in every slice at several thresholds; the best unbroken chain of them from slice to slice is the trachea.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy import ndimage

from AirwaySegLib.masks.coarse_grid import Factors, block_means, factors_for, sampled

# If an anatomical source is named, a size comes from it. All other limits were chosen by hand, not fitted to data; they
# are tested on drawn chests with noise of 60 HU, lumens of -1020 to -880 HU, a narrow glottis, a stenosis and an
# oesophagus with gas. Two limits in parentheses are the ends of a linear ramp or of an allowed range.

_COARSE_MM = (2.5, 1.5, 1.5)
"""Coarse voxel (z, y, x): a tube of 8 mm is still five voxels wide, and noise is averaged away."""

_SMOOTHING = (0.5, 0.7, 0.7)
"""Standard deviation (z, y, x) of the smoothing, in coarse voxels: about 1 mm, less than a lumen's radius. By hand."""

_THRESHOLDS_HU = (-500, -600, -700, -775, -850, -900)
"""From halfway between air and soft tissue down to just above the darkest lumens: the lower ones separate the trachea
from lung or oesophagus behind a thin wall. By hand."""

_MIDDLE_PARTS, _MIDDLE_MM = 5, 60.0
"""Half-width of the search around the body's midline: this fraction of the body's width (1 / N), but at least so many
mm. The trachea is displaced by less, except after the loss of a lung. By hand."""

_LUNG_HU = (-940, -600)
"""Lung with its small vessels; below is free air and gas of the bowel. By hand, from the usual range of HU."""

_AREA_MM2 = (40.0, 750.0)
"""Area of a section. By hand: the lower limit is a circle of 7 mm, the upper leaves room for enlarged tracheae."""

_USUAL_AREA_MM2, _UNUSUAL_WEIGHT = (110.0, 500.0), 0.4
"""Areas with full weight, about those of ordinary adults, and the weight at the limits of `_AREA_MM2`. By hand."""

_COMPACTNESS, _WIDTH_TO_LENGTH = (0.8, 0.95), (0.35, 0.65)
"""Shape of a section (see `_moments`). On expiration the membranous wall bulges inwards, so a section may be half as
wide as long; gaps between vessels, and lung, are ragged. By hand."""

_SOFT_HU, _RING_VOXELS, _SOFT_SHARE = -400, 2, (0.4, 0.8)
"""Soft tissue, partial volume of the wall included; the width of the ring around a section in coarse voxels (3 mm); and
the share of the ring that is soft tissue: on its right side the trachea touches lung. By hand."""

_OFF_MIDDLE_MM, _FAR_WEIGHT = (15.0, 60.0), 0.3
"""Distances from the midline up to which the weight is 1, and from which it is the lowest, given here. By hand."""

_DOUBT = 0.25
"""Subtracted from every quality, so that a section below it lowers a chain's sum. By hand."""

_SKIPPED, _SHIFT, _GRID_MM, _GROWTH = 2, 1.5, 2.0, 1.7
"""Limits of a link of a chain: coarse slices upwards; sideways shift per height (56 degrees) and an allowance for the
grid's error; factor by which the area changes. By hand."""

_SHORTEST_MM, _SHORTEST_WITHOUT_END_MM = 25.0, 40.0
"""Smallest height of a trachea, about a quarter of an adult's 10 to 12 cm; more if it ends neither in a carina nor at
the lower edge of the scan. By hand."""

_LEAST_QUALITY, _LEAST_LUNG_MM2 = 0.2, 1500.0
"""Smallest mean quality of a trachea's sections, and smallest mean area of lung in the slices of its lower end: about
4 x 4 cm, little more than the apices. By hand."""

_ATTEMPTS = 4
"""Number of chains that are tried: trachea, oesophagus, and two main bronchi or bowel loops. By hand."""

_LARYNX_MM = 40.0
"""Largest height from the glottis up to the pharynx: a larynx is about 4 cm high."""

_WAIST, _WIDENED, _ABNORMAL = 0.65, 1.4, (0.4, 1.9)
"""Areas relative to the chain's median: the largest of a glottis; of a section that is wide again above a narrowing;
the limits outside which a section is no longer trachea. By hand."""

_FOLLOWED_MM, _BRONCHI_APART_MM = 10.0, (8.0, 45.0)
"""Height within which a section must divide, and the range of the distance of the two centres: main bronchi of children
and adults separate from 8 mm on, and 1 cm below the carina they are at most 45 mm apart. By hand."""

_BRONCHUS_MM2, _BRONCHUS_SHARE, _LEAK_SHARE = 25.0, 0.15, 4.0
"""Smallest area of a main bronchus, and the same as a share of the trachea's; sections whose total area exceeds
`_LEAK_SHARE` times the trachea's have leaked into lung. By hand."""

_SAME_TUBE_MM = 10.0
"""Sections nearer than an adult trachea's radius belong to the same tube. By hand."""

_TWIN_QUALITY, _TWIN_SHARE, _TWIN_SLICES = 0.1, 0.5, 0.5
"""Second tube beside the chain: smallest quality and smallest area relative to the chain's; if more than this share of
the slices shows one, the chain is taken for a main bronchus. By hand."""

_TWIN_BESIDE_MM, _TWIN_LEVEL_MM = 15.0, 30.0
"""Distance of the second tube: at least the first to the left or right, at most the second in front or behind. By
hand."""

_CORE_SHARE, _LUMEN_HU = 0.5, -500
"""Share of the radius that is certainly inside the wall, and the highest HU of air in it. By hand."""

_LARGEST_SECTION, _SECTION_REACH = 1.5, 2.5
"""Largest area of a section relative to that of the tube as it was found; half the width, in radii, of the window in
which the section is sought. By hand."""

_IN_PLANE = np.pad(ndimage.generate_binary_structure(2, 1)[None], ((1, 1), (0, 0), (0, 0)))


@dataclass(frozen=True)
class Trachea:
    """The tube from below the larynx to the carina, on the CT's canonical grid.

    ``centers_zyx`` (N, 3) int: one voxel of the lumen in each slice, from the carina upwards; ``radius_mm`` (N,) is
    that of a circle with the lumen's area. ``lumen_zyx`` (M, 3) int: voxels certainly inside the wall; ``lumen_hu``:
    their median. ``touches_top``: the tube reaches the highest slice of the scan and continues beyond it.
    ``has_carina``: its division is in the scan; otherwise the scan ends above the carina, or disease hides it.
    """

    centers_zyx: np.ndarray
    radius_mm: np.ndarray
    lumen_zyx: np.ndarray
    lumen_hu: float
    touches_top: bool
    has_carina: bool

    @property
    def bottom(self) -> int:
        """The lowest slice."""
        return int(self.centers_zyx[0, 0])

    @property
    def top(self) -> int:
        """The highest slice."""
        return int(self.centers_zyx[-1, 0])


@dataclass(frozen=True)
class _Sections:
    """Tube-like cross-sections, one in each row (N,), sorted by slice; a quality above 0 is evidence for a trachea."""

    slices: np.ndarray
    level: np.ndarray
    label: np.ndarray
    y_mm: np.ndarray
    x_mm: np.ndarray
    area_mm2: np.ndarray
    quality: np.ndarray

    def take(self, rows: np.ndarray) -> "_Sections":
        """Return the given rows in the given order."""
        return _Sections(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class _Search:
    """The middle of the body on a coarse grid: smoothed HU and labels per threshold (Z, Y, X), its corner in the
    CT (``corner``, in coarse voxels), and how much lung each whole slice shows."""

    hu: np.ndarray
    lung_mm2: np.ndarray
    factors: Factors
    spacing_mm: np.ndarray
    corner: np.ndarray
    labels: tuple[np.ndarray, ...]


def find_trachea(hu: np.ndarray, body: np.ndarray, spacing_mm: Sequence[float]) -> Trachea | None:
    """Find the trachea in a canonical CT (Z, Y, X) in HU with its body mask; None unless 25 mm of it are in the scan.

    Works on blocks of about 2.5 x 1.5 x 1.5 mm. A cross-section must be of 40 to 750 mm^2, compact, not much flatter
    than 1 : 2, near the body's midline, and mostly surrounded by soft tissue. A chain must not jump or change its size
    suddenly, must have lung beside it, and no similar tube to its left or right (they would be the main bronchi).
    """
    search = _prepare(hu, body, spacing_mm)
    if search is None:
        return None
    sections = remaining = _sections(search)
    found = None
    for _ in range(_ATTEMPTS):
        best = _best_chain(remaining, search)
        if best is None:
            break
        chain, has_carina = _down_to_carina(_below_larynx(best, search), search)
        if _is_trachea(chain, has_carina, sections, search) and (found is None or has_carina):
            found = chain, has_carina
        if found is not None and found[1]:
            break
        remaining = _without(best, remaining)
    return None if found is None else _on_fine_grid(*found, search, hu)


def _prepare(hu: np.ndarray, body: np.ndarray, spacing_mm: Sequence[float]) -> _Search | None:
    """Downsample, crop to the body's middle, smooth, and label the dark regions of each slice at each threshold."""
    factors = factors_for(spacing_mm, _COARSE_MM)
    means = block_means(hu, factors)
    inside = sampled(body, factors, means.shape)
    mm = np.asarray(factors) * np.asarray(spacing_mm, float)
    columns, rows = np.flatnonzero(inside.any(axis=(0, 1))), np.flatnonzero(inside.any(axis=(0, 2)))
    if not len(columns):
        return None
    half = max((columns[-1] - columns[0]) / _MIDDLE_PARTS, _MIDDLE_MM / mm[2])
    middle = (columns[0] + columns[-1]) / 2
    left = max(int(middle - half), 0)
    box = (slice(None), slice(int(rows[0]), int(rows[-1]) + 1), slice(left, int(middle + half) + 1))
    smooth = ndimage.gaussian_filter(means[box].astype(np.float32), _SMOOTHING)
    labels = tuple(ndimage.label((smooth < limit) & inside[box], _IN_PLANE)[0] for limit in _THRESHOLDS_HU)
    is_lung = inside & (means > _LUNG_HU[0]) & (means < _LUNG_HU[1])
    lung_mm2 = np.count_nonzero(is_lung, axis=(1, 2)) * mm[1] * mm[2]
    return _Search(smooth, lung_mm2, factors, mm, np.array([0, rows[0], left]), labels)


def _sections(search: _Search) -> _Sections:
    """Collect the sections of all slices and thresholds."""
    parts = [_sections_at(level, search) for level in range(len(_THRESHOLDS_HU))]
    whole = _Sections(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(_Sections)))
    return whole.take(np.argsort(whole.slices, kind="stable"))


def _sections_at(level: int, search: _Search) -> _Sections:
    """Measure the components of one threshold, and keep those that may be a trachea's section."""
    labels, mm = search.labels[level], search.spacing_mm
    (slices, y, x), area, compactness, width_to_length = _moments(labels)
    area = area * mm[1] * mm[2]
    quality = np.interp(compactness, _COMPACTNESS, (0, 1)) * np.interp(width_to_length, _WIDTH_TO_LENGTH, (0, 1))
    fits = (area >= _AREA_MM2[0]) & (area <= _AREA_MM2[1]) & (quality > 0)
    kept = np.flatnonzero(fits)
    areas = (_AREA_MM2[0], *_USUAL_AREA_MM2, _AREA_MM2[1])
    quality = quality[kept] * np.interp(area[kept], areas, (_UNUSUAL_WEIGHT, 1, 1, _UNUSUAL_WEIGHT))
    quality *= np.interp(_soft_surroundings(level, kept, search), _SOFT_SHARE, (0, 1))
    off_middle_mm = np.abs(x[kept] - (labels.shape[2] - 1) / 2) * mm[2]
    quality *= np.interp(off_middle_mm, _OFF_MIDDLE_MM, (1, _FAR_WEIGHT))
    numbers = np.rint(slices[kept]).astype(int)
    return _Sections(
        numbers, np.full(len(kept), level), kept, y[kept] * mm[1], x[kept] * mm[2], area[kept], quality - _DOUBT
    )


def _moments(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return centres (3, N), voxel counts, compactness and width : length of the components 0 to N - 1 of flat labels.

    Compactness is the area over that of the ellipse with the same second moments: 1 for every filled ellipse, less for
    anything else. Row 0, the background, is given no area.
    """
    z, y, x = np.nonzero(labels)
    which = labels[z, y, x]
    count = int(labels.max()) + 1
    area = np.bincount(which, minlength=count)
    voxels = np.maximum(area, 1)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(which, values, count) / voxels

    centers = np.stack([mean(z), mean(y), mean(x)])
    # each voxel is a square, with a second moment of 1/12 by itself
    yy, xx = mean(y * y) - centers[1] ** 2 + 1 / 12, mean(x * x) - centers[2] ** 2 + 1 / 12
    determinant = np.maximum(yy * xx - (mean(x * y) - centers[1] * centers[2]) ** 2, 1e-6)
    half_trace = (yy + xx) / 2
    root = np.sqrt(np.maximum(half_trace**2 - determinant, 0))
    width_to_length = np.sqrt(np.maximum(half_trace - root, 0) / (half_trace + root))
    return centers, area, voxels / (4 * np.pi * np.sqrt(determinant)), width_to_length


def _soft_surroundings(level: int, kept: np.ndarray, search: _Search) -> np.ndarray:
    """Return the share of soft tissue in a ring of about 3 mm around each kept component (lung is not soft tissue)."""
    labels = search.labels[level]
    chosen = np.zeros(labels.max() + 1, labels.dtype)
    chosen[kept] = kept
    alone = chosen[labels]
    ring = ndimage.maximum_filter(alone, size=(1, 2 * _RING_VOXELS + 1, 2 * _RING_VOXELS + 1))
    ring[alone > 0] = 0
    soft = np.bincount(ring.ravel(), (search.hu > _SOFT_HU).ravel(), len(chosen))
    return soft[kept] / np.maximum(np.bincount(ring.ravel(), minlength=len(chosen))[kept], 1)


def _best_chain(sections: _Sections, search: _Search) -> _Sections | None:
    """Return the chain (upwards) with the largest sum of quality times height, by dynamic programming.

    A link may skip one slice, moves the centre by at most 1.5 mm for each mm of height (2 mm more for the grid), and
    changes the area by at most a factor of 1.7.
    """
    count = len(sections.slices)
    if count == 0:
        return None
    best, before = sections.quality.copy(), np.full(count, -1)
    starts = np.searchsorted(sections.slices, np.arange(sections.slices[-1] + 2))
    for row in range(count):
        number = sections.slices[row]
        below = np.arange(starts[max(number - _SKIPPED, 0)], starts[number])
        height = (number - sections.slices[below]) * search.spacing_mm[0]
        moved = np.hypot(sections.y_mm[below] - sections.y_mm[row], sections.x_mm[below] - sections.x_mm[row])
        grown = np.abs(np.log(sections.area_mm2[below] / sections.area_mm2[row]))
        below = below[(moved <= _GRID_MM + _SHIFT * height) & (grown <= np.log(_GROWTH))]
        if len(below) and best[below].max() > 0:
            before[row] = below[np.argmax(best[below])]
            best[row] += best[before[row]]
    rows = [int(np.argmax(best))]
    while before[rows[-1]] >= 0:
        rows.append(int(before[rows[-1]]))
    return sections.take(np.array(rows[::-1]))


def _below_larynx(chain: _Sections, search: _Search) -> _Sections:
    """Cut off the chain's upper end where the tube narrows to the glottis or suddenly becomes as wide as a pharynx.

    The end is where the tube is much narrower or wider than its median, wide again above a narrowing, or no longer
    found; a narrowing shortly below such an end is the glottis. A narrowing elsewhere is a stenosis and is kept.
    """
    middle = len(chain.slices) // 2
    upper, size = chain.slices[middle:], chain.area_mm2[middle:] / np.median(chain.area_mm2)
    widened = (size > _WIDENED) & (np.minimum.accumulate(size) < _WAIST)
    strange = np.flatnonzero((size < _ABNORMAL[0]) | (size > _ABNORMAL[1]) | widened)
    if not len(strange) and upper[-1] == len(search.hu) - 1:
        return chain
    end = int(strange[0]) if len(strange) else len(size)
    waist = np.flatnonzero(size[: end + 1] < _WAIST)
    waist = waist[(upper[min(end, len(size) - 1)] - upper[waist]) * search.spacing_mm[0] <= _LARYNX_MM]
    if len(waist):
        runs = np.split(waist, np.flatnonzero(np.diff(waist) > 1) + 1)
        end = int(runs[-1][0])
    return chain.take(np.arange(middle + end))


def _down_to_carina(chain: _Sections, search: _Search) -> tuple[_Sections, bool]:
    """Cut off the chain's lower end where the tube divides into two side by side; return also whether it divides."""
    for row in range(len(chain.slices) - 1, -1, -1):
        carina = _division_below(chain, row, search)
        if carina is not None:
            return chain.take(np.flatnonzero(chain.slices > carina)), True
    return chain, False


def _division_below(chain: _Sections, row: int, search: _Search) -> int | None:
    """Follow one section down for 10 mm; return the slice in which it has divided into two tubes, 8 to 45 mm apart.

    They must still be two (or have reached the lungs) one slice further down; otherwise it was mucus across the lumen.
    """
    number, labels = int(chain.slices[row]), search.labels[chain.level[row]]
    region = labels[number] == chain.label[row]
    voxel_mm2 = search.spacing_mm[1] * search.spacing_mm[2]
    divided = None
    for below in range(number - 1, max(number - 1 - int(_FOLLOWED_MM / search.spacing_mm[0]), -1), -1):
        plane = labels[below]
        found = np.unique(plane[region & (plane > 0)])
        areas = np.bincount(plane.ravel())[found] * voxel_mm2
        found = found[areas >= max(_BRONCHUS_MM2, _BRONCHUS_SHARE * chain.area_mm2[row])]
        region = np.isin(plane, found)
        if len(found) == 0 or region.sum() * voxel_mm2 > _LEAK_SHARE * chain.area_mm2[row]:
            return divided
        columns = [np.nonzero(plane == one)[1].mean() * search.spacing_mm[2] for one in found]
        if not _BRONCHI_APART_MM[0] <= max(columns) - min(columns) <= _BRONCHI_APART_MM[1]:
            divided = None
        elif divided is not None:
            return divided
        else:
            divided = below
    return None


def _without(chain: _Sections, sections: _Sections) -> _Sections:
    """Remove all sections within 10 mm of the chain's, in its slices: they are the same tube at other thresholds."""
    y = np.interp(sections.slices, chain.slices, chain.y_mm)
    x = np.interp(sections.slices, chain.slices, chain.x_mm)
    beside = (sections.slices < chain.slices[0]) | (sections.slices > chain.slices[-1])
    away_mm = np.hypot(sections.y_mm - y, sections.x_mm - x)
    return sections.take(np.flatnonzero(beside | (away_mm > _SAME_TUBE_MM)))


def _is_trachea(chain: _Sections, has_carina: bool, sections: _Sections, search: _Search) -> bool:
    """Whether the whole chain is a trachea: length, mean quality, kind of lower end, lung beside it, no second tube."""
    height = (chain.slices[-1] - chain.slices[0] + 1) * search.spacing_mm[0]
    if height < _SHORTEST_MM or chain.quality.mean() < _LEAST_QUALITY:
        return False
    if not (has_carina or chain.slices[0] <= 1 or height >= _SHORTEST_WITHOUT_END_MM):
        return False
    lower_part = search.lung_mm2[chain.slices[0] : chain.slices[0] + int(_SHORTEST_MM / search.spacing_mm[0])]
    return bool(lower_part.mean() > _LEAST_LUNG_MM2) and _twins(chain, sections) < _TWIN_SLICES


def _twins(chain: _Sections, sections: _Sections) -> float:
    """Return the share of slices with another good section of half the size or more to the left or right."""
    count = 0
    for row, number in enumerate(chain.slices):
        others = (sections.slices == number) & (sections.quality > _TWIN_QUALITY)
        beside = np.abs(sections.x_mm[others] - chain.x_mm[row]) > _TWIN_BESIDE_MM
        level = np.abs(sections.y_mm[others] - chain.y_mm[row]) < _TWIN_LEVEL_MM
        count += bool(np.any(beside & level & (sections.area_mm2[others] > _TWIN_SHARE * chain.area_mm2[row])))
    return count / len(chain.slices)


def _on_fine_grid(chain: _Sections, has_carina: bool, search: _Search, hu: np.ndarray) -> Trachea | None:
    """Transfer the chain to the CT's grid: a centre in each slice, and the voxels well inside the lumen."""
    factors, mm = np.asarray(search.factors), search.spacing_mm
    offset = (factors - 1) / 2
    heights = chain.slices * factors[0] + offset[0]
    last = len(search.hu) - 1
    bottom = int(chain.slices[0] * factors[0])
    top = len(hu) - 1 if chain.slices[-1] == last else int((chain.slices[-1] + 1) * factors[0] - 1)
    slices = np.arange(bottom, top + 1)
    y = np.interp(slices, heights, (chain.y_mm / mm[1] + search.corner[1]) * factors[1] + offset[1])
    x = np.interp(slices, heights, (chain.x_mm / mm[2] + search.corner[2]) * factors[2] + offset[2])
    radius_mm = np.interp(slices, heights, np.sqrt(chain.area_mm2 / np.pi))
    centers = np.rint(np.stack([slices, y, x], axis=1)).astype(int)
    lumen = _lumen_around(centers, _CORE_SHARE * radius_mm, hu, mm / factors)
    if len(lumen) == 0:
        return None
    values = hu[tuple(lumen.T)]
    return Trachea(centers, radius_mm, lumen, float(np.median(values)), top >= len(hu) - 2, has_carina)


def _lumen_around(centers: np.ndarray, reach_mm: np.ndarray, hu: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Return the voxels (M, 3) within the given distance of each slice's centre that are darker than -500 HU."""
    found = []
    for center, reach in zip(centers, reach_mm, strict=True):
        steps_y, steps_x = int(reach / spacing_mm[1]) + 1, int(reach / spacing_mm[2]) + 1
        y, x = np.mgrid[-steps_y : steps_y + 1, -steps_x : steps_x + 1]
        near = np.hypot(y * spacing_mm[1], x * spacing_mm[2]) <= max(reach, 0.1)
        disc = np.stack([np.zeros(near.sum(), int), y[near], x[near]], axis=1) + center
        disc = disc[((disc >= 0) & (disc < hu.shape)).all(axis=1)]
        found.append(disc[hu[tuple(disc.T)] < _LUMEN_HU])
    return np.concatenate(found)


def whole_sections(trachea: Trachea, hu: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Return the voxels (M, 3) of the trachea's lumen up to its wall.

    A section is the air in one slice that is connected with the centre; the wall is halfway from the lumen's HU to
    soft tissue. Slices are left out in which this area is much larger than the tube, because a gas-filled oesophagus or
    a main bronchus is connected to it, or in which mucus covers the centre.
    """
    found = [np.empty((0, 3), int)]
    for (z, y, x), radius_mm in zip(trachea.centers_zyx, trachea.radius_mm, strict=True):
        reach_y, reach_x = (int(_SECTION_REACH * radius_mm / step) + 1 for step in spacing_mm[1:])
        top, left = max(y - reach_y, 0), max(x - reach_x, 0)
        labels, _ = ndimage.label(hu[z, top : y + reach_y + 1, left : x + reach_x + 1] < trachea.lumen_hu / 2)
        number = labels[y - top, x - left]
        rows, columns = np.nonzero((labels == number) & (labels > 0))
        area_mm2 = len(rows) * spacing_mm[1] * spacing_mm[2]
        if area_mm2 <= _LARGEST_SECTION * np.pi * radius_mm**2:
            found.append(np.stack([np.full(len(rows), z), rows + top, columns + left], axis=1))
    return np.concatenate(found)
