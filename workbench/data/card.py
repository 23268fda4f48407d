"""Data cards: one Markdown file a data set, read by people and by the code alike.

A card is YAML front matter between two lines `---`, then prose. The code reads the front matter: which reader opens
the files, how many images and labels each split should have, and the defaults of the evaluation.
"""

import difflib
import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from workbench.runs.root import find_root

TASKS = ("recognition", "reid")
DOMAINS = ("real", "synthetic", "packshot")
READERS = ("image_folder", "grocery_store", "market1501", "synthetic_products", "synthetic_identities")
PROTOCOL_KEYS = {
    "recognition": ("reference_sets", "query_split", "query_domain", "shots"),
    "reid": ("query_split", "gallery_split", "junk"),
}
REQUIRED_KEYS = ("title", "task", "reader", "licence", "source", "layout")
OPTIONAL_KEYS = ("splits", "options", "protocol", "citation", "archives", "known_issues")


class CardError(ValueError):
    """A card that is missing, or that cannot be read; the message says which and what was wanted."""


@dataclass(frozen=True)
class SplitCount:
    """How many images and distinct labels a split should have; None where the card does not say."""

    images: int | None = None
    labels: int | None = None


@dataclass(frozen=True)
class Card:
    """One data card: the front matter as fields, the prose as `text`, and `fingerprint`, the sha256 of the file."""

    name: str
    title: str
    task: str
    reader: str
    options: dict[str, Any]
    splits: dict[str, SplitCount]
    protocol: dict[str, Any]
    licence: str
    citation: str
    source: str
    archives: list[dict[str, Any]]
    known_issues: list[str]
    layout: str
    text: str
    path: Path
    fingerprint: str


def resolve_path(text: str | Path) -> Path:
    """`text` as an absolute path: from the working folder when it is there, else from the workbench's root.

    A notebook in JupyterLab and the same notebook run headless have different working folders; a path inside the
    checkout means the same in both.
    """
    path = Path(text).expanduser()
    if path.is_absolute() or path.exists():
        return path.resolve()
    return (find_root() / path).resolve()


def read_card(name_or_path: str) -> Card:
    """The card of that name in `data_cards/`, or the card in the `.md` file at that path.

    The set's name is the file's name without `.md`.

    Raises:
        CardError: no such card, or a card whose front matter is not as described in `data_cards/template.md`.
    """
    path = _find_card(name_or_path)
    content = path.read_bytes()
    try:
        fields, text = _split_front_matter(content.decode("utf-8-sig"))
        return Card(
            name=path.stem,
            text=text,
            path=path,
            fingerprint=hashlib.sha256(content).hexdigest(),
            **_check_fields(fields),
        )
    except (ValueError, yaml.YAMLError) as error:
        raise CardError(f"The card {path} cannot be used: {error}") from error


def list_cards() -> list[Card]:
    """Every card in `data_cards/`, by name; `template.md` describes no set and is left out."""
    paths = sorted((find_root() / "data_cards").glob("*.md"))
    return [read_card(str(path)) for path in paths if path.stem not in ("template", "README")]


def check_keys(given: Collection[object], allowed: Collection[str], what: str) -> None:
    """Returns nothing; refuses a key that is not among `allowed`.

    Raises:
        ValueError: names the unknown keys, the nearest allowed one and all that are allowed.
    """
    for key in given:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), allowed, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"unknown {what} {key!r}.{hint} Allowed: {', '.join(allowed) or 'none'}.")


def card_error(card: Card, error: ValueError) -> CardError:
    """An error about the options of `card` which names its file."""
    return CardError(f"The card {card.path} cannot be used: {error}")


