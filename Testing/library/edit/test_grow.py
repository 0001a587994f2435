"""Branches grown from clicks: drawn airways with a wall in noisy lung, one of them missing from the mask."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from counting import count_calls
from missing_branch import DECOY, MISSING, PARENT, SHAPE, SPACING_MM, TRUNK, VESSEL, of, painted, voxel
from phantoms import Tube, draw_tubes
from scipy import ndimage
from scipy.ndimage import binary_dilation, gaussian_filter

from AirwaySegLib.edit import branch
from AirwaySegLib.edit import grow as growing
from AirwaySegLib.edit.grow import grow
from AirwaySegLib.edit.scan import Part, Scan
from AirwaySegLib.errors import AirwaySegError

TIP_MM = (45.6, 31.0, 61.0)


@dataclass(frozen=True)
class Drawn:
    """A scan whose mask lacks the missing branch, and the true voxels of that branch."""

    scan: Scan
    missing: np.ndarray


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    tree = draw_tubes([TRUNK, DECOY, PARENT], SHAPE, SPACING_MM)
    missing = draw_tubes([MISSING], SHAPE, SPACING_MM) & ~tree
    return Drawn(Scan(Part(tree), SPACING_MM, SHAPE, painted(tree | missing)), missing)


def refusal(scan: Scan, *points_mm: tuple[float, float, float]) -> str:
    before = scan.airways.array.copy()
    with pytest.raises(AirwaySegError) as raised:
        grow(scan, np.concatenate([voxel(point) for point in points_mm]))
    assert (scan.airways.array == before).all()
    return str(raised.value)


def test_one_click_at_the_tip_grows_the_missing_branch_to_its_parent(drawn):
    growth = grow(drawn.scan, voxel(TIP_MM))
    grown = of(growth.voxels)
    assert not (grown & drawn.scan.airways.array).any()
    assert (grown & drawn.missing).sum() > 0.7 * drawn.missing.sum()
    assert (grown & ~drawn.missing).sum() < 0.25 * len(growth.voxels)
    assert np.linalg.norm(np.array(growth.joins_at) * SPACING_MM - MISSING.start_mm) < 4
    assert growth.length_mm == pytest.approx(MISSING.length_mm, abs=4)
    assert np.median(growth.radii_mm) == pytest.approx(1.5, abs=0.25)
    assert growth.score > 0.8
    assert "closed for" in growth.reason and growth.reason.endswith(".")


def test_a_branch_that_was_found_is_kept_where_the_larger_box_shows_none(drawn, monkeypatch):
    found = grow(drawn.scan, voxel(TIP_MM))
    first = growing._best

    def only_in_the_small_box(around, voxels, strictness, before):
        if before is not None:
            raise AirwaySegError("The point lies in lung tissue.")
        return first(around, voxels, strictness, before)

    monkeypatch.setattr(growing, "GOOD", 2.0)
    monkeypatch.setattr(growing, "_CLEAR_MM", -1.0)  # so that the larger box is looked at
    monkeypatch.setattr(growing, "_best", only_in_the_small_box)
    assert np.array_equal(grow(drawn.scan, voxel(TIP_MM)).voxels, found.voxels)


def test_what_is_grown_is_one_piece_with_the_tree_through_faces(drawn):
    from scipy.ndimage import label

    growth = grow(drawn.scan, voxel(TIP_MM))
    _, count = label(of(growth.voxels) | drawn.scan.airways.array)
    assert count == 1


def test_it_does_not_enter_vessel_or_wall(drawn):
    grown = of(grow(drawn.scan, voxel(TIP_MM)).voxels)
    lumen = drawn.missing | drawn.scan.airways.array
    assert not (grown & draw_tubes([VESSEL], SHAPE, SPACING_MM) & ~lumen).any()
    assert not (grown & ~binary_dilation(lumen)).any()


def test_a_branch_is_never_wider_than_its_parent():
    narrow = Tube((36.0, 31.0, 20.0), (36.0, 31.0, 40.0), 1.2, 1.2)
    sac = Tube((36.0, 31.0, 40.0), (36.0, 31.0, 60.0), 5.0, 5.0)
    tree = draw_tubes([TRUNK, narrow], SHAPE, SPACING_MM)
    scan = Scan(Part(tree), SPACING_MM, SHAPE, painted(tree | draw_tubes([sac], SHAPE, SPACING_MM)))
    growth = grow(scan, voxel((36.0, 31.0, 55.0)))
    assert growth.radii_mm.max() < 2.2
    line = np.linalg.norm((growth.voxels * SPACING_MM)[:, :2] - (36.0, 31.0), axis=1)
    assert np.percentile(line, 95) < 1.3 * 2.2 + 0.8


def test_a_click_up_to_3_mm_beside_the_lumen_stands_for_it(drawn):
    beside = (TIP_MM[0], TIP_MM[1] - 2.6, TIP_MM[2])
    growth = grow(drawn.scan, voxel(beside))
    assert (of(growth.voxels) & drawn.missing).sum() > 0.65 * drawn.missing.sum()


def test_any_corner_of_mask_and_probability_gives_the_same(drawn):
    whole = drawn.scan
    z, y, x = (slice(int(used.min()), int(used.max()) + 1) for used in np.nonzero(whole.airways.array))
    part = Part(whole.airways.array[z, y, x], (z.start, y.start, x.start))
    one, other = grow(whole, voxel(TIP_MM)), grow(replace(whole, airways=part), voxel(TIP_MM))
    assert (one.flat(SHAPE) == other.flat(SHAPE)).all()
    assert one.score == other.score


def test_probability_alone_shows_the_way(drawn):
    probability = np.zeros(SHAPE, np.uint8)
    probability[drawn.missing] = 90
    growth = grow(replace(drawn.scan, hu=None, probability=Part(probability)), voxel(TIP_MM))
    grown = of(growth.voxels)
    assert (grown & drawn.missing).sum() > 0.7 * drawn.missing.sum()
    assert not (grown & ~drawn.missing & ~drawn.scan.airways.array).sum() > 0.1 * len(growth.voxels)
    assert growth.reason.startswith("Mean probability")


def test_a_second_click_prolongs_and_a_click_in_the_tree_says_where_to_join(drawn):
    middle = tuple((np.array(MISSING.start_mm) + TIP_MM) / 2)
    short, long = grow(drawn.scan, voxel(middle)), grow(drawn.scan, np.concatenate([voxel(middle), voxel(TIP_MM)]))
    assert long.length_mm > short.length_mm + 8
    assert set(short.flat(SHAPE)) - set(long.flat(SHAPE)) <= set(np.flatnonzero(binary_dilation(of(long.voxels))))
    wanted = (36.4, 31.0, 37.0)
    steered = grow(drawn.scan, np.concatenate([voxel(TIP_MM), voxel(wanted)]))
    assert np.linalg.norm(np.array(steered.joins_at) * SPACING_MM - wanted) < 4


def test_several_points_add_an_airway_that_the_ct_does_not_show(drawn):
    """Nothing but lung with its noise and a vessel is there."""
    shown = replace(drawn.scan, hu=painted(drawn.scan.airways.array))
    line = np.linspace(MISSING.start_mm, TIP_MM, 4)[1:]
    assert "Two or more points along it" in refusal(shown, TIP_MM) or "no lumen" in refusal(shown, TIP_MM)
    growth = grow(shown, np.concatenate([voxel(tuple(point)) for point in line]))
    grown = of(growth.voxels)
    assert ndimage.label(grown | shown.airways.array)[1] == 1, "through faces"
    assert (grown & drawn.missing).sum() > 0.3 * drawn.missing.sum()
    assert (grown & binary_dilation(drawn.missing)).sum() > 0.8 * grown.sum()
    assert growth.score < 0.5 and "neither a closed wall nor a probability" in growth.reason


def test_what_the_network_found_beyond_a_gap_comes_with_one_click_into_it(drawn):
    beyond = drawn.missing.copy()
    beyond[:, :, : round(48 / SPACING_MM[2])] = False
    probability = np.where(beyond, 200, np.where(drawn.missing, 30, 0)).astype(np.uint8)
    click = voxel((39.5, 31.0, 46.0))
    likely = replace(drawn.scan, probability=Part(probability))
    alone, whole = grow(drawn.scan, click), grow(likely, click)
    assert alone.beyond_mm == 0 and (of(alone.voxels) & beyond).sum() < 0.2 * beyond.sum()
    assert (of(whole.voxels) & beyond).sum() > 0.8 * beyond.sum()
    assert whole.beyond_mm == pytest.approx(whole.length_mm - alone.length_mm, abs=3) and whole.beyond_mm > 8
    steered = grow(likely, np.concatenate([voxel((38.0, 31.0, 42.0)), click]))
    assert steered.beyond_mm == 0
    unlikely = replace(drawn.scan, probability=Part((probability // 6).astype(np.uint8)))
    assert grow(unlikely, click).beyond_mm == 0


def test_refusals_say_what_is_at_the_point_and_change_nothing(drawn):
    scan = drawn.scan
    assert refusal(scan, (45.0, 31.0, 20.0)) == "The point lies in the airways already."
    assert "outside the scan" in refusal(scan, (45.0, 31.0, 200.0))
    assert "outside the body" in refusal(scan, (45.0, 58.0, 40.0))
    assert "lung tissue" in refusal(scan, (20.0, 10.0, 60.0)) or "No airway is seen" in refusal(
        scan, (20.0, 10.0, 60.0)
    )
    everywhere = replace(scan, hu=np.full(SHAPE, 30, np.int16))
    assert "tissue or a vessel" in refusal(everywhere, (20.0, 15.0, 60.0))
    assert refusal(scan, TIP_MM, (45.0, 31.0, 200.0)).startswith("Point 2 lies outside the scan")
    assert "one point only" in refusal(scan, (45.0, 31.0, 20.0), (50.0, 31.0, 20.0), TIP_MM)
    assert "neither is given" in refusal(replace(scan, hu=None), TIP_MM)
    assert "no CT" in refusal(replace(scan, hu=None, probability=Part(np.zeros(SHAPE, np.uint8))), TIP_MM)
    nothing = replace(scan, airways=Part(np.zeros(SHAPE, bool)))
    assert "no airways within 40 mm" in refusal(nothing, TIP_MM)


def test_a_click_into_lung_is_not_made_an_airway(drawn):
    rng = np.random.default_rng(2)
    scores = []
    for point in rng.uniform((10, 8, 40), (70, 20, 70), (12, 3)):
        try:
            scores.append(grow(drawn.scan, voxel(tuple(point))).score)
        except AirwaySegError:
            scores.append(0.0)
    assert max(scores) < 0.5 and np.count_nonzero(scores) <= 3


def test_only_a_box_around_the_click_is_worked_on(drawn, monkeypatch):
    boxes = []
    evidence_in = branch.evidence_in
    monkeypatch.setattr(branch, "evidence_in", lambda *of: boxes.append(of[1]) or evidence_in(*of))
    far = np.pad(drawn.scan.hu, ((0, 200), (0, 100), (0, 100)), constant_values=-1000)
    scan = replace(drawn.scan, hu=far, shape=far.shape)
    _, calls = count_calls(lambda: grow(scan, voxel(TIP_MM)))
    assert len(boxes) == 1 and np.prod(boxes[0].shape) < 60 * 70 * 70
    assert calls < 10000


LONG = Tube((60.0, 20.0, 12.0), (60.0, 20.0, 50.0), 1.8, 1.3)
BESIDE = Tube((55.0, 20.0, 12.0), (55.0, 20.0, 60.0), 1.8, 1.5)
LONG_SHAPE = (100, 60, 100)


@pytest.mark.parametrize("noise_hu", [30.0, 60.0])
def test_a_long_branch_of_a_mask_from_elsewhere_leads_to_its_own_parent(noise_hu):
    """Another airway runs 5 mm beside it, and the parent lies farther from the click than is looked at first."""
    trunk = Tube((75.0, 20.0, 12.0), (5.0, 20.0, 12.0), 4.0, 3.5)
    tree = draw_tubes([trunk, BESIDE], LONG_SHAPE, SPACING_MM)
    missing = draw_tubes([LONG], LONG_SHAPE, SPACING_MM) & ~tree
    hu = np.full(LONG_SHAPE, -860.0)
    hu[binary_dilation(tree | missing)] = -500
    hu[tree | missing] = -980
    noise = gaussian_filter(np.random.default_rng(1).normal(0, noise_hu, LONG_SHAPE), 0.4)
    hu = (gaussian_filter(hu, 0.6) + noise).astype(np.int16)
    scan = Scan(Part(tree), SPACING_MM, LONG_SHAPE, hu)
    growth = grow(scan, np.divide((60.0, 20.0, 49.0), SPACING_MM)[None])
    grown = np.zeros(LONG_SHAPE, bool)
    grown[tuple(growth.voxels.T)] = True
    assert grown[missing].mean() > 0.7
    assert (grown & ~missing).sum() < 0.1 * grown.sum()
    assert growth.unsure_mm < 2 < growth.length_mm
