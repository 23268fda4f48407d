"""What is measured on a gallery and kept with it: thresholds for rates of false accepts, and a calibration."""

from dataclasses import asdict
from typing import Any

import numpy as np

from workbench.retrieval.calibration import fit_calibration
from workbench.retrieval.embed import EmbeddingSet
from workbench.retrieval.gallery import Gallery
from workbench.retrieval.leave_out import LeftOut, ask_queries, ask_references, false_accept_table
from workbench.retrieval.stats import Metric, cluster_interval

BY_REFERENCES = "references"
BY_QUERIES = "queries"
UNKNOWN_SHARE = 0.2
"""The share of unknown products that probabilities are fitted with, as in `OpenSetProtocol.unknown_share`: a probability that
knew only known products would call an unknown one sure."""


def measure_gallery(gallery: Gallery, queries: EmbeddingSet | None = None, queries_name: str = "") -> LeftOut:
    """Returns the answers to held-out images, and puts into `gallery.about` what they say; save the gallery to keep it.

    With queries, each is answered as it will be, then once more with its label left out of the gallery. Without, the references are
    their own queries, each without its own image: that wants two photographs of a label for the probabilities, and says
    little about pictures of another kind (packshots asked by packshots, but photographs of a shelf to come).

    `about["calibration"]` becomes a `Calibration` as a dict, fitted on `answers_once`, or None where no query is known.
    `about["measured"]` becomes `by` ("references" or
    "queries"), `how` (a line), `version` (of the gallery), `num_known`, `num_unknown` (queries), `num_labels` (of them),
    `accuracy` (a `Metric` as a dict, or None), `false_accepts` (see `false_accept_table`) and `not_known` (sentences: what could
    not be measured, and why).

    Args:
        gallery: at least one reference.
        queries: embeddings by the gallery's embedder; labels without a reference are unknown products.
        queries_name: what `how` calls them, such as "val:real of my_shop".

    Raises:
        ValueError: queries of another width.
    """
    references = gallery.references
    labels, embedding_ND = references["label"].tolist(), gallery.embedding_ND
    if queries is None:
        left_out = ask_references(embedding_ND, labels, references["name"].tolist())
        part = "" if len(left_out.label_Q) == len(gallery) else f"{len(left_out.label_Q):,} of "
        how = f"{part}{len(gallery):,} references, each asked without its own image, and without its label as an unknown product"
    else:
        if queries.embedding_ND.shape[1] != gallery.dim:
            raise ValueError(
                f"The queries have width {queries.embedding_ND.shape[1]}, the gallery {gallery.dim}: embed both with one embedder."
            )
        left_out = ask_queries(queries.embedding_ND, queries.catalog.labels.tolist(), embedding_ND, labels)
        how = (
            f"{len(queries):,} queries ({queries_name}), each asked, and asked without its label as an unknown product"
        )
    gallery.about["measured"] = _measured(left_out, gallery, how) | {
        "by": BY_REFERENCES if queries is None else BY_QUERIES
    }
    gallery.about["calibration"] = None
    if left_out.is_known_Q.any():
        gallery.about["calibration"] = fit_calibration(*answers_once(left_out)).to_dict()
    return left_out


def answers_once(left_out: LeftOut, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (similarity_N, right_N, label_N), float32, bool and text, of different queries: what `cross_fit` takes too.

    `UNKNOWN_SHARE` of them are asked as unknown products, those first whose label has no reference, then a random part; the others
    as they are. Fewer are unknown where the gallery has one label.

    Args:
        left_out: the answers.
        seed: of the random part.
    """
    is_known_Q, is_unknown_Q = left_out.is_known_Q, left_out.is_unknown_Q
    order_Q = np.random.default_rng(seed).permutation(np.flatnonzero(is_unknown_Q))
    order_Q = order_Q[np.argsort(is_known_Q[order_Q], kind="stable")]
    num_known = int(is_known_Q.sum())
    num_all = int((is_known_Q | is_unknown_Q).sum())
    num_unknown = min(num_all * UNKNOWN_SHARE, num_known * UNKNOWN_SHARE / (1 - UNKNOWN_SHARE))
    unknown_N = order_Q[: round(num_unknown)]
    known_N = np.setdiff1d(np.flatnonzero(is_known_Q), unknown_N)
    return (
        np.concatenate([left_out.known_Q[known_N], left_out.unknown_Q[unknown_N]]),
        np.concatenate([left_out.right_Q[known_N], np.zeros(len(unknown_N), dtype=bool)]),
        left_out.label_Q[np.concatenate([known_N, unknown_N])],
    )


def describe_gallery(gallery: Gallery) -> list[str]:
    """Returns lines to read: what is in the gallery, who made it, what was measured, and what is not known."""
    measured: dict[str, Any] = gallery.about.get("measured") or {}
    made_by = gallery.about.get("embedder")
    lines = [
        f"{len(gallery):,} references, {len(gallery.labels):,} labels, version {gallery.version}",
        f"embedder: {gallery.about.get('embedder_described', 'no description')}, fingerprint "
        f"{str(made_by)[:12] if made_by else 'not kept'}",
    ]
    if not measured:
        return [*lines, "measured: nothing; `python -m workbench gallery measure` does it"]
    stale = "" if measured["version"] == gallery.version else f" (at version {measured['version']}: measure again)"
    lines.append(f"measured{stale}: {measured['how']}")
    if measured["accuracy"]:
        lines.append(f"right at the first answer: {Metric(**measured['accuracy'])}, {measured['num_labels']:,} labels")
    for row in measured["false_accepts"]:
        right = f", known and accepted right {Metric(**row['right_accepted'])}" if row["right_accepted"] else ""
        lines.append(
            f"false accepts {row['rate']:.4g}: threshold {row['threshold']:.6f}, "
            f"unknown but accepted {Metric(**row['false_accepts'])}{right}"
        )
    return [*lines, *(f"not known: {sentence}" for sentence in measured["not_known"])]


def _measured(left_out: LeftOut, gallery: Gallery, how: str) -> dict[str, Any]:
    known_Q, unknown_Q = left_out.is_known_Q, left_out.is_unknown_Q
    num_known, num_unknown = int(known_Q.sum()), int(unknown_Q.sum())
    table = false_accept_table(left_out, how)
    not_known = []
    if not num_unknown:
        not_known.append("No threshold: the gallery has one label, so that nothing is mistaken for another.")
    elif not table or table[0]["rate"] > 0.01:
        least = f"the smallest rate is {table[0]['rate']:.4g}" if table else "no rate at all"
        not_known.append(
            f"False accepts of 1 % cannot be told from {num_unknown:,} queries ({least}); at least 100 are wanted, of "
            "many labels."
        )
    if not num_known:
        not_known.append(
            "How often answers are right, their probabilities and how many right ones a threshold refuses: no label has a second "
            "photograph to ask with. Measure with queries (--queries SPLIT:DOMAIN), or add references."
        )
    elif num_known < len(left_out.label_Q):
        not_known.append(
            f"{len(left_out.label_Q) - num_known:,} of {len(left_out.label_Q):,} had no (other) reference of their label: they count "
            "as unknown products only."
        )
    accuracy = None
    if num_known:
        metric = cluster_interval(left_out.right_Q[known_Q].astype(float), left_out.label_Q[known_Q], protocol=how)
        accuracy = asdict(metric)
    return {
        "how": how,
        "version": gallery.version,
        "num_known": num_known,
        "num_unknown": num_unknown,
        "num_labels": len(set(left_out.label_Q.tolist())),
        "accuracy": accuracy,
        "false_accepts": table,
        "not_known": not_known,
    }
