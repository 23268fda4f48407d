"""open_clip's models by name: what a tag's weights want, the image tower, and the weights from a tag or a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import open_clip
import open_clip.convert
import open_clip.model
import open_clip.transform
import torch
from timm.layers import resample_abs_pos_embed
from torch import nn

from workbench.models.preprocessing import Preprocessing
from workbench.models.weights import downloading, load_strictly, read_state


@dataclass(frozen=True)
class ClipModel:
    """What open_clip knows of `ARCHITECTURE[/TAG]`.

    Attributes:
        name: that string.
        config: of the architecture: embed_dim, vision_cfg, text_cfg and more.
        described: of the tag's weights: where they lie, mean and std, quick_gelu; empty without a tag.
    """

    name: str
    config: Mapping[str, Any]
    described: Mapping[str, Any]

    @property
    def architecture(self) -> str:
        """The part before the tag."""
        return self.name.partition("/")[0]

    @property
    def quick_gelu(self) -> bool:
        """Whether the weights want QuickGELU: the tag says so or, where it is silent, the architecture."""
        return bool(self.described.get("quick_gelu") or self.config.get("quick_gelu"))

    def weights_file(self, weights: str) -> Path:
        """The file of `weights`: the tag's own, downloaded where it is not in open_clip's cache, or the local one.

        Raises:
            WeightsUnavailableError: the tag's own without a network and without a cached copy.
        """
        if weights != "pretrained":
            return Path(weights)
        with downloading(f"open_clip:{self.name}"):
            return Path(open_clip.download_pretrained(self.described))


def find_model(name: str, weights: str) -> ClipModel:
    """What open_clip knows of `ARCHITECTURE[/TAG]`.

    Raises:
        ValueError: an unknown architecture or tag, `pretrained` without a tag, or weights that are no file.
    """
    architecture, _, tag = name.partition("/")
    if architecture not in open_clip.list_models():
        near = get_close_matches(architecture, open_clip.list_models(), n=3)
        raise ValueError(f"open_clip has no architecture {architecture!r}; near: {', '.join(near) or 'none'}.")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag and tag not in tags:
        raise ValueError(
            f"open_clip has no weights {tag!r} for {architecture}; there are: {', '.join(tags) or 'none'}."
        )
    if weights == "pretrained" and not tag:
        raise ValueError(f"Name the weights: open_clip:{architecture}/TAG, TAG one of {', '.join(tags) or 'none'}.")
    if weights not in ("pretrained", "random") and not Path(weights).is_file():
        raise ValueError(f"weights are 'pretrained', 'random' or a file that exists; found {weights!r}.")
    described = open_clip.get_pretrained_cfg(architecture, tag) if tag else {}
    return ClipModel(name, open_clip.get_model_config(architecture), described)


def swaps_activation(trunk: str) -> bool:
    """Whether the tag of a trunk's name wants QuickGELU in an image tower to which its architecture gives GELU.

    Never of a ResNet (its image tower has ReLU) and of timm's towers (open_clip gives them no activation).
    """
    library, _, name = trunk.partition(":")
    architecture, _, tag = name.partition("/")
    if library != "open_clip" or not open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu"):
        return False
    config = open_clip.get_model_config(architecture)
    vision = config["vision_cfg"]
    return not (config.get("quick_gelu") or "timm_model_name" in vision or isinstance(vision.get("layers"), list))


def build_clip(
    name: str, weights: str, image_size: tuple[int, int] | None, quick_gelu: bool
) -> tuple[nn.Module, Preprocessing]:
    """The image tower and its preprocessing.

    Args:
        name: `ARCHITECTURE[/TAG]`.
        weights: pretrained, random or a local file, of the whole model or of its image tower.
        image_size: height and width, px; None is the architecture's own.
        quick_gelu: QuickGELU also where the architecture has GELU.

    Raises:
        ValueError: see `find_model`; a size that the tower cannot take, or a file that does not fit.
        WeightsUnavailableError: `pretrained` without a network and without a cached copy.
    """
    model = find_model(name, weights)
    # CoCa's towers would answer with a tuple; `random` is no word for weights that a timm tower downloads
    vision = {**model.config["vision_cfg"], "output_tokens": False, "timm_model_pretrained": False}
    if image_size is not None:
        vision["image_size"] = _own_size(model.architecture, vision, image_size)
    activation = quick_gelu or bool(model.config.get("quick_gelu"))
    tower = open_clip.model._build_vision_tower(model.config["embed_dim"], vision, activation)
    if weights != "random":
        _load(tower, model.weights_file(weights))
    if isinstance(tower, open_clip.model.TimmModel) and image_size is not None:
        tower.set_input_size(image_size)  # after the weights, whose position encodings it interpolates
    size = tower.image_size if isinstance(tower.image_size, tuple) else (tower.image_size, tower.image_size)
    published = open_clip.transform.merge_preprocess_dict(open_clip.transform.PreprocessCfg(), model.described)
    return tower, Preprocessing.from_open_clip(published, size)


def _own_size(architecture: str, vision: Mapping[str, Any], image_size: tuple[int, int]) -> tuple[int, int] | int:
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


def _load(tower: nn.Module, path: Path) -> None:
    """Loads the image half of a file, its position encodings interpolated to the tower's size."""
    state = open_clip.convert.convert_state_dict(SimpleNamespace(visual=tower), read_state(path))
    if any(key.startswith("visual.") for key in state):
        state = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    for key in ("positional_embedding", "attnpool.positional_embedding"):
        if key in state:
            state[key] = _interpolate(state[key], tower)
    load_strictly(tower, state, path)


def _interpolate(encoding_TC: torch.Tensor, tower: nn.Module) -> torch.Tensor:
    """Position encodings of a square grid, the class token's or the mean's first, for the tower's grid."""
    cells = cast("int", tower.image_size) // 32 if isinstance(tower, open_clip.model.ModifiedResNet) else 0
    grid = (cells, cells) if cells else cast("tuple[int, int]", tower.grid_size)
    if encoding_TC.ndim != 2 or len(encoding_TC) == 1 + grid[0] * grid[1]:
        return encoding_TC
    return cast("torch.Tensor", resample_abs_pos_embed(encoding_TC[None], list(grid), num_prefix_tokens=1)[0])
