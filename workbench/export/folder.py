"""An exported folder: model.onnx (model.onnx.data beside it above 2 GB) and export.json, which says what it is."""

import json
from pathlib import Path
from typing import Any

from workbench.runs.files import sha256_of, write_json

FORMAT = "workbench-onnx"
FORMAT_VERSION = 1
MODEL, DESCRIBED = "model.onnx", "export.json"
_STATED = {
    *("precision", "input", "normalised", "embedding_dim", "image_size", "preprocessing", "embedder", "opset", "files"),
}


class ExportError(RuntimeError):
    """An embedder cannot be exported, or what was exported does not answer as it should."""


def write_described(folder: Path, described: dict[str, Any]) -> None:
    """Writes export.json beside the model, with size and SHA-256 of every file that is there already."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    write_json(folder / DESCRIBED, {**described, "files": files})


def read_stated(path: Path, wanted: str, version: int, name: str, remedy: str) -> dict[str, Any]:
    """What a JSON file says that states its format and version.

    Raises:
        ExportError: it is not JSON, or of another format or version; `name` is what has that format, `remedy` what to do.
    """
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # a decoding error is one too
        raise ExportError(f"{path} is not JSON ({error}); {remedy}.") from error
    found = (said.get("format"), said.get("format_version")) if isinstance(said, dict) else (None, None)
    if found != (wanted, version):
        raise ExportError(
            f"{name} has format {found[0]!r}, version {found[1]!r}; this workbench reads {wanted!r}, version {version}: {remedy}."
        )
    return dict(said)


def is_exported(folder: Path | str) -> bool:
    """Whether `folder` claims to be an exported folder; `read_described` says whether it is a whole one."""
    return (Path(folder) / DESCRIBED).is_file() or (Path(folder) / MODEL).is_file()


def read_described(folder: Path | str) -> dict[str, Any]:
    """What export.json says, after every file was found to be the one that was written.

    Raises:
        FileNotFoundError: the folder, export.json, the model or its weights are missing.
        ExportError: export.json cannot be read or has another format, or a file was changed or cut after the export.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"An exported folder was wanted; there is no folder {folder}. Export the embedder first."
        )
    missing = [name for name in (DESCRIBED, MODEL) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} is not a whole exported folder: {' and '.join(missing)} missing; export again."
        )
    described = read_stated(folder / DESCRIBED, FORMAT, FORMAT_VERSION, str(folder), "export the embedder again")
    unstated = sorted(_STATED - set(described))
    if unstated:
        raise ExportError(f"{folder / DESCRIBED} does not state {', '.join(unstated)}; export the embedder again.")
    for name, stated in described["files"].items():
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"{folder} is not a whole exported folder: {name} missing; export again.")
        if path.stat().st_size != stated["bytes"]:
            raise ExportError(
                f"{path} has {path.stat().st_size:,} bytes, {stated['bytes']:,} were exported: it was cut or replaced; "
                "copy it again, or export again."
            )
        if sha256_of(path) != stated["sha256"]:
            raise ExportError(
                f"{path} was changed after the export: its SHA-256 differs; copy it again, or export again."
            )
    return described
