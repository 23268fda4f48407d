"""Who works on a folder: the process that a record names, and the lock that keeps a second one out."""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import psutil
from filelock import FileLock, Timeout

_LOCK = ".lock"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class FolderInUseError(ValueError):
    """Another process, or another thread of this one, works on the folder."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keeps every other caller out of `folder`, which is made when missing, until the block ends or the process dies.

    The lock is the operating system's, on the file `.lock` in the folder. On shared storage it holds between hosts where
    the file system passes locks on (NFS version 4, Lustre, CephFS do).

    Raises:
        FolderInUseError: somebody else holds it; at once.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise FolderInUseError(
            f"Another process works on {folder}. Wait until it has ended, or end it, and try again."
        ) from error
    try:
        yield
    finally:
        lock.release()


def describe_process() -> dict[str, Any]:
    """What names this process for good.

    `host` and `boot_id` (None where the system has none), the `pid` there, its start in seconds since 1970,
    `process_started`, and, on Linux, in clock ticks since the boot, `process_ticks`, which setting the clock does not
    change.
    """
    stat = _read_stat(os.getpid())
    return {
        "host": socket.gethostname(),
        "boot_id": _boot_id(),
        "pid": os.getpid(),
        "process_started": psutil.Process().create_time(),
        "process_ticks": stat[1] if stat else None,
    }


def whereabouts(process: Mapping[str, Any]) -> Literal["alive", "gone", "elsewhere"]:
    """Whether the process that `describe_process` named still runs; `elsewhere` is another host, where it cannot be seen.

    Another process with its number does not count, nor one that has ended and was not waited for. A record from before
    hosts were written down counts as this host's.
    """
    if process.get("host", socket.gethostname()) != socket.gethostname():
        return "elsewhere"
    boot_id = process.get("boot_id")
    if boot_id is not None and boot_id != _boot_id():
        return "gone"
    if process.get("process_ticks") is not None:
        stat = _read_stat(process["pid"])
        return "alive" if stat is not None and stat[0] != "Z" and stat[1] == process["process_ticks"] else "gone"
    try:
        found = psutil.Process(process["pid"])
        # The start is counted from the boot, whose time shifts by a second or two when the clock is set.
        same = abs(found.create_time() - process["process_started"]) < 5
        return "alive" if same and found.status() != psutil.STATUS_ZOMBIE else "gone"
    except psutil.NoSuchProcess:
        return "gone"


def _boot_id() -> str | None:
    return _BOOT_ID.read_text(encoding="ascii").strip() if _BOOT_ID.is_file() else None


def _read_stat(pid: int) -> tuple[str, int] | None:
    """State and start, in ticks since the boot, of a process; None without it, or without Linux's /proc.

    Source: proc(5), fields 3 and 22 of /proc/PID/stat; the second field, a name in brackets, may hold anything.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[19])
