"""Names that a run is given, and what they stand for. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bench.config import Config

STATES: Final = ("missing", "failed", "stale")  # that a run can be restricted to


def listed(names: str | Sequence[str] | None) -> list[str] | None:
    """The names in "a,b" or in a list; None for None."""
    if names is None:
        return None
    parts = names.split(",") if isinstance(names, str) else names
    return [part.strip() for part in parts if part.strip()]


def choose_datasets(config: Config, named: Sequence[str] | None, table: str | None) -> tuple[list[str], bool]:
    """Names of the datasets that were asked for, and whether they were named one by one, so that each must be there."""
    if named is None and table is not None:
        return list(config.tables[table].columns), False
    if named is None or list(named) == ["all"]:
        return list(config.default_datasets), False
    return list(dict.fromkeys(named)), True
