"""The conventions that a re-identification number depends on."""

from dataclasses import dataclass, fields
from typing import Literal, get_args, get_type_hints

from workbench.retrieval.reid_values import AveragePrecision, Ties

_TIES = {
    "expected": "expected (all orders)",
    "threshold": "threshold (one step in average precision, else all orders)",
    "optimistic": "optimistic",
    "pessimistic": "pessimistic",
}


@dataclass(frozen=True)
class ReidProtocol:
    """Everything that two groups may do differently and then print other numbers from the same embeddings.

    Attributes:
        junk: "same_id_same_camera": gallery rows of the query's individual from the query's own camera are taken away for
            that query, not counted wrong. "itself": queries and gallery are the same rows in one order, and each query searches all
            the others (leave one out). "none": everything counts.
        average_precision: "step": mean of the precision at each hit. "trapezoid": mean of the precisions at and just before
            each hit. Hits at places 1, 4 and 8 give 0.6250 and 0.5823.
        unmatched: queries that have no match left are left out and counted ("skip") or count as 0 ("zero").
        ties: of rows that are equally near: the mean over all their orders ("expected"), in average precision one step as
            scikit-learn has it ("threshold"), the right ones first ("optimistic") or last ("pessimistic").
        average: mean over queries ("query"), or over individuals of the mean over their queries ("identity").
        ranks: of the cumulative match characteristic, from 1, ascending.
        far: false accept rates, above 0 and below 1.
        tracklets: "mean": the queries of one individual and camera are pooled into one. "none": each picture asks for itself.
        flip: recorded: the embedding is the mean of a picture's and its mirror image's.
        neck: recorded: the feature "before" or "after" the normalisation neck; "" where there is none.
        input_size: recorded: (height, width) in px that the trunk saw; None: not stated.
        camera_embedding: recorded: the model was told the camera.
        distance: recorded: how the distances were made, e.g. "re-ranking k-reciprocal k1=20 k2=6 lambda=0.3".

    Raises:
        ValueError: a value that there is not.

    Source: junk, skipping and the trapezoid: Zheng et al. 2015 (Market-1501, its evaluation code skips no query); "identity": the
    model card of NVIDIA's ReIdentificationNet; neck and flip: Luo et al. 2019; camera embedding: He et al. 2021 (TransReID).
    """

    junk: Literal["same_id_same_camera", "itself", "none"] = "same_id_same_camera"
    average_precision: AveragePrecision = "step"
    unmatched: Literal["skip", "zero"] = "skip"
    ties: Ties = "expected"
    average: Literal["query", "identity"] = "query"
    ranks: tuple[int, ...] = (1, 5, 10, 20)
    far: tuple[float, ...] = (0.01, 0.001)
    tracklets: Literal["none", "mean"] = "none"
    flip: bool = False
    neck: Literal["before", "after", ""] = ""
    input_size: tuple[int, int] | None = None
    camera_embedding: bool = False
    distance: str = ""

    def __post_init__(self) -> None:
        """Checks every field at once."""
        hints = get_type_hints(type(self))
        faults = [
            f"{field.name} must be one of {get_args(hints[field.name])}, {getattr(self, field.name)!r} was given"
            for field in fields(self)
            if isinstance(field.default, str)
            and get_args(hints[field.name])
            and getattr(self, field.name) not in get_args(hints[field.name])
        ]
        for name in ("flip", "camera_embedding"):
            if not isinstance(getattr(self, name), bool):
                faults.append(f"{name} must be True or False, {getattr(self, name)!r} was given")
        object.__setattr__(self, "ranks", tuple(self.ranks))
        object.__setattr__(self, "far", tuple(self.far))
        whole = all(isinstance(rank, int) and rank >= 1 for rank in self.ranks)
        if not self.ranks or not whole or list(self.ranks) != sorted(set(self.ranks)):
            faults.append(f"ranks must be whole numbers from 1, ascending, {self.ranks!r} was given")
        if not all(0 < far < 1 for far in self.far) or len(set(self.far)) < len(self.far):
            faults.append(f"far must be different rates above 0 and below 1 (0.01 is 1 %), {self.far!r} was given")
        if self.input_size is not None:
            object.__setattr__(self, "input_size", tuple(self.input_size))
            if len(self.input_size) != 2 or min(self.input_size) < 1:
                faults.append(f"input_size must be (height, width) in px, {self.input_size!r} was given")
        if self.junk == "itself" and self.tracklets == "mean":
            faults.append("junk='itself' wants each picture to ask for itself: give tracklets='none'")
        if faults:
            raise ValueError("; ".join(faults))

    def describe(self) -> str:
        """Returns the protocol as one line that a reader understands without the code."""
        junk = {
            "same_id_same_camera": "same identity in the same camera is junk",
            "itself": "each image searches all the others",
            "none": "no junk rule",
        }
        parts = [
            junk[self.junk],
            f"{self.average_precision} average precision",
            f"ties {_TIES[self.ties]}",
            "queries without a match " + ("left out" if self.unmatched == "skip" else "count as 0"),
            "mean over " + ("queries" if self.average == "query" else "identities"),
            "queries pooled by identity and camera" if self.tracklets == "mean" else "one picture a query",
            "mean with the mirror image" if self.flip else "no flip",
        ]
        if self.neck:
            parts.append(f"feature {self.neck} the neck")
        if self.input_size is not None:
            parts.append(f"{self.input_size[0]} x {self.input_size[1]} px")
        if self.camera_embedding:
            parts.append("camera embedding")
        if self.distance:
            parts.append(self.distance)
        return "; ".join(parts)
