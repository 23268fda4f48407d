"""What runs inside the server gives the workbench's own answers: preprocessing pixel for pixel, recognition label for label."""

import io
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from profiles import DISPLAY_P3, SRGB_CURVE, grey_profile, press_profile, rgb_profile
from scipy.special import expit

from workbench.data.images import ImageError, decode_image
from workbench.export.triton_models import preprocess
from workbench.export.triton_models.preprocess import PictureError, make_input
from workbench.export.triton_models.recognise import is_accepted, nearest_labels, probability
from workbench.models.preprocessing import RESIZE_MODES, Preprocessing
from workbench.retrieval.calibration import Calibration, fit_calibration
from workbench.retrieval.gallery import Gallery

pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF")
P3 = rgb_profile(DISPLAY_P3, SRGB_CURVE)
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def scene(width: int, height: int, bands: int = 3, seed: int = 0) -> Image.Image:
    """Waves and noise, different in every corner and band."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = np.stack([127 + 90 * np.sin(x / (5 + band) + y / (9 - band)) for band in range(bands)], axis=-1)
    pixels = np.clip(waves + rng.normal(0, 20, waves.shape), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if bands == 1 else pixels)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(scene(70, 50), "JPEG", exif=exif.tobytes(), quality=90)


def grey16(width: int = 40, height: int = 30) -> Image.Image:
    values = np.random.default_rng(1).integers(0, 65536, (height, width), dtype=np.uint16)
    return Image.fromarray(values)


def with_alpha() -> Image.Image:
    pixels = np.random.default_rng(2).integers(0, 256, (33, 44, 4), dtype=np.uint8)
    return Image.fromarray(pixels, "RGBA")


FILES: dict[str, bytes] = {
    "jpeg": encoded(scene(90, 60), "JPEG", quality=85),
    "jpeg, drafted": encoded(scene(900, 640), "JPEG", quality=85),
    "jpeg, tall and drafted": encoded(scene(300, 1200), "JPEG", subsampling=0),
    "jpeg, tiny": encoded(scene(3, 2), "JPEG"),
    "jpeg, grey": encoded(scene(80, 70, 1), "JPEG"),
    "jpeg, CMYK": encoded(scene(64, 50).convert("CMYK"), "JPEG"),
    "jpeg, progressive": encoded(scene(200, 100), "JPEG", progressive=True),
    "jpeg, damaged EXIF": encoded(scene(50, 40), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
    **{f"jpeg, turned {number}": turned(number) for number in range(1, 9)},
    **{
        kind.lower(): encoded(scene(60, 44), kind)
        for kind in ("WEBP", "AVIF", "TIFF", "JPEG2000", "BMP", "GIF", "PPM", "MPO")
    },
    "png": encoded(scene(55, 81), "PNG"),
    "png, alpha": encoded(with_alpha(), "PNG"),
    "png, grey": encoded(scene(41, 40, 1), "PNG"),
    "png, grey and alpha": encoded(with_alpha().convert("LA"), "PNG"),
    "png, palette": encoded(scene(60, 60).convert("P"), "PNG"),
    "png, palette with a transparent colour": encoded(scene(60, 60).convert("P"), "PNG", transparency=3),
    "png, a transparent colour": encoded(scene(30, 30), "PNG", transparency=(127, 127, 127)),
    "png, one bit": encoded(scene(37, 21, 1).convert("1"), "PNG"),
    "png, 16-bit grey": encoded(grey16(), "PNG"),
    "jpeg, Display P3": encoded(scene(900, 640), "JPEG", icc_profile=P3),
    "jpeg, of a press": encoded(scene(64, 50).convert("CMYK"), "JPEG", icc_profile=press_profile()),
    "png, Display P3 and alpha": encoded(with_alpha(), "PNG", icc_profile=P3),
    "png, a grey profile": encoded(grey16(), "PNG", icc_profile=grey_profile(1.8)),
    "png, a broken profile": encoded(scene(40, 30), "PNG", icc_profile=P3[:150]),
}
VARIANTS = [
    *(
        Preprocessing((48, 32), MEAN, STD, interpolation, resize, 0.875 if resize == "crop" else 1.0)  # type: ignore[arg-type]
        for interpolation, resize in product(("bicubic", "bilinear", "lanczos"), RESIZE_MODES)
    ),
    Preprocessing((33, 57), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", "crop", 1.0),
    Preprocessing((40, 40), MEAN, STD, "bicubic", "crop", 1.15),
    Preprocessing((48, 32), MEAN, STD, "bicubic", "crop", 0.9, "squash"),
    Preprocessing((48, 32), MEAN, STD, "bicubic", "crop", 1.0, "border", (9, 90, 200)),
    Preprocessing((48, 32), MEAN, STD, "bicubic", "crop", 0.875, "rounded"),
]


def settings_of(preprocessing: Preprocessing, kind: str, **limits: int) -> dict[str, Any]:
    """As the bundle keeps them, through JSON's lists."""
    described = {
        key: list(value) if isinstance(value, tuple) else value for key, value in preprocessing.to_dict().items()
    }
    return {
        "preprocessing": described,
        "input": kind,
        "decode_px": preprocessing.decode_px,
        "max_bytes": 10**7,
        "max_pixels": 10**7,
        **limits,
    }


