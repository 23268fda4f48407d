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

from workbench.retrieval.intervals import Average, interval_of_class_means

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
        intervals that lie wholly under and over the truth); width (mean, of a share); n (trials).
    """
    rows = []
    for one in world:
        mean_TDC, count_C = draw_trials(one, num_trials, np.random.default_rng(seed))
        _, low_T, high_T = interval_of_class_means(mean_TDC, count_C, one.average, num_replicates=num_replicates)
        below, above = int((high_T < one.accuracy).sum()), int((low_T > one.accuracy).sum())
        held = num_trials - below - above
        exact = binomtest(held, num_trials).proportion_ci(method="exact")
        measured = {
            "covered": held / num_trials,
            "low": exact.low,
            "high": exact.high,
            "below": below / num_trials,
            "above": above / num_trials,
            "width": float((high_T - low_T).mean()),
            "n": num_trials,
        }
        rows.append(asdict(one) | measured)
    return pd.DataFrame(rows)


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


def _class_sizes(world: World, rng: np.random.Generator) -> np.ndarray:
    if world.class_sizes == "equal":
        return np.full(world.num_classes, 20)
    if world.class_sizes == "lognormal":
        return np.maximum(2, np.rint(rng.lognormal(np.log(20), 0.5, world.num_classes)).astype(np.int64))
    return np.maximum(2, 400 // np.arange(1, world.num_classes + 1))
