import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from workbench.data.card import Card, CardError, SplitCount, list_cards, read_card
from workbench.data.catalog import open_catalog
from workbench.data.locate import reader_of

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
        ("  shots", "  known_copies: -1\n  shots", "found \\[-1\\]"),
        ("  shots", "  recall_at: [one]\n  shots", "whole numbers"),
        ("  shots", "  leave_one_out: val\n  shots", "list of splits; found 'val'"),
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
    assert not [name for name in cards if name.startswith("template")]
    market = cards["market1501"]
    assert market.splits["train"] == SplitCount(12936, 751)
    assert market.splits["query"] == SplitCount(3368, 750)
    # 750 identities, the distractors (0) and junk (-1).
    assert market.splits["gallery"] == SplitCount(19732, 752)
    grocery = cards["grocery_store"]
    assert grocery.protocol["reference_sets"] == ["train:real", "reference:packshot"]
    assert grocery.protocol["shots"] == [1, 2, 5, 10, "all"]


# Who is re-identified. A new card of that task has to be put in one of the two, and a card of people has to say more.
PEOPLE = {"market1501", "msmt17", "aicity_reid"}
NO_PEOPLE = {"nyala_market1501", "synthetic_identities", "veri776"}
# Taken down by those who made them; no card may offer them. The prose may name them as withdrawn.
WITHDRAWN = r"duke|ms-?celeb|brainwash|megaface|tiny ?images"


def faults_of(card: Card) -> list[str]:
    """What a reader of the card would miss: sections, who made it, and for people what protects them."""
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", card.text, flags=re.MULTILINE | re.DOTALL))
    filled = {
        heading for heading, text in sections.items() if len(text.split()) >= (1 if "Sensitive" in heading else 10)
    }
    faults = [f"no section {name!r}" for name in ("What it is", "What it must not be used for") if name not in filled]
    if not filled & {"How it was collected", "How it was made"}:
        faults.append("no section on how it was collected or made")
    if not sections.get("Sensitive content", "").strip():
        faults.append("no section 'Sensitive content'")
    if not card.known_issues and "Known faults" not in filled:
        faults.append("no known faults")
    drawn = hasattr(reader_of(card), "draw")
    if not drawn and not card.citation:
        faults.append("no citation")
    offer = " ".join([card.name, card.title, card.source, card.layout, str(card.archives)])
    if re.search(WITHDRAWN, offer, flags=re.IGNORECASE):
        faults.append("offers a set that is withdrawn")
    if card.task == "reid" and card.name not in PEOPLE | NO_PEOPLE:
        faults.append("neither among the cards of people nor among the others")
    if card.name in PEOPLE:
        if "agreed" not in sections.get("Sensitive content", ""):
            faults.append("does not say whether the people agreed")
        ruled_out = " ".join(sections.get("What it must not be used for", "").split())
        for words in ("No surveillance", "identification of real persons", "no decision about a person"):
            if words not in ruled_out:
                faults.append(f"does not rule out: {words}")
        if card.archives:
            faults.append("offers people's pictures for download")
    return faults


def test_every_card_tells_people_what_they_have_to_know() -> None:
    cards = list_cards()
    assert {card.name for card in cards} >= PEOPLE
    assert {card.name: faults_of(card) for card in cards if faults_of(card)} == {}


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("## What it is\n", "## About\n", "no section 'What it is'"),
        ("## How it was collected", "## Collecting", "no section on how it was collected or made"),
        ("## Sensitive content", "## Contents", "no section 'Sensitive content'"),
        ("## What it must not be used for", "## Uses", "no section 'What it must not be used for'"),
        ("agreed to be part", "knew that they were part", "does not say whether the people agreed"),
        ("No surveillance, no tracking", "No tracking", "does not rule out: No surveillance"),
        ("no decision about a person", "no jokes", "does not rule out: no decision about a person"),
    ],
)
def test_a_card_of_people_that_leaves_something_out_is_refused(old: str, new: str, fault: str) -> None:
    for name in ("market1501", "msmt17"):
        card = read_card(name)
        assert faults_of(card) == []
        assert card.text.count(old) >= 1
        assert fault in faults_of(replace(card, text=card.text.replace(old, new)))


def test_an_offer_of_what_must_not_be_offered_is_refused() -> None:
    card = read_card("market1501")
    download = [{"url": "https://example.org/people.zip", "sha256": "0" * 64}]
    assert faults_of(replace(card, archives=download)) == ["offers people's pictures for download"]
    assert "offers a set that is withdrawn" in faults_of(replace(card, title="DukeMTMC-reID"))
    assert "neither among" in faults_of(replace(card, name="passers_by"))[0]
    assert faults_of(replace(card, citation="")) == ["no citation"]


def test_withdrawn_sets_are_named_as_withdrawn() -> None:
    text = " ".join(read_card("market1501").text.split())
    assert "have been withdrawn by those who made them, and the workbench offers none of them: DukeMTMC" in text
    for name in ("dukemtmc", "dukemtmc_reid", "ms_celeb_1m"):
        with pytest.raises(CardError, match="There is no data card"):
            read_card(name)


def test_the_template_for_individuals_reads_a_table_as_it_says(tmp_path: Path) -> None:
    shutil.copy(read_card("template_individuals").path, tmp_path / "my_individuals.md")
    root = tmp_path / "my_individuals"
    (root / "crops").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (root / "crops" / name).touch()
    (root / "images.csv").write_text(
        "path,label,split,camera,group\ncrops/a.jpg,007,train,1,\ncrops/b.jpg,012,query,1,visit 3\n"
        "crops/c.jpg,012,gallery,12,visit 4\n",
        encoding="utf-8",
    )
    frame = open_catalog(str(tmp_path / "my_individuals.md"), data_root=tmp_path).frame
    assert list(frame[["path", "label", "split", "camera", "domain"]].itertuples(index=False, name=None)) == [
        ("crops/a.jpg", "007", "train", 1, "real"),
        ("crops/b.jpg", "012", "query", 1, "real"),
        ("crops/c.jpg", "012", "gallery", 12, "real"),
    ]
    assert frame["group"].isna().tolist() == [True, False, False]
    assert frame["group"][1:].tolist() == ["visit 3", "visit 4"]
