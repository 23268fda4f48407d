"""What a Triton bundle says about itself: the words that its README.md and Dockerfile leave open."""

from importlib.metadata import version
from typing import Any


def say_how_to_serve(
    name: str, backend: str, described: dict[str, Any], settings: dict[str, Any] | None
) -> dict[str, str]:
    """Texts by the names that stand in the templates.

    Args:
        name: of the ensemble.
        backend: onnxruntime, tensorrt or python.
        described: what export.json says.
        settings: what `recognise.json` says; None without a gallery.
    """
    steps = [
        f"1. `{name}_preprocess`: decodes, resizes ({described['preprocessing']['resize']}) and hands over {described['input']} "
        f"pixels of {described['image_size'][0]} x {described['image_size'][1]} px (Python, CPU)",
        f"2. `{name}_embedder`: {described['embedder']['trunk']}, {described['precision']}, width {described['embedding_dim']}",
    ]
    answers = [f"- `embeddings`: {described['embedding_dim']} numbers, float32, of length 1"]
    decision = ""
    if settings is not None:
        steps.append(f"3. `{name}_recognise`: nearest of {len(settings['labels']):,} labels (Python, numpy, CPU)")
        answers += [
            f"- `labels`, `similarities`: the {settings['top']} nearest labels and their cosine similarity, the best first",
            f"- `decision`: the first label where its similarity is above {settings['threshold']!r}, else `{settings['unknown']}`",
        ]
        if settings["calibration"]:
            answers.append(
                "- `probability`: that the first label is right, where one picture in five shows an unknown product"
            )
        notes = "".join(f" Note: {note}." for note in settings["notes"])
        decision = f"\nThe threshold: {settings['threshold_words']}.{notes} The gallery is at version {settings['gallery_version']}.\n"
    onnxruntime = f"onnxruntime {version('onnxruntime')}"
    backend_words = {
        "onnxruntime": f"The embedder runs in Triton's backend `onnxruntime`; its file is of opset {described['opset']} and was "
        f"checked with onnxruntime {described['versions']['onnxruntime']}: take an image whose onnxruntime reads that opset.",
        "tensorrt": "The embedder runs in Triton's backend `tensorrt`; the image's TensorRT must be the version that built the "
        "plan, and the GPU the kind it was built for.",
        "python": f"The embedder runs on the CPU, by {onnxruntime} in Triton's backend `python`.",
    }[backend]
    packages = ["numpy", f"pillow=={version('pillow')}"]
    return {
        "name": name,
        "outputs": "embeddings" if settings is None else "embeddings and product names",
        "steps": "\n".join(steps),
        "gpus": "" if backend == "python" else "--gpus=all ",
        "backend_words": backend_words,
        "packages": " ".join([*packages, onnxruntime.replace(" ", "==")] if backend == "python" else packages),
        "pillow": version("pillow"),
        "decision": decision,
        "answers": "\n".join(answers),
    }
