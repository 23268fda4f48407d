"""Which bundles may be asked for is known before anything is exported; what was asked for is written, under its name."""

from pathlib import Path
from typing import Any

import pytest

from workbench.export.deploy import BUNDLES, check_bundle, read_bundles, write_bundles
from workbench.export.folder import ExportError
from workbench.export.onnx import export_onnx
from workbench.models.embedder import build_embedder

PLANNED: dict[str, Any] = {"builder": "tensorrt", "engines": "current"}


def read(text: str, **changed: Any) -> list[str]:
    return read_bundles(text, **{"precision": "fp32", "input": "raw", **changed})


def test_bundles_are_read_in_their_order_and_none_is_none() -> None:
    assert read(" deepstream,triton ,") == ["deepstream", "triton"]
    assert read("") == read(" , ") == []
    assert read(", ".join(BUNDLES), **PLANNED) == ["triton", "triton_tensorrt", "triton_python", "deepstream"]
    assert read("deepstream, triton_tensorrt", precision="int8", target="tensorrt", **PLANNED)
    assert read("triton, triton_python", precision="int8", input="uint8")


@pytest.mark.parametrize(
    ("text", "changed", "message"),
    [
        ("trition", {}, r"no bundle 'trition'\. Did you mean triton\? There are triton, .*deepstream"),
        ("triton; deepstream", {}, "There is no bundle 'triton; deepstream'"),
        ("Triton", {}, r"no bundle 'Triton'\. Did you mean triton"),
        ("triton, deepstream, triton", {}, "triton is named twice"),
        ("triton, deepstream", {"input": "uint8"}, "the input is uint8: set input_kind=raw, or leave deepstream out"),
        ("deepstream", {"input": "float"}, "the input is float: set input_kind=raw"),
        ("deepstream", {"precision": "int8"}, "int8 as a plan of full TensorRT alone"),
        ("deepstream", {"precision": "int8", **PLANNED}, "set target=tensorrt"),
        ("triton_tensorrt", {}, "set builder=tensorrt and engines=current"),
        ("triton_tensorrt", {"engines": "sm86"}, "set builder=tensorrt"),
        ("triton_tensorrt", {"builder": "tensorrt_rtx", "engines": "sm86"}, "set builder=tensorrt"),
        ("triton_tensorrt", {**PLANNED, "engines": " "}, "set builder=tensorrt and engines=current"),
        ("triton_tensorrt", {**PLANNED, "precision": "int8"}, "target=tensorrt for int8"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_change(text: str, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(text, **changed)


def test_each_bundle_lies_under_its_name_with_its_backend(tmp_path: Path) -> None:
    embedder = build_embedder("timm:test_resnet", "random", image_size=(32, 32))
    exported = export_onnx(embedder, tmp_path / "exported", input="raw")
    names = ["deepstream", "triton", "triton_python"]
    written = write_bundles(names, exported, tmp_path, card="# Mine\n", max_batch=7)
    assert written == {name: tmp_path / name for name in names}
    for folder in written.values():
        check_bundle(folder)
        assert (folder / "MODEL_CARD.md").read_text() == "# Mine\n"
    for name, backend in (("triton", "onnxruntime"), ("triton_python", "python")):
        (config,) = (tmp_path / name).glob("model_repository/*_embedder/config.pbtxt")
        assert f'backend: "{backend}"' in config.read_text()
        assert "max_batch_size: 7" in config.read_text()
    assert "batch-size=7" in (tmp_path / "deepstream" / "config_sgie_embedder.txt").read_text()
    with pytest.raises(ValueError, match="The backend tensorrt serves a plan"):
        write_bundles(["triton_tensorrt"], exported, tmp_path, card="# Mine\n")
    (tmp_path / "no.plan").write_bytes(b"")
    with pytest.raises((ExportError, FileNotFoundError), match=r"no\.plan"):
        write_bundles(["triton_tensorrt"], exported, tmp_path, card="# Mine\n", plan=tmp_path / "no.plan")
    assert not (tmp_path / "triton_tensorrt").exists()
