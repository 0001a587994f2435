"""Cases: what is kept of them on disk, maps on the airway alone, patches with their weights, and who is held out."""

import json
import os
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from AirwaySegLib.errors import AirwaySegError
from AirwaySegTraining.data import cases, prepared_files
from AirwaySegTraining.data.cases import MAPS, PREPARED, Case, OnAirway, make_map, prepared_case, read_case
from AirwaySegTraining.data.sampling import Mixture, cut
from AirwaySegTraining.fit import patches
from AirwaySegTraining.fit.patches import Batches, Source, draw_patch, patch_weight
from AirwaySegTraining.fit.recipes import Stage, Term, load_recipe
from AirwaySegTraining.fit.stage_loss import patch_losses, stage_loss
from AirwaySegTraining.fit.validation import as_scanned, held_out
from AirwaySegTraining.losses.terms import LOSSES
from AirwaySegTraining.simulator.scanner import draw_scanner


@pytest.fixture
def a_case_folder(tmp_path):
    """A wide tube along z with a thin one beside it; a voxel of the corner is left out."""
    label = np.zeros((20, 26, 24), np.uint8)
    label[:, 4:13, 4:13] = 1
    label[3:17, 20:22, 8:10] = 1
    label[0, 0, 0] = 2
    folder = tmp_path / "cases" / "tubes"
    folder.mkdir(parents=True)
    write(folder, label)
    return folder


def write(folder, label):
    ct = np.where(label == 1, -950, -100).astype(np.int16)
    ct[0, 0], ct[0, 1] = -990, 300
    sitk.WriteImage(sitk.GetImageFromArray(ct), str(folder / "ct.nrrd"))
    sitk.WriteImage(sitk.GetImageFromArray(label), str(folder / "label.nrrd"))


def test_a_map_on_the_airway_gives_the_same_boxes_as_the_whole_array():
    rng = np.random.default_rng(0)
    whole = rng.integers(1, 9, (7, 8, 9)) * (rng.random((7, 8, 9)) < 0.2)
    sparse = OnAirway.of(whole, np.flatnonzero(whole))
    assert (sparse.whole() == whole).all()
    for box in [
        (slice(2, 5), slice(0, 8), slice(3, 4)),
        np.ix_([3, 2, 0, 0, 6], [7, 7], [8, 0, 4]),
        np.ix_([6], [0], [0]),
    ]:
        assert (sparse[box] == whole[box]).all()


def test_a_prepared_case_is_the_case_and_its_maps(a_case_folder):
    fresh, kept = read_case(a_case_folder), prepared_case(a_case_folder, MAPS)
    assert (fresh.ct == kept.ct).all() and (fresh.label == kept.label).all()
    assert fresh.centres.box == kept.centres.box and fresh.spacing_mm == kept.spacing_mm
    for kind, points in fresh.centres.points.items():
        assert (points == kept.centres.points[kind]).all(), kind
    airway = fresh.label == 1
    for name in MAPS:
        expected = make_map(name, fresh)
        assert expected[airway].any() and (kept.maps[name].whole()[airway] == expected[airway]).all(), name
    assert kept.maps["distance"].whole().max() == 1 and set(np.unique(kept.maps["branch"].values)) >= {1, 2}


