"""NVIDIA's gen_trt_engine specification and the trunks of its published speeds, beside what stands for them here."""

import pandas as pd

_ROWS = (
    (
        "gpu_id",
        "0",
        "CUDA_VISIBLE_DEVICES; targets",
        "None",
        "TensorRT for RTX builds without a GPU, for targets by name",
    ),
    ("onnx_file", "", "build_engine(onnx)", "", "an exported folder, checked file by file, or an ONNX file"),
    ("trt_engine", "", "build_engine(plan)", "", "the report <plan>.json and the log <plan>.log stand beside it"),
    (
        "data_type",
        "fp32",
        "export_onnx(precision), quantise_onnx(target='tensorrt')",
        "fp32",
        "fp32, fp16, int8; precision lives in the ONNX file and the network is strongly typed, so that "
        "what was accepted is what is built",
    ),
    ("workspace_size", "1024", "build_engine(workspace_mib)", "1024", "MiB"),
    ("min_batch_size", "1", "build_engine(min_batch)", "1", "images; a smaller batch gets an error"),
    ("opt_batch_size", "10", "build_engine(opt_batch)", "10", "images; what the engine is tuned for"),
    ("max_batch_size", "10", "build_engine(max_batch)", "10", "images; a larger batch gets an error"),
    (
        "inference topk",
        "5",
        "recognise(top) over open_exported(folder, 'tensorrt', plan=plan)",
        "5",
        "on a folder of images, by references of a gallery; needs a GPU",
    ),
)
# ResNet-D, SE and other variants have another stem or other blocks, and other speeds.
_PUBLISHED = {
    "timm:resnet50": "ResNet50",
    "timm:resnet101": "ResNet101",
    "workbench:fan_base_hybrid": "FAN-Base-Hybrid",
    "workbench:nv_dinov2": "NV-DINOv2",
}


def gen_trt_engine_counterparts() -> pd.DataFrame:
    """A row a field of gen_trt_engine: field, its default, our parameter, our default, remark; all of them text."""
    columns = ["gen_trt_engine", "their default", "here", "our default", "remark"]
    return pd.DataFrame(list(_ROWS), columns=columns)


def published_trunk(trunk: str) -> str | None:
    """The trunk of NVIDIA's published speeds that has this one's architecture, such as ResNet101; None where there is none.

    Args:
        trunk: such as `timm:resnet101.a1_in1k`; the weights' tag is of no account.
    """
    return _PUBLISHED.get(trunk.partition(".")[0])
