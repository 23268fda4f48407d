"""A draft of a data card: what can be counted and measured is filled in, what only a person can say is asked.

The draft is a card like any other: `card.read_card` reads it, and its counts are those of the files.
"""

import re
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from workbench.data.audit import check_measures, find_exact_duplicates, measure_images
from workbench.data.card import QUESTION, Card, resolve_path
from workbench.data.catalog import Catalog, open_catalog
from workbench.data.croissant import croissant_paths, write_croissant
from workbench.data.file_names import is_picture
from workbench.data.guidelines import MAX_BLUR
from workbench.data.readers.listing import few, scan
from workbench.runs.files import write_text

SPLIT_NAMES = {
    **{"train": "train", "training": "train"},
    **{"val": "val", "valid": "val", "validation": "val"},
    **{"test": "test", "testing": "test"},
    **{"query": "query", "queries": "query", "probe": "query"},
    **{"gallery": "gallery", "reference": "reference", "references": "reference"},
}
"""Names of folders, in small letters, that are taken for splits rather than classes."""

_HEAD = f"""\
# A draft. The counts were taken from the files; wherever {QUESTION} stands, a person has to answer. The meaning of each
# line is in data_cards/template.md. Check it with: python -m workbench data check CARD --data-root FOLDER
"""


def draft_card(catalog: Catalog, measures: pd.DataFrame | None = None) -> str:
    """The text of a draft card for a catalog of one set.

    The front matter carries what the set's own card says of reader, options, protocol, licence, source and layout, and the
    counts found in `catalog`. Where the card has no protocol, one is proposed from the splits that are there.

    Args:
        catalog: the whole set, not a part of it: the counts become the card's.
        measures: from `audit.measure_images` on this very catalog; None leaves sizes and duplicates as a question.

    Raises:
        ValueError: several sets at once, or measures of another catalog.
    """
    if len(catalog.cards) != 1:
        raise ValueError(f"A card describes one set; the catalog has {few(list(catalog.cards))}. Draft one at a time.")
    if measures is not None:
        check_measures(catalog, measures)
    (card,) = catalog.cards.values()
    counts = catalog.frame.groupby("split", sort=False).agg(images=("path", "size"), labels=("label", "nunique"))
    fields: dict[str, Any] = {"title": card.title, "task": card.task, "reader": card.reader}
    fields |= {"options": card.options} if card.options else {}
    fields |= {"margin": card.margin} if card.margin else {}
    fields["splits"] = {
        split: {"images": int(images), "labels": int(labels)} for split, images, labels in counts.itertuples()
    }
    protocol = card.protocol or _propose_protocol(card, catalog)
    fields |= {"protocol": protocol} if protocol else {}
    fields |= {"licence": card.licence, "citation": card.citation or f"{QUESTION} whom to cite?", "source": card.source}
    found = [
        *(note.removeprefix(f"{card.name}: ") for note in catalog.notes),
        *_find_issues(catalog, measures, protocol),
    ]
    issues = list(dict.fromkeys([*card.known_issues, *found]))
    layout = "\n".join(f"  {line}" for line in card.layout.splitlines())
    front = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)
    end = yaml.safe_dump({"known_issues": issues}, allow_unicode=True, width=110, default_flow_style=False)
    return f"---\n{_HEAD}{front}layout: |2-\n{layout}\n{end}---\n\n{_write_prose(catalog, measures, issues, bool(protocol))}"


