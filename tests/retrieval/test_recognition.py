from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from workbench.data.card import read_card
from workbench.data.catalog import Catalog
from workbench.retrieval.few_shot import FewShotProtocol, evaluate_few_shot
from workbench.retrieval.query_hits import collect_hits
from workbench.retrieval.recognition import evaluate_references, examples, name_metrics, plan_recognition
from workbench.retrieval.recognition_tables import (
    collect_metrics,
    compare_groups,
    frequent_confusions,
    headline_rows,
    recall_curves,
    richest_gallery,
    shots_curves,
)
from workbench.retrieval.stats import Metric


@pytest.fixture
def catalog() -> Catalog:
    rows = [
        ("a.jpg", "tin", "reference", "packshot"),
        ("b.jpg", "tin", "reference", "synthetic"),
        ("c.jpg", "tin", "query", "synthetic"),
        ("d.jpg", "box", "query", "real"),
    ]
    frame = pd.DataFrame(rows, columns=["path", "label", "split", "domain"]).assign(source="set")
    frame["camera"], frame["group"] = pd.array([None] * 4, dtype="Int64"), pd.Series([None] * 4, dtype="str")
    return Catalog(frame=frame, roots={"set": Path("/")}, cards={}, missing_splits={})


def test_products_may_be_called_as_junk_and_distractors_are(catalog: Catalog) -> None:
    frame = pd.concat([catalog.frame.assign(split=split) for split in ("reference", "query")], ignore_index=True)
    frame = frame.assign(label=["0", "-1", "7", "8"] * 2, path=[f"{row}.jpg" for row in range(8)])
    products = replace(catalog, frame=frame, cards={"set": read_card("grocery_store")})
    plan = plan_recognition(products, "reference", "query", "", "1")
    (references,) = plan.references.values()
    found = evaluate_few_shot(np.eye(4), references.labels, np.eye(4), plan.queries.labels, FewShotProtocol(shots=(1,)))
    assert found.hit_labels.tolist() == ["0", "-1", "7", "8"]
    assert found.metrics["accuracy@1/shots=1/macro"].value == 1


def _paths(catalog: Catalog) -> list[str]:
    return [str(path) for path in catalog.frame["path"]]


def test_the_parameters_say_what_is_compared(catalog: Catalog) -> None:
    plan = plan_recognition(catalog, "reference:synthetic, reference", "query", "real", "1, 5,all")
    assert {name: _paths(part) for name, part in plan.references.items()} == {
        "reference:synthetic": ["b.jpg"],
        "reference": ["a.jpg", "b.jpg"],
    }
    assert _paths(plan.queries) == ["d.jpg"]
    assert plan.shots == (1, 5, "all")


