import json
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from workbench.retrieval.calibration import ENOUGH_FOR_ISOTONIC, Calibration, cross_fit, fit_calibration
from workbench.retrieval.reliability import calibration_metrics, reliability


def _answers(num: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    similarity, margin = rng.uniform(0.2, 1, num), rng.uniform(0, 0.4, num)
    correct = (rng.random(num) < expit(12 * (similarity - 0.6) + 8 * (margin - 0.2))).astype(float)
    return similarity, margin, correct, rng.integers(0, 25, num)


@pytest.mark.parametrize("with_margin", [False, True])
def test_logistic_is_scikit_learns_on_the_smoothed_targets(with_margin: bool) -> None:
    similarity, margin, correct, groups = _answers()
    found = fit_calibration(similarity, correct, groups, margin_N=margin if with_margin else None, method="logistic")
    features = np.stack([similarity, margin] if with_margin else [similarity], axis=1)
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    high, low = (correct.sum() + 1) / (correct.sum() + 2), 1 / ((1 - correct).sum() + 2)
    target = np.where(correct == 1, high, low)
    model = LogisticRegression(C=1.0, tol=1e-12, max_iter=1000).fit(
        np.concatenate([scaled, scaled]),
        np.repeat([1, 0], len(target)),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    given_margin = margin if with_margin else None
    assert found.probability(similarity, given_margin) == pytest.approx(model.predict_proba(scaled)[:, 1], abs=1e-6)
    assert found.uses_margin is with_margin
    assert (found.num_answers, found.num_right, found.num_classes) == (400, correct.sum(), 25)
    assert "400 answers" in found.note
    assert "Few data" not in found.note


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=40))
def test_isotonic_is_scikit_learns_within_the_soft_ends(pairs: list[tuple[int, float]]) -> None:
    x, y = np.array(pairs, float).T
    found = fit_calibration(x / 5, y, method="isotonic")
    model = IsotonicRegression(out_of_bounds="clip").fit(x / 5, y)
    asked = np.linspace(-1.5, 1.5, 61)
    ends = (1 / ((1 - y).sum() + 2), (y.sum() + 1) / (y.sum() + 2))
    wanted = np.interp(asked, model.X_thresholds_, np.clip(model.y_thresholds_, *ends))
    assert found.probability(asked) == pytest.approx(wanted, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1, 1, width=32), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=30),
    st.sampled_from(["logistic", "isotonic", "auto"]),
)
def test_probability_never_falls_and_is_never_certain(pairs: list[tuple[float, float]], method: Any) -> None:
    x, y = np.array(pairs, float).T
    found = fit_calibration(x, y, method=method)
    probability = found.probability(np.linspace(-1, 1, 101))
    assert (np.diff(probability) >= -1e-12).all()
    assert ((probability >= 0) & (probability <= 1)).all()
    at = found.probability(x)
    assert ((at > 0) & (at < 1)).all()


def test_only_right_answers_and_separable_ones_stay_finite() -> None:
    only_right = fit_calibration(np.linspace(0.5, 0.9, 9), np.ones(9))
    assert only_right.probability(0.7) == pytest.approx(10 / 11, abs=1e-6)  # Platt's target for 9 of 9
    separable = fit_calibration(np.arange(10) / 10, np.arange(10) >= 5)
    assert 0.5 < separable.probability(0.5) < separable.probability(0.9) < 1
    same = fit_calibration(np.full(10, 0.5), np.arange(10) >= 5)
    assert same.slopes == (0.0,)
    assert same.probability([0.1, 0.9]) == pytest.approx([0.5, 0.5])


