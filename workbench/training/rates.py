"""The optimiser, its learning rates over a run, and which parts of the model stand still when."""

import math

import torch
from torch import nn

from workbench.models.embedder import Embedder
from workbench.training.blocks import HEAD, LOSS
from workbench.training.recipe import Recipe

SGD_MOMENTUM = 0.9


def build_optimizer(groups: list[dict[str, object]], kind: str = "adamw") -> torch.optim.Optimizer:
    """An optimiser over the groups of `blocks.blockwise_groups`.

    Each group remembers its rate at the schedule's height as `peak_lr`.

    Args:
        groups: params, lr, weight_decay and name of each.
        kind: adamw, adam (weight decay enters the gradient) or sgd (momentum 0.9, no Nesterov).
    """
    kept = [
        {**{key: group[key] for key in ("params", "lr", "weight_decay", "name")}, "peak_lr": group["lr"]}
        for group in groups
    ]
    if kind == "sgd":
        return torch.optim.SGD(kept, momentum=SGD_MOMENTUM, fused=True)
    return (torch.optim.AdamW if kind == "adamw" else torch.optim.Adam)(kept, fused=True)


def rate_factor(
    step: int,
    num_steps: int,
    warmup_steps: int,
    schedule: str,
    milestones: tuple[float, ...] = (),
    gamma: float = 0.1,
) -> float:
    """The share, in (0, 1], of its peak that every rate has in optimiser step `step` (0 is the first).

    During the warm-up (step + 1) / warmup_steps, afterwards 1 (`constant`), half a cosine that would reach zero in the
    step after the last (`cosine`; Loshchilov and Hutter, ICLR 2017, without restarts), or gamma to the power of the
    milestones that are past (`multistep`, whose milestones count during the warm-up too). A milestone is a share of
    num_steps; the first step at or after it has the lower rate.
    """
    past = sum(step >= share * num_steps for share in milestones) if schedule == "multistep" else 0
    if step < warmup_steps:
        return gamma**past * (step + 1) / warmup_steps
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (num_steps - warmup_steps)))
    return gamma**past


def set_rates(optimizer: torch.optim.Optimizer, factor: float, frozen: frozenset[str] = frozenset()) -> None:
    """Sets every group's learning rate to `factor` times its peak, to 0 where its part stands still."""
    for group in optimizer.param_groups:
        group["lr"] = 0.0 if part_of(group["name"]) in frozen else group["peak_lr"] * factor


def read_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The learning rate of each block, as it stands in the optimiser."""
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def frozen_parts(recipe: Recipe, step: int) -> frozenset[str]:
    """The parts, of trunk and head, that stand still in optimiser step `step` (0 is the first)."""
    if recipe.head_first_steps:
        return frozenset({"trunk" if step < recipe.head_first_steps else "head"})
    return frozenset({recipe.freeze} - {"none"})


def part_of(block: str) -> str:
    """The part that a block of `blocks.blockwise_groups` belongs to: trunk, head or loss."""
    return block if block in (HEAD, LOSS) else "trunk"


def set_phase(
    embedder: Embedder, optimizer: torch.optim.Optimizer, frozen: frozenset[str], freeze_batchnorm: bool
) -> None:
    """Sets the model up for steps in which the `frozen` parts stand still, bit for bit.

    Their parameters get no gradient, so that the optimiser passes them over and keeps what it knows of them, and they
    compute as in an evaluation: no dropout, running statistics as they are.
    """
    for group in optimizer.param_groups:
        moves = part_of(group["name"]) not in frozen
        for parameter in group["params"]:
            parameter.requires_grad_(moves)
    set_training_mode(embedder, freeze_batchnorm, frozen)


def set_training_mode(embedder: Embedder, freeze_batchnorm: bool, frozen: frozenset[str] = frozenset()) -> None:
    """Training mode but for the `frozen` parts (of trunk and head).

    With `freeze_batchnorm` the trunk's BatchNorm layers keep their statistics and their weights get no gradient.
    """
    embedder.train()
    for part in frozen:
        embedder.get_submodule(part).eval()
    if not freeze_batchnorm:
        return
    for module in embedder.trunk.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
            module.requires_grad_(False)
