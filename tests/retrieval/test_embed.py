import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from profiles import DISPLAY_P3, SRGB_CURVE, rgb_profile

from workbench.data.augment import Augmentation, augment_image
from workbench.data.catalog import Catalog
from workbench.data.images import QuarantineError, load_image
from workbench.data.inputs import Input
from workbench.models.embedder import Embedder, build_embedder
from workbench.retrieval import embed
from workbench.retrieval.embed import choose_device, embed_catalog
from workbench.retrieval.embed_inputs import embed_all


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return build_embedder("timm:resnet10t", "random", image_size=(32, 32), seed=1)


def make_catalog(folder: Path, num_images: int = 10) -> Catalog:
    """The catalog of drawn images, files of one size, which are written where the folder is not there yet."""
    names = [f"{row:03d}.png" for row in range(num_images)]
    if not folder.is_dir():
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        for name in names:
            Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / name, compress_level=0)
    return catalog_of(folder, names)


def catalog_of(folder: Path, names: list[str]) -> Catalog:
    frame = pd.DataFrame(
        {
            "path": names,
            "label": [f"{row % 3:03d}" for row in range(len(names))],
            "split": "train",
            "camera": pd.array([None] * len(names), dtype="Int64"),
            "group": pd.Series([None] * len(names), dtype="str"),
            "domain": "real",
            "source": "made",
        }
    )
    return Catalog(frame=frame, roots={"made": folder}, cards={}, missing_splits={})


def _embed_plainly(embedder: Embedder, paths: list[Path]) -> np.ndarray:
    rows = []
    for path in paths:
        pixels = embedder.preprocessing.apply(Image.open(path).convert("RGB"))
        with torch.no_grad():
            rows.append(embedder(embedder.preprocessing.normalise(torch.from_numpy(pixels.copy())[None]))[0].numpy())
    return np.stack(rows)


def test_embeddings_are_those_of_a_plain_loop_in_the_catalogs_order(embedder: Embedder, tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path / "set").take(np.array([7, 2, 9, 0, 4]))
    made = embed_catalog(embedder, catalog, batch_size=2, cache=tmp_path / "cache", device="cpu", progress=None)
    # 1e-5: batches of two and of one may take different convolution kernels
    np.testing.assert_allclose(made.embedding_ND, _embed_plainly(embedder, catalog.image_paths()), atol=1e-5)
    assert made.embedding_ND.dtype == np.float32
    assert made.catalog.frame["path"].tolist() == ["007.png", "002.png", "009.png", "000.png", "004.png"]
    assert made.source_N.tolist() == [0, 1, 2, 3, 4]
    assert made.copy_N.tolist() == [0] * 5
    assert made.catalog.fingerprint == catalog.fingerprint


def test_copies_follow_their_photograph(embedder: Embedder, tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path / "set", 3)
    plain = embed_catalog(embedder, catalog, cache=tmp_path / "cache", device="cpu", progress=None)
    made = embed_catalog(embedder, catalog, copies=2, seed=5, cache=tmp_path / "cache", device="cpu", progress=None)
    assert made.source_N.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert made.copy_N.tolist() == [0, 1, 2] * 3
    assert made.catalog.frame["label"].tolist() == ["000"] * 3 + ["001"] * 3 + ["002"] * 3
    np.testing.assert_allclose(made.embedding_ND[::3], plain.embedding_ND, atol=1e-5)
    content = (tmp_path / "set" / "001.png").read_bytes()
    rng = np.random.default_rng([5, 2, int(hashlib.sha256(content).hexdigest()[:16], 16)])
    copy = augment_image(Image.open(tmp_path / "set" / "001.png").convert("RGB"), Augmentation(), rng)
    pixels = torch.from_numpy(embedder.preprocessing.apply(copy).copy())[None]
    with torch.no_grad():
        expected = embedder(embedder.preprocessing.normalise(pixels))[0].numpy()
    np.testing.assert_allclose(made.embedding_ND[5], expected, atol=1e-5)


def test_mirrored_is_the_embedding_of_the_turned_pixels(embedder: Embedder, tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path / "set", 3)
    plain = embed_catalog(embedder, catalog, cache=tmp_path / "cache", device="cpu", progress=None)
    made = embed_catalog(embedder, catalog, mirrored=True, cache=tmp_path / "cache", device="cpu", progress=None)
    turned = tmp_path / "turned"
    turned.mkdir()
    for path in catalog.image_paths():
        # PNG at the trunk's size, so that turning the file is turning what the trunk sees
        Image.fromarray(embedder.preprocessing.apply(Image.open(path))[:, ::-1]).save(turned / path.name)
    expected = _embed_plainly(embedder, [turned / path.name for path in catalog.image_paths()])
    np.testing.assert_allclose(made.embedding_ND, expected, atol=1e-5)
    assert np.abs(made.embedding_ND - plain.embedding_ND).max() > 1e-3
    again = embed_catalog(embedder, catalog, cache=tmp_path / "cache", device="cpu", progress=None)
    assert np.array_equal(again.embedding_ND, plain.embedding_ND)


