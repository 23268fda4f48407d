"""What a query gave in re-identification, as 07 compares it: worked by hand on fixture A of the protocols."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from workbench.data.card import read_card
from workbench.data.catalog import Catalog
from workbench.retrieval.query_hits import collect_identification_hits
from workbench.retrieval.reid import evaluate_distances
from workbench.retrieval.reid_protocol import ReidProtocol
from workbench.retrieval.reid_result import ReidResult

DISTANCE_QG = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.6, 0.5, 0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]])
QUERIES = ["1", "2", "9"]


def _catalog() -> Catalog:
    frame = pd.DataFrame({"path": ["a.jpg", "b.jpg", "c.jpg"], "label": QUERIES, "split": "query", "source": "set"})
    frame = frame.assign(camera=pd.array([0, 0, 0], dtype="Int64"), group=None, domain="real")
    return Catalog(frame, {"set": Path("/set")}, {"set": read_card("market1501")}, {})


def _evaluate(protocol: ReidProtocol) -> ReidResult:
    gallery_labels, gallery_cameras = ["1", "2", "1", "3", "1", "2"], [0, 1, 1, 1, 2, 0]
    return evaluate_distances(DISTANCE_QG, QUERIES, gallery_labels, [0, 0, 0], gallery_cameras, protocol)


def test_the_mean_of_the_hits_is_the_metric_and_who_has_no_match_is_left_out() -> None:
    result = _evaluate(ReidProtocol(junk="same_id_same_camera"))
    hits = collect_identification_hits(result, _catalog(), ("mAP", "rank-1", "rank-2"))
    # query 1 finds 1s at counted places 2 and 4: (1/2 + 2/4) / 2; query 2 at place 4: 1/4; query 9 has no match
    assert list(hits["mAP"].query_Q) == ["set/a.jpg", "set/b.jpg"]
    assert list(hits["mAP"].label_Q) == ["1", "2"]
    np.testing.assert_allclose(hits["mAP"].hit_DQ, [[0.5, 0.25]])
    np.testing.assert_allclose(hits["rank-1"].hit_DQ, [[0, 0]])
    np.testing.assert_allclose(hits["rank-2"].hit_DQ, [[1, 0]])
    for name, one in hits.items():
        assert one.hit_DQ.mean() == pytest.approx(result.metrics[name].value if name in result.metrics else 0.5)


def test_queries_that_count_as_zero_are_kept() -> None:
    protocol = ReidProtocol(junk="same_id_same_camera", unmatched="zero")
    hits = collect_identification_hits(_evaluate(protocol), _catalog())
    np.testing.assert_allclose(hits["mAP"].hit_DQ, [[0.5, 0.25, 0.0]])


def test_what_is_no_mean_over_pictures_is_not_kept() -> None:
    protocol = ReidProtocol(junk="same_id_same_camera")
    for changed in (replace(protocol, average="identity"), replace(protocol, tracklets="mean")):
        assert collect_identification_hits(_evaluate(changed), _catalog()) == {}
