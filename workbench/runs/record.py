"""One run and the truth about it: `start` in a notebook, `log` what was found, `finish` at its end.

In JupyterLab the run is this kernel's: its record says `running` until `finish`, `failed` after a cell's error. Headless
the folder is the supervisor's, which alone decides how the run ended; the notebook only adds what it knows.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workbench.runs.folder import FOLDER_NAME, end_record, load_record, make_run_folder, utc_now, write_record
from workbench.runs.interactive import close_run, is_open, open_run
from workbench.runs.metrics import add_metrics, to_json
from workbench.runs.owner import describe_process, whereabouts
from workbench.runs.parameters import ParameterError, check_parameters, read_parameters
from workbench.runs.provenance import describe_code, describe_device, describe_versions, seed_generators
from workbench.runs.root import find_root, outputs_folder


@dataclass(frozen=True)
class Run:
    """A run that was started: its `folder` for artefacts, and its checked `parameters`."""

    folder: Path
    parameters: dict[str, Any]

    def log(self, metrics: Mapping[str, Any] | None = None, **facts: Any) -> None:
        """Adds metrics to metrics.json and facts to run.json, at once and atomically; a known name is replaced.

        Args:
            metrics: by name, each a dataclass or a mapping with `value`, `low`, `high`, `n` and `protocol`. NaN (not
                defined) becomes null.
            facts: numbers, text, lists, mappings, paths, arrays, dataclasses; as JSON can hold them.

        Raises:
            ValueError: a metric without one of its fields, an infinite number, or something that is no fact.
            OSError: the disk is full; what was logged before stays.
        """
        if metrics:
            add_metrics(self.folder, metrics)
        if facts:
            record = load_record(self.folder)
            record["facts"] = record["facts"] | to_json(facts)
            write_record(self.folder, record)

    def finish(self) -> None:
        """Says that the notebook came to its end. Headless, the supervisor still has to see that it is so."""
        record = load_record(self.folder)
        record["finished"] = True
        if is_open(self.folder):
            # A cell that failed and was put right is no failure of the run, but it is not hidden either.
            close_run(self.folder, end_record(record, "ok", None) | {"earlier_error": record["error"]})
        else:
            write_record(self.folder, record)


def start(notebook: str, namespace: Mapping[str, Any]) -> Run:
    """The run of this notebook: a new folder `outputs/<utc>-<notebook>-<hash>/`, or the one that the supervisor made.

    Takes the values of the notebook's parameters from `namespace` and checks them. If there is a parameter `seed` that
    is not None, seeds `random`, and numpy's legacy generator and torch when they are imported. Starting again in the same
    kernel ends the run before, as cancelled when it was not finished.

    Args:
        notebook: its file name without `.ipynb`, in `notebooks/`; headless the supervisor knows the file.
        namespace: `globals()`.

    Raises:
        ParameterError: a value of the wrong type, outside its choices or its range, or not there.
        FileNotFoundError: there is no such notebook.
        RuntimeError: the kernel belongs to another environment than the supervisor's.
    """
    headless = os.environ.get("WORKBENCH_RUN")
    path = find_root() / "notebooks" / f"{notebook}.ipynb"
    if headless:
        path = Path(os.environ["WORKBENCH_NOTEBOOK"])
        wanted = os.environ["WORKBENCH_PREFIX"]
        if Path(sys.prefix).resolve() != Path(wanted).resolve():
            raise RuntimeError(f"This kernel runs in {sys.prefix}, wanted {wanted}; its kernelspec is another one's.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no notebook {path}; give `start` the notebook's name without `.ipynb`.")
    declared = read_parameters(path)
    missing = [parameter.name for parameter in declared if parameter.name not in namespace]
    if missing:
        raise ParameterError(f"{', '.join(missing)}: not set; run the parameters cell before `start`.")
    given = {parameter.name: namespace[parameter.name] for parameter in declared}
    parameters = check_parameters(declared, given, text_allowed=False)
    seed = parameters.get("seed")
    seeded = seed_generators(seed) if isinstance(seed, int) else []
    if headless:
        folder = Path(headless)
        record = load_record(folder)
    else:
        folder = make_run_folder(outputs_folder(), path.stem)
        record = new_record(path)
    record |= {"parameters": parameters, "device": describe_device(), "seed": seed, "seeded": seeded}
    write_record(folder, record)
    if not headless:
        open_run(folder)
    return Run(folder, parameters)


def new_record(notebook: Path) -> dict[str, Any]:
    """The record of a run of `notebook` that begins now in this process; its parameters are still empty."""
    root = find_root()
    inside = notebook.is_relative_to(root)
    return {
        "status": "running",
        "notebook": notebook.stem,
        "path": (notebook.relative_to(root) if inside else notebook).as_posix(),
        "parameters": {},
        "started": utc_now(),
        "ended": None,
        "seconds": None,
        "finished": False,
        "error": None,
        "git": describe_code(root),
        "versions": describe_versions(),
        "device": None,
        "seed": None,
        "seeded": [],
        "timings": {},
        "facts": {},
        **describe_process(),
    }


def read_record(folder: Path) -> dict[str, Any]:
    """The run's record as it is true now: `lost` when it says `running` and its process is gone.

    What runs on another host cannot be seen from here and stays `running`.
    A folder without a record that can be read gives a record with the status `lost` and the reason as its error.
    """
    try:
        record = load_record(folder)
    except ValueError as error:
        name = FOLDER_NAME.fullmatch(folder.name)
        began = datetime.strptime(name[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).isoformat() if name else None
        return {
            "status": "lost",
            "notebook": name[2] if name else folder.name,
            "parameters": {},
            "started": began,
            "facts": {},
            "error": {"type": type(error).__name__, "message": str(error)},
        }
    if record["status"] == "running" and whereabouts(record) == "gone":
        record["status"] = "lost"
        record["error"] = {"type": "Lost", "message": "The process ended without saying how; nothing more is known."}
    return record


def list_runs(outputs: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Every run folder in `outputs` with its record as `read_record` gives it, newest first; empty without a folder."""
    if not outputs.is_dir():
        return []
    folders = [path for path in outputs.iterdir() if FOLDER_NAME.fullmatch(path.name) and path.is_dir()]
    runs = [(folder, read_record(folder)) for folder in folders]
    return sorted(runs, key=lambda run: (str(run[1].get("started") or ""), run[0].name), reverse=True)
