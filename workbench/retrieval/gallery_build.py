"""Galleries from data sets and pictures: build one, add to it, remove from it, measure it; each change is saved whole."""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from workbench.data.catalog import Catalog, open_catalog
from workbench.data.inputs import Input
from workbench.data.labels import as_label
from workbench.data.readers.listing import few
from workbench.data.same_images import refuse_same_images
from workbench.models.embedder import Embedder
from workbench.retrieval.embed import EmbeddingSet, embed_catalog
from workbench.retrieval.embed_inputs import embed_all
from workbench.retrieval.gallery import Gallery
from workbench.retrieval.gallery_measure import BY_REFERENCES, measure_gallery
from workbench.retrieval.recognise import check_fit, made_by

Progress = Callable[[int, int, float], None]
_BY_ITSELF = "let the references be their own queries, each without its own image (leave --queries out)"


def build_gallery(
    embedder: Embedder,
    data: str,
    out: Path,
    *,
    data_root: Path | None = None,
    split: str = "",
    domain: str = "",
    queries: str = "",
    comment: str = "",
    batch_size: int = 32,
    device: str = "auto",
    progress: Progress | None = None,
) -> tuple[Gallery, list[str]]:
    """The gallery of a data set's references, measured and saved to `out`, and notes; a killed call goes on where it was.

    Junk and distractors of re-identification sets are no references.

    Args:
        embedder: its fingerprint is kept with the gallery.
        data: a card's name or path, or several joined with `+`.
        out: a folder that is not there yet, or an empty one.
        data_root: where the set lies.
        split: of the references; "" takes the first of the card's `reference_sets`, split and domain.
        domain: of the references; "" is all domains of the split.
        queries: `split` or `split:domain` of the queries that thresholds and probabilities are measured with; "" takes the
            references themselves, each without its own image.
        comment: for the gallery's history.
        batch_size: images a forward pass.
        device: auto, cpu, cuda, ...
        progress: see `embed_catalog`.

    Raises:
        ValueError: something lies at `out`, a split or domain is not there, nothing says which images are references, or a
            query is one of them.
        QuarantineError: more than 1 % of the images cannot be decoded.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists already; choose another folder, or change the gallery there by add and remove.")
    catalog = open_catalog(data, data_root)
    if not split:
        split, domain = _first_reference_set(catalog, domain)
    references = _select(catalog, split, domain)
    asked = _select(catalog, *_pair(queries)) if queries else None
    if asked is not None:
        refuse_same_images(references, asked, _BY_ITSELF)
    embedded = [
        embed_catalog(embedder, part, batch_size=batch_size, device=device, progress=progress)
        for part in (references, asked)
        if part is not None
    ]
    rows = embedded[0].catalog
    gallery = Gallery.build(embedded[0].embedding_ND, rows.labels, _names(rows), comment or f"built from {data}")
    gallery.about |= made_by(embedder) | {
        "protocol": {"data": data, "split": split, "domain": domain, "catalog": references.fingerprint}
    }
    measure_gallery(gallery, embedded[1] if queries else None, f"{queries} of {data}")
    out.mkdir(parents=True, exist_ok=True)
    with _only_change(out):
        if (out / "manifest.json").exists():
            raise ValueError(f"Another process built a gallery at {out} meanwhile, which stays; choose another folder.")
        gallery.save(out)
    return gallery, [note for part in embedded for note in _quarantine_notes(part)]


def add_images(
    embedder: Embedder,
    folder: Path,
    inputs: Sequence[Input],
    *,
    label: str = "",
    comment: str = "",
    batch_size: int = 32,
    device: str = "auto",
    names: tuple[str, str] = ("", ""),
) -> tuple[Gallery, list[str]]:
    """The gallery in `folder` with the pictures added, saved and measured again where its references measured it; notes.

    All or none: a picture that cannot be used is named and nothing is changed.

    Args:
        embedder: the one that made the gallery.
        folder: the gallery.
        inputs: at least one.
        label: of all of them; "" takes the label that a table or a card states for each.
        comment: for the gallery's history.
        batch_size: images a forward pass.
        device: auto, cpu, cuda, ...
        names: what errors call the embedder and the gallery.

    Raises:
        ValueError: an input without a label or that cannot be used, or an embedder that did not make the gallery.
    """
    labels = [label or one.label or "" for one in inputs]
    unnamed = [one.name for one, text in zip(inputs, labels, strict=True) if not text]
    if unnamed:
        raise ValueError(
            f"{len(unnamed)} pictures have no label: {few(unnamed)}. Give --label, or a table with the column label."
        )
    with _only_change(folder):
        gallery = Gallery.load(folder)
        notes = check_fit(embedder, gallery, *names)
        embedding_ND, more = embed_all(embedder, inputs, batch_size=batch_size, device=device)
        notes += more
        gallery.extend(embedding_ND, labels, [one.name for one in inputs], comment)
        _measure_changed(gallery, notes)
        gallery.save(folder)
    return gallery, notes


def remove_labels(folder: Path, labels: Sequence[str], comment: str = "") -> tuple[Gallery, list[str]]:
    """The gallery in `folder` without the labels, saved and measured again where its references measured it; notes.

    Raises:
        ValueError: it has no such label, a label is named twice, or nothing would be left; nothing is changed.
    """
    if len(set(map(as_label, labels))) < len(labels):
        raise ValueError(f"A label is named twice: {few(sorted(labels))}.")
    with _only_change(folder):
        gallery = Gallery.load(folder)
        notes: list[str] = []
        for label in labels:
            try:
                gallery.remove(label, comment)
            except KeyError as error:
                raise ValueError(f"{error.args[0]} Nothing was removed.") from error
        if not len(gallery):
            raise ValueError("Nothing would be left in the gallery; delete its folder if that is what you want.")
        _measure_changed(gallery, notes)
        gallery.save(folder)
    return gallery, notes


def measure_again(
    embedder: Embedder,
    folder: Path,
    *,
    data: str = "",
    data_root: Path | None = None,
    queries: str = "",
    batch_size: int = 32,
    device: str = "auto",
    progress: Progress | None = None,
    names: tuple[str, str] = ("", ""),
) -> tuple[Gallery, list[str]]:
    """The gallery in `folder`, measured by its references or, with `data` and `queries`, by queries, saved; and notes.

    Raises:
        ValueError: only one of `data` and `queries` is given, or what `build_gallery` refuses.
    """
    if bool(data) != bool(queries):
        raise ValueError("Queries want both a data set and a split: give --data NAME --queries SPLIT[:DOMAIN].")
    embedded = None
    if data:
        catalog = open_catalog(data, data_root)
        asked = _select(catalog, *_pair(queries))
        made_from = Gallery.load(folder, in_memory=False)
        if (made_from.about.get("protocol") or {}).get("data") == data:
            known = np.isin(_names(catalog), made_from.references["name"])
            refuse_same_images(catalog.take(np.flatnonzero(known)), asked, _BY_ITSELF)
        embedded = embed_catalog(embedder, asked, batch_size=batch_size, device=device, progress=progress)
    with _only_change(folder):
        gallery = Gallery.load(folder)
        notes = check_fit(embedder, gallery, *names) + (_quarantine_notes(embedded) if embedded else [])
        measure_gallery(gallery, embedded, f"{queries} of {data}")
        gallery.save(folder)
    return gallery, notes


def save_version(gallery: Gallery, folder: Path, since: int) -> None:
    """Saves a changed gallery to the folder that it was loaded from, or to one that holds nothing yet, whole or not at all.

    Args:
        gallery: with its changes; the folder keeps its version and history.
        folder: the gallery's.
        since: the version that was loaded.

    Raises:
        ValueError: somebody has changed the gallery in the folder meanwhile; nothing is saved.
        OSError: it cannot be written; the gallery that was there stays.
    """
    with _only_change(folder):
        if (folder / "manifest.json").exists():
            there = Gallery.load(folder, in_memory=False).version
            if there != since:
                raise ValueError(
                    f"The gallery in {folder} is at version {there} now, and these changes were made to version {since}: save to "
                    "another folder, or load it again and repeat them."
                )
        gallery.save(folder)


def _measure_changed(gallery: Gallery, notes: list[str]) -> None:
    measured = gallery.about.get("measured")
    if measured and measured["by"] == BY_REFERENCES:
        measure_gallery(gallery)
    elif measured:
        notes.append(
            "thresholds and probabilities are still those of the gallery before: its queries measured them. Measure again: "
            "`python -m workbench gallery measure --data NAME --queries SPLIT`"
        )


def _first_reference_set(catalog: Catalog, domain: str) -> tuple[str, str]:
    for card in catalog.cards.values():
        for name in card.protocol.get("reference_sets") or ():
            split, stated = _pair(str(name))
            return split, domain or stated
    splits = sorted(catalog.frame["split"].unique())
    raise ValueError(f"Nothing says which images are references: give --split, one of {few(splits, 20)}.")


def _select(catalog: Catalog, split: str, domain: str) -> Catalog:
    part = catalog.select(split=split, domain=domain or None)
    return part.take(np.flatnonzero(~part.is_nobody))


def _pair(text: str) -> tuple[str, str]:
    split, _, domain = text.partition(":")
    return split.strip(), domain.strip()


def _names(catalog: Catalog) -> list[str]:
    names = catalog.names()
    if len(catalog.cards) < 2:
        return list(names)
    return [f"{source}/{name}" for source, name in zip(catalog.frame["source"], names, strict=True)]


def _quarantine_notes(embedded: EmbeddingSet) -> list[str]:
    bad = embedded.quarantine
    reasons = [f"{path}: {reason}" for path, reason in bad[["path", "reason"]].itertuples(index=False, name=None)]
    return [f"{len(bad)} images cannot be used and are left out: {few(reasons)}"] if len(bad) else []


@contextmanager
def _only_change(folder: Path) -> Iterator[None]:
    """Holds a lock from reading to saving, so that of two changes at once none is lost; a dead process gives it back."""
    if not folder.is_dir():
        yield  # Gallery.load says what is missing
        return
    with open(os.open(folder / ".change", os.O_CREAT | os.O_RDWR, 0o644), "r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
