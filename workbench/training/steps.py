"""One optimiser step: rates from the schedule, a batch in parts, gradients, moving average."""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from pytorch_metric_learning import losses
from torch import nn

from workbench.models.embedder import Embedder
from workbench.training.recipe import Recipe

AMP_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class TrainingDivergedError(RuntimeError):
    """The loss or the gradient is not finite any more."""


@dataclass(frozen=True)
class StepOutcome:
    """What one optimiser step measured: the mean loss of its images and the norm of the gradient before clipping."""

    loss: float
    gradient_norm: float


def build_loss(recipe: Recipe, num_classes: int, embedding_dim: int) -> nn.Module:
    """ArcFace of pytorch-metric-learning with random class weights W, [embedding_dim, num_classes], decided by the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        loss: nn.Module = losses.ArcFaceLoss(num_classes, embedding_dim, margin=recipe.margin_deg, scale=recipe.scale)
    return loss


def build_optimizer(groups: list[dict[str, object]]) -> torch.optim.AdamW:
    """AdamW over the groups of `blocks.blockwise_groups`; each group remembers its rate at the schedule's height as `peak_lr`."""
    kept = [
        {**{key: group[key] for key in ("params", "lr", "weight_decay", "name")}, "peak_lr": group["lr"]}
        for group in groups
    ]
    return torch.optim.AdamW(kept, fused=True)


def rate_factor(step: int, num_steps: int, warmup_steps: int, schedule: str) -> float:
    """The share, in (0, 1], of its peak that every rate has in optimiser step `step` (0 is the first).

    During the warm-up (step + 1) / warmup_steps, afterwards 1 (`constant`) or half a cosine that would reach zero in the
    step after the last (`cosine`; Loshchilov and Hutter, ICLR 2017, without restarts).
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (num_steps - warmup_steps)))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's learning rate to `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def read_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The learning rate of each block, as it stands in the optimiser."""
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def autocast(device: torch.device, amp: str) -> AbstractContextManager[None]:
    """Mixed precision on a GPU; full precision on a CPU, which few of them compute faster in 16 bit."""
    used = amp != "off" and device.type == "cuda"
    return torch.autocast(device.type, AMP_DTYPES.get(amp, torch.bfloat16), enabled=used)


def optimise(
    embedder: Embedder,
    loss: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    images_NHWC: torch.Tensor,
    label_N: torch.Tensor,
    recipe: Recipe,
) -> StepOutcome:
    """What one optimiser step on one batch measured; embedder, loss and optimiser are changed in place.

    The batch is computed in `recipe.accumulation_steps` parts whose gradients add up to that of the whole batch (but for
    BatchNorm, which sees one part at a time).

    Args:
        embedder, loss: on the device of the batch.
        optimizer: over both.
        scaler: of the loss; disabled unless float16 is used.
        images_NHWC: uint8 [N, H, W, 3].
        label_N: int64 [N], classes.
        recipe: accumulation_steps, amp and clip_grad are read.

    Raises:
        TrainingDivergedError: loss or gradient is not finite; the weights are as they were before the step.
    """
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=images_NHWC.device)
    parts = zip(images_NHWC.chunk(recipe.accumulation_steps), label_N.chunk(recipe.accumulation_steps), strict=True)
    for images, labels in parts:
        with autocast(images.device, recipe.amp):
            embedding_ND = embedder(to_input(embedder, images))
        part = loss(embedding_ND.float(), labels) * (len(labels) / len(label_N))
        scaler.scale(part).backward()
        total += part.detach()
    mean = float(total)
    if not math.isfinite(mean):
        raise TrainingDivergedError(f"the loss is {mean}")
    scaler.unscale_(optimizer)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = float(nn.utils.clip_grad_norm_(trained, recipe.clip_grad or math.inf))
    if not math.isfinite(norm) and not scaler.is_enabled():  # a scaler skips such a step and lowers its scale
        raise TrainingDivergedError(f"the norm of the gradient is {norm}")
    scaler.step(optimizer)
    scaler.update()
    return StepOutcome(mean, norm)


def to_input(embedder: Embedder, images_NHWC: torch.Tensor) -> torch.Tensor:
    """Normalised images, float32 [N, 3, H, W], in the memory format of the trunk's convolutions."""
    images_NCHW = embedder.preprocessing.normalise(images_NHWC)
    return images_NCHW.contiguous(memory_format=torch.channels_last) if is_convnet(embedder) else images_NCHW


def is_convnet(embedder: Embedder) -> bool:
    """Whether most work is in convolutions, which channels-last memory makes faster (1.3 times for a ResNet on a CPU)."""
    return sum(isinstance(module, nn.Conv2d) for module in embedder.modules()) > 2


def set_training_mode(embedder: Embedder, freeze_batchnorm: bool) -> None:
    """Training mode; with `freeze_batchnorm` the BatchNorm layers keep their statistics, their weights get no gradient."""
    embedder.train()
    if not freeze_batchnorm:
        return
    for module in embedder.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
            module.requires_grad_(False)


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
