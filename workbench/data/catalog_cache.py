"""The rows of a large set kept as parquet, so that it opens in a moment the second time and never shows what has changed.

What was read is known: `readers.listing.watched` collects every folder that was listed and every file that was read, with size and
time of change before the reading. All of them are looked at again before the kept rows are believed: a file
that comes, goes or is renamed changes its folder's time. The content of a picture is no part of a catalog.
"""

import hashlib
import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from workbench.data.card import Card
from workbench.data.readers import listing
from workbench.runs.files import write_bytes

MIN_ROWS = 20_000
"""Smaller sets are read anew each time: that takes a fraction of a second and leaves nothing to go stale."""

UNSETTLED_S = 2.0
"""A place that changed so shortly before it was read may change again within the same tick of its clock (two seconds on some file
systems); what was read from it is not kept."""

CODE = Path(__file__).parent
"""What shapes rows: readers and what they call. All of the room, so that no file can be forgotten."""

Rows = tuple[pd.DataFrame, list[str]]
_KEY = b"workbench"


def read_or_reuse(card: Card, root: Path, read: Callable[[], Rows], cache: Path) -> Rows:
    """The rows of a set and its reader's notes, from the cache when nothing that was read has changed.

    A cache that is damaged, or of another card, place or code of this room, is no error: the set is read and the cache written anew.

    Args:
        card: of the set; any change of it makes the cache another one.
        root: of the set.
        read: reads and checks the rows; called at most once.
        cache: the folder of all caches.

    Raises:
        OSError: the cache cannot be written.
    """
    path = cache / f"{card.name}-{_key(card, root)[:16]}.parquet"
    kept = _load(path)
    if kept is not None:
        return kept
    with listing.watched() as places:
        frame, notes = read()
        # An optional file or folder that was not there shows in the folder above it when it comes.
        for place in list(places):
            for above in Path(place).parents:
                if above.is_relative_to(root):
                    listing.note(above)
    if len(frame) >= MIN_ROWS and not _is_unsettled(places):
        _save(path, frame, notes, places)
    return frame, notes


def _key(card: Card, root: Path) -> str:
    code = [path.read_text(encoding="utf-8") for path in sorted(CODE.rglob("*.py"))]
    return hashlib.sha256("\0".join([card.fingerprint, str(root), *code]).encode()).hexdigest()


def _save(path: Path, frame: pd.DataFrame, notes: list[str], places: dict[str, tuple[int, int]]) -> None:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    about = json.dumps({"notes": notes, "places": {name: list(state) for name, state in places.items()}})
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: about.encode()})
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content.getvalue())


def _load(path: Path) -> Rows | None:
    """The kept rows, or None where there are none or they cannot be believed."""
    if not path.is_file():
        return None
    try:
        file = pq.ParquetFile(path)
        about = json.loads((file.schema_arrow.metadata or {})[_KEY])
        if any(listing.state_of(name) != tuple(state) for name, state in about["places"].items()):
            return None
        return file.read().to_pandas(), list(about["notes"])
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None  # a damaged cache is written anew by the reading that follows


def _is_unsettled(places: dict[str, tuple[int, int]]) -> bool:
    newest = max((changed for changed, _ in places.values()), default=0)
    return not places or newest > time.time_ns() - int(UNSETTLED_S * 1e9)
