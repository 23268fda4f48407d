"""Pictures whose own label looks wrong: what their nearest neighbours say when the picture itself is left out.

Axes: N rows (references, then queries), P pictures, B pictures of a block, D width, C labels. Rows of one photograph (augmented
copies), and equal vectors under one label, are one picture: its first row speaks for it, and it speaks once.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from workbench.retrieval.arrays import normalise, read_labels
from workbench.retrieval.similarities import CosineSimilarity
from workbench.retrieval.stats import Metric, cluster_interval

_BLOCK_BYTES = 32 * 2**20


@dataclass(frozen=True)
class SuspectedLabels:
    """Which labels look wrong, on what evidence, and of which nothing can be said.

    Attributes:
        table: a row a suspected picture, the widest margin first: side ("reference" or "query"), row (as given; the picture's first),
            num_rows (of this picture), label, suggested (the label its neighbours agree on), similarity_own and similarity_suggested
            (to the nearest other picture of either label, -1 to 1), margin (the latter less the former, above 0), votes_own,
            votes_suggested and num_neighbours (k, or all others), num_own (other pictures of its own label), own_side, own_row,
            suggested_side, suggested_row (these two nearest pictures).
        undecidable: side, row, label of each picture that is alone under its label: nothing speaks for the label, so nothing can
            speak against it. Never accused.
        leave_one_out: share of the other pictures whose nearest one has their label, with its interval: what the embedder's
            word is worth. Where it is low, suspects are hard pictures rather than wrong labels. None without any.
        protocol: one line with the definition.
    """

    table: pd.DataFrame
    undecidable: pd.DataFrame
    leave_one_out: Metric | None
    protocol: str


def suspected_label_errors(
    reference_ND: np.ndarray,
    reference_labels: ArrayLike,
    query_ND: np.ndarray | None = None,
    query_labels: ArrayLike | None = None,
    *,
    k: int = 5,
    reference_source_N: ArrayLike | None = None,
) -> SuspectedLabels:
    """Returns the pictures whose k nearest others agree on another label than theirs.

    A picture is suspected of label j where, among its k nearest others, (1) j is the most frequent other label, has at
    least two votes and more than the picture's own; (2) j's share is at least the mean share of j around the pictures
    labelled j, so that it looks as much like a j as these do; and (3) the nearest j is nearer than the nearest of its own
    label. Rule (2) makes small and large labels comparable. What ties for the last of the k places shares these places.

    A list to look at, not a list to delete: siblings that an embedder cannot tell apart are suspected too. Every picture is
    compared with every other, in blocks: P x P x D operations.

    Args:
        reference_ND: real numbers, any scale, rows not zero.
        reference_labels: [N of them], text or numbers, read as text.
        query_ND: pictures that are suspected and vote like the references; None: references alone.
        query_labels: their labels.
        k: neighbours asked, at least 2.
        reference_source_N: integer, the photograph of each reference row; needed with augmented copies, which would vote for
            one another. A photograph must have one label.

    Raises:
        ValueError: k below 2, queries without labels, widths or lengths that differ, rows that are not finite or zero, missing
            labels, a photograph with two labels.

    Source: kNN votes: Wilson 1972 (edited nearest neighbour); the threshold of rule (2): Northcutt, Jiang and Chuang 2021 (confident
    learning), with vote shares for probabilities.
    """
    if k < 2:
        raise ValueError(f"k must be at least 2, because one neighbour agrees with nobody; {k} was given")
    if (query_ND is None) != (query_labels is None):
        raise ValueError("query_ND and query_labels belong together: give both or neither")
    sides = [("reference", reference_ND, reference_labels)]
    if query_ND is not None and query_labels is not None:
        sides.append(("query", query_ND, query_labels))
    vectors = [normalise(rows, f"{side}_ND", dtype=np.float32) for side, rows, _ in sides]
    if len({part.shape[1] for part in vectors}) > 1:
        raise ValueError(f"references and queries must have one width, found {[part.shape[1] for part in vectors]}")
    if not len(vectors[0]):
        raise ValueError("reference_ND is empty: at least one row is needed")
    frames = [
        pd.DataFrame(
            {"side": side, "row": np.arange(len(part)), "label": read_labels(labels, len(part), f"{side}_labels")}
        )
        for (side, _, labels), part in zip(sides, vectors, strict=True)
    ]
    num_references, image_ND, images = len(vectors[0]), np.concatenate(vectors), pd.concat(frames, ignore_index=True)
    del vectors  # as large as the input
    names, label_N = np.unique(images["label"].to_numpy(dtype=object), return_inverse=True)
    first_P, num_rows_P = _first_rows(image_ND, label_N, _sources(reference_source_N, label_N, num_references))
    label_P, images = label_N[first_P], images.iloc[first_P].reset_index(drop=True).assign(num_rows=num_rows_P)
    if len(first_P) < len(image_ND):
        image_ND = image_ND[first_P]
    votes, own, right_P = _ask_neighbours(image_ND, label_P, k)
    images = images.join(own).assign(label_code=label_P)
    decidable_P = images["num_own"].to_numpy() > 0
    line = (
        f"suspected labels: at least 2 of the {k} nearest other pictures, and more than of its own label, share a label that the picture "
        f"resembles as its members do; cosine similarity; {len(images):,} pictures of {len(names):,} labels, "
        f"{int((~decidable_P).sum()):,} alone under their label and left undecided"
    )
    return SuspectedLabels(
        _suspects(votes, images, names),
        images.loc[~decidable_P, ["side", "row", "label"]].reset_index(drop=True),
        cluster_interval(right_P[decidable_P], label_P[decidable_P], protocol=f"leave-one-out nearest; {line}")
        if decidable_P.any()
        else None,
        line,
    )


def nearest_places(similarity_BN: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (row, column, share) of the k nearest of each row; what ties for the last places shares them equally.

    share is 1, or below where columns tie; the shares of a row add up to k, or to the number of its columns where these are
    fewer. -inf is no neighbour.
    """
    num_rows, num_columns = similarity_BN.shape
    place = num_columns - min(k, num_columns)
    last_B = similarity_BN.max(axis=1) if k == 1 else np.partition(similarity_BN, place, axis=1)[:, place]
    row, column = np.nonzero((similarity_BN >= last_B[:, None]) & (similarity_BN > -np.inf))
    sure = similarity_BN[row, column] > last_B[row]
    free_B = min(k, num_columns) - np.bincount(row, sure, num_rows)
    tied_B = np.bincount(row, ~sure, num_rows)
    return row, column, np.where(sure, 1.0, (free_B / np.maximum(tied_B, 1))[row])


def rows_a_block(num_columns: int) -> int:
    """Returns how many rows of float32 similarities are held at once."""
    return max(32, _BLOCK_BYTES // (4 * num_columns))


def _sources(reference_source_N: ArrayLike | None, label_N: np.ndarray, num_references: int) -> np.ndarray:
    """Returns the photograph of each row, codes; a query is a photograph of its own."""
    code_N = np.arange(len(label_N))
    if reference_source_N is None:
        return code_N
    source_N = np.asarray(reference_source_N)
    if source_N.shape != (num_references,) or source_N.dtype.kind not in "iu":
        raise ValueError(
            f"reference_source_N must hold one integer for each of {num_references} references, found shape "
            f"{source_N.shape} of {source_N.dtype}"
        )
    code_N[:num_references] = np.unique(source_N, return_inverse=True)[1]
    labels = pd.Series(label_N[:num_references]).groupby(source_N).nunique()
    if (labels > 1).any():
        raise ValueError(f"photograph {labels.idxmax()} of reference_source_N has rows with different labels")
    return code_N


def _first_rows(image_ND: np.ndarray, label_N: np.ndarray, source_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (first_P, num_rows_P): the first row of each picture, ascending, and how many rows it has."""
    digests = [
        hashlib.blake2b(vector.tobytes() + int(label).to_bytes(8), digest_size=16).digest()
        for vector, label in zip(image_ND, label_N, strict=True)
    ]
    equal_N, num = pd.factorize(np.array(digests, dtype=object))[0], len(label_N)
    linked = np.concatenate([num + equal_N, 2 * num + source_N])
    links = coo_array((np.ones(2 * num), (np.tile(np.arange(num), 2), linked)), shape=(3 * num, 3 * num))
    picture_N = connected_components(links, directed=False)[1][:num]
    _, first, count = np.unique(picture_N, return_index=True, return_counts=True)
    order = np.argsort(first)
    return first[order], count[order]


def _ask_neighbours(image_PD: np.ndarray, label_P: np.ndarray, k: int) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Returns the votes, what speaks for each picture's own label, and whether the nearest other picture has that label.

    The votes have a row for each picture and other label among its neighbours: image, label_code, votes, suggested (the nearest
    picture of that label), similarity_suggested. The second has a row a picture: own (the nearest of its label; itself,
    at -inf, if it is alone), similarity_own, num_own, votes_own, num_neighbours. The last is 0 to 1, shared where pictures tie.
    """
    similarity, by_label = CosineSimilarity(image_PD, image_PD), np.argsort(label_P, kind="stable")
    start_C = np.searchsorted(label_P[by_label], np.arange(label_P.max() + 2))
    votes, own, right = [], [], []
    step = rows_a_block(len(image_PD))
    for start in range(0, len(image_PD), step):
        stop = min(start + step, len(image_PD))
        similarity_BP = similarity.block(start, stop)
        here = np.arange(stop - start)
        similarity_BP[here, start + here] = -np.inf
        row, image, share = nearest_places(similarity_BP, 1)
        right.append(np.bincount(row, share * (label_P[image] == label_P[start + row]), len(here)))
        row, image, share = nearest_places(similarity_BP, k)
        near = pd.DataFrame({"image": start + row, "label_code": label_P[image], "votes": share, "suggested": image})
        near["similarity_suggested"] = similarity_BP[row, image]
        near = near.sort_values("similarity_suggested", ascending=False, kind="stable")
        of_label = near.groupby(["image", "label_code"], as_index=False)
        votes.append(of_label.agg({"votes": "sum", "similarity_suggested": "first", "suggested": "first"}))
        for similarity_P, label in zip(similarity_BP, label_P[start:stop], strict=True):
            members = by_label[start_C[label] : start_C[label + 1]]
            nearest = members[similarity_P[members].argmax()]
            own.append((nearest, similarity_P[nearest], len(members) - 1))
    asked = pd.concat(votes, ignore_index=True)
    found = pd.DataFrame(own, columns=["own", "similarity_own", "num_own"])
    is_own = asked["label_code"].to_numpy() == label_P[asked["image"]]
    found["votes_own"] = np.bincount(asked["image"], asked["votes"] * is_own, len(label_P))
    found["num_neighbours"] = np.bincount(asked["image"], asked["votes"], len(label_P))
    return asked[~is_own], found, np.concatenate(right)


def _suspects(votes: pd.DataFrame, images: pd.DataFrame, names: np.ndarray) -> pd.DataFrame:
    share_N = images["votes_own"] / images["num_neighbours"].clip(lower=1)
    usual_C = share_N.groupby(images["label_code"]).mean().to_numpy()
    others = votes.sort_values(
        ["image", "votes", "similarity_suggested", "label_code"], ascending=[True, False, False, True]
    )
    others = others.drop_duplicates("image").join(images.drop(columns="label_code"), on="image")
    others["margin"] = others["similarity_suggested"] - others["similarity_own"]
    agree = (others["votes"] >= 2 - 1e-9) & (others["votes"] > others["votes_own"] + 1e-9)
    alike = others["votes"] / others["num_neighbours"] >= usual_C[others["label_code"]] - 1e-9
    found = others[agree & alike & (others["margin"] > 0) & (others["num_own"] > 0)]
    found = found.sort_values(["margin", "image"], ascending=[False, True], ignore_index=True)
    sides, rows = images["side"].to_numpy(dtype=object), images["row"].to_numpy()
    own, suggested = found["own"].to_numpy(), found["suggested"].to_numpy()
    return pd.DataFrame(
        {
            **{name: found[name] for name in ("side", "row", "num_rows", "label")},
            "suggested": names[found["label_code"].to_numpy()].astype(str),
            **{name: found[name] for name in ("similarity_own", "similarity_suggested", "margin", "votes_own")},
            "votes_suggested": found["votes"],
            **{name: found[name] for name in ("num_neighbours", "num_own")},
            **{"own_side": sides[own], "own_row": rows[own]},
            **{"suggested_side": sides[suggested], "suggested_row": rows[suggested]},
        }
    )
