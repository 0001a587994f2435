"""Preprocessing of a CT for the network: body, lungs, crop box, search region, Hounsfield calibration, resampling.

Arrays are canonical (z upwards, y backwards, x from right to left; see `volume.to_canonical`), spacings z, y, x in mm.
"""

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from skimage.morphology import convex_hull_image

from AirwaySegLib.chest.trachea import Trachea
from AirwaySegLib.masks.coarse_grid import Factors, block_means, enlarged, factors_for, sampled

_IN_PLANE = np.pad(ndimage.generate_binary_structure(2, 1)[None], ((1, 1), (0, 0), (0, 0)))
# Where no source is named, a limit was chosen by hand from the usual HU and sizes, not fitted to data.

_COARSE_MM = (3.0, 3.0, 3.0)
"""Coarse voxel (z, y, x): enough for outlines of body and lungs, and fast."""

_TISSUE_HU, _LUNG_HU = -400, -500
"""Tissue is above the first, air and lung below the second: about halfway between lung (-850) and soft tissue (50)."""

_FREE_AIR_HU, _FREE_AIR_RANGE_HU = -940, 35
"""Free air is darker than the first, or, if that is brighter, than the darkest air at the edge of the field of view
plus the second."""

_DARK_HU, _DARKEST_LUNG_HU = -800, -915
"""At the edge of the field of view, voxels below the first are air or lung; if their tenth percentile is above the
second, they are lung, which is rarely darker except in emphysema."""

_NO_AIR_SEEN_HU = -1000
"""HU of air by definition, used if the edge of the field of view shows no air."""

_THIN_RADIUS = 4
"""Radius in coarse voxels (12 mm) of a disc that fits into any body but not into table, clothes or cables."""

_WITHIN, _TOUCHING_AIR = 0.5, 0.2
"""A component belongs to the body if more than the first share of it is inside the body's outline, and is lung rather
than cloth if less than the second share of its rim touches free air."""

_SMALLEST_LUNG_ML, _SMALLEST_LUNG_SHARE = 100.0, 1 / 8
"""Smallest volume of a lung, also as a share of the largest component: admits a child's or a collapsed lung, but no
bowel loop."""

_BOWEL_GAS_HU, _BOWEL_GAS_SHARE = 60, 0.75
"""Gas is within the first (HU) of the darkest air; a component whose interior has more than the second share of gas is
bowel gas, not lung."""

_CLOSING_RADIUS = 3
"""Radius in coarse voxels (9 mm) of the closing that includes vessels and large airways in the lungs."""

_BOX_MARGIN_MM, _REGION_MARGIN_MM = 10.0, 6.0
"""Margins around the lungs' box and around the search region: three and two coarse voxels, since both are rough."""

_ABOVE_TRACHEA_MM = 30.0
"""Margin above the trachea's upper end: the larynx up to the glottis, and the part that `find_trachea` may miss."""

_TRACHEA_MARGIN_MM = 10.0
"""Margin around the trachea's centerline or lumen: its wall (1 to 3 mm) and an error of some coarse voxels."""

_MAIN_BRONCHI_MM = 50.0
"""Margin below the trachea's lower end: the left main bronchus, the longer one, is about 5 cm long."""

_APEX_MM = 30.0
"""Uppermost part of the lungs, which is continued upwards if no trachea was found."""

_LARGEST_SHIFT_HU = 80.0
"""Largest correction of a CT's HU; a larger offset means that the trachea was found wrongly, not a scanner offset."""

_USUAL_AIR_HU = (-1010.0, -930.0)
"""Range of HU of tracheal air in most scanners, which needs no correction; see `calibrate`."""

Box = tuple[slice, slice, slice]


def _disc(radius: int) -> np.ndarray:
    """A flat disc of radius r voxels, (1, 2 r + 1, 2 r + 1) bool."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return (y**2 + x**2 <= (radius + 0.5) ** 2)[None]


def _touching(mask: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Return the in-plane components of a mask that hold a seed voxel."""
    labels, count = ndimage.label(mask, _IN_PLANE)
    hit = np.zeros(count + 1, bool)
    hit[labels[seeds & mask]] = True
    hit[0] = False
    return hit[labels]


