"""A plan on disk: plan, `<plan>.json` (build report) and `<plan>.log`, written together and checked when read."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from workbench.export.folder import ExportError, read_stated
from workbench.runs.files import sha256_of, write_bytes, write_json, write_text

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
    report = read_stated(told, PLAN_FORMAT, PLAN_FORMAT_VERSION, str(told), "build the engine again")
    if sha256_of(plan) != report["plan"]["sha256"]:
        raise ExportError(
            f"{plan} has {plan.stat().st_size:,} bytes, its report tells of {report['plan']['bytes']:,} with another SHA-256: "
            "the plan is corrupt or another one; copy both again, or build the engine again."
        )
    return report


def publish(paths: list[Path], contents: list[Any]) -> None:
    """Log, report and plan under their names, the plan last; after an error none of them."""
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=paths[0].parent, prefix=f".{paths[-1].name}."))
    placed: list[Path] = []
    try:
        for path, write, content in zip(paths, (write_text, write_json, write_bytes), contents, strict=True):
            write(temporary / path.name, content)  # type: ignore[operator]
        for path in paths:
            try:
                path.touch(exist_ok=False)  # the one of two processes that makes the name may fill it
            except FileExistsError as error:
                raise FileExistsError(f"{path} has appeared during the build; nothing was written over.") from error
            placed.append(path)
            os.rename(temporary / path.name, path)
    except BaseException:
        for path in placed:
            path.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
