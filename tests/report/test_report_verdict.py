from typing import Any

import pytest

from workbench.report.verdict import judge_headline


def _metric(value: float | None, low: float | None, high: float | None, protocol: str = "p") -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": 9, "protocol": protocol}


def _one(metrics: dict[str, dict[str, Any]], protocol: str = "") -> tuple[str, str]:
    (verdict,) = judge_headline(metrics, protocol)
    return verdict.outcome, verdict.sentence


@pytest.mark.parametrize(
    ("low", "high", "outcome", "sentence"),
    [
        (0.4, 0.6, "above", "Above chance: mAP is 50.0 % [40.0, 60.0], chance 10.0 %; its whole interval lies above it."),
        (0.1, 0.6, "open", "Not told apart from chance: mAP is 50.0 % [10.0, 60.0], chance 10.0 %; its interval holds chance."),
        (0.0, 0.05, "below", "Below chance: mAP is 50.0 % [0.0, 5.0], chance 10.0 %; its whole interval lies below it."),
    ],
)  # fmt: skip
def test_chance_is_one_number_and_the_whole_interval_must_pass_it(
    low: float, high: float, outcome: str, sentence: str
) -> None:
    found = {"mAP": _metric(0.5, low, high), "chance/mAP": _metric(0.1, 0.1, 0.1)}
    assert _one(found) == (outcome, sentence)


@pytest.mark.parametrize(
    ("low", "high", "outcome", "words"),
    [
        (0.1, 0.39, "above", "Above the colour histogram"),
        (0.1, 0.4, "open", "Not told apart from the colour histogram"),  # they only touch
        (0.6, 0.9, "open", "Not told apart from the colour histogram"),
        (0.61, 0.9, "below", "Below the colour histogram"),
    ],
)
def test_baselines_are_told_apart_where_the_intervals_do_not_overlap(
    low: float, high: float, outcome: str, words: str
) -> None:
    found = {"mAP": _metric(0.5, 0.4, 0.6), "colour_histogram/mAP": _metric(0.3, low, high)}
    said = "overlap" if outcome == "open" else "do not overlap"
    assert _one(found) == (
        outcome,
        f"{words}: mAP is 50.0 % [40.0, 60.0] against 30.0 % [{100 * low:.1f}, {100 * high:.1f}]; the intervals {said}.",
    )


def test_a_paired_difference_decides_where_there_is_one() -> None:
    found = {
        "a": _metric(0.5, 0.4, 0.6),
        "untuned/a": _metric(0.45, 0.35, 0.55),
        "difference/a": _metric(0.05, 0.01, 0.09),
    }
    outcome, sentence = _one(found)
    assert outcome == "above"  # though the intervals overlap
    assert sentence == (
        "Above the untuned embedder: a is 50.0 % [40.0, 60.0] against 45.0 % [35.0, 55.0]; "
        "the paired difference is +5.0 points [+1.0, +9.0], zero lies outside."
    )
    assert _one(found | {"difference/a": _metric(0.05, -0.01, 0.11)})[0] == "open"
    assert _one(found | {"difference/a": _metric(-0.05, -0.11, -0.01)})[0] == "below"
    assert _one(found | {"difference/a": _metric(0.05, 0.0, 0.1)})[0] == "open"
    undefined = found | {"difference/a": _metric(None, None, None)}
    assert _one(undefined)[1].endswith("the intervals overlap.")


def test_a_doubt_stands_beside_its_interval() -> None:
    found = {"a": _metric(0.5, 0.4, 0.6) | {"doubt": "few"}, "chance/a": _metric(0.1, 0.1, 0.1)}
    assert "a is 50.0 % [40.0, 60.0] (not to be relied on: few), chance 10.0 %" in _one(found)[1]
    found = {"a": _metric(0.5, 0.4, 0.6), "untuned/a": _metric(0.4, 0.3, 0.5)}
    found["difference/a"] = _metric(0.1, 0.05, 0.15) | {"doubt": "few"}
    assert "+10.0 points [+5.0, +15.0] (not to be relied on: few), zero lies outside" in _one(found)[1]


def test_what_is_no_share_is_told_as_it_is() -> None:
    found = {"ms": _metric(12.5, 11.0, 14.0), "untuned/ms": _metric(20.25, 19.0, 21.0)}
    assert _one(found) == (
        "below",
        "Below the untuned embedder: ms is 12.5 [11, 14] against 20.25 [19, 21]; the intervals do not overlap.",
    )


def test_headline_is_the_first_metric_of_its_protocol() -> None:
    found = {
        "one": _metric(0.5, 0.4, 0.6, "1 shot"),
        "five": _metric(0.9, 0.8, 0.95, "5 shots"),
        "chance/one": _metric(0.1, 0.1, 0.1, "1 shot"),
        "chance/five": _metric(0.2, 0.2, 0.2, "5 shots"),
    }
    assert "five is 90.0 %" in _one(found, "5 shots")[1]
    assert "one is 50.0 %" in _one(found, "of nothing here")[1]
    assert "one is 50.0 %" in _one(found)[1]


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"a": _metric(0.5, 0.4, 0.6)},
        {"a": _metric(0.5, None, None), "chance/a": _metric(0.1, 0.1, 0.1)},
        {"a": _metric(0.5, 0.4, 0.6), "chance/a": _metric(None, None, None)},
        {"a": _metric(0.5, 0.4, 0.6), "colour_histogram/a": _metric(0.4, None, None)},
        {"a": _metric(0.5, 0.4, 0.6), "chance/b": _metric(0.1, 0.1, 0.1)},
    ],
)
def test_nothing_is_said_without_a_number_to_say_it_with(found: dict[str, dict[str, Any]]) -> None:
    assert judge_headline(found) == []


def test_chance_comes_first_then_the_baselines() -> None:
    found = {"a": _metric(0.5, 0.4, 0.6)} | {
        f"{prefix}/a": _metric(0.1, 0.1, 0.1) for prefix in ("untuned", "colour_histogram", "chance")
    }
    starts = [verdict.sentence.split(":")[0] for verdict in judge_headline(found)]
    assert starts == ["Above chance", "Above the colour histogram", "Above the untuned embedder"]
