"""Pictures made worse in one way, by a known amount: what model cards say in words ("small", "dark") as axes with units.

A corruption belongs to the moment of capture: it is done to the decoded picture, before a trunk's preprocessing. Lengths are
shares of the picture's longer side, so that trunks of any input size are asked the same. What is random (the side that is
hidden, the direction of a motion) depends on the picture's content alone: a worse severity continues a milder one.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter
from scipy.ndimage import map_coordinates

from workbench.data.corruption_kinds import KINDS

CORRUPTIONS_VERSION = 1
"""Part of the key under which embeddings of corrupted pictures are kept: raise it when any pixel changes."""

FILL = (127, 127, 127)
"""What hides a picture, and what lies beside a turned one: grey, so that nothing is added that looks like a product."""

FRAME_PX = 256
WHITE_ELECTRONS, READ_NOISE_ELECTRONS = 5000.0, 3.0
"""Electrons of a white pixel at the right exposure and the read noise's standard deviation: the order of a pixel of about
1 µm, as phones and cheap cameras have."""


@dataclass(frozen=True)
class Corruption:
    """What is done to a picture.

    Attributes:
        kind: one of `KINDS`.
        severity: in the kind's unit; the kind's `clean` does nothing.
        frame_px: a picture whose shorter side is longer is reduced to it first, so that a JPEG block or a pixel's noise has
            one size in relation to the picture. At least what a trunk sees, or it would be a blur of its own.
        seed: of what is random.

    Raises:
        ValueError: another kind, a severity out of its range, frame_px below 1 or a negative seed.
    """

    kind: str
    severity: float
    frame_px: int = FRAME_PX
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is one of {', '.join(KINDS)}; found {self.kind!r}.")
        low, high = KINDS[self.kind].limits
        if not (low <= self.severity <= high or self.severity == KINDS[self.kind].clean):
            raise ValueError(f"The severity of {self.kind} lies in {low:g} to {high:g}; found {self.severity:g}.")
        if self.frame_px < 1 or self.seed < 0:
            raise ValueError(f"frame_px is at least 1 and seed at least 0; found {self.frame_px} and {self.seed}.")


def corrupt_image(image: Image.Image, corruption: Corruption, sha256: str) -> Image.Image:
    """The picture made worse: RGB; `image` itself where the severity is the clean one. The input is not changed.

    The size stays, but for "size" (the reduced picture, as a detector would cut it out; never enlarged), "rotation" (the
    box around the turned picture) and pictures above `frame_px`.

    Args:
        image: RGB, upright.
        corruption: what is done.
        sha256: hexadecimal, of the picture's file: with the seed it decides what is random.
    """
    if corruption.severity == KINDS[corruption.kind].clean:
        return image
    rng = np.random.default_rng([corruption.seed, int(sha256[:16], 16)])
    shrink = corruption.frame_px / min(image.size)
    framed = _resized(image, shrink) if shrink < 1 else image
    return _APPLY[corruption.kind](framed, float(corruption.severity), rng)


def _resized(image: Image.Image, scale: float) -> Image.Image:
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.BICUBIC)


def _shrink(image: Image.Image, longer_px: float, rng: np.random.Generator) -> Image.Image:
    scale = longer_px / max(image.size)
    return _resized(image, scale) if scale < 1 else image


def _hide(image: Image.Image, visible: float, rng: np.random.Generator) -> Image.Image:
    """Something slides in front of it from one of the four sides; exact to the pixel, so that the last line may be part."""
    side = int(rng.integers(4))
    picture_HWC = np.array(image)
    lined_LWC = np.rot90(picture_HWC, side)  # a view: rows are now parallel to the chosen side
    width = lined_LWC.shape[1]
    whole, rest = divmod(round(picture_HWC[..., 0].size * (1 - visible / 100)), width)
    lined_LWC[:whole] = FILL
    lined_LWC[whole : whole + 1, :rest] = FILL
    return Image.fromarray(picture_HWC)


def _remove_colour(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    return Image.blend(image, image.convert("L").convert("RGB"), share / 100)


def _defocus(image: Image.Image, sigma: float, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(sigma / 100 * max(image.size)))


def _move(image: Image.Image, length: float, rng: np.random.Generator) -> Image.Image:
    """The mean of the picture along a straight path, centred; what enters at the edge repeats the edge."""
    angle = rng.uniform(0, np.pi)
    length_px = length / 100 * max(image.size)
    num_steps = 4 * int(np.ceil(length_px))
    step_S = ((np.arange(num_steps) + 0.5) / num_steps - 0.5) * length_px
    reach = int(np.ceil(length_px / 2)) + 1
    weight_KK = np.zeros((2 * reach + 1, 2 * reach + 1))
    for y, x in zip(np.sin(angle) * step_S + reach, np.cos(angle) * step_S + reach, strict=True):
        top, left = int(y), int(x)
        part_2 = np.array([1 - (y - top), y - top]), np.array([1 - (x - left), x - left])
        weight_KK[top : top + 2, left : left + 2] += np.outer(*part_2) / num_steps
    padded = np.pad(np.asarray(image, np.float64), ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    moved_HWC = np.zeros((image.height, image.width, 3))
    for top, left in np.argwhere(weight_KK):
        moved_HWC += weight_KK[top, left] * padded[top : top + image.height, left : left + image.width]
    return _as_image(moved_HWC)


def _distort(image: Image.Image, distortion: float, rng: np.random.Generator) -> Image.Image:
    """Radial model of first order, r -> r (1 + k r^2) from output to source, scaled so that the corners stay corners."""
    bend = distortion / 100 / (1 - distortion / 100)
    y_HW, x_HW = np.mgrid[: image.height, : image.width].astype(np.float64)
    middle_y, middle_x = (image.height - 1) / 2, (image.width - 1) / 2
    square_HW = ((y_HW - middle_y) ** 2 + (x_HW - middle_x) ** 2) / max(middle_y**2 + middle_x**2, 1e-12)
    scale_HW = (1 + bend * square_HW) / (1 + bend)
    source = np.stack([middle_y + (y_HW - middle_y) * scale_HW, middle_x + (x_HW - middle_x) * scale_HW])
    channels = [map_coordinates(channel, source, order=1, mode="nearest") for channel in _channels(image)]
    return _as_image(np.stack(channels, axis=-1))


def _tilt(image: Image.Image, shorter: float, rng: np.random.Generator) -> Image.Image:
    """One of the four sides is farther away: it is shortened about its middle, the side opposite stays as it is."""
    side = int(rng.integers(4))
    turned = image.rotate(90 * side, expand=True)
    width, height = turned.size
    inset = shorter / 200 * width
    seen = [(inset, 0), (width - inset, 0), (width, height), (0, height)]
    shown = [(0, 0), (width, 0), (width, height), (0, height)]
    # Pillow asks for each output point where it comes from: (a x + b y + c) / (g x + h y + 1), likewise d, e, f.
    rows = [
        row
        for (x, y), (u, v) in zip(seen, shown, strict=True)
        for row in ([x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y])
    ]
    coefficients = np.linalg.solve(np.array(rows, np.float64), np.array(shown, np.float64).ravel())
    tilted = turned.transform(
        turned.size, Image.Transform.PERSPECTIVE, coefficients.tolist(), Image.Resampling.BICUBIC, fillcolor=FILL
    )
    return tilted.rotate(-90 * side, expand=True)


def _save_as_jpeg(image: Image.Image, quality: float, rng: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=round(quality))
    with Image.open(buffer, formats=["JPEG"]) as saved:
        return saved.convert("RGB")


def _rotate(image: Image.Image, degrees: float, rng: np.random.Generator) -> Image.Image:
    sign = 1 if rng.random() < 0.5 else -1
    return image.rotate(sign * degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=FILL)


def _underexpose(image: Image.Image, stops: float, rng: np.random.Generator) -> Image.Image:
    """Less light and no more gain: each stop halves the electrons, whose number is Poisson's; the read noise stays.

    Source: EMVA standard 1288 (linear camera model: shot noise and read noise); IEC 61966-2-1 (sRGB).
    """
    encoded = np.asarray(image, np.float64) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    electrons = rng.poisson(linear * WHITE_ELECTRONS / 2**stops) + rng.normal(0, READ_NOISE_ELECTRONS, linear.shape)
    dark = np.clip(electrons / WHITE_ELECTRONS, 0, 1)
    return _as_image(255 * np.where(dark <= 0.0031308, 12.92 * dark, 1.055 * dark ** (1 / 2.4) - 0.055))


def _channels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float64).transpose(2, 0, 1)


def _as_image(picture_HWC: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(picture_HWC), 0, 255).astype(np.uint8))


_APPLY: dict[str, Callable[[Image.Image, float, np.random.Generator], Image.Image]] = {
    "size": _shrink,
    "visible": _hide,
    "monochrome": _remove_colour,
    "blur": _defocus,
    "motion": _move,
    "fisheye": _distort,
    "perspective": _tilt,
    "jpeg": _save_as_jpeg,
    "rotation": _rotate,
    "low_light": _underexpose,
}
