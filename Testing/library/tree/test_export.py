"""What other programs find in the files of an airway tree: a small tree whose numbers are known, read again plainly."""

import base64
import csv
import json
import math
import statistics
import struct
import xml.etree.ElementTree as ET
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.tree.airway_tree import LOBES, TRACHEA, AirwayTree, Branch, distances_from_carina
from AirwaySegLib.tree.centerline_file import write_centerline
from AirwaySegLib.tree.export import (
    CURVE_TOLERANCE_MM,
    TABLE_COLUMNS,
    summarise,
    summary_text,
    thinned,
    write_markups,
    write_summary,
    write_table,
)
from AirwaySegLib.tree.segments import SEGMENTS
from AirwaySegLib.tree.wall import WALL_MEASURES, Pi10, Wall, WallScan

WRITERS = (write_centerline, write_table, write_summary, write_markups)
AN_EMPTY_TREE = AirwayTree(branches=(), voxel_mm=(1.0, 1.0, 1.0))
NUMPY_TYPES = {"Float32": "<f4", "Int32": "<i4", "Int64": "<i8"}


def a_branch(number: int, parent: int | None, points_mm: list, radii_mm: list, **more) -> Branch:
    """Volume 100 mm3 times its number."""
    return Branch(
        id=number,
        parent=parent,
        children=more.pop("children", ()),
        component=more.pop("component", 1),
        points_mm=np.array(points_mm, float),
        radii_mm=np.array(radii_mm, float),
        volume_mm3=100.0 * number,
        **more,
    )


@pytest.fixture
def a_tree() -> AirwayTree:
    """Trachea in two stretches (1, 2) with a tracheal bronchus (5) between them, main bronchi (3, 4), a branch on the
    left one (6) and a fragment of one point (7). The carina is at (0, 0, 60)."""
    branches = (
        a_branch(1, None, [[0, 0, 100], [0, 0, 80]], [8, 8], children=(2, 5), name=TRACHEA, strahler=2),
        a_branch(2, 1, [[0, 0, 80], [0, 0, 60]], [8, 8], children=(3, 4), name=TRACHEA, angle_deg=0.0, strahler=2),
        a_branch(3, 2, [[0, 0, 60], [-4, 0, 56]], [6, 6], generation=1, angle_deg=45.0, name="Bronchus für rechts, é"),
        a_branch(4, 2, [[0, 0, 60], [15, 0, 40], [30, 0, 20]], [6, 5, 4], children=(6,), generation=1, angle_deg=37.0),
        a_branch(5, 1, [[0, 0, 80], [-3, 4, 80]], [2, 2], generation=1, angle_deg=90.0, lobe=LOBES[0]),
        a_branch(6, 4, [[30, 0, 20], [30, 12, 20], [30, 12, 11]], [3, 3, 3], generation=2, angle_deg=90.0),
        a_branch(7, None, [[50, 60, 70]], [1], component=2),
    )
    lower = replace(branches[5], lobe=LOBES[4], lobe_confidence=0.75)
    return AirwayTree((*branches[:5], lower, branches[6]), (1.0, 0.7, 0.7), carina_mm=(0.0, 0.0, 60.0), loops_cut=3)


def unpacked(element: ET.Element) -> bytes:
    """One compressed block behind its header, as VTK's reader takes it apart."""
    text = (element.text or "").strip()
    blocks, block_size, partial, *_ = struct.unpack("<3Q", base64.b64decode(text[:32]))
    if blocks == 0:
        assert len(text) == 32
        return b""
    (packed_size,) = struct.unpack("<Q", base64.b64decode(text[:44])[24:])
    block = base64.b64decode(text[44:], validate=True)
    content = zlib.decompress(block)
    assert (blocks, partial, packed_size, block_size) == (1, 0, len(block), len(content))
    return content


def arrays(parent: ET.Element | None) -> dict:
    """The arrays below an element by name: NumPy arrays, or lists of str."""
    assert parent is not None
    found = {}
    for element in parent:
        content = unpacked(element)
        if element.get("type") == "String":
            values = content.decode().split("\0")[:-1]
            assert len(values) == int(element.get("NumberOfTuples", -1))
        else:
            values = np.frombuffer(content, NUMPY_TYPES[element.get("type", "")])
            if "NumberOfComponents" in element.keys():
                values = values.reshape(-1, int(element.get("NumberOfComponents", "")))
        found[element.get("Name")] = values
    return found


