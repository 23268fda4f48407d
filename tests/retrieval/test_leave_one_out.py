"""Hand-worked places, all orders of ties in plain loops, and pytorch-metric-learning's calculator."""

from fractions import Fraction
from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

from workbench.retrieval import reid_ranking
from workbench.retrieval.leave_one_out import LeaveOneOutResult, chance_leave_one_out, evaluate_leave_one_out
from workbench.retrieval.leave_one_out_protocol import LeaveOneOutProtocol
from workbench.retrieval.stats import cluster_interval

FEW = LeaveOneOutProtocol(top=(1, 2, 4), num_replicates=100)
SKIP = LeaveOneOutProtocol(top=(1, 2, 4), absent_queries="skip", num_replicates=100)


def micro(result: LeaveOneOutResult) -> dict[str, float]:
    return {name.removesuffix("/micro"): one.value for name, one in result.metrics.items() if name.endswith("/micro")}


def circle(*degrees: float) -> np.ndarray:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def test_places_worked_by_hand() -> None:
    result = evaluate_leave_one_out(circle(0, 10, 25, 45, 70), list("abaab"), FEW)
    # from  0 a: 10 b, 25 a, 45 a, 70 b. R = 2: right at 2 and 3.
    # from 10 b:  0 a, 25 a, 45 a, 70 b. R = 1: right at 4.
    # from 25 a: 10 b (15), 45 a (20), 0 a (25), 70 b. R = 2: right at 2 and 3.
    # from 45 a: 25 a (20), 70 b (25), 10 b (35), 0 a (45). R = 2: right at 1 and 4.
    # from 70 b: 45 a, 25 a, 10 b, 0 a. R = 1: right at 3.
    assert micro(result) == pytest.approx(
        {
            "recall@1": 1 / 5,
            "recall@2": 3 / 5,
            "recall@4": 1,
            "R-precision": 1.5 / 5,
            "MAP@R": (1 / 4 + 1 / 4 + 1 / 2) / 5,
        }
    )
    assert result.metrics["recall@2/macro"].value == pytest.approx((1 + 0) / 2)
    assert list(result.metrics)[:3] == ["recall@1/micro", "recall@1/macro", "recall@2/micro"]
    assert result.predictions["predicted"].tolist() == list("babaa")
    assert result.predictions["reference"].tolist() == [1, 0, 1, 2, 3]
    assert result.predictions["similarity"].tolist() == pytest.approx(
        np.cos(np.deg2rad([10, 10, 15, 20, 25])), abs=1e-6
    )
    assert result.confusions[["label", "predicted", "count"]].to_numpy().tolist() == [["a", "b", 2], ["b", "a", 2]]
    assert result.per_class[["label", "num_queries", "num_references", "accuracy"]].to_numpy().tolist() == [
        ["b", 2, 1, 0.0],
        ["a", 3, 2, pytest.approx(1 / 3)],
    ]
    groups = result.group_mistakes({"a": "tins", "b": "tins"})
    assert groups.metrics["group_accuracy@1/shots=all/micro"].value == 1


def orders(similarity: list[Fraction], right: list[bool]) -> list[list[bool]]:
    """The marks of the rows in every order that has the nearest first."""
    rows = range(len(right))
    return [
        [right[row] for row in order]
        for order in permutations(rows)
        if all(similarity[one] >= similarity[two] for one, two in pairwise(order))
    ]


def plainly(marks: list[bool], top: tuple[int, ...]) -> list[Fraction]:
    num_right = sum(marks)
    recalls = [Fraction(any(marks[:k])) for k in top]
    at_r = sum((Fraction(sum(marks[: i + 1]), i + 1) for i in range(num_right) if marks[i]), Fraction(0)) / num_right
    return [*recalls, Fraction(sum(marks[:num_right]), num_right), at_r]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([(3, 4), (4, 3), (-3, 4), (5, 0)]), st.sampled_from("ab")), min_size=3, max_size=6
    )
)
def test_ties_are_the_mean_over_all_orders(rows: list[tuple[tuple[int, int], str]]) -> None:
    """Of Pythagorean directions, whose similarities are fractions: exact."""
    vectors, labels = [vector for vector, _ in rows], [label for _, label in rows]
    if max(map(labels.count, labels)) == 1:
        return
    means = []
    for row, (vector, label) in enumerate(rows):
        others = [place for place in range(len(rows)) if place != row]
        right = [labels[place] == label for place in others]
        if not any(right):
            continue
        similarity = [Fraction(vector[0] * vectors[place][0] + vector[1] * vectors[place][1], 25) for place in others]
        found = [plainly(marks, SKIP.top) for marks in orders(similarity, right)]
        means.append([sum(column) / len(found) for column in zip(*found, strict=True)])
    result = evaluate_leave_one_out(np.array(vectors, dtype=float), labels, SKIP)
    expected = [float(sum(column) / len(means)) for column in zip(*means, strict=True)]
    assert list(micro(result).values()) == pytest.approx(expected, abs=1e-6)
    chance = chance_leave_one_out(labels, SKIP)
    alike = evaluate_leave_one_out(np.ones((len(rows), 2)), labels, SKIP)
    for name, metric in alike.metrics.items():
        assert chance[f"chance/{name}"].value == pytest.approx(metric.value, abs=1e-9)
        assert chance[f"chance/{name}"].n == metric.n