def test_two_files_of_one_scene_with_two_profiles_have_one_embedding(embedder: Embedder, tmp_path: Path) -> None:
    """The same colours, written once as sRGB and once as Display P3 has them; without the profile they are others."""
    folder = tmp_path / "set"
    folder.mkdir()
    # of Display P3, low in saturation, so that sRGB has all of them
    levels = np.random.default_rng(0).integers(90, 150, (8, 8, 3), dtype=np.uint8)
    wide = Image.fromarray(levels).resize((64, 64), Image.Resampling.NEAREST)
    wide.save(folder / "p3.png", icc_profile=rgb_profile(DISPLAY_P3, SRGB_CURVE))
    wide.save(folder / "unnamed.png")
    load_image(folder / "p3.png").save(folder / "srgb.png")
    catalog = catalog_of(folder, ["p3.png", "srgb.png", "unnamed.png"])
    made = embed_catalog(embedder, catalog, cache=tmp_path / "cache", device="cpu", progress=None)
    np.testing.assert_allclose(made.embedding_ND[0], made.embedding_ND[1], atol=1e-6)
    assert np.abs(made.embedding_ND[0] - made.embedding_ND[2]).max() > 1e-4
    inputs = [Input(folder / name, name) for name in ("p3.png", "srgb.png")]
    np.testing.assert_allclose(embed_all(embedder, inputs, device="cpu")[0], made.embedding_ND[:2], atol=1e-5)


