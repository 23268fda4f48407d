import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from workbench.retrieval.draws import choose_queries, draw_ranks
from workbench.retrieval.few_shot import FewShotProtocol, FewShotResult, evaluate_few_shot
from workbench.retrieval.stats import paired_difference
from workbench.retrieval.votes import class_centres

SIGNS = np.array(list(itertools.product([1.0, -1.0], repeat=4)))  # length 2: similarities are exactly -1, -.5, 0, .5, 1
signs = st.integers(0, 15)


def _gallery_of(similarity_QR: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """References and queries (unit vectors) with these similarities."""
    num_queries, num_references = similarity_QR.shape
    own = np.diag(np.sqrt(1 - (similarity_QR**2).sum(axis=0)))
    return np.hstack([similarity_QR.T, own]), np.eye(num_queries, num_queries + num_references)


def _values(result: FewShotResult) -> dict[str, float]:
    return {name: metric.value for name, metric in result.metrics.items()}


def _cloud(classes: int, references: int, queries: int, noise: float, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(classes, 12))
    labels_N, labels_Q = np.repeat(np.arange(classes), references), np.repeat(np.arange(classes), queries)

    def draw(labels: np.ndarray) -> np.ndarray:
        return centre[labels] + noise * rng.normal(size=(len(labels), 12))

    return draw(labels_N), labels_N, draw(labels_Q), labels_Q


# Worked by hand


def test_three_labels_by_hand() -> None:
    # References a a b c; queries a, b, c, c. Nearest: a (0.6), b and c tie (0.5), a (0.4), c (0.7).
    similarity_QR = np.array([[0.1, 0.6, 0.2, 0.3], [0.0, 0.1, 0.5, 0.5], [0.4, 0.1, 0.1, 0.3], [0.1, 0.2, 0.3, 0.7]])
    references, queries = _gallery_of(similarity_QR)
    protocol = FewShotProtocol(shots=("all",), top=(1, 2))
    result = evaluate_few_shot(references, ["a", "a", "b", "c"], queries, ["a", "b", "c", "c"], protocol)
    values = _values(result)
    assert values["accuracy@1/shots=all/micro"] == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert values["accuracy@1/shots=all/macro"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert values["accuracy@2/shots=all/micro"] == 1
    assert values["image_accuracy@2/shots=all/micro"] == 1
    table = result.predictions
    assert table["predicted"].tolist() == ["a", "b", "a", "c"]  # where b and c tie the first by label stands for both
    assert table["correct"].tolist() == [1, 0.5, 0, 1]
    assert table["second_label"].tolist() == ["c", "c", "c", "b"]
    assert table["similarity"].to_numpy() == pytest.approx([0.6, 0.5, 0.4, 0.7])
    assert table["second_similarity"].to_numpy() == pytest.approx([0.3, 0.5, 0.3, 0.3])
    assert table["reference"].tolist() == [1, 2, 0, 3]
    assert result.confusions.to_dict("records") == [
        {"label": "c", "predicted": "a", "count": 1, "share": 0.5, "query": 2, "reference": 0}
    ]
    per_class = result.per_class.set_index("label")
    assert per_class["accuracy"].to_dict() == {"b": 0.5, "c": 0.5, "a": 1.0}
    assert per_class["num_references"].to_dict() == {"a": 2, "b": 1, "c": 1}
    assert per_class.loc["c", "most_confused_with"] == "a"
    assert result.per_class.set_index("label")["most_confused_with"].isna().to_dict()["a"]


def test_macro_top_k_at_class_level_and_at_image_level() -> None:
    # Truth 0 0 0 1 1 2; the first three references of each query are labelled [0 1 2] [1 0 0] [2 1 1] [1 1 1] [0 0 1] [2 0 0].
    # Label 3 stands fourth for the third query, so that its third label is not 0.
    labels = np.array([0, 0, 1, 1, 1, 2, 3])
    ranked = [[0, 2, 5], [2, 0, 1], [5, 2, 3, 6], [2, 3, 4], [0, 1, 2], [5, 0, 1]]
    similarity_QR = np.zeros((6, 7))
    for query, order in enumerate(ranked):
        similarity_QR[query, order] = [0.3, 0.25, 0.2, 0.15][: len(order)]
    references, queries = _gallery_of(similarity_QR)
    protocol = FewShotProtocol(shots=("all",), top=(1, 2, 3))
    values = _values(evaluate_few_shot(references, labels, queries, [0, 0, 0, 1, 1, 2], protocol))
    assert [round(values[f"accuracy@{k}/shots=all/macro"], 6) for k in (1, 2, 3)] == [0.611111, 0.888889, 0.888889]
    image = [values["accuracy@1/shots=all/macro"], *(values[f"image_accuracy@{k}/shots=all/macro"] for k in (2, 3))]
    assert [round(value, 6) for value in image] == [0.611111, 0.722222, 0.888889]


def test_prototype_is_the_mean_and_forgets_the_outlier() -> None:
    references = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.96, -0.28]])
    query, labels = np.array([[0.8, -0.6]]), ["a", "a", "b", "b"]
    nearest = evaluate_few_shot(references, labels, query, ["b"], FewShotProtocol(shots=("all",)))
    prototype = evaluate_few_shot(references, labels, query, ["b"], FewShotProtocol(shots=("all",), vote="prototype"))
    assert nearest.predictions["predicted"].tolist() == ["b"]
    # The means point to (3, 1) and (4, 3): similarities (0.8 * 3 - 0.6) / sqrt(10) and (0.8 * 4 - 0.6 * 3) / 5.
    assert prototype.predictions["predicted"].tolist() == ["a"]
    assert prototype.predictions["similarity"].to_numpy() == pytest.approx([1.8 / math.sqrt(10)])
    assert prototype.predictions["second_similarity"].to_numpy() == pytest.approx([0.28])
    assert "image_accuracy@5/shots=all/micro" not in prototype.metrics


