"""Recipes: the papers' values, sentences about bad ones, and how the command line changes them."""

import re
import subprocess
import sys
from dataclasses import replace

import pytest

from AirwaySegLib.errors import AirwaySegError
from AirwaySegTraining.fit.loop import rate_at
from AirwaySegTraining.fit.patches import case_maps, patch_maps
from AirwaySegTraining.fit.recipes import list_recipes, load_recipe, parse_recipe, recipes_folder
from AirwaySegTraining.fit.settings import FitSettings

STAGE = {"name": "one", "steps": 10, "loss": [{"term": "dice"}], "sampling": {"random": 1}}


WEIGHTED = {"loss": [{"term": "weighted_dice"}], "weights": ["lib"]}


def refusal(changes, network=None):
    """What is said about a recipe whose stage is changed so."""
    stage = {key: value for key, value in {**STAGE, **changes}.items() if value is not None}
    with pytest.raises(AirwaySegError) as caught:
        parse_recipe("mine", {"network": network or {}, "stage": [stage]})
    return str(caught.value)


def test_the_package_has_the_papers_recipes_and_ours():
    ours = ["default", "finetune", "precise", "realistic", "refine", "student"]
    assert list_recipes() == sorted([*ours, "deeptree", "tang", "wingsnet"])
    for name in list_recipes():
        assert load_recipe(name).name == name


def test_every_value_of_a_recipe_says_where_it_is_from():
    for path in recipes_folder().glob("*.toml"):
        values = [line for line in path.read_text().splitlines() if re.match(r"\w+ = ", line)]
        assert len(values) > 15
        assert not [line for line in values if "  # " not in line and not line.startswith("name")], path.name


def test_a_recipe_that_goes_on_from_weights_is_refused_without_them():
    tables = {"needs_weights": True, "network": {}, "stage": [STAGE]}
    assert parse_recipe("mine", tables).needs_weights and not load_recipe("default").needs_weights
    for name in ("refine", "finetune"):
        with pytest.raises(AirwaySegError, match=f"Recipe {name} goes on from weights that know airways already: name"):
            FitSettings(recipe=name).full_recipe()
        assert FitSettings(recipe=name, start_from="default").full_recipe().needs_weights
    with pytest.raises(AirwaySegError, match="Recipe mine: needs_weights is 1; it must be true or false"):
        parse_recipe("mine", {**tables, "needs_weights": 1})


def test_a_recipe_that_is_taught_needs_a_teacher_and_no_other_takes_one():
    with pytest.raises(AirwaySegError, match="Recipe student has the loss distillation: name the weights that teach"):
        FitSettings(recipe="student", start_from="default").full_recipe()
    taught = FitSettings(recipe="student", start_from="default", teacher="default")
    assert taught.full_recipe().stages[0].is_taught
    with pytest.raises(AirwaySegError, match="Recipe default has no loss distillation, so --teacher would teach noth"):
        FitSettings(teacher="default").full_recipe()


def test_a_shorter_stage_has_a_shorter_warm_up_and_a_longer_one_the_recipes():
    (stage,) = load_recipe("default").stages
    for scale, warm_up in ((0.5, 50), (0.001, 0), (2.0, 100)):
        (changed,) = FitSettings(steps_scale=scale).full_recipe().stages
        assert (changed.steps, changed.warm_up) == (round(scale * stage.steps), warm_up)
    assert FitSettings(steps=600).full_recipe().stages[0].warm_up == 10


def test_wingsnet_trains_as_the_paper_says():
    dice, first, second = load_recipe("wingsnet").stages
    assert [term.term for term in dice.loss] == ["dice"] and not dice.uses_missed
    assert (first.loss[0].alpha, second.loss[0].alpha) == (0.1, 0.2)
    assert first.loss[0].exponent == second.loss[0].exponent == 0.7
    assert (first.label_threshold, second.label_threshold) == (0.8, 0.9)
    assert first.sampling == second.sampling == {"hard_skeleton": 0.5, "random": 0.5}
    epoch = first.steps // 100
    rates = [rate_at(round(at * epoch), first) for at in (0, 59.9, 60, 89.9, 90, 99)]
    assert rates == pytest.approx([0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4])
    epoch = second.steps // 30
    assert [rate_at(at * epoch, second) for at in (14, 15, 24, 25)] == pytest.approx([0.01, 1e-3, 1e-3, 1e-4])
    assert case_maps(first) == ("distance",)


