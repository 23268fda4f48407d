"""The runtimes that answer on an NVIDIA GPU, in fp16, ready for `serving.measure_serving`; torch eager comes first.

As trtexec measures: one stream that is not the default one, buffers that stay where they are, warm; events tell a call's
latency, the wall clock the throughput. Without transfers the images lie on the GPU. With them a call's latency holds its
copies from and to pinned memory, and in the throughput two sets of buffers let one batch be copied while another computes.
Axes: B images of a batch, D the embedding's width; NCHW as usual.
"""

import copy
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

from workbench.benchmarks.serving import Candidate, Ready
from workbench.benchmarks.serving_limit import Limit
from workbench.export.folder import ExportError
from workbench.models.embedder import Embedder

# From images, float32 [B, 3, H, W] on the GPU, to embeddings, float32 [B, D] there, on torch's current stream and
# without waiting for it: what a CUDA graph can hold.
Step = Callable[[torch.Tensor], torch.Tensor]
_NUM_BUFFERS = 2


def gpu_candidates(embedder: Embedder, steps: Mapping[str, Step] | None = None) -> list[Candidate]:
    """Torch eager, torch.compile in a CUDA graph, and each of `steps` in a CUDA graph; all in fp16, without and with transfers.

    Without a GPU they are there too, and say that they are not available.

    Args:
        embedder: in fp32 on any device; a copy in fp16 goes to the GPU.
        steps: by name, such as {"TensorRT": the engine's}; without any, TensorRT's rows say that there is no engine.
    """
    candidates = []
    for transfers in (False, True):

        def eager(images_BCHW: np.ndarray, transfers: bool = transfers) -> Ready:
            _need_gpu()
            return on_gpu(half_step(embedder), images_BCHW, graph=False, transfers=transfers)

        def compiled(images_BCHW: np.ndarray, transfers: bool = transfers) -> Ready:
            _need_gpu()
            torch.compiler.reset()
            # the graph is captured by `on_gpu`, for all runtimes alike
            fused = torch.compile(half_step(embedder), dynamic=False, mode="max-autotune-no-cudagraphs")
            return on_gpu(fused, images_BCHW, graph=True, transfers=transfers)

        words = "with" if transfers else "without"
        candidates.append(Candidate("torch eager", "fp16", eager, words))
        candidates.append(Candidate("torch.compile, CUDA graph", "fp16", compiled, words))
        for name, step in (steps or {"TensorRT, CUDA graph": _no_engine}).items():

            def given(images_BCHW: np.ndarray, step: Step = step, transfers: bool = transfers) -> Ready:
                _need_gpu()
                return on_gpu(step, images_BCHW, graph=True, transfers=transfers)

            candidates.append(Candidate(name, "fp16", given, words))
    return candidates


def half_step(embedder: Embedder, device: str = "cuda") -> Step:
    """The embedder with its trunk in fp16, head and L2 norm in fp32, as an fp16 export has it."""
    whole = copy.deepcopy(embedder).to(device).eval().requires_grad_(False)
    trunk, head = whole.trunk.half().to(memory_format=torch.channels_last), whole.head.float()

    def step(images: torch.Tensor) -> torch.Tensor:
        features = trunk(images.half().contiguous(memory_format=torch.channels_last))
        return torch.nn.functional.normalize(head(features.float()), dim=1)

    return step


def gpu_product_limit(size: int = 8192, num_products: int = 20) -> Limit:
    """The limit of the GPU: fp16 products of two square matrices by torch, timed by events.

    Raises:
        ExportError: there is no GPU.
    """
    _need_gpu()
    left, right = torch.randn(2, size, size, device="cuda", dtype=torch.float16)
    result = torch.empty_like(left)
    begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def product_s() -> float:
        begun.record()
        for _ in range(num_products):
            torch.mm(left, right, out=result)
        ended.record()
        ended.synchronize()
        return begun.elapsed_time(ended) / 1000

    return Limit(
        f"fp16 matrix product, {size:,} x {size:,}, by torch on the GPU", 2.0 * size**3 * num_products, product_s
    )


def describe_gpu() -> str:
    """The GPU's name, with its driver's CUDA version and torch's.

    Raises:
        ExportError: there is no GPU.
    """
    _need_gpu()
    return f"{torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}, torch {torch.__version__}"


