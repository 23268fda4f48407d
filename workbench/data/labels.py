"""Labels as text: one Unicode form of each, those that look alike, and how names that look alike are shown."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import pandas as pd


def as_label(text: str) -> str:
    """The text in Unicode's composed form (NFC), which every label has here, wherever it comes from; blanks and case stay.

    macOS writes "é" in names of files and folders as two signs (NFD), keyboards as one: the same product to every reader, and
    two classes to a comparison of bytes.

    Source: Unicode Standard Annex 15, "Unicode Normalization Forms": canonically equivalent texts are the same text.
    """
    return unicodedata.normalize("NFC", text)


def join_forms(column: pd.Series) -> tuple[pd.Series, list[str]]:
    """The column of texts with each as `as_label` gives it, and a note for those that were there in several forms.

    Missing values stay missing.
    """
    given = column.dropna().unique()
    label_of = {text: as_label(text) for text in given}
    forms: dict[str, list[str]] = {}
    for text, label in label_of.items():
        forms.setdefault(label, []).append(text)
    joined = [f"{label} ({', '.join(map(ascii, texts))})" for label, texts in forms.items() if len(texts) > 1]
    notes = [f"{len(joined)} {column.name}s are there in several Unicode forms and joined: {'; '.join(joined[:5])}"]
    return column.map(label_of).astype("str") if len(given) else column, notes if joined else []


def look_alikes(labels: Iterable[str]) -> list[list[str]]:
    """Groups of different labels that are the same but for case, blanks or the form of a sign ("ｍ" and "m"), each sorted.

    Source: Unicode Standard Annex 15, form NFKC, then case folding; runs of blanks count as one, at the ends as none.
    """
    groups: dict[str, list[str]] = {}
    for label in sorted(set(labels)):
        groups.setdefault(" ".join(unicodedata.normalize("NFKC", label).casefold().split()), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def shown(names: Sequence[object]) -> list[str]:
    """The names as a message shows them: as they are, unless that would mislead.

    Empty ones, those with blanks at an end and those with signs that cannot be seen are quoted; where two look the same, their
    code points are shown.
    """
    texts = [str(name) for name in names]
    forms = Counter(as_label(text) for text in set(texts))
    return [
        ascii(text)
        if forms[as_label(text)] > 1
        else repr(text)
        if text != text.strip() or not text or not text.isprintable()
        else text
        for text in texts
    ]
