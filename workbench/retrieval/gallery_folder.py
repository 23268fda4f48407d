"""A gallery on disk: a folder that holds the old gallery or the new one, never a part.

`manifest.json` says which subfolder `content-NNNNNN` holds `embeddings.npy` and `references.parquet`, and their sha256.
Replacing this one file is the step from the old gallery to the new.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench.runs.files import new_folder, write_json

FORMAT = "workbench gallery"
FORMAT_VERSION = 1
_FILES = ("embeddings.npy", "references.parquet")
_CONTENT = re.compile(r"content-(\d{6,})")
_UNFINISHED = re.compile(r"\.content-\d{6,}\..+")


class GalleryError(ValueError):
    """A folder that cannot be read as a gallery; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class Stored:
    """What a gallery's folder keeps.

    Attributes:
        embedding_ND: [N, D] float32, normalised.
        references: N rows: `reference` (int64, the id, ascending), `label` (str), `name` (str).
        version: the number of changes so far.
        next_reference: the id that the next reference will get.
    """

    embedding_ND: np.ndarray
    references: pd.DataFrame
    version: int
    next_reference: int


def write_folder(folder: Path, stored: Stored) -> None:
    """Writes `stored` to `folder`, whole or not at all.

    Two processes that write to one folder take turns; what a killed one left is cleared away.

    Raises:
        GalleryError: the folder holds a `manifest.json` that is no gallery's.
        OSError: it cannot be written; the gallery that was there stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _only_writer(folder):
        if (folder / "manifest.json").exists():
            _read_manifest(folder)
        serials = [int(match[1]) for path in folder.iterdir() if (match := _CONTENT.fullmatch(path.name))]
        content = f"content-{max(serials, default=0) + 1:06d}"
        with new_folder(folder / content) as unfinished:
            np.save(unfinished / "embeddings.npy", stored.embedding_ND)
            stored.references.to_parquet(unfinished / "references.parquet", index=False)
            hashes = {name: _sha256(unfinished / name) for name in _FILES}
        manifest = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "dim": stored.embedding_ND.shape[1],
            "num_references": len(stored.references),
            "num_labels": stored.references["label"].nunique(),
            "version": stored.version,
            "next_reference": stored.next_reference,
            "content": content,
            "sha256": hashes,
        }
        write_json(folder / "manifest.json", {**manifest, "manifest_sha256": _manifest_hash(manifest)})
        for path in list(folder.iterdir()):
            if path.name != content and (_CONTENT.fullmatch(path.name) or _UNFINISHED.fullmatch(path.name)):
                shutil.rmtree(path)


def read_folder(folder: Path) -> Stored:
    """What `write_folder` wrote, checked against its hashes. A gallery replaced meanwhile is read anew.

    Raises:
        GalleryError: no gallery, an incomplete or damaged one, or one of another format version.
    """
    manifest = _read_manifest(folder)
    while True:
        try:
            return _read_content(folder, manifest)
        except FileNotFoundError as error:
            replaced = _read_manifest(folder)
            if replaced == manifest:
                raise GalleryError(
                    f"The gallery {folder} is incomplete: {error.filename} is missing. Copy it again or save it anew."
                ) from error
            manifest = replaced


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise GalleryError(
            f"{folder} is no gallery: there is no {path}. Give the folder that Gallery.save wrote."
        ) from error
    except ValueError as error:
        raise GalleryError(
            f"{path} is damaged: it is not JSON ({error}). Copy the gallery again or save it elsewhere."
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise GalleryError(f"{folder} is no gallery: {path} does not have the format {FORMAT!r}. Take another folder.")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise GalleryError(
            f"The gallery {folder} has format version {manifest.get('format_version')!r}, this workbench reads {FORMAT_VERSION}. "
            "Build it again from its references, or use the workbench that wrote it."
        )
    if manifest.pop("manifest_sha256", None) != _manifest_hash(manifest):
        raise GalleryError(
            f"{path} is damaged: its content does not have its hash. Copy the gallery again or build it anew."
        )
    return manifest


def _read_content(folder: Path, manifest: dict[str, Any]) -> Stored:
    content = folder / manifest["content"]
    for name in _FILES:
        if _sha256(content / name) != manifest["sha256"][name]:
            raise GalleryError(
                f"{content / name} is damaged: its hash differs. Copy the gallery again or build it anew."
            )
    stored = Stored(
        embedding_ND=np.load(content / "embeddings.npy", allow_pickle=False),
        references=pd.read_parquet(content / "references.parquet"),
        version=manifest["version"],
        next_reference=manifest["next_reference"],
    )
    found = {"dim": stored.embedding_ND.shape[1], "num_references": len(stored.embedding_ND)}
    if found != {key: manifest[key] for key in found} or len(stored.references) != len(stored.embedding_ND):
        raise GalleryError(
            f"The gallery {folder} contradicts itself: found {found} and {len(stored.references)} rows of text."
        )
    return stored


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest_hash(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
