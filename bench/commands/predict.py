"""``bench predict``: an own image, own words, any method."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.commands.options import add_model_arguments, choose_device, positive
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.config import Config, Settings
    from bench.methods import Method
    from bench.vocabulary import Vocabulary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="8-bit RGB or grey: PNG, JPEG, TIFF …")
    parser.add_argument("--method", required=True, metavar="M", help="a row or method, as in `bench methods`: sclip, sclip+ours …")
    parser.add_argument(
        "--classes", required=True, metavar="WORDS", help="'background; road; building, house, roof': classes by ; synonyms by ,"
    )
    parser.add_argument("-o", "--out", required=True, metavar="OUT", help="a .png or .tif, or a folder (needed for several images)")
    parser.add_argument("--threshold", type=float, default=0.0, metavar="T", help="pixels less probable become background (0)")
    parser.add_argument("--background", type=int, default=0, metavar="I", help="number of the background class (0)")
    parser.add_argument("--debias", type=float, metavar="L", help="λ of the global bias (default: the row's)")
    parser.add_argument("--long-side", type=positive, metavar="N", help="pixels of the network's input (default: 448)")
    parser.add_argument("--scores", metavar="F.npz", help="also write the scores (queries, H, W) and labels (H0, W0); one image only")
    add_model_arguments(parser)


def main(args: argparse.Namespace) -> int:
    from bench.config import load_config
    from bench.methods import load_methods
    from bench.vocabulary import Vocabulary
    from bench.zoo import Zoo, upsampler_files, with_backbone

    vocabulary = Vocabulary.parse(args.classes)
    _check(args, vocabulary)
    targets = [_target(Path(args.out), Path(image), many=len(args.images) > 1) for image in args.images]
    config = with_backbone(load_config(args.config), args.backbone)
    methods = load_methods(args.plugin)
    settings = _settings(args, config, methods)
    files = upsampler_files(args.upsampler_checkpoint, config, default=_named(settings.upsampler))
    checkpoint = Path(args.checkpoint) if args.checkpoint else None
    zoo = Zoo(config, methods, checkpoint, files, choose_device(args.device), args.dtype)
    words = [[q for q, c in zip(vocabulary.queries, vocabulary.classes, strict=True) if c == i] for i in range(vocabulary.size)]
    query, _ = zoo.query(settings, words)
    for image, target in zip(args.images, targets, strict=True):
        _segment(Path(image), target, zoo.backbone(settings.backbone), query, settings, vocabulary, args)
        print(target)
    return 0


def _segment(
    source: Path, target: Path, backbone: Any, query: Any, settings: Settings, vocabulary: Vocabulary, args: argparse.Namespace
) -> None:
    import numpy as np

    from bench.data.images import Resize, read_image, resize
    from bench.figures import distinct_colours, overlay_png, palette_png, write_geotiff
    from bench.segmenter import Segmenter, apply_threshold, classify

    image = read_image(source)
    small = resize(image, Resize(**settings.resize.model_dump()))
    segmenter = Segmenter(backbone, [query], settings.window, settings.stride, args.batch)
    scores = segmenter.scores(small)[query.name]
    if isinstance(scores, BenchError):
        raise scores
    if isinstance(scores, Exception):
        raise BenchError(f"{source}: the method '{query.name}' failed: {type(scores).__name__}: {scores}") from scores
    prediction = classify(scores, image.shape[:2], query.classes, query.scale)
    labels = apply_threshold(prediction, settings.threshold, settings.background)
    colours = distinct_colours(vocabulary.size)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix.lower() in (".tif", ".tiff"):
        write_geotiff(target, source, labels, colours)
    else:
        target.write_bytes(palette_png(labels, colours))
    target.with_name(f"{target.stem}_overlay.png").write_bytes(overlay_png(image, labels, colours, vocabulary.names))
    if args.scores:
        np.savez(args.scores, scores=scores.cpu().numpy(), labels=labels)


def _settings(args: argparse.Namespace, config: Config, methods: dict[str, Method]) -> Settings:
    from bench.config import Settings
    from bench.methods import find_method

    row = config.row(args.method)
    method = find_method(row.method, methods)
    given = {"debias": args.debias, "resize": {"long_side": args.long_side} if args.long_side else None}
    chosen = config.settle(row, method.defaults, {}, {k: v for k, v in given.items() if v is not None})
    chosen |= {"threshold": args.threshold, "background": args.background}
    return Settings(row=args.method, dataset="-", method=row.method, **chosen)


def _check(args: argparse.Namespace, vocabulary: Vocabulary) -> None:
    if not 0 <= args.background < vocabulary.size:
        raise BenchError(f"--background {args.background}: --classes has {vocabulary.size} classes, numbered from 0")
    if not 0 <= args.threshold <= 1:
        raise BenchError(f"--threshold {args.threshold}: a probability between 0 and 1 is needed")
    if args.scores and len(args.images) > 1:
        raise BenchError(f"--scores {args.scores}: holds one image, but {len(args.images)} are given; run them one by one")


def _target(out: Path, image: Path, many: bool) -> Path:
    """Where the label map of an image goes: OUT itself, or in the folder OUT a file of the image's name."""
    if not image.is_file():
        raise BenchError(f"{image}: no such image; check the path")
    if out.suffix.lower() in (".png", ".tif", ".tiff"):
        if many:
            raise BenchError(f"-o {out}: one file for several images; give a folder")
        target = out
    else:
        target = out / f"{image.stem}.png"
    if target.resolve() == image.resolve():
        raise BenchError(f"-o {out}: would overwrite the image {image}; give another name")
    return target


def _named(upsampler: str) -> str:
    return "simfeatup" if upsampler == "none" else upsampler
