"""Files in folders and in archives, without unpacking."""

from __future__ import annotations

import builtins
import contextlib
import copy
import gzip
import hashlib
import io
import json
import lzma
import os
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, cast

from tqdm import tqdm

from bench.data.patterns import same_name
from bench.errors import BenchError, reading
from bench.paths import cache_dir
from bench.runtime.atomic import replacing
from bench.runtime.remembered import Remembered
from bench.runtime.room import check_room, size_text

_ROOM, _PACKED = 256 << 20, 100  # bytes, and times what they are packed into: more is no image, and no set of images
_DAMAGED = (EOFError, ValueError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError)
_GZIP, _UTF_8 = b"\x1f\x8b", 0x800  # how gzip begins; mark of a zip's name
_ZIPPED = (".tar.gz", ".tgz")
_POINTER = b"version https://git-lfs"
_UNFINISHED = "an unfinished download; finish it"
_CLOSED = {
    **dict.fromkeys((".7z", ".rar"), "not opened; unpack it there (7z x)"),
    **dict.fromkeys((".xz", ".bz2", ".zst", ".lzma", ".txz", ".tbz2"), "not opened; unpack it there (tar xf)"),
    **dict.fromkeys((".part", ".crdownload", ".aria2", ".download", ".partial"), _UNFINISHED),
    **dict.fromkeys((".001", ".z01"), "a part of a split archive; unpack it there with all parts beside it (7z x)"),
}
"""What to do with files that are no archive that can be read here."""


class File(NamedTuple):
    """A file on disk, or a member of an archive on disk. Picklable; `str` gives what errors call it."""

    on_disk: str  # a Path costs as much as finding the file
    member: str | None = None

    def __str__(self) -> str:
        return self.on_disk if self.member is None else f"{self.on_disk}!{self.member}"

    @property
    def path(self) -> Path:
        """Place of the file, or of the archive that it is in."""
        return Path(self.on_disk)

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
        with self.open() as stream, _explained(self, self.path):
            data = stream.read()
        if data.startswith(_POINTER):
            raise BenchError(f"{self}: a pointer of Git LFS, not the file itself; run `git lfs pull` there")
        return data

    def make_ready(self) -> None:
        """Decompress the archive that the file is in, if it has to be before anything is read. Raises as `read`."""
        if self.member is not None and isinstance(archive := _archive(self.path), _Tar):
            archive.unpack()

    def open(self) -> BinaryIO:
        """Open for reading from any place; of an archive's member only what is read is inflated. Raises as `read`."""
        with _explained(self, self.path):
            if self.member is not None:
                return _archive(self.path).open(self.member)
            if not stat.S_ISREG(self.path.stat().st_mode):
                raise BenchError(f"{self}: not a regular file; remove it, or put the file itself there")
            return self.path.open("rb")


