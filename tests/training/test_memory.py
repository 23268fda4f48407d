from dataclasses import replace
from typing import Any

import pytest
import torch

from workbench.models.embedder import build_embedder
from workbench.training.memory import DeviceMemoryError, check_memory, estimate_memory
from workbench.training.recipe import Recipe

RECIPE = Recipe("test", num_steps=10, batch_size=8)
MIB = 2**20


def test_parts_that_can_be_counted() -> None:
    embedder = build_embedder("timm:test_vit", "random", image_size=(32, 32), head="linear", embedding_dim=64)
    num_weights = sum(parameter.numel() for parameter in embedder.parameters())
    needed = estimate_memory(embedder, RECIPE, num_classes=1000)
    assert needed["gradients"] == pytest.approx((num_weights + 64 * 1000) * 4 / MIB)
    assert needed["weights"] == needed["gradients"]  # no buffers in this trunk
    assert needed["optimiser"] == 2 * needed["gradients"]
    assert needed["moving average"] == 0
    assert needed["total"] == pytest.approx(sum(value for name, value in needed.items() if name != "total"))
    averaged = estimate_memory(embedder, replace(RECIPE, ema_decay=0.9), num_classes=1000)
    assert averaged["moving average"] == needed["weights"]


def test_what_is_not_trained_costs_no_gradient() -> None:
    embedder = build_embedder("timm:test_vit", "random", image_size=(32, 32), head="linear", embedding_dim=64)
    num_head = sum(parameter.numel() for parameter in embedder.head.parameters())
    recipe = replace(RECIPE, loss="cross_entropy", freeze="trunk", blockwise_decay=1.0)
    frozen, full = (estimate_memory(embedder, one, num_classes=10) for one in (recipe, replace(recipe, freeze="none")))
    assert frozen["gradients"] == pytest.approx((num_head + 64 * 10) * 4 / MIB)
    assert frozen["optimiser"] == 2 * frozen["gradients"]
    assert frozen["weights"] == full["weights"]
    assert frozen["activations"] < full["activations"] / 20  # the input of the head and its own normalisation remain
    assert all(parameter.requires_grad for parameter in embedder.parameters())
    plain = estimate_memory(embedder, replace(RECIPE, optimizer="sgd"), num_classes=10)
    assert plain["optimiser"] == plain["gradients"]


@pytest.mark.parametrize(
    ("changes", "num_numbers"),
    [
        ({"loss": "triplet"}, 0),
        ({"loss": "subcenter_arcface", "subcenters": 3}, 3 * 64),
        ({"loss": "cross_entropy+triplet+center"}, 2 * 64),
        ({"loss": "arcface", "head": "bnneck", "embedding_dim": 16}, 16),
    ],
)
def test_weights_of_the_loss_are_counted(changes: dict[str, Any], num_numbers: int) -> None:
    embedder = build_embedder("timm:test_vit", "random", image_size=(32, 32), head="linear", embedding_dim=64)
    num_weights = sum(parameter.numel() for parameter in embedder.parameters())
    needed = estimate_memory(embedder, replace(RECIPE, **changes), num_classes=1000)
    assert needed["gradients"] == pytest.approx((num_weights + 1000 * num_numbers) * 4 / MIB)


@pytest.mark.parametrize("name", ["timm:test_vit", "timm:resnet10t"])
def test_activations_are_those_that_a_real_pass_keeps(name: str) -> None:
    embedder = build_embedder(name, "random", image_size=(64, 64))
    needed = estimate_memory(embedder, replace(RECIPE, batch_size=8), num_classes=10)
    own = {parameter.untyped_storage().data_ptr() for parameter in embedder.parameters()}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    embedder.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        embedder(torch.zeros(8, 3, 64, 64))
    measured = sum(size for size, _ in kept.values()) / MIB
    assert needed["activations"] == pytest.approx(measured, rel=0.05)  # statistics of norms do not grow with the batch


def test_what_saves_memory_is_seen_to_save() -> None:
    embedder = build_embedder("timm:vit_small_patch14_dinov2", "random", image_size=(56, 56))
    full = estimate_memory(embedder, RECIPE, 10)
    parts = estimate_memory(embedder, replace(RECIPE, accumulation_steps=4), 10)
    twice = estimate_memory(embedder, replace(RECIPE, gradient_checkpointing=True), 10)
    half = estimate_memory(embedder, replace(RECIPE, amp="bfloat16"), 10)
    assert parts["activations"] == pytest.approx(full["activations"] / 4)
    # 12 inputs of 17 tokens x 384 numbers an image remain, and the inside of one block of 12
    assert full["activations"] / 12 < twice["activations"] < full["activations"] / 4
    assert 0.4 < half["activations"] / full["activations"] < 0.8
    assert half["16-bit copies of the weights"] > 0
    assert (
        estimate_memory(embedder, replace(RECIPE, amp="bfloat16"), 10, amp=False)["activations"] == full["activations"]
    )


def test_the_estimate_leaves_the_embedder_as_it_was() -> None:
    embedder = build_embedder("timm:resnet10t", "random", image_size=(64, 64))
    before = embedder.fingerprint()
    estimate_memory(embedder, RECIPE, 10)
    assert embedder.fingerprint() == before
    assert not embedder.training
    assert not [name for name, module in embedder.named_modules() if module._forward_hooks or module._forward_pre_hooks]


def test_too_much_is_refused_with_advice() -> None:
    needed = {"weights": 1000.0, "activations": 9000.0, "moving average": 0.0, "total": 10000.0}
    check_memory(needed, 10000.0, RECIPE)
    with pytest.raises(
        DeviceMemoryError, match=r"about 10,000 MiB.*8,000 MiB free.*activations 9,000.*accumulation_steps=2"
    ):
        check_memory(needed, 8000.0, RECIPE)
    small = replace(RECIPE, amp="bfloat16", gradient_checkpointing=True, accumulation_steps=8)
    with pytest.raises(DeviceMemoryError, match=r"Try a smaller trunk or image size\.$"):
        check_memory(needed, 8000.0, small)
