"""The processes of one run, and their end: also those that ignore SIGINT or have lost their parent."""

import contextlib
import os
import signal
from pathlib import Path

import psutil

_GRACE_S = 5.0


def end_processes(run_folder: Path, root_pid: int | None = None, grace_s: float = _GRACE_S) -> int:
    """Ends every process of the run and returns how many had to be killed: SIGINT first, SIGKILL after `grace_s`.

    To the run belong the descendants of `root_pid`, it itself, and whatever carries the run's folder in its environment:
    a data loader's worker whose kernel was killed has no parent any more, but it still has that. The caller and its
    ancestors are spared.
    """
    processes = find_processes(run_folder, root_pid)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs(processes, timeout=grace_s)
    num_killed = len(alive)
    # A process that is being killed may just have started another one: look again until there is none.
    while alive:
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=grace_s)
        alive = find_processes(run_folder, root_pid)
    return num_killed


def find_processes(run_folder: Path, root_pid: int | None = None) -> list[psutil.Process]:
    """The living processes of the run, see `end_processes`; what has ended and was not waited for does not count."""
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found: dict[int, psutil.Process] = {}
    if root_pid is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(root_pid)
            found |= {process.pid: process for process in [root, *root.children(recursive=True)]}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get("WORKBENCH_RUN") == str(run_folder):
                found[process.pid] = process
    return [process for pid, process in found.items() if pid not in spared and _lives(process)]


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
