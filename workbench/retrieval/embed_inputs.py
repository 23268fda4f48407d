"""Embeddings of pictures and of boxes in pictures, on the fly: each picture is decoded once for its boxes, nothing is kept.

`embed_catalog` is for sets that are embedded again and again; this is for what is asked once. Preprocessing is the same.
Axes: B inputs of a batch, D the embedding's width.
"""

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

import joblib
import numpy as np
import torch

from workbench.data.images import ImageError, cut_box, decode_image, image_bytes
from workbench.data.inputs import Input
from workbench.data.readers.listing import few
from workbench.models.device import choose_device
from workbench.models.embedder import Embedder


@dataclass
class EmbeddedBatch:
    """Some of the inputs, embedded, and those that could not be.

    Attributes:
        row_B: int64, which inputs, in the order of embedding_BD.
        embedding_BD: float32, rows of length 1.
        errors: why there is no embedding, by input.
        notes: what should be known about an input that has one, by input.
    """

    row_B: np.ndarray
    embedding_BD: np.ndarray
    errors: dict[int, str] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)


def embed_inputs(
    embedder: Embedder,
    inputs: Sequence[Input],
    *,
    batch_size: int = 32,
    device: str = "auto",
    num_workers: int | None = None,
) -> Iterator[EmbeddedBatch]:
    """Yields all inputs, each in one batch, embedded or with the reason why not; boxes of one picture come together.

    Args:
        embedder: moved to `device` and set to evaluation mode.
        inputs: in any order. A picture's boxes are cut from the picture in full size.
        batch_size: images a forward pass, at least 1.
        device: auto, cpu, cuda, cuda:1, ...
        num_workers: decoding threads; None is one a core.

    Raises:
        ValueError: batch_size or device out of range, or an embedder that gives values that are not finite.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is at least 1, found {batch_size}.")
    chosen = choose_device(device)
    embedder = embedder.to(chosen).eval()
    waiting: list[tuple[int, np.ndarray]] = []
    errors: dict[int, str] = {}
    notes: dict[int, str] = {}
    with closing(_cut_inputs(embedder, inputs, batch_size, num_workers or joblib.cpu_count())) as cuts:
        for cut in cuts:
            waiting += cut.inputs
            errors |= cut.errors
            notes |= cut.notes
            while len(waiting) >= batch_size:
                yield _embedded(embedder, waiting[:batch_size], chosen, errors, notes)
                waiting, errors, notes = waiting[batch_size:], {}, {}
    if waiting or errors:
        yield _embedded(embedder, waiting, chosen, errors, notes)


def embed_all(
    embedder: Embedder, inputs: Sequence[Input], *, batch_size: int = 32, device: str = "auto"
) -> tuple[np.ndarray, list[str]]:
    """The embeddings of all inputs, float32 [N, D], rows of length 1, in their order, and notes; all or none.

    Args:
        embedder: moved to `device` and set to evaluation mode.
        inputs: at least one.
        batch_size: images a forward pass, at least 1.
        device: auto, cpu, cuda, cuda:1, ...

    Raises:
        ValueError: an input that cannot be used, with its name and the reason.
    """
    embedding_ND = np.empty((len(inputs), embedder.embedding_dim), dtype=np.float32)
    errors: dict[int, str] = {}
    notes: list[str] = []
    for batch in embed_inputs(embedder, inputs, batch_size=batch_size, device=device):
        embedding_ND[batch.row_B] = batch.embedding_BD
        errors |= batch.errors
        notes += [f"{inputs[row].name}: {note}" for row, note in batch.notes.items()]
    if errors:
        reasons = [f"{inputs[row].name}: {reason}" for row, reason in sorted(errors.items())]
        raise ValueError(
            f"{len(errors)} of {len(inputs)} pictures cannot be used, so that nothing was added:\n  {few(reasons)}"
        )
    return embedding_ND, notes


@dataclass
class _Cut:
    """Some inputs of one picture: trunk inputs [H, W, 3] uint8 by row, and what went wrong."""

    inputs: list[tuple[int, np.ndarray]] = field(default_factory=list)
    errors: dict[int, str] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)


def _embedded(
    embedder: Embedder,
    batch: list[tuple[int, np.ndarray]],
    device: torch.device,
    errors: dict[int, str],
    notes: dict[int, str],
) -> EmbeddedBatch:
    row_B = np.array([row for row, _ in batch], dtype=np.int64)
    if not batch:
        return EmbeddedBatch(row_B, np.empty((0, embedder.embedding_dim), dtype=np.float32), errors, notes)
    pixels = torch.from_numpy(np.stack([pixels for _, pixels in batch])).to(device)
    with torch.inference_mode():
        embedding_BD = embedder(embedder.preprocessing.normalise(pixels)).float().cpu().numpy()
    if not np.isfinite(embedding_BD).all():
        raise ValueError("The embedder gave values that are not finite; check its weights.")
    return EmbeddedBatch(row_B, embedding_BD, errors, notes)


def _cut_inputs(embedder: Embedder, inputs: Sequence[Input], batch_size: int, num_workers: int) -> Generator[_Cut]:
    """Yields every input once, decoded and cut by threads, at most some three batches ahead: a shelf has many boxes."""
    rows_of: dict[str, list[int]] = {}
    for row, one in enumerate(inputs):
        rows_of.setdefault(str(one.path), []).append(row)
    pieces = [
        rows[start : start + batch_size] for rows in rows_of.values() for start in range(0, len(rows), batch_size)
    ]
    waiting: deque[tuple[int, Future[_Cut]]] = deque()
    num_ahead = 0
    with ThreadPoolExecutor(num_workers, thread_name_prefix="decode") as pool:
        try:
            for rows in pieces:
                waiting.append((len(rows), pool.submit(_cut, embedder, inputs, rows)))
                num_ahead += len(rows)
                while num_ahead > 2 * batch_size + num_workers:
                    num_rows, future = waiting.popleft()
                    num_ahead -= num_rows
                    yield future.result()
            while waiting:
                yield waiting.popleft()[1].result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _cut(embedder: Embedder, inputs: Sequence[Input], rows: list[int]) -> _Cut:
    """The inputs at `rows`, all of one file."""
    cut = _Cut(errors={row: inputs[row].fault for row in rows if inputs[row].fault})
    rows = [row for row in rows if not inputs[row].fault]
    if not rows:
        return cut
    preprocessing = embedder.preprocessing
    # A box wants the picture in full size; a whole picture is drafted as embed_catalog drafts it.
    boxed = any(inputs[row].box is not None for row in rows)
    whole = any(inputs[row].box is None for row in rows)
    path = inputs[rows[0]].path
    try:
        content = image_bytes(path)
        full = decode_image(content, str(path)) if boxed else None
        drafted = decode_image(content, str(path), target_px=preprocessing.decode_px) if whole else None
    except ImageError as error:
        cut.errors |= dict.fromkeys(rows, error.reason)
        return cut
    for row in rows:
        box = inputs[row].box
        try:
            if box is not None:
                assert full is not None
                picture, note = cut_box(full, box, inputs[row].name)
                cut.notes |= {row: note} if note else {}
            else:
                assert drafted is not None
                picture = drafted
            cut.inputs.append((row, preprocessing.apply(picture)))
        except ImageError as error:
            cut.errors[row] = error.reason
    return cut
