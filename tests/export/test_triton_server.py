"""A real tritonserver serves the CPU twin: pictures in over HTTP, the workbench's own answers out."""

import io
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from profiles import DISPLAY_P3, SRGB_CURVE, rgb_profile

from workbench.data.images import decode_image
from workbench.data.inputs import Input
from workbench.export.bundle import check_bundle
from workbench.export.folder import ExportError
from workbench.export.onnx import export_onnx
from workbench.export.randomise import randomise_scales
from workbench.export.runtimes import ExportedEmbedder, open_exported
from workbench.export.triton import triton_repository
from workbench.export.triton_models.client import ask
from workbench.export.triton_server import find_server, run_server
from workbench.models.embedder import build_embedder
from workbench.retrieval.calibration import fit_calibration
from workbench.retrieval.gallery import Gallery
from workbench.retrieval.recognise import recognise

pytestmark = pytest.mark.slow
LABELS = ["00012345678905", '=1+1,"x"\\', "<img src=x onerror=alert(1)>", "a\r\nb\u2028c", "Süßes 東京 🥖", "nan"]
KINDS = ("JPEG, P3", "PNG", "JPEG, turned", "PNG, alpha", "JPEG, CMYK", "PNG, 16-bit", "JPEG, big", "PNG, grey")
MAX_BATCH = 6


def draw(kind: str, seed: int) -> bytes:
    """A picture of waves, in a file of the kind."""
    rng = np.random.default_rng(seed)
    height, width = (500, 700) if kind.endswith("big") else (60 + seed % 40, 90 - seed % 40)
    y, x = np.mgrid[:height, :width] * (64 / height)
    phase_3, pace_3 = rng.uniform(0, 6, 3), rng.uniform(2, 12, 3)
    pixels = (127 + 120 * np.sin(x[..., None] / pace_3 + y[..., None] / pace_3[::-1] + phase_3)).astype(np.uint8)
    image, options = Image.fromarray(pixels), {}
    if kind.endswith("turned"):
        exif = Image.Exif()
        exif[0x0112] = 6
        options = {"exif": exif.tobytes()}
    elif kind.endswith("alpha"):
        image.putalpha(Image.fromarray(pixels[..., 0]))
    elif kind.endswith("P3"):
        options = {"icc_profile": rgb_profile(DISPLAY_P3, SRGB_CURVE)}
    elif kind.endswith("CMYK"):
        image = image.convert("CMYK")
    elif kind.endswith("16-bit"):
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif kind.endswith("grey"):
        image = image.convert("L")
    file = io.BytesIO()
    image.save(file, kind.partition(",")[0], **options)
    return file.getvalue()


