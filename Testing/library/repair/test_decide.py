"""Decisions about bridges on drawn trees whose fragments, loops and blobs are known."""

import json
from dataclasses import replace

import numpy as np
import pytest
from counting import count_calls
from phantoms import Tube, a_forked_tree, draw_tubes

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.volume import Volume
from AirwaySegLib.masks.components import label_components
from AirwaySegLib.repair import decide as repair
from AirwaySegLib.repair.bridge import NETWORK, PATH, Bridge
from AirwaySegLib.repair.decide import closes_a_loop, decide, repaired_mask
from AirwaySegLib.repair.proposal import APPLIED, PROPOSED, REFUSED, from_json, repairs_map, to_json
from AirwaySegLib.tree.build import ParsedAirways, parse_airways

SPACING_MM = (1.0, 1.0, 1.0)
SHAPE = (200, 90, 190)
RIGHT_LOW = Tube((85.0, 40.0, 50.0), (35.0, 55.0, 30.0), 4.0, 3.0)
"""A lower branch of the forked tree on the side of small x, the patient's right."""


def a_volume(mask: np.ndarray) -> Volume:
    return Volume(mask.astype(np.uint8), SPACING_MM, (0.0, 0.0, 0.0), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))


def parsed_with_labels(mask: np.ndarray) -> tuple[ParsedAirways, np.ndarray]:
    return parse_airways(a_volume(mask)), label_components(mask)


def a_tube(start: tuple, end: tuple, radius: float = 2.0) -> np.ndarray:
    return draw_tubes([Tube(start, end, radius, radius, round_ends=False)], SHAPE, SPACING_MM)


def along(tube: Tube, first: float, last: float) -> np.ndarray:
    """The part of a tube between two shares of its length, as a mask."""
    start, way = np.array(tube.start_mm), np.subtract(tube.end_mm, tube.start_mm)
    radius = tube.start_radius_mm + 0.5
    return a_tube(tuple(start + first * way), tuple(start + last * way), radius)


def a_bridge(part: np.ndarray, labels: np.ndarray, joins: tuple, score: float = 0.9, method: str = PATH) -> Bridge:
    voxels = np.argwhere(part & (labels == 0)).astype(np.int32)
    return Bridge(joins, voxels, score, method, 5.0, {"mean_cost": 0.25})


@pytest.fixture(scope="module")
def whole() -> np.ndarray:
    return draw_tubes(a_forked_tree(), SHAPE, SPACING_MM)


@pytest.fixture(scope="module")
def broken(whole):
    """The forked tree with one lower branch cut at two places: a middle piece (2 or 3) and the tip's."""
    first, second = along(RIGHT_LOW, 0.3, 0.42), along(RIGHT_LOW, 0.66, 0.74)
    mask = whole & ~first & ~second
    parsed, labels = parsed_with_labels(mask)
    assert labels.max() == 3
    middle = int(labels[tuple(np.argwhere(along(RIGHT_LOW, 0.5, 0.52) & mask)[0])])
    tip = 5 - middle
    near = a_bridge(along(RIGHT_LOW, 0.28, 0.44) & whole, labels, (1, middle))
    far = a_bridge(along(RIGHT_LOW, 0.64, 0.76) & whole, labels, tuple(sorted((middle, tip))), 0.8)
    return mask, parsed, labels, near, far, (middle, tip)


def test_a_broken_branch_is_joined_piece_by_piece(broken, whole):
    mask, parsed, labels, near, far, (middle, tip) = broken
    first, second = decide([far, near], parsed, labels, 0.5)
    assert (first.number, first.bridge, first.fragments, first.state, first.reason) == (1, near, (middle,), APPLIED, "")
    assert (second.number, second.bridge, second.fragments, second.state) == (2, far, (tip,), APPLIED)
    repaired = repaired_mask(labels, [first, second])
    assert (repaired >= mask).all() and label_components(repaired).max() == 1
    assert np.count_nonzero(whole & ~repaired) < 20


def test_the_branch_of_the_main_tree_is_named_also_for_what_hangs_on_a_fragment(broken):
    _, parsed, labels, near, far, _ = broken
    proposals = decide([near, far], parsed, labels, 0.5)
    [stub] = {proposal.branch for proposal in proposals}
    tip_mm = np.array(parsed.tree.branch(stub).points_mm[-1])
    assert parsed.tree.branch(stub).component == 1
    assert np.linalg.norm(tip_mm - np.array([44.0, 44.5, 70.0])) < 4  # where the cut begins, (x, y, z)


def test_a_proposal_stands_in_the_middle_of_its_bridge_in_the_patients_frame(broken):
    _, parsed, labels, near, _, _ = broken
    [proposal] = decide([near], parsed, labels, 0.5)
    assert np.linalg.norm(np.array(proposal.place_mm) - (42.8, 45.4, 67.0)) < 3