def test_opposite_references_have_a_centre_without_direction() -> None:
    references = np.array([[1.0, 0], [-1, 0], [-1, 0.1]])
    protocol = FewShotProtocol(shots=("all",), vote="prototype")
    result = evaluate_few_shot(references, ["a", "a", "b"], np.array([[1.0, 0]]), ["a"], protocol)
    assert result.predictions[["predicted", "similarity"]].to_numpy().tolist() == [["a", 0.0]]


# Plain loops


def _share_of_orders(
    values: list[Any], right: Callable[[int], bool], top: int, distinct: int | None = None
) -> Fraction:
    """Share of all orders of what ties, sorted by falling value, that have a right one among the first `top`."""
    orders = list(itertools.permutations(range(len(values))))
    hits = 0
    for order in orders:
        ranked = sorted(order, key=lambda item: values[item], reverse=True)
        hits += any(right(item) for item in ranked[:top])
    return Fraction(hits, len(orders))


def _class_values(vote: str, similarity: list[float], labels: list[str], names: list[str]) -> list[Any]:
    best = [max(s for s, name in zip(similarity, labels, strict=True) if name == wanted) for wanted in names]
    if vote == "nearest":
        return best
    k = min(int(vote.split(":")[1]), len(labels))
    last = sorted(similarity, reverse=True)[k - 1]
    ahead = sum(s > last for s in similarity)
    part = Fraction(k - ahead, sum(s == last for s in similarity))
    votes = []
    for wanted, nearest in zip(names, best, strict=True):
        own = [s for s, name in zip(similarity, labels, strict=True) if name == wanted]
        shares = [(s, Fraction(1) if s > last else part) for s in own if s >= last]
        if vote.startswith("softmax"):
            weight = sum(float(share) * math.exp((s - max(similarity)) / 0.07) for s, share in shares)
            votes.append((round(weight, 11), nearest))  # finer than exp(-1.5 / 0.07), the least that counts
        else:
            votes.append((float(sum(share for _, share in shares)), nearest))
    return votes


