"""The list's small drawings as coordinates: a bar for each headline with its interval, and headlines over time.

A trend joins runs of one notebook on the same images of a data set whose headline is the same metric under the same protocol
line; numbers of two protocols never share one. Trials (smoke runs) have trends of their own, and a run that did not end well
is in none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from workbench.headless.listing import Headline, ListedRun, short_number

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 320, 132, 48, 310, 10, 108
"""A trend's size, and the edges of the plotted area in it."""
BAR_WIDTH = 96
_LARGEST = 1e100  # beyond it differences overflow, and nobody reads a drawing


@dataclass(frozen=True)
class Bar:
    """A headline on its scale: x of the value and of the interval's ends, 0 to `BAR_WIDTH` (None where there is none)."""

    x: float
    x_low: float | None
    x_high: float | None


@dataclass(frozen=True)
class Point:
    """A run's number at its place: x and y, and y of the interval's ends (None without one)."""

    run: ListedRun
    index: int
    x: float
    y: float
    y_low: float | None
    y_high: float | None
    words: str


@dataclass(frozen=True)
class Trend:
    """The drawing of one metric over time.

    Attributes:
        notebook, data, images, metric, protocol: what all its runs share.
        n: the newest run's.
        is_trial: its runs are smoke runs.
        latest: the newest run's number in words.
        points: oldest first, at least two.
        ticks: height and text of the lines across.
        first, last: when the first and the last run began, in words.
    """

    notebook: str
    data: str
    images: str
    metric: str
    protocol: str
    is_trial: bool
    n: str
    latest: str
    points: tuple[Point, ...]
    ticks: tuple[tuple[float, str], ...]
    first: str
    last: str

    @property
    def path(self) -> str:
        """The line through the points, as SVG writes it."""
        return "M" + "L".join(f"{point.x} {point.y}" for point in self.points)


def draw_bars(rows: Sequence[ListedRun]) -> list[Bar | None]:
    """A bar for each row, None without a number.

    Runs of a notebook with the same metric share a scale: 0 to 1 where all their numbers lie there, else from the least to
    the greatest of them; where these are one there is no bar.
    """
    scales: dict[tuple[str, str], tuple[float, float]] = {}
    for run in rows:
        if run.headline is not None and (numbers := _numbers(run.headline)):
            key = run.notebook, run.headline.name
            low, high = scales.get(key, (numbers[0], numbers[0]))
            scales[key] = min(low, *numbers), max(high, *numbers)
    bars: list[Bar | None] = []
    for run in rows:
        headline = run.headline
        low, high = scales.get((run.notebook, headline.name), (0.0, 0.0)) if headline else (0.0, 0.0)
        low, high = (0.0, 1.0) if 0 <= low <= high <= 1 else (low, high)
        if headline is None or headline.value is None or not _numbers(headline) or low == high:
            bars.append(None)
            continue
        places = [
            None if part is None else round((part - low) / (high - low) * BAR_WIDTH, 1)
            for part in (headline.value, headline.low, headline.high)
        ]
        bars.append(Bar(places[0] or 0.0, places[1], places[2]))
    return bars


def find_trends(rows: Sequence[ListedRun]) -> list[Trend]:
    """All trends of two runs or more, the one with the newest run first.

    Args:
        rows: newest first; a point's `index` is the place in them.
    """
    series: dict[tuple[object, ...], list[tuple[datetime, int, ListedRun]]] = {}
    for index, run in enumerate(rows):
        began = _moment(run.started)
        headline = run.headline
        if run.status == "ok" and headline and headline.value is not None and _numbers(headline) and began:
            key = run.notebook, run.data, run.images, run.is_trial, headline.name, headline.protocol
            series.setdefault(key, []).append((began, index, run))
    return [_draw(found) for found in series.values() if len(found) > 1]


def _draw(found: Sequence[tuple[datetime, int, ListedRun]]) -> Trend:
    """The trend of runs of one kind."""
    found = sorted(found, key=lambda one: (one[0], -one[1]))
    times_s = [began.timestamp() for began, _, _ in found]
    headlines = [run.headline for _, _, run in found if run.headline is not None]
    numbers = [number for one in headlines for number in _numbers(one)]
    ticks = _ticks(min(numbers), max(numbers))
    bottom, top = min(ticks[0], *numbers), max(ticks[-1], *numbers)

    def height(value: float | None) -> float | None:
        return None if value is None else round(BOTTOM - (value - bottom) / (top - bottom) * (BOTTOM - TOP), 1)

    span_s = times_s[-1] - times_s[0]
    points = []
    for time_s, headline, (began, index, run) in zip(times_s, headlines, found, strict=True):
        share = (time_s - times_s[0]) / span_s if span_s else 0.5
        y = height(headline.value)
        assert y is not None
        about = ", ".join(filter(None, (run.trunk, run.recipe, run.settings)))
        words = f"{began:%Y-%m-%d %H:%M} UTC: {short_number(headline.value)} {headline.interval}, n = {headline.n}"
        x = round(LEFT + share * (RIGHT - LEFT), 1)
        points.append(
            Point(run, index, x, y, height(headline.low), height(headline.high), f"{words}. {about}".strip(" ."))
        )
    first, last = found[0][0], found[-1][0]
    form = "%Y-%m-%d" if first.date() != last.date() else "%Y-%m-%d %H:%M"
    run, headline = found[-1][2], headlines[-1]
    return Trend(
        notebook=run.notebook,
        data=run.data,
        images=run.images,
        metric=headline.name,
        protocol=headline.protocol,
        is_trial=run.is_trial,
        n=headline.n,
        latest=f"{short_number(headline.value)} {headline.interval}",
        points=tuple(points),
        ticks=tuple((height(tick) or 0.0, short_number(tick)) for tick in ticks),
        first=first.strftime(form),
        last=last.strftime(form),
    )


def _numbers(headline: Headline) -> list[float]:
    """Value and ends of the interval as far as there are any; empty where one is too large to be drawn."""
    numbers = [part for part in (headline.value, headline.low, headline.high) if part is not None]
    return numbers if all(abs(number) < _LARGEST for number in numbers) else []


def _ticks(low: float, high: float) -> list[float]:
    """Two to five round numbers, the first at most `low` and the last at least `high`; around the number where both are one."""
    largest = max(abs(low), abs(high), 1e-12)
    if high - low < 1e-6 * largest:
        low, high = low - largest / 2, high + largest / 2
    rough = (high - low) / 3
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10, 20) if size * factor >= rough)
    return [float(f"{number * step:.10g}") for number in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _moment(started: str) -> datetime | None:
    """When a run began, in UTC (which a time without a zone is taken for); None where the text is no time."""
    try:
        moment = datetime.fromisoformat(started)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