def test_below_the_threshold_it_is_proposed_and_so_is_what_hangs_on_it(broken):
    mask, parsed, labels, near, far, (middle, _) = broken
    weak = Bridge(near.joins, near.voxels, 0.3, NETWORK, near.length_mm)
    first, second = decide([far, weak], parsed, labels, 0.5)
    assert (first.state, first.reason) == (PROPOSED, "Its score of 0.30 is below 0.50.")
    (nearly,) = decide([replace(weak, score=0.4996)], parsed, labels, 0.5)
    assert nearly.reason == "Its score of 0.4996 is below 0.50."
    assert (second.state, second.reason) == (
        PROPOSED,
        f"It continues from fragment {middle}, which is not joined yet.",
    )
    assert (repaired_mask(labels, [first, second]) == (labels == 1)).all()
    assert mask[labels == 1].all()


def test_of_two_bridges_for_a_fragment_the_first_is_taken(broken):
    _, parsed, labels, near, _, (middle, _) = broken
    thinner = a_bridge(a_tube((73.0, 43.6, 45.2), (63.0, 46.6, 41.2), 1.2), labels, near.joins, 0.7)
    taken, other = decide([near, thinner], parsed, labels, 0.5)
    assert (taken.bridge, taken.state) == (near, APPLIED)
    assert (other.bridge, other.state, other.reason) == (thinner, REFUSED, f"Fragment {middle} is joined already.")


def test_a_bridge_to_nowhere_is_refused(broken):
    _, parsed, labels, _, far, _ = broken
    [proposal] = decide([far], parsed, labels, 0.5)
    assert (proposal.state, proposal.reason) == (REFUSED, "Neither of its ends is joined to the tree.")
    assert proposal.branch == 0 and proposal.fragments == ()


def test_a_bridge_that_closes_a_loop_is_refused(broken, whole):
    _, parsed, labels, near, _, _ = broken
    handle = a_tube((110.0, 40.0, 25.0), (75.0, 60.0, 25.0)) | a_tube((75.0, 60.0, 25.0), (75.0, 43.0, 46.0))
    handle |= a_tube((110.0, 40.0, 25.0), (110.0, 37.0, 33.0))
    looped = a_bridge((along(RIGHT_LOW, 0.28, 0.44) & whole) | handle, labels, near.joins)
    [proposal] = decide([looped], parsed, labels, 0.5)
    assert (proposal.state, proposal.reason) == (REFUSED, "It would close a loop in the tree.")


def test_a_cleft_of_one_voxel_is_no_loop(broken, whole):
    _, parsed, labels, near, _, _ = broken
    pierced = near.voxels[~(near.voxels == np.rint(near.voxels.mean(axis=0))).all(axis=1)]
    z, y, x = np.rint(near.voxels.mean(axis=0)).astype(int)
    pierced = pierced[~((pierced[:, 0] == z) & (pierced[:, 2] == x))]  # a hole from front to back
    [proposal] = decide([Bridge(near.joins, pierced, 0.9, PATH, 5.0)], parsed, labels, 0.5)
    assert proposal.state == APPLIED


def with_distractor(whole: np.ndarray, distractor: np.ndarray, bridge: np.ndarray) -> tuple:
    parsed, labels = parsed_with_labels(whole | distractor)
    assert labels.max() == 2
    return parsed, labels, a_bridge(bridge, labels, (1, 2))


def test_a_blob_is_refused(whole):
    ball = a_tube((20.0, 60.0, 26.0), (10.0, 60.0, 26.0), 5.0)
    parsed, labels, bridge = with_distractor(whole, ball, a_tube((34.0, 55.0, 30.0), (20.0, 59.0, 27.0)))
    [proposal] = decide([bridge], parsed, labels, 0.5)
    assert proposal.state == REFUSED and "is a blob" in proposal.reason


def test_a_fragment_wider_than_its_branch_is_refused(whole):
    parsed, labels, bridge = with_distractor(
        whole, a_tube((20.0, 60.0, 50.0), (20.0, 60.0, 110.0), 7.0), a_tube((34.0, 55.0, 30.0), (20.0, 60.0, 50.0))
    )
    [proposal] = decide([bridge], parsed, labels, 0.5)
    assert proposal.state == REFUSED
    assert "mm wide, the branch it would join only" in proposal.reason


def test_a_fragment_in_the_other_lung_is_refused(whole):
    """From the tip of a right lower branch across the middle to a tube far on the left."""
    distractor = a_tube((20.0, 70.0, 110.0), (20.0, 70.0, 180.0), 2.5)
    parsed, labels, bridge = with_distractor(whole, distractor, a_tube((34.0, 55.0, 30.0), (20.0, 70.0, 110.0)))
    [proposal] = decide([bridge], parsed, labels, 0.5)
    assert proposal.state == REFUSED
    assert proposal.reason.startswith("Fragment 2 lies in the left lung, but branch")


