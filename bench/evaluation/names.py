"""Names that a run is given, and what they stand for. Imports no torch."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Final

from bench.config import Config
from bench.errors import BenchError

OWN_PROTOCOL: Final = "cvpr2025"  # of `protocol:` in benchmark.yaml, which needs no name
STATES: Final = ("missing", "failed", "stale")  # that a run can be restricted to


def listed(names: str | Sequence[str] | None) -> list[str] | None:
    """The names in "a,b" or in a list; None for None."""
    if names is None:
        return None
    parts = re.split(r",(?![^\[]*\])", names) if isinstance(names, str) else names  # not inside of brackets
    return [part.strip() for part in parts if part.strip()]


def varied(rows: Sequence[str], options: Sequence[str], sweeps: Sequence[str], vocabulary: str = "") -> list[str]:
    """Each row with the options, KEY=VALUE, for every combination of the swept values, KEY=V1,V2: names with brackets.

    vocabulary: the protocol's, which needs no brackets. Raises BenchError for what is not of that form.
    """
    fixed = [[_pair(option, "--option", "KEY=VALUE")] for option in options]
    swept = []
    for sweep in sweeps:
        key, values = _pair(sweep, "--sweep", "KEY=V1,V2").split("=", 1)
        swept.append([f"{key}={value.strip()}" for value in values.split(",") if value.strip()])
    found = []
    for row in rows:
        for chosen in itertools.product(*fixed, *swept):
            default = (f"vocabulary={vocabulary}", f"protocol={OWN_PROTOCOL}")
            inside = ",".join(one for one in chosen if one not in default)
            if row.endswith("]"):
                found.append(f"{row[:-1]},{inside}]" if inside else row)
            else:
                found.append(f"{row}[{inside}]" if inside else row)
    return found


def _pair(text: str, flag: str, form: str) -> str:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not key or not equals or not value:
        raise BenchError(f"{flag} {text}: {form} is needed, as in threshold=0.3")
    return f"{key}={value}"


def choose_datasets(config: Config, named: Sequence[str] | None, table: str | None) -> tuple[list[str], bool]:
    """Names of the datasets that were asked for, and whether they were named one by one, so that each must be there."""
    if named is None and table is not None:
        return list(config.tables[table].columns), False
    if named is None or list(named) == ["all"]:
        return list(config.default_datasets), False
    return list(dict.fromkeys(named)), True
