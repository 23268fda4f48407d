"""The trunks of NVIDIA's Retail Object Recognition v2.0, by our own names: `fan_base_hybrid` and `nv_dinov2`."""

from pathlib import Path

import timm.layers
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import nn

from workbench.models.fan import fan_base_hybrid
from workbench.models.fan_keys import load_published
from workbench.models.preprocessing import Preprocessing
from workbench.models.weights import load_strictly, outer_prefix, read_state

DEFAULT_SIZE = (224, 224)
MODELS = ("fan_base_hybrid", "nv_dinov2")


def build_nvidia(model: str, weights: str, image_size: tuple[int, int] | None) -> tuple[nn.Module, Preprocessing]:
    """The tower with random or a local file's weights, and the preprocessing of ImageNet.

    Raises:
        ValueError: an unknown model, `pretrained` (there is no place to download it from), or a file that does not fit,
            for FAN with the report of `fan_keys`.
    """
    if model not in MODELS:
        raise ValueError(f"workbench has the trunks {', '.join(MODELS)}; found {model!r}.")
    if weights == "pretrained":
        raise ValueError(
            f"The weights of workbench:{model} are not to be had without NVIDIA's terms: get them from NVIDIA's NGC catalogue "
            "(TAO's pretrained models), then name the .safetensors or .pth file; or use 'random'."
        )
    size = image_size or DEFAULT_SIZE
    tower: nn.Module
    if model == "nv_dinov2":
        tower = nv_dinov2(size)
        if weights != "random":
            load_strictly(tower, _state_of_dinov2(tower, Path(weights)), Path(weights))
    else:
        tower = fan = fan_base_hybrid()
        if weights != "random":
            load_published(fan, read_state(Path(weights)), weights)
    return tower, Preprocessing(size, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def nv_dinov2(image_size: tuple[int, int] = DEFAULT_SIZE) -> VisionTransformer:
    """NV-DINOv2's trunk with random weights: timm's plain vision transformer, 1024 features.

    Source: PROTOCOLS.md section 4.
    """
    return VisionTransformer(
        img_size=image_size,
        patch_size=14,
        embed_dim=1024,
        depth=24,
        num_heads=16,
        mlp_ratio=5472 / 1024,
        init_values=1e-5,
        mlp_layer=timm.layers.SwiGLUPacked,  # type: ignore[arg-type]
        act_layer=nn.SiLU,
        num_classes=0,
    )


def _state_of_dinov2(tower: VisionTransformer, path: Path) -> dict[str, torch.Tensor]:
    """The file's tensors under timm's names, its position encodings interpolated to the tower's size."""
    state = read_state(path)
    try:
        prefix = outer_prefix(list(state), ("cls_token",))
    except ValueError as error:
        raise ValueError(f"{path} does not fit workbench:nv_dinov2: {error}") from error
    inner = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    trunk = {name: value for name, value in inner.items() if not name.startswith("head.")}
    return checkpoint_filter_fn(trunk, tower)
