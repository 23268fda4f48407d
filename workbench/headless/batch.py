"""Notebooks run without a person: one supervised process a run, many at once, each with a truthful record."""

import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib

from workbench.headless.index import write_index
from workbench.headless.processes import end_processes
from workbench.headless.supervise import Seen, supervise
from workbench.headless.verdict import cell_seconds, decide
from workbench.runs.folder import (
    drop_reserve,
    end_record,
    load_record,
    make_reserve,
    make_run_folder,
    write_last_record,
    write_record,
)
from workbench.runs.owner import hold, whereabouts
from workbench.runs.parameters import ParameterError, check_parameters, read_parameters
from workbench.runs.record import new_record, read_record
from workbench.runs.root import find_root, outputs_folder

Say = Callable[[str], None]
_rendering = threading.Lock()
_printing = threading.Lock()


@dataclass(frozen=True)
class _Job:
    notebook: Path
    given: dict[str, object]
    parameters: dict[str, object]
    out: Path
    deadline_s: float | None
    num_threads: int | None
    say: Say
    earlier: tuple[dict[str, Any], ...] = ()
    sweep: str | None = None


def print_line(text: str) -> None:
    """Writes one line to standard output at once, whole even when several runs speak."""
    # A terminal that is gone, or that cannot show a letter, must not take the runs with it.
    encoding = sys.stdout.encoding or "utf-8"
    with _printing, suppress(OSError):
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stdout.flush()


def run_notebook(
    notebook: Path, parameters: Mapping[str, object], *, out: Path | None = None, deadline_s: float | None = None
) -> Path:
    """The folder of one run of `notebook`, which has ended when this returns; its run.json says how.

    See `run_many` for the arguments and what is raised.
    """
    return run_many([(notebook, parameters)], 1, out=out, deadline_s=deadline_s)[0]


