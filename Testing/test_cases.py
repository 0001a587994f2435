"""Cases: what is kept of them on disk, maps on the airway alone, patches with their weights, and who is held out."""

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from AirwaySegLib.errors import AirwaySegError
from AirwaySegTraining import cases
from AirwaySegTraining.cases import MAPS, PREPARED, Case, OnAirway, make_map, prepared_case, read_case
from AirwaySegTraining.objective import stage_loss
from AirwaySegTraining.patches import Batches, Source, draw_patch, patch_weight
from AirwaySegTraining.recipes import TERMS, Stage, Term, load_recipe
from AirwaySegTraining.sampling import Mixture
from AirwaySegTraining.validation import held_out


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
    for kind, places in fresh.centres.places.items():
        assert (places == kept.centres.places[kind]).all(), kind
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
        (lambda folder: (folder / "case.json").write_text("[]"), r"case\.json holds no object"),
    ],
)
def test_a_case_that_cannot_be_used_is_refused_by_name_and_leaves_nothing(a_case_folder, spoil, said):
    spoil(a_case_folder)
    with pytest.raises(AirwaySegError, match=f"Case tubes: .*{said}"):
        prepared_case(a_case_folder)
    assert not list((a_case_folder.parents[1]).glob(f"{PREPARED}/tubes/*"))


def test_a_damaged_copy_is_named(a_case_folder):
    prepared_case(a_case_folder)
    (copy,) = a_case_folder.parents[1].glob(f"{PREPARED}/tubes/*/case.npz")
    copy.write_bytes(copy.read_bytes()[:100])
    with pytest.raises(AirwaySegError, match="is damaged; remove it"):
        prepared_case(a_case_folder)


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
    weight = patch_weight(("lib", "centerline", "back_propagation"), label, maps, np.random.default_rng(0))
    # Rate 1: the floor 0.05; rate 0.05: -log10 is above 1, so 1. Then (1 - d)^2: 0.25 and 1.
    assert weight.ravel().tolist() == pytest.approx([0.05 + 0.25 + 0.25, 1 + 1, 1, 0], abs=1e-3)


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
    }


def stage_of(*terms):
    numbers = {"alpha": 0.2, "exponent": 0.7}
    loss = tuple(Term(name, share, **{key: numbers[key] for key in TERMS[name]}) for name, share in terms)
    return Stage("one", 1, loss, {"random": 1.0})


def test_the_stage_loss_is_the_sum_of_its_terms_times_their_shares():
    logits = torch.zeros(1, 1, 2, 2, 2)
    # p = 1/2 on 7 voxels, 3 of them airway: Dice 1 - (2 * 1.5 + 1) / (3.5 + 3 + 1), entropy log 2.
    expected = (1 - 4 / 7.5) + 0.3 * np.log(2)
    assert float(stage_loss(stage_of(("dice", 1.0), ("cross_entropy", 0.3)), logits, a_batch())) == pytest.approx(
        expected
    )
    # w = 1 - 0.75 sqrt(0.5) on the airway; p^r of 0.5 + 1e-4.
    weight = 1 - 0.75 * np.sqrt(0.5)
    top = 3 * weight * 0.5001**0.7 + 1
    bottom = 3 * weight * (0.2 * 0.5 + 0.8) + 4 * 0.2 * 0.5 + 1
    union = stage_loss(stage_of(("general_union", 1.0)), logits, a_batch())
    assert float(union) == pytest.approx(1 - top / bottom, rel=1e-4)


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.filterwarnings("ignore:Tang's printed exponent")
def test_every_term_of_a_recipe_has_a_loss_that_learns(name):
    logits = torch.linspace(-2, 2, 24 if name == "classes" else 8).reshape(1, -1, 2, 2, 2).requires_grad_()
    loss = stage_loss(stage_of((name, 1.0)), logits, a_batch())
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all() and (logits.grad != 0).any()
    assert (logits.grad[0, :, 1, 0, 1] == 0).all(), "a voxel that is left out"


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
