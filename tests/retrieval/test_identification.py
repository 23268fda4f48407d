from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from workbench.data.card import read_card
from workbench.data.catalog import Catalog
from workbench.data.images import Picture
from workbench.models.embedder import Embedder, build_embedder
from workbench.retrieval.embed import embed_catalog
from workbench.retrieval.identification import (
    IdentificationPlan,
    camera_names,
    cross_evaluate,
    embed_pictures,
    evaluate_baseline,
    evaluate_identification,
    named_embedders,
    plan_identification,
)
from workbench.retrieval.identification_tables import (
    chance_identification,
    cmc_table,
    collect_metrics,
    compare_systems,
    ranked_lists,
    spread_queries,
)
from workbench.retrieval.reid_protocol import ReidProtocol

# label, split, camera, angle on a circle in degrees: what is near in angle is near in similarity
_ROWS = [
    ("a", "query", 1, 0),
    ("b", "query", 2, 90),
    ("-1", "query", 1, 45),
    ("a", "gallery", 1, 1),  # junk for the query a: its own camera
    ("a", "gallery", 2, 20),
    ("b", "gallery", 1, 40),
    ("b", "gallery", 3, 10),
    ("0", "gallery", 3, 80),
    ("-1", "gallery", 3, 0),
]


@dataclass(frozen=True)
class _Embedded:
    embedding_ND: np.ndarray
    catalog: Catalog
    source_N: np.ndarray


@pytest.fixture
def catalog() -> Catalog:
    frame = pd.DataFrame(_ROWS, columns=["label", "split", "camera", "angle"]).astype({"camera": "Int64"})
    frame["path"] = [f"{row}.png" for row in range(len(frame))]
    cards = {"set": replace(read_card("nyala_market1501"), protocol={})}
    return Catalog(frame=frame.assign(source="set"), roots={"set": Path("/set")}, cards=cards, missing_splits={})


def _plan(catalog: Catalog, **given: str) -> IdentificationPlan:
    return plan_identification(catalog, **({"query_split": "query", "gallery_split": "gallery"} | given))


def _embedded(catalog: Catalog) -> _Embedded:
    radians = np.deg2rad(catalog.frame["angle"].to_numpy(np.float64))
    return _Embedded(np.stack([np.cos(radians), np.sin(radians)], axis=1), catalog, np.arange(len(catalog)))


