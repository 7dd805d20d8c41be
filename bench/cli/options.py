"""Flags that several commands share."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from bench.demo.config import DEMO
from bench.paths import DEMO_RESULTS
from bench.runtime.atomic import write_asked
from bench.spec import ModelSpec, Spec, about, flag

REPEATED = {"options", "sweeps", "cards", "layouts", "plugins", "upsamplers"}


def add_fields(group: argparse._ActionsContainer, spec: type[Spec], **metavars: str | None) -> None:
    """Add a flag for each of these fields of a spec, which documents and checks them; no metavar: a switch."""
    for name, metavar in metavars.items():
        text = about(spec, name).removesuffix(".")
        text = text if text[1:2].isupper() else text[:1].lower() + text[1:]
        names = ["-o", "--option"] if name == "options" else [flag(name)]
        if metavar is None:
            group.add_argument(*names, dest=name, action="store_true", help=text)
        else:
            kind: dict[str, Any] = {"action": "append"} if name in REPEATED else {}
            if name == "save_predictions":
                kind = {"nargs": "?", "const": sys.maxsize}
            group.add_argument(*names, dest=name, metavar=metavar, help=text, **kind)


def add_backbone_arguments(group: argparse._ArgumentGroup) -> None:
    """Add the flags of configuration, backbone, weights and device."""
    add_fields(group, ModelSpec, config="FILE", backbone="NAME|JSON", checkpoint="FILE", device="D")


def add_demo_backbone(parser: argparse.ArgumentParser) -> None:
    """Add --demo to a command that takes the user's own images."""
    text = f"as --backbone {DEMO}: a tiny CLIP that needs no download"
    parser.add_argument("--demo", dest="backbone", action="store_const", const=DEMO, help=text)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all flags that decide which models run, and how."""
    group = parser.add_argument_group("models")
    add_backbone_arguments(group)
    dtypes = "fp32|tf32|fp16|bf16"
    add_fields(group, ModelSpec, upsamplers="[NAME=]FILE", plugins="PATH", dtype=dtypes, batch="N|auto")


def positive(text: str) -> int:
    """Read a whole number above zero, for argparse."""
    if not text.strip().lstrip("+-").isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number")
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return number


_RESULTS = "results"


class _DemoResults(argparse.Action):
    """Flag that reads the demo's results where no other folder is given."""

    def __call__(self, parser: object, namespace: argparse.Namespace, *_: object) -> None:
        if namespace.results == _RESULTS:
            namespace.results = DEMO_RESULTS


SHARED: dict[str, dict[str, Any]] = {
    "--methods": {"metavar": "A,B", "help": "only these rows (all)"},
    "--datasets": {"metavar": "X,Y", "help": "only these datasets (all)"},
    "--results": {"metavar": "D", "default": _RESULTS, "help": f"results folder ({_RESULTS})"},
    "--demo": {"action": _DemoResults, "nargs": 0, "help": f"results of the demo ({DEMO_RESULTS})"},
    "--limit": {"type": positive, "metavar": "N", "help": "results of runs with --limit N"},
    "--draws": {"type": positive, "metavar": "B", "help": "swaps of the permutation tests (20000)"},
    "--config": {"metavar": "FILE", "help": "a file laid over benchmark.yaml"},
    "--plugin": {"action": "append", "default": [], "metavar": "PATH", "help": "a plug-in file or a folder of them"},
    "--data-root": {"metavar": "D", "help": "folder of all datasets ($OVSS_BENCH_DATA, else ./data)"},
    "--layout": {"metavar": "L", "help": "one of the card's layouts (the first that matches)"},
    "--cards": {
        "action": "append",
        "default": [],
        "type": Path,
        "metavar": "DIR",
        "help": "a folder of further dataset cards",
    },
    "--device": {"metavar": "D", "help": "cpu, cuda, cuda:1 … (cuda where there is one)"},
    "--dtype": {"choices": ["fp32", "tf32", "fp16", "bf16"], "default": "fp32", "help": "of the image tower (fp32)"},
    "--batch": {"type": positive, "default": 4, "metavar": "N", "help": "windows at once (4)"},
    "--json": {"metavar": "FILE", "help": "write everything that was found"},
}
"""Flags that mean the same in each command that has them."""


def add_shared(parser: argparse.ArgumentParser, *flags: str) -> None:
    """Add these flags of SHARED."""
    for name in flags:
        parser.add_argument(name, **SHARED[name])


def write_json(file: str | None, content: Any) -> None:
    """Write what --json asks for, if anything. BenchError where that cannot be done."""
    if file:
        write_asked(Path(file), (json.dumps(content, indent=1) + "\n").encode(), f"--json {file}")
