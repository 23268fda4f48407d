"""Limits for an export, and the checks against them: what was found, what was wanted, and what it means.

Axes: R rows (references and queries together), Q queries. "Before" is torch, "after" the export.
"""

from dataclasses import dataclass

import numpy as np

from workbench.export.comparison import TIED, Answers
from workbench.retrieval.stats import Metric, paired_difference
from workbench.retrieval.threshold_choice import smallest_within


@dataclass(frozen=True)
class Limits:
    """What is asked of an export; None: reported, nothing asked.

    Attributes:
        name: of the limits, e.g. of the precision.
        cosine: smallest cosine of an image's two embeddings.
        difference: largest absolute difference of a coordinate, rows at length 1.
        flip_share: largest share, 0 to 1, of queries whose answer (label) changes.
        flip_margin: above this similarity by torch between the old and the new nearest row, no answer may change its row.
        accuracy_loss: the paired 95 % interval of the change of accuracy@1 must stay above minus this, 0 to 1.

    Raises:
        ValueError: a value out of its range.
    """

    name: str
    cosine: float | None = None
    difference: float | None = None
    flip_share: float | None = None
    flip_margin: float | None = None
    accuracy_loss: float | None = None

    def __post_init__(self) -> None:
        """Checks the ranges."""
        for field, low, high in (
            ("cosine", -1, 1),
            ("difference", 0, 2),
            ("flip_share", 0, 1),
            ("flip_margin", 0, 2),
            ("accuracy_loss", 0, 1),
        ):
            value = getattr(self, field)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{field} must be None or from {low} to {high}, {value!r} was given")


