"""From a catalog to an EmbeddingSet: decoded in threads, embedded in batches, kept by content.

Axes: N rows (an image, or an augmented copy of one), D the embedding's width.
"""

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import joblib
import numpy as np
import torch

from workbench.data.augment import AUGMENTATION_VERSION, Augmentation, augment_image
from workbench.data.catalog import Catalog
from workbench.data.corruptions import CORRUPTIONS_VERSION, Corruption, corrupt_image
from workbench.data.fingerprints import place_fingerprint
from workbench.data.images import (
    DECODE_VERSION,
    ImageError,
    Picture,
    check_quarantine,
    content_key,
    decode_image,
    image_bytes,
)
from workbench.models.device import choose_device
from workbench.models.embedder import Embedder
from workbench.models.preprocessing import Preprocessing
from workbench.retrieval.embedding_folder import (
    EmbeddingSet,
    HalfMadeSet,
    only_process,
    open_set,
    quarantine_of,
)
from workbench.runs.root import outputs_folder

__all__ = ["EmbeddingSet", "NotFiniteError", "choose_device", "embed_catalog", "print_progress"]

FORMAT_VERSION = 2
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SAVE_EVERY_S = 5.0


class NotFiniteError(ValueError):
    """The embedder gave NaN or infinity."""


def print_progress(done: int, total: int, images_per_s: float) -> None:
    """Prints one line of progress, readable in a terminal, a notebook and a log file."""
    print(f"embedded {done:,} of {total:,} images, {images_per_s:,.0f} images/s", flush=True)  # noqa: T201


def embed_catalog(
    embedder: Embedder,
    catalog: Catalog,
    *,
    copies: int = 0,
    augmentation: Augmentation | None = None,
    mirrored: bool = False,
    corruption: Corruption | None = None,
    batch_size: int = 32,
    device: str = "auto",
    dtype: str = "float32",
    seed: int = 0,
    cache: Path | None = None,
    num_workers: int | None = None,
    quarantine_limit: float = 0.01,
    progress: Callable[[int, int, float], None] | None = print_progress,
) -> EmbeddingSet:
    """The embeddings of a catalog's images, from the cache when nothing has changed.

    The cache's key is the hash of embedder (weights, architecture, preprocessing), dtype, kind of device, copies, seed,
    mirroring, corruption, the versions of decoding and of what is done to pictures, and the images (where they lie, size,
    times of change, box), so that it is never stale. Work is saved every few seconds: a killed call goes on where it stopped
    and ends with the same bits. Two processes with the same work take turns.

    Args:
        embedder: moved to `device` and set to evaluation mode.
        catalog: rows in any order; the result keeps it.
        copies: augmented copies of each photograph, added after it (RetailKLIP's one-shot galleries).
        augmentation: what happens to a copy; None is `Augmentation()`.
        mirrored: the trunk sees left and right exchanged, copies too; see `tracklets.average_flip`.
        corruption: what is done to each decoded picture before anything else; None is nothing.
        batch_size: images a forward pass.
        device: auto, cpu, cuda, cuda:1, ...
        dtype: float32, bfloat16 or float16 for the trunk; embeddings are kept as float32.
        seed: of the augmented copies.
        cache: folder of embedding sets; None is `cache/embeddings` in the outputs folder.
        num_workers: decoding threads; None is one a core.
        quarantine_limit: share of images that may fail to decode; above it the call stops with an error.
        progress: called every few seconds with images done, images in all, images/s; None is silent.

    Raises:
        ValueError: an empty catalog or an argument out of range.
        NotFiniteError: an embedding holds NaN or infinity.
        QuarantineError: more images than `quarantine_limit` cannot be decoded. What was embedded is kept.
    """
    if len(catalog) == 0:
        raise ValueError("The catalog holds no image to embed; check its split and domain.")
    if copies < 0 or batch_size < 1:
        raise ValueError(f"copies is at least 0 and batch_size at least 1; found {copies} and {batch_size}.")
    if dtype not in DTYPES:
        raise ValueError(f"dtype is one of {', '.join(DTYPES)}; found {dtype!r}.")
    chosen = choose_device(device)
    cache = cache or outputs_folder() / "cache" / "embeddings"
    augmentation = augmentation or Augmentation()
    pictures = catalog.pictures()
    described = {
        "format_version": FORMAT_VERSION,
        "decode_version": DECODE_VERSION,
        "embedder": embedder.fingerprint(),
        "dtype": dtype,
        "device": chosen.type,
        "copies": copies,
        "augmentation": {"version": AUGMENTATION_VERSION, **asdict(augmentation)} if copies else None,
        "seed": seed if copies else None,
        "mirrored": mirrored,
        "images": place_fingerprint(pictures),
    }
    if corruption is not None:  # the keys of plain sets stay what they were
        described["corruption"] = {"version": CORRUPTIONS_VERSION, **asdict(corruption)}
    key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:32]
    folder = cache / key
    with only_process(cache, key):
        if not folder.is_dir():
            with closing(HalfMadeSet(cache / f".{key}-{batch_size}", embedder.embedding_dim)) as work:

                def render(row: int) -> _Rendered:
                    how = (embedder.preprocessing, copies, augmentation, mirrored, corruption, seed)
                    return _render(row, pictures[row], *how)

                rendered = _in_order(render, range(work.done, len(pictures)), batch_size, num_workers)
                _embed(work, rendered, embedder, chosen, DTYPES[dtype], batch_size, len(pictures), progress)
                check_quarantine(quarantine_of(catalog, work.failures), len(pictures), quarantine_limit)
                work.finish(folder, catalog, copies, described)
    opened = open_set(folder, catalog)
    check_quarantine(opened.quarantine, len(pictures), quarantine_limit)
    return opened


