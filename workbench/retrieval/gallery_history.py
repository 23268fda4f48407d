"""What changed a gallery, when and why: a short list that its folder keeps beside the references."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from workbench.runs.folder import utc_now

# So that the manifest stays readable: a label beyond is counted, a change beyond is known from the version alone.
NUM_CHANGES_KEPT = 100
NUM_LABELS_SHOWN = 20


def append_change(
    history: list[dict[str, Any]], version: int, added: Sequence[str], removed: Sequence[str], comment: str
) -> list[dict[str, Any]]:
    """Returns the history with one change more, at most the last 100 changes; JSON values only.

    A change is `version` (after it), `at` (UTC, ISO 8601), `num_added` and `num_removed` (references), `num_labels` (touched
    by it), `labels` (the first 20 of them with their number of references, in the order given) and `comment`.

    Args:
        history: the changes so far, the oldest first; left as it is.
        version: the gallery's version after the change.
        added: the label of each reference that was added.
        removed: the label of each reference that was removed.
        comment: why, in the words of who did it, as `check_comment` takes it; may be empty.
    """
    touched = Counter([*added, *removed])
    change = {
        "version": version,
        "at": utc_now(),
        "num_added": len(added),
        "num_removed": len(removed),
        "num_labels": len(touched),
        "labels": dict(list(touched.items())[:NUM_LABELS_SHOWN]),
        "comment": comment,
    }
    return [*history, change][-NUM_CHANGES_KEPT:]


def check_comment(comment: str) -> str:
    """Returns the comment.

    Raises:
        TypeError: it is no text.
        ValueError: it cannot be written as UTF-8.
    """
    if not isinstance(comment, str):
        raise TypeError(f"A comment is text, found {comment!r} ({type(comment).__name__}); use str.")
    try:
        comment.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"The comment {comment!r} cannot be written as UTF-8.") from error
    return comment


def history_table(history: list[dict[str, Any]]) -> pd.DataFrame:
    """Returns one row a change, the oldest first, to read: version, at, added, removed, labels ("a (3), b (1)"), comment."""
    rows = []
    for change in history:
        more = change["num_labels"] - len(change["labels"])
        labels = [f"{label} ({count})" for label, count in change["labels"].items()]
        rows.append(
            {
                "version": change["version"],
                "at": change["at"],
                "added": change["num_added"],
                "removed": change["num_removed"],
                "labels": ", ".join(labels + ([f"and {more:,} more"] if more else [])),
                "comment": change["comment"],
            }
        )
    return pd.DataFrame(rows, columns=["version", "at", "added", "removed", "labels", "comment"])
