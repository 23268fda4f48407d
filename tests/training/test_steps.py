import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from workbench.models.embedder import Embedder, build_embedder
from workbench.training.blocks import blockwise_groups
from workbench.training.losses import build_loss
from workbench.training.rates import (
    build_optimizer,
    read_rates,
    set_rates,
    set_training_mode,
)
from workbench.training.recipe import Recipe
from workbench.training.steps import TrainingDivergedError, optimise, update_average
from workbench.training.validation import class_accuracy

RECIPE = Recipe("test", num_steps=10, batch_size=8, learning_rate_trunk=1e-3, margin_deg=20.0, scale=10.0)
NO_SCALER = torch.amp.GradScaler("cpu", enabled=False)


def _vit() -> Embedder:
    return build_embedder("timm:test_vit", "random", image_size=(32, 32), head="linear", embedding_dim=8)


def _batch(num_images: int = 8, px: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num_images, px, px, 3), generator=generator, dtype=torch.uint8)
    return images, torch.arange(num_images) % 3


def test_rates_are_set_in_the_optimiser_for_every_block() -> None:
    embedder, recipe = _vit(), replace(RECIPE, blockwise_decay=0.5, learning_rate_head=4e-3)
    optimizer = build_optimizer(blockwise_groups(embedder, build_loss(recipe, 3, 8), recipe))
    set_rates(optimizer, 0.25)
    rates = read_rates(optimizer)
    top = max(name for name in rates if name.startswith("block"))
    assert rates[top] == 2.5e-4
    assert rates["head"] == 1e-3
    set_rates(optimizer, 0.5)  # of the peak, not of the rate before
    assert read_rates(optimizer)[top] == 5e-4


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_gradients_in_parts_add_up_to_those_of_the_batch(parts: int) -> None:
    images, labels = _batch()
    gradients = []
    for accumulation_steps in (1, parts):
        recipe = replace(RECIPE, accumulation_steps=accumulation_steps)
        embedder, loss = _vit(), build_loss(recipe, 3, 8)
        groups = blockwise_groups(embedder, loss, recipe)
        set_training_mode(embedder, False)
        outcome = optimise(embedder, loss, build_optimizer(groups), NO_SCALER, images, labels, recipe)
        gradients.append([outcome.loss, *(p.grad.clone() for g in groups for p in g["params"])])
    for whole, added in zip(*gradients, strict=True):
        # float32 sums in another order: a few units in the last of 24 bits, times the depth of the network
        torch.testing.assert_close(torch.as_tensor(whole), torch.as_tensor(added), rtol=1e-3, atol=1e-5)


def test_the_gradient_is_clipped_and_its_norm_told_before() -> None:
    images, labels = _batch()
    norms = []
    for clip_grad in (0.0, 0.01):
        recipe = replace(RECIPE, clip_grad=clip_grad)
        embedder, loss = _vit(), build_loss(recipe, 3, 8)
        set_training_mode(embedder, False)
        groups = blockwise_groups(embedder, loss, recipe)
        outcome = optimise(embedder, loss, build_optimizer(groups), NO_SCALER, images, labels, recipe)
        left = math.sqrt(sum(float(p.grad.square().sum()) for g in groups for p in g["params"]))
        norms.append((outcome.gradient_norm, left))
    assert norms[0][0] == pytest.approx(norms[0][1], rel=1e-4)
    assert norms[1][0] == pytest.approx(norms[0][0], rel=1e-4)
    assert norms[1][1] == pytest.approx(0.01, rel=1e-3)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change() -> None:
    embedder, loss = _vit(), build_loss(RECIPE, 3, 8)
    optimizer = build_optimizer(blockwise_groups(embedder, loss, RECIPE))
    with torch.no_grad():
        next(loss.parameters())[0, 0] = math.nan
    before = copy.deepcopy(embedder.state_dict())
    with pytest.raises(TrainingDivergedError, match="the loss is nan"):
        optimise(embedder, loss, optimizer, NO_SCALER, *_batch(), RECIPE)
    assert all(torch.equal(value, before[name]) for name, value in embedder.state_dict().items())


def test_frozen_batchnorm_keeps_statistics_and_weights() -> None:
    for freeze in (True, False):
        embedder = build_embedder("timm:test_resnet", "random", image_size=(32, 32))
        recipe, loss = replace(RECIPE, freeze_batchnorm=freeze), build_loss(RECIPE, 3, embedder.embedding_dim)
        set_training_mode(embedder, freeze)
        optimizer = build_optimizer(blockwise_groups(embedder, loss, recipe))
        before = copy.deepcopy(embedder.state_dict())
        optimise(embedder, loss, optimizer, NO_SCALER, *_batch(), recipe)
        after = embedder.state_dict()
        norms = {
            f"{name}.{part}"
            for name, module in embedder.named_modules()
            if isinstance(module, nn.BatchNorm2d)
            for part in ("weight", "bias", "running_mean", "running_var")
        }
        assert len(norms) > 8
        changed = {name for name in norms if not torch.equal(before[name], after[name])}
        if freeze:
            assert changed == set()
        else:  # the last norm of a block starts at 0 and holds back the gradient of those before it
            assert changed >= {name for name in norms if "running" in name}
            assert {name for name in changed if name.endswith("weight")}
        moved = [name for name in after if name.endswith("conv1.weight") and not torch.equal(before[name], after[name])]
        assert moved


def test_the_average_moves_as_its_formula_says() -> None:
    model, average = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    for module, value in ((model, 1.0), (average, 0.0)):
        nn.init.constant_(module.weight, value)
        module.num_batches_tracked.fill_(int(7 * value))  # type: ignore[union-attr]
    update_average(average, model, 0.9, 1)  # d = min(0.9, 2 / 11)
    assert float(average.weight.detach()) == pytest.approx(9 / 11)
    update_average(average, model, 0.9, 8)  # d = min(0.9, 9 / 18)
    assert float(average.weight.detach()) == pytest.approx(1 - 0.5 * 2 / 11)
    update_average(average, model, 0.9, 1000)  # d = 0.9
    assert float(average.weight.detach()) == pytest.approx(1 - 0.9 * 0.5 * 2 / 11)
    assert int(average.num_batches_tracked) == 7  # type: ignore[arg-type]


def test_class_accuracy_is_the_mean_over_classes() -> None:
    # class 0: 1 of 4, class 1 has no image, class 2: 1 of 1
    assert class_accuracy(np.array([0, 0, 0, 0, 2]), np.array([0, 1, 2, 1, 2])) == pytest.approx(0.625)
