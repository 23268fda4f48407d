"""The bundle for Triton: what is in it, configs that Triton's own protobuf reads, and what is refused."""

import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from PIL import Image

from workbench.export.bundle import check_bundle
from workbench.export.folder import ExportError
from workbench.export.onnx import export_onnx
from workbench.export.runtimes import open_exported
from workbench.export.triton import triton_repository
from workbench.export.triton_models.preprocess import make_input
from workbench.export.triton_server import ENVIRONMENT, find_server
from workbench.models.embedder import Embedder, build_embedder
from workbench.retrieval.calibration import fit_calibration
from workbench.retrieval.gallery import Gallery
from workbench.retrieval.gallery_folder import GalleryError

CARD = "# A card\n"
HOSTILE = ["00012345678905", '=1+1,"x"\\', "<img src=x>", "a\r\nb\u2028c", "Süßes 東京 🥖", "$name ${TRITON_IMAGE}"]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return build_embedder("timm:test_resnet", "random", image_size=(48, 32), resize="pad", seed=4)


@pytest.fixture(scope="module")
def exported(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One export, and what folders of other kinds would state: nothing is computed from those here."""
    place = tmp_path_factory.mktemp("exported")
    made = {"float": export_onnx(embedder, place / "float")}
    for kind, stated in (
        ("uint8", {"input": "uint8"}),
        ("raw", {"input": "raw"}),
        ("fp16", {"precision": "fp16"}),
        ("unnormalised", {"normalised": False}),
    ):
        made[kind] = place / kind
        shutil.copytree(made["float"], made[kind])
        path = made[kind] / "export.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **stated}))
    return made


@pytest.fixture(scope="module")
def gallery(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six labels with two references each, and a calibration."""
    rng = np.random.default_rng(0)
    made = Gallery.build(rng.normal(size=(12, embedder.embedding_dim)), HOSTILE * 2)
    fitted = fit_calibration([0.1, 0.5, 0.8, 0.9], [0, 0, 1, 1])
    made.about |= {"embedder": embedder.fingerprint(), "calibration": fitted.to_dict()}
    folder = tmp_path_factory.mktemp("gallery") / "shop"
    made.save(folder)
    return folder


def write_plan(place: Path, exported: Path, package: str = "tensorrt", sha256: str = "", **batches: int) -> Path:
    """A file with the report of a build, as `build_engine` writes it; the builder itself wants a GPU."""
    plan = place / "model.plan"
    plan.write_bytes(b"an engine")
    onnx = json.loads((exported / "export.json").read_text())["files"]["model.onnx"]["sha256"]
    report = {
        "format": "workbench-tensorrt",
        "format_version": 1,
        "builder": {"name": {"tensorrt": "TensorRT"}.get(package, "TensorRT for RTX"), "package": package},
        "profile": {"min_batch": 1, "opt_batch": 4, "max_batch": 8, **batches},
        "onnx": {"sha256": sha256 or onnx},
        "plan": {"bytes": 9, "sha256": hashlib.sha256(b"an engine").hexdigest()},
    }
    (place / "model.plan.json").write_text(json.dumps(report))
    return plan


def parse_configs(bundle: Path) -> dict[str, dict[str, Any]]:
    """Each config.pbtxt read by Triton's own ModelConfig, in the environment that has it."""
    try:
        find_server()
    except ExportError as error:
        pytest.skip(f"TRITON'S PROTOBUF NOT ASKED: {error}")
    program = """
import json, sys
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2
for path in sys.argv[1:]:
    config = text_format.Parse(open(path, encoding="utf-8").read(), model_config_pb2.ModelConfig())
    print(json.dumps(json_format.MessageToDict(config, preserving_proto_field_name=True)))
"""
    paths = sorted(map(str, (bundle / "model_repository").glob("*/config.pbtxt")))
    command = [str(ENVIRONMENT / "bin" / "python"), "-c", program, *paths]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {config["name"]: config for config in map(json.loads, done.stdout.splitlines())}


def shape_of(tensors: list[dict[str, Any]]) -> dict[str, tuple[str, list[str]]]:
    return {one["name"]: (one["data_type"], one["dims"]) for one in tensors}


def test_the_config_for_onnxruntime_and_a_gallery(exported: dict[str, Path], gallery: Path, tmp_path: Path) -> None:
    bundle = triton_repository(
        exported["float"], tmp_path / "b", card=CARD, gallery=gallery, threshold=0.5, name="shop-1", max_batch=12, top=3
    )
    check_bundle(bundle)
    configs = parse_configs(bundle)
    assert sorted(configs) == ["shop-1", "shop-1_embedder", "shop-1_preprocess", "shop-1_recognise"]
    assert {config["max_batch_size"] for config in configs.values()} == {12}
    embedder = configs["shop-1_embedder"]
    assert (embedder["backend"], embedder["default_model_filename"]) == ("onnxruntime", "model.onnx")
    assert embedder["dynamic_batching"] == {"max_queue_delay_microseconds": "2000"}
    assert shape_of(embedder["input"]) == {"input": ("TYPE_FP32", ["3", "48", "32"])}
    assert shape_of(embedder["output"]) == {"embeddings": ("TYPE_FP32", ["96"])}
    assert [one["batch_size"] for one in embedder["model_warmup"]] == [1, 12]
    assert "kind" not in embedder["instance_group"][0]  # KIND_AUTO, the default: a GPU where there is one
    ensemble = configs["shop-1"]
    assert ensemble["platform"] == "ensemble"
    assert shape_of(ensemble["input"]) == {"image": ("TYPE_STRING", ["1"])}
    assert shape_of(ensemble["output"]) == {
        "embeddings": ("TYPE_FP32", ["96"]),
        "labels": ("TYPE_STRING", ["3"]),
        "similarities": ("TYPE_FP32", ["3"]),
        "decision": ("TYPE_STRING", ["1"]),
        "probability": ("TYPE_FP64", ["1"]),
    }
    steps = ensemble["ensemble_scheduling"]["step"]
    assert [step["model_name"] for step in steps] == ["shop-1_preprocess", "shop-1_embedder", "shop-1_recognise"]
    made = {"image"}
    for step in steps:  # every step takes what an earlier one gives, under the names of the model's own config
        config = configs[step["model_name"]]
        assert step["model_version"] == "-1"
        assert step["input_map"].keys() == shape_of(config["input"]).keys()
        assert step["output_map"].keys() == shape_of(config["output"]).keys()
        assert set(step["input_map"].values()) <= made
        made |= set(step["output_map"].values())
    assert set(shape_of(ensemble["output"])) <= made
    for name in ("preprocess", "recognise"):
        config = configs[f"shop-1_{name}"]
        assert (config["backend"], config["instance_group"][0]["kind"]) == ("python", "KIND_CPU")
    assert configs["shop-1_preprocess"]["instance_group"][0]["count"] == 4
    version = bundle / "model_repository" / "shop-1_embedder" / "1"
    assert (version / "model.onnx").read_bytes() == (exported["float"] / "model.onnx").read_bytes()
    assert json.loads((bundle / "model_repository/shop-1_recognise/1/recognise.json").read_text())["labels"] == HOSTILE


def test_the_config_for_a_plan(exported: dict[str, Path], tmp_path: Path) -> None:
    plan = write_plan(tmp_path, exported["uint8"])
    bundle = triton_repository(
        exported["uint8"], tmp_path / "b", card=CARD, backend="tensorrt", plan=plan, max_batch=8, max_delay_us=0
    )
    configs = parse_configs(bundle)
    assert sorted(configs) == ["workbench", "workbench_embedder", "workbench_preprocess"]
    embedder = configs["workbench_embedder"]
    assert (embedder["backend"], embedder["default_model_filename"]) == ("tensorrt", "model.plan")
    assert embedder["instance_group"] == [{"kind": "KIND_GPU", "count": 1}]
    assert shape_of(embedder["input"]) == {"input": ("TYPE_UINT8", ["48", "32", "3"])}
    assert "dynamic_batching" in embedder
    assert shape_of(configs["workbench"]["output"]) == {"embeddings": ("TYPE_FP32", ["96"])}
    version = bundle / "model_repository" / "workbench_embedder" / "1"
    assert (version / "model.plan").read_bytes() == b"an engine"
    assert not (version / "model.onnx").exists()


def test_fp16_wants_a_gpu_and_its_cpu_twin_a_workaround(exported: dict[str, Path], tmp_path: Path) -> None:
    production = triton_repository(exported["fp16"], tmp_path / "gpu", card=CARD)
    assert parse_configs(production)["workbench_embedder"]["instance_group"][0]["kind"] == "KIND_GPU"
    twin = triton_repository(exported["fp16"], tmp_path / "cpu", card=CARD, backend="python")
    assert parse_configs(twin)["workbench_embedder"]["backend"] == "python"
    said = json.loads((twin / "model_repository/workbench_embedder/1/embed.json").read_text())
    assert said["disabled_optimizers"] == ["MatmulTransposeFusion"]


def test_the_words_of_a_bundle_leave_nothing_open(exported: dict[str, Path], gallery: Path, tmp_path: Path) -> None:
    bundle = triton_repository(
        exported["float"],
        tmp_path / "b",
        card=CARD,
        gallery=gallery,
        threshold=0.25,
        unknown="nobody $name",
        backend="python",
    )
    readme, docker = (bundle / "README.md").read_text(), (bundle / "Dockerfile").read_text()
    assert re.findall(r"\$\w+", readme) == ["$name"]  # the user's own
    assert "above 0.25, else `nobody $name`" in readme
    assert "The threshold: as given." in readme
    assert "1 to 16 pictures" in readme
    assert "--gpus" not in readme
    assert re.findall(r"\$\S+", docker) == ["${TRITON_IMAGE}"]
    assert re.search(r"pip install --no-cache-dir numpy pillow==[\d.]+ onnxruntime==[\d.]+\n", docker)
    onnxruntime = triton_repository(exported["float"], tmp_path / "c", card=CARD)
    assert "docker run --rm --gpus=all" in (onnxruntime / "README.md").read_text()
    assert "onnxruntime" not in (onnxruntime / "Dockerfile").read_text()


def test_the_bundles_own_settings_make_the_exported_files_input(exported: dict[str, Path], tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))
    file = io.BytesIO()
    picture.save(file, "PNG")
    for kind in ("float", "uint8", "raw"):
        bundle = triton_repository(exported[kind], tmp_path / kind, card=CARD)
        settings = json.loads((bundle / "model_repository/workbench_preprocess/1/preprocess.json").read_text())
        preprocessing = open_exported(exported[kind]).preprocessing
        assert settings["decode_px"] == preprocessing.decode_px
        expected = preprocessing.normalise(torch.from_numpy(preprocessing.apply(picture).copy())[None]).numpy()
        np.testing.assert_array_equal(make_input([file.getvalue()], settings), expected)


