"""Engines are really built, by TensorRT for RTX, which needs no GPU; what needs one is tested as far as its errors."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from workbench.data.catalog import Catalog
from workbench.export import tensorrt, tensorrt_plan
from workbench.export.folder import ExportError
from workbench.export.int8 import quantise_onnx
from workbench.export.onnx import export_onnx
from workbench.export.randomise import randomise_scales
from workbench.export.runtimes import open_any, open_exported
from workbench.export.sessions import open_session
from workbench.export.tensorrt import build_engine, read_profile
from workbench.export.tensorrt_counterparts import gen_trt_engine_counterparts, published_trunk
from workbench.export.tensorrt_package import choose_targets, find_package
from workbench.export.tensorrt_plan import read_report
from workbench.export.tensorrt_session import answer_in_parts, check_batch
from workbench.models import nvidia
from workbench.models.embedder import Embedder, build_embedder
from workbench.models.fan import FAN
from workbench.report.published_speed import published_speed

rtx = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT for RTX is not made for this platform")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everywhere as on a machine without one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def embedder(name: str = "timm:test_resnet", **options: Any) -> Embedder:
    return randomise_scales(build_embedder(name, "random", seed=1, **{"image_size": (48, 32), **options}), seed=2)


def catalog_of(folder: Path, num: int = 8) -> Catalog:
    for row in range(num):
        pixels = np.random.default_rng(row).integers(0, 256, (60, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{row}.png")
    frame = pd.DataFrame({"path": [f"{row}.png" for row in range(num)], "label": "a", "split": "train"})
    frame = frame.assign(domain="real", source="made", camera=pd.array([None] * num, dtype="Int64"))
    frame["group"] = pd.Series([None] * num, dtype="str")
    return Catalog(frame=frame, roots={"made": folder}, cards={}, missing_splits={})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place, made = tmp_path_factory.mktemp("exported"), embedder()
    fp32 = export_onnx(made, place / "fp32", about={"card": "made"})
    catalog = catalog_of(tmp_path_factory.mktemp("pictures"))
    return {
        "fp32": fp32,
        "fp16": export_onnx(made, place / "fp16", "fp16"),
        "int8": quantise_onnx(fp32, place / "int8", catalog, target="tensorrt"),
    }


@pytest.fixture(scope="module")
def built(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of the fp32 folder, built once."""
    plan = tmp_path_factory.mktemp("built") / "model.plan"
    build_engine(folders["fp32"], plan, 2, 3, 4, "sm86")
    return plan


def write_model(
    path: Path,
    nodes: list[onnx.NodeProto],
    shape: list[Any],
    initializers: dict[str, np.ndarray] | None = None,
    domain: str = "",
) -> Path:
    """An ONNX file from `input`, float32, to `embeddings`, float32 [?, 4]."""
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(value, name) for name, value in (initializers or {}).items()],
    )
    opsets = [helper.make_opsetid("", 20), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), str(path))
    return path


def linear(path: Path, batch: Any = "batch") -> Path:
    weights = {"weight": np.arange(12, dtype=np.float32).reshape(3, 4)}
    return write_model(path, [helper.make_node("MatMul", ["input", "weight"], ["embeddings"])], [batch, 3], weights)


