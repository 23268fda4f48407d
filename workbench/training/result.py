"""What a training gave: the tuned embedder, its history and its cost."""

import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from workbench.models.embedder import Embedder, load_embedder
from workbench.training.checkpoint import load_best
from workbench.training.distributed import by_writer
from workbench.training.losses import TrainingLoss
from workbench.training.prepare import Prepared
from workbench.training.recipe import Recipe
from workbench.training.state import TrainingState, set_checkpointing
from workbench.training.validation import per_image_table

_VALIDATION_COLUMNS = ["step", "accuracy", "num_images", "num_classes", "answers_by"]


@dataclass(frozen=True)
class TrainingResult:
    """What a training gave.

    Attributes:
        embedder: tuned, on the CPU, in evaluation mode: of the best validation, or of the last step without one; the
            moving average where the recipe keeps one. Also saved in `folder`/embedder.
        history: one row an optimiser step: step (1 is the first), epoch, loss, `loss/<term>` for each of several terms
            before its weight (see `losses.TrainingLoss`), gradient_norm (before clipping), images_per_s, and
            `learning_rate/<block>` for each block as it stood in the optimiser (0 while it is frozen).
        validation: one row a validation: step, accuracy (mean over classes), num_images, num_classes, answers_by
            (classifier or class means, see `validation.predict_classes`).
        validation_images: one row a validation and image: step, path, label, predicted, correct.
        images_per_class: label, before (images there are) and after (samples an epoch).
        quarantine: part (train or val), row, path and reason of the images that were left out.
        content: fingerprint of what is in the images of each part, whatever their names.
        best_step: of the embedder; None where nothing was validated.
        last_step: optimiser steps done.
        cost: seconds, images, images_per_s, peak_memory_mib (of the GPU, else of this process), device, amp.
        folder: of the checkpoints and the embedder.
    """

    embedder: Embedder
    history: pd.DataFrame
    validation: pd.DataFrame
    validation_images: pd.DataFrame
    images_per_class: pd.DataFrame
    quarantine: pd.DataFrame
    content: dict[str, str]
    best_step: int | None
    last_step: int
    cost: dict[str, Any]
    folder: Path


def finish_training(
    state: TrainingState, recipe: Recipe, data: Prepared, described: dict[str, Any], folder: Path
) -> TrainingResult:
    """The result of a run that has done its last step; the embedder is saved in `folder`/embedder, once.

    It keeps the classifier that it was trained with, where the loss has one.

    Raises:
        ValueError: an embedder of another training is in the folder.
    """
    if state.best_step is not None:
        best = load_best(folder / "checkpoints", state.best_step)
        state.judged.load_state_dict(best["model"])
    embedder = state.judged["embedder"]
    assert isinstance(embedder, Embedder)
    if recipe.gradient_checkpointing:
        set_checkpointing(embedder, False)
    if recipe.lora_rank:
        from workbench.training.lora import merge_lora  # peft takes seconds to import

        merge_lora(embedder.trunk)
    classes = [str(name) for name in data.class_names]
    loss = state.judged["loss"]
    assert isinstance(loss, TrainingLoss)
    classifier = loss.classifier()
    embedder.attach_classifier(classifier, classes if classifier is not None else ())
    embedder.to("cpu").to(memory_format=torch.contiguous_format)
    embedder.requires_grad_(True).eval()
    used = state.best_step or state.step
    about = {"training": described, "recipe": recipe.to_dict(), "step": used, "classes": classes}
    by_writer(lambda: _save_once(embedder, folder / "embedder", about))
    num_images = state.step * recipe.batch_size
    return TrainingResult(
        embedder=embedder,
        history=_history(state),
        validation=pd.DataFrame(state.validations, columns=_VALIDATION_COLUMNS),
        validation_images=per_image_table(state.predictions, data.validation_catalog, data.class_names),
        images_per_class=data.sampler.images_per_class(data.class_names),
        quarantine=data.quarantine,
        content={part: one["content"] for part, one in data.images.items()},
        best_step=state.best_step,
        last_step=state.step,
        cost={
            "seconds": state.seconds,
            "images": num_images,
            "images_per_s": num_images / max(state.seconds, 1e-9),
            "peak_memory_mib": _peak_mib(state.device),
            "device": torch.cuda.get_device_name(state.device) if state.device.type == "cuda" else "cpu",
            "amp": recipe.amp if state.device.type == "cuda" else "off",
        },
        folder=folder,
    )


def _save_once(embedder: Embedder, path: Path, about: dict[str, Any]) -> None:
    if not path.is_dir():
        embedder.save(path, **about)
    elif load_embedder(path).fingerprint() != embedder.fingerprint():
        raise ValueError(f"{path} holds another embedder than this training gave; remove it or take another folder.")


def _history(state: TrainingState) -> pd.DataFrame:
    return pd.DataFrame(state.rows, columns=state.columns).astype({"step": "int64"} if state.columns else {})


def _peak_mib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    in_kib = 1 if sys.platform != "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / in_kib / 1024
