"""Picture files in, the embedder's input out: the preprocessing that the embedder was trained and measured with.

Axes: B pictures of a request. `preprocess.json` beside this file says sizes, means and limits. Runs inside Triton, with the
workbench's own files of what it imports beside it (`SHIPPED` in triton.py).
"""

import importlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

from workbench.data.decoding import UndecodableError, decode
from workbench.models.preprocessing import Preprocessing


class PictureError(ValueError):
    """A picture that cannot be used; the message says why."""


def read_picture(content: bytes, decode_px: int, max_bytes: int, max_pixels: int) -> Image.Image:
    """The picture in `content` as 8-bit sRGB, upright, its colour profile applied, transparent pixels on white.

    Args:
        content: a picture's file of any kind that the workbench reads (see `decoding.decode`).
        decode_px: the shorter side, px, that is wanted; a much larger JPEG is decoded at 1/2, 1/4 or 1/8 of its size, its
            shorter side never under twice this.
        max_bytes: of the file.
        max_pixels: width times height, judged from the header before a pixel is decoded.

    Raises:
        PictureError: beyond a limit, or no picture (see `decoding.decode`).
    """
    if len(content) > max_bytes:
        raise PictureError(f"too large: {len(content):,} bytes, the limit is {max_bytes:,}")
    try:
        return decode(content, decode_px, max_pixels)[0]
    except UndecodableError as error:
        raise PictureError(str(error)) from error


def normalise(images_BHWC: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Normalised images, float32 [B, 3, H, W], of uint8 [B, H, W, 3]; `Preprocessing.normalise` without torch."""
    three = preprocessing.mean, preprocessing.std
    mean, std = (np.array(values, dtype=np.float32) * np.float32(255) for values in three)
    return np.ascontiguousarray(((images_BHWC.astype(np.float32) - mean) / std).transpose(0, 3, 1, 2))


def make_input(contents: list[bytes], settings: dict) -> np.ndarray:
    """The embedder's input of some files: float32 [B, 3, H, W], or uint8 [B, H, W, 3] for the input `uint8`.

    Args:
        contents: at least one picture's file.
        settings: what `preprocess.json` says: `preprocessing`, `input` (float, or uint8 or raw where the file normalises
            inside), `decode_px`, `max_bytes`, `max_pixels`.

    Raises:
        PictureError: a picture cannot be used; where there are several the message says which.
    """
    limits = settings["decode_px"], settings["max_bytes"], settings["max_pixels"]
    preprocessing = Preprocessing.from_dict(settings["preprocessing"])
    images = []
    for place, content in enumerate(contents):
        try:
            images.append(preprocessing.apply(read_picture(content, *limits)))
        except PictureError as error:
            which = f"picture {place + 1} of {len(contents)}: " if len(contents) > 1 else ""
            raise PictureError(f"{which}{error}") from error
    images_BHWC = np.stack(images)
    if settings["input"] == "uint8":
        return images_BHWC
    if settings["input"] == "raw":
        return np.ascontiguousarray(images_BHWC.transpose(0, 3, 1, 2), dtype=np.float32)
    return normalise(images_BHWC, preprocessing)


class TritonPythonModel:
    """The model as Triton's Python backend calls it."""

    def initialize(self, args: dict) -> None:
        """Reads `preprocess.json`."""
        self.triton = importlib.import_module("triton_python_backend_utils")
        self.settings = json.loads(Path(__file__).with_name("preprocess.json").read_text(encoding="utf-8"))

    def execute(self, requests: list) -> list:
        """One response a request: `input`, or an error for that request alone."""
        responses = []
        for request in requests:
            images = self.triton.get_input_tensor_by_name(request, "image").as_numpy()
            try:
                made = make_input([bytes(content) for content in images.reshape(-1)], self.settings)
            except PictureError as error:
                said = self.triton.TritonError(str(error), self.triton.TritonError.INVALID_ARG)
                responses.append(self.triton.InferenceResponse(output_tensors=[], error=said))
            else:
                responses.append(self.triton.InferenceResponse([self.triton.Tensor("input", made)]))
        return responses
