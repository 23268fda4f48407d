"""The same questions asked with pictures made worse: queries are corrupted, references stay clean.

Axes: D draws of the references, Q queries.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from workbench.data.catalog import Catalog
from workbench.data.corruption_kinds import KINDS
from workbench.data.corruptions import FRAME_PX, Corruption, corrupt_image
from workbench.data.images import ImageError, Picture, content_key, decode_image, image_bytes
from workbench.models.embedder import Embedder
from workbench.models.preprocessing import Preprocessing
from workbench.retrieval.baseline import chance_metrics
from workbench.retrieval.embed import embed_catalog
from workbench.retrieval.few_shot_protocol import FewShotProtocol
from workbench.retrieval.identification import IdentificationPlan, evaluate_identification, plan_identification
from workbench.retrieval.identification_tables import chance_identification
from workbench.retrieval.recognition import Embedded, RecognitionPlan, evaluate_references, plan_recognition
from workbench.retrieval.reid_protocol import ReidProtocol

Plan = RecognitionPlan | IdentificationPlan


@dataclass(frozen=True)
class Answers:
    """How well each query was answered under one corruption.

    Attributes:
        value_DQ: 0 to 1: right or wrong in each draw (recognition), or average precision ([1, Q], re-identification).
        label_Q: label of each query.
        path_Q: file of each query, so that only answers to the same questions are compared.
        quantity: what the mean is: "accuracy@1" or "mAP".
        name: under which metrics.json keeps the mean.
        chance: the mean of a guesser.
        protocol: the conventions in one line.
    """

    value_DQ: np.ndarray
    label_Q: np.ndarray
    path_Q: np.ndarray
    quantity: str
    name: str
    chance: float
    protocol: str


@dataclass(frozen=True)
class Stress:
    """The answers of each embedder, clean (under None, the first) and under each corruption, in the order that was asked.

    Attributes:
        answers: by the embedder's name, then by corruption; the same corruptions for all.
        input_px: the longer side of each embedder's input, px.
    """

    answers: dict[str, dict[Corruption | None, Answers]]
    input_px: dict[str, int]


def plan_stress(
    catalog: Catalog,
    reference_sets: str = "",
    query_split: str = "",
    query_domain: str = "",
    shots: str = "",
    *,
    num_queries: int | None = None,
    seed: int = 0,
) -> Plan:
    """What is asked, by the task of the catalog's cards: recognition by the first reference set, or re-identification.

    Args:
        catalog: all images of the run.
        reference_sets, query_split, query_domain, shots: see `plan_recognition`; the most references that `shots` allows
            are taken. Re-identification takes query_split alone, and the card's gallery.
        num_queries: at most so many, spread evenly over the labels; None asks all.
        seed: of the choice of queries.

    Raises:
        ValueError: what the plans refuse, or num_queries below 1.
    """
    if num_queries is not None and num_queries < 1:
        raise ValueError(f"num_queries is at least 1 or None; found {num_queries}.")
    if {card.task for card in catalog.cards.values()} == {"reid"}:
        asked = plan_identification(catalog, query_split)
        return replace(asked, queries=spread_queries(asked.queries, num_queries, seed))
    plan = plan_recognition(catalog, reference_sets, query_split, query_domain, shots)
    name = next(iter(plan.references))
    return RecognitionPlan(
        {name: plan.references[name]}, spread_queries(plan.queries, num_queries, seed), plan.shots_of(name)[-1:]
    )


def spread_queries(queries: Catalog, num: int | None, seed: int = 0) -> Catalog:
    """At most `num` of the queries, in their order: one of each label, then a second of each, chosen by the seed."""
    if num is None or num >= len(queries):
        return queries
    label_Q = queries.labels
    order = np.random.default_rng(seed).permutation(len(queries))
    turn = pd.Series(label_Q[order]).groupby(label_Q[order]).cumcount().to_numpy()
    return queries.take(np.sort(order[np.argsort(turn, kind="stable")[:num]]))


def choose_corruptions(
    kinds: str = "all", severities: Literal["few", "all"] = "all", *, frame_px: int = FRAME_PX, seed: int = 0
) -> list[Corruption]:
    """The corruptions that the parameters name, kind by kind, each from mild to severe.

    Args:
        kinds: names of `KINDS` with commas, or "all".
        severities: "few" or "all" of each kind.
        frame_px, seed: see `Corruption`.

    Raises:
        ValueError: no such kind, a kind twice, none, or severities other than these two.
    """
    names = list(KINDS) if kinds.strip() == "all" else [name.strip() for name in kinds.split(",") if name.strip()]
    for name in names:
        if name not in KINDS:
            near = difflib.get_close_matches(name, KINDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"There is no corruption {name!r}.{hint} There are: {', '.join(KINDS)}, or all.")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"kinds are different names of corruptions, at least one, or all; found {kinds!r}.")
    if severities not in ("few", "all"):
        raise ValueError(f'severities is "few" or "all"; found {severities!r}.')
    return [
        Corruption(name, severity, frame_px, seed)
        for name in names
        for severity in (KINDS[name].few if severities == "few" else KINDS[name].severities)
    ]


def frame_px_of(embedders: Mapping[str, Embedder]) -> int:
    """The `frame_px` that takes nothing away from any of these embedders, and is the same for all of them."""
    return max(FRAME_PX, *(embedder.preprocessing.decode_px for embedder in embedders.values()))


def run_stress(
    plan: Plan,
    embedders: Mapping[str, Embedder],
    corruptions: Sequence[Corruption],
    protocol: FewShotProtocol | None = None,
    *,
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> Stress:
    """The answers of each embedder to the plan's queries, clean and under each corruption.

    Args:
        plan: see `plan_stress`.
        embedders: by name.
        corruptions: what is done to the queries; none only asks the clean ones.
        protocol: of recognition (draws, vote, ...), its shots are the plan's; None is the default one. Re-identification
            takes the plan's junk rule and the defaults.
        say: called with a line of progress for each embedder and kind; None is silent.
        options: of `embed_catalog`.

    Raises:
        ValueError: two embedders or corruptions answered different queries, because files changed meanwhile.
    """
    found: dict[str, dict[Corruption | None, Answers]] = {}
    options = {"progress": None, **options}
    for name, embedder in embedders.items():
        measure = _measure_of(plan, embedder, protocol or FewShotProtocol(), **options)
        found[name] = {None: measure(embed_catalog(embedder, plan.queries, **options))}
        for number, corruption in enumerate(corruptions, start=1):
            found[name][corruption] = measure(embed_catalog(embedder, plan.queries, corruption=corruption, **options))
            if say and (number == len(corruptions) or corruptions[number].kind != corruption.kind):
                say(f"{name}: {corruption.kind} done, {number} of {len(corruptions)} corruptions")
    first = next(iter(found.values()))[None]
    for name, answers in found.items():
        for what, one in answers.items():
            if not np.array_equal(one.path_Q, first.path_Q):
                raise ValueError(f"{name} answered other queries under {what} than clean: files have changed.")
    return Stress(found, {name: max(one.preprocessing.image_size) for name, one in embedders.items()})


def example_pictures(
    queries: Catalog, corruptions: Sequence[Corruption], preprocessing: Preprocessing
) -> tuple[int, list[tuple[str, np.ndarray]]]:
    """The first query that can be decoded, by its row, and what a trunk sees of it.

    Captions and pictures, uint8 [H, W, 3]: of each kind of corruption the clean one, then each severity.

    Raises:
        ValueError: no query can be decoded.
    """
    for row, picture in enumerate(queries.pictures()):
        try:
            return row, _corrupted(picture, corruptions, preprocessing)
        except ImageError:
            continue
    raise ValueError(f"None of the {len(queries)} queries can be decoded.")


def _corrupted(
    picture: Picture, corruptions: Sequence[Corruption], preprocessing: Preprocessing
) -> list[tuple[str, np.ndarray]]:
    content = image_bytes(picture.path)
    key = content_key(content, picture.box)
    found: list[tuple[str, np.ndarray]] = []
    for before, one in zip([None, *corruptions], corruptions, strict=False):
        image = decode_image(content, str(picture), target_px=one.frame_px, box=picture.box)
        kind = KINDS[one.kind]
        if before is None or before.kind != one.kind:
            found.append((f"{kind.title}: clean", preprocessing.apply(image)))
        found.append(
            (f"{kind.title}: {kind.say_briefly(one.severity)}", preprocessing.apply(corrupt_image(image, one, key)))
        )
    return found


def _measure_of(
    plan: Plan, embedder: Embedder, protocol: FewShotProtocol, **options: Any
) -> Callable[[Embedded], Answers]:
    if isinstance(plan, IdentificationPlan):
        gallery = embed_catalog(embedder, plan.gallery, **options)
        of_reid = ReidProtocol(junk=plan.junk, input_size=embedder.preprocessing.image_size)
        return lambda queries: _identify(queries, gallery, of_reid)
    (name,) = plan.references
    copies = protocol.reference_augmentations
    references = embed_catalog(embedder, plan.references[name], copies=copies, **options)
    return lambda queries: _recognise(plan, name, references, queries, protocol)


def _recognise(
    plan: RecognitionPlan, reference_set: str, references: Embedded, queries: Embedded, protocol: FewShotProtocol
) -> Answers:
    result = evaluate_references(plan, {reference_set: references}, queries, protocol)[reference_set]
    name = f"accuracy@1/shots={result.protocol.headline}"
    chance = chance_metrics(references.catalog.labels, result.hit_labels, (result.protocol.headline,), (1,))
    return Answers(
        value_DQ=result.hits[name],
        label_Q=result.hit_labels,
        path_Q=queries.catalog.names()[result.hit_queries],
        quantity="accuracy@1",
        name=f"{name}/micro",
        chance=chance[f"chance/{name}/micro"].value,
        protocol=result.metrics[f"{name}/micro"].protocol,
    )


def _identify(queries: Embedded, gallery: Embedded, protocol: ReidProtocol) -> Answers:
    result = evaluate_identification(queries, gallery, protocol)
    counted = result.per_query[result.per_query["average_precision"].notna()]
    return Answers(
        value_DQ=counted["average_precision"].to_numpy(np.float64)[None],
        label_Q=counted["label"].to_numpy(dtype=object),
        path_Q=queries.catalog.names()[counted.index],
        quantity="mAP",
        name="mAP",
        chance=chance_identification(result, gallery.catalog)["chance/mAP"].value,
        protocol=result.metrics["mAP"].protocol,
    )
