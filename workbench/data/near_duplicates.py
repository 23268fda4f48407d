"""Pictures that are the same but for size, compression, light or mirroring: a perceptual hash, and a check in colour.

Axes: N images, M pairs, S `THUMB_PX`. A hash of the luma alone takes two flavours of one package for the same picture; so each
pair that the hashes propose is compared again, cell by cell, in colour.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import joblib
import numpy as np
import pandas as pd
from PIL import Image
from scipy.fft import dctn

from workbench.data.boxes import BOX_COLUMNS
from workbench.data.catalog import Catalog
from workbench.data.hamming import pairs_within
from workbench.data.images import ImageError, Picture, load_image

HASHED_PX = 32
THUMB_PX = 16

QUIET = 0.05
"""A coefficient counts as positive above this share of the picture's own (root mean square of the 64). With 0 in its place, a
package that is its own mirror image has coefficients of about 0, whose sign is the noise of the compression."""

MAX_DISTANCE_BITS = 7
"""Bits up to which two hashes propose a pair. Seen: half and double size at JPEG quality 75 and 90, quality 30, brightness
0.85, and 0.7 of the size with quality 60 and brightness 1.1 move the hash of 184 drawn packshots (128 px) by 8 bits at most (one
picture; the others by 7), of 202 photographs of the Grocery Store Dataset by 4."""

MAX_DIFFERENCE = 26.0
"""Largest difference of a place, in levels of 255, up to which a proposed pair is confirmed (see `colour_difference`). Seen:
the same alterations give 22 at most on the drawn packshots and 18 on the photographs; the two most alike of 184 different
packshots, siblings of one brand, have 29."""

MIN_CONTRAST = 2.0
"""Standard deviation of the thumbnail, in levels of 255, below which a picture is flat: it shows nothing to compare."""

MAX_CONTRAST_RATIO = 1.5
"""How much more contrast one picture of a pair may have: a small change of light, not another picture of the same outline."""

MAX_PAIRS = 1_000_000
_PAIRS_A_CHUNK = 8192
_ORDER = sorted(
    ((down, right) for down in range(11) for right in range(11) if down + right),
    key=lambda place: (sum(place), abs(place[0] - place[1]), place),
)[:64]
_DOWN, _RIGHT = (np.array(axis) for axis in zip(*_ORDER, strict=True))
_MIRROR = np.where(_RIGHT % 2, -1.0, 1.0)


@dataclass(frozen=True)
class Fingerprints:
    """What of each readable picture is compared.

    Attributes:
        row_N: int64, the row of the catalog, ascending.
        hash_N: uint64, see `hash_picture`.
        mirror_N: uint64, the hash of its mirror image.
        thumb_NSSC: uint8, the picture reduced to 16 x 16 cells, RGB.
    """

    row_N: np.ndarray
    hash_N: np.ndarray
    mirror_N: np.ndarray
    thumb_NSSC: np.ndarray


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs of pictures that are nearly the same, worst first, and what they were found by.

    Attributes:
        table: a row a pair: row, other_row (of the catalog), path, other_path, label, other_label, split, other_split,
            same_label, across_splits, mirrored (bool), distance_bits (0 to 64), difference (levels of 255). Pairs between two
            of the tested splits come first, then other pairs across splits, then pairs within a split; in each, those with two
            labels first, then the nearest.
        num_compared: pictures that were compared; files that are the same to the byte count once (they are exact duplicates).
        num_flat: pictures that show nothing to compare.
        complete: False where there are more than `MAX_PAIRS` pairs, of which as many were kept.
        protocol: one line with the definition.
    """

    table: pd.DataFrame
    num_compared: int
    num_flat: int
    complete: bool
    protocol: str

    @property
    def num_across(self) -> int:
        """Returns the number of pairs across splits."""
        return int(self.table["across_splits"].sum())


def hash_picture(picture: Image.Image) -> tuple[int, int]:
    """Returns (hash, hash of the mirror image): 64 bits, one for each of the lowest 64 frequencies of the luma but the mean.

    The picture is squeezed to 32 x 32 by averaging. A bit is set where the coefficient of the discrete cosine transform is
    above `QUIET` times the root mean square of the 64. Brightness and contrast do not count. The mirror image has the same
    coefficients, those of odd frequency across with the other sign, so that nothing is decoded twice.

    Source: Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010, section 3.2.1 (his threshold is
    the median, his frequencies are a square).
    """
    luma_HW = np.asarray(picture.convert("L").resize((HASHED_PX, HASHED_PX), Image.Resampling.BOX), dtype=np.float64)
    low_64 = dctn(luma_HW, norm="ortho")[_DOWN, _RIGHT]
    level = QUIET * float(np.sqrt((low_64**2).mean()))
    weights = 1 << np.arange(64, dtype=np.uint64)
    first, mirror = (int(weights[values > level].sum()) for values in (low_64, low_64 * _MIRROR))
    return first, mirror


