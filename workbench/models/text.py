"""The text tower of a CLIP trunk: sentences in, unit-length embeddings in the space of the trunk's projected images."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import open_clip
import open_clip.model
import torch
from torch import nn
from torch.nn import functional

from workbench.models.clip import find_model, swaps_activation
from workbench.models.embedder import Embedder
from workbench.models.weights import downloading, load_strictly, read_state

Tokenizer = Callable[[list[str]], torch.Tensor]


class TextTower(nn.Module):
    """Sentences in, embeddings out, comparable by cosine with what `open_clip:...` trunks make of images.

    With random weights the two towers know nothing of each other, and recognition by text is at chance.

    Attributes:
        name: of the trunk that it belongs to.
        model: open_clip's text tower.
        tokenize: sentences to int64 [N, L]; what is longer than L tokens is cut off.
    """

    def __init__(self, name: str, model: nn.Module, tokenize: Tokenizer) -> None:
        super().__init__()
        self.name, self.model, self.tokenize = name, model, tokenize

    def forward(self, tokens_NL: torch.Tensor) -> torch.Tensor:
        """Embeddings, float [N, D], rows of length 1."""
        return functional.normalize(self.model(tokens_NL).float(), dim=1)

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
    if library != "open_clip":
        raise ValueError(f"Only trunks of open_clip (open_clip:ARCHITECTURE/TAG) have a text tower; found {name!r}.")
    model = find_model(model_name, weights)
    # CoCa's towers would answer with a tuple; a tower of transformers would first download weights that are replaced
    text = {**model.config["text_cfg"], "output_tokens": False, "hf_model_pretrained": False}
    with torch.random.fork_rng(devices=[]), downloading(name):
        torch.manual_seed(seed)
        tower = open_clip.model._build_text_tower(model.config["embed_dim"], text, model.quick_gelu)
        tokenize = open_clip.get_tokenizer(model.architecture)
    if weights != "random":
        _load(tower, model.weights_file(weights))
    return TextTower(name, tower, tokenize).eval()


def check_same_space(embedder: Embedder, text: TextTower) -> None:
    """Returns nothing when the embedder answers with the image embeddings that its CLIP model compares with texts.

    Whether its weights are still those that the texts were trained with is not seen: a trunk that was trained further has
    moved away from them.

    Raises:
        ValueError: another trunk, another pooling than the projected one, a head of its own, or another activation than the
            weights were trained with.
    """
    found = {"quick_gelu": False, **embedder.described}
    swapped = swaps_activation(text.name)
    wanted = {"trunk": text.name, "pooling": "default", "head": "identity", "quick_gelu": swapped}
    differing = [
        f"{name} {found[name]!r} in place of {wanted[name]!r}" for name in wanted if found[name] != wanted[name]
    ]
    if differing:
        raise ValueError(
            f"Texts are compared with the projected image embeddings of their own CLIP model; this embedder has "
            f"{', '.join(differing)}."
        )


def _load(tower: nn.Module, path: Path) -> None:
    """Loads the text half of a file of a whole model."""
    whole = open_clip.model.convert_to_custom_text_state_dict(read_state(path))
    state = {name.removeprefix("text."): value for name, value in whole.items() if name.startswith("text.")}
    if not state:
        raise ValueError(f"{path} has no text tower: give the file of the whole CLIP model.")
    state.pop("transformer.embeddings.position_ids", None)  # what older towers of transformers kept
    load_strictly(tower, state, path)
