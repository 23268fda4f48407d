import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import open_clip
import pytest
import torch
from torch import nn

from workbench.export import onnx as export
from workbench.export.folder import ExportError, read_described
from workbench.export.onnx import compare_answers, export_onnx
from workbench.export.randomise import randomise_scales
from workbench.export.sessions import answer_apart
from workbench.models import nvidia
from workbench.models.embedder import Embedder, build_embedder
from workbench.models.fan import FAN

TINY = {"embed_dim": 48, "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}}
TINY_TEXT = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
SMALL: dict[str, dict[str, Any]] = {
    "open_clip:tiny-export-ViT": {"head": "linear", "embedding_dim": 24},
    "timm:test_vit2": {"image_size": (32, 48), "pooling": "both"},
    "timm:test_resnet": {"image_size": (64, 32)},
}
FAMILIES: dict[str, dict[str, Any]] = {
    "open_clip:ViT-S-32-alt": {"image_size": (64, 64)},
    "timm:vit_small_patch14_dinov2": {"image_size": (42, 42), "pooling": "both"},
    "timm:resnet50": {"image_size": (256, 128)},
    "timm:resnet101": {"image_size": (64, 64)},
    "timm:convnext_tiny": {"image_size": (64, 64)},
    "workbench:fan_base_hybrid": {"image_size": (64, 32)},  # shrunken by `small_fan`
}


@pytest.fixture(scope="module", autouse=True)
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("architectures") / "tiny-export-ViT.json"
    path.write_text(json.dumps({**TINY, "text_cfg": TINY_TEXT}))
    open_clip.add_model_config(path)


def narrow_fan() -> FAN:
    """FAN with FAN-B's head width, 56; matrices three times as large, else it answers alike to all pictures."""
    fan = FAN((8, 12), 1, 112, 2, 1, 2)
    with torch.no_grad():
        for parameter in fan.parameters():
            parameter.mul_(3 if parameter.ndim > 1 else 1)
    return fan


@pytest.fixture(scope="module", autouse=True)
def small_fan() -> Iterator[None]:
    """FAN's name builds a narrow one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nvidia, "fan_base_hybrid", narrow_fan)
        yield


def build(name: str) -> Embedder:
    return randomise_scales(build_embedder(name, "random", seed=1, **{**SMALL, **FAMILIES}[name]), seed=2)


def pictures(embedder: Embedder, num: int, seed: int = 7) -> np.ndarray:
    """Blurred noise, so that neighbouring pixels belong together as in photographs: uint8 [num, H, W, 3]."""
    height, width = embedder.preprocessing.image_size
    noise = torch.rand(num, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(seed))
    smooth = nn.functional.interpolate(noise, size=(height, width), mode="bilinear")
    return (smooth * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def answer_of_torch(embedder: Embedder, images_NHWC: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return embedder(embedder.preprocessing.normalise(torch.from_numpy(images_NHWC))).numpy()


def normalised(embedder: Embedder, images_NHWC: np.ndarray) -> np.ndarray:
    return embedder.preprocessing.normalise(torch.from_numpy(images_NHWC)).numpy()


def assert_fp32_parity(embedder: Embedder, folder: Path, sizes: tuple[int, ...]) -> None:
    batches = [pictures(embedder, size, seed=size) for size in sizes]
    kind = read_described(folder)["input"]
    fed = [normalised(embedder, batch) for batch in batches] if kind == "float" else batches
    if kind == "raw":
        fed = [batch.transpose(0, 3, 1, 2).astype(np.float32) for batch in batches]
    for batch, found in zip(batches, answer_apart(folder / "model.onnx", fed), strict=True):
        expected = answer_of_torch(embedder, batch)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() <= 1e-5
        assert (found * expected).sum(1).min() >= 0.999999
        assert len(batch) == 1 or np.abs(expected[0] - expected[1]).max() > 1e-4, "the pictures cannot be told apart"


@pytest.mark.parametrize(("name", "input"), list(zip(SMALL, ["float", "raw", "uint8"], strict=True)))
def test_small_towers_answer_as_torch_at_every_batch(name: str, input: Any, tmp_path: Path) -> None:
    embedder = build(name)
    folder = export_onnx(embedder, tmp_path / "out", input=input)
    assert_fp32_parity(embedder, folder, (1, 3, 8, 70))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_in_fp32_and_in_fp16_from_raw_pixels(name: str, tmp_path: Path) -> None:
    embedder = build(name)
    assert_fp32_parity(embedder, export_onnx(embedder, tmp_path / "fp32"), (1, 3, 8))
    images = pictures(embedder, 8)
    if name == "timm:resnet101":  # random scales let its activations grow beyond fp16, which has to be seen
        with pytest.raises(ExportError, match="overflows"):
            export_onnx(embedder, tmp_path / "fp16", "fp16", "uint8")
        return
    half = export_onnx(embedder, tmp_path / "fp16", "fp16", "uint8")
    opsets = [one.version for one in onnx.load(half / "model.onnx").opset_import if not one.domain]
    assert opsets == [read_described(half)["opset"]] == [20 if "fan" in name else 23]
    found = answer_apart(half / "model.onnx", [images], half=True)[0]
    expected = answer_of_torch(embedder, images)
    assert (found * expected).sum(1).min() >= 0.9999
    # random towers answer much alike to all pictures; what sets a picture apart has to survive fp16 too
    own, others = expected - expected.mean(0), found - expected.mean(0)
    assert ((own * others).sum(1) / np.linalg.norm(own, axis=1) / np.linalg.norm(others, axis=1)).min() >= 0.99


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        (("batch", 8, 197, 56), True),
        (("batch", 8, 2, 16), True),
        (("batch", 8, 1, 64), False),  # class attention
        (("batch", 8, 197, 8), False),
        (("batch", 8, "tokens", 64), False),
        (("batch", 197, 448), False),
        (None, False),
    ],
)
def test_attention_without_a_kernel_is_known(query: tuple[Any, ...] | None, fits: bool) -> None:
    """The forms were tried with TensorRT for RTX 1.7, an Attention of each alone; what is not known counts as without."""
    assert export._has_kernel(SimpleNamespace(inputs=[SimpleNamespace(shape=query)])) is fits


def test_fp16_keeps_fp32_at_both_ends(tmp_path: Path) -> None:
    embedder = build("open_clip:tiny-export-ViT")
    folder = export_onnx(embedder, tmp_path / "fp16", "fp16", "uint8", about={"labels": ["milk"]})
    model = onnx.load(folder / "model.onnx")
    given, answered = model.graph.input[0], model.graph.output[0]
    assert (given.name, given.type.tensor_type.elem_type) == ("input", onnx.TensorProto.UINT8)
    assert (answered.name, answered.type.tensor_type.elem_type) == ("embeddings", onnx.TensorProto.FLOAT)
    assert [one.version for one in model.opset_import if not one.domain] == [23]
    assert "Attention" in {node.op_type for node in model.graph.node}
    kinds = {one.name: one.data_type for one in model.graph.initializer if len(one.dims) == 2}
    assert sum(kind == onnx.TensorProto.FLOAT16 for kind in kinds.values()) >= 8
    images = pictures(embedder, 8)
    found, alone = answer_apart(folder / "model.onnx", [images, images[:1]], half=True)
    cosine = (found * answer_of_torch(embedder, images)).sum(1)
    assert cosine.min() >= 0.9999
    assert np.abs(found - answer_of_torch(embedder, images)).max() > 1e-6, "that was not computed in fp16"
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(alone, found[:1], atol=1e-3)


def test_the_file_says_what_it_is_and_nothing_of_this_machine(tmp_path: Path) -> None:
    embedder = build("timm:test_resnet").train()
    before = embedder.fingerprint()
    about = {"card": "retail", "protocol": "5 references a class", "labels": ["milk", "bread"]}
    folder = export_onnx(embedder, tmp_path / "out", input="uint8", about=about)
    assert embedder.training, "the export left the embedder in another mode"
    assert embedder.fingerprint() == before
    described = json.loads((folder / "export.json").read_text())
    assert described["embedder_fingerprint"] == before
    assert described["about"] == about
    assert described["preprocessing"] == json.loads(json.dumps(embedder.preprocessing.to_dict()))
    assert (described["embedding_dim"], described["image_size"]) == (embedder.embedding_dim, [64, 32])
    assert set(described["checked_against_torch"]) == {"batch_1", "batch_3"}
    told = {one.key: one.value for one in onnx.load(folder / "model.onnx").metadata_props}
    for key in ("format", "precision", "input", "embedder_fingerprint", "weights_sha256"):
        assert told[key] == described[key]
    for key in ("about", "preprocessing", "format_version", "normalised", "embedding_dim", "versions"):
        assert json.loads(told[key]) == described[key]
    whole = (folder / "model.onnx").read_bytes()
    assert str(Path(export.__file__).parents[2]).encode() not in whole
    assert b"site-packages" not in whole
    assert b"stack_trace" not in whole
    assert sorted(path.name for path in folder.iterdir()) == ["export.json", "model.onnx"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_weights_too_large_for_a_protobuf_lie_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "EXTERNAL_ABOVE_BYTES", 1000)
    embedder = build("timm:test_resnet")
    folder = export_onnx(embedder, tmp_path / "out", normalised=False)
    assert (folder / "model.onnx.data").stat().st_size > 20 * (folder / "model.onnx").stat().st_size
    assert set(read_described(folder)["files"]) == {"model.onnx", "model.onnx.data"}
    images = pictures(embedder, 4)
    found = answer_apart(folder / "model.onnx", [normalised(embedder, images)])[0]
    with torch.no_grad():
        features = embedder.trunk(embedder.preprocessing.normalise(torch.from_numpy(images))).numpy()
    np.testing.assert_allclose(found, features, rtol=1e-4, atol=1e-4)
    assert np.linalg.norm(found, axis=1).max() > 1.1
    (folder / "model.onnx.data").unlink()
    with pytest.raises(FileNotFoundError, match=r"not a whole exported folder: model\.onnx\.data missing"):
        read_described(folder)


class _Changed(nn.Module):
    """A head that computes otherwise as soon as it is exported: what a tracing error looks like."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features + self.shift if torch.compiler.is_exporting() else features


class _Bessel(nn.Module):
    """A head of an operator that ONNX does not have."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(features)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (_Changed(0.01), r"does not answer as torch does: at batch 1 cosine 0\.99.*wanted 0\.999999.*Nothing was kept"),
        (_Bessel(), "test_resnet cannot be written as ONNX, opset 20: .*bessel_j0"),
    ],
    ids=["another answer", "an operator that ONNX has not"],
)
def test_what_cannot_be_exported_leaves_nothing(head: nn.Module, message: str, tmp_path: Path) -> None:
    embedder = build("timm:test_resnet")
    embedder.head = head
    with pytest.raises(ExportError, match=message):
        export_onnx(embedder, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("No space left on device")])
def test_an_interrupted_export_leaves_nothing(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(exported: nn.Module, model: Path, described: dict[str, Any]) -> None:
        model.write_bytes(b"half a mod")
        raise error

    monkeypatch.setattr(export, "_write_model", stop)
    with pytest.raises((KeyboardInterrupt, OSError)):
        export_onnx(build("timm:test_resnet"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_killed_export_has_no_folder_of_its_name(tmp_path: Path) -> None:
    code = """
import sys
from workbench.export.onnx import export_onnx
from workbench.models.embedder import build_embedder
export_onnx(build_embedder("timm:test_resnet", "random", image_size=(64, 32)), sys.argv[1])
"""
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out")], stderr=subprocess.DEVNULL) as process:
        while not (left := list(tmp_path.glob(".out.*/model.onnx"))) and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    assert left, "the export ended before it could be killed"
    assert not (tmp_path / "out").exists()


def _named(**changed: Any) -> Callable[[Embedder, Path], object]:
    return lambda embedder, folder: export_onnx(embedder, folder, **changed)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (_named(precision="int4"), "precision is one of fp32, fp16, int8; found 'int4'"),
        (_named(input="jpeg"), "input is one of float, uint8, raw; found 'jpeg'"),
        (_named(about={"labels": {1, 2}}), "only what JSON can say"),
        (_named(about={"accuracy": float("nan")}), "only what JSON can say"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    call: Callable[[Embedder, Path], object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        call(build("timm:test_resnet"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_export_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="choose another folder"):
        export_onnx(build("timm:test_resnet"), tmp_path / "out")


def test_compare_answers_against_hand_worked_rows() -> None:
    expected = np.array([[1, 0], [0, 1]], np.float32)
    found = np.array([[1, 0], [0.6, 0.8]], np.float32)
    assert compare_answers(expected, found) == pytest.approx({"min_cosine": 0.8, "max_difference": 0.6})
    assert compare_answers(expected, expected) == {"min_cosine": 1.0, "max_difference": 0.0}
    with pytest.raises(ExportError, match=r"torch answers \(2, 2\), the exported file \(1, 2\)"):
        compare_answers(expected, found[:1])
    with pytest.raises(ExportError, match="not finite"):
        compare_answers(expected, np.where(found == 0, np.float32(np.nan), found))


def test_randomised_scales_move_every_vector_and_no_matrix() -> None:
    plain = build_embedder("timm:test_vit2", "random", image_size=(32, 48), seed=1)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    after = randomise_scales(plain, seed=2).state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name, value in before.items() if value.ndim == 1}
    gammas = torch.cat([value for name, value in after.items() if name.endswith("gamma")])
    assert 0.5 <= gammas.min() < gammas.max() <= 1.5


def test_an_export_that_another_process_made_meanwhile_is_not_taken_for_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder, folder = build("timm:test_resnet"), tmp_path / "export"

    def write_late(exported: nn.Module, model: Path, described: dict[str, Any]) -> dict[str, int]:
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"theirs")
        model.write_bytes(b"mine")
        return {}

    monkeypatch.setattr(export, "_write_model", write_late)
    monkeypatch.setattr(export, "_check_answers", lambda *_: {})
    with pytest.raises(FileExistsError, match="made meanwhile by another process"):
        export_onnx(embedder, folder)
    assert (folder / "model.onnx").read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [folder]
