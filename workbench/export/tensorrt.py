"""A TensorRT engine (plan) from an exported folder: by TensorRT for RTX without a GPU, by full TensorRT with one.

One path for both. Precision lives in the ONNX file: the network is strongly typed, and no flag changes what was exported.
Beside the plan stand `<plan>.json`, the build report, and `<plan>.log`, what the builder said; of a build that failed there is
`<plan>.failed.log` alone, until one succeeds.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.export.folder import MODEL, ExportError, read_described
from workbench.export.tensorrt_network import count_layers, describe_files, describe_tensor, fill_profile, parser_words
from workbench.export.tensorrt_package import (
    NAMES,
    Builder,
    Package,
    choose_targets,
    find_package,
    gpu_at_hand,
    make_log,
)
from workbench.export.tensorrt_plan import PLAN_FORMAT, PLAN_FORMAT_VERSION, publish
from workbench.runs.files import write_bytes, write_text

_CARRIED = ("precision", "input", "normalised", "embedding_dim", "image_size", "preprocessing", "embedder")
_CARRIED_TOO = ("embedder_fingerprint", "weights_sha256", "opset", "calibration", "about")


def build_engine(
    onnx: Path | str,
    plan: Path | str,
    min_batch: int = 1,
    opt_batch: int = 10,
    max_batch: int = 10,
    targets: str | Sequence[str] | None = None,
    *,
    builder: Builder | None = None,
    workspace_mib: int = 1024,
    timing_cache: Path | str | None = None,
    tf32: bool = False,
    verbose: bool = False,
) -> dict[str, Any]:
    """The build report; plan, report and log are written whole or not at all, and nothing before the build has ended.

    Where TensorRT refuses the file or the build, `<plan>.failed.log` keeps what it said, and the error names it.

    The report has builder and version, targets, profile, size and SHA-256 of ONNX and plan, seconds, layers and precisions
    (of the network as it was parsed; of the engine too where full TensorRT has its GPU), what export.json
    said, and under `not_available` what could not be had, and why.

    Args:
        onnx: an exported folder, fp32, fp16 or int8 quantised for target `tensorrt`; or an ONNX file with one input.
        plan: file to write; it, `<plan>.json` and `<plan>.log` must not exist yet.
        min_batch, opt_batch, max_batch: images; the engine takes min to max, and is tuned for opt.
        targets: compute capabilities, see `choose_targets`.
        builder: tensorrt_rtx or tensorrt; None: the first of them that is installed.
        workspace_mib: MiB of GPU memory that a layer may use to work in.
        timing_cache: a file that full TensorRT reads timings from and adds to, made when missing; TensorRT for RTX has
            none, and the report says so.
        tf32: let fp32 products round their inputs to 10 bits of mantissa, as TensorRT does by default.
        verbose: keep the builder's every word in the log, some MB.

    Raises:
        ValueError: an argument out of range or order, a target that cannot be built for, int8 not quantised for TensorRT.
        FileExistsError: plan, report or log is there already.
        FileNotFoundError: the ONNX file, a file of the folder, or its external data is missing.
        ExportError: a package or a GPU is missing, the folder is broken, the ONNX file is corrupt or has an operator that
            TensorRT has not (the parser's words and the operator's name are in the message), or the build fails.
    """
    batches = {"min_batch": min_batch, "opt_batch": opt_batch, "max_batch": max_batch}
    if any(isinstance(value, bool) or not isinstance(value, int) for value in (*batches.values(), workspace_mib)):
        raise ValueError(f"Batch sizes and workspace_mib are whole numbers; found {batches}, {workspace_mib!r}.")
    if not 1 <= min_batch <= opt_batch <= max_batch:
        raise ValueError(
            f"1 <= min_batch <= opt_batch <= max_batch is wanted; found {min_batch}, {opt_batch}, {max_batch}."
        )
    if workspace_mib < 1:
        raise ValueError(f"workspace_mib is at least 1; found {workspace_mib}.")
    plan, onnx = Path(plan), Path(onnx)
    beside = [plan.with_name(plan.name + ending) for ending in (".log", ".json", "")]
    there = [str(path) for path in beside if path.exists()]
    if there:
        raise FileExistsError(f"{', '.join(there)} exist already; choose another plan or remove them.")
    exported = read_described(onnx) if onnx.is_dir() else None
    model = onnx / MODEL if exported else onnx
    if not model.is_file():
        raise FileNotFoundError(f"An ONNX file or an exported folder was wanted; there is no {model}.")
    inputs = describe_files(model, exported)
    package = find_package(builder)
    chosen = choose_targets(package, targets)
    trt, log = package.module, make_log(package, verbose)
    started = time.perf_counter()
    trt_builder = trt.Builder(log)
    network = trt_builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(model)):
        raise _failed(plan, log, f"{package} cannot read {model}: {parser_words(parser) or _last_words(log)}")
    if not network.num_layers:  # the parser takes much that is no model for an empty one
        words = f"{package} finds no network in {model}: the file is corrupt or no ONNX file; export again."
        raise _failed(plan, log, words)
    while network.num_outputs > 1:  # class probabilities: a plan answers with embeddings alone
        network.unmark_output(network.get_output(network.num_outputs - 1))
    profile = trt_builder.create_optimization_profile()
    given = fill_profile(network, profile, batches)
    parsed = time.perf_counter()
    config = trt_builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mib << 20)
    (config.set_flag if tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
    if config.add_optimization_profile(profile) < 0:
        raise _failed(plan, log, f"{package} refuses the batch sizes {batches}: {_last_words(log)}")
    if package.builder == "tensorrt":
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # for the inspector; two RTX builds would differ
    else:
        config.num_compute_capabilities = len(chosen)
        for index, target in enumerate(chosen):
            config.set_compute_capability(getattr(trt.ComputeCapability, target.upper()), index)
    missing: dict[str, str] = {}
    cache, cached = _attach_cache(package, config, timing_cache)
    if timing_cache is not None and cache is None:
        missing["timing cache"] = cached
    serialized = trt_builder.build_serialized_network(network, config)
    if serialized is None:
        raise _failed(plan, log, f"{package} built no engine from {model}: {_last_words(log)}")
    content = bytes(serialized)
    built = time.perf_counter()
    layers, precisions = count_layers(network)
    engine_layers = _inspect_engine(package, content, missing)
    report = {
        "format": PLAN_FORMAT,
        "format_version": PLAN_FORMAT_VERSION,
        "builder": {"name": NAMES[package.builder], "package": package.builder, "version": trt.__version__},
        "targets": list(chosen),
        "profile": {**given, **batches},
        "outputs": [describe_tensor(network.get_output(index)) for index in range(network.num_outputs)],
        "workspace_mib": config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) >> 20,
        "strongly_typed": True,
        "tf32": bool(config.get_flag(trt.BuilderFlag.TF32)),
        "onnx": inputs,
        "plan": {"name": plan.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()},
        "seconds": {"parse": round(parsed - started, 3), "build": round(built - parsed, 3)},
        "precisions": precisions,
        "layers": {"of": "network definition", "num": sum(layers.values()), "types": layers},
        "engine_layers": engine_layers,
        "timing_cache": cached if timing_cache is not None else "not asked for",
        "not_available": missing,
        "exported": exported and {key: exported[key] for key in (*_CARRIED, *_CARRIED_TOO) if key in exported},
    }
    if cache is not None and timing_cache is not None:
        write_bytes(Path(timing_cache), bytes(cache.serialize()))
    publish(beside, [_log_text(log), report, content])
    _failed_log(plan).unlink(missing_ok=True)
    return report


def read_profile(batches: Sequence[int]) -> dict[str, int]:
    """min_batch, opt_batch and max_batch for `build_engine`, of three numbers in this order.

    Raises:
        ValueError: not three numbers, or not 1 <= min <= opt <= max.
    """
    if len(batches) != 3 or not 1 <= batches[0] <= batches[1] <= batches[2]:
        raise ValueError(
            f"Three batch sizes were wanted, the least, the one to tune for and the most, 1 or more and none below the one before "
            f"it, such as [1, 10, 10]; found {list(batches)}."
        )
    return dict(zip(("min_batch", "opt_batch", "max_batch"), batches, strict=True))


def _failed(plan: Path, log: Any, words: str) -> ExportError:
    """The error to raise, after the log was kept; where it cannot be written, the error says that instead."""
    kept = _failed_log(plan)
    try:
        write_text(kept, _log_text(log))
    except OSError as error:
        return ExportError(f"{words} (Its log could not be kept: {error}.)")
    return ExportError(f"{words} (The whole log: {kept}.)")


def _failed_log(plan: Path) -> Path:
    return plan.with_name(f"{plan.name}.failed.log")


def _log_text(log: Any) -> str:
    return "".join(f"{line}\n" for line in log.lines)


def _last_words(log: Any) -> str:
    return " / ".join(log.errors[-3:])[:2000] or "it gave no reason; build with verbose=True for a longer log."


def _attach_cache(package: Package, config: Any, file: Path | str | None) -> tuple[Any, str]:
    """The cache, which must outlive the build, and how it went; None where there is none."""
    if file is None:
        return None, "not asked for"
    if package.builder == "tensorrt_rtx":
        return None, f"{package} times nothing while it builds: a timing cache has no effect and would want a GPU"
    before = Path(file).read_bytes() if Path(file).is_file() else b""
    for content in dict.fromkeys((before, b"")):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            if content:
                return cache, f"reused, {len(content):,} bytes"
            return cache, "begun anew: the file is of another version or GPU, or corrupt" if before else "begun"
    return None, f"{package} refuses even an empty timing cache"


def _inspect_engine(package: Package, content: bytes, missing: dict[str, str]) -> dict[str, int] | None:
    """Layers of the engine by type, from TensorRT's inspector; None, and the reason in `missing`."""
    if package.builder == "tensorrt_rtx" or gpu_at_hand() is None:
        why = (
            "compiles its kernels when it first runs" if package.builder == "tensorrt_rtx" else "needs a GPU to open it"
        )
        missing["layers of the engine"] = f"{package} {why}; layers are those of the network definition"
        return None
    trt = package.module
    log = make_log(package)
    runtime = trt.Runtime(log)  # must outlive its engine
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise ExportError(f"{package} cannot open the engine that it has just built: {_last_words(log)}")
    told = json.loads(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))
    types = Counter(layer.get("LayerType", "unnamed") for layer in told["Layers"] if isinstance(layer, dict))
    return dict(sorted(types.items()))
