from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import stdtrit
from sklearn.metrics import roc_auc_score, roc_curve

from workbench.retrieval import open_set_search
from workbench.retrieval.draws import draw_ranks
from workbench.retrieval.held_out import code_groups, hold_out
from workbench.retrieval.open_set import OpenSetProtocol, OpenSetResult, evaluate_open_set, suit_protocol
from workbench.retrieval.open_set_measures import (
    COVERAGES,
    accepted_above,
    candidate_thresholds,
    interval_over_splits,
    measure,
    measure_names,
    thin_thresholds,
)
from workbench.retrieval.stats import cluster_interval

FARS = (0.25, 0.01)
QUICK = OpenSetProtocol(kind="random", num_replicates=100)


def _data(
    num_classes: int = 12, num_groups: int = 4, queries: int = 6, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, str]]:
    rng = np.random.default_rng(seed)
    groups = rng.normal(size=(num_groups, 8))
    centre_C = np.array([groups[c % num_groups] + 0.7 * rng.normal(size=8) for c in range(num_classes)])
    label_C = np.array([f"{c:03d}" for c in range(num_classes)], object)
    reference_labels, query_labels = np.repeat(label_C, 4), np.repeat(label_C, queries)
    reference_ND = np.repeat(centre_C, 4, axis=0) + 0.6 * rng.normal(size=(4 * num_classes, 8))
    query_QD = np.repeat(centre_C, queries, axis=0) + 0.6 * rng.normal(size=(queries * num_classes, 8))
    return (
        reference_ND,
        reference_labels,
        query_QD,
        query_labels,
        {f"{c:03d}": f"g{c % num_groups}" for c in range(num_classes)},
    )


def _measured(known: list[float], right: list[float], unknown: list[float], share: float = 0.5) -> dict[str, float]:
    x_K, right_K, x_U = np.array(known, float), np.array(right, float), np.array(unknown, float)
    threshold_G = candidate_thresholds([x_K, x_U])
    known_RG, right_RG, unknown_RG = (
        accepted_above(x, amount, np.zeros(len(x), np.int64), 1, threshold_G)
        for x, amount in ((x_K, None), (x_K, right_K), (x_U, None))
    )
    return dict(zip(measure_names(FARS), measure(known_RG, right_RG, unknown_RG, FARS, share)[0].tolist(), strict=True))


def _by_loops(known: list[float], right: list[float], unknown: list[float], share: float = 0.5) -> dict[str, float]:
    """Each number from its definition: pairs of queries, and every threshold tried."""
    pairs = [(k, c, u) for k, c in zip(known, right, strict=True) for u in unknown]
    found: dict[str, Any] = {
        "AUROC": np.mean([(k > u) + 0.5 * (k == u) for k, _, u in pairs]),
        "OSCR": np.mean([c * ((k > u) + 0.5 * (k == u)) for k, c, u in pairs]),
    }
    tries = [-np.inf, *sorted({*known, *unknown})]
    points = []
    for threshold in tries:
        accepted = sum(k > threshold for k in known) / len(known)
        correct = sum(c for k, c in zip(known, right, strict=True) if k > threshold) / len(known)
        false = sum(u > threshold for u in unknown) / len(unknown)
        points.append((accepted, correct, false))
    found["FPR@TPR=95%"] = min(false for accepted, _, false in points if accepted >= 0.95 - 1e-12)
    for far in FARS:
        found[f"DIR@FAR={far * 100:g}%"] = max(correct for _, correct, false in points if false <= far + 1e-12)

    def risk(threshold: float) -> tuple[float, float]:
        accepted, correct, false = points[tries.index(threshold)]
        coverage = (1 - share) * accepted + share * false
        return coverage, (coverage - (1 - share) * correct) / coverage if coverage else 0.0

    # each query counts with the risk at the largest threshold below its own value
    aurc = 0.0
    for values, weight in ((known, (1 - share) / len(known)), (unknown, share / len(unknown))):
        for value in values:
            aurc += weight * risk(max(t for t in tries if t < value))[1]
    found["AURC"] = aurc
    for level in COVERAGES:
        reached = [risk(threshold) for threshold in tries]
        found[f"curve risk {level:.6g}"] = min(pair for pair in reached if pair[0] >= level - 1e-12)[1]
    return {name: float(value) for name, value in found.items()}


