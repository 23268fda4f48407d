"""Notebook 08 as a person uses it: JupyterLab on loopback, 20,000 references, a slider moved, points clicked, pictures seen."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from workbench.data.catalog import open_catalog
from workbench.models.embedder import build_embedder
from workbench.retrieval.embed import embed_catalog
from workbench.retrieval.gallery import Gallery
from workbench.retrieval.recognise import made_by

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(1500)]

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "<img src=x onerror=window.hacked=1>"
NUM_REFERENCES = 20_000
COLOURS = {
    HOSTILE: (220, 40, 30),
    "007": (30, 40, 220),
    "7": (30, 200, 40),
    "a&b": (200, 200, 30),
    "oat": (30, 200, 200),
}
_SETTINGS = {
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": '{"windowingMode": "none"}',
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": '{"fetchNews": "false", "checkForUpdates": false}',
}
_FREE_PORT_WAIT_S = 240
_FIND_MAP = """window.findMap = () =>
    [...document.querySelectorAll('.js-plotly-plot')].find(plot => plot.layout?.dragmode === 'lasso');"""


@dataclass
class Lab:
    """An open notebook, with what the page said and asked for."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def _draw(path: Path, colour: tuple[int, int, int], seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-60, 60, (48, 48, 3))
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of notebook 08 whose parameters name a small shop and a gallery of 20,000 references, many of one picture each."""
    work = tmp_path_factory.mktemp("lab")
    lines = ["path,label,split"]
    for number, (label, colour) in enumerate(COLOURS.items()):
        for split, count in (("reference", 4), ("query", 4)):
            for place in range(count):
                name = f"{split}/{number}_{place}.png"
                _draw(work / "shop" / name, colour, 100 * number + 10 * place + len(split))
                lines.append(f"{name},{label},{split}")
    _draw(work / "new" / "one.png", (120, 20, 160), 1)
    _draw(work / "new" / "two.png", (120, 20, 160), 2)
    (work / "shop" / "images.csv").write_text("\n".join(lines) + "\n")
    card = work / "shop.md"
    card.write_text(
        "---\ntitle: Shop\ntask: recognition\nreader: table\nlicence: mine\nsource: drawn\nlayout: a table\n"
        "options: {table: images.csv}\nprotocol: {reference_sets: ['reference:real'], query_split: query, query_domain: real}\n---\nShop.\n"
    )
    catalog = open_catalog(str(card), work / "shop")
    embedder = build_embedder("timm:test_vit", "random", image_size=(64, 64))
    part = embed_catalog(embedder, catalog.select(split="reference"), device="cpu", progress=None)
    rows = np.arange(NUM_REFERENCES) % len(part)
    noise_ND = 0.02 * np.random.default_rng(0).normal(size=(NUM_REFERENCES, embedder.embedding_dim))
    gallery = Gallery.build(part.embedding_ND[rows] + noise_ND, part.catalog.labels[rows], part.catalog.names()[rows])
    gallery.about |= made_by(embedder)
    gallery.save(work / "gallery")
    changed = {
        "data": str(card), "data_root": str(work / "shop"), "gallery": str(work / "gallery"), "image_size": 64,
        "new_product": str(work / "new"), "new_label": "plum", "device": "cpu",
    }  # fmt: skip
    copy = nbformat.read(ROOT / "notebooks" / "08_explore_gallery.ipynb", as_version=4)
    (cell,) = [cell for cell in copy.cells if "parameters" in cell.metadata.get("tags", [])]
    for name, value in changed.items():
        cell.source, found = re.subn(
            rf"^({name}: [^=]+ = ).*?(  #)", rf"\g<1>{value!r}\g<2>", cell.source, flags=re.MULTILINE
        )
        assert found == 1, name
    nbformat.write(copy, work / "explore.ipynb")
    return work / "explore.ipynb"


@pytest.fixture(scope="module")
def lab(browser: Browser, notebook: Path) -> Iterator[Lab]:
    work = notebook.parent
    for name, text in _SETTINGS.items():
        (work / "settings" / name).parent.mkdir(parents=True, exist_ok=True)
        (work / "settings" / name).write_text(text)
    folders = {f"JUPYTER_{name}_DIR": str(work / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    folders |= {"JUPYTERLAB_SETTINGS_DIR": str(work / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(work / "spaces")}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--IdentityProvider.token=for-the-test", f"--ServerApp.root_dir={work}", "--allow-root"]
    command += ["--LabApp.expose_app_in_browser=True", "--LabApp.news_url=", "--ServerApp.port_retries=0"]
    environment = {**os.environ, **folders, "WORKBENCH_ROOT": str(ROOT)}
    environment.pop("WORKBENCH_RUN", None)
    with (work / "server.log").open("w") as log:
        server = subprocess.Popen(command, cwd=work, env=environment, stdout=log, stderr=log, start_new_session=True)
    context = browser.new_context(viewport={"width": 1500, "height": 1000})
    try:
        _wait_for_port(port, server, work / "server.log")
        lab = Lab(context.new_page())
        lab.page.on("console", lambda said: lab.errors.append(said.text) if said.type == "error" else None)
        lab.page.on("pageerror", lambda error: lab.errors.append(str(error)))
        lab.page.on("request", lambda request: lab.requests.append(request.url))
        lab.page.add_init_script(_FIND_MAP)
        lab.page.goto(f"http://127.0.0.1:{port}/lab/tree/{notebook.name}?token=for-the-test", timeout=240_000)
        lab.page.wait_for_function(
            "window.jupyterapp && window.jupyterapp.shell.currentWidget?.context?.isReady", timeout=240_000
        )
        _run_all(lab.page)
        yield lab
    finally:
        context.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGINT)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(30)


def _wait_for_port(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _FREE_PORT_WAIT_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert server.poll() is None, log.read_text()[-3000:]
        time.sleep(0.5)
    raise AssertionError(f"JupyterLab did not answer in {_FREE_PORT_WAIT_S} s: {log.read_text()[-3000:]}")


def _run_all(page: Page) -> None:
    """Runs the notebook to its end; a cell's error is this test's."""
    page.evaluate(
        """async () => {
            const panel = window.jupyterapp.shell.currentWidget;
            await panel.context.ready; await panel.sessionContext.ready;
            window.done = false;
            window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => { window.done = true; });
        }"""
    )
    page.wait_for_function("window.done", timeout=900_000)
    outputs = page.evaluate(
        """() => window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells
            .filter(cell => cell.cell_type === 'code').map(cell => [cell.execution_count, cell.getOutputs()])"""
    )
    for count, shown in outputs:
        assert count is not None
        assert [one for one in shown if one["output_type"] == "error"] == []


# Milliseconds from an act to the change of an element's text, measured in the page.
_TIMED = """([selector, act]) => new Promise((done, failed) => {
    const element = document.querySelector(selector);
    const before = element.textContent;
    let began = 0;
    const watch = new MutationObserver(() => {
        const now = document.querySelector(selector);
        if (began && now && now.textContent !== before) { watch.disconnect(); done(performance.now() - began); }
    });
    watch.observe(document.body, {childList: true, subtree: true, characterData: true});
    document.addEventListener(act, () => { began ||= performance.now(); }, {capture: true, once: true});
    window.armed = true;
    setTimeout(() => failed(new Error(`no change of ${selector}`)), 60000);
})"""


def _timed(page: Page, selector: str, event: str, act: Any) -> float:
    page.evaluate(
        "([script, args]) => { window.armed = false; window.timed = eval(script)(args); }", [_TIMED, [selector, event]]
    )
    page.wait_for_function("window.armed")
    act()
    return float(page.evaluate("window.timed"))


def _counts(page: Page) -> dict[str, int]:
    cells = page.locator("[data-count]").all()
    return {str(cell.get_attribute("data-count")): int(cell.inner_text().replace(",", "")) for cell in cells}


def _log(capsys: pytest.CaptureFixture[str], name: str, times_ms: list[float]) -> None:
    with capsys.disabled():
        text = ", ".join(f"{one:.0f}" for one in times_ms)
        sys.stdout.write(f"\nexplorer in JupyterLab at {NUM_REFERENCES:,} references: {name} {text} ms\n")


def test_the_slider_moves_the_counts_in_jupyterlab(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    page = lab.page
    counts = _counts(page)
    assert counts["right"] + counts["wrong"] + counts["refused"] == 20
    assert counts["false_accepts"] + counts["refused_unknown"] == 20

    handle = page.locator(".noUi-handle").first
    handle.scroll_into_view_if_needed()
    handle.focus()
    page.keyboard.press("Home")  # the lowest threshold accepts everything
    page.wait_for_function("document.querySelector('[data-count=refused]').textContent === '0'", timeout=60_000)
    assert _counts(page)["false_accepts"] == 20
    title = ".wb[role=status] .wb-title"
    times_ms = [_timed(page, title, "keydown", lambda: page.keyboard.press("ArrowRight")) for _ in range(5)]
    page.keyboard.press("End")
    page.wait_for_function("document.querySelector('[data-count=refused]').textContent === '20'", timeout=60_000)
    _log(capsys, "slider", times_ms)


# Where points of the live map are on the screen, in their order, a list a trace: x, y in px of the viewport, and their text.
_POINTS = """() => {
    const map = window.findMap();
    const {left, top} = map.getBoundingClientRect(), {xaxis, yaxis, _size} = map._fullLayout;
    return map._fullData.map(trace => Array.from(trace.x ?? [], (x, at) =>
        [left + _size.l + xaxis.d2p(x), top + _size.t + yaxis.d2p(trace.y[at]), trace.text[at]]));
}"""
_PICKED = ".wb-cells[aria-label='Picked on the map']"


# Whether the map has drawn all there is to draw and stood still for half a second.
_STILL = """() => {
    const map = window.findMap();
    map.scrollIntoView({block: 'center'});
    const {left, top, width, height} = map.getBoundingClientRect(), now = [left, top, width, height].join();
    if (window.mapWas !== now) { window.mapWas = now; window.mapSince = performance.now(); }
    return performance.now() - window.mapSince > 500;
}"""


def _points(page: Page) -> list[list[tuple[float, float, str]]]:
    page.wait_for_function(_STILL, polling=50)
    points: list[list[tuple[float, float, str]]] = page.evaluate(_POINTS)
    return points


def _press_on(page: Page, label: str) -> None:
    """Presses the mouse on a reference of this class, once plotly says that it is there."""
    x, y, text = next(point for point in _points(page)[0] if point[2].startswith(f"{label} ("))
    page.mouse.move(x - 20, y - 20)
    page.mouse.move(x, y, steps=4)
    page.wait_for_function("text => document.querySelector('.hoverlayer')?.parentNode && "
        "[...document.querySelectorAll('.hovertext')].some(one => one.textContent === text)", arg=text)  # fmt: skip
    page.mouse.down()


def test_a_click_on_the_map_shows_the_picture(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    page, times_ms = lab.page, []
    assert len(_points(page)[0]) > 19_000
    for label in ("oat", "7", "007"):
        _press_on(page, label)
        times_ms.append(_timed(page, _PICKED, "mouseup", page.mouse.up))
        caption = page.locator(_PICKED).inner_text().split("\n")
        assert caption[0].removeprefix("✓ right. ") == label
        page.wait_for_function(f"document.querySelector(`{_PICKED} img`)?.naturalWidth === 48")
    _log(capsys, "click", times_ms)


def _wait_for_pick(page: Page, label: str) -> None:
    page.wait_for_function(
        "([grid, label]) => document.querySelector(grid).innerText.split('\\n')[0] === label",
        arg=[_PICKED, label],
        timeout=60_000,
    )
    assert page.locator(f"{_PICKED} button").count() == 1


def test_a_click_is_not_lost_while_the_kernel_is_busy(lab: Lab) -> None:
    """Plotly's own widget keeps one message for a busy kernel, and hovering after a click takes its place."""
    page = lab.page
    away = [next(point for point in _points(page)[0] if point[2].startswith(f"{label} (")) for label in ("7", "007")]
    page.evaluate(
        """code => {
            const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
            window.idle = kernel.requestExecute({code}).done.then(reply => reply.content.status);
        }""",
        "import ctypes; ctypes.PyDLL(None).sleep(6)",  # nor does any other thread of the kernel run meanwhile
    )
    _press_on(page, "oat")
    page.mouse.up()
    for x, y, _ in away:
        page.wait_for_timeout(300)
        page.mouse.move(x, y, steps=4)
    assert page.evaluate("window.idle") == "ok"
    _wait_for_pick(page, "oat")


