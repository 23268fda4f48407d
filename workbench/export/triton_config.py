"""The text of Triton's `config.pbtxt` for each model of a bundle; the names in it are ours, never a user's labels.

Source: the messages ModelConfig, ModelEnsembling and ModelDynamicBatching of Triton's model_config.proto.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Tensor:
    """An input or output: `data_type` in Triton's words, `dims` without the batch."""

    name: str
    data_type: str
    dims: tuple[int, ...]


def python_config(
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    max_batch: int,
    num_instances: int,
    max_delay_us: int | None = None,
) -> str:
    """The config of a Python model (`1/model.py`) on the CPU; None sends it each request as it came, else in batches."""
    batching = "" if max_delay_us is None else _batching(max_delay_us) + _warmup(inputs, max_batch)
    return (
        'backend: "python"\n' + _common(inputs, outputs, max_batch) + _instances("KIND_CPU", num_instances) + batching
    )


def onnxruntime_config(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], max_batch: int, max_delay_us: int, needs_gpu: bool
) -> str:
    """The config of an ONNX file (`1/model.onnx`), on a GPU where there is one, else on the CPU unless it needs a GPU."""
    return (
        'backend: "onnxruntime"\ndefault_model_filename: "model.onnx"\n'
        + _common(inputs, outputs, max_batch)
        + _instances("KIND_GPU" if needs_gpu else "KIND_AUTO", 1)
        + _batching(max_delay_us)
        + _warmup(inputs, max_batch)
    )


def tensorrt_config(inputs: Sequence[Tensor], outputs: Sequence[Tensor], max_batch: int, max_delay_us: int) -> str:
    """The config of a TensorRT engine (`1/model.plan`), on the GPUs that the server sees."""
    return (
        'backend: "tensorrt"\ndefault_model_filename: "model.plan"\n'
        + _common(inputs, outputs, max_batch)
        + _instances("KIND_GPU", 1)
        + _batching(max_delay_us)
        + _warmup(inputs, max_batch)
    )


def ensemble_config(
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    max_batch: int,
    steps: Sequence[tuple[str, Sequence[Tensor], Sequence[Tensor]]],
) -> str:
    """The config that ties models together: each step is a model's name, its inputs and its outputs, tied by their names."""
    written = []
    for model, taken, given in steps:
        maps = [f'      input_map {{ key: "{one.name}" value: "{one.name}" }}' for one in taken]
        maps += [f'      output_map {{ key: "{one.name}" value: "{one.name}" }}' for one in given]
        lines = "\n".join(maps)
        written.append(f'    {{\n      model_name: "{model}"\n      model_version: -1\n{lines}\n    }}')
    joined = ",\n".join(written)
    return (
        'platform: "ensemble"\n'
        + _common(inputs, outputs, max_batch)
        + f"ensemble_scheduling {{\n  step [\n{joined}\n  ]\n}}\n"
    )


def _common(inputs: Sequence[Tensor], outputs: Sequence[Tensor], max_batch: int) -> str:
    return f"max_batch_size: {max_batch}\ninput {_tensors(inputs)}\noutput {_tensors(outputs)}\n"


def _tensors(tensors: Sequence[Tensor]) -> str:
    lines = [
        f'  {{ name: "{one.name}" data_type: {one.data_type} dims: [ {", ".join(map(str, one.dims))} ] }}'
        for one in tensors
    ]
    return "[\n" + ",\n".join(lines) + "\n]"


def _instances(kind: str, count: int) -> str:
    return f"instance_group [ {{ kind: {kind} count: {count} }} ]\n"


def _batching(max_delay_us: int) -> str:
    return f"dynamic_batching {{ max_queue_delay_microseconds: {max_delay_us} }}\n"


def _warmup(inputs: Sequence[Tensor], max_batch: int) -> str:
    """A request of zeros at the least and the largest batch when the model starts: the first real one need not wait."""
    written = []
    for size in sorted({1, max_batch}):
        fed = " ".join(
            f'inputs {{ key: "{one.name}" value {{ data_type: {one.data_type} dims: [ {", ".join(map(str, one.dims))} ] '
            "zero_data: true } }"
            for one in inputs
        )
        written.append(f'  {{ name: "zeros_{size}" batch_size: {size} {fed} }}')
    return "model_warmup [\n" + ",\n".join(written) + "\n]\n"
