"""Files and folders written whole or not at all, and the sum by which a file is known again."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to `path` atomically: a reader sees the old file or the new one, never a part.

    The parent folder is created. On an error (a full disk, say) the old file stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8 to `path` atomically (see `write_bytes`)."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON to `path` atomically (see `write_bytes`); NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary sibling folder to fill, which becomes `path` when the block ends without an error.

    When another process has made `path` meanwhile, its folder stays and ours is dropped; that is no error where both hold
    the same files with the same content.

    Raises:
        FileExistsError: what another process made there meanwhile is not the same.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        os.chmod(temporary, 0o755)
        try:
            os.rename(temporary, path)
        except OSError as error:
            if not path.is_dir():
                raise
            if _sums(path) != _sums(temporary):
                raise FileExistsError(
                    f"{path} was made meanwhile by another process, with another content, and is left as it is; choose "
                    "another folder."
                ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sums(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below the folder, by its path in it."""
    return {str(path.relative_to(folder)): sha256_of(path) for path in folder.rglob("*") if path.is_file()}