def test_a_click_right_after_a_move_is_not_lost(lab: Lab) -> None:
    """Plotly puts a hover off by up to 50 ms, and one that comes while the button is down forgets the point."""
    page = lab.page
    x, y, _ = next(point for point in _points(page)[0] if point[2].startswith("7 ("))
    page.mouse.move(5, 5)
    page.wait_for_timeout(200)
    page.evaluate(
        """async ([x, y]) => {
            const map = window.findMap();
            const place = map.querySelector('.nsewdrag'), wait = ms => new Promise(done => setTimeout(done, ms));
            const say = (kind, target = place, shift = 0) => target.dispatchEvent(
                new MouseEvent(kind, {clientX: x + shift, clientY: y, bubbles: true, cancelable: true, view: window}));
            say('mousemove'); say('mousemove', place, 1); say('mousedown');
            await new Promise(unhovered => map.on('plotly_unhover', unhovered));
            await wait(5);
            say('mouseup', document);
        }""",
        [x, y],
    )
    _wait_for_pick(page, "7")


def test_a_lasso_picks_what_it_encloses(lab: Lab) -> None:
    page = lab.page
    traces = _points(page)
    points = [point for trace in traces for point in trace]
    oats = np.array([[x, y] for x, y, text in points if text.startswith("oat (")])
    (left, top), (right, bottom) = oats.min(axis=0) - 6, oats.max(axis=0) + 6
    inside = [text for x, y, text in points if left < x < right and top < y < bottom]
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top)):
        page.mouse.move(x, y, steps=6)
    page.mouse.up()
    note = f"{len(inside):,} points picked, 1 to 24 shown."
    page.get_by_text(note, exact=True).wait_for(timeout=60_000)
    assert len(oats) == len(inside) > 3900
    assert page.locator(f"{_PICKED} button").count() == 24


