"""A gallery with changes on trial: real files, an untrained trunk, and what is on disk before and after."""

import os
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from PIL import Image

from workbench.data.catalog import Catalog, open_catalog
from workbench.data.images import ImageError
from workbench.data.inputs import Input
from workbench.models.embedder import Embedder, build_embedder
from workbench.report.query_panel import answer_parts, answer_sheet
from workbench.retrieval.embed import embed_catalog
from workbench.retrieval.explore import count_answers
from workbench.retrieval.gallery import Gallery
from workbench.retrieval.gallery_trial import GalleryTrial, thin_points
from workbench.retrieval.recognise import made_by, recognise

COLOURS = {"007": (220, 30, 30), "7": (30, 30, 220), "a&b": (30, 200, 30)}


def _draw(path: Path, colour: tuple[int, int, int], seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-25, 25, (48, 48, 3))
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return build_embedder("timm:test_resnet", "random", image_size=(32, 32))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    root = tmp_path_factory.mktemp("shop")
    for number, (label, colour) in enumerate(COLOURS.items()):
        for split, count in (("reference", 2), ("query", 3)):
            for place in range(count):
                _draw(root / "shop" / split / label / f"{place}.png", colour, 100 * number + 10 * place + len(split))
    card = root / "shop.md"
    card.write_text(
        "---\ntitle: Shop\ntask: recognition\nreader: image_folder\nlicence: mine\nsource: drawn\nlayout: split/class\n"
        "options: {split_folders: {reference: reference, query: query}}\n---\nShop.\n"
    )
    return open_catalog(str(card), root / "shop")


@pytest.fixture
def trial(shop: Catalog, embedder: Embedder, tmp_path: Path) -> GalleryTrial:
    """The gallery has 007 and 7; the queries of a&b are unknown. One of 7's pictures is filed under 007 too."""
    cache = {"cache": tmp_path / "cache", "progress": None, "device": "cpu"}
    known = shop.select(split="reference", label=["007", "7"])
    references = embed_catalog(embedder, known, **cache)  # type: ignore[arg-type]
    queries = embed_catalog(embedder, shop.select(split="query"), **cache)  # type: ignore[arg-type]
    gallery = Gallery.build(references.embedding_ND, known.labels, known.names(), "built")
    wrong = queries.embedding_ND[queries.catalog.labels == "7"][:1]
    gallery.add("007", wrong, ["query/7/0.png"], "filed wrongly")
    gallery.about |= made_by(embedder)
    gallery.save(tmp_path / "gallery")
    return GalleryTrial(embedder, tmp_path / "gallery", queries, shop, queries_name="the shop's", device="cpu")


def test_answers_say_who_is_known_and_who_is_right(trial: GalleryTrial) -> None:
    answers = trial.answers()
    assert answers["label"].tolist() == ["007"] * 3 + ["7"] * 3 + ["a&b"] * 3
    assert answers["is_known"].tolist() == [True] * 6 + [False] * 3
    assert not answers["is_right"].iloc[3], "the very picture that is filed under another label"
    assert answers["reference"].iloc[3] == 4
    assert not answers["is_right"].iloc[6:].any()
    counts = count_answers(trial.left_out())
    assert counts.num_known == 6
    assert len(counts.unknown_U) == 9


def test_the_counts_are_those_of_recognise(trial: GalleryTrial) -> None:
    """The same pictures, the same threshold: what the slider counts is what the command decides."""
    inputs = [Input(one.path, str(one.path)) for one in trial.queries.catalog.pictures()][:6]
    middle = float(np.median(trial.answers()["similarity"].iloc[:6]))
    for threshold in (-1.0, middle, 0.99999):
        answers = recognise(trial.embedder, trial.gallery, inputs, threshold=threshold, device="cpu")
        accepted = answers["decision"] != "unknown"
        right = accepted & (answers["decision"] == trial.answers()["label"].iloc[:6])
        counts = count_answers(trial.left_out()).at(threshold)
        assert (counts["right"], counts["wrong"]) == (right.sum(), (accepted & ~right).sum())