def test_an_engine_has_plan_report_and_log(folders: dict[str, Path], tmp_path: Path) -> None:
    plan = tmp_path / "new" / "model.plan"
    report = build_engine(folders["fp16"], plan, 1, 4, 16, workspace_mib=64)
    assert sorted(path.name for path in plan.parent.iterdir()) == ["model.plan", "model.plan.json", "model.plan.log"]
    assert json.loads((plan.parent / "model.plan.json").read_text()) == report == read_report(plan)
    content, model = plan.read_bytes(), folders["fp16"] / "model.onnx"
    digest = hashlib.sha256(content).hexdigest()
    assert report["plan"] == {"name": "model.plan", "bytes": len(content), "sha256": digest}
    assert report["onnx"]["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert report["builder"] == {
        "name": "TensorRT for RTX",
        "package": "tensorrt_rtx",
        "version": rtx.__version__,
    }
    assert report["targets"] == ["sm80", "sm86", "sm89", "sm120"]
    wanted = {"input": "input", "dtype": "FLOAT", "shape": [-1, 3, 48, 32]}
    assert report["profile"] == {**wanted, "min_batch": 1, "opt_batch": 4, "max_batch": 16}
    width = report["exported"]["embedding_dim"]
    assert report["outputs"] == [{"output": "embeddings", "dtype": "FLOAT", "shape": [-1, width]}]
    assert (report["workspace_mib"], report["tf32"], report["strongly_typed"]) == (64, False, True)
    assert report["engine_layers"] is None
    assert "compiles its kernels when it first runs" in report["not_available"]["layers of the engine"]
    log = (plan.parent / "model.plan.log").read_text()
    assert str(model) in log
    assert "[VERBOSE]" not in log


@pytest.mark.parametrize(("precision", "precisions"), [("fp32", {"FLOAT"}), ("fp16", {"HALF"}), ("int8", {"INT8"})])
def test_precision_is_that_of_the_file(
    precision: str, precisions: set[str], folders: dict[str, Path], tmp_path: Path
) -> None:
    report = build_engine(folders[precision], tmp_path / "plan", targets="sm89")
    layers, found = report["layers"]["types"], report["precisions"]
    assert set(found) & {"HALF", "INT8"} == precisions - {"FLOAT"}
    assert report["exported"]["precision"] == precision
    # the network has a layer for each of these operators of the file
    operators = [node.op_type for node in onnx.load(str(folders[precision] / "model.onnx")).graph.node]
    assert layers["CONVOLUTION"] == operators.count("Conv") > 5
    assert layers.get("QUANTIZE", 0) == operators.count("QuantizeLinear")
    assert layers.get("DEQUANTIZE", 0) == operators.count("DequantizeLinear")
    assert report["layers"]["num"] == sum(layers.values())
    assert (found.get("INT8", 0) > 10) == (precision == "int8")
    assert (found.get("HALF", 0) >= operators.count("Conv")) == (precision == "fp16")


def test_two_builds_agree_on_all_that_is_ours(folders: dict[str, Path], tmp_path: Path) -> None:
    """Targets are put in order and the network is the same; TensorRT itself promises no identical bytes for two builds."""
    targets = ("sm120", "SM86", "sm86")
    first = build_engine(folders["fp16"], tmp_path / "a.plan", targets=targets)
    second = build_engine(folders["fp16"], tmp_path / "b.plan", targets=["sm86", "sm120"], verbose=True)
    assert first["targets"] == second["targets"] == ["sm86", "sm120"]
    assert set(first) == set(second) > {"plan", "seconds", "layers", "precisions", "profile"}
    for field in set(first) - {"plan", "seconds", "created"}:
        assert first[field] == second[field], field
    assert "[VERBOSE]" in (tmp_path / "b.plan.log").read_text()
    other = build_engine(folders["fp16"], tmp_path / "c.plan", targets="sm86", max_batch=32)
    assert other["plan"]["sha256"] != first["plan"]["sha256"]


def test_a_bare_file_is_built_and_tf32_is_asked_for(tmp_path: Path) -> None:
    report = build_engine(linear(tmp_path / "model.onnx"), tmp_path / "plan", targets="sm80", tf32=True)
    assert report["exported"] is None
    assert report["tf32"] is True
    assert report["layers"]["types"]["MATRIX_MULTIPLY"] == 1
    assert report["onnx"]["external"] == {}


