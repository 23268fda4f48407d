"""A critical look at a comparison: what else, beside the settings compared, could explain the difference."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.runs.comparison import MISSING, ComparedRun

SAME, DIFFERS, ON_PURPOSE, UNKNOWN = "same", "differs", "compared on purpose", "unknown"
MIN_SEEDS = 3
_TIME_RATIO = 1.1


@dataclass(frozen=True)
class _Question:
    """What is asked of each run, why it matters, and the parameters by which it may be changed on purpose."""

    words: str
    read: Callable[[ComparedRun], object]
    why: str
    parameters: tuple[str, ...] = ()


def critical_look(runs: Sequence[ComparedRun], metric: str = "") -> pd.DataFrame:
    """One row a question: question, verdict, found, why it matters.

    Verdicts: `same`, `differs`, `compared on purpose` (it differs, and so does a parameter that says so), `unknown` (a run does
    not tell), and for seeds, code and whole runs `enough`, `too few`, `uneven`, `clean`, `dirty`, `yes`, `trial`. Runs are held
    against each other within a seed, so that what a seed draws is no difference.

    Args:
        runs: as `comparison.load_runs` gives them; empty gives an empty table.
        metric: the headline, whose protocol and queries are compared.
    """
    if not runs:
        return pd.DataFrame(columns=["question", "verdict", "found", "why"])
    swept = {
        name for name in _parameters(runs) if len({json.dumps(run.record["parameters"].get(name)) for run in runs}) > 1
    }
    rows = [_answer(question, runs, swept) for question in _questions(metric)]
    rows += [_budget_in_time(runs), _seeds(runs), _code(runs), _whole(runs)]
    return pd.DataFrame(rows, columns=["question", "verdict", "found", "why"])


def _questions(metric: str) -> list[_Question]:
    trunk = ("embedder", "trunk_weights")
    size = ("image_size", "image_height", "image_width")

    def fact(name: str) -> Callable[[ComparedRun], object]:
        return lambda run: _cut(run.record["facts"].get(name))

    def protocol(run: ComparedRun) -> object:
        return run.metrics.get(metric, {}).get("protocol")

    def images(run: ComparedRun) -> object:
        return (run.record["facts"].get("cost") or {}).get("images")

    def content(run: ComparedRun) -> object:
        told = run.record["facts"].get("content")
        return told and {part: _cut(fingerprint) for part, fingerprint in told.items()}

    rows: list[tuple[str, Callable[[ComparedRun], object], str, tuple[str, ...]]] = [
        ("Same data set?", lambda run: run.record["parameters"].get("data"), "Other pictures are another question.", ("data",)),
        ("Same images and labels?", fact("catalog"), "A name may stand for other files.", ("data", "data_root")),
        ("Same pictures, byte for byte?", content, "Files may have been put in others' places.", ("data", "data_root")),
        ("Same training images?", fact("training_images"), "Other images to learn from are no merit of a recipe.", ("fold", "splits")),
        ("Same validation images?", fact("validation_images"), "Rates and steps are chosen on them.", ("fold", "splits")),
        ("Same queries?", lambda run: _queries(run, metric), "Only then is a difference paired.", ("data", "query_split")),
        ("Same protocol?", protocol, "Conventions alone move numbers by points.", ("shots", "draws", "vote")),
        ("Same trunk?", lambda run: _described(run, "trunk"), "The trunk outweighs most recipes.", trunk),
        ("Same starting weights?", fact("before"), "Pretraining is most of the result.", trunk),
        ("Same embedding dimension?", lambda run: _described(run, "embedding_dim"), "Wider is better by itself.", ("embedding_dim",)),
        ("Same image size?", _image_size, "Larger images are better and dearer.", size),
        ("Same number of images seen?", images, "More steps are more training.", ("num_steps", "batch_size")),
        ("Same device?", lambda run: run.record.get("device"), "Time and memory compare on one device only.", ("device",)),
        ("Same packages?", lambda run: run.record.get("versions"), "Libraries change their defaults.", ()),
    ]  # fmt: skip
    return [_Question(words, read, why, parameters) for words, read, why, parameters in rows]


def _answer(question: _Question, runs: Sequence[ComparedRun], swept: set[str]) -> tuple[str, str, str, str]:
    values = [question.read(run) for run in runs]
    texts = [MISSING if value is None else _text(value) for value in values]
    by_seed: dict[object, set[str]] = {}
    for run, text in zip(runs, texts, strict=True):
        by_seed.setdefault(run.seed, set()).add(text)
    distinct = list(dict.fromkeys(texts))
    if MISSING in distinct:
        verdict = UNKNOWN
    elif all(len(found) == 1 for found in by_seed.values()) and (len(by_seed) < len(runs) or len(distinct) == 1):
        verdict = SAME
    else:
        verdict = ON_PURPOSE if swept & set(question.parameters) else DIFFERS
    if len(distinct) == 1:
        found = distinct[0]
    elif verdict == SAME:
        found = f"{len(distinct)} in {len(by_seed)} seeds, within each the same"
    else:
        found = "; ".join(f"{text} ({_who(runs, texts, text)})" for text in distinct)
    return question.words, verdict, found if len(found) <= 600 else f"{found[:600]} …", question.why


def _budget_in_time(runs: Sequence[ComparedRun]) -> tuple[str, str, str, str]:
    words, why = "Same time to train (within 10 %)?", "A slower recipe could have had more steps of a fast one."
    seconds: dict[str, list[float]] = {}
    for run in runs:
        cost = run.record["facts"].get("cost") or {}
        seconds.setdefault(run.variant, []).extend([float(cost["seconds"])] if cost.get("seconds") else [])
    if not all(seconds.values()):
        return words, UNKNOWN, "a run tells no time", why
    means = {name: sum(found) / len(found) for name, found in seconds.items()}
    verdict = SAME if max(means.values()) <= _TIME_RATIO * min(means.values()) else DIFFERS
    return words, verdict, "; ".join(f"{mean / 60:.1f} min ({name})" for name, mean in means.items()), why


def _seeds(runs: Sequence[ComparedRun]) -> tuple[str, str, str, str]:
    seeds: dict[str, set[object]] = {}
    for run in runs:
        seeds.setdefault(run.variant, set()).add(run.seed)
    even = len({frozenset(found) for found in seeds.values()}) == 1
    verdict = "uneven" if not even else "enough" if min(map(len, seeds.values())) >= MIN_SEEDS else "too few"
    found = "; ".join(f"{', '.join(map(str, sorted(found, key=str)))} ({name})" for name, found in seeds.items())
    why = f"One seed is one draw of weights and batches; {MIN_SEEDS} of each, the same ones, show how much that moves."
    return "Enough seeds, the same for all?", verdict, found, why


def _code(runs: Sequence[ComparedRun]) -> tuple[str, str, str, str]:
    told = [run.record.get("git") for run in runs]
    commits = list(dict.fromkeys(_cut(git["commit"]) if git else MISSING for git in told))
    if MISSING in commits or None in commits:
        verdict = UNKNOWN
    elif len(commits) > 1:
        verdict = DIFFERS
    else:
        verdict = "dirty" if any(git["dirty"] for git in told if git) else "clean"
    dirty = sum(bool(git and git["dirty"]) for git in told)
    found = (
        f"{', '.join(map(str, commits))}; {dirty} of {len(runs)} runs from a checkout with changes that no commit holds"
    )
    return "Same code, all of it in a commit?", verdict, found, "Changes that no commit holds cannot be had again."


def _whole(runs: Sequence[ComparedRun]) -> tuple[str, str, str, str]:
    trials = [run.folder.name for run in runs if run.record["parameters"].get("smoke")]
    found = f"{len(trials)} of {len(runs)} runs are trials (smoke=True)"
    return "Whole runs?", "trial" if trials else "yes", found, "A trial shows that the code runs, and nothing else."


def _queries(run: ComparedRun, metric: str) -> object:
    hits = run.hits.get(metric)
    if hits is None:
        return None
    names = "\n".join(sorted(map(str, hits.query_Q)))
    return f"{len(hits.query_Q):,} queries, {_cut(hashlib.sha256(names.encode()).hexdigest())}"


def _described(run: ComparedRun, name: str) -> object:
    """What the tuned embedder's folder says, else what the run logged of its embedder."""
    facts = run.record["facts"]
    for told in (_embedder_config(run), facts.get("embedding") or {}, facts.get("described") or {}):
        if told.get(name) is not None:
            return told[name]
    return None


def _image_size(run: ComparedRun) -> object:
    parameters = run.record["parameters"]
    size = _embedder_config(run).get("preprocessing", {}).get("image_size")
    size = size or [parameters.get("image_height"), parameters.get("image_width")]
    if None not in size:
        return " x ".join(map(str, size))
    return parameters.get("image_size")


def _embedder_config(run: ComparedRun) -> dict[str, Any]:
    told = run.record["facts"].get("embedder_folder")
    path = Path(told) / "config.json" if told else run.folder / "training" / "embedder" / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _parameters(runs: Sequence[ComparedRun]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.record["parameters"]))


def _who(runs: Sequence[ComparedRun], texts: Sequence[str], text: str) -> str:
    variants = list(dict.fromkeys(run.variant for run, one in zip(runs, texts, strict=True) if one == text))
    return " and ".join(variants[:3]) + (f" and {len(variants) - 3} more" if len(variants) > 3 else "")


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _cut(fingerprint: str | None) -> str | None:
    return fingerprint[:10] if fingerprint else None
