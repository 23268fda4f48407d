"""What a headline number is worth: held against chance, the colour histogram and the untuned embedder, in sentences."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["above", "below", "open"]

_CHANCE = "chance"
# What a notebook logs beside its headline, under `<prefix>/<name of the headline>`.
_REFERENCES = {_CHANCE: "chance", "colour_histogram": "the colour histogram", "untuned": "the untuned embedder"}
_DIFFERENCE = {"untuned": "difference"}
_START = {"above": "Above", "below": "Below", "open": "Not told apart from"}


@dataclass(frozen=True)
class Verdict:
    """The headline held against one reference.

    Attributes:
        outcome: above or below it, or open: the intervals do not tell them apart.
        sentence: the outcome with both numbers and the reason.
    """

    outcome: Outcome
    sentence: str


def judge_headline(metrics: Mapping[str, Mapping[str, Any]], protocol: str = "") -> list[Verdict]:
    """One verdict for each of chance, colour histogram and untuned embedder that was measured beside the headline.

    Chance is one number: the headline is above it where its whole interval is. Against a baseline the paired difference
    decides where the run logged one, and else whether the two intervals overlap; intervals that only touch overlap.
    "Above" says larger, which is better for the metrics that have such references. A reference without a number
    (not defined) gives no verdict, a baseline without an interval none either.

    Args:
        metrics: as metrics.json has them, by name, each with value, low, high (None where not defined) and n.
        protocol: of the headline; the headline is the first metric measured under it, or, where there is none, the
            first of all.

    Returns:
        Nothing where no metric was logged, or the headline has no interval or no such reference.
    """
    same = [name for name, metric in metrics.items() if protocol and metric["protocol"] == protocol]
    name = next(iter([*same, *metrics]), "")
    if not name or None in (metrics[name]["value"], metrics[name]["low"], metrics[name]["high"]):
        return []
    verdicts = []
    for prefix, words in _REFERENCES.items():
        reference = metrics.get(f"{prefix}/{name}")
        if reference is None or reference["value"] is None:
            continue
        if prefix == _CHANCE:
            verdicts.append(_against_chance(name, metrics[name], reference["value"]))
            continue
        difference = metrics.get(f"{_DIFFERENCE[prefix]}/{name}") if prefix in _DIFFERENCE else None
        if difference is not None and None not in (difference["value"], difference["low"], difference["high"]):
            verdicts.append(_by_difference(name, metrics[name], reference, difference, words))
        elif None not in (reference["low"], reference["high"]):
            verdicts.append(_by_overlap(name, metrics[name], reference, words))
    return verdicts


def _against_chance(name: str, found: Mapping[str, Any], chance: float) -> Verdict:
    outcome = _side(found["low"] - chance, found["high"] - chance)
    reason = "its interval holds chance" if outcome == "open" else f"its whole interval lies {outcome} it"
    share = _is_share(found)
    return Verdict(
        outcome, f"{_START[outcome]} chance: {name} is {_told(found)}, chance {_number(chance, share)}; {reason}."
    )


def _by_difference(
    name: str, found: Mapping[str, Any], reference: Mapping[str, Any], difference: Mapping[str, Any], words: str
) -> Verdict:
    outcome = _side(difference["low"], difference["high"])
    factor, unit, digits = (100, " points", ".1f") if _is_share(found) else (1, "", ".4g")
    value, low, high = (format(factor * difference[key], f"+{digits}") for key in ("value", "low", "high"))
    reason = "zero lies within" if outcome == "open" else "zero lies outside"
    return Verdict(
        outcome,
        f"{_START[outcome]} {words}: {name} is {_told(found)} against {_told(reference)}; the paired difference is "
        f"{value}{unit} [{low}, {high}]{_doubt(difference)}, {reason}.",
    )


def _by_overlap(name: str, found: Mapping[str, Any], reference: Mapping[str, Any], words: str) -> Verdict:
    outcome = _side(found["low"] - reference["high"], found["high"] - reference["low"])
    reason = "overlap" if outcome == "open" else "do not overlap"
    return Verdict(
        outcome,
        f"{_START[outcome]} {words}: {name} is {_told(found)} against {_told(reference)}; the intervals {reason}.",
    )


def _side(lowest: float, highest: float) -> Outcome:
    """Where a difference lies that is known to be between the two."""
    return "above" if lowest > 0 else "below" if highest < 0 else "open"


def _told(metric: Mapping[str, Any]) -> str:
    share = _is_share(metric)
    low, high = (_number(metric[key], share).removesuffix(" %") for key in ("low", "high"))
    return f"{_number(metric['value'], share)} [{low}, {high}]{_doubt(metric)}"


def _doubt(metric: Mapping[str, Any]) -> str:
    return f" (not to be relied on: {metric['doubt']})" if metric.get("doubt") else ""


def _is_share(metric: Mapping[str, Any]) -> bool:
    return all(0 <= metric[key] <= 1 for key in ("value", "low", "high"))


def _number(value: float, share: bool) -> str:
    return f"{100 * value:.1f} %" if share else f"{value:.4g}"
