"""An exported folder that stands wherever an embedder does, computed by onnxruntime, OpenVINO or TensorRT.

`embed_catalog`, galleries and the evaluation notebooks ask an embedder for four things: its preprocessing, its width,
its fingerprint, and embeddings of what its preprocessing gives. An `ExportedEmbedder` answers all four from the file, so
that every metric can be had from what is deployed; `open_any` opens whichever the parameter `embedder` names. models/
knows nothing of export/, so notebooks that take both call `open_any` instead of `open_embedder`.
Axes: B images of a batch, D the embedding's width; NCHW and NHWC as usual.
"""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from workbench.export.folder import MODEL, ExportError, is_exported, read_described
from workbench.export.sessions import TENSORRT, Session, open_session
from workbench.export.tensorrt_plan import read_report
from workbench.export.tensorrt_session import answer_in_parts
from workbench.models.embedder import Embedder, open_embedder
from workbench.models.preprocessing import Preprocessing


class _Unnormalised(Preprocessing):
    """The preprocessing of a file that normalises inside: images stay as `apply` gives them."""

    def normalise(self, images_NHWC: torch.Tensor) -> torch.Tensor:
        """The images themselves, uint8 [N, H, W, 3]."""
        return images_NHWC


class _Raw(Preprocessing):
    """The preprocessing of a file that takes what DeepStream hands over and normalises inside."""

    def normalise(self, images_NHWC: torch.Tensor) -> torch.Tensor:
        """The pixels as float32 [N, 3, H, W], 0 to 255."""
        return images_NHWC.float().permute(0, 3, 1, 2).contiguous()