def test_what_is_left_empty_comes_from_the_card(catalog: Catalog) -> None:
    protocol = {"reference_sets": ["reference:packshot"], "query_split": "query", "query_domain": "real", "shots": [2]}
    card = replace(read_card("grocery_store"), protocol=protocol)
    of_card = replace(catalog, cards={"set": card})
    plan = plan_recognition(of_card)
    assert list(plan.references) == ["reference:packshot"]
    assert _paths(plan.queries) == ["d.jpg"]
    assert plan.shots == (2,)
    # a split that was named brings all its domains, not the card's
    assert _paths(plan_recognition(of_card, query_split="query").queries) == ["c.jpg", "d.jpg"]
    assert _paths(plan_recognition(of_card, query_domain="synthetic").queries) == ["c.jpg"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give reference_sets"),
        ({"reference_sets": "reference"}, "give reference_sets"),
        ({"reference_sets": "refrence", "query_split": "query"}, "Did you mean 'reference'"),
        ({"reference_sets": "reference:real", "query_split": "query"}, "reference:packshot, reference:synthetic"),
        ({"reference_sets": "reference", "query_split": "query", "shots": "1, none"}, "found 'none'"),
        ({"reference_sets": "reference", "query_split": "query", "shots": "0"}, "at least 1"),
        ({"reference_sets": "reference", "query_split": "query", "shots": "2, 2"}, "twice"),
    ],
)
def test_plans_that_cannot_be_are_refused(catalog: Catalog, given: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_recognition(catalog, **given)


def test_metric_names_tell_galleries_and_baselines_apart(catalog: Catalog) -> None:
    plan = plan_recognition(catalog, "reference:packshot, reference:synthetic", "query", "", "1")
    metrics = {"accuracy@1/shots=1/micro": Metric(0.5, 0.4, 0.6, 2, "protocol")}
    assert list(name_metrics(metrics, plan, "reference:packshot")) == ["accuracy@1/shots=1/micro"]
    assert list(name_metrics(metrics, plan, "reference:synthetic", "colour_histogram")) == [
        "colour_histogram/accuracy@1/shots=1/micro/references=reference:synthetic"
    ]


def test_a_gallery_is_asked_only_for_shots_that_it_has(catalog: Catalog) -> None:
    def shots(text: str, reference_set: str = "reference") -> tuple[int | str, ...]:
        return plan_recognition(catalog, reference_set, "query", "", text).shots_of(reference_set)

    assert shots("1, 2, 5, all") == (1, 2)
    assert shots("1, 5, all") == (1, "all")
    assert shots("5") == ("all",)
    assert shots("1, 5") == (1,)
    assert shots("1, 2, all", "reference:packshot") == (1,)


@dataclass(frozen=True)
class _Embedded:
    embedding_ND: np.ndarray
    catalog: Catalog
    source_N: np.ndarray


def _embedded(catalog: Catalog, angles: list[float]) -> _Embedded:
    radians = np.deg2rad(angles)
    return _Embedded(np.stack([np.cos(radians), np.sin(radians)], axis=1), catalog, np.arange(len(catalog)))


def _two_sets(catalog: Catalog) -> tuple[Catalog, dict[str, _Embedded], _Embedded]:
    """Two labels on a circle: tin at 0 degrees, box at 90; of the queries one tin at 80 is taken for a box."""
    rows = [
        ("r1.jpg", "tin", "reference", "packshot", "metal"),
        ("r2.jpg", "box", "reference", "packshot", "paper"),
        ("s1.jpg", "tin", "reference", "synthetic", "metal"),
        ("s2.jpg", "box", "reference", "synthetic", "paper"),
        ("q1.jpg", "tin", "query", "real", "metal"),
        ("q2.jpg", "tin", "query", "real", "metal"),
        ("q3.jpg", "box", "query", "real", "paper"),
    ]
    frame = pd.DataFrame(rows, columns=["path", "label", "split", "domain", "group"]).assign(source="set")
    frame["camera"] = pd.array([None] * 7, dtype="Int64")
    made = replace(catalog, frame=frame.astype({"group": "str"}))
    plan = plan_recognition(made, "reference:packshot, reference:synthetic", "query", "", "1")
    sets = {name: _embedded(part, [0, 90]) for name, part in plan.references.items()}
    return made, sets, _embedded(plan.queries, [10, 80, 70])


def test_each_reference_set_is_a_gallery_of_its_own(catalog: Catalog) -> None:
    made, sets, queries = _two_sets(catalog)
    plan = plan_recognition(made, ", ".join(sets), "query", "", "1")
    protocol = FewShotProtocol(draws=1)
    results = evaluate_references(plan, sets, queries, protocol)
    assert [result.metrics["accuracy@1/shots=1/micro"].value for result in results.values()] == pytest.approx(
        [2 / 3] * 2
    )
    assert "references packshot, queries real" in results["reference:packshot"].protocol.describe()
    assert "references synthetic, queries real" in results["reference:synthetic"].protocol.describe()

    metrics = collect_metrics(plan, results, results)
    assert metrics["accuracy@1/shots=1/micro"].value == pytest.approx(2 / 3)
    assert metrics["accuracy@1/shots=1/macro"].value == pytest.approx(3 / 4)
    assert metrics["chance/accuracy@1/shots=1/micro"].value == 1 / 2
    assert metrics["colour_histogram/accuracy@1/shots=1/macro/references=reference:synthetic"].value == pytest.approx(
        3 / 4
    )

    curves = shots_curves({"ours": results, "colours": results}, "colours")
    assert curves["series"].tolist() == [
        f"{system}, reference:{kind}" for system in ("ours", "colours") for kind in ("packshot", "synthetic")
    ]
    assert curves["baseline"].tolist() == [False, False, True, True]
    assert curves["value"].tolist() == pytest.approx([2 / 3] * 4)

    result = results["reference:packshot"]
    (mistake,) = frequent_confusions(result, sets["reference:packshot"].catalog, queries.catalog, 5)
    assert (mistake.label, mistake.predicted, mistake.count, mistake.share) == ("tin", "box", 1, 0.5)
    assert [one.path.name for one in (mistake.query, mistake.taken_for, mistake.right)] == [
        "q2.jpg",
        "r2.jpg",
        "r1.jpg",
    ]
    assert [picture.path.name for _, picture in examples(plan, 9, 1)] == [
        "r2.jpg",
        "s2.jpg",
        "q3.jpg",
        "r1.jpg",
        "s1.jpg",
        "q1.jpg",
    ]

    groups = compare_groups(made, sets["reference:packshot"].catalog, result)
    assert groups is not None
    assert groups.metrics["group_accuracy@1/shots=1/micro"].value == pytest.approx(2 / 3)
    without = replace(made, frame=made.frame.assign(group=pd.Series([None] * 7, dtype="str")))
    assert compare_groups(without, sets["reference:packshot"].catalog, result) is None


_TURN: list[float] = [0, 10, 25, 45, 70]  # degrees: see test_leave_one_out for what finds what


def _one_set(catalog: Catalog) -> Catalog:
    frame = pd.DataFrame({"path": [f"{row}.jpg" for row in range(5)], "label": list("abaab"), "domain": "real"})
    frame = frame.assign(
        source="set", group=pd.Series(["fruit"] * 5, dtype="str"), split=["reference"] * 2 + ["query"] * 3
    )
    return replace(catalog, frame=frame.assign(camera=pd.array([None] * 5, dtype="Int64")))


def test_each_query_searches_all_the_others(catalog: Catalog) -> None:
    made = _one_set(catalog)
    plan = plan_recognition(made, query_split="reference, query", protocol="leave_one_out")
    assert plan.leave_one_out
    assert (plan.references, len(plan.queries)) == ({}, 5)
    assert plan.describe().startswith("all the others (0 have")
    images = _embedded(plan.queries, _TURN)
    results = evaluate_references(plan, {}, images, FewShotProtocol(plan.shots))
    metrics = collect_metrics(plan, results, results)
    assert next(iter(metrics)) == "recall@1/micro"
    assert metrics["recall@1/micro"].value == pytest.approx(1 / 5)
    assert metrics["MAP@R/micro"].value == pytest.approx(0.2)
    assert metrics["chance/recall@1/micro"].value == pytest.approx((3 * 2 / 4 + 2 * 1 / 4) / 5)
    assert "colour_histogram/recall@1000/macro" in metrics
    shown = headline_rows({"ours": results}, "colour histogram")
    assert shown[["label", "value", "baseline"]].to_numpy().tolist() == [
        ["ours, all others", pytest.approx(0.2), False]
    ]
    curves = recall_curves(metrics, "ours")
    assert curves.groupby("series", sort=False)["rank"].agg(list).to_dict() == {
        series: [1, 10, 100, 1000] for series in ("ours", "colour histogram", "chance")
    }
    assert curves["baseline"].tolist() == [False] * 4 + [True] * 8
    hits = collect_hits(plan, results, plan.queries)
    assert list(hits) == ["recall@1/micro", "MAP@R/micro"]
    assert hits["recall@1/micro"].hit_DQ.tolist() == [[0, 0, 0, 1, 0]]
    (result,) = results.values()
    mistakes = frequent_confusions(result, plan.queries, plan.queries, 5)
    assert [(one.label, one.predicted, one.count, one.query.path.name) for one in mistakes] == [
        ("a", "b", 2, "0.jpg"),
        ("b", "a", 2, "1.jpg"),
    ]
    groups = compare_groups(made, plan.queries, result)
    assert groups is not None
    assert groups.table["group_accuracy"].tolist() == [1]
    assert richest_gallery({}, images)[0] == "all others"


def test_the_card_names_what_is_left_out(catalog: Catalog) -> None:
    made = _one_set(catalog)
    protocol = {
        "leave_one_out": ["reference", "query"],
        "recall_at": [1, 2, 4, 8],
        "reference_sets": ["reference:real"],
    }
    card = replace(read_card("grocery_store"), protocol=protocol | {"query_split": "query"})
    of_card = replace(made, cards={"set": card})
    plan = plan_recognition(of_card, protocol="")
    assert (len(plan.queries), plan.recall_at, plan.leave_one_out) == (5, (1, 2, 4, 8), True)
    assert len(plan_recognition(of_card, query_split="query", protocol="").queries) == 3
    # a gallery where one is asked for, and wherever a notebook knows nothing else
    assert not plan_recognition(of_card).leave_one_out
    assert not plan_recognition(of_card, protocol="gallery").leave_one_out
    assert not plan_recognition(of_card, "reference", protocol="").leave_one_out
    with pytest.raises(ValueError, match=r"no reference sets and no shots.*protocol=gallery"):
        plan_recognition(of_card, shots="1", protocol="")
    with pytest.raises(ValueError, match="give query_split"):
        plan_recognition(made, protocol="leave_one_out")


@pytest.mark.parametrize(
    ("name", "recall_at"), [("stanford_online_products", (1, 10, 100, 1000)), ("cub200", (1, 2, 4, 8))]
)
def test_sets_of_metric_learning_are_asked_as_their_numbers_are_published(
    catalog: Catalog, name: str, recall_at: tuple[int, ...]
) -> None:
    plan = plan_recognition(replace(_one_set(catalog), cards={"set": read_card(name)}), protocol="")
    assert (len(plan.queries), plan.recall_at, plan.leave_one_out) == (5, recall_at, True)


@pytest.mark.parametrize("fields", [{"vote": "prototype"}, {"queries_per_class": 2}, {"reference_augmentations": 3}])
def test_what_has_no_meaning_among_the_others_is_refused(catalog: Catalog, fields: dict[str, object]) -> None:
    plan = plan_recognition(_one_set(catalog), query_split="query", protocol="leave_one_out")
    with pytest.raises(ValueError, match="it wants vote=nearest, queries_per_class=None and reference_augmentations=0"):
        plan.check(FewShotProtocol(**fields))  # type: ignore[arg-type]
