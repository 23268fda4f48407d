"""What a device could do at most: the rate of a matrix product, and how much arithmetic a model asks for."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from workbench.models.embedder import Embedder


@dataclass(frozen=True)
class Limit:
    """The matrix product that stands for the device's arithmetic limit.

    Attributes:
        name: what is multiplied, in words.
        flops: floating-point operations of one product; a multiplication and an addition are two.
        product_s: makes one product and returns its seconds.
    """

    name: str
    flops: float
    product_s: Callable[[], float]


def count_flops(embedder: Embedder) -> float:
    """Floating-point operations of one image through the embedder: products and convolutions, an addition counts as one.

    Norms, activations and sums are left out, as is usual: they are bound by memory.
    """
    weight = next(embedder.parameters())
    image = torch.zeros(1, 3, *embedder.preprocessing.image_size, device=weight.device, dtype=weight.dtype)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # torch's counter sees nothing inside the fused attention
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            embedder(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return float(counter.get_total_flops())


def product_limit(size: int = 2048) -> Limit:
    """The limit of the CPU: an fp32 product of two square matrices by torch, with the threads that torch has when it runs."""
    left, right = torch.rand(2, size, size, generator=torch.Generator().manual_seed(0))
    result = torch.empty(size, size)

    def product_s() -> float:
        started = time.perf_counter()
        torch.mm(left, right, out=result)
        return time.perf_counter() - started

    return Limit(f"fp32 matrix product, {size:,} x {size:,}, by torch on the CPU", 2.0 * size**3, product_s)