def test_a_picture_that_is_dropped_is_asked(lab: Lab, notebook: Path) -> None:
    page = lab.page
    page.locator(".wb-drop").first.scroll_into_view_if_needed()
    page.evaluate(
        """bytes => {
            const carried = new DataTransfer();
            carried.items.add(new File([new Uint8Array(bytes)], "desk.png", {type: "image/png"}));
            const drop = new DragEvent("drop", {dataTransfer: carried, bubbles: true, cancelable: true});
            document.querySelector(".wb-drop").dispatchEvent(drop);
        }""",
        list((notebook.parent / "new" / "one.png").read_bytes()),
    )
    page.get_by_text(re.compile("^(Accepted as plum|Unknown): nearest plum at 1.0000")).first.wait_for(timeout=60_000)


def test_a_widget_that_loads_while_the_page_is_busy_still_follows_the_kernel(lab: Lab) -> None:
    """anywidget gives up after two seconds, and is deaf then."""
    page = lab.page
    page.evaluate(
        """code => {
            const real = URL.createObjectURL;
            URL.createObjectURL = blob => {
                URL.createObjectURL = real;
                setTimeout(() => { const until = performance.now() + 3000; while (performance.now() < until); });
                return real.call(URL, blob);
            };
            const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
            return kernel.requestExecute({code}).done.then(reply => reply.content.status);
        }""",
        "from workbench.report.picture_grid import PictureGrid\n"
        "late = PictureGrid(None, note='it loads'); explorer.map.box.children += (late,)",
    )
    page.get_by_text("it loads", exact=True).wait_for(timeout=60_000)
    page.evaluate(
        """code => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute({code}).done
            .then(reply => reply.content.status)""",
        "late.note = 'it follows'",
    )
    page.get_by_text("it follows", exact=True).wait_for(timeout=60_000)


def test_figures_are_as_wide_as_their_place_and_titles_stand_apart(lab: Lab) -> None:
    found = lab.page.evaluate(
        """() => [...document.querySelectorAll('.js-plotly-plot')].map(plot => {
            const title = plot.querySelector('.gtitle').getBoundingClientRect();
            const subtitle = plot.querySelector('.gtitle-subtitle').getBoundingClientRect();
            return [plot.clientWidth, plot._fullLayout.width, title.bottom - subtitle.top];
        })"""
    )
    assert len(found) >= 5
    for place, width, overlap in found:
        assert width == place
        assert overlap <= 1


def test_no_class_name_ran_and_nothing_left_the_machine(lab: Lab) -> None:
    assert lab.page.evaluate("window.hacked") is None
    away = [url for url in lab.requests if not re.match(r"(http|ws)://127\.0\.0\.1[:/]|data:|blob:", url)]
    assert away == []


def test_the_page_said_no_error(lab: Lab) -> None:
    assert lab.errors == []
