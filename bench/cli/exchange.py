"""``bench export``, ``import``, ``push``, ``pull`` and ``submit``: stored results as archives, and in repositories."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.cli.options import add_shared
from bench.errors import BenchError
from bench.paths import DEMO_RESULTS


def add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.zip", help="the archive to write")
    add_shared(parser, "--methods", "--datasets", "--results", "--demo", "--limit")


def export(args: argparse.Namespace) -> int:
    cells = _export(args, Path(args.file))
    print(f"{args.file}: {cells} cells, {Path(args.file).stat().st_size / 1e6:.1f} MB")
    return 0


def add_push(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("repository", metavar="OWNER/NAME", help="a dataset repository; made if it is not there")
    parser.add_argument("--name", default="results", metavar="N", help="of the archive in the repository (results)")
    parser.add_argument("--private", action="store_true", help="if the repository is made, only you see it")
    add_shared(parser, "--methods", "--datasets", "--results", "--demo", "--limit")


def push(args: argparse.Namespace) -> int:
    from bench.store.hub import push

    if "/" in args.name or args.name in ("", ".", ".."):
        raise BenchError(f"--name {args.name}: a plain name is needed, without slashes")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{args.name}.zip"
        cells = _export(args, file)
        print(f"{cells} cells: {push(file, args.repository, args.name, args.private)}")
    return 0


def _export(args: argparse.Namespace, file: Path) -> int:
    """Write the results that the flags choose to an archive; return how many cells these are."""
    from bench.errors import listed
    from bench.store.bundle import chosen, export
    from bench.store.store import Store

    store = Store(args.results, limit=args.limit)
    return len(
        export(store, file, chosen(store, listed(args.methods, "--methods"), listed(args.datasets, "--datasets")))
    )


def add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.zip", help="an archive of `bench export`")
    _add_target(parser)


def add_pull(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("repository", metavar="OWNER/NAME", help="a dataset repository of Hugging Face")
    parser.add_argument("--name", metavar="N", help="one archive (default: all that are there)")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit (main)")
    _add_target(parser)


def pull(args: argparse.Namespace) -> int:
    from bench.store.hub import pull

    return _take(args, pull(args.repository, args.name, args.revision))


def _add_target(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say where results go."""
    parser.add_argument("--results", metavar="D", help=f"results folder (results, of the demo {DEMO_RESULTS})")
    add_shared(parser, "--limit")
    parser.add_argument("--demo", action="store_true", help="results of the demo")
    parser.add_argument("--replace", action="store_true", help="also where other results are there")


def _take(args: argparse.Namespace, files: Sequence[Path]) -> int:
    """Take in the results of these archives and print them."""
    from bench.store.bundle import take_in
    from bench.store.store import Store

    folder = args.results or (DEMO_RESULTS if args.demo else "results")
    store = Store(folder, limit=args.limit, demo=args.demo)
    with store.lock():
        records = take_in(store, files, args.replace)
    for record in records:
        print(f"{record.row} on {record.dataset}: {record.status}, written {record.written}")
    print(f"{len(records)} cells in {folder}; `bench tables --results {folder}` shows them")
    return 0


def add_submit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("board", metavar="BOARD", help="your clone of the board's repository")
    parser.add_argument("--name", required=True, metavar="N", help="of your account, by which the board knows you")
    add_shared(parser, "--methods", "--datasets", "--results", "--demo", "--plugin", "--cards", "--config")


def submit(args: argparse.Namespace) -> int:
    from bench.cli.board import print_faults
    from bench.config import load_config
    from bench.errors import listed
    from bench.store.bundle import chosen
    from bench.store.store import Store
    from bench.verify.submit import Own, submit

    store = Store(args.results)
    wanted = chosen(store, listed(args.methods, "--methods"), listed(args.datasets, "--datasets"))
    own = Own([Path(one) for one in args.plugin], args.cards, load_config(args.config))
    done = submit(Path(args.board), args.name, store, wanted, own)
    if done.faults:
        print_faults(done.faults)
        return 1
    print(f"{done.cells} cells, {done.bytes / 1e6:.1f} MB, are a commit on the branch {done.branch}")
    print(f"next: git -C {args.board} push -u origin {done.branch}, then open a pull request from it")
    return 0


COMMANDS = {
    "export": (add_export, export),
    "import": (add_import, lambda args: _take(args, [Path(args.file)])),
    "push": (add_push, push),
    "pull": (add_pull, pull),
    "submit": (add_submit, submit),
}
