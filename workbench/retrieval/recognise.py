"""Which product is on these pictures: the nearest labels of a gallery, how sure that is, and the decision.

Axes: N inputs, K labels an input, B inputs of a batch, D the embedding's width.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from workbench.data.boxes import Box
from workbench.data.images import DECODE_VERSION
from workbench.data.inputs import Input
from workbench.models.embedder import Embedder
from workbench.retrieval.calibration import Calibration
from workbench.retrieval.embed_inputs import embed_inputs
from workbench.retrieval.gallery import Gallery

UNKNOWN = "unknown"
DEFAULT_FALSE_ACCEPTS = 0.01
_SEARCHED_AT_ONCE = 1024
_SAY_EVERY_S = 5.0


@dataclass(frozen=True)
class Acceptance:
    """When an answer is accepted: its similarity is above the threshold. `words` say where the threshold is from."""

    threshold: float
    words: str


def check_fit(embedder: Embedder, gallery: Gallery, embedder_name: str, gallery_name: str) -> list[str]:
    """Returns notes, one line each, where the embedder made the gallery, or nothing says that it did not.

    A gallery that does not say who made it is searched if the width is the embedder's, and a note says so; so it does where
    pictures were decoded otherwise when the gallery was made.

    Args:
        embedder: asked for its fingerprint.
        gallery: see `made_by`.
        embedder_name: what errors call the embedder.
        gallery_name: what errors call the gallery.

    Raises:
        ValueError: another embedder made the gallery, the width differs, or the gallery is empty.
    """
    if not len(gallery):
        raise ValueError(f"The gallery {gallery_name} is empty; add references to it first.")
    maker, fingerprint = gallery.about.get("embedder"), embedder.fingerprint()
    if maker and maker != fingerprint:
        raise ValueError(
            f"The embedder {embedder_name} ({describe_embedder(embedder)}, fingerprint {fingerprint[:12]}) did not make the "
            f"gallery {gallery_name} ({gallery.about.get('embedder_described') or 'no description'}, fingerprint "
            f"{str(maker)[:12]}): similarities between the two mean nothing. Give the embedder that made the gallery, or build "
            "the gallery again."
        )
    if gallery.dim != embedder.embedding_dim:
        raise ValueError(
            f"The gallery {gallery_name} has embeddings of width {gallery.dim}, the embedder {embedder_name} gives "
            f"{embedder.embedding_dim}: give the embedder that made the gallery."
        )
    if maker and gallery.about.get("decode_version") == DECODE_VERSION:
        return []
    if maker:
        return [
            f"the gallery {gallery_name} was made by a workbench that decoded some pictures otherwise: without their colour "
            "profiles, such as Display P3 of phones. Where there are such pictures build the gallery again."
        ]
    return [
        f"the gallery {gallery_name} does not say which embedder made it; its width, {gallery.dim}, is this embedder's. If "
        "another one made it, the answers mean nothing."
    ]


def made_by(embedder: Embedder) -> dict[str, Any]:
    """Returns what a gallery's `about` keeps of the embedder that made it, and of how pictures were decoded."""
    return {
        "embedder": embedder.fingerprint(),
        "embedder_described": describe_embedder(embedder),
        "decode_version": DECODE_VERSION,
    }


def describe_embedder(embedder: Embedder) -> str:
    """Returns trunk, an activation that its name does not tell, head and width in a few words."""
    described = embedder.described
    activation = " with QuickGELU" if described.get("quick_gelu") else ""
    return f"{described['trunk']}{activation}, {described['head']} head, width {embedder.embedding_dim}"