def test_a_case_is_prepared_once_and_again_when_its_label_changes(a_case_folder, monkeypatch):
    reads = []
    monkeypatch.setattr(cases, "read_case", lambda folder: reads.append(folder) or read_case(folder))
    first = prepared_case(a_case_folder, ("rate",))
    prepared_case(a_case_folder, ("rate",))
    assert len(reads) == 1
    label = np.array(first.label)
    label[3:17, 20:22, 8:10] = 0
    write(a_case_folder, label)
    second = prepared_case(a_case_folder, ("rate",))
    assert len(reads) == 2 and second.fingerprint != first.fingerprint
    assert len(second.skeleton.voxels) == len(first.skeleton.voxels) - 14 * 4
    assert [path.name for path in (a_case_folder.parents[1] / PREPARED / "tubes").iterdir()] == [second.fingerprint]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: write(folder, np.zeros((20, 26, 24), np.uint8)), "holds no airway"),
        (lambda folder: write(folder, np.full((20, 26, 24), 3, np.uint8)), "values other than 0"),
        (lambda folder: (folder / "label.nrrd").unlink(), r"label\.nrrd"),
        (lambda folder: (folder / "ct.nrrd").write_bytes(b"NRRD0004\nnonsense"), r"ct\.nrrd"),
        (lambda folder: (folder / "case.json").write_text("[]"), r"case\.json does not hold a JSON object"),
    ],
)
def test_a_case_that_cannot_be_used_is_refused_by_name_and_leaves_nothing(a_case_folder, spoil, said):
    spoil(a_case_folder)
    with pytest.raises(AirwaySegError, match=f"Case tubes: .*{said}"):
        prepared_case(a_case_folder)
    assert not list((a_case_folder.parents[1]).glob(f"{PREPARED}/tubes/*"))


def test_a_disk_that_is_full_gives_a_sentence_and_no_half_map(a_case_folder, monkeypatch):
    prepared_case(a_case_folder)

    def full(stream, _values):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cases.np, "save", full)
    with pytest.raises(AirwaySegError, match=r"rate\.npy cannot be written: No space left on device"):
        prepared_case(a_case_folder, ("rate",))
    assert not list(a_case_folder.parents[1].glob(f"{PREPARED}/tubes/*/*rate*"))


# Patches -------------------------------------------------------------------------------------------------------------


def test_turned_patches_keep_ct_label_and_maps_together(a_case_folder):
    case = prepared_case(a_case_folder, ("branch", "distance"))
    loss = (Term("general_union", alpha=0.2, exponent=0.7),)
    stage = replace(load_recipe("wingsnet").stages[1], loss=loss, patch=32, sampling={"thin": 1.0})
    branch = {name: case.maps[name] for name in ("branch",)}
    rng = np.random.default_rng(1)
    for _ in range(5):
        hu, label, maps = draw_patch(case, stage, Mixture.of(stage.sampling), rng)
        assert set(maps) == {"distance"} and maps["distance"].dtype == np.float16
        airway = label == 1
        assert airway.any() and hu[airway].mean() < hu[label == 0].mean() - 200
        assert (maps["distance"][airway] > 0).mean() > 0.5
    assert branch["branch"].values.dtype == np.uint16


def test_a_patch_weighs_the_sum_on_the_airway_one_beside_it_and_nothing_where_left_out():
    label = np.array([[[1, 1, 0, 2]]], np.uint8)
    maps = {
        "rate": np.array([[[1, 0.05, 0.9, 0]]], np.float16),
        "distance": np.array([[[0.5, 0, 0, 0]]], np.float16),
        "back_propagation": np.array([[[0.25, 0, 0, 0]]], np.float32),
    }
    shares = {"lib": 1.0, "centerline": 1.0, "back_propagation": 1.0}
    weight = patch_weight(shares, label, maps, np.random.default_rng(0))
    # Rate 1: the floor 0.05; rate 0.05: -log10 is above 1, so 1. Then (1 - d)^2: 0.25 and 1.
    assert weight.ravel().tolist() == pytest.approx([0.05 + 0.25 + 0.25, 1 + 1, 1, 0], abs=1e-3)


def test_airway_that_the_noise_of_a_patch_hides_is_left_out(a_case_folder):
    assert read_case(a_case_folder).noise_limit is None
    limit = np.zeros((20, 26, 24), np.uint8)
    limit[3:17, 20:22, 8:10] = 47  # the thin tube
    write_limit(a_case_folder, limit)
    beyond = np.ix_(np.arange(-2, 25) % 20, np.arange(26), np.arange(24))  # as `cut` asks beyond the scan's edge
    for case in (read_case(a_case_folder), prepared_case(a_case_folder)):
        label = case.label[:, :, :]
        assert (case.label_at(47)[:, :, :] == label).all()
        for box in ((slice(None),) * 3, (slice(2, 9), slice(18, 24), slice(0, 20)), beyond):
            assert (case.label_at(48)[box] == np.where(limit > 0, 2, label)[box]).all()
        assert (case.label[:, :, :] == label).all()


