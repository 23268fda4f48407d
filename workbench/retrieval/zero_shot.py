"""Recognition by text alone: which class's words are nearest to an image, in the space of one CLIP model.

A baseline: no photograph of a class is needed, only what it is called. Axes: P prompts, Q queries, C classes, D width.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.retrieval.few_shot import evaluate_few_shot
from workbench.retrieval.few_shot_protocol import FewShotProtocol
from workbench.retrieval.stats import Metric

TEMPLATES = ("a photo of {}.", "a photo of {}, a product in a store.", "a close-up photo of {}.", "{} on a shelf.")
_END_OF_SENTENCE = re.compile(r"(?<=[.!?])\s")


@dataclass(frozen=True)
class Prompts:
    """What is asked of each class, one prompt a row.

    Attributes:
        sentences: text [P].
        labels: text [P], the class of each.
        described: how they were made, in a few words, for the protocol.
    """

    sentences: tuple[str, ...]
    labels: tuple[str, ...]
    described: str


@dataclass(frozen=True)
class ZeroShotResult:
    """What an evaluation by text found.

    Attributes:
        metrics: `zero_shot/accuracy@K/micro` and `/macro` for every K of the protocol.
        predictions, per_class, confusions: as in `FewShotResult`; `prompt` is the row of the nearest prompt of the predicted class.
        hits: `zero_shot/accuracy@K`, float32 [1, Q], 0 to 1, of the queries whose class has prompts.
        hit_labels: label of each column of hits; hit_queries: its row as given.
    """

    metrics: dict[str, Metric]
    predictions: pd.DataFrame
    per_class: pd.DataFrame
    confusions: pd.DataFrame
    hits: dict[str, np.ndarray]
    hit_labels: np.ndarray
    hit_queries: np.ndarray


def build_prompts(
    names: Mapping[str, str],
    groups: Mapping[str, str] | None = None,
    descriptions: Mapping[str, str] | None = None,
    templates: Sequence[str] = TEMPLATES,
) -> Prompts:
    """The prompts of all classes: each template with the name, and one more with the description's first sentence.

    Args:
        names: what each label is called.
        groups: what kind of thing a label is, said after the name unless it is part of it: "Conference, a kind of pear".
        descriptions: of labels that have one.
        templates: each with one `{}` for the name.

    Raises:
        ValueError: no name, no template, or one without exactly one `{}`.

    Source: prompts by template and their average: Radford et al., "Learning Transferable Visual Models From Natural
    Language Supervision" (CLIP), ICML 2021, section 3.1.4; the templates are ours.
    """
    wrong = [template for template in templates if template.count("{}") != 1 or template.count("{") != 1]
    if not names or not templates or wrong:
        raise ValueError(
            f"Wanted at least one name and templates with one {{}} each; found {len(names)} names and templates "
            f"{list(wrong or templates)}."
        )
    sentences, labels = [], []
    for label, name in names.items():
        group = (groups or {}).get(label, "")
        kind = f", a kind of {group.lower()}" if group and group.lower() not in name.lower() else ""
        of_label = [template.format(f"{name}{kind}") for template in templates]
        if text := (descriptions or {}).get(label, "").strip():
            first = _END_OF_SENTENCE.split(text)[0]
            of_label.append(f"{name}{kind}: {first}")
        sentences += of_label
        labels += [label] * len(of_label)
    parts = [f"{len(templates)} templates averaged ({' | '.join(templates)})", "class names"]
    parts += ["with their groups"] if groups else []
    num_described = sum(bool((descriptions or {}).get(label, "").strip()) for label in names)
    parts += [f"and the first sentence of {num_described} descriptions"] if descriptions else []
    return Prompts(tuple(sentences), tuple(labels), ", ".join(parts))


def evaluate_zero_shot(
    prompt_PD: np.ndarray,
    prompts: Prompts,
    query_QD: np.ndarray,
    query_labels: ArrayLike,
    protocol: FewShotProtocol | None = None,
) -> ZeroShotResult:
    """Few-shot evaluation whose references are sentences: the mean of a class's normalised prompts is its one reference.

    Equal similarities are never ordered: a hit is its expected value. Image and text weights that were not trained
    together, random ones among them, give chance.

    Args:
        prompt_PD: embeddings of `prompts.sentences`, any scale.
        prompts: from `build_prompts`; classes without a query are asked for too, and make it harder.
        query_QD: image embeddings of the same CLIP model, in its projected space (see `models.text.check_same_space`).
        query_labels: [Q].
        protocol: top, absent_queries, queries_per_class, query_domain, seed and num_replicates are read; None is
            `FewShotProtocol()`.

    Raises:
        ValueError: a sentence without its embedding, and what `evaluate_few_shot` refuses.
    """
    given = protocol or FewShotProtocol()
    kept = replace(given, shots=("all",), headline_shots=None, draws=1, vote="prototype", reference_augmentations=0)
    result = evaluate_few_shot(prompt_PD, prompts.labels, query_QD, query_labels, kept)
    line = kept.describe("all")
    conditions = line[line.index(f"queries {kept.query_domain};") :]
    said = (
        f"zero-shot by text: {prompts.described}; nearest class mean, cosine similarity of L2-normalised embeddings, "
        f"ties: expected; {conditions}"
    )
    return ZeroShotResult(
        {
            _rename(name): replace(one, protocol=one.protocol.replace(line, said))
            for name, one in result.metrics.items()
        },
        result.predictions.rename(columns={"reference": "prompt"}),
        result.per_class,
        result.confusions,
        {_rename(name): hits_DQ for name, hits_DQ in result.hits.items()},
        result.hit_labels,
        result.hit_queries,
    )


def _rename(name: str) -> str:
    return f"zero_shot/{name.replace('/shots=all', '')}"
