"""Trunks by name: any image tower of open_clip, any model of timm, two of NVIDIA's.

A trunk is named by one string: `open_clip:ViT-L-14/laion2b_s32b_b82k` (architecture/weights tag),
`timm:vit_large_patch14_dinov2.lvd142m`, `timm:resnet50.a1_in1k`, `workbench:fan_base_hybrid`. Where the weights come
from is said apart: `pretrained` (the tag's own), `random`, or a local .safetensors or .pth file.
"""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast, get_args

import open_clip
import open_clip.model
import timm
import torch
from torch import nn

from workbench.models.maps import last_map, last_tokens, patch_px
from workbench.models.nvidia import build_nvidia
from workbench.models.preprocessing import Preprocessing
from workbench.models.strides import set_last_stride
from workbench.models.weights import load_strictly, read_state

Pooling = Literal["default", "class", "mean", "both"]
POOLINGS: tuple[str, ...] = get_args(Pooling)


class WeightsUnavailableError(OSError):
    """Pretrained weights are neither in the cache nor to be downloaded."""


class Trunk(nn.Module):
    """An image tower that gives one feature vector an image.

    Attributes:
        name: the string it was built from.
        pooling: default, class, mean or both.
        num_features: width of the features.
        preprocessing: what the tower was made for; its image_size is the size it was built at.
        tower: the library's own module.
    """

    def __init__(self, name: str, tower: nn.Module, pooling: str, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.name, self.pooling, self.preprocessing = name, pooling, preprocessing
        self.tower = tower
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

    Raises:
        ValueError: an unknown name, pooling, last stride, size or a file that does not fit; the message says what there is.
        WeightsUnavailableError: `pretrained` without a network and without a cached copy.
    """
    library, _, model = name.partition(":")
    builders: dict[str, Callable[[str, str, tuple[int, int] | None], tuple[nn.Module, Preprocessing]]] = {
        "open_clip": _build_open_clip,
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
    return Trunk(name, tower, pooling, preprocessing).eval()


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


def _build_open_clip(model: str, weights: str, image_size: tuple[int, int] | None) -> tuple[nn.Module, Preprocessing]:
    architecture, _, tag = model.partition("/")
    config = open_clip.get_model_config(architecture)
    if config is None:
        near = get_close_matches(architecture, open_clip.list_models(), n=3)
        raise ValueError(f"open_clip has no architecture {architecture!r}; near: {', '.join(near) or 'none'}.")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag and tag not in tags:
        raise ValueError(
            f"open_clip has no weights {tag!r} for {architecture}; there are: {', '.join(tags) or 'none'}."
        )
    described = open_clip.get_pretrained_cfg(architecture, tag) if tag else {}
    size_there = image_size if image_size is None else _open_clip_size(architecture, config["vision_cfg"], image_size)
    if weights == "pretrained":
        if not tag:
            raise ValueError(f"Name the weights: open_clip:{architecture}/TAG, TAG one of {', '.join(tags) or 'none'}.")
        with downloading(f"open_clip:{model}"):
            tower = open_clip.create_model(architecture, pretrained=tag, force_image_size=size_there).visual
    else:
        vision = copy.deepcopy(config["vision_cfg"])
        if size_there is not None:
            vision["image_size"] = size_there
        tower = open_clip.model._build_vision_tower(config["embed_dim"], vision, config.get("quick_gelu", False))
        if "timm_model_name" in vision and image_size is not None:
            tower.set_input_size(image_size)
        if weights != "random":
            _load_open_clip(tower, Path(weights))
    size = tower.image_size if isinstance(tower.image_size, tuple) else (tower.image_size, tower.image_size)
    preprocessing = Preprocessing(
        image_size=(int(size[0]), int(size[1])),
        mean=tuple(described.get("mean") or open_clip.OPENAI_DATASET_MEAN),
        std=tuple(described.get("std") or open_clip.OPENAI_DATASET_STD),
        interpolation=described.get("interpolation") or "bicubic",
    )
    return tower, preprocessing


def _open_clip_size(architecture: str, vision: Mapping[str, Any], image_size: tuple[int, int]) -> tuple[int, int] | int:
    """The size as open_clip wants it: its ResNets pool by attention over a square grid, a cell each 32 px."""
    if not isinstance(vision.get("layers"), list):
        return image_size
    height, width = image_size
    if height != width or height % 32:
        nearest = max(round(height / 32), 1) * 32
        raise ValueError(
            f"{architecture} takes square images, their side a multiple of 32 px; found {image_size}; nearest: {nearest, nearest}."
        )
    return height


def _load_open_clip(tower: nn.Module, path: Path) -> None:
    state = read_state(path)
    if any(key.startswith("visual.") for key in state):
        state = {key: value for key, value in state.items() if key.startswith("visual.")}
    else:
        state = {f"visual.{key}": value for key, value in state.items()}
    open_clip.model.resize_pos_embed(state, SimpleNamespace(visual=tower))
    load_strictly(tower, {key.removeprefix("visual."): value for key, value in state.items()}, path)


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
        with downloading(f"timm:{model}"):
            tower = timm.create_model(model, pretrained=True, **arguments)
    elif weights == "random":
        tower = timm.create_model(model, pretrained=False, **arguments)
    else:
        classifier = (config.classifier if config is not None else None) or ()
        heads = tuple(f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier))
        state = {key: value for key, value in read_state(Path(weights)).items() if not key.startswith(heads or ("\0",))}
        try:  # num_classes 0 on both sides keeps timm's loading strict
            tower = timm.create_model(
                model, pretrained=True, pretrained_cfg_overlay={"state_dict": state, "num_classes": 0}, **arguments
            )
        except RuntimeError as error:
            raise ValueError(f"{weights} does not fit timm:{model}: {error}") from error
    data = timm.data.resolve_data_config({}, model=tower)
    size = image_size or data["input_size"][1:]
    preprocessing = Preprocessing(
        image_size=(int(size[0]), int(size[1])),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=data["interpolation"],
        crop_share=data["crop_pct"],
    )
    return tower, preprocessing


@contextmanager
def downloading(name: str) -> Iterator[None]:
    """Turns the libraries' many ways of having no network into one line; their own messages stay out of the log."""
    logging.disable(logging.ERROR)
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        cause = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsUnavailableError(
            f"The weights of {name} are not in the cache and could not be downloaded ({cause[0][:200]}). "
            f"With a network, `python -m workbench models fetch {name}` gets them once; or name a local file; or use 'random'."
        ) from error
    finally:
        logging.disable(logging.NOTSET)


def _check_patch(name: str, tower: nn.Module, image_size: tuple[int, int]) -> None:
    patch = patch_px(tower)
    if patch is None:
        return
    height, width = patch
    if image_size[0] % height or image_size[1] % width:
        nearest = round(image_size[0] / height) * height or height, round(image_size[1] / width) * width or width
        raise ValueError(
            f"{name} cuts patches of {height}x{width} px: {image_size} does not divide; nearest: {nearest}."
        )


def _num_prefix_tokens(name: str, tower: nn.Module, pooling: str) -> int:
    """How many tokens stand before the patches; refuses a pooling that the tower cannot give."""
    prefix = 1 if isinstance(tower, open_clip.model.VisionTransformer) else getattr(tower, "num_prefix_tokens", None)
    if prefix is None:
        raise ValueError(f"{name} has no tokens: pooling {pooling!r} is for vision transformers, use 'default'.")
    if pooling in ("class", "both") and prefix == 0:
        raise ValueError(f"{name} has no class token: use pooling 'mean' or 'default'.")
    return int(prefix)
