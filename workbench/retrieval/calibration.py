"""Calibrated similarity: the probability that an answer is right, from how similar it is.

Axes: N answers, F features (similarity, then the margin where it is used).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

Method = Literal["auto", "logistic", "isotonic"]
ENOUGH_FOR_ISOTONIC = 1000
FEW_ANSWERS, FEW_CLASSES = 50, 20


@dataclass(frozen=True)
class Calibration:
    """A probability that never falls as the similarity (and the margin) rises.

    Attributes:
        method: "logistic" (probability = 1 / (1 + exp(-(intercept + slopes . features)))) or "isotonic" (straight lines between
            knots, flat beyond them).
        slopes: of the similarity, and of the margin where it is used; at least 0. Empty for "isotonic".
        intercept: of "logistic".
        knots: similarities of "isotonic", ascending.
        levels: probabilities at the knots, 0 to 1, not falling.
        num_answers: answers behind it, each of another query.
        num_right: how many of them (expected, where answers tie) were right.
        num_classes: classes behind it; 0 where none were given.
        note: what it was fitted on, and what to beware of; a sentence or more.
    """

    method: str
    slopes: tuple[float, ...]
    intercept: float
    knots: tuple[float, ...]
    levels: tuple[float, ...]
    num_answers: int
    num_right: float
    num_classes: int
    note: str

    @property
    def uses_margin(self) -> bool:
        """Returns whether `probability` wants the margin."""
        return len(self.slopes) > 1

    def probability(self, similarity_N: ArrayLike, margin_N: ArrayLike | None = None) -> np.ndarray:
        """Returns the probability that each answer is right, float64, 0 to 1, of the shape given.

        Args:
            similarity_N: to the nearest reference, -1 to 1.
            margin_N: similarity to the nearest class less that to the second; only for a calibration that uses it.

        Raises:
            ValueError: NaN or infinity, a margin that is missing, not wanted or of another shape.
        """
        similarity_N = np.asarray(similarity_N, np.float64)
        if (margin_N is not None) != self.uses_margin:
            raise ValueError(f"this calibration {'wants' if self.uses_margin else 'uses no'} margin")
        features = [similarity_N] if margin_N is None else [similarity_N, np.asarray(margin_N, np.float64)]
        if any(feature.shape != similarity_N.shape or not np.isfinite(feature).all() for feature in features):
            raise ValueError(
                "finite similarities (and margins of the same shape) are wanted; leave NaN and infinity out"
            )
        if self.method == "isotonic":
            return np.asarray(np.interp(similarity_N, self.knots, self.levels))
        return np.asarray(expit(self.intercept + sum(a * x for a, x in zip(self.slopes, features, strict=True))))

    def to_dict(self) -> dict[str, Any]:
        """Returns the calibration as JSON values, exact."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Calibration":
        """Returns the calibration that `to_dict` wrote.

        Raises:
            ValueError: fields missing or too many, values that make no calibration.
        """
        fields = set(cls.__dataclass_fields__)
        if set(values) != fields:
            raise ValueError(
                f"a calibration has the fields {', '.join(sorted(fields))}; found {', '.join(sorted(values))}"
            )
        lists = {name: tuple(float(x) for x in values[name]) for name in ("slopes", "knots", "levels")}
        found = cls(**{**values, **lists})
        logistic = found.method == "logistic" and len(found.slopes) in (1, 2) and not found.knots + found.levels
        isotonic = found.method == "isotonic" and len(found.knots) == len(found.levels) > 0 and not found.slopes
        numbers = np.array([*found.slopes, found.intercept, *found.knots, *found.levels])
        ordered = (np.diff(found.knots) > 0).all() and (np.diff(found.levels) >= 0).all()
        inside = all(0 <= level <= 1 for level in found.levels) and all(slope >= 0 for slope in found.slopes)
        if not (logistic or isotonic) or not np.isfinite(numbers).all() or not ordered or not inside:
            raise ValueError(
                "these values make no calibration: wanted method logistic with one or two slopes of at least 0, or isotonic "
                "with ascending knots and levels from 0 to 1"
            )
        return found


