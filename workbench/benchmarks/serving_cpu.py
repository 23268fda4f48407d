"""The runtimes that answer on a CPU, ready for `serving.measure_serving`: torch, inductor, and exported files.

All use the same number of threads; `python -m workbench.benchmarks.serving_cpu` measures an embedder from the shell. Start
Python with OMP_WAIT_POLICY=PASSIVE, or one library's waiting threads take the processor from the next one for a moment; the
untimed call of every turn keeps that out of the latencies.
Axes: B images of a batch, D the embedding's width; NCHW as usual.
"""

import argparse
import copy
import functools
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from workbench.benchmarks.machine import describe_processor
from workbench.benchmarks.pictures import usable_pictures
from workbench.benchmarks.serving import (
    BATCHES,
    Candidate,
    Ready,
    by_wall_clock,
    measure_serving,
)
from workbench.benchmarks.serving_limit import count_flops, product_limit
from workbench.data.catalog import Catalog, open_catalog
from workbench.export.folder import MODEL, ExportError, read_described
from workbench.export.int8 import quantise_onnx
from workbench.export.onnx import export_onnx
from workbench.export.sessions import open_session
from workbench.models.embedder import Embedder, open_embedder

RUNTIMES = ("torch", "inductor", "onnxruntime", "openvino")


def cpu_candidates(
    embedder: Embedder,
    exported: Mapping[str, Path],
    num_threads: int,
    runtimes: tuple[str, ...] = RUNTIMES,
) -> list[Candidate]:
    """The runtimes on the CPU, torch eager first: it is the base, and takes part always.

    Args:
        embedder: on the CPU, in fp32.
        exported: by precision (fp32, fp16, int8), folders that `export_onnx` and `quantise_onnx` wrote, with any input;
            onnxruntime and OpenVINO answer from each. A file that normalises inside is fed the pixels, and its times hold that.
        num_threads: of every runtime; torch's is set for the whole process.
        runtimes: some of `RUNTIMES`.

    Raises:
        ValueError: an unknown runtime, fewer than 1 thread, or a folder of another precision or width, or not normalised.
        FileNotFoundError, ExportError: a folder is broken.
    """
    unknown = [name for name in runtimes if name not in RUNTIMES]
    if unknown or num_threads < 1:
        raise ValueError(
            f"runtimes are some of {', '.join(RUNTIMES)}, num_threads at least 1; found {', '.join(unknown) or 'these'} "
            f"and {num_threads}."
        )
    for precision, folder in exported.items():
        described = read_described(folder)
        found = (described["precision"], described["embedding_dim"], described["normalised"])
        if found != (precision, embedder.embedding_dim, True):
            raise ValueError(
                f"An export in {precision}, width {embedder.embedding_dim}, normalised, was wanted; {folder} has "
                f"{found[0]}, {found[1]}, {'normalised' if found[2] else 'not normalised'}."
            )
    torch.set_num_threads(num_threads)
    found_candidates = [Candidate("torch eager", "fp32", lambda images: _by_torch(embedder, images))]
    if "inductor" in runtimes:
        found_candidates.append(Candidate("torch.compile", "fp32", lambda images: by_inductor(embedder, images)))
    for precision, folder in exported.items():
        for runtime in ("onnxruntime", "openvino"):
            if runtime in runtimes:
                name = {"onnxruntime": "onnxruntime", "openvino": "OpenVINO"}[runtime]
                if precision != "fp32":
                    name = f"{name} {precision}"
                prepare = _by_file(Path(folder), runtime, num_threads)
                found_candidates.append(Candidate(name, precision, prepare))
    return found_candidates


def by_inductor(embedder: Embedder, images_BCHW: np.ndarray) -> Ready:
    """The embedder through torch.compile with weights frozen in, compiled for this batch.

    Raises:
        ExportError: inductor cannot compile here, as where there is no C++ compiler.
    """
    import torch._dynamo
    import torch._inductor.config as settings

    images = torch.from_numpy(images_BCHW)
    torch.compiler.reset()  # the last batch's code would count against the limit of recompilations
    compiled = torch.compile(embedder, dynamic=False)

    def answer() -> np.ndarray:
        with torch.no_grad():
            return compiled(images).numpy()

    try:
        with settings.patch(freezing=True), torch._dynamo.config.patch(suppress_errors=False):
            answer()
    except Exception as error:  # a missing compiler, an operator, a full disk: the row says which
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise ExportError(f"inductor cannot compile the embedder: {lines[0][:300]}") from error
    return by_wall_clock(answer)


def _by_torch(embedder: Embedder, images_BCHW: np.ndarray) -> Ready:
    images = torch.from_numpy(images_BCHW)

    def answer() -> np.ndarray:
        with torch.inference_mode():
            return embedder(images).numpy()

    return by_wall_clock(answer)


def _by_file(folder: Path, runtime: str, num_threads: int) -> Callable[[np.ndarray], Ready]:
    described = read_described(folder)
    half = described["precision"] == "fp16"
    opened = functools.cache(lambda: open_session(folder / MODEL, runtime, num_threads, half=half))

    def prepare(images_BCHW: np.ndarray) -> Ready:
        session, fed = opened(), _as_fed(images_BCHW, described)
        return by_wall_clock(lambda: session(fed))

    return prepare


