"""How fast runtimes answer: latency and images a second by batch, as ratios to torch eager and to the device's arithmetic limit.

The runtimes and a matrix product take turns in one process, round by round, so that what else the machine does hits all
alike. As in `measure`, a ratio is that of the fastest rounds, its range that of the rounds' own ratios; a row says whether
the answers agree.
Axes: N images, B images of a batch, D the embedding's width; NCHW as usual.
"""

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from workbench.benchmarks.serving_limit import Limit
from workbench.export.checks import FP16, FP32

BATCHES = (1, 2, 4, 8, 16, 32, 64)
COLUMNS = (
    *("runtime", "precision", "transfers", "device", "batch", "num_calls", "num_rounds"),
    *("mean_ms", "p50_ms", "p90_ms", "p99_ms", "images_per_s", "speedup", "speedup_low", "speedup_high"),
    *("gflops", "limit_gflops", "limit_images_per_s", "share_of_limit", "min_cosine", "agrees", "note"),
)
PERCENTILES = (50, 90, 99)
_COSINE = {"fp32": FP32.cosine, "fp16": FP16.cosine}  # int8 is judged by retrieval, see export.acceptance


@dataclass(frozen=True)
class Ready:
    """A runtime with the images of one batch in place.

    Attributes:
        answer: embeddings, float32 [B, D], of the batch.
        latency_s: makes one call and returns its seconds.
        stream_s: makes so many calls, the next begun before the last has ended, and returns the seconds of all;
            None where calls can only follow one another, so that images/s come from the latencies.
    """

    answer: Callable[[], np.ndarray]
    latency_s: Callable[[], float]
    stream_s: Callable[[int], float] | None = None


@dataclass(frozen=True)
class Candidate:
    """One runtime in one precision.

    Attributes:
        name: as tables and figures show it.
        precision: fp32, fp16 or int8.
        prepare: from images, float32 [B, 3, H, W], to a `Ready`; an error means that it is not available.
        transfers: on a GPU, whether calls include the copies from and to the host: "without" or "with"; "" on a CPU.
    """

    name: str
    precision: str
    prepare: Callable[[np.ndarray], Ready]
    transfers: str = ""


@dataclass
class _Taken:
    """What one runtime did at one batch: seconds of each call and images/s of each round."""

    ready: Ready
    latency_s: list[float] = field(default_factory=list)
    images_per_s: list[float] = field(default_factory=list)


def measure_serving(
    candidates: Sequence[Candidate],
    images_NCHW: np.ndarray,
    flops_per_image: float,
    limit: Limit,
    *,
    device: str,
    batches: Sequence[int] = BATCHES,
    num_rounds: int = 5,
    calls_a_round: int = 20,
    budget_s: float = 10.0,
) -> pd.DataFrame:
    """The table of all runtimes at all batches, a row each, with what could not be measured and why.

    Before its timed calls a runtime makes an untimed one in every round, so that another's caches and waiting threads do not
    count; two calls before the first round compile and warm up. Every second round goes backwards.

    Args:
        candidates: the base first, which must work: speed-ups and cosines are held against it.
        images_NCHW: float32, normalised; repeated in order to fill a batch.
        flops_per_image: of the model, see `serving_limit.count_flops`.
        limit: what the arithmetic is held against, measured in every round too.
        device: what computes, in words, threads included.
        batches: images a call.
        num_rounds: turns that every runtime gets.
        calls_a_round: timed calls of a turn, fewer (at least 1) where they would take longer than the budget.
        budget_s: seconds for the timed calls of a runtime at a batch.

    Returns:
        One row a batch and runtime with the columns
        runtime, precision, transfers, device, batch;
        num_calls (timed, behind the latencies), num_rounds;
        mean_ms, p50_ms, p90_ms, p99_ms (of one call; percentiles by nearest rank, so that p99 of fewer than 100 calls is the slowest);
        images_per_s (of all rounds: the calls' images over their seconds);
        speedup (images/s over the base's, the fastest round of each), speedup_low, speedup_high (range of the rounds' own, and it);
        gflops (the model's arithmetic done in a second, all rounds), limit_gflops (of the fastest product), limit_images_per_s (which
        that would allow), share_of_limit (of the fastest round, 0 to 1; above 1 is possible in a precision below the product's);
        min_cosine (to the base's embeddings, the least of the batch), agrees (by the limits of `export.checks`; None for int8, which is
        judged by retrieval), note ("not available: reason" with numbers missing, or "").

    Raises:
        ValueError: no candidate, two of one name, no or unfit batches or images, a number below 1; or the base is not available.
    """
    _check_arguments(candidates, images_NCHW, batches, num_rounds, calls_a_round, budget_s, flops_per_image)
    rows = []
    for batch in batches:
        images_BCHW = np.ascontiguousarray(images_NCHW[np.arange(batch) % len(images_NCHW)])
        taken, reasons, product_s = {}, {}, []
        for index, candidate in enumerate(candidates):
            try:
                taken[index] = _warm(candidate, images_BCHW)
            except Exception as error:  # each runtime has kinds of its own; the row says which
                reasons[index] = f"not available: {_reason(error)}"
        if 0 not in taken:
            raise ValueError(f"The base {candidates[0].name}, batch {batch}, is {reasons[0]}")
        answers = {index: one.ready.answer() for index, one in taken.items()}
        calls = {index: _num_calls(one, calls_a_round, budget_s / num_rounds) for index, one in taken.items()}
        for turn in range(num_rounds):
            gc.collect()
            limit.product_s()
            product_s.append(limit.product_s())
            for index in list(taken)[:: -1 if turn % 2 else 1]:
                _take_turn(taken[index], batch, calls[index])
        for index, candidate in enumerate(candidates):
            row: dict[str, object] = {"runtime": candidate.name, "precision": candidate.precision}
            row |= {"transfers": candidate.transfers}
            row |= {"device": device, "batch": batch, "note": reasons.get(index, "")}
            if index in taken:
                row |= _times(taken[index].latency_s, taken[index].images_per_s)
                row |= _ratios(taken[index].images_per_s, taken[0].images_per_s)
                row |= _shares(taken[index].images_per_s, product_s, limit.flops, flops_per_image)
                row |= _agreement(answers[index], answers[0], candidate.precision)
            rows.append(row)
        taken.clear()
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    agrees = pd.Series([None if pd.isna(one) else bool(one) for one in table["agrees"]], dtype="object")
    return table.astype({"num_calls": "Int64", "num_rounds": "Int64"}).assign(agrees=agrees)


