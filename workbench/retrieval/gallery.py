"""The gallery: the references that are searched, exactly, with faiss.

Axes: N references, D the embedding's width, Q queries, K answers a query.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pandas as pd

from workbench.retrieval.exact_search import normalise_rows, on_gpu, search_distinct
from workbench.retrieval.gallery_folder import Stored, read_folder, write_folder


@dataclass(frozen=True, eq=False)
class Matches:
    """The answers to queries, the best first; equal similarities in ascending order of the reference's id.

    Attributes:
        similarity_QK: float32, cosine, -1..1 (up to rounding); equal to the last bit however queries are batched.
        label_QK: object array of str.
        reference_QK: int64, the reference's id (see `Gallery.references`).
    """

    similarity_QK: np.ndarray
    label_QK: np.ndarray
    reference_QK: np.ndarray


class Gallery:
    """References by label, searched by cosine similarity: the inner product of L2-normalised float32 embeddings.

    Each reference gets an id, 0, 1, 2, ..., in the order of adding, which it keeps for good; the id of a removed
    reference is never given again. Duplicates are allowed: each is a reference of its own. `version` is 0 for a new gallery
    and grows by one with every change. The search runs on the first GPU where faiss sees one, else on the CPU. On a
    CPU several threads may search at once, on a GPU one at a time (a rule of faiss); while it is changed, none may.
    """

    def __init__(self, dim: int):
        """An empty gallery for embeddings of width `dim`."""
        if dim < 1:
            raise ValueError(f"dim must be at least 1, found {dim}.")
        self.dim = int(dim)
        self.version = 0
        self._labels: list[str] = []
        self._names: list[str] = []
        self._references: list[int] = []
        self._next_reference = 0
        self._index: Any = faiss.IndexFlatIP(self.dim)
        self._searched: tuple[Any, np.ndarray, np.ndarray, np.ndarray] | None = None

    @classmethod
    def build(
        cls,
        embedding_ND: np.ndarray,
        labels: Sequence[str] | np.ndarray,
        names: Sequence[str] | np.ndarray | None = None,
    ) -> "Gallery":
        """A gallery of these references, with ids 0 to N-1 in the order given.

        Args:
            embedding_ND: [N, D] finite numbers, no row all zero, N at least 1; normalised here.
            labels: N texts; "007" and "7" are two labels.
            names: N texts to show for the references, such as paths; "" each where None.

        Raises:
            ValueError: another shape, another number of labels or names, a value that is not finite, a row of zeros.
            TypeError: a label or a name that is no text.
        """
        embedding_ND = np.asarray(embedding_ND)
        gallery = cls(embedding_ND.shape[1] if embedding_ND.ndim == 2 and embedding_ND.shape[1] else 1)
        gallery._append(embedding_ND, list(labels), names)
        return gallery

    def add(self, label: str, embedding_ND: np.ndarray, names: Sequence[str] | np.ndarray | None = None) -> np.ndarray:
        """The ids, [N] int64, of references added to `label`, which may be new or in the gallery already.

        Arguments and errors are those of `build`, with one label for all.
        """
        embedding_ND = np.asarray(embedding_ND)
        return self._append(embedding_ND, [label] * (len(embedding_ND) if embedding_ND.ndim else 0), names)

    def remove(self, label: str) -> int:
        """The number of references removed: all of `label`.

        Raises:
            KeyError: the gallery has no such label.
        """
        rows = np.array([row for row, there in enumerate(self._labels) if there == label], dtype=np.int64)
        if not len(rows):
            near = difflib.get_close_matches(str(label), self.labels, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise KeyError(f"The gallery has no label {label!r} among its {len(self.labels)}.{hint}")
        self._index.remove_ids(rows)  # keeps the order of the rest, so that rows stay sorted by id
        kept = [row for row, there in enumerate(self._labels) if there != label]
        self._names = [self._names[row] for row in kept]
        self._references = [self._references[row] for row in kept]
        self._labels = [self._labels[row] for row in kept]
        self._change()
        return len(rows)

    def __len__(self) -> int:
        """The number of references."""
        return len(self._references)

    @property
    def labels(self) -> list[str]:
        """The distinct labels, in the order of their oldest reference."""
        return list(dict.fromkeys(self._labels))

    @property
    def references(self) -> pd.DataFrame:
        """One row a reference, ascending by id: `reference` (int64, the id), `label` (str), `name` (str)."""
        columns = {"label": self._labels, "name": self._names}
        frame = pd.DataFrame({name: pd.Series(values, dtype="str") for name, values in columns.items()})
        frame.insert(0, "reference", np.array(self._references, dtype=np.int64))
        return frame

    @property
    def embedding_ND(self) -> np.ndarray:
        """A copy of the normalised embeddings, [N, D] float32, in the order of `references`."""
        return self._rows().copy()

    def search(self, query_QD: np.ndarray, k: int) -> Matches:
        """The `k` nearest references of each query; all of them, K < k, where the gallery has fewer.

        Args:
            query_QD: [Q, D] finite numbers, no row all zero; normalised here. Q may be 0.
            k: at least 1.

        Raises:
            ValueError: an empty gallery, a query or a `k` out of range.
        """
        return self._search(query_QD, k, distinct=False)

    def search_labels(self, query_QD: np.ndarray, k: int) -> Matches:
        """The `k` nearest distinct labels of each query, each with its nearest reference; fewer where there are fewer.

        Exact: however many references one label has, the search widens until `k` labels are found. Arguments and errors
        are those of `search`.
        """
        return self._search(query_QD, k, distinct=True)

    def save(self, folder: Path) -> None:
        """Writes the gallery to `folder`, whole or not at all; a gallery there is replaced in one step.

        Raises:
            GalleryError: `folder` holds a `manifest.json` that is no gallery's.
            OSError: the disk is full, say. What was there before stays as it was.
        """
        write_folder(folder, Stored(self._rows(), self.references, self.version, self._next_reference))

    @classmethod
    def load(cls, folder: Path) -> "Gallery":
        """The gallery that `save` wrote to `folder`: the same embeddings bit for bit, ids, names and version.

        Raises:
            GalleryError: no gallery, an incomplete or damaged one, or one of another format version.
        """
        stored = read_folder(folder)
        gallery = cls(stored.embedding_ND.shape[1])
        gallery._index.add(stored.embedding_ND)
        gallery._labels = stored.references["label"].tolist()
        gallery._names = stored.references["name"].tolist()
        gallery._references = stored.references["reference"].tolist()
        gallery._next_reference = stored.next_reference
        gallery.version = stored.version
        return gallery

    def _append(
        self, embedding_ND: np.ndarray, labels: list[str], names: Sequence[str] | np.ndarray | None
    ) -> np.ndarray:
        normalised_ND = normalise_rows(embedding_ND, self.dim, "embedding_ND")
        if not len(normalised_ND):
            raise ValueError("embedding_ND holds no reference; give at least one.")
        labels = _check_texts(labels, len(normalised_ND), "label")
        names = [""] * len(labels) if names is None else _check_texts(list(names), len(labels), "name")
        if "" in labels:
            raise ValueError(
                f"Reference {labels.index('')} has an empty label; a label is text of at least one character."
            )
        added = np.arange(self._next_reference, self._next_reference + len(labels))
        self._index.add(normalised_ND)
        self._labels += labels
        self._names += names
        self._references += added.tolist()
        self._next_reference += len(labels)
        self._change()
        return added

    def _change(self) -> None:
        self.version += 1
        self._searched = None

    def _rows(self) -> np.ndarray:
        """The embeddings in faiss's own memory, which moves with the next change."""
        if not len(self):
            return np.empty((0, self.dim), dtype=np.float32)
        rows: np.ndarray = faiss.rev_swig_ptr(self._index.get_xb(), len(self) * self.dim)
        return rows.reshape(len(self), self.dim)

    def _search(self, query_QD: np.ndarray, k: int, distinct: bool) -> Matches:
        if k < 1:
            raise ValueError(f"k must be at least 1, found {k}.")
        if not len(self):
            raise ValueError("The gallery is empty; add references before searching.")
        query_QD = normalise_rows(np.asarray(query_QD), self.dim, "query_QD")
        if self._searched is None:
            code_of = {label: code for code, label in enumerate(self.labels)}
            codes = np.array([code_of[label] for label in self._labels])
            labels = np.array(self._labels, dtype=object)
            self._searched = (on_gpu(self._index), codes, labels, np.array(self._references, dtype=np.int64))
        gpu_index, code_N, label_N, reference_N = self._searched
        if not distinct:
            code_N = np.arange(len(self))
        k = min(k, len(np.unique(code_N)))
        similarity_QK, row_QK = search_distinct(self._index, gpu_index, self._rows(), query_QD, code_N, k)
        return Matches(similarity_QK, label_N[row_QK], reference_N[row_QK])


def _check_texts(texts: list[Any], wanted: int, what: str) -> list[str]:
    if len(texts) != wanted:
        raise ValueError(f"Wanted one {what} for each of the {wanted} references, found {len(texts)}.")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"A {what} is text, found {text!r} ({type(text).__name__}) for reference {row}; use str.")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"The {what} {text!r} of reference {row} cannot be written as UTF-8.") from error
    return [str(text) for text in texts]
