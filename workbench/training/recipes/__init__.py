"""Recipes by name, as notebooks' parameters call them."""

from dataclasses import fields, replace
from typing import Any

from workbench.data.augment import Augmentation
from workbench.training.recipe import Recipe
from workbench.training.recipes.retailklip import RETAILKLIP, RETAILKLIP_11GB
from workbench.training.recipes.scratch import SCRATCH

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (RETAILKLIP, RETAILKLIP_11GB, SCRATCH)}


def choose_recipe(name: str, *, flip_share: float | None = None, domain_weights: str = "", **overrides: Any) -> Recipe:
    """The recipe of that name with some of its fields set otherwise; None leaves a field as the recipe has it.

    Args:
        name: one of `RECIPES`.
        flip_share: share of the training images that are mirrored.
        domain_weights: such as "real=1, synthetic=2"; empty takes images as they come.
        overrides: fields of `Recipe`. num_steps takes the place of num_epochs and the reverse; a warm-up that would
            leave less than half of the steps is shortened to a tenth of them.

    Raises:
        ValueError: no such recipe or field, or a combination that makes no sense.
    """
    if name not in RECIPES:
        raise ValueError(f"There is no recipe {name!r}; there are {', '.join(RECIPES)}.")
    given = {field: value for field, value in overrides.items() if value is not None}
    unknown = given.keys() - {field.name for field in fields(Recipe)}
    if unknown:
        raise ValueError(f"A recipe has no field {', '.join(sorted(unknown))}.")
    recipe = RECIPES[name]
    if "num_steps" in given and "num_epochs" in given:
        raise ValueError("Give either num_steps or num_epochs, not both.")
    if "num_steps" in given:
        given["num_epochs"] = None
        if "warmup_steps" not in given and 2 * recipe.warmup_steps > given["num_steps"]:
            given["warmup_steps"] = given["num_steps"] // 10
    elif "num_epochs" in given:
        given["num_steps"] = None
    if flip_share is not None:
        given["augmentation"] = replace(recipe.augmentation or Augmentation(), flip_share=flip_share)
    if domain_weights.strip():
        given["domain_weights"] = _read_weights(domain_weights)
    return replace(recipe, **given)


def _read_weights(text: str) -> dict[str, float]:
    weights = {}
    for part in text.split(","):
        domain, _, value = part.partition("=")
        try:
            weights[domain.strip()] = float(value)
        except ValueError as error:
            raise ValueError(f"domain_weights are written like 'real=1, synthetic=2'; found {text!r}.") from error
    return weights
