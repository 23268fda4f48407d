from pathlib import Path

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
from tiny_clip import TINY

from workbench.models.embedder import build_embedder
from workbench.models.text import build_text_tower, check_same_space
from workbench.models.trunk import build_trunk
from workbench.models.weights import WeightsUnavailableError


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", TINY)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-custom", {**TINY, "custom_text": True})


@pytest.mark.parametrize("name", ["tiny", "tiny-custom"])
def test_a_file_of_the_whole_model_gives_its_own_answers(name: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    whole = open_clip.create_model(name)
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(whole.state_dict(), path)
    text = build_text_tower(f"open_clip:{name}", str(path))
    sentences = ["a photo of a pear.", "milk", "a photo of a pear.", "one two three " * 20]
    found_ND = text.embed(sentences, batch_size=3)
    with torch.no_grad():
        expected_ND = whole.eval().encode_text(open_clip.get_tokenizer(name)(sentences), normalize=True).numpy()
    assert found_ND == pytest.approx(expected_ND, abs=1e-6)
    assert found_ND.dtype == np.float32
    assert found_ND[0] == pytest.approx(found_ND[2], abs=1e-6)
    assert np.abs(found_ND[0] - found_ND[1]).max() > 0.01
    assert not any("visual" in name for name in text.state_dict())
    # the trunk of the same file answers in the same space
    trunk = build_trunk(f"open_clip:{name}", str(path))
    images_NCHW = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(trunk(images_NCHW), whole.encode_image(images_NCHW), rtol=1e-5, atol=1e-6)


def test_random_weights_follow_the_seed() -> None:
    sentences = ["a pear", "an apple"]
    first, again, other = (build_text_tower("open_clip:tiny", "random", seed).embed(sentences) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 0.01
    assert np.linalg.norm(first, axis=1) == pytest.approx(1, abs=1e-6)


def test_what_has_no_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Only trunks of open_clip"):
        build_text_tower("timm:test_vit", "random")
    with pytest.raises(ValueError, match=r"Name the weights.*one of none"):
        build_text_tower("open_clip:tiny")
    with pytest.raises(ValueError, match=r"no weights 'nothing' for ViT-B-32.*laion2b_s34b_b79k"):
        build_text_tower("open_clip:ViT-B-32/nothing", "random")
    with pytest.raises(ValueError, match="a file that exists"):
        build_text_tower("open_clip:tiny", str(tmp_path / "no.pth"))
    images = build_trunk("open_clip:tiny", "random").tower.state_dict()
    path = tmp_path / "images.safetensors"
    safetensors.torch.save_file({f"visual.{name}": value for name, value in images.items()}, path)
    with pytest.raises(ValueError, match="has no text tower"):
        build_text_tower("open_clip:tiny", str(path))
    text = build_text_tower("open_clip:tiny", "random")
    for sentences in ([], ["a pear", " "]):
        with pytest.raises(ValueError, match="none empty"):
            text.embed(sentences)


def test_without_a_network_it_says_how_to_get_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network here")

    monkeypatch.setattr(open_clip, "download_pretrained", refuse)
    with pytest.raises(WeightsUnavailableError, match=r"models fetch open_clip:ViT-B-32/laion2b_s34b_b79k"):
        build_text_tower("open_clip:ViT-B-32/laion2b_s34b_b79k")


def test_only_the_projected_images_of_the_same_model_are_compared() -> None:
    text = build_text_tower("open_clip:tiny", "random")
    check_same_space(build_embedder("open_clip:tiny", "random"), text)
    with pytest.raises(ValueError, match="trunk 'timm:test_vit' in place of 'open_clip:tiny'"):
        check_same_space(build_embedder("timm:test_vit", "random"), text)
    with pytest.raises(ValueError, match="pooling 'mean' in place of 'default'"):
        check_same_space(build_embedder("open_clip:tiny", "random", pooling="mean"), text)
    with pytest.raises(ValueError, match="head 'linear' in place of 'identity'"):
        check_same_space(build_embedder("open_clip:tiny", "random", head="linear", embedding_dim=24), text)