def test_a_file_is_embedded_like_the_query_it_is(trial: GalleryTrial, tmp_path: Path) -> None:
    path = trial.queries.catalog.pictures()[1].path
    np.testing.assert_allclose(trial.embed(path), trial.query_embedding(1), atol=1e-5)
    found = trial.find(trial.embed(path), k=50)
    assert len(found) == 5, "all there are"
    assert found["similarity"].is_monotonic_decreasing
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.png"):
        trial.embed(broken)
    with pytest.raises(ImageError, match=r"gone\.png"):
        trial.embed(tmp_path / "gone.png")


def test_a_reference_marked_as_bad_mends_what_it_broke_and_undo_brings_it_back(trial: GalleryTrial) -> None:
    trial.mark_bad([4])
    assert trial.answers()["is_right"].iloc[:6].all()
    change = trial.change()
    assert change.metrics["difference"].n == 6
    assert change.metrics["difference"].value > 0
    assert (change.answers["effect"] == "wrong -> right").sum() == round(6 * change.metrics["difference"].value)
    with pytest.raises(ImageError, match="not in the gallery any more"):
        trial.reference_picture(4)
    for bad, said in (([4], "no reference 4"), ([0, 1, 2, 3], "Nothing would be left"), ([], "at least one")):
        with pytest.raises(ValueError, match=said):
            trial.mark_bad(bad)
    assert len(trial.gallery) == 4
    trial.undo()
    assert trial.gallery.references.equals(trial.before.references)
    assert Gallery.load(trial.folder).version == 2, "nothing on disk has changed"


def test_a_new_product_is_found_at_once_and_takes_its_place_on_the_map(trial: GalleryTrial, tmp_path: Path) -> None:
    points, words = trial.points()
    assert points["kind"].value_counts().to_dict() == {"reference": 5, "right": 5, "wrong": 1, "absent": 3}
    assert "PCA" in words
    folder = _draw(tmp_path / "new" / "one.png", COLOURS["a&b"], 1).parent
    _draw(folder / "two.png", COLOURS["a&b"], 2)
    (folder / "notes.txt").write_text("a list")
    notes = trial.add_folder(f" {folder} ", "a&b")
    assert "notes.txt" in notes[0]
    assert trial.answers()["is_right"].iloc[6:].all()
    assert trial.reference_picture(6).size == (48, 48)
    after, _ = trial.points()
    assert after["label"].iloc[:7].tolist() == ["007", "007", "7", "7", "007", "a&b", "a&b"]
    assert after["domain"].iloc[6] == "added"
    np.testing.assert_allclose(after[["x", "y"]].iloc[:5], points[["x", "y"]].iloc[:5])
    own = points[["x", "y"]][points["kind"] == "absent"].to_numpy().mean(axis=0)
    other = points[["x", "y"]][points["label"] == "7"].to_numpy().mean(axis=0)
    place = after[["x", "y"]].iloc[5].to_numpy()
    assert np.linalg.norm(place - own) < np.linalg.norm(place - other)


def test_a_folder_that_cannot_be_used_changes_nothing(trial: GalleryTrial, tmp_path: Path) -> None:
    folder = _draw(tmp_path / "new" / "fine.png", (1, 2, 3), 1).parent
    (folder / "torn.png").write_bytes((folder / "fine.png").read_bytes()[:200])
    for given, label, said in (
        (str(folder), "x", "1 of 2 pictures cannot be used"),
        (str(folder), " ", "Give the label"),
        ("", "x", "Give the folder"),
        (str(tmp_path / "nowhere"), "x", "nowhere"),
    ):
        with pytest.raises(ValueError, match=said):
            trial.add_folder(given, label)
    assert trial.gallery.version == trial.before.version


