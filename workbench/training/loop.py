"""The training loop: from a recipe, an embedder and a catalog to a tuned embedder, through checkpoints."""

import copy
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.data.catalog import Catalog
from workbench.models.device import choose_device
from workbench.models.embedder import Embedder
from workbench.runs.owner import hold
from workbench.training.checkpoint import (
    load_newest,
    prune_checkpoints,
    save_checkpoint,
)
from workbench.training.distributed import (
    anywhere,
    by_writer,
    check_alike,
    check_parts,
    draw_apart,
    is_writer,
    rank_and_world,
)
from workbench.training.frozen_features import can_embed_once
from workbench.training.interrupts import deferred_interrupts
from workbench.training.loading import load_batches
from workbench.training.losses import TrainingLoss
from workbench.training.memory import check_memory, estimate_memory
from workbench.training.prepare import Prepared, check_same_run, describe_run, embed_frozen, prepare, ready_embedder
from workbench.training.rates import frozen_parts, rate_factor, read_rates, set_phase, set_rates
from workbench.training.recipe import Recipe
from workbench.training.result import TrainingResult, finish_training
from workbench.training.state import TrainingState, build_state, num_steps_of
from workbench.training.steps import TrainingDivergedError, optimise, update_average
from workbench.training.surroundings import own_surroundings
from workbench.training.validation import answers_by, class_accuracy, predict_classes

OnStep = Callable[[dict[str, float]], None]
Log = Callable[[str], None]
_LOG_EVERY_S = 10.0


def print_line(line: str) -> None:
    """Prints a line that can be read in a terminal, a notebook and a log file."""
    print(line, flush=True)  # noqa: T201


def _say_nothing(_: str) -> None:
    pass


