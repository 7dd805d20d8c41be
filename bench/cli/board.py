"""``bench board``: check what others submit to a repository of results, and build its page."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.options import add_shared, positive
from bench.errors import BenchError, one_line
from bench.store.submission import SUBMISSIONS

if TYPE_CHECKING:
    from bench.verify.board import Board

_LONGEST = 1000  # characters of a line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="what", required=True, metavar="check|page")
    checking = commands.add_parser("check", help="say what is wrong with submissions; exit 1 where anything is")
    checking.add_argument("--since", metavar="REF", help="of git: only what changed since, which may be one submission")
    checking.add_argument("--by", metavar="NAME", help="who submits, and may change no other submission")
    checking.add_argument("--recount", type=positive, metavar="N", help="count N random images of each dataset again")
    add_shared(checking, "--data-root", "--device")
    page = commands.add_parser("page", help="write the page and its tables")
    page.add_argument("-o", "--out", default="site", metavar="D", help="folder to write to (site)")
    add_shared(page, "--draws")
    for command in (checking, page):
        command.add_argument("board", nargs="?", default=".", metavar="BOARD", help="the repository's folder (here)")
        command.add_argument("--demo", action="store_true", help="a board of results of the demo, to try it")


def main(args: argparse.Namespace) -> int:
    from bench.verify.board import Board

    board = Board(Path(args.board), args.demo)
    return _check(args, board) if args.what == "check" else _page(args, board)


def _check(args: argparse.Namespace, board: Board) -> int:
    from bench.verify.board import check
    from bench.verify.recount import Recount, recount

    only = None
    if args.since:
        only, faults = _changed(board.folder, args.since, args.by)
        if faults:
            print_faults(faults)
            return 1
    found = check(board, only)
    faults, said = found.faults, list[str]()
    if args.recount:
        wrong, said = recount(board, found.cells, Recount(args.recount, args.data_root, args.device))
        faults = faults + wrong
    for line in said:
        print(one_line(line))
    print_faults(faults)
    cells = sum(map(len, found.cells.values()))
    outcome = f"{len(faults)} faults" if faults else "nothing is wrong"
    print(f"{len(found.cells)} of {len(board.submissions)} submissions checked, {cells} readable cells: {outcome}")
    return 1 if faults else 0


def _changed(folder: Path, since: str, by: str | None) -> tuple[set[str], list[str]]:
    """Return the submissions that differ from a commit of git, and what else does, which no submission may change."""
    from bench.runtime.git import git
    from bench.store.submission import shown

    files = git(folder, "diff", "--name-only", "--no-renames", "-z", "--relative", f"{since}...HEAD").split("\0")
    names, faults = set(), []
    for file in filter(None, files):
        top, _, rest = file.partition("/")
        name, slash, _ = rest.partition("/")
        if top == SUBMISSIONS and slash and (by is None or name == by.lower()):
            names.add(name)
        else:
            belongs = f"is not {by}'s" if top == SUBMISSIONS and slash else "is no part of a submission"
            faults.append(f"{shown(file)}: {belongs}; a pull request with results changes one submission alone")
    if len(names) > 1:
        faults.append(f"{', '.join(map(shown, sorted(names)))}: several submissions; give each a pull request")
    return names, faults


def _page(args: argparse.Namespace, board: Board) -> int:
    from bench.report.frames import html_report, tables
    from bench.store.store import Store
    from bench.store.submission import gather, out_of_place

    for name, folder in board.submissions.items():
        for fault in out_of_place(folder):
            raise BenchError(f"{SUBMISSIONS}/{name}/{fault}")
    out = Path(args.out)
    with tempfile.TemporaryDirectory() as results:
        cells = gather(board.submissions, Store(results, demo=board.demo))
        given: dict[str, Any] = {"config": board.overlay, "draws": args.draws, "cards": board.cards}
        html_report(results, out / "index.html", **given)
        tables(results, out / "tables", **given)
    print(f"{out / 'index.html'}: {cells} cells of {len(board.submissions)} submissions, open it in a browser")
    return 0


def print_faults(faults: Sequence[str]) -> None:
    """Print what is wrong, a line each, which what it quotes cannot make long."""
    for fault in faults:
        print(one_line(fault)[:_LONGEST])
