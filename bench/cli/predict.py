"""``bench predict``: an own image, own words, any method."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.cli.options import add_demo_backbone, add_fields, add_model_arguments, positive, read_classes
from bench.errors import BenchError, writing
from bench.spec import SegmenterOptions

NATIVE = "none"  # --resize: the image's own resolution


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="8-bit RGB or grey: PNG, JPEG, TIFF …")
    parser.add_argument(
        "--method", required=True, metavar="M", help="a row or method, as in `bench methods`: sclip, sclip+ours …"
    )
    parser.add_argument(
        "--classes",
        required=True,
        metavar="WORDS",
        help="'background; road; building, house, roof': classes by ; synonyms by , or a text file, one class per line",
    )
    parser.add_argument(
        "-o", "--out", required=True, metavar="OUT", help="a .png or .tif, or a folder (needed for several images)"
    )
    add_fields(parser, SegmenterOptions, threshold="T", background="I", debias="L")
    parser.add_argument(
        "--resize",
        "--long-side",
        type=_resize,
        metavar="N|none",
        help="long side of the network's input in pixels (448); none: own resolution, strip by strip (GeoTIFFs: none)",
    )
    parser.add_argument("--alpha", type=float, default=0.5, metavar="A", help="share of the colour in overlays (0.5)")
    parser.add_argument("--contours", action="store_true", help="overlays show the borders of regions alone")
    parser.add_argument("--clear", action="store_true", help="overlays leave the background class out")
    parser.add_argument("--palette", metavar="DATASET", help="colours of that dataset's card, one a class")
    parser.add_argument(
        "--scores", metavar="F.npz", help="also write the scores (queries, H, W) and labels (H0, W0); one image only"
    )
    add_model_arguments(parser)
    add_demo_backbone(parser)


def main(args: argparse.Namespace) -> int:
    from bench.config import load_config

    classes = read_classes(args.classes)
    _check(args)
    targets = _targets(args.out, [Path(image) for image in args.images])
    upsampler = _named(load_config(args.config).row(args.method).upsampler)
    args.upsamplers = [flag if "=" in flag else f"{upsampler}={flag}" for flag in args.upsamplers or ()]
    args.long_side = args.resize if isinstance(args.resize, int) else None
    native = None if args.resize is None else args.resize == NATIVE  # None: of GeoTIFFs
    options = SegmenterOptions(**SegmenterOptions.given(args), native=native)
    options.row(args.method, "--method")
    colours = _palette(args.palette, len(classes.split(";")))

    from bench.inference.visualize import Style
    from bench.models.text import Vocabulary
    from bench.notebook import predictor

    style = Style(colours, args.alpha, args.contours, (options.background or 0) if args.clear else None)
    segment = predictor(args.method, Vocabulary.parse(classes), options, style)
    for image, target in zip(args.images, targets, strict=True):
        print(segment.describe(Path(image)), file=sys.stderr, flush=True)
        segment.write(Path(image), target, args.scores)
        print(target)
    return 0


def _palette(dataset: str | None, classes: int) -> list[tuple[int, int, int]] | None:
    """Colours of a card; BenchError where they are not as many as the classes."""
    if dataset is None:
        return None
    from bench.data.cards import load_card

    colours = list(load_card(dataset).colours)
    if len(colours) != classes:
        raise BenchError(f"--palette {dataset}: has {len(colours)} colours, --classes has {classes} classes")
    return colours


def _check(args: argparse.Namespace) -> None:
    if not 0 <= args.alpha <= 1:
        raise BenchError(f"--alpha {args.alpha}: a share between 0 and 1 is needed")
    if args.scores and len(args.images) > 1:
        raise BenchError(
            f"--scores {args.scores}: holds one image, but {len(args.images)} are given; run them one by one"
        )


def _targets(out: str, images: Sequence[Path]) -> list[Path]:
    """List where the label map of each image goes: OUT itself, or in the folder OUT a file of the image's name."""
    written: dict[Path, Path] = {}
    targets = [_target(out, image, many=len(images) > 1) for image in images]
    for image, target in zip(images, targets, strict=True):
        for file in (target, target.with_name(f"{target.stem}_overlay.png")):
            if file in written:
                raise BenchError(f"{written[file]} and {image} would both be written to {file}; rename one of them")
            written[file] = image
    sources = {image.resolve() for image in images}
    for file in written:
        if file.resolve() in sources:
            raise BenchError(f"-o {out}: would overwrite the image {file}; give another name")
    with writing(f"-o {out}"):
        for target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
    return targets


def _target(out: str, image: Path, many: bool) -> Path:
    if image.is_dir():
        raise BenchError(f"{image}: a folder; give the images in it, as in {image}/*.tif")
    if not image.is_file():
        raise BenchError(f"{image}: no such image; check the path")
    ending = Path(out).suffix.lower()
    if ending in (".png", ".tif", ".tiff") and not Path(out).is_dir():
        if many:
            raise BenchError(f"-o {out}: one file for several images; give a folder")
        return Path(out)
    if ending and not out.endswith("/") and not Path(out).is_dir():
        raise BenchError(
            f"-o {out}: label maps are written as .png or .tif; change the ending, or end the name of a folder with /"
        )
    return Path(out) / f"{image.stem}.png"


def _named(upsampler: str | None) -> str:
    return "simfeatup" if upsampler in (None, "none") else str(upsampler)


def _resize(text: str) -> int | str:
    return NATIVE if text == NATIVE else positive(text)
