import json

import open_clip
import pytest
import timm.models
from torch import nn

from workbench.models.embedder import Embedder, build_embedder
from workbench.training.blocks import block_modules, block_of_parameters, blockwise_groups
from workbench.training.recipe import Recipe

RECIPE = Recipe(
    "test", num_steps=10, learning_rate_trunk=1.0, blockwise_decay=0.7, learning_rate_head=3.0, learning_rate_loss=5.0
)


@pytest.fixture(scope="module")
def open_clip_vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
    }
    path = tmp_path_factory.mktemp("architectures") / "blocks-ViT-16.json"
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)
    return "open_clip:blocks-ViT-16"


@pytest.fixture(scope="module")
def open_clip_timm(tmp_path_factory: pytest.TempPathFactory) -> str:
    config = {
        "embed_dim": 16,
        "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear", "image_size": 160},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
    }
    path = tmp_path_factory.mktemp("architectures") / "blocks-timm.json"
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)
    return "open_clip:blocks-timm"


def _rates(embedder: Embedder) -> dict[str, float]:
    return {group["name"]: group["lr"] for group in blockwise_groups(embedder, nn.Linear(2, 2), RECIPE)}


def test_rates_of_an_open_clip_vit(open_clip_vit: str) -> None:
    rates = _rates(build_embedder(open_clip_vit, "random", head="linear"))
    assert rates == pytest.approx(
        {"stem": 0.343, "block 0": 0.49, "block 1": 0.7, "block 2": 1.0, "final": 3.0, "head": 3.0, "loss": 5.0}
    )


def test_parts_of_an_open_clip_vit(open_clip_vit: str) -> None:
    blocks = block_of_parameters(build_embedder(open_clip_vit, "random").trunk)
    stem = {"class_embedding", "positional_embedding", "conv1.weight", "ln_pre.weight", "ln_pre.bias"}
    assert {name for name, block in blocks.items() if block == "stem"} == stem
    assert {name for name, block in blocks.items() if block == "final"} == {"proj", "ln_post.weight", "ln_post.bias"}
    assert all(f".{block[-1]}." in name for name, block in blocks.items() if block.startswith("block"))


def test_rates_of_a_timm_tower_in_open_clip(open_clip_timm: str) -> None:
    embedder = build_embedder(open_clip_timm, "random")
    rates = _rates(embedder)
    depth = len(block_modules(embedder.trunk))
    assert block_modules(embedder.trunk)[0] == "trunk.blocks.0"
    assert rates["stem"] == pytest.approx(0.7**depth)
    assert rates[f"block {depth - 1}"] == 1.0
    assert block_of_parameters(embedder.trunk)["head.proj.weight"] == "final"


def test_rates_of_dinov2() -> None:
    rates = _rates(build_embedder("timm:vit_small_patch14_dinov2", "random", image_size=(28, 28)))
    assert rates["block 11"] == 1.0
    assert rates["block 10"] == pytest.approx(0.7)
    assert rates["block 9"] == pytest.approx(0.49)
    assert rates["block 0"] == pytest.approx(0.01977326743)
    assert rates["stem"] == pytest.approx(0.013841287201)
    assert rates["final"] == 3.0


def test_rates_of_a_convnet_go_by_stages() -> None:
    embedder = build_embedder("timm:resnet10t", "random", image_size=(32, 32))
    assert _rates(embedder) == pytest.approx(
        {"stem": 0.2401, "block 0": 0.343, "block 1": 0.49, "block 2": 0.7, "block 3": 1.0, "loss": 5.0}
    )
    assert block_modules(embedder.trunk) == ["layer1", "layer2", "layer3", "layer4"]


@pytest.mark.parametrize("name", ["timm:test_vit", "timm:test_resnet", "timm:test_convnext", "timm:test_efficientnet"])
def test_order_is_that_of_timms_own_grouping(name: str) -> None:
    # timm counts a final norm with the last block or as a layer of its own, which "final" is here
    trunk = build_embedder(name, "random", image_size=(64, 64) if "vit" not in name else None).trunk
    blocks = block_of_parameters(trunk)
    matcher = trunk.tower.group_matcher(coarse=True)  # type: ignore[operator]
    by_timm = timm.models.group_parameters(trunk.tower, matcher, reverse=True)
    ours = {"stem": -1, **{f"block {number}": number for number in range(30)}}
    pairs = {(ours[block], by_timm[key]) for key, block in blocks.items() if block != "final"}
    assert len({first for first, _ in pairs}) == len({second for _, second in pairs}) == len(pairs)
    assert sorted(pairs) == sorted(pairs, key=lambda pair: pair[1])


@pytest.mark.parametrize(
    "name", ["timm:resnet10t", "timm:vit_small_patch14_dinov2", "timm:test_convnext", "timm:test_efficientnet"]
)
def test_every_parameter_is_in_exactly_one_group(name: str) -> None:
    embedder = build_embedder(name, "random", image_size=(56, 56), head="linear", embedding_dim=4)
    loss = nn.Linear(4, 3)
    groups = blockwise_groups(embedder, loss, RECIPE)
    grouped = sorted(id(parameter) for group in groups for parameter in group["params"])
    assert grouped == sorted(id(parameter) for module in (embedder, loss) for parameter in module.parameters())
    assert len({(group["name"], group["weight_decay"]) for group in groups}) == len(groups)


def test_no_weight_decay_on_norms_biases_tokens_and_class_weights(open_clip_vit: str) -> None:
    for name in (open_clip_vit, "timm:vit_small_patch14_dinov2"):
        embedder = build_embedder(name, "random", image_size=(28, 28) if "timm" in name else None, head="linear")
        decayed = {
            name
            for group in blockwise_groups(embedder, nn.Linear(2, 2), RECIPE)
            for name in group["parameters"]
            if group["weight_decay"]
        }
        assert decayed
        assert all(name.endswith(("weight", "proj")) for name in decayed)
        for word in ("bias", "norm", "ln_", "token", "embedding", "pos_embed", "loss", "gamma"):
            assert not [name for name in decayed if word in name], word


def test_a_trunk_without_blocks_is_refused() -> None:
    embedder = build_embedder("timm:resnet10t", "random", image_size=(32, 32))
    embedder.trunk.tower = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    with pytest.raises(ValueError, match="which parameters make a block"):
        blockwise_groups(embedder, nn.Linear(2, 2), RECIPE)


def test_frozen_parameters_are_left_out() -> None:
    embedder = build_embedder("timm:resnet10t", "random", image_size=(32, 32))
    embedder.trunk.tower.get_parameter("conv1.0.weight").requires_grad_(False)
    names = {name for group in blockwise_groups(embedder, nn.Linear(2, 2), RECIPE) for name in group["parameters"]}
    assert "conv1.0.weight" not in names
    assert "conv1.3.weight" in names
