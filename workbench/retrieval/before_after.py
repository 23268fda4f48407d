"""An embedder before and after training: the same queries, references and protocol, and the difference with its interval."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from workbench.data.catalog import Catalog
from workbench.models.embedder import Embedder
from workbench.retrieval.embed import embed_catalog
from workbench.retrieval.few_shot_protocol import FewShotProtocol
from workbench.retrieval.identification import (
    IdentificationPlan,
    evaluate_identification,
    plan_identification,
)
from workbench.retrieval.identification_tables import chance_identification
from workbench.retrieval.query_hits import collect_identification_hits, query_names
from workbench.retrieval.recognition import (
    RecognitionPlan,
    Result,
    chance_beside,
    evaluate_references,
    name_metrics,
    plan_recognition,
)
from workbench.retrieval.reid_protocol import ReidProtocol
from workbench.retrieval.stats import Metric, cluster_interval, paired_difference
from workbench.runs.hits import Hits


@dataclass(frozen=True)
class Change:
    """One number before and after.

    Attributes:
        name: of the metric, as metrics.json keeps the one after.
        question: what it answers, in words.
        before, after: the two numbers.
        difference: after less before, paired by query and draw.
        chance: what guessing gets for the same queries.
        hits: what each query gave after, for comparing runs later (`runs.hits.save_hits`).
    """

    name: str
    question: str
    before: Metric
    after: Metric
    difference: Metric
    chance: Metric
    hits: Hits


def evaluation_plan(
    catalog: Catalog, trained_labels: Collection[str]
) -> tuple[RecognitionPlan | IdentificationPlan, str]:
    """What the catalog's card evaluates, and whether its classes are "unseen", "seen" or "partly seen" in training.

    Args:
        catalog: all images, with a card that has a protocol.
        trained_labels: labels of the training images.
    """
    tasks = {card.task for card in catalog.cards.values()}
    plan = plan_identification(catalog) if tasks == {"reid"} else plan_recognition(catalog, protocol="")
    asked, trained = set(plan.queries.labels), set(trained_labels)
    return plan, "unseen" if asked.isdisjoint(trained) else "seen" if asked <= trained else "partly seen"


def seen_plan(references: Catalog, queries: Catalog) -> RecognitionPlan:
    """Recognition of the classes of training: other images of them asked against the training images as references."""
    queries = queries.take(np.flatnonzero(pd.Series(queries.labels).isin(set(references.labels)).to_numpy()))
    return RecognitionPlan({"training images": references}, queries, (1, "all"))


def compare_embedders(
    plan: RecognitionPlan | IdentificationPlan,
    before: Embedder,
    after: Embedder,
    classes: str,
    *,
    draws: int = 5,
    seed: int = 0,
    **options: Any,
) -> list[Change]:
    """The numbers of a plan before and after training, the headline first.

    Recognition: accuracy@1, micro, of each reference set with one reference and with all it has; where one is left out recall@1 and
    MAP@R. Re-identification: mAP and rank-1.

    Args:
        plan: what is asked.
        before, after: the two embedders.
        classes: "unseen", "seen", ...: what the classes were in training; part of the words, and of the names unless
            "unseen".
        draws: of the references.
        seed: of the draws.
        options: of `embed_catalog`.
    """
    if isinstance(plan, IdentificationPlan):
        return _compare_identification(plan, before, after, classes, **options)
    protocol = FewShotProtocol(draws=draws, seed=seed)
    (first_results, _, _), (second_results, references, asked) = (
        _recognise(plan, embedder, protocol, **options) for embedder in (before, after)
    )
    changes = []
    for reference_set, first in first_results.items():
        second = second_results[reference_set]
        chance = chance_beside(second, references, reference_set)
        for measure in dict.fromkeys((second.measures[0], second.measures[-1])):
            (name,) = name_metrics({f"{measure}/micro": first.metrics[f"{measure}/micro"]}, plan, reference_set)
            changes.append(
                Change(
                    name if classes == "unseen" else f"{classes.replace(' ', '_')}/{name}",
                    f"{classes} classes, {_words(measure, reference_set)}",
                    first.metrics[f"{measure}/micro"],
                    second.metrics[f"{measure}/micro"],
                    paired_difference(
                        second.hits[measure],
                        first.hits[measure],
                        first.hit_labels,
                        protocol=f"tuned less untuned, paired by query and draw; {first.metrics[f'{measure}/micro'].protocol}",
                    ),
                    chance[f"chance/{measure}/micro"],
                    Hits(query_names(asked)[second.hit_queries], second.hit_labels, second.hits[measure]),
                )
            )
    return changes


def changes_table(changes: Sequence[Change], beside: Mapping[str, Metric] | None = None) -> pd.DataFrame:
    """Two rows a change, before (as baseline) and after, then `beside` by name, as `report.figures.interval_dots` draws them."""
    rows = [
        (f"{change.question}, {word}", metric.value, metric.low, metric.high, metric.n, word == "untuned")
        for change in changes
        for word, metric in (("untuned", change.before), ("tuned", change.after))
    ]
    rows += [(name, one.value, one.low, one.high, one.n, False) for name, one in (beside or {}).items()]
    return pd.DataFrame(rows, columns=["label", "value", "low", "high", "n", "baseline"])


def differences_table(changes: Sequence[Change]) -> pd.DataFrame:
    """One row a change, in words: question, untuned, tuned, difference."""
    rows = [(one.question, str(one.before), str(one.after), str(one.difference)) for one in changes]
    return pd.DataFrame(rows, columns=["question", "untuned", "tuned", "difference"])


def changes_metrics(changes: Sequence[Change]) -> dict[str, Metric]:
    """Every number by name: the tuned one plainly, the others under `untuned/`, `difference/` and `chance/`."""
    metrics = {change.name: change.after for change in changes}
    metrics |= {f"untuned/{change.name}": change.before for change in changes}
    metrics |= {f"difference/{change.name}": change.difference for change in changes}
    return metrics | {f"chance/{change.name}": change.chance for change in changes}


def changes_hits(changes: Sequence[Change]) -> dict[str, Hits]:
    """What each query gave after, by metric, as `runs.hits.save_hits` keeps it."""
    return {change.name: change.hits for change in changes}


def classifier_metrics(
    validation: pd.DataFrame, validation_images: pd.DataFrame, step: int | None
) -> dict[str, Metric]:
    """Accuracy of the trained classifier on the validation images of that step, micro and macro, under `classifier/`.

    Empty without a validation, and where class means answered because the loss has no classifier. It stands beside the nearest
    reference on the same images; the step was chosen on them, so that both are a little too kind.

    Args:
        validation: one row a validation, with the columns step and answers_by (`training.result.TrainingResult`).
        validation_images: one row a validation and image, with the columns step, label and correct.
        step: of the embedder that was kept.
    """
    judged = validation[validation["step"] == step]
    if judged.empty or judged["answers_by"].iloc[0] != "classifier":
        return {}
    images = validation_images[validation_images["step"] == step]
    line = "classes seen in training, validation images, answered by the classifier; averages: {}"
    return {
        f"classifier/accuracy@1/{average}": cluster_interval(
            images["correct"].to_numpy(np.float64), images["label"], average, protocol=line.format(average)
        )
        for average in ("micro", "macro")
    }


def validation_table(validation_images: pd.DataFrame) -> pd.DataFrame:
    """One row a validation, with the interval: columns step, value (mean over classes), low, high, n (images).

    Args:
        validation_images: one row a validation and image, with the columns step, label and correct.
    """
    rows = []
    for step, images in validation_images.groupby("step"):
        metric = cluster_interval(images["correct"].to_numpy(np.float64), images["label"], "macro")
        rows.append((step, metric.value, metric.low, metric.high, metric.n))
    return pd.DataFrame(rows, columns=["step", "value", "low", "high", "n"])


def _recognise(
    plan: RecognitionPlan, embedder: Embedder, protocol: FewShotProtocol, **options: Any
) -> tuple[dict[str, Result], dict[str, Catalog], Catalog]:
    """The results, and the references and the queries that could be read."""
    references = {name: embed_catalog(embedder, part, **options) for name, part in plan.references.items()}
    queries = embed_catalog(embedder, plan.queries, **options)
    catalogs = {name: one.catalog for name, one in references.items()}
    return evaluate_references(plan, references, queries, protocol), catalogs, queries.catalog


def _words(measure: str, reference_set: str) -> str:
    if "shots=" not in measure:
        return f"each image searches all the others, {measure}"
    shots = measure.rpartition("=")[2]
    return f"{shots} reference{'' if shots == '1' else 's'} a class from {reference_set}"


def _compare_identification(
    plan: IdentificationPlan, before: Embedder, after: Embedder, classes: str, **options: Any
) -> list[Change]:
    protocol = ReidProtocol(junk=plan.junk)
    asked = [embed_catalog(embedder, plan.queries, **options) for embedder in (before, after)]
    galleries = [embed_catalog(embedder, plan.gallery, **options) for embedder in (before, after)]
    first, second = (evaluate_identification(*pair, protocol) for pair in zip(asked, galleries, strict=True))
    chance = chance_identification(second, galleries[1].catalog)
    hits = [collect_identification_hits(*pair) for pair in ((first, asked[0].catalog), (second, asked[1].catalog))]
    prefix = "" if classes == "unseen" else f"{classes.replace(' ', '_')}/"
    line = f"tuned less untuned, paired by query; {protocol.describe()}"
    return [
        Change(
            f"{prefix}{name}",
            f"{classes} individuals, {name}",
            first.metrics[name],
            second.metrics[name],
            paired_difference(tuned.hit_DQ[0], hits[0][name].hit_DQ[0], tuned.label_Q, protocol=line),
            chance[f"chance/{name}"],
            tuned,
        )
        for name, tuned in hits[1].items()
    ]
