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
READERS = (
    "image_folder",
    "table",
    "coco",
    "grocery_store",
    "grozi120",
    "rp2k",
    "products10k",
    "grocery_products",
    "online_products",
    "cub200",
    "in_shop",
    "market1501",
    "msmt17",
    "veri776",
    "synthetic_products",
    "synthetic_identities",
)
PROTOCOL_KEYS = {
    "recognition": (
        "reference_sets",
        "query_split",
        "query_domain",
        "shots",
        "leave_one_out",
        "recall_at",
        "known_copies",
    ),
    "reid": ("query_split", "gallery_split", "junk", "known_copies", "image_size"),
}
REQUIRED_KEYS = ("title", "task", "reader", "licence", "source", "layout")
OPTIONAL_KEYS = ("splits", "options", "margin", "protocol", "citation", "archives", "known_issues")
QUESTION = "QUESTION:"
"""Begins what a person has still to answer in a draft card, in the front matter and in the prose."""


class CardError(ValueError):
    """A card that is missing, or that cannot be read; the message says which and what was wanted."""


@dataclass(frozen=True)
class SplitCount:
    """How many images and distinct labels a split should have; None where the card does not say."""

    images: int | None = None
    labels: int | None = None


@dataclass(frozen=True)
class Card:
    """One data card: the front matter as fields, the prose as `text`, and `fingerprint`, the sha256 of the file.

    `margin`, 0 to 1, is the share of a box's sides that is added on each side when the catalog is opened.
    """

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
    margin: float = 0.0


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
    """Every card in `data_cards/`, by name; the templates describe no set and are left out."""
    return [read_card(name) for name in _card_names()]


def _card_names() -> list[str]:
    names = sorted(path.stem for path in (find_root() / "data_cards").glob("*.md"))
    return [name for name in names if name != "README" and name.partition("_")[0] != "template"]


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


def card_options(card: Card, defaults: dict[str, Any]) -> dict[str, Any]:
    """The options of `card` for a reader that knows those in `defaults`, which stand where the card says nothing.

    Raises:
        CardError: an unknown option, one of another type than its default, or a number below 0.
    """
    try:
        check_keys(card.options, tuple(defaults), "option")
        for name, value in card.options.items():
            if type(value) is not type(defaults[name]) or (type(value) is int and value < 0):
                wanted = type(defaults[name]).__name__
                raise ValueError(f"the option {name!r} wants a value of type {wanted}, none below 0; found {value!r}.")
    except ValueError as error:
        raise card_error(card, error) from error
    return {**defaults, **card.options}


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
            names = _card_names()
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
    if not isinstance(archives, list):
        raise ValueError("'archives' is not a list of entries with 'url' and 'sha256'.")
    for archive in archives:
        _check_archive(archive)
    return {
        **{key: fields[key].strip() for key in REQUIRED_KEYS},
        "citation": str(fields.get("citation") or "").strip(),
        "known_issues": known_issues,
        "archives": archives,
        "options": _mapping(fields, "options"),
        "margin": _check_margin(fields.get("margin")),
        "splits": {name: _split_count(name, count) for name, count in _mapping(fields, "splits").items()},
        "protocol": _check_protocol(fields["task"], _mapping(fields, "protocol")),
    }


def _check_archive(archive: object) -> None:
    if not isinstance(archive, dict) or not {"url", "sha256"} <= set(archive):
        raise ValueError(f"an entry of 'archives' wants 'url' and 'sha256' (and 'folder'); found {archive!r}.")
    check_keys(archive, ("url", "sha256", "folder"), "key of an archive:")
    url, sha256, folder = archive["url"], archive["sha256"], archive.get("folder", ".")
    if not isinstance(url, str) or not re.fullmatch(r"https?://[^/\s]+/\S+", url):
        raise ValueError(f"the 'url' of an archive wants http:// or https://; found {url!r}.")
    if sha256 is not None and not (isinstance(sha256, str) and re.fullmatch(r"[0-9a-f]{64}", sha256)):
        raise ValueError(f"the 'sha256' of {url} wants 64 hex digits in small letters, or null; found {sha256!r}.")
    if not isinstance(folder, str) or folder.startswith("/") or ".." in folder.split("/"):
        raise ValueError(f"the 'folder' of {url} wants a folder inside the archive; found {folder!r}.")


def _mapping(fields: dict[str, Any], key: str) -> dict[str, Any]:
    value = fields.get(key) or {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{key!r} is not a mapping with names as keys (a name such as 'on' or '1' needs quotes).")
    return value


def _check_margin(margin: object) -> float:
    if margin is None:
        return 0.0
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 <= margin <= 1:
        raise ValueError(f"'margin' is the share of a box's sides added on each side, 0 to 1; found {margin!r}.")
    return float(margin)


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
        check_keys([protocol["junk"]], ("same_id_same_camera", "itself", "none"), "junk rule")
    left_out = protocol.get("leave_one_out", [])
    if not isinstance(left_out, list) or not all(isinstance(split, str) for split in left_out):
        raise ValueError(f"'leave_one_out' is a list of splits; found {left_out!r}.")
    counts = [protocol.get("known_copies", 0), *protocol.get("recall_at", [])]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError(f"'known_copies' and each of 'recall_at' are whole numbers; found {counts}.")
    size = protocol.get("image_size", [1, 1])
    if not isinstance(size, list) or len(size) != 2 or any(type(side) is not int or side < 1 for side in size):
        raise ValueError(f"'image_size' is the height and the width that pictures are brought to, px; found {size!r}.")
    return protocol
