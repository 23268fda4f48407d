"""What a recognition run compares: which reference sets are searched, by which queries, with how many references."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pandas as pd

from workbench.data.catalog import Catalog
from workbench.data.images import Picture
from workbench.data.same_images import refuse_same_images
from workbench.retrieval.baseline import chance_metrics
from workbench.retrieval.few_shot import FewShotResult, evaluate_few_shot
from workbench.retrieval.few_shot_protocol import FewShotProtocol, Shots
from workbench.retrieval.mistakes import GroupMistakes
from workbench.retrieval.stats import Metric


class Embedded(Protocol):
    """Embeddings with the catalog's row of each: an EmbeddingSet, or a baseline's histograms."""

    @property
    def embedding_ND(self) -> np.ndarray: ...  # noqa: D102

    @property
    def catalog(self) -> Catalog: ...  # noqa: D102

    @property
    def source_N(self) -> np.ndarray: ...  # noqa: D102


@dataclass(frozen=True)
class RecognitionPlan:
    """The galleries and the queries of one run.

    Attributes:
        references: `split:domain` -> its images; each is searched as a gallery of its own, the first is the headline.
        queries: the images to recognise.
        shots: references per class, whole numbers and at most one "all", in the order given.

    Raises:
        ValueError: a query is among the references, as the same file or by its bytes.
    """

    references: dict[str, Catalog]
    queries: Catalog
    shots: tuple[Shots, ...]

    def __post_init__(self) -> None:
        """Looks at the files before anything is computed."""
        instead = "let each image search all the others (03_evaluate_few_shot with protocol=leave_one_out)"
        for references in self.references.values():
            refuse_same_images(references, self.queries, instead)

    def shots_of(self, reference_set: str) -> tuple[Shots, ...]:
        """The shots that this reference set can answer: none above its largest class, and "all" only if that is more."""
        largest = int(self.references[reference_set].frame["label"].value_counts().max())
        counts = [k for k in self.shots if isinstance(k, int) and k <= largest]
        more = largest not in counts and ("all" in self.shots or not counts)
        return (*counts, "all") if more else tuple(counts)


def plan_recognition(
    catalog: Catalog, reference_sets: str = "", query_split: str = "", query_domain: str = "", shots: str = ""
) -> RecognitionPlan:
    """The plan that the parameters describe; what is left empty comes from the first card that has it.

    Args:
        catalog: all images of the run.
        reference_sets: pairs `split:domain`, comma-separated; `split` alone means all its domains.
        query_split: split of the queries.
        query_domain: domain of the queries; empty everywhere means all domains of the split.
        shots: references per class, comma-separated, such as "1, 5, all".

    Raises:
        ValueError: nothing says which references or queries to take, a split or domain is not there, or shots are not
            whole numbers of at least 1 or "all".
    """
    defaults: dict[str, object] = {}
    for card in catalog.cards.values():
        defaults = {**card.protocol, **defaults}
    names = _listed(reference_sets) or [str(name) for name in _as_list(defaults.get("reference_sets"))]
    split = query_split or str(defaults.get("query_split") or "")
    if not names or not split:
        raise ValueError(
            "Nothing says which images are references and which are queries: give reference_sets (such as "
            "'train:real') and query_split, or put reference_sets and query_split under `protocol:` of the card."
        )
    domain = query_domain or ("" if query_split else str(defaults.get("query_domain") or ""))
    return RecognitionPlan(
        references={name: _part(catalog, *_pair(name)) for name in names},
        queries=_part(catalog, split, domain),
        shots=_parse_shots(_listed(shots) or [str(one) for one in _as_list(defaults.get("shots"))] or ["1", "all"]),
    )


def evaluate_references(
    plan: RecognitionPlan, references: Mapping[str, Embedded], queries: Embedded, protocol: FewShotProtocol
) -> dict[str, FewShotResult]:
    """The result of each reference set, searched as a gallery of its own by the same queries.

    Args:
        plan: what is compared.
        references: the embeddings of each reference set of the plan.
        queries: the embeddings of the plan's queries.
        protocol: followed for each set, with the shots that the set can answer and the domains as they are.
    """
    results = {}
    for name, gallery in references.items():
        of_set = replace(
            protocol,
            shots=plan.shots_of(name),
            headline_shots=None,
            reference_domain="+".join(sorted(gallery.catalog.frame["domain"].unique())),
            query_domain="+".join(sorted(queries.catalog.frame["domain"].unique())),
        )
        results[name] = evaluate_few_shot(
            gallery.embedding_ND,
            gallery.catalog.labels,
            queries.embedding_ND,
            queries.catalog.labels,
            of_set,
            gallery.source_N,
        )
    return results


def collect_metrics(
    plan: RecognitionPlan, results: Mapping[str, FewShotResult], baselines: Mapping[str, FewShotResult]
) -> dict[str, Metric]:
    """Every metric of a run under its name: the embedder's, the colour histogram's, and the chance level beside them."""
    metrics: dict[str, Metric] = {}
    for name, result in results.items():
        chance = chance_metrics(plan.references[name].labels, result.hit_labels, result.protocol.shots)
        metrics |= name_metrics(result.metrics, plan, name)
        metrics |= name_metrics(baselines[name].metrics, plan, name, "colour_histogram")
        metrics |= name_metrics(chance, plan, name)
    return metrics


@dataclass(frozen=True)
class Confusion:
    """A frequent mistake with the pictures that show it.

    Attributes:
        label: the right label; predicted: what it was taken for.
        count: queries of the label that were taken so; share: of its queries, 0 to 1.
        query, taken_for, right: the query nearest to the wrong label, the reference it was taken for, and the first
            reference of the right label.
    """

    label: str
    predicted: str
    count: int
    share: float
    query: Picture
    taken_for: Picture
    right: Picture


def frequent_confusions(result: FewShotResult, references: Catalog, queries: Catalog, num: int) -> list[Confusion]:
    """The most frequent mistakes, at most `num` of them; empty when nothing was mistaken.

    Args:
        result: of these references and queries, row for row.
        references: the gallery's rows.
        queries: the queries' rows.
        num: how many.
    """
    reference_pictures, query_pictures = references.pictures(), queries.pictures()
    first_row = references.frame.reset_index().drop_duplicates("label").set_index("label")["index"]
    columns = ["label", "predicted", "count", "share", "query", "reference"]
    return [
        Confusion(
            label,
            predicted,
            count,
            share,
            query_pictures[query],
            reference_pictures[row],
            reference_pictures[first_row[label]],
        )
        for label, predicted, count, share, query, row in result.confusions.head(num)[columns].itertuples(
            index=False, name=None
        )
    ]


def name_metrics(
    metrics: Mapping[str, Metric], plan: RecognitionPlan, reference_set: str, system: str = ""
) -> dict[str, Metric]:
    """The metrics under the names that metrics.json keeps.

    The headline gallery's names stay as they are (`accuracy@1/shots=1/micro`); another gallery's end in
    `/references=split:domain`; a baseline's begin with its name (`colour_histogram/...`).
    """
    suffix = "" if reference_set == next(iter(plan.references)) else f"/references={reference_set}"
    prefix = f"{system}/" if system else ""
    return {f"{prefix}{name}{suffix}": metric for name, metric in metrics.items()}


def shots_curves(results: Mapping[str, Mapping[str, FewShotResult]], baseline: str) -> pd.DataFrame:
    """One row a system, reference set and number of shots, as `report.figures.accuracy_against_shots` draws it.

    Columns: series (system and reference set), label (the same), baseline (bool), shots (whole number or "all"), value,
    low, high, n of accuracy@1, micro; in the order given.

    Args:
        results: by system, then by reference set.
        baseline: the system that is the baseline.
    """
    rows = []
    for system, of_sets in results.items():
        for name, result in of_sets.items():
            for shots in result.protocol.shots:
                found = result.metrics[f"accuracy@1/shots={shots}/micro"]
                rows.append(
                    (f"{system}, {name}", system == baseline, shots, found.value, found.low, found.high, found.n)
                )
    table = pd.DataFrame(rows, columns=["series", "baseline", "shots", "value", "low", "high", "n"])
    return table.assign(label=table["series"])


def examples(plan: RecognitionPlan, num_labels: int, num_images: int) -> list[tuple[str, Picture]]:
    """Captions and pictures of a few classes: for each class some references of every set, then some queries."""
    labels = sorted(set(plan.queries.labels))
    chosen = [labels[round(place)] for place in np.linspace(0, len(labels) - 1, min(num_labels, len(labels)))]
    parts = {**plan.references, "query": plan.queries}
    return [
        (f"{label}: {role}", picture)
        for label in chosen
        for role, part in parts.items()
        for picture in part.take(np.flatnonzero(part.labels == label)[:num_images]).pictures()
    ]


def compare_groups(catalog: Catalog, references: Catalog, result: FewShotResult) -> GroupMistakes | None:
    """How far the mistakes go, by the catalog's groups; None where a label of the references has no group."""
    known = catalog.frame.dropna(subset="group").drop_duplicates("label")
    groups = dict(zip(known["label"].tolist(), known["group"].tolist(), strict=True))
    return result.group_mistakes(groups) if set(references.labels) <= groups.keys() else None


def _as_list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else []


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _pair(name: str) -> tuple[str, str]:
    split, _, domain = name.partition(":")
    return split.strip(), domain.strip()


def _part(catalog: Catalog, split: str, domain: str) -> Catalog:
    return catalog.select(split=split, domain=domain or None)


def _parse_shots(texts: list[str]) -> tuple[Shots, ...]:
    shots: list[Shots] = []
    for text in texts:
        if text != "all" and (not text.isdecimal() or int(text) < 1):
            raise ValueError(f"shots are whole numbers of at least 1, or 'all'; found {text!r}.")
        shots.append("all" if text == "all" else int(text))
    if len(set(shots)) != len(shots):
        raise ValueError(f"shots name a number twice: {', '.join(map(str, shots))}.")
    return tuple(shots)
