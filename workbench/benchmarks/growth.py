"""How times grow with the size, each contender as far as the limit lets it."""

import math
from collections.abc import Callable, Mapping

import pandas as pd

from workbench.benchmarks.measure import Contender, Size, race


def grow(
    build: Callable[[Size], list[Contender]],
    tiny: Size,
    sizes: Mapping[int, Size],
    repetitions: int = 3,
    limit_s: float = 30.0,
) -> pd.DataFrame:
    """Returns `race` at each size. A contender is left out from where a run of it would, by its last two times, take too long.

    Args:
        build: makes the contenders of a size, the base first; the base always runs.
        tiny: as in `race`.
        sizes: by their number of rows, ascending.
        repetitions: rounds at each size.
        limit_s: seconds that one run may take.

    Returns:
        The columns of `time_contenders` and num_rows.
    """
    names = [contender.name for contender in build(tiny)]
    tables: list[pd.DataFrame] = []
    seconds: dict[str, list[tuple[int, float]]] = {name: [] for name in names}
    for num_rows, size in sizes.items():
        taking_part = [name for name in names[1:] if _predict(seconds[name], num_rows) <= limit_s]
        names = names[:1] + taking_part
        table = race(build, tiny, size, repetitions, names=names)
        for name, least in zip(table["contender"], table["seconds"], strict=True):
            seconds[name].append((num_rows, least))
        tables.append(table.assign(num_rows=num_rows))
    return pd.concat(tables, ignore_index=True)


def _predict(measured: list[tuple[int, float]], num_rows: int) -> float:
    """Returns the seconds of a run: the power law through the last two sizes, at least linear."""
    if not measured:
        return 0.0
    last_rows, last = measured[-1]
    growth = num_rows / last_rows
    if len(measured) == 1:
        return last * growth
    rows, before = measured[-2]
    power = math.log(last / before) / math.log(last_rows / rows)
    return last * growth ** max(power, 1.0)
