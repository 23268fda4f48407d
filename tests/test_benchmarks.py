"""The benchmark's contenders find the same numbers, its tables say what was found; no time is asserted anywhere."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_sets import draw_catalog

from workbench.benchmarks import bootstrap, catalog, few_shot, networks, reid, reranking, results
from workbench.benchmarks.coverage import (
    PairWorld,
    World,
    draw_pairs,
    draw_trials,
    simulate_coverage,
    simulate_differences,
    worlds,
)
from workbench.benchmarks.coverage_table import ThresholdWorld, simulate_thresholds
from workbench.benchmarks.growth import _predict, grow
from workbench.benchmarks.machine import describe_machine
from workbench.benchmarks.measure import (
    Answer,
    Contender,
    _ratios,
    compare_answers,
    measure_memory,
    race,
    time_contenders,
    unit_rows,
)
from workbench.benchmarks.plan import PARTS, plan_benchmark, read_parts
from workbench.data import catalog_cache
from workbench.models.embedder import open_embedder
from workbench.training.recipes import choose_recipe


def _fixed(**answers: Answer) -> list[Contender]:
    return [Contender(name, partial(dict, answer), name.startswith("ours")) for name, answer in answers.items()]


def _cell(table: pd.DataFrame, contender: str, column: str) -> float:
    return float(table.loc[table.index == contender, column].to_numpy()[0])


def test_answers_are_held_against_ours() -> None:
    found = _fixed(
        base={}, ours={"x": 1.0, "y": 2.0}, ours_too={"z": 3.0}, right={"x": 1.0}, wrong={"y": 2.5, "w": 0.0}
    )
    table = time_contenders(found, 2).set_index("contender")
    assert table["agrees"].tolist() == [None, True, True, True, False]
    assert _cell(table, "wrong", "difference") == 0.5
    assert table["compared"].tolist() == ["", "x, y", "z", "x", "y"]
    assert [_cell(table, "base", column) for column in ("ratio", "low", "high")] == [1, 1, 1]
    assert (table["low"] <= table["ratio"]).all()
    assert (table["ratio"] <= table["high"]).all()
    assert table["repetitions"].tolist() == [2] * 5


def test_contenders_take_turns_and_a_slow_one_sits_out() -> None:
    turns: list[str] = []

    def note(name: str) -> Answer:
        turns.append(name)
        return {}

    names = ["base", "a", "b"]
    contenders = [Contender(name, partial(note, name)) for name in names]
    table = time_contenders(contenders, 3)
    assert turns == ["base", *names, *names[::-1], *names]
    assert table["repetitions"].tolist() == [3, 3, 3]
    turns.clear()
    table = time_contenders(contenders, 3, budget_s=0)
    assert turns == ["base", *names, "base", "base"]
    assert table["repetitions"].tolist() == [3, 1, 1]


def test_a_ratio_is_that_of_the_least_times() -> None:
    table = _ratios({"base": {0: 2.0, 1: 1.0}, "slow": {0: 6.0, 1: 5.0}, "once": {0: 8.0}}, "base").set_index(
        "contender"
    )
    assert [_cell(table, "slow", column) for column in ("seconds", "ratio", "low", "high")] == [5, 5, 3, 5]
    assert [_cell(table, "once", column) for column in ("seconds", "ratio", "low", "high")] == [8, 8, 4, 8]


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="different names"):
        time_contenders([*_fixed(a={}), *_fixed(a={})])
    with pytest.raises(ValueError, match="at least 1 repetition"):
        time_contenders(_fixed(a={}), 0)
    with pytest.raises(ValueError, match="not finite"):
        compare_answers(_fixed(ours={}, a={}), {"ours": {}, "a": {"x": float("nan")}})
    with pytest.raises(ValueError, match="no contender nobody; there are matrix product, workbench"):
        race(reranking.rerank_contenders, reranking.TINY, reranking.TINY, 1, names=["nobody"])


@pytest.mark.parametrize("noise", [reid.WELL, reid.POORLY])
def test_every_way_to_reid_finds_the_same(noise: float) -> None:
    size = reid.ReidSize(60, 300, 64, 20, 6, noise)
    table = race(reid.reid_contenders, reid.TINY, size, 1).set_index("contender")
    assert list(table.index) == [
        "matrix product", "workbench", "workbench, with TAR at FAR", "every row sorted", "every pair sorted, for TAR at FAR",
        "scikit-learn", "torchmetrics", "workbench, no camera rule", "pytorch-metric-learning",
    ]  # fmt: skip
    assert table["agrees"].tolist() == [None, *[True] * 8]
    assert table.loc["every row sorted", "compared"] == "mAP, rank-1, mINP"
    assert table.loc["every pair sorted, for TAR at FAR", "compared"] == "TAR@FAR=1%, TAR@FAR=0.1%"
    assert table.loc["pytorch-metric-learning", "compared"] == "mAP without rule, rank-1 without rule"


def test_sorting_by_hand() -> None:
    """PROTOCOLS.md 2, fixture A, as angles: a cosine falls as the distance grows."""
    distance = np.array(
        [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.6, 0.5, 0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]]
    )
    pairs = reid.Pairs(
        1 - distance, np.eye(6), np.array([1, 2, 9]), np.array([1, 2, 1, 3, 1, 2]), np.zeros(3), np.array([0, 1, 1, 1, 2, 0])
    )  # fmt: skip
    found = reid.rank_by_sorting(pairs)
    assert found["mAP"] == pytest.approx(0.375)
    assert found["rank-1"] == 0
    assert found["mINP"] == pytest.approx((2 / 4 + 1 / 4) / 2)
    accepted = reid.accept_by_sorting(pairs, (0.1,))  # 13 non-matches: the 2nd nearest of them, .8, is the threshold
    assert accepted == {"TAR@FAR=10%": 0.0}


def test_every_way_to_a_few_shot_curve_finds_the_same() -> None:
    size = few_shot.FewShotSize(12, 6, 150, 48, (1, 2, 6), draws=3, peer_draws=2)
    table = race(few_shot.few_shot_contenders, few_shot.TINY, size, 1)
    peers = [
        f"{name}, 2 of 3 draws" for name in ("workbench", "search per point", "scikit-learn", "pytorch-metric-learning")
    ]
    assert table["contender"].tolist() == ["matrix product", "workbench", *peers]
    assert table["agrees"].tolist() == [None, *[True] * 5]
    assert table["compared"].tolist() == ["", "9 numbers", *["6 numbers"] * 4]
    whole = few_shot.few_shot_contenders(replace(size, peer_draws=3))
    assert [contender.name for contender in whole][1:3] == ["workbench", "search per point"]


def test_a_loop_over_replicates_finds_the_same_interval() -> None:
    size = bootstrap.BootstrapSize(3000, 60, 3, 1000)
    table = race(bootstrap.bootstrap_contenders, bootstrap.TINY, size, 1).set_index("contender")
    assert table.loc["a loop over replicates", "compared"] == "value, low, high"
    assert table.loc["a loop over replicates", "agrees"]
    assert 0 < _cell(table, "a loop over replicates", "difference") < 0.01


def test_reranking_equals_the_dense_algorithm() -> None:
    table = race(reranking.rerank_contenders, reranking.TINY, reranking.RerankSize(150, 24), 1).set_index("contender")
    assert table.loc["dense, as published", "agrees"]
    assert table.loc["dense, as published", "compared"] == "501 numbers"
    assert _cell(table, "dense, as published", "difference") < 1e-6


def test_memory_is_the_peak_above_the_inputs() -> None:
    size = reid.ReidSize(400, 10_000, 32, 100)
    table = measure_memory(reid.reid_contenders, reid.TINY, size, ["every row sorted"]).set_index("contender")
    assert list(table.index) == ["matrix product", "every row sorted"]
    matrix_mib = 400 * 10_000 * 4 / 2**20
    assert matrix_mib * 0.9 < _cell(table, "matrix product", "above_mib") < matrix_mib * 3
    assert _cell(table, "every row sorted", "above_mib") > matrix_mib * 2.5  # similarities and int64 places
    assert (table["before_mib"] > 20).all()


def _cheap(size: int) -> list[Contender]:
    names = ("base", "workbench", "slow") if size < 300 else ("base", "workbench")
    return [Contender(name, lambda: {}, name == "workbench") for name in names]


def test_growth_leaves_out_what_would_take_too_long() -> None:
    every = grow(_cheap, 1, {100: 100, 200: 200}, 1, limit_s=1e9)
    assert every["num_rows"].tolist() == [100] * 3 + [200] * 3
    none = grow(_cheap, 1, {100: 100, 200: 200}, 1, limit_s=0.0)
    assert none["num_rows"].tolist() == [100] * 3 + [200]
    assert none["contender"].tolist() == ["base", "workbench", "slow", "base"]
    assert _predict([], 5) == 0
    assert _predict([(10, 2.0)], 30) == 6
    assert _predict([(10, 1.0), (20, 4.0)], 40) == pytest.approx(16)  # quadratic
    assert _predict([(10, 4.0), (20, 4.0)], 40) == pytest.approx(8)  # at least linear


def test_drawn_rows_have_the_stated_cosines() -> None:
    rng = np.random.default_rng(0)
    rows = unit_rows(rng, rng.standard_normal((2, 2000), dtype=np.float32), np.repeat([0, 1], 20), 3.0)
    cosine = rows @ rows.T
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
    assert cosine[:20, :20][~np.eye(20, dtype=bool)].mean() == pytest.approx(0.1, abs=0.01)
    assert cosine[:20, 20:].mean() == pytest.approx(0, abs=0.01)


def test_embedding_and_training_do_the_work_of_the_bare_loops(tmp_path: Path) -> None:
    model = open_embedder("timm:resnet10t", "random", image_size=(32, 32))
    catalog = draw_catalog(tmp_path, num_classes=3, num_train=4, num_val=2)
    table = networks.time_embedding(model, catalog, 4, 1, "cpu").set_index("contender")
    assert table.loc["forward pass", "agrees"]
    assert table.loc["forward pass", "compared"] == "18 numbers"
    recipe = choose_recipe("scratch", num_steps=4, batch_size=4, num_workers=0)
    table = networks.time_training(model, catalog, recipe, 1, warmup_steps=1, device="cpu").set_index("contender")
    assert table.index[0] == "bare loop"
    assert table["agrees"].all()
    assert table.loc["bare loop", "compared"] == "loss 1, loss 2, loss 3"
    assert table["images_per_s"].to_numpy() == pytest.approx(12 / table["seconds"].to_numpy())
    with pytest.raises(ValueError, match="more than 4 num_steps"):
        networks.time_training(model, catalog, recipe, 1, warmup_steps=4)


def test_intervals_hold_the_truth_in_the_simulation() -> None:
    chosen = [*worlds((20, 81), (0.6, 0.9), ("equal", "lognormal"), (10,), ("micro",))]
    chosen += worlds((20, 315), (0.97,), ("long tail",), (1,))  # 89 to 92 % before
    table = simulate_coverage(chosen, num_trials=500, seed=1, num_replicates=300)
    error = np.sqrt(0.93 * 0.07 / 500)
    assert (table["covered"] > 0.93 - 3 * error).all()
    assert table["covered"][4:8].mean() == pytest.approx(0.95, abs=0.02)  # 81 labels; of 20 it is more
    assert (1 - table["below"] - table["above"]).to_numpy() == pytest.approx(table["covered"].to_numpy())
    assert (table["low"] < table["covered"]).all()
    wide, narrow = (table[:8].loc[table["num_classes"][:8] == count, "width"].mean() for count in (20, 81))
    assert wide / narrow == pytest.approx(2, abs=0.35)


def test_intervals_of_differences_hold_the_truth_near_no_difference() -> None:
    near = [(20, 20, 0.02, 0.0), (80, 8, 0.0, 0.02), (80, 8, 0.002, 0.002), (200, 20, 0.005, 0.0), (200, 1, 0.01, 0.01)]
    chosen = [PairWorld(*one, icc) for one in near for icc in ((0.0, 0.1, 0.3) if one[1] > 1 else (0.0,))]
    chosen.append(PairWorld(80, 20, 0.2, 0.1, 0.1))
    table = simulate_differences(chosen, num_trials=600, seed=1, num_replicates=200)
    error = np.sqrt(0.93 * 0.07 / 600)
    assert (table["covered"] > 0.93 - 3 * error).all()  # 85 to 91 % in five of them before
    assert table["covered"].iloc[-1] == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 600))
    by_icc = table[:3]["marked"].to_numpy()
    assert by_icc[0] < 0.02 < by_icc[2]


def test_pairs_of_models_are_as_described() -> None:
    gain_TC, loss_TC, count_C = draw_pairs(PairWorld(50, 8, 0.1, 0.3, 0.2), 400, np.random.default_rng(0))
    assert count_C.tolist() == [8] * 50
    assert gain_TC.mean() / 8 == pytest.approx(0.1, abs=0.005)
    assert loss_TC.mean() / 8 == pytest.approx(0.3, abs=0.01)
    assert ((gain_TC + loss_TC) <= 8).all()
    assert loss_TC.var() / 8 == pytest.approx(0.21 * (1 + 7 * 0.2), rel=0.05)  # the design effect


def test_thresholds_of_few_unknown_labels_are_marked() -> None:
    table = simulate_thresholds([ThresholdWorld(20, 5)], 20).set_index("measure")
    assert table["marked"].to_dict() == {"AUROC": 0, "FPR@TPR=95%": 1, "DIR@FAR=5%": 1}
    assert (table["covered"] > 0.6).all()


def test_the_worlds_are_as_described() -> None:
    every = list(worlds())
    assert len(every) == 3 * 3 * 2 * (1 + 2 + 2)
    assert {world.average for world in every if world.class_sizes == "equal"} == {"micro"}
    rng = np.random.default_rng(0)
    mean_TDC, count_C = draw_trials(World(81, 0.8, "long tail", 4), 300, rng)
    assert mean_TDC.shape == (300, 4, 81)
    assert count_C[:3].tolist() == [400, 200, 133]
    assert count_C.min() == 4
    assert mean_TDC.mean() == pytest.approx(0.8, abs=0.01)
    assert mean_TDC[:, :, 0].mean(axis=1).var() == pytest.approx(0.1 * 0.16, rel=0.3)  # of the classes
    assert (mean_TDC[:, 0] != mean_TDC[:, 1]).any()  # draws differ


def test_a_set_of_many_files_is_opened_whole_both_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_cache, "MIN_ROWS", 10)
    size = catalog.CatalogSize(50, 7)
    answers = {contender.name: contender.run() for contender in catalog.catalog_contenders(size)}
    assert answers[catalog.BASE] == answers["workbench"] == answers["workbench, second time"] == {"files": 50.0}
    root = Path(catalog._made(size).name)
    assert len(list((root / "warm").glob("*.parquet"))) == 1
    assert len({path.parent.name for path in (root / "many_files").rglob("*.jpg")}) == 7


def test_plans_and_parts() -> None:
    assert read_parts("all") == PARTS
    assert read_parts(" coverage, reid ") == ("reid", "coverage")
    for wrong in ("", "everything", "reid, speed"):
        with pytest.raises(ValueError, match="parts names some of"):
            read_parts(wrong)
    published = plan_benchmark("published", query_share=0.05)
    assert (
        published.reid["poorly separated"].describe().startswith("3,368 queries x 19,732 rows x 512, 751 individuals")
    )
    assert published.few_shot.num_queries == 2935
    assert len(published.few_shot.shots) == 19
    assert max(published.rerank) == 23_100
    assert published.limits["reid"]["workbench"] == 2.5
    assert plan_benchmark("small").limits["reid"] == {}
    assert plan_benchmark("market1501").reid == published.reid
    with pytest.raises(ValueError, match="share of queries"):
        plan_benchmark("published", query_share=0.0)
    with pytest.raises(ValueError, match="Wanted sizes"):
        plan_benchmark("large")  # type: ignore[arg-type]


def test_results_in_words_and_metrics() -> None:
    table = pd.DataFrame(
        {
            "contender": ["product", "workbench", "fast", "slow", "middle"],
            "ours": [False, True, False, False, False],
            "ratio": [1.0, 2.0, 0.5, 1234.0, 20.0],
            "low": [1.0, 1.5, 0.4, 1000.0, 19.0],
            "high": [1.0, 3.0, 0.6, 2000.0, 30.0],
            "repetitions": 3,
            "does": ["", "", "little", "much", ""],
            "agrees": [None, True, False, True, True],
            "images_per_s": [100.0, 85.0, 1, 1, 1],
        }
    )
    said = results.say_ratios(table, "product")
    assert said == "Workbench takes 2 times product; fast 0.5 times; slow 1,234 times; another answer: fast."
    assert results.say_speed(table, "the bare loop") == "Ours does 85% of the 100.0 images/s of the bare loop."
    metrics = results.ratio_metrics(table, "task", "product", "tiny")
    assert (metrics["ratio/task/slow"].value, metrics["ratio/task/slow"].low, metrics["ratio/task/slow"].n) == (
        1234,
        1000,
        3,
    )
    assert metrics["ratio/task/slow"].protocol.endswith("tiny; much")
    times = results.collect_times({"a": table, "b": table.assign(num_rows=7)})
    assert tuple(times.columns) == results.COLUMNS
    conclusion = results.conclude(times)
    assert conclusion.answer == "a 2, b 2"
    assert conclusion.details["answers that agree with ours"] == "4 of 6"
    assert conclusion.details["another answer"] == "fast (a), fast (b)"
    assert results.conclude(results.collect_times({})).answer == "no part was timed"
    memory = pd.DataFrame({"contender": ["workbench", "dense", "huge"], "above_mib": [12.4, 4096.0, np.nan]})
    assert results.say_memory(memory) == "Ours takes 12 MiB above the inputs; huge did not fit."
    assert results.say_memory(memory[:2]) == "Ours takes 12 MiB above the inputs; dense takes 4,096."
    assert list(results.memory_metrics(memory, "t", "c")) == ["memory_mib/t/workbench", "memory_mib/t/dense"]
    simulated = simulate_coverage([World(20)], 100)
    (name,) = results.coverage_metrics(simulated)
    assert name == "coverage/20/equal/0.9/10/micro"
    assert "of the intervals hold the truth" in results.say_coverage(simulated)


def test_the_machine_is_described() -> None:
    machine = describe_machine().set_index("what")["found"]
    assert "usable of" in machine["cores"]
    assert "torchmetrics" in machine["versions"]
    assert "torch: " in machine["threads"]
    assert "GiB available" in machine["memory"]
