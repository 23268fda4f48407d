"""Several processes that train one model: what they share out, add up and gather, and which of them writes.

`torch.distributed.run` starts them. Each computes its part of every batch; the gradients are added up, so that all take one
and the same step and hold the same weights. Process 0 writes files and logs; the others wait for it. In a process that has
joined no group, everything here does nothing and gives back what it was given.

BatchNorm on CPUs sees the images of one process, as it sees one part of a batch that is computed in several; its running
statistics are averaged over the processes after each step. On GPUs it becomes SyncBatchNorm and sees the images of all processes. Triplets
are found within one process, of whole identities when the identity sampler draws them. All else is as in one process with
the same batch.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from timm.layers import convert_sync_batchnorm
from torch import distributed, nn

from workbench.training.recipe import Recipe

_DRAW_STREAM = 5


@contextmanager
def joined_group(device: str = "auto") -> Iterator[str]:
    """The device of this process, within the group that `torch.distributed.run` started; without one, `device` itself.

    Args:
        device: auto, cpu or cuda. On GPUs each process of a host takes the one of its number there (LOCAL_RANK).

    Raises:
        ValueError: one GPU for several processes, or fewer GPUs than processes on this host.
    """
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} <= os.environ.keys():
        yield device
        return
    number, processes_here = int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        if device not in ("auto", "cuda"):
            raise ValueError(f"Each process takes a GPU of its own: device is auto, cuda or cpu; found {device!r}.")
        if processes_here > torch.cuda.device_count():
            raise ValueError(
                f"{processes_here} processes were started on a host with {torch.cuda.device_count()} GPUs; take "
                "--nproc-per-node of at most that, or device cpu."
            )
        torch.cuda.set_device(number)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    yield f"cuda:{number}" if on_gpu else "cpu"
    distributed.destroy_process_group()  # not after an error: the other processes do not come to meet this one


def is_joined() -> bool:
    """Whether this process belongs to a group, be it a group of one."""
    return distributed.is_available() and distributed.is_initialized()


def rank_and_world() -> tuple[int, int]:
    """The number of this process and how many there are; (0, 1) without a group."""
    return (distributed.get_rank(), distributed.get_world_size()) if is_joined() else (0, 1)


def is_writer() -> bool:
    """Whether this is the one process that writes files and logs."""
    return rank_and_world()[0] == 0


def images_a_pass(recipe: Recipe) -> int:
    """How many images one process computes at once: the batch, divided by its parts and by the processes."""
    return max(1, recipe.batch_size // (recipe.accumulation_steps * rank_and_world()[1]))


def check_parts(recipe: Recipe) -> None:
    """Returns nothing when the recipe's batch can be shared out to the processes of the group.

    Raises:
        ValueError: it does not divide, or an identity sampler's parts would hold fewer than two whole identities.
    """
    world, each = rank_and_world()[1], recipe.images_per_identity
    size, rest = divmod(recipe.batch_size, world * recipe.accumulation_steps)
    if rest:
        raise ValueError(
            f"batch_size {recipe.batch_size} is of all processes together and does not divide into {world} processes with "
            f"{recipe.accumulation_steps} parts each; take a multiple of {world * recipe.accumulation_steps}."
        )
    if recipe.sampler == "identity" and (size % each or size < 2 * each):
        raise ValueError(
            f"The identity sampler wants at least two whole identities of {each} images in each part of a batch; "
            f"{recipe.batch_size} images in {world} processes with {recipe.accumulation_steps} parts each leave {size}."
        )


def check_alike(what: str, value: Any) -> None:
    """Returns nothing when all processes have an equal `value`, something that can be pickled.

    Raises:
        ValueError: they differ, in every process.
    """
    world = rank_and_world()[1]
    if world == 1:
        return
    values: list[Any] = [None] * world
    distributed.all_gather_object(values, value)
    others = [rank for rank in range(world) if values[rank] != values[0]]
    if others:
        raise ValueError(
            f"Process {others[0]} of {world} has another {what} than process 0. All hosts want the same data, the same "
            "weights to start from and one folder that they share."
        )


def own_part(row_V: np.ndarray) -> np.ndarray:
    """The rows that this process computes: neighbours; parts differ by at most one in length.

    Raises:
        ValueError: fewer rows than processes.
    """
    rank, world = rank_and_world()
    if len(row_V) < world:
        raise ValueError(f"{len(row_V)} images cannot be shared out to {world} processes; start fewer.")
    return np.array_split(row_V, world)[rank]


def gather_parts(part: torch.Tensor) -> torch.Tensor:
    """The parts [n, ...] of all processes, one after the other in their order."""
    world = rank_and_world()[1]
    if world == 1:
        return part
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(world)]
    distributed.all_gather(lengths, torch.tensor([len(part)]))
    longest = max(int(length) for length in lengths)
    padded = torch.cat([part, part.new_zeros(longest - len(part), *part.shape[1:])])
    gathered = [torch.empty_like(padded) for _ in range(world)]
    distributed.all_gather(gathered, padded)
    return torch.cat([one[: int(length)] for one, length in zip(gathered, lengths, strict=True)])


def add_up(tensors: Sequence[torch.Tensor]) -> None:
    """Puts the sum over all processes in the place of each tensor, with one message for each dtype and device."""
    if rank_and_world()[1] == 1:
        return
    groups: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    with torch.no_grad():
        for members in groups.values():
            message = torch.cat([tensor.reshape(-1) for tensor in members])
            distributed.all_reduce(message)
            for tensor, total in zip(members, message.split([tensor.numel() for tensor in members]), strict=True):
                tensor.copy_(total.view(tensor.shape))


def add_up_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Adds up the gradients over all processes; a parameter that has one in no process keeps none."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if rank_and_world()[1] == 1 or not trained:
        return
    has_gradient = torch.tensor([float(parameter.grad is not None) for parameter in trained])
    gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in trained]
    add_up([has_gradient])
    add_up(gradients)
    for parameter, gradient, count in zip(trained, gradients, has_gradient.tolist(), strict=True):
        parameter.grad = gradient if count else None


def average_statistics(model: nn.Module) -> None:
    """Puts the mean over all processes in the place of the running statistics of each BatchNorm that is in training."""
    statistics = [
        statistic
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
        for statistic in (module.running_mean, module.running_var)
        if module.training and statistic is not None
    ]
    add_up(statistics)
    for statistic in statistics if rank_and_world()[1] > 1 else []:
        statistic /= rank_and_world()[1]


def share_batchnorm(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with SyncBatchNorm in place of each BatchNorm, where several processes train on GPUs; else as it is."""
    if rank_and_world()[1] == 1 or device.type != "cuda":
        return model
    converted: nn.Module = convert_sync_batchnorm(model)  # timm's: torch's would lose the activation in timm's layers
    return converted


