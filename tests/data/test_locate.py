from pathlib import Path

import pytest

from workbench.data.card import Card, read_card
from workbench.data.locate import MissingDataError, find_data_root


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    """A card of a checkout of its own, without WORKBENCH_DATA."""
    (tmp_path / "checkout" / "data_cards").mkdir(parents=True)
    path = tmp_path / "checkout" / "data_cards" / "people.md"
    path.write_text(
        "---\ntitle: People\ntask: reid\nreader: market1501\nlicence: none\nsource: ask Ann\nlayout: |-\n  people/\n"
        "    query/\n---\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path / "checkout"))
    monkeypatch.delenv("WORKBENCH_DATA", raising=False)
    return read_card("people")


def make_query(folder: Path) -> Path:
    (folder / "query").mkdir(parents=True)
    return folder


def test_the_order_of_places(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_checkout = make_query(tmp_path / "checkout" / "data" / "people")
    assert find_data_root(card) == in_checkout
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "env"))
    assert find_data_root(card) == in_checkout
    in_environment = make_query(tmp_path / "env" / "people")
    assert find_data_root(card) == in_environment
    itself = make_query(tmp_path / "mine")
    assert find_data_root(card, itself) == itself
    below = make_query(tmp_path / "mine" / "people")
    assert find_data_root(card, str(itself)) == below


def test_a_folder_of_another_layout_is_passed_over(card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "env" / "people").mkdir(parents=True)
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "env"))
    in_checkout = make_query(tmp_path / "checkout" / "data" / "people")
    assert find_data_root(card) == in_checkout


def test_a_missing_set_says_where_it_was_sought_and_where_it_comes_from(
    card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MissingDataError) as caught:
        find_data_root(card)
    message = str(caught.value)
    for part in ("$WORKBENCH_DATA: not set", str(tmp_path / "checkout" / "data" / "people"), "ask Ann", "    query/"):
        assert part in message
    (tmp_path / "env" / "people").mkdir(parents=True)
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "env"))
    with pytest.raises(FileNotFoundError) as caught_again:
        find_data_root(card)
    assert f"{tmp_path / 'env' / 'people'}: none of the folders bounding_box_train" in str(caught_again.value)


def test_a_stated_folder_is_never_answered_with_other_data(card: Card, tmp_path: Path) -> None:
    make_query(tmp_path / "checkout" / "data" / "people")
    with pytest.raises(MissingDataError) as caught:
        find_data_root(card, tmp_path / "typo")
    assert f"{tmp_path / 'typo' / 'people'}: no such folder" in str(caught.value)
    assert f"{tmp_path / 'typo'}: no such folder" in str(caught.value)
    assert "were left aside" in str(caught.value)


def test_relative_folders_are_found_from_the_checkout(
    card: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_query(tmp_path / "checkout" / "data" / "people")
    monkeypatch.chdir(tmp_path)
    assert find_data_root(card, "data") == folder
