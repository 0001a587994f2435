"""After an edit what has not changed is taken over, and the result is the same to the last bit."""

from dataclasses import replace

import numpy as np
import pytest
from phantoms import a_deep_tree, a_forked_tree, draw_tubes
from scipy.ndimage import distance_transform_edt, gaussian_filter

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.volume import Volume
from AirwaySegLib.tree import known_parts, skeleton
from AirwaySegLib.tree.build import ALIGNED, parse_airways
from AirwaySegLib.tree.distance_maps import from_carina, to_centerline, to_wall
from AirwaySegLib.tree.known_parts import KnownParts, checksum
from AirwaySegLib.walls.measure import measure_walls

SPACING_MM = (1.0, 0.9, 0.9)


@pytest.fixture
def small_tiles(monkeypatch):
    """Thinning by tiles in small volumes too."""
    monkeypatch.setattr(skeleton, "LARGE", 0)
    monkeypatch.setattr(skeleton, "TILE", 40)


def a_fork(spacing_mm=SPACING_MM) -> Volume:
    shape = tuple(int(mm / step) for mm, step in zip((200, 80, 180), spacing_mm, strict=True))
    return Volume(draw_tubes(a_forked_tree(), shape, spacing_mm).astype(np.uint8), spacing_mm)


def a_tree_without_trachea() -> Volume:
    whole = a_fork()
    return replace(whole, array=whole.array[:100].copy())


def a_deep_one() -> Volume:
    shape = tuple(int(mm / step) for mm, step in zip((300, 260, 300), (1.2, 1.2, 1.2), strict=True))
    return Volume(draw_tubes(a_deep_tree(5), shape, (1.2, 1.2, 1.2)).astype(np.uint8), (1.2, 1.2, 1.2))


def a_ct(mask: Volume) -> np.ndarray:
    """A CT in which the airways have walls of 1.5 mm in the lung."""
    outside = distance_transform_edt(mask.array == 0, sampling=mask.spacing_mm)
    hu = np.where(mask.array != 0, -1000.0, np.where(outside <= 1.5, 40.0, -850.0))
    hu = gaussian_filter(hu, 0.6 / np.array(mask.spacing_mm)) + np.random.default_rng(0).normal(0, 15, hu.shape)
    return np.rint(hu).astype(np.int16)


def edited(mask: Volume, rng: np.random.Generator) -> Volume:
    """The mask with a ball added beside its lumen, cut out of it, or put where nothing is."""
    array = mask.array.copy()
    kind = int(rng.integers(3))
    voxels = np.argwhere(array != 0) if kind < 2 else np.argwhere(array == 0)
    z, y, x = np.indices((9, 9, 9)) - 4
    ball = np.stack([z, y, x], axis=-1)[z**2 + y**2 + x**2 <= int(rng.integers(4, 17))]
    places = voxels[rng.integers(len(voxels))] + ball + rng.integers(-3, 4, 3)
    places = places[((places >= 0) & (places < array.shape)).all(axis=1)]
    array[tuple(places.T)] = kind != 1
    return replace(mask, array=array)


def the_same(ours, theirs) -> bool:
    arrays = ("places_mm", "radii_mm", "branch", "along_mm", "starts")
    return (
        ours.tree.to_json() == theirs.tree.to_json()
        and all(np.array_equal(getattr(ours.lines, name), getattr(theirs.lines, name)) for name in arrays)
        and np.array_equal(ours.nearest, theirs.nearest)
        and all(np.array_equal(measure(ours), measure(theirs)) for measure in (to_centerline, to_wall, from_carina))
    )


@pytest.mark.parametrize(
    ("make", "edits", "kinds"),
    [
        (a_fork, 3, {"tile", "piece", "radii", "shell", "beside", "assigned"}),
        (a_tree_without_trachea, 3, {"tile", "piece", "radii", "shell", "beside"}),
        (a_deep_one, 2, {"tile", "piece", "radii", "sections", "axis", "shell", "beside", "assigned"}),
    ],
)
def test_a_parse_with_known_parts_is_the_same_after_any_edit(make, edits, kinds, small_tiles):
    mask, rng, known = make(), np.random.default_rng(3), KnownParts()
    parse_airways(mask, known)
    taken = dict.fromkeys(kinds, 0)
    for _ in range(edits):
        mask = edited(mask, rng)
        known = KnownParts(known.now)
        assert the_same(parse_airways(mask, known), parse_airways(mask))
        taken = {kind: count + known.taken.get(kind, 0) for kind, count in taken.items()}
    assert all(taken.values())