def fit_calibration(
    similarity_N: ArrayLike,
    correct_N: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    margin_N: ArrayLike | None = None,
    method: Method = "auto",
) -> Calibration:
    """Returns the calibration of answers whose truth is known, best those of held-out classes among them.

    "auto" is logistic below 1,000 right and 1,000 wrong answers and with a margin, else isotonic: a step function follows any
    shape but wants data. Logistic regression has a small penalty on the slopes of the standardised features, and smoothed
    targets, so that separable answers, or only right ones, give no probability of 0 or 1; isotonic levels keep within
    the same ends. A slope below 0 becomes 0: the similarity then says nothing. The share of unknown products among the
    answers is taken as that of the shop. A query counts once: give one answer of it, or n is not what it seems.

    Args:
        similarity_N: to the nearest reference.
        correct_N: 0 to 1, whether the answer is right (expected, where answers tie); an unknown product is always 0.
        groups: the class of each answer, for the count in the note.
        margin_N: fit both; needs method "auto" or "logistic".
        method: "auto", "logistic" or "isotonic".

    Raises:
        ValueError: no answer, lengths that differ, NaN, values out of 0 to 1, no such method, isotonic with a margin.

    Source: Platt 1999 (logistic, smoothed targets); Zadrozny and Elkan 2002 (isotonic, pool adjacent violators); Niculescu-Mizil
    and Caruana 2005 (isotonic from about 1,000 cases on).
    """
    features_NF, correct_N, class_N = check_answers(similarity_N, correct_N, groups, margin_N)
    method = _choose_method(features_NF, correct_N, method)
    num_right = float(correct_N.sum())
    rarer = min(num_right, len(correct_N) - num_right)
    num_classes = 0 if groups is None else len(np.unique(class_N))
    note = f"{method}, fitted on {len(correct_N):,} answers, {num_right / len(correct_N):.0%} right"
    note += f", of {num_classes:,} classes." if num_classes else "."
    if rarer < FEW_ANSWERS or 0 < num_classes < FEW_CLASSES:
        note += f" Few data (fewer than {FEW_ANSWERS} right or wrong answers, or {FEW_CLASSES} classes): a rough guide."
    slopes: tuple[float, ...] = ()
    knots: tuple[float, ...] = ()
    levels: tuple[float, ...] = ()
    intercept = 0.0
    if method == "isotonic":
        curve = IsotonicRegression(y_min=0, y_max=1).fit(features_NF[:, 0], correct_N)
        knots = tuple(curve.X_thresholds_.tolist())
        levels = tuple(np.clip(curve.y_thresholds_, *_soft_ends(correct_N)).tolist())
    else:
        slopes, intercept = _fit_logistic(features_NF, correct_N)
        if slopes[0] == 0:
            note += " The similarity does not tell right from wrong answers."
    return Calibration(method, slopes, intercept, knots, levels, len(correct_N), num_right, num_classes, note)


def cross_fit(
    similarity_N: ArrayLike,
    correct_N: ArrayLike,
    groups: ArrayLike,
    *,
    margin_N: ArrayLike | None = None,
    method: Method = "auto",
    num_folds: int = 5,
    seed: int = 0,
) -> np.ndarray:
    """Returns the probability of each answer by a calibration that was fitted without its class, float64 [N].

    Args:
        similarity_N: as in `fit_calibration`.
        correct_N: as there.
        groups: the class of each answer; a class is in one fold.
        margin_N: as there.
        method: as there; "auto" is for all folds what it would be for all answers, so that one kind of curve is judged.
        num_folds: at most the number of classes.
        seed: of the folds.

    Raises:
        ValueError: as `fit_calibration`; fewer than two classes or folds.
    """
    features_NF, correct_N, class_N = check_answers(similarity_N, correct_N, groups, margin_N)
    num_classes = class_N.max() + 1
    if num_classes < 2 or num_folds < 2:
        raise ValueError(f"at least two classes and two folds are wanted, found {num_classes} and {num_folds}")
    method = _choose_method(features_NF, correct_N, method)
    fold_C = np.random.default_rng(seed).permutation(num_classes) % num_folds
    margins_N = None if margin_N is None else features_NF[:, 1]
    probability_N = np.empty(len(correct_N))
    for fold in np.unique(fold_C):
        own = fold_C[class_N] == fold
        rest_margin, own_margin = (None if margins_N is None else margins_N[rows] for rows in (~own, own))
        fitted = fit_calibration(
            features_NF[~own, 0], correct_N[~own], class_N[~own], margin_N=rest_margin, method=method
        )
        probability_N[own] = fitted.probability(features_NF[own, 0], own_margin)
    return probability_N


