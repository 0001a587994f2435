"""Connected components, holes and boxes of masks, always on the smallest box that holds the mask.

Masks are bool or uint8 arrays (Z, Y, X); neighbours are the 26 around a voxel unless said otherwise.
"""

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

Box = tuple[slice, slice, slice]
Mask = NDArray[np.bool_]


def bounding_box(mask: NDArray, margin: int = 0) -> Box | None:
    """The smallest box around the voxels that are not 0, enlarged by ``margin`` voxels within the array.

    None for an empty mask.
    """
    parts = []
    for axis in range(3):
        others = tuple(k for k in range(3) if k != axis)
        used = np.flatnonzero(mask.any(axis=others))
        if len(used) == 0:
            return None
        parts.append(slice(max(0, int(used[0]) - margin), min(mask.shape[axis], int(used[-1]) + 1 + margin)))
    return parts[0], parts[1], parts[2]


def label_components(mask: NDArray) -> NDArray[np.int32]:
    """Number the components 1, 2, ... from the largest to the smallest; 0 is background."""
    labels = np.zeros(mask.shape, np.int32)
    box = bounding_box(mask)
    if box is None:
        return labels
    image = sitk.GetImageFromArray(mask[box].astype(np.uint8))
    sorted_components = sitk.RelabelComponent(sitk.ConnectedComponent(image, True))
    labels[box] = sitk.GetArrayViewFromImage(sorted_components)
    return labels


def component_through(mask: NDArray, seeds: NDArray) -> Mask:
    """The one component that holds most of ``seeds``, an (N, 3) array of voxel positions; empty if none holds any."""
    box = bounding_box(mask)
    found = np.zeros(mask.shape, bool)
    if box is None or len(seeds) == 0:
        return found
    labels = label_components(mask[box])
    start = np.array([part.start for part in box])
    inside = seeds - start
    inside = inside[((inside >= 0) & (inside < labels.shape)).all(axis=1)]
    touched = labels[tuple(inside.T)]
    touched = touched[touched > 0]
    if len(touched):
        found[box] = labels == np.bincount(touched).argmax()
    return found


def components_of_size(mask: NDArray, least_voxels: int) -> Mask:
    """All components of at least ``least_voxels`` voxels."""
    labels = label_components(mask)
    sizes = np.bincount(labels.ravel())
    keep = sizes >= least_voxels
    keep[0] = False
    return keep[labels]


def fill_holes(mask: NDArray) -> Mask:
    """The mask with every cavity filled: 6-connected background that does not reach the array's border."""
    filled = np.array(mask, dtype=bool)
    box = bounding_box(mask, margin=1)
    if box is not None:
        # A border of background, so that only a cavity at the edge of the whole array stays open.
        image = sitk.GetImageFromArray(np.pad(mask[box].astype(np.uint8), 1))
        whole = sitk.GetArrayFromImage(sitk.BinaryFillhole(image, False, 1))
        filled[box] = whole[1:-1, 1:-1, 1:-1] > 0
    return filled


def opening(mask: NDArray, radius_mm: float, spacing_mm: tuple[float, float, float]) -> Mask:
    """Morphological opening by a ball of ``radius_mm``: wide parts of the mask stay, thin ones are removed.

    Two exact distance maps (SimpleITK's Maurer filter) instead of a ball-shaped element, whose cost grows with its
    volume.
    """
    opened = np.zeros(mask.shape, bool)
    box = bounding_box(mask, margin=1)
    if box is None:
        return opened
    inside = distance_to(~np.pad(np.asarray(mask[box], bool), 1), spacing_mm)
    core = inside > radius_mm
    if core.any():
        reach_mm = radius_mm + 0.5 * min(spacing_mm)  # distances are between centres; the wall is half a voxel off
        opened[box] = (distance_to(core, spacing_mm) < reach_mm)[1:-1, 1:-1, 1:-1] & np.asarray(mask[box], bool)
    return opened


def distance_to(mask: NDArray, spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
    """Distance in mm from each voxel's centre to the nearest one of the mask (0 within it); infinite if it is empty."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    image = sitk.GetImageFromArray(np.asarray(mask, np.uint8))
    image.SetSpacing(tuple(reversed(spacing_mm)))
    distance = sitk.SignedMaurerDistanceMap(image, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
    return np.maximum(sitk.GetArrayViewFromImage(distance), 0)
