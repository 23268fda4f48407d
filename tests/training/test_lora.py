import copy
from pathlib import Path

import open_clip
import pytest
import torch
from small_sets import draw_catalog

from workbench.models.embedder import build_embedder, load_embedder
from workbench.models.trunk import Trunk, build_trunk
from workbench.training.blocks import blockwise_groups
from workbench.training.loop import train
from workbench.training.lora import add_lora, merge_lora
from workbench.training.losses import build_loss
from workbench.training.memory import estimate_memory
from workbench.training.recipes import choose_recipe

TINY_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture
def tiny_clip(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", TINY_CLIP)
    return "open_clip:tiny"


def _move_adapters(trunk: Trunk) -> list[str]:
    """Gives every trainable weight another value, as a training would; their names."""
    generator = torch.Generator().manual_seed(1)
    moved = {name: p for name, p in trunk.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for parameter in moved.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return list(moved)


# pit does not say which parameters make a block
@pytest.mark.parametrize("name", ["timm:test_vit", "open_clip:tiny", "timm:pit_ti_224"])
def test_an_update_starts_at_nothing_and_is_merged_without_a_trace(name: str, tiny_clip: str) -> None:
    trunk = build_trunk(name, "random", (32, 32))
    images_NCHW = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = copy.deepcopy(trunk.state_dict())
    with torch.no_grad():
        plain = trunk(images_NCHW)
        add_lora(trunk, rank=2, alpha=8, seed=0)
        torch.testing.assert_close(trunk(images_NCHW), plain, rtol=1e-5, atol=1e-5)
        moved = _move_adapters(trunk)
        updated = trunk(images_NCHW)
        merge_lora(trunk)
        merged = trunk(images_NCHW)
    assert moved
    assert all(".lora_A." in name or ".lora_B." in name for name in moved)
    assert (updated - plain).abs().max() > 0.01
    torch.testing.assert_close(merged, updated, rtol=1e-5, atol=1e-5)
    after = trunk.state_dict()
    assert list(after) == list(before)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    projections = ("attn.qkv.weight", "attn.proj.weight", "attn.in_proj_weight", "attn.out_proj.weight")
    assert changed == {key for key in before if key.endswith(projections)}
    assert len(changed) == len(moved) / 2
    assert [type(module) for module in trunk.modules()] == [
        type(module) for module in build_trunk(name, "random", (32, 32)).modules()
    ]
    assert all(parameter.requires_grad for parameter in trunk.parameters())


def test_the_merged_weight_is_the_formula(tiny_clip: str) -> None:
    trunk = build_trunk(tiny_clip, "random", (32, 32))
    key = "tower.transformer.resblocks.1.attn"
    weight = trunk.get_parameter(f"{key}.in_proj_weight").detach().clone()
    add_lora(trunk, rank=2, alpha=6, seed=0)
    _move_adapters(trunk)
    down, up = (trunk.get_parameter(f"{key}.qkv.lora_{part}.default.weight").detach() for part in "AB")
    assert down.shape == (2, 64)
    expected = weight + 6 / 2 * up @ down
    merge_lora(trunk)
    torch.testing.assert_close(trunk.get_parameter(f"{key}.in_proj_weight").detach(), expected)


def test_the_seed_decides_the_updates_and_nothing_else() -> None:
    torch.manual_seed(3)
    first = []
    for seed in (0, 0, 1):
        trunk = build_trunk("timm:test_vit", "random", (32, 32))
        add_lora(trunk, rank=2, alpha=8, seed=seed)
        first.append(trunk.get_parameter("tower.blocks.0.attn.qkv.lora_A.default.weight").detach())
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("timm:test_resnet", "BatchNorm"),
        ("timm:test_convnext", "has none in its blocks"),
        ("timm:eva02_tiny_patch14_224", "no effect"),  # computes with qkv.weight itself, the layer is never called
    ],
)
def test_what_cannot_be_wrapped_is_refused_and_left_as_it_was(name: str, why: str) -> None:
    trunk = build_trunk(name, "random", (28, 28) if "eva" in name else None)
    names = list(trunk.state_dict())
    with pytest.raises(ValueError, match=why):
        add_lora(trunk, rank=2, alpha=8, seed=0)
    assert list(trunk.state_dict()) == names
    assert all(parameter.requires_grad for parameter in trunk.parameters())


