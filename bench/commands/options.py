"""Flags that several commands share."""

from __future__ import annotations

import argparse


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
    """All that decides which models run, and how."""
    group = parser.add_argument_group("models")
    add_backbone_arguments(group)
    group.add_argument(
        "--upsampler-checkpoint",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="weights of an upsampler (default: simfeatup); may be repeated",
    )
    group.add_argument(
        "--plugin", action="append", default=[], metavar="PATH", help="a plug-in file or a folder of them"
    )
    group.add_argument(
        "--dtype",
        choices=["fp32", "tf32", "fp16", "bf16"],
        default="fp32",
        help="of the image tower's products; tf32: of all products, on a GPU (default: fp32)",
    )
    group.add_argument("--batch", type=positive, default=4, metavar="N", help="windows at once (default: 4)")


def positive(text: str) -> int:
    """A whole number above zero, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return number
