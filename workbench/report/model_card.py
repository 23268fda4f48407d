"""The model card that goes along with an exported embedder: what it is, and what was measured, by whom read from where.

Every number is a record of a run, with its interval, n and protocol; what was not measured is said to be so.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.data.card import Card, read_card
from workbench.report.card_sections import (
    acceptance_section,
    architecture,
    data_section,
    gallery_section,
    guidelines,
    identification_table,
    input_and_output,
    limits_table,
    prose_of,
    recognition_table,
    speed_table,
)
from workbench.report.card_text import NOT_STATED, Protocols, facts, not_measured, paragraphs, plain
from workbench.runs.metrics import read_metrics
from workbench.runs.record import read_record

_KINDS = {
    "02_finetune_trunk": "training",
    "03_evaluate_few_shot": "recognition",
    "04_evaluate_reid": "reid",
    "05_stress_limits": "stress",
}


@dataclass(frozen=True)
class Measured:
    """A run that ended well: the name of its folder, its record (run.json) and its metrics (metrics.json)."""

    name: str
    record: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]


def read_measured(folder: Path) -> Measured:
    """The run in this folder, for a card.

    Raises:
        ValueError: the run did not end well (failed, lost, still running), or its files cannot be read.
    """
    record = read_record(folder)
    if record["status"] != "ok":
        raise ValueError(
            f"The run {folder.name} is {record['status']}; a card takes its numbers from runs that are ok."
        )
    return Measured(folder.name, record, read_metrics(folder))


def measured_by_kind(folders: str) -> dict[str, Measured]:
    """The runs in these folders by the name that `model_card` gives each: training, recognition, reid, stress.

    Args:
        folders: run folders with commas; "" is none.

    Raises:
        FileNotFoundError: no such run.
        ValueError: a run that is not ok, of another notebook, or a second one of the same kind.
    """
    found: dict[str, Measured] = {}
    for text in filter(None, (one.strip() for one in folders.split(","))):
        run = read_measured(Path(text))
        kind = _KINDS.get(str(run.record["notebook"]))
        if kind is None or kind in found:
            taken = f"{found[kind].name} is there already" if kind else f"a card takes {', '.join(_KINDS)}"
            raise ValueError(f"{run.name} is a run of {run.record['notebook']}: {taken}.")
        found[kind] = run
    return found


def named_cards(names: str) -> list[Card]:
    """The data cards that a notebook's parameter names, joined with +, each a name or the path of a card; "" is none.

    Raises:
        CardError: no such card, or one that cannot be read.
    """
    return [read_card(name) for name in filter(None, (one.strip() for one in names.split("+")))]


def model_card(
    title: str,
    exported: Mapping[str, Any],
    *,
    recognition: Measured | None = None,
    reid: Measured | None = None,
    stress: Measured | None = None,
    training: Measured | None = None,
    trained_on: Sequence[Card] = (),
    measured_on: Sequence[Card] = (),
    acceptance: pd.DataFrame | None = None,
    acceptance_protocol: str = "",
    speed: pd.DataFrame | None = None,
    speed_protocol: str = "",
    gallery: Mapping[str, Any] | None = None,
    fingerprints: Collection[str] = (),
    weights_licence: str = "",
    intended_use: str = "",
    ethics: str = "",
) -> str:
    """The card as Markdown; text from outside (names, licences, prose) stands in it as plain text.

    Args:
        title: of the card.
        exported: what export.json says (`export.folder.read_described`).
        recognition, reid, stress, training: runs of notebooks 03, 04, 05 and 02, see `read_measured`.
        trained_on, measured_on: data cards; of the data the embedder has learned from, and of those it was measured on.
        acceptance: a row a check, as `export.acceptance.Acceptance.table` gives: check, value, limit, passed, n, words.
        acceptance_protocol: how those were measured.
        speed: a row a runtime and batch: device, runtime, precision, batch, images_per_s, p50_ms, p90_ms, p99_ms, speedup,
            speedup_low, speedup_high, num_calls, note (`benchmarks.serving`).
        speed_protocol: how those were measured.
        gallery: the manifest.json of the gallery that goes along.
        fingerprints: under which the exported file was measured, as its runtimes give them; those runs count too.
        weights_licence, intended_use, ethics: prose.

    Raises:
        ValueError: a run that measured another embedder or does not say which, a number without n or protocol, or a table
            that lacks a column.
    """
    known = {exported["embedder_fingerprint"], *fingerprints}
    for run in (recognition, reid, stress):
        if run is not None:
            _check_embedder(run, known)
    protocols = Protocols()
    evaluate, identify = (_command(name) for name in ("03_evaluate_few_shot", "04_evaluate_reid"))
    limits, train = _command("05_stress_limits"), "python -m workbench run 02_finetune_trunk -p data=CARD"
    sections = {
        "Overview": _overview(exported, recognition, reid),
        "Architecture": architecture(exported),
        "Input and output": input_and_output(exported),
        "Training data": _training(trained_on, training, train),
        "Reference and query guidelines": (stress and guidelines(stress.record, stress.metrics, protocols))
        or not_measured(limits),
        "Data measured on": data_section(measured_on) or NOT_STATED,
        "Accuracy by references per class": _from(recognition, recognition_table, protocols) or not_measured(evaluate),
        "Re-identification": _from(reid, identification_table, protocols) or not_measured(identify),
        "Acceptance of the export": acceptance_section(acceptance, acceptance_protocol, protocols)
        or not_measured("python -m workbench run 06_export_tensorrt -p embedder=FOLDER"),
        "Speed": speed_table(speed, speed_protocol, protocols)
        or not_measured("python -m workbench run 06_export_tensorrt -p embedder=FOLDER"),
        "Measured limits": _from(stress, limits_table, protocols) or not_measured(limits),
        "Gallery": gallery_section(gallery, protocols),
        "Intended use": paragraphs(intended_use),
        "Ethical considerations": _ethics(ethics, [*trained_on, *measured_on]),
        "Licence": _licences(weights_licence, [*trained_on, *measured_on]),
        "Protocols": "\n".join(f"- {name}: {plain(line)}" for line, name in protocols.lines.items())
        or "No number above.",
        "Weights": facts(
            {
                "SHA-256 of the weights": exported.get("weights_sha256", NOT_STATED),
                "fingerprint of the embedder": exported["embedder_fingerprint"],
                **{f"SHA-256 of {name}": one["sha256"] for name, one in exported["files"].items()},
            }
        ),
    }
    body = "\n\n".join(f"## {name}\n\n{text}" for name, text in sections.items())
    return f"# {plain(title)}\n\n{body}\n"


def _command(notebook: str) -> str:
    return f"python -m workbench run {notebook} -p data=CARD -p embedder=FOLDER"


def _from(run: Measured | None, make: Any, protocols: Protocols) -> str:
    if run is None:
        return ""
    told = make(run.metrics, protocols)
    return (
        f"{told}\n\nFrom the run {plain(run.name)} on {plain(run.record['facts'].get('data', NOT_STATED))}."
        if told
        else ""
    )


def _check_embedder(run: Measured, known: Collection[str]) -> None:
    told = run.record["facts"]
    found = told.get("embedding", {}).get("embedder") or next(iter(told.get("fingerprints", {}).values()), None)
    if found is None:
        raise ValueError(f"The run {run.name} does not say which embedder it measured; run its notebook again.")
    if found not in known:
        raise ValueError(
            f"The run {run.name} measured another embedder (fingerprint {found[:12]}) than the card's "
            f"({', '.join(sorted(one[:12] for one in known))}): its numbers do not belong here."
        )


def _overview(exported: Mapping[str, Any], recognition: Measured | None, reid: Measured | None) -> str:
    tasks = [
        *(["recognition of products by a few reference pictures"] if recognition else []),
        *(["re-identification across cameras"] if reid else []),
    ]
    told = (
        f"Measured for {' and '.join(tasks)}." if tasks else "Neither recognition nor re-identification was measured."
    )
    return (
        f"An embedder: from a picture to a vector of {exported['embedding_dim']:,} numbers, near to those of pictures of the "
        f"same thing. It names nothing by itself; a gallery of reference pictures does. {told}"
    )


def _training(cards: Sequence[Card], run: Measured | None, command: str) -> str:
    told = data_section(cards) or f"{NOT_STATED.capitalize()}: no data card of training data was given."
    if run is None:
        return f"{told}\n\nNo run of training was given. This trains, and keeps what it did:\n\n    {command}"
    parameters = facts(run.record["parameters"])
    return f"{told}\n\nTrained in the run {plain(run.name)}:\n\n{parameters}"


def _ethics(ethics: str, cards: Sequence[Card]) -> str:
    parts = [paragraphs(ethics)] if ethics.strip() else []
    for card in {card.name: card for card in cards}.values():
        for heading in ("Sensitive content", "What it must not be used for"):
            told = prose_of(card, heading)
            if told:
                parts.append(f"**{plain(card.title)}, {heading.lower()}.** {paragraphs(told)}")
    return "\n\n".join(parts) or NOT_STATED


def _licences(weights: str, cards: Sequence[Card]) -> str:
    return facts({"weights": weights.strip() or NOT_STATED, **{f"data: {card.title}": card.licence for card in cards}})
