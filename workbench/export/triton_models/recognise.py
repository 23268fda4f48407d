"""Embeddings in, product names out: the nearest labels of a gallery, their similarities, and the decision or *unknown*.

`references.npy` (float32 [N, D], rows of length 1), `codes.npy` (int64 [N], which label) and `recognise.json` lie beside this
file. Axes: N references, D the width, B queries, C labels, K answers a query. Runs inside Triton.
"""

import importlib
import json
from pathlib import Path

import numpy as np


def nearest_labels(embedding_ND: np.ndarray, code_N: np.ndarray, query_BD: np.ndarray, k: int) -> tuple:
    """Similarity (float32) and code of the `k` nearest distinct labels, [B, k], the best first.

    Equal similarities come in ascending order of the row. The float32 product only chooses candidates; theirs are summed in
    float64, each pair alone, so that an answer does not depend on the batch.

    Args:
        embedding_ND: rows of length 1.
        code_N: 0 to C-1, each there.
        query_BD: float32, finite, no row all zero; scaled to length 1 here.
        k: 1 to C.
    """
    by_label = np.argsort(code_N, kind="stable")
    starts = np.searchsorted(code_N[by_label], np.arange(code_N.max() + 1))
    # twice the bound of a float32 sum of D products of unit vectors in any order, on both sides
    margin = 2 * embedding_ND.shape[1] * np.finfo(np.float32).eps
    similarity_BK = np.empty((len(query_BD), k), dtype=np.float32)
    code_BK = np.empty((len(query_BD), k), dtype=np.int64)
    for place, query_D in enumerate(_unit_rows(query_BD)):
        rough_N = embedding_ND @ query_D
        best_C = np.maximum.reduceat(rough_N[by_label], starts)
        row_W = np.flatnonzero(rough_N >= np.partition(best_C, -k)[-k] - margin)
        pairs_WD = embedding_ND[row_W].astype(np.float64) * query_D.astype(np.float64)
        similarity_W = pairs_WD.sum(axis=1).astype(np.float32)
        order_W = np.lexsort((row_W, -similarity_W))
        code_W = code_N[row_W[order_W]]
        first_K = np.sort(np.unique(code_W, return_index=True)[1])[:k]
        similarity_BK[place], code_BK[place] = similarity_W[order_W][first_K], code_W[first_K]
    return similarity_BK, code_BK


def is_accepted(similarity_B: np.ndarray, threshold: float) -> np.ndarray:
    """Whether each similarity lies above the threshold, in the fewest digits that tell it: the number that is shown."""
    return np.array([float(str(value)) > threshold for value in similarity_B], dtype=bool)


def probability(similarity_B: np.ndarray, calibration: dict) -> np.ndarray:
    """The probability that the first label is right, float64 [B]."""
    values_B = similarity_B.astype(np.float64)
    if calibration["method"] == "isotonic":
        return np.interp(values_B, calibration["knots"], calibration["levels"])
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-(calibration["intercept"] + calibration["slopes"][0] * values_B)))


class TritonPythonModel:
    """The model as Triton's Python backend calls it."""

    def initialize(self, args: dict) -> None:
        """Reads the references and the settings."""
        self.triton = importlib.import_module("triton_python_backend_utils")
        beside = Path(__file__).with_name
        self.settings = json.loads(beside("recognise.json").read_text(encoding="utf-8"))
        self.embedding_ND, self.code_N = np.load(beside("references.npy")), np.load(beside("codes.npy"))
        self.label_C = np.array([label.encode("utf-8") for label in self.settings["labels"]], dtype=object)

    def execute(self, requests: list) -> list:
        """One response a request, or an error for that request alone."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: object) -> object:
        query_BD = self.triton.get_input_tensor_by_name(request, "embeddings").as_numpy()
        if not (np.isfinite(query_BD).all() and query_BD.any(axis=1).all()):
            said = self.triton.TritonError("The embedder gave an embedding without a direction; check its weights.")
            return self.triton.InferenceResponse(output_tensors=[], error=said)
        similarity_BK, code_BK = nearest_labels(self.embedding_ND, self.code_N, query_BD, self.settings["top"])
        accepted_B = is_accepted(similarity_BK[:, 0], self.settings["threshold"])
        unknown = self.settings["unknown"].encode("utf-8")
        decision_B = [
            self.label_C[code] if sure else unknown for sure, code in zip(accepted_B, code_BK[:, 0], strict=True)
        ]
        made = {
            "labels": self.label_C[code_BK],
            "similarities": similarity_BK,
            "decision": np.array(decision_B, dtype=object)[:, None],
        }
        if self.settings["calibration"]:
            made["probability"] = probability(similarity_BK[:, :1], self.settings["calibration"])
        return self.triton.InferenceResponse([self.triton.Tensor(name, values) for name, values in made.items()])


def _unit_rows(query_BD: np.ndarray) -> np.ndarray:
    """The rows of length 1, to the last bit those of the workbench: a row that has length 1 already stays as it is."""
    value_BD = query_BD.astype(np.float64)  # where no square of a float32 overflows or vanishes
    length_B1 = np.linalg.norm(value_BD, axis=1, keepdims=True)
    length_B1[np.abs(length_B1 - 1) <= 8 * np.finfo(np.float32).eps] = 1
    return (value_BD / length_B1).astype(np.float32)
