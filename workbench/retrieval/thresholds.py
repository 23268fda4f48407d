"""The threshold sheet: what a shop accepts, refuses and gets wrong when it sets a threshold and keeps to it.

The threshold is chosen on known classes that leave the gallery in turn, and verified on classes that had no part in it.
Axes: Q queries, C classes, S splits, R rows of class weights, G thresholds (descending), M measures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from workbench.retrieval.open_set import KINDS, OpenSetResult
from workbench.retrieval.open_set_measures import bootstrap_weights
from workbench.retrieval.stats import Metric
from workbench.retrieval.threshold_choice import Asked, follow, leave_out_in_turn, over_splits, smallest_within

OUTCOMES = ("accepted right", "accepted wrong", "refused")
_LADDER = tuple(step * 10**power for power in range(7) for step in (1, 2, 5))


@dataclass(frozen=True)
class ThresholdSheet:
    """What happens at a threshold that was chosen for a rate of false accepts.

    Attributes:
        table: a row a rate, kind of query (known, unknown all, unknown near, unknown far) and outcome: far, queries, outcome,
            per_1000, low, high, n (different queries), threshold, threshold_low, threshold_high (mean over splits),
            num_chosen_on (held-out queries that the threshold was chosen on), resolved.
        growth: a row a gallery size and rate: gallery_classes, far, threshold, threshold_low, threshold_high, false_accepts
            (share of the unseen queries accepted at it) with low and high, kept_false_accepts (at the threshold of the
            smallest gallery) with low and high, accepted_right (share of the known queries) with low and high, num_chosen_on,
            n (different unseen queries), num_splits, resolved. Empty where no split holds out two classes.
        metrics: `threshold/FAR=1%/known accepted right`, ...: the rows of the table as shares.
        use: by rate, the threshold for a gallery with all classes: every class left it once, none is left to verify it.
        use_resolved: by rate, whether the queries were enough for it.
        protocol: how it was measured, in a line.
    """

    table: pd.DataFrame
    growth: pd.DataFrame
    metrics: dict[str, Metric]
    use: dict[float, float]
    use_resolved: dict[float, bool]
    protocol: str

    def for_reading(self) -> pd.DataFrame:
        """Returns a row a rate: the thresholds, then what happens to 1,000 known and 1,000 unknown queries, as text."""
        rows = []
        for far, part in self.table.groupby("far", sort=False):
            first = part.iloc[0]
            row = {
                "false accepts wanted": f"{far:.4g}"
                if first["resolved"]
                else f"{far:.4g} (not resolved: {first['num_chosen_on']:,} queries)",
                "threshold to use": f"{self.use[far]:.4f}",  # type: ignore[index]
                "threshold (mean of splits)": f"{first['threshold']:.4f} [{first['threshold_low']:.4f}, "
                f"{first['threshold_high']:.4f}]",
            }
            for one in part.itertuples(index=False):
                row[f"of 1,000 {one.queries}: {one.outcome}"] = f"{one.per_1000:.1f} [{one.low:.1f}, {one.high:.1f}]"
            rows.append(row)
        return pd.DataFrame(rows)


def threshold_sheet(result: OpenSetResult, gallery_sizes: Sequence[int] | None = None) -> ThresholdSheet:
    """Returns the sheet of an evaluation; nothing is searched anew.

    In each split the known classes are cut at random into about 1 / held_out_share parts. Each part leaves the gallery once and is
    asked: its queries are unknown then. The threshold is the smallest one that accepts at most FAR of all of them. It is verified
    with the whole gallery of the split on the classes that the split holds out. A random part leaves most groups a known class:
    the threshold is that for near unknowns, where there are groups.

    For the growth, the split's held-out classes are halved: the threshold is chosen on one half and verified on the other, with
    galleries that grow inside each other in random order, another one in each split. Sizes larger than the gallery
    of a split are left out; that size itself comes last.

    Args:
        result: of `evaluate_open_set`.
        gallery_sizes: numbers of classes; None is 10, 20, 50, 100, ... and all that are known in every split.

    Raises:
        ValueError: a gallery size below 1 (2 for the statistic "margin").
    """
    similarities, protocol = result.similarities, result.similarities.protocol
    least = 2 if protocol.statistic == "margin" else 1
    if gallery_sizes is not None and (not gallery_sizes or min(gallery_sizes) < least):
        raise ValueError(f"gallery_sizes must be at least {least}, found {list(gallery_sizes)!r}")
    weight_RC = bootstrap_weights(len(similarities.names), protocol.num_replicates, protocol.seed)
    value_V = leave_out_in_turn(similarities, np.ones(similarities.num_classes, bool), protocol.num_splits).value_V
    use = {far: smallest_within(value_V, far) for far in protocol.far}
    line = (
        f"{protocol.describe()}; thresholds chosen on known classes that leave the gallery in turn, verified on classes "
        "held out"
    )
    table, metrics = _verify(result, weight_RC, line)
    growth = _grow(result, weight_RC, gallery_sizes)
    use_resolved = {far: far * len(value_V) >= 1 for far in protocol.far}
    return ThresholdSheet(table, growth, metrics, use, use_resolved, line)


def _verify(result: OpenSetResult, weight_RC: np.ndarray, line: str) -> tuple[pd.DataFrame, dict[str, Metric]]:
    similarities, protocol = result.similarities, result.similarities.protocol
    kinds = [kind for kind in KINDS if all(split.unknown(kind).any() for split in result.held_out)]
    asked = ["known", *(f"unknown, {kind}" for kind in kinds)]
    rows_SA = [[split.kind_Q == "known", *(split.unknown(kind) for kind in kinds)] for split in result.held_out]
    values: list[np.ndarray] = []
    replicates: list[np.ndarray] = []
    num_chosen = []
    for split, rows_A in zip(result.held_out, rows_SA, strict=True):
        chosen = leave_out_in_turn(similarities, split.gallery_C, split.number)
        answers = similarities.answers(split.gallery_C, split.number)
        right_Q = answers.right_Q
        checked = [
            Asked(answers.statistic_Q, amount_Q, similarities.class_Q).take(rows_A[0])
            for amount_Q in (right_Q, 1 - right_Q)
        ]
        checked += [Asked(answers.statistic_Q, None, similarities.class_Q).take(rows) for rows in rows_A[1:]]
        num_chosen.append(len(chosen.value_V))
        for into, weights in ((values, None), (replicates, weight_RC)):
            found = follow(chosen, checked, protocol.far, weights)
            refused = 1 - found[..., 1:2] - found[..., 2:3]
            into.append(np.concatenate([found[..., :3], refused, found[..., 3:]], axis=-1))
    value_SFK, replicate_SRFK = np.concatenate(values), np.stack(replicates)
    least_chosen = min(num_chosen)
    table, metrics = [], {}
    for place, far in enumerate(protocol.far):
        resolved = far * least_chosen >= 1
        extra = "" if resolved else f"; NOT RESOLVED: {far:.6g} of {least_chosen} queries is less than one"
        column = 0
        for which, name in enumerate(asked):
            rows_S = [rows_A[which] for rows_A in rows_SA]
            if which == 0:
                threshold = over_splits(
                    value_SFK[:, place, 0], replicate_SRFK[:, :, place, 0], similarities, rows_S, False
                )
            for outcome in OUTCOMES if which == 0 else ("accepted",):
                column += 1
                value, low, high = over_splits(
                    value_SFK[:, place, column], replicate_SRFK[:, :, place, column], similarities, rows_S
                )
                n = int(np.any(rows_S, axis=0).sum())
                per_1000 = (1000 * value, 1000 * low, 1000 * high)
                table.append((far, name, outcome, *per_1000, n, *threshold, least_chosen, resolved))
                metrics[f"threshold/FAR={far * 100:.6g}%/{name} {outcome}"] = Metric(
                    value, low, high, n, f"{line} (at least {least_chosen} queries a split){extra}"
                )
    columns = ["far", "queries", "outcome", "per_1000", "low", "high", "n"]
    columns += ["threshold", "threshold_low", "threshold_high", "num_chosen_on", "resolved"]
    return pd.DataFrame(table, columns=columns), metrics


def _grow(result: OpenSetResult, weight_RC: np.ndarray, gallery_sizes: Sequence[int] | None) -> pd.DataFrame:
    columns = ["gallery_classes", "far"]
    for name in ("threshold", "false_accepts", "kept_false_accepts", "accepted_right"):
        columns += [name, f"{name}_low", f"{name}_high"]
    columns += ["num_chosen_on", "n", "num_splits", "resolved"]
    similarities, fars = result.similarities, result.similarities.protocol.far
    class_Q, seed = similarities.class_Q, similarities.protocol.seed
    cases = []
    for split in result.held_out:
        rng = np.random.default_rng([seed, split.number, 3])
        unknown = rng.permutation(np.unique(class_Q[split.unknown("all")]))
        order = rng.permutation(np.flatnonzero(split.gallery_C))
        order = order[np.argsort(~similarities.asked_C[order], kind="stable")]  # those with queries first
        if len(unknown) > 1:
            half = len(unknown) // 2
            cases.append((split, order, np.isin(class_Q, unknown[:half]), np.isin(class_Q, unknown[half:])))
    if not cases:
        return pd.DataFrame(columns=columns)
    sizes = _sizes(min(len(order) for _, order, _, _ in cases), gallery_sizes)
    first: dict[int, Asked] = {}
    rows = []
    for size in sizes:
        values: list[np.ndarray] = []
        replicates: list[np.ndarray] = []
        known_S = []
        for split, order, choose_Q, check_Q in cases:
            gallery_C = np.isin(np.arange(similarities.num_classes), order[:size])
            known_S.append(np.append(gallery_C, np.zeros(len(similarities.names) - len(gallery_C), bool))[class_Q])
            answers = similarities.answers(gallery_C, split.number)
            every = Asked(answers.statistic_Q, None, class_Q)
            chosen, checked = every.take(choose_Q), every.take(check_Q)
            right = Asked(answers.statistic_Q, answers.right_Q, class_Q).take(known_S[-1])
            kept = first.setdefault(split.number, chosen)
            for into, weights in ((values, None), (replicates, weight_RC)):
                now = follow(chosen, [checked, right], fars, weights)
                then = follow(kept, [checked], fars, weights)
                into.append(np.concatenate([now[..., :2], then[..., 1:], now[..., 2:]], axis=-1))
        choose_S, check_S = [case[2] for case in cases], [case[3] for case in cases]
        value_SFK, replicate_SRFK = np.concatenate(values), np.stack(replicates)
        least_chosen, n = min(int(rows.sum()) for rows in choose_S), int(np.any(check_S, axis=0).sum())
        for place, far in enumerate(fars):
            found = [
                over_splits(value_SFK[:, place, k], replicate_SRFK[:, :, place, k], similarities, rows_S, k > 0)
                for k, rows_S in enumerate((choose_S, check_S, check_S, known_S))
            ]
            numbers = [end for triple in found for end in triple]
            rows.append((size, far, *numbers, least_chosen, n, len(cases), far * least_chosen >= 1))
    return pd.DataFrame(rows, columns=columns)


def _sizes(largest: int, wanted: Sequence[int] | None) -> list[int]:
    if wanted is None:
        wanted = [size for size in _LADDER if size >= (10 if largest > 10 else 2)]
    return [*sorted(size for size in set(wanted) if size < largest), largest]
