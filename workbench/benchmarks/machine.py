"""What the ratios were measured on: processor, cores, threads of each library, memory, versions, load."""

import os
import platform
import re
from pathlib import Path

import joblib
import pandas as pd
import psutil

from workbench.runs.provenance import describe_versions


def describe_machine() -> pd.DataFrame:
    """Returns columns what and found, for the libraries that are imported; the load is that of the last minute."""
    import threadpoolctl  # type: ignore[import-untyped]
    import torch

    pools = [
        f"{pool['internal_api']} {pool['version'] or ''}".strip() + f": {pool['num_threads']}"
        for pool in threadpoolctl.threadpool_info()
    ]
    memory = psutil.virtual_memory()
    usable = joblib.cpu_count()
    load = os.getloadavg()[0]
    rows = {
        "processor": describe_processor(),
        "cores": f"{usable} usable of {psutil.cpu_count(logical=True)} logical, {psutil.cpu_count(logical=False)} physical",
        "load average": f"{load:.1f} (last minute, this run's own work included)",
        "memory": f"{memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} GiB available",
        "threads": ", ".join([*pools, f"torch: {torch.get_num_threads()}"]),
        "GPU": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none; not used by the evaluations",
        "system": platform.platform(terse=True),
        "versions": ", ".join(f"{name} {number}" for name, number in _versions().items()),
    }  # fmt: skip
    return pd.DataFrame(list(rows.items()), columns=["what", "found"])


def _versions() -> dict[str, str]:
    import torchmetrics

    wanted = ("python", "numpy", "scipy", "scikit-learn", "torch", "pytorch-metric-learning", "faiss-gpu", "faiss-cpu")
    versions = describe_versions()
    return {name: versions[name] for name in wanted if name in versions} | {"torchmetrics": torchmetrics.__version__}


def describe_processor() -> str:
    """Returns the processor's name."""
    listed = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", listed.read_text(), re.MULTILINE) if listed.exists() else None
    return found[1] if found else platform.processor() or platform.machine()
