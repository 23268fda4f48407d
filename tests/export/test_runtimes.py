import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from workbench.data.catalog import Catalog
from workbench.export.folder import ExportError, is_exported, read_described
from workbench.export.onnx import export_onnx
from workbench.export.randomise import randomise_scales
from workbench.export.runtimes import ExportedEmbedder, open_any, open_exported
from workbench.export.sessions import RUNTIMES, answer_apart, open_session
from workbench.models.embedder import Embedder, build_embedder, load_embedder
from workbench.retrieval.embed import embed_catalog

KINDS = ("float", "uint8", "raw")


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return randomise_scales(build_embedder("timm:test_resnet", "random", image_size=(48, 32), resize="pad", seed=4))


@pytest.fixture(scope="module")
def folders(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One export for each kind of input; the one of uint8 pixels leaves the L2 norm to the runtime."""
    place = tmp_path_factory.mktemp("exported")
    return {
        "float": export_onnx(embedder, place / "float"),
        "uint8": export_onnx(embedder, place / "uint8", input="uint8", normalised=False),
        "raw": export_onnx(embedder, place / "raw", input="raw"),
    }


def images(num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, 48, 32, 3), dtype=np.uint8)


def answer_of_torch(embedder: Embedder, images_NHWC: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return embedder(embedder.preprocessing.normalise(torch.from_numpy(images_NHWC))).numpy()


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("kind", KINDS)
def test_runtimes_answer_as_torch_at_every_batch(
    kind: str, runtime: str, embedder: Embedder, folders: dict[str, Path]
) -> None:
    opened = open_exported(folders[kind], runtime, num_threads=1)
    for size in (1, 3, 8):
        expected, found = answer_of_torch(embedder, images(size, size)), opened.embed(images(size, size))
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() <= 1e-5
        assert (found * expected).sum(1).min() >= 0.999999


def test_raw_pixels_and_normalised_floats_are_one_answer(folders: dict[str, Path]) -> None:
    from_float, from_uint8, from_raw = (open_exported(folders[kind]).embed(images(5)) for kind in KINDS)
    np.testing.assert_allclose(from_uint8, from_float, atol=1e-6)
    np.testing.assert_allclose(from_raw, from_float, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_catalog_is_embedded_from_the_file(
    kind: str, embedder: Embedder, folders: dict[str, Path], tmp_path: Path
) -> None:
    names = [f"{row}.png" for row in range(5)]
    for name, (height, width) in zip(names, [(40, 50), (90, 20), (48, 32), (10, 10), (33, 64)], strict=True):
        pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "3.png").write_bytes(b"no picture")
    frame = pd.DataFrame({"path": names, "label": list("aabbc"), "split": "train", "domain": "real", "source": "made"})
    frame["camera"] = pd.array([None] * 5, dtype="Int64")
    frame["group"] = pd.Series([None] * 5, dtype="str")
    catalog = Catalog(frame=frame, roots={"made": tmp_path}, cards={}, missing_splits={})
    options: dict[str, Any] = {"cache": tmp_path / "cache", "device": "cpu", "progress": None, "quarantine_limit": 0.5}
    expected = embed_catalog(embedder, catalog, batch_size=2, **options)
    opened = open_exported(folders[kind])
    for mirrored in (False, True):
        found = embed_catalog(opened, catalog, batch_size=2, mirrored=mirrored, **options)
        wanted = embed_catalog(embedder, catalog, batch_size=2, mirrored=mirrored, **options)
        np.testing.assert_allclose(found.embedding_ND, wanted.embedding_ND, atol=1e-5)
        assert found.catalog.frame["path"].tolist() == ["0.png", "1.png", "2.png", "4.png"]
        assert found.quarantine["path"].tolist() == ["3.png"]
    assert found.meta["embedder"] == opened.fingerprint() != expected.meta["embedder"]


def test_the_fingerprint_is_of_file_and_runtime(embedder: Embedder, folders: dict[str, Path]) -> None:
    opened = [open_exported(folders[kind], runtime) for kind in KINDS for runtime in RUNTIMES]
    assert len({one.fingerprint() for one in opened} | {embedder.fingerprint()}) == len(KINDS) * len(RUNTIMES) + 1
    assert opened[0].fingerprint() == open_exported(folders["float"], num_threads=1).fingerprint()


def test_open_any_takes_what_a_notebook_names(embedder: Embedder, folders: dict[str, Path], tmp_path: Path) -> None:
    saved = embedder.save(tmp_path / "saved")
    exported = open_any(str(folders["float"]), "random", runtime="openvino", image_size=(48, 32))
    assert isinstance(exported, ExportedEmbedder)
    assert exported.runtime.startswith("openvino 20")
    assert exported.preprocessing == embedder.preprocessing
    assert exported.embedding_dim == embedder.embedding_dim
    assert open_any(str(saved)).fingerprint() == load_embedder(saved).fingerprint()
    built = open_any("timm:test_resnet", "random", image_size=(32, 32))
    with pytest.raises(ValueError, match="openvino answers from an exported folder, and timm:test_resnet is none"):
        open_any("timm:test_resnet", "random", runtime="openvino")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.plan"):
        open_any(str(folders["float"]), runtime=str(tmp_path / "nowhere.plan"))
    assert built.preprocessing.image_size == (32, 32)
    assert [is_exported(place) for place in (folders["uint8"], saved, tmp_path / "absent")] == [True, False, False]


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("float", torch.zeros(2, 3, 32, 48), r"wants float32 \[B, 3, 48, 32\].*found float32 \[2, 3, 32, 48\]"),
        ("float", torch.zeros(2, 48, 32, 3, dtype=torch.uint8), r"wants float32 \[B, 3.*found uint8 \[2, 48, 32, 3\]"),
        ("uint8", torch.zeros(2, 3, 48, 32), r"wants uint8 \[B, 48, 32, 3\].*found float32 \[2, 3, 48, 32\]"),
        ("raw", torch.zeros(2, 48, 32, 3, dtype=torch.uint8), r"wants float32 \[B, 3, 48, 32\].*found uint8"),
        ("float", torch.zeros(0, 3, 48, 32), "B at least 1"),
        ("float", torch.zeros(3, 48, 32), "wants float32"),
    ],
)
def test_a_wrong_input_is_named(kind: str, given: torch.Tensor, message: str, folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=message):
        open_exported(folders[kind])(given)


@pytest.mark.parametrize("given", [images(2)[:, :32], images(2).astype(np.float32), images(1)[0], images(0)])
def test_wrong_images_are_named(given: np.ndarray, folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"wanted as uint8 \[B, 48, 32, 3\].*found (uint8|float32) \["):
        open_exported(folders["float"]).embed(given)


def _rewrite(folder: Path, **changed: Any) -> None:
    described = json.loads((folder / "export.json").read_text())
    described.update(changed)
    (folder / "export.json").write_text(
        json.dumps({key: value for key, value in described.items() if value is not None})
    )


def _cut(folder: Path) -> None:
    (folder / "model.onnx").write_bytes((folder / "model.onnx").read_bytes()[:-1000])


def _flip(folder: Path) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 255
    (folder / "model.onnx").write_bytes(bytes(content))


def _swap(folder: Path) -> None:
    """Garbage that export.json vouches for: only the runtime can tell."""
    content = b"\x00not a model" * 50
    (folder / "model.onnx").write_bytes(content)
    _rewrite(folder, files={"model.onnx": {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}})


@pytest.mark.parametrize(
    ("break_it", "error", "message"),
    [
        (shutil.rmtree, FileNotFoundError, "there is no folder"),
        (
            lambda folder: (folder / "model.onnx").unlink(),
            FileNotFoundError,
            r"whole exported folder: model\.onnx missing",
        ),
        (lambda folder: (folder / "export.json").unlink(), FileNotFoundError, r"folder: export\.json missing"),
        (lambda folder: (folder / "export.json").write_bytes(b"{\xff"), ExportError, "is not JSON"),
        (lambda folder: (folder / "export.json").write_text("[]"), ExportError, "has format None, version None"),
        (lambda folder: _rewrite(folder, format_version=2), ExportError, "version 2; this workbench reads .*version 1"),
        (lambda folder: _rewrite(folder, format="other"), ExportError, "has format 'other'"),
        (lambda folder: _rewrite(folder, normalised=None), ExportError, "does not state normalised"),
        (_cut, ExportError, "was cut or replaced"),
        (_flip, ExportError, "SHA-256 differs"),
    ],
)
def test_a_broken_folder_is_named(
    break_it: Callable[[Path], object],
    error: type[Exception],
    message: str,
    folders: dict[str, Path],
    tmp_path: Path,
) -> None:
    folder = Path(shutil.copytree(folders["float"], tmp_path / "broken"))
    assert read_described(folder)["input"] == "float"
    break_it(folder)
    with pytest.raises(error, match=message):
        open_exported(folder)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_file_that_the_runtime_cannot_read_is_named(runtime: str, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["float"], tmp_path / "broken"))
    _swap(folder)
    with pytest.raises(ExportError, match=rf"{runtime} [\d.]+ cannot open .*model\.onnx: .*Export the embedder again"):
        open_exported(folder, runtime)


def test_a_failed_process_says_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"garbage")
    with pytest.raises(ExportError, match=r"onnxruntime failed on model\.onnx \(exit code 1\): .*cannot open"):
        answer_apart(tmp_path / "model.onnx", [images(1)])


def test_a_crashed_process_is_an_error(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = tmp_path / "onnxruntime.py"
    crash.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ExportError, match=r"onnxruntime failed on model\.onnx \(SIGSEGV\)"):
        answer_apart(folders["float"] / "model.onnx", [images(1)])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_missing_package_is_named(runtime: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, runtime, None)
    with pytest.raises(ExportError, match=rf"{runtime} is wanted and cannot be imported .*pip install {runtime}"):
        open_exported(folders["float"], runtime)


def test_wrong_runtimes_and_threads_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="one of onnxruntime, openvino, tensorrt; found 'tensorflow'"):
        open_exported(folders["float"], "tensorflow")
    with pytest.raises(ValueError, match="num_threads is at least 1"):
        open_session(folders["float"] / "model.onnx", num_threads=0)


def test_an_exported_embedder_is_not_saved(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="copy its folder"):
        open_exported(folders["float"]).save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []
