import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from workbench.models import embedder as embedder_module
from workbench.models.embedder import Embedder, build_embedder, load_embedder, open_embedder
from workbench.models.heads import build_head
from workbench.models.preprocessing import Preprocessing, ResizeMode

EMBEDDERS: dict[str, dict[str, Any]] = {
    "timm:resnet10t": {"image_size": (64, 32), "head": "linear", "embedding_dim": 16},
    "timm:vit_small_patch14_dinov2": {"image_size": (28, 42), "pooling": "both"},
    "open_clip:ViT-S-32-alt": {"image_size": (64, 64), "resize": "crop"},
}


@pytest.fixture(scope="module", params=EMBEDDERS)
def embedder(request: pytest.FixtureRequest) -> Embedder:
    return build_embedder(request.param, "random", seed=3, **EMBEDDERS[request.param])


def test_a_round_trip_changes_no_bit(embedder: Embedder, tmp_path: Path) -> None:
    folder = embedder.save(tmp_path / "embedder", recipe="none")
    loaded = load_embedder(folder)
    images = torch.randn(3, 3, *embedder.preprocessing.image_size)
    with torch.no_grad():
        assert torch.equal(embedder(images), loaded(images))
    assert loaded.preprocessing == embedder.preprocessing
    assert loaded.fingerprint() == embedder.fingerprint()
    assert json.loads((folder / "config.json").read_text())["provenance"] == {"recipe": "none"}


def test_embeddings_have_length_one(embedder: Embedder) -> None:
    with torch.no_grad():
        embedding_ND = embedder(torch.randn(4, 3, *embedder.preprocessing.image_size))
    assert embedding_ND.shape == (4, embedder.embedding_dim)
    torch.testing.assert_close(embedding_ND.norm(dim=1), torch.ones(4))


def test_the_fingerprint_sees_weights_and_preprocessing(tmp_path: Path) -> None:
    built = [
        build_embedder("timm:resnet10t", "random", seed=0),
        build_embedder("timm:resnet10t", "random", seed=1),
        build_embedder("timm:resnet10t", "random", seed=0, resize="pad"),
        build_embedder("timm:resnet10t", "random", seed=0, image_size=(96, 96)),
    ]
    assert len({embedder.fingerprint() for embedder in built}) == 4
    assert built[0].fingerprint() == build_embedder("timm:resnet10t", "random", seed=0).fingerprint()


def test_an_embedder_is_never_overwritten(tmp_path: Path) -> None:
    embedder = build_embedder("timm:resnet10t", "random")
    embedder.save(tmp_path / "embedder")
    before = (tmp_path / "embedder" / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="exists already"):
        build_embedder("timm:resnet10t", "random", seed=9).save(tmp_path / "embedder")
    assert (tmp_path / "embedder" / "model.safetensors").read_bytes() == before


def test_an_embedder_that_another_process_saved_meanwhile_is_not_taken_for_this_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    theirs, mine = (build_embedder("timm:resnet10t", "random", seed=seed) for seed in (0, 1))
    write = embedder_module.write_json

    def save_late(embedder: Embedder, folder: Path) -> Path:
        def write_late(path: Path, value: Any) -> None:
            monkeypatch.setattr(embedder_module, "write_json", write)
            theirs.save(folder)
            write(path, value)

        monkeypatch.setattr(embedder_module, "write_json", write_late)
        return embedder.save(folder)

    with pytest.raises(FileExistsError, match="made meanwhile by another process"):
        save_late(mine, tmp_path / "embedder")
    assert load_embedder(tmp_path / "embedder").fingerprint() == theirs.fingerprint()
    assert save_late(theirs, tmp_path / "same") == tmp_path / "same"


