"""Losses that pull images of a class together: triplets, and centers of classes.

Axes: N images of a batch, C classes, D width of the embedding.
"""

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

    The gradient that the centers get is not the loss's but the step of the paper, the sum over a class's images of
    (center - image) / (1 + their number), so that SGD with rate a moves each center a part of the way to its images,
    however many classes there are. Centers of classes that are not in the batch get 0.

    Source: Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition (ECCV 2016), eq. 4; the mean
    without their half is that of Luo et al. (CVPR workshops 2019), whose weight 5e-4 is the recipes'.

    Attributes:
        centers: [C, D].
    """

    def __init__(self, num_classes: int, embedding_dim: int) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.zeros(num_classes, embedding_dim))

    def forward(self, metric_ND: torch.Tensor, label_N: torch.Tensor) -> torch.Tensor:
        """The mean over images."""
        center_ND = self.centers[label_N]
        loss = (metric_ND - center_ND.detach()).square().sum(dim=1).mean()
        count_N = torch.bincount(label_N, minlength=len(self.centers))[label_N]
        step = 0.5 * ((metric_ND.detach() - center_ND).square().sum(dim=1) / (1 + count_N)).sum()
        return loss + (step - step.detach())
