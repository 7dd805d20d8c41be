"""Checksums of files, and JSON that carries a checksum over its own content, so that damage of a single bit is seen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

CHECKSUM = "checksum"


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content with its checksum as the last entry.

    The checksum is the SHA-256 of the content as JSON with sorted keys, so layout and order of keys are free.
    """
    bare = {key: value for key, value in content.items() if key != CHECKSUM}
    text = json.dumps(bare, sort_keys=True, separators=(",", ":"))
    return {**bare, CHECKSUM: hashlib.sha256(text.encode()).hexdigest()}


def unsealed(data: bytes, known: Collection[str] = ()) -> dict[str, Any]:
    """Return the JSON object in `data`, with its checksum if it has one.

    known: the keys that versions without checksums wrote. Another key in an object without checksum is damage: it may
    be what became of the checksum's. Raises ValueError where there is no object, or where it is damaged.
    """
    try:
        content = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    if CHECKSUM in content and content != sealed(content):
        raise ValueError("its content is not what its checksum says")
    if CHECKSUM not in content and (unknown := sorted(content.keys() - set(known))):
        raise ValueError(f"has no checksum, and holds '{unknown[0]}', which no version without checksums wrote")
    return content


def sha256_hash(file: Path) -> str:
    """Return the SHA-256 of a file's content."""
    return file_hash(file, hashlib.sha256())


def file_hash(file: Path, digest: Any) -> str:
    """Return the hash of a file's content, after what `digest`, an object of hashlib, has seen already."""
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    found: str = digest.hexdigest()
    return found
