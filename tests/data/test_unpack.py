"""Unpacking: what an honest archive becomes, and that no dishonest one writes outside, links, or fills the disk."""

import io
import random
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.data.unpack import Limits, UnpackError, unpack

SMALL = Limits(total_bytes=1 << 20, num_entries=10, ratio=100, free_bytes=10_000, spare_disk_bytes=0)


def make_zip(path: Path, entries: list[tuple[str, bytes]], mode: int = 0, packing: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", packing) as file:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.compress_type = packing
            info.external_attr = mode << 16
            file.writestr(info, content)
    return path


def make_tar(path: Path, entries: list[tuple[str, bytes]], how: str = "w:gz", **fields: object) -> Path:
    with tarfile.open(path, how) as file:  # type: ignore[call-overload]
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            file.addfile(info, io.BytesIO(content))
    return path


def refused(archive: Path, tmp_path: Path, message: str, limits: Limits | None = None) -> None:
    """The archive is refused for the reason, and nothing but plain files and folders in the target was touched."""
    target = tmp_path / "deep" / "down" / "target"
    target.mkdir(parents=True)
    outside = {path for path in tmp_path.rglob("*") if target not in path.parents}
    with pytest.raises(UnpackError, match=message):
        unpack(archive, target, limits)
    assert {path for path in tmp_path.rglob("*") if target not in path.parents} == outside
    assert all(path.is_dir() or stat.S_ISREG(path.lstat().st_mode) for path in target.rglob("*"))


CONTENT = [
    ("set/a.jpg", b"one"),
    ("set/deep/er/b.jpg", b""),
    ("./set/deep//c.txt", b"three" * 1000),
    ("set/\u00e4.jpg", b"4"),
]


@pytest.mark.parametrize("kind", ["zip", "stored zip", "w:", "w:gz", "w:bz2", "w:xz"])
def test_an_honest_archive_becomes_its_files(tmp_path: Path, kind: str) -> None:
    archive, target = tmp_path / "archive", tmp_path / "target"
    target.mkdir()
    if kind.endswith("zip"):
        make_zip(archive, CONTENT, packing=zipfile.ZIP_STORED if kind == "stored zip" else zipfile.ZIP_DEFLATED)
    else:
        make_tar(archive, CONTENT, kind, mode=0o4777)
    assert unpack(archive, target) == 4
    found = {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert found == {
        "set/a.jpg": b"one",
        "set/deep/er/b.jpg": b"",
        "set/deep/c.txt": b"three" * 1000,
        "set/\u00e4.jpg": b"4",
    }
    assert (target / "set/a.jpg").stat().st_mode & (stat.S_ISUID | stat.S_IXUSR | stat.S_IWOTH) == 0


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_folders_may_be_named_before_or_after_what_is_in_them(tmp_path: Path, make: Callable[..., Path]) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a/b/x", b"1")
        file.mkdir("a")
        file.mkdir("a/b/")
        file.mkdir("empty")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (
            ("./", tarfile.DIRTYPE),
            ("a/b/x", tarfile.REGTYPE),
            ("a", tarfile.DIRTYPE),
            ("a/b", tarfile.DIRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, int(kind == tarfile.REGTYPE)
            tar.addfile(info, io.BytesIO(b"1"))
        info = tarfile.TarInfo("empty")
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    target = tmp_path / "target"
    target.mkdir()
    assert unpack(tmp_path / ("a.zip" if make is make_zip else "a.tar"), target) == 1
    assert (target / "a/b/x").read_bytes() == b"1"
    assert list((target / "empty").iterdir()) == []


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/passwd", "leads out"),
        ("../evil", "leads out"),
        ("a/../../evil", "leads out"),
        ("a/..", "leads out"),
        ("C:/evil", "a drive"),
        ("a\\..\\evil", "a backslash"),
        ("a\nb", "control character"),
        ("n" * 256, "more than 255 bytes"),
        ("\u00e4" * 128, "more than 255 bytes"),
    ],
)
def test_a_name_that_leads_astray_is_refused(
    tmp_path: Path, make: Callable[..., Path], name: str, message: str
) -> None:
    refused(make(tmp_path / "archive", [("fine", b"x"), (name, b"evil")]), tmp_path, message)


def test_a_zip_name_cut_by_a_zero_byte_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "archive", [("fine.jpgX..evil", b"x")])
    archive.write_bytes(archive.read_bytes().replace(b"fine.jpgX", b"fine.jpg\x00"))
    refused(archive, tmp_path, "control character")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("to", ["../../outside", "/etc/passwd", "inside"])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes, to: str) -> None:
    with tarfile.open(tmp_path / "archive", "w") as file:
        inside = tarfile.TarInfo("inside")
        inside.size = 1
        file.addfile(inside, io.BytesIO(b"x"))
        info = tarfile.TarInfo("door")
        info.type, info.linkname = kind, to
        file.addfile(info)
        through = tarfile.TarInfo("door/through")
        through.size = 4
        file.addfile(through, io.BytesIO(b"evil"))
    refused(tmp_path / "archive", tmp_path, "'door' is a link, a device")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, kind: int) -> None:
    refused(make_zip(tmp_path / "archive", [("door", b"/etc")], kind | 0o777), tmp_path, "'door' is a link or a device")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("names", [["a", "a"], ["a", "./a"], ["a", "a/b"], ["a/b", "a"]])