def polydata(path: Path) -> ET.Element:
    file = ET.parse(path).getroot()
    assert (file.get("type"), file.get("byte_order"), file.get("header_type")) == ("PolyData", "LittleEndian", "UInt64")
    assert file.get("compressor") == "vtkZLibDataCompressor"
    data = file.find("PolyData")
    assert data is not None
    return data


def part(path: Path, name: str) -> dict:
    return arrays(polydata(path).find(f"Piece/{name}"))


def test_the_distance_from_the_carina_grows_down_both_lungs_and_up_the_trachea(a_tree):
    known = [[40, 20], [20, 0], [0, 4 * math.sqrt(2)], [0, 25, 50], [20, 25], [50, 62, 71]]
    *tree, crumb = distances_from_carina(a_tree)
    for distances, expected in zip(tree, known, strict=True):
        assert distances == pytest.approx(expected)
    assert np.isnan(crumb).all()


def test_a_carina_within_a_branch_is_taken_at_its_nearest_point(a_tree):
    moved = replace(a_tree, carina_mm=(15.0, 1.0, 40.0))
    known = [[65, 45], [45, 25], [25, 25 + 4 * math.sqrt(2)], [25, 0, 25], [45, 50], [25, 37, 46]]
    for distances, expected in zip(distances_from_carina(moved), known, strict=False):
        assert distances == pytest.approx(expected)


def test_without_a_carina_distances_count_from_the_root(a_tree):
    distances = distances_from_carina(replace(a_tree, carina_mm=None))
    assert distances[0].tolist() == [0.0, 20.0]
    assert distances[1][0] == 20.0
    assert np.isnan(distances[6]).all()


def test_the_centerline_says_that_it_is_lps_the_way_slicer_asks(a_tree, tmp_path):
    write_centerline(tmp_path / "centerline.vtp", a_tree)
    assert arrays(polydata(tmp_path / "centerline.vtp").find("FieldData")) == {"SPACE": ["LPS"], "trees": [1]}


def test_each_branch_is_a_line_and_a_single_point_a_vertex(a_tree, tmp_path):
    path = tmp_path / "centerline.vtp"
    write_centerline(path, a_tree)
    piece = polydata(path).find("Piece")
    assert piece is not None
    sizes = {name: int(piece.get(f"NumberOf{name}", -1)) for name in ("Points", "Verts", "Lines", "Strips", "Polys")}
    assert sizes == {"Points": 15, "Verts": 1, "Lines": 6, "Strips": 0, "Polys": 0}
    verts, lines = part(path, "Verts"), part(path, "Lines")
    assert verts["connectivity"].tolist() == [0] and verts["offsets"].tolist() == [1]
    assert lines["offsets"].tolist() == [2, 4, 6, 9, 11, 14]
    points, branch_ids = part(path, "Points")["Points"], part(path, "CellData")["branch_id"]
    assert branch_ids.tolist() == [7, 1, 2, 3, 4, 5, 6]  # vertices stand before lines
    assert points[verts["connectivity"]].tolist() == [[50, 60, 70]]
    for number, places in zip(branch_ids[1:], np.split(lines["connectivity"], lines["offsets"][:-1]), strict=True):
        assert points[places].tolist() == a_tree.branch(int(number)).points_mm.tolist()


def test_the_centerlines_points_carry_radius_distances_and_generation(a_tree, tmp_path):
    write_centerline(tmp_path / "centerline.vtp", a_tree)
    data = part(tmp_path / "centerline.vtp", "PointData")
    assert sorted(data) == ["along_mm", "distance_from_carina_mm", "generation", "radius_mm"]
    assert data["radius_mm"].tolist() == [1, 8, 8, 8, 8, 6, 6, 6, 5, 4, 2, 2, 3, 3, 3]
    root2 = 4 * math.sqrt(2)
    assert data["along_mm"] == pytest.approx([0, 0, 20, 0, 20, 0, root2, 0, 25, 50, 0, 5, 0, 12, 21])
    known = [math.nan, 40, 20, 20, 0, 0, root2, 0, 25, 50, 20, 25, 50, 62, 71]
    assert data["distance_from_carina_mm"] == pytest.approx(known, nan_ok=True)
    assert data["generation"].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2]


