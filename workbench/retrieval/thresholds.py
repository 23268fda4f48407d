"""The threshold sheet: what a shop accepts, refuses and gets wrong when it sets a threshold and keeps to it.

The threshold is chosen by the known classes, each out of the gallery when it is asked, and verified on classes that had no part in it.
Axes: Q queries, C classes, S splits, R rows of class weights, G thresholds (descending), M measures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from workbench.retrieval.open_set import KINDS, OpenSetResult
from workbench.retrieval.open_set_measures import bootstrap_weights, interval_over_splits
from workbench.retrieval.open_set_search import ClassSimilarities
from workbench.retrieval.stats import Metric
from workbench.retrieval.threshold_choice import Asked, Strangers, choose_thresholds, follow

OUTCOMES = ("accepted right", "accepted wrong", "refused")
_LADDER = tuple(step * 10**power for power in range(7) for step in (1, 2, 5))


@dataclass(frozen=True)
class ThresholdSheet:
    """What happens at a threshold that was chosen for a rate of false accepts.

    Attributes:
        table: a row a rate, kind of query (known, unknown all, unknown near, unknown far) and outcome: far, queries, outcome,
            per_1000, low, high, n (different queries), threshold, threshold_low, threshold_high (mean over splits),
            num_chosen_on (queries that the threshold was chosen on), resolved (see `threshold_choice.Choice`; in every split).
        growth: a row a gallery size and rate: gallery_classes, far, threshold, threshold_low, threshold_high, false_accepts
            (share of the unseen queries accepted at it) with low and high, kept_false_accepts (at the threshold of the
            smallest gallery) with low and high, accepted_right (share of the known queries) with low and high, num_chosen_on,
            n (different unseen queries), num_splits, resolved. The largest gallery is that of the table.
        metrics: `threshold/FAR=1%/known accepted right`, ...: the rows of the table as shares.
        use: by rate, the threshold for a gallery with all classes: all chose it, none is left to verify it.
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

    `threshold_choice.choose_thresholds` is what chooses, everywhere. In each split the queries of the known classes choose, for the
    whole gallery of the split, and the classes that the split holds out verify. A class alone leaves most groups a known class: the
    threshold is that for near unknowns, where there are groups.

    For the growth, the same queries choose and verify with galleries that grow inside each other in random order, another one in each
    split. Sizes larger than the gallery of a split are left out; that size itself comes last.

    Args:
        result: of `evaluate_open_set`.
        gallery_sizes: numbers of classes; None is 10, 20, 50, 100, ... and all that are known in every split.

    Raises:
        ValueError: a gallery size below 2 (3 for the statistic "margin"): one class is out of it when it is asked.
    """
    similarities, protocol = result.similarities, result.similarities.protocol
    least = protocol.least_classes + 1
    if gallery_sizes is not None and (not gallery_sizes or min(gallery_sizes) < least):
        raise ValueError(f"gallery_sizes must be at least {least}, found {list(gallery_sizes)!r}")
    weight_RC = bootstrap_weights(len(similarities.names), protocol.num_replicates, protocol.seed)
    chosen = choose_thresholds(similarities.strangers(np.ones(similarities.num_classes, bool)), protocol.far)
    line = (
        f"{protocol.describe()}; thresholds chosen by known classes, each judged by a gallery and a threshold without it; verified "
        "on classes held out"
    )
    table, metrics = _verify(result, weight_RC, line)
    growth = _grow(result, weight_RC, gallery_sizes)
    use = {far: one.threshold for far, one in zip(protocol.far, chosen, strict=True)}
    use_resolved = {far: one.resolved for far, one in zip(protocol.far, chosen, strict=True)}
    return ThresholdSheet(table, growth, metrics, use, use_resolved, line)


def _verify(result: OpenSetResult, weight_RC: np.ndarray, line: str) -> tuple[pd.DataFrame, dict[str, Metric]]:
    similarities, protocol = result.similarities, result.similarities.protocol
    kinds = [kind for kind in KINDS if all(split.unknown(kind).any() for split in result.held_out)]
    asked = ["known", *(f"unknown, {kind}" for kind in kinds)]
    rows_SA = [[split.kind_Q == "known", *(split.unknown(kind) for kind in kinds)] for split in result.held_out]
    values: list[np.ndarray] = []
    replicates: list[np.ndarray] = []
    resolved_SF = []
    for split, rows_A in zip(result.held_out, rows_SA, strict=True):
        chosen = similarities.strangers(split.gallery_C, split.number).take(rows_A[0])
        answers = similarities.answers(split.gallery_C, split.number)
        amounts = [answers.right_Q, 1 - answers.right_Q, *[None] * len(kinds)]
        checked = [
            Asked(answers.statistic_Q, amount_Q, similarities.class_Q).take(rows)
            for amount_Q, rows in zip(amounts, [rows_A[0], *rows_A], strict=True)
        ]
        *both, resolved_F = follow(chosen, checked, protocol.far, weight_RC)
        resolved_SF.append(resolved_F)
        for into, found in zip((values, replicates), both, strict=True):
            refused = 1 - found[..., 1:2] - found[..., 2:3]
            into.append(np.concatenate([found[..., :3], refused, found[..., 3:]], axis=-1))
    value_SFK, replicate_SRFK = np.stack(values), np.stack(replicates)
    least_chosen = min(int(rows_A[0].sum()) for rows_A in rows_SA)
    table, metrics = [], {}
    for place, far in enumerate(protocol.far):
        resolved = all(resolved_F[place] for resolved_F in resolved_SF)
        extra = (
            "" if resolved else f"; NOT RESOLVED: {far:.6g} cannot be told from {least_chosen} queries of these classes"
        )
        column = 0
        for which, name in enumerate(asked):
            rows_S = [rows_A[which] for rows_A in rows_SA]
            if which == 0:
                threshold = _over_splits(
                    value_SFK[:, place, 0], replicate_SRFK[:, :, place, 0], similarities, rows_S, False
                )
            for outcome in OUTCOMES if which == 0 else ("accepted",):
                column += 1
                value, low, high = _over_splits(
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
    orders = []
    for split in result.held_out:
        order = np.random.default_rng([seed, split.number, 3]).permutation(np.flatnonzero(split.gallery_C))
        orders.append(order[np.argsort(~similarities.asked_C[order], kind="stable")])  # those with queries first
    choose_S = [split.kind_Q == "known" for split in result.held_out]
    check_S = [split.unknown("all") for split in result.held_out]
    smallest: dict[int, Strangers] = {}
    rows = []
    for size in _sizes(min(map(len, orders)), gallery_sizes, similarities.protocol.least_classes + 1):
        values: list[np.ndarray] = []
        replicates: list[np.ndarray] = []
        known_S, resolved_SF = [], []
        for split, order, choose_Q, check_Q in zip(result.held_out, orders, choose_S, check_S, strict=True):
            gallery_C = np.isin(np.arange(len(similarities.names)), order[:size])
            known_S.append(gallery_C[class_Q])
            answers = similarities.answers(gallery_C, split.number)
            chosen = similarities.strangers(gallery_C, split.number).take(choose_Q)
            checked = Asked(answers.statistic_Q, None, class_Q).take(check_Q)
            right = Asked(answers.statistic_Q, answers.right_Q, class_Q).take(known_S[-1])
            *now, resolved_F = follow(chosen, [checked, right], fars, weight_RC)
            *then, _ = follow(smallest.setdefault(split.number, chosen), [checked], fars, weight_RC)
            resolved_SF.append(resolved_F)
            for into, new, old in zip((values, replicates), now, then, strict=True):
                into.append(np.concatenate([new[..., :2], old[..., 1:], new[..., 2:]], axis=-1))
        value_SFK, replicate_SRFK = np.stack(values), np.stack(replicates)
        least_chosen, n = min(int(rows.sum()) for rows in choose_S), int(np.any(check_S, axis=0).sum())
        for place, far in enumerate(fars):
            found = [
                _over_splits(value_SFK[:, place, k], replicate_SRFK[:, :, place, k], similarities, rows_S, k > 0)
                for k, rows_S in enumerate((choose_S, check_S, check_S, known_S))
            ]
            numbers = [end for triple in found for end in triple]
            resolved = all(resolved_F[place] for resolved_F in resolved_SF)
            rows.append((size, far, *numbers, least_chosen, n, len(orders), resolved))
    return pd.DataFrame(rows, columns=columns)


def _sizes(largest: int, wanted: Sequence[int] | None, least: int) -> list[int]:
    if wanted is None:
        wanted = [size for size in _LADDER if size >= (10 if largest > 10 else least)]
    return [*sorted(size for size in set(wanted) if size < largest), largest]


def _over_splits(
    value_S: np.ndarray,
    replicate_SR: np.ndarray,
    similarities: ClassSimilarities,
    rows_S: Sequence[np.ndarray],
    is_share: bool = True,
) -> tuple[float, float, float]:
    """A value over splits with its interval; rows_S: the queries that it is about in each split."""
    any_Q = np.any(rows_S, axis=0)
    value, low, high = interval_over_splits(
        value_S[:, None],
        replicate_SR[:, :, None],
        least_unknown=min(len(np.unique(similarities.class_Q[rows])) for rows in rows_S),
        num_unknown=len(np.unique(similarities.class_Q[any_Q])),
        num_queries=int(any_Q.sum()),
        is_share=is_share,
    )
    return float(value[0]), float(low[0]), float(high[0])
