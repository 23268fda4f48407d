"""A bundle: a folder that another team deploys, with its gallery, its model card and the SHA-256 of every file."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from workbench.export.folder import ExportError
from workbench.export.runtimes import ExportedEmbedder
from workbench.export.sessions import RUNTIMES
from workbench.retrieval.gallery import Gallery
from workbench.retrieval.gallery_folder import read_folder, write_folder
from workbench.runs.files import new_folder, sha256_of, write_bytes, write_text

GALLERY, CARD, SUMS = "gallery", "MODEL_CARD.md", "SHA256SUMS"
_LINE = re.compile(rb"(\\?)([0-9a-f]{64})  (.+)")
_ESCAPES = {b"\\": b"\\\\", b"\n": b"\\n", b"\r": b"\\r"}
_PLAIN = {escaped: plain for plain, escaped in _ESCAPES.items()}


@contextmanager
def new_bundle(folder: Path | str, *, gallery: Path | None = None, card: str) -> Iterator[Path]:
    """A temporary folder to fill, which becomes the bundle `folder`, whole, when the block ends without an error.

    Then it also holds `gallery/` (the gallery as it was when the block began: `Gallery.load` opens it; the history of its
    changes, with the comments of those who made them, stays at home), `MODEL_CARD.md`, and `SHA256SUMS`, which
    `sha256sum -c SHA256SUMS` inside the bundle checks and `check_bundle` checks more strictly.

    Args:
        folder: must not exist yet.
        gallery: a gallery's folder, with at least one reference; None leaves it out.
        card: the model card, Markdown.

    Raises:
        FileExistsError: the folder is there already; bundles are never overwritten.
        GalleryError: the gallery cannot be read, or is damaged; nothing was written.
        ValueError: an empty card or an empty gallery; nothing was written.
        ExportError: the block left a file in the place of one of the three, a link, or an empty folder.
    """
    folder = Path(folder)
    if os.path.lexists(folder):
        raise FileExistsError(f"{folder} exists already; choose another folder for the bundle or remove it.")
    if not card.strip():
        raise ValueError("The model card is empty; a bundle goes nowhere without one: see report.model_card.")
    stored = None if gallery is None else read_folder(Path(gallery))
    if stored is not None and not len(stored.references):
        raise ValueError(f"The gallery {gallery} is empty; add references to it first.")
    with new_folder(folder) as temporary:
        yield temporary
        taken = [name for name in (GALLERY, CARD, SUMS) if os.path.lexists(temporary / name)]
        if taken:
            raise ExportError(f"{' and '.join(taken)} of a bundle are written last; put nothing else in that place.")
        empty = [
            place for place, folders, files in os.walk(temporary) if not folders + files and Path(place) != temporary
        ]
        if empty:
            raise ExportError(
                f"{empty[0]} is an empty folder, which copies lose and no sum can miss; put a file into it or leave it out."
            )
        if stored is not None:
            about = {name: fact for name, fact in stored.about.items() if name != "pictures"}  # places on this machine
            write_folder(temporary / GALLERY, replace(stored, about=about, history=[]))
        write_text(temporary / CARD, card if card.endswith("\n") else f"{card}\n")
        lines = [_line(name, sha256_of(temporary / name)) for name in _list_files(temporary)]
        write_bytes(temporary / SUMS, b"".join(lines))


def check_bundle(folder: Path | str) -> None:
    """Nothing, where every file of the bundle is the one that was written and there is no other.

    Raises:
        ExportError: no bundle, or files that are missing, changed or not listed; the message names them.
    """
    folder = Path(folder)
    try:
        listed = _read_sums((folder / SUMS).read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ExportError(f"{folder} is no bundle: there is no {folder / SUMS}.") from error
    except ValueError as error:
        raise ExportError(f"{folder / SUMS} is damaged: {error}. Copy the bundle again.") from error
    found = {name for name in _list_files(folder) if name != SUMS}
    trouble = {
        "missing": sorted(set(listed) - found),
        "changed": sorted(name for name in found & set(listed) if sha256_of(folder / name) != listed[name]),
        "not listed": sorted(found - set(listed)),
    }
    said = [f"{what}: {', '.join(map(repr, names))}" for what, names in trouble.items() if names]
    if said:
        raise ExportError(f"The bundle {folder} is not as it was made. {'; '.join(said)}. Copy the bundle again.")


def read_fitting_gallery(gallery: Path, described: dict[str, Any]) -> Gallery:
    """The gallery, its embeddings left in their file, where the exported embedder's answers may be searched in it.

    It was made by the embedder that was exported, or by the exported file through a runtime of this machine. A gallery that
    does not say who made it passes if the width is the embedder's.

    Args:
        gallery: a gallery's folder.
        described: what `folder.read_described` gives for the exported folder.

    Raises:
        GalleryError: the gallery cannot be read, or is damaged.
        ValueError: another embedder made it, the width differs, or it is empty.
    """
    opened = Gallery.load(Path(gallery), in_memory=False)
    if not len(opened):
        raise ValueError(f"The gallery {gallery} is empty; add references to it first.")
    if opened.dim != described["embedding_dim"]:
        raise ValueError(
            f"The gallery {gallery} has embeddings of width {opened.dim}, the exported embedder gives {described['embedding_dim']}: "
            "give the gallery that this embedder made."
        )
    made_by = opened.about.get("embedder")
    if (
        made_by
        and made_by != described.get("embedder_fingerprint")
        and made_by not in _exported_fingerprints(described)
    ):
        raise ValueError(
            f"The gallery {gallery} was made by another embedder (fingerprint {str(made_by)[:12]}) than the one exported "
            f"({str(described.get('embedder_fingerprint'))[:12]}): similarities between the two mean nothing. Build the gallery "
            "with this embedder."
        )
    return opened


def _exported_fingerprints(described: dict[str, Any]) -> set[str]:
    found = set()
    for runtime in RUNTIMES:
        try:
            words = f"{runtime} {version(runtime)}"
        except PackageNotFoundError:
            continue
        found.add(ExportedEmbedder(_not_asked, described, words).fingerprint())
    return found


def _not_asked(batch: np.ndarray) -> np.ndarray:
    raise AssertionError("A fingerprint asks for no embedding.")


def _list_files(folder: Path) -> list[str]:
    """Relative names, with `/`, sorted by their bytes; `ExportError` for what no list of sums can hold."""
    names: list[str] = []
    for place, folders, files in os.walk(folder, onerror=_raise):
        inside = [Path(place, name) for name in (*folders, *files)]
        odd = [path for path in inside if path.is_symlink() or not (path.is_file() or path.is_dir())]
        if odd:
            raise ExportError(f"{odd[0]} is a link or no plain file; a bundle holds files and folders: copy the file.")
        names += [Path(place, name).relative_to(folder).as_posix() for name in files]
    return sorted(names, key=os.fsencode)


def _raise(error: OSError) -> None:
    raise error


def _line(name: str, sha256: str) -> bytes:
    """A line as GNU sha256sum writes it: a backslash before the sum says that the name is escaped."""
    raw = os.fsencode(name)
    escaped = re.sub(rb"[\\\n\r]", lambda found: _ESCAPES[found[0]], raw)
    return (b"\\" if escaped != raw else b"") + sha256.encode() + b"  " + escaped + b"\n"


def _read_sums(content: bytes) -> dict[str, str]:
    listed = {}
    for line in content.split(b"\n")[:-1]:
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{line[:80]!r} is no line of a sum, two spaces and a name")
        name = re.sub(rb"\\[\\nr]", lambda found: _PLAIN[found[0]], match[3]) if match[1] else match[3]
        listed[os.fsdecode(name)] = match[2].decode()
    if not listed or not content.endswith(b"\n"):
        raise ValueError("it is empty or was cut")
    return listed