def test_the_centerlines_cells_carry_the_branchs_place_measures_and_names(a_tree, tmp_path):
    write_centerline(tmp_path / "centerline.vtp", a_tree)
    data = part(tmp_path / "centerline.vtp", "CellData")
    assert data["parent_id"].tolist() == [0, 0, 1, 2, 2, 1, 4]
    assert data["component"].tolist() == [2, 1, 1, 1, 1, 1, 1]
    assert data["generation"].tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert data["strahler"].tolist() == [1, 2, 2, 1, 1, 1, 1]
    assert data["lobe"].tolist() == [0, 0, 0, 0, 0, 1, 5]
    assert data["lobe_name"] == ["", "", "", "", "", "right upper lobe", "left lower lobe"]
    assert data["estimated_lobe"].tolist() == data["lobe"].tolist() and set(data["by_hand"]) == {""}
    assert data["name"] == ["", "trachea", "trachea", "Bronchus für rechts, é", "", "", ""]
    assert data["length_mm"] == pytest.approx([0, 20, 20, 4 * math.sqrt(2), 50, 5, 21])
    assert data["mean_diameter_mm"] == pytest.approx([2, 16, 16, 12, 9, 4, 6])  # of 4: 5 and 4, outside its parent
    assert data["angle_deg"] == pytest.approx([math.nan, math.nan, 0, 45, 37, 90, 90], nan_ok=True)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_table_and_centerline_say_how_probable_a_branch_is_where_that_is_known(a_tree, tmp_path):
    known = {1: 0.9764, 3: 0.25}
    write_table(tmp_path / "branches.csv", a_tree, known)
    rows = table(tmp_path / "branches.csv")
    assert [row["mean_probability"] for row in rows] == ["0.976", "", "0.25", "", "", "", ""]
    write_centerline(tmp_path / "centerline.vtp", a_tree, known)
    cells = part(tmp_path / "centerline.vtp", "CellData")
    found = dict(zip(cells["branch_id"].tolist(), cells["mean_probability"].tolist(), strict=True))
    assert {branch: value for branch, value in found.items() if value == value} == pytest.approx(known)


def test_the_table_has_a_row_for_each_branch(a_tree, tmp_path):
    write_table(tmp_path / "branches.csv", a_tree)
    rows = table(tmp_path / "branches.csv")
    assert tuple(rows[0]) == TABLE_COLUMNS
    assert [row["id"] for row in rows] == ["1", "2", "3", "4", "5", "6", "7"]
    assert [row["parent"] for row in rows] == ["", "1", "2", "2", "1", "4", ""]
    assert [row["angle_deg"] for row in rows] == ["", "0.0", "45.0", "37.0", "90.0", "90.0", ""]
    assert [row["points"] for row in rows] == ["2", "2", "2", "3", "2", "3", "1"]
    assert rows[2]["name"] == "Bronchus für rechts, é"
    assert rows[2]["length_mm"] == "5.657"
    left, lower = rows[3], rows[5]
    diameters = [left[f"{which}_diameter_mm"] for which in ("mean", "min", "max")]
    assert diameters == ["9.0", "8.0", "10.0"]
    assert [left[f"start_{axis}_mm"] for axis in "lps"] == ["0.0", "0.0", "60.0"]
    assert [left[f"end_{axis}_mm"] for axis in "lps"] == ["30.0", "0.0", "20.0"]
    assert (lower["lobe"], lower["lobe_confidence"], lower["tortuosity"]) == ("left lower lobe", "0.75", "1.4")
    assert [row["volume_mm3"] for row in rows] == ["100.0", "200.0", "300.0", "400.0", "500.0", "600.0", "700.0"]


def test_the_tables_tapering_is_the_diameter_lost_for_each_mm(tmp_path):
    tapered = a_branch(1, None, [[0, 0, z] for z in range(11)], [5 - 0.1 * z for z in range(11)])
    write_table(tmp_path / "branches.csv", AirwayTree((tapered,), (1.0, 1.0, 1.0)))
    assert table(tmp_path / "branches.csv")[0]["tapering_mm_per_mm"] == "0.2"


def walled(tree: AirwayTree) -> AirwayTree:
    """The tree with walls of three of its branches, as a CT would give them."""
    walls = {2: Wall(8.0, 1.0, 0.5, 0.9, 0.5, 20.0), 3: Wall(4.0, 0.5, 0.8, 1.0, None, 50.0, 5.0, 0.75), 4: Wall(3.0)}
    branches = [replace(branch, wall=walls.get(branch.id, Wall())) for branch in tree.branches]
    pi10 = Pi10(3.25, 0.3, 0.25, 0.9, 12, 1, 4.0, 28.0)
    return tree.with_branches(branches, wall_scan=WallScan((0.5, 0.75), -990.0, 40.0, pi10, None, "Thick slices."))


