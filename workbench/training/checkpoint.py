"""Checkpoints: written whole, named by their content's checksum, the newest two and the best kept.

A folder holds `checkpoint_<step>_<sha256>.pt` (everything a run needs to go on) and `best_<step>_<sha256>.pt` (the weights
that validated best). A file whose content does not have the checksum in its name is damaged, and is said to be.
"""

import hashlib
import os
import random
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.runs.files import sha256_of

NUM_KEPT = 2
"""The newest, and the one before it in case the newest is damaged."""

_NAME = re.compile(r"(checkpoint|best)_(\d{8})_([0-9a-f]{16})\.pt")


class CheckpointError(RuntimeError):
    """Checkpoints are there and none of them can be used."""


def save_checkpoint(folder: Path, state: dict[str, Any], step: int, kind: str = "checkpoint") -> Path:
    """The path of the checkpoint, which is on the disk whole, or not there at all, whenever the process dies.

    Args:
        folder: made when it does not exist.
        state: tensors, numbers, text, and lists and dicts of them.
        step: optimiser steps done.
        kind: `checkpoint` or `best`.

    Raises:
        OSError: the disk is full or the folder cannot be written; what was there before stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{kind}.")
    try:
        with os.fdopen(handle, "w+b") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            checksum = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        path = folder / f"{kind}_{step:08d}_{checksum}.pt"
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, RuntimeError):  # torch's writer turns a full disk into one
            raise OSError(f"The checkpoint of step {step} could not be written to {folder}: {error}") from error
        raise
    _sync_folder(folder)
    return path


def prune_checkpoints(folder: Path, best_step: int | None) -> None:
    """Deletes all but the newest checkpoints, the best weights that they refer to, and what killed writes left."""
    newest = sorted(_listed(folder, "checkpoint"), reverse=True)[:NUM_KEPT]
    best = {best_step, *_best_of_older(folder, newest)}
    kept = {path for step, path in _listed(folder, "checkpoint").items() if step in newest}
    kept |= {path for step, path in _listed(folder, "best").items() if step in best}
    for path in set(folder.glob("*.pt")) - kept:
        if _NAME.fullmatch(path.name):
            path.unlink()
    for left in [*folder.glob(".checkpoint.*"), *folder.glob(".best.*")]:
        left.unlink(missing_ok=True)


def load_newest(folder: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """The state of the newest whole checkpoint, on the CPU, or None where there is none at all.

    Args:
        folder: of the checkpoints; need not exist.
        warn: called with one line for each damaged checkpoint that is passed over.

    Raises:
        CheckpointError: there are checkpoints and all are damaged.
    """
    by_step = _listed(folder, "checkpoint")
    for step in sorted(by_step, reverse=True):
        try:
            return read_checkpoint(by_step[step])
        except CheckpointError as error:
            warn(f"WARNING: {error} Going back to the checkpoint before it.")
    if by_step:
        raise CheckpointError(
            f"All {len(by_step)} checkpoints in {folder} are damaged. Remove the folder to train from the beginning."
        )
    return None


def load_best(folder: Path, step: int) -> dict[str, Any]:
    """The weights that validated best, at `step`.

    Raises:
        CheckpointError: they are not there or damaged.
    """
    path = _listed(folder, "best").get(step)
    if path is None:
        raise CheckpointError(f"The best weights, of step {step}, are not in {folder}. Train again in another folder.")
    return read_checkpoint(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in one checkpoint file, on the CPU, after its checksum was compared.

    Raises:
        CheckpointError: the content is not what was written.
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise CheckpointError(f"{path} is not named as a checkpoint is.")
    try:
        checksum = sha256_of(path)[:16]
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    if checksum != match.group(3):
        raise CheckpointError(f"{path} is damaged: its content is not what was written.")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of the random generators of Python, numpy, torch and the GPU, as plain numbers and tensors."""
    kind, words, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002  # other libraries draw from it
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(words, dtype=np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Puts the generators where `random_states` found them."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    kind, numpy_words, position, has_gauss, numpy_gauss = states["numpy"]
    np.random.set_state((kind, numpy_words.numpy().astype(np.uint32), position, has_gauss, numpy_gauss))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"], device)


def _listed(folder: Path, kind: str) -> dict[int, Path]:
    """The files of one kind by step; of two with one step (written by two tries) the younger."""
    found: dict[int, Path] = {}
    for path in sorted(folder.glob(f"{kind}_*.pt"), key=lambda path: path.stat().st_mtime_ns):
        if match := _NAME.fullmatch(path.name):
            found[int(match.group(2))] = path
    return found


def _best_of_older(folder: Path, newest: list[int]) -> list[int]:
    """Steps of best weights that an older kept checkpoint may refer to: all up to the oldest kept one's step, its last."""
    if len(newest) < NUM_KEPT:
        return []
    earlier = [step for step in _listed(folder, "best") if step <= newest[-1]]
    return [max(earlier)] if earlier else []


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
