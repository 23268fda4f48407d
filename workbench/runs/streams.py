"""Standard output and error that write any name."""

import io
import sys


def escape_unprintable() -> None:
    r"""Makes both streams write what their encoding lacks as an escape such as \u6c34, where printing it would raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
