"""Losses that hold one weight vector a class, or several: the kinds of ArcFace, and cross entropy.

Axes: N images of a batch, C classes, K width of what the classifier sees.
"""

import math
from typing import Any

import numpy as np
import torch
from pytorch_metric_learning import losses
from torch import nn
from torch.nn import functional

MARGIN_POWER = -0.25


class ArcFace(nn.Module):
    """One of pytorch-metric-learning's additive angular margins on vectors of length 1.

    Attributes:
        margin_loss: theirs; its class weights are W, [K, C times num_subcenters].
        num_subcenters: weight vectors a class; the nearest one counts.
    """

    def __init__(self, margin_loss: losses.ArcFaceLoss, num_subcenters: int = 1) -> None:
        super().__init__()
        self.margin_loss, self.num_subcenters = margin_loss, num_subcenters

    def forward(self, classified_NK: torch.Tensor, label_N: torch.Tensor) -> torch.Tensor:
        """The mean over images."""
        loss: torch.Tensor = self.margin_loss(functional.normalize(classified_NK, dim=1), label_N)
        return loss


class DynamicArcFaceLoss(losses.ArcFaceLoss):
    """ArcFace with a margin of its own for each class.

    Attributes:
        margin_C: radians, [C].
    """

    margin_C: torch.Tensor

    def __init__(self, margin_C: torch.Tensor, embedding_size: int, scale: float) -> None:
        super().__init__(len(margin_C), embedding_size, scale=scale)
        self.register_buffer("margin_C", margin_C)
        self._margin_N = margin_C

    def compute_loss(self, embeddings: torch.Tensor, labels: torch.Tensor, *rest: Any) -> Any:
        """The library's, with the margins of the batch's classes."""
        self._margin_N = self.margin_C[labels]
        return super().compute_loss(embeddings, labels, *rest)

    def modify_cosine_of_target_classes(self, cosine_N: torch.Tensor) -> torch.Tensor:
        """cos(angle + margin), and beyond 180 degrees a line that goes on falling, as the library has it."""
        angle_N, margin_N = self.get_angles(cosine_N), self._margin_N
        falling_N = torch.cos(angle_N) - margin_N * torch.sin(margin_N)
        return torch.where(angle_N <= math.pi - margin_N, torch.cos(angle_N + margin_N), falling_N)


class LinearClassification(nn.Module):
    """Cross entropy on a linear classifier, with label smoothing, less a share of the prediction's entropy.

    Source: label smoothing: Szegedy et al., Rethinking the Inception Architecture (CVPR 2016), the truth is 1 - e plus
    e / C for each class; entropy: Dubey et al., Maximum-Entropy Fine-Grained Classification (NeurIPS 2018).

    Attributes:
        linear: from K to C.
        label_smoothing: e.
        entropy_weight: gamma; 0 is plain cross entropy.
    """

    def __init__(
        self, num_features: int, num_classes: int, bias: bool, label_smoothing: float, entropy_weight: float
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, num_classes, bias=bias)
        self.label_smoothing, self.entropy_weight = label_smoothing, entropy_weight

    def forward(self, classified_NK: torch.Tensor, label_N: torch.Tensor) -> torch.Tensor:
        """The mean over images."""
        logit_NC = self.linear(classified_NK)
        loss = functional.cross_entropy(logit_NC, label_N, label_smoothing=self.label_smoothing)
        if self.entropy_weight:
            log_NC = functional.log_softmax(logit_NC, dim=1)
            loss = loss + self.entropy_weight * (log_NC.exp() * log_NC).sum(dim=1).mean()
        return loss


def dynamic_margins(num_images_C: np.ndarray, margins_deg: tuple[float, float]) -> np.ndarray:
    """A margin for each class by its size n: a n^(-1/4) + b, radians, float64 [C].

    Args:
        num_images_C: int [C], at least 1 each.
        margins_deg: of the largest and of the smallest class, which decide a and b. Where all classes have one size, each
            gets the middle of the two.

    Raises:
        ValueError: a class without images.

    Source: Ha et al., Google Landmark Recognition 2020 Competition Third Place Solution (2020).
    """
    count_C = np.asarray(num_images_C, dtype=np.float64)
    if not (count_C >= 1).all():
        raise ValueError(f"A margin by class size wants at least one image of each class; found {count_C.min():.0f}.")
    height_C = count_C**MARGIN_POWER
    spread = height_C.max() - height_C.min()
    share_C = (height_C - height_C.min()) / spread if spread > 0 else np.full(len(count_C), 0.5)
    low, high = np.radians(margins_deg)
    return np.asarray(low + share_C * (high - low))
