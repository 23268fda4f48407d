"""One pass over the similarities: every vote, draw and number of shots, in chunks of queries.

Axes: N reference rows, U different ones, P photographs, C classes, Q queries, B queries of a chunk, D draws (of
vectors: the width), M centres, S numbers of shots.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from workbench.retrieval.draws import References, photographs_by_rank
from workbench.retrieval.few_shot_protocol import FewShotProtocol, Shots
from workbench.retrieval.nearest_sweep import MOST_SHOTS, NearestAnswers, class_best, nearest_answers, nest_galleries
from workbench.retrieval.votes import (
    ClassValues,
    class_centres,
    nearest_values,
    neighbour_values,
    parse_vote,
)

_CELLS_A_CHUNK = 8_000_000


@dataclass(frozen=True)
class Step:
    """The values of all classes for some queries in one gallery; the arrays live until the next step.

    Attributes:
        shots: of the gallery.
        draw: of the gallery.
        query_B: int64, which of the queries.
        values: of the classes.
        similarity_PB: for vote "nearest", similarity of every photograph (of the gallery or not); else None.
    """

    shots: Shots
    draw: int
    query_B: np.ndarray
    values: ClassValues
    similarity_PB: np.ndarray | None


@dataclass(frozen=True)
class Counted:
    """The answers of some galleries of one draw to a chunk of queries; steps follow for what they leave open.

    Attributes:
        shots_S: of the galleries.
        columns: which of the queries.
        answers: of the galleries.
    """

    shots_S: Sequence[Shots]
    columns: slice
    answers: NearestAnswers


def num_shots(shots: Shots, references: References) -> int:
    """Returns the number of photographs a class may have in the gallery; for "all" that of the largest class."""
    return int(references.num_photos_C.max()) if shots == "all" else shots


def sweep(
    protocol: FewShotProtocol, references: References, query_QD: np.ndarray, rank_DP: np.ndarray, class_Q: np.ndarray
) -> Iterator[Step | Counted]:
    """Returns the class values, or for vote "nearest" the answers, of every gallery and chunk of queries, in any order.

    Every query of the headline gallery of draw 0 has a step.
    """
    kind, number = parse_vote(protocol.vote)
    if kind == "nearest":
        yield from _sweep_nearest(protocol, references, query_QD, rank_DP, class_Q)
        return
    num_classes = len(references.names)
    temperature = protocol.temperature if kind == "softmax_knn" else None
    galleries = [(k, draw) for draw in range(protocol.draws) for k in protocol.shots if k != "all" or draw == 0]
    if kind == "kmeans":
        for shots, draw in galleries:
            used_N = (rank_DP[draw] < num_shots(shots, references))[references.photo_N]
            class_N = references.class_P[references.photo_N][used_N]
            centre_MD, class_M = class_centres(references.embedding_ND[used_N], class_N, number, protocol.seed)
            start_C = np.searchsorted(class_M, np.arange(num_classes))
            for columns, similarity_BM in _similarities(centre_MD, query_QD, None):
                best_BC = np.maximum.reduceat(similarity_BM, start_C, axis=1)
                yield Step(shots, draw, _numbers(columns), ClassValues(best_BC.T), None)
        return
    for columns, similarity_BP in _similarities(references.embedding_ND, query_QD, references.photo_N):
        for shots, draw in galleries:
            used_P = rank_DP[draw] < num_shots(shots, references)
            values = neighbour_values(similarity_BP[:, used_P], references.class_P[used_P], number, temperature)
            yield Step(shots, draw, _numbers(columns), values, None)


def _sweep_nearest(
    protocol: FewShotProtocol, references: References, query_QD: np.ndarray, rank_DP: np.ndarray, class_Q: np.ndarray
) -> Iterator[Step | Counted]:
    """Counts from the candidates; what that leaves open, and the gallery of the tables, from all photographs."""
    parts: list[tuple[int, list[Shots]]] = []
    for draw in range(protocol.draws):
        shots = [k for k in protocol.shots if k != "all" or draw == 0]
        parts += [(draw, shots[first : first + MOST_SHOTS]) for first in range(0, len(shots), MOST_SHOTS)]
    galleries = [
        nest_galleries(references, rank_DP[draw], draw, [num_shots(k, references) for k in shots])
        for draw, shots in parts
    ]
    by_rank = [photographs_by_rank(rank_P, references.class_P) for rank_P in rank_DP]
    table_P = np.flatnonzero(rank_DP[0] < num_shots(protocol.headline, references))
    table_start_C = np.searchsorted(references.class_P[table_P], np.arange(len(references.names)))
    for columns, similarity_BP in _similarities(references.embedding_ND, query_QD, references.photo_N):
        answers = nearest_answers(similarity_BP, class_Q[columns], references.class_P, galleries, protocol.top[-1])
        for (draw, shots), found in zip(parts, answers, strict=True):
            yield Counted(shots, columns, found)
            open_SB = found.open_SB.copy()
            if draw == 0 and protocol.headline in shots:
                open_SB[shots.index(protocol.headline)] = False
                best_BC = class_best(similarity_BP, table_P, table_start_C)
                yield Step(protocol.headline, 0, _numbers(columns), ClassValues(best_BC.T), similarity_BP.T)
            open_B = np.flatnonzero(open_SB.any(axis=0))
            if not len(open_B):
                continue
            similarity_PB = np.ascontiguousarray(similarity_BP[open_B].T)
            used = shots[: np.flatnonzero(open_SB.any(axis=1))[-1] + 1]
            limits = [num_shots(k, references) for k in used]
            stages = nearest_values(similarity_PB, by_rank[draw], len(references.names), limits)
            for k, open_here_B, values in zip(used, open_SB[: len(used)], stages, strict=True):
                if open_here_B.any():
                    yield Step(k, draw, columns.start + open_B, values, similarity_PB)


def _similarities(
    vector_ND: np.ndarray, query_QD: np.ndarray, photo_N: np.ndarray | None
) -> Iterator[tuple[slice, np.ndarray]]:
    """Returns (columns, similarity_BP), float32, of chunk after chunk; a photograph's similarity is its nearest row's.

    Equal vectors are multiplied once: a matrix product may round equal rows differently, and they must tie.
    """
    vector_UD, index_N = _different_rows(vector_ND)
    start_P = None if photo_N is None else np.flatnonzero(np.r_[True, photo_N[1:] != photo_N[:-1]])
    size = max(1, min(2048, _CELLS_A_CHUNK // len(vector_ND)))
    for start in range(0, len(query_QD), size):
        columns = slice(start, min(start + size, len(query_QD)))
        similarity = query_QD[columns] @ vector_UD.T
        if len(vector_UD) < len(vector_ND):
            similarity = np.take(similarity, index_N, axis=1)
        if start_P is not None and len(start_P) < len(vector_ND):
            similarity = np.maximum.reduceat(similarity, start_P, axis=1)
        yield columns, similarity


def _numbers(columns: slice) -> np.ndarray:
    return np.arange(columns.start, columns.stop)


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
