"""A gallery with changes on trial: what they do to the same queries, before anything on disk is replaced.

Axes: Q queries, N references, D the embedding's width.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import numpy as np
import pandas as pd
from PIL import Image

from workbench.data.boxes import Box
from workbench.data.catalog import Catalog
from workbench.data.images import ImageError, Picture, load_image
from workbench.data.inputs import Input, gather_inputs
from workbench.models.embedder import Embedder
from workbench.models.patches import PatchMatch, match_pictures
from workbench.retrieval.embed import EmbeddingSet
from workbench.retrieval.embed_inputs import embed_all, embed_inputs
from workbench.retrieval.gallery import Gallery
from workbench.retrieval.gallery_build import save_version
from workbench.retrieval.gallery_change import GalleryChange, compare_galleries
from workbench.retrieval.gallery_measure import measure_gallery
from workbench.retrieval.leave_out import LeftOut, as_written, ask_queries
from workbench.retrieval.projection import Method, Projection, project
from workbench.retrieval.recognise import check_fit

MOST_POINTS = 20_000
"""What a browser draws and picks from without delay."""
_SHOWN_PX = 192


class GalleryTrial:
    """The gallery of a folder and a copy that is changed: references marked as bad leave it, new products join it.

    Nothing is trained and nothing on disk changes until `save`. Added references are found like all others at once. Where their
    pictures lie is saved with the gallery, in `about["pictures"]` by the reference's id, since a catalog may call another
    picture by the same name; the files stay where they are.

    Attributes:
        embedder: the one that made the gallery.
        folder: where `before` was loaded from.
        before: the gallery as it is on disk.
        gallery: the one with the changes.
        queries: embeddings of the queries that tell what a change does.
        notes: what `check_fit` had to say.
    """

    def __init__(
        self,
        embedder: Embedder,
        folder: Path,
        queries: EmbeddingSet,
        known: Catalog,
        *,
        projection: Method = "pca",
        queries_name: str = "",
        batch_size: int = 32,
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        """Loads the gallery.

        Args:
            embedder: moved to `device` when it embeds.
            folder: a gallery's.
            queries: embeddings by the same embedder.
            known: where the pictures of other references lie, by the names that the gallery keeps. A name that is not there
                is taken for a path; where no file lies there, the reference can be found but not shown.
            projection: how embeddings become a map, pca or umap.
            queries_name: what the queries are called when a saved gallery says what it was measured with.
            batch_size: images a forward pass.
            device: auto, cpu, cuda, ...
            seed: of the intervals' bootstrap.

        Raises:
            ValueError: no gallery, or one of another embedder.
        """
        self.embedder, self.folder, self.queries = embedder, folder, queries
        self.before, self.gallery = Gallery.load(folder), Gallery.load(folder)
        self.notes = check_fit(embedder, self.gallery, "given", str(folder))
        self._query_pictures = queries.catalog.pictures()
        self._pictures, self._domains = _by_name(known)
        self._added = _read_pictures(self.gallery.about.get("pictures") or {})
        self._queries_name, self._options, self._seed = queries_name, {"batch_size": batch_size, "device": device}, seed
        self._method: Method = projection
        self._kept: tuple[int, dict[str, pd.DataFrame]] = (-1, {})
        self._map: tuple[Projection, dict[int, np.ndarray]] | None = None

    @property
    def references(self) -> pd.DataFrame:
        """Returns one row a reference of the changed gallery, index the id: `label`, `name`, `row` (its place in the arrays)."""

        def number() -> pd.DataFrame:
            table = self.gallery.references.set_index("reference")
            return table.assign(row=np.arange(len(table)))

        return self._once("references", number)

    def find(self, query_D: np.ndarray, k: int) -> pd.DataFrame:
        """Returns the `k` nearest references, nearest first: `reference` (id), `label`, `name`, `similarity` (cosine, as written).

        All of them where the gallery has fewer.
        """
        matches = self.gallery.search(np.asarray(query_D)[None], k)
        found = self.references.loc[matches.reference_QK[0], ["label", "name"]].reset_index()
        return found.assign(similarity=as_written(matches.similarity_QK[0]))

    def embed(self, path: Path) -> np.ndarray:
        """Returns the embedding of a picture's file, float32 [D].

        Raises:
            ImageError: it is not there or cannot be decoded, and why.
        """
        (batch,) = embed_inputs(self.embedder, [Input(path, str(path))], **self._options)  # type: ignore[arg-type]
        if batch.errors:
            raise ImageError(path.name, batch.errors[0])
        return np.asarray(batch.embedding_BD[0])

    def query_embedding(self, row: int) -> np.ndarray:
        """Returns the embedding of a query, float32 [D]."""
        return np.asarray(self.queries.embedding_ND[row])

    def answers(self) -> pd.DataFrame:
        """Returns one row a query: `label`, `domain`, `name`, `answer` (label of the nearest reference, of equal ones the oldest),
        `reference` (its id), `similarity` (as written), `is_known` (its label has a reference), `is_right`. Searched once for each version.
        """
        return self._once("answers", self._search)

    def _once(self, name: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """What `make` gives, made once for each version of the changed gallery."""
        if self._kept[0] != self.gallery.version:
            self._kept = self.gallery.version, {}
        tables = self._kept[1]
        if name not in tables:
            tables[name] = make()
        return tables[name]

    def _search(self) -> pd.DataFrame:
        frame, matches = self.queries.catalog.frame, self.gallery.search(self.queries.embedding_ND, 1)
        answers = pd.DataFrame(
            {
                "label": frame["label"].astype("str"),
                "domain": frame["domain"].astype("str"),
                "name": self.queries.catalog.names().astype(str),
                "answer": matches.label_QK[:, 0].astype(str),
                "reference": matches.reference_QK[:, 0],
                "similarity": as_written(matches.similarity_QK[:, 0]),
            }
        )
        is_known = answers["label"].isin(self.gallery.labels)
        return answers.assign(is_known=is_known, is_right=answers["label"] == answers["answer"])

    def points(self) -> tuple[pd.DataFrame, str]:
        """Returns the map, a row a point, references first, and words about its axes.

        At most 20,000 points, a random part of more, the queries kept as far as they take no more than half. Columns: `x`, `y`,
        `kind` (reference; right, wrong or absent for a query: absent has no reference of its label), `number` (a reference's id,
        a query's row), `label`, `domain` ("not known" for a reference that no catalog knows), `answer` (label of a query's nearest
        reference, "" for a reference). The map is made once; references that join later get their place in it.
        """
        references, answers = self.references, self.answers()
        if self._map is None:
            projection = project(
                np.concatenate([self.gallery.view_ND, self.queries.embedding_ND]), self._method, self._seed
            )
            self._map = projection, dict(zip(references.index, projection.xy_N2[: len(references)], strict=True))
            self._query_xy_Q2 = projection.xy_N2[len(references) :]
        projection, place_of = self._map
        fresh = [reference for reference in references.index if reference not in place_of]
        if fresh:
            rows = references.loc[fresh, "row"].to_numpy()
            place_of |= dict(zip(fresh, projection.place(self.gallery.view_ND[rows]), strict=True))
        kind = np.where(answers["is_right"], "right", np.where(answers["is_known"], "wrong", "absent"))
        xy_N2 = np.concatenate([np.stack([place_of[one] for one in references.index]), self._query_xy_Q2])
        domains = [
            "added" if one in self._added else self._domains.get(name, "not known")
            for one, name in references["name"].items()
        ]
        points = pd.DataFrame(
            {
                "x": xy_N2[:, 0],
                "y": xy_N2[:, 1],
                "kind": np.concatenate([np.repeat("reference", len(references)), kind]).astype(str),
                "number": np.concatenate([references.index, np.arange(len(answers))]),
                "label": [*references["label"], *answers["label"]],
                "domain": [*domains, *answers["domain"]],
                "answer": [*[""] * len(references), *answers["answer"]],
            }
        )
        kept = thin_points(len(references), len(answers), MOST_POINTS, self._seed)
        part = (
            "" if len(kept) == len(points) else f". {len(kept):,} of {len(points):,} points are shown, drawn at random"
        )
        return points.iloc[kept].reset_index(drop=True), projection.words + part

    def left_out(self) -> LeftOut:
        """Returns what the changed gallery answers to the queries, with their label in it and without."""
        labels = self.queries.catalog.labels.tolist()
        return ask_queries(
            self.queries.embedding_ND, labels, self.gallery.embedding_ND, self.gallery.references["label"].tolist()
        )

    def reference_picture(self, reference: int) -> Image.Image:
        """Returns what a reference shows, its shorter side at least 192 px where the file has as many.

        Raises:
            ImageError: it is not known where its picture lies, or it cannot be decoded.
        """
        if reference not in self.references.index:
            raise ImageError(f"reference {reference}", "it is not in the gallery any more")
        name = str(self.references.loc[reference, "name"])
        picture = self._added.get(reference) or self._pictures.get(name)  # its own first: names are not unique
        if picture is None and os.path.isfile(name):
            picture = Picture(Path(name))
        if picture is None:
            raise ImageError(name or f"reference {reference}", "nothing says where its picture lies")
        return load_image(picture, target_px=_SHOWN_PX)

    def query_picture(self, row: int) -> Image.Image:
        """Returns what a query shows, decoded as `reference_picture` decodes.

        Raises:
            ImageError: it cannot be decoded any more.
        """
        return load_image(self._query_pictures[row], target_px=_SHOWN_PX)

    def match(self, query: Image.Image, reference: Image.Image) -> tuple[PatchMatch, np.ndarray, np.ndarray, str]:
        """Returns which parts of two pictures match: see `patches.match_pictures`."""
        return match_pictures(self.embedder, query, reference, str(self._options["device"]))

    def mark_bad(self, references: Sequence[int], why: str = "marked as bad") -> None:
        """Takes references out of the changed gallery.

        Raises:
            ValueError: no reference of that id, or nothing would be left; nothing is changed.
        """
        if len(set(references)) >= len(self.gallery):
            raise ValueError("Nothing would be left in the gallery; keep at least one reference.")
        try:
            self.gallery.remove_references(references, why)
        except KeyError as error:
            raise ValueError(str(error.args[0])) from error

    def add_folder(self, folder: str, label: str, why: str = "") -> list[str]:
        """Adds the pictures of a folder (or one picture) as references of `label`, all or none; returns notes.

        Raises:
            ValueError: no label, nothing there, or a picture that cannot be used; nothing is changed.
        """
        if not label.strip():
            raise ValueError("Give the label of the new product; it may be one that the gallery has.")
        if not folder.strip():
            raise ValueError("Give the folder that holds the pictures of the new product.")
        inputs, notes = gather_inputs([folder.strip()])
        return notes + self.add_inputs(inputs, label, why or f"added from {folder.strip()}")

    def add_inputs(self, inputs: Sequence[Input], label: str, why: str = "") -> list[str]:
        """Adds pictures, or boxes of pictures, as references of `label`, all or none; returns notes.

        Raises:
            ValueError: a picture that cannot be used; nothing is changed.
        """
        embedding_ND, notes = embed_all(self.embedder, inputs, **self._options)  # type: ignore[arg-type]
        added = self.gallery.extend(embedding_ND, [label.strip()] * len(inputs), [one.name for one in inputs], why)
        pictures = [Picture(one.path, one.box) for one in inputs]
        self._added |= dict(zip(added.tolist(), pictures, strict=True))
        return notes

    def undo(self) -> None:
        """Forgets the changes.

        Raises:
            ValueError: the gallery in the folder was changed by somebody else meanwhile, or is not there any more.
        """
        fresh = Gallery.load(self.folder)
        if fresh.version != self.before.version:
            raise ValueError(f"The gallery in {self.folder} was changed meanwhile: start the exploration anew.")
        self.gallery, self._kept = fresh, (-1, {})
        there = set(self.references.index)  # the ids of what was added may be given to other references now
        self._added = {one: picture for one, picture in self._added.items() if one in there}
        if self._map is not None:
            self._map = self._map[0], {one: place for one, place in self._map[1].items() if one in there}

    def measured(self) -> list[tuple[str, float]]:
        """Returns thresholds that were measured for rates of false accepts, each with words; none of the gallery as it is now.

        A changed gallery has none until `save` measures it.
        """
        measured = self.gallery.about.get("measured") or {}
        if measured.get("version") != self.gallery.version:
            return []
        return [
            (f"{100 * one['rate']:.4g} % false accepts: {one['threshold']:.4f}", float(one["threshold"]))
            for one in measured["false_accepts"]
        ]

    def change(self) -> GalleryChange:
        """Returns what the changes do to the answers of the queries; see `gallery_change.compare_galleries` for its errors."""
        queries = self.queries
        return compare_galleries(self.before, self.gallery, queries.embedding_ND, queries.catalog.labels, self._seed)

    def save(self, folder: Path | None = None) -> str:
        """Measures the changed gallery with the queries, saves it as a new version and goes on from there; returns a line.

        Args:
            folder: None replaces the gallery that was loaded, in one step; its history keeps both. Else a folder that
                holds no gallery.

        Raises:
            ValueError: nothing was changed, or there is another gallery than the one that was loaded.
            OSError: it cannot be written; the gallery that was there stays.
        """
        target = folder or self.folder
        if self.gallery.version == self.before.version and target == self.folder:
            raise ValueError("There is no change to save.")
        measure_gallery(self.gallery, self.queries, self._queries_name)
        if self._added:
            there = set(self.references.index)
            self.gallery.about["pictures"] = _as_json({one: own for one, own in self._added.items() if one in there})
        since = self.before.version if target == self.folder else -1
        save_version(self.gallery, target, since)
        self.folder, self.before = target, Gallery.load(target)
        return f"Saved to {target}: version {self.before.version}, {len(self.before):,} references of {len(self.before.labels):,} labels."


def thin_points(num_references: int, num_queries: int, most: int, seed: int) -> np.ndarray:
    """Returns which of the points (references, then queries) a map shows, ascending; all where they are at most `most`.

    Queries keep their place as far as they take no more than half, or than the references leave; the rest is drawn at random.
    """
    if num_references + num_queries <= most:
        return np.arange(num_references + num_queries)
    queries = min(num_queries, max(most // 2, most - num_references))
    rng = np.random.default_rng(seed)
    kept = rng.choice(num_references, most - queries, replace=False)
    return np.sort(np.concatenate([kept, num_references + rng.choice(num_queries, queries, replace=False)]))


def _by_name(known: Catalog) -> tuple[dict[str, Picture], dict[str, str]]:
    """Picture and domain of each row by its name, and by source and name, as galleries of several sets keep it."""
    pictures, domains = {}, {}
    rows = zip(known.frame["source"], known.names(), known.pictures(), known.frame["domain"], strict=True)
    for source, name, picture, domain in rows:
        for key in (str(name), f"{source}/{name}"):
            pictures[key], domains[key] = picture, str(domain)
    return pictures, domains


def _as_json(pictures: dict[int, Picture]) -> dict[str, list[Any]]:
    """By id: the absolute path, percent-encoded, since a path need not be UTF-8, and the box's numbers or None."""
    return {
        str(one): [
            quote_from_bytes(os.fsencode(picture.path.absolute())),
            None if picture.box is None else [float(number) for number in picture.box],
        ]
        for one, picture in pictures.items()
    }


def _read_pictures(kept: dict[str, list[Any]]) -> dict[int, Picture]:
    """What `_as_json` wrote."""
    return {
        int(one): Picture(Path(os.fsdecode(unquote_to_bytes(path))), None if box is None else Box(*box))
        for one, (path, box) in kept.items()
    }
