"""Decoding: each kind of file is made here with Pillow, and the pixels expected are written down."""

import io
import pickle
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from workbench.data.images import (
    ImageError,
    QuarantineError,
    check_quarantine,
    decode_image,
    decode_with_size,
    image_bytes,
    load_image,
    load_or_reason,
)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(content: bytes) -> list[tuple[int, ...]]:
    picture = decode_image(content, "here")
    assert picture.mode == "RGB"
    return [tuple(map(int, pixel)) for pixel in np.asarray(picture).reshape(-1, 3)]


def scene(width: int, height: int) -> Image.Image:
    """Smooth colour with a few hard edges, as a photograph has."""
    y, x = np.mgrid[:height, :width].astype(float)
    red = 127 + 120 * np.sin(x / 37)
    green = 127 + 120 * np.cos(y / 23)
    blue = np.where((x // 60 + y // 60) % 2 == 0, 220, 40)
    return Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG that claims a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * 100)
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_rgb_and_grey_and_one_bit() -> None:
    rgb = Image.new("RGB", (2, 1), (10, 20, 30))
    rgb.putpixel((1, 0), (200, 0, 255))
    grey = Image.new("L", (2, 1), 7)
    grey.putpixel((1, 0), 250)
    bit = Image.new("1", (2, 1), 0)
    bit.putpixel((1, 0), 1)
    for kind in ("PNG", "BMP", "TIFF", "PPM"):
        assert pixels(encoded(rgb, kind)) == [(10, 20, 30), (200, 0, 255)]
        assert pixels(encoded(grey, kind)) == [(7, 7, 7), (250, 250, 250)]
        assert pixels(encoded(bit, kind)) == [(0, 0, 0), (255, 255, 255)]


def test_alpha_is_laid_on_white() -> None:
    rgba = Image.new("RGBA", (3, 1), (100, 50, 0, 255))
    rgba.putpixel((1, 0), (100, 50, 0, 0))
    rgba.putpixel((2, 0), (100, 50, 0, 51))  # a fifth of the colour, four fifths of white: 255 - 155 / 5 = 224, ...
    expected = [(100, 50, 0), (255, 255, 255), (224, 214, 204)]
    assert pixels(encoded(rgba)) == expected
    assert pixels(encoded(rgba, "TIFF")) == expected
    assert pixels(encoded(rgba, "WEBP", lossless=True, exact=True)) == expected
    grey = Image.new("LA", (2, 1), (100, 255))
    grey.putpixel((1, 0), (100, 0))
    assert pixels(encoded(grey)) == [(100, 100, 100), (255, 255, 255)]


def test_palette_with_and_without_transparency() -> None:
    palette = Image.new("P", (3, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    for x in range(3):
        palette.putpixel((x, 0), x)
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert pixels(encoded(palette)) == colours
    assert pixels(encoded(palette, "GIF")) == colours
    white = [(255, 255, 255), *colours[1:]]
    assert pixels(encoded(palette, transparency=0)) == white
    assert pixels(encoded(palette, "GIF", transparency=0)) == white
    # Per-entry alpha: the third colour at 51 of 255, a fifth.
    assert pixels(encoded(palette, transparency=bytes([0, 255, 51]))) == [*white[:2], (204, 204, 255)]


def test_transparent_colour_of_a_png_without_alpha() -> None:
    rgb = Image.new("RGB", (2, 1), (10, 20, 30))
    rgb.putpixel((1, 0), (1, 2, 3))
    assert pixels(encoded(rgb, transparency=(1, 2, 3))) == [(10, 20, 30), (255, 255, 255)]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    # 65535 / 255 = 257 steps a level; 32896 lies half-way between 127.5 and 128.5 levels.
    values = np.array([[0, 128, 129, 257, 32896, 65278, 65535]], dtype=np.uint16)
    levels = [0, 0, 1, 1, 128, 254, 255]
    assert pixels(encoded(Image.fromarray(values), kind)) == [(level,) * 3 for level in levels]


def test_16_bit_gradient_keeps_every_level() -> None:
    gradient = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    level = np.asarray(decode_image(encoded(Image.fromarray(gradient)), "here"))[..., 0].ravel()
    assert np.all(np.diff(level.astype(int)) >= 0)
    # The first and the last level take half a step, all others a whole one.
    assert np.bincount(level).tolist() == [129] + [257] * 254 + [129]


def test_big_endian_16_bit_and_pgm() -> None:
    pgm = b"P5 3 1 65535\n" + bytes([0, 0, 0x80, 0x80, 0xFF, 0xFF])
    assert pixels(pgm) == [(0, 0, 0), (128, 128, 128), (255, 255, 255)]


def test_32_bit_samples() -> None:
    within = np.array([[0, 32896, 65535]], dtype=np.int32)
    assert pixels(encoded(Image.fromarray(within), "TIFF")) == [(0, 0, 0), (128, 128, 128), (255, 255, 255)]
    for values in (np.array([[0, 65536]], dtype=np.int32), np.array([[-1, 5]], dtype=np.int32)):
        with pytest.raises(ImageError, match="32-bit samples outside"):
            decode_image(encoded(Image.fromarray(values), "TIFF"), "here")
    with pytest.raises(ImageError, match="floating-point"):
        decode_image(encoded(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"), "here")


def test_cmyk() -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan, all magenta and yellow: red
    assert pixels(encoded(cmyk, "TIFF")) == [(255, 0, 0)] * 256
    drawn = np.asarray(decode_image(encoded(cmyk, "JPEG", quality=100), "here")).astype(int)
    assert np.abs(drawn - [255, 0, 0]).max() <= 3


def test_ycbcr_jpeg() -> None:
    drawn = np.asarray(decode_image(encoded(Image.new("RGB", (16, 16), (200, 30, 90)), "JPEG", quality=100), "here"))
    assert np.abs(drawn.astype(int) - [200, 30, 90]).max() <= 3


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert pixels(content) == [(255, 0, 0)] * 16


def test_several_pictures_in_a_jpeg_give_the_first() -> None:
    first, second = Image.new("RGB", (16, 16), (255, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 255))
    content = encoded(first, "MPO", save_all=True, append_images=[second])
    assert np.abs(np.asarray(decode_image(content, "here")).astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
def test_other_formats(kind: str) -> None:
    drawn = np.asarray(decode_image(encoded(Image.new("RGB", (16, 16), (200, 30, 90)), kind), "here"))
    assert np.abs(drawn.astype(int) - [200, 30, 90]).max() <= 4


STORED = [[10, 20, 30], [40, 50, 60]]
UPRIGHT = {
    1: STORED,
    2: [[30, 20, 10], [60, 50, 40]],
    3: [[60, 50, 40], [30, 20, 10]],
    4: [[40, 50, 60], [10, 20, 30]],
    5: [[10, 40], [20, 50], [30, 60]],
    6: [[40, 10], [50, 20], [60, 30]],
    7: [[60, 30], [50, 20], [40, 10]],
    8: [[30, 60], [20, 50], [10, 40]],
    9: STORED,  # says nothing that the standard knows
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.array(STORED, dtype=np.uint8))
    for kind, options in (
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ):
        if options.get("compression") and orientation == 9:
            continue  # libtiff refuses to write it
        picture, size = decode_with_size(encoded(stored, kind, exif=exif, **options), "here")
        assert np.asarray(picture)[..., 0].tolist() == UPRIGHT[orientation], (kind, options)
        assert size == picture.size


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_of_a_drafted_jpeg(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Each value of STORED becomes a block of 64 x 64 pixels.
    stored = Image.fromarray(np.kron(np.array(STORED, dtype=np.uint8), np.ones((64, 64), dtype=np.uint8)))
    picture, size = decode_with_size(encoded(stored, "JPEG", quality=100, exif=exif), "here", target_px=16)
    block = 64 // (128 // min(picture.size))
    centres = np.asarray(picture)[block // 2 :: block, block // 2 :: block, 0].astype(int)
    assert min(picture.size) == 32
    assert np.abs(centres - UPRIGHT[orientation]).max() <= 2
    assert size == ((128, 192) if orientation in (5, 6, 7, 8) else (192, 128))


def test_damaged_exif_leaves_the_picture_as_it_lies() -> None:
    content = encoded(
        Image.fromarray(np.array(STORED, dtype=np.uint8)), exif=b"Exif\0\0MM\0*\0\0\xff\xff" + b"\xff" * 20
    )
    assert np.asarray(decode_image(content, "here"))[..., 0].tolist() == STORED


@pytest.mark.parametrize(
    ("target_px", "shorter_px"),
    # 480 px: an eighth is 60, a quarter 120, a half 240; the shorter side stays at least twice the target.
    [(1, 60), (30, 60), (31, 120), (60, 120), (61, 240), (120, 240), (121, 480), (480, 480), (2000, 480)],
)
def test_draft_stays_above_twice_the_target(target_px: int, shorter_px: int) -> None:
    content = encoded(scene(640, 480), "JPEG")
    picture, size = decode_with_size(content, "here", target_px=target_px)
    assert min(picture.size) == shorter_px
    assert size == (640, 480)


@pytest.mark.parametrize("target_px", [30, 60, 120])
def test_drafted_picture_resizes_to_the_same_as_the_full_one(target_px: int) -> None:
    content = encoded(scene(640, 480), "JPEG", quality=90)
    wanted = (target_px * 4 // 3, target_px)
    full = decode_image(content, "here").resize(wanted, Image.Resampling.BICUBIC)
    drafted = decode_image(content, "here", target_px).resize(wanted, Image.Resampling.BICUBIC)
    difference = np.abs(np.asarray(full).astype(int) - np.asarray(drafted).astype(int))
    assert difference.mean() < 1.5
    assert np.percentile(difference, 99) < 16


def test_only_jpeg_is_drafted() -> None:
    assert decode_image(encoded(scene(640, 480)), "here", target_px=10).size == (640, 480)


def test_target_below_one_pixel() -> None:
    with pytest.raises(ValueError, match="target_px must be at least 1, found 0"):
        decode_image(encoded(scene(8, 8)), "here", target_px=0)


def test_pixel_limit_is_judged_from_the_header() -> None:
    with pytest.raises(ImageError, match=r"too many pixels: 50000 x 50000, the limit is 100,000,000") as caught:
        decode_image(png_header(50_000, 50_000), "bomb.png")
    assert caught.value.name == "bomb.png"
    with pytest.raises(ImageError, match="too many pixels"):
        decode_image(
            b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b",\0\0\0\0\1\0\1\0\0\2\2D\1\0;", "here"
        )
    content = encoded(Image.new("RGB", (10, 10)))
    assert decode_image(content, "here", max_pixels=100).size == (10, 10)
    with pytest.raises(ImageError, match="too many pixels: 10 x 10, the limit is 99"):
        decode_image(content, "here", max_pixels=99)


def test_pillows_own_limit_does_not_speak() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Pillow's limits: a warning above 89 million pixels, an error above 178 million.
        with pytest.raises(ImageError, match="truncated"):
            decode_image(png_header(9_500, 9_500), "here")
        with pytest.raises(ImageError, match="truncated"):
            decode_image(png_header(20_000, 9_500), "here", max_pixels=200_000_000)
    assert caught == []


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_cut_file_is_an_error_or_whole(kind: str) -> None:
    content = encoded(scene(96, 64), kind)
    whole = np.asarray(decode_image(content, "here"))
    refused = {}
    for cut in range(0, len(content), 7):
        try:
            picture = decode_image(content[:cut], "here")
        except ImageError as error:
            refused[cut] = error.reason
        else:
            assert np.array_equal(np.asarray(picture), whole)
    # Without its last few bytes, the end mark, a picture is still whole.
    assert set(refused) >= set(range(0, len(content) - 24, 7))
    wanted = ("empty file", "not an image", "truncated", "damaged")
    assert [reason for reason in refused.values() if not reason.startswith(wanted)] == []


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.9, 0.99])
def test_truncated_jpeg_says_so(share: float) -> None:
    content = encoded(scene(320, 240), "JPEG")
    with pytest.raises(ImageError, match=r"cut\.jpg: (truncated|damaged)"):
        decode_image(content[: int(share * len(content))], "cut.jpg")


def test_files_that_are_no_images(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"empty file \(0 bytes\)"):
        decode_image(b"", "here")
    with pytest.raises(ImageError, match=r"not an image: wanted JPEG, .*found a file that starts with b'<html>"):
        decode_image(b"<html><body>404", "here")
    with pytest.raises(ImageError, match="HEIC, which is not read: convert it to JPEG"):
        decode_image(b"\0\0\0\x18ftypheic\0\0\0\0", "here")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageError, match="empty file"):
        load_image(tmp_path / "empty.jpg")
    with pytest.raises(ImageError, match="a folder, not a file"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match="no such file") as caught:
        image_bytes(tmp_path / "none.jpg")
    assert caught.value.reason == "no such file"
    with pytest.raises(ImageError, match="cannot be read"):
        load_image(tmp_path / "empty.jpg" / "inside.jpg")


def test_what_is_shown_of_a_file_is_its_picture_or_the_reason(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6), "red").save(tmp_path / "whole.png")
    shown = load_or_reason(tmp_path / "whole.png")
    assert isinstance(shown, Image.Image)
    assert shown.size == (8, 6)
    assert load_or_reason(tmp_path / "absent.png") == "no such file"


def test_load_image_reads_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(Image.new("RGB", (2, 1), (1, 2, 3))))
    assert np.asarray(load_image(tmp_path / "a.png")).tolist() == [[[1, 2, 3], [1, 2, 3]]]


def test_error_survives_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(ImageError("a.jpg", "empty file")))
    assert (error.name, error.reason, str(error)) == ("a.jpg", "empty file", "a.jpg: empty file")


MAGIC = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"RIFF0000WEBPVP8 ", b"P6 "]


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.sampled_from([*MAGIC, b"\0\0\0\x1cftypavif", b"\xff\x4f\xff\x51"]), st.binary(max_size=200))
def test_arbitrary_bytes_raise_image_error_only(magic: bytes, tail: bytes) -> None:
    with suppress(ImageError):
        assert decode_image(magic + tail, "here", max_pixels=100_000).mode == "RGB"


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"]), st.data())
def test_damaged_files_raise_image_error_only(kind: str, data: st.DataObject) -> None:
    content = bytearray(encoded(scene(24, 16), kind))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        content[place] = data.draw(st.integers(0, 255))
    with suppress(ImageError):
        assert decode_image(bytes(content), "here", target_px=4, max_pixels=100_000).mode == "RGB"


def test_threads_decode_the_same() -> None:
    kinds = ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"]
    contents = [encoded(scene(60 + size, 50), kind) for kind in kinds for size in range(5)]
    contents.insert(7, b"nothing")

    def decoded(content: bytes) -> bytes | str:
        try:
            return decode_image(content, "here", 20).tobytes()
        except ImageError as error:
            return error.reason

    alone = [decoded(content) for content in contents]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(decoded, contents * 4)) == alone * 4