def test_twice_or_never_is_refused() -> None:
    trunk = build_trunk("timm:test_vit", "random", (32, 32))
    with pytest.raises(ValueError, match="no low-rank updates"):
        merge_lora(trunk)
    add_lora(trunk, rank=2, alpha=8, seed=0)
    with pytest.raises(ValueError, match="already"):
        add_lora(trunk, rank=2, alpha=8, seed=0)


def test_adapters_have_the_rates_of_their_blocks() -> None:
    embedder = build_embedder("timm:test_vit", "random", image_size=(32, 32), head="linear", embedding_dim=8)
    recipe = choose_recipe("lora", num_steps=5, blockwise_decay=0.5, learning_rate_trunk=0.4, weight_decay=0.1)
    add_lora(embedder.trunk, 2, 8, 0)
    groups = blockwise_groups(embedder, build_loss(recipe, 3, 8), recipe)
    rates = {group["name"]: group["lr"] for group in groups if group["name"].startswith("block")}
    top = len(rates) - 1
    assert top >= 1
    assert rates == {f"block {number}": pytest.approx(0.4 * 0.5 ** (top - number)) for number in range(top + 1)}
    for group in groups:
        if group["name"] in rates:
            assert group["weight_decay"] == 0.1
            assert all("lora_" in name for name in group["parameters"])
            assert len(group["parameters"]) == 4  # A and B of qkv and of proj
    assert {group["name"] for group in groups} == {*rates, "head", "loss"}


def test_memory_counts_the_updates_alone() -> None:
    embedder = build_embedder("timm:test_vit", "random", image_size=(32, 32))
    recipe = choose_recipe("lora", num_steps=5, batch_size=8)
    full = estimate_memory(embedder, recipe, num_classes=4)
    add_lora(embedder.trunk, 2, 8, 0)
    num_updates = sum(p.numel() for p in embedder.parameters() if p.requires_grad)
    needed = estimate_memory(embedder, recipe, num_classes=4)
    assert needed["gradients"] == pytest.approx((num_updates + 4 * 64) * 4 / 2**20)
    assert needed["gradients"] < full["gradients"] / 10


@pytest.mark.parametrize("name", ["timm:test_vit", "open_clip:tiny"])
def test_training_moves_the_updates_alone_and_leaves_a_plain_embedder(
    name: str, tiny_clip: str, tmp_path: Path
) -> None:
    pictures = draw_catalog(tmp_path / "set", num_classes=4, num_train=6, num_val=2, px=32)
    embedder = build_embedder(name, "random", image_size=(32, 32), head="linear", embedding_dim=8)
    recipe = choose_recipe(
        "lora",
        **{"num_steps": 8, "warmup_steps": 1, "batch_size": 8, "num_workers": 0, "checkpoint_interval": 4},  # type: ignore[arg-type]
        **{"learning_rate_trunk": 1e-2, "learning_rate_head": 3e-3, "learning_rate_loss": 1e-2},  # type: ignore[arg-type]
        gradient_checkpointing=True,
        ema_decay=0.5,
        validation_interval=4,
    )
    args = (recipe, embedder, pictures.select("train"), pictures.select("val"), tmp_path / "run")
    result = train(*args, log=lambda line: None)
    assert result.history["loss"].tail(3).mean() < 0.92 * result.history["loss"].head(3).mean()
    (path,) = (tmp_path / "run" / "checkpoints").glob("checkpoint_00000008_*")
    saved = torch.load(path, weights_only=True)
    start = {f"embedder.{key}": value for key, value in embedder.state_dict().items()}
    for part in ("model", "average"):
        frozen = {
            key.replace(".base_layer.", "."): value
            for key, value in saved[part].items()
            if key.startswith("embedder.trunk.") and ".lora_" not in key
        }
        plain = {key.replace("attn.in_proj_", "attn.qkv.").replace("out_proj", "proj"): start[key] for key in start}
        assert {key for key in plain if ".trunk." in key} == set(frozen)
        assert [key for key, value in frozen.items() if not torch.equal(value, plain[key])] == []
    folder = tmp_path / "run" / "embedder"
    again = load_embedder(folder)
    assert again.fingerprint() == result.embedder.fingerprint() != embedder.fingerprint()
    assert list(again.trunk.state_dict()) == list(embedder.trunk.state_dict())
    images_NCHW = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(again(images_NCHW), result.embedder(images_NCHW))
        assert not torch.allclose(again(images_NCHW), embedder(images_NCHW), atol=1e-2)
    assert train(*args, log=lambda line: None).embedder.fingerprint() == again.fingerprint()  # finds it, trains no more
