from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics.functional.retrieval import retrieval_average_precision

from workbench.retrieval import parity
from workbench.retrieval.oracles import (
    Pairs,
    pair_up,
    pml_accuracy,
    sklearn_average_precision,
    torchmetrics_average_precision,
)
from workbench.retrieval.parity import COLUMNS, few_shot_parity, rank_plainly, reid_parity
from workbench.retrieval.reid_protocol import ReidProtocol

Given = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def fixture_b() -> Given:
    """PROTOCOLS.md 2, fixture B, whose values several libraries have confirmed."""
    rng = np.random.RandomState(0)
    centre = rng.randn(20, 32)
    query_label, gallery_label = np.repeat(np.arange(20), 2), np.repeat(np.arange(20), 10)
    query, gallery = centre[query_label] + 1.6 * rng.randn(40, 32), centre[gallery_label] + 1.6 * rng.randn(200, 32)
    cameras = rng.randint(0, 6, 40), rng.randint(0, 6, 200)
    query, gallery = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (query, gallery))
    return query.astype(np.float32), gallery.astype(np.float32), query_label, gallery_label, *cameras


def _by_quantity(table: pd.DataFrame) -> dict[str, list[tuple[float, float]]]:
    return {
        str(name): list(zip(part["ours"].round(6), part["theirs"].round(6), strict=True))
        for name, part in table.groupby("quantity")
    }


def test_the_published_fixture_under_every_library(fixture_b: Given) -> None:
    table = reid_parity(*fixture_b, ReidProtocol())
    assert tuple(table.columns) == COLUMNS
    assert set(table["n"]) == {40}
    found = _by_quantity(table)
    assert found["mAP"] == found["mAP, ties threshold"] == [(0.339933, 0.339933)]
    assert found["rank-1"] == [(0.4, 0.55)]
    assert found["rank-1, no camera rule"] == [(0.55, 0.55)]
    assert found["mAP, no camera rule"] == [(0.377222, 0.377222), (0.377222, 0.22528)]
    assert found["R-precision, no camera rule"] == [(0.355, 0.355)] * 2
    assert found["MAP@R, no camera rule"] == [(0.22528, 0.22528)]
    differing = table[~table["agrees"]]
    assert list(differing["quantity"]) == ["rank-1", "mAP, no camera rule"]
    assert "no camera rule" in differing["explanation"].iloc[0]
    assert "max_bin_count, here 10" in differing["explanation"].iloc[1]
    assert not table["explanation"].str.contains("NOT EXPLAINED").any()
    assert table["difference"].to_numpy() == pytest.approx((table["theirs"] - table["ours"]).to_numpy())


def test_few_shot_on_the_same_rows_is_the_case_without_a_camera_rule(fixture_b: Given) -> None:
    query, gallery, query_label, gallery_label, *_ = fixture_b
    table = few_shot_parity(3 * gallery, gallery_label, query, query_label)
    found = _by_quantity(table)
    assert found["accuracy@1"] == [(0.55, 0.55)] * 3
    assert found["R-precision"] == [(0.355, 0.355)] * 2
    assert found["MAP@R"] == [(0.22528, 0.22528)]
    assert table["agrees"].all()


def test_labels_beyond_float32_stay_apart() -> None:
    labels = np.array([16777216, 16777217])
    rows = np.eye(2, dtype=np.float32)
    query = rows[::-1] * 0.9 + rows * 0.1  # each query is nearest to the other label's reference
    assert few_shot_parity(rows, labels, query, labels)["theirs"].eq(0).all()
    naive = Pairs(query / np.linalg.norm(query, axis=1, keepdims=True), rows, labels, labels)
    assert pml_accuracy(naive, ("precision_at_1",))["precision_at_1"] == 1.0  # what the codes are for


