"""The gallery against hand-worked answers, a plain sort in float64 and a model made of a list."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.retrieval import exact_search
from workbench.retrieval.gallery import Gallery

# Directions with whole-number products, so that ties are exact: many of these cosines are equal.
AXES_SIX = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [1, 1, 0], [2, 2, 0]], dtype=np.float32)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Thousands of tiny searches would mostly wait for threads on a busy machine."""
    num_threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(num_threads)


def _plain_search(embedding_ND: np.ndarray, query_QD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All similarities (float32) and rows of each query, by similarity and then by row: one pair after the other."""
    similarity_QN = np.array(
        [[float(np.dot(q, r)) for r in embedding_ND.astype(float)] for q in query_QD.astype(float)]
    )
    similarity_QN = similarity_QN.astype(np.float32)
    row_QN = np.array([np.lexsort((np.arange(len(row)), -row)) for row in similarity_QN])
    return np.take_along_axis(similarity_QN, row_QN, axis=1), row_QN


def _unit(rng: np.random.Generator, num_rows: int, dim: int) -> np.ndarray:
    embedding_ND = rng.standard_normal((num_rows, dim))
    return (embedding_ND / np.linalg.norm(embedding_ND, axis=1, keepdims=True)).astype(np.float32)


def _six() -> Gallery:
    return Gallery.build(AXES_SIX, ["cola", "tea", "milk", "soap", "tea", "cola"], [f"{n}.jpg" for n in range(6)])


def test_search_hand_worked() -> None:
    matches = _six().search(np.array([[3.0, 0.0, 0.0], [0.0, 5.0, 0.0]]), k=3)
    half = np.float32(np.sqrt(0.5))
    np.testing.assert_allclose(matches.similarity_QK, np.array([[1, half, half], [1, half, half]]), rtol=2e-7)
    assert matches.similarity_QK.dtype == np.float32
    assert matches.reference_QK.dtype == np.int64
    # References 4 and 5 point the same way, one twice as long: a tie, which the smaller id wins.
    assert matches.reference_QK.tolist() == [[0, 4, 5], [1, 4, 5]]
    assert matches.label_QK.tolist() == [["cola", "tea", "cola"], ["tea", "tea", "cola"]]


def test_search_labels_hand_worked() -> None:
    matches = _six().search_labels(np.array([[3.0, 0.0, 0.0], [0.0, 5.0, 0.0]]), k=3)
    assert matches.label_QK.tolist() == [["cola", "tea", "milk"], ["tea", "cola", "milk"]]
    assert matches.reference_QK.tolist() == [[0, 4, 2], [1, 5, 2]]


def test_the_opposite_direction_comes_last_at_minus_one() -> None:
    matches = _six().search(np.array([[1.0, 0.0, 0.0]]), k=6)
    assert matches.reference_QK.tolist() == [[0, 4, 5, 1, 2, 3]]
    assert matches.similarity_QK[0, -1] == -1.0


def test_k_beyond_the_gallery_gives_what_there_is() -> None:
    gallery = _six()
    assert gallery.search(AXES_SIX, 50).reference_QK.shape == (6, 6)
    assert gallery.search_labels(AXES_SIX, 50).label_QK.shape == (6, 4)
    assert gallery.search(np.empty((0, 3)), 2).similarity_QK.shape == (0, 2)


@pytest.mark.parametrize(("num_rows", "dim", "k"), [(1, 1, 1), (7, 3, 7), (300, 16, 1), (300, 16, 25), (1500, 8, 40)])
def test_search_equals_a_plain_sort(num_rows: int, dim: int, k: int) -> None:
    rng = np.random.default_rng(num_rows + k)
    gallery = Gallery.build(_unit(rng, num_rows, dim), [str(n % 11) for n in range(num_rows)])
    query_QD = _unit(rng, 12, dim)
    # What is stored is the reference; a query is normalised once more, which may move a last bit.
    stored_query_QD = Gallery.build(query_QD, ["q"] * 12).embedding_ND
    similarity_QN, row_QN = _plain_search(gallery.embedding_ND, stored_query_QD)
    matches = gallery.search(query_QD, k)
    np.testing.assert_allclose(matches.similarity_QK, similarity_QN[:, :k], rtol=0, atol=1.2e-7)
    np.testing.assert_array_equal(matches.reference_QK, row_QN[:, :k])


def test_equal_embeddings_tie_to_the_bit_and_go_by_id_whatever_the_batch() -> None:
    rng = np.random.default_rng(5)
    distinct_MD = _unit(rng, 40, 96)
    pick_N = rng.integers(0, 40, 1000)
    gallery = Gallery.build(distinct_MD[pick_N], [str(n) for n in range(1000)])
    query_QD = _unit(rng, 64, 96)
    together = gallery.search(query_QD, 30)
    for row in range(len(query_QD)):
        alone = gallery.search(query_QD[row : row + 1], 30)
        np.testing.assert_array_equal(alone.similarity_QK[0], together.similarity_QK[row])
        np.testing.assert_array_equal(alone.reference_QK[0], together.reference_QK[row])
    picked_QK = pick_N[together.reference_QK]
    same_QK = picked_QK[:, 1:] == picked_QK[:, :-1]
    assert same_QK.mean() > 0.8
    assert (np.diff(together.similarity_QK, axis=1)[same_QK] == 0).all()
    assert (np.diff(together.reference_QK, axis=1)[same_QK] > 0).all()
    # The smallest ids of the nearest direction: none is lost where a tie crosses the cut.
    for row in range(len(query_QD)):
        wanted = np.flatnonzero(pick_N == picked_QK[row, 0])[:30]
        np.testing.assert_array_equal(together.reference_QK[row, : len(wanted)], wanted)


def test_all_references_equal() -> None:
    gallery = Gallery.build(np.ones((500, 4)), [f"{n // 100}" for n in range(500)])
    assert gallery.search(np.ones((1, 4)), 3).reference_QK.tolist() == [[0, 1, 2]]
    assert gallery.search_labels(np.ones((1, 4)), 3).reference_QK.tolist() == [[0, 100, 200]]


def test_search_labels_finds_classes_behind_thousands_of_references_of_one() -> None:
    rng = np.random.default_rng(0)
    near_ND = np.column_stack([np.ones(3000), rng.permutation(np.linspace(0.02, 0.3, 3000)), np.zeros(3000)])
    gallery = Gallery.build(near_ND, ["crowd"] * 3000)
    gallery.add("second", np.array([[1.0, 1.0, 0.0]]))
    gallery.add("third", np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]]))
    matches = gallery.search_labels(np.array([[1.0, 0.0, 0.0]]), 3)
    assert matches.label_QK.tolist() == [["crowd", "second", "third"]]
    assert matches.reference_QK[0, 1:].tolist() == [3000, 3001]
    assert matches.reference_QK[0, 0] == np.argmin(near_ND[:, 1])


class _BlurredIndex:
    """Stands for a GPU, whose sums differ in their last bits from the CPU's: here by up to a quarter of the bound."""

    def __init__(self, index: faiss.Index):
        self.index = index
        self.widths: list[int] = []

    def search(self, query_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        self.widths.append(k)
        similarity_QN, row_QN = self.index.search(query_QD, self.index.ntotal)
        bound = self.index.d * np.finfo(np.float32).eps / 4
        similarity_QN = similarity_QN + (bound * np.cos(row_QN * 1.7)).astype(np.float32)
        order_QN = np.argsort(-similarity_QN, axis=1)[:, :k]
        return np.take_along_axis(similarity_QN, order_QN, axis=1), np.take_along_axis(row_QN, order_QN, axis=1)


def test_a_gpu_index_gives_the_same_bits_and_is_rebuilt_after_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[_BlurredIndex] = []

    def copy_to_gpu(resources: object, device: int, index: faiss.Index) -> _BlurredIndex:
        made.append(_BlurredIndex(faiss.clone_index(index)))
        return made[-1]

    rng = np.random.default_rng(1)
    # Rows a few rounding errors apart, so that the order of the candidates on the "GPU" is wrong.
    embedding_ND = np.concatenate([_unit(rng, 1, 32) + 1e-7 * rng.standard_normal((60, 32)), _unit(rng, 2500, 32)])
    labels = [f"{n % 50}" for n in range(len(embedding_ND))]
    query_QD = np.concatenate([embedding_ND[:3], _unit(rng, 5, 32)])
    on_cpu = [Gallery.build(embedding_ND, labels).search(query_QD, k) for k in (5, 2300)]
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", copy_to_gpu, raising=False)
    gallery = Gallery.build(embedding_ND, labels)
    for k, wanted in zip((5, 2300), on_cpu, strict=True):
        found = gallery.search(query_QD, k)
        np.testing.assert_array_equal(found.similarity_QK, wanted.similarity_QK)
        np.testing.assert_array_equal(found.reference_QK, wanted.reference_QK)
    assert len(made) == 1
    assert max(made[0].widths) <= exact_search._GPU_MAX_WIDTH
    gallery.remove("0")
    assert "0" not in gallery.search(query_QD, 5).label_QK
    assert len(made) == 2


def test_ids_stay_and_are_never_given_again() -> None:
    gallery = _six()
    assert gallery.remove("tea") == 2
    assert gallery.add("tea", AXES_SIX[1:2], ["new.jpg"]).tolist() == [6]
    assert gallery.references.to_dict("list") == {
        "reference": [0, 2, 3, 5, 6],
        "label": ["cola", "milk", "soap", "cola", "tea"],
        "name": ["0.jpg", "2.jpg", "3.jpg", "5.jpg", "new.jpg"],
    }
    assert gallery.search(AXES_SIX[1:2], 2).reference_QK.tolist() == [[6, 5]]
    assert gallery.labels == ["cola", "milk", "soap", "tea"]


def test_version_grows_with_every_change_and_with_nothing_else() -> None:
    gallery = Gallery(3)
    assert gallery.version == 0
    gallery.add("a", AXES_SIX[:2])
    gallery.add("b", AXES_SIX[2:3])
    assert gallery.version == 2
    gallery.search(AXES_SIX, 1)
    with pytest.raises(KeyError):
        gallery.remove("c")
    with pytest.raises(ValueError, match="row 0 of embedding_ND has length zero"):
        gallery.add("c", np.zeros((1, 3)))
    assert (gallery.version, len(gallery), gallery.labels) == (2, 3, ["a", "b"])
    gallery.remove("a")
    assert gallery.version == 3


def test_remove_unknown_label_suggests_one() -> None:
    with pytest.raises(KeyError, match=r"no label 'coal' among its 4. Did you mean 'cola'"):
        _six().remove("coal")


def test_a_gallery_emptied_and_filled_again() -> None:
    gallery = Gallery.build(AXES_SIX[:2], ["a", "a"])
    assert gallery.remove("a") == 2
    assert (len(gallery), gallery.labels, gallery.embedding_ND.shape) == (0, [], (0, 3))
    with pytest.raises(ValueError, match="gallery is empty"):
        gallery.search(AXES_SIX, 1)
    with pytest.raises(ValueError, match="gallery is empty"):
        gallery.search_labels(AXES_SIX, 1)
    gallery.add("b", AXES_SIX[:1])
    assert gallery.search(AXES_SIX[:1], 1).reference_QK.tolist() == [[2]]


def test_labels_are_text_to_the_last_digit() -> None:
    labels = ["16777216", "16777217", "007", "7", "7.0", "\u00e9", "e", "nan", "None", " 7"]
    gallery = Gallery.build(np.eye(10), labels)
    assert gallery.search_labels(np.eye(10), 1).label_QK[:, 0].tolist() == labels
    assert gallery.remove("16777217") == 1
    assert gallery.remove("7") == 1
    assert gallery.labels == ["16777216", "007", "7.0", "\u00e9", "e", "nan", "None", " 7"]


def test_normalised_without_overflow_or_underflow() -> None:
    gallery = Gallery.build(np.array([[3e300, 4e300], [3e-300, -4e-300]]), ["big", "small"])
    np.testing.assert_array_equal(gallery.embedding_ND, np.array([[0.6, 0.8], [0.6, -0.8]], dtype=np.float32))
    halves_ND = np.array([[60000, 60000]], dtype=np.float16)
    np.testing.assert_allclose(Gallery.build(halves_ND, ["h"]).embedding_ND, [[0.70710677, 0.70710677]])


def test_the_callers_array_is_neither_changed_nor_kept() -> None:
    embedding_ND = np.array([[3.0, 4.0]], dtype=np.float32)
    gallery = Gallery.build(embedding_ND, ["a"])
    assert embedding_ND.tolist() == [[3.0, 4.0]]
    gallery.embedding_ND[:] = 0
    embedding_ND[:] = 0
    assert gallery.search(np.array([[3.0, 4.0]]), 1).similarity_QK[0, 0] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("embedding_ND", "labels", "message"),
    [
        (np.array([[1.0, np.nan], [1.0, 0.0]]), ["a", "b"], "row 0 of embedding_ND is not finite"),
        (np.array([[1.0, 0.0], [1.0, np.inf]]), ["a", "b"], "row 1 of embedding_ND is not finite"),
        (np.array([[1.0, 0.0], [0.0, -0.0]]), ["a", "b"], "row 1 of embedding_ND has length zero"),
        (np.ones(3), ["a"], r"two axes \(rows, 1\), found shape \(3,\)"),
        (np.ones((2, 2, 2)), ["a", "b"], r"found shape \(2, 2, 2\)"),
        (np.ones((0, 2)), [], "no reference"),
        (np.ones((2, 2)), ["a"], "one label for each of the 2 references, found 1"),
        (np.ones((2, 2)), ["a", ""], "Reference 1 has an empty label"),
        (np.ones((1, 2)), ["\ud800"], "UTF-8"),
        (np.array([["a", "b"]]), ["a"], "must hold real numbers"),
    ],
)
def test_bad_references_are_refused(embedding_ND: np.ndarray, labels: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Gallery.build(embedding_ND, labels)


def test_zero_row_beyond_the_first_block_is_named() -> None:
    embedding_ND = np.ones((9000, 2), dtype=np.float32)
    embedding_ND[8700] = 0
    with pytest.raises(ValueError, match="row 8700 of embedding_ND has length zero"):
        Gallery.build(embedding_ND, ["a"] * 9000)


def test_references_of_several_labels_are_added_in_one_change() -> None:
    gallery = Gallery(2)
    assert gallery.extend(np.eye(2), ["b", "a"], ["1.jpg", "2.jpg"]).tolist() == [0, 1]
    assert gallery.extend(-np.eye(2), np.array(["a", "c"])).tolist() == [2, 3]
    assert (gallery.version, gallery.labels) == (2, ["b", "a", "c"])
    assert gallery.references["name"].tolist() == ["1.jpg", "2.jpg", "", ""]
    assert gallery.search_labels(np.array([[-1.0, 0.0]]), 1).label_QK.tolist() == [["a"]]
    with pytest.raises(ValueError, match="one label for each of the 2 references, found 1"):
        gallery.extend(np.eye(2), ["a"])
    assert gallery.version == 2


def test_the_view_is_the_embeddings_and_cannot_be_written() -> None:
    gallery = _six()
    np.testing.assert_array_equal(gallery.view_ND, gallery.embedding_ND)
    assert np.shares_memory(gallery.view_ND, gallery.view_ND)
    assert not np.shares_memory(gallery.view_ND, gallery.embedding_ND)
    with pytest.raises(ValueError, match="read-only"):
        gallery.view_ND[0, 0] = 2
    assert Gallery(3).view_ND.shape == (0, 3)


def test_other_bad_arguments_are_refused() -> None:
    gallery = _six()
    with pytest.raises(TypeError, match="label is text, found 7"):
        gallery.add(7, AXES_SIX)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="label is text, found nan"):
        Gallery.build(AXES_SIX[:2], ["a", float("nan")])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="one name for each of the 6 references, found 1"):
        gallery.add("a", AXES_SIX, ["one.jpg"])
    with pytest.raises(ValueError, match=r"query_QD must have two axes \(rows, 3\), found shape \(2, 4\)"):
        gallery.search(np.ones((2, 4)), 1)
    with pytest.raises(ValueError, match="row 0 of query_QD is not finite"):
        gallery.search_labels(np.full((1, 3), np.nan), 1)
    with pytest.raises(ValueError, match="k must be at least 1, found 0"):
        gallery.search(AXES_SIX, 0)
    with pytest.raises(ValueError, match="dim must be at least 1"):
        Gallery(0)
    assert len(gallery) == 6


