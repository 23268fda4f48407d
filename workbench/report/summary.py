"""The summary at the top of a report: the notebook's answer box, completed from the run's record."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bs4 import BeautifulSoup, Tag

from workbench.report.verdict import Verdict, judge_headline

ANSWER_BOX = "section.wb-answer"
_MOVED = '<p class="moved"><a href="#summary">The answer stands at the top of this report.</a></p>'
_MODEL_TERMS = {"embedder", "embedders", "model", "trunk"}
_FIRST_TERMS = ("data", "model", "embedder", "embedders", "cost")


@dataclass(frozen=True)
class Summary:
    """What `pictures.summary_box` was given: plain texts, the details as pairs of term and value in their order."""

    question: str
    answer: str
    protocol: str
    details: tuple[tuple[str, str], ...] = ()


def lift_answer(soup: BeautifulSoup) -> Summary | None:
    """The texts of the last answer box in `soup`, where a link to the top of the report takes its place.

    `None`, and `soup` as it was, where there is no such box.
    """
    boxes = soup.select(ANSWER_BOX)
    if not boxes:
        return None
    box = boxes[-1]
    terms, values = ([_text(one) for one in box.select(f"dl > {kind}")] for kind in ("dt", "dd"))
    question, answer, protocol = (_text(box.select_one(f".wb-{part}")) for part in ("question", "big", "protocol"))
    box.replace_with(BeautifulSoup(_MOVED, "html.parser"))
    return Summary(question, answer, protocol, tuple(zip(terms, values, strict=False)))


def complete_summary(
    summary: Summary | None, record: Mapping[str, Any], metrics: Mapping[str, Mapping[str, Any]], took: str
) -> dict[str, Any] | None:
    """What the top of the page prints: question, answer, protocol, details, verdicts; `None` when nothing is known.

    Details begin with data, model and cost; those that the box has not are read from the record. Verdicts hold the
    headline against chance and baselines, as far as `metrics` has them.

    Args:
        summary: the box of the notebook; a run that did not come to its end has none.
        record: the run's record, all of it optional.
        metrics: as metrics.json has them.
        took: the duration of the whole run in words; empty when it is not known.
    """
    told = dict(summary.details) if summary else {}
    details = _known(record, told.keys(), took) | told
    if summary is None and not details:
        return None
    verdicts: list[Verdict] = judge_headline(metrics, summary.protocol) if summary else []
    order = {term: place for place, term in enumerate(_FIRST_TERMS)}
    return {
        "question": summary.question if summary else "",
        "answer": summary.answer if summary else "",
        "protocol": summary.protocol if summary else "",
        "verdicts": verdicts,
        "details": sorted(details.items(), key=lambda row: order.get(row[0], len(order))),
    }


def _known(record: Mapping[str, Any], told: Any, took: str) -> dict[str, str]:
    """Data, model and cost as the record knows them, without those that were told already."""
    parameters, facts = record.get("parameters") or {}, record.get("facts") or {}
    found: dict[str, str] = {}
    if data := parameters.get("data") or facts.get("data"):
        catalog = facts.get("catalog")
        found["data"] = f"{data} (catalog {catalog[:12]})" if isinstance(catalog, str) and catalog else str(data)
    if model := _model(parameters, facts, told):
        found["model"] = model
    if took:
        device = record.get("device")
        found["cost"] = f"{took} for the whole run" + (f", device {device}" if device else "")
    return {term: value for term, value in found.items() if term not in told}


def _model(parameters: Mapping[str, Any], facts: Mapping[str, Any], told: Any) -> str:
    for known in (facts.get("described"), facts.get("embedding")):
        if isinstance(known, Mapping) and isinstance(known.get("trunk"), str):
            dim = known.get("embedding_dim")
            return known["trunk"] + (f", embeddings of {dim} numbers" if dim else "")
    name = parameters.get("embedder") or parameters.get("trunk")
    if not name or _MODEL_TERMS & set(told):
        return ""
    untrained = parameters.get("trunk_weights") == "random" and ":" in str(name)
    return f"{name}, {'untrained' if untrained else 'trained'}"


def _text(element: Tag | None) -> str:
    return " ".join(element.get_text(" ").split()) if element is not None else ""