def test_numbers_by_hand() -> None:
    found = _measured([4, 3, 3, 1], [1, 1, 0, 1], [3, 2])
    assert found["AUROC"] == 5 / 8  # 2 of the 4; 1.5 of each 3; 0 of the 1: of 8 pairs
    assert found["OSCR"] == 3.5 / 8  # the same without the 3 that is wrong
    assert found["FPR@TPR=95%"] == 1.0  # all four must be accepted
    assert found["DIR@FAR=25%"] == found["DIR@FAR=1%"] == 0.25  # no unknown one: above 3, only the 4
    assert found["AURC"] == pytest.approx(0.5 * 0.6 + 0.25 * 5 / 7 + 0.125 * 0.625)
    assert found["curve DIR 0.501187"] == 0.5  # one unknown: above 2, two right of four
    assert found["curve risk 0.6"] == 0.6


CASES = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(-3, 4), min_size=n, max_size=n),
        st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=n, max_size=n),
        st.lists(st.integers(-3, 4), min_size=1, max_size=12),
    )
)


@settings(max_examples=150, deadline=None)
@given(CASES, st.sampled_from([0.2, 0.5]))
def test_numbers_are_those_of_loops(case: tuple[list[float], list[float], list[float]], share: float) -> None:
    known, right, unknown = case
    found, wanted = _measured(known, right, unknown, share), _by_loops(known, right, unknown, share)
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-12)
    truth, values = [1] * len(known) + [0] * len(unknown), [*known, *unknown]
    assert found["AUROC"] == pytest.approx(roc_auc_score(truth, values), abs=1e-12)
    fpr, tpr, _ = roc_curve(truth, values, drop_intermediate=False)
    assert found["FPR@TPR=95%"] == pytest.approx(fpr[tpr >= 0.95 - 1e-12].min())


def test_thresholds_are_thinned_without_losing_the_ends() -> None:
    rng = np.random.default_rng(0)
    known, unknown = rng.normal(1, 1, 5000), rng.normal(0, 1, 3000)
    every = candidate_thresholds([known, unknown])
    few = thin_thresholds(every, unknown, known)
    assert len(every) == 8001
    assert 400 < len(few) <= 603
    assert (few[0], few[-1]) == (every[0], -np.inf)
    assert set(np.sort(unknown)[-200:]) <= set(few)
    assert (thin_thresholds(every[:100], unknown, known) == every[:100]).all()
    exact, thin = (
        measure(curve_RG, curve_RG, accepted_above(unknown, None, np.zeros(3000, int), 1, grid), (0.01,), 0.2)
        for grid in (every, few)
        for curve_RG in [accepted_above(known, None, np.zeros(5000, int), 1, grid)]
    )
    assert np.abs(exact - thin).max() < 0.01


def _oracle_split(
    result: OpenSetResult, split: int, similarity_QN: np.ndarray, reference_labels: np.ndarray, query_labels: np.ndarray
) -> tuple[list[float], list[float], list[float]]:
    """Statistic of the known, whether they are right, statistic of the unknown: a loop over queries and gallery classes."""
    protocol = result.protocol
    gallery = {
        str(name)
        for name in result.similarities.names[: result.similarities.num_classes][result.held_out[split].gallery_C]
    }
    known, right, unknown = [], [], []
    for row, label in enumerate(query_labels):
        best = {name: similarity_QN[row][reference_labels == name].max() for name in gallery}
        ordered = sorted(best.values(), reverse=True)
        inside = np.sort(similarity_QN[row][np.isin(reference_labels, list(gallery))])[::-1]
        statistic = {
            "nearest": ordered[0],
            "margin": ordered[0] - ordered[1],
            "mean_k": inside[: protocol.k].astype(np.float64).mean(),
        }[protocol.statistic]
        if label in gallery:
            known.append(float(statistic))
            right.append(float(max(best, key=lambda name: best[name]) == label))
        else:
            unknown.append(float(statistic))
    return known, right, unknown


