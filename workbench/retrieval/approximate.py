"""A large gallery searched through an index that looks at a part of it: faster or smaller, and some answers are missed.

Three kinds of faiss's: `ivf` (inverted file: rows in lists by nearest centre, a query looks into the nearest lists), `hnsw` (a
graph of neighbours that a query walks) and `ivf_pq` (an inverted file of codes, a few bytes a row). Whatever they find is
compared with the query once more, in full, so that similarities and ties are those of the exact search. On the CPU.
Axes: N references, D the embedding's width, Q queries, K answers a query, B queries of one block, W candidates a query.

Source: Sivic and Zisserman 2003 (inverted file); Malkov and Yashunin 2016 (HNSW); Jegou, Douze and Schmid 2011 (product
quantisation); Douze et al. 2024, "The Faiss library".
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import faiss
import numpy as np
import pandas as pd

from workbench.retrieval.arrays import normalise
from workbench.retrieval.exact_search import Matches, numpy_method, rank_candidates
from workbench.retrieval.gallery import Gallery
from workbench.retrieval.gallery_folder import GalleryError
from workbench.runs.files import new_folder, sha256_of, write_json

Kind = Literal["ivf", "hnsw", "ivf_pq"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FORMAT, FORMAT_VERSION = "workbench approximate index", 1
_FAISS: Any = faiss  # for the parts that its types leave out
_ROWS_A_CENTRE = 39  # faiss calls a clustering of fewer rows a centre too little
LEAST_ROWS: dict[Kind, int] = {"ivf": 2 * _ROWS_A_CENTRE, "hnsw": 2, "ivf_pq": 256 * _ROWS_A_CENTRE}
"""How many references an index of each kind needs to be trained."""

_NUM_LINKS = 32  # of a row in the HNSW graph
_BUILD_EFFORT = 200  # candidates kept while the graph is built; the paper's experiments take 100 to 500
_SPARE = {"ivf": 8, "hnsw": 8, "ivf_pq": 100}  # candidates beyond K; codes of a few bytes order roughly
_COMPARED_AT_ONCE = 2**23  # numbers of a block of candidates, 64 MiB as float64


class ApproximateGallery:
    """A gallery searched through an index, with the answers of `Gallery.search`, of which some may be missed.

    It reads the embeddings of its candidates from the gallery, which may be mapped (`Gallery.load(folder, in_memory=False)`).
    An index belongs to the gallery as it was: after a change of the gallery a search is an error.

    Attributes:
        gallery: whose references are searched.
        kind: "ivf", "hnsw" or "ivf_pq".
        effort: lists looked into ("ivf", "ivf_pq") or candidates kept on the walk ("hnsw"): more finds more, and takes longer.
    """

    def __init__(self, gallery: Gallery, index: Any, kind: Kind, effort: int):
        """Wraps a faiss index whose rows are those of `gallery`; see `build_index` and `load`."""
        self.gallery, self.kind, self.effort = gallery, kind, effort
        self._index, self._version = index, gallery.version
        references = gallery.references
        self._code_N = pd.factorize(references["label"])[0].astype(np.int64)
        self._label_N = references["label"].to_numpy(dtype=object)
        self._reference_N = references["reference"].to_numpy(np.int64)

    @property
    def setting(self) -> str:
        """The kind and its settings, to read, such as "IVF, 8 of 316 lists"."""
        if self.kind == "hnsw":
            return f"HNSW, {_NUM_LINKS} links, {self.effort} candidates"
        code = f", {self._index.pq.M} bytes a reference" if self.kind == "ivf_pq" else ""
        name = "IVF-PQ" if self.kind == "ivf_pq" else "IVF"
        return f"{name}{code}, {self.effort} of {self._index.nlist} lists"

    @property
    def num_bytes(self) -> int:
        """The size of the index alone, as it would be written; the gallery's embeddings come on top of it."""
        counted = 0

        def count(block: bytes) -> int:
            nonlocal counted
            counted += len(block)
            return len(block)

        faiss.write_index(self._index, _FAISS.BufferedIOWriter(_FAISS.PyCallbackIOWriter(count)))
        return counted

    def with_effort(self, effort: int) -> "ApproximateGallery":
        """The same index with another effort, at least 1; nothing is built or copied."""
        if effort < 1:
            raise ValueError(f"effort must be at least 1, found {effort}.")
        if self.kind != "hnsw":
            effort = min(effort, self._index.nlist)
        return ApproximateGallery(self.gallery, self._index, self.kind, effort)

    def search(self, query_QD: np.ndarray, k: int) -> Matches:
        """The `k` nearest references of each query among those the index finds; arguments and errors of `Gallery.search`.

        A query for which the index finds fewer than `k` is searched exactly.
        """
        return self._search(query_QD, k, distinct=False)

    def search_labels(self, query_QD: np.ndarray, k: int) -> Matches:
        """The `k` nearest distinct labels of each query, each with its nearest reference, among those the index finds.

        The search widens until `k` labels are found; where the index has no more to offer, the query is searched exactly.
        """
        return self._search(query_QD, k, distinct=True)

    def save(self, folder: Path) -> None:
        """Writes the index to a new folder, whole or not at all; the gallery is saved on its own.

        Raises:
            FileExistsError: there is something at `folder` already.
        """
        if folder.exists():
            raise FileExistsError(f"{folder} is there already; give the index a new folder, or delete this one first.")
        with new_folder(folder) as unfinished:
            faiss.write_index(self._index, str(unfinished / "index.faiss"))
            described = {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "kind": self.kind,
                "effort": self.effort,
                "gallery": _fingerprint(self.gallery),
                "sha256": sha256_of(unfinished / "index.faiss"),
            }
            write_json(unfinished / "index.json", described)

    @classmethod
    def load(cls, folder: Path, gallery: Gallery) -> "ApproximateGallery":
        """The index that `save` wrote, for the gallery that it was built from.

        Raises:
            GalleryError: no index, a damaged one, one of another format version, or one of another gallery.
        """
        try:
            described = json.loads((folder / "index.json").read_bytes())
            found = (described["format"], described["format_version"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise GalleryError(
                f"{folder} is no index of a gallery ({error}). Give the folder that save wrote."
            ) from error
        if found != (FORMAT, FORMAT_VERSION):
            raise GalleryError(f"{folder} holds {found}, wanted {(FORMAT, FORMAT_VERSION)}. Build the index again.")
        if described["gallery"] != _fingerprint(gallery):
            raise GalleryError(
                f"The index {folder} is of another gallery, or of this one before a change. Build it again."
            )
        if not (folder / "index.faiss").is_file() or sha256_of(folder / "index.faiss") != described["sha256"]:
            raise GalleryError(
                f"{folder / 'index.faiss'} is missing or damaged. Copy the index again or build it anew."
            )
        return cls(gallery, faiss.read_index(str(folder / "index.faiss")), described["kind"], described["effort"])

    def _search(self, query_QD: np.ndarray, k: int, distinct: bool) -> Matches:
        if self.gallery.version != self._version:
            raise ValueError("The gallery has changed since the index was built; build it again with build_index.")
        if k < 1:
            raise ValueError(f"k must be at least 1, found {k}.")
        rows_ND = self.gallery.view_ND
        query_QD = normalise(np.asarray(query_QD), "query_QD", dtype=np.float32, width=self.gallery.dim)
        code_N = self._code_N if distinct else np.arange(len(rows_ND))
        k = min(k, int(code_N.max()) + 1)
        similarity_QK = np.empty((len(query_QD), k), dtype=np.float32)
        row_QK = np.empty((len(query_QD), k), dtype=np.int64)
        exactly = [np.empty(0, np.int64)]
        pending, width = np.arange(len(query_QD)), min(k + _SPARE[self.kind], len(rows_ND))
        while len(pending):
            block = max(1, _COMPARED_AT_ONCE // (width * rows_ND.shape[1]))
            wider = [np.empty(0, np.int64)]
            for start in range(0, len(pending), block):
                query_B = pending[start : start + block]
                _, row_BW = numpy_method(self._index, "search")(
                    query_QD[query_B], width, params=self._parameters(width)
                )
                similarity_BK, row_BK, num_codes_B = rank_candidates(rows_ND, query_QD[query_B], row_BW, code_N, k)
                similarity_QK[query_B], row_QK[query_B] = similarity_BK, row_BK
                exhausted_B = (row_BW < 0).any(axis=1) | (width == len(rows_ND))
                wider.append(query_B[(num_codes_B < k) & ~exhausted_B])
                exactly.append(query_B[(num_codes_B < k) & exhausted_B])
            pending, width = np.concatenate(wider), min(4 * width, len(rows_ND))
        reference_QK, label_QK = self._reference_N[row_QK], self._label_N[row_QK]
        short = np.concatenate(exactly)
        if len(short):
            search = self.gallery.search_labels if distinct else self.gallery.search
            exact = search(query_QD[short], k)
            similarity_QK[short], label_QK[short], reference_QK[short] = (
                exact.similarity_QK,
                exact.label_QK,
                exact.reference_QK,
            )
        return Matches(similarity_QK, label_QK, reference_QK)

    def _parameters(self, width: int) -> Any:
        if self.kind == "hnsw":
            return _FAISS.SearchParametersHNSW(efSearch=max(self.effort, width))
        return _FAISS.SearchParametersIVF(nprobe=self.effort)


def build_index(
    gallery: Gallery,
    kind: Kind,
    effort: int | None = None,
    *,
    num_lists: int | None = None,
    num_bytes: int | None = None,
    seed: int = 0,
    num_threads: int = 1,
) -> ApproximateGallery:
    """An index over the gallery's references; with one thread the same bits each time, with more not always.

    Args:
        gallery: not changed, and not copied but for what the index keeps ("ivf" and "hnsw" keep all embeddings).
        kind: "ivf", "hnsw" or "ivf_pq".
        effort: see `ApproximateGallery`; None takes a twentieth of the lists, at least 1, or 64 candidates.
        num_lists: of "ivf" and "ivf_pq"; None takes 4 times the root of N, but never fewer than 39 references a list.
        num_bytes: of "ivf_pq", the bytes that a reference's code takes, a divisor of D; None takes the largest up to D / 4.
        seed: of the clustering and of the graph.
        num_threads: while building.

    Raises:
        ValueError: fewer references than the kind can be trained with (`LEAST_ROWS`), or a setting out of range.
    """
    rows_ND = gallery.view_ND
    num_rows, dim = rows_ND.shape
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, found {kind!r}.")
    if num_rows < LEAST_ROWS[kind]:
        raise ValueError(
            f"An index of kind {kind!r} needs {LEAST_ROWS[kind]:,} references, found {num_rows:,}; search the gallery itself, "
            "which is exact."
        )
    num_lists = num_lists or min(round(4 * num_rows**0.5), num_rows // _ROWS_A_CENTRE)
    if kind != "hnsw" and not 1 <= num_lists <= num_rows // _ROWS_A_CENTRE:
        raise ValueError(
            f"num_lists must be from 1 to {num_rows // _ROWS_A_CENTRE:,} ({_ROWS_A_CENTRE} references a list), found {num_lists}."
        )
    if kind == "hnsw":
        index: Any = faiss.IndexHNSWFlat(dim, _NUM_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _BUILD_EFFORT
        index.hnsw.rng = _FAISS.RandomGenerator(seed)
    elif kind == "ivf":
        index = faiss.index_factory(dim, f"IVF{num_lists},Flat", faiss.METRIC_INNER_PRODUCT)
    else:
        num_bytes = num_bytes or max(size for size in range(1, max(1, dim // 4) + 1) if dim % size == 0)
        if num_bytes < 1 or dim % num_bytes:
            raise ValueError(f"num_bytes must divide the width {dim}, found {num_bytes}.")
        index = faiss.index_factory(dim, f"IVF{num_lists},PQ{num_bytes}", faiss.METRIC_INNER_PRODUCT)
        index.pq.cp.seed = seed
        index.do_polysemous_training = (
            False  # orders codes for a search that is not used here, most of the training's time
        )
    if kind != "hnsw":
        index.cp.seed = seed
    with threads(num_threads):
        numpy_method(index, "train")(rows_ND)
        numpy_method(index, "add")(rows_ND)
    default = 64 if kind == "hnsw" else max(1, num_lists // 20)
    return ApproximateGallery(gallery, index, kind, 1).with_effort(default if effort is None else effort)


@contextmanager
def threads(num_threads: int) -> Iterator[None]:
    """Lets faiss run in so many threads, and as many as before afterwards."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(num_threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _fingerprint(gallery: Gallery) -> dict[str, Any]:
    references = gallery.references
    texts = json.dumps([references["reference"].tolist(), references["label"].tolist()]).encode()
    return {"rows": hashlib.sha256(gallery.view_ND.data).hexdigest(), "references": hashlib.sha256(texts).hexdigest()}