def test_external_data_is_read_and_its_absence_named(tmp_path: Path) -> None:
    made = onnx.load(str(linear(tmp_path / "inline.onnx")))
    onnx.save(made, str(tmp_path / "model.onnx"), save_as_external_data=True, location="weights.bin", size_threshold=0)
    report = build_engine(tmp_path / "model.onnx", tmp_path / "plan", targets="sm80")
    digest = hashlib.sha256(np.arange(12, dtype="<f4").tobytes()).hexdigest()
    assert report["onnx"]["external"] == {"weights.bin": {"bytes": 48, "sha256": digest}}
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"keeps its weights in weights\.bin, which is missing"):
        build_engine(tmp_path / "model.onnx", tmp_path / "again", targets="sm80")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_batch": 0}, "1 <= min_batch <= opt_batch <= max_batch is wanted; found 0, 10, 10"),
        ({"min_batch": 11}, "found 11, 10, 10"),
        ({"max_batch": 4}, "found 1, 10, 4"),
        ({"opt_batch": 2.5}, "whole numbers"),
        ({"min_batch": True}, "whole numbers"),
        ({"workspace_mib": 0}, "workspace_mib is at least 1; found 0"),
        ({"builder": "onnx"}, "builder is None or one of tensorrt_rtx, tensorrt; found 'onnx'"),
        ({"targets": ()}, "targets are compute capabilities"),
        ({"targets": "8.6"}, "such as 'sm86'.*found '8.6'"),
        ({"targets": ("current", "sm86")}, "or 'current' alone"),
        ({"targets": ("sm86", "sm90")}, r"no engines for sm90 \(Hopper.*only for .*sm86, sm89.*builder='tensorrt'"),
        ({"targets": "sm100"}, "no engines for sm100, only for"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    model = linear(tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=message):
        build_engine(model, tmp_path / "plan", **options)
    assert list(tmp_path.iterdir()) == [model]


@pytest.mark.parametrize("ending", ["", ".json", ".log"])
def test_nothing_is_written_over(ending: str, tmp_path: Path) -> None:
    there = tmp_path / f"plan{ending}"
    there.write_text("mine")
    with pytest.raises(FileExistsError, match=rf"plan{ending} exist already"):
        build_engine(linear(tmp_path / "model.onnx"), tmp_path / "plan", targets="sm80")
    assert there.read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_missing_file_or_broken_folder_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"exported folder was wanted; there is no .*absent\.onnx"):
        build_engine(tmp_path / "absent.onnx", tmp_path / "plan")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match="not a whole exported folder"):
        build_engine(tmp_path / "folder", tmp_path / "plan")
    (tmp_path / "folder" / "export.json").write_bytes((folders["fp32"] / "export.json").read_bytes())
    (tmp_path / "folder" / "model.onnx").write_bytes((folders["fp32"] / "model.onnx").read_bytes()[:-1])
    with pytest.raises(ExportError, match="was cut or replaced"):
        build_engine(tmp_path / "folder", tmp_path / "plan")
    assert not (tmp_path / "plan").exists()


def _text(path: Path) -> Path:
    """What the parser takes for an empty model."""
    path.write_bytes(b"\x00not a model" * 50)
    return path


def _empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def _cut(path: Path) -> Path:
    path.write_bytes(linear(path).read_bytes()[:-20])
    return path


def _unknown_operator(path: Path) -> Path:
    node = helper.make_node("Sharpen", ["input"], ["embeddings"], name="sharpened", domain="shop")
    return write_model(path, [node], ["batch", 4], domain="shop")


def _antialias(path: Path) -> Path:
    """Resizes by the one option that TensorRT refuses, then keeps four values."""
    nodes = [
        helper.make_node("Resize", ["input", "", "", "sizes"], ["resized"], "smaller", mode="linear", antialias=1),
        helper.make_node("Flatten", ["resized"], ["embeddings"]),
    ]
    return write_model(path, nodes, [2, 1, 4, 4], {"sizes": np.array([2, 1, 2, 2], np.int64)})


