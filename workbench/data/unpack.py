"""Unpacking an archive from outside: nothing leaves the folder, no links, no devices, no bombs.

zip and tar (bare, gz, bz2, xz), told apart by their content. Only plain files and folders are written, with rights of
their own, each under a name that is there once. What an archive says of its sizes is not believed: bytes are counted as
they are written, and the unpacking stops before a limit is crossed.
"""

import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

_CHUNK_BYTES = 1 << 20
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, NotImplementedError)


class UnpackError(ValueError):
    """An archive that is damaged, dangerous or too large; the message says which entry and why."""


@dataclass(frozen=True)
class Limits:
    """How much an archive may become.

    Attributes:
        total_bytes: of all files together.
        num_entries: files and folders.
        ratio: unpacked over packed size, of a zip's single entry and of a whole tar, counted beyond `free_bytes`.
            Pictures hardly shrink at all and lists shrink about tenfold; deflate reaches 1032 on zeros.
        free_bytes: what an entry may become before its ratio is looked at.
        spare_disk_bytes: what must stay free on the disk.
    """

    total_bytes: int = 256 << 30
    num_entries: int = 4_000_000
    ratio: float = 200.0
    free_bytes: int = 16 << 20
    spare_disk_bytes: int = 256 << 20


def unpack(archive: Path, target: Path, limits: Limits | None = None) -> int:
    """The number of files written from the zip or tar `archive` into `target`, a folder that is there and empty.

    When it raises, part of the content may have been written: the caller gives a temporary folder and drops it.

    Raises:
        UnpackError: not an archive, or a damaged one; an encrypted entry; a name that is absolute, leads upwards, is
            no UTF-8, is there twice, or differs from another only in a way that this disk does not keep apart; a link
            or a device; more than `limits` or the free disk allow.
    """
    budget = _Budget(archive, target, limits or Limits())
    with _explained(archive):
        if tarfile.is_tarfile(archive):
            return _unpack_tar(archive, budget)
        if zipfile.is_zipfile(archive):
            return _unpack_zip(archive, budget)
    with archive.open("rb") as file:
        start = file.read(40)
    raise UnpackError(f"{archive} is neither a zip nor a tar archive that can be read; it begins with {start!r}.")


class _Budget:
    """What has been written below `target`, held against the limits before each write."""

    def __init__(self, archive: Path, target: Path, limits: Limits) -> None:
        self.archive = archive
        self.target = target
        self.limits = limits
        self.archive_bytes = archive.stat().st_size
        self.disk_bytes = max(shutil.disk_usage(target).free - limits.spare_disk_bytes, 0)
        self.num_bytes = 0
        self.num_entries = 0
        self.num_files = 0
        self.made: set[str] = set()

    def check_total(self, num_bytes: int, num_entries: int) -> None:
        """Refuses an archive that would become `num_bytes` in `num_entries`."""
        if num_bytes > self.limits.total_bytes:
            raise self.refuse(
                f"it holds more than {_size(self.limits.total_bytes)} unpacked; this much is not believed"
            )
        if num_bytes > self.disk_bytes:
            raise self.refuse(
                f"it needs {_size(num_bytes)} or more unpacked, and the disk has {_size(self.disk_bytes)}"
            )
        if num_entries > self.limits.num_entries:
            raise self.refuse(
                f"it holds more than {self.limits.num_entries} files and folders; this many is not believed"
            )

    def check_ratio(self, num_bytes: int, packed_bytes: int, what: str) -> None:
        """Refuses what has become `num_bytes` out of `packed_bytes`."""
        if num_bytes > self.limits.free_bytes and num_bytes > self.limits.ratio * packed_bytes:
            raise self.refuse(
                f"{what} becomes more than {self.limits.ratio:.0f} times as large as it is packed: a bomb"
            )

    def folder(self, name: str) -> None:
        """Makes the folder `name` and those above it."""
        for part in [*reversed(PurePosixPath(name).parents), PurePosixPath(name)]:
            text = str(part)
            if text == "." or f"{text}/" in self.made:
                continue
            self._take(text)
            try:
                (self.target / text).mkdir()
            except (FileExistsError, NotADirectoryError):
                raise self.refuse(f"two entries become {text!r} on this disk") from None
            self.made.add(f"{text}/")

    def file(self, name: str, source: IO[bytes], packed_bytes: int | None) -> None:
        """Writes `source` under `name`; `packed_bytes` None counts towards the ratio of the whole archive."""
        parent = str(PurePosixPath(name).parent)
        self.folder(parent)
        self._take(name)
        try:
            out = (self.target / name).open("xb")
        except (FileExistsError, IsADirectoryError):
            raise self.refuse(f"two entries become {name!r} on this disk") from None
        written = 0
        with out:
            while chunk := source.read(_CHUNK_BYTES):
                written += len(chunk)
                self.num_bytes += len(chunk)
                self.check_total(self.num_bytes, self.num_entries)
                if packed_bytes is None:
                    self.check_ratio(self.num_bytes, self.archive_bytes, "it")
                else:
                    self.check_ratio(written, packed_bytes, f"the entry {name!r}")
                out.write(chunk)
        self.num_files += 1

    def refuse(self, reason: str) -> UnpackError:
        return UnpackError(f"{self.archive.name} is not unpacked: {reason}.")

    def _take(self, name: str) -> None:
        self.num_entries += 1
        self.check_total(self.num_bytes, self.num_entries)
        if max(len(os.fsencode(part)) for part in name.split("/")) > 255:
            raise self.refuse(f"the name {name[:60]!r}... has a part of more than 255 bytes")


