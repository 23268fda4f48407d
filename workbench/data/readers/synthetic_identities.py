"""Reader of the people that the workbench draws itself, in the layout of Market-1501."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from workbench.data.card import Card
from workbench.data.readers import market1501
from workbench.data.readers.listing import LayoutError


def draw(card: Card) -> Path:
    """The folder with the pictures of the card's options: drawn at the first call, taken from the cache afterwards."""
    # Imported here, because reading file names needs none of the drawing.
    from workbench.data.synthetic.identities import synthetic_folder

    return synthetic_folder(card.options)


def read(root: Path, card: Card) -> pd.DataFrame:
    """One row an image, as the reader of Market-1501 gives them, with the domain `synthetic`.

    Raises:
        LayoutError: a split folder is missing, empty or holds other files (a damaged cache).
    """
    missing = [name for name in market1501.SPLIT_FOLDERS.values() if not (root / name).is_dir()]
    try:
        if missing:
            raise LayoutError(f"{root} lacks the folders {', '.join(missing)}.")
        # The card's options say how the people are drawn; none of them is the layout's.
        return market1501.read(root, replace(card, options={})).assign(domain="synthetic")
    except LayoutError as error:
        raise LayoutError(f"{error} Remove the folder {root}; it is drawn anew.") from error
