"""Bundles to deploy: each is a folder with model, model card and SHA256SUMS, and the gallery where there is one."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from workbench.export.bundle import check_bundle
from workbench.export.deepstream import deepstream_config
from workbench.export.triton import Backend, triton_repository

__all__ = ["BUNDLES", "check_bundle", "deepstream_config", "read_bundles", "triton_repository", "write_bundles"]

DEEPSTREAM = "deepstream"
BACKENDS: dict[str, Backend] = {"triton": "onnxruntime", "triton_tensorrt": "tensorrt", "triton_python": "python"}
BUNDLES = (*BACKENDS, DEEPSTREAM)


def read_bundles(
    text: str, *, precision: str, input: str, target: str = "cpu", builder: str | None = None, engines: str = ""
) -> list[str]:
    """The bundles that a notebook's parameter names, found possible before anything is exported.

    Args:
        text: some of `BUNDLES`, with commas; "" is none.
        precision, input, target: of the export that is to come, see `export_onnx`.
        builder, engines: of the engine that is to come, see `build_engine`; engines "" is none.

    Raises:
        ValueError: an unknown bundle, one named twice, or one that these settings cannot give; says what to change.
    """
    names = [name for name in (one.strip() for one in text.split(",")) if name]
    for name in names:
        if name not in BUNDLES:
            near = get_close_matches(name, BUNDLES, n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(
                f"There is no bundle {name!r}.{meant} There are {', '.join(BUNDLES)}, with commas; empty is none."
            )
        if names.count(name) > 1:
            raise ValueError(f"The bundle {name} is named twice; name each once.")
    has_plan = builder == "tensorrt" and bool(engines.strip()) and (precision != "int8" or target == "tensorrt")
    if "triton_tensorrt" in names and not has_plan:
        raise ValueError(
            "triton_tensorrt serves a plan of full TensorRT: set builder=tensorrt and engines=current on the GPU that will serve "
            "it, and target=tensorrt for int8; or take the bundle triton, which serves the ONNX file."
        )
    if DEEPSTREAM in names and input != "raw":
        raise ValueError(
            f"DeepStream hands over pixels 0 to 255 and the input is {input}: set input_kind=raw, or leave deepstream out of the "
            "bundles."
        )
    if DEEPSTREAM in names and precision == "int8" and not has_plan:
        raise ValueError(
            "DeepStream takes int8 as a plan of full TensorRT alone: set target=tensorrt, builder=tensorrt and engines=current on "
            "that GPU, or leave deepstream out of the bundles."
        )
    return names


def write_bundles(
    names: Sequence[str],
    exported_folder: Path | str,
    folder: Path | str,
    *,
    card: str,
    gallery: Path | None = None,
    max_batch: int = 16,
    plan: Path | None = None,
) -> dict[str, Path]:
    """The folders of the bundles by name, each `folder/NAME`.

    Args:
        names: as `read_bundles` gives them.
        exported_folder, card, gallery, max_batch: see `triton_repository`.
        folder: what they are written into.
        plan: of full TensorRT, for `triton_tensorrt` and `deepstream`; None where there is none.

    Raises:
        ValueError, FileExistsError, FileNotFoundError, GalleryError, ExportError: as `triton_repository` and `deepstream_config`.
    """
    written = {}
    for name in names:
        place = Path(folder) / name
        if name == DEEPSTREAM:
            written[name] = deepstream_config(
                exported_folder, place, card=card, gallery=gallery, max_batch=max_batch, plan=plan
            )
        else:
            written[name] = triton_repository(
                exported_folder,
                place,
                card=card,
                gallery=gallery,
                max_batch=max_batch,
                backend=BACKENDS[name],
                plan=plan if name == "triton_tensorrt" else None,
            )
    return written
