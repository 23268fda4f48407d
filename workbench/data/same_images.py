"""Which images are the same: one file, or files with the same bytes, and in it the same box."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Sequence

import numpy as np

from workbench.data.catalog import Catalog
from workbench.data.readers.listing import few

_SAMPLE_BYTES = 1024


def image_codes(*catalogs: Catalog) -> list[np.ndarray]:
    """A code for each row of each catalog, int64: rows have one code when they show the same image, whatever it is called.

    Two boxes of one picture are two images. Only files of one size are opened, and read whole only where a thousand bytes in
    their middle agree. What is not there, empty or unreadable is the same as nothing but its own path: embedding says so.
    """
    pictures = [[(str(one.path), one.box) for one in catalog.pictures()] for catalog in catalogs]
    content = _same_files(dict.fromkeys(path for part in pictures for path, _ in part))
    codes: dict[Hashable, int] = {}
    return [
        np.array([codes.setdefault((content[path], box), len(codes)) for path, box in part], dtype=np.int64)
        for part in pictures
    ]


def refuse_same_images(searched: Catalog, queries: Catalog, instead: str, *, removed_with: Sequence[str] = ()) -> None:
    """Returns nothing when no query is among the images that are searched for it.

    A card may state `known_copies` under `protocol:`: so many queries of a published set have a copy under another name, and its
    published numbers count them.

    Args:
        searched: the references or the gallery.
        queries: the images that are asked.
        instead: what to do other than choosing splits, as a part of a sentence that follows "or".
        removed_with: columns of a catalog; a searched image with the query's values in all of them is never compared with it.

    Raises:
        ValueError: there are such queries; how many, which, and what to do.
    """
    columns = list(removed_with)
    asked, found = (
        catalog.frame[columns].assign(
            code=code_N, row=np.arange(len(code_N)), name=catalog.frame["source"] + "/" + catalog.names()
        )
        for catalog, code_N in zip((queries, searched), image_codes(queries, searched), strict=True)
    )
    pairs = asked.merge(found.drop_duplicates(["code", *columns]), on="code", suffixes=("", "_found"))
    removed = [(pairs[name] == pairs[f"{name}_found"]).fillna(False) for name in columns]
    pairs = pairs[~np.logical_and.reduce(removed).astype(bool)] if columns else pairs
    pairs = pairs.drop_duplicates("row")
    is_copy = ~pairs["name"].isin(found["name"])
    if is_copy.all() and len(pairs) <= sum(card.protocol.get("known_copies", 0) for card in queries.cards.values()):
        return
    names = zip(pairs["name"], pairs["name_found"], strict=True)
    shown = [one if one == other else f"{one} is {other}" for one, other in names]
    known = f" Copies that a published set has may be stated in its card: known_copies: {len(pairs)} under `protocol:`."
    raise ValueError(
        f"{len(pairs):,} of {len(queries):,} queries are among the images that are searched ({int(is_copy.sum()):,} of them by the "
        f"same bytes under another name), so that they find themselves: {few(shown, 3)}. Choose splits that share no image "
        f"(01_audit_dataset lists the copies), or {instead}.{known if is_copy.all() else ''}"
    )


def _same_files(paths: Collection[str]) -> dict[str, str]:
    """For each path the first one whose file has the same bytes."""
    first = {path: path for path in paths}
    alike = [group for size, group in _parted(paths, os.path.getsize).items() if size]
    for look in (_sample, _hash):
        alike = [part for group in alike if len(group) > 1 for part in _parted(group, look).values()]
    for group in alike:
        first |= dict.fromkeys(group, group[0])
    return first


def _parted(paths: Collection[str], look: Callable[[str], Hashable]) -> dict[Hashable, list[str]]:
    """The paths by what `look` says of each; those that cannot be read are left out."""
    parts: dict[Hashable, list[str]] = defaultdict(list)
    for path in paths:
        try:
            parts[look(path)].append(path)
        except OSError:
            continue
    return parts


def _sample(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        file.seek(os.fstat(file.fileno()).st_size // 2)
        return file.read(_SAMPLE_BYTES)


def _hash(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
