"""Reader of DeepFashion's In-shop Clothes Retrieval Benchmark: `list_eval_partition.txt` and the folder `img`.

The list holds the number of images, then the header `image_name item_id evaluation_status`, then one line an image. It may lie
in the set's folder or in `Eval/`; the pictures in `img/` or, as some archives unpack, in `Img/img/`.

Source: Liu, Luo, Qiu, Wang, Tang, "DeepFashion: Powering Robust Clothes Recognition and Retrieval with Rich Annotations",
CVPR 2016.
"""

from pathlib import Path

import pandas as pd

from workbench.data.card import Card, card_options
from workbench.data.readers.fields import read_fields, read_lines, recognition_frame
from workbench.data.readers.listing import LayoutError, check_listed, check_paths

SPLITS = ("train", "query", "gallery")
_HEADER = ["image_name", "item_id", "evaluation_status"]
_LISTS = ("list_eval_partition.txt", "Eval/list_eval_partition.txt")
_PICTURES = ("", "Img/")


def find_fault(root: Path, card: Card) -> str | None:
    """What keeps `root` from being this set in one line, or None."""
    if not any((root / name).is_file() for name in _LISTS):
        return f"neither {_LISTS[0]} nor {_LISTS[1]}"
    if not any((root / prefix / "img").is_dir() for prefix in _PICTURES):
        return "neither a folder img nor a folder Img/img"
    return None


def read(root: Path, card: Card) -> pd.DataFrame:
    """One row an image: path, label, split, camera, group, domain, in the order of the list.

    The label is the item (`id_00000002`), `group` the folders of its kind (`WOMEN/Dresses`); splits are train, query, gallery.

    Raises:
        LayoutError: other head lines, a list that is shorter or longer than it says, a malformed line (with its number), an
            unknown status, a listed file that is not there.
        CardError: an option; this reader has none.
    """
    card_options(card, {})
    path = next(root / name for name in _LISTS if (root / name).is_file())
    head = read_lines(path).iloc[:2].str.split().tolist()
    if len(head) < 2 or not head[0][0].isdecimal() or head[1] != _HEADER:
        raise LayoutError(f"{path} does not begin with the number of images and the line '{' '.join(_HEADER)}'.")
    table = read_fields(path, ("path", "item_id", "status"), num_header_lines=2)
    if len(table) != int(head[0][0]):
        raise LayoutError(f"{path} says {head[0][0]} images and lists {len(table)}. Download it again.")
    unknown = table["status"][~table["status"].isin(SPLITS)]
    if len(unknown):
        raise LayoutError(
            f"{path}, line {unknown.index[0]}: wanted the status {', '.join(SPLITS)}, found {unknown.iloc[0]!r} "
            f"({len(unknown)} such lines)."
        )
    check_paths(table["path"].tolist())
    prefix = next(prefix for prefix in _PICTURES if (root / prefix / "img").is_dir())
    paths = prefix + table["path"]
    check_listed(root, paths.tolist(), path.name)
    group = table["path"].str.extract(r"^img/(.+)/[^/]+/[^/]+$")[0]
    return recognition_frame(paths, table["item_id"], table["status"], group)