def fingerprint_images(catalog: Catalog, num_workers: int | None = None) -> Fingerprints:
    """Returns the fingerprints of a catalog's images; what cannot be decoded is left out (the audit has named it).

    Args:
        catalog: rows in any order, none is fine.
        num_workers: decoding threads; None is one a core.
    """

    def read(source: Picture) -> tuple[int, int, np.ndarray] | None:
        try:
            picture = load_image(source, target_px=2 * HASHED_PX)
        except ImageError:
            return None
        return *hash_picture(picture), np.asarray(picture.resize((THUMB_PX, THUMB_PX), Image.Resampling.BOX))

    with ThreadPoolExecutor(num_workers or joblib.cpu_count(), thread_name_prefix="hash") as pool:
        found = [(row, *one) for row, one in enumerate(pool.map(read, catalog.pictures())) if one is not None]
    rows, hashes, mirrors, thumbs = zip(*found, strict=True) if found else ((), (), (), ())
    return Fingerprints(
        np.array(rows, dtype=np.int64),
        np.array(hashes, dtype=np.uint64),
        np.array(mirrors, dtype=np.uint64),
        np.array(thumbs, dtype=np.uint8).reshape(-1, THUMB_PX, THUMB_PX, 3),
    )


def colour_difference(first_MSSC: np.ndarray, second_MSSC: np.ndarray) -> np.ndarray:
    """Returns how far the most different place of each pair is apart, levels of 255, float64 [M]; inf where light does not explain it.

    Each picture's mean and contrast (standard deviation over all its cells and channels) are taken out and the common contrast is
    put back (geometric mean), so that a change of brightness or contrast is no difference, and a change of colour is. A place is a
    square of 2 x 2 cells in one channel, whose signed differences are averaged: an edge that resizing moves by a part of a cell makes
    one cell lighter and its neighbour darker. inf: one picture is flat (`MIN_CONTRAST`), or has more than `MAX_CONTRAST_RATIO`
    times the other's contrast. The order within a pair does not count.
    """
    shape = (-1, THUMB_PX * THUMB_PX * 3)
    first, second = (part.reshape(shape).astype(np.float64) for part in (first_MSSC, second_MSSC))
    deviation = [part.std(axis=1) for part in (first, second)]
    low, high = np.minimum(*deviation), np.maximum(*deviation)
    known = (low >= MIN_CONTRAST) & (high <= MAX_CONTRAST_RATIO * low)
    standard = [
        (part[known] - part[known].mean(axis=1, keepdims=True)) / spread[known, None]
        for part, spread in zip((first, second), deviation, strict=True)
    ]
    apart = (standard[0] - standard[1]).reshape(-1, THUMB_PX, THUMB_PX, 3)
    rows = apart[:, 1:] + apart[:, :-1]
    places = np.abs(rows[:, :, 1:] + rows[:, :, :-1]).max(axis=(1, 2, 3)) / 4
    found = np.full(len(first), np.inf)
    found[known] = places * np.sqrt(low * high)[known]
    return found