@pytest.mark.parametrize("statistic", ["nearest", "margin", "mean_k"])
def test_the_evaluation_is_that_of_loops(statistic: str) -> None:
    reference_ND, reference_labels, query_QD, query_labels, groups = _data()
    protocol = replace(QUICK, statistic=statistic, k=3, far=FARS, unknown_share=0.5)  # type: ignore[arg-type]
    result = evaluate_open_set(reference_ND, reference_labels, query_QD, query_labels, protocol, groups)
    unit_ND, unit_QD = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (reference_ND, query_QD))
    similarity_QN = unit_QD @ unit_ND.T
    found = [
        _by_loops(*_oracle_split(result, split, similarity_QN, reference_labels, query_labels), 0.5)
        for split in range(5)
    ]
    for name in ("AUROC", "OSCR", "AURC", "FPR@TPR=95%", "DIR@FAR=25%", "DIR@FAR=1%"):
        metric = result.metrics[f"open_set/{name}/all"]
        assert metric.value == pytest.approx(np.mean([one[name] for one in found]), abs=1e-5), name
        assert metric.low <= metric.value <= metric.high
        assert "5 splits" in metric.protocol
        assert "18 queries of 3 classes" in metric.protocol


@pytest.mark.parametrize(("queries", "shots"), [(None, "all"), (3, 2), (None, 1)])
def test_blocks_draws_and_chosen_queries(
    monkeypatch: pytest.MonkeyPatch, queries: int | None, shots: int | str
) -> None:
    reference_ND, reference_labels, query_QD, query_labels, groups = _data()
    protocol = replace(QUICK, queries_per_class=queries, shots=shots)  # type: ignore[arg-type]
    whole = evaluate_open_set(reference_ND, reference_labels, query_QD, query_labels, protocol, groups)
    monkeypatch.setattr(open_set_search, "_CELLS_A_BLOCK", 100)
    parts = evaluate_open_set(reference_ND, reference_labels, query_QD, query_labels, protocol, groups)
    assert [m.value for m in parts.metrics.values()] == pytest.approx([m.value for m in whole.metrics.values()])
    assert len(whole.answers) == 5 * 12 * (queries or 6)
    if shots == "all":
        return
    unit_ND, unit_QD = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (reference_ND, query_QD))
    rank_DP = draw_ranks(np.repeat(np.arange(12), 4), np.unique(reference_labels), 5, protocol.seed)
    for split in range(5):
        kept = (rank_DP[split] < shots) & np.repeat(whole.held_out[split].gallery_C, 4)
        rows = whole.answers[whole.answers["split"] == split]
        nearest = (unit_QD[rows["query"]] @ unit_ND[kept].T).max(axis=1)
        assert rows["similarity"].to_numpy() == pytest.approx(nearest, abs=1e-6)


def test_tied_classes_share_the_answer() -> None:
    reference_ND, reference_labels, query_QD, query_labels, _ = _data(num_classes=8, num_groups=8)
    twin = np.repeat([["a"], ["b"]], 4, axis=1).ravel()
    reference_ND = np.concatenate([reference_ND, np.tile(np.eye(8)[:1] * 9, (8, 1))])
    query_QD = np.concatenate([query_QD, np.tile(np.eye(8)[:1], (2, 1))])
    labels = np.concatenate([query_labels, ["a", "b"]])
    result = evaluate_open_set(reference_ND, np.concatenate([reference_labels, twin]), query_QD, labels, QUICK)
    own = result.answers[result.answers["label"].isin(["a", "b"])]
    both_known = own.groupby("split")["kind"].transform(lambda kinds: (kinds == "known").all())
    assert both_known.any()
    assert (own["right"][both_known] == 0.5).all()
    assert (own["margin"][both_known] == 0).all()
    assert (own["right"][own["kind"] != "known"] == 0).all()