def test_saving_is_a_new_version_with_its_history_and_its_own_thresholds(trial: GalleryTrial) -> None:
    with pytest.raises(ValueError, match="no change"):
        trial.save()
    trial.mark_bad([4], "filed wrongly, see photo")
    said = trial.save()
    assert "version 3, 4 references of 2 labels" in said
    stored = Gallery.load(trial.folder)
    assert stored.history["comment"].tolist() == ["built", "filed wrongly", "filed wrongly, see photo"]
    assert stored.history["removed"].tolist() == [0, 0, 1]
    assert stored.about["measured"]["version"] == 3
    assert "the shop's" in stored.about["measured"]["how"]
    assert trial.before.version == 3
    assert trial.change().metrics["difference"].value == 0


def test_somebody_elses_change_is_not_overwritten(trial: GalleryTrial, tmp_path: Path) -> None:
    trial.mark_bad([4])
    other = Gallery.load(trial.folder)
    other.remove("007", "out of the range")
    other.save(trial.folder)
    with pytest.raises(ValueError, match=r"is at version 3 now, and these changes were made to version 2"):
        trial.save()
    assert Gallery.load(trial.folder).labels == ["7"]
    with pytest.raises(ValueError, match="changed meanwhile"):
        trial.undo()
    assert "version 3" in trial.save(tmp_path / "elsewhere")
    assert len(Gallery.load(tmp_path / "elsewhere")) == 4


def test_a_picture_that_nobody_knows_is_said_to_be_missing(trial: GalleryTrial) -> None:
    trial.gallery.add("new", np.eye(trial.gallery.dim)[:1], ["from/elsewhere.png"])
    with pytest.raises(ImageError, match="nothing says where"):
        trial.reference_picture(5)


def test_a_gallery_that_was_saved_with_new_products_shows_them_where_their_files_still_lie(
    trial: GalleryTrial, shop: Catalog, tmp_path: Path
) -> None:
    """What an exploration adds, the next one opens: its pictures are those of no catalog."""
    first = _draw(tmp_path / "new" / "one.png", COLOURS["a&b"], 1)
    second = _draw(tmp_path / "other" / "two.png", COLOURS["a&b"], 2)
    trial.add_folder(str(first.parent), "a&b")
    trial.add_folder(str(second.parent), "another")
    trial.save()
    opened = GalleryTrial(trial.embedder, trial.folder, trial.queries, shop, device="cpu")
    assert opened.reference_picture(5).tobytes() == Image.open(first).tobytes()
    second.unlink()
    with pytest.raises(ImageError, match=r"two\.png: no such file"):
        opened.reference_picture(6)
    asked = opened.answers()
    for row in range(len(asked)):  # no answer stops a page that shows it
        assert answer_sheet(opened, row, 0.5).data.count('class="wb-missing"') == 1
    figure = answer_parts(opened, 0)
    assert isinstance(figure, go.Figure)
    assert figure.layout.title.text.startswith("<b>Which parts of query")


def test_pictures_of_two_tables_with_one_name_are_told_apart(trial: GalleryTrial, tmp_path: Path) -> None:
    for number, label in enumerate(("red", "blue")):
        _draw(tmp_path / label / "IMG_1.png", ((250, 0, 0), (0, 0, 250))[number], number)
        (tmp_path / label / "table.csv").write_text("path\nIMG_1.png\n")
        trial.add_folder(str(tmp_path / label / "table.csv"), label)
    for reference, label in ((5, "red"), (6, "blue")):
        assert trial.reference_picture(reference).tobytes() == Image.open(tmp_path / label / "IMG_1.png").tobytes()
    assert trial.points()[0]["domain"].iloc[:7].tolist() == [*["real"] * 4, "real", "added", "added"]
    trial.undo()
    trial.add_folder(str(tmp_path / "blue" / "table.csv"), "blue")
    assert trial.reference_picture(5).tobytes() == Image.open(tmp_path / "blue" / "IMG_1.png").tobytes()


