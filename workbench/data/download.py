"""Fetching a data set that may be had freely, and saying how to come by the others.

Everything happens in a hidden folder beside the place where the set will lie: the download, the unpacking and the check
against the card. The set appears in one rename at the end or not at all, whatever ends the process before.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pooch

from workbench.data.card import Card, resolve_path
from workbench.data.catalog import open_catalog
from workbench.data.file_names import is_clutter
from workbench.data.locate import reader_of
from workbench.data.transfer import FetchError, Say, download
from workbench.data.unpack import Limits, UnpackError, unpack
from workbench.runs.files import sha256_of
from workbench.runs.root import find_root


class FetchRefused(ValueError):
    """A set that is not fetched, before anything was sent; the message says what to do instead."""


def fetch_set(
    card: Card,
    folder: str | Path | None = None,
    unchecked: bool = False,
    say: Say = lambda line: None,
    limits: Limits | None = None,
    wait_s: float = 2.0,
) -> Path:
    """The folder of the card's set, downloaded, unpacked and held against its card: `<folder>/<name>`.

    A download that broke off goes on where it stopped when it is asked for again. A file with another sum than the card's
    is removed. A set whose files are not as the card describes them is not put into place.

    Args:
        card: the set's card; its `archives` say what to download.
        folder: where to put it; default `$WORKBENCH_DATA`, else `data/` in the workbench's root.
        unchecked: also take an archive whose sum the card does not know; `say` is told the sum found.
        say: is told in whole lines what is done.
        limits: how much an archive may become; see `unpack.Limits`.
        wait_s: pause before a download that broke off is tried again.

    Raises:
        FetchRefused: the set is drawn by code or not given out freely; something lies in its place already; another
            process is fetching it; a sum is unknown and `unchecked` is not given.
        FetchError: the download fails, the sum or the content is wrong, the archive is damaged or dangerous.
    """
    target = _base_folder(folder) / card.name
    _check_wanted(card, folder, target, unchecked)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _work_folder(target) as work:
        archives = [_retrieve(archive, number, work, say, wait_s) for number, archive in enumerate(card.archives, 1)]
        unpacked = work / "unpacked"
        shutil.rmtree(unpacked, ignore_errors=True)
        unpacked.mkdir()
        try:
            found = _unpack_all(card, archives, unpacked, say, limits)
            _check_content(card, found)
        except FetchError:
            shutil.rmtree(unpacked, ignore_errors=True)
            for path, archive in zip(archives, card.archives, strict=True):
                if archive["sha256"] is None:  # it may be the wrong file; a known sum says that it is the right one
                    path.unlink()
            raise
        if os.path.lexists(target):
            raise FetchError(f"{target} has been made meanwhile and is left as it is.")
        os.rename(found, target)
        shutil.rmtree(work, ignore_errors=True)
    return target


def explain(card: Card, folder: str | Path | None = None) -> str:
    """What to read, sign and do to come by a set that no program may fetch, in lines for a person."""
    target = _base_folder(folder) / card.name
    layout = "\n".join(f"  {line}" for line in card.layout.splitlines())
    return (
        f"{card.title} is not fetched by a program: its card names no archive that is given out freely.\n"
        f"Where it comes from: {card.source}\n"
        f"Licence, and what you may have to sign: {card.licence}\n"
        f"Read before asking for it: {card.path}\n"
        f"Then put the files into {target}, laid out like this:\n{layout}\n"
        f"and check them: python -m workbench data check {card.name}"
        + ("" if folder is None else f" --data-root {_base_folder(folder)}")
    )


def _base_folder(folder: str | Path | None) -> Path:
    stated = folder or os.environ.get("WORKBENCH_DATA")
    return resolve_path(stated) if stated else find_root() / "data"


def _check_wanted(card: Card, folder: str | Path | None, target: Path, unchecked: bool) -> None:
    if hasattr(reader_of(card), "draw"):
        raise FetchRefused(f"{card.name!r} is drawn by code where it is opened: there is nothing to fetch.")
    if not card.archives:
        raise FetchRefused(explain(card, folder))
    if os.path.lexists(target):
        raise FetchRefused(
            f"{target} is there already and is left as it is. Check it with `python -m workbench data check {card.name} "
            f"--data-root {target.parent}`; to fetch it anew, move it away first or give another folder (--to)."
        )
    unknown = [archive["url"] for archive in card.archives if archive["sha256"] is None]
    if unknown and not unchecked:
        raise FetchRefused(
            f"The card {card.path} does not know the sha256 of {', '.join(unknown)}, so that nobody would notice another "
            "file in its place. To take what is there all the same, give --unchecked: the files are still held against the "
            "card's counts, and the sum found is printed so that it can be put into the card."
        )


@contextmanager
def _work_folder(target: Path) -> Iterator[Path]:
    """The hidden folder beside `target` with what is not finished yet, held by this process alone."""
    work = target.parent / f".{target.name}.fetch"
    work.mkdir(exist_ok=True)
    handle = os.open(work, os.O_RDONLY)  # the lock goes with the process, however it ends
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FetchRefused(f"Another process is fetching {target.name} into {target.parent}.") from None
        yield work
    finally:
        os.close(handle)
        with suppress(OSError):
            work.rmdir()  # only when nothing is in it


def _retrieve(archive: dict[str, Any], number: int, work: Path, say: Say, wait_s: float) -> Path:
    url, sha256 = archive["url"], archive["sha256"]
    name = f"{number}-{PurePosixPath(urlsplit(url).path).name}"
    path = work / name

    def resume(source: str, wanted: str, _: object) -> None:
        whole = work / f"{name}.whole"
        download(source, whole, say, wait_s=wait_s)
        os.replace(whole, wanted)

    pooch.get_logger().setLevel("WARNING")  # its lines give advice about its own API
    say(f"{url} -> {path}")
    try:
        pooch.retrieve(url, None if sha256 is None else f"sha256:{sha256}", fname=name, path=work, downloader=resume)
    except ValueError as error:
        raise FetchError(
            f"{url} has another content than the card's sha256 promises, and what came is removed: {error} Try again; if it "
            "stays so, the authors have changed the file: compare with them before changing the card."
        ) from error
    if sha256 is None:
        say(f"not checked: sha256 {sha256_of(path)} of {url}; if the source is trusted, put it into the card")
    return path


def _unpack_all(card: Card, archives: list[Path], unpacked: Path, say: Say, limits: Limits | None) -> Path:
    """The folder below `unpacked` that is the set; several archives are unpacked into one."""
    whole = unpacked / "set"
    for number, (path, archive) in enumerate(zip(archives, card.archives, strict=True)):
        place = unpacked / str(number)
        place.mkdir()
        try:
            num_files = unpack(path, place, limits)
        except UnpackError as error:
            raise FetchError(f"{archive['url']}: {error}") from error
        say(f"{num_files} files unpacked from {path.name}")
        folder = place / archive.get("folder", ".")
        if not folder.is_dir():
            there = ", ".join(sorted(entry.name for entry in place.iterdir())[:5])
            raise FetchError(f"{archive['url']} has no folder {archive['folder']!r}; it has: {there or 'nothing'}.")
        _move_into(folder, whole)
    return whole


def _move_into(folder: Path, whole: Path) -> None:
    """Moves what is in `folder` into `whole`; folders that both have are joined, a file that both have is refused.

    Clutter (`.DS_Store`, `__MACOSX`), which archives packed by a Mac all have, is left behind.
    """
    if not whole.exists():
        os.rename(folder, whole)
        return
    for entry in sorted(folder.iterdir()):
        there = whole / entry.name
        if is_clutter(entry.name):
            continue
        if entry.is_dir() and there.is_dir():
            _move_into(entry, there)
        elif there.exists():
            raise FetchError(f"Two archives of the set hold {entry.name!r} in {folder.name!r}. Correct the card.")
        else:
            os.rename(entry, there)


def _check_content(card: Card, found: Path) -> None:
    fault = reader_of(card).find_fault(found, card)
    try:
        if fault is not None:
            raise ValueError(fault)
        open_catalog(str(card.path), found)
    except (ValueError, FileNotFoundError) as error:
        raise FetchError(
            f"What came is not {card.name!r} as its card describes it, and is not put into place: {error}"
        ) from error
