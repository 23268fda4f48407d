"""Verdicts on a data set as a whole, in the same table as the guidelines for references: copies, balance, light, shape."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from workbench.data.catalog import Catalog
from workbench.data.guidelines import COLUMNS, TOLERATED_SHARE
from workbench.data.labels import look_alikes
from workbench.data.long_tail import MAX_IMBALANCE
from workbench.data.near_duplicates import NearDuplicates
from workbench.data.readers.listing import few

BRIGHTNESS = (0.15, 0.97)
"""Mean luma outside of which a picture counts as too dark or too bright. Seen: 0.20 to 0.68 on 2936 shelf photographs and 0.62 to
0.96 on 81 packshots of the Grocery Store Dataset, 0.30 to 0.80 on 1205 nyala photographs."""

MIN_CONTRAST = 0.05
"""Standard deviation of the luma below which a picture counts as nearly empty. Seen: at least 0.11, 0.07 and 0.08 on the same."""

MAX_ASPECT_RATIO = 2.0
"""How much wider or narrower than the median a picture may be: a trunk sees all in one shape, squeezed or cut."""


def find_tested_splits(catalog: Catalog, reference_split: str = "", query_split: str = "") -> tuple[list[str], str]:
    """Returns (splits that hold references, split that holds queries) among the splits that are there; none is [] and "".

    What is left empty comes from the first card that says it: `reference_sets` (pairs split:domain) or `gallery_split`, and
    `query_split` of its protocol.

    Raises:
        ValueError: a split is named and no image has it.
    """
    for name in filter(None, (reference_split, query_split)):
        catalog.select(split=name)
    there = set(catalog.frame["split"])
    references, queries = [reference_split] if reference_split else [], query_split
    for card in catalog.cards.values():
        sets = card.protocol.get("reference_sets") or card.protocol.get("gallery_split") or []
        named = [str(one).partition(":")[0] for one in ([sets] if isinstance(sets, str) else sets)]
        references = references or [name for name in dict.fromkeys(named) if name in there]
        asked = str(card.protocol.get("query_split") or "")
        queries = queries or (asked if asked in there else "")
    return references, queries


def verdict_row(
    check: str,
    measured: str,
    threshold: str,
    num_failing: int | None,
    n: int | None,
    verdict: str,
    how: str,
) -> dict[str, object]:
    """Returns one row with the columns of `guidelines.check_guidelines`.

    Raises:
        ValueError: a verdict other than met, not met and look.
    """
    if verdict not in ("met", "not met", "look"):
        raise ValueError(f"A verdict is met, not met or look; found {verdict!r}.")
    return dict(zip(COLUMNS, (check, measured, threshold, num_failing, n, verdict, how), strict=True))


def join_verdicts(guidelines: pd.DataFrame, *checks: Iterable[dict[str, object]]) -> pd.DataFrame:
    """Returns the guidelines' rows, then those of the checks, with a column `asked_by` in front: whose demand it is."""
    rows = pd.DataFrame([row for part in checks for row in part], columns=list(COLUMNS))
    asked = {"published guideline": guidelines, "this audit": rows}
    parts = [part.assign(asked_by=name) for name, part in asked.items() if len(part)]
    table = pd.concat(parts or [rows.assign(asked_by="")], ignore_index=True)[["asked_by", *COLUMNS]]
    return table.astype({"num_failing": "Int64", "n": "Int64"})


def check_set(
    measures: pd.DataFrame, duplicates: pd.DataFrame, near: NearDuplicates, tail: pd.DataFrame, labels: Iterable[str]
) -> list[dict[str, object]]:
    """Returns the verdicts on a set as a whole, seven rows.

    Args:
        measures: from `audit.measure_images`.
        duplicates: from `audit.find_exact_duplicates`.
        near: from `near_duplicates.find_near_duplicates`.
        tail: from `long_tail.describe_tail`.
        labels: of the set, each at least once.
    """
    pictures = [_light(measures), _shape(measures)]
    return [_exact(duplicates, len(measures)), *_near(near), _names(set(labels)), _tail(tail), *pictures]


def set_metrics(near: NearDuplicates, checks: pd.DataFrame) -> dict[str, dict[str, object]]:
    """Returns exact counts by name, each with value, low, high, n and protocol.

    `near_duplicate_pairs`, `near_duplicate_pairs_across_splits` and `near_duplicate_pairs_with_two_labels` of the pictures
    compared, and `checks_met` of those rows of `join_verdicts` that could be decided.
    """
    decided = checks[checks["verdict"] != "look"]
    counts = {
        "near_duplicate_pairs": (len(near.table), near.num_compared, near.protocol),
        "near_duplicate_pairs_across_splits": (near.num_across, near.num_compared, near.protocol),
        "near_duplicate_pairs_with_two_labels": (
            int((~near.table["same_label"]).sum()),
            near.num_compared,
            near.protocol,
        ),
        "checks_met": (
            int((decided["verdict"] == "met").sum()),
            len(decided),
            "published reference guidelines and checks of the set, those that a measure can decide",
        ),
    }
    return {
        name: {"value": float(value), "low": float(value), "high": float(value), "n": n, "protocol": protocol}
        for name, (value, n, protocol) in counts.items()
        if n
    }


