"""Adds up the answers of a sweep: hits, the classes found and those that tie, the similarities of the tables.

Axes: P photographs, C classes, Q queries, B queries of a step, D draws, S numbers of shots, T numbers of first places ("top").
"""

import numpy as np

from workbench.retrieval.draws import References
from workbench.retrieval.few_shot_protocol import FewShotProtocol
from workbench.retrieval.mistakes import Answers
from workbench.retrieval.sweep import Counted, Step, num_shots
from workbench.retrieval.votes import ClassValues, expected_hit, image_hit


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
        self._references, self._num_photos_C = references, references.num_photos_C
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
        if present_Q.all():
            return Answers(self.predicted[shots], tied)
        tied = tied[present_Q[tied[:, 1]]]
        tied[:, 1] = (np.cumsum(present_Q) - 1)[tied[:, 1]]
        return Answers(self.predicted[shots][:, present_Q], tied)

    def add(self, step: Step | Counted) -> None:
        """Adds the answers of a gallery, or of some of a draw, to a chunk of queries."""
        if isinstance(step, Counted):
            self._add_counted(step)
            return
        shots, values, class_B = str(step.shots), step.values, self._class_Q[step.query_B]
        ahead_B, tied_B = values.rank_of(class_B)
        for top in self._protocol.top:
            self.hits[f"accuracy@{top}/shots={shots}"][step.draw, step.query_B] = expected_hit(ahead_B, tied_B, top)
        if step.similarity_PB is not None and self._image_tops:
            self._add_image_hits(step, step.similarity_PB, class_B, ahead_B, tied_B)
        found_B = class_B.astype(np.int32)
        open_B = np.flatnonzero((ahead_B > 0) | (tied_B > 0) | self._absent_Q[step.query_B])
        if len(open_B):
            best_CB = values.take(open_B).best()
            found_B[open_B] = best_CB.argmax(axis=0)
            query, found = np.nonzero((best_CB & (best_CB.sum(axis=0) > 1)).T)
            if len(query):
                rows = np.stack([np.full_like(query, step.draw), step.query_B[open_B[query]], found], axis=1)
                self._tied[shots].append(rows)
        self.predicted[shots][step.draw, step.query_B] = found_B
        if step.draw == 0 and step.shots == self._protocol.headline:
            self._add_similarities(step, found_B)

    def _add_counted(self, counted: Counted) -> None:
        answers, columns = counted.answers, counted.columns
        for row, shots in enumerate(counted.shots_S):
            for top in self._protocol.top:
                self.hits[f"accuracy@{top}/shots={shots}"][answers.draw, columns] = answers.ahead_SB[row] < top
            for top in self._image_tops:
                hit_B = answers.photos_ahead_SB[row] < top
                self.hits[f"image_accuracy@{top}/shots={shots}"][answers.draw, columns] = hit_B
            self.predicted[str(shots)][answers.draw, columns] = answers.found_SB[row]

    def _add_similarities(self, step: Step, found_B: np.ndarray) -> None:
        columns = np.arange(len(found_B))
        similarity_CB = step.values.similarity_CB
        self.similarity_2Q[0, step.query_B] = similarity_CB[found_B, columns]
        if len(similarity_CB) > 1:
            first_CB = step.values.first_CB.astype(np.float64)
            first_CB[found_B, columns] = -np.inf
            second_B = ClassValues(first_CB, step.values.second_CB).best().argmax(axis=0)
            self.second_Q[step.query_B] = second_B
            self.similarity_2Q[1, step.query_B] = similarity_CB[second_B, columns]

    def _add_image_hits(
        self, step: Step, similarity_PB: np.ndarray, class_B: np.ndarray, ahead_B: np.ndarray, tied_B: np.ndarray
    ) -> None:
        hit_TB = np.repeat((ahead_B == 0)[None].astype(np.float64), len(self._image_tops), axis=0)
        # A class ahead is a photograph ahead: only queries with some, but fewer than the places, need a count.
        open_B = np.flatnonzero((ahead_B < max(self._image_tops)) & ((ahead_B > 0) | (tied_B > 0)))
        if len(open_B):
            photos_P, best_CB = self._by_rank_DP[step.draw], step.values.first_CB[:, open_B]
            hit_TB[:, open_B] = image_hit(
                similarity_PB,
                open_B,
                best_CB,
                class_B[open_B],
                photos_P,
                self._num_photos_C,
                num_shots(step.shots, self._references),
                self._image_tops,
            )
        for top, hit_B in zip(self._image_tops, hit_TB, strict=True):
            self.hits[f"image_accuracy@{top}/shots={step.shots}"][step.draw, step.query_B] = hit_B
