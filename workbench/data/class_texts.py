"""What a data set says of its classes in words: readable names, groups and descriptions, or why there are none."""

import re
from collections.abc import Mapping

from workbench.data.catalog import Catalog
from workbench.data.labels import as_label
from workbench.data.locate import reader_of
from workbench.data.readers.listing import few


class NoClassNamesError(ValueError):
    """The labels of a set are ids, and nothing says in words what they are."""


def read_class_names(catalog: Catalog, names: Mapping[str, str] | None = None) -> dict[str, str]:
    """A readable name of each label of the catalog: `Royal-Gala` becomes "Royal Gala".

    A source's own prefix (`source/label`, where sets are put together) is left out, `-` and `_` become blanks, and case
    stays as it is.

    Args:
        catalog: images of the classes in question.
        names: of labels, where the labels themselves are ids; it must have all of them.

    Raises:
        NoClassNamesError: a set of individuals, or labels that are ids: without a word, or more than two of which
            half or more are told apart by digits alone.
        ValueError: `names` lacks a label.
    """
    labels = sorted(set(catalog.labels))
    if names is not None:
        names = {as_label(label): name for label, name in names.items()}
        missing = [label for label in labels if not str(names.get(label, "")).strip()]
        if missing:
            raise ValueError(f"names has none for {len(missing)} labels: {few(missing)}.")
        return {label: str(names[label]).strip() for label in labels}
    individuals = [name for name, card in catalog.cards.items() if card.task == "reid"]
    if individuals:
        raise NoClassNamesError(
            f"The labels of {', '.join(individuals)} are individuals, which no text names: there is nothing to ask with."
        )
    read = {label: _readable(label, catalog) for label in labels}
    wordless = [label for label in labels if not re.search(r"[^\W\d_]{2,}", read[label])]
    without_digits = {re.sub(r"\d+", "", name).strip().lower() for name in read.values()}
    if wordless or (len(labels) > 2 and len(without_digits) <= len(labels) / 2):
        raise NoClassNamesError(
            f"The labels are ids and not names ({few(wordless or labels)}), and nothing says in words what they are. "
            "Give names: a mapping from each label to what the product is called."
        )
    return read


def read_class_groups(catalog: Catalog) -> dict[str, str]:
    """The readable group (coarse class) of each label that has one."""
    known = catalog.frame.dropna(subset="group").drop_duplicates("label")
    return {label: re.sub(r"[-_]+", " ", group) for label, group in zip(known["label"], known["group"], strict=True)}


def read_class_descriptions(catalog: Catalog) -> dict[str, str]:
    """The description of each label that its set describes (GroceryStoreDataset does); empty where none does."""
    labels = set(catalog.labels)
    found = {}
    for source, card in catalog.cards.items():
        reader = reader_of(card)
        if hasattr(reader, "read_descriptions"):
            for label, text in reader.read_descriptions(catalog.roots[source]).items():
                for name in (as_label(label), f"{source}/{as_label(label)}"):
                    if name in labels:
                        found[name] = text
    return found


def _readable(label: str, catalog: Catalog) -> str:
    for source in catalog.cards:
        label = label.removeprefix(f"{source}/")
    return re.sub(r"[-_\s]+", " ", label).strip()
