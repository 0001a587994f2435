"""Both questions on drawn trees: is a piece airway, and where does it come from."""

from itertools import product

import numpy as np
import pytest
from phantoms import Tube, a_forked_tree, draw_tubes
from scipy.ndimage import binary_dilation

from AirwaySegLib.files.volume import Volume
from AirwaySegLib.masks.components import label_components
from AirwaySegLib.repair.arborescence import arborescence
from AirwaySegLib.repair.bridge import PATH, Bridge
from AirwaySegLib.repair.decide import decide, repaired_mask
from AirwaySegLib.repair.origins import ALONE, LEAST_ORIGIN, Candidate, Found, bridges_by_origin, find_origins
from AirwaySegLib.repair.path_bridges import Evidence
from AirwaySegLib.repair.piece_score import airway_probability
from AirwaySegLib.repair.proposal import APPLIED, Proposal
from AirwaySegLib.tree.build import parse_airways

SPACING_MM = (1.0, 1.0, 1.0)
SHAPE = (200, 90, 190)
LUNG_HU, WALL_HU, LUMEN_HU, TISSUE_HU = -860, -350, -980, 30


def drawn(*tubes: Tube) -> np.ndarray:
    return draw_tubes(list(tubes), SHAPE, SPACING_MM)


def stretch(tube: Tube, first: float, last: float, radius: float = 0.0) -> np.ndarray:
    """The part of a tube between two shares of its length, with flat ends."""
    start, way = np.array(tube.start_mm), np.subtract(tube.end_mm, tube.start_mm)
    width = radius or max(tube.start_radius_mm, tube.end_radius_mm) + 0.7
    return drawn(Tube(tuple(start + first * way), tuple(start + last * way), width, width, round_ends=False))


def painted(lumen: np.ndarray, tissue: np.ndarray | None = None) -> np.ndarray:
    """HU of open lumens with walls in lung, and of soft tissue around and between them, with noise."""
    hu = np.full(SHAPE, LUNG_HU)
    hu[binary_dilation(lumen, iterations=2)] = WALL_HU
    if tissue is not None:
        hu[tissue] = TISSUE_HU
    hu[lumen] = LUMEN_HU
    return (hu + np.random.default_rng(1).normal(0, 20, SHAPE)).astype(np.int16)


def repaired(mask: np.ndarray, hu: np.ndarray) -> tuple[list[Proposal], np.ndarray, Found]:
    """The proposals, the components' numbers and what was found."""
    parsed = parse_airways(Volume(mask.astype(np.uint8), SPACING_MM))
    labels = label_components(mask)
    found = find_origins(parsed, labels, SPACING_MM, Evidence(hu))
    return decide(bridges_by_origin(found), parsed, labels, 0.5), labels, found


def joined(proposals: list[Proposal]) -> set[int]:
    return {number for one in proposals if one.state == APPLIED for number in one.fragments}


TREE = a_forked_tree()
RIGHT_MAIN, RIGHT_LOW = TREE[1], TREE[3]


@pytest.fixture(scope="module")
def whole() -> np.ndarray:
    return drawn(*TREE)


def test_what_lies_behind_a_plug_in_line_is_joined(whole):
    plug = stretch(RIGHT_LOW, 0.4, 0.58)  # 10 mm of mucus
    proposals, labels, _ = repaired(whole & ~plug, painted(whole & ~plug, plug & whole))
    assert labels.max() == 2 and joined(proposals) == {2}
    mask = repaired_mask(labels, proposals)
    assert label_components(mask).max() == 1 and (mask & plug & whole).sum() > 0.5 * (plug & whole).sum()


def test_a_piece_is_joined_through_another_piece(whole):
    gaps = stretch(RIGHT_LOW, 0.25, 0.35) | stretch(RIGHT_LOW, 0.65, 0.75)
    proposals, labels, _ = repaired(whole & ~gaps, painted(whole))
    assert labels.max() == 3 and joined(proposals) == {2, 3}
    middle = int(labels[tuple(np.argwhere(stretch(RIGHT_LOW, 0.48, 0.5) & whole)[0])])
    assert {one.bridge.joins for one in proposals if one.state == APPLIED} == {
        (1, middle),
        tuple(sorted((middle, 5 - middle))),
    }