def choose_acceptance(
    gallery: Gallery, threshold: float | None = None, false_accepts: float | None = None
) -> tuple[Acceptance, list[str]]:
    """Returns when an answer is accepted, and notes.

    The threshold is the one given; or the one that was measured on this gallery for the rate of false accepts (the largest
    measured rate that is not above the one asked for); or, with neither, that of 1 %, else of the smallest rate measured.

    Args:
        gallery: `about["measured"]` is what `gallery_measure.measure_gallery` found.
        threshold: cosine similarity, -1 to 1; -1 accepts everything.
        false_accepts: share of unknown products that may be taken for known ones, above 0 and below 1.

    Raises:
        ValueError: both are given, a value out of range, nothing was measured, or no rate that small was.
    """
    if threshold is not None and false_accepts is not None:
        raise ValueError("Give a threshold or a rate of false accepts, not both.")
    if threshold is not None:
        if not -1 <= threshold <= 1:
            raise ValueError(f"A threshold is a cosine similarity from -1 to 1, found {threshold}.")
        return Acceptance(threshold, "as given"), []
    if false_accepts is not None and not 0 < false_accepts < 1:
        raise ValueError(f"A rate of false accepts lies above 0 and below 1 (0.01 is 1 %), found {false_accepts}.")
    measured = gallery.about.get("measured") or {}
    table = measured.get("false_accepts") or []
    if not table:
        raise ValueError(
            "The gallery keeps no measured threshold"
            + (f" ({' '.join(measured['not_known'])})" if measured.get("not_known") else "")
            + ": measure it (`python -m workbench gallery measure`), or give --threshold (-1 accepts everything)."
        )
    wanted = DEFAULT_FALSE_ACCEPTS if false_accepts is None else false_accepts
    within = [row for row in table if row["rate"] <= wanted]
    if not within and false_accepts is not None:
        raise ValueError(
            f"A rate of false accepts of {false_accepts:.4g} cannot be told from {measured['num_unknown']:,} queries; the "
            f"smallest that was measured is {table[0]['rate']:.4g}. Measure with more queries, or give --threshold."
        )
    row = within[-1] if within else table[0]
    notes = []
    if row["rate"] != wanted:
        notes.append(f"a rate of {wanted:.4g} was not measured; the threshold is that of {row['rate']:.4g}")
    if measured["version"] != gallery.version:
        notes.append(
            f"the threshold and the probabilities were measured at version {measured['version']} of the gallery, which is at "
            f"version {gallery.version}: measure again (`python -m workbench gallery measure`)"
        )
    found = row["false_accepts"]
    words = (
        f"{row['rate']:.4g} false accepts: {found['value']:.2%} [{found['low']:.2%}, {found['high']:.2%}], n = {found['n']:,}; "
        f"{measured['how']}"
    )
    return Acceptance(row["threshold"], words), notes


