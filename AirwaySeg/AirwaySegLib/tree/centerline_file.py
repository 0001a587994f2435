"""The centerline of an airway tree as a VTK file (.vtp) for ParaView and 3D Slicer, built in memory without VTK.

All points are in mm in LPS. The file appears under its name only when it is complete; same tree, same bytes.
"""

import base64
import math
import struct
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from AirwaySegLib.files.atomic_output import write_text
from AirwaySegLib.tree.airway_tree import LOBES, AirwayTree, Branch, distances_from_carina
from AirwaySegLib.tree.segments import SEGMENTS, full_name
from AirwaySegLib.tree.wall import wall_measures

WALL_ARRAYS = ("inner_diameter_mm", "wall_thickness_mm", "wall_area_fraction", "airway_artery_ratio", "usable_rays")
"""Those figures of the wall that a centerline carries for each branch."""

_VTK_TYPES = {"f4": "Float32", "i4": "Int32", "i8": "Int64"}


def write_centerline(path: Path, tree: AirwayTree, probability: dict[int, float] | None = None) -> None:
    """Write the centerline as VTK XML PolyData (.vtp) that ParaView and 3D Slicer colour by its arrays.

    One polyline for each branch, and one vertex for a branch of a single point (filters that draw tubes refuse a line
    of one point). VTK lists vertices before lines, so cells are found by ``branch_id`` and not by index.

    Point arrays: radius_mm, along_mm (from the branch's start), distance_from_carina_mm (see `distances_from_carina`),
    generation. Cell arrays: branch_id, parent_id (0: none), component, generation, strahler, length_mm,
    mean_diameter_mm, angle_deg (NaN for a root), mean_probability (of the voxels, by branch id in ``probability``; NaN
    where it is not known), `WALL_ARRAYS` (NaN where not measured), lobe (0: none, 1... in the order of `LOBES`),
    segment (the same in the order of `SEGMENTS`), what was estimated of both whether a person named the branch or not
    (estimated_lobe, estimated_lobe_confidence, estimated_segment, estimated_segment_confidence), what was counted
    whether a person gave the generation or not (counted_generation), and as text name, lobe_name, segment_name,
    by_hand (`Branch.given`) and estimated_name. The field ``SPACE`` tells 3D Slicer that the
    points are LPS (vtkMRMLModelStorageNode), and ``trees`` which components are trees.

    Raises
    ------
    AirwaySegError
        If the file cannot be written.
    """
    branches = sorted(tree.branches, key=lambda branch: len(branch.points_mm) > 1)
    single = sum(len(branch.points_mm) == 1 for branch in branches)
    counts = np.array([len(branch.points_mm) for branch in branches], np.int64)
    file = ET.Element("VTKFile", type="PolyData", version="1.0", byte_order="LittleEndian", header_type="UInt64")
    file.set("compressor", "vtkZLibDataCompressor")
    data = ET.SubElement(file, "PolyData")
    of_all = ET.SubElement(data, "FieldData")
    _add_text(of_all, "SPACE", ["LPS"])
    _add_numbers(of_all, "trees", np.array(tree.trees, "<i4"))
    of_all[-1].set("NumberOfTuples", str(len(tree.trees)))
    number_of = {"Points": int(counts.sum()), "Verts": single, "Lines": len(branches) - single, "Strips": 0, "Polys": 0}
    piece = ET.SubElement(data, "Piece", {f"NumberOf{name}": str(count) for name, count in number_of.items()})
    _add_point_data(piece, tree, branches)
    _add_cell_data(piece, branches, probability or {})
    points = np.concatenate([np.empty((0, 3)), *(branch.points_mm for branch in branches)])
    _add_numbers(ET.SubElement(piece, "Points"), "Points", points.astype("<f4"))
    index = np.arange(counts.sum())
    for name, connectivity, sizes in (
        ("Verts", index[:single], counts[:single]),
        ("Lines", index[single:], counts[single:]),
    ):
        cells = ET.SubElement(piece, name)
        _add_numbers(cells, "connectivity", connectivity.astype("<i8"))
        _add_numbers(cells, "offsets", np.cumsum(sizes).astype("<i8"))
    ET.indent(file, " ")
    write_text(path, '<?xml version="1.0"?>\n' + ET.tostring(file, encoding="unicode") + "\n")


