"""Image files as upright sRGB pictures or boxes cut from them, and what happens to files that are none.

Everything here may be called from many threads at once (see `decoding`).
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from workbench.data.boxes import Box, clip_box
from workbench.data.decoding import UndecodableError, decode, read_header

DECODE_VERSION = 2
"""Part of the key under which embeddings are kept: raise it when a file gives other pixels. 2: colour profiles are applied."""

MAX_PIXELS = 100_000_000
"""More than any camera gives (a 100-megapixel sensor excepted); as RGB it takes 400 MB while it is decoded."""


class ImageError(ValueError):
    """An image that cannot be used: `name` says which, `reason` why."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class QuarantineError(RuntimeError):
    """More images than allowed cannot be used."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What is to be looked at: an image file, or one box of it (None: all of it)."""

    path: Path
    box: Box | None = None

    def __str__(self) -> str:
        return f"{self.path}{say_box(self.box)}"


def say_box(box: Box | None) -> str:
    """What is put behind a file's name to tell its boxes apart, such as `[12,40.5,100,80]`; "" without a box."""
    if box is None:
        return ""
    numbers = [str(int(value)) if float(value).is_integer() else repr(float(value)) for value in box]
    return f"[{','.join(numbers)}]"


def decode_image(
    content: bytes,
    name: str,
    target_px: int | None = None,
    max_pixels: int = MAX_PIXELS,
    box: Box | None = None,
) -> Image.Image:
    """The picture in `content` as 8-bit sRGB, upright.

    JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF, JPEG 2000 and PNM are read. Of an animation the first frame is taken.
    An embedded colour profile is applied, transparent pixels are laid on white, as on a packshot, and 16-bit grey is
    scaled (see `srgb.as_srgb`); 16-bit colour keeps its upper byte. The orientation is taken from EXIF (or XMP); where
    that is damaged or says none, the picture stays as it lies.

    Args:
        content: the whole file.
        name: what errors call it.
        target_px: the shorter side, px, that the caller will resize to. A much larger JPEG is then decoded at 1/2, 1/4
            or 1/8 of its size, its shorter side never under `decoding.DRAFT_OVERSAMPLING` times `target_px`; other formats are
            decoded whole. The picture is never resized to `target_px` here.
        max_pixels: width times height above which the picture is refused, judged from the header before a pixel is
            decoded.
        box: the part that is wanted, px of the upright picture in full size; what reaches over the border is clipped.
            The picture is then decoded in full, whatever `target_px`, so that the crop is exact to the pixel.

    Raises:
        ImageError: empty, no image, of an unread format, too many pixels, truncated or damaged, samples (32-bit,
            floating point) that do not say which value is white, or a box outside the picture.
    """
    return decode_with_size(content, name, target_px, max_pixels, box)[0]


def decode_with_size(
    content: bytes,
    name: str,
    target_px: int | None = None,
    max_pixels: int = MAX_PIXELS,
    box: Box | None = None,
) -> tuple[Image.Image, tuple[int, int]]:
    """The picture as `decode_image` gives it, and the width and height, px, which it (or its box) has in full, upright."""
    if target_px is not None and target_px < 1:
        raise ValueError(f"target_px must be at least 1, found {target_px}.")
    if box is not None:
        part, _ = cut_box(decode_image(content, name, max_pixels=max_pixels), box, name)
        return part, part.size
    try:
        return decode(content, target_px, max_pixels)
    except UndecodableError as error:
        raise ImageError(name, str(error)) from error


def cut_box(picture: Image.Image, box: Box, name: str) -> tuple[Image.Image, str]:
    """The part of the picture in the box, and a note where the box reached over the border and was clipped ("" else).

    Edges go to the nearest whole pixel, halves upwards. A box that covers nothing of the picture is refused.

    Raises:
        ImageError: the box lies outside the picture, or is less than a pixel wide or high.
    """
    try:
        edges, is_clipped = clip_box(box, *picture.size)
    except ValueError as error:
        raise ImageError(name, str(error)) from error
    note = f"box clipped at the border of the picture of {picture.width} x {picture.height} px" if is_clipped else ""
    return picture.crop(edges), note


def load_image(
    source: Path | Picture, target_px: int | None = None, max_pixels: int = MAX_PIXELS, content: bytes | None = None
) -> Image.Image:
    """The picture in a file, or the box of it that a `Picture` names, as 8-bit RGB, upright (see `decode_image`).

    Several boxes of one file decode it once each; `embed_inputs` decodes it once for all. `content` is the file's, where it
    has been read already.

    Raises:
        ImageError: the file is missing, a folder or unreadable, or what `decode_image` refuses.
    """
    picture = as_picture(source)
    if content is None:
        content = image_bytes(picture.path)
    return decode_image(content, str(picture), target_px, max_pixels, picture.box)


def as_picture(source: Path | Picture) -> Picture:
    """The source itself, or all of the file at a path."""
    return source if isinstance(source, Picture) else Picture(source)


def load_or_reason(source: Path | Picture, target_px: int | None = None) -> Image.Image | str:
    """The picture as `load_image` gives it, or, where it cannot be used, why: for whatever shows pictures."""
    try:
        return load_image(source, target_px)
    except ImageError as error:
        return error.reason


def content_key(content: bytes, box: Box | None = None) -> str:
    """Hexadecimal sha256 of what is looked at: of the file's bytes, and of the box where there is one.

    What is drawn at random for a picture starts from it, so that two boxes of one file are not treated alike.
    """
    digest = hashlib.sha256(content)
    if box is not None:
        digest.update(np.array(box, dtype="<f8").tobytes())
    return digest.hexdigest()


def image_bytes(path: Path) -> bytes:
    """The content of the file at `path`.

    Raises:
        ImageError: there is no such file, it is a folder, or it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(str(path), "no such file") from error
    except IsADirectoryError as error:
        raise ImageError(str(path), "a folder, not a file") from error
    except OSError as error:
        raise ImageError(str(path), f"cannot be read: {error.strerror or error}") from error


def stored_size(path: Path) -> tuple[int, int, int]:
    """Width and height, px, of the picture as the file stores it, and EXIF's orientation, 1 to 8; no pixel is decoded.

    Raises:
        ImageError: the file cannot be read, or opened as a picture.
    """
    try:
        with path.open("rb") as file:
            return read_header(file)
    except (OSError, UndecodableError) as error:
        raise ImageError(str(path), str(error)) from error


def check_quarantine(quarantine: pd.DataFrame, num_images: int, limit: float = 0.01) -> None:
    """Returns nothing when the share of images in quarantine is at most `limit`.

    Args:
        quarantine: one row an image that could not be used, columns `path` and `reason`.
        num_images: how many images were tried, those in quarantine included. With none tried there is no share.
        limit: 0..1, allowed share; the limit itself is still allowed.

    Raises:
        QuarantineError: the share is larger; the message names the first five images with their reasons.
    """
    num_bad = len(quarantine)
    if num_bad <= limit * num_images:
        return
    first = [f"  {row.path}: {row.reason}" for row in quarantine.head(5).itertuples()]
    more = [f"  and {num_bad - 5} more"] if num_bad > 5 else []
    share = f" ({num_bad / num_images:.1%})" if num_images else ""
    raise QuarantineError(
        "\n".join(
            [
                f"{num_bad} of {num_images} images{share} cannot be used, at most {limit:.1%} may be:",
                *first,
                *more,
                "Repair or remove them, or check that the data folder was copied whole; "
                "raise the limit only when the loss is known and does not matter.",
            ]
        )
    )
