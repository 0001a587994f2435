"""Makes a training case of a real CT and a mask that is precise but incomplete and ragged.

Airway is where the mask and the CT agree. Voxels that the mask may have missed are left out: a shell around it where
the CT is nearer to the lumen than to the wall, dark spots in the lungs, air beside the tree and in the trachea. The
rest is background: walls, parenchyma without dark spots, vessels, chest wall, oesophagus, outside air.
"""

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from AirwaySegLib.chest.preprocessing import body_mask, lung_mask
from AirwaySegLib.chest.trachea import find_trachea
from AirwaySegLib.files.volume import Volume
from AirwaySegLib.masks.components import Box, bounding_box, distance_to
from AirwaySegTraining.simulator.simulate import SimulatedCase

AIR_HU = -500
SHELL_MM = 1.6
BESIDE_TREE_MM = 5.0
AROUND_TRACHEA_MM = 8.0
PLEURA_MM = 5.0
"""No airway is visible this near to the lungs' surface..."""

HILUM_MM = 15.0
"""... unless the tree is as near as this."""

DARK_SPOT_HU = 20.0
"""A smoothed voxel of lung is doubtful if it is darker than its surroundings by at least this."""


def dark_spots(hu: NDArray, lungs: NDArray, spacing_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Voxels of the lungs that are darker than the parenchyma around them, where small airways may be; (Z, Y, X) bool.

    Vessels and chest wall are clipped to the lungs' median density first: they would make everything beside them seem
    dark.
    """
    if not lungs.any():
        return np.zeros(hu.shape, bool)
    tissue = np.minimum(hu, np.median(hu[lungs])).astype(np.float32)
    image = sitk.GetImageFromArray(tissue)
    image.SetSpacing(tuple(reversed(spacing_mm)))
    near, around = (sitk.SmoothingRecursiveGaussian(image, sigma_mm) for sigma_mm in (0.8, 5.0))
    darker = sitk.GetArrayFromImage(around - near)
    usual = float(np.median(np.abs(darker[lungs])))
    return (darker > max(DARK_SPOT_HU, 2.5 * usual)) & lungs


def is_wall(hu: NDArray, airway: NDArray, spacing_mm: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Voxels beside airway that are nearer to the wall's density than to the lumen's; (Z, Y, X) bool.

    Beside is within `SHELL_MM` along each axis, and never less than one voxel, which in thick slices is farther.
    The lumen is the darkest airway and the wall the brightest voxel as near. Where a vessel touches the wall, its
    blood counts as wall: less is called wall then, never more.
    """
    size = tuple(2 * max(1, round(SHELL_MM / mm)) + 1 for mm in spacing_mm)
    darkest = minimum_filter(np.where(airway, hu, np.inf).astype(np.float32), size)
    brightest = maximum_filter(hu.astype(np.float32), size)
    return np.isfinite(darkest) & (hu > (darkest + brightest) / 2)


def doubtful_label(ct: Volume, mask: NDArray) -> tuple[NDArray[np.uint8], Box]:
    """Label (0 background, 1 airway, 2 left out) on the body's box, and that box; ``ct`` and ``mask`` are canonical."""
    body = body_mask(ct.array, ct.spacing_mm)
    trachea = find_trachea(ct.array, body, ct.spacing_mm)
    box = bounding_box(body, margin=12) or (slice(None),) * 3
    hu, inside, airway = ct.array[box], body[box], mask[box] > 0
    lungs = lung_mask(ct.array, body, ct.spacing_mm)[box]
    from_tree_mm = distance_to(airway, ct.spacing_mm)
    wall = is_wall(hu, airway, ct.spacing_mm)
    doubtful = (from_tree_mm < SHELL_MM) & (airway | ~wall)
    inner = distance_to(~lungs, ct.spacing_mm) > PLEURA_MM
    doubtful |= dark_spots(hu, lungs, ct.spacing_mm) & (inner | (from_tree_mm < HILUM_MM))
    doubtful |= (from_tree_mm < BESIDE_TREE_MM) & (hu < AIR_HU) & ~lungs
    if trachea is not None:  # `lumen_zyx` does not reach the wall
        seeds = np.zeros(ct.array.shape, bool)
        seeds[tuple(trachea.lumen_zyx.T)] = True
        doubtful |= (distance_to(seeds[box], ct.spacing_mm) < AROUND_TRACHEA_MM) & (hu < AIR_HU)
        top = min(trachea.top + round(20 / ct.spacing_mm[0]), ct.array.shape[0]) - (box[0].start or 0)
        doubtful[top:] |= inside[top:] & (hu[top:] < AIR_HU)
    label = np.where(doubtful, 2, 0).astype(np.uint8)
    label[airway & (hu < AIR_HU) & ~wall] = 1
    return label, box


def pseudo_case(ct: Volume, mask: NDArray, source: str) -> SimulatedCase:
    """A case to train on, from canonical CT and mask (Z, Y, X); ``source`` says in case.json where the mask is from."""
    label, box = doubtful_label(ct, mask)
    description = {
        "source": source,
        "clean": False,
        "label_values": {"0": "background", "1": "airway", "2": "left out: the mask may have missed something"},
    }
    return SimulatedCase(ct.array[box].astype(np.int16), label, ct.spacing_mm, description)