def _find_card(name_or_path: str) -> Path:
    name = str(name_or_path)
    if name.endswith(".md"):
        path = resolve_path(name)
        if not path.is_file():
            raise CardError(f"There is no card at {path}.")
    else:
        folder = find_root() / "data_cards"
        path = folder / f"{name}.md"
        if not re.fullmatch(r"[\w.-]+", name) or not path.is_file():
            names = sorted(card.stem for card in folder.glob("*.md") if card.stem not in ("template", "README"))
            near = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise CardError(
                f"There is no data card {name!r}.{hint} Cards there are: {', '.join(names)}. For a set of your own, "
                f"copy {folder / 'template.md'} and give the path of the copy (it ends in .md)."
            )
    if not re.fullmatch(r"[\w.-]+", path.stem):
        raise CardError(f"The card {path} names its set {path.stem!r}; use letters, digits, '_', '-' and '.' only.")
    return path


def _split_front_matter(content: str) -> tuple[dict[str, Any], str]:
    match = re.match(r"---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|$)(.*)", content, flags=re.DOTALL)
    if match is None:
        raise ValueError("it does not begin with YAML between two lines '---'.")
    fields = yaml.safe_load(match[1])
    if not isinstance(fields, dict):
        raise ValueError("its front matter is not a list of 'key: value' lines.")
    return fields, match[2].strip()


def _check_fields(fields: dict[str, Any]) -> dict[str, Any]:
    check_keys(fields, REQUIRED_KEYS + OPTIONAL_KEYS, "key")
    for key in REQUIRED_KEYS:
        if not isinstance(fields.get(key), str) or not fields[key].strip():
            raise ValueError(f"the key {key!r} is missing or is not text.")
    for key, allowed in (("task", TASKS), ("reader", READERS)):
        check_keys([fields[key]], allowed, key)
    known_issues = fields.get("known_issues") or []
    archives = fields.get("archives") or []
    if not isinstance(known_issues, list) or not all(isinstance(issue, str) for issue in known_issues):
        raise ValueError("'known_issues' is not a list of sentences.")
    if not isinstance(archives, list) or not all(
        isinstance(archive, dict) and {"url", "sha256"} <= set(archive) for archive in archives
    ):
        raise ValueError("'archives' is not a list of entries with 'url' and 'sha256'.")
    return {
        **{key: fields[key].strip() for key in REQUIRED_KEYS},
        "citation": str(fields.get("citation") or "").strip(),
        "known_issues": known_issues,
        "archives": archives,
        "options": _mapping(fields, "options"),
        "splits": {name: _split_count(name, count) for name, count in _mapping(fields, "splits").items()},
        "protocol": _check_protocol(fields["task"], _mapping(fields, "protocol")),
    }


def _mapping(fields: dict[str, Any], key: str) -> dict[str, Any]:
    value = fields.get(key) or {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{key!r} is not a mapping with names as keys (a name such as 'on' or '1' needs quotes).")
    return value


def _split_count(name: str, count: object) -> SplitCount:
    wanted = f"the split {name!r} wants 'images' and 'labels', each a whole number of at least 1 or null"
    if count is None:
        return SplitCount()
    if not isinstance(count, dict):
        raise ValueError(f"{wanted}; found {count!r}.")
    check_keys(count, ("images", "labels"), f"key of the split {name!r}:")
    for value in count.values():
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(f"{wanted}; found {value!r}.")
    return SplitCount(**count)


def _check_protocol(task: str, protocol: dict[str, Any]) -> dict[str, Any]:
    check_keys(protocol, PROTOCOL_KEYS[task], "protocol key")
    for reference_set in protocol.get("reference_sets", []):
        split, _, domain = str(reference_set).partition(":")
        if not split or domain not in DOMAINS:
            raise ValueError(f"reference set {reference_set!r} is not 'split:domain' with a domain of {DOMAINS}.")
    for shots in protocol.get("shots", []):
        if shots != "all" and (type(shots) is not int or shots < 1):
            raise ValueError(f"shots {shots!r} is neither a whole number of at least 1 nor 'all'.")
    if "query_domain" in protocol:
        check_keys([protocol["query_domain"]], DOMAINS, "query_domain")
    if "junk" in protocol:
        check_keys([protocol["junk"]], ("same_id_same_camera", "none"), "junk rule")
    return protocol