def test_parameters_come_before_the_card(catalog: Catalog) -> None:
    protocol = {"query_split": "query", "gallery_split": "gallery", "junk": "none"}
    of_card = replace(catalog, cards={"set": replace(read_card("nyala_market1501"), protocol=protocol)})
    plan = plan_identification(of_card)
    assert plan.junk == "none"
    assert (len(plan.queries), len(plan.gallery)) == (3, 6)
    turned = plan_identification(of_card, "gallery", "query", "same_id_same_camera")
    assert (len(turned.queries), turned.junk) == (6, "same_id_same_camera")
    assert _plan(catalog).junk == "same_id_same_camera"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"query_split": ""}, "give query_split and gallery_split"),
        ({"gallery_split": "galery"}, "Did you mean 'gallery'"),
        ({"junk": "same_camera"}, "same_id_same_camera"),
    ],
)
def test_plans_that_cannot_be_are_refused(catalog: Catalog, given: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _plan(catalog, **given)


def test_overview_counts_junk_and_distractors(catalog: Catalog) -> None:
    rows = _plan(catalog).overview().set_index("role")
    # cameras: junk counts, for it is in the split
    assert rows.loc["queries"].to_dict() == {
        "split": "query",
        "images": 3,
        "individuals": 2,
        "cameras": 2,
        "junk": 1,
        "distractors": 0,
    }
    assert list(rows.loc["gallery", ["images", "individuals", "cameras", "junk", "distractors"]]) == [6, 2, 3, 1, 1]


def test_a_product_may_be_called_as_junk_is(catalog: Catalog) -> None:
    products = replace(catalog, cards={"set": read_card("grocery_store")})
    plan = _plan(products, junk="none")
    rows = plan.overview().set_index("role")
    assert list(rows.loc["queries", ["images", "individuals", "junk"]]) == [3, 3, 0]
    result = evaluate_identification(_embedded(plan.queries), _embedded(plan.gallery), ReidProtocol(junk="none"))
    assert result.per_query["label"].tolist() == ["a", "b", "set/-1"]
    assert (result.num_junk_queries, result.num_junk_gallery, result.num_gallery) == (0, 0, 6)


def test_examples_show_other_cameras_first(catalog: Catalog) -> None:
    shown = _plan(catalog).examples(num_labels=1, num_images=2)
    assert len(_plan(catalog).examples(num_labels=2, num_images=3)) == 2 * (1 + 2), "nobody is there three times"
    assert [(caption, picture.path.name) for caption, picture in shown] == [
        ("a: query, camera 1", "0.png"),
        ("a: gallery, camera 1", "3.png"),
        ("a: gallery, camera 2", "4.png"),
    ]


def test_a_camera_of_one_set_is_not_that_of_another(catalog: Catalog) -> None:
    frame = catalog.frame.head(3).assign(source=["set", "other", "set"])
    frame.loc[2, "camera"] = pd.NA
    both = replace(catalog, frame=frame, roots={"set": Path("/a"), "other": Path("/b")})
    assert camera_names(both).tolist() == ["set/1", "other/2", None]
    assert camera_names(catalog).tolist()[:2] == ["1", "2"]


def test_metrics_worked_by_hand_with_their_baselines(catalog: Catalog) -> None:
    plan = _plan(catalog)
    queries, gallery = _embedded(plan.queries), _embedded(plan.gallery)
    protocol = ReidProtocol(ranks=(1, 2), flip=True, input_size=(8, 4))
    result = evaluate_identification(queries, gallery, protocol)
    # a (0 degrees): junk 1, then b 10, a 20, b 40, 0 80: one hit at place 2. b (90): 0 80, b 40, a 20, b 10, a 1: hits at 2 and 4.
    assert result.metrics["mAP"].value == pytest.approx((1 / 2 + (1 / 2 + 2 / 4) / 2) / 2)
    histogram = evaluate_baseline(queries, gallery, protocol)
    assert "no flip" in histogram.metrics["mAP"].protocol
    assert "8 x 4 px" not in histogram.metrics["mAP"].protocol
    metrics = collect_metrics(result, histogram, gallery.catalog)
    assert next(iter(metrics)) == "mAP"
    assert metrics["colour_histogram/rank-2"].value == 1
    # a: 1 of 4 after its junk; b: 2 of 5. Expected precision worked out: (1 + 1/2 + 1/3 + 1/4) / 4, and for 2 of 5 the mean
    # over the ten orders, 0.595.
    orders = [(1 / i + 2 / j) / 2 for i in range(1, 6) for j in range(i + 1, 6)]
    expected = ((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4 + sum(orders) / 10) / 2
    assert metrics["chance/mAP"].value == pytest.approx(expected)
    assert metrics["chance/rank-1"].value == pytest.approx((1 / 4 + 2 / 5) / 2)
    assert metrics["chance/TAR@FAR=1%"].value == 0.01
    table = compare_systems(metrics).set_index("metric")
    assert table.index[0] == "mAP"
    assert str(table.loc["mAP", "embedder"]).startswith("50.0 %")
    assert table.loc["rank-1", "chance"] == "32.5 %"
    assert table.loc["mAP", "n"] == 2
    assert table["chance"].isna().tolist() == [name == "mINP" for name in table.index]


def test_chance_is_averaged_as_the_result_is() -> None:
    # a asks twice and has 1 of 3, b once and has 2 of 3, c has nobody.
    frame = pd.DataFrame(
        {
            "label": ["a", "a", "b", "c", "a", "b", "b"],
            "split": ["query"] * 4 + ["gallery"] * 3,
            "camera": pd.array([1] * 7, dtype="Int64"),
            "angle": [0, 5, 50, 90, 0, 50, 80],
            "path": [f"{row}.png" for row in range(7)],
            "source": "set",
        }
    )
    plan = _plan(Catalog(frame=frame, roots={"set": Path("/")}, cards={}, missing_splits={}), junk="none")
    queries, gallery = _embedded(plan.queries), _embedded(plan.gallery)

    def chance(**given: str) -> float:
        protocol = ReidProtocol(junk="none", ranks=(1,), **given)  # type: ignore[arg-type]
        found = chance_identification(evaluate_identification(queries, gallery, protocol), plan.gallery)
        return found["chance/rank-1"].value

    assert chance() == pytest.approx((1 / 3 + 1 / 3 + 2 / 3) / 3)
    assert chance(unmatched="zero") == pytest.approx((1 / 3 + 1 / 3 + 2 / 3 + 0) / 4)
    assert chance(average="identity") == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert chance(average="identity", unmatched="zero") == pytest.approx((1 / 3 + 2 / 3 + 0) / 3)


def test_chance_among_all_the_others(catalog: Catalog) -> None:
    plan = _plan(catalog, query_split="gallery", junk="itself")
    images = _embedded(plan.queries)
    result = evaluate_identification(images, images, ReidProtocol(junk=plan.junk, ranks=(1,), far=()))
    # a, a, b, b search the four others that are no junk and have one match each; the distractor has none and is left out
    assert (result.num_gallery, result.num_skipped) == (5, 1)
    assert chance_identification(result, plan.gallery)["chance/rank-1"].value == pytest.approx(1 / 4)


def test_curves_carry_intervals_where_the_metrics_are(catalog: Catalog) -> None:
    plan = _plan(catalog)
    result = evaluate_identification(_embedded(plan.queries), _embedded(plan.gallery), ReidProtocol(ranks=(1, 2)))
    table = cmc_table({"ours": result, "other": result}, "other", plan.gallery)
    ours = table[table["series"] == "ours"]
    assert ours["value"].tolist() == [0, 1, 1, 1, 1]
    assert ours["low"].notna().tolist() == [True, True, False, False, False]
    chance = table[table["series"] == "chance"].set_index("rank")["value"]
    assert chance.index.tolist() == [1, 2, 3, 5]
    # b has 2 of 5: among two drawn none with probability 3/5 * 2/4
    assert chance[2] == pytest.approx((2 / 4 + 1 - 3 / 10) / 2)
    assert chance[5] == 1
    assert table.groupby("series")["baseline"].first().to_dict() == {"ours": False, "other": True, "chance": True}


def test_ranked_lists_name_the_files_and_keep_the_marks(catalog: Catalog) -> None:
    plan = _plan(catalog)
    result = evaluate_identification(_embedded(plan.queries), _embedded(plan.gallery), ReidProtocol())
    (found,) = ranked_lists(result, plan.queries, plan.gallery, [0], k=2)
    assert found.query == Picture(Path("/set/0.png"))
    assert found.caption == "a, camera 1: average precision 50.0%, first right answer (of 1) at place 2"
    assert [one.path.name for one in found.answers["picture"]] == ["3.png", "6.png", "4.png"]
    assert found.answers["mark"].tolist() == ["junk", "wrong", "right"]
    assert found.answers["caption"].tolist()[1] == "b, camera 3, 0.9848"


def test_a_pooled_query_is_shown_by_its_first_picture(catalog: Catalog) -> None:
    queries = _embedded(_plan(catalog).queries.take(np.array([1, 0, 0])))
    gallery = _embedded(_plan(catalog).gallery)
    result = evaluate_identification(queries, gallery, ReidProtocol(tracklets="mean"))
    both = ranked_lists(result, queries.catalog, gallery.catalog, [0, 1], k=1)
    assert [one.query.path.name for one in both] == ["1.png", "0.png"]
    assert both[1].caption.startswith("a, camera 1, the first of 2 pictures that were pooled: average precision 50.0%")
    assert both[0].caption.startswith("b, camera 2: ")


def test_spread_queries_go_from_the_best_to_the_worst(catalog: Catalog) -> None:
    plan = _plan(catalog)
    result = evaluate_identification(_embedded(plan.queries), _embedded(plan.gallery), ReidProtocol())
    graded = result.per_query.assign(average_precision=[0.25, 0.75])
    assert spread_queries(replace(result, per_query=graded), 5) == [1, 0]
    assert spread_queries(replace(result, per_query=graded), 1) == [1]
    without = graded.assign(num_positives=[0, 1])
    assert spread_queries(replace(result, per_query=without), 5) == [1]


def test_embedders_get_names(tmp_path: Path) -> None:
    folder = tmp_path / "run_7" / "embedder"
    folder.mkdir(parents=True)
    named = named_embedders("timm:resnet10t", f"{folder}, {tmp_path / 'run_7'}x, mine = {folder}")
    assert named == {
        "timm:resnet10t": "timm:resnet10t",
        "run_7": str(folder),
        f"{tmp_path / 'run_7'}x": f"{tmp_path / 'run_7'}x",
        "mine": str(folder),
    }
    with pytest.raises(ValueError, match="'timm:resnet10t' stands twice"):
        named_embedders("timm:resnet10t", "timm:resnet10t")


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return build_embedder("timm:resnet10t", "random", image_size=(32, 32), seed=1)


def _drawn(catalog: Catalog, folder: Path) -> Catalog:
    rng = np.random.default_rng(0)
    for path in catalog.frame["path"]:
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / path)
    frame = catalog.frame.assign(group=pd.Series([None] * len(catalog), dtype="str"), domain="real")
    return replace(catalog, frame=frame, roots={"set": folder})


def test_flip_is_the_mean_with_the_mirror_image(catalog: Catalog, embedder: Embedder, tmp_path: Path) -> None:
    drawn = _drawn(catalog, tmp_path)
    options = {"cache": tmp_path / "cache", "device": "cpu", "progress": None}
    plain = embed_catalog(embedder, drawn, **options)  # type: ignore[arg-type]
    mirrored = embed_catalog(embedder, drawn, mirrored=True, **options)  # type: ignore[arg-type]
    mean_ND = (plain.embedding_ND + mirrored.embedding_ND) / 2
    mean_ND /= np.linalg.norm(mean_ND, axis=1, keepdims=True)
    np.testing.assert_allclose(embed_pictures(embedder, drawn, flip=True, **options).embedding_ND, mean_ND, atol=1e-6)
    assert np.array_equal(embed_pictures(embedder, drawn, flip=False, **options).embedding_ND, plain.embedding_ND)


def test_every_embedder_meets_every_data_set_under_its_rule(
    catalog: Catalog, embedder: Embedder, tmp_path: Path
) -> None:
    drawn = _drawn(catalog, tmp_path)
    plans = {"junk": _plan(drawn), "all": _plan(drawn, junk="none")}
    options = {"cache": tmp_path / "cache", "device": "cpu", "progress": None}
    crossed = cross_evaluate({"one": embedder}, plans, ReidProtocol(average="identity"), **options)
    assert list(crossed) == [("one", "junk"), ("one", "all")]
    for (_, data), result in crossed.items():
        assert result.protocol == ReidProtocol(junk=plans[data].junk, average="identity", input_size=(32, 32))
        plan = plans[data]
        queries, gallery = (
            embed_pictures(embedder, part, flip=False, **options) for part in (plan.queries, plan.gallery)
        )
        assert result.metrics == evaluate_identification(queries, gallery, result.protocol).metrics
