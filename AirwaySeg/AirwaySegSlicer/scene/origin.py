"""Where each voxel of the airways comes from: the network, open lumens, a repair, a click, or a person's hand.

The run's map is a volume beside the result. What decisions and tools have added and removed since is a tag of the
airways' segment, which Slicer's undo and redo restore together with the voxels. Airways that neither knows were painted
by hand. What was erased in the Segment Editor is noted when the user pauses, or takes the next step (`note_erased`):
painted again it is by hand, and what an undo brings back is what it was.
"""

from __future__ import annotations

import base64
import zlib

import slicer

from AirwaySegSlicer.scene.nodes import ORIGIN, companion, ijk_to_ras, transform_between
from AirwaySegSlicer.scene.segments import Array, Voxels, first_voxel_between, paste, segment_voxels
from AirwaySegSlicer.scene.tags import ORIGINS, read_tag, write_tag
from AirwaySegSlicer.scene.voxel_changes import grid_of, which_are_in

NETWORK, OPEN_LUMEN, REPAIR, CLICK, HAND = 1, 2, 3, 4, 5
"""As in `AirwaySegLib.masks.origin`; 0 is what is not airway."""


def origins_of(segmentation_node: slicer.vtkMRMLSegmentationNode) -> Voxels | None:
    """The origin of each voxel of the airways, uint8 (Z, Y, X), 0 outside them, in the box of their voxels.

    None where it is not known: of airways that this module did not make, or that were moved to another grid.
    """
    import numpy as np

    from AirwaySegLib.masks.origin import edited

    run, mine = companion(segmentation_node, ORIGIN), segment_voxels(segmentation_node)
    low = first_voxel_between(mine.matrix, ijk_to_ras(run), mine.low) if run is not None else None
    if run is None or low is None:
        return None
    known = np.zeros(mine.array.shape, np.uint8)
    paste(known, slicer.util.arrayFromVolume(run), [-index for index in low])
    voxels, codes = _noted(segmentation_node)
    inside, local = _inside(voxels - np.array(low), known.shape)
    known[local] = codes[inside]
    return Voxels(edited(known, mine.array, HAND), mine.low, mine.matrix)


def origins_on(segmentation_node: slicer.vtkMRMLSegmentationNode, ct: slicer.vtkMRMLScalarVolumeNode) -> Array | None:
    """The origins (Z, Y, X), uint8, on the whole grid of the CT; None where they are not known, or on another grid."""
    import numpy as np

    mine = origins_of(segmentation_node) if transform_between(segmentation_node, ct) is None else None
    low = first_voxel_between(mine.matrix, ijk_to_ras(ct), mine.low) if mine is not None else None
    if mine is None or low is None:
        return None
    whole = np.zeros(ct.GetImageData().GetDimensions()[::-1], np.uint8)
    paste(whole, mine.array, low)
    return whole


def note_origins(segmentation_node: slicer.vtkMRMLSegmentationNode, voxels: Array, codes: Array | int) -> None:
    """Note which origin voxels (N, 3), i, j, k on the airways' grid, have from now on: codes (N,) or one; 0: removed.

    Must be called within the step that changes them. Of a voxel that is named twice the last code counts.
    """
    import numpy as np

    run = companion(segmentation_node, ORIGIN)
    if run is None or not len(voxels):
        return
    shift = first_voxel_between(grid_of(segmentation_node), ijk_to_ras(run))
    if shift is None:
        return
    earlier, known = _noted(segmentation_node)
    places = np.concatenate([earlier, np.asarray(voxels, np.int64) + shift])[::-1]
    values = np.concatenate([known, np.broadcast_to(np.asarray(codes, np.uint8), len(voxels))])[::-1]
    places, first = np.unique(places[:, ::-1], axis=0, return_index=True)
    write_tag(segmentation_node, ORIGINS, _packed(places[:, ::-1], values[first]))


def note_erased(segmentation_node: slicer.vtkMRMLSegmentationNode) -> None:
    """Note that voxels whose origin is known are no longer in the airways: they were erased in the Segment Editor."""
    import numpy as np

    run = companion(segmentation_node, ORIGIN)
    try:
        shift = first_voxel_between(grid_of(segmentation_node), ijk_to_ras(run)) if run is not None else None
    except RuntimeError:
        return  # there are no airways, whose tags could be written
    if run is None or shift is None:
        return
    known = slicer.util.arrayFromVolume(run).copy()
    voxels, codes = _noted(segmentation_node)
    inside, local = _inside(voxels, known.shape)
    known[local] = codes[inside]
    outside = voxels[~inside][codes[~inside] > 0]
    places = np.concatenate([np.argwhere(known)[:, ::-1], outside]) - np.array(shift)
    erased = places[~which_are_in(segmentation_node, places)]
    if len(erased):
        note_origins(segmentation_node, erased, 0)


def run_origins(segmentation_node: slicer.vtkMRMLSegmentationNode, voxels: Array) -> Array:
    """What the run noted for voxels (N, 3), i, j, k on the airways' grid, (N,) uint8; 0 where it added nothing."""
    import numpy as np

    run, found = companion(segmentation_node, ORIGIN), np.zeros(len(voxels), np.uint8)
    shift = first_voxel_between(grid_of(segmentation_node), ijk_to_ras(run)) if run is not None else None
    if run is not None and shift is not None and len(voxels):
        array = slicer.util.arrayFromVolume(run)
        inside, local = _inside(voxels + np.array(shift), array.shape)
        found[inside] = array[local]
    return found


def _inside(voxels: Array, shape: tuple[int, ...]) -> tuple[Array, tuple[Array, ...]]:
    """Which voxels (N, 3), as i, j, k, lie in an array (Z, Y, X), and these as its index."""
    inside = ((voxels >= 0) & (voxels < shape[::-1])).all(axis=1)
    return inside, tuple(voxels[inside].T[::-1])


# The tag: rows (i, j, k, count, code) of voxels that follow one another along i, from the run's map's first voxel ---


def _packed(voxels: Array, codes: Array) -> str:
    """Voxels (N, 3), sorted by k, j and i, and their codes (N,) as text."""
    import numpy as np

    goes_on = (np.diff(voxels, axis=0) == (1, 0, 0)).all(axis=1) & (np.diff(codes.astype(int)) == 0)
    starts = np.concatenate([[0], np.flatnonzero(~goes_on) + 1])
    counts = np.diff(np.append(starts, len(voxels)))
    rows = np.column_stack([voxels[starts], counts, codes[starts]]).astype("<i4")
    return base64.b64encode(zlib.compress(rows.tobytes())).decode()


def _noted(segmentation_node: slicer.vtkMRMLSegmentationNode) -> tuple[Array, Array]:
    """What `note_origins` has noted: voxels (N, 3), i, j, k from the first voxel of the run's map, and codes (N,)."""
    import numpy as np

    text = read_tag(segmentation_node, ORIGINS)
    rows = np.frombuffer(zlib.decompress(base64.b64decode(text)) if text else b"", "<i4").reshape(-1, 5)
    counts = rows[:, 3].astype(np.int64)
    voxels = np.repeat(rows[:, :3].astype(np.int64), counts, axis=0)
    voxels[:, 0] += np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return voxels, np.repeat(rows[:, 4].astype(np.uint8), counts)