def test_a_similarity_that_misleads_gives_one_probability() -> None:
    found = fit_calibration(np.arange(100) / 100, np.arange(100) < 30, method="logistic")
    assert found.slopes == (0.0,)
    assert found.probability([0.0, 1.0]) == pytest.approx([0.3, 0.3], abs=0.01)
    assert "does not tell right from wrong" in found.note
    assert "Few data" in found.note
    misled = fit_calibration(np.arange(100) / 100, np.arange(100) >= 30, margin_N=1 - np.arange(100) / 100)
    assert misled.slopes[0] > 0
    assert misled.slopes[1] >= 0


def test_the_method_follows_the_data() -> None:
    similarity, margin, correct, _ = _answers(8000)
    assert fit_calibration(similarity[:1500], correct[:1500]).method == "logistic"
    assert fit_calibration(similarity, correct).method == "isotonic"
    assert fit_calibration(similarity, correct, margin_N=margin).method == "logistic"


@pytest.mark.parametrize("method", ["logistic", "isotonic"])
def test_a_calibration_survives_json(method: Any) -> None:
    similarity, _, correct, groups = _answers()
    found = fit_calibration(similarity, correct, groups, method=method)
    again = Calibration.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again == found
    asked = np.linspace(-1, 1, 1001)
    assert (again.probability(asked) == found.probability(asked)).all()
    with_margin = fit_calibration(similarity, correct, margin_N=similarity / 2)
    assert Calibration.from_dict(json.loads(json.dumps(with_margin.to_dict()))) == with_margin


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "guess"}, "make no calibration"),
        ({"slopes": [-1.0]}, "make no calibration"),
        ({"slopes": [float("nan")]}, "make no calibration"),
        ({"slopes": []}, "make no calibration"),
        ({"knots": [0.1], "levels": [0.2]}, "make no calibration"),
        ({"method": "isotonic", "slopes": [], "knots": [0.2, 0.1], "levels": [0.1, 0.2]}, "make no calibration"),
        ({"method": "isotonic", "slopes": [], "knots": [0.1, 0.2], "levels": [0.5, 0.4]}, "make no calibration"),
        ({"method": "isotonic", "slopes": [], "knots": [0.1], "levels": [1.5]}, "make no calibration"),
        ({"colour": 1}, "has the fields"),
    ],
)
def test_values_that_make_no_calibration_are_refused(change: dict[str, Any], message: str) -> None:
    values = fit_calibration([0.1, 0.9], [0, 1]).to_dict()
    with pytest.raises(ValueError, match=message):
        Calibration.from_dict(values | change)


def test_cross_fit_never_sees_the_class_that_it_judges() -> None:
    similarity, _, correct, groups = _answers()
    whole = cross_fit(similarity, correct, groups, seed=4)
    changed = correct.copy()
    changed[groups == 7] = 1 - changed[groups == 7]
    again = cross_fit(similarity, changed, groups, seed=4)
    assert (again[groups == 7] == whole[groups == 7]).all()  # its own truth does not reach it
    assert (again[groups != 7] != whole[groups != 7]).mean() > 0.5
    fold_C = np.random.default_rng(4).permutation(25) % 5
    own = fold_C[np.unique(groups.astype(str), return_inverse=True)[1]] == 2  # classes are coded as text
    wanted = fit_calibration(similarity[~own], correct[~own]).probability(similarity[own])
    assert whole[own] == pytest.approx(wanted)


def test_folds_fit_the_kind_of_curve_that_all_answers_have() -> None:
    # about 1,150 right and as many wrong answers: four fifths of them alone would be logistic
    similarity, _, correct, groups = _answers(2400, seed=1)
    assert ENOUGH_FOR_ISOTONIC <= min(correct.sum(), (1 - correct).sum()) < ENOUGH_FOR_ISOTONIC * 5 / 4
    found = cross_fit(similarity, correct, groups)
    assert (found == cross_fit(similarity, correct, groups, method="isotonic")).all()
    assert fit_calibration(similarity, correct).method == "isotonic"


