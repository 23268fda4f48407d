import json
from dataclasses import replace

import pytest

from workbench.data.augment import Augmentation
from workbench.training.recipe import Recipe
from workbench.training.recipes import RECIPES


def test_published_values_of_retailklip() -> None:
    recipe = RECIPES["retailklip"]
    assert (recipe.loss, recipe.learning_rate_trunk, recipe.blockwise_decay) == ("arcface", 2e-4, 0.7)
    assert (recipe.margin_deg, recipe.scale) == (28.6, 64)


def test_the_small_preset_sees_the_same_batches() -> None:
    full, small = RECIPES["retailklip"], RECIPES["retailklip_11gb"]
    changed = {name for name, value in small.to_dict().items() if value != full.to_dict()[name]}
    assert changed == {"name", "amp", "gradient_checkpointing", "accumulation_steps"}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_survives_json(name: str) -> None:
    weights = {"real": 1.0, "synthetic": 0.5} if RECIPES[name].sampler == "balanced" else None
    recipe = replace(RECIPES[name], domain_weights=weights, augmentation=Augmentation(crop_share=0.5))
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert Recipe.from_dict(replace(recipe, augmentation=None).to_dict()).augmentation is None


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValueError, match="no field momentum"):
        Recipe.from_dict({"name": "x", "num_steps": 1, "momentum": 0.9})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_epochs": 3}, "either num_steps or num_epochs"),
        ({"num_steps": None}, "either num_steps or num_epochs"),
        ({"learning_rate_trunk": 0.0}, "learning_rate_trunk is above 0"),
        ({"learning_rate_trunk": float("nan")}, "learning_rate_trunk is a finite number, found nan"),
        ({"blockwise_decay": 1.5}, "stem faster than the top"),
        ({"batch_size": 10, "accumulation_steps": 4}, "does not divide into 4 parts"),
        ({"warmup_steps": 100}, "leave nothing of num_steps 100"),
        ({"depth": 0}, "depth is above 0 or None"),
        ({"amp": "float8"}, "amp is one of off, bfloat16, float16"),
        ({"ema_decay": 1.0}, "ema_decay lies in"),
        ({"margin_deg": 90.0}, "margin_deg lies in"),
        ({"embedding_dim": 64}, "embedding_dim is for a new head"),
        ({"domain_weights": {"real": 0.0}}, "one is above 0"),
        ({"domain_weights": {"real": -1.0}}, "at least 0"),
        ({"domain_weights": {}}, "one is above 0"),
        ({"seed": -1}, "seed is at least 0"),
    ],
)
def test_senseless_combinations_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**{"name": "x", "num_steps": 100, **changes})  # type: ignore[arg-type]


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"(?s)scale is above 0.*clip_grad is at least 0"):
        Recipe(name="x", num_steps=5, scale=-1, clip_grad=-1)
