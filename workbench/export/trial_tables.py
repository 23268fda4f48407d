"""What a trial of several runtimes found, as the notebook and the reports show it.

Every function takes the trials by runtime, in the order in which they are to be shown.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench.export.trial import Tried
from workbench.retrieval.stats import Metric

_TOLD = ("precision", "input", "normalised", "embedding_dim", "image_size", "opset", "weights_sha256", "versions")


def collect_metrics(tried: Mapping[str, Tried]) -> dict[str, Metric]:
    """Every metric under `<runtime>/`: accuracy@1 (and mAP) of torch, exported and mixed, and the changes; then the checks.

    A check is `<runtime>/check/` and its name with _ for what is no letter, such as `openvino/check/cosine_min`; it was counted, not
    estimated, so that low and high are its value. Left out: changes, which are there with their interval, and what is not defined.
    """
    found = {f"{name}/{key}": metric for name, one in tried.items() for key, metric in one.acceptance.metrics.items()}
    for name, one in tried.items():
        for check in one.acceptance.checks:
            if check.check.startswith("change of ") or math.isnan(check.value):
                continue
            key = re.sub(r"\W+", "_", check.check).strip("_")
            wanted = f"; wanted {check.limit}" if check.limit else ""
            protocol = f"{one.acceptance.protocol}; {check.check}{wanted}"
            found[f"{name}/check/{key}"] = Metric(check.value, check.value, check.value, check.n, protocol)
    return found


def named_checks(tried: Mapping[str, Tried], runtimes: Mapping[str, str]) -> pd.DataFrame:
    """The checks of all runtimes for a model card, as `Acceptance.table` gives them, each check named with its runtime.

    Args:
        tried: by runtime.
        runtimes: each with its version, such as {"onnxruntime": "onnxruntime 1.22.0"}.
    """
    parts = [one.acceptance.table() for one in tried.values()]
    for part, name in zip(parts, tried, strict=True):
        part["check"] = f"{runtimes[name]}: " + part["check"]
    return pd.concat(parts, ignore_index=True)


def checks_table(tried: Mapping[str, Tried]) -> pd.DataFrame:
    """One row a runtime and check: runtime, check, value, limit, passed, n, words."""
    parts = [one.acceptance.table().assign(runtime=name) for name, one in tried.items()]
    return pd.concat(parts, ignore_index=True)[["runtime", "check", "value", "limit", "passed", "n", "words"]]


def changes_table(tried: Mapping[str, Tried]) -> pd.DataFrame:
    """One row a runtime and changed metric: quantity, value, low, high, n, export (the runtime)."""
    return pd.concat([one.acceptance.changes().assign(export=name) for name, one in tried.items()], ignore_index=True)


def cosines(tried: Mapping[str, Tried]) -> dict[str, np.ndarray]:
    """The cosines of torch's and the export's embedding of each image, by runtime and side."""
    found = {}
    for name, one in tried.items():
        found[f"{name}, references"] = one.acceptance.cosine_N
        found[f"{name}, queries"] = one.acceptance.cosine_Q
    return found


def most_failures(tried: Mapping[str, Tried]) -> str:
    """The runtime that missed most limits; the first of equals."""
    return max(tried, key=lambda name: len(tried[name].acceptance.failures))


def exported_facts(exported: Mapping[str, Any]) -> pd.DataFrame:
    """What export.json says, for reading: columns fact and value (text)."""
    facts = {name: exported[name] for name in _TOLD} | {f"file {name}": one for name, one in exported["files"].items()}
    more = ("checked_against_torch", "calibration", "compared_with_fp32")
    facts |= {name.replace("_", " "): exported[name] for name in more if name in exported}
    return facts_table(facts)


def facts_table(facts: Mapping[str, Any], longest: int = 300) -> pd.DataFrame:
    """Columns fact and value: text as it is, anything else as JSON, cut after `longest` characters."""
    rows = []
    for name, value in facts.items():
        words = value if isinstance(value, str) else json.dumps(value)
        rows.append((name, words if len(words) <= longest else f"{words[:longest]} …"))
    return pd.DataFrame(rows, columns=["fact", "value"])


def list_files(folders: Mapping[str, Path]) -> pd.DataFrame:
    """One row a file: bundle (the folder's name in `folders`), file (its path within), MiB."""
    rows = [
        (name, str(path.relative_to(top)), path.stat().st_size / 2**20)
        for name, top in folders.items()
        for path in sorted(top.rglob("*"))
        if path.is_file()
    ]
    return pd.DataFrame(rows, columns=["bundle", "file", "MiB"])
