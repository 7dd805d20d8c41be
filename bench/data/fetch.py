"""Fetching one file: resumed, retried, checked, complete or not there at all."""

from __future__ import annotations

import hashlib
import http.client
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from tqdm import tqdm

from bench import __version__
from bench.errors import BenchError
from bench.runtime.checksum import file_hash, sha256_hash
from bench.runtime.hub import hub_endpoint, hub_headers, on_hub
from bench.runtime.room import check_room

ATTEMPTS = 5  # in a row, without a byte received
_TIMEOUT = 60.0  # seconds of silence
_BLOCK = 1 << 20
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # HTTP states of servers that may answer later
_NETWORK = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)
_PICKLE = b"\x80"  # how torch files of before 2020 begin
_IMAGES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")


def fetch(
    url: str, target: Path, *, md5: str | None = None, git_blob: str | None = None, sha256: str | None = None
) -> bool:
    """Put the file at `url` into `target`; False where it was there already.

    An interrupted download resumes from "<target>.part". `target` appears only when it is complete and its checksum
    is right; one that is there already is checked as well. git_blob: the hash under which git stores the content.

    Raises BenchError for an address that does not answer, a wrong checksum, and a disk without the room.
    """
    checksums = [("md5", md5, md5_hash), ("git blob hash", git_blob, git_blob_hash), ("sha256", sha256, sha256_hash)]
    if target.exists():
        _check(target, checksums, "delete it to download it again")
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    _receive_all(url, part)
    _version_file(part).unlink(missing_ok=True)
    try:
        _check(part, checksums, "it was deleted; run the same command again, or get the file by hand")
        if not any(expected for _, expected, _ in checksums):
            _check_kind(part, target)
    except BenchError:
        part.unlink()
        raise
    part.replace(target)
    return True


def linked_images(page: str) -> list[str]:
    """Addresses of all images that an HTML page links to, in the page's order. Raises BenchError for none."""
    try:
        with urllib.request.urlopen(_request(page), timeout=_TIMEOUT) as response:
            parser = _Links()
            parser.feed(response.read().decode("utf-8", "replace"))
    except _NETWORK as error:
        raise BenchError(f"{page}: cannot be read ({error}); run the same command again later") from None
    found = [urljoin(page, link) for link in parser.links if urlsplit(link).path.lower().endswith(_IMAGES)]
    if not found:
        raise BenchError(f"{page}: links to no image; the page has changed, get its files by hand")
    return list(dict.fromkeys(found))


def md5_hash(file: Path) -> str:
    """MD5 of a file's content."""
    return file_hash(file, hashlib.md5(usedforsecurity=False))


def git_blob_hash(file: Path) -> str:
    """Return the hash under which git stores a file's content."""
    return file_hash(file, hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False))


def _receive_all(url: str, part: Path) -> None:
    """Request after request until `part` is whole."""
    failures = 0
    while True:
        before = _size(part)
        try:
            return _receive(url, part)
        except urllib.error.HTTPError as error:
            if error.code not in _PASSING:
                raise BenchError(f"{url}: {error.code} {error.reason}; {_advice(error.code, url, part)}") from None
            reason: Exception = error
        except _NETWORK as error:
            reason = error
        failures = 1 if _size(part) > before else failures + 1
        if failures == ATTEMPTS:
            raise BenchError(f"{url}: the connection fails ({reason}); run the same command again to continue")
        time.sleep(2 ** (failures - 1))


def _advice(code: int, url: str, part: Path) -> str:
    by_hand = f"get {part.stem} by hand into {part.parent}"
    if code not in (401, 403) or not on_hub(url).startswith(f"{hub_endpoint()}/"):
        return by_hand
    if hub_headers(on_hub(url)):
        return f"accept its terms there with the account of your token, or {by_hand}"
    return f"accept its terms there, then run `hf auth login` or set HF_TOKEN, or {by_hand}"


def _receive(url: str, part: Path) -> None:
    """One request for what is missing of `part`. Raises ConnectionError where the answer ends early."""
    offset = _size(part)
    try:
        response = urllib.request.urlopen(_request(url, _range(part, offset)), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get("Content-Range") == f"bytes */{offset}":
            return  # nothing was missing
        part.unlink()
        raise ConnectionError("the file on the server is another one than before") from None
    with response:
        if response.status != 206:  # the server cannot resume, or the file is another one by now
            offset = 0
            _version_file(part).write_text(_version(response.headers), encoding="latin-1")
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
            part.unlink()
            raise ConnectionError("the server answered with another part of the file")
        length = response.headers.get("Content-Length")
        total = offset + int(length) if length else None
        if total is not None:
            check_room(part.parent, total - offset)
        _append(response, part, offset, total)
    if total is not None and _size(part) < total:
        raise ConnectionError(f"closed after {_size(part):,} of {total:,} bytes")


def _append(response: Any, part: Path, offset: int, total: int | None) -> None:
    bar = tqdm(total=total, initial=offset, unit="B", unit_scale=True, desc=part.stem, disable=None)
    with bar, part.open("ab" if offset else "wb") as file:
        while block := response.read(_BLOCK):
            file.write(block)
            bar.update(len(block))


def _request(url: str, headers: Mapping[str, str] | None = None) -> urllib.request.Request:
    always = {"User-Agent": f"ovss-bench/{__version__}", "Accept-Encoding": "identity"}
    request = urllib.request.Request(on_hub(url), headers={**always, **(headers or {})})
    for name, value in hub_headers(request.full_url).items():
        request.add_unredirected_header(name, value)  # the storage that the hub redirects to may not see it
    return request


def _range(part: Path, offset: int) -> dict[str, str]:
    """Headers that ask for the rest of the version of the file that `part` is the beginning of."""
    if not offset:
        return {}
    file = _version_file(part)
    version = file.read_text(encoding="latin-1") if file.exists() else ""
    return {"Range": f"bytes={offset}-"} | ({"If-Range": version} if version else {})


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _version(headers: Any) -> str:
    """Return the value for If-Range: a strong entity tag, else the date, else "" (RFC 9110, 13.1.5)."""
    tag: str = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _check(file: Path, checksums: Sequence[tuple[str, str | None, Callable[[Path], str]]], advice: str) -> None:
    for kind, expected, digest in checksums:
        if expected and (found := digest(file)) != expected:
            raise BenchError(f"{file}: wrong {kind}, {found} and not {expected}; {advice}")


def _check_kind(part: Path, target: Path) -> None:
    """Refuse a file that is no archive but is called one: servers may answer with a page instead."""
    ending, what = target.suffix.lower(), None
    if ending in (".zip", ".tar", ".gz", ".tgz") and not (zipfile.is_zipfile(part) or tarfile.is_tarfile(part)):
        what = "archive"
    elif ending in (".pt", ".pth", ".ckpt") and not (zipfile.is_zipfile(part) or _begins(part, _PICKLE)):
        what = "checkpoint"
    if what:
        raise BenchError(
            f"{target}: what the server sent is no {what}, or not all of it; it was deleted; run the same command "
            "again, or get the file by hand"
        )


def _begins(file: Path, with_bytes: bytes) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(with_bytes)) == with_bytes


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


class _Links(HTMLParser):
    """Collects the link targets of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if tag == "a" and name == "href" and value]
