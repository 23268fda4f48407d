from dataclasses import replace
from pathlib import Path

import pytest

from workbench.data.card import CardError, list_cards, read_card
from workbench.data.image_size import small_size
from workbench.runs.root import find_root


# of some 8,192 pixels: people 2:1; vehicles sqrt(8192) = 90.5, to a multiple of 16; antelopes 84.7 x 96.8
@pytest.mark.parametrize(
    ("name", "size"),
    [
        *((name, (128, 64)) for name in ("market1501", "msmt17", "aicity_reid", "synthetic_identities")),
        ("veri776", (96, 96)),
        ("nyala_market1501", (80, 96)),
        ("grocery_store", (96, 96)),  # says none: a square
    ],
)
def test_each_set_is_shown_in_its_shape(name: str, size: tuple[int, int]) -> None:
    assert small_size(read_card(name)) == size


def test_every_card_of_individuals_says_the_shape() -> None:
    silent = [card.name for card in list_cards() if card.task == "reid" and "image_size" not in card.protocol]
    assert silent == []


@pytest.mark.parametrize(("shape", "size"), [([1, 1000], (16, 2864)), ([7, 7], (96, 96)), ([4000, 2000], (128, 64))])
def test_extreme_shapes_keep_whole_steps(shape: list[int], size: tuple[int, int]) -> None:
    assert small_size(replace(read_card("market1501"), protocol={"image_size": shape})) == size


@pytest.mark.parametrize(
    "wrong", ["256", "256x128", "[256]", "[256, 0]", "[256, 128, 3]", "[256.0, 128.0]", "[true, 2]"]
)
def test_a_shape_that_is_none_is_refused(wrong: str, tmp_path: Path) -> None:
    card = (find_root() / "data_cards" / "template_individuals.md").read_text()
    path = tmp_path / "mine.md"
    path.write_text(card.replace("image_size: [256, 128]", f"image_size: {wrong}"))
    with pytest.raises(
        CardError, match=r"'image_size' is the height and the width that pictures are brought to, px; found"
    ):
        read_card(str(path))
