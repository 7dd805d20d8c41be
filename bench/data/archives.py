"""Files in folders and in archives, without unpacking."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from bench.errors import BenchError, reading
from bench.paths import cache_dir
from bench.runtime.atomic import replacing

_ROOM, _PACKED = 256 << 20, 100  # bytes, and times what they are packed into: more is no image, and no set of images
_DAMAGED = (EOFError, ValueError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError)


class File(NamedTuple):
    """A file on disk, or a member of an archive on disk. Picklable; `str` gives what errors call it."""

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}!{self.member}"

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.member or self.path.name).suffix.lower()

    def size(self) -> int:
        """Bytes, unpacked; -1 where the file cannot be reached, as behind a broken link."""
        try:
            return self.path.stat().st_size if self.member is None else _archive(self.path).size(self.member)
        except OSError:
            return -1

    def stamp(self) -> str:
        """Size and time of the last change, of the file or of its archive."""
        try:
            return f"{self.size()}:{self.path.stat().st_mtime_ns}"
        except OSError:
            return "-1"

    def checksum(self) -> str:
        """Size and CRC-32 of the content, which an archive knows without unpacking. Raises BenchError as `read`."""
        if self.member is not None and (crc := _archive(self.path).crc(self.member)) is not None:
            return f"{self.size():x}-{crc:08x}"
        data = self.read()
        return f"{len(data):x}-{zlib.crc32(data):08x}"

    def read(self) -> bytes:
        """All bytes. Raises BenchError where the file or its archive cannot be read."""
        try:
            if self.member is None and not stat.S_ISREG(self.path.stat().st_mode):
                raise BenchError(f"{self}: not a regular file; remove it, or put the file itself there")
            return self.path.read_bytes() if self.member is None else _archive(self.path).read(self.member)
        except (*_DAMAGED, OSError, RuntimeError) as error:
            raise BenchError(f"{self}: cannot be read ({error}); get the file again") from None


class Tree:
    """A folder, with the archives in it laid over it as if unpacked in place; or one archive alone.

    `archives` are globs below the folder. Where a file is on disk as well, that one is taken.
    """

    def __init__(self, root: Path, archives: Sequence[str] = ()) -> None:
        self.root = root
        self._packed: dict[str, dict[str, File | None]] = {}
        self._listed: dict[str, Mapping[str, File | None]] = {}
        found = [root] if root.is_file() else _archives_in(root, archives)
        for path in found:
            self._lay_over(path, "" if path == root else path.parent.relative_to(root).as_posix())

    def list(self, folder: str) -> Mapping[str, File | None]:
        """Return the content of a folder ("" is the root): name -> file, None for a folder. Without hidden files."""
        if folder not in self._listed:
            children = dict(self._packed.get(folder, {}))
            on_disk = self.root / folder
            with reading(on_disk, "correct its permissions"):
                if on_disk.is_dir():
                    with os.scandir(on_disk) as entries:
                        children |= {e.name: None if _is_folder(e) else File(Path(e.path)) for e in entries}
            self._listed[folder] = {name: file for name, file in children.items() if name[:1] not in ("", ".")}
        return self._listed[folder]

    def get(self, path: str) -> File | None:
        """Return the file at a path below the root, or None."""
        folder, _, name = path.rpartition("/")
        return self.list(folder).get(name)

    def get_any_case(self, path: str) -> File | None:
        """As `get`; the letter case of the ending does not matter."""
        folder, _, name = path.rpartition("/")
        listed = self.list(folder)
        if name in listed:
            return listed[name]
        stem, dot, ending = name.rpartition(".")
        spellings = [f"{stem}{dot}{ending.lower()}", f"{stem}{dot}{ending.upper()}"]
        return next((listed[spelling] for spelling in spellings if listed.get(spelling)), None)

    def _lay_over(self, path: Path, folder: str) -> None:
        archive = _plain(path)
        for member in _archive(archive).names():
            parts = PurePosixPath("" if folder == "." else folder, member).parts
            for depth in range(1, len(parts)):
                self._packed.setdefault("/".join(parts[: depth - 1]), {}).setdefault(parts[depth - 1])
            self._packed.setdefault("/".join(parts[:-1]), {}).setdefault(parts[-1], File(archive, member))


def _archives_in(root: Path, globs: Sequence[str]) -> list[Path]:
    """Return the archives that the globs name; `*.zip` finds a .tar.gz of that name as well."""
    found: dict[Path, None] = {}
    with reading(root, "correct its permissions"):
        for glob in globs:
            stem = glob.removesuffix(".gz").removesuffix(".tar").removesuffix(".zip")
            for ending in dict.fromkeys((glob.removeprefix(stem), ".zip", ".tar", ".tar.gz", ".tgz")):
                found |= dict.fromkeys(path for path in sorted(root.glob(stem + ending)) if path.is_file())
    return list(found)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


class _Zip:
    def __init__(self, path: Path) -> None:
        self._file = zipfile.ZipFile(path)

    def names(self) -> list[str]:
        return [member.filename for member in self._file.infolist() if member.filename[-1:] not in ("", "/")]

    def size(self, name: str) -> int:
        return self._file.getinfo(name).file_size

    def crc(self, name: str) -> int | None:
        return self._file.getinfo(name).CRC

    def read(self, name: str) -> bytes:
        member = self._file.getinfo(name)
        _check_size(f"{self._file.filename}!{name}", member.file_size, member.compress_size)
        with self._file.open(member) as stream:
            return stream.read(member.file_size)


class _Tar:
    def __init__(self, path: Path) -> None:
        self._path = path
        with tarfile.open(path, "r:") as archive:
            self._where = {m.name: (m.offset_data, m.size) for m in archive if m.isfile()}

    def names(self) -> list[str]:
        return list(self._where)

    def size(self, name: str) -> int:
        return self._where[name][1]

    def crc(self, name: str) -> int | None:
        return None

    def read(self, name: str) -> bytes:
        offset, size = self._where[name]
        with self._path.open("rb") as file:
            file.seek(offset)
            return file.read(size)


def _check_size(what: str, unpacked: int, packed: int) -> None:
    if unpacked > _ROOM + _PACKED * packed:
        raise BenchError(
            f"{what}: {packed:,} bytes would be unpacked to {unpacked:,} or more; if that is right, unpack it by hand"
        )


def _archive(path: Path) -> _Zip | _Tar:
    """Return the opened archive, opened once per process and again when the file has changed."""
    return _opened(path, path.stat().st_mtime_ns, os.getpid())


@lru_cache(maxsize=16)
def _opened(path: Path, changed: int, process: int) -> _Zip | _Tar:
    try:
        with reading(path, "correct its permissions"):
            return _Zip(path) if zipfile.is_zipfile(path) else _Tar(path)
    except (*_DAMAGED, NotImplementedError) as error:
        raise BenchError(f"{path}: not a whole zip or tar archive ({error}); get it again") from None


def _plain(path: Path) -> Path:
    """Return the archive itself, or an uncompressed copy of a .tar.gz, which can be read out of order.

    The copy is in the cache folder and is made once.
    """
    if path.suffix not in (".gz", ".tgz"):
        return path
    facts = path.stat()
    key = hashlib.sha256(f"{path.resolve()} {facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()[:16]
    copy = cache_dir() / "archives" / f"{path.name.partition('.')[0]}-{key}.tar"
    if not copy.exists():
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
            with replacing(copy) as temporary, gzip.open(path) as packed, temporary.open("wb") as file:
                while block := packed.read(1 << 20):
                    file.write(block)
                    _check_size(str(path), file.tell(), facts.st_size)
        except (*_DAMAGED, gzip.BadGzipFile) as error:
            raise BenchError(f"{path}: the archive is cut off or damaged ({error}); get it again") from None
        except OSError as error:
            raise BenchError(
                f"{path}: cannot be decompressed to {copy.parent} ({error}); unpack it by hand, or set OVSS_BENCH_CACHE"
            ) from None
    return copy
