"""``bench score``: label maps that another program made, as a row of the leaderboard."""

from __future__ import annotations

import argparse
import math

from bench.cli.options import add_shared
from bench.paths import DEMO_RESULTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="label maps: PNG or TIFF (class numbers or palette), npy or npz")
    parser.add_argument("--dataset", required=True, metavar="X", help="as in `bench datasets list`")
    parser.add_argument("--row", required=True, metavar="NAME", help="what the row is called")
    parser.add_argument("--label", metavar="L", help="what tables call it (the name)")
    parser.add_argument(
        "--pattern", metavar="P", help="file name of a sample, as in '{id}_pred.png' ({id} with an ending)"
    )
    parser.add_argument(
        "--as-labels", action="store_true", help="they hold the values of the dataset's label files, not class numbers"
    )
    parser.add_argument("--boundary", action="store_true", help="count boundary IoU as well")
    parser.add_argument("--results", metavar="D", help=f"results folder (results, of the demo {DEMO_RESULTS})")
    parser.add_argument("--demo", action="store_true", help="the embedded demo's data")
    add_shared(parser, "--layout", "--data-root", "--cards")


def main(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from bench.notebook import score

    with tqdm(desc=args.dataset, unit="image", disable=None) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        names = ("label", "pattern", "as_labels", "layout", "boundary", "results", "demo", "data_root", "cards")
        named = {name: getattr(args, name) for name in names}
        found = score(args.folder, args.dataset, args.row, **named, progress=report)
    number = "" if math.isnan(found.value) else f"{100 * found.value:.1f} {found.metric}, "
    print(f"{found.row} on {found.dataset}: {number}{found.verdict.counted} images: {found.verdict.words}")
    return 0 if found.complete else 1
