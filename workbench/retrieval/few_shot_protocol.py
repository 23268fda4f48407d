"""The conventions of a few-shot evaluation, all of them, in one object that is printed with every number."""

from dataclasses import dataclass
from typing import Literal

from workbench.retrieval.intervals import NUM_REPLICATES
from workbench.retrieval.votes import parse_vote

Shots = int | Literal["all"]
_ABSENT = {
    "error": "a query without a reference of its label is an error",
    "skip": "queries without a reference of their label skipped",
    "open_set": "queries without a reference of their label kept for the open set, not in the accuracy",
}


@dataclass(frozen=True)
class FewShotProtocol:
    """How references are drawn, how they vote, and what is counted.

    Attributes:
        shots: references per label, ascending, "all" last.
        draws: how often the references are drawn anew; "all" needs no draw.
        seed: of draws, queries and centres.
        vote: "nearest" (the label of the nearest reference), "prototype" (class mean), "kmeans:m" (nearest of m centres
            per label), "knn:k" (majority of the k nearest photographs, ties to the nearer), "softmax_knn:k" (they weigh
            exp(similarity / temperature)).
        queries_per_class: at most so many queries of each label, chosen by the seed; None asks all. (NVIDIA uses 180.)
        reference_augmentations: augmented copies beside each reference photograph; 0 is none.
        absent_queries: what happens to a query whose label has no reference: "error", "skip" or "open_set".
        reference_domain: where the references come from, for the record ("real", "synthetic", "packshot").
        query_domain: where the queries come from.
        metric: "cosine": embeddings are divided by their length; squared L2 orders them the same.
        top: the K of accuracy@K.
        temperature: of "softmax_knn".
        headline_shots: the shots of the tables; None is the last of `shots`.
        num_replicates: bootstrap replicates of the intervals.

    Raises:
        ValueError: a value that has no meaning, named.

    Source: nested draws, so that a curve over shots shows the effect of k alone; NVIDIA Retail Object Recognition (1 to 100
    references per class, 180 queries); RetailKLIP (augmented copies); DINOv2 (temperature 0.07).
    """

    shots: tuple[Shots, ...] = (1,)
    draws: int = 10
    seed: int = 0
    vote: str = "nearest"
    queries_per_class: int | None = None
    reference_augmentations: int = 0
    absent_queries: Literal["error", "skip", "open_set"] = "error"
    reference_domain: str = "real"
    query_domain: str = "real"
    metric: Literal["cosine"] = "cosine"
    top: tuple[int, ...] = (1, 5)
    temperature: float = 0.07
    headline_shots: Shots | None = None
    num_replicates: int = NUM_REPLICATES

    def __post_init__(self) -> None:
        numbers = _whole_numbers("shots", self.shots[:-1] if self.shots[-1:] == ("all",) else self.shots)
        if not self.shots or list(numbers) != sorted(set(numbers)):
            raise ValueError(f'shots must be ascending whole numbers, "all" last, found {self.shots!r}')
        if _whole_numbers("top", self.top)[:1] != (1,) or list(self.top) != sorted(set(self.top)):
            raise ValueError(f"top must be ascending and begin with 1, found {self.top!r}")
        for name, value, least in (
            ("draws", self.draws, 1),
            ("seed", self.seed, 0),
            ("queries_per_class", 1 if self.queries_per_class is None else self.queries_per_class, 1),
            ("reference_augmentations", self.reference_augmentations, 0),
            ("num_replicates", self.num_replicates, 100),
        ):
            if not _is_whole(value) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, found {value!r}")
        parse_vote(self.vote)
        if self.absent_queries not in _ABSENT:
            raise ValueError(f"absent_queries must be one of {', '.join(_ABSENT)}, found {self.absent_queries!r}")
        if self.metric != "cosine":
            raise ValueError(
                f'metric must be "cosine" (squared L2 on normalised rows orders the same), found {self.metric!r}'
            )
        for name, text in (("reference_domain", self.reference_domain), ("query_domain", self.query_domain)):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"{name} must be a word such as real, synthetic or packshot, found {text!r}")
        if isinstance(self.temperature, bool) or not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature must be above 0, found {self.temperature!r}")
        if self.headline_shots is not None and self.headline_shots not in self.shots:
            raise ValueError(f"headline_shots must be one of shots {self.shots!r}, found {self.headline_shots!r}")

    @property
    def headline(self) -> Shots:
        """Returns the shots that the tables show."""
        return self.shots[-1] if self.headline_shots is None else self.headline_shots

    def describe(self, shots: Shots | None = None) -> str:
        """Returns the conventions in one line; with `shots`, for a number that was measured at these shots."""
        if shots is None:
            chosen = f"shots {', '.join(map(str, self.shots))}"
        elif shots == "all":
            chosen = "all references of each label, no draw"
        else:
            chosen = f"{shots} reference{'s' if shots != 1 else ''} per label"
        if shots != "all" and self.shots != ("all",):
            draws = "1 draw" if self.draws == 1 else f"mean of {self.draws} nested draws"
            chosen += f", {draws} (seed {self.seed})"
        vote = f"{self.vote} (temperature {self.temperature:g})" if self.vote.startswith("softmax") else self.vote
        queries = (
            "all queries" if self.queries_per_class is None else f"at most {self.queries_per_class} queries per label"
        )
        return (
            f"few-shot gallery: {chosen}; vote {vote}, cosine similarity of L2-normalised embeddings, ties: expected; "
            f"{self.reference_augmentations} augmented copies per reference; references {self.reference_domain}, "
            f"queries {self.query_domain}; {queries}, {_ABSENT[self.absent_queries]}; 95 % interval over labels and draws "
            f"(cluster bootstrap, {self.num_replicates} replicates)"
        )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole_numbers(name: str, values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple) or not all(_is_whole(value) and value > 0 for value in values):
        raise ValueError(f"{name} must be a tuple of whole numbers of at least 1, found {values!r}")
    return values
