"""Files in folders and in archives, without unpacking."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from bench.errors import BenchError
from bench.paths import cache_dir


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
        """Bytes, unpacked."""
        return self.path.stat().st_size if self.member is None else _archive(self.path).size(self.member)

    def read(self) -> bytes:
        """All bytes. Raises BenchError where the file or its archive cannot be read."""
        try:
            return self.path.read_bytes() if self.member is None else _archive(self.path).read(self.member)
        except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, RuntimeError) as error:
            raise BenchError(f"{self}: cannot be read ({error}); get the file again") from None


class Tree:
    """A folder, with the archives in it laid over it as if unpacked where they lie; or one archive alone.

    `archives` are globs below the folder. Where a file lies on disk as well, that one is taken.
    """

    def __init__(self, root: Path, archives: Sequence[str] = ()) -> None:
        self.root = root
        self._packed: dict[str, dict[str, File | None]] = {}
        self._listed: dict[str, Mapping[str, File | None]] = {}
        found = [root] if root.is_file() else [path for glob in archives for path in sorted(root.glob(glob))]
        for path in found:
            self._lay_over(path, "" if path == root else path.parent.relative_to(root).as_posix())

    def list(self, folder: str) -> Mapping[str, File | None]:
        """What lies in a folder ("" is the root): name -> file, None for a folder. Without hidden files."""
        if folder not in self._listed:
            children = dict(self._packed.get(folder, {}))
            on_disk = self.root / folder
            if on_disk.is_dir():
                with os.scandir(on_disk) as entries:
                    children |= {e.name: None if e.is_dir() else File(Path(e.path)) for e in entries}
            self._listed[folder] = {name: file for name, file in children.items() if name[0] != "."}
        return self._listed[folder]

    def get(self, path: str) -> File | None:
        """The file at a path below the root, or None."""
        folder, _, name = path.rpartition("/")
        return self.list(folder).get(name)

    def _lay_over(self, path: Path, folder: str) -> None:
        archive = _plain(path)
        for member in _archive(archive).names():
            parts = PurePosixPath("" if folder == "." else folder, member).parts
            for depth in range(1, len(parts)):
                self._packed.setdefault("/".join(parts[: depth - 1]), {}).setdefault(parts[depth - 1])
            self._packed.setdefault("/".join(parts[:-1]), {}).setdefault(parts[-1], File(archive, member))


class _Zip:
    def __init__(self, path: Path) -> None:
        self._file = zipfile.ZipFile(path)

    def names(self) -> list[str]:
        return [member.filename for member in self._file.infolist() if not member.is_dir()]

    def size(self, name: str) -> int:
        return self._file.getinfo(name).file_size

    def read(self, name: str) -> bytes:
        return self._file.read(name)


class _Tar:
    def __init__(self, path: Path) -> None:
        self._path = path
        with tarfile.open(path, "r:") as archive:
            self._where = {m.name: (m.offset_data, m.size) for m in archive if m.isfile()}

    def names(self) -> list[str]:
        return list(self._where)

    def size(self, name: str) -> int:
        return self._where[name][1]

    def read(self, name: str) -> bytes:
        offset, size = self._where[name]
        with self._path.open("rb") as file:
            file.seek(offset)
            return file.read(size)


def _archive(path: Path) -> _Zip | _Tar:
    """The opened archive; opened once a process, and again when the file has changed."""
    return _opened(path, path.stat().st_mtime_ns, os.getpid())


@lru_cache(maxsize=16)
def _opened(path: Path, changed: int, process: int) -> _Zip | _Tar:
    try:
        return _Zip(path) if zipfile.is_zipfile(path) else _Tar(path)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise BenchError(f"{path}: not a whole zip or tar archive ({error}); get it again") from None


def _plain(path: Path) -> Path:
    """The archive itself, or a copy of a .tar.gz without the compression, which forbids reading out of order.

    The copy lies in the cache folder and is made once.
    """
    if path.suffix not in (".gz", ".tgz"):
        return path
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:16]
    copy = cache_dir() / "archives" / f"{path.name.partition('.')[0]}-{key}.tar"
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        partial = copy.with_suffix(f".{os.getpid()}.part")
        try:
            with gzip.open(path) as packed, partial.open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 20)
            partial.replace(copy)
        except (OSError, EOFError) as error:
            raise BenchError(f"{path}: cannot be decompressed to {copy.parent} ({error}); unpack it by hand") from None
        finally:
            partial.unlink(missing_ok=True)
    return copy
