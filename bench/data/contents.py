"""Checksums of files' contents, computed once, and again only where size or time of change say so."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from bench.data.samples import SampleSet
from bench.errors import BenchError
from bench.paths import cache_dir
from bench.runtime.remembered import Remembered


class ContentCache:
    """Checksums of a dataset's sources, kept in the cache folder beside size and time of change of their files.

    A cache that is lost or cannot be written costs time, nothing else.
    """

    def __init__(self, samples: SampleSet) -> None:
        self._samples = samples
        key = hashlib.sha256(f"{samples.root.resolve()} {samples.layout}".encode(errors="surrogateescape")).hexdigest()
        self._known = Remembered(cache_dir() / "contents" / f"{samples.card.name}-{key[:12]}.json")
        self._stamps = [samples.stamp(source) for source in range(len(samples.sources))]

    def all(self) -> tuple[str | None, ...]:
        """For each sample the checksum of what its files hold now; None where they cannot be read."""
        found: list[str | None] = []
        for source, indices in enumerate(self._samples.sources):
            found += [self._of(source)] * len(indices)
        self._known.save()
        return tuple(found)

    def remember(self, contents: Mapping[int, str]) -> None:
        """Take over checksums by source that were computed while reading."""
        for source, content in contents.items():
            self._set(source, content)
        self._known.save()

    def _of(self, source: int) -> str | None:
        known = self._known.get(self._name(source), self._stamps[source])
        if known is not None:
            return known
        try:
            content = self._samples.content(source)
        except BenchError:
            return None
        self._set(source, content)
        return content

    def _set(self, source: int, content: str) -> None:
        self._known.set(self._name(source), self._stamps[source], content)

    def _name(self, source: int) -> str:
        return self._samples.ids[self._samples.sources[source].start]
