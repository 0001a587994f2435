"""Segmentations, label maps and CTs under parent transforms: compared and exported where Slicer shows them."""

import json

import module_scenes as scenes
import numpy as np
import pytest
import slicer

from AirwaySegSlicer.commands import compare
from AirwaySegSlicer.commands import export as exporting
from AirwaySegSlicer.commands import segment as segmentation
from AirwaySegSlicer.scene import nodes, segments
from AirwaySegSlicer.scene.comparison import other_mask
from AirwaySegSlicer.scene.hand_names import NAMES
from AirwaySegSlicer.scene.origin import origins_on
from AirwaySegSlicer.scene.tags import write_tag

SHIFT = (3, -2, 4)
"""Voxels along i, j and k."""


def a_shift(by: tuple[int, int, int] = SHIFT) -> slicer.vtkMRMLLinearTransformNode:
    """A transform that moves by so many voxels of the CT."""
    matrix = np.eye(4)
    matrix[:3, 3] = np.asarray(scenes.IJK_TO_RAS)[:3, :3] @ by
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    slicer.util.updateTransformMatrixFromArray(transform, matrix)
    return transform


def shifted(mask: np.ndarray, by: tuple[int, int, int] = SHIFT) -> np.ndarray:
    """The mask (Z, Y, X) moved by so many voxels; what leaves the grid is lost."""
    moved = np.zeros_like(mask)
    segments.paste(moved, mask, list(by))
    return moved


def drawn(mask: np.ndarray, ct, name: str) -> slicer.vtkMRMLSegmentationNode:
    """A segmentation of a mask on the CT's grid."""
    node = segments.new_segmentation(name, ct)
    node.GetSegmentation().AddEmptySegment("airways", "Airways")
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, "airways", ct)
    return node


@pytest.mark.parametrize("kind", ["segmentation", "label map"])
def test_what_is_compared_lies_where_its_transform_shows_it(slicer_host, kind):
    ct, mask = scenes.a_ct()
    if kind == "segmentation":
        theirs = drawn(mask, ct, "Theirs")
    else:
        values, to_ras = mask.astype(np.uint8), scenes.IJK_TO_RAS
        theirs = slicer.util.addVolumeFromArray(values, to_ras, "Theirs", nodeClassName="vtkMRMLLabelMapVolumeNode")
    assert np.array_equal(other_mask(theirs, ct), mask)
    theirs.SetAndObserveTransformNodeID(a_shift().GetID())
    assert np.array_equal(other_mask(theirs, ct), shifted(mask))
    ct.SetAndObserveTransformNodeID(a_shift((1, 0, 0)).GetID())
    assert np.array_equal(other_mask(theirs, ct), shifted(mask, (2, -2, 4)))
    ct.SetAndObserveTransformNodeID(a_shift().GetID())  # Another node, the same place.
    assert np.array_equal(other_mask(theirs, ct), mask)


def test_airways_that_were_moved_away_from_their_ct_get_a_sentence(slicer_host, tmp_path):
    ct, mask = scenes.a_ct()
    airways = segmentation.take_in(scenes.write_result(tmp_path / "result", ct, mask), ct)
    theirs, transform = drawn(mask, ct, "Theirs"), a_shift()
    for node in (airways, ct):
        node.SetAndObserveTransformNodeID(transform.GetID())
        with pytest.raises(RuntimeError, match="CT airways and CT are under different transforms"):
            exporting.export_node(airways, str(tmp_path / "mask.nrrd"))
        with pytest.raises(RuntimeError, match="CT airways and CT are under different transforms"):
            compare.comparing_job(airways, theirs)
        assert origins_on(airways, ct) is None
        node.SetAndObserveTransformNodeID(None)
    for node in (airways, ct):
        node.SetAndObserveTransformNodeID(transform.GetID())
    exporting.export_node(airways, str(tmp_path / "mask.nrrd"))


def test_names_are_exported_with_the_mask_to_another_ct_under_a_transform(slicer_host, tmp_path):
    ct, mask = scenes.a_ct()
    airways = drawn(mask, ct, "Mine")
    to_ras = slicer.util.arrayFromVTKMatrix(nodes.ijk_to_ras(ct))
    inside = np.argwhere(mask)[[10, -10]][:, ::-1] @ to_ras[:3, :3].T + to_ras[:3, 3]
    points = [[round(-x, 2), round(-y, 2), round(z, 2)] for x, y, z in inside.tolist()]
    plain = {"points_mm": points, "lobe": "right upper lobe", "segment": "", "with_subtree": False}
    write_tag(airways, NAMES, json.dumps([plain]))
    finer = to_ras @ np.diag([0.5, 0.5, 0.5, 1])
    other = slicer.util.addVolumeFromArray(np.zeros([2 * count for count in mask.shape], np.int16), finer, "Other")
    other.SetAndObserveTransformNodeID(a_shift((2, 2, 2)).GetID())
    exporting._write_names(airways, other, str(tmp_path / "names.json"))
    [name] = json.loads((tmp_path / "names.json").read_text())["names"]
    moved = segments.mask_on_ct(airways, other)
    for x, y, z in name["points_mm"]:
        i, j, k = np.rint((np.linalg.inv(finer) @ [-x, -y, z, 1])[:3]).astype(int)
        assert moved[k, j, i]