def write_limit(folder, limit, turned=False):
    image = sitk.GetImageFromArray(limit)
    sitk.WriteImage(sitk.DICOMOrient(image, "RAI") if turned else image, str(folder / "noise_limit.nrrd"))


def test_a_noise_limit_lies_where_its_label_lies_and_other_values_are_refused(a_case_folder):
    limit = np.zeros((20, 26, 24), np.uint8)
    limit[3:17, 20:22, 8:10] = 47
    for name in ("ct", "label"):
        image = sitk.ReadImage(str(a_case_folder / f"{name}.nrrd"))
        sitk.WriteImage(sitk.DICOMOrient(image, "RAI"), str(a_case_folder / f"{name}.nrrd"))
    write_limit(a_case_folder, limit, turned=True)
    case = read_case(a_case_folder)
    assert (case.noise_limit.whole() > 0).sum() == 56 and (case.label[case.noise_limit.whole() > 0] == 1).all()
    write_limit(a_case_folder, limit.astype(np.int16) * 10, turned=True)
    with pytest.raises(AirwaySegError, match=r"Case tubes: noise_limit.nrrd holds values other than whole numbers"):
        read_case(a_case_folder)


def test_the_patches_of_a_case_get_the_label_of_their_own_noise(a_case_folder, monkeypatch):
    (a_case_folder / "case.json").write_text(json.dumps({"clean": True}))
    limit = np.full((20, 26, 24), 40, np.uint8)
    write_limit(a_case_folder, limit)
    case, used = read_case(a_case_folder), []
    draw = patches.draw_scanner
    monkeypatch.setattr(patches, "draw_scanner", lambda *given: used.append(draw(*given)) or used[-1])
    stage = replace(load_recipe("wingsnet").stages[1], loss=(Term("dice"),), patch=16)
    hidden = []
    for seed in range(20):
        _, label, _ = draw_patch(case, stage, Mixture.of({"anywhere": 1.0}), np.random.default_rng(seed))
        hidden.append((label == 2).all())
    assert hidden == [scanner.noise_hu > 40 for scanner in used] and 2 < sum(hidden) < 18
    hu, label = as_scanned(case)
    noise_hu = used_noise(case)
    assert hu.shape == label.shape and (label == 2).all() == (noise_hu > 40)


def used_noise(case):
    """The noise of the scanner that `as_scanned` draws for a clean case."""
    return draw_scanner(np.random.default_rng(int(case.fingerprint, 16)), case.spacing_mm[0]).noise_hu


def test_a_weight_is_the_sum_of_the_maps_by_their_shares_to_a_power_that_is_drawn():
    label = np.array([[[1, 1, 0, 2]]], np.uint8)
    maps = {
        "rate": np.array([[[0.1, 0.01, 1, 1]]], np.float32),
        "back_propagation_nearest": np.array([[[1, 0.5, 0, 0]]], np.float32),
    }
    shares, power = {"imbalance": 1.0, "back_propagation_nearest": 0.5}, (2.0, 3.0)
    weight = patch_weight(shares, label, maps, np.random.default_rng(4), power)
    drawn = np.random.default_rng(4).uniform(*power)
    assert weight.ravel().tolist() == pytest.approx([1.5**drawn, 2.25**drawn, 1, 0], rel=1e-5)
    again = patch_weight(shares, label, maps, np.random.default_rng(5), power)
    assert 1.5**2 <= again[0, 0, 0] <= 1.5**3 and again[0, 0, 0] != weight[0, 0, 0]


def test_a_batch_depends_on_seed_step_and_place_alone(a_case_folder):
    case = prepared_case(a_case_folder, ("rate",))
    stage = replace(load_recipe("tang").stages[1], patch=32, batch=4)
    source = Source([[case]], np.array([1.0]), ((-1000.0, 600.0), (-625.0, 125.0)), seed=3)
    whole = Batches(source, stage)[7]
    assert whole["image"].shape == (4, 2, 32, 32, 32) and whole["weight"].shape == (4, 1, 32, 32, 32)
    assert not torch.equal(whole["image"][0], whole["image"][1])
    for rank in range(2):
        part = Batches(source, stage, rank, 2)[7]
        for name, tensor in part.items():
            assert torch.equal(tensor, whole[name][2 * rank : 2 * rank + 2]), name
    assert not torch.equal(Batches(source, stage)[8]["image"], whole["image"])