def train(
    recipe: Recipe,
    embedder: Embedder,
    train: Catalog,
    val: Catalog | None,
    folder: Path,
    *,
    device: str = "auto",
    on_step: OnStep | None = None,
    log: Log = print_line,
) -> TrainingResult:
    """The tuned embedder and how it came about. A folder with checkpoints of the same run is gone on with.

    On a CPU a run that was interrupted or killed ends with the same bits as one that was not (same number of threads).
    Ctrl-C ends the step, saves a checkpoint and then raises KeyboardInterrupt; a second Ctrl-C raises at once.

    In a group of processes (see `distributed`) `recipe.batch_size` is of all together, each computes an equal part, and
    `on_step` and `log` are called in process 0 alone. A run may be gone on with another number of processes, though
    then not with the same bits.

    Args:
        recipe: what to do.
        embedder: where to start; it is not changed.
        train: images with labels; those that cannot be decoded are left out and listed in the result.
        val: other images of the same classes (see `sampling.hold_out`), or None for no validation.
        folder: of this training alone; checkpoints/ and embedder/ are made in it.
        device: auto, cpu, cuda, cuda:1, ...
        on_step: called after each step with its row of the history.
        log: called with a line of text every few seconds.

    Raises:
        ValueError: data or recipe that cannot be trained with; checkpoints of another run in the folder.
        QuarantineError: more than 1 % of the images cannot be decoded.
        DeviceMemoryError: it will not fit into the GPU's free memory.
        TrainingDivergedError: loss or gradient is not finite; the last checkpoint stays.
        CheckpointError: all checkpoints in the folder are damaged.
        FolderInUseError: another process trains in the folder.
        OSError: a checkpoint could not be written; those before it stay.
    """
    check_parts(recipe)
    folder = Path(folder)
    chosen = choose_device(device)
    if not is_writer():
        on_step, log = None, _say_nothing
    described = describe_run(recipe, embedder, train, val)
    own = ready_embedder(copy.deepcopy(embedder), recipe)
    with hold(folder) if is_writer() else nullcontext():
        with own_surroundings(recipe.seed, chosen):
            saved = load_newest(folder / "checkpoints", log)
            if saved is not None:
                check_same_run(saved["run"], described, folder)
            check_alike("run, or another checkpoint of it,", [described, None if saved is None else saved["step"]])
            data = prepare(recipe, own.preprocessing, train, val, saved)
            contents = [one["content"] for one in data.images.values()]
            check_alike("list of images that cannot be used", [data.quarantine.to_numpy().tolist(), contents])
            num_steps = num_steps_of(recipe, data.sampler.num_samples)
            if chosen.type == "cuda":
                free_mib = torch.cuda.mem_get_info(chosen)[0] / 2**20
                part = replace(recipe, batch_size=recipe.batch_size // rank_and_world()[1])
                check_memory(estimate_memory(own, part, len(data.class_names)), free_mib, part)
                torch.cuda.reset_peak_memory_stats(chosen)
            num_images_C = data.sampler.images_per_class(data.class_names)["before"].to_numpy()
            state = build_state(own, recipe, num_images_C, chosen)
            state.quarantine = data.quarantine.to_numpy().tolist()
            log(_opening_line(recipe, data, num_steps, chosen))
            state.images = data.images
            if saved is not None:
                state.unpack(saved)
                log(f"going on after step {state.step} of {num_steps}")
            if can_embed_once(own, recipe) and state.step < num_steps:
                started = time.monotonic()
                data = embed_frozen(data, own, recipe, chosen)
                state.seconds += time.monotonic() - started
                log(f"the frozen trunk has embedded all images once, in {time.monotonic() - started:.1f} s")
            _run(state, recipe, data, num_steps, folder / "checkpoints", described, on_step, log)
        return finish_training(state, recipe, data, described, folder)


def _run(
    state: TrainingState,
    recipe: Recipe,
    data: Prepared,
    num_steps: int,
    checkpoints: Path,
    described: dict[str, Any],
    on_step: OnStep | None,
    log: Log,
) -> None:
    """All steps that are still to do, with their validations and checkpoints."""
    size = recipe.batch_size
    samples = data.sampler.batches(state.step * size, size, num_steps - state.step, *rank_and_world())
    batches = load_batches(data.training, samples, recipe.num_workers, pin=state.device.type == "cuda")
    first_step, saved_step, seconds_before = state.step, state.step, state.seconds
    started = logged = last = time.monotonic()
    frozen: frozenset[str] | None = None
    together = rank_and_world()[1] == 1  # whether all processes are in the same place

    def write() -> None:
        save_checkpoint(checkpoints, {**state.pack(), "run": described}, state.step)
        prune_checkpoints(checkpoints, state.best_step)

    def save() -> None:
        nonlocal saved_step
        by_writer(write)
        saved_step = state.step

    with deferred_interrupts() as interrupted:
        try:
            while state.step < num_steps:
                state.whole = False
                if frozen != (wanted := frozen_parts(recipe, state.step)):
                    frozen = wanted
                    set_phase(state.embedder, state.optimizer, frozen, recipe.freeze_batchnorm)
                inputs, label_N = next(batches)
                row = _step(state, recipe, num_steps, inputs, label_N)
                now = time.monotonic()
                row = {
                    "epoch": state.step * size / data.sampler.num_samples,
                    "images_per_s": size / (now - last),
                    **row,
                }
                row = {"step": state.step, **row}
                state.note(row)
                ends = state.step == num_steps
                if ends or now - logged > _LOG_EVERY_S:
                    left_s = (num_steps - state.step) * (now - started) / (state.step - first_step)
                    log(_step_line(row, num_steps, left_s))
                    logged = now
                if data.validation is not None and (ends or state.step % recipe.validation_interval == 0):
                    _validate(state, recipe, data, checkpoints, log)
                    frozen = None  # the validation left evaluation mode behind
                last = time.monotonic()
                state.seconds = seconds_before + last - started
                state.whole = True
                if on_step is not None:
                    on_step(row)
                if anywhere(interrupted()):
                    together = True
                    raise KeyboardInterrupt
                if ends or state.step % recipe.checkpoint_interval == 0:
                    save()
        except KeyboardInterrupt:
            if together and state.whole and state.step > saved_step:
                save()
            log(f"interrupted: step {saved_step} of {num_steps} is saved in {checkpoints}")
            raise
        except TrainingDivergedError as error:
            kept = f"the checkpoint of step {saved_step} is kept" if saved_step else "there was no checkpoint yet"
            raise TrainingDivergedError(
                f"Training stopped in step {state.step + 1} of {num_steps}: {error}; {kept} in {checkpoints}. Lower the "
                "learning rates, warm up longer, clip the gradient (clip_grad=1), or use bfloat16 instead of float16."
            ) from error


def _step(
    state: TrainingState, recipe: Recipe, num_steps: int, inputs: torch.Tensor, label_N: torch.Tensor
) -> dict[str, float]:
    """Does one optimiser step; its loss, gradient norm and the rates it was done with."""
    schedule = (recipe.warmup_steps, recipe.schedule, recipe.milestones, recipe.gamma)
    draw_apart(recipe.seed, state.step)
    factor = rate_factor(state.step, num_steps, *schedule)
    set_rates(state.optimizer, factor, frozen_parts(recipe, state.step))
    inputs = inputs.to(state.device, non_blocking=True)
    label_N = label_N.to(state.device, non_blocking=True)
    parts = (state.embedder, state.loss, state.optimizer, state.scaler)
    outcome = optimise(*parts, inputs, label_N, recipe, state.center_optimizer)
    rates = read_rates(state.optimizer)
    state.step += 1
    if state.average is not None:
        update_average(state.average, state.model, recipe.ema_decay, state.step)
    return {
        "loss": outcome.loss,
        **{f"loss/{name}": value for name, value in outcome.terms.items()},
        "gradient_norm": outcome.gradient_norm,
        **{f"learning_rate/{name}": rate for name, rate in rates.items()},
    }


def _validate(state: TrainingState, recipe: Recipe, data: Prepared, checkpoints: Path, log: Log) -> None:
    """Adds a validation to the state, and writes the weights down where they are the best so far."""
    assert data.validation is not None
    judged = state.judged
    embedder, loss = judged["embedder"], judged["loss"]
    assert isinstance(embedder, Embedder)
    assert isinstance(loss, TrainingLoss)
    predicted_V = predict_classes(embedder, loss, data.validation, data.references, recipe, state.device)
    accuracy = class_accuracy(data.validation_labels, predicted_V)
    counts = {"num_images": len(predicted_V), "num_classes": len(np.unique(data.validation_labels))}
    found = {"step": state.step, "accuracy": accuracy, **counts, "answers_by": answers_by(recipe)}
    state.validations.append(found)
    state.predictions[state.step] = torch.from_numpy(predicted_V)
    if accuracy > state.best_accuracy:
        state.best_step, state.best_accuracy = state.step, accuracy
        names = [str(name) for name in data.class_names]
        best = {"model": judged.state_dict(), "classes": names}
        by_writer(lambda: save_checkpoint(checkpoints, best, state.step, kind="best"))
    log(
        f"step {state.step}: validation accuracy {accuracy:.3f} "
        f"(mean over {counts['num_classes']} classes, answered by the {found['answers_by']})"
    )


def _opening_line(recipe: Recipe, data: Prepared, num_steps: int, device: torch.device) -> str:
    world = rank_and_world()[1]
    precision = "float32" if device.type == "cpu" or recipe.amp == "off" else recipe.amp
    asked = f" ({recipe.amp} is for GPUs)" if device.type == "cpu" and recipe.amp != "off" else ""
    return (
        f"{recipe.name}: {num_steps} steps of {recipe.batch_size} images, {len(data.class_names)} classes, "
        f"{len(data.training):,} images, {data.sampler.num_samples:,} samples an epoch, {device.type}, {precision}{asked}"
        f"{f', {world} processes' * (world > 1)}"
    )


def _step_line(row: dict[str, float], num_steps: int, left_s: float) -> str:
    top = max(value for name, value in row.items() if name.startswith("learning_rate/"))
    return (
        f"step {row['step']:.0f} of {num_steps}, epoch {row['epoch']:.1f}, loss {row['loss']:.3f}, rate {top:.1e}, "
        f"gradient {row['gradient_norm']:.2f}, {row['images_per_s']:.0f} images/s, {left_s / 60:.1f} min left"
    )


if __name__ == "__main__":
    from torch.distributed.elastic.multiprocessing.errors import record

    from workbench.training.job import main

    record(main)()  # so that torch.distributed.run can tell which process failed first, and why