@dataclass
class _Rendered:
    """One photograph on its way: its inputs [1 + copies, H, W, 3] uint8 or the reason why there are none."""

    row: int
    sha256: str
    inputs: np.ndarray | None
    reason: str = ""


def _embed(
    work: HalfMadeSet,
    rendered: Iterator[_Rendered],
    embedder: Embedder,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int,
    num_images: int,
    progress: Callable[[int, int, float], None] | None,
) -> None:
    """Fills `work`. Batches start at multiples of batch_size images, so that a resumed run makes the same ones."""
    embedder = embedder.to(device).eval()
    started, saved, done_before = time.monotonic(), time.monotonic(), work.done
    seconds_before = work.seconds
    batch: list[_Rendered] = []
    for item in rendered:
        batch.append(item)
        if len(batch) < batch_size and item.row + 1 < num_images:
            continue
        good = [one.inputs for one in batch if one.inputs is not None]
        if good:
            inputs = torch.from_numpy(np.concatenate(good)).to(device)
            with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                parts = [embedder(embedder.preprocessing.normalise(part)) for part in inputs.split(batch_size)]
            embedding_ND = torch.cat(parts).float().cpu().numpy()
            if not np.isfinite(embedding_ND).all():
                raise NotFiniteError(
                    "The embedder gave values that are not finite; check its weights, or use dtype float32."
                )
            work.file.write(np.ascontiguousarray(embedding_ND, dtype="<f4").tobytes())
            work.num_rows += len(embedding_ND)
        work.failures.update({one.row: one.reason for one in batch if one.inputs is None})
        work.sha256.extend(one.sha256 for one in batch)
        work.done = item.row + 1
        batch = []
        now = time.monotonic()
        work.seconds = seconds_before + now - started
        if now - saved > _SAVE_EVERY_S or work.done == num_images:
            work.save()
            saved = now
            if progress is not None:
                progress(work.done, num_images, (work.done - done_before) / max(now - started, 1e-9))


def _render(
    row: int,
    picture: Picture,
    preprocessing: Preprocessing,
    copies: int,
    augmentation: Augmentation,
    mirrored: bool,
    corruption: Corruption | None,
    seed: int,
) -> _Rendered:
    try:
        content = image_bytes(picture.path)
    except ImageError as error:
        return _Rendered(row, "", None, error.reason)
    sha256 = hashlib.sha256(content).hexdigest()
    target_px = max(preprocessing.decode_px, corruption.frame_px if corruption else 0)
    try:
        image = decode_image(content, str(picture), target_px=target_px, box=picture.box)
    except ImageError as error:
        return _Rendered(row, sha256, None, error.reason)
    key = content_key(content, picture.box) if picture.box else sha256
    if corruption is not None:
        image = corrupt_image(image, corruption, key)
    inputs = [preprocessing.apply(image)]
    for copy in range(1, copies + 1):
        rng = np.random.default_rng([seed, copy, int(key[:16], 16)])
        inputs.append(preprocessing.apply(augment_image(image, augmentation, rng)))
    whole = np.stack(inputs)
    return _Rendered(row, sha256, whole[:, :, ::-1] if mirrored else whole)


def _in_order(
    render: Callable[[int], _Rendered], rows: range, batch_size: int, num_workers: int | None
) -> Iterator[_Rendered]:
    """Yields every photograph of `rows`, in order, rendered by threads a few batches ahead."""
    workers = num_workers or joblib.cpu_count()
    waiting: deque[Future[_Rendered]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            for row in rows:
                waiting.append(pool.submit(render, row))
                if len(waiting) >= 2 * batch_size + workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