@settings(max_examples=150, deadline=None)
@given(
    references=st.lists(st.tuples(st.sampled_from("abc"), signs), min_size=1, max_size=5),
    queries=st.lists(st.tuples(st.integers(0, 9), signs), min_size=1, max_size=4),
    vote=st.sampled_from(["nearest", "knn:1", "knn:2", "knn:3", "softmax_knn:2", "softmax_knn:9"]),
    seed=st.integers(0, 3),
)
@example([("a", 0), ("a", 7), ("b", 0)], [(0, 0)], "softmax_knn:9", 0)  # the far one's weight, 5e-10, decides
def test_equals_plain_loops_with_ties_and_duplicates(
    references: list[tuple[str, int]], queries: list[tuple[int, int]], vote: str, seed: int
) -> None:
    labels = [label for label, _ in references]
    names = sorted(set(labels))
    truth = [names[number % len(names)] for number, _ in queries]
    reference_ND, query_ND = SIGNS[[row for _, row in references]], SIGNS[[row for _, row in queries]]
    protocol = FewShotProtocol(shots=(1, 2, "all"), draws=2, seed=seed, vote=vote, top=(1, 2))
    result = evaluate_few_shot(reference_ND, labels, query_ND, truth, protocol)

    photo_rows = [row for name in names for row, label in enumerate(labels) if label == name]
    class_P = np.array([names.index(labels[row]) for row in photo_rows])
    rank_DP = draw_ranks(class_P, np.array(names, dtype=object), 2, seed)
    for (shots, limit), draw in itertools.product({"1": 1, "2": 2, "all": 99}.items(), (0, 1)):
        if shots == "all" and draw:
            continue
        rows = [row for row, rank in zip(photo_rows, rank_DP[draw], strict=True) if rank < limit]
        kept = [labels[row] for row in rows]
        for query, wanted in enumerate(truth):
            similarity = [float(reference_ND[row] @ query_ND[query]) / 4 for row in rows]
            values = _class_values(vote, similarity, kept, names)
            for top in (1, 2):
                expected = _share_of_orders(values, lambda item: names[item] == wanted, top)  # noqa: B023
                found = result.hits[f"accuracy@{top}/shots={shots}"][draw, query]
                assert found == pytest.approx(float(expected), abs=1e-6)
            if vote == "nearest":
                expected = _share_of_orders(similarity, lambda item: kept[item] == wanted, 2)  # noqa: B023
                found = result.hits[f"image_accuracy@2/shots={shots}"][draw, query]
                assert found == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("noise", [0.3, 1.2, 2.5])
def test_all_references_equal_scikit_learns_nearest_neighbour(noise: float) -> None:
    references, labels, queries, truth = _cloud(15, 7, 20, noise)
    unit_N = references / np.linalg.norm(references, axis=1, keepdims=True)
    unit_Q = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    found = KNeighborsClassifier(1).fit(unit_N, labels).predict(unit_Q)
    result = evaluate_few_shot(references, labels, queries, truth, FewShotProtocol(shots=("all",)))
    assert result.predictions["predicted"].tolist() == [str(label) for label in found]
    assert result.metrics["accuracy@1/shots=all/micro"].value == pytest.approx((found == truth).mean())
    weigh = KNeighborsClassifier(9, weights=lambda distance: np.exp(-(distance**2) / (2 * 0.07)))
    found = weigh.fit(unit_N, labels).predict(unit_Q)
    protocol = FewShotProtocol(shots=("all",), vote="softmax_knn:9")
    result = evaluate_few_shot(references, labels, queries, truth, protocol)
    assert result.predictions["predicted"].tolist() == [str(label) for label in found]


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    references, labels, queries, truth = _cloud(6, 5, 9, 1.5)
    for vote in ("nearest", "prototype", "knn:3", "softmax_knn:3"):
        protocol = FewShotProtocol(shots=(1, 3, "all"), draws=2, vote=vote)
        whole = evaluate_few_shot(references, labels, queries, truth, protocol)
        with monkeypatch.context() as patch:
            patch.setattr("workbench.retrieval.sweep._CELLS_A_CHUNK", 7 * len(references))
            parts = evaluate_few_shot(references, labels, queries, truth, protocol)
        assert _values(parts) == pytest.approx(_values(whole))
        pd.testing.assert_frame_equal(parts.predictions, whole.predictions)


