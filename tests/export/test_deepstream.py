import configparser
import ctypes
import hashlib
import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from workbench.export.bundle import check_bundle
from workbench.export.deepstream import deepstream_config
from workbench.export.deepstream_lookup import read_embedding
from workbench.export.deepstream_text import escape_label
from workbench.export.folder import ExportError
from workbench.export.onnx import export_onnx
from workbench.export.randomise import randomise_scales
from workbench.export.tensorrt_plan import PLAN_FORMAT, PLAN_FORMAT_VERSION
from workbench.models.embedder import Embedder, build_embedder
from workbench.retrieval.arrays import normalise
from workbench.retrieval.gallery import Gallery
from workbench.retrieval.gallery_folder import GalleryError

CARD = "# A card\n"
ODD_LABELS = [
    "milk;cheese",
    "milk\ncheese",
    "milk\\u000acheese",
    "Käse 1 l",
    " <b>",
    "tab\t",
    "line\u2028",
    "\U0001f95b",
    "007",
]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return randomise_scales(build_embedder("timm:test_resnet", "random", image_size=(48, 32), resize="pad", seed=4))


@pytest.fixture(scope="module")
def exported(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(embedder, tmp_path_factory.mktemp("exported") / "raw", input="raw")


@pytest.fixture
def gallery(embedder: Embedder, tmp_path: Path) -> Path:
    """A reference a label along the axes of the embedding; the threshold for 1 % false accepts is 0.75."""
    made = Gallery.build(np.eye(len(ODD_LABELS), embedder.embedding_dim), ODD_LABELS)
    share = {"value": 0.01, "low": 0.0, "high": 0.03, "n": 100, "protocol": "val:real"}
    row = {"rate": 0.01, "threshold": 0.75, "false_accepts": share, "right_accepted": share}
    made.about = {
        "embedder": embedder.fingerprint(),
        "measured": {"how": "val:real", "version": 1, "num_unknown": 100, "false_accepts": [row]},
    }
    made.save(tmp_path / "shop")
    return tmp_path / "shop"


def as_if(exported: Path, folder: Path, **changed: Any) -> Path:
    """The exported folder with other statements in export.json: the file itself stays, and with it the sums."""
    shutil.copytree(exported, folder)
    described = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps({**described, **changed}))
    return folder


