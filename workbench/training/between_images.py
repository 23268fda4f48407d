"""Losses that pull images of a class together: triplets, and centers of classes.

Axes: N images of a batch, C classes, D width of the embedding.
"""

from collections.abc import Callable

import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from torch import nn


class ExactEuclidean(distances.LpDistance):
    """Euclidean distances of vectors as they are, from differences: a matrix product loses those of near duplicates."""

    def __init__(self) -> None:
        super().__init__(normalize_embeddings=False, p=2)

    def compute_mat(self, query_emb: torch.Tensor, ref_emb: torch.Tensor | None) -> torch.Tensor:
        """Distances, float [N, N]."""
        ref_emb = query_emb if ref_emb is None else ref_emb
        return torch.cdist(query_emb, ref_emb, compute_mode="donot_use_mm_for_euclid_dist")


class TripletLoss(nn.Module):
    """Triplets of a batch: an anchor nearer to its positive than to its negative, by a margin or softly.

    `batch_hard`: one triplet an anchor, its farthest positive and its nearest negative, the mean over anchors. `all`: every
    triplet, the mean over those that are not 0, since most are. Without a margin, softplus of the difference (of two
    cosines or of two distances). Images without a positive or a negative in the batch are no anchors; without any
    anchor the loss is 0.

    Source: Hermans, Beyer, Leibe, In Defense of the Triplet Loss (2017).
    """

    def __init__(self, margin: float | None, distance: str, miner: str) -> None:
        super().__init__()
        measured = distances.CosineSimilarity() if distance == "cosine" else ExactEuclidean()
        self.miner = miners.BatchHardMiner(distance=measured) if miner == "batch_hard" else None
        self.loss = losses.TripletMarginLoss(
            margin=margin or 0.0,
            smooth_loss=margin is None,
            distance=measured,
            reducer=reducers.MeanReducer() if miner == "batch_hard" else reducers.AvgNonZeroReducer(),
        )

    def forward(self, metric_ND: torch.Tensor, label_N: torch.Tensor) -> torch.Tensor:
        """The mean over triplets."""
        triplets = None if self.miner is None else self.miner(metric_ND, label_N)
        loss: torch.Tensor = self.loss(metric_ND, label_N, triplets)
        return loss


class CenterLoss(nn.Module):
    """The mean squared distance of images to the center of their class; centers start at 0.

    The gradient that `give_gradient` gives the centers is not the loss's but the step of the paper, the sum over a class's
    images of (center - image) / (1 + their number), so that SGD with rate a moves each center a part of the way to its
    images, however many classes there are and in however many parts the batch is computed. Centers of classes that are not
    in the batch get 0.

    Source: Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition (ECCV 2016), eq. 4; the mean
    without their half is that of Luo et al. (CVPR workshops 2019), whose weight 5e-4 is the recipes'. Their code has another
    step: centers start at random and follow the loss's gradient, free of its weight, 2 / N times the sum of (center - image).

    Attributes:
        centers: [C, D].
        sum_CD, count_C: sum and number of each class's images since the centers were given their gradient.
    """

    sum_CD: torch.Tensor
    count_C: torch.Tensor

    def __init__(self, num_classes: int, embedding_dim: int) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.zeros(num_classes, embedding_dim))
        self.register_buffer("sum_CD", torch.zeros(num_classes, embedding_dim), persistent=False)
        self.register_buffer("count_C", torch.zeros(num_classes), persistent=False)

    def forward(self, metric_ND: torch.Tensor, label_N: torch.Tensor) -> torch.Tensor:
        """The mean over images."""
        members_CN = nn.functional.one_hot(label_N, len(self.count_C)).T.to(self.sum_CD)
        self.sum_CD += members_CN @ metric_ND.detach().to(self.sum_CD)  # index_add would not be repeatable on a GPU
        self.count_C += members_CN.sum(dim=1)
        return (metric_ND - self.centers.detach()[label_N]).square().sum(dim=1).mean()

    def give_gradient(self, add_up: Callable[[list[torch.Tensor]], None]) -> None:
        """Gives the centers their gradient, over all images since the last call.

        Args:
            add_up: puts the sum over all processes in the place of each tensor.
        """
        add_up([self.sum_CD, self.count_C])
        count_C1 = self.count_C[:, None]
        self.centers.grad = (count_C1 * self.centers.detach() - self.sum_CD) / (1 + count_C1)
        self.sum_CD.zero_()
        self.count_C.zero_()
