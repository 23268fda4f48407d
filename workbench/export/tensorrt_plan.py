"""A plan on disk: plan, `<plan>.json` (build report) and `<plan>.log`, written together and checked when read."""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from workbench.export.folder import ExportError
from workbench.runs.files import write_bytes, write_json, write_text

PLAN_FORMAT, PLAN_FORMAT_VERSION = "workbench-tensorrt", 1


def read_report(plan: Path | str) -> dict[str, Any]:
    """The build report of a plan, after the plan was found to be the one that was built.

    Raises:
        FileNotFoundError: the plan or its report is missing.
        ExportError: the report cannot be read or has another format, or the plan was changed or cut after the build.
    """
    plan = Path(plan)
    told = plan.with_name(f"{plan.name}.json")
    for path in (plan, told):
        if not path.is_file():
            raise FileNotFoundError(
                f"A plan and its report {told.name} were wanted; there is no {path}: build it with build_engine."
            )
    try:
        report = json.loads(told.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportError(f"{told} is not JSON ({error}); build the engine again.") from error
    found = (report.get("format"), report.get("format_version")) if isinstance(report, dict) else (None, None)
    if found != (PLAN_FORMAT, PLAN_FORMAT_VERSION):
        raise ExportError(
            f"{told} has format {found[0]!r}, version {found[1]!r}; this workbench reads {PLAN_FORMAT!r}, version "
            f"{PLAN_FORMAT_VERSION}: build the engine again."
        )
    if sha256_of(plan) != report["plan"]["sha256"]:
        raise ExportError(
            f"{plan} has {plan.stat().st_size:,} bytes, its report tells of {report['plan']['bytes']:,} with another SHA-256: "
            "the plan is corrupt or another one; copy both again, or build the engine again."
        )
    return dict(report)


def publish(paths: list[Path], contents: list[Any]) -> None:
    """Log, report and plan under their names, the plan last; after an error none of them."""
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=paths[0].parent, prefix=f".{paths[-1].name}."))
    placed: list[Path] = []
    try:
        for path, write, content in zip(paths, (write_text, write_json, write_bytes), contents, strict=True):
            write(temporary / path.name, content)  # type: ignore[operator]
        for path in paths:
            if path.exists():
                raise FileExistsError(f"{path} has appeared during the build; nothing was written over.")
            placed.append(path)
            os.rename(temporary / path.name, path)
    except BaseException:
        for path in placed:
            path.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
