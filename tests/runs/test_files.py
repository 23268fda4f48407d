from pathlib import Path

import pytest

from workbench.runs.files import new_folder


def _make(path: Path, mine: str, theirs: str, more: bool = False) -> None:
    """Fills a new folder while another process, which is quicker, makes one at the same place."""
    with new_folder(path) as temporary:
        for folder, content in ((temporary, mine), (path, theirs)):
            (folder / "inner").mkdir(parents=True)
            (folder / "inner" / "file").write_text(content)
        if more:
            (path / "more").touch()


def test_a_folder_that_was_made_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "made"
    with pytest.raises(FileExistsError, match="made meanwhile by another process"):
        _make(path, "mine", theirs="theirs")
    assert (path / "inner" / "file").read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_one_with_the_same_content_is_as_good(tmp_path: Path) -> None:
    path = tmp_path / "made"
    _make(path, "same", theirs="same")
    assert (path / "inner" / "file").read_text() == "same"
    assert list(tmp_path.iterdir()) == [path]


def test_one_file_more_is_another_content(tmp_path: Path) -> None:
    path = tmp_path / "made"
    with pytest.raises(FileExistsError, match="meanwhile"):
        _make(path, "same", theirs="same", more=True)
    assert (path / "more").is_file()
