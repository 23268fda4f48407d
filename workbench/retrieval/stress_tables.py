"""What a stress run shows: accuracy against severity, what is kept of it, who leads where, and the guideline in a sentence."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from workbench.data.corruption_kinds import KINDS, Kind
from workbench.data.corruptions import Corruption
from workbench.retrieval.stats import Metric, cluster_interval, paired_difference
from workbench.retrieval.stress import Answers, Stress

_COLUMNS = ["embedder", "kind", "severity", "value", "low", "high", "n", "chance", "threshold"]
_COLUMNS += ["margin", "margin_low", "margin_high", "verdict"]


@dataclass(frozen=True)
class Rule:
    """What must be left of the clean accuracy for a severity to count as kept.

    With accuracy a at a severity and c clean, the margin is a - (keep c - points), formed for each query and draw. A
    severity is `kept` where the lower end of the margin's 95 % interval is at least 0, `lost` where the upper end is below
    0, `open` otherwise. Severities are judged from mild to severe, and the first that is not kept ends the range, so
    that within a kind no correction for their number is needed; over the kinds none is made.

    Attributes:
        keep: share of the clean accuracy, in (0, 1].
        points: allowed beyond that, 0 to 1; Rule(1, 0.05) is "loses at most 5 points".

    Raises:
        ValueError: a value out of its range, or a rule that nothing could break.

    Source: the margin of a ratio is Fieller's: a / c >= keep exactly where a - keep c >= 0, and the second has an
    interval without a division; testing in a fixed sequence: Maurer, Hothorn and Lehmacher 1995.
    """

    keep: float = 0.9
    points: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1 or not 0 <= self.points < 1:
            raise ValueError(f"keep lies in (0, 1] and points in [0, 1); found {self.keep} and {self.points}.")

    def words(self, quantity: str) -> str:
        """What is kept, such as "at least 90 % of its clean accuracy@1"."""
        less = f" less {100 * self.points:g} points" if self.points else ""
        if self.keep == 1:
            return f"its clean {quantity}{less}"
        return f"at least {100 * self.keep:g} % of its clean {quantity}{less}"

    def describe(self, quantity: str) -> str:
        """The rule in a sentence."""
        return (
            f"A severity is kept where the lower end of the 95 % interval, paired by query and draw, shows {self.words(quantity)}; "
            "severities go from mild to severe, and the first that is not kept ends the range"
        )


def stress_table(stress: Stress, rule: Rule) -> pd.DataFrame:
    """One row an embedder, kind and severity, in the order that was asked; each kind begins with the clean answers.

    Columns: embedder, kind, severity (the kind's `clean` for the clean row), value, low, high, n, chance, threshold (what the
    rule wants), margin with margin_low and margin_high (value less threshold, paired; NaN for the clean row), verdict
    ("clean", "kept", "open" or "lost").

    Args:
        stress: the answers.
        rule: what must be left.
    """
    rows: list[tuple[object, ...]] = []
    for embedder, answers in stress.answers.items():
        clean = answers[None]
        whole = cluster_interval(clean.value_DQ, clean.label_Q)
        threshold = rule.keep * whole.value - rule.points
        told: set[str] = set()
        for corruption, found in answers.items():
            if corruption is None:
                continue
            kind, shared = corruption.kind, (len(clean.label_Q), clean.chance, threshold)
            if kind not in told:
                told.add(kind)
                ends = (whole.value, whole.low, whole.high, *shared)
                rows.append((embedder, kind, KINDS[kind].clean, *ends, *([np.nan] * 3), "clean"))
            here = cluster_interval(found.value_DQ, found.label_Q)
            margin = paired_difference(found.value_DQ, rule.keep * clean.value_DQ, clean.label_Q)
            ends_M = tuple(end + rule.points for end in (margin.value, margin.low, margin.high))
            verdict = "kept" if ends_M[1] >= 0 else "lost" if ends_M[2] < 0 else "open"
            rows.append(
                (embedder, kind, corruption.severity, here.value, here.low, here.high, *shared, *ends_M, verdict)
            )
    return pd.DataFrame(rows, columns=_COLUMNS)


def difference_table(stress: Stress) -> pd.DataFrame:
    """One row a kind and severity: the first embedder less the second, paired by query and draw.

    Columns: kind, severity (the kind's `clean` for the clean row, which begins each kind), value, low, high, n. Empty with one
    embedder.
    """
    rows = []
    if len(stress.answers) > 1:
        (_, first), (_, second), *_ = stress.answers.items()
        told: set[str] = set()
        for corruption in first:
            if corruption is None:
                continue
            kind = corruption.kind
            pairs: list[tuple[Corruption | None, float]] = [(corruption, corruption.severity)]
            if kind not in told:
                told.add(kind)
                pairs.insert(0, (None, KINDS[kind].clean))
            for key, severity in pairs:
                gap = _lead(first[key], second[key])
                rows.append((kind, severity, gap.value, gap.low, gap.high, gap.n))
    return pd.DataFrame(rows, columns=["kind", "severity", "value", "low", "high", "n"])


def guidelines(stress: Stress, rule: Rule) -> pd.DataFrame:
    """One row an embedder and kind: how far it may go, as a number and in a sentence.

    Columns: embedder, kind, limit (the most severe of the kept severities, NaN where none is kept), broken (the mildest
    severity at which the loss is shown, NaN where it nowhere is), value, low, high, n (at the limit; clean where there is
    none), lead, lead_low, lead_high (first embedder less second there, NaN with one embedder), sentence. Only measured
    severities are named, nothing is interpolated.
    """
    table, gaps = stress_table(stress, rule), difference_table(stress)
    quantity = next(iter(stress.answers.values()))[None].quantity
    first, second = [*stress.answers, ""][:2]
    rows = []
    for (embedder, name), part in table.groupby(["embedder", "kind"], sort=False):
        embedder, name = str(embedder), str(name)
        kind, clean, tried = KINDS[name], part.iloc[0], part.iloc[1:]
        kept = int((tried["verdict"] == "kept").cumprod().sum())
        above_chance = clean["low"] > clean["chance"]
        at = tried.iloc[kept - 1] if kept and above_chance else clean
        lost = tried["severity"][tried["verdict"] == "lost"]
        gap = gaps[(gaps["kind"] == name) & (gaps["severity"] == at["severity"])]
        lead = tuple(gap.iloc[0][["value", "low", "high"]]) if len(gap) else (np.nan,) * 3
        sentence = f"{kind.title}: {embedder} " + (
            _sentence(kind, tried, kept, rule.words(quantity), stress.input_px[embedder])
            if above_chance
            else f"is not shown to be above chance ({100 * clean['chance']:.1f} %) with clean pictures "
            f"({100 * clean['value']:.1f} % [{100 * clean['low']:.1f}, {100 * clean['high']:.1f}]): there is nothing to keep."
        )
        if len(gap) and kept and above_chance and embedder == first:
            sentence += f" There {embedder} less {second} is {_points(lead[0])} points [{_points(lead[1])}, {_points(lead[2])}]."
        limit = at["severity"] if kept and above_chance else np.nan
        broken = lost.iloc[0] if len(lost) else np.nan
        rows.append((embedder, name, limit, broken, *at[["value", "low", "high", "n"]], *lead, sentence))
    columns = ["embedder", "kind", "limit", "broken", "value", "low", "high", "n", "lead", "lead_low", "lead_high"]
    return pd.DataFrame(rows, columns=[*columns, "sentence"]).astype({"n": "int64"})


def stress_metrics(stress: Stress) -> dict[str, Metric]:
    """Every number by name: `accuracy@1/shots=1/micro` clean, `.../blur=1` under a corruption; of the first embedder plainly, of
    the others under `<name>/`, and the first less the second under `difference/`; `chance/...` of the clean queries.
    """
    clean = next(iter(stress.answers.values()))[None]
    chance = Metric(clean.chance, clean.chance, clean.chance, len(clean.label_Q), f"a guesser; {clean.protocol}")
    metrics: dict[str, Metric] = {}
    for number, (embedder, answers) in enumerate(stress.answers.items()):
        prefix = f"{embedder}/" if number else ""
        for corruption, found in answers.items():
            line = _protocol_line(found, corruption)
            metrics[prefix + _metric_name(found, corruption)] = cluster_interval(
                found.value_DQ, found.label_Q, protocol=line
            )
    if len(stress.answers) > 1:
        (name, first), (other, second), *_ = stress.answers.items()
        for corruption, found in first.items():
            line = f"{name} less {other}, paired by query and draw; {_protocol_line(found, corruption)}"
            gap = replace(_lead(found, second[corruption]), protocol=line)
            metrics[f"difference/{_metric_name(found, corruption)}"] = gap
    return metrics | {f"chance/{clean.name}": chance}


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}"


def _lead(first: Answers, second: Answers) -> Metric:
    return paired_difference(first.value_DQ, second.value_DQ, first.label_Q)


def _metric_name(found: Answers, corruption: Corruption | None) -> str:
    return found.name if corruption is None else f"{found.name}/{corruption.kind}={corruption.severity:g}"


def _protocol_line(found: Answers, corruption: Corruption | None) -> str:
    if corruption is None:
        return f"clean queries; {found.protocol}"
    say = KINDS[corruption.kind].say(corruption.severity)
    return (
        f"queries with {say} (corruption {corruption.kind}, from at most {corruption.frame_px} px on the shorter side, seed "
        f"{corruption.seed}), references clean; {found.protocol}"
    )


def _sentence(kind: Kind, tried: pd.DataFrame, kept: int, words: str, input_px: int) -> str:
    severities, verdicts = tried["severity"].tolist(), tried["verdict"].tolist()
    reach = f"{'down to' if kind.descends else 'up to'} {kind.say(severities[max(kept - 1, 0)], input_px)}"
    if kept == len(tried):
        return f"keeps {words} {reach}, the most severe that was measured."
    next_one = kind.say_briefly(severities[kept], input_px) if kept else kind.say(severities[0], input_px)
    ends = {"open": "this is not shown", "lost": "it is shown to keep less"}[verdicts[kept]]
    if verdicts[kept] == "open" and "lost" in verdicts[kept:]:
        lost = severities[verdicts.index("lost", kept)]
        ends += f", and at {kind.say_briefly(lost, input_px)} it is shown to keep less"
    if not kept:
        return f"keeps {words} at no severity that was measured: already at {next_one} {ends}."
    return f"keeps {words} {reach}; at {next_one} {ends}."
