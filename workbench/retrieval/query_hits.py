"""What each query of an evaluation gave, by metric, in the form that a run keeps (`runs.hits.save_hits`)."""

from collections.abc import Mapping, Sequence

import numpy as np

from workbench.data.catalog import Catalog
from workbench.retrieval.recognition import RecognitionPlan, Result, name_metrics
from workbench.retrieval.reid_result import ReidResult
from workbench.runs.hits import Hits


def collect_hits(plan: RecognitionPlan, results: Mapping[str, Result], queries: Catalog) -> dict[str, Hits]:
    """What each query gave, by metric (micro): accuracy@1 for all shots, or recall@1 and MAP@R; as `runs.hits.save_hits` keeps it.

    Args:
        plan: what was asked.
        results: of each reference set.
        queries: the rows of the evaluated embeddings.
    """
    query_N = query_names(queries)
    hits: dict[str, Hits] = {}
    for name, result in results.items():
        for measure in result.measures:
            (key,) = name_metrics({f"{measure}/micro": result.metrics[f"{measure}/micro"]}, plan, name)
            hits[key] = Hits(query_N[result.hit_queries], result.hit_labels, result.hits[measure])
    return hits


def collect_identification_hits(
    result: ReidResult, queries: Catalog, names: Sequence[str] = ("mAP", "rank-1")
) -> dict[str, Hits]:
    """What each query gave, by metric, queries without a match left out as the protocol has it.

    Empty where a metric is no mean over pictures that ask: pooled tracklets, or a mean within each individual first.

    Args:
        result: of the evaluation.
        queries: the rows of the evaluated embeddings.
        names: mAP, mINP or rank-k.
    """
    if result.protocol.tracklets != "none" or result.protocol.average != "query":
        return {}
    values = {name: result.values_by_query(name) for name in names}
    query_Q, label_Q = query_names(queries), result.per_query["label"].to_numpy(dtype=object)
    asked = {name: ~np.isnan(value_Q) for name, value_Q in values.items()}
    return {
        name: Hits(query_Q[asked[name]], label_Q[asked[name]], np.atleast_2d(value_Q[asked[name]]))
        for name, value_Q in values.items()
    }


def query_names(queries: Catalog) -> np.ndarray:
    """The name of each image, the same in every run: its source and name (see `Catalog.names`), joined by `/`; object array of str."""
    pairs = zip(queries.frame["source"], queries.names(), strict=True)
    return np.array([f"{source}/{name}" for source, name in pairs], dtype=object)
