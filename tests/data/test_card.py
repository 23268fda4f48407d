import hashlib
from pathlib import Path

import pytest

from workbench.data.card import CardError, SplitCount, list_cards, read_card

CARD = """---
title: Three tins
task: recognition
reader: image_folder
splits:
  train: {images: 5, labels: 2}
  val:
protocol:
  reference_sets: ["train:real"]
  shots: [1, all]
licence: none
source: my shelf
layout: class folders
---

## What it is

Tins --- drawn
"""


def write_card(folder: Path, text: str = CARD, name: str = "tins.md") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_card_is_read_as_written(tmp_path: Path) -> None:
    card = read_card(write_card(tmp_path))
    assert (card.name, card.title, card.task, card.reader) == ("tins", "Three tins", "recognition", "image_folder")
    assert card.splits == {"train": SplitCount(5, 2), "val": SplitCount(None, None)}
    assert card.protocol == {"reference_sets": ["train:real"], "shots": [1, "all"]}
    assert (card.options, card.archives, card.known_issues, card.citation) == ({}, [], [], "")
    assert card.text == "## What it is\n\nTins --- drawn"
    assert card.fingerprint == hashlib.sha256(CARD.encode()).hexdigest()


def test_windows_line_ends_and_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "tins.md"
    path.write_bytes(b"\xef\xbb\xbf" + CARD.replace("\n", "\r\n").encode())
    assert read_card(str(path)).splits["train"] == SplitCount(5, 2)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("---\ntitle", "title", "does not begin with YAML"),
        ("title: Three tins\n", "", "'title' is missing"),
        ("title: Three tins", "title: ''", "'title' is missing"),
        ("licence:", "lisence:", "Did you mean 'licence'"),
        ("task: recognition", "task: detection", "unknown task 'detection'"),
        ("reader: image_folder", "reader: image_folders", "Did you mean 'image_folder'"),
        ("images: 5", "images: 0", "found 0"),
        ("images: 5", "images: true", "found True"),
        ("images: 5", "image: 5", "Did you mean 'images'"),
        ("  val:", "  on:", "needs quotes"),
        ("  val:", "  val: 7", "found 7"),
        ("train:real", "train", "not 'split:domain'"),
        ("train:real", "train:photo", "not 'split:domain'"),
        ("[1, all]", "[1, every]", "shots 'every'"),
        ("[1, all]", "[0]", "shots 0"),
        ("  shots", "  shot", "Did you mean 'shots'"),
        ("licence: none", "licence: none\narchives: [{url: x}]", "'archives'"),
        ("licence: none", "licence: none\nknown_issues: bad", "'known_issues'"),
        ("licence: none", "licence: [", "cannot be used"),
    ],
)
def test_a_faulty_card_is_refused_with_its_reason(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in CARD
    path = write_card(tmp_path, CARD.replace(old, new, 1))
    with pytest.raises(CardError, match=message) as caught:
        read_card(path)
    assert "tins.md" in str(caught.value)


def test_protocol_keys_belong_to_the_task(tmp_path: Path) -> None:
    reid = CARD.replace("recognition", "reid")
    with pytest.raises(CardError, match="reference_sets"):
        read_card(write_card(tmp_path, reid))


def test_an_unknown_name_names_the_cards_there_are() -> None:
    with pytest.raises(CardError, match="Did you mean 'grocery_store'") as caught:
        read_card("grocery_stor")
    assert "market1501" in str(caught.value)
    assert "template.md" in str(caught.value)


@pytest.mark.parametrize("name", ["", "../data_cards/market1501", "nowhere/none.md"])
def test_names_that_are_no_card_are_refused(name: str) -> None:
    with pytest.raises(CardError, match="There is no"):
        read_card(name)


def test_a_name_with_a_plus_cannot_be_a_set(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="letters, digits"):
        read_card(write_card(tmp_path, name="a+b.md"))


def test_relative_card_paths_mean_the_same_in_every_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data_cards").mkdir()
    write_card(tmp_path / "data_cards")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    for folder in (tmp_path, tmp_path / "elsewhere"):
        monkeypatch.chdir(folder)
        assert read_card("data_cards/tins.md").path == tmp_path / "data_cards" / "tins.md"


def test_the_cards_of_the_project() -> None:
    cards = {card.name: card for card in list_cards()}
    assert list(cards) == sorted(cards)
    assert set(cards) >= {"grocery_store", "market1501", "nyala_market1501", "synthetic_products"}
    assert "template" not in cards
    market = cards["market1501"]
    assert market.splits["train"] == SplitCount(12936, 751)
    assert market.splits["query"] == SplitCount(3368, 750)
    # 750 identities, the distractors (0) and junk (-1).
    assert market.splits["gallery"] == SplitCount(19732, 752)
    grocery = cards["grocery_store"]
    assert grocery.protocol["reference_sets"] == ["train:real", "reference:packshot"]
    assert grocery.protocol["shots"] == [1, 2, 5, 10, "all"]
    for card in cards.values():
        for heading in ("## What it is", "## Sensitive content", "## What it must not be used for"):
            assert heading in card.text, card.name
