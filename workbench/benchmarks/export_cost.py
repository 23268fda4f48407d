"""What an export costs: seconds and memory, in a process of its own, the check against torch included."""

import multiprocessing
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
import psutil

from workbench.export.folder import DESCRIBED, read_described
from workbench.export.onnx import InputKind, Precision, export_onnx
from workbench.models.embedder import open_embedder


def measure_export(
    embedder: str,
    precisions: tuple[Precision, ...] = ("fp32", "fp16"),
    *,
    input: InputKind = "float",
    image_size: tuple[int, int] | None = None,
    num_threads: int = 2,
    folder: Path | None = None,
) -> pd.DataFrame:
    """One row a precision: columns precision, seconds (export with its check, the embedder open already), cpu_s (of the exporting
    process, threads added up), before_gib (resident before the export), peak_gib (of all its processes together), file_gib,
    num_files, min_cosine (to torch, the least of the batches checked), n (exports, 1).

    Args:
        embedder: a trunk string, built with random weights, or the folder of a saved embedder.
        precisions: fp32, fp16 or both.
        input: as `export_onnx` wants it.
        image_size: height and width, px, of a trunk; None is its own.
        num_threads: of torch.
        folder: keeps the exports, in folders named by precision; None removes them.

    Raises:
        ValueError, ExportError, FileExistsError: as `export_onnx`.
    """
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for precision in precisions:
            place = (folder or Path(temporary)) / precision
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                arguments = (embedder, place, precision, input, image_size, num_threads)
                seconds, cpu_s, before, peak = pool.submit(_export, *arguments).result()
            checked = read_described(place)["checked_against_torch"]
            sizes = [path.stat().st_size for path in place.iterdir() if path.name != DESCRIBED]
            rows.append(
                {
                    "precision": precision,
                    "seconds": seconds,
                    "cpu_s": cpu_s,
                    "before_gib": before / 2**30,
                    "peak_gib": peak / 2**30,
                    "file_gib": sum(sizes) / 2**30,
                    "num_files": len(sizes),
                    "min_cosine": min(one["min_cosine"] for one in checked.values()),
                    "n": 1,
                }
            )
    return pd.DataFrame(rows)


def _export(
    embedder: str,
    place: Path,
    precision: Precision,
    input: InputKind,
    image_size: tuple[int, int] | None,
    num_threads: int,
) -> tuple[float, float, int, int]:
    import torch

    torch.set_num_threads(num_threads)
    built = open_embedder(embedder, "random", image_size=image_size)
    before, peak, ended = _resident(), [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            peak[0] = max(peak[0], _resident())

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    started, started_cpu = time.perf_counter(), time.process_time()
    try:
        export_onnx(built, place, precision, input)
    finally:
        seconds, cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
        ended.set()
        watching.join()
    return seconds, cpu_s, before, max(peak[0], _resident())


def _resident() -> int:
    """Bytes resident in this process and those it started."""
    own, total = psutil.Process(), 0
    for process in (own, *own.children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total
