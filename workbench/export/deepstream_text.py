"""The texts of a DeepStream bundle: nvinfer's configuration, the section of deepstream-app, labels in lines, the README."""

from typing import Any

from workbench.export import deepstream_lookup
from workbench.export.bundle import GALLERY
from workbench.export.folder import MODEL
from workbench.retrieval.recognise import UNKNOWN

CONFIG, FRAGMENT, LABELS, PLAN = "config_sgie_embedder.txt", "deepstream_app_fragment.txt", "labels.txt", "model.plan"
NETWORK_MODES = {"fp32": 0, "int8": 1, "fp16": 2}


def escape_label(label: str) -> str:
    r"""The label in one line that nvinfer reads as one label, told apart from every other.

    A backslash, `;` (nvinfer parts labels there) and whatever is not printable (newlines of all kinds) become `\uXXXX` or
    `\UXXXXXXXX`.
    """
    return "".join(
        character
        if character.isprintable() and character not in "\\;"
        else (f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}")
        for character in label
    )


def config_text(
    described: dict[str, Any],
    offsets: list[float],
    factor: float,
    ids: dict[str, int],
    *,
    has_labels: bool,
    has_plan: bool,
) -> str:
    """The configuration of nvinfer; above it, as comments, what nvinfer does otherwise.

    Args:
        described: what export.json says.
        offsets, factor: nvinfer feeds (x - offset) * factor, x from 0 to 255.
        ids: batch-size, gie-unique-id and operate-on-gie-id.
        has_labels, has_plan: whether the files lie beside it.
    """
    height, width = described["image_size"]
    padded = _fill_of(described["preprocessing"]) is not None
    entries = {
        "gpu-id": 0,
        "onnx-file": MODEL,
        "model-engine-file": PLAN if has_plan else None,
        "labelfile-path": LABELS if has_labels else None,
        "batch-size": ids["batch-size"],
        "network-mode": NETWORK_MODES[described["precision"]],
        "process-mode": 2,
        "network-type": 100,
        "output-tensor-meta": 1,
        "classifier-threshold": 0,
        "model-color-format": 0,
        "infer-dims": f"3;{height};{width}",
        "net-scale-factor": repr(factor),
        "offsets": ";".join(map(repr, offsets)) if any(offsets) else None,
        "maintain-aspect-ratio": int(padded),
        "symmetric-padding": 1 if padded else None,
        "scaling-filter": 1,
        "output-blob-names": deepstream_lookup.LAYER,
        "gie-unique-id": ids["gie-unique-id"],
        "operate-on-gie-id": ids["operate-on-gie-id"],
    }
    lines = [f"# {line}" for line in _differences(described["preprocessing"])]
    lines += ["[property]", *(f"{key}={value}" for key, value in entries.items() if value is not None)]
    return "\n".join(lines) + "\n"


def fragment_text(ids: dict[str, int]) -> str:
    """The section for the configuration of deepstream-app."""
    entries = {"enable": 1, "gpu-id": 0, **ids, "config-file": CONFIG}
    return "\n".join(["[secondary-gie0]", *(f"{key}={value}" for key, value in entries.items())]) + "\n"


def _fill_of(preprocessing: dict[str, Any]) -> list[int] | None:
    """The colour beside a picture that keeps its aspect ratio and is wholly seen; None where pictures are not such."""
    if preprocessing["resize"] == "pad":
        return [round(255 * value) for value in preprocessing["mean"]]
    return list(preprocessing["fill"]) if preprocessing.get("crop_mode") == "border" else None


def _differences(preprocessing: dict[str, Any]) -> list[str]:
    """What nvinfer does to a picture otherwise than the preprocessing that references and measurements went through."""
    height, width = preprocessing["image_size"]
    found = [
        f"The embedder was measured on pictures scaled by {preprocessing['interpolation']} with antialiasing; nvinfer scales by "
        "bilinear interpolation of two neighbours (scaling-filter=1), without. Larger objects are shrunk more roughly.",
    ]
    share = preprocessing["crop_share"] if preprocessing["resize"] == "crop" else 1.0
    keeps_aspect = preprocessing["resize"] == "crop" and preprocessing.get("crop_mode", "rounded") != "squash"
    fill = _fill_of(preprocessing)
    if fill is None and (share != 1 or keeps_aspect):
        of = "the shorter side" if keeps_aspect else "each side"
        found.append(
            f"The embedder was measured on the centre of pictures ({share:.4g} of {of}); nvinfer cannot cut, it "
            f"changes the aspect ratio of the whole object to {width} x {height}."
        )
    if fill is not None and fill != [0, 0, 0]:
        found.append(
            f"The embedder was measured on pictures filled up with the colour {', '.join(map(str, fill))}; nvinfer fills with black."
        )
    found.append(
        "What this costs was not measured. Where it matters, make references from crops that went through this pipeline, and "
        "measure the threshold anew."
    )
    return found


def readme_text(described: dict[str, Any], settings: dict[str, Any], *, has_labels: bool, has_plan: bool) -> str:
    """What is in the bundle and how to ask it; `settings` are those of bundle.json."""
    differences = "\n".join(f"- {line}" for line in _differences(described["preprocessing"]))
    engine = (
        f"- `{PLAN}`: the TensorRT engine, for the GPU and the TensorRT version in `{PLAN}.json` only."
        if has_plan
        else f"- nvinfer builds an engine from `{MODEL}` (opset {described['opset']}) at its first start. Where its TensorRT does "
        "not read that opset, build a plan with the TensorRT of your DeepStream."
    )
    text = f"""# Embedder for DeepStream

`sha256sum -c SHA256SUMS` checks the files; `MODEL_CARD.md` says what the embedder is, and how well it was measured to answer.

- `{CONFIG}`: the secondary GIE {settings["gie_unique_id"]}. It gives each object the tensor `{settings["layer"]}`,
  float32 [{settings["embedding_dim"]}].
- `{FRAGMENT}`: the section for the configuration of deepstream-app; write the path of `{CONFIG}` as seen from there.
{engine}

## What nvinfer does otherwise

{differences}
"""
    if not has_labels:
        return text + "\nNo gallery came along: the tensor is all that this bundle gives.\n"
    notes = "".join(f"\nNote: {note}.\n" for note in settings["notes"])
    return f"""{text}
## Which product it is

In a probe behind the GIE, for each `NvDsObjectMeta`:

```python
from pathlib import Path

from deepstream_lookup import Lookup, read_embedding

lookup = Lookup(Path("."))  # this folder
embedding = read_embedding(object_meta, {settings["gie_unique_id"]}, {settings["embedding_dim"]})
if embedding is not None:
    label, similarity = lookup.answer(embedding)
```

The answer is "{UNKNOWN}" unless the similarity is above {settings["threshold"]:.6f}; `bundle.json` says where
that threshold is from.
{notes}
`{GALLERY}/` holds the references. `{LABELS}` has a label a line, with `;`, backslashes and what cannot be printed as `\\uXXXX`;
`labels.json` has the same labels as they are. nvinfer itself does not use them: an embedder has no classes.
"""