def test_two_looks_of_a_label_need_two_centres() -> None:
    rng = np.random.default_rng(0)
    looks = np.array([[1.0, 0.0, 0.0], [-0.9, 0.43, 0.0]])
    references = np.vstack([np.repeat(looks, 6, axis=0), np.tile([0.0, 0.6, 0.8], (12, 1))])
    references += 0.02 * rng.normal(size=references.shape)
    labels = np.repeat(["a", "b"], 12)
    centre_MD, class_M = class_centres(references.astype(np.float32), np.repeat([0, 1], 12), 2, seed=0)
    assert class_M.tolist() == [0, 0, 1, 1]
    means = np.stack([references[:6].mean(axis=0), references[6:12].mean(axis=0)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    assert sorted(centre_MD[:2].tolist()) == [pytest.approx(row, abs=1e-5) for row in sorted(means.tolist())]
    queries, truth = np.array([[1.0, 0.1, 0.1], [-0.9, 0.4, 0.1], [0, 0.6, 0.7]]), ["a", "a", "b"]
    accuracy = {}
    for vote in ("prototype", "kmeans:2", "kmeans:99", "nearest"):
        protocol = FewShotProtocol(shots=("all",), vote=vote)
        result = evaluate_few_shot(references, labels, queries, truth, protocol)
        accuracy[vote] = result.metrics["accuracy@1/shots=all/micro"].value
    assert accuracy == {"prototype": pytest.approx(2 / 3), "kmeans:2": 1, "kmeans:99": 1, "nearest": 1}


# Draws


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 1000))
def test_each_draw_is_an_order_of_each_label_that_others_do_not_touch(sizes: list[int], seed: int) -> None:
    class_P, names = np.repeat(np.arange(len(sizes)), sizes), np.array(list("abcde")[: len(sizes)], dtype=object)
    rank_DP = draw_ranks(class_P, names, 3, seed)
    for index, size in enumerate(sizes):
        assert (np.sort(rank_DP[:, class_P == index], axis=1) == np.arange(size)).all()
        alone = draw_ranks(np.zeros(size, np.int64), names[[index]], 2, seed)
        assert (alone == rank_DP[:2, class_P == index]).all()  # neither other labels nor more draws change it


def test_draws_differ_and_every_photograph_comes_first_equally_often() -> None:
    rank_DP = draw_ranks(np.repeat([0, 1], 4), np.array(["a", "b"], dtype=object), 4000, 0)
    assert (rank_DP == 0).mean(axis=0) == pytest.approx(0.25, abs=0.03)  # four standard errors
    same = (rank_DP[:, :4] == rank_DP[:, 4:]).all(axis=1).mean()
    assert same == pytest.approx(1 / 24, abs=0.013)  # labels are drawn independently of each other


def test_galleries_are_nested_so_a_nearest_own_reference_only_comes_nearer() -> None:
    references, labels, queries, truth = _cloud(1, 9, 30, 1.0)
    seen = []
    for shots in (1, 2, 4, 9, 20, "all"):
        protocol = FewShotProtocol(shots=(shots,), draws=4, seed=3)
        seen.append(
            evaluate_few_shot(references, labels, queries, truth, protocol).predictions["similarity"].to_numpy()
        )
    assert all((later >= earlier).all() for earlier, later in itertools.pairwise(seen))
    assert (seen[0] < seen[3]).any()
    assert (seen[3] == seen[4]).all()  # more shots than references
    assert (seen[4] == seen[5]).all()


def test_all_shots_need_no_draw() -> None:
    references, labels, queries, truth = _cloud(8, 5, 6, 2.0)
    results = [
        evaluate_few_shot(references, labels, queries, truth, FewShotProtocol(shots=(2, 5, "all"), draws=n, seed=n))
        for n in (1, 6)
    ]
    assert _values(results[0])["accuracy@1/shots=all/micro"] == _values(results[1])["accuracy@1/shots=all/micro"]
    for result in results:
        assert (result.hits["accuracy@1/shots=5"] == result.hits["accuracy@1/shots=all"][0]).all()
        assert result.hits["accuracy@1/shots=all"].shape == (1, 48)


