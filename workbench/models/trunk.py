"""Trunks by name: any image tower of open_clip, any model of timm, two of NVIDIA's.

A trunk is named by one string: `open_clip:ViT-L-14/laion2b_s32b_b82k` (architecture/weights tag),
`timm:vit_large_patch14_dinov2.lvd142m`, `timm:resnet50.a1_in1k`, `workbench:fan_base_hybrid`. Where the weights come
from is said apart: `pretrained` (the tag's own), `random`, or a local .safetensors or .pth file.
"""

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast, get_args

import timm
import torch
from torch import nn

from workbench.models.clip import build_clip, swaps_activation
from workbench.models.maps import inner_tower, last_map, last_tokens, num_prefix_tokens, patch_px
from workbench.models.nvidia import build_nvidia
from workbench.models.preprocessing import Preprocessing
from workbench.models.strides import set_last_stride
from workbench.models.weights import downloading, explain_misfit, read_state

Pooling = Literal["default", "class", "mean", "both"]
POOLINGS: tuple[str, ...] = get_args(Pooling)


class Trunk(nn.Module):
    """An image tower that gives one feature vector an image.

    Attributes:
        name: the string it was built from.
        pooling: default, class, mean or both.
        num_features: width of the features.
        preprocessing: what the tower was made for; its image_size is the size it was built at.
        tower: the library's own module.
        quick_gelu: whether it has QuickGELU where its architecture has GELU.
    """

    def __init__(
        self, name: str, tower: nn.Module, pooling: str, preprocessing: Preprocessing, quick_gelu: bool = False
    ) -> None:
        super().__init__()
        self.name, self.pooling, self.preprocessing = name, pooling, preprocessing
        self.tower, self.quick_gelu = tower, quick_gelu
        self._num_prefix = 0 if pooling == "default" else _num_prefix_tokens(name, tower, pooling)
        self.num_features = self._measure_features()

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Features, float [N, num_features], of normalised images, float [N, 3, H, W]."""
        if self.pooling == "default":
            return cast("torch.Tensor", self.tower(images_NCHW))
        tokens_NTC = last_tokens(self.tower, images_NCHW)
        parts = []
        if self.pooling in ("class", "both"):
            parts.append(tokens_NTC[:, 0])
        if self.pooling in ("mean", "both"):
            parts.append(tokens_NTC[:, self._num_prefix :].mean(dim=1))
        return torch.cat(parts, dim=1)

    def feature_map(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """The last map, float [N, C, h, w]: of a convnet before pooling, of a transformer its patch tokens after the final norm.

        Raises:
            ValueError: the tower has no map whose rows and columns are known.
        """
        return last_map(self.name, self.tower, images_NCHW)

    def count_map_channels(self) -> int:
        """Channels of `feature_map`; where a projection or several tokens follow it, they are not `num_features`."""
        training = self.training
        self.eval()
        with torch.no_grad():
            device = next(self.parameters()).device
            channels = self.feature_map(torch.zeros(1, 3, *self.preprocessing.image_size, device=device)).shape[1]
        self.train(training)
        return int(channels)

    def _measure_features(self) -> int:
        training = self.training
        self.eval()
        with torch.no_grad():
            features = self(torch.zeros(1, 3, *self.preprocessing.image_size))
        self.train(training)
        if features.ndim != 2:
            raise ValueError(
                f"{self.name} with pooling {self.pooling!r} gives {tuple(features.shape)}, not one vector an image."
            )
        return int(features.shape[1])


def build_trunk(
    name: str,
    weights: str = "pretrained",
    image_size: tuple[int, int] | None = None,
    pooling: str = "default",
    seed: int = 0,
    last_stride: int = 2,
    quick_gelu: bool | None = None,
) -> Trunk:
    """A trunk in evaluation mode.

    Args:
        name: `open_clip:ARCHITECTURE[/TAG]`, `timm:MODEL[.TAG]`, `workbench:fan_base_hybrid` or `workbench:nv_dinov2`.
        weights: `pretrained` (downloaded into the library's own cache when it is not there), `random`, or the path of a
            local .safetensors or .pth file (loaded without running code from it; every key has to match).
        image_size: height and width, px; None is the size that the weights were made for. Position encodings are
            interpolated; both sides must be multiples of the patch.
        pooling: `default` (the model's own: CLIP's projected class token, DINOv2's class token, average pooling of a
            ResNet), `class`, `mean` (over the patch tokens or the last map), `both` (class and mean side by side, as
            DINOv2's linear evaluation has it). The last three are taken after the final norm, before a projection.
        seed: of the random weights.
        last_stride: 1 leaves out the last halving of a timm ResNet's map, as re-identification does; 2 is the model's own.
        quick_gelu: of an open_clip trunk, QuickGELU where its architecture has GELU; None is what the tag's weights were
            trained with, whatever `weights` is (a file of such weights without their tag in the name gets the architecture's).

    Raises:
        ValueError: an unknown name, pooling, last stride, size or a file that does not fit; the message says what there is.
        WeightsUnavailableError: `pretrained` without a network and without a cached copy.
    """
    library, _, model = name.partition(":")
    swapped = swaps_activation(name) if quick_gelu is None else quick_gelu
    builders: dict[str, Callable[[str, str, tuple[int, int] | None], tuple[nn.Module, Preprocessing]]] = {
        "open_clip": partial(build_clip, quick_gelu=swapped),
        "timm": _build_timm,
        "workbench": build_nvidia,
    }
    if library not in builders or not model:
        raise ValueError(
            f"A trunk is named open_clip:ARCHITECTURE/TAG or timm:MODEL or workbench:MODEL; found {name!r}."
        )
    if pooling not in POOLINGS:
        raise ValueError(f"pooling is one of {', '.join(POOLINGS)}; found {pooling!r}.")
    if weights not in ("pretrained", "random") and not Path(weights).is_file():
        raise ValueError(f"trunk weights are 'pretrained', 'random' or a file that exists; found {weights!r}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower, preprocessing = builders[library](model, weights, image_size)
    _check_patch(name, tower, preprocessing.image_size)
    if last_stride != 2:
        set_last_stride(name, tower, last_stride)
    return Trunk(name, tower, pooling, preprocessing, swapped).eval()


def fetch_weights(name: str) -> dict[str, str | float]:
    """Downloads a trunk's pretrained weights into its library's own cache; its size (MiB of the image tower) and licence.

    Raises:
        WeightsUnavailableError: there is no network and no cached copy.
        ValueError: the name is unknown or has no weights.
    """
    trunk = build_trunk(name, "pretrained")
    size_mib = sum(value.numel() * value.element_size() for value in trunk.state_dict().values()) / 2**20
    config = getattr(trunk.tower, "pretrained_cfg", None) or {}
    return {
        "trunk": name,
        "size_mib": round(size_mib, 1),
        "licence": config.get("license") or "not stated by the library",
    }


def _build_timm(model: str, weights: str, image_size: tuple[int, int] | None) -> tuple[nn.Module, Preprocessing]:
    if not timm.is_model(model):
        near = get_close_matches(model, timm.list_models() + timm.list_pretrained(), n=3)
        raise ValueError(f"timm has no model {model!r}; near: {', '.join(near) or 'none'}.")
    config = timm.get_pretrained_cfg(model)
    arguments: dict[str, Any] = {"num_classes": 0}
    if image_size is not None and config is not None and config.fixed_input_size:
        arguments["img_size"] = image_size
    if weights == "pretrained":
        if config is None or not config.has_weights:
            raise ValueError(f"timm has no pretrained weights for {model!r}; use weights='random' or a local file.")
        try:
            with downloading(f"timm:{model}"):
                tower = timm.create_model(model, pretrained=True, **arguments)
        except RuntimeError as error:
            raise ValueError(f"timm:{model} cannot be built with its own weights: {explain_misfit(error)}") from error
    elif weights == "random":
        tower = timm.create_model(model, pretrained=False, **arguments)
    else:
        classifier = (config.classifier if config is not None else None) or ()
        heads = tuple(f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier))
        state = {key: value for key, value in read_state(Path(weights)).items() if not key.startswith(heads or ("\0",))}
        if not state:  # timm takes none for a wish to download
            raise ValueError(f"{weights} does not fit timm:{model}: it holds the classifier {', '.join(heads)} alone.")
        try:  # num_classes 0 on both sides keeps timm's loading strict
            tower = timm.create_model(
                model, pretrained=True, pretrained_cfg_overlay={"state_dict": state, "num_classes": 0}, **arguments
            )
        except (RuntimeError, LookupError, AttributeError) as error:  # two of them from timm's renaming of old names
            raise ValueError(f"{weights} does not fit timm:{model}: {explain_misfit(error)}") from error
    return tower, Preprocessing.from_timm(timm.data.resolve_data_config({}, model=tower), image_size)


def _check_patch(name: str, tower: nn.Module, image_size: tuple[int, int]) -> None:
    """Refuses a size of which the last pixels would be dropped, but for the one that the weights were published at."""
    patch = patch_px(tower)
    published = getattr(inner_tower(tower), "pretrained_cfg", None) or {}
    if patch is None or image_size == tuple(published.get("input_size", ()))[1:]:
        return
    height, width = patch
    if image_size[0] % height or image_size[1] % width:
        nearest = round(image_size[0] / height) * height or height, round(image_size[1] / width) * width or width
        raise ValueError(
            f"{name} cuts patches of {height}x{width} px: {image_size} does not divide; nearest: {nearest}."
        )


def _num_prefix_tokens(name: str, tower: nn.Module, pooling: str) -> int:
    """How many tokens stand before the patches; refuses a pooling that the tower cannot give."""
    prefix = num_prefix_tokens(name, tower)
    if prefix is None:
        raise ValueError(f"{name} has no tokens: pooling {pooling!r} is for vision transformers, use 'default'.")
    if pooling in ("class", "both") and prefix == 0:
        raise ValueError(f"{name} has no class token: use pooling 'mean' or 'default'.")
    return prefix
