"""Indexes against a plain search: what is found, what is missed, what a table of them says and recommends."""

import json
from collections.abc import Iterator
from pathlib import Path

import faiss
import faiss.contrib.torch_utils  # pytorch-metric-learning does so, and replaces faiss's methods
import numpy as np
import pandas as pd
import pytest

from workbench.retrieval import index_choice
from workbench.retrieval.approximate import KINDS, LEAST_ROWS, ApproximateGallery, Kind, build_index, threads
from workbench.retrieval.gallery import Gallery, Matches
from workbench.retrieval.gallery_folder import GalleryError
from workbench.retrieval.index_choice import IndexChoice, compare_indexes

NUM_LABELS, PER_LABEL, DIM = 40, 260, 8  # 10,400 rows: enough to train every kind


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with threads(1):
        yield


def _cloud(seed: int, per_label: int) -> np.ndarray:
    centre_CD = np.random.default_rng(0).standard_normal((NUM_LABELS, DIM))
    rng = np.random.default_rng(seed)
    return np.repeat(centre_CD, per_label, axis=0) + 0.8 * rng.standard_normal((NUM_LABELS * per_label, DIM))


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    labels = [f"{n // PER_LABEL:014d}" for n in range(NUM_LABELS * PER_LABEL)]
    return Gallery.build(_cloud(1, PER_LABEL), labels)


@pytest.fixture(scope="module")
def indexes(gallery: Gallery) -> dict[Kind, ApproximateGallery]:
    return {kind: build_index(gallery, kind) for kind in KINDS}


QUERY_QD = _cloud(2, 3)


def _plain_nearest(gallery: Gallery, k: int) -> list[set[int]]:
    unit_QD = QUERY_QD / np.linalg.norm(QUERY_QD, axis=1, keepdims=True)
    return [set(np.argsort(-(gallery.embedding_ND.astype(float) @ query_D))[:k].tolist()) for query_D in unit_QD]


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_right_similarities_of_references_that_are_there(
    gallery: Gallery, indexes: dict[Kind, ApproximateGallery], kind: Kind
) -> None:
    matches = indexes[kind].search(QUERY_QD, 10)
    unit_QD = QUERY_QD / np.linalg.norm(QUERY_QD, axis=1, keepdims=True)
    wanted_QK = np.einsum("qd,qkd->qk", unit_QD, gallery.embedding_ND[matches.reference_QK].astype(float))
    np.testing.assert_allclose(matches.similarity_QK, wanted_QK, atol=2e-7)
    assert (np.diff(matches.similarity_QK, axis=1) <= 0).all()
    assert all(len(set(row)) == 10 for row in matches.reference_QK.tolist())
    label_N = gallery.references["label"].to_numpy(dtype=object)
    np.testing.assert_array_equal(matches.label_QK, label_N[matches.reference_QK])
    # The answers that the exact search has too are as similar, to the bit.
    exact = gallery.search(QUERY_QD, 10)
    for row in range(len(QUERY_QD)):
        there = dict(zip(exact.reference_QK[row].tolist(), exact.similarity_QK[row].tolist(), strict=True))
        pairs = zip(matches.reference_QK[row].tolist(), matches.similarity_QK[row].tolist(), strict=True)
        found = [(reference, similarity) for reference, similarity in pairs if reference in there]
        assert all(similarity == there[reference] for reference, similarity in found)


def test_looking_into_every_list_is_the_exact_search(gallery: Gallery, indexes: dict[Kind, ApproximateGallery]) -> None:
    everywhere = indexes["ivf"].with_effort(10**9)
    assert everywhere.setting == "IVF, 266 of 266 lists"
    for k in (1, 10):
        np.testing.assert_array_equal(
            everywhere.search(QUERY_QD, k).reference_QK, gallery.search(QUERY_QD, k).reference_QK
        )
    ours, exact = everywhere.search_labels(QUERY_QD[:20], 4), gallery.search_labels(QUERY_QD[:20], 4)
    np.testing.assert_array_equal(ours.label_QK, exact.label_QK)
    np.testing.assert_array_equal(ours.reference_QK, exact.reference_QK)
    np.testing.assert_array_equal(ours.similarity_QK, exact.similarity_QK)


