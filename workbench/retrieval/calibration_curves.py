"""Curves that never fall, fitted to truths from 0 to 1: logistic regression and isotonic regression.

Axes: N answers, F features, K distinct similarities.
"""

import math

import numpy as np
from scipy.special import expit

_RIDGE = 1.0
_STEPS = 100


def fit_logistic(features_NF: np.ndarray, correct_N: np.ndarray) -> tuple[tuple[float, ...], float]:
    """Returns (slopes, intercept) of the features as they are; a slope that would be below 0 is 0.

    Minimises the cross entropy of smoothed targets plus half the squared slopes of the standardised features.
    """
    low, high = _soft_ends(correct_N)
    target_N = low + (high - low) * correct_N
    mean_F, sd_F = features_NF.mean(axis=0), features_NF.std(axis=0)
    scaled_NF = np.divide(features_NF - mean_F, sd_F, out=np.zeros_like(features_NF), where=sd_F > 1e-9)
    free = [True] * scaled_NF.shape[1]
    while True:
        kept = [place for place, is_free in enumerate(free) if is_free]
        found = _newton(scaled_NF[:, kept], target_N)
        slopes = np.zeros(len(free))
        slopes[kept] = found[1:]
        if (slopes >= 0).all():
            break
        free[int(np.argmin(slopes))] = False
    slopes_F = np.divide(slopes, sd_F, out=np.zeros_like(slopes), where=sd_F > 1e-9)
    return tuple(slopes_F.tolist()), float(found[0] - slopes_F @ mean_F)


def _newton(scaled_NF: np.ndarray, target_N: np.ndarray) -> np.ndarray:
    design_NF = np.column_stack([np.ones(len(scaled_NF)), scaled_NF])
    penalty_F = np.append(0.0, np.full(scaled_NF.shape[1], _RIDGE))
    beta_F = np.append(math.log(target_N.mean() / (1 - target_N.mean())), np.zeros(scaled_NF.shape[1]))

    def loss(beta_F: np.ndarray) -> float:
        logit_N = design_NF @ beta_F
        return float(np.logaddexp(0, logit_N).sum() - target_N @ logit_N + (penalty_F * beta_F**2).sum() / 2)

    for _ in range(_STEPS):
        p_N = expit(design_NF @ beta_F)
        gradient_F = design_NF.T @ (p_N - target_N) + penalty_F * beta_F
        hessian_FF = (design_NF.T * (p_N * (1 - p_N))) @ design_NF + np.diag(penalty_F + 1e-12)
        step_F, size = np.linalg.solve(hessian_FF, gradient_F), 1.0
        while size > 1e-6 and loss(beta_F - size * step_F) > loss(beta_F):
            size /= 2
        beta_F = beta_F - size * step_F
        if np.abs(step_F).max() < 1e-10:
            break
    return beta_F


def _soft_ends(correct_N: np.ndarray) -> tuple[float, float]:
    """Returns the probabilities that stand for wrong and right: never 0 and 1, however many answers agree."""
    num_right = float(correct_N.sum())
    return 1 / (len(correct_N) - num_right + 2), (num_right + 1) / (num_right + 2)


def fit_isotonic(similarity_N: np.ndarray, correct_N: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns (knots, levels): the ends of pools of neighbours, which take their mean until none falls (pool adjacent violators).

    Equal similarities are one place.
    """
    value_K, of = np.unique(similarity_N, return_inverse=True)
    pools: list[list[float]] = []  # mean, weight, first place, last place
    for place, (total, count) in enumerate(zip(np.bincount(of, correct_N), np.bincount(of), strict=True)):
        pools.append([float(total / count), float(count), place, place])
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            mean, weight, _, last = pools.pop()
            before = pools[-1]
            before[0] = (before[0] * before[1] + mean * weight) / (before[1] + weight)
            before[1], before[3] = before[1] + weight, last
    low, high = _soft_ends(correct_N)
    knots, levels = [], []
    for mean, _, first, last in pools:
        for at in dict.fromkeys((int(first), int(last))):
            knots.append(float(value_K[at]))
            levels.append(float(np.clip(mean, low, high)))
    return tuple(knots), tuple(levels)
