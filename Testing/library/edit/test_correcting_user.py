"""The user whom a script plays, on drawn airways: what he sees, what he does, and what painting would take."""

import numpy as np
import pytest
from broken_starts import Damage, broken_start
from correcting import Session
from correcting_user import CLICK, CUT, User
from forked_branch import BRANCH, CHILD, SHAPE, SPACING_MM, TRUNK
from painting import erasing_strokes, painting_to, strokes_along
from phantoms import Tube, a_deep_tree, draw_tubes
from reference_airways import Reference
from scipy.ndimage import binary_dilation, gaussian_filter

from AirwaySegLib.errors import AirwaySegError
from AirwaySegLib.files.volume import Volume, read_on_grid, write_nrrd
from AirwaySegLib.masks.components import label_components
from AirwaySegLib.masks.origin import CLICK as CLICK_ORIGIN
from AirwaySegLib.masks.origin import NETWORK, REPAIR
from AirwaySegLib.repair.bridge import Bridge
from AirwaySegLib.repair.proposal import Proposal
from AirwaySegTraining.data.data_folder import CaseFiles, add_case

FALSE = Tube((30.0, 20.0, 20.0), (25.0, 20.0, 50.0), 2.5, 2.0)


def drawn(*tubes: Tube) -> np.ndarray:
    return draw_tubes(list(tubes), SHAPE, SPACING_MM)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.of(drawn(TRUNK, BRANCH, CHILD).astype(np.uint8), SPACING_MM)


@pytest.fixture
def session() -> Session:
    """The child is missing, and a false branch hangs on the trunk."""
    airway = drawn(TRUNK, BRANCH, CHILD)
    hu = np.where(binary_dilation(airway, iterations=2), -450.0, -860.0)
    hu[airway] = -980
    hu = gaussian_filter(hu, 0.6) + np.random.default_rng(1).normal(0, 30, SHAPE)
    return Session(Volume(hu.astype(np.int16), SPACING_MM), drawn(TRUNK, BRANCH, FALSE))


def test_a_whole_mask_lacks_nothing_and_has_nothing_false(reference):
    whole = reference.airway
    scores = reference.scores(whole)
    assert (scores.tld, scores.bd, scores.precision, scores.exact) == (100, 100, 100, 100)
    assert not reference.stretches(whole) and not reference.false_pieces(whole)


def test_the_missing_branch_is_one_stretch_from_the_tree_to_its_tip(reference):
    (stretch,) = reference.stretches(drawn(TRUNK, BRANCH))
    ends_mm = stretch.voxels[[0, -1]] * SPACING_MM
    assert stretch.length_mm == pytest.approx(CHILD.length_mm - 2.0, abs=3)
    assert ends_mm[0] == pytest.approx((52, 20, 47), abs=2.5) and ends_mm[1] == pytest.approx((65, 20, 60), abs=2)


def test_what_does_not_hang_on_the_tree_is_missing_unless_a_plug_lies_between(reference):
    mask = drawn(TRUNK, BRANCH, CHILD)
    gap = np.zeros(SHAPE, bool)
    gap[:, :, 45:49] = True  # across the branch
    apart = reference.scores(mask & ~gap)
    plugged = Reference(reference.airway & ~gap, reference.airway & gap, SPACING_MM)
    assert apart.tld < 65 and plugged.scores(mask & ~gap).tld == 100


def test_the_false_branch_is_one_piece_and_its_edge_is_counted_apart(reference):
    mask = drawn(TRUNK, BRANCH, CHILD, FALSE)
    (piece,) = reference.false_pieces(mask)
    false = mask & ~reference.airway
    assert false[tuple(piece.T)].all() and len(piece) > 0.9 * false.sum()
    wider = reference.scores(binary_dilation(reference.airway))
    assert wider.precision == 100 > 90 > wider.exact


def test_the_user_adds_what_is_missing_with_a_click_and_takes_out_what_is_false_with_a_cut(reference, session):
    steps = list(User(session, reference).work())
    assert sorted(step.kind for step in steps) == [CLICK, CUT] and all(step.helped for step in steps)
    assert sum(step.actions for step in steps) <= 3
    assert steps[-1].scores.tld >= 98 and steps[-1].scores.precision >= 98


