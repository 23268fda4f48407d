from pathlib import Path

import pandas as pd
import pytest

from workbench.data.catalog import Catalog
from workbench.training.parts import split_for_training
from workbench.training.recipes import RECIPES, choose_recipe, read_settings


def test_none_leaves_every_field_as_the_recipe_has_it() -> None:
    for name, recipe in RECIPES.items():
        assert choose_recipe(name, num_steps=None, depth=None, flip_share=None) == recipe


def test_fields_are_set_and_the_length_is_given_once() -> None:
    recipe = choose_recipe("scratch", num_steps=50, depth=7, learning_rate_trunk=1e-3, seed=4)
    assert (recipe.num_steps, recipe.num_epochs, recipe.depth, recipe.learning_rate_trunk, recipe.seed) == (
        50,
        None,
        7,
        1e-3,
        4,
    )
    assert recipe.warmup_steps == 5
    assert choose_recipe("scratch", num_steps=5000).warmup_steps == RECIPES["scratch"].warmup_steps
    assert choose_recipe("scratch", num_epochs=2).num_steps is None


def test_flips_and_domains() -> None:
    recipe = choose_recipe("scratch", flip_share=0.5, domain_weights="real=1, synthetic=2.5")
    assert recipe.augmentation is not None
    assert recipe.augmentation.flip_share == 0.5
    assert recipe.domain_weights == {"real": 1.0, "synthetic": 2.5}


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("retailclip", {}, "there are .*retailklip"),
        ("scratch", {"learning_rat": 1.0}, "no field learning_rat"),
        ("scratch", {"num_steps": 3, "num_epochs": 2}, "either"),
        ("scratch", {"domain_weights": "real"}, "written like"),
        ("scratch", {"blockwise_decay": 1.5}, "blockwise_decay above 1"),
        ("scratch", {"freeze_batchnorm": "no"}, "freeze_batchnorm is True or False, found 'no'"),
        ("scratch", {"num_steps": 0.5}, "num_steps is a whole number or None, found 0.5"),
        ("scratch", {"num_steps": True}, "num_steps is a whole number or None, found True"),
        ("lora", {"lora_rank": 2.5}, "lora_rank is a whole number, found 2.5"),
        ("scratch", {"learning_rate_trunk": float("inf")}, "learning_rate_trunk is a finite number"),
        ("scratch", {"milestones": ("a",)}, "milestones is finite numbers in brackets"),
        ("linear_probe", {"learning_rate_trunk": 1.0}, "change nothing: .*read by a trunk that is trained alone"),
        ("linear_probe", {"margin_deg": 3.0, "subcenters": 9}, "margin_deg is read by .*subcenters is read by"),
        ("linear_probe", {"images_per_identity": 8}, "read by the identity sampler alone"),
        ("full_finetune", {"triplet_margin": 0.5}, "read by the loss triplet alone"),
        ("scratch", {"lora_alpha": 4.0}, "lora_rank above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_recipe(name, **given)  # type: ignore[arg-type]


def test_none_among_the_settings_is_meant_and_elsewhere_leaves_the_field() -> None:
    # triplet_margin=None is the soft margin, the counterpart of TAO's smooth_loss
    assert choose_recipe("nvidia_v1_triplet", read_settings("triplet_margin=None")).triplet_margin is None
    assert choose_recipe("nvidia_v1_triplet", triplet_margin=None).triplet_margin is not None
    assert choose_recipe("retailklip", read_settings("depth=none, augmentation=None")).depth is None
    assert choose_recipe("retailklip", read_settings("augmentation=None")).augmentation is None
    assert choose_recipe("scratch", {"batch_size": 8}, batch_size=16).batch_size == 8


def test_truths_are_read_however_they_are_written() -> None:
    assert read_settings("freeze_batchnorm=false, augment=False, gradient_checkpointing=true") == {
        "freeze_batchnorm": False,
        "augment": False,
        "gradient_checkpointing": True,
    }
    chosen = choose_recipe("scratch", read_settings("freeze_batchnorm=false, augment=false"))
    assert chosen.freeze_batchnorm is False
    assert chosen.augmentation is None


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_what_a_recipe_has_already_may_be_given_again(name: str) -> None:
    recipe = RECIPES[name]
    again = choose_recipe(name, margin_deg=recipe.margin_deg, learning_rate_trunk=recipe.learning_rate_trunk)
    assert again == recipe


def _catalog(splits: list[str]) -> Catalog:
    number = len(splits)
    frame = pd.DataFrame(
        {"path": [f"{row}.jpg" for row in range(number)], "label": [f"{row % 2}" for row in range(number)]}
    )
    frame = frame.assign(split=splits, domain="real", source="set", group=pd.Series([None] * number, dtype="str"))
    frame["camera"] = pd.array([None] * number, dtype="Int64")
    return Catalog(frame=frame, roots={"set": Path("/")}, cards={}, missing_splits={})


def test_validation_is_the_sets_own_or_held_out_of_training() -> None:
    recipe = choose_recipe("scratch", validation_images_per_class=1)
    own = split_for_training(_catalog(["train"] * 4 + ["val"] * 2), "train", "val", recipe)
    assert [len(part) for part in own] == [4, 2]
    train, val = split_for_training(_catalog(["train"] * 6 + ["query"] * 2), "train", "val", recipe)
    assert [len(train), len(val)] == [4, 2]
    assert sorted(val.labels) == ["0", "1"]
    assert set(train.frame["path"]).isdisjoint(val.frame["path"])
    with pytest.raises(ValueError, match="Did you mean 'train'"):
        split_for_training(_catalog(["train"] * 4), "trian", "val", recipe)


def test_settings_are_read_as_numbers_words_and_text() -> None:
    text = 'batch_size=32, ema_decay=0.99, schedule=constant, depth=None, domain_weights="real=1, synthetic=2"'
    assert read_settings(text) == {
        "batch_size": 32,
        "ema_decay": 0.99,
        "schedule": "constant",
        "depth": None,
        "domain_weights": "real=1, synthetic=2",
    }
    assert read_settings("") == {}
    chosen = choose_recipe("scratch", **read_settings("flip_share=0.25, milestones=(0.5, 0.75), schedule=multistep"))
    assert chosen.augmentation is not None
    assert (chosen.augmentation.flip_share, chosen.milestones) == (0.25, (0.5, 0.75))


@pytest.mark.parametrize(
    "text", ["batch_size", "batch_size=", "batch_size=1, batch_size=2", "x=__import__('os')", "(1"]
)
def test_settings_that_are_not_written_as_fields_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="settings are written like"):
        read_settings(text)


def test_a_setting_that_recipes_do_not_have_is_named() -> None:
    with pytest.raises(ValueError, match="batchsize"):
        read_settings("batchsize=3")


def test_one_factor_multiplies_the_three_rates_given_or_the_recipes_own() -> None:
    plain = choose_recipe("full_finetune", num_steps=10)
    faster = choose_recipe("full_finetune", num_steps=10, rate_factor=10, learning_rate_head=3e-4)
    assert faster.learning_rate_trunk == pytest.approx(1e-3)
    assert faster.learning_rate_head == pytest.approx(3e-3)
    assert faster.learning_rate_loss == pytest.approx(1e-2)
    assert faster.learning_rate_center == plain.learning_rate_center
    assert read_settings("rate_factor=10") == {"rate_factor": 10}
    for factor in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="rate_factor is a number above 0"):
            choose_recipe("full_finetune", rate_factor=factor)
