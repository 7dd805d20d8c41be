"""``bench predict``: an own image, own words, any method."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.options import add_model_arguments, positive
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.models.text import Vocabulary

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
        help="'background; road; building, house, roof': classes by ; synonyms by ,",
    )
    parser.add_argument(
        "-o", "--out", required=True, metavar="OUT", help="a .png or .tif, or a folder (needed for several images)"
    )
    parser.add_argument(
        "--threshold", type=float, default=0.0, metavar="T", help="pixels less probable become background (0)"
    )
    parser.add_argument("--background", type=int, default=0, metavar="I", help="number of the background class (0)")
    parser.add_argument("--debias", type=float, metavar="L", help="λ of the global bias (default: the row's)")
    parser.add_argument(
        "--resize",
        "--long-side",
        type=_resize,
        metavar="N|none",
        help="long side of the network's input in pixels (448); none: own resolution, strip by strip",
    )
    parser.add_argument(
        "--scores", metavar="F.npz", help="also write the scores (queries, H, W) and labels (H0, W0); one image only"
    )
    add_model_arguments(parser)


def main(args: argparse.Namespace) -> int:
    from bench.cli.options import upsampler_files
    from bench.config import load_config
    from bench.models.text import Vocabulary
    from bench.notebook import SegmenterOptions, predictor

    vocabulary = Vocabulary.parse(args.classes)
    _check(args, vocabulary)
    targets = [_target(Path(args.out), Path(image), many=len(args.images) > 1) for image in args.images]
    config = load_config(args.config)
    own_upsampler = config.row(args.method).upsampler
    options = SegmenterOptions(
        backbone=args.backbone,
        checkpoint=args.checkpoint,
        upsamplers=upsampler_files(args.upsampler_checkpoint, config, default=_named(own_upsampler)),
        device=args.device,
        dtype=args.dtype,
        batch=args.batch,
        long_side=args.resize if isinstance(args.resize, int) else None,
        native=args.resize == NATIVE,
        debias=args.debias,
        threshold=args.threshold,
        background=args.background,
        plugins=args.plugin,
        config=args.config,
    )
    segment = predictor(args.method, vocabulary, options)
    for image, target in zip(args.images, targets, strict=True):
        segment.write(Path(image), target, args.scores)
        print(target)
    return 0


def _check(args: argparse.Namespace, vocabulary: Vocabulary) -> None:
    if not 0 <= args.background < vocabulary.size:
        raise BenchError(f"--background {args.background}: --classes has {vocabulary.size} classes, numbered from 0")
    if not 0 <= args.threshold <= 1:
        raise BenchError(f"--threshold {args.threshold}: a probability between 0 and 1 is needed")
    if args.scores and len(args.images) > 1:
        raise BenchError(
            f"--scores {args.scores}: holds one image, but {len(args.images)} are given; run them one by one"
        )


def _target(out: Path, image: Path, many: bool) -> Path:
    """Where the label map of an image goes: OUT itself, or in the folder OUT a file of the image's name."""
    if not image.is_file():
        raise BenchError(f"{image}: no such image; check the path")
    if out.suffix.lower() in (".png", ".tif", ".tiff"):
        if many:
            raise BenchError(f"-o {out}: one file for several images; give a folder")
        target = out
    elif out.suffix.lower() in (".jpg", ".jpeg", ".bmp", ".gif", ".webp"):
        raise BenchError(f"-o {out}: label maps are written as .png or .tif; change the name")
    else:
        target = out / f"{image.stem}.png"
    if target.resolve() == image.resolve():
        raise BenchError(f"-o {out}: would overwrite the image {image}; give another name")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchError(f"-o {out}: cannot be written ({error.strerror}); give another place") from None
    return target


def _named(upsampler: str | None) -> str:
    return "simfeatup" if upsampler in (None, "none") else str(upsampler)


def _resize(text: str) -> int | str:
    return NATIVE if text == NATIVE else positive(text)
