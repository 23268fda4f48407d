"""Heads: what stands between a trunk's features and the embedding, and what the losses of a training see of it.

Axes: N images, F features of the trunk, D the embedding's width, K the classifier's input, C channels of the trunk's last
map; H and W its rows and columns.
"""

from typing import Literal, NamedTuple, get_args

import torch
from torch import nn
from torch.nn import functional

HeadKind = Literal["identity", "linear", "bnneck", "adaptors", "lca"]
HEAD_KINDS: tuple[str, ...] = get_args(HeadKind)
NeckFeature = Literal["after", "before"]
NUM_ADAPTORS = 4


class HeadOutputs(NamedTuple):
    """What a head gives while it is trained.

    Attributes:
        embedding: [N, D], what the embedder answers, before its L2 norm.
        metric: [N, D], what losses between images (triplet, center) see.
        classified: [N, K], what the classifier sees.
    """

    embedding: torch.Tensor
    metric: torch.Tensor
    classified: torch.Tensor


class BNNeck(nn.Module):
    """A batch norm without bias between the feature that a triplet loss shapes and the one that a classifier sees.

    Before the norm distances are free, as a triplet loss wants them; after it the features lie about the origin, as a
    classifier without bias wants them. Its norm has no bias parameter, which is a bias frozen at zero.

    Source: Luo et al., Bag of Tricks and a Strong Baseline for Deep Person Re-identification (CVPR workshops 2019);
    the linear layer to another width: NVIDIA's ReIdentificationNet.

    Attributes:
        reduce: Linear to the embedding's width, or nothing where that is the trunk's.
        norm: over the batch.
        neck_feature: which side of the norm is the embedding, `after` or `before`.
    """

    def __init__(self, num_features: int, embedding_dim: int, neck_feature: str = "after") -> None:
        super().__init__()
        self.reduce = nn.Linear(num_features, embedding_dim) if embedding_dim != num_features else nn.Identity()
        self.norm = nn.BatchNorm1d(embedding_dim, bias=False)
        self.neck_feature = neck_feature

    def forward(self, features_NF: torch.Tensor) -> torch.Tensor:
        """The embedding, [N, D]."""
        before_ND: torch.Tensor = self.reduce(features_NF)
        return before_ND if self.neck_feature == "before" else self.norm(before_ND)

    def training_outputs(self, features_NF: torch.Tensor) -> HeadOutputs:
        """Metric before the norm, classified after it."""
        before_ND = self.reduce(features_NF)
        after_ND = self.norm(before_ND)
        return HeadOutputs(before_ND if self.neck_feature == "before" else after_ND, before_ND, after_ND)