@pytest.mark.parametrize("vote", ["nearest", "prototype", "knn:3"])
def test_order_of_rows_and_of_queries_changes_nothing(vote: str) -> None:
    references, labels, queries, truth = _cloud(7, 6, 8, 2.0)
    protocol = FewShotProtocol(shots=(1, 3, "all"), draws=3, vote=vote)
    source = np.arange(len(labels)) * 3 + 5
    rng = np.random.default_rng(5)
    rows, asked = rng.permutation(len(labels)), rng.permutation(len(truth))
    plain = evaluate_few_shot(references, labels, queries, truth, protocol, source)
    turned = evaluate_few_shot(references[rows], labels[rows], queries[asked], truth[asked], protocol, source[rows])
    assert _values(turned) == pytest.approx(_values(plain))
    for name, values in plain.hits.items():
        assert (turned.hits[name] == values[:, asked]).all()
    again = evaluate_few_shot(references[rows], labels[rows], queries, truth, protocol)
    assert (again.hits["accuracy@1/shots=all"] == plain.hits["accuracy@1/shots=all"]).all()


def test_equal_numbers_of_queries_make_macro_equal_micro() -> None:
    references, labels, queries, truth = _cloud(9, 4, 7, 2.0)
    protocol = FewShotProtocol(shots=(1, "all"), draws=3)
    values = _values(evaluate_few_shot(references, labels, queries, truth, protocol))
    for name in (name for name in values if name.endswith("micro")):
        assert values[name] == pytest.approx(values[name.replace("micro", "macro")])
    assert values["accuracy@5/shots=1/micro"] >= values["accuracy@1/shots=1/micro"]
    assert values["accuracy@5/shots=all/micro"] >= values["image_accuracy@5/shots=all/micro"]


def test_short_classes_keep_what_they_have_and_are_counted() -> None:
    references, labels, queries, truth = _cloud(3, 4, 5, 1.0)
    keep = [0, 1, 2, 3, 4, 5, 8]
    protocol = FewShotProtocol(shots=(1, 2, 3, 50, "all"), draws=2)
    result = evaluate_few_shot(references[keep], labels[keep], queries, truth, protocol)
    assert result.num_short_classes == {"1": 0, "2": 1, "3": 2, "50": 3, "all": 0}
    assert "3 labels, 2 of them with fewer than 3 references" in result.metrics["accuracy@1/shots=3/micro"].protocol
    assert (result.hits["accuracy@1/shots=50"][0] == result.hits["accuracy@1/shots=all"][0]).all()


# Augmented copies, chosen queries, absent labels


def test_copies_follow_their_photograph_and_the_nearest_of_them_counts() -> None:
    references, labels, queries, truth = _cloud(5, 4, 6, 2.0)
    rng = np.random.default_rng(2)
    worse = rng.normal(size=references.shape)
    source = np.arange(20)
    protocol = FewShotProtocol(shots=(1, 2, "all"), draws=3, reference_augmentations=1)
    both, both_labels = np.vstack([references, references]), np.r_[labels, labels]
    plain = evaluate_few_shot(references, labels, queries, truth, FewShotProtocol(shots=(1, 2, "all"), draws=3), source)
    same = evaluate_few_shot(both, both_labels, queries, truth, protocol, np.r_[source, source])
    assert all((same.hits[name] == values).all() for name, values in plain.hits.items())
    mixed = evaluate_few_shot(
        np.vstack([worse, references]), both_labels, queries, truth, protocol, np.r_[source, source]
    )
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (references, worse, queries)]
    photo_QP = np.maximum(unit[2] @ unit[0].T, unit[2] @ unit[1].T)
    found = labels[photo_QP.argmax(axis=1)]
    assert mixed.metrics["accuracy@1/shots=all/micro"].value == pytest.approx((found == truth).mean())
    assert "1 augmented copies" in mixed.metrics["accuracy@1/shots=1/micro"].protocol


def test_queries_per_class_are_a_seeded_choice() -> None:
    labels = np.array(["b", "a", "b", "b", "a", "b"] * 5, dtype=object)
    rows = choose_queries(labels, 4, 0)
    assert {label: int((labels[rows] == label).sum()) for label in "ab"} == {"a": 4, "b": 4}
    assert (rows == choose_queries(labels, 4, 0)).all()
    assert (rows != choose_queries(labels, 4, 1)).any()
    assert (choose_queries(labels, 100, 0) == np.arange(30)).all()
    references, names, queries, truth = _cloud(4, 3, 9, 1.0)
    result = evaluate_few_shot(references, names, queries, truth, FewShotProtocol(queries_per_class=2))
    assert result.per_class["num_queries"].tolist() == [2, 2, 2, 2]
    assert result.metrics["accuracy@1/shots=1/micro"].n == 8
    assert [str(label) for label in truth[result.predictions["query"]]] == result.predictions["label"].tolist()


