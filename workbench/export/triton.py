"""A bundle for NVIDIA's Triton server: pictures in over HTTP; embeddings, and with a gallery product names, out.

The model is an ensemble: `NAME_preprocess` (Python: decodes, resizes and normalises as the workbench does), `NAME_embedder`
(onnxruntime, TensorRT, or Python with onnxruntime on a CPU), and with a gallery `NAME_recognise` (Python, numpy).
"""

import re
import shutil
from pathlib import Path
from string import Template
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from workbench.data.images import MAX_PIXELS
from workbench.export.bundle import new_bundle, read_fitting_gallery
from workbench.export.folder import DESCRIBED, MODEL, ExportError, read_described
from workbench.export.tensorrt_plan import read_report
from workbench.export.triton_config import Tensor, ensemble_config, onnxruntime_config, python_config, tensorrt_config
from workbench.export.triton_words import say_how_to_serve
from workbench.models.preprocessing import Preprocessing
from workbench.retrieval.calibration import Calibration
from workbench.retrieval.gallery import Gallery
from workbench.retrieval.recognise import UNKNOWN, choose_acceptance
from workbench.runs.files import write_json, write_text

Backend = Literal["onnxruntime", "tensorrt", "python"]
REPOSITORY = "model_repository"
MAX_MIB = 64  # of a picture's file; a request larger than 64 MiB Triton itself refuses by default
SHIPPED = ("workbench/data/decoding.py", "workbench/data/srgb.py", "workbench/models/preprocessing.py")
"""Files of the workbench that the preprocessing inside the server imports, so that both do the same to a picture."""
_SOURCES = Path(__file__).with_name("triton_models")
_ROOT = Path(__file__).resolve().parents[2]
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


IMAGE = Tensor("image", "TYPE_STRING", (1,))


