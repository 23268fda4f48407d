"""What can be measured of the pictures of a catalog before any model sees them."""

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage

from workbench.data.catalog import Catalog
from workbench.data.images import ImageError, decode_with_size, image_bytes, say_box
from workbench.data.labels import shown

STANDARD_PX = 128
"""Shorter side at which pictures are measured, so that large and small photographs are comparable. A blur that cannot
be seen at 128 px hardly reaches a trunk that sees 224 px, and small data sets are not enlarged much."""

MONOCHROME_CHROMA = 16.0
"""A picture is monochrome when 99 % of its pixels have a chroma (largest minus smallest channel, 0..255) below this.
Seen: the least colourful of 2936 photographs in the Grocery Store Dataset has 49, of its 81 packshots (white cartons on
white) 35, of 1205 nyala photographs 28; the same pictures in grey have 0. Tinted (sepia) pictures are not found."""

BACKGROUND_TOLERANCE = 24
"""Largest difference in any channel, 0..255, up to which a pixel still belongs to a uniform background: above the noise
of JPEG and soft shadows on white, below the colour of cartons in light grey."""

UNIFORM_BORDER = 0.9
"""Share of the border's pixels that must be background before the object can be told from it. Seen: reached by 89 % of
the packshots of the Grocery Store Dataset and by none of its shelf photographs or of the nyala photographs."""

MEASURES = {
    "source": "str",
    "path": "str",
    "width_px": "int64",
    "height_px": "int64",
    "shorter_px": "int64",
    "aspect": "float64",
    "brightness": "float64",
    "contrast": "float64",
    "colourfulness": "float64",
    "chroma": "float64",
    "monochrome": "bool",
    "sharpness": "float64",
    "blur": "float64",
    "object_share": "float64",
    "sha256": "str",
}


