import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from workbench.export.onnx import export_onnx
from workbench.export.randomise import randomise_scales
from workbench.export.sessions import answer_apart
from workbench.models import nvidia
from workbench.models.embedder import Embedder, build_embedder, load_embedder
from workbench.models.fan import FAN, ChannelProcessing, FANBlock, LocalMlp, TokenAttention, fan_base_hybrid
from workbench.models.trunk import build_trunk
from workbench.training.blocks import block_modules, block_of_parameters, blockwise_groups
from workbench.training.recipe import Recipe

NAME = "workbench:fan_base_hybrid"
TINY: dict[str, Any] = {
    "widths": (8, 12),
    "num_convolution_blocks": 1,
    "num_features": 16,
    "num_blocks": 2,
    "num_heads": 2,
}


def tiny_fan(seed: int = 0) -> FAN:
    """A small FAN in evaluation mode; nothing in it is zero or one, so that every part counts."""
    drawn = torch.Generator().manual_seed(seed)
    fan = FAN(**TINY).eval()
    with torch.no_grad():
        for name, value in sorted(fan.state_dict(keep_vars=True).items()):
            if name.endswith("running_var"):
                value.copy_(torch.rand(value.shape, generator=drawn) + 0.5)
            elif value.is_floating_point():
                value.copy_(torch.randn(value.shape, generator=drawn) * 0.3)
    return fan


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trunk's name builds a small FAN."""
    monkeypatch.setattr(nvidia, "fan_base_hybrid", lambda: FAN(**TINY))


def random_module(module: Any, seed: int = 0) -> Any:
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.state_dict(keep_vars=True).values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=drawn) + 0.2)
                value.mul_(torch.where(torch.rand(value.shape, generator=drawn) < 0.5, -1.0, 1.0))
        for name, value in module.named_buffers():
            if name.endswith("running_var"):
                value.abs_()
    return module.eval()


def numbers(value: torch.Tensor) -> np.ndarray:
    return value.detach().double().numpy()


def linear(layer: nn.Module, x: np.ndarray) -> np.ndarray:
    return x @ numbers(layer.get_parameter("weight")).T + numbers(layer.get_parameter("bias"))


def layer_norm(layer: nn.Module, x: np.ndarray, epsilon: float = 1e-6) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return scaled * numbers(layer.get_parameter("weight")) + numbers(layer.get_parameter("bias"))


def softmax(x: list[float]) -> list[float]:
    powers = [math.exp(value - max(x)) for value in x]
    return [value / sum(powers) for value in powers]


def gelu(x: float) -> float:
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


# how large, how many


def test_the_parameters_are_those_of_the_papers_description() -> None:
    c, (narrow, wide) = 448, (128, 256)
    convnext = sum(
        3 * ((49 + 1) * d + 2 * d + (d * 4 * d + 4 * d) + (4 * d * d + d) + d)  # depthwise 7x7, norm, two layers, scale
        for d in (narrow, wide)
    )
    stem = (3 * 16 + 1) * narrow + 2 * narrow + 2 * narrow + (narrow * 4 + 1) * wide + (wide * 4 + 1) * c
    position = (2 * 32 + 1) * c
    attention = 4 * (c + 1) * c
    mlp = (c + 1) * 4 * c + (4 * c + 1) * c
    channels = 8 + (c + 1) * c + mlp + 4 * c + 2 * (9 + 1) * 4 * c + 2 * 4 * c + 2 * c
    fan_block, class_block = attention + channels + 6 * c, attention + mlp + 6 * c
    by_hand = convnext + stem + position + 16 * fan_block + c + 2 * class_block + 2 * c
    with torch.device("meta"):
        counted = sum(value.numel() for value in fan_base_hybrid().parameters())
    assert by_hand == counted == 50_026_048
    assert counted + (448 + 1) * 1000 == 50_475_048  # about 50.5 M with a head of 1000 classes


