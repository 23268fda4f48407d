"""References and queries of a comparison: their labels, and which reference may answer which query.

Axes: Q queries, N gallery rows (references), B queries of a block.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.data.catalog import JUNK_LABEL
from workbench.retrieval.arrays import read_cameras, read_labels

_CELLS_A_BLOCK = 2**21  # similarities of a block, 16 MiB; about ten arrays of this size live at once


@dataclass(frozen=True)
class Kept:
    """Which gallery rows a query may be answered with: not its own photograph, not its own label from its own camera.

    Attributes:
        row_N, row_Q: int64, where each row was in the arrays that were given.
        label_N, label_Q: int64 codes, the same code for the same label.
        camera_N, camera_Q: int64 codes, or None.
        source_N, source_Q: int64 codes of the photograph that a row comes from, or None.
    """

    row_N: np.ndarray
    row_Q: np.ndarray
    label_N: np.ndarray
    label_Q: np.ndarray
    camera_N: np.ndarray | None = None
    camera_Q: np.ndarray | None = None
    source_N: np.ndarray | None = None
    source_Q: np.ndarray | None = None

    def block(self, rows: slice) -> np.ndarray:
        """Returns kept_BN, bool."""
        kept_BN = np.ones((len(self.label_Q[rows]), len(self.label_N)), dtype=bool)
        if self.camera_N is not None and self.camera_Q is not None:
            own_BN = self.label_Q[rows, None] == self.label_N
            kept_BN &= ~(own_BN & (self.camera_Q[rows, None] == self.camera_N))
        if self.source_N is not None and self.source_Q is not None:
            kept_BN &= self.source_Q[rows, None] != self.source_N
        return kept_BN

    def of_queries(self, chosen_Q: np.ndarray) -> "Kept":
        """Returns the same for some queries only (bool or rows)."""
        camera_Q, source_Q = (None if codes is None else codes[chosen_Q] for codes in (self.camera_Q, self.source_Q))
        return replace(
            self, row_Q=self.row_Q[chosen_Q], label_Q=self.label_Q[chosen_Q], camera_Q=camera_Q, source_Q=source_Q
        )

    @property
    def rows_a_block(self) -> int:
        """Returns how many queries are compared at once."""
        return max(1, _CELLS_A_BLOCK // max(len(self.label_N), 1))

    def count(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns (num_kept_Q, num_own_Q), int64: kept rows of each query, and those of them with its label."""
        num_kept_Q, num_own_Q = (np.empty(len(self.label_Q), np.int64) for _ in range(2))
        for start in range(0, len(self.label_Q), self.rows_a_block):
            rows = slice(start, start + self.rows_a_block)
            kept_BN = self.block(rows)
            num_kept_Q[rows] = kept_BN.sum(axis=1)
            num_own_Q[rows] = (kept_BN & (self.label_Q[rows, None] == self.label_N)).sum(axis=1)
        return num_kept_Q, num_own_Q


def read_kept(
    label_N: np.ndarray,
    label_Q: np.ndarray,
    reference_cameras: ArrayLike | None,
    query_cameras: ArrayLike | None,
    reference_sources: ArrayLike | None,
    query_sources: ArrayLike | None,
) -> Kept:
    """Returns the rows to compare and which may answer which: without the label "-1" where there are cameras.

    Raises:
        ValueError: one of two given, cameras and sources together, or lengths or values that do not fit.
    """
    for name, first, second in (
        ("cameras", reference_cameras, query_cameras),
        ("sources", reference_sources, query_sources),
    ):
        if (first is None) != (second is None):
            raise ValueError(f"{name} of references and queries are wanted together, or neither; one was given")
    if reference_cameras is not None and reference_sources is not None:
        raise ValueError("give cameras (re-identification) or sources (recognition), not both")
    row_N, row_Q = np.arange(len(label_N)), np.arange(len(label_Q))
    if reference_cameras is not None and query_cameras is not None:
        row_N, row_Q = np.flatnonzero(label_N != JUNK_LABEL), np.flatnonzero(label_Q != JUNK_LABEL)
        camera_N = _read_camera_of_each(reference_cameras, len(label_N), row_N, "reference_cameras")
        camera_Q = _read_camera_of_each(query_cameras, len(label_Q), row_Q, "query_cameras")
        return Kept(row_N, row_Q, *_codes(label_N[row_N], label_Q[row_Q]), *_codes(camera_N, camera_Q))
    kept = Kept(row_N, row_Q, *_codes(label_N, label_Q))
    if reference_sources is None or query_sources is None:
        return kept
    source_N, source_Q = _codes(
        read_labels(reference_sources, len(label_N), "reference_sources"),
        read_labels(query_sources, len(label_Q), "query_sources"),
    )
    return replace(kept, source_N=source_N, source_Q=source_Q)


def _read_camera_of_each(cameras: ArrayLike, num_rows: int, kept: np.ndarray, name: str) -> np.ndarray:
    camera_K = read_cameras(cameras, num_rows, name)[kept]
    missing = np.array([camera is None for camera in camera_K], dtype=bool)
    if missing.any():
        raise ValueError(f"row {kept[np.argmax(missing)]} of {name} has no camera: give one for each row")
    return camera_K


def _codes(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes, _ = pd.factorize(np.concatenate([first, second]))
    return codes[: len(first)].astype(np.int64), codes[len(first) :].astype(np.int64)