def test_reliability_by_hand() -> None:
    probability = [0.1, 0.1, 0.3, 0.4, 0.8, 0.9]
    table = reliability(probability, [0, 0, 1, 0, 1, 1], list("abcdef"), num_bins=3)
    assert table["n"].tolist() == [2, 2, 2]
    assert table["predicted"].tolist() == pytest.approx([0.1, 0.35, 0.85])
    assert table["observed"].tolist() == [0.0, 0.5, 1.0]
    assert ((table["low"] <= table["observed"]) & (table["observed"] <= table["high"])).all()
    assert table["low"].iloc[2] < 0.5
    metrics = calibration_metrics(probability, [0, 0, 1, 0, 1, 1], list("abcdef"), num_bins=3, protocol="by hand")
    assert metrics["calibration/ECE"].value == pytest.approx((0.1 + 0.15 + 0.15) / 3)
    assert metrics["calibration/Brier"].value == pytest.approx((0.01 + 0.01 + 0.49 + 0.16 + 0.04 + 0.01) / 6)
    assert metrics["calibration/Brier of the base rate"].value == 0.25
    assert metrics["calibration/ECE"].protocol.startswith("by hand; ECE, 3 bins of equal count")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10), st.sampled_from([0.0, 1.0]), st.integers(0, 5)), min_size=2, max_size=40),
    st.integers(1, 8),
)
def test_bins_hold_everything_once_and_part_no_equals(rows: list[tuple[int, float, int]], num_bins: int) -> None:
    p, y, groups = (np.array(column) for column in zip(*rows, strict=True))
    probability = p / 10
    table = reliability(probability, y, groups, num_bins=num_bins)
    assert table["n"].sum() == len(rows)
    assert len(table) <= num_bins
    assert (table["to"].to_numpy()[:-1] < table["from"].to_numpy()[1:]).all()
    ece = 0.0
    for one in table.itertuples(index=False):
        inside = (probability >= one[1]) & (probability <= one[2])
        assert inside.sum() == one[7]
        assert one[4] == pytest.approx(y[inside].mean())
        ece += inside.mean() * abs(probability[inside].mean() - y[inside].mean())
    metrics = calibration_metrics(probability, y, groups, num_bins=num_bins)
    assert metrics["calibration/ECE"].value == pytest.approx(ece)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of a single class
        wanted = brier_score_loss(y.astype(int), probability, pos_label=1)
    assert metrics["calibration/Brier"].value == pytest.approx(wanted)
    for metric in metrics.values():
        assert 0 <= metric.low <= metric.value + 1e-12
        assert metric.value <= metric.high + 1e-12
        assert metric.high <= 1


def test_shares_of_ties_count_as_expected() -> None:
    brier = calibration_metrics([0.8, 0.8], [0.5, 0.5], ["a", "b"])["calibration/Brier"]
    assert brier.value == pytest.approx(0.5 * 0.04 + 0.5 * 0.64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "at least one answer"),
        (([0.1, 0.2], [1]), "lists of one length"),
        (([np.nan], [1]), "leave answers with NaN out"),
        (([0.1], [2]), "truths from 0 to 1"),
        (([0.1, 0.2], [0, 1], ["a"]), "lists of one length"),
    ],
)
def test_bad_answers_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_calibration(*arguments)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="method must be"):
        fit_calibration([0.1, 0.2], [0, 1], margin_N=[0, 1], method="isotonic")
    with pytest.raises(ValueError, match="two classes"):
        cross_fit([0.1, 0.2], [0, 1], ["a", "a"])
    with pytest.raises(ValueError, match="at least one bin"):
        reliability([0.5], [1], ["a"], num_bins=0)
    with pytest.raises(ValueError, match="probabilities from 0 to 1"):
        reliability([1.5], [1], ["a"])
    fitted = fit_calibration([0.1, 0.9], [0, 1])
    with pytest.raises(ValueError, match="uses no margin"):
        fitted.probability(0.5, 0.1)
    with pytest.raises(ValueError, match="leave NaN"):
        fitted.probability([0.5, np.nan])