def test_without_a_ct_the_columns_of_the_wall_are_empty(a_tree, tmp_path):
    write_table(tmp_path / "branches.csv", a_tree)
    assert {row[name] for row in table(tmp_path / "branches.csv") for name in WALL_MEASURES} == {""}


def test_the_table_the_summary_and_the_centerline_have_the_walls(a_tree, tmp_path):
    tree = walled(a_tree)
    write_table(tmp_path / "branches.csv", tree)
    second, third, fourth = table(tmp_path / "branches.csv")[1:4]
    assert (second["outer_diameter_mm"], second["wall_area_mm2"], second["wall_area_fraction"]) == (
        "10.0",
        "28.274",
        "0.36",
    )
    assert (second["usable_rays"], second["inter_tapering_percent"], second["artery_diameter_mm"]) == (
        "0.5",
        "20.0",
        "",
    )
    assert (third["airway_artery_ratio"], third["artery_sections"]) == ("0.8", "0.75")
    assert (fourth["lumen_area_mm2"], fourth["wall_thickness_mm"], fourth["wall_area_fraction"]) == ("7.069", "", "")
    total = next(row for row in summarise(tree) if (row.group, row.value) == ("total", "tree"))
    assert (total.walls, total.mean_wall_thickness_mm, total.pi10_mm) == (2, 0.75, 3.25)
    assert total.mean_wall_area_fraction == pytest.approx((0.36 + 0.36) / 2)
    assert total.mean_airway_artery_ratio == pytest.approx(0.8)
    write_centerline(tmp_path / "centerline.vtp", tree)
    data = part(tmp_path / "centerline.vtp", "CellData")
    of_branch = dict(zip(data["branch_id"], data["wall_thickness_mm"], strict=True))
    assert of_branch[2] == 1 and of_branch[3] == 0.5 and math.isnan(of_branch[4])
    text = summary_text(tree)
    assert (
        "Walls of 2 branches; mean airway-to-artery ratio 0.80 (arteries found: 1); Pi10 3.25 mm (12 branches" in text
    )
    assert "Warning: Thick slices." in text


def test_walls_survive_the_way_through_json(a_tree):
    tree = walled(a_tree)
    again = AirwayTree.from_json(tree.to_json())
    assert [branch.wall for branch in again.branches] == [branch.wall for branch in tree.branches]
    assert again.wall_scan == tree.wall_scan
    assert AirwayTree.from_json(a_tree.to_json()).wall_scan is None


def test_generations_lobes_and_the_total_add_up(a_tree):
    rows = {(row.group, row.value): row for row in summarise(a_tree)}
    root2 = 4 * math.sqrt(2)
    first = rows["generation", "1"]
    assert first.branches == 3
    assert first.length_mm == pytest.approx(root2 + 50 + 5)
    assert first.mean_length_mm == pytest.approx((root2 + 55) / 3)
    mean_mm = (12 * root2 + 9 * 50 + 4 * 5) / (root2 + 50 + 5)
    assert first.mean_diameter_mm == pytest.approx(mean_mm)
    squares = root2 * (12 - mean_mm) ** 2 + 50 * (9 - mean_mm) ** 2 + 5 * (4 - mean_mm) ** 2
    total = root2 + 50 + 5
    assert first.sd_diameter_mm == pytest.approx(math.sqrt(squares / (total - (root2**2 + 50**2 + 5**2) / total)))
    assert first.volume_mm3 == pytest.approx(1200)
    assert [value for group, value in rows if group == "generation"] == ["0", "1", "2"]
    assert [value for group, value in rows if group == "lobe"] == [*LOBES, "none"]
    assert rows["lobe", "left lower lobe"].length_mm == pytest.approx(21)
    assert rows["lobe", "right middle lobe"].branches == 0
    assert rows["total", "tree"].branches == 6
    assert rows["total", "tree"].length_mm == pytest.approx(root2 + 116)
    assert rows["total", "fragments"].volume_mm3 == pytest.approx(700)
    for group in ("generation", "lobe"):
        same = [row for row in rows.values() if row.group == group]
        assert sum(row.branches for row in same) == 6
        assert sum(row.volume_mm3 for row in same) == pytest.approx(rows["total", "tree"].volume_mm3)


