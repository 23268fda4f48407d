"""An exported fp32 folder in int8: quantised by what its trunk sees on a catalog's images.

Whether int8 answers well enough is judged by retrieval (see `acceptance`): nothing here sets a limit on it.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
import torch

from workbench.data.catalog import Catalog
from workbench.data.images import ImageError, load_image
from workbench.export.folder import MODEL, ExportError, read_described, write_described
from workbench.export.onnx import EXTERNAL_ABOVE_BYTES, compare_answers
from workbench.export.runtimes import open_exported
from workbench.export.sessions import answer_apart
from workbench.models.preprocessing import Preprocessing
from workbench.runs.files import new_folder

Target = Literal["cpu", "tensorrt"]
# A transformer keeps its sums, norms and softmax, and what products hand to them, in fp32; in a convolutional trunk
# everything between two products is quantised too, so that runtimes fuse a block into one int8 kernel.
TRANSFORMER_OPERATORS = ("Conv", "MatMul", "Gemm")


def quantise_onnx(
    fp32_folder: Path | str,
    folder: Path | str,
    catalog: Catalog,
    *,
    target: Target = "cpu",
    num_images: int = 128,
    batch_size: int = 8,
    seed: int = 0,
) -> Path:
    """The exported folder in int8, written whole or not at all; QDQ, weights per channel, ranges by least and largest value.

    export.json keeps how it was calibrated, and cosine and largest difference to the fp32 file on the first batch
    of the calibration images: a sign of life, no measure of quality.

    Args:
        fp32_folder: as `export_onnx` wrote it, precision fp32.
        folder: must not exist yet.
        catalog: images to calibrate on: those trained on, never those that the model is judged by.
        target: `cpu` (unsigned activations, as onnxruntime and OpenVINO want them) or `tensorrt` (signed and symmetric,
            biases in fp32).
        num_images: how many are drawn from the catalog; all of a smaller one. Broken images are left out.
        batch_size: images a forward pass.
        seed: of the draw.

    Raises:
        ValueError: an argument out of range, an export that is not fp32, or no image that can be decoded.
        FileExistsError: the folder is there already.
        FileNotFoundError, ExportError: the fp32 folder is broken, or the int8 file cannot be run.
    """
    if target not in get_args(Target):
        raise ValueError(f"target is one of {', '.join(get_args(Target))}; found {target!r}.")
    if num_images < 1 or batch_size < 1:
        raise ValueError(f"num_images and batch_size are at least 1; found {num_images} and {batch_size}.")
    fp32_folder, folder = Path(fp32_folder), Path(folder)
    described = read_described(fp32_folder)
    if described["precision"] != "fp32":
        raise ValueError(f"int8 is made from an fp32 export; {fp32_folder} is {described['precision']}.")
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; choose another folder for the export or remove it.")
    preprocessing = open_exported(fp32_folder).preprocessing
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    batches = list(_calibration_batches(catalog, preprocessing, num_images, batch_size, seed))
    if not batches:
        raise ValueError("No image of the catalog can be decoded; int8 needs images to calibrate on, a hundred or so.")
    signed = target == "tensorrt"
    transformer = "LayerNormalization" in described["operators"]
    external = sum(stated["bytes"] for stated in described["files"].values()) > EXTERNAL_ABOVE_BYTES
    with new_folder(folder) as temporary, tempfile.TemporaryDirectory() as scratch:
        prepared, quantised = Path(scratch) / "prepared.onnx", Path(scratch) / "quantised.onnx"
        quant_pre_process(
            str(fp32_folder / MODEL), str(prepared), skip_symbolic_shape=True, save_as_external_data=external
        )
        quantize_static(
            str(prepared),
            str(quantised),
            _reader(batches),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(TRANSFORMER_OPERATORS) if transformer else None,
            use_external_data_format=external,
            extra_options={
                "ActivationSymmetric": signed,
                "WeightSymmetric": True,
                "QuantizeBias": not signed,
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"] if transformer else [],
            },
        )
        model = onnx.load(str(quantised))
        described |= {
            "precision": "int8",
            "operators": dict(sorted(Counter(node.op_type for node in model.graph.node).items())),
            "opset": next(one.version for one in model.opset_import if one.domain == ""),
            "calibration": {
                "target": target,
                "num_images": sum(map(len, batches)),
                "seed": seed,
                "catalog": catalog.fingerprint,
                "onnxruntime": version("onnxruntime"),
            },
        }
        described.pop("checked_against_torch", None)
        _save(model, temporary / MODEL, described, external)
        expected, found = (answer_apart(place / MODEL, batches[:1])[0] for place in (fp32_folder, temporary))
        described["compared_with_fp32"] = {"num_images": len(expected), **compare_answers(expected, found)}
        write_described(temporary, described)
    return folder


def _calibration_batches(
    catalog: Catalog, preprocessing: Preprocessing, num_images: int, batch_size: int, seed: int
) -> Iterator[np.ndarray]:
    """Yields the images drawn, as the file's input wants them."""
    pictures = catalog.pictures()
    drawn = np.random.default_rng(seed).permutation(len(pictures))
    images: list[np.ndarray] = []
    num_left = min(num_images, len(pictures))
    for row in drawn:
        if not num_left:
            break
        try:
            picture = load_image(pictures[row], target_px=preprocessing.decode_px)
        except ImageError:
            continue
        images.append(preprocessing.apply(picture))
        num_left -= 1
        if len(images) == batch_size:
            yield preprocessing.normalise(torch.from_numpy(np.stack(images))).numpy()
            images = []
    if images:
        yield preprocessing.normalise(torch.from_numpy(np.stack(images))).numpy()


def _reader(batches: list[np.ndarray]) -> Any:
    """What quantize_static reads from: one batch a call, None after the last."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.left, None)
            return None if batch is None else {"input": batch}

    return Reader()


def _save(model: onnx.ModelProto, path: Path, described: dict[str, Any], external: bool) -> None:
    told = {key: value for key, value in described.items() if key != "files"}
    onnx.helper.set_model_props(
        model,
        {key: value if isinstance(value, str) else json.dumps(value, sort_keys=True) for key, value in told.items()},
    )
    onnx.save_model(model, str(path), save_as_external_data=external, location=f"{MODEL}.data" if external else None)
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise ExportError(f"onnx.checker refuses the quantised file: {error}") from error
