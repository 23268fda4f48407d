"""The questions of a data set, put to an embedder and to its export: what the notebook and a test ask in one call."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import nn

from workbench.data.catalog import Catalog
from workbench.data.images import Picture
from workbench.export.acceptance import Acceptance, accept, describe_protocol
from workbench.export.checks import FP16, FP32, INT8, Limits
from workbench.export.runtimes import ExportedEmbedder
from workbench.models.embedder import Embedder
from workbench.retrieval.embed import NotFiniteError, embed_catalog
from workbench.retrieval.embedding_folder import EmbeddingSet
from workbench.retrieval.gallery import Gallery
from workbench.retrieval.gallery_measure import measure_gallery
from workbench.retrieval.identification import camera_names, plan_identification
from workbench.retrieval.recognise import made_by
from workbench.retrieval.recognition import plan_recognition

LIMITS: dict[str, Limits] = {"fp32": FP32, "fp16": FP16, "int8": INT8}


class _Marked(Embedder):
    """An export with zeros for each row that is not finite: acceptance then says which images those are, and fails it."""

    def __init__(self, exported: Embedder) -> None:
        nn.Module.__init__(self)
        self.preprocessing, self.embedding_dim = exported.preprocessing, exported.embedding_dim
        self.exported = exported

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embeddings, float32 [B, D]."""
        embedding_BD = self.exported(images)
        return torch.where(embedding_BD.isfinite().all(dim=1, keepdim=True), embedding_BD, 0.0)

    def fingerprint(self) -> str:
        """Another one than the export's: the cache keeps the two apart."""
        return f"{self.exported.fingerprint()}, zeros where not finite"


@dataclass(frozen=True)
class Trial:
    """What both models are asked.

    Attributes:
        references: the images that are searched; in re-identification the gallery.
        queries: the images that are asked for.
        by_camera: re-identification: a query is not answered by its own label from its own camera.
        words: the two sets in words, and the protocol line by which answers are compared.
    """

    references: Catalog
    queries: Catalog
    by_camera: bool
    words: str


@dataclass(frozen=True, eq=False)
class Tried:
    """What an export answered: its embeddings of both sets, and the comparison with torch."""

    references: EmbeddingSet
    queries: EmbeddingSet
    acceptance: Acceptance


def plan_trial(catalog: Catalog) -> Trial:
    """The trial that the catalog's cards evaluate: the largest reference set of products, the gallery of individuals.

    Raises:
        ValueError: the cards do not say which images are references and which are queries.
    """
    if {card.task for card in catalog.cards.values()} == {"reid"}:
        plan = plan_identification(catalog)
        protocol = describe_protocol(
            plan.gallery.labels, plan.queries.labels, camera_names(plan.gallery), camera_names(plan.queries)
        )
        return Trial(plan.gallery, plan.queries, True, f"queries against the gallery; {protocol}")
    recognition = plan_recognition(catalog)
    name, references = max(recognition.references.items(), key=lambda one: len(one[1]))
    protocol = describe_protocol(references.labels, recognition.queries.labels)
    return Trial(references, recognition.queries, False, f"queries against references {name}; {protocol}")


def try_export(trial: Trial, embedder: Embedder, exported: Embedder, limits: Limits, **options: Any) -> Tried:
    """The export's embeddings and what changes when it answers in place of `embedder`.

    Where the export gives NaN or infinity, that row is zeros, and its acceptance has failed on it.

    Args:
        trial: what is asked.
        embedder: the original, in torch.
        exported: see `runtimes.open_exported`.
        limits: FP32, FP16, INT8, or one's own.
        options: of `embed_catalog`; both embed in the same batches.

    Raises:
        ValueError: the trial cannot be asked (see `accept`).
        QuarantineError: more than 1 % of the images cannot be decoded.
    """
    parts = trial.references, trial.queries
    before = [embed_catalog(embedder, part, **options) for part in parts]
    try:
        after = [embed_catalog(exported, part, **options) for part in parts]
    except NotFiniteError:
        after = [embed_catalog(_Marked(exported), part, **options) for part in parts]
    cameras = [camera_names(one.catalog) if trial.by_camera else None for one in after]
    acceptance = accept(
        before[0].embedding_ND,
        before[1].embedding_ND,
        after[0].embedding_ND,
        after[1].embedding_ND,
        after[0].catalog.labels,
        after[1].catalog.labels,
        limits,
        reference_cameras=cameras[0],
        query_cameras=cameras[1],
    )
    return Tried(after[0], after[1], acceptance)


def worst_pictures(tried: Tried, num: int = 12) -> tuple[list[Picture], list[str]]:
    """Pictures and captions of the images whose embedding changed most, the worst first."""
    pictures, captions = [], []
    sides = {"reference": tried.references.catalog, "query": tried.queries.catalog}
    places = {side: catalog.pictures() for side, catalog in sides.items()}
    for row in tried.acceptance.worst.head(num).itertuples(index=False):
        pictures.append(places[str(row.side)][int(str(row.row))])
        captions.append(f"{row.label} ({row.side}): cosine {row.cosine:.6f}")
    return pictures, captions


def flips_table(tried: Tried, num: int = 20) -> pd.DataFrame:
    """The queries whose nearest row changed, the largest margin first: picture, label before and after, margin."""
    flips = tried.acceptance.flips.head(num)
    names = tried.queries.catalog.names()
    return pd.DataFrame(
        {
            "query": names[flips["query"].to_numpy(dtype=int)],
            "label by torch": flips["label_before"].to_numpy(),
            "label by the export": flips["label_after"].to_numpy(),
            "answer changes": flips["label_changes"].to_numpy(),
            "margin (cosine)": flips["margin"].to_numpy(),
        }
    )


def build_gallery(tried: Tried, exported: ExportedEmbedder, source: str) -> Gallery:
    """The trial's references as a gallery made by the export, its threshold for *unknown* measured with the trial's queries.

    Args:
        tried: what the export answered.
        exported: the same export; the gallery keeps its fingerprint.
        source: where references and queries are from, in words.
    """
    references = tried.references
    gallery = Gallery.build(
        references.embedding_ND,
        references.catalog.labels,
        references.catalog.names().tolist(),
        f"built from {source}",
    )
    gallery.about |= made_by(exported)
    measure_gallery(gallery, tried.queries, f"queries of {source}")
    return gallery
