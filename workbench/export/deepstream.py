"""A bundle for DeepStream: the embedder as a secondary GIE, which hands the tensor `embeddings` of each object on."""

import shutil
from pathlib import Path
from typing import Any

from workbench.export import deepstream_lookup
from workbench.export.bundle import new_bundle, read_fitting_gallery
from workbench.export.deepstream_text import (
    CONFIG,
    FRAGMENT,
    LABELS,
    NETWORK_MODES,
    PLAN,
    config_text,
    escape_label,
    fragment_text,
    readme_text,
)
from workbench.export.folder import DESCRIBED, MODEL, ExportError, read_described
from workbench.export.tensorrt_plan import read_report
from workbench.retrieval.recognise import UNKNOWN, choose_acceptance
from workbench.runs.files import write_json, write_text

LOOKUP, SETTINGS = "deepstream_lookup.py", "bundle.json"


def deepstream_config(
    exported_folder: Path | str,
    folder: Path | str,
    *,
    gallery: Path | None = None,
    card: str,
    max_batch: int = 16,
    plan: Path | None = None,
    gie_unique_id: int = 2,
    operate_on_gie_id: int = 1,
    threshold: float | None = None,
    false_accepts: float | None = None,
) -> Path:
    """The bundle `folder`, written whole or not at all (see `bundle.new_bundle`).

    It holds the ONNX (and the plan); `config_sgie_embedder.txt` for nvinfer; `deepstream_app_fragment.txt` with the section
    `[secondary-gie0]`; a README with what nvinfer does otherwise than this workbench; and, with a gallery, `labels.txt` (a
    label a line, see `deepstream_text.escape_label`), `labels.json` (the same labels as they are), `bundle.json` (threshold and names) and
    `deepstream_lookup.py`, which looks the layer up and answers with a label or "unknown".

    Args:
        exported_folder: exported with input `raw`; `float` where the preprocessing has one std for all channels, since
            nvinfer has one scale for three channels.
        folder: must not exist yet.
        gallery: a gallery's folder, of this embedder (see `bundle.read_fitting_gallery`).
        card: the model card, Markdown.
        max_batch: objects a forward pass; with a plan, at most its largest batch.
        plan: an engine of full TensorRT for the GPU and the version that DeepStream runs with; None lets nvinfer build one.
        gie_unique_id: of this GIE, at least 1.
        operate_on_gie_id: of the detector whose objects are embedded, at least 1.
        threshold, false_accepts: when an answer is accepted, see `recognise.choose_acceptance`; wanted with a gallery only.

    Raises:
        ValueError: an argument out of range, a gallery of another embedder, or an input that nvinfer cannot feed exactly.
        FileExistsError: the folder is there already.
        FileNotFoundError, ExportError, GalleryError: the exported folder, the plan or the gallery is missing or damaged.
    """
    _check_arguments(max_batch, gie_unique_id, operate_on_gie_id)
    exported_folder, folder = Path(exported_folder), Path(folder)
    described = read_described(exported_folder)
    offsets, factor = _find_scaling(described)
    if described["precision"] not in NETWORK_MODES:
        raise ExportError(f"nvinfer has no mode for the precision {described['precision']!r}.")
    _check_int8(described, plan)
    built = None if plan is None else _check_plan(Path(plan), described, max_batch)
    if gallery is None and (threshold is not None or false_accepts is not None):
        raise ValueError("A threshold needs a gallery to answer from; give both or neither.")
    settings: dict[str, Any] = {
        "layer": deepstream_lookup.LAYER,
        "embedding_dim": described["embedding_dim"],
        "gie_unique_id": gie_unique_id,
    }
    labels: list[str] = []
    if gallery is not None:
        opened = read_fitting_gallery(gallery, described)
        acceptance, notes = choose_acceptance(opened, threshold, false_accepts)
        labels = opened.labels
        if UNKNOWN in labels:
            raise ValueError(f"The gallery has the label {UNKNOWN!r}, which could not be told from what is not known.")
        settings |= {
            "threshold": acceptance.threshold,
            "threshold_from": acceptance.words,
            "notes": notes,
            "unknown": UNKNOWN,
            "gallery_version": opened.version,
        }
    with new_bundle(folder, gallery=gallery, card=card) as temporary:
        for name in (DESCRIBED, *described["files"]):
            shutil.copyfile(exported_folder / name, temporary / name)
        if plan is not None:
            shutil.copyfile(plan, temporary / PLAN)
            write_json(temporary / f"{PLAN}.json", built)
        if labels:
            write_text(temporary / LABELS, "".join(f"{escape_label(label)}\n" for label in labels))
            write_json(temporary / "labels.json", labels)
            shutil.copyfile(Path(deepstream_lookup.__file__), temporary / LOOKUP)
        write_json(temporary / SETTINGS, settings)
        there = {"has_labels": bool(labels), "has_plan": plan is not None}
        ids = {"batch-size": max_batch, "gie-unique-id": gie_unique_id, "operate-on-gie-id": operate_on_gie_id}
        write_text(temporary / CONFIG, config_text(described, offsets, factor, ids, **there))
        write_text(temporary / FRAGMENT, fragment_text(ids))
        write_text(temporary / "README.md", readme_text(described, settings, **there))
    return folder


