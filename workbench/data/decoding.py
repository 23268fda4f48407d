"""A file's content as an upright picture in 8-bit sRGB, or the reason why it is none.

Everything here may be called from many threads at once: no global of Pillow is read or changed, and decoding releases
the interpreter lock. Each file format is opened by its own class instead of `PIL.Image.open`, whose pixel limit is a
global of the process and speaks through warnings, which are not safe across threads.

It wants numpy and Pillow alone: the bundle for Triton carries this very file and `srgb.py`.
"""

import io
from typing import BinaryIO

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from workbench.data.srgb import UPRIGHT, as_srgb, orientation_of

DRAFT_OVERSAMPLING = 2
"""JPEG is decoded at 1/2, 1/4 or 1/8 only while the shorter side stays at least this many times the wanted one, so that
the antialiased resize that follows, not the decoder's box of pixels, decides what the trunk sees. On the 348 px
photographs of the Grocery Store Dataset, drafted to half size (174 px) and resized to 64 px, the mean difference from
the full decode is 0.4 of 255 levels; drafted to a quarter (87 px) it is 1.3."""

_FORMATS: dict[bytes, type[ImageFile.ImageFile]] = {
    # A JPEG with several pictures (MPO) is read by the JPEG class, too: its first picture.
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    b"GIF8": GifImagePlugin.GifImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"II*\0": TiffImagePlugin.TiffImageFile,
    b"MM\0*": TiffImagePlugin.TiffImageFile,
    b"\xff\x4f\xff\x51": Jpeg2KImagePlugin.Jpeg2KImageFile,
    b"\0\0\0\x0cjP  \r\n\x87\n": Jpeg2KImagePlugin.Jpeg2KImageFile,
    **{b"P%d" % kind: PpmImagePlugin.PpmImageFile for kind in range(1, 7)},
}
_SIDES_CHANGE = (5, 6, 7, 8)


class UndecodableError(ValueError):
    """A file that gives no picture; the message is the reason."""


def decode(content: bytes, target_px: int | None, max_pixels: int) -> tuple[Image.Image, tuple[int, int]]:
    """The picture, upright, 8-bit sRGB, and the width and height, px, that it has in full; see `images.decode_image`.

    Args:
        content: the whole file.
        target_px: the shorter side, px, that the caller will resize to; None decodes a JPEG in full size.
        max_pixels: width times height above which the picture is refused, judged before a pixel is decoded.

    Raises:
        UndecodableError: empty, no image, of an unread format, too many pixels, truncated or damaged, or samples (32-bit,
            floating point) that do not say which value is white.
    """
    file_class = _class_of(content)
    try:
        image = file_class(io.BytesIO(content), "")
        size = image.size
        if image.width * image.height > max_pixels:
            raise UndecodableError(f"too many pixels: {image.width} x {image.height}, the limit is {max_pixels:,}")
        is_jpeg = isinstance(image, JpegImagePlugin.JpegImageFile)
        if is_jpeg and target_px is not None:
            image.draft(None, (DRAFT_OVERSAMPLING * target_px, DRAFT_OVERSAMPLING * target_px))
        image.load()
        _check_white(image)
        orientation = orientation_of(image)
        picture = as_srgb(image)
        if orientation in UPRIGHT:
            picture = picture.transpose(UPRIGHT[orientation])
        if not is_jpeg:
            return picture, picture.size
        return picture, (size[::-1] if orientation in _SIDES_CHANGE else size)
    except UndecodableError:
        raise
    except Exception as error:  # Pillow's readers raise some fifteen kinds on damaged files
        raise UndecodableError(_damage(error)) from error


def read_header(file: BinaryIO) -> tuple[int, int, int]:
    """Width and height, px, of the picture as the file stores it, and EXIF's orientation, 1 to 8; no pixel is decoded.

    Raises:
        UndecodableError: the file cannot be opened as a picture.
    """
    file_class = _class_of(file.read(16))
    try:
        file.seek(0)
        image = file_class(file, "")
        orientation, (width, height) = orientation_of(image), image.size
    except Exception as error:  # as above
        raise UndecodableError(_damage(error)) from error
    if file_class is TiffImagePlugin.TiffImageFile and orientation in _SIDES_CHANGE:
        width, height = height, width  # Pillow gives a TIFF's size as it is shown
    return width, height, orientation


def _damage(error: Exception) -> str:
    return f"{'truncated' if 'truncat' in str(error).lower() else 'damaged'}: {type(error).__name__}: {error}"


def _class_of(content: bytes) -> type[ImageFile.ImageFile]:
    """What reads a file that begins like this; 16 bytes are enough."""
    if not content:
        raise UndecodableError("empty file (0 bytes)")
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    if content[4:8] == b"ftyp":
        if content[8:12] in (b"avif", b"avis"):
            return AvifImagePlugin.AvifImageFile
        if content[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
            raise UndecodableError("HEIC, which is not read: convert it to JPEG")
    for magic, file_class in _FORMATS.items():
        if content.startswith(magic):
            return file_class
    wanted = "JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF, JPEG 2000 or PNM"
    raise UndecodableError(f"not an image: wanted {wanted}, found a file that starts with {content[:8]!r}")


def _check_white(image: Image.Image) -> None:
    """Returns nothing where the samples' kind says which value is white."""
    if image.mode == "F":
        raise UndecodableError("floating-point samples, whose white is unknown: convert to 8 or 16 bit")
    if image.mode.startswith("I"):
        value_HW = np.asarray(image)
        if value_HW.min() < 0 or value_HW.max() > 65535:
            raise UndecodableError("32-bit samples outside 0..65535, whose white is unknown: convert to 8 or 16 bit")