@pytest.mark.parametrize(
    "preprocessing", VARIANTS, ids=lambda one: f"{one.resize} {one.crop_mode} {one.interpolation} {one.image_size}"
)
@pytest.mark.parametrize("kind", ["float", "uint8", "raw"])
def test_every_file_becomes_the_input_that_the_workbench_gives(preprocessing: Preprocessing, kind: str) -> None:
    pixels = np.stack(
        [
            preprocessing.apply(decode_image(content, name, target_px=preprocessing.decode_px))
            for name, content in FILES.items()
        ]
    )
    found = make_input(list(FILES.values()), settings_of(preprocessing, kind))
    assert found.flags.c_contiguous
    if kind == "uint8":
        expected = pixels
    elif kind == "raw":
        expected = pixels.transpose(0, 3, 1, 2).astype(np.float32)
    else:
        expected = preprocessing.normalise(torch.from_numpy(pixels)).numpy()
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_the_files_tell_mistakes_apart() -> None:
    """Each thing that could be forgotten changes the input of some file: else the test above would prove nothing."""
    plain = settings_of(VARIANTS[0], "uint8")
    shown = {name: make_input([content], plain) for name, content in FILES.items()}
    assert len({shown[f"jpeg, turned {number}"].tobytes() for number in range(1, 9)}) == 8
    bigger = make_input([FILES["jpeg, drafted"]], {**plain, "decode_px": 10_000})
    assert (bigger != shown["jpeg, drafted"]).any()
    assert shown["png, alpha"].mean() > 150  # white shines through
    assert shown["png, 16-bit grey"].std() > 10  # not clipped to white
    assert np.abs(shown["jpeg, Display P3"].astype(int) - shown["jpeg, drafted"]).max() > 10


