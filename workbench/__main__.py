"""The command line: `python -m workbench`. It parses, calls and prints; the exit code is 0, 1 (failed) or 2 (refused)."""

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from workbench.headless.batch import resume_run, run_many
from workbench.headless.index import duration, headline, write_index
from workbench.headless.recipe_table import Plan, compare_recipes
from workbench.headless.study import study
from workbench.headless.sweeps import expand_sweeps, read_sweep
from workbench.retrieval.command_options import add_options, positive
from workbench.runs.parameters import ParameterError, read_parameters
from workbench.runs.record import list_runs, read_record
from workbench.runs.root import find_root, outputs_folder
from workbench.runs.streams import escape_unprintable

Command = Callable[[argparse.Namespace], int]


class Refusal(Exception):
    """A command that cannot be begun; the message says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 ok, 1 something failed, 2 refused before it began, with the reason on standard error."""
    escape_unprintable()
    options = _build_parser().parse_args(arguments)
    command: Command = options.command
    try:
        return command(options)
    except (Refusal, ParameterError, FileNotFoundError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("cancelled", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    notebook = _find_notebook(options.notebook)
    given = _split_pairs(options.parameter, "-p")
    swept = _split_pairs(options.sweep, "--sweep")
    declared = read_parameters(notebook) if swept else []
    sweeps = {name: read_sweep(name, text, declared) for name, text in swept.items()}
    twice = sorted(given.keys() & sweeps.keys())
    if twice:
        raise Refusal(f"{', '.join(twice)} is given by both -p and --sweep.")
    runs = [(notebook, {**given, **point}) for point in expand_sweeps(sweeps)]
    folders = run_many(runs, options.jobs, out=options.out, deadline_s=options.deadline)
    ok = [folder for folder in folders if read_record(folder)["status"] == "ok"]
    if len(runs) > 1:
        print(f"{len(ok)} of {len(runs)} runs are ok; {(options.out or outputs_folder()) / 'index.html'}")
    return 0 if len(ok) == len(runs) else 1


def _study(options: argparse.Namespace) -> int:
    from workbench.data.card import CardError, read_card
    from workbench.data.image_size import small_size

    try:
        cards = [read_card(name.split("+")[0]) for name in options.data]  # of sets joined with + the first counts
    except CardError as error:
        raise Refusal(str(error)) from error
    try:
        walk = [(name, card.task, small_size(card)) for name, card in zip(options.data, cards, strict=True)]
        folders = study(walk, options.smoke, out=options.out, deadline_s=options.deadline)
    except ValueError as error:
        raise Refusal(str(error)) from error
    return 0 if all(read_record(folder)["status"] == "ok" for folder in folders) else 1


def _recipes(options: argparse.Namespace) -> int:
    sizes = {"num_steps": options.steps, "base_steps": options.base_steps}
    given = {name: value for name, value in sizes.items() if value is not None}
    plan = Plan(
        options.data, tuple(options.recipes), options.trunk, tuple(options.seeds), tuple(options.rate_factors), **given
    )
    try:
        folders = compare_recipes(plan, jobs=options.jobs, out=options.out, deadline_s=options.deadline)
    except ValueError as error:
        raise Refusal(str(error)) from error
    records = [read_record(folder) for folder in folders]
    compared = bool(records) and records[-1]["notebook"] == "07_compare_runs"
    return 0 if compared and all(record["status"] == "ok" for record in records) else 1


def _tour(options: argparse.Namespace) -> int:
    from workbench.headless.tour import choose_stops, take_tour

    try:
        stops = choose_stops(options.names)
        for picture in take_tour(options.out or outputs_folder(), find_root() / ".github" / "tour", stops):
            print(picture)
    except (ValueError, RuntimeError) as error:
        raise Refusal(str(error)) from error
    return 0


def _resume(options: argparse.Namespace) -> int:
    folder = _find_run(options.run, options.out or outputs_folder())
    if folder is None:
        raise Refusal(f"There is no run {options.run!r}; `python -m workbench runs` lists them.")
    try:
        resumed = resume_run(folder, deadline_s=options.deadline, host_gone=options.host_gone)
    except ValueError as error:
        raise Refusal(str(error)) from error
    return 0 if read_record(resumed)["status"] == "ok" else 1


def _runs(options: argparse.Namespace) -> int:
    outputs = options.out or outputs_folder()
    for folder, record in list_runs(outputs):
        data = record["parameters"].get("data") or ""
        print(
            f"{record['status']:9}  {folder.name}  {data}  {duration(record.get('seconds'))}  {headline(folder)}".rstrip()
        )
    print(write_index(outputs))
    return 0


def _report(options: argparse.Namespace) -> int:
    from workbench.report.html import write_report

    outputs = options.out or outputs_folder()
    folder = _find_run(options.target, outputs)
    try:
        if folder is not None:
            report = folder / "report.html"
            write_report(folder / "output.ipynb", report, read_record(folder))
            write_index(folder.parent)
        else:
            notebook = _find_notebook(options.target)
            report = outputs / f"{notebook.stem}.html"
            write_report(notebook, report)
    except ValueError as error:
        raise Refusal(str(error)) from error
    print(report)
    return 0


def _data_list(options: argparse.Namespace) -> int:
    from workbench.data.card import list_cards

    for card in list_cards():
        print(f"{card.name:24} {card.task:12} {card.title}")
    return 0


def _data_check(options: argparse.Namespace) -> int:
    from workbench.data.card import CardError
    from workbench.data.catalog import open_catalog

    try:
        catalog = open_catalog(options.name, options.data_root)
    except CardError as error:
        raise Refusal(str(error)) from error
    except (OSError, ValueError) as error:
        print(f"{options.name}: {error}", file=sys.stderr)
        return 1
    print(catalog.summary().to_string(index=False))
    for name, splits in catalog.missing_splits.items():
        if splits:
            print(f"{name}: not among the files: {', '.join(splits)}")
    for note in catalog.notes:
        print(f"note: {note}")
    for name, card in catalog.cards.items():
        for issue in card.known_issues:
            print(f"known issue of {name}: {issue}")
    print(f"{len(catalog)} images, fingerprint {catalog.fingerprint}")
    return 0


def _data_fetch(options: argparse.Namespace) -> int:
    from workbench.data.card import CardError, read_card
    from workbench.data.download import FetchRefused, fetch_set

    def say(line: str) -> None:
        print(f"{options.name}: {line}", flush=True)

    try:
        folder = fetch_set(read_card(options.name), options.to, options.unchecked, say)
    except (CardError, FetchRefused) as error:
        raise Refusal(str(error)) from error
    print(folder)
    return 0


def _data_draft(options: argparse.Namespace) -> int:
    from workbench.data.draft_card import draft_folder

    try:
        written = draft_folder(options.folder, options.out, options.measure)
    except (FileExistsError, ValueError) as error:
        raise Refusal(str(error)) from error
    for path in written:
        print(path)
    return 0


def _models_fetch(options: argparse.Namespace) -> int:
    from workbench.models.trunk import fetch_weights

    try:
        fetched = fetch_weights(options.trunk)
    except ValueError as error:
        raise Refusal(str(error)) from error
    for name, value in fetched.items():
        print(f"{name}: {value}")
    return 0


def _recognise(options: argparse.Namespace) -> int:
    from workbench.export.folder import ExportError
    from workbench.export.runtimes import open_any
    from workbench.retrieval.commands import change_gallery, recognise_images

    answer = change_gallery if "action" in options else recognise_images
    try:
        return answer(options, open_any)
    except (ValueError, ExportError) as error:
        raise Refusal(str(error)) from error


def _find_notebook(text: str) -> Path:
    """The notebook at that path, or the one of that name in `notebooks/`."""
    folder = find_root() / "notebooks"
    for path in (Path(text), folder / text, folder / f"{text}.ipynb"):
        if path.suffix == ".ipynb" and path.is_file():
            return path.resolve()
    names = sorted(path.stem for path in folder.glob("*.ipynb"))
    raise Refusal(f"There is no notebook {text!r}{_hint(text, names)} There are: {', '.join(names) or 'none'}.")


def _find_run(text: str, outputs: Path) -> Path | None:
    """The run folder at that path, or the one run in `outputs` whose name contains the text; None without one."""
    for path in (Path(text), outputs / text):
        if (path / "run.json").is_file():
            return path.resolve()
    if text.endswith(".ipynb") or (find_root() / "notebooks" / f"{text}.ipynb").is_file():
        return None
    found = [folder for folder, _ in list_runs(outputs) if text in folder.name]
    if len(found) > 1:
        raise Refusal(f"{len(found)} runs have {text!r} in their names: {', '.join(path.name for path in found[:5])}.")
    return found[0] if found else None


def _hint(text: str, names: list[str]) -> str:
    near = difflib.get_close_matches(text, names, n=1)
    return f". Did you mean {near[0]!r}?" if near else "."


def _split_pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise Refusal(f"{option} wants name=value, found {text!r}.")
        if name in pairs:
            raise Refusal(f"{option} gives {name!r} twice.")
        pairs[name] = value
    return pairs


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workbench", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, command: Command, words: str, group: argparse._SubParsersAction | None = None
    ) -> argparse.ArgumentParser:
        child: argparse.ArgumentParser = (group or commands).add_parser(
            name, help=words, description=words, allow_abbrev=False
        )
        child.set_defaults(command=command)
        return child

    run = add("run", _run, "run a notebook headless: its folder, record and report")
    run.add_argument("notebook", metavar="NOTEBOOK", help="a path, or the name of one in notebooks/")
    run.add_argument("-p", dest="parameter", action="append", default=[], metavar="name=value")
    run.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="name=a,b",
        help='one run for each combination; "a,b",c keeps a comma',
    )
    run.add_argument("--jobs", type=positive(int), default=1, metavar="N", help="how many run at once (1)")
    walk = add("study", _study, "run the notebooks of the study, one after the other")
    walk.add_argument("--data", nargs="+", required=True, metavar="NAME", help="names or paths of data cards")
    walk.add_argument("--smoke", action="store_true", help="small and quick")
    recipes = add("recipes", _recipes, "compare recipes fairly: one trunk, rates chosen on a grid, several seeds")
    recipes.add_argument("recipes", nargs="+", metavar="RECIPE", help="recipes of notebook 02")
    recipes.add_argument("--data", required=True, metavar="NAME", help="name or path of a data card")
    recipes.add_argument(
        "--trunk", default="timm:test_resnet", metavar="TRUNK", help="trained here from random weights"
    )
    recipes.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    recipes.add_argument("--rate-factors", nargs="+", type=positive(float), default=[1.0, 10.0], metavar="X")
    recipes.add_argument("--steps", type=positive(int), metavar="N", help="of each recipe")
    recipes.add_argument("--base-steps", type=positive(int), metavar="N", help="of the trunk's own training")
    recipes.add_argument("--jobs", type=positive(int), default=1, metavar="N", help="how many run at once (1)")
    resume = add("resume", _resume, "run a notebook again in the folder of a run that did not end well")
    resume.add_argument("run", metavar="RUN", help="a run's folder, or a part of its name")
    resume.add_argument(
        "--host-gone", action="store_true", help="take over a run whose record names another host, which has ended it"
    )
    for child in (run, walk, recipes, resume):
        child.add_argument("--deadline", type=positive(float), metavar="S", help="seconds that each run may take")
    tour = add("tour", _tour, "take the pictures of the README's tour from the latest runs")
    tour.add_argument("names", nargs="*", metavar="NAME", help="of the pictures, such as map (all)")
    runs = add("runs", _runs, "list the runs, newest first, and write index.html")
    report = add("report", _report, "render a run, or a notebook saved with its outputs, as one HTML file")
    report.add_argument("target", metavar="NOTEBOOK|RUN")
    for child in (run, walk, recipes, resume, tour, runs, report):
        child.add_argument("--out", type=Path, metavar="DIR", help="the folder of the runs (outputs/)")
    data = commands.add_parser("data", help="the data sets").add_subparsers(required=True, metavar="COMMAND")
    add("list", _data_list, "list the data cards", data)
    check = add("check", _data_check, "hold the files of a set against its card", data)
    check.add_argument("name", metavar="NAME")
    check.add_argument("--data-root", type=Path, metavar="DIR", help="where the set lies")
    get = add("fetch", _data_fetch, "download a set that is given out freely, or say how to come by it", data)
    get.add_argument("name", metavar="NAME")
    get.add_argument("--to", type=Path, metavar="DIR", help="DIR/NAME will hold it ($WORKBENCH_DATA, else data/)")
    get.add_argument("--unchecked", action="store_true", help="take an archive whose sha256 the card does not know")
    draft = add("draft", _data_draft, "write a draft card, and Croissant metadata, for a folder of your own", data)
    draft.add_argument("folder", type=Path, metavar="FOLDER", help="class folders, or split folders with these in them")
    draft.add_argument("--out", type=Path, metavar="CARD", help="the card to write (FOLDER's name, .md, here)")
    draft.add_argument("--measure", action="store_true", help="decode every picture: sizes, blur, identical files")
    models = commands.add_parser("models", help="the trunks").add_subparsers(required=True, metavar="COMMAND")
    fetch = add("fetch", _models_fetch, "download a trunk's weights into the library's own cache", models)
    fetch.add_argument("trunk", metavar="TRUNK")
    words = "the nearest labels, how sure they are, and the decision: a label or unknown"
    asked = add("recognise", _recognise, words)
    gallery = commands.add_parser("gallery", help="the references that recognise searches")
    changes = gallery.add_subparsers(required=True, metavar="COMMAND", dest="action")
    build = add("build", _recognise, "make a gallery of a set's references, and measure it", changes)
    extend = add("add", _recognise, "add pictures, all or none", changes)
    remove = add("remove", _recognise, "remove labels with all their references", changes)
    measure = add("measure", _recognise, "measure thresholds and probabilities anew", changes)
    show = add("show", _recognise, "what a gallery holds and what was measured", changes)
    add_options(asked, build, extend, remove, measure, show)
    return parser


if __name__ == "__main__":
    exit_code = main()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our lines has gone; without this Python would change the exit code over it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(exit_code)
