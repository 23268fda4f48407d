"""The sections of a model card, each from the record that it tells of; an empty text where nothing was measured."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from workbench.data.card import Card
from workbench.report.card_text import NOT_STATED, Protocols, facts, plain, share_cells, table
from workbench.report.style import need_columns

_ACCURACY = re.compile(r"accuracy@(\d+)/shots=(\w+)/(micro|macro)(?:/references=(.*))?", re.DOTALL)
_LIMIT = re.compile(r"((?:accuracy@1/shots=\w+/micro)|mAP|rank-1)(?:/(\w+)=([-+.\de]+))?")
_REID = ("mAP", "rank-1", "rank-5", "rank-10", "mINP")
_METRIC_HEADER = ("value", "95 % interval", "n", "protocol")
_INPUTS = {
    "float": "float32 [B, 3, height, width], normalised by the mean and std below",
    "uint8": "uint8 [B, height, width, 3], 0 to 255; normalised inside",
    "raw": "float32 [B, 3, height, width], 0 to 255; normalised inside",
}
_RESIZES = {
    "squash": "resized to the size, whatever the aspect ratio",
    "pad": "resized with its aspect ratio, filled up with the mean colour",
}
_CROPS = {  # how a picture is resized, and of what a share is then taken
    "center": ("resized by the shorter side, then the centre cut out", "the shorter side"),
    "squash": ("both sides resized, whatever the aspect ratio, then the centre cut out", "each side"),
    "border": ("resized by the longer side, filled up with the colour {fill}", "the longer side"),
}
_CROPS["rounded"] = _CROPS["center"]


def architecture(exported: Mapping[str, Any]) -> str:
    """How the embedder was built, and as what it was exported."""
    versions = ", ".join(f"{name} {number}" for name, number in exported.get("versions", {}).items())
    exported_as = {"precision": exported["precision"], "ONNX opset": exported["opset"], "exported with": versions}
    return facts({**exported["embedder"], **{name: value for name, value in exported_as.items() if value}})


def input_and_output(exported: Mapping[str, Any]) -> str:
    """What goes in and what comes out, and how a picture is prepared."""
    done = exported["preprocessing"]
    height, width = exported["image_size"]
    is_crop = done["resize"] == "crop"
    resize, cut = _CROPS[done.get("crop_mode", "rounded")] if is_crop else (_RESIZES[done["resize"]], "")
    rows = {
        "input": f"input, {_INPUTS[exported['input']]}",
        "height x width": f"{height} x {width} px, sRGB, upright",
        "resize": f"{resize.format(fill=done.get('fill'))}; {done['interpolation']}, antialiased",
        "mean, std": f"{', '.join(map(str, done['mean']))}; {', '.join(map(str, done['std']))} (of 0 to 1)",
        "output": f"embeddings, float32 [B, {exported['embedding_dim']}], "
        + ("rows of length 1" if exported["normalised"] else "not normalised: scale rows to length 1"),
        "similarity": "cosine, -1 to 1, larger is nearer",
    }
    if cut:
        rows["crop"] = f"{done['crop_share']:.4g} of {cut}"
    return facts(rows)


def data_section(cards: Sequence[Card]) -> str:
    """Each data card's title, splits, source, citation and known faults."""
    parts = []
    for card in cards:
        splits = "; ".join(
            f"{name}: {_count(split.images)} images, {_count(split.labels)} labels"
            for name, split in card.splits.items()
        )
        told = {"splits": splits, "source": card.source, "citation": card.citation, "data card": card.fingerprint}
        told |= {f"known issue {number}": issue for number, issue in enumerate(card.known_issues, 1)}
        parts.append(f"### {plain(card.title)}\n\n{facts({name: text or NOT_STATED for name, text in told.items()})}")
    return "\n\n".join(parts)


def guidelines(record: Mapping[str, Any], metrics: Mapping[str, Mapping[str, Any]], protocols: Protocols) -> str:
    """The sentences that the stress run drew from its curves, with the rule, and the clean number that they start from."""
    told = record["facts"]
    clean = next(((name, one) for name, one in metrics.items() if _is_clean(name)), None)
    if not told.get("guideline") or clean is None:
        return ""
    value, interval, n, protocol = share_cells(clean[1], protocols)
    start = f"Clean {plain(clean[0])}: {value} {interval}, n = {n}, {protocol}; the numbers under corruption are in the section on limits."
    lines = [f"- {plain(sentence)}" for sentence in told["guideline"]]
    return "\n".join([f"Rule: {plain(told.get('rule_in_words', NOT_STATED))}. {start}", "", *lines])


def recognition_table(metrics: Mapping[str, Mapping[str, Any]], protocols: Protocols) -> str:
    """Accuracy by references per class: a row a set of references, number of them, average and rank."""
    rows = []
    for name, metric in metrics.items():
        found = _ACCURACY.fullmatch(name)
        if found:
            rank, shots, average, references = found.groups()
            rows.append(
                [shots, f"@{rank}, {average}", plain(references or "first set"), *share_cells(metric, protocols)]
            )
    header = ("references per class", "accuracy", "references", *_METRIC_HEADER)
    return table(header, rows) if rows else ""


def identification_table(metrics: Mapping[str, Mapping[str, Any]], protocols: Protocols) -> str:
    """mAP, rank-1, rank-5, rank-10 and mINP, as far as they were measured."""
    rows = [[name, *share_cells(metrics[name], protocols)] for name in _REID if name in metrics]
    return table(("metric", *_METRIC_HEADER), rows) if rows else ""


