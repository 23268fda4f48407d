"""The conventions of an open-set evaluation, all of them, in one object that is printed with every number."""

from dataclasses import dataclass
from typing import Literal, get_args

from workbench.retrieval.few_shot_protocol import Shots

Statistic = Literal["nearest", "margin", "mean_k"]
Kind = Literal["near", "far", "both", "random"]
LEAST_SHARE, MOST_SHARE = 0.2, 0.3
_STATISTICS = {
    "nearest": "similarity to the nearest reference",
    "margin": "similarity to the nearest class less that to the second",
    "mean_k": "mean similarity to the {k} nearest references",
}
HELD_OUT = {
    "near": "as siblings of known classes (near)",
    "far": "in whole groups (far)",
    "both": "half in whole groups (far), half as siblings of known classes (near)",
    "random": "at random",
}


@dataclass(frozen=True)
class OpenSetProtocol:
    """Which products are made unknown, and what an answer is accepted by.

    Attributes:
        statistic: "nearest" (similarity to the nearest reference), "margin" (that of the nearest class less that of the
            second class) or "mean_k" (mean of the k nearest references). The answer is the nearest reference's label in
            all three; it is accepted when the statistic is above a threshold.
        k: of "mean_k".
        held_out_share: share of the classes with queries that leaves the gallery in each split, 0.2 to 0.3.
        num_splits: splits, at least 5; classes take turns.
        kind: "near" (held-out classes whose group keeps a known class), "far" (whole groups), "both" (half of each), "random".
        far: rates of false accepts, above 0 and below 1.
        shots: references per class, drawn anew for each split; "all" takes all.
        unknown_share: share of unknown queries for which risk is stated, above 0 and below 1.
        queries_per_class: at most so many queries of each label, chosen by the seed; None asks all.
        reference_augmentations: augmented copies beside each reference photograph.
        reference_domain: for the record.
        query_domain: for the record.
        seed: of the splits, references, queries and of the bootstrap.
        num_replicates: bootstrap replicates of the intervals.

    Raises:
        ValueError: a value that has no meaning, named.
    """

    statistic: Statistic = "nearest"
    k: int = 5
    held_out_share: float = 0.25
    num_splits: int = 5
    kind: Kind = "both"
    far: tuple[float, ...] = (0.01, 0.001)
    shots: Shots = "all"
    unknown_share: float = 0.2
    queries_per_class: int | None = None
    reference_augmentations: int = 0
    reference_domain: str = "real"
    query_domain: str = "real"
    seed: int = 0
    num_replicates: int = 1000

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("statistic", self.statistic, get_args(Statistic)),
            ("kind", self.kind, get_args(Kind)),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, found {value!r}")
        for name, number, least in (
            ("k", self.k, 1),
            ("num_splits", self.num_splits, 5),
            ("shots", 1 if self.shots == "all" else self.shots, 1),
            ("queries_per_class", 1 if self.queries_per_class is None else self.queries_per_class, 1),
            ("reference_augmentations", self.reference_augmentations, 0),
            ("seed", self.seed, 0),
            ("num_replicates", self.num_replicates, 100),
        ):
            if not isinstance(number, int) or isinstance(number, bool) or number < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, found {number!r}")
        if not LEAST_SHARE <= self.held_out_share <= MOST_SHARE:
            raise ValueError(f"held_out_share must be from 0.2 to 0.3, found {self.held_out_share!r}")
        if not 0 < self.unknown_share < 1:
            raise ValueError(f"unknown_share must be above 0 and below 1, found {self.unknown_share!r}")
        if not self.far or not all(0 < far < 1 for far in self.far) or len(set(self.far)) != len(self.far):
            raise ValueError(f"far must be different rates above 0 and below 1, found {self.far!r}")

    @property
    def least_classes(self) -> int:
        """Returns how many classes a gallery needs for the statistic."""
        return 2 if self.statistic == "margin" else 1

    def describe(self) -> str:
        """Returns the conventions in one line."""
        references = (
            "all references"
            if self.shots == "all"
            else f"{self.shots} reference{'s' if self.shots > 1 else ''} per class, drawn for each split"
        )
        queries = "all queries" if self.queries_per_class is None else f"{self.queries_per_class} queries per class"
        return (
            f"open set: {self.num_splits} splits (seed {self.seed}), {self.held_out_share:.0%} of the classes held out "
            f"{HELD_OUT[self.kind]}; {references} ({self.reference_domain}, {self.reference_augmentations} augmented "
            f"copies), {queries} ({self.query_domain}); accepted when the {_STATISTICS[self.statistic].format(k=self.k)} "
            "(cosine, L2-normalised) is above the threshold, ties refused together; mean over splits, 95 % interval over "
            f"classes and splits (cluster bootstrap over classes, {self.num_replicates} replicates)"
        )
