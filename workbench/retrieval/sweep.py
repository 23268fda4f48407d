"""One pass over the similarities: every vote, draw and number of shots, in chunks of queries.

Axes: N reference rows, U different ones, P photographs, C classes, Q queries, B queries of a chunk, D draws (of
vectors: the width), M centres, T numbers of first places ("top").
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from workbench.retrieval.draws import References, photographs_by_rank
from workbench.retrieval.few_shot_protocol import FewShotProtocol, Shots
from workbench.retrieval.mistakes import Answers
from workbench.retrieval.votes import (
    ClassValues,
    class_centres,
    expected_hit,
    image_hit,
    nearest_values,
    neighbour_values,
    parse_vote,
)

_CELLS_A_CHUNK = 8_000_000


@dataclass(frozen=True)
class Step:
    """One gallery, one chunk of queries; the arrays live until the next step."""

    shots: Shots
    draw: int
    columns: slice
    values: ClassValues
    similarity_PB: np.ndarray | None


def num_shots(shots: Shots, references: References) -> int:
    """Returns the number of photographs a class may have in the gallery; for "all" that of the largest class."""
    return int(references.num_photos_C.max()) if shots == "all" else shots


def sweep(
    protocol: FewShotProtocol, references: References, query_QD: np.ndarray, rank_DP: np.ndarray
) -> Iterator[Step]:
    """Returns the class values of every gallery and chunk of queries, in any order."""
    kind, number = parse_vote(protocol.vote)
    num_classes = len(references.names)
    temperature = protocol.temperature if kind == "softmax_knn" else None
    galleries = [(k, draw) for draw in range(protocol.draws) for k in protocol.shots if k != "all" or draw == 0]
    if kind == "kmeans":
        for shots, draw in galleries:
            used_N = (rank_DP[draw] < num_shots(shots, references))[references.photo_N]
            class_N = references.class_P[references.photo_N][used_N]
            centre_MD, class_M = class_centres(references.embedding_ND[used_N], class_N, number, protocol.seed)
            for columns, similarity_MB in _similarities(centre_MD, query_QD, None):
                start_C = np.searchsorted(class_M, np.arange(num_classes))
                best_CB = np.maximum.reduceat(similarity_MB, start_C, axis=0)
                yield Step(shots, draw, columns, ClassValues(best_CB), None)
        return
    by_rank = [photographs_by_rank(rank_P, references.class_P) for rank_P in rank_DP]
    for columns, similarity_PB in _similarities(references.embedding_ND, query_QD, references.photo_N):
        for draw in range(protocol.draws):
            here = [k for k, of_draw in galleries if of_draw == draw]
            limits = [num_shots(k, references) for k in here]
            if kind == "nearest":
                stages = nearest_values(similarity_PB, by_rank[draw], num_classes, limits)
                for shots, values in zip(here, stages, strict=True):
                    yield Step(shots, draw, columns, values, similarity_PB)
            else:
                for shots, limit in zip(here, limits, strict=True):
                    used_P = rank_DP[draw] < limit
                    values = neighbour_values(similarity_PB[used_P], references.class_P[used_P], number, temperature)
                    yield Step(shots, draw, columns, values, None)


class Tally:
    """Adds up the steps of a sweep.

    Attributes:
        hits: by name ("accuracy@5/shots=1"), float32 [D, Q], 0 to 1; D is 1 for all shots. Of no meaning where absent.
        predicted: by shots, int32 [D, Q], the class found; where classes tie, the first.
        similarity_2Q: float64, headline shots of draw 0: similarity to the predicted and to the second class.
        second_Q: int64, the second class; -1 if there is one class only.
    """

    def __init__(
        self,
        protocol: FewShotProtocol,
        references: References,
        rank_DP: np.ndarray,
        class_Q: np.ndarray,
        absent_Q: np.ndarray,
    ) -> None:
        self.hits: dict[str, np.ndarray] = {}
        self.predicted: dict[str, np.ndarray] = {}
        self.similarity_2Q = np.full((2, len(class_Q)), np.nan)
        self.second_Q = np.full(len(class_Q), -1, np.int64)
        self._tied: dict[str, list[np.ndarray]] = {}
        self._protocol, self._class_Q, self._absent_Q = protocol, class_Q, absent_Q
        self._references = references
        self._by_rank_DP = [np.lexsort((rank_P, references.class_P)) for rank_P in rank_DP]
        self._image_tops = [top for top in protocol.top if top > 1] if protocol.vote == "nearest" else []
        for shots in protocol.shots:
            shape = (1 if shots == "all" else protocol.draws, len(class_Q))
            for top in protocol.top:
                self.hits[f"accuracy@{top}/shots={shots}"] = np.zeros(shape, np.float32)
            for top in self._image_tops:
                self.hits[f"image_accuracy@{top}/shots={shots}"] = np.zeros(shape, np.float32)
            self.predicted[str(shots)] = np.zeros(shape, np.int32)
            self._tied[str(shots)] = [np.empty((0, 3), np.int64)]

    def answers(self, shots: str) -> Answers:
        """Returns the answers to the queries of present labels at one number of shots."""
        present_Q = ~self._absent_Q
        tied = np.concatenate(self._tied[shots])
        tied = tied[present_Q[tied[:, 1]]]
        tied[:, 1] = (np.cumsum(present_Q) - 1)[tied[:, 1]]
        return Answers(self.predicted[shots][:, present_Q], tied)

    def add(self, step: Step) -> None:
        """Adds one gallery's answers to one chunk of queries."""
        shots, values, class_B = str(step.shots), step.values, self._class_Q[step.columns]
        ahead_B, tied_B = values.rank_of(class_B)
        for top in self._protocol.top:
            self.hits[f"accuracy@{top}/shots={shots}"][step.draw, step.columns] = expected_hit(ahead_B, tied_B, top)
        if step.similarity_PB is not None and self._image_tops:
            self._add_image_hits(step, step.similarity_PB, class_B, ahead_B, tied_B)
        found_B = class_B.astype(np.int32)
        open_B = np.flatnonzero((ahead_B > 0) | (tied_B > 0) | self._absent_Q[step.columns])
        if len(open_B):
            best_CB = values.take(open_B).best()
            found_B[open_B] = best_CB.argmax(axis=0)
            query, found = np.nonzero((best_CB & (best_CB.sum(axis=0) > 1)).T)
            if len(query):
                rows = np.stack([np.full_like(query, step.draw), step.columns.start + open_B[query], found], axis=1)
                self._tied[shots].append(rows)
        self.predicted[shots][step.draw, step.columns] = found_B
        if step.draw == 0 and step.shots == self._protocol.headline:
            self._add_similarities(step, found_B)

    def _add_similarities(self, step: Step, found_B: np.ndarray) -> None:
        columns = np.arange(len(found_B))
        similarity_CB = step.values.similarity_CB
        self.similarity_2Q[0, step.columns] = similarity_CB[found_B, columns]
        if len(similarity_CB) > 1:
            first_CB = step.values.first_CB.astype(np.float64)
            first_CB[found_B, columns] = -np.inf
            second_B = ClassValues(first_CB, step.values.second_CB).best().argmax(axis=0)
            self.second_Q[step.columns] = second_B
            self.similarity_2Q[1, step.columns] = similarity_CB[second_B, columns]

    def _add_image_hits(
        self, step: Step, similarity_PB: np.ndarray, class_B: np.ndarray, ahead_B: np.ndarray, tied_B: np.ndarray
    ) -> None:
        hit_TB = np.repeat((ahead_B == 0)[None].astype(np.float64), len(self._image_tops), axis=0)
        # A class ahead is a photograph ahead: only queries with some, but fewer than the places, need a count.
        open_B = np.flatnonzero((ahead_B < max(self._image_tops)) & ((ahead_B > 0) | (tied_B > 0)))
        if len(open_B):
            photos_P, best_CB = self._by_rank_DP[step.draw], step.values.first_CB[:, open_B]
            limit = num_shots(step.shots, self._references)
            hit_TB[:, open_B] = image_hit(
                similarity_PB,
                open_B,
                best_CB,
                class_B[open_B],
                photos_P,
                self._references.num_photos_C,
                limit,
                self._image_tops,
            )
        for top, hit_B in zip(self._image_tops, hit_TB, strict=True):
            self.hits[f"image_accuracy@{top}/shots={step.shots}"][step.draw, step.columns] = hit_B