class Tree:
    """A folder, with the archives in it laid over it as if unpacked in place; or one archive alone.

    archives: globs below the folder. Where a file is on disk as well, that one is taken.
    closed: names of archives that hold nothing that is wanted.
    odd: archives that cannot be read, and archives in archives, each with what to do.
    """

    def __init__(self, root: Path, archives: Sequence[str] = (), closed: Collection[str] = ()) -> None:
        self.root = root
        self.odd: builtins.list[str] = []
        self._base = ""
        self._spellings: dict[str, str] = {}
        self._packed: dict[str, dict[str, File | None]] = {}
        self._listed: dict[str, Mapping[str, File | None]] = {}
        if root.is_file():
            self._lay_over(root, "")
        for path in () if root.is_file() else archives_in(root, archives, closed):
            try:
                self._lay_over(path, path.parent.relative_to(root).as_posix())
            except BenchError as error:
                self.odd.append(str(error))

    def at(self, folder: str) -> Tree:
        """Return the tree of a folder below this one; paths begin there."""
        below = copy.copy(self)
        below._base, below._spellings = self._below(folder), {}
        return below

    def list(self, folder: str) -> Mapping[str, File | None]:
        """Return the content of a folder ("" is the root): name -> file, None for a folder. Without hidden files."""
        folder = self._below(folder)
        if folder not in self._listed:
            children = dict(self._packed.get(folder, {}))
            on_disk = self.root / folder
            with reading(on_disk, "correct its permissions"):
                if on_disk.is_dir():
                    with os.scandir(on_disk) as entries:
                        children |= {e.name: None if _is_folder(e) else File(e.path) for e in entries}
            self._listed[folder] = {name: file for name, file in children.items() if name[:1] not in ("", ".")}
        return self._listed[folder]

    def get(self, path: str) -> File | None:
        """Return the file at a path below the root, or None; see `same_name` for how it may be spelled."""
        folder, _, name = path.rpartition("/")
        listed = self.list(self._spelled(folder))
        found = same_name(name, listed)
        return listed[found] if found is not None else None

    def _spelled(self, folder: str) -> str:
        if folder not in self._spellings:
            above, _, name = folder.rpartition("/")
            above = self._spelled(above) if above else above
            found = same_name(name, self.list(above)) if name else None
            self._spellings[folder] = "/".join(filter(None, (above, found or name)))
        return self._spellings[folder]

    def refused(self) -> builtins.list[str]:
        """`odd`, and files in the root that look like archives but cannot be read here."""
        names = self.list("") if self.root.is_dir() else ()
        closed = [(name, _CLOSED.get(PurePosixPath(name).suffix.lower())) for name in sorted(names)]
        return [*self.odd, *(f"{self.root / self._base / name}: {advice}" for name, advice in closed if advice)]

    def _below(self, folder: str) -> str:
        return f"{self._base}/{folder}" if self._base and folder else self._base or folder

    def _lay_over(self, path: Path, folder: str) -> None:
        inner = None
        for member in _archive(path).names():
            parts = PurePosixPath("" if folder == "." else folder, member).parts
            for depth in range(1, len(parts)):
                self._packed.setdefault("/".join(parts[: depth - 1]), {}).setdefault(parts[depth - 1])
            self._packed.setdefault("/".join(parts[:-1]), {}).setdefault(parts[-1], File(str(path), member))
            if member.lower().endswith((".zip", ".tar", ".7z", ".rar", *_ZIPPED)) and "__MACOSX" not in parts:
                inner = inner or member
        if inner:
            self.odd.append(f"{path}: holds the archive {inner}, which is not opened; unpack {path.name} there")


def archives_in(root: Path, globs: Sequence[str], closed: Collection[str] = ()) -> list[Path]:
    """Return the archives that the globs name but those called `closed`; `*.zip` finds a .tar.gz of that name too."""
    found: dict[Path, None] = {}
    without = {name.casefold() for name in closed}
    with reading(root, "correct its permissions"):
        for glob in globs:
            stem = glob.removesuffix(".gz").removesuffix(".tar").removesuffix(".zip")
            for ending in dict.fromkeys((glob.removeprefix(stem), ".zip", ".tar", *_ZIPPED)):
                found |= dict.fromkeys(path for path in sorted(root.glob(stem + ending)) if path.is_file())
    return [path for path in found if path.name.casefold() not in without]


