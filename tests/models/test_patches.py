"""Which parts match: against plain loops, and with a patch that was copied to another place."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from workbench.models.embedder import build_embedder
from workbench.models.patches import match_maps, match_pictures


def _cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    length = math.sqrt(float(one @ one)) * math.sqrt(float(other @ other))
    return float(one @ other) / length if length else 0.0


def _by_loops(query: torch.Tensor, reference: torch.Tensor) -> tuple[list[list[float]], list[list[int]]]:
    """The heat of the query, and the mutual pairs as sorted lists."""
    cells = [(row, column) for row in range(query.shape[1]) for column in range(query.shape[2])]
    others = [(row, column) for row in range(reference.shape[1]) for column in range(reference.shape[2])]
    table = [[_cosine(query[:, *cell], reference[:, *other]) for other in others] for cell in cells]
    nearest = [row.index(max(row)) for row in table]
    nearest_back = [
        [row[place] for row in table].index(max(row[place] for row in table)) for place in range(len(others))
    ]
    pairs = [[*cells[p], *others[r]] for p, r in enumerate(nearest) if nearest_back[r] == p]
    heat = [max(row) for row in table]
    width = query.shape[2]
    return [heat[start : start + width] for start in range(0, len(heat), width)], sorted(pairs)


@pytest.mark.parametrize(("shape", "other"), [((3, 4), (3, 4)), ((2, 5), (4, 1)), ((1, 1), (2, 3))])
def test_heat_and_pairs_are_those_of_plain_loops(shape: tuple[int, int], other: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(sum(shape))
    query, reference = (torch.randn(6, *one, generator=generator, dtype=torch.float64) for one in (shape, other))
    match = match_maps(query, reference)
    heat, pairs = _by_loops(query, reference)
    np.testing.assert_allclose(match.heat_hw, heat, atol=1e-6)
    np.testing.assert_allclose(match.heat_yx, _by_loops(reference, query)[0], atol=1e-6)
    assert sorted(match.pair_M4.tolist()) == pairs
    assert list(match.similarity_M) == sorted(match.similarity_M, reverse=True)
    for (row, column, other_row, other_column), similarity in zip(match.pair_M4, match.similarity_M, strict=True):
        expected = _cosine(query[:, row, column], reference[:, other_row, other_column])
        assert similarity == pytest.approx(expected, abs=1e-6)


def test_equal_cells_pair_with_the_first_and_a_cell_of_zeros_is_0_to_all() -> None:
    query = torch.tensor([[[1.0, 2.0, 0.0]], [[0.0, 0.0, 0.0]]])  # cells (1, 0), (2, 0), (0, 0)
    reference = torch.tensor([[[-1.0], [3.0]], [[0.0], [0.0]]])  # cells (-1, 0), (3, 0)
    match = match_maps(query, reference)
    assert match.heat_hw.tolist() == [[1.0, 1.0, 0.0]]
    assert match.heat_yx.tolist() == [[0.0], [1.0]]
    # Cell (0, 0) of the query and (1, 0) of the reference; the zeros are nearest to (-1, 0), whose nearest they are: 0 above -1.
    assert match.pair_M4.tolist() == [[0, 0, 1, 0], [0, 2, 0, 0]]
    assert match.similarity_M.tolist() == [1.0, 0.0]


def test_a_copied_patch_is_found_at_its_new_place() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(2))
    second[32:48, 0:16] = first[16:32, 48:64]  # from cell (1, 3) to cell (2, 0)
    embedder = build_embedder("timm:test_vit", "random", image_size=(64, 64))
    tower: Any = embedder.trunk.tower
    for block in tower.blocks:  # without attention and place, a token is a function of its patch alone
        torch.nn.init.zeros_(block.attn.proj.weight)
        torch.nn.init.zeros_(block.attn.proj.bias)
    torch.nn.init.zeros_(tower.pos_embed)
    match, seen, other, words = match_pictures(embedder, Image.fromarray(first), Image.fromarray(second), "cpu")
    assert match.pair_M4[0].tolist() == [1, 3, 2, 0]
    assert match.similarity_M[0] == pytest.approx(1, abs=1e-5)
    assert match.heat_hw[1, 3] == match.heat_hw.max()
    assert match.heat_yx[2, 0] == match.heat_yx.max()
    assert np.sort(match.heat_hw.ravel())[-2] < 0.999
    assert words == "4 x 4 patch tokens of 16 x 16 px, after the final norm"
    assert np.array_equal(seen, first)
    assert np.array_equal(other, second)


def test_a_convnet_says_that_it_has_no_patch_tokens() -> None:
    embedder = build_embedder("timm:test_resnet", "random", image_size=(64, 64))
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    match, _, _, words = match_pictures(embedder, picture, picture, "cpu")
    assert "it has no patch tokens" in words
    rows, columns = match.heat_hw.shape
    assert words.startswith(f"{rows} x {columns} cells")
    np.testing.assert_allclose(match.heat_hw, 1, atol=1e-6)  # every cell finds itself
    assert match.pair_M4[:, :2].tolist() == match.pair_M4[:, 2:].tolist()


@pytest.mark.parametrize(
    ("query", "reference", "said"),
    [
        (torch.ones(3, 2, 2), torch.ones(4, 2, 2), "as many channels"),
        (torch.ones(3, 2, 2), torch.ones(3, 0, 2), "as many channels"),
        (torch.ones(3, 2), torch.ones(3, 2), "rows, columns"),
        (torch.full((3, 1, 1), math.nan), torch.ones(3, 1, 1), "not finite"),
    ],
)
def test_maps_that_cannot_be_compared_are_refused(query: torch.Tensor, reference: torch.Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        match_maps(query, reference)