def body_mask(hu: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Return the body with its lungs and airways, without table, clothes and outside air: (Z, Y, X) bool.

    Computed on a grid of about 3 mm, slice by slice: non-tissue that reaches the edge of the image is outside. Thin
    objects (table, blanket) do not count as tissue. Where the chest wall is as thin, lung counts as outside at first
    and is added again if it is enclosed and within the body's outline; a lung that the field of view truncates is added
    by `_lung_beside`. False everywhere if the CT shows no tissue.
    """
    factors = factors_for(spacing_mm, _COARSE_MM)
    coarse = block_means(hu, factors)
    padding = _touching(coarse <= coarse.min() + 1, _frame(coarse))
    edge = ndimage.binary_dilation(padding, _disc(1)) | _frame(coarse)
    dense = coarse > _TISSUE_HU
    tissue = ndimage.binary_opening(dense, _disc(1))
    outlines = _convex_outlines(_largest(tissue))
    body = _largest(_without_thin_things(~_touching(~tissue, edge)))
    body |= _lung_beside(body | padding, outlines, _free_air(coarse, padding))
    body |= _mostly_within(outlines, _without_thin_things(~_touching(~dense, edge)) & ~body)
    return enlarged(_largest(body), factors, hu.shape)


def _mostly_within(outlines: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the in-plane components of a mask of which more than half lies within the outlines."""
    labels, count = ndimage.label(mask, _IN_PLANE)
    within = np.bincount(labels[mask & outlines], minlength=count + 1)
    return (within > _WITHIN * np.bincount(labels.ravel()))[labels] & mask


def _convex_outlines(tissue: np.ndarray) -> np.ndarray:
    """Fill the convex hull of each slice's tissue."""
    filled = np.zeros_like(tissue)
    for number in np.flatnonzero(tissue.any(axis=(1, 2))):
        filled[number] = convex_hull_image(tissue[number])
    return filled


def _free_air(coarse: np.ndarray, padding: np.ndarray) -> np.ndarray:
    """Voxels as dark as free air that are connected to the edge of the field of view.

    Voxels near the padding are left out, because they are mixed with it.
    """
    mixed = ndimage.binary_dilation(padding, _disc(2))
    edge = ndimage.binary_dilation(mixed, _disc(1)) | _frame(coarse)
    smooth = ndimage.uniform_filter(coarse, (1, 3, 3))
    limit_hu = _free_air_limit_hu(smooth[edge & ~mixed])
    return _touching(((coarse < limit_hu) | (smooth < limit_hu)) & ~mixed, edge)


def _lung_beside(known: np.ndarray, outlines: np.ndarray, free_air: np.ndarray) -> np.ndarray:
    """Return lung that no chest wall encloses: neither ``known`` (body, padding) nor free air.

    More than half of such a component is within the body's ``outlines``, or it hardly touches free air. Neither is true
    of clothes and blankets.
    """
    beside = _without_thin_things(~free_air) & ~known
    labels, count = ndimage.label(beside)
    within = np.bincount(labels[beside & outlines], minlength=count + 1)
    rim = beside & ndimage.binary_dilation(~beside, _disc(1))
    airy = rim & ndimage.binary_dilation(free_air, _disc(1))
    touching, around = (np.bincount(labels[mask], minlength=count + 1) for mask in (airy, rim))
    accepted = (within > _WITHIN * np.bincount(labels.ravel())) | (touching < _TOUCHING_AIR * around)
    accepted[0] = False
    return accepted[labels]


def _frame(coarse: np.ndarray) -> np.ndarray:
    """Mark the outermost voxels of each slice."""
    frame = np.zeros(coarse.shape, bool)
    frame[:, [0, -1]] = frame[:, :, [0, -1]] = True
    return frame


def _free_air_limit_hu(at_edge: np.ndarray) -> float:
    """Return a value between free air and lung, from the dark voxels at the edge of the view; by default -940 HU.

    Free air is anywhere from -1020 to -940 HU, depending on the scanner. If even the darkest voxels at the edge are
    brighter, they are lung that the field of view truncates.
    """
    dark = at_edge[at_edge < _DARK_HU]
    level = np.percentile(dark, 10) if dark.size else _NO_AIR_SEEN_HU
    return float(max(_FREE_AIR_HU, level + _FREE_AIR_RANGE_HU)) if level < _DARKEST_LUNG_HU else _FREE_AIR_HU


def _without_thin_things(body: np.ndarray) -> np.ndarray:
    """Open a filled body by a disc of 12 mm radius, which removes table, clothes and cables."""
    # Edge padding continues the body beyond the image, so that nothing is lost where the field of view truncates it.
    r = _THIN_RADIUS
    padded = np.pad(body, ((0, 0), (r, r), (r, r)), mode="edge")
    return ndimage.binary_opening(padded, _disc(r))[:, r:-r, r:-r]


def _largest(mask: np.ndarray) -> np.ndarray:
    """Return the largest component (neighbours share a face); an empty mask is returned as it is."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])


def lung_mask(hu: np.ndarray, body: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Return the lungs roughly, with the airways and vessels in them: (Z, Y, X) bool; False everywhere without lungs.

    Computed on a grid of about 3 mm: dark components within the body of at least 100 ml and an eighth of the largest.
    Stomach and bowel gas is left out if it can be recognised: below the middle of the lungs, and with an interior that
    is almost all as dark as free air. Opaque parts of a lung are not found.
    """
    factors = factors_for(spacing_mm, _COARSE_MM)
    coarse = block_means(hu, factors)
    voxel_ml = float(np.prod(np.asarray(factors) * np.asarray(spacing_mm))) / 1000
    inside = ndimage.binary_erosion(sampled(body, factors, coarse.shape), _disc(1), border_value=1)
    labels, count = ndimage.label((coarse < _LUNG_HU) & inside)
    if count == 0:
        return np.zeros(hu.shape, bool)
    volume_ml = np.bincount(labels.ravel()) * voxel_ml
    volume_ml[0] = 0
    kept = (volume_ml >= max(_SMALLEST_LUNG_ML, volume_ml.max() * _SMALLEST_LUNG_SHARE)) & ~_is_bowel_gas(
        coarse, labels, volume_ml
    )
    lungs = kept[labels]
    r = _CLOSING_RADIUS
    closed = ndimage.binary_closing(np.pad(lungs, ((0, 0), (r, r), (r, r))), _disc(r))[:, r:-r, r:-r]
    return enlarged((closed | lungs) & inside, factors, hu.shape)


def _is_bowel_gas(coarse: np.ndarray, labels: np.ndarray, volume_ml: np.ndarray) -> np.ndarray:
    """Tell for each component (N,) whether it is gas below the middle of the largest one.

    The interior of a lung has vessels and tissue: less than three quarters of it are within 60 HU of the darkest air.
    """
    count = len(volume_ml)
    core = ndimage.binary_erosion(labels > 0)
    nearly_air = coarse[core] < np.percentile(coarse[labels > 0], 1) + _BOWEL_GAS_HU
    dark = np.bincount(labels[core], nearly_air, count) / np.maximum(np.bincount(labels[core], minlength=count), 1)
    slices, rows, columns = np.nonzero(labels)
    which = labels[slices, rows, columns]
    height = np.bincount(which, slices, count) / np.maximum(np.bincount(which, minlength=count), 1)
    largest = int(np.argmax(volume_ml))
    return (dark > _BOWEL_GAS_SHARE) & (height < height[largest]) & (np.arange(count) != largest)


def crop_box(
    body: np.ndarray, lungs: np.ndarray, trachea: Trachea | None, spacing_mm: Sequence[float]
) -> tuple[Box, str | None]:
    """Return the box (z, y, x) that holds all airways, and a warning if no lungs were found.

    The box is the lungs' bounding box with a margin of 10 mm, with the trachea and up to 30 mm above its upper end;
    without a trachea up to the top of the scan. Without lungs it is the body's box, or the whole array without a body.
    """
    warning = None if lungs.any() else "No lungs were found in the scan: the whole body is searched."
    mask = lungs if lungs.any() else body
    if not mask.any():
        return (slice(0, mask.shape[0]), slice(0, mask.shape[1]), slice(0, mask.shape[2])), warning
    low, high = _bounds(mask)
    top = mask.shape[0] - 1
    if trachea is not None:
        around = _TRACHEA_MARGIN_MM / np.asarray(spacing_mm)
        low = np.minimum(low, trachea.centers_zyx.min(axis=0) - around * (0, 1, 1))
        high = np.maximum(high, trachea.centers_zyx.max(axis=0) + around * (0, 1, 1))
        top = max(high[0], trachea.top + _ABOVE_TRACHEA_MM / spacing_mm[0])
    margin = _BOX_MARGIN_MM / np.asarray(spacing_mm)
    low, high = np.floor(low - margin), np.ceil(high + margin)
    high[0] = top
    z, y, x = (slice(max(int(a), 0), min(int(b) + 1, n)) for a, b, n in zip(low, high, mask.shape, strict=True))
    return (z, y, x), warning


def _bounds(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and last index (3,) along each axis of a mask, which must not be empty."""
    lines = [np.flatnonzero(mask.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    return np.array([line[0] for line in lines], float), np.array([line[-1] for line in lines], float)


def search_region(
    body: np.ndarray, lungs: np.ndarray, trachea: Trachea | None, spacing_mm: Sequence[float]
) -> np.ndarray:
    """Return the region in which airways can be: (Z, Y, X) bool, computed on a grid of about 3 mm.

    In each slice it is the convex hull of both lungs (which includes the mediastinum) and of a column around the
    trachea, which is continued 50 mm below its lower end for the main bronchi; with a margin of 6 mm, inside the body.
    Without a trachea the lungs' uppermost 30 mm are continued to the top. Without lungs it is the whole body.
    """
    if not lungs.any():
        return body.copy()
    factors = factors_for(spacing_mm, _COARSE_MM)
    mm = np.asarray(factors) * np.asarray(spacing_mm, float)
    region = sampled(lungs, factors)
    top = int(np.flatnonzero(region.any(axis=(1, 2)))[-1])
    if trachea is not None:
        region |= _column(trachea, factors, mm, region.shape)
    else:
        region[top:] |= region[max(top - int(_APEX_MM / mm[0]), 0) :].any(axis=0)
    for number in np.flatnonzero(region.any(axis=(1, 2))):
        region[number] = convex_hull_image(region[number])
    steps = ndimage.distance_transform_edt(~region, sampling=mm)
    return enlarged((steps <= _REGION_MARGIN_MM) & sampled(body, factors), factors, body.shape)


def _column(trachea: Trachea, factors: Factors, mm: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The trachea on the coarse grid with margins: 10 mm around it, 50 mm below and 30 mm above."""
    column = np.zeros(shape, bool)
    centers_mm = trachea.centers_zyx / np.asarray(factors) * mm
    y, x = (np.arange(count) * step for count, step in zip(shape[1:], mm[1:], strict=True))
    lowest, highest = centers_mm[0, 0] - _MAIN_BRONCHI_MM, centers_mm[-1, 0] + _ABOVE_TRACHEA_MM
    for number in range(max(int(lowest / mm[0]), 0), min(int(highest / mm[0]) + 1, shape[0])):
        nearest = np.argmin(np.abs(centers_mm[:, 0] - number * mm[0]))
        away_mm = np.hypot(y[:, None] - centers_mm[nearest, 1], x[None] - centers_mm[nearest, 2])
        column[number] = away_mm <= trachea.radius_mm[nearest] + _TRACHEA_MARGIN_MM
    return column


def calibrate(hu: np.ndarray, trachea: Trachea | None) -> float:
    """Return the offset to add to a CT so that its tracheal air is from -1010 to -930 HU; at most 80 HU up or down.

    Tracheal air is anywhere from -1020 to -880 HU, depending on the scanner. A network that was trained on a range of
    it does best on a CT that is shifted only as far as that range requires. The offset is 0 without a trachea.
    """
    if trachea is None:
        return 0.0
    air_hu = float(np.median(hu[tuple(trachea.lumen_zyx.T)]))
    needed = float(np.clip(air_hu, *_USUAL_AIR_HU)) - air_hu
    return float(np.clip(needed, -_LARGEST_SHIFT_HU, _LARGEST_SHIFT_HU))


def normalise(hu: np.ndarray, window_hu: tuple[float, float]) -> np.ndarray:
    """Map Hounsfield units to float32 in [0, 1]: 0 at and below the window's lower end, 1 at and above the upper."""
    low, high = window_hu
    result = hu.astype(np.float32)
    result -= low
    result /= high - low
    return np.clip(result, 0, 1, out=result)


def target_spacing(
    spacing_mm: Sequence[float], minimum_mm: Sequence[float], maximum_mm: Sequence[float]
) -> tuple[float, float, float] | None:
    """Return the spacing nearest to the CT's for which a network was trained; None if the CT's own is one of them.

    All are (z, y, x); a CT may be 1 % outside the limits.
    """
    limits = zip(spacing_mm, minimum_mm, maximum_mm, strict=True)
    z, y, x = (min(max(spacing, low), high) for spacing, low, high in limits)
    if np.allclose((z, y, x), spacing_mm, rtol=0.01, atol=0):
        return None
    return z, y, x


def resample(
    array: np.ndarray,
    spacing_mm: Sequence[float],
    target_mm: Sequence[float],
    order: int,
    shape: Sequence[int] | None = None,
) -> np.ndarray:
    """Resample an array (Z, Y, X) to another spacing, in its own dtype (uint8, int16 or float32).

    ``order`` is 0 (nearest), 1 (linear) or 3 (cubic B-spline). Both grids have the same outer corner, so that
    resampling back with ``shape`` set to the first grid's gives exactly that grid. Without ``shape`` the new grid has
    the nearest number of voxels. Outside the array the nearest voxel's value is taken.
    """
    interpolators = {0: sitk.sitkNearestNeighbor, 1: sitk.sitkLinear, 3: sitk.sitkBSpline}
    source, target = np.asarray(spacing_mm[::-1], float), np.asarray(target_mm[::-1], float)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(source.tolist())
    if shape is None:
        shape = [max(1, round(n * old / new)) for n, old, new in zip(array.shape, spacing_mm, target_mm, strict=True)]
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize([int(count) for count in shape[::-1]])
    resampler.SetOutputSpacing(target.tolist())
    resampler.SetOutputOrigin(((target - source) / 2).tolist())
    resampler.SetInterpolator(interpolators[order])
    resampler.SetUseNearestNeighborExtrapolator(True)
    return sitk.GetArrayFromImage(resampler.Execute(image))
