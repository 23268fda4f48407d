"""What a run of the benchmark measures, by size."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from workbench.benchmarks import bootstrap, catalog, coverage, few_shot, reranking
from workbench.benchmarks.reid import POORLY, WELL, ReidSize, grown

Sizes = Literal["small", "market1501", "published"]
PARTS = ("reid", "memory", "growth", "few_shot", "bootstrap", "rerank", "embedding", "training", "catalog", "coverage")


@dataclass(frozen=True)
class Plan:
    """The sizes of every part.

    Attributes:
        reid: by what the embeddings are like.
        memory: contenders whose memory is measured, besides the bare product; None: all.
        growth: the same task by rows of the gallery.
        few_shot, bootstrap: sizes.
        rerank: by number of images.
        worlds: of the coverage; num_trials: in each.
        num_images: that are embedded; num_steps: of training.
        catalog: files that are opened as a set.
        limits: by part, the ratio that a contender should stay below; none at sizes that the limit was not set for, where fixed costs
            count.
    """

    reid: dict[str, ReidSize]
    memory: tuple[str, ...] | None
    growth: dict[int, ReidSize]
    few_shot: few_shot.FewShotSize
    bootstrap: bootstrap.BootstrapSize
    rerank: dict[int, reranking.RerankSize]
    worlds: tuple[coverage.World, ...]
    num_trials: int
    num_images: int
    num_steps: int
    catalog: catalog.CatalogSize
    limits: dict[str, dict[str, float]]


def plan_benchmark(sizes: Sizes, seed: int = 0, query_share: float = 0.05, smoke: bool = False) -> Plan:
    """Returns the sizes of a run.

    Args:
        sizes: "small" takes minutes on a CPU; "market1501" has re-identification at that set's size; "published" has all
            parts at published scale.
        seed: of all that is drawn.
        query_share: share of NVIDIA's 58,699 queries that the published few-shot sweep asks, above 0, at most 1.
        smoke: sizes of a few seconds, to see that everything runs.

    Raises:
        ValueError: sizes that there are not, or a share that is none.
    """
    if sizes not in get_args(Sizes) or not 0 < query_share <= 1:
        raise ValueError(
            f"Wanted sizes of {get_args(Sizes)} and a share of queries in (0, 1], found {sizes!r}, {query_share}."
        )
    market = ReidSize(seed=seed)
    small = replace(market, num_queries=600, num_gallery=4000, dim=256, num_identities=150)
    trial = replace(market, num_queries=60, num_gallery=400, dim=32, num_identities=20)
    kinds = {"well separated": WELL, "poorly separated": POORLY}
    chosen = trial if smoke else small if sizes == "small" else market
    drawn = {kind: replace(chosen, noise=noise) for kind, noise in kinds.items()}
    full = sizes == "published" and not smoke
    limits: dict[str, dict[str, float]] = {"reid": {}, "few_shot": {}, "training": {}}
    if sizes != "small" and not smoke:
        limits["reid"] = {"workbench": 2.5, "workbench, with TAR at FAR": 4.0}
    if full:
        limits |= {"few_shot": {"workbench": 5.0}, "training": {"workbench": 1 / 0.85}}
    sweep = few_shot.FewShotSize(seed=seed)
    sweep = replace(sweep, num_queries=round(sweep.num_queries * query_share))
    if not full:
        shots = (1, 2) if smoke else (1, 2, 5, 10, 20)
        sweep = few_shot.FewShotSize(
            8 if smoke else 40, shots[-1], 40 if smoke else 800, 64 if smoke else 256, shots, 3, 1
        )
    simulated = coverage.worlds() if full else coverage.worlds(accuracies=(0.9,), draws=(10,), averages=("micro",))
    worlds = tuple(coverage.worlds((20,), (0.9,), ("equal",), (10,)) if smoke else simulated)
    rows = (200, 400) if smoke else (1000, 2000, 5000, 10_000, 20_000, *((50_000, 100_000, 200_000) if full else ()))
    asking = replace(trial if smoke else market, num_queries=20 if smoke else 512 if full else 100)
    images = (100,) if smoke else (500, 1000, 2000, *((6000, 23_100) if full else ()))
    some = ("workbench", "every row sorted", "pytorch-metric-learning")
    return Plan(
        reid=drawn,
        memory=some[:1] if smoke else None if sizes != "small" else some,
        growth={count: grown(asking, count) for count in rows},
        few_shot=replace(sweep, seed=seed),
        bootstrap=replace(bootstrap.TINY, seed=seed) if smoke else bootstrap.BootstrapSize(seed=seed),
        rerank={count: reranking.RerankSize(count, 64 if smoke else 512, seed) for count in images},
        worlds=worlds,
        num_trials=100 if smoke else 1000,
        num_images=16 if smoke else 512 if full else 96,
        num_steps=5 if smoke else 40 if full else 12,
        catalog=catalog.TINY if smoke else catalog.CatalogSize() if full else catalog.CatalogSize(40_000, 200),
        limits=limits,
    )


def read_parts(parts: str) -> tuple[str, ...]:
    """Returns the parts named, in the order of `PARTS`; "all" are all.

    Raises:
        ValueError: a name that is none, or no name.
    """
    named = [part.strip() for part in parts.split(",") if part.strip()]
    unknown = sorted({*named} - {*PARTS, "all"})
    if unknown or not named:
        raise ValueError(f"parts names some of {', '.join(PARTS)}, or all; found {', '.join(unknown) or 'nothing'}.")
    return PARTS if "all" in named else tuple(part for part in PARTS if part in named)
