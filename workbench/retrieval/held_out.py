"""Which classes leave the gallery in each split, and which queries are unknown then, near or far.

Axes: C classes (labels of the gallery), Q queries, S splits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from workbench.retrieval.open_set_protocol import HELD_OUT, LEAST_SHARE, MOST_SHARE, OpenSetProtocol

NO_GROUP = -1


@dataclass(frozen=True)
class Split:
    """One choice of classes that are unknown.

    Attributes:
        number: 0-based; its draw of the references is searched.
        gallery_C: bool, the classes of the gallery.
        kind_Q: object array of str: "known", "near" (the query's class is not in the gallery, another one of its group
            is), "far" (none of its group is) or "unknown" (its class has no group).
    """

    number: int
    gallery_C: np.ndarray
    kind_Q: np.ndarray

    def unknown(self, kind: str) -> np.ndarray:
        """Returns the unknown queries of a kind, bool [Q]; "all" takes every kind."""
        return np.asarray(self.kind_Q != "known" if kind == "all" else self.kind_Q == kind)

    def count(self, class_Q: np.ndarray) -> dict[str, float]:
        """Returns the number of the split, and how many classes and queries (of these classes) are known, near, far, unknown."""
        row: dict[str, float] = {"split": self.number, "gallery_classes": int(self.gallery_C.sum())}
        for kind in ("known", "near", "far", "unknown"):
            queries = self.kind_Q == kind
            row[f"{kind}_classes"] = len(np.unique(class_Q[queries]))
            row[f"{kind}_queries"] = int(queries.sum())
        return row


def make_splits(
    class_Q: np.ndarray, num_classes: int, group_C: np.ndarray, protocol: OpenSetProtocol
) -> tuple[Split, ...]:
    """Returns the splits of an evaluation, see `hold_out`.

    Args:
        class_Q: int64, class of each query; num_classes and above: no reference.
        num_classes: classes of the gallery, the first of group_C.
        group_C: int64, group of each class, those without a reference too; -1 for none.
        protocol: kind, held_out_share, num_splits and seed.

    Raises:
        ValueError: see `hold_out`.
    """
    asked_C = np.bincount(class_Q, minlength=len(group_C))[:num_classes] > 0
    splits = []
    for number, held_C in enumerate(hold_out(group_C[:num_classes], asked_C, protocol)):
        known_C = np.zeros(len(group_C), bool)
        known_C[:num_classes] = ~held_C
        kind_C = np.where(np.isin(group_C, group_C[known_C]), "near", "far").astype(object)
        kind_C[group_C == NO_GROUP] = "unknown"
        kind_C[known_C] = "known"
        splits.append(Split(number, ~held_C, kind_C[class_Q]))
    return tuple(splits)


def hold_out(group_C: np.ndarray, asked_C: np.ndarray, protocol: OpenSetProtocol) -> np.ndarray:
    """Returns held_out_SC, bool: the classes that leave the gallery in each split.

    Of the classes with queries, 20 to 30 % are held out, those first that were held out least often before. In "far" whole groups
    go, as many as fit (a group larger than that share never goes); in "near" a class goes only while its group
    keeps another one; "both" fills half with groups (one at least) and the rest with siblings.

    Args:
        group_C: int64, the group of each class, -1 for none.
        asked_C: bool, classes that have queries.
        protocol: kind, held_out_share, num_splits and seed.

    Raises:
        ValueError: the classes do not allow it; says why.
    """
    num_asked = int(asked_C.sum())
    least, most = int(np.ceil(LEAST_SHARE * num_asked - 1e-9)), int(np.floor(MOST_SHARE * num_asked + 1e-9))
    wanted = int(np.clip(np.floor(protocol.held_out_share * num_asked + 0.5), least, most))
    if wanted < 1 or least > most:
        raise ValueError(
            f"an open set holds out 20 to 30 % of the classes, and of {num_asked} with queries that is no whole "
            "number: at least 4 classes are wanted (and not 6)"
        )
    if protocol.kind != "random" and (group_C == NO_GROUP).all():
        raise ValueError(f"kind {protocol.kind!r} wants the group of the classes, and none has one: use kind 'random'")
    if protocol.kind == "both" and most < 2:
        raise ValueError(f"kind 'both' holds out two classes at least, too many of {num_asked}: use near or random")
    times_C = np.zeros(len(group_C))
    far_times_C = np.zeros(len(group_C))
    held_SC = np.zeros((protocol.num_splits, len(group_C)), bool)
    for split, held_C in enumerate(held_SC):
        rng = np.random.default_rng([protocol.seed, split])
        order = np.lexsort((rng.random(len(group_C)), times_C))
        if protocol.kind == "random":
            held_C[[c for c in order if asked_C[c]][:wanted]] = True
        if protocol.kind in ("far", "both"):
            bounds = (least, wanted, most) if protocol.kind == "far" else (1, wanted // 2, most - 1)
            by_far = np.lexsort((rng.random(len(group_C)), far_times_C))
            _hold_out_groups(held_C, group_C, asked_C, by_far, *bounds)
            far_times_C += held_C
        if protocol.kind in ("near", "both"):
            _hold_out_siblings(held_C, group_C, asked_C, order, wanted)
        times_C += held_C
    return held_SC


def suit_protocol(
    reference_labels: ArrayLike, query_labels: ArrayLike, groups: Mapping[str, str] | None, protocol: OpenSetProtocol
) -> tuple[OpenSetProtocol | None, str]:
    """Returns the protocol with the first kind that these classes allow, and a sentence that says what was changed and why.

    The kinds are tried in the order asked, near, far, random. The sentence is empty when nothing had to change; the protocol
    is None when no open set can be made of these classes. Nothing is computed.

    Args:
        reference_labels: [N].
        query_labels: [Q].
        groups: the group of a label, for those that have one.
        protocol: what is wanted.
    """
    names = sorted({str(label) for label in np.asarray(reference_labels, dtype=object)})
    asked = {str(label) for label in np.asarray(query_labels, dtype=object)}
    group_C, asked_C = code_groups(names, groups), np.array([name in asked for name in names], bool)
    reasons = []
    for kind in dict.fromkeys((protocol.kind, "near", "far", "random")):
        try:
            hold_out(group_C, asked_C, replace(protocol, kind=kind))
        except ValueError as error:
            reasons.append(str(error))
            continue
        instead = f"Held out {HELD_OUT[kind]} instead of {protocol.kind!r}: {reasons[0]}." if reasons else ""
        return replace(protocol, kind=kind), instead
    return None, f"No open set here: {reasons[-1]}."


def code_groups(names: ArrayLike, groups: Mapping[str, str] | None) -> np.ndarray:
    """Returns the group of each name as int64 code, -1 where it has none; codes follow the groups' order by name."""
    known = {} if groups is None else {str(label): str(group) for label, group in groups.items()}
    code = {group: index for index, group in enumerate(sorted(set(known.values())))}
    return np.array([code[known[name]] if name in known else NO_GROUP for name in np.asarray(names)], np.int64)