def test_a_name_that_is_there_twice_is_refused(tmp_path: Path, make: Callable[..., Path], names: list[str]) -> None:
    refused(make(tmp_path / "archive", [(name, b"x") for name in names]), tmp_path, "two entries become 'a'")


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("names", [["a/x.jpg", "a/X.jpg"], ["milk/x", "Milk/y"]])
def test_names_that_differ_in_case_stay_apart_or_are_refused(
    tmp_path: Path, make: Callable[..., Path], names: list[str]
) -> None:
    archive = make(tmp_path / "archive", [(name, name.encode()) for name in names])
    (tmp_path / "probe").touch()
    if (tmp_path / "PROBE").exists():
        refused(archive, tmp_path, "two entries become")
        return
    target = tmp_path / "target"
    target.mkdir()
    assert unpack(archive, target) == 2
    assert [(target / name).read_bytes() for name in names] == [name.encode() for name in names]


def test_a_disk_that_does_not_keep_case_apart_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What such a disk does, seen from here: the other spelling is there already.
    make, target = Path.mkdir, tmp_path / "target"
    target.mkdir()
    monkeypatch.setattr(Path, "mkdir", lambda path: make(path.parent / path.name.lower()))
    with pytest.raises(UnpackError, match="two entries become 'Milk' on this disk"):
        unpack(make_zip(tmp_path / "archive", [("milk/", b""), ("Milk/y", b"y")]), target)


def test_zip_names_without_the_utf8_flag(tmp_path: Path) -> None:
    def flagless(name: bytes) -> Path:
        archive = make_zip(tmp_path / "archive", [("N" * len(name), b"x")])
        archive.write_bytes(archive.read_bytes().replace(b"N" * len(name), name))
        return archive

    target = tmp_path / "target"
    target.mkdir()
    assert unpack(flagless("m\u00fcsli.jpg".encode()), target) == 1
    assert [path.name for path in target.iterdir()] == ["m\u00fcsli.jpg"]
    refused(flagless("m\u00fcsli.jpg".encode("latin-1")), tmp_path, "is not UTF-8, and a guess")


def test_tar_names_in_an_old_encoding_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "archive", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as file:
        file.addfile(tarfile.TarInfo("m\u00fcsli.jpg"))
    refused(tmp_path / "archive", tmp_path, r"'m\\udcfcsli.jpg' is not UTF-8")


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "archive", [("secret", b"x" * 20)])
    content = bytearray(archive.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    refused(archive, tmp_path, "'secret' is encrypted")


def test_a_zip_bomb_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "archive", [("bomb", bytes(2 << 20))])
    assert archive.stat().st_size < 3000
    refused(archive, tmp_path, "it holds more than 1 MiB unpacked", SMALL)
    assert list((tmp_path / "deep/down/target").iterdir()) == []


