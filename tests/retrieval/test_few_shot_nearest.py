"""Vote "nearest" is counted from few candidates: the same answers as from all photographs, and as plain loops."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from math import comb
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workbench.retrieval import nearest_sweep, sweep
from workbench.retrieval.draws import draw_ranks
from workbench.retrieval.few_shot import FewShotProtocol, FewShotResult, evaluate_few_shot

SIGNS = np.array(list(itertools.product([1.0, -1.0], repeat=4)))  # length 2: similarities are exactly -1, -.5, 0, .5, 1


@contextmanager
def _everything_open() -> Iterator[None]:
    """No query may have a candidate, so that all photographs are looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest_sweep, "_LEAST_LIMIT", -1)
        patch.setattr(nearest_sweep, "_LIMIT_SHARE", -1.0)
        yield


@contextmanager
def _queries_looked_up() -> Iterator[list[int]]:
    """Gives, for each draw of a chunk that left some open, the number of queries looked up among all photographs."""
    found: list[int] = []
    plain = sweep.nearest_values

    def spy(similarity_PB: np.ndarray, *rest: Any) -> Any:
        found.append(similarity_PB.shape[1])
        return plain(similarity_PB, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "nearest_values", spy)
        yield found


def _assert_same(left: FewShotResult, right: FewShotResult) -> None:
    assert left.hits.keys() == right.hits.keys()
    for name, values in left.hits.items():
        np.testing.assert_array_equal(values, right.hits[name], err_msg=name)
    pd.testing.assert_frame_equal(left.predictions, right.predictions, check_exact=True)
    assert left.metrics == right.metrics
    for shots, answers in left._answers.items():
        np.testing.assert_array_equal(answers.predicted_DQ, right._answers[shots].predicted_DQ)
        assert sorted(answers.tied.tolist()) == sorted(right._answers[shots].tied.tolist())


@st.composite
def _shots(draw: st.DrawFn) -> tuple[Any, ...]:
    numbers = sorted(draw(st.sets(st.integers(1, 12), max_size=4)))
    return (*numbers, "all") if draw(st.booleans()) or not numbers else tuple(numbers)


# Against the same vote with all photographs looked at


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    kind=st.sampled_from(["signs", "grid", "cloud"]),
    num_queries=st.integers(1, 12),
    shots=_shots(),
    top=st.sampled_from([(1,), (1, 5), (1, 2), (1, 3, 20)]),
    draws=st.integers(1, 3),
    copies=st.integers(0, 2),
    absent=st.sampled_from(["skip", "open_set"]),
    seed=st.integers(0, 10_000),
)
def test_candidates_answer_as_all_photographs_do(
    sizes: list[int],
    kind: str,
    num_queries: int,
    shots: tuple[Any, ...],
    top: tuple[int, ...],
    draws: int,
    copies: int,
    absent: Any,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)

    def rows(number: int) -> np.ndarray:
        if kind == "signs":
            return SIGNS[rng.integers(0, 16, number)]
        noise = rng.normal(size=(number, 5))
        return (
            np.round(noise) + 9 * np.eye(5)[0] if kind == "grid" else noise
        )  # a grid has duplicates, a cloud has none

    source = np.tile(rng.permutation(len(labels)), 1 + copies)
    references, queries = rows(len(source)), rows(num_queries)
    truth = rng.integers(0, len(sizes) + 1, num_queries)  # the last label is absent
    truth[0] = 0
    protocol = FewShotProtocol(
        shots=shots, draws=draws, seed=seed, top=top, reference_augmentations=copies, absent_queries=absent,
        headline_shots=shots[seed % len(shots)], num_replicates=100,
    )  # fmt: skip
    given_ = (references, np.tile(labels, 1 + copies), queries, truth, protocol, source)
    found = evaluate_few_shot(*given_)
    with _everything_open(), _queries_looked_up() as looked_up:
        wanted = evaluate_few_shot(*given_)
    asked = len(wanted.predictions)
    # All but the headline gallery of draw 0, which is looked at for the tables anyway.
    assert looked_up == [asked] * ((len(shots) > 1) + (draws - 1) * (shots != ("all",)))
    _assert_same(found, wanted)


