"""Random weights that are fit for a parity check."""

import torch

from workbench.models.embedder import Embedder


def randomise_scales(embedder: Embedder, seed: int = 0) -> Embedder:
    """The same embedder, its scales, shifts, biases and running statistics drawn anew: every vector among the weights.

    A fresh model hides errors: LayerScale at 1e-5 lets the blocks count for nothing, norms at 1 and 0 and zero biases
    make a lost or exchanged one invisible. Scales and variances become 0.5 to 1.5, the others normal with deviation 0.1.
    Nothing holds activations back then as training does: a very deep convolutional trunk may leave the range of fp16.
    """
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in sorted(embedder.state_dict(keep_vars=True).items()):
            is_vector = value.ndim == 1 or name.endswith("temperature")  # one a head, with axes of length 1
            if not is_vector or not value.is_floating_point():
                continue
            if name.endswith(("weight", "gamma", "gamma1", "gamma2", "running_var", "temperature")):
                value.copy_(torch.rand(value.shape, generator=drawn) + 0.5)
            else:
                value.copy_(torch.randn(value.shape, generator=drawn) * 0.1)
    return embedder
