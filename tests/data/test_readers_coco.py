"""COCO's json as a catalog: boxes, names, splits, a detector's bare list, and every way in which it can be broken."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from workbench.data.boxes import Box
from workbench.data.card import CardError
from workbench.data.catalog import Catalog, open_catalog
from workbench.data.images import load_image
from workbench.data.inputs import gather_inputs
from workbench.data.locate import MissingDataError
from workbench.data.readers.listing import LayoutError

IMAGES = [
    {"id": 10, "file_name": "left.png", "width": 30, "height": 20},
    {"id": 7, "file_name": "día/right.png", "width": 30, "height": 20},
]
CATEGORIES = [{"id": 1, "name": "00123", "supercategory": "drink"}, {"id": 90, "name": "Käse", "supercategory": ""}]
ANNOTATIONS = [
    {"id": 1, "image_id": 7, "category_id": 90, "bbox": [5, 4, 10, 8], "iscrowd": 0, "area": 80, "segmentation": []},
    {"id": 2, "image_id": 10, "category_id": 1, "bbox": [0.5, 0, 3.25, 2], "score": 0.9},
    {"id": 3, "image_id": 10, "category_id": 1, "bbox": [0, 0, 30, 20], "iscrowd": 1},
]


def coco(**changed: Any) -> dict[str, Any]:
    return {"info": {}, "images": IMAGES, "categories": CATEGORIES, "annotations": ANNOTATIONS, **changed}


def write_set(folder: Path, files: dict[str, Any], options: str = "annotations: {train: boxes.json}") -> str:
    root = folder / "shelf"
    for number, image in enumerate(IMAGES):
        path = root / "photos" / str(image["file_name"])
        path.parent.mkdir(parents=True, exist_ok=True)
        picture_HWC = np.full((20, 30, 3), 255, dtype=np.uint8)
        picture_HWC[4:12, 5:15] = (200, 100 * number, 0)
        Image.fromarray(picture_HWC).save(path)
    for name, content in files.items():
        (root / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    card = folder / "shelf.md"
    card.write_text(
        f"---\ntitle: s\ntask: recognition\nreader: coco\noptions: {{images: photos, {options}}}\nlicence: none\n"
        "source: here\nlayout: json\n---\n"
    )
    return str(card)


def open_set(folder: Path, files: dict[str, Any], options: str = "annotations: {train: boxes.json}") -> Catalog:
    return open_catalog(write_set(folder, files, options), folder)


def test_annotations_become_rows(tmp_path: Path) -> None:
    catalog = open_set(tmp_path, {"boxes.json": coco()})
    frame = catalog.frame[["path", "label", "split", "group", "domain"]].astype(object)
    assert frame.where(frame.notna(), None).to_numpy().tolist() == [
        ["photos/día/right.png", "Käse", "train", None, "real"],
        ["photos/left.png", "00123", "train", "drink", "real"],
    ]
    assert [picture.box for picture in catalog.pictures()] == [Box(5, 4, 10, 8), Box(0.5, 0, 3.25, 2)]
    assert np.unique(np.asarray(load_image(catalog.pictures()[0])).reshape(-1, 3), axis=0).tolist() == [[200, 100, 0]]
    assert catalog.notes == ("shelf: train: 1 boxes of crowds are left out",)


def test_splits_domains_and_what_has_no_box(tmp_path: Path) -> None:
    files = {"boxes.json": coco(), "more.json": coco(annotations=entry(bbox=[1, 1, 4, 4])[1:])}
    options = "annotations: {train: boxes.json, query: more.json, later: none.json}, domains: {query: synthetic}"
    catalog = open_set(tmp_path, files, options)
    assert catalog.frame["split"].tolist() == ["train", "train", "query"]
    assert catalog.frame["domain"].tolist() == ["real", "real", "synthetic"]
    assert catalog.notes[1] == "shelf: query: 1 of 2 images have no box that is left, and so no row"


DETECTIONS = [
    {"image_id": 10, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5},
    {"image_id": 10, "category_id": 90, "bbox": [1, 2, 3, 5], "score": 0.49},
    {"image_id": 7, "category_id": 90, "bbox": [-1, -2, 30, 40], "score": 1},
]


def test_a_bare_list_of_detections_takes_the_place_of_the_annotations(tmp_path: Path) -> None:
    options = "annotations: {train: boxes.json}, detections: {train: found.json}"
    files = {"boxes.json": coco(annotations=[]), "found.json": DETECTIONS}
    catalog = open_set(tmp_path, files, options)
    assert list(catalog.names()) == [
        "photos/left.png[1,2,3,4]",
        "photos/left.png[1,2,3,5]",
        "photos/día/right.png[-1,-2,30,40]",
    ]
    sure = open_set(tmp_path, files, f"{options}, min_confidence: 0.5")
    assert list(sure.labels) == ["00123", "Käse"], "the least confidence itself is kept"
    assert sure.notes == ("shelf: train: 1 boxes with a confidence below 0.5 are left out",)
    (tmp_path / "shelf" / "found.json").unlink()
    with pytest.raises(LayoutError, match=r"are not in .*: found\.json"):
        open_catalog(str(tmp_path / "shelf.md"), tmp_path)


def test_annotations_without_confidence_cannot_be_judged_by_it(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="entry 1 has the score None; min_confidence wants one"):
        open_set(tmp_path, {"boxes.json": coco()}, "annotations: {train: boxes.json}, min_confidence: 0.5")


def entry(**changed: Any) -> list[dict[str, Any]]:
    return [ANNOTATIONS[1], {**ANNOTATIONS[0], **changed}]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (coco(annotations=entry(bbox=[5, 4, -10, 8])), r"box 2 \(día/right.png, Käse\): the box is empty: -10 x 8 px"),
        (coco(annotations=entry(bbox=[5, 4, 0, 8])), "the box is empty"),
        (coco(annotations=entry(bbox=[5, 4, 10])), "no bbox of four numbers"),
        (coco(annotations=entry(bbox=None)), "no bbox of four numbers"),
        (coco(annotations=entry(bbox=["5", "4", "10", "8"])), "no bbox of four numbers"),
        (coco(annotations=entry(bbox=[5, 4, 10, float("nan")])), "four finite numbers"),
        (coco(annotations=entry(bbox=[5, 4, 10, float("inf")])), "four finite numbers"),
        (coco(annotations=entry(category_id=2)), "entry 2 has the category_id 2, and no category"),
        (coco(annotations=entry(category_id=[1])), r"entry 2 has the category_id \[1\]"),
        (coco(annotations=entry(category_id=True)), "entry 2 has the category_id True"),
        (coco(annotations=entry(image_id="7")), "entry 2 has the image_id '7', and no image"),
        (coco(annotations=[*ANNOTATIONS, {**ANNOTATIONS[0], "id": 4}]), "more than once: photos/día/right.png"),
        (coco(annotations=[*ANNOTATIONS, {**ANNOTATIONS[0], "category_id": 1}]), "more than once"),
        (coco(annotations=[7]), "wanted a list of annotations"),
        (
            coco(annotations=[]),
            r"holds no image of 'shelf' \(train: boxes.json holds no annotation at all; train: 2 of 2 images have",
        ),
        (
            coco(annotations=ANNOTATIONS[2:]),
            r"holds no image of 'shelf' \(train: 1 boxes of crowds are left out; train: 2 of 2",
        ),
        (
            coco(annotations=entry(bbox=[], segmentation={"counts": "0"})),
            "2 .*four numbers, and its outline or mask is not read",
        ),
        (coco(categories=[*CATEGORIES, {"id": 1, "name": "x"}]), "ids of categories are there more than once: 1"),
        (coco(categories=[*CATEGORIES, {"id": 2, "name": "Käse"}]), "several categories have the name Käse"),
        (coco(categories=[{"id": 1, "name": 123}, CATEGORIES[1]]), "category 1 has the name 123; .*Leading zeros"),
        (coco(categories=[{"id": 1, "name": " "}, CATEGORIES[1]]), "category 1 has the name ' '; wanted: text"),
        (coco(categories=None), "with a list 'categories', each with an id"),
        (coco(images=[*IMAGES, IMAGES[0]]), "ids of images are there more than once: 10"),
        (coco(images=[*IMAGES, {"id": 8, "file_name": "left.png"}]), "several images have the file_name left.png"),
        (
            coco(images=[{"id": 10, "file_name": "gone.png"}, IMAGES[1]]),
            "1 of 2 files .* are not in .*: photos/gone.png",
        ),
        (coco(images=[{"id": 10, "file_name": "../left.png"}, IMAGES[1]]), "do not stay inside"),
        (coco(images=[{"id": 10, "file_name": "./left.png"}, IMAGES[1]]), "parts that say nothing"),
        (coco(images=[{"id": 10}, IMAGES[1]]), "image 10 has the file_name None; wanted: text"),
        (DETECTIONS, "bare list of detections, which does not say what its images"),
        ("{not json", "cannot be read as json"),
        ('"text"', "with a list 'images'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(LayoutError, match=words):
        open_set(tmp_path, {"boxes.json": content})


def roboflow(root: str, *annotations: dict[str, Any]) -> dict[str, Any]:
    """What Roboflow exports: a category for the project, which is the supercategory of all others and has no box."""
    classes = [{"id": 1, "name": "cola", "supercategory": root}, {"id": 2, "name": "tea", "supercategory": root}]
    boxes = [
        {"image_id": 7, "category_id": 1, "bbox": [5, 4, 10, 8]},
        {"image_id": 10, "category_id": 2, "bbox": [5, 4, 9, 8]},
    ]
    categories = [{"id": 0, "name": root, "supercategory": "none"}, *classes]
    return coco(categories=categories, annotations=[*boxes, *annotations])


@pytest.mark.parametrize("root", ["drinks-of-2024", "cola"])
def test_roboflows_root_category_is_no_class_and_no_group(tmp_path: Path, root: str) -> None:
    catalog = open_set(tmp_path, {"boxes.json": roboflow(root)})
    assert list(catalog.labels) == ["cola", "tea"]
    assert catalog.frame["group"].isna().all(), "a group that all classes have tells nothing"
    assert catalog.notes == ()


def test_a_root_that_has_boxes_is_a_class(tmp_path: Path) -> None:
    box = {"image_id": 7, "category_id": 0, "bbox": [1, 1, 9, 9]}
    catalog = open_set(tmp_path, {"boxes.json": roboflow("thing", box)})
    assert list(catalog.labels) == ["cola", "tea", "thing"]
    with pytest.raises(LayoutError, match="several categories have the name cola"):
        open_set(tmp_path, {"boxes.json": roboflow("cola", box)})


def test_a_json_without_a_box_says_why_nothing_can_be_recognised(tmp_path: Path) -> None:
    write_set(tmp_path, {"boxes.json": coco(annotations=ANNOTATIONS[2:])})
    with pytest.raises(
        ValueError, match=r"boxes.json holds no picture \(1 boxes of crowds are left out; 2 of 2 images have no box"
    ):
        gather_inputs([str(tmp_path / "shelf" / "boxes.json")])


def test_a_link_out_of_the_set_is_refused(tmp_path: Path) -> None:
    card = write_set(tmp_path, {"boxes.json": coco()})
    path = tmp_path / "shelf" / "photos" / "left.png"
    path.rename(tmp_path / "far.png")
    path.symlink_to(tmp_path / "far.png")
    with pytest.raises(LayoutError, match="leads out of the data set"):
        open_catalog(card, tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        "split: train",
        "annotations: boxes.json",
        "annotations: {train: 7}",
        "annotations: {train: ../boxes.json}",
        "annotations: {train: boxes.json}, detections: {query: found.json}",
        "annotations: {train: boxes.json}, domains: {train: drawn}",
        "annotations: {train: boxes.json}, min_confidence: 50",
        "annotations: {train: boxes.json}, min_confidence: true",
        "annotations: {train: boxes.json}, labels: name",
        "colour: red",
    ],
)
def test_options_are_checked(tmp_path: Path, options: str) -> None:
    with pytest.raises(CardError, match=r"shelf\.md cannot be used"):
        open_set(tmp_path, {"boxes.json": coco()}, options)


def test_a_set_without_its_json_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"none of the files boxes\.json"):
        open_set(tmp_path, {})


def test_a_json_can_be_recognised_directly(tmp_path: Path) -> None:
    write_set(
        tmp_path, {"boxes.json": coco(annotations=[*ANNOTATIONS, *entry(bbox=[1, 1, 0, 2])[1:], *entry(bbox=[])[1:]])}
    )
    path = str(tmp_path / "shelf" / "boxes.json")
    inputs, notes = gather_inputs([path], tmp_path / "shelf" / "photos")
    assert [(one.name, one.box, one.label) for one in inputs[:2]] == [
        ("día/right.png", Box(5, 4, 10, 8), "Käse"),
        ("left.png", Box(0.5, 0, 3.25, 2), "00123"),
    ]
    assert [one.fault for one in inputs] == [
        *("", "", "the box is empty: 0 x 2 px", "the entry has no bbox of four numbers"),
    ]
    assert inputs[1].path == tmp_path / "shelf" / "photos" / "left.png"
    assert notes == [f"{path}: 1 boxes of crowds are left out"]
    assert gather_inputs([path])[0][1].path == tmp_path / "shelf" / "left.png"
