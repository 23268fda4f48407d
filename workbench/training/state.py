"""Everything that changes while a model is trained, and how it becomes a checkpoint and comes back from one."""

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from workbench.models.embedder import Embedder
from workbench.training.blocks import blockwise_groups
from workbench.training.checkpoint import random_states, set_random_states
from workbench.training.distributed import share_batchnorm
from workbench.training.losses import TrainingLoss, build_loss
from workbench.training.rates import build_optimizer, set_training_mode
from workbench.training.recipe import Recipe
from workbench.training.steps import is_convnet


@dataclass
class TrainingState:
    """A run between two optimiser steps.

    Attributes:
        model: `embedder` and `loss`, together.
        optimizer, scaler: of torch; the scaler is disabled unless float16 is used.
        center_optimizer: of the centers, where the loss has such a term. Plain SGD: it remembers nothing between steps.
        average: the moving average of `model`, or None.
        device: where all of it is.
        step: optimiser steps done; batch size times this is the sampler's position, and the schedule follows from it.
        columns, rows: the history, one row a step.
        validations: one entry a validation: step, accuracy, num_images, num_classes, answers_by.
        predictions: the predicted classes at each validation, by step.
        best_step, best_accuracy: of the best validation; None and -1 before the first.
        seconds: spent so far, in all processes that worked on this run.
        quarantine: part, row, path and reason of each image that cannot be used.
        images: of each part, by what its images are known again (see `prepare.Prepared`).
        whole: False while a step is being computed; such a state is not worth saving.
    """

    model: nn.ModuleDict
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: nn.ModuleDict | None
    device: torch.device
    center_optimizer: torch.optim.Optimizer | None = None
    step: int = 0
    columns: list[str] = field(default_factory=list)
    rows: list[list[float]] = field(default_factory=list)
    validations: list[dict[str, Any]] = field(default_factory=list)
    predictions: dict[int, torch.Tensor] = field(default_factory=dict)
    best_step: int | None = None
    best_accuracy: float = -1.0
    seconds: float = 0.0
    quarantine: list[list[str]] = field(default_factory=list)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    whole: bool = True

    @property
    def embedder(self) -> Embedder:
        """The embedder that is trained."""
        embedder = self.model["embedder"]
        assert isinstance(embedder, Embedder)
        return embedder

    @property
    def loss(self) -> TrainingLoss:
        """The loss that is trained with."""
        loss = self.model["loss"]
        assert isinstance(loss, TrainingLoss)
        return loss

    @property
    def judged(self) -> nn.ModuleDict:
        """What is validated and saved: the moving average where there is one, else the model itself."""
        return self.model if self.average is None else self.average

    def note(self, row: dict[str, float]) -> None:
        """Adds a row to the history."""
        self.columns = list(row)
        self.rows.append(list(row.values()))

    def pack(self) -> dict[str, Any]:
        """Tensors, numbers and text from which `unpack` goes on bit for bit."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "random": random_states(self.device),
            "step": self.step,
            "columns": self.columns,
            "rows": torch.tensor(self.rows, dtype=torch.float64),
            "validations": self.validations,
            "predictions": self.predictions,
            "best_step": self.best_step,
            "best_accuracy": self.best_accuracy,
            "seconds": self.seconds,
            "quarantine": self.quarantine,
            "images": self.images,
        }

    def unpack(self, packed: dict[str, Any]) -> None:
        """Takes over what `pack` gave, the random generators' states included."""
        self.model.load_state_dict(packed["model"])
        self.optimizer.load_state_dict(packed["optimizer"])
        self.scaler.load_state_dict(packed["scaler"])
        if self.average is not None:
            self.average.load_state_dict(packed["average"])
        self.step, self.columns = packed["step"], packed["columns"]
        self.rows = [[float(value) for value in row] for row in packed["rows"]]
        self.validations, self.predictions = packed["validations"], packed["predictions"]
        self.best_step, self.best_accuracy = packed["best_step"], packed["best_accuracy"]
        self.seconds, self.quarantine = packed["seconds"], packed["quarantine"]
        set_random_states(packed["random"], self.device)


def build_state(embedder: Embedder, recipe: Recipe, num_images_C: np.ndarray, device: torch.device) -> TrainingState:
    """The state before the first step. The embedder is moved to the device and set up for training, in place.

    Args:
        embedder: made ready by `prepare.ready_embedder`; what needs no gradient in it is never trained.
        recipe: decides loss, optimiser, moving average and precision.
        num_images_C: int64 [C], training images of each class.
        device: of all of it.

    Raises:
        ValueError: gradient checkpointing for a trunk that cannot do it.
    """
    loss = build_loss(
        recipe,
        len(num_images_C),
        embedder.embedding_dim,
        classified_dim=embedder.classified_dim,
        classifier_bias=embedder.described["head"] != "bnneck",  # the neck puts the features about the origin
        num_images_C=num_images_C,
    )
    model = nn.ModuleDict({"embedder": share_batchnorm(embedder, device), "loss": loss}).to(device)
    if is_convnet(embedder):
        model.to(memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False).eval() if recipe.ema_decay else None
    set_training_mode(embedder, recipe.freeze_batchnorm)
    if recipe.gradient_checkpointing:
        set_checkpointing(embedder, True)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.amp == "float16" and device.type == "cuda")
    optimizer = build_optimizer(blockwise_groups(embedder, loss, recipe), recipe.optimizer)
    centers = list(loss.center_parameters())
    center_optimizer = torch.optim.SGD(centers, lr=recipe.learning_rate_center) if centers else None
    return TrainingState(nn.ModuleDict(model), optimizer, scaler, average, device, center_optimizer)  # type: ignore[arg-type]


def set_checkpointing(embedder: Embedder, enable: bool) -> None:
    """Switches the trunk's gradient checkpointing on or off.

    Raises:
        ValueError: the trunk has none.
    """
    setter = getattr(embedder.trunk.tower, "set_grad_checkpointing", None)
    if setter is None:
        raise ValueError(
            f"{embedder.trunk.name} has no gradient checkpointing; set it to False, or take another trunk."
        )
    try:
        setter(enable)
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"{embedder.trunk.name} has no gradient checkpointing ({error}); set it to False.") from error


def num_steps_of(recipe: Recipe, num_samples: int) -> int:
    """Optimiser steps of a run with `num_samples` samples an epoch; part of a step counts as one.

    Raises:
        ValueError: the warm-up, or the steps of the head alone, leave nothing of them.
    """
    if recipe.num_steps is not None:
        return recipe.num_steps
    assert recipe.num_epochs is not None
    num_steps = math.ceil(recipe.num_epochs * num_samples / recipe.batch_size)
    if recipe.warmup_steps >= num_steps:
        raise ValueError(
            f"{recipe.num_epochs} epochs of {num_samples} images are {num_steps} steps of {recipe.batch_size}; "
            f"warmup_steps {recipe.warmup_steps} leave nothing of them. Train longer or warm up shorter."
        )
    if recipe.head_first_steps >= num_steps:
        raise ValueError(
            f"{recipe.num_epochs} epochs of {num_samples} images are {num_steps} steps of {recipe.batch_size}; "
            f"head_first_steps {recipe.head_first_steps} leave nothing of them for the trunk. Train longer, or take fewer."
        )
    return num_steps