# The loss of a stage -------------------------------------------------------------------------------------------------


def a_batch():
    label = torch.tensor([1, 1, 0, 0, 0, 2, 0, 1], dtype=torch.uint8).reshape(1, 1, 2, 2, 2)
    on = (label == 1).float()
    return {
        "label": label,
        "weight": (1 + on) * (label != 2),
        "distance": 0.5 * on.half(),
        "tube": label,
        "classes": label,
        "teacher": 0.1 + 0.8 * on,
    }


def stage_of(*terms):
    numbers = {"alpha": 0.2, "exponent": 0.7}
    loss = tuple(Term(name, share, **{key: numbers[key] for key in LOSSES[name].numbers}) for name, share in terms)
    return Stage("one", 1, loss, {"random": 1.0})


def test_the_stage_loss_is_the_sum_of_its_terms_times_their_shares():
    logits = torch.zeros(1, 1, 2, 2, 2)
    # p = 1/2 on 7 voxels, 3 of them airway: Dice 1 - (2 * 1.5 + 1) / (3.5 + 3 + 1), entropy log 2.
    expected = (1 - 4 / 7.5) + 0.3 * np.log(2)
    assert float(stage_loss(stage_of(("dice", 1.0), ("cross_entropy", 0.3)), logits, a_batch())) == pytest.approx(
        expected
    )
    # m = (0.7 - 0.4) / (0.7 - 0.2), so w = 1 - 0.6 sqrt(0.5) on the airway; p^r of 0.5 + 1e-4.
    weight = 1 - 0.6 * np.sqrt(0.5)
    top = 3 * weight * 0.5001**0.7 + 1
    bottom = 3 * weight * (0.2 * 0.5 + 0.8) + 4 * 0.2 * 0.5 + 1
    union = stage_loss(stage_of(("general_union", 1.0)), logits, a_batch())
    assert float(union) == pytest.approx(1 - top / bottom, rel=1e-4)


def tangs_stage():
    return replace(load_recipe("tang").stages[1], patch=32)


def test_tangs_loss_of_both_heads_and_its_gradient_are_as_computed_by_hand():
    """His program: General Union of the decoder + half of the encoder's + half of the Dice loss of either."""
    stage, batch = tangs_stage(), a_batch()
    heads = [torch.full((1, 1, 2, 2, 2), value, dtype=torch.float64).requires_grad_() for value in (0.0, 1.0)]
    loss = stage_loss(stage, heads[0], batch, of_encoder=True) + stage_loss(stage, heads[1], batch)
    loss.backward()
    # 3 voxels of airway weigh 2, 4 of background 1, one is left out.
    expected, slopes = 0.0, []
    for logit, union_share in ((0.0, 0.5), (1.0, 1.0)):
        p = 1 / (1 + np.exp(-logit))
        top, bottom = 6 * (p + 1e-4) ** 0.7 + 1, 6 * (0.2 * p + 0.8) + 4 * 0.2 * p + 1
        both, all_of = 2 * 3 * p + 1, 7 * p + 3 + 1
        expected += union_share * (1 - top / bottom) + 0.5 * (1 - both / all_of)
        union = -(2 * 0.7 * (p + 1e-4) ** -0.3 * bottom - top * 2 * 0.2) / bottom**2
        dice = -(2 * all_of - both) / all_of**2
        slopes.append((union_share * union + 0.5 * dice) * p * (1 - p))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert [float(head.grad[0, 0, 0, 0, 0]) for head in heads] == pytest.approx(slopes, rel=1e-4)
    assert all(head.grad[0, 0, 1, 0, 1] == 0 for head in heads), "a voxel that is left out"


