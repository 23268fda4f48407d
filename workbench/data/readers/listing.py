"""Listing folders of images, safely: what is there, what is missing, and which links lead astray."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import pandas as pd

from workbench.data.file_names import is_clutter
from workbench.data.labels import as_label, shown

_watching: ContextVar[dict[str, tuple[int, int]] | None] = ContextVar("_watching", default=None)
_leaving_out: ContextVar[set[str] | None] = ContextVar("_leaving_out", default=None)


class LayoutError(ValueError):
    """Files that are not laid out as the reader wants them; the message says what was wanted and what was found."""


@contextmanager
def watched() -> Iterator[dict[str, tuple[int, int]]]:
    """What is listed or read in the block, by path, with its state (see `state_of`) just before; filled as the block goes on."""
    places: dict[str, tuple[int, int]] = {}
    token = _watching.set(places)
    try:
        yield places
    finally:
        _watching.reset(token)


@contextmanager
def left_out() -> Iterator[set[str]]:
    """The paths that `scan` leaves out as clutter (see `file_names.is_clutter`) in the block; filled as the block goes on."""
    paths: set[str] = set()
    token = _leaving_out.set(paths)
    try:
        yield paths
    finally:
        _leaving_out.reset(token)


def note(path: Path) -> None:
    """Tells `watched`, where it is on, that the folder or file is about to be listed or read; every reader does so first."""
    places = _watching.get()
    if places is not None:
        places.setdefault(str(path), state_of(str(path)))


def state_of(name: str) -> tuple[int, int]:
    """Time of the last change, ns, and size of a file or folder, links followed; (-1, -1) where there is none."""
    try:
        state = os.stat(name)
    except OSError:
        return -1, -1
    return state.st_mtime_ns, state.st_size


def scan(folder: Path, root: Path) -> tuple[list[str], list[str]]:
    """The names of the files and of the folders in `folder`, each sorted.

    Clutter is left out (see `file_names.is_clutter`; `left_out` tells it). Links are followed as long as they stay inside `root`.

    Raises:
        LayoutError: the folder cannot be read; a link is broken, leads out of `root`, or back to a folder above it.
    """
    note(folder)
    files: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_clutter(entry.name):
                    if (clutter := _leaving_out.get()) is not None:
                        clutter.add(entry.path)
                    continue
                if entry.is_symlink():
                    check_link(Path(entry.path), root)
                (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        raise LayoutError(f"Cannot read the folder {folder}: {error.strerror}. Check its rights.") from error
    return sorted(files), sorted(folders)


def check_link(link: Path, root: Path) -> None:
    """Returns nothing when the link stays inside `root` and leads to a file or to a folder that is not above it.

    Raises:
        LayoutError: otherwise.
    """
    target = Path(os.path.realpath(link))
    if not target.exists():
        raise LayoutError(f"The link {link} leads to {target}, which is not there. Remove or repair it.")
    if not target.is_relative_to(os.path.realpath(root)):
        raise LayoutError(
            f"The link {link} leads out of the data set, to {target}. Copy the files in, or link the whole set's folder."
        )
    if Path(os.path.realpath(link.parent)).is_relative_to(target):
        raise LayoutError(f"The link {link} leads back to a folder above it, {target}. Remove it.")


def check_paths(paths: Sequence[str]) -> None:
    """Returns nothing when every path is relative, with `/` between its parts and no `..` among them.

    Raises:
        LayoutError: names the first few that are not.
    """
    column = pd.Series(paths, dtype="str")
    bad = column[column.str.contains(r"^/|\\|^[A-Za-z]:|(?:^|/)\.\.(?:/|$)", regex=True)]
    if len(bad):
        raise LayoutError(
            f"{len(bad)} paths do not stay inside the data set: {few(list(bad))}. Wanted: relative paths with '/'."
        )


def check_plain(paths: Sequence[str], listed_in: str) -> None:
    """Returns nothing when no path has empty parts or `.` in it: `./a.jpg` and `a.jpg` would be two images.

    Raises:
        LayoutError: names the first few that have.
    """
    column = pd.Series(paths, dtype="str").drop_duplicates()
    odd = column[column.str.contains(r"(?:^|/)\.(?:/|$)|//|/$", regex=True)]
    if len(odd):
        raise LayoutError(
            f"{len(odd)} paths in {listed_in} have parts that say nothing: {few(list(odd))}. Wanted: a/b.jpg."
        )


def check_listed(root: Path, paths: Sequence[str], listed_in: str) -> None:
    """Returns nothing when every listed file is there. Folders are listed once each: no look at single files.

    Raises:
        LayoutError: a path leaves `root`, by itself or through a link, or leads to clutter (see `file_names.is_clutter`); files
            are missing (the first few are named).
    """
    check_paths(paths)
    clutter = [path for path in paths if any(is_clutter(part) for part in path.split("/") if part != ".")]
    if clutter:
        raise LayoutError(
            f"{len(clutter)} of {len(paths)} files listed in {listed_in} are hidden, or thumbnails and the like that systems and "
            f"photo programs make: {few(clutter)}. Take them out of the list, or rename them."
        )
    there: set[str] = set()
    parents = sorted({path.rpartition("/")[0] for path in paths})
    above = {
        "/".join(parts[:depth])
        for parts in (parent.split("/") for parent in parents)
        for depth in range(1, 1 + len(parts))
    }
    for name in sorted(above - {""}):
        if os.path.islink(f"{root}/{name}"):
            check_link(root / name, root)
    for parent in parents:
        folder = root / parent
        if folder.is_dir():
            prefix = f"{parent}/" if parent else ""
            there.update(prefix + name for name in scan(folder, root)[0])
    missing = [path for path in paths if path not in there]
    if missing:
        raise LayoutError(
            f"{len(missing)} of {len(paths)} files listed in {listed_in} are not in {root}: {few(missing)}. "
            + _advice(root, missing[0])
        )


def text_column(values: Sequence[str], what: str) -> pd.Series:
    """`values` as a text column.

    Raises:
        LayoutError: a name that is not valid Unicode (a file name in an old encoding); the first few are named.
    """
    try:
        return pd.Series(values, dtype="str")
    except UnicodeEncodeError:
        bad = [ascii(value) for value in values if not _is_unicode(value)]
        raise LayoutError(f"{len(bad)} {what} are not valid UTF-8: {few(bad)}. Rename them.") from None


def few(names: Sequence[str], limit: int = 5) -> str:
    """The first few names in one line, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(shown(names[:limit])) + more


def _advice(root: Path, missing: str) -> str:
    """What to do about a listed file that is not there: its name may be there in another Unicode form."""
    there: list[str] = [""]
    for part in missing.split("/"):
        there = [
            f"{folder}{name}/"
            for folder in there
            if (root / folder).is_dir()
            for name in os.listdir(root / folder)
            if as_label(name) == as_label(part)
        ]
    if there:
        return (
            f"It is there in another Unicode form, {there[0][:-1]!a}, listed as {missing!a}: write it as it is there."
        )
    return "Complete the download."


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