def test_chance_worked_by_hand() -> None:
    chance = chance_leave_one_out(list("aaabb"), FEW)
    # a: 2 of 4 others, b: 1 of 4. None of two drawn: 2/4 * 1/3 for a, 3/4 * 2/3 for b.
    assert chance["chance/recall@1/micro"].value == pytest.approx((3 * 2 / 4 + 2 * 1 / 4) / 5)
    assert chance["chance/recall@2/macro"].value == pytest.approx(((1 - 1 / 6) + (1 - 1 / 2)) / 2)
    # MAP@R of a: right at both of the first two (1 of 6 orders) 1, at the first alone (2 of 6) 1/2, at the second alone 1/4.
    assert chance["chance/MAP@R/macro"].value == pytest.approx(((1 / 6 + 2 / 6 * 1 / 2 + 2 / 6 * 1 / 4) + 1 / 4) / 2)
    assert chance["chance/R-precision/macro"].value == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_pytorch_metric_learning_finds_the_same() -> None:
    """Its calculator leaves the query out where the references include it, and images alone under their label."""
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.repeat(np.arange(40), rng.integers(2, 12, 40)), [97, 98]])
    embedding_ND = (rng.normal(size=(100, 16))[labels] + 1.2 * rng.normal(size=(len(labels), 16))).astype(np.float32)
    order = rng.permutation(len(labels))
    labels, embedding_ND = labels[order], embedding_ND[order]
    unit_ND = torch.nn.functional.normalize(torch.from_numpy(embedding_ND))
    calculator = AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision_at_r"),
        k="max_bin_count",
        device=torch.device("cpu"),
    )
    theirs = calculator.get_accuracy(unit_ND, torch.from_numpy(labels), ref_includes_query=True)
    result = evaluate_leave_one_out(embedding_ND, labels, SKIP)
    ours = micro(result)
    assert 0.1 < ours["recall@1"] < 0.9
    assert ours["recall@1"] == pytest.approx(theirs["precision_at_1"], abs=1e-9)
    assert ours["R-precision"] == pytest.approx(theirs["r_precision"], abs=1e-9)
    assert ours["MAP@R"] == pytest.approx(theirs["mean_average_precision_at_r"], abs=1e-9)
    assert result.num_absent_queries == 2
    # Recall@K as the definition says it
    similarity = unit_ND.numpy() @ unit_ND.numpy().T
    np.fill_diagonal(similarity, -2)
    ranked = labels[np.argsort(-similarity, axis=1)]
    asked = labels < 90
    for k in SKIP.top:
        assert ours[f"recall@{k}"] == pytest.approx((ranked[:, :k] == labels[:, None]).any(axis=1)[asked].mean())
    line = result.metrics["recall@1/micro"]
    wanted = cluster_interval(result.hits["recall@1"], result.hit_labels, num_replicates=100)
    assert (line.low, line.high, line.n) == pytest.approx((wanted.low, wanted.high, wanted.n))


def test_an_image_is_left_out_by_its_row_and_its_copy_is_found() -> None:
    eye = np.eye(4)
    assert micro(evaluate_leave_one_out(eye[[0, 0, 1, 1]], list("aabb"), FEW))["recall@1"] == 1
    # the copy has the other label; of the two others, equally far, one is right
    found = micro(evaluate_leave_one_out(eye[[0, 1, 0, 1]], list("aabb"), FEW))
    assert (found["recall@1"], found["recall@2"], found["MAP@R"]) == (0, 0.5, 0)


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_the_order_of_the_images_and_the_blocks_do_not_matter(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    embedding_ND, labels = rng.integers(-2, 3, (60, 3)) + 0.5, rng.integers(0, 9, 60)
    first = evaluate_leave_one_out(embedding_ND, labels, SKIP)
    monkeypatch.setattr(reid_ranking, "_BLOCK_BYTES", 1)
    monkeypatch.setattr(reid_ranking, "_FEWEST_ROWS", 7)
    order = rng.permutation(60)
    second = evaluate_leave_one_out(scale * embedding_ND[order], labels[order], SKIP)
    assert micro(second) == pytest.approx(micro(first), abs=1e-9)
    back = second.predictions.assign(query=order[second.predictions["query"]]).sort_values("query", ignore_index=True)
    assert back["predicted"].tolist() == first.predictions["predicted"].tolist()
    groups = {str(label): str(label // 3) for label in range(9)}
    one, two = (result.group_mistakes(groups).metrics for result in (first, second))
    assert {name: metric.value for name, metric in one.items()} == pytest.approx(
        {name: metric.value for name, metric in two.items()}
    )


def test_a_set_smaller_than_k_and_labels_as_text() -> None:
    result = evaluate_leave_one_out(circle(0, 5, 40, 50), ["007", "007", "7", "7"])
    assert micro(result)["recall@1000"] == 1
    assert sorted(result.hit_labels) == ["007", "007", "7", "7"]


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        (3, "abc", "no label has two images"),
        (3, "aab", "1 of 3 images are alone under their label, such as b.*skip"),
        (2, "aab", "labels"),
    ],
)
def test_what_cannot_be_asked_is_named(rows: int, labels: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_leave_one_out(np.eye(3)[:rows], list(labels))


@pytest.mark.parametrize("fields", [{"top": (5,)}, {"top": (1, 1)}, {"top": ()}, {"absent_queries": "open_set"}])
def test_a_protocol_refuses_what_there_is_not(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        LeaveOneOutProtocol(**fields)  # type: ignore[arg-type]
