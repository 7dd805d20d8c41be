"""``bench methods``: what there is to run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.cli.options import add_shared

if TYPE_CHECKING:
    from bench.registry import Method


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shared(parser, "--config", "--plugin")


def main(args: argparse.Namespace) -> int:
    from tabulate import tabulate

    from bench.config import load_config
    from bench.registry import load_methods
    from bench.report.published import method_facts

    config = load_config(args.config)
    methods = load_methods(args.plugin)
    print("Methods (each is a row, and NAME+MODIFIER with any of them too)\n")
    known = method_facts()
    listed = [
        (m.name, m.label, m.venue, *_facts(known.get(m.name, {})), _kind(m), m.file.name) for m in methods.values()
    ]
    heads = ["name", "label", "venue", "family", "adds passes", "agrees with its authors' code", "gives", "file"]
    print(tabulate(listed, headers=heads, disable_numparse=True))
    print("\nadds passes: of the encoder, to a run with clip, measured as bench/method_facts.yaml says")
    print("\nfeatures: upsamplers and λ work on them; scores: its own; words: its features depend on the vocabulary")
    options = [(m.name, _options(m.options)) for m in methods.values() if m.options]
    print("\nOptions\n")
    print(tabulate(options, headers=["method", "options"]))
    print("\nSecond models (of methods with roles; `bench download weights NAME`)\n")
    roles = {m.name: m.defaults.models for m in methods.values()}
    seconds = [
        (name, spec.name, spec.license, "gated" if spec.gated else "", ", ".join(_using(name, roles)), spec.file)
        for name, spec in config.models.items()
    ]
    print(tabulate(seconds, headers=["name", "model", "licence", "", "default of", "file"]))
    print("\nUpsamplers\n")
    upsamplers = [(name, spec.kind, spec.license, spec.file) for name, spec in config.upsamplers.items()]
    print(tabulate(upsamplers, headers=["name", "kind", "licence", "file"]))
    print("\nModifiers\n")
    changes = [(f"+{name}", _changes(m.model_dump(exclude_defaults=True))) for name, m in config.modifiers.items()]
    print(tabulate(changes, headers=["name", "sets"]))
    print("\nRows of benchmark.yaml (* : in `--methods all`)\n")
    rows = [
        (
            name + (" *" if name in config.default_rows else ""),
            row.title(methods[row.method].label if row.method in methods else None),
            row.method,
            _changes(row.model_dump(exclude={"label", "method"}, exclude_defaults=True)),
        )
        for name, row in config.rows.items()
    ]
    print(tabulate(rows, headers=["name", "label", "method", "sets"]))
    print("\nGroups\n")
    groups = {"all": config.default_rows, **config.groups}
    print(tabulate([(name, ", ".join(rows)) for name, rows in groups.items()], maxcolwidths=[None, 100]))
    return 0


def _facts(known: Mapping[str, Any]) -> tuple[str, str, str]:
    passes = known.get("passes")
    return known.get("family", ""), "" if passes is None else f"{passes:.1f}", known.get("agrees", "")


def _using(model: str, roles: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Name the methods (and the role) that look through the model unless a row says otherwise."""
    return [f"{name} ({role})" for name, own in roles.items() for role, used in own.items() if used == model]


def _kind(method: Method) -> str:
    return "scores" if method.makes_scores else "features, by words" if method.takes_text else "features"


def _options(options: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={getattr(parameter, 'default', '')}" for name, parameter in options.items())


def _changes(change: Mapping[str, object]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in change.items())
