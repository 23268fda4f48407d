import hashlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from workbench.data.corruption_kinds import KINDS
from workbench.data.corruptions import FILL, READ_NOISE_ELECTRONS, WHITE_ELECTRONS, Corruption, corrupt_image

KEYS = [hashlib.sha256(name).hexdigest() for name in (b"a", b"b", b"c", b"d", b"e", b"f")]


def _photograph(width: int = 120, height: int = 90) -> Image.Image:
    """Smooth and coarse at once, colourful, and never of the colour that hides: as a photograph, unlike noise."""
    rng = np.random.default_rng(3)
    coarse = Image.fromarray(rng.integers(140, 256, (6, 8, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.NEAREST
    )
    dark = Image.fromarray(rng.integers(0, 100, (30, 40, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.NEAREST
    )
    mask = Image.fromarray((np.indices((height, width)).sum(axis=0) // 20 % 2 * 255).astype(np.uint8))
    return Image.composite(coarse, dark, mask)


def _pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float64)


def _damage(image: Image.Image, clean: Image.Image) -> float:
    return float(np.abs(_pixels(image.resize(clean.size, Image.Resampling.BICUBIC)) - _pixels(clean)).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_the_clean_severity_changes_no_bit_even_of_a_picture_above_the_frame(kind: str) -> None:
    image = _photograph(300, 280)
    same = corrupt_image(image, Corruption(kind, KINDS[kind].clean, frame_px=64), KEYS[0])
    assert np.array_equal(np.asarray(same), np.asarray(image))
    assert same.size == (300, 280)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", KEYS[:3])
def test_the_same_picture_and_seed_give_the_same_bits_and_the_input_is_left_alone(kind: str, key: str) -> None:
    image = _photograph()
    before = np.array(image)
    for severity in KINDS[kind].severities:
        first, second = (corrupt_image(image, Corruption(kind, severity, seed=5), key) for _ in range(2))
        assert np.array_equal(np.asarray(first), np.asarray(second))
        assert first.mode == "RGB"
        assert not (first.size == image.size and np.array_equal(np.asarray(first), before)), severity
    assert np.array_equal(np.asarray(image), before)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "rotation"])
def test_a_worse_severity_does_more_damage(kind: str) -> None:
    # rotation is no such axis: a picture upside down may be nearer to itself than one on its side
    image = _photograph()
    damage = [_damage(corrupt_image(image, Corruption(kind, s), KEYS[1]), image) for s in KINDS[kind].severities]
    assert damage == sorted(damage)
    assert len(set(damage)) == len(damage)


def test_what_is_random_differs_between_pictures_and_between_seeds() -> None:
    image = _photograph()
    for kind, severity in (("visible", 50), ("motion", 8), ("perspective", 30), ("rotation", 20), ("low_light", 3)):
        seen = {corrupt_image(image, Corruption(kind, severity), key).tobytes() for key in KEYS}
        assert len(seen) > 1, kind
        assert len({corrupt_image(image, Corruption(kind, severity, seed=s), KEYS[0]).tobytes() for s in range(6)}) > 1
    for kind, severity in (("size", 24), ("monochrome", 50), ("blur", 2), ("fisheye", 20), ("jpeg", 20)):
        assert len({corrupt_image(image, Corruption(kind, severity), key).tobytes() for key in KEYS}) == 1, kind


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 100), st.sampled_from(KEYS))
def test_exactly_the_share_stays_visible_and_worse_hides_what_was_hidden(
    width: int, height: int, visible: int, key: str
) -> None:
    image = Image.new("RGB", (width, height), (250, 10, 10))
    hidden = np.all(np.asarray(corrupt_image(image, Corruption("visible", visible), key)) == FILL, axis=2)
    assert hidden.sum() == round(width * height * (1 - visible / 100))
    worse = np.all(np.asarray(corrupt_image(image, Corruption("visible", visible / 2), key)) == FILL, axis=2)
    assert worse[hidden].all()


def test_hidden_by_hand() -> None:
    # 2 x 3 pixels, half of them hidden from the top: one whole row and the first pixel of the next
    image = Image.fromarray(np.arange(18, dtype=np.uint8).reshape(3, 2, 3))
    found = {
        np.all(np.asarray(corrupt_image(image, Corruption("visible", 50), key)) == FILL, axis=2).tobytes()
        for key in (hashlib.sha256(bytes([number])).hexdigest() for number in range(40))
    }
    top = np.array([[1, 1], [1, 0], [0, 0]], bool)
    right, bottom = np.array([[0, 1], [0, 1], [0, 1]], bool), np.array([[0, 0], [0, 1], [1, 1]], bool)
    assert found == {side.tobytes() for side in (top, right, bottom, right[:, ::-1].copy())}


def test_size_is_the_longer_side_and_never_enlarges() -> None:
    image = _photograph(120, 90)
    assert corrupt_image(image, Corruption("size", 24), KEYS[0]).size == (24, 18)
    assert corrupt_image(image.transpose(Image.Transpose.ROTATE_90), Corruption("size", 24), KEYS[0]).size == (18, 24)
    assert corrupt_image(image, Corruption("size", 120), KEYS[0]) is image
    assert corrupt_image(image, Corruption("size", 500), KEYS[0]) is image
    assert corrupt_image(Image.new("RGB", (400, 3)), Corruption("size", 6), KEYS[0]).size == (6, 1)


def test_a_large_picture_is_brought_to_the_frame_first() -> None:
    image = _photograph(300, 200)
    assert corrupt_image(image, Corruption("jpeg", 50, frame_px=100), KEYS[0]).size == (150, 100)
    assert corrupt_image(image, Corruption("jpeg", 50, frame_px=200), KEYS[0]).size == (300, 200)
    assert corrupt_image(image, Corruption("size", 24, frame_px=100), KEYS[0]).size == (24, 16)


def test_monochrome_by_hand() -> None:
    # luma of ITU-R 601: 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    image = Image.new("RGB", (2, 2), (200, 100, 50))
    assert corrupt_image(image, Corruption("monochrome", 100), KEYS[0]).getpixel((0, 0)) == (124, 124, 124)
    assert corrupt_image(image, Corruption("monochrome", 50), KEYS[0]).getpixel((0, 0)) == (162, 112, 87)


def _spread(image: Image.Image) -> tuple[np.ndarray, float]:
    """Covariance [2, 2] of x and y under the grey values, and their sum."""
    weight_HW = _pixels(image)[..., 0]
    y, x = (axis.ravel() for axis in np.indices(weight_HW.shape))
    return np.cov(np.stack([x, y]), aweights=weight_HW.ravel(), ddof=0), float(weight_HW.sum())


def _square(size: int = 101) -> Image.Image:
    picture = np.zeros((size, size, 3), np.uint8)
    picture[size // 2 - 10 : size // 2 + 11, size // 2 - 10 : size // 2 + 11] = 250
    return Image.fromarray(picture)


@pytest.mark.parametrize("sigma", [2.0, 4.0])
def test_blur_adds_its_sigma_squared_and_keeps_the_light(sigma: float) -> None:
    image = _square()
    before, light = _spread(image)
    after, light_after = _spread(corrupt_image(image, Corruption("blur", sigma), KEYS[0]))
    assert light_after == pytest.approx(light, rel=0.01)
    assert np.diag(after - before) == pytest.approx(2 * [(sigma / 100 * 101) ** 2], rel=0.06)


@pytest.mark.parametrize("length", [4.0, 12.0])
@pytest.mark.parametrize("key", KEYS[:3])
def test_motion_spreads_along_one_line_only(length: float, key: str) -> None:
    image = _square()
    before, light = _spread(image)
    after, light_after = _spread(corrupt_image(image, Corruption("motion", length), key))
    added = np.linalg.eigvalsh(after - before)
    length_px = length / 100 * 101
    assert light_after == pytest.approx(light, rel=0.01)
    # a uniform path of this length has the variance L^2 / 12; bilinear weights add up to a quarter of a px^2
    assert added[1] == pytest.approx(length_px**2 / 12, abs=0.27)
    assert -0.02 < added[0] < 0.27


def test_fisheye_keeps_middle_and_corners_and_bends_by_the_stated_share() -> None:
    # value = distance of the column from the middle, in steps of 2: where it comes from can be read off
    ramp = np.abs(np.arange(101) - 50).astype(np.uint8) * 4
    image = Image.fromarray(np.repeat(np.tile(ramp, (101, 1))[..., None], 3, axis=2))
    bent = _pixels(corrupt_image(image, Corruption("fisheye", 20), KEYS[0]))[..., 0]
    assert bent[0, 0] == bent[100, 100] == 200
    assert bent[50, 50] == 0
    # k = 0.2 / 0.8 = 1/4. At 40 px from the middle on its row r^2 = 1600 / 5000 = 0.32: the source is 40 * 1.08 / 1.25 = 34.56 px
    assert bent[50, 90] == bent[50, 10] == round(4 * 34.56)
    # at 10 px: r^2 = 0.02, 10 * 1.005 / 1.25 = 8.04
    assert bent[50, 60] == round(4 * 8.04)


def test_perspective_shortens_one_side_by_the_stated_share() -> None:
    image = Image.new("RGB", (100, 100), (250, 0, 0))
    for key in KEYS:
        tilted = np.asarray(corrupt_image(image, Corruption("perspective", 40), key))
        shown = tilted[..., 0] > 190
        edges = sorted(int(edge.sum()) for edge in (shown[0], shown[-1], shown[:, 0], shown[:, -1]))
        # the side opposite is whole; the two beside it touch their edge at a corner only
        assert edges[3] in (99, 100)
        assert edges[2] in (59, 60, 61)
        assert max(edges[:2]) <= 3
        assert np.all(tilted[~shown] == FILL, axis=1).mean() > 0.9


def test_jpeg_is_what_pillow_saves() -> None:
    image = _photograph()
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=10)
    expected = np.asarray(Image.open(buffer).convert("RGB"))
    assert np.array_equal(np.asarray(corrupt_image(image, Corruption("jpeg", 10), KEYS[0])), expected)


def test_rotation_keeps_the_whole_picture() -> None:
    image = _photograph(120, 90)
    for key in KEYS:
        quarter = corrupt_image(image, Corruption("rotation", 90), key)
        turned = [image.transpose(turn) for turn in (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270)]
        assert quarter.tobytes() in {one.tobytes() for one in turned}
        assert quarter.size == (90, 120)
        half = corrupt_image(image, Corruption("rotation", 180), key)
        assert half.tobytes() == image.transpose(Image.Transpose.ROTATE_180).tobytes()
    # the box around a 120 x 90 picture turned by 30 degrees: 120 cos 30 + 90 sin 30 = 148.9, 120 sin 30 + 90 cos 30 = 137.9
    box = corrupt_image(image, Corruption("rotation", 30), KEYS[0])
    assert box.size == pytest.approx((149, 138), abs=2)
    assert box.getpixel((0, 0)) == FILL


def test_each_stop_halves_the_light_and_the_noise_is_that_of_electrons() -> None:
    image = Image.new("RGB", (200, 200), (255, 255, 255))
    for stops in (1, 3, 5):
        encoded = _pixels(corrupt_image(image, Corruption("low_light", stops), KEYS[0])) / 255
        linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
        electrons = WHITE_ELECTRONS / 2**stops
        assert linear.mean() == pytest.approx(2.0**-stops, rel=0.01)
        noise = np.sqrt(electrons + READ_NOISE_ELECTRONS**2) / WHITE_ELECTRONS
        # rounding to 8 bits adds a twelfth of a squared step; the slope of the curve says how large a step is there
        step = 2.4 / 1.055 * ((2.0 ** (-stops / 2.4) * 1.055) / 1.055) ** 1.4 / 255
        assert linear.std() == pytest.approx(np.sqrt(noise**2 + step**2 / 12), rel=0.05)
    # by hand: white, one stop: linear 0.5 is 1.055 * 0.5 ** (1 / 2.4) - 0.055 = 0.7354 of 255
    assert np.median(_pixels(corrupt_image(image, Corruption("low_light", 1), KEYS[0]))) == 188


def test_severities_go_from_mild_to_severe_and_few_are_among_all() -> None:
    for name, kind in KINDS.items():
        order = sorted(kind.severities, reverse=kind.descends)
        assert list(kind.severities) == order, name
        assert set(kind.few) < set(kind.severities)
        assert list(kind.few) == sorted(kind.few, reverse=kind.descends)
        assert all(Corruption(name, severity).severity == severity for severity in kind.severities)
    assert KINDS["blur"].say(1.5, 96) == "a blur with a sigma of 1.5 % of the longer side (1.4 px of 96)"
    assert KINDS["blur"].say_briefly(1.5, 96) == "1.5 % (1.4 px)"
    assert KINDS["size"].say(24, 96) == "24 px on the longer side"


def test_what_has_no_meaning_is_refused() -> None:
    for kind, severity, message in (
        ("bluur", 1, "kind is one of size, visible"),
        ("visible", 101, "lies in 0 to 100; found 101"),
        ("jpeg", 0, "lies in 1 to 95"),
        ("rotation", -5, "lies in 0 to 180"),
        ("low_light", np.nan, "found nan"),
    ):
        with pytest.raises(ValueError, match=message):
            Corruption(kind, severity)
    with pytest.raises(ValueError, match="frame_px is at least 1"):
        Corruption("blur", 1, frame_px=0)
    with pytest.raises(ValueError, match="seed at least 0"):
        Corruption("blur", 1, seed=-1)