def test_absent_labels_are_an_error_are_skipped_or_kept_for_the_open_set() -> None:
    references, labels, queries, truth = _cloud(5, 3, 4, 1.0)
    known = labels < 4
    with pytest.raises(ValueError, match=r"4 queries .* among them 4: add references"):
        evaluate_few_shot(references[known], labels[known], queries, truth, FewShotProtocol())
    results = {}
    for choice in ("skip", "open_set"):
        protocol = FewShotProtocol(absent_queries="skip" if choice == "skip" else "open_set", draws=2)
        results[choice] = evaluate_few_shot(references[known], labels[known], queries, truth, protocol)
        assert results[choice].num_absent_queries == 4
        assert "4 queries of absent labels not counted" in results[choice].metrics["accuracy@1/shots=1/micro"].protocol
    skip, kept = results["skip"], results["open_set"]
    assert _values(skip) == _values(kept)
    assert skip.metrics["accuracy@1/shots=1/micro"].n == 16
    assert len(skip.predictions) == 16
    assert len(kept.predictions) == 20
    absent = kept.predictions[kept.predictions["absent"]]
    assert absent["label"].tolist() == ["4"] * 4
    assert absent["correct"].isna().all()
    assert np.isfinite(absent[["similarity", "second_similarity"]].to_numpy()).all()
    assert (absent["similarity"] >= absent["second_similarity"]).all()
    assert "4" not in kept.confusions["label"].tolist()
    assert kept.hit_labels.tolist() == [str(label) for label in truth[:16]]
    groups = {str(label): "even" if label % 2 == 0 else "odd" for label in range(4)}
    assert kept.group_mistakes(groups).metrics == {
        name: type(metric)(metric.value, metric.low, metric.high, metric.n, metric.protocol.replace("skipped", "kept for "
        "the open set, not in the accuracy"))
        for name, metric in skip.group_mistakes(groups).metrics.items()
    }  # fmt: skip


# Mistakes


def test_mistakes_within_a_group_by_hand() -> None:
    # cola and lemonade are drinks. Cola is taken for lemonade once; soap is taken for cola once; one of lemonade ties all three.
    similarity_QR = np.array(
        [[0.6, 0.2, 0.1], [0.2, 0.6, 0.1], [0.1, 0.6, 0.0], [0.3, 0.3, 0.3], [0.5, 0.1, 0.4], [0.1, 0.1, 0.5]]
    )
    references, queries = _gallery_of(similarity_QR)
    truth = ["cola", "cola", "lemonade", "lemonade", "soap", "soap"]
    result = evaluate_few_shot(
        references, ["cola", "lemonade", "soap"], queries, truth, FewShotProtocol(shots=("all",))
    )
    assert result.metrics["accuracy@1/shots=all/micro"].value == pytest.approx((1 + 0 + 1 + 1 / 3 + 0 + 1) / 6)
    found = result.group_mistakes({"cola": "drink", "lemonade": "drink", "soap": "care"})
    right = (1 + 1 + 1 + 2 / 3 + 0 + 1) / 6
    assert found.metrics["group_accuracy@1/shots=all/micro"].value == pytest.approx(right)
    assert found.metrics["group_accuracy@1/shots=all/macro"].value == pytest.approx(right)
    within = found.metrics["mistakes_within_group/shots=all"]
    assert within.value == pytest.approx((1 + 1 / 3) / (1 + 2 / 3 + 1))
    assert within.n == 3
    table = found.table.set_index("group")
    assert table[["num_labels", "num_queries"]].to_numpy().tolist() == [[1, 2], [2, 4]]  # care, drink
    assert table["within_share"].to_dict() == pytest.approx({"care": 0.0, "drink": (4 / 3) / (5 / 3)})
    with pytest.raises(ValueError, match="1 have none, among them soap"):
        result.group_mistakes({"cola": "drink", "lemonade": "drink"})