def triton_repository(
    exported_folder: Path | str,
    folder: Path | str,
    *,
    card: str,
    gallery: Path | str | None = None,
    backend: Backend = "onnxruntime",
    plan: Path | str | None = None,
    name: str = "workbench",
    max_batch: int = 16,
    max_delay_us: int = 2000,
    num_decoders: int = 4,
    max_pixels: int = MAX_PIXELS,
    top: int = 5,
    threshold: float | None = None,
    false_accepts: float | None = None,
    unknown: str = UNKNOWN,
) -> Path:
    """The bundle `folder`, written whole or not at all: model_repository/, README.md, client.py, Dockerfile, card and sums.

    The ensemble takes `image` (files of any kind that `decode_image` reads, [B, 1]) and gives `embeddings`, float32 [B, D], rows of
    length 1. With a gallery also `labels` and `similarities` [B, K] (the nearest distinct labels), `decision` [B, 1] (the first
    label where its similarity is above the threshold, else `unknown`), and `probability` [B, 1] where the gallery keeps a
    calibration: the answers of `retrieval.recognise`.

    Args:
        exported_folder: as `export_onnx` wrote it, with embeddings of length 1.
        folder: must not exist yet.
        card: the model card, Markdown.
        gallery: a gallery's folder, made by this embedder; None answers with embeddings alone.
        backend: `onnxruntime` and `tensorrt` are Triton's own; `python` runs onnxruntime in Triton's Python backend on a CPU,
            which `triton_server.run_server` serves.
        plan: the engine that `tensorrt.build_engine` built by full TensorRT from `exported_folder`, its report beside it;
            for `tensorrt` alone.
        name: of the ensemble; a letter, then letters, digits, _ and -.
        max_batch: pictures a request, and of a batch that the server gathers.
        max_delay_us: how long a request may wait for others, microseconds.
        num_decoders: processes that decode.
        max_pixels: width times height above which a picture is refused.
        top: labels an answer; fewer where the gallery has fewer.
        threshold, false_accepts: see `recognise.choose_acceptance`; with neither, the threshold that was measured.
        unknown: the decision where nothing is accepted; no label of the gallery.

    Raises:
        FileExistsError: `folder` is there already.
        FileNotFoundError: the exported folder or a file of it, the plan or its report are missing.
        ValueError: an argument out of range; a gallery that another embedder made, that keeps no measured threshold where
            none is given, or that has the label `unknown`.
        GalleryError: the gallery cannot be read.
        ExportError: a damaged exported folder, embeddings that are not normalised, or a plan that does not fit.
    """
    _check_arguments(backend, plan, name, max_batch, max_delay_us, num_decoders, max_pixels, top)
    exported_folder = Path(exported_folder)
    described = read_described(exported_folder)
    if not described["normalised"]:
        raise ExportError(
            f"{exported_folder} gives embeddings that are not normalised, which the server would pass on: export with "
            "normalised=True."
        )
    if plan is not None:
        _check_plan(Path(plan), described, max_batch)
    settings, opened = None, None
    if gallery is not None:
        opened = read_fitting_gallery(Path(gallery), described)
        settings = _recognise_settings(opened, top, threshold, false_accepts, unknown)
    elif threshold is not None or false_accepts is not None:
        raise ValueError("A threshold or a rate of false accepts was given without a gallery to decide with.")

    fed, outputs = [_input_tensor(described)], [Tensor("embeddings", "TYPE_FP32", (int(described["embedding_dim"]),))]
    answers = [] if settings is None else _answer_tensors(settings)
    half = described["precision"] == "fp16"
    configs = {
        f"{name}_preprocess": python_config([IMAGE], fed, max_batch, num_decoders),
        f"{name}_embedder": {
            "onnxruntime": lambda: onnxruntime_config(fed, outputs, max_batch, max_delay_us, needs_gpu=half),
            "tensorrt": lambda: tensorrt_config(fed, outputs, max_batch, max_delay_us),
            "python": lambda: python_config(fed, outputs, max_batch, 1, max_delay_us),
        }[backend](),
    }
    steps = [(f"{name}_preprocess", [IMAGE], fed), (f"{name}_embedder", fed, outputs)]
    if settings is not None:
        configs[f"{name}_recognise"] = python_config(outputs, answers, max_batch, 1)
        steps.append((f"{name}_recognise", outputs, answers))
    configs[name] = ensemble_config([IMAGE], outputs + answers, max_batch, steps)

    with new_bundle(folder, gallery=None if gallery is None else Path(gallery), card=card) as bundle:
        repository = bundle / REPOSITORY
        for model, config in configs.items():
            write_text(repository / model / "config.pbtxt", f'name: "{model}"\n{config}')
            (repository / model / "1").mkdir()
        write_text(
            repository / name / "1" / "README", "An ensemble has no file of its own; Triton wants this folder.\n"
        )
        _write_preprocess(repository / f"{name}_preprocess" / "1", described, max_pixels)
        _write_embedder(repository / f"{name}_embedder" / "1", backend, exported_folder, described, plan)
        if settings is not None and opened is not None:
            _write_recognise(repository / f"{name}_recognise" / "1", settings, opened)
        shutil.copyfile(_SOURCES / "client.py", bundle / "client.py")
        said = say_how_to_serve(name, backend, described, settings)
        said |= {"max_batch": str(max_batch), "max_delay_us": str(max_delay_us), "max_mib": str(MAX_MIB)}
        said |= {"max_megapixels": f"{max_pixels / 1e6:g}"}
        for file in ("README.md", "Dockerfile"):
            write_text(bundle / file, Template((_SOURCES / file).read_text(encoding="utf-8")).substitute(said))
    return Path(folder)


