"""One optimiser step: a batch in parts, gradients, moving average."""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from workbench.models.embedder import Embedder
from workbench.models.heads import HeadOutputs, head_outputs
from workbench.training.distributed import add_up, add_up_gradients, average_statistics, rank_and_world
from workbench.training.losses import TrainingLoss
from workbench.training.recipe import Recipe

AMP_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class TrainingDivergedError(RuntimeError):
    """The loss or the gradient is not finite any more."""


@dataclass(frozen=True)
class StepOutcome:
    """What one optimiser step measured.

    Attributes:
        loss: mean over the images.
        terms: of the loss, by name, before their weights; empty where the loss is its one term.
        gradient_norm: before clipping.
    """

    loss: float
    terms: dict[str, float]
    gradient_norm: float


def autocast(device: torch.device, amp: str) -> AbstractContextManager[None]:
    """Mixed precision on a GPU; full precision on a CPU, which few of them compute faster in 16 bit."""
    used = amp != "off" and device.type == "cuda"
    return torch.autocast(device.type, AMP_DTYPES.get(amp, torch.bfloat16), enabled=used)


def optimise(
    embedder: Embedder,
    loss: TrainingLoss,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    inputs: torch.Tensor,
    label_N: torch.Tensor,
    recipe: Recipe,
    center_optimizer: torch.optim.Optimizer | None = None,
) -> StepOutcome:
    """What one optimiser step on one batch measured; embedder, loss and optimiser are changed in place.

    The batch is computed in `recipe.accumulation_steps` parts whose gradients add up to that of the whole batch (but for
    BatchNorm and triplets, which see one part at a time). Of several processes each computes its images; losses and
    gradients are those of all (see `distributed`).

    Args:
        embedder, loss: on the device of the batch.
        optimizer: over both, but for the centers of a center term.
        scaler: of the loss; disabled unless float16 is used.
        inputs: of this process: images, uint8 [N, H, W, 3], or the features of a frozen trunk (see `compute_outputs`).
        label_N: int64 [N], classes.
        recipe: accumulation_steps, amp and clip_grad are read.
        center_optimizer: over the centers. They follow the images of the whole batch at a rate of their own, whatever the
            term's weight (Wen et al., ECCV 2016), and their gradient is not clipped.

    Raises:
        TrainingDivergedError: loss or gradient is not finite; the weights are as they were before the step.
    """
    optimizer.zero_grad(set_to_none=True)
    totals: dict[str, torch.Tensor] = {}
    parts = zip(inputs.chunk(recipe.accumulation_steps), label_N.chunk(recipe.accumulation_steps), strict=True)
    for some, labels in parts:
        with autocast(some.device, recipe.amp):
            outputs = compute_outputs(embedder, some)
        share = len(labels) / (len(label_N) * rank_and_world()[1])  # all processes have equally many images
        part = loss(HeadOutputs(*(output.float() for output in outputs)), labels) * share
        scaler.scale(part).backward()
        measured = {"": part.detach(), **{name: term.detach() * share for name, term in loss.terms.items()}}
        totals = {name: totals[name] + value if totals else value for name, value in measured.items()}
    measured_T = torch.stack(list(totals.values()))
    add_up([measured_T])
    mean, *means = measured_T.tolist()  # one wait for the device
    terms = dict(zip(list(totals)[1:], means, strict=True)) if len(means) > 1 else {}
    if not math.isfinite(mean):
        raise TrainingDivergedError(f"the loss is {mean}")
    add_up_gradients(one for group in optimizer.param_groups for one in group["params"])
    average_statistics(embedder)
    scaler.unscale_(optimizer)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = float(nn.utils.clip_grad_norm_(trained, recipe.clip_grad or math.inf))
    if not math.isfinite(norm) and not scaler.is_enabled():  # a scaler skips such a step and lowers its scale
        raise TrainingDivergedError(f"the norm of the gradient is {norm}")
    scaler.step(optimizer)
    loss.give_centers_gradient(add_up)
    if center_optimizer is not None:
        center_optimizer.step()
    scaler.update()
    return StepOutcome(mean, terms, norm)


def compute_outputs(embedder: Embedder, inputs: torch.Tensor) -> HeadOutputs:
    """What the loss sees of a batch: uint8 [N, H, W, 3] are images, floats are what the trunk made of them already."""
    if inputs.dtype == torch.uint8:
        return embedder.outputs(to_input(embedder, inputs))
    return head_outputs(embedder.head, inputs)


def to_input(embedder: Embedder, images_NHWC: torch.Tensor) -> torch.Tensor:
    """Normalised images, float32 [N, 3, H, W], in the memory format of the trunk's convolutions."""
    images_NCHW = embedder.preprocessing.normalise(images_NHWC)
    return images_NCHW.contiguous(memory_format=torch.channels_last) if is_convnet(embedder) else images_NCHW


def is_convnet(embedder: Embedder) -> bool:
    """Whether most work is in convolutions, which channels-last memory makes faster (1.3 times for a ResNet on a CPU)."""
    return sum(isinstance(module, nn.Conv2d) for module in embedder.modules()) > 2


def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Moves the average of all floating-point weights and statistics towards the model's; whole numbers are copied.

    average <- d average + (1 - d) model with d = min(decay, (1 + step) / (10 + step)), so that the random weights of the
    beginning do not linger; `step` counts from 1.

    Source: the warm-up of the decay is that of TensorFlow's ExponentialMovingAverage (num_updates).
    """
    used = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for kept, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(value, 1 - used)
            else:
                kept.copy_(value)