@pytest.mark.parametrize(
    ("break_it", "batch", "message"),
    [
        (_cut, 10, r"TensorRT for RTX [\d.]+ cannot read .*model\.onnx: .*Failed to parse.*MODEL_DESERIALIZE_FAILED"),
        (_text, 10, r"finds no network in .*model\.onnx: the file is corrupt"),
        (_empty, 10, r"finds no network in .*model\.onnx: the file is corrupt"),
        (_unknown_operator, 10, r"cannot read .*operator Sharpen \(sharpened\)"),
        (_antialias, 2, r"cannot read .*operator Resize \(smaller\).*antialias"),
    ],
)
def test_a_file_that_the_parser_refuses_is_named(break_it: Any, batch: int, message: str, tmp_path: Path) -> None:
    model = break_it(tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=message):
        build_engine(model, tmp_path / "plan", batch, batch, batch, "sm80")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "plan.failed.log"]


def test_a_failed_build_leaves_its_log_alone_and_says_why(tmp_path: Path) -> None:
    """The file fits a batch of 4 alone, which shows only when the profile is built."""
    nodes = [helper.make_node("Reshape", ["input", "shape"], ["embeddings"])]
    model = write_model(tmp_path / "model.onnx", nodes, ["batch", 3], {"shape": np.array([3, 4], np.int64)})
    plan = tmp_path / "new" / "plan"
    log = plan.with_name("plan.failed.log")
    with pytest.raises(ExportError, match=r"built no engine from .*model\.onnx: \S+") as caught:
        build_engine(model, plan, targets="sm80")
    assert f"The whole log: {log}" in str(caught.value)
    assert "[ERROR]" in log.read_text() or "[INTERNAL_ERROR]" in log.read_text()
    assert list(log.parent.iterdir()) == [log]
    build_engine(model, plan, 4, 4, 4, targets="sm80")
    assert sorted(path.name for path in log.parent.iterdir()) == ["plan", "plan.json", "plan.log"]


def test_a_log_that_cannot_be_kept_does_not_hide_why_the_build_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensorrt, "write_text", full_disk)
    with pytest.raises(ExportError, match=r"finds no network in .*could not be kept: .*No space left"):
        build_engine(_empty(tmp_path / "model.onnx"), tmp_path / "plan", targets="sm80")


def test_a_killed_build_leaves_nothing(tmp_path: Path) -> None:
    model = linear(tmp_path / "model.onnx")
    script = (
        "import os, signal, sys\nfrom workbench.export import tensorrt\n"
        "tensorrt.publish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "tensorrt.build_engine(sys.argv[1], sys.argv[2], targets='sm80')\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(model), str(tmp_path / "plan")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == [model]


@pytest.mark.parametrize("num_placed", [0, 1, 2])
def test_an_error_between_two_files_takes_all_back(
    num_placed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = tensorrt_plan.os.rename
    seen: list[Path] = []

    def full_disk(source: Path, target: Path) -> None:
        if len(seen) == num_placed:
            raise OSError(28, "No space left on device")
        seen.append(target)
        rename(source, target)

    model = linear(tmp_path / "model.onnx")
    monkeypatch.setattr("workbench.export.tensorrt_plan.os.rename", full_disk)
    with pytest.raises(OSError, match="No space left"):
        build_engine(model, tmp_path / "plan", targets="sm80")
    assert len(seen) == num_placed
    assert list(tmp_path.iterdir()) == [model]


def test_of_two_builds_at_once_one_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / name for name in ("plan.log", "plan.json", "plan")]
    rename = tensorrt_plan.os.rename

    def rename_late(source: Path, target: Path) -> None:
        monkeypatch.setattr("workbench.export.tensorrt_plan.os.rename", rename)
        with pytest.raises(FileExistsError, match=r"plan\.log has appeared during the build"):
            tensorrt_plan.publish(paths, ["theirs", {"by": "them"}, b"theirs"])
        rename(source, target)

    monkeypatch.setattr("workbench.export.tensorrt_plan.os.rename", rename_late)
    tensorrt_plan.publish(paths, ["mine", {"by": "me"}, b"mine"])
    assert [path.read_text().strip() for path in (paths[0], paths[2])] == ["mine", "mine"]
    assert json.loads(paths[1].read_text()) == {"by": "me"}
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_int8_for_another_runtime_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["int8"], tmp_path / "cpu"))
    told = json.loads((folder / "export.json").read_text())
    told["calibration"]["target"] = "cpu"
    (folder / "export.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"quantised for target 'cpu': .*quantise_onnx\(.*target='tensorrt'\)"):
        build_engine(folder, tmp_path / "plan")
    assert not (tmp_path / "plan").exists()


@pytest.mark.parametrize(
    ("zero_point", "refused"),
    [(np.uint8(0), True), (np.uint8(128), True), (np.int8(3), True), (np.int8(0), False)],
)
def test_zero_points_of_a_bare_file(zero_point: np.generic, refused: bool, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["whole"]),
        helper.make_node("DequantizeLinear", ["whole", "scale", "zero"], ["embeddings"]),
    ]
    numbers = {"scale": np.array(0.5, np.float32), "zero": np.array(zero_point)}
    model = write_model(tmp_path / "model.onnx", nodes, ["batch", 4], numbers)
    if not refused:
        assert build_engine(model, tmp_path / "plan", targets="sm80")["layers"]["types"]["QUANTIZE"] == 1
        return
    with pytest.raises(ValueError, match=r"unsigned numbers or zero points other than 0.*target='tensorrt'"):
        build_engine(model, tmp_path / "plan", targets="sm80")
    assert list(tmp_path.iterdir()) == [model]