def test_with_equal_lengths_the_deviation_is_that_of_the_sample():
    branches = tuple(
        a_branch(k + 1, None if k == 0 else 1, [[0, 0, 0], [0, 0, 9]], [r, r], generation=k > 0, children=c)
        for k, (r, c) in enumerate([(8, (2, 3, 4)), (3, ()), (4, ()), (7, ())])
    )
    row = summarise(AirwayTree(branches, (1.0, 1.0, 1.0)))[1]
    assert row.mean_diameter_mm == pytest.approx(28 / 3)
    assert row.sd_diameter_mm == pytest.approx(statistics.stdev([6, 8, 14]))


def test_a_short_stretch_changes_the_tracheas_diameter_little_and_all_its_figures_agree(a_tree):
    narrow = a_branch(1, None, [[0, 0, 81], [0, 0, 80]], [4, 4], children=(2, 5), name=TRACHEA)
    tree = a_tree.with_branches([narrow, *a_tree.branches[1:]])
    lines = summary_text(tree).splitlines()
    assert lines[1] == "Trachea: mean diameter 15.6 mm, 21 mm long"  # (1 x 8 + 20 x 16) / 21
    assert lines[4].split() == ["0", "2", "21.0", "15.6"]


def test_the_text_ends_with_the_trees_warnings_one_a_line(a_tree):
    warned = replace(a_tree, warnings=("Only 5 mm of the\ntrachea.", "No carina."))
    lines = summary_text(warned).splitlines()
    assert lines[:-2] == summary_text(a_tree).splitlines()
    assert lines[-2:] == ["Warning: Only 5 mm of the trachea.", "Warning: No carina."]
    assert summary_text(replace(AN_EMPTY_TREE, warnings=("No carina.",))).endswith("\nWarning: No carina.")


def test_the_summary_leaves_a_field_empty_where_there_is_nothing_to_average(a_tree, tmp_path):
    write_summary(tmp_path / "summary.csv", a_tree)
    rows = {(row["group"], row["value"]): row for row in table(tmp_path / "summary.csv")}
    middle, lower = rows["lobe", "right middle lobe"], rows["lobe", "left lower lobe"]
    assert (middle["branches"], middle["length_mm"]) == ("0", "0.0")
    assert (middle["mean_length_mm"], middle["mean_diameter_mm"], middle["sd_diameter_mm"]) == ("", "", "")
    assert (lower["mean_diameter_mm"], lower["sd_diameter_mm"]) == ("6.0", "")
    assert rows["generation", "0"]["sd_diameter_mm"] == "0.0"


def test_the_text_names_what_a_reader_looks_for_first(a_tree):
    lines = summary_text(a_tree).splitlines()
    assert lines[0] == "Airway tree: 6 branches, 122 mm, 2.1 ml, down to generation 2"
    assert lines[1] == "Trachea: mean diameter 16.0 mm, 40 mm long"
    assert lines[2] == "Loose fragments: 1 (1 branches, 0 mm). Loops cut: 3; spurs pruned: 0"
    assert [line.split() for line in lines[4:]] == [
        ["0", "2", "40.0", "16.0"],
        ["1", "3", "60.7", "8.9"],
        ["2", "1", "21.0", "6.0"],
    ]


def test_the_text_of_a_tree_without_trachea_or_branches_says_so(a_tree):
    nameless = a_tree.with_branches([replace(branch, name="") for branch in a_tree.branches])
    assert "Trachea: none found" in summary_text(nameless)
    assert summary_text(AN_EMPTY_TREE) == "No airways: the tree has no branches."


def curves(path: Path) -> list[dict]:
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["@schema"].endswith("markups-schema-v1.0.3.json#")
    return document["markups"]


def test_each_branch_is_a_locked_lps_curve_with_its_radius(a_tree, tmp_path):
    write_markups(tmp_path / "curves.mrk.json", a_tree)
    found = curves(tmp_path / "curves.mrk.json")
    assert [curve["type"] for curve in found] == ["Curve"] * 7
    assert {curve["coordinateSystem"] for curve in found} == {"LPS"}
    assert all(curve["locked"] and curve["display"]["pointLabelsVisibility"] is False for curve in found)
    assert [found[place]["name"] for place in (0, 2, 3)] == [
        "Branch 1 (trachea)",
        "Branch 3 (Bronchus für rechts, é)",
        "Branch 4",
    ]
    right = found[2]
    assert [point["position"] for point in right["controlPoints"]] == [[0, 0, 60], [-4, 0, 56]]
    assert [point["label"] for point in right["controlPoints"]] == ["3-1", "3-2"]
    (radius,) = right["measurements"]
    assert (radius["name"], radius["units"], radius["controlPointValues"]) == ("Radius", "mm", [6, 6])
    assert len(found[6]["controlPoints"]) == 1 and found[6]["measurements"][0]["controlPointValues"] == [1]


