"""Reads YAML files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from bench.errors import BenchError

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where PyYAML was built with libyaml


def read_yaml(file: Path, instead: str) -> Any:
    """Values of a YAML file: mappings, lists, numbers, text.

    file: encoded as UTF-8, with or without a byte order mark
    instead: what to give where the file cannot be read, for the message of the BenchError
    """
    try:
        return yaml.load(file.read_text(encoding="utf-8-sig"), _Loader)
    except OSError as error:
        raise BenchError(f"{file}: cannot be read ({error.strerror}); give {instead}") from None
    except UnicodeDecodeError:
        raise BenchError(f"{file}: not a text file; give {instead}") from None
    except yaml.YAMLError as error:
        raise BenchError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