def test_thick_slices_are_thinned_from_known_tiles_too(small_tiles):
    mask, rng, known = a_fork((2.5, 0.9, 0.9)), np.random.default_rng(1), KnownParts()
    parse_airways(mask, known)
    mask, known = edited(mask, rng), KnownParts(known.now)
    assert the_same(parse_airways(mask, known), parse_airways(mask))


def test_walls_with_known_parts_are_the_same_after_any_edit():
    mask, rng, known = a_fork(), np.random.default_rng(5), KnownParts()
    ct = a_ct(mask)
    first = measure_walls(parse_airways(mask, known), ct, known)
    assert sum(branch.wall.thickness_mm is not None for branch in first.branches) >= 4
    taken = {"rays": 0, "tubes": 0, "wall": 0, "artery": 0}
    for _ in range(2):
        mask, known = edited(mask, rng), KnownParts(known.now)
        ours, theirs = measure_walls(parse_airways(mask, known), ct, known), measure_walls(parse_airways(mask), ct)
        assert ours.to_json() == theirs.to_json()
        taken = {kind: count + known.taken.get(kind, 0) for kind, count in taken.items()}
    assert all(taken.values())


def test_nothing_is_taken_over_from_another_ct():
    mask, known = a_fork(), KnownParts()
    ct = a_ct(mask)
    measure_walls(parse_airways(mask, known), ct, known)
    other = np.where(ct > -700, ct + 100, ct)
    known = KnownParts(known.now)
    ours = measure_walls(parse_airways(mask, known), other, known)
    assert "rays" not in known.taken
    assert ours.to_json() == measure_walls(parse_airways(mask), other).to_json()


def test_a_part_of_the_scan_that_begins_farther_out_knows_the_same_parts():
    mask = a_fork()
    ct, known, around = a_ct(mask), KnownParts(), ((ALIGNED, 0), (ALIGNED, ALIGNED), (2 * ALIGNED, 7))
    measure_walls(parse_airways(mask, known), ct, known)
    known = KnownParts(known.now)
    wide = replace(mask, array=np.pad(mask.array, around))
    measure_walls(parse_airways(wide, known), np.pad(ct, around, constant_values=-850), known)
    assert "radii" not in known.computed
    assert known.taken["rays"] >= 2  # but those beside the border


# The file ------------------------------------------------------------------------------------------------------------


def test_known_parts_come_back_from_their_file(tmp_path):
    known = KnownParts()
    arrays = (np.arange(6, dtype=np.int16).reshape(2, 3), np.array([np.nan, 1.5]), np.empty((0, 3), np.uint8))
    known.keep("thin", b"one", arrays)
    known.write(tmp_path / "parts.npz")
    found = KnownParts.read(tmp_path / "parts.npz").find("thin", b"one")
    assert all(
        a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(arrays, found)
    )


def test_only_what_was_used_is_written(tmp_path):
    known = KnownParts({b"thin" + b"old": (np.zeros(1),), b"thin" + b"used": (np.ones(1),)})
    known.find("thin", b"used")
    known.write(tmp_path / "parts.npz")
    again = KnownParts.read(tmp_path / "parts.npz")
    assert again.find("thin", b"old") is None and again.find("thin", b"used")[0] == 1


def test_parts_of_another_version_are_not_used(tmp_path, monkeypatch):
    known = KnownParts()
    known.keep("thin", b"one", (np.zeros(1),))
    known.write(tmp_path / "parts.npz")
    monkeypatch.setattr(known_parts, "MAKER", "another")
    assert KnownParts.read(tmp_path / "parts.npz").find("thin", b"one") is None


@pytest.mark.parametrize("content", [b"", b"no archive", "half"])
def test_a_damaged_file_is_a_sentence(content, tmp_path):
    path = tmp_path / "parts.npz"
    known = KnownParts()
    known.keep("thin", b"one", (np.arange(1000),))
    known.write(path)
    path.write_bytes(path.read_bytes()[:300] if content == "half" else content)
    with pytest.raises(AirwaySegError, match="parts.npz cannot be read as known parts"):
        KnownParts.read(path)


def test_a_checksum_knows_types_shapes_and_order():
    ones = [np.zeros((2, 3)), np.zeros((3, 2)), np.zeros((2, 3), np.float32), np.zeros((2, 3), bool), np.eye(2, 3)]
    assert len({checksum(one) for one in ones}) == len(ones)
    assert checksum(1.0, (2, 3)) != checksum((2, 3), 1.0)
    assert checksum(np.arange(12).reshape(3, 4).T) == checksum(np.ascontiguousarray(np.arange(12).reshape(3, 4).T))
