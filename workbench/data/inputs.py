"""The pictures that somebody wants an answer for: files, folders, tables with boxes and data cards, as one list."""

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workbench.data.box_frames import to_shown_frame
from workbench.data.boxes import Box, box_fault
from workbench.data.card import CardError
from workbench.data.catalog import open_catalog
from workbench.data.file_names import is_clutter, is_picture, say_clutter
from workbench.data.labels import as_label
from workbench.data.readers import coco
from workbench.data.readers.listing import few
from workbench.data.tables import TABLE_SUFFIXES, box_numbers, need_columns, open_table, size_numbers, texts

# HEIC is not read; such a file gets a line that says so instead of being passed over.
_REFUSED_SUFFIXES = (".heic", ".heif")


@dataclass(frozen=True, slots=True)
class Input:
    r"""One picture, or one box of it.

    Attributes:
        path: the file.
        name: what it is called in answers: the path as it was given. Bytes that are no UTF-8 stand as `\xff`.
        box: None is the whole picture.
        label: what the table or the card says it shows; None where they do not.
        fault: why there is nothing to look at, such as a box without width; "" where there is none.
    """

    path: Path
    name: str
    box: Box | None = None
    label: str | None = None
    fault: str = ""


def gather_inputs(
    given: Sequence[str], data_root: str | Path | None = None, split: str = "", domain: str = ""
) -> tuple[list[Input], list[str]]:
    """The inputs that the texts name, in their order, and notes about what was left out, one line each.

    A text is the path of a picture; of a folder, which is walked, its files sorted by path, clutter (see
    `file_names.is_clutter`) and those without a picture's suffix left out; of a table (`.csv`, `.tsv`, `.parquet`: a row a
    picture or a box, see `read_table`); of COCO annotations (`.json`: an annotation a box, see `readers.coco`); of a card
    (`.md`: its boxes, with its margin); or, where nothing lies at that path, the name of a data card, or several joined with
    `+`. What is named twice is there twice.

    Args:
        given: texts as above.
        data_root: where the set of a card lies (see `open_catalog`), and what the relative paths of a table or of COCO
            annotations start from, instead of the file's own folder.
        split: of cards, one split; "" is all.
        domain: of cards, one domain; "" is all.

    Raises:
        ValueError: nothing of that name, no picture in it, or a table or a card that cannot be read.
        OSError: a folder or a table that may not be read, or a set that is not here.
    """
    inputs: list[Input] = []
    notes: list[str] = []
    for text in given:
        path, num_said = Path(text), len(notes)
        if path.is_dir():
            found = _walk(path, text, notes)
        elif path.suffix.lower() in TABLE_SUFFIXES and path.is_file():
            found, more = read_table(path, data_root)
            notes += [f"{text}: {note}" for note in more]
        elif path.suffix.lower() == ".json" and path.is_file():
            found = _read_detections(path, data_root, notes)
        elif path.is_file() and path.suffix != ".md":
            found = [Input(path, _text(text))]
        else:
            found = _read_catalog(text, data_root, split, domain, notes)
        if not found:
            why = (
                f" ({'; '.join(note.removeprefix(f'{text}: ') for note in notes[num_said:])})"
                if notes[num_said:]
                else ""
            )
            raise ValueError(f"{text} holds no picture{why}; give a folder or a table that holds at least one.")
        inputs += found
    return inputs, notes


