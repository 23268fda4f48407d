"""Contenders on one task: their time as a ratio to a base, their memory in a process of their own, and whether they agree.

A wall time says little on a machine that others use; the ratio of two that take turns in one process says more. A contender
whose answer differs from ours shows it beside its time: a fast wrong one does not count.
"""

import ctypes
import gc
import math
import multiprocessing
import re
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import psutil

from workbench.retrieval.arrays import normalise

Answer = dict[str, float]
Size = TypeVar("Size")


@dataclass(frozen=True)
class Contender:
    """One way to do the task.

    Attributes:
        name: as tables and figures show it.
        run: does the task once on inputs that exist already, and returns the numbers found by name.
        ours: it is the workbench's.
        tolerance: by which its numbers may differ from ours where they have one name.
        does: what it does that the others do not, or leaves out; "" where the task says all.
    """

    name: str
    run: Callable[[], Answer]
    ours: bool = False
    tolerance: float = 1e-6
    does: str = ""


def race(
    build: Callable[[Size], list[Contender]],
    tiny: Size,
    size: Size,
    repetitions: int = 5,
    budget_s: float = math.inf,
    names: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Returns `time_contenders` of the contenders that `build` makes of `size`, after all have run once on `tiny`.

    Args:
        build: makes the contenders of a size, the base first.
        tiny: a size that takes no time to speak of; imports and first calls are paid on it.
        size: the size to measure.
        repetitions: as in `time_contenders`.
        budget_s: as there.
        names: the contenders that take part, besides the base; None: all.

    Raises:
        ValueError: as there, or a name that no contender has.
    """
    for contender in _chosen(build(tiny), names):
        contender.run()
    return time_contenders(_chosen(build(size), names), repetitions, budget_s)


def _chosen(contenders: list[Contender], names: Sequence[str] | None) -> list[Contender]:
    if names is None:
        return contenders
    known = [contender.name for contender in contenders]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"There is no contender {', '.join(unknown)}; there are {', '.join(known)}.")
    return [contenders[0], *(one for one in contenders[1:] if one.name in names)]


def time_contenders(contenders: Sequence[Contender], repetitions: int = 5, budget_s: float = math.inf) -> pd.DataFrame:
    """Returns the ratios of the contenders' times to the first one's, the base.

    Rounds go through all contenders in turn, every second one backwards, after one unmeasured run of the base. The ratio is that of the
    least times; its range is that of the rounds' own ratios (and holds the ratio of the least times).

    Args:
        contenders: the base first; it gives no answer or one as the others.
        repetitions: rounds, at least 1.
        budget_s: a contender that has taken so long in all sits out the further rounds; the base never does.

    Returns:
        Columns contender, ours, seconds (the least), ratio, low, high, repetitions, compared (names of the numbers that it shares with
        ours), difference (the largest, NaN if nothing is shared), agrees (None if nothing is shared), does.

    Raises:
        ValueError: no contender, two of one name, fewer than 1 repetition, or an answer that is not finite.
    """
    names = [contender.name for contender in contenders]
    if not names or len(set(names)) < len(names) or repetitions < 1:
        raise ValueError(
            f"Wanted contenders of different names and at least 1 repetition, found {names} and {repetitions}."
        )
    answers: dict[str, Answer] = {}
    seconds: dict[str, dict[int, float]] = {name: {} for name in names}
    contenders[0].run()
    for turn in range(repetitions):
        gc.collect()
        for contender in contenders[:: -1 if turn % 2 else 1]:
            spent = seconds[contender.name]
            if spent and sum(spent.values()) > budget_s and contender.name != names[0]:
                continue
            started = time.perf_counter()
            answer = contender.run()
            spent[turn] = time.perf_counter() - started
            answers.setdefault(contender.name, answer)
    return compare_answers(contenders, answers).merge(_ratios(seconds, names[0]), on="contender")[
        ["contender", "ours", "seconds", "ratio", "low", "high", "repetitions", "compared", "difference", "agrees", "does"]
    ]  # fmt: skip


def _ratios(seconds: Mapping[str, Mapping[int, float]], base: str) -> pd.DataFrame:
    rows = []
    for name, spent in seconds.items():
        ratio = min(spent.values()) / min(seconds[base].values())
        each = [ratio, *(value / seconds[base][turn] for turn, value in spent.items())]
        rows.append((name, min(spent.values()), ratio, min(each), max(each), len(spent)))
    return pd.DataFrame(rows, columns=["contender", "seconds", "ratio", "low", "high", "repetitions"])


def compare_answers(contenders: Sequence[Contender], answers: Mapping[str, Answer]) -> pd.DataFrame:
    """Returns what each contender found beside ours: columns contender, ours, does, compared, difference, agrees.

    Raises:
        ValueError: an answer that is not finite.
    """
    truth: Answer = {}
    for contender in contenders:
        if contender.ours:
            truth = answers[contender.name] | truth
    rows = []
    for contender in contenders:
        found = answers[contender.name]
        if not all(math.isfinite(value) for value in found.values()):
            raise ValueError(f"{contender.name} gave numbers that are not finite: {found}")
        shared = [name for name in found if name in truth]
        differences = [abs(found[name] - truth[name]) for name in shared]
        worst = max(differences, default=math.nan)
        agrees = bool(worst <= contender.tolerance) if shared else None
        compared = ", ".join(shared) if len(shared) <= 4 else f"{len(shared)} numbers"
        rows.append((contender.name, contender.ours, contender.does, compared, worst, agrees))
    table = pd.DataFrame(rows, columns=["contender", "ours", "does", "compared", "difference", "agrees"])
    return table.astype({"agrees": "object"})


def measure_memory(
    build: Callable[[Size], list[Contender]], tiny: Size, size: Size, names: Sequence[str] | None = None
) -> pd.DataFrame:
    """Returns the most memory that each contender takes above its inputs, each in a fresh process.

    The process imports and warms up on `tiny`, makes the inputs of `size`, and then runs the contender once. What counts is the peak of
    its resident memory less what was resident before. On Linux the peak is reset in between and exact; elsewhere it is
    that of the process's life, so that the number is an upper bound.

    Args:
        build: a function of a module that makes the contenders of a size, the base first.
        tiny: a size that takes no memory to speak of.
        size: the size to measure.
        names: the contenders to measure besides the base; None: all.

    Returns:
        Columns contender, ours, before_mib (resident before: inputs, interpreter, libraries), above_mib (NaN where the
        process was killed: it did not fit).
    """
    rows = []
    for contender in _chosen(build(tiny), names):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            try:
                before, above = pool.submit(_peak_mib, build, tiny, size, contender.name).result()
            except BrokenProcessPool:
                before = above = math.nan
        rows.append((contender.name, contender.ours, before, above))
    return pd.DataFrame(rows, columns=["contender", "ours", "before_mib", "above_mib"])


def _peak_mib(build: Callable[[Size], list[Contender]], tiny: Size, size: Size, name: str) -> tuple[float, float]:
    next(contender for contender in build(tiny) if contender.name == name).run()
    run = next(contender for contender in build(size) if contender.name == name).run
    gc.collect()
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)  # or memory that was freed before would be taken again and not be seen
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")  # the peak is what is resident now, see proc(5)
    before = psutil.Process().memory_info().rss
    run()
    return before / 2**20, max(_peak_bytes() - before, 0) / 2**20


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
    # getrusage knows no reset, and on Linux a child inherits its parent's peak
    return int(found[1]) * 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def unit_rows(rng: np.random.Generator, centre_CD: np.ndarray, label_N: np.ndarray, noise: float) -> np.ndarray:
    """Returns embeddings around the centres of their labels, float32, length 1.

    Rows of one label have a cosine of about 1 / (1 + noise^2), others of about 0.

    Args:
        rng: draws the noise, in blocks, so that no more than the result is held.
        centre_CD: standard normal.
        label_N: int64, rows of centre_CD.
        noise: standard deviation of each coordinate around its centre.
    """
    row_ND = np.empty((len(label_N), centre_CD.shape[1]), np.float32)
    for start in range(0, len(label_N), 4096):
        label = label_N[start : start + 4096]
        block = centre_CD[label] + noise * rng.standard_normal((len(label), centre_CD.shape[1]), dtype=np.float32)
        row_ND[start : start + 4096] = normalise(block, "the rows drawn", dtype=np.float32)
    return row_ND
