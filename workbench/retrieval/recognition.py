"""What a recognition run compares: which reference sets are searched by which queries, or each query in all the others."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from workbench.data.catalog import Catalog
from workbench.data.images import Picture
from workbench.data.same_images import image_codes, refuse_same_images
from workbench.retrieval.baseline import chance_metrics
from workbench.retrieval.few_shot import FewShotResult, evaluate_few_shot
from workbench.retrieval.few_shot_protocol import FewShotProtocol, Shots
from workbench.retrieval.leave_one_out import LeaveOneOutResult, evaluate_leave_one_out
from workbench.retrieval.leave_one_out_protocol import RECALL_AT, LeaveOneOutProtocol
from workbench.retrieval.stats import Metric

ALL_OTHERS = "all others"
"""What is searched where each query searches the other queries; names no split."""
Result = FewShotResult | LeaveOneOutResult


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
        references: `split:domain` -> its images; each is searched as a gallery of its own, the first is the headline. None: leave
            one out, each query searches all the other queries.
        queries: the images to recognise.
        shots: references per class, whole numbers and at most one "all", in the order given.
        recall_at: the K of Recall@K where one is left out.

    Raises:
        ValueError: a query is among the references, as the same file or by its bytes.
    """

    references: dict[str, Catalog]
    queries: Catalog
    shots: tuple[Shots, ...]
    recall_at: tuple[int, ...] = RECALL_AT

    def __post_init__(self) -> None:
        """Looks at the files before anything is computed."""
        instead = "let each image search all the others (03_evaluate_few_shot with protocol=leave_one_out)"
        for references in self.references.values():
            refuse_same_images(references, self.queries, instead)

    @property
    def leave_one_out(self) -> bool:
        """Whether each query searches all the other queries."""
        return not self.references

    def describe(self) -> str:
        """What the queries are searched in, in words; of all the others also how many have a copy, which is searched too."""
        if not self.leave_one_out:
            return f"{len(self.references)} reference set{'s' if len(self.references) > 1 else ''}"
        (code_N,) = image_codes(self.queries)
        return f"all the others ({int((np.bincount(code_N)[code_N] > 1).sum()):,} have the same bytes as another, which may answer)"

    def check(self, protocol: FewShotProtocol) -> None:
        """Returns nothing when the protocol can be followed.

        Raises:
            ValueError: it draws or copies references, or asks some of the queries, where each query searches all the others.
        """
        given = (protocol.vote, protocol.queries_per_class, protocol.reference_augmentations)
        if self.leave_one_out and given != ("nearest", None, 0):
            raise ValueError(
                "leave_one_out compares each image with all the others as they are: it wants vote=nearest, queries_per_class=None "
                f"and reference_augmentations=0; found {', '.join(map(str, given))}."
            )

    def shots_of(self, reference_set: str) -> tuple[Shots, ...]:
        """The shots that this reference set can answer: none above its largest class, and "all" only if that is more."""
        largest = int(self.references[reference_set].frame["label"].value_counts().max())
        counts = [k for k in self.shots if isinstance(k, int) and k <= largest]
        more = largest not in counts and ("all" in self.shots or not counts)
        return (*counts, "all") if more else tuple(counts)


def plan_recognition(
    catalog: Catalog,
    reference_sets: str = "",
    query_split: str = "",
    query_domain: str = "",
    shots: str = "",
    protocol: str = "gallery",
) -> RecognitionPlan:
    """The plan that the parameters describe; what is left empty comes from the first card that has it.

    Args:
        catalog: all images of the run.
        reference_sets: pairs `split:domain`, comma-separated; `split` alone means all its domains.
        query_split: split of the queries.
        query_domain: domain of the queries; empty everywhere means all domains of the split.
        shots: references per class, comma-separated, such as "1, 5, all".
        protocol: "gallery"; "leave_one_out": each query searches all the other queries, query_split may name several splits
            (comma-separated), and the card's are those of its `leave_one_out`; "": the card's, a gallery where reference sets
            are given.

    Raises:
        ValueError: nothing says which references or queries to take, a split or domain is not there, shots are not whole
            numbers of at least 1 or "all", or references or shots are given where one is left out.
    """
    defaults: dict[str, object] = {}
    for card in catalog.cards.values():
        defaults = {**card.protocol, **defaults}
    if protocol == "leave_one_out" or (not protocol and "leave_one_out" in defaults and not reference_sets):
        if reference_sets or shots:
            raise ValueError(
                "leave_one_out has no reference sets and no shots, each image searches all the others: leave both empty, or "
                f"give protocol=gallery; found reference_sets={reference_sets!r}, shots={shots!r}."
            )
        splits = _listed(query_split) or [str(one) for one in _as_list(defaults.get("leave_one_out"))]
        splits = splits or _listed(str(defaults.get("query_split") or ""))
        if not splits:
            raise ValueError("Nothing says which images search one another: give query_split, such as test.")
        recall_at = tuple(int(str(k)) for k in _as_list(defaults.get("recall_at"))) or RECALL_AT
        return RecognitionPlan({}, catalog.select(split=splits, domain=query_domain or None), ("all",), recall_at)
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
) -> dict[str, Result]:
    """The result of each reference set, searched as a gallery of its own by the same queries; or of `ALL_OTHERS`.

    Args:
        plan: what is compared.
        references: the embeddings of each reference set of the plan.
        queries: the embeddings of the plan's queries.
        protocol: followed for each set, with the shots that the set can answer and the domains as they are.
    """
    plan.check(protocol)
    domain = "+".join(sorted(queries.catalog.frame["domain"].unique()))
    if plan.leave_one_out:
        absent: Literal["error", "skip"] = "error" if protocol.absent_queries == "error" else "skip"
        left = LeaveOneOutProtocol(plan.recall_at, absent, domain, protocol.num_replicates)
        return {ALL_OTHERS: evaluate_leave_one_out(queries.embedding_ND, queries.catalog.labels, left)}
    results: dict[str, Result] = {}
    for name, gallery in references.items():
        of_set = replace(
            protocol,
            shots=plan.shots_of(name),
            headline_shots=None,
            reference_domain="+".join(sorted(gallery.catalog.frame["domain"].unique())),
            query_domain=domain,
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


def chance_beside(result: Result, references: Mapping[str, Catalog], reference_set: str) -> dict[str, Metric]:
    """What guessing gets for the queries of a result, by name, such as `chance/accuracy@1/shots=1/micro`.

    Args:
        result: of that reference set.
        references: the photographs of each reference set.
        reference_set: one of them, or `ALL_OTHERS`.
    """
    if isinstance(result, LeaveOneOutResult):
        return result.chance
    return chance_metrics(references[reference_set].labels, result.hit_labels, result.protocol.shots)


def name_metrics(
    metrics: Mapping[str, Metric], plan: RecognitionPlan, reference_set: str, system: str = ""
) -> dict[str, Metric]:
    """The metrics under the names that metrics.json keeps.

    The headline gallery's names stay as they are (`accuracy@1/shots=1/micro`); another gallery's end in
    `/references=split:domain`; a baseline's begin with its name (`colour_histogram/...`).
    """
    suffix = "" if reference_set == next(iter(plan.references), reference_set) else f"/references={reference_set}"
    prefix = f"{system}/" if system else ""
    return {f"{prefix}{name}{suffix}": metric for name, metric in metrics.items()}


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
