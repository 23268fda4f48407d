"""An EmbeddingSet on disk: half-made while rows are appended, whole once it is renamed, and opened from there.

Axes: N rows (an image, or an augmented copy of one), D the embedding's width.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from workbench.data.catalog import Catalog
from workbench.data.fingerprints import content_fingerprint
from workbench.data.images import say_box
from workbench.runs.files import write_json


@dataclass(frozen=True)
class EmbeddingSet:
    """Embeddings of a catalog's images.

    Attributes:
        embedding_ND: float32, memory-mapped, rows of length 1.
        catalog: one row for each row of embedding_ND (an augmented copy repeats its photograph's row).
        source_N: int64, the number of the photograph, 0-based, that a row comes from.
        copy_N: int64, 0 for the photograph itself, 1 and up for its augmented copies.
        quarantine: what could not be decoded: columns path, reason.
        meta: fingerprint of the embedder, dtype, images/s, what else went into the cache key, and `content`, the fingerprint of
            what is in the images, whatever their names.
    """

    embedding_ND: np.ndarray
    catalog: Catalog
    source_N: np.ndarray
    copy_N: np.ndarray
    quarantine: pd.DataFrame
    meta: dict[str, Any]

    def __len__(self) -> int:
        return len(self.embedding_ND)


class HalfMadeSet:
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
        """Brings the rows to the disk, then counts them as done."""
        self.file.flush()
        os.fsync(self.file.fileno())
        state = {"done": self.done, "num_rows": self.num_rows, "seconds": self.seconds, "sha256": self.sha256}
        write_json(self.folder / "progress.json", {**state, "failures": self.failures})

    def close(self) -> None:
        """Closes the file; what was not saved is made anew by the next who opens the folder."""
        self.file.close()

    def finish(self, folder: Path, catalog: Catalog, copies: int, described: dict[str, Any]) -> None:
        """Adds the rows' catalog and what describes them, and renames the whole to `folder`."""
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
        boxes = [say_box(picture.box) for picture in catalog.pictures()]
        content = content_fingerprint(key + box for key, box in zip(self.sha256, boxes, strict=True))
        about = {**described, "content": content, "images_per_s": speed, "failures": failures}
        write_json(self.folder / "meta.json", about)
        (self.folder / "progress.json").unlink()
        os.rename(self.folder, folder)


def open_set(folder: Path, catalog: Catalog) -> EmbeddingSet:
    """The set that `HalfMadeSet.finish` left in `folder`, made of the images of `catalog`."""
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    table = pd.read_parquet(folder / "catalog.parquet")
    row_N = table["row"].to_numpy(np.int64)
    failures = {int(row): reason for row, reason in meta["failures"].items()}
    return EmbeddingSet(
        embedding_ND=np.load(folder / "embeddings.npy", mmap_mode="r"),
        catalog=catalog.take(row_N),
        source_N=np.unique(row_N, return_inverse=True)[1].astype(np.int64),
        copy_N=table["copy"].to_numpy(np.int64),
        quarantine=quarantine_of(catalog, failures),
        meta=meta,
    )


def quarantine_of(catalog: Catalog, failures: dict[int, str]) -> pd.DataFrame:
    """Columns path and reason of the rows that failed, in the catalog's order."""
    rows = sorted(failures)
    names = catalog.names()[rows].tolist()
    return pd.DataFrame({"path": names, "reason": [failures[row] for row in rows]}, dtype="str")


@contextmanager
def only_process(cache: Path, key: str) -> Iterator[None]:
    """Holds a lock that the operating system gives back when the process dies; also clears what a version left."""
    cache.mkdir(parents=True, exist_ok=True)
    lock_path = cache / f".{key}.lock"
    with open(lock_path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        for left in cache.glob(f".{key}-*"):
            shutil.rmtree(left)
        lock_path.unlink(missing_ok=True)
