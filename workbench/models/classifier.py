"""The classifier that a training leaves beside its embedding: from a head's features to class probabilities.

Axes: N images, C classes, S sub-centers of a class, K features that the classifier sees.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Classifier(nn.Module):
    """Logits of classes; softmax makes probabilities of them.

    With `cosine` a logit is `scale` times the cosine between features and the class's weights, of several sub-centers
    the nearest one's; no margin is added, as at evaluation. Otherwise it is `scale` times (weight times features + bias).

    Attributes:
        weight: float32 [C, K], or [C, S, K] with sub-centers.
        bias: float32 [C] or None.
        cosine, scale: see above.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None = None, *, cosine: bool = False, scale: float = 1.0
    ) -> None:
        """Copies weight and bias; they are kept, not trained.

        Raises:
            ValueError: shapes that do not fit, sub-centers or a bias that the kind does not have, a scale not above 0.
        """
        super().__init__()
        if weight.ndim not in ((2, 3) if cosine else (2,)) or 0 in weight.shape:
            raise ValueError(f"weight is [C, K], or [C, S, K] with cosine; found {tuple(weight.shape)}.")
        if bias is not None and (cosine or bias.shape != weight.shape[:1]):
            raise ValueError(
                f"bias is [C] and not for cosine; found {tuple(bias.shape)} with weight {tuple(weight.shape)}."
            )
        if not scale > 0:
            raise ValueError(f"scale is above 0; found {scale}.")
        self.register_buffer("weight", weight.detach().clone().float())
        self.register_buffer("bias", None if bias is None else bias.detach().clone().float())
        self.cosine, self.scale = cosine, float(scale)

    @property
    def num_classes(self) -> int:
        """How many classes it knows."""
        return self.weight.shape[0]

    def forward(self, classified_NK: torch.Tensor) -> torch.Tensor:
        """Logits, float32 [N, C]."""
        classified_NK = classified_NK.float()
        if not self.cosine:
            return self.scale * functional.linear(classified_NK, self.weight, self.bias)
        each = functional.normalize(self.weight, dim=-1)
        nearest = functional.linear(functional.normalize(classified_NK, dim=1), each.flatten(0, -2))
        if self.weight.ndim == 3:
            nearest = nearest.unflatten(1, self.weight.shape[:2]).amax(dim=2)
        return self.scale * nearest

    def describe(self) -> dict[str, Any]:
        """JSON-able: what `empty_classifier` needs to build it but for the weights."""
        return {
            "weight_shape": list(self.weight.shape),
            "bias": self.bias is not None,
            "cosine": self.cosine,
            "scale": self.scale,
        }


def empty_classifier(described: dict[str, Any]) -> Classifier:
    """A classifier of the described form with zeros for weights, to load a saved state into."""
    weight = torch.zeros(described["weight_shape"])
    bias = torch.zeros(len(weight)) if described["bias"] else None
    return Classifier(weight, bias, cosine=described["cosine"], scale=described["scale"])
