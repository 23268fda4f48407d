"""One file over HTTP, resumed where an earlier try broke off.

pooch, which keeps the file and checks its sum, downloads in one go; this is the downloader it is given. What has come lies
in `<file>.part`, what is known of it in `<file>.part.json`. It is continued (HTTP `Range` with `If-Range`) only while
the server names the same file: an ETag or a date of change; else it begins anew.
Source: RFC 9110, sections 13.1.5 (If-Range), 14.2 (Range), 14.4 (Content-Range).
"""

import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import IO, Any

from workbench.runs.files import write_json

CHUNK_BYTES = 1 << 20
SPARE_DISK_BYTES = 256 << 20
MAX_IDLE_TRIES = 4
"""Tries in a row that bring nothing new before it is given up."""

Say = Callable[[str], None]


class FetchError(OSError):
    """A file that could not be had; the message says why and what to do."""


class _Broken(Exception):
    """A try that ended early; another may bring the rest."""


def download(
    url: str, path: Path, say: Say, timeout_s: float = 30.0, wait_s: float = 2.0, tell_every_s: float = 5.0
) -> None:
    """Returns nothing; the file at `url` is at `path` when it returns, whole by the server's own account of its size.

    Its content is not checked. A server that states no size and closes the connection early cannot be found out here.

    Args:
        url: http or https.
        path: where to put it; its folder is there. `<path>.part` and `<path>.part.json` beside it are used and removed.
        say: is told in whole lines how far it is, and when it continues or begins anew.
        timeout_s: how long the server may be silent.
        wait_s: pause after a try that broke off; it doubles while nothing new comes.
        tell_every_s: seconds between two lines.

    Raises:
        FetchError: the server refuses (404 and the like); its answers contradict each other; it breaks off again and
            again; the disk is too full. What has come stays for the next call.
    """
    part = Path(f"{path}.part")
    furthest = part.stat().st_size if part.is_file() else 0
    idle_tries = 0
    while True:
        try:
            _try_once(url, part, say, timeout_s, tell_every_s)
            os.replace(part, path)
            _state_file(part).unlink(missing_ok=True)
            return
        except (_Broken, TimeoutError, ConnectionError, http.client.HTTPException, urllib.error.URLError) as error:
            reached = part.stat().st_size if part.is_file() else 0
            idle_tries = 0 if reached > furthest else idle_tries + 1
            furthest = max(furthest, reached)
            reason = _reason(error, timeout_s)
            if idle_tries >= MAX_IDLE_TRIES:
                raise FetchError(
                    f"{url}: {reason}; {idle_tries} tries brought nothing new. {reached} bytes are kept in {part}: the same "
                    "command goes on from there."
                ) from error
            say(f"{reason}; trying again")
            time.sleep(min(wait_s * 2**idle_tries, 60.0))


def _try_once(url: str, part: Path, say: Say, timeout_s: float, tell_every_s: float) -> None:
    state = _read_state(part, url)
    num_bytes = part.stat().st_size if state else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": "workbench (python-urllib)"}
    if state and num_bytes:
        headers |= {"Range": f"bytes={num_bytes}-", "If-Range": state["validator"]}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        _judge_refusal(error, url, part, state, num_bytes)
        return
    with response:
        if url.startswith("https:") and not response.url.startswith("https:"):
            raise FetchError(f"{url} leads to {response.url}, which is not encrypted. It is not followed.")
        if response.status == 206:
            total: int | None = _check_continuation(response.headers, url, part, state, num_bytes)
            say(f"continuing after {_mib(num_bytes)}")
        else:
            if num_bytes:
                say("the server does not continue, or the file has changed: from the beginning")
            total = _stated_size(response.headers)
            num_bytes = 0
            part.unlink(missing_ok=True)
            write_json(_state_file(part), {"url": url, "total": total, "validator": _validator(response.headers)})
        _check_disk(part, (total or 0) - num_bytes)
        with part.open("ab") as out:
            num_bytes = _copy(response, out, part, num_bytes, total, say, tell_every_s)
    if total is not None and num_bytes < total:
        raise _Broken(f"broken off after {num_bytes} of {total} bytes")


