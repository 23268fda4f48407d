"""What a re-identification run compares: who is searched in which gallery, by which embedders, beside which baselines."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from workbench.data.catalog import JUNK_LABEL, Catalog
from workbench.data.images import Picture
from workbench.data.same_images import refuse_same_images
from workbench.models.embedder import Embedder
from workbench.retrieval.embed import EmbeddingSet, embed_catalog
from workbench.retrieval.recognition import Embedded
from workbench.retrieval.reid import evaluate_reid
from workbench.retrieval.reid_protocol import ReidProtocol
from workbench.retrieval.reid_result import ReidResult
from workbench.retrieval.tracklets import average_flip
from workbench.runs.folder import name_place

Junk = Literal["same_id_same_camera", "itself", "none"]


@dataclass(frozen=True)
class IdentificationPlan:
    """The queries and the gallery of one data set.

    Attributes:
        queries: one question each.
        gallery: the images that are searched.
        junk: which gallery rows are taken away for a query (see `ReidProtocol`).

    Raises:
        ValueError: the gallery holds a query, as the same file or by its bytes, which the junk rule does not take away; or
            junk "itself" with a gallery that is not the queries.
    """

    queries: Catalog
    gallery: Catalog
    junk: Junk

    def __post_init__(self) -> None:
        """Looks at the files before anything is computed."""
        if self.junk == "itself":
            sides = [(part.frame["source"] + "/" + part.names()).tolist() for part in (self.queries, self.gallery)]
            if sides[0] != sides[1]:
                raise ValueError(
                    "junk='itself' lets each image search all the others: queries and gallery must be the same images; give "
                    "the same split as query_split and gallery_split."
                )
            return
        queries, gallery = (
            part.take(np.flatnonzero(part.labels != JUNK_LABEL)) for part in (self.queries, self.gallery)
        )
        by_camera = ("source", "label", "camera") if self.junk == "same_id_same_camera" else ()
        instead = "let each image search all the others (04_evaluate_reid with junk=itself and one split on both sides)"
        refuse_same_images(gallery, queries, instead, removed_with=by_camera)

    def overview(self) -> pd.DataFrame:
        """One row for the queries and one for the gallery: what is there, counted before anything is embedded.

        Columns: role, split, images, individuals (who are asked for), cameras, junk (images of label "-1", never
            compared), distractors (images whose label no query has).
        """
        asked = set(self.queries.labels) - {JUNK_LABEL}
        rows = []
        for role, part in (("queries", self.queries), ("gallery", self.gallery)):
            labels = part.frame["label"]
            known, junk = labels.isin(asked), labels == JUNK_LABEL
            split = "+".join(part.frame["split"].unique())
            counts = (int(junk.sum()), int((~known & ~junk).sum()))
            rows.append(
                (role, split, len(part), labels[known].nunique(), len(set(camera_names(part)) - {None}), *counts)
            )
        columns = ["role", "split", "images", "individuals", "cameras", "junk", "distractors"]
        return pd.DataFrame(rows, columns=columns)

    def examples(self, num_labels: int, num_images: int) -> list[tuple[str, Picture]]:
        """Captions and pictures of a few individuals: for each, a query and images of the gallery from different cameras.

        Those come first of whom the gallery holds `num_images`; where there are fewer than `num_labels`, all are taken.
        """
        labels = sorted(set(self.queries.labels) - {JUNK_LABEL})
        often = [label for label in labels if (self.gallery.labels == label).sum() >= num_images]
        labels = often if len(often) >= num_labels else labels
        chosen = [labels[round(place)] for place in np.linspace(0, len(labels) - 1, min(num_labels, len(labels)))]
        found = []
        for label in chosen:
            for role, part, num in (("query", self.queries, 1), ("gallery", self.gallery, num_images)):
                own = part.take(np.flatnonzero(part.labels == label))
                camera_N = camera_names(own)
                # one of each camera first, then the second of each
                turn = pd.Series(camera_N).groupby(camera_N, dropna=False).cumcount()
                for row in turn.sort_values(kind="stable").index[:num]:
                    found.append((f"{label}: {role}, camera {camera_N[row] or '?'}", own.pictures()[row]))
        return found


def plan_identification(
    catalog: Catalog, query_split: str = "", gallery_split: str = "", junk: str = ""
) -> IdentificationPlan:
    """The plan that the parameters describe; what is left empty comes from the first card that has it.

    Args:
        catalog: all images of the run.
        query_split: split of the queries.
        gallery_split: split of the gallery.
        junk: "same_id_same_camera", "itself" or "none"; empty: the card's, "same_id_same_camera" where no card says.

    Raises:
        ValueError: nothing says which images are queries or gallery, a split is not there, or no such junk rule.
    """
    defaults: dict[str, Any] = {}
    for card in catalog.cards.values():
        defaults = {**card.protocol, **defaults}
    queries, gallery = query_split or defaults.get("query_split"), gallery_split or defaults.get("gallery_split")
    if not queries or not gallery:
        raise ValueError(
            "Nothing says which images are queries and which are searched: give query_split and gallery_split, or put "
            "both under `protocol:` of the card."
        )
    rule: Any = junk or defaults.get("junk") or "same_id_same_camera"
    checked = ReidProtocol(junk=rule).junk
    parts = [_keep_products(catalog.select(split=split)) for split in (queries, gallery)]
    return IdentificationPlan(parts[0], parts[1], checked)


def _keep_products(part: Catalog) -> Catalog:
    """The same images; a product called "-1" is `source/-1`, because an evaluation takes "-1" for the junk of re-identification."""
    label = part.frame["label"]
    is_product = (label == JUNK_LABEL) & ~part.is_nobody
    return replace(part, frame=part.frame.assign(label=label.mask(is_product, part.frame["source"] + "/" + label)))


def camera_names(catalog: Catalog) -> np.ndarray:
    """The camera of each image, [N], object array of str, None where there is none.

    Where sets are put together a camera is `source/number`: camera 1 of one set is not camera 1 of another.
    """
    frame = catalog.frame
    names = frame["camera"].astype("str")
    if len(catalog.roots) > 1:
        names = frame["source"] + "/" + names
    camera_N = np.array(names, dtype=object)
    camera_N[frame["camera"].isna().to_numpy()] = None
    return camera_N


def embed_pictures(embedder: Embedder, catalog: Catalog, *, flip: bool = False, **options: Any) -> EmbeddingSet:
    """The embeddings of a catalog's images; with `flip` the mean of each picture's and its mirror image's.

    Args:
        embedder: see `embed_catalog`, as for the options.
        catalog: rows in any order.
        flip: doubles the cost.
        options: of `embed_catalog`.
    """
    plain = embed_catalog(embedder, catalog, **options)
    if not flip:
        return plain
    mirrored = embed_catalog(embedder, catalog, mirrored=True, **options)
    return replace(plain, embedding_ND=average_flip(plain.embedding_ND, mirrored.embedding_ND))


def evaluate_identification(queries: Embedded, gallery: Embedded, protocol: ReidProtocol) -> ReidResult:
    """The result of searching each query in the gallery, labels and cameras as the catalogs have them."""
    return evaluate_reid(
        queries.embedding_ND,
        gallery.embedding_ND,
        queries.catalog.labels,
        gallery.catalog.labels,
        camera_names(queries.catalog),
        camera_names(gallery.catalog),
        protocol,
    )


def evaluate_baseline(queries: Embedded, gallery: Embedded, protocol: ReidProtocol) -> ReidResult:
    """The same for embeddings that no trunk made: what the protocol records of a trunk is left out."""
    plain = replace(protocol, flip=False, neck="", input_size=None, camera_embedding=False)
    return evaluate_identification(queries, gallery, plain)


def named_embedders(first: str, more: str = "") -> dict[str, str]:
    """The trunk or folder of each embedder by its name, the first one first.

    Args:
        first: a trunk, or the folder of a saved embedder.
        more: several, comma-separated, each alone or as `name=...`. Without a name a trunk is called as it is, and a folder
            as `runs.folder.name_place` calls it.

    Raises:
        ValueError: a name stands twice.
    """
    found: dict[str, str] = {}
    for text in (first, *(part.strip() for part in more.split(",") if part.strip())):
        name, separator, place = (part.strip() for part in text.rpartition("="))
        if not separator:
            name = name_place(place)
        if not name or name in found:
            raise ValueError(
                f"Each embedder wants a name of its own (name=folder, ...); {name!r} stands twice or is empty."
            )
        found[name] = place
    return found


def cross_evaluate(
    embedders: Mapping[str, Embedder],
    plans: Mapping[str, IdentificationPlan],
    protocol: ReidProtocol,
    **options: Any,
) -> dict[tuple[str, str], ReidResult]:
    """The result of every embedder on every data set, by (embedder, data set), embedders outermost.

    Args:
        embedders: by name.
        plans: by the name of the data set; each follows its own junk rule.
        protocol: all other conventions; with `flip`, mirror images are averaged.
        options: of `embed_catalog`.
    """
    results = {}
    for name, embedder in embedders.items():
        for data, plan in plans.items():
            queries, gallery = (
                embed_pictures(embedder, part, flip=protocol.flip, **options) for part in (plan.queries, plan.gallery)
            )
            seen = replace(protocol, junk=plan.junk, input_size=embedder.preprocessing.image_size)
            results[name, data] = evaluate_identification(queries, gallery, seen)
    return results