@pytest.mark.parametrize("name", ["DECODE_VERSION", "AUGMENTATION_VERSION"])
def test_pixels_of_another_version_are_embedded_anew(
    name: str, embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = make_catalog(tmp_path / "set", 2)

    def count_sets() -> int:
        embed_catalog(embedder, catalog, copies=1, cache=tmp_path / "cache", device="cpu", progress=None)
        return sum(path.is_dir() and not path.name.startswith(".") for path in (tmp_path / "cache").iterdir())

    assert (count_sets(), count_sets()) == (1, 1)
    monkeypatch.setattr(embed, name, 99)
    assert count_sets() == 2


class _Counting:
    """Counts forward passes, so that a test sees whether the cache answered."""

    def __init__(self, embedder: Embedder) -> None:
        self.num_images = 0
        self.handle = embedder.trunk.register_forward_pre_hook(self.count)

    def count(self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.num_images += len(inputs[0])


def test_the_cache_answers_only_when_nothing_changed(embedder: Embedder, tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path / "set")
    counting = _Counting(embedder)
    options = {"cache": tmp_path / "cache", "device": "cpu", "progress": None}
    first = embed_catalog(embedder, catalog, **options)  # type: ignore[arg-type]
    assert counting.num_images == 10
    again = embed_catalog(embedder, catalog, **options)  # type: ignore[arg-type]
    assert counting.num_images == 10
    assert np.array_equal(first.embedding_ND, again.embedding_ND)

    replaced = tmp_path / "set" / "004.png"
    Image.new("RGB", (40, 50), (9, 99, 199)).save(replaced)
    os.utime(replaced, ns=(1, 1))
    changed = embed_catalog(embedder, catalog, **options)  # type: ignore[arg-type]
    assert counting.num_images == 20
    differs = np.any(changed.embedding_ND != first.embedding_ND, axis=1)
    assert differs.tolist() == [row == 4 for row in range(10)]

    embed_catalog(embedder, catalog.take(np.arange(9)), **options)  # type: ignore[arg-type]
    assert counting.num_images == 29
    embed_catalog(embedder, catalog, dtype="bfloat16", **options)  # type: ignore[arg-type]
    assert counting.num_images == 39
    counting.handle.remove()
    other = build_embedder("timm:resnet10t", "random", image_size=(32, 32), seed=2)
    counting = _Counting(other)
    embed_catalog(other, catalog, **options)  # type: ignore[arg-type]
    assert counting.num_images == 10


def test_what_cannot_be_decoded_is_set_aside_with_its_reason(embedder: Embedder, tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path / "set")
    (tmp_path / "set" / "003.png").write_bytes(b"no image")
    (tmp_path / "set" / "008.png").unlink()
    options = {"cache": tmp_path / "cache", "device": "cpu", "progress": None, "batch_size": 4}
    with pytest.raises(QuarantineError, match=r"003\.png"):
        embed_catalog(embedder, catalog, **options)  # type: ignore[arg-type]
    made = embed_catalog(embedder, catalog, quarantine_limit=0.2, **options)  # type: ignore[arg-type]
    assert made.quarantine["path"].tolist() == ["003.png", "008.png"]
    assert all(made.quarantine["reason"].str.len() > 5)
    assert made.catalog.frame["path"].tolist() == [f"{row:03d}.png" for row in (0, 1, 2, 4, 5, 6, 7, 9)]
    np.testing.assert_allclose(made.embedding_ND, _embed_plainly(embedder, made.catalog.image_paths()), atol=1e-5)
    with pytest.raises(QuarantineError):
        embed_catalog(embedder, catalog, **options)  # type: ignore[arg-type]


def test_wrong_requests_are_refused(embedder: Embedder, tmp_path: Path) -> None:
    catalog = make_catalog(tmp_path / "set", 2)
    with pytest.raises(ValueError, match="no image to embed"):
        embed_catalog(embedder, catalog.take(np.array([], dtype=np.int64)))
    with pytest.raises(ValueError, match="copies is at least 0"):
        embed_catalog(embedder, catalog, copies=-1)
    with pytest.raises(ValueError, match="dtype is one of"):
        embed_catalog(embedder, catalog, dtype="int8")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no CUDA GPU"):
            choose_device("cuda")


def test_weights_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    broken = build_embedder("timm:resnet10t", "random", image_size=(32, 32))
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        embed_catalog(broken, make_catalog(tmp_path / "set", 2), cache=tmp_path / "cache", device="cpu", progress=None)


_SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_embed
from workbench.models.embedder import build_embedder
from workbench.retrieval import embed
embed._SAVE_EVERY_S = 0.0
folder = Path(sys.argv[2])
embedder = build_embedder("timm:resnet10t", "random", image_size=(32, 32), seed=1)
slow = embedder.trunk.register_forward_pre_hook(lambda module, inputs: time.sleep(0.1))
catalog = test_embed.make_catalog(folder / "set", 64)
made = embed.embed_catalog(embedder, catalog, batch_size=4, cache=folder / "cache", device="cpu")
"""


def test_a_second_release_with_the_same_names_sizes_and_dates_is_embedded_anew(
    embedder: Embedder, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"cache": tmp_path / "cache", "device": "cpu", "progress": None}
    first = make_catalog(tmp_path / "first", 3)
    made = embed_catalog(embedder, first, **options)
    second = make_catalog(tmp_path / "second", 3)
    pictures = [path.read_bytes() for path in second.image_paths()]
    for path, twin, content in zip(second.image_paths(), first.image_paths(), pictures[::-1], strict=True):
        path.write_bytes(content)
        os.utime(path, ns=(twin.stat().st_atime_ns, twin.stat().st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (twin.stat().st_size, twin.stat().st_mtime_ns)
    other = embed_catalog(embedder, second, **options)
    np.testing.assert_allclose(other.embedding_ND[0], made.embedding_ND[2], atol=1e-5)
    assert other.meta["content"] != made.meta["content"]


def test_a_picture_put_in_anothers_place_with_its_size_and_date_is_seen(embedder: Embedder, tmp_path: Path) -> None:
    options: dict[str, Any] = {"cache": tmp_path / "cache", "device": "cpu", "progress": None}
    catalog = make_catalog(tmp_path / "set", 3)
    made = embed_catalog(embedder, catalog, **options)
    path = catalog.image_paths()[0]
    before, content = path.stat(), catalog.image_paths()[1].read_bytes()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    again = embed_catalog(embedder, catalog, **options)
    np.testing.assert_allclose(again.embedding_ND[0], made.embedding_ND[1], atol=1e-5)
    assert again.meta["content"] != made.meta["content"]


def test_the_content_is_that_of_the_pictures_and_not_of_their_names(embedder: Embedder, tmp_path: Path) -> None:
    options: dict[str, Any] = {"cache": tmp_path / "cache", "device": "cpu", "progress": None}
    keys = [hashlib.sha256(path.read_bytes()).hexdigest() for path in make_catalog(tmp_path / "a", 3).image_paths()]
    contents = [embed_catalog(embedder, make_catalog(tmp_path / name, 3), **options).meta["content"] for name in "ab"]
    assert contents == [hashlib.sha256("\n".join(keys).encode()).hexdigest()] * 2


@pytest.mark.slow
def test_kill_nine_loses_nothing_and_the_result_is_the_same_to_the_bit(embedder: Embedder, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SCRIPT, str(Path(__file__).parent), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    make_catalog(tmp_path / "set", 64)
    rng, done = np.random.default_rng(0), []
    for _ in range(3):
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for _ in range(int(rng.integers(1, 4))):
            line = child.stdout.readline()
        done.append(int(line.split()[1]))
        time.sleep(float(rng.uniform(0, 0.1)))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert done == sorted(set(done)), "each start went on where the last one was killed"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    catalog = make_catalog(tmp_path / "set", 64)
    resumed = embed_catalog(embedder, catalog, batch_size=4, cache=tmp_path / "cache", device="cpu", progress=None)
    whole = embed_catalog(embedder, catalog, batch_size=4, cache=tmp_path / "other", device="cpu", progress=None)
    torch.set_num_threads(threads)
    assert np.array_equal(resumed.embedding_ND, whole.embedding_ND)
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.name.startswith(".")] == []