def check_answers(
    similarity_N: ArrayLike, correct_N: ArrayLike, groups: ArrayLike | None, margin_N: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (features_NF, correct_N, class_N), float64 and int64 codes, of the arguments of `fit_calibration`.

    Raises:
        ValueError: no answer, lengths that differ, NaN, truths out of 0 to 1.
    """
    columns = [similarity_N] if margin_N is None else [similarity_N, margin_N]
    features = [np.asarray(column, np.float64) for column in columns]
    correct = np.asarray(correct_N, np.float64)
    labels = np.zeros(len(correct), object) if groups is None else np.asarray(groups, object)
    if correct.ndim != 1 or not len(correct) or any(column.shape != correct.shape for column in (*features, labels)):
        shapes = ", ".join(str(column.shape) for column in (*features, correct, labels))
        raise ValueError(f"lists of one length, at least one answer, are wanted; found shapes {shapes}")
    if not np.isfinite(features).all() or not ((correct >= 0) & (correct <= 1)).all():
        raise ValueError("finite similarities and truths from 0 to 1 are wanted: leave answers with NaN out")
    class_N = np.unique(labels.astype(str), return_inverse=True)[1]
    return np.stack(features, axis=1), correct, class_N


def _choose_method(features_NF: np.ndarray, correct_N: np.ndarray, method: Method) -> Method:
    with_margin = features_NF.shape[1] > 1
    if method not in get_args(Method) or (method == "isotonic" and with_margin):
        raise ValueError(f"method must be auto, logistic or (without margin) isotonic, found {method!r}")
    if method != "auto":
        return method
    rarer = min(correct_N.sum(), len(correct_N) - correct_N.sum())
    return "isotonic" if rarer >= ENOUGH_FOR_ISOTONIC and not with_margin else "logistic"


def _fit_logistic(features_NF: np.ndarray, correct_N: np.ndarray) -> tuple[tuple[float, ...], float]:
    """(slopes, intercept), slopes at least 0: least cross entropy of smoothed targets plus half the squared standardised slopes."""
    low, high = _soft_ends(correct_N)
    target_N = low + (high - low) * correct_N
    mean_F, sd_F = features_NF.mean(axis=0), features_NF.std(axis=0)
    scaled_NF = np.divide(features_NF - mean_F, sd_F, out=np.zeros_like(features_NF), where=sd_F > 1e-9)

    def loss(beta_F: np.ndarray) -> tuple[float, np.ndarray]:
        logit_N = beta_F[0] + scaled_NF @ beta_F[1:]
        error_N = expit(logit_N) - target_N
        value = np.logaddexp(0, logit_N).sum() - target_N @ logit_N + (beta_F[1:] ** 2).sum() / 2
        # of one answer, so that the optimiser's tolerances mean the same for any number of them
        return value / len(target_N), np.append(error_N.sum(), error_N @ scaled_NF + beta_F[1:]) / len(target_N)

    start_F = np.append(logit(target_N.mean()), np.zeros(scaled_NF.shape[1]))
    bounds = [(None, None), *[(0, None)] * scaled_NF.shape[1]]
    found_F = minimize(
        loss, start_F, jac=True, bounds=bounds, options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 1000}
    ).x
    slopes_F = np.divide(found_F[1:], sd_F, out=np.zeros_like(sd_F), where=sd_F > 1e-9)
    return tuple(slopes_F.tolist()), float(found_F[0] - slopes_F @ mean_F)


def _soft_ends(correct_N: np.ndarray) -> tuple[float, float]:
    """The probabilities that stand for wrong and right: never 0 and 1, however many answers agree."""
    num_right = float(correct_N.sum())
    return 1 / (len(correct_N) - num_right + 2), (num_right + 1) / (num_right + 2)
