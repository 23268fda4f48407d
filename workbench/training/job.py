"""A training as a file, for processes without a notebook: what notebook 02 was asked for, written down and trained.

`python -m torch.distributed.run --nproc-per-node 2 -m workbench.training.loop recipe.json` trains it on two GPUs of this
host; without `torch.distributed.run` one process does. A notebook that then trains the same recipe into the same folder
finds the training done and goes on to its questions.
"""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path

from workbench.data.card import check_keys
from workbench.data.catalog import Catalog, open_catalog
from workbench.models.embedder import open_embedder
from workbench.runs.files import write_json
from workbench.runs.streams import escape_unprintable
from workbench.training.distributed import check_parts, joined_group, rank_and_world
from workbench.training.loop import print_line, train
from workbench.training.parts import choose_parts
from workbench.training.recipe import Recipe
from workbench.training.result import TrainingResult

_INTERRUPTED = 130


@dataclass(frozen=True)
class Job:
    """A training in full; the fields are the parameters of notebook 02.

    Attributes:
        recipe: how to train, its seed included.
        data, data_root: of `data.catalog.open_catalog`; an empty root looks for the images.
        splits: to learn from, to validate on, joined with a comma (see `parts.split_for_training`).
        fold: such as 0/5, whose classes are held out; empty for none.
        embedder, trunk_weights: where to start (see `models.embedder.open_embedder`).
        image_size: height and width, px; None is the trunk's own.
        seed: of the first weights, where they are random.
        smoke: whether to train on the few images of a smoke run.
        folder: of checkpoints and embedder; a relative one lies beside the file.
        device: auto, cpu or cuda.
    """

    recipe: Recipe
    data: str
    embedder: str
    data_root: str = ""
    splits: str = "train, val"
    fold: str = ""
    trunk_weights: str = "pretrained"
    image_size: tuple[int, int] | None = None
    seed: int = 0
    smoke: bool = False
    folder: str = "training"
    device: str = "auto"


def write_job(path: Path, job: Job) -> None:
    """Writes the job to `path` as JSON, whole or not at all. Paths to data and weights that exist become absolute."""
    absolute = {
        name: str(Path(given).resolve())
        for name, given in (
            ("data_root", job.data_root),
            ("embedder", job.embedder),
            ("trunk_weights", job.trunk_weights),
        )
        if Path(given).is_file() or (given and Path(given).is_dir())
    }
    write_json(Path(path), {**asdict(job), **absolute, "recipe": job.recipe.to_dict()})


def read_job(path: Path) -> Job:
    """The job that `write_job` wrote, its folder absolute.

    Raises:
        ValueError: no such file, no JSON, an unknown or missing field, a value of another type, or a recipe that is refused.
    """
    path = Path(path)
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}. Notebook 02 writes it.") from error
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}. Write it anew with notebook 02.") from error
    if not isinstance(described, dict):
        raise ValueError(f"{path} holds a {type(described).__name__}, where the fields of a training are wanted.")
    try:
        check_keys(described, [field.name for field in fields(Job)], "field")
        missing = [one.name for one in fields(Job) if one.default is MISSING and one.name not in described]
        if missing:
            raise ValueError(f"the field {', '.join(missing)} is missing.")
        _check_types(described)
        given = {**described, "recipe": Recipe.from_dict(described["recipe"])}
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    if given.get("image_size") is not None:
        given["image_size"] = tuple(given["image_size"])
    job = Job(**given)
    return replace(job, folder=str(path.resolve().parent / Path(job.folder).expanduser()))


def run_job(job: Job) -> TrainingResult:
    """What the training gave, in each process of the group that `torch.distributed.run` started, or in this one alone.

    Raises:
        ValueError: a batch that cannot be shared out to the processes, before any image is read; and what
            `loop.train` raises.
    """
    with joined_group(job.device) as device:
        check_parts(job.recipe)
        train_part, val_part = _parts(job)
        before = open_embedder(
            job.embedder,
            job.trunk_weights,
            image_size=job.image_size,
            seed=job.seed,
        )
        return train(job.recipe, before, train_part, val_part, Path(job.folder), device=device)


def _parts(job: Job) -> tuple[Catalog, Catalog]:
    """The images to learn from and to validate on, as notebook 02 chooses them."""
    catalog = open_catalog(job.data, job.data_root or None)
    catalog = catalog.thin(num_labels=8, num_images=6) if job.smoke else catalog
    train_part, val_part, _ = choose_parts(catalog, job.splits, job.fold, job.recipe)
    return train_part, val_part


def _check_types(described: dict[str, object]) -> None:
    size = described.get("image_size")
    kinds = {"recipe": dict, "image_size": type(None), "seed": int, "smoke": bool}
    if isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size):
        kinds["image_size"] = list
    for name, value in described.items():
        if type(value) is not kinds.get(name, str):
            raise ValueError(f"the field {name} cannot be {value!r}.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains the job of a file; SIGTERM, by which hosts end processes, is like Ctrl-C: a checkpoint is saved first."""
    escape_unprintable()
    parser = argparse.ArgumentParser("python -m workbench.training.loop", description="Trains what a file says.")
    parser.add_argument("job", type=Path, metavar="recipe.json", help="written by notebook 02")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        result = run_job(read_job(asked.job))
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except Exception as error:
        rank, world = rank_and_world()
        print_line(f"process {rank} of {world} stopped: {type(error).__name__}: {error}")
        raise
    if rank_and_world()[0] == 0:
        print_line(f"trained {result.last_step} steps; the embedder is in {result.folder / 'embedder'}")
