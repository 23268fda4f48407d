"""An embedder as an ONNX file that was compared with torch before anybody sees it.

Axes: B images of a batch, D the embedding's width, C classes of a classifier; NCHW and NHWC as usual.
"""

import copy
import json
import tempfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
import torch
from torch import nn

from workbench.data.catalog import Catalog
from workbench.export.folder import DESCRIBED, FORMAT, FORMAT_VERSION, MODEL, ExportError, write_described
from workbench.export.sessions import answer_apart
from workbench.models.embedder import Embedder
from workbench.models.heads import head_outputs, takes_map
from workbench.runs.files import new_folder

Precision = Literal["fp32", "fp16", "int8"]
InputKind = Literal["float", "uint8", "raw"]
# Opset 23 has one Attention operator: smaller and faster in fp16; in fp32 runtimes refuse some of its forms.
OPSETS = {"fp32": 20, "fp16": 23}
# TensorRT for RTX 1.7 has no Attention kernel for one query alone (class attention of FAN or CaiT, attention pooling), nor for
# heads of 8 channels: such trunks are written in opset 20, whose products and softmax it builds.
LEAST_QUERIES, LEAST_HEAD_WIDTH = 2, 16
LIMITS: dict[str, dict[str, float]] = {
    "fp32": {"min_cosine": 0.999999, "max_difference": 1e-5},
    "fp16": {"min_cosine": 0.9999, "max_difference": float("inf")},
}
# Probabilities, largest difference: a logit is up to 64 times a cosine, so in fp16 what an embedding may lose moves them far.
PROBS_LIMITS = {"fp32": 1e-4, "fp16": float("inf")}
CHECKED_BATCHES = (1, 3)
EXTERNAL_ABOVE_BYTES = 1_900_000_000  # a protobuf ends at 2 GB, and the graph wants room too


class _Exported(nn.Module):
    """What the file computes: from the input as it is fed to embeddings, float32 [B, D], and to probabilities [B, C]."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, embedder: Embedder, precision: str, input_kind: str, normalised: bool) -> None:
        super().__init__()
        whole = copy.deepcopy(embedder).cpu().float().eval()
        self.trunk = whole.trunk.half() if precision == "fp16" else whole.trunk
        self.head, self.classifier = whole.head, whole.classifier
        self.half_trunk, self.input_kind, self.normalised = precision == "fp16", input_kind, normalised
        self.register_buffer("mean", torch.tensor(embedder.preprocessing.mean).mul(255))
        self.register_buffer("std", torch.tensor(embedder.preprocessing.std).mul(255))

    def forward(self, input: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.input_kind == "uint8":  # cast before permute: TensorRT refuses a transposed uint8
            input = ((input.float() - self.mean) / self.std).permute(0, 3, 1, 2)
        elif self.input_kind == "raw":
            input = (input - self.mean[:, None, None]) / self.std[:, None, None]
        look = self.trunk.feature_map if takes_map(self.head) else self.trunk
        outputs = head_outputs(self.head, look(input.half() if self.half_trunk else input).float())
        embedding_BD = nn.functional.normalize(outputs.embedding, dim=1) if self.normalised else outputs.embedding
        if self.classifier is None:
            return (embedding_BD,)
        return embedding_BD, self.classifier(outputs.classified).softmax(dim=1)


def export_onnx(
    embedder: Embedder,
    folder: Path | str,
    precision: Precision = "fp32",
    input: InputKind = "float",
    *,
    normalised: bool = True,
    about: dict[str, Any] | None = None,
    calibration: Catalog | None = None,
    target: Literal["cpu", "tensorrt"] = "cpu",
) -> Path:
    """The exported folder, written whole or not at all: model.onnx and export.json, which the file's metadata repeats.

    The file's input is `input`, of a batch of any size; its output is `embeddings`, float32 [B, D], and of an embedder with
    a classifier `probs` after it, float32 [B, C], whose class names export.json has as `classes`. Before the folder gets
    its name, onnxruntime's answers at batch 1 and 3 are held against torch in fp32 (`LIMITS`, `PROBS_LIMITS`).

    Args:
        embedder: on any device; it stays as it is.
        folder: must not exist yet.
        precision: fp32; fp16 for the trunk (head and L2 norm stay fp32, so do input and output); or int8, which is an
            fp32 export that passed its check and was then quantised (see `int8.quantise_onnx`).
        input: `float`, normalised images, float32 [B, 3, H, W]; `uint8`, images as `Preprocessing.apply` gives them,
            [B, H, W, 3], 0 to 255, which are normalised inside the graph; or `raw`, the same pixels as DeepStream
            hands them over, float32 [B, 3, H, W], 0 to 255, normalised inside too.
        normalised: rows of length 1; False leaves out the L2 norm, which `runtimes` then adds.
        about: JSON-able facts to keep with the model, such as card, protocol and labels.
        calibration: for int8 alone: images trained on, from which the ranges of the activations are taken.
        target: for int8 alone: `cpu` or `tensorrt`.

    Raises:
        ValueError: an argument out of range, int8 without images to calibrate on, or about is not JSON-able.
        FileExistsError: the folder is there already; exports are never overwritten.
        ExportError: an operator that ONNX does not have, a file that onnx.checker refuses, or answers that differ from
            torch's; the message has the figures.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision is one of {', '.join(get_args(Precision))}; found {precision!r}.")
    if input not in get_args(InputKind):
        raise ValueError(f"input is one of {', '.join(get_args(InputKind))}; found {input!r}.")
    try:
        json.dumps(about, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"about holds only what JSON can say, to be kept with the model: {error}.") from error
    if (precision == "int8") != (calibration is not None):
        raise ValueError("int8 wants images to calibrate on, those trained on; other precisions want none.")
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; choose another folder for the export or remove it.")
    if calibration is not None:
        from workbench.export.int8 import quantise_onnx

        with tempfile.TemporaryDirectory() as temporary:
            exact = export_onnx(embedder, Path(temporary) / "fp32", "fp32", input, normalised=normalised, about=about)
            return quantise_onnx(exact, folder, calibration, target=target)
    exported = _Exported(embedder, precision, input, normalised).eval().requires_grad_(False)
    described = _describe(embedder, precision, input, normalised, about)
    with new_folder(folder) as temporary:
        model = temporary / MODEL
        described["operators"] = _write_model(exported, model, described)
        described["checked_against_torch"] = _check_answers(embedder, exported, model, precision)
        write_described(temporary, described)
    return folder


