"""A plan opened on a GPU: arrays in, arrays out, any batch within its profile.

Axes: B images of a batch, D the embedding's width.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.export.folder import ExportError
from workbench.export.tensorrt_package import Package, find_package, make_log, need_gpu
from workbench.export.tensorrt_plan import read_report

_DTYPES = {"FLOAT": torch.float32, "HALF": torch.float16, "UINT8": torch.uint8}


def open_plan(plan: Path | str) -> "PlanSession":
    """A plan ready to answer on the current GPU, by the TensorRT that built it; `build_engine` made it and its report.

    Raises:
        FileNotFoundError: the plan or its report is missing.
        ExportError: the plan is corrupt, there is no GPU or no TensorRT, or plan and GPU or version do not fit.
    """
    report = read_report(plan)
    package = find_package(report["builder"]["package"])
    gpu = need_gpu(f"Running {plan} by {package}", "take onnxruntime or openvino, which answer on the CPU")
    log = make_log(package)
    runtime = package.module.Runtime(log)
    engine = runtime.deserialize_cuda_engine(Path(plan).read_bytes())
    if engine is None:
        built = report["builder"]
        raise ExportError(
            f"{package} cannot open {plan} on {gpu}; it was built by {built['name']} {built['version']} for "
            f"{', '.join(report['targets'])}: {' / '.join(log.errors[-3:]) or 'it gave no reason.'} Build it for this GPU."
        )
    return PlanSession(package, runtime, engine, report)


def check_batch(num_images: int, min_batch: int, max_batch: int) -> None:
    """Refuses a batch that the engine was not built for.

    Raises:
        ValueError: the batch is outside of the profile, which the message states.
    """
    if not min_batch <= num_images <= max_batch:
        raise ValueError(
            f"The engine takes batches of {min_batch} to {max_batch} images; found {num_images}: split the batch, or build the "
            "engine with another min_batch and max_batch."
        )


def answer_in_parts(session: Any, batch: np.ndarray, min_batch: int, max_batch: int) -> np.ndarray:
    """The answers of `session`, [B, D], to a batch of any size from 1, asked in parts that an engine takes.

    Parts have max_batch images; a rest below min_batch is filled up with its last image, and those answers dropped.
    """
    answers = []
    for start in range(0, len(batch), max_batch):
        part = batch[start : start + max_batch]
        num_short = max(0, min_batch - len(part))
        filled = np.concatenate([part, np.repeat(part[-1:], num_short, axis=0)]) if num_short else part
        answers.append(session(filled)[: len(part)])
    return np.concatenate(answers)


class PlanSession:
    """An engine with a stream of its own; not for several threads at once.

    Attributes:
        report: the build report.
        min_batch, max_batch: images that one call takes.
    """

    def __init__(self, package: Package, runtime: Any, engine: Any, report: dict[str, Any]) -> None:
        self._runtime, self._engine = runtime, engine  # the runtime must outlive its engine
        self._context = engine.create_execution_context()
        if self._context is None:
            raise ExportError(f"{package} has no GPU memory left for {report['plan']['name']}: close what holds it.")
        self.report = report
        self._input, self._output = report["profile"]["input"], report["outputs"][0]["output"]
        smallest, _, largest = engine.get_tensor_profile_shape(self._input, 0)
        self.min_batch, self.max_batch = int(smallest[0]), int(largest[0])
        self._shape = tuple(int(size) for size in smallest)[1:]
        self._dtype, self._answer_dtype = (
            _DTYPES[engine.get_tensor_dtype(name).name] for name in (self._input, self._output)
        )
        self._device = torch.device("cuda", torch.cuda.current_device())
        self._stream = torch.cuda.Stream(self._device)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Embeddings, float32 [B, D], of a batch as the exported input wants it; there and back over the bus.

        Raises:
            ValueError: a batch outside of the profile, another shape or dtype.
            ExportError: the engine fails.
        """
        images = torch.from_numpy(np.ascontiguousarray(batch)).to(self._device)
        return self.on_gpu(images).float().cpu().numpy()

    def on_gpu(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings [B, D] of a tensor on the engine's GPU, on that GPU; queued behind the caller's stream, not awaited.

        Raises:
            ValueError: a batch outside of the profile, another shape, dtype or device.
            ExportError: the engine fails.
        """
        if images.dtype != self._dtype or tuple(images.shape[1:]) != self._shape or images.device != self._device:
            raise ValueError(
                f"The engine wants {self._dtype} [B, {', '.join(map(str, self._shape))}] on {self._device}; found "
                f"{images.dtype} {list(images.shape)} on {images.device}."
            )
        check_batch(len(images), self.min_batch, self.max_batch)
        images, context, callers = images.contiguous(), self._context, torch.cuda.current_stream(self._device)
        self._stream.wait_stream(callers)
        taken = context.set_input_shape(self._input, tuple(images.shape))
        with torch.cuda.stream(self._stream):
            answer = torch.empty(
                tuple(context.get_tensor_shape(self._output)), dtype=self._answer_dtype, device=self._device
            )
            taken = taken and context.set_tensor_address(self._input, images.data_ptr())
            taken = taken and context.set_tensor_address(self._output, answer.data_ptr())
            if not (taken and context.execute_async_v3(self._stream.cuda_stream)):
                raise ExportError(
                    f"The engine {self.report['plan']['name']} failed on a batch of {len(images)} images."
                )
        images.record_stream(self._stream)
        answer.record_stream(callers)
        callers.wait_stream(self._stream)
        return answer
