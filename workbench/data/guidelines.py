"""A catalog held against the guidelines for reference images that the published recognition models state.

Source of the guidelines: NVIDIA's model card of Retail Object Recognition (reference images at inference).
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from workbench.data.audit import (
    MONOCHROME_CHROMA,
    STANDARD_PX,
    UNIFORM_BORDER,
    check_measures,
    find_exact_duplicates,
)
from workbench.data.catalog import Catalog

MIN_OBJECT_SHARE = 0.7
MIN_SIDE_PX = 10
MIN_IMAGES_PER_CLASS, MAX_IMAGES_PER_CLASS = 20, 30
# Source of the four above: the guidelines themselves.

MAX_BLUR = 0.62
"""Blur effect (see `audit.blur_effect`) above which a picture counts as blurred. Seen on real photographs: median 0.44,
99th percentile 0.61 and 0.6 % above on 2936 shelf photographs of the Grocery Store Dataset, most of them shaken; 1 %
above on its 81 packshots, smooth fruit on white, falsely; none of 1205 nyala photographs (largest 0.55). Smeared by
4 % of the shorter side horizontally, 95 to 100 % of them are above; by 8 % diagonally, 97 to 100 %; by 2 %, 0 to 29 %:
slight motion is not found."""

TOLERATED_SHARE = 0.02
"""Share of failing images up to which a guideline still counts as met: single odd pictures do not decide, and 1 % of
sharp packshots are accused of blur."""

MIN_MEASURED_SHARE = 0.5
"""Share of images for which a measure must exist before a guideline is judged by it; below, the eye judges."""

MAX_SEPARATION = 0.71
"""How well one measure may tell references from queries (area under the ROC curve, 0.5 to 1) before they are unlike:
the value for two normal distributions 0.8 standard deviations apart, a "large" effect.
Source: Cohen, "Statistical power analysis for the behavioral sciences", 1988, section 2.2."""

COMPARED = ("brightness", "contrast", "colourfulness", "sharpness", "blur", "shorter_px", "aspect")

COLUMNS = ("guideline", "measured", "threshold", "num_failing", "n", "verdict", "how")


def check_guidelines(
    catalog: Catalog,
    measures: pd.DataFrame,
    reference_split: str | None = None,
    query_split: str | None = None,
) -> pd.DataFrame:
    """One row a guideline, in the guidelines' order; nine rows, also for an empty catalog.

    Columns: guideline; measured (text with value and n); threshold (text); num_failing and n (Int64, missing where
    nothing was measured); verdict: `met`, `not met`, or `look` where the eye has to judge; how (how it was measured, or
    what to look at).

    Args:
        catalog: the images, with references and queries.
        measures: from `audit.measure_images` on this very catalog. What could not be decoded has no row there and is
            not judged, but its class is counted with it.
        reference_split: the split that the guidelines are about; None judges all images.
        query_split: the split that references are compared with; None leaves that guideline to the eye.

    Raises:
        ValueError: a split that is not there, or measures of another catalog.
    """
    check_measures(catalog, measures)
    references = _rows_of(catalog, reference_split)
    queries = _rows_of(catalog, query_split)
    ours = measures[references[measures.index].to_numpy()]
    theirs = measures[queries[measures.index].to_numpy()] if query_split and reference_split else None
    where = f"share of the frame in the box around the object, where {UNIFORM_BORDER:.0%} of the border is one colour"
    looked_at = {
        "at least 60 % of the object visible": "sample sheet: hands, tags or other goods in front; objects cut by the edge",
        "no ambiguous views": "sample sheet: views that several classes share, such as lids and bottoms",
    }
    table = [
        _judged(
            "object at least 70 % of the frame",
            ours["object_share"],
            lambda share: share < MIN_OBJECT_SHARE,
            f"at least {MIN_OBJECT_SHARE}",
            f"{where}; a frame filled to its edges has no such border and is not counted",
        ),
        *(_row(name, "not measured", "", None, None, "look", how) for name, how in looked_at.items()),
        _alike(ours, theirs),
        _one_class(catalog, measures, references),
        _per_class(catalog.frame.loc[references & ~catalog.is_nobody, "label"].value_counts()),
        _judged(
            f"above {MIN_SIDE_PX} px",
            ours["shorter_px"],
            lambda side: side <= MIN_SIDE_PX,
            f"more than {MIN_SIDE_PX} px",
            "shorter side of the file, px",
        ),
        _judged(
            "no monochrome images",
            ours["chroma"],
            lambda chroma: chroma < MONOCHROME_CHROMA,
            f"at least {MONOCHROME_CHROMA:.0f} of 255",
            "99th percentile of the pixels' chroma; tinted (sepia) pictures are not found",
        ),
        _judged(
            "no motion blur",
            ours["blur"],
            lambda blur: blur > MAX_BLUR,
            f"at most {MAX_BLUR}",
            f"blur effect (Crete 2007) at {STANDARD_PX} px; slight motion is not found, smooth subjects may be accused",
        ),
    ]
    return pd.DataFrame(table, columns=list(COLUMNS)).astype({"num_failing": "Int64", "n": "Int64"})


def audit_metrics(
    catalog: Catalog, measures: pd.DataFrame, quarantine: pd.DataFrame, duplicates: pd.DataFrame, verdicts: pd.DataFrame
) -> dict[str, dict[str, object]]:
    """The audit's counts by name, each with value, low, high, n and protocol; exact, so low and high are the value.

    `guidelines_met` of those that could be measured, `images_readable` of the images listed, `duplicate_groups`,
    `duplicate_groups_across_splits` and `duplicate_groups_with_several_labels` of the images read.
    """
    judged = int((verdicts["verdict"] != "look").sum())
    read = f"files compared byte for byte, {len(measures)} images read"
    counts = {
        "guidelines_met": (
            int((verdicts["verdict"] == "met").sum()),
            judged,
            "published reference guidelines, measured",
        ),
        "images_readable": (
            len(measures),
            len(measures) + len(quarantine),
            f"decoded, of {len(catalog)} images listed",
        ),
        "duplicate_groups": (len(duplicates), len(measures), read),
        "duplicate_groups_across_splits": (int(duplicates["across_splits"].sum()), len(measures), read),
        "duplicate_groups_with_several_labels": (int((~duplicates["same_label"]).sum()), len(measures), read),
    }
    return {
        name: {"value": float(value), "low": float(value), "high": float(value), "n": n, "protocol": protocol}
        for name, (value, n, protocol) in counts.items()
    }


def separation(first: np.ndarray, second: np.ndarray) -> float:
    """How well one number tells two samples apart: 0.5 (not at all) to 1 (always); NaN where a sample is empty.

    The area under the ROC curve, or 1 minus it where that is larger; ties count half, missing values are left out.

    Source: Hanley and McNeil, "The meaning and use of the area under a ROC curve", Radiology 143, 1982.
    """
    first, second = first[~np.isnan(first)], second[~np.isnan(second)]
    if len(first) == 0 or len(second) == 0:
        return float("nan")
    ranks = pd.Series(np.concatenate([first, second])).rank().to_numpy()[: len(first)]
    area = (ranks.sum() - len(first) * (len(first) + 1) / 2) / (len(first) * len(second))
    return float(max(area, 1 - area))


def _rows_of(catalog: Catalog, split: str | None) -> pd.Series:
    if split is None:
        return pd.Series(True, index=catalog.frame.index)
    catalog.select(split=split)  # refuses a split that is not there
    return catalog.frame["split"] == split


def _row(
    guideline: str, measured: str, threshold: str, num_failing: int | None, n: int | None, verdict: str, how: str
) -> tuple[object, ...]:
    return guideline, measured, threshold, num_failing, n, verdict, how


def _judged(
    guideline: str, values: pd.Series, fails: Callable[[pd.Series], pd.Series], threshold: str, how: str
) -> tuple[object, ...]:
    known = values.dropna()
    if known.empty:
        measured = f"cannot be measured on any of {len(values)} images"
        return _row(guideline, measured, threshold, None, 0, "look", how)
    num_failing = int(fails(known).sum())
    low, middle, high = known.quantile([0.05, 0.5, 0.95])
    measured = f"{num_failing} of {len(known)} fail ({num_failing / len(known):.1%}); "
    measured += f"median {middle:.3g}, 5 to 95 %: {low:.3g} to {high:.3g}; n = {len(known)} of {len(values)}"
    if len(known) < MIN_MEASURED_SHARE * len(values):
        verdict = "look"
    else:
        verdict = "met" if num_failing <= TOLERATED_SHARE * len(known) else "not met"
    return _row(guideline, measured, threshold, num_failing, len(known), verdict, how)


def _alike(references: pd.DataFrame, queries: pd.DataFrame | None) -> tuple[object, ...]:
    name = "references like the queries"
    look = "sample sheets of both: angle, scene, background, light"
    threshold = f"at most {MAX_SEPARATION}"
    if queries is None:
        return _row(name, "not measured: no reference and query split stated", threshold, None, None, "look", look)
    apart = {
        measure: separation(references[measure].to_numpy(np.float64), queries[measure].to_numpy(np.float64))
        for measure in COMPARED
    }
    known = {measure: area for measure, area in apart.items() if not np.isnan(area)}
    if not known:
        return _row(name, "not measured: no reference or no query", threshold, None, 0, "look", look)
    num_failing = sum(area > MAX_SEPARATION for area in known.values())
    listed = ", ".join(f"{measure} {area:.2f}" for measure, area in sorted(known.items(), key=lambda item: -item[1]))
    measured = f"{num_failing} of {len(known)} measures tell them apart: {listed}; "
    measured += f"n = {len(references)} references, {len(queries)} queries"
    how = f"area under the ROC curve of each measure, 0.5 is alike; what no measure sees: {look}"
    return _row(name, measured, threshold, num_failing, len(known), "not met" if num_failing else "look", how)


def _one_class(catalog: Catalog, measures: pd.DataFrame, references: pd.Series) -> tuple[object, ...]:
    groups = find_exact_duplicates(catalog, measures)
    hashes = groups.loc[~groups["same_label"], "sha256"]
    ours = measures[references[measures.index].to_numpy()]
    num_failing = int(ours["sha256"].isin(hashes).sum())
    return _row(
        "one class each",
        f"{num_failing} of {len(ours)} images are also there under another label; n = {len(ours)}",
        "none",
        num_failing,
        len(ours),
        "not met" if num_failing else "look",
        "files that are the same to the byte under two labels; sample sheet: pictures that show several products",
    )


def _per_class(counts: pd.Series) -> tuple[object, ...]:
    name = f"{MIN_IMAGES_PER_CLASS} to {MAX_IMAGES_PER_CLASS} images per class"
    threshold = f"at least {MIN_IMAGES_PER_CLASS}; more than {MAX_IMAGES_PER_CLASS} does no harm"
    how = "images of each label, as listed"
    if counts.empty:
        return _row(name, "no image", threshold, None, 0, "look", how)
    num_few, num_one = int((counts < MIN_IMAGES_PER_CLASS).sum()), int((counts == 1).sum())
    num_many = int((counts > MAX_IMAGES_PER_CLASS).sum())
    measured = f"{num_few} of {len(counts)} classes have fewer ({num_one} have one), {num_many} have more; "
    measured += f"{counts.min()} to {counts.max()}, median {counts.median():.3g}; n = {len(counts)} classes"
    return _row(name, measured, threshold, num_few, len(counts), "not met" if num_few else "met", how)
