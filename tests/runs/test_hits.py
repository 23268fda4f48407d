from pathlib import Path

import numpy as np
import pytest

from workbench.runs.hits import Hits, read_hits, save_hits


def _hits(values: list[list[float]], queries: str = "abc", labels: str = "xxy") -> Hits:
    return Hits(np.array(list(queries), object), np.array(list(labels), object), np.array(values, np.float32))


def test_what_was_saved_is_read_again_draw_by_draw(tmp_path: Path) -> None:
    first, second = _hits([[0, 0.5, 1], [1, 1, 0]]), _hits([[1, 0, 0]], "cab", "yxx")
    save_hits(tmp_path, {"b/micro": first})
    assert save_hits(tmp_path, {"a/micro": second}) == tmp_path / "queries.parquet"
    found = read_hits(tmp_path)
    assert list(found) == ["b/micro", "a/micro"]
    assert found["b/micro"].hit_DQ.tolist() == [[0, 0.5, 1], [1, 1, 0]]
    assert found["b/micro"].query_Q.tolist() == ["a", "b", "c"]
    assert found["a/micro"].query_Q.tolist() == ["c", "a", "b"]
    assert found["a/micro"].label_Q.tolist() == ["y", "x", "x"]
    save_hits(tmp_path, {"b/micro": _hits([[0, 0, 0]])})
    assert read_hits(tmp_path)["b/micro"].hit_DQ.tolist() == [[0, 0, 0]]
    assert read_hits(tmp_path)["a/micro"].hit_DQ.tolist() == [[1, 0, 0]]


def test_a_run_without_hits_has_none_and_a_broken_file_is_said(tmp_path: Path) -> None:
    assert read_hits(tmp_path) == {}
    (tmp_path / "queries.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match=r"queries\.parquet cannot be read"):
        read_hits(tmp_path)


@pytest.mark.parametrize(
    ("hits", "message"),
    [
        ({}, "at least one metric"),
        ({"m": _hits([[0, 1]])}, "a name and a label each"),
        ({"m": _hits([[0, 1, 0]], "aba")}, "named twice"),
        ({"m": _hits([[0, 1, np.nan]])}, "values from 0 to 1"),
        ({"m": _hits([[0, 1, 1.5]])}, "values from 0 to 1"),
    ],
)
def test_wrong_hits_are_refused_and_nothing_is_written(hits: dict[str, Hits], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        save_hits(tmp_path, hits)
    assert list(tmp_path.iterdir()) == []