# Against plain loops


def _class_hit(best: dict[int, float], own: int, top: int) -> Fraction:
    ahead = sum(value > best[own] for value in best.values())
    tied = sum(value == best[own] for value in best.values())
    return min(Fraction(1), max(Fraction(0), Fraction(top - ahead, tied)))


def _image_hit(similarity: Sequence[float], right: Sequence[bool], top: int) -> Fraction:
    own = max(value for value, good in zip(similarity, right, strict=True) if good)
    ahead = sum(value > own for value in similarity)
    tied = sum(value == own for value in similarity)
    others = sum(value == own and not good for value, good in zip(similarity, right, strict=True))
    places = min(max(top - ahead, 0), tied)
    return 1 - Fraction(comb(others, places), comb(tied, places))


@settings(max_examples=50, deadline=None)
@given(
    references=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 15)), min_size=1, max_size=40),
    queries=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 15)), min_size=1, max_size=5),
    nudge=st.sampled_from([0.0, 0.25]),
    seed=st.integers(0, 50),
)
@example([(0, 0), (0, 0), (1, 0), (2, 1)], [(0, 0), (2, 0)], 0.0, 0)
def test_equals_plain_loops_up_to_seven_labels(
    references: list[tuple[int, int]], queries: list[tuple[int, int]], nudge: float, seed: int
) -> None:
    codes = np.array([code for code, _ in references])
    names = sorted({str(code) for code in codes})
    code_P = np.sort(np.array([names.index(str(code)) for code in codes]))
    rows_P = np.argsort([names.index(str(code)) for code in codes], kind="stable")
    truth = [code % len(names) for code, _ in queries]
    reference_ND, query_ND = SIGNS[[row for _, row in references]], SIGNS[[row for _, row in queries]]
    query_ND = query_ND + nudge * np.array([1.0, 0.5, 0.25, 0.125])  # 0.25 sets different photographs apart
    protocol = FewShotProtocol(shots=(1, 2, 4, 30, "all"), draws=2, seed=seed, top=(1, 2, 5), headline_shots=4)
    labels = [str(code) for code in codes]
    result = evaluate_few_shot(reference_ND, labels, query_ND, [names[code] for code in truth], protocol)
    rank_DP = draw_ranks(code_P, np.array(names, dtype=object), 2, seed)
    dot_QP = query_ND @ reference_ND[rows_P].T  # exact: small multiples of 1/32
    for (shots, limit), draw in itertools.product({"1": 1, "2": 2, "4": 4, "30": 30, "all": 99}.items(), (0, 1)):
        if shots == "all" and draw:
            continue
        kept = np.flatnonzero(rank_DP[draw] < limit)
        for query, own in enumerate(truth):
            similarity = dot_QP[query, kept].tolist()
            best = {code: max(s for s, c in zip(similarity, code_P[kept], strict=True) if c == code) for code in code_P}
            for top in (1, 2, 5):
                hit = result.hits[f"accuracy@{top}/shots={shots}"][draw, query]
                assert hit == pytest.approx(float(_class_hit(best, own, top)), abs=1e-6)
            for top in (2, 5):
                hit = result.hits[f"image_accuracy@{top}/shots={shots}"][draw, query]
                image = _image_hit(similarity, (code_P[kept] == own).tolist(), top)
                assert hit == pytest.approx(float(image), abs=1e-6)
            order = sorted(best, key=lambda code: (-best[code], code))
            assert result._answers[shots].predicted_DQ[draw, query] == order[0]
            if shots == "4" and draw == 0:
                row = result.predictions.iloc[query]
                assert row["predicted"] == names[order[0]]
                assert (row["second_label"] if len(order) > 1 else None) == (
                    names[order[1]] if len(order) > 1 else None
                )
                length = 2 * np.linalg.norm(query_ND[query])
                assert row["similarity"] == pytest.approx(best[order[0]] / length, abs=1e-6)


# Which way was taken


