"""One run's child process: started in a clean place, listened to, held to its deadline, ended with all it started."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import workbench
from workbench.headless.processes import end_processes
from workbench.runs.files import write_json
from workbench.runs.root import find_root

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_POLL_S = 0.1
# How long the last words of a child that has ended may take to be read.
_LAST_WORDS_S = 10.0
# A Unix socket's path has room for 107 characters; the name of our folder and of the kernel's sockets come on top of this.
_LONGEST_TEMPORARY_FOLDER = 70


@dataclass
class Seen:
    """What was seen of one execution.

    Attributes:
        stopped: why it was ended, `timeout` or `cancelled`; None when it ended by itself.
        exit_code: the child's, negative when a signal killed it.
        events: what the child told, see `workbench.headless.execute`.
        log_error: why stdout.log is not complete; None when it is.
    """

    stopped: str | None = None
    exit_code: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    log_error: str | None = None


def supervise(
    notebook: Path,
    given: dict[str, object],
    folder: Path,
    *,
    deadline_s: float | None,
    num_threads: int | None,
    cancelled: threading.Event,
    echo: Callable[[str], None],
) -> Seen:
    """What was seen of executing `notebook` into `folder`; when this returns no process of the run is left.

    The kernel is this Python, whatever kernelspecs are installed; its sockets, runtime files and IPython profile are in
    a fresh folder that is removed again.

    Args:
        notebook: absolute path.
        given: the parameters to inject, checked.
        folder: the run's; gets output.ipynb and stdout.log.
        deadline_s: seconds for all of it, None without a limit.
        num_threads: threads for numerical libraries, None for their own choice. OMP_NUM_THREADS has precedence.
        cancelled: set by whoever wants it to end.
        echo: takes each line that goes into stdout.log.

    Raises:
        OSError: the child could not be started.
    """
    temporary = tempfile.gettempdir()
    private = Path(
        tempfile.mkdtemp(prefix="wb-", dir=temporary if len(temporary) <= _LONGEST_TEMPORARY_FOLDER else "/tmp")
    )
    read_end, write_end = os.pipe()
    try:
        job = _write_job(notebook, given, folder, private, write_end)
        process = subprocess.Popen(
            [sys.executable, "-m", "workbench.headless.execute", str(job)],
            cwd=find_root(),
            env=_child_environment(notebook, folder, private, num_threads),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(write_end,),
            start_new_session=True,
        )
    except OSError:
        os.close(read_end)
        shutil.rmtree(private, ignore_errors=True)
        raise
    finally:
        os.close(write_end)
    assert process.stdout is not None
    seen = Seen()
    listeners = [
        threading.Thread(target=_keep_log, args=(process.stdout, folder / "stdout.log", echo, seen), daemon=True),
        threading.Thread(target=_keep_events, args=(read_end, seen), daemon=True),
    ]
    for listener in listeners:
        listener.start()
    try:
        seen.stopped = _wait(process, deadline_s, cancelled)
    finally:
        # Once the child has been waited for, its number may be another process's.
        end_processes(folder, process.pid if process.returncode is None else None)
        seen.exit_code = process.wait()
        for listener in listeners:
            listener.join(timeout=_LAST_WORDS_S)
        shutil.rmtree(private, ignore_errors=True)
    return seen


def _write_job(notebook: Path, given: dict[str, object], folder: Path, private: Path, events: int) -> Path:
    """The file that tells the child what to do, with a kernelspec for exactly this Python beside it."""
    command = [sys.executable, "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    command.append("--HistoryManager.enabled=False")
    spec = {"argv": command, "display_name": "workbench", "language": "python"}
    write_json(private / "kernels" / "workbench" / "kernel.json", spec)
    job = {
        "notebook": str(notebook),
        "output": str(folder / "output.ipynb"),
        "parameters": given,
        "kernel": "workbench",
        "cwd": str(find_root()),
        "sockets": str(private / "k"),
        "events": events,
        "supervisor_pid": os.getpid(),
    }
    write_json(private / "job.json", job)
    return private / "job.json"


def _child_environment(notebook: Path, folder: Path, private: Path, num_threads: int | None) -> dict[str, str]:
    # Threads that wait for each other sleep instead of spinning: on a shared machine, with image decoders beside them,
    # spinning made a small trunk ten times slower. A value that is set already stays.
    environment = {"OMP_WAIT_POLICY": "PASSIVE"} | dict(os.environ)
    if num_threads is not None:
        environment = dict.fromkeys(_THREAD_VARIABLES, str(num_threads)) | environment
    package_parent = str(Path(workbench.__file__).resolve().parents[1])
    search_path = [package_parent, *filter(None, [environment.get("PYTHONPATH")])]
    return environment | {
        "PYTHONPATH": os.pathsep.join(search_path),
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8:backslashreplace",
        # Looked through first, so that no kernelspec from elsewhere comes before the one written for this run.
        "JUPYTER_PATH": str(private),
        "JUPYTER_RUNTIME_DIR": str(private / "runtime"),
        "IPYTHONDIR": str(private / "ipython"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "WORKBENCH_ROOT": str(find_root()),
        "WORKBENCH_RUN": str(folder),
        "WORKBENCH_NOTEBOOK": str(notebook),
        "WORKBENCH_PREFIX": sys.prefix,
    }


def _wait(process: subprocess.Popen[bytes], deadline_s: float | None, cancelled: threading.Event) -> str | None:
    began = time.monotonic()
    while process.poll() is None:
        if cancelled.is_set():
            return "cancelled"
        if deadline_s is not None and time.monotonic() - began >= deadline_s:
            return "timeout"
        cancelled.wait(_POLL_S)
    return None


def _keep_log(stream: IO[bytes], log: Path, echo: Callable[[str], None], seen: Seen) -> None:
    """Empties the stream to its end into the log and the terminal; trouble with the disk never blocks the child."""
    with stream:
        for line in stream:
            # Of a progress bar that overwrites itself the last state is enough.
            text = line.decode("utf-8", errors="replace").rstrip().rsplit("\r", 1)[-1]
            if seen.log_error is None:
                try:
                    with log.open("a", encoding="utf-8") as file:
                        file.write(text + "\n")
                except OSError as error:
                    seen.log_error = str(error)
            echo(text)


def _keep_events(read_end: int, seen: Seen) -> None:
    with os.fdopen(read_end, encoding="utf-8") as events:
        for line in events:
            # A child that is killed may leave half a line.
            if line.endswith("\n"):
                seen.events.append(json.loads(line))