BROKEN = {
    "empty": (b"", "empty file"),
    "text": (b"no picture", "not an image: wanted JPEG, PNG, .*, found a file that starts with b'no pictu'"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC, which is not read"),
    "floats": (encoded(Image.new("F", (9, 9), 0.5), "TIFF"), "floating-point samples"),
    "a start alone": (b"\xff\xd8\xff", "damaged"),
    "half a jpeg": (FILES["jpeg"][: len(FILES["jpeg"]) // 2], "truncated"),
    "half a png": (FILES["png"][: len(FILES["png"]) // 2], "truncated"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture_is_named_with_its_reason(name: str) -> None:
    content, reason = BROKEN[name]
    with pytest.raises(PictureError, match=f"^{reason.replace('(', '.')}"):
        make_input([content], settings_of(VARIANTS[0], "float"))
    with pytest.raises(PictureError, match=f"^picture 2 of 3: {reason}"):
        make_input([FILES["png"], content, FILES["png"]], settings_of(VARIANTS[0], "float"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_file_cut_anywhere_is_judged_as_the_workbench_judges_it(kind: str) -> None:
    whole = encoded(scene(60, 40), kind)
    limits = (32, 10**7, 10**7)
    for end in range(8, len(whole), max(1, len(whole) // 60)):
        try:
            expected: Any = np.asarray(decode_image(whole[:end], "cut", target_px=32)).tobytes()
        except ImageError as error:
            expected = error.reason
        try:
            found: Any = np.asarray(preprocess.read_picture(whole[:end], *limits)).tobytes()
        except PictureError as error:
            found = str(error)
        assert found == expected


def test_limits_are_judged_before_a_pixel_is_decoded() -> None:
    settings = settings_of(VARIANTS[0], "float", max_pixels=60 * 40)
    at_the_limit = encoded(scene(60, 40), "PNG")
    assert make_input([at_the_limit], settings).shape == (1, 3, 48, 32)
    cut = encoded(scene(60, 41), "PNG")[:60]  # its header alone: had it been decoded, the message would be another
    with pytest.raises(PictureError, match="too many pixels: 60 x 41, the limit is 2,400"):
        make_input([cut], settings)
    with pytest.raises(PictureError, match=f"too large: {len(at_the_limit):,} bytes, the limit is 100"):
        make_input([at_the_limit], {**settings, "max_bytes": 100})


def stored(gallery: Gallery) -> tuple[np.ndarray, np.ndarray, list[str]]:
    labels = gallery.labels
    return gallery.embedding_ND, np.array([labels.index(one) for one in gallery.references["label"]]), labels


@pytest.mark.parametrize("num_labels", [1, 2, 40])
@pytest.mark.parametrize("k", [1, 2, 7])
def test_nearest_labels_are_those_of_the_gallery(num_labels: int, k: int) -> None:
    """Close-set references, doubled ones among them, so that ties and near ties happen."""
    rng = np.random.default_rng(num_labels)
    rows_ND = rng.normal(size=(num_labels * 6, 24)) + 3
    rows_ND[1::5] = rows_ND[0]  # the same picture under several labels
    labels = [f"l{number}" for number in rng.permutation(np.repeat(np.arange(num_labels), 6))]
    gallery = Gallery.build(rows_ND, labels)
    query_BD = np.concatenate([rows_ND[:3], rng.normal(size=(20, 24)) + 3, -rows_ND[:1]]).astype(np.float32)
    k = min(k, num_labels)
    expected = gallery.search_labels(query_BD, k)
    embedding_ND, code_N, names = stored(gallery)
    similarity_BK, code_BK = nearest_labels(embedding_ND, code_N, query_BD, k)
    np.testing.assert_array_equal(np.array(names, dtype=object)[code_BK], expected.label_QK)
    np.testing.assert_array_equal(similarity_BK, expected.similarity_QK)
    assert similarity_BK.dtype == np.float32


def test_ties_go_to_the_older_reference_whatever_the_order_of_labels() -> None:
    embedding_ND = np.array([[0, 1], [1, 0], [1, 0], [0, 1]], dtype=np.float32)
    similarity_BK, code_BK = nearest_labels(embedding_ND, np.array([2, 1, 0, 3]), np.array([[2.0, 0.0]]), 4)
    assert code_BK.tolist() == [[1, 0, 2, 3]]
    assert similarity_BK.tolist() == [[1, 1, 0, 0]]


def test_a_similarity_at_the_threshold_is_not_above_it() -> None:
    shown = np.array([0.7, 0.70000005, 0.6999999, -1], dtype=np.float32)
    assert is_accepted(shown, 0.7).tolist() == [False, True, False, False]
    assert is_accepted(shown, -1.0).tolist() == [True, True, True, False]


@pytest.mark.parametrize("method", ["logistic", "isotonic"])
def test_probabilities_are_the_calibrations(method: Any) -> None:
    rng = np.random.default_rng(0)
    similarity_N = rng.uniform(-1, 1, 400)
    fitted = fit_calibration(similarity_N, rng.uniform(size=400) < expit(6 * similarity_N), method=method)
    asked = np.array([-1, -0.3, 0, 0.2, 0.9999, 1, 1.0000001], dtype=np.float32)
    found = probability(asked, fitted.to_dict())
    np.testing.assert_allclose(found, fitted.probability(asked), rtol=1e-14)
    assert found.dtype == np.float64
    assert 0 < found[0] < found[-1] < 1


def test_a_steep_calibration_does_not_overflow() -> None:
    steep = Calibration("logistic", (5000.0,), -2500.0, (), (), 10, 5.0, 2, "made").to_dict()
    assert probability(np.array([-1, 1], dtype=np.float32), steep).tolist() == [0, 1]
