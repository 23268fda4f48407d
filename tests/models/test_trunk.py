import json
from pathlib import Path
from typing import Any, cast

import open_clip
import pytest
import safetensors.torch
import timm
import torch

from workbench.models.trunk import build_trunk, fetch_weights
from workbench.models.weights import WeightsUnavailableError

DINOV2 = "timm:vit_small_patch14_dinov2"


@pytest.fixture(scope="module")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small open_clip architecture, added to the library's own list of architectures."""
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
    }
    path = tmp_path_factory.mktemp("architectures") / "test-ViT-16.json"
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)
    return "open_clip:test-ViT-16"


def test_clip_features_are_those_of_the_whole_open_clip_model(small_clip: str, tmp_path: Path) -> None:
    model = open_clip.create_model("test-ViT-16").eval()
    torch.save(model.state_dict(), tmp_path / "clip.pth")
    trunk = build_trunk(small_clip, str(tmp_path / "clip.pth"))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(trunk(images), model.encode_image(images))
    assert trunk.num_features == 32


def test_poolings_of_clip_stand_before_the_projection(small_clip: str) -> None:
    images = torch.randn(2, 3, 64, 64)
    by_pooling = {
        pooling: build_trunk(small_clip, "random", pooling=pooling) for pooling in ("default", "class", "mean", "both")
    }
    with torch.no_grad():
        features = {pooling: trunk(images) for pooling, trunk in by_pooling.items()}
        projection = by_pooling["class"].tower.proj
        assert isinstance(projection, torch.Tensor)
        torch.testing.assert_close(features["class"] @ projection, features["default"])
    torch.testing.assert_close(features["both"], torch.cat([features["class"], features["mean"]], dim=1))
    assert not torch.allclose(features["class"], features["mean"])


def test_poolings_of_dinov2_are_timms_tokens() -> None:
    trunk = build_trunk(DINOV2, "random", image_size=(28, 42), pooling="both")
    reference = timm.create_model("vit_small_patch14_dinov2", img_size=(28, 42), num_classes=0).eval()
    reference.load_state_dict(trunk.tower.state_dict())
    images = torch.randn(2, 3, 28, 42)
    with torch.no_grad():
        tokens = cast(Any, reference).forward_features(images)
        torch.testing.assert_close(trunk(images), torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], dim=1))
    assert tokens.shape[1] == 1 + 2 * 3


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    first = build_trunk("timm:resnet10t", "random", seed=1)
    state = torch.random.get_rng_state()
    again, other = build_trunk("timm:resnet10t", "random", seed=1), build_trunk("timm:resnet10t", "random", seed=2)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(first.state_dict()["tower.conv1.0.weight"], again.state_dict()["tower.conv1.0.weight"])
    assert not torch.equal(first.state_dict()["tower.conv1.0.weight"], other.state_dict()["tower.conv1.0.weight"])


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_local_weights_of_timm_load_whole(tmp_path: Path, ending: str) -> None:
    donor = timm.create_model("resnet10t", num_classes=7).eval()
    path = tmp_path / f"weights.{ending}"
    if ending == "pth":
        torch.save({"state_dict": donor.state_dict()}, path)
    else:
        safetensors.torch.save_file(donor.state_dict(), path)
    trunk = build_trunk("timm:resnet10t", str(path))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = cast(Any, donor).forward_head(cast(Any, donor).forward_features(images), pre_logits=True)
        torch.testing.assert_close(trunk(images), expected)


def test_local_dinov2_weights_are_interpolated_to_another_size(tmp_path: Path) -> None:
    donor = timm.create_model("vit_small_patch14_dinov2", img_size=56, num_classes=0)
    torch.save(donor.state_dict(), tmp_path / "dinov2.pth")
    trunk = build_trunk(DINOV2, str(tmp_path / "dinov2.pth"), image_size=(28, 28))
    donor_encoding, encoding = donor.get_parameter("pos_embed"), trunk.tower.get_parameter("pos_embed")
    grid = donor_encoding[0, 1:].reshape(4, 4, 384)
    expected = torch.nn.functional.interpolate(
        grid.permute(2, 0, 1)[None], size=(2, 2), mode="bicubic", antialias=True, align_corners=False
    )[0].permute(1, 2, 0)
    torch.testing.assert_close(encoding[0, 1:].reshape(2, 2, 384), expected)
    assert torch.equal(encoding[0, 0], donor_encoding[0, 0])


def test_clip_resnets_are_built_at_other_sizes() -> None:
    trunk = build_trunk("open_clip:RN50", "random", image_size=(64, 64))
    assert trunk.preprocessing.image_size == (64, 64)
    encoding = trunk.tower.state_dict()["attnpool.positional_embedding"]
    assert encoding.shape == (1 + 2 * 2, 2048)  # a cell each 32 px, and their mean
    with torch.no_grad():
        features = trunk.eval()(torch.randn(2, 3, 64, 64))
    assert features.shape == (2, 1024)
    assert torch.isfinite(features).all()


def test_weights_of_another_model_are_refused(tmp_path: Path, small_clip: str) -> None:
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not fit timm:resnet18"):
        build_trunk("timm:resnet18", str(tmp_path / "other.pth"))
    with pytest.raises(ValueError, match="does not fit the trunk"):
        build_trunk(small_clip, str(tmp_path / "other.pth"))


class _Code:
    """Pickles to a call: what a malicious weights file holds."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run by the weights file",)


def test_a_weights_file_runs_no_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": _Code()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="plain tensors"):
        build_trunk("timm:resnet10t", str(tmp_path / "evil.pth"))
    assert "run by the weights file" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04broken"])
def test_a_broken_weights_file_is_named(tmp_path: Path, content: bytes) -> None:
    for name in ("broken.pth", "broken.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=name):
            build_trunk("timm:resnet10t", str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet50", {}, "open_clip:ARCHITECTURE/TAG or timm:MODEL"),
        ("timm:resnet5O", {}, "near: .*resnet50"),
        ("open_clip:ViT-L14", {}, "near: .*ViT-L-14"),
        ("open_clip:ViT-B-32/laion", {}, "there are: .*laion2b_s34b_b79k"),
        ("open_clip:ViT-B-32", {"weights": "pretrained"}, "Name the weights"),
        ("timm:resnet10t", {"pooling": "max"}, "pooling is one of"),
        ("timm:resnet10t", {"pooling": "class"}, "no tokens"),
        ("timm:resnet10t", {"weights": "/nowhere/weights.pth"}, "a file that exists"),
        (DINOV2, {"image_size": (224, 225)}, r"does not divide; nearest: \(224, 224\)"),
        ("open_clip:RN50", {"image_size": (256, 128)}, r"square images.*found \(256, 128\); nearest: \(256, 256\)"),
        ("open_clip:RN50", {"image_size": (100, 100)}, r"multiple of 32 px.*nearest: \(96, 96\)"),
    ],
)
def test_wrong_requests_are_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_trunk(name, **{"weights": "random", **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["timm:resnet50.a1_in1k", "open_clip:ViT-B-32/laion2b_s34b_b79k"])
def test_without_a_network_pretrained_says_what_to_do_in_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsUnavailableError) as caught:
        fetch_weights(name)
    assert "\n" not in str(caught.value)
    assert f"models fetch {name}" in str(caught.value)
    assert capfd.readouterr().err == ""
