"""The study: the notebooks that answer a data set's question, in their order, for one set or several."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from workbench.headless.batch import print_line, run_many
from workbench.headless.index import write_index
from workbench.runs.parameters import check_parameters, read_parameters
from workbench.runs.record import read_record
from workbench.runs.root import find_root, outputs_folder


@dataclass(frozen=True)
class Step:
    """One notebook of a walk.

    Attributes:
        notebook: its name; it has a parameter `data`.
        parameters: those that differ from the notebook's own.
        tuned: takes the embedder that the training before it has saved, as its parameter `embedder`.
        shaped: sees pictures in the shape of the set's card, by its parameters `image_height` and `image_width`.
    """

    notebook: str
    parameters: Mapping[str, object] = field(default_factory=dict)
    tuned: bool = False
    shaped: bool = False


# People, animals and vehicles are as good mirrored as not; products carry text.
MIRRORED = {"settings": "flip_share=0.5"}
WALKS: dict[str, tuple[Step, ...]] = {
    "recognition": (Step("01_audit_dataset"), Step("02_finetune_trunk"), Step("03_evaluate_few_shot", tuned=True)),
    "reid": (
        Step("01_audit_dataset"),
        Step("02_finetune_trunk", MIRRORED, shaped=True),
        Step("04_evaluate_reid", tuned=True),
    ),
}


def study(
    walk: Sequence[tuple[str, str, tuple[int, int]]],
    smoke: bool = False,
    *,
    out: Path | None = None,
    deadline_s: float | None = None,
) -> list[Path]:
    """The folders of the study's runs in their order, when all have ended; one that fails does not stop the others.

    Everything is checked before the first notebook starts. A step that wants a tuned embedder is left out, with a line that
    says so, when the training before it failed. Progress goes to the terminal and to `study.log` beside the
    runs. Only a cancelled run ends the study.

    Args:
        walk: of each data set its name, its task (`recognition`, `reid`), and height and width (px) of its pictures in a
            small trial, for steps that mind the shape.
        smoke: small: sets the parameter `smoke` of each notebook that has one.
        out: the folder for the runs; default `outputs/`.
        deadline_s: seconds that each notebook may take.

    Raises:
        ValueError: no data set, an unknown task, or a notebook without the parameter `data`.
        FileNotFoundError: a notebook of the walk is not there.
        KeyboardInterrupt: cancelled before the next notebook had begun.
    """
    unknown = [task for _, task, _ in walk if task not in WALKS]
    if unknown or not walk:
        raise ValueError(f"Wanted data sets with a task of {', '.join(WALKS)}; found {unknown or 'no data set'}.")
    out = (out or outputs_folder()).resolve()
    steps = []
    for data, task, size in walk:
        for step in WALKS[task]:
            notebook = find_root() / "notebooks" / f"{step.notebook}.ipynb"
            declared = read_parameters(notebook)
            given: dict[str, object] = {"data": data, **step.parameters}
            if step.shaped:
                given["image_height"], given["image_width"] = size
            if smoke and any(parameter.name == "smoke" for parameter in declared):
                given["smoke"] = True
            check_parameters(declared, {**given, "embedder": "the one before"} if step.tuned else given)
            steps.append((notebook, given, step.tuned))
    out.mkdir(parents=True, exist_ok=True)
    log = out / "study.log"

    def say(text: str) -> None:
        print_line(text)
        # The terminal still has the line when the disk is full.
        with suppress(OSError), log.open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    folders: list[Path] = []
    embedder: str | None = None
    for number, (notebook, given, tuned) in enumerate(steps, start=1):
        if tuned and embedder is None:
            say(f"study {number}/{len(steps)}: {notebook.stem} is left out: the training before it gave no embedder")
            continue
        say(f"study {number}/{len(steps)}: {notebook.stem} on {given['data']}")
        if tuned:
            given = {**given, "embedder": embedder}
        started = run_many([(notebook, given)], 1, out=out, deadline_s=deadline_s, say=say)
        folders += started
        if not started:
            raise KeyboardInterrupt
        record = read_record(started[0])
        if record["status"] == "cancelled":
            break
        embedder = record["facts"].get("embedder_folder") if record["status"] == "ok" else None
    statuses = [read_record(folder)["status"] for folder in folders]
    for folder, status in zip(folders, statuses, strict=True):
        say(f"study: {status:9} {folder.name}")
    say(f"study: {statuses.count('ok')} of {len(steps)} runs are ok")
    say(f"study: {write_index(out)}")
    return folders
