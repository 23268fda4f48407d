"""A gallery on disk: a folder that holds the old gallery or the new one, never a part.

`manifest.json` says which subfolder `content-NNNNNN` holds `embeddings.npy` and `references.parquet`, their sha256, the last
changes (`gallery_history`) and what the owner noted about the gallery. Replacing this one file is the step from the old gallery
to the new. Format version 1, which had neither changes nor notes, is read too.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench.runs.files import new_folder, sha256_of, write_json

FORMAT = "workbench gallery"
FORMAT_VERSION = 2
_READ_VERSIONS = (1, 2)
_FILES = ("embeddings.npy", "references.parquet")
_CONTENT = re.compile(r"content-(\d{6,})")
_UNFINISHED = re.compile(r"\.content-\d{6,}\..+")


class GalleryError(ValueError):
    """A folder that cannot be read as a gallery; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class Stored:
    """What a gallery's folder keeps.

    Attributes:
        embedding_ND: [N, D] float32, normalised; memory-mapped where it was read from a folder.
        references: N rows: `reference` (int64, the id, ascending), `label` (str), `name` (str).
        version: the number of changes so far.
        next_reference: the id that the next reference will get.
        about: notes of the owner, JSON values: the embedder's fingerprint, a calibration, a protocol.
        history: the last changes, see `gallery_history.append_change`.
    """

    embedding_ND: np.ndarray
    references: pd.DataFrame
    version: int
    next_reference: int
    about: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


def write_folder(folder: Path, stored: Stored) -> None:
    """Writes `stored` to `folder`, whole or not at all.

    Two processes that write to one folder take turns; what a killed one left is cleared away.

    Raises:
        GalleryError: the folder holds a `manifest.json` that is no gallery's.
        ValueError: `about` holds what JSON would not give back as it is.
        OSError: it cannot be written; the gallery that was there stays.
    """
    check_about(stored.about)
    folder.mkdir(parents=True, exist_ok=True)
    with _only_writer(folder):
        if (folder / "manifest.json").exists():
            _read_manifest(folder)
        serials = [int(match[1]) for path in folder.iterdir() if (match := _CONTENT.fullmatch(path.name))]
        content = f"content-{max(serials, default=0) + 1:06d}"
        with new_folder(folder / content) as unfinished:
            np.save(unfinished / "embeddings.npy", stored.embedding_ND)
            stored.references.to_parquet(unfinished / "references.parquet", index=False)
            hashes = {name: sha256_of(unfinished / name) for name in _FILES}
        manifest = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "dim": stored.embedding_ND.shape[1],
            "num_references": len(stored.references),
            "num_labels": stored.references["label"].nunique(),
            "version": stored.version,
            "next_reference": stored.next_reference,
            "about": stored.about,
            "history": stored.history,
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
    if manifest.get("format_version") not in _READ_VERSIONS:
        readable = " and ".join(map(str, _READ_VERSIONS))
        raise GalleryError(
            f"The gallery {folder} has format version {manifest.get('format_version')!r}, this workbench reads {readable}. "
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
        if sha256_of(content / name) != manifest["sha256"][name]:
            raise GalleryError(
                f"{content / name} is damaged: its hash differs. Copy the gallery again or build it anew."
            )
    stored = Stored(
        embedding_ND=np.load(content / "embeddings.npy", mmap_mode="r", allow_pickle=False),
        references=pd.read_parquet(content / "references.parquet"),
        version=manifest["version"],
        next_reference=manifest["next_reference"],
        about=manifest.get("about", {}),
        history=manifest.get("history", []),
    )
    found = {"dim": stored.embedding_ND.shape[1], "num_references": len(stored.embedding_ND)}
    if found != {key: manifest[key] for key in found} or len(stored.references) != len(stored.embedding_ND):
        raise GalleryError(
            f"The gallery {folder} contradicts itself: found {found} and {len(stored.references)} rows of text."
        )
    return stored


def check_about(about: dict[str, Any]) -> None:
    """Does nothing where JSON gives `about` back as it is: text keys; text, finite numbers, true, false, null, lists, dicts.

    Raises:
        ValueError: anything else (a tuple, a numpy number, NaN, a key that is no text); the first key at fault is named.
    """
    if not isinstance(about, dict):
        raise ValueError(f"about is a dict of text and JSON values, found {type(about).__name__}.")
    for key, value in about.items():
        try:
            written = json.dumps({key: value}, allow_nan=False, ensure_ascii=False)
            written.encode("utf-8")
            same = repr(json.loads(written)) == repr({key: value})
        except (TypeError, ValueError, RecursionError):
            same = False
        if not same:
            raise ValueError(
                f"about[{key!r}] cannot be kept in JSON as it is: {value!r}. Use text keys, and text, finite Python numbers, "
                "True, False, None, lists and dicts as values."
            )


def check_texts(texts: list[Any], wanted: int, what: str) -> list[str]:
    """Returns the texts as plain str, exactly as they are: a number is refused, which would be written in one of many ways.

    Raises:
        ValueError: another number of texts than `wanted`, or one that cannot be written as UTF-8.
        TypeError: one that is no text.
    """
    if len(texts) != wanted:
        raise ValueError(f"Wanted one {what} for each of the {wanted} references, found {len(texts)}.")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"A {what} is text, found {text!r} ({type(text).__name__}) for reference {row}; use str.")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"The {what} {text!r} of reference {row} cannot be written as UTF-8.") from error
    return [str(text) for text in texts]


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _manifest_hash(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
