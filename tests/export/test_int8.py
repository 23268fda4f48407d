import json
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from torch import nn

from workbench.data.catalog import Catalog
from workbench.export import int8
from workbench.export.folder import read_described
from workbench.export.int8 import quantise_onnx
from workbench.export.onnx import export_onnx
from workbench.export.randomise import randomise_scales
from workbench.export.runtimes import open_exported
from workbench.export.sessions import RUNTIMES
from workbench.models.embedder import build_embedder


def pictures(num: int, seed: int) -> np.ndarray:
    """Blurred noise, uint8 [num, 48, 32, 3]."""
    noise = torch.rand(num, 3, 6, 4, generator=torch.Generator().manual_seed(seed))
    smooth = nn.functional.interpolate(noise, size=(48, 32), mode="bilinear")
    return (smooth * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def catalog_of(folder: Path, images: np.ndarray, broken: int = 0) -> Catalog:
    folder.mkdir()
    names = [f"{row}.png" for row in range(len(images) + broken)]
    for name, pixels in zip(names, images, strict=False):
        Image.fromarray(pixels).save(folder / name)
    for name in names[len(images) :]:
        (folder / name).write_bytes(b"no picture")
    frame = pd.DataFrame({"path": names, "label": "a", "split": "train", "domain": "real", "source": "made"})
    frame["camera"] = pd.array([None] * len(names), dtype="Int64")
    frame["group"] = pd.Series([None] * len(names), dtype="str")
    return Catalog(frame=frame, roots={"made": folder}, cards={}, missing_splits={})


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    embedder = randomise_scales(build_embedder("timm:test_resnet", "random", image_size=(48, 32), seed=4))
    return export_onnx(embedder, tmp_path_factory.mktemp("fp32") / "fp32", input="uint8", about={"labels": ["milk"]})


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """32 pictures to calibrate on and 3 that are broken."""
    return catalog_of(tmp_path_factory.mktemp("seen") / "set", pictures(32, seed=1), broken=3)


@pytest.fixture(scope="module")
def quantised(fp32: Path, seen: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quantise_onnx(fp32, tmp_path_factory.mktemp("int8") / "cpu", seen)


def cosines(folder: Path, fp32: Path, runtime: str = "onnxruntime") -> np.ndarray:
    """Of the answers of two files to pictures that nothing was calibrated on."""
    unseen = pictures(16, seed=2)
    return (open_exported(folder, runtime, 1).embed(unseen) * open_exported(fp32, num_threads=1).embed(unseen)).sum(1)


def kinds_of_zero_points(model: onnx.ModelProto) -> dict[str, set[int]]:
    """The data types, and the values, of the zero points of what is quantised on the way (not the weights)."""
    constants = {one.name: one for one in model.graph.initializer}
    zeros = [constants[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    values = {int(value) for one in zeros for value in np.ravel(numpy_helper.to_array(one))}
    return {"types": {one.data_type for one in zeros}, "values": values}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_int8_is_near_fp32_on_unseen_pictures_and_is_not_fp32(quantised: Path, fp32: Path, runtime: str) -> None:
    cosine_N = cosines(quantised, fp32, runtime)
    assert cosine_N.min() > 0.98
    assert cosine_N.max() < 1 - 1e-6


def test_the_ranges_come_from_the_catalogs_pictures(quantised: Path, fp32: Path, tmp_path: Path) -> None:
    black = catalog_of(tmp_path / "set", np.zeros((4, 48, 32, 3), np.uint8))
    blind = quantise_onnx(fp32, tmp_path / "blind", black)
    assert 1 - cosines(blind, fp32).mean() > 10 * (1 - cosines(quantised, fp32).mean())


def test_weights_are_int8_per_channel_and_the_file_says_how(quantised: Path, fp32: Path, seen: Catalog) -> None:
    model = onnx.load(quantised / "model.onnx")
    constants = {one.name: one for one in model.graph.initializer}
    kernels = [one for one in model.graph.initializer if one.data_type == onnx.TensorProto.INT8 and len(one.dims) == 4]
    assert len(kernels) == json.loads((fp32 / "export.json").read_text())["operators"]["Conv"]
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in {one.name for one in kernels}:
            assert list(constants[node.input[1]].dims) == [constants[node.input[0]].dims[0]]
    assert kinds_of_zero_points(model)["types"] == {onnx.TensorProto.UINT8}
    assert (quantised / "model.onnx").stat().st_size < 0.4 * (fp32 / "model.onnx").stat().st_size
    described = read_described(quantised)
    assert described["precision"] == "int8"
    assert described["about"] == {"labels": ["milk"]}
    assert described["calibration"]["num_images"] == 32
    assert described["calibration"]["catalog"] == seen.fingerprint
    assert "checked_against_torch" not in described
    told = {one.key: one.value for one in model.metadata_props}
    assert told["precision"] == "int8"
    assert json.loads(told["calibration"]) == described["calibration"]


def test_for_tensorrt_activations_are_signed_and_symmetric_and_biases_stay(
    fp32: Path, seen: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "EXTERNAL_ABOVE_BYTES", 1000)
    folder = quantise_onnx(fp32, tmp_path / "tensorrt", seen, target="tensorrt", num_images=5, batch_size=2)
    assert sorted(read_described(folder)["files"]) == ["model.onnx", "model.onnx.data"]
    model = onnx.load(folder / "model.onnx")
    assert kinds_of_zero_points(model) == {"types": {onnx.TensorProto.INT8}, "values": {0}}
    assert onnx.TensorProto.INT32 not in {one.data_type for one in model.graph.initializer}
    assert read_described(folder)["calibration"]["num_images"] == 5
    assert cosines(folder, fp32).min() > 0.9


@pytest.mark.slow
def test_a_transformer_keeps_sums_norms_and_softmax(seen: Catalog, tmp_path: Path) -> None:
    embedder = randomise_scales(build_embedder("timm:test_vit2", "random", image_size=(48, 32), seed=4))
    folder = quantise_onnx(export_onnx(embedder, tmp_path / "fp32"), tmp_path / "int8", seen)
    model = onnx.load(folder / "model.onnx")
    maker = {name: node.op_type for node in model.graph.node for name in node.output}
    fed = {
        kind: {maker.get(name) for node in model.graph.node if node.op_type == kind for name in node.input}
        for kind in ("MatMul", "LayerNormalization", "Softmax")
    }
    assert fed["MatMul"] == {"DequantizeLinear"}
    assert "DequantizeLinear" not in fed["LayerNormalization"] | fed["Softmax"]
    assert cosines(folder, tmp_path / "fp32").min() > 0.98


def test_what_cannot_be_quantised_leaves_nothing(quantised: Path, fp32: Path, seen: Catalog, tmp_path: Path) -> None:
    blank = catalog_of(tmp_path / "set", np.zeros((0, 48, 32, 3), np.uint8), broken=2)
    with pytest.raises(ValueError, match="No image of the catalog can be decoded"):
        quantise_onnx(fp32, tmp_path / "out", blank)
    with pytest.raises(ValueError, match=r"made from an fp32 export; .* is int8"):
        quantise_onnx(quantised, tmp_path / "out", seen)
    with pytest.raises(ValueError, match="target is one of cpu, tensorrt; found 'npu'"):
        quantise_onnx(fp32, tmp_path / "out", seen, target="npu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1; found 0 and 8"):
        quantise_onnx(fp32, tmp_path / "out", seen, num_images=0)
    with pytest.raises(FileExistsError, match="choose another folder"):
        quantise_onnx(fp32, quantised, seen)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_export_onnx_in_int8_is_the_quantised_fp32_export(
    quantised: Path, fp32: Path, seen: Catalog, tmp_path: Path
) -> None:
    embedder = randomise_scales(build_embedder("timm:test_resnet", "random", image_size=(48, 32), seed=4))
    direct = export_onnx(embedder, tmp_path / "direct", "int8", "uint8", calibration=seen)
    given = pictures(5, seed=9)
    assert np.array_equal(open_exported(direct).embed(given), open_exported(quantised).embed(given))
    assert read_described(direct)["precision"] == "int8"


@pytest.mark.parametrize(("precision", "calibrated"), [("int8", False), ("fp32", True)])
def test_images_to_calibrate_on_belong_to_int8_alone(
    precision: str, calibrated: bool, seen: Catalog, tmp_path: Path
) -> None:
    embedder = build_embedder("timm:test_resnet", "random", image_size=(48, 32))
    with pytest.raises(ValueError, match="calibrate"):
        export_onnx(embedder, tmp_path / "out", precision, calibration=seen if calibrated else None)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