def read_table(path: Path, images_root: str | Path | None = None) -> tuple[list[Input], list[str]]:
    """The rows of a table, in order, and notes: a column `path`, and where there are boxes, `x`, `y`, `width` and `height`, px.

    The four numbers are those of the upright picture (EXIF's orientation applied), counted from its upper left corner; a row
    with none of the four is the whole picture. With `image_width` and `image_height` boxes of the stored picture are turned
    along (see `box_frames`). `label`, where there is one, is kept as text; CSV is read as UTF-8 and its labels as they stand
    ("00123"). Other columns are not looked at.

    Args:
        path: `.csv`, `.tsv` or `.parquet`.
        images_root: what relative paths start from; None is the table's folder.

    Raises:
        ValueError: not a table, no column `path`, some of the four box columns only, boxes under other names, a value that
            is no number, labels that are no text.
    """
    table = open_table(path)
    need_columns(table, ("path",), path)
    box_N4 = box_numbers(table, path)
    root = path.parent if images_root is None else Path(images_root)
    labels = texts(table["label"], path, "labels") if "label" in table else [None] * len(table)
    labels = [None if label is None else as_label(label) for label in labels]
    names = [name if isinstance(name, str) else "" for name in table["path"]]
    faults = [""] * len(table)
    notes: list[str] = []
    if box_N4 is not None:
        box_N4, faults, notes = to_shown_frame(box_N4, size_numbers(table, path), [root / name for name in names], path)
    inputs = []
    for row, (name, label) in enumerate(zip(names, labels, strict=True)):
        if not name:
            inputs.append(Input(root, "", label=label, fault=f"row {row + 1} of {path.name} has no path"))
            continue
        box, fault = (None, "") if box_N4 is None else _boxed(box_N4[row])
        inputs.append(Input(root / name, _text(name), box, label, fault or faults[row]))
    return inputs, notes


def _walk(folder: Path, text: str, notes: list[str]) -> list[Input]:
    files: list[Path] = []
    passed_over: list[Path] = []
    not_entered: list[str] = []
    clutter: list[str] = []

    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        clutter += filter(is_clutter, [*folders, *names])
        folders[:] = [name for name in folders if not is_clutter(name)]
        not_entered += [os.path.join(parent, name) for name in folders if os.path.islink(os.path.join(parent, name))]
        for name in names:
            if not is_clutter(name):
                is_asked = is_picture(name) or name.lower().endswith(_REFUSED_SUFFIXES)
                (files if is_asked else passed_over).append(Path(parent, name))
    if clutter:
        notes.append(f"{text}: {_text(say_clutter(clutter))}")
    if passed_over:
        names = [_text(path.name) for path in sorted(passed_over)]
        notes.append(f"{text}: {len(names)} files without a picture's suffix left out: {few(names)}")
    if not_entered:
        notes.append(f"{text}: linked folders are not walked: {few([_text(name) for name in sorted(not_entered)])}")
    return [Input(path, _text(str(path))) for path in sorted(files)]


def _read_detections(path: Path, images_root: str | Path | None, notes: list[str]) -> list[Input]:
    root = path.parent if images_root is None else Path(images_root)
    rows, left_out = coco.read_annotations(path)
    rows, turned = coco.turn_rows(rows, root, path)
    notes += [f"{path}: {note}" for note in [*left_out, *turned]]
    inputs = []
    for row in rows:
        box = None if row.fault else Box(*row.box)
        inputs.append(Input(root / row.file_name, _text(row.file_name), box, as_label(row.label), row.fault))
    return inputs


def _read_catalog(text: str, data_root: str | Path | None, split: str, domain: str, notes: list[str]) -> list[Input]:
    try:
        catalog = open_catalog(text, data_root)
    except CardError as error:
        if text.endswith(".md") and Path(text).is_file():
            raise
        folder = Path(text).parent
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        near = difflib.get_close_matches(Path(text).name, names, n=1)
        hint = f" Did you mean {folder / near[0]}?" if near else ""
        raise ValueError(f"There is no file, folder, table or data card {text!r}.{hint}") from error
    notes += catalog.notes
    catalog = catalog.select(split=split or None, domain=domain or None)
    frame = catalog.frame
    names = frame["path"].tolist()
    if len(catalog.cards) > 1:
        names = [f"{source}/{name}" for source, name in zip(frame["source"], names, strict=True)]
    rows = zip(catalog.pictures(), names, frame["label"].tolist(), strict=True)
    return [Input(picture.path, name, picture.box, label) for picture, name, label in rows]


def _boxed(number_4: np.ndarray) -> tuple[Box | None, str]:
    return (None if np.isnan(number_4).all() else Box(*map(float, number_4))), box_fault(number_4)


def _text(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