def draft_folder(folder: str | Path, out: str | Path | None = None, measure: bool = False) -> list[Path]:
    """The files written for a folder of one's own: the draft card, its Croissant metadata and the table these speak of.

    Args:
        folder: class folders, or folders named like splits (`SPLIT_NAMES`) with class folders in them.
        out: the card to write, ending in .md; default: the folder's name, in the working folder.
        measure: decode every picture for sizes, blur and duplicates (some milliseconds each).

    Raises:
        FileExistsError: one of the files is there already; nothing is written then.
        ValueError: a folder that is not laid out like this; an `out` that does not end in .md.
    """
    folder = resolve_path(folder)
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}.")
    name = re.sub(r"[^\w.-]+", "_", folder.name) or "my_set"
    out = Path(out).expanduser() if out else Path(f"{name}.md")
    if out.suffix != ".md" or not re.fullmatch(r"[\w.-]+", out.stem):
        raise ValueError(f"The card {out} wants a name of letters, digits, '_', '-' and '.' that ends in .md.")
    taken = [path for path in (out, *croissant_paths(out)) if path.exists()]
    if taken:
        raise FileExistsError(
            f"{few([str(path) for path in taken])} is there already and is left as it is. Give --out."
        )
    options = guess_options(folder)
    with tempfile.TemporaryDirectory() as place:
        draft = Path(place) / out.name
        draft.write_text(_first_card(folder, options), encoding="utf-8")
        catalog = open_catalog(str(draft), folder)
        text = draft_card(catalog, measure_images(catalog)[0] if measure else None)
        draft.write_text(text, encoding="utf-8")
        catalog = open_catalog(str(draft), folder)  # the draft itself is read and held against the files
    write_text(out, text)
    return [out, *write_croissant(catalog, out)]


def guess_options(folder: Path) -> dict[str, Any]:
    """The options of the reader `image_folder` for a folder: its split folders, or one split `train` of class folders.

    Raises:
        ValueError: no folders in it; folders that may be splits or classes; two folders for one split.
    """
    _, names = scan(folder, folder)
    if not names:
        raise ValueError(
            f"{folder} has no folders. Wanted: one folder a class, or split folders with class folders in them."
        )
    splits = {name: SPLIT_NAMES[name.casefold()] for name in names if name.casefold() in SPLIT_NAMES}
    holders = [name for name in names if _holds_only_folders(folder / name, folder)]
    if len(splits) == len(names):
        loose = [name for name in names if name not in holders]
        if loose:
            raise ValueError(
                f"The split folders {few(loose)} of {folder} hold pictures, or nothing. Wanted: class folders in each."
            )
        if len(set(splits.values())) < len(splits):
            raise ValueError(
                f"Several of the folders {few(names)} stand for one split. Put them together, or rename one."
            )
        order = list(SPLIT_NAMES.values())
        return {
            "split_folders": {
                split: name for name, split in sorted(splits.items(), key=lambda item: order.index(item[1]))
            }
        }
    if any(name in holders for name in splits) or len(holders) == len(names):
        raise ValueError(
            f"Whether {few(names)} in {folder} are splits or classes cannot be told. Name split folders {few(list(SPLIT_NAMES), 20)} "
            "and keep nothing else beside them; or copy data_cards/template.md and say it there."
        )
    return {"split": "train"}


def _holds_only_folders(folder: Path, root: Path) -> bool:
    files, folders = scan(folder, root)
    return bool(folders) and not any(is_picture(name) for name in files)


def _first_card(folder: Path, options: dict[str, Any]) -> str:
    folders = options.get("split_folders", {"train": "."}).values()
    layout = [f"{name}/<class>/*" if name != "." else "<class>/*" for name in folders]
    fields = {
        "title": folder.name.encode("utf-8", "replace").decode(),
        "task": "recognition",
        "reader": "image_folder",
        "options": options,
        "licence": f"{QUESTION} under which licence, and who may see the pictures?",
        "source": f"{QUESTION} where do the pictures come from?",
        "layout": "\n".join(layout),
    }
    return f"---\n{yaml.safe_dump(fields, allow_unicode=True)}---\n"


