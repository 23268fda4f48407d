"""The catalog: which images there are, one row each, and what is known of them without opening one."""

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from workbench.data.boxes import BOX_COLUMNS, Box, boxes_of, widen_boxes
from workbench.data.card import Card, CardError, read_card, resolve_path
from workbench.data.catalog_cache import read_or_reuse
from workbench.data.checks import check_counts, check_rows
from workbench.data.file_names import say_clutter
from workbench.data.images import Picture, say_box
from workbench.data.labels import as_label, join_forms
from workbench.data.locate import find_data_root, reader_of
from workbench.data.readers.listing import LayoutError, few, left_out
from workbench.runs.root import outputs_folder

COLUMNS = ("path", "label", "split", "camera", "group", "domain", "source")
# Labels with a meaning of their own in re-identification sets, and there alone: a product may be called "0" or "-1".
# Source: Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015: -1 is junk, 0 a distractor.
JUNK_LABEL = "-1"
DISTRACTOR_LABEL = "0"


@dataclass(frozen=True, eq=False)
class Catalog:
    """Images of one data set or of several.

    Attributes:
        frame: one row an image, index 0 to N-1, columns `path` (relative to its source's root, parts joined by `/`),
            `label` (SKU or identity, text, see `labels.as_label`), `split`, `camera` (Int64, missing where there is none),
            `group` (coarse class or encounter, missing where there is none), `domain` (real, synthetic, packshot), `source`
            (the card's name), and `box_x`, `box_y`, `box_width`, `box_height` (float64, px of the upright picture, the card's
            margin included; all four missing where the row is the whole picture). A file has as many rows as boxes.
        roots: the folder of each source, absolute.
        cards: the card of each source.
        missing_splits: the splits of each source that its card names and that are not here.
        notes: what the readers left out, one line each.
    """

    frame: pd.DataFrame
    roots: dict[str, Path]
    cards: dict[str, Card]
    missing_splits: dict[str, list[str]]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def labels(self) -> np.ndarray:
        """The label of each image: [N], object array of str."""
        return self.frame["label"].to_numpy(dtype=object)

    @property
    def is_nobody(self) -> np.ndarray:
        """Whether each image shows junk or a distractor, bool [N]: the card's task says that only re-identification has them."""
        return _is_nobody(self.frame, self.cards)

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) of the rows' content in their order; the same on every machine and for every row index.

        Boxes count only where there is one, so that a set without boxes keeps the fingerprint it had before boxes.
        """
        digest = hashlib.sha256()
        for name in COLUMNS:
            column = self.frame[name]
            missing = column.isna().to_numpy()
            texts = column.astype("str").mask(missing, "").to_numpy(dtype=object)
            num_characters = np.fromiter(map(len, texts), dtype="<i8", count=len(texts))
            num_characters[missing] = -1
            digest.update(f"{name}:{len(texts)}:".encode())
            digest.update(num_characters.tobytes())
            digest.update("".join(texts).encode("utf-8"))
        box_N4 = boxes_of(self.frame)
        if box_N4 is not None:
            box_N4 = np.where(np.isnan(box_N4), np.nan, box_N4 + 0.0)  # one bit pattern for NaN and one for zero
            digest.update(f"boxes:{len(box_N4)}:".encode() + box_N4.astype("<f8").tobytes())
        return digest.hexdigest()

    def select(
        self,
        split: str | Sequence[str] | None = None,
        domain: str | Sequence[str] | None = None,
        label: str | Sequence[str] | None = None,
    ) -> "Catalog":
        """The images of the given splits, domains and labels (each one name, several, or None for all), in order.

        Raises:
            ValueError: a split, domain or label that no image has, or a combination that no image has.
        """
        keep = np.ones(len(self), dtype=bool)
        for name, wanted in (("split", split), ("domain", domain), ("label", label)):
            if wanted is None:
                continue
            values = [wanted] if isinstance(wanted, str) else list(wanted)
            values = list(map(as_label, values)) if name == "label" else values
            for value in values:
                if not (self.frame[name] == value).any():
                    raise ValueError(self._unknown(name, str(value)))
            keep &= self.frame[name].isin(values).to_numpy()
        if not keep.any():
            pairs = self.frame[["split", "domain"]].drop_duplicates().itertuples(index=False)
            raise ValueError(
                f"No image has split {split!r}, domain {domain!r} and label {label!r} at once. Splits and domains there "
                f"are: {', '.join(f'{pair.split}:{pair.domain}' for pair in pairs)}."
            )
        return self.take(np.flatnonzero(keep))

    def take(self, rows: np.ndarray) -> "Catalog":
        """The images at the given rows ([M] integers, 0 to N-1), in that order; rows may repeat, M may be 0.

        Raises:
            IndexError: rows that are not whole numbers within the catalog. A negative row is refused, because an index
                that answers "none" with -1 would silently mean the last image.
        """
        rows = np.asarray(rows)
        if rows.size == 0:
            rows = rows.astype(np.int64)
        if (
            rows.ndim != 1
            or rows.dtype.kind not in "iu"
            or (rows.size and not 0 <= rows.min() <= rows.max() < len(self))
        ):
            raise IndexError(f"Rows must be whole numbers from 0 to {len(self) - 1}; found {rows!r}.")
        return replace(self, frame=self.frame.iloc[rows].reset_index(drop=True))

    def thin(self, num_labels: int, num_images: int) -> "Catalog":
        """A small part for a trial run: of each split at most `num_labels` labels, of each at most `num_images` images.

        Labels that most splits have come first, then by name, so that queries keep their references; the images of a
        split, domain and label are taken in their order.
        """
        splits_by_label = self.frame.groupby("label")["split"].nunique()
        order = sorted(splits_by_label.index, key=lambda label: (-splits_by_label[label], label))
        place = self.frame["label"].map({label: number for number, label in enumerate(order)})
        rank = place.groupby(self.frame["split"]).rank(method="dense")
        count = self.frame.groupby(["split", "domain", "label"]).cumcount()
        return self.take(np.flatnonzero(((rank <= num_labels) & (count < num_images)).to_numpy()))

    def pictures(self) -> list[Picture]:
        """What each row shows, in order: the file's absolute path, and the box where there is one."""
        return [Picture(path, box) for path, box in zip(self.image_paths(), self._boxes(), strict=True)]

    def names(self) -> np.ndarray:
        """What each row is called in tables: its path, a box behind it where there is one; object array of str [N].

        Two rows of one source never have the same name.
        """
        paths = self.frame["path"].to_numpy(dtype=object)
        if boxes_of(self.frame) is None:
            return paths
        return np.array([path + say_box(box) for path, box in zip(paths, self._boxes(), strict=True)], dtype=object)

    def image_paths(self) -> list[Path]:
        """The absolute path of each row's file, in order; what is to be looked at is in `pictures`."""
        roots = {source: str(root) for source, root in self.roots.items()}
        pairs = zip(self.frame["source"].tolist(), self.frame["path"].tolist(), strict=True)
        return [Path(f"{roots[source]}/{path}") for source, path in pairs]

    def summary(self) -> pd.DataFrame:
        """One row a source, split and domain, in the order of the images.

        Columns: source, split, domain, num_images, num_labels, num_cameras, and min_, median_ and
        max_images_per_label. Junk and distractors count as one label each.
        """
        keys = ["source", "split", "domain"]
        groups = self.frame.groupby(keys, sort=False)
        table = groups.agg(
            num_images=("path", "size"), num_labels=("label", "nunique"), num_cameras=("camera", "nunique")
        )
        sizes = self.frame.groupby([*keys, "label"], sort=False).size().groupby(level=keys, sort=False)
        for name in ("min", "median", "max"):
            table[f"{name}_images_per_label"] = sizes.agg(name)
        return table.reset_index()

    def _boxes(self) -> list[Box | None]:
        box_N4 = boxes_of(self.frame)
        if box_N4 is None:
            return [None] * len(self)
        whole_N = np.isnan(box_N4).all(axis=1)
        return [None if whole else Box(*box) for box, whole in zip(box_N4.tolist(), whole_N.tolist(), strict=True)]

    def _unknown(self, name: str, value: str) -> str:
        there = [str(item) for item in self.frame[name].unique()]
        lacking = [source for source, splits in self.missing_splits.items() if value in splits]
        if name == "split" and lacking:
            return (
                f"The split {value!r} of {', '.join(lacking)} is not among the files. Splits there are: {few(there)}."
            )
        near = difflib.get_close_matches(value, there, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"No image has the {name} {value!r}.{hint} There are: {few(there, 20)}."


def open_catalog(data: str, data_root: str | Path | None = None, *, cache: Path | None = None) -> Catalog:
    """The catalog of a data set, or of several joined with `+`, counted against their cards.

    Where sets are put together, a label that several of them have becomes `source/label` in each of them (junk and
    distractors of re-identification sets stay as they are); domains and groups are kept.

    Args:
        data: the name of a card, the path of a card (`.md`), or several of these joined with `+`.
        data_root: the folder of the set, or a folder that holds one of the set's name. Default: see `find_data_root`.
        cache: folder where the rows of large sets are kept (see `catalog_cache`); None is `cache/catalogs` in the outputs folder.

    Raises:
        CardError: no such card, one that cannot be read, or a margin where there is no box.
        MissingDataError: the set is in none of the places where it was looked for.
        LayoutError: the files are not as the reader wants them, an image (or a box of it) is there twice, a label is
            empty, or a box is none.
        CountMismatch: a split has other counts than its card says.
        ValueError: the same set twice.
    """
    cards = [read_card(name) for name in _split_names(data)]
    names = [card.name for card in cards]
    if len(set(names)) < len(names):
        raise ValueError(
            f"{data!r} names a set twice: {', '.join(names)}. Each set of a mixture wants a name of its own."
        )
    roots = {card.name: find_data_root(card, data_root) for card in cards}
    kept = cache or outputs_folder() / "cache" / "catalogs"
    read = [_read_frame(card, roots[card.name], kept) for card in cards]
    frames = [frame for frame, _ in read]
    frame = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    if len(cards) > 1:
        _check_overlap(frame, roots)
        frame["label"] = _separate_labels(frame, cards)
    return Catalog(
        frame=frame,
        roots=roots,
        cards={card.name: card for card in cards},
        missing_splits={card.name: _missing_splits(card, part) for card, part in zip(cards, frames, strict=True)},
        notes=tuple(f"{card.name}: {note}" for card, (_, notes) in zip(cards, read, strict=True) for note in notes),
    )


def _split_names(data: str) -> list[str]:
    if data.endswith(".md") and resolve_path(data).is_file():
        return [data]
    names = [name.strip() for name in data.split("+")]
    if not all(names):
        raise ValueError(
            f"{data!r} does not name a data set. Wanted: a card's name or path, or several joined with '+'."
        )
    return names


def _read_frame(card: Card, root: Path, cache: Path) -> tuple[pd.DataFrame, list[str]]:
    """The checked rows of one set, and what its reader says about what it left out."""
    frame, notes = read_or_reuse(card, root, lambda: _read_rows(card, root), cache)
    check_counts(frame, card)
    if card.margin:
        box_N4 = boxes_of(frame)
        if box_N4 is None:
            raise CardError(f"The card {card.path} has a margin of {card.margin:g}, and no image of its set has a box.")
        frame[list(BOX_COLUMNS)] = widen_boxes(box_N4, card.margin)
    return frame, notes


def _read_rows(card: Card, root: Path) -> tuple[pd.DataFrame, list[str]]:
    with left_out() as clutter:
        frame: pd.DataFrame = reader_of(card).read(root, card)
    notes, frame.attrs = [*frame.attrs.get("notes", []), *filter(None, [say_clutter(clutter)])], {}
    if frame.empty:
        why = f" ({'; '.join(notes)})" if notes else ""
        raise LayoutError(f"{root} holds no image of {card.name!r}{why}. Layout wanted:\n{card.layout}")
    for name in ("label", "group"):
        frame[name], joined = join_forms(frame[name])
        notes += joined
    unboxed = {name: np.nan for name in BOX_COLUMNS if name not in frame.columns}
    frame = frame.assign(source=card.name, **unboxed)[[*COLUMNS, *BOX_COLUMNS]]
    types = {name: "Int64" if name == "camera" else "str" for name in COLUMNS} | dict.fromkeys(BOX_COLUMNS, "float64")
    frame = frame.astype(types).reset_index(drop=True)
    check_rows(frame, card)
    return frame, notes


def _missing_splits(card: Card, frame: pd.DataFrame) -> list[str]:
    wanted = dict.fromkeys([*card.splits, *(card.options.get("split_folders") or {})])
    found = set(frame["split"].unique())
    return [split for split in wanted if split not in found]


def _check_overlap(frame: pd.DataFrame, roots: dict[str, Path]) -> None:
    files = frame[["source", "path"]].drop_duplicates()  # a file of one set may have many boxes
    places = files["source"].map({name: str(root) for name, root in roots.items()}) + "/" + files["path"]
    twice = places[places.duplicated()]
    if len(twice):
        raise LayoutError(f"{len(twice)} images belong to several of {', '.join(roots)}: {few(list(twice))}.")


def _is_nobody(frame: pd.DataFrame, cards: dict[str, Card]) -> np.ndarray:
    reid = [source for source, card in cards.items() if card.task == "reid"]
    return (frame["label"].isin([JUNK_LABEL, DISTRACTOR_LABEL]) & frame["source"].isin(reid)).to_numpy()


def _separate_labels(frame: pd.DataFrame, cards: list[Card]) -> pd.Series:
    special = _is_nobody(frame, {card.name: card for card in cards})
    pairs = frame.loc[~special, ["source", "label"]].drop_duplicates()
    shared = pairs["label"][pairs["label"].duplicated()].unique()
    taken = frame["label"][special].unique()
    collides = ~special & (frame["label"].isin(shared) | frame["label"].isin(taken))
    labels = frame["label"].mask(collides, frame["source"] + "/" + frame["label"])
    clash = set(labels[collides].unique()) & set(frame["label"].unique())
    if clash:
        raise ValueError(f"Labels cannot be told apart: {few(sorted(clash))} exist with and without the set's name.")
    return labels
