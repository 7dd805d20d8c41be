"""``bench datasets``: what is on disk; ``check``: whether it is right; ``new``: a card; ``clean``; ``schema``."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.options import add_shared
from bench.cli.words import read_classes
from bench.errors import BenchError, did_you_mean
from bench.runtime.room import size_text

if TYPE_CHECKING:
    from bench.data.cards import Card
    from bench.data.check import Report


ACTIONS = ("list", "check", "show", "cite", "new", "clean", "schema")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        nargs="?",
        metavar="ACTION",
        default="list",
        help="list (default) or check datasets, show: write a page of images with their labels laid over them, "
        "cite: print BibTeX of datasets, or of those that --results holds, "
        "new: write the card of a folder with images and labels, clean: delete copies of archives, "
        "schema: print what a card may say",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="datasets; `all` means those on disk; new: NAME FOLDER"
    )
    parser.add_argument(
        "--classes",
        metavar="WORDS",
        help="new: 'background; building, house' or a text file, in the order of the labels' values",
    )
    parser.add_argument(
        "--ignore", metavar="V,…", help="new: values of the labels that are no class, such as 0 or ffffff"
    )
    parser.add_argument("--all", action="store_true", help="check every image and label, not a sample of them")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--out", metavar="FILE", help="show: where the page goes (NAME.html)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that decode for check (0: none)")
    add_shared(parser, "--layout", "--data-root", "--results", "--cards")


def main(args: argparse.Namespace) -> int:
    from bench.data.archives import clean
    from bench.data.cards import card_names, card_schema, load_card
    from bench.data.inventory import datasets_table, look
    from bench.paths import cache_dir, data_root

    root = data_root(args.data_root)
    if args.action not in ACTIONS:
        known = [*ACTIONS, *card_names(args.cards)]
        hint = (
            f"did you mean `datasets check {args.action}`?"
            if args.action in known
            else did_you_mean(args.action, ACTIONS)
        )
        raise BenchError(f"datasets: unknown action '{args.action}'; {hint}")
    if args.action == "schema":
        print(json.dumps(card_schema(), indent=2))
        return 0
    if args.action == "new":
        return _new(args, root)
    if args.action == "clean":
        files, size = clean()
        print(f"{cache_dir() / 'archives'}: {files} files deleted, {size_text(size)}")
        return 0
    if args.action == "cite":
        return _cite(args)
    if args.action == "show":
        return _write_sheets(_cards(args, root), root, args)
    if args.action == "check":
        return _check(_cards(args, root), root, args)
    entries = [look(load_card(name, args.cards), root) for name in args.names or card_names(args.cards)]
    if args.json:
        print(json.dumps([dataclasses.asdict(entry) for entry in entries], indent=2))
    else:
        print(datasets_table(entries, wide=True))
        print(f"\nlooked in {root.resolve()}; `bench download NAME` fetches a dataset or tells how to get it")
    return 0 if all(entry.state == "found" for entry in entries) else 1


def _new(args: argparse.Namespace, root: Path) -> int:
    from tabulate import tabulate

    from bench.data.new_card import new_card, spelled
    from bench.errors import listed

    if len(args.names) != 2:
        raise BenchError("datasets new: give a name and a folder, as in `datasets new mytown ~/mytown`")
    cards, folder = Path(args.cards[0] if args.cards else "cards"), Path(args.names[1]).expanduser()
    words = [part.split(",") for part in read_classes(args.classes).words.split(";")] if args.classes else []
    classes = [[word.strip() for word in part if word.strip()] for part in words]
    card, found = new_card(args.names[0], cards, folder, root, classes, listed(args.ignore, "--ignore") or ())
    file = cards / f"{card.name}.yaml"
    print(f"{file}: {len(found.pairs):,} images, {found.image} with labels {found.label}")
    print(f"sizes: {', '.join(f'{size} ({count:,})' for size, count in found.sizes.most_common(5))}\n")
    names = dict(zip(found.classes, card.classes, strict=True))
    lines = [
        (spelled(value), found.share(value), f"{found.present[value]:,}", names.get(value, "ignored"))
        for value in [*found.classes, *(value for value in found.pixels if value not in names)]
    ]
    heads = ["value", "of the pixels", f"in labels (of {found.looked_at:,})", "class"]
    print(tabulate(lines, headers=heads, colalign=("left", "right", "right", "left"), disable_numparse=True))
    for text in found.assumed():
        print(f"\nnote: {text}")
    where = f"--cards {cards}" + (f" --data-root {args.data_root}" if args.data_root else "")
    print(f"\nnext:{'' if classes else f' name the classes in {file}, then'}")
    print(f"  python -m bench datasets check {card.name} {where}")
    print(f"  python -m bench run --methods segearth-ov,clip --datasets {card.name} {where}")
    return 0


def _cards(args: argparse.Namespace, root: Path) -> list[Card]:
    from bench.data.cards import card_names, load_card
    from bench.data.inventory import look

    if args.names != ["all"]:
        if not args.names:
            raise BenchError(f"datasets {args.action}: name the datasets to {args.action}, or `all` for those on disk")
        return [load_card(name, args.cards) for name in args.names]
    cards = [load_card(name, args.cards) for name in card_names(args.cards)]
    states = [look(card, root) for card in cards]
    whole = {one.folder for one in states if one.state == "found"}  # which another card may read in another way
    found = [
        card
        for card, one in zip(cards, states, strict=True)
        if one.state == "found" or (one.state == "incomplete" and one.folder not in whole)
    ]
    if not found:
        raise BenchError(f"datasets {args.action} all: no dataset in {root}; give the folder with --data-root")
    return found


def _cite(args: argparse.Namespace) -> int:
    from bench.data.cards import load_card
    from bench.data.citations import bibtex
    from bench.store.store import Store

    names = args.names or list(dict.fromkeys(cell.dataset for cell in Store(Path(args.results)).cells()))
    if not names:
        raise BenchError(f"datasets cite: {args.results} holds no results; name datasets, or give --results")
    print(bibtex(load_card(name, args.cards) for name in names))
    return 0


def _write_sheets(cards: Sequence[Card], root: Path, args: argparse.Namespace) -> int:
    from bench.data.prepared import find_samples
    from bench.data.sheet import sheet
    from bench.runtime.atomic import write_asked

    for card in cards:
        file = Path(args.out or f"{card.name}.html")
        write_asked(file, sheet(find_samples(card, root, args.layout)).encode(), f"--out {file}")
        print(f"{file}: images of {card.name} with their labels, and the shares of its classes")
    return 0


def _check(cards: Sequence[Card], root: Path, args: argparse.Namespace) -> int:
    from bench.data.check import check
    from bench.data.doubts import keep_shares

    reports = []
    for card in cards:
        reports.append(check(card, root, args.all, args.layout, args.workers))
        kept = keep_shares(card, [*reports[-1].pixels.values()]) if reports[-1].whole else None
        if not args.json:
            _show(reports[-1])
            if kept:
                print(
                    f"{kept}: shares of the classes of a whole copy, which other copies are compared with; share it\n"
                )
    if args.json:
        print(json.dumps([{**dataclasses.asdict(report), "healthy": report.healthy} for report in reports], indent=2))
    return 0 if all(report.healthy for report in reports) else 1


def _show(report: Report) -> None:
    from tabulate import tabulate

    print(f"{report.name}: {'fine' if report.healthy else 'something is wrong'}")
    if report.layout:
        shards = ", prepared shards" if report.prepared else ""
        print(
            f"  {report.folder} (layout {report.layout}{shards}), {report.images:,} images, "
            f"{report.checked:,} looked at"
        )
        print(f"  sizes: {', '.join(f'{size} ({count:,})' for size, count in list(report.sizes.items())[:5])}")
        print(f"  fingerprints: files {report.files}, labels looked at {report.labels}\n")
        total = max(1, sum(report.pixels.values()) + sum(report.beyond.values()))
        rows = [(name, f"{pixels / total:.2%}", f"{report.present[name]:,}") for name, pixels in report.pixels.items()]
        print(tabulate(rows, headers=["class", "of the pixels", "in images"], colalign=("left", "right", "right")))
        print(f"  and {report.ignored:,} ignored pixels")
    for problem in report.problems:
        what = f"{problem.where}: {problem.what}" if problem.where else problem.what
        print(f"  {problem.severity}: {what.removesuffix('.')}; {problem.advice}")
    print()
