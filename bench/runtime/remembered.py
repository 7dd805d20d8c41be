"""Values that took time to find, kept in the cache folder beside what tells whether they still hold."""

from __future__ import annotations

import json
from pathlib import Path

from bench.runtime.atomic import write_atomic
from bench.runtime.checksum import CHECKSUM, sealed, unsealed


class Remembered:
    """Text by name, each valid as long as its stamp is the same; a file that is lost or unwritable costs time alone."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = _read(file)
        self._changed = False

    def get(self, name: str, stamp: str) -> str | None:
        """Return what is known under a name; None where that is nothing, or of another stamp."""
        known = self._known.get(name)
        return known[1] if known and known[0] == stamp else None

    def set(self, name: str, stamp: str, value: str) -> None:
        """Remember a value; `save` keeps it."""
        self._known[name] = [stamp, value]
        self._changed = True

    def save(self) -> None:
        """Write the file, if something is new."""
        if not self._changed:
            return
        self._changed = False
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._file, json.dumps(sealed(self._known)).encode())
        except OSError:
            return


def _read(file: Path) -> dict[str, list[str]]:
    """Read the entries of a file; none where it is damaged, or of a version without checksums."""
    try:
        content = unsealed(file.read_bytes())
    except (OSError, ValueError):
        return {}
    content.pop(CHECKSUM, None)
    return content
