"""Draft cards: what is counted is right, what is not known is asked, and the draft is a card that opens."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workbench.__main__ import main
from workbench.data.audit import measure_images
from workbench.data.card import read_card
from workbench.data.catalog import open_catalog
from workbench.data.draft_card import draft_card, draft_folder, guess_options


def draw(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Seven training and three query pictures: a label of one image, one without reference, a file in both splits."""
    folder = tmp_path / "My shop \u00e4"
    for seed, name in enumerate(["007/1", "007/2", "007/3", "beans/1", "beans/2", "NA/1", "m\u00fcsli/1"]):
        draw(folder / "Training" / f"{name}.png", seed, (40, 30 + 10 * seed))
    draw(folder / "query/007/9.png", 0, (40, 30))
    draw(folder / "query/beans/9.png", 90, (200, 100))
    draw(folder / "query/new/9.png", 91, (200, 100))
    return folder


def prose(text: str) -> str:
    return " ".join(text.split())


def test_the_counts_are_those_of_the_files_and_the_draft_opens(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "shop.md"
    assert draft_folder(shop, out) == [out, tmp_path / "shop.croissant.json", tmp_path / "shop.catalog.parquet"]
    card = read_card(str(out))
    assert (card.title, card.task, card.reader) == ("My shop \u00e4", "recognition", "image_folder")
    assert card.options == {"split_folders": {"train": "Training", "query": "query"}}
    assert {name: (count.images, count.labels) for name, count in card.splits.items()} == {
        "train": (7, 4),
        "query": (3, 3),
    }
    assert card.protocol == {"reference_sets": ["train:real"], "query_split": "query", "shots": [1, 2, 5, "all"]}
    assert card.known_issues == ["1 of 3 queries are of 1 labels that no reference has."]
    assert len(open_catalog(str(out), shop)) == 10


def test_what_only_a_person_can_say_is_asked(shop: Path, tmp_path: Path) -> None:
    draft_folder(shop, tmp_path / "shop.md")
    card = read_card(str(tmp_path / "shop.md"))
    assert all(text.startswith("QUESTION:") for text in (card.licence, card.citation, card.source))
    sections = [part.splitlines()[0] for part in card.text.split("## ")[1:]]
    assert sections == [
        "What it is",
        "How it was collected",
        "Sensitive content",
        "What it must not be used for",
        "Known faults",
    ]
    assert all("QUESTION:" in part for part in card.text.split("## ")[1:])
    assert "10 images of 5 labels" in card.text
    assert "| train | real | 7 | 4 | 1 / 1.5 / 3 |" in card.text
    assert "| query | real | 3 | 3 | 1 / 1 / 1 |" in card.text
    assert "3 of 5 labels have a single image, 5 fewer than five." in card.text
    assert "have not been measured" in card.text


def test_measured_facts_are_filled_in(shop: Path, tmp_path: Path) -> None:
    (shop / "Training/beans/broken.png").write_bytes(b"no picture")
    draft_folder(shop, tmp_path / "shop.md", measure=True)
    card = read_card(str(tmp_path / "shop.md"))
    assert "1 of 11 pictures cannot be read." in card.known_issues
    assert (
        "2 pictures form 1 groups of identical files; 1 groups lie in several splits, 0 bear several labels."
        in card.known_issues
    )
    # Shorter sides, sorted: 30, 30, 40 (6 times), 100, 100.
    told = prose(card.text)
    assert (
        "Of 10 pictures that can be read, the shorter side is 30 px at least, 40 px in the median, 30 to 100 px" in told
    )
    assert "0 are monochrome" in told
    assert all(f"- {issue}" in card.text for issue in card.known_issues)


def test_a_folder_without_splits_is_one_split_and_has_no_protocol(shop: Path, tmp_path: Path) -> None:
    draft_folder(shop / "Training", tmp_path / "all.md")
    card = read_card(str(tmp_path / "all.md"))
    assert card.options == {"split": "train"}
    assert list(card.splits) == ["train"]
    assert card.protocol == {}
    assert "Which split holds the references" in card.text


REID_CARD = """---
title: Three hens
task: reid
reader: market1501
options: {group: frame}
splits:
  query: {images: 1, labels: 1}
  gallery: {images: 2, labels: 2}
protocol: {query_split: query, gallery_split: gallery, junk: none}
licence: CC BY 4.0
citation: A. Body, 2020
source: https://example.org/hens
layout: |-
  hens/
    query/              0001_c1s1_000001_00.jpg
      and further in
known_issues: ["One hen is a cock: see page 4."]
---
Prose.
"""


def test_a_set_with_a_card_keeps_what_its_card_says(tmp_path: Path) -> None:
    draw(tmp_path / "hens/query/0001_c1s1_000001_00.jpg", 1)
    draw(tmp_path / "hens/bounding_box_test/0001_c2s1_000001_00.jpg", 2)
    draw(tmp_path / "hens/bounding_box_test/0002_c2s1_000001_00.jpg", 3)
    (tmp_path / "hens.md").write_text(REID_CARD)
    card = read_card(str(tmp_path / "hens.md"))
    (tmp_path / "again").mkdir()
    (tmp_path / "again/hens.md").write_text(
        draft_card(open_catalog(str(card.path), tmp_path / "hens")), encoding="utf-8"
    )
    again = read_card(str(tmp_path / "again/hens.md"))
    for name in ("title", "task", "reader", "options", "splits", "protocol", "licence", "citation", "source", "layout"):
        assert getattr(again, name) == getattr(card, name), name
    assert again.known_issues == card.known_issues
    assert len(open_catalog(str(again.path), tmp_path / "hens")) == 3


@pytest.mark.photographs
def test_the_draft_of_the_photographs_has_the_counts_that_their_card_states(
    grocery_store_root: Path, tmp_path: Path
) -> None:
    catalog = open_catalog("grocery_store", grocery_store_root)
    (tmp_path / "again.md").write_text(draft_card(catalog), encoding="utf-8")
    again, (card,) = read_card(str(tmp_path / "again.md")), catalog.cards.values()
    assert again.splits == {split: card.splits[split] for split in catalog.frame["split"].unique()}
    assert again.protocol == card.protocol
    assert open_catalog(str(tmp_path / "again.md"), grocery_store_root).labels.tolist() == catalog.labels.tolist()


def test_nothing_is_overwritten(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "shop.md"
    for taken in (out, tmp_path / "shop.croissant.json", tmp_path / "shop.catalog.parquet"):
        taken.write_text("mine")
        with pytest.raises(FileExistsError, match=f"{taken.name} is there already"):
            draft_folder(shop, out)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([shop.name, taken.name])
        assert taken.read_text() == "mine"
        taken.unlink()


def test_a_fault_of_the_folder_leaves_nothing(shop: Path, tmp_path: Path) -> None:
    (shop / "query/007/notes.exe").touch()
    with pytest.raises(ValueError, match="neither pictures"):
        draft_folder(shop, tmp_path / "shop.md")
    assert [path.name for path in tmp_path.iterdir()] == [shop.name]


def folders(root: Path, *paths: str) -> Path:
    for path in paths:
        draw(root / path, 0)
    return root


def test_class_folders_are_told_from_split_folders(tmp_path: Path) -> None:
    assert guess_options(folders(tmp_path / "a", "cola/1.png", "deep/er/1.png")) == {"split": "train"}
    assert guess_options(folders(tmp_path / "b", "test/1.png", "cola/1.png")) == {"split": "train"}
    assert guess_options(folders(tmp_path / "c", "Query/a/1.png", "validation/a/1.png", "train/a/b/1.png")) == {
        "split_folders": {"train": "train", "val": "validation", "query": "Query"}
    }
    assert guess_options(folders(tmp_path / "d", "references/a/1.png")) == {
        "split_folders": {"reference": "references"}
    }


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["1.png"], "has no folders"),
        (["train/a/1.png", "cola/1.png"], "splits or classes cannot be told"),
        (["berlin/cola/1.png", "bonn/cola/1.png"], "splits or classes cannot be told"),
        (["train/1.png", "test/a/1.png"], "split folders train of .* hold pictures"),
        (["val/a/1.png", "validation/a/1.png"], "stand for one split"),
    ],
)
def test_a_folder_that_can_be_read_in_two_ways_is_refused(tmp_path: Path, paths: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        guess_options(folders(tmp_path / "x", *paths))


def test_several_sets_and_foreign_measures_are_refused(shop: Path, tmp_path: Path) -> None:
    draft_folder(shop, tmp_path / "shop.md")
    catalog = open_catalog(str(tmp_path / "shop.md"), shop)
    (card,) = catalog.cards.values()
    with pytest.raises(ValueError, match="describes one set"):
        draft_card(replace(catalog, cards={"shop": card, "other": card}))
    measures, _ = measure_images(catalog)
    with pytest.raises(ValueError, match="not those of this catalog"):
        draft_card(catalog.take(np.arange(9, -1, -1)), measures)


def test_the_command(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "draft", str(shop), "--measure"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "My_shop_\u00e4.md"
    assert main(["data", "check", "My_shop_\u00e4.md", "--data-root", str(shop)]) == 0
    assert "10 images" in capsys.readouterr().out
    assert main(["data", "draft", str(shop)]) == 2
    assert "there already" in capsys.readouterr().err
    assert main(["data", "draft", str(tmp_path / "nowhere")]) == 2
    assert main(["data", "draft", str(shop), "--out", "card.txt"]) == 2
    assert "ends in .md" in capsys.readouterr().err
