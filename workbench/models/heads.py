"""Heads: what stands between a trunk's features and the embedding."""

from typing import Literal, get_args

from torch import nn

HeadKind = Literal["identity", "linear"]
HEAD_KINDS: tuple[str, ...] = get_args(HeadKind)


def build_head(kind: str, num_features: int, embedding_dim: int | None = None) -> nn.Module:
    """A head from [N, num_features] to [N, embedding_dim].

    Args:
        kind: `identity` (the trunk's features themselves) or `linear` (one fully connected layer with bias, as in
            NVIDIA's Retail Object Recognition v1.0).
        num_features: width of the trunk's features.
        embedding_dim: width of the embedding; None keeps num_features.

    Raises:
        ValueError: unknown kind, or an `identity` that would have to change the width.
    """
    if embedding_dim is not None and embedding_dim < 1:
        raise ValueError(f"embedding_dim is at least 1; found {embedding_dim}.")
    if kind == "identity":
        if embedding_dim not in (None, num_features):
            raise ValueError(
                f"The identity head keeps the trunk's {num_features} features; embedding_dim={embedding_dim} needs the linear head."
            )
        return nn.Identity()
    if kind == "linear":
        return nn.Linear(num_features, embedding_dim or num_features)
    raise ValueError(f"A head is one of {', '.join(HEAD_KINDS)}; found {kind!r}.")