def _check_arguments(max_batch: int, gie_unique_id: int, operate_on_gie_id: int) -> None:
    given = {"max_batch": max_batch, "gie_unique_id": gie_unique_id, "operate_on_gie_id": operate_on_gie_id}
    for name, value in given.items():
        if value < 1:
            raise ValueError(f"{name} is at least 1; found {value}.")
    if gie_unique_id == operate_on_gie_id:
        raise ValueError(
            f"gie_unique_id and operate_on_gie_id are both {gie_unique_id}; a GIE cannot work on its own objects."
        )


def _find_scaling(described: dict[str, Any]) -> tuple[list[float], float]:
    """Offsets and the one factor of nvinfer, (x - offset) * factor, which give the file exactly what it wants."""
    if described["input"] == "raw":
        return [0.0, 0.0, 0.0], 1.0
    if described["input"] != "float":
        raise ValueError(
            f'nvinfer feeds float32 [B, 3, H, W]; this file wants {described["input"]}: export the embedder with input="raw".'
        )
    mean, std = described["preprocessing"]["mean"], described["preprocessing"]["std"]
    if len(set(std)) > 1:
        raise ValueError(
            f"nvinfer has one scale for three channels, this file wants three (std {', '.join(map(str, std))}): export the "
            'embedder with input="raw", which normalises inside. One scale for all was measured to cost a cosine of up to '
            "0.99978."
        )
    return [255 * value for value in mean], 1 / (255 * std[0])


def _check_int8(described: dict[str, Any], plan: Path | None) -> None:
    if described["precision"] != "int8":
        return
    if described.get("calibration", {}).get("target") != "tensorrt":
        raise ValueError('This int8 file was calibrated for CPUs; quantise the embedder with target="tensorrt".')
    if plan is None:
        raise ValueError(
            "nvinfer builds int8 from a calibration table of its own, not from this file: build a plan and give it."
        )


def _check_plan(plan: Path, described: dict[str, Any], max_batch: int) -> dict[str, Any]:
    """The build report of a plan that DeepStream can run and that was built from this very file."""
    report = read_report(plan)
    if report["builder"]["package"] != "tensorrt":
        raise ValueError(
            f"{plan} was built by {report['builder']['name']}: DeepStream runs plans of full TensorRT. Build it with the package "
            "tensorrt, or leave the plan out and let nvinfer build one."
        )
    if report["onnx"]["sha256"] != described["files"][MODEL]["sha256"]:
        raise ValueError(f"{plan} was built from another ONNX file than the one exported; build it from this folder.")
    largest = report["profile"]["max_batch"]
    if largest < max_batch:
        raise ValueError(
            f"{plan} takes batches of at most {largest}; max_batch is {max_batch}: build it again or ask for less."
        )
    return report
