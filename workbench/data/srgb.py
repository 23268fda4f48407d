"""A decoded file's own pixels as what everything here works on: 8-bit sRGB, what is transparent on white, upright.

Safe to call from many threads at once. It wants numpy and Pillow alone: the bundle for Triton carries this very file.
"""

import io
from functools import lru_cache

import numpy as np
from PIL import ExifTags, Image, ImageCms

MAX_PROFILE_BYTES = 4 * 2**20
"""A larger colour profile is not applied; those of printing presses, the largest in use, take 0.5 to 3 MB."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture of an EXIF orientation upright; the others lie as they should."""

_GREY = ("1", "L", "LA")


def orientation_of(image: Image.Image) -> int:
    """The EXIF (or XMP) orientation of a loaded file, 1 where it says none or is damaged."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block raises anything, and says nothing about the pixels
        return 1


def as_srgb(image: Image.Image) -> Image.Image:
    """The picture in 8-bit sRGB, mode RGB, not yet upright and without a profile; the input is not changed.

    The embedded ICC profile, of RGB, CMYK or grey pixels alike, is applied with relative colorimetric intent and black
    point compensation: a colour that sRGB can show stays the measured colour that it is, so that one product has one
    colour whatever camera saw it, and one outside of sRGB goes to its border. The perceptual intent would also move
    the colours inside, by a table of each profile's maker; for profiles of a matrix and curves (Display P3, Adobe RGB,
    ProPhoto), which have no such table, the two are the same. White stays white in both.

    A profile that changes no colour by more than one level of 255 is sRGB by some name, and the pixels stay as they
    are. A profile that is damaged, larger than `MAX_PROFILE_BYTES`, or for other pixels than the picture has (such as
    of RGB in a grey one) says nothing about them: the picture is read as if it had none. No profile means sRGB; CMYK
    without one is converted by Pillow's plain formula.

    16-bit grey is scaled by its full range (65535 becomes 255), not clipped. Transparent pixels are laid on white, after
    their colours were converted.

    Args:
        image: loaded, of any mode that Pillow converts to RGB; of the modes I and I;16 the values lie in 0 to 65535.

    Source: ICC.1:2022 (profiles, rendering intents); IEC 61966-2-1 (sRGB).
    """
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    mode = "L" if image.mode in _GREY else "CMYK" if image.mode == "CMYK" else "RGB"
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")  # also of a palette, whose transparency Pillow converts to nothing else
        alpha = image.getchannel("A")
        image = image.getchannel("R") if mode == "L" else image
    transform = _transform_of(profile, mode) if isinstance(profile, bytes) and profile else None
    if transform is None:
        picture = image.convert("RGB")
    else:
        picture = transform.apply(image if image.mode == mode else image.convert(mode))
    if alpha is not None:
        picture.putalpha(alpha)
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    picture.info.pop("icc_profile", None)  # whoever saves it would save a profile that no longer holds
    return picture


@lru_cache(maxsize=32)
def _transform_of(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What makes sRGB of pixels of a mode (L, RGB or CMYK); None where they stay as they are (see `as_srgb`)."""
    if len(profile) > MAX_PROFILE_BYTES:
        return None
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (OSError, ImageCms.PyCMSError):
        return None
    if mode == "CMYK":
        return transform
    level = np.arange(0, 256, 15 if mode == "RGB" else 1, dtype=np.uint8)
    lattice = np.stack(np.meshgrid(level, level, level), axis=-1).reshape(18, -1, 3) if mode == "RGB" else level[None]
    shown = Image.fromarray(lattice)
    changed = np.asarray(transform.apply(shown)).astype(int) - np.asarray(shown.convert("RGB"))
    return transform if np.abs(changed).max() > 1 else None
