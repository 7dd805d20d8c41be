"""Flags that several commands share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.spec import ModelSpec, flag

REPEATED = {"options", "sweeps", "cards", "layouts", "plugins", "upsamplers"}


def add_fields(group: argparse._ArgumentGroup, spec: type[ModelSpec], **metavars: str | None) -> None:
    """A flag for each of these fields of a spec, which documents and checks them; without a metavar it is a switch."""
    for name, metavar in metavars.items():
        about = " ".join((spec.model_fields[name].description or "").split()).removesuffix(".")
        about = about[:1].lower() + about[1:]
        names = ["-o", "--option"] if name == "options" else [flag(name)]
        if metavar is None:
            group.add_argument(*names, dest=name, action="store_true", help=about)
        else:
            kind: dict[str, Any] = {"action": "append"} if name in REPEATED else {}
            if name == "save_predictions":
                kind = {"nargs": "?", "const": sys.maxsize}
            group.add_argument(*names, dest=name, metavar=metavar, help=about, **kind)


def add_backbone_arguments(group: argparse._ArgumentGroup) -> None:
    """Which configuration, backbone, weights and device."""
    add_fields(group, ModelSpec, config="FILE", backbone="NAME|JSON", checkpoint="FILE", device="D")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """All that decides which models run, and how."""
    group = parser.add_argument_group("models")
    add_backbone_arguments(group)
    dtypes = "fp32|tf32|fp16|bf16"
    add_fields(group, ModelSpec, upsamplers="[NAME=]FILE", plugins="PATH", dtype=dtypes, batch="N|auto")


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the datasets are, and where there are more cards."""
    parser.add_argument(
        "--data-root", metavar="D", help="folder of all datasets (default: $OVSS_BENCH_DATA, else ./data)"
    )
    add_cards_argument(parser)


def add_cards_argument(parser: argparse.ArgumentParser) -> None:
    """Where there are more cards."""
    parser.add_argument(
        "--cards",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="a folder of further dataset cards",
    )


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