def _propose_protocol(card: Card, catalog: Catalog) -> dict[str, Any]:
    """A protocol for the splits that are there; nothing where no two splits can be searched against each other."""
    splits = list(catalog.frame["split"].unique())
    query = next((name for name in ("query", "val", "test") if name in splits), None)
    found = next((name for name in ("reference", "gallery", "train") if name in splits), None)
    if query is None or found is None:
        return {}
    if card.task == "reid":
        return {"query_split": query, "gallery_split": found, "junk": "same_id_same_camera"}
    domains = catalog.frame.loc[catalog.frame["split"] == found, "domain"].unique()
    return {
        "reference_sets": [f"{found}:{domain}" for domain in domains],
        "query_split": query,
        "shots": [1, 2, 5, "all"],
    }


def _find_issues(catalog: Catalog, measures: pd.DataFrame | None, protocol: dict[str, Any]) -> list[str]:
    issues = []
    frame = catalog.frame
    references = [item.partition(":")[0] for item in protocol.get("reference_sets", [])] or [
        protocol.get("gallery_split")
    ]
    if "query_split" in protocol:
        queries = frame[frame["split"] == protocol["query_split"]]
        lost = queries[~queries["label"].isin(frame.loc[frame["split"].isin(references), "label"])]
        if len(lost):
            issues.append(
                f"{len(lost)} of {len(queries)} queries are of {lost['label'].nunique()} labels that no reference has."
            )
    if measures is None:
        return issues
    if len(measures) < len(catalog):
        issues.append(f"{len(catalog) - len(measures)} of {len(catalog)} pictures cannot be read.")
    groups = find_exact_duplicates(catalog, measures)
    if len(groups):
        issues.append(
            f"{groups['num_images'].sum()} pictures form {len(groups)} groups of identical files; "
            f"{groups['across_splits'].sum()} groups lie in several splits, {(~groups['same_label']).sum()} bear several labels."
        )
    return issues


def _write_prose(catalog: Catalog, measures: pd.DataFrame | None, issues: list[str], has_protocol: bool) -> str:
    frame, summary = catalog.frame, catalog.summary()
    sizes = frame["label"].value_counts()
    rows = [
        f"| {row.split} | {row.domain} | {row.num_images:,} | {row.num_labels:,} | {row.min_images_per_label} / "
        f"{row.median_images_per_label:g} / {row.max_images_per_label} |"
        for row in summary.itertuples()
    ]
    counted = "\n".join(
        ["| split | domain | images | labels | images a label: least / median / most |", "|---|---|---|---|---|", *rows]
    )
    few_images = (
        f"{(sizes == 1).sum()} of {len(sizes)} labels have a single image, {(sizes < 5).sum()} fewer than five."
    )
    found = "\n".join(f"- {issue}" for issue in issues) or "None was found by counting."
    measured = "Sizes, blur and duplicates have not been measured: notebook `01_audit_dataset` does."
    if measures is not None and len(measures):
        low, middle, high = measures["shorter_px"].quantile([0.05, 0.5, 0.95])
        measured = (
            f"Of {len(measures):,} pictures that can be read, the shorter side is {measures['shorter_px'].min()} px at least, "
            f"{middle:.0f} px in the median, {low:.0f} to {high:.0f} px for nine in ten. {measures['monochrome'].sum()} are "
            f"monochrome, {(measures['blur'] > MAX_BLUR).sum()} have a blur effect above {MAX_BLUR}."
        )
    asked = "what do the pictures show, and what does a label mean: a product, a size of it, a person, an animal?"
    if not has_protocol:
        asked += " Which split holds the references, which the queries? No two were found that could be searched."
    return f"""## What it is

{len(catalog):,} images of {len(sizes):,} labels, as found in the files:

{counted}

{few_images} {measured}

{QUESTION} {asked}

## How it was collected

{QUESTION} who took the pictures, where, when, with what? How were the labels given and checked? Are the references
taken like the queries?

## Sensitive content

{QUESTION} are there people, number plates, addresses, receipts? Did they agree? Who may see the files, and until when?

## What it must not be used for

{QUESTION} which decisions must not rest on it, and for what is it too small, too old or too one-sided?

## Known faults

{found}

{QUESTION} which labels are known to be wrong, and what is missing?
"""