def test_one_list_holds_what_its_centre_is_nearest_to() -> None:
    # Four directions far apart and as many lists: a query sees its own direction only, and misses nothing there.
    rng = np.random.default_rng(5)
    axis_N = np.repeat(np.arange(4), 60)
    rows_ND = np.eye(4)[axis_N] + 0.05 * rng.standard_normal((240, 4))
    gallery = Gallery.build(rows_ND, [str(axis) for axis in axis_N])
    index = build_index(gallery, "ivf", 1, num_lists=4)
    matches = index.search(np.eye(4), 60)
    assert [set(row) for row in matches.label_QK.tolist()] == [{"0"}, {"1"}, {"2"}, {"3"}]
    np.testing.assert_array_equal(matches.reference_QK, gallery.search(np.eye(4), 60).reference_QK)
    # The list has 60; for the 61st nearest, and for a second label, the query is searched exactly.
    for k, searched in ((61, "search"), (2, "search_labels")):
        ours, exact = getattr(index, searched)(np.eye(4), k), getattr(gallery, searched)(np.eye(4), k)
        np.testing.assert_array_equal(ours.reference_QK, exact.reference_QK)
        np.testing.assert_array_equal(ours.similarity_QK, exact.similarity_QK)
        np.testing.assert_array_equal(ours.label_QK, exact.label_QK)


def test_edges_of_k_and_of_the_queries(gallery: Gallery) -> None:
    small = Gallery.build(np.eye(3), ["a", "b", "a"])
    index = build_index(small, "hnsw")
    assert index.search(np.eye(3), 50).reference_QK.tolist() == small.search(np.eye(3), 50).reference_QK.tolist()
    assert index.search_labels(np.eye(3), 50).label_QK.tolist() == [["a", "b"], ["b", "a"], ["a", "b"]]
    assert index.search(np.empty((0, 3)), 2).reference_QK.shape == (0, 2)
    with pytest.raises(ValueError, match="k must be at least 1"):
        index.search(np.eye(3), 0)
    with pytest.raises(ValueError, match="row 0 of query_QD has length zero"):
        index.search(np.zeros((1, 3)), 1)
    with pytest.raises(ValueError, match="effort must be at least 1"):
        index.with_effort(0)
    equal = build_index(Gallery.build(np.ones((100, 4)), [f"{n // 50}" for n in range(100)]), "ivf")
    assert equal.search_labels(np.ones((1, 4)), 2).reference_QK.tolist() == [[0, 50]]


@pytest.mark.parametrize("kind", KINDS)
def test_too_few_references_are_refused_and_the_least_number_is_enough(gallery: Gallery, kind: Kind) -> None:
    rows_ND = gallery.embedding_ND[: LEAST_ROWS[kind]]
    assert len(build_index(Gallery.build(rows_ND, ["a"] * len(rows_ND)), kind).gallery) == len(rows_ND)
    fewer = Gallery.build(rows_ND[1:], ["a"] * (len(rows_ND) - 1))
    with pytest.raises(ValueError, match=rf"needs {LEAST_ROWS[kind]:,} references.*exact"):
        build_index(fewer, kind)


def test_settings_out_of_range_are_refused(gallery: Gallery) -> None:
    with pytest.raises(ValueError, match="kind must be one of ivf, hnsw, ivf_pq, found 'pq'"):
        build_index(gallery, "pq")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_lists must be from 1 to 266"):
        build_index(gallery, "ivf", num_lists=267)
    with pytest.raises(ValueError, match="num_bytes must divide the width 8, found 3"):
        build_index(gallery, "ivf_pq", num_bytes=3)


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
def test_the_same_seed_gives_the_same_index_and_another_one_another(kind: Kind) -> None:
    gallery = Gallery.build(_cloud(3, 20), ["a"] * (20 * NUM_LABELS))
    first, again, other = (faiss.serialize_index(build_index(gallery, kind, seed=seed)._index) for seed in (0, 0, 1))
    assert first.tobytes() == again.tobytes() != other.tobytes()


