"""Flags that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.errors import BenchError


def add_backbone_arguments(group: argparse._ArgumentGroup) -> None:
    """Which configuration, backbone, weights and device."""
    group.add_argument("--config", metavar="FILE", help="another benchmark.yaml")
    group.add_argument(
        "--backbone",
        metavar="NAME|JSON",
        help="a name of benchmark.yaml, an open_clip model (NAME[:TAG]), its config JSON, or `demo`",
    )
    group.add_argument("--checkpoint", metavar="FILE", help="weights of that backbone: safetensors or torch file")
    group.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1 … (default: cuda where there is one)")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """All that decides which models run, and how; called like the fields of `bench.spec.ModelSpec`."""
    group = parser.add_argument_group("models")
    add_backbone_arguments(group)
    group.add_argument(
        "--upsampler-checkpoint",
        dest="upsamplers",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="weights of an upsampler (default: simfeatup); may be repeated",
    )
    group.add_argument(
        "--plugin",
        dest="plugins",
        action="append",
        default=[],
        metavar="PATH",
        help="a plug-in file or a folder of them",
    )
    group.add_argument(
        "--dtype",
        choices=["fp32", "tf32", "fp16", "bf16"],
        default="fp32",
        help="of the image tower's products; tf32: of all products, on a GPU (default: fp32)",
    )
    group.add_argument(
        "--batch",
        type=batch,
        metavar="N|auto",
        help="windows at once (auto: 4 on a CPU, on a GPU what fits); halved where memory runs out",
    )


def batch(text: str) -> int | None:
    """A number of windows, or None for "auto", for argparse."""
    return None if text == "auto" else positive(text)


def positive(text: str) -> int:
    """A whole number above zero, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return number


def read_classes(text: str) -> str:
    """What --classes says, or the file that it names: a class per line, "#" for comments."""
    if Path(text).suffix.lower() in (".txt", ".csv", ".yaml", ".yml", ".json") or text.endswith("/"):
        try:
            lines = [line.partition("#")[0].strip() for line in Path(text).read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise BenchError(f"--classes {text}: no such text file, and no list of words ({error})") from None
        text = ";".join(line for line in lines if line)
    if len([part for part in text.split(";") if part.strip()]) < 2:
        raise BenchError(
            f"--classes '{text}': one class, which every pixel would get; separate classes by semicolons, synonyms "
            "by commas, as in 'background; road; building, house'"
        )
    return text