# Small whole numbers make equal and opposite directions common, and float32 sums of them nearly exact.
_ROW = st.lists(st.integers(-2, 2), min_size=3, max_size=3).filter(any)
_ADD = st.tuples(st.just("add"), st.sampled_from(["a", "b", "c", "007"]), st.lists(_ROW, min_size=1, max_size=6))
_REMOVE = st.tuples(st.just("remove"), st.sampled_from(["a", "b", "c", "007"]), st.just(list[list[int]]()))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.one_of(_ADD, _ADD, _REMOVE), min_size=1, max_size=12),
    st.lists(_ROW, min_size=1, max_size=4),
    st.integers(1, 9),
)
def test_any_sequence_of_changes_agrees_with_a_plain_list(
    steps: list[tuple[str, str, list[list[int]]]], queries: list[list[int]], k: int
) -> None:
    gallery, model, added, changes = Gallery(3), list[tuple[int, str, np.ndarray]](), 0, 0
    for step, label, rows in steps:
        there = {name for _, name, _ in model}
        if step == "add":
            ids = gallery.add(label, np.array(rows))
            assert ids.tolist() == list(range(added, added + len(rows)))
            unit_ND = Gallery.build(np.array(rows), [label] * len(rows)).embedding_ND
            model += [(int(n), label, row) for n, row in zip(ids, unit_ND, strict=True)]
            added, changes = added + len(rows), changes + 1
        elif label in there:
            before = len(model)
            model = [entry for entry in model if entry[1] != label]
            assert gallery.remove(label) == before - len(model)
            changes += 1
        else:
            with pytest.raises(KeyError):
                gallery.remove(label)
        assert (len(gallery), gallery.version) == (len(model), changes)
        if not model:
            continue
        query_QD = Gallery.build(np.array(queries), ["q"] * len(queries)).embedding_ND
        similarity_QN, row_QN = _plain_search(np.stack([row for _, _, row in model]), query_QD)
        matches, labelled = gallery.search(np.array(queries), k), gallery.search_labels(np.array(queries), k)
        for q in range(len(queries)):
            ranked = [model[row][:2] for row in row_QN[q]]
            assert list(zip(matches.reference_QK[q], matches.label_QK[q], strict=True)) == ranked[:k]
            np.testing.assert_array_equal(matches.similarity_QK[q], similarity_QN[q, :k])
            best: dict[str, int] = {}
            for reference, name in ranked:
                best.setdefault(name, reference)
            assert list(zip(labelled.label_QK[q], labelled.reference_QK[q], strict=True)) == list(best.items())[:k]


