"""Where the lungs and the trachea are in a CT, roughly, to put a region of interest round them."""

from __future__ import annotations

from typing import Any

import slicer

from AirwaySegSlicer.scene.nodes import Box, fit_region

AIR_HU = -500.0
"""Lungs are darker, other tissue is brighter."""
COARSE_MM, MARGIN_MM = 4.0, 10.0
LEAST_ML = 50.0
"""Less air than this inside the body is bowel, or the trachea alone."""

Array = Any


def fit_region_to_lungs(roi_node: slicer.vtkMRMLMarkupsROINode, volume_node: slicer.vtkMRMLScalarVolumeNode) -> bool:
    """Fit the region to lungs and trachea with a margin; False where none are found, and it covers the whole CT."""
    box = lung_box(slicer.util.arrayFromVolume(volume_node), volume_node.GetSpacing())
    fit_region(roi_node, volume_node, box)
    return box is not None


def lung_box(hu: Array, spacing_mm: tuple[float, float, float]) -> Box | None:
    """The voxels, along i, j and k, round the air inside the body and `MARGIN_MM` round it; None where there is none.

    ``hu`` is (Z, Y, X), ``spacing_mm`` along i, j, k. Air that reaches the edge of the slices is outside the body. The
    CT is looked at every `COARSE_MM`.
    """
    import numpy as np
    from scipy import ndimage

    steps = [max(1, round(COARSE_MM / mm)) for mm in spacing_mm]
    labels, count = ndimage.label(hu[tuple(slice(None, None, step) for step in steps[::-1])] < AIR_HU)
    voxel_ml = float(np.prod([mm * step for mm, step in zip(spacing_mm, steps, strict=True)])) / 1000
    inside = np.bincount(labels.ravel(), minlength=count + 1) * voxel_ml >= LEAST_ML
    inside[[0, *np.unique(labels[:, [0, -1]]), *np.unique(labels[:, :, [0, -1]])]] = False
    parts = [part for number, part in enumerate(ndimage.find_objects(labels), start=1) if inside[number]]
    if not parts:
        return None
    box = []
    for axis, (step, mm) in enumerate(zip(steps, spacing_mm, strict=True)):
        margin, whole = round(MARGIN_MM / mm), hu.shape[2 - axis]
        low = min(part[2 - axis].start for part in parts) * step
        high = max(part[2 - axis].stop for part in parts) * step
        box.append((max(0, low - margin), min(whole, high + margin)))
    along_i, along_j, along_k = box
    return along_i, along_j, along_k
