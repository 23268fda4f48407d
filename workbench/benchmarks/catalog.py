"""Opening a set of many files: the first time, the second time, and its fingerprint, against a bare walk over its folders."""

import os
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from workbench.benchmarks.measure import Answer, Contender
from workbench.data.catalog import Catalog, open_catalog

BASE = "os.scandir walk"
_CARD = """---
title: Many files
task: recognition
reader: image_folder
splits:
  train: {{images: {num_images}, labels: {num_labels}}}
licence: none, the files are empty
source: made by the benchmark
layout: train/<class>/*.jpg
options:
  split_folders: {{train: train}}
---
"""


@dataclass(frozen=True)
class CatalogSize:
    """A tree of empty files in class folders."""

    num_images: int = 1_000_000
    num_labels: int = 2388

    def describe(self) -> str:
        """Returns the size in words."""
        return f"{self.num_images:,} files in {self.num_labels:,} class folders"


TINY = CatalogSize(40, 4)


@cache
def _made(size: CatalogSize) -> tempfile.TemporaryDirectory:
    """A folder with the set and its card; it goes with the process."""
    folder = tempfile.TemporaryDirectory(prefix="workbench-files-", ignore_cleanup_errors=True)
    root = Path(folder.name)
    (root / "many_files.md").write_text(_CARD.format(num_images=size.num_images, num_labels=size.num_labels))
    for label in range(size.num_labels):
        place = root / "many_files" / "train" / f"{label:05d}"
        place.mkdir(parents=True)
        for number in range(label, size.num_images, size.num_labels):
            os.close(os.open(place / f"{number:08d}.jpg", os.O_CREAT | os.O_WRONLY))
        changed = place.stat().st_mtime - 3600  # as a set that lies there for a while
        os.utime(place, (changed, changed))
    for place in (root / "many_files" / "train", root / "many_files"):
        os.utime(place, (0, 0))
    return folder


def catalog_contenders(size: CatalogSize) -> list[Contender]:
    """Returns the walk, the first opening (read, checked, counted, kept), the second, and the fingerprint of what was opened."""
    root = Path(_made(size).name)

    def opened(kept: Path) -> Catalog:
        return open_catalog(str(root / "many_files.md"), root / "many_files", cache=kept)

    warm = root / "warm"
    catalog = opened(warm)

    def first() -> Answer:
        with tempfile.TemporaryDirectory(dir=root) as fresh:
            return {"files": float(len(opened(Path(fresh))))}

    def fingerprint() -> Answer:
        return {"leading digits": float(int(catalog.fingerprint[:8], 16))}

    return [
        Contender(BASE, lambda: {"files": float(_walk(str(root / "many_files")))}),
        Contender("workbench", first, True, does="first opening: reads, checks, counts and keeps the rows"),
        Contender("workbench, second time", lambda: {"files": float(len(opened(warm)))}, True, does="from parquet"),
        Contender("workbench, fingerprint", fingerprint, True, does="sha256 of all rows"),
    ]


def _walk(folder: str) -> int:
    num_files = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            num_files += _walk(entry.path) if entry.is_dir() else 1
    return num_files