def test_a_bridge_to_a_fragment_and_a_blob_brings_the_fragment_alone(whole):
    cut = along(RIGHT_LOW, 0.4, 0.5)
    ball = a_tube((55.0, 62.0, 38.0), (64.0, 62.0, 38.0), 4.5)
    parsed, labels = parsed_with_labels((whole & ~cut) | ball)
    piece, blob = (int(labels[place]) for place in ((45, 52, 34), (60, 62, 38)))
    both = (along(RIGHT_LOW, 0.38, 0.52) & whole) | a_tube((63.0, 46.0, 41.0), (60.0, 58.0, 38.0), 1.5)
    [proposal] = decide([a_bridge(both, labels, (1, 2, 3))], parsed, labels, 0.5)
    assert (proposal.state, proposal.fragments) == (APPLIED, (piece,))
    assert not repaired_mask(labels, [proposal])[labels == blob].any()


def test_no_bridges_no_proposals_and_the_main_tree_alone(broken):
    _, parsed, labels, *_ = broken
    assert decide([], parsed, labels, 0.5) == []
    assert (repaired_mask(labels, []) == (labels == 1)).all()
    assert not repaired_mask(np.zeros((3, 3, 3), np.int32), []).any()


def test_a_fragment_of_one_voxel_can_be_joined(whole):
    speck = np.zeros(SHAPE, bool)
    speck[20, 60, 26] = True
    parsed, labels, bridge = with_distractor(whole, speck, a_tube((34.0, 55.0, 30.0), (20.0, 60.0, 26.0), 1.0))
    [proposal] = decide([bridge], parsed, labels, 0.5)
    assert (proposal.state, proposal.pieces[2].volume_mm3) == (APPLIED, 1.0)


def test_two_thousand_specks_are_judged_in_their_own_boxes(whole, monkeypatch):
    mask = whole.copy()
    mask[2:190:6, 76:88:5, 2:186:6] = True
    parsed, labels = parsed_with_labels(mask)
    count = int(labels.max())
    assert count > 2000
    voxels = np.argwhere(labels > 1)[:, None] + np.array([[0, 1, 0]])
    bridges = [
        Bridge((number, number + 1), voxels[row].astype(np.int32), 0.5 + row / 9000, PATH, 1.0)
        for row, number in enumerate(range(1, count - 1))
    ]
    looked_at = []

    def counted(tree, drawn, brought):
        looked_at.append(tree.size)
        return closes_a_loop(tree, drawn, brought)

    monkeypatch.setattr(repair, "closes_a_loop", counted)
    proposals, calls = count_calls(lambda: decide(bridges, parsed, labels, 0.5))
    assert len(proposals) == len(bridges) >= len(looked_at) > 0
    assert sum(looked_at) < mask.size and calls < 1000 * len(bridges)


def test_the_map_numbers_each_proposal_and_the_applied_one_wins(broken):
    _, parsed, labels, near, _, _ = broken
    other = Bridge(near.joins, np.concatenate([near.voxels, near.voxels[:1] + 30]), 0.4, NETWORK, 5.0)
    proposals = decide([near, other], parsed, labels, 0.5)
    numbers = repairs_map(labels.shape, proposals)
    assert numbers.dtype == np.uint16
    assert (numbers[tuple(near.voxels.T)] == 1).all() and np.count_nonzero(numbers == 2) == 1


def test_json_there_and_back_is_the_same(broken):
    _, parsed, labels, near, far, _ = broken
    proposals = decide([near, far, Bridge(near.joins, near.voxels, 0.3, NETWORK, 5.0)], parsed, labels, 0.5)
    text = to_json(proposals)
    back = from_json(text)
    assert to_json(back) == text
    assert (repaired_mask(labels, back) == repaired_mask(labels, proposals)).all()
    for old, new in zip(proposals, back, strict=True):
        assert (old.number, old.state, old.reason, old.branch, old.pieces) == (
            new.number,
            new.state,
            new.reason,
            new.branch,
            new.pieces,
        )
        assert {tuple(voxel) for voxel in old.bridge.voxels.tolist()} == {tuple(v) for v in new.bridge.voxels.tolist()}


def test_json_names_what_a_reader_needs(broken):
    _, parsed, labels, near, _, (middle, _) = broken
    document = json.loads(to_json(decide([near], parsed, labels, 0.5)))
    [repair] = document["repairs"]
    assert document["format"] == "AirwaySeg repairs 1" and document["space"] == "LPS"
    assert (repair["method"], repair["score"], repair["state"]) == ("path", 0.9, "applied")
    [fragment] = repair["fragments"]
    assert fragment["number"] == middle
    assert fragment["volume_mm3"] == np.count_nonzero(labels == middle)
    assert 10 < fragment["length_mm"] < 25


@pytest.mark.parametrize("text", ["", "[]", '{"format": "x"}', '{"format": "AirwaySeg repairs 1", "repairs": [{}]}'])
def test_what_is_no_list_of_repairs_is_refused(text):
    with pytest.raises(AirwaySegError):
        from_json(text)