def compare_answers(expected_BD: np.ndarray, found_BD: np.ndarray) -> dict[str, float]:
    """The least cosine and the largest absolute difference between two answers, float [B, D], to the same images.

    Raises:
        ExportError: the shapes differ, or an answer is not finite.
    """
    if found_BD.shape != expected_BD.shape:
        raise ExportError(f"torch answers {expected_BD.shape}, the exported file {found_BD.shape}.")
    if not np.isfinite(found_BD).all():
        raise ExportError("The exported file gives values that are not finite; in fp16 the trunk overflows: use fp32.")
    expected, found = expected_BD.astype(np.float64), found_BD.astype(np.float64)
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    cosine_B = (expected * found).sum(axis=1) / np.maximum(lengths, 1e-300)
    return {"min_cosine": float(cosine_B.min()), "max_difference": float(np.abs(expected - found).max())}


def _describe(
    embedder: Embedder, precision: str, input_kind: str, normalised: bool, about: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "precision": precision,
        "input": input_kind,
        "normalised": normalised,
        "embedding_dim": embedder.embedding_dim,
        "image_size": list(embedder.preprocessing.image_size),
        "preprocessing": embedder.preprocessing.to_dict(),
        "embedder": embedder.described,
        "embedder_fingerprint": embedder.fingerprint(),
        "weights_sha256": embedder.weights_sha256(),
        "opset": OPSETS[precision],
        "versions": {name: version(name) for name in ("torch", "onnx", "onnxscript", "onnxruntime")},
        "about": about or {},
        **({"classes": list(embedder.classes)} if embedder.classifier is not None else {}),
    }


def _write_model(exported: _Exported, model: Path, described: dict[str, Any]) -> dict[str, int]:
    """How often the file uses each operator; it is written with `described` as its metadata, and checked."""
    height, width = described["image_size"]
    example = torch.zeros(2, 3, height, width)
    if exported.input_kind == "uint8":
        example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    program = _trace(exported, example, described)
    if not all(_has_kernel(node) for node in program.model.graph if node.op_type == "Attention"):
        described["opset"] = OPSETS["fp32"]
        program = _trace(exported, example, described)
    _name_only_what_counts(program.model, described)
    num_bytes = sum(value.numel() * value.element_size() for value in exported.state_dict().values())
    program.save(str(model), external_data=num_bytes > EXTERNAL_ABOVE_BYTES)
    try:
        onnx.checker.check_model(str(model))
    except onnx.checker.ValidationError as error:
        raise ExportError(f"onnx.checker refuses what torch wrote: {error}") from error
    return dict(sorted(Counter(node.op_type for node in program.model.graph).items()))