def test_a_library_with_another_result_is_not_explained_away(fixture_b: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery, query_label, gallery_label, *_ = fixture_b
    monkeypatch.setattr(parity, "sklearn_nearest", lambda pairs, metric: 0.6)
    table = few_shot_parity(gallery, gallery_label, query, query_label)
    wrong = table[table["library"].str.startswith("scikit")]
    assert not wrong["agrees"].any()
    assert wrong["explanation"].str.startswith("NOT EXPLAINED").all()
    assert wrong["difference"].tolist() == pytest.approx([0.05, 0.05])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"average_precision": "trapezoid"}, "not the trapezoid"),
        ({"ties": "optimistic"}, "does not have ties optimistic"),
        ({"ties": "pessimistic"}, "does not have ties pessimistic"),
        ({"ties": "threshold"}, "does not have ties threshold"),
    ],
)
def test_other_conventions_are_named(fixture_b: Given, changed: dict[str, str], words: str) -> None:
    table = reid_parity(*fixture_b, replace(ReidProtocol(), **changed))  # type: ignore[arg-type]
    mean = table[table["quantity"].isin(["mAP", "mAP, ties threshold"])]
    # scikit-learn is compared under the rule for ties that it has
    assert mean["explanation"].str.contains(words).tolist() == ["ties" not in changed, True]
    assert mean["theirs"].to_numpy() == pytest.approx(0.339933, abs=1e-6)
    assert mean["agrees"].tolist() == ["trapezoid" not in words] * 2  # there are no ties here


@pytest.mark.parametrize("average", ["query", "identity"])
@pytest.mark.parametrize("unmatched", ["skip", "zero"])
@pytest.mark.parametrize("junk", ["same_id_same_camera", "none"])
def test_means_and_unmatched_queries_follow_the_protocol(
    fixture_b: Given, average: str, unmatched: str, junk: str
) -> None:
    query, gallery, query_label, gallery_label, query_camera, gallery_camera = fixture_b
    kept = gallery_label % 5 > 0  # every fifth individual has no match
    few = np.arange(40)[: -(2 if average == "identity" else 1)][:33]  # individuals with different numbers of queries
    protocol = ReidProtocol(junk=junk, unmatched=unmatched, average=average)  # type: ignore[arg-type]
    cameras = query_camera[few], gallery_camera[kept]
    table = reid_parity(query[few], gallery[kept], query_label[few], gallery_label[kept], *cameras, protocol)
    assert table.loc[table["quantity"].str.startswith("mAP"), "agrees"].tolist()[:2] == [True, True]
    assert not table["explanation"].str.contains("NOT EXPLAINED").any()


def test_pooled_tracklets_junk_and_duplicates(fixture_b: Given) -> None:
    query, gallery, query_label, gallery_label, query_camera, gallery_camera = fixture_b
    labels = np.where(np.arange(200) % 11 == 0, -1, gallery_label)
    gallery = np.concatenate([gallery, gallery[:60]])  # equal rows, some of them under another label
    labels, cameras = np.r_[labels, (gallery_label[:60] + 1) % 20], np.r_[gallery_camera, gallery_camera[:60]]
    protocol = ReidProtocol(tracklets="mean")
    table = reid_parity(query, gallery, query_label, labels, query_camera % 2, cameras, protocol)
    num_tracklets = len({*zip(query_label, query_camera % 2, strict=True)})
    assert set(table["n"]) == {num_tracklets}
    exact = table[table["library"].str.startswith("scikit")]
    assert exact["agrees"].all()
    assert exact["tolerance"].max() < 1e-8
    assert not table["explanation"].str.contains("NOT EXPLAINED").any()
    # Equal rows of different labels may be ordered either way: the tolerance knows.
    assert table.loc[table["library"].str.contains("retrieval_average"), "tolerance"].item() > 1e-3


def test_a_draw_of_queries_is_stated_and_repeats(fixture_b: Given) -> None:
    table = reid_parity(*fixture_b, ReidProtocol(), num_queries=15, seed=3)
    assert set(table["n"]) == {15}
    assert table["explanation"].str.endswith("; a draw of 15 of 40 queries").all()
    pd.testing.assert_frame_equal(table, reid_parity(*fixture_b, ReidProtocol(), num_queries=15, seed=3))
    other = reid_parity(*fixture_b, ReidProtocol(), num_queries=15, seed=4)
    assert other["ours"].iloc[0] != table["ours"].iloc[0]