def test_a_fixed_batch_is_taken_as_it_is(tmp_path: Path) -> None:
    model = linear(tmp_path / "model.onnx", batch=4)
    with pytest.raises(ValueError, match="takes batches of 4 only"):
        build_engine(model, tmp_path / "plan", targets="sm80")
    assert build_engine(model, tmp_path / "plan", 4, 4, 4, "sm80")["profile"]["shape"] == [4, 3]


def test_more_than_the_batch_may_not_be_open(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["input"], ["embeddings"])
    with pytest.raises(ValueError, match=r"Only the batch may be of any size; .*\[-1, -1\]"):
        build_engine(
            write_model(tmp_path / "model.onnx", [node], ["batch", "width"]), tmp_path / "plan", targets="sm80"
        )


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ExportError, match=r"^TensorRT is wanted and cannot be imported .*install NVIDIA's package tensorrt"
    ):
        build_engine(linear(tmp_path / "model.onnx"), tmp_path / "plan", builder="tensorrt")
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ExportError, match=r"TensorRT for RTX or TensorRT is wanted.*pip install tensorrt-rtx-cu13-bindings"
    ):
        find_package()
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="0"))
    with pytest.raises(ExportError, match="tensorrt holds no Builder: a placeholder"):
        find_package("tensorrt")


def test_full_tensorrt_wants_its_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the bindings at hand, under the other's name: the path up to the builder is one."""
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(**vars(rtx)))
    package, model = find_package("tensorrt"), linear(tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=r"Building by TensorRT [\d.]+ needs an NVIDIA GPU.*builder='tensorrt_rtx'"):
        build_engine(model, tmp_path / "plan", builder="tensorrt")
    with pytest.raises(ExportError, match=r"'current' needs an NVIDIA GPU.*name the targets"):
        choose_targets(find_package("tensorrt_rtx"), "current")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert choose_targets(package, None) == choose_targets(package, "sm90") == ("sm90",)
    with pytest.raises(ValueError, match="for the GPU at hand, sm90, alone; found sm86"):
        choose_targets(package, ("sm86", "sm90"))
    with pytest.raises(ValueError, match=r"no engines for sm90 \(Hopper"):
        choose_targets(find_package("tensorrt_rtx"), "current")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (12, 0))
    assert choose_targets(find_package("tensorrt_rtx"), "current") == ("sm120",)


