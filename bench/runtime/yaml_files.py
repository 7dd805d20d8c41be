"""Reads YAML files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from bench.errors import BenchError, reading

_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where PyYAML was built with libyaml


class _Loader(_Safe):  # type: ignore[misc]
    """PyYAML's loader, but for equal keys, of which it takes the last: they are an error with its line."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if (key.tag, str(key.value)) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' stands twice", key.start_mark)
            seen.add((key.tag, str(key.value)))
        return super().construct_mapping(node, deep=deep)


def read_yaml(file: Path, instead: str) -> Any:
    """Values of a YAML file: mappings, lists, numbers, text.

    file: encoded as UTF-8, with or without a byte order mark
    instead: what to give where the file cannot be read, for the message of the BenchError
    """
    with reading(file, f"give {instead}"):
        return yaml_value(file.read_text(encoding="utf-8-sig"), str(file))


def yaml_value(text: str, where: str) -> Any:
    """Value of a text in YAML; `where` is how the message of the BenchError begins."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split()).replace(' in "<unicode string>", line', ", line")
        raise BenchError(f"{where}: not valid YAML: {reason}") from None