def test_tokens_and_features_of_the_base_model() -> None:
    with torch.device("meta"):
        fan = fan_base_hybrid().eval()
        for height, width, num_tokens in ((224, 224, 196), (64, 32, 8), (256, 128, 128)):
            images = torch.zeros(2, 3, height, width)
            assert fan.forward_features(images).shape == (2, 1 + num_tokens, 448)
            assert fan(images).shape == (2, 448)
        maps = [images]
        for part in fan.patches:
            maps.append(part(maps[-1]))
    assert [tuple(one.shape[1:]) for one in maps[1:]] == [
        *[(128, 64, 32)] * 4,  # stem, its norm, three blocks, the norm before the next stage
        *[(256, 32, 16)] * 2,
        (448, 16, 8),
    ]
    assert [type(block).__name__ for block in fan.blocks] == ["FANBlock"] * 16 + ["ClassAttentionBlock"] * 2


# each part against plain loops


def test_fourier_encoding_against_plain_loops() -> None:
    fan = tiny_fan()
    rows, columns = 2, 3
    expected = np.zeros((64, rows, columns))
    for row in range(rows):
        for column in range(columns):
            for axis, share in enumerate(((row + 1) / (rows + 1e-6), (column + 1) / (columns + 1e-6))):
                for channel in range(32):
                    angle = 2 * math.pi * share / 10000 ** (2 * (channel // 2) / 32)
                    value = math.sin(angle) if channel % 2 == 0 else math.cos(angle)
                    expected[32 * axis + channel, row, column] = value
    projection = fan.position.token_projection
    weight, bias = numbers(projection.weight)[:, :, 0, 0], numbers(projection.get_parameter("bias"))
    projected = np.einsum("oc,chw->ohw", weight, expected) + bias[:, None, None]
    np.testing.assert_allclose(numbers(fan.position(1, rows, columns))[0], projected, atol=1e-5)


def test_tokens_without_blocks_are_the_convolutions_map_and_its_places_row_by_row() -> None:
    fan = FAN(**{**TINY, "num_blocks": 0}, num_class_blocks=0).eval()
    images = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens = numbers(fan.forward_features(images))
        map_NCHW, place = numbers(fan.patches(images)), numbers(fan.position(1, 2, 3))[0]
    assert np.abs(place).max() > 0.01
    for image in range(2):
        np.testing.assert_allclose(tokens[image, 0], layer_norm(fan.norm, numbers(fan.class_token)[0, 0]), atol=1e-5)
        for row in range(2):
            for column in range(3):
                token = map_NCHW[image, :, row, column] + place[:, row, column]
                np.testing.assert_allclose(
                    tokens[image, 1 + 3 * row + column], layer_norm(fan.norm, token), rtol=1e-4, atol=1e-4
                )


def test_token_attention_against_plain_loops() -> None:
    attention = random_module(TokenAttention(6, 2))
    tokens = np.random.default_rng(0).normal(size=(1, 4, 6)).astype(np.float32)
    query, both = linear(attention.query, tokens[0]), linear(attention.key_value, tokens[0])
    key, value = both[:, :6], both[:, 6:]
    attended = np.zeros((4, 6))
    for head in (slice(0, 3), slice(3, 6)):
        for token in range(4):
            share = softmax([float(query[token, head] @ key[other, head]) / math.sqrt(3) for other in range(4)])
            attended[token, head] = sum(share[other] * value[other, head] for other in range(4))
    with torch.no_grad():
        found = numbers(attention(torch.from_numpy(tokens)))[0]
    np.testing.assert_allclose(found, linear(attention.projection, attended), atol=1e-5)


def _values_by_loops(mlp: LocalMlp, tokens: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    rows, columns = grid
    hidden = linear(mlp.expand, tokens)
    branch = hidden.reshape(rows, columns, -1)
    first, norm, second = (mlp.local.get_submodule(name) for name in ("first", "batch_norm", "second"))

    def depthwise(kernels: nn.Module, x: np.ndarray) -> np.ndarray:
        weight, out = numbers(kernels.get_parameter("weight")), np.zeros_like(x)
        for row in range(rows):
            for column in range(columns):
                for channel in range(x.shape[2]):
                    total = float(numbers(kernels.get_parameter("bias"))[channel])
                    for down in (-1, 0, 1):
                        for right in (-1, 0, 1):
                            if 0 <= row + down < rows and 0 <= column + right < columns:
                                tap = weight[channel, 0, down + 1, right + 1]
                                total += tap * x[row + down, column + right, channel]
                    out[row, column, channel] = total
        return out

    branch = np.vectorize(gelu)(depthwise(first, branch))
    mean, variance = (numbers(norm.get_buffer(name)) for name in ("running_mean", "running_var"))
    branch = (branch - mean) / np.sqrt(variance + 1e-5) * numbers(norm.get_parameter("weight"))
    branch = depthwise(second, branch + numbers(norm.get_parameter("bias")))
    return linear(mlp.contract, hidden + numbers(mlp.gamma) * branch.reshape(len(tokens), -1))


# 8: attention on one token of a head's channel, where softmax before the mean and after it are far apart
@pytest.mark.parametrize("spread", [1.0, 8.0])
def test_channel_processing_against_plain_loops(spread: float) -> None:
    channels = random_module(ChannelProcessing(4, 2), seed=3)
    with torch.no_grad():
        channels.values.contract.weight.mul_(1e-3)  # values as small as the norm's epsilon, so that it counts
        channels.values.contract.bias.zero_()
    grid = (2, 3)
    tokens = (spread * np.random.default_rng(1).normal(size=(6, 4))).astype(np.float32)
    query = linear(channels.query, tokens)
    weight = np.zeros(4)
    for head in range(2):
        of_channels = [softmax([float(value) for value in tokens[:, 2 * head + channel]]) for channel in range(2)]
        key = [(of_channels[0][token] + of_channels[1][token]) / 2 for token in range(6)]
        for channel in (2 * head, 2 * head + 1):
            share = softmax([float(query[token, channel]) for token in range(6)])
            fit = sum(share[token] * key[token] for token in range(6))
            weight[channel] = channels.temperature[head].item() / (1 + math.exp(-fit))
    expected = weight * layer_norm(channels.norm, _values_by_loops(channels.values, tokens, grid), epsilon=1e-5)
    with torch.no_grad():
        found = numbers(channels(torch.from_numpy(tokens)[None], grid))[0]
        np.testing.assert_allclose(numbers(channels.weigh(torch.from_numpy(tokens)[None]))[0, 0], weight, atol=1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_weight_of_channels_that_look_at_different_tokens() -> None:
    # one head of two channels over two tokens; channel a is wholly at token 0, channel b at token 1. Softmax of each, then
    # the mean: key (.5, .5), each product .5, its sigmoid .622459. Of the mean, 50 at both, alike. Then channel b at token 0
    # too: key (1, 0), product 1, .731059. And channel b even: key (.75, .25); products .75 and .5, .679179 and .622459
    channels = ChannelProcessing(2, 1)
    with torch.no_grad():
        channels.query.weight.copy_(torch.eye(2))
        channels.query.bias.zero_()
        found = [
            channels.weigh(100 * torch.tensor([tokens]))[0, 0]
            for tokens in ([[1.0, 0], [0, 1]], [[1.0, 1], [0, 0]], [[1.0, 0], [0, 0]])
        ]
    expected = torch.tensor([[0.622459, 0.622459], [0.731059, 0.731059], [0.679179, 0.622459]])
    torch.testing.assert_close(torch.stack(found), expected, rtol=0, atol=1e-6)


def test_epsilons_of_all_norms() -> None:
    # the values' norm has the paper's authors' 1e-5 and BatchNorm torch's, all others 1e-6
    norms = {name: module for name, module in FAN(**TINY).named_modules() if hasattr(module, "eps")}
    found = {name: norm.eps for name, norm in norms.items() if name != "position"}
    wanted = {"stem_norm": 1e-6, "between_norm": 1e-6}
    wanted = {f"patches.{name}": epsilon for name, epsilon in wanted.items()}
    wanted |= {f"patches.stage_{stage}.0.norm": 1e-6 for stage in (0, 1)}
    for number in (0, 1):
        wanted |= {f"blocks.{number}.token_norm": 1e-6, f"blocks.{number}.channel_norm": 1e-6}
        wanted |= {f"blocks.{number}.channels.norm": 1e-5, f"blocks.{number}.channels.values.local.batch_norm": 1e-5}
        wanted |= {f"blocks.{2 + number}.{name}": 1e-6 for name in ("norm1", "norm2")}
    assert found == wanted | {"norm": 1e-6}


def test_the_weight_of_channels_that_are_the_same_everywhere() -> None:
    # 4 equal tokens: query and key are 1/4 at each, their product 4/16, its sigmoid .562177
    channels = ChannelProcessing(4, 2)
    with torch.no_grad():
        channels.temperature.copy_(torch.tensor([1.0, 3.0])[:, None, None])
        weight = channels.weigh(torch.ones(1, 4, 4))
    torch.testing.assert_close(weight[0, 0], torch.tensor([0.562177, 0.562177, 1.686530, 1.686530]))


def test_class_attention_against_plain_loops() -> None:
    block = random_module(tiny_fan().blocks[2], seed=5)
    tokens = np.random.default_rng(2).normal(size=(5, 16)).astype(np.float32)
    normed = layer_norm(block.norm1, tokens.astype(np.float64))
    query, key, value = (linear(block.attn.get_submodule(name), normed) for name in "qkv")
    attended = np.zeros(16)
    for head in (slice(0, 8), slice(8, 16)):
        share = softmax([float(query[0, head] @ key[token, head]) / math.sqrt(8) for token in range(5)])
        attended[head] = sum(share[token] * value[token, head] for token in range(5))
    gamma1, gamma2 = numbers(block.gamma1), numbers(block.gamma2)
    added = normed.copy()
    added[0] = linear(block.attn.proj, attended)
    expected = layer_norm(block.norm2, tokens + gamma1 * added)
    expected[1:] *= 2  # as XCiT has it; the norm that follows undoes it
    expected[0] += gamma2 * linear(block.mlp.fc2, np.vectorize(gelu)(linear(block.mlp.fc1, expected[0])))
    with torch.no_grad():
        found = numbers(block(torch.from_numpy(tokens)[None]))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_block_adds_scaled_attention_then_scaled_channels() -> None:
    block = random_module(FANBlock(8, 2), seed=7)
    tokens, grid = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0)), (3, 2)
    with torch.no_grad():
        attended = numbers(block.attention(torch.from_numpy(layer_norm(block.token_norm, numbers(tokens))).float()))
        middle = numbers(tokens) + numbers(block.token_gamma) * attended
        normed = torch.from_numpy(layer_norm(block.channel_norm, middle)).float()
        expected = middle + numbers(block.channel_gamma) * numbers(block.channels(normed, grid))
        np.testing.assert_allclose(numbers(block(tokens, grid)), expected, rtol=1e-4, atol=1e-4)


# properties


def test_a_block_knows_places_by_its_local_branch_alone() -> None:
    block = random_module(FANBlock(8, 2))
    tokens = torch.randn(1, 12, 8, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert (block(tokens[:, order], (3, 4)) - block(tokens, (3, 4))[:, order]).abs().max() > 0.1
        block.channels.values.gamma.zero_()
        torch.testing.assert_close(block(tokens[:, order], (3, 4)), block(tokens, (3, 4))[:, order])


def test_the_local_branch_sees_two_tokens_far() -> None:
    mlp = random_module(LocalMlp(4, 6))
    tokens = torch.randn(1, 49, 4, generator=torch.Generator().manual_seed(1))
    changed = tokens.clone()
    changed[0, 3 * 7 + 2] += 1
    with torch.no_grad():
        moved = (mlp(changed, (7, 7)) - mlp(tokens, (7, 7))).abs().amax(2).reshape(7, 7) > 1e-5
    expected = torch.zeros(7, 7, dtype=torch.bool)
    expected[1:6, 0:5] = True
    assert torch.equal(moved, expected)


def test_the_class_feature_does_not_depend_on_the_order_of_tokens() -> None:
    block = random_module(tiny_fan().blocks[3])
    tokens = torch.randn(1, 9, 16, generator=torch.Generator().manual_seed(1))
    order = torch.cat([torch.zeros(1, dtype=torch.long), 1 + torch.randperm(8)])
    with torch.no_grad():
        torch.testing.assert_close(block(tokens[:, order]), block(tokens)[:, order])


def test_answers_in_evaluation_depend_on_the_image_alone() -> None:
    fan = tiny_fan()
    images = torch.randn(3, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = fan(images)
        assert torch.equal(together, fan(images))
        for number in range(3):
            torch.testing.assert_close(fan(images[number : number + 1])[0], together[number], rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_batchnorm_learns_its_statistics_in_training_alone() -> None:
    fan = tiny_fan()
    before = {name: value.clone() for name, value in fan.named_buffers()}
    fan(torch.randn(2, 3, 32, 32))
    assert all(torch.equal(value, before[name]) for name, value in fan.named_buffers())
    fan.train()(torch.randn(2, 3, 32, 32))
    moved = {name for name, value in fan.named_buffers() if not torch.equal(value, before[name])}
    assert moved == set(before)
    assert len(moved) == 3 * 2


def test_gradients_reach_every_parameter() -> None:
    fan, drawn = tiny_fan().double().train(), torch.Generator().manual_seed(0)
    features = fan(torch.randn(4, 3, 32, 48, generator=drawn, dtype=torch.float64))
    (features * torch.randn(features.shape, generator=drawn)).sum().backward()
    sizes = {name: float(value.grad.abs().max()) for name, value in fan.named_parameters() if value.grad is not None}
    assert sizes.keys() == {name for name, _ in fan.named_parameters()}
    # a softmax does not see what is added to all of its inputs: these biases cannot matter, whatever their values
    idle = {f"blocks.{n}.channels.query.bias" for n in (0, 1)} | {f"blocks.{n}.attn.k.bias" for n in (2, 3)}
    largest = max(sizes.values())
    assert {name for name, size in sizes.items() if size < 1e-12 * largest} == idle


def test_half_precision_answers_alike() -> None:
    fan = tiny_fan()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = fan(images)
        for dtype, wanted in ((torch.float16, 0.9999), (torch.bfloat16, 0.995)):
            found = tiny_fan().to(dtype)(images.to(dtype))
            assert found.dtype == dtype
            assert nn.functional.cosine_similarity(found.float(), expected).min() > wanted


def test_scales_start_at_one_and_the_convolutions_as_convnext() -> None:
    for name, value in FAN(**TINY).state_dict().items():
        if name.startswith("blocks") and ("gamma" in name or "temperature" in name):
            assert torch.equal(value, torch.ones_like(value)), name
        elif name.endswith("gamma"):
            torch.testing.assert_close(value, torch.full_like(value, 1e-6))
        elif name.endswith("bias"):
            assert not value.any(), name


# as a trunk


@pytest.mark.usefixtures("tiny")
def test_poolings_are_the_tokens_after_the_norm() -> None:
    images = torch.randn(2, 3, 32, 48)
    features = {}
    for pooling in ("default", "class", "mean", "both"):
        trunk = build_trunk(NAME, "random", (32, 48), pooling, seed=4)
        features[pooling] = trunk(images).detach()
        assert trunk.num_features == features[pooling].shape[1]
    tokens = build_trunk(NAME, "random", (32, 48), seed=4).tower.forward_features(images)  # type: ignore[operator]
    torch.testing.assert_close(features["default"], tokens[:, 0])
    torch.testing.assert_close(features["class"], tokens[:, 0])
    torch.testing.assert_close(features["mean"], tokens[:, 1:].mean(1))
    torch.testing.assert_close(features["both"], torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], dim=1))


@pytest.mark.usefixtures("tiny")
def test_sizes_that_do_not_divide_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"patches of 16x16 px: \(250, 120\) does not divide; nearest: \(256, 128\)"):
        build_trunk(NAME, "random", (250, 120))
    trunk = build_trunk(NAME, "random", (256, 128))
    assert trunk.preprocessing.image_size == (256, 128)
    with pytest.raises(ValueError, match=r"images of \(40, 32\) do not divide"):
        trunk(torch.zeros(1, 3, 40, 32))
    assert build_trunk(NAME, "random").preprocessing.image_size == (224, 224)


@pytest.mark.usefixtures("tiny")
def test_weights_of_one_size_serve_another_and_survive_saving(tmp_path: Path) -> None:
    embedder = build_embedder(NAME, "random", image_size=(48, 32), head="linear", embedding_dim=4, seed=2)
    randomise_scales(embedder)
    loaded = load_embedder(embedder.save(tmp_path / "embedder"))
    images = torch.randn(2, 3, 48, 32)
    with torch.no_grad():
        assert torch.equal(embedder(images), loaded(images))
        larger = loaded(torch.randn(2, 3, 64, 96))
    assert loaded.fingerprint() == embedder.fingerprint()
    torch.testing.assert_close(larger.norm(dim=1), torch.ones(2))


@pytest.mark.usefixtures("tiny")
def test_an_embedder_of_the_earlier_computation_is_another_one_and_is_refused(tmp_path: Path) -> None:
    embedder = build_embedder(NAME, "random", image_size=(32, 32), seed=2)
    now = embedder.fingerprint()
    del embedder.described["trunk_revision"]  # as it was saved before
    assert embedder.fingerprint() != now
    folder = embedder.save(tmp_path / "embedder")
    with pytest.raises(ValueError, match=r"revision None, now 2.*Build it or train it again"):
        load_embedder(folder)


@pytest.mark.usefixtures("tiny")
def test_blockwise_rates_cover_every_parameter_once() -> None:
    embedder = build_embedder(NAME, "random", image_size=(32, 32), head="linear", embedding_dim=4)
    recipe = Recipe("blockwise", num_steps=1, learning_rate_trunk=1.0, blockwise_decay=0.5)
    groups = blockwise_groups(embedder, nn.Linear(4, 3), recipe)
    names = [name for group in groups for name in group["parameters"]]
    assert len(names) == len(set(names)) == len([*embedder.parameters()]) + 2
    rates = {group["name"]: group["lr"] for group in groups if group["name"].startswith(("stem", "block"))}
    assert rates == {"stem": 0.0625, "block 0": 0.125, "block 1": 0.25, "block 2": 0.5, "block 3": 1.0}
    blocks = block_of_parameters(embedder.trunk)
    assert {name for name, block in blocks.items() if block == "final"} == {"norm.weight", "norm.bias"}
    assert {name.split(".")[0] for name, block in blocks.items() if block == "stem"} == {
        "class_token",
        "patches",
        "position",
    }
    assert block_modules(embedder.trunk) == [f"blocks.{number}" for number in range(4)]
    decayed = {name for group in groups for name in group["parameters"] if group["weight_decay"]}
    assert all(name.endswith("weight") for name in decayed)
    assert not [name for name in decayed if "norm" in name]


def _randomised(size: tuple[int, int]) -> Embedder:
    return randomise_scales(build_embedder(NAME, "random", image_size=size, pooling="both", seed=1), seed=2)


def _assert_parity(embedder: Embedder, folder: Path) -> None:
    height, width = embedder.preprocessing.image_size
    rng = np.random.default_rng(0)
    coarse = [torch.from_numpy(rng.random((size, 3, height // 8, width // 8), np.float32)) for size in (1, 3, 8)]
    fed = [nn.functional.interpolate(one, size=(height, width), mode="bilinear").numpy() * 4 - 2 for one in coarse]
    for batch, found in zip(fed, answer_apart(folder / "model.onnx", fed), strict=True):
        with torch.no_grad():
            expected = embedder(torch.from_numpy(batch)).numpy()
        assert np.abs(found - expected).max() <= 1e-5
        assert len(batch) == 1 or np.abs(expected[0] - expected[1]).max() > 1e-3


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_a_small_one_exports_as_torch_at_every_batch(tmp_path: Path) -> None:
    embedder = _randomised((32, 48))
    temperature = embedder.trunk.tower.get_parameter("blocks.0.channels.temperature")
    gamma = embedder.trunk.tower.get_parameter("blocks.3.gamma2")
    assert 0.5 <= temperature.min() < temperature.max() <= 1.5
    assert 0.5 <= gamma.min() < gamma.max() <= 1.5
    _assert_parity(embedder, export_onnx(embedder, tmp_path / "out"))


@pytest.mark.slow
def test_the_base_model_exports_as_torch_in_both_precisions(tmp_path: Path) -> None:
    embedder = _randomised((96, 64))
    assert (embedder.trunk.num_features, embedder.embedding_dim) == (896, 896)
    _assert_parity(embedder, export_onnx(embedder, tmp_path / "fp32"))
    export_onnx(embedder, tmp_path / "fp16", "fp16", "uint8")  # which compares with torch itself