def test_a_piece_beside_another_branch_is_joined_to_its_own(whole):
    """Beside the lower branch, 6 mm away, runs a second one from the hilum; its far part is loose by 8 mm."""
    beside = Tube((85.0, 40.0, 52.0), (38.0, 52.0, 62.0), 2.5, 2.0)
    airway = whole | drawn(beside)
    mask = airway & ~(stretch(beside, 0.45, 0.6) & ~whole)
    mask = np.isin(labels := label_components(mask), [1, 2]) & (labels > 0)
    proposals, labels, _ = repaired(mask, painted(airway))
    assert labels.max() == 2 and joined(proposals) == {2}
    [applied] = [one for one in proposals if one.state == APPLIED]
    true = binary_dilation(drawn(beside), np.ones((3, 3, 3)))
    assert true[tuple(applied.bridge.voxels.T)].mean() > 0.8


def test_a_blob_and_the_oesophagus_stay_loose(whole):
    """A ball of consolidation's air beside a tip, and gas in the midline behind the trachea, within soft tissue."""
    ball = drawn(Tube((28.0, 58.0, 27.0), (27.0, 58.0, 27.0), 4.5, 4.5))
    gas = drawn(Tube((180.0, 56.0, 92.0), (135.0, 56.0, 91.0), 4.0, 3.5))
    mediastinum = drawn(Tube((199.0, 50.0, 90.0), (120.0, 50.0, 90.0), 24.0, 24.0, round_ends=False))
    mask = whole & ~stretch(RIGHT_LOW, 0.85, 1.2) | ball | gas
    hu = painted(whole | gas, mediastinum)
    hu[binary_dilation(ball, iterations=3) & ~whole] = -450
    hu[ball] = -500
    proposals, labels, found = repaired(mask, hu)
    assert labels.max() == 3 and joined(proposals) == set()
    oesophagus = int(labels[160, 56, 92])
    assert airway_probability(found.pieces)[oesophagus] < 0.2 and found.pieces["behind"][oesophagus] > 0.6


@pytest.mark.parametrize(("radius_mm", "is_airway"), [(1.5, True), (6.0, False)])
def test_a_piece_wider_than_all_airways_around_it_is_none(whole, radius_mm, is_airway):
    piece = drawn(Tube((9.0, 45.0, 12.0), (9.0, 45.0, 60.0), radius_mm, radius_mm))
    _, labels, found = repaired(whole | piece, painted(whole | piece))
    number = int(labels[9, 45, 40])
    assert number > 1 and (airway_probability(found.pieces)[number] > 0.5) == is_airway
    assert (found.pieces["wider"][number] > 1.8) != is_airway


def test_a_severed_main_bronchus_is_joined(whole):
    """7 mm of the right main bronchus are missing just beyond the carina, filled with mucus."""
    gap = stretch(RIGHT_MAIN, 0.2, 0.35)
    proposals, labels, _ = repaired(whole & ~gap, painted(whole & ~gap, gap & whole))
    assert labels.max() == 2 and joined(proposals) == {2}
    assert label_components(repaired_mask(labels, proposals)).max() == 1


def by_trying(weights: dict[tuple[int, int], float], nodes: list[int]) -> float:
    """The greatest weight of all arborescences from 1."""
    best = -np.inf
    for parents in product(nodes, repeat=len(nodes) - 1):
        parent = dict(zip(nodes[1:], parents, strict=True))
        if any((parent[node], node) not in weights for node in parent):
            continue
        if all(reaches_the_root(parent, node) for node in parent):
            best = max(best, sum(weights[parent[node], node] for node in parent))
    return best


def reaches_the_root(parent: dict[int, int], node: int) -> bool:
    for _ in range(len(parent) + 1):
        if node == 1:
            return True
        node = parent[node]
    return False


@pytest.mark.parametrize("seed", range(20))
def test_the_arborescence_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    nodes = [1, 2, 3, 4, 5]
    weights = {(a, b): float(rng.normal()) for a in nodes for b in nodes if a != b and b != 1 and rng.random() < 0.7}
    weights |= {(1, node): -9.0 for node in nodes[1:] if (1, node) not in weights}
    parents = arborescence(weights, 1)
    assert set(parents) == {2, 3, 4, 5} and all(reaches_the_root(parents, node) for node in parents)
    total = sum(weights[parent, node] for node, parent in parents.items())
    assert total == pytest.approx(by_trying(weights, nodes))


