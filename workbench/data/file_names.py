"""What a file's name says: which files are pictures, and which ones systems and photo programs leave beside them."""

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath

IMAGE_TYPES = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "image/jpeg"),
    ".png": "image/png",
    ".webp": "image/webp",
    ".avif": "image/avif",
    **dict.fromkeys((".tif", ".tiff"), "image/tiff"),
    **dict.fromkeys((".jp2", ".j2k", ".jpx", ".jpf"), "image/jp2"),
    **dict.fromkeys((".bmp", ".dib"), "image/bmp"),
    ".gif": "image/gif",
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm"), "image/x-portable-anymap"),
}
"""Media types by the suffix, in small letters: what `images.decode_image` reads. A suffix only decides whether a file in a folder is
taken for a picture; what it holds is judged from its content."""

IMAGE_SUFFIXES = tuple(IMAGE_TYPES)

_CLUTTER = {
    *(
        "thumbs.db",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        "$recycle.bin",
        "system volume information",
    ),  # Windows
    *("__macosx", "icon\r"),  # macOS; its ._* and .DS_Store are hidden
    *(
        "@eadir",
        "#recycle",
        "#snapshot",
        "@tmp",
        "@recycle",
        "@recently-snapshot",
        "lost+found",
    ),  # Synology, QNAP, ext4
    *("picasa.ini", "zbthumbnail.info", "pspbrwse.jbf"),  # Picasa, Zoner, Paint Shop Pro
}


def is_picture(name: str) -> bool:
    """Whether the file's name ends as that of a picture that can be read; capitals count as small letters."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_clutter(name: str) -> bool:
    """Whether a file or folder of this name is none of a person's own pictures, and is left out wherever folders are listed.

    Hidden ones (`._a.jpg`, `.DS_Store`, `.thumbnails`, `.@__thumb`, `.ipynb_checkpoints`: all that begins with a dot), and what
    systems, network storage and photo programs make: `Thumbs.db`, `@eaDir`, `#recycle`, `__MACOSX` and their like. Such folders
    hold thumbnails and deleted pictures, which would count as pictures of the class beside them.
    """
    return name.startswith(".") or name.lower() in _CLUTTER


def say_clutter(paths: Iterable[str]) -> str:
    """What was left out as clutter, in words, by name and the most frequent first; "" where nothing was."""
    names = ["._*" if name.startswith("._") else name for name in (PurePath(path).name for path in paths)]
    counted = Counter(sorted(names)).most_common()
    if not counted:
        return ""
    shown = [f"{number} x {name.strip()}" if number > 1 else name.strip() for name, number in counted[:5]]
    more = f" and {len(counted) - 5} other names" if len(counted) > 5 else ""
    what = "files or folders that are hidden or that systems and photo programs make"
    return f"{len(names)} {what} are left out: {', '.join(shown)}{more}"
