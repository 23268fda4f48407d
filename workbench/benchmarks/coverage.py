"""Whether intervals keep their word: trials with a known truth, and the share of them whose 95 % interval holds it.

Axes: T trials, D draws of the references, C classes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from workbench.retrieval.intervals import (
    Average,
    class_weights,
    difference_interval,
    interval_of_class_means,
    moderate_differences,
)

ClassSizes = Literal["equal", "lognormal", "long tail"]
_CELLS = 20_000_000


@dataclass(frozen=True)
class World:
    """What classes and draws are like.

    Attributes:
        num_classes: drawn anew in every trial: each has an accuracy of its own, Beta distributed.
        accuracy: the mean over all classes that there could be: the truth that the interval should hold.
        class_sizes: queries of the classes: 20 each; lognormal around 20; or 400 / rank, at least 2.
        draws: of the references, each shifts the accuracy of each class; the queries stay the same.
        average: the number that the interval is for.
        spread: variance of the classes' accuracies as a share of the largest possible, accuracy * (1 - accuracy).
        draw_spread: the same of a class's accuracy in the draws around its mean.
    """

    num_classes: int = 20
    accuracy: float = 0.9
    class_sizes: ClassSizes = "equal"
    draws: int = 10
    average: Average = "micro"
    spread: float = 0.1
    draw_spread: float = 0.1


@dataclass(frozen=True)
class PairWorld:
    """What two models are like that answer the same queries.

    Attributes:
        num_classes: drawn anew in every trial: the shares of each are Dirichlet distributed.
        queries: of a class; of classes of another size, see `World.class_sizes`.
        gains, losses: the share of queries that only the first, or only the second model has right; the truth is their difference.
        icc: how alike the queries of a class are, 0 for independent ones.
        class_sizes: as in `World`.
        average: the number that the interval is for.
    """

    num_classes: int = 80
    queries: int = 8
    gains: float = 0.01
    losses: float = 0.01
    icc: float = 0.1
    class_sizes: ClassSizes = "equal"
    average: Average = "micro"


def pair_worlds() -> Iterator[PairWorld]:
    """Yields combinations, most of them near no difference: few queries that differ, in both directions, alike within classes."""
    shares = ((0.002, 0.002), (0.0, 0.005), (0.01, 0.01), (0.02, 0.0), (0.01, 0.05), (0.2, 0.1))
    for classes, queries, (gains, losses), icc in product((20, 80, 200), (1, 8, 20), shares, (0.0, 0.1, 0.3)):
        if queries > 1 or icc == 0:
            yield PairWorld(classes, queries, gains, losses, icc)
    for classes, (gains, losses), average in product((20, 81, 315), shares[2:], ("micro", "macro")):
        yield PairWorld(classes, 0, gains, losses, 0.1, "long tail", "micro" if average == "micro" else "macro")


def worlds(
    num_classes: Iterable[int] = (20, 81, 315),
    accuracies: Iterable[float] = (0.6, 0.9, 0.97),
    class_sizes: Iterable[ClassSizes] = ("equal", "lognormal", "long tail"),
    draws: Iterable[int] = (1, 10),
    averages: Iterable[Average] = ("micro", "macro"),
) -> Iterator[World]:
    """Yields every combination; of classes of equal size one average, as both are the same."""
    for classes, accuracy, sizes, num_draws, average in product(num_classes, accuracies, class_sizes, draws, averages):
        if sizes != "equal" or average == "micro":
            yield World(classes, accuracy, sizes, num_draws, average)


def simulate_coverage(
    world: Iterable[World], num_trials: int = 1000, seed: int = 0, num_replicates: int = 1000
) -> pd.DataFrame:
    """Returns how often the interval held the truth, a row a world.

    Args:
        world: those to simulate.
        num_trials: in each.
        seed: of the trials; the same for each world.
        num_replicates: of the intervals' bootstrap.

    Returns:
        The columns of `World`; covered (share of trials, 0 to 1) with its own exact 95 % interval low and high; below and above (share of
        intervals that lie wholly under and over the truth); width (mean, of a share); marked (share of intervals with a
        doubt); n (trials).
    """
    rows = []
    for one in world:
        mean_TDC, count_C = draw_trials(one, num_trials, np.random.default_rng(seed))
        _, low_T, high_T, doubt_T = interval_of_class_means(
            mean_TDC, count_C, one.average, num_replicates=num_replicates
        )
        rows.append(asdict(one) | judge(low_T, high_T, doubt_T, one.accuracy))
    return pd.DataFrame(rows)


def simulate_differences(
    world: Iterable[PairWorld], num_trials: int = 1000, seed: int = 0, num_replicates: int = 1000
) -> pd.DataFrame:
    """Returns how often the interval of a paired difference held the truth; columns of `PairWorld`, then as `simulate_coverage`."""
    rows = []
    for one in world:
        gain_TC, loss_TC, count_C = draw_pairs(one, num_trials, np.random.default_rng(seed))
        weight_C = class_weights(count_C, one.average) / count_C
        square_T = (gain_TC + loss_TC) @ weight_C
        mean_TC = (gain_TC - loss_TC) / count_C
        value_T, unit_T, df_T, doubt_T = moderate_differences(
            mean_TC[:, None], square_T, count_C, one.average, num_replicates
        )
        low_T, high_T = difference_interval(value_T, square_T, square_T, unit_T, df_T)
        rows.append(asdict(one) | judge(low_T, high_T, doubt_T, one.gains - one.losses))
    return pd.DataFrame(rows)


def judge(low_T: np.ndarray, high_T: np.ndarray, doubt_T: np.ndarray, truth: float) -> dict[str, float]:
    """Returns covered, low, high, below, above, width, marked and n, as `simulate_coverage` has them, for trials of one truth."""
    num_trials = len(low_T)
    below, above = int((high_T < truth - 1e-12).sum()), int((low_T > truth + 1e-12).sum())
    held = num_trials - below - above
    exact = binomtest(held, num_trials).proportion_ci(method="exact")
    return {
        "covered": held / num_trials,
        "low": exact.low,
        "high": exact.high,
        "below": below / num_trials,
        "above": above / num_trials,
        "width": float((high_T - low_T).mean()),
        "marked": float((doubt_T != "").mean()),
        "n": num_trials,
    }


def draw_trials(world: World, num_trials: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns (mean_TDC, count_C): the share of right answers of each class in each draw, and its number of queries.

    The queries of a class have a luck of their own that is the same in every draw: what is hard stays hard.
    """
    count_C = _class_sizes(world, rng)
    total = 1 / world.spread - 1
    class_TC = rng.beta(world.accuracy * total, (1 - world.accuracy) * total, size=(num_trials, 1, world.num_classes))
    within = 1 / world.draw_spread - 1
    first_TDC, second_TDC = (
        np.broadcast_to(np.maximum(part * within, 1e-6), (num_trials, world.draws, world.num_classes))
        for part in (class_TC, 1 - class_TC)
    )
    share_TDC = rng.beta(first_TDC, second_TDC).astype(np.float32)
    mean_TDC = np.empty(share_TDC.shape)
    for index, count in enumerate(count_C):
        step = max(1, _CELLS // (world.draws * count))
        for start in range(0, num_trials, step):
            part = share_TDC[start : start + step, :, index, None]
            luck = rng.random((len(part), 1, count), dtype=np.float32)
            mean_TDC[start : start + step, :, index] = (luck < part).mean(axis=-1)
    return mean_TDC, count_C


def draw_pairs(
    world: PairWorld, num_trials: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (gain_TC, loss_TC, count_C): the number of queries of each class that only one of the models has right, and of all."""
    count_C = np.full(world.num_classes, world.queries) if world.class_sizes == "equal" else _class_sizes(world, rng)
    share_3TC = np.array([world.gains, world.losses, 1 - world.gains - world.losses])[:, None, None]
    share_3TC = np.broadcast_to(share_3TC, (3, num_trials, world.num_classes))
    if world.icc > 0:
        part_3TC = rng.standard_gamma(np.maximum(share_3TC * (1 / world.icc - 1), 1e-12))
        share_3TC = part_3TC / np.maximum(part_3TC.sum(axis=0), 1e-300)
    gain_TC = rng.binomial(count_C, share_3TC[0])
    left_TC = np.divide(share_3TC[1], 1 - share_3TC[0], out=np.zeros_like(share_3TC[1]), where=share_3TC[0] < 1)
    return gain_TC, rng.binomial(count_C - gain_TC, np.minimum(left_TC, 1.0)), count_C


def _class_sizes(world: World | PairWorld, rng: np.random.Generator) -> np.ndarray:
    if world.class_sizes == "equal":
        return np.full(world.num_classes, 20)
    if world.class_sizes == "lognormal":
        return np.maximum(2, np.rint(rng.lognormal(np.log(20), 0.5, world.num_classes)).astype(np.int64))
    return np.maximum(2, 400 // np.arange(1, world.num_classes + 1))