def test_labels_stay_what_they_are() -> None:
    reference_ND, _, query_QD, _, _ = _data(num_classes=4, num_groups=4)
    names = np.array([16777216, 16777217, "007", 7], dtype=object)
    result = evaluate_open_set(reference_ND, np.repeat(names, 4), query_QD, np.repeat(names, 6), QUICK)
    assert sorted(result.similarities.names) == ["007", "16777216", "16777217", "7"]
    assert set(result.answers["label"]) == {"007", "16777216", "16777217", "7"}


def test_queries_without_any_reference_are_unknown_in_every_split() -> None:
    reference_ND, reference_labels, query_QD, query_labels, groups = _data()
    query_labels = query_labels.copy()
    query_labels[:6], query_labels[6:12] = "new", "newer"
    protocol = replace(QUICK, kind="near")
    result = evaluate_open_set(
        reference_ND, reference_labels, query_QD, query_labels, protocol, {**groups, "new": "g1", "newer": "elsewhere"}
    )
    kinds = result.answers.groupby("label")["kind"].agg(set)
    assert kinds["new"] == {"near"}
    assert kinds["newer"] == {"far"}
    assert result.held_out[0].gallery_C[:2].all()  # 000 and 001 have no query and stay


@pytest.mark.parametrize("kind", ["near", "far", "both"])
@pytest.mark.parametrize("num_groups", [8, 13])
def test_near_and_far_are_what_they_are_called(kind: str, num_groups: int) -> None:
    group_C = np.arange(40) % num_groups
    protocol = replace(QUICK, kind=kind, num_splits=7)  # type: ignore[arg-type]
    held_SC = hold_out(group_C, np.ones(40, bool), protocol)
    assert ((held_SC.sum(axis=1) >= 8) & (held_SC.sum(axis=1) <= 12)).all()
    assert len({tuple(held_C) for held_C in held_SC}) == 7
    for held_C in held_SC:
        whole = [group for group in range(num_groups) if held_C[group_C == group].all()]
        some = [group for group in range(num_groups) if held_C[group_C == group].any() and group not in whole]
        assert bool(whole) == (kind in ("far", "both"))
        assert bool(some) == (kind in ("near", "both"))


def test_classes_take_turns() -> None:
    protocol = replace(QUICK, held_out_share=0.2)
    held_SC = hold_out(np.full(20, -1), np.ones(20, bool), protocol)
    assert (held_SC.sum(axis=0) == 1).all()
    assert (hold_out(np.full(20, -1), np.ones(20, bool), protocol) == held_SC).all()
    assert (hold_out(np.full(20, -1), np.ones(20, bool), replace(protocol, seed=1)) != held_SC).any()


def test_a_rate_below_one_query_is_not_resolved() -> None:
    reference_ND, reference_labels, query_QD, query_labels, groups = _data(num_groups=6)
    result = evaluate_open_set(
        reference_ND, reference_labels, query_QD, query_labels, replace(QUICK, kind="both", far=(0.2, 0.01)), groups
    )
    assert "open_set/DIR@FAR=1%/all" in result.unresolved
    assert "open_set/DIR@FAR=20%/all" not in result.unresolved
    metric = result.metrics["open_set/DIR@FAR=1%/all"]
    assert "NOT RESOLVED: 0.01 of 18 unknown queries" in metric.protocol
    assert metric.low == 0.0
    assert "NOT RESOLVED" not in result.metrics["open_set/DIR@FAR=20%/all"].protocol
    curve = result.curves[(result.curves["curve"] == "DIR") & (result.curves["kind"] == "all")]
    assert (curve["resolved"] == (curve["at"] * 18 >= 1)).all()
    assert curve["value"].is_monotonic_increasing
    assert curve["value"].iloc[-1] == pytest.approx(result.metrics["open_set/accuracy/known"].value)


