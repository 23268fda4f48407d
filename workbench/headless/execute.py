"""The child process of one run: executes the notebook with papermill and tells its supervisor how it goes.

Called as `python -m workbench.headless.execute JOB.json`. On standard output comes a line for each cell and what the cells
print; into the pipe that the job names comes one JSON object a line: a cell begins, a cell ends, and at last how it all
ended. papermill's own metadata is not asked: it says that all is well when a kernel has died.
"""

import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from workbench.headless.processes import end_processes
from workbench.runs.interactive import first_line, plain_text

_HEARTBEAT_S = 30.0
_START_TIMEOUT_S = 180
# Seconds to wait for the last output of a cell that has ended: many kernels starting at once make it slow, not wrong.
_OUTPUT_TIMEOUT_S = 120
_TEXT_CHARACTERS = 8000


class Progress:
    """What is told while the notebook runs. Code cells that are not empty are counted from 1, as they stand in the output.

    It is also the file that papermill writes the cells' own output into.
    """

    def __init__(self, num_cells: int, lines: TextIO, events: TextIO) -> None:
        self.num_cells = num_cells
        self.number = 0
        self.running = False
        self.line = ""
        self.began = time.monotonic()
        self._lines = lines
        self._events = events
        self._in_line = False
        self._lock = threading.Lock()

    def write(self, text: str) -> None:
        """Passes on what a cell prints."""
        with self._lock:
            self._lines.write(text)
            self._in_line = not text.endswith("\n") if text else self._in_line

    def flush(self) -> None:
        """Passes it on now."""
        self._lines.flush()

    def say(self, text: str) -> None:
        """A line of its own among what the cells print."""
        with self._lock:
            self._lines.write(f"{chr(10) * self._in_line}{text}\n")
            self._lines.flush()
            self._in_line = False

    def tell(self, event: str, **details: Any) -> None:
        """One event for the supervisor."""
        self._events.write(json.dumps({"event": event, **details}, ensure_ascii=False) + "\n")
        self._events.flush()

    def begin_cell(self, cell: NotebookNode, cell_index: int) -> None:
        """The hook that nbclient calls before a code cell."""
        self.number += 1
        self.line, self.began, self.running = first_line(cell.source), time.monotonic(), True
        self.tell("begin", number=self.number, of=self.num_cells, first_line=self.line)

    def end_cell(self, cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:
        """The hook after a code cell, whether it raised or not; not called when the kernel dies."""
        self.running = False
        seconds = time.monotonic() - self.began
        content = execute_reply["content"]
        ok = content["status"] == "ok"
        self.tell("end", number=self.number, seconds=round(seconds, 3), ok=ok)
        what = (
            self.line if ok else f"FAILED  {content.get('ename')}: {first_line(plain_text(content.get('evalue', '')))}"
        )
        self.say(f"cell {self.number:>2}/{self.num_cells}  {seconds:6.1f} s  {what}")

    def beat(self) -> None:
        """Says that a long cell still runs."""
        if self.running:
            seconds = time.monotonic() - self.began
            self.say(f"cell {self.number:>2}/{self.num_cells}  {seconds:6.0f} s so far  {self.line}")


def execute(job: dict[str, Any], progress: Progress) -> None:
    """Returns nothing; executes the job's notebook into its output and tells `progress` how it ended."""
    try:
        papermill.execute_notebook(
            _no_fields(job["notebook"]),
            _no_fields(job["output"]),
            job["parameters"],
            kernel_name=job["kernel"],
            language="python",
            progress_bar=False,
            log_output=False,
            stdout_file=progress,
            stderr_file=progress,
            start_timeout=_START_TIMEOUT_S,
            iopub_timeout=_OUTPUT_TIMEOUT_S,
            cwd=job["cwd"],
            store_widget_state=False,
            on_cell_execute=progress.begin_cell,
            on_cell_executed=progress.end_cell,
            config=Config({"KernelManager": {"transport": "ipc", "ip": job["sockets"]}}),
        )
    except PapermillExecutionError as error:
        trace = plain_text("\n".join(error.traceback))[-_TEXT_CHARACTERS:]
        progress.tell("ended", how="error", error=_describe(error.ename, error.evalue, trace))
    except DeadKernelError:
        progress.tell("ended", how="kernel_died")
    except Exception as error:
        # Whatever else goes wrong (a full disk, a kernel that does not start) is told, not thrown at the terminal.
        how = "kernel_died" if "Kernel died" in str(error) else "error"
        progress.tell("ended", how=how, error=_describe(type(error).__name__, str(error), ""))
    else:
        progress.tell("ended", how="completed")


def _describe(name: str, message: str, trace: str) -> dict[str, str]:
    return {"type": name, "message": plain_text(message)[:_TEXT_CHARACTERS], "traceback": trace}


def _no_fields(path: str) -> str:
    """The path as papermill wants it, which would take braces for fields to be filled in."""
    return path.replace("{", "{{").replace("}", "}}")


def _count_cells(job: dict[str, Any]) -> int:
    cells = nbformat.read(job["notebook"], as_version=4).cells
    return sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in cells) + bool(job["parameters"])


def _watch(job: dict[str, Any], progress: Progress, private: Path) -> None:
    """Never returns; keeps long cells heard, and clears away all of the run's processes when the supervisor is gone."""
    last_beat = progress.began
    while os.getppid() == job["supervisor_pid"]:
        time.sleep(0.5)
        if time.monotonic() - max(last_beat, progress.began) >= _HEARTBEAT_S:
            last_beat = time.monotonic()
            with contextlib.suppress(BrokenPipeError):
                progress.beat()
    end_processes(Path(os.environ["WORKBENCH_RUN"]), os.getpid())
    shutil.rmtree(private, ignore_errors=True)
    os._exit(1)


def main() -> None:
    """Executes the job whose file is the first argument."""
    # The supervisor interrupts the whole tree; this process stays to write down what the interrupted cell left. A handler,
    # not SIG_IGN, which the kernel and its workers would inherit.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    job_file = Path(sys.argv[1])
    job = json.loads(job_file.read_text(encoding="utf-8"))
    events = os.fdopen(job["events"], "w", encoding="utf-8", errors="backslashreplace")
    progress = Progress(_count_cells(job), sys.stdout, events)
    watcher = threading.Thread(target=_watch, args=(job, progress, job_file.parent), daemon=True)
    watcher.start()
    try:
        execute(job, progress)
    except BrokenPipeError:
        # Nobody listens: the supervisor is gone, and the watcher must come to the end of clearing away.
        watcher.join()


if __name__ == "__main__":
    main()