def _as_fed(images_BCHW: np.ndarray, described: Mapping[str, Any]) -> np.ndarray:
    """Normalised images as the file's input wants them: for `raw` and `uint8` the pixels that they were made from."""
    if described["input"] == "float":
        return images_BCHW
    mean_C11, std_C11 = (np.array(described["preprocessing"][name])[:, None, None] for name in ("mean", "std"))
    pixels_BCHW = np.rint(255 * (images_BCHW * std_C11 + mean_C11)).clip(0, 255)
    if described["input"] == "raw":
        return pixels_BCHW.astype(np.float32)
    return np.ascontiguousarray(pixels_BCHW.transpose(0, 2, 3, 1).astype(np.uint8))


def serve_on_cpu(
    embedder: Embedder,
    catalog: Catalog,
    *,
    exported: Path | str | None = None,
    calibration: Catalog | None = None,
    num_threads: int = 2,
    precisions: tuple[str, ...] = ("fp32", "int8"),
    runtimes: tuple[str, ...] = RUNTIMES,
    num_images: int = 64,
    **options: Any,
) -> pd.DataFrame:
    """The table of `serving.measure_serving` on this CPU: of one exported folder, or of files made for it and removed afterwards.

    Args:
        embedder: on any device and of any precision; it stays as it is, a copy in fp32 on the CPU is measured.
        catalog: its first images are what is embedded.
        exported: a folder as `export_onnx` wrote it from this embedder, measured as it is; None exports to normalised floats, in
            `precisions`.
        calibration: without `exported`: images trained on, which int8 is calibrated on. None: `catalog`, which is fit for speed
            alone; whether an int8 file answers well is asked elsewhere, see `export.acceptance`.
        num_threads: of every runtime.
        precisions: fp32, int8 or both; of no account with `exported`, which has its own.
        runtimes: some of `RUNTIMES`.
        num_images: images embedded and calibrated on; fewer are repeated.
        options: batches, num_rounds, calls_a_round and budget_s, see `measure_serving`.

    Raises:
        ValueError: as `cpu_candidates` and `measure_serving`, an unknown precision, a catalog without images, or a folder that was
            exported from another embedder.
        FileNotFoundError, ExportError: the exported folder is broken.
    """
    unknown = [name for name in precisions if name not in ("fp32", "int8")]
    if unknown or not precisions or not len(catalog):
        raise ValueError(
            f"precisions are fp32, int8 or both, and a catalog with images; found {precisions}, {len(catalog)}."
        )
    described = None if exported is None else read_described(exported)
    if described is not None and described.get("embedder_fingerprint") != embedder.fingerprint():
        raise ValueError(
            f"{exported} was exported from another embedder than the one to measure it beside; give that one."
        )
    embedder = copy.deepcopy(embedder).cpu().float().eval()  # what embedded before may have left it on a GPU
    preprocessing = embedder.preprocessing
    _, inputs_NHWC = usable_pictures(catalog, preprocessing, num_images)
    images_NCHW = preprocessing.normalise(torch.from_numpy(inputs_NHWC)).numpy()
    with tempfile.TemporaryDirectory() as temporary:
        if exported is not None and described is not None:
            folders = {described["precision"]: Path(exported)}
        else:
            exact = export_onnx(embedder, Path(temporary) / "fp32")
            folders = {"fp32": exact} if "fp32" in precisions else {}
            if "int8" in precisions:
                seen = catalog if calibration is None else calibration
                folders["int8"] = quantise_onnx(exact, Path(temporary) / "int8", seen, num_images=num_images)
        candidates = cpu_candidates(embedder, folders, num_threads, runtimes)
        device = f"{describe_processor()}, {num_threads} thread{'s' if num_threads > 1 else ''}"
        return measure_serving(
            candidates, images_NCHW, count_flops(embedder), product_limit(), device=device, **options
        )


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workbench.benchmarks.serving_cpu", description=__doc__)
    parser.add_argument("--embedder", default="timm:resnet50", help="a trunk, or the folder of a saved embedder")
    parser.add_argument("--weights", default="random", help="pretrained, random, or a local file")
    parser.add_argument("--image-size", type=int, nargs=2, default=(224, 224), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--data", default="synthetic_products", help="a card's name or path")
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=20, help="timed calls of a round")
    parser.add_argument("--out", type=Path, default=None, help="a CSV file to write")
    asked = parser.parse_args()
    size = {} if Path(asked.embedder).is_dir() else {"image_size": tuple(asked.image_size)}
    catalog = open_catalog(asked.data, asked.data_root)
    table = serve_on_cpu(
        open_embedder(asked.embedder, asked.weights, **size),
        catalog,
        calibration=catalog.select(split="train") if (catalog.frame["split"] == "train").any() else None,
        num_threads=asked.threads,
        batches=asked.batches,
        num_rounds=asked.rounds,
        calls_a_round=asked.calls,
    )
    text = table.drop(columns=["device", "transfers"]).to_string(index=False, float_format="{:.3g}".format)
    sys.stdout.write(f"{table['device'].iloc[0]}\n{text}\n")
    if asked.out is not None:
        table.to_csv(asked.out, index=False)


if __name__ == "__main__":
    _main()