def read_config(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.read_string(path.read_text(encoding="utf-8"))
    return parser


def test_the_configuration_is_what_nvinfer_wants_of_an_embedder(exported: Path, tmp_path: Path) -> None:
    folder = deepstream_config(
        exported, tmp_path / "bundle", card=CARD, max_batch=8, gie_unique_id=5, operate_on_gie_id=3
    )
    parser = read_config(folder / "config_sgie_embedder.txt")
    assert parser.sections() == ["property"]
    assert dict(parser["property"]) == {
        "gpu-id": "0",
        "onnx-file": "model.onnx",
        "batch-size": "8",
        "network-mode": "0",  # fp32
        "process-mode": "2",  # on objects, not on frames
        "network-type": "100",  # no parser: neither detector nor classifier
        "output-tensor-meta": "1",  # the tensor is handed on with the object
        "classifier-threshold": "0",
        "model-color-format": "0",  # RGB
        "infer-dims": "3;48;32",  # channels, height, width
        "net-scale-factor": "1.0",  # the file takes 0 to 255 as they are
        "maintain-aspect-ratio": "1",  # the preprocessing pads, on both sides
        "symmetric-padding": "1",
        "scaling-filter": "1",  # bilinear
        "output-blob-names": "embeddings",
        "gie-unique-id": "5",
        "operate-on-gie-id": "3",
    }
    fragment = read_config(folder / "deepstream_app_fragment.txt")
    assert {name: dict(fragment[name]) for name in fragment.sections()} == {
        "secondary-gie0": {
            "enable": "1",
            "gpu-id": "0",
            "batch-size": "8",
            "gie-unique-id": "5",
            "operate-on-gie-id": "3",
            "config-file": "config_sgie_embedder.txt",
        }
    }
    names = {
        "model.onnx",
        "export.json",
        "config_sgie_embedder.txt",
        "deepstream_app_fragment.txt",
        "bundle.json",
        "README.md",
    }
    assert {path.name for path in folder.iterdir()} == names | {"MODEL_CARD.md", "SHA256SUMS"}
    check_bundle(folder)
    assert (folder / "model.onnx").read_bytes() == (exported / "model.onnx").read_bytes()
    assert "No gallery came along" in (folder / "README.md").read_text()


def test_the_file_in_the_bundle_answers_as_torch_to_what_nvinfer_feeds(
    embedder: Embedder, exported: Path, tmp_path: Path
) -> None:
    folder = deepstream_config(exported, tmp_path / "bundle", card=CARD)
    settings = read_config(folder / "config_sgie_embedder.txt")["property"]
    session = onnxruntime.InferenceSession(folder / settings["onnx-file"], providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    channels, height, width = map(int, settings["infer-dims"].split(";"))
    assert (given.name, given.type, given.shape[1:]) == ("input", "tensor(float)", [channels, height, width])
    images = np.random.default_rng(3).integers(0, 256, (5, height, width, 3), dtype=np.uint8)
    fed = np.float32(settings["net-scale-factor"]) * images.transpose(0, 3, 1, 2).astype(np.float32)
    (found,) = session.run([settings["output-blob-names"]], {"input": fed})
    with torch.no_grad():
        expected = embedder(embedder.preprocessing.normalise(torch.from_numpy(images))).numpy()
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-5
    assert np.abs(expected[0] - expected[1]).max() > 1e-4, "the pictures cannot be told apart"


def preprocessing(exported: Path, **changed: Any) -> dict[str, Any]:
    return {**json.loads((exported / "export.json").read_text())["preprocessing"], **changed}


def test_one_std_for_all_channels_is_fed_exactly(exported: Path, tmp_path: Path) -> None:
    clear = preprocessing(exported, mean=[0.5, 0.4, 0.2], std=[0.5, 0.5, 0.5], resize="squash")
    floats = as_if(exported, tmp_path / "float", input="float", preprocessing=clear)
    settings = read_config(deepstream_config(floats, tmp_path / "bundle", card=CARD) / "config_sgie_embedder.txt")[
        "property"
    ]
    assert settings["offsets"] == "127.5;102.0;51.0"
    assert float(settings["net-scale-factor"]) == pytest.approx(1 / 127.5, rel=1e-15)
    assert settings["maintain-aspect-ratio"] == "0"
    assert "symmetric-padding" not in settings
    pixel = np.array([0.0, 255.0, 51.0])
    fed = (pixel - np.array(settings["offsets"].split(";"), float)) * float(settings["net-scale-factor"])
    np.testing.assert_allclose(fed, [-1.0, 1.2, 0.0], atol=1e-15)


def test_an_input_that_nvinfer_cannot_feed_is_refused_with_the_way_out(exported: Path, tmp_path: Path) -> None:
    std = preprocessing(exported, std=[0.229, 0.224, 0.225])
    unequal = as_if(exported, tmp_path / "float", input="float", preprocessing=std)
    with pytest.raises(ValueError, match=r'one scale for three channels.*0\.229.*input="raw".*0\.99978'):
        deepstream_config(unequal, tmp_path / "out" / "bundle", card=CARD)
    with pytest.raises(ValueError, match=r'this file wants uint8: export the embedder with input="raw"'):
        deepstream_config(as_if(exported, tmp_path / "uint8", input="uint8"), tmp_path / "out" / "bundle", card=CARD)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("precision", "mode"), [("fp32", "0"), ("fp16", "2")])
def test_the_mode_is_that_of_the_file(precision: str, mode: str, exported: Path, tmp_path: Path) -> None:
    folder = deepstream_config(as_if(exported, tmp_path / "as", precision=precision), tmp_path / "bundle", card=CARD)
    assert read_config(folder / "config_sgie_embedder.txt")["property"]["network-mode"] == mode


def build_plan(exported: Path, folder: Path, **report: Any) -> Path:
    """A plan with the report that `build_engine` writes beside it; only what DeepStream asks for, and no engine inside."""
    folder.mkdir()
    (folder / "embedder.plan").write_bytes(b"a plan")
    told = {
        "format": PLAN_FORMAT,
        "format_version": PLAN_FORMAT_VERSION,
        "builder": {"name": "TensorRT", "package": "tensorrt", "version": "10"},
        "profile": {"max_batch": 16},
        "onnx": {"sha256": hashlib.sha256((exported / "model.onnx").read_bytes()).hexdigest()},
        "plan": {"bytes": 6, "sha256": hashlib.sha256(b"a plan").hexdigest()},
    }
    (folder / "embedder.plan.json").write_text(json.dumps(told | report))
    return folder / "embedder.plan"


def test_a_plan_goes_along_with_its_report(exported: Path, tmp_path: Path) -> None:
    int8 = as_if(exported, tmp_path / "int8", precision="int8", calibration={"target": "tensorrt"})
    plan = build_plan(exported, tmp_path / "built", targets=["sm80"])
    folder = deepstream_config(int8, tmp_path / "bundle", card=CARD, plan=plan)
    settings = read_config(folder / "config_sgie_embedder.txt")["property"]
    assert (settings["network-mode"], settings["model-engine-file"]) == ("1", "model.plan")
    assert (folder / "model.plan").read_bytes() == b"a plan"
    report = json.loads((folder / "model.plan.json").read_text())
    assert (report["targets"], report["profile"]) == (["sm80"], {"max_batch": 16})
    check_bundle(folder)


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (
            {"builder": {"name": "TensorRT for RTX", "package": "tensorrt_rtx"}},
            "built by TensorRT for RTX: DeepStream runs plans of full TensorRT",
        ),
        ({"profile": {"max_batch": 15}}, "takes batches of at most 15; max_batch is 16"),
        ({"onnx": {"sha256": "0" * 64}}, "built from another ONNX file"),
    ],
)
def test_a_plan_that_deepstream_cannot_run_is_refused(
    report: dict[str, Any], message: str, exported: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        deepstream_config(
            exported, tmp_path / "bundle", card=CARD, plan=build_plan(exported, tmp_path / "built", **report)
        )
    assert not (tmp_path / "bundle").exists()


def test_a_corrupt_plan_or_one_without_its_report_is_refused(exported: Path, tmp_path: Path) -> None:
    plan = build_plan(exported, tmp_path / "built")
    plan.write_bytes(b"a plam")
    with pytest.raises(ExportError, match="corrupt or another one"):
        deepstream_config(exported, tmp_path / "bundle", card=CARD, plan=plan)
    plan.with_name("embedder.plan.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"embedder\.plan\.json"):
        deepstream_config(exported, tmp_path / "bundle", card=CARD, plan=plan)


def test_int8_wants_a_plan_and_the_calibration_of_tensorrt(exported: Path, tmp_path: Path) -> None:
    for_gpu = as_if(exported, tmp_path / "gpu", precision="int8", calibration={"target": "tensorrt"})
    with pytest.raises(ValueError, match="build a plan and give it"):
        deepstream_config(for_gpu, tmp_path / "bundle", card=CARD)
    for_cpu = as_if(exported, tmp_path / "cpu", precision="int8", calibration={"target": "cpu"})
    with pytest.raises(ValueError, match=r'quantise the embedder with target="tensorrt"'):
        deepstream_config(for_cpu, tmp_path / "bundle", card=CARD)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_batch": 0}, "max_batch is at least 1; found 0"),
        ({"gie_unique_id": 0}, "gie_unique_id is at least 1"),
        ({"gie_unique_id": 1}, "both 1; a GIE cannot work on its own objects"),
        ({"threshold": 0.5}, "A threshold needs a gallery"),
    ],
)
def test_wrong_arguments_are_named(given: dict[str, Any], message: str, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        deepstream_config(exported, tmp_path / "out" / "bundle", card=CARD, **given)
    assert not (tmp_path / "out").exists()


def test_a_changed_export_and_a_broken_gallery_leave_no_bundle(exported: Path, gallery: Path, tmp_path: Path) -> None:
    changed = as_if(exported, tmp_path / "changed")
    (changed / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ExportError, match="cut or replaced"):
        deepstream_config(changed, tmp_path / "out" / "bundle", card=CARD)
    (gallery / "manifest.json").write_text("{")
    with pytest.raises(GalleryError, match="damaged"):
        deepstream_config(exported, tmp_path / "out" / "bundle", card=CARD, gallery=gallery)
    assert not (tmp_path / "out").exists()


def test_a_gallery_without_a_threshold_or_with_a_label_unknown_is_refused(
    embedder: Embedder, exported: Path, tmp_path: Path
) -> None:
    for name, labels, threshold, message in (
        ("bare", ["a", "b"], None, "keeps no measured threshold"),
        ("unknown", ["a", "unknown"], 0.5, "label 'unknown'"),
    ):
        Gallery.build(np.eye(2, embedder.embedding_dim), labels).save(tmp_path / name)
        with pytest.raises(ValueError, match=message):
            deepstream_config(exported, tmp_path / "out" / "b", card=CARD, gallery=tmp_path / name, threshold=threshold)
    assert not (tmp_path / "out").exists()


def read_as_nvinfer(path: Path) -> list[str]:
    """Labels are parted by newlines and, within a line, by semicolons."""
    return [label for line in path.read_bytes().split(b"\n")[:-1] for label in line.decode().split(";")]


def test_labels_stay_apart_and_can_be_read_back(exported: Path, gallery: Path, tmp_path: Path) -> None:
    folder = deepstream_config(exported, tmp_path / "bundle", card=CARD, gallery=gallery)
    assert read_config(folder / "config_sgie_embedder.txt")["property"]["labelfile-path"] == "labels.txt"
    lines = read_as_nvinfer(folder / "labels.txt")
    assert json.loads((folder / "labels.json").read_text()) == ODD_LABELS
    assert lines[:4] == ["milk\\u003bcheese", "milk\\u000acheese", "milk\\u005cu000acheese", "Käse 1 l"]
    assert lines[4:] == [" <b>", "tab\\u0009", "line\\u2028", "\U0001f95b", "007"]
    back = [re.sub(r"\\u(.{4})|\\U(.{8})", lambda m: chr(int(m[1] or m[2], 16)), line) for line in lines]
    assert back == ODD_LABELS
    assert (folder / "labels.txt").read_text().splitlines() == lines, "Python parts the same lines"
    assert escape_label("\U000e0001") == "\\U000e0001"


class FakePyds(SimpleNamespace):
    """The few calls of DeepStream's bindings that the lookup makes, over real memory."""

    def __init__(self) -> None:
        super().__init__(NvDsMetaType=SimpleNamespace(NVDSINFER_TENSOR_OUTPUT_META=12))
        self.NvDsUserMeta = self.NvDsInferTensorMeta = SimpleNamespace(cast=lambda data: data)

    @staticmethod
    def get_nvds_LayerInfo(tensor_meta: Any, place: int) -> Any:
        return tensor_meta.layers[place]

    @staticmethod
    def get_ptr(buffer: np.ndarray) -> int:
        return int(buffer.ctypes.data)


def object_meta(*tensors: tuple[int, int, dict[str, np.ndarray]]) -> Any:
    """An object with a chain of user metadata: type, GIE, and the layers by name."""
    link = None
    for meta_type, unique_id, layers in reversed(tensors):
        named = [SimpleNamespace(layerName=name, buffer=values) for name, values in layers.items()]
        tensor_meta = SimpleNamespace(unique_id=unique_id, num_output_layers=len(named), layers=named)
        user_meta = SimpleNamespace(base_meta=SimpleNamespace(meta_type=meta_type), user_meta_data=tensor_meta)
        link = SimpleNamespace(data=user_meta, next=link)
    return SimpleNamespace(obj_user_meta_list=link)


def import_lookup(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("deepstream_lookup", folder / "deepstream_lookup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lines_of_the_readme_answer_with_labels_and_unknown(
    exported: Path, gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = deepstream_config(exported, tmp_path / "bundle", card=CARD, gallery=gallery)
    dim = json.loads((folder / "bundle.json").read_text())["embedding_dim"]
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.setitem(sys.modules, "pyds", FakePyds())
    monkeypatch.setitem(sys.modules, "deepstream_lookup", import_lookup(folder))
    monkeypatch.chdir(folder)
    wrong, right = np.zeros(dim, np.float32), np.zeros(dim, np.float32)
    wrong[0], right[1] = 1, 20  # of any length
    others = (12, 7, {"embeddings": wrong}), (99, 2, {"embeddings": wrong})
    found: dict[str, Any] = {"object_meta": object_meta(*others, (12, 2, {"probs": wrong, "embeddings": right}))}
    exec(code, found)
    assert (found["label"], found["similarity"]) == ("milk\ncheese", 1.0)
    right[:] = 0
    right[2], right[3] = 3, 2.9  # cosine 3 / sqrt(9 + 8.41) = 0.719, under the threshold of 0.75
    exec(code, found)
    assert found["label"] == "unknown"
    assert found["similarity"] == pytest.approx(0.7190, abs=1e-4)
    alone: dict[str, Any] = {"object_meta": object_meta(*others)}
    exec(code, alone)
    assert alone["embedding"] is None


def test_the_embedding_is_a_copy(
    monkeypatch: pytest.MonkeyPatch, exported: Path, gallery: Path, tmp_path: Path
) -> None:
    lookup = import_lookup(deepstream_config(exported, tmp_path / "bundle", card=CARD, gallery=gallery))
    monkeypatch.setitem(sys.modules, "pyds", FakePyds())
    values = np.array([3, 4], dtype=np.float32)
    found = lookup.read_embedding(object_meta((12, 2, {"embeddings": values})), 2, 2)
    ctypes.memset(values.ctypes.data, 0, values.nbytes)
    np.testing.assert_allclose(found, [0.6, 0.8], atol=1e-7)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [([3e30, 4e30], [0.6, 0.8]), ([3e-40, -4e-40], [0.6, -0.8]), ([0.6, 0.8], [0.6, 0.8])],
)
def test_an_embedding_of_any_length_has_its_direction(
    values: list[float], wanted: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyds", FakePyds())
    held = np.array(values, dtype=np.float32)
    found = read_embedding(object_meta((12, 2, {"embeddings": held})), 2, 2)
    assert found is not None
    assert found.tolist() == pytest.approx(wanted, rel=1e-4)
    np.testing.assert_array_equal(found, normalise(held[None], "held")[0])
    for broken in ([0, 0], [np.nan, 1], [np.inf, 1]):
        with pytest.raises(ValueError, match="without a direction"):
            read_embedding(object_meta((12, 2, {"embeddings": np.array(broken, dtype=np.float32)})), 2, 2)


def test_the_threshold_is_the_measured_one_and_strict(exported: Path, gallery: Path, tmp_path: Path) -> None:
    folder = deepstream_config(exported, tmp_path / "bundle", card=CARD, gallery=gallery)
    settings = json.loads((folder / "bundle.json").read_text())
    assert settings["threshold"] == 0.75
    assert settings["threshold_from"] == "0.01 false accepts: 1.00% [0.00%, 3.00%], n = 100; val:real"
    answers = import_lookup(folder).Lookup(folder)
    query = np.zeros(settings["embedding_dim"], np.float32)
    query[0] = 0.75
    assert answers.answer(query) == ("unknown", 0.75)
    query[0] = np.nextafter(np.float32(0.75), np.float32(1))
    assert answers.answer(query)[0] == "milk;cheese"
    given = deepstream_config(exported, tmp_path / "given", card=CARD, gallery=gallery, threshold=-1)
    assert json.loads((given / "bundle.json").read_text())["threshold"] == -1


def _resize(**changed: Any) -> Callable[[Path], dict[str, Any]]:
    return lambda exported: preprocessing(exported, interpolation="bicubic", **changed)


def _crop(mode: str, share: float, fill: Sequence[int] = (0, 0, 0)) -> Callable[[Path], dict[str, Any]]:
    return _resize(resize="crop", crop_share=share, crop_mode=mode, fill=list(fill))


@pytest.mark.parametrize(
    ("changed", "words", "kept"),
    [
        (_resize(resize="squash"), [], "0"),
        (_resize(resize="crop", crop_share=0.875), ["0.875 of the shorter side", "nvinfer cannot cut"], "0"),
        (_crop("center", 0.9), ["0.9 of the shorter side", "nvinfer cannot cut"], "0"),
        (_crop("squash", 0.9), ["0.9 of each side", "nvinfer cannot cut"], "0"),
        (_crop("squash", 1.0), [], "0"),
        (_crop("border", 1.0, fill=[10, 20, 30]), ["colour 10, 20, 30; nvinfer fills with black"], "1"),
        (_crop("border", 1.0), [], "1"),
        (_resize(resize="pad", mean=[0.5, 0.4, 0.2]), ["colour 128, 102, 51; nvinfer fills with black"], "1"),
    ],
)
def test_what_nvinfer_does_otherwise_is_said(
    changed: Callable[[Path], dict[str, Any]], words: list[str], kept: str, exported: Path, tmp_path: Path
) -> None:
    folder = deepstream_config(
        as_if(exported, tmp_path / "as", preprocessing=changed(exported)), tmp_path / "bundle", card=CARD
    )
    config, readme = ((folder / name).read_text() for name in ("config_sgie_embedder.txt", "README.md"))
    for sentence in [*words, "bicubic with antialiasing", "was not measured"]:
        assert sentence in config
        assert sentence in readme
    assert ("cannot cut" in readme, "black" in readme) == (len(words) == 2, len(words) == 1)
    assert read_config(folder / "config_sgie_embedder.txt")["property"]["maintain-aspect-ratio"] == kept
