"""The commands `recognise` and `gallery` of the command line: they open, call and say; `__main__` parses for them.

Answers go to standard output or a file, everything else to standard error, so that answers can be piped.
"""

import argparse
import os
import sys
from collections.abc import Callable

from workbench.data.images import QuarantineError
from workbench.data.inputs import gather_inputs
from workbench.models.embedder import Embedder
from workbench.retrieval.answers import check_out, csv_text, write_answers
from workbench.retrieval.gallery import Gallery
from workbench.retrieval.gallery_build import add_images, build_gallery, measure_again, remove_labels
from workbench.retrieval.gallery_measure import describe_gallery
from workbench.retrieval.recognise import check_fit, choose_acceptance, recognise

# From an embedder's name and its trunk's weights; handed in, because exported models lie a layer above.
OpenEmbedder = Callable[[str, str], Embedder]


def recognise_images(options: argparse.Namespace, open_embedder: OpenEmbedder) -> int:
    """Returns 0 when all inputs have an answer, 1 when some have none; the answers are written in both cases.

    Raises:
        ValueError: what is refused before anything is computed.
    """
    if options.out:
        check_out(options.out)
    inputs, notes = gather_inputs(options.images, options.data_root, options.split, options.domain)
    gallery = Gallery.load(options.gallery)
    acceptance, more = choose_acceptance(gallery, options.threshold, options.false_accepts)
    embedder = open_embedder(options.embedder, options.trunk_weights)
    notes += more + check_fit(embedder, gallery, options.embedder, str(options.gallery))
    if not gallery.about.get("calibration"):
        notes.append("the gallery keeps no calibration: the column probability is empty")
    _say(*(f"note: {note}" for note in notes), f"threshold {acceptance.threshold:.6g}: {acceptance.words}")
    answers = recognise(
        embedder,
        gallery,
        inputs,
        threshold=acceptance.threshold,
        top=options.top,
        unknown=options.unknown,
        batch_size=options.batch_size,
        device=options.device,
        progress=_say_progress,
    )
    if options.out:
        write_answers(answers, options.out)
    else:
        _hand_on(csv_text(answers))
    num_errors, num_unknown = int(answers["error"].notna().sum()), int((answers["decision"] == options.unknown).sum())
    _say(f"{len(answers):,} asked: {len(answers) - num_errors - num_unknown:,} known, {num_unknown:,} unknown")
    if num_errors:
        _say(f"{num_errors:,} of {len(answers):,} have no answer; the column error says why")
    return 1 if num_errors else 0


def change_gallery(options: argparse.Namespace, open_embedder: OpenEmbedder) -> int:
    """Returns 0 after `options.action` (build, add, remove, measure, show) and prints the gallery; 1 for too many bad images.

    Raises:
        ValueError: what is refused; the gallery stays as it was.
    """
    try:
        gallery, notes = _changed(options, open_embedder)
    except QuarantineError as error:
        _say(f"failed: {error}")
        return 1
    _say(*(f"note: {note}" for note in notes))
    _hand_on("\n".join(describe_gallery(gallery)) + "\n")
    return 0


def _changed(options: argparse.Namespace, open_embedder: OpenEmbedder) -> tuple[Gallery, list[str]]:
    if options.action == "show":
        return Gallery.load(options.gallery), []
    if options.action == "remove":
        return remove_labels(options.gallery, options.labels, options.comment)
    batches = {"batch_size": options.batch_size, "device": options.device}
    if options.action == "build":
        return build_gallery(
            open_embedder(options.embedder, options.trunk_weights),
            options.data,
            options.out,
            data_root=options.data_root,
            split=options.split,
            domain=options.domain,
            queries=options.queries,
            comment=options.comment,
            progress=_say_progress,
            **batches,
        )
    names = (options.embedder, str(options.gallery))
    if options.action == "measure":
        return measure_again(
            open_embedder(options.embedder, options.trunk_weights),
            options.gallery,
            data=options.data,
            data_root=options.data_root,
            queries=options.queries,
            progress=_say_progress,
            names=names,
            **batches,
        )
    inputs, notes = gather_inputs(options.images, options.data_root, options.split, options.domain)
    embedder = open_embedder(options.embedder, options.trunk_weights)
    gallery, more = add_images(
        embedder, options.gallery, inputs, label=options.label, comment=options.comment, names=names, **batches
    )
    return gallery, notes + more


def _say(*lines: str) -> None:
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.stderr.flush()


def _say_progress(done: int, total: int, images_per_s: float) -> None:
    _say(f"{done:,} of {total:,} images, {images_per_s:,.0f} images/s")


def _hand_on(text: str) -> None:
    """Writes UTF-8 to standard output, whatever the locale; a reader who has seen enough may go."""
    try:
        sys.stdout.buffer.write(text.encode("utf-8"))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