def test_a_head_whose_terms_have_no_share_costs_nothing_and_still_takes_part():
    stage = replace(tangs_stage(), loss=(Term("dice", encoder=0.0),), weights={})
    logits = torch.zeros(1, 1, 2, 2, 2, requires_grad=True)
    loss = stage_loss(stage, logits, a_batch(), of_encoder=True)
    loss.backward()
    assert float(loss.detach()) == 0 and logits.grad is not None and not logits.grad.any()
    assert float(stage_loss(stage, logits, a_batch())) > 0.4


def test_how_hard_a_patch_is_says_the_first_term_on_that_patch_alone():
    stage = tangs_stage()
    logits = torch.stack([torch.full((1, 2, 2, 2), -1.0), torch.full((1, 2, 2, 2), 2.0)])
    batch = {name: part.repeat(2, 1, 1, 1, 1) for name, part in a_batch().items()}
    union = replace(stage, loss=stage.loss[:1])
    expected = [float(stage_loss(union, logits[k : k + 1], a_batch())) for k in range(2)]
    assert patch_losses(stage, logits, batch).tolist() == pytest.approx(expected)
    assert expected[0] > expected[1] + 0.1


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.filterwarnings("ignore:Tang's printed exponent")
def test_every_term_of_a_recipe_has_a_loss_that_learns(name):
    logits = torch.linspace(-2, 2, 24 if name == "classes" else 8).reshape(1, -1, 2, 2, 2).requires_grad_()
    loss = stage_loss(stage_of((name, 1.0)), logits, a_batch())
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all() and (logits.grad != 0).any()
    left_out = (logits.grad[0, :, 1, 0, 1] == 0).all()
    assert left_out != LOSSES[name].of_teacher, "a teacher teaches the voxels that the label leaves out"


# Held-out patients ---------------------------------------------------------------------------------------------------


def cases_of(*patients):
    nothing = np.zeros((1, 1, 1))
    return [
        Case(f"{n}", name, "", nothing, nothing, (1, 1, 1), False, None, None, {}) for n, name in enumerate(patients)
    ]


def test_a_share_of_the_patients_is_held_out_with_all_their_cases():
    group = cases_of(*(f"patient {number // 2}" for number in range(40)))
    held = held_out([group], 0.2, seed=0)
    patients = {case.patient for case in held}
    assert len(patients) == 4 and len(held) == 8
    assert held == held_out([group], 0.2, seed=0) != held_out([group], 0.2, seed=1)
    more = held_out([[*group, *cases_of("new")]], 0.2, seed=0)
    assert len(patients & {case.patient for case in more}) >= 3


def test_no_group_is_left_without_cases_and_one_patient_is_never_held_out():
    real = cases_of("real")
    for seed in range(5):
        held = held_out([cases_of("a", "b", "c"), real], 0.5, seed)
        assert len(held) == 2 and real[0] not in held
    assert held_out([cases_of("a", "a")], 0.5, 0) == []
    assert held_out([cases_of("a", "b", "c")], 0.0, 0) == []
    assert len(held_out([cases_of("a", "b", "c")], 0.1, 0)) == 1


def test_the_patient_is_that_of_case_json_or_the_folder(a_case_folder):
    assert read_case(a_case_folder).patient == "tubes"
    (a_case_folder / "case.json").write_text(json.dumps({"patient": "P7"}))
    assert read_case(a_case_folder).patient == "P7"
    (a_case_folder / "case.json").write_text(json.dumps({"patient": {"radius": 8}, "clean": True}))
    assert read_case(a_case_folder).patient == "tubes" and read_case(a_case_folder).clean


# What is kept --------------------------------------------------------------------------------------------------------


def kept_folder(case_folder):
    (kept,) = case_folder.parents[1].glob(f"{PREPARED}/tubes/*")
    return kept


def save(path, array, **how):
    with path.open("wb") as stream:
        np.save(stream, array, **how)


def change(path, **arrays):
    """Write an .npz with some arrays changed; None takes one away."""
    with np.load(path) as stored:
        numbers = {**stored, **arrays}
    with path.open("wb") as stream:
        np.savez(stream, **{name: array for name, array in numbers.items() if array is not None})


