"""Label maps that a run kept of a cell: `predictions/<sample>.png` beside its counts.

Each file carries a checksum of its sample and its bytes, as a text of the PNG, and is held against it when it is read.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.runtime.atomic import write_atomic
from bench.settings import Settings
from bench.store.result import StoredResult
from bench.store.writer import naming

FOLDER, KEY = "predictions", "made-with.txt"
_END = 12  # bytes of the chunk that ends a PNG


class LabelMaps:
    """The label maps of one cell. They belong to its counts, threshold and background; others are forgotten."""

    def __init__(self, folder: Path, fingerprint: str, settings: Settings) -> None:
        """Open the label maps in a cell's folder.

        folder: of the cell.
        fingerprint: see `bench.store.record.identity`.
        settings: of the cell.
        """
        self._folder = folder / FOLDER
        final = f"{fingerprint} {settings.threshold} {settings.background}"
        self._key = hashlib.sha256(final.encode()).hexdigest()

    @classmethod
    def of(cls, cell: StoredResult) -> LabelMaps:
        """Return the label maps of a stored cell."""
        folder = cell.pieces[0].folder
        return cls(folder.parent if cell.record.shard else folder, cell.record.fingerprint, cell.settings)

    @property
    def valid(self) -> bool:
        """Whether what is there was made with these settings and inputs."""
        try:
            return (self._folder / KEY).read_text(encoding="ascii") == self._key
        except (OSError, UnicodeDecodeError):
            return False

    def begin(self) -> None:
        """Forget what other settings left. To be called before `write`."""
        if self.valid:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for old in self._folder.glob("*.png"):
            old.unlink()
        write_atomic(self._folder / KEY, self._key.encode())

    def write(self, sample: str, png: bytes) -> None:
        """Keep the label map of a sample, an indexed PNG whose values are the numbers of the classes.

        Raises BenchError where the disk is full or not writable.
        """
        with naming(self._folder):
            write_atomic(self._place(sample), self._sealed(png, sample))

    def find(self, sample: str) -> bytes | None:
        """Return the PNG of a sample; None where it was not kept, or is not as it was written."""
        if not self.valid:
            return None
        try:
            data = self._place(sample).read_bytes()
        except OSError:
            return None
        bare = data[: -len(self._seal(b"", sample)) - _END] + data[-_END:]
        return data if self._sealed(bare, sample) == data else None

    def labels(self, sample: str) -> NDArray[np.uint8] | None:
        """Return the label map (H, W) of a sample; None as `find`."""
        png = self.find(sample)
        return None if png is None else np.asarray(Image.open(io.BytesIO(png)))

    def kept(self, samples: Iterable[str]) -> set[str]:
        """Return the samples of which a file is there; `find` reads it and holds it against its checksum."""
        names = {file.name for file in self._folder.glob("*.png")} if self.valid else set()
        return {sample for sample in samples if self._place(sample).name in names}

    def missing(self, samples: Iterable[tuple[int, str]]) -> set[int]:
        """Return the numbers of the samples (number, id) for which `find` finds nothing."""
        return {index for index, sample in samples if self.find(sample) is None}

    def _sealed(self, png: bytes, sample: str) -> bytes:
        return png[:-_END] + self._seal(png, sample) + png[-_END:]

    def _seal(self, png: bytes, sample: str) -> bytes:
        """Return the chunk of a PNG with the checksum of its other bytes, the sample, and what it was made with."""
        digest = hashlib.sha256(b"\0".join((self._key.encode(), sample.encode(errors="surrogateescape"), png)))
        text = b"tEXtChecksum\0" + digest.hexdigest().encode()
        return (len(text) - 4).to_bytes(4, "big") + text + zlib.crc32(text).to_bytes(4, "big")

    def _place(self, sample: str) -> Path:
        name = quote(sample, safe=" ()[]+@,;=")
        if len(name) > 200:  # longer than file systems like
            name = f"{name[:150]}-{hashlib.sha256(sample.encode()).hexdigest()[:16]}"
        return self._folder / f"{name}.png"