def test_separated_products_are_told_apart_and_the_interval_has_a_width() -> None:
    label = np.array([f"p{c}" for c in range(16)], object)
    rng = np.random.default_rng(0)
    near_ND = np.eye(16).repeat(3, axis=0) + 0.01 * rng.normal(size=(48, 16))
    query_QD = np.eye(16).repeat(5, axis=0) + 0.01 * rng.normal(size=(80, 16))
    result = evaluate_open_set(near_ND, label.repeat(3), query_QD, label.repeat(5), QUICK)
    auroc = result.metrics["open_set/AUROC/all"]
    assert result.metrics["chance/open_set/AUROC/all"].value == 0.5
    assert (auroc.value, auroc.high, auroc.n) == (1.0, 1.0, 80)
    assert 0.85 < auroc.low < 0.95  # 80 queries of 16 labels, all right
    assert result.metrics["open_set/FPR@TPR=95%/all"].value == 0
    assert result.metrics["open_set/DIR@FAR=1%/all"].value == 1
    assert list(result.metrics) == list(dict.fromkeys(result.metrics))
    assert not any(name.endswith(("near", "far")) for name in result.metrics)  # no groups, no near and far


def test_one_split_has_the_interval_of_a_clustered_share() -> None:
    rng = np.random.default_rng(1)
    correct = (rng.random((40, 10)) < rng.beta(4, 2, 40)[:, None]).astype(float)
    weights = rng.standard_exponential((20_000, 40))
    replicates = (weights @ correct.mean(axis=1)) / weights.sum(axis=1)
    value, low, high = interval_over_splits(
        np.array([[correct.mean()]]), replicates[None, :, None], least_unknown=40, num_unknown=40, num_queries=400
    )
    wanted = cluster_interval(correct.ravel(), np.repeat(np.arange(40), 10))
    assert value[0] == wanted.value
    assert (low[0], high[0]) == (pytest.approx(wanted.low, abs=0.005), pytest.approx(wanted.high, abs=0.005))


@pytest.mark.parametrize("num_classes", [12, 40])
def test_intervals_over_splits_cover_the_truth(num_classes: int) -> None:
    rng = np.random.default_rng(2)
    held_SC = hold_out(np.full(num_classes, -1), np.ones(num_classes, bool), QUICK)
    hits = 0
    for _ in range(400):
        effect_C = rng.normal(0.5, 0.1, num_classes)
        own_SC = held_SC * (effect_C + rng.normal(0, 0.05, held_SC.shape))  # splits differ beyond their classes
        weights = rng.standard_exponential((200, num_classes))
        replicates = np.stack(
            [weights @ own_C / (weights @ held_C) for own_C, held_C in zip(own_SC, held_SC, strict=True)]
        )
        values = own_SC.sum(axis=1) / held_SC.sum(axis=1)
        _, low, high = interval_over_splits(
            values[:, None],
            replicates[..., None],
            least_unknown=int(held_SC.sum(axis=1).min()),
            num_unknown=num_classes,
            num_queries=1000,
            is_share=False,
        )
        hits += bool(low[0] <= 0.5 <= high[0])
    assert 0.91 <= hits / 400 <= 0.995


def test_what_classes_explain_is_not_counted_twice() -> None:
    rng = np.random.default_rng(5)
    held_SC = hold_out(np.full(40, -1), np.ones(40, bool), replace(QUICK, held_out_share=0.2))  # each class once
    ratios = []
    for _ in range(100):
        effect_C = rng.normal(0.5, 0.1, 40)  # splits differ by their classes alone
        weights = rng.standard_exponential((400, 40))
        replicates = np.stack(
            [weights[:, held_C] @ effect_C[held_C] / weights[:, held_C].sum(axis=1) for held_C in held_SC]
        )
        value, low, high = interval_over_splits(
            np.array([[effect_C[held_C].mean()] for held_C in held_SC]),
            replicates[..., None],
            least_unknown=8,
            num_unknown=40,
            num_queries=1000,
            is_share=False,
        )
        assert value[0] == pytest.approx(effect_C.mean())
        ratios.append((high[0] - low[0]) / 2 / (stdtrit(39, 0.975) * effect_C.std(ddof=1) / np.sqrt(40)))
    assert 0.95 < np.mean(ratios) < 1.25  # 1.4 if the variance of the splits were added to that of the classes