def _copy(
    response: IO[bytes], out: IO[bytes], part: Path, num_bytes: int, total: int | None, say: Say, tell_every_s: float
) -> int:
    """`num_bytes` with what was read added to it."""
    began, started_with, told = time.monotonic(), num_bytes, time.monotonic()
    broken: http.client.IncompleteRead | None = None
    while broken is None:
        try:
            chunk = response.read(CHUNK_BYTES)
        except http.client.IncompleteRead as error:
            chunk, broken = error.partial, error
        if not chunk:
            break
        _check_disk(part, len(chunk))
        out.write(chunk)
        num_bytes += len(chunk)
        now = time.monotonic()
        if now - told >= tell_every_s:
            rate = (num_bytes - started_with) / (now - began) / (1 << 20)
            say(f"{_mib(num_bytes)} of {_mib(total) if total else 'an unstated size'}, {rate:.1f} MiB/s")
            told = now
    if broken is not None:
        raise broken
    return num_bytes


def _check_continuation(headers: Message, url: str, part: Path, state: dict[str, Any], num_bytes: int) -> int:
    """The size of the whole file, when the answer continues the part; the part is dropped when it does not."""
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", (headers.get("Content-Range") or "").strip())
    total = int(found[3]) if found else 0
    known = state.get("total")
    same = _validator(headers) in (None, state["validator"])
    length = _stated_size(headers)
    fits = found is not None and int(found[1]) == num_bytes and int(found[2]) == total - 1
    if not fits or not same or known not in (None, total) or length not in (None, total - num_bytes):
        _drop(part)
        raise _Broken(
            f"the server continued another file or another place (Content-Range {headers.get('Content-Range')!r} after "
            f"{num_bytes} of {known} bytes)"
        )
    return total


def _judge_refusal(error: urllib.error.HTTPError, url: str, part: Path, state: dict[str, Any], num_bytes: int) -> None:
    """Returns nothing when the part is the whole file; else says what the refusal means."""
    if error.code == 416 and state:
        if state.get("total") == num_bytes:
            return
        _drop(part)
        raise FetchError(
            f"{url}: the server says the file has {state.get('total') or 'no stated number of'} bytes and has none after "
            f"{num_bytes}. Ask whoever keeps the server; the next try begins anew."
        ) from error
    if error.code >= 500 or error.code in (408, 425, 429):
        raise _Broken(f"the server answered {error.code} {error.reason}") from error
    meaning = {
        401: "it wants a password: this file is not given out freely",
        403: "it may not be fetched from here",
        404: "there is no such file: the card's address is out of date",
        410: "it has been withdrawn",
    }.get(error.code, "it cannot be had")
    raise FetchError(f"{url}: the server answered {error.code} {error.reason}; {meaning}.") from error


def _read_state(part: Path, url: str) -> dict[str, Any]:
    """What is known of the part, when it can be continued; else nothing, and the part is dropped."""
    try:
        state = json.loads(_state_file(part).read_text(encoding="utf-8"))
        if part.is_file() and state["url"] == url and state["validator"]:
            return dict(state)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    _drop(part)
    return {}


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state_file(part).unlink(missing_ok=True)


def _state_file(part: Path) -> Path:
    return Path(f"{part}.json")


def _validator(headers: Message) -> str | None:
    """What names this very content: a strong ETag, else the date of change."""
    etag = (headers.get("ETag") or "").strip()
    return etag if etag.startswith('"') else headers.get("Last-Modified")


def _stated_size(headers: Message) -> int | None:
    length = (headers.get("Content-Length") or "").strip()
    return int(length) if length.isdigit() else None


def _check_disk(part: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if num_bytes + SPARE_DISK_BYTES > free:
        raise FetchError(
            f"{part.parent}: {_mib(num_bytes)} more are wanted, and {_mib(SPARE_DISK_BYTES)} must stay free; "
            f"there are {_mib(free)}. Make room, or give another folder (--to)."
        )


def _reason(error: Exception, timeout_s: float) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"the server was silent for {timeout_s:g} s"
    if isinstance(cause, http.client.IncompleteRead):
        return "the connection broke off"
    return str(cause) or type(cause).__name__


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 20):.1f} MiB"
