"""metrics.json: what a run found, each number with its interval, its sample size and its protocol."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.runs.files import write_json

METRIC_FIELDS = ("value", "low", "high", "n", "protocol")
_DOUBT = "doubt"


def add_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Adds metrics to the folder's metrics.json, atomically; a known name is replaced in its place.

    Args:
        folder: the run's.
        metrics: by name, each a dataclass or a mapping with `value`, `low`, `high`, `n` and `protocol`; with `doubt` where the
            interval is not to be relied on, which is left out where it is empty.

    Raises:
        ValueError: a metric without one of these, with another one, or with an infinite number; nothing is written.
        OSError: the disk is full; the old file stays.
    """
    plain = {}
    for name, metric in metrics.items():
        fields = to_json(metric)
        if not isinstance(fields, dict) or set(fields) - {_DOUBT} != set(METRIC_FIELDS):
            found = ", ".join(fields) if isinstance(fields, dict) else repr(metric)
            raise ValueError(f"Metric {name!r}: wanted {', '.join(METRIC_FIELDS)}, found {found or 'nothing'}.")
        doubt = {_DOUBT: fields[_DOUBT]} if fields.get(_DOUBT) else {}
        plain[name] = {field: fields[field] for field in METRIC_FIELDS} | doubt
    write_json(folder / "metrics.json", {"metrics": read_metrics(folder) | plain})


def read_metrics(folder: Path) -> dict[str, dict[str, Any]]:
    """The run's metrics by name, in the order in which they were first logged; empty when there are none.

    Raises:
        ValueError: metrics.json cannot be read.
    """
    path = folder / "metrics.json"
    if not path.exists():
        return {}
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]
        if not all(isinstance(metric, dict) and set(METRIC_FIELDS) <= set(metric) for metric in metrics.values()):
            raise ValueError("a metric without all of its fields")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error}).") from error
    return dict(metrics)


def to_json(value: Any) -> Any:
    """The value as JSON can hold it: dataclasses and mappings as objects, arrays and sets as lists, paths as text.

    NaN stands for "not defined" and becomes null. Sets are sorted.

    Raises:
        ValueError: an infinite number, or something that has no place in JSON.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if math.isinf(value):
            raise ValueError("An infinite number cannot be logged; log None and say why in a fact.")
        return None if math.isnan(value) else float(value)
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((to_json(item) for item in value), key=str)
    if hasattr(value, "tolist"):
        return to_json(value.tolist())
    raise ValueError(f"A {type(value).__name__} cannot be logged: {value!r}; log numbers, text, lists or mappings.")