def test_tang_trains_in_three_parts_with_two_channels():
    recipe = load_recipe("tang")
    part_a, part_b, part_c = recipe.stages
    assert recipe.network.windows_hu == ((-1024, 1024), (-1000, 500))
    cases = 232  # of his training, each a step of an epoch; 0.3 x 232 x 24 hard patches are 69 batches of 24
    assert [stage.steps / cases for stage in recipe.stages] == [100, 5 * 301 / cases, 45 * 301 / cases]
    assert [(stage.batch, stage.mined_every, stage.mined_steps) for stage in recipe.stages] == [
        (16, 0, 0),
        (24, cases, 69),
        (24, cases, 69),
    ]
    shares = {"imbalance": 1.0, "back_propagation_nearest": 0.5}
    assert [stage.weights for stage in recipe.stages] == [{}, {"imbalance": 1.0}, shares]
    assert part_b.weight_power == part_c.weight_power == (2.0, 3.0) and part_b.loss == part_c.loss
    assert [(term.term, term.share, term.share * term.encoder) for term in part_c.loss] == [
        ("tang", 1.0, 0.5),
        ("dice", 0.5, 0.5),
    ]
    assert part_b.sampling == part_c.sampling == {"hard_skeleton": 0.25, "small_airway": 0.25, "random": 0.5}
    assert all(rate_at(step, part_c) == 1e-4 for step in (0, 1000, part_c.steps - 1))
    assert case_maps(part_c) == ("rate",) and patch_maps(part_c) == ("back_propagation_nearest", "rate")
    assert not part_a.uses_missed and part_b.uses_missed and part_c.uses_missed


def test_deeptree_learns_three_classes_and_their_union():
    recipe = load_recipe("deeptree")
    (stage,) = recipe.stages
    assert recipe.network.classes == 3
    assert [term.term for term in stage.loss] == ["classes", "general_union"]
    assert rate_at(stage.steps // 2, stage) == pytest.approx(0.01 * 0.5**0.9)
    assert case_maps(stage) == ("classes", "distance")


def test_back_propagation_needs_branches_of_the_case_and_one_map_of_the_patch():
    stage = replace(load_recipe("tang").stages[1], weights={"lib": 1.0, "back_propagation": 1.0})
    assert case_maps(stage) == ("branch", "distance", "rate")
    assert patch_maps(stage) == ("back_propagation", "rate")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rate": -1}, "rate is -1.0; it must be above 0"),
        ({"rate": "fast"}, "rate is 'fast'; it must be a number"),
        ({"steps": 1.5}, "steps is 1.5; it must be a whole number"),
        ({"steps": True}, "steps is True; it must be a whole number"),
        ({"steps": None}, "the key 'steps' is missing"),
        ({"speed": 1}, "the key 'speed' is unknown"),
        ({"patch": 60}, "patch is 60; it must be a multiple of 8"),
        ({"optimizer": "lion"}, "optimizer is 'lion'; it must be one of adamw, sgd"),
        ({"drops_at": [0.5, 1.5]}, "drops_at is (0.5, 1.5); it must be shares of the stage"),
        ({"loss": []}, "loss has no term"),
        ({"loss": {"term": "dice"}}, "a term of the loss is written [[stage.loss]]"),
        ({"loss": [{"term": "focal"}]}, "loss 'focal' is unknown; there are dice"),
        ({"loss": [{"term": "dice", "alpha": 0.1}]}, "loss 'dice' takes no alpha"),
        ({"loss": [{"term": "general_union", "exponent": 0.7}]}, "loss 'general_union' needs alpha"),
        ({"loss": [{"term": "general_union", "exponent": 0.7, "alpha": 0.6}]}, "must be above 0 and at most 0.5"),
        ({"loss": [{"term": "classes"}]}, "loss 'classes' needs classes = 3 in [network]"),
        ({"sampling": {"nowhere": 1}}, "sampling: 'nowhere' is not a kind of patch"),
        ({"sampling": {"random": 0.5}}, "sampling: The shares of the kinds of patches sum to 0.5"),
        ({"weights": ["lib"]}, "weights go with the losses weighted_dice"),
        ({"weights": ["size"]}, "weights 'size' is unknown; there are lib"),
        ({"weights": ["lib", "lib"]}, "weights is ['lib', 'lib']; it must be a list of different names, or a table"),
        ({"weights": [1]}, "weights is [1]; it must be a list of different names"),
        ({**WEIGHTED, "weights": {"lib": 0}}, "weights: the share of lib is 0.0; it must be above 0"),
        ({**WEIGHTED, "weights": {"lib": "much"}}, "weights.lib is 'much'; it must be a number"),
        ({**WEIGHTED, "weight_power": [3, 2]}, "weight_power is (3.0, 2.0); it must be two numbers above 0"),
        ({**WEIGHTED, "weight_power": [2]}, "weight_power is (2.0,); it must be two numbers above 0"),
        ({"weight_power": [2, 3]}, "weight_power needs weights"),
        ({"mined": 1.5, "mined_every": 9}, "mined is 1.5; it must be within 0 and 1"),
        ({"mined": 0.5}, "mined and mined_every must be given together"),
        ({"mined_every": 5}, "mined and mined_every must be given together"),
        ({"mined": 0.1, "mined_every": 9}, "mined is 0.1; of mined_every 9 that is less than one step"),
        ({"loss": [{"term": "dice", "encoder": -1}]}, "loss 'dice': encoder is -1.0; it must be 0 or above"),
        ({"loss": [{"term": "general_union", "exponent": 0.6, "alpha": 0.4}]}, "at most half of the exponent, 0.6"),
        ({"rotation_degrees": 90}, "Patches cannot be rotated by 90.0 degrees"),
        ({"zoom": [1.4, 0.7]}, "Patches cannot be zoomed by (1.4, 0.7)"),
        ({"zoom": [1.0]}, "Patches cannot be zoomed by (1.0,)"),
    ],
)
def test_a_bad_value_is_refused_with_its_stage_and_key(changes, said):
    text = refusal(changes)
    assert text.startswith("Recipe mine, stage 1 (one)") and said in text
    assert text.endswith(".") and "\n" not in text


