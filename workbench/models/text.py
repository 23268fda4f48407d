"""The text tower of a CLIP trunk: sentences in, unit-length embeddings in the space of the trunk's projected images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import open_clip
import open_clip.model
import torch
from torch import nn
from torch.nn import functional

from workbench.models.embedder import Embedder
from workbench.models.trunk import downloading
from workbench.models.weights import load_strictly, read_state

Tokenizer = Callable[[list[str]], torch.Tensor]


class TextTower(nn.Module):
    """Sentences in, embeddings out, comparable by cosine with what `open_clip:...` trunks make of images.

    With random weights the two towers know nothing of each other, and recognition by text is at chance.

    Attributes:
        name: of the trunk that it belongs to.
        model: open_clip's, without its image tower.
        tokenize: sentences to int64 [N, L]; what is longer than L tokens is cut off.
    """

    def __init__(self, name: str, model: nn.Module, tokenize: Tokenizer) -> None:
        super().__init__()
        self.name, self.model, self.tokenize = name, model, tokenize

    def forward(self, tokens_NL: torch.Tensor) -> torch.Tensor:
        """Embeddings, float [N, D], rows of length 1."""
        encode = cast("Callable[[torch.Tensor], torch.Tensor]", self.model.encode_text)
        return functional.normalize(encode(tokens_NL).float(), dim=1)

    def embed(self, sentences: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """Embeddings, float32 [N, D], rows of length 1, in the order of the sentences.

        Raises:
            ValueError: no sentence, or an empty one.
        """
        texts = list(sentences)
        if not texts or not all(text.strip() for text in texts):
            raise ValueError(f"Wanted at least one sentence and none empty; found {len(texts)}: {texts[:5]}.")
        device = next(self.parameters()).device
        parts = []
        with torch.inference_mode():
            for start in range(0, len(texts), batch_size):
                parts.append(self(self.tokenize(texts[start : start + batch_size]).to(device)).cpu().numpy())
        return np.concatenate(parts)


def build_text_tower(name: str, weights: str = "pretrained", seed: int = 0) -> TextTower:
    """The text tower that was trained together with an open_clip trunk, in evaluation mode.

    Args:
        name: of the trunk, `open_clip:ARCHITECTURE[/TAG]`.
        weights: `pretrained` (the tag's own), `random` (for tests of the mechanics: answers are at chance), or the path
            of a local .safetensors or .pth file of the whole model (the same that the trunk is loaded from).
        seed: of the random weights.

    Raises:
        ValueError: not a CLIP trunk, an unknown tag, or a file that does not fit or has no text tower.
        WeightsUnavailableError: weights or a tokenizer that would have to be downloaded, without a network and a cached
            copy. The byte-pair vocabulary of the CLIP models themselves comes with open_clip.
    """
    library, _, model_name = name.partition(":")
    architecture, _, tag = model_name.partition("/")
    if library != "open_clip" or open_clip.get_model_config(architecture) is None:
        raise ValueError(f"Only trunks of open_clip (open_clip:ARCHITECTURE/TAG) have a text tower; found {name!r}.")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if (tag and tag not in tags) or (weights == "pretrained" and not tag):
        raise ValueError(
            f"open_clip has no weights {tag!r} for {architecture}; name a tag of: {', '.join(tags) or 'none'}."
        )
    if weights not in ("pretrained", "random") and not Path(weights).is_file():
        raise ValueError(f"weights are 'pretrained', 'random' or a file that exists; found {weights!r}.")
    with torch.random.fork_rng(devices=[]), downloading(name):
        torch.manual_seed(seed)
        model = cast(
            "nn.Module", open_clip.create_model(architecture, pretrained=tag if weights == "pretrained" else None)
        )
        tokenize = open_clip.get_tokenizer(architecture)
    model.visual = nn.Identity()  # of no use here, and the larger half
    if weights not in ("pretrained", "random"):
        _load(model, Path(weights))
    return TextTower(name, model, tokenize).eval()


def check_same_space(embedder: Embedder, text: TextTower) -> None:
    """Returns nothing when the embedder answers with the image embeddings that its CLIP model compares with texts.

    Whether its weights are still those that the texts were trained with is not seen: a trunk that was trained further has
    moved away from them.

    Raises:
        ValueError: another trunk, another pooling than the projected one, or a head of its own.
    """
    described = embedder.described
    found = {name: described[name] for name in ("trunk", "pooling", "head")}
    wanted = {"trunk": text.name, "pooling": "default", "head": "identity"}
    differing = [
        f"{name} {found[name]!r} in place of {wanted[name]!r}" for name in wanted if found[name] != wanted[name]
    ]
    if differing:
        raise ValueError(
            f"Texts are compared with the projected image embeddings of their own CLIP model; this embedder has "
            f"{', '.join(differing)}."
        )


def _load(model: nn.Module, path: Path) -> None:
    """Loads the text half of a file of a whole model."""
    state = {name: value for name, value in read_state(path).items() if not name.startswith("visual.")}
    if not any(name in state for name in ("text_projection", "token_embedding.weight")) and not any(
        name.startswith("text.") for name in state
    ):
        raise ValueError(f"{path} has no text tower: give the file of the whole CLIP model.")
    if isinstance(model, open_clip.model.CustomTextCLIP):
        state = open_clip.model.convert_to_custom_text_state_dict(state)
    load_strictly(model, state, path)