def _exact(duplicates: pd.DataFrame, num_images: int) -> dict[str, object]:
    across = duplicates[duplicates["across_splits"]]
    num_failing = int(across["num_images"].sum())
    return verdict_row(
        "no identical files across splits",
        f"{len(across)} groups with {num_failing} images; {len(duplicates) - len(across)} groups within a split",
        "none",
        num_failing,
        num_images,
        "met" if across.empty else "not met",
        "files (and boxes) that are the same to the byte",
    )


def _near(near: NearDuplicates) -> list[dict[str, object]]:
    across = near.table[near.table["across_splits"]]
    within = near.table[~near.table["across_splits"]]
    two_labels = {name: int((~part["same_label"]).sum()) for name, part in (("across", across), ("within", within))}
    pictures = len(np.unique(within[["row", "other_row"]].to_numpy()))
    is_met = pictures <= TOLERATED_SHARE * near.num_compared and not two_labels["within"]
    how = "perceptual hash, confirmed in colour, mirror images too; cropped or turned copies are not found"
    return [
        verdict_row(
            "no near duplicates across splits",
            f"{len(across)} pairs, {two_labels['across']} of them with two labels; n = {near.num_compared} images",
            "none",
            len(across),
            near.num_compared,
            "met" if across.empty else "not met",
            how,
        ),
        verdict_row(
            "hardly any near duplicates within a split",
            f"{len(within)} pairs of {pictures} images, {two_labels['within']} with two labels; n = {near.num_compared} images",
            f"at most {TOLERATED_SHARE:.0%} of the images, none with two labels",
            pictures,
            near.num_compared,
            "met" if is_met else "not met",
            f"{how}; such pictures count for one, and averages forget it",
        ),
    ]


def _names(labels: set[str]) -> dict[str, object]:
    groups = look_alikes(labels)
    named = [" and ".join(map(repr, group)) for group in groups]
    return verdict_row(
        "no two labels that look alike",
        f"{len(groups)} groups{': ' if groups else ''}{few(named)}",
        "none",
        sum(map(len, groups)),
        len(labels),
        "not met" if groups else "met",
        "labels that are the same but for case, blanks or the form of a sign: mostly one class under two names",
    )


def _tail(tail: pd.DataFrame) -> dict[str, object]:
    name, threshold = "classes alike in size", f"at most {MAX_IMBALANCE:g} to 1 in each split"
    how = "images of the largest class for one of the smallest; the Gini coefficient is 0 where all are alike"
    if tail.empty:
        return verdict_row(name, "no class", threshold, None, 0, "look", how)
    uneven = tail[tail["imbalance"] > MAX_IMBALANCE]
    listed = "; ".join(
        f"{row.split} {row.imbalance:.3g} to 1, Gini {row.gini:.2f}, {row.num_single} of {row.num_labels} classes with one image"
        for row in tail.itertuples()
    )
    return verdict_row(name, listed, threshold, len(uneven), len(tail), "not met" if len(uneven) else "met", how)


def _light(measures: pd.DataFrame) -> dict[str, object]:
    low, high = BRIGHTNESS
    faults = {
        "too dark": measures["brightness"] < low,
        "too bright": measures["brightness"] > high,
        "nearly empty": measures["contrast"] < MIN_CONTRAST,
    }
    return _share_row(
        "light that shows something",
        faults,
        f"mean luma {low} to {high}, contrast at least {MIN_CONTRAST}",
        "mean and standard deviation of the luma, 0..1",
    )


def _shape(measures: pd.DataFrame) -> dict[str, object]:
    middle = float(measures["aspect"].median()) if len(measures) else float("nan")
    faults = {
        "narrower": measures["aspect"] < middle / MAX_ASPECT_RATIO,
        "wider": measures["aspect"] > middle * MAX_ASPECT_RATIO,
    }
    how = f"width over height against the median ({middle:.2f}); a trunk sees all in one shape, squeezed, padded or cut"
    return _share_row("pictures of one shape", faults, f"within a factor of {MAX_ASPECT_RATIO:g} of the median", how)


def _share_row(name: str, faults: dict[str, pd.Series], threshold: str, how: str) -> dict[str, object]:
    failing = pd.concat(faults, axis=1).any(axis=1)
    num, n = int(failing.sum()), len(failing)
    if not n:
        return verdict_row(name, "no image", threshold, None, 0, "look", how)
    counted = ", ".join(f"{int(fault.sum())} {word}" for word, fault in faults.items())
    verdict = "met" if num <= TOLERATED_SHARE * n else "not met"
    return verdict_row(name, f"{num} of {n} fail ({num / n:.1%}): {counted}", threshold, num, n, verdict, how)
