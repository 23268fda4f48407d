"""The run folder on disk: made without collisions, its record replaced whole, its last word kept on a full disk."""

import errno
import json
import os
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workbench.runs.files import write_json

FOLDER_NAME = re.compile(r"(\d{8}T\d{6}Z)-(.+)-[0-9a-f]{8}")
_RESERVE = ".reserve"
_RESERVE_BYTES = 64 * 1024
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_FIELDS: dict[str, Any] = {
    "status": str,
    "notebook": str,
    "parameters": dict,
    "started": str,
    "pid": int,
    "process_started": float,
    "facts": dict,
    "error": dict | None,
}


def make_run_folder(outputs: Path, notebook: str) -> Path:
    """A new folder `<utc>-<notebook>-<hash>` in `outputs` with a reserve in it; no other process gets the same one.

    The reserve is 64 KiB of disk which `write_last_record` falls back on.

    Raises:
        OSError: the folder cannot be made or the disk is full; nothing is left behind.
    """
    outputs.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.-]", "-", notebook)[:80]
    while True:
        folder = outputs / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{name}-{secrets.token_hex(4)}"
        try:
            folder.mkdir()
            break
        except FileExistsError:
            continue
    try:
        make_reserve(folder)
    except OSError:
        folder.rmdir()
        raise
    return folder


def make_reserve(folder: Path) -> None:
    """Sets 64 KiB of disk aside in a run's folder.

    Raises:
        OSError: the disk is full; no reserve is left behind.
    """
    try:
        # Random bytes, so that a file system which compresses or leaves holes really sets the space aside.
        with (folder / _RESERVE).open("wb") as file:
            file.write(secrets.token_bytes(_RESERVE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        (folder / _RESERVE).unlink(missing_ok=True)
        raise


def load_record(folder: Path) -> dict[str, Any]:
    """The content of the folder's run.json as it stands.

    Raises:
        ValueError: there is none, or it cannot be read; says which.
    """
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / 'run.json'} cannot be read ({error}).") from error
    wrong = [
        name for name, kind in _FIELDS.items() if not isinstance(record, dict) or not isinstance(record.get(name), kind)
    ]
    if wrong:
        raise ValueError(
            f"{folder / 'run.json'} is not a run's record: {', '.join(wrong)} missing or of the wrong kind."
        )
    return record


def end_record(record: Mapping[str, Any], status: str, error: dict[str, Any] | None) -> dict[str, Any]:
    """The record with the given status and error, ended now; nothing is written."""
    ended = utc_now()
    seconds = (datetime.fromisoformat(ended) - datetime.fromisoformat(record["started"])).total_seconds()
    return {**record, "status": status, "error": error, "ended": ended, "seconds": round(seconds, 3)}


def utc_now() -> str:
    """The time now as ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Writes the folder's run.json atomically.

    Raises:
        OSError: the disk is full; the old record stays.
    """
    write_json(folder / "run.json", record)


def write_last_record(folder: Path, record: dict[str, Any]) -> bool:
    """Writes run.json and tells whether there was room; without room the record goes into the folder's reserve.

    The reserve's own blocks become run.json, so that not one new block is needed. Facts that would not fit into the
    reserve are left out and the record says so.

    Raises:
        OSError: any other trouble, or no room and no reserve.
    """
    try:
        write_record(folder, record)
        return True
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
    content = _as_bytes(record)
    if len(content) > _RESERVE_BYTES:
        content = _as_bytes(record | {"facts": {}, "facts_left_out": "the disk was full"})
    with (folder / _RESERVE).open("r+b") as file:
        file.write(content)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    os.replace(folder / _RESERVE, folder / "run.json")
    return False


def drop_reserve(folder: Path) -> None:
    """Gives the reserve's space back, once the run's last word is written."""
    (folder / _RESERVE).unlink(missing_ok=True)


def _as_bytes(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"


def name_place(text: str) -> str:
    """What figures call a trunk or a folder: a trunk as it is, a folder by its run, as 02_finetune_trunk-4071acb5.

    A folder that lies in no run is called by its own name, by the one above it where that is `embedder`.
    """
    path = Path(text)
    if not path.is_dir():
        return text
    run = next((above.name for above in (path, *path.parents) if FOLDER_NAME.fullmatch(above.name)), None)
    if run is not None:
        return run.partition("-")[2]
    return path.parent.name if path.name == "embedder" else path.name
