"""What is told about an ONNX file before TensorRT parses it, and about the network it parsed."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto, load_model, numpy_helper

from workbench.runs.files import sha256_of

_REQUANTISE = (
    "make the int8 file anew with quantise_onnx(fp32_folder, folder, catalog, target='tensorrt'): signed and symmetric, "
    "as TensorRT wants it"
)


def describe_files(model: Path, exported: dict[str, Any] | None) -> dict[str, Any]:
    """Name, size and SHA-256 of the ONNX file and of its external data.

    Raises:
        ValueError: int8 that was not quantised for TensorRT.
        FileNotFoundError: external data is missing.
    """
    calibration = (exported or {}).get("calibration", {})
    if exported and exported["precision"] == "int8" and calibration.get("target") != "tensorrt":
        raise ValueError(f"{model.parent} was quantised for target {calibration.get('target')!r}: {_REQUANTISE}.")
    external: dict[str, dict[str, Any]] = {}
    try:
        graph = load_model(str(model), load_external_data=False)
    except DecodeError:
        graph = ModelProto()  # the parser says what is wrong with it
    for tensor in graph.graph.initializer:
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        if tensor.data_location == TensorProto.EXTERNAL and location not in external:
            path = model.parent / location
            if not path.is_file():
                raise FileNotFoundError(f"{model} keeps its weights in {location}, which is missing: copy it beside.")
            external[location] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    _refuse_asymmetric(graph, model)
    return {"name": model.name, "bytes": model.stat().st_size, "sha256": sha256_of(model), "external": external}


def _refuse_asymmetric(graph: ModelProto, model: Path) -> None:
    points = {
        node.input[2]
        for node in graph.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2 and node.input[2]
    }
    for tensor in graph.graph.initializer:
        if tensor.name not in points or tensor.data_location == TensorProto.EXTERNAL:
            continue
        if tensor.data_type == TensorProto.UINT8 or np.asarray(numpy_helper.to_array(tensor), np.float64).any():
            raise ValueError(f"{model} is quantised with unsigned numbers or zero points other than 0: {_REQUANTISE}.")


def fill_profile(network: Any, profile: Any, batches: dict[str, int]) -> dict[str, Any]:
    """The one input, described; `profile` gets its three shapes.

    Raises:
        ValueError: several inputs, another dimension than the batch is open, or the batch is a fixed one and not asked for.
    """
    if network.num_inputs != 1:
        raise ValueError(f"An ONNX file with one input was wanted; this one has {network.num_inputs}.")
    given = describe_tensor(network.get_input(0))
    batch, *shape = given["shape"]
    if -1 in shape:
        raise ValueError(f"Only the batch may be of any size; the input {given['input']} has shape {given['shape']}.")
    if batch != -1 and set(batches.values()) != {batch}:
        raise ValueError(
            f"The ONNX file takes batches of {batch} only; give min, opt and max_batch {batch}, or export anew."
        )
    profile.set_shape(given["input"], *([size, *shape] for size in batches.values()))
    return given


def describe_tensor(tensor: Any) -> dict[str, Any]:
    """Name (under `input` or `output`), dtype and shape, -1 for any size."""
    kind = "input" if tensor.is_network_input else "output"
    return {kind: tensor.name, "dtype": tensor.dtype.name, "shape": list(tensor.shape)}


def parser_words(parser: Any) -> str:
    """What the parser said was wrong, with operator and node; "" when it said nothing."""
    words = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        operator, name = (getattr(error, key, str)() for key in ("node_operator", "node_name"))
        where = f"operator {operator} ({name}): " if operator else ""
        words.append(f"{where}{error.desc()} [{error.code().name}]")
    return " / ".join(words)[:2000]


def count_layers(network: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Layers by type, and layers other than constants by the precision of their first output."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    computing = [layer for layer in layers if layer.type.name != "CONSTANT" and layer.num_outputs]
    types, precisions = (
        Counter(layer.type.name for layer in layers),
        Counter(layer.get_output(0).dtype.name for layer in computing),
    )
    return dict(sorted(types.items())), dict(sorted(precisions.items()))