class ExportedEmbedder(Embedder):
    """What an exported file answers, with an embedder's face; it cannot be trained or saved.

    Attributes:
        preprocessing, embedding_dim, described: those of the embedder that was exported.
        exported: what export.json says.
        runtime: which runtime answers, with its version.
    """

    def __init__(self, session: Session, exported: dict[str, Any], runtime: str) -> None:
        nn.Module.__init__(self)
        kinds = {"float": Preprocessing, "uint8": _Unnormalised, "raw": _Raw}
        self.preprocessing = kinds[exported["input"]].from_dict(exported["preprocessing"])
        self.described, self.embedding_dim = exported["embedder"], int(exported["embedding_dim"])
        self.exported, self.runtime, self._session = exported, runtime, session
        height, width = self.preprocessing.image_size
        self._wanted = (
            ("uint8", (height, width, 3)) if exported["input"] == "uint8" else ("float32", (3, height, width))
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings, float32 [B, D], rows of length 1, on the device of the input.

        Args:
            images: what `preprocessing.normalise` gives: float32 [B, 3, H, W], or uint8 [B, H, W, 3] for the input
                `uint8`.

        Raises:
            ValueError: another shape or dtype.
        """
        dtype, shape = self._wanted
        if str(images.dtype) != f"torch.{dtype}" or tuple(images.shape[1:]) != shape or not len(images):
            raise ValueError(
                f"The exported file wants {dtype} [B, {', '.join(map(str, shape))}], B at least 1; found "
                f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}: use its own preprocessing, apply then "
                "normalise, or export the embedder at the size you need."
            )
        embedding_BD = torch.from_numpy(self._session(images.detach().cpu().contiguous().numpy()))
        if not self.exported["normalised"]:
            embedding_BD = nn.functional.normalize(embedding_BD, dim=1)
        return embedding_BD.to(images.device)

    def embed(self, images_BHWC: np.ndarray) -> np.ndarray:
        """Embeddings, float32 [B, D], rows of length 1, of images as `preprocessing.apply` gives them, uint8 [B, H, W, 3].

        Raises:
            ValueError: another shape or dtype.
        """
        height, width = self.preprocessing.image_size
        if images_BHWC.dtype != np.uint8 or images_BHWC.shape[1:] != (height, width, 3) or not len(images_BHWC):
            raise ValueError(
                f"Images were wanted as uint8 [B, {height}, {width}, 3], B at least 1; found {images_BHWC.dtype} "
                f"{list(images_BHWC.shape)}: take what preprocessing.apply gives."
            )
        with torch.inference_mode():
            return self(self.preprocessing.normalise(torch.from_numpy(np.ascontiguousarray(images_BHWC)))).numpy()

    def fingerprint(self) -> str:
        """A sha256 over the exported files and the runtime: never that of the embedder, whose bits are others."""
        files = {name: stated["sha256"] for name, stated in self.exported["files"].items()}
        told = {"runtime": self.runtime, "files": files, "preprocessing": self.exported["preprocessing"]}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def save(self, folder: Path | str, **provenance: Any) -> Path:
        """Refused: an exported folder is copied as it is; only the embedder that was exported can be saved.

        Raises:
            ExportError: always.
        """
        raise ExportError("An exported embedder has no weights to save; copy its folder, or save the embedder itself.")


def open_exported(
    folder: Path | str,
    runtime: str = "onnxruntime",
    num_threads: int | None = None,
    *,
    plan: Path | str | None = None,
) -> ExportedEmbedder:
    """The exported folder as an embedder.

    Args:
        folder: as `export_onnx` wrote it.
        runtime: onnxruntime or openvino on the CPU, or tensorrt on a GPU; torch answers from the embedder's own folder, see
            `open_any`.
        num_threads: threads of one call on the CPU; None is one a core.
        plan: what `build_engine` made from this folder; for tensorrt alone. Batches beyond its profile are split.

    Raises:
        FileNotFoundError: the folder or a file of it is missing, or the plan or its report.
        ExportError: another format version, a changed or corrupt file, a plan of another export, or a runtime that is
            missing or refuses it; for tensorrt, a GPU is missing.
        ValueError: another runtime, or a plan where none belongs or none where one does.
    """
    if (plan is not None) != (runtime == TENSORRT):
        raise ValueError(
            f"The runtime tensorrt needs a plan (build_engine makes it), others take none; found runtime {runtime!r} "
            f"and plan {plan!r}."
        )
    described = read_described(folder)
    if plan is not None:
        return _open_planned(Path(folder), described, Path(plan))
    session = open_session(Path(folder) / MODEL, runtime, num_threads, half=described["precision"] == "fp16")
    return ExportedEmbedder(session, described, f"{runtime} {version(runtime)}")


def _open_planned(folder: Path, described: dict[str, Any], plan: Path) -> ExportedEmbedder:
    report = read_report(plan)
    if report["onnx"]["sha256"] != described["files"][MODEL]["sha256"]:
        raise ExportError(f"{plan} was built from another ONNX file than {folder / MODEL}: build it from this folder.")
    session = open_session(plan, TENSORRT)
    min_batch, max_batch = report["profile"]["min_batch"], report["profile"]["max_batch"]
    built = f"{report['builder']['name']} {report['builder']['version']}, plan {report['plan']['sha256']}"
    return ExportedEmbedder(lambda batch: answer_in_parts(session, batch, min_batch, max_batch), described, built)


def open_any(
    embedder: str,
    trunk_weights: str = "pretrained",
    *,
    runtime: str = "onnxruntime",
    num_threads: int | None = None,
    plan: Path | str | None = None,
    **options: Any,
) -> Embedder:
    """The embedder that a notebook's `embedder` parameter names: an exported folder too, else as `open_embedder` has it.

    Args:
        embedder: an exported folder, a saved embedder's folder, or a trunk string.
        trunk_weights, options: handed to `open_embedder`; an exported folder has its own.
        runtime, num_threads, plan: of an exported folder, see `open_exported`. As a notebook has one parameter for both, the path
            of a plan (`.plan`) is taken for the runtime tensorrt with this plan.

    Raises:
        ValueError: a runtime for what is no exported folder; else as `open_exported` and `open_embedder`.
    """
    if runtime.endswith(".plan"):
        runtime, plan = TENSORRT, runtime
    if is_exported(embedder):
        return open_exported(embedder, runtime, num_threads, plan=plan)
    if runtime != "onnxruntime":
        raise ValueError(
            f"The runtime {runtime} answers from an exported folder, and {embedder} is none: torch answers. Export it first, or leave "
            "the runtime as it is."
        )
    return open_embedder(embedder, trunk_weights, **options)