def _cloud(classes: int, references: int, queries: int, noise: float, seed: int = 0) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(classes, 12))
    labels_N, labels_Q = np.repeat(np.arange(classes), references), np.repeat(np.arange(classes), queries)
    photos, asked = (centre[labels] + noise * rng.normal(size=(len(labels), 12)) for labels in (labels_N, labels_Q))
    return photos, labels_N, asked, labels_Q


@pytest.mark.parametrize("noise", [0.3, 1.5, 30.0])
def test_without_ties_nothing_is_looked_up(noise: float) -> None:
    references, labels, queries, truth = _cloud(12, 15, 10, noise)
    protocol = FewShotProtocol(shots=(1, 2, 5, 10, "all"), draws=5)
    with _queries_looked_up() as looked_up:
        found = evaluate_few_shot(references, labels, queries, truth, protocol)
    assert looked_up == []
    with _everything_open(), _queries_looked_up() as looked_up:
        wanted = evaluate_few_shot(references, labels, queries, truth, protocol)
    assert looked_up == [len(truth)] * 5
    _assert_same(found, wanted)


def test_only_the_queries_that_a_tie_concerns_are_looked_up() -> None:
    references, labels, queries, truth = _cloud(12, 15, 10, 1.0)
    references = np.vstack([references, references[[0]]])
    labels = np.append(labels, 7)  # the first photograph of label 0 is filed under label 7 too
    queries[0], queries[1] = references[0], references[0]
    truth[1] = 7
    protocol = FewShotProtocol(shots=(1, 4, 15, "all"), draws=4, headline_shots=4)
    with _queries_looked_up() as looked_up:
        found = evaluate_few_shot(references, labels, queries, truth, protocol)
    assert len(looked_up) == 4  # at 15 shots label 0 has the photograph in every draw, and label 7 in most
    assert 2 <= max(looked_up) < 12  # queries of labels 0 and 7, of 120
    assert found.hits["accuracy@1/shots=all"][0, :2].tolist() == [0.5, 0.5]
    assert found._answers["all"].predicted_DQ[0, :2].tolist() == [0, 0]
    with _everything_open():
        _assert_same(found, evaluate_few_shot(references, labels, queries, truth, protocol))


def test_a_query_with_too_many_near_photographs_is_looked_up() -> None:
    # Labels 0 and 1 have one bad and 400 good photographs; where the bad one comes first, everything is nearer than that.
    rng = np.random.default_rng(0)
    photos = np.eye(3)[np.repeat([0, 1, 2], 400)] + 0.3 * rng.normal(size=(1200, 3))
    photos[:400:2] *= -1
    labels, queries, truth = np.repeat([0, 1, 2], 400), np.eye(3)[[0, 1]], [0, 1]
    protocol = FewShotProtocol(shots=(1, 50, "all"), draws=6)
    with _queries_looked_up() as looked_up:
        found = evaluate_few_shot(photos, labels, queries, truth, protocol)
    assert looked_up == [1] * 6  # query 0 in every draw: its candidates are picked once for all draws
    with pytest.MonkeyPatch.context() as patch, _queries_looked_up() as looked_up:
        patch.setattr(nearest_sweep, "_LEAST_LIMIT", 1200)
        _assert_same(evaluate_few_shot(photos, labels, queries, truth, protocol), found)
    assert looked_up == []


def test_more_shots_than_a_set_has_room_for() -> None:
    references, labels, queries, truth = _cloud(6, 80, 6, 2.0)
    shots = (*range(1, 76), "all")
    assert len(shots) > nearest_sweep.MOST_SHOTS
    together = evaluate_few_shot(references, labels, queries, truth, FewShotProtocol(shots=shots, draws=2))
    for k in (1, 2, 30, 62, 63, 64, 65, 75, "all"):
        alone = evaluate_few_shot(references, labels, queries, truth, FewShotProtocol(shots=(k,), draws=2))
        for name, values in alone.hits.items():
            np.testing.assert_array_equal(values, together.hits[name], err_msg=name)
    assert together.metrics["accuracy@1/shots=1/micro"].value < together.metrics["accuracy@1/shots=75/micro"].value
