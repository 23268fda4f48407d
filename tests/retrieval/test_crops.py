"""Whatever looks at a box of a catalog sees what it would see if the crop were a file of its own, bit for bit."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workbench.data.audit import MEASURES, measure_images
from workbench.data.boxes import Box
from workbench.data.catalog import Catalog, open_catalog
from workbench.data.corruptions import Corruption
from workbench.data.images import Picture, QuarantineError
from workbench.data.inputs import gather_inputs
from workbench.export.int8 import _calibration_batches
from workbench.models.embedder import Embedder, build_embedder
from workbench.retrieval.baseline import embed_colour_histogram
from workbench.retrieval.embed import embed_catalog
from workbench.retrieval.few_shot import evaluate_few_shot
from workbench.retrieval.few_shot_protocol import FewShotProtocol
from workbench.retrieval.gallery import Gallery
from workbench.retrieval.query_hits import query_names
from workbench.retrieval.recognise import recognise
from workbench.retrieval.recognition import examples, plan_recognition
from workbench.retrieval.recognition_tables import frequent_confusions
from workbench.retrieval.stress import choose_corruptions, example_pictures
from workbench.training.prepare import prepare
from workbench.training.recipe import Recipe

BOXES = [(2, 3, 40, 50), (30, 20, 60, 30), (70, 50, 30, 30), (0, 60, 33.4, 20), (50, 0, 40, 18.6), (90, 10, 80, 90)]
"""On a picture of 120 x 80 px; the last one is clipped."""
CUT = [(2, 3, 42, 53), (30, 20, 90, 50), (70, 50, 100, 80), (0, 60, 33, 80), (50, 0, 90, 19), (90, 10, 120, 80)]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return build_embedder("timm:test_resnet", "random", image_size=(32, 32), seed=1)


def open_table(folder: Path, name: str, rows: list[str], extra: str = "") -> Catalog:
    (folder / name).mkdir(exist_ok=True)
    header = "path,label,split,x,y,width,height"
    (folder / name / "rows.csv").write_text("\n".join([header, *rows, ""]))
    card = folder / f"{name}.md"
    card.write_text(
        "---\ntitle: t\ntask: recognition\nreader: table\noptions: {table: rows.csv}\nlicence: none\nsource: here\n"
        f"layout: a table\nprotocol: {{reference_sets: ['reference:real'], query_split: query}}\n{extra}\n---\n"
    )
    return open_catalog(str(card), folder)


def draw_shelf(folder: Path) -> Image.Image:
    noise_HWC = np.random.default_rng(0).integers(0, 256, (10, 15, 3), dtype=np.uint8)
    shelf = Image.fromarray(noise_HWC).resize((120, 80), Image.Resampling.BICUBIC)
    folder.mkdir()
    shelf.save(folder / "shelf.png")
    return shelf


def row_of(row: int, path: str, numbers: str) -> str:
    return f"{path},{'abcabc'[row]},{'reference' if row < 3 else 'query'},{numbers}"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Catalog, Catalog]:
    """The boxes of one picture, and the same crops as files of their own, cut by Pillow."""
    shelf = draw_shelf(tmp_path / "boxes")
    (tmp_path / "files").mkdir()
    for row, edges in enumerate(CUT):
        shelf.crop(edges).save(tmp_path / "files" / f"{row}.png")
    boxed = [row_of(row, "shelf.png", ",".join(map(str, box))) for row, box in enumerate(BOXES)]
    whole = [row_of(row, f"{row}.png", ",,,") for row in range(len(BOXES))]
    return open_table(tmp_path, "boxes", boxed), open_table(tmp_path, "files", whole)


def embed(embedder: Embedder, catalog: Catalog, folder: Path, **more: object) -> np.ndarray:
    options = {"cache": folder / "cache", "device": "cpu", "progress": None, "num_workers": 2, **more}
    return np.array(embed_catalog(embedder, catalog, **options).embedding_ND)  # type: ignore[arg-type]


def test_embeddings_and_histograms_are_those_of_the_crops(
    embedder: Embedder, pair: tuple[Catalog, Catalog], tmp_path: Path
) -> None:
    found_ND, wanted_ND = (embed(embedder, one, tmp_path) for one in pair)
    assert np.array_equal(found_ND, wanted_ND)
    assert len(np.unique(wanted_ND, axis=0)) == len(BOXES)
    grey = Corruption("monochrome", 50)
    found_ND, wanted_ND = (embed(embedder, one, tmp_path, corruption=grey) for one in pair)
    assert np.array_equal(found_ND, wanted_ND)
    found_ND, wanted_ND = (embed_colour_histogram(one).embedding_ND for one in pair)
    assert np.array_equal(found_ND, wanted_ND)
    measured = [
        measure_images(one)[0][[name for name in MEASURES if name not in ("source", "path", "sha256")]] for one in pair
    ]
    assert measured[0].equals(measured[1])


def test_training_and_calibration_see_the_crops(embedder: Embedder, pair: tuple[Catalog, Catalog]) -> None:
    preprocessing = embedder.preprocessing
    for memory_mib in (0, 64):
        seen = []
        for catalog in pair:
            recipe = Recipe(
                name="crops", num_steps=1, memory_mib=memory_mib, augmentation=None, validation_images_per_class=1
            )
            data = prepare(
                recipe, preprocessing, catalog.select(split="reference"), catalog.select(split="query"), None
            )
            assert data.validation is not None
            seen.append(
                [
                    *(data.references[row, 0, 0][0] for row in range(3)),  # type: ignore[index]
                    *(data.validation[row][0] for row in range(3)),  # type: ignore[index]
                ]
            )
        assert all(np.array_equal(one, other) for one, other in zip(*seen, strict=True))
    batches = [list(_calibration_batches(catalog, preprocessing, 6, 4, seed=2)) for catalog in pair]
    assert [len(batch) for batch in batches[0]] == [4, 2]
    assert all(np.array_equal(one, other) for one, other in zip(*batches, strict=True))


def test_a_changed_box_is_embedded_anew_and_the_same_one_is_not(embedder: Embedder, tmp_path: Path) -> None:
    draw_shelf(tmp_path / "boxes")

    def ask(box: str, extra: str = "") -> np.ndarray:
        return embed(embedder, open_table(tmp_path, "boxes", [f"shelf.png,a,query,{box}"], extra), tmp_path)

    def num_kept() -> int:
        return sum(path.is_dir() for path in (tmp_path / "cache").iterdir())

    first = ask("2,3,40,50")
    others = [ask(box) for box in (",,,", "2,3,40,51", "2,3,40.0001,50")] + [ask("2,3,40,50", "margin: 0.1")]
    assert num_kept() == 5
    assert np.array_equal(ask("2.0,3,40,50"), first)
    assert num_kept() == 5, "the same box comes from the cache"
    assert not np.array_equal(others[0], first)
    assert not np.array_equal(others[1], first)
    assert np.array_equal(others[2], first), "0.0001 px change no pixel"
    assert not np.array_equal(others[3], first)


def test_two_boxes_of_a_file_are_augmented_each_in_its_own_way(embedder: Embedder, tmp_path: Path) -> None:
    (tmp_path / "twins").mkdir()
    half_HWC = np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(np.concatenate([half_HWC, half_HWC], axis=1)).save(tmp_path / "twins" / "both.png")
    catalog = open_table(tmp_path, "twins", ["both.png,a,query,0,0,30,40", "both.png,b,query,30,0,30,40"])
    left, left_copy, right, right_copy = embed(embedder, catalog, tmp_path, copies=1)
    assert np.array_equal(left, right)
    assert not np.array_equal(left_copy, right_copy)
    left, right = embed(embedder, catalog, tmp_path, corruption=Corruption("low_light", 5))
    assert not np.array_equal(left, right)


def test_a_box_outside_ends_in_quarantine_under_its_own_name(embedder: Embedder, tmp_path: Path) -> None:
    draw_shelf(tmp_path / "boxes")
    rows = ["shelf.png,a,reference,2,3,40,50", "shelf.png,b,reference,120,3,40,50", "shelf.png,c,reference,60,3,40,50"]
    catalog = open_table(tmp_path, "boxes", rows)
    made = embed_catalog(embedder, catalog, cache=tmp_path / "cache", device="cpu", progress=None, quarantine_limit=0.5)
    wanted = [["shelf.png[120,3,40,50]", "the box lies outside the picture of 120 x 80 px"]]
    assert made.quarantine.to_numpy().tolist() == wanted
    assert list(made.catalog.labels) == ["a", "c"]
    assert made.catalog.pictures()[1].box == Box(60, 3, 40, 50)
    assert embed_colour_histogram(catalog, quarantine_limit=0.5).quarantine.to_numpy().tolist() == wanted
    with pytest.raises(QuarantineError, match=r"shelf\.png\[120,3,40,50\]: the box lies outside"):
        prepare(Recipe(name="crops", num_steps=1), embedder.preprocessing, catalog, None, None)


def test_boxes_of_a_card_find_themselves_in_a_gallery_of_its_boxes(
    embedder: Embedder, pair: tuple[Catalog, Catalog], tmp_path: Path
) -> None:
    boxes, _ = pair
    labels = [f"box {row}" for row in range(len(boxes))]
    gallery = Gallery.build(embed(embedder, boxes, tmp_path), labels, boxes.names().tolist())
    gallery.about["embedder"] = embedder.fingerprint()
    inputs, _ = gather_inputs([str(tmp_path / "boxes.md")], tmp_path)
    answers = recognise(embedder, gallery, inputs, threshold=-1.0, top=1, device="cpu")
    assert answers["label_1"].tolist() == labels
    np.testing.assert_allclose(answers["similarity_1"], 1, atol=1e-5)
    assert answers["width"].tolist() == [box[2] for box in BOXES]


def test_what_an_evaluation_shows_are_the_crops(
    embedder: Embedder, pair: tuple[Catalog, Catalog], tmp_path: Path
) -> None:
    boxes, _ = pair
    plan = plan_recognition(boxes, shots="1")
    references, queries = plan.references["reference:real"], plan.queries
    assert query_names(queries).tolist() == [
        "boxes/shelf.png[0,60,33.4,20]",
        "boxes/shelf.png[50,0,40,18.6]",
        "boxes/shelf.png[90,10,80,90]",
    ]
    assert [picture for _, picture in examples(plan, 3, 1)][:2] == [references.pictures()[0], queries.pictures()[0]]
    reference_ND = np.eye(3, dtype=np.float32)
    result = evaluate_few_shot(
        reference_ND, references.labels, reference_ND[[1, 1, 2]], queries.labels, FewShotProtocol(shots=(1,), top=(1,))
    )
    (mistake,) = frequent_confusions(result, references, queries, 5)
    shelf = tmp_path / "boxes" / "shelf.png"
    assert (mistake.query, mistake.taken_for) == (Picture(shelf, Box(*BOXES[3])), Picture(shelf, Box(*BOXES[1])))
    shown = [
        example_pictures(catalog.take(np.array([1])), choose_corruptions("monochrome", "few"), embedder.preprocessing)[
            1
        ]
        for catalog in pair
    ]
    for (caption, one), (other_caption, other) in zip(*shown, strict=True):
        assert caption == other_caption
        assert np.array_equal(one, other)