def test_a_saved_reference_shows_its_own_picture_although_the_catalog_has_its_name(
    trial: GalleryTrial, shop: Catalog, tmp_path: Path
) -> None:
    """The catalog's picture of that name is another reference: id 2."""
    drawn = _draw(tmp_path / "mine" / "reference" / "7" / "0.png", COLOURS["a&b"], 5)
    (tmp_path / "mine" / "whole.csv").write_text("path\nreference/7/0.png\n")
    (tmp_path / "mine" / "boxes.csv").write_text("path,x,y,width,height\nreference/7/0.png,4,8,20,10.5\n")
    trial.add_folder(str(tmp_path / "mine" / "whole.csv"), "a&b")
    trial.add_folder(str(tmp_path / "mine" / "boxes.csv"), "a&b")
    assert trial.references["name"].iloc[[2, 5, 6]].tolist() == ["reference/7/0.png"] * 3
    shown = [trial.reference_picture(reference).tobytes() for reference in range(7)]
    assert shown[5] == Image.open(drawn).tobytes() != shown[2]
    trial.save()
    Gallery.load(trial.folder).save(tmp_path / "copy")  # as the notebook explores one that is given
    opened = GalleryTrial(
        trial.embedder, tmp_path / "copy", trial.queries, shop, queries_name="the shop's", device="cpu"
    )
    assert [opened.reference_picture(reference).tobytes() for reference in range(7)] == shown
    assert opened.points()[0]["domain"].iloc[:7].tolist() == [*["real"] * 5, "added", "added"]
    opened.mark_bad([5])
    opened.save()
    assert list(Gallery.load(tmp_path / "copy").about["pictures"]) == ["6"]
    drawn.unlink()
    with pytest.raises(ImageError, match=r"mine/reference/7/0\.png: no such file"):
        opened.reference_picture(6)


def test_a_saved_picture_is_found_from_another_folder_and_by_any_file_name(
    trial: GalleryTrial, shop: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = _draw(Path(os.fsdecode(b"new/50% \xff.png")), COLOURS["a&b"], 6)
    own = Image.open(drawn).tobytes()
    trial.add_folder("new", "a&b")
    trial.save()
    monkeypatch.chdir("/")
    opened = GalleryTrial(trial.embedder, trial.folder, trial.queries, shop, device="cpu")
    assert opened.reference_picture(5).tobytes() == own


def test_thresholds_are_offered_for_the_gallery_that_they_were_measured_with(trial: GalleryTrial) -> None:
    assert trial.measured() == [], "nobody has measured"
    # each query's very picture under a fourth label too: three labels alone cannot tell a rate
    trial.gallery.extend(trial.queries.embedding_ND, ["twin"] * 9, trial.queries.catalog.names(), "twins")
    trial.save()
    stored = Gallery.load(trial.folder).about["measured"]["false_accepts"]
    assert [value for _, value in trial.measured()] == [one["threshold"] for one in stored] != []
    assert trial.measured()[0][0] == f"{100 * stored[0]['rate']:.4g} % false accepts: {stored[0]['threshold']:.4f}"
    trial.mark_bad([0])
    assert trial.measured() == []
    trial.undo()
    assert len(trial.measured()) == len(stored)


def test_a_map_of_many_points_keeps_queries_first() -> None:
    assert thin_points(3, 2, 5, 0).tolist() == [0, 1, 2, 3, 4]
    kept = thin_points(100, 10, 40, seed=1)
    assert len(kept) == len(set(kept.tolist())) == 40
    assert set(range(100, 110)) <= set(kept.tolist())
    assert (thin_points(100, 100, 40, seed=1) < 100).sum() == 20
    few = thin_points(5, 100, 40, seed=1)
    assert set(range(5)) <= set(few.tolist()), "the few references are all kept"
    assert len(few) == 40