def _hold_out_groups(
    held_C: np.ndarray, group_C: np.ndarray, asked_C: np.ndarray, order: np.ndarray, least: int, aim: int, most: int
) -> None:
    num_held = 0
    groups = [group for group in dict.fromkeys(group_C[order].tolist()) if group != NO_GROUP]
    for group in groups:
        size = int((asked_C & (group_C == group)).sum())
        if size and num_held + size <= (aim if num_held >= least else most):
            held_C |= group_C == group
            num_held += size
    if num_held < least:
        raise ValueError(
            f"no whole groups make up {least} to {most} classes: groups are too large, or classes lack one"
        )


def _hold_out_siblings(
    held_C: np.ndarray, group_C: np.ndarray, asked_C: np.ndarray, order: np.ndarray, wanted: int
) -> None:
    left = np.bincount(group_C[~held_C & (group_C != NO_GROUP)], minlength=group_C.max() + 1)
    num_held, before = int((held_C & asked_C).sum()), int(held_C.sum())
    for c in order:
        if num_held >= max(wanted, 1) and held_C.sum() > before:
            break
        if asked_C[c] and not held_C[c] and group_C[c] != NO_GROUP and left[group_C[c]] > 1:
            held_C[c] = True
            left[group_C[c]] -= 1
            num_held += 1
    if held_C.sum() == before:
        raise ValueError("no group keeps a known class when one of its classes is held out: each has one class only")
    if num_held < LEAST_SHARE * len(asked_C[asked_C]) - 1e-9:
        raise ValueError(f"only {num_held} classes can be held out as siblings, less than 20 % of {asked_C.sum()}")
