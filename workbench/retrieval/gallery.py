"""The gallery: the references that are searched, exactly, with faiss.

Axes: N references, D the embedding's width, Q queries, K answers a query.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pandas as pd

from workbench.data.labels import as_label
from workbench.retrieval.arrays import normalise
from workbench.retrieval.exact_search import FlatRows, Matches, numpy_method, on_gpu, search_distinct
from workbench.retrieval.gallery_folder import Stored, check_texts, read_folder, write_folder
from workbench.retrieval.gallery_history import append_change, check_comment, history_table

__all__ = ["Gallery", "Matches"]


class Gallery:
    """References by label, searched by cosine similarity: the inner product of L2-normalised float32 embeddings.

    Each reference gets an id, 0, 1, 2, ..., in the order of adding, which it keeps for good; the id of a removed
    reference is never given again. Duplicates are allowed: each is a reference of its own. `version` is 0 for a new gallery
    and grows by one with every change of the references; `history` tells the changes. `about` is for notes that travel with
    the gallery (JSON values: the embedder's fingerprint, a calibration as a dict, a protocol line). The search runs on the
    first GPU where faiss sees one, else on the CPU. On a CPU several threads may search at once, on a GPU one at a time (a
    rule of faiss); while it is changed, none may.
    """

    def __init__(self, dim: int):
        """An empty gallery for embeddings of width `dim`."""
        if dim < 1:
            raise ValueError(f"dim must be at least 1, found {dim}.")
        self.dim = int(dim)
        self.version = 0
        self.about: dict[str, Any] = {}
        self._history: list[dict[str, Any]] = []
        self._labels: list[str] = []
        self._names: list[str] = []
        self._references: list[int] = []
        self._next_reference = 0
        self._index: Any = faiss.IndexFlatIP(self.dim)
        self._mapped_ND: np.ndarray | None = None
        self._searched: tuple[Any, np.ndarray, np.ndarray, np.ndarray] | None = None

    @classmethod
    def build(
        cls,
        embedding_ND: np.ndarray,
        labels: Sequence[str] | np.ndarray,
        names: Sequence[str] | np.ndarray | None = None,
        comment: str = "",
    ) -> "Gallery":
        """A gallery of these references, with ids 0 to N-1 in the order given.

        Args:
            embedding_ND: [N, D] finite numbers, no row all zero, N at least 1; normalised here.
            labels: N texts; "007" and "7" are two labels, Unicode forms of one text are one (see `data.labels.as_label`).
            names: N texts to show for the references, such as paths; "" each where None.
            comment: why, for the history.

        Raises:
            ValueError: another shape, another number of labels or names, a value that is not finite, a row of zeros.
            TypeError: a label, a name or a comment that is no text.
        """
        embedding_ND = np.asarray(embedding_ND)
        gallery = cls(embedding_ND.shape[1] if embedding_ND.ndim == 2 and embedding_ND.shape[1] else 1)
        gallery.extend(embedding_ND, labels, names, comment)
        return gallery

    def extend(
        self,
        embedding_ND: np.ndarray,
        labels: Sequence[str] | np.ndarray,
        names: Sequence[str] | np.ndarray | None = None,
        comment: str = "",
    ) -> np.ndarray:
        """The ids, [N] int64, of references added in one change; labels may be new or in the gallery already.

        Arguments and errors are those of `build`.
        """
        return self._append(np.asarray(embedding_ND), list(labels), names, comment)

    def add(
        self,
        label: str,
        embedding_ND: np.ndarray,
        names: Sequence[str] | np.ndarray | None = None,
        comment: str = "",
    ) -> np.ndarray:
        """The ids, [N] int64, of references added to `label`, which may be new or in the gallery already.

        Arguments and errors are those of `build`, with one label for all.
        """
        embedding_ND = np.asarray(embedding_ND)
        return self._append(embedding_ND, [label] * (len(embedding_ND) if embedding_ND.ndim else 0), names, comment)

    def remove(self, label: str, comment: str = "") -> int:
        """The number of references removed: all of `label`.

        Raises:
            KeyError: the gallery has no such label.
        """
        check_comment(comment)
        label = as_label(label)
        rows = np.array([row for row, there in enumerate(self._labels) if there == label], dtype=np.int64)
        if not len(rows):
            near = difflib.get_close_matches(label, self.labels, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise KeyError(f"The gallery has no label {label!r} among its {len(self.labels)}.{hint}")
        self._take_out(rows, comment)
        return len(rows)

    def remove_references(self, references: Sequence[int] | np.ndarray, comment: str = "") -> int:
        """The number of references removed: those with these ids, in one change.

        Raises:
            KeyError: the gallery has no such reference, or an id is given twice; nothing is removed.
            ValueError: no id is given.
        """
        check_comment(comment)
        wanted = [int(one) for one in references]
        row_of = {reference: row for row, reference in enumerate(self._references)}
        missing = [one for one in wanted if one not in row_of]
        if missing or len(set(wanted)) < len(wanted):
            what = f"no reference {missing[0]}" if missing else "only one reference of each id, and one is given twice"
            raise KeyError(f"The gallery has {what} among its {len(self):,}; nothing was removed.")
        if not wanted:
            raise ValueError("Give the id of at least one reference to remove.")
        self._take_out(np.array(sorted(row_of[one] for one in wanted), dtype=np.int64), comment)
        return len(wanted)

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
    def history(self) -> pd.DataFrame:
        """One row a change of the references, the last 100, the oldest first: see `gallery_history.history_table`."""
        return history_table(self._history)

    @property
    def embedding_ND(self) -> np.ndarray:
        """A copy of the normalised embeddings, [N, D] float32, in the order of `references`."""
        return np.array(self._rows())

    @property
    def view_ND(self) -> np.ndarray:
        """The same without a copy, read-only and valid until the next change of the gallery."""
        rows_ND = self._rows().view()
        rows_ND.flags.writeable = False
        return rows_ND

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
            ValueError: `about` holds what JSON would not give back as it is.
            OSError: the disk is full, say. What was there before stays as it was.
        """
        stored = Stored(self._rows(), self.references, self.version, self._next_reference, self.about, self._history)
        write_folder(folder, stored)

    @classmethod
    def load(cls, folder: Path, in_memory: bool = True) -> "Gallery":
        """The gallery that `save` wrote to `folder`: the same embeddings bit for bit, ids, names, version and notes.

        Args:
            folder: as given to `save`.
            in_memory: False leaves the embeddings in their file, which the search reads through on the CPU: the same answers
                in memory that the operating system can take back, for galleries near the size of the memory. The file
                must stay where it is until the gallery is gone or changed; a change takes the embeddings into memory.

        Raises:
            GalleryError: no gallery, an incomplete or damaged one, or one of another format version.
        """
        stored = read_folder(folder)
        gallery = cls(stored.embedding_ND.shape[1])
        gallery._mapped_ND = stored.embedding_ND
        if in_memory:
            gallery._take_into_memory()
        codes, distinct = pd.factorize(stored.references["label"])
        # One text a label, not one a row; galleries from before labels had one Unicode form are brought to it.
        gallery._labels = np.array([as_label(text) for text in distinct], dtype=object)[codes].tolist()
        gallery._names = stored.references["name"].tolist()
        gallery._references = stored.references["reference"].tolist()
        gallery._next_reference = stored.next_reference
        gallery.version, gallery.about, gallery._history = stored.version, stored.about, stored.history
        return gallery

    def _append(
        self, embedding_ND: np.ndarray, labels: list[str], names: Sequence[str] | np.ndarray | None, comment: str
    ) -> np.ndarray:
        check_comment(comment)
        normalised_ND = normalise(embedding_ND, "embedding_ND", dtype=np.float32, width=self.dim)
        if not len(normalised_ND):
            raise ValueError("embedding_ND holds no reference; give at least one.")
        labels = [as_label(text) for text in check_texts(labels, len(normalised_ND), "label")]
        names = [""] * len(labels) if names is None else check_texts(list(names), len(labels), "name")
        if "" in labels:
            raise ValueError(
                f"Reference {labels.index('')} has an empty label; a label is text of at least one character."
            )
        added = np.arange(self._next_reference, self._next_reference + len(labels))
        self._take_into_memory()
        numpy_method(self._index, "add")(normalised_ND)
        self._labels += labels
        self._names += names
        self._references += added.tolist()
        self._next_reference += len(labels)
        self._change(labels, [], comment)
        return added

    def _take_out(self, rows: np.ndarray, comment: str) -> None:
        self._take_into_memory()
        numpy_method(self._index, "remove_ids")(rows)  # keeps the order of the rest, so that rows stay sorted by id
        gone = set(rows.tolist())
        removed = [self._labels[row] for row in rows.tolist()]
        kept = [row for row in range(len(self)) if row not in gone]
        self._names = [self._names[row] for row in kept]
        self._labels = [self._labels[row] for row in kept]
        self._references = [self._references[row] for row in kept]
        self._change([], removed, comment)

    def _change(self, added: list[str], removed: list[str], comment: str) -> None:
        self.version += 1
        self._history = append_change(self._history, self.version, added, removed, comment)
        self._searched = None

    def _take_into_memory(self) -> None:
        if self._mapped_ND is not None:
            numpy_method(self._index, "add")(self._mapped_ND)
            self._mapped_ND, self._searched = None, None

    def _rows(self) -> np.ndarray:
        """The embeddings in faiss's own memory, which moves with the next change, or in the gallery's file."""
        if self._mapped_ND is not None:
            return self._mapped_ND
        if not len(self):
            return np.empty((0, self.dim), dtype=np.float32)
        rows: np.ndarray = faiss.rev_swig_ptr(self._index.get_xb(), len(self) * self.dim)
        return rows.reshape(len(self), self.dim)

    def _search(self, query_QD: np.ndarray, k: int, distinct: bool) -> Matches:
        if k < 1:
            raise ValueError(f"k must be at least 1, found {k}.")
        if not len(self):
            raise ValueError("The gallery is empty; add references before searching.")
        query_QD = normalise(np.asarray(query_QD), "query_QD", dtype=np.float32, width=self.dim)
        if self._searched is None:
            code_of = {label: code for code, label in enumerate(self.labels)}
            codes = np.array([code_of[label] for label in self._labels])
            labels = np.array(self._labels, dtype=object)
            gpu_index = None if self._mapped_ND is not None else on_gpu(self._index)
            self._searched = (gpu_index, codes, labels, np.array(self._references, dtype=np.int64))
        gpu_index, code_N, label_N, reference_N = self._searched
        if not distinct:
            code_N = np.arange(len(self))
        k = min(k, len(np.unique(code_N)))
        index = self._index if self._mapped_ND is None else FlatRows(self._mapped_ND)
        similarity_QK, row_QK = search_distinct(index, gpu_index, self._rows(), query_QD, code_N, k)
        return Matches(similarity_QK, label_N[row_QK], reference_N[row_QK])