class FakeConfig:
    """A builder's timing cache as full TensorRT has it: of what it did not write itself, it refuses the content."""

    def create_timing_cache(self, content: bytes) -> SimpleNamespace:
        return SimpleNamespace(content=content)

    def set_timing_cache(self, cache: SimpleNamespace, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        return cache.content in (b"", b"timings")


def test_a_timing_cache_is_reused_begun_or_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(**vars(rtx)))
    package, file = find_package("tensorrt"), tmp_path / "cache"
    assert tensorrt._attach_cache(package, FakeConfig(), None) == (None, "not asked for")
    cache, words = tensorrt._attach_cache(package, FakeConfig(), file)
    assert (cache.content, words) == (b"", "begun")
    file.write_bytes(b"timings")
    cache, words = tensorrt._attach_cache(package, FakeConfig(), file)
    assert (cache.content, words) == (b"timings", "reused, 7 bytes")
    file.write_bytes(b"garbage")
    cache, words = tensorrt._attach_cache(package, FakeConfig(), file)
    assert cache.content == b""
    assert words.startswith("begun anew")
    report = build_engine(linear(tmp_path / "model.onnx"), tmp_path / "plan", targets="sm80", timing_cache=file)
    assert "times nothing while it builds" in report["timing_cache"]
    assert report["not_available"]["timing cache"] == report["timing_cache"]
    assert file.read_bytes() == b"garbage"


def test_a_plan_is_known_again_and_wants_a_gpu(folders: dict[str, Path], built: Path) -> None:
    for opening in (
        lambda: open_exported(folders["fp32"], "tensorrt", plan=built),
        lambda: open_any(str(folders["fp32"]), runtime="tensorrt", plan=built),
        lambda: open_session(built, "tensorrt"),
    ):
        with pytest.raises(
            ExportError, match=r"Running .*model\.plan .*needs an NVIDIA GPU.*take onnxruntime or openvino"
        ):
            opening()
    with pytest.raises(ExportError, match="was built from another ONNX file"):
        open_exported(folders["fp16"], "tensorrt", plan=built)


@pytest.mark.parametrize(("runtime", "plan"), [("tensorrt", None), ("onnxruntime", "plan")])
def test_plan_and_runtime_belong_together(runtime: str, plan: str | None, folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=f"needs a plan .*, others take none; found runtime '{runtime}'"):
        open_exported(folders["fp32"], runtime, plan=plan)


def test_a_corrupt_plan_or_report_is_named(built: Path, tmp_path: Path) -> None:
    plan, told = tmp_path / "model.plan", tmp_path / "model.plan.json"
    plan.write_bytes(built.read_bytes()[:-1])
    with pytest.raises(FileNotFoundError, match=r"there is no .*model\.plan\.json"):
        open_session(plan, "tensorrt")
    told.write_bytes(built.with_name("model.plan.json").read_bytes())
    with pytest.raises(ExportError, match="with another SHA-256: the plan is corrupt"):
        open_session(plan, "tensorrt")
    plan.write_bytes(built.read_bytes())
    assert read_report(plan)["profile"]["max_batch"] == 4
    for content, message in (("{", "is not JSON"), ("[]", "has format None"), ('{"format": "x"}', "has format 'x'")):
        told.write_text(content)
        with pytest.raises(ExportError, match=message):
            open_session(plan, "tensorrt")
    plan.unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no .*model\.plan:"):
        read_report(plan)


@pytest.mark.parametrize(("num", "allowed"), [(0, False), (1, False), (2, True), (8, True), (9, False)])
def test_a_batch_beyond_the_profile_is_refused(num: int, allowed: bool) -> None:
    if allowed:
        check_batch(num, 2, 8)
        return
    with pytest.raises(ValueError, match=f"batches of 2 to 8 images; found {num}: split the batch"):
        check_batch(num, 2, 8)