def measure_images(
    catalog: Catalog,
    num_workers: int | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The measures of every image that can be decoded, and the quarantine of those that cannot.

    The measures have one row an image, in the catalog's order, with the catalog's row number as index, and the columns
    source, path (as `Catalog.names` gives it); width_px, height_px, shorter_px, aspect (width over height), upright and in
    full; sha256 of the file; and the columns of `measure_picture`. The quarantine has the columns path and reason. Both may
    be empty. Where a row has a box, the crop is measured, and sha256 is still that of the whole file.

    Args:
        catalog: what to measure.
        num_workers: threads that read and decode; None takes one a core.
        progress: called every two seconds and at the end with images done, images in all and images/s.
    """
    pictures = catalog.pictures()
    names = list(zip(catalog.frame["source"], catalog.names(), strict=True))
    workers = num_workers or joblib.cpu_count()
    rows: list[dict[str, object]] = []
    numbers: list[int] = []
    failures: list[tuple[str, str]] = []

    def measure(number: int) -> dict[str, object] | str:
        asked = pictures[number]
        try:
            content = image_bytes(asked.path)
            picture, (width_px, height_px) = decode_with_size(content, str(asked), STANDARD_PX, box=asked.box)
        except ImageError as error:
            return error.reason
        return {
            "width_px": width_px,
            "height_px": height_px,
            "shorter_px": min(width_px, height_px),
            "aspect": width_px / height_px,
            "sha256": hashlib.sha256(content).hexdigest(),
            **measure_picture(picture),
        }

    started = told = time.monotonic()
    with ThreadPoolExecutor(workers, thread_name_prefix="measure") as pool:
        for number, measured in enumerate(pool.map(measure, range(len(pictures)))):
            source, path = names[number]
            if isinstance(measured, str):
                failures.append((path, measured))
            else:
                numbers.append(number)
                rows.append({"source": source, "path": path, **measured})
            now = time.monotonic()
            if progress is not None and (now - told >= 2 or number + 1 == len(pictures)):
                progress(number + 1, len(pictures), (number + 1) / max(now - started, 1e-9))
                told = now
    measures = pd.DataFrame(rows, index=pd.Index(numbers, dtype="int64"), columns=list(MEASURES)).astype(MEASURES)
    return measures, pd.DataFrame(failures, columns=["path", "reason"], dtype="str")


def measure_picture(picture: Image.Image) -> dict[str, float | bool]:
    """The measures of one RGB picture, brought to `STANDARD_PX` on the shorter side first.

    - brightness: 0..1, mean luma; contrast: 0..0.5, standard deviation of the luma.
    - colourfulness: 0 (grey) to about 110 (extremely colourful).
      Source: Hasler and Süsstrunk, "Measuring colourfulness in natural images", SPIE 5007, 2003, measure M(3).
    - chroma: 0..255, 99th percentile of the pixels' chroma; monochrome: it is below `MONOCHROME_CHROMA`.
    - sharpness: variance of the Laplacian of the luma (0..255); it falls with blur, and also with plain subjects.
      Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    - blur: 0 (sharp) to 1, see `blur_effect`; NaN where no edge is.
    - object_share: 0..1, see `object_share`; NaN where the background is not uniform.
    """
    standard = _at_standard_size(picture)
    rgb_HWC = np.asarray(standard, dtype=np.float32)
    luma_HW = np.asarray(standard.convert("L"), dtype=np.float32)
    red, green, blue = np.moveaxis(rgb_HWC, -1, 0)
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    spread = np.hypot(red_green.std(dtype=np.float64), yellow_blue.std(dtype=np.float64))
    mean = np.hypot(red_green.mean(dtype=np.float64), yellow_blue.mean(dtype=np.float64))
    chroma_HW = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    chroma = float(np.percentile(chroma_HW, 99))
    return {
        "brightness": float(luma_HW.mean(dtype=np.float64)) / 255,
        "contrast": float(luma_HW.std(dtype=np.float64)) / 255,
        "colourfulness": float(spread + 0.3 * mean),
        "chroma": chroma,
        "monochrome": chroma < MONOCHROME_CHROMA,
        "sharpness": _laplacian_variance(luma_HW),
        "blur": blur_effect(luma_HW),
        "object_share": object_share(rgb_HWC),
    }


def blur_effect(luma_HW: np.ndarray) -> float:
    """How little a picture changes when it is blurred again: 0 (sharp) to 1, NaN without any edge or under 8 px.

    The luma is averaged over five pixels along a direction; the share of the neighbour differences that survives is
    the blur in that direction, because what is blurred already has little left to lose. The largest of four directions
    (the source takes two) counts, so that motion in any of them shows. Hardly depends on how plain the subject is.

    Source: Crete et al., "The blur effect: perception and estimation with a new no-reference perceptual blur metric",
    SPIE 6492, 2007.
    """
    if min(luma_HW.shape) < 8:
        return float("nan")
    largest = float("nan")
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        steps = [_shifted(luma_HW, down * k, right * k) for k in range(-2, 4)]
        difference = np.abs(steps[3] - steps[2])
        blurred_difference = np.abs(steps[5] - steps[0]) / 5
        total = float(difference.sum(dtype=np.float64))
        if total > 0:
            lost = float(np.maximum(difference - blurred_difference, 0).sum(dtype=np.float64))
            largest = float(np.fmax(largest, 1 - lost / total))
    return largest


def object_share(rgb_HWC: np.ndarray) -> float:
    """The share of the frame, 0..1, within the upright box around the object; NaN where it cannot be told.

    It is told only where at least `UNIFORM_BORDER` of a border 3 % wide has one colour within `BACKGROUND_TOLERANCE`;
    an object that fills the frame to its edges, or a shelf, gives NaN. The box is taken, as a detector crops, and not
    the object's area, which loses the white parts of a carton on white. A frame without an object gives 0.

    Args:
        rgb_HWC: [H, W, 3], 0..255.
    """
    height, width, _ = rgb_HWC.shape
    edge = max(2, round(0.03 * min(height, width)))
    border_HW = np.ones((height, width), dtype=bool)
    border_HW[edge:-edge, edge:-edge] = False
    border_MC = rgb_HWC[border_HW]
    background_C = np.median(border_MC, axis=0)
    if (np.abs(border_MC - background_C) <= BACKGROUND_TOLERANCE).all(axis=1).mean() < UNIFORM_BORDER:
        return float("nan")
    object_HW = ndimage.binary_opening((np.abs(rgb_HWC - background_C) > BACKGROUND_TOLERANCE).any(axis=-1))
    if not object_HW.any():
        return 0.0
    rows = np.flatnonzero(object_HW.any(axis=1))
    columns = np.flatnonzero(object_HW.any(axis=0))
    return float((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1) / (height * width))


def find_exact_duplicates(catalog: Catalog, measures: pd.DataFrame) -> pd.DataFrame:
    """The groups of images whose files are the same to the byte, and their boxes too; no rows where there are none.

    Columns: sha256, num_images, splits and labels (each sorted, joined with ", "), across_splits and same_label (bool),
    paths (list). Groups with several labels come first, then those across splits, then by size. Near duplicates
    (another size or compression) are not found.

    Raises:
        ValueError: the measures are not those of this catalog.
    """
    check_measures(catalog, measures)
    table = catalog.frame.loc[measures.index, ["label", "split"]].assign(
        path=measures["path"], sha256=measures["sha256"]
    )
    boxes = [say_box(picture.box) for picture in catalog.take(measures.index.to_numpy()).pictures()]
    table = table.assign(box=pd.Series(boxes, table.index, dtype="str"))
    groups = []
    for (sha256, _), group in table[table.duplicated(["sha256", "box"], keep=False)].groupby(["sha256", "box"]):
        splits, labels = sorted(set(group["split"])), sorted(set(group["label"]))
        listed = ", ".join(shown(splits)), ", ".join(shown(labels))
        groups.append((sha256, len(group), *listed, len(splits) > 1, len(labels) == 1, list(group["path"])))
    columns = ["sha256", "num_images", "splits", "labels", "across_splits", "same_label", "paths"]
    found = pd.DataFrame(groups, columns=columns).astype({"across_splits": bool, "same_label": bool})
    order = {"same_label": True, "across_splits": False, "num_images": False, "sha256": True}
    return found.sort_values(list(order), ascending=list(order.values()), ignore_index=True)


def check_measures(catalog: Catalog, measures: pd.DataFrame) -> None:
    """Returns nothing when each row of `measures` belongs to the image of the same number in `catalog`.

    Raises:
        ValueError: a row belongs to another image or to none.
    """
    known = measures.index.isin(catalog.frame.index)
    ours = catalog.frame[["source"]].assign(path=catalog.names()).loc[measures.index[known]]
    theirs = measures.loc[known, ["source", "path"]]
    if not known.all() or not (ours.to_numpy() == theirs.to_numpy()).all():
        raise ValueError(
            f"The measures ({len(measures)} rows) are not those of this catalog ({len(catalog)} images): call "
            "measure_images on the very catalog that is judged."
        )


def _at_standard_size(picture: Image.Image) -> Image.Image:
    scale = STANDARD_PX / min(picture.size)
    # A strip of one pixel's height would become hundreds of times as wide.
    width, height = (min(round(side * scale), 8 * STANDARD_PX) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def _laplacian_variance(luma_HW: np.ndarray) -> float:
    beside_HW = luma_HW[:-2, 1:-1] + luma_HW[2:, 1:-1] + luma_HW[1:-1, :-2] + luma_HW[1:-1, 2:]
    return float((beside_HW - 4 * luma_HW[1:-1, 1:-1]).var(dtype=np.float64))


def _shifted(luma_HW: np.ndarray, down: int, right: int) -> np.ndarray:
    height, width = luma_HW.shape
    return luma_HW[3 + down : height - 3 + down, 3 + right : width - 3 + right]
