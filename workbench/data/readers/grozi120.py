"""Reader of GroZi-120 as its authors distribute it: pictures from the web, and cut-outs from videos of a store's shelves.

A product's folder is its number, 1 to 120. `inVitro/<number>/web/JPEG/web<n>.jpg` are packshots, `inSitu/<number>/video/
video<n>.png` what a camera saw of it in the store. The other parts (`Index`, `Video`, masks, PNG versions) are not read.

Source: Merler, Galleguillos, Belongie, "Recognizing Groceries in situ Using in vitro Training Data", CVPR workshops 2007,
and the readme of the database.
"""

import re
from pathlib import Path

import pandas as pd

from workbench.data.card import Card, card_options
from workbench.data.readers.fields import recognition_frame
from workbench.data.readers.listing import LayoutError, check_link, few, scan

# split, its folder, the folder of the pictures within a product's, their names, their domain
_PARTS = (
    ("reference", "inVitro", "web/JPEG", r"web([0-9]+)\.jpe?g", "packshot"),
    ("query", "inSitu", "video", r"video([0-9]+)\.png", "real"),
)


def find_fault(root: Path, card: Card) -> str | None:
    """What keeps `root` from being this set in one line, or None."""
    if not any((root / folder).is_dir() for _, folder, *_ in _PARTS):
        return "neither a folder inVitro nor a folder inSitu"
    return None


def read(root: Path, card: Card) -> pd.DataFrame:
    """One row an image: path, label, split, camera, group, domain; references first, by product, then picture number.

    The label is the product's number as its folder is named. The web pictures are the split `reference` (packshot), the
    cut-outs the split `query` (real). A part that is not there is left out.

    Raises:
        LayoutError: a product's folder that is no number or has no picture, a file of another name among the pictures, a
            link that leaves `root`.
        CardError: an option; this reader has none.
    """
    card_options(card, {})
    frames = []
    for split, folder, below, name, domain in _PARTS:
        if not (root / folder).is_dir():
            continue
        check_link(root / folder, root)
        paths: list[str] = []
        labels: list[str] = []
        for label in _products(root, folder):
            found = _pictures(root, f"{folder}/{label}/{below}", name)
            paths += found
            labels += [label] * len(found)
        frames.append(recognition_frame(paths, labels, split, domain=domain))
    return pd.concat(frames, ignore_index=True)


def _products(root: Path, folder: str) -> list[str]:
    products = scan(root / folder, root)[1]
    bad = [name for name in products if not re.fullmatch("[0-9]+", name)]
    if bad or not products:
        raise LayoutError(
            f"{root / folder} holds {few(bad) or 'no folders'}. Wanted: the folders 1 to 120, one a product."
        )
    return sorted(products, key=lambda name: (int(name), name))


def _pictures(root: Path, folder: str, name: str) -> list[str]:
    if not (root / folder).is_dir():
        raise LayoutError(f"{root / folder} is not there: a product without pictures. Complete the download.")
    check_link(root / folder, root)
    files = scan(root / folder, root)[0]
    number = {file: match[1] for file in files if (match := re.fullmatch(name, file, flags=re.IGNORECASE))}
    bad = [file for file in files if file not in number]
    if bad or not files:
        raise LayoutError(f"{root / folder} holds {few(bad) or 'no picture'}. Wanted: pictures named like {name}.")
    return [f"{folder}/{file}" for file in sorted(files, key=lambda file: (int(number[file]), file))]
