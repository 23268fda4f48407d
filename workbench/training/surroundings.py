"""What a training changes in its process while it runs: random generators, threads and the order of sums."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import joblib
import numpy as np
import torch
from torch.utils import deterministic

from workbench.training.checkpoint import random_states, set_random_states


@contextmanager
def own_surroundings(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds all random generators for the run and asks a CPU for repeatable sums; afterwards all is as it was before.

    On a CPU one core is left to the process that prepares images: where more threads than cores compute, they wait for
    each other, and a step takes several times as long. The number does not depend on num_workers, so neither do the bits.
    """
    threads = torch.get_num_threads()
    before, repeatable = random_states(device), torch.are_deterministic_algorithms_enabled()
    fills = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]  # a property of the module
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002  # for libraries that draw from the global generator
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(device.type == "cpu" or repeatable)
        # filling new memory is a debugging aid that costs a pass over each tensor
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        if device.type == "cpu":
            torch.set_num_threads(max(1, min(threads, joblib.cpu_count() - 1)))
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(repeatable)
        deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
        set_random_states(before, device)
