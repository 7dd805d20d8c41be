"""Flags that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError, did_you_mean

if TYPE_CHECKING:
    from bench.config import BackboneSpec, Config


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


def with_backbone(config: Config, flag: str | None) -> Config:
    """The configuration with `--backbone`: an entry of `backbones:`, an open_clip ``name[:tag]``, a model-config JSON,
    or ``demo``, the embedded test bed.
    """
    if flag is None:
        return config
    if flag == "demo":
        from bench.demo.config import demo_config

        return demo_config(config)
    from bench.config import BackboneSpec

    name = flag
    if flag.endswith(".json"):  # results are identified by the weights; where the file lies must not matter
        name = Path(flag).stem
        if name in config.backbones:
            raise BenchError(f"--backbone {flag}: '{name}' is a backbone of benchmark.yaml; give the file another name")
        config = _with(config, name, BackboneSpec(model=flag))
    elif flag not in config.backbones:
        model, _, tag = flag.partition(":")
        config = _with(config, name, BackboneSpec(model=model, pretrained=tag or None))
    protocol = config.protocol.model_copy(update={"backbone": name})
    return config.model_copy(update={"protocol": protocol})


def _with(config: Config, name: str, spec: BackboneSpec) -> Config:
    return config.model_copy(update={"backbones": {**config.backbones, name: spec}})


def upsampler_files(flags: Sequence[str], config: Config, default: str = "simfeatup") -> dict[str, Path]:
    """Name -> file of ``--upsampler-checkpoint [NAME=]FILE`` flags; without a name it stands for `default`."""
    files = {}
    for flag in flags:
        name, equals, file = flag.rpartition("=")
        name = name if equals else default
        if name not in config.upsamplers:
            raise BenchError(
                f"--upsampler-checkpoint {flag}: unknown upsampler '{name}'; {did_you_mean(name, config.upsamplers)}"
            )
        files[name] = Path(file).expanduser()
    return files
