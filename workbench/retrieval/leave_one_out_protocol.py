"""The conventions of a leave-one-out evaluation, all of them, in one object that is printed with every number."""

from dataclasses import dataclass
from typing import Literal

from workbench.retrieval.intervals import NUM_REPLICATES

RECALL_AT = (1, 10, 100, 1000)
"""Those published for Stanford Online Products (Oh Song et al. 2016); CUB-200-2011 has 1, 2, 4, 8."""


@dataclass(frozen=True)
class LeaveOneOutProtocol:
    """How images are searched for among the others of their set, and what is counted.

    Attributes:
        top: the K of Recall@K, from 1, ascending.
        absent_queries: what happens to an image that is alone under its label: "error" or "skip". It is searched in any case.
        domain: where the images come from, for the record.
        num_replicates: bootstrap replicates of the intervals.

    Raises:
        ValueError: a value that has no meaning, named.

    Source: Oh Song et al. 2016, "Deep Metric Learning via Lifted Structured Feature Embedding" (Recall@K, every test image a
    query against the rest of the test set); Musgrave et al. 2020, "A Metric Learning Reality Check" (R-precision, MAP@R).
    """

    top: tuple[int, ...] = RECALL_AT
    absent_queries: Literal["error", "skip"] = "error"
    domain: str = "real"
    num_replicates: int = NUM_REPLICATES

    def __post_init__(self) -> None:
        if (
            not all(type(k) is int and k > 0 for k in self.top)
            or self.top[:1] != (1,)
            or list(self.top) != sorted(set(self.top))
        ):
            raise ValueError(f"top must be whole numbers that ascend from 1, found {self.top!r}")
        if self.absent_queries not in ("error", "skip"):
            raise ValueError(f'absent_queries must be "error" or "skip", found {self.absent_queries!r}')
        if type(self.num_replicates) is not int or self.num_replicates < 100:
            raise ValueError(f"num_replicates must be a whole number of at least 100, found {self.num_replicates!r}")

    @property
    def headline(self) -> str:
        """Returns the references a class of the tables, in words: "all others"."""
        return "all others"

    def describe(self) -> str:
        """Returns the conventions in one line."""
        alone = "an error" if self.absent_queries == "error" else "not asked"
        return (
            "leave one out: each image searches all the others, itself left out by its row; cosine similarity of L2-normalised "
            f"embeddings, ties: expected over all orders; images {self.domain}; an image alone under its label is {alone}; 95 % "
            f"interval over labels (cluster bootstrap, {self.num_replicates} replicates)"
        )