def recognise(
    embedder: Embedder,
    gallery: Gallery,
    inputs: Sequence[Input],
    *,
    threshold: float,
    top: int = 5,
    unknown: str = UNKNOWN,
    batch_size: int = 32,
    device: str = "auto",
    num_workers: int | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> pd.DataFrame:
    """Returns one row an input, in their order.

    Columns: `path` (as it was given); `x`, `y`, `width`, `height` (px, as given) if any input has a box; `decision` (the first
    label where its similarity is above the threshold, else `unknown`; missing where there is an error); `probability` that
    the first label is right, 0 to 1, where one picture in five shows an unknown product (missing where the gallery keeps no
    calibration); `label_1`, `similarity_1` (cosine, rising with nearness), ..., the nearest distinct labels, each with its
    nearest reference, missing beyond the gallery's labels; `note` (a box that was clipped) and `error` (why there is no
    answer), missing where there is none. Equal similarities come in the order of the references' ids.

    Args:
        embedder: the one that made the gallery (see `check_fit`).
        gallery: at least one reference; `about["calibration"]` is a `Calibration` as a dict, or None.
        inputs: any number, such as `gather_inputs` gives.
        threshold: cosine similarity (see `choose_acceptance`).
        top: labels an input, at least 1.
        unknown: the decision where nothing is accepted; no label of the gallery.
        batch_size: images a forward pass.
        device: auto, cpu, cuda, cuda:1, ...
        num_workers: decoding threads; None is one a core.
        progress: called every few seconds with inputs done, inputs in all, inputs/s; None is silent.

    Raises:
        ValueError: an argument out of range, a gallery with the label `unknown`, or embeddings that are not finite.
    """
    if top < 1:
        raise ValueError(f"top is at least 1, found {top}.")
    labels = gallery.labels
    if unknown in labels:
        raise ValueError(
            f"The gallery has the label {unknown!r}, which could not be told from the decision {unknown!r}; choose another word "
            "for what is not known (--unknown)."
        )
    width = min(top, len(labels))
    similarity_NK = np.full((len(inputs), width), np.nan, dtype=np.float32)
    label_NK = np.full((len(inputs), width), None, dtype=object)
    error_N = np.full(len(inputs), None, dtype=object)
    note_N = np.full(len(inputs), None, dtype=object)
    started = said = time.monotonic()
    rows: list[np.ndarray] = []
    embeddings: list[np.ndarray] = []
    done = 0

    def search() -> None:
        row_B = np.concatenate(rows)
        matches = gallery.search_labels(np.concatenate(embeddings), width)
        similarity_NK[row_B], label_NK[row_B] = matches.similarity_QK, matches.label_QK
        rows.clear()
        embeddings.clear()

    for batch in embed_inputs(embedder, inputs, batch_size=batch_size, device=device, num_workers=num_workers):
        for row, reason in batch.errors.items():
            error_N[row] = reason
        for row, note in batch.notes.items():
            note_N[row] = note
        if len(batch.row_B):
            rows.append(batch.row_B)
            embeddings.append(batch.embedding_BD)
        done += len(batch.row_B) + len(batch.errors)
        if sum(map(len, rows)) >= _SEARCHED_AT_ONCE:
            search()
        now = time.monotonic()
        if progress is not None and now - said >= _SAY_EVERY_S:
            progress(done, len(inputs), done / (now - started))
            said = now
    if rows:
        search()
    return _table(inputs, similarity_NK, label_NK, error_N, note_N, gallery, threshold, top, unknown)


def _table(
    inputs: Sequence[Input],
    similarity_NK: np.ndarray,
    label_NK: np.ndarray,
    error_N: np.ndarray,
    note_N: np.ndarray,
    gallery: Gallery,
    threshold: float,
    top: int,
    unknown: str,
) -> pd.DataFrame:
    answered_N = np.array([error is None for error in error_N], dtype=bool)
    shown_NK = similarity_NK.astype(str).astype(np.float64)  # the fewest digits: the same numbers in every format
    decision_N = np.where(shown_NK[:, 0] > threshold, label_NK[:, 0], unknown).astype(object)
    decision_N[~answered_N] = None
    columns: dict[str, pd.Series | np.ndarray] = {"path": _texts([one.name for one in inputs])}
    if any(one.box is not None for one in inputs):
        box_N4 = np.array([one.box or (np.nan,) * 4 for one in inputs], dtype=np.float64)
        columns |= {name: box_N4[:, place] for place, name in enumerate(Box._fields)}
    columns |= {"decision": _texts(decision_N), "probability": np.full(len(inputs), np.nan)}
    if gallery.about.get("calibration"):
        calibration = Calibration.from_dict(gallery.about["calibration"])
        probability_N = np.full(len(inputs), np.nan)
        probability_N[answered_N] = calibration.probability(similarity_NK[answered_N, 0])
        columns["probability"] = probability_N
    for place in range(top):
        there = place < similarity_NK.shape[1]
        columns[f"label_{place + 1}"] = _texts(label_NK[:, place] if there else [None] * len(inputs))
        columns[f"similarity_{place + 1}"] = shown_NK[:, place] if there else np.full(len(inputs), np.nan)
    return pd.DataFrame({**columns, "note": _texts(note_N), "error": _texts(error_N)})


def _texts(values: Sequence[str | None] | np.ndarray) -> pd.Series:
    return pd.Series(values, dtype="str")
