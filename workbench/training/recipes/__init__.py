"""Recipes by name, as notebooks' parameters call them."""

import ast
import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, get_type_hints

from workbench.data.augment import Augmentation
from workbench.training.recipe import Recipe
from workbench.training.recipe_checks import check_field_names, find_mistyped, find_unread
from workbench.training.recipes.dynamic_margin import DYNAMIC_MARGIN
from workbench.training.recipes.full_finetune import FULL_FINETUNE
from workbench.training.recipes.full_finetune_lca_maxent import FULL_FINETUNE_LCA_MAXENT
from workbench.training.recipes.head_then_trunk import HEAD_THEN_TRUNK
from workbench.training.recipes.linear_probe import LINEAR_PROBE
from workbench.training.recipes.lora import LORA
from workbench.training.recipes.nvidia_adaptors import NVIDIA_ADAPTORS
from workbench.training.recipes.nvidia_v1_triplet import NVIDIA_V1_TRIPLET
from workbench.training.recipes.reid_bnneck import REID_BNNECK
from workbench.training.recipes.retailklip import RETAILKLIP, RETAILKLIP_11GB
from workbench.training.recipes.scratch import SCRATCH
from workbench.training.recipes.subcenter_arcface import SUBCENTER_ARCFACE

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        *(SCRATCH, RETAILKLIP, RETAILKLIP_11GB, SUBCENTER_ARCFACE, DYNAMIC_MARGIN, LORA, HEAD_THEN_TRUNK),
        *(FULL_FINETUNE, FULL_FINETUNE_LCA_MAXENT, LINEAR_PROBE, NVIDIA_V1_TRIPLET, NVIDIA_ADAPTORS, REID_BNNECK),
    )
}


_WORDS = {"true": True, "false": False, "none": None}


def choose_recipe(
    name: str,
    settings: Mapping[str, Any] | None = None,
    *,
    augment: bool | None = None,
    flip_share: float | None = None,
    domain_weights: str = "",
    rate_factor: float | None = None,
    **overrides: Any,
) -> Recipe:
    """The recipe of that name with some of its fields set otherwise; None leaves a field as the recipe has it.

    Args:
        name: one of `RECIPES`.
        settings: further fields and options, as `read_settings` gives them. They come last, and a None among them is meant.
        augment: False shows images as they are, True augments them (as the recipe does, or mildly).
        flip_share: share of the training images that are mirrored.
        domain_weights: such as "real=1, synthetic=2"; empty takes images as they come.
        rate_factor: > 0, of the three learning rates of the recipe (trunk, head, loss), for a sweep that treats recipes alike.
        overrides: fields of `Recipe`. num_steps takes the place of num_epochs and the reverse; a warm-up that would
            leave less than half of the steps is shortened to a tenth of them, and head_first_steps to a third.

    Raises:
        ValueError: no such recipe or field, a combination that makes no sense, or a field that is set otherwise and that
            nothing in this recipe reads.
    """
    if name not in RECIPES:
        raise ValueError(f"There is no recipe {name!r}; there are {', '.join(RECIPES)}.")
    settings = dict(settings or {})
    augment, flip_share = settings.pop("augment", augment), settings.pop("flip_share", flip_share)
    domain_weights = settings.pop("domain_weights", None) or domain_weights
    rate_factor = settings.pop("rate_factor", rate_factor)
    given = {field: value for field, value in overrides.items() if value is not None} | settings
    check_field_names(given, {field.name for field in fields(Recipe)})
    if mistyped := find_mistyped(given, get_type_hints(Recipe)):
        raise ValueError(f"The recipe {name!r} cannot be trained: {'; '.join(mistyped)}.")
    asked = {field for field, value in given.items() if value != getattr(RECIPES[name], field)}
    recipe = RECIPES[name]
    if rate_factor is not None:
        if not 0 < rate_factor < math.inf:
            raise ValueError(f"rate_factor is a number above 0; found {rate_factor!r}.")
        rates = ("learning_rate_trunk", "learning_rate_head", "learning_rate_loss")
        given |= {rate: rate_factor * given.get(rate, getattr(recipe, rate)) for rate in rates}
    if given.get("num_steps") is not None and given.get("num_epochs") is not None:
        raise ValueError("Give either num_steps or num_epochs, not both.")
    if given.get("num_steps") is not None:
        given["num_epochs"] = None
        if "warmup_steps" not in given and 2 * recipe.warmup_steps > given["num_steps"]:
            given["warmup_steps"] = given["num_steps"] // 10
        if "head_first_steps" not in given and 2 * recipe.head_first_steps > given["num_steps"]:
            given["head_first_steps"] = given["num_steps"] // 3
    elif given.get("num_epochs") is not None:
        given["num_steps"] = None
    if augment is False and flip_share:
        raise ValueError("augment=False shows images as they are; flip_share mirrors some of them. Choose one.")
    if augment is not None or flip_share:
        given["augmentation"] = (recipe.augmentation or Augmentation()) if augment is not False else None
    if flip_share is not None and (shown := given.get("augmentation", recipe.augmentation)) is not None:
        given["augmentation"] = replace(shown, flip_share=flip_share)
    if domain_weights.strip():
        given["domain_weights"] = _read_weights(domain_weights)
    chosen = replace(recipe, **given)
    if unread := find_unread(chosen, asked):
        raise ValueError(f"With the recipe {name!r} this would change nothing: {'; '.join(unread)}.")
    return chosen


def _read_weights(text: str) -> dict[str, float]:
    weights = {}
    for part in text.split(","):
        domain, _, value = part.partition("=")
        try:
            weights[domain.strip()] = float(value)
        except ValueError as error:
            raise ValueError(f"domain_weights are written like 'real=1, synthetic=2'; found {text!r}.") from error
    return weights


def read_settings(text: str) -> dict[str, Any]:
    """Fields of a recipe written as `name=value` with commas: numbers, true, none, "text", or a bare word for text.

    Raises:
        ValueError: not written like that, a name twice, or a name that recipes do not have.
    """
    try:
        call = ast.parse(f"recipe({text})", mode="eval").body
        assert isinstance(call, ast.Call)
        names = [keyword.arg for keyword in call.keywords]
        if call.args or None in names or len(set(names)) < len(names):
            raise ValueError
        given = {
            str(keyword.arg): _WORDS.get(keyword.value.id.lower(), keyword.value.id)
            if isinstance(keyword.value, ast.Name)
            else ast.literal_eval(keyword.value)
            for keyword in call.keywords
        }
    except (SyntaxError, ValueError, AssertionError) as error:
        raise ValueError(
            f'settings are written like `batch_size=32, schedule=constant, domain_weights="real=1"`; found {text!r}.'
        ) from error
    known = {field.name for field in fields(Recipe)} | {"augment", "flip_share", "rate_factor"}
    check_field_names(given, known)
    return given
