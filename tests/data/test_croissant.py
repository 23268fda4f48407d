"""Croissant metadata: valid for MLCommons' own reader, which finds every row of the catalog again."""

import hashlib
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from workbench.data.catalog import Catalog, open_catalog
from workbench.data.croissant import croissant, write_croissant

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own dependencies
    import mlcroissant


def write(catalog: Catalog, folder: Path) -> tuple[Any, list[Path]]:
    """MLCommons' reader on what was written, and the files."""
    paths = write_croissant(catalog, folder / "set.md")
    return read(paths[0]), paths


def read(description: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies
        return mlcroissant.Dataset(jsonld=str(description))


def records(dataset: Any, name: str) -> list[dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            {
                key.partition("/")[2]: value.decode() if isinstance(value, bytes) else value
                for key, value in record.items()
            }
            for record in dataset.records(name)
        ]


CARD = """---
title: Tins
task: recognition
reader: image_folder
options:
  split_folders: {train: train, query: query}
licence: none
source: nowhere
layout: <split>/<class>/*
---
"""


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Twelve pictures of three labels in two splits; two kinds of file."""
    folder = tmp_path_factory.mktemp("tins")
    for split in ("train", "query"):
        for label in ("beans", "peas", "soup"):
            (folder / split / label).mkdir(parents=True)
            for name in ("1.png", "2.jpg"):
                Image.new("RGB", (8, 8)).save(folder / split / label / name)
    (folder / "tins.md").write_text(CARD)
    return open_catalog(str(folder / "tins.md"), folder)


def test_every_row_is_found_again_by_the_reader_of_the_format(products: Catalog, tmp_path: Path) -> None:
    frame = products.frame.copy()
    frame.loc[:3, "label"] = ["007", "NA", "m\u00fcsli, \u201cfine\u201d", "1e3"]
    catalog = replace(products, frame=frame)
    dataset, _ = write(catalog, tmp_path)
    found = records(dataset, "images")
    for name in ("path", "label", "split", "domain"):
        assert [record[name] for record in found] == frame[name].tolist()
    assert [record["name"] for record in records(dataset, "splits")] == list(frame["split"].unique())


def test_nothing_is_wrong_and_only_what_nobody_stated_is_missing(products: Catalog, tmp_path: Path) -> None:
    dataset, _ = write(products, tmp_path)
    assert dataset.metadata.issues.errors == set()
    assert {text.rpartition('Property "')[2].partition('"')[0] for text in dataset.metadata.issues.warnings} <= {
        f"https://schema.org/{name}" for name in ("datePublished", "version", "url")
    } | {"http://mlcommons.org/croissant/citeAs"}


def test_the_reader_does_see_a_fault(products: Catalog, tmp_path: Path) -> None:
    _, (description, _) = write(products, tmp_path)
    content = json.loads(description.read_text())
    del content["distribution"][0]["contentUrl"]
    description.write_text(json.dumps(content))
    with pytest.raises(mlcroissant.ValidationError, match="contentUrl"):
        read(description)


def test_what_the_card_says_stands_in_the_description(products: Catalog) -> None:
    (card,) = products.cards.values()
    card = replace(
        card, source="see https://example.org/set, or ask", licence="CC BY 4.0", citation="A. Body, 2020", title="Tins"
    )
    card = replace(card, text="Intro.\n\n## What it is\n\nTwo\ntins.\n\nMore.\n\n## How it was collected\n\nSo.")
    found = croissant(replace(products, cards={card.name: card}))
    assert found["description"] == "Tins. Two tins."
    assert (found["license"], found["citeAs"], found["url"]) == (
        "CC BY 4.0",
        "A. Body, 2020",
        "https://example.org/set",
    )
    unanswered = replace(card, licence="QUESTION: which?", source="QUESTION: whence?", citation="")
    found = croissant(replace(products, cards={card.name: unanswered}))
    assert not {"license", "citeAs", "url"} & set(found)


def test_the_table_is_known_by_its_sum(products: Catalog, tmp_path: Path) -> None:
    description, table = write_croissant(products, tmp_path / "set.md")
    (entry,) = [part for part in json.loads(description.read_text())["distribution"] if part["@id"] == "catalog"]
    assert entry["contentUrl"] == table.name == "set.catalog.parquet"
    assert entry["sha256"] == hashlib.sha256(table.read_bytes()).hexdigest()
    assert croissant(products, "set.catalog.parquet") == json.loads(description.read_text())


def test_cameras_groups_and_boxes_are_there_where_any_image_has_one(products: Catalog, tmp_path: Path) -> None:
    bare = {field["name"] for field in croissant(products)["recordSet"][1]["field"]}
    assert "camera" not in bare
    assert "box_x" not in bare
    frame = products.frame.copy()
    frame["camera"] = frame["camera"].astype("Int64")
    frame.loc[0, "camera"] = 4
    frame.loc[1, ["box_x", "box_y", "box_width", "box_height"]] = [1.5, -2.0, 30.0, 40.25]
    dataset, _ = write(replace(products, frame=frame), tmp_path)
    found = records(dataset, "images")
    assert found[0]["camera"] == 4
    assert [found[1][f"box_{name}"] for name in ("x", "y", "width", "height")] == [1.5, -2.0, 30.0, 40.25]
    assert [pd.isna(record["box_x"]) for record in found] == [True, False] + [True] * 10
    assert [pd.isna(record["camera"]) for record in found] == [False] + [True] * 11


def test_an_archive_is_named_only_when_its_sum_is_known(products: Catalog, tmp_path: Path) -> None:
    (card,) = products.cards.values()
    known = {"url": "https://example.org/a.zip", "sha256": "a" * 64, "folder": "x"}
    unknown = {"url": "https://example.org/b.zip", "sha256": None}
    catalog = replace(products, cards={card.name: replace(card, archives=[known, unknown])})
    dataset, _ = write(catalog, tmp_path)
    (archive,) = [part for part in dataset.metadata.distribution if part.id.startswith("archive")]
    assert (archive.content_url, archive.sha256) == ("https://example.org/a.zip", "a" * 64)
    sets = [part for part in croissant(catalog)["distribution"] if part["@type"] == "cr:FileSet"]
    assert {part["includes"] for part in sets} == {f"**/*.{path.rpartition('.')[2]}" for path in catalog.frame["path"]}
    assert all(part["containedIn"] == [{"@id": "archive-1"}] for part in sets)


def test_several_sets_are_refused(products: Catalog) -> None:
    (card,) = products.cards.values()
    with pytest.raises(ValueError, match="of one set"):
        croissant(replace(products, cards={"tins": card, "pans": card}))
