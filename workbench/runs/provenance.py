"""What a result depends on besides its parameters: code, versions, device."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "open-clip-torch",
    "pytorch-metric-learning",
    "faiss-gpu",
    "faiss-cpu",
    "numpy",
    "pandas",
    "scipy",
    "scikit-learn",
    "pillow",
    "plotly",
    "papermill",
    "nbclient",
    "nbconvert",
)


def describe_code(root: Path) -> dict[str, Any] | None:
    """Commit (None before the first one) and dirtiness of the checkout at `root`; None where there is no checkout.

    Dirty means that a tracked file differs from the commit or that a file is neither tracked nor ignored.
    """

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *words],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
                env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changes = git("status", "--porcelain")
    if changes is None:
        return None
    return {"commit": git("rev-parse", "HEAD"), "dirty": changes != ""}


def describe_versions() -> dict[str, str]:
    """The versions of Python and of the packages that numbers depend on, by name; what is not installed is left out."""
    versions = {"python": sys.version.split()[0]}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def describe_device() -> str | None:
    """The name of the GPU that torch sees, else `cpu`; None while torch is not imported (it is not imported here)."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else "cpu"


def seed_generators(seed: int) -> list[str]:
    """Seeds `random` and, of those that are imported, numpy's legacy generator and torch; returns their names."""
    import random

    random.seed(seed)
    seeded = ["random"]
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed % 2**32)
        seeded.append("numpy")
    if torch := sys.modules.get("torch"):
        torch.manual_seed(seed)
        seeded.append("torch")
    return seeded