def _similarities(
    vector_ND: np.ndarray, query_QD: np.ndarray, photo_N: np.ndarray | None
) -> Iterator[tuple[slice, np.ndarray]]:
    """Returns (columns, similarity_PB), float32, of chunk after chunk; a photograph's similarity is its nearest row's.

    Equal vectors are multiplied once: a matrix product may round equal rows differently, and they must tie.
    """
    vector_UD, index_N = _different_rows(vector_ND)
    start_P = None if photo_N is None else np.flatnonzero(np.r_[True, photo_N[1:] != photo_N[:-1]])
    size = max(1, min(2048, _CELLS_A_CHUNK // len(vector_ND)))
    for start in range(0, len(query_QD), size):
        columns = slice(start, min(start + size, len(query_QD)))
        similarity = vector_UD @ query_QD[columns].T
        if len(vector_UD) < len(vector_ND):
            similarity = similarity[index_N]
        if start_P is not None and len(start_P) < len(vector_ND):
            similarity = np.maximum.reduceat(similarity, start_P, axis=0)
        yield columns, similarity


def _different_rows(vector_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (vector_UD, index_N): the rows that differ, in order of appearance, and which of them each row is."""
    seen: dict[bytes, int] = {}
    index_N = np.empty(len(vector_ND), np.int64)
    first: list[int] = []
    for row, vector in enumerate(vector_ND):
        key = hashlib.blake2b(vector.tobytes(), digest_size=16).digest()
        if key not in seen:
            seen[key] = len(first)
            first.append(row)
        index_N[row] = seen[key]
    return vector_ND if len(first) == len(vector_ND) else vector_ND[first], index_N
