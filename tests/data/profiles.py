"""ICC profiles made byte by byte: of a matrix and curves, of grey, and of a press with four inks."""

import struct
from collections.abc import Sequence

D50 = (0.9642, 1.0, 0.8249)
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
# XYZ of red, green and blue relative to D50, as the published profiles have them
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
PROPHOTO = ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))


def rgb_profile(colorants: Sequence[Sequence[float]], curve: Sequence[float]) -> bytes:
    """A display's profile; `curve` is a gamma alone, or g, a, b, c, d of (ax + b)^g from d on and cx below."""
    tags = {f"{name}XYZ": _xyz(colour) for name, colour in zip("rgb", colorants, strict=True)}
    return _profile("mntr", "RGB ", "XYZ ", tags | {f"{name}TRC": _curve(curve) for name in "rgb"})


def grey_profile(gamma: float) -> bytes:
    return _profile("mntr", "GRAY", "XYZ ", {"kTRC": _curve([gamma])})


def press_profile() -> bytes:
    """Four inks: lightness falls from 100 to 0 with black, linearly; any other ink takes half of what light there is."""
    nodes = [(not black) * 255 // 2 ** (cyan + magenta + yellow) for cyan, magenta, yellow, black in _corners()]
    steps = bytes(range(256))
    table = bytes(number for lightness in nodes for number in (lightness, 128, 128))
    identity = struct.pack(">9i", *(65536 * (place % 4 == 0) for place in range(9)))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + steps * 4 + table + steps * 3
    return _profile("prtr", "CMYK", "Lab ", {"A2B0": lut})


def _corners() -> list[tuple[int, ...]]:
    return [tuple(number >> place & 1 for place in (3, 2, 1, 0)) for number in range(16)]


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(65536 * value) for value in values))


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(*values)


def _curve(parameters: Sequence[float]) -> bytes:
    return b"para" + bytes(4) + struct.pack(">HH", 3 if len(parameters) > 1 else 0, 0) + _fixed(*parameters)


def _profile(kind: str, space: str, connected: str, tags: dict[str, bytes]) -> bytes:
    """Source: ICC.1:2022, sections 7.2 (header) and 7.3 (table of tags)."""
    tags = {"wtpt": _xyz(D50), **tags}
    table, data, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, body in tags.items():
        table += name.encode() + struct.pack(">II", start + len(data), len(body))
        data += body + bytes(-len(body) % 4)
    head = struct.pack(">I4x4s", start + len(data), b"\4\x30\0\0") + kind.encode() + space.encode() + connected.encode()
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _fixed(*D50)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + data