class Adaptor(nn.Module):
    """h + W2 GELU(W1 h + b1) + b2 with a hidden layer of half the width; W2 and b2 start at 0, so it starts by changing nothing.

    Source: Houlsby et al., Parameter-Efficient Transfer Learning for NLP (ICML 2019), who start near the identity too.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, max(1, width // 2))
        self.up = nn.Linear(max(1, width // 2), width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, h_NF: torch.Tensor) -> torch.Tensor:
        """[N, F], of the width that came in."""
        changed_NF: torch.Tensor = self.up(functional.gelu(self.down(h_NF)))
        return h_NF + changed_NF


class SerialAdaptors(nn.Module):
    """Four adaptors one after the other; the classifier sees the last, the embedding is Linear(LayerNorm(last)).

    Source: NVIDIA's Retail Object Recognition v2.0. Its card says four adaptors; that they stand in series, their width and
    the LayerNorm are a reading of the released code, and the start at the identity is ours.

    Attributes:
        adaptors, norm, project: the parts.
        classified_dim: width of what the classifier sees, the trunk's.
    """

    def __init__(self, num_features: int, embedding_dim: int) -> None:
        super().__init__()
        self.adaptors = nn.Sequential(*(Adaptor(num_features) for _ in range(NUM_ADAPTORS)))
        self.norm = nn.LayerNorm(num_features)
        self.project = nn.Linear(num_features, embedding_dim)
        self.classified_dim = num_features

    def forward(self, features_NF: torch.Tensor) -> torch.Tensor:
        """The embedding, [N, D]."""
        return self.training_outputs(features_NF).embedding

    def training_outputs(self, features_NF: torch.Tensor) -> HeadOutputs:
        """Embedding and metric are one; classified, [N, F], comes from the last adaptor."""
        last_NF = self.adaptors(features_NF)
        embedding_ND = self.project(self.norm(last_NF))
        return HeadOutputs(embedding_ND, embedding_ND, last_NF)


class LocalConceptsAccumulation(nn.Module):
    """LCA: every window of the last map larger than 1x1 is averaged, put through one layer with ReLU, and all are averaged.

    Windows have every height and width that fit, at stride 1: (H (H + 1) / 2) (W (W + 1) / 2) - H W of them; a map of
    1x1 has none, and is its own window. The layer is affine, so it is applied to the H W positions once and its answers
    are averaged by window, which is the same function at a small part of the work.

    Source: Srivastava, Bag of Tricks for Retail Product Image Classification (ICIAR 2020); a baseline of RetailKLIP.

    Attributes:
        layer: the fully connected layer that all windows share.
    """

    takes_map = True

    def __init__(self, num_channels: int, embedding_dim: int) -> None:
        super().__init__()
        self.layer = nn.Linear(num_channels, embedding_dim)

    def forward(self, map_NCHW: torch.Tensor) -> torch.Tensor:
        """The embedding, [N, D], no coordinate below 0."""
        height, width = map_NCHW.shape[2:]
        answer_NDHW = self.layer(map_NCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if (height, width) == (1, 1):
            return functional.relu(answer_NDHW).flatten(1)
        total_ND = answer_NDHW.new_zeros(answer_NDHW.shape[:2])
        num_windows = 0
        for rows in range(1, height + 1):
            strip_NDHW = functional.avg_pool2d(answer_NDHW, (rows, 1), stride=1)
            for columns in range(2 if rows == 1 else 1, width + 1):
                window_NDHW = functional.avg_pool2d(strip_NDHW, (1, columns), stride=1)
                total_ND = total_ND + functional.relu(window_NDHW).sum(dim=(2, 3))
                num_windows += (height - rows + 1) * (width - columns + 1)
        return total_ND / num_windows


def build_head(
    kind: str, num_features: int, embedding_dim: int | None = None, neck_feature: str = "after"
) -> nn.Module:
    """A head to [N, embedding_dim], from [N, num_features] or, where `takes_map`, from [N, num_features, H, W].

    Args:
        kind: `identity` (the trunk's features themselves), `linear` (one fully connected layer with bias, as in NVIDIA's
            Retail Object Recognition v1.0), `bnneck`, `adaptors` or `lca` (see the classes).
        num_features: width of the trunk's features, for `lca` channels of its last map.
        embedding_dim: width of the embedding; None keeps num_features.
        neck_feature: of a bnneck: is the embedding the feature `after` or `before` its norm?

    Raises:
        ValueError: unknown kind or neck_feature, or an `identity` that would have to change the width.
    """
    if embedding_dim is not None and embedding_dim < 1:
        raise ValueError(f"embedding_dim is at least 1; found {embedding_dim}.")
    if neck_feature not in get_args(NeckFeature):
        raise ValueError(f"neck_feature is one of {', '.join(get_args(NeckFeature))}; found {neck_feature!r}.")
    width = embedding_dim or num_features
    if kind == "identity":
        if width != num_features:
            raise ValueError(
                f"The identity head keeps the trunk's {num_features} features; embedding_dim={embedding_dim} needs the linear "
                "head, or another that changes the width."
            )
        return nn.Identity()
    if kind == "linear":
        return nn.Linear(num_features, width)
    if kind == "bnneck":
        return BNNeck(num_features, width, neck_feature)
    if kind == "adaptors":
        return SerialAdaptors(num_features, width)
    if kind == "lca":
        return LocalConceptsAccumulation(num_features, width)
    raise ValueError(f"A head is one of {', '.join(HEAD_KINDS)}; found {kind!r}.")


def takes_map(head: nn.Module | str) -> bool:
    """Whether a head, or a kind of head, wants the trunk's last map in place of its features."""
    return head == "lca" if isinstance(head, str) else bool(getattr(head, "takes_map", False))


def head_outputs(head: nn.Module, features: torch.Tensor) -> HeadOutputs:
    """What a head gives while it is trained; one that makes no difference gives its embedding three times."""
    if isinstance(head, (BNNeck, SerialAdaptors)):
        return head.training_outputs(features)
    embedding_ND = head(features)
    return HeadOutputs(embedding_ND, embedding_ND, embedding_ND)
