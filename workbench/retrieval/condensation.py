"""Fewer references for each label: which to keep, or what to put in their place, and the accuracy that is left.

Axes: N references, D the embedding's width, M kept references or centres, n rows of one label, Q queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.retrieval.arrays import normalise, read_labels
from workbench.retrieval.few_shot import FewShotProtocol, FewShotResult, evaluate_few_shot
from workbench.retrieval.stats import Metric, paired_difference
from workbench.retrieval.votes import class_centres

Method = Literal["medoids", "kmeans", "k_centre"]
METHODS: tuple[Method, ...] = get_args(Method)
_LEAST_GAIN = 1e-9  # of a swap of medoids, as a sum of cosine distances, so that rounding cannot swap for ever


@dataclass(frozen=True, eq=False)
class Condensed:
    """What stands for the references, sorted by label.

    Attributes:
        embedding_MD: float32, length 1.
        labels: object array of str, [M].
        row_M: int64, the reference that a row is, ascending within a label; None for centres, which are no photographs.
    """

    embedding_MD: np.ndarray
    labels: np.ndarray
    row_M: np.ndarray | None


def condense(embedding_ND: np.ndarray, labels: ArrayLike, method: Method, m: int, seed: int = 0) -> Condensed:
    """Returns at most `m` references or centres of each label; a label with at most `m` references keeps them all.

    "medoids": the references with the largest sum of similarities from each reference to its nearest kept one, found by a greedy
    start and then the best swap again and again; a local optimum. "kmeans": centres of clusters, length 1 (fewer where
    references are equal). "k_centre": beginning with the reference nearest to the mean, always the one farthest from those kept, so
    that the worst-served reference is at most twice as far as with the best choice; rare views are kept, and so are label
    errors. Ties go to the earlier reference. Time and memory grow with the square of a label's references ("medoids").

    Args:
        embedding_ND: real numbers, any scale, N at least 1, rows not zero.
        labels: [N], read as text.
        method: one of the three.
        m: at least 1.
        seed: of "kmeans"; the others have nothing random.

    Raises:
        ValueError: no references, a row that is not finite or zero, labels that are missing, a method or `m` out of range.

    Source: Kaufman and Rousseeuw 1990 (partitioning around medoids: build, swap), swaps evaluated together as in Schubert and
    Rousseeuw 2019; Gonzalez 1985 (k-centre).
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, found {method!r}")
    if isinstance(m, bool) or not isinstance(m, int | np.integer) or m < 1:
        raise ValueError(f"m must be a whole number of at least 1, found {m!r}")
    embedding_ND = normalise(embedding_ND, "embedding_ND", dtype=np.float32)
    if not len(embedding_ND):
        raise ValueError("embedding_ND is empty: at least one reference is needed")
    label_N = read_labels(labels, len(embedding_ND), "labels")
    names, class_N = np.unique(label_N, return_inverse=True)
    row_N = np.argsort(class_N, kind="stable")
    groups = np.split(row_N, np.flatnonzero(np.diff(class_N[row_N])) + 1)
    if method == "kmeans":
        centre_MD, class_M = class_centres(embedding_ND[row_N], class_N[row_N], m, seed)
        for place in np.flatnonzero(~centre_MD.any(axis=1)):  # references that cancel out have no mean direction
            rows = groups[class_M[place]]
            centre_MD[place] = embedding_ND[rows[_medoids(embedding_ND[rows], 1)[0]]]
        return Condensed(centre_MD, names[class_M], None)
    choose = _medoids if method == "medoids" else _k_centres
    row_M = np.concatenate(
        [rows if len(rows) <= m else rows[np.sort(choose(embedding_ND[rows], m))] for rows in groups]
    )
    return Condensed(embedding_ND[row_M], label_N[row_M], row_M)