def test_a_zip_that_lies_about_its_sizes_is_stopped_while_writing(tmp_path: Path) -> None:
    """Sixty entries that each state 10 bytes in the directory and in the head would become 60 times 100,000."""
    archive = make_zip(tmp_path / "archive", [(f"{number}", bytes(100_000)) for number in range(60)])
    content = archive.read_bytes()
    archive.write_bytes(content.replace(struct.pack("<L", 100_000), struct.pack("<L", 10)))
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(UnpackError, match=r"damaged|it holds more than"):
        unpack(archive, target, SMALL)
    assert sum(path.stat().st_size for path in target.iterdir()) <= SMALL.total_bytes


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_what_grows_too_much_is_stopped_at_its_ratio(tmp_path: Path, make: Callable[..., Path]) -> None:
    limits = Limits(ratio=100, free_bytes=10_000, spare_disk_bytes=0)
    archive = make(tmp_path / "archive", [("fine", b"x"), ("bomb", bytes(8 << 20))])
    refused(archive, tmp_path, "becomes more than 100 times as large as it is packed: a bomb", limits)
    assert (tmp_path / "deep/down/target/bomb").stat().st_size <= 1 << 20


def test_a_tar_bomb_is_stopped_at_the_size_limit(tmp_path: Path) -> None:
    limits = Limits(total_bytes=1 << 20, ratio=1e9, spare_disk_bytes=0)
    archive = make_tar(tmp_path / "archive", [("a", bytes(700_000)), ("b", bytes(700_000))])
    refused(archive, tmp_path, "it holds more than 1 MiB unpacked", limits)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_too_many_entries_are_refused(tmp_path: Path, make: Callable[..., Path]) -> None:
    target = tmp_path / "target"
    target.mkdir()
    assert unpack(make(tmp_path / "archive", [(f"{number}", b"") for number in range(10)]), target, SMALL) == 10
    refused(make(tmp_path / "archive", [(f"{n}/{n}", b"") for n in range(6)]), tmp_path, "more than 10 files", SMALL)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_full_disk_is_told_of_before_it_is_full(
    tmp_path: Path, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 262 << 20})())
    archive = make(tmp_path / "archive", [("a", bytes(8 << 20))])
    refused(archive, tmp_path, "unpacked, and the disk has 6 MiB", Limits(ratio=1e9))


@pytest.mark.parametrize("kind", ["zip", "w:gz", "w:bz2", "w:xz"])
def test_a_damaged_archive_is_refused(tmp_path: Path, kind: str) -> None:
    entries = [("a", random.Random(0).randbytes(1_200_000))]
    archive = (
        make_zip(tmp_path / "archive", entries) if kind == "zip" else make_tar(tmp_path / "archive", entries, kind)
    )
    content = bytearray(archive.read_bytes())
    content[len(content) * 9 // 10] ^= 0xFF
    archive.write_bytes(content)
    refused(archive, tmp_path, "is damaged")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_truncated_archive_is_refused(tmp_path: Path, make: Callable[..., Path]) -> None:
    archive = make(tmp_path / "archive", [("a", bytes(range(256)) * 40)])
    archive.write_bytes(archive.read_bytes()[:-30])
    refused(archive, tmp_path, "is damaged|is neither")


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(b"<html>please log in</html>")
    refused(
        tmp_path / "archive",
        tmp_path,
        "neither a zip nor a tar archive that can be read; it begins with b'<html>please",
    )


@pytest.mark.filterwarnings("ignore:Duplicate name")
@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(st.sampled_from("ab./\\ \u00e9\u0000:"), min_size=1, max_size=8), st.binary(max_size=20)),
        max_size=6,
        unique_by=lambda entry: entry[0],
    ),
    st.booleans(),
)
def test_whatever_the_names_nothing_is_written_outside(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, bytes]], as_zip: bool
) -> None:
    folder = tmp_path_factory.mktemp("any")
    archive = (make_zip if as_zip else make_tar)(folder / "archive", entries)
    target = folder / "target"
    target.mkdir()
    try:
        unpack(archive, target)
    except UnpackError:
        pass
    else:
        kept = sorted(content for name, content in entries if not (as_zip and name.endswith("/")))
        assert sorted(path.read_bytes() for path in target.rglob("*") if path.is_file()) == kept
    assert sorted(path.name for path in folder.iterdir()) == ["archive", "target"]
