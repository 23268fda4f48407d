"""Colour profiles: what a file's pixels are in sRGB follows from the primaries' chromaticities, by arithmetic of its own."""

import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from profiles import (
    ADOBE_RGB,
    DISPLAY_P3,
    PROPHOTO,
    SRGB,
    SRGB_CURVE,
    grey_profile,
    press_profile,
    rgb_profile,
)

from workbench.data.boxes import Box
from workbench.data.images import decode_image, decode_with_size
from workbench.data.srgb import MAX_PROFILE_BYTES
from workbench.report.markup import webp_address

P3 = rgb_profile(DISPLAY_P3, SRGB_CURVE)
D65, D50 = (0.3127, 0.3290), (0.3457, 0.3585)
SRGB_XY = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
# chromaticities of red, green and blue, the white, and the exponent (None: sRGB's curve)
SPACES: dict[str, tuple[bytes, Any, Any, float | None]] = {
    # SMPTE EG 432-1 with D65 and sRGB's curve
    "Display P3": (P3, ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), D65, None),
    "Adobe RGB": (rgb_profile(ADOBE_RGB, [563 / 256]), ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), D65, 563 / 256),
    "ProPhoto": (rgb_profile(PROPHOTO, [1.8]), ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), D50, 1.8),
}
# ISO 11664: the cone responses in which Bradford's adaptation scales white to white
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def xyz_of(xy: tuple[float, float]) -> np.ndarray:
    return np.array([xy[0] / xy[1], 1.0, (1 - xy[0] - xy[1]) / xy[1]])


def to_xyz(primaries: Any, white: tuple[float, float]) -> np.ndarray:
    columns = np.stack([xyz_of(xy) for xy in primaries], axis=1)
    return columns * np.linalg.solve(columns, xyz_of(white))


def encode(linear: np.ndarray) -> np.ndarray:
    """sRGB levels, IEC 61966-2-1."""
    linear = np.clip(linear, 0, 1)
    return np.rint(255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


def expected_of(
    levels_N3: np.ndarray, primaries: Any, white: tuple[float, float], exponent: float | None
) -> np.ndarray:
    value = levels_N3 / 255
    srgb_linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    linear = srgb_linear if exponent is None else value**exponent
    scale = np.diag((BRADFORD @ xyz_of(D65)) / (BRADFORD @ xyz_of(white)))
    adapt = np.linalg.solve(BRADFORD, scale @ BRADFORD)
    return encode(linear @ (np.linalg.solve(to_xyz(SRGB_XY, D65), adapt @ to_xyz(primaries, white))).T)


def colours(number: int = 4000) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, 3)).astype(np.uint8)


def shown(content: bytes) -> np.ndarray:
    return np.asarray(decode_image(content, "here")).astype(int)


@pytest.mark.parametrize("name", SPACES)
def test_a_profile_is_applied_as_its_definition_says(name: str) -> None:
    profile, primaries, white, exponent = SPACES[name]
    levels = colours()
    found = shown(encoded(Image.fromarray(levels[None]), icc_profile=profile))[0]
    expected = expected_of(levels, primaries, white, exponent)
    # one level: two roundings to 8 bits, and the library's matrix of 14 binary places
    assert np.abs(found - expected).max() <= 1
    assert np.abs(found - levels).max() > 20, "nothing was converted"


def test_well_known_colours() -> None:
    """sRGB's red is 234, 51, 35 in Display P3 (CSS Color 4); P3's own red lies outside of sRGB and goes to its border.

    Half a level, to which 51 is rounded, is up to 3 levels where sRGB's curve is steep.
    """
    picture = Image.new("RGB", (2, 1), (234, 51, 35))
    picture.putpixel((1, 0), (255, 0, 0))
    first, second = shown(encoded(picture, icc_profile=P3))[0]
    assert np.abs(first - [255, 0, 0]).max() <= 3
    assert second.tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF", "AVIF"])
def test_every_format_that_carries_a_profile(kind: str) -> None:
    picture = Image.new("RGB", (64, 64), (60, 200, 90))
    plain = shown(encoded(picture, kind, quality=100))
    found = shown(encoded(picture, kind, quality=100, icc_profile=P3))
    expected = expected_of(plain[0, :1], *SPACES["Display P3"][1:])
    assert np.abs(found - expected).max() <= 2  # the colour of a lossy file is one of its own levels
    assert np.abs(found - plain).max() > 15


def test_srgb_by_any_name_and_no_profile_are_the_same_to_the_bit() -> None:
    picture = Image.fromarray(colours()[None])
    library = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (library, rgb_profile(SRGB, SRGB_CURVE)):
        assert np.array_equal(shown(encoded(picture, icc_profile=profile)), np.asarray(picture))


def test_a_grey_profile() -> None:
    """Gamma 1.8: level v is v/255 to the power of 1.8 of white, then sRGB's curve."""
    levels = np.arange(256, dtype=np.uint8)[None]
    found = shown(encoded(Image.fromarray(levels), icc_profile=grey_profile(1.8)))
    assert np.abs(found - encode((levels / 255) ** 1.8)[..., None]).max() <= 1
    assert np.ptp(found, axis=2).max() == 0