@torch.inference_mode()
def on_gpu(step: Step, images_BCHW: np.ndarray, *, graph: bool, transfers: bool) -> Ready:
    """A step with static buffers, warm, on streams of its own.

    Args:
        step: see `Step`.
        images_BCHW: float32.
        graph: a captured CUDA graph is replayed in place of the step's own launches.
        transfers: calls include the copies from and to pinned host memory.
    """
    computing, sending, returning = (torch.cuda.Stream() for _ in range(3))
    given = torch.from_numpy(images_BCHW).pin_memory()
    buffers = [given.cuda() for _ in range(_NUM_BUFFERS)]
    torch.cuda.synchronize()
    launches, outputs = [], []
    with torch.cuda.stream(computing):
        for buffer in buffers:
            launch, output = _launch(step, buffer, computing, graph)
            launches.append(launch)
            outputs.append(output)
    hosts = [torch.empty(output().shape, dtype=output().dtype, pin_memory=True) for output in outputs]
    torch.cuda.synchronize()

    def latency_s() -> float:
        begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        with torch.inference_mode(), torch.cuda.stream(computing):
            begun.record()
            if transfers:
                buffers[0].copy_(given, non_blocking=True)
            launches[0]()
            if transfers:
                hosts[0].copy_(outputs[0](), non_blocking=True)
            ended.record()
        ended.synchronize()
        return begun.elapsed_time(ended) / 1000

    def stream_s(num_calls: int) -> float:
        torch.cuda.synchronize()
        started = time.perf_counter()
        with torch.inference_mode():
            if transfers:
                _overlap(num_calls, given, buffers, launches, outputs, hosts, (sending, computing, returning))
            else:
                with torch.cuda.stream(computing):
                    for call in range(num_calls):
                        launches[call % _NUM_BUFFERS]()
        torch.cuda.synchronize()
        return time.perf_counter() - started

    def answer() -> np.ndarray:
        with torch.inference_mode(), torch.cuda.stream(computing):
            launches[0]()
            embedding_BD = outputs[0]().float()
        computing.synchronize()
        return embedding_BD.cpu().numpy()

    return Ready(answer, latency_s, stream_s)


def _launch(
    step: Step, buffer: torch.Tensor, stream: torch.cuda.Stream, graph: bool
) -> tuple[Callable[[], None], Callable[[], torch.Tensor]]:
    """What computes from the buffer, and what gives the tensor that it wrote last."""
    output = step(buffer)
    for _ in range(2):
        output = step(buffer)
    stream.synchronize()
    if graph:
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured, stream=stream):
            output = step(buffer)
        captured.replay()
        stream.synchronize()
        return captured.replay, lambda: output
    held = [output]

    def run() -> None:
        held[0] = step(buffer)

    return run, lambda: held[0]


def _overlap(
    num_calls: int,
    given: torch.Tensor,
    buffers: list[torch.Tensor],
    launches: list[Callable[[], None]],
    outputs: list[Callable[[], torch.Tensor]],
    hosts: list[torch.Tensor],
    streams: tuple[torch.cuda.Stream, torch.cuda.Stream, torch.cuda.Stream],
) -> None:
    """Calls in a row: while one buffer computes, the other is filled and its last embeddings go back."""
    sending, computing, returning = streams
    sent, computed, returned = ([torch.cuda.Event() for _ in buffers] for _ in range(3))
    for call in range(num_calls):
        slot = call % len(buffers)
        with torch.cuda.stream(sending):
            if call >= len(buffers):
                sending.wait_event(computed[slot])  # the images before these were read
            buffers[slot].copy_(given, non_blocking=True)
            sent[slot].record(sending)
        with torch.cuda.stream(computing):
            computing.wait_event(sent[slot])
            if call >= len(buffers):
                computing.wait_event(returned[slot])  # the embeddings before these were fetched
            launches[slot]()
            computed[slot].record(computing)
        with torch.cuda.stream(returning):
            returning.wait_event(computed[slot])
            output = outputs[slot]()
            output.record_stream(returning)  # eager mode frees it while the copy may still run
            hosts[slot].copy_(output, non_blocking=True)
            returned[slot].record(returning)


def _need_gpu() -> None:
    if not torch.cuda.is_available():
        raise ExportError("no CUDA GPU that torch can use; an NVIDIA GPU and its driver are wanted.")


def _no_engine(images: torch.Tensor) -> torch.Tensor:
    raise ExportError("no engine was given; build one with export.tensorrt and hand over its step.")
