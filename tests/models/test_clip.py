"""open_clip's towers against open_clip's own models: activation by tag, every kind of tower, other sizes."""

import copy
import json
from pathlib import Path
from typing import Any

import open_clip
import open_clip.model
import open_clip.pretrained
import pytest
import torch
from open_clip.transformer import QuickGELU
from tiny_clip import TINY
from torch import nn

from workbench.models.clip import build_clip, swaps_activation
from workbench.models.embedder import build_embedder, load_embedder
from workbench.models.text import build_text_tower, check_same_space
from workbench.models.trunk import build_trunk
from workbench.retrieval.recognise import describe_embedder

TIMM = {**TINY, "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "token", "image_size": 160}}
COCA = {
    **TINY,
    "vision_cfg": {**TINY["vision_cfg"], "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},  # type: ignore[dict-item]
    "text_cfg": {**TINY["text_cfg"], "embed_cls": True, "output_tokens": True},  # type: ignore[dict-item]
    "multimodal_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    "custom_text": True,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "tiny": dict(TINY),
    "tiny-quickgelu": {**TINY, "quick_gelu": True},
    "tiny-resnet": {**TINY, "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}},
    "tiny-timm": TIMM,
    "tiny-coca": COCA,
}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Architectures small enough for tests; the tag `quick` of each wants QuickGELU, and its weights lie in `whole.pth`."""
    for name, config in ARCHITECTURES.items():
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
        tag = {"file": str(tmp_path / "whole.pth"), "quick_gelu": True}
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, {"quick": tag})


def _save_whole(name: str, path: Path, **options: Any) -> nn.Module:
    """open_clip's own model with random weights, which are put into the file."""
    torch.manual_seed(5)
    whole: nn.Module = open_clip.create_model(name, **options).eval()
    with torch.no_grad():
        for value in whole.parameters():
            value.normal_(0, 0.5)  # wide enough for the two activations to differ
    torch.save(whole.state_dict(), path)
    return whole


def _features(model: nn.Module, images_NCHW: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        features: torch.Tensor = model(images_NCHW)
    return features


@pytest.mark.parametrize("weights", ["pretrained", "file", "random"])
def test_a_tower_has_the_activation_that_its_tag_wants(weights: str, tmp_path: Path) -> None:
    path = tmp_path / "whole.pth"
    quick = _save_whole("tiny", path, force_quick_gelu=True)
    plain = open_clip.create_model("tiny", pretrained=str(path)).eval()
    given = str(path) if weights == "file" else weights
    trunk = build_trunk("open_clip:tiny/quick", given)
    if weights == "random":
        trunk.tower.load_state_dict(quick.get_submodule("visual").state_dict())
    images_NCHW = torch.randn(2, 3, 32, 32)
    expected, other = (_features(model.get_submodule("visual"), images_NCHW) for model in (quick, plain))
    torch.testing.assert_close(_features(trunk, images_NCHW), expected)
    assert (expected - other).abs().max() > 0.01
    untagged = build_trunk("open_clip:tiny", str(path))
    torch.testing.assert_close(_features(untagged, images_NCHW), other)


def test_a_text_tower_has_the_activation_that_its_tag_wants(tmp_path: Path) -> None:
    quick: Any = _save_whole("tiny", tmp_path / "whole.pth", force_quick_gelu=True)
    sentences = ["a pear", "one two three"]
    tokens_NL = open_clip.get_tokenizer("tiny")(sentences)
    with torch.no_grad():
        expected_ND = quick.encode_text(tokens_NL, normalize=True).numpy()
    for weights in ("pretrained", str(tmp_path / "whole.pth")):
        found_ND = build_text_tower("open_clip:tiny/quick", weights).embed(sentences)
        assert found_ND == pytest.approx(expected_ND, abs=1e-5)
    plain_ND = build_text_tower("open_clip:tiny", str(tmp_path / "whole.pth")).embed(sentences)
    assert abs(plain_ND - expected_ND).max() > 0.001


def test_every_tag_of_open_clip_gets_the_activation_that_it_wants() -> None:
    differing = [
        (architecture, tag)
        for architecture, tag in open_clip.list_pretrained()
        if architecture not in ARCHITECTURES
        and bool(open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu"))
        != bool(open_clip.get_model_config(architecture).get("quick_gelu"))
    ]
    assert len(differing) == 28
    swapped = 0
    for architecture, tag in differing:
        name = f"{architecture}/{tag}"
        with torch.device("meta"):  # shapes only
            tower, _ = build_clip(name, "random", None, swaps_activation(f"open_clip:{name}"))
        activations = {type(module) for path, module in tower.named_modules() if path.endswith("mlp.gelu")}
        # a ResNet's image tower has ReLU alone; the tag of roberta-ViT-B-32 is silent, and its architecture wants QuickGELU
        assert activations == (set() if architecture.startswith("RN") else {QuickGELU}), name
        swapped += swaps_activation(f"open_clip:{name}")
    assert swapped == 28 - 8 - 1


def test_the_activation_is_part_of_an_embedders_identity(tmp_path: Path) -> None:
    quick = build_embedder("open_clip:tiny/quick", "random")
    plain = build_embedder("open_clip:tiny/quick", "random", quick_gelu=False)
    assert quick.fingerprint() != plain.fingerprint()
    assert quick.weights_sha256() == plain.weights_sha256()
    assert "open_clip:tiny/quick with QuickGELU" in describe_embedder(quick)
    assert "QuickGELU" not in describe_embedder(plain)
    folder = quick.save(tmp_path / "quick")
    assert json.loads((folder / "config.json").read_text())["quick_gelu"] is True
    images_NCHW = torch.randn(2, 3, 32, 32)
    assert torch.equal(_features(load_embedder(folder), images_NCHW), _features(quick, images_NCHW))
    # where the architecture has it, or the image tower has no such activation, older fingerprints stay valid
    for name in ("tiny-quickgelu/quick", "tiny-resnet/quick", "tiny-timm/quick"):
        assert "quick_gelu" not in build_embedder(f"open_clip:{name}", "random").described, name


def test_a_folder_of_an_older_workbench_answers_as_it_did(tmp_path: Path) -> None:
    old = build_embedder("open_clip:tiny/quick", "random", quick_gelu=False)  # what it built, and wrote no word of
    folder = old.save(tmp_path / "old")
    assert "quick_gelu" not in json.loads((folder / "config.json").read_text())
    with pytest.warns(UserWarning, match=r"built with GELU.*trained with QuickGELU"):
        loaded = load_embedder(folder)
    images_NCHW = torch.randn(2, 3, 32, 32)
    assert torch.equal(_features(loaded, images_NCHW), _features(old, images_NCHW))
    text = build_text_tower("open_clip:tiny/quick", "random")
    check_same_space(build_embedder("open_clip:tiny/quick", "random"), text)
    with pytest.raises(ValueError, match="quick_gelu False in place of True"):
        check_same_space(loaded, text)


def test_coca_gives_its_image_embedding(tmp_path: Path) -> None:
    whole: Any = _save_whole("tiny-coca", tmp_path / "whole.pth")
    images_NCHW = torch.randn(2, 3, 32, 32)
    trunk = build_trunk("open_clip:tiny-coca", str(tmp_path / "whole.pth"))
    with torch.no_grad():
        torch.testing.assert_close(trunk(images_NCHW), whole.encode_image(images_NCHW, normalize=False))
        text = build_text_tower("open_clip:tiny-coca", str(tmp_path / "whole.pth"))
        tokens_NL = text.tokenize(["a pear", "milk"])
        torch.testing.assert_close(text(tokens_NL), whole.encode_text(tokens_NL))
    with pytest.raises(
        ValueError, match="tiny-coca pools its tokens by attention before its final norm: use pooling 'd"
    ):
        build_trunk("open_clip:tiny-coca", "random", pooling="mean")
    with pytest.raises(ValueError, match="no head that takes a map"):
        trunk.feature_map(images_NCHW)


def test_timm_towers_of_open_clip_have_the_poolings_of_their_tokens() -> None:
    trunk = build_trunk("open_clip:tiny-timm", "random", pooling="both")
    images_NCHW = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        tokens_NTC = trunk.tower.get_submodule("trunk").forward_features(images_NCHW)  # type: ignore[operator]
        expected = torch.cat([tokens_NTC[:, 0], tokens_NTC[:, 1:].mean(dim=1)], dim=1)
    torch.testing.assert_close(_features(trunk, images_NCHW), expected)
    assert tokens_NTC.shape[1] == 1 + 10 * 10


@pytest.mark.parametrize(("name", "size"), [("tiny", (48, 80)), ("tiny-timm", (96, 128))])
def test_local_weights_are_interpolated_to_another_size_as_open_clip_does(
    name: str, size: tuple[int, int], tmp_path: Path
) -> None:
    path = str(tmp_path / "whole.pth")
    _save_whole(name, tmp_path / "whole.pth")
    there = open_clip.create_model(name, pretrained=path, force_image_size=size).eval().visual
    images_NCHW = torch.randn(2, 3, *size)
    trunk = build_trunk(f"open_clip:{name}", path, image_size=size)
    torch.testing.assert_close(_features(trunk, images_NCHW), _features(there, images_NCHW))
    assert trunk.preprocessing.image_size == size


def test_local_resnets_are_interpolated_to_another_size(tmp_path: Path) -> None:
    whole = _save_whole("tiny-resnet", tmp_path / "whole.pth")
    trunk = build_trunk("open_clip:tiny-resnet", str(tmp_path / "whole.pth"), image_size=(96, 96))
    before = whole.get_parameter("visual.attnpool.positional_embedding")
    after = trunk.tower.get_parameter("attnpool.positional_embedding")
    grid = before[1:].T.reshape(1, -1, 2, 2)
    expected = nn.functional.interpolate(grid, size=(3, 3), mode="bicubic", antialias=True, align_corners=False)
    torch.testing.assert_close(after[1:].T.reshape(1, -1, 3, 3), expected)
    assert torch.equal(after[0], before[0])


@pytest.mark.parametrize("name", ["open_clip:ViT-SO400M-14-SigLIP-384", "timm:vit_so400m_patch14_siglip_384"])
def test_a_model_is_built_at_the_size_it_was_published_at(name: str) -> None:
    with torch.device("meta"):  # shapes only; 27 patches of 14 px leave 6 of 384 px out, as in training
        trunk = build_trunk(name, "random")
        again = build_trunk(name, "random", image_size=(384, 384))
        map_NChw = again.feature_map(torch.zeros(1, 3, 384, 384))
    assert trunk.preprocessing.image_size == again.preprocessing.image_size == (384, 384)
    assert map_NChw.shape == (1, 1152, 27, 27)
    with torch.device("meta"), pytest.raises(ValueError, match=r"\(384, 398\) does not divide; nearest: \(378, 392\)"):
        build_trunk(name, "random", image_size=(384, 398))


def test_a_tag_whose_file_is_broken_is_not_taken_for_a_missing_network(tmp_path: Path) -> None:
    (tmp_path / "whole.pth").write_bytes(b"not weights")
    for build in (build_trunk, build_text_tower):
        with pytest.raises(ValueError, match=r"whole\.pth cannot be read"):
            build("open_clip:tiny/quick", "pretrained")
    torch.save({name: value[:1] for name, value in nn.Linear(3, 3).state_dict().items()}, tmp_path / "whole.pth")
    with pytest.raises(ValueError, match=r"whole\.pth does not fit the trunk: it lacks"):
        build_trunk("open_clip:tiny/quick", "pretrained")


def test_hub_addresses_are_no_architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(open_clip.pretrained, "hf_hub_download", refuse)
    with pytest.raises(ValueError, match="no architecture 'hf-hub:laion'"):
        build_trunk("open_clip:hf-hub:laion/CLIP-ViT-B-32", "random")


@pytest.mark.nightly
@pytest.mark.parametrize("architecture", open_clip.list_models())
def test_every_architecture_of_open_clip_is_built(architecture: str) -> None:
    config = copy.deepcopy(open_clip.get_model_config(architecture))
    with torch.device("meta"):  # shapes only: no weights, and no memory for them
        trunk = build_trunk(f"open_clip:{architecture}", "random")
    size = config["vision_cfg"].get("image_size", 224)
    assert trunk.num_features == config["embed_dim"]
    assert trunk.preprocessing.image_size == (size if isinstance(size, list) else (size, size))
