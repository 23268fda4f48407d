"""Recognition by text as a baseline: what a CLIP trunk answers from the classes' names alone, or why it cannot."""

from workbench.data.catalog import Catalog
from workbench.data.class_texts import (
    NoClassNamesError,
    read_class_descriptions,
    read_class_groups,
    read_class_names,
)
from workbench.models.embedder import Embedder
from workbench.models.text import build_text_tower, check_same_space
from workbench.retrieval.embedding_folder import EmbeddingSet
from workbench.retrieval.few_shot_protocol import FewShotProtocol
from workbench.retrieval.stats import Metric
from workbench.retrieval.zero_shot import build_prompts, evaluate_zero_shot


def recognise_by_text(
    name: str,
    weights: str,
    embedder: Embedder,
    known: Catalog,
    queries: EmbeddingSet,
    protocol: FewShotProtocol,
    seed: int = 0,
) -> tuple[dict[str, Metric], str]:
    """The metrics of `evaluate_zero_shot` and a line that says how they came about, or no metrics and why there are none.

    Args:
        name: of the trunk; texts belong to `open_clip:` trunks as they are named there, not to saved embedders.
        weights: pretrained, random (answers are then at chance), or the file of the whole CLIP model.
        embedder: built from name and weights.
        known: images of the classes that are asked for, with the cards that name and describe them.
        queries: embeddings by `embedder`.
        protocol: see `evaluate_zero_shot`.
        seed: of random weights.

    Raises:
        WeightsUnavailableError: pretrained weights that cannot be had.
    """
    if not name.startswith("open_clip:"):
        return {}, "Zero-shot by text: not measured, only a CLIP trunk as it is (open_clip:...) has a text tower."
    try:
        names = read_class_names(known)
    except NoClassNamesError as error:
        return {}, f"Zero-shot by text: not measured. {error}"
    text = build_text_tower(name, weights, seed)
    try:
        check_same_space(embedder, text)
    except ValueError as error:
        return {}, f"Zero-shot by text: not measured. {error}"
    prompts = build_prompts(names, read_class_groups(known), read_class_descriptions(known))
    found = evaluate_zero_shot(
        text.embed(prompts.sentences), prompts, queries.embedding_ND, queries.catalog.labels, protocol
    )
    chance = " Random weights give chance." if weights == "random" else ""
    return found.metrics, f"Zero-shot by text: {prompts.described}.{chance}"
