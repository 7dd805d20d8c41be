"""``bench verify``: compare this machine with stored outputs, or two result folders; try intervals and tests."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.cli.options import add_shared, positive, write_json

if TYPE_CHECKING:
    from bench.store.store import Store
    from bench.verify.demo import Moved
    from bench.verify.goldens import Check


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what",
        nargs="*",
        metavar="goldens|demo|statistics|A B",
        help="goldens: outputs of the released code; demo: cells of the demo, on the CPU or a device (default: both); "
        "statistics: how often intervals hold the truth and tests find nothing where there is nothing, a minute; "
        "A B: two result folders, or two submissions of a board: how far their runs of the same cells are apart",
    )
    parser.add_argument("--all", action="store_true", help="all cells of the demo: minutes")
    parser.add_argument("--write", action="store_true", help="make the run of all cells the demo's reference")
    parser.add_argument("--trials", type=positive, default=1000, metavar="N", help="of `statistics` (1000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of `statistics` (0)")
    add_shared(parser, "--device", "--dtype", "--batch", "--json")


def main(args: argparse.Namespace) -> int:
    if len(args.what) == 2:
        return _folders(args)
    args.what = _one_of(args.what)
    if args.what == "statistics":
        return _statistics(args)
    from bench.runtime.device import choose_device
    from bench.runtime.provenance import provenance

    device = choose_device(args.device, args.dtype)
    facts = provenance()
    print(f"{device}, {args.dtype}, batch {args.batch}")
    print(", ".join(f"{name} {value}" for name, value in facts.items() if name not in ("host", "datasets", "pyarrow")))
    found: dict[str, Any] = {"device": device, "dtype": args.dtype, "batch": args.batch, "made_with": facts}
    good = True
    if args.what in (None, "goldens") and not args.write:
        from bench.verify.goldens import compare

        checks = compare(device, args.dtype, args.batch)
        good &= _show_goldens(checks)
        found["goldens"] = [{**vars(check), "good": check.good} for check in checks]
    if args.what in (None, "demo") or args.write:
        moved = _demo(args, device)
        good &= _show_demo(moved, args.dtype)
        found["demo"] = [cell._asdict() for cell in moved]
    write_json(args.json, found)
    return 0 if good else 1


def _one_of(words: Sequence[str]) -> str | None:
    """Return what is to be verified; None for goldens and demo. BenchError for what is neither that nor two folders."""
    from bench.errors import BenchError, check_known

    if len(words) > 2:
        raise BenchError(f"verify {' '.join(words)}: give one thing to verify, or two result folders")
    for word in words:
        check_known(word, ("goldens", "demo", "statistics"), f"verify: '{word}' is nothing to verify, or half of A B")
    return words[0] if words else None


def _folders(args: argparse.Namespace) -> int:
    """Say how far the runs of the same cells in two result folders are apart."""
    from tabulate import tabulate

    from bench.errors import BenchError
    from bench.store.agreement import agreements

    stores = [_stores(folder) for folder in args.what]
    found = agreements(*([cell for store in these for cell in store.cells() if not cell.damage] for these in stores))
    if not found:
        raise BenchError(f"{' and '.join(args.what)}: no row on a dataset is in both; run the same rows in both")
    heads = ["row", "dataset", "images", "A", "B", "points apart", ""]
    lines = []
    for one in found:
        numbers = (100 * one.first, 100 * one.second, one.points)
        scores = ["–" if number != number else f"{number:.2f}" for number in numbers]
        words = "; ".join([one.words, *(one.machines if one.bins else ())])
        lines.append([one.row, one.dataset, f"{one.images:,}", *scores, words])
    print(tabulate(lines, heads, disable_numparse=True))
    apart = sum(not one.good for one in found)
    print(f"\n{len(found)} cells are in both; {apart} are further apart than machines are")
    write_json(args.json, [{**one._asdict(), "points": one.points, "good": one.good} for one in found])
    return 1 if apart else 0


def _stores(folder: str) -> list[Store]:
    """Return the stores of full and limited results in a folder. BenchError where it is none."""
    from pathlib import Path

    from bench.errors import BenchError
    from bench.store.store import Store, limits

    if not Path(folder).is_dir():
        raise BenchError(f"{folder}: no such folder; give two result folders")
    return [Store(folder, limit=limit) for limit in (None, *limits(folder))]


def _statistics(args: argparse.Namespace) -> int:
    from tabulate import tabulate

    from bench.verify.statistics import good, simulate

    lines = list(simulate(args.trials, args.seed))
    heads = ["world", "scenes", "row covered", "± points", "pair covered", "± points", "false positives"]
    shares = [(line.row, line.half_row, line.pair, line.half_pair, line.false_positives) for line in lines]
    texts = [["–" if share != share else f"{100 * share:.1f}" for share in of_line] for of_line in shares]
    cells = [[line.world, line.scenes, *text] for line, text in zip(lines, texts, strict=True)]
    print(f"Per cent of {args.trials} trials: 95 % intervals that hold the truth, and p <= 0.05 of equally good rows\n")
    print(tabulate(cells, heads, tablefmt="pipe", disable_numparse=True))
    write_json(args.json, [line._asdict() for line in lines])
    return 0 if all(good(line, args.trials) for line in lines) else 1


def _show_goldens(checks: list[Check]) -> bool:
    from tabulate import tabulate

    lines = [
        [
            check.what,
            f"{check.found:.3g}",
            f"{check.bound:.3g}",
            check.unit,
            check.worst,
            "ok" if check.good else "TOO FAR",
        ]
        for check in checks
    ]
    print("\nOutputs of the released code, and this project's on the same weights, against this machine's\n")
    print(tabulate(lines, headers=["what", "found", "bound", "unit", "worst", ""], disable_numparse=True))
    return all(check.good for check in checks)


def _demo(args: argparse.Namespace, device: str) -> list[Moved]:
    """Run cells of the demo in a temporary folder and compare them with the reference."""
    import tempfile

    from bench.errors import BenchError
    from bench.notebook import run
    from bench.paths import shipped
    from bench.store.store import Store
    from bench.verify.demo import A_FEW, compare, write_reference

    plan = {"all": ("all",)} if args.all or args.write else A_FEW
    with tempfile.TemporaryDirectory() as folder:
        for dataset, rows in plan.items():
            options = {"device": device, "dtype": args.dtype, "batch": args.batch}
            found = run(rows, dataset, demo=True, results=folder, **options)
            if found.failures:
                raise BenchError(f"the demo on {dataset} is not complete: {found.failures[0]}")
        cells = Store(folder, demo=True).cells()
        if args.write:
            print(f"{write_reference(cells, shipped('results/demo'))} cells in {shipped('results/demo')}")
        return compare(cells)


def _show_demo(moved: list[Moved], dtype: str) -> bool:
    from bench.store.result import TIES

    changed = [cell for cell in moved if cell.pixels]
    scores = [cell for cell in moved if cell.expected != cell.found]
    print(f"\nThe demo's reference: {len(moved)} cells run, {len(changed)} with pixels in another class", end="")
    worst = max(moved, key=lambda cell: cell.pixels)
    print(f", at most {worst.pixels:.1f} of a million ({worst.row} on {worst.dataset})" if changed else "")
    for cell in scores:
        print(f"  {cell.row} on {cell.dataset}: {cell.expected} in the reference, {cell.found} here")
    print(f"{len(scores)} printed numbers differ")
    return dtype != "fp32" or worst.pixels <= TIES
