"""Reader of Grocery Products (also Grozi-3.2K): one packshot a product, and shelf pictures with a box a product.

The packshots are those of `TrainingFiles.txt` (`Training/Food/Bakery/1.jpg`). The boxes are the ones that Tonioni and Di Stefano
added: `Annotations/s<store>_<picture>.csv`, lines `product picture,xmin,ymin,xmax,ymax` without a header, for the picture
`Testing/store<store>/images/<picture>.jpg` (in some copies `store<store>_<picture>.jpg`). Products that the set itself lacks come
with these boxes as `extra_products/`. The authors' own boxes name coarse classes only, and are not read.

Sources: George, Floerkemeier, "Recognizing Products: A Per-exemplar Multi-label Image Classification Approach", ECCV 2014;
Tonioni, Di Stefano, "Product Recognition in Store Shelves as a Sub-graph Isomorphism Problem", ICIAP 2017.
"""

import re
from pathlib import Path

import pandas as pd

from workbench.data.boxes import BOX_COLUMNS
from workbench.data.card import Card, card_options
from workbench.data.readers.fields import read_lines, recognition_frame
from workbench.data.readers.image_folder import pictures_below
from workbench.data.readers.listing import LayoutError, check_link, check_listed, few, scan

_BACKGROUND = "Background/"
_EDGES = ["xmin", "ymin", "xmax", "ymax"]


def find_fault(root: Path, card: Card) -> str | None:
    """What keeps `root` from being this set in one line, or None."""
    if not (root / "TrainingFiles.txt").is_file():
        return "no TrainingFiles.txt in it"
    return None


def read(root: Path, card: Card) -> pd.DataFrame:
    """One row a packshot, then one a box: path, label, split, camera, group, domain, box_x, box_y, box_width, box_height.

    The label is the path of the product's picture below `Training/` (or `extra_products/`), its ending in lower case:
    `Food/Bakery/1.jpg`; `group` is its folder. Packshots are the split `reference` (domain packshot, no box), boxes the split
    `query` (real), those of one shelf picture in the order of its list. Pictures of `Training/Background` are no products:
    split `background`. Boxes are in pixels as listed; one that leaves its picture is not noticed, because no picture is opened.

    Lines that are no box (other fields, no area, a box that a line above has) are left out, and boxes of products without a packshot
    kept; a note counts either (`Catalog.notes`).

    Raises:
        LayoutError: a listed packshot or a shelf picture that is not there, two packshots of one label, a list of boxes that
            is not named s<store>_<picture>.csv, or the folder of lists without one.
        CardError: an option; this reader has none.
    """
    card_options(card, {})
    listed = read_lines(root / "TrainingFiles.txt").str.strip()
    check_listed(root, listed.tolist(), "TrainingFiles.txt")
    paths = listed.tolist()
    if (root / "extra_products").is_dir():
        check_link(root / "extra_products", root)
        paths += pictures_below(root, "extra_products")
    labels = [_label(path.partition("/")[2]) for path in paths]
    split = ["background" if label.startswith(_BACKGROUND) else "reference" for label in labels]
    packshots = recognition_frame(paths, labels, split, _groups(labels), "packshot")
    twice = packshots["label"][packshots["label"].duplicated()]
    if len(twice):
        raise LayoutError(
            f"{root} has several packshots of {len(twice)} products: {few(list(twice))}. Wanted: one each."
        )
    packshots["domain"] = packshots["domain"].mask(packshots["split"] == "background", "real")
    boxes, notes = _read_boxes(root)
    lacking = boxes["label"][~boxes["label"].isin(packshots["label"])]
    if len(lacking):
        notes.append(
            f"{len(lacking)} boxes are of {lacking.nunique()} products without a packshot: {few(list(lacking.unique()))}; "
            "the folder extra_products, which comes with the boxes, may have them"
        )
    whole = packshots.assign(**dict.fromkeys(BOX_COLUMNS, float("nan")))
    frame = pd.concat([whole, boxes], ignore_index=True) if len(boxes) else whole
    frame.attrs["notes"] = notes
    return frame


def _label(path: str) -> str:
    stem, dot, ending = path.rpartition(".")
    return f"{stem}.{ending.lower()}" if dot else path


def _groups(labels: list[str]) -> list[str]:
    return [label.rpartition("/")[0] for label in labels]


def _read_boxes(root: Path) -> tuple[pd.DataFrame, list[str]]:
    folder = root / "Annotations"
    if not folder.is_dir():
        return recognition_frame([], [], "query"), []
    check_link(folder, root)
    names = [name for name in scan(folder, root)[0] if name.lower().endswith(".csv")]
    bad = [name for name in names if not re.fullmatch(r"s[0-9]+_[0-9]+\.csv", name, flags=re.IGNORECASE)]
    if bad or not names:
        raise LayoutError(f"{folder} holds {few(bad) or 'no list'}. Wanted: lists of boxes named like s1_14.csv.")
    parts, strange = [], []
    for name in sorted(names, key=lambda name: [int(number) for number in re.findall("[0-9]+", name)]):
        store, picture = map(int, re.findall("[0-9]+", name))
        lines = read_lines(folder / name)
        fields = lines.str.extract(
            r"^\s*/?(?P<label>.*\S)\s*" + "".join(rf",\s*(?P<{edge}>[0-9.+-]+)\s*" for edge in _EDGES) + "$"
        )
        edges = fields[_EDGES].apply(pd.to_numeric, errors="coerce")
        good = (edges["xmax"] > edges["xmin"]) & (edges["ymax"] > edges["ymin"]) & ~edges.duplicated()
        strange += [f"{name} line {number}" for number in lines.index[~good]]
        path = _shelf_picture(root, store, picture)
        parts.append(fields[["label"]].join(edges).loc[good].assign(path=path))
    rows = pd.concat(parts, ignore_index=True)
    labels = [_label(label.removeprefix("Training/")) for label in rows["label"]]
    frame = recognition_frame(rows["path"], labels, "query", _groups(labels)).assign(
        box_x=rows["xmin"],
        box_y=rows["ymin"],
        box_width=rows["xmax"] - rows["xmin"],
        box_height=rows["ymax"] - rows["ymin"],
    )
    notes = [f"{len(strange)} lines of Annotations are no boxes and left out: {few(strange)}"] if strange else []
    return frame, notes


def _shelf_picture(root: Path, store: int, picture: int) -> str:
    folder = f"Testing/store{store}/images"
    wanted = rf"(?:store{store}_)?{picture}\.(?:jpe?g|png)"
    if (root / folder).is_dir():
        check_link(root / folder, root)
        found = [name for name in scan(root / folder, root)[0] if re.fullmatch(wanted, name, flags=re.IGNORECASE)]
        if found:
            return f"{folder}/{found[0]}"
    raise LayoutError(f"{root / folder} has no picture {picture}.jpg, of which s{store}_{picture}.csv lists boxes.")
