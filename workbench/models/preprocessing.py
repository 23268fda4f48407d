"""From a decoded image to what a trunk sees: one description, saved with the embedder, used everywhere.

It wants numpy and Pillow alone: the bundle for Triton carries this very file.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import torch

ResizeMode = Literal["squash", "crop", "pad"]
RESIZE_MODES: tuple[str, ...] = get_args(ResizeMode)
CropMode = Literal["center", "squash", "border", "rounded"]
CROP_MODES: tuple[str, ...] = get_args(CropMode)
_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
_BLACK = (0, 0, 0)


@dataclass(frozen=True)
class Preprocessing:
    """How an upright RGB image becomes a trunk's input.

    Attributes:
        image_size: height and width, px.
        mean, std: per channel R, G, B, of values in 0 to 1.
        interpolation: bicubic, bilinear or lanczos, always antialiased.
        resize: `squash` changes the aspect ratio and loses nothing (the default: product and person crops fill their
            frame); `crop` is the transform with which the trunk's weights were published and evaluated, as the next
            three fields say it, to the pixel; `pad` keeps the aspect ratio and fills with the mean colour.
        crop_share: `crop` scales to image_size / crop_share, rounded down, and takes the middle of that; positive. Above
            1 the scaled image is smaller than image_size and `fill` lies around it.
        crop_mode: what is scaled to that size. `center`: the shorter side, which keeps the aspect ratio and loses the ends
            of the longer one (open_clip says shortest). `squash`: both sides. `border`: the longer side, the rest is
            `fill` (open_clip says longest). `rounded` is `center` with sizes rounded to the nearest px, which no library
            does: embedders that were saved before there was a crop_mode answer with it as they always did.
        fill: R, G, B, 0 to 255, of what the scaled image leaves free; used by `crop` alone.

    Source: `timm.data.transforms_factory.transforms_imagenet_eval` (timm 1.0), `open_clip.transform.image_transform`
    (open_clip 3.3), `torchvision.transforms.Resize` and `CenterCrop`, which DINOv2 evaluates with too.
    """

    image_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize: ResizeMode = "squash"
    crop_share: float = 1.0
    crop_mode: CropMode = "center"
    fill: tuple[int, int, int] = _BLACK

    def __post_init__(self) -> None:
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            raise ValueError(f"image_size is (height, width) in px, both at least 1; found {self.image_size}.")
        for name, choices in (("interpolation", _FILTERS), ("resize", RESIZE_MODES), ("crop_mode", CROP_MODES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is one of {', '.join(choices)}; found {getattr(self, name)!r}.")
        if not 0 < self.crop_share < math.inf:
            raise ValueError(f"crop_share is positive and finite; found {self.crop_share}.")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean and std have three values each and std is positive; found {self.mean}, {self.std}.")
        if len(self.fill) != 3 or not all(isinstance(value, int) and 0 <= value <= 255 for value in self.fill):
            raise ValueError(f"fill is three whole numbers in 0 to 255; found {self.fill}.")
        if self.resize != "crop" and (self.crop_mode, self.fill) != ("center", _BLACK):
            raise ValueError(f"crop_mode and fill belong to resize 'crop'; found them beside {self.resize!r}.")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able description that `from_dict` reads back exactly."""
        described = asdict(self)
        if self.resize != "crop" or self.crop_mode == "rounded":
            # as it was before these fields were there, so that fingerprints of saved embedders stay
            del described["crop_mode"], described["fill"]
        return described

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> "Preprocessing":
        """The preprocessing that `to_dict` described."""
        as_tuples: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in described.items()
        }
        if as_tuples.get("resize") == "crop":
            as_tuples.setdefault("crop_mode", "rounded")
        return cls(**as_tuples)

    @classmethod
    def from_timm(cls, data: Mapping[str, Any], image_size: tuple[int, int] | None = None) -> "Preprocessing":
        """How timm evaluates weights of its own, as `crop`.

        Args:
            data: what `timm.data.resolve_data_config` says of them.
            image_size: height and width, px; None is the weights' own.
        """
        height, width = image_size or data["input_size"][1:]
        red, green, blue = data["mean"]
        return cls(
            image_size=(int(height), int(width)),
            mean=(red, green, blue),
            std=tuple(data["std"]),
            interpolation=data["interpolation"],
            resize="crop",
            crop_share=data["crop_pct"],
            crop_mode=data["crop_mode"],
            fill=(round(255 * red), round(255 * green), round(255 * blue)) if data["crop_mode"] == "border" else _BLACK,
        )

    @classmethod
    def from_open_clip(cls, data: Mapping[str, Any], image_size: tuple[int, int]) -> "Preprocessing":
        """How open_clip evaluates weights of its own, as `crop`.

        Args:
            data: the fields of an `open_clip.transform.PreprocessCfg`.
            image_size: height and width, px, in place of its `size`.
        """
        return cls(
            image_size=(int(image_size[0]), int(image_size[1])),
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
            interpolation=data["interpolation"],
            resize="crop",
            crop_mode={"shortest": "center", "longest": "border", "squash": "squash"}[data["resize_mode"]],  # type: ignore[arg-type]
            fill=(data["fill_color"],) * 3,
        )

    def resized(self, resize: ResizeMode) -> "Preprocessing":
        """The same preprocessing with another resize mode."""
        if resize == self.resize:
            return self
        return replace(self, resize=resize, crop_mode="center", fill=_BLACK)

    @property
    def decode_px(self) -> int:
        """The shorter side, px, below which a decoder must not shrink an image before `apply`."""
        return round(max(self.image_size) / self.crop_share)

    def apply(self, image: Image.Image) -> np.ndarray:
        """The trunk's input before normalisation: uint8 [H, W, 3].

        Args:
            image: RGB, upright, any size.
        """
        height, width = self.image_size
        scaled = image.resize(self._scaled_size(*image.size), _FILTERS[self.interpolation])
        if scaled.size == (width, height):
            return np.asarray(scaled)
        fill = tuple(round(255 * value) for value in self.mean) if self.resize == "pad" else self.fill
        canvas = Image.new("RGB", (width, height), fill)
        canvas.paste(scaled, (_offset(width, scaled.width), _offset(height, scaled.height)))
        return np.asarray(canvas)

    def normalise(self, images_NHWC: "torch.Tensor") -> "torch.Tensor":
        """Normalised images, float32 [N, 3, H, W] on the device of the input.

        Args:
            images_NHWC: uint8 [N, H, W, 3], values 0 to 255.
        """
        values_NHWC = images_NHWC.float()
        mean, std = (values_NHWC.new_tensor(three).mul(255) for three in (self.mean, self.std))
        return values_NHWC.sub_(mean).div_(std).permute(0, 3, 1, 2).contiguous()

    def _scaled_size(self, width_px: int, height_px: int) -> tuple[int, int]:
        """The width and height, px, to which an image of these is scaled before its middle is taken."""
        height, width = self.image_size
        if self.resize == "squash":
            return width, height
        scales = width / width_px, height / height_px
        if self.resize == "pad":
            return max(1, round(width_px * min(scales))), max(1, round(height_px * min(scales)))
        if self.crop_mode == "rounded":
            scale = max(scales) / self.crop_share
            return max(width, round(width_px * scale)), max(height, round(height_px * scale))
        high, wide = (max(1, math.floor(side / self.crop_share)) for side in self.image_size)
        if self.crop_mode == "squash":
            return wide, high
        if self.crop_mode == "center" and wide == high:  # torchvision's Resize of the shorter side truncates the longer
            if width_px <= height_px:
                return wide, int(wide * height_px / width_px)
            return int(high * width_px / height_px), high
        ratios = width_px / wide, height_px / high  # both libraries' ResizeKeepRatio rounds
        ratio = max(ratios) if self.crop_mode == "border" else min(ratios)
        return max(1, round(width_px / ratio)), max(1, round(height_px / ratio))


def _offset(wanted_px: int, found_px: int) -> int:
    """Where a side begins in the wanted one: padding rounds down, a cut to the nearest px, halves to the even one."""
    return (wanted_px - found_px) // 2 if found_px <= wanted_px else -round((found_px - wanted_px) / 2)
