"""``bench predict``: an own image, own words, any method."""

from __future__ import annotations

import argparse
import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from bench.cli.options import add_model_arguments, positive
from bench.errors import BenchError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from bench.config import Config
    from bench.inference.raster_io import Raster
    from bench.inference.segmenter import Query, Segmenter
    from bench.models.text import Vocabulary
    from bench.registry import Method
    from bench.settings import Settings

    Part: TypeAlias = tuple[Tensor, NDArray[np.uint8]]  # scores (Q, h, w), labels (H, W)

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
    from bench.cli.options import upsampler_files, with_backbone
    from bench.config import load_config
    from bench.evaluation.models import Zoo
    from bench.inference.segmenter import Segmenter
    from bench.models.text import Vocabulary
    from bench.registry import load_methods
    from bench.runtime.device import choose_device, default_batch

    vocabulary = Vocabulary.parse(args.classes)
    _check(args, vocabulary)
    targets = [_target(Path(args.out), Path(image), many=len(args.images) > 1) for image in args.images]
    config = with_backbone(load_config(args.config), args.backbone)
    methods = load_methods(args.plugin)
    settings = _settings(args, config, methods)
    files = upsampler_files(args.upsampler_checkpoint, config, default=_named(settings.upsampler))
    checkpoint = Path(args.checkpoint) if args.checkpoint else None
    device = choose_device(args.device, args.dtype)
    batch = args.batch or default_batch(device)
    zoo = Zoo(config, methods, checkpoint, files, device, args.dtype)
    words = [
        [q for q, c in zip(vocabulary.queries, vocabulary.classes, strict=True) if c == i]
        for i in range(vocabulary.size)
    ]
    if settings.backbone == "demo":
        _warn_of_unknown_words(vocabulary)
    query, _ = zoo.query(settings, words)
    segmenter = Segmenter(zoo.backbone(settings.backbone), [query], settings.window, settings.stride, batch)
    for image, target in zip(args.images, targets, strict=True):
        _segment(Path(image), target, segmenter, settings, vocabulary, args)
        print(target)
    return 0


def _warn_of_unknown_words(vocabulary: Vocabulary) -> None:
    from bench.demo.clip.words import unknown_words

    if unknown := unknown_words(vocabulary.queries):
        warnings.warn(
            f"the demo's CLIP has not learned {', '.join(unknown)}: what it finds for them means nothing", stacklevel=2
        )


def _segment(
    source: Path,
    target: Path,
    segmenter: Segmenter,
    settings: Settings,
    vocabulary: Vocabulary,
    args: argparse.Namespace,
) -> None:
    import numpy as np

    from bench.inference.raster_io import DecodedImage, LabelWriter, open_raster
    from bench.inference.visualize import distinct_colours

    with contextlib.ExitStack() as stack:
        if args.resize == NATIVE:
            raster = stack.enter_context(open_raster(source))
            parts = _native(segmenter, raster, settings)
        else:
            from bench.data.images import read_image

            image = read_image(source)
            raster = DecodedImage(image)
            parts = _resized(segmenter, image, settings)
        writer = LabelWriter(target, source, raster, vocabulary.names, distinct_colours(vocabulary.size))
        kept = []
        for scores, labels in _explained(parts, source, settings.row):
            writer.add(labels)
            if args.scores:
                kept.append((scores.cpu().numpy(), labels))
        writer.finish()
    if args.scores:
        whole = [np.concatenate(strips, axis=-2) for strips in zip(*kept, strict=True)]
        np.savez(args.scores, scores=whole[0], labels=whole[1])


def _resized(segmenter: Segmenter, image: NDArray[np.uint8], settings: Settings) -> Iterator[Part]:
    """The one part of an image that goes through the network at another size than its own."""
    from bench.data.images import Resize, resize

    (query,) = segmenter.queries
    scores = segmenter.scores(resize(image, Resize(**settings.resize.model_dump())))[query.name]
    if isinstance(scores, Exception):
        raise scores
    yield scores, _labels(scores, image.shape[:2], query, settings)


def _native(segmenter: Segmenter, raster: Raster, settings: Settings) -> Iterator[Part]:
    """Strips of an image at its own resolution, from top to bottom."""
    from bench.inference.streaming import score_strips

    (query,) = segmenter.queries
    for scores in score_strips(segmenter, query, raster):
        yield scores, _labels(scores, (scores.shape[1], scores.shape[2]), query, settings)


def _labels(scores: Tensor, size: tuple[int, int], query: Query, settings: Settings) -> NDArray[np.uint8]:
    from bench.inference.postprocess import apply_threshold, classify

    prediction = classify(scores, size, query.classes, query.scale)
    return apply_threshold(prediction, settings.threshold, settings.background)


def _explained(parts: Iterator[Part], source: Path, row: str) -> Iterator[Part]:
    """The parts; what a plug-in raises becomes one line."""
    try:
        yield from parts
    except BenchError:
        raise
    except Exception as error:
        raise BenchError(f"{source}: the method '{row}' failed: {type(error).__name__}: {error}") from error


def _settings(args: argparse.Namespace, config: Config, methods: dict[str, Method]) -> Settings:
    from bench.registry import find_method
    from bench.settings import Settings

    row = config.row(args.method)
    method = find_method(row.method, methods)
    given = {"debias": args.debias, "resize": {"long_side": args.resize} if isinstance(args.resize, int) else None}
    chosen = config.settle(row, method.defaults, {}, {k: v for k, v in given.items() if v is not None})
    chosen |= {"threshold": args.threshold, "background": args.background}
    return Settings(row=args.method, dataset="-", method=row.method, **chosen)


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


def _named(upsampler: str) -> str:
    return "simfeatup" if upsampler == "none" else upsampler


def _resize(text: str) -> int | str:
    return NATIVE if text == NATIVE else positive(text)
