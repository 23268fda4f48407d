"""Reader of a user's own pictures: one folder a class, with or without a folder a split above them.

Options of the card: `split_folders` ({split: folder}), or `split` (the only split's name when there are no split
folders, default `train`), and `domains` ({split: real | synthetic | packshot}, default real).
"""

from pathlib import Path

import pandas as pd

from workbench.data.card import DOMAINS, Card, card_error, check_keys
from workbench.data.file_names import IMAGE_SUFFIXES, is_picture
from workbench.data.readers.listing import LayoutError, check_link, check_paths, few, scan, text_column

# Notes that people keep beside their pictures. Any other unknown file is an error, so that no picture is lost in silence.
SIDECAR_SUFFIXES = (".txt", ".md", ".json", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".html", ".pdf", ".db")


def find_fault(root: Path, card: Card) -> str | None:
    """What keeps `root` from being this set in one line, or None."""
    folders = _split_folders(card)
    if not any((root / folder).is_dir() for folder in folders.values()):
        return f"none of the folders {', '.join(folders.values())}"
    return None


def read(root: Path, card: Card) -> pd.DataFrame:
    """One row an image: path, label, split, camera, group, domain, sorted by split (the card's order), label, path.

    The label is the name of the class folder; pictures in folders below it belong to it too. Camera and group are
    empty. A class may have a single picture. Split folders that are not there are left out.

    Raises:
        LayoutError: nothing there; a split without class folders; a class folder without a picture; pictures
            outside a class folder; files that are neither pictures nor notes; links that leave `root`.
        CardError: an unknown option, or a split folder or domain that cannot be.
    """
    folders = _split_folders(card)
    domains = card.options.get("domains") or {}
    paths: list[str] = []
    labels: list[str] = []
    splits: list[str] = []
    for split, folder in folders.items():
        base = root / folder
        if not base.is_dir():
            continue
        if base != root:
            check_link(base, root)
        prefix = "" if folder == "." else f"{folder}/"
        loose, classes = scan(base, root)
        pictures = [name for name in loose if is_picture(name)]
        if pictures:
            raise LayoutError(
                f"{len(pictures)} pictures in {base} are in no class folder: {few(pictures)}. "
                "Wanted: one folder a class, its name being the label."
            )
        if not classes:
            raise LayoutError(f"{base} is empty. Wanted: one folder a class, with pictures in it.")
        for label in classes:
            found = pictures_below(root, f"{prefix}{label}")
            if not found:
                raise LayoutError(f"The class folder {few([str(base / label)])} has no picture. Fill or remove it.")
            paths += found
            labels += [label] * len(found)
            splits += [split] * len(found)
    return pd.DataFrame(
        {
            "path": text_column(paths, "file names"),
            "label": text_column(labels, "class folders"),
            "split": pd.Series(splits, dtype="str"),
            "camera": pd.Series(pd.NA, index=range(len(paths)), dtype="Int64"),
            "group": pd.Series(None, index=range(len(paths)), dtype="str"),
            "domain": pd.Series([domains.get(split, "real") for split in splits], dtype="str"),
        }
    )


def _split_folders(card: Card) -> dict[str, str]:
    try:
        check_keys(card.options, ("split_folders", "split", "domains"), "option")
        folders = card.options.get("split_folders") or {str(card.options.get("split", "train")): "."}
        if not isinstance(folders, dict):
            raise ValueError("the option 'split_folders' is not a mapping {split: folder}.")
        folders = {str(split): str(folder).strip("/") or "." for split, folder in folders.items()}
        check_paths([str(folder) for folder in (card.options.get("split_folders") or {}).values()])
        domains = card.options.get("domains") or {}
        if not isinstance(domains, dict):
            raise ValueError("the option 'domains' is not a mapping {split: domain}.")
        check_keys(domains, list(folders), "split in the option 'domains':")
        check_keys(list(domains.values()), DOMAINS, "domain")
    except ValueError as error:
        raise card_error(card, error) from error
    return folders


def pictures_below(root: Path, class_folder: str) -> list[str]:
    """The pictures in a folder of the set and in those below it: paths relative to `root`, sorted.

    Raises:
        LayoutError: files that are neither pictures nor notes, links that leave `root`.
    """
    pictures: list[str] = []
    unknown: list[str] = []
    folders = [class_folder]
    while folders:
        folder = folders.pop()
        files, below = scan(root / folder, root)
        folders += [f"{folder}/{name}" for name in below]
        for name in files:
            if is_picture(name):
                pictures.append(f"{folder}/{name}")
            elif not name.lower().endswith(SIDECAR_SUFFIXES):
                unknown.append(f"{folder}/{name}")
    if unknown:
        raise LayoutError(
            f"{len(unknown)} files in {root} are neither pictures ({', '.join(IMAGE_SUFFIXES)}) nor notes: "
            f"{few(unknown)}. Convert or remove them."
        )
    return sorted(pictures)
