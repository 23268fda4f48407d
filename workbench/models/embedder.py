"""The embedder: trunk, head and L2 normalisation with the exact preprocessing, and the folder that holds them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from workbench.models.heads import build_head
from workbench.models.preprocessing import Preprocessing, ResizeMode
from workbench.models.trunk import Trunk, build_trunk
from workbench.runs.files import new_folder, write_json

FORMAT_VERSION = 1


class Embedder(nn.Module):
    """Images in, unit-length embeddings out.

    Attributes:
        trunk, head: the two modules.
        preprocessing: from a decoded image to the trunk's input.
        embedding_dim: width of the embedding.
        described: how it was built (trunk name, pooling, head); saved with it.
    """

    def __init__(self, trunk: Trunk, head: nn.Module, preprocessing: Preprocessing, described: dict[str, Any]) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head
        self.preprocessing, self.described = preprocessing, described
        self.embedding_dim: int = described["embedding_dim"]

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Embeddings, float [N, embedding_dim], rows of length 1, of normalised images, float [N, 3, H, W]."""
        return nn.functional.normalize(self.head(self.trunk(images_NCHW)), dim=1)

    def fingerprint(self) -> str:
        """A sha256 over weights, architecture and preprocessing: two embedders with one fingerprint answer alike."""
        digest = hashlib.sha256(json.dumps(self._config(), sort_keys=True).encode())
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
            FileExistsError: the folder is there already; embedders are never overwritten.
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
        return {"format_version": FORMAT_VERSION, **self.described, "preprocessing": self.preprocessing.to_dict()}


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
) -> Embedder:
    """An embedder in evaluation mode, from a trunk string (see `trunk.build_trunk`) and a head (see `heads.build_head`).

    Args:
        trunk: such as `open_clip:ViT-L-14/laion2b_s32b_b82k`.
        trunk_weights: `pretrained`, `random`, or a local file.
        image_size: height and width, px; None is the trunk's own.
        pooling: default, class, mean or both.
        head: identity or linear; a linear head starts from random weights.
        embedding_dim: width of the embedding; None is the trunk's width.
        resize: squash, crop or pad (see `Preprocessing`).
        seed: of all random weights.
    """
    built = build_trunk(trunk, trunk_weights, image_size, pooling, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head_module = build_head(head, built.num_features, embedding_dim)
    described = {
        "trunk": trunk,
        "pooling": pooling,
        "head": head,
        "num_features": built.num_features,
        "embedding_dim": embedding_dim or built.num_features,
    }
    return Embedder(built, head_module, built.preprocessing.resized(resize), described).eval()


def load_embedder(folder: Path | str) -> Embedder:
    """The embedder that `Embedder.save` wrote, with identical output, in evaluation mode and without a network.

    Raises:
        FileNotFoundError: config.json or model.safetensors is missing.
        ValueError: another format version, weights that do not fit, or a fingerprint that differs (a changed file).
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
    embedder = build_embedder(
        config["trunk"],
        "random",
        image_size=preprocessing.image_size,
        pooling=config["pooling"],
        head=config["head"],
        embedding_dim=config["embedding_dim"],
    )
    embedder.preprocessing = preprocessing
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
