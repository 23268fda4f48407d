"""Croissant metadata (JSON-LD) of a set: what other tools for data sets read, beside the card that people read.

Source: "Croissant Format Specification", version 1.0, MLCommons, 2024.
"""

import hashlib
import io
import mimetypes
import re
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from workbench.data.boxes import BOX_COLUMNS
from workbench.data.card import QUESTION, Card
from workbench.data.catalog import Catalog
from workbench.data.file_names import IMAGE_TYPES
from workbench.data.readers.listing import few
from workbench.runs.files import write_bytes, write_json

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{name: f"cr:{name}" for name in ("citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty")},
    **{
        name: f"cr:{name}"
        for name in ("fileObject", "fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key")
    },
    **{name: f"cr:{name}" for name in ("md5", "parentField", "path", "recordSet", "references", "regex", "repeated")},
    **{name: f"cr:{name}" for name in ("replace", "samplingRate", "separator", "source", "subField", "transform")},
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "sc": "https://schema.org/",
}

_FIELDS: dict[str, tuple[str, str]] = {
    "path": ("sc:Text", "the picture's file below the set's folder, parts joined by /"),
    "label": ("sc:Text", "what the picture shows: a product or an individual; text, also where it looks like a number"),
    "split": ("sc:Text", "train, val, test, reference, gallery or query"),
    "camera": ("sc:Integer", "number of the camera; missing where there is none"),
    "group": ("sc:Text", "coarse class or encounter; missing where there is none"),
    "domain": ("sc:Text", "real (a photograph), synthetic or packshot"),
    **{
        name: (
            "sc:Float",
            f"{name.replace('_', ' ')} in px of the upright picture; missing where the whole picture is meant",
        )
        for name in BOX_COLUMNS
    },
}


def croissant(catalog: Catalog, table_name: str = "catalog.parquet") -> dict[str, Any]:
    """The Croissant description of a catalog of one set, as JSON-LD.

    `distribution` has the table of images `table_name`, which `write_croissant` puts beside the description, the pictures
    as a file set, and those archives of the card whose sha256 is known. The record set `images` has a field for each
    column of the table; `camera`, `group` and the box are left out where no image has any. What nobody stated, such as
    the date of publication, is not there.

    Raises:
        ValueError: several sets at once.
    """
    return _describe(catalog, table_name, hashlib.sha256(_table_bytes(catalog)).hexdigest())


def croissant_paths(card_path: Path) -> list[Path]:
    """Where `write_croissant` writes: the description, then the table."""
    return [card_path.with_suffix(".croissant.json"), card_path.with_suffix(".catalog.parquet")]


def write_croissant(catalog: Catalog, card_path: Path) -> list[Path]:
    """The two files written beside the card at `card_path`: the description and the table of images it speaks of.

    Files of these names are replaced, each as a whole.

    Raises:
        ValueError: several sets at once.
    """
    description, table = croissant_paths(card_path)
    content = _table_bytes(catalog)
    described = _describe(catalog, table.name, hashlib.sha256(content).hexdigest())
    write_bytes(table, content)
    write_json(description, described)
    return [description, table]


def _columns(catalog: Catalog) -> list[str]:
    return [
        name for name in _FIELDS if name in ("path", "label", "split", "domain") or catalog.frame[name].notna().any()
    ]


def _table_bytes(catalog: Catalog) -> bytes:
    # parquet and not csv: in a csv the label 007 would be read as the number 7, and the label NA as a missing one.
    buffer = io.BytesIO()
    catalog.frame[_columns(catalog)].to_parquet(buffer, index=False)
    return buffer.getvalue()


def _describe(catalog: Catalog, table_name: str, sha256: str) -> dict[str, Any]:
    if len(catalog.cards) != 1:
        raise ValueError(
            f"A description is of one set; the catalog has {few(list(catalog.cards))}. Write one at a time."
        )
    (card,) = catalog.cards.values()
    url = re.search(r"https?://[^\s,;)]+", card.source)
    described: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": card.name,
        "description": _first_words(card),
        "license": card.licence,
        "citeAs": card.citation,
        "url": url[0] if url else "",
        "distribution": [_table_file(table_name, sha256), *_archives(card), *_file_sets(catalog, card)],
        "recordSet": [_split_set(catalog.frame), _image_set(catalog)],
    }
    return {key: value for key, value in described.items() if value and not str(value).startswith(QUESTION)}


def _first_words(card: Card) -> str:
    section = re.search(r"^## What it is\s+(.+?)(?:\n\s*\n|\Z)", card.text, flags=re.MULTILINE | re.DOTALL)
    return f"{card.title}. {' '.join(section[1].split())}" if section else card.title


def _table_file(table_name: str, sha256: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": "catalog",
        "name": table_name,
        "description": "one row an image, or a box of it",
        "contentUrl": table_name,
        "encodingFormat": "application/x-parquet",
        "sha256": sha256,
    }


def _archives(card: Card) -> list[dict[str, Any]]:
    return [
        {
            "@type": "cr:FileObject",
            "@id": f"archive-{number}",
            "name": PurePosixPath(archive["url"]).name,
            "contentUrl": archive["url"],
            "encodingFormat": mimetypes.guess_type(archive["url"])[0] or "application/octet-stream",
            "sha256": archive["sha256"],
        }
        for number, archive in enumerate(card.archives, 1)
        if archive["sha256"] is not None
    ]


def _file_sets(catalog: Catalog, card: Card) -> list[dict[str, Any]]:
    """The pictures by kind of file: within the archives whose content is known for certain, else below the set's folder."""
    suffixes = sorted(set(catalog.frame["path"].str.extract(r"(\.[^./]+)$")[0].dropna()))
    certain = [number for number, archive in enumerate(card.archives, 1) if archive["sha256"] is not None]
    within: dict[str, Any] = {"containedIn": [{"@id": f"archive-{number}"} for number in certain]} if certain else {}
    return [
        {
            "@type": "cr:FileSet",
            "@id": f"pictures{suffix}",
            "name": f"pictures{suffix}",
            "description": "the pictures that `path` names",
            "encodingFormat": IMAGE_TYPES.get(suffix.lower(), "application/octet-stream"),
            "includes": f"**/*{suffix}",
            **within,
        }
        for suffix in suffixes
    ]


def _split_set(frame: pd.DataFrame) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "description": "the parts of the set",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [{"@type": "cr:Field", "@id": "splits/name", "name": "name", "dataType": "sc:Text"}],
        "data": [{"splits/name": split} for split in frame["split"].unique()],
    }


def _image_set(catalog: Catalog) -> dict[str, Any]:
    fields: list[dict[str, Any]] = [
        {
            "@type": "cr:Field",
            "@id": f"images/{name}",
            "name": name,
            "description": _FIELDS[name][1],
            "dataType": [_FIELDS[name][0], "cr:Label"] if name == "label" else _FIELDS[name][0],
            "source": {"fileObject": {"@id": "catalog"}, "extract": {"column": name}},
        }
        for name in _columns(catalog)
    ]
    for field in fields:
        if field["name"] == "split":
            field["references"] = {"field": {"@id": "splits/name"}}
    return {
        "@type": "cr:RecordSet",
        "@id": "images",
        "name": "images",
        "description": f"{len(catalog)} images of {catalog.frame['label'].nunique()} labels",
        "field": fields,
    }