def test_size_is_that_of_the_written_index(tmp_path: Path, indexes: dict[Kind, ApproximateGallery]) -> None:
    for kind, index in indexes.items():
        index.save(tmp_path / kind)
        assert index.num_bytes == (tmp_path / kind / "index.faiss").stat().st_size
    # A code of 2 bytes and an id of 8 bytes for each reference; a list's and a code's centres beside them.
    num_rows, num_lists = NUM_LABELS * PER_LABEL, indexes["ivf_pq"]._index.nlist
    tables = num_lists * DIM * 4 + 256 * DIM * 4
    assert indexes["ivf_pq"].num_bytes == pytest.approx(num_rows * (2 + 8) + tables + 8 * num_lists, rel=0.02)


def test_save_and_load(tmp_path: Path, gallery: Gallery, indexes: dict[Kind, ApproximateGallery]) -> None:
    gallery.save(tmp_path / "gallery")
    mapped = Gallery.load(tmp_path / "gallery", in_memory=False)
    for kind, index in indexes.items():
        index.save(tmp_path / kind)
        loaded = ApproximateGallery.load(tmp_path / kind, mapped)
        assert (loaded.kind, loaded.effort, loaded.setting) == (kind, index.effort, index.setting)
        ours, wanted = loaded.search_labels(QUERY_QD, 3), index.search_labels(QUERY_QD, 3)
        np.testing.assert_array_equal(ours.similarity_QK, wanted.similarity_QK)
        np.testing.assert_array_equal(ours.label_QK, wanted.label_QK)
    with pytest.raises(FileExistsError, match="is there already"):
        indexes["ivf"].save(tmp_path / "ivf")
    with pytest.raises(GalleryError, match="of another gallery"):
        ApproximateGallery.load(tmp_path / "ivf", Gallery.build(np.eye(8), list("abcdefgh")))
    path = tmp_path / "hnsw" / "index.faiss"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(GalleryError, match=r"index\.faiss is missing or damaged"):
        ApproximateGallery.load(tmp_path / "hnsw", mapped)
    described = tmp_path / "ivf" / "index.json"
    described.write_text(json.dumps({**json.loads(described.read_text()), "format_version": 2}))
    with pytest.raises(GalleryError, match="Build the index again"):
        ApproximateGallery.load(tmp_path / "ivf", mapped)
    with pytest.raises(GalleryError, match="is no index of a gallery"):
        ApproximateGallery.load(tmp_path, mapped)


def test_an_index_does_not_survive_a_change_of_its_gallery() -> None:
    gallery = Gallery.build(np.eye(3), ["a", "b", "c"])
    index = build_index(gallery, "hnsw")
    gallery.add("d", np.ones((1, 3)))
    with pytest.raises(ValueError, match="has changed since the index was built"):
        index.search(np.eye(3), 1)


def test_threads_are_given_back_after_an_error() -> None:
    before = faiss.omp_get_max_threads()
    inside: list[int] = []

    def fail() -> None:
        with threads(before + 1):
            inside.append(faiss.omp_get_max_threads())
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert inside == [before + 1]
    assert faiss.omp_get_max_threads() == before


