"""Heads against hand-worked numbers and plain loops; classifiers kept with an embedder."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from workbench.models.classifier import Classifier, empty_classifier
from workbench.models.embedder import Embedder, build_embedder, load_embedder, replace_head
from workbench.models.fan import FAN
from workbench.models.heads import (
    HEAD_KINDS,
    NUM_ADAPTORS,
    BNNeck,
    LocalConceptsAccumulation,
    SerialAdaptors,
    build_head,
    head_outputs,
    takes_map,
)
from workbench.models.maps import last_map
from workbench.models.trunk import Trunk, build_trunk

VIT = "timm:test_vit"
SIZE = (32, 64)  # patches of 16 px: a map of 2x4


def _images(embedder: Embedder, num_images: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num_images, 3, *embedder.preprocessing.image_size, generator=generator)


def _gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


# ---- plain heads


@pytest.mark.parametrize("kind", ["identity", "linear"])
def test_a_plain_head_gives_its_embedding_three_times(kind: str) -> None:
    head, features_NF = build_head(kind, 4), torch.arange(8.0).reshape(2, 4)
    for output in head_outputs(head, features_NF):
        assert torch.equal(output, head(features_NF))


@pytest.mark.parametrize("kind", HEAD_KINDS)
def test_every_head_says_its_widths_and_answers_as_its_outputs_do(kind: str) -> None:
    torch.manual_seed(0)
    width = 8 if kind == "identity" else 5
    head = build_head(kind, 8, None if kind == "identity" else 5).eval()
    outputs = head_outputs(head, torch.randn(3, 8, 2, 2) if takes_map(kind) else torch.randn(3, 8))
    assert outputs.embedding.shape == outputs.metric.shape == (3, width)
    assert outputs.classified.shape == (3, getattr(head, "classified_dim", width))
    assert takes_map(head) == takes_map(kind) == (kind == "lca")


def test_unknown_heads_and_necks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one of identity, linear, bnneck, adaptors, lca; found 'mlp'"):
        build_head("mlp", 8)
    with pytest.raises(ValueError, match="neck_feature is one of after, before; found 'both'"):
        build_head("bnneck", 8, neck_feature="both")


# ---- BNNeck


def test_a_neck_normalises_by_the_batch_while_it_is_trained() -> None:
    neck = BNNeck(2, 2)
    with torch.no_grad():
        neck.norm.weight.copy_(torch.tensor([1.0, 3.0]))
    features_NF = torch.tensor([[1.0, 10.0], [3.0, 30.0]])  # means 2 and 20, variances (of the batch) 1 and 100
    outputs = neck.train().training_outputs(features_NF)
    assert torch.equal(outputs.metric, features_NF)
    torch.testing.assert_close(outputs.classified, torch.tensor([[-1.0, -3.0], [1.0, 3.0]]), rtol=1e-4, atol=0)
    assert torch.equal(outputs.embedding, outputs.classified)
    # momentum 0.1 from mean 0 and variance 1; the unbiased variances are 2 and 200
    assert neck.norm.running_mean is not None
    assert neck.norm.running_var is not None
    torch.testing.assert_close(neck.norm.running_mean, torch.tensor([0.2, 2.0]))
    torch.testing.assert_close(neck.norm.running_var, torch.tensor([1.1, 20.9]))


@pytest.mark.parametrize("neck_feature", ["after", "before"])
def test_a_neck_answers_with_the_side_that_was_chosen(neck_feature: str) -> None:
    torch.manual_seed(0)
    neck, features_NF = BNNeck(4, 3, neck_feature), torch.randn(6, 4)
    neck.train()(features_NF)
    neck.eval()
    outputs = neck.training_outputs(features_NF)
    assert torch.equal(outputs.metric, neck.reduce(features_NF))
    assert neck.norm.running_mean is not None
    assert neck.norm.running_var is not None
    expected = (outputs.metric - neck.norm.running_mean) / torch.sqrt(neck.norm.running_var + neck.norm.eps)
    torch.testing.assert_close(outputs.classified, expected)
    assert torch.equal(outputs.embedding, outputs.classified if neck_feature == "after" else outputs.metric)
    assert torch.equal(neck(features_NF), outputs.embedding)


def test_a_neck_has_no_bias_that_could_be_trained_and_reduces_only_where_it_must() -> None:
    assert set(dict(BNNeck(4, 4).named_parameters())) == {"norm.weight"}
    assert set(dict(BNNeck(4, 3).named_parameters())) == {"norm.weight", "reduce.weight", "reduce.bias"}
    assert BNNeck(4, 4).norm.bias is None
    neck = BNNeck(2, 2).train()
    loss = (neck(torch.tensor([[1.0, 2.0], [2.0, 5.0], [4.0, 1.0]])) - 7).square().sum()
    loss.backward()
    with torch.no_grad():
        for parameter in neck.requires_grad_(True).parameters():
            assert parameter.grad is not None
            parameter.sub_(0.1 * parameter.grad)
    after_ND = neck(torch.randn(50, 2))
    torch.testing.assert_close(after_ND.mean(dim=0), torch.zeros(2), rtol=0, atol=1e-5)  # still about the origin


# ---- adaptors


def test_adaptors_by_hand() -> None:
    head = SerialAdaptors(2, 1)
    steps = [((1.0, 0.0), (0.5, 0.0)), ((0.0, 1.0), (0.0, -1.0)), ((1.0, 1.0), (0.1, 0.2)), ((-1.0, 0.0), (1.0, 1.0))]
    x, y = 1.0, -2.0
    for module, (down, up) in zip(head.adaptors, steps, strict=True):
        with torch.no_grad():
            module.down.weight.copy_(torch.tensor([down]))  # type: ignore[union-attr,operator]
            module.down.bias.fill_(0.25)  # type: ignore[union-attr,operator]
            module.up.weight.copy_(torch.tensor(up)[:, None])  # type: ignore[union-attr,operator]
            module.up.bias.copy_(torch.tensor([0.0, 0.5]))  # type: ignore[union-attr,operator]
        hidden = _gelu(down[0] * x + down[1] * y + 0.25)
        x, y = x + up[0] * hidden, y + up[1] * hidden + 0.5
    with torch.no_grad():
        head.project.weight.copy_(torch.tensor([[2.0, -1.0]]))
        head.project.bias.fill_(0.5)
    outputs = head.training_outputs(torch.tensor([[1.0, -2.0]]))
    assert outputs.classified.tolist()[0] == pytest.approx([x, y], rel=1e-5)
    mean, half = (x + y) / 2, abs(x - y) / 2
    normed = [(value - mean) / math.sqrt(half**2 + 1e-5) for value in (x, y)]
    assert outputs.embedding.tolist() == [[pytest.approx(2 * normed[0] - normed[1] + 0.5, rel=1e-5)]]
    assert torch.equal(outputs.embedding, outputs.metric)
    assert torch.equal(head(torch.tensor([[1.0, -2.0]])), outputs.embedding)


def test_adaptors_start_by_changing_nothing_and_can_then_learn() -> None:
    torch.manual_seed(0)
    head, features_NF = SerialAdaptors(8, 3), torch.randn(4, 8)
    outputs = head.training_outputs(features_NF)
    assert torch.equal(outputs.classified, features_NF)
    expected = head.project((features_NF - features_NF.mean(1, keepdim=True)) / torch.sqrt(
        features_NF.var(1, keepdim=True, unbiased=False) + 1e-5
    ))  # fmt: skip
    torch.testing.assert_close(outputs.embedding, expected)
    outputs.classified.square().sum().backward()
    assert all(float(module.up.weight.grad.abs().sum()) > 0 for module in head.adaptors)  # type: ignore[union-attr,operator]
    assert len(head.adaptors) == NUM_ADAPTORS == 4
    assert head.adaptors[0].down.weight.shape == (4, 8)  # type: ignore[union-attr]


# ---- LCA


def _lca_by_loops(map_CHW: np.ndarray, weight_DC: np.ndarray, bias_D: np.ndarray) -> np.ndarray:
    _, height, width = map_CHW.shape
    answers = []
    for rows in range(1, height + 1):
        for columns in range(1, width + 1):
            if rows * columns == 1:
                continue
            for top in range(height - rows + 1):
                for left in range(width - columns + 1):
                    pooled_C = map_CHW[:, top : top + rows, left : left + columns].mean(axis=(1, 2))
                    answers.append(np.maximum(weight_DC @ pooled_C + bias_D, 0))
    assert len(answers) == (height * (height + 1) // 2) * (width * (width + 1) // 2) - height * width
    return np.mean(answers, axis=0)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_lca_against_loops_over_windows(height: int, width: int, seed: int) -> None:
    if height * width == 1:
        width = 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head, map_NCHW = LocalConceptsAccumulation(3, 4), torch.randn(2, 3, height, width)
    weight_DC, bias_D = (parameter.detach().double().numpy() for parameter in head.layer.parameters())
    found_ND = head(map_NCHW).detach().numpy()
    for found_D, map_CHW in zip(found_ND, map_NCHW.double().numpy(), strict=True):
        assert found_D == pytest.approx(_lca_by_loops(map_CHW, weight_DC, bias_D), rel=1e-4, abs=1e-6)


def test_lca_by_hand() -> None:
    head = LocalConceptsAccumulation(1, 1)
    with torch.no_grad():
        head.layer.weight.fill_(1.0)
        head.layer.bias.fill_(-1.0)
    # windows of [[0, 2, 4]]: 1x2 at two places, means 1 and 3, and 1x3, mean 2; less 1, ReLU: 0, 2, 1
    assert head(torch.tensor([[[[0.0, 2.0, 4.0]]]])).tolist() == [[1.0]]
    # a map of one place has no larger window: ReLU(5 - 1)
    assert head(torch.tensor([[[[5.0]]]])).tolist() == [[4.0]]


# ---- maps of trunks


TRUNKS: dict[str, tuple[tuple[int, int], tuple[int, int, int]]] = {
    "timm:test_resnet": ((64, 96), (0, 2, 3)),
    "timm:test_vit": ((32, 48), (64, 2, 3)),
    "open_clip:ViT-S-32-alt": ((64, 96), (384, 2, 3)),
}


@pytest.fixture(scope="module", params=TRUNKS)
def trunk(request: pytest.FixtureRequest) -> Trunk:
    pooling = "default" if "resnet" in request.param else "both"
    return build_trunk(request.param, "random", TRUNKS[request.param][0], pooling)


def test_the_last_map_of_a_trunk_is_what_it_pools(trunk: Trunk) -> None:
    size, shape = TRUNKS[trunk.name]
    images_NCHW = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        map_NCHW, features_NF = trunk.feature_map(images_NCHW), trunk(images_NCHW)
    shape = (map_NCHW.shape[1], *shape[1:]) if "resnet" in trunk.name else shape
    assert map_NCHW.shape == (2, *shape)
    assert trunk.count_map_channels() == shape[0]
    # a convnet's features are the mean of its map; with `both` the class token stands before the mean
    torch.testing.assert_close(map_NCHW.mean(dim=(2, 3)), features_NF[:, -shape[0] :])


def test_tokens_lie_in_the_map_where_their_patches_lie_in_the_image(trunk: Trunk) -> None:
    size, _ = TRUNKS[trunk.name]
    images_NCHW = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    changed = images_NCHW.clone()
    changed[:, :, : size[0] // 2, -size[1] // 3 :] += 5  # the last patch of the first row of three
    with torch.no_grad():
        moved_HW = (trunk.feature_map(changed) - trunk.feature_map(images_NCHW)).square().sum(dim=(0, 1))
    assert int(moved_HW.argmax()) == 2


def test_maps_with_channels_last_and_of_fan() -> None:
    swin = SwinTransformer(
        (32, 64), 4, num_classes=0, embed_dim=8, depths=(1, 1), num_heads=(2, 2), window_size=4
    ).eval()
    fan = FAN((8, 8), 1, 16, 1, 1, 2).eval()
    images_NCHW = torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        map_NCHW = last_map("swin", swin, images_NCHW)
        assert map_NCHW.shape == (2, 16, 4, 8)
        torch.testing.assert_close(map_NCHW.mean(dim=(2, 3)), swin(images_NCHW))
        map_NCHW = last_map("fan", fan, images_NCHW)
        assert map_NCHW.shape == (2, 16, 2, 4)
        assert torch.equal(map_NCHW[:, :, 1, 2], fan.forward_features(images_NCHW)[:, 1 + 4 + 2])


def test_tokens_that_are_no_map_are_refused() -> None:
    with pytest.raises(ValueError, match=r"levit_128s gives 16 tokens, which are no map"):
        build_embedder("timm:levit_128s", "random", head="lca")


# ---- embedders with these heads

HEADS: dict[str, dict[str, Any]] = {
    "bnneck after": {"head": "bnneck"},
    "bnneck before": {"head": "bnneck", "embedding_dim": 16, "neck_feature": "before"},
    "adaptors": {"head": "adaptors", "embedding_dim": 16},
    "lca": {"head": "lca", "embedding_dim": 16},
}


@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS.keys())
def test_an_embedder_with_a_classifier_is_kept_bit_for_bit(options: dict[str, Any], tmp_path: Path) -> None:
    embedder = build_embedder(VIT, "random", image_size=SIZE, seed=3, **options)
    width = embedder.classified_dim
    assert width == {"bnneck": embedder.embedding_dim, "adaptors": 64, "lca": 16}[options["head"]]
    with torch.no_grad():  # so that nothing stands at its start
        for tensor in embedder.head.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=torch.Generator().manual_seed(1)))
    bare = embedder.fingerprint()
    weight = torch.randn(3, 2, width, generator=torch.Generator().manual_seed(2))
    embedder.attach_classifier(Classifier(weight, cosine=True, scale=64.0), ["ä", "b", "c"])
    loaded = load_embedder(embedder.save(tmp_path / "embedder"))
    images_NCHW = _images(embedder)
    with torch.no_grad():
        assert torch.equal(loaded(images_NCHW), embedder(images_NCHW))
        for found, expected in zip(loaded.outputs(images_NCHW), embedder.outputs(images_NCHW), strict=True):
            assert torch.equal(found, expected)
        probability_NC = embedder.classify(images_NCHW)
        assert torch.equal(loaded.classify(images_NCHW), probability_NC)
    torch.testing.assert_close(probability_NC.sum(dim=1), torch.ones(3))
    assert loaded.classes == ("ä", "b", "c")
    assert loaded.fingerprint() == embedder.fingerprint() != bare
    loaded.attach_classifier(None)
    assert loaded.fingerprint() == bare
    assert load_embedder(loaded.save(tmp_path / "bare")).classifier is None


def test_forward_is_the_embedding_at_length_one() -> None:
    for options in HEADS.values():
        embedder = build_embedder(VIT, "random", image_size=SIZE, **options)
        with torch.no_grad():
            outputs, embedding_ND = embedder.outputs(_images(embedder)), embedder(_images(embedder))
        torch.testing.assert_close(embedding_ND, nn.functional.normalize(outputs.embedding, dim=1))
        assert not torch.allclose(outputs.embedding.norm(dim=1), torch.ones(3))


def test_a_folder_from_before_there_were_classifiers_loads(tmp_path: Path) -> None:
    """Its config has neither classifier nor classes nor neck_feature, and its fingerprint is over just that."""
    embedder = build_embedder("timm:resnet10t", "random", head="linear", embedding_dim=16)
    folder = embedder.save(tmp_path / "embedder")
    config = json.loads((folder / "config.json").read_text())
    old = {"format_version", "trunk", "pooling", "head", "num_features", "embedding_dim", "preprocessing"}
    assert set(config) == {*old, "fingerprint", "provenance"}
    loaded = load_embedder(folder)
    assert loaded.classifier is None
    assert loaded.classes == ()
    with pytest.raises(ValueError, match="has no classifier"):
        loaded.classify(_images(loaded))


def test_a_new_head_takes_the_classifier_of_the_old_one_off() -> None:
    embedder = build_embedder(VIT, "random", image_size=SIZE, head="bnneck", neck_feature="before", embedding_dim=8)
    embedder.attach_classifier(Classifier(torch.ones(2, 8)), ["a", "b"])
    replace_head(embedder, "lca", 6, seed=4)
    fresh = build_embedder(VIT, "random", image_size=SIZE, head="lca", embedding_dim=6, seed=4)
    assert embedder.classifier is None
    assert embedder.classes == ()
    assert embedder.embedding_dim == 6
    assert embedder.described == fresh.described
    assert torch.equal(embedder.head.state_dict()["layer.weight"], fresh.head.state_dict()["layer.weight"])


def test_lca_takes_the_map_s_channels_where_a_projection_follows() -> None:
    embedder = build_embedder("open_clip:ViT-S-32-alt", "random", image_size=(64, 64), head="lca")
    assert embedder.described["num_features"] == 256
    assert embedder.embedding_dim == 384
    with torch.no_grad():
        assert embedder(_images(embedder)).shape == (3, 384)


# ---- the classifier


def test_a_linear_classifier_by_hand() -> None:
    classifier = Classifier(torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([0.5, 0.0]), scale=2.0)
    assert classifier(torch.tensor([[3.0, 1.0]])).tolist() == [[11.0, -2.0]]


def test_a_cosine_classifier_by_hand() -> None:
    classifier = Classifier(torch.tensor([[3.0, 4.0], [0.0, -2.0]]), cosine=True, scale=10.0)
    torch.testing.assert_close(classifier(torch.tensor([[5.0, 0.0]])), torch.tensor([[6.0, 0.0]]))
    torch.testing.assert_close(classifier(torch.tensor([[0.0, 0.5]])), torch.tensor([[8.0, -10.0]]))
    nearest = Classifier(torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [3.0, 4.0]]]), cosine=True)
    torch.testing.assert_close(nearest(torch.tensor([[0.0, 2.0]])), torch.tensor([[1.0, 0.8]]))


def test_classifiers_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"weight is \[C, K\]"):
        Classifier(torch.ones(2, 3, 4))
    with pytest.raises(ValueError, match=r"weight is \[C, K\]"):
        Classifier(torch.ones(0, 4))
    with pytest.raises(ValueError, match="bias is"):
        Classifier(torch.ones(2, 4), torch.ones(3))
    with pytest.raises(ValueError, match="not for cosine"):
        Classifier(torch.ones(2, 4), torch.ones(2), cosine=True)
    with pytest.raises(ValueError, match="scale is above 0"):
        Classifier(torch.ones(2, 4), scale=0.0)
    embedder = build_embedder(VIT, "random", image_size=SIZE)
    for classes in (["a"], ["a", "a"], ["a", "b", "c"]):
        with pytest.raises(ValueError, match="2 classes want as many different names"):
            embedder.attach_classifier(Classifier(torch.ones(2, 64)), classes)
    with pytest.raises(ValueError, match="takes 4 features, the head gives 64"):
        embedder.attach_classifier(Classifier(torch.ones(2, 4)), ["a", "b"])


@pytest.mark.parametrize(("bias", "cosine"), [(True, False), (False, False), (False, True)])
def test_a_described_classifier_is_rebuilt(bias: bool, cosine: bool) -> None:
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    classifier = Classifier(weight, torch.arange(3.0) if bias else None, cosine=cosine, scale=2.5)
    again = empty_classifier(json.loads(json.dumps(classifier.describe())))
    again.load_state_dict(classifier.state_dict())
    assert torch.equal(again(weight), classifier(weight))
    assert not list(classifier.parameters())  # nothing that an optimiser could take
