"""What each query of an evaluation gave, by metric, in the form that a run keeps (`runs.hits.save_hits`)."""

from collections.abc import Mapping

import numpy as np

from workbench.data.catalog import Catalog
from workbench.retrieval.few_shot import FewShotResult
from workbench.retrieval.recognition import RecognitionPlan, name_metrics
from workbench.runs.hits import Hits


def collect_hits(plan: RecognitionPlan, results: Mapping[str, FewShotResult], queries: Catalog) -> dict[str, Hits]:
    """What each query gave at accuracy@1, by metric (micro) and for all shots, as `runs.hits.save_hits` keeps it.

    Args:
        plan: what was asked.
        results: of each reference set.
        queries: the rows of the evaluated embeddings.
    """
    query_N = query_names(queries)
    hits: dict[str, Hits] = {}
    for name, result in results.items():
        for shots in result.protocol.shots:
            measure = f"accuracy@1/shots={shots}"
            (key,) = name_metrics({f"{measure}/micro": result.metrics[f"{measure}/micro"]}, plan, name)
            hits[key] = Hits(query_N[result.hit_queries], result.hit_labels, result.hits[measure])
    return hits


def query_names(queries: Catalog) -> np.ndarray:
    """The name of each image, the same in every run: its source and path, joined by `/`; object array of str."""
    return (queries.frame["source"] + "/" + queries.frame["path"]).to_numpy(dtype=object)