def _trace(exported: _Exported, example: torch.Tensor, described: dict[str, Any]) -> torch.onnx.ONNXProgram:
    try:
        program = torch.onnx.export(
            exported,
            (example,),
            dynamo=True,
            opset_version=described["opset"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            input_names=["input"],
            output_names=["embeddings", "probs"] if exported.classifier is not None else ["embeddings"],
            verbose=False,
        )
    except (torch.onnx.errors.OnnxExporterError, torch.onnx.errors.UnsupportedOperatorError) as error:
        raise ExportError(
            f"{described['embedder']['trunk']} cannot be written as ONNX, opset {described['opset']}: {_cause(error)} "
            "Replace that part of trunk or head by operators that ONNX has."
        ) from error
    assert program is not None
    return program


def _has_kernel(attention: Any) -> bool:
    """Whether TensorRT for RTX has a kernel for this operator; its query is [B, heads, tokens, width of a head]."""
    shape = list(attention.inputs[0].shape or ())[2:]
    known = len(shape) == 2 and all(isinstance(size, int) for size in shape)
    return known and shape[0] >= LEAST_QUERIES and shape[1] >= LEAST_HEAD_WIDTH


def _name_only_what_counts(model: Any, described: dict[str, Any]) -> None:
    """Puts `described` into the model's metadata and takes out the exporter's: stack traces with paths of this machine."""
    for function in (model.graph, *model.functions.values()):
        function.metadata_props.clear()
        for node in function:
            node.metadata_props.clear()
            for value in node.outputs:
                value.metadata_props.clear()
        for value in (*function.inputs, *getattr(function, "initializers", {}).values()):
            value.metadata_props.clear()
    model.metadata_props.clear()
    model.metadata_props.update(
        {
            key: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
            for key, value in described.items()
        }
    )
    model.doc_string = f"Embedder exported by workbench; {DESCRIBED} beside the file says the same as its metadata."


def _check_answers(embedder: Embedder, exported: _Exported, model: Path, precision: str) -> dict[str, Any]:
    """The figures by which the file's answers differ from torch's in fp32, at each of `CHECKED_BATCHES`."""
    height, width = embedder.preprocessing.image_size
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (size, height, width, 3), dtype=np.uint8) for size in CHECKED_BATCHES]
    floats = [embedder.preprocessing.normalise(torch.from_numpy(batch)) for batch in images]
    as_exported = not exported.half_trunk and exported.input_kind == "float"
    reference = exported if as_exported else _Exported(embedder, "fp32", "float", exported.normalised)
    with torch.inference_mode():
        expected = [[answer.numpy() for answer in reference(batch)] for batch in floats]
    fed = {
        "float": [batch.numpy() for batch in floats],
        "uint8": images,
        "raw": [np.ascontiguousarray(batch.transpose(0, 3, 1, 2), dtype=np.float32) for batch in images],
    }[exported.input_kind]
    found = answer_apart(model, fed, half=precision == "fp16")
    limits, figures = LIMITS[precision], {}
    for size, (expected_BD, *_), found_BD in zip(CHECKED_BATCHES, expected, found, strict=True):
        differ = compare_answers(expected_BD, found_BD)
        if not (differ["min_cosine"] >= limits["min_cosine"] and differ["max_difference"] <= limits["max_difference"]):
            raise ExportError(
                f"The exported file does not answer as torch does: at batch {size} cosine {differ['min_cosine']:.8f} (wanted "
                f"{limits['min_cosine']}), largest difference {differ['max_difference']:.2e} (wanted at most "
                f"{limits['max_difference']:.0e}), in {precision} by onnxruntime {version('onnxruntime')}. Nothing was kept."
            )
        figures[f"batch_{size}"] = differ
    if exported.classifier is not None:
        found = answer_apart(model, fed, half=precision == "fp16", output=1)
        for size, (_, expected_BC), found_BC in zip(CHECKED_BATCHES, expected, found, strict=True):
            difference = compare_answers(expected_BC, found_BC)["max_difference"]
            if not difference <= PROBS_LIMITS[precision]:
                raise ExportError(
                    f"The exported file's probabilities differ from torch's by up to {difference:.2e} at batch {size} (wanted at "
                    f"most {PROBS_LIMITS[precision]:.0e}), in {precision} by onnxruntime {version('onnxruntime')}. Nothing was kept."
                )
            figures[f"batch_{size}"]["max_difference_of_probs"] = difference
    return figures


def _cause(error: BaseException) -> str:
    """The innermost error's first line, which names the operator."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0][:300].rstrip(".") + "."
