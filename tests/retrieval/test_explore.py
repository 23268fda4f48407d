"""Counts at a threshold against plain loops, and the map."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.retrieval.explore import count_answers, threshold_metrics
from workbench.retrieval.leave_out import LeftOut, as_written
from workbench.retrieval.projection import project


def _left_out(known: list[float], right: list[bool], unknown: list[float]) -> LeftOut:
    labels = np.array([f"label {place % 3}" for place in range(len(known))], dtype=object)
    nobody, without = np.full(len(unknown), "", object), np.array(unknown, np.float32)
    return LeftOut(
        labels, np.array(known, np.float32), np.array(right, bool), np.array(unknown, np.float32), nobody, without
    )


def test_counts_of_five_queries_by_hand() -> None:
    nan = float("nan")
    # The fourth has no reference of its label: it is asked as an unknown product only. The last has no other label.
    left_out = _left_out([0.9, 0.5, 0.7, nan, 0.8], [True, True, False, False, True], [0.3, 0.5, 0.7, 0.6, nan])
    counts = count_answers(left_out)
    assert counts.num_known == 4
    assert counts.at(0.5) == {
        "right": 2, "wrong": 1, "refused": 1, "refused_right": 1, "false_accepts": 2, "refused_unknown": 2,
    }  # fmt: skip
    # On the threshold is refused; below everything, everything is accepted; above everything, nothing is.
    assert counts.at(-1.0)["right"] == 3
    assert counts.at(1.0)["refused"] == 4
    assert counts.at(0.7)["wrong"] == 0
    assert counts.span() == pytest.approx((0.3, 0.9))
    curve = counts.curve(num_thresholds=3)
    assert curve["threshold"].tolist() == pytest.approx([0.3, 0.6, 0.9])
    assert curve["right"].tolist() == [3, 2, 0]
    assert curve["false_accepts"].tolist() == [3, 1, 0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([-1.0, -0.5, 0.0, 0.1, 0.3, 0.30000001, 0.5, 1.0, float("nan")]),
            st.booleans(),
            st.sampled_from([-1.0, 0.1, 0.3, 0.5, float("nan")]),
        ),
        max_size=12,
    ),
    st.sampled_from([-1.0, 0.0, 0.1, 0.3, 0.5, 0.99, 1.0]),
)
def test_counts_are_those_of_a_loop(rows: list[tuple[float, bool, float]], threshold: float) -> None:
    counts = count_answers(_left_out([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]))
    expected = dict.fromkeys(("right", "wrong", "refused", "refused_right", "false_accepts", "refused_unknown"), 0)
    for known, is_right, unknown in rows:
        if known == known:
            accepted = float(str(np.float32(known))) > threshold
            expected["refused"] += not accepted
            expected["refused_right"] += is_right and not accepted
            expected["right"] += is_right and accepted
            expected["wrong"] += accepted and not is_right
        if unknown == unknown:
            accepted = float(str(np.float32(unknown))) > threshold
            expected["false_accepts"] += accepted
            expected["refused_unknown"] += not accepted
    assert counts.at(threshold) == expected


def test_similarities_are_compared_as_they_are_written() -> None:
    """0.1 as float32 is a little above 0.1; an answer written as 0.1 is not above a threshold of 0.1."""
    assert float(np.float32(0.1)) > 0.1
    assert as_written(np.array([0.1], np.float32)).tolist() == [0.1]
    assert count_answers(_left_out([0.1], [True], [0.0])).at(0.1)["refused"] == 1


def test_without_a_query_there_are_no_counts_and_no_shares() -> None:
    left_out = _left_out([], [], [])
    counts = count_answers(left_out)
    assert set(counts.at(0.0).values()) == {0}
    assert counts.span() == (-1, 1)
    assert threshold_metrics(left_out, 0.0, "nobody") == {}
    with pytest.raises(ValueError, match="NaN"):
        counts.at(float("nan"))


def test_shares_at_a_threshold_say_n_and_protocol() -> None:
    left_out = _left_out([0.9, 0.5, 0.7, float("nan")], [True, True, False, False], [0.3, 0.5, 0.8, 0.6])
    shares = threshold_metrics(left_out, 0.5, "drawn by hand")
    assert {name: (one.value, one.n) for name, one in shares.items()} == {
        "accepted and right": (pytest.approx(1 / 3), 3),
        "accepted and wrong": (pytest.approx(1 / 3), 3),
        "refused": (pytest.approx(1 / 3), 3),
        "unknown but accepted": (0.5, 4),
    }
    for one in shares.values():
        assert one.low <= one.value <= one.high
        assert "above cosine 0.5; drawn by hand" in one.protocol


def test_pca_finds_the_plane_and_keeps_distances_in_it() -> None:
    rng = np.random.default_rng(0)
    plane = np.linalg.qr(rng.normal(size=(7, 2)))[0]
    flat_N2 = rng.normal(size=(40, 2)) * [3, 1]
    embedding_ND = flat_N2 @ plane.T + rng.normal(size=7)
    found = project(embedding_ND)
    assert "hold 100% of the variance" in found.words
    for one, other in ((0, 1), (5, 39), (11, 20)):
        assert np.linalg.norm(found.xy_N2[one] - found.xy_N2[other]) == pytest.approx(
            np.linalg.norm(flat_N2[one] - flat_N2[other])
        )
    assert found.xy_N2.var(axis=0)[0] > found.xy_N2.var(axis=0)[1]
    np.testing.assert_allclose(found.place(embedding_ND[3:5]), found.xy_N2[3:5], atol=1e-12)
    np.testing.assert_array_equal(project(embedding_ND).xy_N2, found.xy_N2)


@pytest.mark.parametrize("embedding_ND", [np.ones((1, 4)), np.arange(5.0)[:, None], np.ones((3, 2))])
def test_pca_of_what_spans_no_plane_is_finite(embedding_ND: np.ndarray) -> None:
    found = project(embedding_ND)
    assert found.xy_N2.shape == (len(embedding_ND), 2)
    assert np.isfinite(found.xy_N2).all()
    np.testing.assert_allclose(found.xy_N2[:, 1], 0, atol=1e-12)


def test_a_map_of_nothing_or_by_another_method_is_refused() -> None:
    with pytest.raises(ValueError, match="finite embeddings"):
        project(np.empty((0, 4)))
    with pytest.raises(ValueError, match="finite embeddings"):
        project(np.array([[1.0, np.nan]]))
    with pytest.raises(ValueError, match="pca or umap"):
        project(np.ones((3, 2)), "tsne")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 5"):
        project(np.ones((4, 2)), "umap")


@pytest.mark.slow
def test_umap_keeps_two_clusters_apart_and_places_more_among_their_own() -> None:
    rng = np.random.default_rng(0)
    centre = np.eye(8)[:2].repeat(20, axis=0)
    embedding_ND = centre + 0.05 * rng.normal(size=centre.shape)
    found = project(embedding_ND, "umap", seed=1)
    first, second = found.xy_N2[:20], found.xy_N2[20:]
    apart = np.linalg.norm(first.mean(axis=0) - second.mean(axis=0))
    assert apart > 2 * max(np.linalg.norm(part - part.mean(axis=0), axis=1).max() for part in (first, second))
    placed = found.place(embedding_ND[:1] + 0.01)
    assert np.linalg.norm(placed[0] - first.mean(axis=0)) < np.linalg.norm(placed[0] - second.mean(axis=0))
