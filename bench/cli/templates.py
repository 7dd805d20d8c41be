"""``bench templates``: rank the prompt templates on images without labels, for the method `floss`."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.options import add_demo_backbone, add_model_arguments, positive
from bench.errors import BenchError
from bench.runtime.atomic import write_asked


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="images without labels, such as the training images")
    parser.add_argument(
        "--classes", required=True, metavar="WORDS", help="as for `bench predict`: words by ; and , or a text file"
    )
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="text file: a line of numbers for each word")
    parser.add_argument("--method", default="naclip", metavar="M", help="the row whose features are looked at (naclip)")
    parser.add_argument("--keep", type=positive, default=4, metavar="N", help="templates for each word (4)")
    add_model_arguments(parser)
    add_demo_backbone(parser)


def main(args: argparse.Namespace) -> int:
    from bench.cli.words import read_classes
    from bench.spec import SegmenterOptions

    classes = read_classes(args.classes).words
    images = [Path(image) for image in args.images]
    for image in images:
        if not image.is_file():
            raise BenchError(f"{image}: no such image; check the path")
    out = Path(args.out)
    if not out.parent.is_dir():
        raise BenchError(f"-o {out}: there is no folder {out.parent}; make it, or give another place")
    options = SegmenterOptions.from_cli(args)
    options.row(args.method, "--method")

    from tqdm import tqdm

    from bench.data.images import read_image
    from bench.inference.templates import rank_templates
    from bench.models.text import TEMPLATES, Vocabulary
    from bench.notebook import predictor

    vocabulary = Vocabulary.parse(classes)
    segment = predictor(args.method, vocabulary, options)
    bar = tqdm(images, unit="image", disable=None)
    ranked = rank_templates(segment.segmenter, vocabulary.queries, map(read_image, bar), args.keep)
    write_asked(out, "".join(f"{' '.join(map(str, numbers))}\n" for numbers in ranked).encode(), f"-o {out}")
    for word, numbers in zip(vocabulary.queries, ranked, strict=True):
        print(f"{word}: " + ("; ".join(TEMPLATES[n](word) for n in numbers) or "never found, so all templates"))
    print(f"{out}: use it as `-o ranking={out}` with --methods floss")
    return 0
