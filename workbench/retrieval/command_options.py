"""The options of the commands `recognise` and `gallery`: light, so that the command line's help needs no torch."""

import argparse
from collections.abc import Callable
from pathlib import Path


def positive(kind: type[int] | type[float]) -> Callable[[str], int | float]:
    """Returns a reader of numbers above 0, for argparse."""

    def number(text: str) -> int | float:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"wanted a number above 0, found {text}")
        return value

    return number


def add_options(
    asked: argparse.ArgumentParser,
    build: argparse.ArgumentParser,
    extend: argparse.ArgumentParser,
    remove: argparse.ArgumentParser,
    measure: argparse.ArgumentParser,
    show: argparse.ArgumentParser,
) -> None:
    """Adds the options of `recognise` (asked) and of `gallery` build, add (extend), remove, measure and show."""
    for child in (asked, build, extend, measure):
        child.add_argument("--embedder", required=True, metavar="FOLDER|TRUNK", help="the one that makes the gallery")
        child.add_argument(
            "--trunk-weights", default="pretrained", metavar="W", help="of a trunk: pretrained, random, FILE"
        )
        child.add_argument(
            "--batch-size", type=positive(int), default=32, metavar="N", help="images a forward pass (32)"
        )
        child.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:1, ...")
        child.add_argument("--data-root", type=Path, metavar="DIR", help="where a set lies, or a table's paths start")
    for child in (asked, extend, remove, measure, show):
        child.add_argument("--gallery", required=True, type=Path, metavar="FOLDER")
    for child in (asked, build, extend):
        child.add_argument("--split", default="", metavar="S", help="of a card's images")
        child.add_argument("--domain", default="", metavar="D", help="of a card's images")
    for child in (build, extend, remove):
        child.add_argument("--comment", default="", metavar="TEXT", help="why, for the gallery's history")
    for child in (build, measure):
        child.add_argument("--data", required=child is build, default="", metavar="NAME", help="a data card")
        child.add_argument(
            "--queries", default="", metavar="SPLIT[:DOMAIN]", help="measure with these (the references)"
        )
    pictures = "files, folders, tables (.csv, .parquet: path, x, y, width, height in px, label), cards"
    for child in (asked, extend):
        child.add_argument("images", nargs="+", metavar="IMAGES", help=pictures)
    asked.add_argument("--out", type=Path, metavar="FILE", help="FILE.csv, .jsonl or .parquet (CSV to standard output)")
    asked.add_argument("--top", type=positive(int), default=5, metavar="K", help="labels an image (5)")
    limit = asked.add_mutually_exclusive_group()
    limit.add_argument("--threshold", type=float, metavar="T", help="accept above this cosine; -1 accepts everything")
    rate = "share of unknown products that may be accepted, as measured on the gallery (0.01)"
    limit.add_argument("--false-accepts", type=float, metavar="F", help=rate)
    asked.add_argument("--unknown", default="unknown", metavar="WORD", help="the decision where nothing is accepted")
    build.add_argument("--out", required=True, type=Path, metavar="FOLDER")
    extend.add_argument("--label", default="", metavar="L", help="of all these pictures; else the column label")
    remove.add_argument("labels", nargs="+", metavar="LABEL")
