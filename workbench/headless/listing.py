"""What the list of runs tells of each run: one row from its record and its first metric, whatever is in the files."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from workbench.runs.folder import FOLDER_NAME
from workbench.runs.metrics import read_metrics
from workbench.runs.record import list_runs

_FILES = {"report": "report.html", "log": "stdout.log", "metrics": "metrics.json", "record": "run.json"}
_OWN_COLUMNS = {"data", "embedder", "recipe", "smoke"}
_MAX_CHARACTERS = 400


@dataclass(frozen=True)
class Headline:
    """A run's first metric; None stands for a number that is not defined."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: str
    protocol: str
    doubt: str = ""

    @property
    def interval(self) -> str:
        """The interval as text: `[0.6, undefined]`, and why it is not to be relied on."""
        doubt = f" (not to be relied on: {self.doubt})" if self.doubt else ""
        return f"[{short_number(self.low)}, {short_number(self.high)}]{doubt}"

    def __str__(self) -> str:
        return f"{self.name} = {short_number(self.value)} {self.interval}, n = {self.n}"


@dataclass(frozen=True)
class ListedRun:
    """A row of the list; text that is not known is empty.

    Attributes:
        name: of its folder.
        status: as it is true now.
        trunk: of its embedder; of an embedder that another run made, that run's.
        recipe: that it trains with, or that the run of its embedder trained with.
        source: short name of the run that made its embedder.
        images: fingerprint of the catalog.
        started: ISO 8601.
        is_trial: a smoke run.
        settings: parameters in which runs of its notebook differ, those that are empty or None left out.
        parameters: all, one a line.
        error: what went wrong, among that metrics that cannot be read.
        files: word and link, relative to `outputs`, of those that are there.
    """

    name: str
    status: str
    notebook: str
    data: str
    trunk: str
    recipe: str
    source: str
    images: str
    started: str
    seconds: float | None
    is_trial: bool
    settings: str
    parameters: str
    error: str
    headline: Headline | None
    files: tuple[tuple[str, str], ...]

    @property
    def link(self) -> str:
        """To its report or the next best file that is there, else to its folder."""
        return self.files[0][1] if self.files else quote(self.name)


def list_rows(outputs: Path) -> list[ListedRun]:
    """A row for every run folder in `outputs`, newest first; a file that cannot be read leaves its part empty and says so."""
    runs = list_runs(outputs)
    texts = [{name: str(value) for name, value in record["parameters"].items()} for _, record in runs]
    varied = _varied_parameters([str(record["notebook"]) for _, record in runs], texts)
    origins: dict[str, tuple[str, str]] = {}
    rows = [
        _read_row(folder, record, parameters, varied, origins)
        for (folder, record), parameters in zip(reversed(runs), reversed(texts), strict=True)
    ]
    return rows[::-1]


def read_headline(folder: Path) -> Headline | None:
    """The first metric that the run logged; None when it logged none.

    Raises:
        ValueError: metrics.json cannot be read.
    """
    metrics = read_metrics(folder)
    if not metrics:
        return None
    name, metric = next(iter(metrics.items()))
    value, low, high = (finite_number(metric[part]) for part in ("value", "low", "high"))
    return Headline(name, value, low, high, str(metric["n"]), str(metric["protocol"]), metric.get("doubt", ""))


def finite_number(value: object) -> float | None:
    """The value as a float; None where it is no number, not finite or beyond what a float holds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def short_number(value: float | None) -> str:
    """Four significant digits: `0.6321`, `1.2e+09`; `undefined` for None."""
    return "undefined" if value is None else f"{value:.4g}"


def _read_row(
    folder: Path,
    record: Mapping[str, Any],
    parameters: Mapping[str, str],
    varied: Mapping[str, set[str]],
    origins: dict[str, tuple[str, str]],
) -> ListedRun:
    """The row; `origins` has trunk and recipe of the embedders of older runs, and gets this run's."""
    facts, notebook = record["facts"], str(record["notebook"])
    embedder = _given(parameters, "embedder")
    maker = next((part for part in embedder.split("/") if FOLDER_NAME.fullmatch(part)), "")
    trunk, recipe = origins.get(maker, ("", ""))
    trunk = _described_trunk(facts) or trunk or ("" if maker else embedder)
    recipe = _given(parameters, "recipe") or recipe
    origins[folder.name] = trunk, recipe
    error = record.get("error") or {}
    problem = f"{error.get('type')}: {error.get('message')}" if error else ""
    headline = None
    try:
        headline = read_headline(folder)
    except ValueError as unreadable:
        problem = "\n".join(filter(None, (problem, str(unreadable))))
    settings = [
        f"{name}={_cut(value, 60)}"
        for name, value in parameters.items()
        if name in varied[notebook] and name not in _OWN_COLUMNS and _given(parameters, name)
    ]
    return ListedRun(
        name=folder.name,
        status=str(record["status"]),
        notebook=notebook,
        data=_given(parameters, "data") or str(facts.get("data") or ""),
        trunk=trunk,
        recipe=recipe,
        source=maker.partition("-")[2],
        images=str(facts.get("catalog") or ""),
        started=str(record.get("started") or ""),
        seconds=finite_number(record.get("seconds")),
        is_trial=record["parameters"].get("smoke") is True,
        settings=_cut(", ".join(settings), _MAX_CHARACTERS),
        parameters="\n".join(f"{name}: {_cut(value, _MAX_CHARACTERS)}" for name, value in parameters.items()),
        error=_cut(problem, _MAX_CHARACTERS),
        headline=headline,
        files=tuple(
            (word, quote(f"{folder.name}/{file}")) for word, file in _FILES.items() if (folder / file).exists()
        ),
    )


def _varied_parameters(notebooks: Sequence[str], parameters: Sequence[Mapping[str, str]]) -> dict[str, set[str]]:
    """Of each notebook the parameters of which its runs have several values; both arguments are one a run."""
    values: dict[str, dict[str, set[str]]] = {}
    for notebook, texts in zip(notebooks, parameters, strict=True):
        of_notebook = values.setdefault(notebook, {})
        for name, text in texts.items():
            of_notebook.setdefault(name, set()).add(text)
    return {
        notebook: {name for name, texts in of_notebook.items() if len(texts) > 1}
        for notebook, of_notebook in values.items()
    }


def _described_trunk(facts: Mapping[str, Any]) -> str:
    """The trunk that the run noted, of several embedders the first one's."""
    for described in (facts.get("described"), facts.get("embedding")):
        if isinstance(described, dict):
            for one in (described, *described.values()):
                if isinstance(one, dict) and isinstance(one.get("trunk"), str):
                    return str(one["trunk"])
    return ""


def _given(parameters: Mapping[str, str], name: str) -> str:
    """The parameter's text; empty where it is None or not there."""
    text = parameters.get(name, "")
    return "" if text == "None" else text


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