@pytest.mark.parametrize("order", ["torch, faiss", "faiss, torch"])
def test_faiss_and_torch_live_in_one_process_whichever_comes_first(order: str) -> None:
    # Each brings an OpenMP of its own; on some platforms two of them abort the process or hang in the second's threads.
    code = (
        f"import {order}\nimport numpy as np\n"
        "x = np.eye(64, dtype=np.float32).repeat(64, 0)\nindex = faiss.IndexFlatIP(64)\nindex.add(x)\n"
        "for _ in range(3):\n"
        "    product = torch.from_numpy(x) @ torch.from_numpy(x).T\n"
        "    similarity, row = index.search(x, 5)\n"
        "print(int(product.sum()), int(similarity.sum()))\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "4"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    # 64 rows of each axis: 64 * 64 * 64 products of 1; 4096 queries with 5 answers of similarity 1.
    assert (done.returncode, done.stdout.strip()) == (0, "262144 20480"), done.stderr


def test_single_references_leave_and_the_others_keep_their_ids() -> None:
    gallery = Gallery.build(np.eye(4), ["a", "a", "b", "c"], ["0", "1", "2", "3"])
    assert gallery.remove_references([3, 0], "blurred") == 2
    assert gallery.references[["reference", "label", "name"]].values.tolist() == [[1, "a", "1"], [2, "b", "2"]]
    assert gallery.search(np.eye(4)[1:3], 1).reference_QK.tolist() == [[1], [2]]
    change = gallery.history.iloc[-1]
    assert (change["removed"], change["labels"], change["comment"]) == (2, "a (1), c (1)", "blurred")
    for references, kind, said in (([0], KeyError, "no reference 0"), ([1, 1], KeyError, "given twice")):
        with pytest.raises(kind, match=said):
            gallery.remove_references(references)
    with pytest.raises(ValueError, match="at least one"):
        gallery.remove_references([])
    assert (gallery.version, len(gallery)) == (2, 2)
    assert gallery.add("d", np.eye(4)[:1]).tolist() == [4], "the id of a removed reference is never given again"


def test_unicode_forms_of_a_label_are_one_product(tmp_path: Path) -> None:
    """A Mac writes the names of class folders decomposed, a keyboard the label of `gallery add` composed."""
    composed, decomposed = "Caf\u00e9", "Cafe\u0301"
    gallery = Gallery.build(AXES_SIX[:3], [decomposed, composed, "Tee"])
    gallery.add(decomposed, AXES_SIX[3:5])
    assert gallery.labels == [composed, "Tee"]
    assert gallery.search_labels(AXES_SIX[:1], 5).label_QK.tolist() == [[composed, "Tee"]]
    gallery._labels[0] = decomposed  # as galleries were saved before labels had one form
    gallery.save(tmp_path / "gallery")
    again = Gallery.load(tmp_path / "gallery")
    assert again.labels == [composed, "Tee"]
    assert again.remove(decomposed) == 4
