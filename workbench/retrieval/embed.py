"""From a catalog to an EmbeddingSet: decoded in threads, embedded in batches, kept by content.

Axes: N rows (an image, or an augmented copy of one), D the embedding's width.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import torch

from workbench.data.augment import Augmentation, augment_image
from workbench.data.catalog import Catalog
from workbench.data.images import ImageError, check_quarantine, decode_image
from workbench.models.device import choose_device
from workbench.models.embedder import Embedder
from workbench.runs.files import write_json
from workbench.runs.root import outputs_folder

FORMAT_VERSION = 1
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SAVE_EVERY_S = 5.0


@dataclass(frozen=True)
class EmbeddingSet:
    """Embeddings of a catalog's images.

    Attributes:
        embedding_ND: float32, memory-mapped, rows of length 1.
        catalog: one row for each row of embedding_ND (an augmented copy repeats its photograph's row).
        source_N: int64, the number of the photograph, 0-based, that a row comes from.
        copy_N: int64, 0 for the photograph itself, 1 and up for its augmented copies.
        quarantine: what could not be decoded: columns path, reason.
        meta: fingerprint of the embedder, dtype, images/s and what else went into the cache key.
    """

    embedding_ND: np.ndarray
    catalog: Catalog
    source_N: np.ndarray
    copy_N: np.ndarray
    quarantine: pd.DataFrame
    meta: dict[str, Any]

    def __len__(self) -> int:
        return len(self.embedding_ND)


def print_progress(done: int, total: int, images_per_s: float) -> None:
    """Prints one line of progress, readable in a terminal, a notebook and a log file."""
    print(f"embedded {done:,} of {total:,} images, {images_per_s:,.0f} images/s", flush=True)  # noqa: T201


def embed_catalog(
    embedder: Embedder,
    catalog: Catalog,
    *,
    copies: int = 0,
    augmentation: Augmentation | None = None,
    mirrored: bool = False,
    batch_size: int = 32,
    device: str = "auto",
    dtype: str = "float32",
    seed: int = 0,
    cache: Path | None = None,
    num_workers: int | None = None,
    quarantine_limit: float = 0.01,
    progress: Callable[[int, int, float], None] | None = print_progress,
) -> EmbeddingSet:
    """The embeddings of a catalog's images, from the cache when nothing has changed.

    The cache's key is the hash of embedder (weights, architecture, preprocessing), dtype, kind of device, copies, seed,
    mirroring and the images (path, size, mtime_ns), so that it is never stale. Work is saved every few seconds: a killed call
    goes on where it stopped and ends with the same bits. Two processes with the same work take turns.

    Args:
        embedder: moved to `device` and set to evaluation mode.
        catalog: rows in any order; the result keeps it.
        copies: augmented copies of each photograph, added after it (RetailKLIP's one-shot galleries).
        augmentation: what happens to a copy; None is `Augmentation()`.
        mirrored: the trunk sees left and right exchanged, copies too; see `tracklets.average_flip`.
        batch_size: images a forward pass.
        device: auto, cpu, cuda, cuda:1, ...
        dtype: float32, bfloat16 or float16 for the trunk; embeddings are kept as float32.
        seed: of the augmented copies.
        cache: folder of embedding sets; None is `cache/embeddings` in the outputs folder.
        num_workers: decoding threads; None is one a core.
        quarantine_limit: share of images that may fail to decode; above it the call stops with an error.
        progress: called every few seconds with images done, images in all, images/s; None is silent.

    Raises:
        ValueError: an empty catalog or an argument out of range.
        QuarantineError: more images than `quarantine_limit` cannot be decoded. What was embedded is kept.
    """
    if len(catalog) == 0:
        raise ValueError("The catalog holds no image to embed; check its split and domain.")
    if copies < 0 or batch_size < 1:
        raise ValueError(f"copies is at least 0 and batch_size at least 1; found {copies} and {batch_size}.")
    if dtype not in DTYPES:
        raise ValueError(f"dtype is one of {', '.join(DTYPES)}; found {dtype!r}.")
    chosen = choose_device(device)
    cache = cache or outputs_folder() / "cache" / "embeddings"
    augmentation = augmentation or Augmentation()
    paths = catalog.image_paths()
    described = {
        "format_version": FORMAT_VERSION,
        "embedder": embedder.fingerprint(),
        "dtype": dtype,
        "device": chosen.type,
        "copies": copies,
        "augmentation": asdict(augmentation) if copies else None,
        "seed": seed if copies else None,
        "mirrored": mirrored,
        "images": _images_fingerprint(catalog, paths),
    }
    key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:32]
    folder = cache / key
    with _only_process(cache, key):
        if not folder.is_dir():
            with closing(_Work(cache / f".{key}-{batch_size}", embedder.embedding_dim)) as work:
                rendered = _rendered(
                    paths, embedder, copies, augmentation, mirrored, seed, num_workers, work.done, batch_size
                )
                _embed(work, rendered, embedder, chosen, DTYPES[dtype], batch_size, len(paths), progress)
                check_quarantine(_quarantine_of(catalog, work.failures), len(paths), quarantine_limit)
                work.finish(folder, catalog, copies, described)
    opened = _open(folder, catalog)
    check_quarantine(opened.quarantine, len(paths), quarantine_limit)
    return opened


@dataclass
class _Rendered:
    """One photograph on its way: its inputs [1 + copies, H, W, 3] uint8 or the reason why there are none."""

    row: int
    sha256: str
    inputs: np.ndarray | None
    reason: str = ""


class _Work:
    """A half-made embedding set on disk: rows are appended, and counted as done only once they are on the disk."""

    def __init__(self, folder: Path, dim: int) -> None:
        self.folder, self.dim = folder, dim
        self.done, self.num_rows = 0, 0
        self.failures: dict[int, str] = {}
        self.sha256: list[str] = []
        self.seconds = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        progress = folder / "progress.json"
        if progress.is_file():
            saved = json.loads(progress.read_text(encoding="utf-8"))
            self.done, self.num_rows, self.sha256 = saved["done"], saved["num_rows"], saved["sha256"]
            self.failures = {int(row): reason for row, reason in saved["failures"].items()}
            self.seconds = saved["seconds"]
        self.file: BinaryIO = open(folder / "embeddings.npy", "r+b" if progress.is_file() else "wb")  # noqa: SIM115
        self._write_header()
        self.file.seek(self.start + self.num_rows * dim * 4)
        self.file.truncate()

    def _write_header(self) -> None:
        # numpy pads the header so that the number of rows can grow in place
        self.file.seek(0)
        shape = (self.num_rows, self.dim)
        np.lib.format.write_array_header_1_0(self.file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        self.start = self.file.tell()

    def save(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        state = {"done": self.done, "num_rows": self.num_rows, "seconds": self.seconds, "sha256": self.sha256}
        write_json(self.folder / "progress.json", {**state, "failures": self.failures})

    def close(self) -> None:
        self.file.close()

    def finish(self, folder: Path, catalog: Catalog, copies: int, described: dict[str, Any]) -> None:
        start = self.start
        self._write_header()
        if self.start != start:
            raise RuntimeError("numpy's header changed its length; this numpy version needs another way to append.")
        self.save()
        good = np.array([row for row in range(len(catalog)) if row not in self.failures], dtype=np.int64)
        rows = catalog.take(np.repeat(good, 1 + copies))
        table = rows.frame.assign(
            row=np.repeat(good, 1 + copies),
            copy=np.tile(np.arange(1 + copies), len(good)),
            sha256=np.repeat(np.array(self.sha256, dtype=object)[good], 1 + copies),
        )
        table.to_parquet(self.folder / "catalog.parquet")
        speed = len(catalog) / self.seconds if self.seconds else None
        failures = {str(row): reason for row, reason in self.failures.items()}
        write_json(self.folder / "meta.json", {**described, "images_per_s": speed, "failures": failures})
        (self.folder / "progress.json").unlink()
        os.rename(self.folder, folder)


def _embed(
    work: _Work,
    rendered: Iterator[_Rendered],
    embedder: Embedder,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int,
    num_images: int,
    progress: Callable[[int, int, float], None] | None,
) -> None:
    """Fills `work`. Batches start at multiples of batch_size images, so that a resumed run makes the same ones."""
    embedder = embedder.to(device).eval()
    started, saved, done_before = time.monotonic(), time.monotonic(), work.done
    seconds_before = work.seconds
    batch: list[_Rendered] = []
    for item in rendered:
        batch.append(item)
        if len(batch) < batch_size and item.row + 1 < num_images:
            continue
        good = [one.inputs for one in batch if one.inputs is not None]
        if good:
            inputs = torch.from_numpy(np.concatenate(good)).to(device)
            with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                parts = [embedder(embedder.preprocessing.normalise(part)) for part in inputs.split(batch_size)]
            embedding_ND = torch.cat(parts).float().cpu().numpy()
            if not np.isfinite(embedding_ND).all():
                raise ValueError(
                    "The embedder gave values that are not finite; check its weights, or use dtype float32."
                )
            work.file.write(np.ascontiguousarray(embedding_ND, dtype="<f4").tobytes())
            work.num_rows += len(embedding_ND)
        work.failures.update({one.row: one.reason for one in batch if one.inputs is None})
        work.sha256.extend(one.sha256 for one in batch)
        work.done = item.row + 1
        batch = []
        now = time.monotonic()
        work.seconds = seconds_before + now - started
        if now - saved > _SAVE_EVERY_S or work.done == num_images:
            work.save()
            saved = now
            if progress is not None:
                progress(work.done, num_images, (work.done - done_before) / max(now - started, 1e-9))


def _rendered(
    paths: list[Path],
    embedder: Embedder,
    copies: int,
    augmentation: Augmentation,
    mirrored: bool,
    seed: int,
    num_workers: int | None,
    first: int,
    batch_size: int,
) -> Iterator[_Rendered]:
    """Yields every photograph from `first` on, in order, rendered by threads a few batches ahead."""
    preprocessing = embedder.preprocessing

    def render(row: int) -> _Rendered:
        try:
            content = paths[row].read_bytes()
        except OSError as error:
            return _Rendered(row, "", None, f"cannot be read: {error.strerror or error}")
        sha256 = hashlib.sha256(content).hexdigest()
        try:
            image = decode_image(content, str(paths[row]), target_px=preprocessing.decode_px)
        except ImageError as error:
            return _Rendered(row, sha256, None, error.reason)
        inputs = [preprocessing.apply(image)]
        for copy in range(1, copies + 1):
            rng = np.random.default_rng([seed, copy, int(sha256[:16], 16)])
            inputs.append(preprocessing.apply(augment_image(image, augmentation, rng)))
        whole = np.stack(inputs)
        return _Rendered(row, sha256, whole[:, :, ::-1] if mirrored else whole)

    workers = num_workers or os.cpu_count() or 1
    waiting: deque[Future[_Rendered]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for row in range(first, len(paths)):
                waiting.append(pool.submit(render, row))
                if len(waiting) >= 2 * batch_size + workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _images_fingerprint(catalog: Catalog, paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for source, name, path in zip(catalog.frame["source"], catalog.frame["path"], paths, strict=True):
        try:
            stat = path.stat()
            digest.update(f"{source}\0{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{source}\0{name}\0missing\n".encode())
    return digest.hexdigest()


def _quarantine_of(catalog: Catalog, failures: dict[int, str]) -> pd.DataFrame:
    rows = sorted(failures)
    names = catalog.frame["path"].iloc[rows].tolist()
    return pd.DataFrame({"path": names, "reason": [failures[row] for row in rows]}, dtype="str")


def _open(folder: Path, catalog: Catalog) -> EmbeddingSet:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    table = pd.read_parquet(folder / "catalog.parquet")
    row_N = table["row"].to_numpy(np.int64)
    failures = {int(row): reason for row, reason in meta["failures"].items()}
    return EmbeddingSet(
        embedding_ND=np.load(folder / "embeddings.npy", mmap_mode="r"),
        catalog=catalog.take(row_N),
        source_N=np.unique(row_N, return_inverse=True)[1].astype(np.int64),
        copy_N=table["copy"].to_numpy(np.int64),
        quarantine=_quarantine_of(catalog, failures),
        meta=meta,
    )


@contextmanager
def _only_process(cache: Path, key: str) -> Iterator[None]:
    """Holds a lock that the operating system gives back when the process dies; also clears what a version left."""
    cache.mkdir(parents=True, exist_ok=True)
    lock_path = cache / f".{key}.lock"
    with open(lock_path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        for left in cache.glob(f".{key}-*"):
            shutil.rmtree(left)
        lock_path.unlink(missing_ok=True)
