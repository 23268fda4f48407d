"""The pictures that a benchmark of networks is timed on."""

import numpy as np

from workbench.data.catalog import Catalog
from workbench.data.images import ImageError, load_image
from workbench.models.preprocessing import Preprocessing


def usable_pictures(
    catalog: Catalog, preprocessing: Preprocessing, num_images: int | None = None
) -> tuple[Catalog, np.ndarray]:
    """The images that can be decoded, in order, and what the trunk sees of them, uint8 [N, H, W, 3].

    Args:
        catalog: images that cannot be used are left out: they take no time of a network.
        preprocessing: of the trunk.
        num_images: at most so many; None is all.

    Raises:
        ValueError: none can be used.
    """
    rows: list[int] = []
    inputs: list[np.ndarray] = []
    for row, picture in enumerate(catalog.pictures()):
        if len(rows) == num_images:
            break
        try:
            inputs.append(preprocessing.apply(load_image(picture, target_px=preprocessing.decode_px)))
        except ImageError:
            continue
        rows.append(row)
    if not rows:
        raise ValueError(f"None of the {len(catalog)} images can be decoded, so that nothing can be timed.")
    return catalog.take(np.array(rows)), np.stack(inputs)