def _add_point_data(piece: ET.Element, tree: AirwayTree, branches: list[Branch]) -> None:
    from_carina = distances_from_carina(tree)
    data = ET.SubElement(piece, "PointData", Scalars="generation")
    for name, parts in (
        ("radius_mm", [branch.radii_mm for branch in branches]),
        ("along_mm", [branch.along_mm for branch in branches]),
        ("distance_from_carina_mm", [from_carina[branch.id - 1] for branch in branches]),
    ):
        _add_numbers(data, name, np.concatenate([np.empty(0), *parts]).astype("<f4"))
    generations = np.repeat([branch.generation for branch in branches], [len(branch.points_mm) for branch in branches])
    _add_numbers(data, "generation", generations.astype("<i4"))


def _add_cell_data(piece: ET.Element, branches: list[Branch], probability: dict[int, float]) -> None:
    data = ET.SubElement(piece, "CellData")
    segments = {segment: number for number, segment in enumerate(("", *SEGMENTS))}
    lobes = {lobe: number for number, lobe in enumerate(("", *LOBES))}
    estimates = [branch.estimate or branch for branch in branches]
    for name, numbers in (
        ("branch_id", [branch.id for branch in branches]),
        ("parent_id", [branch.parent or 0 for branch in branches]),
        ("component", [branch.component for branch in branches]),
        ("generation", [branch.generation for branch in branches]),
        ("counted_generation", [branch.counted for branch in branches]),
        ("strahler", [branch.strahler for branch in branches]),
        ("lobe", [lobes.get(branch.lobe, 0) for branch in branches]),
        ("segment", [segments[branch.segment] for branch in branches]),
        ("estimated_lobe", [lobes.get(estimate.lobe, 0) for estimate in estimates]),
        ("estimated_segment", [segments[estimate.segment] for estimate in estimates]),
    ):
        _add_numbers(data, name, np.array(numbers, "<i4"))
    for name, measures in (
        ("length_mm", [branch.length_mm for branch in branches]),
        ("mean_diameter_mm", [branch.mean_diameter_mm for branch in branches]),
        ("angle_deg", [math.nan if branch.angle_deg is None else branch.angle_deg for branch in branches]),
        ("mean_probability", [probability.get(branch.id, math.nan) for branch in branches]),
        ("estimated_lobe_confidence", [estimate.lobe_confidence for estimate in estimates]),
        ("estimated_segment_confidence", [estimate.segment_confidence for estimate in estimates]),
    ):
        _add_numbers(data, name, np.array(measures, "<f4"))
    for name in WALL_ARRAYS:
        walls = [wall_measures(branch.wall)[name] for branch in branches]
        _add_numbers(data, name, np.array([math.nan if value is None else value for value in walls], "<f4"))
    _add_text(data, "name", [branch.name for branch in branches])
    _add_text(data, "lobe_name", [branch.lobe for branch in branches])
    _add_text(data, "segment_name", [full_name(branch.segment) for branch in branches])
    _add_text(data, "by_hand", [branch.given for branch in branches])
    _add_text(data, "estimated_name", [estimate.name for estimate in estimates])


def _add_numbers(parent: ET.Element, name: str, values: NDArray[Any]) -> None:
    element = ET.SubElement(parent, "DataArray", type=_VTK_TYPES[values.dtype.str[1:]], Name=name, format="binary")
    if values.ndim == 2:
        element.set("NumberOfComponents", str(values.shape[1]))
    element.text = _packed(values.tobytes())


def _add_text(parent: ET.Element, name: str, values: list[str]) -> None:
    """Strings, each ended by a zero byte; packed like numbers, so that no character can break the XML."""
    element = ET.SubElement(parent, "Array", type="String", Name=name, format="binary")
    element.set("NumberOfTuples", str(len(values)))
    element.text = _packed(b"".join(value.encode() + b"\0" for value in values))


def _packed(content: bytes) -> str:
    """VTK's inline form of compressed data: base64 of a header, then base64 of one zlib block.

    The header is blocks, bytes in a block, bytes in a last partial block (0: none), packed bytes of each block.
    """
    if not content:
        return base64.b64encode(struct.pack("<3Q", 0, 0, 0)).decode()
    block = zlib.compress(content)
    header = struct.pack("<4Q", 1, len(content), 0, len(block))
    return (base64.b64encode(header) + base64.b64encode(block)).decode()
