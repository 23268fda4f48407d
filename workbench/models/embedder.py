"""The embedder: trunk, head and L2 normalisation with the exact preprocessing, and the folder that holds them."""

import hashlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from workbench.models.classifier import Classifier, empty_classifier
from workbench.models.clip import swaps_activation
from workbench.models.heads import HeadOutputs, build_head, head_outputs, takes_map
from workbench.models.preprocessing import Preprocessing, ResizeMode
from workbench.models.trunk import Trunk, build_trunk
from workbench.runs.files import new_folder, write_json

FORMAT_VERSION = 1


class Embedder(nn.Module):
    """Images in, unit-length embeddings out; class probabilities too, where a training left its classifier.

    Attributes:
        trunk, head: the two modules.
        preprocessing: from a decoded image to the trunk's input.
        embedding_dim: width of the embedding.
        described: how it was built (trunk name, pooling, head); saved with it.
        classifier: from what the head shows a classifier to logits, or None; saved with it.
        classes: the classifier's class names in its order; empty without one.
    """

    classifier: Classifier | None

    def __init__(self, trunk: Trunk, head: nn.Module, preprocessing: Preprocessing, described: dict[str, Any]) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head
        self.preprocessing, self.described = preprocessing, described
        self.embedding_dim: int = described["embedding_dim"]
        self.classifier = None
        self.classes: tuple[str, ...] = ()

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Embeddings, float [N, embedding_dim], rows of length 1, of normalised images, float [N, 3, H, W].

        A row shorter than torch's epsilon, 1e-12, is divided by that and stays short; what reads embeddings divides once more
        (`retrieval.arrays.normalise`) and refuses zeros.
        """
        return nn.functional.normalize(self.head(self.features(images_NCHW)), dim=1)

    def features(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """What the head takes: the trunk's features [N, F], or for an lca head its last map [N, C, h, w]."""
        return self.trunk.feature_map(images_NCHW) if takes_map(self.head) else self.trunk(images_NCHW)

    def outputs(self, images_NCHW: torch.Tensor) -> HeadOutputs:
        """What the losses of a training see of normalised images; nothing of it has length 1."""
        return head_outputs(self.head, self.features(images_NCHW))

    def classify(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Probabilities, float32 [N, C], rows sum to 1, of normalised images, in the order of `classes`.

        Raises:
            ValueError: the embedder has no classifier.
        """
        if self.classifier is None:
            raise ValueError(
                "This embedder has no classifier: it was not trained with one (a triplet loss alone has none). "
                "Recognise by the nearest references of a gallery instead."
            )
        logits_NC: torch.Tensor = self.classifier(self.outputs(images_NCHW).classified)
        return logits_NC.softmax(dim=1)

    @property
    def classified_dim(self) -> int:
        """Width of what a classifier sees."""
        return int(getattr(self.head, "classified_dim", self.embedding_dim))

    def attach_classifier(self, classifier: Classifier | None, classes: Sequence[str] = ()) -> None:
        """Keeps a classifier and its class names from now on; None takes them off.

        Raises:
            ValueError: not one name a class, a name twice, or a width that the head does not give.
        """
        names = tuple(str(name) for name in classes)
        num_classes = 0 if classifier is None else classifier.num_classes
        if len(names) != num_classes or len(set(names)) != num_classes:
            raise ValueError(f"{num_classes} classes want as many different names; found {len(names)}: {names[:5]}.")
        if classifier is not None and classifier.weight.shape[-1] != self.classified_dim:
            raise ValueError(
                f"The classifier takes {classifier.weight.shape[-1]} features, the head gives {self.classified_dim}."
            )
        self.classifier, self.classes = classifier, names

    def fingerprint(self) -> str:
        """A sha256 over weights, architecture and preprocessing: two embedders with one fingerprint answer alike."""
        return self._hash_weights(json.dumps(self._config(), sort_keys=True).encode())

    def weights_sha256(self) -> str:
        """A sha256 over the weights alone: names, dtypes, shapes and values."""
        return self._hash_weights(b"")

    def _hash_weights(self, begun: bytes) -> str:
        digest = hashlib.sha256(begun)
        for name, value in sorted(self.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def save(self, folder: Path | str, **provenance: Any) -> Path:
        """The folder, written whole: config.json and model.safetensors, loadable without a network.

        Args:
            folder: must not exist yet.
            provenance: JSON-able facts to keep with the embedder, such as the recipe or the run that made it.

        Raises:
            FileExistsError: the folder is there already, or another process made one with another content meanwhile;
                embedders are never overwritten.
        """
        folder = Path(folder)
        if folder.exists():
            raise FileExistsError(f"{folder} exists already; choose another folder for the embedder or remove it.")
        with new_folder(folder) as temporary:
            tensors = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
            safetensors.torch.save_file(tensors, temporary / "model.safetensors")
            config = {**self._config(), "fingerprint": self.fingerprint(), "provenance": provenance}
            write_json(temporary / "config.json", config)
        return folder

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            **self.described,
            "preprocessing": self.preprocessing.to_dict(),
        }
        if self.classifier is not None:
            config |= {"classifier": self.classifier.describe(), "classes": list(self.classes)}
        return config


def build_embedder(
    trunk: str,
    trunk_weights: str = "pretrained",
    *,
    image_size: tuple[int, int] | None = None,
    pooling: str = "default",
    head: str = "identity",
    embedding_dim: int | None = None,
    resize: ResizeMode = "squash",
    seed: int = 0,
    last_stride: int = 2,
    neck_feature: str = "after",
    quick_gelu: bool | None = None,
) -> Embedder:
    """An embedder in evaluation mode, from a trunk string (see `trunk.build_trunk`) and a head (see `heads.build_head`).

    Args:
        trunk: such as `open_clip:ViT-L-14/laion2b_s32b_b82k`.
        trunk_weights: `pretrained`, `random`, or a local file.
        image_size: height and width, px; None is the trunk's own.
        pooling: default, class, mean or both.
        head: identity, linear, bnneck, adaptors or lca; all but the first start from random weights.
        embedding_dim: width of the embedding; None is the trunk's width.
        resize: squash, crop (the trunk's own transform) or pad (see `Preprocessing`).
        seed: of all random weights.
        last_stride: 1 or 2, of a timm ResNet (see `trunk.build_trunk`).
        neck_feature: after or before, of a bnneck head (see `heads.BNNeck`).
        quick_gelu: None is what the trunk's tag wants (see `trunk.build_trunk`).
    """
    built = build_trunk(trunk, trunk_weights, image_size, pooling, seed, last_stride, quick_gelu)
    described: dict[str, Any] = {"trunk": trunk, "pooling": pooling, "num_features": built.num_features}
    described |= {"head": "identity", "embedding_dim": built.num_features}
    if last_stride != 2:  # a trunk as its library has it says nothing, so that older fingerprints stay valid
        described["last_stride"] = last_stride
    if built.quick_gelu:
        described["quick_gelu"] = True
    if (revision := getattr(built.tower, "revision", None)) is not None:  # one of our own that was mended
        described["trunk_revision"] = revision
    embedder = Embedder(built, nn.Identity(), built.preprocessing.resized(resize), described)
    return replace_head(embedder, head, embedding_dim, neck_feature=neck_feature, seed=seed).eval()


def replace_head(
    embedder: Embedder, kind: str, embedding_dim: int | None = None, *, neck_feature: str = "after", seed: int = 0
) -> Embedder:
    """The embedder with a new head from random weights, changed in place; a classifier of the old head is taken off.

    Args:
        embedder: on any device; the new head is on the CPU.
        kind, embedding_dim, neck_feature: see `heads.build_head`.
        seed: of the random weights.
    """
    num_inputs = embedder.trunk.count_map_channels() if takes_map(kind) else embedder.trunk.num_features
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        embedder.head = build_head(kind, num_inputs, embedding_dim, neck_feature)
    width = embedding_dim or num_inputs
    kept = {name: value for name, value in embedder.described.items() if name != "neck_feature"}
    neck = {"neck_feature": neck_feature} if kind == "bnneck" else {}
    embedder.described = {**kept, "head": kind, "embedding_dim": width, **neck}
    embedder.embedding_dim = width
    embedder.attach_classifier(None)
    return embedder


def load_embedder(folder: Path | str) -> Embedder:
    """The embedder that `Embedder.save` wrote, with identical output, in evaluation mode and without a network.

    A folder whose trunk's tag wants QuickGELU and that does not say `quick_gelu` was built with GELU, by an older workbench:
    it is given GELU again, with a warning, because its weights may have been trained further with it.

    Raises:
        FileNotFoundError: config.json or model.safetensors is missing.
        ValueError: another format version or revision of the trunk, weights that do not fit, or a fingerprint that differs (a
            changed file).
    """
    folder = Path(folder)
    missing = [name for name in ("config.json", "model.safetensors") if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} is not a whole embedder folder: {' and '.join(missing)} missing.")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / 'config.json'} is not JSON ({error}); save the embedder again.") from error
    if config.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{folder} has embedder format {config.get('format_version')!r}, this workbench reads {FORMAT_VERSION}; save it again."
        )
    preprocessing = Preprocessing.from_dict(config["preprocessing"])
    if "quick_gelu" not in config and swaps_activation(config["trunk"]):
        warnings.warn(
            f"{folder} was built with GELU, but the weights of {config['trunk']} were trained with QuickGELU. It answers as it "
            "always did; if it was not trained further, build it again from the trunk's name, and its galleries with it.",
            stacklevel=2,
        )
    embedder = build_embedder(
        config["trunk"],
        "random",
        image_size=preprocessing.image_size,
        pooling=config["pooling"],
        head=config["head"],
        embedding_dim=config["embedding_dim"],
        last_stride=config.get("last_stride", 2),
        neck_feature=config.get("neck_feature", "after"),
        quick_gelu=config.get("quick_gelu", False),
    )
    if embedder.described.get("trunk_revision") != config.get("trunk_revision"):
        raise ValueError(
            f"{folder} was saved by a workbench that computed {config['trunk']} otherwise (revision "
            f"{config.get('trunk_revision')}, now {embedder.described.get('trunk_revision')}), so that its weights would answer "
            "differently here. Build it or train it again."
        )
    embedder.preprocessing = preprocessing
    if "classifier" in config:
        embedder.attach_classifier(empty_classifier(config["classifier"]), config["classes"])
    try:
        embedder.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"), strict=True)
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{folder / 'model.safetensors'} does not fit its config.json: {error}") from error
    if embedder.fingerprint() != config["fingerprint"]:
        raise ValueError(f"{folder} was changed after it was saved: its fingerprint differs. Save the embedder again.")
    return embedder


def open_embedder(embedder: str, trunk_weights: str = "pretrained", **options: Any) -> Embedder:
    """The embedder that a notebook's `embedder` parameter names: a folder that was saved, or a trunk string to build."""
    if Path(embedder).is_dir():
        return load_embedder(embedder)
    if ":" not in embedder:
        raise ValueError(
            f"embedder is a saved folder that exists or a trunk such as timm:resnet50.a1_in1k; found {embedder!r}."
        )
    return build_embedder(embedder, trunk_weights, **options)
