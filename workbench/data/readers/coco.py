"""Reader of COCO's json: each annotation is a box of an image, its category's name is the label.

Options of the card: `annotations` ({split: file}, from the set's folder), `images` (the folder that `file_name` starts from;
default the set's own), `detections` ({split: file}: a detector's results as COCO's tools write them, a bare list; images and
categories are then read from that split's `annotations`, whose own annotations are left aside), `min_confidence` (0 to 1:
what the detector gave less is left out) and `domains` ({split: real | synthetic | packshot}, default real).

An image without a box has no row. Boxes of crowds (`iscrowd`) hold several objects and are left out; outlines and masks (polygons,
RLE) are not read. The group is the category's `supercategory`. A category of the supercategory "none" without an annotation is the
root that Roboflow adds: it is no class and no group, and may be called like a class.

Boxes are of the picture as it is shown, EXIF's orientation applied; where an image's `width` and `height` are those of the stored
picture, they are turned along (see `box_frames`).

Source: Lin et al., "Microsoft COCO: common objects in context", ECCV 2014; formats at cocodataset.org (format-data,
format-results): bbox is [x, y, width, height], px, from the upper left corner.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench.data.box_frames import to_shown_frame
from workbench.data.boxes import BOX_COLUMNS, box_fault
from workbench.data.card import DOMAINS, Card, card_error, check_keys
from workbench.data.readers.listing import LayoutError, check_listed, check_paths, check_plain, few, note, text_column

OPTIONS = ("annotations", "images", "detections", "min_confidence", "domains")


@dataclass(frozen=True, slots=True)
class Annotation:
    """One box: the image's `file_name`, the category's name and supercategory, four numbers (NaN where there is none).

    `size` is the image's width and height as the json has them, px, NaN where it has none. `fault` says why the numbers make no
    box; "" where they do.
    """

    file_name: str
    label: str
    group: str | None
    size: tuple[float, float]
    box: tuple[float, float, float, float]
    fault: str


def find_fault(root: Path, card: Card) -> str | None:
    """What keeps `root` from being this set in one line, or None."""
    files = _options(card)["annotations"]
    if not any((root / name).is_file() for name in files.values()):
        return f"none of the files {', '.join(files.values())}"
    return None


def read(root: Path, card: Card) -> pd.DataFrame:
    """One row a box, by split (the card's order), then as in the file: path, label, split, camera, group, domain, box.

    Splits whose file of annotations is not there are left out. `attrs["notes"]` counts what else is.

    Raises:
        LayoutError: a file that is no such json, an image or category that no entry describes, a box that is none, an
            image file that is missing, a link that leaves `root`.
        CardError: an unknown option, or one with a value that cannot be.
    """
    options = _options(card)
    folder = options["images"]
    notes: list[str] = []
    found: list[tuple[str, Annotation]] = []
    for split, name in options["annotations"].items():
        if not (root / name).is_file():
            continue
        detections = options["detections"].get(split)
        check_listed(root, [one for one in (name, detections) if one], f"the card {card.path}")
        results = None if detections is None else root / detections
        rows, left_out = read_annotations(root / name, results, options["min_confidence"])
        names = list(dict.fromkeys(f"{folder}/{row.file_name}" if folder else row.file_name for row in rows))
        check_plain(names, "the annotations")
        check_listed(root, names, "the annotations")
        rows, turned = turn_rows(rows, root / folder, results or root / name)
        bad = [f"box {n} ({row.file_name}, {row.label}): {row.fault}" for n, row in enumerate(rows, 1) if row.fault]
        if bad:
            listed_in = f"{results or root / name}: {len(bad)} of {len(rows)} boxes cannot be used"
            raise LayoutError(f"{listed_in}: {few(bad, 2)}. Correct or remove them.")
        found += [(split, row) for row in rows]
        notes += [f"{split}: {note}" for note in [*left_out, *turned]]
    paths = [f"{folder}/{row.file_name}" if folder else row.file_name for _, row in found]
    frame = pd.DataFrame(
        {
            "path": text_column(paths, "file names"),
            "label": text_column([row.label for _, row in found], "category names"),
            "split": text_column([split for split, _ in found], "splits"),
            "camera": pd.Series(pd.NA, index=range(len(found)), dtype="Int64"),
            "group": pd.Series([row.group for _, row in found], dtype="str"),
            "domain": pd.Series([options["domains"].get(split, "real") for split, _ in found], dtype="str"),
            **{name: pd.Series([row.box[place] for _, row in found]) for place, name in enumerate(BOX_COLUMNS)},
        }
    )
    frame.attrs["notes"] = notes
    return frame


def turn_rows(rows: list[Annotation], folder: Path, listed_in: Path) -> tuple[list[Annotation], list[str]]:
    """The annotations with their boxes in the pictures as they are shown, and notes; see `box_frames.to_shown_frame`.

    Args:
        rows: from `read_annotations`.
        folder: where each `file_name` starts from.
        listed_in: what errors call the json.

    Raises:
        LayoutError: the boxes are percentages and not px.
    """
    box_N4 = np.array([(np.nan,) * 4 if row.fault else row.box for row in rows], dtype=np.float64).reshape(-1, 4)
    size_N2 = np.array([row.size for row in rows], dtype=np.float64).reshape(-1, 2)
    shown_N4, faults, notes = to_shown_frame(box_N4, size_N2, [folder / row.file_name for row in rows], listed_in)
    turned = [
        row if row.fault else replace(row, box=tuple(box), fault=fault)
        for row, box, fault in zip(rows, shown_N4.tolist(), faults, strict=True)
    ]
    return turned, notes


def read_annotations(
    path: Path, results: Path | None = None, min_confidence: float | None = None
) -> tuple[list[Annotation], list[str]]:
    """The boxes of one json, in its order, and notes about what was left out, one line each.

    Args:
        path: COCO's annotations: `images`, `categories` and `annotations`.
        results: a bare list of detections of the same images, which is read in place of `annotations`.
        min_confidence: least `score` of an entry; then each entry must have one. None takes all.

    Raises:
        LayoutError: not such json; an id twice, or one that nothing describes; a category without a name that is text.
    """
    listed = _load(path)
    if isinstance(listed, list):
        raise LayoutError(
            f"{path} is a bare list of detections, which does not say what its images and categories are. Write a card with "
            "reader: coco, whose options name the annotations (images, categories) and, as detections, this list."
        )
    names = {
        key: _entry(one, "file_name", f"{path}: image {key}") for key, one in _by_id(listed, "images", path).items()
    }
    sizes = {one["id"]: _size(one, f"{path}: image {one['id']}") for one in listed["images"]}
    categories = _by_id(listed, "categories", path)
    entries = listed.get("annotations") if results is None else _load(results)
    source = results or path
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise LayoutError(f"{source}: wanted a list of {'annotations' if results is None else 'detections'}.")
    used = {entry["category_id"] for entry in entries if _is_key(entry.get("category_id"))}
    roots = {key for key, one in categories.items() if key not in used and one.get("supercategory") == "none"}
    labels = {
        key: _entry(one, "name", f"{path}: category {key}") for key, one in categories.items() if key not in roots
    }
    no_groups = {"none", *(categories[key].get("name") for key in roots)}
    for what, texts in (("images have the file_name", names), ("categories have the name", labels)):
        twice = pd.Series(list(texts.values()), dtype=object)
        twice = twice[twice.duplicated()]
        if len(twice):
            raise LayoutError(f"{path}: several {what} {few(list(twice))}; each wants one of its own.")
    rows: list[Annotation] = []
    num_crowds = num_unsure = 0
    for number, entry in enumerate(entries, start=1):
        where = f"{source}: entry {number}"
        image, category = entry.get("image_id"), entry.get("category_id")
        if not _is_key(image) or image not in names:
            raise LayoutError(f"{where} has the image_id {image!r}, and no image of {path} has that id.")
        if not _is_key(category) or category not in labels:
            raise LayoutError(f"{where} has the category_id {category!r}, and no category of {path} has that id.")
        if entry.get("iscrowd"):
            num_crowds += 1
        elif min_confidence is not None and _confidence(entry, where) < min_confidence:
            num_unsure += 1
        else:
            group = categories[category].get("supercategory")
            group = group if isinstance(group, str) and group.strip() and group not in no_groups else None
            box, fault = _box(entry)
            rows.append(Annotation(names[image], labels[category], group, sizes[image], box, fault))
    notes = [] if entries else [f"{source.name} holds no {'annotation' if results is None else 'detection'} at all"]
    if num_crowds:
        notes.append(f"{num_crowds} boxes of crowds are left out")
    if num_unsure:
        notes.append(f"{num_unsure} boxes with a confidence below {min_confidence:g} are left out")
    num_empty = len(names) - len({row.file_name for row in rows})
    if num_empty:
        notes.append(f"{num_empty} of {len(names)} images have no box that is left, and so no row")
    return rows, notes


def _options(card: Card) -> dict[str, Any]:
    given = card.options
    try:
        check_keys(given, OPTIONS, "option")
        found = {name: given.get(name) or {} for name in ("annotations", "detections", "domains")}
        for name, value in found.items():
            if not isinstance(value, dict) or not all(isinstance(text, str) for pair in value.items() for text in pair):
                what = "domain" if name == "domains" else "file"
                raise ValueError(f"the option {name!r} is not a mapping {{split: {what}}}.")
        if not found["annotations"]:
            raise ValueError("the option 'annotations' is missing: {split: file}.")
        check_paths([*found["annotations"].values(), *found["detections"].values()])
        for name in ("detections", "domains"):
            check_keys(found[name], list(found["annotations"]), f"split in the option {name!r}:")
        check_keys(list(found["domains"].values()), DOMAINS, "domain")
        images, least = given.get("images", ""), given.get("min_confidence")
        if not isinstance(images, str):
            raise ValueError(f"the option 'images' is a folder; found {images!r}.")
        check_paths([images])
        if least is not None and (isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least <= 1):
            raise ValueError(f"the option 'min_confidence' lies from 0 to 1; found {least!r}.")
    except ValueError as error:
        raise card_error(card, error) from error
    return {**found, "images": "" if images == "." else images.rstrip("/"), "min_confidence": least}


def _load(path: Path) -> Any:
    try:
        note(path)
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise LayoutError(f"{path} cannot be read as json: {error}") from error


def _by_id(listed: Any, what: str, path: Path) -> dict[int | str, dict[str, Any]]:
    entries = listed.get(what) if isinstance(listed, dict) else None
    if not isinstance(entries, list) or not all(isinstance(one, dict) and _is_key(one.get("id")) for one in entries):
        raise LayoutError(f"{path}: wanted COCO's annotations with a list {what!r}, each with an id.")
    found = {one["id"]: one for one in entries}
    if len(found) < len(entries):
        ids = pd.Series([one["id"] for one in entries], dtype=object)
        raise LayoutError(f"{path}: ids of {what} are there more than once: {few(list(ids[ids.duplicated()]))}.")
    return found


def _entry(one: dict[str, Any], name: str, where: str) -> str:
    value = one.get(name)
    if not isinstance(value, str) or not value.strip():
        advice = (
            " Leading zeros of a number are lost already: write it as text." if isinstance(value, int | float) else ""
        )
        raise LayoutError(f"{where} has the {name} {value!r}; wanted: text.{advice}")
    return value


def _is_key(value: object) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _confidence(entry: dict[str, Any], where: str) -> float:
    value = entry.get("score")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise LayoutError(f"{where} has the score {value!r}; min_confidence wants one from 0 to 1 in each entry.")
    return float(value)


def _size(image: dict[str, Any], where: str) -> tuple[float, float]:
    given = [image.get(name) for name in ("width", "height")]
    if all(one is None or one == 0 for one in given):
        return np.nan, np.nan
    if not all(isinstance(one, int | float) and not isinstance(one, bool) and 1 <= one < np.inf for one in given):
        raise LayoutError(
            f"{where} has the width and height {given[0]!r} and {given[1]!r}; wanted: px, or none of the two."
        )
    return float(given[0]), float(given[1])  # type: ignore[arg-type]


def _box(entry: dict[str, Any]) -> tuple[tuple[float, float, float, float], str]:
    bbox = entry.get("bbox")
    given = bbox if isinstance(bbox, list) and len(bbox) == 4 else [None] * 4
    x, y, width, height = (
        float(one) if isinstance(one, int | float) and not isinstance(one, bool) else np.nan for one in given
    )
    box = x, y, width, height
    lacking = "the entry has no bbox of four numbers" + (
        ", and its outline or mask is not read" if entry.get("segmentation") else ""
    )
    return box, box_fault(np.array(box)) or (lacking if np.isnan(x) else "")