def test_curves_of_one_generation_share_a_colour_and_neighbours_do_not(a_tree, tmp_path):
    write_markups(tmp_path / "curves.mrk.json", a_tree)
    colours = [tuple(curve["display"]["selectedColor"]) for curve in curves(tmp_path / "curves.mrk.json")]
    assert colours[0] == colours[1] and colours[2] == colours[3] == colours[4]
    assert len(set(colours)) == 3
    assert all(0 <= part <= 1 for colour in colours for part in colour)


def test_a_straight_branch_needs_its_two_ends_only():
    branch = a_branch(1, None, [[0, 0, z] for z in range(101)], [4 - 0.01 * z for z in range(101)])
    assert thinned(branch) == pytest.approx(np.array([[0, 0, 0, 4], [0, 0, 100, 3]]))


def test_an_arc_keeps_as_many_points_as_the_tolerance_asks():
    # A chord over the angle a of a circle of radius 20 mm is off by 20 (1 - cos(a / 2)) in its middle: a quarter of
    # the circle in 3 chords is off by 0.68 mm, in 4 by 0.38 mm.
    angles = np.linspace(0, math.pi / 2, 201)
    arc = a_branch(1, None, np.column_stack([20 * np.cos(angles), 20 * np.sin(angles), 0 * angles]).tolist(), [3] * 201)
    assert len(thinned(arc)) == 5
    assert np.linalg.norm(thinned(arc)[:, :2], axis=1) == pytest.approx(20, abs=0.01)
    assert len(thinned(arc, tolerance_mm=0.7)) == 4


def test_a_narrowing_of_a_straight_branch_is_kept():
    radii = [4.0] * 40 + [2.0] * 20 + [4.0] * 40
    points = thinned(a_branch(1, None, [[0, 0, z] for z in range(100)], radii))
    assert 2 < len(points) <= 100
    between = np.interp(np.arange(100), points[:, 2], points[:, 3])
    assert np.abs(between - radii).max() <= CURVE_TOLERANCE_MM


def test_points_that_coincide_are_one_control_point():
    assert thinned(a_branch(1, None, [[1, 2, 3]] * 4, [2] * 4)).tolist() == [[1, 2, 3, 2]]


def test_an_empty_tree_gives_readable_files(tmp_path):
    for number, write in enumerate(WRITERS):
        write(tmp_path / str(number), AN_EMPTY_TREE)
    points = part(tmp_path / "0", "Points")["Points"]
    assert points.shape == (0, 3)
    assert part(tmp_path / "0", "CellData")["name"] == []
    assert (tmp_path / "1").read_text() == ",".join(TABLE_COLUMNS) + "\n"
    assert [row["branches"] for row in table(tmp_path / "2")] == ["0"] * (7 + len(SEGMENTS) + 1)
    assert curves(tmp_path / "3") == []


@pytest.mark.parametrize("write", WRITERS)
def test_the_same_tree_gives_the_same_bytes(write, a_tree, tmp_path):
    write(tmp_path / "one", a_tree)
    write(tmp_path / "two", AirwayTree.from_json(a_tree.to_json()))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_that_cannot_be_written_is_named(write, a_tree, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(AirwaySegError, match=r"file.*tree\.file cannot be written: "):
        write(tmp_path / "file" / "tree.file", a_tree)


@pytest.mark.parametrize("write", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(write, a_tree, tmp_path, monkeypatch):
    def full(self: Path, text: str, **how: str) -> int:
        with self.open("w") as stream:
            stream.write(text[:10])
        raise OSError(28, "No space left on device")

    path = tmp_path / "tree.file"
    path.write_text("old")
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(AirwaySegError, match="No space left on device"):
        write(path, a_tree)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_further_trees_count_as_trees_and_without_loose_fragments_none_are_named(a_tree, tmp_path):
    two = replace(a_tree, trees=(1, 2))
    lines = summary_text(two).splitlines()
    assert lines[0].startswith("2 airway trees: 7 branches") and lines[2] == "Loops cut: 3; spurs pruned: 0"
    rows = {(row.group, row.value): row for row in summarise(two)}
    assert rows["total", "tree"].branches == 7 and ("total", "fragments") not in rows
    write_centerline(tmp_path / "centerline.vtp", two)
    assert arrays(polydata(tmp_path / "centerline.vtp").find("FieldData"))["trees"].tolist() == [1, 2]
