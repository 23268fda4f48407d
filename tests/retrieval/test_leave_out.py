"""Queries asked with and without their label, against plain loops; thresholds against counting."""

import json

import numpy as np
import pytest

from workbench.retrieval.leave_out import LeftOut, ask_queries, ask_references, false_accept_table


def unit(*degrees: float) -> np.ndarray:
    turn = np.radians(degrees)
    return np.column_stack([np.cos(turn), np.sin(turn)]).astype(np.float32)


def cosine(*degrees: float) -> list[float]:
    return np.cos(np.radians(degrees)).tolist()


def test_queries_by_hand() -> None:
    # a at 0 and 40 degrees, b at 90, c at 180; queries: a at 10, b at 50 (a is nearer), x at 130 (no reference)
    found = ask_queries(7 * unit(10, 50, 130), ["a", "b", "x"], unit(0, 40, 90, 180), ["a", "a", "b", "c"])
    assert found.label_Q.tolist() == ["a", "b", "x"]
    assert found.right_Q.tolist() == [True, False, False]
    np.testing.assert_allclose(found.known_Q, [*cosine(10, 10), np.nan], atol=1e-6)
    np.testing.assert_allclose(found.unknown_Q, cosine(80, 10, 40), atol=1e-6)
    assert found.is_known_Q.tolist() == [True, True, False]
    assert found.rival_Q.tolist() == ["b", "a", "b"]
    # without the nearest other label too: c at 180, for b's query c again (130), for x's query a at 40
    np.testing.assert_allclose(found.without_Q, cosine(170, 130, 50), atol=1e-6)


def test_a_tie_with_another_label_is_not_right() -> None:
    found = ask_queries(unit(0), ["b"], unit(0, 0), ["a", "b"])
    assert found.right_Q.tolist() == [False]
    np.testing.assert_allclose(found.known_Q, [1], atol=1e-6)


def test_references_leave_their_own_image_out_and_its_copies() -> None:
    # a: one photograph with a copy by name (0, 1), the same bits under another name (0), and another photograph (30); b: one
    reference_ND = unit(0, 1, 0, 30, 100)
    found = ask_references(reference_ND, ["a", "a", "a", "a", "b"], ["p", "p", "q", "r", ""])
    # a at 1 degree still has q at 0, which is no copy of it by name or by bits
    np.testing.assert_allclose(found.known_Q, [*cosine(30, 1, 1, 29), np.nan], atol=1e-6)
    np.testing.assert_allclose(found.unknown_Q, cosine(100, 99, 100, 70, 70), atol=1e-6)
    assert found.right_Q.tolist() == [True, True, True, True, False]


def test_references_without_names_are_images_of_their_own_and_one_label_has_no_other() -> None:
    found = ask_references(unit(0, 10), ["a", "a"], ["", ""])
    np.testing.assert_allclose(found.known_Q, cosine(10, 10), atol=1e-6)
    assert np.isnan(found.unknown_Q).all()
    assert (found.rival_Q.tolist(), found.without_Q.tolist()) == (["", ""], [-np.inf] * 2)
    assert false_accept_table(found, "p") == []


def test_references_against_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    reference_ND = rng.normal(size=(60, 5)).astype(np.float32)
    reference_ND /= np.linalg.norm(reference_ND, axis=1, keepdims=True)
    reference_ND[7] = reference_ND[3]
    labels = [f"0{number}" for number in rng.integers(0, 12, 60)]
    labels[7] = labels[3]
    names = [f"photo {number}" if number < 50 else "" for number in rng.integers(0, 55, 60)]
    found = ask_references(reference_ND, labels, names)
    for query in range(60):
        own, other, third = [], [], []
        for row in range(60):
            similarity = float(reference_ND[query].astype(float) @ reference_ND[row].astype(float))
            if labels[row] != labels[query]:
                other.append(similarity)
                third += [similarity] * (labels[row] != found.rival_Q[query])
            elif (reference_ND[row] != reference_ND[query]).any() and (not names[row] or names[row] != names[query]):
                own.append(similarity)
        assert found.unknown_Q[query] == pytest.approx(max(other), abs=1e-6)
        assert max(third) < max(other)
        assert found.without_Q[query] == pytest.approx(max(third), abs=1e-6)
        assert found.is_known_Q[query] == bool(own)
        if own:
            assert found.known_Q[query] == pytest.approx(max(own + other), abs=1e-6)
            assert found.right_Q[query] == (max(own) > max(other))
    part = ask_references(reference_ND, labels, names, most=20, seed=3)
    asked = np.sort(np.random.default_rng(3).choice(60, 20, replace=False))
    np.testing.assert_array_equal(part.unknown_Q, found.unknown_Q[asked])
    np.testing.assert_array_equal(part.known_Q, found.known_Q[asked])


def left_out(unknown: list[float], known: list[float], right: list[bool]) -> LeftOut:
    labels = np.array([f"label {row % 40}" for row in range(len(unknown))], dtype=object)
    nobody, without = np.full(len(unknown), "", object), np.array(unknown, np.float32)
    return LeftOut(labels, np.array(known, np.float32), np.array(right), np.array(unknown, np.float32), nobody, without)


def test_thresholds_accept_at_most_the_rate_and_as_much_as_it_allows() -> None:
    rng = np.random.default_rng(1)
    unknown = np.round(rng.uniform(-1, 1, 400), 2).tolist()  # many ties
    known = rng.uniform(-1, 1, 400).tolist()
    right = (rng.uniform(size=400) < 0.7).tolist()
    table = false_accept_table(left_out(unknown, known, right), "how")
    assert [row["rate"] for row in table] == [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]  # 0.002 of 400 is no query
    for row in table:
        accepted = [float(str(np.float32(one))) > row["threshold"] for one in unknown]
        assert sum(accepted) <= row["rate"] * 400
        # of 400 queries of 40 labels about one less than the rate allows
        next_lower = np.sort(unknown)[::-1][int(row["rate"] * 400) + 8]
        assert next_lower < row["threshold"]
        # each label is judged by a threshold that it did not choose: more than one query a label off is no rate
        assert row["rate"] - 10 / 400 <= row["false_accepts"]["value"] <= row["rate"]
        assert row["false_accepts"]["n"] == 400
        above = [
            good and float(str(np.float32(one))) > row["threshold"] for one, good in zip(known, right, strict=True)
        ]
        assert row["right_accepted"]["value"] == pytest.approx(np.mean(above))
        assert row["right_accepted"]["low"] < row["right_accepted"]["value"] < row["right_accepted"]["high"]
        assert row["right_accepted"]["n"] == 400
        assert row["right_accepted"]["protocol"] == "how"
    assert json.loads(json.dumps(table)) == table


def test_few_queries_measure_few_rates_and_one_photograph_each_no_right_answers() -> None:
    table = false_accept_table(left_out([0.1, 0.2, 0.3, 0.4], [np.nan] * 4, [False] * 4), "how")
    # two of four may be accepted; the second is chosen by the other three at 1/3, so by four at 4/3: 1/3 below the second
    assert [(row["rate"], row["threshold"], row["right_accepted"]) for row in table] == [
        (0.5, pytest.approx(0.3 - 0.1 / 3), None)
    ]
    assert table[0]["false_accepts"]["value"] == 0.5
    assert false_accept_table(left_out([0.1], [0.3], [True]), "how") == []
