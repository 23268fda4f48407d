import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from workbench.models.embedder import Embedder, build_embedder
from workbench.training.blocks import blockwise_groups
from workbench.training.losses import build_loss
from workbench.training.rates import build_optimizer, frozen_parts, rate_factor, read_rates, set_phase, set_rates
from workbench.training.recipe import Recipe
from workbench.training.steps import optimise

RECIPE = Recipe("test", num_steps=10, batch_size=8, learning_rate_trunk=1e-3, margin_deg=20.0, scale=10.0)
NO_SCALER = torch.amp.GradScaler("cpu", enabled=False)


def test_warm_up_and_cosine_by_hand() -> None:
    factors = [rate_factor(step, 12, 4, "cosine") for step in range(12)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[6] == pytest.approx(0.5 * (1 + math.sqrt(0.5)))
    assert factors[8] == pytest.approx(0.5)
    assert factors[10] == pytest.approx(0.5 * (1 - math.sqrt(0.5)))
    assert factors[11] == pytest.approx(0.0380602337)
    assert [rate_factor(step, 12, 4, "constant") for step in (0, 3, 11)] == [0.25, 1.0, 1.0]
    assert rate_factor(0, 3, 0, "cosine") == 1.0


def test_warm_up_and_steps_by_hand() -> None:
    milestones = (1 / 3, 7 / 12)  # of 12 steps: 4 and 7
    factors = [rate_factor(step, 12, 2, "multistep", milestones, 0.1) for step in range(12)]
    assert factors == pytest.approx([0.5, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01, 0.01])
    # epochs 40 and 70 of 120, 5 steps each: the first step of an epoch has its rate
    shares = (40 / 120, 70 / 120)
    assert [rate_factor(step, 600, 0, "multistep", shares, 0.5) for step in (199, 200, 349, 350)] == [1, 0.5, 0.5, 0.25]
    # a milestone within the warm-up counts
    assert rate_factor(2, 10, 4, "multistep", (0.2,), 0.1) == pytest.approx(0.075)
    assert rate_factor(5, 10, 0, "constant", (0.2,), 0.1) == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [set(), set(), set()]),
        ({"freeze": "head"}, [{"head"}] * 3),
        ({"freeze": "trunk", "blockwise_decay": 1.0}, [{"trunk"}] * 3),
        ({"head_first_steps": 4}, [{"trunk"}, {"trunk"}, {"head"}]),
    ],
)
def test_what_stands_still_when(changes: dict[str, Any], expected: list[set[str]]) -> None:
    recipe = replace(RECIPE, **changes)
    assert [set(frozen_parts(recipe, step)) for step in (0, 3, 4)] == expected


def _embedder() -> Embedder:
    return build_embedder("timm:test_resnet", "random", image_size=(32, 32), head="bnneck", embedding_dim=8)


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 32, 32, 3), generator=generator, dtype=torch.uint8)
    return images, torch.arange(8) % 3


@pytest.mark.parametrize("part", ["trunk", "head"])
@pytest.mark.parametrize("optimizer_kind", ["adamw", "adam", "sgd"])
def test_a_part_stands_still_in_its_phase_and_moves_in_the_next(part: str, optimizer_kind: str) -> None:
    embedder, loss = _embedder(), build_loss(RECIPE, 3, 8)
    optimizer = build_optimizer(blockwise_groups(embedder, loss, RECIPE), optimizer_kind)

    def step(frozen: frozenset[str]) -> set[str]:
        before = copy.deepcopy(embedder.state_dict())
        set_phase(embedder, optimizer, frozen, freeze_batchnorm=False)
        set_rates(optimizer, 1.0, frozen)
        optimise(embedder, loss, optimizer, NO_SCALER, *_batch(), RECIPE)
        for still in frozen:  # no gradient is computed, and the optimiser's momentum of it does not fade
            assert all(parameter.grad is None for parameter in embedder.get_submodule(still).parameters())
        return {
            name.split(".")[0] for name, value in embedder.state_dict().items() if not torch.equal(value, before[name])
        }

    other = {"trunk": "head", "head": "trunk"}[part]
    assert step(frozenset()) == {"trunk", "head"}  # momentum is there from now on
    assert step(frozenset({part})) == {other}  # running statistics are part of the state
    rates = read_rates(optimizer)
    assert {rates[name] > 0 for name in rates if (name == "head") == (part == "head") and name != "loss"} == {False}
    assert rates["loss"] == RECIPE.learning_rate_loss
    assert step(frozenset({other})) == {part}
    assert step(frozenset()) == {"trunk", "head"}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # w = 1, gradient 2, rate 0.1, decay 0.5. AdamW: w (1 - 0.05) - 0.1; Adam: the sign of (2 + 0.5) alone
        ("adamw", 0.95 - 0.1),
        ("adam", 0.9),
        ("sgd", 1 - 0.1 * 2.5),
    ],
)
def test_first_step_of_each_optimiser_by_hand(kind: str, expected: float) -> None:
    weight = nn.Parameter(torch.ones(1, 1))
    optimizer = build_optimizer([{"params": [weight], "lr": 0.1, "weight_decay": 0.5, "name": "head"}], kind)
    weight.grad = torch.full((1, 1), 2.0)
    optimizer.step()
    assert float(weight.detach()) == pytest.approx(expected, rel=1e-6)
    if kind == "sgd":  # momentum: 0.9 of the last update and the new gradient
        last, now = 2.5, float(weight.detach())
        optimizer.step()
        assert float(weight.detach()) == pytest.approx(now - 0.1 * (0.9 * last + 2 + 0.5 * now), rel=1e-6)


def test_the_trunks_batchnorm_stays_frozen_through_the_phases() -> None:
    embedder, loss = _embedder(), build_loss(RECIPE, 3, 8)
    set_phase(
        embedder, build_optimizer([{"params": [], "lr": 1.0, "weight_decay": 0.0, "name": "loss"}]), frozenset(), True
    )
    optimizer = build_optimizer(blockwise_groups(embedder, loss, RECIPE))
    for frozen in (frozenset({"trunk"}), frozenset({"head"})):
        set_phase(embedder, optimizer, frozen, freeze_batchnorm=True)
    norms = [module for module in embedder.trunk.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(module.training or module.weight.requires_grad for module in norms)
    assert embedder.trunk.training
    assert not embedder.head.training