@pytest.fixture(scope="module")
def choice(gallery: Gallery) -> IndexChoice:
    efforts: dict[Kind, tuple[int, ...]] = {"ivf": (1, 8), "hnsw": (32,), "ivf_pq": (1,)}
    return compare_indexes(gallery, QUERY_QD, np.arange(len(QUERY_QD)) // 3, efforts=efforts)


def test_recall_is_what_a_plain_search_counts(
    gallery: Gallery, indexes: dict[Kind, ApproximateGallery], choice: IndexChoice
) -> None:
    tried: list[tuple[Kind, int]] = [("ivf", 1), ("ivf", 8), ("hnsw", 32), ("ivf_pq", 1)]
    for place, (kind, effort) in enumerate(tried, start=1):
        row = choice.table.iloc[place]
        assert (row["kind"], row["effort"]) == (kind, effort)
        matches = indexes[kind].with_effort(effort).search(QUERY_QD, 10)
        for top in (1, 10):
            nearest = _plain_nearest(gallery, top)
            shares = [
                len(set(found[:top]) & wanted) / top
                for found, wanted in zip(matches.reference_QK.tolist(), nearest, strict=True)
            ]
            assert row[f"recall@{top}"] == pytest.approx(np.mean(shares), abs=1e-9)
            assert row[f"recall@{top}_low"] <= row[f"recall@{top}"] <= row[f"recall@{top}_high"]
            metric = choice.metrics[f"recall@{top}/{row['setting']}"]
            assert (metric.value, metric.n) == (row[f"recall@{top}"], 120)
    one, eight = choice.table.iloc[1], choice.table.iloc[2]
    assert one["recall@10"] < eight["recall@10"] < 1
    assert one["recall@10_high"] < 1


def test_the_exact_row_is_the_measure_of_the_others(gallery: Gallery, choice: IndexChoice) -> None:
    exact = choice.table.iloc[0]
    wanted = {"setting": "exact", "time_ratio": 1.0, "same_label": 1.0, "recall@1": 1.0, "recall@10_low": 1.0}
    assert {name: exact[name] for name in wanted} == wanted
    assert exact["memory_mib"] == NUM_LABELS * PER_LABEL * DIM * 4 / 2**20
    assert (choice.table["ms_per_query"] > 0).all()
    assert "gallery of 10,400 x 8; 120 queries, grouped by label" in choice.protocol


def test_references_as_queries_do_not_find_themselves() -> None:
    # Pairs of equal rows, far from other pairs: the nearest other reference of each is its twin, at similarity 1.
    rng = np.random.default_rng(8)
    rows_ND = np.repeat(rng.standard_normal((60, 16)), 2, axis=0)
    gallery = Gallery.build(rows_ND, [f"{n}" for n in range(120)])
    choice = compare_indexes(gallery, efforts={"ivf": (1,), "ivf_pq": (1,)}, num_queries=50)
    # Twins fall in one list, so that nothing is missed at 1; their labels differ, so that a self-match would show.
    assert choice.table.loc[1, "recall@1"] == 1.0
    assert choice.table.loc[1, "same_label"] == 1.0
    assert choice.table["recall@10"].tolist()[1] < 1
    assert "50 references as queries, each without itself" in choice.protocol
    note = choice.table.iloc[2]
    assert (note["kind"], note["note"]) == ("ivf_pq", "needs 9,984 references to be trained, found 120")
    assert np.isnan(note["time_ratio"])


def test_own_reference_is_taken_out_wherever_it_stands() -> None:
    similarity = np.array([[1.0, 0.9, 0.8], [0.7, 0.6, 0.5], [0.4, 0.4, 0.4]], np.float32)
    reference = np.array([[4, 1, 2], [5, 6, 7], [3, 8, 9]])
    matches = index_choice._without_own(Matches(similarity, reference.astype(object), reference), np.array([1, 2, 9]))
    assert matches.reference_QK.tolist() == [[4, 2], [5, 6], [3, 8]]
    np.testing.assert_array_equal(matches.similarity_QK, np.array([[1, 0.8], [0.7, 0.6], [0.4, 0.4]], np.float32))


def test_tied_references_count_as_found() -> None:
    gallery = Gallery.build(np.ones((200, 4)), [f"{n}" for n in range(200)])
    choice = compare_indexes(gallery, np.ones((3, 4)), efforts={"hnsw": (16,)})
    assert choice.table["recall@10"].tolist() == [1.0, 1.0]


def test_tiny_galleries_are_compared_as_far_as_it_goes() -> None:
    choice = compare_indexes(Gallery.build(np.eye(3), ["a", "b", "c"]))
    assert choice.table["kind"].tolist() == ["exact", "hnsw", "hnsw", "hnsw", "ivf", "ivf_pq"]
    assert (choice.table["note"] != "").tolist() == [False] * 4 + [True] * 2
    assert (choice.table["recall@10"][:4] == 1).all()
    assert choice.recommend().startswith("exact: 3 references take")
    with pytest.raises(ValueError, match="at least 2 references"):
        compare_indexes(Gallery.build(np.ones((1, 3)), ["a"]))
    gallery = Gallery.build(np.eye(3), ["a", "b", "c"])
    with pytest.raises(ValueError, match="holds no query"):
        compare_indexes(gallery, np.empty((0, 3)))
    with pytest.raises(ValueError, match="without query_QD"):
        compare_indexes(gallery, query_labels=["a"])
    with pytest.raises(ValueError, match="at least 1"):
        compare_indexes(gallery, num_queries=0)


def _table() -> IndexChoice:
    rows = [
        ("exact", "exact", 1.0, 1.0, 1.0, 1.0, 80.0, 400.0),
        ("IVF, 8 of 500 lists", "ivf", 0.97, 0.95, 0.98, 0.05, 4.0, 410.0),
        ("HNSW, 32 links, 64 candidates", "hnsw", 0.996, 0.991, 0.999, 0.1, 8.0, 700.0),
        ("HNSW, 32 links, 512 candidates", "hnsw", 1.0, 0.998, 1.0, 0.6, 48.0, 700.0),
        ("IVF-PQ, 16 bytes a reference, 64 of 500 lists", "ivf_pq", 0.993, 0.9905, 0.995, 0.2, 16.0, 60.0),
    ]
    names = ["setting", "kind", "recall@1", "recall@1_low", "recall@1_high", "time_ratio", "ms_per_query", "memory_mib"]
    missing = pd.DataFrame([{"setting": "other", "kind": "other", "note": "needs more"}])
    table = pd.concat([pd.DataFrame(rows, columns=names), missing], ignore_index=True)
    return IndexChoice(table, {}, "a protocol", 200_000)


@pytest.mark.parametrize(
    ("demands", "begin", "within"),
    [
        ({}, "HNSW, 32 links, 64 candidates: 0.1 times", "recall@1 99.6% [99.1%, 99.9%], 700 MiB beside 400 MiB"),
        ({"min_recall": 0.95}, "IVF, 8 of 500 lists: 0.05 times", "200,000 references take 80 ms a query"),
        ({"max_memory_mib": 100}, "IVF-PQ, 16 bytes", "at most 100 MiB"),
        ({"min_recall": 0.995}, "exact: ", "(HNSW, 32 links, 512 candidates) takes 0.60 times as long"),
        ({"min_recall": 0.999}, "exact: ", "the nearest, HNSW, 32 links, 512 candidates, is at 100.0%"),
        ({"min_recall": 0.995, "max_memory_mib": 100}, "exact from the gallery's file", "no index was found"),
        ({"max_memory_mib": 10}, "exact from the gallery's file", "no index was found with recall@1 of at least 99.0%"),
        ({"fast_enough_ms": 80}, "exact: 200,000 references take 80 ms", "nothing is gained"),
        ({"fast_enough_ms": 80, "max_memory_mib": 100}, "IVF-PQ", "0.2 times"),
    ],
)
def test_recommendation(demands: dict[str, float], begin: str, within: str) -> None:
    sentence = _table().recommend(**demands)
    assert sentence.startswith(begin)
    assert within in sentence


def test_demands_out_of_range_are_refused() -> None:
    for demands in ({"min_recall": 1.5}, {"max_memory_mib": 0.0}, {"fast_enough_ms": -1.0}):
        with pytest.raises(ValueError, match="Wanted min_recall from 0 to 1"):
            _table().recommend(**demands)
