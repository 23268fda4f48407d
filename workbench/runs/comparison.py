"""Runs side by side: which runs are meant, what set them apart, and what they found.

A variant is what a run would be under any seed: runs of one variant differ in their seeds alone.
"""

import glob
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.runs.hits import Hits, read_hits
from workbench.runs.metrics import read_metrics
from workbench.runs.record import list_runs, read_record

_LONG = 24
MISSING = "–"
_NAME_CHARACTERS = 40
_NO_SETTINGS = {"seed", "recipe.seed"}


@dataclass(frozen=True)
class ComparedRun:
    """One run as it is compared.

    Attributes:
        folder: of the run.
        variant: its name among the runs compared, by the parameters in which they differ.
        seed: of the run; None where its notebook has none.
        record: run.json.
        settings: parameters and recipe, flattened (`recipe.augmentation.flip_share`), without the seed.
        metrics: metrics.json.
        hits: queries.parquet, empty where the run kept none.
    """

    folder: Path
    variant: str
    seed: int | None
    record: dict[str, Any]
    settings: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    hits: dict[str, Hits]


def find_runs(text: str, outputs: Path, notebook: str = "02_finetune_trunk") -> list[Path]:
    """The folders of the runs that are meant, oldest first, each once; those that did not end well are among them.

    Args:
        text: names of runs, parts of names, paths or patterns (`20261121*`, `outputs/*scratch*`), with commas. Empty: the
            latest sweep of `notebook`, else (no run of it was part of a sweep) all its runs; none is no error.
        outputs: where runs lie that are named without a path.
        notebook: whose sweep is the default.

    Raises:
        ValueError: a part of the text that is no run.
    """
    known = list_runs(outputs)
    if not text.strip():
        of_notebook = [(folder, record) for folder, record in known if record["notebook"] == notebook]
        sweeps = [record["sweep"] for _, record in of_notebook if record.get("sweep")]
        return [folder for folder, record in of_notebook if not sweeps or record.get("sweep") == sweeps[0]][::-1]
    chosen: dict[Path, str] = {}
    for part in (word.strip() for word in text.split(",") if word.strip()):
        paths = [Path(path) for path in glob.glob(part)]
        paths += [Path(path) for path in glob.glob(str(Path(glob.escape(str(outputs))) / part))]
        found = [path.resolve() for path in paths if (path / "run.json").is_file()]
        found = found or [folder.resolve() for folder, _ in known if part in folder.name]
        if not found:
            raise ValueError(
                f"runs: no run is called {part!r} in {outputs} or at that path; `python -m workbench runs` lists them."
            )
        chosen |= {folder: str(read_record(folder).get("started") or "") for folder in found}
    return sorted(chosen, key=lambda folder: (chosen[folder], folder.name))


def load_runs(folders: Sequence[Path]) -> tuple[list[ComparedRun], pd.DataFrame]:
    """The runs that can be compared, and why the others cannot (columns run, reason).

    Left out are runs that did not end well, logged no metric or have a file that cannot be read, and of several with the same
    settings and seed all but the newest. Variants are named by the parameters in which they differ; where these are the
    same (the code changed, say), by the run's last letters too.

    Args:
        folders: oldest first.
    """
    found: dict[Path, ComparedRun] = {}
    left_out: list[tuple[str, str]] = []
    for folder in folders:
        record = read_record(folder)
        if record["status"] != "ok":
            left_out.append((folder.name, f"its status is {record['status']}"))
            continue
        try:
            metrics, hits = read_metrics(folder), read_hits(folder)
        except ValueError as error:
            left_out.append((folder.name, str(error)))
            continue
        if not metrics:
            left_out.append((folder.name, "it logged no metric"))
            continue
        found[folder] = ComparedRun(folder, "", record.get("seed"), record, read_settings(record), metrics, hits)
    keys = {folder: json.dumps(run.settings, sort_keys=True) for folder, run in found.items()}
    newest = {(keys[folder], run.seed): folder for folder, run in found.items()}
    for folder, run in found.items():
        by = newest[keys[folder], run.seed]
        if by != folder:
            left_out.append((folder.name, f"{by.name} is newer and has the same settings and seed"))
    kept = {folder: key for folder, key in keys.items() if newest[key, found[folder].seed] == folder}
    names = _name_variants(kept, {folder: found[folder].record for folder in kept})
    runs = [replace(found[folder], variant=names[key]) for folder, key in kept.items()]
    return runs, pd.DataFrame(left_out, columns=["run", "reason"])


