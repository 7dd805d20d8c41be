"""Source files of plug-ins: part of the identity of their results, and where in them something went wrong."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.util
import inspect
import linecache
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.runtime.yaml_files import read_yaml

_loaded: dict[Path, set[Path]] = {}  # plug-in -> sources that were read while it was imported
_reading: list[set[Path]] = []  # of the imports in progress
_INSTALLED = ("site-packages", "dist-packages")


def source_of(plugin: Any) -> Path:
    """Return the file of a function or class, or the name under which Python keeps the text of its notebook cell.

    Raises BenchError where no source is kept, as of code that ran by `exec`.
    """
    try:
        file = inspect.getfile(plugin)
    except (OSError, TypeError):  # a class of a notebook has no file, its functions know their cell
        codes = [getattr(part, "__code__", None) for part in vars(plugin).values()]
        file = next((code.co_filename for code in codes if code), "its text")
    if not Path(file).is_file() and not linecache.getlines(file):
        raise BenchError(f"'{plugin.__name__}': {file} keeps no source; write it to a file, and give that as plugins=")
    return Path(file)


def source_hash(file: Path) -> str:
    """Return the SHA-256 of the code, without comments and docstrings, of a file and the modules that it imports.

    These are modules below the file's folder, imported directly or not. Seen are imports by name, in any form, and
    whatever was loaded inside `watching`; a notebook cell (`source_of`) is identified by its own code alone.
    """
    return _hash(file, _code_hash)


def text_hash(file: Path) -> str:
    """Return the SHA-256 of the text of the same files, as earlier versions identified a plug-in."""
    return _hash(file, _sha256)


@functools.cache
def shipped_codes(file: Path) -> dict[str, str]:
    """Read the hashes by which earlier versions name shipped code -> that of the code that computes the same now."""
    found: dict[str, str] = read_yaml(file, "the file that ships with the harness")
    return found


def _hash(file: Path, hashed: Callable[[bytes], str]) -> str:
    if not file.is_file():
        return hashed("".join(linecache.getlines(str(file))).encode())
    return _joined([hashed(path.read_bytes()) for path in sources(file)])


def sources(file: Path) -> list[Path]:
    """Return the files of a plug-in in the order of `source_hash`: it, and those below its folder that it imports."""
    return sorted(_with_imports(file))


def hash_of(contents: Sequence[bytes]) -> str:
    """Return the `source_hash` of a plug-in from what its `sources` hold, which is parsed and never run."""
    return _joined([_code_hash(content) for content in contents])


def _joined(hashes: Sequence[str]) -> str:
    return hashes[0] if len(hashes) == 1 else _sha256(b"".join(map(bytes.fromhex, hashes)))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@functools.lru_cache(maxsize=256)
def _code_hash(content: bytes) -> str:
    try:
        return _sha256(ascii(_plain(ast.parse(content))).encode())
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: nested too deeply
        return _sha256(content)


def _plain(node: Any) -> Any:
    """Return a syntax tree as nested tuples that are equal in all versions of Python, without docstrings."""
    if isinstance(node, ast.JoinedStr):  # to which Python 3.12.1 adds empty parts
        node = ast.JoinedStr([part for part in node.values if getattr(part, "value", None) != ""])
    if isinstance(node, ast.AST):
        fields = [(name, _plain(value)) for name, value in ast.iter_fields(node) if value is not None and value != []]
        return type(node).__name__, *fields
    if isinstance(node, list):
        return [_plain(one) for one in node if not _is_text(one)]
    return node


def _is_text(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@contextlib.contextmanager
def watching(file: Path) -> Iterator[None]:
    """Note which sources are read inside, while the plug-in `file` is imported, also by `importlib.util`."""
    if not _loaded:
        sys.addaudithook(_note)
    _reading.append(_loaded.setdefault(file, set()))
    try:
        yield
    finally:
        _reading.pop()


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    """Note a file that is opened, as the interpreter's audit hook."""
    if event == "open" and _reading and isinstance(arguments[0], str):
        path = arguments[0]
        if path.endswith(".pyc"):
            with contextlib.suppress(ValueError, NotImplementedError):  # no cached source; an interpreter without cache
                path = importlib.util.source_from_cache(path)
        if path.endswith(".py"):
            _reading[-1].add(Path(path))


def _with_imports(file: Path) -> set[Path]:
    found, waiting = {file}, [file, *_own(file.parent, _loaded.get(file, set()))]
    while waiting:
        path = waiting.pop()
        found.add(path)
        waiting += _own(file.parent, _imported(path, file.parent)) - found
    return found


def _own(folder: Path, files: set[Path]) -> set[Path]:
    """Return the files below a plug-in's folder, without packages that are installed there, and this one."""
    bench, real = Path(__file__).resolve().parents[1], folder.resolve()
    within = {path.resolve() for path in files if path.is_file()}
    within = {path for path in within if path.is_relative_to(real)}
    if not real.is_relative_to(bench):
        within = {path for path in within if not path.is_relative_to(bench)}
    own = {path.relative_to(real) for path in within}
    if folder.name in _INSTALLED:
        own = {path for path in own if len(path.parts) == 1}
    return {folder / path for path in own if not set(path.parts) & set(_INSTALLED)}


def _parsed(file: Path) -> ast.AST:
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return ast.Module([], [])  # it was not imported either


def _imported(file: Path, root: Path) -> set[Path]:
    """Files of the modules that a file imports by name: beside it, below the root, or where they were found."""
    found: set[Path] = set()
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.ImportFrom):
            module = (node.module or "").removeprefix("bench.methods").strip(".")
            base = file.parents[max(node.level, 1) - 1]
            names = [".".join(filter(None, (module, alias.name))) for alias in node.names]
        elif isinstance(node, ast.Import):
            names, base = [alias.name.removeprefix("bench.methods.") for alias in node.names], file.parent
        else:
            continue
        for name in names:
            parts = name.split(".")
            for count in range(1, len(parts) + 1):
                place = "/".join(parts[:count])
                found |= {folder / place / "__init__.py" for folder in (base, root)}
                found |= {(folder / f"{place}.py") for folder in (base, root)}
                known = getattr(sys.modules.get(".".join(parts[:count])), "__file__", None)
                found |= {Path(known)} if known else set()
    return found


def described(error: Exception, method: object) -> str:
    """Describe a method's error in one line, with file and line of the plug-in.

    The line is that of the frame in the plug-in that was reached last, or of the function whose result was refused.
    """
    place = _place(error, method)
    return f"{type(error).__name__}: {error}" + (f" ({place})" if place else "")


def _place(error: Exception, method: object) -> str | None:
    function: Any = inspect.unwrap(method.func) if isinstance(method, functools.partial) else method
    owner = function if inspect.isroutine(function) else type(function)
    try:
        file = Path(inspect.getfile(owner)).resolve()
        _, first = inspect.getsourcelines(owner)
    except (OSError, TypeError):  # built in a test or a notebook
        return None
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == file and frame.lineno]
    return f"{file.name}, line {lines[-1] if lines else first}"
