"""What training will need of the device's memory, before its first step."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from workbench.models.embedder import Embedder
from workbench.training.blocks import block_modules
from workbench.training.recipe import Recipe
from workbench.training.recipe_checks import CLASSIFYING
from workbench.training.steps import AMP_DTYPES

_RESERVE = 0.1
"""Share added for the allocator's gaps and the kernels' work space."""


class DeviceMemoryError(RuntimeError):
    """The device has less free memory than the training needs."""


def estimate_memory(embedder: Embedder, recipe: Recipe, num_classes: int, *, amp: bool = True) -> dict[str, float]:
    """What training needs on the device by part, MiB, and their sum as `total`.

    Weights, the gradients of those that are trained, the optimiser's moments (two, of SGD one) and the moving average are
    counted. Activations are those that a forward pass
    keeps for the backward pass: the pass is done on tensors that have a shape and no content (two batch sizes, so that
    what grows with the batch is told from what does not), which takes no memory and under a second for ViT-L/14. With
    gradient checkpointing they are the inputs of all blocks and the inside of the largest one; all of them where the blocks
    of a trunk are not known.

    Args:
        embedder: as it will be trained, or before the recipe gave it a new head.
        recipe: loss, freeze, optimizer, batch_size, accumulation_steps, amp, gradient_checkpointing and ema_decay are read.
        num_classes: of the loss's weights.
        amp: whether the device computes in the recipe's mixed precision (a CPU does not).
    """
    of_loss = 4 * _num_loss_weights(embedder, recipe, num_classes)
    dtype = AMP_DTYPES.get(recipe.amp) if amp else None
    with _frozen(embedder, recipe.freeze):
        weights = sum(p.numel() * p.element_size() for p in embedder.parameters()) + of_loss
        trained = sum(p.numel() * p.element_size() for p in embedder.parameters() if p.requires_grad) + of_loss
        small, large = (_kept_by_forward(embedder, num_images, dtype) for num_images in (2, 3))
    buffers = sum(b.numel() * b.element_size() for b in embedder.buffers())
    per_image = {place: large[place] - small[place] for place in large}
    casts = sum(small.values()) - 2 * sum(per_image.values())  # 16-bit copies of the weights
    casts = max(0.0, casts) if dtype is not None else 0.0
    inside = sum(per_image.values())
    if recipe.gradient_checkpointing:
        in_blocks = {place: size for place, size in per_image.items() if place and not place.startswith("input of ")}
        inputs = sum(size for place, size in per_image.items() if place.startswith("input of "))
        inside = per_image.get("", 0.0) + inputs + max(in_blocks.values(), default=0.0)
    else:
        inside -= sum(size for place, size in per_image.items() if place.startswith("input of "))
    micro = recipe.batch_size // recipe.accumulation_steps
    size = embedder.preprocessing.image_size
    parts = {
        "weights": weights + buffers,
        "gradients": trained,
        "optimiser": (1.0 if recipe.optimizer == "sgd" else 2.0) * trained,
        "moving average": (weights + buffers) if recipe.ema_decay else 0.0,
        "16-bit copies of the weights": casts,
        "images": recipe.batch_size * size[0] * size[1] * 3 * (1 + 4 / recipe.accumulation_steps),
        "activations": inside * micro,
        "loss": 6.0 * 4 * micro * num_classes,
    }
    parts["reserve"] = _RESERVE * sum(parts.values())
    in_mib = {name: value / 2**20 for name, value in parts.items()}
    return {**in_mib, "total": sum(in_mib.values())}


def check_memory(needed: dict[str, float], free_mib: float, recipe: Recipe) -> None:
    """Returns nothing when what `estimate_memory` found fits into `free_mib`.

    Raises:
        DeviceMemoryError: it does not; the message says what takes most and what would help.
    """
    if needed["total"] <= free_mib:
        return
    listed = ", ".join(f"{name} {value:,.0f}" for name, value in needed.items() if name != "total" and value >= 1)
    advice = []
    if recipe.amp == "off":
        advice.append("amp='bfloat16'")
    if not recipe.gradient_checkpointing:
        advice.append("gradient_checkpointing=True")
    if recipe.accumulation_steps < recipe.batch_size:
        advice.append(f"accumulation_steps={recipe.accumulation_steps * 2} (same batch, in smaller parts)")
    if recipe.ema_decay:
        advice.append("ema_decay=0")
    raise DeviceMemoryError(
        f"This training needs about {needed['total']:,.0f} MiB and the device has {free_mib:,.0f} MiB free "
        f"(MiB: {listed}). Try {', '.join([*advice, 'a smaller trunk or image size'])}."
    )


def _num_loss_weights(embedder: Embedder, recipe: Recipe, num_classes: int) -> int:
    """Numbers that the loss learns: class vectors, sub-centers, centers."""
    terms = recipe.loss_terms
    vectors = sum(recipe.subcenters if term == "subcenter_arcface" else 1 for term in terms if term in CLASSIFYING)
    width = recipe.embedding_dim or embedder.embedding_dim
    classified = embedder.classified_dim if recipe.head in ("keep", "adaptors") else width
    return num_classes * (vectors * classified + width * ("center" in terms))


@contextmanager
def _frozen(embedder: Embedder, part: str) -> Iterator[None]:
    """While it lasts, that part needs no gradient."""
    needs = [(parameter, parameter.requires_grad) for parameter in embedder.parameters()]
    if part != "none":
        embedder.get_submodule(part).requires_grad_(False)
    try:
        yield
    finally:
        for parameter, need in needs:
            parameter.requires_grad_(need)


def _kept_by_forward(embedder: Embedder, num_images: int, dtype: torch.dtype | None) -> dict[str, float]:
    """Bytes that a forward pass keeps, by place: inside which block, as the input of which block, or elsewhere ("")."""
    place = [""]
    kept: dict[str, float] = {}
    seen: list[torch.UntypedStorage] = []  # held, so that no address is used twice
    known: set[int] = set()

    def count(tensor: torch.Tensor, where: str) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in known:
            known.add(storage._cdata)
            seen.append(storage)
            kept[where] = kept.get(where, 0.0) + storage.nbytes()

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        count(tensor, place[0])
        return tensor

    tensors = {**dict(embedder.named_parameters()), **dict(embedder.named_buffers())}
    training = embedder.training
    embedder.train()
    with FakeTensorMode() as mode, _told_of_blocks(embedder, place, kept):
        fakes: dict[str, torch.Tensor] = {name: mode.from_tensor(tensor) for name, tensor in tensors.items()}
        known.update(fake.untyped_storage()._cdata for fake in fakes.values())
        images = torch.zeros(
            num_images, 3, *embedder.preprocessing.image_size, device=next(iter(fakes.values())).device
        )
        casting = torch.autocast(images.device.type, dtype) if dtype is not None else nullcontext()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), casting:
            torch.func.functional_call(embedder, fakes, images)
    embedder.train(training)
    return kept


@contextmanager
def _told_of_blocks(embedder: Embedder, place: list[str], kept: dict[str, float]) -> Iterator[None]:
    """While it lasts, `place[0]` is the block that is being computed, and inputs of blocks are counted."""

    def enter(name: str, inputs: tuple[object, ...]) -> None:
        place[0] = name
        tensors = [value for value in inputs if isinstance(value, torch.Tensor)]
        kept[f"input of {name}"] = float(sum(tensor.numel() * tensor.element_size() for tensor in tensors))

    def leave() -> None:
        place[0] = ""

    handles = []
    for name in block_modules(embedder.trunk):
        module: nn.Module = embedder.trunk.tower.get_submodule(name)
        handles.append(module.register_forward_pre_hook(lambda _, inputs, name=name: enter(name, inputs)))
        handles.append(module.register_forward_hook(lambda *_: leave()))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
