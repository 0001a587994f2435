"""Both questions on drawn trees: is a piece airway, and where does it come from."""

from itertools import product

import numpy as np
import pytest
from phantoms import Tube, a_forked_tree, draw_tubes
from scipy.ndimage import binary_dilation

from AirwaySegLib.files.volume import Volume
from AirwaySegLib.masks.components import label_components
from AirwaySegLib.repair.arborescence import arborescence
from AirwaySegLib.repair.decide import decide, repaired_mask
from AirwaySegLib.repair.origins import Found, bridges_by_origin, find_origins
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