def find_near_duplicates(
    catalog: Catalog,
    measures: pd.DataFrame,
    fingerprints: Fingerprints,
    *,
    tested_splits: Iterable[str] = ("reference", "query", "gallery"),
    max_distance_bits: int = MAX_DISTANCE_BITS,
    max_difference: float = MAX_DIFFERENCE,
    mirrored: bool = True,
) -> NearDuplicates:
    """Returns the pairs of pictures that are nearly the same.

    A pair is proposed where its hashes differ in at most `max_distance_bits`, by a search that compares few of the N * N pairs
    (see `hamming.pairs_within`), and confirmed where `colour_difference` is at most `max_difference`. Not found: pictures that
    were cropped, turned or taken a moment later. Found in spite of being different: packages that differ only in something faint or
    much smaller than an eighth of the frame. None of the 7,140 pairs of packshots of 120 different drawn products is confirmed
    falsely, while the hashes alone propose more than fifty of them; to measure it again:
    `pytest tests/data/test_near_duplicates.py -k drawn_products`.

    Args:
        catalog: the images.
        measures: from `audit.measure_images` on this very catalog: files with the same sha256 are compared once.
        fingerprints: from `fingerprint_images` on this very catalog.
        tested_splits: splits that hold references and queries; pairs between two of them come first.
        max_distance_bits: 0 to 15.
        max_difference: levels of 255.
        mirrored: mirror images count as duplicates, too; a pair that is near both ways stands once, as the nearer.

    Raises:
        ValueError: a radius out of range.
    """
    content = catalog.frame.reindex(columns=BOX_COLUMNS).loc[fingerprints.row_N]
    content["sha256"] = measures["sha256"].reindex(fingerprints.row_N, fill_value="")
    thumbs = fingerprints.thumb_NSSC
    flat_N = thumbs.reshape(len(thumbs), -1).std(axis=1) < MIN_CONTRAST if len(thumbs) else np.zeros(0, dtype=bool)
    again_N = (content.duplicated() & (content["sha256"] != "")).to_numpy()
    use = np.flatnonzero(~again_N & ~flat_N)
    found: list[pd.DataFrame] = []
    num_pairs, complete = 0, True
    for turned in (False, True) if mirrored else (False,):
        other = fingerprints.mirror_N[use] if turned else None
        for first, second, bits in pairs_within(fingerprints.hash_N[use], max_distance_bits, other):
            for start in range(0, len(first), _PAIRS_A_CHUNK):
                here = slice(start, start + _PAIRS_A_CHUNK)
                one, two = use[first[here]], use[second[here]]
                shown = thumbs[two, :, ::-1] if turned else thumbs[two]
                difference = colour_difference(thumbs[one], shown)
                keep = (difference <= max_difference) & (one != two)
                part = pd.DataFrame(
                    {"first": one, "second": two, "distance_bits": bits[here], "difference": difference}
                )
                found.append(part[keep].assign(mirrored=turned))
                num_pairs += int(keep.sum())
            if num_pairs > MAX_PAIRS:
                complete = False
                break
    table = _describe(catalog, fingerprints.row_N, found, set(tested_splits))
    protocol = (
        f"near duplicates: 64-bit DCT hashes at most {max_distance_bits} bits apart and no place in colour more than "
        f"{max_difference:g} of 255 apart after brightness and contrast are taken out; {'with' if mirrored else 'without'} "
        f"mirror images; n = {len(use):,} pictures compared, files that are the same to the byte once; "
        f"{int(flat_N.sum()):,} flat pictures left out"
        + ("" if complete else f"; more than {MAX_PAIRS:,} pairs, the rest not listed")
    )
    return NearDuplicates(table, len(use), int(flat_N.sum()), complete, protocol)


def _describe(catalog: Catalog, row_N: np.ndarray, found: list[pd.DataFrame], tested: set[str]) -> pd.DataFrame:
    empty = pd.DataFrame({"first": [], "second": [], "distance_bits": [], "difference": [], "mirrored": []}).astype(
        {"first": np.int64, "second": np.int64, "distance_bits": np.uint8, "mirrored": bool}
    )
    pairs = pd.concat([part for part in found if len(part)] or [empty], ignore_index=True)
    ends = np.sort(pairs[["first", "second"]].to_numpy(dtype=np.int64), axis=1)
    pairs["row"], pairs["other_row"] = row_N[ends[:, 0]], row_N[ends[:, 1]]
    pairs = pairs.sort_values(["difference", "distance_bits", "mirrored"], kind="stable")
    pairs = pairs.drop_duplicates(["row", "other_row"])
    named = catalog.frame[["label", "split"]].assign(path=catalog.names())
    table = pairs[["row", "other_row"]].reset_index(drop=True)
    for name in ("path", "label", "split"):
        for side in ("", "other_"):
            table[side + name] = named[name].to_numpy()[table[f"{side}row"]]
    table["same_label"] = table["label"] == table["other_label"]
    table["across_splits"] = table["split"] != table["other_split"]
    for name in ("mirrored", "distance_bits", "difference"):
        table[name] = pairs[name].to_numpy()
    in_tested = table["split"].isin(tested) & table["other_split"].isin(tested)
    rank = 2 - table["across_splits"].astype(int) - (table["across_splits"] & in_tested).astype(int)
    keys = ["rank", "same_label", "difference", "row", "other_row"]
    return table.assign(rank=rank).sort_values(keys, ignore_index=True).drop(columns="rank")
