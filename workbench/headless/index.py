"""outputs/index.html: every run on one page that needs no network, to be sorted and filtered, with trends over time."""

import fcntl
import functools
import secrets
from collections import Counter
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import jinja2

from workbench.headless import drawings
from workbench.headless.listing import ListedRun, list_rows, read_headline, short_number
from workbench.runs.files import write_text

_FILTERS = {"notebook": "Notebook", "data": "Data set", "trunk": "Trunk", "recipe": "Recipe", "status": "Status"}


def write_index(outputs: Path) -> Path:
    """The path of `outputs/index.html`, written anew from the run folders: newest first, each with its true status.

    Atomic; of several writers at once the last one has seen every run, because they take turns.

    Raises:
        OSError: the disk is full; the old page stays.
    """
    outputs.mkdir(parents=True, exist_ok=True)
    with (outputs / ".index.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_text(outputs / "index.html", _page(list_rows(outputs)))
    return outputs / "index.html"


def headline(folder: Path) -> str:
    """The run's first metric as text with its interval and sample size; empty when it logged none."""
    try:
        found = read_headline(folder)
    except ValueError as error:
        return str(error)
    return "" if found is None else str(found)


def duration(seconds: float | None) -> str:
    """A duration for people: `8.2 s`, `3 min 05 s`, `2 h 07 min`; empty for None."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    return f"{minutes} min {rest_s:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _page(rows: list[ListedRun]) -> str:
    statuses = Counter(row.status for row in rows)
    counts = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    options = {name: Counter(str(getattr(row, name)) for row in rows) for name in _FILTERS}
    return _template().render(
        nonce=secrets.token_urlsafe(16),
        css=_package_text("index.css"),
        script=_package_text("index.js"),
        summary=f"{counts or 'No run yet'}. As of {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC.",
        rows=list(zip(rows, drawings.draw_bars(rows), strict=True)),
        trends=drawings.find_trends(rows),
        filters=[
            (name, label, sorted((value, count) for value, count in options[name].items() if value))
            for name, label in _FILTERS.items()
        ],
        drawings=drawings,
        duration=duration,
        short_number=short_number,
    )


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.from_string(_package_text("index.html.j2"))


def _package_text(name: str) -> str:
    return files("workbench.headless").joinpath(name).read_text(encoding="utf-8")