def test_weights_are_a_list_of_names_or_a_table_of_shares():
    stages = [
        parse_recipe("mine", {"stage": [{**STAGE, **WEIGHTED, "weights": weights}]}).stages[0]
        for weights in (["lib", "centerline"], {"lib": 1, "centerline": 1})
    ]
    assert stages[0] == stages[1] and stages[0].weights == {"lib": 1.0, "centerline": 1.0}


def test_a_bad_network_is_refused():
    assert "[network]: norm is 'group'" in refusal({}, {"norm": "group"})
    assert "window_hu is (600.0, -1000.0)" in refusal({}, {"window_hu": [600, -1000]})
    assert "with 3 classes loss takes only classes" in refusal({}, {"classes": 3})


def test_reading_recipes_does_not_import_pytorch():
    program = "import sys, AirwaySegTraining.fit.recipes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_file_that_is_no_recipe_is_refused(tmp_path):
    with pytest.raises(AirwaySegError, match="There is no recipe 'best'; there are deeptree"):
        load_recipe("best")
    with pytest.raises(AirwaySegError, match=r"none\.toml cannot be read"):
        load_recipe(str(tmp_path / "none.toml"))
    (tmp_path / "bad.toml").write_text("[network\n")
    with pytest.raises(AirwaySegError, match=r"bad\.toml is no TOML"):
        load_recipe(str(tmp_path / "bad.toml"))
    (tmp_path / "empty.toml").write_text("")
    with pytest.raises(AirwaySegError, match="empty has no stage"):
        load_recipe(str(tmp_path / "empty.toml"))
    (tmp_path / "other.toml").write_text("steps = 3\n")
    with pytest.raises(AirwaySegError, match="'steps' is neither needs_weights nor"):
        load_recipe(str(tmp_path / "other.toml"))


def test_steps_are_counted_through_all_stages():
    recipe = FitSettings(recipe="tang", steps_scale=0.01).full_recipe()
    assert recipe.ends == [232, 247, 382]  # 15.05 is rounded to 15, 135.45 to 135
    assert [recipe.stage_at(step) for step in (0, 231, 232, 246, 247, 381, 382)] == [0, 0, 1, 1, 2, 2, 2]


def test_settings_change_a_recipe_where_that_has_a_meaning():
    recipe = FitSettings(steps=50, batch=3, patch=40, rate=0.5, norm="instance", frozen_from=0.2).full_recipe()
    (stage,) = recipe.stages
    assert (stage.steps, stage.batch, stage.patch, stage.rate, stage.frozen_from) == (50, 3, 40, 0.5, 0.2)
    assert recipe.network.norm == "instance" and load_recipe("default").network.norm == "batch"
    assert [stage.patch for stage in FitSettings(recipe="tang", patch=64).full_recipe().stages] == [64, 64, 64]
    with pytest.raises(AirwaySegError, match=re.escape("--rate is for recipes of one stage, and tang has 3")):
        FitSettings(recipe="tang", rate=0.1).full_recipe()


def test_the_rate_warms_up_and_falls_by_its_schedule():
    stage = replace(load_recipe("default").stages[0], steps=1000, rate=1.0, warm_up=10)
    assert [rate_at(step, stage) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1], rel=1e-3)
    assert rate_at(500, stage) == pytest.approx(0.505)
    assert rate_at(999, replace(stage, schedule="constant")) == 1
