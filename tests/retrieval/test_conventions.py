import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from workbench.retrieval import conventions
from workbench.retrieval.conventions import few_shot_conventions, reid_conventions
from workbench.retrieval.few_shot import FewShotProtocol, evaluate_few_shot
from workbench.retrieval.reid import evaluate_reid
from workbench.retrieval.reid_protocol import ReidProtocol
from workbench.retrieval.stats import paired_difference

PROTOCOL = FewShotProtocol(shots=(1, 4, "all"), headline_shots=4, draws=3, num_replicates=200)


def _cloud(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Eight labels of six references; the first has many queries, the others few."""
    rng = np.random.default_rng(seed)
    labels_n, labels_q = np.arange(8).repeat(6), np.repeat(np.arange(8), [60, *[9] * 7])
    centre = rng.normal(size=(8, 10))
    references = centre[labels_n] + 1.3 * rng.normal(size=(48, 10))
    return references, labels_n, centre[labels_q] + 1.3 * rng.normal(size=(len(labels_q), 10)), labels_q


def _by_name(table: pd.DataFrame, metric: str) -> dict[str, dict[Any, Any]]:
    return {row["convention"]: row for row in table[table["metric"] == metric].to_dict("records")}


def test_each_row_is_what_its_protocol_evaluates_to() -> None:
    data = _cloud()
    table = few_shot_conventions(*data, replace(PROTOCOL, queries_per_class=20))
    assert not table.duplicated(["convention", "metric"]).any()
    assert table["note"].eq("").all()
    head = replace(PROTOCOL, queries_per_class=20)
    cases = {
        "headline": (head, "micro", "accuracy"),
        "mean over labels (macro)": (head, "macro", "accuracy"),
        "image level": (head, "micro", "image_accuracy"),
        "all queries": (PROTOCOL, "micro", "accuracy"),
        **{
            f"vote {vote}": (replace(head, vote=vote), "micro", "accuracy")
            for vote in ("prototype", "kmeans:3", "knn:5", "softmax_knn:20")
        },
    }
    for top in (1, 5):
        rows = _by_name(table, f"accuracy@{top}")
        assert set(rows) == set(cases) - ({"image level"} if top == 1 else set())
        for name, row in rows.items():
            protocol, average, kind = cases[name]
            wanted = evaluate_few_shot(*data, protocol).metrics[f"{kind}@{top}/shots=4/{average}"]
            assert (row["value"], row["low"], row["high"]) == pytest.approx((wanted.value, wanted.low, wanted.high))
            assert row["n"] == wanted.n
            assert row["protocol"].startswith(protocol.describe(4))
            assert row["difference_points"] == pytest.approx(100 * (row["value"] - rows["headline"]["value"]))
            assert row["is_headline"] == (name == "headline")
    rows = _by_name(table, "accuracy@1")
    assert len({round(row["value"], 9) for row in rows.values()}) == len(rows)  # on these data every convention differs
    assert (rows["headline"]["n"], rows["all queries"]["n"]) == (20 + 7 * 9, 60 + 7 * 9)


def test_another_vote_is_paired_with_the_headline() -> None:
    data = _cloud()
    head = replace(PROTOCOL, queries_per_class=20)
    rows = _by_name(few_shot_conventions(*data, head), "accuracy@1")
    results = [evaluate_few_shot(*data, replace(head, vote=vote)) for vote in ("nearest", "knn:5")]
    before, after = (result.hits["accuracy@1/shots=4"] for result in results)
    wanted = paired_difference(after, before, results[0].hit_labels, num_replicates=200)
    row = rows["vote knn:5"]
    assert (row["difference_points"], row["difference_low"], row["difference_high"]) == pytest.approx(
        (100 * wanted.value, 100 * wanted.low, 100 * wanted.high)
    )
    assert np.isnan(rows["mean over labels (macro)"]["difference_low"])
    assert np.isnan(rows["all queries"]["difference_low"])


def test_with_one_reference_every_vote_says_the_same() -> None:
    table = few_shot_conventions(*_cloud(), FewShotProtocol(shots=(1,), draws=2, num_replicates=100))
    votes = table[table["convention"].str.startswith("vote")]
    assert len(votes) == 8
    assert votes["difference_points"].tolist() == [0] * 8
    assert votes["difference_low"].isna().all()  # the same answers: nothing to estimate


def test_macro_and_micro_by_hand() -> None:
    # Queries: three of a, right; one of b, wrong. References a at 0 degrees, b at 90.
    angles = np.deg2rad([0, 90, 1, 2, 3, 10])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    table = few_shot_conventions(
        rows[:2], ["a", "b"], rows[2:], ["a", "a", "a", "b"], FewShotProtocol(shots=("all",), num_replicates=100)
    )
    found = _by_name(table, "accuracy@1")
    assert found["headline"]["value"] == 0.75
    assert found["mean over labels (macro)"]["value"] == 0.5
    assert found["mean over labels (macro)"]["difference_points"] == -25
    assert found["at most 180 queries per label"]["difference_points"] == 0
    assert _by_name(table, "accuracy@5")["headline"]["value"] == 1  # two labels


def test_headline_vote_is_not_compared_with_itself() -> None:
    table = few_shot_conventions(*_cloud(), replace(PROTOCOL, vote="knn:5", draws=1))
    names = set(table["convention"])
    assert "vote nearest" in names
    assert "vote knn:5" not in names
    assert "image level" not in names  # only the nearest vote orders photographs


def test_absent_labels_are_told_not_swallowed() -> None:
    references, labels_n, queries, labels_q = _cloud()
    asked = np.where(labels_q == 3, 99, labels_q)
    data = (references, labels_n, queries, asked)
    rows = _by_name(few_shot_conventions(*data, PROTOCOL), "accuracy@1")
    assert set(rows) == {"headline", "absent labels left out", "absent labels count as wrong"}
    assert np.isnan(rows["headline"]["value"])
    assert rows["headline"]["n"] == 0
    assert rows["headline"]["note"].startswith("no number: 9 queries have a label without a reference, among them 99")
    assert rows["headline"]["note"].endswith("; 7 further conventions fail alike")
    left_out, wrong = rows["absent labels left out"], rows["absent labels count as wrong"]
    assert (left_out["n"], wrong["n"]) == (114, 123)
    assert wrong["value"] == pytest.approx(left_out["value"] * 114 / 123)
    assert np.isnan(left_out["difference_points"])
    assert "9 queries of absent labels not counted" in left_out["protocol"]
    assert "9 queries of absent labels count as wrong" in wrong["protocol"]

    for absent in ("skip", "open_set"):
        rows = _by_name(few_shot_conventions(*data, replace(PROTOCOL, absent_queries=absent)), "accuracy@1")
        assert len(rows) == 8
        assert rows["headline"]["value"] == pytest.approx(left_out["value"])
        assert rows["absent labels count as wrong"]["difference_points"] == pytest.approx(
            100 * (wrong["value"] - left_out["value"])
        )


def test_a_vote_costs_an_evaluation_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[FewShotProtocol] = []

    def watched(*arguments: Any) -> Any:
        asked.append(arguments[4])
        return evaluate_few_shot(*arguments)

    monkeypatch.setattr(conventions, "evaluate_few_shot", watched)
    few_shot_conventions(*_cloud(), replace(PROTOCOL, queries_per_class=20, draws=1))
    assert [one.vote for one in asked] == ["nearest", "prototype", "kmeans:3", "knn:5", "softmax_knn:20"]
    assert {one.shots for one in asked} == {(4,)}


def test_copies_follow_their_photograph() -> None:
    references, labels_n, queries, labels_q = _cloud()
    copies = np.concatenate([references, references + 0.1])
    source = np.tile(np.arange(48), 2)
    protocol = replace(PROTOCOL, reference_augmentations=1, draws=1)
    table = few_shot_conventions(copies, np.tile(labels_n, 2), queries, labels_q, protocol, source)
    wanted = evaluate_few_shot(copies, np.tile(labels_n, 2), queries, labels_q, protocol, source)
    assert table["value"][0] == pytest.approx(wanted.metrics["accuracy@1/shots=4/micro"].value)


def test_bad_input_is_an_error_and_no_table() -> None:
    references, labels_n, queries, labels_q = _cloud()
    with pytest.raises(ValueError, match="must have one width"):
        few_shot_conventions(references, labels_n, queries[:, :5], labels_q, PROTOCOL)
    with pytest.raises(ValueError, match="query_labels must have one label for each of 123 rows"):
        few_shot_conventions(references, labels_n, queries, labels_q[1:], PROTOCOL)
    with pytest.raises(ValueError, match="no query has a match"):
        reid_conventions(queries, references, labels_q + 100, labels_n, None, None, ReidProtocol(junk="none"))


# Re-identification


def _people() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of signs, which tie a lot; unequal numbers of queries; individual 0 only in its own camera."""
    rng = np.random.default_rng(4)
    signs = np.array(list(itertools.product([1.0, -1.0], repeat=6)))
    labels_q, labels_g = np.repeat(np.arange(6), [2, 9, 3, 3, 3, 3]), np.repeat(np.arange(7), 6)
    home = rng.integers(0, 64, 7)
    move = [0, 1, 2, 4, 8, 16, 32, 3, 5]
    query, gallery = (signs[home[labels] ^ rng.choice(move, len(labels))] for labels in (labels_q, labels_g))
    cameras_q, cameras_g = rng.integers(1, 4, len(labels_q)), rng.integers(1, 4, len(labels_g))
    cameras_q[labels_q == 0], cameras_g[labels_g == 0] = 1, 1
    return query, gallery, labels_q, labels_g, cameras_q, cameras_g


@pytest.mark.parametrize(
    "head",
    [
        ReidProtocol(),
        ReidProtocol(average_precision="trapezoid", unmatched="zero", average="identity", ties="pessimistic", far=()),
    ],
)
def test_each_search_is_what_its_protocol_evaluates_to(head: ReidProtocol) -> None:
    data = _people()
    rows = {metric: _by_name(reid_conventions(*data, head), metric) for metric in ("mAP", "rank-1")}
    other = {
        "step average precision": {"average_precision": "step"},
        "trapezoid average precision": {"average_precision": "trapezoid"},
        "ties expected": {"ties": "expected"},
        "ties threshold": {"ties": "threshold"},
        "ties optimistic": {"ties": "optimistic"},
        "ties pessimistic": {"ties": "pessimistic"},
        "queries without a match left out": {"unmatched": "skip"},
        "queries without a match count as 0": {"unmatched": "zero"},
        "mean over queries": {"average": "query"},
        "mean over individuals": {"average": "identity"},
        "no junk rule": {"junk": "none"},
    }
    changed: dict[str, ReidProtocol] = {name: replace(head, **fields) for name, fields in other.items()}  # type: ignore[arg-type]
    wanted = {"headline": head} | {name: protocol for name, protocol in changed.items() if protocol != head}
    for metric, found in rows.items():
        assert set(found) == set(wanted)
        assert len(found) == 8
        for name, row in found.items():
            number = evaluate_reid(*data, wanted[name]).metrics[metric]
            assert (row["value"], row["low"], row["high"], row["n"]) == pytest.approx(
                (number.value, number.low, number.high, number.n)
            )
            assert row["protocol"].startswith(wanted[name].describe())
            assert row["difference_points"] == pytest.approx(100 * (row["value"] - found["headline"]["value"]))
    assert len({round(row["value"], 9) for row in rows["mAP"].values()}) == 8  # every convention moves this mAP
    precision = next(name for name in rows["mAP"] if "precision" in name)
    assert rows["rank-1"][precision]["difference_points"] == 0  # and this one no rank-1


def test_no_match_left_is_a_row_that_says_so() -> None:
    query, gallery, labels_q, labels_g, _, _ = _people()
    one = np.ones(99, int)
    table = reid_conventions(query, gallery, labels_q, labels_g, one[: len(query)], one[: len(gallery)], ReidProtocol())
    rows = _by_name(table, "mAP")
    assert list(rows) == ["headline", "no junk rule"]
    assert rows["headline"]["note"].startswith("no number: no query has a match left: ")
    assert "; 6 further conventions fail alike" in rows["headline"]["note"]
    assert rows["no junk rule"]["value"] > 0
    assert np.isnan(rows["no junk rule"]["difference_points"])

    without = reid_conventions(query, gallery, labels_q, labels_g, None, None, ReidProtocol(junk="none"))
    rows = _by_name(without, "rank-1")
    assert len(rows) == 8
    assert rows["same camera is junk"]["note"].startswith("no number: query_cameras has no camera for")
    assert rows["same camera is junk"]["n"] == 0
    assert rows["headline"]["note"] == ""