def quarantine_of(number: int) -> pd.DataFrame:
    return pd.DataFrame({"path": [f"a/{i}.jpg" for i in range(number)], "reason": ["empty file"] * number}, dtype="str")


def test_quarantine_up_to_the_limit_passes() -> None:
    check_quarantine(quarantine_of(0), 0)
    check_quarantine(quarantine_of(0), 10, limit=0)
    check_quarantine(quarantine_of(1), 100)
    check_quarantine(quarantine_of(3), 3, limit=1)


def test_quarantine_above_the_limit_names_the_first() -> None:
    with pytest.raises(QuarantineError) as caught:
        check_quarantine(quarantine_of(7), 200)
    message = str(caught.value)
    assert "7 of 200 images (3.5%) cannot be used, at most 1.0% may be" in message
    assert "a/0.jpg: empty file" in message
    assert "a/4.jpg" in message
    assert "a/5.jpg" not in message
    assert "and 2 more" in message
    with pytest.raises(QuarantineError, match="1 of 99 images"):
        check_quarantine(quarantine_of(1), 99)


@pytest.mark.photographs
def test_every_photograph_decodes(grocery_store_root: Path, nyala_root: Path) -> None:
    paths = [*sorted(grocery_store_root.rglob("*.jpg"))[::40], *sorted(nyala_root.rglob("*.jpg"))[::40]]
    assert len(paths) > 50
    apart = []
    for path in paths:
        full, drafted = load_image(path), load_image(path, target_px=40)
        assert min(drafted.size) >= 80
        small = [np.asarray(image.resize((40, 40), Image.Resampling.BICUBIC)).astype(int) for image in (full, drafted)]
        apart.append(np.abs(small[0] - small[1]).mean())
    # Of 255 levels; fine hair and gravel of the nyala photographs lose most.
    assert np.median(apart) < 1
    assert max(apart) < 3