def run_many(
    runs: Sequence[tuple[Path, Mapping[str, object]]],
    jobs: int,
    *,
    out: Path | None = None,
    deadline_s: float | None = None,
    say: Say = print_line,
) -> list[Path]:
    """The folders of the runs, in the order given, when all have ended; each run.json says how its run ended.

    Everything is checked before the first kernel starts. With several jobs each kernel gets its share of the cores,
    unless OMP_NUM_THREADS says otherwise. Ctrl-C, SIGTERM and SIGHUP cancel: what runs is ended and recorded, what has not
    begun gets no folder. Called from another thread than the main one, signals stay as they are. Several runs share a word
    in their records, `sweep`, by which notebook 07 finds them.

    Args:
        runs: notebook and given parameters (text is read as the wanted type) of each run.
        jobs: how many run at once, at least 1.
        out: the folder for the run folders and index.html; default `outputs/`.
        deadline_s: seconds that each run may take as a whole.
        say: takes the lines of progress.

    Raises:
        ParameterError: parameters that are refused, of all runs at once.
        FileNotFoundError: there is no such notebook.
        ValueError: jobs or deadline are not positive.
        OSError: a run folder could not be made.
    """
    if jobs < 1 or (deadline_s is not None and not deadline_s > 0):
        raise ValueError(f"Wanted at least one job and a deadline above 0 s, found {jobs} and {deadline_s}.")
    out = (out or outputs_folder()).resolve()
    jobs = min(jobs, max(len(runs), 1))
    num_threads = max(1, joblib.cpu_count() // jobs) if jobs > 1 else None
    sweep = secrets.token_hex(4) if len(runs) > 1 else None
    prepared, mistakes = [], []
    for notebook, given in runs:
        try:
            declared = read_parameters(notebook.resolve())
            values = check_parameters(declared, given)
        except ParameterError as error:
            mistakes.append(str(error))
            continue
        changed = {name: values[name] for name in given}
        prepared.append(_Job(notebook.resolve(), changed, values, out, deadline_s, num_threads, say, sweep=sweep))
    if mistakes:
        raise ParameterError("\n".join(dict.fromkeys(mistakes)))
    with _cancelled_by_signals() as cancelled, ThreadPoolExecutor(jobs) as pool:
        folders = list(pool.map(lambda job: _run(job, cancelled), prepared))
    started = [folder for folder in folders if folder is not None]
    if len(started) < len(folders):
        say(f"cancelled: {len(folders) - len(started)} of {len(folders)} runs had not begun")
    return started


def resume_run(
    folder: Path, *, deadline_s: float | None = None, host_gone: bool = False, say: Say = print_line
) -> Path:
    """The folder, when its notebook has run again in it with the same parameters.

    What the earlier attempt left in the folder (a training's checkpoints) is there for the notebook to go on from; what it
    left of processes is ended. The record keeps how the earlier attempts ended under `earlier`.

    Args:
        folder: of a run that failed, was killed, was cancelled, ran out of time or was lost.
        deadline_s: seconds that it may take now.
        host_gone: take over a run whose record names another host, since that host does not work on it any more.
        say: takes the lines of progress.

    Raises:
        ParameterError: the notebook no longer takes the run's parameters.
        FileNotFoundError: there is no such run, or its notebook is gone.
        ValueError: the run still goes on, here or on another host, has ended well, or its record cannot be read.
    """
    folder = folder.resolve()
    if not (folder / "run.json").is_file():
        raise FileNotFoundError(f"{folder} is not a run's folder: it has no run.json.")
    with hold(folder), _cancelled_by_signals() as cancelled:
        load_record(folder)  # a record that cannot be read is an error here, not a run that was lost
        record = read_record(folder)
        if record["status"] == "ok":
            raise ValueError(f"{folder.name} has ended well; there is nothing to resume.")
        if record["status"] == "running":
            if whereabouts(record) == "alive":
                raise ValueError(f"{folder.name} still goes on.")
            if not host_gone:
                raise ValueError(
                    f"{folder.name} runs on the host {record['host']}, where this host cannot see it. If it has ended "
                    "there, take it over with --host-gone."
                )
            record["status"] = "lost"
        notebook = (find_root() / record["path"]).resolve()
        values = check_parameters(read_parameters(notebook), record["parameters"])
        kept = ("status", "started", "ended", "seconds", "error")
        earlier = (*record.get("earlier", []), {name: record.get(name) for name in kept})
        make_reserve(folder)
        end_processes(folder)
        _run_in(
            folder,
            _Job(notebook, values, values, folder.parent, deadline_s, None, say, earlier, record.get("sweep")),
            cancelled,
        )
    return folder


def _run(job: _Job, cancelled: threading.Event) -> Path | None:
    """The new folder of the job's run when it has ended and is reported; None when it was cancelled before it began."""
    if cancelled.is_set():
        return None
    folder = make_run_folder(job.out, job.notebook.stem)
    with hold(folder):
        _run_in(folder, job, cancelled)
    return folder


def _run_in(folder: Path, job: _Job, cancelled: threading.Event) -> None:
    label = f"[{job.notebook.stem} {folder.name[-8:]}]"
    began = new_record(job.notebook) | {"parameters": job.parameters, "seed": job.parameters.get("seed")}
    if job.earlier:
        began["earlier"] = list(job.earlier)
    if job.sweep:
        began["sweep"] = job.sweep
    write_record(folder, began)
    changed = " ".join(f"{name}={value}" for name, value in job.given.items())
    job.say(f"{label} begins  {changed}".rstrip())
    _update_index(job)
    seen, failure = Seen(), None
    try:
        seen = supervise(
            job.notebook,
            job.given,
            folder,
            deadline_s=job.deadline_s,
            num_threads=job.num_threads,
            cancelled=cancelled,
            echo=lambda text: job.say(f"{label} {text}"),
        )
    except OSError as error:
        failure = {"type": type(error).__name__, "message": str(error), "cell": None}
    record = _last_told(folder, began)
    status, error_told = decide(
        seen.stopped, seen.exit_code, seen.events, record.get("finished") is True, job.deadline_s
    )
    record = end_record(record, "failed" if failure else status, failure or error_told)
    record["timings"] = {"cells_s": cell_seconds(seen.events)}
    if seen.log_error:
        record["log_error"] = seen.log_error
    _conclude(folder, record)
    _update_index(job)
    reason = f": {record['error']['type']}: {record['error']['message'].strip()}" if record["error"] else ""
    job.say(f"{label} {record['status']} after {record['seconds']:.1f} s{reason}")
    job.say(
        f"{label} {'not rendered, ' + record['report_error'] if 'report_error' in record else folder / 'report.html'}"
    )


def _last_told(folder: Path, began: dict[str, Any]) -> dict[str, Any]:
    """The record as the notebook left it; the one from the beginning when that is not to be read any more."""
    try:
        return load_record(folder)
    except ValueError as error:
        return began | {"record_error": f"What the notebook wrote was lost: {error}"}


def _conclude(folder: Path, record: dict[str, Any]) -> None:
    """Writes the run's last record, then its report; a report that cannot be made is the record's `report_error`."""
    if not write_last_record(folder, record):
        record["report_error"] = "The disk is full."
        return
    from workbench.report.html import write_report

    try:
        with _rendering:
            write_report(folder / "output.ipynb", folder / "report.html", record)
    except Exception as error:
        # Whatever goes wrong in rendering changes nothing about how the run ended, and is not kept quiet either.
        record["report_error"] = f"{type(error).__name__}: {error}"
        write_last_record(folder, record)
    drop_reserve(folder)


def _update_index(job: _Job) -> None:
    try:
        write_index(job.out)
    except OSError as error:
        job.say(f"index.html is not up to date: {error}")


@contextmanager
def _cancelled_by_signals() -> Iterator[threading.Event]:
    """An event that SIGINT, SIGTERM and SIGHUP set while the block runs, in the main thread; elsewhere nobody sets it."""
    cancelled = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield cancelled
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: cancelled.set()) for number in numbers}
    try:
        yield cancelled
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
