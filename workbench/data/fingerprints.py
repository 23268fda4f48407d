"""By what files of pictures are known again: where they lie and when they changed, or what is in them."""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import joblib

from workbench.data.images import ImageError, Picture, content_key, image_bytes, say_box


def place_fingerprint(pictures: Sequence[Picture]) -> str:
    """sha256 (hex) of where the files lie, how large they are and when they changed, in order, boxes included.

    It costs one look at each file. The same name, size and time of change elsewhere is another file; so is one that was
    put in another's place with its size and time of change (rsync and tar keep them), since the system's own time of change
    of the entry (ctime) cannot be set.
    """
    digest = hashlib.sha256()
    for picture in pictures:
        digest.update(f"{picture.path}\0{say_box(picture.box)}\0".encode("utf-8", "surrogateescape"))
        try:
            stat = picture.path.stat()
            digest.update(f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n".encode())
        except OSError:
            digest.update(b"missing\n")
    return digest.hexdigest()


def content_fingerprint(keys: Iterable[str]) -> str:
    """sha256 (hex) of the pictures' content keys in order: equal for the same bytes and boxes under any names."""
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()


def read_content_keys(pictures: Sequence[Picture]) -> list[str]:
    """The key of each picture's content (see `images.content_key`), "" of what cannot be read; nothing is decoded."""

    def key(picture: Picture) -> str:
        try:
            return content_key(image_bytes(picture.path), picture.box)
        except ImageError:
            return ""

    with ThreadPoolExecutor(joblib.cpu_count(), thread_name_prefix="hash") as pool:
        return list(pool.map(key, pictures))
