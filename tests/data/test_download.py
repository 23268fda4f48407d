"""Fetching against a server on loopback that breaks off, lies and forgets, and what is in place afterwards."""

import hashlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workbench.__main__ import main
from workbench.data.card import Card, CardError, list_cards, read_card
from workbench.data.catalog import open_catalog
from workbench.data.download import FetchRefused, _move_into, explain, fetch_set
from workbench.data.transfer import FetchError, download
from workbench.data.unpack import Limits

CONTENT = bytes(np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8))


class Server(ThreadingHTTPServer):
    """Serves `content`, and misbehaves as its fields say. `asked` holds the Range header of each request, "" for none."""

    daemon_threads = True
    block_on_close = False
    content = CONTENT
    etag: str | None = '"one"'
    break_after: list[int]
    """How many bytes each request gets before the connection is cut; the last number stays."""
    extra_bytes = 0
    ranges = True
    status = 200
    chunked = False
    wrong_place = 0
    silent_s = 0.0
    location = ""
    pace_s = 0.0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.break_after = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/sets/set.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server, start = self.server, 0
        asked = self.headers.get("Range") or ""
        server.asked.append(asked)
        time.sleep(server.silent_s)
        self.close_connection = True
        if server.status != 200:
            self.send_error(server.status)
            return
        if server.location and self.path != "/there":
            self.send_response(302)
            self.send_header("Location", server.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        total = len(server.content) + server.extra_bytes
        if asked and server.ranges and self.headers.get("If-Range") == server.etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-")) + server.wrong_place
            if start >= len(server.content):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            self.send_response(200)
        if server.etag:
            self.send_header("ETag", server.etag)
        if server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(total - start))
        self.end_headers()
        body = server.content[start:]
        if server.break_after:
            body = body[: server.break_after.pop(0) if len(server.break_after) > 1 else server.break_after[0]]
        try:
            for place in range(0, len(body), 200_000):
                piece = body[place : place + 200_000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if server.chunked else piece)
                time.sleep(server.pace_s)
            if server.chunked and start + len(body) == len(server.content):
                self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as there:
        thread = threading.Thread(target=there.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield there
        there.shutdown()
        thread.join()


def get(server: Server, path: Path, timeout_s: float = 5.0) -> list[str]:
    lines: list[str] = []
    download(server.url, path, lines.append, timeout_s=timeout_s, wait_s=0.0)
    return lines


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("chunked", [False, True])
def test_a_whole_file_in_one_go(server: Server, tmp_path: Path, chunked: bool) -> None:
    server.chunked = chunked
    get(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert server.asked == [""]
    assert left(tmp_path) == ["f"]


@pytest.mark.parametrize("chunked", [False, True])
def test_what_breaks_off_is_continued_where_it_stopped(server: Server, tmp_path: Path, chunked: bool) -> None:
    server.chunked = chunked
    server.break_after = [1_000_000, 700_000, 5_000_000]
    lines = get(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert server.asked == ["", "bytes=1000000-", "bytes=1700000-"]
    assert lines[0] == (
        "the connection broke off; trying again"
        if chunked
        else "broken off after 1000000 of 3000000 bytes; trying again"
    )
    assert lines[1] == "continuing after 1.0 MiB"
    assert left(tmp_path) == ["f"]


def test_a_later_call_continues_too(server: Server, tmp_path: Path) -> None:
    server.break_after = [1_000_000, 0]
    with pytest.raises(FetchError, match=r"broken off after 1000000 of 3000000 bytes; 4 tries.* kept in .*f\.part"):
        get(server, tmp_path / "f")
    assert left(tmp_path) == ["f.part", "f.part.json"]
    server.break_after, server.asked = [], []
    get(server, tmp_path / "f")
    assert server.asked == ["bytes=1000000-"]
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_server_that_ignores_range_begins_anew(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.break_after = [1_000_000, 5_000_000]
    assert "from the beginning" in get(server, tmp_path / "f")[1]
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_file_that_has_changed_meanwhile_begins_anew(server: Server, tmp_path: Path) -> None:
    server.break_after = [1_000_000, 0]
    with pytest.raises(FetchError):
        get(server, tmp_path / "f")
    server.content, server.etag, server.break_after = CONTENT[::-1], '"two"', []
    get(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_validator_nothing_is_patched_together(
    server: Server, tmp_path: Path, etag: str | None
) -> None:
    server.etag = etag
    server.break_after = [1_000_000, 5_000_000]
    get(server, tmp_path / "f")
    assert server.asked == ["", ""]
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_continuation_at_another_place_is_not_believed(server: Server, tmp_path: Path) -> None:
    server.break_after, server.wrong_place = [1_000_000, 5_000_000], 7
    lines = get(server, tmp_path / "f")
    assert "another file or another place" in lines[1]
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert server.asked == ["", "bytes=1000000-", ""]


def test_a_server_that_promises_more_than_it_has(server: Server, tmp_path: Path) -> None:
    server.extra_bytes = 10
    with pytest.raises(FetchError, match="says the file has 3000010 bytes and has none after 3000000"):
        get(server, tmp_path / "f")
    assert left(tmp_path) == []
    server.ranges = False
    with pytest.raises(FetchError, match="broken off after 3000000 of 3000010 bytes; 4 tries"):
        get(server, tmp_path / "f")


def test_a_part_that_is_whole_already_is_taken(server: Server, tmp_path: Path) -> None:
    server.break_after = [1_000_000, 0]
    with pytest.raises(FetchError):
        get(server, tmp_path / "f")
    (tmp_path / "f.part").write_bytes(CONTENT)
    server.break_after = []
    get(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "message", "tries"),
    [
        (404, "answered 404 Not Found; there is no such file", 1),
        (401, "wants a password", 1),
        (410, "withdrawn", 1),
        (418, "cannot be had", 1),
        (503, "answered 503 Service Unavailable; 4 tries", 4),
        (429, "answered 429", 4),
    ],
)
def test_a_refusal_is_told_and_only_a_passing_one_tried_again(
    server: Server, tmp_path: Path, status: int, message: str, tries: int
) -> None:
    server.status = status
    with pytest.raises(FetchError, match=message):
        get(server, tmp_path / "f")
    assert len(server.asked) == tries
    assert left(tmp_path) == []


def test_silence_ends(server: Server, tmp_path: Path) -> None:
    server.silent_s = 0.5
    with pytest.raises(FetchError, match=r"silent for 0\.1 s; 4 tries"):
        get(server, tmp_path / "f", timeout_s=0.1)


def test_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: whoever connects is refused
        with pytest.raises(FetchError, match="refused"):
            download(f"http://127.0.0.1:{taken.getsockname()[1]}/f", tmp_path / "f", lambda line: None, wait_s=0)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/y"])
def test_a_redirect_to_something_else_than_http_is_not_followed(server: Server, tmp_path: Path, location: str) -> None:
    server.location = location
    with pytest.raises(FetchError):
        get(server, tmp_path / "f")
    assert left(tmp_path) == []


def test_a_redirect_is_followed_with_its_range(server: Server, tmp_path: Path) -> None:
    server.location = "/there"
    server.break_after = [1_000_000, 5_000_000]
    get(server, tmp_path / "f")
    assert server.asked == ["", "", "bytes=1000000-", "bytes=1000000-"]
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_full_disk_is_told_of_before_the_download(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 257 << 20})())
    with pytest.raises(FetchError, match=r"2\.9 MiB more are wanted.*there are 257\.0 MiB.*--to"):
        get(server, tmp_path / "f")


def test_progress_comes_in_whole_lines(server: Server, tmp_path: Path) -> None:
    lines: list[str] = []
    download(server.url, tmp_path / "f", lines.append, tell_every_s=0.0)
    assert len(lines) == 3
    assert lines[-1].startswith("2.9 MiB of 2.9 MiB, ")
    assert not any("\r" in line or "\n" in line for line in lines)


# From here on: a whole set, from its card to its folder.

CARD = """---
title: Two tins
task: recognition
reader: image_folder
splits:
  train: {{images: {images}, labels: 2}}
licence: none
source: nowhere
archives:
  - url: {url}
    sha256: {sha256}
    folder: two-tins-1/dataset
layout: <class>/*.png
---
Text.
"""


def tins(folder: Path, entries: dict[str, bytes] | None = None) -> bytes:
    """A zip with two pictures of two classes, and what else is given."""
    import zipfile

    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "tins.zip", "w") as file:
        for label, grey in (("soup", 50), ("beans", 200)):
            Image.new("L", (8, 8), grey).save(folder / "x.png")
            file.write(folder / "x.png", f"two-tins-1/dataset/{label}/1.png")
        for name, content in (entries or {}).items():
            file.writestr(name, content)
    return (folder / "tins.zip").read_bytes()


def tins_card(server: Server, tmp_path: Path, sha256: str | None = "right", images: int = 2) -> Card:
    server.content = tins(tmp_path / "made")
    if sha256 == "right":
        sha256 = hashlib.sha256(server.content).hexdigest()
    path = tmp_path / "tins.md"
    path.write_text(CARD.format(url=server.url, sha256=sha256 or "null", images=images))
    return read_card(str(path))


def fetch(card: Card, to: Path, **given: bool | Limits | None) -> list[str]:
    lines: list[str] = []
    assert fetch_set(card, to, say=lines.append, wait_s=0.0, **given) == to.resolve() / card.name  # type: ignore[arg-type]
    return lines


def test_a_set_is_put_into_place_and_opens(server: Server, tmp_path: Path) -> None:
    card = tins_card(server, tmp_path)
    server.break_after = [100, 1_000_000]
    fetch(card, tmp_path / "data")
    assert left(tmp_path / "data") == ["tins"]
    catalog = open_catalog(str(card.path), tmp_path / "data")
    assert list(catalog.frame["path"]) == ["beans/1.png", "soup/1.png"]
    assert server.asked == ["", "bytes=100-"]


def test_what_is_there_is_left_as_it_is(server: Server, tmp_path: Path) -> None:
    card = tins_card(server, tmp_path)
    (tmp_path / "data" / "tins").mkdir(parents=True)
    with pytest.raises(FetchRefused, match="is there already and is left as it is"):
        fetch(card, tmp_path / "data")
    (tmp_path / "data" / "tins").rmdir()
    (tmp_path / "data" / "tins").symlink_to("nowhere")
    with pytest.raises(FetchRefused, match="is there already"):
        fetch(card, tmp_path / "data")
    assert server.asked == []


def test_a_wrong_sum_shows_both_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    card = tins_card(server, tmp_path, sha256="a" * 64)
    with pytest.raises(FetchError, match=f"{'a' * 64}.*{hashlib.sha256(server.content).hexdigest()}") as refusal:
        fetch(card, tmp_path / "data")
    assert "what came is removed" in str(refusal.value)
    assert left(tmp_path / "data") == []


def test_a_server_that_promises_less_than_it_has_is_found_out_by_the_sum(server: Server, tmp_path: Path) -> None:
    card = tins_card(server, tmp_path)
    server.extra_bytes = -10
    cut, whole = (hashlib.sha256(content).hexdigest() for content in (server.content[:-10], server.content))
    with pytest.raises(FetchError, match=f"{whole}.*{cut}"):
        fetch(card, tmp_path / "data")
    assert left(tmp_path / "data") == []


def test_an_unknown_sum_is_taken_only_when_asked_for_and_is_printed(server: Server, tmp_path: Path) -> None:
    card = tins_card(server, tmp_path, sha256=None)
    with pytest.raises(FetchRefused, match=r"does not know the sha256 of http.*--unchecked"):
        fetch(card, tmp_path / "data")
    assert server.asked == []
    lines = fetch(card, tmp_path / "data", unchecked=True)
    assert any(f"sha256 {hashlib.sha256(server.content).hexdigest()}" in line for line in lines)
    assert left(tmp_path / "data") == ["tins"]


def test_other_counts_than_the_cards_are_not_put_into_place(server: Server, tmp_path: Path) -> None:
    card = tins_card(server, tmp_path, sha256=None, images=3)
    with pytest.raises(FetchError, match=r"not put into place.*not as many as its card"):
        fetch(card, tmp_path / "data", unchecked=True)
    assert left(tmp_path / "data") == []
    tins_card(server, tmp_path, sha256=None, images=2)
    fetch(card, tmp_path / "data", unchecked=True)
    assert len(server.asked) == 2


def test_an_archive_that_is_right_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    card = tins_card(server, tmp_path, images=3)
    for _ in range(2):
        with pytest.raises(FetchError, match="not as many"):
            fetch(card, tmp_path / "data")
    assert len(server.asked) == 1
    assert left(tmp_path / "data") == [".tins.fetch"]
    assert left(tmp_path / "data/.tins.fetch") == ["1-set.zip"]


@pytest.mark.parametrize(
    ("entries", "limits", "message"),
    [
        ({"../../evil": b"x"}, None, "leads out of the folder"),
        ({"bomb": bytes(1 << 20)}, Limits(total_bytes=1 << 19), "holds more than 512 KiB"),
        ({"two-tins-1/dataset/notes.exe/x": b"x"}, None, "neither pictures"),
    ],
)
def test_a_dangerous_archive_leaves_nothing(
    server: Server, tmp_path: Path, entries: dict[str, bytes], limits: Limits | None, message: str
) -> None:
    card = tins_card(server, tmp_path, sha256=None)
    server.content = tins(tmp_path / "made", entries)
    with pytest.raises(FetchError, match=message):
        fetch(card, tmp_path / "data", unchecked=True, limits=limits)
    assert left(tmp_path / "data") == []
    assert left(tmp_path) == ["data", "made", "tins.md"]


def test_a_missing_folder_in_the_archive_is_named(server: Server, tmp_path: Path) -> None:
    card = tins_card(server, tmp_path)
    card.archives[0]["folder"] = "two-tins-2"
    with pytest.raises(FetchError, match="has no folder 'two-tins-2'; it has: two-tins-1"):
        fetch(card, tmp_path / "data")


def test_several_archives_become_one_set(server: Server, tmp_path: Path) -> None:
    card = tins_card(server, tmp_path)
    first = card.archives[0]
    card.archives.append(dict(first))
    with pytest.raises(FetchError, match=r"Two archives of the set hold '1\.png' in 'beans'"):
        fetch(card, tmp_path / "data")


def test_what_a_mac_packs_beside_the_pictures_is_no_conflict(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    for part in ("first", "second"):
        for name in (f"tin/{part}.jpg", "tin/.DS_Store", "__MACOSX/tin/._tin", "Thumbs.db"):
            path = tmp_path / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        _move_into(tmp_path / part, whole)
    assert [path.name for path in sorted((whole / "tin").glob("*.jpg"))] == ["first.jpg", "second.jpg"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{url: 'https://x.org/a.zip'}", "wants 'url' and 'sha256'"),
        ("[1]", "wants 'url' and 'sha256'"),
        ("{url: 'file:///etc/passwd', sha256: null}", "wants http"),
        ("{url: 'https://x.org/a.zip', sha256: abc}", "64 hex digits"),
        ("{url: 'https://x.org/a.zip', sha256: null, folder: ../up}", "inside the archive"),
        ("{url: 'https://x.org/a.zip', sha256: null, foldr: up}", "Did you mean 'folder'"),
    ],
)
def test_a_card_with_a_faulty_archive_is_refused(tmp_path: Path, entry: str, message: str) -> None:
    path = tmp_path / "tins.md"
    head, _, rest = CARD.format(url="u", sha256="null", images=2).partition("  - url")
    path.write_text(f"{head}  - {entry}\nlayout{rest.partition('layout')[2]}")
    with pytest.raises(CardError, match=message):
        read_card(str(path))


def kill_when(there: Path, code: str, *arguments: str) -> Iterator[None]:
    """Starts Python on `code`, yields once `there` is a folder or a file with content, then kills the process."""
    process = subprocess.Popen([sys.executable, "-c", code, *arguments])
    try:
        deadline = time.monotonic() + 100
        while not (there.exists() and (there.is_dir() or there.stat().st_size)):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield
    finally:
        process.kill()  # SIGKILL: nothing can be tidied up
        process.wait()


def test_a_download_whose_process_is_killed_is_continued(server: Server, tmp_path: Path) -> None:
    server.pace_s = 0.1
    code = "import sys; from pathlib import Path; from workbench.data.transfer import download; "
    code += "download(sys.argv[1], Path(sys.argv[2]), lambda line: None)"
    for _ in kill_when(tmp_path / "f.part", code, server.url, str(tmp_path / "f")):
        time.sleep(0.2)
    assert left(tmp_path) == ["f.part", "f.part.json"]
    server.pace_s, server.asked = 0.0, []
    get(server, tmp_path / "f")
    assert server.asked[0].startswith("bytes=")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_killed_unpacking_leaves_no_half_set_and_keeps_others_out(server: Server, tmp_path: Path) -> None:
    card = tins_card(server, tmp_path)
    data = tmp_path / "data"
    code = (
        "import sys, time, workbench.data.unpack as unpack; unpack._Budget.check_ratio = lambda *a: time.sleep(100); "
        "from workbench.data.card import read_card; from workbench.data.download import fetch_set; "
        "fetch_set(read_card(sys.argv[1]), sys.argv[2])"
    )
    half = data / ".tins.fetch/unpacked/0/two-tins-1/dataset/soup"
    for _ in kill_when(half, code, str(card.path), str(data)):
        with pytest.raises(FetchRefused, match="Another process is fetching tins"):
            fetch(card, data)
    assert left(data) == [".tins.fetch"]
    server.asked = []
    fetch(card, data)
    assert left(data) == ["tins"]
    assert server.asked == []  # the archive was whole and its sum right


def test_the_command_fetches_refuses_and_fails(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = tins_card(server, tmp_path)
    command = ["data", "fetch", str(card.path), "--to", str(tmp_path / "data")]
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "data" / "tins")
    assert main(command) == 2
    assert "is there already" in capsys.readouterr().err
    server.status = 404
    assert main([*command[:-1], str(tmp_path / "other")]) == 1
    assert "404" in capsys.readouterr().err
    assert main(["data", "fetch", "grocery_stor"]) == 2
    assert "Did you mean 'grocery_store'" in capsys.readouterr().err


def test_the_command_says_how_to_come_by_the_other_sets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    assert main(["data", "fetch", "market1501"]) == 2
    told = capsys.readouterr().err
    card = read_card("market1501")
    assert all(text in told for text in (card.source, card.licence, "bounding_box_train/", f"{tmp_path}/market1501"))
    assert told.strip().endswith("python -m workbench data check market1501")
    assert explain(card, tmp_path).endswith(f"--data-root {tmp_path}")
    assert main(["data", "fetch", "synthetic_products"]) == 2
    assert "drawn by code" in capsys.readouterr().err
    assert left(tmp_path) == []


def test_no_card_of_ours_is_fetched_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("something was asked for"))
    for card in list_cards():
        assert all(archive["sha256"] is None for archive in card.archives)
        with pytest.raises(FetchRefused, match=r"drawn by code|names no archive|--unchecked"):
            fetch_set(card, tmp_path)
    assert left(tmp_path) == []
    with pytest.raises(FetchRefused, match="--unchecked"):
        fetch_set(read_card("grocery_store"), tmp_path)
