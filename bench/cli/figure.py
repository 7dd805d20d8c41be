"""``bench figure``: image | ground truth | methods, for samples of a dataset."""

from __future__ import annotations

import argparse

from bench.cli.options import add_model_arguments, add_shared, positive

PAPER = ("paper-1", "paper-4", "paper-5", "paper-6")
GAINS = "gains"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "dataset",
        metavar="DATASET",
        help="as in `bench datasets list`; or gains: by how much A of --methods A,B beats B on each; or paper-1, "
        "paper-4, paper-5, paper-6: that figure of the SegEarth-OV paper",
    )
    parser.add_argument(
        "--methods",
        metavar="A,B",
        help="rows or methods, also those that `score` stored, a panel for each (those of --gains; paper-N: its own)",
    )
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="a .png (300 dpi) or .pdf")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--samples", metavar="S,…", help="names or numbers of samples (default: the first)")
    which.add_argument(
        "--gains",
        nargs=2,
        metavar=("A", "B"),
        help="the samples on which stored row A beats stored row B most, and where they differ",
    )
    parser.add_argument("--count", type=positive, default=1, metavar="N", help="how many samples (1)")
    parser.add_argument("--results", metavar="D", help="results folder that --gains reads (results)")
    parser.add_argument("--demo", action="store_true", help="the embedded demo's data and backbone")
    add_shared(parser, "--data-root", "--cards")
    add_model_arguments(parser)


def main(args: argparse.Namespace) -> int:
    from bench.errors import BenchError

    number = _paper_figure(args)
    if number is None and not args.methods and not args.gains:
        raise BenchError("--methods is missing: rows or methods, such as --methods clip,segearth-ov")

    from bench.errors import listed
    from bench.figures import figure, gains_figure, paper_figure
    from bench.spec import RunSpec

    options = {name: value for name, value in RunSpec.given(args).items() if name != "methods"}
    samples = listed(args.samples, "--samples")
    if args.dataset == GAINS:
        names = listed(args.methods, "--methods") or []
        if len(names) != 2 or samples or args.gains:
            raise BenchError("figure gains: takes two stored rows, as in --methods segearth-ov,clip")
        file = gains_figure(names[0], names[1], args.out, **options)
    elif number is not None:
        file = paper_figure(number, args.out, args.methods, samples, **options)
    else:
        gains = tuple(args.gains) if args.gains else None
        file = figure(args.dataset, args.methods, args.out, samples, gains, args.count, **options)
    print(file)
    return 0


def _paper_figure(args: argparse.Namespace) -> int | None:
    """Return the number of paper-N; BenchError for what cannot be drawn or does not go with it."""
    from bench.errors import BenchError

    if not args.dataset.startswith("paper-"):
        return None
    if args.dataset not in PAPER:
        raise BenchError(f"{args.dataset}: of the paper's figures {', '.join(PAPER)} can be drawn")
    if args.gains or args.count != 1:
        raise BenchError(f"{args.dataset}: --gains and --count do not go with it; name samples with --samples")
    return int(args.dataset.removeprefix("paper-"))