def _check_arguments(
    backend: str, plan: Path | str | None, name: str, max_batch: int, delay: int, decoders: int, pixels: int, top: int
) -> None:
    if backend not in get_args(Backend):
        raise ValueError(f"backend is one of {', '.join(get_args(Backend))}; found {backend!r}.")
    if backend == "tensorrt" and plan is None:
        raise ValueError("The backend tensorrt serves a plan: give plan, the engine that tensorrt.build_engine wrote.")
    if backend != "tensorrt" and plan is not None:
        raise ValueError(f"A plan is served by the backend tensorrt, not {backend}: leave plan out or choose tensorrt.")
    if not _NAME.fullmatch(name):
        raise ValueError(f"name is a letter, then up to 63 letters, digits, _ and -; found {name!r}.")
    for word, value, least in (
        ("max_batch", max_batch, 1),
        ("max_delay_us", delay, 0),
        ("num_decoders", decoders, 1),
        ("max_pixels", pixels, 1),
        ("top", top, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{word} is a whole number of at least {least}; found {value!r}.")


def _recognise_settings(
    gallery: Gallery, top: int, threshold: float | None, false_accepts: float | None, unknown: str
) -> dict[str, Any]:
    labels = gallery.labels
    if unknown in labels:
        raise ValueError(
            f"The gallery has the label {unknown!r}, which could not be told from the decision {unknown!r}; give another word "
            "as unknown."
        )
    acceptance, notes = choose_acceptance(gallery, threshold, false_accepts)
    calibration = gallery.about.get("calibration")
    if calibration and Calibration.from_dict(calibration).uses_margin:
        raise ValueError(
            "The gallery's calibration wants a margin, which the server does not take: measure the gallery again."
        )
    return {
        "labels": labels,
        "top": min(top, len(labels)),
        "unknown": unknown,
        "threshold": acceptance.threshold,
        "threshold_words": acceptance.words,
        "notes": notes,
        "calibration": Calibration.from_dict(calibration).to_dict() if calibration else None,
        "gallery_version": gallery.version,
    }


def _check_plan(plan: Path, described: dict[str, Any], max_batch: int) -> None:
    """Nothing, where the plan was built by full TensorRT from this file, for batches of 1 to `max_batch` at least."""
    report = read_report(plan)
    builder, profile = report["builder"], report["profile"]
    if builder["package"] != "tensorrt":
        raise ExportError(
            f"{plan} was built by {builder['name']}, whose engines Triton's backend tensorrt does not open: build it with "
            "builder='tensorrt' on a GPU, or take the backend onnxruntime."
        )
    if report["onnx"]["sha256"] != described["files"][MODEL]["sha256"]:
        raise ExportError(
            f"{plan} was built from another ONNX file than the exported folder's; build the engine from it."
        )
    if profile["min_batch"] > 1 or profile["max_batch"] < max_batch:
        raise ExportError(
            f"{plan} takes batches of {profile['min_batch']} to {profile['max_batch']}, the server would send 1 to {max_batch}: "
            f"give max_batch up to {profile['max_batch']}, or build the engine with min_batch=1 and max_batch={max_batch}."
        )


def _input_tensor(described: dict[str, Any]) -> Tensor:
    height, width = described["image_size"]
    if described["input"] == "uint8":
        return Tensor("input", "TYPE_UINT8", (height, width, 3))
    return Tensor("input", "TYPE_FP32", (3, height, width))


def _answer_tensors(settings: dict[str, Any]) -> list[Tensor]:
    answers = [
        Tensor("labels", "TYPE_STRING", (settings["top"],)),
        Tensor("similarities", "TYPE_FP32", (settings["top"],)),
        Tensor("decision", "TYPE_STRING", (1,)),
    ]
    return [*answers, Tensor("probability", "TYPE_FP64", (1,))] if settings["calibration"] else answers


def _write_preprocess(folder: Path, described: dict[str, Any], max_pixels: int) -> None:
    shutil.copyfile(_SOURCES / "preprocess.py", folder / "model.py")
    for name in SHIPPED:  # Triton has the model's folder on the path of its imports
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_ROOT / name, folder / name)
    preprocessing = Preprocessing.from_dict(described["preprocessing"])
    settings = {
        "preprocessing": preprocessing.to_dict(),
        "input": described["input"],
        "decode_px": preprocessing.decode_px,
        "max_bytes": MAX_MIB * 2**20,
        "max_pixels": max_pixels,
    }
    write_json(folder / "preprocess.json", settings)


def _write_embedder(
    folder: Path, backend: str, exported_folder: Path, described: dict[str, Any], plan: Path | str | None
) -> None:
    shutil.copyfile(exported_folder / DESCRIBED, folder / DESCRIBED)
    if plan is not None:
        shutil.copyfile(plan, folder / "model.plan")
        return
    for name in described["files"]:
        shutil.copyfile(exported_folder / name, folder / name)
    if backend == "python":
        shutil.copyfile(_SOURCES / "embed.py", folder / "model.py")
        # see sessions: onnxruntime's CPU provider crashes on some towers in fp16 when it fuses transposes into products
        disabled = ["MatmulTransposeFusion"] if described["precision"] == "fp16" else []
        write_json(folder / "embed.json", {"num_threads": 0, "disabled_optimizers": disabled})


def _write_recognise(folder: Path, settings: dict[str, Any], gallery: Gallery) -> None:
    shutil.copyfile(_SOURCES / "recognise.py", folder / "model.py")
    write_json(folder / "recognise.json", settings)
    np.save(folder / "references.npy", gallery.embedding_ND)
    codes, labels = pd.factorize(gallery.references["label"])
    assert labels.tolist() == settings["labels"]
    np.save(folder / "codes.npy", codes.astype(np.int64))