@dataclass(frozen=True)
class Served:
    """A running server and what its answers must be."""

    address: str
    bundle: Path
    gallery: Gallery
    threshold: float
    opened: dict[str, ExportedEmbedder]

    def embed(self, model: str, contents: list[bytes]) -> np.ndarray:
        embedder = self.opened[model]
        px = embedder.preprocessing.decode_px
        return embedder.embed(
            np.stack([embedder.preprocessing.apply(decode_image(one, "here", target_px=px)) for one in contents])
        )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two ensembles of one server: `shop` takes floats and has a gallery, `plain` normalises inside and has none."""
    try:
        find_server()
    except ExportError as error:
        pytest.skip(f"TRITONSERVER NOT RUN: {error}")
    place = tmp_path_factory.mktemp("served")
    embedder = randomise_scales(build_embedder("timm:test_resnet", "random", image_size=(48, 32), resize="pad", seed=4))
    folders = {"shop": export_onnx(embedder, place / "e"), "plain": export_onnx(embedder, place / "u", input="uint8")}
    opened = {name: open_exported(folder, num_threads=1) for name, folder in folders.items()}
    px = embedder.preprocessing.decode_px
    references = [draw(kind, seed) for seed, kind in enumerate((*KINDS, "JPEG"))]
    images = np.stack([embedder.preprocessing.apply(decode_image(one, "here", target_px=px)) for one in references])
    gallery = Gallery.build(opened["shop"].embed(images), [*LABELS, *LABELS[:3]])
    fitted = fit_calibration([0.9, 0.95, 0.97, 0.99, 0.999, 1.0], [0, 0, 1, 0, 1, 1])
    gallery.about |= {"embedder": embedder.fingerprint(), "calibration": fitted.to_dict()}
    gallery.save(place / "g")
    # half of what is asked below is accepted
    nearest_Q = gallery.search_labels(
        opened["shop"].embed(np.stack([np.asarray(embedder.preprocessing.apply(picture)) for picture in strangers()])),
        1,
    ).similarity_QK[:, 0]
    threshold = float(np.median(nearest_Q))
    options: dict[str, Any] = {"card": "# Card", "backend": "python", "max_batch": MAX_BATCH, "num_decoders": 2}
    bundle = triton_repository(
        folders["shop"],
        place / "b",
        gallery=place / "g",
        threshold=threshold,
        top=3,
        name="shop",
        max_delay_us=50_000,
        **options,
    )
    plain = triton_repository(folders["plain"], place / "p", name="plain", **options)
    check_bundle(bundle)
    together = place / "together"
    together.mkdir()
    for repository in (bundle, plain):
        for model in (repository / "model_repository").iterdir():
            (together / model.name).symlink_to(model)
    with run_server(together) as address:
        yield Served(address, bundle, gallery, threshold, opened)
    check_bundle(bundle)  # serving changed no file of it


def strangers() -> list[Image.Image]:
    return [decode_image(draw("PNG", 100 + seed), "here") for seed in range(8)]


@pytest.mark.parametrize("model", ["shop", "plain"])
def test_embeddings_are_those_of_onnxruntime_on_our_preprocessing(model: str, served: Served) -> None:
    contents = [draw(kind, 20 + seed) for seed, kind in enumerate(KINDS)]
    expected = served.embed(model, contents)
    alone = np.array([ask(served.address, model, [one])[0]["embeddings"] for one in contents], dtype=np.float32)
    together = np.array(
        [one["embeddings"] for half in (contents[:5], contents[5:]) for one in ask(served.address, model, half)],
        np.float32,
    )
    assert alone.shape == (8, 96)
    assert np.abs(alone - expected).max() <= 1e-6
    assert np.abs(together - expected).max() <= 1e-6
    similarity = expected @ expected.T
    assert similarity[~np.eye(8, dtype=bool)].max() < 0.9999  # the pictures are not one another's


def test_names_similarities_and_unknown_are_those_of_recognise(served: Served, tmp_path: Path) -> None:
    contents = [draw("PNG", 100 + seed) for seed in range(8)] + [draw(kind, seed) for seed, kind in enumerate(KINDS)]
    inputs = []
    for row, content in enumerate(contents):
        (tmp_path / f"{row}").write_bytes(content)
        inputs.append(Input(tmp_path / f"{row}", str(row)))
    expected = recognise(
        served.opened["shop"], served.gallery, inputs, threshold=served.threshold, top=3, device="cpu", num_workers=1
    )
    found = [answer for start in (0, 4, 8, 12) for answer in ask(served.address, "shop", contents[start : start + 4])]
    assert [one["decision"] for one in found] == expected["decision"].tolist()
    assert 0 < sum(one["decision"] == "unknown" for one in found) < 8
    assert set(LABELS) <= {one["decision"] for one in found}
    for place in range(3):
        assert [one["labels"][place] for one in found] == expected[f"label_{place + 1}"].tolist()
        similarities = [one["similarities"][place] for one in found]
        np.testing.assert_allclose(similarities, expected[f"similarity_{place + 1}"], atol=1e-6)
    np.testing.assert_allclose([one["probability"] for one in found], expected["probability"], atol=1e-4)


def test_eight_clients_at_once_each_get_their_own_answer(served: Served) -> None:
    contents = [draw(KINDS[seed % 8], 40 + seed) for seed in range(24)]
    expected = served.embed("shop", contents)
    barrier = threading.Barrier(8)

    def ask_three(client: int) -> list[list[float]]:
        barrier.wait(timeout=60)
        rows = range(3 * client, 3 * client + 3)
        return [ask(served.address, "shop", [contents[row]])[0]["embeddings"] for row in rows]

    for _ in range(10):
        before = statistics(served, "shop_embedder")
        with ThreadPoolExecutor(8) as pool:
            found = np.array([row for rows in pool.map(ask_three, range(8)) for row in rows], dtype=np.float32)
        assert np.abs(found - expected).max() <= 1e-6
        num_asked = num_batches = 0
        until = time.monotonic() + 30
        while num_asked < 24 and time.monotonic() < until:  # the server counts a request after it has answered it
            after = statistics(served, "shop_embedder")
            counts = (int(after[key]) - int(before[key]) for key in ("inference_count", "execution_count"))
            num_asked, num_batches = counts
        assert num_asked == 24
        if num_batches < 24:  # the server gathered requests of several clients
            return
    pytest.fail("240 requests by 8 clients were never gathered into one batch")


def statistics(served: Served, model: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{served.address}/v2/models/{model}/stats", timeout=30) as answer:
        (said,) = json.load(answer)["model_stats"]
    return dict(said)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ([draw("JPEG", 0)[:400]], "truncated"),
        ([b"\xff\xd8\xff and then nothing"], "damaged|truncated"),
        ([b"no picture"], "not an image: wanted JPEG, PNG, "),
        ([b""], "empty file"),
        ([draw("PNG", 0), draw("PNG", 1)[:200], draw("PNG", 2)], "picture 2 of 3: "),
        ([draw("PNG", 0)] * (MAX_BATCH + 1), f"batch-size must be <= {MAX_BATCH}"),
    ],
    ids=["cut", "garbled", "text", "empty", "one of three", "too many"],
)
def test_a_bad_request_gets_an_error_and_the_next_one_its_answer(
    contents: list[bytes], said: str, served: Served
) -> None:
    with pytest.raises(RuntimeError, match=said):
        ask(served.address, "shop", contents)
    good = draw("JPEG", 7)
    (answer,) = ask(served.address, "shop", [good])
    assert np.abs(np.array(answer["embeddings"]) - served.embed("shop", [good])[0]).max() <= 1e-6


def test_bad_and_good_requests_at_once_do_not_touch_each_other(served: Served) -> None:
    good, bad = draw("JPEG", 3), draw("JPEG", 3)[:500]
    expected = served.embed("shop", [good])[0]

    def one(number: int) -> bool:
        if number % 2:
            with pytest.raises(RuntimeError, match="truncated"):
                ask(served.address, "shop", [bad])
            return True
        return bool(np.abs(np.array(ask(served.address, "shop", [good])[0]["embeddings"]) - expected).max() <= 1e-6)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(24)))


def test_the_readmes_ways_to_ask_work(served: Served, tmp_path: Path) -> None:
    picture = tmp_path / "a picture.jpg"
    picture.write_bytes(draw("JPEG", 11))
    expected = served.embed("shop", [picture.read_bytes()])[0]
    command = [sys.executable, str(served.bundle / "client.py"), served.address, "shop", str(picture)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    said = json.loads(done.stdout)
    assert said["picture"] == str(picture)
    assert np.abs(np.array(said["embeddings"]) - expected).max() <= 1e-6
    # what the README's curl sends: the file alone, as the whole request
    request = urllib.request.Request(
        f"{served.address}/v2/models/shop/infer",
        data=picture.read_bytes(),
        headers={"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        length = int(answer.headers["Inference-Header-Content-Length"])
        content = answer.read()
    start = length
    for output in json.loads(content[:length])["outputs"]:
        if output["name"] == "embeddings":
            found = np.frombuffer(content[start:], np.float32, count=96)
            assert np.abs(found - expected).max() <= 1e-6
            break
        start += output["parameters"]["binary_data_size"]
    else:
        pytest.fail("the answer has no embeddings")


def test_the_server_is_gone_after_an_error_in_the_block(served: Served, tmp_path: Path) -> None:
    before = {path.name for path in Path("/dev/shm").iterdir()}
    seen: list[psutil.Process] = []

    def fail() -> None:
        with run_server(served.bundle / "model_repository") as address:
            ask(address, "shop", [draw("PNG", 1)])
            (server,) = [
                one for one in psutil.Process().children() if address.rpartition(":")[2] in " ".join(one.cmdline())
            ]
            seen.extend([server, *server.children(recursive=True)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert len(seen) > 4  # the server and a process for each Python model
    assert [one for one in seen if one.is_running() and one.status() != psutil.STATUS_ZOMBIE] == []
    assert {path.name for path in Path("/dev/shm").iterdir()} - before == set()


def test_a_repository_that_cannot_be_loaded_is_an_error_with_the_servers_words(served: Served, tmp_path: Path) -> None:
    model = tmp_path / "broken" / "1"
    model.mkdir(parents=True)
    (model / "model.py").write_text("raise RuntimeError('a model that does not start')\n")
    (model.parent / "config.pbtxt").write_text('name: "broken"\nbackend: "python"\n')
    before = set(psutil.Process().children(recursive=True))
    with (
        pytest.raises(ExportError, match=r"(?s)tritonserver ended with code 1.*a model that does not start"),
        run_server(tmp_path),
    ):
        pytest.fail("the server must not start")
    assert set(psutil.Process().children(recursive=True)) <= before
    with pytest.raises(ExportError, match="there is no folder"), run_server(tmp_path / "absent"):
        pytest.fail("the server must not start")
    with pytest.raises(ExportError, match="run `make triton`"):
        find_server(tmp_path)
