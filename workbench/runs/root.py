"""Where the workbench's folders are."""

import os
from pathlib import Path


def find_root() -> Path:
    """The workbench's root: `$WORKBENCH_ROOT`, else the nearest folder upwards with `data_cards/`.

    Upwards from the working folder first, then from this file, so that an installed checkout is found from anywhere.

    Raises:
        FileNotFoundError: neither holds; the message says what was tried.
    """
    stated = os.environ.get("WORKBENCH_ROOT")
    if stated:
        root = Path(stated).expanduser().resolve()
        if not (root / "data_cards").is_dir():
            raise FileNotFoundError(
                f"WORKBENCH_ROOT is {root}, which has no folder data_cards/; point it at a checkout."
            )
        return root
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / "data_cards").is_dir():
                return folder
    raise FileNotFoundError(
        f"No folder with data_cards/ at or above {Path.cwd()}; set WORKBENCH_ROOT to a checkout of the workbench."
    )


def outputs_folder() -> Path:
    """Where runs and caches go: `$WORKBENCH_OUTPUTS`, else `outputs/` in the root. Created when missing."""
    stated = os.environ.get("WORKBENCH_OUTPUTS")
    folder = Path(stated).expanduser().resolve() if stated else find_root() / "outputs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