def test_broken_folders_are_refused(tmp_path: Path) -> None:
    folder = build_embedder("timm:resnet10t", "random").save(tmp_path / "embedder")
    config_text, weights = (folder / "config.json").read_text(), (folder / "model.safetensors").read_bytes()

    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors missing"):
        load_embedder(folder)
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ValueError, match="does not fit"):
        load_embedder(folder)
    changed = bytearray(weights)
    changed[-1] ^= 1
    (folder / "model.safetensors").write_bytes(changed)
    with pytest.raises(ValueError, match="changed after it was saved"):
        load_embedder(folder)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(config_text.replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(ValueError, match="embedder format 2"):
        load_embedder(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        load_embedder(folder)
    (folder / "config.json").write_text(config_text)
    load_embedder(folder)


def test_open_embedder_takes_a_folder_or_a_trunk(tmp_path: Path) -> None:
    embedder = build_embedder("timm:resnet10t", "random")
    folder = embedder.save(tmp_path / "embedder")
    assert open_embedder(str(folder)).fingerprint() == embedder.fingerprint()
    assert open_embedder("timm:resnet10t", "random").fingerprint() == embedder.fingerprint()
    with pytest.raises(ValueError, match="a saved folder that exists or a trunk"):
        open_embedder("outputs/forgotten")


def test_heads() -> None:
    assert build_head("linear", 8, 3)(torch.zeros(2, 8)).shape == (2, 3)
    assert build_head("linear", 8)(torch.zeros(2, 8)).shape == (2, 8)
    with pytest.raises(ValueError, match="needs the linear head"):
        build_head("identity", 8, 3)
    with pytest.raises(ValueError, match="one of identity, linear"):
        build_head("mlp", 8)
    with pytest.raises(ValueError, match="at least 1"):
        build_head("linear", 8, 0)


def _preprocessing(resize: ResizeMode, image_size: tuple[int, int] = (4, 4), crop_share: float = 1.0) -> Preprocessing:
    return Preprocessing(image_size, (0.5, 0.25, 1.0), (0.5, 0.5, 0.5), "bilinear", resize, crop_share)


def _half_red_half_blue(width: int, height: int) -> Image.Image:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0], pixels[:, width // 2 :, 2] = 255, 255
    return Image.fromarray(pixels)


def test_squash_keeps_everything_crop_cuts_the_sides_and_pad_fills() -> None:
    wide = _half_red_half_blue(64, 16)
    squashed = _preprocessing("squash").apply(wide)
    assert squashed.shape == (4, 4, 3)
    assert squashed[0, 0].tolist() == [255, 0, 0]
    assert squashed[3, 3].tolist() == [0, 0, 255]
    cut = np.zeros((16, 64, 3), np.uint8)
    cut[:, 24:40] = 200
    assert (_preprocessing("crop").apply(Image.fromarray(cut)) == 200).sum() >= 4 * 2 * 3
    assert _preprocessing("crop", crop_share=0.5).apply(Image.fromarray(cut)).min() == 200
    padded = _preprocessing("pad").apply(wide)
    assert padded[0, 0].tolist() == [128, 64, 255]
    assert padded[3, 3].tolist() == [128, 64, 255]
    assert padded[1, 0].tolist()[0] > 200


def test_crop_of_an_exact_size_changes_nothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    for resize in ("squash", "crop", "pad"):
        assert np.array_equal(_preprocessing(resize, (6, 4)).apply(Image.fromarray(pixels)), pixels)


def test_normalise_against_hand_worked_values() -> None:
    images = torch.tensor([[[[255, 0, 255], [0, 255, 0]]]], dtype=torch.uint8)
    normalised = _preprocessing("squash", (1, 2)).normalise(images)
    expected = torch.tensor([[[[1.0, -1.0]], [[-0.5, 1.5]], [[0.0, -2.0]]]])
    torch.testing.assert_close(normalised, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": (0, 4)}, "at least 1"),
        ({"interpolation": "nearest"}, "interpolation is one of"),
        ({"resize": "stretch"}, "resize is one of"),
        ({"crop_share": 0.0}, "positive"),
        ({"std": (0.5, 0.0, 0.5)}, "std is positive"),
    ],
)
def test_wrong_preprocessing_is_refused(change: dict[str, object], message: str) -> None:
    described = {**_preprocessing("squash").to_dict(), **change}
    with pytest.raises(ValueError, match=message):
        Preprocessing.from_dict(described)