@given(num=st.integers(1, 40), bounds=st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_parts_fit_the_profile_and_answer_as_one(num: int, bounds: tuple[int, int]) -> None:
    low, high = sorted(bounds)
    asked = []

    def session(part: np.ndarray) -> np.ndarray:
        check_batch(len(part), low, high)
        asked.append(len(part))
        return part * 2.0

    batch = np.arange(num * 2, dtype=np.float32).reshape(num, 2)
    np.testing.assert_array_equal(answer_in_parts(session, batch, low, high), batch * 2)
    assert len(asked) == -(-num // high)


def test_the_counterparts_name_every_field_and_our_defaults_are_the_code() -> None:
    table = gen_trt_engine_counterparts().set_index("gen_trt_engine")
    fields = ["gpu_id", "onnx_file", "trt_engine", "data_type", "workspace_size", "min_batch_size", "opt_batch_size"]
    assert table.index.tolist() == [*fields, "max_batch_size", "inference topk"]
    assert build_engine.__kwdefaults__ is not None
    defaults = dict(zip(build_engine.__code__.co_varnames[2:], build_engine.__defaults__ or (), strict=False))
    defaults |= build_engine.__kwdefaults__
    for field in ("min_batch", "opt_batch", "max_batch"):
        row = table.loc[f"{field}_size"]
        assert row["here"] == f"build_engine({field})"
        assert row["our default"] == row["their default"] == str(defaults[field])
    assert table.loc["workspace_size", "our default"] == str(defaults["workspace_mib"]) == "1024"
    assert table.loc["data_type", "their default"] == "fp32"
    assert table.loc["inference topk", "our default"] == "5"


@pytest.mark.parametrize("batches", [[], [1, 10], [1, 2, 3, 4], [0, 1, 1], [2, 1, 3], [1, 3, 2]])
def test_a_profile_is_three_numbers_in_order(batches: list[int]) -> None:
    assert read_profile([1, 1, 8]) == {"min_batch": 1, "opt_batch": 1, "max_batch": 8}
    with pytest.raises(ValueError, match="Three batch sizes were wanted"):
        read_profile(batches)


def test_published_speeds_are_of_the_same_architecture_only() -> None:
    known = set(published_speed()["trunk"])
    for trunk, wanted in (
        ("timm:resnet101", "ResNet101"),
        ("timm:resnet50.a1_in1k", "ResNet50"),
        ("workbench:fan_base_hybrid", "FAN-Base-Hybrid"),
        ("workbench:nv_dinov2", "NV-DINOv2"),
    ):
        assert published_trunk(trunk) == wanted
        assert wanted in known
    for trunk in ("timm:resnet101d.ra2_in1k", "timm:test_resnet", "open_clip:ViT-L-14/openai", "open_clip:RN50"):
        assert published_trunk(trunk) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision", "size"),
    [
        ("timm:test_vit", "fp16", (32, 32)),
        ("timm:test_vit", "int8", (32, 32)),
        ("timm:test_convnext", "fp16", (64, 64)),
        ("timm:vit_small_patch14_dinov2", "fp16", (42, 42)),
        ("timm:resnet50", "fp16", (256, 128)),
        ("open_clip:ViT-S-32-alt", "fp16", (64, 64)),
        ("workbench:fan_base_hybrid", "fp16", (64, 32)),
    ],
)
def test_families_become_engines(
    name: str, precision: str, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # narrow, with FAN-B's heads of 56 channels and its class attention
    monkeypatch.setattr(nvidia, "fan_base_hybrid", lambda: FAN((8, 12), 1, 112, 2, 1, 2))
    made = export_onnx(
        embedder(name, image_size=size), tmp_path / "exported", "fp16" if precision == "fp16" else "fp32"
    )
    if precision == "int8":
        made = quantise_onnx(made, tmp_path / "int8", catalog_of(tmp_path), target="tensorrt")
    report = build_engine(made, tmp_path / "plan")
    assert report["precisions"]["HALF" if precision == "fp16" else "INT8"] > 5
    assert report["outputs"][0]["dtype"] == "FLOAT"
    assert report["plan"]["bytes"] > 100_000