def clean() -> tuple[int, int]:
    """Delete the uncompressed copies and lists of archives in the cache folder; gives how many files, and bytes."""
    files = [path for path in (cache_dir() / "archives").glob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    for path in files:
        path.unlink()
    return len(files), size


@contextlib.contextmanager
def _explained(what: object, archive: Path, wrong: str = "cannot be read") -> Iterator[None]:
    """Answer what goes wrong when a file, an archive or a member of it is read in one line, a BenchError."""
    try:
        yield
    except RuntimeError as error:  # of zipfile: encrypted, or NotImplementedError for a compression it does not know
        raise BenchError(f"{what}: cannot be read ({error}); unpack {archive.name} by hand") from None
    except PermissionError as error:
        raise BenchError(f"{what}: cannot be read ({error.strerror}); correct its permissions") from None
    except (*_DAMAGED, OSError) as error:
        raise BenchError(f"{what}: {wrong} ({error}); get it again") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


class _Zip:
    def __init__(self, path: Path) -> None:
        self._file = zipfile.ZipFile(path)
        self._members = {
            _spelled(member.filename, "utf-8" if member.flag_bits & _UTF_8 else "cp437"): member
            for member in self._file.infolist()
            if not member.is_dir()
        }

    def names(self) -> list[str]:
        return [name for name in self._members if name]

    def size(self, name: str) -> int:
        return self._members[name].file_size

    def crc(self, name: str) -> int | None:
        return self._members[name].CRC

    def open(self, name: str) -> BinaryIO:
        member = self._members[name]
        _check_size(f"{self._file.filename}!{name}", member.file_size, member.compress_size)
        return cast("BinaryIO", self._file.open(member))


def _spelled(name: str, taken_for: str) -> str:
    """Return a member's path as it was meant: Windows writes backslashes, and names in the country's encoding.

    taken_for: the encoding that its bytes were decoded with
    """
    for encoding in ("utf-8", "gb18030"):
        with contextlib.suppress(UnicodeError):
            return name.encode(taken_for, "surrogateescape").decode(encoding).replace("\\", "/")
    return name.replace("\\", "/")


class _Tar:
    """members: where each begins, and its size; of a compressed archive in the copy that is made for the first read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            self._zipped = file.read(len(_GZIP)) == _GZIP  # whatever its name says: browsers unpack, and keep the name
        self._where = _listed_gzip(path) if self._zipped else _listed(path)

    def names(self) -> list[str]:
        return list(self._where)

    def size(self, name: str) -> int:
        return self._where[name][1]

    def crc(self, name: str) -> int | None:
        return None

    def open(self, name: str) -> BinaryIO:
        offset, size = self._where[name]
        with self.unpack().open("rb") as file:
            file.seek(offset)
            return io.BytesIO(file.read(size))

    def unpack(self) -> Path:
        """Return the archive, or the uncompressed copy in the cache folder, which is made once."""
        if not self._zipped:
            return self._path
        plain = _in_cache(self._path, ".tar")
        if not plain.exists():
            size = max((offset + length for offset, length in self._where.values()), default=0)
            _check_size(str(self._path), size, self._path.stat().st_size)
            _unpack_gzip(self._path, plain, size)
        return plain


def _listed(path: Path, stream: Any = None) -> dict[str, tuple[int, int]]:
    """Return where each member begins, and its size; read from the beginning to the end of a compressed stream."""
    with tarfile.open(path, "r:" if stream is None else "r|gz", stream, encoding="utf-8") as archive:
        return {_spelled(one.name, "utf-8"): (one.offset_data, one.size) for one in archive if one.isfile()}


def _listed_gzip(path: Path) -> dict[str, tuple[int, int]]:
    """List a .tar.gz. It is read to its end for that, so the list is kept in the cache folder."""
    kept = Remembered(_in_cache(path, ".json"))
    if (listed := kept.get("list", "")) is None:
        with path.open("rb") as file, _bar(file, path, "listing") as stream:
            listed = json.dumps(_listed(path, stream))
        kept.set("list", "", listed)
        kept.save()
    return {name: (offset, size) for name, (offset, size) in json.loads(listed).items()}


def _unpack_gzip(path: Path, plain: Path, size: int) -> None:
    try:
        plain.parent.mkdir(parents=True, exist_ok=True)
        check_room(plain.parent, size)
        print(
            f"bench: {path}: decompressed once to {plain} ({size_text(size)}); `bench datasets clean` deletes it",
            file=sys.stderr,
        )
        with (
            replacing(plain) as temporary,
            path.open("rb") as file,
            _bar(file, path, "decompressing") as stream,
            gzip.open(stream) as packed,
            temporary.open("wb") as target,
        ):
            shutil.copyfileobj(packed, target, 1 << 20)
    except (*_DAMAGED, gzip.BadGzipFile) as error:
        raise BenchError(f"{path}: the archive is cut off or damaged ({error}); get it again") from None
    except OSError as error:
        raise BenchError(
            f"{path}: cannot be decompressed to {plain.parent} ({error}); unpack it by hand, or set OVSS_BENCH_CACHE"
        ) from None


def _bar(file: BinaryIO, path: Path, does: str) -> Any:
    return tqdm.wrapattr(file, "read", total=path.stat().st_size, desc=f"{does} {path.name}", disable=None)


def _in_cache(path: Path, ending: str) -> Path:
    facts = path.stat()
    key = hashlib.sha256(f"{path.resolve()} {facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()[:16]
    return cache_dir() / "archives" / f"{path.name.partition('.')[0]}-{key}{ending}"


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
    with _explained(path, path, "not a whole zip or tar archive"):
        return _Zip(path) if zipfile.is_zipfile(path) else _Tar(path)