def test_the_bundle_prepares_pictures_without_the_workbench(exported: dict[str, Path], tmp_path: Path) -> None:
    """In a Python that has neither the workbench nor torch nor pandas, as the server has not."""
    bundle = triton_repository(exported["uint8"], tmp_path / "b", card=CARD)
    folder = bundle / "model_repository" / "workbench_preprocess" / "1"
    file = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(file)
    code = """
import json, pathlib, sys
sys.meta_path = [finder for finder in sys.meta_path if "__editable__" not in str(finder)]
sys.modules |= {"torch": None, "pandas": None}
sys.path.append(sys.argv[1])
import model
settings = json.loads(pathlib.Path(sys.argv[1], "preprocess.json").read_text())
made = model.make_input([pathlib.Path(sys.argv[2]).read_bytes()], settings)
print(json.dumps([sys.modules["workbench.data.srgb"].__file__, made.tolist()]))
"""
    told = subprocess.run([sys.executable, "-IB", "-c", code, str(folder), str(file)], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    imported, made = json.loads(told.stdout)
    assert imported == str(folder / "workbench" / "data" / "srgb.py")
    assert made[0] == open_exported(exported["uint8"]).preprocessing.apply(Image.open(file)).tolist()
    check_bundle(bundle)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"backend": "openvino"}, "backend is one of onnxruntime, tensorrt, python; found 'openvino'"),
        ({"backend": "tensorrt"}, "The backend tensorrt serves a plan: give plan"),
        ({"plan": "model.plan"}, "A plan is served by the backend tensorrt, not onnxruntime"),
        ({"name": 'a"b'}, "name is a letter"),
        ({"name": "../up"}, "name is a letter"),
        ({"max_batch": 0}, "max_batch is a whole number of at least 1; found 0"),
        ({"max_batch": True}, "max_batch is a whole number"),
        ({"max_batch": 2.0}, "max_batch is a whole number"),
        ({"max_delay_us": -1}, "max_delay_us is a whole number of at least 0"),
        ({"num_decoders": 0}, "num_decoders is a whole number"),
        ({"max_pixels": 0}, "max_pixels is a whole number"),
        ({"top": 0}, "top is a whole number"),
        ({"threshold": 0.5}, "without a gallery"),
        ({"card": " \n"}, "model card is empty"),
    ],
)
def test_arguments_out_of_range_are_refused(
    given: dict[str, Any], said: str, exported: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        triton_repository(exported["float"], tmp_path / "b", **{"card": CARD, **given})
    assert list(tmp_path.iterdir()) == []


def other_embedder(gallery: Gallery) -> None:
    gallery.about["embedder"] = "0" * 64


def unknown_label(gallery: Gallery) -> None:
    gallery.add("unknown", np.eye(gallery.dim)[:1])


def margin(gallery: Gallery) -> None:
    fitted = fit_calibration([0.1, 0.5, 0.8, 0.9], [0, 0, 1, 1], margin_N=[0.1, 0.2, 0.3, 0.4])
    gallery.about["calibration"] = fitted.to_dict()


@pytest.mark.parametrize(
    ("spoil", "threshold", "said"),
    [
        (other_embedder, 0.5, "was made by another embedder"),
        (unknown_label, 0.5, "The gallery has the label 'unknown'"),
        (margin, 0.5, "calibration wants a margin"),
        (lambda gallery: None, None, "keeps no measured threshold"),
        (lambda gallery: None, 1.5, "from -1 to 1"),
    ],
)
def test_a_gallery_that_does_not_fit_is_refused(
    spoil: Callable[[Gallery], None],
    threshold: float | None,
    said: str,
    exported: dict[str, Path],
    gallery: Path,
    tmp_path: Path,
) -> None:
    spoilt = Gallery.load(gallery)
    spoil(spoilt)
    spoilt.save(tmp_path / "g")
    with pytest.raises(ValueError, match=said):
        triton_repository(exported["float"], tmp_path / "b", card=CARD, gallery=tmp_path / "g", threshold=threshold)
    assert [path.name for path in tmp_path.iterdir()] == ["g"]


def test_a_damaged_gallery_is_refused(exported: dict[str, Path], gallery: Path, tmp_path: Path) -> None:
    shutil.copytree(gallery, tmp_path / "g")
    (path,) = (tmp_path / "g").glob("*/embeddings.npy")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(GalleryError, match="damaged"):
        triton_repository(exported["float"], tmp_path / "b", card=CARD, gallery=tmp_path / "g", threshold=0.5)
    assert not (tmp_path / "b").exists()


def test_a_gallery_made_by_the_exported_file_is_taken(exported: dict[str, Path], gallery: Path, tmp_path: Path) -> None:
    made = Gallery.load(gallery)
    made.about["embedder"] = open_exported(exported["float"]).fingerprint()
    made.save(tmp_path / "g")
    triton_repository(exported["float"], tmp_path / "b", card=CARD, gallery=tmp_path / "g", threshold=0.5)
    check_bundle(tmp_path / "b")


def test_exported_folders_that_are_refused(exported: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"not normalised.*export with normalised=True"):
        triton_repository(exported["unnormalised"], tmp_path / "b", card=CARD)
    shutil.copytree(exported["float"], tmp_path / "e")
    model = tmp_path / "e" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    with pytest.raises(ExportError, match="changed after the export"):
        triton_repository(tmp_path / "e", tmp_path / "b", card=CARD)
    model.unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.onnx missing"):
        triton_repository(tmp_path / "e", tmp_path / "b", card=CARD)
    assert [path.name for path in tmp_path.iterdir()] == ["e"]
    triton_repository(exported["float"], tmp_path / "b", card=CARD)
    with pytest.raises(FileExistsError, match="exists already"):
        triton_repository(exported["float"], tmp_path / "b", card=CARD)
    check_bundle(tmp_path / "b")


def test_plans_that_do_not_fit_are_refused(exported: dict[str, Path], tmp_path: Path) -> None:
    def bundle(plan: Path, max_batch: int = 8) -> Path:
        return triton_repository(
            exported["float"], tmp_path / "b", card=CARD, backend="tensorrt", plan=plan, max_batch=max_batch
        )

    with pytest.raises(FileNotFoundError, match=r"there is no .*absent\.plan"):
        bundle(tmp_path / "absent.plan")
    folder = exported["float"]
    plan = write_plan(tmp_path, folder)
    with pytest.raises(ExportError, match="batches of 1 to 8, the server would send 1 to 9: give max_batch up to 8"):
        bundle(plan, 9)
    with pytest.raises(ExportError, match="batches of 2 to 8, the server would send 1 to 8"):
        bundle(write_plan(tmp_path, folder, min_batch=2))
    with pytest.raises(ExportError, match="built by TensorRT for RTX, whose engines Triton"):
        bundle(write_plan(tmp_path, folder, "tensorrt_rtx"))
    with pytest.raises(ExportError, match="built from another ONNX file"):
        bundle(write_plan(tmp_path, folder, sha256="0" * 64))
    write_plan(tmp_path, folder).write_bytes(b"an engin")
    with pytest.raises(ExportError, match="the plan is corrupt or another one"):
        bundle(plan)
    (tmp_path / "model.plan.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no .*model\.plan\.json"):
        bundle(plan)
    assert not (tmp_path / "b").exists()


def test_the_servers_lock_has_hashes_names_no_index_and_decodes_as_we_do() -> None:
    root = ENVIRONMENT.parent
    text = (root / "requirements-triton.lock").read_text()
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert re.search(r"://|--index|--find-links", text) is None
    pins: dict[str, Version] = {
        canonicalize_name(name): Version(pin) for name, pin in re.findall(r"^([\w.-]+)==([^ ;\\]+)", text, re.MULTILINE)
    }
    for stated in tomllib.loads((root / "pyproject.toml").read_text())["dependency-groups"]["triton"]:
        wanted = Requirement(stated)
        assert pins[canonicalize_name(wanted.name)] in wanted.specifier, f"{stated}: run `make lock`"
    for name in ("pillow", "onnxruntime"):  # the same pixels and the same arithmetic on both sides
        assert str(pins[name]) == re.findall(rf"^{name}==([^ ;\\]+)", (root / "requirements.lock").read_text(), re.M)[0]