def test_no_mistake_leaves_empty_tables() -> None:
    result = evaluate_few_shot(np.eye(3), list("abc"), np.eye(3), list("abc"), FewShotProtocol())
    assert result.confusions.empty
    assert list(result.confusions.columns) == ["label", "predicted", "count", "share", "query", "reference"]
    found = result.group_mistakes(dict.fromkeys("abc", "all"))
    assert "mistakes_within_group/shots=1" not in found.metrics
    assert found.table["within_share"].isna().all()
    metric = result.metrics["accuracy@1/shots=1/micro"]
    assert (metric.value, metric.high) == (1, 1)
    assert 0 < metric.low < 0.5  # three right of three labels prove little


def test_confusions_agree_with_predictions_and_point_to_pictures() -> None:
    references, labels, queries, truth = _cloud(6, 4, 15, 3.0)
    result = evaluate_few_shot(references, labels, queries, truth, FewShotProtocol(shots=(2,), draws=2))
    wrong = result.predictions[result.predictions["label"] != result.predictions["predicted"]]
    assert result.confusions["count"].sum() == len(wrong)
    assert result.confusions["count"].is_monotonic_decreasing
    for row in result.confusions.to_dict("records"):
        assert str(truth[row["query"]]) == row["label"]
        assert str(labels[row["reference"]]) == row["predicted"]
        assert row["share"] == pytest.approx(row["count"] / 15)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (references, queries)]
    pairs = (unit[1] * unit[0][result.predictions["reference"]]).sum(axis=1)
    assert pairs == pytest.approx(result.predictions["similarity"].to_numpy(), abs=1e-6)
    assert result.per_class["accuracy"].mean() == pytest.approx(result.metrics["accuracy@1/shots=2/macro"].value)


def test_two_models_are_compared_on_the_same_queries_and_draws() -> None:
    references, labels, queries, truth = _cloud(20, 5, 10, 1.0)
    protocol = FewShotProtocol(shots=(1,), draws=4)
    good = evaluate_few_shot(references, labels, queries, truth, protocol)
    bad = evaluate_few_shot(references[:, :5], labels, queries[:, :5], truth, protocol)
    found = paired_difference(good.hits["accuracy@1/shots=1"], bad.hits["accuracy@1/shots=1"], good.hit_labels)
    values = [result.metrics["accuracy@1/shots=1/micro"].value for result in (good, bad)]
    assert found.value == pytest.approx(values[0] - values[1], abs=1e-6)
    assert found.low > 0


# Labels and refusals


def test_labels_are_text_and_long_numbers_stay_apart() -> None:
    references = np.eye(6)
    labels = np.array([16777216, 16777217, "007", "7", "4006381333931", "4006381333932"], dtype=object)
    result = evaluate_few_shot(references, labels, references, labels, FewShotProtocol(shots=("all",)))
    assert result.metrics["accuracy@1/shots=all/micro"].value == 1
    assert result.predictions["predicted"].tolist() == [str(label) for label in labels]


@pytest.mark.parametrize("size", [3, 5, 7, 37])
@pytest.mark.parametrize("num_queries", [1, 2, 3])
def test_one_photograph_under_two_labels_ties_at_any_size(size: int, num_queries: int) -> None:
    # A matrix product rounds its last rows differently, so that equal references would not tie by themselves.
    for seed in range(5):
        references = np.random.default_rng(seed).normal(size=(size, 1000))
        labels = np.array([f"{side}{row:02d}" for side in "ab" for row in range(size)])
        asked = slice(size - num_queries, size)
        protocol = FewShotProtocol(shots=("all",), top=(1, 2))
        both = np.vstack([references, references])
        result = evaluate_few_shot(both, labels, references[asked], labels[asked], protocol)
        assert (result.hits["accuracy@1/shots=all"] == 0.5).all()
        assert (result.hits["accuracy@2/shots=all"] == 1).all()