class Harmful:
    """What an .npy file may hold that runs code when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


OBJECTS = np.array([Harmful()], object)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda kept: (kept / "case.npz").write_bytes((kept / "case.npz").read_bytes()[:100]),
        lambda kept: (kept / "case.npz").write_bytes(b"nonsense"),
        lambda kept: (kept / "case.npz").unlink(),
        lambda kept: save(kept / "case.npz", np.zeros(3)),
        lambda kept: change(kept / "case.npz", voxels=None),
        lambda kept: change(kept / "case.npz", voxels=np.array([-1])),
        lambda kept: change(kept / "case.npz", voxels=np.array([5]), skeleton=np.array([10**9])),
        lambda kept: change(kept / "case.npz", spacing_mm=np.array([1.0, np.nan, 1.0])),
        lambda kept: change(kept / "case.npz", spacing_mm="one"),
        lambda kept: change(kept / "case.npz", box=np.array([[0, 999], [0, 5], [0, 5]])),
        lambda kept: change(kept / "case.npz", places_thin=np.array([[1, 2, 99]])),
        lambda kept: change(kept / "case.npz", places_nowhere=np.zeros((1, 3), int)),
        lambda kept: change(kept / "case.npz", seal="of another"),
        lambda kept: change(kept / "case.npz", seal=None),
        lambda kept: change(kept / "case.npz", patient=OBJECTS),
        lambda kept: (kept / "ct.npy").write_bytes(b"\x93NUMPY"),
        lambda kept: (kept / "ct.npy").unlink(),
        lambda kept: save(kept / "ct.npy", np.zeros((20, 26, 24), np.int16)),
        lambda kept: save(kept / "ct.npy", np.zeros((20, 26, 24))),
        lambda kept: save(kept / "ct.npy", np.zeros((20, 26), np.int16)),
        lambda kept: save(kept / "ct.npy", OBJECTS, allow_pickle=True),
        lambda kept: save(kept / "label.npy", np.zeros((20, 26, 25), np.uint8)),
        lambda kept: save(kept / "rate.npy", np.zeros(7)),
        lambda kept: save(kept / "rate.npy", OBJECTS, allow_pickle=True),
        lambda kept: (kept / "rate.npy").write_bytes(b""),
        lambda kept: (kept / "files.json").write_text("[" * 10**5),
        lambda kept: (kept / "files.json").write_text('{"ct.npy": 7, "label.npy": [1, 2]}'),
    ],
)
def test_what_is_kept_of_a_case_and_is_not_right_is_made_again(a_case_folder, spoil):
    expected = prepared_case(a_case_folder, ("rate",))
    ct = np.array(expected.ct)
    spoil(kept_folder(a_case_folder))
    case = prepared_case(a_case_folder, ("rate",))
    assert (ct == case.ct).all() and case.spacing_mm == expected.spacing_mm and case.patient == "tubes"
    assert (case.maps["rate"].whole() == expected.maps["rate"].whole()).all()
    assert (case.skeleton.voxels == expected.skeleton.voxels).all() and case.centres.box == expected.centres.box


def test_what_is_kept_of_another_patient_is_not_taken(a_case_folder):
    """The whole folder of another case, copied under this case's fingerprint."""
    other = a_case_folder.with_name("other")
    other.mkdir()
    label = np.zeros((20, 26, 24), np.uint8)
    label[:, 6:15, 6:15] = 1
    write(other, label)
    mine = np.array(prepared_case(a_case_folder).label)
    prepared_case(other)
    (theirs,) = a_case_folder.parents[1].glob(f"{PREPARED}/other/*")
    kept = kept_folder(a_case_folder)
    shutil.rmtree(kept)
    shutil.copytree(theirs, kept)
    case = prepared_case(a_case_folder)
    assert (mine == case.label).all() and case.patient == "tubes"