def accuracy_against_size(
    reference_ND: np.ndarray,
    reference_labels: ArrayLike,
    query_ND: np.ndarray,
    query_labels: ArrayLike,
    sizes: Sequence[int],
    methods: Sequence[Method] = METHODS,
    protocol: FewShotProtocol | None = None,
) -> pd.DataFrame:
    """Returns accuracy@1 of condensed galleries beside references taken by chance, and all of them.

    Columns: `method` (also "random", the nested draws of the protocol, and "all"), `size` (references per label, missing for
    "all"), `num_references`, `accuracy` with `low` and `high` (95 %), `gain` with `gain_low` and `gain_high` (accuracy less that
    of the random choice of the same size, paired; NaN for "random" and "all"), `loss` with `loss_low` and `loss_high` (accuracy
    of all references less this one, paired; NaN for "all"), `n` (queries), `protocol`.

    Args:
        reference_ND: [N, D], see `evaluate_few_shot`; the references must not be chosen by these queries.
        reference_labels: [N].
        query_ND: [Q, D].
        query_labels: [Q].
        sizes: references per label, at least 1 each; a label with fewer keeps what it has.
        methods: of `condense`.
        protocol: draws, seed, queries and vote (centres vote as references do); its shots are replaced. None is the default.

    Raises:
        ValueError: no sizes, augmented copies (which belong to one photograph), or what `evaluate_few_shot` and `condense` refuse.

    Source: `stats.paired_difference` for the differences.
    """
    protocol = protocol or FewShotProtocol()
    if protocol.reference_augmentations:
        raise ValueError(
            "reference_augmentations must be 0: condense photographs first, then make copies of what is left"
        )
    chosen = sorted(set(sizes))
    if not chosen or any(method not in METHODS for method in methods):
        raise ValueError(
            f"at least one size and methods among {', '.join(METHODS)} are wanted, found {sizes}, {methods}"
        )
    whole = replace(protocol, shots=("all",), headline_shots=None, top=(1,))
    drawn = replace(whole, shots=(*chosen, "all"))
    random = evaluate_few_shot(reference_ND, reference_labels, query_ND, query_labels, drawn)
    count_C = np.unique(read_labels(reference_labels, len(reference_ND), "reference_labels"), return_counts=True)[1]
    all_DQ = np.repeat(random.hits["accuracy@1/shots=all"], protocol.draws, axis=0)

    def measure(method: str, size: int | None, num_references: int, result: FewShotResult) -> dict[str, object]:
        by_chance = method in ("random", "all")
        shots = "all" if size is None or not by_chance else size
        metric = result.metrics[f"accuracy@1/shots={shots}/micro"]
        line = (
            metric.protocol if by_chance else f"references condensed by {method} to {size} per label; {metric.protocol}"
        )
        row: dict[str, object] = {
            "method": method,
            "size": size,
            "num_references": num_references,
            "n": metric.n,
            "protocol": line,
        }
        row |= {"accuracy": metric.value, "low": metric.low, "high": metric.high}
        hits_DQ = np.broadcast_to(result.hits[f"accuracy@1/shots={shots}"], all_DQ.shape)
        if not by_chance:
            random_DQ = random.hits[f"accuracy@1/shots={size}"]
            row |= _named("gain", paired_difference(hits_DQ, random_DQ, result.hit_labels))
        if size is not None:
            row |= _named("loss", paired_difference(all_DQ, hits_DQ, result.hit_labels))
        return row

    rows = [measure("random", size, int(np.minimum(count_C, size).sum()), random) for size in chosen]
    for method in dict.fromkeys(methods):
        for size in chosen:
            kept = condense(reference_ND, reference_labels, method, size, protocol.seed)
            result = evaluate_few_shot(kept.embedding_MD, kept.labels, query_ND, query_labels, whole)
            rows.append(measure(method, size, len(kept.labels), result))
    rows.append(measure("all", None, int(count_C.sum()), random))
    columns = ["method", "size", "num_references", "accuracy", "low", "high"]
    columns += [f"{name}{end}" for name in ("gain", "loss") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows).reindex(columns=[*columns, "n", "protocol"]).astype({"size": "Int64"})


def _named(name: str, metric: Metric) -> dict[str, object]:
    return {name: metric.value, f"{name}_low": metric.low, f"{name}_high": metric.high}


def _medoids(point_nD: np.ndarray, m: int) -> np.ndarray:
    """Returns the `m` rows that together are nearest to all, int64, by cosine distance; m below n."""
    distance_nn = 1 - point_nD.astype(np.float64) @ point_nD.T.astype(np.float64)
    kept: list[int] = []
    nearest_n = np.full(len(distance_nn), np.inf)
    for _ in range(m):
        cost_n = np.minimum(nearest_n[:, None], distance_nn).sum(axis=0)
        cost_n[kept] = np.inf
        kept.append(int(cost_n.argmin()))
        nearest_n = np.minimum(nearest_n, distance_nn[:, kept[-1]])
    while m:
        to_kept_nm = distance_nn[:, kept]
        own_n = to_kept_nm.argmin(axis=1)
        nearest_n = to_kept_nm[np.arange(len(own_n)), own_n]
        second_n = np.partition(to_kept_nm, 1, axis=1)[:, 1] if m > 1 else np.full(len(own_n), np.inf)
        # The cost once row j takes the place of medoid i: only rows whose nearest was i look at their second.
        with_j_nn = np.minimum(nearest_n[:, None], distance_nn)
        instead_nn = np.minimum(second_n[:, None], distance_nn) - with_j_nn
        cost_mn = (own_n == np.arange(m)[:, None]).astype(np.float64) @ instead_nn + with_j_nn.sum(axis=0)
        cost_mn[:, kept] = np.inf
        out, into = np.unravel_index(cost_mn.argmin(), cost_mn.shape)
        if cost_mn[out, into] > nearest_n.sum() - _LEAST_GAIN:
            break
        kept[out] = int(into)
    return np.array(kept)


def _k_centres(point_nD: np.ndarray, m: int) -> np.ndarray:
    """Returns `m` rows, int64, each the farthest from those before it; m below n."""
    point_nD = point_nD.astype(np.float64)
    kept = [int((point_nD @ point_nD.mean(axis=0)).argmax())]
    nearest_n = point_nD @ point_nD[kept[0]]
    for _ in range(m - 1):
        nearest_n[kept] = np.inf
        kept.append(int(nearest_n.argmin()))
        nearest_n = np.maximum(nearest_n, point_nD @ point_nD[kept[-1]])
    return np.array(kept)