FP32 = Limits("fp32", cosine=0.999999, flip_margin=1e-5)
FP16 = Limits("fp16", cosine=0.9999, flip_share=0.001)
INT8 = Limits("int8", accuracy_loss=0.01)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        check: its name.
        value: what was found; NaN where it could not be had.
        limit: what was wanted, "" where nothing was.
        passed: whether it was kept; None where nothing was wanted.
        n: images, or queries, behind the value.
        words: what it says.
    """

    check: str
    value: float
    limit: str
    passed: bool | None
    n: int
    words: str


def check_numbers(
    cosine_R: np.ndarray, difference_R: np.ndarray, ratio_R: np.ndarray, limits: Limits
) -> tuple[Check, ...]:
    """Returns the checks of the embeddings by themselves; only the first where a row has no direction.

    Args:
        cosine_R: between an image's two embeddings, NaN where the export gave NaN, infinity or zeros.
        difference_R: largest absolute difference of a coordinate at length 1.
        ratio_R: length after over length before.
        limits: what is asked.
    """
    n, num_bad = len(cosine_R), int(np.isnan(cosine_R).sum())
    words = "every row is finite and not zero"
    if num_bad:
        words = f"{num_bad:,} of {n:,} rows hold NaN, infinity or only zeros; nothing else was computed (fp16: look for an overflow)"
    finite = _check("rows without a direction", num_bad, n, words, 0)
    if num_bad:
        return (finite,)
    num_below = 0 if limits.cosine is None else int((cosine_R < limits.cosine).sum())
    below = "" if limits.cosine is None else f"; {num_below:,} of {n:,} rows are below the limit"
    ratio = float(ratio_R[np.argmax(np.abs(np.log(ratio_R)))])
    scaled = "; scale rows to length 1 before comparing them" if abs(ratio - 1) > 0.001 else ""
    return (
        finite,
        _check("cosine, min", float(cosine_R.min()), n, f"of an image's two embeddings{below}", limits.cosine, ">="),
        _check("cosine, p01", float(np.quantile(cosine_R, 0.01)), n, "1 % of the images changed more"),
        _check("cosine, median", float(np.median(cosine_R)), n, "half of the images changed more"),
        _check(
            "largest difference",
            float(difference_R.max()),
            n,
            "of a coordinate, rows at length 1",
            limits.difference,
        ),
        _check("length ratio", ratio, n, f"length after over length before, the one farthest from 1{scaled}"),
    )


def check_answers(own: Answers, mixed: Answers, k: int, limits: Limits) -> tuple[Check, ...]:
    """Returns the checks of the answers: agreement, margins of the flips, neighbours, and the mixed gallery.

    Args:
        own: torch against the export with references of its own.
        mixed: torch against the export's queries with torch's references.
        k: neighbours that were compared.
        limits: what is asked.
    """
    n = len(own.margin_Q)
    num_rows, num_labels = int((own.margin_Q > TIED).sum()), int(own.label_changes_Q.sum())
    margin = float(own.margin_Q.max()) if num_rows else 0.0
    share, allowed = num_labels / n, limits.flip_share
    words = f"{num_labels:,} of {n:,} queries get another label"
    if allowed is not None and 0 < allowed * n < 1:
        words += f"; n is too small to see {100 * allowed:.3g} %: a single flip of {n:,} misses the limit"
    mixed_labels = int(mixed.label_changes_Q.sum())
    mixed_words = f"{mixed_labels:,} of {n:,} queries get another label from references by torch"
    if (mixed_labels - num_labels) / n > 0.01:
        mixed_words += "; the export agrees better with itself: do not mix, embed the references with the export"
    row_words = f"{num_rows:,} of {n:,} queries get another nearest row, ties left out"
    margin_words = f"similarity by torch, between the nearest row and the one that took its place; {num_rows:,} flips"
    return (
        _check("label flips", share, n, words, allowed),
        _check("top-1 agreement, label", 1 - share, n, "share of queries that keep their label"),
        _check("top-1 agreement, nearest row", 1 - num_rows / n, n, row_words),
        _check("largest margin of a flip", margin, n, margin_words, limits.flip_margin, "<"),
        _check(f"neighbour overlap at {k}", float(own.overlap_Q.mean()), n, f"mean share of {k} neighbours kept"),
        _check("mixed gallery: top-1 agreement, label", 1 - mixed_labels / n, n, mixed_words),
    )


def check_change(
    metrics: dict[str, Metric],
    right_before_Q: np.ndarray,
    right_after_Q: np.ndarray,
    label_Q: np.ndarray,
    limits: Limits,
) -> tuple[Check, ...]:
    """Returns the checks of the changes of accuracy@1 and mAP, with their intervals in words.

    Too small is an n at which an unchanged export could not pass, or an interval that is wider than the limit.

    Args:
        metrics: with "change/..." as `paired_difference` gives them.
        right_before_Q: 0 to 1, queries that have a reference of their label, by torch.
        right_after_Q: the same by the export.
        label_Q: of each.
        limits: what is asked.
    """
    checks = []
    for name, metric in metrics.items():
        if name.startswith("change/"):
            words = f"paired 95 % interval [{_points(metric.low)}, {_points(metric.high)}] points"
            title = f"change of {name.removeprefix('change/')}".replace("of mixed/", "of mixed gallery ")
            checks.append(_check(title, metric.value, metric.n, words))
    if limits.accuracy_loss is None:
        return tuple(checks)
    change, words = metrics["change/accuracy@1"], checks[0].words
    words += f"; n = {change.n:,} queries of {len(np.unique(label_Q)):,} labels"
    passed = change.low > -limits.accuracy_loss
    if not passed and change.high <= -limits.accuracy_loss:
        words += "; shown to be worse than the limit"
    elif not passed and paired_difference(right_before_Q, right_before_Q, label_Q).low <= -limits.accuracy_loss:
        words += "; n is too small to tell: an export that changes nothing would not pass either"
    elif not passed:
        words += "; n is too small to tell: the interval reaches across the limit"
    limit = f"lower end > {_points(-limits.accuracy_loss)} points"
    return (Check(checks[0].check, change.value, limit, passed, change.n, words), *checks[1:])


def check_threshold(own: Answers, mixed: Answers, far: float) -> tuple[Check, ...]:
    """Returns how far the threshold of the open set moves, and what happens when the old one is kept; nothing is asked.

    For the drift alone: the plain quantile of these queries. The threshold that a gallery offers is higher (`threshold_choice`).

    Args:
        own: torch against the export with references of its own.
        mixed: torch against the export's queries with torch's references.
        far: the rate of false accepts that each threshold is chosen for.
    """
    asked_Q = np.isfinite(own.stranger_before_Q)
    n, num_asked = len(asked_Q), int(asked_Q.sum())
    title = f"threshold at FAR {100 * far:.4g} %"
    if num_asked == 0:
        words = "no query has a row of another label: there is nothing to refuse"
        return (_check(f"drift of the {title}", float("nan"), 0, words),)
    before, after = (
        smallest_within(own.stranger_before_Q[asked_Q], far),
        smallest_within(own.stranger_after_Q[asked_Q], far),
    )
    resolved = "" if far * num_asked >= 1 else f"; not resolved: {far:.4g} of {num_asked:,} queries is less than one"
    checks = [
        Check(
            f"drift of the {title}", after - before, "", None, num_asked, f"from {before:.6f} to {after:.6f}{resolved}"
        )
    ]
    for name, answers in (("", own), ("mixed gallery: ", mixed)):
        accepted_Q, kept_Q = own.top_before_Q > before, answers.top_after_Q > before
        changed = int((accepted_Q != kept_Q).sum())
        words = (
            f"{int((accepted_Q & ~kept_Q).sum()):,} newly refused, {int((kept_Q & ~accepted_Q).sum()):,} newly accepted"
        )
        checks.append(_check(f"{name}decisions changed, old {title}", changed / n, n, words))
        accepts = float((answers.stranger_after_Q[asked_Q] > before).mean())
        words = f"{100 * float((own.stranger_before_Q[asked_Q] > before).mean()):.4g} % by torch; label left out of the gallery{resolved}"
        checks.append(_check(f"{name}false accepts, old {title}", accepts, num_asked, words))
    return tuple(checks)


def _check(name: str, value: float, n: int, words: str, bound: float | None = None, sign: str = "<=") -> Check:
    if bound is None:
        return Check(name, value, "", None, n, words)
    passed = {"<=": value <= bound, "<": value < bound, ">=": value >= bound}[sign]
    return Check(name, value, f"{sign} {bound:.9g}", passed, n, words)


def _points(share: float) -> str:
    return f"{100 * share:+.2f}"
