"""Inside a DeepStream application: the embedding of an object, looked up by name, and the product that the gallery says it is.

This file stands alone (numpy and pandas; `pyds` where metadata are read), because `deepstream_config` puts it into the bundle.
Axes: N references, D the embedding's width.
"""

import ctypes
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

LAYER = "embeddings"


def read_embedding(object_meta: Any, gie_unique_id: int, dim: int) -> np.ndarray | None:
    """The embedding, float32 [D], of length 1, that the secondary GIE attached to an object; None where there is none.

    Args:
        object_meta: `pyds.NvDsObjectMeta`.
        gie_unique_id: `gie-unique-id` of the embedder's configuration.
        dim: D, see `bundle.json`.

    Raises:
        ValueError: the embedding is not finite or all zero.
    """
    pyds: Any = importlib.import_module("pyds")  # comes with DeepStream
    link = object_meta.obj_user_meta_list
    while link is not None:
        user_meta = pyds.NvDsUserMeta.cast(link.data)
        if user_meta.base_meta.meta_type == pyds.NvDsMetaType.NVDSINFER_TENSOR_OUTPUT_META:
            tensor_meta = pyds.NvDsInferTensorMeta.cast(user_meta.user_meta_data)
            if tensor_meta.unique_id == gie_unique_id:
                for place in range(tensor_meta.num_output_layers):
                    layer = pyds.get_nvds_LayerInfo(tensor_meta, place)
                    if layer.layerName == LAYER:
                        address = ctypes.cast(pyds.get_ptr(layer.buffer), ctypes.POINTER(ctypes.c_float))
                        # a copy, because DeepStream takes the buffer back
                        # in float64, where no square of a float32 overflows or vanishes
                        embedding_D = np.array(np.ctypeslib.as_array(address, shape=(dim,)), dtype=np.float64)
                        length = np.linalg.norm(embedding_D)
                        if not np.isfinite(length) or length == 0:
                            raise ValueError("The embedder gave an embedding without a direction; check its weights.")
                        if (
                            abs(length - 1) > 8 * np.finfo(np.float32).eps
                        ):  # else it stays as it is, as in the workbench
                            embedding_D /= length
                        return embedding_D.astype(np.float32)
        link = link.next
    return None


class Lookup:
    """The gallery of a bundle, with the threshold below which a product is unknown."""

    def __init__(self, bundle: Path):
        """Reads `bundle.json` and `gallery/` of the bundle."""
        self.settings = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
        manifest = json.loads((bundle / "gallery" / "manifest.json").read_text(encoding="utf-8"))
        content = bundle / "gallery" / manifest["content"]
        self.embedding_ND = np.load(content / "embeddings.npy", allow_pickle=False)
        self.labels = pd.read_parquet(content / "references.parquet")["label"].tolist()

    def answer(self, embedding_D: np.ndarray) -> tuple[str, float]:
        """The label of the nearest reference, the oldest of equals, or "unknown", and the cosine similarity.

        The label is given where the similarity is above `threshold` of `bundle.json`.
        """
        similarity_N = self.embedding_ND @ embedding_D
        nearest = int(similarity_N.argmax())
        similarity = float(str(similarity_N[nearest]))  # the fewest digits, as the threshold is written
        known = similarity > self.settings["threshold"]
        return (self.labels[nearest] if known else self.settings["unknown"]), similarity
