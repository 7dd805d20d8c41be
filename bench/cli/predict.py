"""``bench predict``: own scenes, own words, any methods, maps that mapping programs open."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.options import add_demo_backbone, add_fields, add_model_arguments, positive
from bench.cli.words import OwnClasses, read_classes
from bench.errors import BenchError, listed

if TYPE_CHECKING:
    from bench.inference.visualize import Style
    from bench.maps.plan import SceneJob
    from bench.maps.spec import MapSpec
    from bench.runtime.distributed import Distributed

NATIVE = "none"  # --resize: the image's own resolution


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from bench.maps.spec import MapSpec

    parser.add_argument(
        "images", nargs="+", metavar="INPUT", help="images, folders of images, patterns: GeoTIFF, VRT, JPEG2000, PNG …"
    )
    parser.add_argument(
        "--method",
        required=True,
        metavar="M[,M2]",
        help="rows or methods, as in `bench methods`: sclip, sclip+ours … Several share their windows",
    )
    words = parser.add_mutually_exclusive_group(required=True)
    words.add_argument(
        "--classes",
        metavar="WORDS",
        help="'background; road; building, house, roof': classes by ; synonyms by , or a file: a class per line, "
        "CSV (words, colour), YAML",
    )
    words.add_argument("--dataset", metavar="NAME", help="words, colours, threshold and background of a dataset's card")
    parser.add_argument(
        "-o", "--out", required=True, metavar="OUT", help="a .tif, .png, .gpkg or .geojson, or a folder"
    )
    add_fields(parser, MapSpec, threshold="T", background="I", debias="L")
    parser.add_argument(
        "--resize",
        "--long-side",
        type=_resize,
        metavar="N|none",
        help="long side of the network's input in pixels (448); none: own resolution, strip by strip (none of what is "
        "georeferenced)",
    )
    scenes = parser.add_argument_group("scenes")
    add_fields(scenes, MapSpec, bands="R,G,B", stretch="L,H|L..H|…", gsd="M", bounds="W,S,E,N", mask="FILE", blend="B")
    maps = parser.add_argument_group("maps")
    add_fields(maps, MapSpec, format="F,…", probabilities="8bit|float16", min_area="A", simplify="M", scores="F.npz")
    maps.add_argument("--alpha", type=float, default=0.5, metavar="A", help="share of the colour in overlays (0.5)")
    maps.add_argument("--contours", action="store_true", help="overlays show the borders of regions alone")
    maps.add_argument("--clear", action="store_true", help="overlays leave the background class out")
    maps.add_argument("--palette", metavar="DATASET", help="colours of that dataset's card, one a class")
    work = parser.add_argument_group("work")
    add_fields(work, MapSpec, shard="I/N")
    work.add_argument("--processes", type=positive, metavar="N", help="start N processes that share the strips")
    work.add_argument("--devices", metavar="0,1", help="start a process for each of these GPUs")
    add_model_arguments(parser)
    add_demo_backbone(parser)


def main(args: argparse.Namespace) -> int:
    from bench.maps.spec import map_bases
    from bench.maps.view import scene_files

    if not 0 <= args.alpha <= 1:
        raise BenchError(f"--alpha {args.alpha}: a share between 0 and 1 is needed")
    own = read_classes(args.classes) if args.classes else None
    methods = listed(args.method, "--method") or []
    sources = scene_files(args.images)
    spec = _spec(args, methods)
    bases = map_bases(args.out, sources)

    from bench.runtime.device import choose_device
    from bench.runtime.distributed import init_distributed, launched, start_processes

    if (args.processes or args.devices) and not launched():
        return start_processes(args.arguments, args.processes, args.devices)
    with init_distributed(choose_device(spec.device, spec.dtype)) as processes:
        return _make(args, spec, methods, own, (sources, bases), processes)


def _spec(args: argparse.Namespace, methods: Sequence[str]) -> MapSpec:
    from bench.config import load_config
    from bench.maps.spec import MapSpec, formats_of

    config = load_config(args.config)
    named = [config.row(one).upsampler for one in methods]
    upsampler = next((name for name in named if name not in (None, "none")), "simfeatup")
    args.upsamplers = [flag if "=" in flag else f"{upsampler}={flag}" for flag in args.upsamplers or ()]
    args.long_side = args.resize if isinstance(args.resize, int) else None
    native = None if args.resize is None else args.resize == NATIVE  # None: of what is georeferenced
    args.format = formats_of(args.out, args.format or ())
    spec = MapSpec(**MapSpec.given(args), native=native)
    for one in methods:
        spec.row(one, "--method")
    return spec


def _make(
    args: argparse.Namespace,
    spec: MapSpec,
    methods: Sequence[str],
    own: OwnClasses | None,
    scenes: tuple[list[Path], list[Path]],
    processes: Distributed,
) -> int:
    """Plan and compute the maps, and say what came of it."""
    from bench.cli.app import complain
    from bench.cli.progress import Bars
    from bench.data.cards import load_card
    from bench.maps.job import Worker, make_maps, windows_left
    from bench.models.text import Vocabulary
    from bench.notebook import map_jobs

    words = load_card(args.dataset) if args.dataset else Vocabulary.parse(own.words if own else "")
    style = _style(args, spec, own)
    jobs = map_jobs(*scenes, methods, words, spec, style, complain)
    index, count = spec.shard or (0, 1)
    worker = Worker(index * processes.size + processes.rank, count * processes.size)
    bars = Bars(processes.is_main, "window")
    if processes.is_main:
        for job in jobs:
            print(job.note + ("; its map is there" if job.is_done() else ""), file=sys.stderr, flush=True)
        bars.expect(windows_left(jobs, worker))

    def say(line: str) -> None:
        bars.close()  # its line ends first
        complain(line)

    failures = make_maps(jobs, spec, worker, bars.images, say)
    bars.close()
    processes.wait()
    return _close(jobs, failures, spec.shard is not None, processes)


def _close(jobs: Sequence[SceneJob], failures: Sequence[str], sharded: bool, processes: Distributed) -> int:
    """Print the maps that are there, and what is not; a single scene that failed has the exit code of a mistake."""
    if processes.is_main:
        for job in jobs:
            for files in job.files.values():
                if files.is_there():
                    print(files.main)
        for job in jobs if sharded else ():
            if job.work.is_dir() and not job.is_done():
                missing = f"{job.missing()} of {job.strips} strips are not there yet"
                print(f"bench: {job.source}: {missing}; the same command without --shard makes them", file=sys.stderr)
    if failures:
        return 2 if len(jobs) == 1 else 1
    return 0


def _style(args: argparse.Namespace, spec: MapSpec, own: OwnClasses | None) -> Style:
    """Colours that are asked for, and how overlays look."""
    from bench.data.cards import load_card
    from bench.inference.visualize import Style

    colours = load_card(args.palette).colours if args.palette else own and own.colours
    return Style(colours, args.alpha, args.contours, (spec.background or 0) if args.clear else None)


def _resize(text: str) -> int | str:
    return NATIVE if text == NATIVE else positive(text)
