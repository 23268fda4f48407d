"""The embedder on a CPU through onnxruntime, where the server has no onnxruntime backend of its own.

`model.onnx` and `embed.json` lie beside this file. Axes: B pictures of all requests at once, D the width. Runs inside Triton.
"""

import importlib
import json
from pathlib import Path

import numpy as np
import onnxruntime


class TritonPythonModel:
    """The model as Triton's Python backend calls it."""

    def initialize(self, args: dict) -> None:
        """Opens the file, with the number of threads that `embed.json` says (0: one a core)."""
        self.triton = importlib.import_module("triton_python_backend_utils")
        settings = json.loads(Path(__file__).with_name("embed.json").read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = settings["num_threads"]
        self.session = onnxruntime.InferenceSession(
            str(Path(__file__).with_name("model.onnx")),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=settings["disabled_optimizers"],
        )

    def execute(self, requests: list) -> list:
        """`embeddings` for each request, all computed in one batch."""
        given = [self.triton.get_input_tensor_by_name(request, "input").as_numpy() for request in requests]
        (embedding_BD,) = self.session.run(["embeddings"], {"input": np.concatenate(given)})
        ends = np.cumsum([len(batch) for batch in given])[:-1]
        return [
            self.triton.InferenceResponse([self.triton.Tensor("embeddings", np.ascontiguousarray(part_BD))])
            for part_BD in np.split(embedding_BD.astype(np.float32), ends)
        ]