def test_a_file_that_cannot_be_read_for_another_reason_is_not_called_damaged(a_case_folder, monkeypatch):
    prepared_case(a_case_folder)

    def too_many(*_arguments, **_more):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(np, "load", too_many)
    with pytest.raises(AirwaySegError, match=r"case\.npz cannot be read: Too many open files"):
        prepared_case(a_case_folder)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_many_cases_need_no_open_file_each(a_case_folder):
    import resource

    prepared_case(a_case_folder)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/dev/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 12, before[1]))
    try:
        many = [prepared_case(a_case_folder) for _ in range(40)]
        assert all(case.ct[:1, :1, :1] == -990 for case in many)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_kept_array_gives_the_same_boxes_as_the_array(a_case_folder):
    fresh, kept = read_case(a_case_folder), prepared_case(a_case_folder)
    for start in ([2, 3, 4], [-3, 20, 10]):
        assert (cut(fresh.ct, start, 8) == cut(kept.ct, start, 8)).all()
    box = kept.label[2:4, :, 3:5]
    box[:] = 7
    assert (kept.label == fresh.label).all(), "a box is a copy"
    assert np.asarray(kept.ct, np.float32).dtype == np.float32 and np.array(kept.ct).flags.writeable


def test_a_kept_array_whose_file_goes_away_or_changes_gives_a_sentence(a_case_folder):
    case = prepared_case(a_case_folder)
    save(kept_folder(a_case_folder) / "ct.npy", np.zeros((2, 2, 2), np.int16))
    with pytest.raises(AirwaySegError, match=r"ct\.npy was changed while it was used"):
        case.ct[:1, :1, :1]
    (kept_folder(a_case_folder) / "ct.npy").unlink()
    with pytest.raises(AirwaySegError, match=r"ct\.npy cannot be read: No such file"):
        np.asarray(case.ct)


def test_files_are_hashed_once_as_long_as_they_are_the_same(a_case_folder, monkeypatch):
    monkeypatch.setattr(prepared_files, "STILL_NS", -(10**18))  # as if they had been written long ago
    first = prepared_case(a_case_folder)
    hashed, digest = [], prepared_files.hashlib.file_digest
    monkeypatch.setattr(prepared_files.hashlib, "file_digest", lambda *a: hashed.append(a[0].name) or digest(*a))
    assert prepared_case(a_case_folder).fingerprint == first.fingerprint and hashed == []
    times = (a_case_folder / "label.nrrd").stat()
    label = (a_case_folder / "label.nrrd").read_bytes()
    (a_case_folder / "label.nrrd").write_bytes(label[:-1] + bytes([label[-1] ^ 1]))
    os.utime(a_case_folder / "label.nrrd", ns=(times.st_atime_ns, times.st_mtime_ns))
    changed = cases._fingerprint(a_case_folder, prepared_files.Hashes.kept_in(kept_folder(a_case_folder).parent))
    assert changed != first.fingerprint, "the same size and time, but not the same"


def test_a_file_that_has_just_been_written_is_hashed_again(a_case_folder):
    hashes = prepared_files.Hashes()
    first = cases._fingerprint(a_case_folder, hashes)
    assert hashes._known == {}
    (a_case_folder / "case.json").write_text("{}")
    assert cases._fingerprint(a_case_folder, hashes) != first


def test_as_many_cases_are_prepared_at_once_as_memory_suffices_for(monkeypatch):
    for free, expected in ((None, 8), (100 * 2**30, 8), (10 * 2**30, 3), (2**30, 1)):
        monkeypatch.setattr(cases, "free_memory", lambda _device, free=free: free)
        assert cases._at_once(8, 20) == expected
    assert cases._at_once(8, 0) == 1 == cases._at_once(0, 5)


def test_a_label_that_does_not_fit_the_ct_is_warned_of_at_every_start(a_case_folder, caplog):
    prepared_case(a_case_folder)
    assert not caplog.messages
    label = np.zeros((20, 26, 24), np.uint8)
    label[:, 4:13, 4:13] = 1
    write(a_case_folder, label)
    sitk.WriteImage(sitk.GetImageFromArray(label[:, :, ::-1].copy()), str(a_case_folder / "label.nrrd"))
    for _ in range(2):
        caplog.clear()
        prepared_case(a_case_folder)
        assert len(caplog.messages) == 1 and "Case tubes: the label looks mirrored left to right" in caplog.text
