"""The study: the notebooks that answer a data set's question, in their order, for one set or several."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from workbench.headless.batch import print_line, run_many
from workbench.headless.index import write_index
from workbench.runs.parameters import check_parameters, read_parameters
from workbench.runs.record import read_record
from workbench.runs.root import find_root, outputs_folder

# The walk of each task, in order. Every notebook in it has a parameter `data`.
NOTEBOOKS: dict[str, tuple[str, ...]] = {
    "recognition": ("01_audit_dataset", "03_evaluate_few_shot"),
    "reid": ("01_audit_dataset",),
}


def study(
    walk: Sequence[tuple[str, str]], smoke: bool = False, *, out: Path | None = None, deadline_s: float | None = None
) -> list[Path]:
    """The folders of the study's runs in their order, when all have ended; one that fails does not stop the others.

    Everything is checked before the first notebook starts. Progress goes to the terminal and to `study.log` beside the
    runs. Only a cancelled run ends the study.

    Args:
        walk: data set and task (`recognition`, `reid`) of each.
        smoke: small: sets the parameter `smoke` of each notebook that has one.
        out: the folder for the runs; default `outputs/`.
        deadline_s: seconds that each notebook may take.

    Raises:
        ValueError: no data set, an unknown task, or a notebook without the parameter `data`.
        FileNotFoundError: a notebook of the walk is not there.
        KeyboardInterrupt: cancelled before the next notebook had begun.
    """
    unknown = [task for _, task in walk if task not in NOTEBOOKS]
    if unknown or not walk:
        raise ValueError(f"Wanted data sets with a task of {', '.join(NOTEBOOKS)}; found {unknown or 'no data set'}.")
    out = (out or outputs_folder()).resolve()
    steps = []
    for data, task in walk:
        for name in NOTEBOOKS[task]:
            notebook = find_root() / "notebooks" / f"{name}.ipynb"
            declared = read_parameters(notebook)
            given: dict[str, object] = {"data": data}
            if smoke and any(parameter.name == "smoke" for parameter in declared):
                given["smoke"] = True
            check_parameters(declared, given)
            steps.append((notebook, given))
    out.mkdir(parents=True, exist_ok=True)
    log = out / "study.log"

    def say(text: str) -> None:
        print_line(text)
        # The terminal still has the line when the disk is full.
        with suppress(OSError), log.open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    folders: list[Path] = []
    for number, (notebook, given) in enumerate(steps, start=1):
        say(f"study {number}/{len(steps)}: {notebook.stem} on {given['data']}")
        started = run_many([(notebook, given)], 1, out=out, deadline_s=deadline_s, say=say)
        folders += started
        if not started:
            raise KeyboardInterrupt
        if read_record(started[0])["status"] == "cancelled":
            break
    statuses = [read_record(folder)["status"] for folder in folders]
    for folder, status in zip(folders, statuses, strict=True):
        say(f"study: {status:9} {folder.name}")
    say(f"study: {statuses.count('ok')} of {len(steps)} runs are ok")
    say(f"study: {write_index(out)}")
    return folders