def limits_table(metrics: Mapping[str, Mapping[str, Any]], protocols: Protocols) -> str:
    """The metric on clean queries, then under each corruption and severity."""
    rows = []
    for name, metric in metrics.items():
        found = _LIMIT.fullmatch(name)
        if found:
            quantity, kind, severity = found.groups()
            rows.append([plain(kind or "clean"), severity or "", quantity, *share_cells(metric, protocols)])
    return table(("queries with", "severity", "metric", *_METRIC_HEADER), rows) if rows else ""


def acceptance_section(checks: pd.DataFrame | None, protocol: str, protocols: Protocols) -> str:
    """A row a check of the export against torch, and whether all that was asked was kept."""
    if checks is None or checks.empty:
        return ""
    need_columns(checks, ("check", "value", "limit", "passed", "n", "words"), "acceptance")
    asked = checks[checks["passed"].notna()]
    num_kept = int(asked["passed"].astype(bool).sum())
    verdict = "accepted" if len(asked) and num_kept == len(asked) else "NOT accepted"
    rows = []
    for row in checks.to_dict("records"):
        passed = "not asked" if pd.isna(row["passed"]) else ("yes" if row["passed"] else "**no**")
        value = "not defined" if pd.isna(row["value"]) else f"{row['value']:.7g}"
        limit = plain(row["limit"]) or "none"
        sample = "0" if pd.isna(row["value"]) and row["n"] == 0 else _sample(row["n"])
        rows.append([plain(row["check"]), value, limit, passed, sample, plain(row["words"])])
    header = ("check", "value", "limit", "kept", "n", "what it says")
    return (
        f"{num_kept} of {len(asked)} limits kept: {verdict}. {protocols.cite(protocol)}.\n\n{table(header, rows)}\n\n"
        "Values of single images have no interval; changes of accuracy have theirs in words."
    )


def speed_table(speed: pd.DataFrame | None, protocol: str, protocols: Protocols) -> str:
    """Images/s and latency by device, runtime, precision and batch, with the ratio to torch eager and its range."""
    if speed is None or speed.empty:
        return ""
    numbers = ("images_per_s", "p50_ms", "p90_ms", "p99_ms", "speedup", "speedup_low", "speedup_high", "num_calls")
    need_columns(speed, ("device", "runtime", "precision", "transfers", "batch", *numbers, "note"), "speed")
    rows = []
    for row in speed.to_dict("records"):
        what = [plain(row[name]) for name in ("device", "runtime", "precision", "batch")]
        what[1] += f", {plain(row['transfers'])} transfers" if row["transfers"] else ""
        if pd.isna(row["images_per_s"]):
            rows.append([*what, "not measured", "", "", "", plain(row["note"])])
            continue
        latency = " / ".join(f"{row[name]:.2f}" for name in numbers[1:4])
        ratio = f"{row['speedup']:.2f} \\[{row['speedup_low']:.2f}, {row['speedup_high']:.2f}\\]"
        ratio = "not defined" if pd.isna(row["speedup"]) else ratio
        rows.append(
            [*what, f"{row['images_per_s']:,.1f}", latency, ratio, _sample(row["num_calls"]), plain(row["note"])]
        )
    header = (
        "device",
        "runtime",
        "precision",
        "batch",
        "images/s",
        "p50 / p90 / p99 (ms)",
        "ratio \\[range\\]",
        "n",
        "note",
    )
    said = "n is the number of calls; the ratio is to torch eager in the same round, with its range over rounds."
    return f"{said} {protocols.cite(protocol)}.\n\n{table(header, rows)}"


def gallery_section(manifest: Mapping[str, Any] | None, protocols: Protocols) -> str:
    """How many references and labels go along, and what was measured on them."""
    if manifest is None:
        return "No gallery goes along."
    text = f"{manifest['num_references']:,} references of {manifest['num_labels']:,} labels, version {manifest['version']}."
    measured = (manifest.get("about") or {}).get("measured")
    if not measured:
        return f"{text} Nothing was measured on it. This measures it:\n\n    python -m workbench gallery measure GALLERY --embedder FOLDER"
    if measured["version"] != manifest["version"]:
        text += f" Measured at version {measured['version']}: measure again."
    rows = (
        [["right at the first answer", "", *share_cells(measured["accuracy"], protocols)]]
        if measured["accuracy"]
        else []
    )
    for row in measured["false_accepts"]:
        threshold = f"{row['threshold']:.6f}"
        rows.append(["unknown but accepted", threshold, *share_cells(row["false_accepts"], protocols)])
        if row["right_accepted"]:
            rows.append(["known and accepted right", threshold, *share_cells(row["right_accepted"], protocols)])
    not_known = "".join(f"\n\nNot known: {plain(sentence)}" for sentence in measured["not_known"])
    told = f"\n\n{table(('answers', 'threshold', *_METRIC_HEADER), rows)}" if rows else ""
    return text + told + not_known


def prose_of(card: Card, heading: str) -> str:
    """The text under a heading of the data card's prose; empty where there is none."""
    found = re.search(rf"^## {re.escape(heading)}\s*\n(.*?)(?=^## |\Z)", card.text, re.DOTALL | re.MULTILINE)
    return found[1].strip() if found else ""


def _is_clean(name: str) -> bool:
    found = _LIMIT.fullmatch(name)
    return found is not None and found[2] is None


def _count(number: int | None) -> str:
    return "any number of" if number is None else f"{number:,}"


def _sample(number: Any) -> str:
    if pd.isna(number) or int(number) < 1:
        raise ValueError(f"A number of the card rests on n of at least 1, found n = {number!r}.")
    return f"{int(number):,}"
