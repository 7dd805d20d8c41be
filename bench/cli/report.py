"""``bench report``: everything that is stored as one page for a browser."""

from __future__ import annotations

import argparse

from bench.cli.options import add_shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", metavar="FILE", help="the page to write (report.html in the results folder)")
    add_shared(parser, "--results", "--demo", "--limit", "--draws", "--config", "--cards")


def main(args: argparse.Namespace) -> int:
    from bench.report.frames import html_report

    out = html_report(args.results, args.out, limit=args.limit, draws=args.draws, config=args.config, cards=args.cards)
    print(f"{out}: {out.stat().st_size / 1e3:.0f} kB, open it in a browser")
    return 0
