"""How far two domains of a set are apart: can a picture's domain be told, and what does it cost to cross over.

Axes: N pictures, D width, Q queries, C labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from workbench.retrieval.arrays import normalise, read_labels
from workbench.retrieval.baseline import chance_metrics
from workbench.retrieval.few_shot import evaluate_few_shot
from workbench.retrieval.few_shot_protocol import FewShotProtocol
from workbench.retrieval.stats import Metric, cluster_interval, paired_difference

MIN_LABELS = 5
MAX_A_LABEL = 20
_MEASURED = {
    "told": "domain told by a classifier (chance 50 %)",
    "auroc": "domain told, AUROC within a label (chance 50 %)",
    "crossed": "accuracy@1, references of this domain",
    "own": "accuracy@1, references of the queries' domain",
    "loss": "the latter less the former",
    "chance": "accuracy@1 of a guesser",
}


@dataclass(frozen=True)
class DomainSeparation:
    """How well a linear classifier tells two domains apart on labels that it has never seen.

    Attributes:
        accuracy: share of the pictures whose domain is told; chance is 0.5.
        auroc: how often, of two pictures of one label, one of each domain, the right one is called so; chance is 0.5.
        num_labels: labels behind both.
    """

    accuracy: Metric
    auroc: Metric
    num_labels: int


@dataclass(frozen=True)
class Crossing:
    """What it costs to recognise pictures of one domain by references of another.

    Attributes:
        crossed: accuracy@1 with references of the other domain.
        own: accuracy@1 with as many references of the queries' own domain.
        loss: own less crossed, on the same queries and draws.
        chance: of a guesser.
        shots: references a label, the same on both sides.
    """

    crossed: Metric
    own: Metric
    loss: Metric
    chance: Metric
    shots: int


def separate_domains(
    embedding_ND: np.ndarray,
    labels: ArrayLike,
    domains: ArrayLike,
    pair: tuple[str, str],
    *,
    folds: int = 5,
    seed: int = 0,
) -> DomainSeparation | None:
    """Returns how well the domains of `pair` are told apart; None where fewer than `MIN_LABELS` labels have both.

    Only labels with pictures of both domains count, with equally many of each (drawn, at most `MAX_A_LABEL`), so that neither
    what is shown nor a majority tells the domain. The labels are divided into folds; the pictures of a fold are judged by a
    classifier that was fitted on the other folds, so that no label is in both: what it has learnt of one product says nothing
    about the next. An answer on the boundary counts half. Intervals: labels resampled.

    Args:
        embedding_ND: real numbers, rows not zero; divided by their length, then standardised with the fold's fitting part.
        labels: [N]; domains: [N]; others than `pair` are left out.
        pair: two names.
        folds: at least 2; no more than labels.
        seed: of the pictures and the folds.

    Raises:
        ValueError: folds below 2, one name twice, lengths that differ, rows that are not finite or zero.

    Source: Ben-David et al., "A theory of learning from different domains", 2010 (a linear classifier's error as the distance
    of domains); logistic regression with scikit-learn's default penalty.
    """
    if folds < 2 or pair[0] == pair[1]:
        raise ValueError(f"Wanted at least 2 folds and two different domains, found {folds} and {pair}.")
    image_ND = normalise(embedding_ND, "embedding_ND", dtype=np.float32)
    label_N = read_labels(labels, len(image_ND), "labels")
    domain_N = read_labels(domains, len(image_ND), "domains")
    rng = np.random.default_rng(seed)
    row_M, label_M = _balanced(label_N, domain_N, pair, rng)
    names = np.unique(label_M)
    if len(names) < MIN_LABELS:
        return None
    is_second_M = domain_N[row_M] == pair[1]
    fold_M = (rng.permutation(len(names)) % min(folds, len(names)))[np.searchsorted(names, label_M)]
    decision_M = np.empty(len(row_M))
    for fold in range(min(folds, len(names))):
        fitted, judged = row_M[fold_M != fold], row_M[fold_M == fold]
        scaler = StandardScaler().fit(image_ND[fitted].astype(np.float64))
        model = LogisticRegression(max_iter=5000).fit(scaler.transform(image_ND[fitted]), is_second_M[fold_M != fold])
        decision_M[fold_M == fold] = model.decision_function(scaler.transform(image_ND[judged].astype(np.float64)))
    right_M = np.where(decision_M == 0, 0.5, (decision_M > 0) == is_second_M)
    line = (
        f"{pair[0]} against {pair[1]}: logistic regression on embeddings, {min(folds, len(names))} folds by label, {len(names):,} labels "
        "with equally many pictures of both domains, chance 50 %"
    )
    return DomainSeparation(
        cluster_interval(right_M, label_M, protocol=f"domain told; {line}"),
        cluster_interval(_won(decision_M, is_second_M, label_M), label_M, protocol=f"AUROC within a label; {line}"),
        len(names),
    )


def cross_domains(
    embedding_ND: np.ndarray,
    labels: ArrayLike,
    domains: ArrayLike,
    is_query_N: ArrayLike,
    pair: tuple[str, str],
    *,
    draws: int = 5,
    seed: int = 0,
) -> Crossing | None:
    """Returns the accuracy on queries of domain `pair[1]` with references of `pair[0]`, beside references of `pair[1]`.

    The same queries, the same labels (those with references of both domains), and the same number of references a label: the
    smallest number that any of them has in either domain. None where fewer than `MIN_LABELS` labels have references of both
    and queries. Nearest reference, cosine similarity.

    Args:
        embedding_ND: real numbers, rows not zero.
        labels: [N]; domains: [N].
        is_query_N: bool; the other rows are references, those of a split that is neither left out before.
        pair: the references' domain to compare, and the queries' own.
        draws: how often references are drawn where a label has more.
        seed: of the draws.

    Raises:
        ValueError: as `evaluate_few_shot`.

    Source: NVIDIA Retail Object Recognition (model card): synthetic references, real queries.
    """
    image_ND = normalise(embedding_ND, "embedding_ND", dtype=np.float32)
    label_N = read_labels(labels, len(image_ND), "labels")
    domain_N = read_labels(domains, len(image_ND), "domains")
    query_N = np.asarray(is_query_N, dtype=bool)
    sides = [np.flatnonzero((domain_N == domain) & ~query_N) for domain in pair]
    asked = np.flatnonzero((domain_N == pair[1]) & query_N)
    shared = sorted(set(label_N[sides[0]]) & set(label_N[sides[1]]))
    if len(set(shared) & set(label_N[asked])) < MIN_LABELS:
        return None
    sides = [rows[np.isin(label_N[rows], shared)] for rows in sides]
    asked = asked[np.isin(label_N[asked], shared)]
    shots = int(min(pd.Series(label_N[rows]).value_counts().min() for rows in sides))
    results = []
    for domain, rows in zip(pair, sides, strict=True):
        protocol = FewShotProtocol(
            (shots,), draws, seed, top=(1,), reference_domain=domain, query_domain=pair[1], headline_shots=shots
        )
        results.append(evaluate_few_shot(image_ND[rows], label_N[rows], image_ND[asked], label_N[asked], protocol))
    name = f"accuracy@1/shots={shots}"
    crossed, own = (result.metrics[f"{name}/micro"] for result in results)
    loss = paired_difference(
        results[1].hits[name],
        results[0].hits[name],
        results[0].hit_labels,
        protocol=f"accuracy@1 with {pair[1]} less {pair[0]} references, same queries, labels, draws; {own.protocol}",
    )
    chance = chance_metrics(shared, label_N[asked], (shots,), (1,))[f"chance/{name}/micro"]
    return Crossing(crossed, own, loss, chance, shots)


@dataclass(frozen=True)
class DomainGaps:
    """The gaps between the queries' domain and each other domain of a set.

    Attributes:
        accuracies: label (in words), value, low, high, n: to be drawn with intervals; empty without a comparison.
        metrics: by name, `domain_gap/<domain>/...`.
        chance: of the accuracies; NaN without.
        words: what was compared, and what could not be, with the reason.
    """

    accuracies: pd.DataFrame
    metrics: dict[str, Metric]
    chance: float
    words: str

    @property
    def table(self) -> pd.DataFrame:
        """Returns the metrics as a table: compared (the other domain), measured (in words), value, low, high, n."""
        names = [name.split("/")[1:] for name in self.metrics]
        rows = [
            {"compared": domain, "measured": _MEASURED[kind], **vars(metric)}
            for (domain, kind), metric in zip(names, self.metrics.values(), strict=True)
        ]
        return pd.DataFrame(rows, columns=["compared", "measured", "value", "low", "high", "n"])


def measure_domain_gaps(
    embedding_ND: np.ndarray,
    frame: pd.DataFrame,
    reference_splits: Sequence[str],
    query_split: str,
    *,
    seed: int = 0,
) -> DomainGaps:
    """Returns the gap from each other domain of a set to that of its queries (the domain that most of them have).

    Args:
        embedding_ND: one row for each row of `frame`.
        frame: columns label, split, domain, of the pictures that were embedded.
        reference_splits: splits that hold references; none means all but the query split.
        query_split: split of the queries; empty means that accuracies cannot be compared.
        seed: of all draws.
    """
    labels, domains = frame["label"].to_numpy(dtype=object), frame["domain"].to_numpy(dtype=object)
    is_query = (frame["split"] == query_split).to_numpy()
    in_part = is_query | (frame["split"].isin(reference_splits).to_numpy() if len(reference_splits) else True)
    counts = frame.loc[is_query if is_query.any() else slice(None), "domain"].value_counts()
    if frame["domain"].nunique() < 2:
        only = f"All pictures are of one domain ({domains[0]})" if len(frame) else "There are no pictures"
        return DomainGaps(_accuracies([]), {}, float("nan"), f"{only}: there is no gap to measure.")
    target = str(counts.index[0])
    rows, metrics, words, chance = [], dict[str, Metric](), [], float("nan")
    for domain in sorted(set(domains) - {target}):
        pair = (domain, target)
        told = separate_domains(embedding_ND, labels, domains, pair, seed=seed)
        if told is None:
            words.append(f"{domain} and {target} share fewer than {MIN_LABELS} labels: nothing compared.")
            continue
        metrics |= {f"domain_gap/{domain}/told": told.accuracy, f"domain_gap/{domain}/auroc": told.auroc}
        words.append(f"{domain} is told from {target} for {told.accuracy} (chance 50 %, labels never seen before).")
        part = in_part
        crossing = cross_domains(embedding_ND[part], labels[part], domains[part], is_query[part], pair, seed=seed)
        if crossing is None:
            words.append(
                f"No accuracy: fewer than {MIN_LABELS} labels have {domain} and {target} references and {target} queries."
            )
            continue
        named = {"crossed": crossing.crossed, "own": crossing.own, "loss": crossing.loss, "chance": crossing.chance}
        metrics |= {f"domain_gap/{domain}/{name}": metric for name, metric in named.items()}
        chance = crossing.chance.value
        shots = f"{crossing.shots} a label"
        rows.append((f"{domain} references ({shots})", crossing.crossed))
        rows.append((f"{target} references ({shots}, beside {domain})", crossing.own))
        words.append(f"With {domain} in place of {target} references, {shots}, accuracy@1 {_change(crossing.loss)}.")
    return DomainGaps(_accuracies(rows), metrics, chance, " ".join(words))


def _change(loss: Metric) -> str:
    word, sign = ("falls", 100) if loss.value >= 0 else ("rises", -100)
    low, high = sorted((sign * loss.low, sign * loss.high))
    return f"{word} by {sign * loss.value:z.1f} points [{low:z.1f}, {high:z.1f}]"


def _accuracies(rows: list[tuple[str, Metric]]) -> pd.DataFrame:
    table = [(name, metric.value, metric.low, metric.high, metric.n) for name, metric in rows]
    return pd.DataFrame(table, columns=["label", "value", "low", "high", "n"])


def _balanced(
    label_N: np.ndarray, domain_N: np.ndarray, pair: tuple[str, str], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (row_M, label_M): equally many rows of both domains of each label that has both, by label."""
    rows: list[np.ndarray] = []
    labels: list[str] = []
    groups = pd.Series(np.arange(len(label_N))).groupby([label_N, domain_N]).indices
    for label in sorted(set(label_N)):
        sides = [groups.get((label, domain), np.empty(0, np.int64)) for domain in pair]
        num = min(*(len(side) for side in sides), MAX_A_LABEL)
        rows += [rng.permutation(side)[:num] for side in sides]
        labels += [label] * (2 * num)
    return np.concatenate(rows) if rows else np.empty(0, np.int64), np.array(labels, dtype=object)


def _won(decision_M: np.ndarray, is_second_M: np.ndarray, label_M: np.ndarray) -> np.ndarray:
    """Returns, for each picture, the share of the other domain's pictures of its label that it stands on the right side of."""
    won_M = np.empty(len(decision_M))
    for rows in pd.Series(decision_M).groupby(label_M).indices.values():
        first, second = rows[~is_second_M[rows]], rows[is_second_M[rows]]
        above = np.sign(decision_M[second][:, None] - decision_M[first]) / 2 + 0.5
        won_M[second], won_M[first] = above.mean(axis=1), above.mean(axis=0)
    return won_M