def test_what_cannot_be_done_is_said_beforehand() -> None:
    labels, groups = np.array(list("abcdefgh"), object), dict(zip("abcdefgh", "xxxxyyyy", strict=True))
    protocol, sentence = suit_protocol(labels, labels, groups, OpenSetProtocol())
    assert protocol is not None
    assert protocol.kind == "near"
    assert "instead of 'both': no whole groups make up 1 to 1 classes" in sentence
    protocol, sentence = suit_protocol(labels, labels, None, OpenSetProtocol())
    assert protocol is not None
    assert protocol.kind == "random"
    assert "none has one" in sentence
    unchanged = OpenSetProtocol(kind="near")
    assert suit_protocol(labels, labels, groups, unchanged) == (unchanged, "")
    for number in (1, 3, 6):
        nothing, sentence = suit_protocol(labels[:number], labels, groups, OpenSetProtocol())
        assert nothing is None
        assert sentence.startswith("No open set here: ")
        assert f"of {number} with queries that is no whole number" in sentence


def test_groups_without_siblings_are_refused() -> None:
    lonely = np.arange(8)
    with pytest.raises(ValueError, match="each has one class only"):
        hold_out(lonely, np.ones(8, bool), replace(QUICK, kind="near"))
    with pytest.raises(ValueError, match="less than 20 %"):
        hold_out(np.append(np.arange(19), 0), np.ones(20, bool), replace(QUICK, kind="near"))
    with pytest.raises(ValueError, match="groups are too large"):
        hold_out(np.zeros(8, np.int64), np.ones(8, bool), replace(QUICK, kind="far"))
    assert code_groups(["b", "a", "c"], {"a": "y", "b": "x"}).tolist() == [0, 1, -1]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: (a[0][:4], a[1][:4], a[2][:6], a[3][:6]), "no whole number: at least 4 classes"),
        (lambda a: (a[0], a[1], a[2][:0], a[3][:0]), "of 0 with queries"),
        (lambda a: (np.where(np.arange(8) == 0, np.nan, a[0]), *a[1:]), "row 0 of reference_ND is not finite"),
        (lambda a: (*a[:2], a[2][:, :5], a[3]), "width 8 and queries 5"),
        (lambda a: (a[0], a[1][:-1], *a[2:]), "one label for each of 48 rows"),
    ],
)
def test_bad_input_is_refused(spoil: Callable[..., tuple[np.ndarray, ...]], message: str) -> None:
    reference_ND, reference_labels, query_QD, query_labels = spoil(_data()[:4])
    with pytest.raises(ValueError, match=message):
        evaluate_open_set(reference_ND, reference_labels, query_QD, query_labels, QUICK)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"statistic": "score"}, "statistic must be one of"),
        ({"kind": "odd"}, "kind must be one of"),
        ({"held_out_share": 0.5}, "from 0.2 to 0.3"),
        ({"num_splits": 4}, "at least 5"),
        ({"k": True}, "k must be a whole number"),
        ({"far": (0.01, 0.01)}, "different rates"),
        ({"far": ()}, "different rates"),
        ({"unknown_share": 1.0}, "below 1"),
        ({"shots": 0}, "shots must be"),
    ],
)
def test_protocols_without_meaning_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OpenSetProtocol(**change)  # type: ignore[arg-type]


def test_a_margin_wants_two_classes() -> None:
    reference_ND, reference_labels, query_QD, query_labels, groups = _data()
    result = evaluate_open_set(
        reference_ND, reference_labels, query_QD, query_labels, replace(QUICK, statistic="margin"), groups
    )
    with pytest.raises(ValueError, match="at least 2 classes in the gallery, found 1"):
        result.similarities.answers(np.arange(12) == 0)
    nearest = evaluate_open_set(reference_ND, reference_labels, query_QD, query_labels, QUICK, groups)
    assert np.isnan(nearest.similarities.answers(np.arange(12) == 0, margins=True).margin_Q).all()
