"""What an evaluation holds beyond its inputs, counted by tracemalloc (numpy reports its arrays to it)."""

import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.retrieval import k_reciprocal, reid_ranking
from workbench.retrieval.arrays import normalise
from workbench.retrieval.reid import ReidProtocol, evaluate_reid
from workbench.retrieval.rerank import rerank

MIB = 2**20


def peak_of(call: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def read_block(gallery: np.ndarray) -> np.ndarray:
    return rerank(gallery[:100] + 0.01, gallery).block(0, 50)


def unit_rows(seed: int, num_rows: int, width: int, dtype: Any = np.float32) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num_rows, width))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=dtype)


def test_the_matrix_of_queries_by_gallery_never_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reid_ranking, "_BLOCK_BYTES", MIB)
    monkeypatch.setattr(reid_ranking, "_FEWEST_ROWS", 1)
    gallery, labels = unit_rows(0, 6000, 8), np.arange(6000) % 400
    cameras = np.arange(6000) % 7
    evaluate_reid(
        gallery[:50], gallery, labels[:50], labels, cameras[:50], cameras, ReidProtocol()
    )  # what is imported late
    peaks = []
    for num_queries in (400, 1600):
        asked = slice(0, num_queries)
        call = partial(
            evaluate_reid, gallery[asked], gallery, labels[asked], labels, cameras[asked], cameras, ReidProtocol()
        )
        whole = 4 * num_queries * 6000
        # TAR keeps the largest 1 % of the pairs' similarities, at most twice
        kept = 2 * whole // 100
        peaks.append(peak_of(call) - kept)
    assert peaks[1] < 4 * 1600 * 6000 / 2  # half the matrix
    assert peaks[1] - peaks[0] < 1200 * 2000  # some values a query


def test_a_mapped_gallery_of_length_1_is_searched_where_it_is(tmp_path: Path) -> None:
    rows, labels = unit_rows(1, 4000, 32), np.arange(4000) % 100
    np.save(tmp_path / "gallery.npy", rows)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    result = evaluate_reid(rows[:40], mapped, labels[:40], labels, None, None, ReidProtocol(junk="none"))
    searched = result._search.similarity.gallery_GD  # type: ignore[attr-defined]
    assert np.shares_memory(searched, mapped)
    scaled = evaluate_reid(rows[:40], rows * 2, labels[:40], labels, None, None, ReidProtocol(junk="none"))
    assert {name: metric.value for name, metric in result.metrics.items()} == pytest.approx(
        {name: metric.value for name, metric in scaled.metrics.items()}, abs=1e-6
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_only_rows_of_length_1_stay_where_they_are(dtype: Any) -> None:
    rows = unit_rows(2, 300, 64, dtype)
    assert normalise(rows, "rows") is rows
    assert normalise(rows, "rows", np.arange(300)) is rows
    assert normalise(rows, "rows", np.array([7, 3])) == pytest.approx(rows[[7, 3]], abs=4 * float(np.finfo(dtype).eps))
    off = rows.copy()
    off[299] *= 1 + 1e-5
    assert np.linalg.norm(normalise(off, "rows"), axis=1) == pytest.approx(1, abs=8 * float(np.finfo(dtype).eps))
    assert off[299] @ off[299] > 1 + 1e-5  # what was given is left as it was
    assert normalise(rows[:, ::-1], "rows").flags.c_contiguous
    assert normalise(rows, "rows", dtype=np.float64).dtype == np.float64
    assert normalise(rows.astype(np.float16), "rows").dtype == np.float32


def test_zeros_of_either_sign_tie() -> None:
    gallery = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, -0.0, -0.0]])
    result = evaluate_reid(
        np.array([[0.6, 0.8, 0.0]]), gallery, ["a"], list("bca"), None, None, ReidProtocol(junk="none")
    )
    assert result.per_query["first_hit"].tolist() == [2.5]


def test_reranking_never_holds_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(k_reciprocal, "_BLOCK_BYTES", MIB)
    rerank(np.eye(3), np.eye(3))  # what is imported late
    centre = unit_rows(3, 300, 16)
    peaks = {}
    for num_rows in (1000, 3000):
        rng = np.random.default_rng(0)
        gallery = centre[np.arange(num_rows) % (num_rows // 10)] + 0.1 * rng.standard_normal((num_rows, 16))
        peaks[num_rows] = peak_of(partial(read_block, gallery))
    assert peaks[3000] < 8 * 3100**2 / 3  # the dense way holds at least two such matrices
    assert peaks[3000] < 4.5 * peaks[1000]  # three times the images, not nine
