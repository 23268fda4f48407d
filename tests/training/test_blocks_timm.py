"""Blockwise rates of timm's models and of towers of open_clip, built on torch's meta device: names and shapes, no numbers."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import timm
import torch
from timm.models import group_parameters
from torch import nn
from torch.overrides import TorchFunctionMode

from workbench.training.blocks import block_modules, block_of_parameters, blockwise_groups
from workbench.training.recipe import Recipe

RECIPE = Recipe(
    "test", num_steps=10, learning_rate_trunk=1.0, blockwise_decay=0.5, learning_rate_head=3.0, learning_rate_loss=5.0
)
FAMILIES = {module: timm.list_models(module=module) for module in timm.list_modules()}
REPRESENTATIVES = [names[0] for names in FAMILIES.values() if names]
# of families without group_matcher, and one whose group_matcher refuses coarse groups
UNLAYERED = (
    *("csatv2", "caformer", "convformer", "poolformer", "pit_", "mobilenetv5_300m_enc"),
    "rdnet",
)


class _WithoutNumbers(TorchFunctionMode):
    """Leaves out what fills tensors without content, which takes most of the time of building a model."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        fills = ("normal_", "uniform_", "erfinv_", "mul_", "add_", "clamp_", "fill_", "zero_", "copy_")
        filled = args[0] if args else (kwargs or {}).get("tensor")
        if getattr(func, "__name__", "") in fills and filled is not None and filled.is_meta:
            return filled
        return func(*args, **(kwargs or {}))


def _bare(name: str) -> Any:
    """An embedder's trunk and head as `blocks` sees them."""
    with torch.device("meta"), _WithoutNumbers():
        tower = timm.create_model(name, num_classes=0)
    return SimpleNamespace(trunk=SimpleNamespace(name=f"timm:{name}", tower=tower), head=nn.Linear(2, 2))


def _check_rates(embedder: Any) -> None:
    tower, loss = embedder.trunk.tower, nn.Linear(2, 2)
    groups = blockwise_groups(embedder, loss, RECIPE)
    # every parameter in exactly one group, none of one axis decayed
    grouped = [name for group in groups for name in group["parameters"]]
    parts = (("", tower), ("head.", embedder.head), ("loss.", loss))
    trained = (prefix + name for prefix, part in parts for name, one in part.named_parameters() if one.requires_grad)
    assert sorted(grouped) == sorted(trained)
    assert len({id(parameter) for group in groups for parameter in group["params"]}) == len(grouped)
    assert len({(group["name"], group["weight_decay"]) for group in groups}) == len(groups)
    assert all(parameter.ndim > 1 for group in groups if group["weight_decay"] for parameter in group["params"])
    # the top block has the peak rate, each below it half of that above, the stem last
    rates = {group["name"]: group["lr"] for group in groups}
    depth = sum(name.startswith("block ") for name in rates)
    assert depth > 0
    rising = {f"block {number}": 0.5 ** (depth - 1 - number) for number in range(depth)}
    apart = {"head": 3.0, "loss": 5.0} | ({"final": 3.0} if "final" in rates else {})
    stem = {"stem": 0.5**depth} if "stem" in rates else {}
    assert rates == rising | apart | stem
    # modules that are blocks hold their parameters, each once
    blocks = block_of_parameters(embedder.trunk)
    inside = [one for module in block_modules(embedder.trunk) for one in blocks if one.startswith(f"{module}.")]
    assert len(inside) == len(set(inside))
    assert inside
    assert {blocks[one] for one in inside} == {block for block in blocks.values() if block.startswith("block")}


def _check(name: str) -> None:
    embedder = _bare(name)
    _check_rates(embedder)
    # blocks are timm's own groups in its order; what is `final` goes with timm's last two, the top block and the head
    blocks = block_of_parameters(embedder.trunk)
    tower = embedder.trunk.tower
    by_timm = group_parameters(tower, tower.group_matcher(coarse=True), reverse=True)
    order = {block: number for number, block in enumerate(["stem", *(f"block {n}" for n in range(len(by_timm)))])}
    pairs = sorted({(order[block], by_timm[key]) for key, block in blocks.items() if block != "final"})
    assert len({ours for ours, _ in pairs}) == len({theirs for _, theirs in pairs}) == len(pairs)
    assert [theirs for _, theirs in pairs] == sorted(theirs for _, theirs in pairs)
    assert {by_timm[key] for key, block in blocks.items() if block == "final"} <= {pairs[-1][1], pairs[-1][1] + 1}


def _check_refusal(name: str) -> None:
    embedder, loss = _bare(name), nn.Linear(2, 2)
    why = (
        "timm's group_matcher fails on it"
        if name.startswith("rdnet")
        else "it does not say which parameters make a block"
    )
    with pytest.raises(
        ValueError, match=rf"timm:{name} cannot be layered: {why}.*blockwise_decay=1.*take another trunk"
    ):
        blockwise_groups(embedder, loss, RECIPE)
    # one rate needs no blocks
    groups = blockwise_groups(embedder, loss, replace(RECIPE, blockwise_decay=1.0))
    assert {group["name"]: group["lr"] for group in groups} == {"block 0": 1.0, "head": 3.0, "loss": 5.0}
    grouped = [name for group in groups if group["name"] == "block 0" for name in group["parameters"]]
    assert sorted(grouped) == sorted(name for name, one in embedder.trunk.tower.named_parameters() if one.requires_grad)
    assert block_modules(embedder.trunk) == []


def _check_either(name: str) -> None:
    (_check_refusal if name.startswith(UNLAYERED) else _check)(name)


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_rates_of_one_model_of_every_timm_family(name: str) -> None:
    _check_either(name)


def test_rates_of_models_whose_blocks_are_counted_by_module_or_come_in_several_groups() -> None:
    for name in (
        "twins_svt_small",
        "densenet121",
        "vgg11",
        "dpn68",
        "xcit_nano_12_p8_224",
        "coat_tiny",
        "cait_xxs24_224",
    ):
        _check(name)


@pytest.mark.parametrize("name", ["ViT-B-32", "RN50", "coca_ViT-B-32", "convnext_base", "ViT-B-16-SigLIP"])
def test_rates_of_towers_of_open_clip(name: str) -> None:
    config = open_clip.get_model_config(name)
    with torch.device("meta"), _WithoutNumbers():
        tower = open_clip.model._build_vision_tower(config["embed_dim"], config["vision_cfg"])
    _check_rates(SimpleNamespace(trunk=SimpleNamespace(name=f"open_clip:{name}", tower=tower), head=nn.Linear(2, 2)))


@pytest.mark.nightly
@pytest.mark.parametrize("family", [family for family in FAMILIES if FAMILIES[family]])
def test_rates_of_every_timm_model(family: str) -> None:
    for name in FAMILIES[family]:
        _check_either(name)