def _unpack_zip(archive: Path, budget: _Budget) -> int:
    with zipfile.ZipFile(archive) as file:
        entries = file.infolist()
        budget.check_total(sum(entry.file_size for entry in entries), len(entries))
        for entry in entries:
            name = _checked_name(_zip_name(entry, budget), budget)
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise budget.refuse(f"{name!r} is a link or a device")
            if entry.flag_bits & 1:
                raise budget.refuse(f"{name!r} is encrypted; unpack it yourself, with the password of its authors")
            if entry.filename.endswith("/") or kind == stat.S_IFDIR:
                budget.folder(name)
            elif name == ".":
                raise budget.refuse(f"an entry has no name ({entry.filename!r})")
            else:
                with file.open(entry) as source:
                    budget.file(name, source, entry.compress_size)
    return budget.num_files


def _unpack_tar(archive: Path, budget: _Budget) -> int:
    with tarfile.open(archive, "r:*") as file:
        while (entry := file.next()) is not None:
            name = _checked_name(entry.name, budget)
            if entry.isdir():
                budget.folder(name)
            elif entry.isreg() and not entry.issparse():
                source = file.extractfile(entry)
                if source is None or name == ".":
                    raise budget.refuse(f"{entry.name!r} is no file that could be read")
                with source:
                    budget.file(name, source, None)
            else:
                raise budget.refuse(f"{name!r} is a link, a device or a sparse file")
            file.members.clear()  # type: ignore[attr-defined]  # a list of millions of entries is not kept in memory
        # The packer's own check sum comes last, after what tarfile reads.
        drained = budget.num_bytes
        while file.fileobj is not None and (chunk := file.fileobj.read(_CHUNK_BYTES)):
            drained += len(chunk)
            budget.check_ratio(drained, budget.archive_bytes, "it")
    return budget.num_files


def _zip_name(entry: zipfile.ZipInfo, budget: _Budget) -> str:
    if entry.flag_bits & 0x800 or entry.filename.isascii():
        return entry.orig_filename
    # Without the flag for UTF-8 the format means cp437, and most programs write whatever their system uses.
    try:
        return entry.orig_filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        raise budget.refuse(
            f"the name {entry.filename!r} is not UTF-8, and a guess would give other names than the lists have; unpack "
            "it yourself, with its encoding"
        ) from None


def _checked_name(name: str, budget: _Budget) -> str:
    """`name` without `./` and doubled or trailing slashes; `.` for the archive's own folder."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise budget.refuse(f"the name {name!a} is not UTF-8") from None
    if re.search(r"[\x00-\x1f\x7f\\]|^[A-Za-z]:", name):
        raise budget.refuse(f"the name {name!r} has a backslash, a drive or a control character")
    if name.startswith("/") or ".." in name.split("/"):
        raise budget.refuse(f"the name {name!r} leads out of the folder")
    return str(PurePosixPath(name))


@contextmanager
def _explained(archive: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise UnpackError(f"{archive.name} is damaged or of an unknown kind: {error}.") from error
    except OSError as error:
        if error.errno is None:  # gzip and bz2 say so of a damaged stream; the disk's own errors have a number
            raise UnpackError(f"{archive.name} is damaged: {error}.") from error
        raise
    except RuntimeError as error:  # zipfile's word for an encrypted entry whose flag was taken away
        raise UnpackError(f"{archive.name} cannot be read: {error}.") from error


def _size(num_bytes: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.4g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.4g} GiB"
