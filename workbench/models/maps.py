"""What a tower computes before it pools: its tokens, or its last map.

Axes: N images, T tokens, C channels of a token or of the map; h and w rows and columns of the map.
"""

from collections.abc import Callable
from typing import cast

import open_clip
import open_clip.model
import torch
from torch import nn


def inner_tower(tower: nn.Module) -> nn.Module:
    """The model of timm inside of open_clip's adapter; any other tower as it is."""
    return tower.trunk if isinstance(tower, open_clip.model.TimmModel) else tower


def num_prefix_tokens(name: str, tower: nn.Module) -> int | None:
    """How many tokens of `last_tokens` stand before the patches; None of a tower without tokens.

    Raises:
        ValueError: a CoCa tower, which has no norm of its tokens: it pools them by attention first.
    """
    inner = inner_tower(tower)
    if not isinstance(inner, open_clip.model.VisionTransformer):
        return getattr(inner, "num_prefix_tokens", None)
    if inner.attn_pool is not None:
        raise ValueError(
            f"{name} pools its tokens by attention before its final norm: use pooling 'default', and no head that takes a map."
        )
    return 1


def last_tokens(tower: nn.Module, images_NCHW: torch.Tensor) -> torch.Tensor:
    """All tokens after the final norm, float [N, T, C], the class token first; of a convnet its last map."""
    tower = inner_tower(tower)
    if isinstance(tower, open_clip.model.VisionTransformer):
        last = tower.forward_intermediates(
            images_NCHW, indices=1, normalize_intermediates=True, output_fmt="NLC", output_extra_tokens=True
        )
        return torch.cat([last["image_intermediates_prefix"][0], last["image_intermediates"][0]], dim=1)
    forward_features = cast("Callable[[torch.Tensor], torch.Tensor]", tower.forward_features)
    return forward_features(images_NCHW)


def last_map(name: str, tower: nn.Module, images_NCHW: torch.Tensor) -> torch.Tensor:
    """The last map, float [N, C, h, w]: of a convnet before pooling, of a transformer its patch tokens after the final norm.

    Args:
        name: of the trunk, for messages.
        tower: the library's own module.
        images_NCHW: normalised images, float [N, 3, H, W].

    Raises:
        ValueError: the tower has no map whose rows and columns are known.
    """
    if isinstance(tower, open_clip.model.ModifiedResNet):
        map_NChw: torch.Tensor = tower.stem(images_NCHW)
        for stage in (tower.layer1, tower.layer2, tower.layer3, tower.layer4):
            map_NChw = stage(map_NChw)
        return map_NChw
    inner, prefix = inner_tower(tower), num_prefix_tokens(name, tower) or 0
    if not isinstance(inner, open_clip.model.VisionTransformer) and not hasattr(inner, "forward_features"):
        raise ValueError(f"{name} does not give its last map; take another trunk, or a head without it.")
    last = last_tokens(inner, images_NCHW)
    if last.ndim == 4:
        return last.permute(0, 3, 1, 2) if str(getattr(inner, "output_fmt", "NCHW")) == "NHWC" else last
    patch = patch_px(tower) or images_NCHW.shape[2:]
    rows, columns = images_NCHW.shape[2] // patch[0], images_NCHW.shape[3] // patch[1]
    if last.shape[1] != prefix + rows * columns:
        raise ValueError(
            f"{name} gives {last.shape[1]} tokens, which are no map of {rows}x{columns} patches; take another trunk, or a "
            "head without a map."
        )
    return last[:, prefix:].transpose(1, 2).unflatten(2, (rows, columns))


def patch_px(tower: nn.Module) -> tuple[int, int] | None:
    """Height and width of the tower's patches, px; None where it has none."""
    embed = getattr(inner_tower(tower), "patch_embed", None)
    patch = getattr(tower, "patch_size", None) or getattr(embed, "patch_size", None)
    if patch is None:
        return None
    height, width = (patch, patch) if isinstance(patch, int) else patch
    return int(height), int(width)
