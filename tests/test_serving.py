"""Serving's tables by hand: percentiles, ratios, shares and agreement from clocks that are known; one real tiny run."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from small_sets import draw_catalog
from torch import nn

from workbench.benchmarks import serving_cpu
from workbench.benchmarks.export_cost import measure_export
from workbench.benchmarks.serving import (
    COLUMNS,
    Candidate,
    Ready,
    by_wall_clock,
    measure_serving,
)
from workbench.benchmarks.serving_cpu import RUNTIMES, cpu_candidates, serve_on_cpu
from workbench.benchmarks.serving_gpu import gpu_candidates, gpu_product_limit, half_step
from workbench.benchmarks.serving_limit import Limit, count_flops, product_limit
from workbench.export.folder import ExportError
from workbench.export.onnx import export_onnx
from workbench.models.embedder import Embedder, build_embedder
from workbench.report.published_speed import beside_published, published_speed
from workbench.report.serving_figures import latency_by_batch, throughput_by_batch

IMAGES = np.zeros((3, 3, 2, 2), np.float32)
UNIT = np.array([[1.0, 0.0]], np.float32)
PRODUCT = Limit("product", 8e9, lambda: 2.0)  # 4 GFLOP/s


def ticking(*seconds: float) -> Callable[[], float]:
    """A clock that says these seconds in turn, from the front again after the last."""
    state = {"next": 0}

    def latency_s() -> float:
        value = seconds[state["next"] % len(seconds)]
        state["next"] += 1
        return value

    return latency_s


def fake(
    name: str, latency_s: Callable[[], float], *, row: np.ndarray = UNIT, precision: str = "fp32", stream_s: float = 0.0
) -> Candidate:
    def prepare(images_BCHW: np.ndarray) -> Ready:
        stream = (lambda num_calls: num_calls * stream_s) if stream_s else None
        return Ready(lambda: np.repeat(row, len(images_BCHW), axis=0), latency_s, stream)

    return Candidate(name, precision, prepare)


def measure(*candidates: Candidate, **options: object) -> pd.DataFrame:
    given = {"device": "abacus", "batches": (4,), "num_rounds": 1, "calls_a_round": 10, "budget_s": 1e6} | options
    table = measure_serving(candidates, IMAGES, 1e8, PRODUCT, **given)  # type: ignore[arg-type]
    assert list(table.columns) == list(COLUMNS)
    return table


def cells(table: pd.DataFrame, row: object, *columns: str) -> list[Any]:
    return [table.to_dict("index")[row][column] for column in columns]


def test_percentiles_and_rates_of_ten_known_calls() -> None:
    # three untimed calls come first (two to warm up, one to plan), and one at the turn's start
    clock = ticking(9, 9, 9, 9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    row = measure(fake("torch eager", clock)).iloc[0]
    assert (row["num_calls"], row["num_rounds"], row["batch"], row["device"]) == (10, 1, 4, "abacus")
    assert row["mean_ms"] == pytest.approx(550)
    # by nearest rank the 5th, 9th and 10th of ten
    assert [row[name] for name in ("p50_ms", "p90_ms", "p99_ms")] == pytest.approx([500, 900, 1000])
    assert row["images_per_s"] == pytest.approx(40 / 5.5)
    assert row["gflops"] == pytest.approx(0.1 * 40 / 5.5)
    assert (row["limit_gflops"], row["limit_images_per_s"]) == pytest.approx((4, 40))
    assert row["share_of_limit"] == pytest.approx(40 / 5.5 / 40)
    assert (row["speedup"], row["min_cosine"], row["agrees"], row["note"]) == (1, 1, True, "")


def test_a_speedup_is_that_of_the_fastest_rounds_with_the_range_of_all() -> None:
    # one call a round; untimed calls: two warm, one plan, then one before each timed one
    base = ticking(1, 1, 1, 1, 2, 1, 4, 1, 6)
    other = ticking(1, 1, 1, 1, 1, 1, 1, 1, 12)
    table = measure(fake("torch eager", base), fake("other", other), num_rounds=3, calls_a_round=1).set_index("runtime")
    # rounds: 2/1, 4/1, 6/12; the fastest of each: 2 s and 1 s
    assert cells(table, "other", "speedup", "speedup_low", "speedup_high") == pytest.approx([2, 0.5, 4])
    assert cells(table, "other", "images_per_s") == pytest.approx([12 / 14])  # 3 calls of 4 images in 1 + 1 + 12 s
    assert cells(table, "torch eager", "speedup", "speedup_low", "speedup_high") == [1, 1, 1]


def test_calls_that_overlap_give_the_images_a_second() -> None:
    row = measure(fake("torch eager", ticking(0.5)), fake("gpu", ticking(0.5), stream_s=0.1)).iloc[1]
    assert (row["p50_ms"], row["images_per_s"], row["speedup"]) == pytest.approx((500, 40, 5))


def test_a_slow_runtime_makes_fewer_calls_but_at_least_one() -> None:
    table = measure(fake("torch eager", ticking(1)), fake("slow", ticking(50)), num_rounds=2, budget_s=8)
    assert table["num_calls"].tolist() == [8, 2]


def test_answers_are_held_against_the_base() -> None:
    turned = np.array([[0.8, 0.6]], np.float32)
    nearly = np.array([[1.0, 0.005]], np.float32)  # cosine 0.9999875
    table = measure(
        fake("torch eager", ticking(1)),
        fake("wrong", ticking(1), row=turned),
        fake("fp32", ticking(1), row=nearly),
        fake("fp16", ticking(1), row=nearly, precision="fp16"),
        fake("int8", ticking(1), row=turned, precision="int8"),
        fake("broken", ticking(1), row=np.full((1, 2), np.nan, np.float32)),
        fake("longer", ticking(1), row=3 * UNIT),
    ).set_index("runtime")
    assert table["agrees"].tolist() == [True, False, False, True, None, False, True]
    assert table.loc[["wrong", "int8"], "min_cosine"].tolist() == pytest.approx([0.8, 0.8])
    with pytest.raises(ValueError, match="not one model"):
        measure(fake("torch eager", ticking(1)), fake("wide", ticking(1), row=np.ones((1, 3), np.float32)))


def test_what_is_not_available_says_why_in_its_row() -> None:
    def refuse(images_BCHW: np.ndarray) -> Ready:
        try:
            raise OSError("\nno C++ compiler g++\nmore")
        except OSError as error:
            raise ExportError("cannot compile") from error

    table = measure(fake("torch eager", ticking(1)), Candidate("torch.compile", "fp32", refuse), batches=(1, 2))
    assert table["batch"].tolist() == [1, 1, 2, 2]
    missing = table[table["runtime"] == "torch.compile"]
    assert missing["note"].tolist() == ["not available: OSError: no C++ compiler g++"] * 2
    assert missing[["num_calls", "mean_ms", "images_per_s", "speedup", "min_cosine"]].isna().all(axis=None)
    assert missing["agrees"].tolist() == [None, None]
    with pytest.raises(ValueError, match=r"base torch\.compile.*no C"):
        measure(Candidate("torch.compile", "fp32", refuse))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batches": ()}, "batches are"),
        ({"batches": (0, 1)}, "batches are"),
        ({"batches": (2, 2)}, "batches are"),
        ({"num_rounds": 0}, "at least 1"),
        ({"calls_a_round": 0}, "at least 1"),
        ({"budget_s": 0}, "above 0"),
    ],
)
def test_bad_sizes_are_refused_before_anything_runs(options: dict[str, object], words: str) -> None:
    def never(images_BCHW: np.ndarray) -> Ready:
        raise AssertionError("prepared")

    with pytest.raises(ValueError, match=words):
        measure(Candidate("torch eager", "fp32", never), **options)


def test_bad_candidates_and_images_are_refused() -> None:
    one = fake("torch eager", ticking(1))
    with pytest.raises(ValueError, match="each once"):
        measure(one, one)
    with pytest.raises(ValueError, match="at least one runtime"):
        measure()
    for images in (IMAGES[:0], IMAGES.astype(np.uint8), IMAGES[0]):
        with pytest.raises(ValueError, match="Images were wanted"):
            measure_serving([one], images, 1, PRODUCT, device="abacus")


class _Trunk(nn.Module):
    """3 channels to 5 by 3 x 3 at 8 x 6 px, then attention of 2 heads over the 48 places, then their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.wide = nn.Linear(5, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        tokens = self.wide(self.conv(images_NCHW).flatten(2).transpose(1, 2))
        out: torch.Tensor = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return out.mean(dim=1)


def test_flops_of_known_layers_the_fused_attention_included() -> None:
    small = build_embedder("timm:test_resnet", "random", image_size=(32, 32))
    preprocessing = replace(small.preprocessing, image_size=(8, 6))
    embedder = Embedder(_Trunk(), nn.Linear(4, 7, bias=False), preprocessing, {"embedding_dim": 7}).eval()  # type: ignore[arg-type]
    conv, wide = 2 * 48 * 5 * 3 * 9, 2 * 48 * 5 * 4
    attention = (
        2 * 48 * 4 * 12 + 2 * 2 * 2 * 48 * 48 * 2 + 2 * 48 * 4 * 4
    )  # in, two products of 2 heads of width 2, out
    assert count_flops(embedder) == conv + wide + attention + 2 * 4 * 7
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_product_counts_its_own_operations() -> None:
    limit = product_limit(64)
    assert limit.flops == 2 * 64**3
    assert limit.product_s() > 0
    answered = by_wall_clock(lambda: UNIT)
    assert answered.latency_s() >= 0
    assert answered.stream_s is None


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return build_embedder("timm:test_resnet", "random", image_size=(48, 32), seed=4)


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_real_run_of_every_file_runtime(embedder: Embedder, tmp_path: Path) -> None:
    catalog = draw_catalog(tmp_path / "set", num_classes=2, num_train=4, num_val=0)
    quick: dict[str, Any] = {"batches": (1, 3), "num_rounds": 2, "calls_a_round": 2, "budget_s": 1.0}
    runtimes = tuple(name for name in RUNTIMES if name != "inductor")  # a C++ compiler takes half a minute
    table = serve_on_cpu(embedder, catalog, num_threads=1, num_images=8, runtimes=runtimes, **quick)
    names = ["torch eager", "onnxruntime", "OpenVINO", "onnxruntime int8", "OpenVINO int8"]
    assert table["runtime"].tolist() == names * 2
    assert table["batch"].tolist() == [1] * 5 + [3] * 5
    assert table["note"].tolist() == [""] * 10
    assert table["agrees"].tolist() == [True, True, True, None, None] * 2
    assert (table["min_cosine"] > 0.9).all()
    ordered = table[["p50_ms", "p90_ms", "p99_ms"]].to_numpy(np.float64)
    assert (np.diff(ordered, axis=1) >= 0).all()
    assert table["device"].str.endswith(", 1 thread").all()
    assert np.allclose(table["gflops"], table["images_per_s"] * count_flops(embedder) / 1e9)


@pytest.mark.parametrize(("precision", "input"), [("fp16", "raw"), ("fp32", "uint8")])
def test_an_exported_folder_is_measured_as_it_is(
    precision: Any, input: Any, embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fed the pixels behind the normalised images, the file answers as torch does; nothing is exported anew."""
    folder = export_onnx(embedder, tmp_path / "out", precision, input)
    monkeypatch.setattr(serving_cpu, "export_onnx", None)
    catalog = draw_catalog(tmp_path / "set", num_classes=2, num_train=2, num_val=0)
    quick: dict[str, Any] = {"batches": (3,), "num_rounds": 1, "calls_a_round": 1, "runtimes": ("onnxruntime",)}
    table = serve_on_cpu(embedder, catalog, exported=folder, num_threads=1, **quick)
    name = "onnxruntime" if precision == "fp32" else f"onnxruntime {precision}"
    assert table[["runtime", "precision"]].to_numpy().tolist() == [["torch eager", "fp32"], [name, precision]]
    assert table["agrees"].tolist() == [True, True]
    other = build_embedder("timm:test_resnet", "random", image_size=(48, 32), seed=5)
    with pytest.raises(ValueError, match="exported from another embedder"):
        serve_on_cpu(other, catalog, exported=folder, **quick)


def test_wherever_the_embedder_is_left_a_copy_on_the_cpu_is_measured(tmp_path: Path) -> None:
    """A precision of its own stands for a GPU, which tests lack: either would fail on fp32 images of the CPU."""
    moved = build_embedder("timm:test_resnet", "random", image_size=(32, 32)).double().train()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    moved.to(device)
    catalog = draw_catalog(tmp_path / "set", num_classes=1, num_train=2, num_val=0)
    table = serve_on_cpu(
        moved, catalog, num_threads=1, precisions=("fp32",), runtimes=("onnxruntime",), batches=(1,), num_rounds=1,
        calls_a_round=1,
    )  # fmt: skip
    assert table["agrees"].tolist() == [True, True]
    weight = next(moved.parameters())
    assert (weight.dtype, weight.device.type, moved.training) == (torch.float64, device, True)


def test_int8_is_calibrated_on_the_images_given_for_it(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, trained = (
        draw_catalog(tmp_path / name, num_classes=1, num_train=num, num_val=0) for name, num in (("a", 2), ("b", 3))
    )
    seen: list[object] = []

    def stop(folder: Path, target: Path, catalog: object, **options: object) -> Path:
        seen.append(catalog)
        raise ExportError("seen")

    monkeypatch.setattr(serving_cpu, "quantise_onnx", stop)
    for calibration in (trained, None):
        with pytest.raises(ExportError, match="seen"):
            serve_on_cpu(embedder, asked, calibration=calibration)
    assert seen[0] is trained
    assert seen[1] is asked


def test_unknown_runtimes_and_unfit_exports_are_refused(embedder: Embedder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tflite"):
        cpu_candidates(embedder, {}, 1, ("torch", "tflite"))
    with pytest.raises(ValueError, match="at least 1"):
        cpu_candidates(embedder, {}, 0)
    folder = export_onnx(embedder, tmp_path / "long", normalised=False)
    with pytest.raises(ValueError, match=r"has fp32, \d+, not normalised"):
        cpu_candidates(embedder, {"fp32": folder}, 1)
    with pytest.raises(ValueError, match=r"in fp16, .* was wanted; .* has fp32"):
        cpu_candidates(embedder, {"fp16": folder}, 1)
    with pytest.raises(FileNotFoundError):
        cpu_candidates(embedder, {"fp32": tmp_path / "nothing"}, 1)
    catalog = draw_catalog(tmp_path / "set", num_classes=1, num_train=1, num_val=0)
    with pytest.raises(ValueError, match="precisions"):
        serve_on_cpu(embedder, catalog, precisions=("int4",))


@pytest.mark.slow
def test_the_cost_of_an_export_is_that_of_a_whole_one(tmp_path: Path) -> None:
    table = measure_export("timm:test_resnet", ("fp32",), image_size=(32, 32), num_threads=1, folder=tmp_path / "out")
    row = table.iloc[0]
    written = (tmp_path / "out" / "fp32" / "model.onnx").stat().st_size
    assert (row["precision"], row["num_files"], row["n"]) == ("fp32", 1, 1)
    assert row["file_gib"] == written / 2**30
    assert row["peak_gib"] >= row["before_gib"] > 0.05
    assert row["min_cosine"] >= 0.999999


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without a GPU says")
def test_without_a_gpu_its_rows_say_so(embedder: Embedder) -> None:
    table = measure(fake("torch eager", ticking(1)), *gpu_candidates(embedder))
    missing = table.iloc[1:]
    assert missing["transfers"].tolist() == ["without"] * 3 + ["with"] * 3
    assert missing["runtime"].tolist() == ["torch eager", "torch.compile, CUDA graph", "TensorRT, CUDA graph"] * 2
    assert missing["note"].str.contains("not available: ExportError: no CUDA GPU").all()
    with pytest.raises(ExportError, match="no CUDA GPU"):
        gpu_product_limit()


def test_the_half_step_keeps_head_and_norm_in_fp32(embedder: Embedder) -> None:
    images = torch.randn(2, 3, 48, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, wanted = half_step(embedder, "cpu")(images), embedder(images)
    assert found.dtype == torch.float32
    assert next(embedder.parameters()).dtype == torch.float32
    assert float((found * wanted).sum(dim=1).min()) > 0.9999


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu_every_way_answers_as_torch(embedder: Embedder) -> None:  # pragma: no cover
    images = np.random.default_rng(0).standard_normal((4, 3, 48, 32), dtype=np.float32)
    candidates = gpu_candidates(embedder, {"the step itself": half_step(embedder)})
    table = measure_serving(
        candidates,
        images,
        count_flops(embedder),
        gpu_product_limit(1024, 2),
        device="GPU",
        batches=(1, 4),
        num_rounds=2,
    )
    assert table["note"].tolist() == [""] * len(table)
    assert table["agrees"].tolist() == [True] * len(table)


def _ours(**columns: object) -> pd.DataFrame:
    row = {"runtime": "TensorRT, CUDA graph", "device": "NVIDIA A10, CUDA 13", "batch": 16, "precision": "fp16"}
    row |= {"transfers": "with", "mean_ms": 4.0, "images_per_s": 5380.0, **columns}
    return pd.DataFrame([row])


def test_published_speeds_are_one_row_a_setting() -> None:
    table = published_speed("ResNet101")
    row = table[(table["device"] == "A10") & (table["batch"] == 16)].iloc[0]
    assert (row["latency_ms"], row["images_per_s"], row["precision"], row["size"]) == (5.95, 2690, "fp16", "224x224")
    assert row["runtime"] == "trtexec"
    assert len(published_speed()) == len(published_speed().drop_duplicates(["system", "device", "batch", "precision"]))
    with pytest.raises(ValueError, match="ResNet101"):
        published_speed("ResNet18")


def test_beside_the_published_every_difference_is_named() -> None:
    table = beside_published(_ours(), "ResNet101", (224, 224)).set_index(["published_device", "published_batch"])
    assert cells(table, ("A10", 16), "ratio", "differs", "comparable") == [2.0, "", True]
    assert cells(table, ("A10", 1), "differs") == ["batch (16, published 1)"]
    words = "device (NVIDIA A10, CUDA 13, published Jetson AGX Orin 64GB)"
    assert cells(table, ("Jetson AGX Orin 64GB", 16), "differs", "comparable") == [words, False]
    longer = beside_published(_ours(device="NVIDIA A100-SXM4-80GB"), "ResNet101", (224, 224))
    assert not longer["comparable"].any(), "an A100 is no A10"
    eager = beside_published(_ours(runtime="torch eager", precision="fp32"), "ResNet101", (256, 128)).iloc[4]
    assert eager["differs"] == (
        "precision (fp32, published fp16), size (256x128, published 224x224), runtime (torch eager, published trtexec)"
    )


def test_beside_the_published_the_nearest_batch_stands_and_missing_rows_do_not() -> None:
    ours = pd.concat([_ours(batch=2), _ours(batch=8), _ours(batch=32, images_per_s=float("nan"))])
    table = beside_published(ours, "ResNet101", (224, 224))
    # of 2 and 8, 1 is nearer to 2; 16, 32 and 64 to 8
    assert dict(zip(table["published_batch"], table["batch"], strict=True)) == {1: 2, 16: 8, 32: 8, 64: 8}
    with pytest.raises(ValueError, match="transfers"):
        beside_published(ours.drop(columns="transfers"), "ResNet101", (224, 224))


def test_figures_hold_the_tables_numbers() -> None:
    base, other = fake("torch eager", ticking(1)), fake("<b>other", ticking(0.5), row=-UNIT)

    def refuse(images_BCHW: np.ndarray) -> Ready:
        raise ExportError("no compiler")

    table = measure(base, other, Candidate("torch.compile", "fp32", refuse), batches=(1, 4))
    published = published_speed("ResNet101")
    figure = throughput_by_batch(table, "a model", published=published)
    first, second, limit = figure.data[:3]
    assert list(first.x) == [1, 4]
    assert list(first.y) == [1, 4]
    assert list(second.y) == [2, 8]
    assert list(second.marker.symbol) == ["square-open"] * 2
    assert second.name == "&lt;b&gt;other"
    assert list(limit.y) == [40, 40]
    words = figure.layout.title.subtitle.text.replace("<br>", " ")
    for wanted in ("a model.", "abacus.", "n = 10 calls", "not available: ExportError: no compiler", "Hollow"):
        assert wanted in words
    assert sum(len(trace.x) for trace in figure.data[3:]) == len(published)
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    assert list(figure.layout.xaxis.tickvals) == [1, 4, 16, 32, 64]
    latency = latency_by_batch(table, "a model")
    assert [trace.y[0] for trace in latency.data] == [1000, 1000, 500, 500]
    with pytest.raises(ValueError, match="found none"):
        throughput_by_batch(table.iloc[2:3])
    with pytest.raises(ValueError, match="p90_ms"):
        latency_by_batch(table.drop(columns="p90_ms"))
