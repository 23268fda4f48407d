"""Which TensorRT is at hand, what it can build for, and its log. Nothing of NVIDIA's is imported before it is asked for."""

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, get_args

import torch  # its CUDA libraries have to be loaded before TensorRT's

from workbench.export.folder import ExportError

Builder = Literal["tensorrt_rtx", "tensorrt"]
NAMES = {"tensorrt_rtx": "TensorRT for RTX", "tensorrt": "TensorRT"}
RTX_TARGETS = ("sm80", "sm86", "sm89", "sm120")  # Ampere, its workstation chips, Ada, Blackwell RTX
_INSTALL = {
    "tensorrt_rtx": "pip install tensorrt-rtx-cu13-bindings tensorrt-rtx-cu13-libs",
    "tensorrt": "install NVIDIA's package tensorrt, of the CUDA version of your driver, on a machine with a GPU",
}
_FULL = "build on a machine with that GPU by full TensorRT: builder='tensorrt', targets='current'"


@dataclass(frozen=True)
class Package:
    """A TensorRT that can be imported.

    Attributes:
        builder: tensorrt_rtx or tensorrt.
        module: its Python module.
    """

    builder: Builder
    module: ModuleType

    def __str__(self) -> str:
        return f"{NAMES[self.builder]} {self.module.__version__}"


def find_package(builder: Builder | None = None) -> Package:
    """The TensorRT asked for; None takes TensorRT for RTX where it is installed, else full TensorRT.

    Raises:
        ValueError: another name.
        ExportError: it is not installed, or cannot be imported; the message names the package.
    """
    if builder is not None and builder not in get_args(Builder):
        raise ValueError(f"builder is None or one of {', '.join(get_args(Builder))}; found {builder!r}.")
    wanted: tuple[Builder, ...] = get_args(Builder) if builder is None else (builder,)
    causes = []
    for name in wanted:
        for module_name in (name, f"{name}_bindings"):
            try:
                module = importlib.import_module(module_name)
            except ImportError as error:
                causes.append(str(error))
                continue
            if hasattr(module, "Builder"):  # a placeholder package has none
                return Package(name, module)
            causes.append(f"{module_name} holds no Builder: a placeholder")
    raise ExportError(
        f"{' or '.join(NAMES[name] for name in wanted)} is wanted and cannot be imported ({'; '.join(causes)}): "
        f"{'; or '.join(_INSTALL[name] for name in wanted)}."
    )


def gpu_at_hand() -> str | None:
    """The compute capability of the GPU that torch uses, such as sm90; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return f"sm{major}{minor}"


def need_gpu(what: str, instead: str) -> str:
    """The compute capability of the GPU at hand.

    Raises:
        ExportError: there is none; the message says what wanted it and what to do instead.
    """
    gpu = gpu_at_hand()
    if gpu is None:
        raise ExportError(
            f"{what} needs an NVIDIA GPU with its driver, and torch {torch.__version__} finds none here: {instead}."
        )
    return gpu


def choose_targets(package: Package, targets: str | Sequence[str] | None) -> tuple[str, ...]:
    """The compute capabilities to build for, each once, smallest first.

    Args:
        package: what builds.
        targets: such as `sm86`, one or several, or `current`, the GPU at hand. None: `RTX_TARGETS` for TensorRT for RTX,
            `current` for full TensorRT, which builds for nothing else.

    Raises:
        ValueError: none, or one that the package cannot build for; the message says what can.
        ExportError: a GPU is needed and there is none.
    """
    rtx = package.builder == "tensorrt_rtx"
    if targets is None:
        targets = RTX_TARGETS if rtx else "current"
    asked = {target.lower() for target in ((targets,) if isinstance(targets, str) else targets)}
    odd = sorted(target for target in asked if target != "current" and not re.fullmatch(r"sm\d{2,3}", target))
    if not asked or odd or ("current" in asked and len(asked) > 1):
        raise ValueError(
            f"targets are compute capabilities such as 'sm86', or 'current' alone for the GPU at hand; found {targets!r}."
        )
    if not rtx:
        gpu = need_gpu(f"Building by {package}", "build there, or take TensorRT for RTX (builder='tensorrt_rtx')")
        if asked - {"current", gpu}:
            raise ValueError(
                f"{package} builds for the GPU at hand, {gpu}, alone; found {', '.join(sorted(asked))}: build on each GPU, or "
                "take TensorRT for RTX (builder='tensorrt_rtx') for several at once."
            )
        return (gpu,)
    if asked == {"current"}:
        asked = {need_gpu("The target 'current'", "name the targets instead, such as 'sm86'; that needs no GPU")}
    members = package.module.ComputeCapability.__members__
    known = sorted((name.lower() for name in members if name.startswith("SM")), key=_number)
    unknown = sorted(asked - set(known), key=_number)
    if unknown:
        hopper = " (Hopper, a data-centre GPU)" if "sm90" in unknown else ""
        raise ValueError(
            f"{package} makes no engines for {', '.join(unknown)}{hopper}, only for {', '.join(known)}; for others {_FULL}."
        )
    return tuple(sorted(asked, key=_number))


def make_log(package: Package, verbose: bool = False) -> Any:
    """A logger for TensorRT that keeps what it is told: `lines`, [SEVERITY] and the message, and `errors`, messages only."""
    severity = package.module.ILogger.Severity
    kept = {severity.INTERNAL_ERROR, severity.ERROR, severity.WARNING, severity.INFO}

    class Log(package.module.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []
            self.errors: list[str] = []

        def log(self, level: Any, message: str) -> None:
            if level in (severity.INTERNAL_ERROR, severity.ERROR):
                self.errors.append(message)
            if verbose or level in kept:
                self.lines.append(f"[{level.name}] {message}")

    return Log()


def _number(target: str) -> int:
    return int(target.removeprefix("sm"))
