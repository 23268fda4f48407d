"""The fair comparison of recipes in one call: a trunk of our own, rates chosen on a grid, several seeds, one notebook that compares.

The classes of the training images are dealt into three: one third makes the trunk from random weights, one third is what
every recipe learns from, and the last third is asked about. Nothing is downloaded, and no recipe ever saw a class that
it is asked about, the trunk neither.

Source of the procedure: Musgrave et al., "A Metric Learning Reality Check", ECCV 2020 (same trunk, equal budget, choice
within the training classes, several seeds with intervals).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.headless.batch import Say, print_line, run_many
from workbench.runs.parameters import check_parameters, read_parameters
from workbench.runs.record import list_runs, new_record, read_record
from workbench.runs.root import find_root, outputs_folder

BASE_FOLD, RECIPE_FOLD = "0/3 without 1", "0/3 without 2"
FROM_RANDOM = ("scratch",)
"""Recipes that begin with random weights; all others begin with the trunk made here."""

VALIDATION_IMAGES = 2
"""Of each class, three times in a run: recipes of their own choice would learn from other images and stop at other steps."""

_SAME = ("git", "versions")

TRUNK_RATES: dict[str, object] = {"learning_rate_trunk": 4e-3, "learning_rate_head": 4e-3}
"""Of the trunk's own training: those of the preset `scratch`, since full_finetune's are for a trained trunk."""


@dataclass(frozen=True)
class Plan:
    """What is compared, and how large.

    Attributes:
        data: name or path of a card.
        recipes: of notebook 02, at least one, each once.
        trunk: where it starts, with random weights.
        seeds: of each recipe; the first decides the rates.
        rate_factors: by which the recipe's learning rates are multiplied; the best on validation images is taken on.
        num_steps: optimiser steps of each recipe, of `batch_size` images.
        base_steps: optimiser steps of the trunk's own training.
        image_px: height and width of the pictures.
    """

    data: str
    recipes: tuple[str, ...]
    trunk: str = "timm:test_resnet"
    seeds: tuple[int, ...] = (0, 1, 2)
    rate_factors: tuple[float, ...] = (1.0, 10.0)
    num_steps: int = 240
    base_steps: int = 600
    batch_size: int = 32
    image_px: int = 96


def compare_recipes(
    plan: Plan, *, jobs: int = 1, out: Path | None = None, deadline_s: float | None = None, say: Say = print_line
) -> list[Path]:
    """The folders of all runs: the trunk's, the recipes', and the comparison's last.

    Every parameter is checked before the first run starts. A run that is in `out` already and ended well, with the same parameters,
    commit and versions, is taken as it is: a comparison that was killed goes on where it stopped. A recipe whose first seed
    failed at every rate is left out with a line that says so; where the trunk's training fails, nothing else is run.

    Args:
        plan: what to compare.
        jobs: how many runs at once.
        out: the folder for the runs; default `outputs/`.
        deadline_s: seconds that each run may take.
        say: takes the lines of progress.

    Raises:
        ValueError: nothing to compare, or a recipe or seed named twice.
        ParameterError: parameters that notebook 02 refuses.
    """
    for name, values in (("recipes", plan.recipes), ("seeds", plan.seeds), ("rate_factors", plan.rate_factors)):
        if not values or len(set(values)) < len(values):
            raise ValueError(
                f"{name} wants at least one value and none twice; found {', '.join(map(str, values)) or 'none'}."
            )
    out = (out or outputs_folder()).resolve()
    notebook = find_root() / "notebooks" / "02_finetune_trunk.ipynb"
    declared = read_parameters(notebook)
    options: dict[str, Any] = {"out": out, "deadline_s": deadline_s, "say": say}
    grid = [(recipe, factor) for recipe in plan.recipes for factor in plan.rate_factors]
    for recipe, factor in grid:
        check_parameters(declared, _parameters(plan, recipe, factor, plan.seeds[0], Path("trunk")))
    say(f"recipes: the trunk, {plan.base_steps} steps of full_finetune on a third of the classes of {plan.data}")
    folders = _run_missing(notebook, [_base_parameters(plan)], 1, **options)
    base = [read_record(folder) for folder in folders]
    if not base or base[0]["status"] != "ok":
        say("recipes: the trunk was not made, so that nothing can start from it")
        return folders
    trunk = Path(base[0]["facts"]["embedder_folder"])

    say(f"recipes: {len(grid)} runs choose the rates of {len(plan.recipes)} recipes")
    tried = _run_missing(notebook, [_parameters(plan, *point, plan.seeds[0], trunk) for point in grid], jobs, **options)
    folders += tried
    if len(tried) < len(grid):
        return folders
    chosen = _choose(grid, tried, say)
    later = [(recipe, factor, seed) for recipe, (factor, _) in chosen.items() for seed in plan.seeds[1:]]
    say(f"recipes: {len(later)} runs with the other seeds")
    repeated = _run_missing(notebook, [_parameters(plan, *point, trunk) for point in later], jobs, **options)
    folders += repeated
    if len(repeated) < len(later):
        return folders
    compared = [folder.name for _, folder in chosen.values()] + [folder.name for folder in repeated]
    if compared:
        given = {"runs": ",".join(compared)}
        folders += run_many([(find_root() / "notebooks" / "07_compare_runs.ipynb", given)], 1, **options)
    return folders


def _run_missing(
    notebook: Path, given: Sequence[dict[str, object]], jobs: int, *, out: Path, say: Say, **options: Any
) -> list[Path]:
    """The folders of these runs in their order, taken from `out` where they are there; shorter when it was cancelled."""
    declared = read_parameters(notebook)
    fresh = new_record(notebook)
    now = {name: fresh[name] for name in _SAME}
    there = {
        json.dumps(record["parameters"], sort_keys=True): folder
        for folder, record in reversed(list_runs(out))
        if record["status"] == "ok"
        and record["notebook"] == notebook.stem
        and {name: record.get(name) for name in _SAME} == now
    }
    kept = [there.get(json.dumps(check_parameters(declared, one), sort_keys=True)) for one in given]
    for folder in filter(None, kept):
        say(f"recipes: {folder.name} is there already")
    missing = [(notebook, one) for one, folder in zip(given, kept, strict=True) if folder is None]
    made = iter(run_many(missing, jobs, out=out, say=say, **options) if missing else [])
    folders = [folder or next(made, None) for folder in kept]
    return [folder for folder in folders if folder is not None]


def _base_parameters(plan: Plan) -> dict[str, object]:
    settings = f"batch_size={plan.batch_size}, learning_rate_loss=0.01, num_workers=0"
    own = {"recipe": "full_finetune", "fold": BASE_FOLD, "num_steps": plan.base_steps, "settings": settings}
    return _shared(plan) | TRUNK_RATES | own | {"embedder": plan.trunk, "seed": 0}


def _parameters(plan: Plan, recipe: str, factor: float, seed: int, trunk: Path) -> dict[str, object]:
    settings = f"batch_size={plan.batch_size}, rate_factor={factor:g}, num_workers=0"
    settings += f", validation_images_per_class={VALIDATION_IMAGES}, validation_interval={max(plan.num_steps // 3, 1)}"
    own = {"recipe": recipe, "fold": RECIPE_FOLD, "num_steps": plan.num_steps, "settings": settings, "seed": seed}
    return _shared(plan) | own | {"embedder": plan.trunk if recipe in FROM_RANDOM else str(trunk)}


def _shared(plan: Plan) -> dict[str, object]:
    return {"data": plan.data, "image_height": plan.image_px, "image_width": plan.image_px}


def _choose(grid: Sequence[tuple[str, float]], folders: Sequence[Path], say: Say) -> Mapping[str, tuple[float, Path]]:
    """Of each recipe the factor with the best validation, the smaller of equals, and the folder of its run."""
    found: dict[str, tuple[float, float, Path]] = {}
    for (recipe, factor), folder in zip(grid, folders, strict=True):
        record = read_record(folder)
        accuracy = record["facts"].get("validation_accuracy")
        if record["status"] != "ok" or accuracy is None:
            say(f"recipes: {recipe} at {factor:g} times its rates gave no answer ({record['status']}, {folder.name})")
            continue
        say(f"recipes: {recipe} at {factor:g} times its rates: {accuracy:.1%} on validation images")
        if recipe not in found or (-accuracy, factor) < (-found[recipe][0], found[recipe][1]):
            found[recipe] = accuracy, factor, folder
    for recipe in dict.fromkeys(recipe for recipe, _ in grid):
        if recipe not in found:
            say(f"recipes: {recipe} is left out: it failed at every rate")
    return {recipe: (factor, folder) for recipe, (_, factor, folder) in found.items()}