def read_settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters and the recipe of a run's record, flattened, without seeds.

    A parameter that the recipe has too is left out: it may be None there, and the recipe says what held.
    """
    flat: dict[str, Any] = {"notebook": record["notebook"]}
    recipe = record["facts"].get("recipe") or {}
    for name, value in record["parameters"].items():
        if name not in recipe:
            flat[name] = value
    _flatten("recipe", recipe, flat)
    return {name: value for name, value in flat.items() if name not in _NO_SETTINGS}


def differing_settings(runs: Sequence[ComparedRun]) -> pd.DataFrame:
    """One row a setting in which the runs differ, one column a variant (seeds of a variant share theirs), as text."""
    variants = {run.variant: run.settings for run in runs}
    names = list(dict.fromkeys(name for settings in variants.values() for name in settings))
    rows = []
    for name in names:
        values = [_as_text(settings[name]) if name in settings else MISSING for settings in variants.values()]
        if len(set(values)) > 1:
            rows.append((name, *values))
    return pd.DataFrame(rows, columns=["setting", *variants])


def metrics_table(runs: Sequence[ComparedRun]) -> pd.DataFrame:
    """One row a run and metric: metric, protocol, variant, seed, run, value, low, high, n, doubt.

    Only metrics that two variants have are kept, in the order of the first run that has them; of a single variant all.
    """
    columns = ["metric", "protocol", "variant", "seed", "run", "value", "low", "high", "n", "doubt"]
    rows = [
        (
            *(name, one["protocol"], run.variant, run.seed, run.folder.name),
            *(one[key] for key in ("value", "low", "high", "n")),
            one.get("doubt", ""),
        )
        for run in runs
        for name, one in run.metrics.items()
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    table[["value", "low", "high"]] = table[["value", "low", "high"]].astype("float64")
    wanted = min(2, table["variant"].nunique())
    shared = table.groupby("metric")["variant"].transform("nunique") >= wanted
    kept = table[shared].dropna(subset="value")
    order = {name: place for place, name in enumerate(dict.fromkeys(kept["metric"]))}
    return kept.sort_values("metric", key=lambda column: column.map(order), kind="stable", ignore_index=True)


def differing_protocols(metrics: pd.DataFrame) -> pd.DataFrame:
    """One row a protocol of each metric that was measured under more than one: metric, variants, protocol.

    Such numbers answer different questions and do not belong into one figure.
    """
    several = metrics.groupby("metric")["protocol"].transform("nunique") > 1
    groups = metrics[several].groupby(["metric", "protocol"], sort=False)["variant"]
    return groups.agg(lambda names: "; ".join(dict.fromkeys(names))).reset_index(name="variants")[
        ["metric", "variants", "protocol"]
    ]


def cost_table(runs: Sequence[ComparedRun]) -> pd.DataFrame:
    """What each run's training cost: variant, seed, run, seconds, images, images_per_s, peak_memory_mib, device.

    Runs that logged no cost are not in it.
    """
    fields = ("seconds", "images", "images_per_s", "peak_memory_mib", "device")
    rows = [
        (run.variant, run.seed, run.folder.name, *(run.record["facts"]["cost"].get(field) for field in fields))
        for run in runs
        if run.record["facts"].get("cost")
    ]
    return pd.DataFrame(rows, columns=["variant", "seed", "run", *fields])


def _flatten(prefix: str, value: Any, into: dict[str, Any]) -> None:
    if isinstance(value, Mapping):
        for name, item in value.items():
            _flatten(f"{prefix}.{name}", item, into)
    else:
        into[prefix] = value


def _name_variants(keys: Mapping[Path, str], records: Mapping[Path, dict[str, Any]]) -> dict[str, str]:
    """The name of each variant, by its key: what differs, without long values such as paths where the rest tells all apart."""
    first = {key: folder for folder, key in reversed(list(keys.items()))}
    given = {
        key: {"notebook": records[folder]["notebook"], **records[folder]["parameters"]} for key, folder in first.items()
    }
    names = list(dict.fromkeys(name for parameters in given.values() for name in parameters if name != "seed"))
    telling = [
        name
        for name in names
        if len({_as_text(parameters.get(name, MISSING)) for parameters in given.values()}) > 1
    ]  # fmt: skip

    def num_told_apart(by: list[str]) -> int:
        return len({tuple(_as_text(one.get(name, MISSING)) for name in by) for one in given.values()})

    needed = num_told_apart(telling)
    longest = {name: max(len(_as_text(one.get(name, MISSING))) for one in given.values()) for name in telling}
    for name in sorted((name for name in telling if longest[name] > _LONG), key=lambda name: -longest[name]):
        fewer = [other for other in telling if other != name]
        telling = fewer if num_told_apart(fewer) == needed else telling
    named = {
        key: ", ".join(f"{name}={_short(parameters[name])}" for name in telling if name in parameters)
        for key, parameters in given.items()
    }
    named = {key: name or records[first[key]]["notebook"] for key, name in named.items()}
    twice = [name for name in named.values() if list(named.values()).count(name) > 1]
    return {key: f"{name} ({first[key].name[-8:]})" if name in twice else name for key, name in named.items()}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _short(value: Any) -> str:
    text = _as_text(value)
    return text if len(text) <= _NAME_CHARACTERS else f"…{text[-_NAME_CHARACTERS:]}"
