"""Embedding and training against the same work on tensors that lie ready: what decoding, loading and bookkeeping cost.

Axes: N images, B images of a batch.
"""

import copy
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from workbench.benchmarks.measure import Answer, Contender, time_contenders
from workbench.benchmarks.pictures import usable_pictures
from workbench.data.catalog import Catalog
from workbench.models.device import choose_device
from workbench.models.embedder import Embedder
from workbench.models.heads import HeadOutputs
from workbench.retrieval.embed import embed_catalog
from workbench.training.loading import load_batches
from workbench.training.loop import train
from workbench.training.prepare import prepare, ready_embedder
from workbench.training.recipe import Recipe
from workbench.training.state import build_state
from workbench.training.steps import autocast, compute_outputs

_COMPARED = 3  # steps whose losses are compared; rounding, amplified step by step, parts them later


def embedding_contenders(
    embedder: Embedder, catalog: Catalog, batch_size: int = 32, device: str = "auto"
) -> list[Contender]:
    """Returns the forward pass over images that are decoded, the base, and `embed_catalog` from files, without its cache.

    Both answer with one number an image, its embedding's projection on a fixed direction.
    """
    chosen = choose_device(device)
    preprocessing = embedder.preprocessing
    catalog, inputs_NHWC = usable_pictures(catalog, preprocessing)
    images_NHWC = torch.from_numpy(inputs_NHWC)
    direction_D = np.random.default_rng(0).standard_normal(embedder.embedding_dim)
    embedder = embedder.to(chosen).eval()

    def answer(embedding_ND: np.ndarray) -> Answer:
        return {f"image {row}": float(value) for row, value in enumerate(embedding_ND @ direction_D)}

    def forward() -> Answer:
        parts = []
        with torch.inference_mode():
            for images in images_NHWC.split(batch_size):
                parts.append(embedder(preprocessing.normalise(images.to(chosen))).cpu())
        return answer(torch.cat(parts).numpy())

    def ours() -> Answer:
        with tempfile.TemporaryDirectory() as cache:
            options = {"batch_size": batch_size, "device": device, "cache": Path(cache), "progress": None}
            return answer(np.array(embed_catalog(embedder, catalog, **options).embedding_ND))  # type: ignore[arg-type]

    return [
        Contender("forward pass", forward, tolerance=1e-3, does="decoded images in memory"),
        Contender("workbench", ours, True, does="from files: read, hash, decode, embed, save"),
    ]


def time_embedding(
    embedder: Embedder, catalog: Catalog, batch_size: int = 32, repetitions: int = 3, device: str = "auto"
) -> pd.DataFrame:
    """Returns `time_contenders` of `embedding_contenders`, and images_per_s."""
    catalog, _ = usable_pictures(catalog, embedder.preprocessing)
    table = time_contenders(embedding_contenders(embedder, catalog, batch_size, device), repetitions)
    return table.assign(images_per_s=len(catalog) / table["seconds"])


def time_training(
    embedder: Embedder,
    catalog: Catalog,
    recipe: Recipe,
    repetitions: int = 3,
    warmup_steps: int = 3,
    device: str = "auto",
) -> pd.DataFrame:
    """Returns training steps against a bare loop (forward, loss, backward, optimiser) over the very same batches in memory.

    Counted are the steps after `warmup_steps`, while which workers start. On a CPU training leaves one core to the processes that
    prepare images; the base is a bare loop with all threads, and one with the threads that training has stands beside it.

    Args:
        embedder: where to start; not changed.
        catalog: images to train on.
        recipe: its num_steps are done in each round; rates are constant, without a moving average.
        repetitions: rounds, in which the contenders take turns.
        warmup_steps: not counted.
        device: auto, cpu, cuda.

    Returns:
        The columns of `time_contenders` and images_per_s. Compared are the losses of the first steps.

    Raises:
        ValueError: a recipe without num_steps above warmup_steps.
    """
    num_steps = recipe.num_steps or 0
    if num_steps <= warmup_steps:
        raise ValueError(f"The recipe must have more than {warmup_steps} num_steps, found {recipe.num_steps}.")
    recipe = replace(recipe, schedule="constant", warmup_steps=0, ema_decay=0.0, accumulation_steps=1, clip_grad=0.0)
    data = prepare(recipe, embedder.preprocessing, catalog, None, None)
    samples = data.sampler.batches(0, recipe.batch_size, num_steps)
    batches = list(islice(load_batches(data.training, samples, 0, pin=False), num_steps))
    num_threads, chosen = torch.get_num_threads(), choose_device(device)
    fewer = max(1, num_threads - 1)
    spans: dict[str, list[float]] = {}

    def spent(name: str, ticks: Sequence[float], losses: Sequence[float]) -> Answer:
        spans.setdefault(name, []).append(ticks[-1] - ticks[warmup_steps - 1] if warmup_steps else ticks[-1])
        return {f"loss {step}": loss for step, loss in enumerate(losses[:_COMPARED], 1)}

    def bare(name: str, threads: int) -> Answer:
        own = ready_embedder(copy.deepcopy(embedder), recipe)
        state = build_state(own, recipe, np.bincount(data.sampler.label_N), chosen)
        losses, ticks = [], []
        torch.set_num_threads(threads)
        for images_NHWC, label_N in batches:
            state.optimizer.zero_grad(set_to_none=True)
            with autocast(chosen, recipe.amp):
                outputs = compute_outputs(state.embedder, images_NHWC.to(chosen))
            loss = state.model["loss"](HeadOutputs(*(one.float() for one in outputs)), label_N.to(chosen))
            loss.backward()
            state.optimizer.step()
            losses.append(float(loss.detach()))
            ticks.append(time.perf_counter())
        torch.set_num_threads(num_threads)
        return spent(name, ticks, losses)

    def ours(name: str) -> Answer:
        ticks: list[float] = []
        with tempfile.TemporaryDirectory() as folder:
            result = train(
                recipe, embedder, catalog, None, Path(folder) / "run", device=device,
                on_step=lambda _: ticks.append(time.perf_counter()), log=lambda _: None,
            )  # fmt: skip
        return spent(name, ticks, result.history["loss"].tolist())

    contenders = [
        Contender("bare loop", lambda: bare("bare loop", num_threads), tolerance=0.05, does=f"{num_threads} threads"),
        Contender("workbench", lambda: ours("workbench"), True, does=f"from files, {recipe.num_workers} workers"),
    ]
    if chosen.type == "cpu" and fewer < num_threads:
        name = "bare loop, training's threads"
        contenders.append(Contender(name, lambda: bare(name, fewer), tolerance=0.05, does=f"{fewer} threads"))
    table = time_contenders(contenders, repetitions)
    return _by_span(table, spans, repetitions, (num_steps - warmup_steps) * recipe.batch_size)


def _by_span(table: pd.DataFrame, spans: dict[str, list[float]], rounds: int, num_images: int) -> pd.DataFrame:
    """Returns the table with times and ratios of the counted steps in place of those of whole runs."""
    rows = {name: np.array(each[-rounds:]) for name, each in spans.items()}  # an unmeasured run of the base came first
    base = next(iter(table["contender"]))
    table = table.copy()
    for index, name in enumerate(table["contender"]):
        each = rows[name] / rows[base]
        values = rows[name].min(), rows[name].min() / rows[base].min(), each.min(), each.max()
        table.loc[index, ["seconds", "ratio", "low", "high"]] = values
    return table.assign(images_per_s=num_images / table["seconds"])
