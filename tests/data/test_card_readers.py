"""Every card of the project against its reader, and what the commands about data print."""

from pathlib import Path

import pytest
from layouts import Layout

import workbench.data.readers
from workbench.__main__ import main
from workbench.data.card import READERS, SplitCount, list_cards, read_card
from workbench.data.locate import MissingDataError, find_data_root, reader_of

CARDS = {card.name: card for card in list_cards()}
# What the readers share, and no reader itself.
SHARED = {"fields", "listing"}


def test_the_readers_are_those_that_cards_may_name() -> None:
    (folder,) = workbench.data.readers.__path__
    modules = {path.stem for path in Path(folder).glob("*.py")} - {"__init__"}
    assert modules == {*READERS, *SHARED}
    assert {card.reader for card in CARDS.values()} <= set(READERS)


@pytest.mark.parametrize("name", CARDS)
def test_a_card_has_a_reader_that_knows_its_options(name: str, tmp_path: Path) -> None:
    card = CARDS[name]
    reader = reader_of(card)
    if hasattr(reader, "draw"):
        return
    # An empty folder is not the set, and the reader says why in one line.
    fault = reader.find_fault(tmp_path, card)
    assert fault
    assert "\n" not in fault
    with pytest.raises(MissingDataError) as caught:
        find_data_root(card, tmp_path)
    assert fault in str(caught.value)
    for said in (card.source, card.layout.splitlines()[0]):
        assert said in str(caught.value)
    assert card.layout.startswith(f"{name}/\n")


@pytest.mark.parametrize("name", CARDS)
def test_the_protocol_of_a_card_speaks_of_its_splits(name: str) -> None:
    card = CARDS[name]
    splits = {str(card.protocol[key]) for key in ("query_split", "gallery_split") if key in card.protocol}
    splits |= set(card.protocol.get("leave_one_out", ()))
    splits |= {reference_set.partition(":")[0] for reference_set in card.protocol.get("reference_sets", ())}
    assert splits
    assert splits <= set(card.splits)


def test_published_counts() -> None:
    counts: dict[str, dict[str, tuple[int, int | None]]] = {
        "stanford_online_products": {"train": (59551, 11318), "reference": (11316, 11316), "query": (49186, None)},
        "cub200": {"train": (5864, 100), "reference": (1000, 100), "query": (4924, 100)},
        "cub200_official": {"train": (5994, 200), "test": (5794, 200)},
        "in_shop": {"train": (25882, 3997), "query": (14218, 3985), "gallery": (12612, 3985)},
    }
    for name, splits in counts.items():
        assert CARDS[name].splits == {split: SplitCount(*count) for split, count in splits.items()}
    total = {name: sum(count.images or 0 for count in CARDS[name].splits.values()) for name in counts}
    assert total == {
        "stanford_online_products": 59551 + 60502,
        "cub200": 11788,
        "cub200_official": 11788,
        "in_shop": 52712,
    }


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("grozi120", ("676", "11,194", "720", "4,973")),
        ("rp2k", ("344,854", "39,457", "2,388")),
        ("products10k", ("9,691",)),
        ("grocery_products", ("3,235", "680")),
        ("capg_gp", ("102", "234")),
    ],
)
def test_counts_that_are_not_settled_are_told_and_not_asserted(name: str, numbers: tuple[str, ...]) -> None:
    card = CARDS[name]
    assert {count.images for count in card.splits.values()} == {None}
    for number in numbers:
        assert any(number in issue for issue in card.known_issues)


def test_data_list_names_every_card(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [[card.name, card.task] for card in CARDS.values()]
    assert "cub200_official          recognition  CUB-200-2011, the authors' split" in lines


def test_data_check_prints_counts_notes_and_known_issues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout(tmp_path, "rp2k")
    layout.fill("all/train/a/1.jpg", "all/test/a/2.jpg", "all/test/b/3.jpg")
    assert main(["data", "check", "rp2k", "--data-root", str(layout.root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:5] for line in lines[1:3]] == [
        ["rp2k", "train", "real", "1", "1"],
        ["rp2k", "test", "real", "2", "2"],
    ]
    assert lines[3] == "rp2k: not among the files: others_train, others_test"
    assert lines[4].startswith("note: rp2k: none of the folders others, 其他 is in ")
    issues = [f"known issue of rp2k: {issue}" for issue in read_card("rp2k").known_issues]
    assert lines[5:-1] == issues
    assert len(issues) == 3
    assert lines[-1].startswith("3 images, fingerprint ")
