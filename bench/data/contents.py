"""Checksums of files' contents, computed once, and again only where size or time of change say so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from bench.data.samples import SampleSet
from bench.errors import BenchError
from bench.paths import cache_dir
from bench.runtime.atomic import write_atomic
from bench.runtime.checksum import CHECKSUM, sealed, unsealed


class ContentCache:
    """Checksums of a dataset's sources, kept in the cache folder beside size and time of change of their files.

    A cache that is lost or cannot be written costs time, nothing else.
    """

    def __init__(self, samples: SampleSet) -> None:
        self._samples = samples
        key = hashlib.sha256(f"{samples.root.resolve()} {samples.layout}".encode(errors="surrogateescape")).hexdigest()
        self._file = cache_dir() / "contents" / f"{samples.card.name}-{key[:12]}.json"
        self._known: dict[str, list[str]] = _read(self._file)
        self._stamps = [samples.stamp(source) for source in range(len(samples.sources))]
        self._changed = False

    def all(self) -> tuple[str | None, ...]:
        """For each sample the checksum of what its files hold now; None where they cannot be read."""
        found: list[str | None] = []
        for source, indices in enumerate(self._samples.sources):
            found += [self._of(source)] * len(indices)
        self.save()
        return tuple(found)

    def remember(self, contents: Mapping[int, str]) -> None:
        """Take over checksums by source that were computed while reading."""
        for source, content in contents.items():
            self._set(source, content)
        self.save()

    def save(self) -> None:
        """Write the cache, if something is new."""
        if not self._changed:
            return
        self._changed = False
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._file, json.dumps(sealed(self._known)).encode())
        except OSError:
            return

    def _of(self, source: int) -> str | None:
        stamp, known = self._stamps[source], self._known.get(self._name(source))
        if known and known[0] == stamp:
            return known[1]
        try:
            content = self._samples.content(source)
        except BenchError:
            return None
        self._set(source, content)
        return content

    def _set(self, source: int, content: str) -> None:
        self._known[self._name(source)] = [self._stamps[source], content]
        self._changed = True

    def _name(self, source: int) -> str:
        return self._samples.ids[self._samples.sources[source].start]


def _read(file: Path) -> dict[str, list[str]]:
    """Read the entries of a cache; none where it is damaged, or of a version without checksums."""
    try:
        content = unsealed(file.read_bytes())
    except (OSError, ValueError):
        return {}
    content.pop(CHECKSUM, None)
    return content
