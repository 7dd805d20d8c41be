"""``bench tables``, ``report`` and ``show``: what is stored, as tables, as one page, and one result of it."""

from __future__ import annotations

import argparse
import sys

from bench.cli.options import add_shared


def add_tables(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="D", help="where the files go (default: tables/ in the results folder)")
    parser.add_argument(
        "--format", metavar="F", default="md,csv", help="of md, csv, latex, latex-intervals, html, bibtex (md,csv)"
    )
    parser.add_argument("--table", metavar="N", action="append", help="only this table; may be repeated")
    parser.add_argument("--rows", metavar="A,B", help="one table of your own: these stored rows, in this order")
    parser.add_argument("--datasets", metavar="X,Y", help="one table of your own: on these datasets")
    parser.add_argument("--name", metavar="N", default="chosen", help="of your table's files, and its label (chosen)")
    parser.add_argument("--caption", metavar="TEXT", default="", help="what your table shows")
    add_shared(parser, "--results", "--demo", "--draws", "--config", "--cards")


def tables(args: argparse.Namespace) -> int:
    from bench.paths import demo_hint
    from bench.report.frames import tables
    from bench.store.store import Store, limits

    own = {name: getattr(args, name) for name in ("rows", "datasets", "name", "caption")}
    kinds, known = args.format.split(","), (args.config, args.draws, args.cards)
    for file in tables(args.results, args.out, kinds, args.table, *known, **own):
        print(file)
    if not Store(args.results).cells() and not limits(args.results):
        found = f"nothing has been run yet in {args.results}: the tables hold published numbers only"
        print(found + demo_hint(args.results))
    return 0


def add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", metavar="FILE", help="the page to write (report.html in the results folder)")
    parser.add_argument(
        "--data-root", metavar="D", help="folder of all datasets: show image and label beside label maps that were kept"
    )
    add_shared(parser, "--results", "--demo", "--limit", "--draws", "--config", "--cards")


def report(args: argparse.Namespace) -> int:
    from bench.report.frames import html_report
    from bench.store.store import Store

    root, cells = args.data_root, Store(args.results, limit=args.limit).cells()
    if root is None and cells and all(cell.record.demo for cell in cells):
        from bench.demo.datasets import demo_data_root

        root = demo_data_root({cell.dataset for cell in cells})
    known = {"limit": args.limit, "draws": args.draws, "config": args.config, "cards": args.cards}
    out = html_report(args.results, args.out, **known, data_root=root)
    beside = out.with_name(f"{out.stem}_pictures")
    count = sum(file.is_file() for file in beside.glob("*"))
    print(f"{out}: {out.stat().st_size / 1e3:.0f} kB, open it in a browser")
    if count:
        print(f"{beside}: its {count} pictures, to be kept beside it")
    return 0


def add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("row", metavar="ROW", help="a stored row")
    parser.add_argument("dataset", metavar="DATASET", help="a dataset that it was evaluated on")
    add_shared(parser, "--results", "--demo", "--limit", "--config", "--cards")


def show(args: argparse.Namespace) -> int:
    from bench.report.details import Details, show
    from bench.report.scores import NothingStored

    try:
        print(show(args.row, args.dataset, args.results, args.limit, args.config, args.cards))
    except NothingStored:
        import pandas as pd

        from bench.config import load_config
        from bench.paths import demo_hint
        from bench.verify.doctor import before_run

        known = before_run(args.row, args.dataset, load_config(args.config), args.cards)
        if known is None:
            raise
        print(Details(known, pd.DataFrame()))
        if hint := demo_hint(args.results):
            print(f"bench: nothing is stored of {args.row} on {args.dataset} in {args.results}{hint}", file=sys.stderr)
        return 1
    return 0


COMMANDS = {"tables": (add_tables, tables), "report": (add_report, report), "show": (add_show, show)}