def test_a_grey_profile_with_16_bits_and_with_alpha() -> None:
    values = np.array([[0, 16448, 65535]], dtype=np.uint16)  # 64 of 255 in the middle
    profile = grey_profile(1.8)
    dark = int(encode(np.array((64 / 255) ** 1.8)))
    wide = shown(encoded(Image.fromarray(values), icc_profile=profile))
    assert np.abs(wide[0, :, 0] - [0, dark, 255]).max() <= 1
    grey = Image.new("LA", (2, 1), (64, 255))
    grey.putpixel((1, 0), (64, 51))  # a fifth of the converted grey, four fifths of white
    found = shown(encoded(grey, icc_profile=profile))[0, :, 0]
    assert np.abs(found - [dark, 255 - (255 - dark) / 5]).max() <= 1


def test_a_press_profile() -> None:
    """Half the black ink is lightness 50: (50 + 16) / 116 cubed is 0.184 of white, level 118.9; Pillow's formula says 127."""
    ink = Image.new("CMYK", (16, 16), (0, 0, 0, 127))
    ink.paste((0, 0, 0, 0), (0, 0, 8, 16))
    found = shown(encoded(ink, "TIFF", icc_profile=press_profile()))
    lightness = 100 * (1 - 127 / 255)
    expected = encode(np.array(((lightness + 16) / 116) ** 3))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert np.abs(found[0, 15] - expected).max() <= 2  # the profile has 8 bits of lightness: 0.4, a level
    assert np.abs(shown(encoded(ink, "JPEG", quality=100, icc_profile=press_profile()))[0, 15] - expected).max() <= 4
    assert shown(encoded(ink, "TIFF"))[0, 15].tolist() == [128, 128, 128]


def test_colours_are_converted_before_they_are_laid_on_white() -> None:
    """A fifth of P3's (60, 200, 90), which is (0, 203, 76) or near in sRGB, and four fifths of white."""
    solid = expected_of(np.array([[60, 200, 90]]), *SPACES["Display P3"][1:])[0]
    picture = Image.new("RGBA", (1, 1), (60, 200, 90, 51))
    found = shown(encoded(picture, icc_profile=P3))[0, 0]
    assert np.abs(found - (solid / 5 + 255 * 4 / 5)).max() <= 1
    palette = Image.new("P", (2, 1))
    palette.putpalette([60, 200, 90, 0, 0, 0])
    palette.putpixel((1, 0), 1)
    found = shown(encoded(palette, icc_profile=P3, transparency=1))[0]
    assert np.abs(found - [solid, [255, 255, 255]]).max() <= 1


def test_orientation_draft_and_boxes_keep_the_colours() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("RGB", (640, 320), (60, 200, 90))
    content = encoded(picture, "JPEG", quality=100, icc_profile=P3, exif=exif)
    whole = shown(content)[0, 0]
    assert np.abs(whole - expected_of(np.array([[60, 200, 90]]), *SPACES["Display P3"][1:])).max() <= 3
    small, size = decode_with_size(content, "here", target_px=20)
    assert (small.size, size) == ((40, 80), (320, 640))
    assert np.abs(np.asarray(small) - whole).max() == 0
    assert np.asarray(decode_image(content, "here", box=Box(5, 7, 9, 11)))[0, 0].tolist() == whole.tolist()


BROKEN = {
    "noise": bytes(range(256)) * 4,
    "cut": P3[:200],
    "a header alone": P3[:128],
    "empty": b"\0",
    "of grey": grey_profile(1.8),
    "of a press": press_profile(),
    "too large": P3 + bytes(MAX_PROFILE_BYTES),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_profile_that_does_not_fit_loses_no_picture(name: str) -> None:
    picture = Image.fromarray(colours(200)[None])
    content = encoded(picture, "TIFF", icc_profile=BROKEN[name])
    assert np.array_equal(shown(content), np.asarray(picture))


def test_a_profile_of_rgb_in_a_grey_picture_says_nothing() -> None:
    grey = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    found = shown(encoded(grey, "JPEG", quality=100, icc_profile=rgb_profile(ADOBE_RGB, [1.8])))
    assert np.array_equal(found, shown(encoded(grey, "JPEG", quality=100)))


def test_what_was_converted_carries_no_profile() -> None:
    for profile in (P3, BROKEN["noise"]):
        picture = decode_image(encoded(Image.new("RGB", (8, 8), (60, 200, 90)), icc_profile=profile), "here")
        assert "icc_profile" not in picture.info
        assert "icc" not in webp_address(picture, 8)[0].lower()
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        assert b"iCCP" not in buffer.getvalue()


def test_threads_convert_the_same() -> None:
    pictures = [Image.fromarray(colours(3000).reshape(60, 50, 3) // (1 + number)) for number in range(4)]
    contents = [encoded(one, icc_profile=SPACES[name][0]) for one in pictures for name in SPACES]
    alone = [shown(content).tobytes() for content in contents]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda content: shown(content).tobytes(), contents * 8)) == alone * 8