def draw_apart(seed: int, step: int) -> None:
    """Gives each process but the first draws of its own (dropout), which follow from seed, number and step alone.

    So the generators of process 0, which its checkpoints hold, are all that there is to save.
    """
    rank = rank_and_world()[0]
    if rank:
        torch.manual_seed(int(np.random.SeedSequence([seed, _DRAW_STREAM, rank, step]).generate_state(1)[0]))


def anywhere(flag: bool) -> bool:
    """Whether the flag is set in any process; the same answer in all of them."""
    count = torch.tensor([float(flag)])
    add_up([count])
    return bool(count.item())


def by_writer(write: Callable[[], object]) -> None:
    """Lets process 0 write; all others wait until it is done.

    Raises:
        Exception: what `write` raised, in process 0.
        RuntimeError: the same in words, in the others.
    """
    rank, world = rank_and_world()
    failure: Exception | None = None
    if rank == 0:
        try:
            write()
        except Exception as error:
            if world == 1:
                raise
            failure = error
    if world == 1:
        return
    said = [None if failure is None else f"{type(failure).__name__}: {failure}"]
    distributed.broadcast_object_list(said, src=0)
    if failure is not None:
        raise failure
    if said[0] is not None:
        raise RuntimeError(f"Process 0 could not write: {said[0]}")