def test_what_the_user_leaves_is_a_training_case_with_its_corrections_and_their_origins(reference, session, tmp_path):
    first = session.mask.copy()
    session.first, session.origin = first, (NETWORK * first).astype(np.uint8)
    list(User(session, reference).work())
    session.write_case(tmp_path)
    session.ct.array[:2] = [[[40]], [[900]]]  # soft tissue and bone
    write_nrrd(tmp_path / "ct.nrrd", session.ct.array, session.ct)
    paths = {name: tmp_path / f"{name}.nrrd" for name in ("ct", "label", "initial", "origin")}
    folder, _ = add_case(tmp_path / "data", CaseFiles(**paths, patient="one", trusted=True))
    paths = {name: folder / f"{name}.nrrd" for name in ("label", "edited", "origin")}
    label, edited, origin = (read_on_grid(path, session.ct).array for path in paths.values())
    assert np.array_equal(label != 0, session.mask) and np.array_equal(edited != 0, session.mask != first)
    added, removed = session.mask & ~first, first & ~session.mask
    assert added.any() and (origin[added] == CLICK_ORIGIN).all() and removed.any()
    assert np.array_equal(origin > 0, session.mask) and set(np.unique(origin)) == {0, NETWORK, CLICK_ORIGIN}


def test_a_user_whose_clicks_are_all_refused_stops(reference, session, monkeypatch):
    def refuse(*_points):
        raise AirwaySegError("No airway is seen.")

    monkeypatch.setattr(session, "grown", refuse)
    steps = list(User(session, reference).work())
    clicks = [step for step in steps if step.kind == CLICK]
    assert clicks and not any(step.helped for step in clicks) and steps[-1].scores.tld < 98


def test_a_stroke_reaches_as_far_as_one_slice_does():
    radii = np.full(30, 1.0)
    row = np.arange(30)
    flat = np.column_stack([np.full(30, 7), row, row])
    rising = np.column_stack([row, row, row])
    assert strokes_along(flat, radii, (0.7, 0.7, 0.7)) == [30]
    assert len(strokes_along(rising, radii, (0.7, 0.7, 0.7))) == 15
    assert len(strokes_along(flat, np.linspace(1, 3, 30), (0.7, 0.7, 0.7))) == 3


def test_painting_counts_what_is_needed_and_no_more(reference):
    whole, start = reference.airway, drawn(TRUNK, BRANCH, FALSE)
    done = painting_to(reference, start, 98, 98)
    assert (done.painted, done.erased) == (1, 1) and done.balls > 10
    assert painting_to(reference, whole, 98, 98).strokes == 0
    assert sum(erasing_strokes(reference.false_pieces(start)[0], SPACING_MM)) == len(reference.false_pieces(start)[0])


def test_a_bad_start_lacks_subtrees_has_loose_pieces_and_false_branches():
    spacing = (1.0, 1.0, 1.0)
    airway = draw_tubes(a_deep_tree(5), (300, 260, 300), spacing)
    whole = Volume(airway.astype(np.uint8), spacing)
    hu = np.full(airway.shape, -850, np.int16)
    damage = Damage(subtrees=3, breaks=0.1, beside=2, attached=2)
    mask = broken_start(whole, hu, damage, np.random.default_rng(3))
    again = broken_start(whole, hu, damage, np.random.default_rng(3))
    false = label_components(mask & ~airway)
    assert np.array_equal(mask, again)
    assert 0.6 < mask[airway].mean() < 0.99
    assert label_components(mask).max() >= 3
    assert false.max() >= 3 and (false > 0).sum() > 500


def a_repair(number: int, state: str, joins: tuple[int, int], brings: int, voxels: np.ndarray) -> Proposal:
    bridge = Bridge(joins, voxels.astype(np.int32), 0.6, "path", 2.0)
    return Proposal(number, bridge, (brings,), 1, (0.0, 0.0, 0.0), state, "")


def test_decisions_about_repairs_take_the_ones_that_they_hang_on_with_them():
    row = np.column_stack([np.full(20, 5), np.full(20, 5), np.arange(20)])
    trunk, first, second, third, fourth = np.split(row, [4, 6, 10, 12])
    mask = np.zeros((10, 10, 20), bool)
    mask[tuple(np.concatenate([trunk, first, second]).T)] = True
    repairs = {1: a_repair(1, "applied", (1, 2), 2, first), 2: a_repair(2, "proposed", (2, 3), 3, third)}
    hu = Volume(np.full(mask.shape, -850, np.int16), (1.0, 1.0, 1.0))
    origin = (NETWORK * mask).astype(np.uint8)
    session = Session(hu, mask, proposals=repairs, pieces={2: second, 3: fourth}, origin=origin)
    refused, accepted = session.decisions()
    assert {tuple(voxel) for voxel in refused.remove.tolist()} == {*map(tuple, [*first.tolist(), *second.tolist()])}
    assert len(accepted.add) == len(third) + len(fourth)
    session.decide(refused)
    assert mask.sum() == len(trunk) and np.array_equal(origin > 0, mask)
    (accepted,) = session.decisions()
    session.decide(accepted)
    assert mask.sum() == 20 and not session.decisions()
    bridges = tuple(np.concatenate([first, third]).T)
    assert (origin[bridges] == REPAIR).all() and (origin == NETWORK).sum() == 20 - len(bridges[0])
