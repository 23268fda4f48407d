"""From a decoded image to what a trunk sees: one description, saved with the embedder, used everywhere."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image

ResizeMode = Literal["squash", "crop", "pad"]
RESIZE_MODES: tuple[str, ...] = get_args(ResizeMode)
_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preprocessing:
    """How an upright RGB image becomes a trunk's input.

    Attributes:
        image_size: height and width, px.
        mean, std: per channel R, G, B, of values in 0 to 1.
        interpolation: bicubic, bilinear or lanczos, always antialiased.
        resize: `squash` changes the aspect ratio and loses nothing (the default: product and person crops fill their
            frame); `crop` scales the shorter side to image_size / crop_share and cuts the centre, as CLIP and DINOv2
            were evaluated; `pad` keeps the aspect ratio and fills with the mean colour.
        crop_share: used by `crop` alone; 0 < crop_share <= 1.
    """

    image_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    resize: ResizeMode = "squash"
    crop_share: float = 1.0

    def __post_init__(self) -> None:
        if len(self.image_size) != 2 or min(self.image_size) < 1:
            raise ValueError(f"image_size is (height, width) in px, both at least 1; found {self.image_size}.")
        if self.interpolation not in _FILTERS:
            raise ValueError(f"interpolation is one of {', '.join(_FILTERS)}; found {self.interpolation!r}.")
        if self.resize not in RESIZE_MODES:
            raise ValueError(f"resize is one of {', '.join(RESIZE_MODES)}; found {self.resize!r}.")
        if not 0 < self.crop_share <= 1:
            raise ValueError(f"crop_share lies in (0, 1]; found {self.crop_share}.")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean and std have three values each and std is positive; found {self.mean}, {self.std}.")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able description that `from_dict` reads back exactly."""
        return asdict(self)

    @classmethod
    def from_dict(cls, described: dict[str, Any]) -> "Preprocessing":
        """The preprocessing that `to_dict` described."""
        as_tuples: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in described.items()
        }
        return cls(**as_tuples)

    def resized(self, resize: ResizeMode) -> "Preprocessing":
        """The same preprocessing with another resize mode."""
        return replace(self, resize=resize)

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
        resample = _FILTERS[self.interpolation]
        if self.resize == "squash":
            return np.asarray(image.resize((width, height), resample))
        if self.resize == "pad":
            scale = min(width / image.width, height / image.height)
            size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
            canvas = Image.new("RGB", (width, height), tuple(round(255 * value) for value in self.mean))
            canvas.paste(image.resize(size, resample), ((width - size[0]) // 2, (height - size[1]) // 2))
            return np.asarray(canvas)
        scale = max(width / image.width, height / image.height) / self.crop_share
        size = max(width, round(image.width * scale)), max(height, round(image.height * scale))
        left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
        return np.asarray(image.resize(size, resample).crop((left, top, left + width, top + height)))

    def normalise(self, images_NHWC: torch.Tensor) -> torch.Tensor:
        """Normalised images, float32 [N, 3, H, W] on the device of the input.

        Args:
            images_NHWC: uint8 [N, H, W, 3], values 0 to 255.
        """
        mean = torch.tensor(self.mean, device=images_NHWC.device).mul(255)
        std = torch.tensor(self.std, device=images_NHWC.device).mul(255)
        return images_NHWC.float().sub_(mean).div_(std).permute(0, 3, 1, 2).contiguous()
