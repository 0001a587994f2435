"""What happens to a CT before the network: body, lungs, box and region to search, Hounsfield calibration, resampling.

Arrays are canonical (z upwards, y backwards, x from right to left; see `volume.to_canonical`), spacings z, y, x in mm.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from skimage.morphology import convex_hull_image

from AirwaySegLib.coarse import block_means, enlarged, factors_for

_IN_PLANE = np.pad(ndimage.generate_binary_structure(2, 1)[None], ((1, 1), (0, 0), (0, 0)))
_COARSE_MM = (3.0, 3.0, 3.0)
_TISSUE_HU = -400
_SURE_AIR_HU = -940


def _disc(radius: int) -> np.ndarray:
    """A flat disc of so many voxels, (1, 2 r + 1, 2 r + 1) bool."""
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

    Computed on a grid of about 3 mm, slice by slice: what is not tissue and reaches the edge of the image is outside.
    Where the field of view cuts a lung or the chest wall is very thin, lung counts as outside at first: what is not
    quite as dark as free air and lies mostly within the convex hull of the tissue is taken back. False everywhere if
    the CT shows no tissue.
    """
    factors = factors_for(spacing_mm, _COARSE_MM)
    coarse = block_means(hu, factors)
    padding = _touching(coarse <= coarse.min() + 1, _frame(coarse))
    edge = ndimage.binary_dilation(padding, _disc(1)) | _frame(coarse)
    tissue = ndimage.binary_opening(coarse > _TISSUE_HU, _disc(1))
    body = _largest(_without_thin_things(~_touching(~tissue, edge)))
    with_cut_lungs = _without_thin_things(~_touching(coarse < _sure_air_hu(coarse[edge & ~padding]), edge))
    body |= _mostly_within(with_cut_lungs & ~body, _largest(tissue))
    return enlarged(_largest(body), factors, hu.shape)


def _mostly_within(extra: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """Return the components of ``extra`` of which more than half lies in the slices' convex hulls of ``tissue``."""
    labels, count = ndimage.label(extra)
    hulls = np.zeros_like(tissue)
    for number in np.flatnonzero(extra.any(axis=(1, 2)) & tissue.any(axis=(1, 2))):
        hulls[number] = convex_hull_image(tissue[number])
    inside = ndimage.mean(hulls, labels, np.arange(count + 1)) > 0.5
    inside[0] = False
    return inside[labels]


def _frame(coarse: np.ndarray) -> np.ndarray:
    """Mark the outermost voxels of each slice."""
    frame = np.zeros(coarse.shape, bool)
    frame[:, [0, -1]] = frame[:, :, [0, -1]] = True
    return frame


def _sure_air_hu(at_edge: np.ndarray) -> float:
    """Return a value between free air and lung, from the dark voxels at the edge of the view; by default -940 HU.

    Scanners put free air anywhere from -1020 to -940. If even the darkest voxels at the edge are brighter, they are
    lung that the view cuts.
    """
    dark = at_edge[at_edge < -800]
    level = np.percentile(dark, 10) if dark.size else -1000
    return float(max(_SURE_AIR_HU, level + 35)) if level < -915 else _SURE_AIR_HU


def _without_thin_things(body: np.ndarray) -> np.ndarray:
    """Open a filled body by a disc of 12 mm radius, which takes away table, clothes and cables."""
    # beyond the image the body goes on, so that nothing is lost where the field of view cuts it
    padded = np.pad(body, ((0, 0), (4, 4), (4, 4)), mode="edge")
    return ndimage.binary_opening(padded, _disc(4))[:, 4:-4, 4:-4]


def _largest(mask: np.ndarray) -> np.ndarray:
    """Return the largest component (neighbours share a face); nothing stays nothing."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