def by_wall_clock(answer: Callable[[], np.ndarray]) -> Ready:
    """A runtime that answers before it returns, timed by the wall clock."""

    def latency_s() -> float:
        started = time.perf_counter()
        answer()
        return time.perf_counter() - started

    return Ready(answer, latency_s)


def _warm(candidate: Candidate, images_BCHW: np.ndarray) -> _Taken:
    ready = candidate.prepare(images_BCHW)
    ready.latency_s()
    ready.latency_s()
    return _Taken(ready)


def _num_calls(taken: _Taken, most: int, budget_s: float) -> int:
    return max(1, min(most, int(budget_s / max(taken.ready.latency_s(), 1e-9))))


def _take_turn(taken: _Taken, batch: int, num_calls: int) -> None:
    taken.ready.latency_s()
    seconds = [taken.ready.latency_s() for _ in range(num_calls)]
    taken.latency_s += seconds
    whole_s = sum(seconds) if taken.ready.stream_s is None else taken.ready.stream_s(num_calls)
    taken.images_per_s.append(batch * num_calls / whole_s)


def _times(latency_s: Sequence[float], images_per_s: Sequence[float]) -> dict[str, object]:
    milliseconds = 1000 * np.array(latency_s)
    ranked = np.percentile(milliseconds, PERCENTILES, method="inverted_cdf")
    return {
        "num_calls": len(latency_s),
        "num_rounds": len(images_per_s),
        "mean_ms": float(milliseconds.mean()),
        **{f"p{percent}_ms": float(value) for percent, value in zip(PERCENTILES, ranked, strict=True)},
        # every round has as many calls, so the harmonic mean is all images over all seconds
        "images_per_s": len(images_per_s) / sum(1 / rate for rate in images_per_s),
    }


def _ratios(images_per_s: Sequence[float], base_per_s: Sequence[float]) -> dict[str, float]:
    ratio = max(images_per_s) / max(base_per_s)
    each = [ratio, *(np.array(images_per_s) / np.array(base_per_s)).tolist()]
    return {"speedup": ratio, "speedup_low": min(each), "speedup_high": max(each)}


def _shares(
    images_per_s: Sequence[float], product_s: Sequence[float], product_flops: float, flops_per_image: float
) -> dict[str, float]:
    limit_flops = product_flops / min(product_s)
    return {
        "gflops": flops_per_image * len(images_per_s) / sum(1 / rate for rate in images_per_s) / 1e9,
        "limit_gflops": limit_flops / 1e9,
        "limit_images_per_s": limit_flops / flops_per_image,
        "share_of_limit": flops_per_image * max(images_per_s) / limit_flops,
    }


def _agreement(found_BD: np.ndarray, base_BD: np.ndarray, precision: str) -> dict[str, object]:
    if found_BD.shape != base_BD.shape:
        raise ValueError(f"The base answers {base_BD.shape}, another runtime {found_BD.shape}: not one model.")
    found, base = found_BD.astype(np.float64), base_BD.astype(np.float64)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(base, axis=1)
    with np.errstate(invalid="ignore"):
        least = float(((found * base).sum(axis=1) / lengths).min())
    wanted = _COSINE.get(precision)
    return {"min_cosine": least, "agrees": None if wanted is None else bool(least >= wanted)}


def _reason(error: Exception) -> str:
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["it gave no reason"]
    return f"{type(error).__name__}: {lines[0][:300]}"


def _check_arguments(
    candidates: Sequence[Candidate],
    images_NCHW: np.ndarray,
    batches: Sequence[int],
    num_rounds: int,
    calls_a_round: int,
    budget_s: float,
    flops_per_image: float,
) -> None:
    names = [(one.name, one.precision, one.transfers) for one in candidates]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"Wanted at least one runtime, each once; found {[' '.join(name).strip() for name in names]}.")
    if not batches or min(batches) < 1 or len(set(batches)) < len(batches):
        raise ValueError(f"batches are different numbers of images, at least 1, such as {BATCHES}; found {batches}.")
    if images_NCHW.ndim != 4 or images_NCHW.dtype != np.float32 or not len(images_NCHW):
        raise ValueError(
            f"Images were wanted as float32 [N, 3, H, W], N at least 1, as preprocessing.normalise gives them; found "
            f"{images_NCHW.dtype} {list(images_NCHW.shape)}."
        )
    if num_rounds < 1 or calls_a_round < 1 or not (budget_s > 0 and flops_per_image > 0 and math.isfinite(budget_s)):
        raise ValueError(
            f"num_rounds and calls_a_round are at least 1, budget_s and flops_per_image above 0; found {num_rounds}, "
            f"{calls_a_round}, {budget_s}, {flops_per_image}."
        )