def a_way(parent: int, arrives_z: float, turn_deg: float) -> Candidate:
    """A way to piece 2 across 2 mm of lumen, the less likely the more it bends."""
    facts = {
        "distance_mm": 2.0, "angle_deg": turn_deg, "turn_deg": turn_deg, "at_end": 1.0, "radius_ratio": 0.8,
        "at_tree": 1.0, "at_root": 1.0, "proximal": 0.2, "length_mm": 20.0, "mean_cost": 0.5, "most_cost": 0.8,
    }  # fmt: skip
    voxels = np.array([[int(arrives_z), 5, 5]], np.int32)
    return Candidate(2, parent, np.array([arrives_z, 5.0, 5.0]), (1, 2), voxels, 2.0, PATH, facts)


def two_ways(ring_hu: float, *ways: Candidate) -> list[Bridge]:
    """Bridges of piece 2, 20 mm long, whose wall is so much denser than its lumen."""
    of_piece = {
        "length_mm": 20.0, "slenderness": 8.0, "open_share": 0.8, "ring_hu": ring_hu, "around_hu": 0.0,
        "lumen_hu": -900.0, "soft_share": 0.0, "far_mm": 3.0, "behind": 0.0, "forks": 0.0, "taper": 0.1,
        "radius_mm": 1.2, "voxels": 90.0,
    }  # fmt: skip
    return bridges_by_origin(Found({name: np.full(3, value) for name, value in of_piece.items()}, list(ways)))


def test_doubt_between_two_origins_is_no_doubt_of_the_piece():
    """Two ways about as likely: neither is sure, but one of them is right, and the piece is surely airway."""
    best, other = two_ways(300.0, a_way(1, 10.0, 20.0), a_way(1, 60.0, 22.0))
    assert 0.4 < best.facts["origin"] < 0.6 and 0.4 < other.facts["origin"] < best.facts["origin"]
    some = best.facts["origin"] + other.facts["origin"]
    assert best.score == pytest.approx(best.facts["airway"] * some, abs=1e-3) and best.score > 0.7
    assert other.score == pytest.approx(other.facts["airway"] * other.facts["origin"], abs=1e-3)


def test_a_mask_alone_needs_a_sure_origin():
    """The shape of a piece tells little of what it is, so that only one sure way speaks for it."""
    ways = [a_way(1, 10.0, 20.0), a_way(1, 60.0, 22.0)]
    shape = {"length_mm": 20.0, "slenderness": 8.0, "radius_mm": 1.2, "forks": 0.0, "taper": 0.1, "voxels": 90.0}
    bridges = bridges_by_origin(Found({name: np.full(3, value) for name, value in shape.items()}, ways))
    for one in bridges:
        assert one.score == pytest.approx(ALONE * one.facts["airway"] * one.facts["origin"], abs=1e-3)
        assert one.score < 0.5


def test_a_piece_is_not_joined_by_one_of_many_ways_of_which_none_stands_out():
    ways = [a_way(1, 30.0 * number, 20.0) for number in range(8)]
    bridges = two_ways(300.0, *ways)
    assert max(one.facts["origin"] for one in bridges) < LEAST_ORIGIN
    assert max(one.score for one in bridges) < LEAST_ORIGIN


def test_what_is_hardly_airway_is_not_joined_however_sure_its_origin():
    [bridge] = two_ways(-100.0, a_way(1, 10.0, 0.0))
    assert bridge.facts["origin"] > 0.9 and bridge.score < 0.5


def test_without_a_probability_the_ct_has_to_show_more():
    """The same piece, vague in the CT; a network that called it airway makes the difference."""
    facts = {
        "length_mm": 20.0, "slenderness": 8.0, "open_share": 0.3, "ring_hu": 60.0, "around_hu": 0.0,
        "lumen_hu": -900.0, "soft_share": 0.0, "far_mm": 3.0, "behind": 0.0, "radius_mm": 1.2,
    }  # fmt: skip
    seen = {name: np.array([value]) for name, value in facts.items()}
    probable = seen | {"probability": np.array([0.9]), "upper_decile": np.array([0.95])}
    assert airway_probability(seen)[0] < 0.5 < airway_probability(probable)[0]