def test_the_protocol_is_one_line_with_every_convention() -> None:
    protocol = FewShotProtocol(
        shots=(1, 5, "all"), draws=3, seed=9, vote="softmax_knn:20", queries_per_class=180, reference_domain="synthetic"
    )
    line = protocol.describe(5)
    assert "\n" not in line
    for words in (
        "5 references per label", "mean of 3 nested draws (seed 9)", "softmax_knn:20 (temperature 0.07)", "cosine",
        "references synthetic", "queries real", "at most 180 queries per label", "0 augmented copies", "is an error",
    ):  # fmt: skip
        assert words in line
    assert "no draw" in protocol.describe("all")
    assert "seed" not in protocol.describe("all")
    assert "shots 1, 5, all" in protocol.describe()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shots": ()}, "shots must be ascending"),
        ({"shots": (5, 1)}, "shots must be ascending"),
        ({"shots": (1, 1)}, "shots must be ascending"),
        ({"shots": ("all", 1)}, "shots must be a tuple of whole numbers"),
        ({"shots": (0,)}, "shots must be a tuple of whole numbers"),
        ({"shots": [1]}, "shots must be a tuple"),
        ({"draws": 0}, "draws must be a whole number of at least 1"),
        ({"draws": True}, "draws must be a whole number"),
        ({"seed": -1}, "seed must be"),
        ({"vote": "median"}, "vote must be one of nearest, prototype"),
        ({"vote": "knn"}, "vote must be one of"),
        ({"vote": "knn:0"}, "vote must be one of"),
        ({"queries_per_class": 0}, "queries_per_class must be"),
        ({"reference_augmentations": -1}, "reference_augmentations must be"),
        ({"absent_queries": "drop"}, "absent_queries must be one of error, skip, open_set"),
        ({"reference_domain": ""}, "reference_domain must be a word"),
        ({"metric": "l1"}, 'metric must be "cosine"'),
        ({"top": (5,)}, "top must be ascending and begin with 1"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"headline_shots": 3}, "headline_shots must be one of shots"),
    ],
)
def test_a_protocol_without_meaning_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FewShotProtocol(**wrong)


def _with(rows: np.ndarray, row: int, value: float) -> np.ndarray:
    changed = rows.copy()
    changed[row] = value
    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference_ND": np.empty((0, 3)), "reference_labels": []}, "reference_ND is empty"),
        ({"query_ND": np.empty((0, 3)), "query_labels": []}, "query_ND is empty"),
        ({"query_ND": np.ones((3, 4))}, "one width, found 3 and 4"),
        ({"reference_ND": np.ones(3)}, "two axes"),
        ({"reference_ND": np.full((3, 3), "x")}, "real numbers"),
        ({"reference_ND": _with(np.eye(3), 1, np.nan)}, "row 1 of reference_ND is not finite"),
        ({"query_ND": _with(np.eye(3), 2, np.inf)}, "row 2 of query_ND is not finite"),
        ({"query_ND": _with(np.eye(3), 0, 0.0)}, "row 0 of query_ND has length zero"),
        ({"reference_labels": ["a", "b"]}, "one label for each of 3 rows"),
        ({"query_labels": ["a", None, "c"]}, "row 1 of query_labels has no label"),
        (
            {"query_labels": ["x", "y", "z"], "protocol": FewShotProtocol(absent_queries="skip")},
            "no query has its label",
        ),
        ({"reference_source_N": np.array([0, 1])}, "one integer for each of 3 references"),
        ({"reference_source_N": np.array([0.0, 1.0, 2.0])}, "one integer for each of 3 references"),
        (
            {"reference_source_N": np.array([0, 0, 2])},
            "photograph 0 of reference_source_N has rows with different labels: a, b",
        ),
        (
            {"protocol": FewShotProtocol(reference_augmentations=2)},
            "reference_augmentations = 2 means 3 rows a photograph",
        ),
    ],
)
def test_bad_input_names_what_is_wrong(change: dict[str, Any], message: str) -> None:
    given_: dict[str, Any] = {
        "reference_ND": np.eye(3), "reference_labels": list("abc"), "query_ND": np.eye(3), "query_labels": list("abc"),
        "protocol": FewShotProtocol(),
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        evaluate_few_shot(**(given_ | change))


def test_any_scale_and_type_of_numbers_will_do() -> None:
    references, labels, queries, truth = _cloud(4, 3, 5, 1.5)
    plain = evaluate_few_shot(references, labels, queries, truth, FewShotProtocol(shots=("all",)))
    scaled = evaluate_few_shot(
        references * 1e-30, labels, queries.astype(np.float32) * 512, truth, FewShotProtocol(shots=("all",))
    )
    assert _values(scaled) == _values(plain)