def test_queries_without_a_reference_are_left_out(fixture_b: Given) -> None:
    query, gallery, query_label, gallery_label, *_ = fixture_b
    kept = gallery_label >= 5
    table = few_shot_parity(gallery[kept], gallery_label[kept], query, query_label)
    assert set(table["n"]) == {30}
    assert table["agrees"].all()
    with pytest.raises(ValueError, match="without a reference"):
        few_shot_parity(gallery[kept], gallery_label[kept], query[:5], query_label[:5])


def test_the_zeroing_of_torchmetrics_is_avoided() -> None:
    pairs = pair_up(-np.eye(1, 3), np.array([[1.0, 0, 0], [1.0, 0.1, 0]]), np.array(["a"]), np.array(["a", "b"]))
    assert torchmetrics_average_precision(pairs).tolist() == [0.5]  # all cosines are below 0, the right row is last
    trap = retrieval_average_precision(torch.tensor([-1.0, -0.9]), torch.tensor([True, False]))
    assert trap == 0.0


def test_plain_ranking_by_hand() -> None:
    # Similarities .9 .8 .7 .6: right, wrong, right, right. A fifth row of the query's camera is junk.
    gallery = np.array([[c, np.sqrt(1 - c * c)] for c in (0.9, 0.8, 0.7, 0.6, 0.99)])
    pairs = pair_up(np.array([[1.0, 0.0]]), gallery, np.array(["a"]), np.array(["a", "b", "a", "a", "a"]))
    pairs = pairs.under_cameras(np.array([0]), np.array([1, 1, 2, 3, 0]))
    plain_MQ, moved_MQ = rank_plainly(pairs)
    assert plain_MQ[:, 0] == pytest.approx([1, (1 + 2 / 3 + 3 / 4) / 3, 2 / 3, (1 + 2 / 3) / 3])
    assert moved_MQ[:, 0].tolist() == [0, 0, 0, 0]
    assert sklearn_average_precision(pairs) == pytest.approx(plain_MQ[1])
    tied = replace(pairs, gallery_GD=np.repeat(gallery[:1], 5, axis=0))
    assert rank_plainly(tied)[1][:, 0] == pytest.approx(
        [1, 1 - (1 / 2 + 2 / 3 + 3 / 4) / 3, 1 / 3, 1 - (1 / 2 + 2 / 3) / 3]
    )


def test_a_query_without_a_match_has_no_precision() -> None:
    pairs = pair_up(np.eye(2), np.eye(2), np.array(["a", "x"]), np.array(["a", "b"]))
    for precision_Q in (
        sklearn_average_precision(pairs),
        torchmetrics_average_precision(pairs),
        rank_plainly(pairs)[0][1],
    ):
        assert precision_Q[0] == 1
        assert np.isnan(precision_Q[1])


def test_one_reference_a_class_is_an_ordinary_gallery() -> None:
    rng = np.random.default_rng(0)
    labels = [f"sku {number}" for number in range(40)]
    reference = rng.standard_normal((40, 16))
    query = reference + 0.9 * rng.standard_normal((40, 16))
    table = few_shot_parity(reference, labels, query, labels)
    assert table["agrees"].all()
    assert 0.3 < table["ours"].iloc[0] < 1


def test_libraries_agree_where_each_image_searches_all_the_others(fixture_b: Given) -> None:
    _, gallery, _, labels, _, _ = fixture_b
    table = reid_parity(gallery, gallery, labels, labels, None, None, ReidProtocol(junk="itself"), num_queries=50)
    assert not table["explanation"].str.contains("NOT EXPLAINED").any()
    rank = table[table["quantity"] == "rank-1"].iloc[0]
    assert rank["ours"] < rank["theirs"] == 1, "who is in the gallery finds itself"
    assert "the query itself" in rank["explanation"]
