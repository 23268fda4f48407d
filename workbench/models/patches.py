"""Which parts of two pictures match: cosines between the cells of a trunk's last maps, and who is each other's nearest.

Axes: C channels; h and w rows and columns of the query's map, P = h * w; y and x those of the reference's, R = y * x; M pairs.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from workbench.models.device import choose_device
from workbench.models.embedder import Embedder
from workbench.models.maps import patch_px


@dataclass(frozen=True, eq=False)
class PatchMatch:
    """What in a query's picture is found in a reference's picture, and the other way round.

    Attributes:
        heat_hw: float32, for each cell of the query the largest cosine to any cell of the reference, -1 to 1.
        heat_yx: the same for each cell of the reference.
        pair_M4: int64, a row a pair of mutual nearest neighbours: row and column in the query, row and column in the reference;
            the most similar pair first, equal ones in the order of the query's cells.
        similarity_M: float32, the cosine of each pair.
    """

    heat_hw: np.ndarray
    heat_yx: np.ndarray
    pair_M4: np.ndarray
    similarity_M: np.ndarray


def match_maps(query_Chw: torch.Tensor, reference_Cyx: torch.Tensor) -> PatchMatch:
    """Returns how the cells of two maps match by cosine. Of equally near cells the first in rows counts; a cell of zeros is 0 to all.

    Args:
        query_Chw: float, finite, at least one cell.
        reference_Cyx: the same with as many channels; another height and width are fine.

    Raises:
        ValueError: not three axes, no cell, two numbers of channels, or a value that is not finite.
    """
    shapes = [tuple(one.shape) for one in (query_Chw, reference_Cyx)]
    if any(len(shape) != 3 or 0 in shape for shape in shapes) or shapes[0][0] != shapes[1][0]:
        raise ValueError(f"Two maps [channels, rows, columns] of as many channels are wanted; found {shapes}.")
    if not (torch.isfinite(query_Chw).all() and torch.isfinite(reference_Cyx).all()):
        raise ValueError("A map has values that are not finite; check the embedder's weights.")
    query_PC, reference_RC = (
        torch.nn.functional.normalize(one.double().flatten(1).T, dim=1) for one in (query_Chw, reference_Cyx)
    )
    # rounded so that equal cells tie, whatever the order in which their products were summed
    cosine_PR = (query_PC @ reference_RC.T).clamp(-1, 1).float().cpu().numpy()
    nearest_P, nearest_R = cosine_PR.argmax(axis=1), cosine_PR.argmax(axis=0)
    mutual_M = np.flatnonzero(nearest_R[nearest_P] == np.arange(len(nearest_P)))
    similarity_M = cosine_PR[mutual_M, nearest_P[mutual_M]]
    order_M = np.argsort(-similarity_M, kind="stable")
    mutual_M = mutual_M[order_M]
    cells = [
        *np.unravel_index(mutual_M, shapes[0][1:]),
        *np.unravel_index(nearest_P[mutual_M], shapes[1][1:]),
    ]
    return PatchMatch(
        cosine_PR.max(axis=1).reshape(shapes[0][1:]),
        cosine_PR.max(axis=0).reshape(shapes[1][1:]),
        np.stack(cells, axis=1).astype(np.int64),
        similarity_M[order_M],
    )


def match_pictures(
    embedder: Embedder, query: Image.Image, reference: Image.Image, device: str = "auto"
) -> tuple[PatchMatch, np.ndarray, np.ndarray, str]:
    """Returns how two pictures match, both as the trunk sees them (uint8 [H, W, 3]), and what their cells are, in words.

    Cells are the patch tokens of a plain vision transformer after its final norm. A convolutional network has none: its last
    map before pooling is taken, whose cells see far more than the square they stand for; the words say so.

    Args:
        embedder: moved to `device` and set to evaluation mode; its head has no part in this.
        query: RGB, upright.
        reference: the same.
        device: auto, cpu, cuda, ...

    Raises:
        ValueError: a trunk that does not give its last map (see `Trunk.feature_map`).
    """
    chosen = choose_device(device)
    embedder = embedder.to(chosen).eval()
    seen = [embedder.preprocessing.apply(picture) for picture in (query, reference)]
    pixels = torch.from_numpy(np.stack(seen)).to(chosen)
    with torch.inference_mode():
        maps_NChw = embedder.trunk.feature_map(embedder.preprocessing.normalise(pixels)).float()
    match = match_maps(maps_NChw[0], maps_NChw[1])
    return match, seen[0], seen[1], _say_cells(embedder, match.heat_hw.shape)


def _say_cells(embedder: Embedder, shape: tuple[int, ...]) -> str:
    rows, columns = shape
    height, width = embedder.preprocessing.image_size
    patch = patch_px(embedder.trunk.tower)
    if patch is not None and (rows, columns) == (height // patch[0], width // patch[1]):
        return f"{rows} x {columns} patch tokens of {patch[0]} x {patch[1]} px, after the final norm"
    return f"{rows} x {columns} cells of the trunk's last map: it has no patch tokens, and each cell sees far more than its square"
