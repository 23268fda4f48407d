"""An ONNX file opened by a runtime: arrays in, arrays out. Neither torch nor an embedder is needed here, save for TensorRT.

Axes: B images of a batch, D the embedding's width.
"""

import argparse
import importlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np

from workbench.export.folder import ExportError

RUNTIMES = ("onnxruntime", "openvino")  # these read the ONNX file and compute on the CPU
TENSORRT = "tensorrt"  # reads a plan and computes on a GPU
Session = Callable[[np.ndarray], np.ndarray]


def open_session(
    model: Path, runtime: str = "onnxruntime", num_threads: int | None = None, half: bool = False, output: int = 0
) -> Session:
    """A function from a batch, as the file's input wants it, to embeddings, float32 [B, D].

    Args:
        model: the ONNX file; for tensorrt the plan.
        runtime: onnxruntime or openvino, on the CPU; or tensorrt, on a GPU, see `tensorrt_session.open_plan`.
        num_threads: threads of one call on the CPU; None is one a core.
        half: the file computes in fp16; a plan knows by itself.
        output: of the ONNX file; 0 is the embeddings, 1 the class probabilities where it has them. A plan has one.

    Raises:
        ValueError: another runtime, or num_threads below 1.
        FileNotFoundError: a plan or its report is missing.
        ExportError: the runtime is not installed, or cannot read the file; for tensorrt, a GPU is missing.
    """
    if runtime not in (*RUNTIMES, TENSORRT):
        raise ValueError(f"runtime is one of {', '.join((*RUNTIMES, TENSORRT))}; found {runtime!r}.")
    if num_threads is not None and num_threads < 1:
        raise ValueError(f"num_threads is at least 1, or None for one a core; found {num_threads}.")
    if runtime == TENSORRT:
        return importlib.import_module("workbench.export.tensorrt_session").open_plan(model)
    package = _package(runtime)
    opened = {"onnxruntime": _open_onnxruntime, "openvino": _open_openvino}[runtime]
    try:
        return opened(package, model, num_threads, half, output)
    except Exception as error:  # each runtime has kinds of its own; all mean that the file cannot be run
        raise ExportError(
            f"{runtime} {version(runtime)} cannot open {model}: {_first_line(error)} Export the embedder again, or take "
            f"another runtime ({', '.join(name for name in RUNTIMES if name != runtime)})."
        ) from error


def answer_apart(
    model: Path, batches: list[np.ndarray], runtime: str = "onnxruntime", half: bool = False, output: int = 0
) -> list[np.ndarray]:
    """Embeddings, or another output, of some batches, computed in a process of its own: a crash of the runtime is an error, not the end.

    Raises:
        ExportError: that process died or failed; the message has its last words.
    """
    with tempfile.TemporaryDirectory() as temporary:
        given, answered = Path(temporary) / "given.npz", Path(temporary) / "answered.npz"
        np.savez(given, *batches)
        command = [sys.executable, "-m", "workbench.export.sessions", str(model), str(given), str(answered)]
        done = subprocess.run(
            [*command, "--runtime", runtime, "--output", str(output), *(["--half"] if half else [])],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
            last = done.stderr.strip().splitlines()[-1:] or ["it said nothing."]
            raise ExportError(f"{runtime} failed on {model.name} ({how}): {last[0]}")
        with np.load(answered) as arrays:
            return [arrays[f"arr_{number}"] for number in range(len(batches))]


def _open_onnxruntime(package: ModuleType, model: Path, num_threads: int | None, half: bool, output: int) -> Session:
    options = package.SessionOptions()
    options.log_severity_level = 3
    if num_threads is not None:
        options.intra_op_num_threads = num_threads
    # onnxruntime 1.31's CPU provider crashes on open_clip towers in fp16 when it fuses transposes into products
    disabled = ["MatmulTransposeFusion"] if half else None
    session = package.InferenceSession(
        str(model), options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
    )
    name, wanted = session.get_inputs()[0].name, session.get_outputs()[output].name

    def answer(batch: np.ndarray) -> np.ndarray:
        return np.asarray(session.run([wanted], {name: batch})[0], dtype=np.float32)

    return answer


def _open_openvino(package: ModuleType, model: Path, num_threads: int | None, half: bool, output: int) -> Session:
    # without the hint OpenVINO computes in bf16 where the CPU has it
    settings: dict[str, object] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if num_threads is not None:
        settings["INFERENCE_NUM_THREADS"] = num_threads
    compiled = package.compile_model(str(model), "CPU", settings)
    request = compiled.create_infer_request()

    def answer(batch: np.ndarray) -> np.ndarray:
        return np.array(request.infer({0: batch})[output], dtype=np.float32)

    return answer


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ExportError(
            f"The package {name} is wanted and cannot be imported ({error}): pip install {name}."
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".") + "."


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("given", type=Path)
    parser.add_argument("answered", type=Path)
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--half", action="store_true")
    parser.add_argument("--output", type=int, default=0)
    asked = parser.parse_args()
    session = open_session(asked.model, asked.runtime, half=asked.half, output=asked.output)
    with np.load(asked.given) as given:
        np.savez(asked.answered, *(session(given[name]) for name in given.files))


if __name__ == "__main__":
    _main()
