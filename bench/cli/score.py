"""``bench score``: label maps that another program made, as a row of the leaderboard."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from bench.cli.options import add_shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="label maps: PNG or TIFF (class numbers or palette), npy or npz")
    parser.add_argument("--dataset", required=True, metavar="X", help="as in `bench datasets list`")
    parser.add_argument("--row", required=True, metavar="NAME", help="what the row is called")
    parser.add_argument("--label", metavar="L", help="what tables call it (the name)")
    parser.add_argument(
        "--pattern", metavar="P", help="file name of a sample, as in '{id}_pred.png' ({id} with an ending)"
    )
    add_shared(parser, "--layout", "--results", "--data-root", "--cards")


def main(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from bench.config import load_config
    from bench.data.cards import load_card
    from bench.data.prepared import find_samples
    from bench.errors import BenchError
    from bench.evaluation.external import Predictions, score_predictions
    from bench.paths import data_root
    from bench.report.scores import scores_of
    from bench.store.store import Store

    folder = Path(args.folder)
    if not folder.is_dir():
        raise BenchError(f"{folder}: no such folder; give the folder of the label maps")
    if args.pattern is not None and "{id}" not in args.pattern:
        raise BenchError(f"--pattern {args.pattern}: has no {{id}}, which stands for the name of a sample")
    if args.row in load_config().rows:
        raise BenchError(f"--row {args.row}: is a row of benchmark.yaml; choose another name")
    card = load_card(args.dataset, args.cards)
    samples = find_samples(card, data_root(args.data_root), args.layout)
    store = Store(args.results)
    with store.lock(), tqdm(total=len(samples.sources), desc=card.name, unit="image", disable=None) as bar:

        def report(done: int) -> None:
            bar.update(done - bar.n)

        cell = score_predictions(store, samples, Predictions(folder, args.pattern), args.row, args.label, report)
    found = scores_of(store, load_config(), cards=args.cards, datasets=[card.name])[args.row, card.name]
    number = "" if math.isnan(found.value) else f"{100 * found.value:.1f} {cell.metric}, "
    print(f"{args.row} on {card.name}: {number}{cell.counted} images: {found.verdict.words}")
    return 0 if found.complete else 1
